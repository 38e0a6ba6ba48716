"""The converter of 0-10: a message's own terms, what is amended, and what Qpid's clients need of the translation."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from broker.message import (
    AMQP010,
    AMQP010_JMS,
    AMQP091,
    AMQP091_JMS,
    AMQP10,
    CONVERTERS,
    Amendment,
    Message,
    address_of,
)
from broker.values import Array, Byte, Char, Float, Int, Odd, Short, Timestamp, UInt, ULong, same
from broker.view import Death, View
from protocols import maps010, reply_to
from protocols.amqp010 import content, properties
from protocols.amqp010 import convert as _convert010  # noqa: F401 - registers itself
from protocols.amqp010.properties import Properties
from protocols.amqp091 import convert as convert091
from protocols.amqp10 import convert as _convert10  # noqa: F401 - registers itself
from protocols.frontend import speaks_jms

NOW = 1_700_000_000_000
MAPPED = {"i": Int(70_000), "s": "text", "b": b"\0\xff"}


def message(headers: dict[str, Any] | None = None, body: bytes = b"m", **fields: Any) -> Message:
    """As a 0-10 client sends it to amq.topic with the key a.b."""
    p = Properties()
    p.exchange, p.routing_key, p.has_message = b"amq.topic", b"a.b", True
    for name, value in fields.items():
        setattr(p, name, value)
    if headers is not None:
        p.headers = maps010.write_map(headers)
    native, pieces = content.build(properties.join(p, len(body)), [body], len(body))
    return Message(address_of("amq.topic", "a.b"), AMQP010, native, pieces, len(body), False, 4, 0, NOW)


def view_of(**fields: Any) -> View:
    view = View()
    for name, value in fields.items():
        setattr(view, name, value)
    return view


def written(view: View, dialect: int = AMQP010) -> tuple[Properties, dict[str, Any], bytes]:
    """The properties, the headers and the body of what a reader gets."""
    like = Message(address_of("amq.topic", "a.b"), AMQP10, b"", None, 0, False, 4, 0, NOW)
    found = CONVERTERS[dialect].encode(view, like)
    p = properties.split(content.header_segment(found))
    return p, {} if p.headers is None else maps010.read_map(p.headers), b"".join(content.body_pieces(found))


def test_a_message_in_its_own_terms() -> None:
    own = message({"a": Int(1), "qpid.subject": "news", "x-death": [{"queue": "q", "reason": "rejected"}], "l": [1]},
                  priority=7, delivery_mode=2, ttl=5000, timestamp=1_700_000_000, message_id=bytes(16),
                  correlation_id=b"c", has_reply_to=True, reply_exchange=b"e", reply_key=b"k", app_id=b"app",
                  content_type=b"text/plain", user_id=b"guest").view()
    assert own.headers["a"] == 1 and own.headers["l"] == [1] and own.headers["qpid.subject"] == "news"
    assert (own.priority, own.durable, own.ttl, own.subject) == (7, True, 5000, "news")
    assert (own.creation_time, own.message_id, own.correlation_id) == (NOW, uuid.UUID(int=0), "c")
    assert (own.reply_to, own.app_id, own.content_type, own.user_id) == ("e/k", "app", "text/plain", b"guest")
    assert own.deaths[0].queue == "q" and b"".join(own.body) == b"m"


@pytest.mark.parametrize("header", [b"", b"\0\0\0\4\4\1\xff\xff", b"\0\0\0\5\4\1\0\x10\1", b"\0\0\0\4\4\3\xff\1",
                                    b"\0\0"])
def test_what_the_store_has_let_rot_is_a_body_and_no_more(header: bytes) -> None:
    native, body = content.build(header, [b"m"], 1)
    rotten = Message(address_of("", "q"), AMQP010, native, body, 1, False, 4, 0, NOW)
    assert b"".join(rotten.view().body) == b"m"
    assert b"".join(rotten.translated(AMQP10).view().body) == b"m"
    assert b"".join(rotten.translated(AMQP091).view().body) == b"m"


def test_the_subject_of_others_is_the_routing_key_when_there_is_none() -> None:
    seen = message().translated(AMQP10).view()
    assert seen.subject == "a.b" and seen.annotations["x-routing-key"] == "a.b"
    assert message().translated(AMQP091).view().subject is None
    assert message({"x-jms-type": "kind"}).translated(AMQP10).view().subject == "kind"
    assert message({"x-jms-type": "kind", "qpid.subject": "news"}).translated(AMQP10).view().subject == "news"


def test_ids() -> None:
    known = uuid.uuid4()
    p, headers, _ = written(view_of(message_id=known, correlation_id=known))
    assert p.message_id == p.correlation_id == known.bytes and headers == {"x-correlation-id-type": "uuid"}
    p, headers, _ = written(view_of(message_id="ID:1", correlation_id="request 1"))
    assert p.correlation_id == b"request 1" and headers == {"x-message-id": "ID:1"}
    assert p.message_id == written(view_of(message_id="ID:1"))[0].message_id != written(
        view_of(message_id=b"ID:1"))[0].message_id
    assert p.message_id is not None and uuid.UUID(bytes=p.message_id).version == 5
    p, headers, _ = written(view_of(message_id=ULong(5), correlation_id=ULong(5)))
    assert p.correlation_id == bytes(7) + b"\5"
    assert same(headers, {"x-message-id": ULong(5), "x-correlation-id-type": "ulong"})


@pytest.mark.parametrize(("address", "exchange", "key", "kept"), [
    ("queue", b"", b"queue", False), ("amq.topic/a.b", b"amq.topic", b"a.b", False),
    ("amq.topic", b"amq.topic", b"", False),
    ("/queues/a%2Fb", b"", b"a/b", True), ("/exchanges/e/k", b"e", b"k", True), ("/topic/a", b"amq.topic", b"a", True),
    ("direct:////q", b"", b"q", True), ("topic://amq.topic//?routingkey='a.b'", b"amq.topic", b"a.b", True)])
def test_reply_addresses(address: str, exchange: bytes, key: bytes, kept: bool) -> None:
    p, headers, _ = written(view_of(reply_to=address))
    assert (p.reply_exchange, p.reply_key) == (exchange, key)
    assert headers == ({"x-opt-reply-to": address} if kept else {})


@pytest.mark.parametrize(("exchange", "key"), [("", "q"), ("amq.topic", "a.b"), ("amq.direct", "k'%\u00fc"),
                                               ("", "a/b")])
def test_binding_urls(exchange: str, key: str) -> None:
    url = reply_to.url(exchange, key)
    assert reply_to.is_url(url) and reply_to.split_address(url) == (exchange, key)
    assert not reply_to.is_url("a://b") and not reply_to.is_url("queue")
    assert reply_to.split_address("direct://amq.direct//queue?durable='true'") == ("amq.direct", "queue")


def test_times() -> None:
    p, headers, _ = written(view_of(ttl=1500, creation_time=NOW + 1))
    assert (p.ttl, p.expiration, p.timestamp) == (1500, 1_700_000_002, 1_700_000_000)
    assert headers == {"x-opt-creation-time": NOW + 1}
    p, headers, _ = written(view_of(absolute_expiry_time=NOW))
    assert (p.ttl, p.expiration, headers) == (-1, 1_700_000_000, {})
    jms = message(timestamp=NOW, ttl=5000, expiration=NOW + 5000).translated(AMQP10).view()  # ms, as they write it
    assert (jms.creation_time, jms.ttl, jms.absolute_expiry_time) == (NOW, 5000, None)
    assert message(expiration=NOW).translated(AMQP10).view().absolute_expiry_time == NOW
    assert message(expiration=5).translated(AMQP10).view().absolute_expiry_time == 5000


def test_maps_and_lists_for_jms_clients_of_0_x() -> None:
    for value, plain, jms in ((MAPPED, b"amqp/map", b"jms/map-message"),
                              ([Int(1), Char("a"), None], b"amqp/list", b"jms/stream-message")):
        assert written(view_of(kind=1, value=value))[0].content_type == plain
        assert written(view_of(kind=1, value=value), AMQP010_JMS)[0].content_type == jms
    unknown_to_java = {"u": UInt(5)}
    p, _, body = written(view_of(kind=1, value=unknown_to_java), AMQP010_JMS)
    assert p.content_type == b"amqp/map" and same(maps010.read_map(body), unknown_to_java)
    assert written(view_of(subject="kind"), AMQP010_JMS)[1] == {"qpid.subject": "kind", "x-jms-type": "kind"}
    like = Message(address_of("", "q"), AMQP10, b"", None, 0, False, 4, 0, NOW)
    found = CONVERTERS[AMQP091_JMS].encode(view_of(kind=1, value=MAPPED, reply_to="amq.topic/a"), like)
    assert found.dialect == AMQP091
    assert found.view().content_type == "jms/map-message"
    assert found.view().reply_to == "topic://amq.topic//?routingkey='a'"
    assert CONVERTERS[AMQP091].model(found).reply_to == "amq.topic/a"


def test_who_speaks_jms() -> None:
    assert speaks_jms({"product": "qpid", "qpid.client_process": "Apache Qpid JMS Client for AMQP 0-9-1/0-10"})
    assert speaks_jms({"qpid.client_process": "Qpid Java Client"})
    assert not speaks_jms({"product": "qpid python client", "qpid.client_process": "jms.py"}) and not speaks_jms({})


def test_amended() -> None:
    own = message({"a": Int(1), "CC": ["x"], "odd": Odd(0x40, bytes(16))}, ttl=5000, message_id=bytes(16),
                  others=[b"\0\0\0\4\4\2\3\0"], content_type=b"text/plain")
    amendment = Amendment()
    amendment.deaths = [Death("q", "rejected", 2, 1_700_000_000, "e", ["k"], "5000")]
    amendment.drop_headers = ("CC",)
    amendment.headers["x-delivery-count"] = 3
    amendment.annotations = {"x-opt-via": Array(0x71, [Int(1)]), "x-opt-name": None}
    amendment.reply_to = "amq.topic/back"
    again = CONVERTERS[AMQP010].amend(own, amendment, address_of("dlx", "dead"), NOW + 1000)
    p = properties.split(content.header_segment(again))
    assert (p.exchange, p.routing_key, p.ttl, p.expiration) == (b"dlx", b"dead", 5000, 1_700_000_006)
    assert again.expiry == NOW + 6000 and again.arrival == NOW + 1000 and again.body == own.body
    assert p.others == [b"\0\0\0\4\4\2\3\0"] and p.message_id == bytes(16) and p.content_type == b"text/plain"
    assert (p.reply_exchange, p.reply_key) == (b"amq.topic", b"back")
    headers = maps010.read_map(p.headers or b"")
    assert same(headers.pop("x-death"), [{"queue": "q", "reason": "rejected", "count": 2, "time": Timestamp(NOW),
                                          "exchange": "e", "routing-keys": ["k"], "original-expiration": "5000"}])
    assert same(headers, {"a": Int(1), "odd": Odd(0x40, bytes(16)), "x-delivery-count": 3,
                          "x-opt-via": Array(0x71, [Int(1)]), "x-opt-name": None, "x-first-death-reason": "rejected",
                          "x-first-death-queue": "q", "x-first-death-exchange": "e"})
    assert CONVERTERS[AMQP010].expiration(again) == "5000"
    assert [death.queue for death in again.view().deaths] == ["q"]
    dropped = Amendment()
    dropped.drop_expiration = True
    forever = CONVERTERS[AMQP010].amend(again, dropped, own.address, NOW)
    assert forever.expiry == 0 and CONVERTERS[AMQP010].expiration(forever) is None
    assert b"".join(content.body_pieces(forever)) == b"m"


def test_headers_that_are_no_map_stay_with_the_message_when_it_is_amended() -> None:
    odd = b"\0\0\0\5\0\0\0\1\1"
    own = message()
    p = properties.split(content.header_segment(own))
    p.headers = odd
    native, body = content.build(properties.join(p, 1), [b"m"], 1)
    own = Message(own.address, AMQP010, native, body, 1, False, 4, 0, NOW)
    amendment = Amendment()
    amendment.headers["x-delay"] = -5
    again = CONVERTERS[AMQP010].amend(own, amendment, own.address, NOW)
    assert again.view().headers == {"x-opt-raw-application-headers": odd, "x-delay": -5}


def test_later_delivery() -> None:
    assert CONVERTERS[AMQP010].delivery_time(message({"x-qpid-not-valid-before": NOW + 5})) == NOW + 5
    for headers in ({}, {"x-qpid-not-valid-before": "soon"}, {"x-qpid-not-valid-before": True}):
        assert CONVERTERS[AMQP010].delivery_time(message(headers)) == 0


def test_a_long_text_is_bytes_that_say_so() -> None:
    """As Qpid's C++ clients write one: str16 ends at 65535 bytes."""
    _, headers, _ = written(view_of(headers={"long": "x" * 65536, "short": "x" * 65535}))
    assert headers == {"long": b"x" * 65536, "x-opt-type-long": "string", "short": "x" * 65535}


def test_values_of_0_10_for_others() -> None:
    odd = {"bin": Odd(0x40, bytes(16)), "f": Float(0.5), "a": Array(0x61, [Short(1)]), "b": Byte(1)}
    for dialect in (AMQP10, AMQP091):
        there = message(odd).translated(dialect)
        back = there.translated(AMQP010)
        assert same(dict(sorted(back.view().headers.items())), dict(sorted(odd.items())))
    assert b"".join(convert091.body_pieces(message(odd).translated(AMQP091))) == b"m"
