"""The delayed exchange: `x-delayed-message` holds a message for as many milliseconds as its `x-delay` header says,
and then routes it as the kind of exchange that its argument `x-delayed-type` names."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
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


class DelayedExchange(Exchange):
    """Holds messages in a queue that only it knows, all of them acquired, in order of when they are due."""

    by_message = True

    def __init__(self, host: VirtualHost, within: Exchange, hold: Queue) -> None:
        super().__init__(within.name, "x-delayed-message", within.durable, within.auto_delete, within.internal,
                         within.arguments)
        self.host = host
        self.within = within  # the exchange of the kind that routes in the end, and has the bindings
        self.bindings = within.bindings
        self.hold = hold
        self.waiting: list[tuple[int, int, Entry]] = []
        self.fresh: deque[Entry] = deque()  # entries whose messages may still leave memory
        self.timer: Timer | None = None

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
        self.hold.enqueue(message)
        self._take_up(1)
        self._await_next()

    def recover(self) -> Iterator[None]:
        """Take up what the journal has kept, bit by bit."""
        while self.hold.ready:
            self._take_up(1000)
            yield
        self._await_next()

    def _take_up(self, most: int) -> None:
        """See when new entries are due. Where there are many, those that are durable leave memory until then."""
        for _ in range(most):
            entry = self.hold.get()
            if entry is None:
                break
            assert entry.message is not None
            due = entry.message.arrival + self.delay(entry.message)
            heapq.heappush(self.waiting, (due, entry.id, entry))
            if entry.stored:
                self.fresh.append(entry)
        durable_id = self.host.broker.durable_id
        while self.fresh and self.fresh[0].id <= durable_id:
            entry = self.fresh.popleft()
            if len(self.waiting) > self.hold.keep_messages and entry.state == ACQUIRED:
                self.hold.unload(entry)

    def _await_next(self) -> None:
        if not self.waiting:
            return
        due = self.waiting[0][0]
        if self.timer is not None:
            if self.timer.when <= due:
                return
            self.timer.cancel()
        self.timer = self.host.broker.timers.at(due, self._route_due)

    def _route_due(self) -> None:
        self.timer = None
        now = self.host.broker.clock.now
        for _ in range(1000):
            if not self.waiting or self.waiting[0][0] > now:
                break
            entry = heapq.heappop(self.waiting)[2]
            if entry.message is None and not self.hold.load(entry):
                continue
            message = entry.message
            if message is not None and not self.deleted:
                amendment = Amendment()
                amendment.headers["x-delay"] = -self.delay(message)  # so that another such exchange holds it no more
                self.host.route_and_enqueue(self, amended(message, amendment, message.address, now))
            self.hold.accept(entry)
        self._await_next()

    def close(self) -> None:
        """The exchange is deleted, and what it holds is dropped."""
        self.deleted = True
        if self.timer is not None:
            self.timer.cancel()
        self.waiting.clear()
        self.fresh.clear()
        self.hold.close()
