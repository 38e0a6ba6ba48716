"""What a queue does when it is full: it drops the oldest, refuses the newest, holds its publishers, or goes.

Publishers are held by their confirms (dispositions, completions): a message that comes to a queue above its stop mark
counts as pending until the queue is down at its resume mark. Who asks for no confirms is not held: to leave his socket
unread would stop what he consumes as well, perhaps from this very queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.alerts import alerts_of
from broker.arguments import DROP_HEAD, REJECT_PUBLISH_DLX, RING_STRICT, SELF_DESTRUCT
from broker.deduplication import Known, identity_of
from broker.lifetime import goes_when_empty
from broker.message import Message
from broker.queue_settings import QueueSettings
from broker.tracing import names, trace_of, traced

if TYPE_CHECKING:
    from broker.management import ManagedConnection
    from broker.queue import Queue

_AT_ONCE = 1000
"""Publishers' messages that are settled in one go."""


class Limits:
    """The limits and marks of one queue that has any. The queue tells what comes and goes."""

    __slots__ = ("queue", "overflow", "max_length", "max_bytes", "counts_unsettled", "stop_count", "resume_count",
                 "stop_size", "resume_size", "marked", "stopped", "held", "lifted", "alerts",
                 "no_local", "local", "deduplicates", "known", "traces", "trace_id", "excluded", "untraced")

    def __init__(self, queue: Queue, settings: QueueSettings) -> None:
        self.queue = queue
        self.overflow = settings.overflow
        self.max_length = settings.max_length
        self.max_bytes = settings.max_bytes
        self.counts_unsettled = settings.counts_unsettled
        self.stop_count = settings.flow_stop_count
        self.resume_count = settings.flow_resume_count
        self.stop_size = settings.flow_stop_size
        self.resume_size = settings.flow_resume_size
        self.marked = self.stop_count >= 0 or self.stop_size >= 0
        self.stopped = False  # publishers are held
        self.held: list[Message] = []  # what they wait for
        self.alerts = alerts_of(queue, settings)
        self.no_local = settings.no_local
        self.local: ManagedConnection | None = queue.host.broker.management.actor if self.no_local else None
        self.deduplicates = settings.deduplication
        self.known: Known | None = None  # made with the first message, for only then the journal has recovered
        self.trace_id = settings.trace_id or ""
        self.excluded = frozenset(names(settings.trace_exclude or ""))
        self.traces = bool(self.trace_id or self.excluded)
        self.untraced: Message | None = None  # the message that comes, as it was published
        self.lifted = False  # for now, nothing is refused: it was promised a place

    def full(self, count: int, size: int) -> bool:
        """Whether there is no room for so many more messages, of that many bytes together."""
        queue = self.queue
        count += queue.ready
        size += queue.ready_bytes
        if self.counts_unsettled:
            count += queue.unsettled
            size += queue.unsettled_bytes
        return 0 <= self.max_length < count or 0 <= self.max_bytes < size

    def refuses(self, count: int, size: int) -> bool:
        """Whether some of so many messages, of that many bytes together, would be refused."""
        if self.overflow == SELF_DESTRUCT or not self.full(count, size):
            return False
        if self.overflow == DROP_HEAD or self.overflow == RING_STRICT:
            return self.counts_unsettled and not self._could_drop_for(count, size)
        return True

    def is_own(self) -> bool:
        """Whether the message that comes is from the connection that declared the queue or consumes from it, and is
        not to be seen there (no-local)."""
        return self.no_local and self.local is not None and self.queue.host.broker.management.actor is self.local

    def has_had(self, message: Message) -> bool:
        """Whether the queue has had the message, and its publisher is told so when that one is safe."""
        if not self.deduplicates:
            return False
        queue = self.queue
        if self.known is None:
            self.known = Known(queue.log, queue.queue_id, queue.settings.deduplication_window, queue.durable)
        text = identity_of(message)
        if not text or not self.known.knows(text):
            return False
        message.pending += 1
        queue.log.commit(message.settle_pending)
        return True

    def excludes(self, message: Message) -> bool:
        """Whether the message has come through a broker that the queue wants nothing from."""
        return bool(self.excluded) and not self.excluded.isdisjoint(trace_of(message))

    def traced(self, message: Message) -> Message:
        """The message as the queue is to have it."""
        if not self.trace_id:
            return message
        message.pending += 1
        self.untraced = message
        return traced(message, self.trace_id)

    def consumer_came(self) -> None:
        """The client whose input is being dealt with consumes from the queue from now on."""
        if self.no_local:
            self.local = self.queue.host.broker.management.actor

    def admits(self, message: Message) -> bool:
        """Whether the queue takes a message; makes room for it, where that is what the queue does."""
        if not self.full(1, message.size):
            return True
        if self.overflow == SELF_DESTRUCT:
            return True
        if self.overflow == DROP_HEAD or self.overflow == RING_STRICT:
            if not self.counts_unsettled:
                return True  # the oldest go when it is in
            if not self.lifted and not self._could_drop_for(1, message.size):
                return False
            if len(self.queue.lanes) > 1:
                return True  # the newest may be what has the lowest priority: one goes when it is in
            while self.full(1, message.size) and self.queue.drop_head():
                pass
            return self.lifted or not self.full(1, message.size)
        if self.lifted:
            return True
        if self.overflow == REJECT_PUBLISH_DLX:
            self.queue.host.dead_letter(self.queue, message, "maxlen")
        return False

    def _could_drop_for(self, count: int, size: int) -> bool:
        """Whether there was room if all went that nobody has acquired."""
        queue = self.queue
        if self.overflow == RING_STRICT and queue.unsettled:
            return False  # the oldest is somebody's
        return not (0 <= self.max_length < queue.unsettled + count
                    or 0 <= self.max_bytes < queue.unsettled_bytes + size)

    def drop_heads(self) -> None:
        """There are more available messages, perhaps too many."""
        if self.overflow == DROP_HEAD and not self.counts_unsettled:
            while self.queue.ready and self.full(0, 0) and self.queue.drop_head():
                pass

    def added(self, message: Message) -> None:
        """A message is in the queue."""
        queue = self.queue
        untraced = self.untraced
        if untraced is not None:
            self.untraced = None
            queue.log.commit(untraced.settle_pending)
        if self.known is not None:
            text = identity_of(message)
            if text:
                self.known.add(text)
        if self.alerts is not None:
            self.alerts.added(message)
        if self.overflow == SELF_DESTRUCT and self.full(0, 0):
            queue.host.delete_queue(queue)
            return
        if self.counts_unsettled and len(queue.lanes) > 1 and not self.lifted and self.overflow in (DROP_HEAD,
                                                                                                    RING_STRICT):
            while self.full(0, 0) and queue.drop_lowest():
                pass
        if self.marked:
            if not self.stopped:
                self.stopped = self._above(self.stop_count, self.stop_size)
            if self.stopped:
                self._hold(message)

    def _above(self, count: int, size: int) -> bool:
        queue = self.queue
        return (0 <= count < queue.ready + queue.unsettled
                or 0 <= size < queue.ready_bytes + queue.unsettled_bytes)

    def _hold(self, message: Message) -> None:
        """Have the publisher wait for more than that the message is safe."""
        memory = self.queue.memory
        if self.held and self.held[-1].publisher is None:  # it is known by now: nobody waits for that one
            last = self.held.pop()
            last.pending -= 1
            memory.release(last)
        message.pending += 1
        memory.hold(message)
        self.held.append(message)

    def left(self) -> None:
        """The queue has fewer messages than before."""
        if self.alerts is not None:
            self.alerts.left()
        if self.queue.lifetime is not None:
            self.queue.lifetime.message_left()
        if self.stopped and not self._above(self.resume_count, self.resume_size):
            self.let_go()

    def recovered(self) -> None:
        """The queue has what the journal kept."""
        self.stopped = self.marked and self._above(self.stop_count, self.stop_size)
        if self.alerts is not None:
            self.alerts.recovered()

    def close(self) -> None:
        """The queue is gone."""
        if self.alerts is not None:
            self.alerts.close()
        self.let_go()

    def let_go(self) -> None:
        """Hold nobody any more."""
        held, self.held = self.held, []
        self.stopped = False
        if len(held) <= _AT_ONCE:
            self._settle_all(held)
        else:
            self.queue.host.broker.chores.add(self._settle(held))

    def _settle_all(self, held: list[Message]) -> None:
        for message in held:
            message.settle_pending()
            self.queue.memory.release(message)

    def _settle(self, held: list[Message]) -> Iterator[None]:
        for at in range(0, len(held), _AT_ONCE):
            self._settle_all(held[at:at + _AT_ONCE])
            yield


def limits_of(queue: Queue, settings: QueueSettings) -> Limits | None:
    """None for a queue without limits and marks, which then has no work with them."""
    limits = Limits(queue, settings)
    limited = settings.max_length >= 0 or settings.max_bytes >= 0
    watched = limits.no_local or limits.marked or limits.alerts is not None or goes_when_empty(settings) \
        or limits.deduplicates or limits.traces
    return limits if limited or watched else None
