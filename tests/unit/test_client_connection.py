"""What connections of all dialects have in common: input in pieces, input that waits, and what follows nonsense."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from broker.broker import Broker
from broker.security.authenticator import Authenticator
from broker.security.identity import Peer
from broker.security.provider import Answer
from broker.security.sasl import SaslServer
from broker.security.users import FileProvider
from protocols.amqp010.connection import Connection as Connection010
from protocols.amqp010.sessions import Sessions
from protocols.amqp091.frames import V091
from protocols.amqp10.containers import Containers
from protocols.connection import CLOSING
from protocols.frontend import CONGESTED, HELD
from protocols.mqtt.sessions import Sessions as MqttSessions
from tests.fuzz.session import Client, Session
from tests.fuzz.session010 import Client010
from tests.fuzz.session10 import Client10
from tests.fuzz.session_mqtt import ClientMqtt

DIALECTS: dict[str, Callable[[Broker], Any]] = {
    "0-9-1": lambda broker: Client(broker, V091, "c"), "0-10": lambda broker: Client010(broker, Sessions(), "c"),
    "1.0": lambda broker: Client10(broker, Containers(), "c"),
    "mqtt": lambda broker: ClientMqtt(broker, MqttSessions(), "c", 5)}


@pytest.fixture(params=DIALECTS)
def client(request: pytest.FixtureRequest) -> Any:
    """One that has not logged in yet; `login()` is all that it sends for that, without waiting for answers."""
    return DIALECTS[request.param](Session(0).broker)


class Slow(FileProvider):
    """Its passwords are checked when it is told to."""

    def __init__(self) -> None:
        super().__init__(lambda work, done: done(work()))
        self.checks: list[Callable[[], None]] = []

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        self.checks.append(partial(super().check_password, name, password, peer, answer))


def slow_login(client: Any) -> Slow:
    users = Slow()
    client.connection.sasl = SaslServer(Authenticator([users], ("PLAIN",)), Peer(loopback=True))
    return users


def test_input_in_pieces(client: Any) -> None:
    for byte in client.login():
        client.connection.receive(bytes([byte]))
    assert client.connection.opened


@pytest.mark.parametrize("pieces", [1, 3])
def test_input_waits_for_a_login_to_be_decided(client: Any, pieces: int) -> None:
    users = slow_login(client)
    connection = client.connection
    data = client.login()
    step = len(data) // pieces + 1
    for at in range(0, len(data), step):
        connection.receive(data[at:at + step])
    assert not client.reads and not connection.opened and not connection.finished
    users.checks[0]()
    assert client.reads and connection.opened and not connection.finished


def test_a_client_that_goes_while_its_login_is_decided(client: Any) -> None:
    users = slow_login(client)
    client.connection.receive(client.login())
    client.connection.lost()
    users.checks[0]()
    assert not client.connection.opened and client.connection not in client.connection.broker.management.connections


def test_input_waits_until_no_reason_is_left(client: Any) -> None:
    connection = client.connection
    connection.pause(HELD)
    connection.pause(CONGESTED)
    connection.receive(client.login())
    connection.unpause(HELD)
    assert not client.reads and not connection.opened
    connection.unpause(CONGESTED)
    assert client.reads and connection.opened


@pytest.mark.parametrize("first", [5, 11, 12, 40])
def test_what_follows_a_wrong_frame_is_none(first: int) -> None:
    """The client is told why its connection of 0-10 ends, and has the time to read it: more nonsense, which is bound to
    follow, does not end it sooner."""
    client: Any = DIALECTS["0-10"](Session(0).broker)
    connection: Connection010 = client.connection
    connection.receive(client.login())
    nonsense = b"\xff" * 60
    connection.receive(nonsense[:first])
    connection.receive(nonsense[first:]) if first < 12 else None
    assert connection.state == CLOSING and not connection.finished
