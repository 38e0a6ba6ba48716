"""Bytes that no honest client sends: each costs its sender the connection or channel, and nobody else anything."""

from __future__ import annotations

import os
import random
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pamqp import frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Connection, Queue
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from tests.wire import (
    HEADER,
    Channel,
    Client,
    ConnectionClosed,
    Hangup,
    Peer,
    eventually,
    longstr,
    raw_frame,
    raw_header,
    raw_method,
    shortstr,
)

Name = Callable[..., str]
Connect = Callable[..., Client]
Dial = Callable[[], Client]


@pytest.fixture(autouse=True)
def bystander(connect: Connect) -> Iterator[None]:
    """A connection that was there before, has a message under way, and must not notice anything."""
    ch = connect().channel()
    queue = ch.temporary()
    ch.consume(queue)
    ch.put("", queue, b"before")
    tag = ch.delivery().tag
    yield
    ch.ack(tag)
    ch.put("", queue, b"after")
    assert ch.delivery().body == b"after"


@contextmanager
def broken(code: int, name: str, *methods: type[Frame] | tuple[int, int]) -> Iterator[None]:
    """The connection is closed with this code, and blamed on no method or one of these. The text is free."""
    with pytest.raises(ConnectionClosed) as error:
        yield
    allowed = [(0, 0), *(one if isinstance(one, tuple) else divmod(one.index, 1 << 16) for one in methods)]
    assert error.value.code == code and error.value.method in allowed, error.value
    assert re.fullmatch(f"{name} - .+", error.value.text), error.value


# Frames

@pytest.mark.parametrize("data", [
    raw_frame(1, 1, bytes(8), b"\x00"), raw_frame(3, 1, b"abc", b"\xcd"), raw_frame(8, 0, b"", b"\x00"),  # end octet
    raw_frame(5, 1, b"\x01\x02"), raw_frame(0, 0, b"\x01"), raw_frame(255, 0, b""),  # frame type
    raw_frame(1, 1, b""), raw_frame(1, 1, b"\x00\x3c\x00"), raw_frame(2, 1, b"\x00\x3c\x00\x00"),  # too short
    raw_frame(8, 0, b"abc"),
    b"\x03\x00\x01" + struct.pack(">I", 131073), b"\x01\x00\x01\xff\xff\xff\xff",  # above frame_max, told by its size
    b"\x02\x00\x01\x80\x00\x00\x00", HEADER, b"\xde\xad\xbe\xef" * 5, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
], ids=lambda data: data[:12].hex())
def test_broken_frame(ch: Channel, data: bytes) -> None:
    with broken(501, "FRAME_ERROR"):
        ch.client.write(data)
        ch.next()


@pytest.mark.parametrize("data", [raw_frame(2, 0, bytes(14)), raw_frame(3, 0, b""), raw_frame(3, 0, b"abc"),
                                  raw_frame(8, 1, b"")],
                         ids=["header on channel 0", "empty body on channel 0", "body on channel 0",
                              "heartbeat on a channel"])
def test_frame_on_the_wrong_channel(ch: Channel, data: bytes) -> None:
    with broken(505, "UNEXPECTED_FRAME"):
        ch.client.write(data)
        ch.next()


def test_frame_above_a_small_frame_max(connect: Connect) -> None:
    ch = connect(frame_max=4096).channel()
    with broken(501, "FRAME_ERROR"):
        ch.client.write(b"\x03\x00\x01" + struct.pack(">I", 5000))
        ch.next()


def test_frame_of_just_the_frame_max(connect: Connect, name: Name) -> None:
    ch = connect(frame_max=4096).channel()
    queue = name()
    ch.queue(queue)
    ch.client.write(raw_method(1, 60, 40, b"\0\0\0" + shortstr(queue) + b"\0") + raw_header(1, 4088)
                    + raw_frame(3, 1, bytes(4088)))
    assert len(ch.wait_get(queue).body) == 4088


