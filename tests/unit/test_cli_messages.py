"""`dragoman send` and `dragoman receive` as processes, against a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from dragoman import testing

ROOT = Path(__file__).resolve().parents[2]
WAIT = 90.0


@pytest.fixture(scope="module")
def broker() -> Iterator[testing.Broker]:
    with testing.broker("[limits]\nmessage_size = 100000") as b:
        yield b


@pytest.fixture
def queue(broker: testing.Broker, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a durable queue that exists, and is empty; it goes with the test, and its bindings with it."""
    name = str(request.node.name)
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().queue_declare(name, durable=True)
    yield name
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().queue_delete(name)


def dragoman(*arguments: str, input: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "dragoman", *arguments], input=input, capture_output=True, cwd=ROOT,
                          timeout=WAIT, env={**os.environ, **env})


def taken(broker: testing.Broker, queue: str) -> list[tuple[Any, Any, bytes]]:
    """All messages of a queue, taken out."""
    found = []
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(message)
    return found


def bodies(broker: testing.Broker, queue: str) -> list[bytes]:
    return [body for _, _, body in taken(broker, queue)]


def put(broker: testing.Broker, queue: str, *contents: bytes, **properties: Any) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for content in contents:
            channel.basic_publish("", queue, content, pika.BasicProperties(**properties))


def test_send_sends_each_body(broker: testing.Broker, queue: str) -> None:
    done = dragoman("send", broker.url, queue, "one", "zwölf")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.startswith(b"sent 2 messages in ") and done.stderr.endswith(b"confirmed\n")
    assert bodies(broker, queue) == [b"one", "zwölf".encode()]


def test_send_to_the_broker_of_the_environment(broker: testing.Broker, queue: str) -> None:
    assert dragoman("send", queue, "one", DRAGOMAN_URL=broker.url).returncode == 0
    assert bodies(broker, queue) == [b"one"]


def test_send_goes_round_the_bodies(broker: testing.Broker, queue: str) -> None:
    assert dragoman("send", broker.url, queue, "a", "b", "--count", "5").returncode == 0
    assert bodies(broker, queue) == [b"a", b"b", b"a", b"b", b"a"]


