"""pika's BlockingConnection, the second part: queues, and what happens to messages."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.compat import long
from pika.exceptions import ChannelClosedByBroker, DuplicateConsumerTag, NackError, UnroutableError

from tests.conformance.conftest import Alarm, Phoenix
from tests.conformance.pika_tools import bodies, get, parameters, refused
from tests.conformance.support import DEADLINE, LARGE_BODY, Names, Target, until

# Queues


@pytest.mark.parametrize("durable, exclusive, auto_delete", [
    (False, False, False), (True, False, False), (False, True, False), (False, False, True), (True, True, True)])
def test_queue_options(connection: pika.BlockingConnection, names: Names, durable: bool, exclusive: bool,
                       auto_delete: bool) -> None:
    queue = names.queue()
    channel = connection.channel()
    options = {"durable": durable, "exclusive": exclusive, "auto_delete": auto_delete}
    answer = channel.queue_declare(queue, **options)
    assert (answer.method.queue, answer.method.message_count, answer.method.consumer_count) == (queue, 0, 0)
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"1")
    channel.basic_publish("", queue, b"2")
    assert channel.queue_declare(queue, **options).method.message_count == 2
    channel.basic_consume(queue, lambda *_: None)
    assert channel.queue_declare(queue, passive=True).method.consumer_count == 1
    if exclusive:
        channel.queue_declare(queue, **{**options, "durable": not durable})  # it never is, whatever is asked for
    for option in ("auto_delete",) if exclusive else ("durable", "auto_delete"):
        text = refused(406, connection.channel().queue_declare, queue, **{**options, option: not options[option]})
        assert text.startswith(f"PRECONDITION_FAILED - inequivalent arg '{option}' for queue '{queue}'")


@pytest.mark.parametrize("arguments", [
    {"x-expires": 600_000}, {"x-message-ttl": 0}, {"x-max-length": 5}, {"x-max-length-bytes": 1000},
    {"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}, {"x-overflow": "reject-publish-dlx"},
    {"x-dead-letter-exchange": "nowhere", "x-dead-letter-routing-key": "key"}, {"x-max-priority": 10},
    {"x-single-active-consumer": True}, {"x-queue-type": "classic"}, {"x-queue-mode": "lazy"},
    {"x-unheard-of": "accepted"},
], ids=lambda arguments: next(iter(arguments)))
def test_queue_arguments(connection: pika.BlockingConnection, names: Names, arguments: dict[str, Any]) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, arguments=arguments)
    channel.queue_declare(queue, arguments=arguments)
    channel.queue_declare(queue, passive=True)
    if "x-unheard-of" not in arguments and arguments != {"x-queue-type": "classic"}:
        assert "inequivalent arg 'x-" in refused(406, channel.queue_declare, queue)


@pytest.mark.parametrize("arguments", [
    {"x-expires": 0}, {"x-expires": "soon"}, {"x-message-ttl": -1}, {"x-message-ttl": "10"}, {"x-max-length": -5},
    {"x-max-length-bytes": "many"}, {"x-overflow": "explode"}, {"x-dead-letter-exchange": 7},
    {"x-dead-letter-routing-key": "without-exchange"}, {"x-max-priority": -1}, {"x-max-priority": "high"},
    {"x-single-active-consumer": "yes"}, {"x-queue-type": "heap"},
], ids=str)
def test_queue_arguments_that_make_no_sense(channel: BlockingChannel, names: Names, arguments: dict[str, Any]) -> None:
    text = refused(406, channel.queue_declare, names.queue(), arguments=arguments)
    assert next(iter(arguments)) in text


def test_a_quorum_queue_by_name(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"poison")
    counts = []
    for method, properties, _ in channel.consume(queue, inactivity_timeout=2):
        if method is None:
            break
        counts.append((properties.headers or {}).get("x-delivery-count"))
        channel.basic_nack(method.delivery_tag, requeue=True)
    channel.cancel()
    assert counts in ([None, 1, 2], [0, 1, 2])
    assert bodies(channel, queue) == []
    refused(406, channel.queue_declare, names.queue(), durable=False, arguments=arguments)


def test_names_by_the_server(channel: BlockingChannel) -> None:
    first = channel.queue_declare("", exclusive=True).method.queue
    second = channel.queue_declare("", exclusive=True).method.queue
    assert first.startswith("amq.gen-") and second.startswith("amq.gen-") and first != second
    channel.basic_publish("", second, b"the current queue is the last one")
    assert bodies(channel, "") == [b"the current queue is the last one"]
    channel.queue_bind("", "amq.fanout")
    channel.queue_purge("")
    channel.queue_delete("")
    refused(404, channel.queue_declare, second, passive=True)


def test_no_current_queue(channel: BlockingChannel) -> None:
    refused(404, channel.queue_purge, "")


def test_an_exclusive_queue_is_its_connections_own(target: Target, connection: pika.BlockingConnection,
                                                   names: Names) -> None:
    queue = names.queue()
    with pika.BlockingConnection(parameters(target)) as owner:
        owner.channel().queue_declare(queue, exclusive=True)
        owner.channel().queue_declare(queue, passive=True)
        for call in (lambda c: c.queue_declare(queue, passive=True), lambda c: c.queue_declare(queue, exclusive=True),
                     lambda c: c.basic_get(queue), lambda c: c.basic_consume(queue, lambda *_: None),
                     lambda c: c.queue_purge(queue), lambda c: c.queue_delete(queue)):
            text = refused(405, call, connection.channel())
            assert text.startswith(f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}'")
    channel = connection.channel()
    refused(404, channel.queue_declare, queue, passive=True)


def test_an_auto_delete_queue_goes_with_its_last_consumer(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue, auto_delete=True)
    tags = [channel.basic_consume(queue, lambda *_: None) for _ in range(2)]
    channel.basic_cancel(tags[0])
    channel.queue_declare(queue, passive=True)
    channel.basic_cancel(tags[1])
    refused(404, channel.queue_declare, queue, passive=True)


def test_a_queue_expires(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, arguments={"x-expires": 300})

    def gone() -> bool:
        connection.sleep(0.4)  # asking is a use: the queue must be left alone to expire
        try:
            channel.queue_declare(queue, passive=True)
        except ChannelClosedByBroker as error:
            return error.reply_code == 404
        return False

    until(gone, "the queue's expiry")


def test_purge_and_delete(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    channel.confirm_delivery()
    for _ in range(5):
        channel.basic_publish("", queue, b"x")
    channel.basic_get(queue)  # not acknowledged: neither ready nor purged
    assert channel.queue_purge(queue).method.message_count == 4
    channel.basic_publish("", queue, b"x")
    refused(406, connection.channel().queue_delete, queue, if_empty=True)
    tag = channel.basic_consume(queue, lambda *_: None)
    refused(406, connection.channel().queue_delete, queue, if_unused=True)
    channel.basic_cancel(tag)
    channel.basic_recover(True)
    assert channel.queue_delete(queue).method.message_count == 2
    assert channel.queue_delete(queue).method.message_count == 0  # a missing queue may be deleted
    refused(404, connection.channel().queue_purge, queue)
    refused(404, connection.channel().queue_bind, queue, "amq.direct")
    refused(404, channel.queue_declare, queue, passive=True)


# What a message carries


PROPERTIES = pika.BasicProperties(
    content_type="application/json; charset=utf-8", content_encoding="gzip", delivery_mode=2, priority=200,
    correlation_id="c" * 255, reply_to="reply/ü", expiration="3600000", message_id="id-1", timestamp=1_700_000_000,
    type="kind", user_id="guest", app_id="conformance", cluster_id="cluster",
    headers={
        "string": "grüße", "empty": "", "long-string": "x" * 70_000, "bytes": b"\x00\xff\xfe", "true": True,
        "false": False, "int": -5, "int-max": 2**31 - 1, "int-min": -2**31, "long": long(7), "big": 2**62,
        "negative": -2**62, "decimal": Decimal("3.14159"), "whole": Decimal("42"), "minus": Decimal("-0.5"),
        "time": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), "none": None, "list": [1, "two", [3, {"four": None}], b""],
        "empty-list": [], "empty-table": {}, "table": {"deep": {"deeper": {"deepest": [True, Decimal("1.5")]}}},
        "k" * 255: "a long name",
    })


@pytest.mark.parametrize("properties", [
    PROPERTIES, pika.BasicProperties(), pika.BasicProperties(headers={}), pika.BasicProperties(delivery_mode=1),
    pika.BasicProperties(priority=0, timestamp=0, correlation_id=""), pika.BasicProperties(content_type="text/plain")],
    ids=["all", "none", "empty headers", "transient", "zeros", "one"])
def test_properties_survive_byte_by_byte(channel: BlockingChannel, names: Names,
                                         properties: pika.BasicProperties) -> None:
    queue = names.queue()
    channel.queue_declare(queue)
    channel.basic_publish("", queue, b"body", properties)
    method, received, body = get(channel, queue)
    assert (method.exchange, method.routing_key, method.redelivered, body) == ("", queue, False, b"body")
    assert received == properties
    assert b"".join(received.encode()) == b"".join(properties.encode())


def test_each_property_alone(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue)
    for name, value in vars(PROPERTIES).items():
        properties = pika.BasicProperties(**{name: value})
        channel.basic_publish("", queue, b"", properties)
        assert get(channel, queue)[1] == properties


def test_the_user_id_is_checked(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue)
    channel.confirm_delivery()
    assert "user_id" in refused(406, channel.basic_publish, "", queue, b"", pika.BasicProperties(user_id="somebody"))


@pytest.mark.parametrize("size", [0, 1, 4088, 131_064, 131_065, 262_128, len(LARGE_BODY)])
def test_bodies_of_all_sizes(channel: BlockingChannel, names: Names, size: int) -> None:
    queue = names.queue()
    channel.queue_declare(queue)
    channel.confirm_delivery()
    channel.basic_publish("", queue, LARGE_BODY[:size], mandatory=True)
    assert get(channel, queue)[2] == LARGE_BODY[:size]
    channel.basic_publish("", queue, LARGE_BODY[:size])
    for _, _, body in channel.consume(queue, auto_ack=True, inactivity_timeout=DEADLINE):
        assert body == LARGE_BODY[:size]
        break


def test_a_large_body_in_small_frames(target: Target, names: Names) -> None:
    queue = names.queue()
    with pika.BlockingConnection(parameters(target, frame_max=4096)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue)
        channel.basic_publish("", queue, LARGE_BODY)
        assert get(channel, queue)[2] == LARGE_BODY


def test_copies_by_header(channel: BlockingChannel, names: Names) -> None:
    exchange, to, cc, bcc = names.exchange(), names.queue("to"), names.queue("cc"), names.queue("bcc")
    channel.exchange_declare(exchange, "direct")
    for queue in (to, cc, bcc):
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, queue)
    channel.basic_publish(exchange, to, b"x", pika.BasicProperties(headers={"CC": [cc, to], "BCC": [bcc], "n": 1}))
    for queue in (to, cc, bcc):
        _, properties, _ = get(channel, queue)
        assert properties.headers == {"CC": [cc, to], "n": 1}
        assert channel.basic_get(queue)[0] is None


# Publishing


def test_confirms(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for number in range(50):
        channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=1 + number % 2))
    channel.basic_publish("amq.direct", "nobody-bound-this", b"confirmed although nobody wants it")
    assert bodies(channel, queue) == [b"%d" % number for number in range(50)]


def test_confirms_with_returns(channel: BlockingChannel, names: Names) -> None:
    channel.confirm_delivery()
    with pytest.raises(UnroutableError) as error:
        channel.basic_publish("amq.direct", "nowhere", b"back", pika.BasicProperties(message_id="7"), mandatory=True)
    (returned,) = error.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key) == ("amq.direct", "nowhere")
    assert (returned.properties.message_id, returned.body) == ("7", b"back")


def test_returns_without_confirms(connection: pika.BlockingConnection, names: Names) -> None:
    channel = connection.channel()
    returned: list[tuple[int, str, bytes]] = []
    channel.add_on_return_callback(
        lambda _channel, method, _properties, body: returned.append((method.reply_code, method.routing_key, body)))
    channel.basic_publish("", "no-such-queue", b"1", mandatory=True)
    channel.basic_publish("", "no-such-queue", b"2")
    channel.basic_publish("", "no-such-queue", LARGE_BODY, mandatory=True)
    until(lambda: connection.process_data_events(0.05) or len(returned) == 2, "both returns")
    assert returned == [(312, "no-such-queue", b"1"), (312, "no-such-queue", LARGE_BODY)]


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
def test_a_full_queue_refuses(channel: BlockingChannel, names: Names, overflow: str) -> None:
    queue, dead = names.queue(), names.queue("dead")
    channel.queue_declare(dead)
    channel.queue_declare(queue, arguments={"x-max-length": 2, "x-overflow": overflow, "x-dead-letter-exchange": "",
                                            "x-dead-letter-routing-key": dead})
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"1")
    channel.basic_publish("", queue, b"2")
    with pytest.raises(NackError):
        channel.basic_publish("", queue, b"3")
    assert bodies(channel, queue) == [b"1", b"2"]
    if overflow == "reject-publish-dlx":
        assert get(channel, dead)[1].headers["x-death"][0]["reason"] == "maxlen"
    assert bodies(channel, dead) == []


def test_transactions(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel, outside = connection.channel(), connection.channel()
    channel.queue_declare(queue)
    channel.tx_select()
    channel.basic_publish("", queue, b"rolled back")
    channel.tx_rollback()
    channel.basic_publish("", queue, b"1")
    channel.basic_publish("", queue, b"2")
    assert outside.basic_get(queue)[0] is None
    channel.tx_commit()
    assert outside.queue_declare(queue, passive=True).method.message_count == 2
    method, _, _ = channel.basic_get(queue)
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()  # the acknowledgement is forgotten, the message still ours
    channel.basic_ack(method.delivery_tag)
    channel.tx_commit()
    channel.close()
    assert bodies(outside, queue) == [b"2"]


def test_transactions_and_confirms_exclude_each_other(connection: pika.BlockingConnection) -> None:
    channel = connection.channel()
    channel.tx_select()
    refused(406, channel.confirm_delivery)
    channel = connection.channel()
    channel.confirm_delivery()
    refused(406, channel.tx_select)
    refused(406, connection.channel().tx_commit)
    refused(406, connection.channel().tx_rollback)


# Consuming


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


# Ends of messages


def test_ttl_of_queue_and_message(channel: BlockingChannel, names: Names) -> None:
    queue, dead = names.queue(), names.queue("dead")
    channel.queue_declare(dead)
    channel.queue_declare(queue, arguments={"x-message-ttl": 600_000, "x-dead-letter-exchange": "",
                                            "x-dead-letter-routing-key": dead})
    channel.basic_publish("", queue, b"soon", pika.BasicProperties(expiration="1"))
    method, properties, body = get(channel, dead)
    assert (body, method.exchange, method.routing_key) == (b"soon", "", dead)
    assert properties.expiration is None
    (death,) = properties.headers["x-death"]
    assert isinstance(death.pop("time"), datetime)
    assert death == {"reason": "expired", "queue": queue, "exchange": "", "routing-keys": [queue], "count": 1,
                     "original-expiration": "1"}
    assert properties.headers["x-first-death-reason"] == "expired"
    assert properties.headers["x-first-death-queue"] == queue
    assert properties.headers["x-first-death-exchange"] == ""


def test_an_expiration_must_be_a_number(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    connection.channel().queue_declare(queue)
    for expiration in ("soon", "-1", "1.5", ""):
        channel = connection.channel()
        channel.confirm_delivery()
        assert "expiration" in refused(406, channel.basic_publish, "", queue, b"",
                                       pika.BasicProperties(expiration=expiration))


def test_dead_letters_of_all_kinds(connection: pika.BlockingConnection, names: Names) -> None:
    exchange, queue, dead = names.exchange(), names.queue(), names.queue("dead")
    channel = connection.channel()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(dead)
    channel.queue_bind(dead, exchange, "#")
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": exchange, "x-max-length": 2})
    for body in (b"pushed out", b"rejected", b"nacked"):
        channel.basic_publish("", queue, body, pika.BasicProperties(headers={"kept": body}))
    channel.basic_reject(channel.basic_get(queue)[0].delivery_tag, requeue=False)
    channel.basic_nack(channel.basic_get(queue)[0].delivery_tag, requeue=False)
    for expected, reason in ((b"pushed out", "maxlen"), (b"rejected", "rejected"), (b"nacked", "rejected")):
        method, properties, body = get(channel, dead)
        assert (body, method.exchange, method.routing_key) == (expected, exchange, queue)
        assert properties.headers["kept"] == expected
        assert [(each["reason"], each["queue"]) for each in properties.headers["x-death"]] == [(reason, queue)]


def test_a_retry_loop_counts(channel: BlockingChannel, names: Names) -> None:
    """The usual way to retry with a delay: rejected to a waiting queue, whose expired messages come back."""
    work, waiting = names.queue("work"), names.queue("waiting")
    channel.queue_declare(work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": waiting})
    channel.queue_declare(waiting, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work,
                                              "x-message-ttl": 10})
    channel.basic_publish("", work, b"task")
    for attempt in range(4):
        method, properties, _ = get(channel, work, auto_ack=False)
        deaths = (properties.headers or {}).get("x-death", [])
        counts = {(each["queue"], each["reason"]): each["count"] for each in deaths}
        assert counts == ({(work, "rejected"): attempt, (waiting, "expired"): attempt} if attempt else {})
        if attempt < 3:
            channel.basic_reject(method.delivery_tag, requeue=False)
    channel.basic_ack(method.delivery_tag)


def test_a_circle_of_expiry_ends(connection: pika.BlockingConnection, names: Names) -> None:
    one, two = names.queue(), names.queue()
    channel = connection.channel()
    for queue, other in ((one, two), (two, one)):
        channel.queue_declare(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": other,
                                                "x-message-ttl": 10})
    channel.basic_publish("", one, b"x")
    until(lambda: not sum(channel.queue_declare(queue, passive=True).method.message_count for queue in (one, two)),
          "the end of the circle")


@pytest.mark.parametrize("limit", [{"x-max-length": 3}, {"x-max-length-bytes": 30}], ids=["count", "bytes"])
def test_the_oldest_go_first(channel: BlockingChannel, names: Names, limit: dict[str, Any]) -> None:
    queue = names.queue()
    channel.queue_declare(queue, arguments=limit)
    for number in range(10):
        channel.basic_publish("", queue, b"%010d" % number)
    assert bodies(channel, queue) == [b"%010d" % number for number in (7, 8, 9)]


# The broker's own troubles


def test_blocked_and_unblocked(alarm: Alarm) -> None:
    with pika.BlockingConnection(parameters(alarm.target)) as connection:
        events: list[str] = []
        connection.add_on_connection_blocked_callback(lambda *_: events.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: events.append("unblocked"))
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        with alarm.raised():
            channel.basic_publish("", queue, b"held")
            until(lambda: connection.process_data_events(0.05) or events, "connection.blocked")
            assert events == ["blocked"]
        until(lambda: connection.process_data_events(0.05) or len(events) > 1, "connection.unblocked")
        assert events == ["blocked", "unblocked"]
        assert get(channel, queue)[2] == b"held"


def test_blocked_for_too_long(alarm: Alarm) -> None:
    connection = pika.BlockingConnection(parameters(alarm.target, blocked_connection_timeout=0.5))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    with alarm.raised():
        channel.basic_publish("", queue, b"held")
        with pytest.raises(pika.exceptions.ConnectionBlockedTimeout):
            until(lambda: connection.process_data_events(0.05), "the timeout")


def test_a_restart_keeps_what_is_durable(phoenix: Phoenix) -> None:
    connection = pika.BlockingConnection(parameters(phoenix.proxy.outside))
    names = Names(phoenix.proxy.outside)
    exchange, queue, other, fleeting = names.exchange(), names.queue(), names.queue(), names.queue()
    channel = connection.channel()
    channel.exchange_declare(exchange, "topic", durable=True)
    channel.queue_declare(queue, durable=True)
    channel.queue_declare(other, durable=True)
    channel.queue_declare(fleeting)
    channel.queue_bind(queue, exchange, "a.*")
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, headers={"n": 1}, message_id="kept")
    channel.basic_publish(exchange, "a.1", LARGE_BODY, properties, mandatory=True)
    channel.basic_publish(exchange, "a.2", b"transient", mandatory=True)
    channel.basic_publish("", other, b"also", properties, mandatory=True)
    phoenix.restart()
    with pytest.raises((pika.exceptions.AMQPConnectionError, ChannelClosedByBroker)):
        until(lambda: connection.process_data_events(0.1), "the end of the connection")
    with pika.BlockingConnection(parameters(phoenix.proxy.outside)) as connection:
        channel = connection.channel()
        method, received, body = get(channel, queue)
        assert (body, method.exchange, method.routing_key, received) == (LARGE_BODY, exchange, "a.1", properties)
        assert channel.basic_get(queue)[0] is None
        assert get(channel, other)[2] == b"also"
        channel.basic_publish(exchange, "a.3", b"the binding is there")
        assert get(channel, queue)[2] == b"the binding is there"
        refused(404, channel.queue_declare, fleeting, passive=True)
    names.clean()


def test_consuming_while_others_publish(target: Target, names: Names) -> None:
    """Several connections in several threads: nothing lost, nothing twice, each publisher's order kept."""
    queue = names.queue()
    with pika.BlockingConnection(parameters(target)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue)
        channel.basic_qos(prefetch_count=50)

        def publish(publisher: int) -> None:
            with pika.BlockingConnection(parameters(target)) as own:
                own_channel = own.channel()
                for number in range(300):
                    own_channel.basic_publish("", queue, b"%d/%d" % (publisher, number))

        threads = [threading.Thread(target=publish, args=(each,)) for each in range(4)]
        for thread in threads:
            thread.start()
        received: dict[int, list[int]] = {each: [] for each in range(4)}
        for method, _, body in channel.consume(queue, inactivity_timeout=DEADLINE):
            publisher, number = map(int, body.split(b"/"))
            received[publisher].append(number)
            channel.basic_ack(method.delivery_tag)
            if sum(map(len, received.values())) == 1200:
                break
        for thread in threads:
            thread.join()
        channel.cancel()
        assert received == {each: list(range(300)) for each in range(4)}
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
