"""The writer: seals batches, puts them into LMDB bit by bit, and has them committed by a thread.

A batch is put into a transaction on the loop's thread, in slices of a few milliseconds, since py-lmdb gives up the GIL
with every call and a thread of its own would wait for it each time; the commit, which writes and syncs without the GIL,
is the thread's. A sealed batch is kept until it is committed, so it can be put into another transaction when the map is
too small or the disk full.

    idle -> scheduled -> slices -> commit in the thread -> told -> slices of the next batch, or idle
                           ^ map grown, or a second later when the disk was full
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Final

import lmdb

from store.journal import LogListener, Scheduler, ShardLog, StoreError
from store.lmdb_batch import Batch, Range
from store.lmdb_files import DATA, Files, damaged
from store.lmdb_transaction import Transaction
from store.records import META_REVISION

RETRY_SECONDS: Final = 1.0
PROBE_BYTES: Final = 1 << 20
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def system_error(error: BaseException) -> int:
    """The system's number of an error that py-lmdb raised, 0 for others. Before version 3 only its text has it."""
    if not isinstance(error, lmdb.Error):
        return 0
    for code in (*FULL, errno.EIO):
        if getattr(error, "code", 0) == code or str(error).endswith(os.strerror(code)):
            return code
    return 0


class Commit:
    """A commit that the writer thread makes, or whoever needs it at once: `run` does it once and waits otherwise."""

    __slots__ = ("transaction", "claim", "ended", "error")

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.claim = threading.Lock()
        self.ended = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        if not self.claim.acquire(blocking=False):
            self.ended.wait()
            return
        try:
            self.transaction.txn.commit()
        except Exception as error:  # handed to the loop
            self.error = error
        finally:
            self.ended.set()


