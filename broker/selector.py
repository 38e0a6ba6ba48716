"""Message selectors: the language of JMS 2.0 (its section 3.8.1), compiled once to closures.

Logic has three values: what concerns a property that a message does not have is unknown (None), and a message is
selected only if the whole is true. Beside the headers that JMS names, `amqp.` reaches the fields of AMQP 1.0, and a
name in double quotes can have any characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from broker.message import Message
from broker.view import View

LONGEST = 65536
"""Characters of a selector."""
DEEPEST = 100
"""Levels of parentheses and signs."""

Expression = Callable[[View], Any]


class SelectorError(ValueError):
    """The selector makes no sense; the text says where."""


class Selector:
    """A compiled selector."""

    __slots__ = ("text", "_expression")

    def __init__(self, text: str) -> None:
        """Raises: SelectorError."""
        self.text = text
        if len(text) > LONGEST:
            raise SelectorError(f"a selector has at most {LONGEST} characters")
        try:
            self._expression = _Parser(text).whole()
        except SelectorError:
            raise
        except ValueError as error:  # a number of thousands of digits
            raise SelectorError(str(error)) from None

    def matches(self, message: Message) -> bool:
        return self._expression(message.view()) is True


# What names mean.

_FIELDS = {"message_id": "message_id", "correlation_id": "correlation_id", "to": "to", "subject": "subject",
           "reply_to": "reply_to", "content_type": "content_type", "content_encoding": "content_encoding",
           "absolute_expiry_time": "absolute_expiry_time", "creation_time": "creation_time", "group_id": "group_id",
           "group_sequence": "group_sequence", "reply_to_group_id": "reply_to_group_id", "user_id": "user_id",
           "durable": "durable", "priority": "priority", "ttl": "ttl"}
_JMS = {"JMSMessageID": "message_id", "JMSCorrelationID": "correlation_id", "JMSType": "subject",
        "JMSTimestamp": "creation_time", "JMSReplyTo": "reply_to", "JMSDestination": "to", "JMSXGroupID": "group_id",
        "JMSXGroupSeq": "group_sequence", "JMSXUserID": "user_id", "JMSExpiration": "absolute_expiry_time"}


def _name(name: str) -> Expression:
    """Raises: SelectorError for a name of AMQP's that there is not."""
    if name == "JMSDeliveryMode":
        return lambda view: "PERSISTENT" if view.durable else "NON_PERSISTENT"
    if name in ("JMSPriority", "amqp.priority"):
        return lambda view: 4 if view.priority is None else view.priority
    field = _JMS.get(name)
    if name.startswith("amqp."):
        field = _FIELDS.get(name[5:])
        if field is None:
            raise SelectorError(f"there is no {name}")
    if field is None:
        return lambda view: _plain(view.headers.get(name))
    attribute = field
    return lambda view: _plain(getattr(view, attribute))


