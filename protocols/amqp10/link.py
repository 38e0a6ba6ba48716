"""What links of both directions have in common (part 2, section 2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.clock import Timer
from broker.security.quotas import LINKS
from protocols.amqp10 import frames as f
from protocols.amqp10.errors import LINK, NOT_ALLOWED, ProtocolError
from protocols.amqp10.resume import DETACHED, expiry_of

if TYPE_CHECKING:
    from protocols.amqp10.connection import Connection
    from protocols.amqp10.session import Session

SENDER = False
RECEIVER = True
"""Roles, as they are written."""


class Link:
    """One link of a session. `role` is ours: SENDER where the client receives."""

    def __init__(self, session: Session, m: dict[str, Any]) -> None:
        self.session = session
        self.connection = session.connection
        self.host = session.connection.host
        self.name: str = m["name"]
        self.handle: int = m["handle"]
        self.role = not m["role"]
        self.attached = False  # the client knows of it, and it was not let go of
        self.detaching = False  # we have sent detach
        self.key = link_key(self.connection, self.role, self.name)
        self.expiry = -1  # the event after which nothing of it is left; -1: nothing stays when it is detached
        self.timeout = 0  # for so many seconds after that event something is
        self.timer: Timer | None = None
        self.starved = False  # it waits for the socket, and the connection knows
        self.stalled = False  # it waits for the session's window, and the session knows

    def flow(self, m: dict[str, Any]) -> None:
        """The client's flow for this link. Raises: ProtocolError."""
        raise NotImplementedError

    def transfer(self, values: list[Any], data: bytes, at: int, stop: int) -> None:
        """A transfer on it. Raises: ProtocolError, BrokerError, Malformed."""
        raise ProtocolError(NOT_ALLOWED, "a transfer came on a link on which the client receives", LINK)

    def resume(self) -> None:
        """There may be room for its deliveries again."""

    def alarms_changed(self, raised: bool) -> None:
        """Publishers must be held, or may go on."""

    def lasts(self, terminus: dict[str, Any]) -> None:
        """Let our terminus say for how long the link may come back to its unsettled deliveries."""
        self.expiry = expiry_of(terminus)
        self.timeout = terminus["timeout"]

    def outlives(self, event: int) -> bool:
        """Whether its unsettled deliveries stay so after the event."""
        return event < self.expiry or self.expiry >= 0 and self.timeout > 0

    def let_go(self, closed: bool, event: int) -> None:
        """It is detached or, if `closed`, closed; or (`event`) its session or connection is gone."""
        raise NotImplementedError

    def forgotten(self) -> None:
        """It was suspended, and will not come back."""

    def release(self, closed: bool, event: int = DETACHED) -> None:
        """End its work, once."""
        if self.attached:
            self.attached = False
            self.connection.quota.give(LINKS)
            self.let_go(closed, event)
            self.connection.containers.forget(self)

    def fail(self, error: ProtocolError, closed: bool = True) -> None:
        """Close it (or only detach it) for an error."""
        if self.detaching:
            return
        self.detaching = True
        if closed:
            self.expiry = -1
        self.release(False)  # whose subscription it was can still come back to it
        self.session.send(f.DETACH.encode(handle=self.handle, closed=closed or None, error=error.value()))

    def detached_by_client(self, closed: bool) -> None:
        """The client's detach: answer, unless that is the answer to ours."""
        if not self.detaching:
            if closed:
                self.expiry = -1
            self.release(closed)
            self.session.send(f.DETACH.encode(handle=self.handle, closed=closed or None))


def link_key(connection: Connection, role: bool, name: str) -> str:
    """What makes a link the same one again: virtual host, user, container, direction and name."""
    return f"{connection.host.name}\0{connection.user}\0{connection.container_id}\0{role}\0{name}"
