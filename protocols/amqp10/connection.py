"""A connection of AMQP 1.0: headers, SASL, open, channels, idle time-outs, close (part 2, section 2.4; part 5).

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here: an
error costs the link, the session or the connection, as `ProtocolError.costs` says, and is logged once.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.errors import AccessRefused, BrokerError, LimitReached
from broker.management import ManagedSession
from broker.security.quotas import CHANNELS
from broker.security.sasl import Challenge, Failure, Outcome, SaslServer, Success
from broker.virtualhost import VirtualHost
from protocols.amqp10 import frames as f
from protocols.amqp10.containers import Containers
from protocols.amqp10.convert import annotations_of  # which registers the converter, too
from protocols.amqp10.errors import (
    CONNECTION,
    DECODE_ERROR,
    FORCED,
    FRAMING_ERROR,
    ILLEGAL_STATE,
    LIMIT_EXCEEDED,
    LINK,
    NOT_ALLOWED,
    SESSION,
    UNAUTHORIZED,
    ProtocolError,
    link_error,
)
from protocols.amqp10.link import Link
from protocols.amqp10.outgoing import Outgoing
from protocols.amqp10.resume import CLOSED
from protocols.amqp10.session import Session
from protocols.amqp10.transactions import Transactions
from protocols.frontend import FrontEnd, Outlet
from protocols.values10 import Malformed, Reader

logger = logging.getLogger(__name__)

HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
PROTOCOL_HEADERS = (HEADER, SASL_HEADER)

_SASL: Final = 0
_RESPONSE: Final = 1
_CHECKING: Final = 2
_HEADER: Final = 3
_OPENING: Final = 4
_RUNNING: Final = 5
_CLOSING: Final = 6
_CLOSED: Final = 7
"""States: what is awaited of the client. While a password is being checked (_CHECKING), input waits."""

EARLY_FRAME_MAX: Final = 16384
"""The largest frame before the connection is open, bytes: what a login may need."""

SHORTEST_IDLE: Final = 1000
"""The shortest idle time-out that a client may ask for, ms: `tick` comes once a second."""

CLOSE_MS: Final = 10_000
"""How long we wait for a client's close."""

CAPABILITIES = ["ANONYMOUS-RELAY", "SHARED-SUBS", "DELAYED_DELIVERY", "sole-connection-for-container"]

_EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"


class Settings:
    """What the server proposes, and its name. Sizes in bytes; idle, and how long a transaction may be open, in
    seconds (0: no time-out)."""

    def __init__(self, frame_max: int, channel_max: int, handle_max: int, idle: int, link_credit: int,
                 transaction_seconds: int, version: str, container_id: str, default_host: str) -> None:
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.handle_max = handle_max
        self.idle = idle
        self.link_credit = link_credit
        self.transaction_seconds = transaction_seconds
        self.version = version
        self.container_id = container_id
        self.default_host = default_host


