"""Values of field tables and values of the model, each in the other's types without loss.

What a table has an exact type for is written so, anything else with a marker (protocols/markers.py).
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from broker.values import (
    Byte,
    Described,
    Float,
    Int,
    Opaque,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    UShort,
)
from protocols import values10
from protocols.amqp091.codec import long_string, skip_value, u64
from protocols.amqp091.properties import join_table
from protocols.markers import Tables

RAW = Symbol("amqp:0-9-1:field")
"""Descriptor of a value that only a field table can hold: its binary is the value behind its type octet."""

_FLOAT = Struct(">f")
_DOUBLE = Struct(">d")

_READ: dict[int, tuple[type, bool]] = {
    0x62: (Byte, True), 0x42: (UByte, False), 0x73: (Short, True), 0x55: (Short, True), 0x75: (UShort, False),
    0x49: (Int, True), 0x69: (UInt, False), 0x6C: (int, True), 0x4C: (int, True)}
_WRITE: dict[type, tuple[bytes, int, bool]] = {
    Byte: (b"b", 1, True), UByte: (b"B", 1, False), Short: (b"s", 2, True), UShort: (b"u", 2, False),
    Int: (b"I", 4, True), UInt: (b"i", 4, False), int: (b"l", 8, True)}


def read(data: bytes, at: int, end: int) -> Any:
    """The model's value for a field value from its type octet on. It was checked when it came in."""
    kind = data[at]
    integer = _READ.get(kind)
    if integer is not None:
        made, signed = integer
        return made(int.from_bytes(data[at + 1:end], "big", signed=signed))
    if kind == 0x53:  # S
        try:
            return data[at + 5:end].decode("utf-8")
        except UnicodeDecodeError:
            return Described(RAW, data[at:end])
    if kind == 0x46:  # F
        return read_table(data, at + 5, end)
    if kind == 0x41:  # A
        return _read_array(data, at + 5, end)
    if kind == 0x78:  # x
        return data[at + 5:end]
    if kind == 0x74:  # t
        return data[at + 1] != 0
    if kind == 0x56:  # V
        return None
    if kind == 0x66:  # f
        return values10.float32(data[at + 1:end])
    if kind == 0x64:  # d
        return _DOUBLE.unpack(data[at + 1:end])[0]
    if kind == 0x44:  # D
        return values10.decimal(data[at + 1], int.from_bytes(data[at + 2:end], "big", signed=True))  # as all write it
    seconds = u64(data, at + 1)  # T
    return Timestamp(seconds * 1000) if seconds <= (2**63 - 1) // 1000 else Described(RAW, data[at:end])


def read_table(data: bytes, at: int, end: int) -> Any:
    """The model's value for a table without its length: a dict, unless that would lose some of its names."""
    table: dict[str, Any] = {}
    count = 0
    start = at
    sound = True
    while at < end:
        name = data[at + 1:at + 1 + data[at]]
        at += 1 + len(name)
        after = skip_value(data, at, end, 0)
        try:
            table[name.decode("utf-8")] = read(data, at, after)
        except UnicodeDecodeError:
            sound = False
        count += 1
        at = after
    if sound and len(table) == count:
        return table
    return Described(RAW, b"F" + long_string(data[start:end]))


def _read_array(data: bytes, at: int, end: int) -> list[Any]:
    values = []
    while at < end:
        after = skip_value(data, at, end, 0)
        values.append(read(data, at, after))
        at = after
    return values


def exact(value: Any) -> bytes | None:
    """The field value, behind its type octet, that `read` makes this value of; None when there is none."""
    kind = type(value)
    if kind is str:
        try:
            return b"S" + long_string(value.encode("utf-8"))
        except UnicodeEncodeError:
            return None
    integer = _WRITE.get(kind)
    if integer is not None:
        octet, width, signed = integer
        return octet + int(value).to_bytes(width, "big", signed=signed) if -2**63 <= value < 2**63 else None
    if kind is bool:
        return b"t\x01" if value else b"t\x00"
    if value is None:
        return b"V"
    if kind is bytes:
        return b"x" + long_string(value)
    if kind is float:
        return b"d" + _DOUBLE.pack(value)
    if kind is Float:
        return b"f" + _FLOAT.pack(value)
    if kind is Timestamp:
        return b"T" + (value // 1000).to_bytes(8, "big") if value >= 0 and value % 1000 == 0 else None
    if kind is list:
        return _exact_array(value)
    if kind is dict:
        return _exact_table(value)
    if kind is Opaque:
        return _exact_opaque(value)
    if kind is Described and value.descriptor == RAW and type(value.value) is bytes and value.value:
        return bytes(value.value) if _is_raw(value) else None
    return None


def _is_raw(value: Described) -> bool:
    """Whether a raw field value is one that can only be raw: else it would be read as what it is."""
    data = value.value
    try:
        return skip_value(data, 0, len(data), 0) == len(data) and read(data, 0, len(data)) == value
    except Exception:  # anybody may have written it
        return False


def _exact_array(values: list[Any]) -> bytes | None:
    parts = []
    for value in values:
        part = exact(value)
        if part is None:
            return None
        parts.append(part)
    return b"A" + long_string(b"".join(parts))


def _exact_table(table: dict[str, Any]) -> bytes | None:
    parts = []
    for name, value in table.items():
        part = exact(value)
        encoded = name.encode("utf-8", "surrogatepass")
        if part is None or len(encoded) > 255:
            return None
        parts += [bytes([len(encoded)]), encoded, part]
    return b"F" + long_string(b"".join(parts))


def _exact_opaque(value: Opaque) -> bytes | None:
    if value.kind == values10.FLOAT:
        return b"f" + value.data
    parts = values10.scaled(value)
    if parts is None or not -2**31 <= parts[1] < 2**31:
        return None
    return b"D" + bytes([parts[0]]) + parts[1].to_bytes(4, "big", signed=True)


class FieldTables(Tables):
    """Field tables and their values, as the shared parts of the translation write them."""

    def exact(self, value: Any) -> bytes | None:
        return exact(value)

    def table(self, entries: dict[str, bytes]) -> bytes:
        return b"F" + join_table(entries)

    def array(self, items: list[bytes]) -> bytes:
        return b"A" + long_string(b"".join(items))


FIELDS = FieldTables()
