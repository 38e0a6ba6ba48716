"""The gateway with other people's brokers at the other end: cut off, killed and restarted under load, and the counts
add up. At least once: nothing that its source has confirmed is lost, and what comes twice is no more than what was
unsettled when something broke. The order of a queue is kept: what comes again goes back to where it was.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.exceptions import AMQPError

from dragoman import testing
from tests import peers
from tests.conformance.gateway.kit import Cutter, Devices, Publisher, read_all, until

PREFETCH = 50
PASSWORD = {"PEER_PASSWORD": "guest"}
pytestmark = pytest.mark.timeout(240)

MESSAGES = 3000
RATE = 500
"""Messages, and how many of them a second."""


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.RabbitMq]:
    with peers.rabbitmq(tmp_path_factory.mktemp("rabbitmq"), plugins=["rabbitmq_amqp1_0"]) as peer:
        yield peer


@pytest.fixture(scope="module")
def brokerj(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.BrokerJ]:
    with peers.brokerj(tmp_path_factory.mktemp("brokerj")) as peer:
        yield peer


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Mosquitto]:
    """It writes down once a second what it has. (With autosave_on_changes, Mosquitto 2.0.11 reads one packet of a
    client each time that it writes, and sends more than max_inflight_messages: all that comes twice after a cut.)
    """
    with peers.mosquitto(tmp_path_factory.mktemp("mosquitto"),
                         settings="max_queued_messages 0\nautosave_interval 1") as peer:
        yield peer


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


class Estate:
    """Dragoman with a bridge to a peer, through something that cuts it off."""

    def __init__(self, broker: testing.Broker, cutter: Cutter, url: str, there: str) -> None:
        self.broker = broker
        self.cutter = cutter
        self.here = broker.url
        self.there = there
        self.url = url


@contextmanager
def estate(folder: Path, port: int, there: str, dialect: str, bridge: str, path: str = "",
           link: str = "") -> Iterator[Estate]:
    """bridge: lines of its section; there: the peer's own address for clients of 0-9-1."""
    with ExitStack() as stack:
        cutter = stack.enter_context(Cutter("127.0.0.1", port))
        scheme = "mqtt" if dialect == "mqtt" else "amqp"
        config = (f'[[link]]\nname = "there"\nurl = "{scheme}://127.0.0.1:{cutter.port}/{path}"\nuser = "guest"\n'
                  f'password_env = "PEER_PASSWORD"\ndialect = "{dialect}"\nheartbeat = 5\ntimeout = 10\n'
                  f'reconnect_min = 1\nreconnect_max = 1\n{link}'
                  f'[[bridge]]\nname = "b"\nlink = "there"\nprefetch = {PREFETCH}\n{bridge}')
        broker = stack.enter_context(testing.broker(config, store=folder / "store", env=PASSWORD))
        yield Estate(broker, cutter, f"{scheme}://127.0.0.1:{cutter.port}/{path}", there)


