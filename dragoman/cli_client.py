"""The AMQP client inside `dragoman send` and `dragoman receive`: pika with awaitables for callbacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.credentials import ExternalCredentials
from pika.exceptions import ChannelClosed, ConnectionClosed

from dragoman.reasons import reason
from interop.trust import Trust

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672/"
LONGEST_NAME = 255  # bytes; of routing keys, too
NOT_FOUND = 404
RESOURCE_LOCKED = 405  # an exclusive queue of another connection: it exists

Channel = Any  # pika has no types


class ClientError(Exception):
    """What to tell the user, in one line."""


def parameters(url: str, trust: Trust) -> Any:
    """pika's parameters for amqp://user:password@host:port/virtual-host. Raises ClientError for a wrong one."""
    problem = "is not a broker's address, which is amqp://user:password@host:port/virtual-host, or amqps:// with TLS"
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in ("amqp", "amqps"):
            raise ValueError
        if parts.username and parts.password is None:
            problem = "names a user and no password"
            raise ValueError
        made = pika.URLParameters(url)
    except (ValueError, TypeError, AttributeError, LookupError):
        from interop.link import shown  # not before: it takes its time
        raise ClientError(f"{shown(url)}: {problem}") from None
    if trust != Trust():
        if made.ssl_options is None:
            raise ClientError("--ca, --cert and --key are for amqps:// addresses")
        try:
            made.ssl_options = pika.SSLOptions(trust.context(), made.host)
        except ValueError as error:
            raise ClientError(str(error)) from None
    if trust.certificate and parts.username is None:
        made.credentials = ExternalCredentials()
    made.connection_attempts = 1
    made.client_properties = {"product": "dragoman command"}
    return made


