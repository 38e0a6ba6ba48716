"""From 0-9-1 (0-9, 0-8) to the model and back (TRANSLATION.md, section 1): pure functions.

Every field has a home on the other side. What has none of its own is kept in headers, whose names are listed in
`_KEPT`; whoever sends such a header himself, in another form than ours, has it treated as any other header.
"""

from __future__ import annotations

import uuid
from typing import Any

from broker.message import Message
from broker.values import Byte, Described, Int, Short, ULong, same
from broker.view import Death, View
from protocols.amqp091 import properties as p
from protocols.amqp091 import tables
from protocols.amqp091.bodies import BODY_HEADERS, JMS_TYPE, read_body, write_body
from protocols.amqp091.codec import long_string, short_string, u32, u64

ANNOTATIONS = "x-opt-annotations"
"""Message annotations whose names would otherwise be taken for application properties."""
PROPERTIES = "x-opt-properties"
"""Application properties whose names would otherwise be taken for something else."""
LONG_KEYS = "x-opt-long-keys"
LONG_ANNOTATIONS = "x-opt-long-annotations"
"""Application properties and annotations whose names are too long or look like markers: name, value, name, value."""

_TEXTS = {p.CONTENT_TYPE: "content_type", p.CONTENT_ENCODING: "content_encoding", p.REPLY_TO: "reply_to",
          p.TYPE: "subject", p.APP_ID: "app_id", p.CLUSTER_ID: "cluster_id"}
_TEXT_HEADERS = {"qpid.subject": "subject", "x-opt-reply-to": "reply_to", "x-opt-content-type": "content_type",
                 "x-opt-content-encoding": "content_encoding", "x-amqp-to": "to", "JMSXGroupID": "group_id",
                 "x-opt-reply-to-group-id": "reply_to_group_id", "x-opt-app-id": "app_id",
                 "x-opt-cluster-id": "cluster_id"}
_HEADER_OF = {field: header for header, field in _TEXT_HEADERS.items()}
_IDS = {p.MESSAGE_ID: ("message_id", "x-message-id"), p.CORRELATION_ID: ("correlation_id", "x-correlation-id")}
_NUMBERS = {"x-opt-absolute-expiry-time": "absolute_expiry_time", "x-opt-creation-time": "creation_time"}
_OTHERS = ("JMSXGroupSeq", "x-user-id", "x-message-id", "x-message-id-type", "x-correlation-id",
           "x-correlation-id-type", "x-death", ANNOTATIONS, PROPERTIES, LONG_KEYS, LONG_ANNOTATIONS,
           *BODY_HEADERS)

_KEPT = frozenset([*_TEXT_HEADERS, *_NUMBERS, *_OTHERS])

_EXPIRATION = "x-opt-expiration"
_RAW = "x-opt-raw-"
"""Annotations that keep properties of which 1.0 can make nothing: an odd expiration, text that is no UTF-8."""

_ROUTE = frozenset(["x-exchange", "x-routing-key"])
"""Annotations that tell a 1.0 reader the route that a message took; no part of the message."""

_JMS_DESTINATION, _JMS_REPLY_TO = "x-opt-jms-dest", "x-opt-jms-reply-to"
_QUEUE, _TOPIC = Byte(0), Byte(1)
"""Likewise, for JMS clients: what kind of thing the message was sent to, and is to be answered to."""

_BYTES = frozenset([JMS_TYPE, _JMS_DESTINATION, _JMS_REPLY_TO])
"""Annotations that JMS clients take for nothing but a byte. Many a client of 0-9-1 that sends on what it has received
makes an integer of another width of it."""

SYMBOLS = frozenset(["content_type", "content_encoding"])


# From 0-9-1.


def to_model(message: Message, properties: dict[int, bytes], body: list[bytes], view: View) -> None:
    """Fill the view. properties: encoded, by flag."""
    headers: dict[str, Any] = {}
    table = properties.get(p.HEADERS)
    if table is not None:
        read = tables.read_table(table, 4, len(table))
        if isinstance(read, dict):
            headers = tables.take_markers(read)
        else:
            view.annotations[_RAW + "headers"] = table
    _read_properties(view, properties)
    _read_kept(view, properties, headers)
    read_body(view, headers, body)
    _read_headers(view, headers)
    view.annotations["x-exchange"] = message.address.exchange
    view.annotations["x-routing-key"] = message.address.routing_key
    for name, kind in _jms_kinds(message.address.exchange, view.reply_to).items():
        view.annotations.setdefault(name, kind)


