"""AMQP 0-10 at a remote broker, by our own client. A message's header and body pass in the bytes that they have.

A session for each end. A connection that breaks for a moment comes back by itself, and the sessions go on where they
were if the other side has kept them: then nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from broker.message import AMQP010, CONVERTERS, Message, address_of
from broker.outcome import Outcome
from broker.view import View
from interop.amqp010 import aio, commands
from interop.amqp010.address import Target as Server
from interop.amqp010.aio_session import Session
from interop.amqp010.errors import Error
from interop.amqp010.links import Receiver
from interop.amqp010.message import Message as ClientMessage
from interop.amqp010.observer import Observer
from interop.amqp010.session import Answered, Pending
from interop.amqp010.session import Delivery as ClientDelivery
from interop.dial import Place, has_selectors, reason, shortened, within
from interop.ends import (
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
)
from protocols.amqp010 import properties
from protocols.amqp010.codec import Malformed
from protocols.amqp010.content import body_pieces, build, header_segment
from protocols.amqp010.translate import MILLISECONDS

RESUME = 3.0
"""Seconds that a broken connection has to come back."""

KEPT = 5
"""Seconds that the other side is asked to keep our sessions, and what is unsettled in them, when we are gone. Not more:
if we were killed, other readers of the queue wait for it. (We do not: a session is called by its bridge, and a new run
ends that of the one before.)"""

GOODBYE = 3.0
"""Seconds that closing may take."""

MOST_UNSETTLED = 5000
"""Messages that may be on their way to the other side."""

UNROUTABLE = 1
"""A code of message.reject (its domain reject-code). Broker-J gives it for a full queue, too."""

DESTINATION = "in"
"""How a session calls its subscription."""

DELIVERY_PROPERTIES = b"\x04\x01"
"""The code of that struct."""

_REDELIVERED_AT = 6
"""Where in a header the flags of the delivery-properties begin."""


class Raw(ClientMessage):
    """A message as the two segments that it is."""

    def __init__(self, header: bytes, body: bytes) -> None:
        super().__init__(body)
        self.header = header

    def encode(self) -> tuple[bytes, bytes]:
        return self.header, self.content

    __hash__ = object.__hash__


class Remote010(Remote):
    """A connection to a broker that speaks 0-10."""

    def __init__(self, place: Place, options: Options) -> None:
        self.place = place
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.lost = self.loop.create_future()
        self.connection: aio.Connection | None = None
        self.ends: list[End] = []
        self._closing = False  # by ourselves

    async def open(self) -> None:
        place, options = self.place, self.options
        made = aio.Connection(f"amqp://{place}", place.tls, options.timeout, RESUME)
        made.target = Server(place.host, place.port, place.user, place.password, place.path, place.tls,
                             place.server_name)
        made.options = {"heartbeat": options.heartbeat, "frame_max": 65535,
                        "properties": {"product": "Dragoman", "connection_name": options.name}}
        made.mechanisms = [options.mechanism] if options.mechanism else None if place.user else [
            "EXTERNAL", "ANONYMOUS"]
        try:
            await made.open()
        except (Error, OSError, EOFError) as error:
            cause = error.__context__ if isinstance(error.__context__, OSError) else None
            raise EndError(f"{place}: {reason(cause, options.timeout) if cause else shortened(str(error))}") from None
        self.connection = made
        self.product = str(made.server.get("product") or "")
        self.broker_id = str(made.server.get("qpid.federation_tag") or "")
        made.done.add_done_callback(lambda _: self._over())

    async def source(self, taken: From) -> Source010:
        source = Source010(self, taken)
        await source.open()
        return source

    async def target(self, sent: To) -> Target010:
        target = Target010(self, sent)
        await target.open()
        return target

    async def close(self) -> None:
        self._closing = True
        if self.connection is not None:
            self.connection.timeout = min(GOODBYE, self.options.timeout)
            if not self.connection.done.done():  # or the other side would keep them
                await asyncio.gather(*(end.close() for end in self.ends))
            with contextlib.suppress(Error):
                await self.connection.close()

    def _over(self) -> None:
        if not self._closing and not self.lost.done():
            error = self.connection.error if self.connection is not None else None
            self.lost.set_result(shortened(str(error or "the other side closed the connection")))


class End(Observer):
    """A session, and what source and target have in common."""

    def __init__(self, remote: Remote010) -> None:
        self.remote = remote
        self.lost: asyncio.Future[str] = remote.loop.create_future()
        self.session: Session = None  # type: ignore[assignment]  # until `begin`

    async def begin(self, name: str = "") -> None:
        """name: of the session; if the other side has kept one of that name, it ends first. Raises: EndError."""
        if self.remote.connection is None:
            raise EndError("the connection is not open")
        try:
            if name:
                await self.remote.connection.end_session(name)
            self.session = await self.remote.connection.session(name or f"dragoman-{uuid.uuid4()}", timeout=KEPT)
        except Error as error:
            raise EndError(shortened(str(error))) from None
        self.session.core.decode = Raw
        self.session.observer = self
        self.remote.ends.append(self)

    async def call(self, command: commands.Command[Any]) -> Any:
        """Raises: EndError."""
        try:
            return await self.session.call(command)
        except (Error, ValueError) as error:
            raise EndError(shortened(str(error))) from None

    def issue(self, command: commands.Command[Any], sync: bool = False) -> Pending[Any] | None:
        """Send a command; None when the session is over."""
        try:
            return self.session.issue(command, sync)
        except Error:
            return None

    def ended(self, error: Error | None) -> None:
        if self in self.remote.ends:
            self.remote.ends.remove(self)
        if not self.lost.done():
            self.lost.set_result(shortened(str(error or "the session is over")))

    async def close(self) -> None:
        if self.session is not None and not self.lost.done():
            with contextlib.suppress(EndError, Error):
                await within(self.session.close(), min(GOODBYE, self.remote.options.timeout), "to end a session")
            self.session.end(None)
        self.ended(None)


class Source010(End, Source):
    """A subscription, in a session of its own. Credit is given as messages are settled."""

    dialect = AMQP010
    rebinds = True

    def __init__(self, remote: Remote010, taken: From) -> None:
        super().__init__(remote)
        self.taken = taken
        self.queue = taken.queue
        self.selects = bool(taken.selector) and has_selectors(remote.product)
        self._arrived: Arrived | None = None
        self._accepted: list[ClientDelivery] = []
        self._used = 0  # credit that is to be given again
        self._flushing = False
        self._keeps = False  # what is rejected

    async def open(self) -> None:
        taken = self.taken
        await self.begin(f"dragoman {self.remote.options.name} {taken.name}" if taken.name else "")
        try:
            if not taken.exchange:
                found = await self.call(commands.queue_query(taken.queue))
                if not found.queue:
                    raise EndError(f"there is no queue {taken.queue}")
                self._keeps = bool(found.alternate_exchange) or "x-dead-letter-exchange" in found.arguments
                return
            if (await self.call(commands.exchange_query(taken.exchange))).not_found:
                raise EndError(f"there is no exchange {taken.exchange}")
            kept = bool(taken.queue)
            self.queue = taken.queue or f"dragoman-{uuid.uuid4()}"
            await self.call(commands.queue_declare(self.queue, durable=kept, exclusive=not kept, auto_delete=not kept,
                                                   arguments=taken.arguments or None))
            await self.bind(taken.keys)
        except BaseException:
            await self.close()
            raise

    def start(self, arrived: Arrived) -> None:
        self._arrived = arrived
        if self.lost.done():
            return
        self.session.add(_Subscription(self))
        arguments = {"x-filter-jms-selector": self.taken.selector, "x-apache-selector": self.taken.selector}
        self.issue(commands.message_subscribe(
            self.queue, DESTINATION, commands.NONE if self.taken.settled else commands.EXPLICIT,
            arguments=arguments if self.selects else None))
        self.issue(commands.message_set_flow_mode(DESTINATION, commands.CREDIT))
        self.issue(commands.message_flow(DESTINATION, commands.BYTES, commands.INFINITE))
        self.issue(commands.message_flow(DESTINATION, commands.MESSAGES, max(1, self.taken.prefetch)))

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        handle: ClientDelivery = delivery.handle
        if self.lost.done() or self.taken.settled:
            return
        if outcome.accepts:
            self._accepted.append(handle)
        elif outcome.rejects:
            self.issue(commands.message_reject([handle.id]))
            self.session.core.complete([handle])
        else:
            self.issue(commands.message_release([handle.id], outcome.failed))
            self.session.core.complete([handle])
        self._use()

    def keeps_rejected(self) -> bool | None:
        return self._keeps

    async def bind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        for key in keys:
            await self.call(commands.exchange_bind(self.queue, self.taken.exchange, key, arguments))

    async def unbind(self, keys: Iterable[str], arguments: dict[str, str] | None = None) -> None:
        for key in keys:
            await self.call(commands.exchange_unbind(self.queue, self.taken.exchange, key))

    async def close(self) -> None:
        if not self.lost.done() and self.session is not None:
            self._flush()
        await super().close()

    def took(self, delivery: ClientDelivery) -> None:
        """A message came."""
        raw = delivery.message
        assert isinstance(raw, Raw)
        try:
            message, redelivered = _message(raw.header, raw.content)
        except (Malformed, IndexError):
            self.issue(commands.message_reject([delivery.id], text="its header cannot be read"))
            self.session.core.complete([delivery])
            self._use()
            return
        if self.taken.settled:
            self._accepted.append(delivery)
            self._use()
        if self._arrived is not None:
            self._arrived(Delivery(message, redelivered, delivery))

    def _use(self) -> None:
        self._used += 1
        if not self._flushing:
            self._flushing = True
            self.remote.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Accept, complete and give credit, of all that were settled in this turn of the loop."""
        self._flushing = False
        if self.lost.done():
            return
        if self._accepted:
            accepted, self._accepted = self._accepted, []
            if not self.taken.settled:
                self.issue(commands.message_accept([each.id for each in accepted]), True)
            self.session.core.complete(accepted)
        if self._used:
            self.issue(commands.message_flow(DESTINATION, commands.MESSAGES, self._used))
            self._used = 0


