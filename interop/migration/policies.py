"""RabbitMQ's policies as arguments of what they match when they are imported.

There are no policies here. A policy's `message-ttl` becomes the argument `x-policy-message-ttl`, which works as
`x-message-ttl` does, but is nothing that a client has to repeat when it declares the queue again.
"""

from __future__ import annotations

import re
from typing import Any

from broker.arguments import EXCHANGE_NAMES, POLICY, QUEUE_NAMES
from interop.migration.plan import Exchange, Plan, Queue

LOWEST = ("message-ttl", "expires", "max-length", "max-length-bytes", "delivery-limit")
"""What the lower number of holds, when a policy and an operator's policy both say one."""

_REASONS = {
    "ha-": "there is no replication", "federation-upstream": "bridges are in the configuration: see what is proposed",
    "queue-master-locator": "there is one node", "queue-leader-locator": "there is one node",
    "queue-version": "there is one kind of storage", "max-in-memory": "limits.queue_memory_messages is for all queues",
    "target-group-size": "there is one node", "consumer-timeout": "consumers may take their time",
    "dead-letter-strategy": "dead letters are at-most-once as in a classic queue",
    "max-age": "there are no streams", "stream-": "there are no streams", "initial-cluster-size": "there is one node",
}
"""By how the name of a setting begins: why it is left out."""

_KINDS = {"queues": ("classic", "quorum"), "classic_queues": ("classic",), "quorum_queues": ("quorum",),
          "all": ("classic", "quorum", "exchange"), "exchanges": ("exchange",), "streams": ()}


class Policy:
    """One policy. Raises: ValueError for one that makes no sense."""

    def __init__(self, host: str, name: str, value: dict[str, Any], operators: bool) -> None:
        self.host = host
        self.name = name
        self.operators = operators
        try:
            self.pattern = re.compile(value["pattern"])
        except (re.error, RecursionError, OverflowError):
            raise ValueError(f"its pattern {value['pattern']!r} is one that only RabbitMQ understands") from None
        self.text = value["pattern"]
        priority = value.get("priority", 0)
        self.priority = priority if isinstance(priority, int) else 0
        self.applies_to = str(value.get("apply-to") or "all")
        if self.applies_to not in _KINDS:
            raise ValueError(f"it is for {self.applies_to}, which there are none of here")
        definition = value.get("definition")
        if isinstance(definition, list):  # Erlang's proplist, as rabbitmqctl writes that of operators' policies
            definition = {each[0]: each[1] for each in definition if isinstance(each, list) and len(each) == 2}
        if not isinstance(definition, dict):
            raise ValueError("it has no definition")
        self.definition: dict[str, Any] = definition

    def __str__(self) -> str:
        whose = "operator policy" if self.operators else "policy"
        return f"{whose} {self.name} of virtual host {self.host}"

    def matches(self, host: str, name: str, kind: str) -> bool:
        return host == self.host and kind in _KINDS[self.applies_to] and self.pattern.search(name) is not None


def apply_policies(plan: Plan, document: dict[str, Any]) -> None:
    """Give the plan's queues and exchanges the arguments that the policies set on them now."""
    policies = _policies(plan, document)
    matched: dict[Policy, int] = dict.fromkeys(policies, 0)
    for queue in plan.queues:
        _apply(plan, queue, str(queue.arguments.get("x-queue-type", "classic")), policies, matched)
    for exchange in plan.exchanges:
        _apply(plan, exchange, "exchange", policies, matched)
    for policy, number in matched.items():
        plan.remark(policy, f"is in the arguments of what it sets now, {number} in all; what is made later and fits "
                            f"{policy.text!r} does not get it")
        for key in policy.definition:
            if POLICY + key not in QUEUE_NAMES and POLICY + key not in EXCHANGE_NAMES:
                plan.leave_out(f"{key} of {policy}", _reason(key))


def _policies(plan: Plan, document: dict[str, Any]) -> list[Policy]:
    found = [(part, part, False) for part in document.get("policies", [])]
    found += [(part, part["value"], True) for part in document.get("parameters", [])
              if part["component"] == "operator_policy" and isinstance(part.get("value"), dict)]
    policies = []
    for part, value, operators in found:
        try:
            if not isinstance(value.get("pattern"), str):
                raise ValueError("it has no pattern")
            policies.append(Policy(part["vhost"], str(part.get("name")), value, operators))
        except ValueError as error:
            plan.leave_out(f"policy {part.get('name')} of virtual host {part['vhost']}", str(error))
    return policies


def _apply(plan: Plan, item: Queue | Exchange, kind: str, policies: list[Policy],
           matched: dict[Policy, int]) -> None:
    """Of the policies that match, the one of the highest priority counts; an operator's is laid over it."""
    settings: dict[str, Any] = {}
    used = []
    for operators in (False, True):
        candidates = [each for each in policies if each.operators is operators
                      and each.matches(item.host, item.name, kind)]
        if candidates:
            policy = max(candidates, key=lambda each: each.priority)
            for key, value in policy.definition.items():
                both = key in settings and key in LOWEST and isinstance(value, int)
                settings[key] = min(settings[key], value) if both else value
            used.append(policy)
    table = EXCHANGE_NAMES if kind == "exchange" else QUEUE_NAMES
    taken = {key: value for key, value in settings.items() if POLICY + key in table}
    if "dead-letter-routing-key" in taken and not _has_dead_letters(taken, item.arguments):
        del taken["dead-letter-routing-key"]  # without an exchange it says nothing
    if taken:
        item.arguments.update((POLICY + key, value) for key, value in taken.items())
        said = " ".join(f"{key}={value}" for key, value in taken.items())
        used = [policy for policy in used if not taken.keys().isdisjoint(policy.definition)]
        plan.remark(item, f"{said}, by {' and '.join(map(str, used))}")
        for policy in used:
            matched[policy] += 1


def _has_dead_letters(taken: dict[str, Any], arguments: dict[str, Any]) -> bool:
    return "dead-letter-exchange" in taken or "x-dead-letter-exchange" in arguments


def _reason(key: str) -> str:
    return next((why for start, why in _REASONS.items() if key.startswith(start)), "it is not known here")
