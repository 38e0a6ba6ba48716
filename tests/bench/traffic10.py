"""The load of the AMQP 1.0 rows: a thread at each end, 1.0 or 0-9-1, writing frames that were made beforehand.

It costs some microseconds a message itself, so its rates say little; what is measured is the broker's CPU.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from struct import Struct

from proton import symbol, uint

from tests.bench.brokers import BenchError, Broker, Phase, cpu_seconds, rss_kib
from tests.wire10 import (
    ACCEPTED,
    ATTACH,
    DISPOSITION,
    FLOW,
    HEADER,
    OPEN,
    RECEIVER,
    SASL_HEADER,
    SENDER,
    TRANSFER,
    Client10,
    encode,
    message,
    state,
)

AHEAD = 10_000  # messages that may be on their way
BATCH = 250
_HEAD = Struct(">IHH4sBBBBIBBIBB").pack  # of a transfer: size, offset, channel, list, handle, id, tag, format, settled
_DISPOSITION = Struct(">IHH4sBBBBI2s").pack


class Counters:
    """How many messages have gone in and come out."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.confirmed = 0
        self.stop = False
        self.error = ""


def flow10(broker: Broker, options: dict[str, int | float]) -> list[Phase]:
    """One publisher, one queue, one consumer. options: source and sink (10 or 91), settled, durable, size (bytes),
    warmup and seconds. Raises: BenchError."""
    counters = Counters()
    name = "bench-10"
    control = Legacy(broker, counters)
    control.declare(name, bool(options.get("durable")))
    ends = [Receiver10(broker, counters) if options["sink"] == 10 else Legacy(broker, counters),
            Sender10(broker, counters) if options["source"] == 10 else Legacy(broker, counters)]
    works = [ends[0].consume, ends[1].publish]
    threads = [threading.Thread(target=_guarded, args=(work, counters, name, options)) for work in works]
    try:
        for thread in threads:
            thread.start()
        time.sleep(options["warmup"])
        phase = _measured(broker, counters, float(options["seconds"]))
        counters.stop = True
        end = time.monotonic() + 30
        threads[1].join(30)
        while counters.received < counters.sent and not counters.error and time.monotonic() < end:
            time.sleep(0.01)
        if not counters.error and counters.received != counters.sent:
            counters.error = f"{counters.sent} were sent, {counters.received} received"
        if not counters.error and not options.get("settled") and counters.confirmed != counters.sent:
            counters.error = f"{counters.sent} were sent, {counters.confirmed} accepted"
    finally:
        counters.stop = True
        for end_of_it in ends:
            end_of_it.close()
        for thread in threads:
            thread.join(10)
        control.delete(name)
        control.close()
    if counters.error:
        raise BenchError(counters.error)
    return [phase]


def idle10(broker: Broker, options: dict[str, int | float]) -> list[Phase]:
    """Connections with a session that do nothing. Raises: BenchError."""
    count = int(options["connections"])
    before = rss_kib(broker)
    started, cpu = time.monotonic(), cpu_seconds(broker)
    hello = b"".join([
        SASL_HEADER, _framed(encode(state(0x41, symbol("PLAIN"), b"\0guest\0guest")), 1), HEADER,
        _framed(encode(state(OPEN, "bench", None, uint(65536)))),
        _framed(encode(state(0x11, None, uint(0), uint(1000), uint(1000))))])
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            made = socket.create_connection((broker.host, broker.port), timeout=30)
            sockets.append(made)
            made.sendall(hello)
            have = b""
            while b"\x00\x53\x11" not in have:
                more = made.recv(4096)
                if not more:
                    raise BenchError("a connection was refused")
                have += more
        opened = Phase("open", time.monotonic() - started, 0, count, cpu_seconds(broker) - cpu, 0.0, before,
                       rss_kib(broker), rss_kib(broker))
    finally:
        for made in sockets:
            made.close()
    return [opened]


def _measured(broker: Broker, counters: Counters, seconds: float) -> Phase:
    before = counters.sent, counters.received, cpu_seconds(broker), time.thread_time(), time.monotonic()
    memory = rss_kib(broker)
    time.sleep(seconds)
    return Phase("flow", time.monotonic() - before[4], counters.sent - before[0], counters.received - before[1],
                 cpu_seconds(broker) - before[2], 0.0, memory, rss_kib(broker), rss_kib(broker))


def _guarded(work: object, counters: Counters, name: str, options: dict[str, int | float]) -> None:
    try:
        work(name, options)  # type: ignore[operator]
    except (OSError, EOFError, AssertionError) as error:
        if not counters.stop:
            counters.error = f"{type(error).__name__}: {error}"


