"""The gateway: all links and bridges of a broker, those of the configuration and those made while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from broker import topology
from broker.broker import Broker
from broker.errors import BrokerError, NotFound, PreconditionFailed
from broker.management import GatewayControl, ManagedPart
from interop.bridge import Bridge
from interop.link import Link, Maker, shown
from interop.remotes import PORTS
from interop.remotes import remote as remote_at
from interop.settings import PULL, BridgeSettings, LinkSettings
from interop.states import PAUSED

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the rates."""

LINK = "link"
BRIDGE = "bridge"
_PAUSED = "paused"
_PASSWORD = "link-password"
"""Kinds of settings in the store: parts that operators have made; bridges, of the configuration as well, that they have
paused; passwords that came with a link."""

Named = tuple[str, str]
"""A part's kind and name."""

Reader = Callable[[str, dict[str, Any]], LinkSettings | BridgeSettings]
"""What makes settings of a table as it is in the configuration. Raises: ValueError."""


class Gateway(GatewayControl):
    """`start` it when the broker has recovered; `stop` it before the broker closes."""

    def __init__(self, broker: Broker, make: Maker = remote_at, read: Reader | None = None) -> None:
        """read: without it, nothing can be made while the broker runs."""
        self.broker = broker
        self.make = make
        self.read = read
        self.links: dict[str, Link] = {}
        self.bridges: dict[str, Bridge] = {}
        self.configured: dict[Named, LinkSettings | BridgeSettings] = {}
        self._passing: set[Named] = set()  # those that operators have made for this run alone
        self._ending: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._ticked = 0.0
        self._paused = {key.split("\0")[2] for key, _, _ in broker.store.load(f"{_PAUSED}\0")}
        broker.management.gateway = self

    # Its life.

    def start(self, links: Sequence[LinkSettings], bridges: Sequence[BridgeSettings]) -> None:
        """With those of the configuration; the others are in the store. Raises: NotFound, PreconditionFailed."""
        self._configure(links, bridges)
        saved = {kind: [json.loads(value) for _, value, _ in self.broker.store.load(f"{kind}\0")]
                 for kind in (LINK, BRIDGE)}
        for kind, tables in saved.items():
            for table in tables:
                with _told(kind, str(table.get("name"))):
                    self._add(kind, self._settings(kind, table), self._password(str(table.get("name"))))
        self._tick()

    def reconfigure(self, links: Sequence[LinkSettings], bridges: Sequence[BridgeSettings]) -> None:
        """The configuration was read again: what is the same goes on undisturbed. With a link, its bridges are made
        anew, those of operators as well."""
        wanted = _by_name(links, bridges)
        changed = {part for part, settings in self.configured.items() if wanted.get(part) != settings}
        cut = [each.settings for each in self.bridges.values() if (LINK, each.link.name) in changed]
        made = [each for each in cut if (BRIDGE, each.name) not in self.configured]
        for kind, name in changed:
            self._remove(kind, name)
        for settings in cut:
            self._remove(BRIDGE, settings.name)
        self._configure(links, bridges)
        for settings in made:
            with _told(BRIDGE, settings.name):
                self.add_bridge(settings)

    def _configure(self, links: Sequence[LinkSettings], bridges: Sequence[BridgeSettings]) -> None:
        self.configured = _by_name(links, bridges)
        for link in links:
            if link.name not in self.links:
                self._add(LINK, link)
        for bridge in bridges:
            if bridge.name not in self.bridges:
                self._add(BRIDGE, bridge)

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        await asyncio.gather(*(bridge.stop() for bridge in self.bridges.values()))
        await asyncio.gather(*(link.stop() for link in self.links.values()))
        if self._ending:
            await asyncio.wait(self._ending)

    def alarms_changed(self) -> None:
        """The broker's alarms are others than before."""
        for bridge in self.bridges.values():
            bridge.alarms_changed()

    # Parts.

    def add_link(self, settings: LinkSettings, password: str = "") -> None:
        """password: where no file and no environment has it. Raises: PreconditionFailed."""
        if settings.name in self.links:
            raise PreconditionFailed(f"there is a link '{settings.name}' already")
        link = self.links[settings.name] = Link(settings, self.broker.identity, self.make, password)
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
        if settings.paused or settings.name in self._paused:
            bridge.paused = True
            bridge.state.set(PAUSED)
        else:
            bridge.start()

    def _add(self, kind: str, settings: LinkSettings | BridgeSettings, password: str = "") -> None:
        if isinstance(settings, LinkSettings):
            self.add_link(settings, password)
        else:
            self.add_bridge(settings)

    def _password(self, link: str) -> str:
        """That which came with it, of a link that an operator has made."""
        return (self.broker.store.get(topology.key(_PASSWORD, "", link)) or b"").decode()

    def _remove(self, kind: str, name: str) -> None:
        part: Link | Bridge | None = self.links.pop(name, None) if kind == LINK else self.bridges.pop(name, None)
        if part is not None:
            self._end(part.stop())

    def _end(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something come to its end, in its own time."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _settings(self, kind: str, table: dict[str, Any]) -> LinkSettings | BridgeSettings:
        """Raises: PreconditionFailed."""
        if self.read is None:
            raise PreconditionFailed("nothing can be made while this broker runs")
        try:
            return self.read(kind, table)
        except ValueError as error:
            raise PreconditionFailed(str(error)) from None

    # What operators do.

    def create(self, kind: str, name: str, properties: dict[str, Any], durable: bool = True,
               password: str = "") -> None:
        if not name or "\0" in name or len(name.encode("utf-8", "surrogatepass")) > 255:
            raise PreconditionFailed(f"a {kind}'s name has 1 to 255 bytes, and no NUL")
        try:
            table = json.loads(json.dumps({**properties, "name": name}))  # plain values, whatever their classes
        except (TypeError, ValueError):
            raise PreconditionFailed("properties are texts, numbers, truth values, lists and tables") from None
        self._add(kind, self._settings(kind, table), password)
        if durable:
            self.broker.store.put(topology.key(kind, "", name), json.dumps(table).encode())
            if password:
                self.broker.store.put(topology.key(_PASSWORD, "", name), password.encode())
        else:
            self._passing.add((kind, name))
        logger.info("%s %s is made by an operator", kind, name)

    def delete(self, kind: str, name: str) -> None:
        if name not in (self.links if kind == LINK else self.bridges):
            raise NotFound(f"no {kind} '{name}'")
        if (kind, name) in self.configured:
            raise PreconditionFailed(f"{kind} '{name}' is in the broker's configuration: take it out there, and have "
                                     "it read again")
        users = [bridge.name for bridge in self.bridges.values() if kind == LINK and bridge.link.name == name]
        if users:
            raise PreconditionFailed(f"link '{name}' has bridges: {', '.join(users)}")
        self._remove(kind, name)
        self._passing.discard((kind, name))
        for setting in (kind, _PASSWORD) if kind == LINK else (kind,):
            if self.broker.store.get(topology.key(setting, "", name)) is not None:
                self.broker.store.delete(topology.key(setting, "", name))
        if kind == BRIDGE:
            self._remember_pause(name, False)
        logger.info("%s %s is removed by an operator", kind, name)

    def pause(self, name: str, paused: bool) -> None:
        bridge = self.bridges.get(name)
        if bridge is None:
            raise NotFound(f"no bridge '{name}'")
        self._remember_pause(name, paused)
        bridge.paused = paused
        self._end(bridge.adjust())

    def _remember_pause(self, name: str, paused: bool) -> None:
        setting = topology.key(_PAUSED, "", name)
        if paused:
            self._paused.add(name)
            self.broker.store.put(setting, b"{}")
        elif name in self._paused:
            self._paused.discard(name)
            self.broker.store.delete(setting)

    # What there is to see.

    def parts(self, kind: str) -> list[ManagedPart]:
        if kind == LINK:
            return [ManagedPart(LINK, link.name, "", link.created,
                                _link_values(link, self._is_durable(LINK, link)))
                    for link in list(self.links.values())]
        return [ManagedPart(BRIDGE, bridge.name, bridge.host.name, bridge.created,
                            _bridge_values(bridge, self._is_durable(BRIDGE, bridge)))
                for bridge in list(self.bridges.values())]

    def _is_durable(self, kind: str, part: Link | Bridge) -> bool:
        """Whether it is in the store."""
        return (kind, part.name) not in self.configured and (kind, part.name) not in self._passing

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._ticked:
            for bridge in self.bridges.values():
                bridge.measure(max(0.001, now - self._ticked))
        self._ticked = now
        self._ticker = loop.call_later(INTERVAL, self._tick)


def _by_name(links: Sequence[LinkSettings],
             bridges: Sequence[BridgeSettings]) -> dict[Named, LinkSettings | BridgeSettings]:
    return {**{(LINK, each.name): each for each in links}, **{(BRIDGE, each.name): each for each in bridges}}


@contextlib.contextmanager
def _told(kind: str, name: str) -> Iterator[None]:
    """What an operator has made and now cannot be is told of in the log."""
    try:
        yield
    except BrokerError as error:
        logger.error("%s '%s', which was made by an operator, cannot be: %s", kind, name, error)


def _link_values(link: Link, durable: bool) -> dict[str, Any]:
    """durable: it was made by an operator, and is in the store."""
    settings, state = link.settings, link.state
    host, port, scheme = "", 0, ""
    with contextlib.suppress(ValueError):
        parts = urlsplit(link.url or settings.url)
        host, scheme = parts.hostname or "", parts.scheme
        port = parts.port or PORTS.get(scheme, 0)
    return {"host": host, "port": port, "transport": "ssl" if scheme.endswith("s") else "tcp", "durable": durable,
            "dialect": settings.dialect_name(), "url": link.url or shown(settings.url), "state": state.name,
            "lastError": state.last_error, "since": state.since, "connects": link.connects}


def _bridge_values(bridge: Bridge, durable: bool) -> dict[str, Any]:
    settings, state, figures = bridge.settings, bridge.state, bridge.figures
    taken, sent = settings.taken(), settings.sent()
    return {"link": settings.link, "durable": durable, "src": taken.exchange or taken.queue,
            "dest": sent.exchange or sent.queue, "key": ",".join(settings.keys), "srcIsQueue": not taken.exchange,
            "srcIsLocal": settings.direction != PULL, "dynamic": settings.federation,
            "acknowledge": settings.acknowledge, "state": state.name,
            "lastError": figures.last_error or state.last_error, "since": state.since,
            "msgReceived": figures.received, "msgMoved": figures.moved, "byteMoved": figures.bytes,
            "msgRejected": figures.rejected, "msgRetried": figures.retried, "msgLooped": figures.looped,
            "msgDuplicates": bridge.duplicates(), "msgUnwanted": figures.unwanted, "msgLost": figures.lost,
            "msgLag": bridge.lag(), "delay": figures.delay, "msgReceivedRate": round(bridge.received_rate),
            "msgMovedRate": round(bridge.moved_rate)}
