"""Subscriptions: what message.subscribe makes, its credit, and how a message is sent to the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from broker.consumer import Consumer
from broker.entry import Entry
from broker.message import AMQP010, Amendment, Message, amended
from broker.queue import Queue
from protocols.amqp010.codec import write_fields
from protocols.amqp010.content import for_channel, header_end, redelivered
from protocols.amqp010.frames import (
    COMMAND,
    FIRST_FRAME,
    FIRST_SEGMENT,
    FRAME_HEADER,
    LAST_FRAME,
    METHODS,
    frame_head,
)

if TYPE_CHECKING:
    from protocols.amqp010.session import Session

CREDIT: Final = 0
WINDOW: Final = 1
"""Flow modes: credit is used up, or comes back with the completion of what it was used for."""

MESSAGES: Final = 0
BYTES: Final = 1
"""Units of credit."""

INFINITE: Final = -1
UNLIMITED: Final = 0xFFFFFFFF
"""Credit without limit, here and on the wire."""

_MOST_BROWSED: Final = 100_000
"""Messages shown without being acquired that a client may acquire later; of more, the oldest can be no longer."""

MOST_UNCONFIRMED: Final = 65536
"""Commands of ours that a client may leave unconfirmed, of a session that is kept, before it is sent no more."""

ASK_EVERY: Final = 4096
"""Commands of ours after which the client is asked what it has completed."""


class Delivered:
    """A transfer whose completion is to give credit back, or that may yet be acquired."""

    __slots__ = ("subscription", "entry_id", "size", "period")

    def __init__(self, subscription: Subscription, entry_id: int, size: int, period: int) -> None:
        self.subscription = subscription
        self.entry_id = entry_id
        self.size = size
        self.period = period  # of the subscription's credit


class Subscription(Consumer):
    """A consumer of 0-10. It begins with no credit, in window mode."""

    __slots__ = ("session", "command_id", "mode", "messages", "octets", "period", "weighs", "starved", "_content",
                 "_prefix", "_channel", "_flushed", "_form", "_uncounted")

    def __init__(self, session: Session, queue: Queue, destination: str, priority: int, exclusive: bool,
                 explicit: bool, browses: bool, command_id: int) -> None:
        super().__init__(queue, destination, priority, exclusive, explicit and not browses)
        self.session = session
        self.command_id = command_id
        self.browses = browses
        self.choosy = browses
        self.mode = WINDOW
        self.messages = 0  # credit
        self.octets = 0
        self.period = 0  # credit that was used before a stop does not come back after it
        self.weighs = False  # it has a limit in bytes: what is next must fit
        self.starved = False  # the connection knows that it waits for its socket
        connection = session.connection
        if connection is not None:
            self.quota = connection.quota
        self._form = AMQP010 if connection is None else connection.form
        fields = {"destination": destination, "accept_mode": 0 if explicit else 1, "acquire_mode": int(browses)}
        self._content = b"\x04\x01\x01\x00" + write_fields(METHODS["message.transfer"].fields, fields)
        self._prefix = b""
        self._channel = -1
        self._flushed: Callable[[], None] | None = None  # to be called when a flush is over
        self._uncounted = Delivered(self, 0, 0, 0)  # any transfer, while credit in bytes has no limit

    # Credit.

    def add_credit(self, unit: int, value: int) -> None:
        if unit == MESSAGES:
            self.messages = INFINITE if value == UNLIMITED or self.messages < 0 else self.messages + value
        else:
            self.octets = INFINITE if value == UNLIMITED or self.octets < 0 else self.octets + value
            self.weighs = self.octets >= 0
        if self.weighs:
            self.queue.consumers.weighing = True

    def no_credit(self) -> None:
        """Until there is new credit, nothing more is sent."""
        self.messages = 0
        self.octets = 0
        self.period += 1

    def give_back_credit(self, done: Delivered) -> None:
        """The client has completed a transfer in window mode."""
        if done.period != self.period:
            return
        if self.messages >= 0:
            self.messages += 1
        if self.octets >= 0:
            self.octets += done.size
        connection = self.session.connection
        if self.parked and connection is not None:
            connection.wake_later(self)

    def flush(self, done: Callable[[], None]) -> None:
        """message.flush: `done` is called when the credit is used up, or the queue has no more for this client."""
        self._flushed = done
        self.queue.wake(self)
        self.see_flushed()

    def see_flushed(self) -> None:
        """A flush may be over."""
        done = self._flushed
        if done is None:
            return
        queue = self.queue
        cursor = self.cursor
        used_up = self.messages == 0 or self.octets == 0
        if not used_up and self.weighs and queue.ready:
            entry = queue.first()
            used_up = entry is not None and _weight(entry) > self.octets
        idle = not self.parked and not self.starved and not queue.returning and (
            cursor is None and queue.ready == 0 or cursor is not None and not cursor.unfinished)
        waits = queue.settings.single_active and self.attached and queue.consumers.all[0] is not self
        if used_up or idle or waits or not self.attached:
            self._flushed = None
            self.no_credit()
            done()

    def searched(self) -> None:
        self.see_flushed()

    def attached_again(self) -> None:
        """The session is on a connection, perhaps another one."""
        self.starved = False

    # Delivery.

    def ready(self) -> bool:
        session = self.session
        connection = session.connection
        if self.messages == 0 or self.octets == 0 or connection is None or not session.may_send:
            return False
        if 0 < session.most <= len(session.unsettled) and self.settles:
            return False
        if connection.clogged or connection.out_size > connection.full:
            if not self.starved:
                self.starved = True
                connection.starved.append(self)
            return False
        if session.timeout and len(session.sent) > MOST_UNCONFIRMED:
            return False
        if self.weighs:
            entry = self.queue.first()
            return entry is None or _weight(entry) <= self.octets
        return True

    def deliver(self, entry: Entry, message: Message) -> None:
        if message.dialect != AMQP010:
            message = message.translated(self._form)
        if entry.deliveries:
            message = _with_delivery_count(entry, message)
        if entry.redelivered:
            message = _redelivered(message)
        session = self.session
        native = message.native
        number = session.next_out
        connection = session.connection
        if connection is not None:
            connection.messages_out += 1
        if (session.timeout or message.body is not None or connection is None or len(native) > connection.frame_out
                or not native[0] & LAST_FRAME):
            session.transfer(self._content, message)
        else:
            session.next_out = number + 1
            channel = session.channel
            if channel != self._channel:
                self._prepare(channel)
            if native[7] != channel & 255 or native[6] != channel >> 8:
                native = for_channel(native, channel)
            out = connection.out
            out.append(self._prefix)
            out.append(native)
            connection.out_size += len(native) + len(self._prefix)
            if not connection.flushing:
                connection.want_flush()
            if number - session.asked >= ASK_EVERY:
                session.ask()
        if self.settles:
            session.unsettled[number] = entry
        elif self.browses:
            self._remember(number, entry)
        if self.messages > 0 or self.octets > 0:
            self._use_credit(number, message)

    def _use_credit(self, number: int, message: Message) -> None:
        if self.messages > 0:
            self.messages -= 1
        done = self._uncounted
        if self.octets >= 0:
            done = Delivered(self, 0, _size(message), self.period)
            self.octets = max(0, self.octets - done.size)
        elif done.period != self.period:
            done = self._uncounted = Delivered(self, 0, 0, self.period)
        if self.mode == WINDOW:
            self.session.delivered[number] = done

    def _remember(self, number: int, entry: Entry) -> None:
        browsed = self.session.browsed
        browsed[number] = Delivered(self, entry.id, 0, 0)
        if len(browsed) > _MOST_BROWSED:
            del browsed[next(iter(browsed))]

    def _prepare(self, channel: int) -> None:
        self._channel = channel
        self._prefix = frame_head(len(self._content), COMMAND, channel,
                                  FIRST_SEGMENT | FIRST_FRAME | LAST_FRAME) + self._content

    def cancelled(self) -> None:
        self.session.queue_deleted(self)


def _size(message: Message) -> int:
    """What a message takes of a credit in bytes: header and body, without the heads of their frames."""
    return header_end(message.native) - FRAME_HEADER + message.size


def _weight(entry: Entry) -> int:
    message = entry.message
    if message is None or message.dialect != AMQP010:
        return entry.size
    return _size(message)


def _redelivered(message: Message) -> Message:
    return Message(message.address, AMQP010, redelivered(message.native), message.body, message.size, message.durable,
                   message.priority, message.expiry, message.arrival)


def _with_delivery_count(entry: Entry, message: Message) -> Message:
    """The message with its `x-delivery-count` header, in a queue that counts deliveries. (Not elsewhere: Qpid's clients
    expect what is delivered again to be what it was, but for its redelivered flag.)"""
    if not entry.queue.settings.counts_deliveries:
        return message
    amendment = Amendment()
    amendment.headers["x-delivery-count"] = entry.deliveries
    return amended(message, amendment, message.address, message.arrival)
