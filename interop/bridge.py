"""A bridge: keeps messages moving between an end here and an end there, over a link that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import Any

from broker.deduplication import Known
from broker.message import AMQP010
from broker.selector import SelectorError
from broker.topology import records_number
from broker.virtualhost import VirtualHost
from interop.care import Care
from interop.ends import EndError, Remote, Source, Target
from interop.federation import MARK, Federation
from interop.link import Link
from interop.local import LocalSource, LocalTarget
from interop.mover import Change, Figures, Mover
from interop.once import Marker
from interop.replies import Answers, Requests
from interop.rules import RuleError, Rules
from interop.rules import read as read_rules
from interop.settings import AT_MOST_ONCE, EXACTLY_ONCE, PULL, BridgeSettings
from interop.states import BLOCKED, CONNECTING, DOWN, PAUSED, STABLE, STOPPED, UP, WAITING, Backoff, State
from interop.trace import Tracer, queue_arguments

logger = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds that a bridge that is stopped waits for confirms."""

FIRST_PATIENCE = 60.0
LAST_PATIENCE = 3600.0
"""Seconds until a message that blocks the bridge is tried again, which double from try to try."""


class _Blocked(Exception):
    """A message blocks the bridge; the text says which one and why."""


class Bridge:
    """Runs from `start` to `stop`, and moves messages while its link is up and it is not paused."""

    def __init__(self, settings: BridgeSettings, link: Link, host: VirtualHost) -> None:
        self.settings = settings
        self.link = link
        self.host = host
        self.state = State(f"bridge {settings.name}", logger)
        self.paused = False
        self._adjusting = asyncio.Lock()
        self.created = self.state.since  # ms since the epoch
        self.figures = Figures()
        self.care = Care(settings.on_refused, settings.strict_order,
                         settings.replies or bool(settings.taken().exchange))
        self.mover: Mover | None = None  # while it runs
        self.source: Source | None = None
        self.target: Target | None = None
        self.federation = Federation(host, settings.local_exchange, settings.name, bool(settings.remote_queue),
                                     settings.federation_hops) \
            if settings.federation else None
        self.received_rate = 0.0  # messages a second, of late
        self.moved_rate = 0.0
        self._before = (0, 0)  # received and moved when the rates were last looked at
        self._backoff = Backoff(link.settings.reconnect_min, link.settings.reconnect_max)
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"bridge {self.name}")

    async def stop(self, state: str = STOPPED) -> None:
        """state: STOPPED or PAUSED."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.state.set(state)

    async def adjust(self) -> None:
        """Rest, or go on, as `paused` says."""
        async with self._adjusting:
            if self.paused:
                await self.stop(PAUSED)
                return
            if self.care.blocked:  # it is to be tried again now
                await self.stop()
            self.start()

    def lag(self) -> int:
        """Messages that are known to wait: in the local queue it takes from, and in its hands."""
        waiting = len(self.mover.waiting) + self.mover.outstanding if self.mover is not None else 0
        if self.settings.direction != PULL and self.settings.local_queue:
            queue = self.host.queues.get(self.settings.local_queue)
            waiting += queue.ready if queue is not None else 0
        elif isinstance(self.source, LocalSource):
            waiting += self.source.queue.ready
        return waiting

    def duplicates(self) -> int:
        """Messages that were known already."""
        return self.figures.duplicates + (self.target.duplicates if isinstance(self.target, LocalTarget) else 0)

    def measure(self, seconds: float) -> None:
        """So many seconds have passed since the last time: bring the rates up to date."""
        received, moved = self.figures.received, self.figures.moved
        self.received_rate += (max(0, received - self._before[0]) / seconds - self.received_rate) * _SMOOTH
        self.moved_rate += (max(0, moved - self._before[1]) / seconds - self.moved_rate) * _SMOOTH
        self._before = (received, moved)

    def alarms_changed(self) -> None:
        if self.target is not None:
            self.target.tell_ready()

    # Its life.

    async def _run(self) -> None:
        backoff = self._backoff
        patience = Backoff(FIRST_PATIENCE, LAST_PATIENCE)
        loop = asyncio.get_running_loop()
        while True:
            self.state.set(CONNECTING)
            remote = self.link.remote
            if remote is None:
                self.state.set(WAITING, "its link is down")
                remote = await self.link.up()
                backoff.succeeded()
            if not self.care.blocked:
                patience.succeeded()
            began = loop.time()
            try:
                why = await self._moving(remote)
            except _Blocked as blocked:
                self.state.set(BLOCKED, str(blocked))
                await asyncio.sleep(patience.next())
                continue
            except (EndError, SelectorError, RuleError) as error:
                why = str(error)
            except Exception as error:  # a library's own; it must not end the bridge
                logger.debug("bridge %s", self.name, exc_info=True)
                why = f"{type(error).__name__}: {error}"
            self.state.set(WAITING if remote.lost.done() else DOWN, why)
            if loop.time() - began >= STABLE:
                backoff.succeeded()
            if self.link.remote is remote:
                await asyncio.sleep(backoff.next())

    async def _moving(self, remote: Remote) -> str:
        """Open both ends and move messages until one of them is lost. Gives why. Raises: EndError, _Blocked."""
        source, target = None, None
        try:
            target = self.target = await self._open_target(remote)
            source = self.source = await self._open_source(remote)
            if self.settings.selector and not source.selects and not self.settings.taken().exchange:
                raise EndError("the broker there cannot select from a queue")
            settings = self.settings
            mover = self.mover = Mover(source, target, self.figures, self._changes(target),
                                       settings.acknowledge == AT_MOST_ONCE, settings.rate, settings.selector,
                                       self._now, self.care)
            mover.start()
            if self.federation is not None:
                self.federation.start(source, self.link.peer_id(), "Dragoman" in remote.product)
            return await self._until_over(remote, source, target, mover)
        finally:
            await self._close(remote, source, target)

    async def _until_over(self, remote: Remote, source: Source, target: Target, mover: Mover) -> str:
        """Raises: _Blocked."""
        ends = {source.lost, target.lost, remote.lost, mover.blocked}
        while self.care.blocked:  # until a message is taken, or none wants to be
            done, _ = await asyncio.wait(ends, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
            if done:
                break
            if self.care.blocked:
                self.care.blocked = bool(mover.outstanding)
        else:
            self.state.set(UP)
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if mover.blocked in done:
            raise _Blocked(mover.blocked.result())
        why = str(next(iter(done)).result())
        reason = self.care.broke([each.message for each in mover.cut], remote.lost.done(), why) \
            if target.lost.done() else 0
        if reason:
            self._backoff.succeeded()
            mover.blame(why, reason)
            if mover.blocked.done():
                raise _Blocked(mover.blocked.result())
        return why

    async def _close(self, remote: Remote, source: Source | None, target: Target | None) -> None:
        self.figures.duplicates = self.duplicates()
        mover, self.mover = self.mover, None
        if self.federation is not None:
            await self.federation.stop()
        self.source = self.target = None
        if mover is not None:
            alive = not any(each is None or each.lost.done() for each in (remote, source, target))
            await mover.stop(GRACE if alive else 0)
        for end in (source, target):
            if end is not None:
                with contextlib.suppress(EndError):
                    await end.close()

    async def _open_source(self, remote: Remote) -> Source:
        settings, link = self.settings, self.link
        taken = settings.taken()
        if settings.direction != PULL:
            return LocalSource(self.host, taken, self.name, settings.acknowledge == EXACTLY_ONCE)
        marks: dict[str, Any] = {}
        if self.federation is not None:
            marks[MARK] = link.broker_id
        if taken.exchange and settings.trace and link.settings.dialect_number() == AMQP010 \
                and "Dragoman" not in remote.product:  # whose bridges write and read traces of their own
            marks.update(queue_arguments(link.broker_id, link.peer_id()))
        try:
            return await remote.source(replace(taken, arguments={**marks, **taken.arguments}))
        except EndError:
            if not marks or remote.lost.done():
                raise
            return await remote.source(taken)  # Broker-J refuses arguments that it does not know

    async def _open_target(self, remote: Remote) -> Target:
        if self.settings.direction == PULL:
            return LocalTarget(self.host, self.settings.sent(), self._known())
        return await remote.target(self.settings.sent())

    def _now(self) -> int:
        return self.host.broker.clock.now

    def _known(self) -> Known | None:
        settings = self.settings
        if settings.acknowledge != EXACTLY_ONCE:
            return None
        log = self.host.broker.log
        return Known(log, records_number(self.host, f"bridge {self.name}"), settings.window, True)

    def _changes(self, target: Target) -> list[Change]:
        """What is done to each message on its way. Raises: RuleError."""
        settings, link = self.settings, self.link
        pulls = settings.direction == PULL
        changes: list[Change] = []
        if settings.trace:
            changes.append(Tracer(link.broker_id, link.peer_id(), pulls, settings.hops))
        if settings.replies:
            changes.append(Answers(link.waiting))
        if settings.rules:
            changes.append(Rules(read_rules(settings.rules), target.dialect))
        if settings.reply_to:
            changes.append(Requests(link.waiting, settings.reply_to, settings.reply_seconds, target.dialect))
        if settings.acknowledge == EXACTLY_ONCE and not pulls:
            changes.append(Marker(link.broker_id, settings.name))
        return changes


_SMOOTH = 0.3
"""How much the last measure counts in a rate."""
