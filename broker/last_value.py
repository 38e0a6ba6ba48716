"""Last-value queues: of all messages whose key, a header, says the same, only the newest is kept.

The rules are those that qpidd and Broker-J share: a new value takes its place at the end, and so a browser that has had
the old one gets the new one; the old one is dropped unless somebody has acquired it, and then when it would come back.
A message without the header replaces nothing and is replaced by nothing (as in Broker-J; qpidd takes all of those for
values of one key).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.entry import AVAILABLE, Entry
from broker.message import Message
from broker.ordered import OrderedLane, Rank, header_text
from store.journal import ShardLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.queue import Queue


class LastValues(OrderedLane):
    """The entries of a last-value queue, in order of arrival. `Entry.key` is the value of the header, or None."""

    __slots__ = ("header", "_newest")

    def __init__(self, queue: Queue, header: str) -> None:
        super().__init__(queue)
        self.header = header
        self._newest: dict[str, Entry] = {}  # by key, for as long as it is in the queue or acquired

    def rank(self, entry: Entry) -> Rank:
        return "", entry.id

    def arrived(self, entry: Entry, message: Message) -> None:
        key = entry.key = header_text(message, self.header)
        if key is None:
            return
        old = self._newest.get(key)
        self._newest[key] = entry
        if old is not None and old.state == AVAILABLE and self.discard(old, old.message is None):
            self.queue.drop(old, "replaced")

    def outdated(self, entry: Entry) -> bool:
        return entry.key is not None and self._newest.get(entry.key) is not entry

    def gone(self, entry: Entry) -> None:
        key = entry.key
        if key is not None and self._newest.get(key) is entry:
            del self._newest[key]

    def clear(self, log: ShardLog) -> Iterator[Entry]:
        if not self.queue.unsettled:
            self._newest = {}
        return super().clear(log)
