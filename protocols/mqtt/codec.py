"""The types of MQTT (1.5), and the properties of MQTT 5 (2.2.2) as data.

Texts are str, binary data bytes, numbers int. A property's value is of its type; one that may be repeated has a list
of them, and a User Property is a pair of texts. All that reads raises `MqttError` for what is not as it should be.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.mqtt.errors import TOPIC_ALIAS_INVALID, MqttError, malformed, wrong

CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15
"""Types of packets (2.1.2)."""
WILL: Final = 0
"""The will's properties, within CONNECT, as if they were those of a type of packet."""

LONGEST: Final = 268_435_455
"""The greatest variable byte integer."""

BYTE: Final = 1
U16: Final = 2
U32: Final = 4
VARINT: Final = 5
BINARY: Final = 6
TEXT: Final = 7
PAIR: Final = 8
"""Types of properties."""

PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_IDENTIFIER: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTHENTICATION_METHOD: Final = 0x15
AUTHENTICATION_DATA: Final = 0x16
REQUEST_PROBLEM_INFORMATION: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE_INFORMATION: Final = 0x19
RESPONSE_INFORMATION: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER_PROPERTY: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_AVAILABLE: Final = 0x28
IDENTIFIERS_AVAILABLE: Final = 0x29
SHARING_AVAILABLE: Final = 0x2A


class Property:
    """A property: its number and name, the type of its value, in which packets it may be, whether more than once, and
    the smallest and the greatest number that it may be."""

    __slots__ = ("code", "name", "kind", "packets", "repeatable", "least", "most")

    def __init__(self, code: int, name: str, kind: int, packets: tuple[int, ...], least: int = 0, most: int = -1,
                 repeatable: bool = False) -> None:
        self.code = code
        self.name = name
        self.kind = kind
        self.packets = frozenset(packets)
        self.repeatable = repeatable
        self.least = least
        self.most = most  # -1: any that the type has


_ACKNOWLEDGEMENTS = (CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)

PROPERTIES: Final[dict[int, Property]] = {each.code: each for each in (
    Property(PAYLOAD_FORMAT, "Payload Format Indicator", BYTE, (PUBLISH, WILL), most=1),
    Property(MESSAGE_EXPIRY, "Message Expiry Interval", U32, (PUBLISH, WILL)),
    Property(CONTENT_TYPE, "Content Type", TEXT, (PUBLISH, WILL)),
    Property(RESPONSE_TOPIC, "Response Topic", TEXT, (PUBLISH, WILL)),
    Property(CORRELATION_DATA, "Correlation Data", BINARY, (PUBLISH, WILL)),
    Property(SUBSCRIPTION_IDENTIFIER, "Subscription Identifier", VARINT, (PUBLISH, SUBSCRIBE), least=1,
             repeatable=True),
    Property(SESSION_EXPIRY, "Session Expiry Interval", U32, (CONNECT, CONNACK, DISCONNECT)),
    Property(ASSIGNED_CLIENT_ID, "Assigned Client Identifier", TEXT, (CONNACK,)),
    Property(SERVER_KEEP_ALIVE, "Server Keep Alive", U16, (CONNACK,)),
    Property(AUTHENTICATION_METHOD, "Authentication Method", TEXT, (CONNECT, CONNACK, AUTH)),
    Property(AUTHENTICATION_DATA, "Authentication Data", BINARY, (CONNECT, CONNACK, AUTH)),
    Property(REQUEST_PROBLEM_INFORMATION, "Request Problem Information", BYTE, (CONNECT,), most=1),
    Property(WILL_DELAY, "Will Delay Interval", U32, (WILL,)),
    Property(REQUEST_RESPONSE_INFORMATION, "Request Response Information", BYTE, (CONNECT,), most=1),
    Property(RESPONSE_INFORMATION, "Response Information", TEXT, (CONNACK,)),
    Property(SERVER_REFERENCE, "Server Reference", TEXT, (CONNACK, DISCONNECT)),
    Property(REASON_STRING, "Reason String", TEXT, _ACKNOWLEDGEMENTS),
    Property(RECEIVE_MAXIMUM, "Receive Maximum", U16, (CONNECT, CONNACK), least=1),
    Property(TOPIC_ALIAS_MAXIMUM, "Topic Alias Maximum", U16, (CONNECT, CONNACK)),
    Property(TOPIC_ALIAS, "Topic Alias", U16, (PUBLISH,), least=1),
    Property(MAXIMUM_QOS, "Maximum QoS", BYTE, (CONNACK,), most=1),
    Property(RETAIN_AVAILABLE, "Retain Available", BYTE, (CONNACK,), most=1),
    Property(USER_PROPERTY, "User Property", PAIR, (CONNECT, PUBLISH, WILL, SUBSCRIBE, UNSUBSCRIBE,
                                                    *_ACKNOWLEDGEMENTS), repeatable=True),
    Property(MAXIMUM_PACKET_SIZE, "Maximum Packet Size", U32, (CONNECT, CONNACK), least=1),
    Property(WILDCARD_AVAILABLE, "Wildcard Subscription Available", BYTE, (CONNACK,), most=1),
    Property(IDENTIFIERS_AVAILABLE, "Subscription Identifier Available", BYTE, (CONNACK,), most=1),
    Property(SHARING_AVAILABLE, "Shared Subscription Available", BYTE, (CONNACK,), most=1),
)}
"""By number."""


