"""One branch of a distributed transaction: a transaction that is prepared first, and then survives the broker.

Prepared, a branch is three things in the journal, written as one batch: its record (who it is, what it settles), its
durable messages, in a queue of its own that nobody else knows, and nothing else: what it settles stays where it is,
acquired. To commit it is one batch again, which moves the messages on, settles the entries and forgets the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from struct import Struct
from typing import Any, Final

from broker import argument_values
from broker.clock import Timer
from broker.entry import ACQUIRED, Entry
from broker.message import Message
from broker.outcome import Outcome
from broker.queue import Queue
from broker.queue_settings import QueueSettings
from broker.returns import give_back
from broker.totals import published_in_transaction, settled_in_transaction
from broker.transaction import Publication, Transaction
from broker.virtualhost import VirtualHost
from store.journal import StoreDamaged

Xid = tuple[int, bytes, bytes]
"""(format, global transaction id, branch qualifier)"""

ACTIVE: Final = 0
PREPARED: Final = 1
ROLLED_BACK: Final = 2
"""It has failed, or whoever worked on it is gone: nothing is left of it but that it is known."""
TIMED_OUT: Final = 3
"""Likewise, for it was not prepared in time."""
HEURISTICALLY_COMMITTED: Final = 4
HEURISTICALLY_ROLLED_BACK: Final = 5
"""An operator has decided on the prepared branch, and its transaction manager does not know."""

_SETTLED = Struct(">QBQB")  # queue id, lane, entry id, outcome
_ACCEPTS: Final = 1
_REJECTS: Final = 2
_FAILED: Final = 4
_STEP: Final = 1000
"""Entries that are taken up in one go."""


class Kept:
    """A message of a prepared branch."""

    __slots__ = ("entry", "copies_to", "postponed")

    def __init__(self, entry: Entry, copies_to: list[str] | None, postponed: bool) -> None:
        self.entry = entry
        self.copies_to = copies_to
        self.postponed = postponed


class Branch(Transaction):
    """Collects the work of the sessions that are associated with it. What is given to a branch that is over already
    is dropped, or goes back to its queue."""

    def __init__(self, host: VirtualHost, xid: Xid, branch_id: int) -> None:
        """branch_id: its number in the journal."""
        super().__init__(host)
        self.xid = xid
        self.branch_id = branch_id
        self.state = ACTIVE
        self.sessions: dict[object, bool] = {}  # who is associated with it; the value: the association is suspended
        self.timeout = 0  # seconds; 0 for none
        self.timer: Timer | None = None
        self.safe = False  # that it is prepared is durable
        self.kept: list[Kept] = []
        self.place = Queue(host, f"messages of branch {shown(xid)}", branch_id, True, False, False, {},
                           QueueSettings(), None)

    def associated(self) -> bool:
        """Does a session work on it right now?"""
        return not all(self.sessions.values())

    def in_doubt(self) -> bool:
        """Does a transaction manager have to ask about it after a failure?"""
        return self.state == PREPARED and self.safe or self.state >= HEURISTICALLY_COMMITTED

    # While it is active.

    def publish(self, publication: Publication) -> None:
        if self.state == ACTIVE:
            super().publish(publication)

    def settle(self, entry: Entry, outcome: Outcome) -> None:
        """Settle an acquired entry with the commit. It is the branch's from now on, no longer its session's."""
        if self.state == ACTIVE:
            super().settle(entry, outcome)
        else:
            give_back([entry], self.host.broker.chores)

    def abandon(self, state: int) -> None:
        """Roll back what is not prepared, and remember why."""
        self.state = state
        self.stop_timer()
        give_back(self.rollback(), self.host.broker.chores)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    # From prepared to the end.

    def prepare(self, done: Callable[[], None]) -> None:
        """Have the journal keep it; `done` is called once that is durable. Messages and entries that are not durable
        are part of it, but do not survive the broker, as they never do."""
        log = self.host.broker.log
        publications, self.publications = self.publications, []
        for publication in publications:
            self.host.broker.memory.add(-publication.message.cost())
            self.kept.append(Kept(self._keep(publication.message), publication.copies_to, publication.postponed))
        self.state = PREPARED
        self.stop_timer()
        log.keep_branch(self.branch_id, self._record())
        log.commit(partial(self._prepared, done))

    def _keep(self, message: Message) -> Entry:
        message.shared = True  # for it will be in other queues before it leaves this one
        place = self.place
        log = place.log
        entry = Entry(place, message, self.branch_id, 0, log.new_id(), 0, message.size, message.expiry, 0, 0)
        entry.state = ACQUIRED
        place.unsettled += 1
        place.memory.hold(message)
        if message.durable:
            message.message_id = log.new_message_id(True)
            message.pending += 1
            entry.message_id = message.message_id
            entry.stored = True
            log.enqueue(entry, message)
        return entry

    def _prepared(self, done: Callable[[], None]) -> None:
        self.safe = True
        memory = self.host.broker.memory
        for kept in self.kept:
            if memory.used <= memory.tight:
                break
            if kept.entry.stored:
                self.place.unload(kept.entry)
        done()

    def finish(self, commits: bool, heuristic: bool, done: Callable[[], None]) -> None:
        """Commit what is prepared, or roll it back, as one batch of the journal; `done` is called once that is durable.

        heuristic: it stays known, without its contents. A message whose exchange is gone goes nowhere; a queue may
        become fuller than its limit, since the branch was promised that there is room.
        """
        broker = self.host.broker
        settlements, self.settlements = self.settlements, {}
        kept, self.kept = self.kept, []
        for each in kept:
            if commits and (each.entry.message is not None or self.place.load(each.entry)):
                assert each.entry.message is not None
                self._send(each.entry.message, each)
            self.place.accept(each.entry)
        touched: dict[Queue, None] = {}
        if commits:
            for entry, outcome in settlements.items():
                outcome.apply(entry)
                settled_in_transaction(entry)
                touched[entry.queue] = None
        if heuristic:
            self.state = HEURISTICALLY_COMMITTED if commits else HEURISTICALLY_ROLLED_BACK
            broker.log.keep_branch(self.branch_id, self._record())
        else:
            broker.log.forget_branch(self.branch_id)
        broker.log.commit(done)
        if not commits:
            give_back(list(settlements), broker.chores)
        for queue in touched:
            queue.dispatch()

    def _send(self, message: Message, kept: Kept) -> None:
        host = self.host
        if kept.postponed:
            host.postpone(message)
            return
        route = host.current_route(message.address)
        if route is None:
            return
        queues = host.destinations(route, message, kept.copies_to)
        published_in_transaction(queues, message)
        limits = [queue.limits for queue in queues if queue.limits is not None]
        for limit in limits:
            limit.lifted = True
        management = host.broker.management
        before, management.relaying = management.relaying, True  # who commits is not always who has sent it
        try:
            host.publish(route, message, kept.copies_to)
        finally:
            management.relaying = before
            for limit in limits:
                limit.lifted = False

    # In the journal.

    def _record(self) -> bytes:
        form, global_id, qualifier = self.xid
        settled = [_SETTLED.pack(entry.queue_id, entry.lane, entry.id, _code(outcome))
                   for entry, outcome in self.settlements.items() if entry.stored and not entry.flags]
        return argument_values.dump({
            "host": self.host.name, "format": form, "global": global_id, "branch": qualifier, "state": self.state,
            "settled": b"".join(settled),
            "copies": {str(kept.entry.id): kept.copies_to for kept in self.kept if kept.copies_to is not None},
            "postponed": [kept.entry.id for kept in self.kept if kept.postponed]})

    def recover(self, record: dict[str, Any], queues: dict[int, Queue]) -> Iterator[None]:
        """Take up what the journal has kept of it, bit by bit: its messages, and what it settles, which nobody else
        gets. Raises: StoreDamaged."""
        self.state = record["state"]
        self.safe = True
        for settled in _SETTLED.iter_unpack(record["settled"]):
            queue_id, lane, entry_id, code = settled
            queue = queues.get(queue_id)
            entry = _acquire(queue, lane, entry_id) if queue is not None else None
            if entry is not None:
                self.settlements[entry] = _outcome(code)
                if len(self.settlements) % _STEP == 0:
                    yield
        copies, postponed = record["copies"], set(record["postponed"])
        place = self.place
        rows = place.log.scan(self.branch_id, 0, 0, _STEP)
        while rows:
            for entry_id, message_id, size, expiry, deliveries, flags in rows:
                entry = Entry(place, None, self.branch_id, 0, entry_id, message_id, size, expiry, deliveries, flags)
                entry.stored = True
                entry.state = ACQUIRED
                place.unsettled += 1
                self.kept.append(Kept(entry, copies.get(str(entry_id)), entry_id in postponed))
            yield
            rows = place.log.scan(self.branch_id, 0, self.kept[-1].entry.id, _STEP)


def saved_branch(branch_id: int, record: bytes) -> dict[str, Any]:
    """What a branch's record says. Raises: StoreDamaged."""
    try:
        content = argument_values.load(record)
        if not isinstance(content, dict):
            raise ValueError("it is no map")
        for key, kind in (("host", str), ("format", int), ("global", bytes), ("branch", bytes), ("state", int),
                          ("settled", bytes), ("copies", dict), ("postponed", list)):
            if not isinstance(content.get(key), kind):
                raise ValueError(f"{key} is missing")
        if len(content["settled"]) % _SETTLED.size or content["state"] not in (
                PREPARED, HEURISTICALLY_COMMITTED, HEURISTICALLY_ROLLED_BACK):
            raise ValueError("it makes no sense")
    except ValueError as error:
        raise StoreDamaged(f"the prepared transaction {branch_id} in the store is not readable ({error}); run "
                           "'dragoman store check' on it") from None
    return content


