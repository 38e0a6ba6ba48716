"""MQTT: SUBSCRIBE and UNSUBSCRIBE, subscription options and identifiers, retained messages, shared subscriptions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.commands import Queue

from tests.wire import Client
from tests.wire_mqtt import DISCONNECT, PUBACK, PUBCOMP, PUBREC, PUBREL, SUBACK, MqttClient, packet, string

Connect = Callable[..., MqttClient]
LEVELS = pytest.mark.parametrize("level", [3, 4, 5])
BOTH = pytest.mark.parametrize("level", [4, 5])
KEEP = {4: {"clean": False}, 5: {"clean": False, "SessionExpiryInterval": 3600}}
NO_LOCAL, AS_PUBLISHED, IF_NEW, NOT_RETAINED = 4, 8, 0x10, 0x20


@LEVELS
def test_filters(connect_mqtt: Connect, topic: str, level: int) -> None:
    client = connect_mqtt(f"f{level}{topic}", level)
    for wanted, fits, others in (
            ("a/b", ["a/b"], ["a", "a/b/c", "a/c", "/a/b", "a/b/"]),
            ("a/+", ["a/b", "a/", "a/*", "a/x.y"], ["a", "a/b/c"]),
            ("a/#", ["a", "a/b", "a/b/c", "a//"], ["b/a", "aa"]),
            ("+/+", ["a/b", "/"], ["a", "a/b/c"]),
            ("a.b/%2E", ["a.b/%2E"], ["a/b/%2E", "a.b/."]),
            ("a/*/c", ["a/*/c"], ["a/b/c"])):
        assert client.subscribe(f"{topic}/{wanted}") == [0]
        for name in [*others, *fits]:
            client.publish(f"{topic}/{name}")
        found = [got.topic.removeprefix(f"{topic}/") for got in client.messages(len(fits))]
        assert (wanted, found) == (wanted, [topic if name == "" else name for name in fits])
        client.nothing()
        client.unsubscribe(f"{topic}/{wanted}")


def test_topics_that_begin_with_a_dollar_need_filters_that_do(connect_mqtt: Connect) -> None:
    client = connect_mqtt("", 5)
    client.subscribe(("#", NOT_RETAINED), ("+/broker/#", NOT_RETAINED))
    client.subscribe("$SYS/broker/version")
    assert client.message().topic == "$SYS/broker/version"
    client.unsubscribe("#", "+/broker/#")


def test_reason_codes(connect_mqtt: Connect, topic: str) -> None:
    client = connect_mqtt("", 5)
    assert client.subscribe((f"{topic}/0", 0), (f"{topic}/1", 1), (f"{topic}/2", 2), "x" * 300) == [0, 1, 2, 0x8F]
    assert client.unsubscribe(f"{topic}/1", "never", f"{topic}/1") == [0, 0x11, 0x11]
    old = connect_mqtt("", 4)
    assert old.subscribe((topic, 1), "x" * 300) == [1, 0x80]
    old.unsubscribe("never")


@BOTH
def test_to_subscribe_again_replaces(connect_mqtt: Connect, topic: str, level: int) -> None:
    client = connect_mqtt("", level)
    for qos in (0, 2, 1):
        assert client.subscribe((topic, qos)) == [qos]
        client.send_whole(topic, b"x", 2)
        found = client.message()
        assert found.qos == qos
        if qos == 1:
            client.acknowledge(PUBACK, found.packet_id)
        client.nothing()


@BOTH
def test_overlapping_subscriptions_are_one_delivery(connect_mqtt: Connect, topic: str, level: int) -> None:
    client = connect_mqtt("", level)
    client.subscribe((f"{topic}/#", 0), (f"{topic}/+", 1), (f"{topic}/a", 0))
    client.send_whole(f"{topic}/a", b"x", 2)
    assert client.message().qos == 1
    client.nothing()


def test_all_identifiers_are_told(connect_mqtt: Connect, topic: str) -> None:
    client = connect_mqtt("", 5)
    client.subscribe(f"{topic}/#", SubscriptionIdentifier=300)
    client.subscribe(f"{topic}/+", SubscriptionIdentifier=2)
    client.subscribe(f"{topic}/a")
    client.send_whole(f"{topic}/a", b"x", ContentType="y")
    found = client.message().properties
    assert sorted(found.pop("SubscriptionIdentifier")) == [2, 300] and found == {"ContentType": "y"}
    client.subscribe(f"{topic}/#")
    client.send_whole(f"{topic}/b", b"x")
    assert client.message().properties == {"SubscriptionIdentifier": [2]}


@pytest.mark.parametrize("options", [NO_LOCAL, 0])
def test_no_local(connect_mqtt: Connect, topic: str, options: int) -> None:
    client, other = connect_mqtt("", 5), connect_mqtt("", 5)
    client.subscribe((f"{topic}/a", options), (f"{topic}/b", NO_LOCAL), f"{topic}/b/#", SubscriptionIdentifier=7)
    for each in (client, other):
        each.send_whole(f"{topic}/a", b"mine" if each is client else b"other")
    assert [got.payload for got in client.messages(1 if options else 2)] == [b"mine", b"other"][1 if options else 0:]
    client.send_whole(f"{topic}/b")
    assert client.message().properties == {"SubscriptionIdentifier": [7]}
    client.nothing()


def test_no_local_cannot_be_shared(connect_mqtt: Connect) -> None:
    client = connect_mqtt("", 5)
    client.write(packet(0x82, b"\0\1\0", string("$share/g/a"), bytes([NO_LOCAL])))
    assert client.expect(DISCONNECT).reason == 0x82


def test_retain_as_published(connect_mqtt: Connect, topic: str) -> None:
    client = connect_mqtt("", 5)
    client.subscribe((f"{topic}/a", AS_PUBLISHED), f"{topic}/b")
    for name in "ab":
        client.send_whole(f"{topic}/{name}", b"x", retain=True)
        client.send_whole(f"{topic}/{name}", b"x")
    assert [got.retain for got in client.messages(4)] == [True, False, False, False]


def test_retain_handling(connect_mqtt: Connect, topic: str) -> None:
    connect_mqtt("", 5).send_whole(topic, b"kept", 1, retain=True)
    client = connect_mqtt("", 5)
    client.subscribe((topic, NOT_RETAINED))
    client.nothing()
    for _ in range(2):
        client.subscribe((topic, 1), SubscriptionIdentifier=3)
        found = client.message()
        assert (found.payload, found.qos, found.retain) == (b"kept", 1, True)
        assert found.properties == {"SubscriptionIdentifier": [3]}
        client.acknowledge(PUBACK, found.packet_id)
    client.subscribe((topic, IF_NEW))
    client.nothing()
    client.unsubscribe(topic)
    client.subscribe((topic, IF_NEW))
    assert client.message().retain


def test_retained_messages_come_again_as_such(connect_mqtt: Connect, client_id: str, topic: str) -> None:
    connect_mqtt("", 5).send_whole(topic, b"kept", 1, retain=True)
    client = connect_mqtt(client_id, 5, **KEEP[5])
    client.subscribe((f"{topic}/#", 1))
    assert client.message().retain
    client.drop()
    found = connect_mqtt(client_id, 5, **KEEP[5]).message()
    assert (found.payload, found.retain, found.duplicate) == (b"kept", True, True)


# Shared subscriptions.

@LEVELS
def test_members_share(connect_mqtt: Connect, topic: str, level: int) -> None:
    members = [connect_mqtt(f"m{level}{number}{topic}", level) for number in range(3)]
    for member in members:
        assert member.subscribe((f"$share/g/{topic}/+", 1)) == [1]
    alone = connect_mqtt("", 4)
    alone.subscribe((f"$share/other/{topic}/#", 0), f"{topic}/a")
    writer = connect_mqtt("", 4)
    for number in range(9):
        writer.send_whole(f"{topic}/a", b"%d" % number, 1)
    found = []
    for member in members:
        got = member.messages(3)
        found += [each.payload for each in got]
        for each in got:
            member.acknowledge(PUBACK, each.packet_id)
        member.nothing()
    assert sorted(found) == [b"%d" % number for number in range(9)]
    assert len(alone.messages(18)) == 18  # a subscription of its own is not shared
    alone.nothing()


@BOTH
def test_what_a_member_leaves_is_for_the_others(connect_mqtt: Connect, client_id: str, topic: str, level: int) -> None:
    """QoS 1 goes to another member at once, QoS 2 stays (4.8.2)."""
    leaver = connect_mqtt(client_id, level, **KEEP[level])
    leaver.subscribe((f"$share/g/{topic}", 2))
    writer = connect_mqtt("", 4)
    writer.send_whole(topic, b"one", 1)
    writer.send_whole(topic, b"two", 2)
    one, two = leaver.messages(2)
    other = connect_mqtt("", level)
    other.subscribe((f"$share/g/{topic}", 2))
    leaver.drop()
    found = other.message()
    assert (found.payload, found.duplicate) == (b"one", True)
    other.acknowledge(PUBACK, found.packet_id)
    other.nothing()
    leaver = connect_mqtt(client_id, level, **KEEP[level])
    again = leaver.message()
    assert (again.payload, again.packet_id, again.duplicate, again.qos) == (b"two", two.packet_id, True, 2)
    leaver.acknowledge(PUBREC, again.packet_id)
    leaver.expect(PUBREL)
    leaver.acknowledge(PUBCOMP, again.packet_id)
    leaver.nothing()
    assert one.packet_id != two.packet_id


def test_what_a_member_refuses_is_for_nobody(connect_mqtt: Connect, topic: str) -> None:
    members = [connect_mqtt("", 5), connect_mqtt("", 5)]
    members[0].subscribe((f"$share/g/{topic}", 2))
    connect_mqtt("", 4).send_whole(topic, b"one", 1)
    connect_mqtt("", 4).send_whole(topic, b"two", 2)
    one, two = members[0].messages(2)
    members[1].subscribe((f"$share/g/{topic}", 2))
    members[0].acknowledge(PUBACK, one.packet_id, 0x80)
    members[0].acknowledge(PUBREC, two.packet_id, 0x80)
    members[0].ping()
    members[0].drop()
    members[1].nothing()


def test_a_group_waits_for_its_members(connect_mqtt: Connect, connect: Callable[..., Client], client_id: str,
                                       topic: str) -> None:
    member = connect_mqtt(client_id, 5, **KEEP[5])
    member.subscribe((f"$share/g/{topic}", 1), SubscriptionIdentifier=5)
    member.disconnect()
    writer = connect_mqtt("", 4)
    writer.send_whole(topic, b"lost", 0)
    writer.send_whole(topic, b"x", 1)
    queue = f"mqtt-share:g:{topic}"
    channel = connect().channel()
    assert channel.count(queue) == 1
    member = connect_mqtt(client_id, 5, **KEEP[5])
    found = member.message()
    assert (found.payload, found.properties) == (b"x", {"SubscriptionIdentifier": [5]})
    assert member.unsubscribe(f"$share/g/{topic}", f"$share/g/{topic}") == [0, 0x11]
    assert channel.gone(queue)


def test_a_group_s_queue_that_is_deleted(connect_mqtt: Connect, connect: Callable[..., Client], topic: str) -> None:
    member = connect_mqtt("", 5)
    member.subscribe((f"$share/g/{topic}", 1))
    connect().channel().call(Queue.Delete(queue=f"mqtt-share:g:{topic}"))
    assert member.unsubscribe(f"$share/g/{topic}") == [0x11]
    assert member.subscribe((f"$share/g/{topic}", 1)) == [1]
    member.send_whole(topic, b"x", 1)
    assert member.message().payload == b"x"


@BOTH
def test_suback_comes_before_what_is_retained(connect_mqtt: Connect, client_id: str, topic: str, level: int) -> None:
    connect_mqtt("", 5).send_whole(topic, b"kept", 1, retain=True)
    client = connect_mqtt(client_id, level, **KEEP[level])
    client.write(packet(0x82, b"\0\1", b"\0" if level == 5 else b"", string(topic), b"\1"))
    assert client.read().kind == SUBACK
    assert client.read().retain