def test_send_takes_bodies_from_elsewhere(broker: testing.Broker, queue: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\0file\n")
    assert dragoman("send", broker.url, queue, "--file", str(tmp_path / "body")).returncode == 0
    assert dragoman("send", broker.url, queue, "--size", "17").returncode == 0
    assert dragoman("send", broker.url, queue, input=b"one\ntwo\n").returncode == 0
    assert dragoman("send", broker.url, queue, "-n", "0", input=b"one\r\n\ntwo").returncode == 0
    assert bodies(broker, queue) == [b"\0file\n", b"0123456789abcdef0", b"one\ntwo\n", b"one", b"", b"two"]


@pytest.mark.parametrize("how", ["--confirm", "--no-confirm"])
def test_send_many(broker: testing.Broker, queue: str, how: str) -> None:
    assert dragoman("send", broker.url, queue, how, "-n", "5000", "--size", "8", "--transient", "-q").stderr == b""
    assert len(taken(broker, queue)) == 5000


def test_send_properties(broker: testing.Broker, queue: str) -> None:
    done = dragoman("send", broker.url, queue, "x", "-p", "message-id=m=1", "-p", "priority=7", "-p", "timestamp=5",
                    "--content-type", "text/plain", "-H", "a=1", "-H", 'b:=[1,2.5,{"c":null}]', "-H", "empty=")
    assert done.returncode == 0
    assert dragoman("send", broker.url, queue, "x", "--transient").returncode == 0
    (_, first, _), (_, second, _) = taken(broker, queue)
    assert (first.message_id, first.priority, first.timestamp, first.content_type) == ("m=1", 7, 5, "text/plain")
    assert first.headers == {"a": "1", "b": [1, pytest.approx(2.5), {"c": None}], "empty": ""} or \
        str(first.headers["b"][1]) == "2.5"
    assert (first.delivery_mode, second.delivery_mode, second.headers) == (2, 1, None)


def test_addresses(broker: testing.Broker, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.exchange_declare("a/b", "topic")
        channel.queue_bind(queue, "a/b", "c/d.e")
        channel.queue_bind(queue, "amq.fanout")
        channel.queue_declare("q/with/slashes", auto_delete=True)
        channel.queue_bind(queue, "amq.direct", "q/with/slashes")
        assert dragoman("send", broker.url, "a/b/c/d.e", "key").returncode == 0
        assert dragoman("send", broker.url, "amq.fanout", "fanout").returncode == 0
        assert dragoman("send", broker.url, "amq.direct/q/with/slashes", "direct").returncode == 0
        assert dragoman("send", broker.url, "q/with/slashes", "queue").returncode == 0
        assert channel.queue_declare("q/with/slashes", auto_delete=True, passive=True).method.message_count == 1
        channel.queue_delete("q/with/slashes")
        channel.exchange_delete("a/b")
    assert bodies(broker, queue) == [b"key", b"fanout", b"direct"]


def test_declare_makes_a_durable_queue_once(broker: testing.Broker) -> None:
    assert dragoman("send", broker.url, "made-by-send", "x", "--declare").returncode == 0
    assert dragoman("send", broker.url, "made-by-send", "y", "--declare").returncode == 0
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        assert connection.channel().queue_declare("made-by-send", durable=True).method.message_count == 2
    done = dragoman("receive", broker.url, "made-by-receive", "--declare", "-t", "0.1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"received 0 messages, 0 bytes\n")
    assert bodies(broker, "made-by-receive") == []


def test_send_says_what_was_not_taken(broker: testing.Broker) -> None:
    done = dragoman("send", broker.url, "amq.direct/nobody", "x", "y")
    assert done.returncode == 1
    assert b"2 came back: 312 NO_ROUTE (no queue takes them)\n" in done.stderr
    assert dragoman("send", broker.url, "amq.direct/nobody", "x", "--optional").returncode == 0


def test_send_says_what_was_refused(broker: testing.Broker) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().queue_declare("full", exclusive=True, arguments={"x-max-length": 1,
                                                                              "x-overflow": "reject-publish"})
        done = dragoman("send", broker.url, "full", "a", "b", "c")
    assert (done.returncode, b"2 were refused by the broker\n" in done.stderr) == (1, True)


def test_a_broker_that_closes_the_channel(broker: testing.Broker, queue: str) -> None:
    done = dragoman("send", broker.url, queue, "--size", "200000")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b": the broker says " in done.stderr and b"of 1 messages sent, 1 are not confirmed" in done.stderr


def test_errors_of_connecting_are_one_line(broker: testing.Broker) -> None:
    at = f"127.0.0.1:{broker.port}"
    for url, expected in [
            (f"amqp://guest:wrong@{at}/", f"Error: {at}: the broker refuses the user name or password\n"),
            (f"amqp://{at}/none", f"Error: {at}: the broker refuses access to virtual host none\n"),
            ("amqp://127.0.0.1:1/", "Error: cannot connect to 127.0.0.1:1: Connection refused\n")]:
        for command in ("send", "receive"):
            done = dragoman(command, url, "q")
            assert (done.returncode, done.stderr.decode()) == (1, expected)
    done = dragoman("receive", broker.url, "none")
    assert done.returncode == 1
    assert done.stderr.decode() == f"Error: {at} has no queue and no exchange none; --declare makes the queue\n"
    for address, said in (("a" * 256, f"Error: {'a' * 20}... is too long: names in AMQP have at most 255 bytes\n"),
                          (b"\xff", "Error: '\\udcff' is not text in UTF-8, which names in AMQP are\n"),
                          ("", "Error: the address is empty: it is the name of a queue or of an exchange\n")):
        done = dragoman("send", "--declare", broker.url, os.fsdecode(address), "x")
        assert (done.returncode, done.stderr.decode()) == (1, said)
    done = dragoman("send", broker.url, "amq.topic/" + "a" * 256, "x")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1) and b"is too long" in done.stderr
    done = dragoman("send", broker.url, "q", "--size", str(1 << 62))
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1) and b"not enough memory" in done.stderr


@pytest.mark.parametrize(("arguments", "expected"), [
    (["send"], "Missing argument"),
    (["send", "amqp://127.0.0.1/"], "Missing argument 'ADDRESS' behind the URL"),
    (["send", "amqp://127.0.0.1:x/", "q", "b"], "is not a broker's address"),
    (["send", "amqp://shop@127.0.0.1/", "q", "b"], "amqp://shop@127.0.0.1/: names a user and no password"),
    (["send", "q", "b", "--size", "1"], "exclude each other"),
    (["send", "q", "b", "-n", "0"], "reads the bodies from standard input"),
    (["send", "q", "b", "-p", "colour=red"], "it must be NAME=VALUE with a name of content_encoding,"),
    (["send", "q", "b", "-p", "priority=x"], "priority is a whole number"),
    (["send", "q", "b", "-p", "priority=256"], "a priority is at most 255"),
    (["send", "q", "b", "-H", "a"], "it must be NAME=VALUE, or NAME:=JSON"),
    (["send", "q", "b", "-H", "a:=x"], "is not JSON"),
    (["send", "q", "b", "-H", "a:=1e999"], "AMQP has no place for that"),
    (["send", "q", "b", "--ca", "f"], "--ca, --cert and --key are for amqps:// addresses"),
    (["receive", "q", "more"], "unexpected 'more' behind the address"),
    (["receive", "q", "--format", "xml"], "'xml' is not one of"),
])
def test_wrong_command_lines(arguments: list[str], expected: str) -> None:
    done = dragoman(*arguments)
    assert done.returncode == 2
    assert expected in " ".join(done.stderr.decode().split())
    assert b"Traceback" not in done.stderr


def test_receive_formats(broker: testing.Broker, queue: str) -> None:
    contents = [b"text", "zwölf\n".encode(), b"\xff\0"]
    expected = {"text": "text\nzwölf\n\n\\xff\0\n".encode(), "raw": b"".join(contents), "none": b""}
    for form, printed in expected.items():
        put(broker, queue, *contents)
        done = dragoman("receive", broker.url, queue, "-n", "3", "--format", form)
        assert (done.returncode, done.stdout) == (0, printed)
        assert done.stderr.startswith(b"received 3 messages, 13 bytes in ")
    assert taken(broker, queue) == []


def test_receive_json(broker: testing.Broker, queue: str) -> None:
    put(broker, queue, b"text", content_type="text/plain", headers={"a": {"b": [1, None, "c"]}}, timestamp=5)
    put(broker, queue, b"\xff")
    done = dragoman("receive", broker.url, queue, "-n", "2", "--format", "json", "-q")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first == {"exchange": "", "routing_key": queue, "redelivered": False, "content_type": "text/plain",
                     "timestamp": 5, "headers": {"a": {"b": [1, None, "c"]}}, "body": "text"}
    assert (second["body"], second["body_encoding"]) == ("/w==", "base64")
    assert done.stderr == b""


@pytest.mark.parametrize("prefetch", ["1", "7", "200"])
def test_receive_takes_no_more_than_asked(broker: testing.Broker, queue: str, prefetch: str) -> None:
    put(broker, queue, *(str(number).encode() for number in range(50)))
    done = dragoman("receive", broker.url, queue, "-n", "20", "--prefetch", prefetch)
    assert done.stdout.split() == [str(number).encode() for number in range(20)]
    left = taken(broker, queue)
    assert [body for _, _, body in left] == [str(number).encode() for number in range(20, 50)]
    assert not any(method.redelivered for method, _, _ in left)


def test_receive_stops_when_nothing_comes(broker: testing.Broker, queue: str) -> None:
    put(broker, queue, b"a", b"b")
    done = dragoman("receive", broker.url, queue, "-n", "3", "-t", "0.2")
    assert (done.returncode, done.stdout) == (3, b"a\nb\n")
    assert taken(broker, queue) == []


def test_receive_without_acknowledging(broker: testing.Broker, queue: str) -> None:
    put(broker, queue, b"a", b"b")
    assert dragoman("receive", broker.url, queue, "-t", "0.2", "--no-ack").stdout == b"a\nb\n"
    assert taken(broker, queue) == []


@pytest.mark.parametrize(("address", "key"), [("amq.topic/weather.*", "weather.fell"), ("amq.fanout", "any")])
def test_receive_from_an_exchange(broker: testing.Broker, address: str, key: str) -> None:
    with subprocess.Popen([sys.executable, "-m", "dragoman", "receive", broker.url, address, "-n", "1"], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as receiver, \
            pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        returned: list[bytes] = []
        channel.add_on_return_callback(lambda _channel, _method, _properties, body: returned.append(body))
        channel.confirm_delivery()
        exchange = address.partition("/")[0]
        while True:  # until its binding is there
            try:
                channel.basic_publish(exchange, key, b"snow", mandatory=True)
                break
            except pika.exceptions.UnroutableError:
                assert receiver.poll() is None
        out, _ = receiver.communicate(timeout=WAIT)
    assert (receiver.returncode, out) == (0, b"snow\n")


def test_ctrl_c_ends_a_receive_and_what_it_printed_is_gone(broker: testing.Broker, queue: str) -> None:
    put(broker, queue, b"a")
    with subprocess.Popen([sys.executable, "-m", "dragoman", "receive", broker.url, queue], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == b"a\n"
        receiver.send_signal(signal.SIGINT)
        _, err = receiver.communicate(timeout=WAIT)
    assert (receiver.returncode, err) == (130, b"received 1 message, 1 bytes\n")
    assert taken(broker, queue) == []


def test_what_nobody_reads_stays_in_the_queue(broker: testing.Broker, queue: str) -> None:
    put(broker, queue, *[b"x" * 1000] * 200)
    with subprocess.Popen([sys.executable, "-m", "dragoman", "receive", broker.url, queue], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None and receiver.stderr is not None
        receiver.stdout.read(1)
        receiver.stdout.close()
        err = receiver.stderr.read()
    assert receiver.returncode == 1
    assert b"Traceback" not in err
    assert len(taken(broker, queue)) > 0


def test_a_broker_that_goes(broker: testing.Broker) -> None:
    with testing.broker() as other:
        with subprocess.Popen([sys.executable, "-m", "dragoman", "receive", other.url, "q", "--declare"], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as receiver:
            assert receiver.stdout is not None
            with pika.BlockingConnection(pika.URLParameters(other.url)) as connection:
                connection.channel().queue_declare("q", durable=True)
            put(other, "q", b"a")
            assert receiver.stdout.readline() == b"a\n"
            other.stop()
            _, err = receiver.communicate(timeout=WAIT)
    assert receiver.returncode == 1
    assert err.startswith(b"received 1 message") and b"Error: 127.0.0.1" in err and err.count(b"\n") == 2
