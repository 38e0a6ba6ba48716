"""A connection of AMQP 1.0: frames, channels, idle time-outs, close (part 2, section 2.4). Its opening is in
opening.py.

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here: an
error costs the link, the session or the connection, as `ProtocolError.costs` says, and is logged once.
"""

from __future__ import annotations

import logging
from typing import Any

from broker.broker import Broker
from broker.errors import BrokerError, LimitReached
from broker.management import ManagedSession
from broker.security.quotas import CHANNELS
from broker.security.sasl import SaslServer
from protocols.amqp10 import frames as f
from protocols.amqp10 import resume
from protocols.amqp10.containers import Containers
from protocols.amqp10.errors import (
    CONNECTION,
    DECODE_ERROR,
    FORCED,
    FRAMING_ERROR,
    ILLEGAL_STATE,
    LIMIT_EXCEEDED,
    LINK,
    SESSION,
    UNAUTHORIZED,
    ProtocolError,
    link_error,
)
from protocols.amqp10.link import Link
from protocols.amqp10.opening import EXPECTING_HEADER, OPENING, Opening, Settings
from protocols.amqp10.outgoing import Outgoing
from protocols.amqp10.session import Session
from protocols.amqp10.transactions import Transactions
from protocols.connection import CLOSED, CLOSING, RUNNING
from protocols.frontend import Outlet
from protocols.values10 import Malformed, Reader

logger = logging.getLogger(__name__)

_EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"


