"""The engine of access rules: a door asks a question, the first rule that fits it answers.

    question   "create queue, with name=orders, durable=true, ..."
    rule       "allow bob create queue name=ord*", and the line of the file that says so
    rule set   rules in order, and what holds when none fits
    court      rule sets in order, asked until one of them has an answer

Files of access rules (qpid_acl.py) and RabbitMQ's permissions (permissions.py) both become rule sets; guard.py asks.
Words (actions, objects, properties) are in lower case and without underscores.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mypy_extensions import mypyc_attr

from broker.security.addresses import plain_address

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

ALL: Final = "all"
"""Any user, action or object, in a rule."""

NAMELESS: Final = "amq.default"
"""What rules call the nameless exchange."""

DENY: Final = 0
ALLOW: Final = 1
DEFER: Final = 2
"""What a rule set says when no rule of it fits. DEFER leaves it to the next one of its court."""


class Subject:
    """Who asks."""

    __slots__ = ("user", "names", "groups", "address", "host", "client", "variables")

    def __init__(self, user: str, names: frozenset[str], groups: frozenset[str], address: str = "", host: str = "",
                 client: str = "", variables: dict[str, str] | None = None) -> None:
        self.user = user
        self.names = names  # all spellings: with and without a realm
        self.groups = groups
        self.address = address  # the IP address as text, "" when it is not known
        self.host = host  # its name, confirmed by the address that the name has; "" when it is not known
        self.client = client  # the client's id
        self.variables = variables or {}  # what `${...}` and `{...}` stand for in rules


class Question:
    """What somebody wants to do.

    values: by property. `explicit`: only rules that name both action and object are about this. `free`: it may be done
    when no rule is about it. `keyless`: the routing key will be said later; so this is whether there may be one that is
    allowed. `others`: what else it is called; a rule that fits any of these fits.
    """

    __slots__ = ("action", "object", "values", "explicit", "free", "keyless", "others", "asks_key")

    def __init__(self, action: str, object: str, values: dict[str, Any], *, explicit: bool = False, free: bool = False,
                 keyless: bool = False, others: list[Question] | None = None) -> None:
        self.action = action
        self.object = object
        self.values = values
        self.explicit = explicit
        self.free = free
        self.keyless = keyless
        self.others = others or []
        self.asks_key = False  # the answer may be another one with another routing key

    def __str__(self) -> str:
        values = [f"{name}={_shown(value)}" for name, value in self.values.items()
                  if value not in ("", None, False, -1)]
        return " ".join((self.action, self.object, *values))


def written(value: Any) -> str:
    """A property's value as a rule has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: Any) -> str:
    """For the log, whatever a client has put into it."""
    text = written(value)
    return text if text.isprintable() and " " not in text else repr(text)


# What a property must be.

@mypyc_attr(allow_interpreted_subclasses=True)
class Pattern:
    """What a text must be. This one takes any."""

    def fits(self, text: str, subject: Subject) -> bool:
        return True


class Literal(Pattern):
    """Just this text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def fits(self, text: str, subject: Subject) -> bool:
        return text == self.text


class Prefix(Pattern):
    """Whatever begins so."""

    def __init__(self, text: str) -> None:
        self.text = text

    def fits(self, text: str, subject: Subject) -> bool:
        return text.startswith(self.text)


class Topic(Pattern):
    """A pattern of topic exchanges: `*` is one word, `#` any number."""

    def __init__(self, text: str) -> None:
        self.words = text.split(".")

    def fits(self, text: str, subject: Subject) -> bool:
        return topic_fits(self.words, text.split("."))


def topic_fits(pattern: list[str], words: list[str]) -> bool:
    """Takes at most the product of both lengths in steps, whatever the pattern."""
    reached = [True] + [False] * len(words)  # how many words the pattern so far can be
    for wanted in pattern:
        if wanted == "#":
            for at in range(1, len(words) + 1):
                reached[at] = reached[at] or reached[at - 1]
        else:
            for at in range(len(words), 0, -1):
                reached[at] = reached[at - 1] and (wanted == "*" or wanted == words[at - 1])
            reached[0] = False
    return reached[-1]


class OneOf(Pattern):
    """Any of several."""

    def __init__(self, patterns: list[Pattern]) -> None:
        self.patterns = patterns

    def fits(self, text: str, subject: Subject) -> bool:
        for pattern in self.patterns:
            if pattern.fits(text, subject):
                return True
        return False


_VARIABLE: Final = re.compile(r"\$\{(userdomain|user|domain)\}")


class Personal(Pattern):
    """A pattern with qpidd's variables `${user}`, `${domain}` and `${userdomain}` in it."""

    def __init__(self, text: str, topic: bool) -> None:
        self.text = text
        self.topic = topic

    def fits(self, text: str, subject: Subject) -> bool:
        own = _VARIABLE.sub(lambda found: subject.variables.get(found[1], "") or "\0", self.text)
        return simple_pattern(own, self.topic).fits(text, subject)


def simple_pattern(text: str, topic: bool) -> Pattern:
    """The pattern that is written so in a file of access rules. topic: of a routing key, as qpidd reads it."""
    if _VARIABLE.search(text):
        return Personal(text, topic)
    if text == "*" and not topic:
        return Pattern()
    if topic and ("*" in text or "#" in text):
        return Topic(text)
    return Prefix(text[:-1]) if text.endswith("*") else Literal(text)


# What a rule says of a question.

@mypyc_attr(allow_interpreted_subclasses=True)
class Condition:
    """What must be so for a rule to fit."""

    def needs_key(self) -> bool:
        """Whether it is about the routing key, which is not always known yet."""
        return False

    def holds(self, subject: Subject, question: Question) -> bool:
        """Whether it is so. Each kind of condition says it."""
        raise NotImplementedError


