"""The types of AMQP 1.0: bytes to values and back (part 1, section 1.6).

Values are Python's own and those of broker/values.py. Text that is no UTF-8 comes back as `surrogateescape` has it, so
that it is written again as it was. Writing chooses the shortest encoding, as Proton does.
"""

from __future__ import annotations

import uuid
from struct import Struct
from typing import Any, Final

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
)

ODD: Final = "amqp:0-10:value"
"""Descriptor, a symbol, of what only 0-10 has a type for: its binary is the type code and the bytes of the value."""

DEEPEST: Final = 100
"""Levels of nesting; beyond is an error."""

MOST_EMPTY: Final = 4096
"""Elements of arrays that take no bytes each (of nulls, say); more of them in all that is read are an error, for four
billion fit into a line."""

_FLOAT: Final = Struct(">f")
_DOUBLE: Final = Struct(">d")

NULL: Final = 0x40
DESCRIBED: Final = 0x00
TRUE: Final = 0x41
FALSE: Final = 0x42
BOOLEAN: Final = 0x56
UINT0: Final = 0x43
ULONG0: Final = 0x44
LIST0: Final = 0x45
SMALLUINT: Final = 0x52
SMALLULONG: Final = 0x53
SMALLINT: Final = 0x54
SMALLLONG: Final = 0x55
UBYTE: Final = 0x50
BYTE: Final = 0x51
USHORT: Final = 0x60
SHORT: Final = 0x61
UINT: Final = 0x70
INT: Final = 0x71
ULONG: Final = 0x80
LONG: Final = 0x81
FLOAT: Final = 0x72
DOUBLE: Final = 0x82
CHAR: Final = 0x73
TIMESTAMP: Final = 0x83
UUID: Final = 0x98
DECIMAL32: Final = 0x74
DECIMAL64: Final = 0x84
DECIMAL128: Final = 0x94
BINARY8: Final = 0xA0
BINARY32: Final = 0xB0
STRING8: Final = 0xA1
STRING32: Final = 0xB1
SYMBOL8: Final = 0xA3
SYMBOL32: Final = 0xB3
LIST8: Final = 0xC0
LIST32: Final = 0xD0
MAP8: Final = 0xC1
MAP32: Final = 0xD1
ARRAY8: Final = 0xE0
ARRAY32: Final = 0xF0
"""Constructors."""

KINDS: Final = frozenset({
    NULL, TRUE, FALSE, BOOLEAN, UINT0, ULONG0, LIST0, SMALLUINT, SMALLULONG, SMALLINT, SMALLLONG, UBYTE, BYTE, USHORT,
    SHORT, UINT, INT, ULONG, LONG, FLOAT, DOUBLE, CHAR, TIMESTAMP, UUID, DECIMAL32, DECIMAL64, DECIMAL128, BINARY8,
    BINARY32, STRING8, STRING32, SYMBOL8, SYMBOL32, LIST8, LIST32, MAP8, MAP32, ARRAY8, ARRAY32})


class Malformed(Exception):
    """The bytes are no AMQP 1.0 (`amqp:decode-error`)."""


