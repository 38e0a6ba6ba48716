"""`dragoman queue`, `exchange`, `binding`, `connection`, `stat` and `events` as processes, against a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import pika.exceptions
import pytest

from broker.security.users import PasswordFile
from dragoman import testing

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0


@pytest.fixture(scope="module")
def broker() -> Iterator[testing.Broker]:
    with testing.broker() as b:
        yield b


def start(broker: testing.Broker, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "dragoman", *arguments], cwd=ROOT, text=True,
                            env={**os.environ, "DRAGOMAN_URL": broker.url}, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def dragoman(broker: testing.Broker, *arguments: str, fails: str = "") -> str:
    """What the command prints; it fails with this text, or not at all."""
    process = start(broker, *arguments)
    out, err = process.communicate(timeout=WAIT)
    assert fails in err and (process.returncode == 0) is not bool(fails), err
    return out


def line(printed: str, name: str) -> list[str]:
    return next(each.split() for each in printed.splitlines() if each.startswith(name + " "))


def test_queues(broker: testing.Broker) -> None:
    dragoman(broker, "queue", "add", "lasting", "-a", "x-max-length=10", "-a", "x-overflow=reject-publish")
    dragoman(broker, "queue", "add", "passing", "--transient", "-a", "x-single-active-consumer:=true")
    dragoman(broker, "send", "lasting", "abc")
    printed = dragoman(broker, "queue", "list")
    assert line(printed, "lasting") == ["lasting", "yes", "1", "3", "0", "0", "1", "0", "x-max-length=10",
                                        "x-overflow=reject-publish"]
    assert line(printed, "passing")[:2] == ["passing", "no"]
    assert "amq.gen" not in printed  # where the answers come
    found = json.loads(dragoman(broker, "queue", "list", "--json"))
    assert {each["name"]: each["arguments"] for each in found}["passing"] == {"x-single-active-consumer": True}
    dragoman(broker, "queue", "delete", "lasting", "--if-empty", fails="not empty")
    dragoman(broker, "queue", "purge", "lasting")
    assert line(dragoman(broker, "queue", "list"), "lasting")[2] == "0"
    for name in ("lasting", "passing"):
        dragoman(broker, "queue", "delete", name, "--if-empty", "--if-unused")
    assert dragoman(broker, "queue", "list").count("\n") == 1


def test_mistakes_are_told_in_a_line(broker: testing.Broker) -> None:
    dragoman(broker, "queue", "delete", "nonsense", fails="no queue 'nonsense' in vhost '/'")
    dragoman(broker, "queue", "purge", "nonsense", fails=f"127.0.0.1:{broker.port}: there is no queue nonsense")
    dragoman(broker, "queue", "add", "q", "-a", f"x-max-length:={1 << 64}", fails=f"Error: {1 << 64} does not fit")
    dragoman(broker, "queue", "add", "", fails="Invalid value for 'NAME': it is empty")
    dragoman(broker, "queue", "copy", "a", "", fails="Invalid value for 'TARGET': it is empty")
    dragoman(broker, "binding", "add", "amq.topic", "", "a", fails="Invalid value for 'QUEUE': it is empty")
    for url in ("nonsense", "localhost:5672", "http://localhost", "amqp://", "amqp://127.0.0.1:99999"):
        dragoman(broker, "stat", "--url", url, fails="is not a broker's address, which is amqp://")
    dragoman(broker, "queue", "add", "q", "-a", "x-nonsense=1", fails="unrecognised properties: x-nonsense")
    dragoman(broker, "queue", "add", "q", "-a", "x-max-length:={", fails="is not JSON")
    dragoman(broker, "queue", "add", "q", "-a", "x-max-length", fails="it must be NAME=VALUE")
    dragoman(broker, "exchange", "add", "e", "nonsense", fails="invalid exchange type")
    dragoman(broker, "exchange", "delete", "amq.topic", fails="system exchange")
    dragoman(broker, "stat", "--url", "amqp://127.0.0.1:1", fails="cannot connect to 127.0.0.1:1")


def test_exchanges_and_bindings(broker: testing.Broker) -> None:
    dragoman(broker, "exchange", "add", "news", "headers", "--auto-delete")
    dragoman(broker, "queue", "add", "q")
    dragoman(broker, "binding", "add", "news", "q", "key", "-a", "x-match=any", "-a", "kind=1")
    assert line(dragoman(broker, "exchange", "list"), "news") == ["news", "headers", "yes", "1", "0", "0", "0"]
    assert set(line(dragoman(broker, "binding", "list"), "news")) == {"news", "q", "key", "kind=1", "x-match=any"}
    dragoman(broker, "exchange", "delete", "news", "--if-unused", fails="in use")
    dragoman(broker, "binding", "delete", "news", "q", "key")
    assert "news" not in dragoman(broker, "exchange", "list")
    dragoman(broker, "queue", "delete", "q")


def test_what_the_broker_has_done(broker: testing.Broker) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q")
        channel.basic_consume("q", lambda *_: None, consumer_tag="tag")
        channel.basic_publish("", "q", b"")
        connection.process_data_events(0)
        printed = dragoman(broker, "stat")
        assert printed.startswith("Dragoman ") and int(line(printed, "connections")[-1]) == 2
        printed = dragoman(broker, "stat", "connections")
        assert "guest  PLAIN" in printed and "dragoman command" in printed and "Pika Python" in printed
        found, = json.loads(dragoman(broker, "stat", "subscriptions", "--json"))
        assert (found["queue"], found["name"], found["delivered"]) == ("q", "tag", 1)
        channel.queue_delete("q")


def test_connections_are_closed(tmp_path: Path) -> None:
    users = PasswordFile(str(tmp_path / "users"))
    for name in ("shop", "till"):
        users.set(name, "secret", "SCRAM-SHA-256")
    users.save()
    with testing.broker(f'[authentication]\nusers_file = "{tmp_path}/users"') as running:
        def connect(name: str) -> pika.BlockingConnection:
            return pika.BlockingConnection(pika.ConnectionParameters(
                running.host, running.port, credentials=pika.PlainCredentials(name, "secret")))

        def closed(connection: pika.BlockingConnection) -> str:
            with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as told:
                connection.process_data_events(WAIT)
            return str(told.value)

        shop, till = [connect("shop") for _ in range(3)], connect("till")
        address = json.loads(dragoman(running, "stat", "connections", "--json"))[0]["address"]
        assert dragoman(running, "connection", "close", address) == f"closed {address}\n"
        assert closed(shop.pop(0)) == "(320, 'CONNECTION_FORCED - closed by management')"
        assert dragoman(running, "connection", "close", "--user", "shop").count("closed 127.0.0.1:") == 2
        for each in shop:
            assert "320" in closed(each)
        assert dragoman(running, "connection", "close", "--user", "guest") == ""  # its own connection stays
        dragoman(running, "connection", "close", address, fails=f"there is no connection {address}")
        dragoman(running, "connection", "close", fails="name either addresses or a --user")
        till.channel()
        till.close()


def test_use_of_limits() -> None:
    with testing.broker("[limits]\nconnections_per_user = 5\n[[limit]]\nvirtual_host = '/'\nqueues = 3") as limited, \
            pika.BlockingConnection(pika.URLParameters(limited.url)) as connection:
        connection.channel().queue_declare("q", exclusive=True)
        rows = json.loads(dragoman(limited, "stat", "limits", "--json"))
        assert {(row["measure"], row["subject"], row["used"], row["most"]) for row in rows} == {
            ("connections", "user 'guest'", 2, 5), ("queues", "vhost '/'", 2, 3)}  # one for the answers
        assert "user 'guest'" in dragoman(limited, "stat", "limits")


def test_events(broker: testing.Broker) -> None:
    process = start(broker, "events", "--count", "3", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "bind"  # its own: from now on it hears all
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().queue_declare("q", exclusive=True)
    out, err = process.communicate(timeout=WAIT)
    found = [json.loads(each) for each in out.splitlines()]
    assert [each["event"] for each in found] == ["clientConnect", "queueDeclare"], err
    assert (found[1]["qName"], found[1]["excl"], found[1]["user"], found[1]["disp"]) == ("q", True, "guest", "created")


def test_a_broker_without_an_agent() -> None:
    with testing.broker("[management]\nqmf = false") as broker:
        dragoman(broker, "queue", "list", fails="has no management agent")
