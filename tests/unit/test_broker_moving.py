"""Moves, copies, reroutes, deletions and redirects: each message is in the right place, once, whatever happens."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker_kit import Reader, Running, body_of

from broker.errors import NotAllowed, NotFound, PreconditionFailed
from broker.message import Publisher
from broker.moving import Choice, copy, delete, move, redirect, reroute, undo_redirect
from broker.queue import Queue
from broker.selector import Selector

EVERYTHING = 1_000_000


def fill(one: Running, queue: str, count: int, durable: bool = True) -> None:
    for number in range(count):
        one.publish("", queue, b"%d " % number, durable, number % 3, "odd" if number % 2 else "even")


def contents(queue: Queue) -> list[int]:
    """What is in a queue, in its order; it is all there afterwards."""
    reader = Reader(queue, "reader")
    reader.room = EVERYTHING
    queue.add(reader)
    queue.remove(reader)
    found = [int(body_of(entry.message)) for entry in reader.entries if entry.message]
    for entry in reader.entries:
        queue.release(entry, False)
    return found


def done(one: Running, begin: Callable[[Callable[[int], None]], None]) -> int:
    """Begin something, and give what it reports, once."""
    told: list[int] = []
    begin(told.append)
    assert not told, "it is not durable yet"
    one.loop.settle()
    assert len(told) == 1 and one.host.queue("a").unsettled == 0
    return told[0]


@pytest.mark.parametrize("choice, moved", [
    (Choice(), range(300)),
    (Choice(7), range(7)),
    (Choice(0, Selector("group = 'odd'")), range(1, 300, 2)),
    (Choice(100, None, "group", "even"), range(0, 200, 2)),
    (Choice(3, Selector("group = 'odd'"), "group", "even"), []),
    (Choice(0, None, "none", "x"), []),
])
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("restarts", [True, False])
def test_move(tmp_path: Path, choice: Choice, moved: Any, durable: bool, restarts: bool) -> None:
    """From memory and from the journal, by count, selector and header; in order, and each survives as it would have."""
    one = Running(tmp_path, keep=50)
    a, b = one.queue("a", {}), one.queue("b", {})
    fill(one, "a", 300, durable)
    if restarts and durable:
        one.close()
        one = Running(tmp_path, keep=50)
        a, b = one.queue("a", {}), one.queue("b", {})
    assert done(one, lambda told: move(a, b, choice, told)) == len(moved)
    left = [number for number in range(300) if number not in moved]
    assert contents(b) == list(moved) and contents(a) == left
    one.close()
    one = Running(tmp_path, keep=50)
    a, b = one.queue("a", {}), one.queue("b", {})
    assert contents(b) == list(moved) * durable and contents(a) == left * durable
    one.close()


@pytest.mark.parametrize("kind", ["move", "copy", "delete", "reroute"])
def test_a_crash_in_the_midst(tmp_path: Path, kind: str) -> None:
    """Whenever the broker dies, each message is in one place: where it was, or where it goes. (Copies: in both.)"""
    one = Running(tmp_path / "store", keep=50)
    a, b, c = (one.queue(name, {}) for name in "abc")
    for queue in (b, c):
        one.host.bind(one.host.exchange("amq.fanout"), queue, "", {})
    fill(one, "a", 600)
    one.loop.settle()
    told: list[int] = []
    if kind == "move":
        move(a, b, Choice(), told.append)
    elif kind == "copy":
        copy(a, b, Choice(), told.append)
    elif kind == "delete":
        delete(a, Choice(), told.append)
    else:
        reroute(a, one.host.exchange("amq.fanout"), Choice(), told.append)
    stages: set[int] = set()
    for number in range(200):
        if one.loop.ready:
            one.loop.turn()
        elif one.loop.work:
            one.loop.run_thread()
        else:
            break
        if number % 2:
            continue
        shutil.copytree(tmp_path / "store", tmp_path / "killed")
        other = Running(tmp_path / "killed", keep=50)
        in_a, in_b, in_c = (Counter(contents(other.host.queue(name))) for name in "abc")
        other.close()
        shutil.rmtree(tmp_path / "killed")
        stages.add(in_a.total())
        everything = Counter(range(600))
        assert kind != "move" or in_a + in_b == everything and not in_c
        assert kind != "copy" or in_a == everything and in_b <= everything
        assert kind != "delete" or in_a <= everything and not in_b
        assert kind != "reroute" or in_a + in_b == everything and in_b == in_c
    one.loop.settle()
    assert told == [600] and (kind == "copy") == (len(stages) == 1)
    one.close()


def test_not_at_once(tmp_path: Path) -> None:
    """The loop is not held up, and what comes meanwhile stays where it came."""
    one = Running(tmp_path, keep=100_000)
    a, b = one.queue("a", {}), one.queue("b", {})
    fill(one, "a", 30_000, durable=False)  # more than can be moved in one turn
    told: list[int] = []
    move(a, b, Choice(), told.append)
    one.loop.turn()
    assert 0 < b.ready < 30_000 and not told
    one.publish("", "a", b"30000", False, 0)
    one.loop.settle()
    assert told == contents(a) == [30_000] and contents(b) == list(range(30_000))
    one.close()


def test_what_others_do_meanwhile(tmp_path: Path) -> None:
    """What a consumer has stays with it; what it takes during the move is not moved."""
    one = Running(tmp_path, keep=100_000)
    a, b = one.queue("a", {}), one.queue("b", {})
    fill(one, "a", 30_000, durable=False)  # more than can be moved in one turn
    reader = Reader(a, "reader")
    reader.room = 10
    a.add(reader)
    told: list[int] = []
    move(a, b, Choice(), told.append)
    one.loop.turn()
    reader.room = 100
    a.wake(reader)
    one.loop.settle()
    assert told[0] == 29_890 == b.ready and a.ready == 0 and a.unsettled == 110
    for entry in reader.entries:
        a.release(entry, False)
    assert sorted(contents(a) + contents(b)) == list(range(30_000))
    one.close()


def test_a_consumer_of_the_target_gets_them(tmp_path: Path) -> None:
    one = Running(tmp_path, keep=100)
    a, b = one.queue("a", {}), one.queue("b", {})
    fill(one, "a", 20)
    reader = Reader(b, "reader")
    reader.room, reader.settles = EVERYTHING, False
    b.add(reader)
    assert done(one, lambda told: move(a, b, Choice(), told)) == 20
    assert len(reader.entries) == 20 and a.ready == b.ready == 0
    assert one.broker.memory.used == 0
    one.close()


def test_a_target_that_is_full(tmp_path: Path) -> None:
    """It takes what it has room for; the others stay, in their order."""
    one = Running(tmp_path, keep=100)
    a, b = one.queue("a", {}), one.queue("b", {"x-max-length": 30, "x-overflow": "reject-publish"})
    fill(one, "a", 100)
    assert done(one, lambda told: move(a, b, Choice(), told)) == 30
    assert contents(a) == list(range(30, 100)) and contents(b) == list(range(30))
    one.close()


def test_reroute(tmp_path: Path) -> None:
    """By the keys that the messages have; what nothing is bound for stays. The alternate exchange is the default."""
    one = Running(tmp_path, keep=100)
    a = one.queue("a", {"x-dead-letter-exchange": "other"})
    b, c = one.queue("b", {}), one.queue("c", {})
    one.host.declare_exchange("other", "direct", True, False, False, {})
    other = one.host.exchange("other")
    for key, queue in (("k1", b), ("k2", c), ("k1", a)):
        one.host.bind(other, queue, key, {})
    for number in range(9):
        one.host.bind(one.host.exchange("amq.topic"), a, f"k{number % 3}", {})
        one.publish("amq.topic", f"k{number % 3}", b"%d" % number, True, 0)
    assert done(one, lambda told: reroute(a, None, Choice(), told)) == 6
    assert contents(b) == [1, 4, 7] and contents(c) == [2, 5, 8] and contents(a) == [0, 3, 6, 1, 4, 7]
    with pytest.raises(NotFound):
        reroute(b, None, Choice(), print)
    one.close()


def test_reroute_to_a_queue_that_is_the_alternate(tmp_path: Path) -> None:
    one = Running(tmp_path, keep=100)
    a, b = one.queue("a", {"alternateBinding": {"destination": "b"}}), one.queue("b", {})
    fill(one, "a", 5)
    assert done(one, lambda told: reroute(a, None, Choice(), told)) == 5
    assert contents(b) == list(range(5))
    one.close()


def test_kinds(tmp_path: Path) -> None:
    """Queues with an order of their own keep it, as do those with priorities."""
    one = Running(tmp_path, keep=100)
    a, b, c = one.queue("a", {}), one.queue("b", {"qpid.queue_sort_key": "group"}), one.queue("c", {
        "qpid.last_value_queue_key": "group"})
    d = one.queue("d", {"x-max-priority": 2})
    fill(one, "a", 10)
    done(one, lambda told: copy(a, b, Choice(), told))
    done(one, lambda told: copy(b, c, Choice(), told))
    done(one, lambda told: copy(a, d, Choice(), told))
    done(one, lambda told: copy(a, a, Choice(4), told))
    assert contents(b) == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9] and contents(c) == [8, 9]
    assert contents(d) == [2, 5, 8, 1, 4, 7, 0, 3, 6, 9]
    assert contents(a) == [*range(10), *range(4)]
    assert done(one, lambda told: delete(b, Choice(2, Selector("group = 'odd'")), told)) == 2
    assert contents(b) == [0, 2, 4, 6, 8, 5, 7, 9]
    one.close()


class Waiting(Publisher):
    """Counts its confirms."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told: list[int] = []

    def confirmed(self, sequence: int) -> None:
        self.told.append(sequence)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("consumed", [True, False])