class Reader:
    """Goes through bytes, a value at a time. All methods raise Malformed."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end
        self.empty = 0  # elements without bytes so far

    def number(self, width: int) -> int:
        """An unsigned integer of `width` bytes."""
        at = self.at
        if at + width > self.end:
            raise Malformed("a value is cut off")
        self.at = at + width
        data = self.data
        if width == 1:
            return data[at]
        if width == 4:
            return data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
        return int.from_bytes(data[at:at + width], "big")

    def take(self, size: int) -> bytes:
        at = self.at
        if at + size > self.end:
            raise Malformed("a value is cut off")
        self.at = at + size
        return self.data[at:at + size]

    def value(self, depth: int = 0) -> Any:
        """The next value."""
        kind = self.number(1)
        if kind != DESCRIBED:
            return self.body(kind, depth)
        if depth > DEEPEST:
            raise Malformed(f"values are nested more than {DEEPEST} levels deep")
        descriptor = self.value(depth + 1)
        value = self.value(depth + 1)
        if type(descriptor) is Symbol and descriptor == ODD and type(value) is bytes and value:
            return Odd(value[0], value[1:])
        return Described(descriptor, value)

    def body(self, kind: int, depth: int) -> Any:
        """What follows the constructor `kind`."""
        if kind not in KINDS:
            raise Malformed(f"there is no constructor {kind:#04x}")
        if kind >= LIST8 or kind == LIST0:
            return self._compound(kind, depth)
        if kind >= BINARY8:
            data = self.take(self.number(1 if kind < BINARY32 else 4))
            if kind == BINARY8 or kind == BINARY32:
                return data
            if kind == STRING8 or kind == STRING32:
                return text(data)
            return Symbol(text(data))
        return self._fixed(kind)

    def skip(self, depth: int = 0) -> None:
        """Go behind the next value, looking into it no further than its size."""
        kind = self.number(1)
        if kind == DESCRIBED:
            if depth > DEEPEST:
                raise Malformed(f"values are nested more than {DEEPEST} levels deep")
            self.skip(depth + 1)
            self.skip(depth + 1)
            return
        if kind not in KINDS:
            raise Malformed(f"there is no constructor {kind:#04x}")
        group = kind >> 4
        if group >= 0xA:
            self.take(self.number(4 if group & 1 else 1))
        elif group >= 5:
            self.take(1 << (group - 5))

    def _fixed(self, kind: int) -> Any:
        if kind == NULL:
            return None
        if kind == TRUE:
            return True
        if kind == FALSE:
            return False
        if kind == UINT0:
            return UInt(0)
        if kind == ULONG0:
            return ULong(0)
        data = self.take(1 << ((kind >> 4) - 5))
        if kind == FLOAT:
            return float32(data)
        if kind == DOUBLE:
            return _DOUBLE.unpack(data)[0]
        if kind == UUID:
            return uuid.UUID(bytes=data)
        if kind == DECIMAL32 or kind == DECIMAL64 or kind == DECIMAL128:
            return Opaque(kind, data)
        if kind == BOOLEAN or kind == CHAR:
            return _boolean_or_char(kind, data)
        return _integer(kind, data)

    def _compound(self, kind: int, depth: int) -> Any:
        if kind == LIST0:
            return []
        if depth > DEEPEST:
            raise Malformed(f"values are nested more than {DEEPEST} levels deep")
        width = 4 if kind & 0x10 else 1
        size = self.number(width)
        end = self.at + size
        if size < width or end > self.end:
            raise Malformed("a list, map or array is cut off")
        outer, self.end = self.end, end
        count = self.number(width)
        value: Any
        if kind == ARRAY8 or kind == ARRAY32:
            value = self._array(count, depth)
        else:
            if count > size - width:  # each takes a byte at least
                raise Malformed("a list or map says that it has more values than it has bytes")
            values = [self.value(depth + 1) for _ in range(count)]
            value = values if kind == LIST8 or kind == LIST32 else _mapping(values)
        if self.at != end:
            raise Malformed("a list, map or array has more bytes than its values")
        self.end = outer
        return value

    def _array(self, count: int, depth: int) -> Array:
        kind = self.number(1)
        described = kind == DESCRIBED
        descriptor = None
        if described:
            descriptor = self.value(depth + 1)
            kind = self.number(1)
        if kind not in KINDS:
            raise Malformed(f"there is no constructor {kind:#04x}")
        if kind >> 4 == 4:
            self.empty += count
        if self.empty > MOST_EMPTY or kind >> 4 != 4 and count > self.end - self.at:
            raise Malformed("an array says that it has more values than it may have")
        return Array(kind, [self.body(kind, depth + 1) for _ in range(count)], descriptor, described)


def decode(data: bytes) -> Any:
    """The one value that the bytes are. Raises: Malformed."""
    reader = Reader(data, 0, len(data))
    value = reader.value()
    if reader.at != len(data):
        raise Malformed("there is something behind the value")
    return value


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def is_text(value: str) -> bool:
    """Whether it was UTF-8 as it came."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def float32(data: bytes) -> Any:
    """A float of 32 bits. One of the NaNs that Python would make another of (a signalling one) keeps its bytes."""
    value = Float(_FLOAT.unpack(data)[0])
    return value if _FLOAT.pack(value) == data else Opaque(FLOAT, data)


_BIAS: Final = 6176  # of a decimal128's exponent
_NEGATIVE: Final = 1 << 127


def decimal(scale: int, number: int) -> Opaque:
    """The decimal128 that is number / 10^scale. scale: 0 to 255; number: of 64 bits."""
    bits = (_BIAS - scale) << 113 | abs(number)
    return Opaque(DECIMAL128, (bits | _NEGATIVE if number < 0 else bits).to_bytes(16, "big"))


