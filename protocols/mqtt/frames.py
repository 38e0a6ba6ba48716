"""The packets of MQTT 3.1, 3.1.1 and 5.0 (chapter 3), declared as data: their fields, in order, as they are written.

`read` and `write` serve all packets in both directions. What comes and goes for each message is read and written
where it is dealt with, without a dict: PUBLISH in protocols/mqtt/publish.py, acknowledgements in connection.py.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.mqtt.codec import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    WILL,
    binary,
    read_binary,
    read_properties,
    read_text,
    read_u16,
    varint,
    write_properties,
    write_text,
)
from protocols.mqtt.errors import malformed, wrong

V31: Final = 3
V311: Final = 4
V5: Final = 5
"""Protocol levels (3.1.2.2)."""

PROTOCOLS: Final = {("MQIsdp", V31): "MQTT 3.1", ("MQTT", V311): "MQTT 3.1.1", ("MQTT", V5): "MQTT 5.0"}
"""Names and levels in CONNECT, and what people call them."""

CLEAN_START: Final = 0x02
HAS_WILL: Final = 0x04
WILL_RETAIN: Final = 0x20
HAS_PASSWORD: Final = 0x40
HAS_USER: Final = 0x80
"""Flags of CONNECT (3.1.2.3)."""

_RESERVED: Final = 0x01

U8, U16, TEXT, BINARY, PROPERTIES, WILL_PROPERTIES, REST, TEXTS, REQUESTS, CODES = range(10)
"""Types of fields. REST: all that is left; TEXTS: as many as there are; REQUESTS: pairs of a topic filter and its
options; CODES: a reason code each."""


class Field:
    """A field of a packet. bits: it is there when one of them is set in the `flags`; since: the level that it came
    with; optional: it may be left out at the packet's end, with all that follow."""

    __slots__ = ("name", "kind", "bits", "since", "optional")

    def __init__(self, name: str, kind: int, bits: int = 0, since: int = V31, optional: bool = False) -> None:
        self.name = name
        self.kind = kind
        self.bits = bits
        self.since = since
        self.optional = optional


class Packet:
    """A type of packet. flags: the lower half of its first byte, -1 when that says something; from_client and
    from_server: who may send it; since: the level that it came with; reasons: the reason codes that it may have, as
    far as clients send it."""

    __slots__ = ("code", "name", "flags", "from_client", "from_server", "since", "fields", "reasons")

    def __init__(self, code: int, name: str, flags: int, from_client: bool, from_server: bool, since: int,
                 fields: list[Field], reasons: bytes = b"") -> None:
        self.code = code
        self.name = name
        self.flags = flags
        self.from_client = from_client
        self.from_server = from_server
        self.since = since
        self.fields = fields
        self.reasons = frozenset(reasons)


_TAKEN = b"\x00\x10\x80\x83\x87\x90\x91\x97\x99"  # of PUBACK and PUBREC
_FOUND = b"\x00\x92"  # of PUBREL and PUBCOMP
_GOOD_BYE = b"\x00\x04\x80\x81\x82\x83\x90\x93\x94\x95\x96\x97\x98\x99"

_ID = Field("packet_id", U16)
_PROPERTIES = Field("properties", PROPERTIES, since=V5)
_REASON = [Field("reason", U8, since=V5, optional=True), Field("properties", PROPERTIES, since=V5, optional=True)]

