"""Qpid's kinds of queues through other people's clients: last values, sorted, levels of priority, browsing only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from proton import Message, Timeout
from proton.reactor import Copy, Selector
from proton.utils import BlockingConnection

from tests.conformance.conftest import Phoenix
from tests.conformance.pika_tools import bodies, get, parameters, refused
from tests.conformance.support import DEADLINE, Names, Target

PERSISTENT = 2


@pytest.fixture(autouse=True)
def ours(target: Target) -> None:
    if target.peer:
        pytest.skip("the peer has no such queues")


@pytest.fixture
def declare(channel: BlockingChannel, names: Names) -> Callable[..., str]:
    def declared(arguments: dict[str, Any]) -> str:
        name = names.queue()
        channel.queue_declare(name, arguments=arguments)
        return name

    return declared


@pytest.fixture
def client(target: Target) -> Iterator[BlockingConnection]:
    connection = BlockingConnection(target.url, timeout=DEADLINE)
    yield connection
    connection.close()


def arrived(channel: BlockingChannel, queue: str) -> None:
    """What was published is in the queue."""
    channel.queue_declare(queue, passive=True)


def received(receiver: Any) -> list[str]:
    """All that comes. (What is there already.)"""
    found: list[str] = []
    try:
        while True:
            found.append(receiver.receive(timeout=0.3).body)
    except Timeout:
        return found


def publish(channel: BlockingChannel, queue: str, body: str, headers: dict[str, Any] | None = None,
            priority: int | None = None) -> None:
    channel.basic_publish("", queue, body.encode(), pika.BasicProperties(
        content_type="text/plain", headers=headers, priority=priority, delivery_mode=PERSISTENT))


def consume(channel: BlockingChannel, queue: str, count: int, **options: Any) -> list[str]:
    """So many messages of a new consumer, which is gone then."""
    found: list[str] = []

    def take(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        found.append(body.decode())
        if not options.get("auto_ack"):
            channel.basic_ack(method.delivery_tag)

    tag = channel.basic_consume(queue, take, **options)
    end = time.monotonic() + DEADLINE
    while len(found) < count and time.monotonic() < end:
        channel.connection.process_data_events(0.1)
    channel.connection.process_data_events(0)
    channel.basic_cancel(tag)
    return found


@pytest.mark.parametrize("arguments, key", [
    ({"qpid.last_value_queue_key": "symbol"}, "symbol"), ({"qpid.last_value_queue": 1}, "qpid.LVQ_key"),
    ({"qpid.last_value_queue_no_browse": 1}, "qpid.LVQ_key")])
def test_last_values_are_browsed(client: BlockingConnection, channel: BlockingChannel, declare: Callable[..., str],
                                 arguments: dict[str, Any], key: str) -> None:
    """A browser sees the current value of each key, and then each new one; pika writes, Proton reads and writes."""
    queue = declare(arguments)
    for value in ("a1", "b1", "a2", "c1", "b2"):
        publish(channel, queue, value, {key: value[0]})
    publish(channel, queue, "without")
    arrived(channel, queue)
    browser = client.create_receiver(queue, options=Copy(), credit=100)
    assert received(browser) == ["a2", "c1", "b2", "without"]
    publish(channel, queue, "c2", {key: "c"})
    client.create_sender(queue).send(Message(body="a3", properties={key: "a"}))
    assert sorted(received(browser)) == ["a3", "c2"]
    late = client.create_receiver(queue, options=Copy(), credit=100)
    assert sorted(received(late)) == ["a3", "b2", "c2", "without"]
    assert channel.queue_declare(queue, passive=True).method.message_count == 4


def test_a_value_by_its_subject(client: BlockingConnection, declare: Callable[..., str]) -> None:
    """What a subject is in 1.0 is `qpid.subject` in 0-10, and such is the key of many a last-value queue."""
    queue = declare({"qpid.last_value_queue_key": "qpid.subject"})
    sender = client.create_sender(queue)
    for body, subject in (("1", "x"), ("2", "y"), ("3", "x")):
        sender.send(Message(body=body, subject=subject))
    assert received(client.create_receiver(queue, options=Copy(), credit=10)) == ["2", "3"]


def test_last_values_are_consumed(channel: BlockingChannel, declare: Callable[..., str]) -> None:
    """One that is with a consumer stays with it, and does not come back when there is a newer one."""
    queue = declare({"qpid.last_value_queue_key": "symbol"})
    publish(channel, queue, "a1", {"symbol": "a"})
    method, _, body = get(channel, queue, auto_ack=False)
    assert body == b"a1"
    publish(channel, queue, "a2", {"symbol": "a"})
    publish(channel, queue, "b1", {"symbol": "b"})
    channel.basic_nack(method.delivery_tag)
    assert bodies(channel, queue) == [b"a2", b"b1"]


def test_last_values_survive_the_broker(phoenix: Phoenix) -> None:
    """Killed and started again it holds the newest of each key, and goes on so."""
    queue, arguments = "values", {"qpid.last_value_queue_key": "n"}
    first = pika.BlockingConnection(parameters(phoenix.proxy.outside))
    channel = first.channel()
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.confirm_delivery()
    for number in range(300):
        publish(channel, queue, str(number), {"n": number % 10})
    phoenix.restart()
    with pytest.raises(pika.exceptions.AMQPError):
        first.process_data_events(DEADLINE)
    second = pika.BlockingConnection(parameters(phoenix.proxy.outside))
    channel = second.channel()
    assert channel.queue_declare(queue, durable=True, arguments=arguments).method.message_count == 10
    for number in range(300, 305):
        publish(channel, queue, str(number), {"n": number % 10})
    assert bodies(channel, queue) == [b"%d" % number for number in range(295, 305)]
    second.close()


def test_sorted(client: BlockingConnection, channel: BlockingChannel, declare: Callable[..., str]) -> None:
    """By the header's text, then by arrival; those without it come first. Selectors keep to the order."""
    queue = declare({"qpid.queue_sort_key": "key"})
    for key in ("c", "a", "", "b", "10", "9", None, "a"):
        publish(channel, queue, f"{key}", {} if key is None else {"key": key})
    arrived(channel, queue)
    assert received(client.create_receiver(queue, options=Copy(), credit=100)) == [
        "None", "", "10", "9", "a", "a", "b", "c"]
    chosen = client.create_receiver(queue, options=Selector("key IN ('c', 'b', '9')"), credit=5)
    assert received(chosen) == ["9", "b", "c"]
    assert bodies(channel, queue) == [b"None", b"", b"10", b"a", b"a"]


