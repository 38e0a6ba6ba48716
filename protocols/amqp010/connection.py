"""A connection of AMQP 0-10: header, handshake, frames, channels, heartbeats, close (section 4 of its transport).

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here: an
error costs the session or the connection, and is logged once.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.errors import AccessRefused, LimitReached
from broker.management import ManagedSession
from broker.message import AMQP010, AMQP010_JMS
from broker.queue import Queue
from broker.security.quotas import CHANNELS
from broker.security.sasl import Challenge, Failure, Outcome, SaslServer, Success
from broker.virtualhost import VirtualHost
from protocols.amqp010.codec import Malformed
from protocols.amqp010.errors import (
    CONNECTION_FORCED,
    FRAMING_ERROR,
    INVALID_PATH,
    NORMAL,
    NOT_ATTACHED,
    SESSION_BUSY,
    TRANSPORT_BUSY,
    ConnectionError010,
    Detached,
    short,
)
from protocols.amqp010.frames import (
    BY_CODE,
    COMMAND,
    CONTROL,
    FIRST_FRAME,
    FRAME_HEADER,
    HEARTBEAT_FRAME,
    LARGEST_FRAME_MAX,
    LAST_FRAME,
    PROTOCOL_HEADER,
    SMALLEST_FRAME_MAX,
    encode,
)
from protocols.amqp010.session import Session
from protocols.amqp010.sessions import Sessions
from protocols.amqp010.subscription import Subscription
from protocols.frontend import FrontEnd, Outlet, speaks_jms

logger = logging.getLogger(__name__)

_START: Final = 0
_SECURE: Final = 1
_TUNE: Final = 2
_OPEN: Final = 3
_RUNNING: Final = 4
_CLOSING: Final = 5
_CLOSED: Final = 6
"""States: what is awaited of the client."""

_CLOSE_MS: Final = 10_000
"""How long we wait for close-ok."""

_LONGEST_CONTROL: Final = 1 << 20
"""Bytes of a control that comes in several frames."""


class Settings:
    """What the server proposes. frame_max in bytes; heartbeat, and the longest time that a detached session is kept,
    in seconds."""

    def __init__(self, frame_max: int, channel_max: int, heartbeat: int, session_seconds: int, version: str,
                 default_host: str) -> None:
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.heartbeat = heartbeat
        self.session_seconds = session_seconds
        self.version = version
        self.default_host = default_host


class Connection(FrontEnd):
    """One client's connection. `peer` names it in the log; `sasl` is what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, registry: Sessions, sasl: SaslServer, outlet: Outlet,
                 peer: str) -> None:
        super().__init__()
        self.broker = broker
        self.settings = settings
        self.registry = registry
        self.sasl = sasl
        self.outlet = outlet
        self.peer = peer
        self.state = _START
        self.frame_max = LARGEST_FRAME_MAX  # what a client may send
        self.frame_out = SMALLEST_FRAME_MAX  # and what it is sent
        self.channel_max = 0
        self.heartbeat = 0  # s
        self.form = AMQP010  # that messages of other dialects are translated into
        self.sessions: dict[int, Session] = {}
        self.own_queues: dict[Queue, None] = {}  # those that go with the connection
        self.starved: list[Subscription] = []  # those that had to wait for the socket
        self.flushing = False  # the outlet knows that there is output
        self.holding = False  # the client tried to publish while an alarm was raised
        self._host: VirtualHost | None = None
        self._due: list[Session] = []  # sessions with completions to tell
        self._woken: list[Subscription] = []
        self._chunks: list[bytes] = []  # input that is not a whole frame yet
        self._have = 0
        self._need = 0
        self._controls: dict[int, list[bytes]] = {}  # the beginnings of controls, by channel
        self._close_by = 0  # ms since the epoch: when to wait no longer
        self.last_input = broker.clock.now
        self._last_output = broker.clock.now
        self._greet()

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

    def control(self, method: str, channel: int, /, **values: Any) -> None:
        self.write(encode(method, channel, self.frame_out, **values))

    def take_output(self) -> list[bytes]:
        if self._due:
            due, self._due = self._due, []
            for session in due:
                session.is_due = False
                if session.connection is self:
                    session.tell_completed()
        self.flushing = False
        self._last_output = self.broker.clock.now
        out = self.out
        self.out = []
        self.out_size = 0
        return out

    def drained(self) -> None:
        starved, self.starved = self.starved, []
        for subscription in starved:
            subscription.starved = False
            subscription.queue.wake(subscription)
            subscription.see_flushed()

    def due(self, session: Session) -> None:
        """The session has something to tell: with the next output."""
        if not session.is_due:
            session.is_due = True
            self._due.append(session)
            if not self.flushing:
                self.want_flush()

    def wake_later(self, subscription: Subscription) -> None:
        """A parked subscription has room again: its queue is asked when all input is done with."""
        if not self._woken or self._woken[-1] is not subscription:  # it is told of each message that is completed
            self._woken.append(subscription)

    def _wake(self) -> None:
        while self._woken:
            woken, self._woken = self._woken, []
            for subscription in woken:
                if subscription.parked:
                    subscription.queue.wake(subscription)

    # Input.

    def receive(self, data: bytes) -> None:
        self.last_input = self.broker.clock.now
        if self._need or self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need or self.holding:
                return
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._need = 0
        at = self._frames(data, 0)
        if at < len(data) and self.state != _CLOSED:
            left = len(data) - at
            self._keep(data, at, FRAME_HEADER if left < FRAME_HEADER else data[at + 2] << 8 | data[at + 3])
        if self._woken:
            self._wake()

    def _keep(self, data: bytes, at: int, need: int) -> None:
        rest = data[at:]
        self._chunks.append(rest)
        self._have = len(rest)
        self._need = need

    def _frames(self, data: bytes, at: int) -> int:
        """Handle all whole frames from `at` on. Gives where the first that is not whole begins."""
        end = len(data)
        while end - at >= FRAME_HEADER and self.state != _CLOSED:
            size = data[at + 2] << 8 | data[at + 3]
            stop = at + size
            try:
                if size < FRAME_HEADER or size > self.frame_max:
                    raise ConnectionError010(FRAMING_ERROR, f"a frame of {size} bytes: it must have {FRAME_HEADER} to "
                                                            f"{self.frame_max}")
                flags = data[at]
                kind = data[at + 1]
                if flags & 0xF0 or kind > 3 or (data[at + 5] & 15 == 0) is not (kind == CONTROL):
                    raise ConnectionError010(FRAMING_ERROR, f"a frame with flags {flags:#x}, segment type {kind}, "
                                                            f"track {data[at + 5]}")
                if stop > end:
                    return at
                channel = data[at + 6] << 8 | data[at + 7]
                if kind == CONTROL:
                    self._control_frame(flags, channel, data, at + FRAME_HEADER, stop)
                elif self.state == _RUNNING:
                    session = self.sessions.get(channel)
                    if session is not None:
                        if (kind == COMMAND and self.broker.memory.alarms and stop - at > FRAME_HEADER + 1
                                and data[at + 12] == 4 and data[at + 13] == 1 and flags & FIRST_FRAME):
                            self._hold()
                            return at
                        session.frame(flags, kind, data, at + FRAME_HEADER, stop)
                elif self.state < _RUNNING:
                    raise ConnectionError010(FRAMING_ERROR, "the connection is not open yet")
            except ConnectionError010 as error:
                self.close_with(error.code, error.text)
                if self.state != _CLOSED:  # what follows a frame of a wrong size is none
                    return end
            at = stop
        return at if self.state != _CLOSED else end

    def _control_frame(self, flags: int, channel: int, data: bytes, at: int, stop: int) -> None:
        if flags & (FIRST_FRAME | LAST_FRAME) == FIRST_FRAME | LAST_FRAME and channel not in self._controls:
            self._control(channel, data, at, stop)
            return
        if flags & FIRST_FRAME and channel not in self._controls and len(self._controls) < 16:
            self._controls[channel] = []
        parts = self._controls.get(channel)
        if parts is None or flags & FIRST_FRAME and parts:
            raise ConnectionError010(FRAMING_ERROR, "a control's frames do not follow each other")
        parts.append(data[at:stop])
        if sum(map(len, parts)) > _LONGEST_CONTROL:
            raise ConnectionError010(FRAMING_ERROR, f"a control is longer than {_LONGEST_CONTROL} bytes")
        if flags & LAST_FRAME:
            del self._controls[channel]
            whole = b"".join(parts)
            self._control(channel, whole, 0, len(whole))

    def _control(self, channel: int, data: bytes, at: int, stop: int) -> None:
        code = data[at] << 8 | data[at + 1] if stop - at >= 2 else 0
        method = BY_CODE.get(code)
        if method is None or method.is_command():
            raise ConnectionError010(FRAMING_ERROR, f"there is no control {code & 0xFF} of class {code >> 8}")
        try:
            m = method.decode(data, at + 2, stop)
        except Malformed as error:
            raise ConnectionError010(FRAMING_ERROR, f"{method.name}: {error}") from None
        if code >> 8 == 1:
            self._connection_control(method.name, m)
        elif self.state == _RUNNING:
            self._session_control(method.name, channel, m)
        elif self.state < _RUNNING:
            raise ConnectionError010(FRAMING_ERROR, "the connection is not open yet")

    # Sessions.

    def _session_control(self, name: str, channel: int, m: dict[str, Any]) -> None:
        session = self.sessions.get(channel)
        try:
            if name == "session.attach":
                self._attach(channel, _name(m), m["force"], session)
            elif session is None:
                if name not in ("session.detached", "session.detach"):
                    raise Detached(NOT_ATTACHED, f"{name}: there is no session on channel {channel}")
                if name == "session.detach":
                    self.control("session.detached", channel, name=_name(m), code=NOT_ATTACHED)
            else:
                session.control(name, m)
        except Detached as error:
            logger.warning("%s: channel %d is detached: %s", self.peer, channel, error.text)
            name_of = session.name if session is not None else m.get("name", b"")
            if session is not None:
                session.end()
            self.control("session.detached", channel, name=name_of, code=error.code)

    def _attach(self, channel: int, name: bytes, force: bool, there: Session | None) -> None:
        if there is not None and there.name == name and not there.failed:
            self.control("session.attached", channel, name=name)  # once more is no error
            return
        if there is not None and not there.failed:
            self.control("session.detached", channel, name=name, code=TRANSPORT_BUSY)
            return
        if channel > self.channel_max:
            raise ConnectionError010(FRAMING_ERROR, f"channel {channel} is above the maximum {self.channel_max}")
        if there is not None:
            there.end()
        session = self.registry.find(self.host, self.user, name)
        if session is not None and session.connection is not None and not force:
            self.control("session.detached", channel, name=name, code=SESSION_BUSY)
            return
        try:
            self.quota.take(CHANNELS)
        except LimitReached as error:
            raise ConnectionError010(CONNECTION_FORCED, str(error)) from None
        if session is not None and session.connection is not None:
            session.taken_away()
        if session is None:
            session = Session(self, name)
            self.registry.add(session)
        self.sessions[channel] = session
        session.attach(self, channel)

    def forget(self, session: Session) -> None:
        """The session is no longer attached here."""
        if self.sessions.get(session.channel) is session:
            del self.sessions[session.channel]
            self.quota.give(CHANNELS)

    # Handshake, and the controls of the connection.

    def _greet(self) -> None:
        self.write(PROTOCOL_HEADER)
        properties = {"product": "Dragoman", "version": self.settings.version, "platform": "Python",
                      "qpid.federation_tag": self.broker.identity}
        self.control("connection.start", 0, server_properties=properties, mechanisms=list(self.sasl.mechanisms),
                     locales=["en_US"])

    def _connection_control(self, name: str, m: dict[str, Any]) -> None:
        if self.state == _CLOSED:
            return
        if self.state == _CLOSING:
            if name in ("connection.close-ok", "connection.close"):
                if name == "connection.close":
                    self.control("connection.close-ok", 0)
                self._finish()
        elif name == "connection.heartbeat":
            return
        elif name == "connection.close":
            self._let_go()
            self.control("connection.close-ok", 0)
            self.state = _CLOSED  # the client hangs up; one that saw us do so too early may miss the close-ok
            self._close_by = self.broker.clock.now + 1000
        elif name == "connection.start-ok" and self.state == _START:
            self.properties = m.get("client_properties", {})
            if speaks_jms(self.properties):
                self.form = AMQP010_JMS
            self.mechanism = m.get("mechanism", "")
            self.sasl.start(self.mechanism, m.get("response", b""), self._logged_in)
        elif name == "connection.secure-ok" and self.state == _SECURE:
            self.state = _START  # until there is an outcome, another one cannot come
            self.sasl.step(m.get("response", b""), self._logged_in)
        elif name == "connection.tune-ok" and self.state == _TUNE:
            self._tune_ok(m)
        elif name == "connection.open" and self.state == _OPEN:
            self._open(m)
        else:
            raise ConnectionError010(FRAMING_ERROR, f"{name} cannot come now")

    def _logged_in(self, outcome: Outcome) -> None:
        """What SASL says, at once or when the password was checked."""
        if self.state >= _CLOSING:
            return
        if isinstance(outcome, Challenge):
            self.control("connection.secure", 0, challenge=outcome.data)
            self.state = _SECURE
        elif isinstance(outcome, Success):
            self.user = outcome.user
            self.identity = outcome.identity
            settings = self.settings
            self.control("connection.tune", 0, channel_max=settings.channel_max, max_frame_size=settings.frame_max,
                         heartbeat_min=0, heartbeat_max=settings.heartbeat)
            self.state = _TUNE
        elif isinstance(outcome, Failure):
            logger.warning("%s: login refused: %s", self.peer, outcome.reason)
            self.broker.management.refused(self, outcome.reason)
            self._say_close(CONNECTION_FORCED, "Authentication failed")

    def _tune_ok(self, m: dict[str, Any]) -> None:
        settings = self.settings
        frame_max = m.get("max_frame_size", 0) or settings.frame_max
        if frame_max > settings.frame_max or frame_max < SMALLEST_FRAME_MAX:
            raise ConnectionError010(FRAMING_ERROR, f"max-frame-size {frame_max} is not between {SMALLEST_FRAME_MAX} "
                                                    f"and {settings.frame_max}")
        channel_max = m.get("channel_max", settings.channel_max)
        if channel_max > settings.channel_max:
            raise ConnectionError010(FRAMING_ERROR, f"channel-max {channel_max} is above {settings.channel_max}")
        self.frame_out = frame_max
        self.channel_max = channel_max
        self.heartbeat = m.get("heartbeat", 0)
        self.state = _OPEN

    def _open(self, m: dict[str, Any]) -> None:
        wanted = m.get("virtual_host", "")
        hosts = self.broker.hosts
        host = hosts.get(wanted) or hosts.get(wanted.removeprefix("/"))
        if host is None and wanted in ("", "/"):
            host = hosts.get(self.settings.default_host)
        if host is None:
            raise ConnectionError010(INVALID_PATH, f"there is no virtual host '{wanted}'")
        try:
            self.outlet.admit(self, host.name)
        except AccessRefused:
            raise ConnectionError010(CONNECTION_FORCED, f"access to vhost '{host.name}' refused for user "
                                                        f"'{self.user}'") from None
        except LimitReached as error:
            raise ConnectionError010(CONNECTION_FORCED, str(error)) from None
        self._host = host
        self.opened = True
        self.host_name = host.name
        self.dialect = "AMQP 0-10"
        self.state = _RUNNING
        logger.info("%s: user %s opened vhost %s by AMQP 0-10", self.peer, self.user, host.name)
        self.control("connection.open-ok", 0, known_hosts=[])
        self.broker.management.opened(self)

    # Errors and the end.

    def close_with(self, code: int, text: str) -> None:
        """Close the connection for an error, wait a while for the client to agree, and log it."""
        if self.state >= _CLOSING:
            if self.state == _CLOSING:  # nonsense instead of close-ok: there is no use in waiting
                self._finish()
            return
        logger.warning("%s: the connection is closed: %s", self.peer, text)
        self._say_close(code, text)

    def _say_close(self, code: int, text: str) -> None:
        self._let_go()
        self.control("connection.close", 0, reply_code=code, reply_text=short(text))
        self.state = _CLOSING
        self._close_by = self.broker.clock.now + _CLOSE_MS

    def _let_go(self) -> None:
        """The client is gone: sessions that it may come back to are kept, all others end."""
        sessions = list(self.sessions.values())
        self.sessions.clear()
        for session in sessions:
            session.disconnected()
        for queue in self.own_queues:
            queue.orphaned()
        self.own_queues.clear()
        self.starved.clear()
        self._woken.clear()
        self._due.clear()
        self._controls.clear()
        self.sasl.close()
        self.broker.management.closed(self)

    def _finish(self) -> None:
        self.state = _CLOSED
        self.finished = True
        self._chunks.clear()
        self._need = 0
        self.want_flush()

    def _hold(self) -> None:
        """The client publishes while an alarm is raised: read no more until it is over."""
        if not self.holding:
            self.holding = True
            self.outlet.pause_reading()

    def alarms_changed(self, reasons: list[str]) -> None:
        if self.state != _RUNNING or reasons:
            return
        if self.holding:
            self.holding = False
            self.last_input = self.broker.clock.now
            self.outlet.resume_reading()
            self.receive_rest(self.broker.management)

    def tick(self, now: int) -> None:
        if self.state >= _CLOSING:
            if now > self._close_by and not self.finished:
                self._finish()
            return
        if self.state == _RUNNING:
            for session in self.sessions.values():
                session.tick()
        interval = self.heartbeat * 1000
        if not interval or self.state != _RUNNING:
            return
        if now - self._last_output >= interval // 2 - 500 and not self.out:
            self.write(HEARTBEAT_FRAME)
        if now - self.last_input > 2 * interval + 1000 and not self.holding:
            logger.warning("%s: closed, missed heartbeats from the client for %d s", self.peer, 2 * self.heartbeat)
            self._let_go()
            self._finish()

    def shut_down(self, text: str) -> None:
        if self.state == _RUNNING:
            self._say_close(CONNECTION_FORCED, text)
        elif self.state != _CLOSING:
            self._finish()

    def end_session_by_order(self, channel: int, text: str) -> None:
        session = self.sessions[channel]
        session.end()
        self.control("session.detached", channel, name=session.name, code=NORMAL)

    def managed_sessions(self) -> list[ManagedSession]:
        return [ManagedSession(session.name.decode("utf-8", "replace"), number, len(session.unsettled),
                               list(session.subscriptions.values())) for number, session in self.sessions.items()]

    def lost(self) -> None:
        if self.state == _RUNNING:
            logger.info("%s: the client hung up without closing the connection", self.peer)
        self.state = _CLOSED
        self._let_go()
        self._chunks.clear()


def _name(m: dict[str, Any]) -> bytes:
    name: bytes = m.get("name", b"")
    return name