PACKETS: Final[dict[int, Packet]] = {each.code: each for each in (
    Packet(CONNECT, "CONNECT", 0, True, False, V31, [
        Field("protocol", TEXT), Field("level", U8), Field("flags", U8), Field("keep_alive", U16), _PROPERTIES,
        Field("client_id", TEXT), Field("will_properties", WILL_PROPERTIES, HAS_WILL, V5),
        Field("will_topic", TEXT, HAS_WILL), Field("will_payload", BINARY, HAS_WILL),
        Field("user", TEXT, HAS_USER), Field("password", BINARY, HAS_PASSWORD)]),
    Packet(CONNACK, "CONNACK", 0, False, True, V31, [Field("flags", U8), Field("reason", U8), _PROPERTIES]),
    Packet(PUBLISH, "PUBLISH", -1, True, True, V31, [
        Field("topic", TEXT), Field("packet_id", U16, 0x06), _PROPERTIES, Field("payload", REST)]),
    Packet(PUBACK, "PUBACK", 0, True, True, V31, [_ID, *_REASON], _TAKEN),
    Packet(PUBREC, "PUBREC", 0, True, True, V31, [_ID, *_REASON], _TAKEN),
    Packet(PUBREL, "PUBREL", 2, True, True, V31, [_ID, *_REASON], _FOUND),
    Packet(PUBCOMP, "PUBCOMP", 0, True, True, V31, [_ID, *_REASON], _FOUND),
    Packet(SUBSCRIBE, "SUBSCRIBE", 2, True, False, V31, [_ID, _PROPERTIES, Field("requests", REQUESTS)]),
    Packet(SUBACK, "SUBACK", 0, False, True, V31, [_ID, _PROPERTIES, Field("codes", CODES)]),
    Packet(UNSUBSCRIBE, "UNSUBSCRIBE", 2, True, False, V31, [_ID, _PROPERTIES, Field("filters", TEXTS)]),
    Packet(UNSUBACK, "UNSUBACK", 0, False, True, V31, [_ID, _PROPERTIES, Field("codes", CODES, since=V5)]),
    Packet(PINGREQ, "PINGREQ", 0, True, False, V31, []),
    Packet(PINGRESP, "PINGRESP", 0, False, True, V31, []),
    Packet(DISCONNECT, "DISCONNECT", 0, True, True, V31, _REASON, _GOOD_BYE),
    Packet(AUTH, "AUTH", 0, True, True, V5, _REASON, b"\x18\x19"),
)}
"""By type."""


