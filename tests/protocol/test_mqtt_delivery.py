"""MQTT: QoS 0, 1 and 2 both ways, packet identifiers, what is sent again, flow control, sizes, aliases, expiry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.commands import Queue

from tests.wire import Client, Hangup
from tests.wire_mqtt import DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, MqttClient, Packet

Connect = Callable[..., MqttClient]
LEVELS = pytest.mark.parametrize("level", [3, 4, 5])
BOTH = pytest.mark.parametrize("level", [4, 5])
KEEP = {4: {"clean": False}, 5: {"clean": False, "SessionExpiryInterval": 3600}}
"""How a client connects that has a session to keep."""


def take(client: MqttClient, found: Packet) -> None:
    """Acknowledge a delivery to the end."""
    if found.qos == 1:
        client.acknowledge(PUBACK, found.packet_id)
    elif found.qos == 2:
        client.acknowledge(PUBREC, found.packet_id)
        assert client.expect(PUBREL).packet_id == found.packet_id
        client.acknowledge(PUBCOMP, found.packet_id)


# Publishing.

@LEVELS
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("subscribed", [0, 1, 2])
def test_the_lower_qos_counts(connect_mqtt: Connect, topic: str, level: int, published: int, subscribed: int) -> None:
    client = connect_mqtt("", level) if level > 3 else connect_mqtt(topic, level)
    assert client.subscribe((topic, subscribed)) == [subscribed]
    client.publish(topic, b"x", published)
    found = client.message()
    assert (found.qos, found.retain, found.duplicate) == (min(published, subscribed), False, False)
    assert (found.packet_id > 0) is (found.qos > 0)


@BOTH
def test_a_message_of_qos_2_that_is_sent_again_is_published_once(connect_mqtt: Connect, topic: str,
                                                                 level: int) -> None:
    client = connect_mqtt("", level)
    client.subscribe(topic)
    for duplicate in (False, True, True):
        client.publish(topic, b"x", 2, packet_id=7, duplicate=duplicate)
        assert client.expect(PUBREC).reason == 0
    client.acknowledge(PUBREL, 7)
    client.expect(PUBCOMP)
    assert client.message().payload == b"x"
    client.nothing()
    client.send_whole(topic, b"y", 2, packet_id=7)
    assert client.message().payload == b"y"


def test_a_packet_identifier_that_nobody_knows(connect_mqtt: Connect) -> None:
    client = connect_mqtt("", 5)
    client.acknowledge(PUBREL, 9)
    assert (found := client.expect(PUBCOMP)).reason == 0x92 and found.packet_id == 9
    client.acknowledge(PUBREC, 9)
    assert client.expect(PUBREL).reason == 0x92
    client.acknowledge(PUBACK, 9)
    client.acknowledge(PUBCOMP, 9)
    client.subscribe("nothing")
    client.acknowledge(PUBREC, 9)
    assert client.expect(PUBREL).reason == 0x92
    client.ping()


def test_nobody_subscribes(connect_mqtt: Connect, topic: str) -> None:
    client = connect_mqtt("", 5)
    client.publish(topic, b"", 1)
    assert client.expect(PUBACK).reason == 0x10
    client.publish(topic, b"", 2)
    assert client.expect(PUBREC).reason == 0x10
    client.acknowledge(PUBREL, 2)
    assert client.expect(PUBCOMP).reason == 0
    client.subscribe(topic)
    client.publish(topic, b"", 1)
    assert client.expect(PUBACK).reason == 0


@BOTH
def test_acknowledgements_come_in_order(connect_mqtt: Connect, connect: Callable[..., Client], topic: str,
                                        name: Callable[..., str], level: int) -> None:
    """Those that wait for the journal are not overtaken by those that do not."""
    queue = name()
    channel = connect().channel()
    channel.call(Queue.Declare(queue=queue, durable=True))
    channel.call(Queue.Bind(queue=queue, exchange="amq.topic", routing_key=f"{topic}.durable"))
    client = connect_mqtt("", level)
    numbers = list(range(1, 41))
    for number in numbers:
        client.publish(f"{topic}/{'durable' if number % 2 else 'none'}", b"x", 1, packet_id=number)
    assert [client.expect(PUBACK).packet_id for _ in numbers] == numbers


def test_a_full_queue_refuses(connect_mqtt: Connect, connect: Callable[..., Client], topic: str,
                              name: Callable[..., str]) -> None:
    queue = name()
    channel = connect().channel()
    channel.call(Queue.Declare(queue=queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}))
    channel.call(Queue.Bind(queue=queue, exchange="amq.topic", routing_key=topic))
    client = connect_mqtt("", 5)
    client.publish(topic, b"1", 1)
    assert client.expect(PUBACK).reason == 0
    client.publish(topic, b"2", 1)
    assert client.expect(PUBACK).reason == 0x97
    client.publish(topic, b"3", 2)
    assert client.expect(PUBREC).reason == 0x97
    old = connect_mqtt("", 4)
    old.publish(topic, b"4", 1)
    with pytest.raises(Hangup):  # it cannot be told otherwise
        old.expect(PUBACK)


def test_topics_of_the_broker_s_own_are_not_for_clients(connect_mqtt: Connect) -> None:
    client = connect_mqtt("", 5)
    client.publish("$SYS/x", b"", 1)
    assert client.expect(PUBACK).reason == 0x87
    client.publish("$SYS/x", b"", 2)
    assert client.expect(PUBREC).reason == 0x87
    client.publish("$SYS/x", b"", 0)
    assert client.expect(DISCONNECT).reason == 0x87


def test_more_than_the_receive_maximum(connect_mqtt: Connect, topic: str) -> None:
    client = connect_mqtt("", 5)
    for number in range(1, 1001):
        client.publish(topic, b"", 2, packet_id=number)
    for _ in range(1000):
        client.expect(PUBREC)
    client.acknowledge(PUBREL, 1)
    client.expect(PUBCOMP)
    client.publish(topic, b"", 2, packet_id=1)  # as many as may be
    client.expect(PUBREC)
    client.publish(topic, b"", 2, packet_id=1001)
    assert client.expect(DISCONNECT).reason == 0x93


# Deliveries.

@BOTH
def test_qos_2_step_by_step(connect_mqtt: Connect, client_id: str, topic: str, level: int) -> None:
    client = connect_mqtt(client_id, level, **KEEP[level])
    client.subscribe((topic, 2))
    connect_mqtt("", level).send_whole(topic, b"x", 2)
    found = client.message()
    client.acknowledge(PUBREC, found.packet_id)
    assert client.expect(PUBREL).packet_id == found.packet_id
    client.acknowledge(PUBREC, found.packet_id)  # once more: so is PUBREL
    assert (again := client.expect(PUBREL)).packet_id == found.packet_id and again.reason == 0
    client.acknowledge(PUBCOMP, found.packet_id)
    client.nothing()
    client.disconnect()
    client = connect_mqtt(client_id, level, **KEEP[level])
    client.nothing()


@BOTH
def test_what_is_not_acknowledged_comes_again_in_order(connect_mqtt: Connect, client_id: str, topic: str,
                                                       level: int) -> None:
    client = connect_mqtt(client_id, level, **KEEP[level])
    client.subscribe((topic, 2))
    writer = connect_mqtt("", level)
    for number in range(6):
        writer.send_whole(topic, b"%d" % number, 1 + number % 2)
    first = {found.payload: found for found in client.messages(6)}
    client.acknowledge(PUBACK, first[b"2"].packet_id)
    client.acknowledge(PUBREC, first[b"3"].packet_id)
    client.expect(PUBREL)
    client.disconnect()  # which waits until the broker knows
    writer.send_whole(topic, b"new", 1)
    client = connect_mqtt(client_id, level, **KEEP[level])
    assert client.expect(PUBREL).packet_id == first[b"3"].packet_id
    again = client.messages(5)
    assert [found.payload for found in again if found.qos == 1] == [b"0", b"4", b"new"]
    assert [found.payload for found in again if found.qos == 2] == [b"1", b"5"]
    for found in again:
        assert found.duplicate is (found.payload != b"new")
        if found.duplicate:
            assert found.packet_id == first[found.payload].packet_id
    client.acknowledge(PUBCOMP, first[b"3"].packet_id)
    for found in again:
        take(client, found)
    client.disconnect()
    connect_mqtt(client_id, level, **KEEP[level]).nothing()


@pytest.mark.parametrize("qos", [1, 2])
def test_the_window_is_the_client_s(connect_mqtt: Connect, topic: str, qos: int) -> None:
    client = connect_mqtt("", 5, ReceiveMaximum=2)
    client.subscribe((topic, qos))
    writer = connect_mqtt("", 5)
    for number in range(5):
        writer.send_whole(topic, b"%d" % number, qos)
    found = client.messages(2)
    for number in range(2, 5):
        client.nothing()
        if qos == 2:  # the window is closed until PUBCOMP
            client.acknowledge(PUBREC, found[0].packet_id)
            client.expect(PUBREL)
            client.nothing()
            client.acknowledge(PUBCOMP, found[0].packet_id)
        else:
            client.acknowledge(PUBACK, found[0].packet_id)
        found = [found[1], client.message()]
        assert found[1].payload == b"%d" % number


def test_a_client_that_does_not_want_a_message(connect_mqtt: Connect, client_id: str, topic: str) -> None:
    client = connect_mqtt(client_id, 5, ReceiveMaximum=1, **KEEP[5])
    client.subscribe((topic, 2))
    writer = connect_mqtt("", 5)
    for number in range(4):
        writer.send_whole(topic, b"%d" % number, 1 + number % 2)
    for number in range(3):
        found = client.message()
        assert found.payload == b"%d" % number
        client.acknowledge(PUBACK if found.qos == 1 else PUBREC, found.packet_id, 0x83)
    assert client.message().payload == b"3"
    client.drop()
    client = connect_mqtt(client_id, 5, **KEEP[5])
    assert client.message().payload == b"3"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_that_is_too_large_for_a_client_is_done_with(connect_mqtt: Connect, client_id: str, topic: str,
                                                               qos: int) -> None:
    client = connect_mqtt(client_id, 5, MaximumPacketSize=100, **KEEP[5])
    client.subscribe((topic, 2))
    writer = connect_mqtt("", 5)
    writer.send_whole(topic, bytes(100), qos)
    writer.send_whole(topic, b"small", qos)
    found = client.message()
    assert found.payload == b"small"
    take(client, found)
    client.disconnect()
    connect_mqtt(client_id, 5, **KEEP[5]).nothing()


def test_aliases_of_the_server(connect_mqtt: Connect, topic: str) -> None:
    client = connect_mqtt("", 5, TopicAliasMaximum=2)
    client.subscribe((f"{topic}/#", 0))
    for name in ("a", "a", "b", "a", "c", "b"):
        client.publish(f"{topic}/{name}", b"x")
    found = [(got.topic[-1:], got.properties.get("TopicAlias")) for got in client.messages(6)]
    assert found == [("a", 1), ("", 1), ("b", 2), ("", 1), ("c", None), ("", 2)]
    for _ in range(20):
        client.publish(f"{topic}/a", b"x")
    client.publish(f"{topic}/c", b"x")
    client.publish(f"{topic}/c", b"x")
    client.publish(f"{topic}/b", b"x")
    found = [(got.topic[-1:], got.properties.get("TopicAlias")) for got in client.messages(23)][20:]
    assert found == [("c", 2), ("", 2), ("b", None)]  # "b" was used least recently


def test_what_is_left_of_a_message_s_life_is_told(connect_mqtt: Connect, client_id: str, topic: str) -> None:
    client = connect_mqtt(client_id, 5, **KEEP[5])
    client.subscribe((topic, 1))
    client.disconnect()
    writer = connect_mqtt("", 5)
    writer.send_whole(topic, b"long", 1, MessageExpiryInterval=1000, ContentType="text/plain",
                      UserProperty=[("a", "b")])
    writer.send_whole(topic, b"gone", 1, MessageExpiryInterval=0)
    writer.send_whole(topic, b"ever", 1)
    client = connect_mqtt(client_id, 5, **KEEP[5])
    long, ever = client.messages(2)
    left = long.properties.pop("MessageExpiryInterval")
    assert 0 < left <= 1000 and long.properties == {"ContentType": "text/plain", "UserProperty": [("a", "b")]}
    assert (ever.payload, ever.properties) == (b"ever", {})


def test_qos_0_is_not_kept_for_a_client_that_is_away(connect_mqtt: Connect, client_id: str, topic: str) -> None:
    client = connect_mqtt(client_id, 4, clean=False)
    client.subscribe((f"{topic}/1", 1), (f"{topic}/0", 0))
    client.disconnect()
    writer = connect_mqtt()
    writer.send_whole(f"{topic}/1", b"0", 0)
    writer.send_whole(f"{topic}/0", b"1", 1)
    writer.send_whole(f"{topic}/1", b"kept", 1)
    client = connect_mqtt(client_id, 4, clean=False)
    assert client.message().payload == b"kept"
    client.nothing()


def test_a_purged_message_of_qos_2_is_forgotten_by_the_client_too(connect_mqtt: Connect, client_id: str, topic: str,
                                                                  connect: Callable[..., Client]) -> None:
    """Its packet identifier would mean the old message for a client that has not heard of its end."""
    client = connect_mqtt(client_id, 5, **KEEP[5])
    client.subscribe((topic, 2))
    writer = connect_mqtt("", 5)
    writer.send_whole(topic, b"old", 2)
    old = client.message()
    client.drop()
    channel = connect().channel()
    while not channel.call(Queue.Purge(queue=f"mqtt-session:{client_id}")).message_count:
        pass  # the broker has not noticed yet that the client is gone
    client = connect_mqtt(client_id, 5, **KEEP[5])
    assert client.expect(PUBREL).packet_id == old.packet_id
    writer.send_whole(topic, b"new", 2)
    new = client.expect(PUBLISH)
    assert (new.payload, new.duplicate) == (b"new", False) and new.packet_id != old.packet_id
    client.acknowledge(PUBCOMP, old.packet_id)
    take(client, new)
    client.nothing()
