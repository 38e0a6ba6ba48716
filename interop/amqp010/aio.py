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
from collections.abc import Awaitable
from typing import Any, Self, TypeVar, cast

from interop.amqp010 import commands, connection
from interop.amqp010.address import parse_address, parse_url
from interop.amqp010.commands import Command
from interop.amqp010.errors import AddressError, AuthenticationFailed, ConnectionError_, Detached, Error, Timeout
from interop.amqp010.links import Receiver, Sender
from interop.amqp010.message import Message
from interop.amqp010.observer import Observer
from interop.amqp010.sasl import Login
from interop.amqp010.session import (
    DETACHED,
    ENDED,
    Answered,
    Attached,
    Delivery,
    Flowing,
    Pending,
    SessionEnded,
    Settled,
)
from interop.amqp010.session import Session as Core
from interop.amqp010.wire import Wire

T = TypeVar("T")

KEPT = 300
"""Seconds that a server is asked to keep a session for, when its connection is to be made anew."""

FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0
"""Seconds between attempts to connect again; each wait is twice the one before."""

CONNECTION_FORCED = 320
"""connection.close of a server that goes down, and perhaps comes back."""


async def within(awaitable: Awaitable[T], seconds: float, what: str) -> T:
    """Wait no longer than that. Raises: Timeout."""
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        raise Timeout(f"{what} took longer than {seconds:g} s") from None


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
            raise ConnectionError_(f"{target.host}:{target.port}: {error}") from None
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
        made = Session(self, core.attach(name or str(uuid.uuid4()), timeout))
        self._sessions[made.core] = made
        self.flush()
        await within(made.attached.wait(), self.timeout, "to attach a session")
        await made.sync()  # before anything is sent that must not be done twice
        if transactional:
            await made.call(commands.tx_select())
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


