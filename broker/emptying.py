"""How a queue is emptied: its available entries go together, and memory is given back bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from broker.entry import GONE, Entry

if TYPE_CHECKING:
    from broker.queue import Queue

_AT_ONCE: Final = 200
"""Entries that are forgotten in one go."""


def drop_available(queue: Queue) -> int:
    """Drop all available entries. Gives their number."""
    count = queue.ready
    counters = queue.counters
    counters.discard("purged", count)
    as_one = queue.log.paging and not queue.unsettled  # they must be gone from the journal together
    if as_one:
        counters.unpersisted = counters.persisted
        counters.unpersisted_bytes = counters.persisted_bytes
    for lane in queue.lanes:
        entries = lane.clear(queue.log)
        if as_one:
            queue.log.discard(queue.queue_id, lane.number, 1, queue.log.last_id)
        elif queue.log.paging:
            for entry in entries:
                queue.forget(entry)
            continue
        queue.host.broker.chores.add(_forget(queue, entries, as_one))
    queue.ready = 0
    queue.ready_bytes = 0
    for cursor in queue.consumers.cursors:
        cursor.purged()
    if queue.limits is not None:
        queue.limits.left()
    return count


def forget_all(queue: Queue) -> None:
    """Let go of all available entries of a queue that the journal need not keep any more."""
    for lane in queue.lanes:
        queue.host.broker.chores.add(_forget(queue, lane.clear(queue.log), False))
    queue.ready = 0
    queue.ready_bytes = 0


def _forget(queue: Queue, entries: Iterator[Entry], discarded: bool) -> Iterator[None]:
    """discarded: they are gone from the journal already."""
    number = 0
    for entry in entries:
        if discarded:
            entry.state = GONE
            if entry.message is not None:
                queue.memory.release(entry.message)
        else:
            queue.forget(entry)
        number += 1
        if number % _AT_ONCE == 0:
            yield
