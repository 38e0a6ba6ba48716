"""The tables of docs/authorisation.md are what the doors ask, and its files are files that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.errors import AccessRefused
from broker.management import ManagedConnection
from broker.security.access import Access
from broker.security.acl_words import check_pair
from broker.security.guard import Guarded, Judge, Rules
from broker.security.identity import Identity
from broker.security.qpid_acl import parse
from broker.security.rules import Condition, Question, Rule, RuleSet, Subject

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "authorisation.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in row.split("|")[1:-1]] for row in PAGE.splitlines() if row.startswith("| ")]

DOORS = {
    # method of Access: arguments, the row of the table
    "enter": ((), "open a virtual host"),
    "declare_queue": (("q", True, False, False, {"x-max-length": 5, "x-dead-letter-exchange": "d",
                                                 "alternate-exchange": "a", "qpid.policy_type": "ring"}),
                      "declare a queue"),
    "see_queue": (("q",), "declare passively, query, see bindings"), "delete_queue": (("q",), "delete a queue"),
    "purge": (("q",), "purge a queue"), "consume": (("q",), "consume, get, browse"),
    "declare_exchange": (("x", "topic", True, False, {"alternate-exchange": "a"}), "declare an exchange"),
    "see_exchange": (("x",), "declare passively, query"), "delete_exchange": (("x",), "delete an exchange"),
    "bind": (("x", "q", True, "k", {}), "bind"), "unbind": (("x", "q", True, "k"), "unbind"),
    "publish": ((b"1", "x", "k"), "publish, a will, a retained message"),
    "publish_to": (("x",), "open a link to an exchange, with a key for each message"),
    "subscribe": (("x", "k"), "subscribe (MQTT), a link from an exchange"),
}


class Asked(Condition):
    """Keeps what is asked."""

    def __init__(self) -> None:
        self.questions: list[Question] = []

    def needs_key(self) -> bool:
        return False

    def holds(self, subject: Subject, question: Question) -> bool:
        self.questions.append(question)
        return True


class Witness(Judge):
    def __init__(self) -> None:
        self.asked = Asked()

    def court(self, identity: Identity, host: str) -> list[RuleSet]:
        return [RuleSet("", [Rule(True, "all", "all", "all", [self.asked])])]


def asked(method: str, *arguments: object) -> Question:
    witness = Witness()
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    getattr(Guarded(Rules(None, [witness]), connection, "/"), method)(*arguments)
    return witness.asked.questions[-1]


def test_every_door_is_in_the_table() -> None:
    assert DOORS.keys() | {"manage"} == {name for name, value in vars(Access).items()
                                         if callable(value) and not name.startswith("_")}


@pytest.mark.parametrize("method", DOORS)
def test_the_table_says_what_a_door_asks(method: str) -> None:
    arguments, title = DOORS[method]
    row = next(row for row in ROWS if row[0] == title)
    question = asked(method, *arguments)
    assert row[1].startswith(f"`{question.action} {question.object}`")
    told = set(re.findall(r"\w+", row[2]))
    if "the same" not in row[2]:
        named = {name.removesuffix("…") for name in told} | {"virtualhostname", "destination", "destinationkind"}
        unsaid = {name for name in question.values if name not in named}
        assert unsaid <= ({"autodelete", "exclusive", "passive"} if method in ("bind", "unbind", "subscribe")
                          else {"exclusive", "passive"}), unsaid


def test_actions_and_objects_of_the_tables_can_be_in_rules() -> None:
    for row in ROWS:
        for action, object in re.findall(r"`(\w+) (\w+)`", row[1] if len(row) > 2 else ""):
            if action in ("create", "access", "delete", "purge", "consume", "bind", "unbind", "publish", "move",
                          "update", "redirect", "reroute", "impersonate"):
                check_pair(action, object)


def test_the_files_of_the_page_can_be_read() -> None:
    files = [text for text in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) if "ACL ALLOW" in text]
    assert len(files) == 2
    for text in files:
        assert parse(text).rules


def test_the_page_of_rules_does_what_it_says() -> None:
    text = next(text for text in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) if "GROUP staff" in text)
    file = parse(text)

    class Filed(Judge):
        def court(self, identity: Identity, host: str) -> list[RuleSet]:
            return [file.rule_set()]

    def may(user: str, peer: str, method: str, *arguments: object) -> bool:
        connection = ManagedConnection()
        connection.identity, connection.peer = Identity(user), peer
        guard = Guarded(Rules(None, [Filed()], groups=file.groups_of()), connection, "/")
        try:
            getattr(guard, method)(*arguments)
        except AccessRefused:
            return False
        return True
    assert may("alice", "10.1.1.1:5", "enter") and not may("alice", "11.1.1.1:5", "enter")
    assert may("carol", "11.1.1.1:5", "enter") and not may("eve", "10.1.1.1:5", "enter")
    assert may("bob", "10.1.1.1:5", "publish", b"1", "orders", "new.a")
    assert not may("bob", "10.1.1.1:5", "publish", b"1", "orders", "old")
    assert may("bob", "10.1.1.1:5", "declare_queue", "reply-1", False, True, False, {})
    assert not may("bob", "10.1.1.1:5", "declare_queue", "reply-1", False, False, False, {})
