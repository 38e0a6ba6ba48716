"""The contract between the broker and whatever keeps its messages.

A store knows bytes and numbers, never exchanges. It has two parts: `Store` keeps settings (topology and the like)
by key, and `ShardLog` keeps messages and their places in queues. LMDB embedded is one engine (store.lmdb), memory
that keeps nothing is another (store.memory); the contract leaves room for a replicated one with several shards.

The rules every engine follows:

* All calls but `read` and `scan` only buffer. What is buffered within one turn of the event loop is one batch, and a
  batch becomes durable as a whole or not at all: so whatever is called without returning to the loop is atomic.
* One batch is written while the next one fills (group commit, no timers). When a batch is durable the log tells its
  listener which entries that made safe, and runs the callbacks that `commit` was given before the batch was sealed.
* An entry that is enqueued and dequeued within one open batch is cancelled out: it is never written.
* Message bytes are asked for (`StoredMessage.stored_form`) only when they are really written, and are written once
  however many queues hold the message.
* A full disk loses nothing: the batch is kept and tried again, and the listener is told when this begins and ends.

Numbers: a queue id, a lane (priority) within it and an entry id make an entry's place; ids grow for as long as the
store lives, so the order of ids is the order of arrival. Times are milliseconds since the epoch, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mypy_extensions import mypyc_attr

TRANSIENT: Final = 1
"""Entry flag: paged out to bound memory, not for safety; forgotten when the store is opened again."""


class StoreError(Exception):
    """The store cannot be used; the text says what to do about it."""


class StoreLocked(StoreError):
    """Another broker has the store open."""


class StoreDamaged(StoreError):
    """The store's files are not what was written there."""


class Conflict(StoreError):
    """A setting's revision is not the one that was expected."""


@mypyc_attr(allow_interpreted_subclasses=True)
class StoredMessage:
    """A message as the log knows it: an id, and bytes when they are needed."""

    __slots__ = ("message_id",)

    def __init__(self) -> None:
        self.message_id = 0  # 0 until it gets one from `ShardLog.new_message_id`

    def stored_form(self) -> list[bytes]:
        """The bytes to keep, in parts that the log joins (or writes in pieces, when they are many)."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class StoredEntry:
    """A message's place in one queue, as the log knows it."""

    __slots__ = ("queue_id", "lane", "id", "message_id", "size", "expiry", "deliveries", "flags")

    def __init__(self, queue_id: int, lane: int, entry_id: int, message_id: int, size: int, expiry: int,
                 deliveries: int, flags: int) -> None:
        self.queue_id = queue_id
        self.lane = lane  # 0..255
        self.id = entry_id
        self.message_id = message_id
        self.size = size  # of the message's body, bytes
        self.expiry = expiry  # ms since the epoch, 0 for never
        self.deliveries = deliveries  # 0..65535
        self.flags = flags  # TRANSIENT or 0


@mypyc_attr(allow_interpreted_subclasses=True)
class LogListener:
    """What a log tells the broker; called on the event loop, never from within another call to the log."""

    def durable(self, entries: list[StoredEntry]) -> None:
        """These entries were in a batch that is now durable (without the cancelled-out ones)."""

    def store_full(self, full: bool, reason: str) -> None:
        """Writing fails for want of room and is being retried (True), or works again (False)."""

    def store_failed(self, reason: str) -> None:
        """Writing fails in a way that retrying will not mend: the broker must stop."""


class Lane:
    """What recovery found in one lane of one queue."""

    __slots__ = ("queue_id", "lane", "count", "size", "first_id", "last_id")

    def __init__(self, queue_id: int, lane: int, first_id: int) -> None:
        self.queue_id = queue_id
        self.lane = lane
        self.count = 0
        self.size = 0
        self.first_id = first_id
        self.last_id = first_id


