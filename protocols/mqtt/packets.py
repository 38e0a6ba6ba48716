"""PUBLISH as it goes out (3.3). What is the same for all who get a message is made once and kept with it."""

from __future__ import annotations

from typing import Final

from broker.message import Message
from protocols.mqtt.codec import LONGEST, varint
from protocols.mqtt.content import Malformed, block_end, block_start, properties_at, topic_at
from protocols.mqtt.frames import V5

DUP: Final = 0x08
_PUBLISH: Final = 0x30
_EXPIRY: Final = 0x02
_ALIAS: Final = b"\x23"
_NO_TOPIC: Final = b"\x00\x00"

_IN_USE: Final = 8
"""A topic that was among the last so many messages for each alias is in use."""

_ROOM: Final = 70_000
"""What may be added to a message, or lengthen its topic, bytes."""

_LONGEST: Final = 2**32 - 1
"""The longest message expiry, s; clients of AMQP have others."""


class Prepared:
    """A message of this dialect, taken apart: a packet is a head, the packet id unless its QoS is 0, and a tail."""

    __slots__ = ("topic", "payload", "tail", "others", "heads", "body", "size", "expires", "too_large",
                 "_special")

    def __init__(self, message: Message) -> None:
        native = message.native
        at = topic_at(native)
        block = properties_at(native)
        self.topic = native[at:block]  # with its length
        self.tail = native[block:]  # for MQTT 5, when there is nothing to add: properties and payload
        others = b""
        payload_at = len(native)
        try:
            payload_at = block_end(native, block)
            others = native[block_start(native, block):payload_at]
        except (Malformed, IndexError):  # of a damaged store: such a message has no properties
            self.tail = b"\x00"
        self.payload = native[payload_at:]
        self.expires = message.expiry != 0 or others.find(b"\x02") >= 0
        self.others = _without_expiry(others) if self.expires else others
        self.body = message.body
        self.size = 0 if message.body is None else message.size  # of the body beside `native`, bytes
        self.too_large = self.size + len(native) > LONGEST - _ROOM  # for any packet
        self.heads: dict[int, bytes] = {}  # by flags and version
        self._special: tuple[int, bytes, bytes, bytes] | None = None

    def head(self, first: int, level: int) -> bytes:
        """Fixed header and topic of a packet with nothing added; of QoS 0, and without a body, the whole packet.
        first: the packet's first byte."""
        key = first << 3 | level
        head = self.heads.get(key)
        if head is None:
            tail = self.tail if level >= V5 else self.payload
            size = len(self.topic) + len(tail) + self.size
            if first & 6:
                head = b"".join((bytes([first]), varint(size + 2), self.topic))
            else:
                head = b"".join((bytes([first]), varint(size), self.topic, tail))
            self.heads[key] = head
        return head

    def special(self, first: int, seconds: int, identifiers: bytes, topic: bytes, alias: int) -> tuple[bytes, bytes]:
        """Head and tail of a packet of MQTT 5 to which something is added. seconds: what is left of its life, -1 for
        ever; identifiers: properties as they are written; topic: with its length; alias: 0 for none."""
        added = identifiers
        if seconds >= 0:
            added = b"\x02" + seconds.to_bytes(4, "big") + added
        if alias:
            added = _ALIAS + alias.to_bytes(2, "big") + added
        known = self._special
        if known is not None and known[0] == first and known[1] == added and known[2] == topic:
            tail = known[3]
        else:
            tail = b"".join((varint(len(self.others) + len(added)), self.others, added, self.payload))
            self._special = (first, added, topic, tail)
        size = len(topic) + len(tail) + self.size + (2 if first & 6 else 0)
        return b"".join((bytes([first]), varint(size), topic)), tail


def prepared(message: Message) -> Prepared:
    """The message, which is of this dialect, taken apart: once."""
    found = message.prepared
    if found is None:
        made = Prepared(message)
        message.prepared = made
        return made
    assert isinstance(found, Prepared)
    return found


def seconds_left(message: Message, now: int) -> int:
    """What is to be said of a message's life (3.3.2.3.3), -1 for nothing. now: ms since the epoch."""
    if not message.expiry:
        return -1
    return min(max(0, message.expiry - now + 999) // 1000, _LONGEST)


def _without_expiry(properties: bytes) -> bytes:
    """A block's properties but the message expiry interval, which counts down."""
    at = 0
    while at < len(properties):
        code = properties[at]
        if code == _EXPIRY:
            return properties[:at] + properties[at + 5:]
        at = _behind(properties, at, code)
    return properties


def _behind(properties: bytes, at: int, code: int) -> int:
    """Where the property at `at` ends; all that a message may have: one byte, texts, a pair of texts."""
    if code == 0x01:
        return at + 2
    strings = 2 if code == 0x26 else 1
    at += 1
    for _ in range(strings):
        if at + 2 > len(properties):
            return len(properties)
        at += 2 + (properties[at] << 8 | properties[at + 1])
    return at


class Aliases:
    """The topic aliases that the server uses towards one client (3.3.2.3.4). The least recently used makes way, but
    not while it is in use: topics that come in turn, more of them than there are aliases, would drive out each other.
    """

    __slots__ = ("most", "_known", "_last", "_count")

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: dict[bytes, int] = {}  # by topic; the one used last comes last
        self._last: dict[bytes, int] = {}  # when each was used, in messages
        self._count = 0

    def use(self, topic: bytes) -> tuple[bytes, int]:
        """The topic to write, which is empty when the client knows the alias, and the alias; 0 for none."""
        known = self._known
        self._count += 1
        alias = known.pop(topic, 0)
        if alias:
            known[topic] = alias
            self._last[topic] = self._count
            return _NO_TOPIC, alias
        if len(known) < self.most:
            alias = len(known) + 1
        else:
            oldest = next(iter(known))
            if self._count - self._last[oldest] <= _IN_USE * self.most:
                return topic, 0
            alias = known.pop(oldest)
            del self._last[oldest]
        known[topic] = alias
        self._last[topic] = self._count
        return topic, alias
