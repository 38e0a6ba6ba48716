"""The LMDB engine: one folder, one process, one shard."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import lmdb

from store.journal import LogListener, Scheduler, ShardLog, StoreError, StoreLocked
from store.lmdb_files import DEFAULT_MAP_SIZE, Files, FolderLock, damaged
from store.lmdb_log import LmdbLog
from store.lmdb_writer import Writer
from store.records import LARGEST_KEY, META_CLEAN, META_LAST_ID, META_REVISION, found_setting, number, setting_record
from store.settings import SettingsStore


class LmdbStore(SettingsStore):
    """A store in a folder, which is made when it is missing.

    map_size: bytes of address space to begin with; it grows by itself. Raises: StoreLocked, StoreDamaged, StoreError.
    """

    def __init__(self, path: pathlib.Path, scheduler: Scheduler, map_size: int = DEFAULT_MAP_SIZE) -> None:
        super().__init__()
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder {path} cannot be made: {error.strerror}") from None
        self.path = path
        self.log: LmdbLog | None = None
        self.closed = False
        self.lock = FolderLock(path)
        try:
            self.files = Files(path, map_size)
            try:
                self._open(scheduler)
            except lmdb.Error as error:
                self.files.env.close()
                raise damaged(path, error) from None
            except BaseException:
                self.files.env.close()
                raise
        except BaseException:
            self.lock.release()
            raise

    def _open(self, scheduler: Scheduler) -> None:
        """Read the settings, and take the clean mark away before anything else is written."""
        files = self.files
        self.writer = Writer(files, scheduler)
        with files.env.begin(write=True) as txn:
            self.clean = txn.delete(META_CLEAN, db=files.meta)
            with txn.cursor(db=files.topology) as cursor:
                for record_key, record in cursor:
                    key, value, revision = found_setting(record_key, record)
                    self.settings[key] = (value, revision)
            revision = number(txn.get(META_REVISION, db=files.meta), 8, "the last revision")
            self.writer.log.last_id = number(txn.get(META_LAST_ID, db=files.meta), 8, "the last id")
        self.writer.revision = max([revision] + [known for _, known in self.settings.values()])

    def put(self, key: str, value: bytes, expect: int | None = None) -> int:
        """Raises StoreError for a key that is empty or too long, besides what the contract says."""
        if not 0 < len(key.encode()) <= LARGEST_KEY:
            raise StoreError(f"a setting's key has 1 to {LARGEST_KEY} bytes, not {len(key.encode())}")
        return super().put(key, value, expect)

    def change(self, key: str, value: bytes | None) -> int:
        writer = self.writer
        writer.revision += 1
        writer.open.settings[key] = None if value is None else setting_record(value, writer.revision)
        writer.open.events.append((key, value, writer.revision))
        writer.schedule()
        return writer.revision

    def watch(self, callback: Callable[[str, bytes | None, int], None]) -> None:
        self.writer.watchers.append(callback)

    def acquire(self, shard: int, listener: LogListener) -> ShardLog:
        if shard != 0:
            raise StoreError(f"the store {self.path} has one shard, number 0, and no shard {shard}")
        if self.log is not None:
            raise StoreLocked(f"the shard of the store {self.path} has an owner already")
        self.log = LmdbLog(self.files, self.writer, listener, self.clean)
        return self.log

    def close(self) -> None:
        """Raises StoreError when not all could be written; the files are let go of all the same."""
        if self.closed:
            return
        self.closed = True
        try:
            self.writer.drain()
            self.files.make_room()
            with self.files.env.begin(write=True) as txn:
                txn.put(META_LAST_ID, self.writer.log.last_id.to_bytes(8, "big"), db=self.files.meta)
                txn.put(META_CLEAN, b"1", db=self.files.meta)
        except lmdb.Error as error:
            raise StoreError(f"the store {self.path} could not be marked as closed ({error}); nothing is lost by "
                             "that") from None
        finally:
            self.files.env.close()
            self.lock.release()
