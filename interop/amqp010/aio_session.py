"""A session of the client for asyncio: commands, messages, and what the connection tells it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from interop.amqp010 import commands
from interop.amqp010.address import parse_address
from interop.amqp010.commands import Command
from interop.amqp010.errors import AddressError, Detached, Error, within
from interop.amqp010.links import Receiver, Sender
from interop.amqp010.message import Message
from interop.amqp010.observer import Observer
from interop.amqp010.session import ENDED, Answered, Attached, Delivery, Flowing, Pending, SessionEnded
from interop.amqp010.session import Session as Core

if TYPE_CHECKING:
    from interop.amqp010.aio import Connection

T = TypeVar("T")


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
        await self.leave()

    async def leave(self) -> None:
        """End the session as it is. Raises: Timeout."""
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
