"""A lane: the available entries of one queue and one priority, oldest first, few of them in memory.

    returned    entries that somebody gave back: a small heap, merged by id
    head        the oldest entries, in memory
    tail        the ones behind them, in the journal only: a count, a size and a range of ids
    recent      the newest, in memory until the batch that they are in is durable; then they join the tail

An entry that a consumer with a selector takes from the middle stays where it is, as a hole: it is held, but no longer
available. One that is taken from within the tail is plucked: its id is remembered while the tail goes on before it.

A short lane has a head only. A lane that outgrows its queue's share of memory begins a tail; `head` is then filled
from the tail in chunks, and when the tail is used up before the newest entries were written, `recent` simply becomes
the head.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING

from broker.entry import AVAILABLE, GONE, Entry
from store.journal import ShardLog

if TYPE_CHECKING:
    from broker.queue import Queue

_ENTRY = itemgetter(1)

CHUNK = 1000
"""Entries that are read from the journal at a time."""


class Lane:
    """Available entries of one priority."""

    __slots__ = ("queue", "number", "head", "returned", "recent", "tail_count", "tail_size", "tail_after",
                 "tail_last", "holes", "plucked")

    def __init__(self, queue: Queue, number: int) -> None:
        self.queue = queue
        self.number = number
        self.head: deque[Entry] = deque()
        self.returned: list[tuple[int, Entry]] = []
        self.recent: deque[Entry] = deque()
        self.tail_count = 0
        self.tail_size = 0
        self.tail_after = 0  # the tail's entries have ids above this one
        self.tail_last = 0  # and up to this one
        self.holes = 0  # entries in memory that are not available
        self.plucked: set[int] = set()  # ids of the tail's range that are no longer in the tail

    def __len__(self) -> int:
        return len(self.head) + len(self.returned) + self.tail_count + len(self.recent) - self.holes

    def in_memory(self) -> int:
        """How many entries there are outside the tail, roughly."""
        return len(self.head) + len(self.returned)

    def paged(self) -> bool:
        """Whether new entries go to the journal rather than to the head."""
        return self.tail_count > 0 or len(self.recent) > 0

    def append(self, entry: Entry) -> None:
        """A new entry of a lane that is not paged: it stays in memory."""
        self.head.append(entry)

    def append_paged(self, entry: Entry) -> None:
        """A new entry that is in the journal, and is to leave memory once it is durable there."""
        self.recent.append(entry)

    def give_back(self, entry: Entry) -> None:
        """An entry that was taken goes back to where it was."""
        if entry.held:
            entry.held = False
            self.holes -= 1
            return
        head = self.head
        if entry.id > head[0].id if head else self.tail_count > 0:
            heapq.heappush(self.returned, (entry.id, entry))
        else:
            head.appendleft(entry)

    def pluck(self, entry: Entry, from_tail: bool) -> None:
        """Take an available entry from the middle; from_tail: it is one of `rows`."""
        if from_tail:
            self.plucked.add(entry.id)
            self.tail_count -= 1
            self.tail_size -= entry.size
        else:
            entry.held = True
            self.holes += 1

    def first(self, log: ShardLog) -> Entry | None:
        """The oldest entry, left in its place."""
        if not self.head:
            self._fill(log)
        if self.holes:
            self._drop_holes(log)
        head = self.head  # only now: filling may have replaced it
        if self.returned and (not head or self.returned[0][0] < head[0].id):
            return self.returned[0][1]
        return head[0] if head else None

    def take(self, log: ShardLog) -> Entry | None:
        """The oldest entry, removed."""
        if not self.head:
            self._fill(log)
        if self.holes:
            self._drop_holes(log)
        head = self.head  # only now: filling may have replaced it
        if self.returned and (not head or self.returned[0][0] < head[0].id):
            return heapq.heappop(self.returned)[1]
        return head.popleft() if head else None

    def _drop_holes(self, log: ShardLog) -> None:
        """Let go of the holes at the front."""
        while self.returned and self.returned[0][1].state != AVAILABLE:
            self._let_go(heapq.heappop(self.returned)[1])
        while self.head and self.head[0].state != AVAILABLE:
            self._let_go(self.head.popleft())
            if not self.head:
                self._fill(log)

    def _let_go(self, hole: Entry) -> None:
        hole.held = False
        self.holes -= 1

    def _fill(self, log: ShardLog) -> None:
        while self.tail_count > 0:
            rows = self.rows(self.tail_after)
            for entry in rows:
                self.tail_after = entry.id
                if entry.id in self.plucked:
                    self.plucked.discard(entry.id)
                    continue
                self.head.append(entry)
                self.tail_count -= 1
                self.tail_size -= entry.size
            if self.head:
                return
            if not rows:
                self.queue.lost_tail(self.tail_count, self.tail_size)
                self.tail_count = 0
                self.tail_size = 0
        self.plucked.clear()
        if self.recent:
            self.head, self.recent = self.recent, self.head

    def rows(self, after: int) -> list[Entry]:
        """The next entries of the journal's behind an id within the tail, among them those that were plucked."""
        queue = self.queue
        found: list[Entry] = []
        for entry_id, message_id, size, expiry, deliveries, flags in queue.log.scan(
                queue.queue_id, self.number, after, min(CHUNK, self.tail_count + len(self.plucked))):
            if entry_id > self.tail_last:
                break
            entry = Entry(queue, None, queue.queue_id, self.number, entry_id, message_id, size, expiry, deliveries,
                          flags)
            entry.stored = True
            entry.redelivered = deliveries > 0 or entry_id <= queue.suspect_id
            found.append(entry)
        return found

    def after(self, position: int) -> Entry | None:
        """The first available entry of the head with an id above `position`."""
        return _available_after(self.head, position)

    def recent_after(self, position: int) -> Entry | None:
        """Likewise, of the newest entries."""
        return _available_after(self.recent, position)

    def find(self, entry_id: int) -> tuple[Entry | None, bool]:
        """An available entry that nobody has given back, by its id; and whether it is one of `rows`."""
        for entry in (self.after(entry_id - 1), self.recent_after(entry_id - 1)):
            if entry is not None and entry.id == entry_id:
                return entry, False
        if self.tail_count and self.tail_after < entry_id <= self.tail_last and entry_id not in self.plucked:
            rows = self.rows(entry_id - 1)
            if rows and rows[0].id == entry_id:
                return rows[0], True
        return None, False

    def spill(self, last_id: int) -> list[Entry]:
        """The newest entries up to last_id are durable: they leave memory for the tail. Gives them. (Not those that
        were given back: cursors may know these very entries.)"""
        spilled: list[Entry] = []
        recent = self.recent
        while recent and recent[0].id <= last_id:
            entry = recent.popleft()
            if entry.state != AVAILABLE or entry.redelivered:
                if entry.state == AVAILABLE:
                    heapq.heappush(self.returned, (entry.id, entry))
                    for cursor in self.queue.consumers.cursors:
                        cursor.given_back(entry)
                else:
                    self._let_go(entry)
                if self.tail_count > 0 and entry.state != GONE:
                    self.plucked.add(entry.id)
                continue
            if self.tail_count == 0:
                self.tail_after = entry.id - 1
            self.tail_count += 1
            self.tail_size += entry.size
            self.tail_last = entry.id
            spilled.append(entry)
        return spilled

    def clear(self, log: ShardLog) -> Iterator[Entry]:
        """Empty the lane. Gives the entries that were in memory; those in the tail are gone from the journal too."""
        if self.tail_count > 0:
            first = self.tail_after + 1
            for kept in sorted(self.plucked):
                if first < kept <= self.tail_last:
                    log.discard(self.queue.queue_id, self.number, first, kept - 1)
                first = max(first, kept + 1)
            if first <= self.tail_last:
                log.discard(self.queue.queue_id, self.number, first, self.tail_last)
            self.tail_count = 0
            self.tail_size = 0
        self.plucked.clear()
        head, self.head = self.head, deque()
        returned, self.returned = self.returned, []
        recent, self.recent = self.recent, deque()
        entries = chain(head, map(_ENTRY, returned), recent)
        if not self.holes:
            return entries
        self.holes = 0
        left: list[Entry] = []
        for entry in entries:
            if entry.state == AVAILABLE:
                left.append(entry)
            else:
                entry.held = False
        return iter(left)

    def recovered(self, count: int, size: int, first_id: int, last_id: int) -> None:
        """What the journal holds of this lane, after a restart."""
        self.tail_count = count
        self.tail_size = size
        self.tail_after = first_id - 1
        self.tail_last = last_id


def _available_after(entries: deque[Entry], position: int) -> Entry | None:
    """The first available entry with an id above `position`, of entries in the order of their ids."""
    if not entries or entries[-1].id <= position:
        return None
    low = 0
    if entries[0].id <= position:
        high = len(entries) - 1  # its id is above the position
        while low < high:
            middle = (low + high) // 2
            if entries[middle].id > position:
                high = middle
            else:
                low = middle + 1
    while low < len(entries):
        entry = entries[low]
        if entry.state == AVAILABLE:
            return entry
        low += 1
    return None
