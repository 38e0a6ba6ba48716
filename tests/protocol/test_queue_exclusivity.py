"""Queues that belong to a connection, a user, a container or one consumer: `qpid.exclusivity_policy`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from tests.wire import Channel, Client, channel_error, eventually
from tests.wire10 import DETACH, FLOW, RECEIVER, Client10

Name = Callable[..., str]

pytestmark = pytest.mark.dragoman_only("these options are Qpid's")


def policy(word: str) -> dict[str, Any]:
    return {"qpid.exclusivity_policy": word}


def locked(queue: str) -> str:
    return (f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be "
            "originally declared on another connection or the exclusive property value does not match that of the "
            "original declaration.")


@pytest.mark.parametrize("word", ["CONNECTION", "session"])
def test_connection(ch: Channel, connect: Callable[..., Client], name: Name, word: str) -> None:
    queue = name()
    maker = connect()
    channel = maker.channel()
    channel.queue(queue, arguments=policy(word))
    maker.channel().consume(queue)
    ch.put("", queue, b"anybody may publish")
    with channel_error(405, locked(queue), Basic.Consume):
        ch.consume(queue)
    ch = ch.client.channel()
    with channel_error(405, locked(queue), Queue.Declare):
        ch.queue(queue, arguments=policy(word))
    ch = ch.client.channel()
    with channel_error(405, locked(queue), Queue.Delete):
        ch.call(Queue.Delete(queue=queue))
    maker.close()
    ch = ch.client.channel()
    assert eventually(lambda: ch.get(queue)) is not None  # it is anybody's


def test_container(ch: Channel, connect: Callable[..., Client], connect10: Callable[..., Client10], name: Name) -> None:
    queue = name()
    maker = connect()
    maker.channel().queue(queue, arguments=policy("CONTAINER"))
    maker.close()  # it had told no container, so that it was the connection's
    one, same, other = connect10(container="one"), connect10(container="one"), connect10(container="other")
    assert attaches(one, queue)
    assert attaches(same, queue) and not attaches(other, queue)
    with channel_error(405, locked(queue), Basic.Consume):
        ch.consume(queue)


def attaches(wire: Client10, queue: str) -> bool:
    """Whether a link is let to the queue."""
    wire.attach("out", RECEIVER, queue)
    wire.credit(1, echo=True)
    code, fields, _ = wire.frame()
    if code == DETACH:
        assert "resource-locked" in str(fields[2].value)
    return code == FLOW


@pytest.mark.parametrize("word", ["link", "LINK"])
def test_link(ch: Channel, other: Channel, name: Name, word: str) -> None:
    queue = name()
    ch.queue(queue, arguments=policy(word))
    ch.consume(queue, "tag")
    with channel_error(403, f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use", Basic.Consume):
        other.consume(queue)
    ch.call(Basic.Cancel("tag"))
    other.client.channel().consume(queue)