@pytest.mark.parametrize("cut", [1, 3, 7, 8, 12, 20, -1])
def test_connection_ends_in_the_middle_of_a_frame(connect: Connect, name: Name, cut: int) -> None:
    queue = name()
    watcher = connect().channel()
    watcher.queue(queue)
    ch = connect().channel()
    ch.queue(exclusive=True)
    data = b"".join(frame.marshal(one, ch.number) for one in (
        Basic.Publish(0, "", queue), ContentHeader(0, 3), ContentBody(b"abc")))
    ch.client.write(data[:cut])
    ch.client.closed = True
    ch.client.socket.shutdown(socket.SHUT_WR)
    ch.client.rest()
    assert watcher.count(queue) == 0


# Content out of order

PUBLISH = Basic.Publish(0, "", "wire-no-such-queue")


@pytest.mark.parametrize("frames", [
    [ContentHeader(0, 0)],
    [ContentBody(b"abc")],
    [PUBLISH, Basic.Qos()],
    [PUBLISH, PUBLISH],
    [PUBLISH, ContentBody(b"abc")],
    [PUBLISH, ContentHeader(0, 9), Basic.Qos()],
    [PUBLISH, ContentHeader(0, 9), ContentHeader(0, 9)],
    [PUBLISH, ContentHeader(0, 9), ContentBody(b"abc"), Basic.Qos()],
    [PUBLISH, ContentHeader(0, 2), ContentBody(b"ab"), ContentBody(b"c")],
    [PUBLISH, ContentHeader(0, 0), ContentBody(b"c")],
    [Basic.Qos(), ContentHeader(0, 0)],
], ids=lambda frames: " ".join(one.name for one in frames))
def test_content_out_of_order(ch: Channel, frames: list[frame.FrameTypes]) -> None:
    with broken(505, "UNEXPECTED_FRAME", Basic.Publish):
        ch.send(*frames)
        for _ in range(2):
            ch.next()


@pytest.mark.parametrize("class_id", [0, 10, 50, 90, 65535])
def test_header_of_another_class(ch: Channel, class_id: int) -> None:
    with broken(505, "UNEXPECTED_FRAME", Basic.Publish):
        ch.send(PUBLISH)
        ch.client.write(raw_header(ch.number, 0, class_id=class_id))
        ch.next()


def test_header_with_a_weight(ch: Channel) -> None:
    with broken(505, "UNEXPECTED_FRAME", Basic.Publish):
        ch.send(PUBLISH)
        ch.client.write(raw_header(ch.number, 0, weight=1))
        ch.next()


@pytest.mark.dragoman_only("RabbitMQ 3.10 never answers")
@pytest.mark.parametrize("bodies", [[b"abc"], [b"a", b"bc"]], ids=["first", "second"])
def test_body_longer_than_declared(ch: Channel, bodies: list[bytes]) -> None:
    with broken(505, "UNEXPECTED_FRAME", Basic.Publish):
        ch.send(PUBLISH, ContentHeader(0, 2), *map(ContentBody, bodies))
        ch.next()


# Methods

@pytest.mark.parametrize("channel, class_id, method_id", [(1, 60, 999), (1, 999, 10), (0, 999, 10), (0, 10, 99),
                                                          (1, 0, 0), (1, 65535, 65535), (0, 10, 12), (1, 20, 12)])
def test_unknown_method(ch: Channel, channel: int, class_id: int, method_id: int) -> None:
    """RabbitMQ hangs up without a word."""
    with pytest.raises((ConnectionClosed, Hangup)) as error:
        ch.client.write(raw_method(channel, class_id, method_id, b"\0\0\0"))
        ch.next()
    if isinstance(error.value, ConnectionClosed):
        assert error.value.code in (501, 503, 540) and error.value.method in ((class_id, method_id), (0, 0))


@pytest.mark.parametrize("class_id, method_id, arguments", [
    (50, 10, b"\0\0\x05ab"), (50, 10, b""), (50, 10, b"\0"), (50, 10, b"\0\0\0\0\0\0\0"), (60, 10, bytes(7) + b"junk"),
    (60, 80, bytes(8)), (60, 40, b"\0\0\xff" + bytes(20)), (20, 10, b""), (60, 20, b"\0\0\0\0\0\0\0\0\x05"),
    (50, 10, b"\0\0\x01q\0\0\0\0\x01"), (85, 10, b""), (90, 10, b"x"),
], ids=lambda value: value.hex() or "none" if isinstance(value, bytes) else str(value))
def test_broken_arguments(ch: Channel, class_id: int, method_id: int, arguments: bytes) -> None:
    with broken(501, "FRAME_ERROR", (class_id, method_id)):
        ch.client.write(raw_method(ch.number, class_id, method_id, arguments))
        ch.next()


