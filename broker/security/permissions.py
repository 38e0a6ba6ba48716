"""RabbitMQ's permissions: for each user and virtual host, expressions of what it may configure, write and read.

They are kept in a file, which `dragoman permission` writes; words with blanks in them are quoted as in a shell:

    # who, virtual host, configure, write, read
    permission bob / '^bob-' '.*' '^(bob-|amq\\.topic$)'
    # who, virtual host, exchange, and which routing keys: write, read
    topic bob / amq.topic '^orders\\.{username}\\.' '.*'

A token's scopes can say the same (`PREFIX.read:VHOST/NAME/ROUTING-KEY`, with `*` for anything). All of it becomes rules
of the one engine; which operation needs what is in `_Rules.all`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote

from broker.security.expressions import Expression
from broker.security.files import Stamp, read_file, replace_file
from broker.security.guard import Judge
from broker.security.identity import Identity
from broker.security.rules import (
    ALL,
    DENY,
    Condition,
    Literal,
    OneOf,
    Pattern,
    Property,
    Question,
    Rule,
    RuleSet,
    Subject,
)

_MANAGERS = frozenset({"administrator", "monitoring", "policymaker", "management"})
_ONLY_MANAGED = ("query", "management", "broker", "connection", "session", "link", "bridge", "user", "group",
                 "virtualhostnode")
"""Objects that nobody gets at by permissions, but by tags."""


@dataclass(frozen=True)
class Row:
    """A line of the file, about a user in a virtual host. Each kind derives from this."""

    user: str
    host: str

    word: ClassVar[str]
    """How it begins."""

    kind: ClassVar[str]
    """What people call it."""

    def key(self) -> tuple[str, ...]:
        """What tells it from other lines."""
        return self.word, self.user, self.host

    def expressions(self) -> tuple[str, ...]:
        """Those of the line. Each kind has its own."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises ValueError for what is no regular expression."""
        for each in self.expressions():
            _expression(each)

    def everything(self) -> bool:
        return all(each == ".*" for each in self.expressions())

    def written(self) -> str:
        return shlex.join((*self.key(), *self.expressions()))


@dataclass(frozen=True)
class Permission(Row):
    """What a user may do in a virtual host; regular expressions."""

    configure: str
    write: str
    read: str
    line: int = 0

    word = "permission"
    kind = "permissions"

    def expressions(self) -> tuple[str, ...]:
        return self.configure, self.write, self.read


@dataclass(frozen=True)
class TopicPermission(Row):
    """With which routing keys it may use a topic exchange."""

    exchange: str
    write: str
    read: str
    line: int = 0

    word = "topic"
    kind = "topic permissions"

    def key(self) -> tuple[str, ...]:
        return *super().key(), self.exchange

    def expressions(self) -> tuple[str, ...]:
        return self.write, self.read

    def check(self) -> None:
        for each in self.expressions():
            _Filled(each)


class PermissionFile:
    """The file. `load` reads, `put` and `clear` change what was read, `save` writes it back with its comments."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.permissions: dict[tuple[str, str], Permission] = {}
        self.topics: dict[tuple[str, str, str], TopicPermission] = {}
        self._lines: list[tuple[tuple[str, ...], str]] = []  # a key (none for a comment) and the whole line
        self._stamp: Stamp | None = None

    def load(self) -> None:
        """Raises ValueError with file, line and what to do, and then changes nothing."""
        try:
            content, stamp = read_file(self.path)
        except OSError as error:
            raise ValueError(f"{self.path}: the permissions cannot be read: {error.strerror}") from None
        made = PermissionFile(self.path)
        for number, raw in enumerate(content.splitlines(), 1):
            try:
                made._read(raw, number)
            except ValueError as error:
                raise ValueError(f"{self.path}:{number}: {error}") from None
        self.permissions, self.topics = made.permissions, made.topics
        self._lines, self._stamp = made._lines, stamp

    def _read(self, raw: bytes, number: int) -> None:
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("not UTF-8 text: correct or remove the line") from None
        if not line.strip() or line.lstrip().startswith("#"):
            self._lines.append(((), line))
            return
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise ValueError(f"not to be read: {str(error).lower()}") from None
        row: Permission | TopicPermission
        if words[0] == Permission.word and len(words) == 6:
            row = Permission(words[1], words[2], words[3], words[4], words[5], number)
        elif words[0] == TopicPermission.word and len(words) == 6:
            row = TopicPermission(words[1], words[2], words[3], words[4], words[5], number)
        else:
            raise ValueError("lines are: permission USER VHOST CONFIGURE WRITE READ, or topic USER VHOST EXCHANGE "
                             "WRITE READ")
        if self.known(row) is not None:
            raise ValueError("is there twice: remove one of the lines")
        self.put(row)
        self._lines[-1] = (row.key(), line)  # as it was written

    def put(self, row: Permission | TopicPermission) -> None:
        """Raises ValueError for what is no regular expression, or not to be written."""
        row.check()
        line = (row.key(), row.written())
        if not row.user or not row.host or len(line[1].splitlines()) > 1:
            raise ValueError("users and virtual hosts have names, and nothing has the end of a line in it")
        if self.known(row) is None:
            self._lines.append(line)
        else:
            self._lines = [line if kept[0] == line[0] else kept for kept in self._lines]
        if isinstance(row, Permission):
            self.permissions[row.user, row.host] = row
        else:
            self.topics[row.user, row.host, row.exchange] = row

    def known(self, row: Permission | TopicPermission) -> Permission | TopicPermission | None:
        """What the file has in its place."""
        if isinstance(row, Permission):
            return self.permissions.get((row.user, row.host))
        return self.topics.get((row.user, row.host, row.exchange))

    def rows(self) -> list[Permission | TopicPermission]:
        return [*self.permissions.values(), *self.topics.values()]

    def clear(self, user: str, host: str) -> bool:
        """Take away a user's permissions in a virtual host, those for topics too. Whether there were any."""
        before = len(self._lines)
        self._lines = [each for each in self._lines if each[0][1:3] != (user, host)]
        self.permissions.pop((user, host), None)
        self.topics = {key: topic for key, topic in self.topics.items() if key[:2] != (user, host)}
        return len(self._lines) < before

    def clear_topic(self, user: str, host: str, exchange: str) -> bool:
        self._lines = [each for each in self._lines if each[0] != ("topic", user, host, exchange)]
        return self.topics.pop((user, host, exchange), None) is not None

    def clear_user(self, user: str) -> bool:
        """Take away all that a user has. Whether it had anything."""
        before = len(self._lines)
        self._lines = [each for each in self._lines if each[0][1:2] != (user,)]
        self.permissions = {key: each for key, each in self.permissions.items() if key[0] != user}
        self.topics = {key: each for key, each in self.topics.items() if key[0] != user}
        return len(self._lines) < before

    def save(self) -> None:
        """Raises ValueError when somebody else changed the file since it was read, and OSError."""
        self._stamp = replace_file(self.path, [line for _, line in self._lines], self._stamp)


