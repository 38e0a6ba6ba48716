"""The table of expectations: what becomes of a message of one dialect for a reader of another.

It is in values.toml and messages.toml; clients.toml has what a client cannot say or read.

A row has a 1.0 side, a way, a 0-9-1 side, a 0-10 side and one of MQTT 5. A side is all that a message says, by field;
what it leaves out the message has not got. The way says who sends it: `->` 1.0 clients, `<-` 0-9-1 clients, `0>` 0-10
clients, `M>` clients of MQTT, `<->` any. A reader gets the side of his dialect.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.matrix.notation import Side, Value, entries, parse, parse_all, types_in

HERE = Path(__file__).parent

MAPS = ("properties", "annotations", "headers")

DIALECTS = ("ten", "nine", "zero", "mqtt")
"""1.0, 0-9-1, 0-10 and MQTT, as the table calls them."""

SENDERS = {"->": "ten", "<-": "nine", "0>": "zero", "M>": "mqtt"}
"""Of the ways that are not open to all."""

DEFAULTS = {"ten": {"body": 'data "m"'}, "nine": {"body": '"m"', "delivery-mode": "1"},
            "zero": {"body": '"m"', "delivery-mode": "1"}, "mqtt": {"body": '"m"', "qos": "0"}}
"""What a side says that does not say otherwise."""


@dataclass(frozen=True)
class Row:
    chapter: str
    number: int
    way: str
    ten: Side
    nine: Side
    zero: Side
    mqtt: Side
    said: tuple[list[str], ...]
    """The sides as the table has them: one value, or its fields."""

    @property
    def name(self) -> str:
        return f"{self.chapter} {self.number}"

    def sent_by(self, dialect: str) -> bool:
        return self.way == "<->" or SENDERS[self.way] == dialect

    def side(self, dialect: str) -> Side:
        return {"ten": self.ten, "nine": self.nine, "zero": self.zero, "mqtt": self.mqtt}[dialect]


@dataclass(frozen=True)
class Chapter:
    title: str
    text: str
    rows: list[Row]


@dataclass(frozen=True)
class Limit:
    """Something that a client cannot always send or read: some values of some types, perhaps in some fields only."""

    client: str
    does: str
    types: list[str]
    reason: str
    fields: list[str] = field(default_factory=list)

    def covers(self, side: Side) -> bool:
        return any(types_in(value) & set(self.types) and (not self.fields or name in self.fields)
                   for name, value in values(side))


@dataclass(frozen=True)
class Table:
    chapters: list[Chapter]
    limits: list[Limit]
    shown: dict[str, dict[str, str]]
    """By client and type: what the value is in the client's language."""

    def samples(self, dialect: str) -> dict[str, Value]:
        """A value of each type, the shortest that the table has among its application properties and headers."""
        found: dict[str, Value] = {}
        for row in self.rows:
            side = row.side(dialect)
            for name in MAPS:
                for key in ("v", "x-opt-v"):
                    value = side.get(name, {}).get(key)
                    if value and len(str(value)) < len(str(found.get(value[0], value * 2))):
                        found[value[0]] = value
        return found

    @property
    def rows(self) -> list[Row]:
        return [row for chapter in self.chapters for row in chapter.rows]



def values(side: Side) -> list[tuple[str, Value]]:
    """All values of a side, with the fields that they are in."""
    found: list[tuple[str, Value]] = []
    for name, value in side.items():
        sections = name == "body" and not (value and isinstance(value[0], str))
        if name == "user-properties":  # they are text, all of them: what matters are their names
            found += [(name, [each, None]) for each, _ in value]
        else:
            found += [(name, each) for each in (value.values() if name in MAPS else value if sections else [value])]
    return found


def load() -> Table:
    values, messages, clients = (tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))
                                 for name in ("values", "messages", "clients"))
    chapters = [Chapter(each["title"], each["text"], [
        _row(each, number, *row) for number, row in enumerate(each["rows"], 1)])
        for each in values["chapter"] + messages["chapter"]]
    return Table(chapters, [Limit(**each) for each in clients["limit"]], clients["shown"])


def _row(chapter: dict[str, Any], number: int, ten: Any, way: str, nine: Any, zero: Any, mqtt: Any) -> Row:
    assert way == "<->" or way in SENDERS, way
    sides = dict(zip(DIALECTS, (ten, nine, zero, mqtt), strict=True))
    texts = {dialect: _texts(side, chapter[dialect], {"zero": "str16 ", "nine": "S "}.get(dialect, ""))
             for dialect, side in sides.items()}
    said = tuple([side] if isinstance(side, str) else [f"{name}: {each}" for name, each in texts[dialect].items()]
                 for dialect, side in sides.items())
    return Row(chapter["title"], number, way, *(_side(dialect, texts[dialect]) for dialect in DIALECTS), said)


def _texts(side: Any, place: str, kind: str) -> dict[str, str]:
    """Texts by field of a side that is a table, several of them, or one value. kind: the type of a marker, with
    a space behind it."""
    if isinstance(side, list):
        return {name: text for table in side for name, text in table.items()}
    return side if isinstance(side, dict) else _short(side, place, kind)


def _short(text: str, place: str, kind: str) -> dict[str, str]:
    """A side that is one value, in the chapter's place for it: a field, or an entry of one as in `headers.v`."""
    name, _, key = place.partition(".")
    value, _, marker = text.partition(" marked ")
    if not key:
        return {name: value}
    told = f'"x-opt-type-{key}": {kind}{json.dumps(marker)}'
    if not marker:
        return {name: f'{{"{key}": {value}}}'}
    return {name: f'{{"{key}": {value}, {told}}}' if kind else f'{{{told}, "{key}": {value}}}'}


def _side(dialect: str, texts: dict[str, str]) -> Side:
    side: Side = {}
    for name, text in {**DEFAULTS[dialect], **texts}.items():
        if name in MAPS:
            side[name] = entries(text)
        elif name == "user-properties":
            side[name] = _pairs(text)
        elif name == "body" and dialect == "ten":
            side[name] = [] if text == "none" else parse_all(text)
        else:
            side[name] = parse(text) if dialect == "ten" else _field(text)
    return side


def _pairs(text: str) -> list[tuple[str, str]]:
    """User properties: a map, or a list of names and values in turn where there are several of a name."""
    kind, content = parse(text)
    if kind == "list":
        content = zip(content[::2], content[1::2], strict=True)
    return [(name[1], value[1]) for name, value in content]


def _field(text: str) -> Value:
    """A property or the body of 0-9-1, 0-10 or MQTT: bytes, a number, or a uuid."""
    if text.startswith("uuid "):
        return parse(text)
    kind = "bytes" if text.startswith(('"', "0x")) else "number"
    return parse(f"{kind} {text}")

