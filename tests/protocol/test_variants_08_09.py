"""AMQP 0-9 and 0-8, as clients that ask for them by their protocol header find them. All bytes are written out here.

RabbitMQ serves 0-9 as 0-9-1, and 0-8 with that version's own method numbers and shorter methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Connection

from tests.wire import (
    Channel,
    Client,
    Hangup,
    eventually,
    longstr,
    raw_frame,
    raw_header,
    raw_method,
    shortstr,
)

Name = Callable[..., str]
Dial = Callable[[], Client]

V08 = b"AMQP\x01\x01\x08\x00"
V09 = b"AMQP\x01\x01\x00\x09"


class Old:
    """A connection of one of the old versions, with channel 1 open, that writes and reads bytes."""

    def __init__(self, client: Client, header: bytes) -> None:
        self.client = client
        self.is08 = header == V08
        client.write(header)
        start = client.expect(Connection.Start)
        assert (start.version_major, start.version_minor) == ((8, 0) if self.is08 else (0, 9))
        assert "PLAIN" in start.mechanisms.split(" ")
        client.send(0, Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
        client.expect(Connection.Tune)
        client.send(0, Connection.TuneOk(2047, 131072, 0))
        client.write(raw_method(0, 10, 40, shortstr("/") + shortstr("") + b"\x01"))  # 0-8's "insist" is set
        assert client.read_raw() == raw_method(0, 10, 41, shortstr(""))
        self.open()

    def open(self) -> None:
        self.send(20, 10, shortstr(""))
        self.expect(20, 11, b"" if self.is08 else longstr(b""))

    def send(self, class_id: int, method_id: int, arguments: bytes = b"") -> None:
        self.client.write(raw_method(1, class_id, method_id, arguments))

    def expect(self, class_id: int, method_id: int, arguments: bytes = b"") -> None:
        assert self.client.read_raw() == raw_method(1, class_id, method_id, arguments)

    def call(self, class_id: int, method_id: int, arguments: bytes, answer: bytes = b"") -> None:
        """Send a method, and expect its answer, which is the next number."""
        self.send(class_id, method_id, arguments)
        self.expect(class_id, method_id + 1, answer)

    def queue(self, queue: str) -> None:
        self.call(50, 10, b"\0\x01" + shortstr(queue) + b"\0" + longstr(b""), shortstr(queue) + bytes(8))

    def publish(self, exchange: str, routing_key: str, body: bytes, mandatory: bool = False) -> None:
        self.client.write(raw_method(1, 60, 40, b"\0\x01" + shortstr(exchange) + shortstr(routing_key)
                                     + bytes([mandatory]))
                          + raw_header(1, len(body)) + raw_frame(3, 1, body))

    def content(self, body: bytes) -> None:
        assert self.client.read_raw() == raw_header(1, len(body))
        assert self.client.read_raw() == raw_frame(3, 1, body)

    def get(self, queue: str) -> bytes | None:
        """The arguments of get-ok up to the message count, None for get-empty."""
        self.send(60, 70, b"\0\x01" + shortstr(queue) + b"\x01")
        raw = self.client.read_raw()
        if raw == raw_method(1, 60, 72, shortstr("")):
            return None
        assert raw[7:11] == b"\x00\x3c\x00\x47"
        return raw[11:-1]

    def consume(self, queue: str, tag: str) -> None:
        arguments = b"\0\x01" + shortstr(queue) + shortstr(tag) + b"\0"
        self.call(60, 20, arguments if self.is08 else arguments + longstr(b""), shortstr(tag))


@pytest.fixture(params=[V08, V09], ids=["0-8", "0-9"])
def old(request: pytest.FixtureRequest, dial: Dial) -> Old:
    return Old(dial(), request.param)


@pytest.fixture
def v08(dial: Dial) -> Old:
    return Old(dial(), V08)


@pytest.fixture
def v09(dial: Dial) -> Old:
    return Old(dial(), V09)


def test_capabilities(dial: Dial) -> None:
    """0-8 knows none of the extensions; 0-9 is told of all that 0-9-1 has."""
    found: list[Any] = []
    for header in (V08, V09):
        client = dial()
        client.write(header)
        start: Any = client.expect(Connection.Start)
        found.append(start.server_properties["capabilities"])
    assert found[0] == {} and found[1]["publisher_confirms"] is True


def test_access_request(old: Old) -> None:
    old.call(30, 10, shortstr("/data") + b"\x1c", b"\x00\x01")


def test_publish_and_get(old: Old, name: Name) -> None:
    queue, exchange = name(), name("x")
    old.call(40, 10, b"\0\x01" + shortstr(exchange) + shortstr("topic") + b"\0" + longstr(b""))
    old.queue(queue)
    old.call(50, 20, b"\0\x01" + shortstr(queue) + shortstr(exchange) + shortstr("a.*") + b"\0" + longstr(b""))
    old.publish(exchange, "a.b", b"body")
    got = eventually(lambda: old.get(queue))
    assert got == bytes(7) + b"\x01\x00" + shortstr(exchange) + shortstr("a.b") + bytes(4)
    old.content(b"body")
    old.call(40, 20, b"\0\x01" + shortstr(exchange) + b"\0")
    old.call(50, 40, b"\0\x01" + shortstr(queue) + b"\0", bytes(4))


def test_consume(old: Old, name: Name) -> None:
    queue = name()
    old.queue(queue)
    old.call(60, 10, bytes(4) + b"\x00\x01" + b"\0")
    old.consume(queue, "tag")
    for number in (1, 2):
        old.publish("", queue, b"%d" % number)
        old.expect(60, 60, shortstr("tag") + bytes(7) + bytes([number]) + b"\0" + shortstr("") + shortstr(queue))
        old.content(b"%d" % number)
        old.send(60, 80, bytes(7) + bytes([number]) + b"\0")
    old.call(60, 30, shortstr("tag") + b"\0", shortstr("tag"))
    old.call(50, 30, b"\0\x01" + shortstr(queue) + b"\0", bytes(4))


def test_recover_has_no_answer(old: Old, name: Name) -> None:
    """Method 60,100: in 0-8 and 0-9 called basic.recover, in 0-9-1 recover-async."""
    queue = name()
    old.queue(queue)
    old.consume(queue, "tag")
    old.publish("", queue, b"x")
    for number in (1, 2):
        old.expect(60, 60, shortstr("tag") + bytes(7) + bytes([number, number == 2]) + shortstr("") + shortstr(queue))
        old.content(b"x")
        if number == 1:
            old.send(60, 100, b"\x01")
    old.call(60, 30, shortstr("tag") + b"\0", shortstr("tag"))


def test_mandatory(old: Old) -> None:
    old.publish("", "wire-no-such-queue", b"x", mandatory=True)
    old.expect(60, 50, b"\x01\x38" + shortstr("NO_ROUTE") + shortstr("") + shortstr("wire-no-such-queue"))
    old.content(b"x")


def test_transaction(old: Old, name: Name) -> None:
    queue = name()
    old.queue(queue)
    old.call(90, 10, b"")
    old.publish("", queue, b"rolled back")
    old.call(90, 30, b"")
    old.publish("", queue, b"x")
    old.call(90, 20, b"")
    assert eventually(lambda: old.get(queue))
    old.content(b"x")


def test_flow(old: Old) -> None:
    old.call(20, 20, b"\x01", b"\x01")


def test_channel_close(old: Old) -> None:
    old.send(50, 30, b"\0\x01" + shortstr("wire-no-such-queue") + b"\0")
    old.expect(20, 40, b"\x01\x94" + shortstr("NOT_FOUND - no queue 'wire-no-such-queue' in vhost '/'")
               + b"\0\x32\0\x1e")
    old.send(20, 41)
    old.open()
    old.call(20, 40, b"\x00\xc8" + shortstr("bye") + bytes(4))


def test_connection_close(old: Old) -> None:
    """Its method numbers are 60 and 61 in 0-8, 50 and 51 since."""
    number = 60 if old.is08 else 50
    old.client.write(raw_method(0, 10, number, b"\x00\xc8" + shortstr("bye") + bytes(4)))
    assert old.client.read_raw() == raw_method(0, 10, number + 1)


def test_connection_closed_by_the_broker(old: Old) -> None:
    number = 60 if old.is08 else 50
    old.client.write(raw_method(2, 60, 10, bytes(7)))
    assert old.client.read_raw() == raw_method(
        0, 10, number, b"\x01\xf8" + shortstr("CHANNEL_ERROR - expected 'channel.open'") + b"\0\x3c\0\x0a")
    old.client.write(raw_method(0, 10, number + 1))
    assert old.client.rest() == b""


def test_unknown_virtual_host(dial: Dial) -> None:
    for header, number in ((V08, 60), (V09, 50)):
        client = dial()
        client.write(header)
        client.expect(Connection.Start)
        client.send(0, Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
        client.expect(Connection.Tune)
        client.send(0, Connection.TuneOk(2047, 131072, 0), Connection.Open("wire-no-such-host"))
        assert client.read_raw() == raw_method(
            0, 10, number, b"\x02\x12" + shortstr("NOT_ALLOWED - vhost wire-no-such-host not found") + b"\0\x0a\0\x28")


def test_08_consume_may_have_arguments_as_qpid_has_them(v08: Old, name: Name) -> None:
    queue = name()
    v08.queue(queue)
    arguments = b"\0\x01" + shortstr(queue) + shortstr("tag") + b"\0" + longstr(shortstr("x-priority") + b"I\0\0\0\1")
    v08.call(60, 20, arguments, shortstr("tag"))


def test_08_consume_has_nothing_after_its_arguments(v08: Old, name: Name) -> None:
    queue = name()
    v08.queue(queue)
    arguments = b"\0\x01" + shortstr(queue) + shortstr("tag") + b"\0" + longstr(b"") + b"\0"
    v08.send(60, 20, arguments)
    answer = v08.client.read_raw()
    assert answer[:3] == b"\x01\x00\x00" and answer[7:13] == b"\x00\x0a\x00\x3c\x01\xf5" and b"FRAME_ERROR - " in answer


def test_08_has_no_confirms(v08: Old) -> None:
    v08.send(85, 10, b"\0")
    with pytest.raises(Hangup):  # or the close of that version
        assert v08.client.read_raw()[7:11] == b"\x00\x0a\x00\x3c"
        v08.client.write(raw_method(0, 10, 61))
        v08.client.read_raw()


def test_09_has_the_extensions(v09: Old, name: Name) -> None:
    queue = name()
    v09.queue(queue)
    v09.call(85, 10, b"\0")
    v09.publish("", queue, b"x")
    v09.expect(60, 80, bytes(7) + b"\x01\0")
    v09.call(50, 50, b"\0\x01" + shortstr(queue) + shortstr("amq.direct") + shortstr("k") + longstr(b""))
    v09.call(60, 110, b"\x01")


def test_versions_meet(old: Old, name: Name, ch: Channel) -> None:
    """What one version publishes, another takes."""
    queue = name()
    old.queue(queue)
    old.publish("", queue, b"from the past")
    assert ch.wait_get(queue).body == b"from the past"
    ch.put("", queue, b"from the future")
    assert eventually(lambda: old.get(queue))
    old.content(b"from the future")
