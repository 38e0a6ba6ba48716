"""Alerts: a queue that grows beyond a mark is worth a line in the log, and whoever observes the broker is told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from broker.clock import Timer
from broker.message import Message
from broker.queue_settings import QueueSettings

if TYPE_CHECKING:
    from broker.queue import Queue

logger = logging.getLogger(__name__)

COUNT: Final = "messages"
SIZE: Final = "bytes"
MESSAGE_SIZE: Final = "message size"
MESSAGE_AGE: Final = "message age"
"""Kinds of alerts."""

SOONEST: Final = 1000
"""Ages are looked at no more often than after so many ms."""


class Mark:
    """Of one kind of alert."""

    __slots__ = ("kind", "up", "down", "raised", "told")

    def __init__(self, kind: str, up: int, down: int) -> None:
        self.kind = kind
        self.up = up  # -1 for none
        self.down = down
        self.raised = False
        self.told = 0  # when it was said last, ms since the epoch


class Alerts:
    """The marks of one queue that has any."""

    __slots__ = ("queue", "count", "size", "message_size", "message_age", "gap", "_timer")

    def __init__(self, queue: Queue, settings: QueueSettings) -> None:
        self.queue = queue
        self.count = Mark(COUNT, settings.alert_count, settings.alert_count_down)
        self.size = Mark(SIZE, settings.alert_size, settings.alert_size_down)
        self.message_size = Mark(MESSAGE_SIZE, settings.alert_message_size, -1)
        self.message_age = Mark(MESSAGE_AGE, settings.alert_message_age, -1)
        self.gap = settings.alert_repeat_gap
        self._timer: Timer | None = None

    def wanted(self) -> bool:
        return max(self.count.up, self.size.up, self.message_size.up, self.message_age.up) >= 0

    def added(self, message: Message) -> None:
        """A message is in the queue."""
        queue = self.queue
        self._rises(self.count, queue.ready + queue.unsettled)
        self._rises(self.size, queue.ready_bytes + queue.unsettled_bytes)
        self._rises(self.message_size, message.size)
        if self.message_age.up >= 0 and self._timer is None:
            self._timer = queue.host.broker.timers.after(max(self.message_age.up, SOONEST), self._look_at_age)

    def left(self) -> None:
        """The queue has fewer messages than before."""
        queue = self.queue
        self._falls(self.count, queue.ready + queue.unsettled)
        self._falls(self.size, queue.ready_bytes + queue.unsettled_bytes)

    def _rises(self, mark: Mark, value: int) -> None:
        if not 0 <= mark.up <= value:
            return
        now = self.queue.clock.now
        if mark.raised and now - mark.told < self.gap:
            return
        mark.raised = True
        mark.told = now
        logger.warning("%r: %s: %d, the mark is %d", self.queue, mark.kind, value, mark.up)
        self.queue.host.broker.management.threshold(self.queue, mark.kind, value, True)

    def _falls(self, mark: Mark, value: int) -> None:
        if mark.raised and value <= mark.down:
            mark.raised = False
            logger.info("%r: %s: %d, the alert is over", self.queue, mark.kind, value)
            self.queue.host.broker.management.threshold(self.queue, mark.kind, value, False)

    def _look_at_age(self) -> None:
        self._timer = None
        queue = self.queue
        if queue.deleted or not queue.ready:
            self.message_age.raised = False
            return
        arrival = _oldest_arrival(queue)
        age = 0 if arrival < 0 else queue.clock.now - arrival
        if age < self.message_age.up:
            self.message_age.raised = False
        self._rises(self.message_age, age)
        wait = max(self.gap, SOONEST) if age >= self.message_age.up else max(self.message_age.up - age, SOONEST)
        self._timer = queue.host.broker.timers.after(wait, self._look_at_age)

    def recovered(self) -> None:
        """The queue has what the journal kept."""
        if self.message_age.up >= 0 and self.queue.ready and self._timer is None:
            self._timer = self.queue.host.broker.timers.after(SOONEST, self._look_at_age)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _oldest_arrival(queue: Queue) -> int:
    """When the first of the available messages arrived, ms since the epoch; -1 when that cannot be told."""
    entry = queue.first()
    if entry is None:
        return -1
    was_there = entry.message is not None
    if not was_there and not queue.load(entry):
        return -1
    assert entry.message is not None
    arrival = entry.message.arrival
    if not was_there:
        queue.unload(entry)
    return arrival


def alerts_of(queue: Queue, settings: QueueSettings) -> Alerts | None:
    """None for a queue without."""
    alerts = Alerts(queue, settings)
    return alerts if alerts.wanted() else None
