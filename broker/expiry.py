"""When messages expire in a queue, and how those that have are dropped.

As in RabbitMQ, an entry expires when it is the oldest of its lane; with a time to live of the queue's own that is
always the first to expire. What has expired behind it is dropped when it would be delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.clock import Timer
from broker.queue_settings import QueueSettings

if TYPE_CHECKING:
    from broker.queue import Queue

AT_ONCE = 1000
"""Entries of a lane that are dropped in one go."""


def bounded(expiry: int, settings: QueueSettings, now: int) -> int:
    """When a message expires in a queue that expires then (0: never) by itself, ms since the epoch."""
    if settings.minimum_ttl >= 0 and expiry:
        expiry = max(expiry, now + settings.minimum_ttl)
    if settings.message_ttl >= 0:
        own = now + settings.message_ttl
        if not expiry or own < expiry:
            expiry = own
    return expiry


class Expiry:
    """The timer of one queue, which goes off when an entry at the head of a lane expires."""

    __slots__ = ("queue", "timer")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.timer: Timer | None = None

    def expect(self, when: int) -> None:
        """There is an entry that expires then, ms since the epoch."""
        if self.timer is None:
            self.timer = self.queue.host.broker.timers.at(when, self.drop_heads)

    def drop_heads(self) -> None:
        """Drop what has expired at the head, and see when the next one will."""
        self.timer = None
        queue = self.queue
        if queue.deleted:
            return
        now = queue.clock.now
        earliest = 0
        for lane in queue.lanes:
            for _ in range(AT_ONCE):
                entry = lane.first(queue.log)
                if entry is None or not entry.expiry:
                    break
                if entry.expiry > now:
                    earliest = entry.expiry if not earliest else min(earliest, entry.expiry)
                    break
                lane.take(queue.log)
                queue.ready -= 1
                queue.ready_bytes -= entry.size
                queue.give_up(entry, "expired")
            else:
                earliest = now
        if earliest:
            self.expect(earliest)

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
