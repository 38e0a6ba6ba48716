"""Management: what there is to see of a broker that runs, who hears of what happens to it, and what it can be told.

Its faces (QMF, the command line, HTTP, ...) give things the names of their own users; here they have the names of the
code. Entities are the core's own objects (virtual hosts, exchanges, queues, bindings, consumers), with their counters;
of connections and sessions, which belong to front-ends, this module says what a front-end must tell.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mypy_extensions import mypyc_attr

from broker.consumer import Consumer
from broker.errors import NotFound, PreconditionFailed
from broker.security.access import ALL
from broker.security.identity import NOBODY
from broker.security.quotas import UNLIMITED

if TYPE_CHECKING:
    from broker.broker import Broker
    from broker.exchange import Binding, Exchange
    from broker.queue import Queue
    from broker.virtualhost import VirtualHost

logger = logging.getLogger(__name__)

CONNECTED = "connected"
CONNECT_FAILED = "connect failed"
DISCONNECTED = "disconnected"
QUEUE_DECLARED = "queue declared"
QUEUE_DELETED = "queue deleted"
EXCHANGE_DECLARED = "exchange declared"
EXCHANGE_DELETED = "exchange deleted"
BOUND = "bound"
UNBOUND = "unbound"
SUBSCRIBED = "subscribed"
UNSUBSCRIBED = "unsubscribed"
THRESHOLD = "threshold crossed"
REDIRECTED = "redirected"
REDIRECT_ENDED = "redirect ended"
"""Kinds of events."""


class ManagedSession:
    """A session or channel of a connection, as it is at this moment."""

    __slots__ = ("name", "channel", "unsettled", "consumers")

    def __init__(self, name: str, channel: int, unsettled: int, consumers: list[Consumer]) -> None:
        self.name = name  # unique within the broker
        self.channel = channel
        self.unsettled = unsettled  # deliveries
        self.consumers = consumers


class Traffic:
    """What has gone over one connection, or several."""

    __slots__ = ("connections", "messages_in", "messages_out", "bytes_in", "bytes_out")

    def __init__(self) -> None:
        self.connections = 0
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def include(self, other: Traffic) -> None:
        self.connections += other.connections
        self.messages_in += other.messages_in
        self.messages_out += other.messages_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out

    def add(self, other: ManagedConnection) -> None:
        self.connections += 1
        self.messages_in += other.messages_in
        self.messages_out += other.messages_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out


@mypyc_attr(allow_interpreted_subclasses=True)
class ManagedConnection:
    """A client's connection. A front-end derives from this, fills it in, and tells `Management` when it is opened and
    when it is closed."""

    def __init__(self) -> None:
        self.peer = ""  # the client's address
        self.peer_name = ""  # the name of its host, where somebody has asked for that; the address is one of that name
        self.dialect = ""  # such as "AMQP 1.0"
        self.user = ""
        self.identity = NOBODY
        self.access = ALL
        self.quota = UNLIMITED
        self.impersonates = False  # may send messages whose user-id is another's
        self.host_name = ""
        self.mechanism = ""  # of SASL
        self.properties: dict[str, Any] = {}  # what the client says of itself
        self.opened_at = 0  # ms since the epoch
        self.last_input = 0  # likewise
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def container(self) -> str:
        """The name by which a client's connections are known to belong together; "" when it has told none."""
        for name in ("clientName", "instance"):
            value = self.properties.get(name)
            if isinstance(value, str):
                return value
        return ""

    def managed_sessions(self) -> list[ManagedSession]:
        """Its sessions, as they are now."""
        return []

    def end_session_by_order(self, channel: int, text: str) -> None:
        """The same for one of its sessions, which was there a moment ago."""
        raise NotImplementedError

    def close_by_order(self, text: str) -> None:
        """An operator wants the client gone: say so in the dialect's way, and close."""
        raise NotImplementedError


class ManagedPart:
    """A link or a bridge of the gateway, as it is at this moment."""

    __slots__ = ("kind", "name", "host_name", "created", "values")

    def __init__(self, kind: str, name: str, host_name: str, created: int, values: dict[str, Any]) -> None:
        self.kind = kind  # "link" or "bridge"
        self.name = name
        self.host_name = host_name  # of a bridge: its virtual host; "" of a link, which is everybody's
        self.created = created  # ms since the epoch
        self.values = values  # by the names that protocols/qmf/schema.py has


