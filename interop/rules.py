"""Rules of a bridge: what is to be different in the messages that it moves.

Each is a table:

    { on = "key", match = "eu.{rest}", replace = "europe.{rest}" }      another routing key
    { on = "header:colour", set = "blue" }                              a header: set it,
    { on = "header:colour", add = "blue" }                              set it where it is missing,
    { on = "header:x-secret", drop = true }                             take it away,
    { on = "header:colour", rename = "color" }                          or call it something else
    { on = "subject", map = { old = "new" } }                           one text for another
    { on = "message", drop = true, where = "priority < 2" }             leave the message out

`on` is `key`, `header:NAME` or a field (FIELDS). `where` is a JMS selector: the rule is for messages that it fits. What
no rule changes goes on in the bytes that it came in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from broker.message import CONVERTERS, Message, address_of
from broker.selector import Selector, SelectorError
from broker.view import View
from interop.ends import ANY, Delivery
from interop.local import readdressed
from interop.mover import Skipped
from interop.patterns import Pattern, PatternError, Template

FIELDS = {"to": "to", "subject": "subject", "reply-to": "reply_to", "message-id": "message_id",
          "correlation-id": "correlation_id", "content-type": "content_type", "content-encoding": "content_encoding",
          "group-id": "group_id", "app-id": "app_id", "user-id": "user_id", "cluster-id": "cluster_id"}
"""Fields that rules can change, and what the view calls them."""

MOST = 100
"""Rules of a bridge."""

_ACTIONS = ("set", "add", "drop", "rename", "match", "map")
_KEYS = ("on", "where", "replace", *_ACTIONS)


class RuleError(ValueError):
    """A rule makes no sense; the text says why."""


class Rule:
    """One rule, read."""

    def __init__(self, given: dict[str, Any]) -> None:
        """Raises: RuleError."""
        for name in given:
            if name not in _KEYS:
                raise RuleError(f"'{name}' is not known; it can be {', '.join(_KEYS)}")
        self.on = _text(given, "on")
        self.header = self.on[7:] if self.on.startswith("header:") else ""
        self.field = FIELDS.get(self.on, "")
        actions = [name for name in _ACTIONS if name in given]
        if len(actions) != 1:
            raise RuleError(f"it must have one of {', '.join(_ACTIONS)}")
        self.action = actions[0]
        if not self.header and not self.field and self.on not in ("key", "message"):
            raise RuleError(f"on is '{self.on}'; it can be key, message, header:NAME, {', '.join(FIELDS)}")
        self._check()
        self.value = given[self.action]
        self.pattern: Pattern | None = None
        self.template: Template | None = None
        self.where: Selector | None = None
        try:
            if self.action == "match":
                self.pattern = Pattern(_text(given, "match"))
                self.template = Template(_text(given, "replace"), self.pattern)
            if "where" in given:
                self.where = Selector(_text(given, "where"))
        except (PatternError, SelectorError) as error:
            raise RuleError(str(error)) from None
        self._check_value()

    def _check(self) -> None:
        """Whether the action is one for what it is on."""
        if self.on == "message" and self.action != "drop":
            raise RuleError("a message can only be dropped")
        if self.on == "key" and self.action not in ("set", "match", "map"):
            raise RuleError("a routing key can be set, matched or mapped")
        if self.action == "rename" and not self.header:
            raise RuleError("only a header can be renamed")

    def _check_value(self) -> None:
        value = self.value
        if self.action == "drop" and value is not True:
            raise RuleError("drop can only be true")
        if self.action == "rename" and not (isinstance(value, str) and value):
            raise RuleError("rename must be a name")
        if self.action == "map" and not (isinstance(value, dict)
                                         and all(isinstance(each, str) for each in value.values())):
            raise RuleError("map must be a table of texts")
        if self.action in ("set", "add") and not (isinstance(value, str)
                                                  or (self.header and isinstance(value, bool | int | float))):
            raise RuleError(f"{self.action} must be a text" + (", a number, true or false" if self.header else ""))

    def changed(self, text: str) -> str:
        """What becomes of a text by `set`, `match` or `map`."""
        if self.action == "set":
            return str(self.value)
        if self.action == "map":
            return str(self.value.get(text, text))
        assert self.pattern is not None and self.template is not None
        found = self.pattern.match(text)
        return text if found is None else self.template.fill(found)

    def apply(self, view: View) -> bool:
        """Do to a view what the rule says. Gives whether that made a difference."""
        if self.header:
            return self._apply_to_headers(view.headers)
        before = getattr(view, self.field)
        after = before
        if self.action == "drop":
            after = None
        elif self.action == "add":
            after = self.value if before is None else before
        elif self.action == "set":
            after = self.value
        elif isinstance(before, bytes) and self.field == "user_id":
            after = self.changed(before.decode("utf-8", "replace"))
        elif isinstance(before, str):
            after = self.changed(before)
        if self.field == "user_id" and isinstance(after, str):
            after = after.encode()
        setattr(view, self.field, after)
        return bool(after != before)

    def _apply_to_headers(self, headers: dict[str, Any]) -> bool:
        name = self.header
        if self.action in ("set", "add"):
            if self.action == "add" and name in headers or headers.get(name) == self.value:
                return False
            headers[name] = self.value
            return True
        if name not in headers:
            return False
        value = headers[name]
        if self.action == "drop":
            del headers[name]
        elif self.action == "rename":
            headers[self.value] = headers.pop(name)
        else:
            if not isinstance(value, str):
                return False
            headers[name] = self.changed(value)
            return bool(headers[name] != value)
        return True


class Rules:
    """The change that a bridge's rules make, in their order."""

    def __init__(self, rules: Iterable[Rule], dialect: int) -> None:
        """dialect: what the target takes; what is changed is written in that at once."""
        self.rules = list(rules)
        self.dialect = dialect

    def __call__(self, message: Message, delivery: Delivery) -> Message:
        view: View | None = None
        key = message.address.routing_key
        different = False
        for rule in self.rules:
            if rule.where is not None and not rule.where.matches(message):
                continue
            if rule.on == "message":
                raise Skipped("unwanted")
            if rule.on == "key":
                key = rule.changed(key)
                continue
            if view is None:
                view = CONVERTERS[message.dialect].model(message)
            different = rule.apply(view) or different
        if view is not None and different:
            dialect = message.dialect if self.dialect == ANY else self.dialect
            message = CONVERTERS[dialect].encode(view, message)
        if key != message.address.routing_key:
            message = readdressed(message, address_of(message.address.exchange, key), message.arrival)
        return message


def read(given: Iterable[dict[str, Any]]) -> list[Rule]:
    """Raises: RuleError, with all that is wrong."""
    rules, problems = [], []
    for number, each in enumerate(given):
        try:
            rules.append(Rule(each))
        except RuleError as error:
            problems.append(f"rules[{number}]: {error}")
    if len(rules) > MOST:
        problems.append(f"there can be at most {MOST} rules")
    if problems:
        raise RuleError("; ".join(problems))
    return rules


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise RuleError(f"{name} must be a text")
    return value
