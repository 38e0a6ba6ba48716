"""A connection of MQTT: packets in and out, login, keep alive, the end (chapters 3 and 4 of MQTT 5.0).

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here: what
is wrong costs the connection, with the reason code that MQTT 5 names (4.13), and is logged once. What packets ask for
is done by the session behind the connection: protocols/mqtt/session.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from broker.broker import Broker
from broker.management import ManagedSession
from broker.virtualhost import VirtualHost
from protocols.frontend import FrontEnd, Outlet
from protocols.mqtt.codec import (
    AUTH,
    AUTHENTICATION_DATA,
    AUTHENTICATION_METHOD,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    REASON_STRING,
    SESSION_EXPIRY,
    SUBSCRIBE,
    SUBSCRIPTION_IDENTIFIER,
    UNSUBSCRIBE,
)
from protocols.mqtt.content import ONE_PIECE
from protocols.mqtt.errors import (
    ADMINISTRATIVE_ACTION,
    BAD_CREDENTIALS,
    BAD_METHOD,
    CONTINUE_AUTHENTICATION,
    KEEP_ALIVE_TIMEOUT,
    NOT_AUTHORIZED,
    PACKET_TOO_LARGE,
    PAYLOAD_FORMAT_INVALID,
    QUOTA_EXCEEDED,
    RE_AUTHENTICATE,
    SHUTTING_DOWN,
    SUCCESS,
    TAKEN_OVER,
    UNSUPPORTED_VERSION,
    WITH_WILL,
    MqttError,
    malformed,
    return_code,
    wrong,
)
from protocols.mqtt.frames import (
    PACKETS,
    PROTOCOLS,
    V5,
    V31,
    V311,
    UnsupportedProtocol,
    level_of,
    read,
    read_length,
    write,
)
from protocols.mqtt.opening import Connect, Settings, connack
from protocols.mqtt.publish import Incoming, Utf8Check
from protocols.mqtt.session import Session
from protocols.mqtt.sessions import Sessions
from protocols.sasl import Challenge, Failure, Outcome, SaslServer, Success

logger = logging.getLogger(__name__)

_NEW: Final = 0
_LOGIN: Final = 1
_AUTH: Final = 2
_RUNNING: Final = 3
_CLOSED: Final = 4
"""States: CONNECT is awaited; a password is being checked; AUTH is awaited; the session is there; all is over."""

_LONGEST_OTHER: Final = 1 << 20
"""Bytes of a packet that is no PUBLISH, and of what comes before a PUBLISH's payload."""

_PINGRESP: Final = b"\xd0\x00"


