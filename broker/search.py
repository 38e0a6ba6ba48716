"""How a consumer that does not take just anything goes through its queue: one that selects, or only looks.

Its cursor remembers how far it has come in each lane, so that an entry is looked at once; what others give back later
is looked at again. Long searches go on bit by bit, as chores.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.entry import ACQUIRED, AVAILABLE, Entry

if TYPE_CHECKING:
    from broker.consumer import Consumer
    from broker.lane import Lane
    from broker.queue import Queue

STEPS = 200
"""Entries that are looked at in one go."""


def claim(queue: Queue, ids: list[int], consumer: Consumer) -> list[Entry]:
    """Acquire the available entries of these ids, wherever they stand, for a consumer that has had them before."""
    if queue.settings.browse_only:
        return []
    returned = {entry.id: (lane, entry) for lane in queue.lanes for _, entry in lane.returned
                if entry.state == AVAILABLE and not entry.held}
    claimed: list[Entry] = []
    for entry_id in ids:
        from_tail = False
        lane, entry = returned.get(entry_id, (queue.lanes[0], None))
        if entry is None:
            for lane in queue.lanes:
                entry, from_tail = lane.find(entry_id)
                if entry is not None:
                    break
        if entry is None or entry.expiry and entry.expiry <= queue.clock.now:
            continue
        if entry.message is None and not queue.load(entry):
            continue
        lane.pluck(entry, from_tail)
        queue.ready -= 1
        queue.ready_bytes -= entry.size
        queue.unsettled += 1
        queue.unsettled_bytes += entry.size
        entry.state = ACQUIRED
        entry.consumer = consumer
        if queue.groups is not None and entry.message is not None:
            queue.groups.acquired(entry, entry.message, consumer)
        claimed.append(entry)
    return claimed


class Cursor:
    """One consumer's way through a queue."""

    __slots__ = ("queue", "consumer", "unfinished", "from_tail", "loaded", "_positions", "_again", "_again_ids",
                 "_seen", "_rows", "_rows_of", "_steps")

    def __init__(self, queue: Queue, consumer: Consumer) -> None:
        self.queue = queue
        self.consumer = consumer
        self.unfinished = False  # a chore goes on with the search
        self.from_tail = False  # what was found last is in the journal's part of its lane
        self.loaded = False  # and its message was read for this
        self._positions = [0] * len(queue.lanes)  # ids up to these were looked at
        self._again: list[list[tuple[int, Entry]]] = []  # heaps of what was given back, by lane
        self._again_ids: list[set[int]] = []  # and which ids are in them
        for lane in queue.lanes:
            self._again.append(sorted(lane.returned))
            self._again_ids.append({entry_id for entry_id, _ in lane.returned})
        self._seen: set[int] = set()  # ids beyond the position that a browser has had from `_again`
        self._rows: deque[Entry] = deque()  # read ahead from the journal, of the lane `_rows_of`
        self._rows_of = 0
        self._steps = 0

    def find(self) -> Entry | None:
        """The next entry that the consumer wants, its message loaded. None: there is none, or none yet."""
        if self.unfinished:
            return None
        self._steps = STEPS
        lanes = self.queue.lanes
        for number in range(len(lanes) - 1, -1, -1):
            while self._steps > 0:
                entry = self._next(lanes[number])
                if entry is None:
                    break
                self._steps -= 1
                if self._wants(entry):
                    return entry
            if self._steps <= 0:
                self.unfinished = True
                self.queue.host.broker.chores.add(self._go_on())
                return None
        return None

    def given_back(self, entry: Entry) -> None:
        """An entry is available again, or now stands elsewhere, so that the cursor may have passed it."""
        entry_id, number = entry.id, entry.lane
        if entry_id in self._again_ids[number]:
            return
        if not self.consumer.browses or entry_id > self._positions[number] and entry_id not in self._seen:
            heapq.heappush(self._again[number], (entry_id, entry))
            self._again_ids[number].add(entry_id)

    def purged(self) -> None:
        """All that was available is being dropped, if only bit by bit."""
        for number in range(len(self._again)):
            self._again[number].clear()
            self._again_ids[number].clear()
        self._rows.clear()

    def go_back(self, passed: list[int]) -> None:
        """Look again at entries from these ids on, by lane; 0: at none of that lane. (Who browses has seen them.)"""
        if self.consumer.browses:
            return
        for number, entry_id in enumerate(passed):
            if not entry_id:
                continue
            if entry_id <= self._positions[number]:
                self._positions[number] = entry_id - 1
            for _, entry in self.queue.lanes[number].returned:
                self.given_back(entry)
        self._rows.clear()

    def _go_on(self) -> Iterator[None]:
        yield
        self.unfinished = False
        if self.consumer.attached:
            self.queue.dispatch()
            if not self.unfinished:
                self.consumer.searched()

    def _next(self, lane: Lane) -> Entry | None:
        """The next available entry that was not looked at, and now it was."""
        number = lane.number
        again = self._again[number]
        while again and again[0][1].state != AVAILABLE:
            self._again_ids[number].discard(heapq.heappop(again)[0])
        position = self._positions[number]
        ahead = self._ahead(lane, position)
        while ahead is not None and ahead.id in self._seen:
            self._seen.discard(ahead.id)
            position = self._positions[number] = ahead.id
            ahead = self._ahead(lane, position)
        if again and (ahead is None or again[0][0] < ahead.id):
            if self.from_tail and ahead is not None:
                self._rows.appendleft(ahead)
                self.from_tail = False
            entry = heapq.heappop(again)[1]
            self._again_ids[number].discard(entry.id)
            if self.consumer.browses and entry.id > position:
                self._seen.add(entry.id)
            return entry
        if ahead is not None:
            self._positions[number] = ahead.id
            if again and again[0][0] == ahead.id:  # given back to where it was
                self._again_ids[number].discard(heapq.heappop(again)[0])
        return ahead

    def _ahead(self, lane: Lane, position: int) -> Entry | None:
        """The first available entry behind a position, wherever in its lane it stands."""
        ahead = lane.after(position)
        self.from_tail = False
        if ahead is None and lane.tail_count > 0:
            ahead = self._row(lane, position)
            self.from_tail = ahead is not None
        return ahead if ahead is not None else lane.recent_after(position)

    def _row(self, lane: Lane, position: int) -> Entry | None:
        """The next entry of the part of the lane that is in the journal."""
        rows = self._rows
        if lane.number != self._rows_of:
            rows.clear()
            self._rows_of = lane.number
        while True:
            while rows:
                entry = rows.popleft()
                if entry.id > position and entry.id > lane.tail_after and entry.id not in lane.plucked:
                    return entry
            start = max(position, lane.tail_after)
            if start >= lane.tail_last:
                return None
            found = lane.rows(start)
            if not found:
                return None
            rows.extend(found)
            position = max(position, start)
            if found[-1].id in lane.plucked and all(entry.id in lane.plucked for entry in found):
                position = found[-1].id

    def _wants(self, entry: Entry) -> bool:
        queue = self.queue
        consumer = self.consumer
        if entry.expiry and entry.expiry <= queue.clock.now:
            return False
        if entry.refusals is not None and consumer in entry.refusals:
            return False
        self.loaded = entry.message is None
        if self.loaded and not queue.load(entry):
            return False
        message = entry.message
        assert message is not None
        if consumer.wants(message) and (consumer.browses or queue.groups is None
                                        or queue.groups.may_have(entry, message, consumer)):
            return True
        if self.loaded:
            queue.unload(entry)
        return False