def _jms_kinds(exchange: str, reply_to: str | None) -> dict[str, Any]:
    """The annotations that a JMS client tells queues from topics by: messages to the nameless exchange go to a queue,
    and a reply address that names no exchange is a queue's name."""
    kinds: dict[str, Any] = {_JMS_DESTINATION: _TOPIC if exchange else _QUEUE}
    if reply_to is not None:
        kinds[_JMS_REPLY_TO] = _TOPIC if "/" in reply_to else _QUEUE
    return kinds


def _read_properties(view: View, properties: dict[int, bytes]) -> None:
    for flag, field in _TEXTS.items():
        encoded = properties.get(flag)
        if encoded is not None:
            text = _sound_text(encoded[1:], field in SYMBOLS)
            if text is None:
                view.annotations[_RAW + p.NAMES[flag]] = encoded[1:]
            else:
                setattr(view, field, text)
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
            view.annotations[_EXPIRATION] = written.decode("ascii", "replace")
    if p.TIMESTAMP in properties:
        seconds = u64(properties[p.TIMESTAMP], 0)
        if seconds <= (2**63 - 1) // 1000:
            view.creation_time = seconds * 1000
        else:
            view.annotations[_RAW + "timestamp"] = ULong(seconds)


def _sound_text(data: bytes, symbol: bool) -> str | None:
    """Text that 1.0 can carry; None for what it cannot."""
    try:
        return data.decode("ascii" if symbol else "utf-8")
    except UnicodeDecodeError:
        return None


def _read_id(data: bytes) -> Any:
    """An id: text, or the uuid that it is the URN of; bytes that are no UTF-8 stay bytes."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    return uuid.UUID(text[9:]) if _is_urn(text) else text


def _fits(text: str) -> bool:
    """Whether a short string can hold it."""
    encoded = text.encode("utf-8", "surrogateescape")
    return len(encoded) <= 255 and _is_text(encoded)


def _is_urn(text: str) -> bool:
    """Whether this is how we write a uuid."""
    if len(text) != 45 or not text.startswith("urn:uuid:"):
        return False
    try:
        return str(uuid.UUID(text[9:])) == text[9:]
    except ValueError:
        return False


def _read_kept(view: View, properties: dict[int, bytes], headers: dict[str, Any]) -> None:
    """Take out of the headers what we, and only we, put there."""
    for header, field in _TEXT_HEADERS.items():
        value = headers.get(header)
        if type(value) is str and (header == "qpid.subject" or getattr(view, field) is None):
            if field == "subject" and (view.subject is not None or _fits(value)):
                view.annotations["x-opt-amqp-type"] = view.subject  # None: there was no type
            setattr(view, field, value)
            del headers[header]
    for header, field in _NUMBERS.items():
        value = headers.get(header)
        if type(value) is int:
            stamped = view.creation_time
            if field != "creation_time" or stamped is None or stamped == value // 1000 * 1000 and value >= 0:
                setattr(view, field, value)
                del headers[header]
    if type(headers.get("x-user-id")) is bytes and p.USER_ID not in properties:
        view.user_id = headers.pop("x-user-id")
    if _ours("JMSXGroupSeq", headers.get("JMSXGroupSeq")):
        view.group_sequence = int(headers.pop("JMSXGroupSeq"))
    for flag, (field, header) in _IDS.items():
        _read_kept_id(view, properties, headers, flag, field, header)
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and _ours("x-death", deaths):
        view.deaths = [read_death(each) for each in deaths]
        del headers["x-death"]


def _read_kept_id(view: View, properties: dict[int, bytes], headers: dict[str, Any], flag: int, field: str,
                  header: str) -> None:
    kind = headers.get(header + "-type")
    if flag in properties:
        value = getattr(view, field)
        if kind == "string" and isinstance(value, uuid.UUID):
            setattr(view, field, f"urn:uuid:{value}")
            del headers[header + "-type"]
        return
    kept = headers.get(header)
    if type(kept) in (bytes, str, ULong):
        setattr(view, field, kept)
        del headers[header]


def _read_headers(view: View, headers: dict[str, Any]) -> None:
    """What is left are the publisher's own: application properties, or annotations when they can be no other."""
    for name, kept in ((ANNOTATIONS, view.annotations), (PROPERTIES, view.headers)):
        table = headers.get(name)
        if isinstance(table, dict):
            kept.update(tables.take_markers(table))
            del headers[name]
    for name, kept in ((LONG_ANNOTATIONS, view.annotations), (LONG_KEYS, view.headers)):
        pairs = headers.get(name)
        if isinstance(pairs, list) and len(pairs) % 2 == 0 and all(type(key) is str for key in pairs[::2]):
            for at in range(0, len(pairs), 2):
                value = pairs[at + 1]
                kept[pairs[at]] = tables.take_markers(value).get("") if isinstance(value, dict) else value
            del headers[name]
    for name, value in headers.items():
        if name.startswith("x-opt-") or isinstance(value, (list, dict, Described)):
            view.annotations.setdefault(name, _byte(value) if name in _BYTES else value)
        else:
            view.headers.setdefault(name, value)


