"""Proton's engine on an asyncio transport: no reactor, no thread, no socket of its own.

What Proton tells goes to the `Party` that owns the link; what it wants to send leaves once a turn of the loop. TLS is
the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import proton
from proton import Collector, Connection, Event, Transport, symbol

from interop.adapter import Wire
from interop.dial import Place, reason, shortened
from interop.ends import Options


class Party:
    """Whoever owns a link."""

    session: Any
    """That the link is in, of Proton's."""

    def link_open(self) -> None:
        """The other side has attached it."""

    def link_flow(self) -> None:
        """Its credit has changed."""

    def delivery(self, delivery: proton.Delivery) -> None:
        """One of its deliveries has changed."""

    def over(self, why: str) -> None:
        """It is detached, or its session or connection is over."""


class Wire10(Wire):
    """A connection.

    hostname: the virtual host, or how we call that machine; opened: called once, with the other side's properties;
    closed: called once, with why, when it is over, opened or not.
    """

    def __init__(self, place: Place, options: Options, hostname: str, opened: Callable[[Mapping[Any, Any]], None],
                 closed: Callable[[str], None]) -> None:
        self.place = place
        self.parties: dict[str, Party] = {}  # by link name
        self.transport: asyncio.Transport | None = None
        self.connection = Connection()
        self.writable = True
        self.heartbeat = options.heartbeat
        self._opened = opened
        self._closed = closed
        self._why = ""  # it is over
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._collector = Collector()
        self._engine = Transport()
        self._scheduled = False
        self._prepare(place, options, hostname)

    def _prepare(self, place: Place, options: Options, hostname: str) -> None:
        connection = self.connection
        connection.collect(self._collector)
        connection.container = options.name or "dragoman"
        connection.hostname = hostname
        connection.properties = {symbol("product"): "Dragoman"}
        sasl = self._engine.sasl()
        sasl.allow_insecure_mechs = True  # as the operator wants it
        if place.user:
            connection.user, connection.password = place.user, place.password
        if options.mechanism:
            sasl.allowed_mechs(options.mechanism)
        elif not place.user:
            sasl.allowed_mechs("EXTERNAL ANONYMOUS" if place.tls is not None else "ANONYMOUS")
        if options.heartbeat:
            self._engine.idle_timeout = 2 * options.heartbeat  # of which Proton tells the other side one half
        connection.open()
        self._engine.bind(connection)

    def schedule(self) -> None:
        """Send what there is, with all else of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.pump)

    def leave(self) -> None:
        self.connection.close()
        self.schedule()

    def drop(self) -> None:
        self.end("closed")

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.pump()

    def data_received(self, data: bytes) -> None:
        while data and not self._ended:
            room = self._engine.capacity()
            if room <= 0:
                break
            try:
                self._engine.push(data[:room])
            except proton.ProtonException as error:
                self.end(shortened(str(error)))
                return
            data = data[room:]
            self.pump()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        for party in list(self.parties.values()):
            party.link_flow()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.end(self._why or reason(exc))

    def end(self, why: str) -> None:
        """It is over."""
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is not None:
            if self._why and self.place.tls is None:
                self.transport.close()
            else:  # to close TLS, one waits for the other side
                self.transport.abort()
        for party in list(self.parties.values()):
            party.over(why)
        self.parties.clear()
        self._engine.unbind()
        self.connection.free()
        self._closed(why)

    # The engine

    def pump(self) -> None:
        """Take what the engine has to tell, and write what it has to send."""
        self._scheduled = False
        if self._ended:
            return
        self._take_events()
        engine = self._engine
        pending = engine.pending()
        while pending > 0 and self.transport is not None:
            self.transport.write(engine.peek(pending) or b"")
            engine.pop(pending)
            pending = engine.pending()
        self._take_events()
        if self._why and not self._ended:
            self.end(self._why)
        else:
            self._tick()

    def _tick(self) -> None:
        """Heartbeats, ours and theirs."""
        now = self._loop.time()
        again = self._engine.tick(now)
        if self._engine.pending() > 0:
            self.schedule()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.01, again - now), self.pump) if again else None
        self._take_events()
        if self._why:
            self.schedule()

    def _take_events(self) -> None:
        collector = self._collector
        event = collector.peek()
        while event is not None:
            self._event(event)
            collector.pop()
            event = collector.peek()

    def _event(self, event: Any) -> None:
        kind = event.type
        if kind == Event.DELIVERY:
            party = self.parties.get(event.link.name)
            if party is not None:
                party.delivery(event.delivery)
        elif kind == Event.LINK_FLOW:
            party = self.parties.get(event.link.name)
            if party is not None:
                party.link_flow()
        elif kind == Event.LINK_REMOTE_OPEN:
            party = self.parties.get(event.link.name)
            if party is not None:
                party.link_open()
        elif kind in (Event.LINK_REMOTE_CLOSE, Event.LINK_REMOTE_DETACH):
            self._link_over(event.link)
        elif kind == Event.SESSION_REMOTE_CLOSE:
            for name, party in list(self.parties.items()):
                if party.session == event.session:
                    del self.parties[name]
                    party.over(said(event.session.remote_condition, "the other side ended the session"))
        elif kind == Event.CONNECTION_REMOTE_OPEN:
            self._opened(self.connection.remote_properties or {})
        elif kind == Event.CONNECTION_REMOTE_CLOSE:
            self._why = said(self.connection.remote_condition, "the other side closed the connection")
            self.connection.close()
        elif kind == Event.TRANSPORT_ERROR and not self._why:
            self._why = self._engine_error()

    def _link_over(self, link: Any) -> None:
        party = self.parties.pop(link.name, None)
        if party is not None:
            party.over(said(link.remote_condition, "the other side detached the link"))
            link.close()

    def _engine_error(self) -> str:
        condition = self._engine.condition
        text = said(condition, "the other side does not speak AMQP 1.0")
        if "idle-timeout" in text:
            return f"no heartbeat: the other side was silent for {2 * self.heartbeat} s"
        if "Authentication failed" in text or "unauthorized-access" in text:
            return "the other side did not take the credentials"
        return text


def said(condition: Any, otherwise: str) -> str:
    """An error of the other side."""
    if condition is None:
        return otherwise
    return shortened(f"{condition.name}: {condition.description}" if condition.description else str(condition.name))
