"""The client for asyncio.

    async with await aio.connect("amqp://guest:guest@localhost") as connection:
        session = await connection.session()
        sender = await session.sender("amq.topic/news")
        await sender.send("hello")

A connection that breaks is made anew when `reconnect` says so, and its sessions go on where they were: nothing is lost
and nothing comes twice. Every call ends: with what it is for, or with an error of `interop.amqp010.errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
import uuid
from typing import Any, Self, TypeVar, cast

from interop.amqp010 import commands, connection
from interop.amqp010.address import parse_url
from interop.amqp010.aio_session import Session
from interop.amqp010.errors import (
    AuthenticationFailed,
    ConnectionError_,
    Detached,
    Timeout,
    within,
)
from interop.amqp010.sasl import Login
from interop.amqp010.session import (
    DETACHED,
    Answered,
    Attached,
    Delivery,
    Flowing,
    SessionEnded,
    Settled,
)
from interop.amqp010.session import Session as Core
from interop.amqp010.wire import Wire
from interop.dial import reason

T = TypeVar("T")

KEPT = 300
"""Seconds that a server is asked to keep a session for, when its connection is to be made anew."""

FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between attempts to connect again; each wait is twice the one before."""

CONNECTION_FORCED = 320
"""connection.close of a server that goes down, and perhaps comes back."""


async def connect(url: str, *, ssl: tls.SSLContext | None = None, timeout: float = 30.0, reconnect: float = 0.0,
                  heartbeat: int = 10, mechanisms: list[str] | None = None, frame_max: int = 65535,
                  properties: dict[str, Any] | None = None) -> Connection:
    """Connect to `amqp://user:password@host:port/virtual-host` (or amqps).

    ssl: for TLS, also with amqp://; timeout: seconds of any call that is not given its own; reconnect: seconds to try
    to connect again after the connection broke, 0 for not at all; heartbeat: seconds, 0 for none; mechanisms: of SASL,
    best first; properties: more client-properties. Raises: AddressError, ConnectionError_, Timeout.
    """
    made = Connection(url, ssl, timeout, reconnect)
    made.options = {"heartbeat": heartbeat, "frame_max": frame_max, "properties": properties}
    made.mechanisms = mechanisms
    await made.open()
    return made


