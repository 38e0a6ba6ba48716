"""The sections of a message, found without decoding what nobody asks for (part 3, section 3.2).

`Message.native` of this dialect is the message as it arrived, less its delivery annotations; what follows of a body
that is too long is in `Message.body`. A message format other than 0 stands before all that in a section of our own.
"""

from __future__ import annotations

from typing import Any, Final

from broker.values import Pairs, UInt
from protocols.amqp10.frames import BINARY, BOOL, UBYTE, UINT, list_header, plain
from protocols.values10 import KINDS, Malformed, Reader, encode

FORMAT: Final = 0x6F
"""Our own section: the message format, a uint. No peer ever sees it."""

HEADER: Final = 0x70
DELIVERY_ANNOTATIONS: Final = 0x71
MESSAGE_ANNOTATIONS: Final = 0x72
PROPERTIES: Final = 0x73
APPLICATION_PROPERTIES: Final = 0x74
DATA: Final = 0x75
SEQUENCE: Final = 0x76
VALUE: Final = 0x77
FOOTER: Final = 0x78

MOST_SECTIONS: Final = 16384
"""Sections that the body of a message in many pieces can have: to look at more would hold up all others."""

LONGEST_HEAD: Final = 65536
"""Bytes within which such a section must say how long it is (descriptors of its value may come before that)."""

_NAMES = {"amqp:header:list": HEADER, "amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
          "amqp:message-annotations:map": MESSAGE_ANNOTATIONS, "amqp:properties:list": PROPERTIES,
          "amqp:application-properties:map": APPLICATION_PROPERTIES, "amqp:data:binary": DATA,
          "amqp:amqp-sequence:list": SEQUENCE, "amqp:value:*": VALUE, "amqp:footer:map": FOOTER}

_HEADER_KINDS = (BOOL, UBYTE, UINT, BOOL, UINT)
_MESSAGE_ID, _USER_ID, _TO, _SUBJECT, _CORRELATION_ID, _EXPIRY, _GROUP_ID = 0, 1, 2, 3, 5, 8, 10
_IDS: Final = frozenset({0x44, 0x53, 0x80, 0x98, 0xA0, 0xA1, 0xB0, 0xB1})
"""Constructors that a message's id may have (part 3, section 3.2.11 to 3.2.14)."""


class Scan:
    """What routing and queueing need to know of a message. Raises: Malformed."""

    __slots__ = ("durable", "priority", "ttl", "first_acquirer", "delivery_count", "header_end", "rest_at", "body_at",
                 "user_id", "to", "subject", "absolute_expiry", "annotations_at", "complete")

    def __init__(self, data: bytes, whole: bool) -> None:
        """data: the message or, when not `whole`, its beginning: `complete` says whether that goes up to its body."""
        self.durable = False
        self.priority = -1  # -1: not said
        self.ttl = -1  # ms; likewise
        self.first_acquirer = False
        self.delivery_count = 0
        self.header_end = 0
        self.rest_at = 0  # where the message goes on behind its delivery annotations
        self.body_at = -1
        self.user_id: bytes | None = None
        self.to: bytes | None = None
        self.subject: bytes | None = None
        self.absolute_expiry = 0  # ms since the epoch; 0 for never
        self.annotations_at = -1  # where the map of the message annotations is; -1: there are none
        reader = Reader(data, 0, len(data))
        try:
            self._sections(reader, whole)
            self.complete = self.body_at >= 0
        except Malformed:
            if whole:
                raise
            self.complete = False

    def _sections(self, reader: Reader, whole: bool) -> None:
        last = 0
        while reader.at < reader.end:
            at = reader.at
            code = section(reader)
            if code <= last:
                raise Malformed("a message's sections are not in order")
            last = code
            if code >= DATA:
                self.body_at = at
                if whole:
                    _check_body(reader, code)
                return
            if code == HEADER:
                self._header(reader)
                self.header_end = self.rest_at = reader.at
            elif code == PROPERTIES:
                self._properties(reader)
            else:
                if code == MESSAGE_ANNOTATIONS:
                    self.annotations_at = reader.at
                _skip_map(reader)
                if code == DELIVERY_ANNOTATIONS:
                    self.rest_at = reader.at
        if whole:
            self.body_at = reader.at  # it has none, as Qpid JMS sends it

    def _header(self, reader: Reader) -> None:
        count, end = list_header(reader)
        if count > 5:
            raise Malformed("a message's header has more than five fields")
        for index in range(count):
            if reader.at < end and reader.data[reader.at] == 0x40:
                reader.at += 1
                continue
            value = plain(reader, _HEADER_KINDS[index])
            if value is None:
                raise Malformed("a field of a message's header has the wrong type")
            if index == 0:
                self.durable = value
            elif index == 1:
                self.priority = value
            elif index == 2:
                self.ttl = value
            elif index == 3:
                self.first_acquirer = value
            else:
                self.delivery_count = value
        if reader.at != end:
            raise Malformed("a message's header is not as long as it says")

    def _properties(self, reader: Reader) -> None:
        count, end = list_header(reader)
        if count > 13:
            raise Malformed("a message's properties are more than thirteen")
        if end > reader.end:
            raise Malformed("a message's properties are cut off")
        data = reader.data
        for index in range(min(count, _EXPIRY + 1)):
            if reader.at >= end:
                raise Malformed("a message's properties are not as long as they say")
            code = data[reader.at]
            if code == 0x40:
                reader.at += 1
            elif index == _TO or index == _SUBJECT:
                if code != 0xA1 and code != 0xB1:
                    raise Malformed("a message's subject or address is no string")
                reader.at += 1
                value = reader.take(reader.number(1 if code == 0xA1 else 4))
                if index == _TO:
                    self.to = value
                else:
                    self.subject = value
            elif index == _USER_ID:
                self.user_id = plain(reader, BINARY)
                if self.user_id is None:
                    raise Malformed("a message's user-id is no binary")
            elif index == _EXPIRY:
                if code != 0x83:
                    raise Malformed("a message's absolute-expiry-time is no timestamp")
                reader.at += 1
                self.absolute_expiry = int.from_bytes(reader.take(8), "big", signed=True)
            elif (index == _MESSAGE_ID or index == _CORRELATION_ID) and code not in _IDS:
                raise Malformed("a message's id is no ulong, uuid, binary or string")
            else:
                reader.skip()
        if reader.at > end:
            raise Malformed("a message's properties are longer than they say")
        reader.at = end


