"""Files of access rules in the grammars of Qpid's two brokers.

    # qpidd: all in lower case, one rule a line; a routing key is a pattern of topic exchanges
    group staff ted@QPID martin@QPID \\
                kim@QPID
    quota connections 10 staff
    acl allow staff publish exchange name=orders routingkey=order.#
    acl deny all all

    # Broker-J: case does not matter; values in quotes; numbers before the rules; a default at will
    CONFIG DEFAULTDEFER=true
    10 ACL ALLOW-LOG bob PUBLISH EXCHANGE name="orders" routing_key="order.*"
    20 ACL DENY ALL ACCESS VIRTUALHOST from_network="10.0.0.0/8"

A file whose keywords are all in lower case is read as qpidd's, any other as Broker-J's: the grammars are nearly one,
but some rules mean something else to each (docs/authorisation.md). GROUP lines may stand in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from broker.security.acl_words import (
    ADDRESSES,
    FLAG,
    HIGH,
    HOSTNAME,
    LIMIT,
    LOW,
    MOOT_LIMIT,
    NAMES,
    NETWORK,
    PERMISSIONS,
    PROPERTIES,
    SAME,
    TEXT,
    UNKNOWABLE,
    canonical,
    check_pair,
)
from broker.security.files import read_text
from broker.security.guard import Judge
from broker.security.identity import Identity
from broker.security.networks import from_addresses, from_hostnames, from_networks
from broker.security.rules import (
    ALL,
    ALLOW,
    DEFER,
    DENY,
    NAMELESS,
    Bounds,
    Condition,
    OneOf,
    Pattern,
    Property,
    Question,
    Rule,
    RuleSet,
    Subject,
    simple_pattern,
)

QPIDD = "qpidd"
BROKER_J = "Broker-J"

_DEFAULTS = {"defaultallow": ALLOW, "defaultdeny": DENY, "defaultdefer": DEFER}
_STEP = 10
"""Between the numbers of rules of Broker-J's that have none."""


class AclError(ValueError):
    """A file of access rules cannot be used; the text says which line and why."""


@dataclass
class Quota:
    """How much of something somebody may have. Whoever enforces limits finds them in `AclFile.quotas`.

    kind: "connections" or "queues" (at the same time), "connection rate" (in so many seconds). who: a user, a group or
    ALL. Of several for the same user the last one holds; what names the user comes before what is for ALL.
    """

    kind: str
    number: int
    who: str
    file: str
    line: int
    seconds: int = 0
    port: str = ""  # the name or number of a listener, "" for any


@dataclass
class AclFile:
    """What a file says."""

    name: str
    dialect: str = BROKER_J
    default: int | None = None  # None: it does not say
    rules: list[Rule] = field(default_factory=list)
    groups: dict[str, set[str]] = field(default_factory=dict)  # members by group, nested ones taken apart
    quotas: list[Quota] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is worth a warning

    def rule_set(self, fallback: int = DENY) -> RuleSet:
        """fallback: what holds at the end of a file that does not say."""
        return RuleSet(self.name, self.rules, fallback if self.default is None else self.default)

    def groups_of(self) -> dict[str, frozenset[str]]:
        """The groups of each user."""
        found: dict[str, set[str]] = {}
        for group, members in self.groups.items():
            for member in members:
                found.setdefault(member, set()).add(group)
        return {user: frozenset(groups) for user, groups in found.items()}


class AclJudge(Judge):
    """Decides by a file for the whole broker, and before it by one for a virtual host, if that has one."""

    def __init__(self, broker: AclFile | None, hosts: dict[str, AclFile]) -> None:
        after = [broker.rule_set()] if broker is not None else []
        self._courts = {host: [each.rule_set(DEFER if after else DENY), *after] for host, each in hosts.items()}
        self._elsewhere = after

    def court(self, identity: Identity, host: str) -> list[RuleSet]:
        return self._courts.get(host, self._elsewhere)


def load(path: str) -> AclFile:
    """Raises: AclError, and ValueError for what is no text."""
    return parse(read_text(path), path)


def parse(text: str, name: str = "acl") -> AclFile:
    """name: what errors call it. Raises: AclError."""
    found = AclFile(name)
    reader = _Reader(found)
    lines = text.split("\n")
    found.dialect = _dialect(lines)
    at = 0
    while at < len(lines):
        number = at + 1
        try:
            words = reader.words(lines[at])
            while words and words[-1] == _CONTINUES:
                at += 1
                more = reader.words(lines[at]) if at < len(lines) else []
                if not more or more == [_CONTINUES]:
                    raise ValueError("'\\' at the end, and nothing on the next line")
                words[-1:] = more
            if words:
                reader.line(words, number, lines[number - 1].strip())
        except ValueError as error:
            raise AclError(f"{name}:{number}: {error}") from None
        at += 1
    reader.finish()
    return found


