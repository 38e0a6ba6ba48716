"""AMQP 1.0 at a remote broker, by Proton's engine. Messages pass in the bytes that they have.

A session for each end, with one link in it. Nodes are addressed as the other side has it: RabbitMQ's are called by its
own addresses, others' by their names, with `exchange/key` for a fixed routing key. An address that begins with `/` is
taken as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from proton import Condition, Described, Link, Terminus, symbol
from proton import Delivery as ProtonDelivery

from broker.message import AMQP10, CONVERTERS, Message, address_of
from broker.outcome import Outcome
from interop.dial import Place, dial, within
from interop.ends import (
    FORBIDDEN,
    NOWHERE,
    REFUSED,
    TRY_AGAIN,
    Arrived,
    Delivery,
    Done,
    EndError,
    From,
    Options,
    Remote,
    Source,
    Target,
    To,
    Unsupported,
)
from interop.wire10 import Party, Wire, said
from protocols.amqp10.sections import Scan, annotation, message_format
from protocols.values10 import Malformed, text

GOODBYE = 3.0
"""Seconds that closing may take."""

TOPIC_FILTER = "apache.org:legacy-amqp-topic-binding:string"
SELECTOR_FILTER = "apache.org:selector-filter:string"
"""Filters of Qpid's, by their names."""

FULL = ("amqp:resource-limit-exceeded", "amqp:link:transfer-limit-exceeded")
"""Conditions of a rejection that may pass."""

NOT_OURS = ("amqp:unauthorized-access", "amqp:not-allowed")
"""Those of one that is about who we are."""


class Remote10(Remote):
    """A connection to a broker that speaks 1.0."""

    def __init__(self, place: Place, options: Options) -> None:
        self.place = place
        self.options = options
        self.loop = asyncio.get_running_loop()
        self._closing = False  # by ourselves
        self._begin()

    def _begin(self) -> None:
        self.lost = self.loop.create_future()
        self.wire: Wire | None = None
        self._opened: asyncio.Future[None] = self.loop.create_future()
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._why = ""  # it is closed

    async def open(self) -> None:
        """A virtual host is asked for as RabbitMQ has it, then by its name alone."""
        path = self.place.path
        names = [path] if not path or path.startswith("vhost:") else [f"vhost:{path}", path]
        for name in names:
            try:
                await self._connect(name)
                return
            except EndError as error:
                product = self.wire.product if self.wire is not None else ""
                if "amqp:not-found" not in str(error) or name == names[-1] or any(
                        each in product for each in ("RabbitMQ", "Dragoman")):  # where other names are the default's
                    raise
            self._begin()

    async def _connect(self, name: str) -> None:
        place, seconds = self.place, self.options.timeout
        try:
            await dial(place, lambda: self._make(name), seconds)
            await within(asyncio.shield(self._opened), seconds, "to log in")
            if self._closed.done():  # by a close right behind the open: that is how 1.0 refuses
                raise EndError(self._why)
            if self.wire is not None:
                self.product = self.wire.product.strip()
                self.broker_id = self.wire.broker_id
        except BaseException as error:
            self._opened.cancel()
            if self.wire is not None:
                self.wire.end("given up")
            if isinstance(error, EndError):
                raise EndError(str(error) if str(place) in str(error) else f"{place}: {error}") from None
            raise

    async def source(self, taken: From) -> Source10:
        source = Source10(self, taken)
        await source.open()
        return source

    async def target(self, sent: To) -> Target10:
        target = Target10(self, sent)
        await target.open()
        return target

    async def close(self) -> None:
        self._closing = True
        wire = self.wire
        if wire is None or self._closed.done():
            return
        wire.connection.close()
        wire.schedule()
        with contextlib.suppress(EndError):
            await within(asyncio.shield(self._closed), min(GOODBYE, self.options.timeout), "to close")
        wire.end("closed")

    def _make(self, name: str) -> Wire:
        self.wire = Wire(self.place, self.options, name or self.place.host, self._when_open, self._when_closed)
        return self.wire

    def _when_open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _when_closed(self, why: str) -> None:
        self._why = why
        if not self._closed.done():
            self._closed.set_result(None)
        if not self._opened.done():
            self._opened.set_exception(EndError(why))
            self._opened.exception()  # whoever waits for it is told; nobody needs to
        elif not self._opened.cancelled() and self._opened.exception() is None:
            if not self._closing and not self.lost.done():
                self.lost.set_result(why)


