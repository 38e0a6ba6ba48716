"""PUBLISH as it comes in (3.3), and the will that comes with CONNECT (3.1.3): bytes to messages in their native form.

Read straight from the buffer, by offsets. What depends on the topic alone is found once for a connection.
"""

from __future__ import annotations

import codecs
from typing import Any, Final

from broker.message import MQTT, Address, Message, address_of
from protocols.mqtt import codec
from protocols.mqtt.codec import (
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SUBSCRIPTION_IDENTIFIER,
    TOPIC_ALIAS,
    WILL_DELAY,
    read_property,
    text,
    varint,
    write_properties,
)
from protocols.mqtt.content import NO_PROPERTIES, ONE_PIECE, identity
from protocols.mqtt.errors import TOPIC_ALIAS_INVALID, TOPIC_NAME_INVALID, MqttError, malformed, wrong
from protocols.mqtt.frames import V5
from protocols.mqtt.replies import leads_elsewhere, route_of

_MOST_TOPICS: Final = 1000
"""Topics that are remembered for a connection; when there are more, all are forgotten and found again."""

_FIRST: Final = [bytes([0x30 | flags]) for flags in range(8)]
"""The first byte of the native form, by QoS and retain."""


class Topic:
    """A topic that a client publishes to. protected: it begins with `$` (4.7.2), and is none that answers go to."""

    __slots__ = ("name", "address", "head", "protected")

    def __init__(self, name: str, address: Address, head: bytes) -> None:
        self.name = name
        self.address = address
        self.head = head  # of the native form, behind the flags and up to the properties
        self.protected = name.startswith("$") and not leads_elsewhere(name)


class Incoming:
    """The PUBLISH packets of one connection.

    `head` reads one as far as its payload and leaves here what it says; `message` makes the message.
    """

    __slots__ = ("level", "alias_maximum", "topics", "aliases", "topic", "flags", "packet_id", "payload_at",
                 "properties", "expiry", "is_text", "who")

    def __init__(self, level: int, client_id: str, user: str, alias_maximum: int) -> None:
        self.level = level
        self.alias_maximum = alias_maximum
        self.topics: dict[bytes, Topic] = {}  # by the topic's bytes, with its length
        self.aliases: dict[int, Topic] = {}
        self.who = identity(client_id.encode(), user.encode("utf-8", "surrogatepass"))
        # The packet that was read last:
        self.topic: Topic | None = None
        self.flags = 0  # of the packet: QoS and retain
        self.packet_id = 0  # 0 for QoS 0
        self.payload_at = 0
        self.properties = NO_PROPERTIES  # the block as the native form has it
        self.expiry = -1  # s
        self.is_text = False  # the payload is said to be UTF-8

    def missing(self, flags: int, data: bytes, at: int, end: int) -> int:
        """How many bytes of a packet there must be, at least, from `at` on, behind its fixed header, to get further
        with what comes before its payload; 0 if `head` can read it."""
        have = end - at
        if have < 2:
            return 2
        size = 2 + (data[at] << 8 | data[at + 1])
        if flags & 6:
            size += 2
        if self.level < V5:
            return 0 if have >= size else size
        here = size
        length = 0
        shift = 0
        while shift < 28:
            if here >= have:
                return here + 1
            byte = data[at + here]
            length |= (byte & 0x7F) << shift
            here += 1
            shift += 7
            if byte < 0x80:
                break
        return 0 if have >= here + length else here + length

    def head(self, flags: int, data: bytes, at: int, stop: int) -> None:
        """Read a packet up to its payload. flags: the lower half of its first byte; at: behind its fixed header;
        stop: its end. Raises: MqttError."""
        if flags & 0x0E > 0x05:  # DUP or QoS 3; what may be is DUP with QoS 1 or 2
            if flags & 6 == 6:
                raise malformed("PUBLISH with QoS 3")
            if flags & 6 == 0:
                raise malformed("PUBLISH of QoS 0 with DUP set")
        after = at + 2 + (data[at] << 8 | data[at + 1]) if at + 2 <= stop else stop + 1
        if after > stop:
            raise malformed("PUBLISH is cut off")
        raw = data[at:after]
        self.flags = flags & 7
        if flags & 6:
            if after + 2 > stop:
                raise malformed("PUBLISH is cut off")
            self.packet_id = data[after] << 8 | data[after + 1]
            if self.packet_id == 0:
                raise wrong("PUBLISH with packet identifier 0")
            after += 2
        else:
            self.packet_id = 0
        self.expiry = -1
        self.is_text = False
        self.properties = NO_PROPERTIES
        alias = 0
        if self.level >= V5:
            if after < stop and data[after] == 0:
                after += 1
            else:
                alias, after = self._properties(data, after, stop)
        self.payload_at = after
        topic = self.topics.get(raw)
        if topic is not None and not alias:
            self.topic = topic
        else:
            self.topic = self._topic(raw, alias)

    def message(self, payload: bytes, body: list[bytes] | None, size: int, now: int) -> Message:
        """The message of the packet that was read last. payload: its bytes, or b"" when they are in `body`; size: of
        all of it, bytes; now: ms since the epoch."""
        topic = self.topic
        assert topic is not None
        native = b"".join((_FIRST[self.flags], topic.head, self.properties, payload))
        return Message(topic.address, MQTT, native, body, size, self.flags & 6 != 0, 0,
                       now + 1000 * self.expiry if self.expiry >= 0 else 0, now)

    def _topic(self, raw: bytes, alias: int) -> Topic:
        """The topic of a packet that was not seen before, or has an alias (3.3.2.3.4; 0: none)."""
        if alias > self.alias_maximum:
            raise MqttError(TOPIC_ALIAS_INVALID, f"topic alias {alias} is above {self.alias_maximum}")
        if len(raw) == 2:
            known = self.aliases.get(alias)
            if known is None:
                if alias:
                    raise wrong(f"PUBLISH with topic alias {alias}, which is of no topic")
                raise wrong("PUBLISH without a topic") if self.level >= V5 else malformed("PUBLISH without a topic")
            return known
        topic = self.topics.get(raw)
        if topic is None:
            topic = make_topic(raw[2:], self.who)
            if len(self.topics) >= _MOST_TOPICS:
                self.topics.clear()
            self.topics[raw] = topic
        if alias:
            self.aliases[alias] = topic
        return topic

    def _properties(self, data: bytes, at: int, stop: int) -> tuple[int, int]:
        """Read the properties, and keep them without the alias. Gives the alias or 0, and where they end."""
        size, first = codec.read_varint(data, at, stop)
        end = first + size
        if end > stop:
            raise malformed("the properties of PUBLISH are cut off")
        here = first
        alias = 0
        alias_at = 0
        seen = 0
        while here < end:
            begin = here
            code = data[here]
            if code == codec.USER_PROPERTY:
                here = _pair_end(data, here + 1, end)
                continue
            code, value, here = read_property(data, here, end, codec.PUBLISH)
            if seen >> code & 1:
                raise wrong(f"{codec.PROPERTIES[code].name} is there twice")
            seen |= 1 << code
            if code == TOPIC_ALIAS:
                alias = value
                alias_at = begin
            else:
                self._property(code, value)
        if alias:
            block = varint(size - 3) + data[first:alias_at] + data[alias_at + 3:end] if size > 3 else NO_PROPERTIES
            self.properties = block
        else:
            self.properties = data[at:end]
        return alias, end

    def _property(self, code: int, value: Any) -> None:
        if code == SUBSCRIPTION_IDENTIFIER:
            raise wrong("PUBLISH of a client with a subscription identifier")
        if code == MESSAGE_EXPIRY:
            self.expiry = value
        elif code == PAYLOAD_FORMAT:
            self.is_text = value == 1
        elif code == RESPONSE_TOPIC:
            check_topic(value, "response topic")


