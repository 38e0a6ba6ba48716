"""Definitions that RabbitMQ imports, from what a broker of ours has.

RabbitMQ refuses a whole file for one thing that it does not know, so what it has no place for is left out, and said.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection
from typing import Any

from broker.arguments import DROP_HEAD, EXCHANGE_NAMES, OVERFLOW, POLICY, QUEUE_NAMES, given
from broker.errors import BrokerError
from broker.option import FLAG, IGNORED, Option
from broker.queue_settings import queue_settings
from broker.security.passwords import RABBITMQ_HASHES, RabbitmqVerifier, Verifier
from broker.security.permissions import Permission, TopicPermission
from interop.migration.plan import PREDECLARED, Exchange, Plan, Queue

VERSION = "3.10.0"
"""The least RabbitMQ that the definitions are for."""

KINDS = ("direct", "fanout", "topic", "headers")
"""Types of exchanges that every RabbitMQ has; others are plugins'."""

_NOT_CLASSIC = ("x-delivery-limit",)
_NOT_QUORUM = ("x-max-priority", "x-queue-mode")

_WORDS = {value: word for word, value in OVERFLOW.items() if word in ("drop-head", "reject-publish",
                                                                      "reject-publish-dlx")}
_OWN_QUEUES = ("mqtt-session:", "mqtt-share:")

Policies = dict[tuple[str, str, str], tuple[dict[str, Any], list[str]]]
"""By virtual host, kind of thing and definition as text: the definition, and the names of what it is for."""


def definitions(plan: Plan, users: dict[str, Verifier], more_kinds: Collection[str] = (),
                tags: dict[str, list[str]] | None = None,
                permissions: list[Permission | TopicPermission] | None = None) -> dict[str, Any]:
    """The definitions, for JSON. What is left out is added to the plan's notes.

    more_kinds: types of exchanges that a plugin there provides. tags: of users. permissions: None when there are no
    permissions here, so that every user may do everything.
    """
    if permissions is None:
        permissions = [Permission(name, host, ".*", ".*", ".*") for name in users for host in plan.hosts]
    permissions = [each for each in permissions if each.user in users and each.host in plan.hosts]

    policies: Policies = {}
    exchanges = [_exchange(plan, each, policies) for each in plan.exchanges if _has_kind(plan, each, more_kinds)]
    queues = [_queue(plan, each, policies) for each in plan.queues if _is_queue(plan, each)]
    return {
        "rabbit_version": VERSION, "rabbitmq_version": VERSION,
        "users": [_user(plan, name, verifier, (tags or {}).get(name, [])) for name, verifier in users.items()],
        "vhosts": [{"name": host} for host in plan.hosts],
        "permissions": [{"user": each.user, "vhost": each.host, "configure": each.configure, "write": each.write,
                         "read": each.read} for each in permissions if isinstance(each, Permission)],
        "topic_permissions": [{"user": each.user, "vhost": each.host, "exchange": each.exchange, "write": each.write,
                               "read": each.read} for each in permissions if isinstance(each, TopicPermission)],
        "parameters": [], "global_parameters": [],
        "policies": [_policy(number, *key[:2], *value) for number, (key, value) in enumerate(policies.items(), 1)],
        "exchanges": exchanges, "queues": queues, "bindings": _bindings(plan, exchanges, queues)}


def _user(plan: Plan, name: str, verifier: Verifier, tags: list[str]) -> dict[str, Any]:
    user = {"name": name, "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": tags}
    if isinstance(verifier, RabbitmqVerifier):
        user["password_hash"] = base64.b64encode(verifier.salt + verifier.digest).decode("ascii")
        user["hashing_algorithm"] = f"rabbit_password_hashing_{RABBITMQ_HASHES[verifier.scheme]}"
    else:
        plan.leave_out(f"password of user {name}", f"it is kept as {verifier.scheme}, which RabbitMQ does not have: "
                       "`rabbitmqctl change_password` sets one")
    return user


def _has_kind(plan: Plan, exchange: Exchange, more_kinds: Collection[str]) -> bool:
    if exchange.kind in KINDS or exchange.kind in more_kinds:
        return True
    plan.leave_out(exchange, f"its type {exchange.kind} is a plugin's there: if it has that, say --exchange-type "
                             f"{exchange.kind}")
    return False


def _exchange(plan: Plan, exchange: Exchange, policies: Policies) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    policy: dict[str, Any] = {}
    for key, value in exchange.arguments.items():
        option = EXCHANGE_NAMES.get(key)
        if key.startswith(POLICY):
            policy[key.removeprefix(POLICY)] = value
        elif option is not None and key not in option.rabbit:
            if option.kind != IGNORED:
                plan.leave_out(f"{key}={value} of {exchange}", "RabbitMQ has no such option")
        else:
            arguments[key] = value
    _note_policy(policies, exchange, "exchanges", policy)
    return {"name": exchange.name, "vhost": exchange.host, "type": exchange.kind, "durable": exchange.durable,
            "auto_delete": exchange.auto_delete, "internal": exchange.internal, "arguments": arguments}


