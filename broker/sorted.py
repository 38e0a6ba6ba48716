"""Sorted queues: messages go out in the ascending order of a header, as text, and of arrival where that is the same.
Those without it come first. (The rules are Broker-J's.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.entry import Entry
from broker.last_value import LastValues
from broker.message import Message
from broker.ordered import OrderedLane, Rank, header_text
from broker.queue_settings import QueueSettings
from broker.retained import RetainedLane

if TYPE_CHECKING:
    from broker.queue import Queue


class SortedLane(OrderedLane):
    """The entries of a sorted queue. `Entry.key` is what they are sorted by."""

    __slots__ = ("header",)

    def __init__(self, queue: Queue, header: str) -> None:
        super().__init__(queue)
        self.header = header

    def rank(self, entry: Entry) -> Rank:
        key = entry.key
        return "" if key is None else key, entry.id

    def arrived(self, entry: Entry, message: Message) -> None:
        text = header_text(message, self.header)
        entry.key = None if text is None else "=" + text  # none at all comes before an empty one


def lane_in_order(queue: Queue, settings: QueueSettings) -> OrderedLane | None:
    """The lane of a queue that has an order of its own; None for most."""
    if settings.retains:
        return RetainedLane(queue)
    if settings.last_value_key is not None:
        return LastValues(queue, settings.last_value_key)
    return None if settings.sort_key is None else SortedLane(queue, settings.sort_key)
