"""A lane whose entries have an order of their own, by rank, and that knows each by its place: for the kinds of queues
that replace an entry in the middle (broker.last_value) or insert one there (broker.sorted).

All its entries are in memory, a few hundred bytes each, and only their messages are left to the journal when there are
many: `tail_count` and `tail_size` are of those. After a restart the ranks are found again from the messages.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from broker.entry import AVAILABLE, Entry
from broker.lane import Lane
from broker.message import Message
from broker.search import Cursor
from broker.view import View
from store.journal import ShardLog

if TYPE_CHECKING:
    from broker.consumer import Consumer
    from broker.queue import Queue

Rank = tuple[str, int]
"""What entries are ordered by: a text, then their ids."""

FIRST: Final = ("", -1)
"""Before all ranks."""

BLOCK = 500
"""Entries of a block, or up to twice as many."""

AT_ONCE: Final = 100
"""Messages that are read in one go to find their ranks again."""


class Ordered:
    """Entries in the order of their ranks, in blocks, so that none is far to move."""

    __slots__ = ("by_id", "_ranks", "_entries", "_lasts")

    def __init__(self) -> None:
        self.by_id: dict[int, Entry] = {}
        self._ranks: list[list[Rank]] = []
        self._entries: list[list[Entry]] = []
        self._lasts: list[Rank] = []  # of each block

    def add(self, rank: Rank, entry: Entry) -> None:
        self.by_id[rank[1]] = entry
        number = bisect_left(self._lasts, rank)
        if number == len(self._lasts):
            if not number:
                self._ranks.append([rank])
                self._entries.append([entry])
                self._lasts.append(rank)
                return
            number -= 1
        ranks = self._ranks[number]
        at = bisect_left(ranks, rank)
        ranks.insert(at, rank)
        self._entries[number].insert(at, entry)
        self._lasts[number] = ranks[-1]
        if len(ranks) > 2 * BLOCK:
            self._split(number)

    def _split(self, number: int) -> None:
        ranks, entries = self._ranks[number], self._entries[number]
        self._ranks[number:number + 1] = [ranks[:BLOCK], ranks[BLOCK:]]
        self._entries[number:number + 1] = [entries[:BLOCK], entries[BLOCK:]]
        self._lasts.insert(number, ranks[BLOCK - 1])

    def remove(self, rank: Rank) -> bool:
        """Gives whether it was there."""
        if self.by_id.pop(rank[1], None) is None:
            return False
        number = bisect_left(self._lasts, rank)
        ranks = self._ranks[number]
        at = bisect_left(ranks, rank)
        del ranks[at]
        del self._entries[number][at]
        if ranks:
            self._lasts[number] = ranks[-1]
        else:
            del self._ranks[number], self._entries[number], self._lasts[number]
        return True

    def first(self) -> Entry | None:
        return self._entries[0][0] if self._entries else None

    def after(self, rank: Rank) -> Entry | None:
        """The first one behind a rank."""
        number = bisect_right(self._lasts, rank)
        if number == len(self._lasts):
            return None
        return self._entries[number][bisect_right(self._ranks[number], rank)]

    def all(self) -> Iterator[Entry]:
        for block in self._entries:
            yield from block


class OrderedLane(Lane):
    """The one lane of a queue that has an order of its own."""

    __slots__ = ("index",)

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue, 0)
        self.index = Ordered()

    # What the kinds of queues decide.

    def rank(self, entry: Entry) -> Rank:
        """An entry's place; it has been `arrived`."""
        raise NotImplementedError

    def arrived(self, entry: Entry, message: Message) -> None:
        """A new entry, before it is delivered or waits."""
        raise NotImplementedError

    def outdated(self, entry: Entry) -> bool:
        """Whether an entry that was acquired need not come back."""
        return False

    def gone(self, entry: Entry) -> None:
        """An entry is settled, expired or dropped."""

    # What a lane does.

    def __len__(self) -> int:
        return len(self.index.by_id)

    def paged(self) -> bool:
        return False

    def in_memory(self) -> int:
        return len(self.index.by_id) - self.tail_count

    def append(self, entry: Entry) -> None:
        rank = self.rank(entry)
        self.index.add(rank, entry)
        for cursor in self.queue.consumers.cursors:
            assert isinstance(cursor, OrderedCursor)
            cursor.arrived(rank, entry)

    def append_paged(self, entry: Entry) -> None:
        self.recent.append(entry)
        self.append(entry)

    def give_back(self, entry: Entry) -> None:
        self.index.add(self.rank(entry), entry)
        if entry.message is None:
            self.tail_count += 1
            self.tail_size += entry.size

    def pluck(self, entry: Entry, from_tail: bool) -> None:
        self.discard(entry, from_tail)

    def discard(self, entry: Entry, from_tail: bool) -> bool:
        """Take an entry out, wherever it stands; from_tail: its message was not in memory. Gives whether it was in."""
        if not self.index.remove(self.rank(entry)):
            return False
        if from_tail:
            self.tail_count -= 1
            self.tail_size -= entry.size
        return True

    def first(self, log: ShardLog) -> Entry | None:
        return self.index.first()

    def take(self, log: ShardLog) -> Entry | None:
        entry = self.index.first()
        if entry is not None:
            self.discard(entry, entry.message is None)
        return entry

    def find(self, entry_id: int) -> tuple[Entry | None, bool]:
        entry = self.index.by_id.get(entry_id)
        return entry, entry is not None and entry.message is None

    def spill(self, last_id: int) -> list[Entry]:
        spilled: list[Entry] = []
        recent = self.recent
        while recent and recent[0].id <= last_id:
            entry = recent.popleft()
            if entry.state == AVAILABLE and entry.message is not None:
                self.tail_count += 1
                self.tail_size += entry.size
                spilled.append(entry)
        return spilled

    def clear(self, log: ShardLog) -> Iterator[Entry]:
        index, self.index = self.index, Ordered()
        self.recent = deque()
        self.tail_count = 0
        self.tail_size = 0
        return index.all()

    # After a restart.

    def rebuild(self) -> Iterator[None]:
        """Find the places of what the journal holds, bit by bit, from its messages."""
        queue = self.queue
        after = self.tail_after
        while after < self.tail_last:
            rows = self.rows(after)
            if not rows:
                break
            for number, entry in enumerate(rows):
                self._take_up(entry)
                if number % AT_ONCE == 0:
                    yield
            after = rows[-1].id
        missing = self.tail_count - len(self.index.by_id)
        if missing:
            queue.lost_tail(missing, self.tail_size - sum(entry.size for entry in self.index.all()))
            self.tail_count -= missing

    def _take_up(self, entry: Entry) -> None:
        queue = self.queue
        entry.key = None
        if not queue.load(entry):
            self.tail_count -= 1
            self.tail_size -= entry.size
            queue.ready -= 1
            queue.ready_bytes -= entry.size
            return
        message = entry.message
        assert message is not None
        self.arrived(entry, message)
        queue.unload(entry)
        self.index.add(self.rank(entry), entry)

    # Those who do not take just anything.

    def cursor(self, consumer: Consumer) -> Cursor:
        return OrderedCursor(self, consumer)


