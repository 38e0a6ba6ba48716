"""Checks of passwords are slow on purpose: no address may have so many under way that others wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

AT_ONCE = 8  # checks of one address
WAITING = 1000  # more of them, which wait for their turn


class Turns:
    """Starts work in turns, by address. Whoever is started must give its turn back, once."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._at_once = at_once
        self._most = waiting
        self._busy: dict[str, int] = {}
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._starting: set[str] = set()

    def take(self, address: str, work: Callable[[], None]) -> bool:
        """Start work, now or when its turn comes. False: too much waits, and this will never start."""
        waiting = self._waiting.setdefault(address, deque())
        if len(waiting) >= self._most:
            return False
        waiting.append(work)
        self._start(address)
        return True

    def give_back(self, address: str) -> None:
        self._busy[address] -= 1
        self._start(address)

    def _start(self, address: str) -> None:
        """Not one within the other: work that is over at once comes back here, and there may be a thousand of it."""
        if address in self._starting:
            return
        self._starting.add(address)
        waiting = self._waiting[address]
        while waiting and self._busy.get(address, 0) < self._at_once:
            self._busy[address] = self._busy.get(address, 0) + 1
            waiting.popleft()()
        self._starting.discard(address)
        if not self._busy.get(address):
            self._busy.pop(address, None)
            del self._waiting[address]
