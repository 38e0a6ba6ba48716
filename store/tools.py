"""Checking and compacting a store at rest. (Exporting and importing: store.transfer.)

Every tool takes the store's lock first and raises StoreLocked while a broker has it open. `progress` is called every
so often with (done, of all); the unit is the tool's, the same within a call.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator

import lmdb

from store import pages
from store.journal import StoreDamaged, StoreError
from store.lmdb_files import DATA, Files, FolderLock, sync_folder
from store.records import (
    ENTRY_KEY,
    FORMAT,
    META_CLEAN,
    META_DISCARD,
    META_FORMAT,
    OLDEST_FORMAT,
    PIECE,
    branch_number,
    found_entry,
    found_record,
    found_setting,
    number,
    split_entry_key,
)

Progress = Callable[[int, int], None]
PROBLEMS_KEPT = 1000
REPORT_EVERY = 1000
"""Records between two calls of `progress`."""


def no_progress(done: int, total: int) -> None:
    """For callers that show none."""


class Report:
    """What `check` found.

    A store without problems is sound. Entries that are being forgotten (`discarding`) are as good as gone: a broker
    goes on with forgetting them when it is started next.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.format = 0
        self.clean = False  # was closed properly
        self.bytes_in_use = 0
        self.bytes_on_disk = 0
        self.settings = 0
        self.messages = 0
        self.queues: dict[int, int] = {}  # entries by queue id
        self.branches: dict[int, int] = {}  # messages of prepared transactions, by branch id
        self.records = 0  # of sessions
        self.discarding = 0  # ranges of entries that are being forgotten
        self.orphans = 0  # messages without an entry
        self.missing = 0  # entries without their message
        self.problem_count = 0
        self.problems: list[str] = []  # the first PROBLEMS_KEPT

    @property
    def entries(self) -> int:
        return sum(self.queues.values()) + sum(self.branches.values())

    @property
    def sound(self) -> bool:
        return self.problem_count == 0

    def problem(self, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(text)


class Resting:
    """A store at rest that is read by `store.pages`, so even when it is damaged. Use as a context manager.

    Raises: StoreError when there is none, StoreLocked, StoreDamaged when nothing in it can be read.
    """

    def __init__(self, path: pathlib.Path, problem: Callable[[str], None]) -> None:
        if not (path / DATA).exists():
            raise StoreError(f"there is no store in {path}")
        self.problem = problem
        self.lock = FolderLock(path)
        try:
            self.file = pages.PageFile(path / DATA, problem)
            self.roots = self.file.tables()
            self.meta = dict(self.file.table(self.roots, b"meta"))
        except BaseException:
            self.lock.release()
            raise

    def __enter__(self) -> Resting:
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()
        self.lock.release()

    def format(self) -> int:
        """Tells a problem unless it is ours."""
        try:
            found = number(self.meta.get(META_FORMAT), 4, "the format version")
        except StoreDamaged as error:
            self.problem(str(error))
            return 0
        if not OLDEST_FORMAT <= found <= FORMAT:
            self.problem(f"the store has format {found}, and this Dragoman reads formats {OLDEST_FORMAT} to {FORMAT}"
                         if found else "the store says no format version")
        return found

    def settings(self) -> Iterator[tuple[str, bytes, int]]:
        """(key, value, revision) of those that can be read."""
        for key, record in self.file.table(self.roots, b"topology"):
            try:
                yield found_setting(key, record)
            except StoreDamaged:
                self.problem(f"the setting {key!r} cannot be read")

    def branches(self) -> Iterator[tuple[int, bytes]]:
        """(branch id, record) of those that can be read."""
        for key, record in self.file.table(self.roots, b"branches"):
            try:
                yield branch_number(key), record
            except StoreDamaged:
                self.problem(f"the prepared transaction {key.hex()} cannot be read")

    def session_records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(number, key, value) of those that can be read."""
        for key, value in self.file.table(self.roots, b"sessions"):
            try:
                yield *found_record(key), value
            except StoreDamaged:
                self.problem(f"the session's record {key.hex()} cannot be read")

    def discards(self) -> list[tuple[bytes, bytes]]:
        """The ranges of entry keys that are being forgotten."""
        marks = [key[len(META_DISCARD):] for key in self.meta if key.startswith(META_DISCARD)]
        for mark in marks:
            if len(mark) != 2 * ENTRY_KEY:
                self.problem("a mark of entries that are being forgotten cannot be read")
        return [(mark[:ENTRY_KEY], mark[ENTRY_KEY:]) for mark in marks if len(mark) == 2 * ENTRY_KEY]

    def entries(self) -> Iterator[tuple[int, int, int, int, int, int, int, int]]:
        """(queue id, lane, id, message id, size, expiry, deliveries, flags) of those that are not being forgotten."""
        discards = self.discards()
        for key, value in self.file.table(self.roots, b"entries"):
            try:
                found = found_entry(key, value)
                queue_id, lane, _ = split_entry_key(key)
            except StoreDamaged:
                self.problem(f"the entry {key.hex()} cannot be read")
                continue
            if not any(start <= key <= end for start, end in discards):
                yield queue_id, lane, *found

    def messages(self, bodies: bool) -> Iterator[tuple[int, bytes]]:
        """(message id, stored form) of those that are whole; without `bodies` long forms are left empty."""
        message_id = -1
        length = 0
        pieces: list[bytes] = []
        for key, value in self.file.table(self.roots, b"messages", bodies):
            if len(key) not in (8, 12):
                self.problem(f"the message {key.hex()} cannot be read")
                continue
            piece = int.from_bytes(key[8:], "big")
            if message_id >= 0 and (piece == 0 or int.from_bytes(key[:8], "big") != message_id):
                yield from self._joined(message_id, length, pieces, bodies)
                message_id = -1
            if len(key) == 8:
                yield int.from_bytes(key, "big"), value
            elif piece == 0 and len(value) == 8:
                message_id, length, pieces = int.from_bytes(key[:8], "big"), int.from_bytes(value, "big"), []
            elif message_id >= 0 and piece == len(pieces) + 1:
                pieces.append(value)
            else:
                self.problem(f"piece {piece} of message {int.from_bytes(key[:8], 'big')} does not belong there")
        if message_id >= 0:
            yield from self._joined(message_id, length, pieces, bodies)

    def _joined(self, message_id: int, length: int, pieces: list[bytes], bodies: bool) -> Iterator[tuple[int, bytes]]:
        form = b"".join(pieces)
        if len(pieces) != (length + PIECE - 1) // PIECE or (bodies and len(form) != length):
            self.problem(f"message {message_id} is not whole: {len(pieces)} pieces of it are left")
        else:
            yield message_id, form

    def records(self) -> int:
        """About how many settings, branches, sessions' records, messages and entries there are, for `progress`."""
        return sum(self.file.count(name)
                   for name in (b"topology", b"branches", b"sessions", b"messages", b"entries"))


def check(path: pathlib.Path, progress: Progress = no_progress) -> Report:
    """Read all of a store and say what is in it and what is wrong with it; nothing is changed.

    Some 20 bytes of memory a message. Raises: StoreError when there is no store, StoreLocked; what is damaged is in the
    report.
    """
    report = Report(path)
    try:
        with Resting(path, report.problem) as resting:
            _check(resting, report, progress)
    except StoreDamaged as error:
        report.problem(str(error))
    return report


def _check(resting: Resting, report: Report, progress: Progress) -> None:
    total = resting.records()
    done = 0
    report.format = resting.format()
    report.clean = META_CLEAN in resting.meta
    report.bytes_on_disk = resting.file.size
    report.bytes_in_use = resting.file.in_use()
    report.discarding = len(resting.discards())
    report.settings = sum(1 for _ in resting.settings())
    report.branches = {branch_id: 0 for branch_id, _ in resting.branches()}
    report.records = sum(1 for _ in resting.session_records())
    ids = array("Q")
    for message_id, _ in resting.messages(bodies=False):
        ids.append(message_id)
        done += 1
        if done % REPORT_EVERY == 0:
            progress(done, max(done, total))
    report.messages = len(ids)
    holders = array("L", bytes(array("L").itemsize * len(ids)))
    for queue_id, _, entry_id, message_id, *_ in resting.entries():
        places = report.branches if queue_id in report.branches else report.queues
        places[queue_id] = places.get(queue_id, 0) + 1
        at = bisect_left(ids, message_id)
        if at < len(ids) and ids[at] == message_id:
            holders[at] += 1
        else:
            report.missing += 1
            report.problem(f"entry {entry_id} of queue {queue_id} lacks its message {message_id}")
        done += 1
        if done % REPORT_EVERY == 0:
            progress(done, max(done, total))
    _check_holders(resting, report, ids, holders)
    progress(max(done, total), max(done, total))


def _check_holders(resting: Resting, report: Report, ids: array[int], holders: array[int]) -> None:
    """Does each message have as many entries as it should? Not to be said while some are being forgotten."""
    counts: dict[int, int] = {}
    for key, value in resting.file.table(resting.roots, b"shared"):
        if len(key) != 8 or len(value) != 4:
            report.problem(f"the count of message {key.hex()} cannot be read")
        else:
            counts[int.from_bytes(key, "big")] = int.from_bytes(value, "big")
    if report.discarding:
        return
    for at, message_id in enumerate(ids):
        count = counts.pop(message_id, 0)
        if holders[at] == 0:
            report.orphans += 1
            report.problem(f"message {message_id} is in no queue")
        elif message_id & 1 and count != holders[at]:
            report.problem(f"message {message_id} is in {holders[at]} queues and counted as being in {count}")
        elif not message_id & 1 and holders[at] != 1:
            report.problem(f"message {message_id} is in {holders[at]} queues and should be in one")
    for message_id in counts:
        report.problem(f"message {message_id} is counted, and not there")


def compact(path: pathlib.Path, progress: Progress = no_progress) -> tuple[int, int]:
    """Give the room that a store no longer needs back to the file system: (bytes before, bytes after).

    The store is copied and the copy takes its place at the end, so it needs room for that, and may be killed at any
    moment. Raises: StoreError, StoreLocked, StoreDamaged.
    """
    if not (path / DATA).exists():
        raise StoreError(f"there is no store in {path}")
    lock = FolderLock(path)
    try:
        with new_data(path) as work:
            files = Files(path, 0)
            try:
                _copy(files, work, progress)
            finally:
                files.env.close()
            before, after = (path / DATA).stat().st_size, (work / DATA).stat().st_size
        return before, after
    finally:
        lock.release()


def _copy(files: Files, work: pathlib.Path, progress: Progress) -> None:
    info = files.env.info()
    total = (info["last_pgno"] + 1) * files.page_size
    raised: list[Exception] = []

    def copy() -> None:
        try:
            files.env.copy(str(work), compact=True)
        except Exception as error:  # handed to the caller
            raised.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        with contextlib.suppress(FileNotFoundError):
            progress(min((work / DATA).stat().st_size, total), total)
    if raised:
        raise StoreError(f"the store {files.folder} could not be copied: {raised[0]}") from raised[0]
    progress(total, total)


@contextlib.contextmanager
def new_data(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """An empty folder inside the store's, whose data file takes the place of the store's when the block ends well.

    It is durable before it does, and what a killed process left of one is removed. Raises StoreError.
    """
    work = path / "new"
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            yield work
            with open(work / DATA, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(work / DATA, 0o600)
            os.replace(work / DATA, path / DATA)
            sync_folder(path)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"the store {path} cannot be written: {error.strerror}") from error
    except lmdb.Error as error:
        raise StoreError(f"the store {path} cannot be written: {error}") from error
