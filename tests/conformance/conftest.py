"""The broker that the clients talk to: ours, one for the whole run, unless the environment names another.

DRAGOMAN_PEER=host:port   use the broker that runs there (guest/guest); nothing is done to it but talk to it
DRAGOMAN_PEER=rabbitmq    start Debian's RabbitMQ for this run, and do to it what is done to ours
DRAGOMAN_PEER=mosquitto   start Debian's Mosquitto for the tests of MQTT, and skip the others

Whatever these tests expect, RabbitMQ and Mosquitto do: that is how they are checked. Where we differ from them
knowingly, the test says so.
"""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import amqp
import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from tests import peers
from tests.authority import Authority, pem
from tests.conformance.mqtt_tools import Device, Mqtt
from tests.conformance.pika_tools import parameters
from tests.conformance.support import LARGE_BODY, Names, Proxy, Target, amqp_connection
from tests.tls_kit import issue

PEER = os.environ.get("DRAGOMAN_PEER", "")

LITTLE_MEMORY = """
[store]
kind = "memory"
[limits]
memory = "1 MiB"
"""


@contextmanager
def start(folder: Path, config: str | None = None, store: Path | None = None) -> Iterator[tuple[Target, Any]]:
    """A broker of the kind under test, and the handle of whoever started it (`dragoman.testing`, `tests.peers`)."""
    if PEER == "rabbitmq":
        with peers.rabbitmq(folder, plugins=["rabbitmq_consistent_hash_exchange", "rabbitmq_random_exchange"]) as peer:
            yield Target(peer.host, peer.port, peer=True), peer
    elif PEER == "mosquitto":
        pytest.skip("Mosquitto speaks MQTT only")
    elif PEER:
        host, _, port = PEER.rpartition(":")
        yield Target(host, int(port), peer=True), None
    else:
        from dragoman import testing
        with testing.broker(config=config, store=store) as ours:
            yield Target(ours.host, ours.port, peer=False), ours


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, Any]]:
    folder = tmp_path_factory.mktemp("broker")
    with start(folder, store=folder / "store") as both:
        yield both


@pytest.fixture(scope="session")
def target(started: tuple[Target, Any]) -> Target:
    """The broker under test."""
    return started[0]


@pytest.fixture
def names(target: Target) -> Iterator[Names]:
    """Unique names; what is declared under them is deleted when the test ends."""
    names = Names(target)
    yield names
    names.clean()


@pytest.fixture
def proxy(target: Target) -> Iterator[Proxy]:
    """A breakable network in front of the broker."""
    proxy = Proxy(target)
    yield proxy
    proxy.close()


@pytest.fixture
def connection(target: Target, names: Names) -> Iterator[pika.BlockingConnection]:
    """An open connection of pika, closed before `names` cleans up: exclusive queues are gone by then."""
    connection = pika.BlockingConnection(parameters(target))
    yield connection
    if connection.is_open:
        connection.close()


@pytest.fixture
def channel(connection: pika.BlockingConnection) -> BlockingChannel:
    """A channel of pika's `connection`."""
    return connection.channel()


@pytest.fixture
def careless() -> Iterator[None]:
    """For tests whose client drops a broken connection without closing its socket: its warnings fall here."""
    yield
    gc.collect()


class Phoenix:
    """A broker behind a network, whose `restart` kills it and brings it back with what was durable."""

    def __init__(self, proxy: Proxy, restart: Callable[[], None]) -> None:
        self.proxy = proxy
        self.restart = restart


@pytest.fixture
def phoenix(started: tuple[Target, Any], proxy: Proxy, tmp_path: Path) -> Iterator[Phoenix]:
    """A broker that can be restarted, behind a network, so that it keeps its address."""
    target, handle = started
    if handle is None:
        pytest.skip("the peer is not ours to restart")
    if target.peer:
        def restart_peer() -> None:
            handle.control("stop_app")
            handle.control("start_app")

        yield Phoenix(proxy, restart_peer)
        return
    with start(tmp_path, store=tmp_path / "store") as (proxy.target, handle):
        def restart_ours() -> None:
            handle.kill()
            handle.start()

        yield Phoenix(proxy, restart_ours)


