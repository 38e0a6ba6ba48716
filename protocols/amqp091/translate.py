"""From 0-9-1 (0-9, 0-8) to the model and back (TRANSLATION.md, section 1): pure functions.

What has no place on the other side is kept in headers (protocols/side_headers.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from broker.message import Message
from broker.values import ULong
from broker.view import Death, View
from protocols import reply_to
from protocols.amqp091 import properties as p
from protocols.amqp091 import tables
from protocols.amqp091.codec import short_string, u32, u64
from protocols.bodies import read_body, write_body
from protocols.markers import is_uuid_urn
from protocols.side_headers import (
    EXPIRATION,
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

_TEXTS = {p.CONTENT_TYPE: "content_type", p.CONTENT_ENCODING: "content_encoding", p.REPLY_TO: "reply_to",
          p.TYPE: "subject", p.APP_ID: "app_id", p.CLUSTER_ID: "cluster_id"}
_IDS = {p.MESSAGE_ID: ("message_id", "x-message-id"), p.CORRELATION_ID: ("correlation_id", "x-correlation-id")}

_FORMER_TYPE = "x-opt-amqp-type"
"""The annotation that keeps the property `type` of a message whose subject is not that; null: there was none."""
_FORMER_REPLY_TO = "x-opt-amqp-reply-to"
"""The annotation that keeps a reply-to that was a binding URL."""


# From 0-9-1.


def to_model(message: Message, properties: dict[int, bytes], body: list[bytes], view: View) -> None:
    """Fill the view. properties: encoded, by flag."""
    headers: dict[str, Any] = {}
    table = properties.get(p.HEADERS)
    if table is not None:
        read = tables.read_table(table, 4, len(table))
        if isinstance(read, dict):
            headers = tables.FIELDS.take_markers(read)
        else:
            view.annotations[RAW + "headers"] = table
    _read_properties(view, properties)
    if view.reply_to is not None and reply_to.is_url(view.reply_to):
        _read_url(view, headers, view.reply_to)
    if headers:
        _read_own(view, headers)
    read_body(view, headers, body)
    if headers:
        read_headers(view, headers, tables.FIELDS)
    tell_route(view, message.address.exchange, message.address.routing_key)


def _read_properties(view: View, properties: dict[int, bytes]) -> None:
    for flag, field in _TEXTS.items():
        encoded = properties.get(flag)
        if encoded is not None:
            read_text(view, field, p.NAMES[flag], encoded[1:])
    for flag, (field, _) in _IDS.items():
        encoded = properties.get(flag)
        if encoded is not None:
            setattr(view, field, _read_id(encoded[1:]))
    if p.USER_ID in properties:
        view.user_id = properties[p.USER_ID][1:]
    if p.DELIVERY_MODE in properties:
        view.durable = properties[p.DELIVERY_MODE][0] == 2
    if p.PRIORITY in properties:
        view.priority = properties[p.PRIORITY][0]
    if p.EXPIRATION in properties:
        written = properties[p.EXPIRATION][1:]
        if written.isdigit() and int(written) < 2**32 and str(int(written)).encode() == written:
            view.ttl = int(written)
        else:
            view.annotations[EXPIRATION] = written.decode("ascii", "replace")
    if p.TIMESTAMP in properties:
        seconds = u64(properties[p.TIMESTAMP], 0)
        if seconds <= (2**63 - 1) // 1000:
            view.creation_time = seconds * 1000
        else:
            view.annotations[RAW + "timestamp"] = ULong(seconds)


def _read_id(data: bytes) -> Any:
    """An id: text, or the uuid that it is the URN of; bytes that are no UTF-8 stay bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    return uuid.UUID(text[9:]) if is_uuid_urn(text) else text


def _fits(text: str) -> bool:
    """Whether a short string can hold it."""
    encoded = text.encode("utf-8", "surrogateescape")
    return len(encoded) <= 255 and is_text(encoded)


def _read_url(view: View, headers: dict[str, Any], url: str) -> None:
    """A reply-to that is a binding URL becomes an address, unless it is none of a 0-9-1 client's."""
    if headers.get("x-opt-reply-to") == url:
        del headers["x-opt-reply-to"]
        return
    view.annotations[_FORMER_REPLY_TO] = url
    view.reply_to = reply_to.join_address(*reply_to.split_address(url))


def _read_own(view: View, headers: dict[str, Any]) -> None:
    """Take out of the headers what we, and only we, put there."""
    subject = headers.get(SUBJECT)
    if type(subject) is str:
        if view.subject is not None or _FORMER_TYPE not in headers and (
                _fits(subject) or RAW + "type" in view.annotations):
            view.annotations[_FORMER_TYPE] = view.subject
        view.subject = subject
        del headers[SUBJECT]
    read_kept(view, headers)
    for field, header in _IDS.values():
        value = getattr(view, field)
        if value is None:
            read_kept_id(view, headers, field, header)
        elif headers.get(header + "-type") == "string" and isinstance(value, uuid.UUID):
            setattr(view, field, f"urn:uuid:{value}")
            del headers[header + "-type"]


# To 0-9-1.


