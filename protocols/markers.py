"""Values that a dialect's headers have no type for, without loss: markers.

What a table has an exact type for is written so. Anything else is text, a number or bytes that a reader can make
something of, and a marker says what it was: for entry NAME the entry `x-opt-type-NAME`, which the way back removes.
"""

from __future__ import annotations

import uuid
from typing import Any

from mypy_extensions import mypyc_attr

from broker.values import Char, Symbol, Timestamp, ULong
from protocols import values10

MARKER = "x-opt-type-"

LONGEST = 255 - len(MARKER)
"""Bytes of a name that has room for a marker."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Tables:
    """How a dialect encodes its headers."""

    def exact(self, value: Any) -> bytes | None:
        """The value with its type, which is read as this very value of the model; None when there is no such type."""
        raise NotImplementedError

    def table(self, entries: dict[str, bytes]) -> bytes:
        """A table, as a value with its type, of values that are encoded already."""
        raise NotImplementedError

    def array(self, items: list[bytes]) -> bytes:
        """A list, likewise."""
        raise NotImplementedError

    def write_entries(self, values: dict[str, Any]) -> dict[str, bytes]:
        """Encoded values by name for a table of the model's values, with markers. Names leave room for those: they have
        at most LONGEST bytes."""
        entries: dict[str, bytes] = {}
        for name, value in values.items():
            entry = self.exact(value)
            if entry is None:
                entry, marker = self.marked(value)
                entries[MARKER + name] = self.known(marker)
            entries[name] = entry
        return entries

    def take_markers(self, table: dict[str, Any]) -> dict[str, Any]:
        """The reverse of `write_entries`, of values that were read."""
        found: dict[str, Any] = {}
        used: set[str] = set()
        for name, value in table.items():
            marker = table.get(MARKER + name)
            if type(marker) is str:
                try:
                    found[name] = self.unmarked(value, marker)
                    used.add(MARKER + name)
                    continue
                except ValueError:
                    pass
            found[name] = value
        for name in used:
            del found[name]
        return found

    def known(self, value: Any) -> bytes:
        """A value that surely has an exact type."""
        entry = self.exact(value)
        if entry is None:
            raise ValueError(f"{value!r} has no exact type")
        return entry

    def marked(self, value: Any) -> tuple[bytes, str]:
        """An encoded value for what has no exact one, and what its marker is to say."""
        kind = type(value)
        plain: Any = None
        marker = ""
        if kind is ULong:
            plain, marker = int(value) if value < 2**63 else str(int(value)), "ulong"
        elif kind is Timestamp:
            plain, marker = int(value), "timestamp"
        elif kind is Symbol:
            plain, marker = str(value), "symbol"
        elif kind is Char:
            plain, marker = str(value), "char"
        elif kind is uuid.UUID:
            plain, marker = str(value), "uuid"
        elif kind is str and values10.is_text(value):
            plain, marker = value.encode("utf-8"), "string"  # it is too long for one
        entry = self.exact(plain) if marker else None
        if entry is not None:
            return entry, marker
        return self.known(values10.encode(value)), "amqp"

    def unmarked(self, value: Any, marker: str) -> Any:
        """What `marked` was given. Raises: ValueError when these two are none of its making."""
        found: Any
        if marker == "ulong" and type(value) in (int, str):
            found = ULong(int(value))
        elif marker == "timestamp" and type(value) is int:
            found = Timestamp(value)
        elif marker == "symbol" and type(value) is str:
            found = Symbol(value)
        elif marker == "char" and type(value) is str and len(value) == 1:
            found = Char(value)
        elif marker == "uuid" and type(value) is str:
            found = uuid.UUID(value)
        elif marker == "string" and type(value) is bytes:
            found = value.decode("utf-8")
        elif marker == "amqp" and type(value) is bytes:
            try:
                found = values10.decode(value)
            except values10.Malformed as error:
                raise ValueError(str(error)) from None
        else:
            raise ValueError("no such marker")
        if self.exact(found) is not None or self.marked(found) != (self.exact(value), marker):
            raise ValueError("no value of ours")
        return found


def is_uuid_urn(text: str) -> bool:
    """Whether this is how a uuid is written where there is only text."""
    if len(text) != 45 or not text.startswith("urn:uuid:"):
        return False
    try:
        return str(uuid.UUID(text[9:])) == text[9:]
    except ValueError:
        return False
