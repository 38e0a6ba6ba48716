"""The server: puts store, broker, front-ends and sockets together. The one place that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from pathlib import Path
from typing import Any

from broker import topology
from broker.broker import AutoCreate, Broker, Watcher
from broker.clock import Clock
from broker.security.passwords import SCRAM_HASHES
from broker.security.sasl import SaslServer
from dragoman import __version__
from dragoman.access import FileRules, Sources
from dragoman.arrivals import Arrivals
from dragoman.config import Config, ConfigError, gateway_part, needing_restart, until_restart
from dragoman.config_gateway import Bridge, Link
from dragoman.config_tls import tls_problems
from dragoman.limits import limits_of, most_connections, quota_limits
from dragoman.listening import Listening
from dragoman.proposals import Proposals
from dragoman.resources import free_disk, memory_limit
from dragoman.scheduler import Checks, LoopAlarm, LoopScheduler
from dragoman.security import Logins, tools
from dragoman.shares import Shares
from dragoman.tls import Certificates
from dragoman.transport import Transport
from interop.gateway import Gateway
from protocols.amqp010 import connection as amqp010
from protocols.amqp010.frames import PROTOCOL_HEADER as HEADER010
from protocols.amqp010.sessions import Sessions
from protocols.amqp091.connection import Connection
from protocols.amqp091.frames import PROTOCOL_HEADERS
from protocols.amqp10 import connection as amqp10
from protocols.amqp10.containers import Containers
from protocols.amqp10.opening import PROTOCOL_HEADERS as HEADERS10
from protocols.detect import MQTT
from protocols.frontend import FrontEnd
from protocols.mqtt import connection as mqtt
from protocols.mqtt.sessions import Sessions as MqttSessions
from protocols.mqtt.system_topics import SystemTopics
from protocols.qmf.agent import Agent
from protocols.qmf.objects import Facts
from store.journal import Store
from store.memory import MemoryStore

logger = logging.getLogger(__name__)

_SOME = 64
"""So many connections are looked at in one turn of the loop where all are."""


class Server(Watcher):
    """A broker that listens. `start` it, wait for `failed` or a reason of your own, `stop` it."""

    preferred_header = b"AMQP\x00\x00\x09\x01"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.clock = Clock()
        self.failed = asyncio.Event()
        self.failure = ""
        self.listening: list[Listening] = []
        self.transports: dict[Transport, None] = {}
        self.arrivals = Arrivals(self)
        self.most_connections = most_connections(config)
        self.reserve: int | None = os.open(os.devnull, os.O_RDONLY)  # a file descriptor for when there are no more
        self.dirty: list[Transport] = []
        self.shares = Shares(self.loop)
        self._adrift = False  # our clock is not the system's
        self.stopping = False
        self._gone = asyncio.Event()
        self.certificates = Certificates(config)
        self._checks = [Checks(self.loop, 2), Checks(self.loop, 16)]
        self._ticker: asyncio.TimerHandle | None = None
        self._tools = tools(self._checks[0].run, self._checks[1].run, self.clock, self.loop)
        self._logins = Logins(config, self._tools)
        self._logins.begin()
        self._waiting = 0  # bytes of output that clients had not taken at the last tick: they are memory, too
        self._proposals = Proposals(config)
        self._containers = Containers()
        self._sessions = Sessions()
        self.gateway: Gateway | None = None
        self._mqtt_sessions = MqttSessions(config.mqtt.session_messages)

    async def start(self) -> None:
        """Open the store, recover, listen. Raises: StoreError, OSError, ValueError."""
        config = self.config
        self.scheduler = LoopScheduler(self.loop)
        alarm = LoopAlarm(self.loop)
        try:
            self.broker = Broker(_open_store(config, self.scheduler), self.scheduler, self.clock, alarm, self,
                                 config.limits.memory or memory_limit(), config.limits.queue_memory_messages,
                                 config.limits.queue_memory_bytes)
            alarm.clock, alarm.timers = self.clock, self.broker.timers
            self._tools.secret = topology.secret(self.broker.store)
            self.broker.branch_timeout = config.amqp010.xa_seconds
            self.broker.branch_timeout_max = config.amqp010.xa_max_seconds
            for name in config.virtual_hosts:
                self.broker.add_host(name)
            self._allow_auto_creation(config)
            self.access = self.broker.policy = FileRules(self.broker, config.access)
            self.access.changed = self._limit
            self._limit()
            for _ in self.broker.recover():
                await asyncio.sleep(0)
            for host in self.broker.hosts.values():
                self._mqtt_sessions.of(host).system = SystemTopics(host, __version__, config.mqtt.sys_interval)
            self._mqtt_sessions.recover(self.broker)
            await self._listen()
            self._manage()
            self.gateway = Gateway(self.broker, read=self._gateway_part)
            self.gateway.start(config.link, config.bridge)
        except BaseException:
            await self._close()
            raise
        self._tick()

    def _gateway_part(self, kind: str, table: dict[str, Any]) -> Link | Bridge:
        """Raises: ValueError."""
        try:
            return gateway_part(kind, table, self.config.gateway.files)
        except ConfigError as error:
            raise ValueError("; ".join(error.problems)) from None

    def _limit(self) -> None:
        """Put limits in force, for those who are there already, too."""
        limits = limits_of(self.config) + quota_limits(self.access.sources, self.config)
        self.broker.quotas.replace(limits, [queue.party for host in self.broker.hosts.values()
                                            for queue in host.queues.values() if queue.party is not None])
        for transport in self.transports:
            transport.limited()

    def _allow_auto_creation(self, config: Config) -> None:
        self.broker.auto_create = [AutoCreate(each.pattern, each.kind, each.durable, dict(each.arguments))
                                   for each in config.auto_create]

    def _manage(self) -> None:
        """Make an agent for each virtual host."""
        config = self.config
        if not config.management.qmf:
            return
        folder = str(Path(config.store.path).resolve()) if config.store.kind == "lmdb" else ""
        system = uuid.uuid4()
        for host in self.broker.hosts.values():
            Agent(host, Facts(__version__, system, config.management.interval, self.addresses[0][1], folder))

    async def _listen(self) -> None:
        for listener in self.config.listeners:
            listening = Listening(self, listener)
            self.listening.append(listening)
            await listening.start()

    @property
    def addresses(self) -> list[tuple[str, int, str]]:
        """Host, port and scheme (amqp or amqps) of each socket that is listened on."""
        return [address for listening in self.listening for address in listening.addresses]

    def users(self) -> str:
        """Who may log in, for people."""
        parts = []
        if self._logins.file.guest:
            parts.append("guest with password guest (from this machine only)")
        if self._logins.file.file is not None:
            count = len(self._logins.file.file.names())
            parts.append(f"{count} user{'' if count == 1 else 's'} of {self.config.authentication.users_file}")
        parts += [f"users of {provider.name}" for provider in self.config.providers]
        if any(listener.anonymous for listener in self.config.listeners):
            parts.append("anybody, without a name, where a listener says anonymous")
        return ", ".join(parts) or "nobody: set authentication.users_file"

    def rights(self) -> str:
        """What they may do, for people."""
        return self.access.sources.described()

    def reload(self, config: Config) -> list[str]:
        """Take up a new configuration as far as that goes; give the keys that wait for a restart.

        Raises: ValueError, OSError; then everything stays as it was.
        """
        waits = needing_restart(self.config, config)
        config = until_restart(self.config, config)  # what needs a restart is asked for time and again
        problems = tls_problems(config.tls, config.certificates, config.listeners)
        if problems:  # with the listeners as they stay until then
            raise ValueError("; ".join(problems))
        certificates, logins, rights = Certificates(config), Logins(config, self._tools), Sources(config.access)
        self.certificates = certificates
        for listening, listener in zip(self.listening, config.listeners, strict=True):
            listening.listener = listener
        self._logins.close()
        self._logins = logins
        logins.begin()
        self.access.take(rights)
        self.config = config
        self._allow_auto_creation(config)
        self.most_connections = most_connections(config)
        self._limit()
        if self.gateway is not None:
            self.gateway.reconfigure(config.link, config.bridge)
        self.broker.memory.limit = config.limits.memory or memory_limit()
        self.broker.memory.tight = self.broker.memory.limit // 2
        self.broker.memory.add(0)  # what is used may be too much now, or no longer
        self.broker.queue_memory_messages = config.limits.queue_memory_messages
        self.broker.queue_memory_bytes = config.limits.queue_memory_bytes
        self._review(logins, list(self.transports))
        return waits

    def _review(self, logins: Logins, waiting: list[Transport]) -> None:
        """See whether those who are connected may stay, some at a time."""
        for transport in waiting[-_SOME:]:
            transport.review(logins)
        del waiting[-_SOME:]
        if waiting and logins is self._logins:
            self.loop.call_soon(self._review, logins, waiting)

    async def stop(self, seconds: float) -> None:
        """Stop listening, tell the clients, let them take what is on its way for up to so long, and close the store."""
        self.stopping = True
        for listening in self.listening:
            listening.stop()
        if self.gateway is not None:
            await self.gateway.stop()
        committed = asyncio.Event()
        self.broker.log.commit(committed.set)  # so that publishers hear of what they have sent
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(committed.wait(), seconds)
        for transport in list(self.transports):
            if transport.front_end is not None:
                transport.front_end.shut_down("broker forced connection closure: it is shutting down")
            elif transport.socket is not None:
                transport.socket.abort()  # it did not even say what it speaks
        if self.transports:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), seconds)
        for transport in list(self.transports):
            if transport.socket is not None:
                transport.socket.abort()
        await asyncio.sleep(0)
        await self._close()

    async def _close(self) -> None:
        self.stopping = True
        if self._ticker is not None:
            self._ticker.cancel()
        for listening in self.listening:
            listening.stop()
        try:
            if hasattr(self, "broker"):
                self.broker.close()
        finally:
            self.scheduler.close()
            self._logins.close()
            for checks in self._checks:
                checks.close()
            if self.reserve is not None:
                os.close(self.reserve)
                self.reserve = None

    # What transports ask for.

    def served(self) -> dict[bytes, object]:
        return {**PROTOCOL_HEADERS, **dict.fromkeys((HEADER010, *HEADERS10))}

    def front_end(self, header: bytes, transport: Transport) -> FrontEnd:
        """The front-end for a client that began with this header."""
        transport.logins = self._logins
        logins, origin = self._logins.of(transport.listening.listener), transport.origin
        if not logins.mechanisms(origin, SCRAM_HASHES if header == MQTT else ()):
            logger.warning("%s: there is no mechanism for it to log in by: %s", transport.peer,
                           logins.why_not("PLAIN", origin))
        proposals = self._proposals.fitted(self.config, transport.quota)
        if header == MQTT:
            return mqtt.Connection(
                self.broker, proposals.mqtt, self._mqtt_sessions,
                lambda: SaslServer(self._logins.of(transport.listening.listener), origin, also=SCRAM_HASHES,
                                   success_extra=True), transport, transport.peer)
        if header in HEADERS10:
            sasl = SaslServer(logins, origin, success_extra=True)
            return amqp10.Connection(self.broker, proposals.amqp10, self._containers, sasl,
                                     transport, transport.peer, header)
        sasl = SaslServer(logins, origin, failure_extra=header == HEADER010)
        if header == HEADER010:
            return amqp010.Connection(self.broker, proposals.amqp010, self._sessions, sasl,
                                      transport, transport.peer)
        return Connection(self.broker, proposals.amqp091, sasl, transport, transport.peer,
                          PROTOCOL_HEADERS[header])

    def connected(self, transport: Transport) -> bool:
        """A client is there. False: we are going, or it had to make room for others."""
        if self.stopping or transport.arrival not in self.arrivals.all:
            return False
        self.transports[transport] = None
        return True

    def disconnected(self, transport: Transport) -> None:
        self.transports.pop(transport, None)
        self.arrivals.gone(transport.arrival)
        if self.stopping and not self.transports:
            self._gone.set()

    def admit(self, transport: Transport, connection: FrontEnd, host_name: str) -> None:
        """Raises: AccessRefused, LimitReached."""
        connection.access = self.broker.policy.access(connection, host_name)
        connection.access.enter()
        groups = connection.identity.groups | self.access.groups.get(connection.user, frozenset())
        connection.quota.enter(connection.user, groups, host_name)
        self.arrivals.opened(transport.arrival)
        if transport.logins is not self._logins:  # who were changed in the midst of the login
            self.loop.call_soon(transport.review, self._logins)

    def flush_soon(self, transport: Transport) -> None:
        """Write the transport's output at the end of this turn."""
        if not self.dirty:
            self.loop.call_soon(self._flush)
        self.dirty.append(transport)

    def _flush(self) -> None:
        dirty, self.dirty = self.dirty, []
        for transport in dirty:
            try:
                transport.flush()
            except Exception as error:  # must never happen; if it does, it is not to cost the others their output
                self.loop.call_exception_handler({"message": f"{transport.peer}: cannot be written to",
                                                  "exception": error})
                if transport.socket is not None:
                    transport.socket.abort()

    # What the broker tells.

    def alarms_changed(self, reasons: list[str]) -> None:
        if reasons:
            logger.warning("publishers are held: %s", "; ".join(reasons))
        else:
            logger.info("publishers may go on")
        self.loop.call_soon(self._spread_alarms)

    def _spread_alarms(self) -> None:
        self.clock.tick()
        for transport in list(self.transports):
            if transport.front_end is not None:
                transport.front_end.alarms_changed(list(self.broker.memory.alarms.values()))
        if self.gateway is not None:
            self.gateway.alarms_changed()

    def store_failed(self, reason: str) -> None:
        self.failure = f"the store cannot be written: {reason}"
        self.failed.set()

    # Time.

    def _tick(self) -> None:
        self.clock.tick()
        self._watch_clock()
        self._ticker = self.loop.call_later(1, self._tick)
        self._watch_disk()
        self.certificates.tick(self.clock.now)
        self.arrivals.tick(self.clock.now)
        waiting = 0
        for transport in list(self.transports):
            transport.tick(self.clock.now)
            waiting += transport.waiting()
        self.broker.memory.add(waiting - self._waiting)
        self._waiting = waiting
        self.broker.quotas.tick()

    def _watch_clock(self) -> None:
        ahead = self.clock.ahead
        if bool(ahead) != self._adrift:
            self._adrift = bool(ahead)
            if ahead:
                logger.warning("the system's clock has jumped by %+.1f s; ours runs %s until it is right again",
                               ahead / 1000, "faster" if ahead > 0 else "slower")
            else:
                logger.info("our clock is the system's again")

    def _watch_disk(self) -> None:
        if self.config.store.kind != "lmdb":
            return
        least = self.config.limits.disk_free
        try:
            free = free_disk(self.config.store.path)
        except OSError as error:
            self.broker.memory.set_alarm("disk", f"the store's disk cannot be asked for room: {error.strerror}")
            return
        if free < least:
            self.broker.memory.set_alarm("disk", f"{free >> 20} MiB of disk are free, {least >> 20} MiB must be")
        else:
            self.broker.memory.clear_alarm("disk")


def _open_store(config: Config, scheduler: LoopScheduler) -> Store:
    if config.store.kind == "memory":
        return MemoryStore(scheduler)
    from store.lmdb import LmdbStore
    return LmdbStore(Path(config.store.path), scheduler, config.store.map_size)
