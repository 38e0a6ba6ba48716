"""What the adapters of all dialects share: how a connection is opened, lost and closed, and its ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from interop.dial import Place, dial, within
from interop.ends import End, EndError, Options, Remote

T = TypeVar("T")

GOODBYE = 3.0
"""Seconds that closing may take."""

ROUTES = 10_000
"""Routes of which an end remembers what it has made; with more, it begins anew."""


class Adapter(Remote):
    """A connection to a remote broker, by whatever library."""

    def __init__(self, place: Place, options: Options) -> None:
        self.place = place
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.lost = self.loop.create_future()
        self.ends: list[RemoteEnd] = []  # that are not over
        self.goodbye = min(GOODBYE, options.timeout)  # seconds
        self.closing = False  # by ourselves

    def introduce(self, properties: Mapping[Any, Any]) -> None:
        """What the other side says about itself as it opens the connection."""
        self.product = str(properties.get("product") or "")
        self.broker_id = str(properties.get("qpid.federation_tag") or "")

    async def opened(self, end: E) -> E:
        """Open an end, or leave nothing of it. Raises: EndError, Unsupported."""
        try:
            await end.open()
        except BaseException:
            await end.close()
            raise
        return end

    def over(self, why: str) -> None:
        """The connection is closed, here or by the other side."""
        if not self.closing and not self.lost.done():
            self.lost.set_result(why)
        for end in list(self.ends):
            end.cut(why)

    def tell_ready(self) -> None:
        """The connection may take messages again."""
        for end in list(self.ends):
            end.tell_ready()


class RemoteEnd(End):
    """What source and target have in common: what they have of the other side, to say good-bye to."""

    def __init__(self, remote: Adapter) -> None:
        self.lost = remote.loop.create_future()
        self.remote = remote
        remote.ends.append(self)

    async def open(self) -> None:
        """See that what it is to take from, or send to, is there. Raises: EndError, Unsupported."""

    async def leave(self) -> None:
        """Say good-bye, and wait until the other side has heard it. Raises: EndError."""
        raise NotImplementedError

    def cut(self, why: str) -> None:
        """The remote's connection is over."""
        self.over(why)

    def over(self, why: str) -> None:
        if self in self.remote.ends:
            self.remote.ends.remove(self)
        super().over(why)

    async def close(self) -> None:
        if not self.lost.done():
            with contextlib.suppress(EndError):
                await within(self.leave(), self.remote.goodbye, "to close")
            self.over("closed")


E = TypeVar("E", bound=RemoteEnd)


class Wire(asyncio.Protocol):
    """A connection whose bytes go through one of asyncio's transports."""

    def leave(self) -> None:
        """Say good-bye."""
        raise NotImplementedError

    def drop(self) -> None:
        """Let go of the socket."""
        raise NotImplementedError


W = TypeVar("W", bound=Wire)


class WireAdapter(Adapter, Generic[W]):
    """An adapter that dials itself, and whose wire tells when it is open and why it is closed."""

    def __init__(self, place: Place, options: Options) -> None:
        super().__init__(place, options)
        self._is_open = False
        self._begin()

    def _begin(self) -> None:
        self.wire: W | None = None
        self.closed: asyncio.Future[str] = self.loop.create_future()  # why
        self._opened: asyncio.Future[None] = self.loop.create_future()

    async def connect(self, make: Callable[[], W]) -> W:
        """Connect and log in; it may be tried again. Raises: EndError."""
        place, seconds = self.place, self.options.timeout
        self._begin()

        def protocol() -> W:
            made = self.wire = make()
            return made
        try:
            wire = await dial(place, protocol, seconds)
            await answer(self._opened, self.closed, seconds, "to log in")
        except BaseException as error:
            if self.wire is not None:
                self.wire.drop()
            if isinstance(error, EndError):
                raise EndError(str(error) if str(place) in str(error) else f"{place}: {error}") from None
            raise
        self._is_open = True
        return wire

    def open_wire(self) -> W:
        """Raises: EndError."""
        if self.wire is None or self.closed.done():
            raise EndError("the connection is not open")
        return self.wire

    async def close(self) -> None:
        self.closing = True
        wire = self.wire
        if wire is None or self.closed.done():
            return
        wire.leave()
        with contextlib.suppress(EndError):
            await within(asyncio.shield(self.closed), self.goodbye, "to close")
        wire.drop()

    # What the wire tells

    def when_open(self, properties: Mapping[Any, Any]) -> None:
        """properties: the other side's."""
        self.introduce(properties)
        if not self._opened.done():
            self._opened.set_result(None)

    def when_closed(self, why: str) -> None:
        if not self.closed.done():
            self.closed.set_result(why)
        if self._is_open:
            self.over(why)


async def answer(told: asyncio.Future[T], over: asyncio.Future[str], seconds: float, what: str) -> T:
    """Wait for what is to be told, no longer than that, and only until the connection or end that is to tell it is
    over. Raises: EndError."""
    await within(asyncio.wait((told, over), return_when=asyncio.FIRST_COMPLETED), seconds, what)
    if over.done():
        raise EndError(over.result())
    return told.result()


def fresh_name() -> str:
    """A name that nothing at the other side has."""
    return f"dragoman-{uuid.uuid4()}"