def _byte(value: Any) -> Any:
    """An integer that a byte can hold, as one."""
    return Byte(value) if type(value) in (Int, Short, int) and -128 <= value <= 127 else value


def read_death(table: dict[str, Any]) -> Death:
    """A line of `x-death`; a client may have written anything there. Times are ms in the model's tables."""
    def string(name: str) -> str:
        value = table.get(name)
        return value if isinstance(value, str) else ""

    def number(name: str, default: int) -> int:
        value = table.get(name)
        return int(value) if isinstance(value, int) and 0 <= value < 2**62 else default

    keys = table.get("routing-keys")
    expiration = table.get("original-expiration")
    return Death(string("queue"), string("reason"), number("count", 1), number("time", 0) // 1000, string("exchange"),
                 [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else [],
                 expiration if isinstance(expiration, str) else None)


# To 0-9-1.


def from_model(view: View, write_death: Any) -> tuple[dict[int, bytes], list[bytes]]:
    """The encoded properties by flag, and the body in pieces."""
    found: dict[int, bytes] = {}
    kept: dict[str, Any] = {}
    annotations = {name: value for name, value in view.annotations.items() if name not in _ROUTE}
    if "x-exchange" in view.annotations:  # it has been here before: what we said of its route was not its publisher's
        for name, kind in _jms_kinds(str(view.annotations["x-exchange"]), view.reply_to).items():
            if same(annotations.get(name), kind):
                del annotations[name]
    body, content_type = write_body(view, kept, annotations)
    _write_texts(view, content_type, found, kept, annotations)
    for flag, (field, header) in _IDS.items():
        _write_id(getattr(view, field), flag, header, found, kept)
    _write_numbers(view, found, kept, annotations)
    raw = annotations.pop(_RAW + "headers", None)
    headers = _write_headers(view, kept, annotations)
    if view.deaths:
        headers["x-death"] = b"A" + long_string(b"".join([write_death(death) for death in view.deaths]))
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
                 annotations: dict[str, Any]) -> None:
    former_type = annotations.get("x-opt-amqp-type")
    had_no_type = former_type is None and "x-opt-amqp-type" in annotations
    for flag, field in _TEXTS.items():
        value = content_type if flag == p.CONTENT_TYPE else getattr(view, field)
        raw = annotations.get(_RAW + p.NAMES[flag])
        if value is not None:
            encoded = value.encode("utf-8", "surrogateescape")
            sound = len(encoded) <= 255 and _sound_text(encoded, field in SYMBOLS) == value
            if field == "subject" and (type(former_type) is str or had_no_type or not sound):
                kept["qpid.subject"] = value
                if had_no_type and sound:
                    del annotations["x-opt-amqp-type"]
                if type(former_type) is str and len(former_type.encode("utf-8", "replace")) <= 255:
                    found[flag] = short_string(former_type)
                    del annotations["x-opt-amqp-type"]
            elif sound:
                found[flag] = bytes([len(encoded)]) + encoded
            else:
                kept[_HEADER_OF[field]] = value
        elif type(raw) is bytes and len(raw) <= 255 and _sound_text(raw, field in SYMBOLS) is None:
            found[flag] = bytes([len(raw)]) + raw
            del annotations[_RAW + p.NAMES[flag]]
    for field in ("to", "group_id", "reply_to_group_id"):
        value = getattr(view, field)
        if value is not None:
            kept[_HEADER_OF[field]] = value


def _write_id(value: Any, flag: int, header: str, found: dict[int, bytes], kept: dict[str, Any]) -> None:
    if value is None:
        return
    if isinstance(value, uuid.UUID):
        found[flag] = short_string(f"urn:uuid:{value}")
    elif isinstance(value, bytes):
        if len(value) <= 255 and not _is_text(value):
            found[flag] = bytes([len(value)]) + value
        else:
            kept[header] = bytes(value)
    elif isinstance(value, str):
        encoded = value.encode("utf-8", "surrogateescape")
        if len(encoded) > 255 or not _is_text(encoded):
            kept[header] = str(value)
            return
        found[flag] = bytes([len(encoded)]) + encoded
        if _is_urn(value):
            kept[header + "-type"] = "string"
    else:
        kept[header] = ULong(value)