class PermissionJudge(Judge):
    """Decides by a file of permissions, or by the scopes of a token, for those who have logged in with one."""

    def __init__(self, file: PermissionFile, realms: Iterable[str] = (), scope_prefix: str = "") -> None:
        """scope_prefix: how scopes begin that are about this broker, `PREFIX.`; "" to let none count."""
        self._file = file
        self._realms = tuple(realms)
        self._prefix = scope_prefix
        self._known: dict[tuple[str, str, frozenset[str]], RuleSet] = {}

    def court(self, identity: Identity, host: str) -> list[RuleSet]:
        scopes = [scope.removeprefix(self._prefix) for scope in identity.scopes if scope.startswith(self._prefix)]
        if self._prefix and identity.scopes:
            return [_scoped(identity.user, host, scopes, identity.tags)]
        user = identity.user
        name, _, realm = user.rpartition("@")
        if name and realm in self._realms and (user, host) not in self._file.permissions:
            user = name
        key = (user, host, identity.tags)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._rule_set(user, host, identity.tags)
        return [found]

    def _rule_set(self, user: str, host: str, tags: frozenset[str]) -> RuleSet:
        permission = self._file.permissions.get((user, host))
        if permission is None:
            return RuleSet(f"{self._file.path or 'permissions'} (nothing for user {user} in virtual host {host})", [])
        made = _Rules(self._file.path, permission.line, permission.written())
        for topic in self._file.topics.values():
            if (topic.user, topic.host) == (user, host):
                own = _Rules(self._file.path, topic.line, topic.written())
                name: list[Condition] = [Property("name", Literal(topic.exchange)),
                                         Property("type", Literal("topic"))]
                for action, pattern in (("publish", topic.write), ("bind", topic.read), ("unbind", topic.read)):
                    own.deny(action, "exchange", *name, Property("routingkey", _Filled(pattern), True),
                             blames="routingkey")
                made.topics += own.made
        return made.all(tags, _expression(permission.configure), _expression(permission.write),
                        _expression(permission.read))


_MOST_KNOWN = 10_000


def _expression(text: str) -> Expression:
    """Raises: ValueError."""
    return Expression(text or "^$")  # RabbitMQ's empty one fits nothing


