"""Maps and streams as Qpid's first JMS clients encode them: bodies of `jms/map-message` and `jms/stream-message`.

A value is an octet that says its type, and its bytes. What is read must be written as it was, and the reverse, or it
is refused: another writer's variants, and values that Java has no type for.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Any

from broker.values import Byte, Char, Float, Int, Short

_BOOLEAN, _BYTE, _BYTES, _SHORT, _CHAR, _INT, _LONG, _FLOAT, _DOUBLE, _STRING, _NULL = range(1, 12)

_INTEGERS: dict[int, tuple[type, int]] = {_BYTE: (Byte, 1), _SHORT: (Short, 2), _INT: (Int, 4), _LONG: (int, 8)}
_CODES = {kind: (code, width) for code, (kind, width) in _INTEGERS.items()}
_FLOAT_LAYOUT = Struct(">f")
_DOUBLE_LAYOUT = Struct(">d")


def read_map(data: bytes) -> dict[str, Any]:
    """Raises: ValueError."""
    if len(data) < 4:
        raise ValueError("a map has no size")
    found: dict[str, Any] = {}
    at = 4
    for _ in range(min(int.from_bytes(data[:4], "big"), len(data))):
        name, at = _read_text(data, at)
        found[name], at = _read(data, at)
    if write_map(found) != data:
        raise ValueError("a map is not written as we would")
    return found


def read_stream(data: bytes) -> list[Any]:
    """Raises: ValueError."""
    found: list[Any] = []
    at = 0
    while at < len(data):
        value, at = _read(data, at)
        found.append(value)
    if write_stream(found) != data:
        raise ValueError("a stream is not written as we would")
    return found


def write_map(value: dict[str, Any]) -> bytes:
    """Raises: ValueError for what Java has no type for."""
    return len(value).to_bytes(4, "big") + b"".join([_text(name) + _write(item) for name, item in value.items()])


def write_stream(value: list[Any]) -> bytes:
    """Raises: ValueError for what Java has no type for."""
    return b"".join([_write(item) for item in value])


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """A value, and where the next one begins. Raises: ValueError."""
    if at >= len(data):
        raise ValueError("a value is cut off")
    code = data[at]
    at += 1
    integer = _INTEGERS.get(code)
    try:
        if integer is not None:
            kind, width = integer
            return kind(int.from_bytes(data[at:at + width], "big", signed=True)), at + width
        if code == _BOOLEAN:
            return data[at:at + 1] == b"\x01", at + 1
        if code == _BYTES:
            size = int.from_bytes(data[at:at + 4], "big")
            return data[at + 4:at + 4 + size], at + 4 + size
        if code == _CHAR:
            return Char(chr(int.from_bytes(data[at:at + 2], "big"))), at + 2
        if code == _FLOAT:
            return Float(_FLOAT_LAYOUT.unpack_from(data, at)[0]), at + 4
        if code == _DOUBLE:
            return _DOUBLE_LAYOUT.unpack_from(data, at)[0], at + 8
    except StructError:
        raise ValueError("a value is cut off") from None
    if code == _STRING:
        return _read_text(data, at)
    if code == _NULL:
        return None, at
    raise ValueError(f"a value has type {code}, which is none")


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at)
    if end < 0:
        raise ValueError("a text is cut off")
    return data[at:end].decode("utf-8"), end + 1


def _write(value: Any) -> bytes:
    kind = type(value)
    integer = _CODES.get(kind)
    if integer is not None:
        code, width = integer
        return bytes([code]) + int(value).to_bytes(width, "big", signed=True)
    if kind is str:
        return bytes([_STRING]) + _text(value)
    if kind is bool:
        return bytes([_BOOLEAN, int(value)])
    if kind is bytes:
        return bytes([_BYTES]) + len(value).to_bytes(4, "big") + bytes(value)
    if kind is Char:
        number = ord(value)
        if number > 0xFFFF or 0xD800 <= number < 0xE000:
            raise ValueError("a char of Java has 16 bits")
        return bytes([_CHAR]) + number.to_bytes(2, "big")
    if kind is Float:
        return bytes([_FLOAT]) + _FLOAT_LAYOUT.pack(value)
    if kind is float:
        return bytes([_DOUBLE]) + _DOUBLE_LAYOUT.pack(value)
    if value is None:
        return bytes([_NULL])
    raise ValueError("a value has a type that Java has not")


def _text(value: str) -> bytes:
    if "\0" in value:
        raise ValueError("a text has the character that ends it")
    return value.encode("utf-8") + b"\0"
