"""A sealed batch on its way into LMDB: one write transaction, made in slices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import lmdb

from store.journal import TRANSIENT, StoredEntry, StoredMessage
from store.lmdb_batch import Batch, Range
from store.lmdb_files import Files
from store.records import (
    META_LAST_ID,
    META_REVISION,
    PIECE,
    cut,
    entry_key,
    entry_value,
    found_entry,
    message_key,
    number,
    pack_piece_key,
    record_key,
)

SLICE_SECONDS: Final = 0.005
SLICE_BYTES: Final = 2 << 20
LOOK_AT_CLOCK: Final = 16
"""Operations between two looks at the clock."""
DISCARDS_A_STEP = 64
DISCARDS_A_BATCH = 4000
"""Entries of discarded ranges that are forgotten with one batch: it bounds what those who wait for it wait."""


class Transaction:
    """Writes a batch, and goes on with the discards that earlier ones left. Dropping it takes `abort`."""

    def __init__(self, files: Files, batch: Batch, discards: list[Range], ranges: dict[int, list[Range]],
                 last_id: int, revision: int) -> None:
        """ranges: by queue id, all that is discarded. Raises lmdb.Error."""
        self.files = files
        self.batch = batch
        self.moved = dict(batch.moved)
        self.older = len(discards)
        self.discards = discards + batch.ranges
        self.positions: list[bytes] = []  # where the work on each discard that was looked at has come to; b"" is done
        self.ranges = ranges
        self.last_id = last_id
        self.revision = revision
        self.counts: dict[int, int] = {}  # by shared message: how many entries more
        self.deadline = 0.0
        self.bytes_left = 0
        self.operations_left = 0
        self.txn: lmdb.Transaction[bytes] = files.env.begin(write=True)
        self.steps = self._steps()

    def slice(self, seconds: float = SLICE_SECONDS) -> bool:
        """Go on for some time; True when all is written and can be committed.

        Raises: lmdb.Error, StoreDamaged, and what `StoredMessage.stored_form` raises.
        """
        self.deadline = time.perf_counter() + seconds
        self.bytes_left = SLICE_BYTES
        for _ in self.steps:
            return False
        return True

    def abort(self) -> None:
        self.txn.abort()

    def committed(self) -> tuple[list[Range], list[Range]]:
        """(discards that are done, discards that are left), once the transaction is committed."""
        done: list[Range] = []
        left: list[Range] = []
        for index, found in enumerate(self.discards):
            if index < len(self.positions) and not self.positions[index]:
                done.append(found)
                continue
            if index < len(self.positions):
                found.position = self.positions[index]
            left.append(found)
        return done, left

    def _spent(self) -> bool:
        """Is it time to let the loop go on?"""
        self.operations_left -= 1
        if self.operations_left > 0 and self.bytes_left > 0:
            return False
        self.operations_left = LOOK_AT_CLOCK
        return self.bytes_left <= 0 or time.perf_counter() > self.deadline

    def _steps(self) -> Iterator[None]:
        """All that is to be put, in order, with a yield where a slice ends."""
        for entry in self.batch.deletes.values():
            self._delete(entry)
            if self._spent():
                yield
        for _ in self._discard_some():
            yield
        for entry in self.batch.entries.values():
            long = self._put_entry(entry)
            if long is not None:
                for _ in self._put_pieces(entry.message_id, long):
                    yield
            if self._spent():
                yield
        for entry in self.batch.changed.values():
            self._change(entry)
            if self._spent():
                yield
        for message_id, change in self.counts.items():
            message = self._count(message_id, change)
            if message is not None:
                long = self._put_message(message_id, message)
                if long is not None:
                    for _ in self._put_pieces(message_id, long):
                        yield
            if self._spent():
                yield
        for key, record in self.batch.settings.items():
            self._put_setting(key.encode(), record)
            if self._spent():
                yield
        for branch_id, record in self.batch.branches.items():
            self._put_branch(branch_id, record)
            if self._spent():
                yield
        for key_of_record, value in self.batch.records.items():
            self._put_record(key_of_record, value)
            if self._spent():
                yield
        for dropped in self.batch.dropped:
            for _ in self._drop_records(dropped):
                yield
        for _ in self._put_marks():
            yield
        self.txn.put(META_LAST_ID, self.last_id.to_bytes(8, "big"), db=self.files.meta)

    # Entries

    def _put_entry(self, entry: StoredEntry) -> list[bytes] | None:
        """Write an entry and its message; or give the message's parts when it must be written in pieces."""
        key = entry_key(entry)
        message_id = entry.message_id
        if self.ranges and self._is_discarded(entry.queue_id, key):
            if message_id in self.moved:
                self.moved[message_id] -= 1
                if not self.moved[message_id]:
                    self._delete_message(message_id)
            return None
        value = entry_value(entry)
        if message_id & 1:
            if self.txn.put(key, value, overwrite=False, db=self.files.entries):
                self.counts[message_id] = self.counts.get(message_id, 0) + 1
            else:
                self.txn.put(key, value, db=self.files.entries)
            return None
        self.txn.put(key, value, db=self.files.entries)
        message = self.batch.messages.get(message_id)
        return None if message is None else self._put_message(message_id, message)

    def _is_discarded(self, queue_id: int, key: bytes) -> bool:
        for found in self.ranges.get(queue_id, ()):
            if found.covers(key):
                return True
        return False

    def _change(self, entry: StoredEntry) -> None:
        """Write an entry's new state, unless it is gone or was written with this batch."""
        if entry.id not in self.batch.deletes and entry.id not in self.batch.entries:
            key = entry_key(entry)
            if self.txn.get(key, db=self.files.entries) is not None:
                self.txn.put(key, entry_value(entry), db=self.files.entries)

    def _delete(self, entry: StoredEntry) -> None:
        if self.txn.delete(entry_key(entry), db=self.files.entries):
            self._release(entry.message_id)

    def _release(self, message_id: int) -> None:
        """One stored entry less holds the message."""
        if message_id & 1:
            self.counts[message_id] = self.counts.get(message_id, 0) - 1
        elif message_id not in self.batch.moved:
            self._delete_message(message_id)

    # Messages

    def _put_message(self, message_id: int, message: StoredMessage) -> list[bytes] | None:
        parts = message.stored_form()
        if len(parts) == 1:
            value = parts[0]
        elif sum([len(part) for part in parts]) <= PIECE:
            value = b"".join(parts)
        else:
            return parts
        if len(value) > PIECE:
            return parts
        self.bytes_left -= len(value)
        self.txn.put(message_key(message_id), value, db=self.files.messages)
        return None

    def _put_pieces(self, message_id: int, parts: list[bytes]) -> Iterator[None]:
        length = sum([len(part) for part in parts])
        self.txn.put(pack_piece_key(message_id, 0), length.to_bytes(8, "big"), db=self.files.messages)
        index = 0
        for piece in cut(parts):
            index += 1
            self.txn.put(pack_piece_key(message_id, index), piece, db=self.files.messages)
            self.bytes_left -= len(piece)
            if self._spent():
                yield

    def _delete_message(self, message_id: int) -> None:
        prefix = message_key(message_id)
        if not self.txn.delete(prefix, db=self.files.messages):
            with self.txn.cursor(db=self.files.messages) as cursor:
                while cursor.set_range(prefix) and cursor.key()[:8] == prefix:
                    cursor.delete()

    def _count(self, message_id: int, change: int) -> StoredMessage | None:
        """Change the count of a shared message's entries, forgetting it at 0; gives it when it is to be written."""
        if not change:
            return None
        key = message_key(message_id)
        before = number(self.txn.get(key, db=self.files.shared), 4, f"the count of message {message_id}")
        if before + change > 0:
            self.txn.put(key, (before + change).to_bytes(4, "big"), db=self.files.shared)
        else:
            self.txn.delete(key, db=self.files.shared)
            self._delete_message(message_id)
        return self.batch.messages.get(message_id) if before == 0 and change > 0 else None

    # Discards

    def _discard_some(self) -> Iterator[None]:
        left = DISCARDS_A_BATCH
        for found in self.discards:
            if left <= 0:
                return
            position = found.position
            while position and left > 0:
                position, looked_at = self._discard(found, position)
                left -= looked_at + 1
                self.operations_left -= looked_at
                if self._spent():
                    yield
            self.positions.append(position)

    def _discard(self, found: Range, position: bytes) -> tuple[bytes, int]:
        """Forget some entries from a position on; gives the next position, b"" at the end, and how many it read."""
        records: list[tuple[bytes, bytes]] = []
        with self.txn.cursor(db=self.files.entries) as cursor:
            if cursor.set_range(position):
                for key, value in cursor:
                    if key > found.end:
                        break
                    records.append((key, value))
                    if len(records) == DISCARDS_A_STEP:
                        break
        for key, value in records:
            entry_id, message_id, _, _, _, flags = found_entry(key, value)
            if not found.transient_before or (flags & TRANSIENT and entry_id < found.transient_before):
                self.txn.delete(key, db=self.files.entries)
                self._release(message_id)
        if len(records) < DISCARDS_A_STEP:
            return b"", len(records)
        return records[-1][0] + b"\0", len(records)

    def _put_marks(self) -> Iterator[None]:
        """Mark what is still to be discarded of this batch's ranges, and unmark what is done of older ones."""
        for index, found in enumerate(self.discards):
            done = index < len(self.positions) and not self.positions[index]
            if found.transient_before:
                continue
            if index < self.older and done:
                self.txn.delete(found.mark(), db=self.files.meta)
            elif index >= self.older and not done:
                self.txn.put(found.mark(), b"", db=self.files.meta)
            if self._spent():
                yield

    # Settings, branches and records

    def _put_branch(self, branch_id: int, record: bytes | None) -> None:
        if record is None:
            self.txn.delete(message_key(branch_id), db=self.files.branches)
        else:
            self.bytes_left -= len(record)
            self.txn.put(message_key(branch_id), record, db=self.files.branches)

    def _put_record(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.txn.delete(key, db=self.files.sessions)
        else:
            self.bytes_left -= len(value)
            self.txn.put(key, value, db=self.files.sessions)

    def _drop_records(self, dropped: int) -> Iterator[None]:
        prefix = record_key(dropped, b"")
        more = True
        while more:
            with self.txn.cursor(db=self.files.sessions) as cursor:
                more = cursor.set_range(prefix) and cursor.key()[:8] == prefix
                if more:
                    cursor.delete()
            if self._spent():
                yield

    def _put_setting(self, key: bytes, record: bytes | None) -> None:
        if record is None:
            self.txn.delete(key, db=self.files.topology)
        else:
            self.txn.put(key, record, db=self.files.topology)
        self.txn.put(META_REVISION, self.revision.to_bytes(8, "big"), db=self.files.meta)