@pytest.mark.parametrize("class_id, method_id, rest", [(50, 10, bytes(5)), (40, 10, shortstr("direct") + bytes(5))],
                         ids=["queue", "exchange"])
@pytest.mark.parametrize("text", [b"\xff\xfe", b"wire\xc3", b"\xc0\xaf"], ids=bytes.hex)
def test_name_that_is_not_utf8(ch: Channel, class_id: int, method_id: int, rest: bytes, text: bytes) -> None:
    with broken(501, "FRAME_ERROR", (class_id, method_id)):
        ch.client.write(raw_method(ch.number, class_id, method_id, b"\0\0" + shortstr(text) + rest))
        ch.next()


# Field tables

def nested(depth: int) -> bytes:
    """A table in a table, so deep."""
    value = b"V"
    for _ in range(depth):
        value = b"F" + longstr(shortstr("a") + value)
    return shortstr("a") + value


def nested_lists(depth: int) -> bytes:
    value = b"V"
    for _ in range(depth):
        value = b"A" + longstr(value)
    return shortstr("a") + value


TABLES = {
    "unknown type": longstr(shortstr("a") + b"Z\0\0\0\0\0\0\0\0"),
    "another unknown type": longstr(shortstr("a") + b"\xff"),
    "no value": longstr(shortstr("a")),
    "cut number": longstr(shortstr("a") + b"I\0\0"),
    "cut text": longstr(shortstr("a") + b"S\0\0\0\x09abc"),
    "cut name": longstr(b"\x09abc"),
    "cut inner table": longstr(shortstr("a") + b"F\0\0\0\x09\x01bV"),
    "cut list": longstr(shortstr("a") + b"A\0\0\0\x09I"),
    "text of 4 GiB": longstr(shortstr("a") + b"S\xff\xff\xff\xff"),
    "value cut by its table": longstr(shortstr("a") + b"F" + longstr(shortstr("b") + b"I\0\0") + b"\0\0"),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("where", ["arguments", "headers"])
def test_broken_table(ch: Channel, name: Name, table: bytes, where: str) -> None:
    """RabbitMQ hangs up, or tells of an internal error."""
    queue = name()
    with pytest.raises((ConnectionClosed, Hangup)) as error:
        if where == "arguments":
            ch.client.write(raw_method(ch.number, 50, 10, b"\0\0" + shortstr(queue) + b"\0" + table))
        else:
            ch.send(Basic.Publish(0, "", queue))
            ch.client.write(raw_header(ch.number, 0, b"\x20\x00" + table))
        for _ in range(100):  # time for a broker that looks into it later
            ch.call(Queue.Declare(0, exclusive=True))
    if isinstance(error.value, ConnectionClosed):
        assert error.value.code in (501, 502, 541)


@pytest.mark.parametrize("length", [b"\0\0\0\x03", b"\0\0\0\xff", b"\xff\xff\xff\xff"], ids=bytes.hex)
def test_lying_table_length(ch: Channel, name: Name, length: bytes) -> None:
    with broken(501, "FRAME_ERROR", Queue.Declare):
        ch.client.write(raw_method(ch.number, 50, 10, b"\0\0" + shortstr(name()) + b"\0" + length
                                   + shortstr("ab") + b"t\x01"))
        ch.next()


@pytest.mark.parametrize("properties", [b"", b"\x80\x00", b"\x80\x00\xffabc", b"\x00\x40\x00\x00", b"\x00\x01\x00\x00",
                                        b"\x10\x00", b"\x20\x00\x00\x00", b"\x80\x00\x01ajunk"],
                         ids=bytes.hex)
def test_broken_properties(ch: Channel, properties: bytes) -> None:
    with pytest.raises((ConnectionClosed, Hangup)) as error:
        ch.send(PUBLISH)
        ch.client.write(raw_header(ch.number, 0, properties))
        for _ in range(100):  # time for a broker that looks into it later
            ch.call(Queue.Declare(0, exclusive=True))
    if isinstance(error.value, ConnectionClosed):
        assert error.value.code in (501, 502, 505, 541)


@pytest.mark.parametrize("make", [nested, nested_lists])
@pytest.mark.parametrize("depth", [20, 1000, 10000])
def test_deep_tables_in_headers(ch: Channel, name: Name, make: Callable[[int], bytes], depth: int) -> None:
    """They are passed on as they are, or refused."""
    queue = name()
    ch.queue(queue)
    properties = b"\x20\x00" + longstr(make(depth))
    try:
        ch.send(Basic.Publish(0, "", queue))
        ch.client.write(raw_header(ch.number, 0, properties))
        eventually(lambda: ch.count(queue))
        ch.send(Basic.Get(0, queue, True))
        ch.client.read_raw()
        assert ch.client.read_raw() == raw_header(ch.number, 0, properties)
    except ConnectionClosed as error:
        assert depth > 100 and error.code in (501, 502)


@pytest.mark.parametrize("make", [nested, nested_lists])
@pytest.mark.parametrize("depth", [20, 1000, 10000])
def test_deep_tables_in_arguments(ch: Channel, name: Name, make: Callable[[int], bytes], depth: int) -> None:
    """They are accepted, or refused."""
    try:
        ch.client.write(raw_method(ch.number, 50, 10, b"\0\0" + shortstr(name()) + b"\0" + longstr(make(depth))))
        ch.expect(Queue.DeclareOk)
    except ConnectionClosed as error:
        assert depth > 100 and error.code in (501, 502)


def test_deep_tables_met_by_a_headers_exchange(ch: Channel, name: Name) -> None:
    """Where the broker must look into the table after all."""
    exchange = name("x")
    ch.exchange(exchange, "headers")
    queue = ch.temporary()
    ch.bind(queue, exchange, "", {"x-match": "any", "b": 1})
    try:
        ch.send(Basic.Publish(0, exchange, ""))
        ch.client.write(raw_header(ch.number, 0, b"\x20\x00" + longstr(nested(1000) + shortstr("b") + b"b\x01")))
        eventually(lambda: ch.count(queue))
    except ConnectionClosed as error:
        assert error.code in (501, 502)


@pytest.mark.parametrize("headers", [
    shortstr("CC") + b"A" + longstr(b"S" + longstr(b"\xff\xfe")),
    shortstr("CC") + b"A" + longstr(nested_lists(500)[2:]),
    shortstr("x-death") + b"A" + longstr(b"F" + longstr(shortstr("count") + b"S" + longstr(b"many"))),
    shortstr("CC") + b"A" + longstr(b"") + shortstr("CC") + b"A" + longstr(b""),
], ids=["CC of no text", "CC of lists", "x-death count", "CC twice"])
def test_odd_headers_that_the_broker_looks_into(ch: Channel, name: Name, headers: bytes) -> None:
    """Whatever is made of them, the broker and the queue live on."""
    dead, queue = name("dead"), name()
    ch.queue(dead)
    ch.queue(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, "x-message-ttl": 0})
    try:
        ch.send(Basic.Publish(0, "", queue))
        ch.client.write(raw_header(ch.number, 0, b"\x20\x00" + longstr(headers)))
        ch.settle(queue)
    except ConnectionClosed as error:
        assert error.code in (501, 502)


