"""AMQP 0-9-1 at a remote broker, by pika.

A channel for each end. What is to be sent goes out, and what comes in is taken, in the bytes that it has: no header
changes its type. Confirms are counted by number, and acknowledgements sent once a turn of the loop, all that can be in
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosed

from broker.message import AMQP091, Address, Message
from broker.outcome import Outcome
from interop.adapter import ROUTES, RemoteEnd, WireAdapter, answer
from interop.dial import Place, has_selectors, shortened
from interop.ends import (
    NOWHERE,
    TRY_AGAIN,
    Arrived,
    Delivery,
    Done,
    EndError,
    From,
    Options,
    Source,
    Target,
    To,
)
from interop.wire091 import ONE_PIECE, Receiving, Wire091
from protocols.amqp091 import properties
from protocols.amqp091.codec import Malformed, pack32, short_string
from protocols.amqp091.convert import PROPERTIES_AT, content_frames, expiry, for_channel, header_end, make

PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
"""basic.publish with its reserved field."""

MANDATORY = b"\x01"


Asked = Callable[[Callable[[Any], None]], Any]
"""What asks pika for something, which is told by the callback that it is given."""


class Remote091(WireAdapter[Wire091]):
    """A connection to a broker that speaks 0-9-1."""

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.blocked = False  # connection.blocked: it takes no messages for now

    async def open(self) -> None:
        wire = await self.connect(lambda: Wire091(self.place, self.options, self.when_open, self.when_closed))
        wire.on_writable = self.tell_ready
        wire.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        wire.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))

    async def source(self, taken: From) -> Source091:
        wire = self.open_wire()
        return await self.opened(Source091(self, wire, await self._channel(wire), taken))

    async def target(self, sent: To) -> Target091:
        wire = self.open_wire()
        return await self.opened(Target091(self, wire, await self._channel(wire), sent))

    async def _channel(self, wire: Wire091) -> Channel:
        """Raises: EndError."""
        return await _answered(lambda told: wire.channel(on_open_callback=told), self.closed, self.options.timeout)

    def ready(self) -> bool:
        return self.wire is not None and self.wire.writable and not self.blocked

    def _set_blocked(self, blocked: bool) -> None:
        self.blocked = blocked
        self.tell_ready()


class End091(RemoteEnd, Receiving):
    """A channel."""

    remote: Remote091

    def __init__(self, remote: Remote091, wire: Wire091, channel: Channel) -> None:
        super().__init__(remote)
        self.wire = wire
        self.channel = channel
        channel.add_on_close_callback(lambda _, why: self.over(self._why(why)))
        wire.receiving[channel.channel_number] = self

    async def call(self, asked: Asked) -> Any:
        """Raises: EndError."""
        return await _answered(asked, self.lost, self.remote.options.timeout)

    def _why(self, error: BaseException) -> str:
        return _said(error) if isinstance(error, ChannelClosed) else self.wire.why(error)

    def over(self, why: str) -> None:
        self.wire.receiving.pop(self.channel.channel_number, None)
        super().over(why)

    async def leave(self) -> None:
        if self.channel.is_open:
            self.channel.close()
            await asyncio.shield(self.lost)


class Source091(End091, Source):
    """A consumer on a channel of its own."""

    dialect = AMQP091

    def __init__(self, remote: Remote091, wire: Wire091, channel: Channel, taken: From) -> None:
        super().__init__(remote, wire, channel)
        self.taken = taken
        self.queue = taken.queue
        self.selects = bool(taken.selector) and has_selectors(remote.product)
        self._arrived: Arrived | None = None
        self._routes: dict[bytes, Address] = {}
        self._unsettled: deque[int] = deque()  # delivery tags, and some of those that are settled
        self._accepted: set[int] = set()  # to be acknowledged
        self._gone: set[int] = set()  # of _unsettled, those that are settled
        self._flushing = False

    async def open(self) -> None:
        """Find the queue, or make one and bind it."""
        taken, channel = self.taken, self.channel
        if not taken.exchange:
            await self.call(lambda told: channel.queue_declare(taken.queue, passive=True, callback=told))
        else:
            kept = bool(taken.queue)
            made = await self.call(lambda told: channel.queue_declare(
                taken.queue, durable=kept, exclusive=not kept, auto_delete=not kept,
                arguments=taken.arguments or None, callback=told))
            self.queue = made.method.queue
            await self.bind(taken.keys)
        await self.call(lambda told: channel.basic_qos(
            prefetch_count=min(65535, max(1, taken.prefetch)), callback=told))

    def start(self, arrived: Arrived) -> None:
        self._arrived = arrived
        self.channel.add_on_cancel_callback(lambda _: self._cancelled())
        arguments = {"x-filter-jms-selector": self.taken.selector} if self.selects else None
        try:
            self.channel.basic_consume(self.queue, _nobody, auto_ack=self.taken.settled, arguments=arguments)
        except AMQPError as error:
            self.over(_said(error))

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        tag: int = delivery.handle
        if self.lost.done() or self.taken.settled:
            return
        if outcome.accepts:
            self._accepted.add(tag)
            if not self._flushing:
                self._flushing = True
                self.remote.loop.call_soon(self._flush)
        else:
            self._gone.add(tag)
            self.channel.basic_reject(tag, requeue=not outcome.rejects)

    async def bind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        for key in keys:
            await self.call(partial(self.channel.queue_bind, self.queue, self.taken.exchange, key, arguments))

    async def unbind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        for key in keys:
            await self.call(partial(self.channel.queue_unbind, self.queue, self.taken.exchange, key, arguments))

    async def leave(self) -> None:
        self._flush()
        await super().leave()

    def deliver(self, method: bytes, native: bytes, body: list[bytes] | None, size: int) -> None:
        """Arguments: consumer tag, delivery tag, redelivered, exchange, routing key. Raises: Malformed."""
        at = 1 + method[0]
        tag = int.from_bytes(method[at:at + 8], "big")
        route = method[at + 9:]
        address = self._routes.get(route)
        if address is None:
            address = self._learn(route)
        found = properties.scan(native, PROPERTIES_AT, header_end(native))
        message = Message(address, AMQP091, native, body, size, found.delivery_mode == 2, found.priority, 0,
                          int(time.time() * 1000))
        if found.expiration is not None:
            with contextlib.suppress(ValueError):
                message.expiry = expiry(found.expiration, message.arrival)
        if not self.taken.settled:
            self._unsettled.append(tag)
        if self._arrived is not None:
            self._arrived(Delivery(message, bool(method[at + 8] & 1), tag))

    def _learn(self, route: bytes) -> Address:
        size = route[0]
        if len(route) < 2 + size or len(route) != 2 + size + route[1 + size]:
            raise Malformed("a delivery without a route")
        if len(self._routes) > ROUTES:
            self._routes.clear()
        address = self._routes[route] = Address(route[1:1 + size].decode("utf-8", "surrogateescape"),
                                                route[2 + size:].decode("utf-8", "surrogateescape"), route)
        return address

    def _flush(self) -> None:
        """Acknowledge what was accepted: all before the first that is not at once, the others one by one."""
        self._flushing = False
        accepted, gone, unsettled = self._accepted, self._gone, self._unsettled
        if not accepted or self.lost.done():
            return
        last = 0
        while unsettled and (unsettled[0] in accepted or unsettled[0] in gone):
            tag = unsettled.popleft()
            if tag in accepted:
                accepted.remove(tag)
                last = tag
            else:
                gone.remove(tag)
        if last:
            self.wire.write(_ack(self.channel.channel_number, last, True))
        for tag in accepted:
            self.wire.write(_ack(self.channel.channel_number, tag, False))
        gone.update(accepted)
        accepted.clear()

    def _cancelled(self) -> None:
        """basic.cancel of the broker."""
        self.over(f"the remote broker ended the consumer: queue {self.queue} is gone, or has moved")
        if self.channel.is_open:
            self.channel.close()


class Target091(End091, Target):
    """A channel in confirm mode, unless nobody waits for confirms."""

    dialect = AMQP091

    def __init__(self, remote: Remote091, wire: Wire091, channel: Channel, sent: To) -> None:
        super().__init__(remote, wire, channel)
        self.sent = sent
        self._number = 0  # of the last message
        self._pending: dict[int, tuple[Done, Message]] = {}  # by number, in order
        self._returned: dict[int, str] = {}  # why a message had no queue to go to, by number
        self._methods: dict[str, bytes] = {}  # frame of basic.publish by routing key

    async def open(self) -> None:
        sent, channel = self.sent, self.channel
        if sent.queue:
            await self.call(lambda told: channel.queue_declare(sent.queue, passive=True, callback=told))
        elif sent.exchange:
            await self.call(lambda told: channel.exchange_declare(sent.exchange, passive=True, callback=told))
        if not sent.settled:
            await self.call(lambda told: channel.confirm_delivery(_nobody, callback=told))

    def send(self, message: Message, done: Done) -> None:
        if self.lost.done():
            done(self.lost.result(), TRY_AGAIN)
            return
        method = self._methods.get(message.address.routing_key)
        if method is None:
            method = self._learn(message.address.routing_key)
        if message.native[PROPERTIES_AT + 1] & properties.USER_ID:
            message = self._as_ourselves(message)
        channel = self.channel.channel_number
        if message.body is None and len(message.native) <= ONE_PIECE:
            self.wire.write(method + for_channel(message.native, channel))
        else:
            self.wire.write(b"".join([method, *content_frames(message, channel, self.wire.params.frame_max)]))
        if self.sent.settled:
            done()
        else:
            self._number += 1
            self._pending[self._number] = (done, message)

    def ready(self) -> bool:
        return self.remote.ready()

    def confirmed(self, number: int, multiple: bool, accepted: bool) -> None:
        pending = self._pending
        if not multiple or number == next(iter(pending), 0):
            numbers = [number]
        elif not number:
            numbers = list(pending)
        else:
            numbers = []
            for each in pending:
                if each > number:
                    break
                numbers.append(each)
        for each in numbers:
            found = pending.pop(each, None)
            if found is not None:
                why = self._returned.pop(each, "") if self._returned else ""
                if why:
                    found[0](why, NOWHERE)
                else:
                    found[0]("" if accepted else "the remote broker did not take it (basic.nack)", TRY_AGAIN)

    def returned(self, method: bytes, native: bytes, body: list[bytes] | None, size: int) -> None:
        """Arguments: reply code, reply text, exchange, routing key. It is the oldest of ours that says the same."""
        at = 3 + method[2]
        text = shortened(f"{method[0] << 8 | method[1]} {method[3:at].decode('utf-8', 'replace')}")
        route = method[at:]
        key = route[2 + route[0]:].decode("utf-8", "surrogateescape")
        for exact in (True, False):
            for number, (_, message) in self._pending.items():
                if number not in self._returned and self.sent.key_for(message.address.routing_key) == key and (
                        not exact or message.size == size and message.native[7:] == native[7:]):
                    self._returned[number] = f"{text}: routing key '{key}'"
                    return

    def forget(self) -> list[Done]:
        pending, self._pending = self._pending, {}
        return [done for done, _ in pending.values()]

    def _as_ourselves(self, message: Message) -> Message:
        """A broker takes no message of another user: who that was goes into a header, as translating has it."""
        end = header_end(message.native)
        found = properties.split(message.native, PROPERTIES_AT, end)
        user = found[properties.USER_ID][1:]
        if user == self.remote.place.user.encode():
            return message
        del found[properties.USER_ID]
        entries = properties.split_table(found[properties.HEADERS]) if properties.HEADERS in found else {}
        entries.setdefault("x-user-id", b"x" + pack32(len(user)) + user)
        found[properties.HEADERS] = properties.join_table(entries)
        return make(found, message.native[end + 1:], message, message.address, message.arrival)

    def _learn(self, routing_key: str) -> bytes:
        sent = self.sent
        arguments = PUBLISH + short_string("" if sent.queue else sent.exchange) + short_string(
            sent.key_for(routing_key)) + (b"\x00" if sent.settled else MANDATORY)
        if len(self._methods) > ROUTES:
            self._methods.clear()
        number: int = self.channel.channel_number
        frame = b"\x01" + number.to_bytes(2, "big") + pack32(len(arguments)) + arguments + b"\xce"
        self._methods[routing_key] = frame
        return frame


async def _answered(asked: Asked, over: asyncio.Future[str], seconds: float) -> Any:
    """Ask pika for something and wait for the answer. Raises: EndError, when it is `over` as well."""
    if over.done():
        raise EndError(over.result())
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        asked(lambda result: None if told.done() else told.set_result(result))
    except (AMQPError, ValueError, TypeError, AssertionError) as error:
        raise EndError(shortened(str(error))) from None
    return await answer(told, over, seconds, "an answer of the remote broker")


def _ack(channel: int, tag: int, multiple: bool) -> bytes:
    """A frame of basic.ack."""
    return b"".join((b"\x01", channel.to_bytes(2, "big"), b"\x00\x00\x00\x0d\x00\x3c\x00\x50", tag.to_bytes(8, "big"),
                     b"\x01" if multiple else b"\x00", b"\xce"))


def _nobody(*_: Any) -> None:
    """What pika is given to call with messages and confirms, which do not come to it."""


def _said(why: BaseException) -> str:
    """Why a channel was closed."""
    if isinstance(why, ChannelClosed):
        text = str(why.reply_text)
        return shortened(text if text[:3].isdigit() else f"{why.reply_code} {text}")
    return shortened(str(why) or type(why).__name__)