class Alarm:
    """A broker that can be made to hold its publishers, for want of memory."""

    def __init__(self, target: Target, raised: Callable[[], AbstractContextManager[None]]) -> None:
        self.target = target
        self.raised = raised


@pytest.fixture
def alarm(started: tuple[Target, Any], tmp_path: Path) -> Iterator[Alarm]:
    """A broker that can be brought to its memory limit and back."""
    target, handle = started
    if handle is None:
        pytest.skip("the peer is not ours to starve")
    if target.peer:
        @contextmanager
        def starve() -> Iterator[None]:
            handle.control("set_vm_memory_high_watermark", "0")
            try:
                yield
            finally:
                handle.control("set_vm_memory_high_watermark", "0.4")

        yield Alarm(target, starve)
        return
    with start(tmp_path, LITTLE_MEMORY) as (target, _):
        @contextmanager
        def fill() -> Iterator[None]:
            names = Names(target)
            filler = names.queue("filler")
            with amqp_connection(target) as publisher:
                channel = publisher.channel()
                channel.queue_declare(filler, auto_delete=False)
                channel.basic_publish_confirm(amqp.Message(LARGE_BODY), "", filler)  # there once it is confirmed
                yield
                names.clean()  # by a connection of its own: the publisher's is held

        yield Alarm(target, fill)


DEVICES = """
[[listeners]]
port = 0
[[listeners]]
port = 0
tls = "never"
[[listeners]]
port = 0
tls = "always"
[tls]
certificate = "{certificate}"
"""


@contextmanager
def start_mqtt(folder: Path) -> Iterator[tuple[Mqtt, Any]]:
    """A broker of MQTT with a listener for AMQP as well, one for MQTT, and one for MQTT over TLS; and its handle,
    whose `restart` keeps what is persistent: ours is killed for that, Mosquitto is asked to end."""
    certificate = folder / "certificate.pem"
    authority = Authority("an authority")
    issue(authority, certificate, "localhost")
    with certificate.open("ab") as file:  # so that clients can trust what is in it
        file.write(pem(authority.certificate))
    if PEER == "mosquitto":
        # Its limit for what is in flight counts what comes again after a broken connection twice, and drops it.
        with peers.mosquitto(folder, certificate, "max_inflight_messages 1000") as peer:
            yield Mqtt(peer.host, peer.port, peer.tls_port, peer.port, certificate, peer=True), peer.restart
    elif PEER:
        pytest.skip("these tests start the brokers of MQTT themselves")
    else:
        from dragoman import testing
        with testing.broker(DEVICES.format(certificate=certificate), store=folder / "store") as ours:
            def restart() -> None:
                ours.kill()
                ours.start()

            amqp_port, port, tls_port = (int(url.rpartition(":")[2]) for url in ours.urls)
            yield Mqtt(ours.host, port, tls_port, amqp_port, certificate, peer=False), restart


@pytest.fixture(scope="session")
def mqtt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mqtt]:
    """The broker of MQTT under test."""
    with start_mqtt(tmp_path_factory.mktemp("mqtt")) as (broker, _):
        yield broker


@pytest.fixture(name="amqp")
def amqp_of_mqtt(mqtt: Mqtt) -> Target:
    """The broker of MQTT, for clients of AMQP."""
    if mqtt.peer:
        pytest.skip("Mosquitto speaks MQTT only")
    return Target(mqtt.host, mqtt.amqp_port, peer=False)


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses, nor what is below it."""
    return f"test/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def device(mqtt: Mqtt) -> Iterator[Callable[..., Device]]:
    """Makes clients of paho-mqtt, and ends them when the test does."""
    made: list[Device] = []

    def make(*arguments: Any, broker: Mqtt = mqtt, **options: Any) -> Device:
        made.append(Device(broker, *arguments, **options, connect=False))
        made[-1].connect()
        return made[-1]

    yield make
    for each in made:
        each.close()
