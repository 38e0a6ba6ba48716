"""Messages of 1.0 and the model (TRANSLATION.md, sections 1 and 2): pure functions, no connection, no queue.

The model is 1.0's own bare message, so this side of the translation is straight: sections to fields and back.
"""

from __future__ import annotations

from typing import Any, Final

from broker.message import AMQP10, CONVERTERS, Address, Amendment, Converter, Message
from broker.values import Pairs, Symbol, Timestamp, UInt
from broker.view import BYTES, NOTHING, SEQUENCES, VALUE, Death, View
from protocols.amqp10 import sections as s
from protocols.deaths import read_death, write_death
from protocols.values10 import Malformed, Reader, encode, encode_list, encode_map

DEATHS = "x-opt-deaths"
"""The message annotation that holds the dead-letter history: a list of maps, last death first."""

APP_ID = "x-amqp-0-10.app-id"
CLUSTER_ID = "x-cluster-id"
"""An application property and a message annotation that keep what only older dialects have fields for."""

PIECE: Final = 65536
"""Bodies of more bytes than this stay in pieces."""


class Amqp10Converter(Converter):
    """The converter of this dialect."""

    def decode(self, message: Message) -> View:
        view = View()
        try:
            read_sections(view, message)
        except Malformed:  # it is the client's own affair, unless somebody else wants to look at it
            view.kind = BYTES
            view.body = [message.native, *(message.body or ())]
        return view

    def encode(self, view: View, like: Message) -> Message:
        head = b"".join(bare_head(view))
        pieces = body_sections(view)
        size = sum(map(len, pieces))
        body: list[bytes] | None = None
        native = head
        if size <= PIECE:
            native = b"".join([head, *pieces])
        else:
            body = pieces
        message = Message(like.address, AMQP10, native, body, size, view.durable,
                          4 if view.priority is None else view.priority, like.expiry, like.arrival)
        return message

    def amend(self, message: Message, amendment: Amendment, address: Address, now: int) -> Message:
        start = s.message_format(message.native)[1]
        scan = s.Scan(message.native[start:], message.body is None)
        native = message.native[:start] + _amended(message.native[start:], scan, amendment)
        expiry = 0
        if not amendment.drop_expiration:
            expiry = scan.absolute_expiry
            if scan.ttl >= 0 and (not expiry or now + scan.ttl < expiry):
                expiry = now + scan.ttl
        return Message(address, AMQP10, native, message.body, message.size, message.durable, message.priority, expiry,
                       now)

    def delivery_time(self, message: Message) -> int:
        start = s.message_format(message.native)[1]
        return s.delivery_time(message.native[start:], s.Scan(message.native[start:], message.body is None),
                               message.arrival)

    def expiration(self, message: Message) -> str | None:
        start = s.message_format(message.native)[1]
        scan = s.Scan(message.native[start:], message.body is None)
        return None if scan.ttl < 0 else str(scan.ttl)


CONVERTERS[AMQP10] = Amqp10Converter()


# Reading.


def read_sections(view: View, message: Message) -> None:
    """Fill the view. Raises: Malformed."""
    native = message.native
    start = s.message_format(native)[1]
    data = native[start:] if message.body is None else b"".join([native[start:], *message.body])
    view.durable = message.durable
    reader = Reader(data, 0, len(data))
    chunks: list[bytes] = []
    while reader.at < reader.end:
        code = s.section(reader)
        if code == s.DATA:
            value = reader.value()
            if not isinstance(value, bytes):
                raise Malformed("a data section is no binary")
            chunks.append(value)
            continue
        value = reader.value()
        if code == s.HEADER:
            _read_header(view, value)
        elif code == s.MESSAGE_ANNOTATIONS:
            view.annotations = annotations_of(value)
            if type(view.annotations.get(CLUSTER_ID)) is str:
                view.cluster_id = view.annotations.pop(CLUSTER_ID)
            deaths = view.annotations.get(DEATHS)
            if isinstance(deaths, list) and all(isinstance(death, dict) for death in deaths):
                view.deaths = [read_death(death, 1000) for death in deaths]
                del view.annotations[DEATHS]
        elif code == s.PROPERTIES:
            _read_properties(view, value)
        elif code == s.APPLICATION_PROPERTIES:
            view.headers = annotations_of(value)
            if type(view.headers.get(APP_ID)) is str:
                view.app_id = view.headers.pop(APP_ID)
        elif code == s.SEQUENCE:
            if view.kind != SEQUENCES:
                view.kind, view.value = SEQUENCES, []
            view.value.append(value)
        elif code == s.VALUE:
            view.kind, view.value = VALUE, value
    if view.kind == BYTES:
        view.body = chunks
        if not chunks:
            view.kind = NOTHING
        elif len(chunks) > 1:
            view.data_lengths = [len(chunk) for chunk in chunks]


def _read_header(view: View, fields: Any) -> None:
    if not isinstance(fields, list):
        raise Malformed("a message's header is no list")
    fields = fields + [None] * (5 - len(fields))
    view.priority = None if fields[1] is None else int(fields[1])
    view.ttl = None if fields[2] is None else int(fields[2])


_PROPERTIES = ("message_id", "user_id", "to", "subject", "reply_to", "correlation_id", "content_type",
               "content_encoding", "absolute_expiry_time", "creation_time", "group_id", "group_sequence",
               "reply_to_group_id")