def _check_body(reader: Reader, code: int) -> None:
    """See that there are body sections of one kind, and perhaps a footer, and nothing else; the reader is at the value
    of the first. What is inside of lists and maps is for those to see who look at it. Raises: Malformed."""
    first = code
    while True:
        kind = reader.data[reader.at] if reader.at < reader.end else 0x40
        _check_type(code, kind)
        reader.skip()
        if reader.at >= reader.end:
            return
        before = code
        code = section(reader)
        if before == FOOTER or code != FOOTER and (code != first or code == VALUE):
            raise Malformed("a message's sections are not in order")


def _check_type(code: int, kind: int) -> None:
    if code == DATA and kind not in (0xA0, 0xB0) or code == SEQUENCE and kind not in (0xC0, 0xD0, 0x45) \
            or code == FOOTER and kind not in (0xC1, 0xD1):
        raise Malformed("a section of a message's body has the wrong type")


def check_pieces(native: bytes, at: int, rest: list[bytes]) -> None:
    """The same for a body that begins in `native` at `at` and goes on in other pieces, which are not put together for
    this: what is between the heads of its sections is passed over. Raises: Malformed."""
    pieces = [native, *rest]
    index = first = last = 0
    for _ in range(MOST_SECTIONS):
        while index < len(pieces) and at >= len(pieces[index]):
            at -= len(pieces[index])
            index += 1
        if index == len(pieces):
            if at:
                raise Malformed("a message's body is cut off")
            return
        size, code = _section_size(pieces, index, at)
        if code < DATA or first and (last == FOOTER or code != FOOTER and (code != first or code == VALUE)):
            raise Malformed("a message's sections are not in order")
        first = first or code
        last = code
        at += size
    raise Malformed(f"a large message has more than {MOST_SECTIONS} sections")


def _section_size(pieces: list[bytes], index: int, at: int) -> tuple[int, int]:
    """The bytes of the section at `at` of a piece, its descriptor included, and its code. Raises: Malformed."""
    look = 64
    while True:
        data = _cut(pieces, index, at, look)
        reader = Reader(data, 0, len(data))
        try:
            code = section(reader)
            kind = reader.number(1)
            _check_type(code, kind)
            group = kind >> 4
            if group >= 0xA and kind in KINDS:
                size = reader.number(4 if group & 1 else 1)
                return reader.at + size, code
            reader.at -= 1
            reader.skip()
            return reader.at, code
        except Malformed:
            if len(data) < look or look >= LONGEST_HEAD:
                raise
            look *= 4


