"""The other end of the crossings, AMQP 0-9-1; and what all ends written in Python share."""

from __future__ import annotations

import socket
import time
from collections import deque
from contextlib import suppress

from tests.bench.brokers import Broker

AHEAD = 10_000  # messages that may be on their way
BATCH = 250
NAME = "bench-ends"
"""The queue between the ends, and its routing key or topic."""


class Counters:
    """How many messages have gone in and come out."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.confirmed = 0
        self.stop = False
        self.error = ""


class Legacy:
    """The other end of a crossing: AMQP 0-9-1 without acks or confirms, and what declares the queue."""

    def __init__(self, broker: Broker, counters: Counters) -> None:
        self.counters = counters
        self.socket = socket.create_connection((broker.host, broker.port), timeout=30)
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._methods: deque[tuple[int, int]] = deque()
        self._have = b""
        self._await(10, 10)
        self._send(0, 10, 11, b"\0\0\0\0\x05PLAIN" + _long(b"\0guest\0guest") + b"\x05en_US")
        self._await(10, 30)
        self._send(0, 10, 31, b"\x07\xff\x00\x02\x00\x00\x00\x00")
        self._send(0, 10, 40, b"\x01/\x00\x00")
        self._await(10, 41)
        self._send(1, 20, 10, b"\x00")
        self._await(20, 11)

    def declare(self, name: str, durable: bool) -> None:
        self._send(1, 50, 10, b"\0\0" + _short(name) + bytes([2 if durable else 0]) + b"\0\0\0\0")
        self._await(50, 11)

    def bind(self, name: str) -> None:
        """To amq.topic, by the queue's name."""
        self._send(1, 50, 20, b"\0\0" + _short(name) + _short("amq.topic") + _short(name) + b"\0\0\0\0\0")
        self._await(50, 21)

    def delete(self, name: str) -> None:
        self._send(1, 50, 40, b"\0\0" + _short(name) + b"\x00")
        self._await(50, 41)

    def publish(self, name: str, options: dict[str, int | float]) -> None:
        counters = self.counters
        size = int(options["size"])
        exchange = "amq.topic" if options.get("topic") else ""
        one = (_method(1, 60, 40, b"\0\0" + _short(exchange) + _short(name) + b"\x00")
               + _frame(2, 1, b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + b"\x10\x00\x01")
               + _frame(3, 1, b"x" * size))
        blob = one * BATCH
        while not counters.stop:
            if counters.sent - counters.received > AHEAD - BATCH:
                time.sleep(0.0005)
                continue
            self.socket.sendall(blob)
            counters.sent += BATCH

    def consume(self, name: str, options: dict[str, int | float]) -> None:
        counters = self.counters
        self._send(1, 60, 20, b"\0\0" + _short(name) + b"\x01c" + b"\x02" + b"\0\0\0\0")
        while True:
            self._read()
            while self._methods:
                if self._methods.popleft() == (60, 60):
                    counters.received += 1

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _send(self, channel: int, class_id: int, method_id: int, arguments: bytes) -> None:
        self.socket.sendall(_method(channel, class_id, method_id, arguments))

    def _await(self, class_id: int, method_id: int) -> None:
        while True:
            while self._methods:
                if self._methods.popleft() == (class_id, method_id):
                    return
            self._read()

    def _read(self) -> None:
        """Read what is there, and note which methods come."""
        data = self.socket.recv(262144)
        if not data:
            raise EOFError("the broker has closed the connection")
        have = self._have + data
        at = 0
        while len(have) - at >= 8:
            size = int.from_bytes(have[at + 3:at + 7], "big") + 8
            if len(have) - at < size:
                break
            if have[at] == 1:
                self._methods.append((int.from_bytes(have[at + 7:at + 9], "big"),
                                      int.from_bytes(have[at + 9:at + 11], "big")))
            at += size
        self._have = have[at:]


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return bytes([kind]) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


def _method(channel: int, class_id: int, method_id: int, arguments: bytes) -> bytes:
    return _frame(1, channel, class_id.to_bytes(2, "big") + method_id.to_bytes(2, "big") + arguments)


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _long(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
