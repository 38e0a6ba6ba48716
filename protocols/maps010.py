"""Maps and lists as AMQP 0-10 encodes them (its section 1.5), which are the bodies of content types `amqp/map` and
`amqp/list` in all dialects before 1.0.

Values are those of broker/values.py. What 0-10 has no exact type for is refused, so that what was written is read
again as it was. (Text and binaries are the same in all widths.)
"""

from __future__ import annotations

import uuid
from struct import Struct
from typing import Any

from broker.values import (
    Array,
    Byte,
    Char,
    Float,
    Int,
    Odd,
    Opaque,
    Short,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)
from protocols import values10
from protocols.values10 import MOST_EMPTY

DEEPEST = 100
"""Levels of nesting; beyond is an error."""

_FLOAT = Struct(">f")
_DOUBLE = Struct(">d")

_INTEGERS: dict[int, tuple[type, int, bool]] = {
    0x01: (Byte, 1, True), 0x02: (UByte, 1, False), 0x11: (Short, 2, True), 0x12: (UShort, 2, False),
    0x21: (Int, 4, True), 0x22: (UInt, 4, False), 0x31: (int, 8, True), 0x32: (ULong, 8, False)}
_CODES = {kind: (code, width, signed) for code, (kind, width, signed) in _INTEGERS.items()}
_TEXTS = {0x84: (1, "latin-1"), 0x85: (1, "utf-8"), 0x86: (1, "utf-16-be"), 0x94: (2, "latin-1"), 0x95: (2, "utf-8"),
          0x96: (2, "utf-16-be")}
_BINARIES = {0x80: 1, 0x90: 2, 0xA0: 4}
_ARRAYS = {
    0x01: values10.BYTE, 0x02: values10.UBYTE, 0x11: values10.SHORT, 0x12: values10.USHORT, 0x21: values10.INT,
    0x22: values10.UINT, 0x31: values10.LONG, 0x32: values10.ULONG, 0x08: values10.BOOLEAN, 0x23: values10.FLOAT,
    0x33: values10.DOUBLE, 0x27: values10.CHAR, 0x38: values10.TIMESTAMP, 0x48: values10.UUID,
    0x80: values10.BINARY8, 0xA0: values10.BINARY32, 0x85: values10.STRING8, 0x95: values10.STRING32,
    0xA8: values10.MAP32, 0xA9: values10.LIST32, 0xAA: values10.ARRAY32, 0xF0: values10.NULL}
"""The equal of an array's type in 1.0."""
_ARRAY_CODES = {kind: code for code, kind in _ARRAYS.items()}
_LAST_SECOND = (2**63 - 1) // 1000
"""The last time that 1.0 can say, s since the epoch."""


def read_map(data: bytes) -> dict[str, Any]:
    """Raises: ValueError."""
    reader = _Reader(data)
    value: dict[str, Any] = reader.map(0)
    reader.finish()
    return value


def read_list(data: bytes) -> list[Any]:
    """Raises: ValueError."""
    reader = _Reader(data)
    value = reader.sequence(0)
    reader.finish()
    return value


def read_array(data: bytes) -> list[Any]:
    """Raises: ValueError."""
    reader = _Reader(data)
    value = reader.array(0)
    reader.finish()
    return value


def split_map(data: bytes) -> dict[str, bytes]:
    """A map's names with their values still encoded, type first; the last one of a name that is there more than once.
    Raises: ValueError."""
    reader = _Reader(data)
    found: dict[str, bytes] = {}
    for _ in range(reader.begin(0)[0]):
        name = reader.take(reader.number(1)).decode("utf-8", "surrogateescape")
        at = reader.at
        reader.skip(reader.number(1))
        found[name] = data[at:reader.at]
    reader.finish()
    return found


def join_map(entries: dict[str, bytes]) -> bytes:
    """The reverse of `split_map`. Names have at most 255 bytes."""
    parts = []
    for key, entry in entries.items():
        name = key.encode("utf-8", "surrogateescape")
        parts += [bytes([len(name)]), name, entry]
    return _sized(len(entries), b"".join(parts))


def join_list(items: list[bytes]) -> bytes:
    """A list, without its type, of values that are encoded already."""
    return _sized(len(items), b"".join(items))


def write(value: Any, depth: int) -> bytes:
    """A value with its type first. depth: levels of maps and lists that it will be in.

    Raises: ValueError for what 0-10 cannot say exactly.
    """
    return _write(value, depth)


def write_map(value: dict[str, Any]) -> bytes:
    """Raises: ValueError for what 0-10 cannot say exactly."""
    return _write_map(value, 0)


def write_list(value: list[Any]) -> bytes:
    """Raises: ValueError for what 0-10 cannot say exactly."""
    return _write_list(value, 0)


