"""How a connection of 0-9-1 (0-9, 0-8) comes about: start, login, tune, open; and a login that is renewed."""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.errors import AccessRefused, LimitReached
from broker.message import AMQP091, AMQP091_JMS
from broker.security.sasl import Failure, Outcome, SaslServer, Success
from protocols.amqp091.errors import ProtocolError
from protocols.amqp091.frames import Variant
from protocols.connection import RUNNING, ClientConnection
from protocols.frontend import Outlet, speaks_jms

logger = logging.getLogger(__name__)

_START: Final = 0
_SECURE: Final = 1
_TUNE: Final = 2
_OPEN: Final = 3
"""States: what is awaited of the client."""

EARLY_FRAME_MAX = 16384
"""The largest frame before the client has tuned, bytes: what a login may need."""

CAPABILITIES = ("publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
                "connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
                "direct_reply_to")


class Settings:
    """What the server proposes, and its name. Sizes in bytes, heartbeat in seconds."""

    def __init__(self, frame_max: int, channel_max: int, heartbeat: int, version: str, cluster_name: str) -> None:
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.heartbeat = heartbeat
        self.version = version
        self.cluster_name = cluster_name


class Opening(ClientConnection):
    """A connection as far as its opening goes. `Connection` is the rest of it."""

    def __init__(self, broker: Broker, settings: Settings, sasl: SaslServer, outlet: Outlet, peer: str,
                 variant: Variant) -> None:
        super().__init__(broker, sasl, outlet, peer)
        self.settings = settings
        self.variant = variant
        self.frame_max = EARLY_FRAME_MAX
        self.channel_max = 0
        self.heartbeat = 0  # s
        self.notifies_cancel = False  # the client wants to know of cancelled consumers
        self.notifies_blocked = False
        self.closes_on_failure = False  # the client wants connection.close when its login is refused
        self.form = AMQP091  # that messages of other dialects are translated into
        self.instance = ""  # the client id of a client of Qpid's for JMS: whose messages they are, for no-local

    # What the rest of it does.

    def say(self, method: str, **values: Any) -> None:
        """Send a method on channel 0."""
        raise NotImplementedError

    def close_with(self, error: ProtocolError, class_id: int, method_id: int) -> None:
        """Close the connection for an error, which a method of the client has made."""
        raise NotImplementedError

    # Methods of the client.

    def begin(self) -> None:
        """Offer the client what it may log in by."""
        capabilities = {name: True for name in CAPABILITIES} if self.variant.major == 0 else {}
        properties = {"capabilities": capabilities, "cluster_name": self.settings.cluster_name,
                      "product": "Dragoman (of Qpid's kind)",  # or Qpid's clients never send exchange.bound
                      "version": self.settings.version, "platform": "Python", "copyright": "The Dragoman authors",
                      "information": "Licensed under the Apache License 2.0",
                      "qpid.federation_tag": self.broker.identity}
        self.say("connection.start", version_major=self.variant.major, version_minor=self.variant.minor,
                 server_properties=properties, mechanisms=" ".join(self.sasl.mechanisms).encode(),
                 locales=b"en_US")

    def opening_method(self, name: str, m: dict[str, Any]) -> None:
        """A method of class connection that is none of closing. Raises: ProtocolError."""
        if name == "connection.start-ok" and self.state == _START:
            self._start_ok(m)
        elif name == "connection.secure-ok" and self.state == _SECURE:
            self.respond(m["response"])
        elif name == "connection.tune-ok" and self.state == _TUNE:
            self._tune_ok(m)
        elif name == "connection.open" and self.state == _OPEN:
            self._open(m)
        elif name == "connection.update-secret" and self.state == RUNNING:
            self.sasl.renew(self.identity, m["new-secret"], self._renewed)
        else:
            raise ProtocolError(504 if self.state == RUNNING else 503, "unexpected method in connection state "
                                + ("running" if self.state == RUNNING else "starting"))

    def _start_ok(self, m: dict[str, Any]) -> None:
        capabilities = m["client-properties"].get("capabilities")
        if isinstance(capabilities, dict):
            self.notifies_cancel = capabilities.get("consumer_cancel_notify") is True
            self.notifies_blocked = (capabilities.get("connection.blocked") is True
                                     and "connection.blocked" in self.variant.by_name)
            self.closes_on_failure = capabilities.get("authentication_failure_close") is True
        self.properties = m["client-properties"]
        if speaks_jms(self.properties):
            self.form = AMQP091_JMS
            self.instance = str(self.properties.get("instance", ""))
        self.log_in(m["mechanism"], m["response"])

    def challenge(self, data: bytes) -> None:
        self.say("connection.secure", challenge=data)
        self.state = _SECURE

    def welcome(self, extra: bytes) -> None:
        self.say("connection.tune", channel_max=self.settings.channel_max, frame_max=self.settings.frame_max,
                 heartbeat=self.settings.heartbeat)
        self.state = _TUNE

    def turn_away(self) -> None:
        if self.closes_on_failure:  # RabbitMQ's words
            self._say_login_failed(403, "ACCESS_REFUSED - Login was refused using authentication mechanism "
                                        f"{short(self.mechanism)}. For details see the broker logfile.")
        elif self.form == AMQP091_JMS:  # it would wait for half a minute; Broker-J's words
            self._say_login_failed(530, "Authentication failed")
        else:
            self.finish()

    def _say_login_failed(self, code: int, text: str) -> None:
        self.say("connection.close", reply_code=code, reply_text=short(text))
        self.await_close()

    def _renewed(self, outcome: Outcome) -> None:
        """The client has shown a new token: what it may do is as that says, from now on."""
        if self.state != RUNNING:
            return
        if isinstance(outcome, Success):
            self.renew(outcome.identity)
            self.say("connection.update-secret-ok")
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
            self.enter(host)
        except (AccessRefused, LimitReached) as refused:
            raise ProtocolError(530, str(refused)) from None
        self.say("connection.open-ok")
        self.run(self.variant.name)
        if self.broker.memory.alarms:
            self.alarms_changed(list(self.broker.memory.alarms.values()))


def short(text: str) -> str:
    """As much of a text as a short string takes."""
    return text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore")
