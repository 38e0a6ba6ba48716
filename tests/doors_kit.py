"""What the test of doors and dialects is made with: a broker in this process, whose policy refuses what a test says,
and the ways through its doors that each dialect has.

A way is a generator: it prepares, yields when all that is needed is there, and then goes through its door, once with
the door shut and nothing else, and once with everything shut but the door. What `House` has for it to see how its
dialect refuses lets all go its way where the door is open.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import pytest

from broker.errors import Forbidden
from broker.management import ManagedConnection
from broker.message import AMQP091, Message, address_of
from broker.security.access import Access, Policy
from broker.virtualhost import VirtualHost
from dragoman.config import AutoCreate, Config, Listener, StoreSettings
from dragoman.server import Server
from protocols.amqp091.convert import body_pieces
from protocols.amqp091.frames import BODY, HEADER, frame
from tests.wire import Channel, ChannelClosed, Client, Hangup, Peer
from tests.wire010 import Client010
from tests.wire10 import DETACH, Client10
from tests.wire_mqtt import MqttClient

T = TypeVar("T")

DOORS = sorted(name for name, value in vars(Access).items() if callable(value) and not name.startswith("_"))
WORDS = "access to it refused for user 'guest'"


class Doors(Policy):
    """Asks `shut` whether to refuse, and notes what was asked, while it is `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self.shut: Callable[[str, tuple[Any, ...]], bool] = lambda door, arguments: False
        self.asked: list[str] = []
        self.impersonates = False
        self.nobody = True  # somebody without a name may do everything

    def access(self, connection: ManagedConnection, host_name: str) -> Access:
        connection.impersonates = self.impersonates
        return Gate(self, not connection.user and not self.nobody)

    def reload(self) -> None:
        """There is nothing to read."""

    def rules(self) -> tuple[str, int, int]:
        return "a test", 0, 0

    def ask(self, door: str, arguments: tuple[Any, ...]) -> None:
        if self.armed:
            self.asked.append(door)
            if self.shut(door, arguments):
                raise Forbidden(WORDS)


class Gate(Access):
    def __init__(self, doors: Doors, shut: bool) -> None:
        self.doors = doors
        self.shut = shut


def _door(name: str) -> Callable[..., None]:
    def ask(self: Gate, *arguments: Any) -> None:
        if self.shut:
            raise Forbidden(WORDS)
        self.doors.ask(name, arguments)
    return ask


for _name in DOORS:
    setattr(Gate, _name, _door(_name))


class House:
    """A broker that runs on a thread. Use it as a context."""

    def __init__(self) -> None:
        self.doors = Doors()
        self.shut = False  # the door of the way that is gone just now
        self.clients: list[Callable[[], None]] = []
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> House:
        self._thread.start()
        self._started.wait(20)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        try:
            self.server = Server(Config(listeners=(Listener(port=0),), store=StoreSettings(kind="memory"),
                                        auto_create=(AutoCreate("auto-q*", "queue"), AutoCreate("auto-x*", "topic"))))
            await self.server.start()
            self.server.broker.policy = self.doors
        except BaseException as error:
            self._failure = error
            self._started.set()
            return
        host, port, _ = self.server.addresses[0]
        self.peer = Peer(host, port)
        self._started.set()
        await self._over.wait()
        await self.server.stop(0)

    @property
    def host(self) -> VirtualHost:
        return next(iter(self.server.broker.hosts.values()))

    def call(self, function: Callable[[], T]) -> T:
        """Have the broker's thread do it."""
        async def run() -> T:
            return function()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    # What there is: before each way the same.

    def furnish(self) -> None:
        """Queue q with a message, queue e without, exchanges x and y; x has e and y bound with key k."""
        self.call(self._furnish)

    def _furnish(self) -> None:
        host = self.host
        gateway = self.server.gateway
        assert gateway is not None
        for bridge in list(gateway.bridges):
            gateway.delete("bridge", bridge)
        for link in list(gateway.links):
            gateway.delete("link", link)
        for queue in list(host.queues.values()):
            if not queue.settings.retains:
                host.delete_queue(queue)
        for name in list(host.exchanges):
            if name and not name.startswith(("amq.", "qmf.", "qpid.")):
                host.delete_exchange(name, False)
        for exchange in list(host.exchanges.values()):
            for binding in list(exchange.bindings.values()):
                if exchange.name.startswith("amq."):
                    host.unbind(exchange, binding.destination(), binding.routing_key, binding.arguments)
        q, _ = host.declare_queue("q", False, False, False, {}, None)
        e, _ = host.declare_queue("e", False, False, False, {}, None)
        host.declare_exchange("x", "topic", False, False, False, {})
        host.declare_exchange("y", "fanout", False, False, False, {})
        host.bind(host.exchanges["x"], e, "k", {})
        host.bind(host.exchanges["x"], host.exchanges["y"], "k", {})
        host.bind(host.exchanges["amq.topic"], e, "k", {})
        head = frame(HEADER, 1, b"\x00\x3c" + bytes(2) + (1).to_bytes(8, "big") + b"\x00\x00")
        message = Message(address_of("", "q"), AMQP091, head + frame(BODY, 1, b"m"), None, 1, False, 0, 0,
                          host.broker.clock.now)
        assert body_pieces(message) == [b"m"]
        q.enqueue(message)

    def state(self) -> dict[str, Any]:
        """All that a client could have changed."""
        return self.call(self._state)

    def _state(self) -> dict[str, Any]:
        host, gateway = self.host, self.server.gateway
        assert gateway is not None
        lane = host.retained
        return {
            "queues": {queue.name: (queue.ready, queue.unsettled, len(queue.consumers), queue.peer is not None)
                       for queue in host.queues.values()},
            "exchanges": set(host.exchanges),
            "bindings": sorted((each.source.name, each.destination().name, each.routing_key)
                               for exchange in host.exchanges.values() for each in exchange.bindings.values()),
            "retained": 0 if lane is None else lane.queue.ready,
            "postponed": 0 if host.postponed is None else host.postponed.queue.unsettled,
            "wills": sum(1 for each in self.server._mqtt_sessions.of(host).all.values() if each.will is not None),
            "victims": sum(1 for each in self.server.broker.management.connections
                           if each.properties.get("product") == "victim"),
            "log": logging.getLogger().level,
            "links": {name: False for name in gateway.links},
            "bridges": {name: bridge.paused for name, bridge in gateway.bridges.items()},
        }

    # Clients, gone at the way's end.

    def channel(self, product: str = "wire") -> Channel:
        client = Client(self.peer)
        self.clients.append(client.close)
        client.open(properties={"product": product, "capabilities": {"authentication_failure_close": True}})
        return client.channel()

    def client010(self, session: bytes = b"wire") -> Client010:
        client = Client010(*self.peer, session)
        self.clients.append(client.vanish)
        return client

    def client10(self, **options: Any) -> Client10:
        client = Client10(*self.peer, **options)
        self.clients.append(client.vanish)
        return client

    def mqtt(self, level: int, client_id: str = "", **options: Any) -> MqttClient:
        client = MqttClient(self.peer, level)
        self.clients.append(client.drop)
        client.connect(client_id, **options)
        return client

    def leave(self) -> None:
        for close in self.clients:
            with suppress(OSError, EOFError, Hangup):
                close()
        self.clients.clear()

    # What the dialects answer at a door that is shut.

    @contextmanager
    def closes_channel(self, missing: bool = False) -> Iterator[None]:
        """0-9-1: channel exception 403; missing: where it is open, it is one of 404."""
        if not self.shut and not missing:
            yield
            return
        with pytest.raises(ChannelClosed) as closed:
            yield
        if self.shut:
            assert (closed.value.code, closed.value.text) == (403, f"ACCESS_REFUSED - {WORDS}")
        else:
            assert closed.value.code == 404

    def done010(self, client: Client010, number: int, result: bool = False, missing: bool = False) -> None:
        """0-10: the command is completed, after its result if it has one; or execution.exception 403,
        unauthorized-access; missing: where it is open, it is 404."""
        if self.shut or missing:
            assert client.error() == (403 if self.shut else 404)
            return
        if result:
            client.expect("execution.result")
        client.wait(number)

    def attached(self, client: Client10) -> bool:
        """1.0: the link stands, or is detached with amqp:unauthorized-access (part 2, section 2.6.3)."""
        if self.shut:
            error = client.expect(DETACH)[0][2].value
            assert (error[0], error[1]) == ("amqp:unauthorized-access", WORDS)
        return not self.shut

    def outcome10(self, client: Client10) -> None:
        """1.0: accepted, or rejected with amqp:unauthorized-access."""
        outcome = client.outcome()[4]
        if self.shut:
            assert outcome.descriptor == 0x25 and outcome.value[0].value[0] == "amqp:unauthorized-access"
        else:
            assert outcome.descriptor == 0x24

    def hangs_up(self, client: MqttClient, kind: int = 0, reason: int = 0) -> None:
        """MQTT: the connection stands, or is closed with this packet (0: none) before."""
        if self.shut:
            assert [(each.kind, each.reason) for each in client.rest()] == ([(kind, reason)] if kind else [])
        else:
            client.ping()


Way = Callable[[House], Generator[None, None, None]]


class Row(NamedTuple):
    """One way through one door. also: doors that are on the way; only: tells which questions at the door are meant;
    quiet: to go through leaves nothing behind."""

    door: str
    dialect: str
    what: str
    way: Way
    also: tuple[str, ...]
    only: Callable[..., bool] | None
    quiet: bool

    def __str__(self) -> str:
        return f"{self.dialect}-{self.door}-{self.what}".rstrip("-").replace(" ", "_")


ROWS: list[Row] = []


def way(door: str, dialect: str, what: str = "", also: Iterable[str] = (), only: Callable[..., bool] | None = None,
        quiet: bool = False) -> Callable[[Way], Way]:
    """Put a way into the table."""
    assert door in DOORS

    def add(function: Way) -> Way:
        ROWS.append(Row(door, dialect, what, function, tuple(also), only, quiet))
        return function
    return add


def go(house: House, row: Row, shut: bool) -> None:
    """Go a way, with its door shut or everything else."""
    doors = house.doors
    house.shut = shut
    house.furnish()
    doors.asked = []

    def meant(door: str, arguments: tuple[Any, ...]) -> bool:
        return door == row.door and (row.only is None or row.only(*arguments))

    doors.shut = meant if shut else lambda door, arguments: door != row.door and door not in row.also
    steps = row.way(house)
    try:
        next(steps)
        before = house.state()
        doors.armed = True
        for _ in steps:
            raise AssertionError("a way yields once")
        assert row.door in doors.asked
        doors.armed = False
        after = house.state()
        if shut or row.quiet:
            assert after == before
        else:
            assert after != before
    finally:
        doors.armed = False
        steps.close()
        house.leave()