# Reading: from data, from `at`, to `end`; gives the value and where it ends.

def read_u16(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 2 > end:
        raise malformed("a number is cut off")
    return data[at] << 8 | data[at + 1], at + 2


def read_u32(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 4 > end:
        raise malformed("a number is cut off")
    return data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3], at + 4


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A variable byte integer (1.5.5), which takes no more bytes than it must."""
    value = 0
    shift = 0
    while True:
        if at >= end:
            raise malformed("a variable byte integer is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise malformed("a variable byte integer that is longer than it has to be")
            return value, at
        shift += 7
        if shift > 21:
            raise malformed("a variable byte integer of more than four bytes")


def read_binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    if at + 2 > end:
        raise malformed("a length is cut off")
    after = at + 2 + (data[at] << 8 | data[at + 1])
    if after > end:
        raise malformed("a text or binary data is cut off")
    return data[at + 2:after], after


def read_text(data: bytes, at: int, end: int) -> tuple[str, int]:
    """A UTF-8 encoded string (1.5.4)."""
    content, after = read_binary(data, at, end)
    return text(content), after


def text(content: bytes) -> str:
    """What the bytes of a string say. No surrogates and no NUL; other characters that nobody should send are let
    through, as 1.5.4 allows, so that what goes in comes out."""
    try:
        found = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise malformed(f"a text is not UTF-8: {error.reason}") from None
    if content.find(0) >= 0:
        raise malformed("a text has U+0000 in it")
    return found


def read_property(data: bytes, at: int, end: int, packet: int) -> tuple[int, Any, int]:
    """One property of a type of packet: its number, its value, and where it ends."""
    code, at = read_varint(data, at, end)
    known = PROPERTIES.get(code)
    if known is None:
        raise malformed(f"there is no property {code:#04x}")
    if packet not in known.packets:
        raise malformed(f"{known.name} does not belong into this packet")
    kind = known.kind
    if kind == TEXT:
        content, at = read_text(data, at, end)
        return code, content, at
    if kind == PAIR:
        name, at = read_text(data, at, end)
        content, at = read_text(data, at, end)
        return code, (name, content), at
    if kind == BINARY:
        binary, at = read_binary(data, at, end)
        return code, binary, at
    if kind == BYTE:
        if at >= end:
            raise malformed("a number is cut off")
        number = data[at]
        at += 1
    elif kind == U16:
        number, at = read_u16(data, at, end)
    elif kind == U32:
        number, at = read_u32(data, at, end)
    else:
        number, at = read_varint(data, at, end)
    if number < known.least or 0 <= known.most < number:
        if code == TOPIC_ALIAS:
            raise MqttError(TOPIC_ALIAS_INVALID, f"{known.name} {number}")
        raise wrong(f"{known.name} {number}")
    return code, number, at


def read_properties(data: bytes, at: int, end: int, packet: int) -> tuple[dict[int, Any], int]:
    """The properties of a type of packet by their numbers, and where they end."""
    size, at = read_varint(data, at, end)
    stop = at + size
    if stop > end:
        raise malformed("the properties are cut off")
    found: dict[int, Any] = {}
    while at < stop:
        code, value, at = read_property(data, at, stop, packet)
        if not PROPERTIES[code].repeatable:
            if code in found:
                raise wrong(f"{PROPERTIES[code].name} is there twice")
            found[code] = value
        elif code in found:
            found[code].append(value)
        else:
            found[code] = [value]
    return found, at


# Writing. Raises OverflowError or ValueError for what does not fit.

def varint(value: int) -> bytes:
    """A variable byte integer."""
    if value < 0x80:
        return _SMALL[value]
    if value > LONGEST:
        raise OverflowError(f"{value} is too large for a variable byte integer")
    found = []
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


_SMALL: Final = [bytes([number]) for number in range(128)]


def binary(content: bytes) -> bytes:
    """Binary data, or a string in UTF-8, with its length; at most 65535 bytes."""
    return len(content).to_bytes(2, "big") + content


def write_text(content: str) -> bytes:
    """A string of at most 65535 bytes, in which what is no character is replaced by `?`."""
    return binary(content.encode("utf-8", "replace"))


def write_property(code: int, value: Any) -> bytes:
    """One property, with its number."""
    kind = PROPERTIES[code].kind
    if kind == TEXT:
        content = write_text(value)
    elif kind == PAIR:
        content = write_text(value[0]) + write_text(value[1])
    elif kind == BINARY:
        content = binary(value)
    elif kind == VARINT:
        content = varint(value)
    else:
        number: int = value
        content = number.to_bytes(kind, "big")
    return _SMALL[code] + content


def write_properties(values: dict[int, Any]) -> bytes:
    """Properties with their length before them, in the order of `values`. A repeatable one is a list."""
    if not values:
        return b"\x00"
    parts = []
    for code, value in values.items():
        if PROPERTIES[code].repeatable:
            for each in value:
                parts.append(write_property(code, each))
        else:
            parts.append(write_property(code, value))
    content = b"".join(parts)
    return varint(len(content)) + content
