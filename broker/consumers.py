"""The consumers of one queue, and whose turn it is.

Most take whatever is oldest: they wait in `available`. A choosy one takes only what it wants, or looks without taking:
it has a `Cursor` and waits in `searching`. One that was found not ready is parked, until somebody wakes it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from broker.consumer import Consumer
from broker.errors import AccessRefused
from broker.search import Cursor
from broker.security.quotas import CONSUMERS

if TYPE_CHECKING:
    from broker.queue import Queue


class Consumers:
    """All consumers of a queue."""

    __slots__ = ("queue", "all", "available", "searching", "cursors", "prioritised",
                 "weighing")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.all: list[Consumer] = []
        self.available: deque[Consumer] = deque()  # those that are believed to be ready
        self.searching: list[Cursor] = []  # likewise, of the choosy ones
        self.cursors: list[Cursor] = []  # of all choosy ones
        self.prioritised = False  # not all have the same priority
        self.weighing = False  # one may be ready for a small message and not for a large one: it must see what is next

    def __len__(self) -> int:
        return len(self.all)

    def add(self, consumer: Consumer) -> None:
        """Raises: AccessRefused when one has the queue for itself; LimitReached."""
        if self.all and (consumer.exclusive or self.all[0].exclusive):
            raise AccessRefused(f"{self.queue!r} in exclusive use")
        consumer.quota.take(CONSUMERS, self.queue.name)
        self.all.append(consumer)
        consumer.attached = True
        if consumer.choosy:
            self._give_cursor(consumer)
        self._see_priorities()

    def remove(self, consumer: Consumer) -> None:
        consumer.attached = False
        consumer.quota.give(CONSUMERS)
        self.all.remove(consumer)
        if not self.all:
            self.weighing = False
        self._rest(consumer)
        cursor = consumer.cursor
        if cursor is not None:
            self.cursors.remove(cursor)
            consumer.cursor = None
        self._see_priorities()

    def follow(self, consumer: Consumer) -> Cursor:
        """A cursor for somebody who goes through the queue on his own account, and is none of its consumers."""
        cursor = self._cursor(consumer)
        self.cursors.append(cursor)
        return cursor

    def unfollow(self, cursor: Cursor) -> None:
        if cursor in self.cursors:
            self.cursors.remove(cursor)

    def clear(self) -> list[Consumer]:
        """Nobody consumes any more. Gives those who did."""
        consumers, self.all = self.all, []
        self.available.clear()
        self.searching.clear()
        self.cursors.clear()
        for consumer in consumers:
            consumer.parked = True
            consumer.attached = False
            consumer.cursor = None
            consumer.quota.give(CONSUMERS)
        return consumers

    def wake(self, consumer: Consumer) -> None:
        """It may be ready again."""
        if consumer.parked:
            consumer.parked = False
            if consumer.cursor is not None:
                self.searching.append(consumer.cursor)
            else:
                self.available.append(consumer)

    def pick(self) -> Consumer | None:
        """The next ready consumer in turn, of the highest priority that has one. Parks those that are not ready."""
        available = self.available
        while available:
            consumer = available[0]
            if self.prioritised:
                for other in available:
                    if other.priority > consumer.priority:
                        consumer = other
            if consumer.ready():
                if len(available) > 1:
                    available.remove(consumer)
                    available.append(consumer)
                return consumer
            available.remove(consumer)
            consumer.parked = True
        return None

    def turn(self) -> list[Cursor]:
        """The choosy consumers that are ready, each to have one entry; the others are parked."""
        ready: list[Cursor] = []
        for cursor in list(self.searching):
            if cursor.consumer.ready():
                ready.append(cursor)
            else:
                self._rest(cursor.consumer)
        if self.prioritised:
            ready.sort(key=_priority, reverse=True)
        return ready

    def make_choosy(self, consumer: Consumer) -> None:
        """There are entries from now on that this consumer is not to get."""
        if not consumer.choosy and consumer.attached:
            parked = consumer.parked
            self._rest(consumer)
            consumer.choosy = True
            self._give_cursor(consumer)
            if not parked:
                self.wake(consumer)

    def _give_cursor(self, consumer: Consumer) -> None:
        consumer.cursor = self._cursor(consumer)
        self.cursors.append(consumer.cursor)

    def _cursor(self, consumer: Consumer) -> Cursor:
        ordered = self.queue.ordered
        return Cursor(self.queue, consumer) if ordered is None else ordered.cursor(consumer)

    def _rest(self, consumer: Consumer) -> None:
        if consumer.parked:
            return
        consumer.parked = True
        if consumer.cursor is not None:
            self.searching.remove(consumer.cursor)
        else:
            self.available.remove(consumer)

    def _see_priorities(self) -> None:
        self.prioritised = any(other.priority != self.all[0].priority for other in self.all)


def _priority(cursor: Cursor) -> int:
    return cursor.consumer.priority
