"""The commands of AMQP 0-10 (message, tx, dtx, exchange, queue and execution) for `session.call` and `session.issue`.

Each function makes a `Command`, whose type says what comes of it: nothing, or one of the results below. Names,
arguments and defaults are those of the specification; its `message.flow` is `message_flow` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from broker.values import Odd
from interop.amqp010.message import Message
from interop.amqp010.ranges import of
from protocols.amqp010.codec import XID, Malformed, read_struct

T = TypeVar("T")

EXPLICIT, NONE = 0, 1
"""Accept modes: a message has to be accepted, or is by being sent."""

PRE_ACQUIRED, NOT_ACQUIRED = 0, 1
"""Acquire modes: to consume, or to browse."""

CREDIT, WINDOW = 0, 1
"""Flow modes: credit is given by message_flow alone, or comes back with the completion of a transfer."""

MESSAGES, BYTES = 0, 1
"""Units of credit."""

INFINITE = 0xFFFFFFFF
"""As much credit as one likes."""

XA_OK, XA_ROLLED_BACK, XA_TIMED_OUT, XA_HEURISTIC_HAZARD, XA_HEURISTIC_COMMIT, XA_HEURISTIC_ROLLBACK, \
    XA_HEURISTIC_MIX, XA_READ_ONLY = range(8)
"""What becomes of a dtx command, beside errors."""


class Command(Generic[T]):
    """A command to be sent: its name in the specification, its fields, and how its result is to be read."""

    __slots__ = ("name", "values", "result", "message")

    def __init__(self, name: str, values: dict[str, Any], result: Callable[[dict[str, Any]], T] | None = None,
                 message: Message | None = None) -> None:
        self.name = name
        self.values = values
        self.result = result
        self.message = message


class Xid(NamedTuple):
    """A distributed transaction's branch."""

    format: int
    global_id: bytes
    branch_id: bytes


@dataclass
class ExchangeInfo:
    """What exchange_query finds."""

    type: str = ""
    durable: bool = False
    not_found: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class BoundInfo:
    """What exchange_bound finds: what there is not. All are false if there is such a binding."""

    exchange_not_found: bool = False
    queue_not_found: bool = False
    queue_not_matched: bool = False
    key_not_matched: bool = False
    args_not_matched: bool = False

    def __bool__(self) -> bool:
        """Whether there is such a binding."""
        return not (self.exchange_not_found or self.queue_not_found or self.queue_not_matched
                    or self.key_not_matched or self.args_not_matched)


@dataclass
class QueueInfo:
    """What queue_query finds; `queue` is "" if there is no such queue."""

    queue: str = ""
    alternate_exchange: str | None = None
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    message_count: int = 0
    subscriber_count: int = 0


# execution


def execution_sync() -> Command[None]:
    """Completed when all commands before it are."""
    return Command("execution.sync", {})


# message


def message_transfer(message: Message, destination: str = "", accept_mode: int = NONE,
                     acquire_mode: int = PRE_ACQUIRED) -> Command[None]:
    """Send a message to an exchange, "" for the default one; `message.routing_key` is its key."""
    return Command("message.transfer", {"destination": destination, "accept_mode": accept_mode,
                                        "acquire_mode": acquire_mode}, None, message)


def message_accept(transfers: list[int]) -> Command[None]:
    """Messages that came, by their `delivery.id`, are done with."""
    return Command("message.accept", {"transfers": of(transfers).on_wire()})


def message_reject(transfers: list[int], code: int = 0, text: str = "") -> Command[None]:
    """Messages are not wanted at all: they go to the alternate exchange, if there is one."""
    return Command("message.reject", {"transfers": of(transfers).on_wire(), "code": code, "text": text})


def message_release(transfers: list[int], set_redelivered: bool = False) -> Command[None]:
    """Messages go back to where they came from."""
    return Command("message.release", {"transfers": of(transfers).on_wire(), "set_redelivered": set_redelivered})


