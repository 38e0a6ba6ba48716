"""Clients of MQTT that misbehave at random, among some of 0-9-1, over a broker in memory; all from one seed."""

from __future__ import annotations

from typing import Any

from broker.broker import Broker
from protocols.mqtt import codec, convert  # noqa: F401 - the latter registers itself
from protocols.mqtt.codec import (
    AUTH,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PROPERTIES,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
)
from protocols.mqtt.connection import Connection
from protocols.mqtt.frames import PACKETS, V5, V31, V311, read, read_length, write
from protocols.mqtt.opening import Settings
from protocols.mqtt.sessions import Sessions
from tests.fuzz import session as other

TOPICS = ("a", "a/b", "a/b/c", "b", "c/d", "é", "a.b", "", "$SYS/x", "a/+")
FILTERS = ("a", "a/b", "a/+", "a/#", "#", "+", "b", "+/b/+", "$share/g/a/#", "$share/h/b", "$SYS/#", "a/#/b",
           "$share/x")
REASONS = (*(0,) * 12, 0x10, 0x80, 0x97, 0x92, 0x55)
VALUES: dict[int, tuple[Any, ...]] = {
    codec.BYTE: (0, 1, 1, 2), codec.U16: (1, 2, 3, 10, 65535), codec.U32: (0, 1, 2, 30, 0xFFFFFFFF),
    codec.VARINT: (1, 7, 268_435_455), codec.BINARY: (b"", b"x", b"\x00\xff" * 20),
    codec.TEXT: ("", "x", "text/plain", "a/b", "é" * 50), codec.PAIR: (("k", "v"), ("", ""), ("x-k", "é" * 30))}
"""What properties may be given, by type."""

WEIGHTS = {PUBLISH: 30, SUBSCRIBE: 8, UNSUBSCRIBE: 2, PUBACK: 2, PUBREC: 2, PUBREL: 3, PUBCOMP: 2, PINGREQ: 2,
           DISCONNECT: 0.4, AUTH: 0.1, CONNECT: 0.1}
"""How often packets are sent."""


class ClientMqtt(other.Socket):
    """One connection, as the server holds it, and what it was sent."""

    def __init__(self, broker: Broker, sessions: Sessions, name: str, level: int) -> None:
        self.name = name
        self.level = level
        super().__init__()
        self.answered = 0  # bytes of the output that were looked at
        self.connection = Connection(
            broker, Settings(100_000, 10, 5, 0, 0, "response", "/"), sessions,
            lambda: other.guests("PLAIN", success_extra=True), self, name)
        self.connection.message_size = 1 << 16

    def login(self, flags: int = 0xC4) -> bytes:
        """What a client sends to begin with. flags: CONNECT's, without those of a will that is more than there."""
        return write(CONNECT, self.level, protocol="MQIsdp" if self.level == V31 else "MQTT", level=self.level,
                     flags=flags, client_id=self.name, user="guest", password=b"guest", will_topic="a",
                     will_payload=b"will")

    def packets(self, at: int) -> list[tuple[int, int, dict[str, Any]]]:
        """Type, flags and fields of all it was sent from `at` on. Raises for what is no packet."""
        found = []
        data = self.output
        level = self.connection.level
        maximum = self.connection.packet_maximum
        while at < len(data):
            size, begin = read_length(data, at + 1, len(data))
            stop = begin + size
            assert 0 <= size and stop <= len(data), "the output is not made of packets"
            assert not maximum or stop - at <= maximum, f"a packet of {stop - at} bytes"
            what = PACKETS[data[at] >> 4]
            flags = data[at] & 15
            assert what.from_server and what.since <= level and what.flags in (flags, -1)
            found.append((what.code, flags, read(what, level, flags, data, begin, stop)))
            at = stop
        return found

    def answer(self) -> bytes:
        """What a client says to what it was sent."""
        data = b""
        for code, flags, fields in self.packets(self.answered):
            reply = {PUBREC: PUBREL, PUBREL: PUBCOMP}.get(code, 0)
            if code == PUBLISH and flags & 6:
                reply = PUBACK if flags & 2 else PUBREC
            if reply and not fields.get("reason", 0) & 0x80:
                data += write(reply, self.level, packet_id=fields["packet_id"])
        self.answered = len(self.output)
        return data

    def check_output(self) -> None:
        """All of it is packets; what says good-bye is the last."""
        found = self.packets(0)
        assert not [each for each in found[:-1] if each[0] == DISCONNECT], "a packet after DISCONNECT"
        assert not [each for each in found[1:] if each[0] == codec.CONNACK], "a second CONNACK"

    def check_gone(self) -> None:
        assert self.connection.session is None


