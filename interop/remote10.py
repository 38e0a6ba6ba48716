"""AMQP 1.0 at a remote broker, by Proton's engine. Messages pass in the bytes that they have.

A session for each end, with one link in it. Nodes are addressed as the other side has it: RabbitMQ's are called by its
own addresses, others' by their names, with `exchange/key` for a fixed routing key. An address that begins with `/` is
taken as it is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from proton import Condition, Described, Link, Terminus, symbol
from proton import Delivery as ProtonDelivery

from broker.message import AMQP10, CONVERTERS, Message, address_of
from broker.outcome import Outcome
from interop.adapter import RemoteEnd, WireAdapter, answer, fresh_name
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
    Source,
    Target,
    To,
    Unsupported,
)
from interop.wire10 import Party, Wire10, said
from protocols.amqp10.sections import Scan, annotation, message_format
from protocols.values10 import Malformed, text

TOPIC_FILTER = "apache.org:legacy-amqp-topic-binding:string"
SELECTOR_FILTER = "apache.org:selector-filter:string"
"""Filters of Qpid's, by their names."""

FULL = ("amqp:resource-limit-exceeded", "amqp:link:transfer-limit-exceeded")
"""Conditions of a rejection that may pass."""

NOT_OURS = ("amqp:unauthorized-access", "amqp:not-allowed")
"""Those of one that is about who we are."""


class Remote10(WireAdapter[Wire10]):
    """A connection to a broker that speaks 1.0."""

    async def open(self) -> None:
        """A virtual host is asked for as RabbitMQ has it, then by its name alone."""
        path = self.place.path
        names = [path] if not path or path.startswith("vhost:") else [f"vhost:{path}", path]
        for name in names:
            try:
                await self._connect(name or self.place.host)
                return
            except EndError as error:
                known = "RabbitMQ" in self.product or "Dragoman" in self.product  # where other names are the default's
                if "amqp:not-found" not in str(error) or name == names[-1] or known:
                    raise

    async def _connect(self, hostname: str) -> None:
        await self.connect(lambda: Wire10(self.place, self.options, hostname, self.when_open, self.when_closed))

    def introduce(self, properties: Mapping[Any, Any]) -> None:
        super().introduce(properties)
        self.product = f"{self.product} {properties.get('version', '')}".strip()

    async def source(self, taken: From) -> Source10:
        if len(taken.keys) > 1:
            raise Unsupported("a link of AMQP 1.0 takes by one key: make a bridge for each, or bind a queue")
        return await self.opened(Source10(self, self.open_wire(), taken))

    async def target(self, sent: To) -> Target10:
        return await self.opened(Target10(self, self.open_wire(), sent))


class End10(RemoteEnd, Party):
    """A session with a link in it."""

    remote: Remote10

    kept = False
    """Whether the other side keeps the link when we are away."""

    def __init__(self, remote: Remote10, wire: Wire10, link: Any) -> None:
        super().__init__(remote)
        self.wire = wire
        self.session = link.session
        self.link = link
        self._attached: asyncio.Future[None] = remote.loop.create_future()

    async def open(self) -> None:
        self.session.open()
        self.wire.parties[self.link.name] = self
        self.link.open()
        self.wire.schedule()
        await answer(self._attached, self.lost, self.remote.options.timeout, "an answer of the remote broker")

    def link_open(self) -> None:
        link = self.link
        terminus = link.remote_target if link.is_sender else link.remote_source
        if terminus.type != Terminus.UNSPECIFIED and not self._attached.done():  # else it is refused in a moment
            self._attached.set_result(None)

    def over(self, why: str) -> None:
        self.wire.parties.pop(self.link.name, None)
        super().over(why)

    async def leave(self) -> None:
        if self.kept:
            self.link.detach()
        else:
            self.link.close()
        self.wire.schedule()
        try:
            await asyncio.shield(self.lost)
        finally:
            if not self.remote.closed.done():
                self.session.close()
                self.wire.schedule()