def _plain(value: Any) -> Any:
    """A value that selectors compute with: text, a number, a truth value; other things as text, or unknown."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, (list, dict)) else str(value)


# Operators.


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _not(inner: Expression) -> Expression:
    def negated(view: View) -> Any:
        value = inner(view)
        return None if not isinstance(value, bool) else not value
    return negated


def _and(parts: list[Expression]) -> Expression:
    def both(view: View) -> Any:
        result: Any = True
        for part in parts:
            value = part(view)
            if value is False:
                return False
            if value is not True:
                result = None
        return result
    return both


def _or(parts: list[Expression]) -> Expression:
    def either(view: View) -> Any:
        result: Any = False
        for part in parts:
            value = part(view)
            if value is True:
                return True
            if value is not False:
                result = None
        return result
    return either


def compare(operator: str, one: Any, other: Any) -> Any:
    """Two values compared: numbers in any way, texts and truth values only for being equal. Values of different kinds
    are not equal, and neither is less."""
    if one is None or other is None:
        return None
    if not (_is_number(one) and _is_number(other)):
        alike = isinstance(one, bool) == isinstance(other, bool) and isinstance(one, str) == isinstance(other, str)
        if not alike or _is_number(one) or _is_number(other):
            return False
        return one == other if operator == "=" else one != other if operator == "<>" else False
    if operator == "=":
        return bool(one == other)
    if operator == "<>":
        return bool(one != other)
    if operator == "<":
        return bool(one < other)
    if operator == "<=":
        return bool(one <= other)
    return bool(one > other) if operator == ">" else bool(one >= other)


def _comparison(operator: str, left: Expression, right: Expression) -> Expression:
    return lambda view: compare(operator, left(view), right(view))


def compute(operator: str, one: Any, other: Any) -> Any:
    """Arithmetic as in Java: whole numbers stay whole. What cannot be computed, or is beyond 64 bits, is unknown."""
    if not _is_number(one) or not _is_number(other):
        return None
    value = _computed(operator, one, other)
    return None if isinstance(value, int) and not -2**63 <= value < 2**64 else value


def _computed(operator: str, one: Any, other: Any) -> Any:
    try:
        if operator == "+":
            return one + other
        if operator == "-":
            return one - other
        if operator == "*":
            return one * other
        if isinstance(one, int) and isinstance(other, int):
            quotient = abs(one) // abs(other)
            return quotient if (one < 0) == (other < 0) else -quotient
        return one / other
    except (ZeroDivisionError, OverflowError):
        return None


def _arithmetic(first: Expression, rest: list[tuple[str, Expression]]) -> Expression:
    def computed(view: View) -> Any:
        value = first(view)
        for operator, operand in rest:
            value = compute(operator, value, operand(view))
        return value
    return computed


def _negative(inner: Expression) -> Expression:
    return lambda view: compute("-", 0, inner(view))


def _between(value: Expression, low: Expression, high: Expression) -> Expression:
    return _and([_comparison(">=", value, low), _comparison("<=", value, high)])


def _in(value: Expression, choices: list[Any]) -> Expression:
    truths = frozenset(choice for choice in choices if isinstance(choice, bool))
    others = frozenset(choice for choice in choices if not isinstance(choice, bool))

    def found(view: View) -> Any:
        one = value(view)
        if one is None:
            return None
        return one in (truths if isinstance(one, bool) else others)
    return found


def _is_null(value: Expression) -> Expression:
    return lambda view: value(view) is None


def _like(value: Expression, parts: list[list[str]]) -> Expression:
    def alike(view: View) -> Any:
        text = value(view)
        if text is None:
            return None
        return isinstance(text, str) and like(text, parts)
    return alike


def pattern(text: str, escape: str) -> list[list[str]]:
    """The parts of a LIKE pattern between its `%`: lists of characters, "" for any one. Raises: SelectorError."""
    parts: list[list[str]] = [[]]
    at = 0
    while at < len(text):
        character = text[at]
        if escape and character == escape:
            at += 1
            if at == len(text) or text[at] not in ("%", "_", escape):
                raise SelectorError("an escape in a LIKE pattern must be followed by %, _ or itself")
            parts[-1].append(text[at])
        elif character == "%":
            parts.append([])
        else:
            parts[-1].append("" if character == "_" else character)
        at += 1
    return parts


def like(text: str, parts: list[list[str]]) -> bool:
    """Whether a text is like a pattern. Takes the first place for each part, so it never goes back far."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return len(text) == len(first) and _fits(text, 0, first)
    end = len(text) - len(last)
    if not _fits(text, 0, first) or end < len(first) or not _fits(text, end, last):
        return False
    at = len(first)
    for part in parts[1:-1]:
        while at + len(part) <= end and not _fits(text, at, part):
            at += 1
        at += len(part)
        if at > end:
            return False
    return True


def _fits(text: str, at: int, part: list[str]) -> bool:
    if at + len(part) > len(text):
        return False
    return all(not wanted or text[at + index] == wanted for index, wanted in enumerate(part))


# The language.

_TOKEN = re.compile(r"""\s*(?:
    (?P<float>(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?[fFdD]?|\d+[fFdD])|
    (?P<hex>0[xX][0-9a-fA-F]+)[lL]?|(?P<integer>\d+)[lL]?|
    '(?P<text>(?:[^']|'')*)'|"(?P<quoted>(?:[^"]|"")*)"|
    (?P<word>[^\W\d][\w.$]*)|(?P<operator><>|<=|>=|!=|[=<>+\-*/(),])
    )""", re.VERBOSE)

_WORDS = frozenset(["NULL", "TRUE", "FALSE", "NOT", "AND", "OR", "BETWEEN", "LIKE", "IN", "IS", "ESCAPE"])


