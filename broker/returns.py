"""Giving back what somebody had and has not settled: a consumer that is cancelled, a channel or a link that closes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.chores import Chores
from broker.entry import Entry

if TYPE_CHECKING:
    from broker.queue import Queue

AT_ONCE = 1000
"""Entries that are given back in one go."""


def give_back(entries: list[Entry], chores: Chores, failed: bool = True) -> None:
    """Release entries, in the order in which they were delivered, as deliveries that failed or not; then dispatch.
    When they are many, bit by bit, while their queues rest: nobody is to get a later entry before an earlier one."""
    queues: dict[Queue, None] = {}
    for entry in entries:
        queues[entry.queue] = None
    if len(entries) <= AT_ONCE:
        for entry in entries:
            entry.queue.release(entry, failed)
        for queue in queues:
            queue.dispatch()
        return
    for queue in queues:
        queue.returning += 1
    chores.add(_give_back_bit_by_bit(entries, list(queues), failed))


def _give_back_bit_by_bit(entries: list[Entry], queues: list[Queue], failed: bool) -> Iterator[None]:
    for at in range(0, len(entries), AT_ONCE):
        for entry in entries[at:at + AT_ONCE]:
            entry.queue.release(entry, failed)
        yield
    for queue in queues:
        queue.returning -= 1
        queue.dispatch()
