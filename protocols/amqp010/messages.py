"""The commands of class message, but for transfer: subscriptions, their credit, and what becomes of transfers.

Each function gets the session, the command's id and its arguments, and tells whether it is complete at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.entry import Entry
from broker.errors import AccessRefused
from broker.filters import wanted
from broker.outcome import ACCEPT
from broker.queue import Queue
from broker.returns import give_back
from broker.search import claim
from protocols.amqp010.errors import (
    ILLEGAL_ARGUMENT,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    RESOURCE_LOCKED,
    SessionError,
)
from protocols.amqp010.ids import Ranges, add, extend_all, on_wire
from protocols.amqp010.subscription import BYTES, CREDIT, MESSAGES, WINDOW, Subscription
from protocols.amqp010.topology import named

if TYPE_CHECKING:
    from protocols.amqp010.session import Session

Arguments = dict[str, Any]


def subscribe(session: Session, number: int, m: Arguments) -> bool:
    destination = m.get("destination", "")
    if destination in session.subscriptions:
        raise SessionError(NOT_ALLOWED, f"there is a subscription '{destination}' already")
    session.access.consume(named(m, "queue"))
    queue = session.host.queue(m["queue"])
    if m.get("acquire_mode", 0) == 0:  # who only looks may do so, as with Qpid's C++ broker
        queue.check_access(session)
    for mode, most in (("accept_mode", 1), ("acquire_mode", 1)):
        if m.get(mode, 0) > most:
            raise SessionError(ILLEGAL_ARGUMENT, f"{mode.replace('_', '-')} {m[mode]} does not exist")
    session.client.quota.check_consumers(len(session.subscriptions))
    wants = wanted(m.get("arguments", {}), repr(queue))
    subscription = Subscription(session, queue, destination, wants.priority, m["exclusive"],
                                m.get("accept_mode", 0) == 0,
                                m.get("acquire_mode", 0) == 1 or queue.settings.browse_only, number)
    subscription.choose(wants.selector, wants.replay_period)
    try:
        queue.add(subscription)
    except AccessRefused as error:
        raise SessionError(RESOURCE_LOCKED, str(error)) from None
    session.subscriptions[destination] = subscription
    return True


def _subscription(session: Session, m: Arguments) -> Subscription:
    destination = m.get("destination", "")
    found = session.subscriptions.get(destination)
    if found is None:
        raise SessionError(NOT_FOUND, f"there is no subscription '{destination}'")
    return found


def cancel(session: Session, number: int, m: Arguments) -> bool:
    subscription = _subscription(session, m)
    del session.subscriptions[subscription.tag]
    subscription.queue.remove(subscription)
    return True


def set_flow_mode(session: Session, number: int, m: Arguments) -> bool:
    subscription = _subscription(session, m)
    mode = m.get("flow_mode", CREDIT)
    if mode not in (CREDIT, WINDOW):
        raise SessionError(ILLEGAL_ARGUMENT, f"flow-mode {mode} does not exist")
    subscription.mode = mode
    subscription.no_credit()
    return True


def flow(session: Session, number: int, m: Arguments) -> bool:
    subscription = _subscription(session, m)
    unit = m.get("unit", MESSAGES)
    if unit not in (MESSAGES, BYTES):
        raise SessionError(ILLEGAL_ARGUMENT, f"unit {unit} does not exist")
    subscription.add_credit(unit, m.get("value", 0))
    subscription.queue.wake(subscription)
    return True


def flush(session: Session, number: int, m: Arguments) -> bool:
    """All that is there and that the credit is enough for is sent, and then there is no credit."""
    subscription = _subscription(session, m)
    subscription.flush(session.later(number))
    return False


def stop(session: Session, number: int, m: Arguments) -> bool:
    _subscription(session, m).no_credit()
    return True


# What becomes of transfers.


def _transfers(session: Session, m: Arguments) -> Ranges:
    ranges = extend_all(m.get("transfers", []), session.next_out)
    for _, last in ranges:
        if last >= session.next_out:
            raise SessionError(ILLEGAL_ARGUMENT, f"transfer {last} was not sent")
    return ranges


def _take(session: Session, ranges: Ranges) -> dict[int, Entry]:
    """The unsettled entries of transfers, which are settled now."""
    unsettled = session.unsettled
    taken: dict[int, Entry] = {}
    for first, last in ranges:
        if last - first > len(unsettled):
            for number in [number for number in unsettled if first <= number <= last]:
                taken[number] = unsettled.pop(number)
        else:
            for number in range(first, last + 1):
                entry = unsettled.pop(number, None)
                if entry is not None:
                    taken[number] = entry
    session.settled(len(taken))
    return taken


def _withdraw(session: Session, ranges: Ranges) -> dict[int, Entry]:
    """Like `_take`, and what was accepted within the transaction too: it is not to be accepted after all. (That is how
    clients of qpid.messaging roll back: they release all that they had, and then end the transaction.)"""
    transaction = session.transaction
    waiting = session.in_transaction
    if transaction is not None and waiting:
        for first, last in ranges:
            for transfer in [each for each in waiting if first <= each <= last]:
                entry = waiting.pop(transfer)
                transaction.withdraw(entry)
                session.unsettled[transfer] = entry
    return _take(session, ranges)


def accept(session: Session, number: int, m: Arguments) -> bool:
    taken = _take(session, _transfers(session, m))
    if session.transaction is not None:
        for transfer, entry in taken.items():
            session.transaction.settle(entry, ACCEPT)
            if not session.distributed:
                session.in_transaction[transfer] = entry
        return True
    stored = False
    for entry in taken.values():
        stored = stored or entry.stored
        entry.queue.accept(entry)
    return session.when_durable(number, stored)


def reject(session: Session, number: int, m: Arguments) -> bool:
    taken = _withdraw(session, _transfers(session, m))
    stored = False
    for entry in taken.values():
        stored = stored or entry.stored
        entry.queue.reject(entry)
    return session.when_durable(number, stored)


def release(session: Session, number: int, m: Arguments) -> bool:
    failed = m["set_redelivered"]
    taken = _withdraw(session, _transfers(session, m))
    entries = [taken[transfer] for transfer in sorted(taken)]
    if failed:
        give_back(entries, session.broker.chores)
        return True
    queues: dict[Queue, None] = {}
    for entry in entries:
        was = entry.redelivered
        entry.queue.release(entry, False)
        entry.redelivered = was
        queues[entry.queue] = None
    for queue in queues:
        queue.dispatch()
    return True


def acquire(session: Session, number: int, m: Arguments) -> bool:
    acquired: Ranges = []
    for first, last in _transfers(session, m):
        for transfer in range(max(first, session.next_out - len(session.browsed) - 2**20), last + 1):
            shown = session.browsed.get(transfer)
            if shown is not None and not shown.subscription.queue.deleted:
                claimed = claim(shown.subscription.queue, [shown.entry_id], shown.subscription)
                if claimed:
                    del session.browsed[transfer]
                    session.unsettled[transfer] = claimed[0]
                    add(acquired, transfer)
            elif transfer in session.unsettled:
                add(acquired, transfer)
    session.result(number, "acquired", transfers=on_wire(acquired))
    return True


def resume(session: Session, number: int, m: Arguments) -> bool:
    raise SessionError(NOT_IMPLEMENTED, "message.resume: no transfer is interrupted here")


