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
        self.busy = False  # a turn is due

    def add(self, chore: Iterator[None]) -> None:
        """Take on a chore: it yields after each small step."""
        self.waiting.append(chore)
        if not self.busy:
            self.busy = True
            self.scheduler.call_soon(self._turn)

    def _turn(self) -> None:
        end = time.perf_counter() + SLICE
        waiting = self.waiting
        try:
            while waiting and time.perf_counter() < end:
                chore = waiting.popleft()
                try:
                    next(chore)
                except StopIteration:
                    continue
                waiting.appendleft(chore)
        finally:  # a chore that fails is dropped, the others go on
            self.busy = bool(waiting)
            if waiting:
                waiting.rotate(-1)
                self.scheduler.call_soon(self._turn)

    def finish(self) -> None:
        """Do all that is left, now."""
        while self.waiting:
            for _ in self.waiting.popleft():
                pass
