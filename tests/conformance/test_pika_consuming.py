"""pika's BlockingConnection: getting, consuming, and the outcomes of deliveries."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import DuplicateConsumerTag

from tests.conformance.pika_tools import bodies, get, parameters, refused
from tests.conformance.support import DEADLINE, Names, Target, until


def test_get(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue)
    assert channel.basic_get(queue) == (None, None, None)
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    counts = [channel.basic_get(queue)[0].message_count for _ in range(3)]
    assert counts == [2, 1, 0]
    channel.basic_ack(0, multiple=True)  # everything so far
    channel.close()


def test_consuming_with_a_callback(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    received = []

    def on_message(channel: BlockingChannel, method: Any, _properties: Any, body: bytes) -> None:
        received.append((method.consumer_tag, method.delivery_tag, method.redelivered, body))
        channel.basic_ack(method.delivery_tag)
        if body == b"stop":
            channel.stop_consuming()

    channel.basic_consume(queue, on_message, consumer_tag="mine")
    assert channel.consumer_tags == ["mine"]
    for body in (b"a", b"b", b"stop"):
        channel.basic_publish("", queue, body)
    channel.start_consuming()
    assert received == [("mine", 1, False, b"a"), ("mine", 2, False, b"b"), ("mine", 3, False, b"stop")]
    assert channel.consumer_tags == []
    channel.close()
    assert connection.channel().queue_declare(queue, passive=True).method.message_count == 0


def test_consumer_tags(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare(queue)
    for each in (channel, other):  # unique in a channel, not in a connection
        each.basic_consume(queue, lambda *_: None, consumer_tag="tag")
    with pytest.raises(DuplicateConsumerTag):
        channel.basic_consume(queue, lambda *_: None, consumer_tag="tag")
    assert channel.queue_declare(queue, passive=True).method.consumer_count == 2


def test_an_exclusive_consumer(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    tag = channel.basic_consume(queue, lambda *_: None, exclusive=True)
    refused(403, connection.channel().basic_consume, queue, lambda *_: None)
    channel.basic_cancel(tag)
    channel.basic_consume(queue, lambda *_: None)
    refused(403, connection.channel().basic_consume, queue, lambda *_: None, exclusive=True)
    refused(404, connection.channel().basic_consume, "no-such-queue", lambda *_: None)


def test_the_consume_generator(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue)
    for number in range(10):
        channel.basic_publish("", queue, b"%d" % number)
    channel.basic_qos(prefetch_count=4)
    received = []
    for method, _, body in channel.consume(queue, inactivity_timeout=DEADLINE):
        received.append(body)
        channel.basic_ack(method.delivery_tag)
        if body == b"5":
            break
    channel.cancel()  # the prefetched go back
    assert received == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert sorted(bodies(channel, queue)) == [b"6", b"7", b"8", b"9"]
    assert next(channel.consume(queue, inactivity_timeout=0.1)) == (None, None, None)
    channel.cancel()


@pytest.mark.parametrize("shared", [False, True], ids=["each consumer", "whole channel"])
def test_prefetch(connection: pika.BlockingConnection, names: Names, shared: bool) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    for number in range(10):
        channel.basic_publish("", queue, b"%d" % number)
    channel.basic_qos(prefetch_count=3, global_qos=shared)
    received: list[tuple[str, int]] = []

    def on_message(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        received.append((method.consumer_tag, method.delivery_tag))

    for tag in ("one", "two"):
        channel.basic_consume(queue, on_message, consumer_tag=tag)
    expected = 3 if shared else 6
    until(lambda: connection.process_data_events(0.05) or len(received) >= expected, "the prefetch")
    connection.process_data_events(0.2)
    assert len(received) == expected
    assert channel.queue_declare(queue, passive=True).method.message_count == 10 - expected
    channel.basic_ack(max(tag for _, tag in received), multiple=True)
    until(lambda: connection.process_data_events(0.05) or len(received) >= min(10, 2 * expected), "the next ones")


def test_a_prefetch_in_bytes_is_not_served(connection: pika.BlockingConnection) -> None:
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as error:
        connection.channel().basic_qos(prefetch_size=1000)
    assert error.value.reply_code == 540


def test_ack_nack_reject(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    for number in range(6):
        channel.basic_publish("", queue, b"%d" % number)
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(6)]
    channel.basic_reject(tags[4], requeue=True)
    channel.basic_reject(tags[5], requeue=False)
    channel.basic_nack(tags[1], multiple=True, requeue=True)
    channel.basic_ack(tags[2])
    channel.basic_nack(tags[3], requeue=False)
    again = [channel.basic_get(queue) for _ in range(4)]
    assert [body for _, _, body in again] == [b"0", b"1", b"4", None]  # back in their places
    assert all(method.redelivered for method, _, _ in again[:3])
    channel.basic_nack(0, multiple=True, requeue=False)
    channel.close()
    assert bodies(connection.channel(), queue) == []


@pytest.mark.parametrize("call", ["basic_ack", "basic_nack", "basic_reject"])
def test_an_unknown_delivery_tag(channel: BlockingChannel, names: Names, call: str) -> None:
    queue = names.queue()
    channel.queue_declare(queue)
    text = refused(406, lambda: (getattr(channel, call)(99), channel.queue_declare(queue)))
    assert text == "PRECONDITION_FAILED - unknown delivery tag 99"


def test_recover(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    channel.basic_publish("", queue, b"x")
    channel.basic_get(queue)
    channel.basic_recover(requeue=True)
    method, _, _ = get(channel, queue, auto_ack=False)
    assert method.redelivered


def test_what_a_closed_channel_held_goes_back(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    first, second = connection.channel(), connection.channel()
    first.queue_declare(queue)
    for number in range(4):
        first.basic_publish("", queue, b"%d" % number)
    for _ in range(3):
        first.basic_get(queue)
    first.close()
    until(lambda: second.queue_declare(queue, passive=True).method.message_count == 4, "the requeueing")
    assert bodies(second, queue) == [b"0", b"1", b"2", b"3"]


def test_cancelled_by_the_broker(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel, other = connection.channel(), connection.channel()
    channel.queue_declare(queue)
    cancelled: list[str] = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(queue, lambda *_: None)
    other.queue_delete(queue)
    until(lambda: connection.process_data_events(0.05) or cancelled, "the notification")
    assert cancelled == [tag] and channel.consumer_tags == []
    channel.queue_declare(queue)
    generator = channel.consume(queue, inactivity_timeout=DEADLINE)
    channel.basic_publish("", queue, b"last")
    assert next(generator)[2] == b"last"
    other.queue_delete(queue)
    assert list(generator) == []  # a cancelled consumer is the end of the generator


def test_consumer_priorities(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    channel.basic_qos(prefetch_count=2)
    received: list[str] = []

    def on_message(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        received.append(method.consumer_tag)

    for tag, priority in (("low", -1), ("usual", 0), ("high", 10)):
        channel.basic_consume(queue, on_message, consumer_tag=tag, arguments={"x-priority": priority})
    for _ in range(5):
        channel.basic_publish("", queue, b"x")
    until(lambda: connection.process_data_events(0.05) or len(received) == 5, "all deliveries")
    assert sorted(received) == ["high", "high", "low", "usual", "usual"]


def test_a_single_active_consumer(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, arguments={"x-single-active-consumer": True})
    received: list[str] = []

    def on_message(channel: BlockingChannel, method: Any, _properties: Any, _body: bytes) -> None:
        received.append(method.consumer_tag)
        channel.basic_ack(method.delivery_tag)

    for tag in ("first", "second"):
        channel.basic_consume(queue, on_message, consumer_tag=tag)
    for count in (3, 6):
        for _ in range(3):
            channel.basic_publish("", queue, b"x")
        until(lambda count=count: connection.process_data_events(0.05) or len(received) == count, "all deliveries")
        if count == 3:
            channel.basic_cancel("first")
    assert received == ["first"] * 3 + ["second"] * 3


def test_message_priorities(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue, arguments={"x-max-priority": 5})
    for number, priority in enumerate([None, 1, 5, 9, 3, 0, 5]):
        channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(priority=priority))
    assert bodies(channel, queue) == [b"2", b"3", b"6", b"4", b"1", b"0", b"5"]  # 9 counts as the greatest, 5


def test_direct_reply_to(target: Target, names: Names) -> None:
    """A request by the direct reply queue, and a server on a connection of its own."""
    queue = names.queue("requests")
    with pika.BlockingConnection(parameters(target)) as server, pika.BlockingConnection(parameters(target)) as client:
        requests = server.channel()
        requests.queue_declare(queue)
        channel = client.channel()
        refused(406, lambda: (client.channel().basic_consume("amq.rabbitmq.reply-to", lambda *_: None)))
        replies: list[bytes] = []
        channel.basic_consume("amq.rabbitmq.reply-to", lambda *delivery: replies.append(delivery[3]), auto_ack=True)
        channel.basic_publish("", queue, b"6", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
        _, properties, body = get(requests, queue)
        assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
        requests.queue_declare(properties.reply_to, passive=True)
        requests.basic_publish("", properties.reply_to, b"%d" % (int(body) * 7))
        until(lambda: client.process_data_events(0.05) or replies, "the reply")
        assert replies == [b"42"]
