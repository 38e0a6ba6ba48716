"""An entry: a message's place in one queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.message import Message
from store.journal import StoredEntry

if TYPE_CHECKING:
    from broker.consumer import Consumer
    from broker.queue import Queue

AVAILABLE: Final = 0
ACQUIRED: Final = 1
GONE: Final = 2


class Entry(StoredEntry):
    """A message's place in one queue. The message itself may be in the journal only, until it is wanted."""

    __slots__ = ("queue", "message", "state", "stored", "redelivered", "consumer", "held", "refusals", "group",
                 "key")

    key: str | None
    """Of queues that have an order of their own (broker.ordered), which set it: what the entry is kept or sorted by."""

    def __init__(self, queue: Queue, message: Message | None, queue_id: int, lane: int, entry_id: int,
                 message_id: int, size: int, expiry: int, deliveries: int, flags: int) -> None:
        super().__init__(queue_id, lane, entry_id, message_id, size, expiry, deliveries, flags)
        self.queue = queue
        self.message = message
        self.state = AVAILABLE
        self.stored = False  # the journal has it, or will with its open batch
        self.redelivered = False  # somebody may have seen it already
        self.consumer: Consumer | None = None  # who acquired it
        self.held = False  # it was taken from the middle of its lane, which still has it in its place
        self.refusals: set[Consumer] | None = None  # who is not to see it again
        self.group: Any = None  # of its queue's message groups, while it is acquired
