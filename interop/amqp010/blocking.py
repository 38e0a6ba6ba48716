"""The client for programs that block: interop.amqp010.aio, with each call waiting until it is done.

    with connect("amqp://guest:guest@localhost") as connection:
        session = connection.session()
        session.sender("amq.topic/news").send("hello")

A thread of each connection keeps up heartbeats, and the connection itself, while the program does other things. All
methods may be called from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from interop.amqp010 import aio, links
from interop.amqp010.aio_session import Session as AioSession
from interop.amqp010.commands import Command
from interop.amqp010.errors import ConnectionError_, Error
from interop.amqp010.message import Message

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="amqp-0-10", daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """What comes of it. Each call has its own limit of time. Raises: what it raises."""
        if self._loop.is_closed():
            call.close()
            raise ConnectionError_("the connection is closed")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # when it is us who are interrupted
            raise

    def stop(self) -> None:
        """End the thread. Nothing happens if it has ended."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def connect(url: str, *, ssl: tls.SSLContext | None = None, timeout: float = 30.0, reconnect: float = 0.0,
            heartbeat: int = 10, mechanisms: list[str] | None = None, frame_max: int = 65535,
            properties: dict[str, Any] | None = None) -> Connection:
    """Connect to `amqp://user:password@host:port/virtual-host` (or amqps), as aio.connect does.

    Raises: AddressError, ConnectionError_, Timeout.
    """
    loop = Loop()
    try:
        return Connection(loop, loop.run(aio.connect(
            url, ssl=ssl, timeout=timeout, reconnect=reconnect, heartbeat=heartbeat, mechanisms=mechanisms,
            frame_max=frame_max, properties=properties)))
    except BaseException:
        loop.stop()
        raise


class Connection:
    """Made by `connect`."""

    def __init__(self, loop: Loop, inner: aio.Connection) -> None:
        self._loop = loop
        self._inner = inner

    @property
    def server(self) -> dict[str, Any]:
        """The properties that the server told of itself."""
        return self._inner.server

    @property
    def reconnections(self) -> int:
        """How often it was made anew."""
        return self._inner.reconnections

    def session(self, name: str = "", *, timeout: int | None = None, transactional: bool = False) -> Session:
        """As aio.Connection.session. Raises: Error."""
        return Session(self._loop, self._loop.run(self._inner.session(name, timeout=timeout,
                                                                      transactional=transactional)))

    def close(self) -> None:
        """Close it and all its sessions. Nothing happens if it is closed."""
        with contextlib.suppress(ConnectionError_):
            self._loop.run(self._inner.close())
        self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session:
    """Made by `Connection.session`. `call` is for commands (interop.amqp010.commands), the rest for messages."""

    def __init__(self, loop: Loop, inner: AioSession) -> None:
        self._loop = loop
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    def call(self, command: Command[T], timeout: float | None = None) -> T:
        """Send a command, wait until it is done, and give its result. Raises: Error, ValueError."""
        return self._loop.run(self._inner.call(command, timeout))

    def sync(self, timeout: float | None = None) -> None:
        """Wait until all that was sent so far is done. Raises: Error."""
        self._loop.run(self._inner.sync(timeout))

    def commit(self, timeout: float | None = None) -> None:
        """Raises: Error."""
        self._loop.run(self._inner.commit(timeout))

    def rollback(self, timeout: float | None = None) -> None:
        """As aio.Session.rollback. Raises: Error."""
        self._loop.run(self._inner.rollback(timeout))

    def sender(self, address: str, *, node: str = "", capacity: int = 1000) -> Sender:
        """As aio.Session.sender. Raises: AddressError, Error."""
        return Sender(self._loop, self._loop.run(self._inner.sender(address, node=node, capacity=capacity)))

    def receiver(self, address: str, *, node: str = "", capacity: int = 100, browse: bool = False,
                 reliable: bool = True, exclusive: bool = False, arguments: dict[str, Any] | None = None,
                 binding: dict[str, Any] | None = None) -> Receiver:
        """As aio.Session.receiver. Raises: AddressError, Error."""
        return Receiver(self._loop, self._loop.run(self._inner.receiver(
            address, node=node, capacity=capacity, browse=browse, reliable=reliable, exclusive=exclusive,
            arguments=arguments, binding=binding)))

    def accept(self, *messages: Message, sync: bool = True) -> None:
        """Messages are done with. Raises: Error."""
        self._loop.run(self._inner.accept(*messages, sync=sync))

    def release(self, *messages: Message, redelivered: bool = False, sync: bool = True) -> None:
        """Give messages back, to whoever comes next. Raises: Error."""
        self._loop.run(self._inner.release(*messages, redelivered=redelivered, sync=sync))

    def reject(self, *messages: Message, code: int = 0, text: str = "", sync: bool = True) -> None:
        """Messages are of no use: they go to the queue's alternate exchange, if it has one. Raises: Error."""
        self._loop.run(self._inner.reject(*messages, code=code, text=text, sync=sync))

    def acknowledge(self, sync: bool = True) -> None:
        """Accept all that was fetched so far. Raises: Error."""
        self._loop.run(self._inner.acknowledge(sync))

    def close(self) -> None:
        """End the session. Messages that were not accepted go back. Nothing happens if it is over."""
        self._loop.run(self._inner.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Error):
            self.close()


class Sender:
    """Made by `Session.sender`."""

    def __init__(self, loop: Loop, inner: links.Sender) -> None:
        self._loop = loop
        self._inner = inner

    def send(self, message: Message | Any, *, sync: bool = True, timeout: float | None = None) -> None:
        """As links.Sender.send. Raises: Error, ValueError."""
        self._loop.run(self._inner.send(message, sync=sync, timeout=timeout))

    def sync(self, timeout: float | None = None) -> None:
        """Wait until all that was sent is safe. Raises: Error."""
        self._loop.run(self._inner.sync(timeout))


class Receiver:
    """Made by `Session.receiver`."""

    def __init__(self, loop: Loop, inner: links.Receiver) -> None:
        self._loop = loop
        self._inner = inner

    @property
    def queue(self) -> str:
        """The queue that it receives from."""
        return self._inner.queue

    @property
    def available(self) -> int:
        """Messages that have come and were not fetched yet."""
        return self._inner.available

    def fetch(self, timeout: float | None = None) -> Message:
        """The next message, as links.Receiver.fetch. Raises: Empty, Error."""
        return self._loop.run(self._inner.fetch(timeout))

    def close(self) -> None:
        """End the subscription; messages that were not fetched go back. Raises: Error."""
        self._loop.run(self._inner.close())
