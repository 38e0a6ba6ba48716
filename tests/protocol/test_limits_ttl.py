"""What queues bound: time to live of messages and of queues, length, priorities."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.commands import Basic

from tests.wire import Channel, eventually

Name = Callable[..., str]


def there(ch: Channel, queue: str) -> bool:
    """Whether the queue exists, asked in a way that does not count as using it."""
    ch.publish("", queue, b"x", mandatory=True)
    ch.publish("", "wire-no-such-queue", b"marker", mandatory=True)
    back = ch.next()
    if back.body == b"x":
        assert ch.next().body == b"marker"
    return bool(back.body == b"marker")


# Messages

@pytest.mark.parametrize("by", ["queue", "message"])
def test_time_to_live(ch: Channel, name: Name, by: str) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-message-ttl": 40} if by == "queue" else {})
    for _ in range(3):
        ch.put("", queue, b"x", expiration=None if by == "queue" else "40")
    eventually(lambda: ch.count(queue) == 0)
    assert ch.get(queue) is None


@pytest.mark.parametrize("by", ["queue", "message"])
def test_time_to_live_0_reaches_only_who_waits(ch: Channel, name: Name, by: str) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-message-ttl": 0} if by == "queue" else {})
    expiration = None if by == "queue" else "0"
    ch.put("", queue, b"nobody waits", expiration=expiration)
    eventually(lambda: ch.count(queue) == 0)
    ch.consume(queue, no_ack=True)
    ch.put("", queue, b"somebody waits", expiration=expiration)
    assert ch.delivery().body == b"somebody waits"


def test_messages_that_are_out_do_not_expire(ch: Channel, name: Name) -> None:
    queue, marker = name(), name("marker")
    ch.queue(queue, arguments={"x-message-ttl": 100})
    ch.queue(marker, arguments={"x-message-ttl": 200})
    ch.consume(queue, "tag")
    ch.put("", queue, b"x")
    got = ch.delivery()
    ch.put("", marker, b"x")
    eventually(lambda: ch.count(marker) == 0)  # by now the first would have expired
    ch.call(Basic.Cancel("tag"))
    ch.ack(got.tag)
    ch.settle(queue)


def test_requeued_messages_expire_by_their_old_time(ch: Channel, name: Name) -> None:
    queue, marker = name(), name("marker")
    ch.queue(queue, arguments={"x-message-ttl": 100})
    ch.queue(marker, arguments={"x-message-ttl": 200})
    ch.put("", queue, b"x")
    got = ch.wait_get(queue, no_ack=False)
    ch.put("", marker, b"x")
    eventually(lambda: ch.count(marker) == 0)
    ch.nack(got.tag)
    eventually(lambda: ch.count(queue) == 0)


def test_expired_messages_behind_others_are_never_delivered(ch: Channel, name: Name) -> None:
    queue, marker = name(), name("marker")
    ch.queue(queue)
    ch.queue(marker)
    ch.put("", queue, b"first")
    ch.put("", queue, b"short-lived", expiration="20")
    ch.put("", queue, b"last")
    ch.put("", marker, b"x", expiration="60")
    eventually(lambda: ch.count(marker) == 0)
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(2) == [b"first", b"last"]
    assert ch.idle(queue)


def test_the_shorter_of_both_counts(ch: Channel, name: Name) -> None:
    long, short = name("long"), name("short")
    ch.queue(long, arguments={"x-message-ttl": 600000})
    ch.queue(short, arguments={"x-message-ttl": 30})
    ch.put("", long, b"x", expiration="30")
    ch.put("", short, b"x", expiration="600000")
    eventually(lambda: (ch.count(long), ch.count(short)) == (0, 0))


def test_long_lived_messages_stay(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-message-ttl": 600000})
    for expiration in ("600000", "315360000000", "+700000", "0600000"):
        ch.put("", queue, b"x", expiration=expiration)
    assert ch.count(queue) == 4
    got = ch.get(queue)
    assert got and got.properties.expiration == "600000"


# Queues

def test_unused_queue_expires(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-expires": 50})
    ch.put("", queue, b"x")
    eventually(lambda: not there(ch, queue))


def test_queue_in_use_does_not_expire(ch: Channel, name: Name) -> None:
    queue, marker = name(), name("marker")
    ch.queue(queue, arguments={"x-expires": 100})
    ch.consume(queue, "tag")
    ch.queue(marker, arguments={"x-message-ttl": 300})
    ch.put("", marker, b"x")
    eventually(lambda: ch.count(marker) == 0)
    ch.put("", queue, b"x")
    assert ch.delivery().body == b"x"
    ch.call(Basic.Cancel("tag"))
    eventually(lambda: not there(ch, queue))


# Length

@pytest.mark.parametrize("overflow", [None, "drop-head"])
def test_drop_head(ch: Channel, name: Name, overflow: str | None) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length": 3, **({"x-overflow": overflow} if overflow else {})})
    ch.confirm()
    for number in range(6):
        assert ch.confirmed("", queue, b"%d" % number)
    assert ch.count(queue) == 3
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(3) == [b"3", b"4", b"5"]


def test_length_in_bytes(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length-bytes": 100})
    for number in range(5):
        ch.put("", queue, b"%d" % number * 30)
    assert ch.count(queue) == 3
    ch.put("", queue, b"y" * 101)  # more than the queue may ever hold
    assert ch.count(queue) == 0
    for _ in range(200):
        ch.put("", queue)
    assert ch.count(queue) == 200


def test_both_lengths(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length-bytes": 100, "x-max-length": 2})
    for _ in range(3):
        ch.put("", queue, b"x" * 20)
    assert ch.count(queue) == 2
    ch.put("", queue, b"x" * 90)
    assert ch.count(queue) == 1


def test_length_counts_only_what_is_ready(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length": 2})
    for number in range(2):
        ch.put("", queue, b"%d" % number)
    assert [got.body for got in (ch.get(queue, no_ack=False), ch.get(queue, no_ack=False)) if got] == [b"0", b"1"]
    for number in range(2, 4):
        ch.put("", queue, b"%d" % number)
    assert ch.count(queue) == 2
    ch.nack(0, multiple=True)  # now there are four, and the oldest go
    eventually(lambda: ch.count(queue) == 2)
    assert [got.body for got in (ch.get(queue), ch.get(queue)) if got] == [b"2", b"3"]


def test_length_0(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length": 0})
    ch.put("", queue, b"x")
    assert ch.count(queue) == 0
    ch.consume(queue, no_ack=True)
    ch.put("", queue, b"y")
    assert ch.delivery().body == b"y"


def test_reject_publish_by_bytes(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length-bytes": 10, "x-overflow": "reject-publish"})
    ch.confirm()
    assert [ch.confirmed("", queue, b"x" * size) for size in (11, 6, 5, 4, 1, 0)] == [
        False, True, False, True, False, True]
    assert ch.get(queue)
    assert ch.confirmed("", queue, b"x")


# Priorities

def test_priorities(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-priority": 5})
    for number, priority in enumerate((None, 3, 5, 0, 3, 9, 1)):
        ch.put("", queue, b"%d" % number, priority=priority)
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(7) == [b"2", b"5", b"1", b"4", b"6", b"0", b"3"]  # more than the highest is the highest


def test_priority_is_kept_by_requeueing(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-priority": 5})
    for number in range(4):
        ch.put("", queue, b"%d" % number, priority=number % 2)
    got = [ch.wait_get(queue, no_ack=False) for _ in range(2)]
    assert [one.body for one in got] == [b"1", b"3"]
    ch.nack(0, multiple=True)
    ch.settle(queue)
    assert [one.body for one in (ch.get(queue) for _ in range(4)) if one] == [b"1", b"3", b"0", b"2"]


def test_priority_is_ignored_without_the_argument(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for number in range(3):
        ch.put("", queue, b"%d" % number, priority=number)
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(3) == [b"0", b"1", b"2"]


def test_priorities_and_length(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-priority": 5, "x-max-length": 2})
    for number, priority in enumerate((5, 1, 3)):
        ch.put("", queue, b"%d" % number, priority=priority)
    assert ch.count(queue) == 2
    # What is dropped is the head, that is the most urgent.
    assert [one.body for one in (ch.get(queue), ch.get(queue)) if one] == [b"2", b"1"]


def test_priorities_and_time_to_live(ch: Channel, name: Name) -> None:
    queue, marker = name(), name("marker")
    ch.queue(queue, arguments={"x-max-priority": 2})
    ch.queue(marker)
    for number, priority in enumerate((1, 2, 1)):
        ch.put("", queue, b"%d" % number, priority=priority, expiration="20" if number == 0 else None)
    ch.put("", marker, b"x", expiration="60")
    eventually(lambda: ch.count(marker) == 0)
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(2) == [b"1", b"2"]
    assert ch.idle(queue)
