"""What Qpid's tool qpid-config prints, and scripts that call it, as a plan.

    qpid-config exchanges; qpid-config queues; qpid-config exchanges -r

has all; the last of them has the bindings. A script is lines of `qpid-config add ...` and `qpid-config bind ...`.
"""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

from broker.arguments import EXCHANGE_NAMES, QUEUE_NAMES
from interop.migration.plan import PREDECLARED, Binding, Exchange, Plan, Queue
from interop.migration.qmf import known_arguments

VALUES = {"--max-queue-size": "qpid.max_size", "--max-queue-count": "qpid.max_count",
          "--limit-policy": "qpid.policy_type", "--lvq-key": "qpid.last_value_queue_key",
          "--flow-stop-size": "qpid.flow_stop_size", "--flow-resume-size": "qpid.flow_resume_size",
          "--flow-stop-count": "qpid.flow_stop_count", "--flow-resume-count": "qpid.flow_resume_count",
          "--group-header": "qpid.group_header_key", "--alternate-exchange": "alternate-exchange",
          "--file-size": "qpid.file_size", "--file-count": "qpid.file_count", "--replicate": "qpid.replicate",
          "--efp-partition-num": "qpid.efp_partition_num", "--efp-pool-file-size": "qpid.efp_pool_file_size",
          "--cluster-durable": "qpid.persist_last_node"}
"""Options with a value, by the argument that they are."""

FLAGS = {"--shared-groups": "qpid.shared_msg_group", "--sequence": "qpid.msg_sequence", "--ive": "qpid.ive"}

_BROKER = ("-b", "--broker", "-a", "--broker-addr", "-t", "--timeout", "--sasl-mechanism", "--sasl-service-name",
           "--ssl-certificate", "--ssl-key")
"""Options with a value that say where the broker is."""

_BIND = re.compile(r"\s+bind \[(.*)\] => (.*?)(?: (\{.*\}))?$")
_OF = re.compile(r"(Queue|Exchange) '(.*)'(?: \((.*)\))?$")
_ATTRIBUTE = re.compile(r"(?:^|\s)(--[a-z-]+|auto-del|excl)(?=[\s=]|$)")


class NotUnderstood(Exception):
    """The text is none of qpid-config's."""


def read_text(text: str, host: str = "/") -> Plan:
    """The plan. Lines that are not understood are left out, and said. Raises: NotUnderstood when none are."""
    reader = _Reader(Plan(hosts=[host]), host)
    understood = 0
    begun = ""  # a line that goes on in the next
    for number, part in enumerate(text.splitlines(), 1):
        line = begun + part.rstrip()
        begun = ""
        if line.endswith("\\"):
            begun = line[:-1] + " "
            continue
        if not line or set(line) == {"="} or line.lstrip().startswith("#"):
            continue
        if reader.line(line):
            understood += 1
        else:
            reader.plan.leave_out(f"line {number}", f"it is not understood: {line.strip()[:60]!r}")
    if not understood:
        raise NotUnderstood("it is neither what qpid-config prints nor a script of its commands")
    return reader.done()


