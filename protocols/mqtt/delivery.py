"""What a session sends to its client: packet ids, the window, QoS 1 and 2, and what is sent again (4.3, 4.4, 4.9).

Entries wait in the session's queue until they are acknowledged; a client that goes leaves them there, in their places,
and gets them again with the packet ids that it knows. Of QoS 2 the journal keeps under the queue's number

    "o" packet id -> entry id    from before PUBLISH is sent until PUBREC has come
    "o" packet id -> ""          then the message is gone, in the same batch, until PUBCOMP has come

so a broker that was killed takes up each exchange where it was. PUBREL waits until the second is durable, or else the
message could be sent anew after the client has forgotten the first.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import TYPE_CHECKING, Final

from broker.consumer import Consumer
from broker.entry import Entry
from broker.message import MQTT, Message
from broker.queue import Queue
from protocols.mqtt.content import client_id, qos
from protocols.mqtt.errors import PACKET_ID_NOT_FOUND, SUCCESS
from protocols.mqtt.frames import V5
from protocols.mqtt.packets import DUP, Aliases, prepared, seconds_left
from protocols.mqtt.subscriptions import SYSTEM_EXCHANGE, Match, Subscription
from protocols.topics import EXCHANGE

if TYPE_CHECKING:
    from protocols.mqtt.connection import Connection
    from protocols.mqtt.session import Session

OUTBOUND: Final = b"o"
_PUBREC: Final = 0x50
_PUBREL: Final = 0x62
_FAILED: Final = 0x80
RETAINED_EXCHANGE: Final = "amq.mqtt.retained"
"""What retained messages are said to come by when they are sent for a new subscription."""


class Delivery:
    """A message that is on its way to the client, until it is acknowledged."""

    __slots__ = ("entry", "message", "packet_id", "first", "identifiers", "sent")

    def __init__(self, entry: Entry, message: Message, packet_id: int, first: int, identifiers: bytes) -> None:
        self.entry = entry
        self.message = message
        self.packet_id = packet_id
        self.first = first  # the packet's first byte
        self.identifiers = identifiers  # of subscriptions, as properties
        self.sent = True  # False: it waits for the journal


class SessionConsumer(Consumer):
    """Takes entries from the session's own queue, or from one that it shares (shared: that subscription)."""

    __slots__ = ("outbound", "shared", "match", "starved")

    def __init__(self, outbound: Outbound, queue: Queue, shared: Subscription | None) -> None:
        super().__init__(queue, outbound.session.client_id, 0, False, True)
        self.outbound = outbound
        self.shared = shared
        self.match = None if shared is None else Match([shared])
        self.starved = False

    def ready(self) -> bool:
        outbound = self.outbound
        connection = outbound.connection
        if connection is None or outbound.inflight >= outbound.window:
            return False
        if connection.clogged or connection.out_size > connection.full:
            if not self.starved:
                self.starved = True
                outbound.starved.append(self)
            return False
        return True

    def deliver(self, entry: Entry, message: Message) -> None:
        self.outbound.deliver(entry, message, self)

    def cancelled(self) -> None:
        self.outbound.session.cancelled(self)


