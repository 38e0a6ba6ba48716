"""MQTT's connection without sockets: what the server and operators do to it, and what it keeps to itself."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from broker.broker import Broker
from broker.errors import LimitReached
from broker.management import CONNECT_FAILED, CONNECTED, DISCONNECTED, Event, Observer
from broker.security import identity
from broker.security.authenticator import Authenticator
from broker.security.sasl import SaslServer
from broker.security.users import FileProvider
from protocols.frontend import FrontEnd, Outlet
from protocols.mqtt.codec import (
    CONNACK,
    CONNECT,
    DISCONNECT,
    MAXIMUM_PACKET_SIZE,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    REASON_STRING,
    REQUEST_PROBLEM_INFORMATION,
    SERVER_KEEP_ALIVE,
    SESSION_EXPIRY,
    SUBACK,
    SUBSCRIBE,
)
from protocols.mqtt.connection import Connection
from protocols.mqtt.frames import PACKETS, V5, V311, read, read_length, write
from protocols.mqtt.opening import FOREVER, Settings
from protocols.mqtt.sessions import Sessions
from tests.fuzz.session import Session


class Peer(Outlet):
    """A client's connection, as the server holds it."""

    def __init__(self, broker: Broker, registry: Sessions, settings: Settings | None = None, allowed: str = "PLAIN",
                 refusal: str = "", later: list[Any] | None = None) -> None:
        """later: password checks are put there instead of being made at once."""
        users = FileProvider(lambda work, done: done(work()))
        if later is not None:
            check = users.check_password
            users.check_password = lambda *given: later.append(lambda: check(*given))
        logins = Authenticator([users], [allowed], anonymous_user="nobody")
        self.refusal = refusal
        self.reads = True
        self.connection = Connection(
            broker, settings or Settings(1 << 20, 10, 5, 0, 0, "response", "/"), registry,
            lambda: SaslServer(logins, identity.Peer(loopback=True), success_extra=True), self, "peer")
        self.connection.message_size = 1 << 16

    def want_flush(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def admit(self, connection: FrontEnd, host_name: str) -> None:
        if self.refusal:
            raise LimitReached(self.refusal)

    def send(self, code: int, version: int = V5, first: int = -1, /, **values: Any) -> None:
        self.connection.receive(write(code, version, first, **values))

    def connect(self, level: int = V5, name: str = "c", flags: int = 0xC2, password: bytes = b"guest",
                keep_alive: int = 0, **properties: Any) -> None:
        self.send(CONNECT, level, protocol="MQTT", level=level, flags=flags, client_id=name, user="guest",
                  password=password, keep_alive=keep_alive, properties=properties.get("properties", {}))

    def got(self) -> list[tuple[int, dict[str, Any]]]:
        """What it was sent since it was asked last."""
        data = b"".join(self.connection.take_output())
        found, at = [], 0
        while at < len(data):
            size, begin = read_length(data, at + 1, len(data))
            found.append((data[at] >> 4, read(PACKETS[data[at] >> 4], self.connection.level, data[at] & 15, data, begin,
                                              begin + size)))
            at = begin + size
        return found

    def codes(self) -> list[tuple[int, int]]:
        return [(code, fields.get("reason", 0)) for code, fields in self.got()]


class World:
    """A broker in memory with its registry of sessions."""

    def __init__(self) -> None:
        self.kit = Session(0)
        self.broker = self.kit.broker
        self.registry = Sessions()

    def peer(self, *given: Any, **options: Any) -> Peer:
        return Peer(self.broker, self.registry, *given, **options)

    def connected(self, level: int = V5, **options: Any) -> Peer:
        peer = self.peer()
        peer.connect(level, **options)
        assert peer.codes() == [(CONNACK, 0)]
        return peer


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("level", "answer"), [(V5, True), (V311, False)])
def test_a_broker_that_stops_says_so_in_mqtt_5(world: World, level: int, answer: bool) -> None:
    for method, reason in ((Connection.shut_down, 0x8B), (Connection.close_by_order, 0x98)):
        peer = world.connected(level)
        method(peer.connection, "good-bye")
        assert peer.codes() == ([(DISCONNECT, reason)] if answer else [])
        assert peer.connection.finished
        assert peer.connection not in world.broker.management.connections


@pytest.mark.parametrize(("level", "answer"), [(V5, [(CONNACK, 0x8B)]), (V311, [(CONNACK, 3)])])
def test_a_broker_that_stops_while_a_password_is_checked(world: World, level: int, answer: list[Any]) -> None:
    later: list[Any] = []
    peer = world.peer(later=later)
    peer.connect(level)
    peer.connection.shut_down("good-bye")
    later[0]()
    assert peer.codes() == answer


def test_operators_see_the_client(world: World) -> None:
    seen: list[Event] = []

    class Notes(Observer):
        def happened(self, event: Event) -> None:
            seen.append(event)

    world.broker.management.observers.append(Notes())
    peer = world.connected(name="c1")
    connection = peer.connection
    assert (connection.container(), connection.user, connection.host_name, connection.dialect) == (
        "c1", "guest", "/", "MQTT 5.0")
    assert [each.name for each in connection.managed_sessions()] == ["c1"]
    connection.lost()
    world.peer().connect(password=b"wrong")
    kinds = [event.kind for event in seen if event.kind in (CONNECTED, DISCONNECTED, CONNECT_FAILED)]
    assert kinds == [CONNECTED, DISCONNECTED, CONNECT_FAILED]


