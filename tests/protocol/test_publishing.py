"""Publishing: content in many shapes, unroutable messages, alternate exchanges, CC and BCC, checked properties."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Exchange, Queue
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from tests.wire import (
    Channel,
    Client,
    channel_error,
    eventually,
    longstr,
    raw_header,
    raw_method,
    shortstr,
)

Name = Callable[..., str]
Connect = Callable[..., Client]


# Content

@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 131064, 131065, 1_000_000])
@pytest.mark.parametrize("frame_max", [4096, None], ids=["4096", "proposed"])
def test_body_sizes(connect: Connect, name: Name, size: int, frame_max: int | None) -> None:
    ch = connect(frame_max=frame_max).channel()
    queue = name()
    ch.queue(queue)
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    ch.put("", queue, body)
    got = ch.get(queue)
    assert got and got.body == body
    ch.close()


def test_large_body(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    body = hashlib.sha256(b"wire").digest() * (100 * 1024 * 1024 // 32)
    assert ch.put("", queue, body)
    ch.send(Basic.Get(0, queue, True))
    assert isinstance(ch.client.read()[1], Basic.GetOk)
    assert ch.client.read()[1].body_size == len(body)
    digest, left = hashlib.sha256(), len(body)
    while left:
        payload = ch.client.read_raw()[7:-1]
        assert 0 < len(payload) <= ch.client.frame_max - 8
        digest.update(payload)
        left -= len(payload)
    assert digest.digest() == hashlib.sha256(body).digest()


def test_body_in_odd_frames(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.send(Basic.Publish(0, "", queue), ContentHeader(0, 6),
            *(ContentBody(part) for part in (b"a", b"", b"bcd", b"", b"", b"ef")))
    assert ch.wait_get(queue).body == b"abcdef"


def test_content_of_different_channels_interleaved(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    channels = [ch.client.channel() for _ in range(5)]
    for one in channels:
        one.send(Basic.Publish(0, "", queue))
    for one in reversed(channels):
        one.send(ContentHeader(0, 4))
    for part in (b"ab", b"cd"):
        for one in channels:
            one.send(ContentBody(part))
        ch.client.send(0, Heartbeat())
    assert [ch.wait_get(queue).body for _ in channels] == [b"abcd"] * 5


def test_bytes_one_by_one(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    data = b"".join(frame.marshal(one, ch.number) for one in (
        Basic.Publish(0, "", queue), ContentHeader(0, 3, Basic.Properties(message_id="m")), ContentBody(b"abc"),
        Basic.Get(0, queue)))
    for at in range(len(data)):
        ch.client.write(data[at:at + 1])
    got = ch.next()
    if isinstance(got, Basic.GetEmpty):  # the publish was not through yet
        got = ch.wait_get(queue)
    assert (got.body, got.properties.message_id) == (b"abc", "m")


def test_all_properties(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    properties: dict[str, Any] = {
        "content_type": "text/plain", "content_encoding": "gzip", "delivery_mode": 1, "priority": 9,
        "correlation_id": "corrélation", "reply_to": "reply", "expiration": "60000", "message_id": "id",
        "timestamp": datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=datetime.UTC), "message_type": "type",
        "user_id": "guest", "app_id": "app",
        "headers": {"text": "ü", "empty": "", "number": -7, "big": 1 << 60, "yes": True, "no": False, "void": None,
                    "float": 1.5, "decimal": Decimal("1.23"), "table": {"a": {"b": [1, "x", {"c": None}]}},
                    "bytes": bytearray(b"\x00\xff"), "list": [], "nothing": {},
                    "time": datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)},
    }
    ch.put("", queue, b"x", **properties)
    got = ch.get(queue)
    assert got
    for key, value in properties.items():
        assert getattr(got.properties, key) == value, key


def test_properties_come_back_byte_for_byte(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    values = b"".join(shortstr(key) + value for key, value in [
        (b"t", b"t\x01"), (b"b", b"b\xff"), (b"B", b"B\xff"), (b"s", b"s\xff\xfe"), (b"u", b"u\xff\xfe"),
        (b"I", b"I\xff\xff\xff\xfe"), (b"i", b"i\xff\xff\xff\xfe"), (b"l", b"l" + b"\xff" * 8),
        (b"f", b"f\x3f\x80\x00\x00"), (b"d", b"d\x3f\xf0" + bytes(6)), (b"D", b"D\x02\x00\x00\x00\x7b"),
        (b"S", b"S" + longstr(b"\xff\x00")), (b"T", b"T" + bytes(7) + b"\x05"), (b"V", b"V"),
        (b"x", b"x" + longstr(b"\x00\x01")), (b"F", b"F" + longstr(shortstr("a") + b"V")),
        (b"A", b"A" + longstr(b"Vt\x00")), (b"", b"V"), (b"twice", b"t\x01"), (b"twice", b"t\x00"),
    ])
    properties = b"\xa0\x00" + shortstr("type") + longstr(values)  # content-type and headers
    ch.client.write(raw_method(ch.number, 60, 40, b"\0\0\0" + shortstr(queue) + b"\0")
                    + raw_header(ch.number, 0, properties))
    eventually(lambda: ch.count(queue))
    ch.send(Basic.Get(0, queue, True))
    ch.client.read_raw()
    assert ch.client.read_raw() == raw_header(ch.number, 0, properties)


# Unroutable

def test_mandatory(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange)
    ch.publish(exchange, "nowhere", b"body", mandatory=True, message_id="m", headers={"a": 1})
    back = ch.next()
    assert dict(back.method) == {"reply_code": 312, "reply_text": "NO_ROUTE", "exchange": exchange,
                                 "routing_key": "nowhere"}
    assert (back.body, back.properties.message_id, back.headers) == (b"body", "m", {"a": 1})


def test_mandatory_of_an_empty_body(ch: Channel) -> None:
    ch.publish("", "wire-no-such-queue", mandatory=True)
    assert ch.next().body == b""


def test_unroutable_without_mandatory_is_dropped(ch: Channel) -> None:
    ch.publish("", "wire-no-such-queue", b"x")
    assert ch.idle(ch.temporary())


def test_mandatory_and_routable(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.publish("", queue, b"x", mandatory=True)
    assert ch.wait_get(queue).body == b"x"
    assert ch.idle(queue)


# Refused

def test_missing_exchange(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.queue(queue)
    with channel_error(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'", Basic.Publish):
        ch.publish(exchange, "key", b"x" * 200_000)
        ch.publish("", queue, b"after the error nothing counts")
        ch.next()
    assert ch.client.channel().count(queue) == 0


@pytest.mark.parametrize("expiration, wrong", [
    ("soon", "no_integer"), ("", "no_integer"), (" 5", "no_integer"), ("-1", "{value_negative,-1}"),
    ("1.5", '{leftover_string,".5"}'), ("5 ", '{leftover_string," "}'), ("1000ms", '{leftover_string,"ms"}'),
    ("99999999999999999", "{value_too_large,99999999999999999}"),
])
def test_expiration(ch: Channel, expiration: str, wrong: str) -> None:
    queue = ch.temporary()
    with channel_error(406, f"PRECONDITION_FAILED - invalid expiration '{expiration}': {wrong}", Basic.Publish):
        ch.send(Basic.Publish(0, "", queue))
        ch.client.write(raw_header(ch.number, 0, b"\x01\x00" + shortstr(expiration)))
        ch.next()


def test_user_id(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.put("", queue, b"x", user_id="guest")
    assert ch.count(queue) == 1
    with channel_error(406, "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'",
                       Basic.Publish):
        ch.publish("", queue, b"x", user_id="bob")
        ch.next()


@pytest.mark.parametrize("header, value, kind", [("CC", "key", "longstr"), ("BCC", 3, "byte"), ("CC", {}, "table"),
                                                 ("BCC", True, "bool"), ("CC", None, "void")])
def test_sender_selected_keys_must_be_a_list(ch: Channel, header: str, value: Any, kind: str) -> None:
    queue = ch.temporary()
    with channel_error(406, f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{header}",{kind}}}',
                       Basic.Publish):
        ch.publish("", queue, b"x", headers={header: value})
        ch.next()


@pytest.mark.parametrize("value", [3, 0, 255])
def test_delivery_mode(ch: Channel, value: int) -> None:
    queue = ch.temporary()
    ch.send(Basic.Publish(0, "", queue))
    with channel_error(406, f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{value}}}",
                       Basic.Publish):
        ch.client.write(raw_header(ch.number, 0, b"\x10\x00" + bytes([value])))
        ch.next()


# CC and BCC

def test_sender_selected_distribution(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange)
    queues = {key: ch.temporary() for key in ("to", "cc1", "cc2", "bcc", "other")}
    for key, queue in queues.items():
        ch.bind(queue, exchange, key)
    ch.put(exchange, "to", b"x", headers={"CC": ["cc1", "cc2", "to", 7], "BCC": ["bcc", None], "a": 1})
    got = {key: ch.get(queue) for key, queue in queues.items()}
    assert got.pop("other") is None
    for key, one in got.items():
        assert one and one.method.routing_key == "to" and one.method.message_count == 0, key
        assert one.headers == {"CC": ["cc1", "cc2", "to", 7], "a": 1}, key  # and no BCC


def test_sender_selected_distribution_by_the_default_exchange(ch: Channel, name: Name) -> None:
    queues = [name(), name()]
    for queue in queues:
        ch.queue(queue)
    assert ch.put("", "wire-no-such-queue", b"x", headers={"CC": queues}, mandatory=False)
    assert [ch.count(queue) for queue in queues] == [1, 1]


# Alternate exchange

def test_alternate_exchange(ch: Channel, name: Name) -> None:
    main, alternate = name("main"), name("alternate")
    ch.exchange(alternate, "fanout")
    ch.exchange(main, "direct", arguments={"alternate-exchange": alternate})
    queue, rest = ch.temporary(), ch.temporary()
    ch.bind(queue, main, "known")
    ch.bind(rest, alternate)
    ch.put(main, "known", b"1")
    ch.put(main, "unknown", b"2")
    assert [ch.count(queue), ch.count(rest)] == [1, 1]
    got = ch.get(rest)
    assert got and (got.method.exchange, got.method.routing_key, got.body) == (main, "unknown", b"2")


def test_alternate_exchanges_in_a_row_and_mandatory(ch: Channel, name: Name) -> None:
    first, second, third = name("first"), name("second"), name("third")
    ch.exchange(first, "direct", arguments={"alternate-exchange": second})
    ch.exchange(second, "direct", arguments={"alternate-exchange": third})
    ch.exchange(third, "fanout", arguments={"alternate-exchange": first})  # and round
    queue = ch.temporary()
    ch.publish(first, "key", b"x", mandatory=True)
    assert ch.next().method.reply_code == 312
    ch.bind(queue, third)
    ch.publish(first, "key", b"y", mandatory=True)
    assert ch.wait_get(queue).body == b"y"
    assert ch.idle(queue)


def test_missing_alternate_exchange(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "direct", arguments={"alternate-exchange": name("missing")})
    ch.publish(exchange, "key", b"x", mandatory=True)
    assert ch.next().method.reply_text == "NO_ROUTE"


def test_alternate_exchange_of_a_destination_exchange(ch: Channel, name: Name) -> None:
    source, inner, alternate = name("source"), name("inner"), name("alternate")
    ch.exchange(source, "fanout")
    ch.exchange(alternate, "fanout")
    ch.exchange(inner, "direct", arguments={"alternate-exchange": alternate})
    ch.call(Exchange.Bind(0, inner, source))
    rest = ch.temporary()
    ch.bind(rest, alternate)
    ch.put(source, "unknown to the inner one", b"x")
    assert ch.count(rest) == 1
    ch.call(Queue.Unbind(0, rest, alternate))

