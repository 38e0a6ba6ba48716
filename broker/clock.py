"""Time as the broker sees it: handed in from outside, so that a test can turn it.

`Clock.now` is in milliseconds since the epoch and is set by the server at the start of each turn of the event loop. It
follows the system's clock, but does not jump with it: heartbeats, deadlines and expiries would all be wrong at once.
`Timers` calls back when a time has come; the server asks it when to wake up next.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

NEAR: Final = 1000.0
"""Differences of so many ms from the system's clock are made good at once."""

FAR: Final = 86_400_000.0
"""A machine whose clock is set after the start may be years behind: what is so many ms ahead counts at once, too."""

HASTE: Final = 0.5
"""For other differences, the clock runs by so much faster or slower until they are gone."""


class Clock:
    """The current time, ms since the epoch; it stands still within a turn."""

    __slots__ = ("now", "ahead", "_exact", "_up")

    def __init__(self) -> None:
        self._exact = time.time() * 1000  # ms
        self._up = time.monotonic() * 1000  # ms, when that was so
        self.ahead = 0.0  # ms that the system's clock is ahead of us
        self.now = int(self._exact)

    def tick(self) -> None:
        """Read the system's clocks."""
        up = time.monotonic() * 1000
        passed = up - self._up
        self._up = up
        wall = time.time() * 1000
        ahead = wall - self._exact - passed
        if -NEAR <= ahead <= NEAR or ahead > FAR:
            self._exact = wall
            self.ahead = 0.0
        else:
            self._exact += passed * (1 + HASTE if ahead > 0 else 1 - HASTE)
            self.ahead = ahead
        self.now = int(self._exact)


class Timer:
    """Something to be called at `when`, unless cancelled before."""

    __slots__ = ("when", "callback", "cancelled")

    def __init__(self, when: int, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.callback = None  # what it holds can go now, not when its time has come


@mypyc_attr(allow_interpreted_subclasses=True)
class Alarm:
    """Told when the earliest timer changes. The server sets its own timer then."""

    def wake_at(self, when: int) -> None:
        """Call `Timers.run` at `when` (ms since the epoch) or soon after."""


class Timers:
    """All timers of a broker, in a heap."""

    def __init__(self, clock: Clock, alarm: Alarm) -> None:
        self.clock = clock
        self.alarm = alarm
        self.heap: list[tuple[int, int, Timer]] = []
        self.count = 0
        self.asked = 0  # what the alarm was last set to; 0 for nothing

    def at(self, when: int, callback: Callable[[], None]) -> Timer:
        """Call back at `when`, ms since the epoch."""
        timer = Timer(when, callback)
        self.count += 1
        heapq.heappush(self.heap, (when, self.count, timer))
        if not self.asked or when < self.asked:
            self.asked = when
            self.alarm.wake_at(when)
        return timer

    def after(self, milliseconds: int, callback: Callable[[], None]) -> Timer:
        return self.at(self.clock.now + milliseconds, callback)

    def run(self, most: int = 1000) -> None:
        """Call what is due, at most so many, and set the alarm for the rest."""
        now = self.clock.now
        heap = self.heap
        self.asked = 0
        try:
            while heap and (heap[0][2].cancelled or (heap[0][0] <= now and most > 0)):
                timer = heapq.heappop(heap)[2]
                callback = timer.callback
                if not timer.cancelled and callback is not None:
                    most -= 1
                    callback()
        finally:  # should one fail, the others still have their turn
            if heap and (not self.asked or heap[0][0] < self.asked):
                self.asked = heap[0][0]
                self.alarm.wake_at(self.asked)
