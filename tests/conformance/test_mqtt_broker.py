"""What the broker does with messages of MQTT besides passing them on: dead letters, later delivery, routing by user
properties, selectors. With paho-mqtt, pika (0-9-1) and Proton (1.0)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from proton import Message
from proton.reactor import Selector
from proton.utils import BlockingConnection

from tests.conformance.mqtt_tools import Device
from tests.conformance.pika_tools import get, parameters
from tests.conformance.support import DEADLINE, Target

Make = Callable[..., Device]


@pytest.fixture
def channel(amqp: Target) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(parameters(amqp)) as connection:
        yield connection.channel()


def test_a_dead_letter_comes_back_to_mqtt(device: Make, channel: BlockingChannel, topic: str) -> None:
    key = topic.replace("/", ".")
    queue = channel.queue_declare("", exclusive=True, arguments={
        "x-dead-letter-exchange": "amq.topic", "x-dead-letter-routing-key": f"{key}.dead"}).method.queue
    channel.queue_bind(queue, "amq.topic", f"{key}.in")
    client = device()
    client.subscribe(f"{topic}/dead", 1)
    client.publish(f"{topic}/in", b"m", 1, UserProperty=[("a", "1"), ("a", "2")], ContentType="text/plain")
    channel.basic_nack(get(channel, queue, auto_ack=False)[0].delivery_tag, requeue=False)
    got = client.next()
    assert (got.topic, got.payload, got.qos, got.properties.ContentType) == (f"{topic}/dead", b"m", 1, "text/plain")
    pairs = list(got.properties.UserProperty)
    assert pairs[:2] == [("a", "1"), ("a", "2")]
    death, = json.loads(dict(pairs)["x-death"])
    assert (death["queue"], death["reason"], death["routing-keys"]) == (queue, "rejected", [f"{key}.in"])


def test_an_expired_message_is_a_dead_letter_to_pika(device: Make, channel: BlockingChannel, topic: str) -> None:
    key = topic.replace("/", ".")
    dead = channel.queue_declare("", exclusive=True).method.queue
    queue = channel.queue_declare("", exclusive=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}).method.queue
    channel.queue_bind(queue, "amq.topic", key)
    device().publish(topic, b"m", 1, MessageExpiryInterval=0)
    _, said, body = get(channel, dead)
    assert body == b"m" and said.expiration is None
    death, = said.headers["x-death"]
    assert (death["queue"], death["reason"], death["original-expiration"]) == (queue, "expired", "0")


def test_a_message_is_delivered_later(device: Make, topic: str, amqp: Target) -> None:
    client = device()
    client.subscribe(topic, 1)
    due = round(time.time() * 1000) + 300
    client.publish(topic, b"later", 1, UserProperty=[("x-opt-delivery-time", str(due))])
    client.publish(topic, b"now", 1)
    assert client.payloads(2) == [b"now", b"later"]
    assert time.time() * 1000 >= due


def test_a_priority(device: Make, channel: BlockingChannel, topic: str) -> None:
    queue = channel.queue_declare("", exclusive=True, arguments={"x-max-priority": 9}).method.queue
    channel.queue_bind(queue, "amq.topic", topic.replace("/", "."))
    client = device()
    for priority in "275":
        client.publish(topic, priority.encode(), 1, UserProperty=[("x-priority", priority)])
    assert [get(channel, queue)[2] for _ in range(3)] == [b"7", b"5", b"2"]


def test_user_properties_route_and_select(device: Make, channel: BlockingChannel, amqp: Target, topic: str) -> None:
    key = topic.replace("/", ".")
    red = channel.queue_declare("", exclusive=True).method.queue
    exchange = f"headers-{key}"
    channel.exchange_declare(exchange, "headers", auto_delete=True)
    channel.queue_bind(red, exchange, "", {"x-match": "all", "colour": "red"})
    channel.exchange_bind(exchange, "amq.topic", key)
    connection = BlockingConnection(amqp.url, timeout=DEADLINE)
    receiver = connection.create_receiver(f"amq.topic/{key}", options=Selector("colour = 'red' AND weight > 4"))
    client = device()
    for colour, weight in (("blue", "5"), ("red", "3"), ("red", "5")):
        client.publish(topic, f"{colour} {weight}".encode(), 1, UserProperty=[
            ("colour", colour), ("weight", weight), ("x-opt-type-weight", "int")])
    assert [get(channel, red)[2] for _ in range(2)] == [b"red 3", b"red 5"]
    got: Message = receiver.receive()
    assert bytes(got.body) == b"red 5" and got.properties["weight"] == 5
    connection.close()


@pytest.mark.parametrize("way", ["pika", "proton"])
def test_an_ordinary_service_of_0_9_1_answers_all(device: Make, channel: BlockingChannel, amqp: Target, topic: str,
                                                  way: str) -> None:
    """It publishes to the nameless exchange, with the reply-to for a routing key, and knows of no other exchange."""
    key = topic.replace("/", ".")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", f"{key}.service")
    requester = device()
    requester.subscribe(f"{topic}/answers", 1)
    requester.publish(f"{topic}/service", b"question", 1, ResponseTopic=f"{topic}/answers", CorrelationData=b"c-1")
    _, asked, body = get(channel, queue)
    answer = pika.BasicProperties(correlation_id=asked.correlation_id, delivery_mode=2)
    if way == "pika":
        channel.basic_publish("", asked.reply_to, body.upper(), answer)
    else:  # as any client of 1.0, to the address that it was given
        connection = BlockingConnection(amqp.url, timeout=DEADLINE)
        connection.create_sender(asked.reply_to).send(
            Message(body=body.upper(), inferred=True, correlation_id=asked.correlation_id, durable=True))
        connection.close()
    got = requester.next()
    assert (got.topic, got.payload, got.qos) == (f"{topic}/answers", b"QUESTION", 1)
    assert got.properties.CorrelationData == b"c-1"


def test_a_queue_of_such_a_name_comes_first(channel: BlockingChannel, topic: str) -> None:
    exchange = topic.replace("/", ".")
    name = f"{exchange}/k"
    mine = channel.queue_declare("", exclusive=True).method.queue
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.queue_bind(mine, exchange, "k")
    channel.basic_publish("", name, b"to the exchange")
    assert get(channel, mine)[0].exchange == exchange
    channel.queue_declare(name, exclusive=True)
    channel.basic_publish("", name, b"to the queue")
    assert get(channel, name)[2] == b"to the queue"
    assert channel.basic_get(mine)[0] is None
