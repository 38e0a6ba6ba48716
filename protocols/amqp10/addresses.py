"""Addresses in AMQP 1.0: how they are written, and what is made of one that names nothing yet."""

from __future__ import annotations

from typing import Any

from broker.errors import NotFound
from broker.security.access import Access
from broker.virtualhost import VirtualHost
from protocols.amqp10.errors import INVALID_FIELD, LINK, ProtocolError
from protocols.nodes import QUEUE_CAPABILITIES, TOPIC_CAPABILITIES, Node, find
from protocols.reply_to import split_address
from protocols.routes import ask_to_publish
from protocols.values10 import is_text


def address_text(address: Any) -> str | None:
    """An address as it is written in a terminus; None for none. Raises: ProtocolError for one that is no text."""
    if address is None:
        return None
    if not isinstance(address, str) or not is_text(address):
        raise ProtocolError(INVALID_FIELD, "an address is no string", LINK, {"invalid-field": "address"})
    return str(address)


def resolve(host: VirtualHost, access: Access, address: str, capabilities: list[str], sends: bool) -> Node:
    """The node of an address. sends: the client wants to send there. Raises: NotFound, if the client may know that,
    and what a declaration raises."""
    found = find(host, address, capabilities)
    if found is not None:
        return found
    kind = "topic" if TOPIC_CAPABILITIES.intersection(capabilities) else ""
    if not kind and QUEUE_CAPABILITIES.intersection(capabilities):
        kind = "queue"
    if address.startswith("/queue/") and kind != "topic" and len(address) > 7:  # RabbitMQ makes such a queue
        access.declare_queue(address[7:], True, False, False, {})
        queue, _ = host.declare_queue(address[7:], True, False, False, {}, None)
        return Node(queue, None, None)
    creation = host.auto_create(address, kind)
    if creation is not None:
        name, policy = creation
        if policy.kind == "queue":
            access.declare_queue(name, policy.durable, False, False, policy.arguments)
            host.declare_queue(name, policy.durable, False, False, policy.arguments, None)
        else:
            access.declare_exchange(name, policy.kind, policy.durable, False, policy.arguments)
            host.declare_exchange(name, policy.kind, policy.durable, False, False, policy.arguments)
        found = find(host, address, capabilities)
        if found is not None:
            return found
    exchange, key = split_address(address) if address.startswith("/") or kind == "topic" else ("", address)
    if sends:
        ask_to_publish(access, exchange, key)
    elif exchange:
        access.subscribe(exchange, key)
    else:
        access.consume(key)
    what = {"topic": "exchange", "queue": "queue"}.get(kind, "queue or exchange")
    raise NotFound(f"no {what} '{address}' in vhost '{host.name}'")