def declare(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(queue, durable=True)


SAVED = 3.0
"""Seconds within which Mosquitto writes down what it has confirmed."""


def check(received: list[int], publisher: Publisher | Devices, breaks: int, kept: set[int] | None = None,
          unsaved: int = 0) -> None:
    """Nothing is lost, in order, and doubled no more than it must be. kept: what the source can still have; unsaved:
    how many messages that were acknowledged it may have forgotten to be."""
    counts = Counter(received)
    missing = sorted((set(publisher.confirmed) if kept is None else kept) - counts.keys())
    assert not missing, f"{len(missing)} lost, the first is {missing[0]}"
    firsts = list(dict.fromkeys(received))
    assert firsts == sorted(firsts), "out of order"
    doubled = len(received) - len(counts)
    print(f"{len(counts)} messages, {doubled} came twice, {publisher.again} sent twice, {breaks} breaks")
    assert doubled <= publisher.again + breaks * (PREFETCH + 1) + unsaved


def test_exactly_once_from_brokerj(brokerj: peers.BrokerJ, name: str, tmp_path: Path,
                                   request: pytest.FixtureRequest) -> None:
    """Message ids are remembered here, so that it does not matter what the other broker can do."""
    more = 'acknowledge = "exactly-once"\n'
    with of_remote(request, "brokerj", "0-10", "pull", name, tmp_path, more) as (made, _):
        breaks = [made.cutter.cut, restart(made.broker)] * 2
        received = under_load(made.there, made.here, name, breaks)
        assert received == list(range(MESSAGES))


def under_load(source: str, target: str, queue: str, breaks: list[Callable[[], Any]],
               durable: bool = True) -> list[int]:
    """Publish to the source's queue, and break something every second, until all has come to the target's. Gives the
    numbers as they came."""
    publisher = Publisher(source, queue, MESSAGES, RATE, durable)
    publisher.start()
    for each in breaks:
        time.sleep(0.8)
        each()
    publisher.join()
    received = read_all(target, queue, publisher.confirmed)
    check(received, publisher, len(breaks))
    return received


REMOTES = pytest.mark.parametrize("remote, dialect", [
    ("rabbit", "0-9-1"), ("rabbit", "1.0"), ("brokerj", "0-10"), ("brokerj", "1.0")])


@contextmanager
def of_remote(request: pytest.FixtureRequest, remote: str, dialect: str, direction: str, queue: str,
              folder: Path, more: str = "") -> Iterator[tuple[Estate, Any]]:
    peer = request.getfixturevalue(remote)
    path = "default" if remote == "brokerj" else ""
    there = f"amqp://guest:guest@127.0.0.1:{peer.port}/{path}"
    declare(there, queue)
    bridge = f'direction = "{direction}"\nremote_queue = "{queue}"\nlocal_queue = "{queue}"\n{more}'
    with estate(folder, peer.port, there, dialect, bridge, path) as made:
        declare(made.here, queue)
        yield made, peer


def restart(broker: testing.Broker) -> Callable[[], None]:
    def killed() -> None:
        broker.kill()
        broker.start()
    return killed


def crash(peer: peers.RabbitMq) -> Callable[[], None]:
    def killed() -> None:
        peer.kill()
        peer.start()
    return killed


@REMOTES
@pytest.mark.parametrize("direction", ["pull", "push"])
def test_cut_off_and_killed(remote: str, dialect: str, direction: str, name: str, tmp_path: Path,
                            request: pytest.FixtureRequest) -> None:
    with of_remote(request, remote, dialect, direction, name, tmp_path) as (made, _):
        ways = (made.there, made.here) if direction == "pull" else (made.here, made.there)
        if (remote, dialect, direction) == ("brokerj", "1.0", "push"):  # it has no disk: takes nothing durable over 1.0
            under_load(*ways, name, [made.cutter.cut] * 5, durable=False)
        else:
            under_load(*ways, name, [made.cutter.cut, restart(made.broker)] * 2 + [made.cutter.cut])


@pytest.mark.parametrize("direction", ["pull", "push"])
@pytest.mark.parametrize("dialect", ["0-9-1", "1.0"])
def test_rabbitmq_crashes(dialect: str, direction: str, name: str, tmp_path: Path,
                          request: pytest.FixtureRequest) -> None:
    with of_remote(request, "rabbit", dialect, direction, name, tmp_path) as (made, rabbit):
        ways = (made.there, made.here) if direction == "pull" else (made.here, made.there)
        time.sleep(3)  # RabbitMQ writes down that there is a queue some time after it has said so
        under_load(*ways, name, [crash(rabbit), restart(made.broker), made.cutter.cut])


@pytest.mark.parametrize("dialect", ["0-9-1", "1.0"])
def test_a_remote_that_falls_silent(dialect: str, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A connection that is half open is noticed by its heartbeats, and made again."""
    with of_remote(request, "rabbit", dialect, "pull", name, tmp_path) as (made, _):
        publisher = Publisher(made.there, name, 1000, RATE)
        publisher.start()
        time.sleep(0.8)
        made.cutter.freeze()
        publisher.join()
        until(lambda: "heartbeat" in made.broker.log(), 40)
        made.cutter.thaw()
        check(read_all(made.here, name, publisher.confirmed), publisher, 1)


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_mosquitto_pull(version: str, mosquitto: peers.Mosquitto, name: str, tmp_path: Path) -> None:
    """Devices publish; the broker keeps for us what comes while we are killed and it is restarted. When it is killed,
    it loses what it had confirmed and not written down, and sends what we had acknowledged and it not written down."""
    bridge = f'direction = "pull"\nremote_exchange = "amq.topic"\nremote_queue = "{name}"\nkeys = ["{name}.#"]\n' \
             f'local_queue = "{name}"\n'
    killed: list[float] = []
    had: list[tuple[float, int]] = [(0.0, 0)]  # when, and how many messages

    def crash_it() -> None:
        mosquitto.kill()
        killed.append(time.monotonic())
        mosquitto.start()
    with estate(tmp_path, mosquitto.port, "", "mqtt", bridge, link=f'mqtt_version = "{version}"\n') as made:
        declare(made.here, name)
        until(lambda: "bridge b is up" in made.broker.log(), 20)  # and so there is a session
        publisher = Devices(mosquitto.port, name, MESSAGES, RATE)
        publisher.start()
        breaks = [made.cutter.cut, restart(made.broker), crash_it, mosquitto.restart, made.cutter.cut,
                  restart(made.broker)]
        for each in breaks:
            time.sleep(0.8)
            had.append((time.monotonic(), _waiting(made.here, name)))
            each()
        publisher.join()
        unsaved = sum(max(count for when, count in had if when <= at)
                      - max(count for when, count in had if when <= at - SAVED) for at in killed)
        kept = {number for number, at in publisher.confirmed.items() if not any(0 <= of - at < SAVED for of in killed)}
        received = read_all(made.here, name, kept)
        dropped = publisher.confirmed.keys() - received
        print(f"Mosquitto had confirmed {len(dropped)} messages that it had not saved when it was killed")
        check(received, publisher, len(breaks), kept, unsaved)


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_mosquitto_push(version: str, mosquitto: peers.Mosquitto, name: str, tmp_path: Path) -> None:
    import paho.mqtt.client as paho
    received: list[int] = []
    reader = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"reader-{name}", clean_session=False)
    reader.username_pw_set("guest", "guest")
    reader.on_message = lambda client, data, message: received.append(int(message.payload))
    reader.on_connect = lambda client, *_: client.subscribe(f"{name}/#", 1)
    reader.reconnect_delay_set(1, 1)
    reader.connect("127.0.0.1", mosquitto.port)
    reader.loop_start()
    try:
        bridge = f'direction = "push"\nremote_exchange = "amq.topic"\nkey = "{name}.out"\nlocal_queue = "{name}"\n'
        with estate(tmp_path, mosquitto.port, "", "mqtt", bridge, link=f'mqtt_version = "{version}"\n') as made:
            declare(made.here, name)
            publisher = Publisher(made.here, name, MESSAGES, RATE)
            publisher.start()
            breaks = [made.cutter.cut, restart(made.broker), mosquitto.restart, made.cutter.cut, restart(made.broker)]
            for each in breaks:
                time.sleep(0.8)
                each()
            publisher.join()
            until(lambda: publisher.confirmed <= set(received), 60)
            time.sleep(1)
            check(received, publisher, len(breaks) * 2)
    finally:
        reader.disconnect()
        reader.loop_stop()


def test_a_remote_that_wants_no_more_for_now(rabbit: peers.RabbitMq, name: str, tmp_path: Path,
                                             request: pytest.FixtureRequest) -> None:
    """connection.blocked of an alarm at RabbitMQ: messages wait here, and go on when it is over."""
    with of_remote(request, "rabbit", "0-9-1", "push", name, tmp_path) as (made, _):
        until(lambda: _consumers(made.here, name) == 1, 20)
        rabbit.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            publisher = Publisher(made.here, name, 2000, 0)
            publisher.start()
            publisher.join()
            time.sleep(1)
            assert _waiting(made.here, name) > 1000
        finally:
            rabbit.control("set_vm_memory_high_watermark", "0.6")
        check(read_all(made.there, name, publisher.confirmed), publisher, 0)


def _waiting(url: str, queue: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.message_count)


def _consumers(url: str, queue: str) -> int:
    with suppress(AMQPError), pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return int(connection.channel().queue_declare(queue, passive=True).method.consumer_count)
    return 0
