"""The translation between MQTT and AMQP loses nothing: there and back is where one was (TRANSLATION.md)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_translation import (
    ADDRESS,
    assert_same,
    by_name,
    fields010,
    like,
    messages,
    messages010,
    names,
    special,
    texts,
    views,
)

from broker.message import AMQP010, AMQP091, AMQP10, CONVERTERS, MQTT, Message
from broker.view import View
from protocols.amqp010 import content as content010
from protocols.amqp091 import convert as convert091
from protocols.amqp091 import properties as properties091
from protocols.mqtt import content
from protocols.mqtt import convert as _convert  # noqa: F401 - registers itself
from protocols.mqtt.codec import PUBLISH, read_properties
from protocols.mqtt.properties import Properties, join, split

strings = texts.map(lambda text: text.replace("\0", "").encode())
user_names = st.one_of(strings, special.map(str.encode), names.map(lambda name: name.replace("\0", "").encode()),
                       st.sampled_from([b"x-priority", b"x-opt-ttl", b"x-opt-body-types", b"x-opt-long-properties",
                                        b"x-opt-mqtt-user-properties", b"x-delay", b"x-mqtt-retain",
                                        b"x-opt-mqtt-payload-format", b"x-opt-mqtt-response-topic",
                                        b"x-opt-type-x-priority", b"x-opt-type-x-message-id"]))
user_values = st.one_of(strings, st.sampled_from([
    b"5", b"-1", b"true", b"null", b"1.5", b"long", b"int", b"binary", b"string", b"json", b"amqp", b"map", b"text",
    b"data", b"none", b"value", b'{"a":"b"}', b'["a","{}"]', b"[1,2]", b"urn:uuid:00000000-0000-0000-0000-000000000000",
    b"v" * 1000, b"line\nline", b'[{"queue":"q","reason":"rejected"}]']))
pairs = st.lists(st.tuples(user_names, user_values), max_size=5).map(
    lambda each: [part for pair in each for part in pair])
payloads = st.one_of(st.binary(max_size=30), strings, st.sampled_from(
    [b"[1,2]", b'{"a":1}', b'{"a": 1}', b"null", b"5", b"\xa1\1a", b"\x40", b"\x54\5", b"\xa0\1a"]))
types = st.sampled_from([b"text/plain", b"application/json", b"application/vnd.amqp", b"amqp/map", b"\xc3\xbc",
                         b"text/plain;charset=latin1", b"application/java-object-stream", b"", b"a\nb"]) | strings
topics = st.one_of(strings, st.sampled_from([b"a/b", b"$queue/q", b"$queue/a/b", b"$queue/a%2Fb", b"$queue/%25",
                                             b"$exchange/e/k", b"$exchange/e", b"$exchange//k", b"$exchange/a%2Fb/k",
                                             b"/", b"a.b", b"$queue/", b"$queue/amq.topic", b"$exchange/amq.topic/a",
                                             b"$queue//queues/q"]))


@st.composite
def messages_mqtt(draw: st.DrawFn) -> Message:
    """All that MQTT can say."""
    def maybe(strategy: st.SearchStrategy[Any], default: Any = None) -> Any:
        return draw(strategy) if draw(st.booleans()) else default

    p = Properties()
    p.payload_format, p.expiry = draw(st.integers(-1, 1)), maybe(st.integers(0, 2**32 - 1) | st.just(60), -1)
    p.content_type, p.response_topic = maybe(types), maybe(topics)
    p.correlation = maybe(st.one_of(st.binary(max_size=9), strings, st.uuids().map(lambda u: f"urn:uuid:{u}".encode())))
    p.pairs = draw(pairs)
    return published(p, draw(payloads), draw(st.integers(0, 5)), draw(st.sampled_from([b"device", b"", b"\xc3\xbc"])),
                     draw(st.sampled_from([b"", b"guest"])))


def published(p: Properties, payload: bytes = b"", flags: int = 0, client_id: bytes = b"device",
              user: bytes = b"guest") -> Message:
    """As a client publishes it to a/b. A message with a user has a client id, too."""
    native, body = content.make_native(flags, content.identity(client_id, user if client_id else b""), b"a/b", join(p),
                                       payload)
    return Message(ADDRESS, MQTT, native, body, len(payload), flags & 6 != 0, 4, 0, 1_700_000_000_000)


def with_pairs(*found: bytes) -> Message:
    p = Properties()
    p.pairs = list(found)
    return published(p)


@pytest.mark.parametrize("way", [(AMQP10,), (AMQP091,), (AMQP010,), (AMQP10, AMQP091), (AMQP091, AMQP010),
                                 (AMQP010, AMQP10)])
@settings(max_examples=100)
@given(messages_mqtt())
@example(with_pairs(b"a", b"1", b"a", b"2"))
@example(with_pairs(b"JMSXGroupID", b"1", b"a", b"2"))
def test_mqtt_to_others_and_back(way: tuple[int, ...], message: Message) -> None:
    back = message
    for dialect in (*way, MQTT):
        back = back.translated(dialect)
    assert told(back) == told(message)
    assert (back.size, back.durable) == (message.size, message.durable)


def told(message: Message) -> tuple[Any, ...]:
    """All that a message says, in whatever order its properties are."""
    native = message.native
    p = split(native, content.properties_at(native))
    return (native[:content.properties_at(native)], p.payload_format, p.expiry, p.content_type, p.response_topic,
            p.correlation, p.pairs, b"".join(content.body_pieces(message)))


def assert_sound(message: Message) -> None:
    """It is a message that a client of MQTT takes."""
    native = message.native
    assert content.qos(native) < 3 and content.topic(native)
    found, end = read_properties(native, content.properties_at(native), len(native), PUBLISH)
    assert len(native) == end + (0 if message.body is not None else message.size)
    assert "\0" not in found.get(8, "")
    assert not any(ord(each) < 32 for pair in found.get(0x26, ()) for each in pair[0] + pair[1])


@settings(max_examples=200)
@given(views())
def test_model_to_mqtt_and_back(view: View) -> None:
    message = CONVERTERS[MQTT].encode(view, like(AMQP10))
    assert_sound(message)
    assert_same(CONVERTERS[MQTT].model(message), view)


@pytest.mark.parametrize("way", [(MQTT,), (MQTT, AMQP091), (AMQP010, MQTT), (AMQP091, MQTT, AMQP010)])
@settings(max_examples=100)
@given(views())
def test_10_by_mqtt_and_back(way: tuple[int, ...], view: View) -> None:
    message = CONVERTERS[AMQP10].encode(view, like(AMQP10))
    for dialect in (*way, AMQP10):
        message = message.translated(dialect)
        if message.dialect == MQTT:
            assert_sound(message)
    assert_same(CONVERTERS[AMQP10].model(message), view)


@pytest.mark.parametrize("way", [(MQTT,), (MQTT, AMQP010), (AMQP10, MQTT)])
@settings(max_examples=100)
@given(messages())
def test_091_by_mqtt_and_back(way: tuple[int, ...], message: Message) -> None:
    back = message
    for dialect in (*way, AMQP091):
        back = back.translated(dialect)
        if back.dialect == MQTT:
            assert_sound(back)
    before = properties091.split(message.native, convert091.PROPERTIES_AT, convert091.header_end(message.native))
    after = properties091.split(back.native, convert091.PROPERTIES_AT, convert091.header_end(back.native))
    one = before.pop(properties091.HEADERS, b"\0\0\0\0")
    other = after.pop(properties091.HEADERS, b"\0\0\0\0")
    assert before == after
    assert by_name(one) == by_name(other)
    assert b"".join(convert091.body_pieces(back)) == b"".join(convert091.body_pieces(message))


@pytest.mark.parametrize("way", [(MQTT,), (MQTT, AMQP091), (AMQP10, MQTT)])
@settings(max_examples=100)
@given(messages010())
def test_010_by_mqtt_and_back(way: tuple[int, ...], message: Message) -> None:
    back = message
    for dialect in (*way, AMQP010):
        back = back.translated(dialect)
        if back.dialect == MQTT:
            assert_sound(back)
    assert fields010(back) == fields010(message)
    assert b"".join(content010.body_pieces(back)) == b"".join(content010.body_pieces(message))
