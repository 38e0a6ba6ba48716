"""Values of field tables and values of the model, each in the other's types without loss.

What a table has an exact type for is written so. Anything else is text, a number or bytes that a reader can make
something of, and a marker says what it was: for entry NAME the entry `x-opt-type-NAME`, which the way back removes.
"""

from __future__ import annotations

import uuid
from struct import Struct
from typing import Any

from broker.values import (
    Byte,
    Char,
    Described,
    Float,
    Int,
    Opaque,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)
from protocols import values10
from protocols.amqp091.codec import long_string, skip_value, u64

MARKER = "x-opt-type-"

LONGEST = 255 - len(MARKER)
"""Bytes of a name that has room for a marker."""

RAW = Symbol("amqp:0-9-1:field")
"""Descriptor of a value that only a field table can hold: its binary is the value behind its type octet."""

DECIMAL128 = 0x94
_BIAS = 6176  # of a decimal128's exponent
_NEGATIVE = 1 << 127

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
        number = int.from_bytes(data[at + 2:end], "big", signed=True)  # as all clients write it
        bits = (_BIAS - data[at + 1]) << 113 | abs(number)
        return Opaque(DECIMAL128, (bits | _NEGATIVE if number < 0 else bits).to_bytes(16, "big"))
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
    if value.kind != DECIMAL128:
        return None
    bits = int.from_bytes(value.data, "big")
    negative = bits & _NEGATIVE
    scale = _BIAS - ((bits ^ negative) >> 113)
    digits = bits & (1 << 113) - 1
    number = -digits if negative else digits
    if 0 <= scale <= 255 and -2**31 <= number < 2**31 and (digits or not negative):  # there is no -0
        return b"D" + bytes([scale]) + number.to_bytes(4, "big", signed=True)
    return None


def marked(value: Any) -> tuple[bytes, str]:
    """A field value for what has no exact one, and what its marker is to say."""
    kind = type(value)
    if kind is ULong:
        if value < 2**63:
            return b"l" + int(value).to_bytes(8, "big"), "ulong"
        return _written(str(int(value))), "ulong"
    if kind is Timestamp:
        return b"l" + int(value).to_bytes(8, "big", signed=True), "timestamp"
    if kind is Symbol:
        return _written(value), "symbol"
    if kind is Char:
        return _written(value), "char"
    if kind is uuid.UUID:
        return _written(str(value)), "uuid"
    return b"x" + long_string(values10.encode(value)), "amqp"


def unmarked(value: Any, marker: str) -> Any:
    """What `marked` was given. Raises: ValueError when these two are none of its making."""
    found: Any
    if marker == "ulong" and type(value) in (int, str):
        found = ULong(int(value))
    elif marker == "timestamp" and type(value) is int:
        found = Timestamp(value)
    elif marker == "symbol" and type(value) is str:
        found = Symbol(value)
    elif marker == "char" and type(value) is str and len(value) == 1:
        found = Char(value)
    elif marker == "uuid" and type(value) is str:
        found = uuid.UUID(value)
    elif marker == "amqp" and type(value) is bytes:
        try:
            found = values10.decode(value)
        except values10.Malformed as error:
            raise ValueError(str(error)) from None
    else:
        raise ValueError("no such marker")
    if exact(found) is not None or marked(found) != (exact(value), marker):
        raise ValueError("no value of ours")
    return found


def _written(value: str) -> bytes:
    return b"S" + long_string(value.encode("utf-8", "surrogateescape"))


def write_entries(table: dict[str, Any]) -> dict[str, bytes]:
    """Field values by name for a table of the model's values, with markers. Names leave room for those:
    they have at most LONGEST bytes."""
    entries: dict[str, bytes] = {}
    for name, value in table.items():
        entry = exact(value)
        if entry is None:
            entry, marker = marked(value)
            entries[MARKER + name] = _written(marker)
        entries[name] = entry
    return entries


def take_markers(table: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `write_entries`, of values that were read."""
    found: dict[str, Any] = {}
    used: set[str] = set()
    for name, value in table.items():
        marker = table.get(MARKER + name)
        if type(marker) is str:
            try:
                found[name] = unmarked(value, marker)
                used.add(MARKER + name)
                continue
            except ValueError:
                pass
        found[name] = value
    for name in used:
        del found[name]
    return found