class SessionMqtt(other.Session):
    """A run with clients of MQTT and one of 0-9-1."""

    wrong = 0.05

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sessions = Sessions()

    def client(self, number: int) -> ClientMqtt:
        chance = self.random
        return ClientMqtt(self.broker, self.sessions, chance.choice(("c0", "c1", "c2")),
                          chance.choice((V31, V311, V5, V5)))

    def finish(self, clients: list[Any]) -> None:
        """What sessions there may be end: their clients connect once more, and want nothing kept. Then what is retained
        goes, too."""
        self.alarms(False)
        for name in sorted(self.sessions.of(self.host).all):
            client = ClientMqtt(self.broker, self.sessions, name, V5)
            client.connection.receive(client.login(0xC2))
            client.flush()
            client.connection.lost()
        if self.host.retained is not None:
            for message in list(self.host.retained.matching("#")):
                if message is not None:
                    self.host.retained.remove(message.address.routing_key)
        super().finish(clients)

    # What clients send.

    def login(self, client: ClientMqtt) -> bytes:
        chance = self.random
        flags = chance.choice((0xC0, 0xC2, 0xC4, 0xC6, 0xCE, 0xE6, 0xF6, 0xC4))
        properties = self.properties(CONNECT, 0.1)
        if codec.AUTHENTICATION_METHOD not in properties:
            properties.pop(codec.AUTHENTICATION_DATA, None)
        if chance.random() < 0.95:
            properties.pop(codec.AUTHENTICATION_METHOD, None)
            properties.pop(codec.AUTHENTICATION_DATA, None)
        return write(CONNECT, client.level, protocol="MQIsdp" if client.level == V31 else "MQTT", level=client.level,
                     flags=flags, keep_alive=chance.choice((0, 1, 60)), client_id=client.name, user="guest",
                     password=b"guest" if chance.random() < 0.97 else b"no", properties=properties,
                     will_topic=chance.choice(TOPICS[:6]), will_payload=b"will",
                     will_properties=self.properties(codec.WILL, 0.1))

    def properties(self, packet: int, likely: float) -> dict[int, Any]:
        """Properties that a packet may have, mostly with values that they may have."""
        chance = self.random
        found: dict[int, Any] = {}
        for code, known in PROPERTIES.items():
            if packet in known.packets and chance.random() < likely or chance.random() < 0.0005:
                value = chance.choice(VALUES[known.kind])
                if code == codec.SUBSCRIPTION_IDENTIFIER and packet == PUBLISH and chance.random() < 0.95:
                    continue
                if isinstance(value, int) and chance.random() < 0.97:
                    value = max(known.least, min(value, known.most) if known.most >= 0 else value)
                if code == codec.TOPIC_ALIAS and chance.random() < 0.97:
                    value = 1 + value % 5
                if code == codec.MAXIMUM_PACKET_SIZE:
                    value = chance.choice((20, 100, 1000))
                if code == codec.RESPONSE_TOPIC and chance.random() < 0.97:
                    value = "a/b"
                found[code] = [value] if known.repeatable else value
        return found

    def part(self, client: ClientMqtt) -> bytes:
        """A packet, which makes sense more often than not."""
        chance = self.random
        level = client.level
        code = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        packet_id = chance.choice((1, 2, 3, 4, 5, 6, 300)) if chance.random() < 0.995 else 0
        properties = self.properties(code, 0.08)
        if code == CONNECT:
            return self.login(client)
        if code == PUBLISH:
            topic = chance.choice(TOPICS[:6]) if chance.random() < 0.97 else chance.choice(TOPICS)
            if codec.TOPIC_ALIAS in properties and level == V5 and chance.random() < 0.2:
                topic = ""
            payload = chance.choice((b"", b"x", b"hello", b"\xff\x00", b"p" * 300, b"q" * 70_000
                                     if chance.random() < 0.1 else b"r"))
            qos = chance.choice((0, 0, 1, 1, 2, 2)) if chance.random() < 0.998 else 3
            flags = qos << 1 | (chance.random() < 0.2) | (bool(qos) and chance.random() < 0.1) << 3
            return write(PUBLISH, level, flags, topic=topic, packet_id=packet_id, properties=properties,
                         payload=payload)
        if code == SUBSCRIBE:
            options = [chance.choice((0, 1, 2)) | (chance.choice((0, 4, 8, 0x10, 0x20)) if level == V5 else 0)
                       for _ in range(3)]
            requests = [(chance.choice(FILTERS[:11]) if chance.random() < 0.99 else chance.choice(FILTERS), option)
                        for option in options[:chance.randint(1, 3)]]
            return write(SUBSCRIBE, level, packet_id=packet_id, properties=properties, requests=[
                (text, option & ~4) if text.startswith("$share") else (text, option) for text, option in requests])
        if code == UNSUBSCRIBE:
            return write(UNSUBSCRIBE, level, packet_id=packet_id, properties=properties,
                         filters=[chance.choice(FILTERS[:11])])
        return write(code, level, packet_id=packet_id, reason=chance.choice(REASONS), properties=properties)
