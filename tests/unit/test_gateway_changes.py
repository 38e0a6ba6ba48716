"""What bridges do to messages on their way: traces, rules, answers, ids; and bindings that reach upstream."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gateway_kit import FakeRemote, Home, body_of, message, until
from hypothesis import given
from hypothesis import strategies as st

from broker.message import AMQP010, AMQP091, AMQP10, Message
from broker.outcome import ACCEPT
from interop.ends import ANY, Delivery, Options
from interop.gateway import Gateway
from interop.mover import Skipped
from interop.patterns import Pattern, PatternError, Template
from interop.replies import Answers, Requests, Waiting
from interop.rules import RuleError, Rules, read
from interop.settings import EXACTLY_ONCE, PUSH, BridgeSettings, LinkSettings
from interop.states import UP
from interop.trace import Tracer, trace_of

LINK = LinkSettings(name="there", url="amqp://there/", reconnect_min=0, reconnect_max=0)


for _dialect in ("amqp10", "amqp010"):
    importlib.import_module(f"protocols.{_dialect}.convert")  # so that messages can be translated


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interop.bridge.GRACE", 0.01)


def passed(change: Callable[[Message, Delivery], Message], made: Message) -> Message:
    return change(made, Delivery(made, False, None))


def ruled(rules: list[dict[str, Any]], made: Message) -> Message:
    return passed(Rules(read(rules), ANY), made)


# Traces.


@pytest.mark.parametrize("dialect", [AMQP091, AMQP10, AMQP010])
def test_a_trace_grows_from_broker_to_broker_in_every_dialect(dialect: int) -> None:
    made = passed(Tracer("b", "a", True, 16), message(b"1", "k", "x").translated(dialect))
    assert made.dialect == dialect and trace_of(made) == ["a", "b"]
    for other in (AMQP091, AMQP10, AMQP010):
        assert trace_of(made.translated(other)) == ["a", "b"]
    with pytest.raises(Skipped):
        passed(Tracer("a", "b", True, 16), made)
    with pytest.raises(Skipped):
        passed(Tracer("c", "b", False, 16), made)  # nothing is pushed to where it came from
    assert trace_of(passed(Tracer("b", "c", False, 16), made)) == ["a", "b"]


def test_what_came_through_too_many_or_through_here_by_qpidd_stops() -> None:
    with pytest.raises(Skipped):
        passed(Tracer("z", "y", True, 2), message(b"", headers={"x-dragoman-trace": "a,b,c"}))
    with pytest.raises(Skipped):
        passed(Tracer("z", "y", True, 9), message(b"", headers={"x-qpid.trace": "a,z"}))


# Rules.


def test_rules_change_keys_headers_and_fields_in_their_order() -> None:
    made = message(b"1", "eu.orders.new", "x", {"old": "1", "secret": "s", "colour": "red"})
    changed = ruled([{"on": "key", "match": "eu.{rest}", "replace": "europe.{rest}"},
                     {"on": "header:secret", "drop": True}, {"on": "header:old", "rename": "new"},
                     {"on": "header:colour", "map": {"red": "rot"}}, {"on": "header:colour", "add": "no"},
                     {"on": "header:count", "add": 3}, {"on": "subject", "set": "s"}], made)
    view = changed.view()
    assert changed.address.routing_key == "europe.orders.new" and body_of(changed) == b"1"
    assert view.headers == {"new": "1", "colour": "rot", "count": 3}
    assert changed.translated(AMQP10).view().subject == "s"


def test_what_no_rule_changes_is_the_very_same_message() -> None:
    made = message(b"1", "k", "x", {"a": "b"})
    assert ruled([{"on": "header:z", "drop": True}, {"on": "key", "match": "no.{x}", "replace": "{x}"},
                  {"on": "header:a", "set": "c", "where": "a = 'other'"}], made) is made


def test_a_message_can_be_left_out() -> None:
    rules = [{"on": "message", "drop": True, "where": "a = 'b'"}]
    with pytest.raises(Skipped):
        ruled(rules, message(b"1", headers={"a": "b"}))
    ruled(rules, message(b"1", headers={"a": "c"}))


@pytest.mark.parametrize("rule, problem", [
    ({"on": "key"}, "one of"), ({"on": "nothing", "set": "x"}, "on is"), ({"on": "key", "drop": True}, "routing key"),
    ({"on": "key", "match": "{a}", "replace": "{b}"}, "no place"), ({"on": "key", "match": "{a}{b}", "replace": ""},
                                                                     "nothing between"),
    ({"on": "message", "set": "x"}, "only be dropped"), ({"on": "key", "set": 3}, "text"), ({"set": "x"}, "on must"),
    ({"on": "key", "set": "x", "when": "y"}, "not known"), ({"on": "subject", "rename": "x"}, "header"),
    ({"on": "key", "set": "x", "where": "a ="}, ".")])
def test_rules_that_make_no_sense_are_refused(rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(RuleError, match=problem):
        read([rule])


@given(st.lists(st.text("ab.", max_size=4), min_size=2, max_size=5), st.data())
def test_a_pattern_finds_what_was_put_into_its_places(literals: list[str], data: st.DataObject) -> None:
    literals = [literals[0], *(each or "." for each in literals[1:-1]), literals[-1]]
    text = "".join(literal + f"{{p{number}}}" for number, literal in enumerate(literals[:-1])) + literals[-1]
    values = {f"p{number}": data.draw(st.text("xyz", max_size=3)) for number in range(len(literals) - 1)}
    pattern = Pattern(text)
    assert pattern.match(Template(text, pattern).fill(values)) == values


def test_patterns_are_bounded() -> None:
    with pytest.raises(PatternError):
        Pattern("x" * 1001)
    with pytest.raises(PatternError):
        Pattern(".".join(f"{{p{number}}}" for number in range(21)))


# Answers.


def test_an_answer_finds_its_way_back_with_what_correlated_the_request() -> None:
    now = [0.0]
    waiting = Waiting(lambda: now[0])
    asks = Rules(read([{"on": "reply-to", "set": "my.replies"}, {"on": "correlation-id", "set": "c1"}]), ANY)
    asked = passed(Requests(waiting, "replies", 60, ANY), passed(asks, message(b"?", "q")))
    assert asked.view().reply_to == "replies"
    token = asked.view().correlation_id
    answer = passed(Rules(read([{"on": "correlation-id", "set": token}]), ANY), message(b"!", "replies"))
    back = passed(Answers(waiting), answer)
    assert (back.address.exchange, back.address.routing_key) == ("", "my.replies")
    assert back.view().correlation_id == "c1" and body_of(back) == b"!"
    now[0] = 61
    with pytest.raises(Skipped):
        passed(Answers(waiting), answer)


def test_what_wants_no_answer_goes_as_it_is() -> None:
    made = message(b"1", "q")
    assert passed(Requests(Waiting(), "replies", 60, ANY), made) is made


# Ids, and bindings.


def playing(play: Callable[[Home, Gateway, list[FakeRemote]], Awaitable[None]]) -> None:
    async def whole() -> None:
        home = Home()
        remotes: list[FakeRemote] = []

        def connect(url: str, dialect: int, options: Options) -> FakeRemote:
            remotes.append(FakeRemote(url, dialect, options))
            return remotes[-1]
        gateway = Gateway(home.broker, connect)
        try:
            await play(home, gateway, remotes)
        finally:
            await gateway.stop()
            home.close()
    asyncio.run(whole())


def test_a_pull_takes_a_message_once_by_its_id() -> None:
    async def play(home: Home, gateway: Gateway, remotes: list[FakeRemote]) -> None:
        home.queue("near")
        gateway.start([LINK], [BridgeSettings(name="in", link="there", remote_queue="far", local_queue="near",
                                              acknowledge=EXACTLY_ONCE, window=2)])
        await until(lambda: gateway.bridges["in"].state.name == UP)
        source = remotes[0].sources[0]
        for name in ("a", "b", "a", "c", "d", "a"):  # the last is forgotten by then
            source.give(name.encode(), headers={"x-dragoman-id": name})
        await until(lambda: len(source.settled) == 6)
        assert {outcome for _, outcome in source.settled} == {ACCEPT}
        assert home.bodies("near") == [b"a", b"b", b"c", b"d", b"a"]
        assert gateway.bridges["in"].duplicates() == 1
    playing(play)


def test_a_push_gives_an_entry_the_same_id_whenever_it_is_sent() -> None:
    async def play(home: Home, gateway: Gateway, remotes: list[FakeRemote]) -> None:
        home.queue("near")
        home.publish("", "near", b"1")
        gateway.start([LINK], [BridgeSettings(name="out", link="there", direction=PUSH, local_queue="near",
                                              remote_queue="far", acknowledge=EXACTLY_ONCE)])
        await until(lambda: remotes and remotes[0].targets and remotes[0].targets[0].got)
        remotes[0].lost.set_result("cut")
        await until(lambda: len(remotes) > 1 and remotes[-1].targets and remotes[-1].targets[0].got)
        first, second = (each.targets[0].got[0].view().headers["x-dragoman-id"] for each in (remotes[0], remotes[-1]))
        assert first == second
    playing(play)


def test_a_queue_that_knows_its_messages_drops_those_that_come_again() -> None:
    async def play(home: Home, gateway: Gateway, remotes: list[FakeRemote]) -> None:
        home.host.declare_queue("q", True, False, False, {"x-message-deduplication": True, "x-cache-size": 2}, home)
        for name in ("a", "b", "a", "c", "d", "a"):
            home.publish("", "q", name.encode(), {"x-deduplication-header": name})
        home.publish("", "q", b"none")
        home.publish("", "q", b"none")
        assert home.bodies("q") == [b"a", b"b", b"c", b"d", b"a", b"none", b"none"]
    playing(play)


def test_bindings_here_are_bindings_there_as_they_come_and_go() -> None:
    async def play(home: Home, gateway: Gateway, remotes: list[FakeRemote]) -> None:
        host, exchange = home.host, home.host.exchange("amq.topic")
        home.queue("q")
        home.queue("other", x_dragoman_federation="somebody")
        host.bind(exchange, host.queue("q"), "a.#", {})
        host.bind(exchange, host.queue("other"), "z", {})
        gateway.start([LINK], [BridgeSettings(name="in", link="there", remote_exchange="amq.topic", remote_queue="kept",
                                              local_exchange="amq.topic", federation=True)])
        await until(lambda: remotes and remotes[0].sources and remotes[0].sources[0].bound)
        source = remotes[0].sources[0]
        assert source.bound == ["a.#"]
        host.bind(exchange, host.queue("q"), "b", {})
        await until(lambda: source.bound == ["a.#", "b"])
        host.unbind(exchange, host.queue("q"), "a.#", {})
        await until(lambda: source.bound == ["b"])
        source.lost.set_result("cut")
        remotes[0].lost.set_result("cut")
        host.unbind(exchange, host.queue("q"), "b", {})  # while nobody is there to be told
        host.bind(exchange, host.queue("q"), "c", {})
        await until(lambda: len(remotes) > 1 and remotes[1].sources)
        again = remotes[1].sources[0]
        await until(lambda: again.bound == ["c"] and again.unbound == ["b"])
    playing(play)