class _End10:
    def __init__(self, broker: Broker, counters: Counters) -> None:
        self.client = Client10(broker.host, broker.port, f"bench-{id(self)}", window=0x7FFFFFFF)
        self.counters = counters

    def close(self) -> None:
        with suppress(OSError):
            self.client.socket.shutdown(socket.SHUT_RDWR)
        self.client.socket.close()


class Sender10(_End10):
    """Sends as fast as credit, window and the receiver allow."""

    def publish(self, name: str, options: dict[str, int | float]) -> None:
        client, counters = self.client, self.counters
        settled = bool(options.get("settled"))
        client.attach("bench", SENDER, f"/amq/queue/{name}", snd=1 if settled else 0)
        payload = message(b"x" * int(options["size"]), bool(options.get("durable")))
        size = 28 + len(payload)
        limit = window = 0
        while not counters.stop:
            if limit <= counters.sent or window <= counters.sent:
                limit, window = self._hear(limit, window)
                continue
            count = min(limit - counters.sent, window - counters.sent, BATCH,
                        AHEAD - (counters.sent - counters.received))
            if count <= 0:
                time.sleep(0.0005)
                continue
            pieces = []
            for number in range(counters.sent, counters.sent + count):
                pieces += (_HEAD(size, 0x200, 0, b"\x00\x53\x14\xc0", 15, 5, 0x43, 0x70, number, 0xA0, 4, number,
                                 0x43, 0x41 if settled else 0x42), payload)
            client.socket.sendall(b"".join(pieces))
            counters.sent += count
        if not settled:
            client.socket.settimeout(10)
            while counters.confirmed < counters.sent:
                limit, window = self._hear(limit, window)

    def _hear(self, limit: int, window: int) -> tuple[int, int]:
        """Read a frame. Gives how many messages may have been sent in all, by credit and by window."""
        code, fields, _ = self.client.frame()
        if code == FLOW:
            window = (fields[0] or 0) + fields[1]
            if len(fields) > 6 and fields[6] is not None:
                limit = (fields[5] or 0) + fields[6]
        elif code == DISPOSITION:
            if fields[4].descriptor != ACCEPTED:
                raise AssertionError(f"not accepted: {fields}")
            last = fields[1] if fields[2] is None else fields[2]
            self.counters.confirmed += last - fields[1] + 1
        elif code != ATTACH:
            raise AssertionError(f"performative {code:#x}: {fields}")
        return limit, window


class Receiver10(_End10):
    """Takes all there is, accepting each by itself."""

    def consume(self, name: str, options: dict[str, int | float]) -> None:
        client, counters = self.client, self.counters
        settled = bool(options.get("settled"))
        client.attach("bench", RECEIVER, f"/amq/queue/{name}", snd=1 if settled else 0)
        client.credit(1_000_000)
        granted = 1_000_000
        have = client.rest()
        told = 0
        while True:
            at = 0
            while len(have) - at >= 8:
                size = int.from_bytes(have[at:at + 4], "big")
                if len(have) - at < size:
                    break
                if have[at + 10] == TRANSFER:
                    counters.received += 1
                elif size > 8 and have[at + 10] not in (FLOW, DISPOSITION):
                    raise AssertionError(f"performative {have[at + 10]:#x}")
                at += size
            have = have[at:]
            if not settled and counters.received > told:
                client.socket.sendall(b"".join([
                    _DISPOSITION(26, 0x200, 0, b"\x00\x53\x15\xc0", 13, 5, 0x41, 0x70, number,
                                 b"\x40\x41") + b"\x00\x53\x24\x45" for number in range(told, counters.received)]))
                told = counters.received
            if counters.received > granted - 500_000:
                granted += 1_000_000
                client.credit(granted - counters.received, delivered=counters.received)
            more = client.socket.recv(262144)
            if not more:
                raise EOFError
            have += more


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

    def delete(self, name: str) -> None:
        self._send(1, 50, 40, b"\0\0" + _short(name) + b"\x00")
        self._await(50, 41)

    def publish(self, name: str, options: dict[str, int | float]) -> None:
        counters = self.counters
        size = int(options["size"])
        one = (_method(1, 60, 40, b"\0\0\x00" + _short(name) + b"\x00")
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


def _framed(body: bytes, kind: int = 0) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + bytes([2, kind, 0, 0]) + body


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return bytes([kind]) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


def _method(channel: int, class_id: int, method_id: int, arguments: bytes) -> bytes:
    return _frame(1, channel, class_id.to_bytes(2, "big") + method_id.to_bytes(2, "big") + arguments)


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _long(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
