"""Whole connections as targets of fuzzing: a client that has logged in, or not, sends the input, and then goes.

Whatever it was, the output is well formed, and nothing of the client stays. An input's first byte says which version of
the dialect, and whether the client has logged in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from broker.errors import BrokerError
from protocols.amqp091.frames import V08, V09, V091
from tests import captures
from tests.fuzz.session import Client, Session
from tests.fuzz.session010 import Client010, Session010
from tests.fuzz.session10 import Client10, Session10
from tests.fuzz.session_mqtt import ClientMqtt, SessionMqtt


def _connection(session: Session, client: Any, data: bytes) -> None:
    """A client that has logged in, or not, sends this, and then goes."""
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
    session = Session(0)
    _connection(session, Client(session.broker, (V091, V09, V08)[data[0] % 3 if data else 0], "c"), data)


def connection010(data: bytes) -> None:
    session = Session010(0)
    _connection(session, Client010(session.broker, session.sessions, "c"), data)


def connection10(data: bytes) -> None:
    session = Session10(0)
    _connection(session, Client10(session.broker, session.containers, "c"), data)


def connection_mqtt(data: bytes) -> None:
    session = SessionMqtt(0)
    _connection(session, ClientMqtt(session.broker, session.sessions, "c", 3 + (data[0] if data else 0) % 3), data)


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
    return [*_several(session.performative), b"\0" + Client10(session.broker, session.containers, "c").login()]


def seeds_connection_mqtt() -> Iterable[bytes]:
    session = SessionMqtt(2)
    client = ClientMqtt(session.broker, session.sessions, "seeds", 5)
    return [*_several(lambda: session.part(client)), b"\2" + session.login(client)]


