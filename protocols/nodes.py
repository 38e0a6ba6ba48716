"""What an address names: a queue, or an exchange with or without a routing key.

    name                the queue of that name, else the exchange; the capabilities `queue` and `topic` decide
    exchange/key        the exchange with the longest name before a `/` that there is
    /queues/NAME, /exchanges/NAME[/KEY]                                RabbitMQ 4's addresses, percent-encoded
    /queue/NAME, /amq/queue/NAME, /exchange/NAME[/KEY], /topic/KEY     its older ones, as they stand
"""

from __future__ import annotations

from urllib.parse import unquote

from broker.exchange import Exchange
from broker.queue import Queue
from broker.virtualhost import VirtualHost

QUEUE_CAPABILITIES = frozenset({"queue", "temporary-queue"})
TOPIC_CAPABILITIES = frozenset({"topic", "temporary-topic"})


class Node:
    """What an address leads to. key: None when the address says none; fixed: a message's subject does not replace it
    (JMS clients, who say that they mean a topic, have another use for the subject: it is the JMSType; and RabbitMQ's
    addresses of version 2 say all of the route)."""

    __slots__ = ("queue", "exchange", "key", "fixed")

    def __init__(self, queue: Queue | None, exchange: Exchange | None, key: str | None, fixed: bool = False) -> None:
        self.queue = queue
        self.exchange = exchange
        self.key = key
        self.fixed = fixed

    def leads_to(self) -> tuple[str, str]:
        """The exchange and the routing key by which messages come there, as far as the address tells."""
        if self.queue is not None:
            return "", self.queue.name
        assert self.exchange is not None
        return self.exchange.name, self.key or ""


def find(host: VirtualHost, address: str, capabilities: list[str]) -> Node | None:
    """The node that there is under an address, or None."""
    wants_queue = bool(QUEUE_CAPABILITIES.intersection(capabilities))
    wants_topic = bool(TOPIC_CAPABILITIES.intersection(capabilities)) and not wants_queue
    if not wants_topic:
        queue = host.queues.get(address)
        if queue is not None:
            return Node(queue, None, None)
        queue = host.queues.get(_rabbitmq_queue(address))
        if queue is not None:
            return Node(queue, None, None)
    if wants_queue or not address:
        return None
    exchange = host.exchanges.get(address)
    if exchange is not None:
        return Node(None, exchange, None)
    at = len(address)
    while True:
        at = address.rfind("/", 0, at)
        if at <= 0:
            break
        exchange = host.exchanges.get(address[:at])
        if exchange is not None:
            return Node(None, exchange, address[at + 1:], wants_topic)
    return _rabbitmq_exchange(host, address)


def _rabbitmq_queue(address: str) -> str:
    """The name of the queue in an address of RabbitMQ's; "" for another address."""
    if address.startswith("/queues/"):
        return unquote(address[8:])
    if address.startswith("/queue/"):
        return address[7:]
    if address.startswith("/amq/queue/"):
        return address[11:]
    return ""


def _rabbitmq_exchange(host: VirtualHost, address: str) -> Node | None:
    name, key, fixed = "", None, False
    if address.startswith("/exchanges/"):
        name, slash, key = address[11:].partition("/")
        name, key, fixed = unquote(name), unquote(key) if slash else None, True
    elif address.startswith("/exchange/"):
        name, slash, key = address[10:].partition("/")
        key, fixed = key if slash else None, bool(key)
    elif address.startswith("/topic/"):
        name, key, fixed = "amq.topic", address[7:], True
    exchange = host.exchanges.get(name) if name else None
    return None if exchange is None else Node(None, exchange, key, fixed)
