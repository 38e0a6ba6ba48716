"""Qpid JMS on one side, pika and Proton on the other: whatever one of them writes, the other reads for what it is.

Run by `python tests/conformance/run_interop.py jms_cross`, which compiles Bridge.java, the remote control of Qpid JMS.
Values go to and from it as text with their Java type: `integer:5`, `string:x`, `bytes:00ff`.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus, unquote_plus

import pika
import pytest
from legacy import (
    Typed,
    amqp_list,
    amqp_map,
    java_string,
    jms_map,
    jms_stream,
    read_amqp_list,
    read_amqp_map,
)
from pika.adapters.blocking_connection import BlockingChannel
from proton import Message, byte, char, float32, int32, short, symbol, ulong
from proton.utils import BlockingConnection

URL = os.environ["AMQP_URL"]
DEADLINE = 20  # seconds, a guard against hanging only

KIND = "x-opt-jms-msg-type"
NUMBERS = {"message": 0, "object": 1, "map": 2, "bytes": 3, "stream": 4, "text": 5}
"""How the annotation KIND numbers the kinds of messages."""

VALUES: dict[str, Typed] = {
    "a": ("boolean", True), "b": ("byte", -5), "c": ("short", -300), "d": ("integer", 70_000), "e": ("long", 1 << 40),
    "f": ("float", 1.5), "g": ("double", -2.25), "h": ("string", "Grüße"), "i": ("character", "é")}
"""A value of each type that properties, maps and streams can have; characters are for maps and streams only."""
IN_MAPS = {**VALUES, "j": ("bytes", b"\0\xff")}
PROPERTIES = {name: value for name, value in VALUES.items() if value[0] != "character"}
PIKA_S = {name: value for name, value in PROPERTIES.items() if value[0] not in ("float", "double")}
"""pika truncates floats that it reads and cannot write any; RabbitMQ's Java client, in the suite `jms`, has them."""


def written(value: Typed) -> str:
    """A value as the bridge writes it."""
    kind, plain = value
    if kind == "boolean":
        return f"boolean:{str(plain).lower()}"
    return f"{kind}:{plain.hex() if kind == 'bytes' else plain}"


class Bridge:
    """Qpid JMS."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["java", "-Dfile.encoding=UTF-8", "-cp", "classes:lib/*", "Bridge"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    def _ask(self, *words: str) -> list[str]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\t".join(words) + "\n")
        self.process.stdin.flush()
        answer = [unquote_plus(word) for word in self.process.stdout.readline().rstrip("\n").split("\t")]
        assert answer[0] not in ("error", ""), answer
        return answer

    def send(self, queue: str, kind: str, fields: dict[str, str]) -> dict[str, str]:
        """Send a message. Gives the headers that sending has set."""
        told = self._ask("send", queue, kind, *(quote_plus(f"{name}={value}") for name, value in fields.items()))
        return dict(field.split("=", 1) for field in told[1:])

    def receive(self, queue: str) -> tuple[str, dict[str, str]]:
        """The next message: its kind and its fields."""
        kind, *fields = self._ask("receive", queue)
        assert kind != "nothing", "no message came"
        return kind, dict(field.split("=", 1) for field in fields)

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(DEADLINE)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def jms() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


@pytest.fixture(scope="module")
def channel() -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    yield connection.channel()
    connection.close()


@pytest.fixture(scope="module")
def proton() -> Iterator[BlockingConnection]:
    connection = BlockingConnection(URL, timeout=DEADLINE)
    yield connection
    connection.close()


@pytest.fixture
def queue(channel: BlockingChannel) -> Iterator[str]:
    name = f"cross-{uuid.uuid4().hex[:12]}"
    channel.queue_declare(name, durable=True)
    yield name
    channel.queue_delete(name)


def get(channel: BlockingChannel, queue: str) -> tuple[pika.BasicProperties, bytes]:
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    assert method is not None, "no message is there"
    return properties, body


def put(channel: BlockingChannel, queue: str, body: bytes, **properties: Any) -> None:
    channel.basic_publish("", queue, body, pika.BasicProperties(**properties))


def take(proton: BlockingConnection, queue: str) -> Message:
    receiver = proton.create_receiver(queue)
    message = receiver.receive(timeout=DEADLINE)
    receiver.accept()
    receiver.close()
    return message


def give(proton: BlockingConnection, queue: str, **fields: Any) -> None:
    sender = proton.create_sender(queue)
    sender.send(Message(**fields))
    sender.close()


def body_fields(values: list[Typed] | dict[str, Typed]) -> dict[str, str]:
    """The fields of a stream's or a map's body."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return {f"body.{name}": written(value) for name, value in items}


