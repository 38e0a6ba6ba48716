"""The messages of an LMDB store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import lmdb

from store.journal import TRANSIENT, Lane, LogListener, ShardLog, StoreDamaged, StoredEntry, StoredMessage
from store.lmdb_batch import Range, lane_range, queue_range
from store.lmdb_files import Files, damaged
from store.lmdb_writer import Writer
from store.records import (
    ADVICE,
    ENTRY_KEY,
    LARGEST_ID,
    META_DISCARD,
    Found,
    branch_number,
    found_entry,
    found_record,
    message_key,
    number,
    pack_entry_key,
    record_key,
    split_entry_key,
)

STEP_SECONDS = 0.01
LOOK_AT_CLOCK: Final = 256
"""Entries between two looks at the clock."""


class LmdbLog(ShardLog):
    """What is buffered goes into the writer's open batch, and nothing else happens in the calls that buffer."""

    def __init__(self, files: Files, writer: Writer, listener: LogListener, clean: bool) -> None:
        """Raises StoreDamaged."""
        super().__init__()
        self.clean = clean
        self.files = files
        self.writer = writer
        self.open = writer.open  # one object for the life of the log; sealing empties it
        writer.listener = listener
        try:
            self._open()
        except lmdb.Error as error:
            raise damaged(files.folder, error) from None
        self.first_new_id = self.last_id + 1

    def _open(self) -> None:
        """Find the last id that was given out, and what was being discarded."""
        self.last_id = self.writer.log.last_id
        with self.files.env.begin() as txn:
            with txn.cursor(db=self.files.messages) as cursor:
                if cursor.last():
                    self.last_id = max(self.last_id, int.from_bytes(cursor.key()[:8], "big") >> 1)
            with txn.cursor(db=self.files.meta) as cursor:
                marks = [key for key, _ in cursor if key.startswith(META_DISCARD)]
        self.writer.log = self
        for mark in marks:
            keys = mark[len(META_DISCARD):]
            if len(keys) != 2 * ENTRY_KEY:
                raise StoreDamaged(f"the mark of a discard has {len(keys)} bytes instead of {2 * ENTRY_KEY}. {ADVICE}")
            queue_id = int.from_bytes(keys[:8], "big")
            self.writer.discard(Range(queue_id, keys[:ENTRY_KEY], keys[ENTRY_KEY:]), resumed=True)

    # What is buffered

    def enqueue(self, entry: StoredEntry, message: StoredMessage | None) -> None:
        batch = self.open
        batch.entries[entry.id] = entry
        message_id = entry.message_id
        if message is not None:
            known = len(batch.messages)
            batch.messages[message_id] = message
            if not message_id & 1 and (len(batch.messages) == known or batch.moved and message_id in batch.moved):
                batch.hold_again(message_id, len(batch.messages) == known)
        elif not message_id & 1:
            batch.hold_again(message_id, message_id in batch.messages)
        if not batch.scheduled:
            self.writer.schedule()

    def dequeue(self, entry: StoredEntry) -> bool:
        batch = self.open
        if batch.entries.pop(entry.id, None) is not None:
            message_id = entry.message_id
            if not message_id & 1:
                if batch.moved:
                    batch.let_go(message_id)
                else:
                    batch.messages.pop(message_id, None)
            return True
        batch.deletes[entry.id] = entry
        if not batch.scheduled:
            self.writer.schedule()
        return False

    def delivered(self, entry: StoredEntry) -> None:
        if entry.id in self.open.entries:
            self.open.entries[entry.id] = entry
        else:
            self.open.changed[entry.id] = entry
            self.writer.schedule()

    def discard(self, queue_id: int, lane: int, first_id: int, last_id: int) -> None:
        self.writer.discard(lane_range(queue_id, lane, first_id, last_id), resumed=False)

    def drop(self, queue_id: int) -> None:
        self.open.dropped.append(queue_id)
        self.writer.discard(queue_range(queue_id), resumed=False)

    def keep_branch(self, branch_id: int, record: bytes) -> None:
        self.open.branches[branch_id] = record
        self.writer.schedule()

    def forget_branch(self, branch_id: int) -> None:
        self.open.branches[branch_id] = None
        self.writer.schedule()

    def keep_record(self, number: int, key: bytes, value: bytes) -> None:
        self.open.records[record_key(number, key)] = value
        if not self.open.scheduled:
            self.writer.schedule()

    def forget_record(self, number: int, key: bytes) -> None:
        self.open.records[record_key(number, key)] = None
        if not self.open.scheduled:
            self.writer.schedule()

    def commit(self, callback: Callable[[], None]) -> None:
        self.open.callbacks.append(callback)
        self.writer.schedule()

    # What is read

    def read(self, message_id: int) -> bytes:
        for batch in (self.open, self.writer.sealed):
            if batch is not None and message_id in batch.messages:
                return b"".join(batch.messages[message_id].stored_form())
        key = message_key(message_id)
        try:
            with self.files.env.begin() as txn:
                value = txn.get(key, db=self.files.messages)
            return self._read_pieces(key) if value is None else value
        except lmdb.Error as error:
            raise damaged(self.files.folder, error) from None

    def _read_pieces(self, prefix: bytes) -> bytes:
        message_id = int.from_bytes(prefix, "big")
        pieces: list[memoryview] = []
        with self.files.env.begin(buffers=True) as txn, txn.cursor(db=self.files.messages) as cursor:
            if not cursor.set_range(prefix) or bytes(cursor.key()[:8]) != prefix:
                raise KeyError(message_id)
            length = number(bytes(cursor.value()), 8, f"the length of message {message_id}")
            while cursor.next() and bytes(cursor.key()[:8]) == prefix:
                pieces.append(cursor.value())
            form = b"".join(pieces)
        if len(form) != length:
            raise StoreDamaged(f"message {message_id} has {len(form)} bytes instead of {length}. {ADVICE}")
        return form

    def branches(self) -> list[tuple[int, bytes]]:
        try:
            with self.files.env.begin() as txn, txn.cursor(db=self.files.branches) as cursor:
                return [(branch_number(key), record) for key, record in cursor]
        except lmdb.Error as error:
            raise damaged(self.files.folder, error) from None

    def records(self, number: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        prefix = record_key(number, b"")
        try:
            with self.files.env.begin() as txn, txn.cursor(db=self.files.sessions) as cursor:
                if cursor.set_range(prefix):
                    for key, value in cursor:
                        if key[:8] != prefix:
                            break
                        found.append((key[8:], value))
        except lmdb.Error as error:
            raise damaged(self.files.folder, error) from None
        return found

    def scan(self, queue_id: int, lane: int, after_id: int, limit: int) -> list[Found]:
        found: list[Found] = []
        start = pack_entry_key(queue_id, lane, after_id + 1)
        end = pack_entry_key(queue_id, lane, LARGEST_ID)
        try:
            with self.files.env.begin() as txn, txn.cursor(db=self.files.entries) as cursor:
                while start and len(found) < limit:
                    start = self._scan_run(cursor, start, end, queue_id, limit, found)
        except lmdb.Error as error:
            raise damaged(self.files.folder, error) from None
        return found

    def _scan_run(self, cursor: lmdb.Cursor[bytes], start: bytes, end: bytes, queue_id: int, limit: int,
                  found: list[Found]) -> bytes:
        """Add entries up to the next discarded range; gives where to go on behind that, b"" for nowhere."""
        ranges = self.writer.ranges.get(queue_id)
        if not cursor.set_range(start):
            return b""
        for key, value in cursor:
            if key > end:
                return b""
            if ranges is not None:
                behind = _behind_discarded(ranges, key)
                if behind:
                    return behind if behind <= end else b""
            entry = found_entry(key, value)
            if entry[5] & TRANSIENT and entry[0] < self.first_new_id:
                continue  # of an earlier life of the store, about to be forgotten
            found.append(entry)
            if len(found) >= limit:
                break
        return b""

    # Recovery

    def recover(self, queues: set[int]) -> Iterator[list[Lane] | None]:
        lanes: dict[bytes, Lane] = {}
        transient: dict[bytes, tuple[bytes, bytes]] = {}  # by lane: the keys of its first and last transient entry
        position = b"\0"
        while position:
            position = self._recover_step(position, queues, lanes, transient)
            yield None
        self._drop_strange_records(queues)
        for prefix, (first, last) in transient.items():
            queue_id = int.from_bytes(prefix[:8], "big")
            before = self.first_new_id if prefix in lanes else 0
            self.writer.discard(Range(queue_id, first, last, before), resumed=True)
        yield list(lanes.values())

    def _drop_strange_records(self, queues: set[int]) -> None:
        """Forget the records of numbers that are no queue's."""
        at = b"\0"
        try:
            with self.files.env.begin() as txn, txn.cursor(db=self.files.sessions) as cursor:
                while cursor.set_range(at):
                    owner, _ = found_record(cursor.key())
                    if owner not in queues:
                        self.open.dropped.append(owner)
                        self.writer.schedule()
                    at = record_key(owner + 1, b"")
        except lmdb.Error as error:
            raise damaged(self.files.folder, error) from None

    def _recover_step(self, position: bytes, queues: set[int], lanes: dict[bytes, Lane],
                      transient: dict[bytes, tuple[bytes, bytes]]) -> bytes:
        """Go over entries for some 10 ms; gives where to go on, b"" for nowhere."""
        deadline = time.perf_counter() + STEP_SECONDS
        try:
            with self.files.env.begin() as txn, txn.cursor(db=self.files.entries) as cursor:
                while position and time.perf_counter() < deadline:
                    position = self._recover_run(cursor, position, deadline, queues, lanes, transient)
        except lmdb.Error as error:
            raise damaged(self.files.folder, error) from None
        return position

    def _recover_run(self, cursor: lmdb.Cursor[bytes], position: bytes, deadline: float, queues: set[int],
                     lanes: dict[bytes, Lane], transient: dict[bytes, tuple[bytes, bytes]]) -> bytes:
        """Go over entries up to the deadline, or the next of which some are skipped; gives where to go on."""
        if not cursor.set_range(position):
            return b""
        prefix = b""
        lane: Lane | None = None
        ranges: list[Range] | None = None
        count = 0
        key = position
        for key, value in cursor:
            if key[:9] != prefix:
                prefix = key[:9]
                queue_id, number_of_lane, _ = split_entry_key(key)
                if queue_id not in queues and not _behind_discarded(self.writer.ranges.get(queue_id, []), key):
                    self.drop(queue_id)
                ranges = self.writer.ranges.get(queue_id)
                lane = lanes.get(prefix)
            if ranges is not None:
                behind = _behind_discarded(ranges, key)
                if behind:
                    return behind
            entry_id, _, size, _, _, flags = found_entry(key, value)
            if entry_id < self.first_new_id:
                if flags & TRANSIENT:
                    transient[prefix] = (transient[prefix][0] if prefix in transient else key, key)
                else:
                    if lane is None:
                        lane = Lane(queue_id, number_of_lane, entry_id)
                        lanes[prefix] = lane
                    lane.count += 1
                    lane.size += size
                    lane.last_id = entry_id
            count += 1
            if count % LOOK_AT_CLOCK == 0 and time.perf_counter() > deadline:
                return key + b"\0"
        return b""


def _behind_discarded(ranges: list[Range], key: bytes) -> bytes:
    """The first key behind the discarded range that this one is in, b"" when it is in none."""
    for found in ranges:
        if found.covers(key):
            return found.end + b"\0"
    return b""