class _Parser:
    """By recursive descent: or, and, not, comparison, sum, product, sign, primary. All raise SelectorError."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        self.depth = 0
        position = 0
        text = text.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None or found.lastgroup is None:
                raise SelectorError(f"{text[position:position + 20].strip()!r} at character {position} makes no sense")
            kind, value = found.lastgroup, found.group(found.lastgroup)
            if kind == "word" and value.upper() in _WORDS:
                kind, value = "operator", value.upper()
            self.tokens.append((kind, value))
            position = found.end()

    def whole(self) -> Expression:
        expression = self.either()
        if self.at < len(self.tokens):
            raise SelectorError(f"{self.tokens[self.at][1]!r} is not expected there")
        return expression

    def accept(self, *operators: str) -> str:
        """The next token when it is one of these operators, or ""."""
        if self.at < len(self.tokens):
            kind, value = self.tokens[self.at]
            if kind == "operator" and value in operators:
                self.at += 1
                return value
        return ""

    def expect(self, operator: str) -> None:
        if not self.accept(operator):
            found = self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"
            raise SelectorError(f"{operator!r} is expected, not {found!r}")

    def either(self) -> Expression:
        parts = [self.both()]
        while self.accept("OR"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else _or(parts)

    def both(self) -> Expression:
        parts = [self.negation()]
        while self.accept("AND"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else _and(parts)

    def negation(self) -> Expression:
        negated = False
        while self.accept("NOT"):
            negated = not negated
        expression = self.comparison()
        return _not(expression) if negated else expression

    def comparison(self) -> Expression:
        left = self.sum()
        operator = self.accept("=", "<>", "!=", "<", "<=", ">", ">=")
        if operator:
            return _comparison("<>" if operator == "!=" else operator, left, self.sum())
        if self.accept("IS"):
            negated = self.accept("NOT")
            self.expect("NULL")
            return _not(_is_null(left)) if negated else _is_null(left)
        negated = self.accept("NOT")
        expression = self.membership(left)
        if expression is None:
            if negated:
                raise SelectorError("BETWEEN, LIKE or IN is expected behind NOT")
            return left
        return _not(expression) if negated else expression

    def membership(self, left: Expression) -> Expression | None:
        """BETWEEN, IN or LIKE, if that is next."""
        if self.accept("BETWEEN"):
            low = self.sum()
            self.expect("AND")
            return _between(left, low, self.sum())
        if self.accept("IN"):
            self.expect("(")
            choices = [self.literal()]
            while self.accept(","):
                choices.append(self.literal())
            self.expect(")")
            return _in(left, choices)
        if self.accept("LIKE"):
            text = self.text()
            escape = self.text() if self.accept("ESCAPE") else ""
            if len(escape) > 1:
                raise SelectorError("an escape is one character")
            return _like(left, pattern(text, escape))
        return None

    def sum(self) -> Expression:
        first = self.product()
        rest: list[tuple[str, Expression]] = []
        while operator := self.accept("+", "-"):
            rest.append((operator, self.product()))
        return _arithmetic(first, rest) if rest else first

    def product(self) -> Expression:
        first = self.sign()
        rest: list[tuple[str, Expression]] = []
        while operator := self.accept("*", "/"):
            rest.append((operator, self.sign()))
        return _arithmetic(first, rest) if rest else first

    def sign(self) -> Expression:
        negative = False
        while True:
            operator = self.accept("+", "-")
            if not operator:
                break
            negative = negative != (operator == "-")
        primary = self.primary()
        return _negative(primary) if negative else primary

    def primary(self) -> Expression:
        if self.accept("("):
            self.depth += 1
            if self.depth > DEEPEST:
                raise SelectorError(f"parentheses are nested more than {DEEPEST} levels deep")
            expression = self.either()
            self.expect(")")
            self.depth -= 1
            return expression
        if self.at < len(self.tokens):
            kind, value = self.tokens[self.at]
            if kind == "word":
                self.at += 1
                return _name(value)
            if kind == "quoted":
                self.at += 1
                return _name(value.replace('""', '"'))
        constant = self.literal()
        return lambda view: constant

    def text(self) -> str:
        value = self.literal()
        if not isinstance(value, str):
            raise SelectorError("a text in quotes is expected")
        return value

    def literal(self) -> Any:
        negative = bool(self.accept("-"))
        kind, value = self.tokens[self.at] if self.at < len(self.tokens) else ("", "the end")
        self.at += 1
        if kind in ("integer", "hex", "float"):
            number = _number(kind, value)
            return -number if negative else number
        if negative:
            raise SelectorError(f"a number is expected, not {value!r}")
        if kind == "text":
            return value.replace("''", "'")
        if kind == "operator" and value in ("TRUE", "FALSE"):
            return value == "TRUE"
        raise SelectorError(f"a value is expected, not {value!r}")


def _number(kind: str, value: str) -> int | float:
    """A number as Java writes it. Raises: ValueError."""
    if kind == "float":
        return float(value.rstrip("fFdD"))
    if kind == "hex":
        return int(value, 16)
    octal = value[0] == "0" and set(value) <= set("01234567")
    return int(value, 8 if octal else 10)
