"""Links on which clients receive: credit, deliveries in transfers, drain."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from broker.chores import Chores
from broker.consumer import Consumer
from broker.entry import Entry
from broker.message import AMQP10, Message
from broker.outcome import RELEASE
from broker.queue import Queue
from broker.returns import give_back
from broker.search import claim
from broker.values import UInt
from protocols.amqp10 import frames as f
from protocols.amqp10.errors import LINK, NOT_ALLOWED, RESOURCE_DELETED, ProtocolError
from protocols.amqp10.link import SENDER, Link
from protocols.amqp10.resume import read_unsettled, write_unsettled
from protocols.amqp10.sections import Scan, header, header_end, message_format
from protocols.amqp10.settlement import Settlement, settlement_of
from protocols.amqp10.subscriptions import Subscription
from protocols.amqp10.transactions import Work
from protocols.values10 import encode

if TYPE_CHECKING:
    from protocols.amqp10.session import Session

UNSETTLED: Final = 0
SETTLED: Final = 1
MIXED: Final = 2
"""Sender settle modes."""

_MASK: Final = 0xFFFFFFFF


class LinkConsumer(Consumer):
    """The consumer that a link is to its queue."""

    __slots__ = ("link",)

    def __init__(self, link: Outgoing, queue: Queue, tag: str, priority: int, exclusive: bool, settles: bool) -> None:
        super().__init__(queue, tag, priority, exclusive, settles)
        self.link = link
        self.quota = link.connection.quota

    def ready(self) -> bool:
        link = self.link
        if link.credit <= 0 or link.rest is not None or link.work is not None and link.work.over:
            return False
        session = link.session
        if session.remote_window <= 0 or self.settles and not session.may_send():
            if not link.stalled:
                link.stalled = True
                session.stalled.append(link)
            return False
        connection = link.connection
        if connection.clogged or connection.out_size > connection.full:
            if not link.starved:
                link.starved = True
                connection.starved.append(link)
            return False
        return True

    def wants(self, message: Message) -> bool:
        most = self.link.max_message_size
        return (not most or _size(message) <= most) and super().wants(message)

    def deliver(self, entry: Entry, message: Message) -> None:
        self.link.deliver(entry, message, self.settles)

    def searched(self) -> None:
        self.link.resume()

    def cancelled(self) -> None:
        self.link.fail(ProtocolError(RESOURCE_DELETED, f"{self.queue!r} was deleted", LINK))


class Rest:
    """What is still to be sent of a delivery that is too long for one go."""

    __slots__ = ("pieces", "at", "offset")

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.at = 0
        self.offset = 0

    def take(self, size: int) -> list[bytes]:
        """The next bytes, as many as there are up to `size`, in pieces."""
        taken: list[bytes] = []
        while size > 0 and self.at < len(self.pieces):
            piece = self.pieces[self.at]
            part = piece[self.offset:self.offset + size] if self.offset or len(piece) > size else piece
            taken.append(part)
            size -= len(part)
            self.offset += len(part)
            if self.offset >= len(piece):
                self.at += 1
                self.offset = 0
        return taken

    def over(self) -> bool:
        return self.at >= len(self.pieces)


class Outgoing(Link):
    """A link whose client receives from a queue."""

    def __init__(self, session: Session, m: dict[str, Any], queue: Queue, priority: int, settled: bool,
                 default_settlement: Settlement) -> None:
        super().__init__(session, m)
        self.role = SENDER
        self.credit = 0
        self.delivery_count = 0
        self.drain = False
        self.draining = False  # the client waits for the flow that ends a drain
        self.work: Work | None = None  # the transaction that its credit is for
        self.default_settlement = default_settlement
        self.max_message_size: int = m["max-message-size"]  # what its client takes, bytes; 0: anything
        self.subscription: Subscription | None = None
        self.rest: Rest | None = None
        self.left: list[Entry] = []  # unsettled, now that it is suspended
        self._resumed: list[tuple[Entry, Settlement]] = []  # to be sent again, or only their outcome
        self.consumer = LinkConsumer(self, queue, self.name, priority, False, not settled)
        handle = encode(UInt(self.handle))
        self._handle = handle
        self._settled = b"\x41" if settled else b"\x42"
        # A transfer that is a whole delivery: its tag is the entry's number, so it is known again after a restart.
        self._pack = Struct(f">IHH4sBB{len(handle)}sBIHQBs").pack
        self._size = 14 + len(handle) + 17

    def begin(self) -> None:
        """Take part in the queue. Raises: AccessRefused."""
        self.consumer.queue.add(self.consumer)

    # Credit.

    def flow(self, m: dict[str, Any]) -> None:
        identity = (m["properties"] or {}).get("txn-id")
        if identity is not None and not (isinstance(identity, bytes) and self.consumer.settles):
            raise ProtocolError(NOT_ALLOWED, "txn-id is no binary, or the link is pre-settled", LINK)
        self.work = None if identity is None else self.connection.transactions.get(identity)
        if m["link-credit"] is not None:
            count = m["delivery-count"] if m["delivery-count"] is not None else 0
            credit = (count + m["link-credit"] - self.delivery_count) & _MASK
            self.credit = credit if credit < 0x80000000 else 0
        self.drain = self.draining = m["drain"]
        self.resume()
        if m["echo"]:
            self._tell_credit()

    def resume(self) -> None:
        if not self.attached:
            return
        if not self._send_rest() or not self._send_resumed():
            return
        consumer = self.consumer
        if self.credit > 0 and consumer.parked:
            consumer.queue.wake(consumer)
        if self.draining and not self._sending() and (self.credit <= 0 or self._has_all()):
            self.draining = False
            self.delivery_count = (self.delivery_count + self.credit) & _MASK
            self.credit = 0
            self._tell_credit()

    def _has_all(self) -> bool:
        """The client has been given all that there is for it."""
        consumer = self.consumer
        return not self.starved and not self.stalled and not consumer.queue.returning \
            and (consumer.cursor is None or not consumer.cursor.unfinished)

    def _tell_credit(self) -> None:
        self.session.send_flow(self, **{
            "delivery-count": self.delivery_count, "link-credit": self.credit,
            "available": min(self.consumer.queue.ready, _MASK), "drain": self.drain})

    # Deliveries.

    def deliver(self, entry: Entry, message: Message, settles: bool) -> None:
        """Send a delivery."""
        session = self.session
        if message.dialect != AMQP10:
            message = message.translated(AMQP10)
        delivery_id = session.next_delivery_id
        session.next_delivery_id = (delivery_id + 1) & _MASK
        self.delivery_count = (self.delivery_count + 1) & _MASK
        self.credit -= 1
        if settles:
            session.unsettled[delivery_id] = entry
        native = message.native
        start = header_end(native)
        ttl = -1
        if message.expiry:
            ttl = self._ttl(message)
        head = header(message.durable, -1 if message.priority == 4 else message.priority, ttl, not entry.redelivered,
                      entry.deliveries)
        size = self._size + len(head) + len(native) - start
        connection = self.connection
        connection.messages_out += 1
        if message.body is not None or size > connection.peer_frame_max or native[2] == 0x6F or self.work is not None:
            self._begin_long(delivery_id, entry, message, head, start)
            return
        session.remote_window -= 1
        session.next_outgoing_id = (session.next_outgoing_id + 1) & _MASK
        out = connection.out
        out.append(self._pack(size, 0x0200, session.channel, b"\x00\x53\x14\xc0", self._size - 13, 5, self._handle,
                              0x70, delivery_id, 0xA008, entry.id, 0x43, self._settled))
        out.append(head)
        out.append(native[start:] if start else native)
        connection.out_size += size
        if not connection.flushing:
            connection.want_flush()

    def _ttl(self, message: Message) -> int:
        """What is left of the message's time to live, ms; -1 when it has none of its own."""
        start = message_format(message.native)[1]
        ttl = Scan(message.native[start:], False).ttl
        if ttl < 0:
            return -1
        return max(1, message.arrival + ttl - self.session.broker.clock.now)

    def _begin_long(self, delivery_id: int, entry: Entry, message: Message, head: bytes, start: int) -> None:
        number = message_format(message.native)[0]
        pieces = [head, message.native[start:], *(message.body or ())]
        self.rest = Rest(pieces)
        values: dict[str, Any] = {}
        if self.work is not None:  # acquired within a transaction (part 4, section 4.4.3)
            self.work.acquired.append((self.session, delivery_id))
            values["state"] = f.Encoded(f.TRANSACTIONAL_STATE.encode(**{"txn-id": self.work.identity}))
        self._send_frame(f.TRANSFER, {
            "handle": self.handle, "delivery-id": delivery_id, "delivery-tag": entry.id.to_bytes(8, "big"),
            "message-format": number, "settled": not self.consumer.settles, **values})
        self._send_rest()

    def _sending(self) -> bool:
        """Whether a delivery is under way."""
        return self.rest is not None

    def _send_rest(self) -> bool:
        """Go on with a delivery that is under way, as far as the session's window and the socket let us. Gives whether
        there is none any more."""
        session = self.session
        connection = self.connection
        while self._sending():
            if session.remote_window <= 0:
                if not self.stalled:
                    self.stalled = True
                    session.stalled.append(self)
                return False
            if connection.clogged or connection.out_size > connection.full:
                if not self.starved:
                    self.starved = True
                    connection.starved.append(self)
                return False
            self._send_frame(f.TRANSFER, {"handle": self.handle})
        return True

    def _send_frame(self, performative: f.Performative, values: dict[str, Any]) -> None:
        """One transfer, with as much of the rest as fits into a frame."""
        rest = self.rest
        assert rest is not None
        room = self.connection.peer_frame_max - 96
        parts = rest.take(room)
        over = rest.over()
        body = performative.encode(**values, more=None if over else True)
        size = f.HEADER_SIZE + len(body) + sum(map(len, parts))
        connection = self.connection
        connection.write(size.to_bytes(4, "big") + b"\x02\x00" + self.session.channel.to_bytes(2, "big") + body)
        for part in parts:
            connection.write(part)
        self.session.remote_window -= 1
        self.session.next_outgoing_id = (self.session.next_outgoing_id + 1) & _MASK
        if over:
            self.rest = None

    # Coming back.

    def take_up(self, former: Link | None, unsettled: Any) -> f.Encoded | None:
        """Go on with what the client holds for unsettled and we do too, or did before we were started anew: the tags
        are the entries' ids. What the client does not know any more goes back to its queue. Gives what is to be told
        to the client. Raises: Malformed."""
        states = {int.from_bytes(tag, "big"): state for tag, state in read_unsettled(unsettled).items()
                  if len(tag) == 8}
        queue = self.consumer.queue
        left: list[Entry] = []
        if isinstance(former, Outgoing):
            left, former.left = former.left, []
        mine = {entry.id: entry for entry in left if entry.queue is queue and entry.id in states}
        return_all([entry for entry in left if entry.id not in mine], self.session.broker.chores, False)
        for entry in claim(queue, [number for number in states if number not in mine], self.consumer):
            mine[entry.id] = entry
        told: list[tuple[bytes, bytes]] = []
        for number, entry in mine.items():
            entry.consumer = self.consumer
            told.append((number.to_bytes(8, "big"), b"\x40"))
            self._take_up_entry(entry, states[number])
        kept = write_unsettled(told)
        return None if kept is None else f.Encoded(kept)

    def _take_up_entry(self, entry: Entry, state: Any) -> None:
        try:
            settlement = settlement_of(state, self.connection.transactions)
        except ProtocolError:  # its transaction is gone, and with it what was decided
            settlement = settlement_of(None, self.connection.transactions)
        if settlement.outcome is None or settlement.work is not None:
            self._resumed.append((entry, settlement_of(None, self.connection.transactions)))
            return

        def durable() -> None:
            self._resumed.append((entry, settlement))
            self.resume()

        settlement.apply(entry)
        self.session.broker.log.commit(durable)

    def _send_resumed(self) -> bool:
        """Send again what the client has not decided about, and say what we have done about the others. Gives whether
        all is sent."""
        session = self.session
        while self._resumed and self.credit > 0:
            entry, settlement = self._resumed.pop(0)
            message = entry.message
            over = settlement.outcome is not None
            if not over and message is None:
                continue
            delivery_id = session.next_delivery_id
            session.next_delivery_id = (delivery_id + 1) & _MASK
            self.delivery_count = (self.delivery_count + 1) & _MASK
            self.credit -= 1
            values: dict[str, Any] = {"settled": over, "resume": True}
            if over or message is None:
                self.rest = Rest([])
                values["state"] = f.Encoded(settlement.state)
            else:
                session.unsettled[delivery_id] = entry
                message = message if message.dialect == AMQP10 else message.translated(AMQP10)
                start = header_end(message.native)
                head = header(message.durable, message.priority, -1, not entry.redelivered, entry.deliveries)
                self.rest = Rest([head, message.native[start:], *(message.body or ())])
                values["message-format"] = message_format(message.native)[0]
                values["state"] = f.Encoded(f.RECEIVED.encode(**{"section-number": 0, "section-offset": 0}))
            self._send_frame(f.TRANSFER, {
                "handle": self.handle, "delivery-id": delivery_id, "delivery-tag": entry.id.to_bytes(8, "big"),
                **values})
            if not self._send_rest():
                return False
        return True

    # The end.

    def let_go(self, closed: bool, event: int) -> None:
        self.rest = None
        self.consumer.queue.remove(self.consumer)
        for entry, settlement in self._resumed:
            if settlement.outcome is None:
                self.left.append(entry)
        self.left += self.session.take_back(self)
        if self.left and not closed and self.outlives(event) and not self.consumer.queue.deleted:
            self.connection.containers.suspend(self, event)
        else:
            self.forgotten()
        subscription = self.subscription
        if closed and subscription is not None and subscription.durable and not self.consumer.queue.consumers.all:
            self.host.delete_queue(self.consumer.queue)

    def forgotten(self) -> None:
        left, self.left = self.left, []
        return_all(left, self.session.broker.chores, False)


def _size(message: Message) -> int:
    """The bytes of a message as this dialect has it."""
    message = message if message.dialect == AMQP10 else message.translated(AMQP10)
    return len(message.native) + (sum(map(len, message.body)) if message.body else 0)


def return_all(entries: list[Entry], chores: Chores, failed: bool) -> None:
    """Deliveries whose receiver is gone: their source's default outcome becomes theirs."""
    returned: list[Entry] = []
    for entry in entries:
        consumer = entry.consumer
        assert isinstance(consumer, LinkConsumer)
        settlement = consumer.link.default_settlement
        outcome = settlement.outcome
        if outcome is None or outcome is RELEASE:
            returned.append(entry)
        else:
            settlement.apply(entry)
    give_back(returned, chores, failed)
