"""The ends of AMQP 1.0, which write frames that were made beforehand."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from struct import Struct

from proton import symbol, uint

from tests.bench.brokers import Broker
from tests.bench.traffic091 import AHEAD, BATCH, Counters
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

_HEAD = Struct(">IHH4sBBBBIBBIBB").pack  # of a transfer: size, offset, channel, list, handle, id, tag, format, settled
_DISPOSITION = Struct(">IHH4sBBBBI2s").pack


def _framed(body: bytes, kind: int = 0) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + bytes([2, kind, 0, 0]) + body


HELLO = b"".join([
    SASL_HEADER, _framed(encode(state(0x41, symbol("PLAIN"), b"\0guest\0guest")), 1), HEADER,
    _framed(encode(state(OPEN, "bench", None, uint(65536)))),
    _framed(encode(state(0x11, None, uint(0), uint(1000), uint(1000))))])
"""What a client sends to have a connection with a session."""


def idle10(broker: Broker) -> socket.socket:
    """A connection with a session. Raises: OSError, EOFError."""
    made = socket.create_connection((broker.host, broker.port), timeout=30)
    made.sendall(HELLO)
    await_session(made)
    return made


def await_session(made: socket.socket) -> None:
    """Read until the session is there. Raises: OSError, EOFError."""
    have = b""
    while b"\x00\x53\x11" not in have:
        more = made.recv(4096)
        if not more:
            raise EOFError("a connection was refused")
        have += more


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
        client.attach("bench", SENDER, f"/exchange/amq.topic/{name}" if options.get("topic") else f"/amq/queue/{name}",
                      snd=1 if settled else 0)
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
