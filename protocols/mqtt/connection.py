"""A connection of MQTT: login, packets beside PUBLISH, keep alive, the end (chapters 3 and 4 of MQTT 5.0).

What is wrong costs the connection, with the reason code that MQTT 5 names (4.13), and is logged once. How packets come
out of bytes: protocols/mqtt/wire.py. What they ask for is done by the session behind the connection:
protocols/mqtt/session.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from broker.broker import Broker
from broker.errors import AccessRefused, LimitReached, RateReached
from broker.management import ManagedSession
from broker.security.sasl import Challenge, Failure, Outcome, SaslServer
from protocols.connection import CLOSED, RUNNING
from protocols.frontend import Outlet
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
    PUBREC,
    PUBREL,
    REASON_STRING,
    SESSION_EXPIRY,
    SUBSCRIBE,
    SUBSCRIPTION_IDENTIFIER,
    UNSUBSCRIBE,
)
from protocols.mqtt.errors import (
    ADMINISTRATIVE_ACTION,
    BAD_CREDENTIALS,
    BAD_METHOD,
    CONNECTION_RATE_EXCEEDED,
    CONTINUE_AUTHENTICATION,
    KEEP_ALIVE_TIMEOUT,
    MAXIMUM_CONNECT_TIME,
    NOT_AUTHORIZED,
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
)
from protocols.mqtt.opening import Connect, Settings, connack
from protocols.mqtt.publish import Incoming
from protocols.mqtt.sessions import Sessions
from protocols.mqtt.wire import AUTHENTICATING, NEW, Wire

logger = logging.getLogger(__name__)

_PINGRESP: Final = b"\xd0\x00"


class Connection(Wire):
    """One client's connection. `peer` names it in the log; `make_sasl` makes what it may log in with."""

    def __init__(self, broker: Broker, settings: Settings, registry: Sessions, make_sasl: Callable[[], SaslServer],
                 outlet: Outlet, peer: str) -> None:
        super().__init__(broker, settings, make_sasl(), outlet, peer)
        self.registry = registry
        self.client_id = ""
        self.receive_maximum = 65535  # messages of QoS 1 and 2 that it takes at a time
        self.alias_maximum = 0  # topic aliases that it takes
        self.keep_alive = 0  # s
        self._make_sasl = make_sasl
        self._connect: Connect | None = None
        self._asked_keep_alive = 0
        self._may_expire = False  # the session may outlive the connection
        self._method: str | None = None  # of enhanced authentication
        self._exchanging = False  # a response is awaited

    def container(self) -> str:
        return self.client_id

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
        self.finish()

    # Login.

    def _early(self, kind: int, flags: int, data: bytes, at: int, stop: int) -> None:
        """A packet before there is a session."""
        if self.state == NEW:
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
            self.finish()
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
        self.state = AUTHENTICATING
        self._method = connect.method
        if connect.method is not None:
            if connect.method not in self.sasl.mechanisms or connect.method in ("PLAIN", "AMQPLAIN", "ANONYMOUS"):
                raise MqttError(BAD_METHOD, f"authentication method {connect.method[:32]!r} is not offered")
            self.log_in(connect.method, connect.data)
        elif connect.has_user:
            self.log_in("PLAIN", b"\0".join((b"", connect.user.encode(), connect.password)))
        elif "EXTERNAL" in self.sasl.mechanisms:  # TLS has shown who it is
            self.log_in("EXTERNAL", b"")
        elif "ANONYMOUS" in self.sasl.mechanisms:
            self.log_in("ANONYMOUS", b"")
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

    def _auth(self, found: dict[str, Any]) -> None:
        """AUTH (4.12): a response, or the wish to log in anew."""
        properties = found["properties"]
        if self._method is None or properties.get(AUTHENTICATION_METHOD) != self._method:
            raise wrong("AUTH with another method than CONNECT had")
        data = properties.get(AUTHENTICATION_DATA)
        if found["reason"] == RE_AUTHENTICATE and self.state == RUNNING:
            self._exchanging = True
            self.sasl.close()
            self.sasl = self._make_sasl()
            self.sasl.start(self._method, data, self._renewed)
        elif found["reason"] == CONTINUE_AUTHENTICATION and self._exchanging and self.state == RUNNING:
            self.sasl.step(data or b"", self._renewed)
        elif found["reason"] == CONTINUE_AUTHENTICATION and self._exchanging:
            self.respond(data or b"")
        else:
            raise wrong(f"AUTH with reason code {found['reason']:#04x} cannot come now")

    def challenge(self, data: bytes) -> None:
        self._exchanging = True
        self._say_auth(CONTINUE_AUTHENTICATION, data)

    def welcome(self, extra: bytes) -> None:
        self._exchanging = False
        try:
            self._open_session(extra)
        except MqttError as error:
            self.close_with(error.code, error.text)

    def turn_away(self) -> None:
        self._say_close(BAD_CREDENTIALS, "")

    def _renewed(self, outcome: Outcome) -> None:
        """What SASL says of a client that logs in anew while its session goes on (4.12.1)."""
        if self.state != RUNNING:
            return
        self._exchanging = isinstance(outcome, Challenge)
        if isinstance(outcome, Challenge):
            self._say_auth(CONTINUE_AUTHENTICATION, outcome.data)
        elif isinstance(outcome, Failure):
            self.broker.management.refused(self, outcome.reason)
            self.close_with(NOT_AUTHORIZED, f"login refused: {outcome.reason}")
        elif outcome.user != self.user:
            self.close_with(NOT_AUTHORIZED, "the client logs in anew as another user")
        else:
            self.renew(outcome.identity)
            self._say_auth(SUCCESS, outcome.extra)

    def _say_auth(self, reason: int, data: bytes) -> None:
        self.send(AUTH, "", reason=reason, properties={AUTHENTICATION_METHOD: self._method, AUTHENTICATION_DATA: data})

    def _open_session(self, data: bytes) -> None:
        """The client is who it says. data: authentication data of the success. Raises: MqttError."""
        connect, user = self._connect, self.user
        assert connect is not None
        try:
            self.enter(self.host)
        except RateReached as rate:  # a name of its own: compiled, a variable has one type
            raise MqttError(CONNECTION_RATE_EXCEEDED, str(rate)) from None
        except LimitReached as limit:
            raise MqttError(QUOTA_EXCEEDED, str(limit)) from None
        except AccessRefused as error:
            raise MqttError(NOT_AUTHORIZED, str(error)) from None
        self.level = connect.level
        self.keep_alive = connect.keep_alive
        self.receive_maximum = connect.receive_maximum
        self.alias_maximum = connect.alias_maximum
        self._may_expire = connect.session_expiry > 0
        self._incoming = Incoming(connect.level, connect.client_id, user, self.settings.topic_alias_max)
        management = self.broker.management
        before, management.actor = management.actor, self
        try:
            session, present = self.registry.open(self, connect, connect.will(user))
        finally:
            management.actor = before
        self.session = session
        properties = connack(connect, self.settings, self._asked_keep_alive, data)
        self.send(CONNACK, "", flags=1 if present and self.level > V31 else 0, reason=SUCCESS, properties=properties)
        self.run(self.dialect, f" as client {self.client_id}")
        session.opened()
        self._connect = None

    # Errors and the end.

    def close_with(self, code: int, text: str) -> None:
        """Close the connection for an error, say which, and log it."""
        if self.state == CLOSED:
            return
        logger.warning("%s: the connection is closed: %s", self.peer, text)
        self._say_close(code, text)

    def _say_close(self, code: int, text: str) -> None:
        """DISCONNECT, or CONNACK if the client waits for that, as far as its version has them."""
        running = self.state == RUNNING
        self.let_go()
        if running:
            if self.level >= V5:
                self.send(DISCONNECT, "" if code in _SECRET else text, reason=code)
        elif self.level >= V5:
            self.send(CONNACK, "" if code in _SECRET else text, flags=0, reason=code)
        elif return_code(code) >= 0:
            self.send(CONNACK, "", flags=0, reason=return_code(code))
        self.finish()

    def let_go(self) -> None:
        """The client is gone, without having said good-bye."""
        session, self.session = self.session, None
        if session is not None:
            session.lost()
        super().let_go()

    def finish(self) -> None:
        self.let_go()
        super().finish()

    def taken_over(self) -> None:
        """The client has connected anew: the session is the other connection's now (3.1.4)."""
        self.session = None
        if self.state == RUNNING:
            logger.info("%s: client %s has connected anew", self.peer, self.client_id)
            self._say_close(TAKEN_OVER, "the client has connected anew")

    def beat(self, now: int) -> None:
        if self.keep_alive and not self.paused and now - self.last_input > 1500 * self.keep_alive:
            logger.warning("%s: closed, nothing came from the client for one and a half times its keep alive of %d s",
                           self.peer, self.keep_alive)
            self._say_close(KEEP_ALIVE_TIMEOUT, "")

    def shut_down(self, text: str) -> None:
        if self.state != CLOSED:
            self._say_close(SHUTTING_DOWN, text)

    def expire(self, text: str) -> None:
        if self.state != CLOSED:
            self._say_close(MAXIMUM_CONNECT_TIME, text)

    def close_by_order(self, text: str) -> None:
        if self.state != CLOSED:
            self._say_close(ADMINISTRATIVE_ACTION, text)

    def end_session_by_order(self, channel: int, text: str) -> None:
        self.close_by_order(text)

    def managed_sessions(self) -> list[ManagedSession]:
        session = self.session
        if session is None:
            return []
        return [ManagedSession(self.client_id, 0, session.unsettled(), session.consumers())]


_SECRET: Final = (BAD_CREDENTIALS, NOT_AUTHORIZED)
"""Reasons that are for the log alone: they may tell which users there are."""