class Outbound:
    """The sending half of a session; while it has a connection, it consumes."""

    __slots__ = ("session", "queue", "connection", "consumers", "starved", "window", "inflight", "on_their_way",
                 "releasing", "known", "special", "aliases", "largest", "level", "_known_entries", "_next_id",
                 "_waiting", "_client")

    def __init__(self, session: Session, queue: Queue) -> None:
        self.session = session
        self.queue = queue
        self.connection: Connection | None = None
        self.consumers: list[SessionConsumer] = []
        self.starved: list[SessionConsumer] = []  # those that wait for the socket
        self.window = 0  # the client's receive maximum
        self.inflight = 0  # what counts against it
        self.on_their_way: dict[int, Delivery] = {}  # by packet id: what was sent and is not acknowledged
        self.releasing: dict[int, bool] = {}  # by packet id: PUBREC has come; whether it counts against the window
        self.known: dict[int, int] = {}  # of entries sent to an earlier connection: packet id, and bit 16 for QoS 2
        self._known_entries: list[int] = []  # the same entries, in order
        self.special: dict[int, Subscription] = {}  # by entry id: what this subscription alone has brought
        self.aliases: Aliases | None = None
        self.largest = 0  # bytes of a packet that the client takes; 0 for any number
        self.level = V5
        self._next_id = 0
        self._waiting: deque[tuple[Connection, int, int]] = deque()  # what the journal was asked for: and its step
        self._client = session.client_id.encode()

    def recover(self, records: list[tuple[bytes, bytes]]) -> None:
        """Take up what the journal has kept of this session's exchanges."""
        for key, value in records:
            if key[:1] != OUTBOUND or len(key) != 3:
                continue
            packet_id = key[1] << 8 | key[2]
            if value:
                self._remember(int.from_bytes(value, "big"), packet_id | 1 << 16)
            else:
                self.releasing[packet_id] = False

    def _remember(self, entry_id: int, code: int) -> None:
        self.known[entry_id] = code
        insort(self._known_entries, entry_id)

    # A client comes and goes.

    def attach(self, connection: Connection, window: int, largest: int, aliases: int) -> None:
        """Send to this client from now on. aliases: the most topic aliases that it takes."""
        self.connection = connection
        self.level = connection.level
        self.window = window
        self.largest = largest
        self.aliases = Aliases(aliases) if aliases else None
        self.inflight = 0
        for packet_id in self.releasing:
            self.releasing[packet_id] = False
            self._acknowledge(_PUBREL, packet_id, SUCCESS)
        if self.known and self.session.durable:  # those of QoS 2 may not be durable yet
            self._waiting.append((connection, 0, 0))
            self.queue.log.commit(self._durable)
        else:
            self._begin()

    def _begin(self) -> None:
        self.add(self.queue, None)
        if self.known and not self.queue.ready and self.connection is not None:
            self._lost_before(0)

    def add(self, queue: Queue, shared: Subscription | None) -> None:
        """Consume from a queue, too."""
        consumer = SessionConsumer(self, queue, shared)
        self.consumers.append(consumer)
        queue.add(consumer)

    def remove(self, shared: Subscription) -> None:
        """A shared subscription is over: what of it is on its way stays so."""
        for consumer in self.consumers:
            if consumer.shared is not None and consumer.shared.text == shared.text:
                self.consumers.remove(consumer)
                consumer.queue.remove(consumer)
                return

    def detach(self) -> None:
        """The client is gone. What it has not acknowledged goes back to its place; what others may have is theirs."""
        self.connection = None
        for consumer in self.consumers:
            consumer.queue.remove(consumer)
        self.consumers.clear()
        self.starved.clear()
        deliveries = list(self.on_their_way.values())
        self.on_their_way.clear()
        deliveries.reverse()  # the nearer to the head, the later it is given back: so each finds its place at once
        others: dict[Queue, None] = {}
        for delivery in deliveries:
            entry = delivery.entry
            if entry.queue is self.queue:
                self._remember(entry.id, delivery.packet_id | (1 << 16 if delivery.first & 4 else 0))
            else:
                others[entry.queue] = None
            entry.queue.release(entry, False)
        others[self.queue] = None
        for queue in others:
            queue.dispatch()

    def unsettled(self) -> int:
        return len(self.on_their_way) + len(self.releasing)

    def drained(self) -> None:
        """The socket has room again."""
        starved, self.starved = self.starved, []
        for consumer in starved:
            consumer.starved = False
            consumer.queue.wake(consumer)

    def _wake(self) -> None:
        for consumer in self.consumers:
            if consumer.parked and not consumer.starved:
                consumer.queue.wake(consumer)

    # Messages.

    def deliver(self, entry: Entry, message: Message, consumer: SessionConsumer) -> None:
        """Send an entry, or be done with it when it is not for this client."""
        queue = entry.queue
        exchange = message.address.exchange
        if message.dialect != MQTT:
            message = message.translated(MQTT)
        shared = consumer.shared
        code = 0
        if self.known and shared is None:
            self._lost_before(entry.id)
            code = self.known.pop(entry.id, 0)
            if code:
                self._known_entries.pop(0)
        wanted = qos(message.native)
        identifiers = b""
        first = 0x30
        match: Match | None = None
        if shared is not None:
            match = consumer.match
        elif self.special and entry.id in self.special:
            match = Match([self.special.pop(entry.id)])
        elif exchange == EXCHANGE or exchange == SYSTEM_EXCHANGE or exchange == RETAINED_EXCHANGE:
            match = self.session.subscriptions.match(message.address.routing_key)
            if match is not None and match.selective and client_id(message.native) == self._client:
                match = match.own
            if match is None and not code:
                queue.accept(entry)
                return
        if match is not None:
            wanted = min(wanted, match.qos)
            identifiers = match.identifiers
            if exchange == RETAINED_EXCHANGE or match.retain_as_published and message.native[0] & 1:
                first = 0x31
        if code:
            wanted = 2 if code >> 16 else 1
        if wanted == 0:
            self._send(message, first, 0, identifiers)
            queue.accept(entry)
        elif wanted == 1:
            self._send_first(entry, message, first | 2, identifiers, code)
        elif shared is not None:
            self._take_over(entry, message, shared)
        else:
            self._send_first(entry, message, first | 4, identifiers, code)

    def _send_first(self, entry: Entry, message: Message, first: int, identifiers: bytes, code: int) -> None:
        """Send an entry of QoS 1 or 2. code: of `known`, 0 when it was not sent yet."""
        if code:
            packet_id = code & 0xFFFF
            first |= DUP
        else:
            packet_id = self._free_id()
            if first & 2 and entry.redelivered:
                first |= DUP
        delivery = Delivery(entry, message, packet_id, first, identifiers)
        if first & 4 and not code and self.session.durable:
            delivery.sent = False
            self.on_their_way[packet_id] = delivery
            self.inflight += 1
            log = self.queue.log
            log.keep_record(self.queue.queue_id, _record_key(packet_id), entry.id.to_bytes(8, "big"))
            connection = self.connection
            assert connection is not None
            self._waiting.append((connection, packet_id, entry.id))
            log.commit(self._durable)
        elif self._send(message, first, packet_id, identifiers):
            self.on_their_way[packet_id] = delivery
            self.inflight += 1
        else:
            self._drop(delivery)

    def _drop(self, delivery: Delivery) -> None:
        """The client does not take so large a packet: for it, the message has been sent (3.1.2.11.4)."""
        self._forget_record(delivery.packet_id, delivery.first)
        delivery.entry.queue.accept(delivery.entry)

    def _take_over(self, entry: Entry, message: Message, shared: Subscription) -> None:
        """A message of QoS 2 from a shared queue is this session's for good (4.8.2), so it moves to its own queue."""
        queue = self.queue
        self.special[queue.log.last_id + 1] = shared
        queue.enqueue(message if entry.message is None else entry.message)
        entry.queue.accept(entry)

    def _send(self, message: Message, first: int, packet_id: int, identifiers: bytes) -> bool:
        """Write a PUBLISH. False: it is larger than the client takes."""
        connection = self.connection
        assert connection is not None
        ready = prepared(message)
        if ready.too_large:
            return False
        level = self.level
        tail = ready.tail
        whole = packet_id == 0
        if level < V5:
            head = ready.head(first, level)
            tail = ready.payload
        elif identifiers or ready.expires or self.aliases is not None:
            topic = ready.topic
            alias = 0
            if self.aliases is not None:
                topic, alias = self.aliases.use(topic)
            head, tail = ready.special(first, seconds_left(message, self.queue.clock.now), identifiers, topic, alias)
            if whole:
                head += tail
        else:
            head = ready.head(first, level)
        size = len(head) + ready.size
        if not whole:
            size += 2 + len(tail)
        if self.largest and size > self.largest:
            return False
        out = connection.out
        out.append(head)
        if not whole:
            out.append(bytes([packet_id >> 8, packet_id & 255]))
            out.append(tail)
        if ready.body is not None:
            out.extend(ready.body)
        connection.out_size += size
        connection.messages_out += 1
        if not connection.flushing:
            connection.want_flush()
        return True

    def _free_id(self) -> int:
        """A packet id that is not in use. There are always some: a window has at most 65535, and sessions that left
        more behind than that are sent the rest when those are done."""
        packet_id = self._next_id
        while True:
            packet_id = packet_id % 65535 + 1
            if packet_id not in self.on_their_way and packet_id not in self.releasing \
                    and (not self.known or not self._is_known(packet_id)):
                self._next_id = packet_id
                return packet_id

    def _is_known(self, packet_id: int) -> bool:
        for code in self.known.values():
            if code & 0xFFFF == packet_id:
                return True
        return False

    def _lost_before(self, entry_id: int) -> None:
        """Of what the client got earlier, the messages before this entry (0: all) are gone: purged, or expired. The
        client is to forget those of QoS 2, whose packet ids mean something else for it until it has."""
        entries = self._known_entries
        while entries and (not entry_id or entries[0] < entry_id):
            code = self.known.pop(entries.pop(0))
            packet_id = code & 0xFFFF
            if code >> 16:
                self.releasing[packet_id] = False
                if self.session.durable:
                    self.queue.log.keep_record(self.queue.queue_id, _record_key(packet_id), b"")
                self._acknowledge(_PUBREL, packet_id, SUCCESS)

    # The journal has it.

    def _durable(self) -> None:
        """The next step that waited for the journal, in the order in which they were asked for: to begin, to send a
        PUBLISH (of an entry), or a PUBREL."""
        connection, packet_id, entry_id = self._waiting.popleft()
        if connection is not self.connection:
            return
        if not packet_id:
            self._begin()
        elif not entry_id:
            if packet_id in self.releasing:
                self._acknowledge(_PUBREL, packet_id, SUCCESS)
        else:
            delivery = self.on_their_way.get(packet_id)
            if delivery is not None and delivery.entry.id == entry_id:
                delivery.sent = True
                if not self._send(delivery.message, delivery.first, packet_id, delivery.identifiers):
                    del self.on_their_way[packet_id]
                    self._one_less()
                    self._drop(delivery)

    def _forget_record(self, packet_id: int, first: int) -> None:
        if first & 4 and self.session.durable:
            self.queue.log.forget_record(self.queue.queue_id, _record_key(packet_id))

    # Acknowledgements.

    def puback(self, packet_id: int, reason: int) -> None:
        delivery = self.on_their_way.get(packet_id)
        if delivery is None or delivery.first & 4:
            return  # of something that is over
        del self.on_their_way[packet_id]
        entry = delivery.entry
        if reason < _FAILED:
            entry.queue.accept(entry)
        else:
            entry.queue.reject(entry)
        self._one_less()

    def pubrec(self, packet_id: int, reason: int) -> None:
        delivery = self.on_their_way.get(packet_id)
        if delivery is None or not delivery.first & 4 or not delivery.sent:
            if reason < _FAILED:
                self._acknowledge(_PUBREL, packet_id, SUCCESS if packet_id in self.releasing else PACKET_ID_NOT_FOUND)
            return
        del self.on_their_way[packet_id]
        entry = delivery.entry
        if reason >= _FAILED:
            self._forget_record(packet_id, delivery.first)
            entry.queue.reject(entry)
            self._one_less()
            return
        entry.queue.accept(entry)
        self.releasing[packet_id] = True
        if not self.session.durable:
            self._acknowledge(_PUBREL, packet_id, SUCCESS)
            return
        log = self.queue.log
        log.keep_record(self.queue.queue_id, _record_key(packet_id), b"")
        connection = self.connection
        assert connection is not None
        self._waiting.append((connection, packet_id, 0))
        log.commit(self._durable)

    def pubcomp(self, packet_id: int) -> None:
        counted = self.releasing.pop(packet_id, None)
        if counted is None:
            return
        self._forget_record(packet_id, 4)
        if counted:
            self._one_less()

    def _one_less(self) -> None:
        if self.inflight:
            self.inflight -= 1
        if self.inflight < self.window:
            self._wake()

    def _acknowledge(self, first: int, packet_id: int, reason: int) -> None:
        connection = self.connection
        if connection is not None:
            connection.write(acknowledgement(first, packet_id, reason, self.level))


def acknowledgement(first: int, packet_id: int, reason: int, level: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7). first: its first byte; before MQTT 5 they have no reason."""
    if reason and level >= V5:
        return bytes([first, 3, packet_id >> 8, packet_id & 255, reason])
    return bytes([first, 2, packet_id >> 8, packet_id & 255])


def _record_key(packet_id: int) -> bytes:
    return OUTBOUND + packet_id.to_bytes(2, "big")
