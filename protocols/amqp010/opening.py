"""How a connection of 0-10 comes about: header, start, login, tune, open (class connection)."""

from __future__ import annotations

from typing import Any, Final

from broker.broker import Broker
from broker.errors import AccessRefused, LimitReached
from broker.message import AMQP010, AMQP010_JMS
from broker.security.sasl import SaslServer
from protocols.amqp010.errors import CONNECTION_FORCED, FRAMING_ERROR, INVALID_PATH, ConnectionError010, short
from protocols.amqp010.frames import LARGEST_FRAME_MAX, PROTOCOL_HEADER, SMALLEST_FRAME_MAX, encode
from protocols.connection import ClientConnection
from protocols.frontend import Outlet, speaks_jms

_START: Final = 0
_SECURE: Final = 1
_TUNE: Final = 2
_OPEN: Final = 3
"""States: what is awaited of the client."""


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


class Opening(ClientConnection):
    """A connection as far as its opening goes. `Connection` is the rest of it."""

    def __init__(self, broker: Broker, settings: Settings, sasl: SaslServer, outlet: Outlet, peer: str) -> None:
        super().__init__(broker, sasl, outlet, peer)
        self.settings = settings
        self.frame_max = LARGEST_FRAME_MAX  # what a client may send
        self.frame_out = SMALLEST_FRAME_MAX  # and what it is sent
        self.channel_max = 0
        self.heartbeat = 0  # s
        self.form = AMQP010  # that messages of other dialects are translated into

    def control(self, method: str, channel: int, /, **values: Any) -> None:
        """Send a control."""
        self.write(encode(method, channel, self.frame_out, **values))

    def greet(self) -> None:
        """Answer the client's header, and offer what it may log in by."""
        self.write(PROTOCOL_HEADER)
        properties = {"product": "Dragoman", "version": self.settings.version, "platform": "Python",
                      "qpid.federation_tag": self.broker.identity}
        self.control("connection.start", 0, server_properties=properties, mechanisms=list(self.sasl.mechanisms),
                     locales=["en_US"])

    def opening_control(self, name: str, m: dict[str, Any]) -> None:
        """A control of the connection that is none of closing. Raises: ConnectionError010."""
        if name == "connection.start-ok" and self.state == _START:
            self.properties = m.get("client_properties", {})
            if speaks_jms(self.properties):
                self.form = AMQP010_JMS
            self.log_in(m.get("mechanism", ""), m.get("response", b""))
        elif name == "connection.secure-ok" and self.state == _SECURE:
            self.respond(m.get("response", b""))
        elif name == "connection.tune-ok" and self.state == _TUNE:
            self._tune_ok(m)
        elif name == "connection.open" and self.state == _OPEN:
            self._open(m)
        else:
            raise ConnectionError010(FRAMING_ERROR, f"{name} cannot come now")

    def challenge(self, data: bytes) -> None:
        self.control("connection.secure", 0, challenge=data)
        self.state = _SECURE

    def welcome(self, extra: bytes) -> None:
        settings = self.settings
        self.control("connection.tune", 0, channel_max=settings.channel_max, max_frame_size=settings.frame_max,
                     heartbeat_min=0, heartbeat_max=settings.heartbeat)
        self.state = _TUNE

    def turn_away(self) -> None:
        self.say_close(CONNECTION_FORCED, "Authentication failed")

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
            self.enter(host)
        except (AccessRefused, LimitReached) as refused:
            raise ConnectionError010(CONNECTION_FORCED, str(refused)) from None
        self.control("connection.open-ok", 0, known_hosts=[])
        self.run("AMQP 0-10")

    def say_close(self, code: int, text: str) -> None:
        """Let go of all that the client has, and tell it why; it is given a while to agree."""
        self.let_go()
        self.control("connection.close", 0, reply_code=code, reply_text=short(text))
        self.await_close()
