"""What sends messages to a queue or an exchange, and what receives them, for asyncio."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from interop.amqp010 import commands
from interop.amqp010.errors import Empty, Timeout
from interop.amqp010.message import Message
from interop.amqp010.session import Delivery, Pending, needs_accept

if TYPE_CHECKING:
    from interop.amqp010.aio_session import Session


class Sender:
    """Made by `Session.sender`."""

    def __init__(self, session: Session, name: str, subject: str | None, is_queue: bool, capacity: int) -> None:
        self.session = session
        self.capacity = capacity
        self._exchange = "" if is_queue else name
        self._queue = name if is_queue else ""
        self._subject = subject
        self._sent: deque[Pending[None]] = deque()  # on their way, in order

    async def send(self, message: Message | Any, *, sync: bool = True, timeout: float | None = None) -> None:
        """Send a message, or some content, and wait until the other side has it safely.

        Without `sync`, wait only while there are more than `capacity` on their way; `Session.sync` waits for all.
        Raises: Error; ValueError for content that 0-10 cannot say.
        """
        pending = self.session.issue(self._transfer(message), sync or len(self._sent) % (self.capacity // 2 + 1) == 0)
        self._sent.append(pending)
        seconds = self.session.connection.timeout if timeout is None else timeout
        if sync:
            await self.session.wait(pending, seconds)
        self._forget()
        while len(self._sent) > self.capacity:
            await self.session.wait(self._sent[0], seconds)
            self._forget()
        await self.session.connection.writable(seconds)
        if self._exchange in self.session.core.stopped:
            await self._resumed(seconds)

    def _transfer(self, message: Message | Any) -> commands.Command[None]:
        if not isinstance(message, Message):
            message = Message(message)
        subject = self._subject if message.subject is None else message.subject
        key = message.routing_key
        if key is None or self._queue:
            key = self._queue or subject or ""
        return commands.message_transfer(dataclasses.replace(message, subject=subject, routing_key=key),
                                         self._exchange)

    def _forget(self) -> None:
        """Those that are done. Raises: what went wrong with the first that is not."""
        while self._sent and (self._sent[0].done or self._sent[0].error is not None):
            error = self._sent.popleft().error
            if error is not None:
                raise error

    async def _resumed(self, seconds: float) -> None:
        """Wait while the other side wants no more."""
        session = self.session
        try:
            async with asyncio.timeout(seconds):
                while self._exchange in session.core.stopped:
                    session.check()
                    session.flowing.clear()
                    await session.flowing.wait()
        except TimeoutError:
            raise Timeout(f"the other side takes no more messages, for {seconds:g} s now") from None

    async def sync(self, timeout: float | None = None) -> None:
        """Wait until all that was sent is safe. Raises: Error."""
        await self.session.sync(timeout)
        self._forget()


class Receiver:
    """Made by `Session.receiver`. queue: where it receives from; destination: its name in the session."""

    def __init__(self, session: Session, queue: str, capacity: int) -> None:
        self.session = session
        self.queue = queue
        self.capacity = max(1, capacity)
        self.prefetches = capacity > 0
        self.destination = f"receiver-{uuid.uuid4()}"
        self._credit = 0  # messages that may come
        self._buffer: deque[Delivery] = deque()
        self._taken: list[Delivery] = []  # that are not to be accepted: to be told as complete
        self._arrival = asyncio.Event()
        self._lock = asyncio.Lock()  # one fetches at a time

    def begin(self) -> None:
        """Give the credit that there always is."""
        self.session.issue(commands.message_set_flow_mode(self.destination, commands.CREDIT))
        self._open_bytes()
        if self.prefetches:
            self._give_credit()

    def _open_bytes(self) -> None:
        """Bytes are not counted; a flush takes this credit too."""
        self.session.issue(commands.message_flow(self.destination, commands.BYTES, commands.INFINITE))

    def _give_credit(self) -> None:
        """As much as there is room for, when that is worth it."""
        room = self.capacity - self._credit - len(self._buffer)
        if room > self.capacity // 2 or (room > 0 and not self._credit):
            if self._taken:
                self.session.core.complete(self._taken)
                self._taken = []
            self._credit += room
            self.session.issue(commands.message_flow(self.destination, commands.MESSAGES, room))

    def arrived(self, delivery: Delivery) -> None:
        self._credit -= 1
        self._buffer.append(delivery)
        self._arrival.set()

    def wake(self) -> None:
        self._arrival.set()

    @property
    def available(self) -> int:
        """Messages that have come and were not fetched yet."""
        return len(self._buffer)

    async def fetch(self, timeout: float | None = None) -> Message:
        """The next message; it waits for `timeout` seconds (0: only for one that is in the queue already).

        It is to be settled by the session, unless it is browsed or the receiver not `reliable`.
        Raises: Empty if there is none; Error.
        """
        seconds = self.session.connection.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds + self.session.connection.timeout):
                async with self._lock:
                    delivery = await self._next(seconds)
        except TimeoutError:
            raise Empty(f"no message came from {self.queue} in {seconds:g} s") from None
        if needs_accept(delivery):
            self.session.unacknowledged[delivery.id] = delivery
        else:
            self._taken.append(delivery)
        if self.prefetches:
            self._give_credit()
        return delivery.message

    async def _next(self, seconds: float) -> Delivery:
        try:
            async with asyncio.timeout(seconds):
                while not self._buffer:
                    self.session.check()
                    self._give_credit()
                    self._arrival.clear()
                    await self._arrival.wait()
        except TimeoutError:
            await self._drain()
        if not self._buffer:
            raise Empty(f"no message came from {self.queue} in {seconds:g} s")
        return self._buffer.popleft()

    async def _drain(self) -> None:
        """Have the other side send what it has for us, and give no more than that."""
        await self.session.call(commands.message_flush(self.destination))
        self._credit = 0
        self._open_bytes()
        if self.prefetches:
            self._give_credit()

    async def close(self) -> None:
        """End the subscription; messages that were not fetched go back. Raises: Error."""
        await self.session.call(commands.message_stop(self.destination))
        await self.session.call(commands.message_cancel(self.destination))
        self.session.drop(self)
        self.session.core.complete([*self._taken, *self._buffer])
        back = [delivery.id for delivery in self._buffer if needs_accept(delivery)]
        if back:
            await self.session.call(commands.message_release(back))
        self._buffer.clear()
        self.session.connection.flush()
