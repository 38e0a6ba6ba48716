"""The translation between 1.0, 0-10 and 0-9-1 loses nothing: there and back is where one was (TRANSLATION.md)."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.message import AMQP010, AMQP010_JMS, AMQP091, AMQP10, CONVERTERS, Message, address_of
from broker.values import (
    Array,
    Byte,
    Char,
    Described,
    Float,
    Int,
    Odd,
    Opaque,
    Pairs,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    same,
)
from broker.view import BYTES, NOTHING, SEQUENCES, VALUE, View
from protocols import maps010, values10
from protocols.amqp010 import content
from protocols.amqp010 import convert as _convert010  # noqa: F401 - registers itself
from protocols.amqp010 import properties as properties010
from protocols.amqp091 import convert, properties, tables
from protocols.amqp091.codec import Timestamp as Seconds
from protocols.amqp091.frames import BODY, HEADER, frame
from protocols.amqp10 import convert as _  # noqa: F401 - registers itself

ADDRESS = address_of("amq.topic", "a.b")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
short_texts = texts.filter(lambda value: len(value.encode()) <= 255)


def integers(made: type, bits: int, signed: bool) -> st.SearchStrategy[Any]:
    low, high = (-2**(bits - 1), 2**(bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(low, high), st.sampled_from([low, high])).map(made)


def odd_values() -> st.SearchStrategy[Any]:
    """What only 0-10 has types for."""
    return st.one_of([st.binary(min_size=width, max_size=width).map(lambda data, code=code: Odd(code, data))
                      for code, width in ((0x00, 1), (0x10, 2), (0x20, 4), (0x30, 8), (0x40, 16), (0x50, 32),
                                          (0x60, 64), (0x70, 128), (0xC0, 5), (0xD0, 9))]
                     + [st.just(Odd(0x95, b"\xff")), st.just(Odd(0xA8, b"\0\0\0\1\1\xff\xf0")),
                        st.binary(max_size=9).map(lambda data: Odd(0xAB, data)),
                        st.sampled_from([Odd(0x08, b"\2"), Odd(0x27, b"\0\x11\0\0"), Odd(0x38, b"\xff" * 8),
                                         Odd(0xD8, b"\2" + bytes(8)), Odd(0xAA, b"\x90\0\0\0\1\0\1a")])])


def decimal128(scale: int, digits: int, negative: bool) -> Opaque:
    return Opaque(0x94, (negative << 127 | (6176 - scale) << 113 | digits).to_bytes(16, "big"))


simple = st.one_of(
    st.none(), st.booleans(), integers(UByte, 8, False), integers(UShort, 16, False), integers(UInt, 32, False),
    integers(ULong, 64, False), integers(Byte, 8, True), integers(Short, 16, True), integers(Int, 32, True),
    integers(int, 64, True), integers(Timestamp, 64, True), st.floats(), st.floats(width=32).map(Float),
    st.characters(exclude_categories=["Cs"]).map(Char), texts, st.binary(max_size=20), st.uuids(),
    st.text("abc-:.", max_size=9).map(Symbol), st.binary(min_size=16, max_size=16).map(lambda b: Opaque(0x94, b)),
    st.binary(min_size=4, max_size=4).map(lambda b: Opaque(0x74, b)),
    st.builds(decimal128, st.integers(0, 255), st.sampled_from([0, 17, 2**31 - 1, 2**31, 2**31 + 1, 2**63 + 1]),
              st.booleans()), odd_values())
values = st.recursive(simple, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4),
    st.builds(Described, st.text("abc:", min_size=1, max_size=5).map(Symbol), inner),
    st.lists(st.tuples(integers(Int, 32, True), inner), min_size=1, max_size=2).map(Pairs),
    st.lists(integers(Int, 32, True), max_size=3).map(lambda each: Array(0x71, each)),
    st.lists(short_texts, max_size=3).map(lambda each: Array(0xA1, each)),
    st.lists(texts, max_size=3).map(lambda each: Array(0xB1, each)),
    st.lists(st.booleans(), max_size=3).map(lambda each: Array(0x56, each)),
    st.lists(st.lists(inner, max_size=2), max_size=2).map(lambda each: Array(0xD0, each))), max_leaves=8)

special = st.sampled_from([
    "x-message-id", "x-correlation-id-type", "x-opt-type-a", "JMSXGroupID", "JMSXGroupSeq", "x-death", "qpid.subject",
    "x-opt-body", "x-opt-properties", "x-opt-annotations", "x-opt-long-keys", "x-user-id", "x-amqp-to", "a", "b",
    "x-opt-amqp-type", "x-opt-amqp-content-type", "x-opt-jms-msg-type", "x-opt-jms-dest", "x-opt-jms-reply-to",
    "x-opt-content-type", "x-opt-creation-time", "k" * 300, "k" * 250,
    "x-jms-type", "x-opt-amqp-subject", "x-opt-raw-timestamp", "x-opt-raw-reply-to", "x-cluster-id", "x-opt-structs"])
names = st.one_of(st.text("abc", min_size=1, max_size=2), special, texts)
annotation_names = st.one_of(
    st.text("abc-", min_size=1, max_size=5), st.text("abc", max_size=4).map("x-opt-".__add__), special).filter(
        lambda name: len(name) <= 200 and name != "x-cluster-id")  # that is the field, in 1.0
ids = st.one_of(texts, st.uuids(), integers(ULong, 64, False), st.binary(max_size=9), st.just("u" * 300),
                st.uuids().map(lambda each: f"urn:uuid:{each}"))
symbols = st.one_of(st.sampled_from(["text/plain", "text/html; charset=utf-8", "amqp/map", "amqp/list", "amqp/value",
                                     "application/json", "s" * 300, "text/plain;charset=latin1", "jms/map-message",
                                     "jms/stream-message", "jms/text-message", "application/java-object-stream",
                                     "application/x-java-serialized-object"]))
addresses = st.one_of(texts, texts.map("a/".__add__), st.sampled_from(
    ["/queues/a%2Fb", "/queue/a", "/topic/a.b", "/exchanges/e/k", "amq.topic", "amq.topic/", "e/k/l", "a://b", "/",
     "e/", "direct:////q", "topic://amq.topic//?routingkey='a.b'"]))
UNSIGNED = st.integers(0, 2**32 - 1)


@st.composite
def views(draw: st.DrawFn) -> View:
    """A message of the model: all that 1.0 can say."""
    view = View()

    def maybe(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.one_of(st.none(), strategy))

    view.durable = draw(st.booleans())
    view.priority = maybe(st.integers(0, 255))
    view.ttl = maybe(UNSIGNED)
    view.absolute_expiry_time = maybe(st.integers(-2**63, 2**63 - 1))
    view.creation_time = maybe(st.integers(-2**63, 2**63 - 1))
    view.message_id, view.correlation_id = maybe(ids), maybe(ids)
    view.user_id = maybe(st.binary(max_size=300))
    view.to, view.subject, view.reply_to = maybe(texts), maybe(texts | st.just("s" * 300)), maybe(addresses)
    view.content_type, view.content_encoding = maybe(symbols), maybe(symbols)
    view.group_id, view.group_sequence, view.reply_to_group_id = maybe(texts), maybe(UNSIGNED), maybe(texts)
    view.app_id, view.cluster_id = maybe(texts), maybe(texts)
    view.headers = draw(st.dictionaries(names, values, max_size=5))
    view.annotations = draw(st.dictionaries(annotation_names, values, max_size=4))
    view.kind = draw(st.sampled_from([BYTES, VALUE, SEQUENCES, NOTHING]))
    if view.kind == VALUE:
        view.value = draw(values)
    elif view.kind == SEQUENCES:
        view.value = draw(st.lists(st.lists(values, max_size=3), min_size=1, max_size=3))
    elif view.kind == BYTES:
        chunks = draw(st.lists(st.binary(max_size=9), min_size=1, max_size=3))
        view.body = [b"".join(chunks)]
        view.data_lengths = [len(chunk) for chunk in chunks] if len(chunks) > 1 else []
    return view


FIELDS = ["durable", "priority", "ttl", "absolute_expiry_time", "creation_time", "message_id", "correlation_id",
          "user_id", "to", "subject", "reply_to", "content_type", "content_encoding", "group_id", "group_sequence",
          "reply_to_group_id", "app_id", "cluster_id", "headers", "annotations", "deaths", "kind", "value",
          "data_lengths"]


def assert_same(found: View, expected: View) -> None:
    for field in FIELDS:
        one, other = getattr(found, field), getattr(expected, field)
        if field == "subject" and other is None and "x-opt-amqp-subject" not in expected.annotations and (
                "x-opt-amqp-subject" in found.annotations):
            assert one == "a.b"  # the routing key
            continue
        if field in ("headers", "annotations"):
            one, other = dict(sorted(one.items())), dict(sorted(other.items()))
            for route in ("x-exchange", "x-routing-key", "x-opt-jms-dest", "x-opt-jms-reply-to",
                          "x-opt-amqp-subject"):
                if route not in other:
                    one.pop(route, None)
        assert same(one, other), f"{field}: {one!r} instead of {other!r}"
    assert b"".join(found.body) == b"".join(expected.body)


def like(dialect: int) -> Message:
    return Message(ADDRESS, dialect, b"", None, 0, False, 0, 0, 1_700_000_000_000)


@pytest.mark.parametrize("dialect", [AMQP091, AMQP10, AMQP010, AMQP010_JMS])
@settings(max_examples=300)
@given(views())
def test_model_to_a_dialect_and_back(dialect: int, view: View) -> None:
    message = CONVERTERS[dialect].encode(view, like(AMQP10))
    found = CONVERTERS[message.dialect].model(message)
    if dialect == AMQP010_JMS and view.subject is not None:  # the same as the subject
        found.headers.pop("x-jms-type", None)
        view.headers.pop("x-jms-type", None)
    assert_same(found, view)


@pytest.mark.parametrize("way", [(AMQP091,), (AMQP010,), (AMQP091, AMQP010), (AMQP010, AMQP091)])
@settings(max_examples=150)
@given(views())
def test_10_to_others_and_back(way: tuple[int, ...], view: View) -> None:
    message = CONVERTERS[AMQP10].encode(view, like(AMQP10))
    for dialect in (*way, AMQP10):
        message = message.translated(dialect)
    assert_same(CONVERTERS[AMQP10].model(message), view)


# The other way round: all that 0-9-1 can say.

# A client that itself writes the headers that we keep things in, beside the properties that they stand for, has them
# restored to where we keep those: within x-opt-properties. Nothing is lost, but it is not what it was, so not here.
foreign = st.one_of(st.text("abc", min_size=1, max_size=2), texts, st.sampled_from(
    ["JMSXGroupID", "JMSXGroupSeq", "x-death", "qpid.subject", "CC", "x-delay", "x-opt-via", "k" * 200])).filter(
        lambda name: len(name.encode()) <= 200)

field_values = st.recursive(st.one_of(
    st.none(), st.booleans(), st.integers(-2**63, 2**63 - 1), st.floats(), texts, st.binary(max_size=20),
    st.integers(0, 2**64 - 1).map(Seconds)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(short_texts, inner, max_size=4)),
    max_leaves=8)
raw_shorts = st.one_of(short_texts.map(str.encode), st.binary(max_size=20))
shorts = raw_shorts.map(lambda data: bytes([len(data)]) + data)
typical = {
    properties.CONTENT_TYPE: st.one_of(shorts, st.sampled_from([
        b"\x0atext/plain", b"\x08amqp/map", b"\x09amqp/list", b"\x0fjms/map-message", b"\x12jms/stream-message",
        b"\x1eapplication/java-object-stream"])),
    properties.CONTENT_ENCODING: shorts,
    properties.HEADERS: st.dictionaries(foreign, field_values, max_size=5).map(
        lambda table: properties.encoded(properties.HEADERS, table)),
    properties.DELIVERY_MODE: st.sampled_from([b"\x01", b"\x02"]),
    properties.PRIORITY: st.integers(0, 255).map(lambda number: bytes([number])),
    properties.CORRELATION_ID: shorts, properties.REPLY_TO: shorts,
    properties.EXPIRATION: st.integers(0, 10**12).map(lambda number: properties.encoded(0x0100, str(number))),
    properties.MESSAGE_ID: st.one_of(shorts, st.uuids().map(lambda u: b"\x2d" + f"urn:uuid:{u}".encode())),
    properties.TIMESTAMP: st.integers(0, 2**64 - 1).map(lambda number: number.to_bytes(8, "big")),
    properties.TYPE: shorts, properties.USER_ID: shorts, properties.APP_ID: shorts, properties.CLUSTER_ID: shorts}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    found = {bit: draw(strategy) for bit, strategy in typical.items() if draw(st.booleans())}
    return written(found, draw(st.one_of(st.binary(max_size=30), texts.map(str.encode))))


def written(found: dict[int, bytes], body: bytes = b"") -> Message:
    """A message as a 0-9-1 client would have sent it. found: encoded properties, by flag."""
    found.setdefault(properties.DELIVERY_MODE, b"\x01")
    payload = b"\x00\x3c\x00\x00" + len(body).to_bytes(8, "big") + properties.join(found)
    native = frame(HEADER, 1, payload) + (frame(BODY, 1, body) if body else b"")
    return Message(ADDRESS, AMQP091, native, None, len(body), False, 0, 0, 1_700_000_000_000)


@pytest.mark.parametrize("way", [(AMQP10,), (AMQP010,), (AMQP10, AMQP010), (AMQP010, AMQP10)])
@settings(max_examples=200)
@given(messages())
@example(written({properties.HEADERS: properties.encoded(properties.HEADERS, {"qpid.subject": ""})}))
@example(written({properties.TYPE: b"\1\xff", properties.HEADERS: properties.encoded(
    properties.HEADERS, {"qpid.subject": "s"})}))
@example(written({properties.CONTENT_TYPE: b"\x08amqp/map"}, bytes(4)))
@example(written({properties.CONTENT_TYPE: b"\x09amqp/list"}, bytes(4)))
@example(written({properties.REPLY_TO: properties.encoded(properties.REPLY_TO, "topic://amq.topic//?routingkey='k'")}))
def test_091_to_others_and_back(way: tuple[int, ...], message: Message) -> None:
    back = message
    for dialect in (*way, AMQP091):
        back = back.translated(dialect)
    before = properties.split(message.native, convert.PROPERTIES_AT, convert.header_end(message.native))
    after = properties.split(back.native, convert.PROPERTIES_AT, convert.header_end(back.native))
    one, other = before.pop(properties.HEADERS, b"\0\0\0\0"), after.pop(properties.HEADERS, b"\0\0\0\0")
    assert before == after
    assert by_name(one) == by_name(other)
    assert b"".join(convert.body_pieces(back)) == b"".join(convert.body_pieces(message))


def test_decimals_have_a_sign() -> None:
    for field, value in ((b"D\x02\xff\xff\xfe\xc6", decimal128(2, 314, True)),
                         (b"D\x00\x80\x00\x00\x00", decimal128(0, 2**31, True)),
                         (b"D\xff\x7f\xff\xff\xff", decimal128(255, 2**31 - 1, False))):
        assert tables.read(field, 0, 6) == value and tables.exact(value) == field
    assert tables.exact(decimal128(0, 0, True)) is None  # -0


@pytest.mark.parametrize("bits", [b"\x7f\xa0\0\1", b"\xff\xa0\0\1", b"\x7f\xc0\0\1"])
def test_any_nan_stays_what_it_is(bits: bytes) -> None:
    """Signalling ones too, which Python's own floats make quiet."""
    value = tables.read(b"f" + bits, 0, 5)
    assert tables.exact(value) == b"f" + bits
    assert values10.encode(value) == b"\x72" + bits
    assert tables.exact(values10.decode(b"\x72" + bits)) == b"f" + bits


