"""The properties of a message, as a content header carries them (section 4.2.6.1).

A content header's payload is class, weight, body size, then flags of two octets and the properties that they name, in
this order. The hot path only `scan`s them; `split` and `join` take them apart for changes without touching the others.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.amqp091.codec import (
    Malformed,
    check_table,
    long_string,
    read_short_string,
    read_table,
    short_string,
    skip_value,
    text,
    u16,
    u32,
    u64,
    write_table,
)

# Flags of the properties, in their order.
CONTENT_TYPE: Final = 0x8000
CONTENT_ENCODING: Final = 0x4000
HEADERS: Final = 0x2000
DELIVERY_MODE: Final = 0x1000
PRIORITY: Final = 0x0800
CORRELATION_ID: Final = 0x0400
REPLY_TO: Final = 0x0200
EXPIRATION: Final = 0x0100
MESSAGE_ID: Final = 0x0080
TIMESTAMP: Final = 0x0040
TYPE: Final = 0x0020
USER_ID: Final = 0x0010
APP_ID: Final = 0x0008
CLUSTER_ID: Final = 0x0004

NAMES = {CONTENT_TYPE: "content-type", CONTENT_ENCODING: "content-encoding", HEADERS: "headers",
         DELIVERY_MODE: "delivery-mode", PRIORITY: "priority", CORRELATION_ID: "correlation-id", REPLY_TO: "reply-to",
         EXPIRATION: "expiration", MESSAGE_ID: "message-id", TIMESTAMP: "timestamp", TYPE: "type", USER_ID: "user-id",
         APP_ID: "app-id", CLUSTER_ID: "cluster-id"}


class Scanned:
    """What publishing needs to know of a message's properties."""

    __slots__ = ("delivery_mode", "priority", "expiration", "reply_to", "user_id", "headers_at", "headers_end",
                 "has_copies")

    def __init__(self) -> None:
        self.delivery_mode = -1  # not given
        self.priority = 0
        self.expiration: bytes | None = None
        self.reply_to: bytes | None = None
        self.user_id: bytes | None = None
        self.headers_at = 0  # the table's content, without its length
        self.headers_end = 0
        self.has_copies = False  # there may be a CC or BCC header


def scan(data: bytes, at: int, end: int) -> Scanned:
    """Look at the properties from their flags on, checking all of them. Raises: Malformed."""
    if at + 2 > end:
        raise Malformed("a content header has no property flags")
    flags = u16(data, at)
    at += 2
    if flags & 3:
        raise Malformed("a content header has property flags that do not exist")
    found = Scanned()
    bit = 0x8000
    while bit > 2:
        if not flags & bit:
            bit >>= 1
            continue
        start = at
        at = _after(bit, data, at, end)
        if bit == DELIVERY_MODE:
            found.delivery_mode = data[start]
        elif bit == PRIORITY:
            found.priority = data[start]
        elif bit == HEADERS:
            check_table(data, start + 4, at)
            found.headers_at = start + 4
            found.headers_end = at
            found.has_copies = b"\x02CC" in data[start:at] or b"\x03BCC" in data[start:at]
        elif bit == EXPIRATION:
            found.expiration = data[start + 1:at]
        elif bit == REPLY_TO:
            found.reply_to = data[start + 1:at]
        elif bit == USER_ID:
            found.user_id = data[start + 1:at]
        bit >>= 1
    if at != end:
        raise Malformed(f"a content header has {end - at} bytes too many")
    return found


def _after(bit: int, data: bytes, at: int, end: int) -> int:
    """Where the property that begins at `at` ends."""
    if bit == DELIVERY_MODE or bit == PRIORITY:
        after = at + 1
    elif bit == TIMESTAMP:
        after = at + 8
    elif bit == HEADERS:
        if at + 4 > end:
            raise Malformed("a message's headers do not fit")
        after = at + 4 + u32(data, at)
    else:
        after = at + 1 + len(read_short_string(data, at, end))
    if after > end:
        raise Malformed(f"property {NAMES[bit]} does not fit")
    return after


def split(data: bytes, at: int, end: int) -> dict[int, bytes]:
    """The properties' encoded values by flag. Raises: Malformed."""
    if at + 2 > end or data[at + 1] & 3:
        raise Malformed("a content header's property flags make no sense")
    flags = u16(data, at)
    at += 2
    found = {}
    for bit in NAMES:
        if flags & bit:
            after = _after(bit, data, at, end)
            found[bit] = data[at:after]
            at = after
    return found


def join(properties: dict[int, bytes]) -> bytes:
    """Flags and encoded values, in order: the reverse of `split`."""
    flags = 0
    parts = []
    for bit in NAMES:
        value = properties.get(bit)
        if value is not None:
            flags |= bit
            parts.append(value)
    return bytes([flags >> 8, flags & 255]) + b"".join(parts)


def value(bit: int, encoded: bytes) -> Any:
    """A property's value: text, a number, or the headers as a dict. Raises: Malformed."""
    if bit == DELIVERY_MODE or bit == PRIORITY:
        return encoded[0]
    if bit == TIMESTAMP:
        return u64(encoded, 0)
    if bit == HEADERS:
        return read_table(encoded, 4, len(encoded))
    return text(encoded[1:])


def encoded(bit: int, value: Any) -> bytes:
    """A property's encoded value: the reverse of `value`. Raises: ValueError."""
    if bit == DELIVERY_MODE or bit == PRIORITY:
        return bytes([value])
    if bit == TIMESTAMP:
        return int(value).to_bytes(8, "big")
    if bit == HEADERS:
        return write_table(value)
    return short_string(value)


def split_table(data: bytes) -> dict[str, bytes]:
    """A table, given with its length, as its names with their values still encoded. Raises: Malformed."""
    found: dict[str, bytes] = {}
    at, end = 4, len(data)
    while at < end:
        name = read_short_string(data, at, end)
        at += 1 + len(name)
        after = skip_value(data, at, end, 0)
        found[text(name)] = data[at:after]
        at = after
    return found


def join_table(entries: dict[str, bytes]) -> bytes:
    """The reverse of `split_table`."""
    return long_string(b"".join(short_string(name) + entry for name, entry in entries.items()))
