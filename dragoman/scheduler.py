"""The event loop as the store and the core want it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from broker.clock import Alarm, Clock, Timers
from store.journal import Scheduler


class LoopScheduler(Scheduler):
    """call_soon and call_later of an asyncio loop, and one writer thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = ThreadPoolExecutor(1, "journal")

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.loop.call_later(seconds, callback)

    def in_thread(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        def finished(future: Future[None]) -> None:
            self.loop.call_soon_threadsafe(done, future.exception())
        self.thread.submit(work).add_done_callback(finished)

    def close(self) -> None:
        self.thread.shutdown()


class LoopAlarm(Alarm):
    """Runs the broker's timers when they are due."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.handle: asyncio.TimerHandle | None = None
        self.clock: Clock | None = None
        self.timers: Timers | None = None

    def wake_at(self, when: int) -> None:
        if self.handle is not None:
            self.handle.cancel()
        now = self.clock.now if self.clock is not None else when
        self.handle = self.loop.call_later(max(0, when - now) / 1000, self._run)

    def _run(self) -> None:
        self.handle = None
        if self.clock is not None and self.timers is not None:
            self.clock.tick()
            self.timers.run()


class Checks:
    """Runs slow checks of passwords and the like beside the loop, so many at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self.loop = loop
        self.threads = ThreadPoolExecutor(threads, "login")

    def run(self, work: Callable[[], object], done: Callable[[object | BaseException], None]) -> None:
        def finished(future: Future[object]) -> None:
            error = future.exception()
            self.loop.call_soon_threadsafe(done, future.result() if error is None else error)
        self.threads.submit(work).add_done_callback(finished)

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