class _Reader:
    """Goes through bytes. All methods raise ValueError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.empty = 0  # elements of arrays without bytes so far

    def take(self, size: int) -> bytes:
        at = self.at
        if at + size > len(self.data):
            raise ValueError("a value is cut off")
        self.at = at + size
        return self.data[at:at + size]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def finish(self) -> None:
        if self.at != len(self.data):
            raise ValueError("there is something behind the value")

    def begin(self, depth: int) -> tuple[int, int]:
        """The number of values, and where they end."""
        if depth > DEEPEST:
            raise ValueError(f"values are nested more than {DEEPEST} levels deep")
        size = self.number(4)
        end = self.at + size
        if size == 0:  # as some write an empty one
            return 0, end
        count = self.number(4)
        if end > len(self.data) or count > size:
            raise ValueError("a map or list is cut off")
        return count, end

    def map(self, depth: int) -> Any:
        """A dict; within others an Odd, if a dict of text would not have all that is in it."""
        start = self.at
        count, end = self.begin(depth)
        found: dict[str, Any] = {}
        sound = True
        for _ in range(count):
            name = self.take(self.number(1))
            value = self.value(depth)
            try:
                found[name.decode("utf-8")] = value
            except UnicodeDecodeError:
                sound = False
        if self.at != end:
            raise ValueError("a map's size is wrong")
        if sound and len(found) == count:
            return found
        if depth == 0:
            raise ValueError("a map has a key twice, or one that is no UTF-8")
        return Odd(0xA8, self.data[start + 4:end])

    def sequence(self, depth: int) -> list[Any]:
        count, end = self.begin(depth)
        found = [self.value(depth) for _ in range(count)]
        if self.at != end:
            raise ValueError("a list's size is wrong")
        return found

    def array(self, depth: int) -> list[Any]:
        return self.elements(depth)[1]

    def elements(self, depth: int) -> tuple[int, list[Any]]:
        """An array's type and its values."""
        if depth > DEEPEST:
            raise ValueError(f"values are nested more than {DEEPEST} levels deep")
        size = self.number(4)
        end = self.at + size
        if size == 0:  # as some write an empty one
            return 0xF0, []
        code = self.number(1)
        count = self.number(4)
        if code >= 0xF0:
            self.empty += count
        if end > len(self.data) or self.empty > MOST_EMPTY or code < 0xF0 and count > size:
            raise ValueError("an array is cut off")
        found = [self.typed(code, depth) for _ in range(count)]
        if self.at != end:
            raise ValueError("an array's size is wrong")
        return code, found

    def value(self, depth: int) -> Any:
        return self.typed(self.number(1), depth)

    def typed(self, code: int, depth: int) -> Any:
        """A value of this type. What has no equal in other dialects, or is not as its type should be, is an Odd."""
        integer = _INTEGERS.get(code)
        if integer is not None:
            kind, width, signed = integer
            return kind(int.from_bytes(self.take(width), "big", signed=signed))
        if code in _TEXTS:
            width, charset = _TEXTS[code]
            data = self.take(self.number(width))
            try:
                return data.decode(charset)
            except UnicodeDecodeError:
                return Odd(code, data)
        if code in _BINARIES:
            return self.take(self.number(_BINARIES[code]))
        if code == 0xA8:
            return self.map(depth + 1)
        if code == 0xA9:
            return self.sequence(depth + 1)
        if code == 0xAA:
            return self._array(depth + 1)
        return self._other(code)

    def _array(self, depth: int) -> Any:
        start = self.at
        code, values = self.elements(depth)
        kind = _ARRAYS.get(code)
        if kind is None or start + 4 == self.at or any(type(value) is Odd for value in values):
            return Odd(0xAA, self.data[start + 4:self.at])
        return Array(kind, values)

    def _other(self, code: int) -> Any:
        if code == 0xF0:
            return None
        if code == 0xF1:
            return True
        if 0xB0 <= code < 0xC0:
            raise ValueError(f"a value has type {code:#04x}, which 0-10 does not have")
        data = self.take(_width(code) if code < 0x80 or code >= 0xC0 else self.number(_LENGTHS[(code >> 4) - 8]))
        number = int.from_bytes(data[:8], "big")
        if code == 0x08 and number < 2:
            return number == 1
        if code == 0x23:
            return values10.float32(data)
        if code == 0x33:
            return _DOUBLE.unpack(data)[0]
        if code == 0x27 and number < 0x110000 or code == 0x04:
            return Char(chr(number))
        if code == 0x38 and number <= _LAST_SECOND:
            return Timestamp(number * 1000)
        if code == 0x48:
            return uuid.UUID(bytes=data)
        if code == 0xC8 or code == 0xD8:
            number = int.from_bytes(data[1:], "big", signed=True)
            if code == 0xC8 or not -2**31 <= number < 2**31:  # else it would come back as a dec32
                return values10.decimal(data[0], number)
        return Odd(code, data)

    def skip(self, code: int) -> None:
        """Go behind the value of this type."""
        if 0x80 <= code < 0xB0:
            self.take(self.number(_LENGTHS[(code >> 4) - 8]))
        else:
            self.take(_width(code))


_LENGTHS = (1, 2, 4)
"""Bytes of the length of values whose type is 0x8., 0x9. and 0xa. (section 1.5)."""