def _pair_end(data: bytes, at: int, end: int) -> int:
    """Where a user property ends, which is checked and not needed."""
    for _ in range(2):
        start = at + 2
        at = start + (data[at] << 8 | data[at + 1]) if start <= end else end + 1
        if at > end:
            raise malformed("a text is cut off")
        content = data[start:at]
        if not content.isascii() or content.find(0) >= 0:
            text(content)
    return at


def check_topic(name: str, what: str) -> None:
    """Raises: MqttError for a name that cannot be a topic's (4.7)."""
    if not name or "+" in name or "#" in name:
        raise malformed(f"{what} {name[:64]!r} is empty or has wildcards in it")


def make_topic(raw: bytes, who: bytes) -> Topic:
    """raw: UTF-8; who: client id and user, as `identity` of protocols/mqtt/content.py has them. Raises: MqttError."""
    name = text(raw)
    check_topic(name, "topic")
    try:
        address = address_of(*route_of(name))
    except ValueError:
        raise MqttError(TOPIC_NAME_INVALID, f"topic {name[:64]!r}... has more than 255 bytes as a routing key") \
            from None
    return Topic(name, address, who + codec.binary(raw))


class Utf8Check:
    """Whether bytes that come in pieces are UTF-8."""

    __slots__ = ("_decoder", "good")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.good = True

    def add(self, piece: bytes, last: bool) -> None:
        if self.good:
            try:
                self._decoder.decode(piece, last)
            except UnicodeDecodeError:
                self.good = False


class Will:
    """What is to be published when the client is gone (3.1.2.5). delay: s after that; its time to live begins then."""

    __slots__ = ("topic", "native", "body", "size", "expiry", "delay")

    def __init__(self, topic: Topic, native: bytes, body: list[bytes] | None, size: int, expiry: int,
                 delay: int) -> None:
        self.topic = topic
        self.native = native
        self.body = body
        self.size = size
        self.expiry = expiry  # s, -1 for never
        self.delay = delay

    def message(self, now: int) -> Message:
        """now: ms since the epoch."""
        return Message(self.topic.address, MQTT, self.native, self.body, self.size, self.native[0] & 6 != 0, 0,
                       now + 1000 * self.expiry if self.expiry >= 0 else 0, now)


def make_will(flags: int, topic_name: str, properties: dict[int, Any], payload: bytes, who: bytes) -> Will:
    """flags: of CONNECT. Raises: MqttError."""
    topic = make_topic(topic_name.encode(), who)
    if RESPONSE_TOPIC in properties:
        check_topic(properties[RESPONSE_TOPIC], "response topic")
    kept = {code: value for code, value in properties.items() if code != WILL_DELAY}
    head = b"".join((_FIRST[(flags >> 3 & 3) << 1 | flags >> 5 & 1], topic.head, write_properties(kept)))
    large = len(payload) > ONE_PIECE
    return Will(topic, head if large else head + payload, [payload] if large else None, len(payload),
                properties.get(MESSAGE_EXPIRY, -1), properties.get(WILL_DELAY, 0))
