"""A channel: where publishes, deliveries and acknowledgements meet the broker.

The methods that are not about messages are in protocols/amqp091/commands.py; both raise the broker's errors and
`ProtocolError`, which the connection turns into the closing of this channel or of itself.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from broker.argument_values import kind
from broker.entry import Entry
from broker.message import AMQP091, AMQP091_JMS, Amendment, Message, Publisher, amended
from broker.outcome import ACCEPT, REJECT, REQUEUE, Outcome
from broker.queue import Queue
from broker.returns import give_back
from broker.routing import REFUSED, UNROUTED, Route
from broker.security.quotas import CHANNELS
from broker.transaction import Publication, Transaction
from protocols.amqp091 import properties
from protocols.amqp091.codec import Malformed, read_table, short_string, text, u32, u64
from protocols.amqp091.consumer import BasicConsumer
from protocols.amqp091.convert import PROPERTIES_AT, content_frames, expiry, header_end
from protocols.amqp091.errors import ProtocolError
from protocols.amqp091.frames import BODY, END
from protocols.routes import ask_to_publish, find_route
from protocols.side_headers import USER_KEY, disowned

if TYPE_CHECKING:
    from protocols.amqp091.connection import Connection

PUBLISH: Final = 0x003C0028
"""basic.publish, class and method in one number."""

REPLY_TO: Final = "amq.rabbitmq.reply-to"

_NOTHING: Final = 0
_HEADER: Final = 1
_BODY: Final = 2
"""What a publisher must send next, besides methods: nothing, a content header, body frames."""

_PACK_ACK = Struct(">3sIIQBB").pack


class Channel(Publisher):
    """One channel of a connection."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.host = connection.host
        self.broker = connection.host.broker
        self.number = number
        self.closing = False  # we have sent channel.close
        self.closed_by_both = False  # and so has the client
        self.flowing = True  # the client wants deliveries
        self.last_queue: str | None = None  # declared last: what an empty name stands for
        # Deliveries.
        self.delivery_tag = 0
        self.unacked: dict[int, Entry] = {}
        self.lowest = 1  # no tag below it is unacknowledged
        self.outstanding = 0
        self.most = connection.quota.unsettled  # deliveries that may be unacknowledged, whatever the client wants
        self.limit = self.most  # deliveries of all consumers that may be unacknowledged; 0 for any number
        self.consumer_limit = 0  # the same for each consumer that is yet to come
        self.own_queues: dict[Queue, None] = {}  # those that go with the channel
        self.consumers: dict[str, BasicConsumer] = {}
        self.reply_queue: Queue | None = None  # where replies to `amq.rabbitmq.reply-to` come in
        # The publish that is under way.
        self.expecting = _NOTHING
        self._route = b""
        self._flags = 0
        self._header = b""
        self._pieces: list[bytes] = []
        self._size = 0
        self._missing = 0
        # Confirms.
        self.confirming = False
        self.confirms_are_due = False  # the connection knows that there is something to tell
        self.sequence = 0
        self.unconfirmed: dict[int, bool] = {}  # in order of their numbers
        self._safe: list[int] = []  # confirmed out of order
        self._told = 0  # all up to this number were confirmed or refused, and the publisher knows
        self._refused: set[int] = set()
        self._first = bytes([1, number >> 8, number & 255])
        # Replies that wait for the journal, and all that must not overtake them: a list for each commit.
        self.held: list[list[bytes]] | None = None
        self.transaction: Transaction | None = None
        self.tx_tags: list[int] = []  # delivery tags of the transaction's settlements

    # Output.

    def send(self, data: bytes) -> None:
        """Write a frame, or a part of one, in its turn."""
        if self.held is not None:
            self.held[-1].append(data)
        else:
            self.connection.write(data)

    def reply(self, method: str, **values: Any) -> None:
        self.send(self.connection.variant.encode(method, self.number, **values))

    def reply_when_durable(self, wait: bool, method: str, **values: Any) -> None:
        """Reply once all that was written to the journal so far is durable, or at once if there is no need to wait."""
        if wait:
            self.broker.log.commit(self.after_commit())
        self.reply(method, **values)

    def after_commit(self) -> Callable[[], None]:
        """Hold back what is sent from now on, until the callback that this gives is called."""
        if self.held is None:
            self.held = []
        waiting: list[bytes] = []
        self.held.append(waiting)

        def committed() -> None:
            if self.held is None or not self.held or self.held[0] is not waiting:
                return  # the channel was closed
            del self.held[0]
            if not self.held:
                self.held = None
            for data in waiting:
                self.connection.write(data)
        return committed

    # Publishing.

    def begin_publish(self, data: bytes, at: int, end: int) -> None:
        """basic.publish, from behind its numbers: what is published follows."""
        name_end = at + 3 + data[at + 2] if at + 3 <= end else end
        key_end = name_end + 1 + data[name_end] if name_end < end else end
        if key_end + 1 != end:
            raise ProtocolError(501, "basic.publish is malformed")
        self._route = data[at + 2:key_end]
        self._flags = data[key_end]
        if self._flags & 2:
            raise ProtocolError(540, "immediate=true")
        self.expecting = _HEADER

    def content_header(self, data: bytes, at: int, stop: int, end: int) -> int:
        """A content header frame from `at` to its end octet at `stop`; `end` is the end of all data.

        Gives where to go on: behind the body frame, too, if that is there and all of the body. When it is on its way,
        gives how many bytes header and body have, as a negative number: it is simplest to wait for them.
        """
        if stop - at < PROPERTIES_AT + 2:
            raise ProtocolError(501, f"type 2, {stop - at - 7} octets: unknown_frame", 0)
        if self.expecting != _HEADER:
            raise self.unexpected("header")
        if data[at + 7] != 0 or data[at + 8] != 60 or data[at + 9] or data[at + 10]:
            raise ProtocolError(505, "expected content header for class 60, got something else instead")
        size = u64(data, at + 11)
        after = stop + 1
        whole = after + 8 + size
        if size == 0:
            self._publish(data[at:after], None, 0)
            return after
        if size > self.connection.message_size:
            self.expecting = _NOTHING
            raise ProtocolError(406, f"message size {size} is larger than configured max size "
                                     f"{self.connection.message_size}")
        if (after + 7 <= end and size <= self.connection.frame_max - 8 and data[after] == BODY
                and data[after + 1] == data[at + 1] and data[after + 2] == data[at + 2]
                and u32(data, after + 3) == size):
            if whole > end:
                return at - whole
            if data[whole - 1] == END:
                self._publish(data[at:whole], None, size)
                return whole
        self._header = data[at:after]
        self._size = self._missing = size
        self.expecting = _BODY
        return after

    def content_body(self, data: bytes, at: int, stop: int) -> None:
        """A body frame's payload, from `at` to `stop`."""
        if self.expecting != _BODY:
            raise self.unexpected("body")
        size = stop - at
        if size > self._missing:
            raise ProtocolError(505, f"expected {self._missing} bytes more of content body, got {size}")
        if size == 0:
            return
        self._missing -= size
        self._pieces.append(data[at:stop])
        self.broker.memory.add(size)
        if self._missing == 0:
            pieces, self._pieces = self._pieces, []
            try:
                if len(pieces) == 1:
                    frame = b"".join((self._header, data[at - 7:at], pieces[0], b"\xce"))
                    self._publish(frame, None, self._size)
                else:
                    self._publish(self._header, pieces, self._size)
            finally:  # only now, so that an alarm that it has raised does not come and go
                self.broker.memory.add(-self._size)

    def unexpected(self, got: str) -> ProtocolError:
        """A frame came that cannot come now."""
        if self.expecting == _HEADER:
            return ProtocolError(505, "expected content header for class 60, got non content header frame instead",
                                 PUBLISH)
        if self.expecting == _BODY:
            return ProtocolError(505, "expected content body, got non content body frame instead", PUBLISH)
        return ProtocolError(505, f"expected method frame, got non method frame instead ({got})", 0)

    def _publish(self, native: bytes, body: list[bytes] | None, size: int) -> None:
        """All of a message is there."""
        self.expecting = _NOTHING
        self.connection.messages_in += 1
        route = self.host.routes.get(self._route)
        if route is None:
            route = self._find_route()
        address = route.address
        self.connection.access.publish(address.short_strings, address.exchange, address.routing_key)
        now = self.broker.clock.now
        flags = native[PROPERTIES_AT] << 8 | native[PROPERTIES_AT + 1]
        copies_to: list[str] | None = None
        if flags == properties.DELIVERY_MODE and u32(native, 3) == 15 and 1 <= native[PROPERTIES_AT + 2] <= 2:
            message = Message(address, AMQP091, native, body, size, native[PROPERTIES_AT + 2] == 2, 0, 0, now)
        else:
            try:
                found = properties.scan(native, PROPERTIES_AT, header_end(native))
            except Malformed as error:
                raise ProtocolError(502, str(error)) from None
            if found.delivery_mode not in (-1, 1, 2):
                raise ProtocolError(406, f"invalid message: {{delivery_mode_unknown,{found.delivery_mode}}}")
            if found.headers_at and native.find(USER_KEY, found.headers_at, found.headers_end) >= 0 \
                    and not self.connection.impersonates:
                native = disowned(native, found.headers_at, found.headers_end, b"S")
            message = Message(address, AMQP091, native, body, size, found.delivery_mode == 2, found.priority, 0, now)
            message.origin = self.connection.instance
            if found.expiration is not None:
                try:
                    message.expiry = expiry(found.expiration, now)
                except ValueError as wrong:  # a name of its own: compiled, a variable has one type
                    raise ProtocolError(406, str(wrong)) from None
            if found.user_id is not None and text(found.user_id) != self.connection.user \
                    and not self.connection.impersonates:
                raise ProtocolError(406, f"user_id property set to '{text(found.user_id)}' but authenticated user "
                                         f"was '{self.connection.user}'")
            if found.reply_to is not None and found.reply_to == b"amq.rabbitmq.reply-to":
                message = self._with_reply_queue(message)
            if found.has_copies:
                headers = read_table(native, found.headers_at, found.headers_end)
                copies_to = _copies(headers)
                for key in copies_to:
                    ask_to_publish(self.connection.access, address.exchange, key)
                if "BCC" in headers:
                    amendment = Amendment()
                    amendment.drop_headers = ("BCC",)
                    message = amended(message, amendment, message.address, now)
        if self.transaction is not None:
            self.transaction.publish(Publication(route, message, copies_to, bool(self._flags & 1)))
            return
        outcome = self.host.publish(route, message, copies_to)
        if outcome == UNROUTED and self._flags & 1:
            self.send_back(message)
        if self.confirming:
            self.sequence += 1
            if outcome == REFUSED:
                self._nack(self.sequence)
            elif message.pending:
                message.publisher = self
                message.sequence = self.sequence
                self.unconfirmed[self.sequence] = True
            elif self.unconfirmed:
                self._safe.append(self.sequence)
            self.connection.confirms_due(self)

    def _find_route(self) -> Route:
        split = 1 + self._route[0]
        return find_route(self.host, self.connection.access, self._route, text(self._route[1:split]),
                          text(self._route[split + 1:]))

    def _with_reply_queue(self, message: Message) -> Message:
        if self.reply_queue is None or self.reply_queue.deleted:
            raise ProtocolError(406, "fast reply consumer does not exist")
        amendment = Amendment()
        amendment.reply_to = self.reply_queue.name
        return amended(message, amendment, message.address, message.arrival)

    def send_back(self, message: Message) -> None:
        """basic.return of a mandatory message that went nowhere."""
        method = b"\x00\x3c\x00\x32\x01\x38" + short_string("NO_ROUTE") + message.address.short_strings
        self.send(self._first + len(method).to_bytes(4, "big") + method + b"\xce")
        for part in content_frames(message, self.number, self.connection.frame_max):
            self.send(part)

    def abandon_publish(self) -> None:
        """The channel closes in the middle of a message."""
        for piece in self._pieces:
            self.broker.memory.add(-len(piece))
        self._pieces = []
        self.expecting = _NOTHING

    # Confirms.

    def confirmed(self, sequence: int) -> None:
        if self.unconfirmed.pop(sequence, False):
            self._safe.append(sequence)
            self.connection.confirms_due(self)

    def _nack(self, sequence: int) -> None:
        """The queue refused the message."""
        self._refused.add(sequence)
        self.flush_confirms()
        self.send(_PACK_ACK(self._first, 13, 0x003C0078, sequence, 0, END))

    def flush_confirms(self) -> None:
        """Tell the publisher what is safe by now: all up to some number at once, and the others one by one."""
        unconfirmed = self.unconfirmed
        upto = self.sequence
        if unconfirmed:
            upto = next(iter(unconfirmed)) - 1
        if self._refused:
            while upto in self._refused:
                upto -= 1
        if upto > self._told:
            several = upto > self._told + 1
            self._told = upto
            self.send(_PACK_ACK(self._first, 13, 0x003C0050, upto, several, END))
            if self._refused:
                self._refused = {number for number in self._refused if number > upto}
        if self._safe:
            for sequence in self._safe:
                if sequence > self._told:
                    self.send(_PACK_ACK(self._first, 13, 0x003C0050, sequence, 0, END))
            self._safe.clear()

    # Settling.

    def ack(self, data: bytes, at: int, end: int) -> None:
        """basic.ack, from behind its numbers."""
        if end - at != 9:
            raise ProtocolError(501, "basic.ack is malformed")
        tag = u64(data, at)
        if data[at + 8] & 1:
            self.settle(tag, True, ACCEPT)
            return
        entry = self.unacked.pop(tag, None)
        if entry is None:
            raise ProtocolError(406, f"unknown delivery tag {tag}")
        if self.transaction is not None:
            self._settle_later(self.transaction, tag, entry, ACCEPT)
        else:
            self._free(entry)
            entry.queue.accept(entry)

    def settle(self, tag: int, multiple: bool, outcome: Outcome) -> None:
        """Settle one delivery, or all up to its tag (all there are, for 0)."""
        if multiple:
            last = tag or self.delivery_tag
            if last > self.delivery_tag:
                raise ProtocolError(406, f"unknown delivery tag {tag}")
            tags = [number for number in range(self.lowest, last + 1) if number in self.unacked]
            self.lowest = max(self.lowest, last + 1)
            if not tags and tag:
                raise ProtocolError(406, f"unknown delivery tag {tag}")
        elif tag in self.unacked:
            tags = [tag]
        else:
            raise ProtocolError(406, f"unknown delivery tag {tag}")
        returned: list[Entry] = []
        transaction = self.transaction
        if outcome is OUTCOMES[True] and self.connection.form == AMQP091_JMS:
            transaction = None  # Qpid's clients give back what they have before tx.rollback, not with it
        for number in tags:
            entry = self.unacked.pop(number)
            if transaction is not None:
                self._settle_later(transaction, number, entry, outcome)
                continue
            self._free(entry)
            if outcome is ACCEPT:
                entry.queue.accept(entry)
            elif outcome is REJECT:
                entry.queue.reject(entry)
            else:
                returned.append(entry)
        if returned:
            give_back(returned, self.broker.chores)

    def _settle_later(self, transaction: Transaction, tag: int, entry: Entry, outcome: Outcome) -> None:
        transaction.settle(entry, outcome)
        self.tx_tags.append(tag)

    def _free(self, entry: Entry) -> None:
        """A delivery is settled: there is room for another one."""
        self.outstanding -= 1
        consumer = entry.consumer
        if consumer is not None:
            assert isinstance(consumer, BasicConsumer)
            consumer.outstanding -= 1
            if consumer.parked:
                self.connection.wake_later(consumer)
        if self.limit and self.outstanding == self.limit - 1:
            self.wake_all()

    def wake_all(self) -> None:
        """All consumers may have room again."""
        for consumer in self.consumers.values():
            if consumer.parked:
                self.connection.wake_later(consumer)

    def recover(self, requeue: bool) -> None:
        """basic.recover: the unacknowledged are delivered again, to anybody or (not requeue) to the same consumer."""
        entries = list(self.unacked.values())
        self.unacked.clear()
        self.lowest = self.delivery_tag + 1
        returned: list[Entry] = []
        for entry in entries:
            consumer = entry.consumer
            self._free(entry)
            if not requeue and consumer is not None and consumer.tag in self.consumers and entry.message is not None \
                    and not entry.queue.deleted:
                entry.redelivered = True
                consumer.deliver(entry, entry.message)
            else:
                returned.append(entry)
        give_back(returned, self.broker.chores)

    # Transactions.

    def commit(self) -> None:
        assert self.transaction is not None
        for entry in self.transaction.settlements:
            self._free(entry)
        self.tx_tags.clear()
        returned = self.transaction.commit(self.after_commit())
        for publication in returned:
            self.send_back(publication.message)
        self.reply("tx.commit-ok")

    def rollback(self) -> None:
        assert self.transaction is not None
        for tag, entry in zip(self.tx_tags, self.transaction.rollback(), strict=True):
            self.unacked[tag] = entry
            self.lowest = min(self.lowest, tag)
        self.tx_tags.clear()
        self.reply("tx.rollback-ok")

    # Consumers.

    def consumer_cancelled(self, consumer: BasicConsumer) -> None:
        """The queue is gone."""
        if self.consumers.pop(consumer.tag, None) is not None and self.connection.notifies_cancel and not self.closing:
            self.reply("basic.cancel", consumer_tag=consumer.tag, nowait=True)

    def close(self) -> None:
        """The channel is done: give back what it has, in order."""
        self.closing = True
        self.connection.quota.give(CHANNELS)
        self.abandon_publish()
        for consumer in list(self.consumers.values()):
            consumer.queue.remove(consumer)
        self.consumers.clear()
        if self.transaction is not None:
            for tag, entry in zip(self.tx_tags, self.transaction.rollback(), strict=True):
                self.unacked[tag] = entry
        if self.transaction is not None:  # what it gave back is not in order
            self.unacked = dict(sorted(self.unacked.items()))
        entries = list(self.unacked.values())
        self.unacked = {}
        self.held = None
        give_back(entries, self.broker.chores)
        for queue in self.own_queues:
            queue.orphaned()
        self.own_queues.clear()


def _copies(headers: dict[str, Any]) -> list[str]:
    """The further routing keys in CC and BCC."""
    keys: list[str] = []
    for name in ("CC", "BCC"):
        if name in headers:
            listed = headers[name]
            if not isinstance(listed, list):
                raise ProtocolError(406, f'invalid message: {{unacceptable_type_in_header,"{name}",{kind(listed)}}}')
            keys.extend(key for key in listed if isinstance(key, str))
    return keys


OUTCOMES = {True: REQUEUE, False: REJECT}
"""What basic.reject and basic.nack mean, by their requeue bit."""
