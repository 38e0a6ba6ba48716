"""Queues that go by themselves, as Qpid's users say it, through 0-9-1."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic

from tests.wire import Channel, Client, eventually

Name = Callable[..., str]

pytestmark = pytest.mark.dragoman_only("these options are Qpid's")


def lifetime(word: str) -> dict[str, Any]:
    return {"qpid.lifetime_policy": word}


def used(ch: Channel, queue: str) -> None:
    """Consume from it for a moment."""
    channel = ch.client.channel()
    channel.consume(queue)
    channel.close()


@pytest.mark.parametrize("word", ["delete-if-unused", "DELETE_ON_NO_LINKS", "DELETE_ON_NO_OUTBOUND_LINKS"])
def test_unused(ch: Channel, name: Name, word: str) -> None:
    queue = name()
    ch.queue(queue, arguments=lifetime(word))
    ch.put("", queue, b"x")
    assert ch.exists(queue)
    used(ch, queue)
    assert ch.gone(queue)


def test_empty(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.lifetime-policy": "delete-if-empty"})
    used(ch, queue)
    assert ch.exists(queue)
    ch.put("", queue, b"x")
    got = ch.get(queue, no_ack=False)
    assert got is not None and ch.exists(queue)
    ch.ack(got.tag)
    eventually(lambda: not ch.exists(queue))


def test_unused_and_empty(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments=lifetime("delete-if-unused-and-empty"))
    ch.put("", queue, b"x")
    used(ch, queue)
    ch.settle(queue)
    assert ch.exists(queue)  # the message is back
    other.consume(queue, "tag", no_ack=True)
    assert other.delivery().body == b"x"
    time.sleep(0.05)
    assert ch.exists(queue)  # it is empty, and in use
    other.call(Basic.Cancel("tag"))
    assert ch.gone(queue)


@pytest.mark.parametrize("word", ["delete-on-close", "DELETE_ON_SESSION_END"])
def test_with_the_channel(ch: Channel, client: Client, name: Name, word: str) -> None:
    queue = name()
    maker = client.channel()
    maker.queue(queue, arguments=lifetime(word))
    ch.put("", queue, b"x")
    again = client.channel()
    again.queue(queue, arguments=lifetime(word))  # it did not make the queue
    again.close()
    assert ch.exists(queue)
    maker.close()
    assert ch.gone(queue)


def test_with_the_connection(ch: Channel, connect: Callable[..., Client], name: Name) -> None:
    queue = name()
    maker = connect()
    channel = maker.channel()
    channel.queue(queue, arguments=lifetime("DELETE_ON_CONNECTION_CLOSE"))
    channel.close()
    assert ch.exists(queue)
    maker.drop()
    eventually(lambda: not ch.exists(queue))


@pytest.mark.parametrize("word", ["manual", "PERMANENT"])
def test_for_ever(ch: Channel, connect: Callable[..., Client], name: Name, word: str) -> None:
    queue = name()
    maker = connect()
    channel = maker.channel()
    channel.queue(queue, arguments=lifetime(word))
    used(channel, queue)
    maker.close()
    assert ch.exists(queue)


def test_auto_delete_timeout(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, auto_delete=True, arguments={"qpid.auto_delete_timeout": 1})
    used(ch, queue)
    time.sleep(0.6)
    assert ch.exists(queue)
    ch.consume(queue, "again")
    time.sleep(0.7)  # the first second is over
    ch.call(Basic.Cancel("again"))
    time.sleep(0.6)
    assert ch.exists(queue)
    time.sleep(0.7)
    assert ch.gone(queue)


def test_auto_delete_timeout_of_an_exclusive_queue(ch: Channel, connect: Callable[..., Client], name: Name) -> None:
    queue = name()
    maker = connect()
    maker.channel().queue(queue, exclusive=True, arguments={"qpid.auto_delete_timeout": 1})
    maker.close()
    assert ch.count(queue) == 0  # anybody's now
    time.sleep(1.3)
    assert ch.gone(queue)
