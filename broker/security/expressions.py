"""Regular expressions that take no more time than the length of the text times their own, whatever they are.

Operators write them (RabbitMQ's permissions, names of hosts), clients choose the texts, and the broker has one thread:
so no backtracking. Python parses an expression; here all its states are followed at once. What needs backtracking
(references to groups, looking behind, conditions, atomic groups) is refused.
"""

from __future__ import annotations

import re
import re._constants as sre  # type: ignore[import-not-found]  # what is behind `re` has no public name
import re._parser as parser  # type: ignore[import-not-found]  # nor has the parser
import warnings
from collections.abc import Callable
from typing import Any

from broker.security.rules import Pattern, Subject

MOST_STATES = 4000
"""Of one expression, with the counted repeats written out."""

_Test = Callable[[str, int], bool]
"""Whether the text may go on at this place."""

_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    sre.CATEGORY_DIGIT: str.isdecimal, sre.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    sre.CATEGORY_SPACE: str.isspace, sre.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    sre.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    sre.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_")}


class Expression(Pattern):
    """A regular expression: found somewhere in a text, as RabbitMQ has it, or the `whole` of it."""

    def __init__(self, text: str, whole: bool = False) -> None:
        """Raises: ValueError."""
        self.text = text
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of sets that look as if they were nested
                parsed = parser.parse(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{text!r} is no regular expression: {error}") from None
        self._machine = _Machine(parsed.state.flags)
        try:
            self._start = self._machine.add(parsed, self._machine.final, text)
        except RecursionError:
            raise ValueError(f"{text!r} is nested too deeply") from None
        self._whole = whole

    def fits(self, text: str, subject: Subject) -> bool:
        return self._machine.runs(self._start, text, 0, not self._whole, self._whole)


class _State:
    """Where an expression may be: goes on to `after` by a character that `takes` says, or without one where `passes`
    says so; `also` are other ways on, without a character."""

    __slots__ = ("takes", "passes", "after", "also")

    def __init__(self, takes: Callable[[str], bool] | None = None, passes: _Test | None = None,
                 after: _State | None = None) -> None:
        self.takes = takes
        self.passes = passes
        self.after = after
        self.also: list[_State] = []


class _Machine:
    def __init__(self, flags: int) -> None:
        self.final = _State()
        self.flags = flags
        self.states = 0

    def runs(self, start: _State, text: str, at: int, anywhere: bool, to_end: bool) -> bool:
        """Whether the expression is found from a place on."""
        current: dict[_State, None] = {}
        self._enter(start, text, at, current)
        while True:
            if self.final in current and (not to_end or at == len(text)):
                return True
            if at == len(text) or not current and not anywhere:
                return False
            char = text[at]
            at += 1
            following: dict[_State, None] = {}
            for state in current:
                if state.takes is not None and state.after is not None and state.takes(char):
                    self._enter(state.after, text, at, following)
            if anywhere:
                self._enter(start, text, at, following)
            current = following

    def _enter(self, state: _State, text: str, at: int, into: dict[_State, None]) -> None:
        """Add a state, and those that it leads to without a character."""
        waiting = [state]
        while waiting:
            one = waiting.pop()
            if one in into:
                continue
            into[one] = None
            waiting += one.also
            if one.passes is not None and one.after is not None and one.passes(text, at):
                waiting.append(one.after)

    # From the parser's tree, the last part first.

    def add(self, parts: Any, after: _State, text: str) -> _State:
        """The state that the parts begin with, when `after` follows them. Raises: ValueError."""
        for kind, value in reversed(list(parts)):
            after = self._part(kind, value, after, text)
        return after

    def _state(self, text: str, takes: Callable[[str], bool] | None = None, passes: _Test | None = None,
               after: _State | None = None) -> _State:
        self.states += 1
        if self.states > MOST_STATES:
            raise ValueError(f"{text!r} is too large a regular expression")
        return _State(takes, passes, after)

    def _part(self, kind: Any, value: Any, after: _State, text: str) -> _State:
        takes = self._taker(kind, value)
        if takes is not None:
            return self._state(text, takes, None, after)
        if kind is sre.BRANCH:
            fork = self._state(text)
            fork.also = [self.add(each, after, text) for each in value[1]]
            return fork
        if kind is sre.SUBPATTERN:
            if value[1] or value[2]:
                raise ValueError(f"{text!r} changes its flags halfway, which is not possible here")
            return self.add(value[3], after, text)
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            return self._repeat(value, after, text)
        if kind is sre.AT:
            return self._state(text, None, self._place(value), after)
        if kind in (sre.ASSERT, sre.ASSERT_NOT) and value[0] > 0:
            return self._state(text, None, self._ahead(value[1], kind is sre.ASSERT, text), after)
        raise ValueError(f"{text!r} has something in it that is not possible here: only plain regular expressions and "
                         "looking ahead are")

    def _repeat(self, value: Any, after: _State, text: str) -> _State:
        low, high, body = value
        if max(low, high if high is not sre.MAXREPEAT else 0) > MOST_STATES:
            raise ValueError(f"{text!r} is too large a regular expression")
        if high is sre.MAXREPEAT:
            loop = self._state(text)
            loop.also = [self.add(body, loop, text), after]
            after = loop
        else:
            end = after
            for _ in range(high - low):
                skip = self._state(text)
                skip.also = [self.add(body, after, text), end]
                after = skip
        for _ in range(low):
            after = self.add(body, after, text)
        return after

    def _ahead(self, body: Any, wanted: bool, text: str) -> _Test:
        inner = _Machine(self.flags)
        inner.states = self.states
        start = inner.add(body, inner.final, text)
        self.states = inner.states
        return lambda subject, at: inner.runs(start, subject, at, False, False) == wanted

    def _taker(self, kind: Any, value: Any) -> Callable[[str], bool] | None:
        """What says whether a character will do; None for what is not of one character."""
        if self.flags & re.IGNORECASE and kind in (sre.LITERAL, sre.NOT_LITERAL, sre.IN):
            return self._caseless(kind, value)
        if kind is sre.LITERAL:
            return chr(value).__eq__
        if kind is sre.NOT_LITERAL:
            return chr(value).__ne__
        if kind is sre.ANY:
            return (lambda char: True) if self.flags & re.DOTALL else (lambda char: char != "\n")
        if kind is sre.IN:
            return _set(value)
        return None

    def _caseless(self, kind: Any, value: Any) -> Callable[[str], bool]:
        negated = kind is sre.NOT_LITERAL
        one = _set(value) if kind is sre.IN else chr(value).__eq__

        def takes(char: str) -> bool:
            return any(one(each) for each in {char, char.lower(), char.upper()}) != negated
        return takes

    def _place(self, value: Any) -> _Test:
        lines = bool(self.flags & re.MULTILINE)
        if value in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            return lambda text, at: at == 0 or lines and value is sre.AT_BEGINNING and text[at - 1] == "\n"
        if value is sre.AT_END_STRING:
            return lambda text, at: at == len(text)
        if value is sre.AT_END:
            return lambda text, at: (at == len(text) or text[at] == "\n" and (lines or at == len(text) - 1))
        return lambda text, at: _at_word(text, at) == (value is sre.AT_BOUNDARY)


def _at_word(text: str, at: int) -> bool:
    """Whether a word begins or ends here."""
    word = _CATEGORIES[sre.CATEGORY_WORD]
    return (at > 0 and word(text[at - 1])) != (at < len(text) and word(text[at]))


def _set(items: Any) -> Callable[[str], bool]:
    negated = False
    tests: list[Callable[[str], bool]] = []
    for kind, value in items:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            tests.append(chr(value).__eq__)
        elif kind is sre.RANGE:
            tests.append(_range(*value))
        else:
            tests.append(_CATEGORIES[value])
    return lambda char: any(test(char) for test in tests) != negated


def _range(low: int, high: int) -> Callable[[str], bool]:
    return lambda char: low <= ord(char) <= high