def only_body(fields: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if name.startswith("body.")}


STREAM = list(IN_MAPS.values())

BODIES = {
    "text": {"body.": "string:Grüße"},
    "bytes": {"body.": "bytes:0001feff"},
    "map": body_fields(IN_MAPS),
    "stream": body_fields(STREAM),
    "object": {"body.": "string:an object"},
    "message": {},
}
"""The bodies that are sent, by kind of message, in the bridge's words."""


# From JMS to pika.


@pytest.mark.parametrize("kind", BODIES)
def test_jms_to_pika(jms: Bridge, channel: BlockingChannel, queue: str, kind: str) -> None:
    jms.send(queue, kind, BODIES[kind])
    properties, body = get(channel, queue)
    if kind == "text":
        assert (properties.content_type, body) == ("text/plain", "Grüße".encode())
    elif kind == "bytes":
        assert (properties.content_type, body) == ("application/octet-stream", b"\0\1\xfe\xff")
    elif kind == "map":
        assert (properties.content_type, read_amqp_map(body)) == ("amqp/map", IN_MAPS)
    elif kind == "stream":
        assert (properties.content_type, read_amqp_list(body)) == ("amqp/list", STREAM)
    elif kind == "object":
        assert (properties.content_type, body) == ("application/x-java-serialized-object", java_string("an object"))
    else:
        assert body == b""


# From pika to JMS.


@pytest.mark.parametrize(("content_type", "content", "kind", "body"), [
    ("text/plain", "Grüße".encode(), "text", {"body.": "string:Grüße"}),
    ("text/plain; charset=utf-8", "Grüße".encode(), "text", {"body.": "string:Grüße"}),
    ("text/xml", b"<a/>", "text", {"body.": "string:<a/>"}),
    ("text/plain", b"", "text", {"body.": "string:"}),
    (None, b"\0\xff", "bytes", {"body.": "bytes:00ff"}),
    (None, b"", "bytes", {"body.": "bytes:"}),
    ("application/octet-stream", b"\0\xff", "bytes", {"body.": "bytes:00ff"}),
    ("image/png", b"\0\xff", "bytes", {"body.": "bytes:00ff"}),
    ("text/plain; charset=iso-8859-1", b"Gr\xfc\xdfe", "text", {"body.": "string:Grüße"}),
    ("amqp/map", amqp_map(IN_MAPS), "map", body_fields(IN_MAPS)),
    ("amqp/list", amqp_list(STREAM), "stream", body_fields(STREAM)),
    ("jms/map-message", jms_map(IN_MAPS), "map", body_fields(IN_MAPS)),
    ("jms/stream-message", jms_stream(STREAM), "stream", body_fields(STREAM)),
    ("jms/text-message", b"text", "text", {"body.": "string:text"}),
    ("application/x-java-serialized-object", java_string("object"), "object", {"body.": "string:object"}),
    ("application/java-object-stream", java_string("object"), "object", {"body.": "string:object"}),
])
def test_pika_to_jms(jms: Bridge, channel: BlockingChannel, queue: str, content_type: str | None, content: bytes,
                     kind: str, body: dict[str, str]) -> None:
    put(channel, queue, content, content_type=content_type)
    found, fields = jms.receive(queue)
    assert (found, only_body(fields)) == (kind, body)