def scaled(value: Opaque) -> tuple[int, int] | None:
    """The reverse of `decimal`: scale and number; None for what it does not make, of any size (and -0)."""
    if value.kind != DECIMAL128:
        return None
    bits = int.from_bytes(value.data, "big")
    negative = bits & _NEGATIVE
    scale = _BIAS - ((bits ^ negative) >> 113)
    digits = bits & (1 << 113) - 1
    if not 0 <= scale <= 255 or negative and not digits:
        return None
    return scale, -digits if negative else digits


def _integer(kind: int, data: bytes) -> Any:
    """(Any, because a compiled function that says int gives plain ones, without their types.)"""
    if kind == TIMESTAMP:
        return Timestamp(int.from_bytes(data, "big", signed=True))
    if kind == LONG or kind == SMALLLONG:
        return int.from_bytes(data, "big", signed=True)
    if kind == INT or kind == SMALLINT:
        return Int(int.from_bytes(data, "big", signed=True))
    if kind == SHORT:
        return Short(int.from_bytes(data, "big", signed=True))
    if kind == BYTE:
        return Byte(int.from_bytes(data, "big", signed=True))
    number = int.from_bytes(data, "big")
    if kind == UBYTE:
        return UByte(number)
    if kind == USHORT:
        return UShort(number)
    if kind == UINT or kind == SMALLUINT:
        return UInt(number)
    return ULong(number)


def _boolean_or_char(kind: int, data: bytes) -> Any:
    number = int.from_bytes(data, "big")
    if kind == BOOLEAN:
        if number > 1:
            raise Malformed("a boolean is neither 0 nor 1")
        return number == 1
    if number > 0x10FFFF:
        raise Malformed(f"there is no character {number:#x}")
    return Char(chr(number))


def _mapping(values: list[Any]) -> dict[str, Any] | Pairs:
    if len(values) % 2:
        raise Malformed("a map has a key without a value")
    keys = values[::2]
    mapping: dict[str, Any] = {}
    for index, key in enumerate(keys):
        if type(key) is not str or key in mapping:
            return Pairs(list(zip(keys, values[1::2], strict=False)))
        mapping[key] = values[2 * index + 1]
    return mapping


# Writing.

_ODD: Final = b"\x00\xa3" + bytes([len(ODD)]) + ODD.encode()


def encode(value: Any) -> bytes:
    """A value with its constructor. Raises: ValueError for what AMQP 1.0 cannot say."""
    if value is None:
        return b"\x40"
    if value is True:
        return b"\x41"
    if value is False:
        return b"\x42"
    if isinstance(value, str):
        return _encode_text(value)
    kind = type(value)  # not isinstance: compiled, what is known to be an int or a float is a plain one
    if kind in _INTEGERS:
        return _encode_integer(value, kind)
    if isinstance(value, bytes):
        return sized(BINARY8, value)
    if kind is Float:
        return b"\x72" + _FLOAT.pack(value)
    if kind is float:
        return b"\x82" + _DOUBLE.pack(value)
    if isinstance(value, uuid.UUID):
        return b"\x98" + value.bytes
    if isinstance(value, Opaque):
        return bytes([value.kind]) + value.data
    if isinstance(value, Described):
        return b"\x00" + encode(value.descriptor) + encode(value.value)
    if isinstance(value, list):
        return encode_list([encode(item) for item in value])
    if isinstance(value, dict):
        return encode_map([encode(item) for pair in value.items() for item in pair])
    if isinstance(value, Pairs):
        return encode_map([encode(item) for pair in value.items for item in pair])
    if isinstance(value, Array):
        return _encode_array(value)
    if isinstance(value, Odd):
        return _ODD + sized(BINARY8, bytes([value.code]) + value.data)
    raise ValueError(f"AMQP 1.0 has no type for {type(value).__name__}")


def sized(kind: int, data: bytes) -> bytes:
    """Binary, string or symbol; kind: the constructor for short ones."""
    if len(data) < 256:
        return bytes([kind, len(data)]) + data
    return bytes([kind | 0x10]) + len(data).to_bytes(4, "big") + data


def encode_list(items: list[bytes]) -> bytes:
    """A list of values that are encoded already."""
    if not items:
        return b"\x45"
    return _compound(LIST8, items)


