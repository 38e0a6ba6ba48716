"""A small raw client of MQTT for the tests: plain sockets, packets put together by hand, properties by paho-mqtt.

`MqttClient` is one connection. Every level is open: `write` sends any bytes, `read` gives the next packet, `expect`
the next one of a type, putting deliveries aside for `message`. Properties are given as keywords of paho's names
(`TopicAlias=3`) and read as a dict of them. Timeouts only guard against hanging.
"""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.properties import Properties

from tests.wire import HANG, Hangup, Peer, received

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, \
    PINGRESP, DISCONNECT, AUTH = range(1, 16)
WILL = 99
"""paho's number for the properties of a will."""


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return len(data).to_bytes(2, "big") + data


def varint(value: int) -> bytes:
    found = b""
    while value >= 128:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def packet(first: int, *parts: bytes) -> bytes:
    """The bytes of a packet: its first byte and its content, whatever they say."""
    content = b"".join(parts)
    return bytes([first]) + varint(len(content)) + content


def properties(kind: int, values: dict[str, Any] | None) -> bytes:
    """Properties with their length, as a type of packet has them."""
    made = Properties(kind)
    for name, value in (values or {}).items():
        setattr(made, name, value)
    return bytes(made.pack())


@dataclass
class Packet:
    """A packet that came: its type, flags and content, and what that says."""

    kind: int
    flags: int
    content: bytes
    packet_id: int = 0
    reason: int = 0  # or the return code of CONNACK
    codes: list[int] = field(default_factory=list)
    topic: str = ""
    payload: bytes = b""
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)

    @property
    def duplicate(self) -> bool:
        return bool(self.flags & 8)


