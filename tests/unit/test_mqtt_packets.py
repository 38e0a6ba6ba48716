"""PUBLISH as the server writes it, read by the general reader of packets; and the aliases that it uses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.message import MQTT, Message, address_of
from protocols.mqtt import codec
from protocols.mqtt.codec import write_properties
from protocols.mqtt.content import identity, make_native
from protocols.mqtt.frames import PACKETS, V5, V311, read, read_length
from protocols.mqtt.packets import Aliases, prepared, seconds_left

NOW = 1_000_000
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PROPERTIES = st.fixed_dictionaries({}, optional={
    codec.PAYLOAD_FORMAT: st.integers(0, 1), codec.CONTENT_TYPE: TEXTS, codec.RESPONSE_TOPIC: TEXTS,
    codec.CORRELATION_DATA: st.binary(max_size=20), codec.MESSAGE_EXPIRY: st.integers(0, 1 << 31),
    codec.USER_PROPERTY: st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)})


def message(topic: str, properties: dict[int, Any], payload: bytes) -> Message:
    native, body = make_native(0x02, identity(b"client", b"user"), topic.encode(), write_properties(properties),
                               payload)
    expiry = NOW + 1000 * properties[codec.MESSAGE_EXPIRY] if codec.MESSAGE_EXPIRY in properties else 0
    return Message(address_of("amq.topic", "x"), MQTT, native, body, len(payload), True, 0, expiry, NOW)


def fields(data: bytes, level: int) -> dict[str, Any]:
    size, begin = read_length(data, 1, len(data))
    assert begin + size == len(data)
    return read(PACKETS[codec.PUBLISH], level, data[0] & 15, data, begin, len(data))


@given(topic=TEXTS.filter(bool), properties=PROPERTIES, payload=st.sampled_from([b"", b"x", b"y" * 70_000]),
       qos=st.integers(0, 2), identifiers=st.lists(st.integers(1, 300), max_size=2), alias=st.integers(0, 9),
       late=st.integers(0, 5000))
def test_what_is_written_is_what_was_published(topic: str, properties: dict[int, Any], payload: bytes, qos: int,
                                               identifiers: list[int], alias: int, late: int) -> None:
    given_message = message(topic, properties, payload)
    ready = prepared(given_message)
    assert prepared(given_message) is ready
    packet_id = b"\x00\x07" if qos else b""
    whole = b"".join(given_message.body or [])
    expected: dict[str, Any] = {"topic": topic, "payload": payload, **({"packet_id": 7} if qos else {})}
    for level, tail in ((V311, ready.payload), (V5, ready.tail)):
        if level == V5 and ready.expires:
            continue
        data = ready.head(0x30 | qos << 1, level) + (packet_id + tail if qos else b"") + whole
        assert fields(data, level) == {**expected, **({"properties": properties} if level == V5 else {})}
    for _ in range(2):  # the second time it is remembered
        head, tail = ready.special(0x30 | qos << 1, seconds_left(given_message, NOW + late),
                                   b"".join([b"\x0b" + codec.varint(each) for each in identifiers]), ready.topic, alias)
        wanted = dict(properties)
        if codec.MESSAGE_EXPIRY in properties:
            wanted[codec.MESSAGE_EXPIRY] = max(0, 1000 * properties[codec.MESSAGE_EXPIRY] - late + 999) // 1000
        if identifiers:
            wanted[codec.SUBSCRIPTION_IDENTIFIER] = identifiers
        if alias:
            wanted[codec.TOPIC_ALIAS] = alias
        assert fields(head + packet_id + tail + whole, V5) == {**expected, "properties": wanted}


def test_a_message_of_a_damaged_store_is_written_without_its_properties() -> None:
    native, _ = make_native(0, identity(b"", b""), b"topic", b"\xff\xff\xff\xff\x7f", b"")
    broken = Message(address_of("amq.topic", "topic"), MQTT, native, None, 0, False, 0, 0, NOW)
    assert fields(prepared(broken).head(0x30, V5), V5) == {"topic": "topic", "properties": {}, "payload": b""}


@pytest.mark.parametrize("most", [1, 3])
@given(topics=st.lists(st.integers(0, 5), max_size=200))
def test_a_client_that_follows_the_aliases_knows_the_topics(most: int, topics: list[int]) -> None:
    aliases = Aliases(most)
    known: dict[int, bytes] = {}
    for number in topics:
        topic = b"\x00\x01%d" % number
        written, alias = aliases.use(topic)
        assert 0 <= alias <= most
        if written == b"\x00\x00":
            assert known[alias] == topic
        else:
            assert written == topic
            if alias:
                known[alias] = topic
