"""The password file, and who is let in by it."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.security import users as users_module
from broker.security.authenticator import Authenticator
from broker.security.identity import Identity, Peer
from broker.security.passwords import ScramVerifier, Verifier, parse_verifier
from broker.security.provider import Answer, Refusal
from broker.security.users import FileProvider, PasswordFile, User
from tests.provider_kit import Threads

# A cheap verifier of "pencil", for tests that make many checks; by the package scramp 1.5.0.
PENCIL = ("SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$nQpbZ77WudtqufPwikHXGRt6g2QJ4zns8bZLw273DRM="
          ":jn2amWP1q1h+jgjy0YTO14S6/F02SV7taipOeB7ef20=")


def passwords(tmp_path: Path, text: str) -> PasswordFile:
    path = tmp_path / "users"
    path.write_text(text, encoding="utf-8")
    file = PasswordFile(str(path))
    file.load()
    return file


def attempt(users: FileProvider, name: str, password: bytes, loopback: bool = False) -> tuple[bool, str]:
    """The verdict, of threads that run at once."""
    told: list[tuple[bool, str]] = []
    users.check_password(name, password, Peer(loopback=loopback), lambda result: told.append(verdict(result, name)))
    assert len(told) == 1
    return told[0]


def verdict(result: Identity | Refusal, name: str) -> tuple[bool, str]:
    """Whether somebody is let in, and if not, why."""
    if isinstance(result, Refusal):
        assert result.reason
        return False, result.reason
    assert result.user == name
    return True, ""


def first(file: PasswordFile, name: str) -> Verifier:
    """What a password that is sent is checked against."""
    user = file.user(name)
    assert user is not None
    return user.verifiers[0]


# -- the file


def test_a_new_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "users"
    file = PasswordFile(str(path))
    file.set("shop", "secret")
    file.set("b\u00e4r", "other", "SCRAM-SHA-256")
    file.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in path.read_text()
    again = PasswordFile(str(path))
    again.load()
    assert again.names() == ["shop", "b\u00e4r"]
    shop, bear = first(again, "shop"), first(again, "b\u00e4r")
    assert shop and shop.matches(b"secret") and not shop.matches(b"other")
    assert isinstance(bear, ScramVerifier) and bear.matches(b"other")
    assert os.listdir(tmp_path) == ["users"]


def test_comments_order_and_blank_lines_are_kept(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"# the shop\nshop:{PENCIL}\n\n  # others\r\n b:{PENCIL}\nc:{PENCIL}")
    assert file.names() == ["shop", "b", "c"]
    file.remove("b")
    file.set("shop", "new")
    file.set("d", "new")
    file.save()
    shop, d = first(file, "shop"), first(file, "d")
    assert shop and d
    assert Path(file.path).read_text() == (f"# the shop\nshop:{shop.text}\n\n  # others\nc:{PENCIL}\nd:{d.text}\n")
    file.save()  # our own change is nobody else's
    file.load()
    assert file.names() == ["shop", "c", "d"]


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert passwords(tmp_path, f"\ufeffshop:{PENCIL}\n").names() == ["shop"]


def test_a_file_changed_by_others_is_not_overwritten(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"shop:{PENCIL}\n")
    Path(file.path).write_text(f"shop:{PENCIL}\nother:{PENCIL}\n")
    file.set("mine", "secret")
    with pytest.raises(ValueError, match="changed since it was read: load it"):
        file.save()
    unread = PasswordFile(file.path)
    unread.set("mine", "secret")
    with pytest.raises(ValueError, match="changed since it was read"):
        unread.save()
    file.load()
    assert file.names() == ["shop", "other"]


def test_saving_keeps_the_owner_the_group_s_right_and_a_link(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"shop:{PENCIL}\n")
    if os.geteuid() == 0:
        os.chown(file.path, 12345, 12346)
    owner = os.stat(file.path)
    os.chmod(file.path, 0o664)
    link = tmp_path / "link"
    link.symlink_to(file.path)
    linked = PasswordFile(str(link))
    linked.load()
    linked.set("shop", "new")
    linked.save()
    assert link.is_symlink()
    after = os.stat(file.path)
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (owner.st_uid, owner.st_gid, 0o640)


def test_a_save_that_fails_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = passwords(tmp_path, f"shop:{PENCIL}\n")
    file.set("shop", "new")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.save()
    assert Path(file.path).read_text() == f"shop:{PENCIL}\n"
    assert os.listdir(tmp_path) == ["users"]


@pytest.mark.parametrize("line, says", [
    ("shop:hunter2", "never kept in clear"),
    ("shop", "not of the form name:verifier"),
    (f":{PENCIL}", "cannot be a user's name"),
    (f"shop :{PENCIL}", "cannot be a user's name"),
    (f"a\tb:{PENCIL}", "cannot be a user's name"),
    (f"first:{PENCIL}", "'first' is there twice"),
    ("caf\udce9:x", "not UTF-8"),
])
def test_a_bad_line_is_named_and_the_users_stay(tmp_path: Path, line: str, says: str) -> None:
    file = passwords(tmp_path, f"# comment\nfirst:{PENCIL}\n")
    bad = f"# comment\nfirst:{PENCIL}\n{line}\n"
    Path(file.path).write_bytes(bad.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=says) as caught:
        file.load()
    assert str(caught.value).startswith(f"{file.path}:3: ")
    assert "hunter2" not in str(caught.value)
    assert file.names() == ["first"]


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such password file: create it"):
        PasswordFile(str(tmp_path / "none")).load()
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        PasswordFile(str(tmp_path)).load()


@pytest.mark.parametrize("name", ["", "a:b", "#a", " a", "a ", "a\nb", "a\0b", "\ud800", "a\u2028b"])
def test_names_that_a_line_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    file = passwords(tmp_path, "")
    with pytest.raises(ValueError, match="cannot be a user's name"):
        file.set(name, "secret")
    with pytest.raises(ValueError, match="there is no user"):
        file.remove(name)


@given(st.binary(max_size=200))
def test_any_content_loads_or_is_a_value_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary"
    path.write_bytes(content)
    try:
        PasswordFile(str(path)).load()
    except ValueError as error:
        assert str(error).startswith(f"{path}:")


def test_a_user_may_have_several_verifiers_tags_and_groups(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"# ours\nshop owner:{PENCIL} CRAM-MD5${'0' * 64} tags=management,monitoring groups=x\n")
    user = file.user("shop owner")
    assert user is not None and [each.scheme for each in user.verifiers] == ["SCRAM-SHA-256", "CRAM-MD5"]
    assert (user.tags, user.groups) == (frozenset({"management", "monitoring"}), frozenset({"x"}))
    assert user.find(ScramVerifier, "SCRAM-SHA-1") is None
    assert file.schemes() == {"SCRAM-SHA-256", "CRAM-MD5"}
    file.set("shop owner", "new", "argon2", "SCRAM-SHA-1")
    file.put(User("other", file.user("shop owner").verifiers, tags=["administrator"]))
    file.save()
    again = PasswordFile(file.path)
    again.load()
    kept = again.user("shop owner")
    assert kept is not None and [each.scheme for each in kept.verifiers] == ["argon2", "SCRAM-SHA-1"]
    assert (kept.tags, kept.groups) == (frozenset({"management", "monitoring"}), frozenset({"x"}))
    told: list[Identity | Refusal] = []
    FileProvider(Threads().run, again).check_password("shop owner", b"new", Peer(), told.append)
    assert isinstance(told[0], Identity) and told[0].tags == kept.tags and told[0].groups == {"x"}


@pytest.mark.parametrize("rest, says", [
    (f"{PENCIL} {PENCIL}", "two verifiers of one scheme"), (f"{PENCIL} tags=a tags=b", "twice"),
    (f"{PENCIL}  tags=a", "not a verifier"), (f"{PENCIL} tags=", "an empty tag"), (f"{PENCIL} groups=a,,b", "an empty"),
    ("tags=a", "not a verifier"), ("", "not a verifier"), (f"{PENCIL} other=a", "not a verifier")])
def test_a_line_that_is_wrong_is_said_to_be(tmp_path: Path, rest: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"users:1: {says}|users:1: .*{says}"):
        passwords(tmp_path, f"shop:{rest}\n")


@pytest.mark.parametrize("word", ["", "a b", "a,b", "a\n"])
def test_tags_that_the_file_cannot_hold_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="cannot be a tag or group"):
        PasswordFile("never saved").put(User("shop", [parse_verifier(PENCIL)], tags=[word]))


# -- who is let in


def test_right_wrong_and_unknown(tmp_path: Path) -> None:
    users = FileProvider(Threads().run, passwords(tmp_path, f"shop:{PENCIL}\n"))
    assert attempt(users, "shop", b"pencil") == (True, "")
    assert attempt(users, "shop", b"wrong") == (False, "wrong password for user 'shop'")
    assert attempt(users, "shop", b"") == (False, "empty password for user 'shop'")
    assert attempt(users, "nobody", b"pencil") == (False, "there is no user 'nobody'")


def test_a_reason_takes_one_short_line_whatever_the_name() -> None:
    reason = attempt(FileProvider(Threads().run), "bad\n\ud800" + "x" * 500, b"\xff")[1]
    assert reason == r"there is no user 'bad\n\ud800" + "x" * 59 + "'..."


def test_an_unknown_user_costs_a_check_like_a_known_one(tmp_path: Path) -> None:
    threads = Threads()
    users = FileProvider(threads.run, passwords(tmp_path, f"shop:{PENCIL}\n"))
    for count in (1, 2):  # every time: refusals are not remembered
        assert attempt(users, "nobody", b"pencil") == (False, "there is no user 'nobody'")
        assert threads.count == count


def test_guest_is_let_in_over_loopback_only() -> None:
    threads = Threads()
    users = FileProvider(threads.run)
    assert attempt(users, "guest", b"guest", loopback=True) == (True, "")
    assert attempt(users, "guest", b"guest") == (False, "user 'guest' may log in over loopback only")
    assert attempt(users, "guest", b"wrong", loopback=True) == (False, "wrong password for user 'guest'")
    assert attempt(users, "nobody", b"guest", loopback=True) == (False, "there is no user 'nobody'")
    assert attempt(FileProvider(threads.run, guest=False), "guest", b"guest", loopback=True)[0] is False
    assert threads.count == 0  # there is nobody whose password a slow check would protect


def test_a_guest_in_the_file_has_the_file_s_password_and_the_same_rule(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"guest:{PENCIL}\n")
    users = FileProvider(Threads().run, file)
    assert attempt(users, "guest", b"guest", loopback=True)[0] is False
    assert attempt(users, "guest", b"pencil", loopback=True) == (True, "")
    assert attempt(users, "guest", b"pencil") == (False, "user 'guest' may log in over loopback only")
    assert attempt(FileProvider(Threads().run, file, loopback_users=()), "guest", b"pencil") == (True, "")


def test_a_right_password_is_checked_once(tmp_path: Path) -> None:
    threads = Threads()
    users = FileProvider(threads.run, passwords(tmp_path, f"shop:{PENCIL}\nshopp:{PENCIL}\n"))
    assert attempt(users, "shop", b"pencil")[0]
    threads.now = False
    assert attempt(users, "shop", b"pencil")[0]  # told at once
    assert threads.count == 1
    threads.now = True
    assert not attempt(users, "shop", b"wrong")[0]
    assert not attempt(users, "shop", b"wrong")[0]
    assert not attempt(users, "shopp", b"encil")[0]
    assert threads.count == 4


def test_what_was_found_right_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "CACHE_LIMIT", 2)
    threads = Threads()
    users = FileProvider(threads.run, passwords(tmp_path, "".join(f"{name}:{PENCIL}\n" for name in "abc")))
    for name in "abab":
        assert attempt(users, name, b"pencil")[0]
    assert threads.count == 2
    assert attempt(users, "a", b"pencil")[0] and attempt(users, "c", b"pencil")[0]  # c takes the place of b
    assert threads.count == 3
    assert attempt(users, "a", b"pencil")[0] and attempt(users, "b", b"pencil")[0]
    assert threads.count == 4


def test_a_changed_password_and_a_removed_user_count_at_once(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"shop:{PENCIL}\n")
    users = FileProvider(Threads().run, file)
    assert attempt(users, "shop", b"pencil")[0]
    other = PasswordFile(file.path)
    other.load()
    other.set("shop", "new", "SCRAM-SHA-1")
    other.save()
    assert attempt(users, "shop", b"pencil")[0]  # until the server loads it again
    file.load()
    assert not attempt(users, "shop", b"pencil")[0]
    assert attempt(users, "shop", b"new")[0]
    file.remove("shop")
    assert attempt(users, "shop", b"new") == (False, "there is no user 'shop'")


def test_a_change_during_the_check_refuses(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"shop:{PENCIL}\n")
    threads = Threads(now=False)
    users = FileProvider(threads.run, file)
    told: list[tuple[bool, str]] = []
    users.check_password("shop", b"pencil", Peer(), lambda result: told.append(verdict(result, "shop")))
    file.remove("shop")
    threads.flush()
    assert told == [(False, "user 'shop' was changed during the login")]


def test_equal_logins_at_once_share_one_check(tmp_path: Path) -> None:
    threads = Threads(now=False)
    users = FileProvider(threads.run, passwords(tmp_path, f"shop:{PENCIL}\nguest:{PENCIL}\n"))
    told: list[tuple[int, bool]] = []

    def numbered(number: int) -> Answer:
        return lambda result: told.append((number, isinstance(result, Identity)))

    for number in range(100):
        users.check_password("shop", b"pencil", Peer(), numbered(number))
    users.check_password("shop", b"wrong", Peer(), numbered(100))
    users.check_password("guest", b"pencil", Peer(), numbered(101))
    users.check_password("guest", b"pencil", Peer(loopback=True), numbered(102))
    assert (threads.count, told) == (4, [])
    threads.flush()
    assert told == [(number, number not in (100, 101)) for number in range(103)]


def test_a_check_that_fails_refuses_and_is_not_remembered(tmp_path: Path) -> None:
    threads = Threads()
    users = FileProvider(threads.run, passwords(tmp_path, f"shop:{PENCIL}\n"))
    threads.fails = MemoryError()
    assert attempt(users, "shop", b"pencil") == (False, "the password of user 'shop' could not be checked: MemoryError")
    threads.fails = RuntimeError("too many logins at once")
    assert "too many logins at once" in attempt(users, "shop", b"pencil")[1]
    threads.fails = None
    assert attempt(users, "shop", b"pencil") == (True, "")


def test_real_checks_run_on_threads_and_answer_on_the_loop(tmp_path: Path) -> None:
    file = PasswordFile(str(tmp_path / "users"))
    file.set("shop", "secret")
    file.set("device", "secret", "SCRAM-SHA-256")
    checked_on: set[int] = set()
    answered_on: set[int] = set()

    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()

        def run(work: Callable[[], object], done: Callable[[object | BaseException], None]) -> None:
            def counted() -> object:
                checked_on.add(threading.get_ident())
                return work()
            pool.submit(counted).add_done_callback(
                lambda future: loop.call_soon_threadsafe(done, future.exception() or future.result()))

        async def login(name: str, password: bytes) -> bool:
            answer: asyncio.Future[bool] = loop.create_future()

            def done(result: Identity | Refusal) -> None:
                answered_on.add(threading.get_ident())
                answer.set_result(isinstance(result, Identity))
            users.check_password(name, password, Peer(), done)
            return await answer

        users = FileProvider(run, file)
        return list(await asyncio.gather(login("shop", b"secret"), login("shop", b"Secret"), login("device", b"secret"),
                                         login("device", b""), login("nobody", b"secret")))

    with ThreadPoolExecutor(2) as pool:
        assert asyncio.run(main()) == [True, False, True, False, False]
    assert answered_on == {threading.get_ident()}
    assert checked_on and threading.get_ident() not in checked_on


# -- SCRAM


def test_scram_gives_a_real_verifier_or_one_that_looks_the_same(tmp_path: Path) -> None:
    file = passwords(tmp_path, f"shop:{PENCIL}\n")
    file.set("argon", "secret")
    users = FileProvider(Threads().run, file)
    kept, brother, other = (Authenticator([users], (), secret=secret) for secret in (b"kept", b"kept", b""))
    assert users.mechanisms() == {"PLAIN", "AMQPLAIN", "SCRAM-SHA-256"}
    verifier, identity = kept.scram("SCRAM-SHA-256", "shop", Peer())
    assert verifier is first(file, "shop") and isinstance(identity, Identity) and identity.user == "shop"
    for name, says in (("nobody", "there is no user"), ("argon", "has no SCRAM-SHA-256 verifier"),
                       ("guest", "loopback")):
        fake, refusal = kept.scram("SCRAM-SHA-256", name, Peer())
        assert isinstance(refusal, Refusal) and says in refusal.reason
        assert (fake.scheme, fake.iterations, len(fake.salt)) == ("SCRAM-SHA-256", 4096, 16)
        assert parse_verifier(fake.text).text == fake.text
        for same in (kept, brother):  # also after a restart
            assert same.scram("SCRAM-SHA-256", name, Peer())[0].salt == fake.salt
        assert other.scram("SCRAM-SHA-256", name, Peer())[0].salt != fake.salt
        assert kept.scram("SCRAM-SHA-256", name + "x", Peer())[0].salt != fake.salt
    refusal = kept.scram("SCRAM-SHA-1", "shop", Peer())[1]
    assert isinstance(refusal, Refusal) and refusal.reason == "user 'shop' has no SCRAM-SHA-1 verifier"