class End(Party):
    """A session with a link in it."""

    def __init__(self, remote: Remote10) -> None:
        self.remote = remote
        self.lost: asyncio.Future[str] = remote.loop.create_future()
        self.session: Any = None
        self.link: Any = None
        self.kept = False  # by the other side, when we are away
        self._attached: asyncio.Future[None] = remote.loop.create_future()

    def begin(self) -> Wire:
        """Begin the session. Raises: EndError."""
        wire = self.remote.wire
        if wire is None or self.remote._closed.done():
            raise EndError("the connection is not open")
        self.wire = wire
        self.session = wire.connection.session()
        self.session.open()
        return wire

    async def attach(self, link: Any) -> None:
        """Raises: EndError."""
        self.link = link
        self.wire.parties[link.name] = self
        link.open()
        self.wire.schedule()
        try:
            await within(self._attached, self.remote.options.timeout, "an answer of the remote broker")
        except BaseException:
            await self.close()
            raise

    def link_open(self) -> None:
        link = self.link
        terminus = link.remote_target if link.is_sender else link.remote_source
        if terminus.type != Terminus.UNSPECIFIED and not self._attached.done():  # else it is refused in a moment
            self._attached.set_result(None)

    def over(self, why: str) -> None:
        if self.link is not None:
            self.wire.parties.pop(self.link.name, None)
        if not self._attached.done():
            self._attached.set_exception(EndError(why))
            self._attached.exception()  # whoever waits for it is told; nobody needs to
        if not self.lost.done():
            self.lost.set_result(why)

    async def close(self) -> None:
        if self.lost.done():
            return
        if self.kept:
            self.link.detach()
        else:
            self.link.close()
        self.wire.schedule()
        with contextlib.suppress(EndError):
            await within(asyncio.shield(self.lost), min(GOODBYE, self.remote.options.timeout), "to detach")
        if not self.remote._closed.done():
            self.session.close()
            self.wire.schedule()
        self.over("closed")


