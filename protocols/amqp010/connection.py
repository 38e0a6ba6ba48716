"""A connection of AMQP 0-10: frames, channels, heartbeats, close (section 4 of its transport). Its opening is in
opening.py.

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here: an
error costs the session or the connection, and is logged once.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.errors import LimitReached
from broker.management import ManagedSession
from broker.queue import Queue
from broker.security.quotas import CHANNELS
from broker.security.sasl import SaslServer
from protocols.amqp010.codec import Malformed
from protocols.amqp010.completion import Completion
from protocols.amqp010.errors import (
    CONNECTION_FORCED,
    FRAMING_ERROR,
    NORMAL,
    NOT_ATTACHED,
    SESSION_BUSY,
    TRANSPORT_BUSY,
    ConnectionError010,
    Detached,
)
from protocols.amqp010.frames import (
    BY_CODE,
    COMMAND,
    CONTROL,
    FIRST_FRAME,
    FRAME_HEADER,
    HEARTBEAT_FRAME,
    LAST_FRAME,
)
from protocols.amqp010.opening import Opening, Settings
from protocols.amqp010.session import Session
from protocols.amqp010.sessions import Sessions
from protocols.amqp010.subscription import Subscription
from protocols.connection import CLOSED, CLOSING, RUNNING
from protocols.frontend import HELD, Outlet

logger = logging.getLogger(__name__)

_LONGEST_CONTROL: Final = 1 << 20
"""Bytes of a control that comes in several frames."""


class Connection(Opening):
    """One client's connection. `peer` names it in the log; `sasl` is what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, registry: Sessions, sasl: SaslServer, outlet: Outlet,
                 peer: str) -> None:
        super().__init__(broker, settings, sasl, outlet, peer)
        self.registry = registry
        self.sessions: dict[int, Session] = {}
        self.own_queues: dict[Queue, None] = {}  # those that go with the connection
        self.starved: list[Subscription] = []  # those that had to wait for the socket
        self._due: list[Completion] = []  # sessions with completions to tell
        self._controls: dict[int, list[bytes]] = {}  # the beginnings of controls, by channel
        self.greet()

    # Output.

    def tell_news(self) -> None:
        due, self._due = self._due, []
        for session in due:
            session.is_due = False
            if session.connection is self:
                session.tell_completed()

    def drained(self) -> None:
        starved, self.starved = self.starved, []
        for subscription in starved:
            subscription.starved = False
            subscription.queue.wake(subscription)
            subscription.see_flushed()

    def due(self, session: Completion) -> None:
        """The session has something to tell: with the next output."""
        if not session.is_due:
            session.is_due = True
            self._due.append(session)
            self.has_news = True
            if not self.flushing:
                self.want_flush()

    def wake_later(self, subscription: Subscription) -> None:
        """A parked subscription has room again: its queue is asked when all input is done with."""
        if not self.woken or self.woken[-1] is not subscription:  # it is told of each message that is completed
            self.woken.append(subscription)

    # Input.

    def wanted(self, rest: bytes) -> int:
        return FRAME_HEADER if len(rest) < FRAME_HEADER else rest[2] << 8 | rest[3]

    def frames(self, data: bytes, at: int) -> int:
        end = len(data)
        while end - at >= FRAME_HEADER and self.state != CLOSED:
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
                    if self.paused:
                        return stop
                elif self.state == RUNNING:
                    session = self.sessions.get(channel)
                    if session is not None:
                        if (kind == COMMAND and self.broker.memory.alarms and stop - at > FRAME_HEADER + 1
                                and data[at + 12] == 4 and data[at + 13] == 1 and flags & FIRST_FRAME):
                            self.pause(HELD)
                            return at
                        session.frame(flags, kind, data, at + FRAME_HEADER, stop)
                elif self.state < RUNNING:
                    raise ConnectionError010(FRAMING_ERROR, "the connection is not open yet")
            except ConnectionError010 as error:
                self.close_with(error.code, error.text)
                if self.state != CLOSED:  # what follows a frame of a wrong size is none
                    return -1
            at = stop
        return at if self.state != CLOSED else end

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
        elif self.state == RUNNING:
            self._session_control(method.name, channel, m)
        elif self.state < RUNNING:
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

    # Controls of the connection.

    def _connection_control(self, name: str, m: dict[str, Any]) -> None:
        if self.state == CLOSED:
            return
        if self.state == CLOSING:
            if name in ("connection.close-ok", "connection.close"):
                if name == "connection.close":
                    self.control("connection.close-ok", 0)
                self.finish()
        elif name == "connection.heartbeat":
            return
        elif name == "connection.close":
            self.let_go()
            self.control("connection.close-ok", 0)
            self.await_hang_up()
        else:
            self.opening_control(name, m)

    # Errors and the end.

    def close_with(self, code: int, text: str) -> None:
        """Close the connection for an error, wait a while for the client to agree, and log it."""
        if self.state >= CLOSING:
            if self.state == CLOSING:  # nonsense instead of close-ok: there is no use in waiting
                self.finish()
            return
        logger.warning("%s: the connection is closed: %s", self.peer, text)
        self.say_close(code, text)

    def let_go(self) -> None:
        """Sessions that the client may come back to are kept, all others end."""
        sessions = list(self.sessions.values())
        self.sessions.clear()
        for session in sessions:
            session.disconnected()
        for queue in self.own_queues:
            queue.orphaned()
        self.own_queues.clear()
        self.starved.clear()
        self._due.clear()
        self._controls.clear()
        super().let_go()

    def beat(self, now: int) -> None:
        for session in self.sessions.values():
            session.tick()
        self.heartbeats(now, self.heartbeat, HEARTBEAT_FRAME)

    def shut_down(self, text: str) -> None:
        if self.state == RUNNING:
            self.say_close(CONNECTION_FORCED, text)
        elif self.state != CLOSING:
            self.finish()

    def end_session_by_order(self, channel: int, text: str) -> None:
        session = self.sessions[channel]
        session.end()
        self.control("session.detached", channel, name=session.name, code=NORMAL)

    def managed_sessions(self) -> list[ManagedSession]:
        return [ManagedSession(session.name.decode("utf-8", "replace"), number, len(session.unsettled),
                               list(session.subscriptions.values())) for number, session in self.sessions.items()]


def _name(m: dict[str, Any]) -> bytes:
    name: bytes = m.get("name", b"")
    return name
