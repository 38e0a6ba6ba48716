"""How a connection of AMQP 1.0 comes about: headers, SASL, open (part 2, section 2.4; part 5, section 5.3)."""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.errors import AccessRefused, LimitReached
from broker.security.sasl import SaslServer
from protocols.amqp10 import frames as f
from protocols.amqp10.containers import Containers
from protocols.amqp10.convert import annotations_of  # which registers the converter, too
from protocols.amqp10.errors import (
    CONNECTION,
    ILLEGAL_STATE,
    LIMIT_EXCEEDED,
    NOT_ALLOWED,
    UNAUTHORIZED,
    ProtocolError,
)
from protocols.connection import ClientConnection
from protocols.frontend import Outlet
from protocols.values10 import Malformed, Reader

logger = logging.getLogger(__name__)

HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
PROTOCOL_HEADERS = (HEADER, SASL_HEADER)

BARE: Final = 0
SASL: Final = 1
RESPONSE: Final = 2
EXPECTING_HEADER: Final = 3
OPENING: Final = 4
"""States: a client without a SASL layer is let in or not; what is awaited of others, and then of both."""

EARLY_FRAME_MAX: Final = 16384
"""The largest frame before the connection is open, bytes: what a login may need."""

SHORTEST_IDLE: Final = 1000
"""The shortest idle time-out that a client may ask for, ms: `tick` comes once a second."""

CAPABILITIES = ["ANONYMOUS-RELAY", "SHARED-SUBS", "DELAYED_DELIVERY", "sole-connection-for-container"]


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


class Opening(ClientConnection):
    """A connection as far as its opening goes. `Connection` is the rest of it."""

    def __init__(self, broker: Broker, settings: Settings, containers: Containers, sasl: SaslServer, outlet: Outlet,
                 peer: str) -> None:
        super().__init__(broker, sasl, outlet, peer)
        self.settings = settings
        self.containers = containers
        self.frame_max = EARLY_FRAME_MAX  # of frames that come
        self.peer_frame_max = f.MIN_MAX_FRAME  # of frames that go
        self.channel_max = settings.channel_max
        self.container_id = ""
        self.sole = False  # its container wants no second one
        self.peer_idle = 0  # ms; 0: no time-out

    def container(self) -> str:
        return self.container_id

    def send(self, channel: int, body: bytes) -> None:
        """Write a performative as a frame."""
        self.write(f.frame(f.AMQP, channel, body))

    def close_with(self, error: ProtocolError) -> None:
        """Close the connection for an error, and log it."""
        raise NotImplementedError

    def begin(self, header: bytes) -> None:
        """The client has begun with this header."""
        if header == SASL_HEADER:
            self.state = SASL
            self.write(SASL_HEADER + f.frame(f.SASL, 0, f.SASL_MECHANISMS.encode(**{
                "sasl-server-mechanisms": self.sasl.mechanisms})))
        elif "ANONYMOUS" in self.sasl.mechanisms:
            self.log_in("ANONYMOUS", b"")
        else:
            logger.warning("%s: closed, it does not log in, and the listener is not anonymous", self.peer)
            self.write(SASL_HEADER)
            self.finish()

    def sasl_frame(self, reader: Reader) -> None:
        """A frame of SASL. Raises: Malformed, ProtocolError."""
        code = f.descriptor(reader)
        performative = f.SASL_FRAMES.get(code)
        if performative is None:
            raise Malformed("a frame of SASL has a performative that is not known")
        values = performative.decode(reader)
        if code == f.SASL_INIT.code and self.state == SASL:
            self.log_in(str(values[0]), values[1])
        elif code == f.SASL_RESPONSE.code and self.state == RESPONSE:
            self.respond(values[0])
        else:
            raise ProtocolError(ILLEGAL_STATE, f"{performative.name} cannot come now", CONNECTION)

    def challenge(self, data: bytes) -> None:
        self.write(f.frame(f.SASL, 0, f.SASL_CHALLENGE.encode(challenge=data)))
        self.state = RESPONSE

    def welcome(self, extra: bytes) -> None:
        if self.state == BARE:
            self.write(HEADER)
            self.state = OPENING
        else:
            body = f.SASL_OUTCOME.encode(**{"code": 0, "additional-data": extra or None})
            self.write(f.frame(f.SASL, 0, body))
            self.state = EXPECTING_HEADER

    def turn_away(self) -> None:
        self.write(SASL_HEADER if self.state == BARE else f.frame(f.SASL, 0, f.SASL_OUTCOME.encode(code=1)))
        self.finish()

    def header(self, header: bytes) -> None:
        """The header that comes after SASL."""
        self.write(HEADER)
        if header != HEADER:
            logger.warning("%s: closed, it goes on with %r", self.peer, header)
            self.finish()
            return
        self.state = OPENING
        self.frame_max = max(self.settings.frame_max, EARLY_FRAME_MAX)

    def open(self, m: dict[str, Any]) -> None:
        """The client's open. Raises: ProtocolError."""
        self.container_id = m["container-id"]
        if m["max-frame-size"] < f.MIN_MAX_FRAME:
            raise ProtocolError(NOT_ALLOWED, f"max-frame-size is {m['max-frame-size']}; it is at least 512",
                                CONNECTION)
        self.peer_frame_max = min(m["max-frame-size"], self.settings.frame_max)
        self.channel_max = min(m["channel-max"], self.settings.channel_max)
        self.peer_idle = m["idle-time-out"] or 0
        if 0 < self.peer_idle < SHORTEST_IDLE:
            raise ProtocolError(NOT_ALLOWED, f"idle-time-out is {self.peer_idle} ms; it is at least {SHORTEST_IDLE}",
                                CONNECTION)
        host = self.broker.hosts.get(_host_name(m["hostname"] or "", self.broker, self.settings.default_host))
        if host is None:
            raise ProtocolError("amqp:not-found", f"there is no virtual host for hostname '{m['hostname']}'",
                                CONNECTION)
        try:
            self.enter(host)
        except (AccessRefused, LimitReached) as refused:
            condition = UNAUTHORIZED if isinstance(refused, AccessRefused) else LIMIT_EXCEEDED
            raise ProtocolError(condition, str(refused), CONNECTION) from None
        self.properties = annotations_of(m["properties"])
        self.containers.enter(self, host, m["desired-capabilities"] or [], m["properties"] or {})
        self.send_open({})
        self.frame_max = self.settings.frame_max
        self.run("AMQP 1.0")

    def send_open(self, properties: dict[str, Any]) -> None:
        """Our own open. properties: besides those that it always has."""
        settings = self.settings
        self.send(0, f.OPEN.encode(**{
            "container-id": settings.container_id, "max-frame-size": settings.frame_max,
            "channel-max": settings.channel_max, "idle-time-out": settings.idle * 1000 or None,
            "offered-capabilities": CAPABILITIES, "properties": {
                "product": "Dragoman", "version": settings.version, "platform": "Python",
                "qpid.federation_tag": self.broker.identity, **properties}}))


def _host_name(hostname: str, broker: Broker, default: str) -> str:
    """The virtual host that a hostname stands for: `vhost:NAME` as RabbitMQ has it, or one of that very name; else it
    is how the client calls this machine, and the default it is."""
    if hostname.startswith("vhost:"):
        return hostname[6:]
    return hostname if hostname in broker.hosts else default