def read_length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The remaining length (2.1.4) that begins at `at`, and where it ends; -1 and 0 when it is not all there yet."""
    value = 0
    shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 21:
            raise malformed("a remaining length of more than four bytes")
    return -1, 0


def read(what: Packet, level: int, flags: int, data: bytes, at: int, stop: int) -> dict[str, Any]:
    """The fields of a packet from behind its fixed header to its end. flags: the lower half of its first byte.

    The level of a CONNECT is the one that it says itself. Those that are not there are left out, but for a reason of
    0 and empty properties.
    """
    found: dict[str, Any] = {}
    for field in what.fields:
        if field.since > level or field.bits and not flags & field.bits:
            continue
        name = field.name
        kind = field.kind
        if field.optional and at == stop:
            found[name] = 0 if kind == U8 else {}
        elif kind == U8:
            if at >= stop:
                raise malformed(f"{what.name} is cut off")
            found[name] = data[at]
            at += 1
            if what.code == CONNECT:
                if name == "level":
                    level = found[name]
                    check_protocol(found["protocol"], level)
                elif name == "flags":
                    flags = found[name]
                    _check_connect_flags(flags, level)
        elif kind == U16:
            found[name], at = read_u16(data, at, stop)
            if name == "packet_id" and not found[name]:
                raise wrong(f"{what.name} with packet identifier 0")
        elif kind == TEXT:
            found[name], at = read_text(data, at, stop)
        elif kind == BINARY:
            found[name], at = read_binary(data, at, stop)
        elif kind == PROPERTIES:
            found[name], at = read_properties(data, at, stop, what.code)
        elif kind == WILL_PROPERTIES:
            found[name], at = read_properties(data, at, stop, WILL)
        else:
            found[name] = _read_all(what, kind, level, data, at, stop)
            at = stop
    if at != stop:
        raise malformed(f"{what.name} is longer than its fields")
    return found


def level_of(data: bytes, at: int, stop: int) -> int:
    """The level that a CONNECT says, if it gets that far, from behind its fixed header: how to answer what is wrong
    with the rest. 0 when there is none."""
    here = at + 2 + (data[at] << 8 | data[at + 1]) if at + 2 <= stop else stop
    return data[here] if here < stop and data[at + 2:here] in (b"MQTT", b"MQIsdp") else 0


class UnsupportedProtocol(Exception):
    """CONNECT is of a protocol or a level that is not served; `str()` says which."""


def check_protocol(name: str, level: int) -> None:
    """Raises: UnsupportedProtocol."""
    if (name, level) not in PROTOCOLS:
        raise UnsupportedProtocol(f"protocol {name[:16]!r}, level {level}")


def _check_connect_flags(flags: int, level: int) -> None:
    """3.1.2.3 to 3.1.2.9."""
    if flags & _RESERVED:
        raise malformed("CONNECT with its reserved flag set")
    if flags & HAS_WILL:
        if flags >> 3 & 3 == 3:
            raise malformed("CONNECT with a will of QoS 3")
    elif flags & 0x38:
        raise malformed("CONNECT with a QoS or retain flag of a will, and no will")
    if flags & HAS_PASSWORD and not flags & HAS_USER and level < V5:
        raise malformed("CONNECT with a password and no user name")


def _read_all(what: Packet, kind: int, level: int, data: bytes, at: int, stop: int) -> Any:
    """A field that takes the rest of the packet."""
    if kind == REST:
        return data[at:stop]
    if at == stop:
        raise wrong(f"{what.name} of nothing")
    if kind == CODES:
        return list(data[at:stop])
    texts = []
    requests = []
    while at < stop:
        text, at = read_text(data, at, stop)
        check_filter(text)
        if kind == TEXTS:
            texts.append(text)
            continue
        if at >= stop:
            raise malformed("a topic filter without options")
        _check_options(text, data[at], level)
        requests.append((text, data[at]))
        at += 1
    return texts if kind == TEXTS else requests


def _check_options(topic_filter: str, options: int, level: int) -> None:
    """Subscription options (3.8.3.1); before MQTT 5 only a QoS."""
    if options & (0xC0 if level >= V5 else 0xFC):
        raise malformed(f"subscription options {options:#04x}")
    if options & 3 == 3 or options >> 4 & 3 == 3:
        if level < V5:
            raise malformed("a subscription with QoS 3")
        raise wrong(f"subscription options {options:#04x}")
    if options & 4 and topic_filter.startswith("$share/"):
        raise wrong("a shared subscription with No Local")


def check_filter(topic_filter: str) -> None:
    """4.7.1 and 4.8.2: where wildcards may stand, and what a shared subscription needs."""
    rest = topic_filter
    if rest.startswith("$share/"):
        share, _, rest = rest[7:].partition("/")
        if not share or "+" in share or "#" in share or not rest:
            raise malformed(f"shared subscription {topic_filter[:64]!r}")
    if not rest:
        raise malformed("an empty topic filter")
    if "#" in rest or "+" in rest:
        levels = rest.split("/")
        for number, level in enumerate(levels):
            if len(level) > 1 and ("#" in level or "+" in level) or level == "#" and number + 1 < len(levels):
                raise malformed(f"topic filter {topic_filter[:64]!r}")


def write(packet: int, version: int, bits_of_publish: int = -1, /, **values: Any) -> bytes:
    """A packet. bits_of_publish: its flags, of PUBLISH. What is not in `values` is 0 or empty, or left out where that
    says the same. No parameter may have a field's name: compiled, it would take its value.

    Raises OverflowError or ValueError for what does not fit.
    """
    what = PACKETS[packet]
    bits: int = values.get("flags", 0) if bits_of_publish < 0 else bits_of_publish
    parts: list[bytes] = []
    fields = [field for field in what.fields if field.since <= version and (not field.bits or bits & field.bits)]
    while fields and fields[-1].optional and not values.get(fields[-1].name):
        fields.pop()
    for field in fields:
        value = values.get(field.name)
        kind = field.kind
        if kind == U8 or kind == U16:
            number: int = value or 0
            parts.append(number.to_bytes(1 if kind == U8 else 2, "big"))
        elif kind == TEXT:
            parts.append(write_text(value or ""))
        elif kind == BINARY:
            parts.append(binary(value or b""))
        elif kind == PROPERTIES or kind == WILL_PROPERTIES:
            parts.append(write_properties(value or {}))
        elif kind == REST:
            parts.append(value or b"")
        elif kind == CODES:
            parts.append(bytes(value or []))
        elif kind == TEXTS:
            parts.extend([write_text(each) for each in value or []])
        else:
            for text, options in value or []:
                parts.append(write_text(text) + bytes([options]))
    content = b"".join(parts)
    first = packet << 4 | (what.flags if bits_of_publish < 0 else bits_of_publish)
    return bytes([first]) + varint(len(content)) + content
