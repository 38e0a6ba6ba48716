"""The queue: entries in order, consumers that take them, and the policies of its arguments.

An entry is available, then acquired by a consumer, then gone: accepted, dead-lettered, or given back to be available
again in its old place. Settlement has one vocabulary for all dialects: `accept`, `reject`, `release`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from broker.alternate import bequeath, to_alternate
from broker.consumer import Consumer
from broker.consumers import Consumers
from broker.emptying import drop_available, forget_all
from broker.entry import ACQUIRED, AVAILABLE, GONE, Entry
from broker.errors import AccessRefused, ResourceLocked
from broker.expiry import Expiry, bounded
from broker.groups import groups_of
from broker.keeper import Keeper
from broker.lane import Lane
from broker.lifetime import idle_of, lifetime_of
from broker.limits import limits_of
from broker.message import Message, restore
from broker.ownership import claim_of
from broker.priorities import Levels
from broker.queue_settings import QueueSettings
from broker.sorted import lane_in_order
from broker.totals import Counters
from store.journal import TRANSIENT, StoreDamaged

if TYPE_CHECKING:
    from broker.security.quotas import Party
    from broker.virtualhost import VirtualHost

logger = logging.getLogger(__name__)

FEW = 100
"""Entries that a queue keeps in memory when memory is tight."""

_TO_ALTERNATE = ("rejected", "delivery_limit")
"""Of what a queue gives up, what its alternate gets."""

LOCKED = ("cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the "
          "exclusive property value does not match that of the original declaration.")


class Queue:
    """One queue of a virtual host. Only its virtual host makes and deletes queues."""

    def __init__(self, host: VirtualHost, name: str, queue_id: int, durable: bool, exclusive: bool, auto_delete: bool,
                 arguments: dict[str, Any], settings: QueueSettings, owner: object | None) -> None:
        self.host = host
        self.name = name
        self.queue_id = queue_id
        self.durable = durable  # it, and its durable messages, survive the broker
        self.exclusive = exclusive
        self.auto_delete = auto_delete
        self.arguments = arguments
        self.settings = settings
        self.owner = owner  # the connection that an exclusive queue belongs to
        self.party: Party | None = None  # in whose limits it counts
        self.log = host.broker.log
        self.memory = host.broker.memory
        self.clock = host.broker.clock
        self.keep_messages = host.broker.queue_memory_messages
        self.keep_bytes = host.broker.queue_memory_bytes
        self.ordered = lane_in_order(self, settings)
        levels = Levels(settings)
        self.lowest_priority = levels.lowest
        self.highest_level = levels.highest
        self.fair_share = levels.fair_share
        self.lanes: list[Lane] = [self.ordered] if self.ordered is not None else [
            Lane(self, number) for number in range(levels.highest + 1)]
        self.ready = 0  # available entries
        self.ready_bytes = 0
        self.unsettled = 0  # acquired entries
        self.unsettled_bytes = 0
        self.bounds_expiry = settings.message_ttl >= 0 or settings.minimum_ttl >= 0
        self.keeps = durable and settings.message_durability != "never"  # durable messages, at least, survive
        self.keeps_all = settings.message_durability == "always"
        self.dropped = False  # the journal has been told to forget it
        self.returning = 0  # chores that give entries back: until they have, nothing goes out
        self.suspect_id = 0  # entries up to this id were here before a crash: somebody may have seen them
        self.deleted = False
        self.goes_with_owner = False
        self.keeper: Keeper | None = None  # what the queue is a part of
        self.hidden = False  # it is the broker's own: users do not see it
        self.created = self.clock.now  # ms since the epoch; after a restart, the time of that
        self.counters = Counters()
        self.peer: Queue | None = None  # that new messages go to instead, and whose new ones come here
        self.redirects = False  # somebody has asked that of this one of the two
        self.consumers = Consumers(self)
        self.groups = groups_of(self, settings)
        self.limits = limits_of(self, settings)
        self.claim = claim_of(self, settings.exclusivity)
        self.lifetime = lifetime_of(self, auto_delete, settings)
        self.expiry = Expiry(self)
        self.idle = idle_of(self, settings)
        self.used()

    def __repr__(self) -> str:
        return f"queue '{self.name}' in vhost '{self.host.name}'"

    # Entries come in.

    def enqueue(self, message: Message) -> bool:
        """Put a message in the queue, and deliver it if a consumer is ready. False: refused, the queue is full."""
        if self.keeper is not None and not self.keeper.wants(message):
            return True
        limits = self.limits
        if limits is not None:
            if limits.is_own() or limits.has_had(message) or (limits.traces and limits.excludes(message)):
                return True
            if not limits.admits(message):
                self.counters.overflows += 1
                return False
            if limits.traces:
                message = limits.traced(message)
        counters = self.counters
        counters.enqueued += 1
        counters.enqueued_bytes += message.size
        log = self.log
        log.last_id += 1
        lane = 0
        if self.highest_level:
            lane = max(0, min(message.priority - self.lowest_priority, self.highest_level))
        expiry = message.expiry
        if self.bounds_expiry:
            expiry = bounded(expiry, self.settings, self.clock.now)
        entry = Entry(self, message, self.queue_id, lane, log.last_id, message.message_id, message.size, expiry, 0, 0)
        self.memory.hold(message)
        if self.keeps and (message.durable or self.keeps_all):
            message.pending += 1
            counters.persisted += 1
            counters.persisted_bytes += entry.size
            self.store(entry, message)
        if self.ordered is not None:
            self.ordered.arrived(entry, message)
        if self.ready == 0 and not self.returning and not self.consumers.cursors \
                and not self.consumers.weighing:
            consumer = self.consumers.pick()
            if consumer is not None:
                self._hand(entry, message, consumer)
                if limits is not None:
                    limits.added(message)
                return True
        self._keep(entry, message)
        if limits is not None:
            limits.added(message)
        return True

    def store(self, entry: Entry, message: Message) -> None:
        """Have the journal keep an entry and its message."""
        if message.message_id == 0:
            message.message_id = self.log.new_message_id(message.shared)
        entry.message_id = message.message_id
        entry.stored = True
        self.log.enqueue(entry, message)

    def _keep(self, entry: Entry, message: Message) -> None:
        """The entry has to wait: in memory or, when there are many, in the journal."""
        lane = self.lanes[entry.lane]
        if self.log.paging and (lane.paged() or self._crowded(lane)):
            if not entry.stored:
                entry.flags = TRANSIENT
                self.store(entry, message)
            lane.append_paged(entry)
            self.host.broker.spilling[lane] = None
        else:
            lane.append(entry)
        self.ready += 1
        self.ready_bytes += entry.size
        if entry.expiry:
            self.expiry.expect(entry.expiry)
        if self.limits is not None:
            self.limits.drop_heads()
        if self.consumers.available or self.consumers.searching:
            self.dispatch()

    def _crowded(self, lane: Lane) -> bool:
        count = lane.in_memory()
        if count < FEW:
            return False
        return (count >= self.keep_messages or self.ready_bytes - lane.tail_size > self.keep_bytes
                or self.memory.used > self.memory.tight)

    def drop_head(self) -> bool:
        """Dead-letter the oldest available entry, there being too many. False: there was none."""
        entry = self._take_any()
        if entry is None:
            return False
        self.give_up(entry, "maxlen")
        return True

    def drop_lowest(self) -> bool:
        """Likewise, the oldest of the lowest priority."""
        for lane in self.lanes:
            entry = lane.take(self.log)
            if entry is not None:
                self.ready -= 1
                self.ready_bytes -= entry.size
                self.give_up(entry, "maxlen")
                return True
        return False

    def recovered(self) -> None:
        """The journal's entries are counted."""
        self.used()
        if self.limits is not None:
            self.limits.recovered()
        if self.ready:
            self.expiry.drop_heads()

    def spill(self, lane: Lane, last_id: int) -> None:
        """Entries of a paged lane up to last_id are durable: let go of what need not be in memory."""
        for entry in lane.spill(last_id):
            self.unload(entry)

    def lost_tail(self, count: int, size: int) -> None:
        """The journal has fewer entries than were counted; never expected, so said loudly."""
        logger.error("%r: %d entries are missing from the store; run 'dragoman store check' on it", self, count)
        self.ready -= count
        self.ready_bytes -= size

    def dequeued(self) -> int:
        """Messages that have gone, for whatever reason, since the broker was started."""
        return self.counters.enqueued - self.ready - self.unsettled

    def dequeued_bytes(self) -> int:
        return self.counters.enqueued_bytes - self.ready_bytes - self.unsettled_bytes

    # Entries go out.

    def dispatch(self) -> None:
        """Deliver while there are both entries and ready consumers."""
        while self.ready > 0 and not self.returning:
            if self.consumers.searching and self._search():
                continue
            consumer = self.consumers.pick()
            if consumer is None:
                return
            entry = self.take()
            if entry is None:
                return
            message = entry.message
            if message is not None:
                self._hand(entry, message, consumer)

    def _search(self) -> bool:
        """Give each ready choosy consumer the next entry that it wants, and then another one his turn. False: there
        was nothing."""
        found = False
        for cursor in self.consumers.turn():
            entry = cursor.find()
            if entry is None:
                continue
            found = True
            message = entry.message
            assert message is not None
            consumer = cursor.consumer
            if consumer.browses:
                consumer.delivered += 1
                consumer.deliver(entry, message)
                if cursor.loaded:
                    self.unload(entry)
                continue
            self.lanes[entry.lane].pluck(entry, cursor.from_tail)
            self.ready -= 1
            self.ready_bytes -= entry.size
            self._hand(entry, message, consumer)
        if found and self.ready and self.consumers.available:
            consumer_in_turn = self.consumers.pick()
            entry = self.take() if consumer_in_turn is not None else None
            if consumer_in_turn is not None and entry is not None and entry.message is not None:
                self._hand(entry, entry.message, consumer_in_turn)
        return found

    def get(self) -> Entry | None:
        """Acquire the oldest entry for somebody who is no consumer. Raises: AccessRefused when nobody may."""
        if self.settings.browse_only:
            raise AccessRefused(f"{self!r} is for browsing only: consume from it to look at its messages")
        self.used()
        entry = self.take() if not self.returning else None
        if entry is not None:
            entry.state = ACQUIRED
            self.unsettled += 1
            self.unsettled_bytes += entry.size
        return entry

    def _hand(self, entry: Entry, message: Message, consumer: Consumer) -> None:
        if self.groups is not None:
            self.groups.acquired(entry, message, consumer)
        consumer.delivered += 1
        if consumer.settles:
            entry.consumer = consumer
            entry.state = ACQUIRED
            self.unsettled += 1
            self.unsettled_bytes += entry.size
            consumer.deliver(entry, message)
        else:
            consumer.deliver(entry, message)
            self.forget(entry)
            if self.groups is not None:
                self.groups.settled(entry)

    def first(self) -> Entry | None:
        """The entry that is next to be delivered, left in its place; its message is perhaps not loaded."""
        for number in range(len(self.lanes) - 1, -1, -1):
            entry = self.lanes[number].first(self.log)
            if entry is not None:
                return entry
        return None

    def _take_any(self) -> Entry | None:
        """The next entry in order of priority and age, its message perhaps not loaded."""
        lanes = self.lanes
        if len(lanes) == 1:
            entry = lanes[0].take(self.log)
        elif self.fair_share is not None:
            entry = self.fair_share.take(lanes, self.log)
        else:
            entry = None
            for number in range(len(lanes) - 1, -1, -1):
                entry = lanes[number].take(self.log)
                if entry is not None:
                    break
        if entry is not None:
            self.ready -= 1
            self.ready_bytes -= entry.size
        return entry

    def take(self) -> Entry | None:
        """The next entry that has not expired, with its message."""
        while True:
            entry = self._take_any()
            if entry is None:
                return None
            if entry.expiry and entry.expiry <= self.clock.now:
                self.give_up(entry, "expired")
            elif entry.message is not None or self.load(entry):
                return entry

    def load(self, entry: Entry) -> bool:
        """Read the entry's message from the journal. False: it cannot be had, and the entry is dropped."""
        try:
            data = self.log.read(entry.message_id)
            message = restore(data, entry.message_id, entry.size, entry.expiry)
        except (KeyError, StoreDamaged) as error:
            logger.error("%r: a message is lost, the store cannot give it: %s; run 'dragoman store check' on it",
                         self, error)
            self.forget(entry)
            return False
        entry.message = message
        self.memory.hold(message)
        return True

    def unload(self, entry: Entry) -> None:
        """Let go of the message of an entry that is durable; `load` gets it back."""
        message = entry.message
        if message is not None and self.log.paging:
            entry.message = None
            self.memory.release(message)

    # Entries are settled.

    def accept(self, entry: Entry) -> None:
        """The consumer is done with it."""
        if entry.state == ACQUIRED:
            self.unsettled -= 1
            self.unsettled_bytes -= entry.size
            self.forget(entry)
            if entry.group is not None:
                self._leave_group(entry)

    def reject(self, entry: Entry) -> None:
        """The consumer does not want it, and nobody shall have it: to the dead-letter exchange, if there is one."""
        if entry.state == ACQUIRED:
            self.unsettled -= 1
            self.unsettled_bytes -= entry.size
            self.give_up(entry, "rejected")
            if entry.group is not None:
                self._leave_group(entry)

    def _leave_group(self, entry: Entry) -> None:
        """An entry is settled: if its group is free now, others may have what they had to leave."""
        if self.groups is not None and self.groups.settled(entry):
            self.dispatch()

    def release(self, entry: Entry, failed: bool) -> None:
        """The consumer gives it back to its place; `failed` counts as a delivery that did not succeed."""
        if entry.state != ACQUIRED:
            return
        self.unsettled -= 1
        self.counters.releases += 1
        self.unsettled_bytes -= entry.size
        entry.consumer = None
        entry.redelivered = True
        if self.groups is not None:
            self.groups.settled(entry)
        if self.deleted or self.ordered is not None and self.ordered.outdated(entry):
            if self.deleted and entry.message is not None:
                to_alternate(self, entry.message)
            self.forget(entry)
            return
        if failed:
            entry.deliveries = min(entry.deliveries + 1, 65535)
            if 0 <= self.settings.delivery_limit < entry.deliveries:
                self.give_up(entry, "delivery_limit")
                return
            if entry.stored:
                self.log.delivered(entry)
        entry.state = AVAILABLE
        lane = self.lanes[entry.lane]
        if entry.stored and entry.id <= self.host.broker.durable_id and self._crowded(lane):
            self.unload(entry)
        lane.give_back(entry)
        for cursor in self.consumers.cursors:
            cursor.given_back(entry)
        self.ready += 1
        self.ready_bytes += entry.size
        if entry.expiry:
            self.expiry.expect(entry.expiry)
        if self.limits is not None:
            self.limits.drop_heads()

    def give_up(self, entry: Entry, reason: str) -> None:
        """An entry that was taken is gone, to be a dead letter if the queue has somewhere for those."""
        self.counters.discard(reason, 1)
        if self.settings.dead_letter_exchange is not None and not self.deleted:
            if entry.message is None and not self.load(entry):
                return
            assert entry.message is not None
            self.host.dead_letter(self, entry.message, reason)
        elif self.settings.alternate is not None and reason in _TO_ALTERNATE and not self.deleted:
            if entry.message is None and not self.load(entry):
                return
            assert entry.message is not None
            to_alternate(self, entry.message)
        self.forget(entry)

    def forget(self, entry: Entry) -> None:
        """The entry is gone: from the journal and from memory."""
        entry.state = GONE
        message = entry.message
        if entry.stored:
            if not entry.flags:
                self.counters.unpersisted += 1
                self.counters.unpersisted_bytes += entry.size
            if not self.dropped and self.log.dequeue(entry) and not entry.flags and message is not None:
                message.settle_pending()
        if message is not None:
            self.memory.release(message)
        if self.ordered is not None:
            self.ordered.gone(entry)
        if self.limits is not None:
            self.limits.left()

    def drop(self, entry: Entry, reason: str) -> None:
        """An available entry that was taken out of its lane is gone."""
        self.counters.discard(reason, 1)
        self.ready -= 1
        self.ready_bytes -= entry.size
        self.forget(entry)

    def purge(self) -> int:
        """Drop all available entries; they are no dead letters. Gives their number."""
        return drop_available(self)

    # Consumers.

    def check_access(self, owner: object | None) -> None:
        """Raises: ResourceLocked when the queue belongs to somebody else."""
        if self.owner is not None and self.owner is not owner:
            raise ResourceLocked(LOCKED.format(repr(self)))
        if self.claim is not None and owner is not None and not self.claim.admits():
            raise ResourceLocked(LOCKED.format(repr(self)))

    def add(self, consumer: Consumer) -> None:
        """Let a consumer take entries from now on. Raises: AccessRefused when one has the queue for itself;
        LimitReached."""
        if self.groups is not None:
            consumer.choosy = True
        if self.settings.exclusivity == "link":
            consumer.exclusive = True
        if self.settings.browse_only:
            consumer.browses = consumer.choosy = True
        filters = self.settings.filters
        if filters is not None:
            consumer.choose(filters.selector if consumer.selector is None else None,
                            -1 if consumer.since else filters.replay_period)
        self.consumers.add(consumer)
        if self.limits is not None:
            self.limits.consumer_came()
        self.used()
        self.host.broker.management.subscribed(self, consumer)
        self.wake(consumer)

    def remove(self, consumer: Consumer) -> None:
        """The consumer takes no more; what it has acquired it keeps until it settles it."""
        if not consumer.attached:
            return
        self.consumers.remove(consumer)
        self.host.broker.management.unsubscribed(self, consumer)
        if self.groups is not None and self.groups.left(consumer):
            self.dispatch()
        if self.settings.single_active and self.consumers.all:
            self.wake(self.consumers.all[0])
        self.used()
        if self.lifetime is not None:
            self.lifetime.consumer_left()

    def wake(self, consumer: Consumer) -> None:
        """A parked consumer may be ready again."""
        if not consumer.attached:
            return
        if not self.settings.single_active or consumer is self.consumers.all[0]:
            self.consumers.wake(consumer)
        if self.ready:
            self.dispatch()

    def refuse(self, entry: Entry, consumer: Consumer) -> None:
        """The consumer that has acquired the entry is not to see it again."""
        if entry.refusals is None:
            entry.refusals = set()
        entry.refusals.add(consumer)
        self.consumers.make_choosy(consumer)

    # The queue's own life.

    def used(self) -> None:
        """Somebody uses the queue: it does not expire for another while (x-expires)."""
        if self.lifetime is not None:
            self.lifetime.used()
        if self.idle is not None:
            self.idle.used()

    def orphaned(self) -> None:
        """Who had the queue for himself is gone, and it goes too: at once, or when its timeout is over."""
        self.owner = None
        if self.lifetime is not None and self.lifetime.timeout:
            self.lifetime.begin()
        else:
            self.host.delete_queue(self)

    def end_redirect(self) -> None:
        """New messages for this queue and its peer go to them again."""
        for queue in (self, self.peer):
            if queue is not None:
                queue.peer = None
                queue.redirects = False
        self.host.routes.clear()

    def close(self, inherited: bool) -> None:
        """The virtual host has deleted the queue: let go of everything, and tell the consumers. inherited: what is
        left goes to the queue's alternate."""
        self.deleted = True
        if self.peer is not None:
            self.end_redirect()
        self.expiry.close()
        if self.idle is not None:
            self.idle.close()
        if inherited:
            bequeath(self)
        else:
            self.drop_log()
            forget_all(self)
        if self.limits is not None:
            self.limits.close()
        if self.lifetime is not None:
            self.lifetime.close()
        for consumer in self.consumers.clear():
            consumer.cancelled()
        if self.keeper is not None:
            self.keeper.queue_closed()

    def drop_log(self) -> None:
        """The journal need not keep anything of the queue any more."""
        self.dropped = True
        self.log.drop(self.queue_id)
