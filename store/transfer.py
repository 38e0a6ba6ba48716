"""A store as text, and back: lines of JSON, for moving it to another format, machine or place.

    {"dragoman_store": 3, "store_format": 3, "last_id": 7, "revision": 3}        the first line
    {"setting": "key", "value": base64, "revision": 3}
    {"branch": 9, "record": base64}
    {"session": 11, "key": base64, "record": base64}
    {"message": 4, "stored": base64}
    {"entry": 3, "queue": 1, "lane": 0, "message": 4, "size": 5, "expiry": 0, "deliveries": 0, "flags": 0}
    {"end": true, "settings": 1, "branches": 1, "records": 1, "messages": 1, "entries": 1, "problems": 0}     the last

Messages come before the entries that hold them, settings, branches (prepared transactions) and the records of sessions
before both. Version 1 of the text had no branches, and version 2 no records of sessions. What an entry's or a message's
stored form means is the broker's business.
"""

from __future__ import annotations

import base64
import binascii
import json
import pathlib
from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import IO

import lmdb

from store.journal import StoredEntry, StoreError
from store.lmdb_files import DATA, DEFAULT_MAP_SIZE, Files, FolderLock
from store.records import (
    META_CLEAN,
    META_LAST_ID,
    META_REVISION,
    PIECE,
    cut,
    entry_key,
    entry_value,
    message_key,
    pack_piece_key,
    record_key,
    setting_record,
)
from store.tools import REPORT_EVERY, Progress, Report, Resting, new_data, no_progress

VERSION = 3
"""Of the text. Older ones are imported, too."""
RECORDS_A_COMMIT = 10_000
BYTES_A_COMMIT = 64 << 20


class Transferred:
    """How much went over, and (of an export) what could not be read."""

    def __init__(self, path: pathlib.Path) -> None:
        self.settings = 0
        self.branches = 0
        self.records = 0  # of sessions
        self.messages = 0
        self.entries = 0
        self.report = Report(path)

    @property
    def total(self) -> int:
        return self.settings + self.branches + self.records + self.messages + self.entries


def export(path: pathlib.Path, stream: IO[str], progress: Progress = no_progress) -> Transferred:
    """Write a store to a text stream; of a damaged one, all that can be read.

    What cannot is in `report.problems` of the result. Entries whose messages are lost are left out, and so is what is
    being forgotten. Raises: StoreError when there is no store, StoreLocked, StoreDamaged when nothing can be read.
    """
    done = Transferred(path)
    with Resting(path, done.report.problem) as resting:
        total = resting.records()

        def line(**values: object) -> None:
            stream.write(json.dumps(values, ensure_ascii=True, separators=(",", ":")) + "\n")
            if done.total % REPORT_EVERY == 0:
                progress(done.total, max(done.total, total))

        line(dragoman_store=VERSION, store_format=resting.format(), last_id=_meta_number(resting, META_LAST_ID),
             revision=_meta_number(resting, META_REVISION))
        for key, value, revision in resting.settings():
            done.settings += 1
            line(setting=key, value=base64.b64encode(value).decode(), revision=revision)
        for branch_id, record in resting.branches():
            done.branches += 1
            line(branch=branch_id, record=base64.b64encode(record).decode())
        for owner, key_of_record, record in resting.session_records():
            done.records += 1
            line(session=owner, key=base64.b64encode(key_of_record).decode(),
                 record=base64.b64encode(record).decode())
        held = array("Q", sorted({entry[3] for entry in resting.entries()}))
        whole = array("Q")
        for message_id, form in resting.messages(bodies=True):
            if _has(held, message_id):
                whole.append(message_id)
                done.messages += 1
                line(message=message_id, stored=base64.b64encode(form).decode())
        for queue_id, lane, entry_id, message_id, size, expiry, deliveries, flags in resting.entries():
            if not _has(whole, message_id):
                done.report.problem(f"entry {entry_id} of queue {queue_id} lacks its message {message_id}")
                continue
            done.entries += 1
            line(entry=entry_id, queue=queue_id, lane=lane, message=message_id, size=size, expiry=expiry,
                 deliveries=deliveries, flags=flags)
        line(end=True, settings=done.settings, branches=done.branches, records=done.records,
             messages=done.messages, entries=done.entries, problems=done.report.problem_count)
        progress(max(done.total, total), max(done.total, total))
    return done


