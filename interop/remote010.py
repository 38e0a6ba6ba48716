"""AMQP 0-10 at a remote broker, by our own client. A message's header and body pass in the bytes that they have.

A session for each end. A connection that breaks for a moment comes back by itself, and the sessions go on where they
were if the other side has kept them: then nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

from broker.message import AMQP010, CONVERTERS, Message, address_of
from broker.outcome import Outcome
from broker.view import View
from interop.adapter import Adapter, RemoteEnd, fresh_name
from interop.amqp010 import aio, commands
from interop.amqp010.address import Target as Server
from interop.amqp010.aio_session import Session
from interop.amqp010.errors import Error
from interop.amqp010.links import Receiver
from interop.amqp010.message import Message as ClientMessage
from interop.amqp010.observer import Observer
from interop.amqp010.session import Answered, Pending
from interop.amqp010.session import Delivery as ClientDelivery
from interop.dial import Place, has_selectors, reason, shortened
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


class Remote010(Adapter):
    """A connection to a broker that speaks 0-10."""

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self.connection: aio.Connection | None = None

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
        self.introduce(made.server)
        made.done.add_done_callback(
            lambda _: self.over(shortened(str(made.error or "the other side closed the connection"))))

    async def source(self, taken: From) -> Source010:
        session = await self._session(f"dragoman {self.options.name} {taken.name}" if taken.name else "")
        return await self.opened(Source010(self, session, taken))

    async def target(self, sent: To) -> Target010:
        return await self.opened(Target010(self, await self._session(), sent))

    async def _session(self, name: str = "") -> Session:
        """Begin one; if the other side has kept one of that name, it ends first. Raises: EndError."""
        if self.connection is None:
            raise EndError("the connection is not open")
        try:
            if name:
                await self.connection.end_session(name)
            return await self.connection.session(name or fresh_name(), timeout=KEPT)
        except Error as error:
            raise EndError(shortened(str(error))) from None

    async def close(self) -> None:
        self.closing = True
        if self.connection is not None:
            self.connection.timeout = self.goodbye
            if not self.connection.done.done():  # or the other side would keep them
                await asyncio.gather(*(end.close() for end in self.ends))
            with contextlib.suppress(Error):
                await self.connection.close()


class End010(RemoteEnd, Observer):
    """A session."""

    remote: Remote010

    def __init__(self, remote: Remote010, session: Session) -> None:
        super().__init__(remote)
        self.session = session
        session.core.decode = Raw
        session.observer = self

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
        self.over(shortened(str(error or "the session is over")))

    async def leave(self) -> None:
        try:
            with contextlib.suppress(Error):
                await self.session.close()
        finally:
            self.session.end(None)


class Source010(End010, Source):
    """A subscription, in a session of its own. Credit is given as messages are settled."""

    dialect = AMQP010
    rebinds = True

    def __init__(self, remote: Remote010, session: Session, taken: From) -> None:
        super().__init__(remote, session)
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
        if not taken.exchange:
            found = await self.call(commands.queue_query(taken.queue))
            if not found.queue:
                raise EndError(f"there is no queue {taken.queue}")
            self._keeps = bool(found.alternate_exchange) or "x-dead-letter-exchange" in found.arguments
            return
        if (await self.call(commands.exchange_query(taken.exchange))).not_found:
            raise EndError(f"there is no exchange {taken.exchange}")
        kept = bool(taken.queue)
        self.queue = taken.queue or fresh_name()
        await self.call(commands.queue_declare(self.queue, durable=kept, exclusive=not kept, auto_delete=not kept,
                                               arguments=taken.arguments or None))
        await self.bind(taken.keys)

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

    async def leave(self) -> None:
        self._flush()
        await super().leave()

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


class Target010(End010, Target):
    """Sends in a session of its own. A message is safe when its transfer is completed, and was not rejected."""

    dialect = AMQP010

    def __init__(self, remote: Remote010, session: Session, sent: To) -> None:
        super().__init__(remote, session)
        self.sent = sent
        self._pending: dict[int, Done] = {}  # by number of the transfer
        self._rejected: dict[int, tuple[str, int]] = {}
        self._asked = False  # to be told of what is completed

    async def open(self) -> None:
        sent = self.sent
        if sent.queue:
            if not (await self.call(commands.queue_query(sent.queue))).queue:
                raise EndError(f"there is no queue {sent.queue}")
        elif sent.exchange and (await self.call(commands.exchange_query(sent.exchange))).not_found:
            raise EndError(f"there is no exchange {sent.exchange}")

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

    def settled(self, pending: Pending[Any]) -> bool:
        done = self._pending.pop(pending.id, None)
        if done is None:
            return False
        if pending.error is not None:
            done(shortened(str(pending.error)), TRY_AGAIN)
        else:
            done(*self._rejected.pop(pending.id, ("", TRY_AGAIN)))
        self.tell_ready()
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
        self.tell_ready()

    def forget(self) -> list[Done]:
        pending, self._pending = self._pending, {}
        return list(pending.values())

    def _ask(self) -> None:
        """Send what was issued in this turn of the loop, and ask to be told when all of it is done."""
        self._asked = False
        if not self.lost.done():
            self.issue(commands.execution_sync(), True)

    def _header(self, message: Message) -> bytes:
        """The header segment, with the routing key that it is to have, and nobody else's user id."""
        header = header_segment(message)
        found = properties.split(header)
        wanted = self.sent.key_for(message.address.routing_key).encode("utf-8", "surrogateescape")
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
