"""The codec of 0-9-1 and its variants, with whatever Hypothesis comes up with.

Encoding and decoding is the identity; arbitrary bytes raise the protocol's own error or nothing; and pamqp, a codec by
other people, reads what we write.
"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pamqp.decode
import pamqp.encode
import pamqp.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.amqp091 import properties as p
from protocols.amqp091.codec import (
    DEEPEST,
    Malformed,
    Timestamp,
    check_table,
    read_table,
    read_value,
    short_string,
    skip_value,
    write_table,
    write_value,
)
from protocols.amqp091.frames import V08, V09, V091, Method, Variant

NAMES = st.text(max_size=60).filter(lambda name: len(name.encode("utf-8", "surrogateescape")) <= 255)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2**63, 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=50),
    st.binary(max_size=50), st.builds(Timestamp, st.integers(0, 2**64 - 1)),
    st.builds(lambda number, places: Decimal(number).scaleb(-places), st.integers(-2**31, 2**31 - 1),
              st.integers(0, 255)))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)), max_leaves=15)
TABLES = st.dictionaries(NAMES, VALUES, max_size=6)


def alike(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and one == other


@given(TABLES)
def test_tables_come_back(table: dict[str, Any]) -> None:
    data = write_table(table)
    assert alike(read_table(data, 4, len(data)), table)
    check_table(data, 4, len(data))


@given(TABLES, st.data())
def test_cut_tables_are_malformed_or_shorter(table: dict[str, Any], data: st.DataObject) -> None:
    whole = write_table(table)
    cut = data.draw(st.integers(4, len(whole)))
    try:
        read = read_table(whole, 4, cut)
    except Malformed:
        return
    assert len(read) <= len(table) and all(alike(read[name], table[name]) for name in read)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_malformed(data: bytes) -> None:
    try:
        check_table(data, 0, len(data))
    except Malformed:
        with pytest.raises(Malformed):
            read_table(data, 0, len(data))
    else:
        read_table(data, 0, len(data))  # what was checked can be read


TYPED = [(b"t", 1), (b"b", 1), (b"B", 1), (b"s", 2), (b"U", 2), (b"u", 2), (b"I", 4), (b"i", 4), (b"l", 8), (b"L", 8),
         (b"f", 4), (b"d", 8), (b"D", 5), (b"T", 8), (b"V", 0)]


@pytest.mark.parametrize(("kind", "width"), TYPED)
@given(st.data())
def test_every_type_of_a_table_is_read(kind: bytes, width: int, data: st.DataObject) -> None:
    """Those of the specification (section 4.2.1), of RabbitMQ's errata, and of 0-8, whose tables have S I D T F."""
    encoded = kind + data.draw(st.binary(min_size=width, max_size=width))
    assert skip_value(encoded, 0, len(encoded), 0) == 1 + width
    value = read_value(encoded, 0, len(encoded))
    if kind in b"bsIl":
        assert value == int.from_bytes(encoded[1:], "big", signed=True)
    elif kind in b"Bui":
        assert value == int.from_bytes(encoded[1:], "big")
    for end in range(1, len(encoded)):
        with pytest.raises(Malformed):
            skip_value(encoded, 0, end, 0)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("depth", [DEEPEST - 1, DEEPEST + 1, 1000, 100_000])
def test_nesting_has_an_end(depth: int, array: bool) -> None:
    data = b""
    for _ in range(depth):
        inner = b"\x01n" + b"F" + len(data).to_bytes(4, "big") + data if not array else \
            b"A" + len(data).to_bytes(4, "big") + data
        if len(inner) > 1 << 20:
            inner = inner[:1 << 20]
        data = inner
    table = b"\x01n" + data if array else data
    if depth < DEEPEST:
        check_table(table, 0, len(table))
        read_table(table, 0, len(table))
    else:
        with pytest.raises(Malformed):
            check_table(table, 0, len(table))
        with pytest.raises(Malformed):
            read_table(table, 0, len(table))


PAMQP_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2**31, 2**31 - 1), st.text(max_size=30),
              st.floats(width=32, allow_nan=False, allow_infinity=False)),  # it writes them in 32 bits
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES.filter(len), inner, max_size=4)),
    max_leaves=10)


@given(st.dictionaries(NAMES.filter(len), PAMQP_VALUES, max_size=5))
def test_pamqp_reads_our_tables_and_we_read_its(table: dict[str, Any]) -> None:
    data = write_table(table)
    assert pamqp.decode.field_table(data) == (len(data), table)
    theirs = pamqp.encode.field_table(table)
    read = read_table(theirs, 4, len(theirs))
    assert pamqp.decode.field_table(theirs)[1] == read


def test_pamqp_reads_a_timestamp() -> None:
    data = write_value(Timestamp(1_700_000_000))
    assert pamqp.decode.embedded_value(data)[1] == datetime.datetime.fromtimestamp(1_700_000_000, datetime.UTC)


