"""What a client must not send: each gets the reason code that MQTT 5 names, costs its own connection, and nothing else.

A case is the bytes that a client sends once it is connected, or instead of CONNECT, and the reason code of the
DISCONNECT or CONNACK that it gets in MQTT 5. A client of 3.1.1 is just hung up on, unless a return code is there for
it. Statements of the specifications stand beside the cases: those of MQTT 5, or of 3.1.1 where that is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from dragoman import testing
from tests.wire import Peer
from tests.wire_mqtt import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    PUBREC,
    PUBREL,
    MqttClient,
    packet,
    string,
    varint,
)

CONFIG = """
[limits]
message_size = "200 KiB"
[mqtt]
packet_max = "2 MiB"
receive_max = 5
topic_alias_max = 4
"""

MALFORMED, WRONG, TOO_LARGE = 0x81, 0x82, 0x95
ID = b"\x00\x01"
BAD_TEXTS = {
    "overlong": b"\xc0\x80", "surrogate": b"\xed\xa0\x80", "cut-off": b"a\xe2\x82", "NUL": b"a\x00b",
    "latin-1": b"\xe9", "beyond": b"\xf4\x90\x80\x80", "lone": b"\x80"}


class Case(NamedTuple):
    """A name for the test, what is sent, and the reason code. level: 5, 4, or 0 for both alike."""

    name: str
    data: bytes
    reason: int
    level: int = 0


def block(*properties: bytes) -> bytes:
    content = b"".join(properties)
    return varint(len(content)) + content


def publish(topic: bytes | str = "a", *rest: bytes, first: int = 0x30) -> bytes:
    return packet(first, string(topic), *rest)


def subscribe(topic_filter: str | bytes, options: int = 0, properties: bytes = b"") -> bytes:
    return packet(0x82, ID, properties, string(topic_filter), bytes([options]))


BAD_FILTERS = ["", "a/#/b", "a#", "#a", "a/b#", "a+/b", "+a", "a/+b/c", "##", "++", "a/#b"]
BAD_SHARES = ["$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/g#/a", "$share/g/a#", "$share/"]

EITHER = [
    # The fixed header (2.1).
    Case("type 0", packet(0x00), MALFORMED),
    Case("a length of five bytes", b"\x30\xff\xff\xff\xff\x01", MALFORMED),
    Case("a length of five bytes that is 0", b"\xc0\x80\x80\x80\x80\x00", MALFORMED),
    *(Case(f"type {kind} from a client", packet(kind << 4, ID, b"\x00"), WRONG) for kind in (2, 9, 11, 13)),
    *(Case(f"type {first >> 4} with flags {first & 15}", packet(first, ID, b""), MALFORMED)
      for first in (0x41, 0x48, 0x51, 0x60, 0x63, 0x72, 0x80, 0x83, 0xA0, 0xA6, 0xC1, 0xE2)),  # [2.1.3-1]
    # PUBLISH (3.3).
    Case("PUBLISH of QoS 3", publish("a", ID, first=0x36), MALFORMED),  # [3.3.1-4]
    Case("PUBLISH of QoS 0 with DUP", publish("a", first=0x38), MALFORMED),  # [3.3.1-2]
    Case("PUBLISH of nothing", packet(0x30), MALFORMED),
    Case("PUBLISH with half a length", packet(0x30, b"\x00"), MALFORMED),
    Case("PUBLISH with a topic cut off", packet(0x30, b"\x00\x05abc"), MALFORMED),
    Case("PUBLISH of QoS 1 without an identifier", publish("a", first=0x32), MALFORMED),
    Case("PUBLISH of QoS 2 with half an identifier", publish("a", b"\x00", first=0x34), MALFORMED),
    Case("PUBLISH with identifier 0", publish("a", b"\x00\x00", b"\x00", first=0x32), WRONG),  # [2.2.1-3]
    *(Case(f"PUBLISH to {topic}", publish(topic, b"\x00"), MALFORMED) for topic in ("a/+", "#", "a/#/b", "x+y")),
    *(Case(f"PUBLISH to a {name} text", publish(text, b"\x00"), MALFORMED) for name, text in BAD_TEXTS.items()),
    Case("PUBLISH that is too long", b"\x30" + varint(3 << 20) + b"\x00\x01a\x00", TOO_LARGE),
    Case("PUBLISH whose payload is too long", publish("a", b"\x00", b"x" * 205_000), TOO_LARGE),
    Case("PUBLISH whose payload is too long, in pieces", publish("a", b"\x00", b"x" * 2_000_000)[:100_000], TOO_LARGE),
    # Acknowledgements (3.4 to 3.7).
    *(Case(f"type {first >> 4} with {content!r}", packet(first, content), MALFORMED)
      for first in (0x40, 0x50, 0x62, 0x70) for content in (b"", b"\x00")),
    *(Case(f"type {first >> 4} with identifier 0", packet(first, b"\x00\x00"), WRONG)
      for first in (0x40, 0x50, 0x62, 0x70)),
    # SUBSCRIBE and UNSUBSCRIBE (3.8, 3.10).
    *(Case(f"type {first >> 4} of nothing", packet(first), MALFORMED) for first in (0x82, 0xA2)),
    # PINGREQ, DISCONNECT, a second CONNECT.
    Case("PINGREQ with content", packet(0xC0, b"\x00"), MALFORMED),
    Case("a second CONNECT", packet(0x10, string("MQTT"), b"\x05\x02\x00\x00\x00", string("x")), WRONG),  # [3.1.0-2]
    Case("a packet of a megabyte that is no PUBLISH", b"\x82" + varint((1 << 20) + 1), TOO_LARGE),
]

IN_311 = [
    Case("PUBLISH without a topic", publish(""), MALFORMED, 4),  # [MQTT-4.7.3-1]
    *(Case(f"type {first >> 4} that is too long", packet(first, ID, b"\x00"), MALFORMED, 4)
      for first in (0x40, 0x50, 0x62, 0x70)),
    Case("SUBSCRIBE of no filter", packet(0x82, ID), WRONG, 4),  # [MQTT-3.8.3-3]
    Case("UNSUBSCRIBE of no filter", packet(0xA2, ID), WRONG, 4),  # [MQTT-3.10.3-2]
    Case("SUBSCRIBE with identifier 0", packet(0x82, b"\x00\x00", string("a"), b"\x00"), WRONG, 4),
    *(Case(f"SUBSCRIBE with options {options:#x}", subscribe("a", options), MALFORMED, 4)
      for options in (3, 4, 8, 0x80)),  # [MQTT-3-8.3-4]
    *(Case(f"SUBSCRIBE to {text!r}", subscribe(text), MALFORMED, 4) for text in (*BAD_FILTERS, *BAD_SHARES)),
    *(Case(f"SUBSCRIBE to a {name} text", subscribe(text), MALFORMED, 4) for name, text in BAD_TEXTS.items()),
    Case("SUBSCRIBE without options", packet(0x82, ID, string("a")), MALFORMED, 4),
    Case("UNSUBSCRIBE with a filter cut off", packet(0xA2, ID, b"\x00\x05abc"), MALFORMED, 4),
    Case("DISCONNECT with content", packet(0xE0, b"\x00"), MALFORMED, 4),
    Case("AUTH", packet(0xF0), WRONG, 4),
]

NO = block()
IN_5 = [
    # Variable byte integers and properties (1.5.5, 2.2.2).
    Case("properties whose length is five bytes", publish("a", b"\xff\xff\xff\xff\x01"), MALFORMED, 5),
    Case("properties whose length is longer than it has to be", publish("a", b"\x80\x00"), MALFORMED, 5),  # [1.5.5-1]
    Case("properties without a length", publish("a"), MALFORMED, 5),
    Case("properties that are cut off", publish("a", b"\x05\x01"), MALFORMED, 5),
    Case("an unknown property", publish("a", block(b"\x7e\x00")), MALFORMED, 5),
    Case("an unknown property of two bytes", publish("a", block(b"\x81\x01\x00")), MALFORMED, 5),
    *(Case(f"property {code:#x} in PUBLISH", publish("a", block(bytes([code]) + value)), MALFORMED, 5)
      for code, value in ((0x11, b"\x00" * 4), (0x12, string("x")), (0x13, b"\x00\x01"), (0x15, string("x")),
                          (0x16, string("x")), (0x17, b"\x00"), (0x18, b"\x00" * 4), (0x19, b"\x00"),
                          (0x1A, string("x")), (0x1C, string("x")), (0x1F, string("x")), (0x21, ID), (0x22, ID),
                          (0x24, b"\x01"), (0x25, b"\x01"), (0x27, b"\x00\x00\x01\x00"), (0x28, b"\x01"),
                          (0x29, b"\x01"), (0x2A, b"\x01"))),
    *(Case(f"property {value[0]:#x} cut off", publish("a", block(value)), MALFORMED, 5)
      for value in (b"\x01", b"\x02\x00\x00", b"\x03\x00", b"\x03\x00\x05abc", b"\x08\x00\x01", b"\x09\x00\x02a",
                    b"\x0b", b"\x0b\x80", b"\x23\x00", b"\x26\x00\x01a", b"\x26\x00\x01a\x00\x02b", b"\x26")),
    *(Case(f"property {value[0]:#x} twice", publish("a", block(value, value)), WRONG, 5)
      for value in (b"\x01\x00", b"\x02\x00\x00\x00\x01", b"\x03" + string("x"), b"\x08" + string("x"),
                    b"\x09" + string("x"), b"\x23\x00\x01")),
    *(Case(f"a content type that is a {name} text", publish("a", block(b"\x03" + string(text))), MALFORMED, 5)
      for name, text in BAD_TEXTS.items()),
    *(Case(f"a user property that is a {name} text", publish("a", block(b"\x26\x00\x01a" + string(text))), MALFORMED,
           5) for name, text in BAD_TEXTS.items()),
    Case("payload format 2", publish("a", block(b"\x01\x02")), WRONG, 5),
    Case("subscription identifier of a client", publish("a", block(b"\x0b\x01")), WRONG, 5),  # [3.3.4-6]
    Case("response topic with a wildcard", publish("a", block(b"\x08" + string("a/+"))), MALFORMED, 5),  # [3.3.2-14]
    Case("response topic of nothing", publish("a", block(b"\x08" + string(""))), MALFORMED, 5),
    # Topics and aliases (3.3.2.3.4).
    Case("topic alias 0", publish("a", block(b"\x23\x00\x00")), 0x94, 5),  # [3.3.2-8]
    Case("topic alias above the maximum", publish("a", block(b"\x23\x00\x05")), 0x94, 5),  # [3.3.2-9]
    Case("topic alias that is not known", publish("", block(b"\x23\x00\x01")), WRONG, 5),
    Case("PUBLISH without topic and alias", publish("", NO), WRONG, 5),
    Case("payload that is no UTF-8, of QoS 0", publish("a", block(b"\x01\x01"), b"\xff"), 0x99, 5),
    Case("more than the receive maximum", b"".join(
        publish("hold", number.to_bytes(2, "big"), NO, first=0x34) for number in range(1, 7)), 0x93, 5),  # [3.3.4-7]
    # Acknowledgements.
    *(Case(f"type {first >> 4} with reason 0x55", packet(first, ID, b"\x55"), WRONG, 5)
      for first in (0x40, 0x50, 0x62, 0x70)),
    *(Case(f"type {first >> 4} with an expiry", packet(first, ID, b"\x00", block(b"\x02\x00\x00\x00\x01")), MALFORMED,
           5) for first in (0x40, 0x50, 0x62, 0x70)),
    *(Case(f"type {first >> 4} with two reason strings",
           packet(first, ID, b"\x00", block(b"\x1f\x00\x01a", b"\x1f\x00\x01b")), WRONG, 5)
      for first in (0x40, 0x50, 0x62, 0x70)),
    *(Case(f"type {first >> 4} that is too long", packet(first, ID, b"\x00", NO, b"\x00"), MALFORMED, 5)
      for first in (0x40, 0x50, 0x62, 0x70)),
    # SUBSCRIBE and UNSUBSCRIBE.
    Case("SUBSCRIBE of no filter", packet(0x82, ID, NO), WRONG, 5),  # [3.8.3-2]
    Case("UNSUBSCRIBE of no filter", packet(0xA2, ID, NO), WRONG, 5),  # [3.10.3-2]
    Case("SUBSCRIBE with identifier 0", packet(0x82, b"\x00\x00", NO, string("a"), b"\x00"), WRONG, 5),
    Case("UNSUBSCRIBE with identifier 0", packet(0xA2, b"\x00\x00", NO, string("a")), WRONG, 5),
    Case("SUBSCRIBE of QoS 3", subscribe("a", 3, NO), WRONG, 5),
    Case("SUBSCRIBE with retain handling 3", subscribe("a", 0x30, NO), WRONG, 5),
    *(Case(f"SUBSCRIBE with options {options:#x}", subscribe("a", options, NO), MALFORMED, 5)
      for options in (0x40, 0x80)),  # [3.8.3-5]
    Case("a shared subscription with No Local", subscribe("$share/g/a", 4, NO), WRONG, 5),  # [3.8.3-4]
    *(Case(f"SUBSCRIBE to {text!r}", subscribe(text, 0, NO), MALFORMED, 5) for text in (*BAD_FILTERS, *BAD_SHARES)),
    *(Case(f"UNSUBSCRIBE from {text!r}", packet(0xA2, ID, NO, string(text)), MALFORMED, 5) for text in BAD_FILTERS),
    *(Case(f"SUBSCRIBE to a {name} text", subscribe(text, 0, NO), MALFORMED, 5) for name, text in BAD_TEXTS.items()),
    Case("SUBSCRIBE with subscription identifier 0", subscribe("a", 0, block(b"\x0b\x00")), WRONG, 5),
    Case("SUBSCRIBE with two subscription identifiers", subscribe("a", 0, block(b"\x0b\x01\x0b\x02")), WRONG, 5),
    Case("SUBSCRIBE with a content type", subscribe("a", 0, block(b"\x03\x00\x01a")), MALFORMED, 5),
    Case("UNSUBSCRIBE with a subscription identifier", packet(0xA2, ID, block(b"\x0b\x01"), string("a")), MALFORMED, 5),
    Case("SUBSCRIBE without options", packet(0x82, ID, NO, string("a")), MALFORMED, 5),
    # DISCONNECT and AUTH.
    Case("DISCONNECT with a reason of the server's", packet(0xE0, b"\x8b"), WRONG, 5),
    Case("DISCONNECT with an expiry where CONNECT had none",
         packet(0xE0, b"\x00", block(b"\x11\x00\x00\x00\x05")), WRONG, 5),
    Case("DISCONNECT with two expiries", packet(0xE0, b"\x00", block(b"\x11\x00\x00\x00\x00" * 2)), WRONG, 5),
    Case("DISCONNECT that is too long", packet(0xE0, b"\x00", NO, b"\x00"), MALFORMED, 5),
    Case("AUTH with flags", packet(0xF1, b"\x18", NO), MALFORMED, 5),  # [3.15.1-1]
    Case("AUTH where CONNECT had no method", packet(0xF0, b"\x19", block(b"\x15" + string("SCRAM-SHA-256"))), WRONG,
         5),  # [4.12.0-7]
    Case("AUTH with reason 0x55", packet(0xF0, b"\x55", NO), WRONG, 5),
]


def connect(*rest: bytes, protocol: str = "MQTT", level: int = 5, flags: int = 2, keep_alive: bytes = b"\x00\x00",
            properties: bytes | None = None) -> bytes:
    middle = properties if properties is not None else NO if level == 5 else b""
    return packet(0x10, string(protocol), bytes([level, flags]), keep_alive, middle, *rest)


X = string("x")
EXPIRY = b"\x11\x00\x00\x00\x05"
BEFORE = [
    *(Case(f"CONNECT with flags {flags:#x}", connect(X, string("w"), string(""), string(""), flags=flags), MALFORMED)
      for flags in (0x03, 0x0A, 0x12, 0x22, 0x1E, 0x3A)),  # [3.1.2-3] [3.1.2-11] [3.1.2-12] [3.1.2-13]
    Case("CONNECT that ends behind its flags", packet(0x10, string("MQTT"), b"\x05\x02"), MALFORMED),
    Case("CONNECT without a client identifier", connect(), MALFORMED),
    Case("CONNECT with a client identifier cut off", connect(b"\x00\x05abc"), MALFORMED),
    *(Case(f"CONNECT with a client identifier that is a {name} text", connect(string(text)), MALFORMED)
      for name, text in BAD_TEXTS.items()),
    *(Case(f"CONNECT with a user name that is a {name} text", connect(X, string(text), flags=0x82), MALFORMED)
      for name, text in BAD_TEXTS.items()),
    Case("CONNECT without the user name it announces", connect(X, flags=0x82), MALFORMED),
    Case("CONNECT without the password it announces", connect(X, string("guest"), flags=0xC2), MALFORMED),
    Case("CONNECT with more than its fields", connect(X, b"\x00"), MALFORMED),
    Case("CONNECT with a will to a wildcard", connect(X, NO, string("a/#"), string(""), flags=6), MALFORMED),
    Case("CONNECT with a will to nowhere", connect(X, NO, string(""), string(""), flags=6), MALFORMED),
    Case("CONNECT with a will cut off", connect(X, NO, string("w"), b"\x00\x05a", flags=6), MALFORMED),
    *(Case(f"CONNECT with property {value[0]:#x} twice", connect(X, properties=block(value, value)), WRONG)
      for value in (EXPIRY, b"\x21" + ID, b"\x22" + ID, b"\x27\x00\x00\x01\x00", b"\x17\x01", b"\x19\x01",
                    b"\x15" + X, b"\x16" + X)),
    *(Case(f"CONNECT with {value.hex()}", connect(X, properties=block(value)), WRONG)
      for value in (b"\x21\x00\x00", b"\x27\x00\x00\x00\x00", b"\x17\x02", b"\x19\x02", b"\x16" + X)),
    *(Case(f"CONNECT with {value.hex()}", connect(X, properties=block(value)), MALFORMED)
      for value in (b"\x01\x00", b"\x12" + X, b"\x23" + ID, b"\x1f" + X, b"\x7d", b"\x11\x00")),
    *(Case(f"CONNECT with {value.hex()} in its will",
           connect(X, block(value), string("w"), string(""), flags=6), MALFORMED)
      for value in (EXPIRY, b"\x23" + ID, b"\x0b\x01", b"\x21" + ID)),
    Case("CONNECT with two will delays", connect(X, block(b"\x18\x00\x00\x00\x01" * 2), string("w"), string(""),
                                                 flags=6), WRONG),
    Case("CONNECT with a payload format 7 in its will", connect(X, block(b"\x01\x07"), string("w"), string(""),
                                                                flags=6), WRONG),
    Case("CONNECT with an unknown method", connect(X, properties=block(b"\x15" + string("KERBEROS"))), 0x8C),
    Case("CONNECT of a megabyte", b"\x10" + varint((1 << 20) + 1) + string("MQTT") + b"\x05", TOO_LARGE),
    Case("CONNECT with a wrong password", connect(X, string("guest"), string("no"), flags=0xC2), 0x86),
    Case("CONNECT with a password alone", connect(X, string("guest"), flags=0x42), 0x86),
    Case("CONNECT with neither", connect(X), 0x87),
    Case("CONNECT of an unknown version", connect(X, level=7), 0x84),
    Case("CONNECT with flags in its first byte", b"\x12" + connect(X)[1:], -1),
]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """A broker with small limits, which logs no traceback."""
    with testing.broker(CONFIG) as broker:
        yield Peer(broker.host, broker.port)
        assert "Traceback" not in broker.log()


@pytest.fixture
def bystander(connect_mqtt: Callable[..., MqttClient]) -> Iterator[MqttClient]:
    """A client that goes on as if nothing had happened."""
    client = connect_mqtt("bystander", 5)
    client.subscribe("bystander/#")
    client.publish("bystander/before", b"1")
    yield client
    client.publish("bystander/after", b"2")
    assert [found.topic for found in client.messages(2)] == ["bystander/before", "bystander/after"]
    client.nothing()


def named(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@named([*EITHER, *IN_5])
def test_in_a_session_of_mqtt_5(case: Case, connect_mqtt: Callable[..., MqttClient], bystander: MqttClient) -> None:
    client = connect_mqtt("offender", 5)
    client.write(case.data)
    found = client.rest()
    assert [(each.kind, each.reason) for each in found if each.kind != PUBREC] == [(DISCONNECT, case.reason)]
    assert found[-1].properties.get("ReasonString")


@named([*EITHER, *IN_311])
@pytest.mark.parametrize("level", [3, 4])
def test_in_a_session_of_mqtt_3(case: Case, level: int, connect_mqtt: Callable[..., MqttClient],
                                bystander: MqttClient) -> None:
    client = connect_mqtt("offender", level)
    client.write(case.data)
    assert client.rest() == []


@named(BEFORE)
def test_instead_of_connect(case: Case, dial_mqtt: Callable[..., MqttClient], bystander: MqttClient) -> None:
    client = dial_mqtt(5)
    client.write(case.data)
    answers = [] if case.reason < 0 else [(CONNACK, case.reason)]
    assert [(each.kind, each.reason) for each in client.rest() if each.flags == 0] == answers


@pytest.mark.parametrize("first", [*range(0x20, 0x100, 0x10)])
def test_another_packet_than_connect_comes_first(first: int, dial_mqtt: Callable[..., MqttClient],
                                                 bystander: MqttClient) -> None:
    client = dial_mqtt(4)
    client.write(packet(first, string("MQTT"), b"\x04\x02\x00\x00" + X))
    with pytest.raises(Exception, match="end of input|reset"):  # a header of AMQP, and that was it
        while True:
            client._fill()


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_payload_that_is_no_utf8_is_refused_alone(qos: int, size: int, connect_mqtt: Callable[..., MqttClient],
                                                    bystander: MqttClient) -> None:
    """3.3.2.3.2: with QoS, the acknowledgement can say so."""
    client = connect_mqtt("offender", 5)
    client.subscribe("utf8")
    whole = client.publish_packet("utf8", b"\xc3\xa9" * (size // 2), qos, packet_id=1, PayloadFormatIndicator=1)
    client.write(whole[:-1])
    client.write(b"\xc3")
    refused = client.expect(PUBACK if qos == 1 else PUBREC)
    assert (refused.packet_id, refused.reason) == (1, 0x99)
    client.write(whole)
    client.expect(PUBACK if qos == 1 else PUBREC)
    if qos == 2:
        client.acknowledge(PUBREL, 1)
    assert client.message().payload == b"\xc3\xa9" * (size // 2)
