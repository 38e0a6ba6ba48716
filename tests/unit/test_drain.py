"""`dragoman gateway drain` from one Dragoman to another, which stands in for qpidd (QMF) and for RabbitMQ (names)."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from broker.message import AMQP091, Message, address_of
from broker.outcome import ACCEPT, RELEASE, Outcome
from dragoman import testing
from interop.drain import Drained, drain
from interop.ends import ANY, REFUSED, Arrived, Delivery, Done, From, Remote, Source, Target, To

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0
PERSISTENT = pika.BasicProperties(delivery_mode=2, headers={"a": [1, {"b": "c"}]}, message_id="m")


@pytest.fixture
def old(tmp_path: Path) -> Iterator[testing.Broker]:
    with testing.broker() as broker:
        yield broker


@pytest.fixture
def new(tmp_path: Path) -> Iterator[testing.Broker]:
    with testing.broker(store=tmp_path / "new") as broker:
        yield broker


@pytest.fixture
def channel_of(old: testing.Broker, new: testing.Broker) -> Iterator[Callable[[testing.Broker], Any]]:
    """Opens channels, which are closed before the brokers are."""
    connections = []

    def opened(broker: testing.Broker) -> Any:
        connections.append(pika.BlockingConnection(pika.URLParameters(broker.url)))
        channel = connections[-1].channel()
        channel.confirm_delivery()
        return channel
    yield opened
    for connection in connections:
        with contextlib.suppress(pika.exceptions.AMQPError):
            connection.close()


def start(old: testing.Broker, new: testing.Broker, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "dragoman", "gateway", "drain", old.url, "--into", new.url,
                             "--idle", "0.2", *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def drained(old: testing.Broker, new: testing.Broker, *arguments: str, code: int = 0) -> str:
    process = start(old, new, *arguments)
    printed, _ = process.communicate(timeout=WAIT)
    assert process.returncode == code and "Traceback" not in printed, printed
    return printed


def fill(channel: Any, queue: str, count: int) -> None:
    channel.queue_declare(queue, durable=True)
    for number in range(count):
        channel.basic_publish("", queue, b"%d" % number, PERSISTENT)


def bodies(channel: Any, queue: str) -> list[bytes]:
    found = []
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return found
        assert (properties.headers, properties.message_id) == (PERSISTENT.headers, "m")
        found.append(body)


def count(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


@pytest.mark.parametrize("dialect", ["auto", "0-9-1", "1.0"])
def test_topology_and_messages(old: testing.Broker, new: testing.Broker, channel_of: Any, dialect: str) -> None:
    source, target = channel_of(old), channel_of(new)
    fill(source, "orders", 300)
    fill(source, "empty", 0)
    source.exchange_declare("events", "topic", durable=True)
    source.queue_bind("orders", "events", "order.#")
    names = [] if dialect == "auto" else ["--queue", "orders", "--queue", "empty", "--dialect", dialect]
    printed = drained(old, new, *names)
    assert "orders: 300 messages moved\n" in printed and "empty: 0 messages moved\n" in printed
    assert "moved 300 messages, " in printed and (dialect == "1.0" or ", 790 bytes, of 2 queues" in printed)
    assert count(source, "orders") == 0
    if dialect == "auto":
        assert "1 exchanges, 2 queues, 1 bindings" in printed
        target.basic_publish("events", "order.new", b"300", PERSISTENT)
        target.queue_declare("orders", durable=True)
    assert bodies(target, "orders") == [b"%d" % number for number in range(300 + (dialect == "auto"))]  # in order
    assert "orders: 0 messages moved" in drained(old, new, *names)  # once more does nothing


def test_killed_and_run_again(old: testing.Broker, new: testing.Broker, channel_of: Any) -> None:
    """Killed at any moment, nothing is lost; what may be here twice is no more than was on its way, and is told."""
    source, target = channel_of(old), channel_of(new)
    fill(source, "orders", 3000)
    for _ in range(2):
        before = count(source, "orders")
        process = start(old, new, "--prefetch", "50")
        while before - count(source, "orders") < 300 and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
    printed = drained(old, new, "--prefetch", "50")
    assert count(source, "orders") == 0
    found = bodies(target, "orders")
    assert {int(body) for body in found} == set(range(3000))
    assert len(found) <= 3000 + 2 * 50
    twice = len(found) - 3000
    assert not twice or "had been taken before, and may be here twice" in printed


def test_interrupted_it_leaves_no_message_twice(old: testing.Broker, new: testing.Broker, channel_of: Any) -> None:
    source, target = channel_of(old), channel_of(new)
    fill(source, "orders", 3000)
    process = start(old, new)
    while count(source, "orders") == 3000 and process.poll() is None:
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT)
    drained(old, new)
    assert sorted(map(int, bodies(target, "orders"))) == list(range(3000))


class FakeSource(Source):
    """Gives some numbers as messages."""

    dialect = ANY

    def __init__(self, count: int) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self.count = count
        self.settled: list[tuple[int, Outcome]] = []

    def start(self, arrived: Arrived) -> None:
        for number in range(self.count):
            message = Message(address_of("", "q"), AMQP091, b"", None, number, True, 4, 0, 0)
            arrived(Delivery(message, number == 0, number))

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self.settled.append((delivery.handle, outcome))

    async def close(self) -> None:
        pass


class FakeTarget(Target):
    """Refuses message 3 for good."""

    dialect = ANY

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def send(self, message: Message, done: Done) -> None:
        asyncio.get_running_loop().call_soon(done, *("too large", REFUSED) if message.size == 3 else ())

    async def close(self) -> None:
        pass


class FakeRemote(Remote):
    def __init__(self, end: Any) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self.end = end

    async def source(self, taken: From) -> Source:
        return self.end

    async def target(self, sent: To) -> Target:
        return self.end


def test_what_is_refused_here_stays_there() -> None:
    async def draining() -> None:
        async def left() -> tuple[int, int]:
            return 0, 0
        source, drained = FakeSource(5), Drained()
        told: list[int] = []
        await drain(FakeRemote(source), FakeRemote(FakeTarget()), "q", drained, left,
                    lambda: told.append(drained.moved))
        assert drained == Drained(4, 1, 0 + 1 + 2 + 4, 0, "too large") and told[-1] == 4
        assert dict(source.settled) == {0: ACCEPT, 1: ACCEPT, 2: ACCEPT, 3: RELEASE, 4: ACCEPT}
    asyncio.run(draining())


def test_messages_that_others_have(old: testing.Broker, new: testing.Broker, channel_of: Any) -> None:
    source = channel_of(old)
    fill(source, "orders", 3)
    source.basic_get("orders")
    assert "orders: 2 messages moved; 1 are left, in the hands of other consumers" in drained(
        old, new, "--patience", "0", code=3)


def test_definitions_and_what_is_different(old: testing.Broker, new: testing.Broker, channel_of: Any,
                                           tmp_path: Path) -> None:
    """As from a RabbitMQ: its definitions from a file, or from its management."""
    source, target = channel_of(old), channel_of(new)
    fill(source, "orders", 2)
    fill(source, "more", 2)
    target.queue_declare("more", durable=True, arguments={"x-max-length": 5})
    definitions = {"queues": [{"name": name, "vhost": "/", "durable": True, "arguments": {}, "type": kind}
                              for name, kind in (("orders", "classic"), ("more", "classic"), ("log", "stream"))]}
    file = tmp_path / "definitions.json"
    file.write_text(json.dumps(definitions))
    printed = drained(old, new, "--definitions", str(file), code=3)
    assert "left out: queue more: PRECONDITION_FAILED" in printed and "left out: queue log: it is a stream" in printed
    assert "orders: 2 messages moved" in printed and "more: 2 messages moved" in printed  # it is here, after all
    source.basic_publish("", "orders", b"x", PERSISTENT)
    with management(definitions) as api:
        assert "orders: 1 messages moved" in drained(old, new, "--api", api, "--queue", "orders")


class management:
    """A stand-in for RabbitMQ's management, which has definitions for guest."""

    def __init__(self, definitions: Any) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                guest = self.headers["Authorization"] == "Basic Z3Vlc3Q6Z3Vlc3Q="
                self.send_response(200 if guest and self.path == "/api/definitions/%2F" else 401)
                self.end_headers()
                self.wfile.write(json.dumps(definitions).encode())

            def log_message(self, *arguments: object) -> None:
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_errors_are_one_line(old: testing.Broker, new: testing.Broker, channel_of: Any) -> None:
    printed = drained(old, new, "--queue", "none", code=1)
    assert len(printed.splitlines()) == 1 and "has no queue none" in printed
    assert "it must begin with amqp://" in drained(old, new, "--into", "http://x", code=2)
    for same in (old.url, old.url.replace("127.0.0.1", "localhost"), f"amqp://other:x@127.0.0.1:{old.port}/%2F"):
        printed = drained(old, new, "--into", same, code=2)
        assert f"amqp://guest@127.0.0.1:{old.port}/ would be drained into itself" in " ".join(printed.split())
        assert "guest:guest" not in printed
    old.stop()
    printed = drained(old, new, code=1)
    assert printed.startswith("Error: ") and "guest:guest" not in printed and "--queue" in printed
    assert os.path.exists(new.config_path)
