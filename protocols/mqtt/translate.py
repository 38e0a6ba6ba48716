"""From MQTT to the model and back (TRANSLATION.md, section 1): pure functions.

What MQTT has no property for is a user property. Names and types are those of the headers that other dialects keep
such things in (protocols/side_headers.py), so what a reader of MQTT sees is what one of 0-9-1 sees.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from broker.message import Address
from broker.values import Int, UInt, ULong, same
from broker.view import Death, View
from protocols.deaths import write_death
from protocols.markers import is_uuid_urn
from protocols.mqtt import content
from protocols.mqtt.content import LONGEST_STRING
from protocols.mqtt.payloads import BODY_TYPES, PAYLOAD_FORMAT, read_payload, write_payload
from protocols.mqtt.properties import Properties
from protocols.mqtt.replies import reply_address, response_topic
from protocols.mqtt.texts import TEXTS, dump
from protocols.mqtt.user_properties import LONG_PROPERTIES, is_clean, is_string, read_pairs, write_pairs
from protocols.reply_to import split_address
from protocols.side_headers import (
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
    write_headers,
)
from protocols.topics import topic_of

CLIENT_ID: Final = "x-mqtt-client-id"
QOS: Final = "x-mqtt-qos"
RETAIN: Final = "x-mqtt-retain"
"""What readers of AMQP see of a message of MQTT, and publishers may say: who has sent it, QoS 2, to be retained."""

USER_PROPERTIES: Final = "x-opt-mqtt-user-properties"
"""The annotation with all user properties, name and value in turn, of a message for which headers are not enough."""
_EXPIRY: Final = "x-opt-mqtt-message-expiry"
"""The annotation that keeps a message expiry of more seconds than a time to live can have in ms."""
_RESPONSE_TOPIC: Final = "x-opt-mqtt-response-topic"
"""The annotation that keeps a response topic that its address would not come back as."""
PRIORITY: Final = "x-priority"
TTL: Final = "x-opt-ttl"
"""User properties that keep the priority, and a time to live in ms that is not in whole seconds."""

_CORRELATION, _CORRELATION_TYPE = "x-correlation-id", "x-correlation-id-type"
_MESSAGE_ID, _MESSAGE_ID_TYPE = "x-message-id", "x-message-id-type"
_USER = "x-user-id"
_CONTENT_TYPE = "x-opt-content-type"
_FOREIGN: Final = frozenset([CLIENT_ID, QOS, RETAIN, PAYLOAD_FORMAT, USER_PROPERTIES, _EXPIRY, _RESPONSE_TOPIC,
                             RAW + "content-type"])
"""What stands for something of MQTT's own in AMQP, and so means nothing as a user property."""
_RESERVED: Final = frozenset([PRIORITY, TTL, BODY_TYPES, LONG_PROPERTIES, *_FOREIGN])


# To the model.


def to_model(view: View, native: bytes, p: Properties, body: list[bytes]) -> bool:
    """Fill the view. Gives whether its headers say all of the user properties, whatever becomes of them."""
    headers, plain = read_pairs(p.pairs)
    if not plain:
        headers = {name: value for name, value in TEXTS.take_markers(headers).items() if name not in _FOREIGN}
    qos = native[0] >> 1 & 3
    view.durable = qos > 0
    client_id, user = content.client_id(native), content.user(native)
    forged = headers.pop(_USER, None) if client_id and not plain else None
    if p.content_type is not None:
        read_text(view, "content_type", "content-type", p.content_type)
    if p.expiry >= 0:
        _read_expiry(view, headers, p.expiry)
    if p.response_topic is not None:
        _read_reply_to(view, headers, p.response_topic)
    _read_ids(view, headers, p.correlation)
    if not plain:
        _read_own(view, headers, p)
    read_payload(view, headers, p, body)
    if plain:
        view.headers = headers
    else:
        read_headers(view, headers, TEXTS)
    if forged is not None:
        view.headers[_USER] = forged
    if user:
        view.user_id = user
    if client_id:
        view.headers[CLIENT_ID] = client_id.decode("utf-8", "replace")
    if qos == 2:
        view.headers[QOS] = Int(2)
    if native[0] & content.RETAIN:
        view.headers[RETAIN] = True
    return plain


