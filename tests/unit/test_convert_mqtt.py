"""The converter of MQTT: what readers of the other dialects see, what is amended, and what routing looks at."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from broker.message import AMQP010, AMQP091, AMQP10, CONVERTERS, MQTT, Amendment, Message, address_of
from broker.selector import Selector
from broker.values import Array, Described, Int, Symbol, UInt, ULong
from broker.view import BYTES, NOTHING, SEQUENCES, VALUE, Death, View
from protocols.amqp010 import convert as _convert010  # noqa: F401 - registers itself
from protocols.amqp091 import convert as _convert091  # noqa: F401 - registers itself
from protocols.amqp10 import convert as _convert10  # noqa: F401 - registers itself
from protocols.mqtt import content
from protocols.mqtt import convert as _convert  # noqa: F401 - registers itself
from protocols.mqtt.packets import prepared
from protocols.mqtt.properties import Properties, join, split
from protocols.mqtt.replies import reply_address, response_topic, route_of
from protocols.mqtt.texts import from_json, to_json

NOW = 1_700_000_000_000
OTHERS = [AMQP091, AMQP010, AMQP10]


def message(payload: bytes = b"m", flags: int = 0, client_id: bytes = b"device", user: bytes = b"guest",
            pairs: list[tuple[str, str]] | None = None, **fields: Any) -> Message:
    """As a client publishes it to a/b."""
    p = Properties()
    for name, value in fields.items():
        setattr(p, name, value)
    p.pairs = [part.encode() for pair in pairs or [] for part in pair]
    native, body = content.make_native(flags, content.identity(client_id, user), b"a/b", join(p), payload)
    return Message(address_of("amq.topic", "a.b"), MQTT, native, body, len(payload), flags & 6 != 0, 4, 0, NOW)


def properties_of(message: Message) -> Properties:
    return split(message.native, content.properties_at(message.native))


def user_properties(message: Message) -> list[tuple[str, str]]:
    pairs = [each.decode() for each in properties_of(message).pairs]
    return list(zip(pairs[::2], pairs[1::2], strict=True))


def written(**fields: Any) -> Message:
    """What a reader of MQTT gets of a message of the model."""
    view = View()
    for name, value in fields.items():
        setattr(view, name, value)
    like = Message(address_of("amq.topic", "a.b"), AMQP10, b"", None, 0, False, 4, 0, NOW)
    return CONVERTERS[MQTT].encode(view, like)


def payload(message: Message) -> bytes:
    return b"".join(content.body_pieces(message))


@pytest.mark.parametrize("dialect", OTHERS)
def test_what_readers_of_amqp_see(dialect: int) -> None:
    seen = message(b"21.5", 5, pairs=[("unit", "C"), ("place", "a\u00fc")], expiry=60, content_type=b"text/csv",
                   response_topic=b"answers/1", correlation=b"c1", payload_format=1).translated(dialect)
    view = seen.view()
    assert {name: value for name, value in view.headers.items() if not name.startswith("x-opt-")} == {
        "unit": "C", "place": "a\u00fc", "x-mqtt-client-id": "device", "x-mqtt-qos": 2, "x-mqtt-retain": True}
    assert (seen.durable, view.ttl, view.content_type, view.user_id) == (True, 60_000, "text/csv", b"guest")
    assert (view.reply_to, view.correlation_id) == ("amq.topic/answers.1", "c1")
    assert b"21.5" in (b"".join(view.body), str(view.value).encode())
    assert (seen.address.exchange, seen.address.routing_key) == ("amq.topic", "a.b")


@pytest.mark.parametrize("dialect", OTHERS)
def test_several_user_properties_of_a_name(dialect: int) -> None:
    pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("x-priority", "7")]
    there = message(pairs=pairs).translated(dialect)
    assert there.view().headers["a"] == "1" and there.view().priority == 7
    assert user_properties(there.translated(MQTT)) == pairs


def test_what_readers_of_mqtt_see() -> None:
    known = uuid.uuid4()
    found = written(durable=True, ttl=1500, content_type="application/json", priority=9, subject="s",
                    message_id=ULong(5), correlation_id=known, reply_to="amq.topic/answers.1", body=[b"{}"],
                    headers={"text": "t", "number": Int(5), "yes": True}, annotations={"list": [1, Int(2)]})
    p = properties_of(found)
    assert (content.qos(found.native), p.expiry, p.content_type, p.payload_format) == (1, 2, b"application/json", -1)
    assert (p.response_topic, p.correlation) == (b"answers/1", f"urn:uuid:{known}".encode())
    assert dict(user_properties(found)) == {
        "text": "t", "number": "5", "x-opt-type-number": "int", "yes": "true", "x-opt-type-yes": "boolean",
        "list": "[1,2]", "x-opt-type-list": 'json {"/1":"int"}', "x-opt-ttl": "1500", "x-priority": "9",
        "qpid.subject": "s", "x-message-id": "5", "x-opt-type-x-message-id": "ulong"}
    assert payload(found) == b"{}" and content.topic(found.native) == b"a/b"


@pytest.mark.parametrize(("kind", "value", "data", "content_type"), [
    (VALUE, "text", b"text", None),
    (VALUE, {"a": 1, "b": [None, True]}, b'{"a":1,"b":[null,true]}', b"application/json"),
    (VALUE, [Int(1), b"hi"], b'[1,"aGk="]', b"application/json"), (VALUE, 5, b"5", b"application/json"),
    (SEQUENCES, [[1, 2]], b"[1,2]", b"application/json"), (SEQUENCES, [[1], [2]], b"[[1],[2]]", b"application/json"),
    (VALUE, b"hi", b"\xa0\2hi", b"application/vnd.amqp"), (VALUE, None, b"", None), (NOTHING, None, b"", None),
    (VALUE, Described(Symbol("d"), 1), b"\0\xa3\1d\x55\1", b"application/vnd.amqp"), (BYTES, None, b"", None)])
def test_bodies(kind: int, value: Any, data: bytes, content_type: bytes | None) -> None:
    found = written(kind=kind, value=value)
    assert (payload(found), properties_of(found).content_type) == (data, content_type)
    back = CONVERTERS[MQTT].model(found)
    assert (back.kind, back.value, back.content_type) == (kind, value, None)


@pytest.mark.parametrize(("text", "types"), [
    ("[1", ""), ("[1]", "[]"), ("[1]", '{"/0":"uuid"}'), ("[300]", '{"/0":"ubyte"}'), ("[ 1]", ""),
    ('{"a":1,"a":1}', ""),
    ("[1]", '{"/0":5}'), ("[1]", '{"/1":"int"}'), ('["a"]', '{"/0":"binary"}'), ('["a"]', '{"/0":"amqp"}'),
    ('["QA=="]', '{"/0":"amqp"}'), ("[" * 2000 + "]" * 2000, ""), ("[99999999999999999999]", ""), ("[1e999]", ""),
    ("[" * 90 + "]" * 90, ""), ("[1e300]", '{"/0":"float"}')])
def test_json_that_only_claims_to_be_ours(text: str, types: str) -> None:
    if len(text) == 180:
        assert to_json(from_json(text, types)) == (text, types)
        return
    with pytest.raises(ValueError):
        from_json(text, types)


def test_what_is_too_long_or_awkward_for_a_string_of_mqtt() -> None:
    headers = {"long": "\u00fc" * 100_000, "line\n": "a", "bytes": b"\0" * 100_000, "nul": "\0", "k" * 300: 1}
    found = written(headers=headers, content_type="a\0b", correlation_id=b"\xff" * 70_000, user_id=b"\0" * 70_000,
                    reply_to="q" * 70_000)
    assert all(len(part) <= 65535 for part in properties_of(found).pairs)
    view = CONVERTERS[MQTT].model(found)
    assert view.headers == headers and view.content_type == "a\0b" and view.reply_to == "q" * 70_000
    assert view.correlation_id == b"\xff" * 70_000 and view.user_id == b"\0" * 70_000


@pytest.mark.parametrize(("topic", "exchange", "key", "address"), [
    ("a/b", "amq.topic", "a.b", "amq.topic/a.b"), ("$queue/q", "", "q", "q"),
    ("$queue/a/b", "", "a/b", "/queues/a%2Fb"),
    ("$exchange/e/k.l", "e", "k.l", "e/k.l"), ("$exchange/e%2Ff/k", "e/f", "k", "/exchanges/e%2Ff/k"),
    ("$queue/a%2B%23%25", "", "a+#%", "a+#%"), ("$exchange/e/", "e", "", "e/")])
def test_where_answers_go(topic: str, exchange: str, key: str, address: str) -> None:
    assert route_of(topic) == (exchange, key) and response_topic(exchange, key) == topic
    assert reply_address(topic) == address
    assert properties_of(written(reply_to=address)).response_topic == topic.encode()


def test_topics_that_lead_to_no_other_exchange() -> None:
    assert route_of("$exchange/e") == ("e", "") and route_of("$queues/q") == ("amq.topic", "$queues.q")


def test_nobody_says_who_he_is_in_a_user_property() -> None:
    for dialect in OTHERS:
        seen = message(user=b"", pairs=[("x-user-id", "admin")]).translated(dialect).view()
        assert seen.user_id is None and seen.headers["x-mqtt-client-id"] == "device"
    found = written(user_id=b"me")
    assert ("x-user-id", "me") in user_properties(found)
    assert found.translated(AMQP091).view().user_id == b"me"


def test_what_publishers_of_amqp_say_to_mqtt() -> None:
    found = written(durable=True, headers={"x-mqtt-qos": 2, "x-mqtt-retain": True})
    assert content.qos(found.native) == 2 and content.retained(found.native)
    found = written(headers={"x-mqtt-qos": 2, "x-mqtt-retain": "true"})
    assert content.qos(found.native) == 0 and not content.retained(found.native)


def test_amended() -> None:
    own = message(b"m" * 9, 2, pairs=[("a", "1"), ("CC", "x"), ("a", "2"), ("CC", "y")], expiry=60,
                  content_type=b"text/plain")
    amendment = Amendment()
    amendment.deaths = [Death("q", "rejected", 2, 1_700_000_000, "amq.topic", ["a.b"], "60000")]
    amendment.drop_headers = ("CC",)
    amendment.headers = {"x-delivery-count": 3}
    amendment.annotations = {"x-opt-via": Array(0x71, [Int(1)]), "x-opt-name": "n"}
    amendment.reply_to = "back"
    again = CONVERTERS[MQTT].amend(own, amendment, address_of("dlx", "dead.letters"), NOW + 1000)
    assert (again.expiry, again.arrival, again.durable, payload(again)) == (NOW + 61_000, NOW + 1000, True, b"m" * 9)
    assert content.topic(again.native) == b"dead/letters" and content.client_id(again.native) == b"device"
    pairs = user_properties(again)
    assert pairs[:3] == [("a", "1"), ("a", "2"), ("x-delivery-count", "3")]
    assert json.loads(dict(pairs)["x-death"])[0]["queue"] == "q" and dict(pairs)["x-first-death-reason"] == "rejected"
    assert properties_of(again).response_topic == b"$queue/back" and properties_of(again).content_type == b"text/plain"
    for dialect in OTHERS:
        view = again.translated(dialect).view()
        assert (view.deaths[0].queue, view.deaths[0].count, view.deaths[0].time) == ("q", 2, 1_700_000_000)
        assert view.headers["x-delivery-count"] == 3 and view.annotations["x-opt-name"] == "n"
    assert CONVERTERS[MQTT].expiration(again) == "60000"
    dropped = Amendment()
    dropped.drop_expiration = True
    forever = CONVERTERS[MQTT].amend(again, dropped, own.address, NOW)
    assert forever.expiry == 0 and CONVERTERS[MQTT].expiration(forever) is None
    assert content.topic(forever.native) == b"a/b"


def test_a_long_payload_is_kept_in_pieces() -> None:
    data = bytes(200_000)
    own = message(data)
    assert own.body is not None and payload(own) == data
    amendment = Amendment()
    amendment.headers = {"x-delay": 5}
    assert payload(CONVERTERS[MQTT].amend(own, amendment, own.address, NOW)) == data
    for dialect in OTHERS:
        assert payload(own.translated(dialect).translated(MQTT)) == data


def test_selectors_and_later_delivery() -> None:
    own = message(flags=2, pairs=[("colour", "red"), ("weight", "5"), ("x-opt-type-weight", "int"),
                                  ("x-priority", "8")])
    for text in ("colour = 'red'", "weight > 4", "JMSPriority = 8", "JMSDeliveryMode = 'PERSISTENT'"):
        assert Selector(text).matches(own)
    assert not Selector("colour = 'blue'").matches(own)
    convert = CONVERTERS[MQTT]
    assert convert.delivery_time(message(pairs=[("x-opt-delivery-time", str(NOW + 5))])) == NOW + 5
    assert convert.delivery_time(message(pairs=[("x-opt-delivery-delay", "7")])) == NOW + 7
    assert convert.delivery_time(message(pairs=[("x-opt-delivery-time", "soon")])) == NOW


def test_the_longest_message_expiry() -> None:
    for dialect in OTHERS:
        there = message(expiry=2**32 - 1).translated(dialect)
        assert there.view().ttl == 2**32 - 1
        assert properties_of(there.translated(MQTT)).expiry == 2**32 - 1


@pytest.mark.parametrize("block", [b"\x05\x26\0\1a", b"\x01\x99", b"\xff\xff\xff\xff\x01", b"\x02\x02\0", b"\x80"])
def test_what_the_store_has_let_rot_is_a_payload_and_no_more(block: bytes) -> None:
    native = b"\x30\0\0\0\0\0\3a/b" + block + b"m"
    rotten = Message(address_of("amq.topic", "a.b"), MQTT, native, None, 1, False, 4, 0, NOW)
    assert b"".join(rotten.view().body) == b"m"
    for dialect in OTHERS:
        assert b"".join(rotten.translated(dialect).view().body) == b"m"
    amendment = Amendment()
    amendment.headers = {"x-delay": 5}
    assert payload(CONVERTERS[MQTT].amend(rotten, amendment, rotten.address, NOW)) == b"m"
    assert CONVERTERS[MQTT].expiration(rotten) is None


def test_a_route_without_a_key_has_a_topic_all_the_same() -> None:
    view = View()
    for exchange, key, topic in (("amq.fanout", "", b"amq/fanout"), ("", "q", b"q"), ("", "", b"/")):
        like = Message(address_of(exchange, key), AMQP10, b"", None, 0, False, 4, 0, NOW)
        assert content.topic(CONVERTERS[MQTT].encode(view, like).native) == topic


@pytest.mark.parametrize("name", ["x-opt-properties", "x-opt-long-keys", "x-opt-long-properties", "x-death", "x-delay"])
def test_deep_nesting_in_what_is_ours(name: str) -> None:
    deep = message(pairs=[(name, "[" * 65000)])
    for dialect in OTHERS:
        assert user_properties(deep.translated(dialect).translated(MQTT)) == [(name, "[" * 65000)]


def test_unsigned_numbers_come_back_as_what_they_were() -> None:
    found = written(headers={"u": UInt(5), "big": ULong(2**64 - 1)})
    view = CONVERTERS[MQTT].model(found)
    assert type(view.headers["u"]) is UInt and view.headers["big"] == 2**64 - 1


def test_a_message_that_is_too_large_for_any_packet() -> None:
    own = message()
    huge = Message(own.address, MQTT, own.native, [b""], 2**28, False, 4, 0, NOW)  # as if it had so many bytes
    assert prepared(huge).too_large and not prepared(own).too_large
