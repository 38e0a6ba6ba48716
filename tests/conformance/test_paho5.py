"""paho-mqtt's client against the broker: what MQTT 5 has, and its elders have not."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes

from tests.conformance.mqtt_tools import Device, Mqtt, properties
from tests.conformance.support import until

Make = Callable[..., Device]


def payloads(found: list[MQTTMessage]) -> list[bytes]:
    return [each.payload for each in found]


def test_all_of_a_message_arrives(device: Make, topic: str) -> None:
    publisher, subscriber = device(), device()
    subscriber.subscribe(topic, 1)
    pairs = [("a", "1"), ("b", ""), ("a", "2"), ("", "\u00fc"), ("a", "1")]
    publisher.publish(topic, b"text", 1, PayloadFormatIndicator=1, MessageExpiryInterval=1000, ContentType="text/plain",
                      ResponseTopic="answers/here", CorrelationData=b"\x00\xff", UserProperty=pairs)
    got = subscriber.next().properties
    assert got.UserProperty == pairs
    assert (got.PayloadFormatIndicator, got.ContentType) == (1, "text/plain")
    assert (got.ResponseTopic, got.CorrelationData) == ("answers/here", b"\x00\xff")
    assert 990 <= got.MessageExpiryInterval <= 1000
    publisher.publish(topic, b"plain", 1)
    assert subscriber.next().properties.isEmpty()


def test_a_retained_message_keeps_its_properties(device: Make, topic: str) -> None:
    device().publish(topic, b"m", 1, retain=True, ContentType="x/y", UserProperty=("a", "b"))
    late = device()
    late.subscribe(topic)
    got = late.next()
    assert got.retain and got.properties.ContentType == "x/y" and got.properties.UserProperty == [("a", "b")]


def test_a_will_has_properties(device: Make, topic: str) -> None:
    watcher = device()
    watcher.subscribe(topic, 1)
    said = properties(PacketTypes.WILLMESSAGE, ContentType="x/y", UserProperty=("a", "b"), CorrelationData=b"c",
                      ResponseTopic="r")
    device(will={"topic": topic, "payload": b"m", "qos": 1, "properties": said}).vanish()
    got = watcher.next().properties
    assert (got.ContentType, got.UserProperty, got.CorrelationData, got.ResponseTopic) == (
        "x/y", [("a", "b")], b"c", "r")


def test_messages_that_expire(device: Make, topic: str) -> None:
    name = f"client-{uuid.uuid4().hex[:8]}"
    publisher, subscriber = device(), device(name, clean=False, expiry=3600)
    subscriber.subscribe(topic, 1)
    subscriber.close()
    publisher.publish(topic, b"short", 1, MessageExpiryInterval=1, retain=True)
    publisher.publish(topic, b"long", 1, MessageExpiryInterval=600)
    time.sleep(2.1)  # nothing tells when it has expired
    subscriber.connect()
    got = subscriber.next()
    assert got.payload == b"long" and 500 < got.properties.MessageExpiryInterval < 600
    assert not subscriber.all(publisher)
    late = device()
    late.subscribe(topic)
    assert not late.all()  # it was retained, too


def test_aliases_of_a_publisher(device: Make, topic: str) -> None:
    publisher, subscriber = device(), device()
    subscriber.subscribe(f"{topic}/#", 1)
    assert publisher.connack is not None and publisher.connack[2].TopicAliasMaximum >= 2
    publisher.publish(f"{topic}/a", b"1", 1, TopicAlias=1)
    publisher.publish(f"{topic}/b", b"2", 1, TopicAlias=2)
    publisher.publish("", b"3", 1, TopicAlias=1)
    publisher.publish("", b"4", 0, TopicAlias=2)
    publisher.publish(f"{topic}/c", b"5", 1, TopicAlias=1)
    publisher.publish("", b"6", 1, TopicAlias=1)
    found = [(got.topic.removeprefix(topic), got.payload) for got in subscriber.all(publisher)]
    assert found == [("/a", b"1"), ("/b", b"2"), ("/a", b"3"), ("/b", b"4"), ("/c", b"5"), ("/c", b"6")]


def test_an_alias_that_is_not_allowed(device: Make, topic: str) -> None:
    publisher = device()
    publisher.send(topic, b"m", 0, TopicAlias=65535)
    assert publisher.aborted().value == 0x94  # topic alias invalid


def test_aliases_for_a_subscriber(mqtt: Mqtt, device: Make, topic: str) -> None:
    publisher, subscriber = device(), device(TopicAliasMaximum=2)
    subscriber.subscribe(f"{topic}/#", 1)
    for number in range(20):
        publisher.publish(f"{topic}/{number % 4}", b"%d" % number, 1)
    found = [(got.topic.removeprefix(f"{topic}/"), got.payload) for got in (subscriber.next() for _ in range(20))]
    assert found == [(f"{number % 4}", b"%d" % number) for number in range(20)]
    assert subscriber.aliases_used or mqtt.peer  # Mosquitto 2.0 makes no use of them


def test_no_local(device: Make, topic: str) -> None:
    first, second = device(), device()
    first.subscribe(topic, 1, noLocal=True)
    first.publish(topic, b"mine", 1)
    second.publish(topic, b"other's", 1)
    assert payloads(first.all(second)) == [b"other's"]


def test_retain_as_published(device: Make, topic: str) -> None:
    publisher, subscriber = device(), device()
    subscriber.subscribe(topic, 1, retainAsPublished=True)
    publisher.publish(topic, b"kept", 1, retain=True)
    publisher.publish(topic, b"not", 1)
    assert [(got.payload, got.retain) for got in subscriber.all(publisher)] == [(b"kept", True), (b"not", False)]


def test_retain_handling(device: Make, topic: str) -> None:
    device().publish(topic, b"kept", 1, retain=True)
    for handling, first, again in ((0, 1, 1), (1, 1, 0), (2, 0, 0)):
        with device() as subscriber:
            subscriber.subscribe(topic, 1, retainHandling=handling)
            assert len(subscriber.all()) == first
            subscriber.subscribe(topic, 0, retainHandling=handling)
            assert len(subscriber.all()) == again


def test_subscription_identifiers(mqtt: Mqtt, device: Make, topic: str) -> None:
    publisher, subscriber = device(), device()
    subscriber.subscribe(f"{topic}/+", 1, identifier=1)
    subscriber.subscribe(f"{topic}/a", 1, identifier=268435455)
    subscriber.subscribe(f"{topic}/b/#", 1)
    publisher.publish(f"{topic}/a", b"m", 1)
    publisher.publish(f"{topic}/b/c", b"none", 1)
    publisher.publish(f"{topic}/c", b"one", 1)
    found = subscriber.all(publisher)
    assert payloads(found)[-2:] == [b"none", b"one"]
    identifiers = [getattr(got.properties, "SubscriptionIdentifier", []) for got in found]
    assert sorted(sum(identifiers[:-2], [])) == [1, 268435455]  # in one message, or in one for each subscription
    assert identifiers[-2:] == [[], [1]]
    subscriber.subscribe(f"{topic}/+", 1, identifier=7)
    publisher.publish(f"{topic}/c", b"changed", 1)
    assert subscriber.next().properties.SubscriptionIdentifier == [7]


def test_shared_subscriptions(device: Make, topic: str) -> None:
    publisher, alone = device(), device()
    members = [device() for _ in range(3)]
    for each in members:
        each.subscribe(f"$share/group/{topic}/#", 1)
    alone.subscribe(f"{topic}/#", 1)
    numbers = [b"%d" % number for number in range(60)]
    for number in numbers:
        publisher.publish(f"{topic}/x", number, 1)
    shares = [payloads(each.all(publisher)) for each in members]
    assert sorted(sum(shares, []), key=int) == numbers and all(shares)
    assert all(share == sorted(share, key=int) for share in shares)
    assert payloads(alone.all(publisher)) == numbers
    members[0].close()
    members[1].unsubscribe(f"$share/group/{topic}/#")
    for number in numbers:
        publisher.publish(f"{topic}/x", number, 1)
    assert payloads(members[2].all(publisher)) == numbers and not members[1].all(publisher)


def test_groups_are_separate_and_get_nothing_retained(mqtt: Mqtt, device: Make, topic: str) -> None:
    publisher, first, second = device(), device(), device()
    if not mqtt.peer:  # which sends it, although 3.8.4 says that it is not to
        publisher.publish(topic, b"kept", 1, retain=True)
    first.subscribe(f"$share/one/{topic}", 1)
    second.subscribe(f"$share/two/{topic}", 1)
    publisher.publish(topic, b"live", 1)
    assert payloads(first.all(publisher)) == payloads(second.all(publisher)) == [b"live"]


def test_what_a_member_has_not_acknowledged_is_for_the_others(mqtt: Mqtt, device: Make, topic: str) -> None:
    publisher, careful = device(), device()
    lost = device(manual_ack=True)
    for each in (lost, careful):
        each.subscribe(f"$share/group/{topic}", 1)
    for number in range(10):
        publisher.publish(topic, b"%d" % number, 1)
    until(lambda: lost.messages.qsize() + careful.messages.qsize() == 10, "all ten, to both of them")
    assert lost.messages.qsize()
    lost.vanish()
    if not mqtt.peer:  # which forgets them with the session (a server may: 4.8.2)
        assert sorted(payloads(careful.all(publisher)), key=int) == [b"%d" % number for number in range(10)]


def test_a_receiver_says_how_much_it_takes(mqtt: Mqtt, device: Make, topic: str) -> None:
    publisher, subscriber = device(), device(ReceiveMaximum=2, manual_ack=True)
    subscriber.subscribe(topic, 1)
    for number in range(6):
        publisher.publish(topic, b"%d" % number, 1)
    unsettled = [subscriber.next(), subscriber.next()]
    for _ in range(4):
        subscriber.unsubscribe("nothing")  # what was on its way has come
        assert subscriber.messages.empty() or mqtt.peer  # Mosquitto 2.0.11 counts an acknowledgement twice
        subscriber.ack(unsettled.pop(0))
        unsettled.append(subscriber.next())
    assert payloads(unsettled) == [b"4", b"5"]


def test_a_receiver_says_how_large_a_packet_may_be(device: Make, topic: str) -> None:
    publisher, subscriber = device(), device(MaximumPacketSize=200)
    subscriber.subscribe(topic, 1)
    for size in (10, 1000, 20):
        publisher.publish(topic, b"x" * size, 1)
    assert [len(each) for each in payloads(subscriber.all(publisher))] == [10, 20]


def test_request_and_response(device: Make, topic: str) -> None:
    requester, service = device(RequestResponseInformation=1), device()
    service.subscribe(f"{topic}/service", 1)
    requester.subscribe(f"{topic}/answers", 1)
    requester.publish(f"{topic}/service", b"question", 1, ResponseTopic=f"{topic}/answers", CorrelationData=b"\x01")
    asked = service.next()
    service.publish(asked.properties.ResponseTopic, b"answer", 1, CorrelationData=asked.properties.CorrelationData)
    got = requester.next()
    assert (got.payload, got.properties.CorrelationData) == (b"answer", b"\x01")


def test_reason_codes(mqtt: Mqtt, device: Make, topic: str) -> None:
    client = device()
    assert client.publish(topic, b"m", 1) == 0x10  # no matching subscribers
    for qos in range(3):
        assert client.subscribe(topic, qos) == qos
    assert client.publish(topic, b"m", 1) == 0
    assert client.unsubscribe(topic) == [0]
    assert client.unsubscribe(topic) == [0x11]  # no subscription existed
    if not mqtt.peer:  # which takes them, and gives them to nobody
        assert client.publish("$SYS/broker/uptime", b"m", 1) == 0x87  # not authorised
        assert client.publish("$other", b"m", 1) == 0x87

def test_what_the_broker_says_of_itself(device: Make) -> None:
    client = device()
    assert client.connack is not None
    said = client.connack[2]
    for name in ("RetainAvailable", "WildcardSubscriptionAvailable", "SubscriptionIdentifierAvailable",
                 "SharedSubscriptionAvailable", "MaximumQoS"):
        assert getattr(said, name, 1) == 1, name  # absent means that it is (3.2.2.3); QoS 2 is, too


def test_the_greatest_session_expiry_is_for_ever(device: Make) -> None:
    name = f"client-{uuid.uuid4().hex[:8]}"
    client = device(name, expiry=0xFFFFFFFF)
    client.close()
    client.clean = False
    client.connect()
    assert client.connack is not None and client.connack[0].session_present
    client.close(SessionExpiryInterval=0)
