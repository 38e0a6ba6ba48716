"""The ends of AMQP 0-10, which write frames that were made beforehand."""

from __future__ import annotations

import socket
import time
import uuid
from contextlib import suppress

from protocols.amqp010.codec import DELIVERY_PROPERTIES, MESSAGE_PROPERTIES, read_ranges, write_struct
from protocols.amqp010.frames import (
    BODY,
    COMMAND,
    CONTROL,
    FIRST_SEGMENT,
    FRAME_HEADER,
    HEADER,
    LAST_SEGMENT,
    encode,
    frames,
    segment,
)
from tests.bench.brokers import Broker
from tests.bench.traffic091 import AHEAD, BATCH, Counters
from tests.wire010 import EXPLICIT, NONE, Client010

FRAME_MAX = 65535
WINDOW = 1000  # credit of a receiver: what Qpid's users set as a capacity
UNCOMPLETED = 2000  # transfers that a sender does not wait for
_TRANSFER = b"\x04\x01"
_ACCEPT = b"\x04\x02"
_COMPLETED = b"\x02\x0a"


def idle010(broker: Broker) -> socket.socket:
    """A connection with a session. Raises: OSError, EOFError."""
    return Client010(broker.host, broker.port, uuid.uuid4().bytes).socket


class _End010:
    def __init__(self, broker: Broker, counters: Counters) -> None:
        self.client = Client010(broker.host, broker.port, f"bench-{id(self)}".encode())
        self.counters = counters
        self._have = b""
        self._commands = 0  # of the broker's that have come

    def hear(self) -> int:
        """Read once, and count. Gives how many messages came. Raises: OSError, EOFError, AssertionError."""
        data = self.client.socket.recv(262144)
        if not data:
            raise EOFError("the broker has closed the connection")
        have = self._have + data
        at = messages = 0
        while len(have) - at >= FRAME_HEADER:
            stop = at + (have[at + 2] << 8 | have[at + 3])
            if stop > len(have):
                break
            if have[at + 1] == COMMAND:
                self._commands += 1
                if have.startswith(_TRANSFER, at + FRAME_HEADER):
                    messages += 1
                else:
                    self._told(have[at + FRAME_HEADER:stop])
            elif have[at + 1] == CONTROL:
                self._told(have[at + FRAME_HEADER:stop])
            at = stop
        self._have = have[at:]
        return messages

    def _told(self, content: bytes) -> None:
        """A command or control that is not a message."""
        if content[:2] not in (b"\x02\x0c", b"\x02\x07", _COMPLETED):
            raise AssertionError(f"class {content[0]}, code {content[1]}")

    def completed(self) -> bytes:
        """What tells the broker that all its commands so far are complete."""
        return encode("session.completed", 0, FRAME_MAX, commands=[(0, self._commands - 1)], timely_reply=False)

    def close(self) -> None:
        with suppress(OSError):
            self.client.socket.shutdown(socket.SHUT_RDWR)
        self.client.socket.close()


class Sender010(_End010):
    """Sends batches, and waits for acceptance and completion of those before the last ones."""

    def __init__(self, broker: Broker, counters: Counters) -> None:
        super().__init__(broker, counters)
        self.complete = 0  # transfers
        self._is_fresh = False  # the broker has sent accepts

    def publish(self, name: str, options: dict[str, int | float]) -> None:
        client, counters = self.client, self.counters
        settled = bool(options.get("settled"))
        first = client.next_out
        blob = _message(name, options, NONE if settled else EXPLICIT) * BATCH
        while not counters.stop:
            if counters.sent - counters.received > AHEAD - BATCH:
                time.sleep(0.0005)
                continue
            while counters.sent - (self.complete - first) > UNCOMPLETED:
                self._await()
            client.socket.sendall(blob)
            counters.sent += BATCH
        client.socket.settimeout(10)
        while self.complete - first < counters.sent or not settled and counters.confirmed < counters.sent:
            self._await()

    def _await(self) -> None:
        self.hear()
        if self._is_fresh:
            self._is_fresh = False
            self.client.socket.sendall(self.completed())

    def _told(self, content: bytes) -> None:
        if content[:2] == _ACCEPT:
            for low, high in read_ranges(content, 6, len(content))[0]:
                self.counters.confirmed += high - low + 1
            self._is_fresh = True
        elif content[:2] == _COMPLETED:
            for _, high in read_ranges(content, 4, len(content))[0]:
                self.complete = max(self.complete, high + 1)
        else:
            super()._told(content)


class Receiver010(_End010):
    """Takes all there is, in window mode, accepting and completing a batch at once."""

    def consume(self, name: str, options: dict[str, int | float]) -> None:
        client, counters = self.client, self.counters
        settled = bool(options.get("settled"))
        client.command("message.subscribe", queue=name, destination="bench", accept_mode=NONE if settled else EXPLICIT,
                       acquire_mode=0)
        client.command("message.set-flow-mode", destination="bench", flow_mode=1)
        client.command("message.flow", destination="bench", unit=1, value=0xFFFFFFFF)
        client.command("message.flow", destination="bench", unit=0, value=WINDOW)
        told = 0
        while True:
            counters.received += self.hear()
            if counters.received - told >= BATCH:
                if not settled:
                    client.command("message.accept", sync=False, transfers=[(told, counters.received - 1)])
                client.socket.sendall(self.completed())
                told = counters.received


def _message(name: str, options: dict[str, int | float], accept_mode: int) -> bytes:
    """The frames of a message to a queue, with the properties that Qpid's clients always write."""
    size = int(options["size"])
    command = segment("message.transfer", False, {"destination": "", "accept_mode": accept_mode, "acquire_mode": 0})
    header = write_struct(DELIVERY_PROPERTIES, {"delivery_mode": 2 if options.get("durable") else 1,
                                                "routing_key": name})
    header += write_struct(MESSAGE_PROPERTIES, {"content_length": size, "content_type": "text/plain"})
    return b"".join([*frames(command, COMMAND, 0, FIRST_SEGMENT, FRAME_MAX), *frames(header, HEADER, 0, 0, FRAME_MAX),
                     *frames(b"x" * size, BODY, 0, LAST_SEGMENT, FRAME_MAX)])
