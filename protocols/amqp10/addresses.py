"""Addresses in AMQP 1.0: how they are written, and what is made of one that names nothing yet."""

from __future__ import annotations

from typing import Any

from broker.errors import NotFound
from broker.virtualhost import VirtualHost
from protocols.amqp10.errors import INVALID_FIELD, LINK, ProtocolError
from protocols.nodes import QUEUE_CAPABILITIES, TOPIC_CAPABILITIES, Node, find
from protocols.values10 import is_text


def address_text(address: Any) -> str | None:
    """An address as it is written in a terminus; None for none. Raises: ProtocolError for one that is no text."""
    if address is None:
        return None
    if not isinstance(address, str) or not is_text(address):
        raise ProtocolError(INVALID_FIELD, "an address is no string", LINK, {"invalid-field": "address"})
    return str(address)


def resolve(host: VirtualHost, address: str, capabilities: list[str]) -> Node:
    """The node of an address. Raises: NotFound, and what a declaration raises."""
    found = find(host, address, capabilities)
    if found is not None:
        return found
    kind = "topic" if TOPIC_CAPABILITIES.intersection(capabilities) else ""
    if not kind and QUEUE_CAPABILITIES.intersection(capabilities):
        kind = "queue"
    if address.startswith("/queue/") and kind != "topic" and len(address) > 7:  # RabbitMQ makes such a queue
        queue, _ = host.declare_queue(address[7:], True, False, False, {}, None)
        return Node(queue, None, None)
    if host.auto_create(address, kind):
        found = find(host, address, capabilities)
        if found is not None:
            return found
    what = {"topic": "exchange", "queue": "queue"}.get(kind, "queue or exchange")
    raise NotFound(f"no {what} '{address}' in vhost '{host.name}'")
