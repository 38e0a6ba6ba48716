"""The files of an LMDB store: `data.mdb`, the LMDB file, and `lock`, which the one process that has it open holds.

LMDB runs without its own locks (MDB_NOLOCK): there is one process, its writes begin after its reads on the same
thread, and no read lasts longer than a call. So `lock` is what keeps a second broker out.
"""

from __future__ import annotations

import fcntl
import os
import pathlib

import lmdb

from store import pages
from store.journal import StoreDamaged, StoreError, StoreLocked
from store.records import ADVICE, FORMAT, LATER_TABLES, META_FORMAT, OLDEST_FORMAT, TABLES, number

DATA = "data.mdb"
LOCK = "lock"
DEFAULT_MAP_SIZE = 1 << 30
"""Bytes of address space to begin with; the map grows by itself and takes no room on disk before it is used."""


class FolderLock:
    """The lock of a store's folder, from its making until `release` or the end of the process.

    Raises StoreLocked when another process (or another store in this one) has it, StoreError when the folder cannot be
    used.
    """

    __slots__ = ("file",)

    def __init__(self, folder: pathlib.Path) -> None:
        try:
            self.file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"the store {folder} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self.file, 32, 0).decode("ascii", "replace").strip()
            os.close(self.file)
            if not isinstance(error, BlockingIOError):
                raise StoreError(f"the store {folder} cannot be locked: {error.strerror}") from None
            raise StoreLocked(f"the store {folder} is in use by process {holder or 'unknown'}: stop that one first, "
                              "or use another folder") from None
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self.file >= 0:
            os.ftruncate(self.file, 0)
            os.close(self.file)
            self.file = -1


class Files:
    """An open LMDB environment and its tables."""

    __slots__ = ("folder", "env", "page_size", "meta", "topology", "messages", "entries", "shared",
                 "branches", "sessions")

    def __init__(self, folder: pathlib.Path, map_size: int) -> None:
        """Open the store in an existing folder, making what is missing; the caller has the folder's lock.

        Raises: StoreDamaged; StoreError when the format is another one, or the system does not let us.
        """
        self.folder = folder
        data = folder / DATA
        new = not data.exists() or data.stat().st_size == 0
        try:
            if not new:
                pages.refuse_damaged(data)
            room = max(map_size, 0 if new else 2 * data.stat().st_size)
            self.env = lmdb.open(str(folder), map_size=room, max_dbs=8, lock=False, mode=0o600)
            try:
                self._open_tables(new)
            except BaseException:
                self.env.close()
                raise
        except lmdb.Error as error:
            raise damaged(folder, error) from None
        except OSError as error:
            raise StoreError(f"the store {folder} cannot be used: {error.strerror}") from None
        if new:
            sync_folder(folder)

    def _open_tables(self, new: bool) -> None:
        """Each table exists from the start, made in one transaction with the format version."""
        self.page_size = self.env.stat()["psize"]
        with self.env.begin(write=True) as txn:
            if new or txn.stat()["entries"] == 0:  # empty: made by a process that was killed right then
                for name in TABLES:
                    self.env.open_db(name, txn=txn, create=True)
                txn.put(META_FORMAT, FORMAT.to_bytes(4, "big"), db=self.env.open_db(b"meta", txn=txn))
        self.meta = self.env.open_db(b"meta", create=False)
        with self.env.begin() as txn:
            format_version = number(txn.get(META_FORMAT, db=self.meta), 4, "the format version")
        if format_version == 0:
            raise StoreDamaged(f"{self.folder} holds an LMDB file that says no format version: it is not a store of "
                               f"Dragoman's, or it is damaged. {ADVICE}")
        if not OLDEST_FORMAT <= format_version <= FORMAT:
            raise StoreError(f"the store {self.folder} has format {format_version}, and this Dragoman reads formats "
                             f"{OLDEST_FORMAT} to {FORMAT}: export it with the Dragoman that wrote it (`dragoman store "
                             "export`), and import it with this one")
        self.topology = self.env.open_db(b"topology", create=False)
        self.messages = self.env.open_db(b"messages", create=False)
        self.entries = self.env.open_db(b"entries", create=False)
        self.shared = self.env.open_db(b"shared", create=False)
        if format_version < FORMAT:
            with self.env.begin(write=True) as txn:
                for name in LATER_TABLES:
                    self.env.open_db(name, txn=txn, create=True)
                txn.put(META_FORMAT, FORMAT.to_bytes(4, "big"), db=self.meta)
        self.branches = self.env.open_db(b"branches", create=False)
        self.sessions = self.env.open_db(b"sessions", create=False)

    def make_room(self) -> None:
        """Let the map grow when it is nearly full. No transaction may be open. Raises lmdb.Error."""
        info = self.env.info()
        if (info["last_pgno"] + 1) * self.page_size > info["map_size"] // 8 * 7:
            self.grow()

    def grow(self) -> None:
        """Double the map; as `make_room` otherwise."""
        self.env.set_mapsize(self.env.info()["map_size"] * 2)


def damaged(folder: pathlib.Path, error: lmdb.Error) -> StoreError:
    """What to raise for what LMDB raised while it was reading or opening."""
    if isinstance(error, (lmdb.DiskError, lmdb.MemoryError, lmdb.ReadonlyError)):
        return StoreError(f"the store {folder} cannot be used: {error}")
    return StoreDamaged(f"the store {folder} is damaged ({error}). {ADVICE}")


def sync_folder(folder: pathlib.Path) -> None:
    """Make the folder's list of files durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
