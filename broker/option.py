"""An option of a declaration: its spellings, and how a value that somebody sent becomes the one that we work with.

Two manners: RabbitMQ's names want values of the right type and refuse others in RabbitMQ's words. Qpid's users write
numbers and truth values as text as often as not, so under Qpid's names those count as well.
"""

from __future__ import annotations

import json
from typing import Any, Final

from broker.argument_values import kind
from broker.errors import PreconditionFailed

FLAG: Final = "true or false"
NUMBER: Final = "number"
TEXT: Final = "text"
WORD: Final = "one of some words"
EXCHANGE: Final = "name of an exchange"
ALTERNATE: Final = "name of an exchange or a queue"
MAP: Final = "map"
KIND: Final = "word"
"""Checked where it is used."""
IGNORED: Final = "ignored"

LONGEST: Final = 315_360_000_000
"""The longest time to live, ms: ten years, as RabbitMQ has it."""

_TRUE: Final = ("true", "1")
_FALSE: Final = ("false", "0")


class Option:
    """One option of queues, exchanges, bindings or consumers."""

    def __init__(self, name: str, kind: str, text: str, rabbit: tuple[str, ...] = (), qpid: tuple[str, ...] = (),
                 model: tuple[str, ...] = (), unit: str = "", low: int = 0, high: int | None = None,
                 nil: bool = False, words: dict[str, Any] | None = None, rabbit_words: tuple[str, ...] = (),
                 wrong_word: str = "", default: Any = None, default_text: str = "") -> None:
        self.name = name  # the canonical one: also the attribute of the settings that has the value
        self.kind = kind
        self.text = text  # what it does; of an ignored option, why it is
        self.rabbit = rabbit  # its names in RabbitMQ's manner: strict
        self.qpid = qpid  # its names on the wire of Qpid's brokers
        self.model = model  # its names among the attributes of Broker-J's objects
        self.unit = unit
        self.low = low  # the least number
        self.high = high  # the greatest, None for no limit
        self.nil = nil  # in Qpid's manner 0 (or -1) says "none": it is as if the option was not there
        self.words = words or {}  # by word in small letters with dashes, the value that it stands for
        self.rabbit_words = rabbit_words  # those of the words that there are in RabbitMQ's manner
        self.wrong_word = wrong_word  # how RabbitMQ speaks of another one, with {} for it
        self.default = default
        self.default_text = default_text  # what to say of the default in the documentation, where it is not plain

    def read(self, key: str, value: Any, what: str) -> Any:
        """The value that this option has when it was sent as `key`. what: whose it is, for error texts.

        Raises: PreconditionFailed for one that cannot be.
        """
        if self.kind == IGNORED:
            return None
        if self.kind == KIND:
            return value
        if isinstance(value, bytes) and self.kind != MAP:
            value = value.decode("utf-8", "surrogateescape")  # Python 2 writers have no other text
        return self._strict(key, value, what) if key in self.rabbit else self._lenient(key, value, what)

    def _strict(self, key: str, value: Any, what: str) -> Any:
        if self.kind == NUMBER:
            return self._strict_number(key, value, what)
        if self.kind == EXCHANGE:
            if not isinstance(value, str):
                raise PreconditionFailed(f"invalid type '{kind(value)}' for arg '{key}' in {what}")
            return value
        if not isinstance(value, bool if self.kind == FLAG else str):
            raise PreconditionFailed(f"invalid arg '{key}' for {what}: {{unacceptable_type,{kind(value)}}}")
        if self.kind != WORD:
            return value
        if value not in self.rabbit_words:
            raise PreconditionFailed(f"invalid arg '{key}' for {what}: {self.wrong_word.replace('{}', str(value))}")
        return self.words[value]

    def _strict_number(self, key: str, value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            wrong = f'"expected integer, got {kind(value)}"'
        elif value < 0 and self.low >= 0:
            wrong = f"{{value_negative,{value}}}"
        elif value < self.low:
            wrong = f"{{value_zero,{value}}}"
        elif self.high is not None and value > self.high:
            wrong = f"{{{'value_too_large' if self.high == LONGEST else 'max_value_exceeded'},{value}}}"
        else:
            return value
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: {wrong}")

    def _lenient(self, key: str, value: Any, what: str) -> Any:
        if self.kind == NUMBER:
            number = _number(value)
            if number is not None:
                if self.nil and number in (0, -1):
                    return self.default
                if self.low <= number and (self.high is None or number <= self.high):
                    return number
        elif self.kind == FLAG:
            word = str(value).lower() if isinstance(value, (bool, int, str)) else ""
            if word in _TRUE or word in _FALSE:
                return word in _TRUE
        elif self.kind == WORD:
            if isinstance(value, (str, bool, int)):
                word = str(value).lower().replace("_", "-")
                if word in self.words:
                    return self.words[word]
        elif self.kind == MAP:
            found = _map(value)
            if found is not None:
                return found
        elif self.kind == ALTERNATE and isinstance(value, dict):
            destination = value.get("destination")
            if isinstance(destination, str):
                return destination
        elif isinstance(value, str):
            return value
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: it is {self.allowed()}, not {_brief(repr(value))}")

    def allowed(self) -> str:
        """What values there are, in words."""
        if self.kind == NUMBER:
            return f"a number from {self.low} {'on' if self.high is None else f'to {self.high}'}"
        if self.kind == FLAG:
            return "true or false"
        if self.kind == WORD:
            return "one of " + ", ".join(self.words)
        if self.kind == ALTERNATE:
            return "the name of an exchange or a queue, or a map with it as 'destination'"
        return f"a {self.kind}"

    def names(self) -> tuple[str, ...]:
        """All spellings."""
        return (*self.rabbit, *self.qpid, *self.model)


def _number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) < 20:
        digits = value.strip()
        if digits.removeprefix("-").isdecimal():
            return int(digits)
    return None


def _map(value: Any) -> dict[str, Any] | None:
    """A map, or one that is written as JSON."""
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _brief(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
