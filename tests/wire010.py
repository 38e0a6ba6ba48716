"""A raw AMQP 0-10 client: it writes what it is told to, right or wrong, and reads controls, commands and content."""

from __future__ import annotations

import socket
from typing import Any

from protocols.amqp010.codec import DELIVERY_PROPERTIES, MESSAGE_PROPERTIES, STRUCTS, read_struct, write_struct
from protocols.amqp010.frames import (
    BODY,
    BY_CODE,
    COMMAND,
    CONTROL,
    FIRST_SEGMENT,
    HEADER,
    LAST_FRAME,
    LAST_SEGMENT,
    PROTOCOL_HEADER,
    frames,
    segment,
)
from tests.wire import received

NONE, EXPLICIT = 1, 0
"""Accept modes."""


class Arrived:
    """A control or a command from the broker; of a transfer, its message."""

    def __init__(self, name: str, channel: int, fields: dict[str, Any], number: int) -> None:
        self.name = name
        self.channel = channel
        self.fields = fields
        self.number = number  # of a command: its id
        self.header: dict[str, Any] = {}  # delivery- and message-properties, in one
        self.body: bytes | None = None

    def __repr__(self) -> str:
        return f"{self.name}({self.fields})"


class Client010:
    """One connection, with one session on channel 0 if it is to begin one."""

    def __init__(self, host: str, port: int, name: bytes = b"wire", user: str = "guest", password: str = "guest",
                 opens: bool = True, attaches: bool = True, frame_max: int = 65535, heartbeat: int = 0) -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frame_max = frame_max
        self.next_out = 0  # the id of our next command
        self.next_in: dict[int, int] = {}  # by channel
        self.completed: set[int] = set()  # our commands that the broker has completed
        self.messages: list[Arrived] = []  # that came while something else was waited for
        self._have = b""
        self._partial: dict[tuple[int, int], list[bytes]] = {}
        self._transfers: dict[int, Arrived] = {}
        try:
            self.socket.sendall(PROTOCOL_HEADER)
            assert self._read(8) == PROTOCOL_HEADER
            self.start = self.expect("connection.start").fields
            if opens:
                self.open(user, password, heartbeat)
            if opens and attaches:
                self.attach(name)
        except BaseException:
            self.socket.close()
            raise

    def open(self, user: str = "guest", password: str = "guest", heartbeat: int = 0) -> None:
        self.ask_to_open("", user, password, heartbeat)
        self.expect("connection.open-ok")

    def ask_to_open(self, host: str, user: str = "guest", password: str = "guest", heartbeat: int = 0) -> None:
        """All of the handshake but the answer to connection.open."""
        self.control("connection.start-ok", client_properties={}, mechanism="PLAIN", locale="en_US",
                     response=f"\0{user}\0{password}".encode())
        self.tune = self.expect("connection.tune").fields
        self.control("connection.tune-ok", channel_max=100, max_frame_size=self.frame_max, heartbeat=heartbeat)
        self.control("connection.open", virtual_host=host)

    def attach(self, name: bytes, channel: int = 0, point: int = 0, force: bool = False) -> None:
        self.control("session.attach", channel, name=name, force=force)
        self.expect("session.attached")
        self.control("session.command-point", channel, command_id=point, command_offset=0)
        self.next_out = point

    # Out.

    def control(self, method: str, channel: int = 0, /, **values: Any) -> None:
        self.segment(segment(method, False, values), CONTROL, FIRST_SEGMENT | LAST_SEGMENT, channel)

    def command(self, method: str, /, channel: int = 0, sync: bool = True, **values: Any) -> int:
        """Gives its id."""
        self.segment(segment(method, sync, values), COMMAND, FIRST_SEGMENT | LAST_SEGMENT, channel)
        self.next_out += 1
        return self.next_out - 1

    def call(self, method: str, /, **values: Any) -> int:
        """A command, and the wait for its completion."""
        number = self.command(method, **values)
        self.wait(number)
        return number

    def segment(self, content: bytes, kind: int, flags: int, channel: int = 0) -> None:
        self.socket.sendall(b"".join(frames(content, kind, channel, flags, self.frame_max)))

    def transfer(self, destination: str = "", key: str = "", body: bytes | None = b"", accept: int | None = NONE,
                 properties: dict[str, Any] | None = None, sync: bool = False, **delivery: Any) -> int:
        """Publish; delivery: further delivery-properties. Gives the command's id."""
        values = {"destination": destination, "accept_mode": accept, "acquire_mode": 0}
        self.segment(segment("message.transfer", sync, values), COMMAND, FIRST_SEGMENT)
        head = write_struct(DELIVERY_PROPERTIES, {"routing_key": key, **delivery})
        if properties is not None:
            head += write_struct(MESSAGE_PROPERTIES, properties)
        self.segment(head, HEADER, LAST_SEGMENT if body is None else 0)
        if body is not None:
            self.segment(body, BODY, LAST_SEGMENT)
        self.next_out += 1
        return self.next_out - 1

    def publish(self, key: str, body: bytes, **values: Any) -> None:
        """Publish to a queue, and wait until that is safe."""
        self.wait(self.transfer("", key, body, sync=True, **values))

    def subscribe(self, queue: str, destination: str = "d", messages: int = 0xFFFFFFFF, octets: int = 0xFFFFFFFF,
                  accept: int = EXPLICIT, acquire: int = 0, **values: Any) -> int:
        number = self.command("message.subscribe", queue=queue, destination=destination, accept_mode=accept,
                              acquire_mode=acquire, **values)
        for unit, value in ((0, messages), (1, octets)):
            if value:
                self.command("message.flow", destination=destination, unit=unit, value=value)
        self.wait(self.next_out - 1)
        return number

    # In.

    def arrive(self) -> Arrived:
        """The next control or command, whole. Raises: Hangup, TimeoutError."""
        while True:
            head = self._read(12)
            flags, kind, channel = head[0], head[1], head[6] << 8 | head[7]
            content = self._read((head[2] << 8 | head[3]) - 12)
            parts = self._partial.setdefault((channel, kind), [])
            parts.append(content)
            if not flags & LAST_FRAME:
                continue
            del self._partial[channel, kind]
            whole = b"".join(parts)
            if kind in (CONTROL, COMMAND):
                arrived = self._method(kind, channel, whole)
                if not flags & LAST_SEGMENT:
                    self._transfers[channel] = arrived
                    continue
                return arrived
            arrived = self._transfers[channel]
            if kind == HEADER:
                at = 0
                while at < len(whole):
                    found, at = read_struct(STRUCTS[whole[at + 4] << 8 | whole[at + 5]], whole, at, len(whole))
                    arrived.header.update(found)
            else:
                arrived.body = whole
            if flags & LAST_SEGMENT:
                return self._transfers.pop(channel)

    def _method(self, kind: int, channel: int, content: bytes) -> Arrived:
        method = BY_CODE[content[0] << 8 | content[1]]
        number = -1
        if kind == COMMAND:
            number = self.next_in.get(channel, 0)
            self.next_in[channel] = number + 1
        fields = method.decode(content, 4 if kind == COMMAND else 2, len(content))
        if method.name == "session.completed":
            for first, last in fields.get("commands", []):
                self.completed.update(range(first, last + 1))
        elif method.name == "session.command-point":
            self.next_in[channel] = fields.get("command_id", 0)
        return Arrived(method.name, channel, fields, number)

    def expect(self, name: str) -> Arrived:
        """The next one of that name; messages, completions, command-points and heartbeats may come before it."""
        while True:
            arrived = self.arrive()
            if arrived.name == name:
                return arrived
            if arrived.name == "message.transfer":
                self.messages.append(arrived)
                continue
            assert arrived.name in ("session.completed", "session.command-point", "connection.heartbeat",
                                    "session.known-completed", "message.accept"), arrived

    def wait(self, number: int) -> None:
        """Until a command of ours is completed."""
        while number not in self.completed:
            self.expect("session.completed")

    def message(self) -> Arrived:
        return self.messages.pop(0) if self.messages else self.expect("message.transfer")

    def nothing(self) -> None:
        """Nothing more comes but what was asked for by this: a round trip."""
        assert not self.messages
        number = self.command("execution.sync")
        while number not in self.completed:
            arrived = self.arrive()
            assert arrived.name in ("session.completed", "session.command-point"), arrived

    def error(self) -> int:
        """The code of the exception that comes now, and ends the session."""
        code: int = self.expect("execution.exception").fields["error_code"]
        self.expect("session.detach")
        self.control("session.detached", name=b"wire", code=0)
        return code

    def result(self, method: str, /, **values: Any) -> Any:
        """The result of a command."""
        number = self.command(method, **values)
        arrived = self.expect("execution.result")
        assert arrived.fields["command_id"] == number
        return arrived.fields["value"]

    def closed(self) -> int:
        """The code of the connection.close that comes now; after close-ok the broker hangs up."""
        code: int = self.expect("connection.close").fields["reply_code"]
        self.control("connection.close-ok")
        assert self.socket.recv(1) == b""
        return code

    def vanish(self) -> None:
        self.socket.close()

    def _read(self, size: int) -> bytes:
        while len(self._have) < size:
            self._have += received(self.socket)
        data, self._have = self._have[:size], self._have[size:]
        return data


