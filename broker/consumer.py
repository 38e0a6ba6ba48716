"""A consumer as a queue sees it. Front-ends derive theirs from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mypy_extensions import mypyc_attr

from broker.entry import Entry
from broker.message import Message
from broker.security.quotas import UNLIMITED
from broker.selector import Selector

if TYPE_CHECKING:
    from broker.queue import Queue
    from broker.search import Cursor


@mypyc_attr(allow_interpreted_subclasses=True)
class Consumer:
    """Takes entries from one queue while it is ready.

    A queue that finds its consumer not ready parks it and asks no more, until somebody calls `Queue.wake`: so whoever
    gives a consumer room again (credit, a drained socket) must do that.
    """

    __slots__ = ("queue", "tag", "priority", "exclusive", "settles", "parked", "attached", "choosy",
                 "browses", "cursor", "selector", "no_local", "since", "delivered", "quota")

    def __init__(self, queue: Queue, tag: str, priority: int, exclusive: bool, settles: bool) -> None:
        self.queue = queue
        self.tag = tag
        self.priority = priority
        self.exclusive = exclusive
        self.settles = settles  # False: what is delivered is done with (no-ack, pre-settled)
        self.parked = True
        self.attached = False  # to its queue
        self.choosy = False  # it does not want every entry; to be set before it is attached, as `browses`
        self.browses = False  # it only looks: entries stay available (and it must be choosy)
        self.selector: Selector | None = None  # what a choosy one takes
        self.no_local = ""  # the container whose messages it does not take
        self.since = 0  # a choosy one takes what arrived then or later, ms since the epoch
        self.cursor: Cursor | None = None  # of a choosy one, while it is attached
        self.delivered = 0  # messages
        self.quota = UNLIMITED  # of whose consumers it is one; to be set before it is attached

    def ready(self) -> bool:
        """Whether it can take one more entry now."""
        raise NotImplementedError

    def deliver(self, entry: Entry, message: Message) -> None:
        """Take the entry; it is this consumer's to settle (`Queue.accept` and so on), unless it settles nothing."""
        raise NotImplementedError

    def choose(self, selector: Selector | None, replay_period: int) -> None:
        """Before it is attached: it takes only what the selector fits, and what arrived in the last so many seconds
        or later (-1: at any time)."""
        if selector is not None:
            self.selector = selector
            self.choosy = True
        if replay_period >= 0:
            self.since = max(1, self.queue.clock.now - 1000 * replay_period)
            self.choosy = True

    def wants(self, message: Message) -> bool:
        """Whether a choosy consumer is to get a message."""
        if self.no_local and message.origin == self.no_local or message.arrival < self.since:
            return False
        return self.selector is None or self.selector.matches(message)

    def woken(self) -> None:
        """It may have room again."""
        self.queue.wake(self)

    def searched(self) -> None:
        """A search that took longer has come to its end."""

    def cancelled(self) -> None:
        """The queue is gone, and this consumer with it."""
        raise NotImplementedError
