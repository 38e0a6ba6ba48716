"""Sets of command ids as ranges, and ids of 32 bits that go round (sequence-no, section 1.5)."""

from __future__ import annotations

from bisect import bisect_left

WRAP = 1 << 32


def wire(number: int) -> int:
    """A command id as it is sent. Within the client, ids go on counting."""
    return number % WRAP


def unwrap(number: int, near: int) -> int:
    """The command id that was sent as `number`: the one nearest to `near`."""
    half = WRAP // 2
    return near + (number - near + half) % WRAP - half


class Ranges:
    """A set of command ids, as few (first, last) pairs as there can be, in order."""

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int]] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_left(self.pairs, (number + 1, number + 1)) - 1
        return at >= 0 and self.pairs[at][1] >= number

    def add(self, first: int, last: int) -> None:
        """Add all from first to last."""
        pairs = self.pairs
        if pairs and pairs[-1][1] + 1 == first:  # what nearly always happens
            pairs[-1] = (pairs[-1][0], last)
            return
        start = bisect_left(pairs, (first, first))
        if start and pairs[start - 1][1] + 1 >= first:
            start -= 1
        stop = start
        while stop < len(pairs) and pairs[stop][0] <= last + 1:
            first, last = min(first, pairs[stop][0]), max(last, pairs[stop][1])
            stop += 1
        pairs[start:stop] = [(first, last)]

    def remove(self, first: int, last: int) -> None:
        """Remove all from first to last."""
        kept = []
        for one, other in self.pairs:
            if one < first:
                kept.append((one, min(other, first - 1)))
            if other > last:
                kept.append((max(one, last + 1), other))
        self.pairs = kept

    def on_wire(self) -> list[tuple[int, int]]:
        """The pairs as a sequence set has them. A range that goes over the end of the numbers is two."""
        found = []
        for first, last in self.pairs:
            if wire(first) <= wire(last):
                found.append((wire(first), wire(last)))
            else:
                found += [(wire(first), WRAP - 1), (0, wire(last))]
        return found


def of(numbers: list[int]) -> Ranges:
    """The set of these."""
    found = Ranges()
    for number in sorted(numbers):
        found.add(number, number)
    return found
