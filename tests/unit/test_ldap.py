"""Users of a directory, against OpenLDAP's slapd, and against servers that do not answer."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import escape_rdn

from broker.security import ldap
from broker.security.identity import Identity, Peer
from broker.security.ldap import Ldap, LdapSettings
from broker.security.provider import Refusal
from tests.authority import LOCAL, Authority, save
from tests.directory import SERVICE, SUFFIX, Slapd, slapd
from tests.peers import PeerMissing, free_ports
from tests.provider_kit import Clock, Threads, by_password, identity, refusal

PEOPLE = f"ou=people,{SUFFIX}"
SEARCH = {"base": SUFFIX, "bind_dn": SERVICE, "bind_password": b"service"}
TEMPLATE = {"user_dn": f"uid={{user}},{PEOPLE}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ldap")
    authority = Authority("Test CA")
    authority.save(made / "ca.pem")
    Authority("Test CA").save(made / "other.pem")
    save(made / "server.pem", *authority.issue("localhost", LOCAL[:1]))
    return made


@pytest.fixture(scope="module")
def directory(folder: Path) -> Iterator[Slapd]:
    try:
        with slapd(folder / "slapd", folder / "server.pem", anonymous="auth") as peer:
            yield peer
    except PeerMissing as missing:
        pytest.skip(str(missing))


def provider(peer: Slapd, folder: Path, threads: Threads | None = None, clock: Clock | None = None,
             tls: str = "starttls", **settings: Any) -> Ldap:
    urls = (f"ldaps://localhost:{peer.tls_port}" if tls == "ldaps" else f"ldap://localhost:{peer.port}",)
    values: dict[str, Any] = {"urls": urls, "start_tls": tls == "starttls", "ca": str(folder / "ca.pem"), **settings}
    return Ldap("directory", LdapSettings(**values), (threads or Threads()).run, clock or Clock())


def user(answer: Identity | Refusal) -> str:
    found = identity(answer)
    assert found.provider == "directory"
    return found.user


@pytest.mark.parametrize("tls", ["never", "starttls", "ldaps"])
@pytest.mark.parametrize("how", [SEARCH, TEMPLATE, {**TEMPLATE, **SEARCH}], ids=["search", "template", "both"])
def test_who_has_the_password_comes_in_by_the_name_of_the_directory(
        directory: Slapd, folder: Path, tls: str, how: dict[str, object]) -> None:
    asked = provider(directory, folder, tls=tls, **how)
    assert user(by_password(asked, "alice", b"wonderland")) == "alice"
    assert user(by_password(asked, "ALICE", b"wonderland")) == "alice"
    assert user(by_password(asked, "o'(m*)\\,", b"special")) == "o'(m*)\\,"
    wrong = refusal(by_password(asked, "alice", b"Wonderland"))
    assert wrong.reason == "wrong password for user 'alice'"
    assert wrong.unknown == ("user_dn" in how)  # a bind does not tell an unknown user from a wrong password
    nobody = refusal(by_password(asked, "nobody", b"wonderland"))
    assert nobody.unknown


@pytest.mark.parametrize("name", ["a*", "*", "alice)(uid=*", "\\2a", "alice\\00", "uid=alice"])
def test_a_name_is_a_name_and_no_pattern(directory: Slapd, folder: Path, name: str) -> None:
    for how in (SEARCH, TEMPLATE):
        assert refusal(by_password(provider(directory, folder, **how), name, b"wonderland")).unknown


@pytest.mark.parametrize("name", ["", "x" * 300, "al\0ice", "alice\n"])
def test_what_can_be_no_name_is_not_even_asked_for(directory: Slapd, folder: Path, name: str) -> None:
    threads = Threads()
    assert refusal(by_password(provider(directory, folder, threads, **SEARCH), name, b"wonderland")).unknown
    assert threads.count == 0


@pytest.mark.parametrize("password", [b"", b"\0", b"\0wonderland", b"wonderland\0"])
@pytest.mark.parametrize("how", [SEARCH, TEMPLATE], ids=["search", "template"])
def test_a_bind_without_a_password_proves_nothing(directory: Slapd, folder: Path, password: bytes,
                                                 how: dict[str, object]) -> None:
    assert not refusal(by_password(provider(directory, folder, **how), "alice", password)).unknown


def test_a_user_who_is_there_twice_is_refused(directory: Slapd, folder: Path) -> None:
    answer = refusal(by_password(provider(directory, folder, **SEARCH), "twin", b"twin"))
    assert (answer.reason, answer.unknown) == ("the directory has several entries for user 'twin'", False)


def test_users_may_be_searched_by_something_else(directory: Slapd, folder: Path) -> None:
    asked = provider(directory, folder, filter="(|(uid={user})(mail={user}))", **SEARCH)
    assert user(by_password(asked, "alice@example.org", b"wonderland")) == "alice"
    asked = provider(directory, folder, name_attribute="", **SEARCH)
    assert user(by_password(asked, "Alice", b"wonderland")) == "Alice"


def test_the_entry_that_is_found_is_the_one_that_logged_in(directory: Slapd, folder: Path) -> None:
    asked = provider(directory, folder, **{**SEARCH, **TEMPLATE, "filter": "(|(uid={user})(uid=bob))", "base":
                                           f"uid=bob,{PEOPLE}"})
    assert user(by_password(asked, "bob", b"builder")) == "bob"
    answer = refusal(by_password(asked, "alice", b"wonderland"))
    assert (answer.reason, answer.unknown) == (
        "user 'alice' has logged in as another entry than the search finds", False)


def test_groups_by_search(directory: Slapd, folder: Path) -> None:
    asked = provider(directory, folder, group_base=f"ou=groups,{SUFFIX}", **SEARCH)
    groups = {name: identity(by_password(asked, name, password)).groups
              for name, password in (("ALICE", b"wonderland"), ("bob", b"builder"), ("o'(m*)\\,", b"special"))}
    assert groups == {"ALICE": {"staff", "posix"}, "bob": {"staff"}, "o'(m*)\\,": {"odd"}}


def test_groups_that_the_users_entry_names(directory: Slapd, folder: Path) -> None:
    answer = by_password(provider(directory, folder, member_of="memberOf", **SEARCH), "alice", b"wonderland")
    assert identity(answer).groups == {"staff"}


def test_a_right_answer_is_kept_for_a_while_and_a_wrong_one_is_not(directory: Slapd, folder: Path) -> None:
    threads, clock = Threads(), Clock()
    asked = provider(directory, folder, threads, clock, cache_seconds=60, cache_users=2, **SEARCH)
    for _ in range(3):
        assert user(by_password(asked, "alice", b"wonderland")) == "alice"
    assert threads.count == 1
    for count in (2, 3):
        refusal(by_password(asked, "alice", b"wrong"))
        assert threads.count == count
    clock.now += 60
    assert user(by_password(asked, "alice", b"wonderland")) == "alice"
    assert threads.count == 4
    by_password(asked, "bob", b"builder")
    by_password(asked, "o'(m*)\\,", b"special")
    by_password(asked, "alice", b"wonderland")  # only the last two were kept
    assert threads.count == 7
    kept = repr(asked._known)
    assert "wonderland" not in kept
    assert len(asked._known) == 2


def test_the_same_login_is_asked_for_once_at_a_time(directory: Slapd, folder: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ldap, "WAITING_LIMIT", 1)
    threads = Threads()
    threads.now = False
    asked = provider(directory, folder, threads, **SEARCH)
    answers: list[Identity | Refusal] = []
    for _ in range(3):
        asked.check_password("alice", b"wonderland", Peer(), answers.append)
    assert (threads.count, answers) == (1, [])
    assert refusal(by_password(asked, "bob", b"builder")).reason == "too many logins wait for the directory"
    threads.flush()
    assert [user(each) for each in answers] == ["alice"] * 3


def test_a_server_that_is_down_refuses_and_says_so_once(directory: Slapd, folder: Path,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    threads, clock = Threads(), Clock()
    (port,) = free_ports(1)
    asked = provider(directory, folder, threads, clock, urls=(f"ldap://127.0.0.1:{port}",), retry=5, **SEARCH)
    for seconds in (0, 1, 5):
        clock.now += seconds
        answer = refusal(by_password(asked, "alice", b"wonderland"))
        assert not answer.unknown  # the next provider must not let in the directory's users
        assert answer.trouble  # nor must its users be locked out
        assert answer.reason.startswith("the directory cannot be reached")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "nobody can log in by it for now" in caplog.text


def test_another_server_stands_in_and_the_first_comes_back(directory: Slapd, folder: Path,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    (port,) = free_ports(1)
    asked = provider(directory, folder, None, clock, urls=(f"ldap://localhost:{port}",
                                                           f"ldap://localhost:{directory.port}"), **SEARCH)
    assert user(by_password(asked, "alice", b"wonderland")) == "alice"
    assert user(by_password(asked, "bob", b"builder")) == "bob"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "others can" in caplog.text
    first = asked._servers._all[0]
    asked._servers.up(first)
    asked._servers.up(first)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.parametrize("tls", ["never", "starttls", "ldaps"])
def test_a_server_that_says_nothing_is_given_up(directory: Slapd, folder: Path, tls: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        scheme = "ldaps" if tls == "ldaps" else "ldap"
        asked = provider(directory, folder, tls=tls, urls=(f"{scheme}://127.0.0.1:{port}",), timeout=1, **SEARCH)
        assert not refusal(by_password(asked, "alice", b"wonderland")).unknown


@pytest.mark.parametrize(("scheme", "host", "ca"), [
    ("ldap", "127.0.0.1", "ca.pem"), ("ldaps", "127.0.0.1", "ca.pem"),  # the certificate is for localhost
    ("ldap", "localhost", "other.pem"), ("ldaps", "localhost", "other.pem"), ("ldaps", "localhost", "")])
def test_a_server_with_anothers_certificate_gets_no_password(directory: Slapd, folder: Path, scheme: str, host: str,
                                                            ca: str) -> None:
    port = directory.tls_port if scheme == "ldaps" else directory.port
    asked = provider(directory, folder, urls=(f"{scheme}://{host}:{port}",), ca=str(folder / ca) if ca else "",
                     **TEMPLATE)
    answer = refusal(by_password(asked, "alice", b"wonderland"))
    assert not answer.unknown
    assert "certificate verify failed" in answer.reason.lower().replace("_", " ")


def test_a_service_account_that_is_refused_lets_nobody_in(directory: Slapd, folder: Path) -> None:
    asked = provider(directory, folder, base=SUFFIX, bind_dn=SERVICE, bind_password=b"wrong")
    answer = refusal(by_password(asked, "alice", b"wonderland"))
    assert not answer.unknown
    assert f"{SERVICE} cannot log in to search" in answer.reason
    assert "b'wrong'" not in repr(LdapSettings((), bind_password=b"wrong"))


def test_a_base_that_is_not_there_or_not_to_be_seen_lets_nobody_in(directory: Slapd, folder: Path) -> None:
    for settings in ({**SEARCH, "base": f"ou=missing,{SUFFIX}"}, {"base": SUFFIX}):  # anonymous clients see nothing
        assert not refusal(by_password(provider(directory, folder, **settings), "alice", b"wonderland")).unknown


def test_anonymous_search(folder: Path, tmp_path: Path) -> None:
    try:
        with slapd(tmp_path, anonymous="read") as peer:
            asked = provider(peer, folder, tls="never", base=SUFFIX)
            assert user(by_password(asked, "alice", b"wonderland")) == "alice"
            assert not refusal(by_password(asked, "alice", b"wrong")).unknown
            peer.kill()
            assert not refusal(by_password(asked, "bob", b"builder")).unknown
    except PeerMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("settings", [
    {"urls": ()}, {"urls": ("http://localhost",)}, {"urls": ("ldap://",)}, {"base": ""}, {"filter": "(uid=*)"},
    {"user_dn": "uid=alice"}, {"bind_password": b""}, {"bind_dn": ""}, {"ca": "/nowhere"}])
def test_settings_that_cannot_be_used(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Ldap("directory", LdapSettings(**{"urls": ("ldap://localhost",), **SEARCH, **settings}), Threads().run)


@given(st.text(min_size=1, max_size=30).filter(str.isprintable))
def test_any_name_fits_into_a_filter_and_a_dn(name: str) -> None:
    written = ldap._filled("(uid={user})", {"user": escape_filter_chars(name)})
    assert not set(written[5:-1]) & set("()*\0")
    bare = re.sub(r"\\.", "", ldap._filled(TEMPLATE["user_dn"], {"user": escape_rdn(name)}))  # without what is escaped
    assert (bare.count(","), bare.count("+"), bare.count("=")) == (3, 0, 4)


@pytest.mark.parametrize(("dn", "name"), [
    ("cn=staff,ou=groups", "staff"), ("CN=a\\, b,ou=groups", "a, b"), ("cn=c#+uid=x,ou=g", "c#"),
    ("cn=\\c3\\a4\\2C,o=x", "ä,"), ("staff", "staff"), ("", "")])
def test_a_group_is_called_by_the_first_part_of_its_name(dn: str, name: str) -> None:
    assert ldap._first_name(dn) == name
