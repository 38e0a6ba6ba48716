"""paho-mqtt's client against the broker, in MQTT 3.1, 3.1.1 and 5: what all three have."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from paho.mqtt.client import MQTTv5, MQTTv31, MQTTv311

from tests.conformance.mqtt_tools import LARGE, Device, Mqtt, Refused

Make = Callable[..., Device]
VERSIONS = pytest.mark.parametrize("version", [MQTTv31, MQTTv311, MQTTv5], ids=["3.1", "3.1.1", "5"])


@VERSIONS
@pytest.mark.parametrize("port, tls", [("port", False), ("tls_port", True), ("amqp_port", False)],
                         ids=["1883", "8883", "5672"])
def test_a_message_by_each_listener(mqtt: Mqtt, device: Make, topic: str, version: int, port: str, tls: bool) -> None:
    client = device(version=version, port=getattr(mqtt, port), tls=tls)
    assert client.connack is not None and not client.connack[0].session_present
    assert client.subscribe(topic, 1) == 1
    client.publish(topic, b"payload", 1)
    got = client.next()
    assert (got.topic, got.payload, got.qos, got.retain, got.dup) == (topic, b"payload", 1, False, False)


@VERSIONS
@pytest.mark.parametrize("user, password", [("guest", "wrong"), ("nobody", "guest"), ("guest", None), (None, None)])
def test_who_is_not_let_in(device: Make, version: int, user: str | None, password: str | None) -> None:
    with pytest.raises(Refused) as refused:
        device(version=version, user=user, password=password)
    assert refused.value.code in (0x86, 0x87)


def test_an_mqtt_client_is_told_the_identifier_that_it_was_given(device: Make, topic: str) -> None:
    first, second, old = device(), device(), device(version=MQTTv311)
    assert first.connack is not None and second.connack is not None
    names = {each.connack[2].AssignedClientIdentifier for each in (first, second) if each.connack is not None}
    assert len(names) == 2
    old.subscribe(topic)
    first.publish(topic)
    assert old.next().topic == topic


@VERSIONS
def test_each_quality_of_service(device: Make, topic: str, version: int) -> None:
    publisher, subscriber = device(version=version), device(version=version)
    for published, subscribed in itertools.product(range(3), range(3)):
        here = f"{topic}/{published}/{subscribed}"
        assert subscriber.subscribe(here, subscribed) == subscribed
        publisher.publish(here, b"m", published)
        got = subscriber.next()
        assert (got.topic, got.qos) == (here, min(published, subscribed))
    assert not subscriber.all(publisher)


@VERSIONS
def test_filters(device: Make, topic: str, version: int) -> None:
    topics = ["a", "a/b", "a/b/c", "a//c", "a/", "/a", "a.b", "a/b.c", "A", "a/b/c/d", "\u00fcber/stra\u00dfe",
              "a b", "%2E"]
    filters = {"a": ["a"], "a/#": ["a", "a/b", "a/b/c", "a//c", "a/", "a/b.c", "a/b/c/d"],
               "a/+": ["a/b", "a/", "a/b.c"], "a/+/c": ["a/b/c", "a//c"], "+/a": ["/a"], "a.b": ["a.b"],
               "+/b.c": ["a/b.c"], "\u00fcber/+": ["\u00fcber/stra\u00dfe"], "+": ["a", "a.b", "A", "a b", "%2E"],
               "%2E": ["%2E"], "a/b/#": ["a/b", "a/b/c", "a/b/c/d"]}
    publisher = device(version=version)
    for topic_filter, expected in filters.items():
        with device(version=version) as subscriber:
            subscriber.subscribe(f"{topic}/{topic_filter}", 1)
            for each in topics:
                publisher.publish(f"{topic}/{each}")
            assert [got.topic.removeprefix(f"{topic}/") for got in subscriber.all(publisher)] == expected, topic_filter


@VERSIONS
def test_overlapping_subscriptions_have_the_highest_quality_of_service(device: Make, topic: str, version: int) -> None:
    client = device(version=version)
    client.subscribe(f"{topic}/#", 0)
    client.subscribe(f"{topic}/a", 2)
    client.publish(f"{topic}/a", b"m", 2)
    found = client.all()  # once, or once for each of them (3.3.4 of MQTT 5.0)
    assert max(each.qos for each in found) == 2 and len(found) in (1, 2)


@VERSIONS
def test_a_subscription_that_is_made_again_replaces_the_former(device: Make, topic: str, version: int) -> None:
    client = device(version=version)
    client.subscribe(topic, 2)
    client.subscribe(topic, 0)
    client.publish(topic, b"m", 2)
    assert [each.qos for each in client.all()] == [0]


@VERSIONS
def test_unsubscribing(device: Make, topic: str, version: int) -> None:
    client = device(version=version)
    client.subscribe(f"{topic}/#", 1)
    client.subscribe(f"{topic}/a", 1)
    client.unsubscribe(f"{topic}/#")
    client.publish(f"{topic}/a", b"1", 1)
    client.publish(f"{topic}/b", b"2", 1)
    client.unsubscribe(f"{topic}/a")
    client.publish(f"{topic}/a", b"3", 1)
    assert [each.payload for each in client.all()] == [b"1"]


@VERSIONS
def test_retained_messages(device: Make, topic: str, version: int) -> None:
    publisher, early = device(version=version), device(version=version)
    early.subscribe(f"{topic}/#", 1)
    for here, payload in (("a", b"old"), ("a", b"new"), ("b", b"gone"), ("b", b""), ("c/d", b"deep")):
        publisher.publish(f"{topic}/{here}", payload, 1, retain=True)
    assert [(each.payload, each.retain) for each in early.all(publisher)] == [
        (b"old", False), (b"new", False), (b"gone", False), (b"", False), (b"deep", False)]
    late = device(version=version)
    late.subscribe(f"{topic}/#", 2)
    found = late.all(publisher)
    assert {(each.topic.removeprefix(topic), each.payload) for each in found} == {("/a", b"new"), ("/c/d", b"deep")}
    assert all(each.retain and each.qos == 1 for each in found)
    late.subscribe(f"{topic}/+", 0)
    assert [(each.payload, each.retain, each.qos) for each in late.all(publisher)] == [(b"new", True, 0)]


@VERSIONS
def test_a_will(device: Make, topic: str, version: int) -> None:
    watcher = device(version=version)
    watcher.subscribe(f"{topic}/#", 2)
    for qos in range(3):
        will = {"topic": f"{topic}/{qos}", "payload": b"lost", "qos": qos}
        device(version=version, will=will).vanish()
        got = watcher.next()
        assert (got.topic, got.payload, got.qos, got.retain) == (f"{topic}/{qos}", b"lost", qos, False)
    device(version=version, will={"topic": f"{topic}/kept", "payload": b"kept", "qos": 1, "retain": True}).vanish()
    assert watcher.next().payload == b"kept"
    late = device(version=version)
    late.subscribe(f"{topic}/kept", 1)
    assert late.next().retain
    device(version=version, will={"topic": f"{topic}/never", "payload": b"never"}).close()
    assert not watcher.all()


@VERSIONS
def test_one_client_of_a_name_at_a_time(mqtt: Mqtt, device: Make, topic: str, version: int) -> None:
    name = f"name-{uuid.uuid4().hex[:8]}"
    watcher = device(version=version)
    watcher.subscribe(topic, 1)
    first = device(name, version=version, will={"topic": topic, "payload": b"taken over", "qos": 1})
    second = device(name, version=version)
    reason = first.aborted()
    if version == MQTTv5 and not mqtt.peer:  # Mosquitto 2.0.11 only closes the connection
        assert reason.value == 0x8E  # session taken over
    assert watcher.next().payload == b"taken over"
    second.subscribe(topic)
    second.publish(topic, b"works")
    assert second.next().payload == b"works"


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_many_in_order(device: Make, topic: str, version: int, qos: int) -> None:
    publisher, subscriber = device(version=version), device(version=version)
    subscriber.subscribe(topic, qos)
    numbers = [b"%d" % number for number in range(200)]
    for number in numbers:
        publisher.send(topic, number, qos)
    assert subscriber.payloads(len(numbers)) == numbers
    assert not subscriber.all(publisher)


@VERSIONS
def test_large_and_empty_payloads(device: Make, topic: str, version: int) -> None:
    publisher, subscriber = device(version=version), device(version=version, tls=True)
    subscriber.subscribe(topic, 2)
    for qos, payload in itertools.product(range(3), (LARGE, b"", b"x" * 65536)):
        publisher.publish(topic, payload, qos)
        assert subscriber.next().payload == payload


def test_versions_meet(device: Make, topic: str) -> None:
    clients = [device(version=version) for version in (MQTTv31, MQTTv311, MQTTv5)]
    for each in clients:
        each.subscribe(topic, 1)
    clients[2].publish(topic, b"new", 1, ContentType="text/plain", UserProperty=("a", "b"))
    clients[0].publish(topic, b"old", 1)
    for each in clients:
        assert each.payloads(2) == [b"new", b"old"]


def test_nothing_of_the_broker_s_own_comes_to_a_subscriber_of_everything(device: Make, topic: str) -> None:
    everything, statistics = device(), device()
    everything.subscribe("#", 1)
    statistics.subscribe("$SYS/#")
    assert statistics.next().topic.startswith("$SYS/broker/")
    everything.publish(topic, b"m", 1)
    found: list[Any] = everything.all()
    assert topic in {each.topic for each in found} and not [each for each in found if each.topic.startswith("$")]