@pytest.mark.parametrize("kind", BODIES)
def test_there_and_back(jms: Bridge, channel: BlockingChannel, queue: str, kind: str) -> None:
    """pika sends on what it got, as it is."""
    sent = {**BODIES[kind], **{f"property.{name}": written(value) for name, value in PIKA_S.items()},
            "header.correlation": "string:ID:AMQP_BINARY:00FF80", "header.type": "string:type",
            "header.reply-topic": "string:answers"}
    headers = jms.send(queue, kind, sent)
    properties, body = get(channel, queue)
    channel.basic_publish("", queue, body, properties)
    found, fields = jms.receive(queue)
    assert found == kind
    expected = {**sent, **headers, "header.reply-to": "string:topic answers"}
    del expected["header.reply-topic"]
    expected |= {"property.b": "integer:-5", "property.c": "integer:-300"}  # pika writes 32 or 64 bits
    assert {name: fields[name] for name in expected} == expected


# Headers and properties, between JMS and pika.


def test_properties_to_pika(jms: Bridge, channel: BlockingChannel, queue: str) -> None:
    jms.send(queue, "text", {f"property.{name}": written(value) for name, value in PIKA_S.items()})
    properties, _ = get(channel, queue)
    for name, (_, value) in PIKA_S.items():
        assert properties.headers[name] == value and isinstance(properties.headers[name], type(value)), name


def test_properties_from_pika(jms: Bridge, channel: BlockingChannel, queue: str) -> None:
    put(channel, queue, b"", headers={"a": True, "d": 70_000, "e": 1 << 40, "h": "Grüße"})
    _, fields = jms.receive(queue)
    expected = {name: written(PIKA_S[name]) for name in "adeh"}
    assert {name: fields[f"property.{name}"] for name in expected} == expected


def test_headers_to_pika(jms: Bridge, channel: BlockingChannel, queue: str) -> None:
    sent = jms.send(queue, "text", {
        "header.type": "string:kind", "header.priority": "integer:7", "header.time-to-live": "long:60000",
        "header.persistent": "boolean:true", "property.JMSXGroupID": "string:group", "property.JMSXGroupSeq":
        "integer:3"})
    properties, _ = get(channel, queue)
    assert (properties.type, properties.priority, properties.delivery_mode) == ("kind", 7, 2)
    assert 0 < int(properties.expiration) <= 60_000
    assert f"string:{properties.message_id}" == sent["header.id"]
    assert (properties.headers["JMSXGroupID"], properties.headers["JMSXGroupSeq"]) == ("group", 3)
    created = int(sent["header.timestamp"].removeprefix("long:"))
    assert properties.timestamp == created // 1000
    assert properties.headers["x-opt-absolute-expiry-time"] == created + 60_000


def test_headers_from_pika(jms: Bridge, channel: BlockingChannel, queue: str) -> None:
    put(channel, queue, b"", type="kind", priority=7, expiration="60000", delivery_mode=2, message_id="ID:mine",
        timestamp=1_500_000_000, headers={"JMSXGroupID": "group", "JMSXGroupSeq": 3})
    _, fields = jms.receive(queue)
    expected = {"header.type": "string:kind", "header.priority": "integer:7", "header.persistent": "boolean:true",
                "header.id": "string:ID:mine", "header.timestamp": "long:1500000000000",
                "property.JMSXGroupID": "string:group", "property.JMSXGroupSeq": "integer:3"}
    assert {name: fields.get(name) for name in expected} == expected
    left = int(fields["header.expiration"].removeprefix("long:")) - time.time() * 1000
    assert 0 < left < 61_000


def test_what_pika_leaves_out(jms: Bridge, channel: BlockingChannel, queue: str) -> None:
    put(channel, queue, b"x")
    _, fields = jms.receive(queue)
    assert [fields[f"header.{name}"] for name in ("id", "correlation", "type", "reply-to")] == ["null:"] * 4
    assert fields["header.priority"] == "integer:4" and fields["header.persistent"] == "boolean:false"
    assert fields["header.expiration"] == fields["header.timestamp"] == "long:0"
    assert fields["header.destination"] == f"string:queue {queue}"


URN = "0123abcd-0000-4000-8000-00000000abcd"


