"""All commands but message.transfer, and who executes them.

Each function gets the session, the command's id and its arguments by name, and tells whether the command is complete at
once; if it is not, `Session.complete` is called later. It raises SessionError or the broker's errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from broker.transaction import Transaction
from protocols.amqp010 import dtx, messages, topology
from protocols.amqp010.errors import ILLEGAL_STATE, LIMIT_EXCEEDED, SessionError

if TYPE_CHECKING:
    from protocols.amqp010.session import Session

Arguments = dict[str, Any]


def sync(session: Session, number: int, m: Arguments) -> bool:
    return session.sync(number)


def nothing(session: Session, number: int, m: Arguments) -> bool:
    """execution.result and execution.exception: nothing that we send has a result."""
    return True


def tx_select(session: Session, number: int, m: Arguments) -> bool:
    if session.transaction is not None or session.distributed:
        raise SessionError(ILLEGAL_STATE, "the session is transactional already")
    session.transaction = Transaction(session.host)
    return True


def _transaction(session: Session) -> Transaction:
    if session.transaction is None or session.distributed:
        raise SessionError(ILLEGAL_STATE, "the session is not transactional: tx.select is required")
    return session.transaction


def tx_commit(session: Session, number: int, m: Arguments) -> bool:
    transaction = _transaction(session)
    full = transaction.refused_by()
    if full is not None:
        raise SessionError(LIMIT_EXCEEDED, f"the transaction is rolled back: {full!r} is full")
    session.in_transaction.clear()
    transaction.commit(session.later(number))
    return False


def tx_rollback(session: Session, number: int, m: Arguments) -> bool:
    """What was published is forgotten; what was accepted is the client's, to be accepted or released again."""
    _transaction(session).rollback()
    entries = {**session.unsettled, **session.in_transaction}
    session.in_transaction.clear()
    session.unsettled = {transfer: entries[transfer] for transfer in sorted(entries)}
    return True


COMMANDS: dict[str, Callable[[Session, int, Arguments], bool]] = {
    "execution.sync": sync, "execution.result": nothing, "execution.exception": nothing,
    "message.accept": messages.accept, "message.reject": messages.reject, "message.release": messages.release,
    "message.acquire": messages.acquire, "message.resume": messages.resume, "message.subscribe": messages.subscribe,
    "message.cancel": messages.cancel, "message.set-flow-mode": messages.set_flow_mode, "message.flow": messages.flow,
    "message.flush": messages.flush, "message.stop": messages.stop,
    "tx.select": tx_select, "tx.commit": tx_commit, "tx.rollback": tx_rollback,
    "dtx.select": dtx.select, "dtx.start": dtx.start, "dtx.end": dtx.end, "dtx.commit": dtx.commit,
    "dtx.forget": dtx.forget, "dtx.get-timeout": dtx.get_timeout, "dtx.prepare": dtx.prepare,
    "dtx.recover": dtx.recover, "dtx.rollback": dtx.rollback, "dtx.set-timeout": dtx.set_timeout,
    "exchange.declare": topology.exchange_declare, "exchange.delete": topology.exchange_delete,
    "exchange.query": topology.exchange_query, "exchange.bind": topology.exchange_bind,
    "exchange.unbind": topology.exchange_unbind, "exchange.bound": topology.exchange_bound,
    "queue.declare": topology.queue_declare, "queue.delete": topology.queue_delete,
    "queue.purge": topology.queue_purge, "queue.query": topology.queue_query,
}
