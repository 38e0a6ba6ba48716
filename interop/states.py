"""What links and bridges are doing, since when, and how long they wait until they try again."""

from __future__ import annotations

import logging
import random
import time

UP = "up"
DOWN = "down"
CONNECTING = "connecting"
WAITING = "waiting"
PAUSED = "paused"
STOPPED = "stopped"
BLOCKED = "blocked by message"

STABLE = 10.0
"""Seconds after which something that was up has proved itself: the next wait is a short one again."""


class State:
    """A state, told in the log when it changes: once, however often it is set."""

    def __init__(self, what: str, logger: logging.Logger) -> None:
        self.what = what  # whose state it is, for people
        self.logger = logger
        self.name = STOPPED
        self.since = _now()  # ms since the epoch
        self.text = ""  # why it is so
        self.last_error = ""

    def set(self, name: str, text: str = "") -> None:
        """CONNECTING is no news after DOWN or BLOCKED: what is down tries all the time. WAITING is for something else
        that tells itself what it is up to."""
        if name in (DOWN, BLOCKED) and text:
            self.last_error = text
        if name == self.name or (name == CONNECTING and self.name in (DOWN, BLOCKED)):
            if text != self.text:
                self.logger.debug("%s is still %s: %s", self.what, self.name, text)
            self.text = text or self.text
            return
        self.name = name
        self.since = _now()
        self.text = text
        if name not in (CONNECTING, WAITING):
            level = logging.WARNING if name in (DOWN, BLOCKED) else logging.INFO
            self.logger.log(level, "%s is %s%s", self.what, name, f": {text}" if text else "")


class Backoff:
    """Waits that double from try to try, up to the longest, each cut by chance to between half and all of it: so that
    many who lost the same broker do not come back all at once."""

    def __init__(self, shortest: float, longest: float) -> None:
        self.shortest = shortest
        self.longest = max(shortest, longest)
        self.tries = 0

    def next(self) -> float:
        """Seconds to wait now."""
        seconds: float = min(self.longest, self.shortest * 2 ** min(self.tries, 40))
        self.tries += 1
        return seconds * random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        self.tries = 0


def _now() -> int:
    return int(time.time() * 1000)
