"""Listening sockets. Where TLS and plain clients share a port, the first bytes tell which one a client is.

TLS begins at once, or after the protocol header that AMQP 1.0 has for it (part 5, section 5.2): the client sends it in
the clear, is sent the same, and TLS begins on the same socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from broker.security.addresses import written
from dragoman.arrivals import Arrival, Repeated
from dragoman.config import Listener
from dragoman.config_tls import refuses_plain
from dragoman.hostnames import confirmed_name
from dragoman.reasons import reason
from dragoman.tls import CLIENT
from dragoman.transport import Transport
from protocols.amqp10.opening import PROTOCOL_HEADERS as HEADERS10
from protocols.detect import AMQP, HEADER_SIZE, TLS10

if TYPE_CHECKING:
    from dragoman.server import Server

_BACKLOG = 1024
_MANY, _A_FEW, _REST = 64, 8, 0.01
"""How many clients are let in at a time; while others have work, so many, and none for some seconds after that."""

_TURNS = 4
"""Of the loop: so many it takes until a connection whose end has come is over."""

_TLS_LINES = 200
"""At most so many lines in ten seconds are logged of clients that do not get through TLS: each tells another reason."""
_TLS_HANDSHAKE = b"\x16"
"""The first byte of TLS: a record of type handshake (RFC 8446, section 5.1)."""


class Listening:
    """The sockets of one listener; its host name may stand for several addresses."""

    def __init__(self, server: Server, listener: Listener) -> None:
        self.server = server
        self.listener = listener  # may be another from one client to the next
        self.sockets: list[socket.socket] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.addresses: list[tuple[str, int, str]] = []
        self._no_files = Repeated()
        self._no_tls = Repeated(_TLS_LINES)

    async def start(self) -> None:
        """Raises: OSError."""
        loop = self.server.loop
        try:
            found = await loop.getaddrinfo(self.listener.host or None, self.listener.port, type=socket.SOCK_STREAM,
                                           flags=socket.AI_PASSIVE)
        except socket.gaierror as error:
            raise socket.gaierror(error.errno, f"{self.listener.host}: {error.strerror}") from None
        for family, _, _, _, address in dict.fromkeys(found):
            listening = socket.socket(family, socket.SOCK_STREAM)
            self.sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listening.bind(address)
                listening.listen(_BACKLOG)
            except OSError as error:
                raise OSError(error.errno, f"{self.listener.name()}: {error.strerror}") from None
            listening.setblocking(False)
            loop.add_reader(listening, self._accept, listening)
            host, port = listening.getsockname()[:2]
            self.addresses.append((host, port, "amqps" if self.listener.tls == "always" else "amqp"))

    def stop(self) -> None:
        for listening in self.sockets:
            if listening.fileno() >= 0:
                self.server.loop.remove_reader(listening)
                listening.close()
        for task in list(self.tasks):
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        busy = self.server.shares.busy()
        if busy:  # who is in already comes before those who want in
            self.server.loop.remove_reader(listening)
            self.server.loop.call_later(_REST, self._accept_again, listening)
        for _ in range(_A_FEW if busy else _MANY):
            try:
                client, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._no_files.log(self.server.clock.now, "a client is turned away: %s", error.strerror)
                    if self._turn_away(listening):
                        continue
                    self.server.loop.remove_reader(listening)
                    self.server.loop.call_later(1, self._accept_again, listening)
                return
            client.setblocking(False)
            self._arrive(client, address[0], address[1], _TURNS)

    def _arrive(self, client: socket.socket, host: str, port: int, turns: int) -> None:
        """Somebody has connected, in the place of somebody, perhaps, who is about to be found gone."""
        arrivals = self.server.arrivals
        if turns and arrivals.full():
            self.server.loop.call_soon(self._arrive, client, host, port, turns - 1)
            return
        arrival = arrivals.come(host, written(host, port), self.listener.name(), client.close)
        if arrival is None:
            client.close()
            return
        _keep_alive(client, self.server.config.limits.tcp_keepalive_seconds)
        if self.server.certificates.context(self.listener) is None:
            self._start(client, arrival, b"")
        else:
            arrival.drop = partial(self._stop_waiting, client)
            self.server.loop.add_reader(client, self._first_byte, client, arrival)

    def _turn_away(self, listening: socket.socket) -> bool:
        """There are no more file descriptors: close the next client by means of the one in reserve, so that it knows,
        and does not keep us awake. Gives whether there was one."""
        if self.server.reserve is None:
            return False
        os.close(self.server.reserve)
        self.server.reserve = None
        try:
            listening.accept()[0].close()
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                self.server.reserve = os.open(os.devnull, os.O_RDONLY)
        return True

    def _first_byte(self, client: socket.socket, arrival: Arrival) -> None:
        """The client has sent something: TLS, or a protocol's header."""
        self.server.loop.remove_reader(client)
        try:
            first = client.recv(1, socket.MSG_PEEK)
        except OSError:
            first = b""
        if first:
            self._start(client, arrival, first)
        else:
            self.server.arrivals.gone(arrival)
            client.close()

    def _stop_waiting(self, client: socket.socket) -> None:
        self.server.loop.remove_reader(client)
        client.close()

    def _start(self, client: socket.socket, arrival: Arrival, first: bytes) -> None:
        task = self.server.loop.create_task(self._begin(client, arrival, first))
        arrival.drop = task.cancel
        self.tasks.add(task)
        task.add_done_callback(partial(self._begun, client, arrival))

    def _begun(self, client: socket.socket, arrival: Arrival, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if task.cancelled():  # before its first step
            client.close()
            self.server.arrivals.gone(arrival)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self.server.loop.add_reader(listening, self._accept, listening)

    async def _begin(self, client: socket.socket, arrival: Arrival, first: bytes) -> None:
        """Find out whether the client speaks TLS, and hand it to its transport. first: the byte that it began with, if
        that matters."""
        loop = self.server.loop
        listener = self.listener
        context = self.server.certificates.context(listener)
        patience = arrival.quota.handshake_seconds
        ends = loop.time() + patience - (self.server.clock.now - arrival.since) / 1000
        transport = None
        try:
            if self.server.access.sources.asks_names:
                arrival.host_name = await confirmed_name(loop, client.getpeername()[0], patience / 2)
            read = b""
            if context is not None:
                tls, read = await self._begins_tls(client, first)
                if not tls:
                    context = None
            if context is None and refuses_plain(self.server.config.tls, listener):
                self._no_tls.log(self.server.clock.now, "%s: refused, it does not use TLS", arrival.peer)
                await self._refuse(client, read)
            else:
                CLIENT.set(client)
                _, transport = await loop.connect_accepted_socket(
                    lambda: Transport(self.server, self, arrival, read), client,
                    ssl=context, **({} if context is None else {"ssl_handshake_timeout": max(ends - loop.time(), 0.001),
                                                                "ssl_shutdown_timeout": patience}))
        except OSError as error:
            if context is not None:
                self._no_tls.log(self.server.clock.now, "%s: closed, its TLS handshake failed: %s", arrival.peer,
                                 reason(error))
        except asyncio.CancelledError:
            pass  # it has to go
        if transport is None:
            client.close()
            self.server.arrivals.gone(arrival)

    async def _begins_tls(self, client: socket.socket, first: bytes) -> tuple[bool, bytes]:
        """Whether the client wants TLS, which it may begin now; if not, what has been read of what it says."""
        loop = self.server.loop
        if first == _TLS_HANDSHAKE:
            return True, b""
        read = b""
        while first == AMQP[:1] and len(read) < HEADER_SIZE and AMQP.startswith(read[:len(AMQP)]):
            more = await loop.sock_recv(client, HEADER_SIZE - len(read))
            if not more:
                break
            read += more
        if read != TLS10:
            return False, read
        await loop.sock_sendall(client, TLS10)
        return True, b""

    async def _refuse(self, client: socket.socket, read: bytes) -> None:
        """Close the socket of a client that does not use TLS. One of AMQP 1.0 is told what it would have to begin with
        (part 2, section 2.2); other dialects have no words for it, so early."""
        if read in HEADERS10:
            await self.server.loop.sock_sendall(client, TLS10)
        client.close()


def _keep_alive(client: socket.socket, seconds: int) -> None:
    """Have the system find out when the other side is gone: ask after so long a silence, and four times in all."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if seconds:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 10))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
