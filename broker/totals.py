"""What queues have counted: one, several, and those that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.entry import Entry
    from broker.message import Message
    from broker.queue import Queue


class Counters:
    """What one queue has counted since the broker was started. Where there are two names, the second is in bytes."""

    __slots__ = ("enqueued", "enqueued_bytes", "persisted", "persisted_bytes", "unpersisted", "unpersisted_bytes",
                 "transacted", "transacted_bytes", "settled", "settled_bytes", "releases", "overflows", "discards")

    def __init__(self) -> None:
        self.enqueued = self.enqueued_bytes = 0  # messages that have come in, recovered ones included
        self.persisted = self.persisted_bytes = 0  # those of them that the journal keeps for safety
        self.unpersisted = self.unpersisted_bytes = 0
        self.transacted = self.transacted_bytes = 0  # came in within transactions
        self.settled = self.settled_bytes = 0  # were settled within transactions
        self.releases = 0  # entries that were given back
        self.overflows = 0  # messages that were refused for want of room
        self.discards: dict[str, int] = {}  # entries that were given up, by reason

    def discard(self, reason: str, count: int) -> None:
        self.discards[reason] = self.discards.get(reason, 0) + count

    def include(self, other: Counters) -> None:
        self.enqueued += other.enqueued
        self.enqueued_bytes += other.enqueued_bytes
        self.persisted += other.persisted
        self.persisted_bytes += other.persisted_bytes
        self.unpersisted += other.unpersisted
        self.unpersisted_bytes += other.unpersisted_bytes
        self.transacted += other.transacted
        self.transacted_bytes += other.transacted_bytes
        self.settled += other.settled
        self.settled_bytes += other.settled_bytes
        self.releases += other.releases
        self.overflows += other.overflows
        for reason, count in other.discards.items():
            self.discard(reason, count)


class Totals(Counters):
    """The counters of queues, added up, and what is in them."""

    __slots__ = ("depth", "depth_bytes", "unsettled", "abandoned")

    def __init__(self) -> None:
        super().__init__()
        self.depth = self.depth_bytes = 0
        self.unsettled = 0
        self.abandoned = 0  # were in queues when these were deleted

    def add(self, queue: Queue) -> None:
        self.include(queue.counters)
        self.depth += queue.ready + queue.unsettled
        self.depth_bytes += queue.ready_bytes + queue.unsettled_bytes
        self.unsettled += queue.unsettled

    def retire(self, queue: Queue) -> None:
        """The queue is about to be deleted: what it holds is nobody's any more."""
        counters = queue.counters
        self.include(counters)
        self.unpersisted += counters.persisted - counters.unpersisted
        self.unpersisted_bytes += counters.persisted_bytes - counters.unpersisted_bytes
        self.abandoned += queue.ready + queue.unsettled

    def copy(self) -> Totals:
        """One of its own, to add more to."""
        made = Totals()
        made.include(self)
        made.depth, made.depth_bytes = self.depth, self.depth_bytes
        made.unsettled, made.abandoned = self.unsettled, self.abandoned
        return made


def published_in_transaction(queues: list[Queue], message: Message) -> None:
    """A transaction has put a message in queues."""
    for queue in queues:
        queue.counters.transacted += 1
        queue.counters.transacted_bytes += message.size


def settled_in_transaction(entry: Entry) -> None:
    counters = entry.queue.counters
    counters.settled += 1
    counters.settled_bytes += entry.size
