"""Subscriptions: a receiver's link to an exchange has a queue of its own behind it, or shares one by name.

Their kinds are those of JMS 1.1 and 2.0, told by the source's durability and the capabilities `shared` and `global`.
Qpid JMS numbers the links of a shared one (`sub|2`, `sub|volatile1`, `sub|global`), the name before the bar counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from broker.errors import PreconditionFailed, ResourceLocked
from broker.exchange import Exchange
from broker.queue import Queue
from broker.virtualhost import VirtualHost
from protocols.amqp10.filters import Filters

if TYPE_CHECKING:
    from protocols.amqp10.connection import Connection

PREFIX = "subscription:"

_OWN = {"qpid.exclusivity_policy": "PRINCIPAL"}
"""A subscription that is not shared is its user's: others may call their containers the same."""


class Subscription:
    """What a receiver wants of an exchange."""

    __slots__ = ("name", "durable", "shared", "exclusive")

    def __init__(self, link: str, container: str, durable: bool, capabilities: list[str]) -> None:
        self.durable = durable
        self.shared = "shared" in capabilities
        self.exclusive = not self.shared
        if self.shared:
            link = link.split("|", 1)[0]
        elif not durable:
            link = ""  # nobody else is to find it
        self.name = queue_name("" if "global" in capabilities else container, link, durable) if link else ""


def queue_name(container: str, subscription: str, durable: bool) -> str:
    """The name of a subscription's queue; container: "" for one that all containers share."""
    kind = "" if durable else "volatile:"
    return f"{PREFIX}{kind}{quote(container, safe='')}:{quote(subscription, safe='')}"


def subscribe(connection: Connection, subscription: Subscription, exchange: Exchange, key: str,
              filters: Filters) -> Queue:
    """The queue of a subscription, made or found, and bound. Raises what declarations and bindings raise."""
    host = connection.host
    arguments = filters.arguments(connection.container_id)
    queue = host.queues.get(subscription.name) if subscription.name else None
    if queue is not None:
        queue.check_access(connection)
    if queue is not None and not _is_bound_so(host, queue, exchange, key, arguments):
        if queue.consumers.all:
            raise ResourceLocked(f"{queue!r} has consumers, and another topic or selector")
        host.delete_queue(queue)  # as JMS has it: to subscribe in another way is to do so anew
        queue = None
    if queue is not None:
        return queue
    if subscription.name:
        queue, _ = host.declare_queue(subscription.name, subscription.durable, False, not subscription.durable,
                                      dict(_OWN) if subscription.exclusive else {}, connection)
    else:
        queue = host.hidden_queue(host.free_name("amq.subscription-"), connection)
    try:
        host.bind(exchange, queue, key, arguments)
    except PreconditionFailed:
        host.delete_queue(queue)
        raise
    return queue


def default_key(exchange: Exchange) -> str:
    """What a receiver binds with that says no key: everything, as far as the exchange can give that."""
    kind = exchange.arguments.get("x-delayed-type") if exchange.kind == "x-delayed-message" else exchange.kind
    return "#" if kind == "topic" else ""


def find_durable(host: VirtualHost, link: str, container: str) -> Queue | None:
    """The queue of the durable subscription that a client wants to end, known by its link alone."""
    name, _, suffix = link.partition("|")
    if suffix.startswith("global"):
        return host.queues.get(queue_name("", name, True))
    return host.queues.get(queue_name(container, link, True)) or host.queues.get(queue_name(container, name, True))


def _is_bound_so(host: VirtualHost, queue: Queue, exchange: Exchange, key: str, arguments: dict[str, Any]) -> bool:
    bindings = list(host.bound_to.get(queue, {}).values())
    return len(bindings) == 1 and bindings[0].source is exchange and bindings[0].routing_key == key \
        and bindings[0].arguments == arguments
