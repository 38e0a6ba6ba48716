"""Clients that never read: what waits for each is bounded, whatever it asks for; and who goes on asking is cut off."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic, Connection, Queue

from dragoman import testing
from tests.wire import Channel, Client, Peer, eventually
from tests.wire010 import Client010
from tests.wire10 import RECEIVER, SENDER, Client10
from tests.wire_mqtt import MqttClient

pytestmark = pytest.mark.dragoman_only("its configuration is Dragoman's")

SIZE, COUNT = 100_000, 400
MOST = 150
"""Messages that may have left the queue: what the system's socket buffers take, beside what the limit allows."""


@pytest.fixture(scope="module")
def broker() -> Iterator[testing.Broker]:
    with testing.broker('[limits]\noutput = "256 KiB"\noutput_seconds = 1\nmemory = "1 GiB"\n[mqtt]\nreceive_max = 9') \
            as made:
        yield made
        assert "Traceback" not in made.log()


@pytest.fixture
def peer(broker: testing.Broker) -> Peer:
    return Peer(broker.host, broker.port)


@pytest.fixture
def ch(peer: Peer) -> Iterator[Channel]:
    client = Client(peer).open()
    yield client.channel()
    client.close()


@pytest.fixture
def backlog(ch: Channel) -> Iterator[str]:
    """A queue of 40 MB."""
    ch.queue("backlog")
    ch.confirm()
    for _ in range(COUNT):
        ch.publish("", "backlog", b"x" * SIZE)
    eventually(lambda: ch.count("backlog") == COUNT)
    yield "backlog"
    ch.call(Queue.Delete(queue="backlog"))


def served(ch: Channel, queue: str) -> int:
    """How many messages have gone out when no more do."""
    seen = [-1]
    while len(seen) < 5 or len(set(seen[-5:])) > 1 or not seen[-1]:
        time.sleep(0.05)
        seen.append(COUNT - ch.count(queue))
    return seen[-1]


def test_messages_that_are_asked_for_one_by_one(peer: Peer, ch: Channel, backlog: str) -> None:
    """basic.get, hundreds of times in one breath: most of it waits, and is done when the client reads after all."""
    client = Client(peer).open()
    channel = client.channel()
    channel.send(*(Basic.Get(queue=backlog) for _ in range(COUNT)))
    assert served(ch, backlog) < MOST
    for _ in range(COUNT):
        assert len(channel.next().body) == SIZE
    client.close()


def consume091(peer: Peer, queue: str) -> socket.socket:
    client = Client(peer).open()
    client.channel().send(Basic.Consume(queue=queue, no_ack=True))
    return client.socket


def consume010(peer: Peer, queue: str) -> socket.socket:
    client = Client010(peer.host, peer.port)
    client.subscribe(queue, accept=1)
    return client.socket


def consume10(peer: Peer, queue: str) -> socket.socket:
    client = Client10(peer.host, peer.port, window=1 << 30)
    client.attach("out", RECEIVER, queue, snd=1)
    client.credit(1 << 30, window=1 << 30)
    return client.socket


@pytest.mark.parametrize("consume", [consume091, consume010, consume10])
def test_deliveries(peer: Peer, ch: Channel, backlog: str, consume: Callable[[Peer, str], socket.socket]) -> None:
    with consume(peer, backlog):
        assert served(ch, backlog) < MOST


def test_deliveries_of_mqtt(peer: Peer, ch: Channel) -> None:
    client = MqttClient(peer)
    client.connect("deaf", clean=False)
    client.subscribe(("big", 0))
    for _ in range(COUNT):
        ch.publish("amq.topic", "big", b"x" * SIZE)
    assert served(ch, "mqtt-session:deaf") < MOST
    client.drop()
    again = MqttClient(peer)
    again.connect("deaf", clean=True)
    again.disconnect()


# Who goes on asking.


class Tape:
    """In the place of a client's socket: keeps what it sends."""

    def __init__(self) -> None:
        self.data = b""

    def sendall(self, data: bytes) -> None:
        self.data += data


def ask091(peer: Peer) -> tuple[socket.socket, bytes]:
    client = Client(peer).open()
    client.channel()
    return client.socket, frame.marshal(Basic.Qos(prefetch_count=1), 1)


def ask010(peer: Peer) -> tuple[socket.socket, bytes]:
    client: Any = Client010(peer.host, peer.port)
    tape = Tape()
    real, client.socket = client.socket, tape
    client.command("exchange.query", name="amq.direct")
    return real, tape.data


def ask10(peer: Peer) -> tuple[socket.socket, bytes]:
    client: Any = Client10(peer.host, peer.port)
    tape = Tape()
    client.attach("in", SENDER, "amq.fanout")
    real, client.socket = client.socket, tape
    client.credit(0, echo=True)
    return real, tape.data


def ask_mqtt(peer: Peer) -> tuple[socket.socket, bytes]:
    client = MqttClient(peer)
    client.connect("asks")
    return client.socket, b"\xc0\x00"  # PINGREQ


@pytest.mark.parametrize("ask", [ask091, ask010, ask10, ask_mqtt])
def test_who_asks_and_does_not_read_is_cut_off(peer: Peer, broker: testing.Broker,
                                               ask: Callable[[Peer], tuple[socket.socket, bytes]]) -> None:
    client, question = ask(peer)
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # the system's buffers fill sooner
        client.settimeout(60)
        name = f"127.0.0.1:{client.getsockname()[1]}"
        questions, sent = question * 1000, 0
        with pytest.raises(ConnectionError):
            while sent < 256 << 20:
                sent += client.send(questions)
    eventually(lambda: f"{name}: closed, the client sends but does not read" in broker.log())


def test_what_waits_for_clients_is_memory() -> None:
    """Nothing is in the queue, and nothing unsettled: what a client does not read raises the alarm."""
    with testing.broker('[limits]\noutput = "1 GiB"\nmemory = "4 MiB"') as broker:
        peer = Peer(broker.host, broker.port)
        watcher, publisher, deaf = (Client(peer).open() for _ in range(3))
        channel = deaf.channel()
        channel.queue("q", auto_delete=True)
        channel.consume("q", no_ack=True)
        channel = publisher.channel()
        publisher.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            for _ in range(COUNT):
                channel.publish("", "q", b"x" * SIZE)
        assert "messages in memory take" in watcher.expect(Connection.Blocked).reason
        deaf.drop()
        watcher.expect(Connection.Unblocked)
        publisher.drop()
        watcher.close()
