"""Bodies as older clients write them: maps and lists of AMQP 0-10, those of the first Qpid JMS, objects of Java.

Written for these tests from the specifications, so that the broker's own reading and writing is checked by another.
"""

from __future__ import annotations

import struct
from typing import Any

Typed = tuple[str, Any]
"""A value with its Java type: ("integer", 5)."""

_FIXED = {"boolean": (0x08, ">?"), "byte": (0x01, ">b"), "short": (0x11, ">h"), "integer": (0x21, ">i"),
          "long": (0x31, ">q"), "float": (0x23, ">f"), "double": (0x33, ">d")}
_NAMES = {code: (name, layout) for name, (code, layout) in _FIXED.items()}
_SIZED = {0x80: ("bytes", 1), 0x90: ("bytes", 2), 0xA0: ("bytes", 4), 0x85: ("string", 1), 0x95: ("string", 2)}


# AMQP 0-10, section 1.5: type code, value.


def amqp_map(items: dict[str, Typed]) -> bytes:
    content = b"".join(bytes([len(name)]) + name.encode() + _write(value) for name, value in items.items())
    return struct.pack(">II", len(content) + 4, len(items)) + content


def amqp_list(items: list[Typed]) -> bytes:
    content = b"".join(map(_write, items))
    return struct.pack(">II", len(content) + 4, len(items)) + content


def read_amqp_map(data: bytes) -> dict[str, Typed]:
    count, at, found = _counted(data), 8, {}
    for _ in range(count):
        name = data[at + 1:at + 1 + data[at]].decode()
        found[name], at = _read(data, at + 1 + data[at])
    assert at == len(data)
    return found


def read_amqp_list(data: bytes) -> list[Typed]:
    count, at, found = _counted(data), 8, []
    for _ in range(count):
        value, at = _read(data, at)
        found.append(value)
    assert at == len(data)
    return found


def _counted(data: bytes) -> int:
    size, count = struct.unpack_from(">II", data)
    assert size == len(data) - 4
    return int(count)


def _write(value: Typed) -> bytes:
    kind, plain = value
    if kind in _FIXED:
        code, layout = _FIXED[kind]
        return bytes([code]) + struct.pack(layout, plain)
    if kind == "character":
        return b"\x27" + struct.pack(">I", ord(plain))
    content = plain.encode() if kind == "string" else plain
    return struct.pack(">BH", 0x95 if kind == "string" else 0x90, len(content)) + content


def _read(data: bytes, at: int) -> tuple[Typed, int]:
    code = data[at]
    at += 1
    if code in _NAMES:
        kind, layout = _NAMES[code]
        return (kind, struct.unpack_from(layout, data, at)[0]), at + struct.calcsize(layout)
    if code == 0x27:
        return ("character", chr(struct.unpack_from(">I", data, at)[0])), at + 4
    if code == 0xF0:
        return ("null", None), at
    kind, width = _SIZED[code]
    size = int.from_bytes(data[at:at + width], "big")
    content = data[at + width:at + width + size]
    return (kind, content.decode() if kind == "string" else content), at + width + size


# Qpid's first JMS client: `jms/map-message` and `jms/stream-message`.


_JAVA = {"boolean": (1, ">?"), "byte": (2, ">b"), "short": (4, ">h"), "integer": (6, ">i"), "long": (7, ">q"),
         "float": (8, ">f"), "double": (9, ">d")}


def jms_map(items: dict[str, Typed]) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(
        name.encode() + b"\0" + _java(value) for name, value in items.items())


def jms_stream(items: list[Typed]) -> bytes:
    return b"".join(map(_java, items))


def _java(value: Typed) -> bytes:
    kind, plain = value
    if kind in _JAVA:
        code, layout = _JAVA[kind]
        return bytes([code]) + struct.pack(layout, plain)
    if kind == "bytes":
        return b"\x03" + struct.pack(">i", len(plain)) + bytes(plain)
    if kind == "character":
        return b"\x05" + struct.pack(">H", ord(plain))
    return b"\x0a" + plain.encode() + b"\0"


def java_string(text: str) -> bytes:
    """What Java's serialization makes of a String."""
    content = text.encode()
    return b"\xac\xed\x00\x05t" + struct.pack(">H", len(content)) + content
