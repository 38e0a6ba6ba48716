"""Messages that are held until they are due: those with a delivery time (`Hold`, one a virtual host), and those of the
delayed exchange, `x-delayed-message`, which holds a message for as many milliseconds as its `x-delay` header says, and
then routes it as the kind of exchange that its argument `x-delayed-type` names."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from broker.clock import Timer
from broker.entry import ACQUIRED, Entry
from broker.exchange import Binding, Exchange
from broker.message import Amendment, Message, amended
from broker.queue import Queue

if TYPE_CHECKING:
    from broker.virtualhost import VirtualHost

LONGEST = 2**32 - 1
"""The longest delay, ms."""


class Hold:
    """Messages in a queue that nobody else knows, all of them acquired, in order of when they are due."""

    def __init__(self, queue: Queue, due: Callable[[Message], int], release: Callable[[Message], None]) -> None:
        """due: when a message is to go on, ms since the epoch; release: sends it on."""
        self.queue = queue
        self.due = due
        self.release = release
        self.closed = False
        self._waiting: list[tuple[int, int, Entry]] = []
        self._fresh: deque[Entry] = deque()  # entries whose messages may still leave memory
        self._timer: Timer | None = None

    def keep(self, message: Message) -> None:
        """Hold the message until it is due. Who publishes it with confirms is told when it is safe here."""
        self.queue.enqueue(message)
        self._take_up(1)
        self._await_next()

    def recover(self) -> Iterator[None]:
        """Take up what the journal has kept, bit by bit."""
        while self.queue.ready:
            self._take_up(1000)
            yield
        self._await_next()

    def _take_up(self, most: int) -> None:
        """See when new entries are due. Where there are many, those that are durable leave memory until then."""
        for _ in range(most):
            entry = self.queue.get()
            if entry is None:
                break
            assert entry.message is not None
            heapq.heappush(self._waiting, (self.due(entry.message), entry.id, entry))
            if entry.stored:
                self._fresh.append(entry)
        durable_id = self.queue.host.broker.durable_id
        while self._fresh and self._fresh[0].id <= durable_id:
            entry = self._fresh.popleft()
            if len(self._waiting) > self.queue.keep_messages and entry.state == ACQUIRED:
                self.queue.unload(entry)

    def _await_next(self) -> None:
        if not self._waiting:
            return
        due = self._waiting[0][0]
        if self._timer is not None:
            if self._timer.when <= due:
                return
            self._timer.cancel()
        self._timer = self.queue.host.broker.timers.at(due, self._release_due)

    def _release_due(self) -> None:
        self._timer = None
        now = self.queue.clock.now
        for _ in range(1000):
            if not self._waiting or self._waiting[0][0] > now:
                break
            entry = heapq.heappop(self._waiting)[2]
            if entry.message is None and not self.queue.load(entry):
                continue
            message = entry.message
            if message is not None and not self.closed:
                self.release(message)
            self.queue.accept(entry)
        self._await_next()

    def close(self) -> None:
        """Drop what is held."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._fresh.clear()
        self.queue.close(False)


class DelayedExchange(Exchange):
    """Holds messages before it routes them."""

    by_message = True

    def __init__(self, host: VirtualHost, within: Exchange, queue: Queue) -> None:
        super().__init__(within.name, "x-delayed-message", within.durable, within.auto_delete, within.internal,
                         within.arguments)
        self.host = host
        self.within = within  # the exchange of the kind that routes in the end, and has the bindings
        self.bindings = within.bindings
        self.hold = Hold(queue, lambda message: message.arrival + self.delay(message), self._route)

    def bind(self, binding: Binding) -> None:
        self.within.bind(binding)

    def unbind(self, binding: Binding) -> None:
        self.within.unbind(binding)

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        return self.within.match(routing_key, message)

    def delay(self, message: Message) -> int:
        """How long the message is to be held, ms; 0 for not at all."""
        delay = message.view().headers.get("x-delay")
        if isinstance(delay, bool) or not isinstance(delay, (int, str)):
            return 0
        try:
            return max(0, min(int(delay), LONGEST))
        except ValueError:
            return 0

    def keep(self, message: Message) -> None:
        """Hold the message until it is due. Who publishes it with confirms is told when it is safe here."""
        message.expiry = 0  # its time to live begins when it is routed
        self.hold.keep(message)

    def _route(self, message: Message) -> None:
        amendment = Amendment()
        amendment.headers["x-delay"] = -self.delay(message)  # so that another such exchange holds it no more
        self.host.route_and_enqueue(self, amended(message, amendment, message.address, self.host.broker.clock.now))

    def close(self) -> None:
        """The exchange is deleted, and what it holds is dropped."""
        self.deleted = True
        self.hold.close()