class Source10(End10, Source):
    """A receiving link."""

    dialect = AMQP10

    def __init__(self, remote: Remote10, wire: Wire10, taken: From) -> None:
        super().__init__(remote, wire, _receiver(wire.connection.session(), remote.product, taken))
        self.taken = taken
        self.exchange = taken.exchange
        self.key = taken.queue  # of messages that say no other
        self.kept = _is_kept(taken)
        self._arrived: Arrived | None = None
        self._used = 0  # credit that is to be given again

    async def open(self) -> None:
        await super().open()
        if self.taken.selector:
            self.selects = _has_filter(self.link.remote_source, SELECTOR_FILTER)
        if _filter_key(self.remote.product, self.taken) and not _has_filter(self.link.remote_source, TOPIC_FILTER):
            raise Unsupported(f"the remote broker does not bind {self.taken.exchange} by a key in AMQP 1.0")

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


class Target10(End10, Target):
    """A sending link."""

    dialect = AMQP10

    def __init__(self, remote: Remote10, wire: Wire10, sent: To) -> None:
        super().__init__(remote, wire, _sender(wire.connection.session(), remote.product, sent))
        self.sent = sent
        self._number = 0
        self._pending: dict[str, Done] = {}  # by delivery tag, in order
        self._backlog: deque[tuple[Message, Done]] = deque()  # without credit

    def send(self, message: Message, done: Done) -> None:
        if self.lost.done():
            done(self.lost.result(), TRY_AGAIN)
        elif self._backlog or self.link.credit <= 0:
            self._backlog.append((message, done))
        else:
            self._send(message, done)

    def ready(self) -> bool:
        return not self.lost.done() and self.wire.writable and not self._backlog and self.link.credit > 0

    def link_flow(self) -> None:
        while self._backlog and self.link.credit > 0:
            self._send(*self._backlog.popleft())
        self.tell_ready()

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

    def forget(self) -> list[Done]:
        dones = [*self._pending.values(), *(done for _, done in self._backlog)]
        self._pending.clear()
        self._backlog.clear()
        return dones

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
            unroutable = "RabbitMQ" in self.remote.product  # that is how it says so
            return (f"the remote broker {'has no queue for' if unroutable else 'released'} it",
                    NOWHERE if unroutable else TRY_AGAIN)
        if state == ProtonDelivery.MODIFIED:
            return ("the remote broker released it (modified)",
                    REFUSED if delivery.remote.undeliverable else TRY_AGAIN)
        return "the remote broker settled it without an outcome", TRY_AGAIN


def _receiver(session: Any, product: str, taken: From) -> Any:
    """A link that takes, in a session; neither is open yet."""
    link = session.receiver(taken.queue if _is_kept(taken) else fresh_name())
    filters: dict[Any, Any] = {}
    if not taken.exchange:
        link.source.address = queue_address(product, taken.queue)
    elif key := _filter_key(product, taken):
        link.source.address = exchange_address(product, taken.exchange, None)
        filters[symbol("key")] = Described(symbol(TOPIC_FILTER), key)
    else:
        link.source.address = exchange_address(product, taken.exchange, taken.keys[0] if taken.keys else "")
    if _is_kept(taken):
        link.source.durability = Terminus.DELIVERIES
        link.source.expiry_policy = Terminus.EXPIRE_NEVER
    if taken.selector:
        filters[symbol("selector")] = Described(symbol(SELECTOR_FILTER), taken.selector)
    if filters:
        link.source.filter.put_dict(filters)
    link.snd_settle_mode = Link.SND_SETTLED if taken.settled else Link.SND_UNSETTLED
    return link


def _is_kept(taken: From) -> bool:
    return bool(taken.exchange and taken.queue)


def _filter_key(product: str, taken: From) -> str:
    """The key that goes into a filter; "" where it goes into the address, or there is none."""
    return taken.keys[0] if taken.exchange and taken.keys and "RabbitMQ" not in product else ""


def _sender(session: Any, product: str, sent: To) -> Any:
    """A link that sends, in a session; neither is open yet."""
    link = session.sender(fresh_name())
    if sent.queue:
        link.target.address = queue_address(product, sent.queue)
    else:
        link.target.address = exchange_address(product, sent.exchange, sent.key)
        link.source.address = "dragoman"
    link.snd_settle_mode = Link.SND_SETTLED if sent.settled else Link.SND_UNSETTLED
    return link


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
