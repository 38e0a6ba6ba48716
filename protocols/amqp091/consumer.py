"""Consumers of 0-9-1, and how a delivery is written."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from broker.consumer import Consumer
from broker.entry import GONE, Entry
from broker.message import AMQP091, Amendment, Message, amended
from broker.queue import Queue
from protocols.amqp091.codec import short_string
from protocols.amqp091.convert import content_frames, for_channel

if TYPE_CHECKING:
    from protocols.amqp091.session import Channel


class BasicConsumer(Consumer):
    """What basic.consume makes."""

    __slots__ = ("channel", "limit", "outstanding", "started", "starved", "_first", "_tag", "_pack", "_size",
                 "_channel_number")

    def __init__(self, channel: Channel, queue: Queue, tag: str, priority: int, exclusive: bool, settles: bool,
                 limit: int) -> None:
        super().__init__(queue, tag, priority, exclusive, settles)
        self.channel = channel
        self.quota = channel.connection.quota
        self.limit = limit  # deliveries that may wait for their acknowledgement; 0 for any number
        self.outstanding = 0
        self.started = False  # consume-ok was sent
        self.starved = False  # the connection knows that this one waits for its socket
        number = channel.number
        self._channel_number = number
        self._first = bytes([1, number >> 8, number & 255])
        self._tag = b"\x00\x3c\x00\x3c" + short_string(tag)
        self._size = len(self._tag) + 9
        self._pack = Struct(f">3sI{len(self._tag)}sQB").pack

    def ready(self) -> bool:
        channel = self.channel
        if self.settles:
            if (0 < self.limit <= self.outstanding) or (0 < channel.limit <= channel.outstanding):
                return False
        connection = channel.connection
        if connection.clogged or connection.out_size > connection.full:
            if not self.starved:
                self.starved = True
                connection.starved.append(self)
            return False
        return self.started and channel.flowing

    def deliver(self, entry: Entry, message: Message) -> None:
        channel = self.channel
        channel.delivery_tag += 1
        tag = channel.delivery_tag
        if self.settles:
            channel.unacked[tag] = entry
            channel.outstanding += 1
            self.outstanding += 1
        if message.dialect != AMQP091:
            message = message.translated(channel.connection.form)
        if entry.deliveries:
            message = with_delivery_count(entry, message)
        route = message.address.short_strings
        head = self._pack(self._first, self._size + len(route), self._tag, tag, entry.redelivered)
        native = message.native
        connection = channel.connection
        connection.messages_out += 1
        if channel.held is None and message.body is None and len(native) <= connection.frame_max:
            number = self._channel_number
            if native[2] != number & 255 or native[1] != number >> 8:
                native = for_channel(native, number)
            out = connection.out
            out.append(head)
            out.append(route)
            out.append(b"\xce")
            out.append(native)
            connection.out_size += len(native) + 64
            if not connection.flushing:
                connection.want_flush()
        else:
            channel.send(b"".join((head, route, b"\xce")))
            for part in content_frames(message, self._channel_number, connection.frame_max):
                channel.send(part)

    def cancelled(self) -> None:
        self.channel.consumer_cancelled(self)


class BrowsingConsumer(BasicConsumer):
    """It only looks: what its client settles are stand-ins, the entries stay what they are."""

    __slots__ = ()

    def deliver(self, entry: Entry, message: Message) -> None:
        shown = Entry(entry.queue, message, entry.queue_id, entry.lane, entry.id, 0, entry.size, entry.expiry,
                      entry.deliveries, 0)
        shown.state = GONE
        shown.consumer = self
        shown.redelivered = entry.redelivered
        super().deliver(shown, message)


class LeavingBrowser(BrowsingConsumer):
    """Qpid's clients of 0-8 to 0-9-1 browse so: once it has seen all there is, it is cancelled and its client told."""

    __slots__ = ()

    def woken(self) -> None:
        super().woken()
        self.searched()

    def searched(self) -> None:
        queue = self.queue
        cursor = self.cursor
        if not self.attached or self.parked or self.starved or queue.returning \
                or cursor is not None and cursor.unfinished:
            return
        queue.remove(self)
        self.channel.consumers.pop(self.tag, None)
        self.channel.reply("basic.cancel-ok", consumer_tag=self.tag)


def with_delivery_count(entry: Entry, message: Message) -> Message:
    """The message with its `x-delivery-count` header, when the reader is to know: from the second failure on, and in a
    queue that counts deliveries from the first."""
    if entry.deliveries < 2 and not entry.queue.settings.counts_deliveries:
        return message
    amendment = Amendment()
    amendment.headers["x-delivery-count"] = entry.deliveries
    copy = amended(message, amendment, message.address, message.arrival)
    return copy
