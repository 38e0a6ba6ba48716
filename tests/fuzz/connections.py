"""Whole connections as targets of fuzzing: a client that has logged in, or not, sends the input, and then goes.

Whatever it was, the output is well formed, and nothing of the client stays. An input's first byte says which version of
the dialect, and whether the client has logged in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from broker.broker import Broker
from broker.errors import BrokerError
from protocols.amqp010.sessions import Sessions
from protocols.amqp091.frames import V08, V09, V091
from protocols.amqp10.containers import Containers
from protocols.mqtt.sessions import Sessions as MqttSessions
from tests import captures
from tests.fuzz.session import Client, Session
from tests.fuzz.session010 import Client010, Session010
from tests.fuzz.session10 import Client10, Session10
from tests.fuzz.session_mqtt import ClientMqtt, SessionMqtt


def _connection(session: Session, make: Callable[[Broker], Any], data: bytes) -> None:
    """A client that has logged in, or not, sends this, and then goes."""
    client = make(session.broker)
    if data[:1] > b"\x7f":
        client.connection.receive(client.login())
    client.connection.receive(data[1:])
    session.scheduler.settle()
    client.flush()
    if not client.connection.finished:
        client.connection.tick(session.clock.now + 1000)
    client.flush()
    client.check_output()
    client.connection.lost()
    client.check_gone()
    for xid in list(session.host.branches.known):  # branches outlive the sessions that have ended them
        with contextlib.suppress(BrokerError):
            session.host.branches.rollback(xid, lambda status: None)
    session.finish([])


def connection091(data: bytes) -> None:
    _connection(Session(0), lambda broker: Client(broker, (V091, V09, V08)[data[0] % 3 if data else 0], "c"), data)


def connection010(data: bytes) -> None:
    _connection(Session010(0), lambda broker: Client010(broker, Sessions(), "c"), data)


def connection10(data: bytes) -> None:
    _connection(Session10(0), lambda broker: Client10(broker, Containers(), "c"), data)


def connection_mqtt(data: bytes) -> None:
    session = SessionMqtt(0)
    sessions = MqttSessions()
    client = ClientMqtt(session.broker, sessions, "c", 3 + (data[0] if data else 0) % 3)
    if data[:1] > b"\x7f":
        client.connection.receive(SessionMqtt(5).connect(client))
    client.connection.receive(data[1:])
    session.scheduler.settle()
    client.flush()
    client.check_output()
    client.connection.lost()
    client.check_gone()
    session.leave(sessions)
    session.finish([])


def _several(one: Callable[[], bytes]) -> Iterable[bytes]:
    return [b"\xff" + b"".join(one() for _ in range(20)) for _ in range(40)]


def seeds_connection091() -> Iterable[bytes]:
    session = Session(2)
    client = Client(session.broker, V091, "seeds")
    chance = session.random
    return [*_several(lambda: session.message(V091) if chance.random() < 0.4 else session.method(client)),
            b"\0" + client.login()]


def seeds_connection010() -> Iterable[bytes]:
    session = Session010(2)
    return [*_several(session.assembly), *(b"\0" + captures.stream(name, True)[8:20_000] for name in captures.names())]


def seeds_connection10() -> Iterable[bytes]:
    session = Session10(2)
    return [*_several(session.performative), b"\0" + Client10(session.broker, Containers(), "c").login()]


def seeds_connection_mqtt() -> Iterable[bytes]:
    session = SessionMqtt(2)
    client = ClientMqtt(session.broker, MqttSessions(), "seeds", 5)
    return [*_several(lambda: session.packet(client)), b"\2" + session.connect(client)]


