"""What is to be written next: a batch in memory, open or sealed."""

from __future__ import annotations

from collections.abc import Callable

from store.journal import StoredEntry, StoredMessage
from store.records import LARGEST_ID, META_DISCARD, pack_entry_key


class Range:
    """Entries that are being forgotten: those whose keys are from start to end, both included."""

    __slots__ = ("queue_id", "start", "end", "transient_before", "position")

    def __init__(self, queue_id: int, start: bytes, end: bytes, transient_before: int = 0) -> None:
        self.queue_id = queue_id
        self.start = start
        self.end = end
        self.transient_before = transient_before  # not 0: only transient entries of smaller ids, among others
        self.position = start  # nothing that is to be forgotten is stored before this key

    def covers(self, key: bytes) -> bool:
        """Is whatever has this key forgotten?"""
        return self.transient_before == 0 and self.start <= key <= self.end

    def mark(self) -> bytes:
        """The key in `meta` that makes the work be resumed after a crash."""
        return META_DISCARD + self.start + self.end


def lane_range(queue_id: int, lane: int, first_id: int, last_id: int) -> Range:
    return Range(queue_id, pack_entry_key(queue_id, lane, first_id), pack_entry_key(queue_id, lane, last_id))


def queue_range(queue_id: int) -> Range:
    return Range(queue_id, pack_entry_key(queue_id, 0, 0), pack_entry_key(queue_id, 255, LARGEST_ID))


class Batch:
    """All that was asked for since the last batch was sealed, in the form that costs the least to ask for.

    Within a batch the deletes come before the puts: an entry can be dequeued and enqueued again (paged in and out), not
    the other way round, since that cancels it out.
    """

    __slots__ = ("entries", "messages", "moved", "deletes", "changed", "settings", "events", "branches", "records",
                 "dropped", "ranges", "callbacks", "cancelled", "scheduled")

    def __init__(self) -> None:
        self.scheduled = False  # of the open batch: somebody is going to seal it
        self.clear()

    def clear(self) -> None:
        self.entries: dict[int, StoredEntry] = {}
        self.messages: dict[int, StoredMessage] = {}  # those of entries; and shared ones whose entries are cancelled
        # Unshared messages that one entry takes over from another: how many of `entries` hold them
        self.moved: dict[int, int] = {}
        self.deletes: dict[int, StoredEntry] = {}
        self.changed: dict[int, StoredEntry] = {}  # delivery counts
        self.settings: dict[str, bytes | None] = {}  # the record, or None to delete it
        self.events: list[tuple[str, bytes | None, int]] = []  # for those who watch settings
        self.branches: dict[int, bytes | None] = {}  # the record, or None to delete it
        self.records: dict[bytes, bytes | None] = {}  # by number and key: the value, or None to delete it
        self.dropped: list[int] = []  # numbers whose records go, all of them
        self.ranges: list[Range] = []
        self.callbacks: list[Callable[[], None]] = []
        self.cancelled: list[StoredEntry] = []  # sealed, then cancelled out while the disk was full

    def is_empty(self) -> bool:
        """Is there nothing to write? (There may be callbacks.)"""
        return not (self.entries or self.deletes or self.changed or self.settings or self.branches or self.records
                    or self.dropped or self.ranges or self.cancelled)

    def take(self) -> Batch:
        """Seal: what there is as a batch of its own, leaving this one empty."""
        sealed = Batch()
        sealed.entries, sealed.messages, sealed.moved = self.entries, self.messages, self.moved
        sealed.deletes, sealed.changed, sealed.settings = self.deletes, self.changed, self.settings
        sealed.events, sealed.ranges, sealed.callbacks = self.events, self.ranges, self.callbacks
        sealed.branches, sealed.cancelled = self.branches, self.cancelled
        sealed.records, sealed.dropped = self.records, self.dropped
        self.clear()
        return sealed

    def hold_again(self, message_id: int, known: bool) -> None:
        """An entry takes over an unshared message; known: `messages` had it before."""
        if message_id in self.moved:
            self.moved[message_id] += 1
        else:
            self.moved[message_id] = 2 if known else 1

    def let_go(self, message_id: int) -> None:
        """An entry that held an unshared message is cancelled out."""
        if message_id in self.moved and self.moved[message_id] > 1:
            self.moved[message_id] -= 1
        else:
            self.moved.pop(message_id, None)
            self.messages.pop(message_id, None)

    def absorb(self, later: Batch) -> None:
        """Make one batch of this one, which could not be written, and the next.

        What consumers settled meanwhile cancels out what could not be written, so that a store without room gets along
        by itself once its queues are emptied.
        """
        for entry_id, entry in later.deletes.items():
            cancelled = self.entries.pop(entry_id, None)
            if cancelled is None:
                self.deletes[entry_id] = entry
            else:
                self.cancelled.append(cancelled)
        self.entries.update(later.entries)
        for entry_id, entry in later.changed.items():
            (self.entries if entry_id in self.entries else self.changed)[entry_id] = entry
        self.messages.update(later.messages)
        self._count_holders()
        self.settings.update(later.settings)
        self.branches.update(later.branches)
        self.records.update(later.records)
        self.dropped += later.dropped
        self.events += later.events
        self.ranges += later.ranges
        self.callbacks += later.callbacks

    def _count_holders(self) -> None:
        """Find out anew which messages are to be written, and which of the unshared ones are moved."""
        holders: dict[int, int] = {}
        for entry in self.entries.values():
            holders[entry.message_id] = holders.get(entry.message_id, 0) + 1
        self.messages = {key: message for key, message in self.messages.items() if key in holders}
        self.moved = {key: count for key, count in holders.items()
                      if not key & 1 and (count > 1 or key not in self.messages)}