def _cut(pieces: list[bytes], index: int, at: int, size: int) -> bytes:
    """So many bytes from `at` of a piece on; fewer at the end."""
    part = pieces[index][at:at + size]
    if len(part) == size:
        return part
    found = [part]
    size -= len(part)
    for following in range(index + 1, len(pieces)):
        part = pieces[following][:size]
        found.append(part)
        size -= len(part)
        if size <= 0:
            break
    return b"".join(found)


def section(reader: Reader) -> int:
    """The code of the section that is next; the reader is then at its value. Raises: Malformed."""
    data = reader.data
    at = reader.at
    if at + 3 <= reader.end and data[at] == 0 and data[at + 1] == 0x53:
        code = int(data[at + 2])
        reader.at = at + 3
    else:
        if reader.number(1) != 0:
            raise Malformed("a section of a message has no descriptor")
        named = reader.value()
        code = _NAMES.get(str(named), -1) if not isinstance(named, int) else int(named)
    if code < FORMAT or code > FOOTER:
        raise Malformed("a message has a section that is not known")
    return code


def _skip_map(reader: Reader) -> None:
    if reader.at >= reader.end or reader.data[reader.at] not in (0xC1, 0xD1, 0x52, 0x43, 0x70, 0x40):
        raise Malformed("a section of a message is no map")
    reader.skip()


def header(durable: bool, priority: int, ttl: int, first_acquirer: bool, delivery_count: int) -> bytes:
    """A header section. priority and ttl (ms): -1 for none."""
    if ttl < 0:
        key = (durable, priority, first_acquirer, delivery_count)
        known = _HEADERS.get(key)
        if known is not None:
            return known
    items = [b"\x41" if durable else b"\x42", b"\x40" if priority < 0 else b"\x50" + bytes([priority]),
             b"\x40" if ttl < 0 else encode(UInt(min(ttl, 0xFFFFFFFF))), b"\x41" if first_acquirer else b"\x42"]
    if delivery_count:
        items.append(encode(UInt(delivery_count)))
    body = b"".join(items)
    data = b"\x00\x53\x70\xc0" + bytes([len(body) + 1, len(items)]) + body
    if ttl < 0:
        if len(_HEADERS) > 1000:
            _HEADERS.clear()
        _HEADERS[key] = data
    return data


_HEADERS: dict[tuple[bool, int, bool, int], bytes] = {}


def header_end(native: bytes) -> int:
    """Where the header of a message that was checked ends, a message format before it included; 0: it has neither."""
    at = 0
    if native[2] == FORMAT and native[1] == 0x53:
        at = message_format(native)[1]
        if len(native) == at:
            return at
    if native[at + 1] != 0x53 or native[at + 2] != HEADER:
        if native[at + 1] == 0x53:
            return at
        return at + Scan(native[at:], False).header_end  # a descriptor that is written differently
    kind = native[at + 3]
    if kind == 0xC0:
        return at + 5 + native[at + 4]
    return at + 4 if kind == 0x45 else at + 8 + int.from_bytes(native[at + 4:at + 8], "big")


def message_format(data: bytes) -> tuple[int, int]:
    """The message format of native bytes, and where the message itself begins."""
    if len(data) >= 8 and data[2] == FORMAT and data[1] == 0x53:
        return int.from_bytes(data[4:8], "big"), 8
    return 0, 0


def with_format(number: int, data: bytes) -> bytes:
    """Native bytes of a message of that format."""
    return b"\x00\x53\x6f\x70" + number.to_bytes(4, "big") + data


def annotation(data: bytes, at: int, name: str) -> Any:
    """The value of a message annotation; `at`: where their map is."""
    found = Reader(data, at, len(data)).value()
    if isinstance(found, Pairs):
        for key, value in found.items:
            if key == name:
                return value
    elif isinstance(found, dict):
        return found.get(name)
    return None


def delivery_time(data: bytes, scan: Scan, arrival: int) -> int:
    """When a message wants to be delivered, by the annotations that say so, ms since the epoch; 0: at once."""
    if scan.annotations_at < 0:
        return 0
    when = annotation(data, scan.annotations_at, "x-opt-delivery-time")
    if isinstance(when, int) and not isinstance(when, bool):
        return int(when)
    delay = annotation(data, scan.annotations_at, "x-opt-delivery-delay")
    if isinstance(delay, int) and not isinstance(delay, bool) and delay > 0:
        return arrival + int(delay)
    return 0
