"""Links on which clients send: credit, deliveries put together from transfers, and their way into the core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.errors import BrokerError, NotFound
from broker.message import AMQP10, Message, Publisher, address_of
from broker.retained import asks
from broker.routing import REFUSED, ROUTED, UNROUTED, Route
from broker.transaction import Publication
from broker.unsettled import Unsettled
from protocols.amqp10 import frames as f
from protocols.amqp10.errors import (
    DECODE_ERROR,
    ILLEGAL_STATE,
    INVALID_FIELD,
    LIMIT_EXCEEDED,
    LINK,
    MESSAGE_SIZE,
    NOT_FOUND,
    TRANSFER_LIMIT,
    UNAUTHORIZED,
    ProtocolError,
    link_error,
)
from protocols.amqp10.link import RECEIVER, Link
from protocols.amqp10.resume import NEVER, read_unsettled, write_unsettled
from protocols.amqp10.sections import Scan, check_pieces, delivery_time, with_format
from protocols.amqp10.settlement import settlement_of
from protocols.amqp10.transactions import Work
from protocols.nodes import Node, find
from protocols.reply_to import split_address
from protocols.routes import ask_to_publish, find_route
from protocols.values10 import text

if TYPE_CHECKING:
    from protocols.amqp10.session import Session

FIRST: Final = 0
SECOND: Final = 1
"""Receiver settle modes."""

SHORT: Final = 65536
"""Messages of up to so many bytes are kept in one piece."""

HEADROOM: Final = 4096
"""Bytes beyond the broker's message size that a message's properties and annotations may have."""

_MASK: Final = 0xFFFFFFFF


class LinkPublisher(Publisher):
    """Hears from the core when a link's deliveries are safe."""

    __slots__ = ("link",)

    def __init__(self, link: Incoming) -> None:
        self.link = link

    def confirmed(self, sequence: int) -> None:
        self.link.safe(sequence)


