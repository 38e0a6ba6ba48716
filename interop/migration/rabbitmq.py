"""Definitions of RabbitMQ (`rabbitmqctl export_definitions`, or the management API's) as a plan.

Policies become arguments `x-policy-...` of the queues and exchanges that they match now (see policies.py). What
a part of the definitions has that this broker has no place for is left out, with the reason.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from broker.arguments import EXCHANGE_NAMES, QUEUE_NAMES
from broker.security.passwords import RABBITMQ_HASHES, Verifier, new_verifier, parse_verifier
from broker.security.permissions import Permission, PermissionFile, TopicPermission
from interop.migration.limits import propose_limits
from interop.migration.links import propose_shovel, propose_upstream
from interop.migration.plan import PREDECLARED, Binding, Exchange, Plan, Queue
from interop.migration.policies import apply_policies

Part = dict[str, Any]

SECTIONS = ("users", "vhosts", "permissions", "topic_permissions", "parameters", "global_parameters", "policies",
            "queues", "exchanges", "bindings")
"""What the definitions consist of."""

_ABOUT = ("rabbit_version", "rabbitmq_version", "product_name", "product_version", "rabbitmq_definition_format",
          "original_cluster_name", "original_vhost_name", "explanation", "metadata", "description",
          "default_queue_type", "limits")
"""Of the file, or of the virtual host that it was exported from."""

_NO_EFFECT = {
    "x-queue-master-locator": "there is one node", "x-queue-leader-locator": "there is one node",
    "x-quorum-initial-group-size": "there is one node", "x-quorum-target-group-size": "there is one node",
    "x-max-in-memory-length": "limits.queue_memory_messages says it for all queues",
    "x-max-in-memory-bytes": "limits.queue_memory_bytes says it for all queues",
    "x-queue-version": "there is one kind of storage",
    "x-dead-letter-strategy": "dead letters are at-most-once as in a classic queue",
    "x-consumer-timeout": "consumers may take their time",
}
"""Arguments of queues that RabbitMQ knows and we have no use for."""

_LIBRARY = "rabbit_password_hashing_"


class BadDefinitions(Exception):
    """The file is none of RabbitMQ's definitions; the text says why."""


def read_definitions(document: Any, default_host: str = "/") -> Plan:
    """The plan for a file of definitions, read from JSON. default_host: of what names none, as in the definitions of
    one virtual host. Raises: BadDefinitions."""
    _check(document)
    host = str(document.get("original_vhost_name") or default_host)
    for section in ("queues", "exchanges", "bindings", "policies", "parameters"):
        for part in document.get(section, []):
            part.setdefault("vhost", host)
    plan = Plan()
    for name in document:
        if name not in SECTIONS and name not in _ABOUT:
            plan.leave_out(name, "a part of the definitions that is not known here")
    _hosts(plan, document)
    _users(plan, document)
    for part in document.get("exchanges", []):
        _exchange(plan, part)
    for part in document.get("queues", []):
        _queue(plan, part)
    for part in document.get("bindings", []):
        plan.bindings.append(Binding(part["vhost"], _text(part, "source"), _text(part, "destination"),
                                     part.get("destination_type") != "exchange", _text(part, "routing_key"),
                                     _arguments(part)))
    missing = _missing_internal(plan)
    _parameters(plan, document)
    apply_policies(plan, document)
    plan.check(missing)
    _permissions(plan, document)
    return plan


def _check(document: Any) -> None:
    if not isinstance(document, dict) or not any(name in document for name in SECTIONS):
        raise BadDefinitions("it is not the object with queues, exchanges, bindings that RabbitMQ exports")
    for name in SECTIONS:
        parts = document.get(name, [])
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise BadDefinitions(f"{name} is no list of objects")
    for name, key in (("queues", "name"), ("exchanges", "name"), ("bindings", "source"), ("users", "name"),
                      ("vhosts", "name"), ("policies", "pattern"), ("parameters", "component"),
                      ("permissions", "user")):
        for part in document.get(name, []):
            if not isinstance(part.get(key), str) or not isinstance(part.get("vhost", ""), str):
                raise BadDefinitions(f"one of its {name} has no {key}, or no virtual host that is text")


def _text(part: Part, name: str) -> str:
    value = part.get(name, "")
    return value if isinstance(value, str) else str(value)


def _arguments(part: Part) -> dict[str, Any]:
    """Arguments; an empty table of Erlang's is written as an empty list."""
    arguments = part.get("arguments")
    return dict(arguments) if isinstance(arguments, dict) else {}


# Virtual hosts and users.


def _hosts(plan: Plan, document: Part) -> None:
    named = {part["name"]: part for part in document.get("vhosts", [])}
    plan.hosts = list(named)
    for section in ("queues", "exchanges", "bindings"):
        for part in document.get(section, []):
            if part["vhost"] not in plan.hosts:
                plan.hosts.append(part["vhost"])
    for name, part in named.items():
        metadata = part.get("metadata")
        kind = metadata.get("default_queue_type") if isinstance(metadata, dict) else None
        kind = kind or part.get("default_queue_type")
        if kind not in (None, "", "undefined", "classic"):
            plan.remark(f"virtual host {name}", f"its queues are of type {kind} unless a client says otherwise; "
                                                "here they are classic")


