"""What a console of Qpid asks first, in the binary form of QMF's first version: who is there, and with which classes.

All that comes after it asks in maps. A message is `AM2`, an opcode and a sequence number, then what the opcode needs.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from struct import Struct
from typing import Any

from broker.values import UByte, UInt
from protocols.maps010 import write_map
from protocols.qmf.schema import ACL_PACKAGE, CLASSES, EVENTS, PACKAGE, TYPE_CODES, Property, SchemaClass

_HEAD = Struct(">3scI")
_COUNTS = Struct(">HHH")

_OBJECTS, _EVENTS = 1, 2
"""Kinds of classes."""


def answers(data: bytes, system: uuid.UUID) -> Iterator[bytes]:
    """The messages that answer a message; none for one that makes no sense or has no answer."""
    if len(data) < _HEAD.size or not data.startswith(b"AM2"):
        return
    _, opcode, sequence = _HEAD.unpack_from(data)
    rest = data[_HEAD.size:]
    if opcode == b"B":
        yield _message(b"b", sequence, system.bytes)
    elif opcode == b"P":
        for package in (PACKAGE, ACL_PACKAGE):
            yield _message(b"p", sequence, _short(package))
        yield _complete(sequence)
    elif opcode == b"Q":
        for each in (*CLASSES.values(), *EVENTS.values()):
            if rest == _short(each.package):
                yield _message(b"q", sequence, bytes([_kind(each)]) + _key(each))
        yield _complete(sequence)
    elif opcode == b"S":
        for each in (*CLASSES.values(), *EVENTS.values()):
            if rest == _key(each):
                yield _message(b"s", sequence, _schema(each))
                return
        yield _complete(sequence, 1, "Class key not found")


def _message(opcode: bytes, sequence: int, content: bytes) -> bytes:
    return _HEAD.pack(b"AM2", opcode, sequence) + content


def _complete(sequence: int, code: int = 0, text: str = "OK") -> bytes:
    return _message(b"z", sequence, code.to_bytes(4, "big") + _short(text))


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _kind(schema: SchemaClass) -> int:
    return _EVENTS if schema.is_event else _OBJECTS


def _key(schema: SchemaClass) -> bytes:
    return _short(schema.package) + _short(schema.name) + schema.hash.bytes


def _schema(schema: SchemaClass) -> bytes:
    parts = [bytes([_kind(schema)]), _key(schema)]
    if schema.is_event:
        parts.append(len(schema.properties).to_bytes(2, "big"))
        parts += [write_map(_described(each)) for each in schema.properties]
        return b"".join(parts)
    parts.append(_COUNTS.pack(len(schema.properties), len(schema.statistics), len(schema.methods)))
    parts += [write_map(_described(each)) for each in (*schema.properties, *schema.statistics)]
    for name, arguments in schema.methods.items():
        parts.append(write_map({"name": name, "argCount": UInt(len(arguments))}))
        parts += [write_map(_described(each)) for each in arguments]
    return b"".join(parts)


def _described(each: Property) -> dict[str, Any]:
    """A property, a statistic or an argument as the map that tells of it."""
    found: dict[str, Any] = {"name": each.name, "type": UByte(TYPE_CODES[each.kind])}
    if each.access:
        found |= {"access": UByte(each.access), "index": UByte(each.index), "optional": UByte(each.optional)}
    if each.refers_to:
        found |= {"refPackage": PACKAGE, "refClass": each.refers_to}
    if each.unit:
        found["unit"] = each.unit
    if each.direction:
        found["dir"] = each.direction
    return found