def encode_map(items: list[bytes]) -> bytes:
    """A map of keys and values in turn that are encoded already."""
    return _compound(MAP8, items)


def _compound(kind: int, items: list[bytes]) -> bytes:
    body = b"".join(items)
    if len(body) < 255 and len(items) < 256:
        return bytes([kind, len(body) + 1, len(items)]) + body
    return bytes([kind | 0x10]) + (len(body) + 4).to_bytes(4, "big") + len(items).to_bytes(4, "big") + body


def _encode_text(value: str) -> bytes:
    if isinstance(value, Char):
        return b"\x73" + ord(value).to_bytes(4, "big")
    return sized(SYMBOL8 if isinstance(value, Symbol) else STRING8, value.encode("utf-8", "surrogateescape"))


_INTEGERS: Final = frozenset({int, Int, UInt, ULong, UByte, UShort, Byte, Short, Timestamp})
_WIDTHS: Final[dict[type, tuple[int, int, bool]]] = {
    UByte: (UBYTE, 1, False), UShort: (USHORT, 2, False), Byte: (BYTE, 1, True), Short: (SHORT, 2, True),
    Timestamp: (TIMESTAMP, 8, True)}


def _encode_integer(value: int, kind: type) -> bytes:
    """Raises: ValueError for one that its type cannot hold."""
    try:
        if kind is UInt or kind is ULong:
            long = kind is ULong
            if value == 0:
                return b"\x44" if long else b"\x43"
            if 0 < value < 256:
                return bytes([SMALLULONG if long else SMALLUINT, value])
            return bytes([ULONG if long else UINT]) + value.to_bytes(8 if long else 4, "big")
        fixed = _WIDTHS.get(kind)
        if fixed is not None:
            return bytes([fixed[0]]) + value.to_bytes(fixed[1], "big", signed=fixed[2])
        long = kind is int
        if -128 <= value < 128:
            return bytes([SMALLLONG if long else SMALLINT, value & 255])
        return bytes([LONG if long else INT]) + value.to_bytes(8 if long else 4, "big", signed=True)
    except OverflowError:
        raise ValueError(f"{value} does not fit into a {kind.__name__.lower()}") from None


def _encode_array(array: Array) -> bytes:
    head = bytes([array.kind])
    if array.described:
        head = b"\x00" + encode(array.descriptor) + head
    body = head + b"".join([_encode_element(array.kind, value) for value in array.values])
    count = len(array.values)
    if len(body) < 255 and count < 256:
        return bytes([ARRAY8, len(body) + 1, count]) + body
    return bytes([ARRAY32]) + (len(body) + 4).to_bytes(4, "big") + count.to_bytes(4, "big") + body


def _encode_element(kind: int, value: Any) -> bytes:
    """A value without its constructor, in the encoding that the array has for all. Raises: ValueError."""
    group = kind >> 4
    if group == 4:
        return b""
    if kind == BOOLEAN:
        return b"\x01" if value else b"\x00"
    if group < 0xA and isinstance(value, int):
        signed = kind in (BYTE, SHORT, INT, SMALLINT, LONG, SMALLLONG, TIMESTAMP)
        try:
            return value.to_bytes(1 << (group - 5), "big", signed=signed)
        except OverflowError:
            raise ValueError(f"{value} does not fit into the array's type") from None
    encoded = encode(value)
    if group < 0xA:
        return encoded[1:]
    wide = encoded[0] & 0x10
    if encoded[0] | 0x10 != kind | 0x10 and encoded[0] != LIST0:
        raise ValueError("a value is not of its array's type")
    if bool(wide) == bool(kind & 0x10) and encoded[0] != LIST0:
        return encoded[1:]
    return _rewidened(kind, encoded)


def _rewidened(kind: int, encoded: bytes) -> bytes:
    """A short encoding where the array has long ones; the other way round it cannot be."""
    if not kind & 0x10:
        if encoded[0] == LIST0:
            return b"\x01\x00"
        raise ValueError("a value is too long for its array")
    if encoded[0] == LIST0:
        return b"\x00\x00\x00\x04\x00\x00\x00\x00"
    if kind < LIST8:
        return (len(encoded) - 2).to_bytes(4, "big") + encoded[2:]
    return (encoded[1] + 3).to_bytes(4, "big") + encoded[2:3].rjust(4, b"\0") + encoded[3:]
