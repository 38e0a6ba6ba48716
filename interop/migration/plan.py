"""A plan: what an import is going to make, and what it leaves out, each with the reason."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from broker.arguments import EXCHANGE_NAMES, given
from broker.errors import BrokerError
from broker.queue_settings import check_properties, queue_settings
from broker.security.passwords import Verifier
from broker.security.permissions import Permission, TopicPermission
from broker.virtualhost import EXCHANGE_KINDS

PREDECLARED = {"": "direct", "amq.direct": "direct", "amq.topic": "topic", "amq.fanout": "fanout",
               "amq.headers": "headers", "amq.match": "headers"}
"""The exchanges that every virtual host has, with their types."""

Item = TypeVar("Item", "Exchange", "Queue", "Binding")


@dataclass(slots=True)
class Exchange:
    host: str
    name: str
    kind: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"exchange {self.name}{_of(self.host)}"


@dataclass(slots=True)
class Queue:
    host: str
    name: str
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"queue {self.name}{_of(self.host)}"


@dataclass(slots=True)
class Binding:
    host: str
    source: str
    destination: str
    to_queue: bool = True
    key: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        key = f" with {self.key}" if self.key else ""
        kind = "" if self.to_queue else "exchange "
        return f"binding of {self.source} to {kind}{self.destination}{key}{_of(self.host)}"


@dataclass(slots=True)
class Note:
    """Something that needs somebody's eyes, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(slots=True)
class Plan:
    """What is to be made. `hosts` are the virtual hosts that it is about, in the source's words."""

    hosts: list[str] = field(default_factory=list)
    users: dict[str, Verifier] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)  # by user
    permissions: list[Permission | TopicPermission] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)
    left_out: list[Note] = field(default_factory=list)
    remarks: list[Note] = field(default_factory=list)  # taken over, but not quite as it was there
    proposed: list[str] = field(default_factory=list)  # pieces of a configuration file

    def leave_out(self, what: object, why: str) -> None:
        self.left_out.append(Note(str(what), why))

    def remark(self, what: object, why: str) -> None:
        self.remarks.append(Note(str(what), why))

    def check(self, perhaps: Container[tuple[str, str]] = ()) -> None:
        """Leave out what this broker would refuse, with what it would say, and bindings that then have no ends.

        perhaps: exchanges, as (virtual host, name), that are not in the plan and may be there already.
        """
        self.exchanges = self._kept(self.exchanges, _exchange_problem)
        self.queues = self._kept(self.queues, _queue_problem)
        exchanges = {(each.host, each.name) for each in self.exchanges}
        queues = {(each.host, each.name) for each in self.queues}

        def has_exchange(host: str, name: str) -> bool:
            return name in PREDECLARED or (host, name) in exchanges or (host, name) in perhaps

        def problem(binding: Binding) -> str:
            if not has_exchange(binding.host, binding.source):
                return f"exchange {binding.source} is left out"
            if binding.to_queue and (binding.host, binding.destination) not in queues:
                return f"queue {binding.destination} is left out"
            if not binding.to_queue and not has_exchange(binding.host, binding.destination):
                return f"exchange {binding.destination} is left out"
            return ""
        self.bindings = self._kept(self.bindings, problem)

    def _kept(self, items: Iterable[Item], problem: Callable[[Item], str]) -> list[Item]:
        kept = []
        for item in items:
            why = problem(item)
            if why:
                self.leave_out(item, why)
            else:
                kept.append(item)
        return kept


def _exchange_problem(exchange: Exchange) -> str:
    if exchange.kind not in EXCHANGE_KINDS:
        return f"there are no exchanges of type {exchange.kind} here"
    if exchange.name.startswith("amq.") and exchange.name not in PREDECLARED:
        return "names that begin with amq. are the broker's own"
    try:
        given(exchange.arguments, EXCHANGE_NAMES, "it")
    except BrokerError as error:
        return str(error)
    return ""


def _queue_problem(queue: Queue) -> str:
    if queue.name.startswith("amq."):
        return "names that begin with amq. are the broker's own"
    try:
        queue_settings(queue.arguments, "it")
        check_properties(queue.arguments, "it", queue.durable, False, queue.auto_delete)
    except BrokerError as error:
        return str(error)
    return ""


def _of(host: str) -> str:
    """The virtual host of something, where it needs to be said."""
    return "" if host == "/" else f" of virtual host {host}"
