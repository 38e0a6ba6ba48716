"""paho-mqtt's client against the broker: sessions that outlive connections and brokers, and delivery exactly once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import MQTTv5, MQTTv31, MQTTv311
from paho.mqtt.packettypes import PacketTypes

from tests.conformance.conftest import start_mqtt
from tests.conformance.mqtt_tools import Device, Mqtt, properties
from tests.conformance.support import Proxy, Target

Make = Callable[..., Device]
VERSIONS = pytest.mark.parametrize("version", [MQTTv31, MQTTv311, MQTTv5], ids=["3.1", "3.1.1", "5"])
COUNT = 100


@pytest.fixture
def name() -> str:
    """A client identifier; short enough for MQTT 3.1, which allows 23 bytes."""
    return f"client-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def network(mqtt: Mqtt) -> Iterator[Proxy]:
    """A breakable network in front of the listener for MQTT."""
    proxy = Proxy(Target(mqtt.host, mqtt.port, mqtt.peer))
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mqtt, Callable[[], None]]]:
    """A broker and what restarts it: ours is killed for that, and keeps what it has confirmed."""
    with start_mqtt(tmp_path_factory.mktemp("mortal")) as both:
        yield both


def kept(version: int) -> dict[str, Any]:
    """How a client asks for a session that is kept."""
    return {"version": version, "clean": False, **({"expiry": 3600} if version == MQTTv5 else {})}


def all_of(subscriber: Device, publisher: Device) -> list[bytes]:
    """What came: each of the numbers at least, and whatever there is beside."""
    found: list[bytes] = []
    while len(set(found)) < COUNT:
        found.append(subscriber.next().payload)
    return found + [each.payload for each in subscriber.all(publisher)]


def delayed(seconds: int) -> Any:
    return properties(PacketTypes.WILLMESSAGE, WillDelayInterval=seconds)


def present(client: Device) -> bool:
    assert client.connack is not None
    return bool(client.connack[0].session_present)


@VERSIONS
def test_a_session_waits_for_its_client(device: Make, topic: str, name: str, version: int) -> None:
    publisher = device(version=version)
    subscriber = device(name, **kept(version))
    assert not present(subscriber)
    subscriber.subscribe(f"{topic}/#", 2)
    subscriber.close()
    for number in range(1, 6):
        publisher.publish(f"{topic}/{number}", b"%d" % number, 1 + number % 2)
    subscriber.connect()
    if version != MQTTv31:  # which has no such flag
        assert present(subscriber)
    found = [(got.qos, got.topic, got.payload, got.dup) for got in (subscriber.next() for _ in range(5))]
    found.sort()  # those of QoS 2 may come later: paho gives them out when they are released
    assert found == [(qos, f"{topic}/{number}", b"%d" % number, False) for qos, number in ((1, 2), (1, 4), (2, 1),
                                                                                         (2, 3), (2, 5))]
    assert not subscriber.all(publisher)


@VERSIONS
def test_a_clean_start_forgets(device: Make, topic: str, name: str, version: int) -> None:
    device(name, **kept(version)).subscribe(topic, 1)
    device(version=version).publish(topic, b"m", 1)
    again = device(name, version=version, clean=True)
    assert not present(again)
    assert not again.all()
    again.close()
    last = device(name, **kept(version))
    assert not present(last)
    last.publish(topic, b"m", 1)
    assert not last.all()


@VERSIONS
def test_what_is_not_acknowledged_comes_again(device: Make, topic: str, name: str, version: int) -> None:
    publisher = device(version=version)
    subscriber = device(name, **kept(version), manual_ack=True)
    subscriber.subscribe(topic, 1)
    for number in range(4):
        publisher.publish(topic, b"%d" % number, 1)
    first = [subscriber.next() for _ in range(4)]
    subscriber.ack(first[0])
    subscriber.unsubscribe("nothing")  # so that the broker has that acknowledgement
    subscriber.vanish()
    subscriber.connect()
    again = [subscriber.next() for _ in range(3)]
    assert [each.payload for each in again] == [b"1", b"2", b"3"]
    assert all(each.dup for each in again)
    assert [each.mid for each in again] == [each.mid for each in first[1:]]  # 4.4 of MQTT 5.0
    for each in again:
        subscriber.ack(each)
    subscriber.paho.manual_ack_set(False)
    assert not subscriber.all(publisher)


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_a_network_that_breaks_loses_nothing(mqtt: Mqtt, device: Make, network: Proxy, topic: str, name: str,
                                             version: int, qos: int) -> None:
    """Both ways through the network; of QoS 2, nothing comes twice."""
    outside = replace(mqtt, host=network.host, port=network.port)
    subscriber = device(name, broker=outside, **kept(version))
    subscriber.subscribe(topic, qos)
    publisher = device(f"{name}-p", broker=outside, **kept(version))
    numbers = [b"%d" % number for number in range(COUNT)]
    for at, number in enumerate(numbers):
        publisher.send(topic, number, qos)
        if at % 25 == 12:
            network.cut()
            for each in (publisher, subscriber):
                each.aborted()
                each.connect()
    found = all_of(subscriber, publisher)
    assert sorted(set(found), key=int) == numbers
    if qos == 2:
        assert found == numbers


@VERSIONS
def test_a_session_survives_the_broker(mortal: tuple[Mqtt, Callable[[], None]], device: Make, topic: str, name: str,
                                       version: int) -> None:
    broker, restart = mortal
    subscriber = device(name, broker=broker, **kept(version))
    subscriber.subscribe(f"{topic}/+", 2)
    subscriber.close()
    publisher = device(broker=broker, version=version)
    for number in range(20):
        publisher.publish(f"{topic}/{number}", b"%d" % number, 1 + number % 2, retain=number == 7)
    restart()
    subscriber.connect()
    if version != MQTTv31:
        assert present(subscriber)
    found = [(got.qos, got.payload) for got in (subscriber.next() for _ in range(20))]
    assert sorted(found, key=lambda each: int(each[1])) == [(1 + number % 2, b"%d" % number) for number in range(20)]
    again = device(broker=broker, version=version)
    again.publish(f"{topic}/late", b"late", 1)
    assert subscriber.next().payload == b"late"
    again.subscribe(f"{topic}/#", 1)
    got = again.next()
    assert (got.topic, got.payload, got.retain) == (f"{topic}/7", b"7", True)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_broker_that_ends_in_the_middle(mortal: tuple[Mqtt, Callable[[], None]], device: Make, topic: str, name: str,
                                          qos: int) -> None:
    """Ours is killed. What paho has not been told about it sends again, and of QoS 2 nothing comes twice."""
    broker, restart = mortal
    subscriber = device(name, broker=broker, **kept(MQTTv311))
    subscriber.subscribe(topic, qos)
    publisher = device(f"{name}-p", broker=broker, **kept(MQTTv311))
    numbers = [b"%d" % number for number in range(COUNT)]
    for at, number in enumerate(numbers):
        publisher.send(topic, number, qos)
        if at == COUNT // 2:
            publisher.wait(lambda: len(publisher._acks) > COUNT // 5, "some acknowledgements")
            restart()
            for each in (publisher, subscriber):
                each.aborted()
                each.connect()
    found = all_of(subscriber, publisher)
    if qos == 2:
        assert found == numbers
    else:
        assert sorted(set(found), key=int) == numbers


def test_how_long_a_session_is_kept(device: Make, topic: str, name: str) -> None:
    """The will of a session comes with its end at the latest: that is how one sees it (3.1.3.2.2 of MQTT 5.0)."""
    watcher = device()
    watcher.subscribe(f"{topic}/will", 1)
    will = {"topic": f"{topic}/will", "payload": b"gone", "qos": 1, "properties": delayed(600)}
    client = device(name, clean=False, expiry=1, will=will)
    client.subscribe(topic, 1)
    client.vanish()
    assert watcher.next().payload == b"gone"
    client.connect()
    assert not present(client)


def test_a_client_may_change_how_long_its_session_is_kept(device: Make, topic: str, name: str) -> None:
    client = device(name, clean=False, expiry=3600)
    client.subscribe(topic, 1)
    client.close(SessionExpiryInterval=0)
    client.connect()
    assert not present(client)
    client.close(SessionExpiryInterval=3600)
    client.connect()
    assert present(client)


def test_a_will_that_waits(device: Make, topic: str, name: str) -> None:
    watcher = device()
    watcher.subscribe(topic, 1)
    will = {"topic": topic, "payload": b"patient", "qos": 1, "properties": delayed(1)}
    client = device(name, clean=False, expiry=3600, will=will)
    client.vanish()
    client.connect()  # within the delay: nobody hears of it
    client.paho.will_set(topic, b"gone", 1, properties=delayed(1))
    client.close()
    client.connect()
    client.vanish()
    assert watcher.next().payload == b"gone"
    assert not watcher.all()


def test_a_will_by_the_client_s_own_wish(device: Make, topic: str) -> None:
    watcher = device()
    watcher.subscribe(topic, 1)
    device(will={"topic": topic, "payload": b"bye", "qos": 1}).close(reason=0x04)
    assert watcher.next().payload == b"bye"


def test_the_store_is_where_it_was(tmp_path: Path, topic: str, name: str) -> None:
    """A broker that is stopped and started keeps a session, its subscription and its message: with nothing else."""
    with start_mqtt(tmp_path) as (broker, restart), Device(broker, name, **kept(MQTTv5)) as client:
        client.subscribe(topic, 1)
        client.close()
        with Device(broker) as publisher:
            publisher.publish(topic, b"m", 1)
        restart()
        restart()
        client.connect()
        assert present(client) and client.next().payload == b"m"
