"""Federation: what an exchange here has bindings for is taken from an exchange there, as bindings come and go.

Bindings of queues that another broker's federation has here are not passed on: those of two brokers that federate
each other would keep each other alive for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

from broker import topology
from broker.management import BOUND, EXCHANGE_DELETED, UNBOUND, Event, Observer
from broker.virtualhost import VirtualHost
from interop.ends import Source

logger = logging.getLogger(__name__)

MARK = "x-dragoman-federation"
"""The argument of the queue that a federation has at the other broker: who it is for."""

_SETTING = "federation"


class Federation(Observer):
    """Follows the bindings of one local exchange, for one bridge. `start` and `stop` are with the source."""

    def __init__(self, host: VirtualHost, exchange: str, bridge: str, keeps: bool) -> None:
        """keeps: the queue at the other side stays while we are away, and so do the bindings that it has."""
        self.host = host
        self.exchange = exchange
        self.setting = topology.key(_SETTING, host.name, bridge) if keeps else ""
        self.bound: set[str] = self._kept()  # what the other side has of us, as far as we know
        self.sure: set[str] = set()  # what it has been told since it was connected
        self.changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wanted(self) -> set[str]:
        """The keys of the bindings that there are now."""
        exchange = self.host.exchanges.get(self.exchange)
        return set() if exchange is None else {
            each.routing_key for each in exchange.bindings.values()
            if each.queue is None or MARK not in each.queue.arguments}

    def start(self, source: Source) -> None:
        """The source is open, with the bindings that were kept for it."""
        self.sure = set()
        if not self.setting:
            self.bound = set()
        self.host.broker.management.observers.append(self)
        self.changed.set()
        self._task = asyncio.create_task(self._follow(source))

    async def stop(self) -> None:
        observers = self.host.broker.management.observers
        if self in observers:
            observers.remove(self)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def happened(self, event: Event) -> None:
        if event.kind in (BOUND, UNBOUND, EXCHANGE_DELETED) and event.host == self.host.name \
                and event.values.get("exchange") == self.exchange:
            self.changed.set()

    async def _follow(self, source: Source) -> None:
        try:
            while True:
                await self.changed.wait()
                self.changed.clear()
                await self._adjust(source)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the bridge then begins anew
            if not source.lost.done():
                source.lost.set_result(f"bindings there cannot be changed: {error}")

    async def _adjust(self, source: Source) -> None:
        """Bind first, so that what is only called differently is never missed."""
        wanted = self.wanted()
        fresh, stale = wanted - self.sure, self.bound - wanted
        if fresh:
            self.bound |= fresh
            self._keep()  # before it is done: what may be bound is unbound one day
            await source.bind(sorted(fresh))
            self.sure |= fresh
        if stale:
            await source.unbind(sorted(stale))
            self.bound -= stale
            self.sure -= stale
            self._keep()

    def _kept(self) -> set[str]:
        kept = self.host.broker.store.get(self.setting) if self.setting else None
        return set() if kept is None else set(json.loads(kept))

    def _keep(self) -> None:
        if self.setting:
            self.host.broker.store.put(self.setting, json.dumps(sorted(self.bound)).encode())
