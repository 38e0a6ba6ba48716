"""The types of AMQP 1.0: what is written is read again as it was, by us and by Proton, whatever the value; and bytes
that are none raise nothing but Malformed."""

from __future__ import annotations

import uuid
from typing import Any

import proton
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.values import (
    Array,
    Byte,
    Char,
    Described,
    Float,
    Int,
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
from protocols import values10 as codec
from protocols.values10 import Malformed, decode, encode


def integers(kind: type, bits: int, signed: bool) -> st.SearchStrategy[Any]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high).map(kind)


ASCII = st.text(st.characters(max_codepoint=127))

ELEMENTS: dict[int, st.SearchStrategy[Any]] = {
    codec.UBYTE: integers(UByte, 8, False), codec.USHORT: integers(UShort, 16, False),
    codec.UINT: integers(UInt, 32, False), codec.ULONG: integers(ULong, 64, False),
    codec.BYTE: integers(Byte, 8, True), codec.SHORT: integers(Short, 16, True), codec.INT: integers(Int, 32, True),
    codec.LONG: integers(int, 64, True), codec.TIMESTAMP: integers(Timestamp, 64, True),
    codec.FLOAT: st.floats(width=32).map(Float), codec.DOUBLE: st.floats(), codec.BOOLEAN: st.booleans(),
    codec.CHAR: st.characters(exclude_categories=["Cs"]).map(Char), codec.UUID: st.uuids(),
    codec.BINARY32: st.binary(max_size=300), codec.STRING32: st.text(max_size=300),
    codec.SYMBOL32: ASCII.map(Symbol), codec.NULL: st.none(),
    codec.DECIMAL32: st.binary(min_size=4, max_size=4).map(lambda data: Opaque(codec.DECIMAL32, data)),
    codec.DECIMAL64: st.binary(min_size=8, max_size=8).map(lambda data: Opaque(codec.DECIMAL64, data)),
    codec.DECIMAL128: st.binary(min_size=16, max_size=16).map(lambda data: Opaque(codec.DECIMAL128, data)),
}
"""Values by the constructor that an array of them has, written by Proton."""

@st.composite
def arrays(draw: st.DrawFn) -> Array:
    kind = draw(st.sampled_from(sorted(ELEMENTS)))
    values = draw(st.lists(ELEMENTS[kind], max_size=5))
    described = draw(st.booleans())
    return Array(kind, values, Symbol(draw(ASCII)) if described else None, described)


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> Any:
    """Any value, the compound ones no deeper than a few levels."""
    shape = draw(st.integers(0, 5 if depth < 3 else 1))
    if shape == 0:
        return draw(draw(st.sampled_from(list(ELEMENTS.values()))))
    if shape == 1:
        return draw(arrays())
    if shape == 2:
        return draw(st.lists(values(depth + 1), max_size=5))
    if shape == 3:
        return draw(st.dictionaries(st.text(max_size=5), values(depth + 1), max_size=4))
    if shape == 4:
        keys = draw(st.lists(ELEMENTS[codec.ULONG] | ASCII.map(Symbol), min_size=1, max_size=4))
        return Pairs([(key, draw(values(depth + 1))) for key in keys])
    # Not one described value directly in another: Proton writes a wrong count for the map that it is in.
    plain = values(depth + 1).filter(lambda value: not isinstance(value, Described))
    return Described(draw(ASCII.map(Symbol) | ELEMENTS[codec.ULONG]), draw(plain))


@given(values())
@example({"key": Described(Symbol("outer"), Described(Symbol("inner"), 0))})
def test_what_is_written_is_read_as_it_was(value: Any) -> None:
    data = encode(value)
    assert same(decode(data), value)
    reader = codec.Reader(data + b"more", 0, len(data) + 4)
    reader.skip()
    assert reader.at == len(data)


@given(values())
def test_proton_reads_what_is_written_and_writes_what_is_read(value: Any) -> None:
    data = proton.Data()
    written = encode(value)
    assert data.decode(written) == len(written)
    assert same(decode(bytes(data.encode())), value)


NATIVE = [
    (proton.ubyte(255), UByte(255)), (proton.ushort(65535), UShort(65535)), (proton.uint(2**32 - 1), UInt(2**32 - 1)),
    (proton.ulong(2**64 - 1), ULong(2**64 - 1)), (proton.byte(-128), Byte(-128)), (proton.short(-32768), Short(-32768)),
    (proton.int32(-2**31), Int(-2**31)), (-2**63, -2**63), (proton.timestamp(-1), Timestamp(-1)),
    (proton.float32(0.5), Float(0.5)), (-0.0, -0.0), (proton.char("\U0001F600"), Char("\U0001F600")),
    (proton.symbol("name"), Symbol("name")), ("text", "text"), (b"\0bytes", b"\0bytes"), (True, True), (None, None),
    (uuid.UUID(int=5), uuid.UUID(int=5)), ([1, "two", [3.0]], [1, "two", [3.0]]), ({"key": [None]}, {"key": [None]}),
    ({proton.symbol("key"): proton.uint(1)}, Pairs([(Symbol("key"), UInt(1))])),
    (proton.Described(proton.symbol("d"), "value"), Described(Symbol("d"), "value")),
    (proton.Array(proton.UNDESCRIBED, proton.Data.INT, 1, 2), Array(codec.INT, [Int(1), Int(2)])),
    (proton.decimal64(7), Opaque(codec.DECIMAL64, (7).to_bytes(8, "big"))),
]
"""The same values as Proton's users write them and in our terms."""


@pytest.mark.parametrize("theirs, ours", NATIVE, ids=repr)
def test_values_of_proton(theirs: Any, ours: Any) -> None:
    data = proton.Data()
    data.put_object(theirs)
    assert same(decode(bytes(data.encode())), ours)
    data = proton.Data()
    data.decode(encode(ours))
    data.rewind()
    data.next()
    assert data.get_object() == theirs


@given(st.binary(max_size=60))
@example(b"\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40")  # four billion nulls
@example(b"\xd0\x00\x00\x00\x04\xff\xff\xff\xff")
@example(b"\x00" * 5000)
@example(b"\xc0\xff\x01" * 5000)
@example(b"".join(b"\xd0" + (5 * left + 4).to_bytes(4, "big") + b"\0\0\0\1" for left in range(2000, 0, -1)))
def test_any_bytes(data: bytes) -> None:
    try:
        value = decode(data)
    except Malformed:
        return
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize("value", [UByte(256), UShort(-1), UInt(2**32), ULong(2**64), Byte(128), Int(2**31), 2**63,
                                   Timestamp(2**63), Ellipsis, Array(codec.UBYTE, [UByte(300)]),
                                   Array(codec.STRING8, ["x" * 256]), Array(codec.STRING8, [b"bytes"])], ids=repr)
def test_what_cannot_be_written(value: Any) -> None:
    with pytest.raises(ValueError):
        encode(value)