# Methods.

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "octet": st.integers(0, 255), "u16": st.integers(0, 2**16 - 1), "u32": st.integers(0, 2**32 - 1),
    "u64": st.integers(0, 2**64 - 1), "short": NAMES, "long": st.binary(max_size=100), "table": TABLES,
    "table?": TABLES, "bit": st.booleans()}
METHODS = [pytest.param(method, id=f"{variant.name} {name}") for variant in (V091, V09, V08)
           for name, method in variant.by_name.items()]
EXAMPLES = 10  # for each of them


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_methods_come_back(method: Method, data: st.DataObject) -> None:
    values = {name: data.draw(FIELDS[kind]) for name, kind in method.fields}
    frame = method.encode(7, values)
    assert frame[:3] == b"\x01\x00\x07" and frame[-1] == 0xCE
    assert int.from_bytes(frame[3:7], "big") == len(frame) - 8
    assert alike(method.decode(frame, 11, len(frame) - 1), values)
    cut = data.draw(st.integers(11, len(frame) - 1))
    if cut < len(frame) - 1 and "table?" not in dict(method.fields).values():  # which may be missing
        with pytest.raises(Malformed):
            method.decode(frame, 11, cut)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=60))
def test_any_arguments_are_read_or_malformed(method: Method, data: bytes) -> None:
    try:
        method.decode(data, 0, len(data))
    except Malformed:
        pass


PLAIN: dict[str, Any] = {"octet": 9, "u16": 513, "u32": 70_000, "u64": 2**40, "short": "name", "long": b"some bytes",
                         "table": {"number": 1, "text": "t", "nested": {"yes": True}}, "bit": True}
UNKNOWN_TO_PAMQP = {"exchange.bound", "exchange.bound-ok", "access.request", "access.request-ok"}
TEXT_FIXED_BY_PAMQP = {"ticket", "cluster-id", "known-hosts", "capabilities", "insist", "out-of-band", "channel-id",
                       "prefetch-size", "immediate"}


@pytest.mark.filterwarnings("ignore:This command is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(V091.by_name.keys() - UNKNOWN_TO_PAMQP))
def test_pamqp_reads_our_methods(name: str) -> None:
    method = V091.by_name[name]
    values = {field: None if field in TEXT_FIXED_BY_PAMQP else PLAIN[kind] for field, kind in method.fields}
    if "version-major" in values:
        values.update({"version-major": 0, "version-minor": 9})
    data = method.encode(3, values)
    size, channel, read = pamqp.frame.unmarshal(data)
    assert (size, channel) == (len(data), 3)
    assert read.name.lower().replace("_", "-").replace(".", "") == name.replace(".", "").replace("-", "") or \
        read.name.lower().replace(".", "") == name.replace(".", "").replace("-", "")
    for (field, _), value in zip(method.fields, values.values(), strict=True):
        if value is None:
            continue
        found = getattr(read, {"type": "exchange_type", "global": "global_", "nowait": "nowait"}.get(
            field, field.replace("-", "_")))
        assert (found.encode() if isinstance(value, bytes) and isinstance(found, str) else found) == value, field


def test_every_variant_has_what_it_should() -> None:
    def numbers(variant: Variant) -> set[int]:
        return set(variant.by_number)
    assert "basic.recover-sync" in V08.by_name and "basic.recover-sync" in V09.by_name
    assert "confirm.select" not in V08.by_name and "connection.redirect" in V08.by_name
    assert numbers(V091) <= numbers(V09)
    assert V08.by_name["connection.close"].method_id == 60 and V091.by_name["connection.close"].method_id == 50


# Properties.

PROPERTIES = st.fixed_dictionaries({}, optional={
    bit: st.integers(0, 255) if bit in (p.DELIVERY_MODE, p.PRIORITY) else st.integers(0, 2**64 - 1)
    if bit == p.TIMESTAMP else TABLES if bit == p.HEADERS else NAMES for bit in p.NAMES})


@given(PROPERTIES)
def test_properties_come_back(values: dict[int, Any]) -> None:
    data = p.join({bit: p.encoded(bit, value) for bit, value in values.items()})
    read = p.split(data, 0, len(data))
    assert p.join(read) == data
    assert alike({bit: p.value(bit, encoded) for bit, encoded in read.items()},
                 {bit: values[bit] for bit in p.NAMES if bit in values})
    found = p.scan(data, 0, len(data))
    assert found.priority == values.get(p.PRIORITY, 0)
    assert found.expiration == (short_string(values[p.EXPIRATION])[1:] if p.EXPIRATION in values else None)


@given(st.binary(min_size=2, max_size=80))
def test_any_bytes_are_properties_or_malformed(data: bytes) -> None:
    try:
        p.scan(data, 0, len(data))
    except Malformed:
        return
    for bit, encoded in p.split(data, 0, len(data)).items():  # what was checked can be read
        p.value(bit, encoded)
