"""A 0-10 client without a library, which sends and reads all that there is to say."""

from __future__ import annotations

import socket
from typing import Any

from tests.conformance.matrix.bytes010 import read_message, write_header
from tests.conformance.matrix.notation import Side
from tests.conformance.support import DEADLINE

START, TUNE, OPEN_OK, ATTACHED, COMMAND_POINT = 0x0101, 0x0105, 0x0108, 0x0202, 0x0207
TRANSFER, RESULT = 0x0401, 0x0302
LARGEST = 65535


class Raw010:
    """One session on channel 1, which answers what it must."""

    name = "raw010"
    dialect = "zero"

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition("@")[2].partition("/")[0].partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=DEADLINE)
        self.data = b""
        self.sent = 0
        self.socket.sendall(b"AMQP\1\1\0\x0a")
        assert self._take(8) == b"AMQP\1\1\0\x0a"
        self._await(START)
        self._control(0x0102, b"\x0e\0" + _str8(b"PLAIN") + b"\0\0\0\x0c\0guest\0guest" + _str8(b"en_US"))
        self._await(TUNE)
        self._control(0x0106, b"\7\0\0\x10\xff\xff\0\0")
        self._control(0x0107, b"\1\0" + _str8(b""))
        self._await(OPEN_OK)
        self._control(0x0201, b"\1\0\0\6matrix", 1)
        self._await(ATTACHED)
        self._control(0x0207, b"\3\0\0\0\0\0" + bytes(8), 1)

    def close(self) -> None:
        self.socket.close()

    @staticmethod
    def can_send(side: Side) -> bool:
        """All of what it writes as the table has it."""
        return read_message(write_header(side, b"", b""), bytes.fromhex(side["body"][1]))[0] == side

    can_read = can_send

    def send(self, queue: str, sides: list[Side]) -> None:
        for side in sides:
            body = bytes.fromhex(side["body"][1])
            segments = [(1, b"\4\1\1\0\3\0\0\1"), (2, write_header(side, b"", queue.encode())), (3, body)]
            for kind, content in segments if body else segments[:2]:
                last = kind == (3 if body else 2)
                self._segment(content, kind, 1, (8 if kind == 1 else 0) | (4 if last else 0))
            self.sent += 1
        self._command(0x0301, b"\0\0")  # execution.sync
        completed = 0
        while completed < self.sent:
            code, fields, _ = self._next()
            if code == 0x020A and fields[:2] == b"\1\0" or code == 0x020A and fields[0] & 1:
                completed = int.from_bytes(fields[8:12], "big") + 1

    def read(self, queue: str, count: int) -> list[tuple[Side, None]]:
        name = queue.encode()
        # Nothing is to be accepted, and there is no limit to the bytes.
        self._command(0x0407, b"\x0f\0" + _str8(name) + _str8(b"d") + b"\1\0")
        self._command(0x040A, b"\7\0" + _str8(b"d") + b"\1\xff\xff\xff\xff")
        self._command(0x040A, b"\7\0" + _str8(b"d") + b"\0" + count.to_bytes(4, "big"))
        found: list[tuple[Side, None]] = []
        while len(found) < count:
            code, _, segments = self._next()
            if code == TRANSFER:
                side, exchange, key = read_message(segments.get(2, b""), segments.get(3, b""))
                assert (exchange, key) == (b"", name)
                found.append((side, None))
        self._command(0x0408, b"\1\0" + _str8(b"d"))
        return found

    # Assemblies.

    def _control(self, code: int, fields: bytes, channel: int = 0) -> None:
        self._segment(code.to_bytes(2, "big") + fields, 0, channel, 12)

    def _command(self, code: int, fields: bytes) -> None:
        self._segment(code.to_bytes(2, "big") + b"\1\1" + fields, 1, 1, 12)
        self.sent += 1

    def _segment(self, content: bytes, kind: int, channel: int, flags: int) -> None:
        most = LARGEST - 12
        for at in range(0, len(content) or 1, most):
            part = content[at:at + most]
            place = (0 if at else 2) | (1 if at + most >= len(content) else 0)
            self.socket.sendall(bytes([flags | place, kind]) + (len(part) + 12).to_bytes(2, "big")
                                + bytes([0, 1 if kind else 0]) + channel.to_bytes(2, "big") + bytes(4) + part)

    def _await(self, code: int) -> None:
        while self._next()[0] != code:
            pass

    def _next(self) -> tuple[int, bytes, dict[int, bytes]]:
        """What comes next: its code, its fields, and all of its segments."""
        segments: dict[int, bytes] = {}
        while True:
            head = self._take(12)
            kind = head[1]
            segments[kind] = segments.get(kind, b"") + self._take(int.from_bytes(head[2:4], "big") - 12)
            if head[0] & 5 == 5:
                break
        first: Any = segments[min(segments)]
        code = int.from_bytes(first[:2], "big")
        assert code not in (0x010B, 0x0204, 0x0303), f"refused: {first!r}"
        return code, first[2:] if 0 in segments else first[4:], segments

    def _take(self, size: int) -> bytes:
        while len(self.data) < size:
            more = self.socket.recv(65536)
            assert more, "the broker has closed the connection"
            self.data += more
        found, self.data = self.data[:size], self.data[size:]
        return found


def _str8(data: bytes) -> bytes:
    return bytes([len(data)]) + data
