"""Maps and lists as AMQP 0-10 encodes them (its section 1.5), which are the bodies of content types `amqp/map` and
`amqp/list` in all dialects before 1.0.

Values are those of broker/values.py. What 0-10 has no exact type for is refused, so that what was written is read
again as it was.
"""

from __future__ import annotations

import uuid
from struct import Struct
from typing import Any

from broker.values import Byte, Char, Float, Int, Odd, Short, Timestamp, UByte, UInt, ULong, UShort

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


def read_map(data: bytes) -> dict[str, Any]:
    """Raises: ValueError."""
    reader = _Reader(data)
    value = reader.map(0)
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


def write_map(value: dict[str, Any]) -> bytes:
    """Raises: ValueError for what 0-10 cannot say exactly."""
    parts = []
    for key, item in value.items():
        name = key.encode("utf-8")
        if len(name) > 255:
            raise ValueError("a key has more than 255 bytes")
        parts += [bytes([len(name)]), name, _write(item)]
    return _sized(len(value), b"".join(parts))


def write_list(value: list[Any]) -> bytes:
    """Raises: ValueError for what 0-10 cannot say exactly."""
    return _sized(len(value), b"".join([_write(item) for item in value]))


class _Reader:
    """Goes through bytes. All methods raise ValueError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

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

    def _begin(self, depth: int) -> tuple[int, int]:
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

    def map(self, depth: int) -> dict[str, Any]:
        count, end = self._begin(depth)
        found: dict[str, Any] = {}
        for _ in range(count):
            name = self.take(self.number(1)).decode("utf-8")
            found[name] = self.value(depth)
        if self.at != end or len(found) != count:
            raise ValueError("a map's size is wrong, or it has a key twice")
        return found

    def sequence(self, depth: int) -> list[Any]:
        count, end = self._begin(depth)
        found = [self.value(depth) for _ in range(count)]
        if self.at != end:
            raise ValueError("a list's size is wrong")
        return found

    def array(self, depth: int) -> list[Any]:
        end = self.at + 4 + self.number(4)
        code = self.number(1)
        count = self.number(4)
        if count > len(self.data):
            raise ValueError("an array is cut off")
        found = [self.typed(code, depth) for _ in range(count)]
        if self.at != end:
            raise ValueError("an array's size is wrong")
        return found

    def value(self, depth: int) -> Any:
        return self.typed(self.number(1), depth)

    def typed(self, code: int, depth: int) -> Any:
        integer = _INTEGERS.get(code)
        if integer is not None:
            kind, width, signed = integer
            return kind(int.from_bytes(self.take(width), "big", signed=signed))
        if code in _TEXTS:
            width, charset = _TEXTS[code]
            return self.take(self.number(width)).decode(charset)
        if code in _BINARIES:
            return self.take(self.number(_BINARIES[code]))
        if code == 0xA8:
            return self.map(depth + 1)
        if code == 0xA9:
            return self.sequence(depth + 1)
        if code == 0xAA:
            return self.array(depth + 1)
        return self._other(code)

    def _other(self, code: int) -> Any:
        if code == 0xF0:
            return None
        if code == 0x08:
            return self.number(1) != 0
        if code == 0xF1:
            return True
        if code == 0x23:
            return Float(_FLOAT.unpack(self.take(4))[0])
        if code == 0x33:
            return _DOUBLE.unpack(self.take(8))[0]
        if code == 0x27:
            return Char(chr(self.number(4)))
        if code == 0x04:
            return Char(self.take(1).decode("latin-1"))
        if code == 0x38:
            return Timestamp(self.number(8) * 1000)
        if code == 0x48:
            return uuid.UUID(bytes=self.take(16))
        width = 1 << (code >> 4)
        if code < 0x80:  # of a fixed width, which the type code tells (section 1.5)
            return Odd(code, self.take(width))
        if code < 0xB0:  # of a variable width
            return Odd(code, self.take(self.number((1, 2, 4)[(code >> 4) - 8])))
        if 0xC0 <= code < 0xE0:  # of five and of nine bytes
            return Odd(code, self.take(5 if code < 0xD0 else 9))
        raise ValueError(f"a value has type {code:#04x}, which 0-10 does not have")


def _sized(count: int, content: bytes) -> bytes:
    return (len(content) + 4).to_bytes(4, "big") + count.to_bytes(4, "big") + content


def _write(value: Any) -> bytes:
    kind = type(value)
    known = _CODES.get(kind)
    if known is not None:
        code, width, signed = known
        try:
            number: int = value
            return bytes([code]) + number.to_bytes(width, "big", signed=signed)
        except OverflowError:
            raise ValueError(f"{value} does not fit its type") from None
    if kind is str:
        text: bytes = value.encode("utf-8")
        if len(text) > 65535:
            raise ValueError("a text has more than 65535 bytes")
        return b"\x95" + len(text).to_bytes(2, "big") + text
    if kind is bytes:
        return b"\xa0" + len(value).to_bytes(4, "big") + bytes(value)
    if kind is dict:
        return b"\xa8" + write_map(value)
    if kind is list:
        return b"\xa9" + write_list(value)
    if value is None:
        return b"\xf0"
    if kind is bool:
        return b"\x08\x01" if value else b"\x08\x00"
    if kind is Float:
        return b"\x23" + _FLOAT.pack(value)
    if kind is float:
        return b"\x33" + _DOUBLE.pack(value)
    if kind is Char:
        return b"\x27" + ord(value).to_bytes(4, "big")
    if isinstance(value, uuid.UUID):
        return b"\x48" + value.bytes
    if kind is Odd:
        return _write_odd(value.code, value.data)
    if kind is Timestamp and value >= 0 and value % 1000 == 0:
        seconds: int = value // 1000
        return b"\x38" + seconds.to_bytes(8, "big")
    raise ValueError(f"0-10 has no exact type for {kind.__name__}")


def _write_odd(code: int, data: bytes) -> bytes:
    if 0x80 <= code < 0xB0:
        return bytes([code]) + len(data).to_bytes((1, 2, 4)[(code >> 4) - 8], "big") + data
    return bytes([code]) + data
