"""How long a queue lives that goes by itself: when nobody uses it, when it is empty, or with who made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.clock import Timer
from broker.queue_settings import QueueSettings

if TYPE_CHECKING:
    from broker.queue import Queue

WITH_CONNECTION: Final = "delete-on-connection-close"
WITH_SESSION: Final = ("delete-on-close", "delete-on-session-end")
"""Policies of queues that go with the connection, session or channel that made them; front-ends see to it."""

_WHEN_EMPTY: Final = ("delete-if-empty", "delete-if-unused-and-empty")


class Lifetime:
    """Of one queue that goes by itself. A queue that was never used, or never had a message, is left alone."""

    __slots__ = ("queue", "policy", "timeout", "last_used", "_timer")

    def __init__(self, queue: Queue, policy: str, timeout: int) -> None:
        self.queue = queue
        self.policy = policy
        self.timeout = timeout  # ms from the last use on
        self.last_used = 0  # ms since the epoch
        self._timer: Timer | None = None

    def used(self) -> None:
        """Somebody uses the queue."""
        self.last_used = self.queue.clock.now

    def consumer_left(self) -> None:
        """The queue has a consumer less."""
        if self.policy != "delete-if-empty" and self._is_due():
            self.begin()

    def message_left(self) -> None:
        """The queue has a message less."""
        if self.policy in _WHEN_EMPTY and self._timer is None and self._is_due():
            self._timer = self.queue.host.broker.timers.after(self.timeout, self._look)  # not in the midst of it

    def begin(self) -> None:
        """The queue is to go, once its timeout is over."""
        if not self.timeout:
            self.queue.host.delete_queue(self.queue)
        elif not self.queue.deleted and self._timer is None:
            self.last_used = self.queue.clock.now
            self._timer = self.queue.host.broker.timers.after(self.timeout, self._look)

    def _is_due(self) -> bool:
        queue = self.queue
        if self.policy == "delete-if-empty":
            return not queue.ready and not queue.unsettled
        if queue.consumers.all:
            return False
        return self.policy != "delete-if-unused-and-empty" or not queue.ready and not queue.unsettled

    def _look(self) -> None:
        self._timer = None
        queue = self.queue
        if queue.deleted or queue.owner is not None or not self._is_due():
            return
        due = self.last_used + self.timeout
        if self.timeout and due > queue.clock.now:
            self._timer = queue.host.broker.timers.at(due, self._look)
        else:
            queue.host.delete_queue(queue)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Idle:
    """Of one queue that expires when nobody has used it for a while, and it has no consumers (x-expires)."""

    __slots__ = ("queue", "expires", "last_used", "_timer")

    def __init__(self, queue: Queue, expires: int) -> None:
        self.queue = queue
        self.expires = expires  # ms
        self.last_used = 0  # ms since the epoch
        self._timer: Timer | None = None

    def used(self) -> None:
        """Somebody uses the queue: it does not expire for another while."""
        queue = self.queue
        self.last_used = queue.clock.now
        if self._timer is None and not queue.consumers.all:
            self._timer = queue.host.broker.timers.after(self.expires, self._look)

    def _look(self) -> None:
        self._timer = None
        queue = self.queue
        if queue.deleted or queue.consumers.all:
            return
        due = self.last_used + self.expires
        if due > queue.clock.now:
            self._timer = queue.host.broker.timers.at(due, self._look)
        else:
            queue.host.delete_queue(queue)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def idle_of(queue: Queue, settings: QueueSettings) -> Idle | None:
    """None for a queue that does not expire."""
    return None if settings.expires < 0 else Idle(queue, settings.expires)


def lifetime_of(queue: Queue, auto_delete: bool, settings: QueueSettings) -> Lifetime | None:
    """None for a queue that stays until somebody deletes it."""
    policy = "delete-if-unused" if auto_delete else settings.lifetime
    timeout = settings.auto_delete_timeout * 1000
    if policy in _WHEN_EMPTY or policy == "delete-if-unused" or timeout:
        return Lifetime(queue, policy, timeout)
    return None


def goes_when_empty(settings: QueueSettings) -> bool:
    return settings.lifetime in _WHEN_EMPTY