def _users(plan: Plan, document: Part) -> None:
    version = _text(document, "rabbit_version") or _text(document, "rabbitmq_version")
    old = re.match(r"[012]\.|3\.[0-5]\.", version) is not None
    for part in document.get("users", []):
        name = part["name"]
        try:
            verifier = _verifier(part, "md5" if old else "sha256")
        except ValueError as error:
            plan.leave_out(f"user {name}", str(error))
            continue
        plan.users[name] = verifier
        tags = part.get("tags")
        tags = tags.split(",") if isinstance(tags, str) else tags or []
        plan.tags[name] = [str(tag).strip() for tag in tags if str(tag).strip()]
        limits = part.get("limits")
        if limits and isinstance(limits, dict):
            propose_limits(plan, f"limits of user {name}", "user", name, limits)


def _verifier(part: Part, default: str) -> Verifier:
    """Raises: ValueError."""
    if isinstance(part.get("password"), str) and part["password"]:
        return new_verifier(part["password"])
    kept = part.get("password_hash")
    if not isinstance(kept, str) or not kept:
        raise ValueError("has no password there, and logs in otherwise or not at all")
    algorithm = part.get("hashing_algorithm") or _LIBRARY + default
    scheme = f"RABBITMQ-{str(algorithm).removeprefix(_LIBRARY).upper()}"
    if scheme not in RABBITMQ_HASHES:
        raise ValueError(f"its password is kept by {algorithm}, which is not known here: `dragoman user add` sets a "
                         "new one")
    try:
        base64.b64decode(kept, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its password hash is no base64") from None
    return parse_verifier(f"{scheme}${kept}")


def _permissions(plan: Plan, document: Part) -> None:
    for part in document.get("permissions", []):
        _permission(plan, Permission(part["user"], _text(part, "vhost"), _text(part, "configure"),
                                     _text(part, "write"), _text(part, "read")))
    for part in document.get("topic_permissions", []):
        _permission(plan, TopicPermission(_text(part, "user"), _text(part, "vhost"), _text(part, "exchange"),
                                          _text(part, "write"), _text(part, "read")))


def _permission(plan: Plan, found: Permission | TopicPermission) -> None:
    try:
        PermissionFile("").put(found)
    except ValueError as error:
        plan.leave_out(f"{found.kind} of user {found.user} in virtual host {found.host}",
                       f"{error}: set others with `dragoman permission`")
    else:
        plan.permissions.append(found)


# Exchanges and queues.


def _exchange(plan: Plan, part: Part) -> None:
    name, arguments = part["name"], _arguments(part)
    if name in PREDECLARED or name == "amq.rabbitmq.trace":
        return  # they are part of every broker; only the management API exports them
    plan.exchanges.append(Exchange(part["vhost"], name, _text(part, "type"), part.get("durable", True) is True,
                                   part.get("auto_delete") is True, part.get("internal") is True, arguments))
    unknown = [key for key in arguments if key not in EXCHANGE_NAMES]
    if unknown:
        plan.remark(plan.exchanges[-1], f"arguments without effect here: {', '.join(unknown)}")


def _missing_internal(plan: Plan) -> set[tuple[str, str]]:
    """RabbitMQ exports the bindings of internal exchanges, but not the exchanges: here they may have been made by
    hand."""
    known = {(each.host, each.name) for each in plan.exchanges}
    missing: dict[tuple[str, str], None] = {}
    for binding in plan.bindings:
        ends = [binding.source] if binding.to_queue else [binding.source, binding.destination]
        for name in ends:
            if name not in PREDECLARED and (binding.host, name) not in known:
                missing[binding.host, name] = None
    for host, name in missing:
        plan.leave_out(f"exchange {name} of virtual host {host}", "it has bindings, but the definitions do not have it "
                       "itself, as RabbitMQ leaves internal exchanges out: make it with `dragoman exchange add` and "
                       "import once more")
    return set(missing)


def _queue(plan: Plan, part: Part) -> None:
    arguments = _arguments(part)
    queue = Queue(part["vhost"], part["name"], part.get("durable", True) is True, part.get("auto_delete") is True,
                  arguments)
    if part.get("type") == "quorum":
        arguments.setdefault("x-queue-type", "quorum")
    if "stream" in (part.get("type"), arguments.get("x-queue-type")):
        plan.leave_out(queue, "it is a stream, and there are none here")
        return
    if part.get("exclusive") is True:
        plan.leave_out(queue, "it is exclusive and goes with its connection")
        return
    plan.queues.append(queue)
    for key in arguments:
        if key not in QUEUE_NAMES:
            plan.remark(queue, f"argument {key} has no effect: {_NO_EFFECT.get(key, 'it is not known here')}")
    if arguments.get("x-queue-type") == "quorum":
        plan.remark(queue, "a quorum queue, kept on this one broker: there is no replication")


# Parameters.


def _parameters(plan: Plan, document: Part) -> None:
    for part in document.get("parameters", []):
        component, value = part["component"], part.get("value")
        what = f"{component} {part.get('name')} of virtual host {part['vhost']}"
        if component == "operator_policy":
            continue  # among the policies
        if component == "shovel" and isinstance(value, dict):
            propose_shovel(plan, _text(part, "name"), value)
        elif component == "federation-upstream" and isinstance(value, dict):
            propose_upstream(plan, _text(part, "name"), value)
        elif component == "vhost-limits" and isinstance(value, dict):
            propose_limits(plan, what, "virtual_host", part["vhost"], value)
        else:
            plan.leave_out(what, "a parameter that has no counterpart here")
    for part in document.get("global_parameters", []):
        if part.get("name") not in ("cluster_name", "internal_cluster_id", "cluster_tags"):
            plan.leave_out(f"global parameter {part.get('name')}", "it has no counterpart here")