@pytest.mark.parametrize(("correlation", "text", "header"), [
    ("string:mine", "mine", None),
    ("string:ID:AMQP_UUID:" + URN, f"urn:uuid:{URN}", None),
    ("string:ID:AMQP_BINARY:00FF80", b"\0\xff\x80", None),
    ("string:ID:AMQP_BINARY:6162", None, b"ab"),
    ("string:ID:AMQP_ULONG:77", None, 77),
])
def test_correlation_ids(jms: Bridge, channel: BlockingChannel, queue: str, correlation: str, text: str | bytes | None,
                         header: Any) -> None:
    """Strings, uuids and bytes that can be no text are pika's correlation-id, the rest is a header. All come back."""
    jms.send(queue, "text", {"header.correlation": correlation})
    properties, body = get(channel, queue)
    assert (properties.correlation_id, properties.headers.get("x-correlation-id")) == (text, header)
    channel.basic_publish("", queue, body, properties)
    assert jms.receive(queue)[1]["header.correlation"] == correlation


@pytest.mark.parametrize(("written_id", "id_of_jms"), [
    ("mine", "string:mine"), (f"urn:uuid:{URN}", f"string:ID:AMQP_UUID:{URN}"), ("ID:mine", "string:ID:mine")])
def test_correlation_ids_from_pika(jms: Bridge, channel: BlockingChannel, queue: str, written_id: str,
                                   id_of_jms: str) -> None:
    put(channel, queue, b"", correlation_id=written_id)
    assert jms.receive(queue)[1]["header.correlation"] == id_of_jms


@pytest.mark.parametrize("kind", ["queue", "topic"])
def test_reply_to(jms: Bridge, channel: BlockingChannel, queue: str, kind: str) -> None:
    """pika answers to the name that it finds; the kind of destination comes back with the annotation."""
    jms.send(queue, "text", {f"header.reply-{kind}": "string:answers"})
    properties, body = get(channel, queue)
    assert properties.reply_to == "answers"
    channel.basic_publish("", queue, body, properties)
    assert jms.receive(queue)[1]["header.reply-to"] == f"string:{kind} answers"


def test_reply_to_from_pika(jms: Bridge, channel: BlockingChannel, queue: str) -> None:
    put(channel, queue, b"question", content_type="text/plain", reply_to=queue, correlation_id="c", message_id="m")
    _, fields = jms.receive(queue)
    assert fields["header.reply-to"] == f"string:queue {queue}"
    jms.send(fields["header.reply-to"].removeprefix("string:queue "), "text",
             {"body.": "string:answer", "header.correlation": fields["header.id"]})
    properties, body = get(channel, queue)
    assert (body, properties.correlation_id) == (b"answer", "m")


# Between JMS and Proton.


PROTON_VALUES = {
    "boolean": bool, "byte": byte, "short": short, "integer": int32, "long": int, "float": float32, "double": float,
    "string": str, "character": char, "bytes": bytes}
"""Proton's classes for the types of Java."""


def in_proton(value: Typed) -> Any:
    return PROTON_VALUES[value[0]](value[1])


def from_proton(value: Any) -> Any:
    """Proton gives views of bytes."""
    if isinstance(value, dict):
        return {name: from_proton(item) for name, item in value.items()}
    if isinstance(value, list):
        return [from_proton(item) for item in value]
    return bytes(value) if isinstance(value, memoryview) else value


@pytest.mark.parametrize("kind", BODIES)
def test_jms_to_proton(jms: Bridge, proton: BlockingConnection, queue: str, kind: str) -> None:
    jms.send(queue, kind, BODIES[kind])
    message = take(proton, queue)
    assert message.annotations[KIND] == NUMBERS[kind] and type(message.annotations[KIND]) is byte
    expected = {"text": "Grüße", "bytes": b"\0\1\xfe\xff", "object": java_string("an object"), "message": None,
                "map": {name: in_proton(value) for name, value in IN_MAPS.items()},
                "stream": [in_proton(value) for value in STREAM]}[kind]
    found = from_proton(message.body)
    assert found == expected
    if kind == "map":
        assert {name: type(value) for name, value in found.items()} == {
            name: PROTON_VALUES[value[0]] for name, value in IN_MAPS.items()}
    if kind == "stream":
        assert [type(value) for value in found] == [PROTON_VALUES[value[0]] for value in STREAM]


