"""MQTT: sessions that outlive connections, take-over, wills, and the queue that a session is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.commands import Queue

from tests.wire import Client, Hangup, eventually
from tests.wire_mqtt import CONNACK, DISCONNECT, PUBACK, PUBREL, MqttClient, WillOf

Connect = Callable[..., MqttClient]
LEVELS = pytest.mark.parametrize("level", [3, 4, 5])
KEEP = {3: {"clean": False}, 4: {"clean": False}, 5: {"clean": False, "SessionExpiryInterval": 3600}}


def present(client: MqttClient, client_id: str, **options: object) -> bool:
    """Connect, and give whether there was a session."""
    return bool(client.connect(client_id, **options).flags)


@LEVELS
def test_a_session_waits_for_its_client(dial_mqtt: Connect, connect_mqtt: Connect, client_id: str, topic: str,
                                        level: int) -> None:
    client = dial_mqtt(level)
    assert not present(client, client_id, **KEEP[level])
    client.subscribe((topic, 1))
    client.disconnect()
    connect_mqtt("", 4).send_whole(topic, b"x", 1)
    client = dial_mqtt(level)
    assert present(client, client_id, **KEEP[level]) is (level > 3)  # 3.1 has no such flag
    client.acknowledge(PUBACK, client.message().packet_id)
    client.disconnect()
    client = dial_mqtt(level)
    assert not present(client, client_id)  # clean
    client.subscribe("other")
    client.disconnect()
    client = dial_mqtt(level)
    assert not present(client, client_id, **KEEP[level])
    connect_mqtt("", 4).send_whole(topic, b"x", 1)
    client.nothing()


def test_a_session_without_an_expiry_interval_ends_with_its_connection(dial_mqtt: Connect, connect_mqtt: Connect,
                                                                       client_id: str) -> None:
    client = connect_mqtt(client_id, 5, clean=False)
    client.subscribe("a")
    client.disconnect()
    assert not present(dial_mqtt(5), client_id, clean=False)


def test_the_expiry_interval_may_change_at_the_end(dial_mqtt: Connect, connect_mqtt: Connect, client_id: str) -> None:
    connect_mqtt(client_id, 5, SessionExpiryInterval=3600).disconnect(SessionExpiryInterval=0)
    client = dial_mqtt(5)
    assert not present(client, client_id, clean=False, SessionExpiryInterval=1)
    client.disconnect(SessionExpiryInterval=0xFFFFFFFF)
    client = dial_mqtt(5)
    assert present(client, client_id, clean=False)  # and without an interval, it ends with this one
    client.disconnect()
    client = dial_mqtt(5)
    assert not present(client, client_id, clean=False)
    client.write(bytes([0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]))
    assert client.expect(DISCONNECT).reason == 0x82  # there was none in CONNECT


def test_a_session_expires(dial_mqtt: Connect, connect_mqtt: Connect, connect: Callable[..., Client],
                           client_id: str) -> None:
    connect_mqtt(client_id, 5, SessionExpiryInterval=1).disconnect()
    client = connect()
    eventually(lambda: client.channel().gone(f"mqtt-session:{client_id}"))
    assert not present(dial_mqtt(5), client_id, clean=False)


@pytest.mark.parametrize("clean", [False, True])
@LEVELS
def test_a_client_that_connects_anew_takes_over(connect_mqtt: Connect, client_id: str, topic: str, level: int,
                                                clean: bool) -> None:
    old = connect_mqtt(client_id, level, **KEEP[level])
    old.subscribe((topic, 1))
    old.publish(topic, b"x", 1)
    old.expect(PUBACK)
    packet_id = old.message().packet_id
    options = {**KEEP[level], "clean": clean}
    new = connect_mqtt(client_id, level, **options)
    if level == 5:
        assert old.expect(DISCONNECT).reason == 0x8E
    with pytest.raises(Hangup):
        old.expect(DISCONNECT)
    if clean:
        new.nothing()
    else:
        found = new.message()
        assert (found.packet_id, found.duplicate) == (packet_id, True)


# Wills.


@LEVELS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_is_published_when_the_client_hangs_up(connect_mqtt: Connect, topic: str, level: int,
                                                      qos: int) -> None:
    watcher = connect_mqtt("", 4)
    watcher.subscribe((topic, 2))
    connect_mqtt(f"w{topic}", level, will=WillOf(topic, b"gone", qos)).drop()
    found = watcher.message()
    assert (found.payload, found.qos) == (b"gone", qos)


def test_no_will_after_disconnect_but_with_the_reason_for_it(connect_mqtt: Connect, topic: str) -> None:
    watcher = connect_mqtt("", 5)
    watcher.subscribe(topic)
    connect_mqtt("", 5, will=WillOf(topic, b"one")).disconnect()
    connect_mqtt("", 4, will=WillOf(topic, b"two")).disconnect()
    watcher.nothing()
    connect_mqtt("", 5, will=WillOf(topic, b"three")).disconnect(4)
    assert watcher.message().payload == b"three"


def test_a_will_has_properties_and_may_be_retained(connect_mqtt: Connect, topic: str) -> None:
    watcher = connect_mqtt("", 5)
    watcher.subscribe((topic, 1))
    will = WillOf(topic, b"gone", 1, True, {"ContentType": "text/plain", "UserProperty": [("a", "b")],
                                            "MessageExpiryInterval": 100, "WillDelayInterval": 0})
    connect_mqtt("", 5, will=will).drop()
    expected = {"ContentType": "text/plain", "UserProperty": [("a", "b")], "MessageExpiryInterval": 100}
    assert watcher.message().properties == expected
    late = connect_mqtt("", 5)
    late.subscribe((topic, 1))
    found = late.message()
    assert found.retain and found.payload == b"gone"
    assert found.properties.pop("MessageExpiryInterval") <= 100


def test_a_will_that_waits(connect_mqtt: Connect, client_id: str, topic: str) -> None:
    watcher = connect_mqtt("", 5)
    watcher.subscribe((topic, 1))
    keep = {"clean": False, "SessionExpiryInterval": 3600}
    late = WillOf(topic, b"at the end", 1, properties={"WillDelayInterval": 3600})
    connect_mqtt(client_id, 5, will=late, **keep).drop()
    soon = WillOf(topic, b"gone", 1, properties={"WillDelayInterval": 1})
    again = connect_mqtt(client_id, 5, will=soon, **keep)  # before the first was due
    again.ping()
    watcher.nothing()
    again.drop()
    assert watcher.message().payload == b"gone"
    connect_mqtt(client_id, 5, will=late, **keep).drop()
    watcher.nothing()
    connect_mqtt(client_id, 5)  # a clean start ends the session, and with it the delay
    assert watcher.message().payload == b"at the end"
    connect_mqtt("", 5, will=late).drop()  # a session that ends at once
    assert watcher.message().payload == b"at the end"


def test_a_will_at_take_over(connect_mqtt: Connect, client_id: str, topic: str) -> None:
    watcher = connect_mqtt("", 5)
    watcher.subscribe((topic, 1))
    keep = {"clean": False, "SessionExpiryInterval": 3600}
    connect_mqtt(client_id, 5, will=WillOf(topic, b"at once"), **keep)
    connect_mqtt(client_id, 5, will=WillOf(topic, b"waits", properties={"WillDelayInterval": 3600}), **keep)
    assert watcher.message().payload == b"at once"
    connect_mqtt(client_id, 5, **keep)
    watcher.nothing()


def test_a_will_that_nobody_may_publish(dial_mqtt: Connect) -> None:
    client = dial_mqtt(5)
    client.write(client.connect_packet("", will=WillOf("$SYS/x", b"")))
    assert client.expect(CONNACK).reason == 0x87


# The queue.

def test_a_session_is_a_queue_that_can_be_seen_and_deleted(connect_mqtt: Connect, connect: Callable[..., Client],
                                                           dial_mqtt: Connect, client_id: str, topic: str) -> None:
    client = connect_mqtt(client_id, 5, SessionExpiryInterval=3600)
    client.subscribe((topic, 1))
    client.disconnect()
    connect_mqtt("", 4).send_whole(topic, b"x", 1)
    queue = f"mqtt-session:{client_id}"
    channel = connect().channel()
    assert channel.count(queue) == 1
    client = dial_mqtt(5)
    assert present(client, client_id, clean=False, SessionExpiryInterval=3600)
    client.message()
    channel.call(Queue.Delete(queue=queue))
    assert client.expect(DISCONNECT).reason == 0x98
    assert not present(dial_mqtt(5), client_id, clean=False, SessionExpiryInterval=3600)
    channel.call(Queue.Delete(queue=queue))


def test_what_is_published_to_a_session_s_queue_is_delivered(connect_mqtt: Connect, connect: Callable[..., Client],
                                                             client_id: str) -> None:
    client = connect_mqtt(client_id, 4, clean=False)
    client.ping()
    connect().channel().publish("", f"mqtt-session:{client_id}", b"from afar", delivery_mode=2)
    found = client.message()
    assert (found.topic, found.payload, found.qos) == (f"mqtt-session:{client_id}", b"from afar", 1)


def test_a_queue_of_somebody_else_s(dial_mqtt: Connect, connect: Callable[..., Client], client_id: str) -> None:
    channel = connect().channel()
    channel.queue(f"mqtt-session:{client_id}", auto_delete=True)
    client = dial_mqtt(5)
    client.write(client.connect_packet(client_id, SessionExpiryInterval=10))
    assert client.expect(CONNACK).reason == 0x83
    channel.call(Queue.Delete(queue=f"mqtt-session:{client_id}"))
    connect_again = dial_mqtt(5)
    assert not present(connect_again, client_id)


def test_a_client_identifier_that_is_too_long(dial_mqtt: Connect) -> None:
    client = dial_mqtt(5)
    client.write(client.connect_packet("x" * 250))
    assert client.expect(CONNACK).reason == 0x85


def test_pubrel_waits_for_a_client(connect_mqtt: Connect, client_id: str, topic: str) -> None:
    """PUBREL comes again for what a client had received, and nothing else of it."""
    client = connect_mqtt(client_id, 4, clean=False)
    client.subscribe((topic, 2))
    connect_mqtt("", 4).send_whole(topic, b"x", 2)
    found = client.message()
    client.acknowledge(5, found.packet_id)
    client.expect(PUBREL)
    client.drop()
    client = connect_mqtt(client_id, 4, clean=False)
    assert client.expect(PUBREL).packet_id == found.packet_id
    client.acknowledge(7, found.packet_id)
    client.nothing()