def by_name(table: bytes) -> dict[str, bytes]:
    return properties.split_table(table)


# All that 0-10 can say.

foreign010 = st.one_of(st.text("abc", min_size=1, max_size=2), texts, st.sampled_from(
    ["JMSXGroupID", "JMSXGroupSeq", "x-death", "qpid.subject", "x-jms-type", "x-opt-via", "k" * 200])).filter(
        lambda name: len(name.encode()) <= 200)
values010 = st.recursive(
    st.one_of(
        st.none(), st.booleans(), integers(UByte, 8, False), integers(UShort, 16, False), integers(UInt, 32, False),
        integers(ULong, 64, False), integers(Byte, 8, True), integers(Short, 16, True), integers(Int, 32, True),
        integers(int, 64, True), st.integers(0, (2**63 - 1) // 1000).map(lambda each: Timestamp(each * 1000)),
        st.floats(), st.floats(width=32).map(Float), st.characters(exclude_categories=["Cs"]).map(Char), texts,
        st.binary(max_size=20), st.uuids(), odd_values(), st.just(decimal128(2, 314, True)),
        st.just(decimal128(255, 2**62, False))),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(short_texts, inner, max_size=4),
                            st.lists(st.uuids(), max_size=3).map(lambda each: Array(0x98, each))), max_leaves=8)
