"""Federation: what an exchange here has bindings for is taken from an exchange there, as bindings come and go.

What another Dragoman's federation has bound here is passed on as well, so that bindings reach through chains of
brokers. Each such binding says in its arguments by which brokers it came, the first one first. It is not passed on to a
broker that it has come through: else those of brokers in a circle would keep each other alive for ever. Brokers of
other kinds get the keys alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

from broker import topology
from broker.exchange import Binding
from broker.management import BOUND, EXCHANGE_DELETED, UNBOUND, Event, Observer
from broker.virtualhost import VirtualHost
from interop.ends import Source

logger = logging.getLogger(__name__)

MARK = "x-dragoman-federation"
"""The argument of the queue that a federation has at the other broker: who it is for; and of its bindings: by which
brokers they came, with commas between them."""

_QPID_TAGS = "qpid.fed.tags"
_QPID_ORIGIN = "qpid.fed.origin"
"""What qpidd's bridges say of their bindings: the same, and who is first."""

_SETTING = "federation"


class Federation(Observer):
    """Follows the bindings of one local exchange, for one bridge. `start` and `stop` are with the source."""

    def __init__(self, host: VirtualHost, exchange: str, bridge: str, keeps: bool, hops: int) -> None:
        """keeps: the queue at the other side stays while we are away, and so do the bindings that it has. hops:
        brokers that a binding may come through."""
        self.host = host
        self.exchange = exchange
        self.hops = hops
        self.peer = ""  # the broker at the other side
        self.speaks = False  # it is a Dragoman: it wants to know by which brokers a binding came
        self.setting = topology.key(_SETTING, host.name, bridge) if keeps else ""
        self.bound: dict[str, str] = self._kept()  # keys that the other side has of us, as far as we know, with paths
        self.sure: dict[str, str] = {}  # what it has been told since it was connected
        self.changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wanted(self) -> dict[str, str]:
        """The keys of the bindings that there are now, each with its shortest path that the other side is not in, to
        which we are added; "" for those that do not tell."""
        found: dict[str, tuple[int, str]] = {}
        exchange = self.host.exchanges.get(self.exchange)
        own = self.host.broker.identity
        for binding in list(exchange.bindings.values()) if exchange is not None else ():
            path = path_of(binding)
            if path is None or self.peer in path or own in path or len(path) >= self.hops:
                continue
            ranked = len(path), ",".join([*path, own])
            if binding.routing_key not in found or ranked < found[binding.routing_key]:
                found[binding.routing_key] = ranked
        return {key: path if self.speaks else "" for key, (_, path) in found.items()}

    def start(self, source: Source, peer: str, speaks: bool) -> None:
        """The source is open, with the bindings that were kept for it."""
        self.peer = peer
        self.speaks = speaks
        self.sure = {}
        if not self.setting:
            self.bound = {}
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
        fresh = {key: path for key, path in wanted.items() if self.sure.get(key) != path}
        stale = {key: path for key, path in self.bound.items()
                 if key not in wanted or (wanted[key] != path and not source.rebinds)}
        if fresh:
            self.bound.update({key: path for key, path in fresh.items() if key not in self.bound})
            self._keep()  # before it is done: what may be bound is unbound one day
            for path, keys in _by_path(fresh):
                await source.bind(keys, _arguments(path))
        for path, keys in _by_path(stale):
            await source.unbind(keys, _arguments(path))
        if fresh or stale:
            self.bound, self.sure = dict(wanted), dict(wanted)
            self._keep()

    def _kept(self) -> dict[str, str]:
        kept = self.host.broker.store.get(self.setting) if self.setting else None
        found = json.loads(kept) if kept is not None else {}
        return found if isinstance(found, dict) else dict.fromkeys(found, "")  # a list, of before there were paths

    def _keep(self) -> None:
        if self.setting:
            self.host.broker.store.put(self.setting, json.dumps(self.bound, sort_keys=True).encode())


def path_of(binding: Binding) -> list[str] | None:
    """The brokers by which a binding came here; None when it is a federation's that does not tell."""
    arguments = binding.arguments
    told = [arguments.get(name) for name in (MARK, _QPID_TAGS, _QPID_ORIGIN)]
    path = [each for text in told if isinstance(text, str) for each in text.split(",") if each]
    if not path and binding.queue is not None and MARK in binding.queue.arguments:
        return None
    return path


def _by_path(bindings: dict[str, str]) -> list[tuple[str, list[str]]]:
    """The keys of each path."""
    return [(path, sorted(key for key, each in bindings.items() if each == path))
            for path in sorted(set(bindings.values()))]


def _arguments(path: str) -> dict[str, str]:
    return {MARK: path} if path else {}
