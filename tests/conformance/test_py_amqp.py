"""py-amqp, the client below kombu and Celery."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import amqp
import pytest
from amqp import sasl
from amqp.exceptions import MessageNacked

from tests.conformance.conftest import Alarm
from tests.conformance.support import DEADLINE, LARGE_BODY, Names, Proxy, Target, amqp_connection, until


@pytest.fixture
def client(target: Target, names: Names) -> Iterator[amqp.Connection]:
    """An open connection of py-amqp, closed before `names` cleans up."""
    with amqp_connection(target) as client:
        yield client


def bodies(channel: amqp.Channel, queue: str) -> list[Any]:
    found = []
    while (message := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(message.body)
    return found


def drain_until(client: amqp.Connection, condition: Any, what: str) -> None:
    def ready() -> Any:
        try:
            client.drain_events(timeout=0.05)
        except TimeoutError:
            pass
        return condition()

    until(ready, what)


# Connecting


@pytest.mark.parametrize("login", [sasl.PLAIN("guest", "guest"), sasl.AMQPLAIN("guest", "guest"), None],
                         ids=["PLAIN", "AMQPLAIN", "default"])
def test_logging_in(target: Target, login: sasl.SASL | None) -> None:
    with amqp_connection(target, authentication=login or ()) as client:
        assert client.connected
        assert client.server_capabilities["publisher_confirms"]
        assert {"PLAIN", "AMQPLAIN"} <= {each.decode() if isinstance(each, bytes) else each
                                         for each in client.mechanisms}
        assert client.channel().is_open


@pytest.mark.parametrize("login", [sasl.PLAIN("guest", "wrong"), sasl.AMQPLAIN("guest", "wrong"),
                                   sasl.PLAIN("nobody-here", "guest"), sasl.AMQPLAIN("nobody-here", "guest")])
def test_a_refused_login(target: Target, login: sasl.SASL) -> None:
    with pytest.raises(amqp.AccessRefused) as error:
        amqp_connection(target, authentication=login)
    assert error.value.reply_code == 403
    assert error.value.reply_text.startswith("ACCESS_REFUSED - Login was refused using authentication mechanism")


def test_no_common_mechanism(target: Target) -> None:
    with pytest.raises(amqp.ConnectionError, match="(?i)mechanism"):
        amqp_connection(target, authentication=sasl.EXTERNAL())


def test_an_unknown_virtual_host(target: Target) -> None:
    with pytest.raises(amqp.NotAllowed) as error:
        amqp_connection(target, virtual_host="no-such-host")
    assert error.value.reply_code == 530 and "no-such-host" in error.value.reply_text


def test_tuning(target: Target, names: Names) -> None:
    queue = names.queue()
    with amqp_connection(target, heartbeat=20) as client:
        assert client.channel_max >= 2047 and client.frame_max == 131_072 and client.heartbeat == 20
        channels = [client.channel() for _ in range(50)]
        channels[0].queue_declare(queue)
        channels[-1].basic_publish_confirm(amqp.Message(LARGE_BODY), "", queue)
        assert bodies(channels[1], queue) == [LARGE_BODY]


def test_heartbeats(target: Target) -> None:
    with amqp_connection(target, heartbeat=1) as client:
        for _ in range(12):
            time.sleep(0.25)
            client.heartbeat_tick()
            try:
                client.drain_events(timeout=0)
            except TimeoutError:
                pass
        assert client.channel().is_open
    client = amqp_connection(target, heartbeat=1)
    with pytest.raises((amqp.ConnectionError, OSError)):  # no ticks, no pulse: the broker hangs up
        until(lambda: client.drain_events(timeout=DEADLINE), "the end of the connection")
    client.collect()


def test_a_lost_network(proxy: Proxy) -> None:
    client = amqp_connection(proxy.outside)
    channel = client.channel()
    proxy.cut()
    with pytest.raises(client.recoverable_connection_errors):
        channel.queue_declare("", exclusive=True)
    client.collect()
    with amqp_connection(proxy.outside) as client:
        assert client.channel().queue_declare("", exclusive=True).queue.startswith("amq.gen-")


# Declaring


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
@pytest.mark.parametrize("nowait", [False, True])
def test_exchanges(client: amqp.Connection, names: Names, kind: str, nowait: bool) -> None:
    channel = client.channel()
    source, end, queue = names.exchange(), names.exchange(), names.queue()
    for exchange in (source, end):
        channel.exchange_declare(exchange, kind, durable=True, auto_delete=False, nowait=nowait,
                                 arguments={"alternate-exchange": "amq.fanout"})
    channel.exchange_declare(source, "", passive=True)
    channel.queue_declare(queue, durable=True, auto_delete=False, nowait=nowait)
    arguments = {"x-match": "any", "a": 1} if kind == "headers" else {"note": "n"}
    channel.queue_bind(queue, end, "a.b", nowait=nowait, arguments=arguments)
    channel.exchange_bind(end, source, "a.b", nowait=nowait, arguments=arguments)
    channel.basic_publish(amqp.Message("1", application_headers={"a": 1}), source, "a.b")
    assert bodies(channel, queue) == ["1"]
    channel.exchange_unbind(end, source, "a.b", nowait=nowait, arguments=arguments)
    channel.basic_publish(amqp.Message("2", application_headers={"a": 1}), source, "a.b")
    assert bodies(channel, queue) == []
    channel.queue_unbind(queue, end, "a.b", arguments=arguments)
    channel.exchange_delete(end, if_unused=True, nowait=nowait)
    with pytest.raises(amqp.NotFound) as error:
        channel.exchange_declare(end, "", passive=True)
    assert error.value.reply_text == f"NOT_FOUND - no exchange '{end}' in vhost '/'"
    assert error.value.method_name == "Exchange.declare"


def test_queues(client: amqp.Connection, names: Names) -> None:
    channel = client.channel()
    queue = names.queue()
    assert channel.queue_declare(queue, auto_delete=False) == (queue, 0, 0)
    channel.basic_publish_confirm(amqp.Message("x"), "", queue)
    assert channel.queue_declare(queue, passive=True).message_count == 1
    assert channel.queue_purge(queue) == 1
    channel.queue_purge(queue, nowait=True)
    assert channel.queue_delete(queue, if_unused=True, if_empty=True) == 0
    assert channel.queue_delete("no-such-queue") == 0
    channel.queue_delete("no-such-queue", nowait=True)
    own = channel.queue_declare(exclusive=True).queue
    with amqp_connection(Target(*client.host.split(":"), peer=True)) as other:
        with pytest.raises(amqp.ResourceLocked):
            other.channel().queue_declare(own, passive=True)


@pytest.mark.parametrize("error, call", [
    (amqp.NotFound, lambda c: c.queue_declare("no-such-queue", passive=True)),
    (amqp.NotFound, lambda c: c.queue_bind("no-such-queue", "amq.direct")),
    (amqp.NotFound, lambda c: c.basic_consume("no-such-queue")),
    (amqp.NotFound, lambda c: c.basic_get("no-such-queue")),
    (amqp.AccessRefused, lambda c: c.queue_declare("amq.mine")),
    (amqp.AccessRefused, lambda c: c.exchange_declare("amq.mine", "direct")),
    (amqp.AccessRefused, lambda c: c.exchange_delete("amq.direct")),
    (amqp.PreconditionFailed, lambda c: c.exchange_declare("amq.direct", "topic", durable=True, auto_delete=False)),
    (amqp.PreconditionFailed, lambda c: c.tx_commit()),
], ids=range(9))
def test_errors_of_a_channel(client: amqp.Connection, error: type[amqp.AMQPError], call: Any) -> None:
    channel = client.channel()
    with pytest.raises(error):
        call(channel)
    assert channel.queue_declare(exclusive=True).queue.startswith("amq.gen-")  # the client has opened it again


@pytest.mark.parametrize("error, call", [
    (amqp.InvalidCommand, lambda c: c.exchange_declare("some-exchange", "no-such-type")),
    (amqp.AMQPNotImplementedError, lambda c: c.basic_qos(100, 1, False)),
], ids=["503", "540 qos"])
def test_errors_of_a_connection(target: Target, error: type[amqp.AMQPError], call: Any) -> None:
    client = amqp_connection(target)
    with pytest.raises(error):
        call(client.channel())
    assert not client.connected
    client.collect()


def test_immediate_is_not_served(target: Target, names: Names) -> None:
    client = amqp_connection(target)
    client.channel().basic_publish(amqp.Message("x"), "", names.queue(), immediate=True)
    with pytest.raises(amqp.AMQPNotImplementedError):
        client.drain_events(timeout=DEADLINE)
    client.collect()


# Messages


PROPERTIES: dict[str, Any] = {
    "content_type": "text/plain", "content_encoding": "utf-8", "delivery_mode": 2, "priority": 9,
    "correlation_id": "correlation", "reply_to": "reply", "expiration": "3600000", "message_id": "id",
    "timestamp": 1_767_323_045, "type": "kind", "user_id": "guest", "app_id": "app",
    "cluster_id": "cluster",
    "application_headers": {
        "string": "grüße", "true": True, "false": False, "int": 2**31 - 1, "minus": -5, "long": 2**62, "far": -2**62,
        "float": 0.1, "decimal": Decimal("12.5"), "time": datetime(2038, 1, 19, 3, 14, 8), "none": None,
        "list": [1, "a", [None, {"deep": 1.5}]], "table": {"a": {"b": []}}, "not-utf8": b"\xff\xfe",
    },
}


def test_properties_survive(client: amqp.Connection, names: Names) -> None:
    channel = client.channel()
    queue = names.queue()
    channel.queue_declare(queue)
    sent = amqp.Message("grüße", **PROPERTIES)
    channel.basic_publish(sent, "", queue)
    received = channel.basic_get(queue)
    assert received.properties == PROPERTIES
    assert received.body == "grüße"
    assert received.delivery_info == {"delivery_tag": 1, "redelivered": False, "exchange": "", "routing_key": queue,
                                      "message_count": 0}
    assert received._serialize_properties() == sent._serialize_properties()


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, len(LARGE_BODY)])
def test_bodies(client: amqp.Connection, names: Names, size: int) -> None:
    channel = client.channel()
    queue = names.queue()
    channel.queue_declare(queue)
    channel.basic_publish_confirm(amqp.Message(LARGE_BODY[:size], content_encoding="binary"), "", queue)
    body = channel.basic_get(queue, no_ack=True).body
    assert (body or b"") == LARGE_BODY[:size]


def test_confirms(client: amqp.Connection, names: Names) -> None:
    channel = client.channel()
    queue = names.queue()
    channel.queue_declare(queue, arguments={"x-max-length": 10, "x-overflow": "reject-publish"})
    acked: list[int] = []
    channel.events["basic_ack"].add(lambda tag, _multiple: acked.append(tag))
    for number in range(10):
        channel.basic_publish_confirm(amqp.Message(str(number)), "", queue)
    assert acked == list(range(1, 11))
    with pytest.raises(MessageNacked):
        channel.basic_publish_confirm(amqp.Message("one too many"), "", queue)


def test_a_connection_that_confirms(target: Target, names: Names) -> None:
    queue = names.queue()
    with amqp_connection(target, confirm_publish=True) as client:
        channel = client.channel()
        channel.queue_declare(queue)
        for number in range(20):
            channel.basic_publish(amqp.Message(str(number), delivery_mode=2), "", queue)
        assert channel.queue_declare(queue, passive=True).message_count == 20


def test_returns(client: amqp.Connection) -> None:
    channel = client.channel()
    returned: list[tuple[Any, ...]] = []
    channel.events["basic_return"].add(lambda *parts: returned.append(parts))
    channel.basic_publish(amqp.Message("back"), "amq.direct", "nowhere", mandatory=True)
    drain_until(client, lambda: returned, "the return")
    ((error, exchange, key, message),) = returned
    assert (error.reply_code, error.reply_text, exchange, key) == (312, "NO_ROUTE", "amq.direct", "nowhere")
    assert message.body == "back"


def test_transactions(client: amqp.Connection, names: Names) -> None:
    channel, outside = client.channel(), client.channel()
    queue = names.queue()
    channel.queue_declare(queue, auto_delete=False)
    channel.tx_select()
    channel.basic_publish(amqp.Message("no"), "", queue)
    channel.tx_rollback()
    channel.basic_publish(amqp.Message("yes"), "", queue)
    assert outside.basic_get(queue) is None
    channel.tx_commit()
    assert bodies(outside, queue) == ["yes"]


# Consuming


def test_consuming(client: amqp.Connection, names: Names) -> None:
    channel = client.channel()
    queue = names.queue()
    channel.queue_declare(queue, auto_delete=False)
    channel.basic_qos(0, 3, False)
    received: list[amqp.Message] = []
    tag = channel.basic_consume(queue, consumer_tag="mine", callback=received.append)
    assert tag == "mine"
    for number in range(9):
        channel.basic_publish(amqp.Message(str(number)), "", queue)
    drain_until(client, lambda: len(received) == 3, "the prefetch")
    channel.basic_ack(received[2].delivery_tag, multiple=True)
    drain_until(client, lambda: len(received) == 6, "the next ones")
    received[3].channel.basic_reject(received[3].delivery_tag, requeue=True)
    channel.basic_reject(received[4].delivery_tag, requeue=False)
    received[5].channel.basic_ack(received[5].delivery_tag)
    drain_until(client, lambda: len(received) == 9, "the rest")
    assert sorted(message.body for message in received) == ["0", "1", "2", "3", "3", "4", "5", "6", "7"]
    channel.basic_cancel("mine")
    channel.basic_recover(requeue=True)
    assert sorted(bodies(channel, queue)) == sorted([*(message.body for message in received[6:]), "8"])


def test_consumers_without_waiting(client: amqp.Connection, names: Names) -> None:
    channel = client.channel()
    queue = names.queue()
    channel.queue_declare(queue, auto_delete=False, nowait=True)
    received: list[amqp.Message] = []
    channel.basic_consume(queue, consumer_tag="t", no_ack=True, nowait=True, callback=received.append)
    channel.basic_publish(amqp.Message("x"), "", queue)
    drain_until(client, lambda: received, "the delivery")
    channel.basic_cancel("t", nowait=True)
    assert channel.queue_declare(queue, passive=True).consumer_count == 0


def test_cancelled_by_the_broker(client: amqp.Connection, names: Names) -> None:
    channel = client.channel()
    queue = names.queue()
    channel.queue_declare(queue)
    cancelled: list[str] = []
    tag = channel.basic_consume(queue, callback=lambda _: None, on_cancel=cancelled.append)
    client.channel().queue_delete(queue)
    drain_until(client, lambda: cancelled, "the notification")
    assert cancelled == [tag]
    channel.queue_declare(queue)
    channel.basic_consume(queue, callback=lambda _: None)
    with pytest.raises(amqp.ConsumerCancelled):
        client.channel().queue_delete(queue)
        drain_until(client, lambda: False, "the notification")


def test_flow(client: amqp.Connection) -> None:
    client.channel().flow(True)


def test_blocked(alarm: Alarm) -> None:
    events: list[str] = []
    with amqp_connection(alarm.target, on_blocked=lambda _: events.append("blocked"),
                         on_unblocked=lambda: events.append("unblocked")) as client:
        channel = client.channel()
        queue = channel.queue_declare(exclusive=True).queue
        with alarm.raised():
            channel.basic_publish(amqp.Message("held"), "", queue)
            drain_until(client, lambda: events, "connection.blocked")
        drain_until(client, lambda: len(events) > 1, "connection.unblocked")
        assert events == ["blocked", "unblocked"]
        assert bodies(channel, queue) == ["held"]


def test_a_hundred_connections(target: Target) -> None:
    clients = [amqp_connection(target) for _ in range(100)]
    names = [client.channel().queue_declare(exclusive=True).queue for client in clients]
    assert len(set(names)) == 100
    for client in clients:
        client.close()
        with pytest.raises((amqp.RecoverableConnectionError, socket.error, AttributeError)):
            client.channel()
