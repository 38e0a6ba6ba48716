"""MQTT beside AMQP: paho-mqtt and aiomqtt meet pika (0-9-1) and Proton (1.0) at the exchange `amq.topic`."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import aiomqtt
import pika
import pytest
from paho.mqtt.client import MQTTv31, MQTTv311
from pika.adapters.blocking_connection import BlockingChannel
from proton import Message, symbol
from proton.reactor import Copy
from proton.utils import BlockingConnection

from tests.conformance.mqtt_tools import LARGE, Device, Mqtt
from tests.conformance.pika_tools import get, parameters
from tests.conformance.support import DEADLINE, Target, run

Make = Callable[..., Device]


@pytest.fixture
def channel(amqp: Target) -> Iterator[BlockingChannel]:
    """A channel of pika's, with confirms."""
    with pika.BlockingConnection(parameters(amqp)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


@pytest.fixture
def proton(amqp: Target) -> Iterator[BlockingConnection]:
    connection = BlockingConnection(amqp.url, timeout=DEADLINE)
    yield connection
    connection.close()


@pytest.fixture
def key(topic: str) -> str:
    """The routing key of `topic`."""
    return topic.replace("/", ".")


def bound(channel: BlockingChannel, pattern: str) -> str:
    """A queue for what is published with such keys; it goes with the connection."""
    queue: str = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", pattern)
    return queue


def test_mqtt_to_pika(device: Make, channel: BlockingChannel, topic: str, key: str) -> None:
    queue = bound(channel, f"{key}.#")
    name = f"sensor-{uuid.uuid4().hex[:8]}"
    sensor = device(name)
    assert sensor.publish(f"{topic}/a.b/c", b"21.5", 1, ContentType="text/plain", MessageExpiryInterval=60,
                          CorrelationData=b"id", UserProperty=[("unit", "C"), ("n", "1")]) == 0
    method, said, body = get(channel, queue)
    assert (method.exchange, method.routing_key, body) == ("amq.topic", f"{key}.a%2Eb.c", b"21.5")
    assert (said.delivery_mode, said.content_type, said.expiration) == (2, "text/plain", "60000")
    assert (said.correlation_id, said.user_id) == ("id", "guest")
    assert said.headers["x-mqtt-client-id"] == name
    assert (said.headers["unit"], said.headers["n"]) == ("C", "1")
    sensor.publish(topic, b"often", 0)
    assert get(channel, queue)[1].delivery_mode == 1


@pytest.mark.parametrize("version", [MQTTv31, MQTTv311], ids=["3.1", "3.1.1"])
def test_old_mqtt_to_pika(device: Make, channel: BlockingChannel, topic: str, key: str, version: int) -> None:
    queue = bound(channel, key)
    sensor = device(f"old-{uuid.uuid4().hex[:8]}", version=version)
    for qos in range(3):
        sensor.publish(topic, b"%d" % qos, qos)
        _, said, body = get(channel, queue)
        assert (body, said.delivery_mode) == (b"%d" % qos, 2 if qos else 1)
        assert said.headers["x-mqtt-client-id"] == sensor.client_id and said.user_id == "guest"


def test_mqtt_to_proton(device: Make, proton: BlockingConnection, topic: str, key: str) -> None:
    receiver = proton.create_receiver(f"amq.topic/{key}.#")
    name = f"sensor-{uuid.uuid4().hex[:8]}"
    device(name).publish(f"{topic}/x", b"21.5", 2, ContentType="text/plain", MessageExpiryInterval=60,
                         UserProperty=[("unit", "C")], ResponseTopic=f"{topic}/answers", CorrelationData=b"id")
    got = receiver.receive()
    receiver.accept()
    assert got.body in (b"21.5", "21.5") and got.durable and got.content_type == "text/plain"
    assert 0 < got.ttl <= 60 and got.user_id == b"guest"
    assert got.properties["x-mqtt-client-id"] == name and got.properties["unit"] == "C"
    assert got.reply_to == f"amq.topic/{key}.answers" and got.correlation_id == "id"
    assert got.annotations["x-routing-key"] == f"{key}.x"


def test_pika_to_mqtt(device: Make, channel: BlockingChannel, topic: str, key: str) -> None:
    new, old = device(), device(version=MQTTv311)
    for each in (new, old):
        each.subscribe(f"{topic}/+", 2)
    channel.basic_publish("amq.topic", f"{key}.a%2Eb", b"on", pika.BasicProperties(
        delivery_mode=2, content_type="text/plain", expiration="60000", correlation_id="id",
        headers={"unit": "C", "n": 5}))
    channel.basic_publish("amq.topic", f"{key}.x", b"off")
    for each in (new, old):
        first, second = each.next(), each.next()
        assert (first.topic, first.payload, first.qos, first.retain) == (f"{topic}/a.b", b"on", 1, False)
        assert (second.topic, second.payload, second.qos) == (f"{topic}/x", b"off", 0)
        if each is new:
            assert first.properties.ContentType == "text/plain" and first.properties.CorrelationData == b"id"
            assert 0 < first.properties.MessageExpiryInterval <= 60
            pairs = dict(first.properties.UserProperty)
            assert pairs["unit"] == "C" and pairs["n"] == "5"


def test_proton_to_mqtt(device: Make, proton: BlockingConnection, topic: str, key: str) -> None:
    subscriber = device()
    subscriber.subscribe(f"{topic}/#", 1)
    sender = proton.create_sender("amq.topic")
    sender.send(Message(subject=f"{key}.text", body="gr\u00fcn", durable=True, properties={"unit": "C"}, ttl=60))
    sender.send(Message(subject=f"{key}.bytes", body=b"\x00\xff", inferred=True))
    sender.send(Message(subject=f"{key}.map", body={"t": 21.5, "ok": True}))
    text, data, table = (subscriber.next() for _ in range(3))
    assert (text.topic, text.payload, text.qos) == (f"{topic}/text", "gr\u00fcn".encode(), 1)
    assert text.properties.PayloadFormatIndicator == 1 and ("unit", "C") in text.properties.UserProperty
    assert 0 < text.properties.MessageExpiryInterval <= 60
    assert (data.payload, data.qos) == (b"\x00\xff", 0)
    assert json.loads(table.payload) == {"t": 21.5, "ok": True}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_large_messages(device: Make, channel: BlockingChannel, proton: BlockingConnection, topic: str, key: str,
                        qos: int) -> None:
    queue = bound(channel, key)
    receiver = proton.create_receiver(f"amq.topic/{key}")
    client = device()
    client.subscribe(topic, qos)
    client.publish(topic, LARGE, qos)
    assert client.next().payload == LARGE
    assert get(channel, queue)[2] == LARGE
    assert bytes(receiver.receive().body) == LARGE
    receiver.accept()
    channel.basic_publish("amq.topic", key, LARGE, pika.BasicProperties(delivery_mode=2))
    got = client.next()
    assert got.payload == LARGE and got.qos == min(qos, 1)


@pytest.mark.parametrize("sets", ["mqtt", "pika", "proton"])
def test_retained_messages_of_all(device: Make, channel: BlockingChannel, proton: BlockingConnection, topic: str,
                                  key: str, sets: str) -> None:
    watcher = device()
    watcher.subscribe(topic, 1)

    def publish(body: bytes) -> None:
        if sets == "mqtt":
            device().publish(topic, body, 1, retain=True)
        elif sets == "pika":
            channel.basic_publish("amq.topic", key, body, pika.BasicProperties(delivery_mode=2,
                                                                               headers={"x-mqtt-retain": True}))
        else:
            proton.create_sender("amq.topic").send(Message(subject=key, body=body, inferred=True, durable=True,
                                                           properties={"x-mqtt-retain": True}))

    publish(b"first")
    publish(b"last")
    assert [(got.payload, got.retain) for got in watcher.all()] == [(b"first", False), (b"last", False)]
    late = device()
    late.subscribe(topic, 1)
    got = late.next()
    assert (got.payload, got.retain, got.qos) == (b"last", True, 1)
    browser = proton.create_receiver("amq.mqtt.retained", options=Copy(), credit=1000)
    while key not in ((found := browser.receive()).subject, (found.annotations or {}).get("x-routing-key")):
        pass  # one of 1.0's own is as it was sent
    assert bytes(found.body) == b"last"
    publish(b"")
    assert device().subscribe(topic, 1) == 1
    last = device()
    last.subscribe(topic, 1)
    assert not last.all()


def test_a_session_is_a_queue(device: Make, channel: BlockingChannel, topic: str, key: str) -> None:
    """One can see how long it is, and publish to it."""
    name = f"client-{uuid.uuid4().hex[:8]}"
    subscriber = device(name, clean=False, expiry=3600)
    subscriber.subscribe(f"{topic}/#", 1)
    subscriber.close()
    device().publish(f"{topic}/a", b"m", 1)
    queue = f"mqtt-session:{name}"
    assert channel.queue_declare(queue, passive=True).method.message_count == 1
    channel.basic_publish("", queue, b"for you", pika.BasicProperties(delivery_mode=2))
    subscriber.connect()
    assert subscriber.payloads(2) == [b"m", b"for you"]
    subscriber.close(SessionExpiryInterval=0)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        while True:  # until the broker has read the device's last word
            channel.queue_declare(queue, passive=True)
    assert refused.value.reply_code == 404


def test_shared_by_a_device_and_a_work_queue(device: Make, channel: BlockingChannel, topic: str, key: str) -> None:
    """Each message to one member of the group, and to the queue."""
    queue = bound(channel, key)
    members = [device(), device(version=MQTTv311)]
    for each in members:
        each.subscribe(f"$share/group/{topic}", 1)
    for number in range(20):
        channel.basic_publish("amq.topic", key, b"%d" % number, pika.BasicProperties(delivery_mode=2))
    publisher = device()
    shares = [[got.payload for got in each.all(publisher)] for each in members]
    assert sorted(sum(shares, []), key=int) == [b"%d" % number for number in range(20)] and all(shares)
    assert [get(channel, queue)[2] for _ in range(20)] == [b"%d" % number for number in range(20)]


def test_an_mqtt_requester_and_a_pika_service(device: Make, channel: BlockingChannel, topic: str, key: str) -> None:
    """An ordinary one publishes to the nameless exchange. What is no text of correlation data is in a header."""
    queue = bound(channel, f"{key}.service")
    requester = device()
    requester.subscribe(f"{topic}/answers", 1)
    requester.publish(f"{topic}/service", b"question", 1, ResponseTopic=f"{topic}/answers", CorrelationData=b"\x01\xff")
    _, asked, body = get(channel, queue)
    channel.basic_publish("", asked.reply_to, body.upper(), pika.BasicProperties(
        correlation_id=asked.correlation_id, delivery_mode=2, headers=copied(asked.headers, "x-correlation-id")))
    got = requester.next()
    assert (got.topic, got.payload) == (f"{topic}/answers", b"QUESTION")
    assert got.properties.CorrelationData == b"\x01\xff"


def test_an_mqtt_requester_and_a_proton_service(device: Make, proton: BlockingConnection, topic: str,
                                                key: str) -> None:
    receiver = proton.create_receiver(f"amq.topic/{key}.service")
    sender = proton.create_sender(None)
    requester = device()
    requester.subscribe(f"{topic}/answers", 1)
    requester.publish(f"{topic}/service", b"question", 1, ResponseTopic=f"{topic}/answers", CorrelationData=b"\x01\xff")
    asked = receiver.receive()
    receiver.accept()
    sender.send(Message(address=asked.reply_to, correlation_id=bytes(asked.correlation_id), body="answer",
                        durable=True))
    got = requester.next()
    assert (got.topic, got.payload) == (f"{topic}/answers", b"answer")
    assert got.properties.CorrelationData == b"\x01\xff"


def serve(mqtt: Mqtt, topic: str, requests: int) -> threading.Thread:
    """A service in aiomqtt: it answers where, and with which correlation data, it is asked to. It runs when this
    returns."""
    ready = threading.Event()

    async def service() -> None:
        async with aiomqtt.Client(mqtt.host, mqtt.port, username="guest", password="guest", clean_start=True,
                                  protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.subscribe(topic, 1)
            ready.set()
            for _ in range(requests):
                asked = await asyncio.wait_for(anext(client.messages), DEADLINE)
                said: Any = asked.properties
                answered = aiomqtt.client.Properties(3)
                answered.CorrelationData = said.CorrelationData
                await client.publish(said.ResponseTopic, b"answer", 1, properties=answered)

    made = threading.Thread(target=run, args=(service,), daemon=True)
    made.start()
    assert ready.wait(DEADLINE)
    return made


@pytest.mark.parametrize("direct", [False, True], ids=["queue", "direct reply-to"])
def test_a_pika_requester_and_an_mqtt_service(mqtt: Mqtt, channel: BlockingChannel, topic: str, key: str,
                                              direct: bool) -> None:
    service = serve(mqtt, topic, 1)
    queue = "amq.rabbitmq.reply-to" if direct else channel.queue_declare("", exclusive=True).method.queue
    found: list[tuple[Any, bytes]] = []
    channel.basic_consume(queue, lambda _, __, said, body: found.append((said, body)), auto_ack=True)
    channel.basic_publish("amq.topic", key, b"question", pika.BasicProperties(reply_to=queue, correlation_id="id-1"))
    while not found:
        channel.connection.process_data_events(DEADLINE)
    assert found[0][1] == b"answer" and found[0][0].correlation_id == "id-1"
    service.join(DEADLINE)


def test_a_proton_requester_and_an_mqtt_service(mqtt: Mqtt, proton: BlockingConnection, topic: str, key: str) -> None:
    service = serve(mqtt, topic, 1)
    answers = proton.create_receiver(None, dynamic=True)
    identity = uuid.uuid4()
    proton.create_sender("amq.topic").send(Message(
        subject=key, body="question", reply_to=answers.link.remote_source.address, correlation_id=identity,
        annotations={symbol("x-opt-n"): 1}))
    got = answers.receive()
    answers.accept()
    assert bytes(got.body) == b"answer" and got.correlation_id in (identity, identity.bytes)
    service.join(DEADLINE)


def copied(headers: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    """Those headers that keep what a property of 0-9-1 cannot hold."""
    return {name: value for name, value in (headers or {}).items() if name.startswith(names)}
