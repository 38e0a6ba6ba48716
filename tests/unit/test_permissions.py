"""RabbitMQ's permissions: their file, tags, topics, the scopes of tokens, and the expressions they are written in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import Turns

from broker.broker import Broker, Watcher
from broker.clock import Alarm, Clock
from broker.errors import AccessRefused
from broker.management import ManagedConnection
from broker.security.expressions import Expression
from broker.security.guard import Guarded, Rules
from broker.security.identity import Identity
from broker.security.permissions import Permission, PermissionFile, PermissionJudge, TopicPermission
from broker.security.rules import Subject
from store.memory import MemoryStore

ANYBODY = Subject("", frozenset(), frozenset())


class Client(ManagedConnection):
    """A connection that says which client it is."""

    def container(self) -> str:
        return "device.7"


@pytest.fixture(scope="module", autouse=True)
def broker() -> Iterator[None]:
    """The broker whose exchanges are asked about, with a topic exchange and others."""
    loop = Turns()
    made = Broker(MemoryStore(loop), loop, Clock(), Alarm(), Watcher(), 1 << 30, 100, 1 << 30)
    host = made.add_host("/")
    for _ in made.recover():
        pass
    for name, kind in (("x", "direct"), ("d", "direct"), ("other", "direct"), ("wide", "topic")):
        host.declare_exchange(name, kind, False, False, False, {})
    RUNNING.append(made)
    yield
    RUNNING.clear()
    made.close()
    loop.settle()


RUNNING: list[Broker] = []


def guard(identity: Identity, *rows: Permission | TopicPermission, host: str = "/", prefix: str = "") -> Guarded:
    file = PermissionFile("p")
    for row in rows:
        file.put(row)
    connection = Client()
    connection.identity = identity
    return Guarded(Rules(RUNNING[0], [PermissionJudge(file, ["QPID"], prefix)], realms=["QPID"]), connection, host)


def refusal(door: Guarded, method: str, *arguments: object) -> str:
    """The text of a refusal; "" when it is allowed."""
    try:
        getattr(door, method)(*arguments)
    except AccessRefused as error:
        return str(error)
    return ""


BOB = Identity("bob")
C, W, R = "configure", "write", "read"
DOORS = [
    # a door, and what RabbitMQ asks for: permission and name
    (("declare_queue", "q", True, False, False, {}), [(C, "q")]),
    (("declare_queue", "", True, False, False, {}), [(C, "amq.gen-0000000000000000000000")]),
    (("declare_queue", "q", True, False, False, {"x-dead-letter-exchange": "d"}), [(C, "q"), (R, "q"), (W, "d")]),
    (("declare_queue", "q", True, False, False, {"alternate-exchange": "d"}), [(C, "q"), (R, "q"), (W, "d")]),
    (("see_queue", "q"), []),
    (("delete_queue", "q"), [(C, "q")]),
    (("purge", "q"), [(R, "q")]),
    (("consume", "q"), [(R, "q")]),
    (("declare_exchange", "n", "topic", True, False, {}), [(C, "n")]),
    (("declare_exchange", "n", "topic", True, False, {"alternate-exchange": "d"}), [(C, "n"), (R, "n"), (W, "d")]),
    (("declare_exchange", "x", "topic", True, False, {"alternate-exchange": "d"}), [(C, "x")]),  # it is there already
    (("see_exchange", "x"), []),
    (("delete_exchange", "x"), [(C, "x")]),
    (("bind", "x", "q", True, "k", {}), [(W, "q"), (R, "x")]),
    (("unbind", "x", "q", True, "k"), [(W, "q"), (R, "x")]),
    (("bind", "x", "d", False, "k", {}), [(W, "d"), (R, "x")]),
    (("publish", b"1", "x", "k"), [(W, "x")]),
    (("publish", b"1", "", "k"), [(W, "amq.default")]),
    (("publish_to", "x"), [(W, "x")]),
    (("subscribe", "x", "k"), [(R, "x")]),
]


@pytest.mark.parametrize(("door", "needs"), DOORS, ids=[f"{door[0]}-{len(needs)}" for door, needs in DOORS])
def test_which_operation_needs_what(door: tuple, needs: list) -> None:
    """Just what the table says is enough, and not without each part of it."""
    def patterns(asked: list) -> list[str]:
        return ["|".join(f"^{re.escape(name)}$" for wanted, name in asked if wanted == permission)
                for permission in (C, W, R)]

    assert refusal(guard(BOB, Permission("bob", "/", *patterns(needs))), *door) == ""
    for left_out in needs:
        text = refusal(guard(BOB, Permission("bob", "/", *patterns([each for each in needs if each != left_out]))),
                       *door)
        name = left_out[1]
        kind = "exchange" if name in ("x", "n", "d", "amq.default") else "queue"
        assert text == f"access to {kind} '{name}' in vhost '/' refused for user 'bob'"


def test_who_has_no_permission_in_a_virtual_host_does_not_get_in() -> None:
    row = Permission("bob", "/", "", "", "")
    assert refusal(guard(BOB, row), "enter") == ""
    assert refusal(guard(BOB, row, host="b"), "enter") == "access to vhost 'b' refused for user 'bob'"
    assert refusal(guard(Identity("carol"), row), "enter") == "access to vhost '/' refused for user 'carol'"
    assert refusal(guard(Identity("bob@QPID"), row), "enter") == ""
    assert refusal(guard(Identity("bob@EVIL"), row), "enter")


def test_an_empty_expression_fits_nothing_and_others_anywhere() -> None:
    assert refusal(guard(BOB, Permission("bob", "/", "", ".*", ".*")), "declare_queue", "q", True, False, False, {})
    assert not refusal(guard(BOB, Permission("bob", "/", "b", "", "")), "declare_queue", "abc", True, False, False, {})


def test_topics() -> None:
    rows = (Permission("bob", "/", ".*", ".*", ".*"),
            TopicPermission("bob", "/", "amq.topic", r"^{username}\.{client_id}$", r"^open\."))
    door = guard(BOB, *rows)
    assert refusal(door, "publish", b"1", "amq.topic", "bob.device.7") == ""
    for key in ("bob.device-7", "carol.device.7", ""):
        assert refusal(door, "publish", key.encode(), "amq.topic", key) == (
            f"access to topic '{key}' in exchange 'amq.topic' in vhost '/' refused for user 'bob'")
    assert refusal(door, "bind", "amq.topic", "q", True, "open.a", {}) == ""
    assert refusal(door, "subscribe", "amq.topic", "closed.a")
    assert refusal(door, "publish", b"2", "other", "anything") == ""
    assert refusal(door, "publish_to", "amq.topic") == ""
    narrow = TopicPermission("bob", "/", "x", "^a$", "^a$")  # of an exchange that is none of topics
    assert refusal(guard(BOB, rows[0], narrow), "publish", b"1", "x", "any") == ""


@pytest.mark.parametrize(("tags", "allowed"), [
    ("", ""), ("management", "query method own"), ("policymaker", "query method own"),
    ("monitoring", "query method own access"), ("administrator", "query method own access update other link"),
    ("impersonator", ""), ("strange", "")])
def test_tags(tags: str, allowed: str) -> None:
    door = guard(Identity("bob", tags=frozenset(tags.split())), Permission("bob", "/", ".*", ".*", ".*"))
    asked = {"query": ("access", "query", "queue", {}), "method": ("access", "method", "echo", {}),
             "access": ("access", "broker", "", {}), "update": ("update", "broker", "", {"property": "log level"}),
             "own": ("delete", "connection", "c", {"username": "bob"}), "link": ("create", "link", "l", {}),
             "other": ("delete", "connection", "c", {"username": "carol"})}
    assert {name for name, question in asked.items() if not refusal(door, "manage", *question)} == set(allowed.split())
    assert door.connection.impersonates == (tags == "impersonator")


def test_moving_messages_is_to_read_and_to_write() -> None:
    door = guard(BOB, Permission("bob", "/", "", "^b$", "^a$"))
    assert refusal(door, "manage", "move", "queue", "a", {"queuename": "b"}) == ""
    assert refusal(door, "manage", "move", "queue", "b", {"queuename": "b"})
    assert refusal(door, "manage", "redirect", "queue", "a", {"queuename": "a"})
    assert refusal(door, "manage", "reroute", "queue", "a", {"exchangename": "x"})


# Scopes.

def token(*scopes: str) -> Identity:
    return Identity("svc", scopes=frozenset(scopes))


def test_scopes_are_permissions() -> None:
    door = guard(token("d.configure:%2F/q-*", "d.read:*/*", "d.write:%2F/amq.topic/a.*", "other.write:*/*"),
                 prefix="d.")
    assert refusal(door, "enter") == ""
    assert refusal(door, "declare_queue", "q-1", True, False, False, {}) == ""
    assert refusal(door, "declare_queue", "p", True, False, False, {})
    assert refusal(door, "consume", "any") == ""
    assert refusal(door, "publish", b"1", "amq.topic", "a.b") == ""
    assert refusal(door, "publish", b"2", "amq.topic", "b") == (
        "access to topic 'b' in exchange 'amq.topic' in vhost '/' refused for user 'svc'")
    assert refusal(door, "publish", b"3", "x", "a.b")
    assert refusal(door, "subscribe", "amq.topic", "anything") == ""
    assert refusal(door, "manage", "access", "query", "queue", {})
    assert refusal(guard(token("d.read:other/*"), prefix="d."), "enter")
    assert refusal(guard(token("read:*/*"), prefix="d."), "enter")


def test_a_scope_must_fit_exchange_and_key_together() -> None:
    door = guard(token("d.write:*/wide/a", "d.write:*/amq.topic/b"), prefix="d.")
    assert refusal(door, "publish", b"1", "wide", "a") == "" and refusal(door, "publish", b"2", "wide", "b")


def test_tags_and_broken_scopes() -> None:
    door = guard(token("d.tag:administrator", "d.read:*/*", "d.read", "d.write:*", "d.", "d.frob:*/*", "d.read:/",
                       "d.write:a/b/c/d"), prefix="d.")
    assert refusal(door, "manage", "update", "broker", "", {}) == ""
    assert refusal(door, "publish", b"1", "x", "k")


def test_tokens_are_judged_by_scopes_alone_where_these_count() -> None:
    row = Permission("svc", "/", ".*", ".*", ".*")
    assert refusal(guard(token("d.read:none/x"), row, prefix="d."), "enter")
    assert refusal(guard(token("d.read:none/x"), row), "enter") == ""
    assert refusal(guard(Identity("svc"), row, prefix="d."), "enter") == ""


def test_without_a_file_who_has_no_token_may_do_nothing() -> None:
    (court,) = PermissionJudge(PermissionFile(""), [], "d.").court(Identity("svc"), "/")
    assert (court.name, court.rules) == ("permissions (nothing for user svc in virtual host /)", [])


# The file.

def test_the_file_keeps_what_it_is_told_and_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "permissions"
    path.write_text("# ours\npermission bob / '^b ob' '' \"it's\"\n\ntopic bob / amq.topic a b\n")
    file = PermissionFile(str(path))
    file.load()
    assert file.permissions["bob", "/"] == Permission("bob", "/", "^b ob", "", "it's", 2)
    file.put(Permission("carol", "a b", "'\"\\ $", ".*", ".*"))
    file.put(Permission("bob", "/", "x", "y", "z"))
    file.save()
    assert os.stat(path).st_mode & 0o777 == 0o640  # its group could read it before
    assert path.read_text().startswith("# ours\npermission bob / x y z\n\ntopic bob / amq.topic a b\n")
    again = PermissionFile(str(path))
    again.load()
    assert again.permissions["carol", "a b"].configure == "'\"\\ $"
    assert again.clear_topic("bob", "/", "amq.topic") and not again.clear_topic("bob", "/", "amq.topic")
    assert again.clear("bob", "/") and not again.clear("bob", "/")
    assert again.clear_user("carol") and not again.clear_user("carol")
    again.save()
    assert path.read_text() == "# ours\n\n"
    with pytest.raises(ValueError, match="was changed since it was read"):
        file.save()


@pytest.mark.parametrize(("text", "problem"), [
    ("permission bob /", ":1: lines are: permission USER VHOST"), ("\nfrob\n", ":2: lines are"),
    ("permission bob / ( . .", "no regular expression"), ("topic bob / x '(?<=a)b' .", "looking ahead"),
    ("permission bob / '", ":1: not to be read: no closing quotation"),
    ("permission bob / a b c\npermission bob / d e f", ":2: is there twice"),
    ("permission '' / a b c", "users and virtual hosts have names"), ("permission b\xe9 / a b c", "not UTF-8")])
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "permissions"
    path.write_bytes(text.encode("latin-1"))
    file = PermissionFile(str(path))
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        file.load()
    assert problem in str(error.value)
    assert file.permissions == {}


@given(st.binary(max_size=200) | st.text("permission topic bob/'\"\\ \n.*#", max_size=80).map(str.encode))
@settings(max_examples=200)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-permissions"
    path.write_bytes(content)
    file = PermissionFile(str(path))
    try:
        file.load()
    except ValueError as error:
        assert str(error).startswith(f"{path}:")
    else:
        file.save()
        again = PermissionFile(str(path))
        again.load()
        assert again.permissions == file.permissions and again.topics == file.topics


# Expressions.

ATOMS = st.sampled_from(("a", "b", ".", "[ab]", "[^a]", r"\w", "^", "$", r"\b", r"\B", r"\d", r"\.", "[a-z1]", r"\s",
                         r"\A", r"\Z", "", "(?i:)"))
EXPRESSIONS = st.recursive(ATOMS, lambda inner: st.one_of(
    st.tuples(inner, inner).map("".join), st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
    st.tuples(inner, st.sampled_from(("*", "+", "?", "{2}", "{1,3}", "*?", "{2,}"))).map(
        lambda two: f"({two[0]}){two[1]}"),
    st.tuples(st.sampled_from(("(?!", "(?=")), inner).map(lambda two: f"{two[0]}{two[1]})")), max_leaves=8)


@given(EXPRESSIONS, st.sampled_from(("", "(?i)", "(?s)", "(?m)")),
       st.lists(st.text("abA.-1\nz ", max_size=7), min_size=1, max_size=5))
@settings(max_examples=500)
def test_expressions_find_what_pythons_do(written: str, flags: str, texts: list[str]) -> None:
    try:
        made = Expression(flags + written)
    except ValueError as error:
        assert "flags halfway" in str(error) and "(?i:" in written
        return
    whole = Expression(flags + written, whole=True)
    for text in texts:
        if not text and r"\B" in written:
            continue  # which Python answers by its version
        assert made.fits(text, ANYBODY) == (re.search(flags + written, text) is not None)
        assert whole.fits(text, ANYBODY) == (re.fullmatch(flags + written, text) is not None)


@pytest.mark.parametrize("bomb", ["(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(.*)*b.*c.*d", "^(?!(a+)+b)(a*)*$",
                                  "(" * 20 + "a*" + ")*" * 20])
def test_bombs_do_not_go_off(bomb: str) -> None:
    """With backtracking, any of these takes longer than the test's time limit."""
    made = Expression(bomb + "#")
    assert not made.fits("a" * 255, ANYBODY)


@pytest.mark.parametrize("wrong", ["(", "a{1000}{1000}", "(a)\\1", "(?<!a)b", "a{99999}", "(" * 2000 + ")" * 2000,
                                   "(?>a)", "a*+", "(?P<x>a)(?(x)b|c)"])
def test_what_is_no_plain_expression_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="regular expression|nested"):
        Expression(wrong)