class Connection(FrontEnd):
    """One client's connection. `peer` names it in the log; `make_sasl` makes what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, registry: Sessions, make_sasl: Callable[[], SaslServer],
                 outlet: Outlet, peer: str) -> None:
        super().__init__()
        self.broker = broker
        self.settings = settings
        self.registry = registry
        self.sasl = make_sasl()
        self.outlet = outlet
        self.peer = peer
        self.state = _NEW
        self.level = V311
        self.client_id = ""
        self.packet_maximum = 0  # what the client takes, bytes
        self.receive_maximum = 65535  # messages of QoS 1 and 2 that it takes at a time
        self.alias_maximum = 0  # topic aliases that it takes
        self.keep_alive = 0  # s
        self.flushing = False  # the outlet knows that there is output
        self.holding = False  # the client tried to publish while an alarm was raised
        self.due = False  # the session has something to tell with the next output
        self.session: Session | None = None
        self.last_input = broker.clock.now
        self._make_sasl = make_sasl
        self._connect: Connect | None = None
        self._asked_keep_alive = 0
        self._problem_information = True  # the client wants to be told reasons
        self._may_expire = False  # the session may outlive the connection
        self._method: str | None = None  # of enhanced authentication
        self._exchanging = False  # a response is awaited
        self._host: VirtualHost | None = None
        self._incoming = Incoming(V311, "", "", 0)
        self._chunks: list[bytes] = []  # input that is not a whole packet yet
        self._have = 0
        self._need = 0
        self._awaited = 0
        self._payload: list[bytes] = []  # the pieces of a large payload that is on its way
        self._payload_size = 0
        self._missing = 0  # bytes of it that are to come
        self._check: Utf8Check | None = None

    @property
    def host(self) -> VirtualHost:
        assert self._host is not None
        return self._host

    def container(self) -> str:
        return self.client_id

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

    def session_due(self) -> None:
        """The session has something to tell: `Session.flush` is called before output is taken."""
        self.due = True
        if not self.flushing:
            self.want_flush()

    def take_output(self) -> list[bytes]:
        if self.due:
            self.due = False
            if self.session is not None:
                self.session.flush()
        self.flushing = False
        out = self.out
        self.out = []
        self.out_size = 0
        return out

    def drained(self) -> None:
        if self.session is not None:
            self.session.drained()

    def acknowledge(self, code: int, packet_id: int, reason: int = SUCCESS, text: str = "") -> None:
        """PUBACK, PUBREC, PUBREL or PUBCOMP. text: a reason string, for who wants it."""
        first = code << 4 | 2 if code == PUBREL else code << 4
        if reason == SUCCESS or self.level < V5:
            self.write(bytes([first, 2, packet_id >> 8, packet_id & 255]))
        elif not text:
            self.write(bytes([first, 3, packet_id >> 8, packet_id & 255, reason]))
        else:
            self.send(code, text, packet_id=packet_id, reason=reason)

    def send(self, code: int, text: str = "", /, **values: Any) -> None:
        """Any packet but PUBLISH, with `text` as its reason string if the client wants such and has room for it
        (3.1.2.11.7, 3.2.2.3.9). Of one that does not fit its maximum packet size, user properties are left out, too.
        """
        properties: dict[int, Any] = dict(values.pop("properties", {}))
        plain = {name: each for name, each in properties.items() if name != REASON_STRING}
        if text and self.level >= V5 and (self._problem_information or code in (CONNACK, DISCONNECT)):
            properties[REASON_STRING] = _short(text)
        data = write(code, self.level, properties=properties, **values)
        if len(data) > self.packet_maximum > 0:
            data = write(code, self.level, properties=plain, **values)
            if len(data) > self.packet_maximum:
                logger.warning("%s: %s of %d bytes is more than the client takes", self.peer, PACKETS[code].name,
                               len(data))
                return
        self.write(data)

    # Input.

    def receive(self, data: bytes) -> None:
        self.last_input = self.broker.clock.now
        at = 0
        if self._missing:
            at = self._more_payload(data)
            if self._missing or at == len(data):
                return
        if self._need:
            if self._have + len(data) - at < self._need or self.holding or self.state == _LOGIN:
                self._chunks.append(data[at:] if at else data)
                self._have += len(data) - at
                return
            self._chunks.append(data[at:] if at else data)
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._need = at = 0
        try:
            at = self._packets(data, at)
        except MqttError as error:
            self.close_with(error.code, error.text)
        if at < len(data) and self.state != _CLOSED:
            rest = data[at:]
            self._chunks.append(rest)
            self._have = len(rest)
            self._need = self._awaited

    def _packets(self, data: bytes, at: int) -> int:
        """Handle all whole packets from `at` on. Gives where the first begins that is not whole, or has to wait."""
        end = len(data)
        while at < end and self.state != _CLOSED:
            self._awaited = 1
            if self.state == _LOGIN:
                return at
            first = data[at]
            if at + 1 < end and data[at + 1] < 0x80:
                size = data[at + 1]
                begin = at + 2
            else:
                size, begin = read_length(data, at + 1, end)
                if size < 0:
                    self._awaited = end - at + 1
                    return at
            stop = begin + size
            kind = first >> 4
            if size > _LONGEST_OTHER:
                if self.state == _NEW:
                    self.level = level_of(data, begin, end)
                self._check_size(kind, stop - at)
            elif stop - at > self.settings.packet_max:
                raise MqttError(PACKET_TOO_LARGE, f"a packet of {stop - at} bytes")
            if self.state != _RUNNING:
                if stop > end:
                    self._awaited = stop - at
                    return at
                self._early(kind, first & 15, data, begin, stop)
            elif kind == PUBLISH:
                if self.broker.memory.alarms:
                    self._hold()
                    return at
                if stop > end:
                    return self._large(first & 15, data, at, begin, stop)
                self._publish(first & 15, data, begin, stop)
            elif stop > end:
                self._awaited = stop - at
                return at
            elif size == 2 and PUBACK <= kind <= PUBCOMP:
                packet_id = data[begin] << 8 | data[begin + 1]
                if first & 15 != (2 if kind == PUBREL else 0) or packet_id == 0:
                    self._packet(kind, first & 15, data, begin, stop)  # it knows what is wrong
                else:
                    self._acknowledged(kind, packet_id, SUCCESS)
            else:
                self._packet(kind, first & 15, data, begin, stop)
            at = stop
        return at if self.state != _CLOSED else end

    def _check_size(self, kind: int, size: int) -> None:
        """Of a large packet: whether it may be that large."""
        if size > self.settings.packet_max or kind != PUBLISH or self.state != _RUNNING:
            raise MqttError(PACKET_TOO_LARGE, f"a packet of {size} bytes")

    # PUBLISH.

    def _publish(self, flags: int, data: bytes, at: int, stop: int) -> None:
        """A whole PUBLISH packet, from behind its fixed header."""
        incoming = self._incoming
        incoming.head(flags, data, at, stop)
        at = incoming.payload_at
        size = stop - at
        if size > self.settings.message_size:
            raise self._too_large(size)
        payload = data[at:stop]
        if incoming.is_text and not _is_utf8(payload):
            self._refuse_payload()
        elif size > ONE_PIECE:
            self._hand_over(b"", [payload], size)
        else:
            self._hand_over(payload, None, size)

    def _hand_over(self, payload: bytes, body: list[bytes] | None, size: int) -> None:
        incoming = self._incoming
        session = self.session
        topic = incoming.topic
        if session is not None and topic is not None:
            self.messages_in += 1
            session.publish(topic, incoming.message(payload, body, size, self.broker.clock.now), incoming.flags >> 1,
                            incoming.packet_id)

    def _refuse_payload(self) -> None:
        """The payload is no UTF-8, and is said to be (3.3.2.3.2)."""
        incoming = self._incoming
        if not incoming.packet_id:
            raise MqttError(PAYLOAD_FORMAT_INVALID, "a payload is said to be UTF-8, and is not")
        if self.session is not None:
            self.session.refuse(incoming.flags >> 1, incoming.packet_id, PAYLOAD_FORMAT_INVALID,
                                "the payload is said to be UTF-8, and is not")

    def _large(self, flags: int, data: bytes, at: int, begin: int, stop: int) -> int:
        """A PUBLISH packet from `at` on that is not all there, behind its fixed header at `begin`. A large payload is
        kept in the pieces that it comes in. Gives where to go on when there is more."""
        end = len(data)
        if stop - begin <= ONE_PIECE:
            self._awaited = stop - at
            return at
        incoming = self._incoming
        missing = incoming.missing(flags, data, begin, end)
        if missing:
            if missing > _LONGEST_OTHER:
                raise MqttError(PACKET_TOO_LARGE, f"properties of {missing} bytes")
            self._awaited = min(begin + missing, stop) - at
            if begin + missing <= stop:
                return at
        incoming.head(flags, data, begin, stop if not missing else end)
        size = stop - incoming.payload_at
        if size > self.settings.message_size:
            raise self._too_large(size)
        piece = data[incoming.payload_at:]
        self._payload_size = size
        self._missing = size - len(piece)
        self._check = Utf8Check() if incoming.is_text else None
        self._add_piece(piece)
        return end

    def _add_piece(self, piece: bytes) -> None:
        if self._check is not None:
            self._check.add(piece, not self._missing)
        if piece:
            self._payload.append(piece)
            self.broker.memory.add(len(piece))

    def _more_payload(self, data: bytes) -> int:
        """More of a large payload. Gives where it ends in `data`."""
        at = min(self._missing, len(data))
        self._missing -= at
        self._add_piece(data if at == len(data) else data[:at])
        if not self._missing:
            pieces, self._payload = self._payload, []
            size = self._payload_size
            try:
                if self._check is not None and not self._check.good:
                    self._refuse_payload()
                elif size > ONE_PIECE:
                    self._hand_over(b"", pieces, size)
                else:
                    self._hand_over(b"".join(pieces), None, size)
            except MqttError as error:
                self.close_with(error.code, error.text)
            finally:  # only now, so that an alarm that it has raised does not come and go
                self.broker.memory.add(-size)
        return at

    def _too_large(self, size: int) -> MqttError:
        return MqttError(PACKET_TOO_LARGE, f"a payload of {size} bytes: it may have {self.settings.message_size}")

    # Other packets of a session.

    def _packet(self, kind: int, flags: int, data: bytes, at: int, stop: int) -> None:
        what = PACKETS.get(kind)
        if what is None or not what.from_client or what.since > self.level:
            raise malformed(f"there is no packet of type {kind}") if what is None else wrong(
                f"{what.name} cannot come from a client")
        if kind == CONNECT:
            raise wrong("a second CONNECT")
        if flags != what.flags:
            raise malformed(f"{what.name} with flags {flags}")
        found = read(what, self.level, flags, data, at, stop)
        if found.get("reason", SUCCESS) not in what.reasons and what.reasons:
            raise wrong(f"{what.name} with reason code {found['reason']:#04x}")
        session = self.session
        assert session is not None
        if PUBACK <= kind <= PUBCOMP:
            self._acknowledged(kind, found["packet_id"], found.get("reason", SUCCESS))
        elif kind == SUBSCRIBE:
            identifiers = found.get("properties", {}).get(SUBSCRIPTION_IDENTIFIER, [0])
            if len(identifiers) > 1:
                raise wrong("SUBSCRIBE with two subscription identifiers")
            session.subscribe(found["packet_id"], found["requests"], identifiers[0])
        elif kind == UNSUBSCRIBE:
            session.unsubscribe(found["packet_id"], found["filters"])
        elif kind == PINGREQ:
            self.write(_PINGRESP)
        elif kind == DISCONNECT:
            self._disconnect(found)
        else:
            self._auth(found)

    def _acknowledged(self, kind: int, packet_id: int, reason: int) -> None:
        session = self.session
        assert session is not None
        if kind == PUBACK:
            session.puback(packet_id, reason)
        elif kind == PUBREC:
            session.pubrec(packet_id, reason)
        elif kind == PUBREL:
            session.pubrel(packet_id, reason)
        else:
            session.pubcomp(packet_id, reason)

    def _disconnect(self, found: dict[str, Any]) -> None:
        """The client says good-bye (3.14)."""
        reason = found.get("reason", SUCCESS)
        expiry = found.get("properties", {}).get(SESSION_EXPIRY, -1)
        if expiry > 0 and not self._may_expire:
            raise wrong("DISCONNECT with a session expiry interval, and CONNECT was without")
        if expiry > self.settings.session_seconds > 0:
            expiry = self.settings.session_seconds
        session, self.session = self.session, None
        if session is not None:
            session.disconnected(reason != SUCCESS, expiry)
        if reason > WITH_WILL:
            logger.warning("%s: the client disconnects with reason code %#04x: %s", self.peer, reason,
                           found.get("properties", {}).get(REASON_STRING, ""))
        self._finish()

    # Login.

    def _early(self, kind: int, flags: int, data: bytes, at: int, stop: int) -> None:
        """A packet before there is a session."""
        if self.state == _NEW:
            if kind != CONNECT or flags:
                raise malformed("the first packet is no CONNECT")
            try:
                self.level = level_of(data, at, stop)
                connect = Connect(read(PACKETS[CONNECT], V31, flags, data, at, stop))
            except UnsupportedProtocol as error:
                self.level = V5 if self.level >= V5 else V311
                raise MqttError(UNSUPPORTED_VERSION, str(error)) from None
            self._open(connect)
        elif kind == AUTH and not flags:
            self._auth(read(PACKETS[AUTH], self.level, flags, data, at, stop))
        elif kind == DISCONNECT:
            self._finish()
        else:
            raise wrong("a packet before CONNACK that is no AUTH")

    def _open(self, connect: Connect) -> None:
        """CONNECT has come."""
        self._connect = connect
        self.dialect = PROTOCOLS["MQIsdp" if connect.level == V31 else "MQTT", connect.level]
        self.client_id = connect.client_id
        self.packet_maximum = connect.packet_maximum
        self._problem_information = connect.problem_information
        self._asked_keep_alive = connect.keep_alive
        connect.will("")  # so that one that makes no sense is refused before all else
        connect.limit(self.settings)
        self._find_host(connect)
        self._method = connect.method
        if connect.method is not None:
            if connect.method not in self.sasl.mechanisms or connect.method in ("PLAIN", "AMQPLAIN", "ANONYMOUS"):
                raise MqttError(BAD_METHOD, f"authentication method {connect.method[:32]!r} is not offered")
            self._log_in(connect.method, connect.data)
        elif connect.has_user:
            if "PLAIN" not in self.sasl.mechanisms:
                raise MqttError(BAD_CREDENTIALS, "a password is not what clients may log in with here")
            self._log_in("PLAIN", b"\0".join((b"", connect.user.encode(), connect.password)))
        elif "ANONYMOUS" in self.sasl.mechanisms:
            self._log_in("ANONYMOUS", b"")
        else:
            raise MqttError(NOT_AUTHORIZED, "no user name")

    def _find_host(self, connect: Connect) -> None:
        """The virtual host: before the last `:` of a user's name, if there is one that is called so."""
        hosts = self.broker.hosts
        name, colon, user = connect.user.rpartition(":")
        if colon and name in hosts:
            connect.user = user
            self._host = hosts[name]
        else:
            self._host = hosts[self.settings.default_host]
        self.host_name = self._host.name

    def _log_in(self, mechanism: str, response: bytes | None) -> None:
        self.mechanism = mechanism
        self._wait()
        self.sasl.start(mechanism, response, self._logged_in)

    def _wait(self) -> None:
        """For an outcome; nothing is read until then."""
        if self.state != _RUNNING:
            self.state = _LOGIN
            self.outlet.pause_reading()

    def _auth(self, found: dict[str, Any]) -> None:
        """AUTH (4.12): a response, or the wish to log in anew."""
        properties = found["properties"]
        if self._method is None or properties.get(AUTHENTICATION_METHOD) != self._method:
            raise wrong("AUTH with another method than CONNECT had")
        data = properties.get(AUTHENTICATION_DATA)
        if found["reason"] == RE_AUTHENTICATE and self.state == _RUNNING:
            self._exchanging = True
            self.sasl.close()
            self.sasl = self._make_sasl()
            self.sasl.start(self._method, data, self._logged_in)
        elif found["reason"] == CONTINUE_AUTHENTICATION and self._exchanging:
            self._wait()
            self.sasl.step(data or b"", self._logged_in)
        else:
            raise wrong(f"AUTH with reason code {found['reason']:#04x} cannot come now")

    def _logged_in(self, outcome: Outcome) -> None:
        """What SASL says, at once or when the password was checked."""
        if self.state == _CLOSED:
            return
        later = self._need > 0  # input has waited
        self._exchanging = isinstance(outcome, Challenge)
        again = self.state == _RUNNING
        try:
            if isinstance(outcome, Challenge):
                if not again:
                    self.state = _AUTH
                self._say_auth(CONTINUE_AUTHENTICATION, outcome.data)
            elif isinstance(outcome, Success):
                if not again:
                    self._open_session(outcome.user, outcome.extra)
                elif outcome.user != self.user:
                    raise MqttError(NOT_AUTHORIZED, "the client logs in anew as another user")
                else:
                    self._say_auth(SUCCESS, outcome.extra)
            elif isinstance(outcome, Failure):
                self.broker.management.refused(self, outcome.reason)
                raise MqttError(NOT_AUTHORIZED if again else BAD_CREDENTIALS, f"login refused: {outcome.reason}")
        except MqttError as error:
            self.close_with(error.code, error.text)
        if not again:
            self.outlet.resume_reading()
        if later and self.state != _CLOSED:
            self.receive(b"")

    def _say_auth(self, reason: int, data: bytes) -> None:
        self.send(AUTH, "", reason=reason, properties={AUTHENTICATION_METHOD: self._method, AUTHENTICATION_DATA: data})

    def _open_session(self, user: str, data: bytes) -> None:
        """The client is who it says. data: authentication data of the success."""
        connect = self._connect
        assert connect is not None
        refused = self.outlet.admit(user)
        if refused:
            raise MqttError(QUOTA_EXCEEDED, refused)
        self.user = user
        self.level = connect.level
        self.keep_alive = connect.keep_alive
        self.receive_maximum = connect.receive_maximum
        self.alias_maximum = connect.alias_maximum
        self._may_expire = connect.session_expiry > 0
        self._incoming = Incoming(connect.level, connect.client_id, user, self.settings.topic_alias_max)
        session, present = self.registry.open(self, connect, connect.will(user))
        self.session = session
        self.opened = True
        self.state = _RUNNING
        logger.info("%s: user %s opened vhost %s by %s as client %s", self.peer, user, self.host_name, self.dialect,
                    self.client_id)
        properties = connack(connect, self.settings, self._asked_keep_alive, data)
        self.send(CONNACK, "", flags=1 if present and self.level > V31 else 0, reason=SUCCESS, properties=properties)
        self.broker.management.opened(self)
        session.opened()
        self._connect = None

    # Errors and the end.

    def close_with(self, code: int, text: str) -> None:
        """Close the connection for an error, say which, and log it."""
        if self.state == _CLOSED:
            return
        logger.warning("%s: the connection is closed: %s", self.peer, text)
        self._say_close(code, text)

    def _say_close(self, code: int, text: str) -> None:
        """DISCONNECT, or CONNACK if the client waits for that, as far as its version has them."""
        running = self.state == _RUNNING
        self._let_go()
        if running:
            if self.level >= V5:
                self.send(DISCONNECT, "" if code in _SECRET else text, reason=code)
        elif self.level >= V5:
            self.send(CONNACK, "" if code in _SECRET else text, flags=0, reason=code)
        elif return_code(code) >= 0:
            self.send(CONNACK, "", flags=0, reason=return_code(code))
        self._finish()

    def _let_go(self) -> None:
        """The client is gone, without having said good-bye."""
        session, self.session = self.session, None
        if session is not None:
            session.lost()
        self.sasl.close()
        self.broker.management.closed(self)

    def _finish(self) -> None:
        self._let_go()
        self.state = _CLOSED
        self.finished = True
        self._drop_input()
        self.want_flush()

    def _drop_input(self) -> None:
        self._chunks.clear()
        self._need = 0
        if self._missing:
            self.broker.memory.add(self._missing - self._payload_size)
            self._missing = 0
            self._payload.clear()

    def taken_over(self) -> None:
        """The client has connected anew: the session is the other connection's now (3.1.4)."""
        self.session = None
        if self.state == _RUNNING:
            logger.info("%s: client %s has connected anew", self.peer, self.client_id)
            self._say_close(TAKEN_OVER, "the client has connected anew")

    def _hold(self) -> None:
        """The client publishes while an alarm is raised: read no more until it is over."""
        if not self.holding:
            self.holding = True
            self.outlet.pause_reading()

    def alarms_changed(self, reasons: list[str]) -> None:
        if self.state == _RUNNING and not reasons and self.holding:
            self.holding = False
            self.last_input = self.broker.clock.now
            self.outlet.resume_reading()
            self.receive(b"")

    def tick(self, now: int) -> None:
        if self.state != _RUNNING:
            return
        if self.keep_alive and not self.holding and now - self.last_input > 1500 * self.keep_alive:
            logger.warning("%s: closed, nothing came from the client for one and a half times its keep alive of %d s",
                           self.peer, self.keep_alive)
            self._say_close(KEEP_ALIVE_TIMEOUT, "")

    def shut_down(self, text: str) -> None:
        if self.state != _CLOSED:
            self._say_close(SHUTTING_DOWN, text)

    def close_by_order(self, text: str) -> None:
        if self.state != _CLOSED:
            self._say_close(ADMINISTRATIVE_ACTION, text)

    def end_session_by_order(self, channel: int, text: str) -> None:
        self.close_by_order(text)

    def managed_sessions(self) -> list[ManagedSession]:
        session = self.session
        if session is None:
            return []
        return [ManagedSession(self.client_id, 0, session.unsettled(), session.consumers())]

    def lost(self) -> None:
        if self.state == _RUNNING:
            logger.info("%s: the client hung up without DISCONNECT", self.peer)
        self._let_go()
        self.state = _CLOSED
        self._drop_input()


_SECRET: Final = (BAD_CREDENTIALS, NOT_AUTHORIZED)
"""Reasons that are for the log alone: they may tell which users there are."""


def _is_utf8(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + "..."
