"""What every front-end is to the server, and the server to it.

A front-end is sans-I/O: it gets bytes by `receive`, leaves bytes in `out`, and tells its `Outlet` when there are some.
It never sees a socket, and no clock but the broker's.
"""

from __future__ import annotations

from typing import Any, Final

from mypy_extensions import mypyc_attr

from broker.management import ManagedConnection, Management
from broker.security.identity import Identity

FULL: Final = 1 << 20
"""Bytes of output that are waiting for a client, above which it is sent no more messages, unless a limit says less."""

FLOODED: Final = 8 << 20
"""Bytes of output above which what a client asks for is not looked at, unless a limit says otherwise."""

LARGEST: Final = 512 << 20
"""Bytes that a client's message may have, unless a limit says otherwise."""

HELD: Final = 1
CONGESTED: Final = 2
CHECKING: Final = 4
"""Why a client's input waits, bits of `paused`: it publishes while an alarm is raised; what it asks for would make more
output than it reads; its login is being decided."""

_JMS_CLIENTS = ("Apache Qpid JMS Client", "Qpid Java Client")


def speaks_jms(properties: dict[str, Any]) -> bool:
    """Whether a client of a dialect before 1.0 says that it is Qpid's for JMS. properties: what it says of itself."""
    return any(str(properties.get(name, "")).startswith(_JMS_CLIENTS) for name in ("product", "qpid.client_process"))


@mypyc_attr(allow_interpreted_subclasses=True)
class Outlet:
    """The server's side of a connection."""

    def want_flush(self) -> None:
        """There is output: write it once this turn of the loop ends."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Read no more from the client (a publisher is held back)."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Read again."""
        raise NotImplementedError

    def admit(self, connection: FrontEnd, host_name: str) -> None:
        """A client that has logged in is about to open a virtual host; gives the connection its access.

        Raises: AccessRefused, LimitReached.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class FrontEnd(ManagedConnection):
    """One client's connection in some dialect."""

    def __init__(self) -> None:
        super().__init__()
        self.out: list[bytes] = []
        self.out_size = 0  # bytes in `out`
        self.clogged = False  # the socket takes no more
        self.full = FULL  # bytes of output that wait, above which it is sent no more messages
        self.flooded = FLOODED  # and above which what it asks for is not looked at
        self.paused = 0  # why its input waits: HELD, CONGESTED, CHECKING
        self.message_size = LARGEST  # the largest message that it may send, bytes
        self.finished = False  # write what is left and close
        self.opened = False  # the handshake is over

    def receive(self, data: bytes) -> None:
        """Bytes from the client. Never raises for what a client may send."""
        raise NotImplementedError

    def receive_rest(self, management: Management) -> None:
        """Go on with input that had to wait."""
        before, management.actor = management.actor, self
        self.receive(b"")
        management.actor = before

    def take_output(self) -> list[bytes]:
        """All output so far, for the server to write."""
        raise NotImplementedError

    def drained(self) -> None:
        """What was taken has been written, or was taken by the socket's buffer: there is room again."""
        raise NotImplementedError

    def tick(self, now: int) -> None:
        """About once a second: heartbeats and deadlines. now: ms since the epoch."""
        raise NotImplementedError

    def alarms_changed(self, reasons: list[str]) -> None:
        """Publishers must be held (there are reasons) or may go on (there are none)."""
        raise NotImplementedError

    def shut_down(self, text: str) -> None:
        """The broker is stopping: say good-bye in the dialect's way."""
        raise NotImplementedError

    def expire(self, text: str) -> None:
        """What the client has logged in with does not hold any longer: say good-bye."""
        self.shut_down(text)

    def renew(self, identity: Identity) -> None:
        """The client has logged in anew, or is another to those who know it: what it may do is as that says, from now
        on. Only once a virtual host is open."""
        raise NotImplementedError

    def close_by_order(self, text: str) -> None:
        self.shut_down(text)

    def lost(self) -> None:
        """The connection is gone: give back what the client had acquired, and let go of everything."""
        raise NotImplementedError