def _read_properties(view: View, fields: Any) -> None:
    if not isinstance(fields, list) or len(fields) > len(_PROPERTIES):
        raise Malformed("a message's properties are no list of thirteen")
    for name, value in zip(_PROPERTIES, fields, strict=False):
        if value is None:
            continue
        if name in ("content_type", "content_encoding"):
            value = str(value)
        elif name in ("absolute_expiry_time", "creation_time", "group_sequence"):
            if not _is_number(value):
                continue  # is of another type than it should be, and says nothing to others
            value = int(value)
        elif name in ("to", "subject", "reply_to", "group_id", "reply_to_group_id") and not isinstance(value, str):
            continue
        setattr(view, name, value)


def _is_number(value: Any) -> bool:
    """Not asked where `int()` follows: compiled, that would leave a value as it is that is known to be an int, and so
    a timestamp a timestamp."""
    return isinstance(value, int)


def annotations_of(value: Any) -> dict[str, Any]:
    """A section's map by its names as text."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Pairs):
        return {str(key): item for key, item in value.items if isinstance(key, str)}
    if value is None:
        return {}
    raise Malformed("a section of a message is no map")


# Writing.


def bare_head(view: View) -> list[bytes]:
    """The sections before the body."""
    parts = [s.header(view.durable, -1 if view.priority is None else min(view.priority, 255),
                      -1 if view.ttl is None else view.ttl, False, 0)]
    annotations = view.annotations
    if view.cluster_id is not None:
        annotations = {**annotations, CLUSTER_ID: view.cluster_id}
    if annotations or view.deaths:
        parts.append(annotations_section(annotations, view.deaths))
    properties = _properties(view)
    if properties:
        parts.append(b"\x00\x53\x73" + encode_list(properties))
    headers = view.headers
    if view.app_id is not None:
        headers = {**headers, APP_ID: view.app_id}
    if headers:
        items = [part for name, value in headers.items() for part in (encode(str(name)), encode(value))]
        parts.append(b"\x00\x53\x74" + encode_map(items))
    return parts


def annotations_section(annotations: dict[str, Any], deaths: list[Death]) -> bytes:
    items: list[bytes] = []
    for name, value in annotations.items():
        if name != DEATHS or not deaths:
            items += (encode(Symbol(name)), encode(value))
    if deaths:
        items += (encode(Symbol(DEATHS)), encode([write_death(death) for death in deaths]))
    return b"\x00\x53\x72" + encode_map(items)


def _properties(view: View) -> list[bytes]:
    """The fields of the properties section, without those that are absent at the end."""
    items: list[bytes] = []
    last = 0
    for index, name in enumerate(_PROPERTIES):
        value = getattr(view, name)
        if value is None:
            items.append(b"\x40")
            continue
        if name in ("content_type", "content_encoding"):
            value = Symbol(value)
        elif name in ("absolute_expiry_time", "creation_time"):
            value = Timestamp(value)
        elif name == "group_sequence":
            value = UInt(value & 0xFFFFFFFF)
        items.append(encode(value))
        last = index + 1
    return items[:last]


def body_sections(view: View) -> list[bytes]:
    """The body, in pieces."""
    if view.kind == NOTHING:
        return []
    if view.kind == VALUE:
        return [b"\x00\x53\x77" + encode(view.value)]
    if view.kind == SEQUENCES:
        return [b"\x00\x53\x76" + encode(sequence) for sequence in view.value]
    if not view.data_lengths:
        size = sum(map(len, view.body))
        return [_data_head(size), *view.body]
    whole = b"".join(view.body)
    parts: list[bytes] = []
    at = 0
    for length in view.data_lengths:
        parts += (_data_head(length), whole[at:at + length])
        at += length
    return parts


def _data_head(size: int) -> bytes:
    if size < 256:
        return b"\x00\x53\x75\xa0" + bytes([size])
    return b"\x00\x53\x75\xb0" + size.to_bytes(4, "big")


# Amending.


def _amended(data: bytes, scan: s.Scan, amendment: Amendment) -> bytes:
    """The message, from its header on, with what is different."""
    head = data[:scan.header_end]
    if amendment.drop_expiration and scan.ttl >= 0:
        head = s.header(scan.durable, scan.priority, -1, scan.first_acquirer, 0)
    rest = data[scan.rest_at:]
    changes: dict[str, Any] = dict(amendment.annotations)
    changes.update(amendment.headers)
    if changes or amendment.deaths is not None or amendment.drop_headers:
        annotations: dict[str, Any] = {}
        at = scan.rest_at
        if scan.annotations_at >= 0:
            reader = Reader(data, scan.annotations_at, len(data))
            annotations = annotations_of(reader.value())
            at = reader.at
        for name in amendment.drop_headers:
            annotations.pop(name, None)
        annotations.update(changes)
        deaths = amendment.deaths
        if deaths is None:
            known = annotations.get(DEATHS)
            listed = known if isinstance(known, list) else []
            deaths = [read_death(each, 1000) for each in listed if isinstance(each, dict)]
        rest = annotations_section(annotations, deaths) + data[at:]
    if amendment.reply_to is not None:
        rest = _with_reply_to(rest, amendment.reply_to)
    return head + rest


def _with_reply_to(data: bytes, reply_to: str) -> bytes:
    """The sections with another reply-to."""
    reader = Reader(data, 0, len(data))
    while reader.at < reader.end:
        at = reader.at
        code = s.section(reader)
        if code > s.PROPERTIES:
            break
        value = reader.value()
        if code == s.PROPERTIES:
            view = View()
            _read_properties(view, value)
            view.reply_to = reply_to
            return data[:at] + b"\x00\x53\x73" + encode_list(_properties(view)) + data[reader.at:]
        at = reader.at
    view = View()
    view.reply_to = reply_to
    return data[:at] + b"\x00\x53\x73" + encode_list(_properties(view)) + data[at:]