@pytest.mark.parametrize("kind", BODIES)
def test_proton_to_jms(jms: Bridge, proton: BlockingConnection, queue: str, kind: str) -> None:
    """Proton says which kind it means."""
    body = {"text": "Grüße", "bytes": b"\0\1\xfe\xff", "object": java_string("an object"), "message": None,
            "map": {name: in_proton(value) for name, value in IN_MAPS.items()},
            "stream": [in_proton(value) for value in STREAM]}[kind]
    give(proton, queue, body=body, inferred=kind in ("bytes", "object", "stream"),
         annotations={symbol(KIND): byte(NUMBERS[kind])},
         content_type="application/x-java-serialized-object" if kind == "object" else None)
    found, fields = jms.receive(queue)
    assert (found, only_body(fields)) == (kind, BODIES[kind])


@pytest.mark.parametrize(("fields", "kind", "body"), [
    ({"body": "text"}, "text", "string:text"),
    ({"body": b"\0\xff", "inferred": True}, "bytes", "bytes:00ff"),
    ({"body": b"\0\xff", "inferred": False}, "bytes", "bytes:00ff"),
    ({"body": b"text", "inferred": True, "content_type": "text/plain"}, "text", "string:text"),
    ({"body": java_string("x"), "inferred": True, "content_type": "application/x-java-serialized-object"}, "object",
     "string:x"),
    ({"body": {"k": 5}}, "object", "map:{k=5}"),
    ({"body": [1, "two"]}, "object", "list:[1, two]"),
])
def test_proton_to_jms_without_a_word(jms: Bridge, proton: BlockingConnection, queue: str, fields: dict[str, Any],
                                      kind: str, body: str) -> None:
    """What the AMQP JMS mapping makes of bodies whose sender knows nothing of JMS."""
    give(proton, queue, **fields)
    found, got = jms.receive(queue)
    assert (found, got["body."]) == (kind, body)


def test_properties_and_headers_to_proton(jms: Bridge, proton: BlockingConnection, queue: str) -> None:
    sent = jms.send(queue, "text", {
        **{f"property.{name}": written(value) for name, value in PROPERTIES.items()},
        "header.correlation": f"string:ID:AMQP_UUID:{URN}", "header.type": "string:kind", "header.priority":
        "integer:7", "header.reply-queue": f"string:{queue}", "property.JMSXGroupID": "string:group"})
    message = take(proton, queue)
    for name, (kind, value) in PROPERTIES.items():
        assert message.properties[name] == value and type(message.properties[name]) is PROTON_VALUES[kind], name
    assert (message.correlation_id, message.subject, message.priority) == (uuid.UUID(URN), "kind", 7)
    assert (message.reply_to, message.group_id, message.address) == (queue, "group", queue)
    assert f"string:{message.id}" == sent["header.id"]
    assert (message.annotations["x-opt-jms-dest"], message.annotations["x-opt-jms-reply-to"]) == (0, 0)


def test_properties_and_headers_from_proton(jms: Bridge, proton: BlockingConnection, queue: str) -> None:
    give(proton, queue, body="x", properties={name: in_proton(value) for name, value in PROPERTIES.items()},
         correlation_id=ulong(77), subject="kind", priority=7, reply_to=queue, group_id="group", id=uuid.UUID(URN))
    _, fields = jms.receive(queue)
    for name, value in PROPERTIES.items():
        assert fields[f"property.{name}"] == written(value)
    expected = {"header.correlation": "string:ID:AMQP_ULONG:77", "header.type": "string:kind",
                "header.priority": "integer:7", "header.reply-to": f"string:queue {queue}",
                "property.JMSXGroupID": "string:group", "header.id": f"string:ID:AMQP_UUID:{URN}"}
    assert {name: fields[name] for name in expected} == expected
