"""The properties that a message of MQTT 5 has (3.3.2.3): bytes to fields and back."""

from __future__ import annotations

from protocols.mqtt.codec import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    USER_PROPERTY,
    binary,
    varint,
)
from protocols.mqtt.content import NO_PROPERTIES, Malformed, block_end, block_start


class Properties:
    """What a PUBLISH packet says of its message besides topic and payload; None or -1 for what it does not say."""

    __slots__ = ("payload_format", "expiry", "content_type", "response_topic", "correlation", "pairs")

    def __init__(self) -> None:
        self.payload_format = -1  # 1: UTF-8, 0: bytes
        self.expiry = -1  # s
        self.content_type: bytes | None = None
        self.response_topic: bytes | None = None
        self.correlation: bytes | None = None
        self.pairs: list[bytes] = []  # the user properties: name, value, name, value


def split(native: bytes, at: int) -> Properties:
    """The fields of the block at `at`. Raises: Malformed."""
    found = Properties()
    try:
        end = block_end(native, at)
        at = block_start(native, at)
        while at < end:
            at = _read(found, native, at)
    except IndexError:
        raise Malformed("properties are cut off") from None
    if at != end or end > len(native):
        raise Malformed("properties are cut off")
    return found


def _read(found: Properties, native: bytes, at: int) -> int:
    """One property. Gives where the next one begins. Raises: Malformed, IndexError."""
    kind = native[at]
    if kind == PAYLOAD_FORMAT:
        found.payload_format = native[at + 1]
        return at + 2
    if kind == MESSAGE_EXPIRY:
        found.expiry = int.from_bytes(native[at + 1:at + 5], "big")
        return at + 5
    end = at + 3 + (native[at + 1] << 8 | native[at + 2])
    data = native[at + 3:end]
    if kind == USER_PROPERTY:
        last = end + 2 + (native[end] << 8 | native[end + 1])
        found.pairs.append(data)
        found.pairs.append(native[end + 2:last])
        return last
    if kind == CONTENT_TYPE:
        found.content_type = data
    elif kind == RESPONSE_TOPIC:
        found.response_topic = data
    elif kind == CORRELATION_DATA:
        found.correlation = data
    else:
        raise Malformed(f"a message has no property {kind:#04x}")
    return end


def join(p: Properties) -> bytes:
    """The block of the fields, with its length."""
    parts: list[bytes] = []
    if p.payload_format >= 0:
        parts.append(bytes([PAYLOAD_FORMAT, p.payload_format]))
    if p.expiry >= 0:
        parts.append(b"\x02" + p.expiry.to_bytes(4, "big"))
    if p.content_type is not None:
        parts.append(b"\x03" + binary(p.content_type))
    if p.response_topic is not None:
        parts.append(b"\x08" + binary(p.response_topic))
    if p.correlation is not None:
        parts.append(b"\x09" + binary(p.correlation))
    pairs = p.pairs
    for at in range(0, len(pairs), 2):
        name, value = pairs[at], pairs[at + 1]
        parts += (b"\x26", len(name).to_bytes(2, "big"), name, len(value).to_bytes(2, "big"), value)
    if not parts:
        return NO_PROPERTIES
    block = b"".join(parts)
    return varint(len(block)) + block