@dataclass
class WillOf:
    """A will for `MqttClient.connect`."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: dict[str, Any] | None = None


class MqttClient:
    """One connection. Nothing is sent before `connect` or `write`. level: 3 (3.1), 4 (3.1.1) or 5."""

    def __init__(self, peer: Peer, level: int = 4) -> None:
        self.socket = socket.create_connection(peer, timeout=HANG)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.level = level
        self.input = b""
        self.inbox: deque[Packet] = deque()
        self.next_id = 0

    # What goes out

    def write(self, data: bytes) -> None:
        """Send these bytes. When the broker hung up already, reading will tell what it had to say."""
        with suppress(ConnectionResetError, BrokenPipeError):
            self.socket.sendall(data)

    def _properties(self, kind: int, values: dict[str, Any] | None) -> bytes:
        return properties(kind, values) if self.level == 5 else b""

    def connect_packet(self, client_id: str = "", *, clean: bool = True, user: str | None = "guest",
                       password: str | None = "guest", keep_alive: int = 0, will: WillOf | None = None,
                       **more: Any) -> bytes:
        """more: properties."""
        flags = clean << 1 | (user is not None) << 7 | (password is not None) << 6
        rest = [string(client_id)]
        if will is not None:
            flags |= 4 | will.qos << 3 | will.retain << 5
            rest += [self._properties(WILL, will.properties), string(will.topic), string(will.payload)]
        rest += [string(each) for each in (user, password) if each is not None]
        return packet(0x10, string("MQIsdp" if self.level == 3 else "MQTT"), bytes([self.level, flags]),
                      keep_alive.to_bytes(2, "big"), self._properties(CONNECT, more), *rest)

    def connect(self, client_id: str = "", **options: Any) -> Packet:
        """Connect, and give CONNACK. Options are those of `connect_packet`."""
        self.write(self.connect_packet(client_id, **options))
        connack = self.expect(CONNACK)
        assert connack.reason == 0, connack
        return connack

    def publish_packet(self, topic: str, payload: bytes = b"", qos: int = 0, *, packet_id: int = 0,
                       retain: bool = False, duplicate: bool = False, **more: Any) -> bytes:
        """more: properties."""
        return packet(0x30 | duplicate << 3 | qos << 1 | retain, string(topic),
                      packet_id.to_bytes(2, "big") if qos else b"", self._properties(PUBLISH, more), payload)

    def publish(self, topic: str, payload: bytes = b"", qos: int = 0, **options: Any) -> int:
        """Send a message, and give its packet identifier. Options are those of `publish_packet`."""
        packet_id = options.pop("packet_id", 0) or (self._id() if qos else 0)
        self.write(self.publish_packet(topic, payload, qos, packet_id=packet_id, **options))
        return packet_id

    def send_whole(self, topic: str, payload: bytes = b"", qos: int = 0, **options: Any) -> None:
        """Publish, and wait until it is acknowledged."""
        packet_id = self.publish(topic, payload, qos, **options)
        if qos == 1:
            assert self.expect(PUBACK).packet_id == packet_id
        elif qos == 2:
            assert self.expect(PUBREC).packet_id == packet_id
            self.acknowledge(PUBREL, packet_id)
            assert self.expect(PUBCOMP).packet_id == packet_id
        else:
            self.ping()

    def acknowledge(self, kind: int, packet_id: int, reason: int = 0) -> None:
        self.write(packet(kind << 4 | (2 if kind == PUBREL else 0), packet_id.to_bytes(2, "big"),
                          bytes([reason]) if reason else b""))

    def subscribe(self, *requests: str | tuple[str, int], **more: Any) -> list[int]:
        """Subscribe to filters, each alone (QoS 0) or with its options, and give the codes of SUBACK."""
        packet_id = self._id()
        pairs = [(each, 0) if isinstance(each, str) else each for each in requests]
        self.write(packet(0x82, packet_id.to_bytes(2, "big"), self._properties(SUBSCRIBE, more),
                          *(string(text) + bytes([options]) for text, options in pairs)))
        suback = self.expect(SUBACK)
        assert suback.packet_id == packet_id
        return suback.codes

    def unsubscribe(self, *filters: str, **more: Any) -> list[int]:
        packet_id = self._id()
        self.write(packet(0xA2, packet_id.to_bytes(2, "big"), self._properties(UNSUBSCRIBE, more),
                          *map(string, filters)))
        unsuback = self.expect(UNSUBACK)
        assert unsuback.packet_id == packet_id
        return unsuback.codes

    def ping(self) -> None:
        """Wait until the broker has dealt with all that was sent."""
        self.write(packet(0xC0))
        self.expect(PINGRESP)

    def disconnect(self, reason: int = 0, **more: Any) -> None:
        """Say good-bye, and wait until the broker has hung up."""
        tail = bytes([reason]) + properties(DISCONNECT, more) if self.level == 5 and (reason or more) else b""
        self.write(packet(0xE0, tail))
        self.rest()
        self.drop()

    def drop(self) -> None:
        """Close the socket without a word."""
        self.socket.close()

    def _id(self) -> int:
        self.next_id = self.next_id % 65535 + 1
        return self.next_id

    # What comes in

    def read(self) -> Packet:
        """The next packet; `Hangup` at the end of input."""
        while (sizes := self._sizes()) is None:
            self._fill()
        begin, end = sizes
        first = self.input[0]
        content, self.input = self.input[begin:end], self.input[end:]
        return self._parse(first >> 4, first & 15, content)

    def expect(self, kind: int) -> Packet:
        """The next packet of a type; deliveries that come before are kept."""
        while True:
            found = self.read()
            if found.kind == kind:
                return found
            assert found.kind in (PUBLISH, PUBREL), found
            self.inbox.append(found)

    def message(self) -> Packet:
        """The next PUBLISH."""
        for found in self.inbox:
            if found.kind == PUBLISH:
                self.inbox.remove(found)
                return found
        return self.expect(PUBLISH)

    def messages(self, count: int) -> list[Packet]:
        return [self.message() for _ in range(count)]

    def nothing(self) -> None:
        """Nothing was delivered that is not read yet."""
        self.ping()
        assert not [found for found in self.inbox if found.kind == PUBLISH]

    def rest(self) -> list[Packet]:
        """All packets that still come until the broker closes the socket."""
        found = []
        with suppress(Hangup):
            while True:
                found.append(self.read())
        return found

    def _sizes(self) -> tuple[int, int] | None:
        """Where the content of the first packet begins and ends, if it is all there."""
        size = 0
        for at in range(1, min(len(self.input), 5)):
            size |= (self.input[at] & 127) << 7 * (at - 1)
            if self.input[at] < 128:
                return (at + 1, at + 1 + size) if len(self.input) >= at + 1 + size else None
        return None

    def _fill(self) -> None:
        self.input += received(self.socket)

    def _parse(self, kind: int, flags: int, content: bytes) -> Packet:
        found = Packet(kind, flags, content)
        at = 0
        if kind == CONNACK:
            found.flags, found.reason, at = content[0], content[1], 2
        elif kind == PUBLISH:
            at = 2 + int.from_bytes(content[:2], "big")
            found.topic = content[2:at].decode()
            if flags & 6:
                found.packet_id = int.from_bytes(content[at:at + 2], "big")
                at += 2
        elif PUBACK <= kind <= PUBCOMP:
            found.packet_id = int.from_bytes(content[:2], "big")
            found.reason = content[2] if len(content) > 2 else 0
            at = 3
        elif kind in (SUBACK, UNSUBACK):
            found.packet_id, at = int.from_bytes(content[:2], "big"), 2
        elif kind in (DISCONNECT, AUTH):
            found.reason, at = (content[0] if content else 0), 1
        if self.level == 5 and kind != PINGRESP and at < len(content):
            read = Properties(kind)
            _, size = read.unpack(content[at:])
            at += size
            found.properties = {name: getattr(read, name) for name in read.json()}
        if kind == PUBLISH:
            found.payload = content[at:]
        elif kind in (SUBACK, UNSUBACK):
            found.codes = list(content[at:])
        return found
