"""What the dialects before 1.0 keep in headers, for want of another place (TRANSLATION.md, section 1).

Every field of the model has a home on the other side. What has none of its own is kept in headers, whose names are
listed in `_KEPT`; whoever sends such a header himself, in another form than ours, has it treated as any other header.
"""

from __future__ import annotations

from typing import Any, Final

from broker.values import Array, Byte, Described, Int, Odd, Short, ULong, same
from broker.view import View
from protocols.bodies import BODY_HEADERS, JMS_TYPE
from protocols.deaths import read_death
from protocols.markers import LONGEST, MARKER, Tables
from protocols.reply_to import split_address

ANNOTATIONS = "x-opt-annotations"
"""Message annotations whose names would otherwise be taken for application properties."""
PROPERTIES = "x-opt-properties"
"""Application properties whose names would otherwise be taken for something else."""
LONG_KEYS = "x-opt-long-keys"
LONG_ANNOTATIONS = "x-opt-long-annotations"
"""Application properties and annotations whose names are too long or look like markers: name, value, name, value."""

SUBJECT = "qpid.subject"
_TEXTS = {"x-opt-reply-to": "reply_to", "x-opt-content-type": "content_type",
          "x-opt-content-encoding": "content_encoding", "x-amqp-to": "to", "JMSXGroupID": "group_id",
          "x-opt-reply-to-group-id": "reply_to_group_id", "x-opt-app-id": "app_id", "x-cluster-id": "cluster_id"}
_HEADER_OF = {field: header for header, field in _TEXTS.items()}
_NUMBERS = {"x-opt-absolute-expiry-time": "absolute_expiry_time", "x-opt-creation-time": "creation_time"}
_OTHERS = (SUBJECT, "JMSXGroupSeq", "x-user-id", "x-message-id", "x-message-id-type", "x-correlation-id",
           "x-correlation-id-type", "x-death", ANNOTATIONS, PROPERTIES, LONG_KEYS, LONG_ANNOTATIONS,
           *BODY_HEADERS)

_KEPT = frozenset([*_TEXTS, *_NUMBERS, *_OTHERS])

_OF_BROKERS = ("x-opt-", "x-dragoman-")
"""How annotations begin that have the same name among headers."""
EXPIRATION = "x-opt-expiration"
RAW = "x-opt-raw-"
"""Annotations that keep properties of which 1.0 can make nothing: an odd expiration, text that is no UTF-8."""

_ROUTE = frozenset(["x-exchange", "x-routing-key"])
"""Annotations that tell a 1.0 reader the route that a message took; no part of the message."""
FORMER_SUBJECT = "x-opt-amqp-subject"
"""The annotation of a message of 0-10 whose subject is none of its own: null when it is the routing key."""

_JMS_DESTINATION, _JMS_REPLY_TO = "x-opt-jms-dest", "x-opt-jms-reply-to"
_QUEUE, _TOPIC = Byte(0), Byte(1)
"""Likewise, for JMS clients: what kind of thing the message was sent to, and is to be answered to."""

_BYTES = frozenset([JMS_TYPE, _JMS_DESTINATION, _JMS_REPLY_TO])
"""Annotations that JMS clients take for nothing but a byte. Many a client of 0-9-1 that sends on what it has received
makes an integer of another width of it."""

_SYMBOLS = frozenset(["content_type", "content_encoding"])

_NONE: frozenset[str] = frozenset()

_NESTED = (list, dict, Described, Array, Odd)
"""Application properties of 1.0 have no such values."""

USER_KEY: Final = b"\x09x-user-id"
"""The header with a user-id that has no place of its own, as dialects before 1.0 write a key."""
_LETTERS: Final = (b"X", b"Y", b"Z")


# To the model.