def test_levels_of_priority(channel: BlockingChannel, declare: Callable[..., str]) -> None:
    queue = declare({"qpid.priorities": 3, "qpid.fairshare": 2})
    for number in range(12):
        publish(channel, queue, str(number), priority=9 if number < 8 else 0)
    assert b"".join(bodies(channel, queue)) == b"01" b"89" b"23" b"1011" b"4567"


@pytest.mark.parametrize("argument", ["qpid.browse-only", "qpid.ensure_nondestructive_consumers"])
def test_browsing_only(client: BlockingConnection, channel: BlockingChannel, declare: Callable[..., str],
                       argument: str) -> None:
    """Every consumer sees every message, in its turns of the prefetch; what it settles has no effect."""
    queue = declare({argument: True})
    for number in range(20):
        publish(channel, queue, str(number))
    everything = [str(number) for number in range(20)]
    channel.basic_qos(prefetch_count=1)
    assert consume(channel, queue, 20) == everything
    assert consume(channel, queue, 20, auto_ack=True) == everything
    receiver = client.create_receiver(queue, credit=100)
    assert received(receiver) == everything
    publish(channel, queue, "new")
    assert received(receiver) == ["new"]
    other = channel.connection.channel()
    other.basic_consume(queue, lambda *_: None)  # and leaves with them unsettled
    channel.connection.process_data_events(0.1)
    other.close()
    assert channel.queue_declare(queue, passive=True).method.message_count == 21
    assert "browsing only" in refused(403, channel.basic_get, queue)


def test_default_filters_and_replay(channel: BlockingChannel, declare: Callable[..., str]) -> None:
    queue = declare({"qpid.browse-only": "true",
                     "qpid.default_filters": '{"f": {"x-filter-jms-selector": ["n > 1"]}}'})
    for number in range(4):
        publish(channel, queue, str(number), {"n": number})
    assert consume(channel, queue, 2) == ["2", "3"]
    assert consume(channel, queue, 1, arguments={"x-filter-jms-selector": "n = 0"}) == ["0"]
    time.sleep(1.2)
    publish(channel, queue, "4", {"n": 4})
    assert consume(channel, queue, 1, arguments={"x-qpid-replay-period": 1}) == ["4"]
    assert consume(channel, queue, 3, arguments={"x-qpid-replay-period": "60"}) == ["2", "3", "4"]
    refused(406, channel.basic_consume, queue, lambda *_: None, arguments={"x-qpid-replay-period": "long"})


@pytest.mark.parametrize("arguments", [
    {"qpid.last_value_queue_key": "k", "qpid.priorities": 3}, {"qpid.queue_sort_key": "k", "x-max-priority": 3},
    {"qpid.queue_sort_key": 5}, {"qpid.default_filters": '{"f": {"x-filter-jms-selector": ["n ="]}}'}])
def test_what_cannot_be(channel: BlockingChannel, names: Names, arguments: dict[str, Any]) -> None:
    refused(406, channel.queue_declare, names.queue(), arguments=arguments)


def test_the_program_of_the_documentation(target: Target, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/queue-kinds.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "prices.py").write_text(found[1])
    done = subprocess.run([sys.executable, "prices.py"], cwd=tmp_path, env={**os.environ, "DRAGOMAN_URL": target.url},
                          stdout=subprocess.PIPE, text=True, timeout=DEADLINE, check=True)
    assert done.stdout == "INIT 20\nACME 11\n"