class Source10(End, Source):
    """A receiving link."""

    dialect = AMQP10

    def __init__(self, remote: Remote10, taken: From) -> None:
        super().__init__(remote)
        self.taken = taken
        self.exchange = taken.exchange
        self.key = taken.queue  # of messages that say no other
        self._arrived: Arrived | None = None
        self._used = 0  # credit that is to be given again

    async def open(self) -> None:
        taken = self.taken
        if len(taken.keys) > 1:
            raise Unsupported("a link of AMQP 1.0 takes by one key: make a bridge for each, or bind a queue")
        wire = self.begin()
        key = taken.keys[0] if taken.keys else ""
        self.kept = bool(taken.exchange and taken.queue)
        link = self.session.receiver(taken.queue if self.kept else f"dragoman-{uuid.uuid4()}")
        filters: dict[Any, Any] = {}
        if taken.exchange:
            link.source.address = exchange_address(wire.product, taken.exchange, key)
            if key and "RabbitMQ" not in wire.product:
                link.source.address = exchange_address(wire.product, taken.exchange, None)
                filters[symbol("key")] = Described(symbol(TOPIC_FILTER), key)
            if self.kept:
                link.source.durability = Terminus.DELIVERIES
                link.source.expiry_policy = Terminus.EXPIRE_NEVER
        else:
            link.source.address = queue_address(wire.product, taken.queue)
        if taken.selector:
            filters[symbol("selector")] = Described(symbol(SELECTOR_FILTER), taken.selector)
        if filters:
            link.source.filter.put_dict(filters)
        link.snd_settle_mode = Link.SND_SETTLED if taken.settled else Link.SND_UNSETTLED
        await self.attach(link)
        if taken.selector:
            self.selects = _has_filter(link.remote_source, SELECTOR_FILTER)
        if TOPIC_FILTER in repr(filters) and not _has_filter(link.remote_source, TOPIC_FILTER):
            await self.close()
            raise Unsupported(f"the remote broker does not bind {taken.exchange} by a key in AMQP 1.0")

    def start(self, arrived: Arrived) -> None:
        self._arrived = arrived
        if not self.lost.done():
            self.link.flow(max(1, self.taken.prefetch))
            self.wire.schedule()

    def delivery(self, delivery: ProtonDelivery) -> None:
        """Raises nothing: what is no message is rejected."""
        if not delivery.readable or delivery.partial:
            return
        link = self.link
        data = bytes(link.recv(delivery.pending) or b"")
        link.advance()
        try:
            message = self._message(data)
        except Malformed:
            delivery.local.condition = Condition("amqp:decode-error")
            delivery.update(ProtonDelivery.REJECTED)
            self._settled(delivery)
            return
        redelivered = False
        if data[:3] == b"\x00\x53\x70":
            redelivered = Scan(data, False).delivery_count > 0
        if self.taken.settled or delivery.settled:
            self._settled(delivery)
        if self._arrived is not None:
            self._arrived(Delivery(message, redelivered, delivery))

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        handle = delivery.handle
        if self.lost.done() or self.taken.settled:
            return
        if outcome.accepts:
            handle.update(ProtonDelivery.ACCEPTED)
        elif outcome.rejects:
            handle.update(ProtonDelivery.REJECTED)
        elif outcome.failed or outcome.undeliverable_here:
            handle.local.failed = outcome.failed
            handle.local.undeliverable = outcome.undeliverable_here
            handle.update(ProtonDelivery.MODIFIED)
        else:
            handle.update(ProtonDelivery.RELEASED)
        self._settled(handle)

    def _settled(self, delivery: ProtonDelivery) -> None:
        delivery.settle()
        self._used += 1
        if self._used > max(1, self.taken.prefetch) // 2:
            self.link.flow(self._used)
            self._used = 0
        self.wire.schedule()

    def _message(self, data: bytes) -> Message:
        """Raises: Malformed."""
        scan = Scan(data, True)
        now = int(time.time() * 1000)
        expiry = scan.absolute_expiry
        if scan.ttl >= 0 and (not expiry or now + scan.ttl < expiry):
            expiry = now + scan.ttl
        native = data
        if scan.rest_at > scan.header_end:  # delivery annotations are for us alone
            native = data[:scan.header_end] + data[scan.rest_at:]
        exchange, key = self.exchange, self.key
        if scan.subject is not None and exchange:
            key = text(scan.subject)
        if scan.annotations_at >= 0 and data.find(b"x-routing-key") >= 0:
            key = str(annotation(data, scan.annotations_at, "x-routing-key"))
            exchange = str(annotation(data, scan.annotations_at, "x-exchange") or "")
        try:
            address = address_of(exchange, key)
        except ValueError:
            address = address_of(exchange, "")
        return Message(address, AMQP10, native, None, len(data) - scan.body_at, scan.durable,
                       4 if scan.priority < 0 else scan.priority, max(0, expiry), now)