# Bytes at random

@pytest.mark.parametrize("seed", range(20))
def test_garbage(dial: Dial, connect: Connect, seed: int) -> None:
    """After the handshake: bytes at random, in frames and not."""
    chance = random.Random(seed)
    client = connect()
    client.channel(1)
    client.closed = True
    client.socket.settimeout(0.3)  # it may well wait for the rest of a frame
    try:
        for _ in range(30):
            data = chance.randbytes(chance.randrange(1, 200))
            client.write(chance.choice((data, raw_frame(chance.choice((1, 2, 3, 8)), chance.randrange(3), data),
                                        raw_method(1, chance.choice((10, 20, 40, 50, 60, 85, 90)),
                                                   chance.choice((10, 20, 30, 40, 50, 70, 80)), data))))
        client.rest()
    except OSError:
        pass


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bits(connect: Connect, name: Name, seed: int) -> None:
    """Honest frames, with some bits wrong."""
    chance = random.Random(seed)
    client = connect()
    client.channel(1)
    client.closed = True
    queue = name()
    data = bytearray(b"".join(frame.marshal(one, 1) for one in (
        Queue.Declare(0, queue, arguments={"x-max-length": 5}), Basic.Consume(0, queue, "tag", no_ack=True),
        Basic.Publish(0, "", queue), ContentHeader(0, 3, Basic.Properties(headers={"a": [1, "x"]}, message_id="m")),
        ContentBody(b"abc"), Basic.Get(0, queue), Basic.Ack(1), Queue.Delete(0, queue))))
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    client.socket.settimeout(0.3)
    try:
        client.write(bytes(data))
        client.rest()
    except OSError:
        pass


