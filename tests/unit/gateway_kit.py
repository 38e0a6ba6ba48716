"""What the tests of the gateway share: a broker in memory on a running loop, and ends in memory that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from struct import pack
from typing import Any

from broker.broker import Broker, Watcher
from broker.clock import Alarm, Clock
from broker.message import AMQP091, Message, address_of
from broker.outcome import Outcome
from broker.virtualhost import VirtualHost
from dragoman.scheduler import LoopAlarm, LoopScheduler
from interop.ends import Arrived, Delivery, Done, EndError, From, Options, Remote, Source, Target, To
from protocols.amqp091.convert import body_pieces
from protocols.amqp091.frames import BODY, HEADER, frame
from store.memory import MemoryStore


class Home:
    """A broker of one virtual host, all in memory."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.scheduler = LoopScheduler(loop)
        self.clock = Clock()
        alarm = LoopAlarm(loop)
        self.watcher = Watcher()
        self.broker = Broker(MemoryStore(self.scheduler), self.scheduler, self.clock, alarm, self.watcher, 1 << 30,
                             10_000, 1 << 30)
        alarm.clock, alarm.timers = self.clock, self.broker.timers
        self.host: VirtualHost = self.broker.add_host("/")
        for _ in self.broker.recover():
            pass

    def queue(self, name: str, **arguments: Any) -> None:
        self.host.declare_queue(name, True, False, False,
                                {key.replace("_", "-"): value for key, value in arguments.items()}, self)

    def publish(self, exchange: str, key: str, body: bytes, headers: dict[str, str] | None = None) -> int:
        made = message(body, key, exchange, headers)
        route = self.host.route(made.address.short_strings, exchange, key)
        return self.host.publish(route, made, None)

    def bodies(self, queue: str) -> list[bytes]:
        """What is available in a queue, taken out of it."""
        found = []
        while True:
            entry = self.host.queue(queue).get()
            if entry is None or entry.message is None:
                return found
            found.append(body_of(entry.message))
            self.host.queue(queue).accept(entry)

    def close(self) -> None:
        self.broker.close()
        self.scheduler.close()


def message(body: bytes, key: str = "", exchange: str = "", headers: dict[str, str] | None = None) -> Message:
    """A durable one of 0-9-1, with texts as headers."""
    table = b"".join(bytes([len(name)]) + name.encode() + b"S" + pack(">I", len(value)) + value.encode()
                     for name, value in (headers or {}).items())
    header = pack(">HHQH", 60, 0, len(body), 1 << 13 | 1 << 12) + pack(">I", len(table)) + table + b"\x02"
    native = frame(HEADER, 0, header) + (frame(BODY, 0, body) if body else b"")
    return Message(address_of(exchange, key), AMQP091, native, None, len(body), True, 0, 0, 1)


def body_of(made: Message) -> bytes:
    return b"".join(body_pieces(made.translated(AMQP091) if made.dialect != AMQP091 else made))


class FakeSource(Source):
    """Gives what its test wants, and notes how that is settled."""

    dialect = AMQP091

    def __init__(self, taken: From) -> None:
        self.taken = taken
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.arrived: Arrived | None = None
        self.settled: list[tuple[bytes, Outcome]] = []
        self.bound: list[str] = []
        self.unbound: list[str] = []
        self.closed = False
        self.kept: bool | None = True  # what is rejected

    def keeps_rejected(self) -> bool | None:
        return self.kept

    def start(self, arrived: Arrived) -> None:
        self.arrived = arrived

    def give(self, *bodies: bytes, headers: dict[str, str] | None = None) -> None:
        assert self.arrived is not None
        for body in bodies:
            self.arrived(Delivery(message(body, "key", "x", headers), False, body))

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self.settled.append((body_of(delivery.message), outcome))

    async def bind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        self._check()
        self.bound += keys

    def _check(self) -> None:
        if self.lost.done():
            raise EndError("it is lost")

    async def unbind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        self._check()
        for key in keys:
            self.unbound.append(key)
            if key in self.bound:
                self.bound.remove(key)

    async def close(self) -> None:
        self.closed = True


class FakeTarget(Target):
    """Keeps what it gets; its test says what becomes of it."""

    dialect = AMQP091

    def __init__(self, sent: To) -> None:
        self.sent = sent
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.got: list[Message] = []
        self.dones: list[Done] = []
        self.room = 1 << 30
        self.at_once: Callable[[Message], tuple[str, int] | None] | None = None

    def send(self, message: Message, done: Done) -> None:
        self.room -= 1
        self.got.append(message)
        told = self.at_once(message) if self.at_once is not None else None
        if told is None:
            self.dones.append(done)
        else:
            done(*told)

    def bodies(self) -> list[bytes]:
        return [body_of(each) for each in self.got]

    def ready(self) -> bool:
        return self.room > 0

    def give_room(self, room: int) -> None:
        self.room = room
        self.tell_ready()

    async def close(self) -> None:
        pass


class FakeRemote(Remote):
    """A broker that is there, or not, as its test says."""

    def __init__(self, url: str, dialect: int, options: Options) -> None:
        self.url = url
        self.dialect = dialect
        self.options = options
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.sources: list[FakeSource] = []
        self.targets: list[FakeTarget] = []
        self.closed = False

    async def open(self) -> None:
        if "down" in self.url:
            raise EndError("nobody is there")

    async def source(self, taken: From) -> Source:
        self.sources.append(FakeSource(taken))
        return self.sources[-1]

    async def target(self, sent: To) -> Target:
        self.targets.append(FakeTarget(sent))
        return self.targets[-1]

    async def close(self) -> None:
        self.closed = True


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so. Raises: TimeoutError."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


__all__ = ["Alarm", "FakeRemote", "FakeSource", "FakeTarget", "Home", "body_of", "message", "until"]