def disowned(data: bytes, at: int, end: int, texts: bytes) -> bytes:
    """Headers (of a message, from `at` to `end`) in which nobody claims to be another user: what a reader of another
    dialect would take for the user-id gets another key, `X-user-id` if there is none. texts: codes of types that are
    not taken so."""
    letters = [letter for letter in _LETTERS if data.find(b"\x09" + letter + USER_KEY[2:], at, end) < 0]
    letter = letters[0] if letters else _LETTERS[0]
    made = bytearray(data)  # for there may be many, and a copy for each would cost the square of them
    while True:
        found = data.find(USER_KEY, at, end)
        if found < 0:
            return bytes(made)
        at = found + len(USER_KEY)
        if at < end and data[at] not in texts:
            made[found + 1:found + 2] = letter


def read_text(view: View, field: str, name: str, data: bytes) -> None:
    """A property that is text; bytes that 1.0 cannot carry as such become an annotation. name: with hyphens."""
    try:
        setattr(view, field, data.decode("ascii" if field in _SYMBOLS else "utf-8"))
    except UnicodeDecodeError:
        view.annotations[RAW + name] = data


def read_kept(view: View, headers: dict[str, Any]) -> None:
    """Take out of the headers what we, and only we, put there, but for the subject and the ids."""
    for header, field in _TEXTS.items():
        value = headers.get(header)
        if type(value) is str and getattr(view, field) is None:
            setattr(view, field, value)
            del headers[header]
    for header, field in _NUMBERS.items():
        value = headers.get(header)
        if type(value) is int:
            rounded = getattr(view, field)
            if rounded is None or rounded == value // 1000 * 1000 and value >= 0:
                setattr(view, field, value)
                del headers[header]
    if type(headers.get("x-user-id")) is bytes and view.user_id is None:
        view.user_id = headers.pop("x-user-id")
    if _ours("JMSXGroupSeq", headers.get("JMSXGroupSeq")):
        view.group_sequence = int(headers.pop("JMSXGroupSeq"))
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and _ours("x-death", deaths):
        view.deaths = [read_death(each, 1000) for each in deaths]
        del headers["x-death"]


def read_kept_id(view: View, headers: dict[str, Any], field: str, header: str) -> None:
    """An id that has no place but a header."""
    kept = headers.get(header)
    if type(kept) in (bytes, str, ULong):
        setattr(view, field, kept)
        del headers[header]


def read_headers(view: View, headers: dict[str, Any], tables: Tables) -> None:
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
        if name.startswith(_OF_BROKERS) or isinstance(value, _NESTED):
            view.annotations.setdefault(name, _byte(value) if name in _BYTES else value)
        else:
            view.headers.setdefault(name, value)


def _byte(value: Any) -> Any:
    """An integer that a byte can hold, as one."""
    return Byte(value) if type(value) in (Int, Short, int) and -128 <= value <= 127 else value


def tell_route(view: View, exchange: str, routing_key: str) -> None:
    """Annotations for 1.0 readers: the route that the message took, and what JMS clients tell queues from topics by."""
    view.annotations["x-exchange"] = exchange
    view.annotations["x-routing-key"] = routing_key
    for name, kind in _jms_kinds(exchange, view.reply_to).items():
        view.annotations.setdefault(name, kind)


def _jms_kinds(exchange: str, reply_to: str | None) -> dict[str, Any]:
    """Messages to the nameless exchange go to a queue, and a reply address that names no exchange is a queue's name."""
    kinds: dict[str, Any] = {_JMS_DESTINATION: _TOPIC if exchange else _QUEUE}
    if reply_to is not None:
        kinds[_JMS_REPLY_TO] = _TOPIC if split_address(reply_to)[0] else _QUEUE
    return kinds


# From the model.


def own_annotations(view: View) -> dict[str, Any]:
    """The annotations, less those that we said of the route of a message that has been here before."""
    annotations = {name: value for name, value in view.annotations.items() if name not in _ROUTE}
    if "x-exchange" in view.annotations:
        for name, kind in _jms_kinds(str(view.annotations["x-exchange"]), view.reply_to).items():
            if same(annotations.get(name), kind):
                del annotations[name]
    return annotations


def own_subject(view: View, annotations: dict[str, Any]) -> str | None:
    """The subject, unless it is only what we made of the routing key."""
    if view.subject is not None and FORMER_SUBJECT in annotations and annotations[FORMER_SUBJECT] is None and (
            view.subject == view.annotations.get("x-routing-key")):
        del annotations[FORMER_SUBJECT]
        return None
    return view.subject


