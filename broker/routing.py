"""The way of a message through a virtual host: from an exchange and a routing key to queues.

What an exchange and a routing key lead to is found once and kept, until the topology changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker import retained
from broker.deadletter import copies, dead_letter, goes_round
from broker.delayed import DelayedExchange
from broker.errors import AccessRefused, NotFound
from broker.exchange import DefaultExchange, Exchange
from broker.message import CONVERTERS, Address, Message, address_of
from broker.queue import Queue

if TYPE_CHECKING:
    from broker.broker import Broker

UNROUTED: Final = 0
ROUTED: Final = 1
REFUSED: Final = 2

_MOST_ROUTES = 10_000
"""Cached routes of a virtual host, or twice as many as it has bindings and queues, if that is more. When there are
more still, all are forgotten and found again."""


class Route:
    """Where messages of one exchange and routing key go, found once and kept until the topology changes."""

    __slots__ = ("exchange", "address", "queues", "queue", "dynamic", "retains")

    def __init__(self, exchange: Exchange, address: Address, queues: list[Queue], dynamic: bool) -> None:
        self.exchange = exchange
        self.address = address
        self.queues = queues
        self.queue = queues[0] if len(queues) == 1 else None  # the usual case, one step nearer
        self.dynamic = dynamic  # the message itself decides: the queues must be found for each
        self.retains = exchange.name == retained.EXCHANGE  # messages may ask to be retained


class Routing:
    """The exchanges and queues of a virtual host, and how messages find their way among them."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self.name = name
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {"": DefaultExchange(self.queues)}
        self.routes: dict[bytes, Route] = {}  # by `Address.short_strings`
        self.bindings = 0

    def route(self, short_strings: bytes, exchange_name: str, routing_key: str) -> Route:
        """The route for an exchange and a routing key, both also as encoded; kept for the next message.

        Raises: NotFound, AccessRefused (an internal exchange or queue).
        """
        exchange = self.exchanges.get(exchange_name)
        if exchange is None:
            raise NotFound(f"no exchange '{exchange_name}' in vhost '{self.name}'")
        if routing_key == retained.QUEUE and not exchange_name:
            raise retained.refusal(f"queue '{routing_key}' in vhost '{self.name}'")
        if exchange.internal:
            raise AccessRefused(f"cannot publish to internal exchange '{exchange_name}' in vhost '{self.name}'")
        at = -1 if exchange_name or routing_key in self.queues else self._exchange_in(routing_key)
        if at > 0:
            route = self.route(address_of(routing_key[:at], routing_key[at + 1:]).short_strings, routing_key[:at],
                               routing_key[at + 1:])
        else:
            queues: dict[Queue, None] = {}
            dynamic = self._follow(exchange, routing_key, None, queues)
            route = Route(exchange, Address(exchange_name, routing_key, short_strings), list(queues), dynamic)
        if len(self.routes) >= max(_MOST_ROUTES, 2 * (self.bindings + len(self.queues))):
            self.routes.clear()
        self.routes[short_strings] = route
        return route

    def _exchange_in(self, address: str) -> int:
        """Where the name of an exchange ends in an address `exchange/key`, -1 if it is none.

        Those who answer messages of 0-9-1 publish to the nameless exchange, with the reply-to for a routing key. This
        is a reply-to of somebody who speaks MQTT or 1.0 and has asked for an answer at an exchange.
        """
        at = address.rfind("/")
        while at > 0:
            exchange = self.exchanges.get(address[:at])
            if exchange is not None and not exchange.internal:
                return at
            at = address.rfind("/", 0, at)
        return -1

    def current_route(self, address: Address) -> Route | None:
        """The route for an address that a message was published to earlier; None: the exchange is gone."""
        route = self.routes.get(address.short_strings)
        if route is None:
            exchange = self.exchanges.get(address.exchange)
            if exchange is not None and not exchange.internal:
                route = self.route(address.short_strings, address.exchange, address.routing_key)
        return route

    def put(self, route: Route, message: Message, copies_to: list[str] | None) -> int:
        """Put a message in the queues of its route: ROUTED, UNROUTED or REFUSED (some queue is full).

        copies_to: further routing keys that the message goes to.
        """
        exchange = route.exchange
        if route.dynamic or copies_to is not None:
            if isinstance(exchange, DelayedExchange) and exchange.delay(message) > 0:
                exchange.keep(message)
                return ROUTED
            if exchange.extras is not None:
                exchange.extras.published(message)
            queues = self._destinations(exchange, message, copies_to or [])
        elif route.queue is not None:
            return ROUTED if route.queue.enqueue(message) else REFUSED
        else:
            queues = route.queues
        exchange.count_copies(len(queues), message.size)
        return self.enqueue(queues, message)

    def destinations(self, route: Route, message: Message, copies_to: list[str] | None) -> list[Queue]:
        """The queues that `publish` would put a message in, sooner or later."""
        if route.dynamic or copies_to is not None:
            return self._destinations(route.exchange, message, copies_to or [])
        return route.queues

    def enqueue(self, queues: list[Queue], message: Message) -> int:
        """Put a message in queues, delivering at once where a consumer is ready."""
        if not queues:
            return UNROUTED
        if len(queues) == 1:
            return ROUTED if queues[0].enqueue(message) else REFUSED
        message.shared = True
        refused = False
        for queue in list(queues):
            if not queue.enqueue(message):
                refused = True
        return REFUSED if refused else ROUTED

    def route_and_enqueue(self, exchange: Exchange, message: Message) -> int:
        """Publish a message of the broker's own, by the route that its address says."""
        return self._relay(self.behind(exchange, message), message)

    def _relay(self, queues: list[Queue], message: Message) -> int:
        """Put a message in queues that no client sends just now."""
        management = self.broker.management
        before, management.relaying = management.relaying, True
        try:
            return self.enqueue(queues, message)
        finally:
            management.relaying = before

    def behind(self, exchange: Exchange, message: Message) -> list[Queue]:
        """The queues that an exchange has for a message by the route that its address says."""
        return self._destinations(exchange, message, copies(message.view()))

    def _destinations(self, exchange: Exchange, message: Message, copies_to: list[str]) -> list[Queue]:
        queues: dict[Queue, None] = {}
        for key in (message.address.routing_key, *copies_to):
            self._follow(exchange, key, message, queues)
        return list(queues)

    def _follow(self, exchange: Exchange, routing_key: str, message: Message | None,
                queues: dict[Queue, None]) -> bool:
        """Collect the queues behind an exchange, through bound and alternate exchanges.

        Gives whether a dynamic exchange is among them: without a message, the queues behind those are left out.
        """
        dynamic = False
        known = {exchange}
        todo = [exchange]
        while todo:
            at = todo.pop()
            if at.dynamic and message is None:
                dynamic = True
                continue
            found = at.match(routing_key, message)
            if not found and at.alternate is not None:
                alternate = self.exchanges.get(at.alternate)
                found = [alternate] if alternate is not None else []
            for destination in found:
                if isinstance(destination, Queue):
                    queues[destination if destination.peer is None else destination.peer] = None
                elif destination not in known:
                    known.add(destination)
                    todo.append(destination)
        return dynamic

    def dead_letter(self, queue: Queue, message: Message, reason: str) -> None:
        """Publish what a queue gives up to its dead-letter exchange; drop it when there is none."""
        name = queue.settings.dead_letter_exchange
        exchange = self.exchanges.get(name) if name is not None else None
        if exchange is None or name is None:
            return
        letter = dead_letter(message, queue.name, reason, name, queue.settings.dead_letter_routing_key,
                             self.broker.clock.now, CONVERTERS[message.dialect].expiration(message))
        if isinstance(exchange, DelayedExchange) and exchange.delay(letter) > 0:
            exchange.keep(letter)
            return
        queues = self._destinations(exchange, letter, copies(letter.view()))
        if reason != "rejected":
            deaths = letter.view().deaths
            queues = [target for target in queues if not goes_round(target.name, deaths)]
        self._relay(queues, letter)
