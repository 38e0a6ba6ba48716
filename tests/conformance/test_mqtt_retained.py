"""Retained messages and `$SYS`, with clients of every dialect: paho-mqtt, pika, Proton and our own for AMQP 0-10."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker
from proton import Message as Message10
from proton.utils import BlockingConnection, SendException

from interop.amqp010 import Empty, Message, connect
from tests.conformance.conftest import start_mqtt
from tests.conformance.mqtt_tools import Device, Mqtt
from tests.conformance.pika_tools import parameters
from tests.conformance.support import DEADLINE, Target

Make = Callable[..., Device]
QUEUE = "amq.mqtt.retained"


@pytest.fixture
def pika_connection(amqp: Target) -> Iterator[pika.BlockingConnection]:
    with pika.BlockingConnection(parameters(amqp)) as connection:
        yield connection


def seen(device: Device) -> list[tuple[str, bytes, int, bool]]:
    return [(got.topic, got.payload, got.qos, got.retain) for got in device.all()]


def test_amqp_0_10_sets_reads_and_removes(device: Make, amqp: Target, topic: str) -> None:
    key = topic.replace("/", ".")
    with connect(amqp.url) as connection:
        session = connection.session()
        sender = session.sender("amq.topic")
        for body in (b"first", b"last"):
            sender.send(Message(body, subject=key, properties={"x-mqtt-retain": True}, durable=True))
        late = device()
        late.subscribe(topic, 1)
        assert seen(late) == [(topic, b"last", 1, True)]
        receiver = session.receiver(QUEUE, browse=True)
        found: list[object] = []
        while True:
            try:
                message = receiver.fetch(timeout=1)
            except Empty:
                break
            if message.routing_key == key:
                found.append(message.content)
        assert found == [b"last"]
        sender.send(Message(b"", subject=key, properties={"x-mqtt-retain": True}))
    last = device()
    last.subscribe(topic, 1)
    assert seen(last) == []


def test_a_consumer_of_0_9_1_browses(device: Make, pika_connection: pika.BlockingConnection, topic: str) -> None:
    """It gets all that is retained, and then what becomes so; acknowledgements take nothing away."""
    device().publish(f"{topic}/1", b"one", 1, retain=True)
    channel = pika_connection.channel()
    wanted = f"{topic.replace('/', '.')}."
    found: list[tuple[str, bytes]] = []
    for method, _, body in channel.consume(QUEUE, auto_ack=False, inactivity_timeout=DEADLINE):
        assert method is not None, found
        channel.basic_ack(method.delivery_tag)
        if method.routing_key.startswith(wanted):
            found.append((method.routing_key[len(wanted):], body))
            if len(found) == 1:
                device().publish(f"{topic}/2", b"two", 1, retain=True)
                device().publish(f"{topic}/1", b"three", 1, retain=True)
            if len(found) == 3:
                break
    channel.close()
    assert found == [("1", b"one"), ("2", b"two"), ("1", b"three")]
    late = device()
    late.subscribe(f"{topic}/#", 1)
    assert sorted(seen(late)) == [(f"{topic}/1", b"three", 1, True), (f"{topic}/2", b"two", 1, True)]


@pytest.mark.parametrize("does", [
    lambda channel: channel.basic_publish("", QUEUE, b"x"),
    lambda channel: channel.queue_declare(QUEUE, durable=False),
    lambda channel: channel.queue_delete(QUEUE),
    lambda channel: channel.queue_bind(QUEUE, "amq.topic", "#"),
    lambda channel: channel.basic_get(QUEUE),
    lambda channel: channel.basic_publish("amq.mqtt.sys", "x", b"x"),
], ids=["publish", "declare", "delete", "bind", "get", "publish-to-sys"])
def test_what_is_the_brokers_own(device: Make, pika_connection: pika.BlockingConnection, topic: str,
                                 does: Callable[[object], None]) -> None:
    device().publish(topic, b"m", 1, retain=True)
    channel = pika_connection.channel()
    channel.confirm_delivery()
    with pytest.raises(ChannelClosedByBroker) as refused:
        does(channel)
    assert refused.value.reply_code == 403
    late = device()
    late.subscribe(topic, 1)
    assert seen(late) == [(topic, b"m", 1, True)]


def test_what_1_0_sends_to_the_queue_is_rejected(device: Make, amqp: Target, topic: str) -> None:
    device().publish(topic, b"m", 1, retain=True)
    connection = BlockingConnection(amqp.url, timeout=DEADLINE)
    try:
        with pytest.raises(SendException):
            connection.create_sender(QUEUE).send(Message10(body=b"x"))
    finally:
        connection.close()


def test_an_empty_body_of_any_kind_removes(device: Make, amqp: Target, topic: str) -> None:
    connection = BlockingConnection(amqp.url, timeout=DEADLINE)
    sender = connection.create_sender("amq.topic")
    for number, body in enumerate((b"", "", None)):
        device().publish(f"{topic}/{number}", b"m", 1, retain=True)
        sender.send(Message10(subject=f"{topic}/{number}".replace("/", "."), body=body, inferred=True,
                              properties={"x-mqtt-retain": True}))
    connection.close()
    late = device()
    late.subscribe(f"{topic}/#", 1)
    assert seen(late) == []


@pytest.mark.parametrize("qos", [0, 1])
def test_retained_messages_outlive_a_killed_broker(tmp_path: Path, mqtt: Mqtt, qos: int) -> None:
    """Those of QoS 0 too, once what came behind them was acknowledged."""
    with start_mqtt(tmp_path) as (broker, restart):
        publisher = Device(broker)
        for number in range(300):
            publisher.send(f"t/{number % 100}", b"%d" % number, qos, retain=True)
        publisher.publish("t/7", b"", 1, retain=True)
        publisher.stop()
        restart()
        late = Device(broker)
        late.subscribe("t/#", 1)
        assert {topic: payload for topic, payload, _, _ in seen(late)} == {
            f"t/{number % 100}": b"%d" % number for number in range(200, 300) if number != 207}
        late.close()


def test_figures_of_the_broker(device: Make, mqtt: Mqtt) -> None:
    watcher = device()
    watcher.subscribe("$SYS/broker/version")
    watcher.subscribe("$SYS/broker/clients/+")
    found = {got.topic: got for got in watcher.all()}
    assert {"$SYS/broker/version", "$SYS/broker/clients/connected", "$SYS/broker/clients/total"} <= found.keys()
    assert all(got.retain for got in found.values())
    everything = device()
    everything.subscribe("#")
    assert not [got for got in everything.all() if got.topic.startswith("$")]


@pytest.mark.parametrize("name", ["$SYS/broker/uptime", "$SYS", "$other/x"])
def test_topics_that_begin_with_a_dollar_sign_are_not_for_clients(device: Make, mqtt: Mqtt, name: str) -> None:
    if mqtt.peer:
        pytest.skip("Mosquitto takes such messages, and drops them")
    assert device(uuid.uuid4().hex).publish(name, b"x", 1) == 0x87