class _Reader:
    """Line by line."""

    def __init__(self, plan: Plan, host: str) -> None:
        self.plan = plan
        self.host = host
        self.table = ""  # the kind of thing that the lines of a table are
        self.columns = (0, 0)  # where a line's name and attributes begin
        self.of = ("", "")  # kind and name of the thing whose bindings come
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, Queue] = {}
        self.bindings: dict[tuple[str, str, str], Binding] = {}
        self.temporary: set[str] = set()

    def line(self, line: str) -> bool:
        """Whether it is understood."""
        if line.startswith(("Type ", "Queue Name")) and "Attributes" in line:
            self.table = "queue" if line.startswith("Queue") else "exchange"
            self.columns = (line.find("Exchange Name") if self.table == "exchange" else 0, line.find("Attributes"))
            return True
        found = _OF.match(line)
        if found:
            self.table = ""
            self.of = (found[1], found[2])
            return True
        found = _BIND.match(line)
        if found and self.of[0]:
            return self.bound(found[1], found[2], found[3])
        words = _words(line)
        if "qpid-config" in words[:2]:
            return self.command(words[words.index("qpid-config") + 1:])
        return self.row(line) if self.table else False

    def row(self, line: str) -> bool:
        """A line of a table."""
        begin, attributes = self.columns
        name = line[begin:attributes].strip()
        options = line[attributes:] if len(line) > attributes else ""
        if self.table == "exchange":
            return self.exchange(name, line[:begin].strip(), _attributes(options))
        return self.queue(name, _attributes(options))

    def exchange(self, name: str, kind: str, options: list[tuple[str, str]]) -> bool:
        if name in PREDECLARED or name.startswith(("amq.", "qmf.", "qpid.")):
            return True
        arguments = known_arguments(self.plan, f"exchange {name}", _arguments(options), EXCHANGE_NAMES)
        self.exchanges[name] = Exchange(self.host, name, kind, _has(options, "--durable"),
                                        _has(options, "auto-del"), False, arguments)
        return True

    def queue(self, name: str, options: list[tuple[str, str]]) -> bool:
        if _has(options, "excl") or (_has(options, "auto-del") and not _has(options, "--durable")):
            self.temporary.add(name)
            return True
        arguments = known_arguments(self.plan, f"queue {name}", _arguments(options), QUEUE_NAMES)
        self.queues[name] = Queue(self.host, name, _has(options, "--durable"), _has(options, "auto-del"), arguments)
        return True

    def bound(self, key: str, other: str, text: str | None) -> bool:
        kind, name = self.of
        source, queue = (other, name) if kind == "Queue" else (name, other)
        if source in ("", "''") or source.startswith(("qmf.", "qpid.")):
            return True
        try:
            arguments = ast.literal_eval(text) if text else {}
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return False
        if not isinstance(arguments, dict):
            return False
        self.bindings[source, queue, key] = Binding(self.host, source, queue, True, key, arguments)
        return True

    def command(self, words: list[str]) -> bool:
        """What a call of qpid-config does, without where the broker is."""
        plain, options = _options(words)
        if plain[:2] == ["add", "exchange"] and len(plain) == 4:
            return self.exchange(plain[3], plain[2], options)
        if plain[:2] == ["add", "queue"] and len(plain) == 3:
            return self.queue(plain[2], options)
        if plain[:1] == ["bind"] and len(plain) >= 3:
            source, queue, key, more = plain[1], plain[2], (plain[3:4] or [""])[0], plain[4:]
            arguments: dict[str, Any] = {}
            if more:
                if more[0] not in ("all", "any") or not all("=" in each for each in more[1:]):
                    return False
                arguments = {"x-match": more[0], **dict(each.rstrip(",").split("=", 1) for each in more[1:])}
            self.bindings[source, queue, key] = Binding(self.host, source, queue, True, key, arguments)
            return True
        return False

    def done(self) -> Plan:
        plan = self.plan
        if self.temporary:
            plan.remark(f"{len(self.temporary)} queues", "belong to connections (exclusive, or transient and "
                        "auto-delete): they come with their programs")
        plan.exchanges = list(self.exchanges.values())
        plan.queues = list(self.queues.values())
        plan.bindings = [each for each in self.bindings.values() if each.destination not in self.temporary]
        plan.check()
        return plan


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line.lstrip("$ "))
    except ValueError:
        return []


def _attributes(text: str) -> list[tuple[str, str]]:
    """Options and values as a table has them: a value ends where the next option begins."""
    found = list(_ATTRIBUTE.finditer(text))
    ends = [each.start() for each in found] + [len(text)]
    return [(each[1], text[each.end():ends[at + 1]].lstrip("= ").rstrip()) for at, each in enumerate(found)]


def _options(words: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The plain words of a command and its options."""
    plain: list[str] = []
    options: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            plain.append(word)
            continue
        name, equals, value = word.partition("=")
        if not equals and (name in VALUES or name in _BROKER or name == "--argument"):
            value = next(rest, "")
        if name not in _BROKER:
            options.append((name, value))
    return plain, options


def _has(options: list[tuple[str, str]], name: str) -> bool:
    return any(each == name for each, _ in options)


def _arguments(options: list[tuple[str, str]]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name, value in options:
        if name in VALUES:
            arguments[VALUES[name]] = _number_or_text(value)
        elif name in FLAGS:
            arguments[FLAGS[name]] = 1
        elif name == "--argument":
            key, _, given = value.partition("=")
            arguments[key] = _number_or_text(given)
    return arguments


def _number_or_text(value: str) -> int | str:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value