class Property(Condition):
    """A property of what it is done to fits a pattern or, when negated, is there and does not. One with several values
    fits when all of them do."""

    def __init__(self, name: str, pattern: Pattern, negated: bool = False) -> None:
        self.name = name
        self.pattern = pattern
        self.negated = negated

    def needs_key(self) -> bool:
        return self.name == "routingkey"

    def holds(self, subject: Subject, question: Question) -> bool:
        value = question.values.get(self.name)
        if value is None:
            return False
        if isinstance(value, frozenset):
            fits = bool(value) and all(self.pattern.fits(each, subject) for each in value)
        else:
            fits = self.pattern.fits(written(value), subject)
        return fits != self.negated


class Bounds(Condition):
    """A number is within bounds. What has no limit (a negative number) is more than any."""

    def __init__(self, name: str, low: int = -1, high: int = -1) -> None:
        self.name = name
        self.low = low
        self.high = high  # -1: none

    def holds(self, subject: Subject, question: Question) -> bool:
        value = question.values.get(self.name)
        if not isinstance(value, int):
            return False
        if value < 0:
            return self.high < 0
        return value >= self.low and (self.high < 0 or value <= self.high)


class From(Condition):
    """The client comes from one of these networks."""

    def __init__(self, networks: list[IPv4Network | IPv6Network]) -> None:
        self.networks: Any = networks

    def holds(self, subject: Subject, question: Question) -> bool:
        address: Any = plain_address(subject.address)
        if address is None:
            return False
        return any(address in network for network in self.networks)


class FromHost(Condition):
    """The client's host is called so, in lower case."""

    def __init__(self, patterns: list[Pattern]) -> None:
        self.patterns = patterns

    def holds(self, subject: Subject, question: Question) -> bool:
        host = subject.host.lower()
        return bool(host) and any(pattern.fits(host, subject) for pattern in self.patterns)


class Rule:
    """A line of a file of access rules, or a part of what a row of permissions means."""

    __slots__ = ("allow", "log", "who", "is_group", "action", "object", "conditions", "file", "line", "text", "blames")

    def __init__(self, allow: bool, who: str, action: str, object: str, conditions: list[Condition] | None = None, *,
                 is_group: bool = False, log: bool = False, file: str = "", line: int = 0, text: str = "",
                 blames: str = "") -> None:
        self.allow = allow
        self.log = log
        self.who = who  # a user, a group or ALL
        self.is_group = is_group  # and never a user of that name
        self.action = action
        self.object = object
        self.conditions = conditions or []
        self.file = file
        self.line = line
        self.text = text  # as it stands there
        self.blames = blames  # what a refusal is about, when it is not the question's own object

    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def asks_names(self) -> bool:
        """Whether the name of the client's host matters, which somebody has to look up."""
        return any(isinstance(condition, FromHost) for condition in self.conditions)

    def concerns(self, subject: Subject) -> bool:
        """Whether it is about somebody."""
        return self.who == ALL or self.who in subject.groups or not self.is_group and self.who in subject.names

    def fits(self, subject: Subject, question: Question) -> bool:
        if not self.concerns(subject):
            return False
        if self._covers(subject, question):
            return True
        for other in question.others:
            if self._covers(subject, other):
                return True
        return False

    def _covers(self, subject: Subject, question: Question) -> bool:
        if self.action != question.action and (self.action != ALL or question.explicit):
            return False
        if self.object != question.object and (self.object != ALL or question.explicit):
            return False
        for condition in self.conditions:
            if condition.needs_key():
                question.asks_key = True
                if question.keyless:
                    if not self.allow:
                        return False
                    continue
            if not condition.holds(subject, question):
                return False
        return True


class Decision:
    """What was decided, and by which rule; None: by what holds when no rule fits."""

    __slots__ = ("allowed", "rule", "by")

    def __init__(self, allowed: bool, rule: Rule | None, by: str) -> None:
        self.allowed = allowed
        self.rule = rule
        self.by = by  # which rule set

    def reason(self) -> str:
        """For the log, and for people who ask."""
        if self.rule is None:
            return f"{self.by}: no rule fits"
        return f"{self.rule.where()}: {self.rule.text}"


class RuleSet:
    """Rules in order."""

    __slots__ = ("name", "rules", "default")

    def __init__(self, name: str, rules: list[Rule], default: int = DENY) -> None:
        self.name = name  # for people: its file
        self.rules = rules
        self.default = default

    def decide(self, subject: Subject, question: Question) -> Decision | None:
        """None: somebody else has to."""
        for rule in self.rules:
            if rule.fits(subject, question):
                return Decision(rule.allow, rule, self.name)
        if self.default == DEFER or question.explicit:
            return None
        return Decision(self.default == ALLOW, None, self.name)


def judge(courts: list[list[RuleSet]], subject: Subject, question: Question) -> Decision:
    """What all courts together say: what one of them refuses is refused. Gives the decision that counts most.

    Something that only rules which name it are about is allowed if a rule of one of them allows it.
    """
    best: Decision | None = None
    for court in courts:
        decision = _heard(court, subject, question)
        if decision is None:
            if not question.explicit:
                return Decision(False, None, court[-1].name if court else "access rules")
        elif not decision.allowed:
            return decision
        elif best is None or best.rule is None:
            best = decision
    if best is not None:
        return best
    return Decision(question.free or not courts and not question.explicit, None, "access rules")


def _heard(court: list[RuleSet], subject: Subject, question: Question) -> Decision | None:
    for rule_set in court:
        decision = rule_set.decide(subject, question)
        if decision is not None:
            return decision
    return None
