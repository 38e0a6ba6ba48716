"""The native form of MQTT's messages, of all versions: how it is made, and where in it what is.

    flags       one byte, the first of a PUBLISH packet: 0x30, QoS in bits 1 and 2, retain in bit 0; DUP is never set
    client id, user, topic
                each as in a packet: two bytes of length, UTF-8. The topic is the one that was published to, with no
                alias. The first two are empty when no client of MQTT's has published the message
    properties  a block as in PUBLISH of MQTT 5 (2.2.2), without topic alias and subscription identifiers
    payload     unless it is longer than ONE_PIECE: then it is in Message.body, in pieces
"""

from __future__ import annotations

from typing import Final

from broker.message import Message
from protocols.mqtt.codec import binary

PUBLISH: Final = 0x30
RETAIN: Final = 0x01
QOS1: Final = 0x02
QOS2: Final = 0x04
NO_PROPERTIES: Final = b"\x00"
LONGEST_STRING: Final = 65535
"""Bytes that a string or binary data has at most (1.5.4)."""

ONE_PIECE: Final = 65536
"""Payloads of at most so many bytes are kept with the rest."""


class Malformed(Exception):
    """The bytes are no message of MQTT's."""


def identity(client_id: bytes, user: bytes) -> bytes:
    """Who publishes, as `make_native` takes it: the same for all messages of a connection."""
    return binary(client_id) + binary(user)


def make_native(flags: int, who: bytes, topic: bytes, properties: bytes,
                payload: bytes) -> tuple[bytes, list[bytes] | None]:
    """`Message.native` and `Message.body`.

    flags: of the packet, of which only QoS and retain count; who: from `identity`; topic: UTF-8; properties: the
    block with its length in front.
    """
    head = bytes([PUBLISH | flags & 7]) + who + binary(topic) + properties
    if len(payload) > ONE_PIECE:
        return head, [payload]
    return head + payload, None


def qos(native: bytes) -> int:
    return native[0] >> 1 & 3


def retained(native: bytes) -> bool:
    """Whether it was published to be retained."""
    return native[0] & RETAIN != 0


def client_id(native: bytes) -> bytes:
    return native[3:3 + (native[1] << 8 | native[2])]


def user(native: bytes) -> bytes:
    at = 3 + (native[1] << 8 | native[2])
    return native[at + 2:at + 2 + (native[at] << 8 | native[at + 1])]


def topic_at(native: bytes) -> int:
    """Where the topic begins, with its length."""
    at = 3 + (native[1] << 8 | native[2])
    return at + 2 + (native[at] << 8 | native[at + 1])


def topic(native: bytes) -> bytes:
    at = topic_at(native)
    return native[at + 2:at + 2 + (native[at] << 8 | native[at + 1])]


def properties_at(native: bytes) -> int:
    """Where the properties begin, with their length."""
    at = topic_at(native)
    return at + 2 + (native[at] << 8 | native[at + 1])


def block_start(native: bytes, at: int) -> int:
    """Where the first property is. at: of the block. Raises: Malformed, IndexError."""
    for _ in range(4):
        byte = native[at]
        at += 1
        if byte < 128:
            return at
    raise Malformed("a length has more than four bytes")


def block_end(native: bytes, at: int) -> int:
    """Where the payload begins. at: of the block of properties. Raises: Malformed, IndexError."""
    size = 0
    shift = 0
    while True:
        byte = native[at]
        at += 1
        size |= (byte & 127) << shift
        if byte < 128:
            return at + size
        shift += 7
        if shift > 21:
            raise Malformed("a length has more than four bytes")


def body_pieces(message: Message) -> list[bytes]:
    """The payload, in one or many pieces."""
    if message.body is not None:
        return message.body
    if not message.size:
        return []
    return [message.native[len(message.native) - message.size:]]