@mypyc_attr(allow_interpreted_subclasses=True)
class GatewayControl:
    """What the gateway, which the core does not know, offers to those who manage; it derives from this."""

    def parts(self, kind: str) -> list[ManagedPart]:
        """The links, or the bridges."""
        raise NotImplementedError

    def create(self, kind: str, name: str, properties: dict[str, Any], durable: bool = True,
               password: str = "") -> None:
        """Make one, for as long as nobody deletes it. durable: over restarts; password: of a link, which is never
        shown. Raises: NotFound, PreconditionFailed."""
        raise NotImplementedError

    def delete(self, kind: str, name: str) -> None:
        """Raises: NotFound, PreconditionFailed."""
        raise NotImplementedError

    def pause(self, name: str, paused: bool) -> None:
        """Have a bridge rest, or go on. Raises: NotFound."""
        raise NotImplementedError


class Event:
    """Something that has happened. Which values there are, and their names, depends on its kind."""

    __slots__ = ("kind", "host", "peer", "user", "values")

    def __init__(self, kind: str, host: str, peer: str, user: str, values: dict[str, Any]) -> None:
        self.kind = kind
        self.host = host  # the virtual host's name; "": of none
        self.peer = peer  # the client that has done it; "": the broker itself
        self.user = user
        self.values = values


@mypyc_attr(allow_interpreted_subclasses=True)
class Observer:
    """Whoever wants to hear of events."""

    def happened(self, event: Event) -> None:
        """Called in the midst of what happens: an observer may take notes, no more."""
        raise NotImplementedError


