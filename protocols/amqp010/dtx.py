"""The commands of class dtx: the session's part of distributed transactions (0-10, section dtx; broker/xa.py).

Each function gets the session, the command's id and its arguments, and tells whether it is complete at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.branch import Xid
from broker.xa import XA_OK, Branches
from protocols.amqp010.codec import XID, write_struct
from protocols.amqp010.errors import COMMAND_INVALID, ILLEGAL_ARGUMENT, ILLEGAL_STATE, SessionError

if TYPE_CHECKING:
    from protocols.amqp010.session import Session

Arguments = dict[str, Any]


def select(session: Session, number: int, m: Arguments) -> bool:
    if session.transaction is not None and not session.distributed:
        raise SessionError(ILLEGAL_STATE, "the session has local transactions (tx.select)")
    session.distributed = True
    return True


def _selected(session: Session) -> Branches:
    """For those who work on a branch; any session may complete one."""
    if not session.distributed:
        raise SessionError(COMMAND_INVALID, "dtx.select is required")
    return session.host.branches


def _xid(m: Arguments) -> Xid:
    xid = m.get("xid")
    if xid is None:
        raise SessionError(ILLEGAL_ARGUMENT, "an xid is required")
    return (xid.get("format", 0), xid.get("global_id", b""), xid.get("branch_id", b""))


def _answer(session: Session, number: int, status: int) -> bool:
    session.result(number, "xa-result", status=status)
    return True


def _answer_later(session: Session, number: int) -> Callable[[int], None]:
    return partial(_finished, session, number)


def _finished(session: Session, number: int, status: int) -> None:
    if not session.ended and not session.failed:
        session.result(number, "xa-result", status=status)
        session.complete(number)


def start(session: Session, number: int, m: Arguments) -> bool:
    branches = _selected(session)
    status = branches.start(_xid(m), session, m["join"], m["resume"])
    if status == XA_OK:
        session.transaction = branches.branch_of(session)
    return _answer(session, number, status)


def end(session: Session, number: int, m: Arguments) -> bool:
    branches = _selected(session)
    status = branches.end(_xid(m), session, m["fail"], m["suspend"])
    session.transaction = branches.branch_of(session)
    return _answer(session, number, status)


def prepare(session: Session, number: int, m: Arguments) -> bool:
    session.host.branches.prepare(_xid(m), _answer_later(session, number))
    return False


def commit(session: Session, number: int, m: Arguments) -> bool:
    session.host.branches.commit(_xid(m), m["one_phase"], _answer_later(session, number))
    return False


def rollback(session: Session, number: int, m: Arguments) -> bool:
    session.host.branches.rollback(_xid(m), _answer_later(session, number))
    return False


def recover(session: Session, number: int, m: Arguments) -> bool:
    in_doubt = [write_struct(XID, {"format": xid[0], "global_id": xid[1], "branch_id": xid[2]})
                for xid in session.host.branches.recover()]
    session.result(number, "recover-result", in_doubt=in_doubt)
    return True


def forget(session: Session, number: int, m: Arguments) -> bool:
    session.host.branches.forget(_xid(m))
    return session.when_durable(number, True)


def get_timeout(session: Session, number: int, m: Arguments) -> bool:
    session.result(number, "get-timeout-result", timeout=session.host.branches.get_timeout(_xid(m)))
    return True


def set_timeout(session: Session, number: int, m: Arguments) -> bool:
    session.host.branches.set_timeout(_xid(m), m.get("timeout", 0))
    return True
