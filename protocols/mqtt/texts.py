"""Values of the model as text and as JSON, without loss: what user properties and payloads of MQTT are made of.

JSON says text, numbers, truth values, null, arrays and objects by itself. The type of anything else is written beside
it: a user property NAME has a marker `x-opt-type-NAME`, as headers of other dialects have (protocols/markers.py), and
a JSON text has an object of JSON pointers (RFC 6901) and types: `[1,"aGk="]` with `{"/0":"int","/1":"binary"}`.
"""

from __future__ import annotations

import json
import math
import uuid
from base64 import b64decode, b64encode
from typing import Any, Final

from broker.values import Byte, Char, Float, Int, Short, Symbol, Timestamp, UByte, UInt, ULong, UShort
from protocols import values10
from protocols.bodies import DATA_LENGTHS, JMS_TYPE
from protocols.markers import MARKER, Tables
from protocols.side_headers import ANNOTATIONS, LONG_ANNOTATIONS, LONG_KEYS, PROPERTIES

_INTEGERS: Final[dict[str, tuple[type, int, int]]] = {
    "ubyte": (UByte, 0, 2**8), "ushort": (UShort, 0, 2**16), "uint": (UInt, 0, 2**32), "ulong": (ULong, 0, 2**64),
    "byte": (Byte, -2**7, 2**7), "short": (Short, -2**15, 2**15), "int": (Int, -2**31, 2**31),
    "timestamp": (Timestamp, -2**63, 2**63)}
_NAMES: Final[dict[type, str]] = {kind: name for name, (kind, _, _) in _INTEGERS.items()}

_DEEPEST: Final = 90
"""Levels of nesting that become JSON; what goes deeper is written as AMQP 1.0 does."""

TYPES: Final = {
    "x-priority": "long", "x-opt-ttl": "long", "x-opt-creation-time": "long", "x-opt-absolute-expiry-time": "long",
    "JMSXGroupSeq": "int", "x-delay": "long", "x-delivery-count": "long", "x-qpid-not-valid-before": "long",
    "x-opt-delivery-time": "long", "x-opt-delivery-delay": "long", "x-user-id": "utf-8", "x-death": "json",
    JMS_TYPE: "byte", "x-opt-jms-dest": "byte", "x-opt-jms-reply-to": "byte", DATA_LENGTHS: "json",
    ANNOTATIONS: "table", PROPERTIES: "table", LONG_KEYS: "pairs", LONG_ANNOTATIONS: "pairs"}
"""What user properties of these names are, when no marker says anything else."""

dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
dump_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""A value as JSON, on one line."""


# JSON.


def to_json(value: Any) -> tuple[str, str]:
    """The JSON of a value, and that of its types, or nothing if there is nothing to say about them.
    Raises: ValueError for what cannot be said so."""
    types: dict[str, str] = {}
    text = dump(_plain(value, "", types, 0))
    return text, dump_ascii(types) if types else ""


def from_json(text: str, types: str) -> Any:
    """The reverse. Raises: ValueError for what `to_json` would not have written."""
    named = load(types) if types else {}
    if not isinstance(named, dict):
        raise ValueError("types are an object")
    value = _typed(load(text), "", named, 0)
    if to_json(value) != (text, types):
        raise ValueError("JSON is not written as we would")
    return value


def load(text: str) -> Any:
    """What JSON says. Raises: ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON is nested too deep") from None


def _plain(value: Any, path: str, types: dict[str, str], depth: int) -> Any:
    kind = type(value)
    if kind is list or kind is dict:
        if depth >= _DEEPEST:
            raise ValueError("it is nested too deep")
        if kind is list:
            return [_plain(each, f"{path}/{at}", types, depth + 1) for at, each in enumerate(value)]
        found = {}
        for name, each in value.items():
            if not values10.is_text(name):
                raise ValueError("a name is no text")
            found[name] = _plain(each, f"{path}/{_escaped(name)}", types, depth + 1)
        return found
    item, named = leaf(value)
    if named:
        types[path] = named
    return item


