"""The table of expectations, `table.toml`: what becomes of a message of one dialect for a reader of the other.

A row has a 1.0 side, a way, and a 0-9-1 side. A side is all that a message says, by field; what it leaves out the
message has not got. The way says who sends it: `->` 1.0 clients, `<-` 0-9-1 clients, `<->` either. A reader of the
sender's dialect gets the sender's side, any other the other side.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.matrix.notation import Side, Value, entries, parse, parse_all, types_in

HERE = Path(__file__).parent

MAPS = ("properties", "annotations", "headers")

DEFAULTS = {"ten": {"body": 'data "m"'}, "nine": {"body": '"m"', "delivery-mode": "1"}}
"""What a side says that does not say otherwise."""


@dataclass(frozen=True)
class Row:
    chapter: str
    number: int
    way: str
    ten: Side
    nine: Side
    ten_text: dict[str, str]
    nine_text: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.chapter} {self.number}"

    def sent_by(self, dialect: str) -> bool:
        return self.way == "<->" or self.way == ("->" if dialect == "ten" else "<-")

    def side(self, dialect: str) -> Side:
        return self.ten if dialect == "ten" else self.nine


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

    @property
    def rows(self) -> list[Row]:
        return [row for chapter in self.chapters for row in chapter.rows]

    def limits_of(self, client: str, does: str, side: Side) -> list[Limit]:
        """Why that client may be unable to do this with such a message."""
        return [limit for limit in self.limits if (limit.client, limit.does) == (client, does) and limit.covers(side)]


def values(side: Side) -> list[tuple[str, Value]]:
    """All values of a side, with the fields that they are in."""
    found: list[tuple[str, Value]] = []
    for name, value in side.items():
        sections = name == "body" and not (value and isinstance(value[0], str))
        found += [(name, each) for each in (value.values() if name in MAPS else value if sections else [value])]
    return found


def load() -> Table:
    data = tomllib.loads((HERE / "table.toml").read_text(encoding="utf-8"))
    chapters = [Chapter(each["title"], each.get("text", ""), [
        _row(each, number, *row) for number, row in enumerate(each["rows"], 1)]) for each in data["chapter"]]
    return Table(chapters, [Limit(**each) for each in data["limit"]])


def _row(chapter: dict[str, Any], number: int, ten: Any, way: str, nine: Any) -> Row:
    assert way in ("->", "<-", "<->"), way
    ten_text, nine_text = _texts(ten, chapter["ten"]), _texts(nine, chapter["nine"])
    return Row(chapter["title"], number, way, _side("ten", ten_text), _side("nine", nine_text), ten_text, nine_text)


def _texts(side: Any, place: str) -> dict[str, str]:
    """Texts by field of a side that is a table, several of them, or one value."""
    if isinstance(side, list):
        return {name: text for table in side for name, text in table.items()}
    return side if isinstance(side, dict) else _short(side, place)


def _short(text: str, place: str) -> dict[str, str]:
    """A side that is one value, in the chapter's place for it: a field, or an entry of one as in `headers.v`."""
    name, _, key = place.partition(".")
    value, _, marker = text.partition(" marked ")
    if not key:
        return {name: value}
    more = f', "x-opt-type-{key}": S "{marker}"' if marker else ""
    return {name: f'{{"{key}": {value}{more}}}'}


def _side(dialect: str, texts: dict[str, str]) -> Side:
    side: Side = {}
    for name, text in {**DEFAULTS[dialect], **texts}.items():
        if name in MAPS:
            side[name] = entries(text)
        elif name == "body" and dialect == "ten":
            side[name] = [] if text == "none" else parse_all(text)
        else:
            side[name] = _field(text) if dialect == "nine" else parse(text)
    return side


def _field(text: str) -> Value:
    """A property or the body of 0-9-1: bytes, or a number."""
    kind = "bytes" if text.startswith(('"', "0x")) else "number"
    return parse(f"{kind} {text}")