def message_acquire(transfers: list[int]) -> Command[list[tuple[int, int]]]:
    """Acquire messages that were only browsed. Gives the ranges of those that are acquired now."""
    return Command("message.acquire", {"transfers": of(transfers).on_wire()}, lambda found: found.get("transfers", []))


def message_resume(destination: str, resume_id: str) -> Command[int]:
    """Go on with a message that was sent in part. Gives the bytes that are there already."""
    return Command("message.resume", {"destination": destination, "resume_id": resume_id},
                   lambda found: int(found.get("offset", 0)))


def message_subscribe(queue: str, destination: str, accept_mode: int = EXPLICIT, acquire_mode: int = PRE_ACQUIRED,
                      exclusive: bool = False, resume_id: str | None = None, resume_ttl: int | None = None,
                      arguments: dict[str, Any] | None = None) -> Command[None]:
    """Have messages of a queue sent here, under the name `destination`. There is no credit before message_flow."""
    return Command("message.subscribe", {
        "queue": queue, "destination": destination, "accept_mode": accept_mode, "acquire_mode": acquire_mode,
        "exclusive": exclusive, "resume_id": resume_id, "resume_ttl": resume_ttl, "arguments": arguments})


def message_cancel(destination: str) -> Command[None]:
    """End a subscription."""
    return Command("message.cancel", {"destination": destination})


def message_set_flow_mode(destination: str, flow_mode: int) -> Command[None]:
    """CREDIT or WINDOW; a subscription's credit is 0 after it."""
    return Command("message.set-flow-mode", {"destination": destination, "flow_mode": flow_mode})


def message_flow(destination: str, unit: int, value: int) -> Command[None]:
    """Give credit of MESSAGES or BYTES. Nothing comes before there is some of both."""
    return Command("message.flow", {"destination": destination, "unit": unit, "value": value})


def message_flush(destination: str) -> Command[None]:
    """Completed when all there was is sent, or as much as there was credit for; the credit is 0 then."""
    return Command("message.flush", {"destination": destination})


def message_stop(destination: str) -> Command[None]:
    """Set the credit to 0. Completed when nothing is on its way any more."""
    return Command("message.stop", {"destination": destination})


# tx


def tx_select() -> Command[None]:
    """Have the session in transactions from now on."""
    return Command("tx.select", {})


def tx_commit() -> Command[None]:
    return Command("tx.commit", {})


def tx_rollback() -> Command[None]:
    return Command("tx.rollback", {})


# dtx


def dtx_select() -> Command[None]:
    """Allow the session to work in branches of distributed transactions."""
    return Command("dtx.select", {})


def dtx_start(xid: Xid, join: bool = False, resume: bool = False) -> Command[int]:
    """Work in this branch from now on. Gives XA_OK and so on, as all that give a number here."""
    return Command("dtx.start", {"xid": xid._asdict(), "join": join, "resume": resume}, _status)


def dtx_end(xid: Xid, fail: bool = False, suspend: bool = False) -> Command[int]:
    """Work in it no longer."""
    return Command("dtx.end", {"xid": xid._asdict(), "fail": fail, "suspend": suspend}, _status)


def dtx_prepare(xid: Xid) -> Command[int]:
    return Command("dtx.prepare", {"xid": xid._asdict()}, _status)


def dtx_commit(xid: Xid, one_phase: bool = False) -> Command[int]:
    return Command("dtx.commit", {"xid": xid._asdict(), "one_phase": one_phase}, _status)


def dtx_rollback(xid: Xid) -> Command[int]:
    return Command("dtx.rollback", {"xid": xid._asdict()}, _status)


def dtx_forget(xid: Xid) -> Command[None]:
    """Drop what is known of a branch that ended by a heuristic decision."""
    return Command("dtx.forget", {"xid": xid._asdict()})