class Writer:
    """Owns the open batch, and the life of the sealed one."""

    def __init__(self, files: Files, scheduler: Scheduler) -> None:
        self.files = files
        self.scheduler = scheduler
        self.listener = LogListener()
        self.watchers: list[Callable[[str, bytes | None, int], None]] = []
        self.open = Batch()
        self.sealed: Batch | None = None
        self.transaction: Transaction | None = None
        self.job: Commit | None = None
        self.log = ShardLog()  # whose last id is stored; the owner of the shard puts itself here
        self.revision = 0
        self.full = False
        self.broken = ""  # why nothing can be written any more
        self.draining = False
        self.closed = False
        self.ranges: dict[int, list[Range]] = {}  # by queue id: what is discarded, until it is really gone
        self.discards: list[Range] = []  # those of committed batches

    def schedule(self) -> None:
        """Somebody buffered something: have it sealed in the next turn, or when the batch in flight is written."""
        if not self.open.scheduled:
            self.open.scheduled = True
            self.scheduler.call_soon(self._flush)

    def discard(self, found: Range, resumed: bool) -> None:
        """Forget a range of entries; resumed: it is not new, so it needs no mark."""
        if resumed:
            self.discards.append(found)
        else:
            self.open.ranges.append(found)
        self.ranges.setdefault(found.queue_id, []).append(found)
        self.schedule()

    def drain(self) -> None:
        """Write out all there is, here and now, and never write again. Raises StoreError when that cannot be done."""
        self.draining = True
        try:
            while not self.broken and (self.sealed is not None or self.open.callbacks or not self.open.is_empty()):
                self._write_now()
        finally:
            self.closed = True
            if self.transaction is not None:
                self.transaction.abort()
                self.transaction = None
        if self.broken:
            raise StoreError(self.broken)

    # The life of a batch

    def _flush(self) -> None:
        if self.closed or self.broken or self.sealed is not None:
            return
        if self.open.is_empty() and not self.discards:
            self.open.scheduled = False
            callbacks = self.open.callbacks
            self.open.clear()
            for callback in callbacks:
                callback()
            return
        self.sealed = self.open.take()
        self._begin()

    def _begin(self) -> None:
        try:
            self._start()
        except Exception as error:
            self._failed(error)
        else:
            self._slice()

    def _start(self) -> None:
        batch = self.sealed
        assert batch is not None
        self.files.make_room()
        self.transaction = Transaction(self.files, batch, self.discards, self.ranges, self.log.last_id, self.revision)

    def _slice(self) -> None:
        """Put one slice of the batch; then the next one in the next turn, or the commit."""
        transaction = self.transaction
        if transaction is None or self.job is not None:
            return
        try:
            if not transaction.slice():
                self.scheduler.call_soon(self._slice)
                return
        except Exception as error:
            self._failed(error)
            return
        job = Commit(transaction)
        self.job = job

        def done(error: BaseException | None) -> None:
            if self.job is job:  # otherwise `drain` was faster
                self.job = None
                failure = job.error or error
                if failure is None:
                    self._written()
                else:
                    self._failed(failure)

        self.scheduler.in_thread(job.run, done)

    def _written(self) -> None:
        """The sealed batch is durable: say so, and go on with the next."""
        batch, transaction = self.sealed, self.transaction
        assert batch is not None and transaction is not None
        self.sealed = self.transaction = None
        finished, left = transaction.committed()
        self.discards = left + self.discards[transaction.older:]
        for found in finished:
            self._forget(found)
        if self.open.is_empty():
            batch.callbacks += self.open.callbacks
            self.open.callbacks = []
        try:
            self._tell(batch)
        finally:
            if not self.draining:
                self._go_on()

    def _forget(self, found: Range) -> None:
        others = self.ranges[found.queue_id]
        others.remove(found)
        if not others:
            del self.ranges[found.queue_id]

    def _tell(self, batch: Batch) -> None:
        if self.full:
            self.full = False
            self.listener.store_full(False, "")
        entries = list(batch.entries.values()) + batch.cancelled
        if entries:
            self.listener.durable(entries)
        for key, value, revision in batch.events:
            for watcher in self.watchers:
                watcher(key, value, revision)
        for callback in batch.callbacks:
            callback()

    def _go_on(self) -> None:
        if self.discards or not self.open.is_empty():
            self._flush()
        elif self.open.callbacks:  # of just now, and they may not be run in the turn that they came in
            self.scheduler.call_soon(self._flush)
        else:
            self.open.scheduled = False

    def _write_now(self) -> None:
        """Write the open batch, or go on with the sealed one to its end, in this very call."""
        job = self.job
        try:
            if job is None:
                if self.sealed is None:
                    self.sealed = self.open.take()
                elif self.transaction is None:
                    self.sealed.absorb(self.open.take())
                if self.transaction is None:
                    self._start()
                transaction = self.transaction
                assert transaction is not None
                while not transaction.slice():
                    pass
                job = Commit(transaction)
            job.run()
            self.job = None
            if job.error is not None:
                raise job.error
        except lmdb.MapFullError:
            self._drop_transaction()
            self.files.grow()
        except Exception as error:
            self._drop_transaction()
            raise StoreError(f"the store {self.files.folder} could not be written to the end, so the last changes, "
                             f"which nobody was told are safe, are lost: {error}") from error
        else:
            self._written()

    # What goes wrong

    def _drop_transaction(self) -> None:
        """Aborts what is not committed; the batch stays."""
        transaction = self.transaction
        self.transaction = self.job = None
        if transaction is not None:
            transaction.abort()

    def _failed(self, error: BaseException) -> None:
        """The sealed batch could not be written: try again with a larger map, or later, or give up for good."""
        self._drop_transaction()
        if isinstance(error, lmdb.MapFullError):
            try:
                self.files.grow()
            except lmdb.Error as refused:
                self._break(refused)
            else:
                self.scheduler.call_soon(self._again)
        elif self._no_room(error):
            self.scheduler.call_later(RETRY_SECONDS, self._again)
            if not self.full:
                self.full = True
                self.listener.store_full(True, f"no room is left for the store {self.files.folder} ({error})")
        else:
            self._break(error)

    def _again(self) -> None:
        batch = self.sealed
        if batch is not None and self.transaction is None and not (self.closed or self.broken):
            if self.full:
                self._make_free_pages_usable()
            batch.absorb(self.open.take())
            self._begin()

    def _make_free_pages_usable(self) -> None:
        """LMDB reuses the pages that a transaction freed in the next but one, so there must be one in between."""
        try:
            with self.files.env.begin(write=True) as txn:
                txn.put(META_REVISION, self.revision.to_bytes(8, "big"), db=self.files.meta)
        except lmdb.Error:
            pass  # no room for that either; the next try will tell

    def _break(self, error: BaseException) -> None:
        if isinstance(error, lmdb.Error):
            error = damaged(self.files.folder, error)
        self.broken = f"the store {self.files.folder} cannot be written any more: {error or type(error).__name__}"
        self.listener.store_failed(self.broken)

    def _no_room(self, error: BaseException) -> bool:
        """LMDB says "input/output error" when a write was cut short, so ask the file system what that was."""
        code = system_error(error)
        if code != errno.EIO:
            return code in FULL
        try:
            file = os.open(self.files.folder / DATA, os.O_WRONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(file).st_size
                try:
                    return os.pwrite(file, bytes(PROBE_BYTES), size) < PROBE_BYTES
                finally:
                    os.ftruncate(file, size)
            finally:
                os.close(file)
        except OSError as refused:
            return refused.errno in FULL
