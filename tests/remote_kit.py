"""What the tests of the gateway's remote ends share: a proxy that cuts and freezes connections, and what one notes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
import uvloop

import protocols.amqp010.convert  # noqa: F401 - the converters
import protocols.amqp091.convert  # noqa: F401
import protocols.amqp10.convert  # noqa: F401
import protocols.mqtt.convert  # noqa: F401
from broker.message import AMQP091, CONVERTERS, Message, address_of
from broker.outcome import ACCEPT, Outcome
from broker.view import View
from interop.ends import TRY_AGAIN, Delivery, EndError, Options, Remote, Source, Target
from interop.remotes import remote

HANG = 30.0
"""Seconds after which a test counts as hung."""

OPTIONS = Options(heartbeat=10, timeout=10)

SAFE = ("", TRY_AGAIN)
"""What `Sent` notes of a message that is safe."""

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on a loop like the broker's. Whatever goes wrong in a callback fails the test, and so does a task left."""
    wrong: list[dict[str, Any]] = []

    async def within() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        result = await asyncio.wait_for(main, 2 * HANG)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        left = {task for task in left if "within" not in repr(task) and not task.cancelling()}
        assert not left, left
        return result
    result = uvloop.run(within())
    assert not wrong, wrong
    return result


async def opened(url: str, dialect: int, options: Options = OPTIONS) -> Remote:
    made = remote(url, dialect, options)
    await made.open()
    return made


def refusal(url: str, dialect: int, options: Options = OPTIONS) -> str:
    """Why a connection cannot be had."""
    async def main() -> str:
        made = remote(url, dialect, options)
        with pytest.raises(EndError) as caught:
            await made.open()
        await made.close()
        return str(caught.value)
    return run(main())


def text_message(body: bytes, key: str, dialect: int = AMQP091, exchange: str = "", durable: bool = True,
                 headers: dict[str, Any] | None = None) -> Message:
    """A message of any dialect."""
    view = View()
    view.body = [body]
    view.durable = durable
    view.headers = headers or {}
    view.subject = key if exchange else None
    like = Message(address_of(exchange, key), AMQP091, b"", None, 0, durable, 0, 0, 0)
    return CONVERTERS[dialect].encode(view, like)


def body_of(message: Message) -> bytes:
    return b"".join(message.view().body)


class Taken:
    """Notes what a source gives, and settles it at once unless it is told not to."""

    def __init__(self, source: Source, outcome: Outcome | None = ACCEPT) -> None:
        self.source = source
        self.outcome = outcome
        self.deliveries: list[Delivery] = []
        self._changed = asyncio.Event()
        source.start(self.arrived)

    def arrived(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self.outcome is not None:
            self.source.settle(delivery, self.outcome)
        self._changed.set()

    async def wait(self, count: int) -> list[Delivery]:
        async with asyncio.timeout(HANG):
            while len(self.deliveries) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.deliveries

    def bodies(self) -> list[bytes]:
        return [body_of(delivery.message) for delivery in self.deliveries]


class Sent:
    """Sends, and notes what is told of each message."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.told: dict[int, tuple[str, int]] = {}
        self.order: list[int] = []
        self.number = 0
        self._changed = asyncio.Event()

    def send(self, message: Message) -> int:
        number = self.number
        self.number += 1

        def done(why: str = "", reason: int = TRY_AGAIN) -> None:
            assert number not in self.told, "told twice"
            self.told[number] = (why, reason)
            self.order.append(number)
            self._changed.set()
        self.target.send(message, done)
        return number

    async def send_when_ready(self, message: Message) -> int:
        while not self.target.ready():
            ready = asyncio.Event()
            self.target.call_when_ready(ready.set)
            await ready.wait()
        return self.send(message)

    async def wait(self) -> list[tuple[str, int]]:
        """Until all is told."""
        async with asyncio.timeout(HANG):
            while len(self.told) < self.number:
                self._changed.clear()
                await self._changed.wait()
        return [self.told[number] for number in range(self.number)]


async def lost(end: Remote | Source | Target, seconds: float = HANG) -> str:
    return await asyncio.wait_for(asyncio.shield(end.lost), seconds)


class Proxy:
    """Passes connections on to a broker; `cut` breaks them off, `freeze` passes nothing more on, and tells nobody."""

    def __init__(self, host: str, port: int) -> None:
        self.to = (host, port)
        self.port = 0
        self.connections = 0
        self.frozen = False
        self.refusing = False
        self._server: asyncio.Server | None = None
        self._transports: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Proxy:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self, None), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    def url(self, path: str = "") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{path}"

    def cut(self) -> None:
        """Break off all connections, in the middle of whatever they carry."""
        for transport in list(self._transports):
            transport.abort()

    def freeze(self) -> None:
        self.frozen = True
        for transport in self._transports:
            transport.pause_reading()

    def thaw(self) -> None:
        self.frozen = False
        for transport in self._transports:
            transport.resume_reading()

    def made(self, transport: asyncio.Transport) -> None:
        self._transports.add(transport)
        if self.frozen:
            transport.pause_reading()

    def gone(self, transport: asyncio.Transport) -> None:
        self._transports.discard(transport)


class _Side(asyncio.Protocol):
    """One side of a connection through the proxy."""

    def __init__(self, proxy: Proxy, other: _Side | None) -> None:
        self.proxy = proxy
        self.other = other
        self.transport: Any = None
        self._early: list[bytes] = []
        self._dialling: asyncio.Task[Any] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.proxy.made(transport)
        if self.other is not None:  # the broker's
            self.other.other = self
            for data in self.other._early:
                transport.write(data)
            if self.other.transport is None or self.other.transport.is_closing():
                transport.abort()
            return
        if self.proxy.refusing:
            transport.abort()
            return
        self.proxy.connections += 1
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Side(self.proxy, self), *self.proxy.to)
        except OSError:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._early.append(data)
        elif not self.proxy.frozen:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.proxy.frozen and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.proxy.gone(self.transport)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close() if exc is None else self.other.transport.abort()