def from_model(view: View, write_death: Callable[[Death], bytes], jms: bool) -> tuple[dict[int, bytes], list[bytes]]:
    """The encoded properties by flag, and the body in pieces. jms: for Qpid's JMS clients of 0-9-1."""
    found: dict[int, bytes] = {}
    kept: dict[str, Any] = {}
    annotations = own_annotations(view)
    body, content_type = write_body(view, kept, annotations, jms)
    _write_texts(view, content_type, found, kept, annotations, jms)
    for flag, (field, header) in _IDS.items():
        _write_id(getattr(view, field), flag, header, found, kept)
    _write_numbers(view, found, kept, annotations)
    keep_common(view, kept)
    raw = annotations.pop(RAW + "headers", None)
    headers = write_headers(view.headers, kept, annotations, tables.FIELDS)
    if view.deaths:
        headers["x-death"] = tables.FIELDS.array([write_death(death) for death in view.deaths])
    if headers:
        found[p.HEADERS] = p.join_table(headers)
    elif isinstance(raw, bytes) and _is_table(raw):
        found[p.HEADERS] = raw
    return found, body


def _is_table(data: bytes) -> bool:
    try:
        p.split_table(data)
    except Exception:  # anybody may have written it
        return False
    return len(data) >= 4 and u32(data, 0) == len(data) - 4


def _write_texts(view: View, content_type: str | None, found: dict[int, bytes], kept: dict[str, Any],
                 annotations: dict[str, Any], jms: bool) -> None:
    for flag, field in _TEXTS.items():
        if flag == p.TYPE:
            encoded = _write_subject(own_subject(view, annotations), kept, annotations)
        else:
            value = content_type if flag == p.CONTENT_TYPE else getattr(view, field)
            if flag == p.REPLY_TO:
                value = _former_reply_to(value, kept, annotations)
                if jms and value is not None and not reply_to.is_url(value):
                    value = reply_to.url(*reply_to.split_address(value))
            encoded = write_text(value, field, p.NAMES[flag], 255, kept, annotations)
        if encoded is not None:
            found[flag] = bytes([len(encoded)]) + encoded


def _write_subject(subject: str | None, kept: dict[str, Any], annotations: dict[str, Any]) -> bytes | None:
    """The property `type`. A subject that cannot be that, or is beside it, goes into a header."""
    if subject is None:
        return write_text(None, "subject", "type", 255, kept, annotations)
    former = annotations.get(_FORMER_TYPE)
    had_none = former is None and _FORMER_TYPE in annotations
    if type(former) is not str and not had_none and _fits(subject):
        return subject.encode("utf-8")
    kept[SUBJECT] = subject
    if had_none and (_fits(subject) or RAW + "type" in annotations):
        del annotations[_FORMER_TYPE]
        return write_text(None, "subject", "type", 255, kept, annotations)
    if type(former) is str and len(former.encode("utf-8", "replace")) <= 255:
        del annotations[_FORMER_TYPE]
        return former.encode("utf-8", "surrogateescape")
    return None


def _former_reply_to(value: str | None, kept: dict[str, Any], annotations: dict[str, Any]) -> str | None:
    """The binding URL that a reply-to was."""
    former = annotations.get(_FORMER_REPLY_TO)
    if type(former) is str and reply_to.is_url(former) and _fits(former) and (
            reply_to.join_address(*reply_to.split_address(former)) == value):
        del annotations[_FORMER_REPLY_TO]
        return former
    if value is not None and reply_to.is_url(value):
        kept["x-opt-reply-to"] = value
    return value


def _write_id(value: Any, flag: int, header: str, found: dict[int, bytes], kept: dict[str, Any]) -> None:
    if value is None:
        return
    if isinstance(value, uuid.UUID):
        found[flag] = short_string(f"urn:uuid:{value}")
    elif isinstance(value, bytes):
        if len(value) <= 255 and not is_text(value):
            found[flag] = bytes([len(value)]) + value
        else:
            kept[header] = bytes(value)
    elif isinstance(value, str):
        encoded = value.encode("utf-8", "surrogateescape")
        if len(encoded) > 255 or not is_text(encoded):
            kept[header] = str(value)
            return
        found[flag] = bytes([len(encoded)]) + encoded
        if is_uuid_urn(value):
            kept[header + "-type"] = "string"
    else:
        kept[header] = ULong(value)


def _write_numbers(view: View, found: dict[int, bytes], kept: dict[str, Any], annotations: dict[str, Any]) -> None:
    found[p.DELIVERY_MODE] = b"\x02" if view.durable else b"\x01"
    if view.priority is not None:
        found[p.PRIORITY] = bytes([view.priority])
    user = view.user_id
    if user is not None:
        if len(user) <= 255:
            found[p.USER_ID] = bytes([len(user)]) + user
        else:
            kept["x-user-id"] = bytes(user)
    odd = annotations.get(EXPIRATION)
    if view.ttl is not None:
        found[p.EXPIRATION] = short_string(str(view.ttl))
    elif type(odd) is str and len(odd.encode("utf-8", "replace")) <= 255:
        found[p.EXPIRATION] = short_string(odd)
        del annotations[EXPIRATION]
    created = view.creation_time
    if created is not None:
        if 0 <= created:
            found[p.TIMESTAMP] = (created // 1000).to_bytes(8, "big")
        if created < 0 or created % 1000:
            kept["x-opt-creation-time"] = int(created)
    elif isinstance(annotations.get(RAW + "timestamp"), ULong):
        found[p.TIMESTAMP] = int(annotations.pop(RAW + "timestamp")).to_bytes(8, "big")
    if view.absolute_expiry_time is not None:
        kept["x-opt-absolute-expiry-time"] = int(view.absolute_expiry_time)