_CONTINUES = "\\\n"
_EQUALS = "=\n"
_OPEN, _CLOSE = "[\n", "]\n"
"""Tokens that are no words: nobody can write a word with a line's end in it."""

_KEYWORDS = ("acl", "group", "quota", "config", "clt")
_BROKER_J_TOKEN = re.compile(r"""\s+|(?P<comment>\#.*)|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|
                                 (?P<mark>[=\[\]\\])|(?P<word>[^\s\#"'=\[\]\\]+)|(?P<wrong>.)""", re.VERBOSE)


def _dialect(lines: list[str]) -> str:
    """Whose grammar it is."""
    for line in lines:
        words = line.split(None, 3)
        numbered = bool(words) and words[0].isdecimal()
        keywords = words[1:3] if numbered else words[:2]
        if not keywords or canonical(keywords[0]) not in _KEYWORDS:
            continue
        if numbered or canonical(keywords[0]) in ("config", "clt") or keywords[0] != keywords[0].lower():
            return BROKER_J
        if keywords[0] == "acl" and keywords[-1] != keywords[-1].lower():
            return BROKER_J
    return QPIDD


class _Reader:
    """Reads lines into a file's contents. Its methods raise ValueError, with a text to follow the line's number."""

    def __init__(self, file: AclFile) -> None:
        self.file = file
        self.numbered: dict[int, Rule] = {}  # rules by Broker-J's numbers

    def words(self, line: str) -> list[str]:
        return _qpidd_words(line) if self.file.dialect == QPIDD else _broker_j_words(line)

    def line(self, words: list[str], number: int, text: str) -> None:
        rank = -1
        if words[0].isdecimal() and self.file.dialect == BROKER_J:
            rank = int(words.pop(0))
            if rank in self.numbered:
                raise ValueError(f"there is a rule {rank} already")
            if canonical(words[0] if words else "") != "acl":
                raise ValueError("a number may stand before ACL only")
        keyword, rest = canonical(words[0]), words[1:]
        if keyword == "acl":
            if rank < 0:
                rank = max(self.numbered, default=0) + _STEP
            self.numbered[rank] = self.rule(rest, number, text)
        elif keyword == "group":
            self.group(rest)
        elif keyword == "quota":
            self.quota(rest, number)
        elif keyword == "config":
            self.config(rest)
        elif keyword == "clt":
            self.limits(rest, number)
        else:
            raise ValueError(f"{words[0]!r} begins no line; ACL, GROUP, QUOTA, CONFIG and CLT do")

    def finish(self) -> None:
        """When all lines are read: groups within groups, and rules in order."""
        groups = self.file.groups
        for group in groups:
            groups[group] = _members(group, groups)
        rules = [rule for _, rule in sorted(self.numbered.items(), key=lambda item: item[0])]
        for rule in rules:
            rule.is_group = rule.who in groups
            rule.conditions.sort(key=Condition.needs_key)  # what is decided without the key holds for all keys
        self.file.rules = _entering(rules) if self.file.dialect == QPIDD else _looking(rules, self.file.name)

    # Kinds of lines.

    def rule(self, words: list[str], number: int, text: str) -> Rule:
        if len(words) < 3:
            raise ValueError("a rule is written: acl allow|allow-log|deny|deny-log USER|GROUP|all ACTION [OBJECT "
                             "[PROPERTY=VALUE ...]]")
        permission = canonical(words[0])
        if permission not in PERMISSIONS:
            raise ValueError(f"{words[0]!r} is no permission; there are allow, allow-log, deny and deny-log")
        allow, log = PERMISSIONS[permission]
        who = ALL if words[1].lower() == ALL else words[1]
        if words[1] == "OWNER" and self.file.dialect == BROKER_J:
            raise ValueError("who made a queue or an exchange is not kept: there can be no rule for OWNER")
        action, object = canonical(words[2]), canonical(words[3]) if len(words) > 3 else ALL
        check_pair(action, object)
        rule = Rule(allow, who, action, object, file=self.file.name, line=number, text=text, log=log)
        for name, values in self.properties(words[4:]):
            self.condition(rule, name, values)
        return rule

    def group(self, words: list[str]) -> None:
        if not words:
            raise ValueError("a group is written: group NAME USER|GROUP ...")
        if words[0].lower() == ALL:
            raise ValueError("no group can be called all")
        if words[0] in self.file.groups:
            raise ValueError(f"there is a group {words[0]!r} already")
        self.file.groups[words[0]] = set(words[1:])

    def quota(self, words: list[str], number: int) -> None:
        if len(words) < 3 or words[0] not in ("connections", "queues") or not _is_number(words[1]):
            raise ValueError("a quota is written: quota connections|queues NUMBER USER|GROUP|all ...")
        for who in words[2:]:
            self.file.quotas.append(Quota(words[0], int(words[1]), ALL if who.lower() == ALL else who, self.file.name,
                                          number))

    def config(self, words: list[str]) -> None:
        for name, values in self.properties(words):
            default = _DEFAULTS.get(name)
            if default is None:
                raise ValueError(f"there is no such setting as {name!r}; there are DEFAULTALLOW, DEFAULTDENY and "
                                 "DEFAULTDEFER")
            if _flag(values[0]):
                self.file.default = default

    def limits(self, words: list[str], number: int) -> None:
        """Broker-J's limits of connections: CLT USER port=5672 connection_limit=10 connection_frequency_limit=60/1m."""
        if len(words) < 2:
            raise ValueError("a limit is written: CLT USER|GROUP|ALL [PORT=...] BLOCK | [CONNECTION_LIMIT=...] "
                             "[CONNECTION_FREQUENCY_LIMIT=...]")
        who = ALL if words[0].lower() == ALL else words[0]
        block = [word for word in words[1:] if canonical(word) == "block"]
        port = ""
        made = [Quota("connections", 0, who, self.file.name, number)] if block else []
        for name, values in self.properties([word for word in words[1:] if canonical(word) != "block"]):
            if name == "port":
                port = "" if values[0].lower() == ALL else values[0]
            elif name in ("connectionlimit", "connectionfrequencylimit"):
                made.append(self.limit(name, values[0], who, number))
            else:
                raise ValueError(f"{name!r} is no limit; there are connection_limit and connection_frequency_limit")
        for each in made:
            each.port = port
        self.file.quotas += made

    def limit(self, name: str, value: str, who: str, number: int) -> Quota:
        if name == "connectionlimit":
            return Quota("connections", _number(name, value), who, self.file.name, number)
        count, _, period = value.partition("/")
        seconds = {"": 60, "s": 1, "m": 60, "h": 3600, "d": 86400}.get(period.lstrip("0123456789").lower())
        amount = period[:len(period) - len(period.lstrip("0123456789"))]
        if seconds is None:
            raise ValueError(f"{value!r} is no rate; write it as 60 (a minute) or 60/1h")
        return Quota("connection rate", _number(name, count), who, self.file.name, number,
                     seconds * int(amount or 1))

    # What follows the object.

    def properties(self, words: list[str]) -> list[tuple[str, list[str]]]:
        """Canonical names, and values: one, but for lists in brackets."""
        if self.file.dialect == QPIDD:
            words = [part for word in words for part in _apart(word)]
        found = []
        at = 0
        while at < len(words):
            if at + 2 >= len(words) or words[at + 1] != _EQUALS or words[at] in (_EQUALS, _OPEN, _CLOSE):
                raise ValueError(f"{words[at].strip()!r}: properties are written NAME=VALUE")
            name, value = words[at], words[at + 2]
            at += 3
            values = [value]
            if value == _OPEN:
                if _CLOSE not in words[at:]:
                    raise ValueError(f"the list of {name} has no end")
                end = words.index(_CLOSE, at)
                values = [part for word in words[at:end] for part in word.split(",") if part]
                at = end + 1
            if not values or any(each in (_EQUALS, _OPEN, _CLOSE) for each in values):
                raise ValueError(f"{name} has no value")
            found.append((canonical(name), values))
        return found

    def condition(self, rule: Rule, name: str, values: list[str]) -> None:
        """Add what a property asks for."""
        kind = PROPERTIES.get(name)
        if kind is None:
            known = ", ".join(each for each, its in PROPERTIES.items() if its != MOOT_LIMIT)
            raise ValueError(f"what {name} is, is not kept: there can be no rule about it" if name in UNKNOWABLE else
                             f"{name!r} is no property; there are {known}")
        name = SAME.get(name, name)
        if kind in (TEXT, NAMES):
            if values == [""] and name == "name" and rule.object == "exchange":
                values = [NAMELESS]
            if self.file.dialect == QPIDD or values != [""]:  # to Broker-J an empty one is any
                rule.conditions.append(Property(name, self.pattern(name, values)))
        elif kind == FLAG:
            if values != ["*"]:
                rule.conditions.append(Property(name, simple_pattern(str(_flag(values[0])).lower(), False)))
        elif kind in (LOW, HIGH):
            limit = _number(name, values[0])
            what = name.removesuffix("lowerlimit").removesuffix("upperlimit")
            rule.conditions.append(Bounds(what, limit) if kind == LOW else Bounds(what, -1, limit))
        elif kind == MOOT_LIMIT:
            _number(name, values[0])
            if not rule.allow:
                rule.conditions.append(_Never())
            self.file.notes.append(f"{rule.where()}: queues here have no {name}: "
                                   f"{'it makes no difference' if rule.allow else 'the rule never fits'}")
        elif kind == LIMIT:
            self.file.quotas.append(self.limit(name, values[0], rule.who, rule.line))
        else:
            read = {NETWORK: from_networks, HOSTNAME: from_hostnames, ADDRESSES: from_addresses}[kind]
            rule.conditions.append(read(",".join(values)))

    def pattern(self, name: str, values: list[str]) -> Pattern:
        topic = name == "routingkey" and self.file.dialect == QPIDD
        if name in ("name", "exchangename", "alternate"):
            values = [NAMELESS if value == "<<default>>" else value for value in values]
        if name == "attributes":
            values = [part.strip() for value in values for part in value.split(",")]
        made = [simple_pattern(value, topic) for value in values]
        return made[0] if len(made) == 1 else OneOf(made)