def shown(xid: Xid) -> str:
    """An xid for people."""
    form, global_id, qualifier = xid
    return f"{form}:{global_id.hex()}:{qualifier.hex()}"


def _acquire(queue: Queue, number: int, entry_id: int) -> Entry | None:
    """An entry that was in the queue before the restart, acquired for a branch; None: it is not there any more."""
    entry: Entry | None = None
    lane = queue.lanes[min(number, len(queue.lanes) - 1)]
    if queue.ordered is not None:
        entry = queue.ordered.find(entry_id)[0]
    else:  # all of the lane is in the journal still
        for found, message_id, size, expiry, deliveries, flags in queue.log.scan(queue.queue_id, number,
                                                                                 entry_id - 1, 1):
            if found == entry_id:
                entry = Entry(queue, None, queue.queue_id, number, entry_id, message_id, size, expiry, deliveries,
                              flags)
                entry.stored = True
    if entry is None:
        return None
    lane.pluck(entry, True)
    entry.redelivered = True
    entry.state = ACQUIRED
    queue.ready -= 1
    queue.ready_bytes -= entry.size
    queue.unsettled += 1
    return entry


def _code(outcome: Outcome) -> int:
    """An outcome as a byte. What only concerns a consumer, which does not outlive the broker, is left out, and so are
    annotations: no dialect has them within a distributed transaction."""
    return _ACCEPTS * outcome.accepts | _REJECTS * outcome.rejects | _FAILED * outcome.failed


def _outcome(code: int) -> Outcome:
    return Outcome(bool(code & _ACCEPTS), bool(code & _REJECTS), bool(code & _FAILED))
