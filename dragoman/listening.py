"""Listening sockets. Where TLS and plain clients share a port, the first bytes tell which one a client is.

TLS begins at once, or after the protocol header that AMQP 1.0 has for it (part 5, section 5.2): the client sends it in
the clear, is sent the same, and TLS begins on the same socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from typing import TYPE_CHECKING

from dragoman.config import Listener
from dragoman.config_tls import refuses_plain
from dragoman.reasons import reason
from dragoman.tls import CLIENT
from dragoman.transport import Transport
from protocols.amqp10.connection import PROTOCOL_HEADERS as HEADERS10
from protocols.detect import AMQP, HEADER_SIZE, TLS10

if TYPE_CHECKING:
    from dragoman.server import Server

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_TLS_HANDSHAKE = b"\x16"
"""The first byte of TLS: a record of type handshake (RFC 8446, section 5.1)."""


class Listening:
    """The sockets of one listener; its host name may stand for several addresses."""

    def __init__(self, server: Server, listener: Listener) -> None:
        self.server = server
        self.listener = listener  # may be another from one client to the next
        self.sockets: list[socket.socket] = []
        self.servers: list[asyncio.AbstractServer] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.addresses: list[tuple[str, int, str]] = []

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
                raise OSError(error.errno, f"{self.listener.host}:{self.listener.port}: {error.strerror}") from None
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
        for _ in range(64):
            try:
                client, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    logger.error("no client can connect for now: %s", error.strerror)
                    self.server.loop.remove_reader(listening)
                    self.server.loop.call_later(1, self._accept_again, listening)
                return
            peer = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
            if len(self.tasks) >= self.server.config.limits.connections:  # of those there is no transport yet
                logger.warning("%s: refused, %d clients are about to begin", peer, len(self.tasks))
                client.close()
                continue
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            task = self.server.loop.create_task(self._begin(client, peer))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self.server.loop.add_reader(listening, self._accept, listening)

    async def _begin(self, client: socket.socket, peer: str) -> None:
        """Find out whether the client speaks TLS, and hand it to its transport."""
        loop = self.server.loop
        listener = self.listener
        context = self.server.certificates.context(listener)
        patience = self.server.config.limits.handshake_seconds
        deadline, ends = self.server.clock.now + patience * 1000, loop.time() + patience
        try:
            read = b""
            if context is not None:
                async with asyncio.timeout_at(ends):
                    tls, read = await self._begins_tls(client)
                if not tls:
                    context = None
            if context is None and refuses_plain(self.server.config.tls, listener):
                logger.warning("%s: refused, it does not use TLS", peer)
                await self._refuse(client, read)
                return
            CLIENT.set(client)
            await loop.connect_accepted_socket(
                lambda: Transport(self.server, listener, read, deadline), client,
                ssl=context, **({} if context is None else {"ssl_handshake_timeout": max(ends - loop.time(), 0.001),
                                                            "ssl_shutdown_timeout": patience}))
        except TimeoutError:
            logger.warning("%s: closed, it was silent for %d s", peer, patience)
            client.close()
        except OSError as error:
            if context is not None:
                logger.warning("%s: closed, its TLS handshake failed: %s", peer, reason(error))
            client.close()
        except asyncio.CancelledError:
            client.close()

    async def _begins_tls(self, client: socket.socket) -> tuple[bool, bytes]:
        """Whether the client wants TLS, which it may begin now; if not, what has been read of what it says."""
        loop = self.server.loop
        first = await self._peek(client)
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

    async def _peek(self, client: socket.socket) -> bytes:
        ready: asyncio.Future[None] = self.server.loop.create_future()
        self.server.loop.add_reader(client, _settle, ready)
        try:
            await ready
        finally:
            self.server.loop.remove_reader(client)
        with contextlib.suppress(BlockingIOError):
            return client.recv(1, socket.MSG_PEEK)
        return b""


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
