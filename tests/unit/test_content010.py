"""The native form of a message of 0-10: frames made from parts, and parts found in them."""

from __future__ import annotations

import pytest

from broker.message import AMQP010, Message, address_of
from protocols.amqp010 import content
from protocols.amqp010.codec import DELIVERY_PROPERTIES, read_struct, write_struct
from protocols.amqp010.frames import BODY, HEADER


def message(header: bytes, pieces: list[bytes]) -> Message:
    size = sum(map(len, pieces))
    native, body = content.build(header, pieces, size)
    return Message(address_of("", "q"), AMQP010, native, body, size, False, 0, 0, 0)


@pytest.mark.parametrize("header_size", [8, 255, 65523, 65524, 131046, 131047, 200_000])
@pytest.mark.parametrize("pieces", [[], [b"x"], [b"ab", b"c"], [b"x" * 65523], [b"x" * 65523, b"y"]],
                         ids=["none", "one", "two", "most", "more"])
def test_parts_are_found_again(header_size: int, pieces: list[bytes]) -> None:
    header = bytes(range(256)) * (header_size // 256) + bytes(header_size % 256)
    found = message(header, pieces)
    assert content.header_segment(found) == header
    assert b"".join(content.body_pieces(found)) == b"".join(pieces)
    assert (found.body is None) == (found.size <= 65523)
    at, frames = 0, []
    while at < len(found.native):
        frames.append((found.native[at], found.native[at + 1]))
        assert found.native[at + 4:at + 12] == b"\0\x01\0\0\0\0\0\0"  # track 1
        at += int.from_bytes(found.native[at + 2:at + 4], "big")
    assert at == len(found.native)
    headers = [flags for flags, kind in frames if kind == HEADER]
    last = 0 if pieces else 4
    assert [flags & 4 for flags in headers] == [last] * len(headers)
    assert headers[0] & 2 and headers[-1] & 1 and len(headers) == -(-header_size // 65523)
    assert [flags for flags, kind in frames if kind == BODY] == ([7] if pieces and found.body is None else [])


def test_redelivered() -> None:
    header = write_struct(DELIVERY_PROPERTIES, {"exchange": "e", "routing_key": "k"})
    before = message(header, [b"body"])
    after = Message(before.address, AMQP010, content.redelivered(before.native), None, 4, False, 0, 0, 0)
    fields = read_struct(DELIVERY_PROPERTIES, content.header_segment(after), 0, len(header))[0]
    assert fields == {"discard_unroutable": False, "immediate": False, "redelivered": True, "exchange": "e",
                      "routing_key": "k"}
    assert content.body_pieces(after) == [b"body"]
