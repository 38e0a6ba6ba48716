"""A session: windows, deliveries' ids, dispositions, and the links that share them (part 2, section 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.entry import Entry
from broker.queue import Queue
from broker.security.quotas import CHANNELS
from protocols.amqp10 import frames as f
from protocols.amqp10.attach import attach
from protocols.amqp10.errors import (
    ERRANT_LINK,
    HANDLE_IN_USE,
    LINK,
    NOT_ALLOWED,
    SESSION,
    UNATTACHED_HANDLE,
    WINDOW_VIOLATION,
    ProtocolError,
)
from protocols.amqp10.incoming import Incoming
from protocols.amqp10.link import Link
from protocols.amqp10.outgoing import LinkConsumer, return_all
from protocols.amqp10.resume import ENDED
from protocols.amqp10.settlement import Settlement, settlement_of
from protocols.amqp10.transactions import Work
from protocols.values10 import Malformed

if TYPE_CHECKING:
    from protocols.amqp10.connection import Connection

WINDOW: Final = 2048
"""Transfers that a client may send before it hears from us again; it does with the next output when half are left."""

OUTGOING_WINDOW: Final = 0x7FFFFFFF

_MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000


class Session:
    """One session of a connection."""

    def __init__(self, connection: Connection, channel: int, m: dict[str, Any]) -> None:
        if m["remote-channel"] is not None:
            raise ProtocolError(NOT_ALLOWED, "we have begun no session that this could be the answer to", 0)
        self.connection = connection
        self.broker = connection.broker
        self.channel = channel
        self.links: dict[int, Link] = {}
        self.link: Link | None = None  # that the work at hand is for: it pays for an error
        self.ending = False  # nothing is said any more but end, and that once
        self.handle_max = min(m["handle-max"], connection.settings.handle_max)
        # What comes in.
        self.next_incoming_id: int = m["next-outgoing-id"]
        self.incoming_window = WINDOW
        self.incoming: dict[int, Incoming] = {}  # deliveries that we have told the outcome of, by id, until settled
        self._outcomes: list[tuple[int, bytes, bool]] = []  # delivery id, state, settled: to be told
        self.due = False
        self._to_grant: list[Incoming] = []  # links whose credit is to be renewed
        # What goes out.
        self.next_outgoing_id = 0
        self.next_delivery_id = 0
        self.remote_window: int = m["incoming-window"]
        self.most = connection.quota.unsettled  # deliveries that may be unsettled; 0 for any number
        self.unsettled: dict[int, Entry] = {}
        self.retired: dict[int, Retired] = {}
        self.stalled: list[Link] = []
        self.send(f.BEGIN.encode(**{
            "remote-channel": channel, "next-outgoing-id": 0, "incoming-window": WINDOW,
            "outgoing-window": OUTGOING_WINDOW, "handle-max": connection.settings.handle_max}))

    # Output.

    def send(self, body: bytes) -> None:
        self.connection.send(self.channel, body)

    def send_flow(self, link: Link | None = None, **values: Any) -> None:
        """A flow, of the session or of a link."""
        self.send(f.FLOW.encode(**{
            "next-incoming-id": self.next_incoming_id, "incoming-window": self.incoming_window,
            "next-outgoing-id": self.next_outgoing_id, "outgoing-window": OUTGOING_WINDOW,
            "handle": None if link is None else link.handle, **values}))

    def tell(self, delivery_id: int, state: bytes, settled: bool) -> None:
        """The outcome of a delivery that came in, to be sent with the next output."""
        self._outcomes.append((delivery_id, state, settled))
        self._fall_due()

    def renew(self, link: Incoming) -> None:
        """A link is to be given credit with the next output."""
        self._to_grant.append(link)
        self._fall_due()

    def _fall_due(self) -> None:
        """There is something to be said with the next output."""
        if not self.due:
            self.due = True
            connection = self.connection
            connection.due.append(self)
            connection.has_news = True
            if not connection.flushing:
                connection.want_flush()

    def flush(self) -> None:
        """Send what is to be told: outcomes, in as few ranges as possible, and that the window is open again."""
        self.due = False
        if self.incoming_window < WINDOW // 2 and not self.ending:
            self.incoming_window = WINDOW
            self.send_flow()
        to_grant, self._to_grant = self._to_grant, []
        for link in to_grant:
            link.renew()
        outcomes, self._outcomes = self._outcomes, []
        at = 0
        while at < len(outcomes):
            first, state, settled = outcomes[at]
            last = first
            at += 1
            while at < len(outcomes):
                following, other, also = outcomes[at]
                if following != (last + 1) & _MASK or other != state or also != settled:
                    break
                last = following
                at += 1
            self.send(f.DISPOSITION.encode(role=True, first=first, last=None if last == first else last,
                                           settled=settled, state=f.Encoded(state)))

    # Input.

    def transfer(self, values: list[Any], data: bytes, at: int, stop: int) -> None:
        """A transfer; its payload is from `at` to `stop`. Raises: ProtocolError, BrokerError."""
        if self.ending:
            return
        self.link = None
        self.next_incoming_id = (self.next_incoming_id + 1) & _MASK
        self.incoming_window -= 1
        if self.incoming_window < 0:
            raise ProtocolError(WINDOW_VIOLATION, "a transfer came when the incoming window was 0", SESSION)
        link = self.links.get(values[0])
        if link is None:
            raise ProtocolError(UNATTACHED_HANDLE, f"handle {values[0]} has no link", SESSION)
        if not link.detaching:
            self.link = link
            try:
                link.transfer(values, data, at, stop)
            except Malformed as error:
                raise ProtocolError("amqp:decode-error", str(error), LINK) from None
        if self.incoming_window < WINDOW // 2:
            self._fall_due()

    def performative(self, code: int, values: list[Any]) -> None:
        """Any other performative of a session. Raises: ProtocolError, Malformed."""
        self.link = None
        if code == f.DISPOSITION.code:
            self._disposition(values)
            self._go_on()
        elif code == f.FLOW.code:
            self._flow(f.FLOW.named(values))
        elif code == f.ATTACH.code:
            m = f.ATTACH.named(values)
            if m["handle"] > self.handle_max:
                raise ProtocolError("amqp:connection:framing-error",
                                    f"handle {m['handle']} is above handle-max, {self.handle_max}", 0)
            if m["handle"] in self.links:
                raise ProtocolError(HANDLE_IN_USE, f"handle {m['handle']} has a link already", SESSION)
            attach(self, m)
        elif code == f.DETACH.code:
            link = self.links.pop(values[0], None)
            if link is None:
                raise ProtocolError(UNATTACHED_HANDLE, f"handle {values[0]} has no link", SESSION)
            link.detached_by_client(values[1])

    def _flow(self, m: dict[str, Any]) -> None:
        begun = m["next-incoming-id"]  # absent: the client has not seen our begin yet
        sent = (self.next_outgoing_id - (begun if begun is not None else 0)) & _MASK
        if sent >= _HALF:
            raise ProtocolError(ERRANT_LINK, "next-incoming-id is ahead of what was sent", SESSION)
        self.remote_window = max(0, m["incoming-window"] - sent)
        self._go_on()
        if m["handle"] is None:
            if m["echo"]:
                self.send_flow()
            return
        link = self.links.get(m["handle"])
        if link is None:
            raise ProtocolError(UNATTACHED_HANDLE, f"handle {m['handle']} has no link", SESSION)
        if not link.detaching:
            self.link = link
            link.flow(m)

    def may_send(self) -> bool:
        """Whether the client takes another delivery of this session, and is to get one."""
        return self.remote_window > 0 and not 0 < self.most <= len(self.unsettled)

    def _go_on(self) -> None:
        """Links that had to wait for the session may be able to send."""
        if self.stalled and self.may_send():
            stalled, self.stalled = self.stalled, []
            for each in stalled:
                each.stalled = False
                each.resume()

    def _disposition(self, values: list[Any]) -> None:
        role, first, last, settled, state = values[0], values[1], values[2], values[3], values[4]
        if last is None:
            last = first
        count = ((last - first) & _MASK) + 1
        if not role:  # the client is the sender of these deliveries
            if settled:
                for number in self._range(first, count, list(self.incoming) if count > len(self.incoming) else None):
                    link = self.incoming.pop(number, None)
                    if link is not None:
                        link.settled_by_client(number)
            return
        if count == 1:
            if first in self.unsettled or first in self.retired:
                self._settle(first, settlement_of(state, self.connection.transactions), settled)
            return
        mine = list(self.unsettled) + list(self.retired) if count > len(self.unsettled) + len(self.retired) else None
        numbers = [number for number in self._range(first, count, mine)
                   if number in self.unsettled or number in self.retired]
        if not numbers:
            return
        settlement = settlement_of(state, self.connection.transactions)
        if settlement.releases() and len(numbers) > 1:
            self._give_back(numbers, settlement, settled)
            return
        for number in numbers:
            self._settle(number, settlement, settled)

    def _range(self, first: int, count: int, known: list[int] | None) -> list[int]:
        """The ids of a range; when that is longer than what is `known`, those of the known that are in it."""
        if known is not None:
            return [number for number in known if ((number - first) & _MASK) < count]
        return [(first + number) & _MASK for number in range(count)]

    def _settle(self, delivery_id: int, settlement: Settlement, settled: bool) -> None:
        """The client's word on one of our deliveries; about one that is settled there is nothing to say any more."""
        entry = self.unsettled.get(delivery_id)
        if entry is None:
            self._settle_retired(delivery_id, settlement, settled)
            return
        consumer = entry.consumer
        assert isinstance(consumer, LinkConsumer)
        work = settlement.work
        if settlement.outcome is None:
            if not settled:
                return
            settlement = consumer.link.default_settlement.within(work)
        del self.unsettled[delivery_id]
        if not settled and work is not None:
            self.retired[delivery_id] = Retired(entry, settlement, work)
        settlement.apply(entry)
        if not settled and work is None:
            self._confirm_settlement(delivery_id, settlement.state)

    def _settle_retired(self, delivery_id: int, settlement: Settlement, settled: bool) -> None:
        """Likewise, on one that it has decided about within a transaction: it settles it, or decides otherwise."""
        retired = self.retired.get(delivery_id)
        if retired is None:
            return
        if settlement.outcome is None or settlement.state == retired.settlement.state:
            if settled:  # from now on it is the transaction's alone
                del self.retired[delivery_id]
            return
        del self.retired[delivery_id]
        retired.work.transaction.withdraw(retired.entry)
        self.unsettled[delivery_id] = retired.entry
        self._settle(delivery_id, settlement, settled)

    def _confirm_settlement(self, delivery_id: int, state: bytes) -> None:
        """The receiver settles second: tell it that we have settled, once that is durable."""

        def durable() -> None:
            if not self.ending:
                self.send(f.DISPOSITION.encode(role=False, first=delivery_id, settled=True, state=f.Encoded(state)))

        self.broker.log.commit(durable)

    def _give_back(self, numbers: list[int], settlement: Settlement, settled: bool) -> None:
        """Many at once, in the order of their delivery, before anything goes out again."""
        queues: dict[Queue, None] = {}
        for number in numbers:
            entry = self.unsettled.get(number)
            if entry is not None and entry.queue not in queues:
                queues[entry.queue] = None
                entry.queue.returning += 1
        for number in numbers:
            self._settle(number, settlement, settled)
        for queue in queues:
            queue.returning -= 1
            queue.dispatch()

    # Transactions.

    def retire(self, work: Work) -> None:
        """A transaction is being committed: what was decided within it is so, and settled."""
        for delivery_id in [number for number, retired in self.retired.items() if retired.work is work]:
            self._confirm_settlement(delivery_id, self.retired.pop(delivery_id).settlement.state)

    def reinstate(self, work: Work) -> None:
        """A transaction is rolled back: what was decided within it, and not settled, is the receiver's as before."""
        for delivery_id in [number for number, retired in self.retired.items() if retired.work is work]:
            entry = self.retired.pop(delivery_id).entry
            work.transaction.withdraw(entry)
            self.unsettled[delivery_id] = entry

    def release_acquired(self, delivery_id: int) -> Queue | None:
        """A delivery was sent under a transaction that is rolled back: it goes back to its queue, which is given."""
        entry = self.unsettled.pop(delivery_id, None)
        if entry is None:
            return None
        entry.queue.release(entry, False)
        if not self.ending:
            self.send(f.DISPOSITION.encode(role=False, first=delivery_id, settled=True,
                                           state=f.Encoded(f.RELEASED_STATE)))
        return entry.queue

    # The end.

    def alarms_changed(self, raised: bool) -> None:
        for link in list(self.links.values()):
            if link.attached:
                link.alarms_changed(raised)

    def fail(self, error: ProtocolError) -> None:
        """End the session for an error, and await the client's end."""
        self.close(ENDED)
        self.send(f.END.encode(error=error.value()))

    def ended_by_client(self) -> None:
        """The client's end: answer, unless that is the answer to ours."""
        if not self.ending:
            self.close(ENDED)
            self.send(f.END.encode())

    def close(self, event: int, failed: bool = False) -> None:
        """Let go of everything. failed: what was delivered may have been the end of the client."""
        self.flush()
        if not self.ending:
            self.ending = True
            self.connection.quota.give(CHANNELS)
        entries: list[Entry] = []
        for entry in self.unsettled.values():
            consumer = entry.consumer
            assert isinstance(consumer, LinkConsumer)
            if consumer.link.outlives(event):
                consumer.link.left.append(entry)
            else:
                entries.append(entry)
        self.unsettled.clear()
        self.retired.clear()  # it is for their transactions to decide
        for link in list(self.links.values()):
            link.release(False, event)
        self.links.clear()
        self.stalled.clear()
        return_all(entries, self.broker.chores, failed)
        for link in list(self.connection.suspended):
            if link.session is self:
                self.connection.containers.happened(link, event)

    def take_back(self, link: Link) -> list[Entry]:
        """The unsettled deliveries of a link that is going, no longer the session's."""
        numbers = [number for number, entry in self.unsettled.items()
                   if isinstance(entry.consumer, LinkConsumer) and entry.consumer.link is link]
        for number in [number for number, retired in self.retired.items()
                       if isinstance(retired.entry.consumer, LinkConsumer) and retired.entry.consumer.link is link]:
            del self.retired[number]  # it is for its transaction to decide
        return [self.unsettled.pop(number) for number in numbers]


class Retired:
    """A delivery about which its receiver has decided within a transaction, but which it has not settled."""

    __slots__ = ("entry", "settlement", "work")

    def __init__(self, entry: Entry, settlement: Settlement, work: Work) -> None:
        self.entry = entry
        self.settlement = settlement
        self.work = work