class _Never(Condition):
    def holds(self, subject: Subject, question: Question) -> bool:
        return False


def _entering(rules: list[Rule]) -> list[Rule]:
    """qpidd has no rules about virtual hosts: who is allowed anything may enter. (Where such rules are there after all,
    they decide.)"""
    if any(rule.object == "virtualhost" for rule in rules):
        return rules
    found = []
    for rule in rules:
        if rule.allow:
            found.append(Rule(True, rule.who, "access", "virtualhost", is_group=rule.is_group, file=rule.file,
                              line=rule.line, text=rule.text))
        found.append(rule)
    return found


def _looking(rules: list[Rule], file: str) -> list[Rule]:
    """Broker-J does not ask who looks whether a queue or an exchange is there, unless there are rules about that."""
    asked = [rule.object for rule in rules if rule.action == "access"]
    return [Rule(True, ALL, "access", object, file=file, text=f"looking at any {object} is allowed to who may enter")
            for object in ("queue", "exchange") if object not in asked] + rules


def _qpidd_words(line: str) -> list[str]:
    if line.lstrip().startswith("#"):
        return []
    words = line.split()
    if words and words[-1].endswith("\\"):
        last = words.pop()[:-1]
        words += [last, _CONTINUES] if last else [_CONTINUES]
    return words


