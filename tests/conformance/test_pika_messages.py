"""pika's BlockingConnection: what messages carry, how they are published, and their ends."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.compat import long
from pika.exceptions import NackError, UnroutableError

from tests.conformance.pika_tools import bodies, get, parameters, refused
from tests.conformance.support import DEADLINE, LARGE_BODY, Names, Target, until

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