class Management:
    """What the broker's parts report to, and what its faces ask."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.started = broker.clock.now  # ms since the epoch
        self.connections: dict[ManagedConnection, None] = {}
        self.observers: list[Observer] = []
        self.gateway: GatewayControl | None = None
        self.actor: ManagedConnection | None = None  # whose input is being dealt with
        self.relaying = False  # what is published just now is no message of the actor's, even if he has caused it
        self._past: dict[tuple[str, str], Traffic] = {}  # of connections that are over, by virtual host and dialect

    # Connections.

    def opened(self, connection: ManagedConnection) -> None:
        """A client has opened its virtual host."""
        connection.opened_at = self.broker.clock.now
        self.connections[connection] = None
        self._tell(CONNECTED, connection.host_name, connection, {"properties": connection.properties})

    def closed(self, connection: ManagedConnection) -> None:
        """A connection is over, for whatever reason; to say so twice, or of one that never was opened, is no error."""
        connection.quota.close()
        if connection in self.connections:
            del self.connections[connection]
            self._past.setdefault((connection.host_name, connection.dialect), Traffic()).add(connection)
            self._tell(DISCONNECTED, connection.host_name, connection, {"properties": connection.properties})

    def refused(self, connection: ManagedConnection, reason: str) -> None:
        """A client was not let in."""
        self._tell(CONNECT_FAILED, connection.host_name, connection,
                   {"reason": reason, "properties": connection.properties})

    def connections_of(self, host: VirtualHost) -> list[ManagedConnection]:
        return [connection for connection in self.connections if connection.host_name == host.name]

    def traffic(self, host: VirtualHost, family: str) -> Traffic:
        """All that has gone over a virtual host's connections, those that are over included, of the dialects whose
        names begin so."""
        total = Traffic()
        for (name, dialect), past in self._past.items():
            if name == host.name and dialect.startswith(family):
                total.include(past)
        for connection in self.connections_of(host):
            if connection.dialect.startswith(family):
                total.add(connection)
        return total

    # What the core reports.

    def queue_declared(self, queue: Queue, created: bool) -> None:
        if self.observers:
            self._tell(QUEUE_DECLARED, queue.host.name, self.actor, {
                "queue": queue.name, "durable": queue.durable, "exclusive": queue.exclusive,
                "auto_delete": queue.auto_delete, "alternate": queue.settings.alternate or "",
                "arguments": queue.arguments, "created": created})

    def queue_deleted(self, queue: Queue) -> None:
        if self.observers:
            self._tell(QUEUE_DELETED, queue.host.name, self.actor, {"queue": queue.name})

    def exchange_declared(self, host: VirtualHost, exchange: Exchange, created: bool) -> None:
        if self.observers:
            self._tell(EXCHANGE_DECLARED, host.name, self.actor, {
                "exchange": exchange.name, "kind": exchange.kind, "alternate": exchange.alternate or "",
                "durable": exchange.durable, "auto_delete": exchange.auto_delete, "arguments": exchange.arguments,
                "created": created})

    def exchange_deleted(self, host: VirtualHost, exchange: Exchange) -> None:
        if self.observers:
            self._tell(EXCHANGE_DELETED, host.name, self.actor, {"exchange": exchange.name})

    def bound(self, host: VirtualHost, binding: Binding) -> None:
        if self.observers:
            self._tell(BOUND, host.name, self.actor, {
                "exchange": binding.source.name, "destination": binding.destination().name,
                "key": binding.routing_key, "arguments": binding.arguments})

    def unbound(self, host: VirtualHost, binding: Binding) -> None:
        if self.observers:
            self._tell(UNBOUND, host.name, self.actor, {
                "exchange": binding.source.name, "destination": binding.destination().name,
                "key": binding.routing_key})

    def subscribed(self, queue: Queue, consumer: Consumer) -> None:
        if self.observers:
            self._tell(SUBSCRIBED, queue.host.name, self.actor, {
                "queue": queue.name, "tag": consumer.tag, "exclusive": consumer.exclusive})

    def unsubscribed(self, queue: Queue, consumer: Consumer) -> None:
        if self.observers:
            self._tell(UNSUBSCRIBED, queue.host.name, self.actor, {"queue": queue.name, "tag": consumer.tag})

    def redirected(self, source: Queue, target: str, begun: bool) -> None:
        """What goes to one queue goes to another from now on; or no more."""
        if self.observers:
            self._tell(REDIRECTED if begun else REDIRECT_ENDED, source.host.name, self.actor,
                       {"queue": source.name, "target": target})

    def threshold(self, queue: Queue, measure: str, value: int, up: bool) -> None:
        """A queue has crossed a mark of its alerts (broker/alerts.py), upward or downward. measure: of which kind."""
        if self.observers:
            self._tell(THRESHOLD, queue.host.name, None, {
                "queue": queue.name, "measure": measure, "value": value, "up": up,
                "messages": queue.ready + queue.unsettled, "bytes": queue.ready_bytes + queue.unsettled_bytes})

    def _tell(self, kind: str, host: str, actor: ManagedConnection | None, values: dict[str, Any]) -> None:
        if not self.observers:
            return
        event = Event(kind, host, "" if actor is None else actor.peer, "" if actor is None else actor.user, values)
        for observer in self.observers:
            observer.happened(event)

    # What can be done, beside what a virtual host does for its clients anyhow.

    def delete_queue(self, host: VirtualHost, name: str, if_unused: bool, if_empty: bool) -> bool:
        """Gives whether to wait for the store. Raises: NotFound, PreconditionFailed, ResourceLocked."""
        queue = host.queue(name)
        if queue.owner is not None and queue.owner is not self.actor:
            queue.check_access(None)
        if if_unused and len(queue.consumers):
            raise PreconditionFailed(f"{queue!r} in use")
        if if_empty and queue.ready + queue.unsettled:
            raise PreconditionFailed(f"{queue!r} not empty")
        return host.delete_queue(queue)

    def close_connection(self, connection: ManagedConnection) -> None:
        """Close a client's connection. Raises: NotFound, when it is gone already."""
        if connection not in self.connections:
            raise NotFound(f"no connection {connection.peer}")
        logger.warning("%s: the connection is closed by order of an operator", connection.peer)
        connection.close_by_order("closed by management")

    def close_session(self, connection: ManagedConnection, session: ManagedSession) -> None:
        """End one session or channel of a client. Raises: NotFound, when it is gone already."""
        if connection not in self.connections:
            raise NotFound(f"no session {session.name}")
        logger.warning("%s: session %s is ended by order of an operator", connection.peer, session.name)
        connection.end_session_by_order(session.channel, "ended by management")

    def bindings(self, host: VirtualHost) -> Iterator[Binding]:
        """All bindings of a virtual host between what users can see."""
        for exchange in list(host.exchanges.values()):
            for binding in list(exchange.bindings.values()):
                if binding.queue is None or not binding.queue.hidden:
                    yield binding