class Incoming(Link):
    """A link whose client sends. node: None for the anonymous terminus: each message says where it goes."""

    def __init__(self, session: Session, m: dict[str, Any], node: Node | None, discards: bool) -> None:
        super().__init__(session, m)
        self.role = RECEIVER
        self.node = node
        self.discards = discards  # messages that go nowhere are accepted
        self.settle_mode: int = m["rcv-settle-mode"]
        self.delivery_count: int = m["initial-delivery-count"] or 0
        self.credit = 0
        self._renewing = False  # credit is about to be given
        self.late = 0  # transfers that may come although an alarm has taken the credit: they were under way
        self.limit = session.connection.settings.link_credit
        self.pending = 0  # deliveries that are not durable yet
        self.publisher = LinkPublisher(self)
        self._route: Route | None = None  # of the last message
        self._route_key: bytes | None = None
        # Deliveries that the client has not settled, where it is to do so after us.
        self.told: dict[bytes, bytes | None] = {}  # by tag: the outcome, encoded, when we know it
        self._tags: dict[int, bytes] = {}  # by delivery id
        self._heir: Incoming | None = None  # the link that goes on with them
        self._durable: Unsettled | None = None
        # The delivery that is under way.
        self._delivery_id = -1
        self._tag = b""
        self._is_resumed = False
        self._format = 0
        self._settled = False
        self._state: Any = None
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        """The client may send."""
        if not self.session.broker.memory.alarms:
            self._grant()

    # Credit.

    def _grant(self) -> None:
        self.credit = max(0, self.limit - self.pending)
        self.session.send_flow(self, **{"delivery-count": self.delivery_count, "link-credit": self.credit})

    def _top_up(self) -> None:
        """Half of the credit is used: give it back, with the next output. (Until the client can have heard of it, it
        has no more than before.)"""
        if self.credit + self.pending <= self.limit // 2 and not self._renewing:
            self._renewing = True
            self.session.renew(self)

    def renew(self) -> None:
        """The next output is being made."""
        self._renewing = False
        if self.attached and not self.session.broker.memory.alarms:
            self._grant()

    def flow(self, m: dict[str, Any]) -> None:
        count = m["delivery-count"]
        if count is not None:  # the sender has used up credit without sending
            self.credit = max(0, self.credit - ((count - self.delivery_count) & _MASK))
            self.delivery_count = count
        if m["echo"]:
            self.session.send_flow(self, **{"delivery-count": self.delivery_count, "link-credit": self.credit})
        self._top_up()

    def alarms_changed(self, raised: bool) -> None:
        if raised:
            self.late += self.credit
            self.credit = 0
            self.session.send_flow(self, **{"delivery-count": self.delivery_count, "link-credit": 0})
        else:
            self.late = 0
            self._grant()

    # Deliveries.

    def transfer(self, values: list[Any], data: bytes, at: int, stop: int) -> None:
        if self._delivery_id < 0:
            self._begin(values)
        elif values[1] is not None and values[1] != self._delivery_id:
            raise ProtocolError(ILLEGAL_STATE, f"delivery {values[1]} begins before delivery {self._delivery_id} has "
                                               "ended", LINK)
        if values[4]:
            self._settled = True
        if values[7] is not None:
            self._state = values[7]
        size = stop - at
        self._size += size
        if self._size > self.session.connection.message_size + HEADROOM:
            raise ProtocolError(MESSAGE_SIZE, f"a message of more than {self.connection.message_size} bytes",
                                LINK)
        if values[9]:
            self._abort()
        elif self._is_resumed:
            if values[5]:
                return
            self._resume_delivery()
        elif values[5]:
            self._pieces.append(data[at:stop])
            self.session.broker.memory.add(size)
            return
        elif self._pieces:
            self._pieces.append(data[at:stop])
            pieces, self._pieces = self._pieces, []
            try:
                self._put_together(pieces)
            finally:  # only now, so that an alarm that it has raised does not come and go
                self.session.broker.memory.add(size - self._size)
        else:
            self._publish(data[at:stop], None, size)
        self._delivery_id = -1
        self._top_up()

    def _begin(self, values: list[Any]) -> None:
        if values[1] is None or values[2] is None:
            raise ProtocolError(INVALID_FIELD, "a delivery begins without delivery-id or delivery-tag", LINK)
        if len(values[2]) > 32:
            raise ProtocolError(INVALID_FIELD, f"a delivery-tag of {len(values[2])} bytes; it can have 32", LINK)
        if self.credit > 0:
            self.credit -= 1
        elif self.late > 0:
            self.late -= 1
        else:
            raise ProtocolError(TRANSFER_LIMIT, "a transfer came without credit", LINK)
        self.delivery_count = (self.delivery_count + 1) & _MASK
        self._delivery_id = values[1]
        self._tag = bytes(values[2])
        self._is_resumed = values[8]
        self._format = values[3] or 0
        self._settled = False
        self._state = None
        self._size = 0

    def _abort(self) -> None:
        """The sender has thought better of it."""
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self.session.broker.memory.add(-len(piece))

    def _put_together(self, pieces: list[bytes]) -> None:
        """A message that came in pieces: what is before its body must be in one."""
        if self._size <= SHORT:
            self._publish(b"".join(pieces), None, self._size)
            return
        native = pieces[0]
        count = 1
        scan = Scan(native, False)
        while count < len(pieces) and not scan.complete:
            more = min(count, len(pieces) - count)  # twice as much each time
            native = b"".join([native, *pieces[count:count + more]])
            count += more
            scan = Scan(native, False)
        if scan.complete:
            check_pieces(native, scan.body_at, pieces[count:])
        self._publish(native, pieces[count:], self._size)

    def _publish(self, native: bytes, body: list[bytes] | None, size: int) -> None:
        """All of a message is there."""
        scan = Scan(native, not body)
        if not scan.complete:
            raise ProtocolError(DECODE_ERROR, "a message's sections cannot be read", LINK)
        delivery_id = self._delivery_id
        self.connection.messages_in += 1
        work = None
        if self._state is not None:
            work = settlement_of(self._state, self.connection.transactions).work
        try:
            message, route = self._message(scan, native, body, size)
        except ProtocolError as error:
            self._refused(delivery_id, error, work)
            return
        except BrokerError as refusal:
            self._refused(delivery_id, link_error(refusal), work)
            return
        postponed = scan.annotations_at >= 0 and native.find(b"x-opt-delivery-") >= 0 and delivery_time(
            native, scan, message.arrival) > message.arrival
        if work is not None:
            self._publish_within(work, Publication(route, message, None, False, postponed))
            return
        if postponed:
            self.host.postpone(message)
            result = ROUTED
        else:
            result = self.host.publish(route, message, None)
        if self._settled:
            return
        if result == UNROUTED and not self.discards:
            self._told(delivery_id, _refusal(_unroutable(route)))
        elif result == REFUSED:
            self._told(delivery_id, _refusal(ProtocolError(LIMIT_EXCEEDED, "the queue is full", LINK)))
        elif message.pending:
            message.publisher = self.publisher
            message.sequence = delivery_id
            self.pending += 1
            if self.settle_mode == SECOND:
                self.told[self._tag] = None
                self._tags[delivery_id] = self._tag
                if self._durable is not None:
                    self._durable.keep(self.key, self._tag)
        else:
            self._told(delivery_id, f.ACCEPTED_STATE)

    def _publish_within(self, work: Work, publication: Publication) -> None:
        """Leave a message to its transaction. One that would go nowhere fails it: else it were lost by the commit."""
        route = publication.route
        if not self.discards and not self.host.destinations(route, publication.message, None) \
                and not (route.retains and asks(publication.message)):
            error = _unroutable(route)
            work.failed = error.text
            if not self._settled:
                self._told(self._delivery_id, _refusal(error))
            return
        work.transaction.publish(publication)
        if not self._settled:
            self._told(self._delivery_id, f.TRANSACTIONAL_STATE.encode(**{
                "txn-id": work.identity, "outcome": f.Encoded(f.ACCEPTED_STATE)}))

    def _message(self, scan: Scan, native: bytes, body: list[bytes] | None, size: int) -> tuple[Message, Route]:
        """The message for the core, and its route. Raises: ProtocolError, BrokerError."""
        connection = self.connection
        if scan.user_id is not None and text(scan.user_id) != connection.user and not connection.impersonates:
            raise ProtocolError(UNAUTHORIZED, f"user-id is '{text(scan.user_id)}', but the authenticated user is "
                                              f"'{connection.user}'", LINK)
        route = self._find_route(scan)
        address = route.address
        connection.access.publish(address.short_strings, address.exchange, address.routing_key)
        now = self.session.broker.clock.now
        expiry = scan.absolute_expiry
        if scan.ttl >= 0 and (not expiry or now + scan.ttl < expiry):
            expiry = now + scan.ttl
        size -= scan.body_at
        if scan.rest_at > scan.header_end:  # delivery annotations are for us alone
            native = native[:scan.header_end] + native[scan.rest_at:]
        if not native:
            native = b"\x00\x53\x70\x45"  # a header that says nothing, for there is no way to deliver no bytes
        if self._format:
            native = with_format(self._format, native)
        message = Message(address, AMQP10, native, body or None, size, scan.durable,
                          4 if scan.priority < 0 else scan.priority, max(0, expiry), now)
        message.origin = connection.container_id
        return message, route

    def _find_route(self, scan: Scan) -> Route:
        node = self.node
        subject = scan.subject
        if node is None:
            if scan.to is None:
                raise NotFound("a message to the anonymous terminus says no address in its `to`")
            address = text(scan.to)
            node = find(self.host, address, [])
            if node is None:
                exchange, key = split_address(address)
                ask_to_publish(self.connection.access, exchange, key)
                raise NotFound(f"no queue or exchange '{address}' in vhost '{self.host.name}'")
        elif node.queue is not None or node.fixed:
            subject = b""  # all go one way
        if self.node is not None and subject is not None and subject == self._route_key:
            route = self._route
            if route is not None and self.host.routes.get(route.address.short_strings) is route:
                return route
        exchange, key = _destination(node, scan)
        short_strings = address_of(exchange, key).short_strings
        route = self.host.routes.get(short_strings)
        if route is None:
            route = find_route(self.host, self.connection.access, short_strings, exchange, key)
        self._route = route
        self._route_key = subject
        return route

    # Outcomes.

    def safe(self, delivery_id: int) -> None:
        """A delivery is durable."""
        self.pending -= 1
        if self.attached:
            self._told(delivery_id, f.ACCEPTED_STATE)
            self._top_up()
        elif delivery_id in self._tags:
            tag = self._tags.pop(delivery_id)
            self.decided(tag)

    def decided(self, tag: bytes) -> None:
        """A delivery is durable that came before this link did."""
        if tag in self.told:
            self.told[tag] = f.ACCEPTED_STATE
        if self._heir is not None:
            self._heir.decided(tag)
        elif self.attached:
            for delivery_id, other in list(self._tags.items()):
                if other == tag:
                    self._told(delivery_id, f.ACCEPTED_STATE)

    def _told(self, delivery_id: int, state: bytes) -> None:
        if self.settle_mode == SECOND:
            tag = self._tags.setdefault(delivery_id, self._tag)
            self.told[tag] = state
            self.session.incoming[delivery_id] = self
            self.session.tell(delivery_id, state, False)
        else:
            self.session.tell(delivery_id, state, True)

    def _refused(self, delivery_id: int, error: ProtocolError, work: Work | None) -> None:
        """A message that cannot be published: rejected or, when the client does not listen, the link's end."""
        if work is not None:
            work.failed = error.text
        if self._settled:
            raise error
        self._told(delivery_id, _refusal(error))

    def settled_by_client(self, delivery_id: int) -> None:
        """The client has heard the outcome of a delivery."""
        tag = self._tags.pop(delivery_id, None)
        if tag is not None:
            self._forget(tag)

    def _forget(self, tag: bytes) -> None:
        self.told.pop(tag, None)
        if self._durable is not None:
            self._durable.forget(self.key, tag)

    # Coming back.

    def lasts(self, terminus: dict[str, Any]) -> None:
        super().lasts(terminus)
        if self.settle_mode != SECOND:
            self.expiry = -1
        elif self.expiry == NEVER:
            self._durable = self.session.broker.unsettled

    def take_up(self, former: Link | None, unsettled: Any) -> f.Encoded | None:
        """Go on with the deliveries that the client still holds for unsettled: it is told their outcomes, and those
        of which it does not speak it has settled. Raises: Malformed."""
        tags = list(read_unsettled(unsettled))
        if self._durable is not None:
            self.told = dict.fromkeys(self._durable.take(self.key, tags), f.ACCEPTED_STATE)
        if isinstance(former, Incoming):
            self.told.update(former.told)
            former._heir = self
            for tag in [tag for tag in self.told if tag not in tags]:
                self._forget(tag)
        kept = write_unsettled([(tag, state or b"\x40") for tag, state in self.told.items()])
        return None if kept is None else f.Encoded(kept)

    def _resume_delivery(self) -> None:
        """A transfer that only continues what came before; if we know nothing of it, it is to be ignored."""
        tag = self._tag
        if tag not in self.told:
            return
        if self._settled:
            self._forget(tag)
            return
        self._tags[self._delivery_id] = tag
        state = self.told[tag]
        if state is not None:
            self._told(self._delivery_id, state)

    # The end.

    def let_go(self, closed: bool, event: int) -> None:
        self._abort()
        for delivery_id in [number for number, link in self.session.incoming.items() if link is self]:
            del self.session.incoming[delivery_id]
        if self.told and not closed and self.outlives(event):
            self.connection.containers.suspend(self, event)
        else:
            self.forgotten()

    def forgotten(self) -> None:
        for tag in list(self.told):
            self._forget(tag)


def _destination(node: Node, scan: Scan) -> tuple[str, str]:
    """Exchange and routing key of a message to a node: its subject, else what the address says of a key."""
    exchange, key = node.leads_to()
    if node.queue is not None or node.fixed:
        return exchange, key
    if scan.subject is not None:
        return exchange, text(scan.subject)
    if node.key is not None:
        return exchange, key
    to = "" if scan.to is None else text(scan.to)
    return exchange, to[len(exchange) + 1:] if to.startswith(exchange + "/") else ""


def _unroutable(route: Route) -> ProtocolError:
    address = route.address
    return ProtocolError(NOT_FOUND, f"no queue for exchange '{address.exchange}' and routing key "
                                    f"'{address.routing_key}'", LINK)


def _refusal(error: ProtocolError) -> bytes:
    return f.REJECTED.encode(error=error.value())


