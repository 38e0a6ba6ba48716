"""What a qpidd (or a Dragoman) says of itself through QMF version 2, as a plan.

The same query asked over AMQP 0-10, which every qpidd speaks, is `read`; whoever has asked in another way hands the
answers to `plan_of`.
"""

from __future__ import annotations

import uuid
from typing import Any

from broker.arguments import EXCHANGE_NAMES, QUEUE_NAMES, fairshare_level
from broker.option import IGNORED, Option
from interop.amqp010 import aio, commands
from interop.amqp010.aio_session import Session
from interop.amqp010.errors import Empty, Error
from interop.amqp010.message import Message, ReplyTo
from interop.migration.links import propose_qpidd
from interop.migration.plan import PREDECLARED, Binding, Exchange, Plan, Queue

Values = dict[str, Any]

KINDS = ("exchange", "queue", "binding", "exchangebinding", "link", "bridge")
"""The classes of objects that a plan is made of. `exchangebinding` is Dragoman's own."""

REQUIRED = ("exchange", "queue", "binding")

PATIENCE = 30.0
"""Seconds that an answer may take."""

_OWN = ("qmf.", "qpid.", "amq.")
"""How the names of exchanges begin that belong to the broker itself."""


class NoAgent(Exception):
    """Nobody answers; the text says what to do."""


async def read(url: str, **options: Any) -> dict[str, list[Values]]:
    """The values of all objects, by class. options: as aio.connect has them.

    Raises: NoAgent, and what aio.connect and its sessions raise.
    """
    async with await aio.connect(url, **options) as connection:
        session = await connection.session()
        return {kind: await _objects(session, kind) for kind in KINDS}


async def read_kind(url: str, kind: str, **options: Any) -> list[Values]:
    """The values of all objects of one class. Raises: as `read`."""
    async with await aio.connect(url, **options) as connection:
        return await _objects(await connection.session(), kind)


async def _objects(session: Session, kind: str) -> list[Values]:
    queue = f"dragoman-import-{uuid.uuid4()}"
    await session.call(commands.queue_declare(queue, exclusive=True, auto_delete=True))
    receiver = await session.receiver(queue)
    sender = await session.sender("qmf.default.direct/broker")
    await sender.send(Message({"_what": "OBJECT", "_schema_id": {"_class_name": kind}}, app_id="qmf2",
                              correlation_id=kind, reply_to=ReplyTo("", queue),
                              properties={"qmf.opcode": "_query_request", "method": "request"}))
    found: list[Values] = []
    while True:
        try:
            answer = await receiver.fetch(PATIENCE)
        except Empty:
            raise NoAgent("its management agent does not answer: qpidd's `mgmt-enable` may be off") from None
        if answer.properties.get("qmf.opcode") == "_exception":
            if kind in REQUIRED:
                raise NoAgent(f"its management agent will not tell of {kind}s: {answer.content}")
            break
        if isinstance(answer.content, list):
            found += [each["_values"] for each in answer.content]
        if "partial" not in answer.properties:
            break
    await receiver.close()
    return found


def plan_of(objects: dict[str, list[Values]], host: str = "/") -> Plan:
    """The plan for what there is. host: the name that its virtual host has in the plan."""
    plan = Plan(hosts=[host])
    for values in objects["exchange"]:
        _exchange(plan, host, values)
    skipped = {values["name"] for values in objects["queue"] if not _queue(plan, host, values)}
    if skipped:
        plan.remark(f"{len(skipped)} queues", "belong to connections (exclusive, or transient and auto-delete): they "
                    "come with their programs")
    for values in objects["binding"]:
        source, queue = name_in(values["exchangeRef"]), name_in(values["queueRef"])
        if source and not source.startswith(("qmf.", "qpid.")) and queue not in skipped:
            plan.bindings.append(Binding(host, source, queue, True, values["bindingKey"],
                                         dict(values.get("arguments") or {})))
    for values in objects.get("exchangebinding", ()):
        plan.bindings.append(Binding(host, name_in(values["exchangeRef"]), name_in(values["destinationRef"]), False,
                                     values["bindingKey"], dict(values.get("arguments") or {})))
    propose_qpidd(plan, objects.get("link", []), objects.get("bridge", []))
    plan.check()
    return plan


def _exchange(plan: Plan, host: str, values: Values) -> None:
    name = values["name"]
    if name in PREDECLARED or name.startswith(_OWN):
        return
    arguments = known_arguments(plan, f"exchange {name}", values.get("arguments"), EXCHANGE_NAMES)
    alternate = name_in(values.get("altExchange"))
    if alternate and arguments.get("x-policy-alternate-exchange") != alternate:
        arguments["alternate-exchange"] = alternate
    plan.exchanges.append(Exchange(host, name, values["type"], bool(values.get("durable")),
                                   bool(values.get("autoDelete")), False, arguments))


def _queue(plan: Plan, host: str, values: Values) -> bool:
    """Whether it is part of the plan."""
    name, durable, auto_delete = values["name"], bool(values.get("durable")), bool(values.get("autoDelete"))
    if values.get("exclusive") or (auto_delete and not durable):
        return False
    arguments = known_arguments(plan, f"queue {name}", values.get("arguments"), QUEUE_NAMES)
    alternate = name_in(values.get("altExchange"))
    if alternate:
        arguments["alternate-exchange"] = alternate
    plan.queues.append(Queue(host, name, durable, auto_delete, arguments))
    return True


def known_arguments(plan: Plan, what: str, arguments: Any, table: dict[str, Option]) -> dict[str, Any]:
    """The arguments without those that would be refused here as slips of the pen; those are left out, and said."""
    kept = {}
    for key, value in dict(arguments or {}).items():
        option = table.get(key)
        if option is not None and option.kind == IGNORED:
            plan.remark(what, f"{key}={value} has no effect: {option.text}")
        elif option is None and key.startswith(("qpid.", "x-qpid-")) and fairshare_level(key) < 0:
            plan.leave_out(f"{key}={value} of {what}", "there is no such option here")
            continue
        kept[key] = value
    return kept


def name_in(reference: Any) -> str:
    """The name of the object that a reference is to."""
    if not isinstance(reference, dict):
        return ""
    name = reference.get("_object_name", "")
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    return str(name).split(":", 2)[-1]


ERRORS = (NoAgent, Error)
"""What `read` raises that is worth telling a user in one line."""
