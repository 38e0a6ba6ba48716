"""The gateway: all links and bridges of a broker, from the configuration and made while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.broker import Broker
from broker.errors import NotFound, PreconditionFailed
from interop.bridge import Bridge
from interop.link import Link, Maker
from interop.remotes import remote as remote_at
from interop.settings import BridgeSettings, LinkSettings

INTERVAL = 1.0
"""Seconds between two looks at the rates."""


class Gateway:
    """`start` it when the broker has recovered; `stop` it before the broker closes."""

    def __init__(self, broker: Broker, make: Maker = remote_at) -> None:
        self.broker = broker
        self.make = make
        self.broker_id = broker.identity
        self.links: dict[str, Link] = {}
        self.bridges: dict[str, Bridge] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._ticked = 0.0

    def start(self, links: Sequence[LinkSettings], bridges: Sequence[BridgeSettings]) -> None:
        """Raises: NotFound, PreconditionFailed."""
        for link in links:
            self.add_link(link)
        for bridge in bridges:
            self.add_bridge(bridge)
        self._tick()

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        await asyncio.gather(*(bridge.stop() for bridge in self.bridges.values()))
        await asyncio.gather(*(link.stop() for link in self.links.values()))

    def add_link(self, settings: LinkSettings) -> None:
        """Raises: PreconditionFailed."""
        if settings.name in self.links:
            raise PreconditionFailed(f"there is a link '{settings.name}' already")
        link = self.links[settings.name] = Link(settings, self.broker_id, self.make)
        link.start()

    def add_bridge(self, settings: BridgeSettings) -> None:
        """Raises: NotFound (link or virtual host), PreconditionFailed."""
        if settings.name in self.bridges:
            raise PreconditionFailed(f"there is a bridge '{settings.name}' already")
        link = self.links.get(settings.link)
        if link is None:
            raise NotFound(f"no link '{settings.link}'")
        host = self.broker.host(settings.virtual_host or next(iter(self.broker.hosts)))
        bridge = self.bridges[settings.name] = Bridge(settings, link, host)
        bridge.start()

    def alarms_changed(self) -> None:
        """The broker's alarms are others than before."""
        for bridge in self.bridges.values():
            bridge.alarms_changed()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._ticked:
            for bridge in self.bridges.values():
                bridge.measure(max(0.001, now - self._ticked))
        self._ticked = now
        self._ticker = loop.call_later(INTERVAL, self._tick)