@pytest.mark.parametrize(("level", "answer"), [(V5, 0x97), (V311, 3)])
def test_a_user_with_too_many_connections(world: World, level: int, answer: int) -> None:
    peer = world.peer(refusal="too many")
    peer.connect(level)
    assert peer.codes() == [(CONNACK, answer)]
    assert not peer.connection.opened


def test_packets_right_behind_connect_wait_for_the_password(world: World) -> None:
    """3.1.4: a client need not wait for CONNACK."""
    later: list[Any] = []
    peer = world.peer(later=later)
    peer.connect()
    assert not peer.reads
    for _ in range(3):  # what was on its way already
        peer.send(PINGREQ)
    assert peer.codes() == []
    later[0]()
    assert peer.reads
    assert peer.codes() == [(CONNACK, 0), *[(PINGRESP, 0)] * 3]


def test_a_publisher_is_held_while_an_alarm_is_raised(world: World) -> None:
    peer, reader = world.connected(name="p"), world.connected(name="r")
    reader.send(SUBSCRIBE, packet_id=1, requests=[("held", 0)])
    assert reader.codes() == [(SUBACK, 0)]
    world.broker.memory.set_alarm("test", "a test")
    peer.send(PINGREQ)
    assert peer.reads
    for number in range(3):
        peer.send(PUBLISH, V5, 0x30, topic="held", payload=bytes([number]))
    peer.send(PINGREQ)
    assert not peer.reads
    assert peer.codes() == [(PINGRESP, 0)]
    assert reader.got() == []
    world.broker.clock.now += 1 << 20
    peer.connection.tick(world.broker.clock.now)  # its keep alive does not count meanwhile
    world.broker.memory.clear_alarm("test")
    peer.connection.alarms_changed([])
    assert peer.reads
    assert peer.codes() == [(PINGRESP, 0)]
    assert [fields["payload"] for _, fields in reader.got()] == [b"\0", b"\1", b"\2"]


def test_the_server_s_keep_alive(world: World) -> None:
    settings = Settings(1 << 20, 10, 5, 60, 100, "response", "/")
    for asked, told in ((0, 60), (61, 60), (60, 0), (1, 0)):
        peer = world.peer(settings)
        peer.connect(keep_alive=asked)
        assert peer.got()[0][1]["properties"].get(SERVER_KEEP_ALIVE, 0) == told
    peer.connection.tick(world.broker.clock.now + 1500)
    assert not peer.connection.finished
    peer.connection.tick(world.broker.clock.now + 1501)
    assert peer.codes() == [(DISCONNECT, 0x8D)]


def test_a_session_is_not_kept_for_longer_than_the_server_wants(world: World) -> None:
    settings = Settings(1 << 20, 10, 5, 0, 100, "response", "/")
    for asked, told in ((0, None), (100, None), (101, 100), (FOREVER, 100)):
        peer = world.peer(settings)
        peer.connect(properties={SESSION_EXPIRY: asked})
        assert peer.got()[0][1]["properties"].get(SESSION_EXPIRY) == told
        peer.connection.lost()


@pytest.mark.parametrize(("properties", "told"), [
    ({}, True), ({REQUEST_PROBLEM_INFORMATION: 1}, True), ({REQUEST_PROBLEM_INFORMATION: 0}, False),
    ({MAXIMUM_PACKET_SIZE: 12}, False)])
def test_reasons_are_for_who_wants_them_and_has_room(world: World, properties: dict[int, int], told: bool) -> None:
    peer = world.peer()
    peer.connect(properties=properties)
    peer.got()
    peer.connection.acknowledge(PUBACK, 5, 0x97, "there is no room in it")
    assert peer.got() == [(PUBACK, {"packet_id": 5, "reason": 0x97, "properties": {
        REASON_STRING: "there is no room in it"} if told else {}})]
    peer.connection.close_by_order("good-bye, and come back")
    expected = {REASON_STRING: "good-bye, and come back"} if MAXIMUM_PACKET_SIZE not in properties else {}
    assert peer.got() == [(DISCONNECT, {"reason": 0x98, "properties": expected})]


def test_a_client_without_a_name_where_that_may_be(world: World) -> None:
    peer = world.peer(allowed="ANONYMOUS")
    peer.send(CONNECT, protocol="MQTT", level=V5, flags=2, client_id="c")
    assert peer.codes() == [(CONNACK, 0)]
    assert peer.connection.user == "nobody"


def test_half_a_message_leaves_nothing_behind(world: World, caplog: pytest.LogCaptureFixture) -> None:
    used = world.broker.memory.used
    for end in (Connection.lost, lambda connection: connection.shut_down("good-bye")):
        peer = world.connected()
        whole = write(PUBLISH, V5, 0x30, topic="half", payload=b"x" * 65_000 + b"y" * 536)
        with caplog.at_level(logging.ERROR):
            peer.connection.receive(write(PUBLISH, V5, 0x30, topic="half", payload=b"x" * 65_537)[:-1]
                                    if end is Connection.lost else whole[:-1])
            end(peer.connection)
        assert world.broker.memory.used == used
    assert not caplog.records
