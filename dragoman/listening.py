"""Listening sockets. Where TLS and plain clients share a port, the first byte tells which one a client is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from typing import TYPE_CHECKING

from dragoman.config import Listener
from dragoman.config_files import reason
from dragoman.transport import Transport

if TYPE_CHECKING:
    from dragoman.server import Server

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_TLS_HANDSHAKE = 0x16
"""The first byte of TLS: a record of type handshake (RFC 8446, section 5.1)."""


class Listening:
    """The sockets of one listener; its host name may stand for several addresses."""

    def __init__(self, server: Server, listener: Listener, tls: ssl.SSLContext | None) -> None:
        self.server = server
        self.listener = listener
        self.tls = tls
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

    def change_tls(self, tls: ssl.SSLContext) -> None:
        """Use other certificates for clients from now on."""
        if self.tls is not None:
            self.tls = tls

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
        patience = self.server.config.limits.handshake_seconds
        try:
            tls = self.tls
            if tls is not None and self.listener.tls == "detect":
                first = await asyncio.wait_for(self._peek(client), patience)
                if first != bytes([_TLS_HANDSHAKE]):
                    tls = None
            await loop.connect_accepted_socket(
                lambda: Transport(self.server, self.listener, tls is not None), client, ssl=tls,
                ssl_handshake_timeout=patience if tls is not None else None)
        except TimeoutError:
            logger.warning("%s: closed, it was silent for %d s", peer, patience)
            client.close()
        except OSError as error:
            if tls is not None:
                logger.warning("%s: closed, its TLS handshake failed: %s", peer, reason(error))
            client.close()
        except asyncio.CancelledError:
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
