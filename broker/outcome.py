"""Outcomes: what a consumer decides about an entry that it has acquired, in one vocabulary for all dialects."""

from __future__ import annotations

from typing import Any

from broker.entry import ACQUIRED, Entry
from broker.message import Amendment, amended
from store.journal import StoredEntry


class Outcome:
    """Accept, reject, release; or modify, which is a release that says more."""

    __slots__ = ("accepts", "rejects", "failed", "undeliverable_here", "annotations")

    def __init__(self, accepts: bool, rejects: bool, failed: bool, undeliverable_here: bool = False,
                 annotations: dict[str, Any] | None = None) -> None:
        self.accepts = accepts
        self.rejects = rejects
        self.failed = failed  # of a release: the delivery counts as one that did not succeed
        self.undeliverable_here = undeliverable_here  # of a release: this consumer is not to see it again
        self.annotations = annotations  # of a release: what the message's annotations are to have in addition

    def releases(self) -> bool:
        return not self.accepts and not self.rejects

    def apply(self, entry: Entry) -> None:
        """Settle the entry so. After a release somebody must call `Queue.dispatch`."""
        if self.accepts:
            entry.queue.accept(entry)
        elif self.rejects:
            entry.queue.reject(entry)
        else:
            consumer = entry.consumer
            if self.annotations:
                annotate(entry, self.annotations)
            if self.undeliverable_here and consumer is not None:
                entry.queue.refuse(entry, consumer)
            entry.queue.release(entry, self.failed)


def annotate(entry: Entry, annotations: dict[str, Any]) -> None:
    """Whoever has acquired the entry wants its message to have these annotations from now on."""
    queue, message = entry.queue, entry.message
    if entry.state != ACQUIRED or message is None or queue.deleted:
        return
    amendment = Amendment()
    amendment.annotations = annotations
    changed = amended(message, amendment, message.address, message.arrival)
    changed.expiry = message.expiry
    queue.memory.hold(changed)
    entry.message = changed
    if entry.stored:
        before = StoredEntry(entry.queue_id, entry.lane, entry.id, entry.message_id, entry.size, entry.expiry,
                             entry.deliveries, entry.flags)
        if queue.log.dequeue(before) and not entry.flags:
            queue.log.commit(message.settle_pending)  # the change is as safe then as the message would have been
        changed.pending += 1
        queue.store(entry, changed)
    queue.memory.release(message)


ACCEPT = Outcome(True, False, False)
REJECT = Outcome(False, True, False)
RELEASE = Outcome(False, False, False)
"""Back to its place, as if it had not been delivered."""
REQUEUE = Outcome(False, False, True)
"""Back to its place, after a delivery that did not succeed."""