class Connection(FrontEnd):
    """One client's connection. `peer` names it in the log; `sasl` is what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, containers: Containers, sasl: SaslServer, outlet: Outlet,
                 peer: str, header: bytes) -> None:
        super().__init__()
        self.broker = broker
        self.settings = settings
        self.containers = containers
        self.sasl = sasl
        self.outlet = outlet
        self.peer = peer
        self.state = _SASL
        self.frame_max = EARLY_FRAME_MAX  # of frames that come
        self.peer_frame_max = f.MIN_MAX_FRAME  # of frames that go
        self.channel_max = settings.channel_max
        self.container_id = ""
        self.sessions: dict[int, Session] = {}
        self.transactions = Transactions(self)
        self.starved: list[Link] = []  # links that had to wait for the socket
        self.suspended: list[Link] = []  # links of ours that may come back, to this connection or another
        self.due: list[Session] = []  # sessions with dispositions to write
        self.flushing = False  # the outlet knows that there is output
        self.sole = False  # its container wants no second one
        self._host: VirtualHost | None = None
        self._chunks: list[bytes] = []  # input that is not a whole frame yet
        self._have = 0
        self._need = 0
        self._deaf = False  # input is no longer looked at
        self._close_by = 0  # ms since the epoch: when to wait no longer for the client's close
        self._peer_idle = 0  # ms; 0: no time-out
        self.last_input = broker.clock.now
        self._last_output = broker.clock.now
        self._begin(header)

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

    def send(self, channel: int, body: bytes) -> None:
        """Write a performative as a frame."""
        self.write(f.frame(f.AMQP, channel, body))

    def want_flush(self) -> None:
        self.flushing = True
        self.outlet.want_flush()

    def take_output(self) -> list[bytes]:
        if self.due:
            due, self.due = self.due, []
            for session in due:
                session.flush()
        self.flushing = False
        self._last_output = self.broker.clock.now
        out = self.out
        self.out = []
        self.out_size = 0
        return out

    def drained(self) -> None:
        starved, self.starved = self.starved, []
        for link in starved:
            link.starved = False
            link.resume()

    # Input.

    def receive(self, data: bytes) -> None:
        self.last_input = self.broker.clock.now
        if self._deaf:
            return
        at = 0
        if self._need:
            if self._have + len(data) < self._need or self.state == _CHECKING:
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
            rest = data[at:]
            self._chunks.append(rest)
            self._have = len(rest)
            self._need = 8
            if self._have >= 4 and rest[0] != 0x41 and self.state != _CHECKING:
                self._need = max(8, min(int.from_bytes(rest[:4], "big"), self.frame_max))

    def _frames(self, data: bytes, at: int) -> int:
        """Handle all whole frames from `at` on. Gives where the first that is not whole begins."""
        end = len(data)
        while end - at >= 8 and self.state != _CLOSED and self.state != _CHECKING and not self._deaf:
            if self.state == _HEADER:
                self._header(data[at:at + 8])
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
        return at if self.state != _CLOSED else end

    def _frame(self, kind: int, channel: int, data: bytes, at: int, stop: int) -> None:
        """A frame's body. Raises: Malformed, ProtocolError."""
        if self.state < _HEADER:
            if kind != f.SASL:
                raise ProtocolError(FRAMING_ERROR, "a frame of SASL was expected", CONNECTION)
            self._sasl_frame(Reader(data, at, stop))
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
        if self.state == _CLOSING:
            if code == f.CLOSE.code:
                self._finish()
            return
        values = performative.decode(reader)
        if code == f.TRANSFER.code and self.state == _RUNNING:
            session = self.sessions.get(channel)
            if session is None:
                raise self._no_session(channel)
            session.transfer(values, data, reader.at, stop)
            return
        if reader.at != stop:
            raise Malformed(f"there is something behind the {performative.name}")
        if self.state == _OPENING:
            if code != f.OPEN.code:
                raise ProtocolError(ILLEGAL_STATE, "a connection begins with open", CONNECTION)
            self._open(f.OPEN.named(values))
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
        if self.state < _HEADER:
            logger.warning("%s: the login is broken off: %s", self.peer, error.text)
            self._finish()
            return
        self.close_with(error)

    def close_with(self, error: ProtocolError) -> None:
        """Close the connection for an error, and log it."""
        if self.state >= _CLOSING:
            return
        logger.warning("%s: the connection is closed: %s", self.peer, error.text)
        self._close(error)

    def _close(self, error: ProtocolError) -> None:
        if self.state == _OPENING:
            self._send_open({"amqp:connection-establishment-failed": True})
        self._let_go(False)
        self.send(0, f.CLOSE.encode(error=error.value()))
        self.state = _CLOSING
        self._close_by = self.broker.clock.now + CLOSE_MS

    def _let_go(self, failed: bool) -> None:
        """Give back all that the client had. failed: it did not say good-bye."""
        sessions = list(self.sessions.values())
        self.sessions.clear()
        for session in sessions:
            session.close(CLOSED, failed)
        for link in list(self.suspended):
            self.containers.happened(link, CLOSED)
        self.transactions.close()
        self.containers.leave(self)
        self.broker.management.closed(self)
        self.starved.clear()
        self.due.clear()
        self.sasl.close()

    def _finish(self) -> None:
        self.state = _CLOSED
        self.finished = True
        self._chunks.clear()
        self._need = 0
        self.want_flush()

    # The handshake.

    def _begin(self, header: bytes) -> None:
        if header == SASL_HEADER:
            self.write(SASL_HEADER + f.frame(f.SASL, 0, f.SASL_MECHANISMS.encode(**{
                "sasl-server-mechanisms": self.sasl.mechanisms})))
        elif "ANONYMOUS" in self.sasl.mechanisms:
            self._check()
            self.sasl.start("ANONYMOUS", b"", self._let_in)
        else:
            logger.warning("%s: closed, it does not log in, and the listener is not anonymous", self.peer)
            self.write(SASL_HEADER)
            self._finish()

    def _check(self) -> None:
        """SASL is at work, which may take a while: read nothing until it is done."""
        self.state = _CHECKING
        self.outlet.pause_reading()

    def _let_in(self, outcome: Outcome) -> None:
        """A client without a SASL layer, where the listener allows that."""
        self.outlet.resume_reading()
        if isinstance(outcome, Success):
            self.user = outcome.user
            self.identity = outcome.identity
            self.write(HEADER)
            self.state = _OPENING
        else:
            self.write(SASL_HEADER)
            self._finish()

    def _sasl_frame(self, reader: Reader) -> None:
        code = f.descriptor(reader)
        performative = f.SASL_FRAMES.get(code)
        if performative is None:
            raise Malformed("a frame of SASL has a performative that is not known")
        values = performative.decode(reader)
        if code == f.SASL_INIT.code and self.state == _SASL:
            self._check()
            self.mechanism = str(values[0])
            self.sasl.start(values[0], values[1], self._logged_in)
        elif code == f.SASL_RESPONSE.code and self.state == _RESPONSE:
            self._check()
            self.sasl.step(values[0], self._logged_in)
        else:
            raise ProtocolError(ILLEGAL_STATE, f"{performative.name} cannot come now", CONNECTION)

    def _logged_in(self, outcome: Outcome) -> None:
        """What SASL says, at once or when the password was checked."""
        if self.state >= _CLOSING:
            return
        self.outlet.resume_reading()
        if isinstance(outcome, Challenge):
            self.write(f.frame(f.SASL, 0, f.SASL_CHALLENGE.encode(challenge=outcome.data)))
            self.state = _RESPONSE
        elif isinstance(outcome, Success):
            self.user = outcome.user
            self.identity = outcome.identity
            body = f.SASL_OUTCOME.encode(**{"code": 0, "additional-data": outcome.extra or None})
            self.write(f.frame(f.SASL, 0, body))
            self.state = _HEADER
        elif isinstance(outcome, Failure):
            logger.warning("%s: login refused: %s", self.peer, outcome.reason)
            self.broker.management.refused(self, outcome.reason)
            self.write(f.frame(f.SASL, 0, f.SASL_OUTCOME.encode(code=1)))
            self._finish()
            return
        if self._need and self._have >= self._need:  # input has waited for this
            self.receive_rest(self.broker.management)

    def _header(self, header: bytes) -> None:
        self.write(HEADER)
        if header != HEADER:
            logger.warning("%s: closed, it goes on with %r", self.peer, header)
            self._finish()
            return
        self.state = _OPENING
        self.frame_max = max(self.settings.frame_max, EARLY_FRAME_MAX)

    def _open(self, m: dict[str, Any]) -> None:
        self.container_id = m["container-id"]
        if m["max-frame-size"] < f.MIN_MAX_FRAME:
            raise ProtocolError(NOT_ALLOWED, f"max-frame-size is {m['max-frame-size']}; it is at least 512",
                                CONNECTION)
        self.peer_frame_max = min(m["max-frame-size"], self.settings.frame_max)
        self.channel_max = min(m["channel-max"], self.settings.channel_max)
        self._peer_idle = m["idle-time-out"] or 0
        if 0 < self._peer_idle < SHORTEST_IDLE:
            raise ProtocolError(NOT_ALLOWED, f"idle-time-out is {self._peer_idle} ms; it is at least {SHORTEST_IDLE}",
                                CONNECTION)
        host = self.broker.hosts.get(_host_name(m["hostname"] or "", self.broker, self.settings.default_host))
        if host is None:
            raise ProtocolError("amqp:not-found", f"there is no virtual host for hostname '{m['hostname']}'",
                                CONNECTION)
        try:
            self.outlet.admit(self, host.name)
        except AccessRefused:
            raise ProtocolError(UNAUTHORIZED, f"access to vhost '{host.name}' refused for user '{self.user}'",
                                CONNECTION) from None
        except LimitReached as error:
            raise ProtocolError(LIMIT_EXCEEDED, str(error), CONNECTION) from None
        self._host = host
        self.host_name = host.name
        self.dialect = "AMQP 1.0"
        self.properties = annotations_of(m["properties"])
        self.containers.enter(self, host, m["desired-capabilities"] or [], m["properties"] or {})
        self._send_open({})
        self.frame_max = self.settings.frame_max
        self.opened = True
        self.state = _RUNNING
        self.broker.management.opened(self)
        logger.info("%s: user %s opened vhost %s by AMQP 1.0", self.peer, self.user, host.name)

    def _send_open(self, properties: dict[str, Any]) -> None:
        settings = self.settings
        self.send(0, f.OPEN.encode(**{
            "container-id": settings.container_id, "max-frame-size": settings.frame_max,
            "channel-max": settings.channel_max, "idle-time-out": settings.idle * 1000 or None,
            "offered-capabilities": CAPABILITIES, "properties": {
                "product": "Dragoman", "version": settings.version, "platform": "Python",
                "qpid.federation_tag": self.broker.identity, **properties}}))

    def _closed(self, values: list[Any]) -> None:
        """The client closes."""
        if values[0] is not None:
            code, error = f.composite(values[0])
            if code == f.ERROR.code:
                logger.info("%s: the client closes: %s %s", self.peer, error["condition"], error["description"] or "")
        self._let_go(False)
        self.send(0, f.CLOSE.encode())
        self._finish()

    # Alarms, time, the end.

    def alarms_changed(self, reasons: list[str]) -> None:
        for session in self.sessions.values():
            session.alarms_changed(bool(reasons))

    def tick(self, now: int) -> None:
        if self.state >= _CLOSING:
            if now > self._close_by and not self.finished:
                self._finish()
            return
        if self.state != _RUNNING:
            return
        if self._peer_idle and now - self._last_output >= max(self._peer_idle // 2 - 500, 0) and not self.out:
            self.write(_EMPTY_FRAME)
        idle = self.settings.idle * 1000
        if idle and now - self.last_input > 2 * idle + 1000:
            self.close_with(ProtocolError(LIMIT_EXCEEDED, "local-idle-timeout expired", CONNECTION))
            self._finish()

    def container(self) -> str:
        return self.container_id

    def end_session_by_order(self, channel: int, text: str) -> None:
        self.sessions[channel].fail(ProtocolError(FORCED, text, SESSION))

    def managed_sessions(self) -> list[ManagedSession]:
        return [ManagedSession(f"{self.peer}/{number}", number, len(session.unsettled),
                               [link.consumer for link in session.links.values() if isinstance(link, Outgoing)])
                for number, session in self.sessions.items() if not session.ending]

    def shut_down(self, text: str) -> None:
        if self.state in (_OPENING, _RUNNING):
            self._close(ProtocolError(FORCED, text, CONNECTION))
        elif self.state != _CLOSING:
            self._finish()

    def expire(self, text: str) -> None:
        self.close_with(ProtocolError(UNAUTHORIZED, text, CONNECTION))

    def lost(self) -> None:
        if self.state == _RUNNING:
            logger.info("%s: the client hung up without closing the connection", self.peer)
        self.state = _CLOSED
        self._let_go(True)
        self._chunks.clear()


def _host_name(hostname: str, broker: Broker, default: str) -> str:
    """The virtual host that a hostname stands for: `vhost:NAME` as RabbitMQ has it, or one of that very name; else it
    is how the client calls this machine, and the default it is."""
    if hostname.startswith("vhost:"):
        return hostname[6:]
    return hostname if hostname in broker.hosts else default