class Session:
    """Made by `Connection.session`. `call` is for commands (interop.amqp010.commands), the rest for messages."""

    def __init__(self, owner: Connection, core: Core) -> None:
        self.connection = owner
        self.core = core
        self.attached = asyncio.Event()  # or over
        self.flowing = asyncio.Event()  # something has changed in core.stopped; or over
        self.unacknowledged: dict[int, Delivery] = {}  # fetched and not settled yet, by number
        self._waiters: dict[Pending[Any], asyncio.Future[Any]] = {}
        self._receivers: dict[str, Receiver] = {}
        self.observer = Observer()

    @property
    def name(self) -> str:
        return self.core.name.decode("utf-8", "replace")

    # Commands

    def issue(self, command: Command[T], sync: bool = False) -> Pending[T]:
        """Send a command and do not wait. Raises: what the session ended with; ValueError for impossible values."""
        pending = self.core.issue(command, sync)
        self.connection.flush()
        return pending

    async def wait(self, pending: Pending[T], timeout: float | None = None) -> T:
        """Wait until a command is done, and give its result. Raises: Error."""
        if not pending.done and pending.error is None:
            waiter = self._waiters.get(pending)
            if waiter is None:
                waiter = self._waiters[pending] = self.connection._loop.create_future()
            seconds = self.connection.timeout if timeout is None else timeout
            await within(asyncio.shield(waiter), seconds, pending.command.name)
        if pending.error is not None:
            raise pending.error
        return cast(T, pending.value)

    async def call(self, command: Command[T], timeout: float | None = None) -> T:
        """Send a command, wait until it is done, and give its result. Raises: Error, ValueError."""
        return await self.wait(self.issue(command, True), timeout)

    async def sync(self, timeout: float | None = None) -> None:
        """Wait until all that was sent so far is done."""
        await self.call(commands.execution_sync(), timeout)

    async def commit(self, timeout: float | None = None) -> None:
        await self.call(commands.tx_commit(), timeout)

    async def rollback(self, timeout: float | None = None) -> None:
        """Undo what was sent and accepted since the last commit. Messages that were fetched have to be settled yet."""
        await self.call(commands.tx_rollback(), timeout)

    # Messages

    async def sender(self, address: str, *, node: str = "", capacity: int = 1000) -> Sender:
        """Send to a queue or an exchange: `queue`, `exchange`, `exchange/subject`.

        node: "queue" or "exchange", if there are both of that name; capacity: messages on their way at a time.
        Raises: AddressError, Error.
        """
        name, subject = parse_address(address)
        kind = await self._resolve(name, node) if name else "direct"
        return Sender(self, name, subject, not kind, capacity)

    async def receiver(self, address: str, *, node: str = "", capacity: int = 100, browse: bool = False,
                       reliable: bool = True, exclusive: bool = False, arguments: dict[str, Any] | None = None,
                       binding: dict[str, Any] | None = None) -> Receiver:
        """Receive from a queue, from an exchange (by a queue of our own, bound with the subject), or from `#`, which
        is a queue of our own with a name in `receiver.queue`.

        capacity: messages that may come before they are fetched; browse: leave them in the queue; reliable: they have
        to be accepted; arguments: of the subscription; binding: arguments of the binding to the exchange.
        Raises: AddressError, Error.
        """
        name, subject = parse_address(address)
        kind = "" if name == "#" else await self._resolve(name, node)
        queue = name
        if kind or name == "#":
            queue = f"receiver_{uuid.uuid4()}"
            await self.call(commands.queue_declare(queue, exclusive=True, auto_delete=True))
            if kind:
                key = subject if subject is not None else "#" if kind == "topic" else ""
                await self.call(commands.exchange_bind(queue, name, key, binding))
        elif subject is not None:
            raise AddressError(f"{name} is a queue: it has no subjects")
        made = Receiver(self, queue, capacity)
        self.add(made)
        await self.call(commands.message_subscribe(
            queue, made.destination, commands.EXPLICIT if reliable and not browse else commands.NONE,
            commands.NOT_ACQUIRED if browse else commands.PRE_ACQUIRED, exclusive, arguments=arguments))
        made.begin()
        return made

    async def _resolve(self, name: str, node: str) -> str:
        """An exchange's type, or "" for a queue. Raises: AddressError."""
        exchange = self.issue(commands.exchange_query(name))
        found = await self.call(commands.queue_query(name))
        info = await self.wait(exchange)
        if found.queue and node != "exchange" and (info.not_found or node == "queue"):
            return ""
        if not info.not_found and node != "queue" and (not found.queue or node == "exchange"):
            return info.type or "direct"
        there = "both a queue and an exchange" if found.queue and not info.not_found else f"no {node or 'node'}"
        raise AddressError(f"there is {there} named {name}")

    async def accept(self, *messages: Message, sync: bool = True) -> None:
        """Messages are done with. Without `sync`, do not wait for the other side. Raises: Error."""
        await self._settle(commands.message_accept(self._taken(messages)), sync)

    async def release(self, *messages: Message, redelivered: bool = False, sync: bool = True) -> None:
        """Give messages back, to whoever comes next. Raises: Error."""
        await self._settle(commands.message_release(self._taken(messages), redelivered), sync)

    async def reject(self, *messages: Message, code: int = 0, text: str = "", sync: bool = True) -> None:
        """Messages are of no use: they go to the queue's alternate exchange, if it has one. Raises: Error."""
        await self._settle(commands.message_reject(self._taken(messages), code, text), sync)

    async def acknowledge(self, sync: bool = True) -> None:
        """Accept all that was fetched so far. Raises: Error."""
        if self.unacknowledged:
            await self.accept(*[delivery.message for delivery in self.unacknowledged.values()], sync=sync)

    def _taken(self, messages: tuple[Message, ...]) -> list[int]:
        deliveries = [message.delivery for message in messages if message.delivery is not None]
        if not deliveries or any(each.session is not self.core for each in deliveries):
            raise ValueError("there is a message that did not come in this session, or none at all")
        for each in deliveries:
            self.unacknowledged.pop(each.id, None)
        self.core.complete(deliveries)
        return [each.id for each in deliveries]

    async def _settle(self, command: Command[None], sync: bool) -> None:
        pending = self.issue(command, sync)
        if sync:
            await self.wait(pending)

    async def close(self) -> None:
        """End the session. Messages that were not accepted go back. Nothing happens if it is over."""
        if self.core.state == ENDED:
            return
        if self.core.error is None and self.connection._transport is not None:
            for receiver in list(self._receivers.values()):
                await receiver.close()
            await self.sync()
        self.core.detach()
        self.connection.flush()
        if self.core.state != ENDED:
            self.attached.clear()
            await within(self.attached.wait(), self.connection.timeout, "to end a session")
        self.end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        with contextlib.suppress(Error):
            await self.close()

    # What the connection and links do

    def handle(self, event: Delivery | Flowing | Attached | SessionEnded | Answered) -> None:
        if isinstance(event, Delivery):
            if (receiver := self._receivers.get(event.destination)) is not None:
                receiver.arrived(event)
        elif isinstance(event, Attached):
            self.attached.set()
        elif isinstance(event, Flowing):
            self.flowing.set()
            self.observer.flowing()
        elif isinstance(event, Answered):
            self.observer.answered(event)
        else:
            self.end(event.error)

    def settled(self, pending: Pending[Any]) -> bool:
        """A command is done or failed: whether somebody waits for it."""
        if self.observer.settled(pending):
            return True
        if (waiter := self._waiters.pop(pending, None)) is not None and not waiter.done():
            waiter.set_result(None)
        return waiter is not None

    def end(self, error: Error | None) -> None:
        """It is over: all who wait are told."""
        self.core.end(error)
        self.connection.forget(self.core)
        for pending in list(self._waiters):
            self.settled(pending)
        self.attached.set()
        self.flowing.set()
        for receiver in self._receivers.values():
            receiver.wake()
        self.observer.ended(self.core.error or error)

    def add(self, receiver: Receiver) -> None:
        self._receivers[receiver.destination] = receiver

    def drop(self, receiver: Receiver) -> None:
        self._receivers.pop(receiver.destination, None)

    def check(self) -> None:
        """Raises: what the session ended with."""
        if self.core.state == ENDED:
            raise self.core.error or Detached("the session is closed")
