"""The primitive types of AMQP 0-8, 0-9 and 0-9-1: bytes to values and back.

Field tables are read and written with the types of RabbitMQ's errata, which Qpid shares (`s` is a 16-bit integer, `l`
a 64-bit one); of those that only the specification of 0-9-1 names, `U` and `L` are read as well. Text that is no UTF-8
comes back as `surrogateescape` has it, so that it is written again as it was.
"""

from __future__ import annotations

from decimal import Decimal
from struct import Struct
from typing import Any

from mypy_extensions import mypyc_attr

DEEPEST = 100
"""Levels of nesting in a field table; beyond is an error."""

_FLOAT = Struct(">f")
_DOUBLE = Struct(">d")
_LONG = Struct(">I")
_LONGLONG = Struct(">Q")


class Malformed(Exception):
    """The bytes are not what the protocol says: costs the connection (reply code 501 or 502)."""


@mypyc_attr(native_class=False)
class Timestamp(int):
    """Seconds since the epoch; kept apart from other integers so that it is written as a timestamp again."""


def u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def u32(data: bytes, at: int) -> int:
    return data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]


def u64(data: bytes, at: int) -> int:
    return u32(data, at) << 32 | u32(data, at + 4)


def pack32(value: int) -> bytes:
    return _LONG.pack(value)


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def short_string(value: str) -> bytes:
    """Raises: ValueError for more than 255 bytes."""
    data = value.encode("utf-8", "surrogateescape")
    if len(data) > 255:
        raise ValueError("a short string has at most 255 bytes")
    return bytes([len(data)]) + data


def long_string(value: bytes) -> bytes:
    return pack32(len(value)) + value


def read_short_string(data: bytes, at: int, end: int) -> bytes:
    """The bytes of a short string; the next thing begins behind them and its length octet. Raises: Malformed."""
    if at >= end or at + 1 + data[at] > end:
        raise Malformed("a short string does not fit")
    return data[at + 1:at + 1 + data[at]]


def read_table(data: bytes, at: int, end: int, depth: int = 0) -> dict[str, Any]:
    """A table without its length, from `at` to `end`. Of a name that comes twice the last counts. Raises: Malformed."""
    if depth > DEEPEST:
        raise Malformed(f"a field table is nested more than {DEEPEST} levels deep")
    table: dict[str, Any] = {}
    while at < end:
        name = read_short_string(data, at, end)
        at += 1 + len(name)
        after = skip_value(data, at, end, depth)
        table[text(name)] = read_value(data, at, after, depth)
        at = after
    return table


def read_array(data: bytes, at: int, end: int, depth: int) -> list[Any]:
    """An array without its length. Raises: Malformed."""
    if depth > DEEPEST:
        raise Malformed(f"a field table is nested more than {DEEPEST} levels deep")
    values = []
    while at < end:
        after = skip_value(data, at, end, depth)
        values.append(read_value(data, at, after, depth))
        at = after
    return values


_WIDTHS = {0x74: 1, 0x62: 1, 0x42: 1, 0x73: 2, 0x55: 2, 0x75: 2, 0x49: 4, 0x69: 4, 0x6C: 8, 0x4C: 8, 0x66: 4, 0x64: 8,
           0x44: 5, 0x54: 8, 0x56: 0}
"""Bytes behind the type octet, for the types of fixed width: t b B s U u I i l L f d D T V."""


def skip_value(data: bytes, at: int, end: int, depth: int) -> int:
    """Where the value that begins at `at` with its type octet ends. Looks into tables and arrays only as far as
    their length. Raises: Malformed."""
    if at >= end:
        raise Malformed("a field value is missing")
    kind = data[at]
    width = _WIDTHS.get(kind, -1)
    if width >= 0:
        after = at + 1 + width
    elif kind == 0x53 or kind == 0x46 or kind == 0x41 or kind == 0x78:  # S F A x
        if at + 5 > end:
            raise Malformed("a field value does not fit")
        after = at + 5 + u32(data, at + 1)
    else:
        raise Malformed(f"unknown field type {bytes([kind])!r}")
    if after > end:
        raise Malformed("a field value does not fit")
    return after


