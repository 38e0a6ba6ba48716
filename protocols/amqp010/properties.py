"""The header segment of a message, taken apart and put together (sections 10.message, 1.5): delivery-properties,
fragment-properties, message-properties and whatever other structs there are.

A struct is its size, class and code, two octets of packing flags (bit n of the first is field n, of the second field
8 + n), and the fields that they name. All that is not looked at stays encoded.
"""

from __future__ import annotations

from typing import Final

from protocols.amqp010.codec import Malformed

_DELIVERY: Final = 0x0401
_MESSAGE: Final = 0x0403


class Properties:
    """What a header segment says. Numbers are -1, and bytes None, where it says nothing."""

    __slots__ = ("discard_unroutable", "immediate", "redelivered", "priority", "delivery_mode", "ttl", "timestamp",
                 "expiration", "exchange", "routing_key", "resume_id", "resume_ttl", "message_id", "correlation_id",
                 "reply_exchange", "reply_key", "has_reply_to", "content_type", "content_encoding", "user_id",
                 "app_id", "headers", "others", "has_message")

    def __init__(self) -> None:
        self.discard_unroutable = False
        self.immediate = False
        self.redelivered = False
        self.priority = -1
        self.delivery_mode = -1
        self.ttl = -1  # ms
        self.timestamp = -1  # s since the epoch, by the specification; ms, by Qpid's JMS clients
        self.expiration = -1  # likewise
        self.exchange: bytes | None = None
        self.routing_key: bytes | None = None
        self.resume_id: bytes | None = None
        self.resume_ttl = -1
        self.has_message = False  # there are message-properties
        self.message_id: bytes | None = None
        self.correlation_id: bytes | None = None
        self.has_reply_to = False
        self.reply_exchange: bytes | None = None
        self.reply_key: bytes | None = None
        self.content_type: bytes | None = None
        self.content_encoding: bytes | None = None
        self.user_id: bytes | None = None
        self.app_id: bytes | None = None
        self.headers: bytes | None = None  # a map with its size
        self.others: list[bytes] = []  # structs, whole


def split(data: bytes) -> Properties:
    """Raises: Malformed."""
    found = Properties()
    at = 0
    end = len(data)
    while at < end:
        after = at + 4 + _number(data, at, 4)
        if after > end or after < at + 8:
            raise Malformed("a message's header is cut off")
        code = data[at + 4] << 8 | data[at + 5]
        if code == _DELIVERY:
            _read_delivery(found, data, at + 6, after)
        elif code == _MESSAGE:
            _read_message(found, data, at + 6, after)
        else:
            found.others.append(data[at:after])
        at = after
    return found


def _read_delivery(found: Properties, data: bytes, at: int, end: int) -> None:
    first, second = data[at], data[at + 1]
    at += 2
    found.discard_unroutable = first & 1 != 0
    found.immediate = first & 2 != 0
    found.redelivered = first & 4 != 0
    if first & 8:
        found.priority = _number(data, at, 1)
        at += 1
    if first & 16:
        found.delivery_mode = _number(data, at, 1)
        at += 1
    if first & 32:
        found.ttl = _number(data, at, 8)
        at += 8
    if first & 64:
        found.timestamp = _number(data, at, 8)
        at += 8
    if first & 128:
        found.expiration = _number(data, at, 8)
        at += 8
    if second & 1:
        found.exchange = _sized(data, at, 1)
        at += 1 + len(found.exchange)
    if second & 2:
        found.routing_key = _sized(data, at, 1)
        at += 1 + len(found.routing_key)
    if second & 4:
        found.resume_id = _sized(data, at, 2)
        at += 2 + len(found.resume_id)
    if second & 8:
        found.resume_ttl = _number(data, at, 8)
        at += 8
    if second & 0xF0 or at != end:
        raise Malformed("delivery-properties are not as long as their fields")


def _read_message(found: Properties, data: bytes, at: int, end: int) -> None:
    first, second = data[at], data[at + 1]
    at += 2
    found.has_message = True
    if first & 1:  # the body says how long it is
        at += 8
    if first & 2:
        found.message_id = data[at:at + 16]
        at += 16
    if first & 4:
        found.correlation_id = _sized(data, at, 2)
        at += 2 + len(found.correlation_id)
    if first & 8:
        size = _number(data, at, 2)
        _read_reply_to(found, data, at + 2, at + 2 + size)
        at += 2 + size
    if first & 16:
        found.content_type = _sized(data, at, 1)
        at += 1 + len(found.content_type)
    if first & 32:
        found.content_encoding = _sized(data, at, 1)
        at += 1 + len(found.content_encoding)
    if first & 64:
        found.user_id = _sized(data, at, 2)
        at += 2 + len(found.user_id)
    if first & 128:
        found.app_id = _sized(data, at, 2)
        at += 2 + len(found.app_id)
    if second & 1:
        size = _number(data, at, 4)
        found.headers = data[at:at + 4 + size]
        at += 4 + size
    if second & 0xFE or at != end:
        raise Malformed("message-properties are not as long as their fields")