# Time and memory

def test_slow_loris(peer: Peer, connect: Connect) -> None:
    """Who never finishes the handshake is dropped, however busy he looks; meanwhile others are served."""
    def slowly(sent: bytes, more: bytes) -> Client:
        client = Client(peer)
        client.write(sent)
        client.socket.settimeout(0.5)
        crawlers.append((client, more))
        return client

    crawlers: list[tuple[Client, bytes]] = []
    slowly(b"", b"")
    slowly(b"AMQP", b"")
    slowly(HEADER, b"")
    slowly(HEADER, frame.marshal(Heartbeat(), 0))
    slowly(HEADER + frame.marshal(Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"), 0), b"")
    slowly(HEADER + b"\x01\x00\x00\x00\x00\x0f\xff\x00\x0a\x00\x0b", b"\x00")  # a long start-ok, byte by byte

    def still_there() -> list[tuple[Client, bytes]]:
        for client, more in list(crawlers):
            try:
                client.write(more)
                while True:
                    client._fill()
            except TimeoutError:
                pass
            except (Hangup, OSError):
                client.drop()
                crawlers.remove((client, more))
        return crawlers

    try:
        eventually(lambda: not still_there())
    finally:
        for client, _ in crawlers:
            client.drop()


def test_client_that_never_reads(connect: Connect, name: Name) -> None:
    """What it does not read piles up at its door only."""
    queue = name()
    deaf = Client(connect().peer)
    try:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ch = deaf.open().channel()
        ch.queue(queue)
        ch.consume(queue, no_ack=True)
        publisher = connect().channel()
        publisher.confirm()
        for _ in range(40):
            assert publisher.confirmed("", queue, bytes(1 << 20))
        publisher.consume(publisher.temporary(), no_ack=True)
        publisher.confirm()
        assert publisher.exists(queue)
    finally:
        deaf.drop()


def test_client_that_asks_and_never_reads(connect: Connect, name: Name) -> None:
    """A flood of requests whose answers nobody takes: the socket fills up, or the broker hangs up."""
    deaf = connect()
    ch = deaf.channel()
    deaf.closed = True
    queue = ch.temporary()
    deaf.socket.settimeout(0.5)
    request = frame.marshal(Queue.Declare(0, queue, passive=True), ch.number) * 1000
    try:
        for _ in range(300):
            deaf.write(request)
    except OSError:
        pass
    assert connect().channel().queue(exclusive=True).message_count == 0


def test_many_unfinished_messages(connect: Connect) -> None:
    """Declared sizes cost nothing before the bytes are there."""
    client = connect()
    for number in range(1, 201):
        client.channel(number)
        client.send(number, PUBLISH)
        client.write(raw_header(number, 100 << 20))
    client.send(0, Heartbeat())
    assert client.channel().queue(exclusive=True).message_count == 0


def test_many_connections_that_drop(peer: Peer, connect: Connect) -> None:
    for number in range(100):
        client = Client(peer)
        client.write((HEADER + os.urandom(20))[:number % 29])
        client.drop()
    connect().channel().queue(exclusive=True)