class Connection:
    """Made by `connect`. error: why it is closed for good, if it did not want to be."""

    def __init__(self, url: str, context: tls.SSLContext | None, timeout: float, reconnect: float) -> None:
        self.target = parse_url(url, context)
        self.timeout = timeout
        self.options: dict[str, Any] = {}
        self.mechanisms: list[str] | None = None
        self.error: ConnectionError_ | None = None
        self.server: dict[str, Any] = {}  # its properties
        self.reconnections = 0
        self._reconnect = reconnect
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._core: connection.Connection | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self.done: asyncio.Future[None] = self._loop.create_future()  # closed for good
        self.is_writable = asyncio.Event()
        self._closing = False
        self._sessions: dict[Core, Session] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._coming_back: asyncio.Task[None] | None = None

    # What programs do

    async def open(self) -> None:
        """Connect and log in, once. Raises: ConnectionError_, Timeout."""
        target = self.target
        login = Login(target.user, target.password, self.mechanisms, external=target.context is not None)
        core = self._core = connection.Connection(login, target.virtual_host, **self.options)
        self._opened = self._loop.create_future()
        name = (target.server_name or target.host) if target.context is not None else None
        try:
            made = self._loop.create_connection(lambda: Wire(self, core), target.host, target.port,
                                                ssl=target.context, server_hostname=name)
            await within(made, self.timeout, "to connect")
            await within(asyncio.shield(self._opened), self.timeout, "to log in")
        except OSError as error:
            raise ConnectionError_(f"{target.host}:{target.port}: {reason(error)}") from None
        finally:
            if not self._opened.done() or self._opened.exception() is not None:
                self._abandon()

    async def session(self, name: str = "", *, timeout: int | None = None, transactional: bool = False) -> Session:
        """Begin a session.

        name: one that no other session has, by default a random one; timeout: seconds that it may be without
        a connection, by default 300 if there is to be another one; transactional: messages are sent, and accepted,
        when it is committed. Raises: Error.
        """
        core = self._open_core()
        timeout = timeout if timeout is not None else KEPT if self._reconnect else 0
        made = await self._attach(core.attach(name or str(uuid.uuid4()), timeout))
        await made.sync()  # before anything is sent that must not be done twice
        if transactional:
            await made.call(commands.tx_select())
        return made

    async def end_session(self, name: str) -> None:
        """End a session that the other side has kept, of this user's and wherever it is attached: what it has not
        settled goes back at once. Nothing happens if there is none. Raises: Error."""
        left = await self._attach(self._open_core().attach(name, 0, force=True))
        await left.leave()  # nothing is sent in it, as nobody here knows its numbers

    async def _attach(self, core: Core) -> Session:
        """Wait until a session is attached, or is over."""
        made = self._sessions[core] = Session(self, core)
        self.flush()
        await within(made.attached.wait(), self.timeout, "to attach a session")
        return made

    async def close(self) -> None:
        """Close it and all its sessions, and wait until the other side has it. Nothing happens if it is closed."""
        self._closing = True
        if self._coming_back is not None:
            self._coming_back.cancel()
            self._end(None)
        if self._core is not None and not self.done.done():
            self._core.close()
            self._handle(self._core.take_events())
            self.flush()
            with contextlib.suppress(Timeout):
                await within(asyncio.shield(self.done), self.timeout, "to close")
        self._abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # What sessions do

    def flush(self) -> None:
        """Send what there is to be sent."""
        if self._core is not None and self._transport is not None:
            output = self._core.take_output()
            if output:
                self._transport.write(output)

    async def writable(self, seconds: float) -> None:
        """Wait until the socket takes more, if it is full."""
        if not self.is_writable.is_set() and not self.done.done():
            await within(self.is_writable.wait(), seconds, "to send")

    def writable_again(self) -> None:
        self.is_writable.set()
        for session in list(self._sessions.values()):
            session.observer.flowing()

    def forget(self, core: Core) -> None:
        self._sessions.pop(core, None)

    # The transport

    def made(self, core: connection.Connection, transport: asyncio.Transport) -> None:
        if core is not self._core:  # it was given up
            transport.abort()
            return
        self._transport = transport
        self.is_writable.set()
        self.flush()

    def happened(self, core: connection.Connection, events: list[connection.Event]) -> None:
        if core is self._core:
            self._handle(events)
            self.flush()

    def _tick(self) -> None:
        if self._core is None:
            return
        again, events = self._core.tick(self._loop.time())
        self.flush()
        self._handle(events)
        self._timer = self._loop.call_at(again, self._tick) if again is not None else None

    def _abandon(self) -> None:
        """Let go of the transport."""
        transport, self._transport = self._transport, None
        self._core = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if transport is not None and transport.get_write_buffer_size():
            transport.close()
        elif transport is not None:
            transport.abort()  # to close waits for the other side's end of TLS, and a loop may stop before that

    def _open_core(self) -> connection.Connection:
        if self._core is not None and self._core.state == connection.OPEN:
            return self._core
        raise self.error or ConnectionError_("the connection is not open")

    # Events

    def _handle(self, events: list[connection.Event]) -> None:
        for event in events:
            if isinstance(event, Delivery | Flowing | Attached | SessionEnded | Answered):
                session = self._sessions.get(event.session)
                if session is not None:
                    session.handle(event)
            elif isinstance(event, Settled):
                for session in self._sessions.values():
                    if session.settled(event.pending):
                        break
            elif isinstance(event, connection.Opened):
                self.server = event.server
                self._opened.set_result(None)
                self._tick()
            elif isinstance(event, connection.Closed):
                self._closed(event.error)

    def _closed(self, error: ConnectionError_ | None) -> None:
        self.flush()
        was_open = self._opened.done() and self._opened.exception() is None
        self._abandon()
        if not was_open:
            self._opened.set_exception(error or ConnectionError_("the connection was closed"))
            self._opened.exception()  # whoever waits for it is told; nobody needs to
            if self._coming_back is None:
                self._end(error)
            return
        if self._coming_back is not None:  # it broke while it was being made
            return
        self.is_writable.set()
        again = error is not None and error.code in (0, CONNECTION_FORCED)
        if again and self._reconnect and not self._closing:
            self._coming_back = self._loop.create_task(self._come_back(cast(ConnectionError_, error)))
        else:
            self._end(error)

    async def _come_back(self, error: ConnectionError_) -> None:
        """Connect again, and attach the sessions that the server has kept."""
        until = self._loop.time() + self._reconnect
        wait = FIRST_WAIT
        while True:
            try:
                await self.open()
                core = self._open_core()
                break
            except AuthenticationFailed as failed:
                error = failed
                until = 0.0
            except (ConnectionError_, Timeout):
                pass
            if self._loop.time() + wait > until:
                self._coming_back = None
                self._end(error)
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        self._coming_back = None
        self.reconnections += 1
        for session in list(self._sessions.values()):
            if session.core.state == DETACHED and session.core.timeout:
                core.attach(force=True, session=session.core)  # the server may not know yet that it is detached
            else:
                session.end(Detached("the connection broke, and the session is not one that is kept"))
        self.flush()

    def _end(self, error: ConnectionError_ | None) -> None:
        """It is closed for good."""
        self.error = error
        for session in list(self._sessions.values()):
            session.end(error or Detached("the connection is closed"))
        self.is_writable.set()
        if not self.done.done():
            self.done.set_result(None)
