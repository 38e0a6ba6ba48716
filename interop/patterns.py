"""Patterns of rules: text with places, as `eu.{country}.{rest}`, which stand for whatever is there.

Matching takes time in proportion to the text: each place is as short as what follows it allows, and nothing is tried
twice. `{{` and `}}` are braces.
"""

from __future__ import annotations

import re

LONGEST = 1000
"""Characters of a pattern."""
PLACES = 20

_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]|[^{}]+")


class PatternError(ValueError):
    """The pattern makes no sense; the text says why."""


def _parts(text: str) -> list[tuple[str, str]]:
    """Pairs of literal text and the place behind it ("" at the end, if there is none). Raises: PatternError."""
    if len(text) > LONGEST:
        raise PatternError(f"a pattern has at most {LONGEST} characters")
    found: list[tuple[str, str]] = []
    literal = ""
    for match in _PART.finditer(text):
        part, place = match[0], match[1]
        if part in ("{", "}"):
            raise PatternError(f"'{text}': a brace that belongs to no place is written twice")
        if place is None:
            literal += part[0] if part in ("{{", "}}") else part
        else:
            found.append((literal, place))
            literal = ""
    if len(found) > PLACES:
        raise PatternError(f"a pattern has at most {PLACES} places")
    return [*found, (literal, "")]


class Pattern:
    """What a text must look like as a whole."""

    def __init__(self, text: str) -> None:
        """Raises: PatternError."""
        self.parts = _parts(text)
        self.places = [place for _, place in self.parts if place]
        if len(set(self.places)) != len(self.places):
            raise PatternError(f"'{text}': a place is there twice")
        if any(not literal for literal, place in self.parts[1:-1]):
            raise PatternError(f"'{text}': two places have nothing between them")

    def match(self, text: str) -> dict[str, str] | None:
        """What is at the places; None when the text does not fit."""
        first, last = self.parts[0][0], self.parts[-1][0]
        if not self.places:
            return {} if text == first else None
        if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
            return None
        end = len(text) - len(last)
        at = len(first)
        found = {}
        for number, place in enumerate(self.places):
            if number == len(self.places) - 1:
                found[place] = text[at:end]
                break
            literal = self.parts[number + 1][0]
            stop = text.find(literal, at, end)
            if stop < 0:
                return None
            found[place] = text[at:stop]
            at = stop + len(literal)
        return found


class Template:
    """What is made of what was at the places."""

    def __init__(self, text: str, pattern: Pattern) -> None:
        """Raises: PatternError."""
        self.parts = _parts(text)
        for _, place in self.parts:
            if place and place not in pattern.places:
                raise PatternError(f"'{text}': there is no place {{{place}}} in the pattern")

    def fill(self, found: dict[str, str]) -> str:
        return "".join(literal + (found[place] if place else "") for literal, place in self.parts)
