"""Sums of what queues have counted: of one, of several, and of those that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.entry import Entry
    from broker.message import Message
    from broker.queue import Queue


class Totals:
    """The counters of queues, added up. Where there are two names, the second is in bytes."""

    __slots__ = ("enqueued", "enqueued_bytes", "depth", "depth_bytes", "persisted", "persisted_bytes", "unpersisted",
                 "unpersisted_bytes", "transacted", "transacted_bytes", "settled", "settled_bytes", "unsettled",
                 "releases", "overflows", "discards", "abandoned")

    def __init__(self) -> None:
        self.enqueued = self.enqueued_bytes = 0
        self.depth = self.depth_bytes = 0
        self.persisted = self.persisted_bytes = 0
        self.unpersisted = self.unpersisted_bytes = 0
        self.transacted = self.transacted_bytes = 0  # came in within transactions
        self.settled = self.settled_bytes = 0  # were settled within transactions
        self.unsettled = 0
        self.releases = 0
        self.overflows = 0
        self.discards: dict[str, int] = {}
        self.abandoned = 0  # were in queues when these were deleted

    def add(self, queue: Queue) -> None:
        self.enqueued += queue.enqueued
        self.enqueued_bytes += queue.enqueued_bytes
        self.depth += queue.ready + queue.unsettled
        self.depth_bytes += queue.ready_bytes + queue.unsettled_bytes
        self.persisted += queue.persisted
        self.persisted_bytes += queue.persisted_bytes
        self.unpersisted += queue.unpersisted
        self.unpersisted_bytes += queue.unpersisted_bytes
        self.transacted += queue.transacted
        self.transacted_bytes += queue.transacted_bytes
        self.settled += queue.settled
        self.settled_bytes += queue.settled_bytes
        self.unsettled += queue.unsettled
        self.releases += queue.releases
        self.overflows += queue.overflows
        for reason, count in queue.discards.items():
            self.discards[reason] = self.discards.get(reason, 0) + count

    def retire(self, queue: Queue) -> None:
        """The queue is about to be deleted: what it holds is nobody's any more."""
        depth, depth_bytes, unsettled = self.depth, self.depth_bytes, self.unsettled
        self.add(queue)
        self.depth, self.depth_bytes, self.unsettled = depth, depth_bytes, unsettled
        self.unpersisted += queue.persisted - queue.unpersisted
        self.unpersisted_bytes += queue.persisted_bytes - queue.unpersisted_bytes
        self.abandoned += queue.ready + queue.unsettled

    def copy(self) -> Totals:
        """One of its own, to add more to."""
        made = Totals()
        made.enqueued, made.enqueued_bytes = self.enqueued, self.enqueued_bytes
        made.depth, made.depth_bytes = self.depth, self.depth_bytes
        made.persisted, made.persisted_bytes = self.persisted, self.persisted_bytes
        made.unpersisted, made.unpersisted_bytes = self.unpersisted, self.unpersisted_bytes
        made.transacted, made.transacted_bytes = self.transacted, self.transacted_bytes
        made.settled, made.settled_bytes = self.settled, self.settled_bytes
        made.unsettled, made.releases, made.overflows = self.unsettled, self.releases, self.overflows
        made.discards, made.abandoned = dict(self.discards), self.abandoned
        return made


def published_in_transaction(queues: list[Queue], message: Message) -> None:
    """A transaction has put a message in queues."""
    for queue in queues:
        queue.transacted += 1
        queue.transacted_bytes += message.size


def settled_in_transaction(entry: Entry) -> None:
    queue = entry.queue
    queue.settled += 1
    queue.settled_bytes += entry.size