def dtx_recover() -> Command[list[Xid]]:
    """The branches that are prepared, and neither committed nor rolled back."""
    return Command("dtx.recover", {}, _in_doubt)


def dtx_get_timeout(xid: Xid) -> Command[int]:
    """A branch's timeout in seconds; 0 for none."""
    return Command("dtx.get-timeout", {"xid": xid._asdict()}, lambda found: int(found.get("timeout", 0)))


def dtx_set_timeout(xid: Xid, timeout: int) -> Command[None]:
    return Command("dtx.set-timeout", {"xid": xid._asdict(), "timeout": timeout})


def _status(found: dict[str, Any]) -> int:
    return int(found.get("status", XA_OK))


def _in_doubt(found: dict[str, Any]) -> list[Xid]:
    branches = []
    for each in found.get("in_doubt", []):
        if not isinstance(each, Odd):
            raise Malformed("a branch in doubt is not a struct")
        values, _ = read_struct(XID, len(each.data).to_bytes(4, "big") + each.data, 0, len(each.data) + 4)
        branches.append(Xid(values.get("format", 0), values.get("global_id", b""), values.get("branch_id", b"")))
    return branches


# exchange


def exchange_declare(exchange: str, type: str = "", alternate_exchange: str | None = None, passive: bool = False,
                     durable: bool = False, auto_delete: bool = False,
                     arguments: dict[str, Any] | None = None) -> Command[None]:
    """Make an exchange of type direct, topic, fanout, headers; passive only asks whether there is one."""
    return Command("exchange.declare", {
        "exchange": exchange, "type": type, "alternate_exchange": alternate_exchange, "passive": passive,
        "durable": durable, "auto_delete": auto_delete, "arguments": arguments})


def exchange_delete(exchange: str, if_unused: bool = False) -> Command[None]:
    return Command("exchange.delete", {"exchange": exchange, "if_unused": if_unused})


def exchange_query(name: str) -> Command[ExchangeInfo]:
    return Command("exchange.query", {"name": name}, lambda found: ExchangeInfo(**found))


def exchange_bind(queue: str, exchange: str, binding_key: str = "",
                  arguments: dict[str, Any] | None = None) -> Command[None]:
    return Command("exchange.bind", {"queue": queue, "exchange": exchange, "binding_key": binding_key,
                                     "arguments": arguments})


def exchange_unbind(queue: str, exchange: str, binding_key: str = "") -> Command[None]:
    return Command("exchange.unbind", {"queue": queue, "exchange": exchange, "binding_key": binding_key})


def exchange_bound(exchange: str, queue: str | None = None, binding_key: str | None = None,
                   arguments: dict[str, Any] | None = None) -> Command[BoundInfo]:
    """Whether there is a binding that has all that is given here."""
    return Command("exchange.bound", {"exchange": exchange, "queue": queue, "binding_key": binding_key,
                                      "arguments": arguments}, lambda found: BoundInfo(**found))


# queue


def queue_declare(queue: str, alternate_exchange: str | None = None, passive: bool = False, durable: bool = False,
                  exclusive: bool = False, auto_delete: bool = False,
                  arguments: dict[str, Any] | None = None) -> Command[None]:
    """Make a queue; passive only asks whether there is one. arguments: docs/queue-options.md."""
    return Command("queue.declare", {
        "queue": queue, "alternate_exchange": alternate_exchange, "passive": passive, "durable": durable,
        "exclusive": exclusive, "auto_delete": auto_delete, "arguments": arguments})


def queue_delete(queue: str, if_unused: bool = False, if_empty: bool = False) -> Command[None]:
    return Command("queue.delete", {"queue": queue, "if_unused": if_unused, "if_empty": if_empty})


def queue_purge(queue: str) -> Command[None]:
    return Command("queue.purge", {"queue": queue})


def queue_query(queue: str) -> Command[QueueInfo]:
    return Command("queue.query", {"queue": queue}, lambda found: QueueInfo(**found))
