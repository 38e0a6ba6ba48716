"""What a message says does not change on its way through the gateway's remote ends: raw clients at the other side send
and receive it, and compare bytes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from struct import pack
from typing import Any

import pytest
from proton import Described, symbol, timestamp, ubyte, uint, ulong

from broker.message import AMQP010, AMQP091, AMQP10, MQTT, Message
from interop.ends import From, To
from interop.remote_mqtt import filter_of
from tests.remote_kit import SAFE, Sent, Taken, opened, run
from tests.wire import Channel, Peer, longstr, raw_frame, raw_header, raw_method, shortstr
from tests.wire010 import Client010
from tests.wire10 import RECEIVER, SENDER, Client10, encode, state
from tests.wire_mqtt import MqttClient

pytestmark = pytest.mark.dragoman_only("it is our side that is tested here")

FIELDS = [b"t\x01", b"b\xff", b"B\xff", b"s\xff\xfe", b"u\xff\xfe", b"I\xff\xff\xff\xfe", b"i\xff\xff\xff\xfe",
          b"l" + pack(">q", -2), b"f" + pack(">f", 1.5), b"d" + pack(">d", 1.1), b"D\x02\x00\x00\x00\x7b",
          b"S" + longstr(b"text"), b"S" + longstr(b"\xff\xfe no text"), b"T" + pack(">Q", 1 << 40), b"V",
          b"x" + longstr(b"\x00\xff"), b"A" + longstr(b"I\x00\x00\x00\x01S" + longstr(b"x")),
          b"F" + longstr(shortstr("inner") + b"s\x00\x01")]
"""A value of each type of a field table."""


def through(url: str, dialect: int, source: From, target: To) -> Message:
    """Take a message and send it as it is; gives what it was."""
    async def main() -> Message:
        made = await opened(url, dialect)
        taken = Taken(await made.source(source))
        delivery, = await taken.wait(1)
        sent = Sent(await made.target(target))
        sent.send(delivery.message)
        assert await sent.wait() == [SAFE]
        await made.close()
        return delivery.message
    return run(main())


def amqp(peer: Peer) -> str:
    return f"amqp://guest:guest@{peer.host}:{peer.port}/"


@pytest.mark.parametrize("body", [b"", b"body", bytes(200_000)], ids=len)
def test_0_9_1(body: bytes, peer: Peer, ch: Channel, queue: str, name: Callable[..., str]) -> None:
    other = ch.queue(name()).queue
    table = b"".join(shortstr(f"field-{number}") + value for number, value in enumerate(FIELDS))
    properties = (pack(">H", 0xFFFC & ~0x0010) + shortstr("a/b") + shortstr("gzip") + longstr(table) + b"\x02\x07"
                  + shortstr("correlated") + shortstr("answers") + shortstr("60000") + shortstr("id")
                  + pack(">Q", 1 << 33) + shortstr("kind") + shortstr("app") + shortstr("cluster"))
    publish = raw_method(ch.number, 60, 40, b"\x00\x00" + shortstr("") + shortstr(queue) + b"\x00")
    frames = [raw_frame(3, ch.number, body[at:at + 100_000]) for at in range(0, len(body), 100_000)]
    header = raw_header(ch.number, len(body), properties)
    ch.client.write(b"".join([publish, header, *frames]))
    message = through(amqp(peer), AMQP091, From(queue=queue), To(queue=other))
    assert message.native[7:len(header)] == header[7:]
    assert (message.durable, message.priority, message.size) == (True, 7, len(body)) and message.expiry
    content = ch.wait_get(other)
    assert content.raw_header[7:] == header[7:] and content.body == body


@pytest.mark.parametrize("size", [5, 200_000])
def test_1_0(size: int, peer: Peer, ch: Channel, queue: str, name: Callable[..., str], wire: Client10) -> None:
    other = ch.queue(name()).queue
    values = {"null": None, "true": True, "ubyte": ubyte(1), "uint": uint(1), "ulong": ulong(1), "double": 1.5,
              "time": timestamp(1), "symbol": symbol("s"), "binary": b"\x00", "text": "text"}
    message = b"".join([
        encode(state(0x70, True, ubyte(7), uint(60000))),
        encode(Described(ulong(0x72), {symbol("x-opt-note"): [1, symbol("a")]})),
        encode(state(0x73, ulong(7), None, "to", "subject", "reply", b"correlated", symbol("a/b"), symbol("gzip"),
                     timestamp(1 << 42), timestamp(1 << 41), "group", uint(3), "reply-group")),
        encode(Described(ulong(0x74), values)),
        encode(Described(ulong(0x77), ["x" * size, Described(symbol("own"), {1: 2})]))])
    wire.attach("in", SENDER, queue)
    wire.flow()
    pieces = [message[at:at + 60_000] for at in range(0, len(message), 60_000)]
    for piece in pieces[:-1]:
        wire.transfer(piece, b"1", more=True, number=0)
    wire.transfer(pieces[-1], b"1", number=0)
    taken = through(amqp(peer), AMQP10, From(queue=queue), To(queue=other))
    assert (taken.durable, taken.priority) == (True, 7)
    wire.attach("out", RECEIVER, other, handle=1)
    wire.credit(1, handle=1)
    _, received = wire.delivery()
    head = len(encode(state(0x70, True, ubyte(7), uint(60000))))
    assert received.endswith(message[head:])
    assert len(received) < len(message) + 20


@pytest.mark.parametrize("body", [None, b"", b"body", bytes(200_000)], ids=["none", "0", "4", "200000"])
def test_0_10(body: bytes | None, peer: Peer, queue: str, name: Callable[..., str], ch: Channel,
              c010: Client010) -> None:
    other = ch.queue(name()).queue
    properties: dict[str, Any] = {
        "message_id": uuid.uuid4(), "correlation_id": b"\xff", "reply_to": {"exchange": "amq.topic"},
        "content_type": "a/b", "content_encoding": "gzip", "app_id": b"\x00app",
        "application_headers": {"text": "x", "bytes": b"\xff", "number": 1 << 40, "list": [1, {"a": None}]}}
    c010.wait(c010.transfer("", queue, body, properties=properties, sync=True, delivery_mode=2, priority=7, ttl=60000,
                            timestamp=1 << 31))
    message = through(amqp(peer), AMQP010, From(queue=queue), To(queue=other))
    assert (message.durable, message.priority, message.size) == (True, 7, len(body or b"")) and message.expiry
    c010.subscribe(other)
    arrived = c010.message()
    assert arrived.body == (body or None) or arrived.body == body
    assert {key: arrived.header[key] for key in properties} == properties
    assert arrived.header["priority"] == 7 and arrived.header["timestamp"] == 1 << 31 and arrived.header["ttl"]


@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_mqtt(size: int, peer: Peer, connect_mqtt: Callable[..., MqttClient]) -> None:
    given = {"PayloadFormatIndicator": 1, "MessageExpiryInterval": 60, "ContentType": "a/b", "ResponseTopic": "answers",
             "CorrelationData": b"\xff", "UserProperty": [("a", "1"), ("b", "2"), ("a", "3")]}
    reader = connect_mqtt("lossless-reader", 5)
    reader.subscribe(("copied/#", 1))

    async def main() -> None:
        made = await opened(f"mqtt://guest:guest@{peer.host}:{peer.port}/", MQTT)
        taken = Taken(await made.source(From(exchange="amq.topic", keys=("given.#",))))
        connect_mqtt("lossless-writer", 5).send_whole("given/a.b", b"x" * size, 1, **given)
        delivery, = await taken.wait(1)
        assert delivery.message.address.routing_key == "given.a%2Eb"
        sent = Sent(await made.target(To(exchange="amq.topic", key="copied.x%2Ey")))
        sent.send(delivery.message)
        assert await sent.wait() == [SAFE]
        await made.close()
    run(main())
    received = reader.message()
    assert received.topic == "copied/x.y" and received.payload == b"x" * size
    found = {key: value for key, value in received.properties.items() if key != "MessageExpiryInterval"}
    assert found == {key: value for key, value in given.items() if key != "MessageExpiryInterval"}
    assert 0 < received.properties["MessageExpiryInterval"] <= 60


@pytest.mark.parametrize("key, wanted", [("a.b", "a/b"), ("*.b.#", "+/b/#"), ("#", "#"), ("a%2Eb.*", "a.b/+"),
                                         ("$share/g/a/#", "$share/g/a/#")])
def test_patterns_are_filters(key: str, wanted: str) -> None:
    assert filter_of(key) == wanted
