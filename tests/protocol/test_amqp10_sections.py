"""The sections of a message, found in one piece or in many (AMQP 1.0, part 3, section 3.2)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proton import Described, ulong

from broker import values as v
from broker.message import AMQP010, AMQP091, AMQP10, MQTT, Message, address_of
from protocols.amqp010 import convert as _convert010  # noqa: F401 - these register themselves
from protocols.amqp091 import convert as _convert091  # noqa: F401
from protocols.amqp10 import convert as _convert10  # noqa: F401
from protocols.amqp10.sections import Scan, check_pieces
from protocols.mqtt import convert as _convert_mqtt  # noqa: F401
from protocols.values10 import Malformed, encode_list, encode_map, sized
from protocols.values10 import encode as ours
from tests.wire import Channel
from tests.wire10 import RECEIVER, SENDER, Client10, encode, state

DATA, SEQUENCE, VALUE, FOOTER = range(0x75, 0x79)


def section(code: int, value: bytes, symbolic: bool = False) -> bytes:
    names = {DATA: "amqp:data:binary", SEQUENCE: "amqp:amqp-sequence:list", VALUE: "amqp:value:*",
             FOOTER: "amqp:footer:map"}
    return (b"\x00\xa3" + bytes([len(names[code])]) + names[code].encode() if symbolic
            else b"\x00\x53" + bytes([code])) + value


values = {DATA: st.binary(max_size=300).map(lambda data: sized(0xA0, data)),
          SEQUENCE: st.lists(st.just(b"\x40"), max_size=300).map(encode_list),
          VALUE: st.sampled_from([b"\x40", b"\x54\x05", b"\x83" + bytes(8), ours("a" * 300), b"\x98" + bytes(16),
                                  b"\x00\xa3\x01d\x40", b"\x00" + sized(0xA3, b"d" * 200) + b"\xc0\x01\x00",
                                  b"\xe0\x02\x00\x40", ours({"a": [1]})]),
          FOOTER: st.just(encode_map([b"\xa3\x01f", b"\x41"]))}


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Body sections, right more often than not."""
    code = draw(st.sampled_from([DATA, SEQUENCE, VALUE]))
    codes = [code] * draw(st.integers(1, 1 if code == VALUE else 4)) + [FOOTER] * draw(st.booleans())
    if draw(st.integers(0, 4)) == 0:
        codes.append(draw(st.sampled_from([DATA, SEQUENCE, VALUE, FOOTER])))
    data = b"".join(section(each, draw(values[each]), draw(st.integers(0, 5)) == 0) for each in codes)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        data = draw(st.sampled_from([data[:at + 1], data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1:]]))
    return data


@given(st.data(), bodies())
def test_a_body_is_right_or_wrong_however_it_is_cut(draw: st.DataObject, body: bytes) -> None:
    try:
        whole = Scan(body, True).body_at == 0
    except Malformed:
        whole = False
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    try:
        check_pieces(pieces[0], 0, pieces[1:])
        cut = True
    except Malformed:
        cut = False
    assert cut == whole


def test_a_body_of_very_many_sections_is_refused_soon() -> None:
    one = section(DATA, b"\xa0\0")
    pieces = [one * 100] * 50_000  # five million of them
    with pytest.raises(Malformed, match="more than"):
        check_pieces(b"", 0, pieces)


def test_a_long_descriptor_is_looked_behind_so_far() -> None:
    value = b"\x00" + sized(0xA3, b"d" * 10_000) + b"\xa1\x01x"
    check_pieces(section(VALUE, value)[:50], 0, [section(VALUE, value)[50:]])
    with pytest.raises(Malformed):
        check_pieces(section(VALUE, b"\x00" + sized(0xA3, b"d" * 100_000) + b"\xa1\x01x"), 0, [])


@pytest.mark.parametrize("boundary", range(5))
def test_a_first_transfer_that_ends_with_a_section(connect10: Callable[..., Client10], ch: Channel,
                                                   name: Callable[..., str], boundary: int) -> None:
    """What is said in the sections of the next transfers counts."""
    queue, key = name(), "key"
    ch.queue(queue)
    ch.bind(queue, "amq.direct", key)
    sections = [encode(state(0x70, True)), encode(Described(ulong(0x72), {})),
                encode(state(0x73, None, None, None, key)),
                encode(Described(ulong(0x74), {"a": 1})), encode(Described(ulong(0x75), b"x" * 70_000))]
    wire = connect10("cut")
    wire.attach("in", SENDER, "amq.direct", handle=0)
    wire.attach("out", RECEIVER, queue, handle=1)
    wire.credit(1, handle=1)
    parts = [b"".join(sections[:boundary]), b"".join(sections[boundary:])]
    wire.transfer(parts[0], b"t", more=True, number=0)
    wire.transfer(parts[1][:40_000], b"t", more=True, number=0)
    wire.transfer(parts[1][40_000:], b"t", number=0)
    assert wire.delivery()[1].endswith(b"".join(sections[1:]))


@pytest.mark.parametrize("value", [[1], {"a": 1}, v.Described(v.ULong(5), 1), True, v.UByte(3), b"x", "x",
                                   v.Symbol("s"), uuid.UUID(int=1), 2.5, v.Array(0x71, [v.Int(1)])], ids=repr)
@pytest.mark.parametrize("index", range(13))
def test_a_property_of_the_wrong_type(index: int, value: Any) -> None:
    """Is refused, or says nothing in other dialects."""
    properties = [None] * index + [value]
    data = b"\0\x53\x73" + ours(properties) + b"\0\x53\x75\xa0\1x"
    try:
        Scan(data, True)
    except Malformed:
        return
    message = Message(address_of("", "q"), AMQP10, data, None, len(data), False, 4, 0, 0)
    for dialect in (AMQP091, AMQP010, MQTT):
        message.translated(dialect)