class OrderedCursor(Cursor):
    """One consumer's way through a queue with an order of its own: what comes in behind it, it goes back for."""

    __slots__ = ("_lane", "_rank", "_behind", "_behind_ids")

    def __init__(self, lane: OrderedLane, consumer: Consumer) -> None:
        super().__init__(lane.queue, consumer)
        self._lane = lane
        self._rank: Rank = FIRST
        self._behind: list[tuple[Rank, Entry]] = []
        self._behind_ids: set[int] = set()

    def arrived(self, rank: Rank, entry: Entry) -> None:
        """There is a new entry."""
        if rank <= self._rank:
            heapq.heappush(self._behind, (rank, entry))
            self._behind_ids.add(entry.id)

    def given_back(self, entry: Entry) -> None:
        if self.consumer.browses or entry.id in self._behind_ids:
            return
        self.arrived(self._lane.rank(entry), entry)

    def purged(self) -> None:
        self._behind.clear()
        self._behind_ids.clear()

    def go_back(self, passed: list[int]) -> None:
        if not self.consumer.browses:
            self._rank = FIRST

    def _next(self, lane: Lane) -> Entry | None:
        behind = self._behind
        while behind and behind[0][1].state != AVAILABLE:
            self._behind_ids.discard(heapq.heappop(behind)[1].id)
        entry = self._lane.index.after(self._rank)
        if behind and (entry is None or behind[0][0] < self._lane.rank(entry)):
            entry = heapq.heappop(behind)[1]
            self._behind_ids.discard(entry.id)
        elif entry is not None:
            self._rank = self._lane.rank(entry)
        self.from_tail = entry is not None and entry.message is None
        return entry


def header_text(message: Message, name: str) -> str | None:
    """What a message's header says, as text; None when it has none. `qpid.subject` is the subject of 1.0 and 0-10."""
    view = message.view()
    value = _value(view, name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "surrogateescape")
    return str(value)


def _value(view: View, name: str) -> Any:
    value = view.headers.get(name)
    if value is None and name == "qpid.subject":
        return view.subject
    return value