class Connection(Opening):
    """One client's connection. `peer` names it in the log; `sasl` is what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, containers: Containers, sasl: SaslServer, outlet: Outlet,
                 peer: str, header: bytes) -> None:
        super().__init__(broker, settings, containers, sasl, outlet, peer)
        self.sessions: dict[int, Session] = {}
        self.transactions = Transactions(self)
        self.starved: list[Link] = []  # links that had to wait for the socket
        self.suspended: list[Link] = []  # links of ours that may come back, to this connection or another
        self.due: list[Session] = []  # sessions with dispositions to write
        self._deaf = False  # input is no longer looked at
        self.begin(header)

    # Output.

    def tell_news(self) -> None:
        due, self.due = self.due, []
        for session in due:
            session.flush()

    def drained(self) -> None:
        starved, self.starved = self.starved, []
        for link in starved:
            link.starved = False
            link.resume()

    # Input.

    def wanted(self, rest: bytes) -> int:
        if len(rest) < 4 or rest[0] == 0x41:  # of a header
            return 8
        return max(8, min(int.from_bytes(rest[:4], "big"), self.frame_max))

    def frames(self, data: bytes, at: int) -> int:
        end = len(data)
        while end - at >= 8 and self.state != CLOSED and not self.paused and not self._deaf:
            if self.state == EXPECTING_HEADER:
                self.header(data[at:at + 8])
                at += 8
                continue
            size = int.from_bytes(data[at:at + 4], "big")
            channel = data[at + 6] << 8 | data[at + 7]
            stop = at + size
            body = at + 4 * data[at + 4]
            if size < 8 or size > self.frame_max or body < at + 8 or body > stop:
                self._lose_track(f"a frame of {size} bytes says that its body begins at {body - at}"
                                 if 8 <= size <= self.frame_max else
                                 f"a frame of {size} bytes; it can have 8 to {self.frame_max}")
                return end
            if stop > end:
                return at
            kind = data[at + 5]
            at = stop
            try:
                self._frame(kind, channel, data, body, stop)
            except Malformed as malformed:
                self._fail(ProtocolError(DECODE_ERROR, str(malformed), CONNECTION), channel)
            except ProtocolError as error:
                self._fail(error, channel)
            except BrokerError as refusal:  # names of their own: compiled, a variable has one type
                self._fail(link_error(refusal), channel)
        return at if self.state != CLOSED and not self._deaf else end

    def _frame(self, kind: int, channel: int, data: bytes, at: int, stop: int) -> None:
        """A frame's body. Raises: Malformed, ProtocolError."""
        if self.state < EXPECTING_HEADER:
            if kind != f.SASL:
                raise ProtocolError(FRAMING_ERROR, "a frame of SASL was expected", CONNECTION)
            self.sasl_frame(Reader(data, at, stop))
            return
        if kind != f.AMQP:
            raise ProtocolError(FRAMING_ERROR, f"a frame of type {kind} cannot come now", CONNECTION)
        if at == stop:
            return  # nothing but a sign of life
        reader = Reader(data, at, stop)
        code = f.descriptor(reader)
        performative = f.PERFORMATIVES.get(code)
        if performative is None:
            raise Malformed("a frame has a performative that is not known")
        if self.state == CLOSING:
            if code == f.CLOSE.code:
                self.finish()
            return
        values = performative.decode(reader)
        if code == f.TRANSFER.code and self.state == RUNNING:
            session = self.sessions.get(channel)
            if session is None:
                raise self._no_session(channel)
            session.transfer(values, data, reader.at, stop)
            return
        if reader.at != stop:
            raise Malformed(f"there is something behind the {performative.name}")
        if self.state == OPENING:
            if code != f.OPEN.code:
                raise ProtocolError(ILLEGAL_STATE, "a connection begins with open", CONNECTION)
            self.open(f.OPEN.named(values))
        elif code == f.CLOSE.code:
            self._closed(values)
        elif code == f.OPEN.code:
            raise ProtocolError(ILLEGAL_STATE, "the connection is open already", CONNECTION)
        else:
            self._session_frame(code, channel, values)

    def _session_frame(self, code: int, channel: int, values: list[Any]) -> None:
        session = self.sessions.get(channel)
        if code == f.BEGIN.code:
            if session is not None:
                raise ProtocolError(ILLEGAL_STATE, f"channel {channel} has a session already", CONNECTION)
            if channel > self.channel_max:
                raise ProtocolError(FRAMING_ERROR, f"channel {channel} is above channel-max, {self.channel_max}",
                                    CONNECTION)
            try:
                self.quota.take(CHANNELS)
            except LimitReached as error:
                raise ProtocolError(LIMIT_EXCEEDED, str(error), CONNECTION) from None
            self.sessions[channel] = Session(self, channel, f.BEGIN.named(values))
        elif session is None:
            raise self._no_session(channel)
        elif code == f.END.code:
            del self.sessions[channel]
            session.ended_by_client()
        elif not session.ending:
            session.performative(code, values)

    def _no_session(self, channel: int) -> ProtocolError:
        return ProtocolError(ILLEGAL_STATE, f"channel {channel} has no session", CONNECTION)

    # Errors.

    def _lose_track(self, text: str) -> None:
        """What comes is no frame: nobody can say where the next one begins. What the client still sends is read, lest
        it be cut off before it has heard why; but not for long."""
        self._deaf = True
        self._fail(ProtocolError(FRAMING_ERROR, text, CONNECTION), 0)
        self._close_by = self.broker.clock.now

    def _fail(self, error: ProtocolError, channel: int) -> None:
        """Close what the error costs, and say so."""
        session = self.sessions.get(channel)
        if error.costs != CONNECTION and session is not None:
            if session.ending:
                return
            if error.costs == LINK and session.link is not None:
                logger.warning("%s: channel %d: link '%s' is detached: %s", self.peer, channel, session.link.name,
                               error.text)
                session.link.fail(error)
            else:
                logger.warning("%s: channel %d is ended: %s", self.peer, channel, error.text)
                session.fail(error)
            return
        if self.state < EXPECTING_HEADER:
            logger.warning("%s: the login is broken off: %s", self.peer, error.text)
            self.finish()
            return
        self.close_with(error)

    def close_with(self, error: ProtocolError) -> None:
        if self.state >= CLOSING:
            return
        logger.warning("%s: the connection is closed: %s", self.peer, error.text)
        self._close(error)

    def _close(self, error: ProtocolError) -> None:
        if self.state == OPENING:
            self.send_open({"amqp:connection-establishment-failed": True})
        self.let_go()
        self.send(0, f.CLOSE.encode(error=error.value()))
        self.await_close()

    def let_go(self) -> None:
        sessions = list(self.sessions.values())
        self.sessions.clear()
        for session in sessions:
            session.close(resume.CLOSED, self.gone)
        for link in list(self.suspended):
            self.containers.happened(link, resume.CLOSED)
        self.transactions.close()
        self.containers.leave(self)
        self.starved.clear()
        self.due.clear()
        super().let_go()

    def _closed(self, values: list[Any]) -> None:
        """The client closes."""
        if values[0] is not None:
            code, error = f.composite(values[0])
            if code == f.ERROR.code:
                logger.info("%s: the client closes: %s %s", self.peer, error["condition"], error["description"] or "")
        self.let_go()
        self.send(0, f.CLOSE.encode())
        self.finish()

    # Alarms, time, the end.

    def alarms_changed(self, reasons: list[str]) -> None:
        for session in self.sessions.values():
            session.alarms_changed(bool(reasons))

    def beat(self, now: int) -> None:
        self.show_life(now, self.peer_idle, _EMPTY_FRAME)
        if self.is_silent(now, 1000 * self.settings.idle):
            self.close_with(ProtocolError(LIMIT_EXCEEDED, "local-idle-timeout expired", CONNECTION))
            self.finish()

    def end_session_by_order(self, channel: int, text: str) -> None:
        self.sessions[channel].fail(ProtocolError(FORCED, text, SESSION))

    def managed_sessions(self) -> list[ManagedSession]:
        return [ManagedSession(f"{self.peer}/{number}", number, len(session.unsettled),
                               [link.consumer for link in session.links.values() if isinstance(link, Outgoing)])
                for number, session in self.sessions.items() if not session.ending]

    def shut_down(self, text: str) -> None:
        if self.state in (OPENING, RUNNING):
            self._close(ProtocolError(FORCED, text, CONNECTION))
        elif self.state != CLOSING:
            self.finish()

    def expire(self, text: str) -> None:
        self.close_with(ProtocolError(UNAUTHORIZED, text, CONNECTION))