class Target10(End, Target):
    """A sending link."""

    dialect = AMQP10

    def __init__(self, remote: Remote10, sent: To) -> None:
        super().__init__(remote)
        self.sent = sent
        self._number = 0
        self._pending: dict[str, Done] = {}  # by delivery tag, in order
        self._backlog: deque[tuple[Message, Done]] = deque()  # without credit
        self._callbacks: list[Callable[[], None]] = []

    async def open(self) -> None:
        sent = self.sent
        wire = self.begin()
        link = self.session.sender(f"dragoman-{uuid.uuid4()}")
        if sent.queue:
            link.target.address = queue_address(wire.product, sent.queue)
        else:
            link.target.address = exchange_address(wire.product, sent.exchange, sent.key)
            link.source.address = "dragoman"
        link.snd_settle_mode = Link.SND_SETTLED if sent.settled else Link.SND_UNSETTLED
        await self.attach(link)

    def send(self, message: Message, done: Done) -> None:
        if self.lost.done():
            done(self.lost.result(), TRY_AGAIN)
        elif self._backlog or self.link.credit <= 0:
            self._backlog.append((message, done))
        else:
            self._send(message, done)

    def ready(self) -> bool:
        return not self.lost.done() and self.wire.writable and not self._backlog and self.link.credit > 0

    def call_when_ready(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def link_flow(self) -> None:
        while self._backlog and self.link.credit > 0:
            self._send(*self._backlog.popleft())
        if self._callbacks and self.ready():
            self._tell()

    def delivery(self, delivery: ProtonDelivery) -> None:
        state = delivery.remote_state
        if not state and not delivery.settled:
            return
        done = self._pending.pop(delivery.tag, None)
        if done is not None:
            if state == ProtonDelivery.ACCEPTED:
                done()
            else:
                done(*self._refusal(delivery))
        delivery.settle()

    def over(self, why: str) -> None:
        super().over(why)
        pending, self._pending = self._pending, {}
        backlog, self._backlog = self._backlog, deque()
        for done in pending.values():
            done(why, TRY_AGAIN)
        for _, done in backlog:
            done(why, TRY_AGAIN)
        self._tell()

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _send(self, message: Message, done: Done) -> None:
        data = self._bytes(message)
        size = len(data) + (sum(map(len, message.body or ())) if data is message.native else 0)
        if 0 < self.link.remote_max_message_size < size:
            done(f"it has {size} bytes, and the remote broker takes no more than {self.link.remote_max_message_size}",
                 REFUSED)
            return
        self._number += 1
        tag = str(self._number)
        delivery = self.link.delivery(tag)
        self.link.stream(data)
        if message.body is not None and data is message.native:
            for piece in message.body:
                self.link.stream(piece)
        self.link.advance()
        if self.sent.settled:
            delivery.settle()
            done()
        else:
            self._pending[tag] = done
        self.wire.schedule()

    def _bytes(self, message: Message) -> bytes:
        """What to send (with `Message.body` behind it, when these are the native bytes)."""
        native = message.native
        start = message_format(native)[1]
        scan = Scan(native[start:], message.body is None)
        by_subject = not self.sent.queue and self.sent.key is None
        key = message.address.routing_key
        wrong_key = by_subject and key != ("" if scan.subject is None else text(scan.subject))
        wrong_user = scan.user_id is not None and text(scan.user_id) != self.remote.place.user
        if not wrong_key and not wrong_user:
            return native[start:] if start else native
        view = CONVERTERS[AMQP10].decode(message)
        if wrong_user:  # a broker takes no message of another user
            view.headers.setdefault("x-user-id", view.user_id)
            view.user_id = None
        if wrong_key:  # it is the subject that says it
            if view.subject is not None:
                view.annotations.setdefault("x-opt-subject", view.subject)
            view.subject = key
        made = CONVERTERS[AMQP10].encode(view, message)
        return made.native + b"".join(made.body or ())

    def _refusal(self, delivery: ProtonDelivery) -> tuple[str, int]:
        state = delivery.remote_state
        if state == ProtonDelivery.REJECTED:
            condition = delivery.remote.condition
            name = condition.name if condition is not None else ""
            return (said(condition, "the remote broker rejected it"),
                    TRY_AGAIN if name in FULL else FORBIDDEN if name in NOT_OURS else
                    NOWHERE if name == "amqp:not-found" else REFUSED)
        if state == ProtonDelivery.RELEASED:
            unroutable = "RabbitMQ" in self.wire.product  # that is how it says so
            return (f"the remote broker {'has no queue for' if unroutable else 'released'} it",
                    NOWHERE if unroutable else TRY_AGAIN)
        if state == ProtonDelivery.MODIFIED:
            return ("the remote broker released it (modified)",
                    REFUSED if delivery.remote.undeliverable else TRY_AGAIN)
        return "the remote broker settled it without an outcome", TRY_AGAIN


def queue_address(product: str, name: str) -> str:
    """A queue, as that broker has it."""
    if name.startswith("/") or "RabbitMQ" not in product:
        return name
    return f"/queues/{quote(name, safe='')}" if _is_new(product) else f"/amq/queue/{name}"


def exchange_address(product: str, name: str, key: str | None) -> str:
    """An exchange, with a key or without, as that broker has it."""
    if name.startswith("/"):
        return name
    if "RabbitMQ" not in product:
        return f"{name}/{key}" if key else name
    parts = [name] if key is None else [name, key]
    if _is_new(product):
        return "/exchanges/" + "/".join(quote(part, safe="") for part in parts)
    return "/exchange/" + "/".join(parts)


def _is_new(product: str) -> bool:
    """Whether it is a RabbitMQ that has addresses of version 2."""
    major = product.partition("RabbitMQ")[2].strip().partition(".")[0]
    return major.isdigit() and int(major) >= 4


def _has_filter(terminus: Any, name: str) -> bool:
    """Whether the other side honours a filter."""
    terminus.filter.rewind()
    while terminus.filter.next():
        return name in repr(terminus.filter.get_object())
    return False
