"""The broker that the wire tests speak to, and what cleans up after each of them.

By default a broker is started for the session. DRAGOMAN_PEER=host:port runs the same tests against whatever listens
there, and DRAGOMAN_PEER=rabbitmq against Debian's RabbitMQ, started for this run: that is how the tests are checked.
What RabbitMQ is known not to do, or to do otherwise, is marked `dragoman_only` and skipped with that reason.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pamqp.commands import Exchange, Queue

from tests import peers
from tests.wire import Channel, Client, Peer, Refusal
from tests.wire010 import Client010
from tests.wire10 import Client10
from tests.wire_mqtt import MqttClient

PEER = os.environ.get("DRAGOMAN_PEER", "")
PLUGINS = ["rabbitmq_consistent_hash_exchange", "rabbitmq_random_exchange"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "dragoman_only(reason): not to be had, or different on purpose, elsewhere")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("dragoman_only")
        if marker and PEER:
            item.add_marker(pytest.mark.skip(reason=f"Dragoman only: {marker.args[0]}"))


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """Where the broker under test listens."""
    if PEER == "rabbitmq":
        with peers.rabbitmq(tmp_path_factory.mktemp("peer"), plugins=PLUGINS) as rabbitmq:
            yield Peer(rabbitmq.host, rabbitmq.port)
    elif PEER:
        host, _, port = PEER.rpartition(":")
        yield Peer(host, int(port))
    else:
        from dragoman import testing

        with testing.broker() as broker:
            yield Peer(broker.host, broker.port)


@pytest.fixture
def connect(peer: Peer) -> Iterator[Callable[..., Client]]:
    """Makes connections that are closed at the end; the arguments are those of `Client.open`."""
    clients: list[Client] = []

    def connect(**options: Any) -> Client:
        clients.append(Client(peer))
        return clients[-1].open(**options)

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def dial(peer: Peer) -> Iterator[Callable[[], Client]]:
    """Makes connections on which nothing was sent yet; at the end their sockets are closed."""
    clients: list[Client] = []

    def dial() -> Client:
        clients.append(Client(peer))
        return clients[-1]

    yield dial
    for client in clients:
        client.drop()


@pytest.fixture
def connect10(peer: Peer) -> Iterator[Callable[..., Client10]]:
    """Makes connections of AMQP 1.0 with a session; the arguments are those of `Client10`."""
    clients: list[Client10] = []

    def connect10(*arguments: Any, **options: Any) -> Client10:
        clients.append(Client10(peer.host, peer.port, *arguments, **options))
        return clients[-1]

    yield connect10
    for client in clients:
        client.vanish()


@pytest.fixture
def connect010(peer: Peer) -> Iterator[Callable[..., Client010]]:
    """Makes connections of AMQP 0-10 with a session; the arguments are those of `Client010`."""
    clients: list[Client010] = []

    def connect010(session: bytes = b"", **options: Any) -> Client010:
        clients.append(Client010(peer.host, peer.port, session or uuid.uuid4().bytes, **options))
        return clients[-1]

    yield connect010
    for client in clients:
        client.vanish()


@pytest.fixture
def dial_mqtt(peer: Peer) -> Iterator[Callable[..., MqttClient]]:
    """Makes connections of MQTT on which nothing was sent yet; the arguments are those of `MqttClient`."""
    clients: list[MqttClient] = []

    def dial_mqtt(level: int = 4) -> MqttClient:
        clients.append(MqttClient(peer, level))
        return clients[-1]

    yield dial_mqtt
    for client in clients:
        client.drop()


@pytest.fixture
def connect_mqtt(dial_mqtt: Callable[..., MqttClient]) -> Callable[..., MqttClient]:
    """Makes connections of MQTT; the arguments are those of `MqttClient.connect`, and its level."""

    def connect_mqtt(client_id: str = "", level: int = 4, **options: Any) -> MqttClient:
        client = dial_mqtt(level)
        client.connect(client_id, **options)
        return client

    return connect_mqtt


@pytest.fixture
def name(peer: Peer, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Makes names that nobody else has; queues and exchanges of these names are deleted at the end."""
    names: list[str] = []

    def name(kind: str = "q") -> str:
        names.append(f"wire-{kind}-{uuid.uuid4().hex[:12]}")
        return names[-1]

    yield name
    if names:
        client = Client(peer).open()
        for one in names:
            for method in (Queue.Delete(0, one), Exchange.Delete(0, one)):
                try:
                    client.channel().call(method)
                except Refusal as refusal:  # still locked by a connection that is about to go
                    assert refusal.code == 405, refusal
        client.close()


@pytest.fixture
def client(name: object, connect: Callable[..., Client]) -> Client:
    """A connection. (It takes `name` so that it is closed before the names are cleaned up.)"""
    return connect()


@pytest.fixture
def ch(client: Client) -> Channel:
    """A channel of a connection of its own."""
    return client.channel()


@pytest.fixture
def other(name: object, connect: Callable[..., Client]) -> Channel:
    """A channel of a second connection."""
    return connect().channel()


@pytest.fixture
def queue(ch: Channel, name: Callable[..., str]) -> str:
    """The name of a queue that any connection may use."""
    made = name()
    ch.queue(made)
    return made


@pytest.fixture
def wire(connect10: Callable[..., Client10]) -> Client10:
    """A connection of AMQP 1.0 with a session."""
    return connect10("wire")


@pytest.fixture
def c010(name: object, connect010: Callable[..., Client010]) -> Client010:
    """A connection of AMQP 0-10 with a session. (It takes `name` so that it is closed before the names are cleaned
    up.)"""
    return connect010()


@pytest.fixture
def topic() -> str:
    """Of MQTT: one that no other test has."""
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client_id() -> str:
    """Of MQTT: one that no other test has."""
    return f"c{uuid.uuid4().hex[:8]}"
