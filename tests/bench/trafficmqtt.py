"""The ends of MQTT, QoS 0, which write packets that were made beforehand."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tests.bench.brokers import Broker
from tests.bench.traffic091 import AHEAD, BATCH, NAME, Counters


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _packet(first: int, rest: bytes) -> bytes:
    size = len(rest)
    length = b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([first]) + length + bytes([size]) + rest


class _EndMqtt:
    def __init__(self, broker: Broker, counters: Counters) -> None:
        self.counters = counters
        self.socket = socket.create_connection((broker.host, broker.port), timeout=30)
        self.socket.sendall(_packet(0x10, _text("MQTT") + b"\x04\xc2\0\0" + _text(f"bench-{id(self)}") + _text("guest")
                                    + _text("guest")))
        self._have = b""
        if self._await(0x20)[1] != 0:
            raise AssertionError("refused")

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _await(self, first: int) -> bytes:
        """Read one packet, which has to be of this kind. Gives what is behind its length."""
        have = self._have
        while len(have) < 2 or len(have) < 2 + have[1]:
            have += self._more()
        if have[0] != first:
            raise AssertionError(f"packet {have[0]:#x}")
        self._have = have[2 + have[1]:]
        return have[2:2 + have[1]]

    def _more(self) -> bytes:
        data = self.socket.recv(262144)
        if not data:
            raise EOFError("the broker has closed the connection")
        return data


class SenderMqtt(_EndMqtt):
    """Publishes as fast as the receiver allows."""

    def publish(self, name: str, options: dict[str, int | float]) -> None:
        counters = self.counters
        blob = _packet(0x30, _text(name) + b"x" * int(options["size"])) * BATCH
        while not counters.stop:
            if counters.sent - counters.received > AHEAD - BATCH:
                time.sleep(0.0005)
                continue
            self.socket.sendall(blob)
            counters.sent += BATCH


class ReceiverMqtt(_EndMqtt):
    """Takes all there is. It subscribes before anything is published."""

    def __init__(self, broker: Broker, counters: Counters) -> None:
        super().__init__(broker, counters)
        self.socket.sendall(_packet(0x82, b"\0\x01" + _text(NAME) + b"\0"))
        self._await(0x90)

    def consume(self, name: str, options: dict[str, int | float]) -> None:
        have = self._have
        while True:
            at, size = 0, len(have)
            while size - at > 4:
                length, behind = have[at + 1] & 127, at + 2
                if have[at + 1] > 127:
                    length, behind = length | have[at + 2] << 7, at + 3
                if size < behind + length:
                    break
                if have[at] != 0x30:
                    raise AssertionError(f"packet {have[at]:#x}")
                self.counters.received += 1
                at = behind + length
            have = have[at:] + self._more()
