"""A client's socket: bytes to its front-end and back.

All output of a turn of the loop is written at its end, in one write a connection. A client that does not read is
sent no more messages; one that goes on sending while it does not read is read no more, and after a while is cut off.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import TYPE_CHECKING, Final, cast

from broker.security.identity import Peer
from dragoman.config import Listener
from dragoman.tls import TlsPeer
from protocols.amqp10.connection import SASL_HEADER as SASL10
from protocols.detect import MQTT, TLS10, Unknown, protocol_header
from protocols.frontend import FULL, FrontEnd, Outlet

if TYPE_CHECKING:
    from dragoman.server import Server

logger = logging.getLogger(__name__)

FLOODED: Final = 8 << 20
"""Bytes of replies that wait for a client that does not read, above which it is not read either."""

PATIENCE: Final = 60_000
"""How long that may last, ms."""

_LARGE: Final = 4096


class Transport(Outlet, asyncio.Protocol):
    """One connection's socket, as asyncio's protocols are."""

    def __init__(self, server: Server, listener: Listener, read: bytes, deadline: int) -> None:
        self.server = server
        self.listener = listener
        self.socket: asyncio.Transport | None = None
        self.front_end: FrontEnd | None = None
        self.peer = "?"
        self.origin = Peer()
        self.deadline = deadline  # ms since the epoch: when the handshake must be over
        self.dirty = False
        self.held = False  # the front-end wants no more input
        self.flooded_since = 0  # ms since the epoch
        self._expired = False  # and it was told so
        self._first = read  # what it began with, until it is known what it speaks

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        address = transport.get_extra_info("peername")
        if address:
            self.peer = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        self.origin = self._origin(address[0] if address else "")
        self.socket.set_write_buffer_limits(high=FULL)
        if not self.server.connected(self):
            self.socket.abort()
        elif self._first:
            self._detect(b"")

    def _origin(self, address: str) -> Peer:
        """Where the client comes from, for those who decide on its login."""
        listener = f"{self.listener.host}:{self.listener.port}"
        connection = self.socket.get_extra_info("ssl_object") if self.socket is not None else None
        if connection is None:
            return Peer(address, listener, is_loopback(address))
        return TlsPeer(address, listener, is_loopback(address), connection)

    def data_received(self, data: bytes) -> None:
        self.server.clock.tick()
        front_end = self.front_end
        if front_end is None:
            self._detect(data)
            return
        front_end.bytes_in += len(data)
        management = self.server.broker.management
        management.actor = front_end
        front_end.receive(data)
        management.actor = None
        if front_end.clogged and front_end.out_size > FLOODED and not self.flooded_since:
            self.flooded_since = self.server.clock.now
            self._read_or_not()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.server.clock.tick()
        self.socket = None
        front_end, self.front_end = self.front_end, None  # no cycle: it is gone at once, with all that it holds
        if front_end is not None:
            management = self.server.broker.management
            management.actor = front_end
            front_end.lost()
            management.closed(front_end)
            management.actor = None
        self.server.disconnected(self)

    def pause_writing(self) -> None:
        if self.front_end is not None:
            self.front_end.clogged = True

    def resume_writing(self) -> None:
        self.server.clock.tick()
        front_end = self.front_end
        if front_end is None:
            return
        front_end.clogged = False
        if self.flooded_since:
            self.flooded_since = 0
            self._read_or_not()
        self.want_flush()  # whatever it has, as bytes or as confirms to be written
        front_end.drained()

    # What the front-end calls.

    def want_flush(self) -> None:
        if not self.dirty:
            self.dirty = True
            self.server.flush_soon(self)

    def pause_reading(self) -> None:
        self.held = True
        self._read_or_not()

    def resume_reading(self) -> None:
        self.held = False
        self._read_or_not()

    def admit(self, connection: FrontEnd, host_name: str) -> None:
        self.server.admit(connection, host_name)

    # What the server calls.

    def flush(self) -> None:
        """Write what there is, unless the socket is still busy with earlier output."""
        self.dirty = False
        front_end = self.front_end
        socket = self.socket
        if front_end is None or socket is None or (front_end.clogged and not front_end.finished):
            return
        size = front_end.out_size
        out = front_end.take_output()
        if out and (len(out) == 1 or size // len(out) < _LARGE):
            data = out[0] if len(out) == 1 else b"".join(out)
            front_end.bytes_out += len(data)
            socket.write(data)
        elif out:
            front_end.bytes_out += sum(map(len, out))
            socket.writelines(out)
        if front_end.finished:
            socket.close()
        elif not front_end.clogged:
            front_end.drained()

    def tick(self, now: int) -> None:
        """About once a second."""
        socket = self.socket
        front_end = self.front_end
        if socket is None:
            return
        if (front_end is None or not front_end.opened) and now > self.deadline:
            logger.warning("%s: closed, the handshake took longer than %d s", self.peer,
                           self.server.config.limits.handshake_seconds)
            socket.abort()
        elif self.flooded_since and now - self.flooded_since > PATIENCE:
            logger.warning("%s: closed, the client sends but does not read", self.peer)
            socket.abort()
        elif front_end is not None:
            expires = front_end.identity.expires
            if expires and now >= expires and not self._expired:
                self._expired = True
                logger.warning("%s: closed, the token of user %s has expired", self.peer, front_end.user)
                front_end.expire("the credentials have expired")
            front_end.tick(now)
            if front_end.finished and front_end.clogged:
                socket.abort()  # it was told why, and does not read it

    def _detect(self, data: bytes) -> None:
        self._first += data
        socket = self.socket
        if socket is None:
            return
        try:
            header = protocol_header(self._first, self.server.served())
        except Unknown as error:
            logger.warning("%s: closed, it begins with %s, which is no protocol that is served", self.peer, error)
            socket.write(SASL10 if self._first.startswith(TLS10) else self.server.preferred_header)
            socket.close()
            return
        if header is not None:
            rest = self._first if header == MQTT else self._first[len(header):]
            self._first = b""
            self.front_end = self.server.front_end(header, self)
            if rest:
                self.front_end.receive(rest)

    def _read_or_not(self) -> None:
        socket = self.socket
        if socket is None or socket.is_closing():
            return
        wanted = not self.held and not self.flooded_since
        if wanted and not socket.is_reading():
            socket.resume_reading()
        elif not wanted and socket.is_reading():
            socket.pause_reading()


def is_loopback(host: str) -> bool:
    """Whether a peer's address is this machine's own loopback."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