class _Filled(Pattern):
    """An expression with `{username}`, `{vhost}` or `{client_id}` in it, which stand for just that text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.plain = _expression(text) if not _VARIABLE.search(text) else None
        _expression(_VARIABLE.sub("x", text))

    def fits(self, text: str, subject: Subject) -> bool:
        if self.plain is not None:
            return self.plain.fits(text, subject)
        filled = _VARIABLE.sub(lambda found: re.escape(subject.variables.get(found[1], "")), self.text)
        return _expression(filled).fits(text, subject)


_VARIABLE = re.compile(r"\{(username|vhost|client_id)\}")


class _Rules:
    """The rules that a row of permissions means."""

    def __init__(self, file: str, line: int, text: str) -> None:
        self.file = file
        self.line = line
        self.text = text
        self.made: list[Rule] = []
        self.topics: list[Rule] = []

    def allow(self, action: str, object: str, *conditions: Condition) -> None:
        self.made.append(Rule(True, ALL, action, object, list(conditions), file=self.file, line=self.line,
                              text=self.text))

    def deny(self, action: str, object: str, *conditions: Condition, blames: str = "", why: str = "") -> None:
        self.made.append(Rule(False, ALL, action, object, list(conditions), file=self.file, line=self.line,
                              text=self.text + (f" ({why})" if why else ""), blames=blames))

    def all(self, tags: frozenset[str], configure: Pattern, write: Pattern, read: Pattern) -> RuleSet:
        """Which operation needs what, in RabbitMQ's order."""
        def needs(action: str, object: str, permission: str, pattern: Pattern, what: str = "name",
                  *conditions: Condition) -> None:
            self.deny(action, object, *conditions, Property(what, pattern, True), blames="" if what == "name" else what,
                      why=f"{permission} does not fit {what}")

        self._tags(tags)
        new = Property("exists", Literal("false"))
        for object in ("queue", "exchange"):
            needs("create", object, "configure", configure)
            for other in ("deadletterexchange", "alternate"):  # messages of the one will go to the other
                needs("create", object, "read", read, "name", new, Property(other, Pattern()))
                needs("create", object, "write", write, other, new)
            needs("delete", object, "configure", configure)
        for action in ("bind", "unbind"):
            needs(action, "exchange", "write", write, "destination")
            needs(action, "exchange", "read", read)
        needs("publish", "exchange", "write", write)
        for action in ("consume", "purge", "move", "redirect", "reroute"):
            needs(action, "queue", "read", read)
        for what in ("queuename", "exchangename"):  # of a move, a redirect and a reroute
            for action in ("move", "redirect", "reroute"):
                needs(action, "queue", "write", write, what)
        self.made += self.topics
        self.allow(ALL, ALL)
        return RuleSet(self.file, self.made, DENY)

    def _tags(self, tags: frozenset[str]) -> None:
        if "impersonator" in tags:
            self.allow("impersonate", "user")
        if tags & _MANAGERS:
            self.allow("access", "method")
            self.allow("access", "query")
            self.allow("delete", "connection", _Own())
        if tags & {"administrator", "monitoring"}:
            self.allow("access", "broker")
        self.deny("access", "method", why="a tag is missing")
        for object in _ONLY_MANAGED:
            if "administrator" in tags:
                self.allow(ALL, object)
            else:
                self.deny(ALL, object, why="a tag is missing")


class _Own(Condition):
    """It is the user's own."""

    def holds(self, subject: Subject, question: Question) -> bool:
        return question.values.get("username") in subject.names


# Scopes of tokens.

def _scoped(user: str, host: str, scopes: list[str], tags: frozenset[str]) -> RuleSet:
    """What a token's scopes allow in a virtual host."""
    name = f"the scopes of user {user}'s token"
    patterns: dict[str, list[Pattern]] = {"configure": [], "write": [], "read": []}
    topics: dict[str, list[tuple[Pattern, Pattern]]] = {"write": [], "read": []}
    nobody = Subject("", frozenset(), frozenset())
    for scope in scopes:
        permission, _, rest = scope.partition(":")
        if permission == "tag":
            tags |= {rest}
            continue
        parts = rest.split("/")
        if permission not in patterns or not 2 <= len(parts) <= 3 or not _wildcard(parts[0]).fits(host, nobody):
            continue
        patterns[permission].append(_wildcard(parts[1]))
        if permission in topics:
            topics[permission].append((_wildcard(parts[1]), _wildcard(parts[2] if len(parts) == 3 else "*")))
    if not any(patterns.values()):
        return RuleSet(f"{name} (nothing for virtual host {host})", [])
    made = _Rules(name, 0, ", ".join(sorted(scopes)))
    for action, permission in (("publish", "write"), ("bind", "read"), ("unbind", "read")):
        made.topics.append(Rule(False, ALL, action, "exchange", [
            Property("type", Literal("topic")), _OutOfScope(topics[permission])], file=name, text=made.text,
            blames="routingkey"))
    return made.all(tags, *(OneOf(patterns[each]) for each in ("configure", "write", "read")))


def _wildcard(text: str) -> Expression:
    """`*` stands for anything, also nothing; the rest is written as in URLs."""
    return Expression("(?s)" + ".*".join(re.escape(unquote(part)) for part in text.split("*")), whole=True)


class _OutOfScope(Condition):
    """There is no scope for this exchange and routing key together."""

    def __init__(self, scopes: list[tuple[Pattern, Pattern]]) -> None:
        self.scopes = scopes

    def needs_key(self) -> bool:
        return True

    def holds(self, subject: Subject, question: Question) -> bool:
        name, key = question.values.get("name", ""), question.values.get("routingkey", "")
        return not any(named.fits(name, subject) and keyed.fits(key, subject) for named, keyed in self.scopes)
