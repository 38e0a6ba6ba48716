"""A raw AMQP 1.0 client: it writes what it is told to, right or wrong. Proton's codec makes and reads the bytes."""

from __future__ import annotations

import socket
from typing import Any

from proton import UNDESCRIBED, Array, Data, Described, symbol, ubyte, uint, ulong, ushort

from tests.wire import received

HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE = range(0x10, 0x19)
RECEIVED, ACCEPTED, REJECTED, RELEASED, MODIFIED = range(0x23, 0x28)
SENDER, RECEIVER = False, True
"""Roles of ours."""


def encode(value: Any) -> bytes:
    data = Data()
    data.put_object(value)
    return bytes(data.encode())


def state(code: int, *fields: Any) -> Described:
    return Described(ulong(code), list(fields))


def symbols(names: list[str]) -> Array:
    return Array(UNDESCRIBED, Data.SYMBOL, *map(symbol, names))


def message(body: bytes, durable: bool = False) -> bytes:
    head = encode(state(0x70, True)) if durable else b""
    return head + encode(Described(ulong(0x75), body))


class Client10:
    """One connection, one session on channel 0. What is received is (code, fields, payload)."""

    def __init__(self, host: str, port: int, container: str = "wire", user: str = "guest", password: str = "guest",
                 frame_max: int = 65536, window: int = 1000, opens: bool = True, **options: Any) -> None:
        """opens: open the connection and begin a session; options are those of `open`."""
        self.socket = socket.create_connection((host, port), timeout=10)
        self.next_id = 0
        self.window = window  # transfers that may come
        self._have = b""
        try:
            self._log_in(user, password)
            if opens:
                self.open(container, frame_max, **options)
                self.begin()
        except BaseException:
            self.socket.close()
            raise

    def _log_in(self, user: str, password: str) -> None:
        self.socket.sendall(SASL_HEADER)
        assert self._read(8) == SASL_HEADER
        self.frame()
        self.send_frame(encode(state(0x41, symbol("PLAIN"), f"\0{user}\0{password}".encode())), kind=1)
        assert self.frame()[1][0] == 0
        self.socket.sendall(HEADER)
        assert self._read(8) == HEADER

    def open(self, container: str, frame_max: int = 65536, hostname: str | None = None, channel_max: int | None = None,
             idle: int | None = None, desired: list[str] | None = None,
             properties: dict[str, Any] | None = None) -> list[Any]:
        """Gives the fields of the broker's open."""
        self.send(OPEN, container, hostname, uint(frame_max), None if channel_max is None else ushort(channel_max),
                  None if idle is None else uint(idle), None, None, None,
                  None if desired is None else symbols(desired),
                  None if properties is None else {symbol(key): value for key, value in properties.items()})
        return self.expect(OPEN)[0]

    def begin(self, channel: int = 0, window: int | None = None) -> list[Any]:
        """Begin a session. Gives the fields of the broker's begin."""
        self.send(BEGIN, None, uint(0), uint(self.window if window is None else window), uint(1000), channel=channel)
        return self.expect(BEGIN)[0]

    def send_frame(self, body: bytes, kind: int = 0, channel: int = 0) -> None:
        self.socket.sendall((len(body) + 8).to_bytes(4, "big") + bytes([2, kind]) + channel.to_bytes(2, "big") + body)

    def send(self, code: int, *fields: Any, payload: bytes = b"", channel: int = 0) -> None:
        self.send_frame(encode(state(code, *fields)) + payload, channel=channel)

    def frame(self) -> tuple[int, list[Any], bytes]:
        """The next frame that is not empty. Raises: Hangup."""
        while True:
            size = int.from_bytes(self._read(4), "big")
            rest = self._read(size - 4)
            if size > 8:
                break
        data = Data()
        read = data.decode(rest[4:])
        data.rewind()
        data.next()
        value = _value(data)
        return int(value.descriptor), value.value, rest[4 + read:]

    def expect(self, code: int) -> tuple[list[Any], bytes]:
        """The next frame of that kind. What comes before it may be flows and dispositions only."""
        while True:
            found, fields, payload = self.frame()
            if found == code:
                return fields + [None] * (20 - len(fields)), payload
            assert found in (FLOW, DISPOSITION), f"performative {found:#x} {fields} instead of {code:#x}"

    def attach(self, name: str, role: bool, address: str | None, handle: int = 0,
               unsettled: dict[bytes, Any] | None = None, snd: int = 0, rcv: int = 0, durable: int = 0,
               expiry: str | None = None, timeout: int = 0, more: tuple[Any, ...] = (),
               properties: dict[Any, Any] | None = None, max_message_size: int | None = None) -> list[Any]:
        """Attach a link; more: further fields of its terminus. Gives the fields of the broker's attach."""
        terminus = [address, uint(durable), None if expiry is None else symbol(expiry), uint(timeout), *more]
        source = state(0x28, *terminus) if role == RECEIVER else state(0x28)
        target = state(0x29, *terminus) if role == SENDER else state(0x29)
        self.send(ATTACH, name, uint(handle), role, ubyte(snd), ubyte(rcv), source, target, unsettled, None,
                  None if role == RECEIVER else uint(0), None if max_message_size is None else ulong(max_message_size),
                  None, None, properties)
        return self.expect(ATTACH)[0]

    def credit(self, count: int, handle: int = 0, delivered: int = 0, drain: bool = False, echo: bool = False,
               properties: dict[Any, Any] | None = None, window: int | None = None, seen: int = 0) -> None:
        """A flow; delivered: deliveries that this link has had, seen: transfers that the session has had."""
        self.send(FLOW, uint(seen), uint(self.window if window is None else window), uint(self.next_id), uint(1000),
                  uint(handle), uint(delivered), uint(count), None, drain, echo, properties)

    def delivery(self) -> tuple[list[Any], bytes]:
        """The next delivery, all of its transfers put together: the fields of the first, and the message."""
        fields, message = self.expect(TRANSFER)
        more = fields[5]
        while more:
            following, payload = self.expect(TRANSFER)
            assert following[0] == fields[0]
            message += payload
            more = following[5]
        return fields, message

    def outcome(self) -> list[Any]:
        """The fields of the next disposition, whatever flows come before it."""
        while True:
            code, fields, _ = self.frame()
            if code == DISPOSITION:
                return fields + [None] * (6 - len(fields))
            assert code == FLOW, f"performative {code:#x} {fields}"

    def flow(self) -> list[Any]:
        """The fields of the next flow."""
        while True:
            code, fields, _ = self.frame()
            if code == FLOW:
                return fields + [None] * (11 - len(fields))
            assert code == DISPOSITION, f"performative {code:#x} {fields}"

    def transfer(self, payload: bytes, tag: bytes, settled: bool = False, more: bool = False, resume: bool = False,
                 delivery_state: Any = None, handle: int = 0, aborted: bool = False, number: int | None = None) -> int:
        """Send a delivery, or its beginning. Gives its delivery-id."""
        delivery_id = self.next_id if number is None else number
        self.next_id += 1
        self.send(TRANSFER, uint(handle), uint(delivery_id), tag, uint(0), settled, more, None, delivery_state, resume,
                  aborted, payload=payload)
        return delivery_id

    def settle(self, role: bool, first: int, outcome: Any, settled: bool = True, last: int | None = None) -> None:
        self.send(DISPOSITION, role, uint(first), None if last is None else uint(last), settled, outcome)

    def detach(self, handle: int = 0, closed: bool = False) -> list[Any]:
        self.send(DETACH, uint(handle), closed)
        return self.expect(DETACH)[0]

    def rest(self) -> bytes:
        """What was received and not looked at."""
        found, self._have = self._have, b""
        return found

    def close(self) -> None:
        """Go as a client does that says good-bye."""
        self.send(CLOSE)
        self.expect(CLOSE)
        self.socket.close()

    def vanish(self) -> None:
        """Go as a client does whose machine loses its power."""
        self.socket.close()

    def _read(self, size: int) -> bytes:
        while len(self._have) < size:
            self._have += received(self.socket)
        found, self._have = self._have[:size], self._have[size:]
        return found


def _value(data: Data) -> Any:
    """The value that the decoder stands at. (Proton's own maps take no binary for a key.)"""
    kind = data.type()
    if kind == Data.BINARY:
        return bytes(data.get_binary())
    if kind not in (Data.DESCRIBED, Data.LIST, Data.MAP):
        return data.get_object()
    found = []
    data.enter()
    while data.next():
        found.append(_value(data))
    data.exit()
    if kind == Data.DESCRIBED:
        return Described(*found)
    return found if kind == Data.LIST else dict(zip(found[::2], found[1::2], strict=True))