def _read_reply_to(found: Properties, data: bytes, at: int, end: int) -> None:
    found.has_reply_to = True
    if at == end:  # as some write an empty one
        return
    flags = _number(data, at, 1)
    at += 2
    if flags & 1:
        found.reply_exchange = _sized(data, at, 1)
        at += 1 + len(found.reply_exchange)
    if flags & 2:
        found.reply_key = _sized(data, at, 1)
        at += 1 + len(found.reply_key)
    if at != end:
        raise Malformed("a reply-to is not as long as its fields")


def _number(data: bytes, at: int, width: int) -> int:
    found = data[at:at + width]
    if len(found) != width:
        raise Malformed("a message's header is cut off")
    return int.from_bytes(found, "big")


def _sized(data: bytes, at: int, width: int) -> bytes:
    """Bytes that say their length before them."""
    size = _number(data, at, width)
    found = data[at + width:at + width + size]
    if len(found) != size:
        raise Malformed("a message's header is cut off")
    return found


def join(properties: Properties, size: int) -> bytes:
    """The reverse of `split`. size: of the body, bytes."""
    parts = [_write_delivery(properties)]
    parts += properties.others
    if properties.has_message:
        parts.append(_write_message(properties, size))
    return b"".join(parts)


def _write_delivery(p: Properties) -> bytes:
    first = (1 if p.discard_unroutable else 0) | (2 if p.immediate else 0) | (4 if p.redelivered else 0)
    second = 0
    parts: list[bytes] = []
    if p.priority >= 0:
        first |= 8
        parts.append(bytes([p.priority]))
    if p.delivery_mode >= 0:
        first |= 16
        parts.append(bytes([p.delivery_mode]))
    if p.ttl >= 0:
        first |= 32
        parts.append(p.ttl.to_bytes(8, "big"))
    if p.timestamp >= 0:
        first |= 64
        parts.append(p.timestamp.to_bytes(8, "big"))
    if p.expiration >= 0:
        first |= 128
        parts.append(p.expiration.to_bytes(8, "big"))
    if p.exchange is not None:
        second |= 1
        parts += (bytes([len(p.exchange)]), p.exchange)
    if p.routing_key is not None:
        second |= 2
        parts += (bytes([len(p.routing_key)]), p.routing_key)
    if p.resume_id is not None:
        second |= 4
        parts += (len(p.resume_id).to_bytes(2, "big"), p.resume_id)
    if p.resume_ttl >= 0:
        second |= 8
        parts.append(p.resume_ttl.to_bytes(8, "big"))
    return _struct(_DELIVERY, first, second, parts)


def _write_message(p: Properties, size: int) -> bytes:
    first = 1
    second = 0
    parts = [size.to_bytes(8, "big")]
    if p.message_id is not None:
        first |= 2
        parts.append(p.message_id)
    if p.correlation_id is not None:
        first |= 4
        parts += (len(p.correlation_id).to_bytes(2, "big"), p.correlation_id)
    if p.has_reply_to:
        first |= 8
        parts.append(_write_reply_to(p))
    if p.content_type is not None:
        first |= 16
        parts += (bytes([len(p.content_type)]), p.content_type)
    if p.content_encoding is not None:
        first |= 32
        parts += (bytes([len(p.content_encoding)]), p.content_encoding)
    if p.user_id is not None:
        first |= 64
        parts += (len(p.user_id).to_bytes(2, "big"), p.user_id)
    if p.app_id is not None:
        first |= 128
        parts += (len(p.app_id).to_bytes(2, "big"), p.app_id)
    if p.headers is not None:
        second |= 1
        parts.append(p.headers)
    return _struct(_MESSAGE, first, second, parts)


def _write_reply_to(p: Properties) -> bytes:
    flags = 0
    content = b""
    if p.reply_exchange is not None:
        flags |= 1
        content = bytes([len(p.reply_exchange)]) + p.reply_exchange
    if p.reply_key is not None:
        flags |= 2
        content += bytes([len(p.reply_key)]) + p.reply_key
    return (len(content) + 2).to_bytes(2, "big") + bytes([flags, 0]) + content


def _struct(code: int, first: int, second: int, parts: list[bytes]) -> bytes:
    """A struct of these fields, which are encoded already."""
    content = b"".join(parts)
    size = len(content) + 4
    return b"".join((size.to_bytes(4, "big"), bytes([code >> 8, code & 255, first, second]), content))
