"""From 0-10 to the model and back (TRANSLATION.md, section 1): pure functions.

What has no place on the other side is kept in headers (protocols/side_headers.py). What delivery-properties say of the
transfer alone (discard-unroutable, immediate, redelivered, resume-id, resume-ttl) is no part of the message.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from broker.message import Message
from broker.values import ULong, same
from broker.view import Death, View
from protocols import maps010
from protocols.amqp010.properties import Properties
from protocols.bodies import read_body, write_body
from protocols.deaths import write_death
from protocols.markers import Tables
from protocols.reply_to import join_address, split_address
from protocols.side_headers import (
    EXPIRATION,
    FORMER_SUBJECT,
    RAW,
    SUBJECT,
    is_text,
    keep_common,
    own_annotations,
    own_subject,
    read_headers,
    read_kept,
    read_kept_id,
    read_text,
    tell_route,
    write_headers,
    write_text,
)

JMS_TYPE = "x-jms-type"
"""The header in which Qpid's first JMS clients keep what they call a message's type, and 1.0 its subject."""

RAW_HEADERS = RAW + "application-headers"
"""The annotation that keeps application-headers that are no map of text."""
_STRUCTS = "x-opt-structs"
"""The annotation that keeps what structs there are in a header besides the usual two."""
_REPLY_TO = RAW + "reply-to"
"""The annotation that keeps a reply-to, exchange and key, when its address would be taken for another."""

_CORRELATION, _CORRELATION_TYPE = "x-correlation-id", "x-correlation-id-type"

MILLISECONDS = 10**11
"""Times above this are no seconds since the epoch: Qpid's first JMS clients send ms. As a time to live it is too long
for a 0-9-1 expiration, which would be a time, too."""
_LAST = (2**63 - 1) // 1000

_NESTING = 3
"""Levels that a header can be put deeper than it is."""


class HeaderMaps(Tables):
    """Maps of application-headers and their values, as the shared parts of the translation write them."""

    def exact(self, value: Any) -> bytes | None:
        try:
            return maps010.write(value, _NESTING)
        except ValueError:
            return None

    def table(self, entries: dict[str, bytes]) -> bytes:
        return b"\xa8" + maps010.join_map(entries)

    def array(self, items: list[bytes]) -> bytes:
        return b"\xa9" + maps010.join_list(items)

    def text(self, value: str) -> bytes:
        """A name of at most 65535 bytes, be it UTF-8 or not."""
        data = value.encode("utf-8", "surrogateescape")
        return b"\x95" + len(data).to_bytes(2, "big") + data


MAPS = HeaderMaps()


# From 0-10.


def to_model(message: Message, p: Properties, body: list[bytes], view: View) -> None:
    """Fill the view."""
    headers: dict[str, Any] = {}
    if p.headers is not None:
        try:
            headers = MAPS.take_markers(maps010.read_map(p.headers))
        except ValueError:
            view.annotations[RAW_HEADERS] = p.headers
    if p.others:
        view.annotations[_STRUCTS] = list(p.others)
    _read_delivery(view, p)
    if p.has_message:
        _read_texts(view, p)
        if p.has_reply_to:
            _read_reply_to(view, p, headers)
        _read_ids(view, p, headers)
    exchange, routing_key = message.address.exchange, message.address.routing_key
    _read_subject(view, headers, routing_key if exchange else "")
    if headers:
        read_kept(view, headers)
    read_body(view, headers, body)
    if headers:
        read_headers(view, headers, MAPS)
    tell_route(view, exchange, routing_key)


def _read_delivery(view: View, p: Properties) -> None:
    view.durable = p.delivery_mode == 2
    if p.priority >= 0:
        view.priority = p.priority
    if p.ttl >= 0:
        if p.ttl < 2**32:
            view.ttl = p.ttl
        elif p.ttl <= MILLISECONDS:
            view.annotations[EXPIRATION] = str(p.ttl)
        else:
            view.annotations[RAW + "ttl"] = ULong(p.ttl)
    elif p.expiration >= 0:  # with a ttl it is when that ends
        view.absolute_expiry_time = _read_time(view, p.expiration, "expiration")
    if p.timestamp >= 0:
        view.creation_time = _read_time(view, p.timestamp, "timestamp")


def _read_time(view: View, written: int, name: str) -> int | None:
    """A time as ms since the epoch. An annotation keeps what is not in seconds as it should be."""
    if written <= MILLISECONDS:
        return written * 1000
    view.annotations[RAW + name] = ULong(written)
    return written if written <= _LAST else None


def _read_texts(view: View, p: Properties) -> None:
    if p.content_type is not None:
        read_text(view, "content_type", "content-type", p.content_type)
    if p.content_encoding is not None:
        read_text(view, "content_encoding", "content-encoding", p.content_encoding)
    if p.app_id is not None:
        read_text(view, "app_id", "app-id", p.app_id)
    view.user_id = p.user_id


def _read_reply_to(view: View, p: Properties, headers: dict[str, Any]) -> None:
    kept = headers.get("x-opt-reply-to")
    if type(kept) is str and p.reply_exchange is not None and p.reply_key is not None:
        exchange, key = split_address(kept)
        if exchange.encode("utf-8") == p.reply_exchange and key.encode("utf-8") == p.reply_key:
            view.reply_to = kept
            del headers["x-opt-reply-to"]
            return
    view.reply_to, former = _address_of(p.reply_exchange, p.reply_key)
    if former is not None:
        view.annotations[_REPLY_TO] = former


def _address_of(exchange: bytes | None, key: bytes | None) -> tuple[str | None, list[Any] | None]:
    """The address of an exchange and a key; and both of them, where they would not be found in it."""
    try:
        name = None if exchange is None else exchange.decode("utf-8")
        text = None if key is None else key.decode("utf-8")
    except UnicodeDecodeError:
        return None, [exchange, key]
    address = join_address(name or "", text or "")
    if address and split_address(address) == (name, text):
        return address, None
    return address or None, [name, text]


def _read_ids(view: View, p: Properties, headers: dict[str, Any]) -> None:
    if p.message_id is None:
        read_kept_id(view, headers, "message_id", "x-message-id")
    else:
        kept = headers.get("x-message-id")
        if type(kept) in (bytes, str, ULong) and _uuid_for(kept) == p.message_id:
            view.message_id = kept
            del headers["x-message-id"]
        else:
            view.message_id = uuid.UUID(bytes=p.message_id)
    data = p.correlation_id
    if data is None:
        read_kept_id(view, headers, "correlation_id", _CORRELATION)
        return
    kind = headers.get(_CORRELATION_TYPE)
    text = is_text(data)
    if kind == "uuid" and len(data) == 16:
        view.correlation_id = uuid.UUID(bytes=data)
    elif kind == "ulong" and len(data) == 8:
        view.correlation_id = ULong(int.from_bytes(data, "big"))
    elif kind == "binary" and text:
        view.correlation_id = data
    else:
        view.correlation_id = data.decode("utf-8") if text else data
        return
    del headers[_CORRELATION_TYPE]


def _uuid_for(value: Any) -> bytes:
    """The uuid of a message whose id is none: always the same for the same id."""
    if type(value) is bytes:
        data = b"b" + value
    elif isinstance(value, str):
        data = b"s" + value.encode("utf-8", "surrogateescape")
    else:
        data = b"l" + int(value).to_bytes(8, "big")
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return b"".join((digest[:6], bytes([digest[6] & 15 | 0x50, digest[7], digest[8] & 63 | 128]), digest[9:16]))


def _read_subject(view: View, headers: dict[str, Any], routing_key: str) -> None:
    """The header `qpid.subject`, else JMS's type, else the routing key. An annotation tells which."""
    subject = headers.get(SUBJECT)
    if type(subject) is str:
        view.subject = subject
        del headers[SUBJECT]
    elif headers.get(FORMER_SUBJECT) is False:  # there is none
        del headers[FORMER_SUBJECT]
    elif FORMER_SUBJECT in headers:
        pass
    elif type(headers.get(JMS_TYPE)) is str:
        view.subject = headers.pop(JMS_TYPE)
        view.annotations[FORMER_SUBJECT] = JMS_TYPE
    elif routing_key and is_text(routing_key.encode("utf-8", "surrogateescape")):
        view.subject = routing_key
        view.annotations[FORMER_SUBJECT] = None


