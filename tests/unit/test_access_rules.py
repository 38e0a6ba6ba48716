"""The engine of access rules and the doors that ask it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from broker_kit import Running
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import AccessRefused
from broker.management import ManagedConnection
from broker.message import address_of
from broker.security.guard import LINES, QUIET, REMEMBERED, Guarded, Judge, Rules
from broker.security.identity import Identity
from broker.security.rules import (
    ALL,
    ALLOW,
    DEFER,
    DENY,
    From,
    Property,
    Question,
    Rule,
    RuleSet,
    Subject,
    judge,
    simple_pattern,
)


class Written(Judge):
    """Rules that a test has written."""

    def __init__(self, *rules: Rule, default: int = DENY) -> None:
        self.rules = RuleSet("test.acl", list(rules), default)

    def court(self, identity: Identity, host: str) -> list[RuleSet]:
        return [self.rules]


def allow(who: str, action: str, object: str, **properties: str) -> Rule:
    return Rule(True, who, action, object, _conditions(object, properties), text=f"allow {who} {action} {object}")


def deny(who: str, action: str, object: str, **properties: str) -> Rule:
    return Rule(False, who, action, object, _conditions(object, properties), text=f"deny {who} {action} {object}")


def _conditions(object: str, properties: dict[str, str]) -> list:
    return [Property(name, simple_pattern(value, name == "routingkey")) for name, value in properties.items()]


def guard(*rules: Rule, user: str = "bob", host: str = "/", default: int = DENY, **policy: object) -> Guarded:
    connection = ManagedConnection()
    connection.peer = "10.1.2.3:4567"
    connection.identity = Identity(user)
    made = Rules(None, [Written(*rules, default=default)], **policy)
    access = made.access(connection, host)
    assert isinstance(access, Guarded)
    return access


def test_without_a_rule_everything_is_refused_in_rabbitmqs_words() -> None:
    access = guard()
    for act, text in (
            (access.enter, "access to vhost '/' refused for user 'bob'"),
            (lambda: access.declare_queue("q", True, False, False, {}), "access to queue 'q' in vhost '/' refused for "
                                                                        "user 'bob'"),
            (lambda: access.declare_exchange("x", "topic", True, False, {}),
             "access to exchange 'x' in vhost '/' refused for user 'bob'"),
            (lambda: access.publish(b"\0\1k", "", "k"), "access to exchange 'amq.default' in vhost '/' refused for "
                                                        "user 'bob'"),
            (lambda: access.manage("move", "queue", "q", {}),
             "access to queue 'q' in vhost '/' refused for user 'bob'"),
            (lambda: access.manage("update", "broker", "", {}), "update of broker refused for user 'bob'")):
        with pytest.raises(AccessRefused) as refused:
            act()
        assert str(refused.value) == text


def test_the_first_rule_that_fits_decides() -> None:
    access = guard(deny("bob", "create", "queue", name="secret*"), allow("bob", "create", "queue"))
    access.declare_queue("open", True, False, False, {})
    with pytest.raises(AccessRefused):
        access.declare_queue("secrets", True, False, False, {})


def test_decisions_about_publishing_are_remembered_until_the_rules_change() -> None:
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    policy = Rules(None, [Written(allow("bob", "publish", "exchange", routingkey="a.#"))])
    access = policy.access(connection, "/")
    address = address_of("x", "a.b")
    access.publish(address.short_strings, "x", "a.b")
    policy.change(Rules(None, [Written()]))
    with pytest.raises(AccessRefused):
        access.publish(address.short_strings, "x", "a.b")
    policy.change(Rules(None, []))
    access.publish(address.short_strings, "x", "a.b")


def test_no_more_than_so_many_decisions_are_remembered_and_none_of_exchanges_that_are_not_there(
        tmp_path: Path) -> None:
    running = Running(tmp_path, 10)
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    access = Guarded(Rules(running.broker, [Written(allow(ALL, ALL, ALL))]), connection, "/")
    for number in range(REMEMBERED + 10):
        access.publish(b"%d" % number, "amq.topic", str(number))
        access.publish(b"-%d" % number, "none", str(number))
    assert len(access.decided) == 10
    running.close()


def test_an_exchange_of_another_type_under_the_same_name_is_asked_about_anew(tmp_path: Path) -> None:
    running = Running(tmp_path, 10)
    running.broker.policy = policy = Rules(running.broker, [Written(
        deny(ALL, "publish", "exchange", type="topic"), allow(ALL, ALL, ALL))])
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    access = policy.access(connection, "/")
    running.host.declare_exchange("x", "direct", False, False, False, {})
    access.publish(b"1", "x", "k")
    running.host.delete_exchange("x", False)
    running.host.declare_exchange("x", "topic", False, False, False, {})
    with pytest.raises(AccessRefused):
        access.publish(b"1", "x", "k")
    running.close()


def test_a_link_to_an_exchange_is_opened_where_some_key_is_allowed() -> None:
    access = guard(deny("bob", "publish", "exchange", name="x", routingkey="secret.#"),
                   allow("bob", "publish", "exchange", name="x", routingkey="a.#"))
    access.publish_to("x")
    with pytest.raises(AccessRefused):
        access.publish_to("y")
    with pytest.raises(AccessRefused):
        access.publish(b"1", "x", "secret.a")


def test_names_with_and_without_a_realm() -> None:
    rule = allow("bob@QPID", "create", "queue", name="${userdomain}")
    guard(rule, realms=["QPID"]).declare_queue("bob_QPID", False, False, False, {})
    guard(rule, user="bob@QPID").declare_queue("bob_QPID", False, False, False, {})
    guard(allow("bob", ALL, ALL), user="bob@QPID", realms=["QPID"]).enter()
    for access in (guard(rule), guard(allow("bob", ALL, ALL), user="bob@EVIL", realms=["QPID"]),
                   guard(rule, user="bob@EVIL", realms=["QPID"])):
        with pytest.raises(AccessRefused):
            access.declare_queue("bob_QPID", False, False, False, {})


@pytest.mark.parametrize("user", ["*", "#", "*@QPID"])
def test_a_wildcard_for_a_name_is_none(user: str) -> None:
    rules = (allow(ALL, "create", "queue", name="${user}"), allow(ALL, "publish", "exchange", routingkey="${user}"))
    access = guard(*rules, user=user, realms=["QPID"])
    with pytest.raises(AccessRefused):
        access.declare_queue("any", False, False, False, {})
    with pytest.raises(AccessRefused):
        access.publish(b"1", "x", "any")


def test_what_a_client_says_makes_no_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AccessRefused):
        guard(user="bob\nroot").consume("q\n127.0.0.1: all is well")
    assert "\n" not in caplog.records[-1].getMessage()


def test_groups_of_the_files_and_of_the_identity() -> None:
    rule = allow("staff", ALL, ALL)
    guard(rule, groups={"bob": frozenset({"staff"})}).enter()
    connection = ManagedConnection()
    connection.identity = Identity("carol", frozenset({"staff"}))
    Rules(None, [Written(rule)]).access(connection, "/").enter()
    with pytest.raises(AccessRefused):
        guard(rule, groups={"carol": frozenset({"staff"})}).enter()


def test_networks() -> None:
    there = Rule(True, ALL, "access", "virtualhost", [From([ip_network("10.1.0.0/16")])])
    elsewhere = Rule(True, ALL, "access", "virtualhost", [From([ip_network("10.2.0.0/16")])])
    guard(there).enter()
    with pytest.raises(AccessRefused):
        guard(elsewhere).enter()


def test_only_who_is_named_may_send_in_anothers_name() -> None:
    assert not guard(allow(ALL, ALL, ALL)).connection.impersonates
    assert guard(allow("bob", "impersonate", "user")).connection.impersonates
    assert guard(impersonators=frozenset({"bob"})).connection.impersonates


def test_where_the_key_makes_no_difference_an_exchange_is_asked_about_once(tmp_path: Path) -> None:
    running = Running(tmp_path, 10)
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    access = Guarded(Rules(running.broker, [Written(
        deny("bob", "publish", "exchange", name="amq.topic", routingkey="a.#"),
        allow("bob", "publish", "exchange", name="amq*"))]), connection, "/")
    for number in range(50):
        access.publish(b"direct %d" % number, "amq.direct", str(number))
        access.publish(b"topic %d" % number, "amq.topic", str(number))
        with pytest.raises(AccessRefused):
            access.publish(b"a %d" % number, "amq.topic", f"a.{number}")
    assert list(access.exchanges) == ["amq.direct"] and len(access.decided) == 150
    running.close()


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(("amq.topic", "amq.*", "*", None)),
                          st.sampled_from(("a.#", "#", "b", None))), max_size=6),
       st.lists(st.tuples(st.sampled_from(("amq.topic", "amq.direct", "")), st.sampled_from(("a", "a.b", "b", "c"))),
                min_size=1, max_size=12))
def test_what_is_remembered_is_what_would_be_decided(running: Running, written: list, published: list) -> None:
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    rules = [Rule(allowed, ALL, "publish", "exchange", _conditions("exchange", {
        key: value for key, value in (("name", name), ("routingkey", wanted)) if value is not None}))
        for allowed, name, wanted in written]
    access = Guarded(Rules(running.broker, [Written(*rules)]), connection, "/")
    for exchange, key in published:
        found = naive([(rule.allow, ALL, "publish", "exchange", None) for rule, (_, name, wanted) in
                       zip(rules, written, strict=True)
                       if simple_pattern(name or "*", False).fits(exchange or "amq.default", access.subject)
                       and simple_pattern(wanted or "#", True).fits(key, access.subject)],
                      DENY, "bob", set(), "publish", "exchange", exchange)
        try:
            access.publish(address_of(exchange, key).short_strings, exchange, key)
        except AccessRefused:
            assert not found
        else:
            assert found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("store"), 10)
    yield made
    made.close()


def test_a_client_that_is_refused_time_and_again_fills_no_log(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    running = Running(tmp_path, 10)
    connection = ManagedConnection()
    connection.identity = Identity("bob")
    access = Guarded(Rules(running.broker, [Written()]), connection, "/")

    def refused(times: int) -> list[str]:
        caplog.clear()
        for _ in range(times):
            with pytest.raises(AccessRefused):
                access.consume("q")
        return [record.getMessage() for record in caplog.records]
    assert len(refused(LINES + 5)) == LINES
    running.clock.now += QUIET
    assert [line.endswith("; and 5 times more since the line before") for line in refused(2)] == [True, False]
    running.close()


# Against a naive model.

USERS = ("bob", "carol", "staff", ALL)
ACTIONS = ("create", "delete", "consume", ALL)
OBJECTS = ("queue", "exchange", ALL)
NAMES = ("a", "ab", "b", "a*", "*")

rules = st.lists(st.tuples(st.booleans(), st.sampled_from(USERS), st.sampled_from(ACTIONS), st.sampled_from(OBJECTS),
                           st.one_of(st.none(), st.sampled_from(NAMES))), max_size=8)


def naive(written: list[tuple], default: int, user: str, groups: set[str], action: str, object: str,
          name: str) -> bool | None:
    for allowed, who, acts, on, wanted in written:
        if who not in (ALL, user, *groups) or acts not in (ALL, action) or on not in (ALL, object):
            continue
        if wanted is None or wanted == name or (wanted.endswith("*") and name.startswith(wanted[:-1])):
            return allowed
    return None if default == DEFER else default == ALLOW


@given(st.lists(st.lists(st.tuples(rules, st.sampled_from((ALLOW, DENY, DEFER))), max_size=3), max_size=3),
       st.sampled_from(("bob", "carol")), st.booleans(), st.sampled_from(ACTIONS[:3]), st.sampled_from(OBJECTS[:2]),
       st.sampled_from(("a", "ab", "b", "c")))
def test_the_engine_decides_as_a_naive_one_does(courts: list, user: str, in_group: bool, action: str, object: str,
                                                name: str) -> None:
    groups = {"staff"} if in_group else set()
    made = [[RuleSet("f", [Rule(allowed, who, acts, on,
                                [] if wanted is None else [Property("name", simple_pattern(wanted, False))])
                           for allowed, who, acts, on, wanted in written], default) for written, default in court]
            for court in courts]
    subject = Subject(user, frozenset({user}), frozenset(groups))
    found = judge(made, subject, Question(action, object, {"name": name}))
    wanted = True
    for court in courts:
        answers = [naive(written, default, user, groups, action, object, name) for written, default in court]
        wanted = wanted and next((answer for answer in answers if answer is not None), False)
    assert found.allowed == wanted


def naive_topic(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(naive_topic(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and naive_topic(pattern[1:], words[1:])


@given(st.lists(st.sampled_from(("a", "b", "*", "#")), min_size=1, max_size=6),
       st.lists(st.sampled_from(("a", "b", "")), min_size=1, max_size=6))
def test_topic_patterns_fit_as_a_naive_matcher_says(pattern: list[str], words: list[str]) -> None:
    nobody = Subject("", frozenset(), frozenset())
    found = simple_pattern(".".join(pattern), True).fits(".".join(words), nobody)
    assert found == naive_topic(pattern, words)


def test_a_pattern_of_many_wildcards_takes_no_time() -> None:
    nobody = Subject("", frozenset(), frozenset())
    assert not simple_pattern(".".join(["#"] * 120) + ".b", True).fits(".".join("a" * 120), nobody)


def test_random_questions_of_one_guard_hold_however_often_they_are_asked() -> None:
    access = guard(deny("bob", "publish", "exchange", routingkey="a.*"), allow("bob", "publish", "exchange"))
    for _ in range(200):
        key = random.choice(("a.b", "a", "b", "a.b.c"))
        if key == "a.b":
            with pytest.raises(AccessRefused):
                access.publish(key.encode(), "x", key)
        else:
            access.publish(key.encode(), "x", key)
