"""The broker: virtual hosts over one store, and what they share: time, memory, alarms."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from mypy_extensions import mypyc_attr

from broker import topology
from broker.branch import saved_branch
from broker.chores import Chores
from broker.clock import Alarm, Clock, Timers
from broker.delayed import DelayedExchange
from broker.entry import Entry
from broker.errors import BrokerError, NotFound
from broker.lane import Lane
from broker.management import Management
from broker.memory import AlarmListener, Memory
from broker.queue import Queue
from broker.security.access import OPEN
from broker.security.quotas import Quotas
from broker.unsettled import Unsettled
from broker.virtualhost import VirtualHost
from broker.xa import Branches
from store.journal import LogListener, Scheduler, Store, StoreDamaged, StoredEntry, StoreError

logger = logging.getLogger(__name__)


class AutoCreate:
    """What to make of a name that somebody uses and nobody has declared. pattern: as file names have them; kind:
    "queue" or a kind of exchange."""

    __slots__ = ("pattern", "kind", "durable", "arguments")

    def __init__(self, pattern: str, kind: str, durable: bool, arguments: dict[str, Any]) -> None:
        self.pattern = pattern
        self.kind = kind
        self.durable = durable
        self.arguments = arguments


@mypyc_attr(allow_interpreted_subclasses=True)
class Watcher(AlarmListener):
    """What the broker tells the server that runs it."""

    def store_failed(self, reason: str) -> None:
        """The journal cannot be written any more: the broker must stop."""


class Broker(LogListener):
    """Everything that outlives a connection. `recover` must have run to its end before the first one."""

    def __init__(self, store: Store, scheduler: Scheduler, clock: Clock, alarm: Alarm, watcher: Watcher,
                 memory_limit: int, queue_memory_messages: int, queue_memory_bytes: int) -> None:
        """memory_limit, queue_memory_bytes: bytes; the latter and queue_memory_messages are what one queue keeps in
        memory. Raises: StoreError."""
        self.store = store
        self.clock = clock
        self.timers = Timers(clock, alarm)
        self.chores = Chores(scheduler)
        self.watcher = watcher
        self.memory = Memory(memory_limit, watcher)
        self.queue_memory_messages = queue_memory_messages
        self.queue_memory_bytes = queue_memory_bytes
        self.spilling: dict[Lane, None] = {}  # lanes whose newest entries are still in memory
        self.hosts: dict[str, VirtualHost] = {}
        self.management = Management(self)
        self.unsettled = Unsettled(store)
        self.policy = OPEN  # who may do what
        self.quotas = Quotas(clock)  # and how much
        self.auto_create: list[AutoCreate] = []
        self.branch_timeout = 0  # seconds that a distributed transaction has until it is prepared; 0 for any number
        self.branch_timeout_max = 0  # and the most that a client may ask for
        self.log = store.acquire(0, self)
        self.identity = ""  # its name towards other brokers, from the store
        self.durable_id = 0  # stored entries up to this id are durable

    def add_host(self, name: str) -> VirtualHost:
        """A virtual host, new or known. Raises: BrokerError for a name that cannot be."""
        if name in self.hosts:
            return self.hosts[name]
        if not name or "\0" in name or len(name.encode()) > 200:
            raise BrokerError(f"'{name}' cannot be a virtual host's name: it has 1 to 200 bytes and no NUL")
        host = self.hosts[name] = VirtualHost(self, name)
        host.branches = Branches(host)
        return host

    def host(self, name: str) -> VirtualHost:
        """Raises: NotFound."""
        host = self.hosts.get(name)
        if host is None:
            raise NotFound(f"vhost '{name}' not found")
        return host

    # Recovery.

    def recover(self) -> Iterator[None]:
        """Take up what the store has kept, for the virtual hosts there are; yields every now and then.

        Raises: StoreError when the store has things that this broker cannot take up.
        """
        settings = topology.saved(self.store)
        branches = [(branch_id, saved_branch(branch_id, record)) for branch_id, record in self.log.branches()]
        strangers = {saved.host for saved in settings} | {record["host"] for _, record in branches}
        strangers -= self.hosts.keys()
        if strangers:
            raise StoreError("the store has queues of virtual hosts that are not configured: "
                             + ", ".join(sorted(strangers)) + "; add them to virtual_hosts, or use another store")
        self.identity = topology.identity(self.store)
        numbers = {saved.value["id"] for saved in settings if saved.kind == topology.RECORDS}
        queues: dict[int, Queue] = {}
        for kind in (topology.EXCHANGE, topology.QUEUE, topology.BINDING, topology.HOLD):
            for saved in settings:
                if saved.kind == kind:
                    try:
                        self._recover_setting(saved, queues)
                    except (KeyError, TypeError, BrokerError) as error:
                        raise StoreDamaged(f"{kind} '{saved.name}' of vhost '{saved.host}' in the store makes no "
                                           f"sense ({error}); run 'dragoman store check' on it") from None
        yield
        for lanes in self.log.recover(queues.keys() | {branch_id for branch_id, _ in branches} | numbers):
            yield
            for found in lanes or ():
                queue = queues.get(found.queue_id)
                if queue is None:  # messages of a branch
                    continue
                number = min(found.lane, len(queue.lanes) - 1)
                queue.lanes[number].recovered(found.count, found.size, found.first_id, found.last_id)
                queue.ready += found.count
                queue.ready_bytes += found.size
                counters = queue.counters
                counters.enqueued += found.count
                counters.enqueued_bytes += found.size
                counters.persisted += found.count
                counters.persisted_bytes += found.size
        self.durable_id = self.log.last_id
        for queue in queues.values():
            queue.suspect_id = 0 if self.log.clean else self.log.last_id
            if queue.ordered is not None:
                yield from queue.ordered.rebuild()
        for branch_id, record in branches:  # what they have acquired is to be out of the way before anything happens
            yield from self.hosts[record["host"]].branches.take_up(branch_id, record, queues)
        for queue in queues.values():
            queue.recovered()
        for host in self.hosts.values():
            for exchange in host.exchanges.values():
                if isinstance(exchange, DelayedExchange):
                    yield from exchange.hold.recover()
            if host.postponed is not None:
                yield from host.postponed.recover()

    def _recover_setting(self, saved: topology.Saved, queues: dict[int, Queue]) -> None:
        host = self.hosts[saved.host]
        if saved.kind == topology.EXCHANGE:
            host.recover_exchange(saved)
            exchange = host.exchanges[saved.name]
            if isinstance(exchange, DelayedExchange):
                queues[exchange.hold.queue.queue_id] = exchange.hold.queue
        elif saved.kind == topology.QUEUE:
            queue = host.recover_queue(saved)
            queues[queue.queue_id] = queue
        elif saved.kind == topology.HOLD:
            held = host.hold_postponed(saved.value["id"]).queue
            queues[held.queue_id] = held
        else:
            host.recover_binding(saved)

    # What the log tells.

    def durable(self, entries: list[StoredEntry]) -> None:
        last_id = 0
        for entry in entries:
            last_id = entry.id
            if not entry.flags:
                assert isinstance(entry, Entry)
                message = entry.message
                if message is not None:
                    message.settle_pending()
        self.durable_id = max(self.durable_id, last_id)
        for lane in list(self.spilling):
            lane.queue.spill(lane, last_id)
            if not lane.recent:
                del self.spilling[lane]

    def store_full(self, full: bool, reason: str) -> None:
        if full:
            logger.error("the store is full, publishers are held: %s", reason)
            self.memory.set_alarm("store", reason)
        else:
            logger.warning("the store has room again")
            self.memory.clear_alarm("store")

    def store_failed(self, reason: str) -> None:
        self.watcher.store_failed(reason)

    def close(self) -> None:
        """Write out what must be kept and let go of the store."""
        self.chores.finish()
        self.store.close()
