"""What connections share: which containers are connected, and which links there are by name.

A container may want to be connected once only (OASIS, AMQP Enforcing Connection Uniqueness, version 1.0). A link is
known by its name between two containers; whoever attaches one of that name again takes it over (part 2, 2.6.1). A
container is one user's: another who calls his the same has a container of his own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.values import Symbol
from broker.virtualhost import VirtualHost
from protocols.amqp10.dynamic import DynamicNodes
from protocols.amqp10.errors import CONNECTION, INVALID_FIELD, LINK, RESOURCE_LOCKED, STOLEN, ProtocolError
from protocols.amqp10.link import Link, link_key

if TYPE_CHECKING:
    from protocols.amqp10.connection import Connection
    from protocols.amqp10.opening import Opening

SOLE = "sole-connection-for-container"
REFUSE = 0
CLOSE_EXISTING = 1
"""Enforcement policies."""


class Containers:
    """All containers that are connected to a broker by this dialect."""

    def __init__(self) -> None:
        self._suspended: dict[str, Link] = {}
        self._connections: dict[str, list[Opening]] = {}
        self._links: dict[str, Link] = {}
        self.dynamic = DynamicNodes()

    def enter(self, connection: Opening, host: VirtualHost, desired: list[str], properties: dict[str, Any]) -> None:
        """A connection opens. Raises: ProtocolError when its container may be connected only once, and is."""
        key = _container_key(host, connection)
        others = self._connections.get(key, [])
        wants_sole = SOLE in desired
        policy = properties.get("sole-connection-enforcement-policy", REFUSE)
        if others and (wants_sole or any(other.sole for other in others)):
            if not wants_sole or policy != CLOSE_EXISTING:
                raise ProtocolError(INVALID_FIELD, f"container '{connection.container_id}' is connected already",
                                    CONNECTION, {"invalid-field": Symbol("container-id")})
            for other in list(others):
                other.close_with(ProtocolError(
                    RESOURCE_LOCKED, f"container '{connection.container_id}' has connected anew", CONNECTION,
                    {"sole-connection-enforcement": True}))
        connection.sole = wants_sole
        self._connections.setdefault(key, []).append(connection)

    def leave(self, connection: Opening) -> None:
        """A connection is gone. It may never have entered."""
        key = _container_key(connection.host, connection) if connection.opened else ""
        others = self._connections.get(key)
        if others is not None and connection in others:
            others.remove(connection)
            if not others:
                del self._connections[key]

    def remember(self, link: Link) -> None:
        """A link is attached: one of the same name that its container has already is taken from where it was."""
        self._steal(link.key, link.name)
        self._links[link.key] = link
        link.attached = True

    def steal(self, connection: Connection, role: bool, name: str) -> None:
        """Detach the link of that name that the connection's container has, if it has one."""
        self._steal(link_key(connection, role, name), name)

    def _steal(self, key: str, name: str) -> None:
        other = self._links.get(key)
        if other is not None:
            other.fail(ProtocolError(STOLEN, f"link '{name}' was attached again", LINK), closed=False)

    def forget(self, link: Link) -> None:
        """A link is detached."""
        if self._links.get(link.key) is link:
            del self._links[link.key]
        self.dynamic.leave(link)

    # Links that may come back.

    def suspend(self, link: Link, event: int) -> None:
        """A link that has something unsettled is detached by the event."""
        self._suspended[link.key] = link
        link.connection.suspended.append(link)
        self.happened(link, event)

    def happened(self, link: Link, event: int) -> None:
        """What may end the time of a suspended link."""
        if event < link.expiry or link.timer is not None:
            return
        if link.timeout <= 0:
            self._expire(link)
        else:
            link.timer = link.session.broker.timers.after(link.timeout * 1000, lambda: self._expire(link))

    def take_back(self, link: Link) -> Link | None:
        """The suspended link that this one is the return of."""
        former = self._suspended.pop(link.key, None)
        if former is not None:
            former.connection.suspended.remove(former)
            if former.timer is not None:
                former.timer.cancel()
        return former

    def _expire(self, link: Link) -> None:
        if self._suspended.get(link.key) is link:
            self.take_back(link)
            link.forgotten()


def _container_key(host: VirtualHost, connection: Opening) -> str:
    return f"{host.name}\0{connection.user}\0{connection.container_id}"