def _broker_j_words(line: str) -> list[str]:
    words: list[str] = []
    marks = {"=": _EQUALS, "[": _OPEN, "]": _CLOSE, "\\": _CONTINUES}
    for found in _BROKER_J_TOKEN.finditer(line):
        if found["quoted"] is not None:
            words.append(re.sub(r"\\(.)", r"\1", found["quoted"][1:-1]))
        elif found["word"] is not None:
            words.append(found["word"])
        elif found["mark"] is not None:
            words.append(marks[found["mark"]])
        elif found["comment"] is not None and found.start() and not line[found.start() - 1].isspace():
            raise ValueError("'#' begins a comment: a value with one in it must be in quotes")
        elif found["wrong"] is not None:
            raise ValueError("a quote that is not closed")
    if _CONTINUES in words[:-1]:
        raise ValueError("'\\' may stand at the end of a line only")
    return words


def _apart(word: str) -> list[str]:
    name, equals, value = word.partition("=")
    if not equals:
        return [word]
    if value[:1] in ("'", '"'):
        raise ValueError(f"{word!r}: there are no quotes in files of qpidd's grammar")
    return [name, _EQUALS, value]


def _members(group: str, groups: dict[str, set[str]]) -> set[str]:
    """The users of a group, and of the groups in it."""
    found: set[str] = set()
    seen = {group}
    waiting = [group]
    while waiting:
        for member in groups[waiting.pop()]:
            if member in groups and member not in seen:
                seen.add(member)
                waiting.append(member)
            elif member not in groups:
                found.add(member)
    return found


def _flag(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{value!r} is neither true nor false")
    return value.lower() == "true"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _number(name: str, text: str) -> int:
    if not _is_number(text):
        raise ValueError(f"{name} is {text!r}, which is no number")
    return int(text)
