"""Long work done bit by bit, so that the event loop is never held up for long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from store.journal import Scheduler

SLICE = 0.005
"""Seconds that the chores of one turn take together."""


class Chores:
    """Generators that are advanced a few milliseconds a turn until they end."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.waiting: deque[Iterator[None]] = deque()

    def add(self, chore: Iterator[None]) -> None:
        """Take on a chore: it yields after each small step."""
        self.waiting.append(chore)
        if len(self.waiting) == 1:
            self.scheduler.call_soon(self._turn)

    def _turn(self) -> None:
        end = time.perf_counter() + SLICE
        waiting = self.waiting
        while waiting and time.perf_counter() < end:
            try:
                next(waiting[0])
            except StopIteration:
                waiting.popleft()
        if waiting:
            waiting.rotate(-1)
            self.scheduler.call_soon(self._turn)