class _Subscription(Receiver):
    """What the session gives the source's messages to."""

    def __init__(self, source: Source010) -> None:
        super().__init__(source.session, source.queue, 0)
        self.source = source
        self.destination = DESTINATION

    def arrived(self, delivery: ClientDelivery) -> None:
        self.source.took(delivery)

    async def close(self) -> None:
        """Ending the session is enough."""


class Target010(End, Target):
    """Sends in a session of its own. A message is safe when its transfer is completed, and was not rejected."""

    dialect = AMQP010

    def __init__(self, remote: Remote010, sent: To) -> None:
        super().__init__(remote)
        self.sent = sent
        self._pending: dict[int, Done] = {}  # by number of the transfer
        self._rejected: dict[int, tuple[str, int]] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._asked = False  # to be told of what is completed

    async def open(self) -> None:
        await self.begin()
        sent = self.sent
        try:
            if sent.queue:
                if not (await self.call(commands.queue_query(sent.queue))).queue:
                    raise EndError(f"there is no queue {sent.queue}")
            elif sent.exchange and (await self.call(commands.exchange_query(sent.exchange))).not_found:
                raise EndError(f"there is no exchange {sent.exchange}")
        except BaseException:
            await self.close()
            raise

    def send(self, message: Message, done: Done) -> None:
        if self.lost.done():
            done(self.lost.result(), TRY_AGAIN)
            return
        header = self._header(message)
        raw = Raw(header, b"".join(body_pieces(message)))
        transfer = commands.message_transfer(raw, "" if self.sent.queue else self.sent.exchange,
                                             commands.NONE if self.sent.settled else commands.EXPLICIT)
        pending = self.session.core.issue(transfer)
        if self.sent.settled:
            done()
        else:
            self._pending[pending.id] = done
        if not self._asked:
            self._asked = True
            self.remote.loop.call_soon(self._ask)

    def ready(self) -> bool:
        connection = self.remote.connection
        return (not self.lost.done() and connection is not None and connection.is_writable.is_set()
                and len(self._pending) < MOST_UNSETTLED
                and ("" if self.sent.queue else self.sent.exchange) not in self.session.core.stopped)

    def call_when_ready(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def settled(self, pending: Pending[Any]) -> bool:
        done = self._pending.pop(pending.id, None)
        if done is None:
            return False
        if pending.error is not None:
            done(shortened(str(pending.error)), TRY_AGAIN)
        else:
            done(*self._rejected.pop(pending.id, ("", TRY_AGAIN)))
        if self._callbacks:
            self.flowing()
        return True

    def answered(self, event: Answered) -> None:
        if event.name == "message.accept":
            return
        what = "rejected" if event.name == "message.reject" else "released"
        text = shortened(f"the remote broker {what} it: {event.text}" if event.text else f"the remote broker {what} it")
        for number in event.transfers:
            done = self._pending.get(number)
            if done is not None:
                self._rejected[number] = (text, TRY_AGAIN if event.name != "message.reject" else
                                          NOWHERE if event.code == UNROUTABLE else REFUSED)

    def flowing(self) -> None:
        if self._callbacks and (self.lost.done() or self.ready()):
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback()

    def ended(self, error: Error | None) -> None:
        super().ended(error)
        pending, self._pending = self._pending, {}
        for done in pending.values():
            done(self.lost.result(), TRY_AGAIN)
        self.flowing()

    def _ask(self) -> None:
        """Send what was issued in this turn of the loop, and ask to be told when all of it is done."""
        self._asked = False
        if not self.lost.done():
            self.issue(commands.execution_sync(), True)

    def _header(self, message: Message) -> bytes:
        """The header segment, with the routing key that it is to have, and nobody else's user id."""
        header = header_segment(message)
        found = properties.split(header)
        sent = self.sent
        key = sent.queue if sent.queue else message.address.routing_key if sent.key is None else sent.key
        wanted = key.encode("utf-8", "surrogateescape")
        if found.user_id is not None and found.user_id != self.remote.place.user.encode():
            view: View = CONVERTERS[AMQP010].model(message)
            view.headers = {"x-user-id": view.user_id, **view.headers}
            view.user_id = None
            return self._header(CONVERTERS[AMQP010].encode(view, message))
        if found.routing_key == wanted:
            return header
        found.routing_key = wanted
        return properties.join(found, message.size)


def _message(header: bytes, body: bytes) -> tuple[Message, bool]:
    """A message that came, and whether it was delivered before. What a header's bytes say is not changed."""
    found = properties.split(header)
    if header[4:6] != DELIVERY_PROPERTIES:  # where it is looked for
        header = properties.join(found, len(body))
    flags = header[_REDELIVERED_AT]
    if flags & 4:
        header = header[:_REDELIVERED_AT] + bytes([flags & ~4]) + header[_REDELIVERED_AT + 1:]
    now = int(time.time() * 1000)
    expiry = 0
    if found.ttl >= 0:
        expiry = now + found.ttl
    elif found.expiration > 0:
        expiry = found.expiration if found.expiration > MILLISECONDS else found.expiration * 1000
    address = address_of((found.exchange or b"").decode("utf-8", "surrogateescape"),
                         (found.routing_key or b"").decode("utf-8", "surrogateescape"))
    native, pieces = build(header, [body] if body else [], len(body))
    return Message(address, AMQP010, native, pieces, len(body), found.delivery_mode == 2,
                   4 if found.priority < 0 else found.priority, expiry, now), found.redelivered
