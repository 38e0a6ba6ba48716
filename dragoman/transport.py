"""A client's socket: bytes to its front-end and back.

All output of a turn of the loop is written at its end, in one write a connection. A client that does not read is
sent no more messages; one that goes on sending while it does not read is read no more, and after a while is cut off.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, cast

from broker.security.addresses import is_loopback
from broker.security.identity import NOBODY, Identity, Peer
from broker.security.provider import Refusal
from dragoman.arrivals import Arrival
from dragoman.shares import PACE
from dragoman.tls import TlsPeer
from protocols.amqp10.opening import SASL_HEADER as SASL10
from protocols.detect import MQTT, TLS10, Unknown, protocol_header
from protocols.frontend import CONGESTED, FrontEnd, Outlet

if TYPE_CHECKING:
    from dragoman.listening import Listening
    from dragoman.security import Logins
    from dragoman.server import Server

logger = logging.getLogger(__name__)

_LARGE = 4096

_SHARE = 8
"""Of the output that may wait for a client, such a part is kept for what is no message."""


class Transport(Outlet, asyncio.Protocol):
    """One connection's socket, as asyncio's protocols are."""

    def __init__(self, server: Server, listening: Listening, arrival: Arrival, read: bytes) -> None:
        self.server = server
        self.listening = listening
        self.arrival = arrival
        arrival.drop = self.abort
        arrival.logged_in = self.logged_in
        self.quota = arrival.quota
        self.socket: asyncio.Transport | None = None
        self.front_end: FrontEnd | None = None
        self.peer = arrival.peer
        self.origin = Peer()
        self.dirty = False
        self.held = False  # the front-end wants no more input
        self.flooded_since = 0  # ms since the epoch
        self.moved = 0  # bytes that had gone in and out
        self.moved_at = 0  # ms since the epoch: when there were last more of them
        self.logins: Logins | None = None  # who were asked whether it may come in
        self._expired = False  # its login does not hold any longer, and it was told so
        self.rest = b""  # input that waits, from `rest_at` on
        self.rest_at = 0
        self.took = 0.0  # seconds that what came since there was no rest has taken
        self.waits = False  # for its turn, in `Server.shares`
        self.greedy_until = 0.0  # by perf_counter
        self.moves = True  # what it sent last has moved messages
        self.pace = PACE  # seconds that a byte of its input has taken
        self._first = read  # what it began with, until it is known what it speaks

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.socket = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        self.origin = self._origin(self.quota.party.address)
        self.socket.set_write_buffer_limits(high=self.quota.output // _SHARE)
        if not self.server.connected(self):
            self.socket.abort()
        elif self._first:
            self._detect(b"")

    def _origin(self, address: str) -> Peer:
        """Where the client comes from, for those who decide on its login."""
        listener = self.listening.listener.name()
        connection = self.socket.get_extra_info("ssl_object") if self.socket is not None else None
        if connection is None:
            return Peer(address, listener, is_loopback(address))
        return TlsPeer(address, listener, is_loopback(address), connection)

    def data_received(self, data: bytes) -> None:
        self.server.clock.tick()
        if self.front_end is None:
            self._detect(data)
        else:
            self.server.shares.take(self, data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.server.clock.tick()
        if self.rest and error is None and not self.held:
            self.feed(self.rest[self.rest_at:])  # it has said all that it wanted, and gone
        self.rest = b""
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
            self._see_flood(self.front_end)

    def resume_writing(self) -> None:
        self.server.clock.tick()
        front_end = self.front_end
        if front_end is None:
            return
        front_end.clogged = False
        if self.flooded_since:
            self.flooded_since = 0
            self.read_or_not()
            if self.rest:
                self.server.shares.wait(self)
        self.want_flush()  # whatever it has, as bytes or as confirms to be written
        self._drained(front_end)

    # What the front-end calls.

    def want_flush(self) -> None:
        if not self.dirty:
            self.dirty = True
            self.server.flush_soon(self)

    def pause_reading(self) -> None:
        self.held = True
        self.read_or_not()

    def resume_reading(self) -> None:
        self.held = False
        self.read_or_not()
        if self.rest:
            self.server.shares.wait(self)

    def admit(self, connection: FrontEnd, host_name: str) -> None:
        self.server.admit(self, connection, host_name)
        self.limited()

    # What the server calls.

    def abort(self) -> None:
        if self.socket is not None:
            self.socket.abort()

    def limited(self) -> None:
        """The limits of this connection are known, or have changed."""
        quota, front_end = self.quota, self.front_end
        if front_end is not None:
            front_end.message_size = quota.message_size
            front_end.flooded = quota.output
            front_end.full = quota.output // _SHARE
        if self.socket is not None:
            self.socket.set_write_buffer_limits(high=quota.output // _SHARE)

    def review(self, logins: Logins) -> None:
        """There are other users, or they have other rights: see whether the client may stay."""
        front_end = self.front_end
        if front_end is not None and self.logged_in():
            self.logins = logins
            identity = front_end.identity
            logins.of(self.listening.listener).review(identity, self.origin, partial(self._reviewed, identity))

    def _reviewed(self, before: Identity, result: Identity | Refusal) -> None:
        front_end = self.front_end
        if front_end is None or self._expired:
            return
        if front_end.identity is not before and self.logins is not None:
            self.review(self.logins)  # it has logged in anew, or was looked at twice
        elif isinstance(result, Refusal):
            self._expired = True
            logger.warning("%s: closed, user %s may not log in any more: %s", self.peer, front_end.user, result.reason)
            front_end.close_by_order(f"user '{front_end.user}' "  # RabbitMQ's words
                                     f"{'is deleted' if result.unknown else 'may not log in any more'}")
        elif result.groups != before.groups or result.tags != before.tags:
            if front_end.opened:
                front_end.renew(result)
            else:
                front_end.identity = result

    def waiting(self) -> int:
        """Bytes of output that the client has not taken."""
        size = 0 if self.front_end is None else self.front_end.out_size
        return size if self.socket is None else size + self.socket.get_write_buffer_size()

    def logged_in(self) -> bool:
        return self.front_end is not None and self.front_end.identity is not NOBODY

    def progress(self) -> int:
        """How many messages have come to queues, whoever has sent them, or gone to this client; for comparison."""
        front_end = self.front_end
        return self.server.broker.log.last_id + (0 if front_end is None else front_end.messages_out)

    def feed(self, data: bytes) -> None:
        """Have the front-end deal with some input."""
        front_end = self.front_end
        if front_end is None or front_end.finished:
            return
        front_end.bytes_in += len(data)
        management = self.server.broker.management
        management.actor = front_end
        front_end.receive(data)
        management.actor = None
        self._see_flood(front_end)

    def _see_flood(self, front_end: FrontEnd) -> None:
        """Whether the client asks for more than it reads: then what it asks for is not read either."""
        if front_end.clogged and not self.flooded_since and (front_end.paused & CONGESTED
                                                             or front_end.out_size > front_end.flooded):
            self.flooded_since = self.server.clock.now
            self.read_or_not()

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
            self._drained(front_end)

    def _drained(self, front_end: FrontEnd) -> None:
        """There is room for output: tell the client's front-end, which may have work that waits for that."""
        management = self.server.broker.management
        management.actor = front_end
        front_end.drained()
        management.actor = None

    def tick(self, now: int) -> None:
        """About once a second."""
        socket = self.socket
        front_end = self.front_end
        if socket is None:
            return
        if self.flooded_since and now - self.flooded_since > 1000 * self.server.config.limits.output_seconds:
            logger.warning("%s: closed, the client sends but does not read", self.peer)
            socket.abort()
        elif front_end is not None and self._is_idle(front_end, now):
            logger.warning("%s: closed, nothing was sent or received for %d s", self.peer, self.quota.idle_seconds)
            front_end.close_by_order(f"idle for {self.quota.idle_seconds} s")
        elif front_end is not None:
            expires = front_end.identity.expires
            if expires and now >= expires and not self._expired:
                self._expired = True
                logger.warning("%s: closed, the token of user %s has expired", self.peer, front_end.user)
                front_end.expire("the credentials have expired")
            front_end.tick(now)
            if front_end.finished and front_end.clogged:
                socket.abort()  # it was told why, and does not read it

    def _is_idle(self, front_end: FrontEnd, now: int) -> bool:
        """Whether nothing has gone in either direction for too long."""
        seconds = self.quota.idle_seconds
        moved = front_end.bytes_in + front_end.bytes_out
        if moved != self.moved or not seconds:
            self.moved, self.moved_at = moved, now
        return front_end.opened and not front_end.finished and 0 < 1000 * seconds < now - self.moved_at

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
            front_end = self.front_end = self.server.front_end(header, self)
            front_end.quota = self.quota
            front_end.peer_name = self.arrival.host_name
            self.limited()
            if rest:
                self.server.shares.take(self, rest)

    def read_or_not(self) -> None:
        socket = self.socket
        if socket is None or socket.is_closing():
            return
        wanted = not self.held and not self.flooded_since and not self.waits
        if wanted and not socket.is_reading():
            socket.resume_reading()
        elif not wanted and socket.is_reading():
            socket.pause_reading()