def write_text(value: str | None, field: str, name: str, most: int, kept: dict[str, Any],
               annotations: dict[str, Any]) -> bytes | None:
    """A property that is text, of at most so many bytes: None when there is none, or it is kept in a header."""
    if value is None:
        raw = annotations.get(RAW + name)
        if type(raw) is bytes and len(raw) <= most and not is_text(raw, field):
            del annotations[RAW + name]
            return raw
        return None
    encoded = value.encode("utf-8", "surrogateescape")
    if len(encoded) <= most and is_text(encoded, field):
        return encoded
    kept[_HEADER_OF[field]] = value
    return None


def is_text(data: bytes, field: str = "") -> bool:
    """Whether 1.0 can carry it as text, or as a symbol if that is what it has in this field."""
    try:
        data.decode("ascii" if field in _SYMBOLS else "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def keep_common(view: View, kept: dict[str, Any]) -> None:
    """Fields that no dialect before 1.0 has."""
    for field in ("to", "group_id", "reply_to_group_id"):
        value = getattr(view, field)
        if value is not None:
            kept[_HEADER_OF[field]] = value
    if view.group_sequence is not None:
        short = view.group_sequence < 2**31
        kept["JMSXGroupSeq"] = _short(view.group_sequence) if short else int(view.group_sequence)


def _short(value: int) -> Any:
    """As an int of 32 bits. (What is typed as int loses its class where this is compiled.)"""
    return Int(value)


def write_headers(headers: dict[str, Any], kept: dict[str, Any], annotations: dict[str, Any], tables: Tables,
                  reserved: frozenset[str] = _NONE) -> dict[str, bytes]:
    """All headers, encoded: the publisher's under their own names as far as the way back finds them there.

    reserved: names that the dialect has for itself, besides those that all have.
    """
    plain: dict[str, Any] = {}
    hidden: dict[str, Any] = {}
    noted: dict[str, Any] = {}
    long_keys: list[bytes] = []
    long_annotations: list[bytes] = []
    for name, value in headers.items():
        if _awkward(name):
            _add_pair(long_keys, name, value, tables)
        elif (name in kept or name in reserved or _ours(name, value) or name.startswith(_OF_BROKERS)
              or isinstance(value, _NESTED)):
            hidden[name] = value
        else:
            plain[name] = value
    for name, value in annotations.items():
        natural = name.startswith(_OF_BROKERS) or isinstance(value, _NESTED)
        if name in _BYTES and type(value) is not Byte:
            natural = False  # else it would come back as one
        if _awkward(name):
            _add_pair(long_annotations, name, value, tables)
        elif natural and not (name in kept or name in reserved or name in plain or _ours(name, value)):
            plain[name] = value
        else:
            noted[name] = value
    entries = tables.write_entries({**plain, **kept})
    if hidden:
        entries[PROPERTIES] = tables.table(tables.write_entries(hidden))
    if noted:
        entries[ANNOTATIONS] = tables.table(tables.write_entries(noted))
    if long_keys:
        entries[LONG_KEYS] = tables.array(long_keys)
    if long_annotations:
        entries[LONG_ANNOTATIONS] = tables.array(long_annotations)
    return entries


def _ours(name: str, value: Any) -> bool:
    """Whether a header of a name that we use has a value that we would give it."""
    if name not in _KEPT:
        return False
    kind = type(value)
    if name in _TEXTS or name in (SUBJECT, "x-message-id-type", "x-correlation-id-type", BODY_HEADERS[0]):
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
    return (len(name.encode("utf-8", "surrogateescape")) > LONGEST or name.startswith(MARKER)
            or name in (ANNOTATIONS, PROPERTIES, LONG_KEYS, LONG_ANNOTATIONS))


def _add_pair(pairs: list[bytes], name: str, value: Any, tables: Tables) -> None:
    key = tables.exact(name)
    if key is not None:  # else it is no text at all
        pairs += [key, tables.table(tables.write_entries({"": value}))]