def check_table(data: bytes, at: int, end: int, depth: int = 0) -> None:
    """Go through a table, building nothing, to see that a reader will be able to. Raises: Malformed."""
    if depth > DEEPEST:
        raise Malformed(f"a field table is nested more than {DEEPEST} levels deep")
    while at < end:
        at += 1 + data[at]
        after = skip_value(data, at, end, depth)
        if data[at] == 0x46:
            check_table(data, at + 5, after, depth + 1)
        elif data[at] == 0x41:
            _check_array(data, at + 5, after, depth + 1)
        at = after


def _check_array(data: bytes, at: int, end: int, depth: int) -> None:
    if depth > DEEPEST:
        raise Malformed(f"a field table is nested more than {DEEPEST} levels deep")
    while at < end:
        after = skip_value(data, at, end, depth)
        if data[at] == 0x46:
            check_table(data, at + 5, after, depth + 1)
        elif data[at] == 0x41:
            _check_array(data, at + 5, after, depth + 1)
        at = after


def read_value(data: bytes, at: int, end: int, depth: int = 0) -> Any:
    """The value from `at`, its type octet, to `end`, as `skip_value` found it. Raises: Malformed."""
    kind = data[at]
    at += 1
    if kind == 0x53:  # S
        return text(data[at + 4:end])
    if kind == 0x46:  # F
        return read_table(data, at + 4, end, depth + 1)
    if kind == 0x41:  # A
        return read_array(data, at + 4, end, depth + 1)
    if kind == 0x78:  # x
        return data[at + 4:end]
    if kind == 0x74:  # t
        return data[at] != 0
    if kind == 0x56:  # V
        return None
    if kind == 0x54:  # T
        return Timestamp(u64(data, at))
    if kind == 0x66:  # f
        return _FLOAT.unpack(data[at:end])[0]
    if kind == 0x64:  # d
        return _DOUBLE.unpack(data[at:end])[0]
    if kind == 0x44:  # D
        return Decimal(int.from_bytes(data[at + 1:end], "big", signed=True)).scaleb(-data[at])
    unsigned = kind == 0x42 or kind == 0x75 or kind == 0x69  # B u i
    return int.from_bytes(data[at:end], "big", signed=not unsigned)


def write_table(table: dict[str, Any]) -> bytes:
    """A table with its length. Raises: ValueError for what has no place in one."""
    content = b"".join(short_string(name) + write_value(value) for name, value in table.items())
    return long_string(content)


def write_value(value: Any) -> bytes:
    """A value behind its type octet. Integers take the narrowest of I and l. Raises: ValueError."""
    if isinstance(value, str):
        return b"S" + long_string(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, Timestamp):
        return b"T" + _LONGLONG.pack(value)
    if isinstance(value, int):
        if -2**31 <= value < 2**31:
            return b"I" + value.to_bytes(4, "big", signed=True)
        if -2**63 <= value < 2**63:
            return b"l" + value.to_bytes(8, "big", signed=True)
        raise ValueError(f"{value} does not fit a field table")
    if isinstance(value, float):
        return b"d" + _DOUBLE.pack(value)
    if isinstance(value, bytes):
        return b"x" + long_string(value)
    if isinstance(value, dict):
        return b"F" + write_table(value)
    if isinstance(value, (list, tuple)):
        return b"A" + long_string(b"".join(write_value(item) for item in value))
    if value is None:
        return b"V"
    if isinstance(value, Decimal):
        return _write_decimal(value)
    raise ValueError(f"a field table has no type for {type(value).__name__}")


def _write_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 0:
        raise ValueError(f"{value} does not fit a field table")
    number = int("".join(map(str, digits)))
    if number >= 2**31 + sign:
        raise ValueError(f"{value} does not fit a field table")
    return b"D" + bytes([-exponent]) + (-number if sign else number).to_bytes(4, "big", signed=True)
