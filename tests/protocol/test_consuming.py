"""Consumers: tags, prefetch, acknowledgement, priorities, exclusive and single active ones, cancellation, recover."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from tests.wire import Channel, Client, eventually, unchecked

Name = Callable[..., str]
Connect = Callable[..., Client]


def fill(ch: Channel, queue: str, number: int) -> None:
    for one in range(number):
        ch.put("", queue, b"%d" % one)


def bodies(number: int, first: int = 0) -> list[bytes]:
    return [b"%d" % one for one in range(first, first + number)]


# Tags and deliveries

def test_consumer_tags(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    assert re.fullmatch(r"amq\.ctag-[-_A-Za-z0-9]{16,}", ch.consume(queue))
    assert ch.consume(queue, "tag") == "tag"
    assert ch.client.channel().consume(queue, "tag") == "tag"  # tags are a channel's
    assert ch.call(Basic.Cancel("tag")).consumer_tag == "tag"
    assert ch.consume(queue, "tag") == "tag"
    assert ch.call(Basic.Cancel("no such tag")).consumer_tag == "no such tag"


def test_deliver(ch: Channel, name: Name) -> None:
    queue, exchange = name(), name("x")
    ch.exchange(exchange, "fanout")
    ch.queue(queue)
    ch.bind(queue, exchange)
    ch.put(exchange, "key", b"body", message_id="m")
    ch.consume(queue, "tag")
    got = ch.delivery()
    assert dict(got.method) == {"consumer_tag": "tag", "delivery_tag": 1, "redelivered": False, "exchange": exchange,
                                "routing_key": "key"}
    assert (got.body, got.properties.message_id) == (b"body", "m")
    assert ch.count(queue) == 0


def test_delivery_tags_are_the_channels(ch: Channel, name: Name) -> None:
    one, two = name(), name()
    for queue in (one, two):
        ch.queue(queue)
    ch.consume(one, "a")
    ch.consume(two, "b", no_ack=True)
    tags = []
    for queue in (one, two, two, one):
        ch.put("", queue)
        got = ch.delivery()
        tags.append((got.method.consumer_tag, got.tag))
    assert tags == [("a", 1), ("b", 2), ("b", 3), ("a", 4)]
    ch.put("", one)
    another = ch.client.channel()
    ch.call(Basic.Cancel("a"))
    assert ch.delivery().tag == 5
    another.consume(one)
    ch.nack(5)
    got = another.delivery()
    assert (got.tag, got.method.redelivered) == (1, True)


def test_consume_ok_comes_before_the_first_delivery(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 3)
    ch.send(Basic.Consume(0, queue, "tag", no_ack=True))
    assert isinstance(ch.next(), Basic.ConsumeOk)
    assert ch.deliveries(3) == bodies(3)


def test_nothing_comes_after_cancel_ok(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, "tag")
    fill(ch, queue, 3)
    ch.call(Basic.Cancel("tag"))
    assert ch.deliveries(3) == bodies(3)  # sent before
    fill(ch, queue, 2)
    assert ch.idle(queue)
    assert ch.count(queue) == 2
    ch.ack(3, multiple=True)  # what was delivered may still be settled
    assert ch.count(queue) == 2


def test_consumers_take_turns(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for tag in ("a", "b", "c"):
        ch.consume(queue, tag, no_ack=True)
    fill(ch, queue, 9)
    got = [ch.delivery() for _ in range(9)]
    assert sorted(one.body for one in got) == bodies(9)
    assert all([one.method.consumer_tag for one in got].count(tag) == 3 for tag in ("a", "b", "c"))


# Prefetch

def test_prefetch_of_each_consumer(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 10)
    ch.qos(2)
    ch.consume(queue, "a")
    assert ch.deliveries(2) == bodies(2)
    ch.qos(3)
    assert ch.idle(queue)  # the first keeps what it began with
    ch.consume(queue, "b")
    got = [ch.delivery() for _ in range(3)]
    assert [(one.method.consumer_tag, one.body) for one in got] == [("b", b"2"), ("b", b"3"), ("b", b"4")]
    assert ch.idle(queue)
    ch.ack(1)
    got = [ch.delivery()]
    assert (got[0].method.consumer_tag, got[0].body) == ("a", b"5")
    assert ch.idle(queue)


def test_prefetch_of_the_channel(ch: Channel, name: Name) -> None:
    one, two = name(), name()
    for queue in (one, two):
        ch.queue(queue)
        fill(ch, queue, 5)
    ch.qos(3, True)
    ch.consume(one, "a")
    assert ch.deliveries(3) == bodies(3)
    ch.consume(two, "b")
    assert ch.idle(two) and ch.idle(one)
    ch.ack(1)
    ch.delivery()
    assert ch.idle(two) and ch.idle(one)
    ch.qos(4, True)  # takes effect at once
    ch.delivery()
    assert ch.idle(two) and ch.idle(one)


def test_both_prefetches_hold(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 10)
    ch.qos(3)
    ch.qos(4, True)
    ch.consume(queue, "a")
    ch.consume(queue, "b")
    tags = [ch.delivery().method.consumer_tag for _ in range(4)]
    assert max(tags.count("a"), tags.count("b")) <= 3
    assert ch.idle(queue)


def test_prefetch_0_is_no_limit(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 50)
    ch.qos(1)
    ch.qos(0)
    ch.consume(queue)
    assert ch.deliveries(50) == bodies(50)


def test_prefetch_does_not_hold_those_that_need_no_ack_nor_get(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 6)
    ch.qos(1)
    ch.qos(1, True)
    for _ in range(3):
        assert ch.get(queue, no_ack=False)
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(3) == bodies(3, 3)


@pytest.mark.parametrize("how", [lambda ch, tag: ch.nack(tag, requeue=False), lambda ch, tag: ch.reject(tag, False),
                                 lambda ch, tag: ch.ack(tag), lambda ch, tag: ch.ack(0, True)],
                         ids=["nack", "reject", "ack", "ack all"])
def test_every_settlement_gives_room(ch: Channel, name: Name, how: Callable[[Channel, int], None]) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 3)
    ch.qos(1)
    ch.consume(queue)
    for number in range(3):
        got = ch.delivery()
        assert got.body == b"%d" % number
        how(ch, got.tag)
    assert ch.idle(queue)


# Settling

def test_ack_multiple(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 6)
    ch.consume(queue)
    ch.deliveries(6)
    ch.ack(4)
    ch.ack(3, multiple=True)
    ch.close()
    second = ch.client.channel()
    eventually(lambda: second.count(queue) == 2)
    assert [second.wait_get(queue).body for _ in range(2)] == [b"4", b"5"]


@pytest.mark.parametrize("requeue", [True, False])
def test_nack_multiple(ch: Channel, name: Name, requeue: bool) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 5)
    ch.qos(5)
    ch.consume(queue, "tag")
    ch.deliveries(5)
    ch.call(Basic.Cancel("tag"))
    ch.ack(2)
    ch.nack(4, multiple=True, requeue=requeue)
    ch.settle(queue)
    assert ch.count(queue) == (3 if requeue else 0)
    if requeue:
        assert [ch.wait_get(queue).body for _ in range(3)] == [b"0", b"2", b"3"]
    ch.ack(5)
    ch.settle(queue)


def test_requeued_to_another_consumer_or_the_same(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.put("", queue, b"x")
    ch.consume(queue)
    for number in range(1, 5):
        got = ch.delivery()
        assert (got.tag, got.method.redelivered) == (number, number > 1)
        ch.reject(got.tag, requeue=True)
    assert ch.delivery().tag == 5


@pytest.mark.parametrize("how", ["channel", "connection", "socket"])
def test_unsettled_messages_go_back(ch: Channel, connect: Connect, name: Name, how: str) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 4)
    first = connect().channel()
    first.consume(queue)
    first.deliveries(4)
    first.ack(2)
    first.settle(queue)
    if how == "channel":
        first.close()
    elif how == "connection":
        first.client.close()
    else:
        first.client.drop()
    eventually(lambda: ch.count(queue) == 3)
    got = [ch.wait_get(queue) for _ in range(3)]
    assert [(one.body, one.method.redelivered) for one in got] == [(b"0", True), (b"2", True), (b"3", True)]


def test_unsettled_messages_go_back_to_waiting_consumers(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 4)
    other.qos(2)
    other.consume(queue)
    other.deliveries(2)
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(2) == [b"2", b"3"]
    other.close()
    got = [ch.delivery(), ch.delivery()]
    assert [(one.body, one.method.redelivered) for one in got] == [(b"0", True), (b"1", True)]


# Recover

def test_recover(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 3)
    ch.consume(queue)
    ch.deliveries(3)
    ch.ack(2)
    ch.call(Basic.Recover(True))
    got = [ch.delivery(), ch.delivery()]
    assert [(one.body, one.method.redelivered, one.tag) for one in got] == [(b"0", True, 4), (b"2", True, 5)]


def test_recover_async(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 2)
    assert ch.get(queue, no_ack=False)
    ch.send(unchecked(Basic.RecoverAsync, requeue=True))
    got = ch.wait_get(queue)
    assert (got.body, got.method.redelivered) == (b"0", True)
    assert ch.idle(queue)  # it has no answer


@pytest.mark.dragoman_only("RabbitMQ does not implement requeue=false")
def test_recover_without_requeueing(ch: Channel, other: Channel, name: Name) -> None:
    """The same consumers get their messages again, even while others wait."""
    queue = name()
    ch.queue(queue)
    fill(ch, queue, 3)
    ch.qos(3)
    ch.consume(queue, "tag")
    ch.deliveries(3)
    other.consume(queue)
    ch.ack(2)
    ch.call(Basic.Recover(False))
    got = [ch.delivery(), ch.delivery()]
    assert [(one.body, one.method.redelivered, one.method.consumer_tag) for one in got] == [
        (b"0", True, "tag"), (b"2", True, "tag")]
    assert other.idle(queue)


# Priorities, exclusive and single active consumers

def test_consumer_priorities(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.qos(2)
    for tag, priority in (("low", -5), ("high", 10), ("none", None)):
        ch.consume(queue, tag, arguments={} if priority is None else {"x-priority": priority})
    tags = []
    for _ in range(6):
        ch.put("", queue)
        tags.append(ch.delivery().method.consumer_tag)
    assert tags == ["high", "high", "none", "none", "low", "low"]
    ch.put("", queue)
    assert ch.idle(queue)
    ch.ack(1)
    assert ch.delivery().method.consumer_tag == "high"


def test_exclusive_consumer_may_follow_another(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, "tag", exclusive=True)
    ch.call(Basic.Cancel("tag"))
    other = ch.client.channel()
    other.consume(queue, "tag")


@pytest.fixture
def rivals(ch: Channel, connect: Connect, name: Name) -> tuple[str, list[Channel]]:
    """A queue with a single active consumer, and the channels of three consumers with a prefetch of 1."""
    queue = name()
    ch.queue(queue, arguments={"x-single-active-consumer": True})
    channels = [connect().channel() for _ in range(3)]
    for one in channels:
        one.qos(1)
        one.consume(queue, "tag")
    return queue, channels


def test_single_active_consumer(ch: Channel, rivals: tuple[str, list[Channel]]) -> None:
    queue, (first, second, third) = rivals
    fill(ch, queue, 2)
    assert first.delivery().body == b"0"
    assert second.idle(queue) and third.idle(queue)
    first.ack(1)
    assert first.delivery().body == b"1"
    first.call(Basic.Cancel("tag"))
    ch.put("", queue, b"2")
    assert second.delivery().body == b"2"  # the next in line; what is out stays out
    second.client.close()
    got = third.delivery()
    assert (got.body, got.method.redelivered) == (b"2", True)
    third.ack(got.tag)
    first.close()
    assert third.delivery().body == b"1"


@pytest.mark.dragoman_only("RabbitMQ 3.10 crashes the queue")
def test_single_active_consumer_cancels_with_messages_waiting(ch: Channel, rivals: tuple[str, list[Channel]]) -> None:
    queue, (first, second, third) = rivals
    fill(ch, queue, 3)
    assert first.delivery().body == b"0"
    first.call(Basic.Cancel("tag"))
    assert second.delivery().body == b"1"
    assert third.idle(queue)


# Cancelled by the broker

def test_cancel_notification(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, "a")
    ch.consume(queue, "b")
    other.call(Queue.Delete(0, queue))
    notes = [ch.expect(Basic.Cancel) for _ in range(2)]
    assert {note.consumer_tag for note in notes} == {"a", "b"}
    assert all(note.nowait for note in notes)
    ch.queue(queue)
    ch.consume(queue, "a")  # the tags are free again


def test_cancel_notification_comes_for_ones_own_delete_too(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, "tag")
    ch.call(Queue.Delete(0, queue))
    assert ch.expect(Basic.Cancel).consumer_tag == "tag"


def test_no_cancel_notification_for_clients_that_do_not_know_it(ch: Channel, connect: Connect, name: Name) -> None:
    queue, still = name(), name()
    plain = connect(properties={"product": "wire"}).channel()
    plain.queue(queue)
    plain.queue(still)
    plain.consume(queue, "tag")
    ch.call(Queue.Delete(0, queue))
    assert plain.idle(still)


def test_cancel_ok_to_a_notification_is_taken(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, "tag")
    other.call(Queue.Delete(0, queue))
    ch.expect(Basic.Cancel)
    assert ch.call(Basic.Cancel("tag")).consumer_tag == "tag"  # crossing it on the way
    ch.queue(exclusive=True)


# Consume arguments

@pytest.mark.parametrize("arguments", [{"x-unknown": 1}, {"x-priority": 1 << 40}, {"x-priority": -1}, {"any": None}],
                         ids=repr)
def test_consume_arguments(ch: Channel, name: Name, arguments: dict[str, Any]) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, arguments=arguments, no_ack=True)
    ch.put("", queue, b"x")
    assert ch.delivery().body == b"x"


def test_no_local_is_ignored(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, no_local=True, no_ack=True)
    ch.publish("", queue, b"mine")
    assert ch.delivery().body == b"mine"