def _is_text(data: bytes) -> bool:
    return _sound_text(data, False) is not None


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
    odd = annotations.get(_EXPIRATION)
    if view.ttl is not None:
        found[p.EXPIRATION] = short_string(str(view.ttl))
    elif type(odd) is str and len(odd.encode("utf-8", "replace")) <= 255:
        found[p.EXPIRATION] = short_string(odd)
        del annotations[_EXPIRATION]
    created = view.creation_time
    if created is not None:
        if 0 <= created:
            found[p.TIMESTAMP] = (created // 1000).to_bytes(8, "big")
        if created < 0 or created % 1000:
            kept["x-opt-creation-time"] = int(created)
    elif isinstance(annotations.get(_RAW + "timestamp"), ULong):
        found[p.TIMESTAMP] = int(annotations.pop(_RAW + "timestamp")).to_bytes(8, "big")
    if view.absolute_expiry_time is not None:
        kept["x-opt-absolute-expiry-time"] = int(view.absolute_expiry_time)
    if view.group_sequence is not None:
        short = view.group_sequence < 2**31
        kept["JMSXGroupSeq"] = _short(view.group_sequence) if short else int(view.group_sequence)


def _short(value: int) -> Any:
    """As an int of 32 bits. (What is typed as int loses its class where this is compiled.)"""
    return Int(value)


def _write_headers(view: View, kept: dict[str, Any], annotations: dict[str, Any]) -> dict[str, bytes]:
    """All headers, encoded: the publisher's under their own names as far as the way back finds them there."""
    plain: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    noted: dict[str, Any] = {}
    long_keys: list[bytes] = []
    long_annotations: list[bytes] = []
    for name, value in view.headers.items():
        if _awkward(name):
            _add_pair(long_keys, name, value)
        elif name in kept or _ours(name, value) or name.startswith("x-opt-") or isinstance(
                value, (list, dict, Described)):
            hidden[name] = value
        else:
            plain[name] = value
    for name, value in annotations.items():
        natural = name.startswith("x-opt-") or isinstance(value, (list, dict, Described))
        if name in _BYTES and type(value) is not Byte:
            natural = False  # else it would come back as one
        if _awkward(name):
            _add_pair(long_annotations, name, value)
        elif natural and name not in kept and name not in plain and not _ours(name, value):
            plain[name] = value
        else:
            noted[name] = value
    headers = tables.write_entries({**plain, **kept})
    if hidden:
        headers[PROPERTIES] = b"F" + p.join_table(tables.write_entries(hidden))
    if noted:
        headers[ANNOTATIONS] = b"F" + p.join_table(tables.write_entries(noted))
    if long_keys:
        headers[LONG_KEYS] = b"A" + long_string(b"".join(long_keys))
    if long_annotations:
        headers[LONG_ANNOTATIONS] = b"A" + long_string(b"".join(long_annotations))
    return headers


def _ours(name: str, value: Any) -> bool:
    """Whether a header of a name that we use has a value that we would give it."""
    if name not in _KEPT:
        return False
    kind = type(value)
    if name in _TEXT_HEADERS or name in ("x-message-id-type", "x-correlation-id-type", BODY_HEADERS[0]):
        return kind is str
    if name in _NUMBERS:
        return kind is int
    if name == "JMSXGroupSeq":
        return kind is Int and value >= 0 or kind is int and 2**31 <= value < 2**32
    if name == "x-user-id":
        return kind is bytes
    if name in (ANNOTATIONS, PROPERTIES):
        return kind is dict
    if name == "x-death":
        return kind is list and bool(value) and all(
            type(each) is dict and type(each.get("queue")) is str and type(each.get("reason")) is str for each in value)
    return kind is list or name.endswith("-id") and kind in (bytes, str, ULong)


def _awkward(name: str) -> bool:
    """Whether a name does not fit, or would be taken for one of our means."""
    return (len(name.encode("utf-8", "surrogateescape")) > tables.LONGEST or name.startswith(tables.MARKER)
            or name in (ANNOTATIONS, PROPERTIES, LONG_KEYS, LONG_ANNOTATIONS))


def _add_pair(pairs: list[bytes], name: str, value: Any) -> None:
    key = tables.exact(name)
    if key is not None:  # else it is no text at all
        pairs += [key, b"F" + p.join_table(tables.write_entries({"": value}))]
