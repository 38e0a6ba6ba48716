"""What the tests of the store share: an event loop that is turned by hand, a listener that remembers, messages."""

from __future__ import annotations

import pathlib
import threading
from collections import deque
from collections.abc import Callable

from store.journal import Lane, LogListener, Scheduler, ShardLog, StoredEntry, StoredMessage
from store.lmdb import LmdbStore


class Turns(Scheduler):
    """Runs nothing but by `turn`, `settle` and `pass_time`; what is for the thread is run by one, and waited for."""

    def __init__(self) -> None:
        self.ready: deque[Callable[[], None]] = deque()
        self.timers: list[Callable[[], None]] = []
        self.work: deque[tuple[Callable[[], None], Callable[[BaseException | None], None]]] = deque()
        self.turns = 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        assert seconds > 0
        self.timers.append(callback)

    def in_thread(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        self.work.append((work, done))

    def turn(self) -> None:
        """One turn of the loop, in which the thread does nothing."""
        self.turns += 1
        for _ in range(len(self.ready)):
            self.ready.popleft()()

    def turn_until_work(self) -> None:
        """Turn until a commit is waiting for its thread."""
        while not self.work:
            assert self.ready
            self.turn()

    def run_thread(self) -> None:
        """Let the thread do one piece of work, and have the loop told in its next turn."""
        work, done = self.work.popleft()
        raised: list[BaseException | None] = [None]

        def run() -> None:
            try:
                work()
            except BaseException as error:
                raised[0] = error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        self.ready.append(lambda: done(raised[0]))

    def settle(self) -> None:
        """Turn, and let the thread work, until neither has anything to do."""
        while self.ready or self.work:
            while self.ready:
                self.turn()
            if self.work:
                self.run_thread()

    def pass_time(self) -> None:
        """Let all timers end, then settle."""
        timers, self.timers = self.timers, []
        self.ready.extend(timers)
        self.settle()


class Ear(LogListener):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.entries: list[int] = []
        self.full: list[bool] = []
        self.reasons: list[str] = []
        self.failed: list[str] = []

    def durable(self, entries: list[StoredEntry]) -> None:
        self.entries += [entry.id for entry in entries]

    def store_full(self, full: bool, reason: str) -> None:
        self.full.append(full)
        self.reasons.append(reason)

    def store_failed(self, reason: str) -> None:
        self.failed.append(reason)


class Letter(StoredMessage):
    """A message that counts how often it was asked for its bytes."""

    def __init__(self, message_id: int, parts: list[bytes]) -> None:
        super().__init__()
        self.message_id = message_id
        self.parts = parts
        self.asked = 0

    def stored_form(self) -> list[bytes]:
        self.asked += 1
        return self.parts


class Opened:
    """A store that is open, with its loop and listener."""

    def __init__(self, path: pathlib.Path, map_size: int = 64 << 20) -> None:
        self.loop = Turns()
        self.ear = Ear()
        self.store = LmdbStore(path, self.loop, map_size)
        self.log: ShardLog = self.store.acquire(0, self.ear)
        self.letters: dict[int, Letter] = {}

    def letter(self, body: bytes | list[bytes], shared: bool = False) -> Letter:
        letter = Letter(self.log.new_message_id(shared), [body] if isinstance(body, bytes) else body)
        self.letters[letter.message_id] = letter
        return letter

    def entry(self, queue_id: int, letter: Letter, lane: int = 0, flags: int = 0, expiry: int = 0) -> StoredEntry:
        """An entry for the message, not enqueued."""
        return StoredEntry(queue_id, lane, self.log.new_id(), letter.message_id, sum(map(len, letter.parts)), expiry, 0,
                           flags)

    def enqueue(self, queue_id: int, body: bytes | list[bytes] = b"body", lane: int = 0, flags: int = 0) -> StoredEntry:
        """A message of its own in a queue."""
        letter = self.letter(body)
        entry = self.entry(queue_id, letter, lane, flags)
        self.log.enqueue(entry, letter)
        return entry

    def share(self, queues: list[int], body: bytes = b"shared") -> list[StoredEntry]:
        """One message in many queues."""
        letter = self.letter(body, True)
        entries = [self.entry(queue_id, letter) for queue_id in queues]
        for entry in entries:
            self.log.enqueue(entry, letter)
        return entries

    def recover(self, queues: set[int]) -> dict[tuple[int, int], Lane]:
        """Lanes by queue id and number."""
        for lanes in self.log.recover(queues):
            if lanes is not None:
                return {(lane.queue_id, lane.lane): lane for lane in lanes}
        raise AssertionError("recovery found no end")

    def ids(self, queue_id: int, lane: int = 0) -> list[int]:
        return [found[0] for found in self.log.scan(queue_id, lane, 0, 1_000_000)]

    def table(self, name: str) -> dict[bytes, bytes]:
        """All records of one of LMDB's tables."""
        files = self.store.files
        with files.env.begin() as txn, txn.cursor(db=getattr(files, name)) as cursor:
            return dict(cursor)

    def close(self) -> None:
        self.loop.settle()
        self.store.close()
        self.loop.settle()

    def crash(self) -> None:
        """Let go of the files as a killed process does: nothing more is written."""
        self.store.writer.closed = True
        for _, _ in self.loop.work:
            pass
        if self.store.writer.transaction is not None:
            self.store.writer.transaction.abort()
        self.store.files.env.close()
        self.store.lock.release()
