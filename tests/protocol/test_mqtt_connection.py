"""MQTT's connections: CONNECT and what it asks for, keep alive, sizes, the end. Bad input: test_mqtt_bad_input.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire import Hangup
from tests.wire_mqtt import CONNACK, DISCONNECT, MqttClient, string

Connect = Callable[..., MqttClient]
LEVELS = pytest.mark.parametrize("level", [3, 4, 5])


@LEVELS
def test_a_message_goes_from_client_to_client(connect_mqtt: Connect, level: int) -> None:
    reader = connect_mqtt(f"reader{level}", level)
    assert reader.subscribe(f"way/{level}/+") == [0]
    connect_mqtt(f"writer{level}", level).send_whole(f"way/{level}/x", b"hello", 1)
    found = reader.message()
    assert (found.topic, found.payload, found.qos, found.retain, found.duplicate) == (f"way/{level}/x", b"hello", 0,
                                                                                     False, False)
    reader.disconnect()


@LEVELS
def test_packets_may_come_byte_by_byte_and_all_at_once(dial_mqtt: Connect, level: int) -> None:
    client = dial_mqtt(level)
    for byte in client.connect_packet("bytes"):
        client.write(bytes([byte]))
    assert client.expect(CONNACK).reason == 0
    client.subscribe("bytes/#")
    packets = [client.publish_packet("bytes/a", bytes([number]) * number * number) for number in range(20)]
    client.write(b"".join(packets))
    for packet in packets:
        for at in range(0, len(packet), 7):
            client.write(packet[at:at + 7])
    assert [len(found.payload) for found in client.messages(40)] == [number * number for number in range(20)] * 2


@pytest.mark.parametrize("size", [65535, 65536, 65537, 300_000, 3_000_000])
@pytest.mark.parametrize("alias", [0, 3])
def test_a_large_payload_is_the_same_on_the_other_side(connect_mqtt: Connect, size: int, alias: int) -> None:
    client = connect_mqtt(f"large{size}-{alias}", 5)
    client.subscribe(f"large/{size}/{alias}")
    payload = bytes(range(251)) * (size // 251 + 1)
    more = {"TopicAlias": alias} if alias else {}
    packet = client.publish_packet(f"large/{size}/{alias}", payload[:size], ContentType="x" * 300, **more)
    client.write(packet[:100])  # within its properties
    client.write(packet[100:])
    found = client.message()
    assert found.payload == payload[:size]
    assert found.properties == {"ContentType": "x" * 300}


def test_connack_tells_what_the_client_could_not_know(dial_mqtt: Connect) -> None:
    found = dial_mqtt(5).connect("", RequestResponseInformation=1).properties
    assert found.pop("AssignedClientIdentifier")
    assert found.pop("ResponseInformation").startswith("response/dragoman-")
    assert found == {"ReceiveMaximum": 1000, "TopicAliasMaximum": 64}


def test_two_clients_without_an_identifier_are_two(dial_mqtt: Connect) -> None:
    names = {dial_mqtt(5).connect().properties["AssignedClientIdentifier"] for _ in range(3)}
    assert len(names) == 3
    assert dial_mqtt(4).connect().reason == 0


def test_an_empty_identifier_needs_a_clean_session(dial_mqtt: Connect) -> None:
    client = dial_mqtt(4)
    client.write(client.connect_packet("", clean=False))
    assert client.expect(CONNACK).reason == 2
    with pytest.raises(Hangup):
        client.read()


@pytest.mark.parametrize(("level", "code"), [(3, 4), (4, 4), (5, 0x86)])
def test_a_wrong_password(dial_mqtt: Connect, level: int, code: int) -> None:
    client = dial_mqtt(level)
    client.write(client.connect_packet("x", password="wrong"))
    found = client.rest()
    assert [each.reason for each in found] == [code]
    assert not found[0].properties  # which part was wrong is for the log


@pytest.mark.parametrize(("level", "code"), [(3, 5), (4, 5), (5, 0x87)])
def test_no_user_name_where_one_is_needed(dial_mqtt: Connect, level: int, code: int) -> None:
    client = dial_mqtt(level)
    client.write(client.connect_packet("x", user=None, password=None))
    assert [each.reason for each in client.rest()] == [code]


def test_a_user_name_may_begin_with_a_virtual_host(connect_mqtt: Connect) -> None:
    connect_mqtt("x", user="/:guest").ping()


@pytest.mark.parametrize(("protocol", "level", "answer"), [
    ("MQTT", 3, [1]), ("MQTT", 6, [0x84]), ("MQTT", 255, [0x84]), ("MQIsdp", 4, [1]), ("MQTX", 4, [1]), ("", 4, [1])])
def test_other_protocols_and_levels(dial_mqtt: Connect, protocol: str, level: int, answer: list[int]) -> None:
    client = dial_mqtt(5 if level > 5 else 4)
    content = string(protocol) + bytes([level, 2, 0, 0]) + string("x")
    client.write(bytes([0x10, len(content)]) + content)
    assert [each.reason for each in client.rest()] == answer


def test_keep_alive_is_waited_for_one_and_a_half_times(connect_mqtt: Connect) -> None:
    client = connect_mqtt("silent", 5, keep_alive=1)
    assert [(each.kind, each.reason) for each in client.rest()] == [(DISCONNECT, 0x8D)]


def test_the_same_identifier_takes_over(connect_mqtt: Connect) -> None:
    first, second = (connect_mqtt("same", 5) for _ in range(2))
    assert [(each.kind, each.reason) for each in first.rest()] == [(DISCONNECT, 0x8E)]
    second.ping()
