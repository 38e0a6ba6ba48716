"""The types of AMQP 0-10 (section 1.5 to 1.7) as fields of commands, controls and structs have them.

Maps are dicts, sequence sets and byte ranges lists of (first, last) pairs, arrays lists, uuids uuid.UUID, structs of a
known type dicts from field name to value. A struct is packed: flags tell which of its fields are there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from protocols import maps010

MOST_RANGES = 4096
"""Ranges in one sequence set; more are refused."""


class Malformed(Exception):
    """Bytes that are not what they should be; `str()` says what."""


class Field:
    """A field of a struct: its name and type, and its number among the packing flags."""

    __slots__ = ("name", "kind", "bit")

    def __init__(self, name: str, kind: str, bit: int) -> None:
        self.name = name
        self.kind = kind
        self.bit = bit


class Layout:
    """A struct's fields, and how it is sized and told from others.

    size: the bytes that its length takes, 0 for none; code: class and struct code in one number, 0 for none.
    """

    __slots__ = ("name", "fields", "size", "code")

    def __init__(self, name: str, fields: list[Field], size: int, code: int) -> None:
        self.name = name
        self.fields = fields
        self.size = size
        self.code = code


def layout(name: str, fields: str, size: int, code: int) -> Layout:
    """From `name:type` pairs. The flag of field n is bit n of the first octet, or n - 8 of the second."""
    found = []
    for number, pair in enumerate(fields.split()):
        field, _, kind = pair.partition(":")
        found.append(Field(field.replace("-", "_"), kind, 256 << number if number < 8 else 1 << (number - 8)))
    return Layout(name, found, size, code)


DELIVERY_PROPERTIES = layout(
    "delivery-properties", "discard-unroutable:bit immediate:bit redelivered:bit priority:uint8 delivery-mode:uint8 "
    "ttl:uint64 timestamp:datetime expiration:datetime exchange:str8 routing-key:str8 resume-id:str16 "
    "resume-ttl:uint64", 4, 0x0401)
FRAGMENT_PROPERTIES = layout("fragment-properties", "first:bit last:bit fragment-size:uint64", 4, 0x0402)
MESSAGE_PROPERTIES = layout(
    "message-properties", "content-length:uint64 message-id:uuid correlation-id:vbin16 reply-to:reply-to "
    "content-type:str8 content-encoding:str8 user-id:vbin16 app-id:vbin16 application-headers:map", 4, 0x0403)
REPLY_TO = layout("reply-to", "exchange:str8 routing-key:str8", 2, 0)
XID = layout("xid", "format:uint32 global-id:vbin8 branch-id:vbin8", 4, 0x0604)

RESULTS = {each.name: each for each in (
    layout("acquired", "transfers:sequence-set", 4, 0x0404),
    layout("message-resume-result", "offset:uint64", 4, 0x0405),
    layout("xa-result", "status:uint16", 4, 0x0601),
    layout("get-timeout-result", "timeout:uint32", 4, 0x0602),
    layout("recover-result", "in-doubt:array", 4, 0x0603),
    layout("exchange-query-result", "type:str8 durable:bit not-found:bit arguments:map", 4, 0x0701),
    layout("exchange-bound-result", "exchange-not-found:bit queue-not-found:bit queue-not-matched:bit "
           "key-not-matched:bit args-not-matched:bit", 4, 0x0702),
    layout("queue-query-result", "queue:str8 alternate-exchange:str8 durable:bit exclusive:bit auto-delete:bit "
           "arguments:map message-count:uint32 subscriber-count:uint32", 4, 0x0801),
)}
"""The structs that results are, by name."""

STRUCTS = {each.code: each for each in (DELIVERY_PROPERTIES, FRAGMENT_PROPERTIES, MESSAGE_PROPERTIES, XID,
                                        *RESULTS.values())}
"""By class and struct code in one number."""


def _fixed(width: int) -> tuple[Callable[[bytes, int, int], tuple[Any, int]], Callable[[Any], bytes]]:
    def read(data: bytes, at: int, end: int) -> tuple[Any, int]:
        after = at + width
        if after > end:
            raise Malformed("a number is cut off")
        return int.from_bytes(data[at:after], "big"), after

    def write(value: Any) -> bytes:
        number: bytes = value.to_bytes(width, "big")
        return number
    return read, write


def _variable(width: int, is_text: bool) -> tuple[Callable[[bytes, int, int], tuple[Any, int]],
                                                  Callable[[Any], bytes]]:
    def read(data: bytes, at: int, end: int) -> tuple[Any, int]:
        start = at + width
        after = start + int.from_bytes(data[at:start], "big")
        if start > end or after > end:
            raise Malformed("a string is cut off")
        content = data[start:after]
        return text(content) if is_text else content, after

    def write(value: Any) -> bytes:
        content: bytes = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        return len(content).to_bytes(width, "big") + content
    return read, write


def text(data: bytes) -> str:
    """Strings are UTF-8; bytes that are not are kept, as the other dialects keep them."""
    return data.decode("utf-8", "surrogateescape")


def _read_uuid(data: bytes, at: int, end: int) -> tuple[Any, int]:
    if at + 16 > end:
        raise Malformed("a uuid is cut off")
    return uuid.UUID(bytes=data[at:at + 16]), at + 16


def _write_uuid(value: Any) -> bytes:
    found: bytes = value.bytes
    return found


def _sized(data: bytes, at: int, end: int) -> int:
    """Where a value ends that says its length in four bytes."""
    after = at + 4 + int.from_bytes(data[at:at + 4], "big")
    if at + 4 > end or after > end:
        raise Malformed("a value is cut off")
    return after


def _read_map(data: bytes, at: int, end: int) -> tuple[Any, int]:
    after = _sized(data, at, end)
    try:
        return maps010.read_map(data[at:after]), after
    except ValueError as error:
        raise Malformed(str(error)) from None


def _write_map(value: Any) -> bytes:
    return maps010.write_map(value)


def _read_array(data: bytes, at: int, end: int) -> tuple[Any, int]:
    after = _sized(data, at, end)
    try:
        return maps010.read_array(data[at:after]), after
    except ValueError as error:
        raise Malformed(str(error)) from None


def _write_array(value: Any) -> bytes:
    """Of texts, as str16; or of structs that are encoded already (struct32)."""
    if value and isinstance(value[0], bytes):
        return _array(0xAB, value)
    return _array(0x95, [_write_str16(each) for each in value])


def _array(code: int, items: list[bytes]) -> bytes:
    content = b"".join(items)
    return (len(content) + 5).to_bytes(4, "big") + bytes([code]) + len(items).to_bytes(4, "big") + content


def read_ranges(data: bytes, at: int, end: int) -> tuple[list[tuple[int, int]], int]:
    """A sequence set: its (first, last) pairs, and where it ends. Raises: Malformed."""
    if at + 2 > end:
        raise Malformed("a sequence set is cut off")
    size = data[at] << 8 | data[at + 1]
    at += 2
    if at + size > end or size % 8 or size > 8 * MOST_RANGES:
        raise Malformed("a sequence set is cut off, or too long")
    found = []
    for start in range(at, at + size, 8):
        found.append((int.from_bytes(data[start:start + 4], "big"), int.from_bytes(data[start + 4:start + 8], "big")))
    return found, at + size


def write_ranges(ranges: list[tuple[int, int]]) -> bytes:
    """A sequence set from (first, last) pairs of command ids."""
    parts = [(8 * len(ranges)).to_bytes(2, "big")]
    for first, last in ranges:
        parts.append((first << 32 | last).to_bytes(8, "big"))
    return b"".join(parts)


def _read_byte_ranges(data: bytes, at: int, end: int) -> tuple[Any, int]:
    content, after = _read_vbin16(data, at, end)
    if len(content) % 16:
        raise Malformed("byte ranges are cut off")
    return [(int.from_bytes(content[start:start + 8], "big"), int.from_bytes(content[start + 8:start + 16], "big"))
            for start in range(0, len(content), 16)], after


def _write_byte_ranges(value: Any) -> bytes:
    return (16 * len(value)).to_bytes(2, "big") + b"".join([(first << 64 | last).to_bytes(16, "big")
                                                            for first, last in value])


def _read_struct32(data: bytes, at: int, end: int) -> tuple[Any, int]:
    after = _sized(data, at, end)
    if after - at < 6:
        raise Malformed("a struct is cut off")
    found = STRUCTS.get(data[at + 4] << 8 | data[at + 5])
    if found is None:
        return data[at:after], after
    return read_struct(found, data, at, end)


def _write_struct32(value: Any) -> bytes:
    """A struct that is encoded already (`write_struct`)."""
    encoded: bytes = value
    return encoded


def _read_reply_to(data: bytes, at: int, end: int) -> tuple[Any, int]:
    return read_struct(REPLY_TO, data, at, end)


def _write_reply_to(value: Any) -> bytes:
    return write_struct(REPLY_TO, value)


def _read_xid(data: bytes, at: int, end: int) -> tuple[Any, int]:
    return read_struct(XID, data, at, end)


def _write_xid(value: Any) -> bytes:
    return write_struct(XID, value)


_read_vbin16, _write_vbin16 = _variable(2, False)
_read_str16, _write_str16 = _variable(2, True)

_TYPES: dict[str, tuple[Callable[[bytes, int, int], tuple[Any, int]], Callable[[Any], bytes]]] = {
    "uint8": _fixed(1), "uint16": _fixed(2), "uint32": _fixed(4), "uint64": _fixed(8), "sequence-no": _fixed(4),
    "datetime": _fixed(8), "str8": _variable(1, True), "str16": (_read_str16, _write_str16),
    "vbin8": _variable(1, False), "vbin16": (_read_vbin16, _write_vbin16), "vbin32": _variable(4, False),
    "uuid": (_read_uuid, _write_uuid), "map": (_read_map, _write_map), "array": (_read_array, _write_array),
    "sequence-set": (read_ranges, write_ranges), "byte-ranges": (_read_byte_ranges, _write_byte_ranges),
    "struct32": (_read_struct32, _write_struct32), "reply-to": (_read_reply_to, _write_reply_to),
    "xid": (_read_xid, _write_xid),
}
"""How each type is read (from data, between two positions) and written."""


def read_fields(fields: list[Field], data: bytes, at: int, end: int) -> tuple[dict[str, Any], int]:
    """Packing flags and the fields that they announce; a bit that is not announced is False, others are left out.

    Gives where they end, too. Raises: Malformed.
    """
    if at + 2 > end:
        raise Malformed("packing flags are cut off")
    flags = data[at] << 8 | data[at + 1]
    at += 2
    found: dict[str, Any] = {}
    for field in fields:
        bit = field.bit
        if field.kind == "bit":
            found[field.name] = flags & bit != 0
        elif flags & bit:
            try:
                found[field.name], at = _TYPES[field.kind][0](data, at, end)
            except Malformed as error:
                raise Malformed(f"{field.name.replace('_', '-')}: {error}") from None
        flags &= ~bit
    if flags:
        raise Malformed(f"packing flags {flags:#06x} are of no field")
    return found, at


def write_fields(fields: list[Field], values: dict[str, Any]) -> bytes:
    """Packing flags and fields; those that are None or not in `values` are left out.

    Raises: OverflowError, ValueError for what does not fit its type.
    """
    flags = 0
    parts = [b""]
    for field in fields:
        value = values.get(field.name)
        if field.kind == "bit":
            if value:
                flags |= field.bit
        elif value is not None:
            flags |= field.bit
            parts.append(_TYPES[field.kind][1](value))
    parts[0] = flags.to_bytes(2, "big")
    return b"".join(parts)


def read_struct(what: Layout, data: bytes, at: int, end: int) -> tuple[dict[str, Any], int]:
    """A struct with its size and code before it. Gives where it ends, too. Raises: Malformed."""
    start = at + what.size
    after = start + int.from_bytes(data[at:start], "big")
    if start > end or after > end:
        raise Malformed(f"{what.name} is cut off")
    if after == start and not what.code:
        return {}, after
    if what.code:
        if after - start < 2 or data[start] << 8 | data[start + 1] != what.code:
            raise Malformed(f"there should be a struct {what.name}")
        start += 2
    found, stop = read_fields(what.fields, data, start, after)
    if stop != after:
        raise Malformed(f"{what.name} is {after - at - what.size} bytes long, and its fields are not")
    return found, after


def write_struct(what: Layout, values: dict[str, Any]) -> bytes:
    """A struct with its size and code before it. Raises: OverflowError, ValueError."""
    content = write_fields(what.fields, values)
    if what.code:
        content = what.code.to_bytes(2, "big") + content
    return len(content).to_bytes(what.size, "big") + content
