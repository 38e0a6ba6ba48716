"""What connections share: which containers are connected, and which links there are by name.

A container may want to be connected once only (OASIS, AMQP Enforcing Connection Uniqueness, version 1.0). A link is
known by its name between two containers; whoever attaches one of that name again takes it over (part 2, 2.6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.values import Symbol
from broker.virtualhost import VirtualHost
from protocols.amqp10.dynamic import DynamicNodes
from protocols.amqp10.errors import CONNECTION, INVALID_FIELD, LINK, RESOURCE_LOCKED, STOLEN, ProtocolError
from protocols.amqp10.link import Link

if TYPE_CHECKING:
    from protocols.amqp10.connection import Connection

SOLE = "sole-connection-for-container"
REFUSE = 0
CLOSE_EXISTING = 1
"""Enforcement policies."""


class Containers:
    """All containers that are connected to a broker by this dialect."""

    def __init__(self) -> None:
        self._connections: dict[str, list[Connection]] = {}
        self._links: dict[str, Link] = {}
        self.dynamic = DynamicNodes()

    def enter(self, connection: Connection, host: VirtualHost, desired: list[str], properties: dict[str, Any]) -> None:
        """A connection opens. Raises: ProtocolError when its container may be connected only once, and is."""
        key = _container_key(host, connection.container_id)
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

    def leave(self, connection: Connection) -> None:
        """A connection is gone. It may never have entered."""
        key = _container_key(connection.host, connection.container_id) if connection.opened else ""
        others = self._connections.get(key)
        if others is not None and connection in others:
            others.remove(connection)
            if not others:
                del self._connections[key]

    def remember(self, link: Link) -> None:
        """A link is attached: one of the same name that its container has already is taken from where it was."""
        self.steal(link.connection, link.role, link.name)
        self._links[_link_key(link.connection, link.role, link.name)] = link
        link.attached = True

    def steal(self, connection: Connection, role: bool, name: str) -> None:
        """Detach the link of that name that the connection's container has, if it has one."""
        other = self._links.get(_link_key(connection, role, name))
        if other is not None:
            other.fail(ProtocolError(STOLEN, f"link '{name}' was attached again", LINK), closed=False)

    def forget(self, link: Link) -> None:
        """A link is detached."""
        key = _link_key(link.connection, link.role, link.name)
        if self._links.get(key) is link:
            del self._links[key]
        self.dynamic.leave(link)


def _container_key(host: VirtualHost, container: str) -> str:
    return f"{host.name}\0{container}"


def _link_key(connection: Connection, role: bool, name: str) -> str:
    return f"{connection.host.name}\0{connection.container_id}\0{role}\0{name}"
