"""Connecting: where a remote broker is, and why it cannot be reached, in words for operators."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from broker.security.addresses import written
from interop.ends import EndError

P = TypeVar("P", bound=asyncio.BaseProtocol)
T = TypeVar("T")

LONGEST = 300
"""Characters of what the other side says, in a text for operators."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect to, and as whom."""

    host: str
    port: int
    path: str  # virtual host; "" when the URL has none
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None
    server_name: str  # for TLS

    def __str__(self) -> str:
        return written(self.host, self.port)


async def dial(place: Place, protocol: Callable[[], P], seconds: float) -> P:
    """Connect a protocol, with TLS where it is to be. Raises: EndError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            _, made = await loop.create_connection(protocol, place.host, place.port, ssl=place.tls,
                                                   server_hostname=place.server_name or None)
    except (OSError, EOFError) as error:
        raise EndError(f"{place}: {reason(error, seconds)}") from None
    return made


async def dial_socket(place: Place, seconds: float) -> socket.socket:
    """A connected socket that does not block, with TLS where it is to be: for libraries that read and write themselves.

    Raises: EndError.
    """
    loop = asyncio.get_running_loop()
    made: socket.socket | None = None
    try:
        async with asyncio.timeout(seconds):
            for family, kind, number, _, address in await loop.getaddrinfo(
                    place.host, place.port, type=socket.SOCK_STREAM):
                made = socket.socket(family, kind, number)
                made.setblocking(False)
                try:
                    await loop.sock_connect(made, address)
                    break
                except OSError as error:
                    made.close()
                    refused = error
            else:
                raise refused
            if place.tls is not None:
                made = await _handshake(made, place)
            return made
    except BaseException as error:
        if made is not None:
            made.close()
        if isinstance(error, OSError | EOFError):
            raise EndError(f"{place}: {reason(error, seconds)}") from None
        raise


async def _handshake(plain: socket.socket, place: Place) -> ssl.SSLSocket:
    """Raises: OSError."""
    assert place.tls is not None
    loop = asyncio.get_running_loop()
    made = place.tls.wrap_socket(plain, server_hostname=place.server_name, do_handshake_on_connect=False)
    try:
        while True:
            ready = loop.create_future()
            try:
                made.do_handshake()
                return made
            except ssl.SSLWantReadError:
                add, remove = loop.add_reader, loop.remove_reader
            except ssl.SSLWantWriteError:
                add, remove = loop.add_writer, loop.remove_writer
            add(made.fileno(), _set, ready)
            try:
                await ready
            finally:
                remove(made.fileno())
    except BaseException:
        made.close()
        raise


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def within(awaitable: Awaitable[T], seconds: float, what: str) -> T:
    """Wait no longer than that. Raises: EndError."""
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError:
        raise EndError(f"{what} took longer than {seconds:g} s") from None


def has_selectors(product: str) -> bool:
    """Whether a broker that calls itself so lets consumers of AMQP before 1.0 select (Dragoman, qpidd, Broker-J)."""
    return "qpid" in product.lower() or "dragoman" in product.lower()


def reason(error: BaseException | None, seconds: float = 0) -> str:
    """What went wrong with a socket."""
    if error is None or isinstance(error, EOFError):
        return "the other side closed the connection"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: its certificate is not to be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the other side broke the connection off"
    if isinstance(error, TimeoutError) and not error.args:
        return f"no connection within {seconds:g} s"
    return shortened(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def shortened(text: str) -> str:
    """What another side says, on one line of reasonable length."""
    line = " ".join(text.split())
    line = "".join(character for character in line if character.isprintable())
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."
