"""What Qpid's users write about exchanges and bindings, through 0-9-1 and 1.0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Exchange, Queue

from tests.wire import Channel, channel_error
from tests.wire10 import ACCEPTED, RECEIVER, SENDER, Client10, message

Name = Callable[..., str]

pytestmark = pytest.mark.dragoman_only("these options are Qpid's")


def bodies(ch: Channel, queue: str) -> list[bytes]:
    found = []
    while (got := ch.get(queue)) is not None:
        found.append(got.body)
    return found


# The last value

@pytest.mark.parametrize("kind, fits, not_so", [("direct", "k", "other"), ("fanout", "", None), ("topic", "*", "a.b"),
                                                ("headers", None, None)])
def test_a_new_binding_gets_the_last_message(ch: Channel, name: Name, kind: str, fits: str | None,
                                             not_so: str | None) -> None:
    exchange, early, late, other = name("x"), name("early"), name("late"), name("other")
    ch.exchange(exchange, kind, arguments={"qpid.ive": 1})
    for queue in (early, late, other):
        ch.queue(queue)
    arguments = {"colour": "red"} if kind == "headers" else {}
    ch.bind(early, exchange, fits or "", arguments)
    assert bodies(ch, early) == []
    for body in (b"1", b"2"):
        ch.put(exchange, "k", body, headers={"colour": "red"})
    ch.bind(late, exchange, fits or "", arguments)
    assert bodies(ch, early) == [b"1", b"2"] and bodies(ch, late) == [b"2"]
    if not_so is not None:
        ch.bind(other, exchange, not_so)
    if kind == "headers":
        ch.bind(other, exchange, "", {"colour": "blue"})
    assert bodies(ch, other) == []
    ch.put(exchange, "k", b"3", headers={"colour": "red"})
    assert bodies(ch, early) == bodies(ch, late) == [b"3"]


def test_a_last_message_that_nobody_wanted_then(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange, arguments={"qpid.ive": "true"})
    ch.put(exchange, "k", b"x", delivery_mode=2)
    ch.queue(queue, durable=True)
    ch.bind(queue, exchange, "k")
    assert bodies(ch, queue) == [b"x"]
    ch.call(Exchange.Delete(exchange=exchange))


# Numbers

def test_messages_are_numbered(ch: Channel, wire: Client10, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange, arguments={"qpid.msg_sequence": 1, "qpid.sequence_counter": 10})
    ch.queue(queue)
    ch.bind(queue, exchange, "k")
    ch.put(exchange, "k", b"1")
    ch.put(exchange, "nobody", b"2")
    ch.put(exchange, "k", b"3", headers={"mine": "yes"}, priority=5, delivery_mode=2)
    wire.attach("in", SENDER, f"{exchange}/k")
    wire.transfer(message(b"4"), b"4")
    assert wire.outcome()[4].descriptor == ACCEPTED
    got = [ch.wait_get(queue) for _ in range(2)]
    assert [each.headers.get("qpid.msg_sequence") for each in got] == [11, 13]
    assert [each.body for each in got] == [b"1", b"3"]
    wire.attach("out", RECEIVER, queue, handle=1)
    wire.credit(1, handle=1)
    assert b"\x11qpid.msg_sequenceU\x0e" in wire.delivery()[1]  # a message annotation, 14 as a small long
    assert got[1].headers["mine"] == "yes" and got[1].properties.priority == 5


def test_confirms_of_a_numbered_message(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange, arguments={"qpid.msg_sequence": True, "qpid.ive": True})
    ch.queue(queue, durable=True)
    ch.bind(queue, exchange, "k")
    ch.confirm()
    for size in (1, 300_000):
        assert ch.confirmed(exchange, "k", b"x" * size, delivery_mode=2)
    assert [len(body) for body in bodies(ch, queue)] == [1, 300_000]


# Bindings

def test_exclusive_binding(ch: Channel, name: Name) -> None:
    exchange, first, second, other = name("x"), name("1"), name("2"), name("other")
    ch.exchange(exchange, "direct")
    for queue in (first, second, other):
        ch.queue(queue)
    ch.bind(first, exchange, "k")
    ch.bind(other, exchange, "other")
    ch.bind(second, exchange, "k", {"qpid.exclusive-binding": 1})
    ch.put(exchange, "k", b"x")
    ch.put(exchange, "other", b"y")
    assert [bodies(ch, queue) for queue in (first, second, other)] == [[], [b"x"], [b"y"]]
    ch.bind(first, exchange, "k", {"qpid.exclusive-binding": True})
    ch.put(exchange, "k", b"x")
    assert [bodies(ch, queue) for queue in (first, second)] == [[b"x"], []]


@pytest.mark.parametrize("kind, key", [("direct", "k"), ("topic", "#"), ("fanout", "")])
def test_selector_of_a_binding(ch: Channel, name: Name, kind: str, key: str) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange, kind)
    ch.queue(queue)
    ch.bind(queue, exchange, key, {"x-filter-jms-selector": "size > 3"})
    for size in (1, 5, 3, 4):
        ch.put(exchange, "k", str(size).encode(), headers={"size": size})
    assert bodies(ch, queue) == [b"5", b"4"]


def test_misspelt_options(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    with channel_error(406, f"PRECONDITION_FAILED - invalid arg 'qpid.ivy' for exchange '{exchange}' in vhost '/': "
                       "there is no such option", Exchange.Declare):
        ch.exchange(exchange, arguments={"qpid.ivy": 1})
    ch = ch.client.channel()
    ch.exchange(exchange)
    ch.queue(queue)
    with channel_error(406, f"PRECONDITION_FAILED - invalid arg 'qpid.exclusive_binding' for binding of exchange "
                       f"'{exchange}': there is no such option", Queue.Bind):
        ch.bind(queue, exchange, "k", {"qpid.exclusive_binding": 1})
    ch = ch.client.channel()
    arguments: dict[str, Any] = {"qpid.subject": "a header of messages"}
    ch.bind(queue, "amq.match", "", arguments)
