"""Distributed transactions: the branches that a virtual host knows, and what may be done with each, by the rules of XA
and of the class `dtx` of AMQP 0-10 (sections of that name), and as Qpid's brokers keep them.

    active -> prepared -> gone, by commit or rollback; or heuristically completed, and gone when it is forgotten
    active -> gone, by a commit in one phase or a rollback
    active -> rolled back or timed out, and gone with the next rollback or commit, which is told so
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from broker.branch import (
    ACTIVE,
    HEURISTICALLY_COMMITTED,
    HEURISTICALLY_ROLLED_BACK,
    PREPARED,
    ROLLED_BACK,
    TIMED_OUT,
    Branch,
    Xid,
    shown,
)
from broker.errors import CommandInvalid, IllegalState, InvalidArgument, NotAllowed, NotFound
from broker.queue import Queue
from broker.virtualhost import VirtualHost

XA_OK: Final = 0
XA_RBROLLBACK: Final = 1
XA_RBTIMEOUT: Final = 2
XA_HEURHAZ: Final = 3
XA_HEURCOM: Final = 4
XA_HEURRB: Final = 5
XA_HEURMIX: Final = 6
XA_RDONLY: Final = 7
"""The domain xa-status of 0-10."""

_STATUS: Final = {ROLLED_BACK: XA_RBROLLBACK, TIMED_OUT: XA_RBTIMEOUT, HEURISTICALLY_COMMITTED: XA_HEURCOM,
                  HEURISTICALLY_ROLLED_BACK: XA_HEURRB}

_MOST_FAILED: Final = 1000
"""Branches that were rolled back by themselves and that are remembered until somebody asks."""


class Branches:
    """The branches of one virtual host. `session` is whatever stands for a session; `done` is called with a status
    once that is durable, always in a later turn."""

    def __init__(self, host: VirtualHost) -> None:
        self.host = host
        self.known: dict[Xid, Branch] = {}
        self.failed: dict[Xid, None] = {}  # those of `known` that are rolled back or timed out, oldest first
        self.active: dict[object, Branch] = {}  # by session: what it works on right now
        self.sessions: dict[object, dict[Branch, None]] = {}  # what it is associated with, the suspended ones too

    # Association.

    def branch_of(self, session: object) -> Branch | None:
        """The branch that the session's publications and settlements belong to now."""
        return self.active.get(session)

    def start(self, xid: Xid, session: object, join: bool, resume: bool) -> int:
        """Associate the session with a branch: a new one, another's (join), or its own suspended one (resume). Gives a
        status; unless it is XA_OK, the session is not associated.

        Raises: CommandInvalid (join and resume), NotAllowed (known or unknown xid), IllegalState.
        """
        if join and resume:
            raise CommandInvalid("a branch is either joined or resumed")
        if session in self.active:
            raise IllegalState(f"the session works on transaction {shown(self.active[session].xid)} already")
        branch = self.known.get(xid)
        if branch is None:
            if join or resume:
                raise NotAllowed(f"there is no transaction {shown(xid)} to {'join' if join else 'resume'}")
            branch = self.known[xid] = Branch(self.host, xid, self.host.broker.log.new_id())
            self._set_timer(branch, self.host.broker.branch_timeout)
        elif not (join or resume):
            raise NotAllowed(f"transaction {shown(xid)} is known already, and can only be joined")
        elif resume and session not in branch.sessions:
            raise IllegalState(f"the session has not suspended its work on transaction {shown(xid)}")
        elif branch.state != ACTIVE:
            if branch.state == ROLLED_BACK or branch.state == TIMED_OUT:
                return _STATUS[branch.state]
            raise IllegalState(f"transaction {shown(xid)} is prepared already")
        branch.sessions[session] = False
        self.active[session] = branch
        self.sessions.setdefault(session, {})[branch] = None
        return XA_OK

    def end(self, xid: Xid, session: object, fail: bool, suspend: bool) -> int:
        """End or suspend the session's association; `fail` rolls the branch back. Gives a status: when it is not XA_OK,
        the association has ended all the same.

        Raises: CommandInvalid (suspend and fail), IllegalState (it is not associated).
        """
        if suspend and fail:
            raise CommandInvalid("work that has failed cannot be suspended")
        branch = self.known.get(xid)
        if branch is None or session not in branch.sessions or suspend and branch.sessions[session]:
            raise IllegalState(f"the session does not work on transaction {shown(xid)}")
        if self.active.get(session) is branch:
            del self.active[session]
        if branch.state == ACTIVE and suspend:
            branch.sessions[session] = True
            return XA_OK
        self._dissociate(branch, session)
        if branch.state != ACTIVE:
            return _STATUS.get(branch.state, XA_OK)
        if fail:
            self._abandon(branch, ROLLED_BACK)
        return XA_OK

    def session_ended(self, session: object) -> None:
        """The session is gone. What it still worked on, or had suspended, is rolled back."""
        self.active.pop(session, None)
        for branch in self.sessions.pop(session, {}):
            del branch.sessions[session]
            if branch.state == ACTIVE:
                self._abandon(branch, ROLLED_BACK)

    def _dissociate(self, branch: Branch, session: object) -> None:
        del branch.sessions[session]
        others = self.sessions[session]
        del others[branch]
        if not others:
            del self.sessions[session]

    # Completion.

    def prepare(self, xid: Xid, done: Callable[[int], None]) -> None:
        """Promise that a commit will succeed. A branch whose messages a full queue would refuse is rolled back.

        Raises: NotFound, IllegalState.
        """
        branch = self._completed(xid)
        if branch.state == TIMED_OUT:
            self._remove(branch)
            self._answer(XA_RBTIMEOUT, done)
        elif branch.state == ROLLED_BACK:
            self._answer(XA_RBROLLBACK, done)
        elif branch.state != ACTIVE:
            raise IllegalState(f"transaction {shown(xid)} is prepared already")
        elif branch.refused_by() is not None:
            self._abandon(branch, ROLLED_BACK)
            self._answer(XA_RBROLLBACK, done)
        else:
            branch.prepare(partial(done, XA_OK))

    def commit(self, xid: Xid, one_phase: bool, done: Callable[[int], None]) -> None:
        """Commit what is prepared, or (one_phase) what is not. Raises: NotFound, IllegalState."""
        branch = self._completed(xid)
        if branch.state in _STATUS:
            self._remove(branch)
            self._answer(_STATUS[branch.state], done)
        elif branch.state == PREPARED:
            if one_phase:
                raise IllegalState(f"transaction {shown(xid)} is prepared, so it is not committed in one phase")
            self._remove(branch)
            branch.finish(True, False, partial(done, XA_OK))
        elif not one_phase:
            raise IllegalState(f"transaction {shown(xid)} is not prepared, so it can only be committed in one phase")
        elif branch.refused_by() is not None:
            self._abandon(branch, ROLLED_BACK)
            self._remove(branch)
            self._answer(XA_RBROLLBACK, done)
        else:
            self._remove(branch)
            branch.stop_timer()
            branch.commit(partial(done, XA_OK))

    def rollback(self, xid: Xid, done: Callable[[int], None]) -> None:
        """Undo it all. Raises: NotFound, IllegalState."""
        branch = self._completed(xid)
        self._remove(branch)
        if branch.state == PREPARED:
            branch.finish(False, False, partial(done, XA_OK))
            return
        if branch.state == ACTIVE:
            branch.abandon(ROLLED_BACK)
        self._answer(XA_OK if branch.state == ROLLED_BACK else _STATUS[branch.state], done)

    def recover(self) -> list[Xid]:
        """All that are in doubt: prepared, or completed by an operator."""
        return [xid for xid, branch in self.known.items() if branch.in_doubt()]

    def forget(self, xid: Xid) -> None:
        """The transaction manager knows what an operator has decided. Raises: NotFound, IllegalState."""
        branch = self._completed(xid)
        if branch.state < HEURISTICALLY_COMMITTED:
            raise IllegalState(f"transaction {shown(xid)} is not completed heuristically, so it is not forgotten")
        del self.known[xid]
        self.host.broker.log.forget_branch(branch.branch_id)

    def complete_by_hand(self, xid: Xid, commits: bool, done: Callable[[int], None]) -> None:
        """An operator decides on a prepared branch whose transaction manager does not come back (a heuristic
        completion). It stays known, for the manager to learn of it. Raises: NotFound, IllegalState."""
        branch = self._find(xid)
        if branch.state != PREPARED:
            raise IllegalState(f"transaction {shown(xid)} is not prepared, so there is nothing to decide")
        branch.finish(commits, True, partial(done, XA_OK))

    def _find(self, xid: Xid) -> Branch:
        branch = self.known.get(xid)
        if branch is None:
            raise NotFound(f"there is no transaction {shown(xid)}")
        return branch

    def _completed(self, xid: Xid) -> Branch:
        """A branch that nobody works on any more; associations that are suspended end."""
        branch = self._find(xid)
        if branch.associated():
            raise IllegalState(f"a session still works on transaction {shown(xid)}")
        for session in list(branch.sessions):
            self._dissociate(branch, session)
        return branch

    def _remove(self, branch: Branch) -> None:
        """It is over; but what an operator has decided stays known."""
        if branch.state < HEURISTICALLY_COMMITTED:
            del self.known[branch.xid]
            self.failed.pop(branch.xid, None)

    def _abandon(self, branch: Branch, state: int) -> None:
        branch.abandon(state)
        self.failed[branch.xid] = None
        if len(self.failed) > _MOST_FAILED:
            for xid in self.failed:
                if not self.known[xid].sessions:
                    self._remove(self.known[xid])
                    break

    def _answer(self, status: int, done: Callable[[int], None]) -> None:
        self.host.broker.log.commit(partial(done, status))

    # Time.

    def set_timeout(self, xid: Xid, seconds: int) -> None:
        """From now on it has so many seconds to be prepared; 0 stands for what is usual.

        Raises: NotFound, InvalidArgument (more than is allowed).
        """
        branch = self._find(xid)
        most = self.host.broker.branch_timeout_max
        if 0 < most < seconds:
            raise InvalidArgument(f"a transaction's timeout is at most {most} seconds, not {seconds}")
        self._set_timer(branch, seconds or self.host.broker.branch_timeout)

    def get_timeout(self, xid: Xid) -> int:
        """In seconds, 0 for none. Raises: NotFound."""
        return self._find(xid).timeout

    def _set_timer(self, branch: Branch, seconds: int) -> None:
        branch.timeout = seconds
        branch.stop_timer()
        if seconds and branch.state == ACTIVE:
            branch.timer = self.host.broker.timers.after(seconds * 1000, partial(self._abandon, branch, TIMED_OUT))

    # After a restart.

    def take_up(self, branch_id: int, record: dict[str, Any], queues: dict[int, Queue]) -> Iterator[None]:
        """Know a branch of the journal's again. Raises: StoreDamaged."""
        xid: Xid = (record["format"], record["global"], record["branch"])
        branch = self.known[xid] = Branch(self.host, xid, branch_id)
        yield from branch.recover(record, queues)
