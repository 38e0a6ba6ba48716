"""The wire side of a connection of MQTT: packets out of the bytes that come, PUBLISH read and handed over, and output.

Sans-I/O: `receive` takes bytes as they come, output is in `out`. Nothing that a client sends raises out of here. A
large payload is kept in the pieces that it comes in, and bounded by what a message may have.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from broker.broker import Broker
from broker.security.sasl import SaslServer
from protocols.connection import CLOSED, RUNNING, ClientConnection
from protocols.frontend import HELD, Outlet
from protocols.mqtt.codec import CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREL, REASON_STRING
from protocols.mqtt.content import ONE_PIECE
from protocols.mqtt.errors import PACKET_TOO_LARGE, PAYLOAD_FORMAT_INVALID, SUCCESS, MqttError
from protocols.mqtt.frames import PACKETS, V5, V311, level_of, read_length, write
from protocols.mqtt.opening import Settings
from protocols.mqtt.publish import Incoming, Utf8Check
from protocols.mqtt.session import Session

logger = logging.getLogger(__name__)

NEW: Final = 0
AUTHENTICATING: Final = 1
"""States: CONNECT is awaited; the client logs in, and AUTH may be awaited."""

_LONGEST_OTHER: Final = 1 << 20
"""Bytes of a packet that is no PUBLISH, and of what comes before a PUBLISH's payload."""


class Wire(ClientConnection):
    """One client's connection, as far as bytes go. `peer` names it in the log."""

    def __init__(self, broker: Broker, settings: Settings, sasl: SaslServer, outlet: Outlet, peer: str) -> None:
        super().__init__(broker, sasl, outlet, peer)
        self.settings = settings
        self.level = V311
        self.packet_maximum = 0  # what the client takes, bytes
        self.session: Session | None = None
        self._problem_information = True  # the client wants to be told reasons
        self._incoming = Incoming(V311, "", "", 0)
        self._awaited = 1  # bytes that there must be of a packet that is not whole yet
        self._payload: list[bytes] = []  # the pieces of a large payload that is on its way
        self._payload_size = 0
        self._missing = 0  # bytes of it that are to come
        self._check: Utf8Check | None = None

    # What the connection does.

    def close_with(self, code: int, text: str) -> None:
        """Close the connection for an error, say which, and log it."""
        raise NotImplementedError

    def _early(self, kind: int, flags: int, data: bytes, at: int, stop: int) -> None:
        """A packet before there is a session. Raises: MqttError."""
        raise NotImplementedError

    def _packet(self, kind: int, flags: int, data: bytes, at: int, stop: int) -> None:
        """A packet of a session that is no PUBLISH. Raises: MqttError."""
        raise NotImplementedError

    def _acknowledged(self, kind: int, packet_id: int, reason: int) -> None:
        """PUBACK, PUBREC, PUBREL or PUBCOMP. Raises: MqttError."""
        raise NotImplementedError

    # Output.

    def session_due(self) -> None:
        """The session has something to tell: `Session.flush` is called before output is taken."""
        self.has_news = True
        if not self.flushing:
            self.want_flush()

    def tell_news(self) -> None:
        if self.session is not None:
            self.session.flush()

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

    def wanted(self, rest: bytes) -> int:
        return self._awaited

    def frames(self, data: bytes, at: int) -> int:
        try:
            if self._missing:
                at += self._more_payload(data[at:] if at else data)
            return self._packets(data, at)
        except MqttError as error:
            self.close_with(error.code, error.text)
            return -1

    def _packets(self, data: bytes, at: int) -> int:
        """Handle all whole packets from `at` on. Gives where the first begins that is not whole, or has to wait."""
        end = len(data)
        while at < end and self.state != CLOSED:
            self._awaited = 1
            if self.paused:
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
                if self.state == NEW:
                    self.level = level_of(data, begin, end)
                self._check_size(kind, stop - at)
            elif stop - at > self.settings.packet_max:
                raise MqttError(PACKET_TOO_LARGE, f"a packet of {stop - at} bytes")
            if self.state != RUNNING:
                if stop > end:
                    self._awaited = stop - at
                    return at
                self._early(kind, first & 15, data, begin, stop)
            elif kind == PUBLISH:
                if self.broker.memory.alarms:
                    self.pause(HELD)
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
        return at if self.state != CLOSED else end

    def _check_size(self, kind: int, size: int) -> None:
        """Of a large packet: whether it may be that large."""
        if size > self.settings.packet_max or kind != PUBLISH or self.state != RUNNING:
            raise MqttError(PACKET_TOO_LARGE, f"a packet of {size} bytes")

    # PUBLISH.

    def _publish(self, flags: int, data: bytes, at: int, stop: int) -> None:
        """A whole PUBLISH packet, from behind its fixed header."""
        incoming = self._incoming
        incoming.head(flags, data, at, stop)
        at = incoming.payload_at
        size = stop - at
        if size > self.message_size:
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
        if size > self.message_size:
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
        """More of a large payload. Gives where it ends in `data`. Raises: MqttError."""
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
            finally:  # only now, so that an alarm that it has raised does not come and go
                self.broker.memory.add(-size)
        return at

    def _too_large(self, size: int) -> MqttError:
        return MqttError(PACKET_TOO_LARGE, f"a payload of {size} bytes: it may have {self.message_size}")

    def drop_input(self) -> None:
        super().drop_input()
        if self._missing:
            self.broker.memory.add(self._missing - self._payload_size)
            self._missing = 0
            self._payload.clear()


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
