"""A store that keeps nothing: all is "durable" in the next turn of the loop, and gone with the process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from store.journal import Lane, LogListener, Scheduler, ShardLog, StoredEntry, StoredMessage
from store.settings import SettingsStore


class MemoryStore(SettingsStore):
    """For brokers without persistence and for tests."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.revision = 0
        self.watchers: list[Callable[[str, bytes | None, int], None]] = []

    def change(self, key: str, value: bytes | None) -> int:
        self.revision += 1
        for watcher in self.watchers:
            self.scheduler.call_soon(partial(watcher, key, value, self.revision))
        return self.revision

    def watch(self, callback: Callable[[str, bytes | None, int], None]) -> None:
        self.watchers.append(callback)

    def acquire(self, shard: int, listener: LogListener) -> ShardLog:
        return MemoryLog(self.scheduler, listener)

    def close(self) -> None:
        self.settings.clear()


class MemoryLog(ShardLog):
    """Cancels nothing out, writes nothing, pages nothing; says "durable" once a turn."""

    def __init__(self, scheduler: Scheduler, listener: LogListener) -> None:
        super().__init__()
        self.paging = False
        self.scheduler = scheduler
        self.listener = listener
        self.open: dict[int, StoredEntry] = {}
        self.callbacks: list[Callable[[], None]] = []
        self.scheduled = False

    def _schedule(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.scheduler.call_soon(self._flush)

    def _flush(self) -> None:
        self.scheduled = False
        entries, self.open = list(self.open.values()), {}
        callbacks, self.callbacks = self.callbacks, []
        if entries:
            self.listener.durable(entries)
        for callback in callbacks:
            callback()

    def recover(self, queues: set[int]) -> Iterator[list[Lane] | None]:
        yield []

    def enqueue(self, entry: StoredEntry, message: StoredMessage | None) -> None:
        self.open[entry.id] = entry
        self._schedule()

    def dequeue(self, entry: StoredEntry) -> bool:
        return self.open.pop(entry.id, None) is not None

    def delivered(self, entry: StoredEntry) -> None:
        pass

    def discard(self, queue_id: int, lane: int, first_id: int, last_id: int) -> None:
        pass

    def drop(self, queue_id: int) -> None:
        pass

    def keep_branch(self, branch_id: int, record: bytes) -> None:
        pass

    def forget_branch(self, branch_id: int) -> None:
        pass

    def branches(self) -> list[tuple[int, bytes]]:
        return []

    def keep_record(self, number: int, key: bytes, value: bytes) -> None:
        pass

    def forget_record(self, number: int, key: bytes) -> None:
        pass

    def records(self, number: int) -> list[tuple[bytes, bytes]]:
        return []

    def commit(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)
        self._schedule()

    def read(self, message_id: int) -> bytes:
        raise KeyError(message_id)

    def scan(self, queue_id: int, lane: int, after_id: int, limit: int) -> list[tuple[int, int, int, int, int, int]]:
        return []