class Client:
    """One connection with one channel. Use as `async with Client(parameters) as client`."""

    def __init__(self, to: Any) -> None:
        self.parameters = to
        self.where = f"{to.host}:{to.port}"
        self.blocked = ""  # why the broker holds publishers back
        self.on_blocked: Callable[[str], None] = lambda why: None  # called when it begins to
        self.lost: asyncio.Future[None]  # gets the ClientError when the channel or connection is gone
        self.channel: Channel
        self._connection: Any

    async def __aenter__(self) -> Client:
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it logs, we say in one line
        loop = asyncio.get_running_loop()
        self.lost = loop.create_future()
        opened: asyncio.Future[Any] = loop.create_future()
        self._connection = AsyncioConnection(
            self.parameters, on_open_callback=lambda _: _set(opened, None),
            on_open_error_callback=lambda _, error: _fail(opened, ClientError(self.refusal(error))),
            on_close_callback=lambda _, error: _fail(self.lost, ClientError(self.loss(error))))
        await opened
        self._connection.add_on_connection_blocked_callback(self._hold_back)
        self._connection.add_on_connection_unblocked_callback(self._go_on)
        self.channel = await self.open_channel()
        self.channel.add_on_close_callback(lambda _, error: _fail(self.lost, ClientError(self.loss(error))))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.lost.cancel()
        if self._connection.is_closed:
            return
        closed = asyncio.get_running_loop().create_future()
        self._connection.add_on_close_callback(lambda _, error: _set(closed, None))
        if self._connection.is_open:
            self._connection.close()
        await asyncio.wait_for(closed, 5)

    async def open_channel(self) -> Channel:
        opened = asyncio.get_running_loop().create_future()
        self._connection.channel(on_open_callback=lambda channel: _set(opened, channel))
        return await self.unless_lost(opened)

    async def call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Call a method of the channel and wait for the broker's answer."""
        answered = asyncio.get_running_loop().create_future()
        method(**arguments, callback=lambda frame: _set(answered, frame.method))
        return await self.unless_lost(answered)

    async def unless_lost(self, future: asyncio.Future[Any], timeout: float | None = None) -> Any:
        """Wait for the future, but not longer than the connection is there. Raises TimeoutError."""
        await asyncio.wait({future, self.lost}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if self.lost.done():
            self.lost.result()
        raise TimeoutError

    async def flush(self) -> None:
        """Wait until the broker has read all that was sent: it answers in order."""
        await self.call(self.channel.basic_qos, prefetch_count=0)

    async def make_queue(self, name: str) -> None:
        """Declare a durable queue, unless there is one of this name."""
        if not await self.has_queue(name):
            _check_size(name)
            await self.call(self.channel.queue_declare, queue=name, durable=True)

    async def has_queue(self, name: str) -> bool:
        return _size(name) <= LONGEST_NAME and await self._exists("queue_declare", queue=name)

    async def has_exchange(self, name: str) -> bool:
        return _size(name) <= LONGEST_NAME and await self._exists("exchange_declare", exchange=name)

    async def _exists(self, method: str, **arguments: Any) -> bool:
        """Declare passively, on a channel of its own: finding nothing closes it."""
        channel = await self.open_channel()
        answered = asyncio.get_running_loop().create_future()
        channel.add_on_close_callback(lambda _, error: _set(answered, error))
        getattr(channel, method)(**arguments, passive=True, callback=lambda frame: _set(answered, None))
        refusal = await self.unless_lost(answered)
        if refusal is None:
            channel.close()
            return True
        if isinstance(refusal, ChannelClosed) and refusal.reply_code in (NOT_FOUND, RESOURCE_LOCKED):
            return bool(refusal.reply_code == RESOURCE_LOCKED)
        raise ClientError(self.loss(refusal))

    async def resolve(self, address: str) -> tuple[str, str]:
        """The exchange and routing key that an address means; the default exchange ("") for a queue.

        `name` is the queue of that name, else the exchange; `exchange/key` the longest exchange that exists before a
        slash. Raises ClientError when there is neither.
        """
        if not address:
            raise ClientError("the address is empty: it is the name of a queue or of an exchange")
        if await self.has_queue(address):
            return "", address
        if await self.has_exchange(address):
            return address, ""
        end = address.rfind("/")
        while end > 0:
            if await self.has_exchange(address[:end]):
                _check_size(address[end + 1:])
                return address[:end], address[end + 1:]
            end = address.rfind("/", 0, end)
        raise ClientError(f"{self.where} has no queue and no exchange {address}; --declare makes the queue")

    def refusal(self, error: BaseException) -> str:
        """Why there is no connection."""
        if type(error).__name__ == "ProbableAuthenticationError":
            return f"{self.where}: the broker refuses the user name or password"
        if type(error).__name__ == "ProbableAccessDeniedError":
            return f"{self.where}: the broker refuses access to virtual host {self.parameters.virtual_host}"
        why = _innermost(error)
        hint = "; perhaps it wants TLS (amqps://)" if why == "it hung up" and not self.parameters.ssl_options else ""
        return f"cannot connect to {self.where}: {why}{hint}"

    def loss(self, error: BaseException) -> str:
        """Why the connection or channel is gone."""
        if isinstance(error, ConnectionClosed | ChannelClosed):
            return f"{self.where}: the broker says {error.reply_code}: {error.reply_text}"
        return f"the connection to {self.where} is lost: {_innermost(error)}"

    def _hold_back(self, _: Any, frame: Any) -> None:
        self.blocked = frame.method.reason or "no reason given"
        self.on_blocked(self.blocked)

    def _go_on(self, *_: Any) -> None:
        self.blocked = ""


def _size(name: str) -> int:
    """In bytes. Raises ClientError for what came as bytes that are no text."""
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        raise ClientError(f"{name!r} is not text in UTF-8, which names in AMQP are") from None


def _check_size(name: str) -> None:
    if _size(name) > LONGEST_NAME:
        raise ClientError(f"{name[:20]}... is too long: names in AMQP have at most {LONGEST_NAME} bytes")


def _set(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # it counts as seen, also when nobody waits for it any more


def _innermost(error: BaseException) -> str:
    """What happened, which pika wraps several times over."""
    while True:
        several = getattr(error, "exceptions", None)
        inner = several[-1] if several else getattr(error, "exception", None)
        if inner is None and error.args and not isinstance(error, OSError):
            inner = error.args[0]
        if not isinstance(inner, BaseException):
            break
        error = inner
    if isinstance(error, ConnectionClosed):
        return f"the broker says {error.reply_code}: {error.reply_text}"
    text = reason(error) if error.args else type(error).__name__
    return "it hung up" if "Transport indicated EOF" in text else text