@mypyc_attr(allow_interpreted_subclasses=True)
class Scheduler:
    """What a store needs of the event loop. The server gives one over asyncio, a test one of its own."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run the callback in the next turn of the loop."""
        raise NotImplementedError

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        raise NotImplementedError

    def in_thread(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Run `work` on the store's one writer thread, then `done` on the loop with what it raised, or None."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class ShardLog:
    """The messages of one shard. Everything but `read`, `scan` and `recover` is buffered."""

    def __init__(self) -> None:
        self.last_id = 0
        self.clean = True  # the store was closed properly last time
        self.paging = True  # what is enqueued can be read and scanned again, so a queue may leave it to the log

    def new_id(self) -> int:
        """An entry id larger than all before it."""
        self.last_id += 1
        return self.last_id

    def new_message_id(self, shared: bool) -> int:
        """An id for a message; `shared` when it is about to be in more than one queue.

        The lowest bit says `shared`: for those, the log counts how many stored entries hold the message; the message
        of an unshared id goes with its one entry.
        """
        self.last_id += 1
        return self.last_id << 1 | shared

    def recover(self, queues: set[int]) -> Iterator[list[Lane] | None]:
        """Go over all entries, in steps of some 10 ms; yield None after each step and the lanes found at the end.

        Entries flagged TRANSIENT, and entries of queues not named in `queues`, are forgotten with their messages;
        so are the records of numbers that are not in `queues`.
        """
        raise NotImplementedError

    def enqueue(self, entry: StoredEntry, message: StoredMessage | None) -> None:
        """Keep an entry, and its message unless that is stored already (None: it was stored by an earlier call)."""
        raise NotImplementedError

    def dequeue(self, entry: StoredEntry) -> bool:
        """Forget an entry, and its message with the last entry that holds it; True when it was cancelled out.

        After True, `LogListener.durable` will not speak of the entry.
        """
        raise NotImplementedError

    def delivered(self, entry: StoredEntry) -> None:
        """The entry's delivery count changed."""
        raise NotImplementedError

    def discard(self, queue_id: int, lane: int, first_id: int, last_id: int) -> None:
        """Forget a lane's stored entries from first_id to last_id, both included, and their messages.

        Durable as a whole with its batch, though done bit by bit afterwards. Entries of that range must not be
        dequeued one by one later, nor enqueued. `LogListener.durable` speaks of those that were not durable yet.
        """
        raise NotImplementedError

    def drop(self, queue_id: int) -> None:
        """Forget all that a queue has stored: `discard` over all its lanes, and its records. It is deleted."""
        raise NotImplementedError

    def keep_branch(self, branch_id: int, record: bytes) -> None:
        """Keep a record under a number that `new_id` gave, in place of what was kept there. (It is that of a prepared
        transaction; its messages are entries of a queue of the same number.)"""
        raise NotImplementedError

    def forget_branch(self, branch_id: int) -> None:
        """Forget the record; its entries are dequeued one by one. One that is not there is no error."""
        raise NotImplementedError

    def branches(self) -> list[tuple[int, bytes]]:
        """All records that are kept, and durable: (number, record), in order."""
        raise NotImplementedError

    def keep_record(self, number: int, key: bytes, value: bytes) -> None:
        """Keep a small record under a number that `new_id` gave and a key of at most 500 bytes, in place of what was
        kept there. The number is a queue's, too: the records go when that queue is dropped, or is not recovered."""
        raise NotImplementedError

    def forget_record(self, number: int, key: bytes) -> None:
        """Forget a record. One that is not there is no error."""
        raise NotImplementedError

    def records(self, number: int) -> list[tuple[bytes, bytes]]:
        """All records of a number that are kept, and durable: (key, value), in order of their keys."""
        raise NotImplementedError

    def commit(self, callback: Callable[[], None]) -> None:
        """Have `callback` run on the loop once all that was buffered so far is durable (in a later turn, always)."""
        raise NotImplementedError

    def read(self, message_id: int) -> bytes:
        """The stored form of a message, joined.

        Raises: KeyError when there is none; StoreDamaged when it cannot be read.
        """
        raise NotImplementedError

    def scan(self, queue_id: int, lane: int, after_id: int, limit: int) -> list[tuple[int, int, int, int, int, int]]:
        """Durable entries of a lane behind after_id, in order, at most `limit`:
        (entry id, message id, size, expiry, deliveries, flags).

        Entries in batches that are not durable yet are not seen, those whose dequeue is buffered may still be.
        """
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Store:
    """Settings by key, and the logs of the shards.

    A key is text of at most 511 bytes in UTF-8, a revision the number that a `put` of it was given.
    """

    def load(self, prefix: str = "") -> list[tuple[str, bytes, int]]:
        """All settings whose keys begin so, by key in order: (key, value, revision). It looks at every key."""
        raise NotImplementedError

    def get(self, key: str) -> bytes | None:
        """The value of one setting; None when there is none."""
        raise NotImplementedError

    def put(self, key: str, value: bytes, expect: int | None = None) -> int:
        """Buffer a setting (it rides in the open batch) and give its new revision.

        expect: the revision it must have now, 0 for "must not exist"; None for any. Raises Conflict otherwise.
        """
        raise NotImplementedError

    def delete(self, key: str, expect: int | None = None) -> None:
        """Buffer the removal of a setting; one that does not exist is no error. Raises Conflict as `put` does."""
        raise NotImplementedError

    def watch(self, callback: Callable[[str, bytes | None, int], None]) -> None:
        """Call back with (key, value or None when deleted, revision) after each change is durable."""
        raise NotImplementedError

    def shard_of(self, virtual_host: str, queue: str) -> int:
        """The shard that keeps a queue's messages."""
        raise NotImplementedError

    def acquire(self, shard: int, listener: LogListener) -> ShardLog:
        """Become the owner of a shard. Raises StoreLocked when somebody else is."""
        raise NotImplementedError

    def close(self) -> None:
        """Write out what is buffered, waiting for it, leave the clean mark, and let go of the files."""
        raise NotImplementedError
