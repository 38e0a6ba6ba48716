"""Queues: names, life cycles, counts, and what each keeps in which order."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from pamqp.commands import Basic, Queue

from tests.wire import Channel, Client, Content, channel_error, eventually, raw_method, shortstr

Name = Callable[..., str]
Connect = Callable[..., Client]


# Names

def test_server_named_queue(ch: Channel) -> None:
    names = {ch.temporary() for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"amq\.gen-[-_A-Za-z0-9]{16,}", one) for one in names), names
    one = names.pop()
    assert ch.queue(one, passive=True).queue == one
    with channel_error(403, f"ACCESS_REFUSED - queue name '{one}' contains reserved prefix 'amq.*'", Queue.Declare):
        ch.queue(one, exclusive=True)


def test_last_declared_queue(ch: Channel, name: Name) -> None:
    first, second = name(), name()
    ch.queue(first)
    ch.queue(second)
    ch.queue(first, passive=True)
    ch.put("", first, b"x")
    got = ch.get("")
    assert got and got.body == b"x"
    ch.put("", first, b"x")
    assert ch.call(Queue.Purge(0, "")).message_count == 1
    ch.consume("", "tag")
    assert ch.queue(first, passive=True).consumer_count == 1
    ch.call(Basic.Cancel("tag"))
    ch.call(Queue.Delete(0, ""))
    assert not ch.exists(first) and ch.exists(second)


def test_last_declared_queue_is_of_the_channel(ch: Channel, name: Name) -> None:
    first, second = name(), name()
    ch.queue(first)
    another = ch.client.channel()
    another.queue(second)
    ch.call(Queue.Delete(0, ""))
    assert not ch.exists(first) and ch.exists(second)


def test_declare_ok_counts(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    ok = ch.queue(queue)
    assert (ok.queue, ok.message_count, ok.consumer_count) == (queue, 0, 0)
    for _ in range(3):
        ch.put("", queue)
    assert ch.get(queue, no_ack=False)
    ok = ch.queue(queue)
    assert (ok.message_count, ok.consumer_count) == (2, 0)  # those ready
    other.qos(1)
    other.consume(queue)
    other.delivery()
    ok = ch.queue(queue, passive=True)
    assert (ok.message_count, ok.consumer_count) == (1, 1)


def test_without_answer(ch: Channel, name: Name) -> None:
    queue = name()
    ch.send(Queue.Declare(0, queue, nowait=True))
    assert ch.count(queue) == 0
    ch.put("", queue)
    ch.send(Queue.Purge(0, queue, nowait=True))
    assert ch.count(queue) == 0
    ch.send(Basic.Consume(0, queue, "tag", nowait=True))
    ch.put("", queue, b"x")
    got = ch.next()
    assert got.method.consumer_tag == "tag"
    ch.send(Basic.Cancel("tag", True))
    assert ch.queue(queue, passive=True).consumer_count == 0
    ch.send(Queue.Delete(0, queue, nowait=True))
    ch.queue(exclusive=True)
    assert not ch.exists(queue)
    assert not ch.client.inbox[ch.number]


# Purge and delete

def test_purge(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for number in range(5):
        ch.put("", queue, b"%d" % number)
    got = ch.get(queue, no_ack=False)
    assert got
    assert ch.call(Queue.Purge(0, queue)).message_count == 4
    assert ch.call(Queue.Purge(0, queue)).message_count == 0
    ch.nack(got.tag)  # what was out is not purged
    assert ch.wait_get(queue).body == b"0"


def test_delete_counts_the_messages(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for _ in range(3):
        ch.put("", queue)
    assert ch.call(Queue.Delete(0, queue)).message_count == 3
    assert not ch.exists(queue)
    assert ch.call(Queue.Delete(0, queue)).message_count == 0


def test_delete_of_an_unused_and_empty_queue(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, "tag", no_ack=True)
    ch.put("", queue, b"x")
    ch.delivery()
    ch.call(Basic.Cancel("tag"))
    ch.call(Queue.Delete(0, queue, if_unused=True, if_empty=True))
    assert not ch.exists(queue)


def test_deliveries_of_a_deleted_queue_may_still_be_settled(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for _ in range(3):
        ch.put("", queue, b"x")
    tags = [got.tag for got in (ch.get(queue, no_ack=False) for _ in range(3)) if got]
    ch.call(Queue.Delete(0, queue))
    ch.ack(tags[0])
    ch.nack(tags[1])
    ch.reject(tags[2], requeue=False)
    ch.queue(exclusive=True)


def test_declaring_anew_gives_an_empty_queue(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.put("", queue, b"old")
    ch.call(Queue.Delete(0, queue))
    ch.queue(queue, durable=True, arguments={"x-max-length": 5})
    assert ch.count(queue) == 0


# Exclusive and auto-delete

def test_exclusive_queue_goes_with_its_connection(ch: Channel, connect: Connect, name: Name) -> None:
    queue, dropped = name(), name("dropped")
    owner = connect()
    owner.channel().queue(queue, exclusive=True)
    owner.close()
    eventually(lambda: ch.gone(queue))
    owner = connect()
    owner.channel().queue(dropped, exclusive=True, durable=True)
    owner.drop()
    eventually(lambda: ch.gone(dropped))


def test_exclusive_queue_outlives_its_channel(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, exclusive=True)
    ch.close()
    second = ch.client.channel()
    assert second.queue(queue, exclusive=True).queue == queue


def test_exclusive_queue_may_be_taken_after_its_owner(ch: Channel, connect: Connect, name: Name) -> None:
    queue = name()
    owner = connect()
    owner.channel().queue(queue, exclusive=True)
    owner.close()
    eventually(lambda: ch.gone(queue))
    assert ch.queue(queue, exclusive=True).queue == queue


@pytest.mark.parametrize("how", ["cancel", "channel", "connection"])
def test_auto_delete_queue_goes_with_its_last_consumer(ch: Channel, connect: Connect, name: Name, how: str) -> None:
    queue = name()
    ch.queue(queue, auto_delete=True)
    ch.put("", queue, b"x")
    first, second = connect().channel(), connect().channel()
    first.consume(queue, "tag")
    second.consume(queue, "tag")
    for one, there in ((first, True), (second, False)):
        if how == "cancel":
            one.call(Basic.Cancel("tag"))
        elif how == "channel":
            one.close()
        else:
            one.client.close()
        eventually(lambda there=there: ch.exists(queue) == there)


def test_auto_delete_queue_that_was_never_consumed_stays(ch: Channel, connect: Connect, name: Name) -> None:
    queue = name()
    ch.queue(queue, auto_delete=True)
    ch.put("", queue, b"x")
    assert ch.get(queue)
    first = connect()
    assert first.channel().queue(queue, auto_delete=True).queue == queue
    first.close()
    assert ch.exists(queue)


# Order and redelivery

def test_first_in_first_out(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for number in range(200):
        ch.publish("", queue, b"%d" % number)
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(200) == [b"%d" % number for number in range(200)]


def test_requeued_messages_take_their_places_again(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for number in range(6):
        ch.put("", queue, b"%d" % number)
    got = [ch.get(queue, no_ack=False) for _ in range(4)]
    ch.nack(got[2].tag)
    ch.reject(got[0].tag)
    ch.settle(queue)
    after = [ch.get(queue) for _ in range(4)]
    assert [one.body for one in after if one] == [b"0", b"2", b"4", b"5"]
    assert [one.method.redelivered for one in after if one] == [True, True, False, False]
    ch.nack(0, multiple=True)
    ch.settle(queue)
    assert [one.body for one in (ch.get(queue), ch.get(queue)) if one] == [b"1", b"3"]
    assert ch.get(queue) is None


def test_get(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.bind(queue, "amq.direct", queue)
    ch.put("amq.direct", queue, b"first")
    ch.put("", queue, b"second")
    got = ch.call(Basic.Get(0, queue))
    assert isinstance(got, Content) and dict(got.method) == {
        "delivery_tag": 1, "redelivered": False, "exchange": "amq.direct", "routing_key": queue, "message_count": 1}
    got = ch.call(Basic.Get(0, queue, no_ack=True))
    assert (got.body, got.tag, got.method.exchange, got.method.message_count) == (b"second", 2, "", 0)
    assert isinstance(ch.call(Basic.Get(0, queue)), Basic.GetEmpty)
    ch.nack(1)
    assert ch.wait_get(queue).method.redelivered


def test_get_while_others_consume(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    other.qos(1)
    other.consume(queue, exclusive=True)
    ch.put("", queue, b"1")
    ch.put("", queue, b"2")
    assert other.delivery().body == b"1"
    assert ch.wait_get(queue).body == b"2"


def test_durable_queue_and_messages_of_both_kinds(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, durable=True)
    ch.put("", queue, b"transient", delivery_mode=1)
    ch.put("", queue, b"persistent", delivery_mode=2)
    got = [ch.get(queue), ch.get(queue)]
    assert [(one.body, one.properties.delivery_mode) for one in got if one] == [(b"transient", 1), (b"persistent", 2)]


def test_any_bytes_as_routing_key(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "fanout")
    queue = ch.temporary()
    ch.bind(queue, exchange)
    ch.client.write(raw_method(ch.number, 60, 40, b"\0\0" + shortstr(exchange) + shortstr(b"\xff\x00\xfe") + b"\0")
                    + b"\x02" + ch.number.to_bytes(2, "big") + b"\0\0\0\x0e\0\x3c" + bytes(12) + b"\xce")
    eventually(lambda: ch.count(queue))
    ch.send(Basic.Get(0, queue, True))
    assert shortstr(b"\xff\x00\xfe") in ch.client.read_raw()
