"""What the conformance tests share: the broker under test, names that clean up after themselves, and a bad network.

No test asserts how long something takes; `DEADLINE` and `until` only keep a broken broker from hanging the suite.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import amqp

DEADLINE = 20.0
"""Seconds after which something that must happen counts as missing."""

LARGE_BODY = bytes(range(256)) * 4096 * 3
"""3 MiB: two dozen frames at the usual frame size."""


@dataclass(frozen=True)
class Target:
    """A broker under test. `peer` tells that it is somebody else's, to check the tests themselves against."""

    host: str
    port: int
    peer: bool

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self.host}:{self.port}/"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass
class Names:
    """Unique names, and what becomes of them: all queues and exchanges that got one are deleted by `clean`."""

    target: Target
    queues: list[str] = field(default_factory=list)
    exchanges: list[str] = field(default_factory=list)

    def queue(self, role: str = "queue") -> str:
        self.queues.append(f"{role}-{uuid.uuid4().hex[:12]}")
        return self.queues[-1]

    def exchange(self, role: str = "exchange") -> str:
        self.exchanges.append(f"{role}-{uuid.uuid4().hex[:12]}")
        return self.exchanges[-1]

    def clean(self) -> None:
        if not self.queues and not self.exchanges:
            return
        with amqp_connection(self.target) as connection:
            channel = connection.channel()
            for name in self.queues:
                channel.queue_delete(name)
            for name in self.exchanges:
                channel.exchange_delete(name)


def amqp_connection(target: Target, **options: Any) -> amqp.Connection:
    """An open connection of py-amqp, which the tests of all clients use behind the scenes."""
    connection = amqp.Connection(target.address, **{"connect_timeout": DEADLINE, **options})
    try:
        connection.connect()
    except Exception:
        connection.collect()  # else it keeps its socket open
        raise
    return connection


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Wait for the condition to hold, and return what it gave. Raises AssertionError at the deadline, naming `what`."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)
    return result


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asyncio test to its end, on a loop of its own."""
    asyncio.run(asyncio.wait_for(test(), 3 * DEADLINE))


async def eventually(condition: Callable[[], Any], what: str) -> None:
    """`until`, letting the event loop go on."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        await asyncio.sleep(0.01)


class Proxy:
    """A network between client and broker that can break: connect to `host` and `port` instead of the broker's.

    `cut` drops all connections, `frozen` (an event) holds up all bytes, `target` may be changed for connections to
    come.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.frozen = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def outside(self) -> Target:
        """The broker as seen through this network."""
        return Target(self.host, self.port, self.target.peer)

    def cut(self) -> None:
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.frozen.clear()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(DEADLINE)
        self.cut()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            try:
                outer = socket.create_connection((self.target.host, self.target.port), timeout=DEADLINE)
            except OSError:
                inner.close()
                continue
            outer.settimeout(None)
            with self._lock:
                self._sockets |= {inner, outer}
            pumps = [threading.Thread(target=self._pump, args=pair, daemon=True)
                     for pair in ((inner, outer), (outer, inner))]
            self._threads += [*pumps, threading.Thread(target=self._bury, args=(pumps, inner, outer), daemon=True)]
            for thread in self._threads[-3:]:
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                while self.frozen.is_set():
                    time.sleep(0.02)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _bury(self, pumps: list[threading.Thread], *sockets: socket.socket) -> None:
        for pump in pumps:
            pump.join()
        with self._lock:
            self._sockets.difference_update(sockets)
        for each in sockets:
            each.close()