def _is_queue(plan: Plan, queue: Queue) -> bool:
    if queue.name.startswith("amq."):
        plan.remark(queue, "its name is the broker's own choice: it comes with its program")
        return False
    if queue.name.startswith(_OWN_QUEUES):
        plan.leave_out(queue, "it is a session of MQTT, which clients begin anew there")
        return False
    return True


def _queue(plan: Plan, queue: Queue, policies: Policies) -> dict[str, Any]:
    arguments, policy = _queue_arguments(plan, queue)
    _note_policy(policies, queue, "queues", policy)
    return {"name": queue.name, "vhost": queue.host, "durable": queue.durable, "auto_delete": queue.auto_delete,
            "arguments": arguments}


def _queue_arguments(plan: Plan, queue: Queue) -> tuple[dict[str, Any], dict[str, Any]]:
    """The queue's arguments under RabbitMQ's names, and those that are a policy."""
    policy = {key.removeprefix(POLICY): value for key, value in queue.arguments.items() if key.startswith(POLICY)}
    own = {key: value for key, value in queue.arguments.items() if not key.startswith(POLICY)}
    try:
        settings = queue_settings(own, "it")
        found = given(own, QUEUE_NAMES, "it")
    except BrokerError as error:  # of an older broker, perhaps
        plan.leave_out(f"arguments of {queue}", str(error))
        return {}, policy
    arguments = {key: value for key, value in own.items() if key not in QUEUE_NAMES}
    for name, one in found.items():
        option = one.option
        if one.key in option.rabbit:
            arguments[one.key] = one.raw
        elif option.kind != IGNORED and getattr(settings, name) != option.default:
            _translate(plan, queue, option, one.key, one.raw, getattr(settings, name), arguments)
    limited = "x-max-length" in arguments or "x-max-length-bytes" in arguments
    if limited and "x-overflow" not in arguments and settings.overflow != DROP_HEAD:
        arguments["x-overflow"] = _WORDS[settings.overflow]
    kind = arguments.get("x-queue-type", "classic")
    for key in _NOT_QUORUM if kind == "quorum" else _NOT_CLASSIC:
        if key in arguments:
            plan.leave_out(f"{key}={arguments.pop(key)} of {queue}", f"RabbitMQ has no such option for {kind} queues")
    return arguments, policy


def _translate(plan: Plan, queue: Queue, option: Option, key: str, raw: Any, value: Any,
               arguments: dict[str, Any]) -> None:
    """An option that was given by a name of Qpid's, under RabbitMQ's name, if it has one."""
    what = f"{key}={raw} of {queue}"
    if option.name == "overflow":
        if value in _WORDS:
            arguments["x-overflow"] = _WORDS[value]
        else:
            plan.leave_out(what, "RabbitMQ has no such way to deal with a full queue")
    elif option.name in ("priorities", "live_consumers", "delivery_attempts"):
        same = {"priorities": ("x-max-priority", value - 1), "live_consumers": ("x-single-active-consumer", True),
                "delivery_attempts": ("x-delivery-limit", max(0, value - 1))}
        arguments.setdefault(*same[option.name])
    elif option.rabbit:
        arguments[option.rabbit[0]] = bool(value) if option.kind == FLAG else value
    else:
        plan.leave_out(what, "RabbitMQ has no such option")


def _note_policy(policies: Policies, item: Queue | Exchange, applies: str, policy: dict[str, Any]) -> None:
    """Gather what has the same policy."""
    if policy:
        key = (item.host, applies, repr(sorted(policy.items())))
        policies.setdefault(key, (policy, []))[1].append(item.name)


def _policy(number: int, host: str, applies: str, definition: dict[str, Any], names: list[str]) -> dict[str, Any]:
    pattern = f"^(?:{'|'.join(map(re.escape, names))})$"
    return {"vhost": host, "name": f"dragoman-{number}", "pattern": pattern, "apply-to": applies,
            "definition": definition, "priority": 0}


def _bindings(plan: Plan, exchanges: list[dict[str, Any]], queues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bindings whose ends are exported, too."""
    made = {(each["vhost"], each["name"]) for each in exchanges}
    kept = {(each["vhost"], each["name"]) for each in queues}

    def has_exchange(host: str, name: str) -> bool:
        return name in PREDECLARED or (host, name) in made

    found = []
    for binding in plan.bindings:
        end = (binding.host, binding.destination)
        if not has_exchange(binding.host, binding.source) or not (
                end in kept if binding.to_queue else has_exchange(*end)):
            plan.leave_out(binding, "one of its ends is left out")
            continue
        odd = [key for key in binding.arguments if key.startswith(("x-filter-", "qpid.", "x-qpid-", "x-mqtt-"))]
        if odd:
            plan.leave_out(f"{', '.join(odd)} of {binding}", "RabbitMQ has no such option: it binds without it")
        found.append({"source": binding.source, "vhost": binding.host, "destination": binding.destination,
                      "destination_type": "queue" if binding.to_queue else "exchange", "routing_key": binding.key,
                      "arguments": {key: value for key, value in binding.arguments.items() if key not in odd}})
    return found
