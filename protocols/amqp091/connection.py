"""A connection of 0-9-1 (0-9, 0-8): handshake, frames, channels, heartbeats, close.

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here: an
error costs the channel or the connection, as `ProtocolError.hard` says, and is logged once.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.errors import AccessRefused, BrokerError, LimitReached
from broker.management import ManagedSession
from broker.message import AMQP091, AMQP091_JMS
from broker.queue import Queue
from broker.security.quotas import CHANNELS
from broker.security.sasl import Challenge, Failure, Outcome, SaslServer, Success
from broker.virtualhost import VirtualHost
from protocols.amqp091.codec import Malformed, u16, u32
from protocols.amqp091.commands import COMMANDS
from protocols.amqp091.consumer import BasicConsumer
from protocols.amqp091.errors import ProtocolError, reply_to
from protocols.amqp091.frames import BODY, END, HEADER, HEARTBEAT, HEARTBEAT_FRAME, METHOD, Method, Variant
from protocols.amqp091.session import PUBLISH, Channel
from protocols.frontend import FrontEnd, Outlet, speaks_jms

logger = logging.getLogger(__name__)

_START, _SECURE, _TUNE, _OPEN, _RUNNING, _CLOSING, _CLOSED = range(7)
"""States: what is awaited of the client. _SECURE is also while a password is being checked."""

_ACK: Final = 0x003C0050

EARLY_FRAME_MAX = 16384
"""The largest frame before the client has tuned, bytes: what a login may need."""

CAPABILITIES = ("publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
                "connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
                "direct_reply_to")


class Settings:
    """What the server proposes, and its name. Sizes in bytes, heartbeat in seconds."""

    def __init__(self, frame_max: int, channel_max: int, heartbeat: int, message_size: int, version: str,
                 cluster_name: str) -> None:
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.heartbeat = heartbeat
        self.message_size = message_size
        self.version = version
        self.cluster_name = cluster_name


class Connection(FrontEnd):
    """One client's connection. `peer` names it in the log; `sasl` is what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, sasl: SaslServer, outlet: Outlet, peer: str,
                 variant: Variant) -> None:
        super().__init__()
        self.broker = broker
        self.settings = settings
        self.message_size = settings.message_size
        self.sasl = sasl
        self.outlet = outlet
        self.peer = peer
        self.variant = variant
        self.state = _START
        self.frame_max = EARLY_FRAME_MAX
        self.channel_max = 0
        self.heartbeat = 0  # s
        self.channels: dict[int, Channel] = {}
        self.exclusive_queues: dict[Queue, None] = {}
        self.notifies_cancel = False  # the client wants to know of cancelled consumers
        self.form = AMQP091  # that messages of other dialects are translated into
        self.instance = ""  # the client id of a client of Qpid's for JMS: whose messages they are, for no-local
        self.notifies_blocked = False
        self._told_blocked = False
        self.closes_on_failure = False  # the client wants connection.close when its login is refused
        self.starved: list[BasicConsumer] = []  # consumers that had to wait for the socket
        self.flushing = False  # the outlet knows that there is output
        self.holding = False  # the client tried to publish while an alarm was raised
        self._host: VirtualHost | None = None
        self._due: list[Channel] = []  # channels with confirms to tell
        self._woken: list[BasicConsumer] = []
        self._chunks: list[bytes] = []  # input that is not a whole frame yet
        self._have = 0
        self._need = 0
        self._awaited = 0  # bytes of a message that is not whole yet
        self._close_by = 0  # ms since the epoch: when to wait no longer for close-ok
        self.last_input = broker.clock.now
        self._last_output = broker.clock.now
        self._begin()

    @property
    def host(self) -> VirtualHost:
        assert self._host is not None
        return self._host

    # Output.

    def write(self, data: bytes) -> None:
        """Add to the output."""
        self.out.append(data)
        self.out_size += len(data)
        if not self.flushing:
            self.want_flush()

    def want_flush(self) -> None:
        self.flushing = True
        self.outlet.want_flush()

    def take_output(self) -> list[bytes]:
        if self._due:
            due, self._due = self._due, []
            for channel in due:
                channel.confirms_are_due = False
                if not channel.closing:
                    channel.flush_confirms()
        self.flushing = False
        self._last_output = self.broker.clock.now
        out = self.out
        self.out = []
        self.out_size = 0
        return out

    def drained(self) -> None:
        starved, self.starved = self.starved, []
        for consumer in starved:
            consumer.starved = False
            consumer.woken()
        if self.congested and not self.clogged and self.out_size <= self.full:
            self.congested = False
            if not self.holding:
                self.outlet.resume_reading()
                self.receive_rest(self.broker.management)

    def confirms_due(self, channel: Channel) -> None:
        """The channel has something to tell its publisher: with the next output."""
        if not channel.confirms_are_due:
            channel.confirms_are_due = True
            self._due.append(channel)
            if not self.flushing:
                self.want_flush()

    def wake_later(self, consumer: BasicConsumer) -> None:
        """A parked consumer has room again: its queue is asked when all input is done with."""
        self._woken.append(consumer)

    def _wake(self) -> None:
        while self._woken:
            woken, self._woken = self._woken, []
            for consumer in woken:
                if consumer.parked:
                    consumer.woken()

    def _send(self, method: str, **values: Any) -> None:
        self.write(self.variant.encode(method, 0, **values))

    # Input.

    def receive(self, data: bytes) -> None:
        self.last_input = self.broker.clock.now
        at = 0
        if self._need:
            if self._have + len(data) < self._need or self.holding or self.congested:
                self._chunks.append(data)
                self._have += len(data)
                return
            at = max(0, self._need - self._have)
            self._chunks.append(data[:at])  # no more than is needed: large chunks are better not copied
            awaited = b"".join(self._chunks)
            self._chunks.clear()
            self._need = 0
            done = self._frames(awaited, 0)
            if done < len(awaited):
                data = awaited[done:] + data[at:]
                at = 0
        at = self._frames(data, at)
        if at < len(data) and self.state != _CLOSED:
            self._keep(data, at)
        if self._woken:
            self._wake()

    def _keep(self, data: bytes, at: int) -> None:
        """Wait for the rest of a frame, or of a message, and join the pieces only once it is there."""
        rest = data[at:]
        self._chunks.append(rest)
        self._have = len(rest)
        self._need = 7 if len(rest) < 7 else max(self._awaited, 8 + min(u32(rest, 3), self.frame_max))

    def _frames(self, data: bytes, at: int) -> int:
        """Handle all whole frames from `at` on. Gives where the first that is not whole begins."""
        end = len(data)
        self._awaited = 0
        while end - at >= 7 and self.state != _CLOSED:
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
                if channel is None or channel.closing or self.state != _RUNNING:
                    self._other_frame(data, at, stop)
                    at = stop + 1
                    continue
                kind = data[at]
                if kind == METHOD and size >= 4:
                    number = u32(data, at + 7)
                    if channel.expecting:
                        raise channel.unexpected("method")
                    if number == PUBLISH:
                        if self.broker.memory.alarms:
                            self._hold()
                            return at
                        channel.begin_publish(data, at + 11, stop)
                    elif number == _ACK:
                        channel.ack(data, at + 11, stop)
                    elif self.out_size > self.flooded:
                        self._wait_for_room()
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
        return at if self.state != _CLOSED else end

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
            elif self.state == _RUNNING:
                channel = self.channels.get(number)
                if channel is not None:  # it is closing: all but the reply to that is ignored
                    self._closing_channel(channel, method)
                elif method is not None and method.name == "channel.open":
                    self._open_channel(number)
                else:
                    raise ProtocolError(504, "expected 'channel.open'")
            elif self.state < _RUNNING:
                raise ProtocolError(503, "the connection is not open yet")
        elif self.state == _CLOSING or self.state == _CLOSED:
            return
        elif kind in (HEADER, BODY) and number and self.state == _RUNNING:
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
        self.write(self.variant.encode("channel.close", number, reply_code=error.code, reply_text=_short(error.text),
                                       class_id=class_id, method_id=method_id))

    def close_with(self, error: ProtocolError, class_id: int, method_id: int) -> None:
        """Close the connection for an error, wait a while for the client to agree, and log it."""
        if self.state >= _CLOSING:
            if self.state == _CLOSING:  # nonsense instead of close-ok: there is no use in waiting
                self._finish()
            return
        logger.warning("%s: the connection is closed: %s", self.peer, error.text)
        self._let_go()
        self._send("connection.close", reply_code=error.code, reply_text=_short(error.text), class_id=class_id,
                   method_id=method_id)
        self.state = _CLOSING
        self._close_by = self.broker.clock.now + 10_000

    def _let_go(self) -> None:
        """Give back all that the client had."""
        channels = list(self.channels.values())
        self.channels.clear()
        for channel in channels:
            if not channel.closing:
                channel.close()
        for queue in list(self.exclusive_queues):
            queue.orphaned()
        self.exclusive_queues.clear()
        self.starved.clear()
        self._woken.clear()
        self._due.clear()
        self.sasl.close()
        self.broker.management.closed(self)

    def _finish(self) -> None:
        self.state = _CLOSED
        self.finished = True
        self._chunks.clear()
        self._need = 0
        self.want_flush()

    # Handshake and channel 0.

    def _begin(self) -> None:
        capabilities = {name: True for name in CAPABILITIES} if self.variant.major == 0 else {}
        properties = {"capabilities": capabilities, "cluster_name": self.settings.cluster_name,
                      "product": "Dragoman (of Qpid's kind)",  # or Qpid's clients never send exchange.bound
                      "version": self.settings.version, "platform": "Python", "copyright": "The Dragoman authors",
                      "information": "Licensed under the Apache License 2.0",
                      "qpid.federation_tag": self.broker.identity}
        self._send("connection.start", version_major=self.variant.major, version_minor=self.variant.minor,
                   server_properties=properties, mechanisms=" ".join(self.sasl.mechanisms).encode(),
                   locales=b"en_US")

    def _connection_method(self, data: bytes, at: int, stop: int) -> None:
        number = u32(data, at + 7)
        method = self.variant.by_number.get(number)
        if self.state == _CLOSED:
            return
        if self.state == _CLOSING:
            if method is not None and method.name in ("connection.close-ok", "connection.close"):
                if method.name == "connection.close":
                    self._send("connection.close-ok")
                self._finish()
            return
        if method is None:
            raise ProtocolError(503, f"there is no method {number & 0xFFFF} of class {number >> 16}")
        try:
            m = method.decode(data, at + 11, stop)
        except Malformed as error:
            raise ProtocolError(501, str(error)) from None
        if method.name == "connection.close":
            self._let_go()
            self._send("connection.close-ok")
            self.state = _CLOSED  # the client hangs up; one that saw us do so too early may miss the close-ok
            self._close_by = self.broker.clock.now + 1000
        elif method.name == "connection.start-ok" and self.state == _START:
            self._start_ok(m)
        elif method.name == "connection.secure-ok" and self.state == _SECURE:
            self.state = _START  # until there is an outcome, another one cannot come
            self.sasl.step(m["response"], self._logged_in)
        elif method.name == "connection.tune-ok" and self.state == _TUNE:
            self._tune_ok(m)
        elif method.name == "connection.open" and self.state == _OPEN:
            self._open(m)
        elif method.name == "connection.update-secret" and self.state == _RUNNING:
            self.sasl.renew(self.identity, m["new-secret"], self._renewed)
        else:
            raise ProtocolError(504 if self.state == _RUNNING else 503, "unexpected method in connection state "
                                + ("running" if self.state == _RUNNING else "starting"))

    def _start_ok(self, m: dict[str, Any]) -> None:
        capabilities = m["client-properties"].get("capabilities")
        if isinstance(capabilities, dict):
            self.notifies_cancel = capabilities.get("consumer_cancel_notify") is True
            self.notifies_blocked = (capabilities.get("connection.blocked") is True
                                     and "connection.blocked" in self.variant.by_name)
            self.closes_on_failure = capabilities.get("authentication_failure_close") is True
        self.mechanism = m["mechanism"]
        self.properties = m["client-properties"]
        if speaks_jms(self.properties):
            self.form = AMQP091_JMS
            self.instance = str(self.properties.get("instance", ""))
        self.sasl.start(m["mechanism"], m["response"], self._logged_in)

    def _logged_in(self, outcome: Outcome) -> None:
        """What SASL says, at once or when the password was checked."""
        if self.state >= _CLOSING:
            return
        if isinstance(outcome, Challenge):
            self._send("connection.secure", challenge=outcome.data)
            self.state = _SECURE
        elif isinstance(outcome, Success):
            self.user = outcome.user
            self.identity = outcome.identity
            self._send("connection.tune", channel_max=self.settings.channel_max, frame_max=self.settings.frame_max,
                       heartbeat=self.settings.heartbeat)
            self.state = _TUNE
        elif isinstance(outcome, Failure):
            logger.warning("%s: login refused: %s", self.peer, outcome.reason)
            self.broker.management.refused(self, outcome.reason)
            if self.closes_on_failure:  # RabbitMQ's words
                self._say_login_failed(403, "ACCESS_REFUSED - Login was refused using authentication mechanism "
                                            f"{_short(self.mechanism)}. For details see the broker logfile.")
            elif self.form == AMQP091_JMS:  # it would wait for half a minute; Broker-J's words
                self._say_login_failed(530, "Authentication failed")
            else:
                self._finish()

    def _say_login_failed(self, code: int, text: str) -> None:
        self._send("connection.close", reply_code=code, reply_text=_short(text))
        self.state = _CLOSING
        self._close_by = self.broker.clock.now + 10_000

    def _renewed(self, outcome: Outcome) -> None:
        """The client has shown a new token: what it may do is as that says, from now on."""
        if self.state != _RUNNING:
            return
        if isinstance(outcome, Success):
            self.identity = outcome.identity
            self.access = self.broker.policy.access(self, self.host_name)
            self._send("connection.update-secret-ok")
        elif isinstance(outcome, Failure):
            logger.warning("%s: the new secret is refused: %s", self.peer, outcome.reason)
            self.close_with(ProtocolError(403, "the new secret was refused"), 10, 70)

    def _tune_ok(self, m: dict[str, Any]) -> None:
        settings = self.settings
        frame_max = m["frame-max"] or settings.frame_max
        if frame_max > settings.frame_max or frame_max < 4096:
            raise ProtocolError(530, f"negotiated frame_max = {frame_max} is not between 4096 and the maximum "
                                     f"allowed value ({settings.frame_max})")
        channel_max = m["channel-max"] or settings.channel_max
        if channel_max > settings.channel_max:
            raise ProtocolError(530, f"negotiated channel_max = {channel_max} is higher than the maximum allowed "
                                     f"value ({settings.channel_max})")
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.heartbeat = m["heartbeat"]
        self.state = _OPEN

    def _open(self, m: dict[str, Any]) -> None:
        host = self.broker.hosts.get(m["virtual-host"])
        if host is None:
            raise ProtocolError(530, f"vhost {m['virtual-host']} not found")
        try:
            self.outlet.admit(self, host.name)
        except AccessRefused:
            raise ProtocolError(530, f"access to vhost '{host.name}' refused for user '{self.user}'") from None
        except LimitReached as limit:  # a name of its own: compiled, a variable has one type
            raise ProtocolError(530, str(limit)) from None
        except BrokerError as error:
            raise ProtocolError(530, f"access to vhost '{host.name}' refused: {error}") from None
        self._host = host
        self.opened = True
        self.host_name = host.name
        self.dialect = self.variant.name
        self.state = _RUNNING
        logger.info("%s: user %s opened vhost %s by %s", self.peer, self.user, host.name, self.variant.name)
        self._send("connection.open-ok")
        self.broker.management.opened(self)
        if self.broker.memory.alarms:
            self.alarms_changed(list(self.broker.memory.alarms.values()))

    # Alarms, time, the end.

    def _wait_for_room(self) -> None:
        """What the client asks for would make more output than it reads."""
        self.congested = True
        self.outlet.pause_reading()

    def _hold(self) -> None:
        """The client publishes while an alarm is raised: read no more until it is over."""
        if not self.holding:
            self.holding = True
            self.outlet.pause_reading()

    def alarms_changed(self, reasons: list[str]) -> None:
        if self.state != _RUNNING:
            return
        if reasons:
            if self.notifies_blocked and not self._told_blocked:
                self._told_blocked = True
                self._send("connection.blocked", reason=_short("; ".join(reasons)))
            return
        if self._told_blocked:
            self._told_blocked = False
            self._send("connection.unblocked")
        if self.holding:
            self.holding = False
            self.last_input = self.broker.clock.now
            if not self.congested:
                self.outlet.resume_reading()
                self.receive_rest(self.broker.management)

    def tick(self, now: int) -> None:
        if self.state >= _CLOSING:
            if now > self._close_by and not self.finished:
                self._finish()
            return
        interval = self.heartbeat * 1000
        if not interval or self.state != _RUNNING:
            return
        if now - self._last_output >= interval // 2 - 500 and not self.out:
            self.write(HEARTBEAT_FRAME)
        if now - self.last_input > 2 * interval + 1000 and not self.holding and not self.congested:
            logger.warning("%s: closed, missed heartbeats from the client for %d s", self.peer, 2 * self.heartbeat)
            self._let_go()
            self._finish()

    def end_session_by_order(self, channel: int, text: str) -> None:
        ended = self.channels[channel]
        if not ended.closing:
            ended.close()
            self.write(self.variant.encode("channel.close", channel, reply_code=320, class_id=0, method_id=0,
                                           reply_text=_short(f"CONNECTION_FORCED - {text}")))

    def managed_sessions(self) -> list[ManagedSession]:
        return [ManagedSession(f"{self.peer}/{channel.number}", channel.number, len(channel.unacked),
                               list(channel.consumers.values())) for channel in self.channels.values()]

    def shut_down(self, text: str) -> None:
        if self.state == _RUNNING:
            self._let_go()
            self._send("connection.close", reply_code=320, reply_text=_short(f"CONNECTION_FORCED - {text}"))
            self.state = _CLOSING
            self._close_by = self.broker.clock.now + 10_000
        elif self.state != _CLOSING:
            self._finish()

    def lost(self) -> None:
        if self.state == _RUNNING:
            logger.info("%s: the client hung up without closing the connection", self.peer)
        self.state = _CLOSED
        self._let_go()
        self._chunks.clear()


def _short(text: str) -> str:
    """As much of a text as a short string takes."""
    return text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")


def _unknown_frame(data: bytes, at: int, stop: int) -> ProtocolError:
    return ProtocolError(501, f"type {data[at]}, {stop - at - 7} octets: unknown_frame", 0)
