"""Queues with qpid.trace.id and qpid.trace.exclude: what is added, what is dropped, and that publishers hear of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pika
import pytest

from dragoman import testing

pytestmark = pytest.mark.dragoman_only("RabbitMQ has no such queues")
TRACE = "x-qpid.trace"


def publish(channel: Any, queue: str, headers: dict[str, Any] | None = None, exchange: str = "") -> None:
    """Publish a durable message, and wait for its confirm."""
    channel.basic_publish(exchange, queue, b"body", pika.BasicProperties(
        delivery_mode=2, headers=headers, correlation_id="c"), mandatory=True)


def got(channel: Any, queue: str) -> list[Any]:
    """The traces of all messages in a queue."""
    found = []
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        assert body == b"body" and properties.correlation_id == "c"
        found.append((properties.headers or {}).get(TRACE))


def test_ids_are_added_and_what_carries_others_is_dropped(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "store") as broker:
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("traced", durable=True, arguments={"qpid.trace.id": "here",
                                                                     "qpid.trace.exclude": "bad,worse"})
            channel.queue_declare("plain", durable=True)
            for queue in ("traced", "plain"):
                channel.queue_bind(queue, "amq.fanout")
            publish(channel, "traced")
            publish(channel, "traced", {TRACE: "there", "other": 1})
            publish(channel, "traced", {TRACE: "there,worse"})
            publish(channel, "traced", {TRACE: 7})
            publish(channel, "", {TRACE: "bad"}, "amq.fanout")
            publish(channel, "", {TRACE: "badly"}, "amq.fanout")
            assert got(channel, "plain") == ["bad", "badly"]
        broker.kill()
        broker.start()
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            assert got(connection.channel(), "traced") == ["here", "there,here", "here", "badly,here"]
