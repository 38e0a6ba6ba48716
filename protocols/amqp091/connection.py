"""A connection of 0-9-1 (0-9, 0-8): frames, channels, heartbeats, close. Its opening is in opening.py.

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here: an
error costs the channel or the connection, as `ProtocolError.hard` says, and is logged once.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.errors import BrokerError, LimitReached
from broker.management import ManagedSession
from broker.queue import Queue
from broker.security.quotas import CHANNELS
from broker.security.sasl import SaslServer
from protocols.amqp091.codec import Malformed, u16, u32
from protocols.amqp091.commands import COMMANDS
from protocols.amqp091.consumer import BasicConsumer
from protocols.amqp091.errors import ProtocolError, reply_to
from protocols.amqp091.frames import BODY, END, HEADER, HEARTBEAT, HEARTBEAT_FRAME, METHOD, Method, Variant
from protocols.amqp091.opening import Opening, Settings, short
from protocols.amqp091.session import PUBLISH, Channel
from protocols.connection import CLOSED, CLOSING, RUNNING
from protocols.frontend import CONGESTED, HELD, Outlet

logger = logging.getLogger(__name__)

_ACK: Final = 0x003C0050


class Connection(Opening):
    """One client's connection. `peer` names it in the log; `sasl` is what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, sasl: SaslServer, outlet: Outlet, peer: str,
                 variant: Variant) -> None:
        super().__init__(broker, settings, sasl, outlet, peer, variant)
        self.channels: dict[int, Channel] = {}
        self.exclusive_queues: dict[Queue, None] = {}
        self._told_blocked = False
        self.starved: list[BasicConsumer] = []  # consumers that had to wait for the socket
        self._due: list[Channel] = []  # channels with confirms to tell
        self._awaited = 0  # bytes of a message that is not whole yet
        self.begin()

    # Output.

    def tell_news(self) -> None:
        due, self._due = self._due, []
        for channel in due:
            channel.confirms_are_due = False
            if not channel.closing:
                channel.flush_confirms()

    def drained(self) -> None:
        starved, self.starved = self.starved, []
        for consumer in starved:
            consumer.starved = False
            consumer.woken()
        if self.paused & CONGESTED and not self.clogged and self.out_size <= self.full:
            self.unpause(CONGESTED)

    def confirms_due(self, channel: Channel) -> None:
        """The channel has something to tell its publisher: with the next output."""
        if not channel.confirms_are_due:
            channel.confirms_are_due = True
            self._due.append(channel)
            self.has_news = True
            if not self.flushing:
                self.want_flush()

    def wake_later(self, consumer: BasicConsumer) -> None:
        """A parked consumer has room again: its queue is asked when all input is done with."""
        self.woken.append(consumer)

    def say(self, method: str, **values: Any) -> None:
        self.write(self.variant.encode(method, 0, **values))

    # Input.

    def wanted(self, rest: bytes) -> int:
        return 7 if len(rest) < 7 else max(self._awaited, 8 + min(u32(rest, 3), self.frame_max))

    def frames(self, data: bytes, at: int) -> int:
        end = len(data)
        self._awaited = 0
        while end - at >= 7 and self.state != CLOSED:
            size = u32(data, at + 3)
            stop = at + 7 + size
            try:
                if size > self.frame_max - 8:
                    raise ProtocolError(501, f"type {data[at]}, frame of {size + 8} bytes is larger than "
                                             f"{self.frame_max}", 0)
                if stop >= end:
                    return at
                if data[stop] != END:
                    raise ProtocolError(501, f"type {data[at]}, frame of {size} bytes: invalid frame end marker "
                                             f"{data[stop]}", 0)
                channel = self.channels.get(data[at + 1] << 8 | data[at + 2])
                if channel is None or channel.closing or self.state != RUNNING:
                    self._other_frame(data, at, stop)
                    at = stop + 1
                    if self.paused:
                        return at
                    continue
                kind = data[at]
                if kind == METHOD and size >= 4:
                    number = u32(data, at + 7)
                    if channel.expecting:
                        raise channel.unexpected("method")
                    if number == PUBLISH:
                        if self.broker.memory.alarms:
                            self.pause(HELD)
                            return at
                        channel.begin_publish(data, at + 11, stop)
                    elif number == _ACK:
                        channel.ack(data, at + 11, stop)
                    elif self.out_size > self.flooded:
                        self.pause(CONGESTED)
                        return at
                    else:
                        self._command(channel, number, data, at + 11, stop)
                    at = stop + 1
                elif kind == HEADER:
                    after = channel.content_header(data, at, stop, end)
                    if after < 0:
                        self._awaited = -after
                        return at
                    at = after
                elif kind == BODY:
                    channel.content_body(data, at + 7, stop)
                    at = stop + 1
                elif kind == HEARTBEAT:
                    raise ProtocolError(505, f"a frame of type {kind} cannot come on channel {channel.number}", 0)
                else:
                    raise _unknown_frame(data, at, stop)
            except ProtocolError as error:
                self._fail(error, data, at, stop)
                at = stop + 1
            except BrokerError as refusal:  # a name of its own: compiled, a variable has one type
                self._fail(reply_to(refusal), data, at, stop)
                at = stop + 1
        return at if self.state != CLOSED else end

    def _command(self, channel: Channel, number: int, data: bytes, at: int, stop: int) -> None:
        method = self.variant.by_number.get(number)
        if method is None:
            raise ProtocolError(503, f"there is no method {number & 0xFFFF} of class {number >> 16}")
        try:
            arguments = method.decode(data, at, stop)
        except Malformed as error:
            raise ProtocolError(501, str(error)) from None
        if method.name == "channel.close":
            self._close_channel(channel)
            channel.connection.write(self.variant.encode("channel.close-ok", channel.number))
        elif method.name == "channel.open":
            raise ProtocolError(504, "second 'channel.open' seen")
        else:
            command = COMMANDS.get(method.name)
            if command is None:
                raise ProtocolError(503, "unimplemented method")
            command(channel, arguments)

    def _other_frame(self, data: bytes, at: int, stop: int) -> None:
        """A frame that is not for a channel that works: channel 0, a closed channel, before or after the time."""
        kind = data[at]
        number = u16(data, at + 1)
        if kind == HEARTBEAT and number == 0 and stop == at + 7:
            return
        if kind == METHOD and stop - at >= 11:
            method = self.variant.by_number.get(u32(data, at + 7))
            if number == 0:
                self._connection_method(data, at, stop)
            elif self.state == RUNNING:
                channel = self.channels.get(number)
                if channel is not None:  # it is closing: all but the reply to that is ignored
                    self._closing_channel(channel, method)
                elif method is not None and method.name == "channel.open":
                    self._open_channel(number)
                else:
                    raise ProtocolError(504, "expected 'channel.open'")
            elif self.state < RUNNING:
                raise ProtocolError(503, "the connection is not open yet")
        elif self.state == CLOSING or self.state == CLOSED:
            return
        elif kind in (HEADER, BODY) and number and self.state == RUNNING:
            if number not in self.channels:
                raise ProtocolError(504, "expected 'channel.open'")
        elif kind == BODY or (kind == HEARTBEAT and number) or (kind == HEADER and stop - at >= 21):
            raise ProtocolError(505, f"a frame of type {kind} cannot come on channel {number}", 0)
        else:
            raise _unknown_frame(data, at, stop)

    def _closing_channel(self, channel: Channel, method: Method | None) -> None:
        """A method on a channel that we have closed. Both sides may close at once: then both still answer."""
        name = "" if method is None else method.name
        if name == "channel.close-ok":
            del self.channels[channel.number]
        elif name == "channel.close":
            channel.closed_by_both = True
            self.write(self.variant.encode("channel.close-ok", channel.number))
        elif name == "channel.open" and channel.closed_by_both:  # without having answered
            del self.channels[channel.number]
            self._open_channel(channel.number)

    def _open_channel(self, number: int) -> None:
        if len(self.channels) >= self.channel_max:
            raise ProtocolError(530, f"number of channels opened ({len(self.channels)}) has reached the negotiated "
                                     f"channel_max ({self.channel_max})", 0)
        try:
            self.quota.take(CHANNELS)
        except LimitReached as error:
            raise ProtocolError(530, str(error), 0) from None
        self.channels[number] = Channel(self, number)
        self.write(self.variant.encode("channel.open-ok", number))

    def _close_channel(self, channel: Channel) -> None:
        del self.channels[channel.number]
        channel.close()

    # Errors.

    def _fail(self, error: ProtocolError, data: bytes, at: int, stop: int) -> None:
        """Close what the error costs, and say so."""
        class_id = method_id = 0
        number = u16(data, at + 1)
        if error.about >= 0:
            class_id, method_id = error.about >> 16, error.about & 0xFFFF
        elif data[at] == METHOD and stop - at >= 11 and stop < len(data):
            class_id, method_id = u16(data, at + 7), u16(data, at + 9)
        elif self.channels.get(number) is not None and data[at] in (HEADER, BODY):
            class_id, method_id = 60, 40
        channel = self.channels.get(number)
        if error.hard() or channel is None:
            self.close_with(error, class_id, method_id)
            return
        logger.warning("%s: channel %d is closed: %s", self.peer, number, error.text)
        channel.close()
        self.write(self.variant.encode("channel.close", number, reply_code=error.code, reply_text=short(error.text),
                                       class_id=class_id, method_id=method_id))

    def close_with(self, error: ProtocolError, class_id: int, method_id: int) -> None:
        """Close the connection for an error, wait a while for the client to agree, and log it."""
        if self.state >= CLOSING:
            if self.state == CLOSING:  # nonsense instead of close-ok: there is no use in waiting
                self.finish()
            return
        logger.warning("%s: the connection is closed: %s", self.peer, error.text)
        self.let_go()
        self.say("connection.close", reply_code=error.code, reply_text=short(error.text), class_id=class_id,
                   method_id=method_id)
        self.await_close()

    def let_go(self) -> None:
        channels = list(self.channels.values())
        self.channels.clear()
        for channel in channels:
            if not channel.closing:
                channel.close()
        for queue in list(self.exclusive_queues):
            queue.orphaned()
        self.exclusive_queues.clear()
        self.starved.clear()
        self._due.clear()
        super().let_go()

    # Channel 0.

    def _connection_method(self, data: bytes, at: int, stop: int) -> None:
        number = u32(data, at + 7)
        method = self.variant.by_number.get(number)
        if self.state == CLOSED:
            return
        if self.state == CLOSING:
            if method is not None and method.name in ("connection.close-ok", "connection.close"):
                if method.name == "connection.close":
                    self.say("connection.close-ok")
                self.finish()
            return
        if method is None:
            raise ProtocolError(503, f"there is no method {number & 0xFFFF} of class {number >> 16}")
        try:
            m = method.decode(data, at + 11, stop)
        except Malformed as error:
            raise ProtocolError(501, str(error)) from None
        if method.name == "connection.close":
            self.let_go()
            self.say("connection.close-ok")
            self.await_hang_up()
        else:
            self.opening_method(method.name, m)

    # Alarms, time, the end.

    def alarms_changed(self, reasons: list[str]) -> None:
        if self.state == RUNNING and self.notifies_blocked and self._told_blocked is not bool(reasons):
            self._told_blocked = not self._told_blocked
            if reasons:
                self.say("connection.blocked", reason=short("; ".join(reasons)))
            else:
                self.say("connection.unblocked")
        super().alarms_changed(reasons)

    def beat(self, now: int) -> None:
        self.heartbeats(now, self.heartbeat, HEARTBEAT_FRAME)

    def end_session_by_order(self, channel: int, text: str) -> None:
        ended = self.channels[channel]
        if not ended.closing:
            ended.close()
            self.write(self.variant.encode("channel.close", channel, reply_code=320, class_id=0, method_id=0,
                                           reply_text=short(f"CONNECTION_FORCED - {text}")))

    def managed_sessions(self) -> list[ManagedSession]:
        return [ManagedSession(f"{self.peer}/{channel.number}", channel.number, len(channel.unacked),
                               list(channel.consumers.values())) for channel in self.channels.values()]

    def shut_down(self, text: str) -> None:
        if self.state == RUNNING:
            self.let_go()
            self.say("connection.close", reply_code=320, reply_text=short(f"CONNECTION_FORCED - {text}"))
            self.await_close()
        elif self.state != CLOSING:
            self.finish()


def _unknown_frame(data: bytes, at: int, stop: int) -> ProtocolError:
    return ProtocolError(501, f"type {data[at]}, {stop - at - 7} octets: unknown_frame", 0)