# To 0-10.


def from_model(view: View, like: Message, jms: bool) -> tuple[Properties, list[bytes]]:
    """The properties and the body in pieces. jms: for Qpid's JMS clients of 0-10."""
    p = Properties()
    p.has_message = True
    kept: dict[str, Any] = {}
    annotations = own_annotations(view)
    body, content_type = write_body(view, kept, annotations, jms)
    _write_delivery(view, p, like, kept, annotations)
    p.content_type = write_text(content_type, "content_type", "content-type", 255, kept, annotations)
    p.content_encoding = write_text(view.content_encoding, "content_encoding", "content-encoding", 255, kept,
                                    annotations)
    p.app_id = write_text(view.app_id, "app_id", "app-id", 65535, kept, annotations)
    if view.cluster_id is not None:
        kept["x-cluster-id"] = view.cluster_id
    if view.user_id is not None:
        if len(view.user_id) <= 65535:
            p.user_id = view.user_id
        else:
            kept["x-user-id"] = view.user_id
    _write_reply_to(view.reply_to, p, kept, annotations)
    _write_ids(view, p, kept)
    _write_subject(view, kept, annotations, jms)
    keep_common(view, kept)
    structs = annotations.get(_STRUCTS)
    if _are_structs(structs):
        p.others = annotations.pop(_STRUCTS)
    raw = annotations.pop(RAW_HEADERS, None)
    if kept or annotations or view.headers or view.deaths:
        headers = write_headers(view.headers, kept, annotations, MAPS)
        if view.deaths:
            headers["x-death"] = deaths_entry(view.deaths)
        if headers:
            p.headers = maps010.join_map(headers)
    if p.headers is None and type(raw) is bytes and _is_odd_map(raw):
        p.headers = raw
    return p, body