@pytest.mark.parametrize("sealed", [True, False])
def test_confirms(tmp_path: Path, durable: bool, consumed: bool, sealed: bool) -> None:
    """Who waits for a message that is moved before it is durable is told once, when it is durable where it is now.
    durable: the new queue is; consumed: from there, at once; sealed: it is being written as it is moved."""
    one = Running(tmp_path, keep=100)
    a, b = one.queue("a", {}), one.host.declare_queue("b", durable, False, False, {}, None)[0]
    publisher = Waiting()
    one.publish("", "a", b"1", True, 0)
    message = a.lanes[0].head[0].message
    assert message is not None
    message.publisher, message.sequence = publisher, 5
    if consumed:
        reader = Reader(b, "reader")
        reader.room, reader.settles = 1, False
        b.add(reader)
    if sealed:
        one.loop.turn_until_work()
    move(a, b, Choice(), lambda count: None)
    one.broker.chores.finish()
    assert a.ready == 0 and publisher.told == ([] if durable and not consumed or sealed and not durable else [5])
    one.loop.settle()
    assert publisher.told == [5]
    one.close()


def test_redirect(tmp_path: Path) -> None:
    """New messages for either of the two go to the other; the end of it brings them back."""
    one = Running(tmp_path, keep=100)
    a, b, c = (one.queue(name, {}) for name in "abc")
    for queue in (a, c):
        one.host.bind(one.host.exchange("amq.fanout"), queue, "", {})
    one.publish("", "a", b"1", True, 0)
    redirect(a, b)
    one.publish("", "a", b"2", True, 0)
    one.publish("", "b", b"3", True, 0)
    one.publish("amq.fanout", "", b"4", True, 0)
    assert [contents(queue) for queue in (a, b, c)] == [[1, 3], [2, 4], [4]]
    for wrong in ((a, c), (c, b), (c, c)):
        with pytest.raises(NotAllowed):
            redirect(*wrong)
    for queue in (b, c):
        with pytest.raises(NotAllowed):
            undo_redirect(queue, print)
    assert done(one, lambda told: undo_redirect(a, told)) == 2
    one.publish("", "a", b"5", True, 0)
    one.publish("", "b", b"6", True, 0)
    assert [contents(queue) for queue in (a, b)] == [[1, 3, 2, 4, 5], [6]]
    redirect(a, b)
    one.host.delete_queue(b)
    one.publish("", "a", b"7", True, 0)
    assert a.ready == 6 and a.peer is None
    one.close()


def test_what_cannot_be(tmp_path: Path) -> None:
    one = Running(tmp_path, keep=100)
    a, b = one.queue("a", {}), one.queue("b", {})
    with pytest.raises(PreconditionFailed):
        move(a, a, Choice(), print)
    fill(one, "a", 200)
    told: list[int] = []
    move(a, b, Choice(), told.append)
    one.host.delete_queue(a)
    one.loop.settle()
    assert told == [0] and b.ready == 0
    one.close()