def _width(code: int) -> int:
    """Bytes of a value of fixed width. Raises: ValueError for a type that there cannot be."""
    if code < 0x80:
        return 1 << (code >> 4)
    if 0xC0 <= code < 0xE0:
        return 5 if code < 0xD0 else 9
    if code == 0xF0 or code == 0xF1:
        return 0
    raise ValueError(f"a value has type {code:#04x}, which 0-10 does not have")


def _sized(count: int, content: bytes) -> bytes:
    return (len(content) + 4).to_bytes(4, "big") + count.to_bytes(4, "big") + content


def _write_map(value: dict[str, Any], depth: int) -> bytes:
    parts = []
    for key, item in value.items():
        name = key.encode("utf-8")
        if len(name) > 255:
            raise ValueError("a key has more than 255 bytes")
        parts += [bytes([len(name)]), name, _write(item, depth)]
    return _sized(len(value), b"".join(parts))


def _write_list(value: list[Any], depth: int) -> bytes:
    return _sized(len(value), b"".join([_write(item, depth) for item in value]))


def _write(value: Any, depth: int) -> bytes:
    """depth: levels of maps, lists and arrays around it."""
    kind = type(value)
    if kind is str:
        text: bytes = value.encode("utf-8")
        if len(text) > 65535:
            raise ValueError("a text has more than 65535 bytes")
        return b"\x95" + len(text).to_bytes(2, "big") + text
    known = _CODES.get(kind)
    if known is not None:
        code, width, signed = known
        try:
            number: int = value
            return bytes([code]) + number.to_bytes(width, "big", signed=signed)
        except OverflowError:
            raise ValueError(f"{value} does not fit its type") from None
    if kind is bytes:
        return b"\xa0" + len(value).to_bytes(4, "big") + bytes(value)
    if value is None:
        return b"\xf0"
    if kind is bool:
        return b"\x08\x01" if value else b"\x08\x00"
    if kind is dict or kind is list or kind is Array:
        if depth >= DEEPEST:
            raise ValueError(f"values are nested more than {DEEPEST} levels deep")
        if kind is dict:
            return b"\xa8" + _write_map(value, depth + 1)
        return b"\xa9" + _write_list(value, depth + 1) if kind is list else _write_array(value, depth + 1)
    return _write_other(value, depth)


def _write_other(value: Any, depth: int) -> bytes:
    kind = type(value)
    if kind is Float:
        return b"\x23" + _FLOAT.pack(value)
    if kind is float:
        return b"\x33" + _DOUBLE.pack(value)
    if kind is Char:
        return b"\x27" + ord(value).to_bytes(4, "big")
    if isinstance(value, uuid.UUID):
        return b"\x48" + value.bytes
    if kind is Odd:
        return _write_odd(value, depth)
    if kind is Timestamp and value >= 0 and value % 1000 == 0:
        seconds: int = value // 1000
        return b"\x38" + seconds.to_bytes(8, "big")
    if kind is Opaque:
        if value.kind == values10.FLOAT:
            return b"\x23" + bytes(value.data)
        parts = values10.scaled(value)
        if parts is not None and -2**63 <= parts[1] < 2**63:
            width = 4 if -2**31 <= parts[1] < 2**31 else 8
            return bytes([0xC8 if width == 4 else 0xD8, parts[0]]) + parts[1].to_bytes(width, "big", signed=True)
    raise ValueError(f"0-10 has no exact type for {kind.__name__}")


def _write_array(array: Array, depth: int) -> bytes:
    """Raises: ValueError when 0-10 cannot have such an array, or would read another one."""
    code = _ARRAY_CODES.get(array.kind)
    if array.described or code is None or code == 0xF0 and len(array.values) > MOST_EMPTY:
        raise ValueError("0-10 has no such array")
    parts = [bytes([code]), len(array.values).to_bytes(4, "big")]
    for value in array.values:
        if code in (0x80, 0x85):
            data = value.encode("utf-8") if type(value) is str else value
            if type(value) is not (str if code == 0x85 else bytes) or len(data) > 255:
                raise ValueError("a value is not of its array's type")
            parts.append(bytes([len(data)]) + data)
        else:
            encoded = _write(value, depth)
            if encoded[0] != code:
                raise ValueError("a value is not of its array's type")
            parts.append(encoded[1:])
    content = b"".join(parts)
    return b"\xaa" + len(content).to_bytes(4, "big") + content


def _write_odd(value: Odd, depth: int) -> bytes:
    """Raises: ValueError for one that would be read as something else: anybody may have said that it is odd."""
    code, data = value.code, value.data
    encoded = bytes([code]) + data
    if 0x80 <= code < 0xB0:
        if len(data) >= 256 ** _LENGTHS[(code >> 4) - 8]:
            raise ValueError("an odd value is too long")
        encoded = bytes([code]) + len(data).to_bytes(_LENGTHS[(code >> 4) - 8], "big") + data
    reader = _Reader(encoded)
    found = reader.value(depth)
    reader.finish()
    if found != value:
        raise ValueError("an odd value is not odd")
    return encoded
