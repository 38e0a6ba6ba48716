"""What is declared of a key of the configuration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class Kind(Enum):
    """What a key's value is; the text is how the documentation names it."""

    BOOLEAN = "true or false"
    NUMBER = "whole number"
    SIZE = "size"
    SECONDS = "duration"
    TEXT = "text"
    PATH = "path"
    TEXTS = "list of texts"
    PATHS = "list of paths"
    TABLE = "table"
    PATH_TABLE = "table of paths"
    TABLES = "list of tables"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key besides its type and default."""

    kind: Kind
    help: str
    minimum: int = 0  # of texts and paths: 1 for those that cannot be empty
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    restart: bool = False  # takes effect only when the broker is started again


def key(default: T, kind: Kind, help: str, **more: Any) -> T:
    made: T = field(default=default, metadata={"key": Key(kind, help, **more)})
    return made


def keys(of: type) -> list[tuple[str, Key, Any]]:
    """The keys that a section (a dataclass) declares: (name, key, default)."""
    return [(each.name, each.metadata["key"], each.default) for each in dataclasses.fields(of)
            if "key" in each.metadata]
