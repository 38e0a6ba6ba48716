"""Ends of a bridge at this broker: a source on a queue or an exchange, a target to an exchange or a queue.

They give and take messages of any dialect (`ANY`): a message that passes stays in its native bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from broker.clock import Clock
from broker.consumer import Consumer
from broker.deduplication import Known, identity_of
from broker.entry import Entry
from broker.errors import BrokerError
from broker.exchange import Exchange
from broker.message import AMQP091, AMQP10, Address, Amendment, Message, Publisher, address_of, amended
from broker.outcome import Outcome
from broker.queue import Queue
from broker.returns import give_back
from broker.routing import ROUTED, UNROUTED
from broker.selector import Selector, SelectorError
from broker.virtualhost import VirtualHost
from interop.ends import ANY, NOWHERE, REFUSED, TRY_AGAIN, Arrived, Delivery, Done, EndError, From, Source, Target, To

_WITHOUT_ROUTE = (AMQP091, AMQP10)
"""Dialects whose native bytes do not say by which route a message came."""


class LocalSource(Source):
    """Takes from a queue of ours, or from an exchange by a queue of its own."""

    dialect = ANY
    selects = True

    def __init__(self, host: VirtualHost, taken: From, name: str, when_durable: bool = False) -> None:
        """name: the bridge's, for those who look at the queue's consumers. when_durable: give nothing that a crash
        could still take back. Raises: EndError."""
        self.when_durable = when_durable
        self.host = host
        self.taken = taken
        self.loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self.loop.create_future()
        self.exchange: Exchange | None = None
        self.closed = False
        self._arrived: Arrived | None = None
        self._fresh: list[Delivery] = []  # delivered in this turn
        self._entries: dict[Entry, Delivery] = {}  # unsettled
        try:
            self.queue = self._queue()
            self.reader = _Reader(self, self.queue, name)
            if taken.selector:
                self.reader.choose(Selector(taken.selector), -1)
        except (BrokerError, SelectorError) as error:
            raise EndError(str(error)) from None

    def _queue(self) -> Queue:
        taken = self.taken
        if not taken.exchange:
            return self.host.queue(taken.queue)
        self.exchange = self.host.exchange(taken.exchange)
        kept = bool(taken.queue)
        queue, _ = self.host.declare_queue(taken.queue, kept, not kept, not kept, dict(taken.arguments), self)
        for key in taken.keys:
            self.host.bind(self.exchange, queue, key, {})
        return queue

    def start(self, arrived: Arrived) -> None:
        self._arrived = arrived
        try:
            self.queue.add(self.reader)
        except BrokerError as error:
            self.over(str(error))

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        entry: Entry = delivery.handle
        if self._entries.pop(entry, None) is None:
            return
        self.reader.room += 1
        outcome.apply(entry)
        self.queue.wake(self.reader)
        if outcome.releases():
            self.queue.dispatch()

    def keeps_rejected(self) -> bool | None:
        settings, host = self.queue.settings, self.host
        if settings.dead_letter_exchange is not None:
            return settings.dead_letter_exchange in host.exchanges
        return settings.alternate is not None and (settings.alternate in host.exchanges
                                                   or settings.alternate in host.queues)

    async def bind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        self._each_key(keys, arguments, self.host.bind)

    async def unbind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        self._each_key(keys, arguments, self.host.unbind)

    def _each_key(self, keys: Iterable[str], arguments: dict[str, str] | None,
                  change: Callable[[Exchange, Queue, str, dict[str, object]], bool]) -> None:
        if self.exchange is None:
            raise EndError("it takes from a queue, not from an exchange")
        try:
            for key in keys:
                change(self.exchange, self.queue, key, {**(arguments or {})})
        except BrokerError as error:
            raise EndError(str(error)) from None

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.queue.remove(self.reader)
        entries, self._entries = list(self._entries), {}
        give_back(entries, self.host.broker.chores, False)
        self.over("closed")
        if self.exchange is not None and not self.taken.queue:
            self.host.delete_queue(self.queue)

    # What the reader tells.

    def delivered(self, entry: Entry, message: Message) -> None:
        """An entry is ours; the bridge hears of it when the queue has done what it is at."""
        delivery = Delivery(message, entry.redelivered, entry)
        if self.reader.settles:
            self._entries[entry] = delivery
        if self.when_durable:
            self.host.broker.log.commit(partial(self._give_one, delivery))
            return
        if not self._fresh:
            self.loop.call_soon(self._give)
        self._fresh.append(delivery)

    def _give_one(self, delivery: Delivery) -> None:
        if self._arrived is not None and delivery.handle in self._entries:
            self._arrived(delivery)

    def _give(self) -> None:
        fresh, self._fresh = self._fresh, []
        arrived = self._arrived
        if not self.reader.settles:
            self.reader.room += len(fresh)
        for delivery in fresh:
            if arrived is not None and (delivery.handle in self._entries or not self.reader.settles):
                arrived(delivery)
        if not self.reader.settles:
            self.queue.wake(self.reader)


class _Reader(Consumer):
    """The source as its queue sees it."""

    def __init__(self, source: LocalSource, queue: Queue, name: str) -> None:
        super().__init__(queue, f"bridge {name}", 0, False, not source.taken.settled)
        self.source = source
        self.room = max(1, source.taken.prefetch)

    def ready(self) -> bool:
        return self.room > 0

    def deliver(self, entry: Entry, message: Message) -> None:
        self.room -= 1
        self.source.delivered(entry, message)

    def cancelled(self) -> None:
        self.source.over(f"{self.queue!r} was deleted")


class LocalTarget(Target, Publisher):
    """Publishes to an exchange of ours, or to a queue by the nameless exchange; by each message's own address, when
    neither is given."""

    dialect = ANY

    def __init__(self, host: VirtualHost, sent: To, known: Known | None = None) -> None:
        """known: the ids of the messages that it has had; of what it is sent again, it tells that it is safe.
        Raises: EndError."""
        self.host = host
        self.sent = sent
        self.known = known
        self.duplicates = 0
        self.memory = host.broker.memory
        self.clock: Clock = host.broker.clock
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._sequence = 0
        self._unconfirmed: dict[int, Done] = {}
        self._addresses: dict[str, Address] = {}  # by routing key
        try:
            if sent.exchange:
                host.exchange(sent.exchange)
            elif sent.queue:
                host.queue(sent.queue)
        except BrokerError as error:
            raise EndError(str(error)) from None

    def send(self, message: Message, done: Done) -> None:
        try:
            address = self._address(message)
            route = self.host.routes.get(address.short_strings)
            if route is None:
                route = self.host.route(address.short_strings, address.exchange, address.routing_key)
        except ValueError as error:
            done(str(error), REFUSED)
            return
        except BrokerError as error:
            done(str(error), TRY_AGAIN)  # it may come back
            return
        identity = identity_of(message) if self.known is not None else ""
        if self.known is not None and identity and self.known.knows(identity):
            self.duplicates += 1
            self.host.broker.log.commit(done)  # the first one may not be durable yet
            return
        fresh = readdressed(message, route.address, self.clock.now)
        outcome = self.host.publish(route, fresh, None)
        if outcome == UNROUTED:
            done(f"no queue is there for key '{address.routing_key}' of exchange '{address.exchange}'", NOWHERE)
        elif outcome != ROUTED:
            done("a queue is full and refuses messages", TRY_AGAIN)
        else:
            if self.known is not None and identity:
                self.known.add(identity)  # in the batch that the message is in
            self._await(fresh, done)

    def _await(self, message: Message, done: Done) -> None:
        """Tell when the message is safe in its queues."""
        if message.pending and not self.sent.settled:
            self._sequence += 1
            message.publisher = self
            message.sequence = self._sequence
            self._unconfirmed[self._sequence] = done
        else:
            done()

    def _address(self, message: Message) -> Address:
        """Raises: ValueError."""
        sent = self.sent
        if not sent.exchange and not sent.queue:
            return message.address
        key = sent.key_for(message.address.routing_key)
        address = self._addresses.get(key)
        if address is None:
            if len(self._addresses) >= _ADDRESSES:
                self._addresses.clear()
            address = self._addresses[key] = address_of(sent.exchange, key)
        return address

    def confirmed(self, sequence: int) -> None:
        done = self._unconfirmed.pop(sequence, None)
        if done is not None:
            done()

    def ready(self) -> bool:
        return not self.memory.alarms

    def forget(self) -> list[Done]:
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        return list(unconfirmed.values())

    async def close(self) -> None:
        self.over("the bridge is stopped")


_ADDRESSES = 10_000
"""Addresses that a target keeps at hand."""


def readdressed(message: Message, address: Address, now: int) -> Message:
    """The message as it is to be published here: with another route, and arriving now."""
    if message.dialect not in _WITHOUT_ROUTE:
        return amended(message, Amendment(), address, now)
    fresh = Message(address, message.dialect, message.native, message.body, message.size, message.durable,
                    message.priority, message.expiry, now)
    fresh.origin = message.origin
    return fresh
