"""AMQP 1.0 that no honest client sends: it costs its sender the link, session or connection, and nobody else anything.

What it costs and which condition it gets is in part 2, sections 2.8.15 to 2.8.18, of the specification.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from proton import Described, symbol, ubyte, uint, ulong, ushort

from protocols.amqp10.containers import Containers
from tests.fuzz.session10 import Client10 as FrontEnd10
from tests.fuzz.session10 import Session10
from tests.wire import Channel
from tests.wire10 import (
    ATTACH,
    BEGIN,
    CLOSE,
    DETACH,
    DISPOSITION,
    END,
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

Connect10 = Callable[..., Client10]

pytestmark = pytest.mark.dragoman_only("RabbitMQ has its own ideas of AMQP 1.0's error conditions")


@pytest.fixture(autouse=True)
def bystander(connect10: Connect10, ch: Channel, name: Callable[..., str]) -> Iterator[None]:
    """A connection that was there before, has a delivery under way, and must not notice anything."""
    queue = name()
    ch.queue(queue)
    wire = connect10("bystander")
    wire.attach("in", SENDER, queue, handle=0)
    wire.attach("out", RECEIVER, queue, handle=1)
    wire.credit(10, handle=1)
    wire.transfer(message(b"before"), b"1", handle=0)
    fields, _ = wire.delivery()
    yield
    wire.settle(RECEIVER, fields[1], state(0x24))
    wire.transfer(message(b"after"), b"2", handle=0)
    assert wire.delivery()[1].endswith(b"after")


def error_of(fields: list[Any], at: int) -> str:
    """The condition of an error that a close, end or detach has."""
    error = fields[at]
    assert error is not None and error.value[1], "an error has a description"
    return str(error.value[0])


def closed(wire: Client10) -> str:
    """The condition that the broker closes the connection with; after its close nothing comes, once it is answered."""
    fields, _ = wire.expect(CLOSE)
    wire.send(CLOSE)
    with pytest.raises(EOFError):
        wire.frame()
    return error_of(fields, 0)


def ended(wire: Client10) -> str:
    """The condition that the broker ends the session with; the connection is well."""
    condition = error_of(wire.expect(END)[0], 0)
    wire.send(END)
    wire.begin(channel=1)
    return condition


def detached(wire: Client10) -> str:
    """The condition that the broker closes the link with; the session is well."""
    fields, _ = wire.expect(DETACH)
    assert fields[1] is True
    wire.send(DETACH, uint(fields[0]), True)
    wire.send(FLOW, uint(0), uint(100), uint(wire.next_id), uint(100), None, None, None, None, None, True)
    wire.expect(FLOW)
    return error_of(fields, 2)


def raw(size: int, doff: int = 2, kind: int = 0, channel: int = 0, body: bytes = b"") -> bytes:
    return size.to_bytes(4, "big") + bytes([doff, kind]) + channel.to_bytes(2, "big") + body


def performative(body: bytes) -> bytes:
    return raw(len(body) + 8, body=body)


def deep(levels: int) -> bytes:
    """A list in a list in a list."""
    value = b"\x45"
    for _ in range(levels):
        value = b"\xd0" + (len(value) + 4).to_bytes(4, "big") + b"\0\0\0\x01" + value
    return value


def attach_with_properties(value: bytes) -> bytes:
    """An attach whose properties are that value."""
    fields = [encode("bomb"), b"\x43", b"\x41"] + [b"\x40"] * 10 + [value]
    body = b"".join(fields)
    return performative(b"\x00\x53\x12\xd0" + (len(body) + 4).to_bytes(4, "big") + b"\0\0\0\x0e" + body)


@pytest.mark.parametrize("data", [
    raw(7), raw(0), raw(0x7FFFFFFF), raw(0xFFFFFFFF), raw(131073),  # sizes
    raw(8, doff=1), raw(8, doff=0), raw(8, doff=3), raw(12, doff=255, body=bytes(4)),  # where the body begins
    raw(8, kind=1), raw(8, kind=2), raw(9, kind=255, body=b"\x45"),  # types of frames
    HEADER, SASL_HEADER, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xde\xad\xbe\xef" * 5,
], ids=lambda data: data[:12].hex())
def test_broken_frame(wire: Client10, data: bytes) -> None:
    wire.socket.sendall(data)
    assert closed(wire) == "amqp:connection:framing-error"


@pytest.mark.parametrize("body", [
    b"\x45", b"\xff", b"\x00", b"\x00\x53", b"\x00\x53\x10", b"\x00\x40\x45",  # no performative
    b"\x00\x53\x99\x45", b"\x00\xa3\x09amqp:nada\x45", b"\x00\x80\0\0\0\x01\0\0\0\x10\x45",  # an unknown one
    b"\x00\x53\x13\x45",  # flow, and what it must have is not there
    b"\x00\x53\x13\xc0\x05\x04\x43\x43\x43", b"\x00\x53\x13\xc0\xff\x04\x43\x43\x43\x43",  # cut off
    b"\x00\x53\x13\xd0\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x53\x13\xc1\x01\x00", b"\x00\x53\x13\xa1\x01a",  # no list
    b"\x00\x53\x16\xc0\x05\x04\x43\x41\x40\x40",  # a detach of four fields
    encode(state(BEGIN, None, "one", uint(1), uint(1))), encode(state(BEGIN, uint(1), uint(0), uint(1), uint(1))),
    encode(state(FLOW, uint(0), ulong(1), uint(1), uint(1))), encode(state(DETACH, ubyte(0))),
    encode(state(DISPOSITION, ubyte(1), uint(0))), encode(state(ATTACH, symbol("name"), uint(0), True)),
    encode(state(ATTACH, "name", uint(0), True, ushort(1))), encode(state(TRANSFER, uint(0), uint(0), "tag")),
    encode(state(OPEN, None)), encode(state(DETACH, uint(0))) + b"more",
    b"\x00\x53\x12\xc0\x07\x03\xa1\x01a\x43\x57\x41",  # a boolean of no kind
    b"\x00\x53\x12\xc0\x06\x03\xa1\x01\xff\x43\x41",  # a name that is no UTF-8
], ids=lambda body: body[:16].hex())
def test_broken_performative(wire: Client10, body: bytes) -> None:
    wire.socket.sendall(performative(body))
    assert closed(wire) == "amqp:decode-error"


@pytest.mark.parametrize("value", [
    deep(100), deep(5000), b"\xd1\0\0\0\x08\xff\xff\xff\xfe\0\0\0\0",  # nested, and a map of four milliards
    b"\xf0\0\0\0\x05\xff\xff\xff\xff\x40", b"\xf0\0\0\0\x05\x7f\xff\xff\xff\x45",  # arrays of nothing
    b"\xc1\x04\x03\x40\x40\x40", b"\xc1\x03\x02\x40\x41", b"\x45",  # no map, or not of symbols
], ids=lambda value: f"{value[:9].hex()} {len(value)}")
def test_bombs(wire: Client10, value: bytes) -> None:
    wire.socket.sendall(attach_with_properties(value))
    assert closed(wire) == "amqp:decode-error"


def test_a_large_map_of_little_cost(wire: Client10) -> None:
    """120 KB of properties are no bomb."""
    items = b"".join(encode(symbol(f"k{number:06}")) + b"\x43" for number in range(10000))
    wire.socket.sendall(attach_with_properties(
        b"\xd1" + (len(items) + 4).to_bytes(4, "big") + (20000).to_bytes(4, "big") + items))
    wire.expect(ATTACH)
    assert detached(wire) == "amqp:not-found"  # a receiver without a source asks for a subscription to be ended


@pytest.mark.parametrize("seed", range(20))
def test_noise(wire: Client10, seed: int) -> None:
    noise = bytes(seed for _ in range(8)) + os.urandom(500)
    wire.socket.sendall(noise)
    wire.socket.shutdown(socket.SHUT_WR)
    with pytest.raises((EOFError, ConnectionError)):
        while True:
            wire.frame()


# Connections

def test_no_open(connect10: Connect10) -> None:
    wire = connect10(opens=False)
    wire.send(BEGIN, None, uint(0), uint(1), uint(1))
    wire.expect(OPEN)
    assert closed(wire) == "amqp:illegal-state"


def test_open_twice(wire: Client10) -> None:
    wire.send(OPEN, "again")
    assert closed(wire) == "amqp:illegal-state"


def test_a_frame_size_that_is_too_small(connect10: Connect10) -> None:
    wire = connect10(opens=False)
    wire.open("small", frame_max=511)
    assert closed(wire) == "amqp:not-allowed"


def test_a_virtual_host_that_is_not_there(connect10: Connect10) -> None:
    wire = connect10(opens=False)
    opened = wire.open("lost", hostname="vhost:nowhere")
    assert opened[9] is not None and opened[9]["amqp:connection-establishment-failed"] is True
    assert closed(wire) == "amqp:not-found"


@pytest.mark.parametrize("data", [raw(8, kind=0), raw(8, kind=1), raw(600, kind=1), raw(20000, kind=1), b"AMQP",
                                  performative(encode(state(OPEN, "x"))), HEADER], ids=lambda data: data[:8].hex())
def test_nonsense_instead_of_a_login(peer: Any, data: bytes) -> None:
    with socket.create_connection((peer.host, peer.port), timeout=10) as dialled:
        dialled.sendall(SASL_HEADER + data)
        dialled.shutdown(socket.SHUT_WR)
        received = b""
        while more := dialled.recv(4096):
            received += more
    assert received.startswith(SASL_HEADER) and b"\x00\x53\x44" not in received  # mechanisms, and no outcome


def test_a_wrong_password(peer: Any) -> None:
    with socket.create_connection((peer.host, peer.port), timeout=10) as dialled:
        init = encode(state(0x41, symbol("PLAIN"), b"\0guest\0wrong"))
        dialled.sendall(SASL_HEADER + raw(len(init) + 8, kind=1, body=init))
        received = b""
        while more := dialled.recv(4096):
            received += more
    assert received.endswith(b"\x00\x53\x44" + b"\xc0\x03\x01\x50\x01")  # sasl-outcome, auth


# Sessions

def test_channels(wire: Client10) -> None:
    wire.send(BEGIN, None, uint(0), uint(1), uint(1))
    assert closed(wire) == "amqp:illegal-state"


def test_a_channel_above_channel_max(connect10: Connect10) -> None:
    wire = connect10("few", channel_max=3)
    wire.send(BEGIN, None, uint(0), uint(1), uint(1), channel=4)
    assert closed(wire) == "amqp:connection:framing-error"


@pytest.mark.parametrize("fields", [
    (TRANSFER, uint(0), uint(0), b"t"), (FLOW, uint(0), uint(1), uint(0), uint(1)), (DETACH, uint(0)), (END,),
    (DISPOSITION, True, uint(0))], ids=lambda fields: hex(fields[0]))
def test_a_channel_without_a_session(wire: Client10, fields: tuple[Any, ...]) -> None:
    wire.send(*fields, channel=9)
    assert closed(wire) == "amqp:illegal-state"


def test_a_begin_that_answers_nothing(wire: Client10) -> None:
    wire.send(BEGIN, ushort(0), uint(0), uint(1), uint(1), channel=1)
    assert closed(wire) == "amqp:not-allowed"


@pytest.mark.parametrize("fields", [
    (TRANSFER, uint(7), uint(0), b"t"), (FLOW, uint(0), uint(1), uint(0), uint(1), uint(7)), (DETACH, uint(7))],
    ids=lambda fields: hex(fields[0]))
def test_a_handle_without_a_link(wire: Client10, fields: tuple[Any, ...]) -> None:
    wire.send(*fields)
    assert ended(wire) == "amqp:session:unattached-handle"


def test_a_handle_with_a_link(wire: Client10, queue: str) -> None:
    wire.attach("one", SENDER, queue)
    wire.send(ATTACH, "two", uint(0), RECEIVER)
    assert ended(wire) == "amqp:session:handle-in-use"


def test_a_handle_above_handle_max(wire: Client10) -> None:
    wire.send(ATTACH, "high", uint(8192), RECEIVER)
    assert closed(wire) == "amqp:connection:framing-error"


def in_one_go(frames: bytes) -> bytes:
    """What a connection answers to frames behind the attach of a sender that come all at once. A server would cut them
    in pieces, and say meanwhile that it takes more."""
    client = FrontEnd10(Session10(0).broker, Containers(), "c")
    client.connection.receive(client.login())
    attach = encode(state(ATTACH, "in", uint(0), SENDER, None, None, state(0x28), state(0x29, "amq.fanout"), None, None,
                          uint(0)))
    client.connection.receive(performative(attach) + frames)
    client.flush()
    return client.output


def test_a_window_that_is_exceeded() -> None:
    """More transfers than the broker has said it takes."""
    one = encode(state(TRANSFER, uint(0), uint(0), b"t", uint(0), None, True))
    assert b"amqp:session:window-violation" in in_one_go(performative(one) * 6000)


def test_an_incoming_id_from_the_future(wire: Client10) -> None:
    wire.send(FLOW, uint(5), uint(10), uint(0), uint(10))
    assert ended(wire) == "amqp:session:errant-link"


# Links

def test_more_than_its_credit() -> None:
    assert b"amqp:link:transfer-limit-exceeded" in in_one_go(b"".join(
        performative(encode(state(TRANSFER, uint(0), uint(number), b"t", uint(0), True)) + message(b"x"))
        for number in range(1500)))


@pytest.mark.parametrize("payload", [
    b"\xff", b"\x00", b"\x00\x53\x75", b"\x00\x53\x75\xa0\x05abc", b"\x00\x53\x99\x45", b"\x00\x53\x20\x45",
    b"\x00\x53\x70\x40" + message(b"x"), b"\x00\x53\x70\xc0\x02\x01\x54" + message(b"x"),
    b"\x00\x53\x73\xc0\x05\x03\x40\x40\x52\x01" + message(b"x"), b"\x00\x53\x73\xc0\xf0\x01\x40" + message(b"x"),
    encode(state(0x73, *[None] * 14)) + message(b"x"),
    encode(Described(ulong(0x74), {})) + encode(state(0x73, "late")) + message(b"x"),
    encode(Described(ulong(0x74), "no map")) + message(b"x"),
], ids=lambda payload: payload[:12].hex())
def test_a_message_that_is_none(wire: Client10, queue: str, payload: bytes, ch: Channel) -> None:
    wire.attach("in", SENDER, queue)
    wire.transfer(payload, b"t")
    assert detached(wire) == "amqp:decode-error"
    assert ch.count(queue) == 0


@pytest.mark.parametrize("address", [5, [], b"queue", True, ulong(1)])
def test_an_address_that_is_none(wire: Client10, address: Any) -> None:
    wire.attach("odd", SENDER, address)
    assert detached(wire) == "amqp:invalid-field"


def test_a_delivery_without_a_tag(wire: Client10, queue: str) -> None:
    wire.attach("in", SENDER, queue)
    wire.send(TRANSFER, uint(0), uint(0), payload=message(b"x"))
    assert detached(wire) == "amqp:invalid-field"


def test_a_tag_that_is_too_long(wire: Client10, queue: str) -> None:
    wire.attach("in", SENDER, queue)
    wire.transfer(message(b"x"), b"t" * 32)
    assert wire.outcome()[4].descriptor == 0x24
    wire.transfer(message(b"x"), b"t" * 33)
    assert detached(wire) == "amqp:invalid-field"


def test_a_delivery_within_a_delivery(wire: Client10, queue: str) -> None:
    wire.attach("in", SENDER, queue)
    wire.transfer(message(b"x")[:3], b"1", more=True)
    wire.transfer(message(b"y"), b"2")
    assert detached(wire) == "amqp:illegal-state"


def test_a_transfer_the_wrong_way(wire: Client10, queue: str) -> None:
    wire.attach("out", RECEIVER, queue)
    wire.transfer(message(b"x"), b"t")
    assert detached(wire) == "amqp:not-allowed"


def test_a_user_id_of_somebody_else(wire: Client10, queue: str, ch: Channel) -> None:
    wire.attach("in", SENDER, queue)
    wire.transfer(encode(state(0x73, None, b"root")) + message(b"x"), b"t")
    rejected = wire.outcome()[4]
    assert rejected.descriptor == 0x25 and rejected.value[0].value[0] == "amqp:unauthorized-access"
    assert ch.count(queue) == 0


def test_dispositions_of_nothing(wire: Client10, queue: str) -> None:
    """What is settled is settled: there is nothing to say about it any more, and no harm in saying it."""
    wire.attach("out", RECEIVER, queue)
    for role in (SENDER, RECEIVER):
        wire.settle(role, 0, state(0x24))
        wire.settle(role, 0, state(0x24), last=0xFFFFFFFF)
        wire.settle(role, 5, state(0x34, b"no such transaction", state(0x24)), last=4)
    wire.send(FLOW, uint(0), uint(100), uint(0), uint(100), None, None, None, None, None, True)
    wire.flow()


def test_many_links_by_one_name(wire: Client10, queue: str) -> None:
    """Each takes over from the one before."""
    for handle in range(300):
        wire.send(ATTACH, "same", uint(handle), RECEIVER, ubyte(0), ubyte(0), state(0x28, queue), state(0x29))
    seen = 0
    while seen < 299:
        code, fields, _ = wire.frame()
        if code == DETACH:
            seen += 1
            assert error_of(fields, 2) == "amqp:link:stolen"


def test_the_other_dialect_after_all(wire: Client10) -> None:
    wire.socket.sendall(b"AMQP\0\0\x09\x01")
    assert closed(wire) == "amqp:connection:framing-error"
