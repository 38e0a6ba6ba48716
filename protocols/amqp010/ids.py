"""Command ids: 32 bits on the wire, where they begin anew after 2**32 - 1 (RFC 1982); here they go on counting."""

from __future__ import annotations

from typing import Final

MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000

Ranges = list[tuple[int, int]]
"""First and last ids of ranges, both included."""


def extend(wire: int, near: int) -> int:
    """The id that a number on the wire stands for: of those that end in it, the one nearest to `near`."""
    difference = (wire - near) & MASK
    return near + difference - (0x100000000 if difference >= _HALF else 0)


def extend_all(ranges: Ranges, near: int) -> Ranges:
    """Ranges from the wire, those that are turned round (first behind last) left out."""
    found = []
    for first, last in ranges:
        low, high = extend(first, near), extend(last, near)
        if low <= high:
            found.append((low, high))
    return found


def on_wire(ranges: Ranges) -> Ranges:
    return [(first & MASK, last & MASK) for first, last in ranges]


def add(ranges: Ranges, number: int) -> None:
    """Add an id to ranges in order, usually behind their end."""
    if ranges:
        first, last = ranges[-1]
        if number == last + 1:
            ranges[-1] = (first, number)
            return
        if first <= number <= last:
            return
    ranges.append((number, number))


class Received:
    """Which of a growing number of ids the peer has named so far."""

    __slots__ = ("below", "_beyond")

    def __init__(self) -> None:
        self.below = 0  # all ids below this one were named
        self._beyond: set[int] = set()

    def take(self, first: int, last: int) -> list[int]:
        """Note that a range was named. Gives the ids of it that had not been."""
        first = max(first, self.below)
        if first > last:
            return []
        if not self._beyond:
            if first == self.below:
                self.below = last + 1
                return list(range(first, last + 1))
            self._beyond.update(range(first, last + 1))
            return list(range(first, last + 1))
        beyond = self._beyond
        fresh = [number for number in range(first, last + 1) if number not in beyond]
        beyond.update(fresh)
        while self.below in beyond:
            beyond.discard(self.below)
            self.below += 1
        return fresh