def _read_expiry(view: View, headers: dict[str, Any], seconds: int) -> None:
    exact = headers.get(TTL)
    if type(exact) is int and exact % 1000 and -(-exact // 1000) == seconds and exact < 2**32:
        view.ttl = exact
        del headers[TTL]
        return
    view.ttl = min(seconds * 1000, 2**32 - 1)
    if view.ttl != seconds * 1000:
        view.annotations[_EXPIRY] = _uint(seconds)


def _uint(value: Any) -> Any:
    return UInt(value)


def _read_reply_to(view: View, headers: dict[str, Any], data: bytes) -> None:
    topic = data.decode("utf-8", "replace")
    address = reply_address(topic)
    kept = headers.get("x-opt-reply-to")
    if type(kept) is str and kept != address and _topic_of_address(kept) == data:
        view.reply_to = kept
        del headers["x-opt-reply-to"]
        return
    view.reply_to = address
    if _topic_of_address(address) != data:
        view.annotations[_RESPONSE_TOPIC] = topic


def _topic_of_address(address: str) -> bytes | None:
    """The response topic for answers to an address; None when that can be none."""
    topic = response_topic(*split_address(address)).encode("utf-8", "surrogateescape")
    return topic if topic and is_clean(topic) else None


def _read_ids(view: View, headers: dict[str, Any], data: bytes | None) -> None:
    read_kept_id(view, headers, "message_id", _MESSAGE_ID)
    if type(view.message_id) is str and is_uuid_urn(view.message_id):
        if headers.get(_MESSAGE_ID_TYPE) == "string":
            del headers[_MESSAGE_ID_TYPE]
        else:
            view.message_id = uuid.UUID(view.message_id[9:])
    if data is None:
        read_kept_id(view, headers, "correlation_id", _CORRELATION)
        return
    if not is_text(data):
        view.correlation_id = data
        return
    kind = headers.get(_CORRELATION_TYPE)
    text = data.decode("utf-8")
    urn = is_uuid_urn(text)
    if kind == "binary":
        view.correlation_id = data
    elif kind == "string" and urn:
        view.correlation_id = text
    elif kind == "ulong" and text.isdigit() and len(text) <= 20 and text == str(int(text)) and int(text) < 2**64:
        view.correlation_id = ULong(int(text))
    else:
        view.correlation_id = uuid.UUID(text[9:]) if urn else text
        return
    del headers[_CORRELATION_TYPE]


def _read_own(view: View, headers: dict[str, Any], p: Properties) -> None:
    """Take out of the headers what we, and only we, put there."""
    priority = headers.get(PRIORITY)
    if type(priority) is int and 0 <= priority < 256:
        view.priority = priority
        del headers[PRIORITY]
    subject = headers.get(SUBJECT)
    if type(subject) is str:
        view.subject = subject
        del headers[SUBJECT]
    kept = headers.get(_CONTENT_TYPE)
    foreign = view.content_type is None and type(kept) is str and (p.content_type is not None or _is_content_type(kept))
    if foreign:
        view.content_type = ""  # so it stays where it is
    read_kept(view, headers)
    if foreign:
        view.content_type = None


# From the model.


class Written:
    """What a packet says of a message."""

    __slots__ = ("flags", "who", "properties", "payload")

    def __init__(self) -> None:
        self.flags = 0
        self.who = b"\0\0\0\0"
        self.properties = Properties()
        self.payload: list[bytes] = []


def from_model(view: View) -> Written:
    annotations = own_annotations(view)
    listed = annotations.pop(USER_PROPERTIES, None)
    written = _written(view, annotations)
    if listed is not None and not _restored(written, listed):
        annotations = own_annotations(view)
        written = _written(view, annotations)
    return written


def _restored(written: Written, listed: Any) -> bool:
    """Whether a message with these user properties says just what the message says now: then it gets them, in their
    order. Anybody may have written the annotation, and changed the message since."""
    if type(listed) is not list or len(listed) % 2 or not all(type(each) is str for each in listed):
        return False
    pairs = [each.encode("utf-8", "surrogateescape") for each in listed]
    if not all(is_string(each) for each in pairs):
        return False
    p = written.properties
    head = bytes([written.flags]) + written.who
    now, then = View(), View()
    to_model(now, head, p, written.payload)
    found, p.pairs = p.pairs, pairs
    to_model(then, head, p, written.payload)
    then.annotations.pop(USER_PROPERTIES, None)
    if _say_the_same(now, then):
        return True
    p.pairs = found
    return False


_FIELDS: Final = ("priority", "ttl", "absolute_expiry_time", "creation_time", "message_id", "correlation_id", "user_id",
                  "to", "subject", "reply_to", "content_type", "content_encoding", "group_id", "group_sequence",
                  "reply_to_group_id", "app_id", "cluster_id", "kind", "value", "data_lengths")


def _say_the_same(one: View, other: View) -> bool:
    """Whether two messages are alike but for the order of headers and annotations."""
    for field in _FIELDS:
        if not same(getattr(one, field), getattr(other, field)):
            return False
    for first, second in ((one.headers, other.headers), (one.annotations, other.annotations)):
        if len(first) != len(second) or not all(
                name in second and same(value, second[name]) for name, value in first.items()):
            return False
    return b"".join(one.body) == b"".join(other.body) and [write_death(death) for death in one.deaths] == [
        write_death(death) for death in other.deaths]


def _written(view: View, annotations: dict[str, Any]) -> Written:
    written = Written()
    p = written.properties
    kept: dict[str, Any] = {}
    written.payload, content_type = write_payload(view, kept, annotations, p)
    headers = _write_flags(view, written)
    if headers.get(CLIENT_ID) is not None:
        headers = _write_identity(view, headers, written, kept)
    elif view.user_id is not None:
        kept[_USER] = view.user_id
    _write_content_type(content_type, p, kept, annotations)
    if view.ttl is not None:
        _write_ttl(view.ttl, p, kept, annotations)
    _write_reply_to(view.reply_to, p, kept, annotations)
    _write_ids(view, p, kept)
    _write_fields(view, kept, annotations)
    if headers or kept or annotations or view.deaths:
        entries = _entries(view, headers, kept, annotations)
        write_pairs(entries, p.pairs)
    return written


def _write_flags(view: View, written: Written) -> dict[str, Any]:
    """The flags of the packet. Gives the headers without what these say."""
    written.flags = content.PUBLISH | (content.QOS1 if view.durable else 0)
    headers = view.headers
    if not headers:
        return headers
    qos = headers.get(QOS)
    kind: Any = type(qos)  # not isinstance: compiled, what is known to be an int is a plain one
    if qos == 2 and view.durable and issubclass(kind, int):
        written.flags = content.PUBLISH | content.QOS2
        if kind is Int:
            headers = {name: value for name, value in headers.items() if name != QOS}
    if headers.get(RETAIN) is True:
        written.flags |= content.RETAIN
        headers = {name: value for name, value in headers.items() if name != RETAIN}
    return headers


def _write_identity(view: View, headers: dict[str, Any], written: Written, kept: dict[str, Any]) -> dict[str, Any]:
    """Who has published it with MQTT. Gives the headers without that."""
    client_id = headers[CLIENT_ID]
    user = view.user_id
    sound = user is None or user and len(user) <= LONGEST_STRING and is_text(user)
    if type(client_id) is str and client_id:
        data = client_id.encode("utf-8", "surrogateescape")
        if sound and len(data) <= LONGEST_STRING and is_text(data):
            written.who = content.identity(data, user or b"")
            return {name: value for name, value in headers.items() if name != CLIENT_ID}
    if user is not None:
        kept[_USER] = user
    return headers


def _write_content_type(content_type: str | None, p: Properties, kept: dict[str, Any],
                        annotations: dict[str, Any]) -> None:
    if content_type is None:
        raw = annotations.get(RAW + "content-type") if annotations else None
        if type(raw) is bytes and not is_text(raw, "content_type") and is_string(raw):
            del annotations[RAW + "content-type"]
            p.content_type = raw
        return
    if _is_content_type(content_type):
        p.content_type = content_type.encode()
    else:
        kept[_CONTENT_TYPE] = content_type


def _is_content_type(text: str) -> bool:
    """Whether it is that in MQTT and in 1.0, which has a symbol there."""
    return text.isascii() and len(text) <= LONGEST_STRING and "\0" not in text


def _write_ttl(ttl: int, p: Properties, kept: dict[str, Any], annotations: dict[str, Any]) -> None:
    long = annotations.get(_EXPIRY)
    if type(long) is UInt and long >= 2**32 // 1000 and ttl == min(long * 1000, 2**32 - 1):
        p.expiry = int(long)
        del annotations[_EXPIRY]
        return
    p.expiry = -(-ttl // 1000)
    if ttl % 1000:
        kept[TTL] = ttl


def _write_reply_to(address: str | None, p: Properties, kept: dict[str, Any], annotations: dict[str, Any]) -> None:
    if address is None:
        return
    topic = _topic_of_address(address)
    former = annotations.get(_RESPONSE_TOPIC) if annotations else None
    if type(former) is str and reply_address(former) == address:
        data = former.encode("utf-8", "surrogateescape")
        if data != topic and is_string(data):
            del annotations[_RESPONSE_TOPIC]
            p.response_topic = data
            return
    p.response_topic = topic
    if topic is None or reply_address(topic.decode()) != address:
        kept["x-opt-reply-to"] = address


def _write_ids(view: View, p: Properties, kept: dict[str, Any]) -> None:
    value = view.message_id
    if isinstance(value, uuid.UUID):
        kept[_MESSAGE_ID] = f"urn:uuid:{value}"
    elif value is not None:
        kept[_MESSAGE_ID] = ULong(value) if isinstance(value, int) else value
        if type(value) is str and is_uuid_urn(value):
            kept[_MESSAGE_ID_TYPE] = "string"
    value = view.correlation_id
    if value is None:
        return
    kind = ""
    if isinstance(value, uuid.UUID):
        data = f"urn:uuid:{value}".encode()
    elif isinstance(value, int):
        data, kind = str(int(value)).encode(), "ulong"
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogateescape")
        kind = "string" if is_uuid_urn(value) else ""
    else:
        data = value
        kind = "binary" if is_text(data) else ""
    if len(data) > LONGEST_STRING or isinstance(value, str) and not is_text(data):
        kept[_CORRELATION] = value
        return
    p.correlation = data
    if kind:
        kept[_CORRELATION_TYPE] = kind


def _write_fields(view: View, kept: dict[str, Any], annotations: dict[str, Any]) -> None:
    """What only has a place in user properties."""
    if view.priority is not None:
        kept[PRIORITY] = int(view.priority)
    subject = own_subject(view, annotations)
    if subject is not None:
        kept[SUBJECT] = subject
    if view.content_encoding is not None:
        kept["x-opt-content-encoding"] = view.content_encoding
    if view.app_id is not None:
        kept["x-opt-app-id"] = view.app_id
    if view.cluster_id is not None:
        kept["x-cluster-id"] = view.cluster_id
    if view.absolute_expiry_time is not None:
        kept["x-opt-absolute-expiry-time"] = int(view.absolute_expiry_time)
    if view.creation_time is not None:
        kept["x-opt-creation-time"] = int(view.creation_time)
    keep_common(view, kept)


def _entries(view: View, headers: dict[str, Any], kept: dict[str, Any],
             annotations: dict[str, Any]) -> dict[str, bytes]:
    entries = write_headers(headers, kept, annotations, TEXTS, _RESERVED)
    if view.deaths:
        entries["x-death"] = deaths_entry(view.deaths)
    return entries


def deaths_entry(deaths: list[Death]) -> bytes:
    """The value of the user property `x-death`: JSON, as RabbitMQ has it in a header, times in ms."""
    lines = []
    for death in deaths:
        line = write_death(death)
        line["time"] = int(line["time"])
        lines.append(line)
    return dump(lines).encode("utf-8", "replace")


def topic_for(address: Address) -> bytes:
    """The topic that readers of MQTT see for a route: its key's, or else its exchange's name."""
    topic = topic_of(address.routing_key or address.exchange)[:LONGEST_STRING]
    return topic.encode("utf-8") or b"/"