def _write_delivery(view: View, p: Properties, like: Message, kept: dict[str, Any],
                    annotations: dict[str, Any]) -> None:
    p.delivery_mode = 2 if view.durable else 1
    if view.priority is not None:
        p.priority = view.priority
    if view.ttl is not None:
        p.ttl = view.ttl
    elif annotations:
        p.ttl = _odd_ttl(annotations)
    expires = view.absolute_expiry_time
    if p.ttl >= 0:
        p.expiration = -(-(like.expiry or like.arrival + p.ttl) // 1000) & 0xFFFFFFFFFFFFFFFF
        if expires is not None:
            kept["x-opt-absolute-expiry-time"] = int(expires)
    else:
        p.expiration = _write_time(expires, "expiration", "x-opt-absolute-expiry-time", kept, annotations)
    p.timestamp = _write_time(view.creation_time, "timestamp", "x-opt-creation-time", kept, annotations)


def _odd_ttl(annotations: dict[str, Any]) -> int:
    """A time to live that is too long for 1.0; -1: there is none."""
    raw = annotations.get(RAW + "ttl")
    if type(raw) is ULong and raw > MILLISECONDS:
        return int(annotations.pop(RAW + "ttl"))
    text = annotations.get(EXPIRATION)
    if type(text) is str and text.isascii() and text.isdigit() and len(text) <= 12:
        ttl = int(text)
        if 2**32 <= ttl <= MILLISECONDS and str(ttl) == text:
            del annotations[EXPIRATION]
            return ttl
    return -1


def _write_time(value: int | None, name: str, header: str, kept: dict[str, Any], annotations: dict[str, Any]) -> int:
    """Seconds since the epoch, or what else there was; -1 for nothing. A header has the ms, if that is not all."""
    raw = annotations.get(RAW + name) if annotations else None
    if type(raw) is ULong and raw > MILLISECONDS and value == (raw if raw <= _LAST else None):
        return int(annotations.pop(RAW + name))
    if value is None:
        return -1
    seconds = value // 1000
    sound = 0 <= seconds <= MILLISECONDS
    if not sound or value % 1000:
        kept[header] = int(value)
    return seconds if sound else -1


def _write_reply_to(address: str | None, p: Properties, kept: dict[str, Any], annotations: dict[str, Any]) -> None:
    """The exchange and the key that an address means, and the address beside it when it would come back as another."""
    former = annotations.get(_REPLY_TO) if annotations else None
    if type(former) is list and _write_former(address, former, p):
        del annotations[_REPLY_TO]
        return
    if address is None:
        return
    exchange, key = split_address(address)
    if not address or not set_reply_to(p, exchange, key) or join_address(exchange, key) != address:
        kept["x-opt-reply-to"] = address


def set_reply_to(p: Properties, exchange: str, key: str) -> bool:
    """Whether both fit."""
    written, written_key = exchange.encode("utf-8", "surrogateescape"), key.encode("utf-8", "surrogateescape")
    if len(written) > 255 or len(written_key) > 255 or not is_text(written) or not is_text(written_key):
        return False
    p.has_reply_to = True
    p.reply_exchange, p.reply_key = written, written_key
    return True


def _write_former(address: str | None, former: list[Any], p: Properties) -> bool:
    """A reply-to as it was, if that it was: anybody may have written the annotation."""
    if len(former) != 2:
        return False
    found: list[bytes | None] = []
    for part in former:
        if type(part) is str:
            found.append(part.encode("utf-8", "surrogateescape"))
        elif part is None or type(part) is bytes:
            found.append(part)
        else:
            return False
    exchange, key = found
    if len(exchange or b"") > 255 or len(key or b"") > 255:
        return False
    read = _address_of(exchange, key)
    if read[0] != address or not same(read[1], former):
        return False
    p.has_reply_to = True
    p.reply_exchange, p.reply_key = exchange, key
    return True


def _write_ids(view: View, p: Properties, kept: dict[str, Any]) -> None:
    value = view.message_id
    if value is not None:
        if isinstance(value, uuid.UUID):
            p.message_id = value.bytes
        else:
            value = ULong(value) if isinstance(value, int) else value
            kept["x-message-id"] = value
            p.message_id = _uuid_for(value)
    value = view.correlation_id
    if value is None:
        return
    kind = ""
    if isinstance(value, uuid.UUID):
        data, kind = value.bytes, "uuid"
    elif isinstance(value, int):
        data, kind = int(value).to_bytes(8, "big"), "ulong"
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
    else:
        data = value
        kind = "binary" if is_text(data) else ""
    if len(data) > 65535 or isinstance(value, str) and not is_text(data):
        kept[_CORRELATION] = value
        return
    p.correlation_id = data
    if kind:
        kept[_CORRELATION_TYPE] = kind


def _write_subject(view: View, kept: dict[str, Any], annotations: dict[str, Any], jms: bool) -> None:
    subject = own_subject(view, annotations)
    if subject is None:
        if view.subject is None and type(view.headers.get(JMS_TYPE)) is str:
            kept[FORMER_SUBJECT] = False
        return
    if annotations.get(FORMER_SUBJECT) == JMS_TYPE:
        del annotations[FORMER_SUBJECT]
        kept[JMS_TYPE] = subject
        return
    kept[SUBJECT] = subject
    if jms:
        kept[JMS_TYPE] = subject


def _are_structs(value: Any) -> bool:
    """Whether these can be the structs that there were besides the usual ones: anybody may have written it."""
    return type(value) is list and bool(value) and all(
        type(each) is bytes and len(each) >= 8 and int.from_bytes(each[:4], "big") == len(each) - 4
        and each[4:6] not in (b"\x04\x01", b"\x04\x03") for each in value)


def _is_odd_map(data: bytes) -> bool:
    """Whether these are application-headers that are no map of text."""
    if len(data) < 4 or int.from_bytes(data[:4], "big") != len(data) - 4:
        return False
    try:
        maps010.read_map(data)
    except ValueError:
        return True
    return False


def deaths_entry(deaths: list[Death]) -> bytes:
    """The encoded header `x-death`."""
    return MAPS.known([_sound(write_death(death)) for death in deaths])


def _sound(value: Any) -> Any:
    """Names that are no UTF-8 as well as they can be said."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, list):
        return [_sound(each) for each in value]
    if isinstance(value, dict):
        return {name: _sound(each) for name, each in value.items()}
    return value