def _has(ids: array[int], message_id: int) -> bool:
    at = bisect_left(ids, message_id)
    return at < len(ids) and ids[at] == message_id


def _meta_number(resting: Resting, key: bytes) -> int:
    return int.from_bytes(resting.meta.get(key, b""), "big")


def import_(path: pathlib.Path, stream: IO[str], progress: Progress = no_progress) -> Transferred:
    """Make a store of what `export` wrote. The store must be new, or hold nothing.

    It is there as a whole at the end, or not at all. `progress` is called with (records done, 0): how many there will
    be is not known. Raises: StoreError, with the line where the text is at fault; StoreLocked.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {path} cannot be made: {error.strerror}") from None
    lock = FolderLock(path)
    try:
        if (path / DATA).exists():
            _must_be_empty(path)
        done = Transferred(path)
        with new_data(path) as work:
            files = Files(work, DEFAULT_MAP_SIZE)
            try:
                _Import(files, done, progress).read(stream)
            finally:
                files.env.close()
        return done
    finally:
        lock.release()


def _must_be_empty(path: pathlib.Path) -> None:
    files = Files(path, 0)
    try:
        with files.env.begin() as txn:
            for table in (files.topology, files.branches, files.sessions, files.messages, files.entries):
                if txn.stat(table)["entries"]:
                    raise StoreError(f"the store {path} is not empty: import into a new folder")
    finally:
        files.env.close()


class _Import:
    """Reads lines and writes records, some thousands in a transaction."""

    def __init__(self, files: Files, done: Transferred, progress: Progress) -> None:
        self.files = files
        self.done = done
        self.progress = progress
        self.last_id = 0
        self.revision = 0
        self.waiting: list[tuple[lmdb._Database, bytes, bytes]] = []
        self.waiting_bytes = 0
        self.known: set[int] = set()
        self.ended = False
        self.readers: dict[str, Callable[[dict[str, object]], None]] = {
            "setting": self._setting, "branch": self._branch, "session": self._record, "message": self._message,
            "entry": self._entry, "end": self._end}

    def read(self, stream: IO[str]) -> None:
        count = 0
        for count, line in enumerate(stream, 1):
            try:
                values = json.loads(line)
                if count == 1:
                    self._first(values)
                elif self.ended:
                    raise ValueError("there is more after the end")
                else:
                    self.readers[next(iter(values))](values)
            except (ValueError, KeyError, TypeError, AttributeError, StopIteration, OverflowError, RecursionError,
                    binascii.Error) as error:
                raise StoreError(f"line {count} is not one of an exported store's: {error}") from None
            if len(self.waiting) >= RECORDS_A_COMMIT or self.waiting_bytes >= BYTES_A_COMMIT:
                self._write()
            if count % REPORT_EVERY == 0:
                self.progress(self.done.total, 0)
        if not self.ended:
            raise StoreError(f"the exported store is cut off: it ends after line {count}, without saying so")
        self._write()
        self.progress(self.done.total, 0)

    def _first(self, values: dict[str, object]) -> None:
        version = values["dragoman_store"]
        if not isinstance(version, int) or not 1 <= version <= VERSION:
            raise ValueError(f"it is of version {version}, and this Dragoman imports versions 1 to {VERSION}")
        self.last_id = _whole(values, "last_id")
        self.revision = _whole(values, "revision")

    def _setting(self, values: dict[str, object]) -> None:
        revision = _whole(values, "revision")
        self.revision = max(self.revision, revision)
        self.done.settings += 1
        record = setting_record(_bytes(values, "value"), revision)
        self._put(self.files.topology, _text(values, "setting").encode(), record)

    def _branch(self, values: dict[str, object]) -> None:
        branch_id = _whole(values, "branch")
        self.last_id = max(self.last_id, branch_id)
        self.done.branches += 1
        self._put(self.files.branches, message_key(branch_id), _bytes(values, "record"))

    def _record(self, values: dict[str, object]) -> None:
        owner = _whole(values, "session")
        self.last_id = max(self.last_id, owner)
        self.done.records += 1
        self._put(self.files.sessions, record_key(owner, _bytes(values, "key")), _bytes(values, "record"))

    def _message(self, values: dict[str, object]) -> None:
        message_id = _whole(values, "message")
        form = _bytes(values, "stored")
        self.last_id = max(self.last_id, message_id >> 1)
        self.known.add(message_id)
        self.done.messages += 1
        if len(form) <= PIECE:
            self._put(self.files.messages, message_key(message_id), form)
            return
        self._put(self.files.messages, pack_piece_key(message_id, 0), len(form).to_bytes(8, "big"))
        for index, piece in enumerate(cut([form]), 1):
            self._put(self.files.messages, pack_piece_key(message_id, index), piece)

    def _entry(self, values: dict[str, object]) -> None:
        message_id = _whole(values, "message")
        if message_id not in self.known:
            raise ValueError(f"its message {message_id} did not come before it, or is another entry's")
        entry = StoredEntry(_whole(values, "queue"), _whole(values, "lane", 255), _whole(values, "entry"), message_id,
                            _whole(values, "size"), _whole(values, "expiry"), _whole(values, "deliveries", 65535),
                            _whole(values, "flags", 255))
        self.last_id = max(self.last_id, entry.id)
        self.done.entries += 1
        self._put(self.files.entries, entry_key(entry), entry_value(entry))
        if message_id & 1:
            self._put(self.files.shared, message_key(message_id), b"")
        else:
            self.known.discard(message_id)

    def _end(self, values: dict[str, object]) -> None:
        done = self.done
        for what, count in (("settings", done.settings), ("branches", done.branches), ("records", done.records),
                            ("messages", done.messages), ("entries", done.entries)):
            if values.get(what, 0) != count:
                raise ValueError(f"there should have been {values.get(what, 0)} {what}, and there were {count}")
        self._put(self.files.meta, META_LAST_ID, self.last_id.to_bytes(8, "big"))
        self._put(self.files.meta, META_REVISION, self.revision.to_bytes(8, "big"))
        self._put(self.files.meta, META_CLEAN, b"1")
        self.ended = True

    def _put(self, table: lmdb._Database, key: bytes, value: bytes) -> None:
        self.waiting.append((table, key, value))
        self.waiting_bytes += len(value)

    def _write(self) -> None:
        """Commit what is waiting, in a larger map if need be."""
        while True:
            self.files.make_room()
            try:
                with self.files.env.begin(write=True) as txn:
                    for table, key, value in self.waiting:
                        if table is self.files.shared:
                            value = (int.from_bytes(txn.get(key, b"", db=table), "big") + 1).to_bytes(4, "big")
                        txn.put(key, value, db=table)
            except lmdb.MapFullError:
                self.files.grow()
            else:
                break
        self.waiting.clear()
        self.waiting_bytes = 0


def _whole(values: dict[str, object], key: str, largest: int = (1 << 64) - 1) -> int:
    value = values[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise ValueError(f"{key!r} is no number from 0 to {largest}")
    return value


def _text(values: dict[str, object], key: str) -> str:
    value = values[key]
    if not isinstance(value, str) or not 0 < len(value.encode()) <= 511:
        raise ValueError(f"{key!r} is no text of 1 to 511 bytes")
    return value


def _bytes(values: dict[str, object], key: str) -> bytes:
    value = values[key]
    if not isinstance(value, str):
        raise ValueError(f"{key!r} is no text")
    return base64.b64decode(value, validate=True)