def _typed(item: Any, path: str, types: dict[str, Any], depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deep")
    if type(item) is list:
        return [_typed(each, f"{path}/{at}", types, depth + 1) for at, each in enumerate(item)]
    if type(item) is dict:
        return {name: _typed(each, f"{path}/{_escaped(name)}", types, depth + 1) for name, each in item.items()}
    named = types.get(path, "")
    if type(named) is not str:
        raise ValueError("a type has a name")
    return from_leaf(item, named)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def leaf(value: Any) -> tuple[Any, str]:
    """What JSON has for a value that holds no others, and its type's name where JSON does not tell."""
    kind = type(value)
    if kind is str and values10.is_text(value) or value is None or kind is bool or kind is int:
        return value, ""
    named = _NAMES.get(kind)
    if named is not None:
        return int(value), named
    if kind is float and math.isfinite(value):
        return value, ""
    if kind is Float and math.isfinite(value):
        return float(value), "float"
    if kind is bytes:
        return b64encode(value).decode(), "binary"
    if kind is uuid.UUID:
        return str(value), "uuid"
    if (kind is Char or kind is Symbol) and values10.is_text(value):
        return str(value), "char" if kind is Char else "symbol"
    return b64encode(values10.encode(value)).decode(), "amqp"


def from_leaf(item: Any, named: str) -> Any:
    """The reverse. Raises: ValueError for what `leaf` would not have given."""
    value = _leaf_value(item, named)
    again, as_named = leaf(value)
    if type(again) is not type(item) or again != item or as_named != named:
        raise ValueError("no value of ours")
    return value


def _leaf_value(item: Any, named: str) -> Any:
    """Raises: ValueError."""
    kind = type(item)
    if not named:
        if kind is int and not -2**63 <= item < 2**63:
            raise ValueError("a number is too large")
        return item
    integer = _INTEGERS.get(named)
    if integer is not None:
        made, low, end = integer
        if kind is not int or not low <= item < end:
            raise ValueError("a number does not fit its type")
        return made(item)
    if named == "float" and kind is float:
        return values10.float32(values10.encode(Float(item))[1:]) if abs(item) < 3.5e38 else None
    if kind is not str:
        raise ValueError("a value does not fit its type")
    if named == "binary":
        return b64decode(item, validate=True)
    if named == "uuid":
        return uuid.UUID(item)
    if named == "char" and len(item) == 1:
        return Char(item)
    if named == "symbol":
        return Symbol(item)
    if named != "amqp":
        raise ValueError("there is no such type")
    try:
        return values10.decode(b64decode(item, validate=True))
    except values10.Malformed as error:
        raise ValueError(str(error)) from None


# User properties.


class Texts(Tables):
    """User properties and their values, as the shared parts of the translation write them: UTF-8."""

    def exact(self, value: Any) -> bytes | None:
        if type(value) is not str:
            return None
        try:
            return value.encode("utf-8")
        except UnicodeEncodeError:
            return None

    def table(self, entries: dict[str, bytes]) -> bytes:
        return dump_ascii({name: data.decode("utf-8") for name, data in entries.items()}).encode()

    def array(self, items: list[bytes]) -> bytes:
        return dump_ascii([data.decode("utf-8") for data in items]).encode()

    def write_entries(self, values: dict[str, Any]) -> dict[str, bytes]:
        entries: dict[str, bytes] = {}
        for name, value in values.items():
            usual = TYPES.get(name)
            entry = self.exact(value)
            if entry is None:
                entry, marker = self.marked(value) if usual != "utf-8" else _utf8(value)
                if marker != usual:
                    entries[MARKER + name] = marker.encode("utf-8")
            elif usual is not None and self._reads(value, usual):
                entries[MARKER + name] = b"string"
            entries[name] = entry
        return entries

    def take_markers(self, table: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        used: set[str] = set()
        for name, value in table.items():
            found[name] = value
            if type(value) is not str:
                continue
            usual = TYPES.get(name)
            marker = table.get(MARKER + name)
            if type(marker) is str and (marker != "string" or usual is not None and self._reads(value, usual)):
                try:
                    found[name] = self.unmarked(value, marker)
                    used.add(MARKER + name)
                except ValueError:
                    pass
            elif usual is not None:
                try:
                    found[name] = self.unmarked(value, usual)
                except ValueError:
                    pass
        for name in used:
            del found[name]
        return found

    def marked(self, value: Any) -> tuple[bytes, str]:
        kind = type(value)
        if kind is list or kind is dict:
            try:
                text, types = to_json(value)
                return text.encode("utf-8"), f"json {types}" if types else "json"
            except ValueError:
                return b64encode(values10.encode(value)), "amqp"
        item, named = leaf(value)
        if type(item) is str:
            return item.encode("utf-8"), named
        if not named:
            named = "null" if item is None else "boolean" if kind is bool else "long" if kind is int else "double"
        return dump(item).encode(), named

    def unmarked(self, value: Any, marker: str) -> Any:
        """Raises: ValueError."""
        if marker == "string":
            return value
        if marker == "utf-8":
            return value.encode("utf-8")
        if marker == "table" or marker == "pairs":
            return _own_table(value) if marker == "table" else _own_pairs(value)
        found: Any
        if marker == "json" or marker.startswith("json {"):
            found = from_json(value, marker[5:])
        elif marker == "null" or marker == "boolean" or marker == "long" or marker == "double":
            found = from_leaf(load(value), "")
        else:
            number = marker in _INTEGERS or marker == "float"
            found = from_leaf(load(value) if number else value, marker)
        if self.marked(found) != (value.encode("utf-8"), marker):
            raise ValueError("no value of ours")
        return found

    def _reads(self, value: str, marker: str) -> bool:
        """Whether a text would be taken for what its name usually is."""
        try:
            self.unmarked(value, marker)
        except ValueError:
            return False
        return True


TEXTS: Final = Texts()


def _utf8(value: Any) -> tuple[bytes, str]:
    """Bytes that are text, as that."""
    if type(value) is bytes:
        try:
            value.decode("utf-8")
            return value, "utf-8"
        except UnicodeDecodeError:
            pass
    return TEXTS.marked(value)


def _own_table(text: str) -> dict[str, str]:
    """What `Texts.table` made. Raises: ValueError."""
    found = load(text)
    if not isinstance(found, dict) or not all(
            type(each) is str for each in found.values()) or dump_ascii(found) != text:
        raise ValueError("no table of ours")
    return found


def _own_pairs(text: str) -> list[Any]:
    """Names and tables in turn, from `Texts.array`. Raises: ValueError."""
    found = load(text)
    if not isinstance(found, list) or len(found) % 2 or not all(
            type(each) is str for each in found) or dump_ascii(found) != text:
        raise ValueError("no list of ours")
    return [_own_table(each) if at % 2 else each for at, each in enumerate(found)]
