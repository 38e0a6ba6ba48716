"""tx: what a commit makes happen together, and a rollback not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.commands import Basic, Queue, Tx

from tests.wire import Channel, Client, channel_error, eventually

Name = Callable[..., str]
Connect = Callable[..., Client]


@pytest.fixture
def tx(ch: Channel) -> Channel:
    """A channel in transactional mode."""
    ch.call(Tx.Select())
    return ch


def test_commit_publishes(tx: Channel, other: Channel, name: Name) -> None:
    one, two = name(), name()
    for queue in (one, two):
        tx.queue(queue, durable=True)
    for number in range(3):
        tx.publish("", one, b"%d" % number, delivery_mode=2)
        tx.publish("", two, b"%d" % number)
    tx.settle(one)
    assert [other.count(one), other.count(two)] == [0, 0]
    tx.call(Tx.Commit())
    eventually(lambda: [other.count(one), other.count(two)] == [3, 3])
    assert [other.wait_get(one).body for _ in range(3)] == [b"0", b"1", b"2"]


def test_a_commit_that_a_full_queue_refuses(tx: Channel, other: Channel, name: Name) -> None:
    queue = name()
    other.queue(queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    for _ in range(2):
        tx.publish("", queue, b"x")
    with channel_error(406, "PRECONDITION_FAILED - partial tx completion", Tx.Commit):
        tx.call(Tx.Commit())
    assert other.count(queue) <= 1  # RabbitMQ keeps what fits


def test_rollback_forgets_publishes(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    tx.publish("", queue, b"forgotten")
    tx.call(Tx.Rollback())
    tx.publish("", queue, b"kept")
    tx.call(Tx.Commit())
    assert tx.wait_get(queue).body == b"kept"
    assert tx.get(queue) is None


@pytest.mark.parametrize("how", ["channel", "connection", "socket"])
def test_closing_rolls_back(ch: Channel, connect: Connect, name: Name, how: str) -> None:
    queue = name()
    ch.queue(queue)
    ch.put("", queue, b"there before")
    tx = connect().channel()
    tx.call(Tx.Select())
    tx.publish("", queue, b"never")
    got = tx.get(queue, no_ack=False)
    assert got
    tx.ack(got.tag)
    tx.settle(queue)
    if how == "channel":
        tx.close()
    elif how == "connection":
        tx.client.close()
    else:
        tx.client.drop()
    got = ch.wait_get(queue)
    assert (got.body, got.method.redelivered) == (b"there before", True)
    assert ch.get(queue) is None


def test_ack_counts_at_commit(tx: Channel, connect: Connect, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    tx.put("", queue, b"1")
    tx.put("", queue, b"2")
    first, second = tx.get(queue, no_ack=False), tx.get(queue, no_ack=False)
    assert first and second
    tx.ack(first.tag)
    tx.call(Tx.Commit())
    tx.ack(second.tag)
    tx.call(Tx.Rollback())
    tx.ack(second.tag)  # it is as unsettled as before
    tx.call(Tx.Rollback())
    tx.close()
    other = connect().channel()
    got = other.wait_get(queue)
    assert (got.body, got.method.redelivered) == (b"2", True)
    assert other.get(queue) is None


def test_rollback_does_not_requeue(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    tx.put("", queue, b"x")
    got = tx.get(queue, no_ack=False)
    assert got
    tx.nack(got.tag)
    tx.settle(queue)
    assert tx.count(queue) == 0
    tx.call(Tx.Rollback())
    tx.settle(queue)
    assert tx.count(queue) == 0
    tx.nack(got.tag)
    tx.call(Tx.Commit())
    assert tx.wait_get(queue).method.redelivered


def test_reject_counts_at_commit(tx: Channel, name: Name) -> None:
    dead, queue = name("dead"), name()
    tx.queue(dead)
    tx.queue(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    tx.put("", queue, b"x")
    got = tx.get(queue, no_ack=False)
    assert got
    tx.reject(got.tag, requeue=False)
    tx.settle(queue)
    assert tx.count(dead) == 0
    tx.call(Tx.Commit())
    assert tx.wait_get(dead).body == b"x"


def test_acks_give_room_only_at_commit(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    for number in range(3):
        tx.put("", queue, b"%d" % number)
    tx.qos(1)
    tx.consume(queue)
    got = tx.delivery()
    tx.ack(got.tag)
    assert tx.idle(queue)
    tx.call(Tx.Commit())
    assert tx.delivery().body == b"1"


def test_settling_twice_in_a_transaction(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    tx.put("", queue, b"x")
    assert tx.get(queue, no_ack=False)
    tx.ack(1)
    with channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 1", Basic.Ack):
        tx.ack(1)
        tx.next()


def test_missing_exchange_is_told_at_once(tx: Channel, name: Name) -> None:
    queue, missing = name(), name("missing")
    tx.queue(queue)
    tx.publish("", queue, b"x")
    with channel_error(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'", Basic.Publish):
        tx.publish(missing, "key", b"x")
        tx.next()
    assert tx.client.channel().count(queue) == 0


def test_returns_come_before_commit_ok(tx: Channel) -> None:
    for number in range(3):
        tx.publish("", "wire-no-such-queue", b"%d" % number, mandatory=True)
    tx.send(Tx.Commit())
    answers = [tx.next() for _ in range(4)]
    assert [answer.name for answer in answers] == 3 * ["Basic.Return"] + ["Tx.CommitOk"]
    assert [answer.body for answer in answers[:3]] == [b"0", b"1", b"2"]


def test_no_return_after_rollback(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    tx.publish("", "wire-no-such-queue", b"x", mandatory=True)
    tx.call(Tx.Rollback())
    tx.call(Tx.Commit())
    assert tx.idle(queue)


def test_queue_deleted_before_commit(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    tx.publish("", queue, b"x")
    tx.call(Queue.Delete(0, queue))
    tx.call(Tx.Commit())
    tx.queue(queue)
    tx.settle(queue)
    assert tx.count(queue) == 0


def test_empty_commits_and_rollbacks(tx: Channel) -> None:
    for method in (Tx.Commit(), Tx.Rollback(), Tx.Commit()):
        tx.call(method)


def test_topology_is_not_transacted(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue)
    tx.call(Tx.Rollback())
    assert tx.exists(queue)


def test_many_publishes(tx: Channel, name: Name) -> None:
    queue = name()
    tx.queue(queue, durable=True)
    for number in range(500):
        tx.publish("", queue, b"%d" % number, delivery_mode=2)
    tx.call(Tx.Commit())
    tx.consume(queue, no_ack=True)
    assert tx.deliveries(500) == [b"%d" % number for number in range(500)]