raws = st.one_of(short_texts.map(str.encode), st.binary(max_size=20))
times = st.one_of(st.integers(0, 2**33), st.integers(0, 2**64 - 1))


@st.composite
def messages010(draw: st.DrawFn) -> Message:
    def maybe(strategy: st.SearchStrategy[Any], default: Any = None) -> Any:
        return draw(strategy) if draw(st.booleans()) else default

    p = properties010.Properties()
    p.delivery_mode, p.priority = draw(st.sampled_from([1, 2])), maybe(st.integers(0, 255), -1)
    p.ttl, p.timestamp = maybe(times, -1), maybe(times, -1)
    if p.ttl >= 0:  # as the session sees to
        p.expiration = -(-(1_700_000_000_000 + p.ttl) // 1000) & 0xFFFFFFFFFFFFFFFF
    else:
        p.expiration = maybe(times, -1)
    p.exchange, p.routing_key = b"amq.topic", b"a.b"
    if draw(st.booleans()):
        p.has_message = True
        p.message_id = maybe(st.binary(min_size=16, max_size=16))
        p.correlation_id = maybe(raws | st.just(b"x" * 300))
        p.has_reply_to = draw(st.booleans())
        if p.has_reply_to:
            p.reply_exchange = maybe(st.sampled_from([b"", b"amq.topic", b"e", b"/", b"e/f", b"\xff"]))
            p.reply_key = maybe(st.sampled_from([b"", b"k", b"a/b", b"/", b"\xff", b"amq.topic", b"k" * 255]) | raws)
        p.content_type = maybe(raws | symbols.map(lambda each: each[:255].encode()))
        p.content_encoding, p.user_id, p.app_id = maybe(raws), maybe(raws | st.just(b"x" * 300)), maybe(raws)
        p.headers = maybe(st.dictionaries(foreign010, values010, max_size=5).map(maps010.write_map)
                          | st.just(b"\0\0\0\7\0\0\0\1\1\xff\xf0"))
    p.others = draw(st.sampled_from([[], [b"\0\0\0\4\4\2\3\0"], [b"\0\0\0\5\4\2\3\0x", b"\0\0\0\4\x09\1\0\0"]]))
    return written010(p, draw(st.one_of(st.binary(max_size=30), texts.map(str.encode))))


def written010(p: properties010.Properties, body: bytes) -> Message:
    native, pieces = content.build(properties010.join(p, len(body)), [body], len(body))
    return Message(ADDRESS, AMQP010, native, pieces, len(body), p.delivery_mode == 2, 0, 0, 1_700_000_000_000)


def fields010(message: Message) -> dict[str, Any]:
    p = properties010.split(content.header_segment(message))
    names = [name for name, value in vars(type(p)).items() if inspect.isdatadescriptor(value) and name[0] != "_"]
    found = {name: getattr(p, name) for name in names if name != "has_message"}  # compiled, there are no __slots__
    try:
        found["headers"] = dict(sorted(maps010.split_map(p.headers or b"\0\0\0\0").items()))
    except ValueError:
        pass
    return found


@pytest.mark.parametrize("way", [(AMQP10,), (AMQP091,), (AMQP10, AMQP091), (AMQP091, AMQP10)])
@settings(max_examples=200)
@given(messages010())
def test_010_to_others_and_back(way: tuple[int, ...], message: Message) -> None:
    back = message
    for dialect in (*way, AMQP010):
        back = back.translated(dialect)
    assert fields010(back) == fields010(message)
    assert b"".join(content.body_pieces(back)) == b"".join(content.body_pieces(message))


# What JMS clients need.

JMS_MAP = b"\0\0\0\x03" b"i\0\x06\0\1\x11\x70" b"s\0\x0aGr\xc3\xbc\xc3\x9fe\0" b"b\0\x03\0\0\0\x02\0\xff"
JMS_STREAM = b"\x01\x01" b"\x02\xfb" b"\x04\xfe\xd4" b"\x05\0\xe9" b"\x07\0\0\1\0\0\0\0\0" b"\x08\x3f\xc0\0\0" b"\x0b"


@pytest.mark.parametrize(("content_type", "body", "value", "kind"), [
    ("jms/map-message", JMS_MAP, {"i": Int(70_000), "s": "Grüße", "b": b"\0\xff"}, 2),
    ("jms/stream-message", JMS_STREAM, [True, Byte(-5), Short(-300), Char("é"), 1 << 40, Float(1.5), None], 4),
    ("jms/stream-message", b"", [], 4), ("jms/text-message", b"text", "text", 5)])
def test_bodies_of_older_jms_clients(content_type: str, body: bytes, value: Any, kind: int) -> None:
    message = written({properties.CONTENT_TYPE: properties.encoded(properties.CONTENT_TYPE, content_type)}, body)
    view = CONVERTERS[AMQP091].model(message)
    assert view.kind == VALUE and same(view.value, value)
    assert same(view.annotations["x-opt-jms-msg-type"], Byte(kind))
    assert b"".join(convert.body_pieces(message.translated(AMQP10).translated(AMQP091))) == body


@pytest.mark.parametrize("body", [b"", JMS_MAP[:-1], JMS_MAP + b"\0", b"\xff" + JMS_MAP[1:], b"\0\0\0\1i\0\x0c"])
def test_a_body_that_only_claims_to_be_a_jms_map(body: bytes) -> None:
    message = written({properties.CONTENT_TYPE: b"\x0fjms/map-message"}, body)
    assert CONVERTERS[AMQP091].model(message).kind == BYTES
    assert b"".join(convert.body_pieces(message.translated(AMQP10).translated(AMQP091))) == body


def test_an_object_of_java_has_the_name_that_its_reader_knows() -> None:
    message = written({properties.CONTENT_TYPE: b"\x1eapplication/java-object-stream"}, b"\xac\xed")
    assert CONVERTERS[AMQP091].model(message).content_type == "application/x-java-serialized-object"
    back = message.translated(AMQP10).translated(AMQP091)
    assert CONVERTERS[AMQP091].decode(back).content_type == "application/java-object-stream"


def test_numbers_for_jms_are_bytes_whoever_wrote_them() -> None:
    """pika makes 32 bits of every integer that it sends on, and Qpid JMS takes nothing but a byte."""
    table = {"x-opt-jms-msg-type": 5, "x-opt-jms-dest": 0, "x-opt-jms-reply-to": 1, "x-opt-other": 5}
    view = CONVERTERS[AMQP091].model(written({properties.HEADERS: properties.encoded(properties.HEADERS, table)}))
    assert {name: type(view.annotations[name]) for name in table} == {**dict.fromkeys(table, Byte), "x-opt-other": Int}


def test_a_single_sequence_is_a_plain_list_to_others() -> None:
    view = View()
    view.kind, view.value = SEQUENCES, [[Int(5)]]
    message = CONVERTERS[AMQP091].encode(view, like(AMQP10))
    assert maps010.read_list(b"".join(convert.body_pieces(message))) == [5]
