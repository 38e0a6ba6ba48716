"""Last-value and sorted queues: whatever is done to them they hold what a model of them holds, give it out in their
order, from memory, from the journal and after a restart, and browsers see all of it once."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from broker_kit import Reader, Running, body_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker import lane as lane_module
from broker import ordered as ordered_module
from broker import queue as queue_module
from broker.entry import Entry
from broker.message import Message
from broker.ordered import Ordered
from broker.queue import Queue
from broker.returns import give_back
from broker.search import claim
from broker.selector import Selector

KEYS = ["", "a", "b", "c"]
EVERYTHING = 1_000_000


class Browser(Reader):
    """Looks, and must see nothing twice."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue, "browser")
        self.settles, self.browses, self.choosy = False, True, True
        self.saw: list[int] = []

    def deliver(self, entry: Entry, message: Message) -> None:
        self.room -= 1
        number = int(body_of(message))
        assert number not in self.saw, "seen twice"
        self.saw.append(number)


class OrderedMachine(RuleBasedStateMachine):
    """A queue of such a kind with a reader, a choosy reader and a browser, beside a model.

    Numbers are those in the messages' bodies; a message's key is in its header `group`, "" for none.
    """

    arguments: dict[str, str] = {}

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ordered"))
        self.before = queue_module.FEW, lane_module.CHUNK, ordered_module.BLOCK
        queue_module.FEW, lane_module.CHUNK, ordered_module.BLOCK = 4, 3, 2
        self.key: dict[int, str] = {}  # of all numbers there ever were
        self.ready: set[int] = set()
        self.has: dict[int, Reader] = {}
        self.ever_taken: set[int] = set()
        self.transient: set[int] = set()
        self.number = 0
        self.open()

    def open(self) -> None:
        self.one = Running(self.folder, keep=5)
        self.queue = self.one.queue("q", self.arguments)
        self.reader = Reader(self.queue, "reader")
        self.choosy = Reader(self.queue, "choosy")
        self.choosy.choosy, self.choosy.selector = True, Selector("group IN ('b', 'c')")
        self.browser = Browser(self.queue)
        self.ever_taken.clear()
        for consumer in (self.reader, self.choosy, self.browser):
            self.queue.add(consumer)

    # The model.

    def place(self, number: int) -> tuple[str, int]:
        return "", number

    def replaces(self, number: int) -> None:
        """A message is about to arrive."""

    def comes_back(self, number: int) -> bool:
        return True

    def expect(self, reader: Reader, wanted: list[int], got: list[Entry]) -> None:
        assert [int(body_of(entry.message)) for entry in got if entry.message] == wanted
        for number in wanted:
            self.ready.discard(number)
            self.has[number] = reader
            self.ever_taken.add(number)

    # What is done.

    @rule(count=st.sampled_from([1, 3, 12]), key=st.sampled_from(KEYS), durable=st.booleans())
    def publish(self, count: int, key: str, durable: bool) -> None:
        for _ in range(count):
            self.number += 1
            self.key[self.number] = key
            self.replaces(self.number)
            self.ready.add(self.number)
            if not durable:
                self.transient.add(self.number)
            self.one.publish("", "q", b"%d" % self.number, durable, 0, key)

    @rule(count=st.sampled_from([1, 3, 30]))
    def take(self, count: int) -> None:
        wanted = sorted(self.ready, key=self.place)[:count]
        seen = len(self.reader.entries)
        self.reader.room = count
        self.queue.wake(self.reader)
        self.reader.room = 0
        self.expect(self.reader, wanted, self.reader.entries[seen:])

    @rule(count=st.sampled_from([1, 3, 30]))
    def choose(self, count: int) -> None:
        wanted = sorted((each for each in self.ready if self.key[each] in "bc" and self.key[each]), key=self.place)
        seen = len(self.choosy.entries)
        self.choosy.room = count
        self.queue.wake(self.choosy)
        self.choosy.room = 0
        self.expect(self.choosy, wanted[:count], self.choosy.entries[seen:])

    @rule(count=st.sampled_from([1, 3, 30]))
    def browse(self, count: int) -> None:
        self.browser.room = count
        self.queue.wake(self.browser)
        self.browser.room = 0

    @precondition(lambda self: self.has)
    @rule(data=st.data(), outcome=st.sampled_from(["accept", "accept", "reject", "release", "requeue"]))
    def settle(self, data: st.DataObject, outcome: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.has)))
        entry = self.entry(number)
        if outcome in ("release", "requeue"):
            if self.comes_back(number):
                self.ready.add(number)
            self.queue.release(entry, outcome == "requeue")
            self.queue.dispatch()
        elif outcome == "accept":
            self.queue.accept(entry)
        else:
            self.queue.reject(entry)
        del self.has[number]

    @rule()
    def give_all_back(self) -> None:
        entries = [self.entry(number) for number in sorted(self.has)]
        self.ready |= {number for number in self.has if self.comes_back(number)}
        self.has.clear()
        give_back(entries, self.one.broker.chores)

    @rule()
    def purge(self) -> None:
        assert self.queue.purge() == len(self.ready)
        self.ready.clear()

    @rule()
    def claim_one(self) -> None:
        """As a link does that is resumed."""
        number = min(self.ready, default=0)
        if number:
            self.one.loop.settle()
            ids = [entry.id for entry in self.queue.ordered.index.all()] if self.queue.ordered else []
            [entry] = claim(self.queue, [min(ids)], self.reader)
            self.expect(self.reader, [number], [entry])
            self.reader.entries.append(entry)

    @rule()
    def commit(self) -> None:
        self.one.loop.settle()

    @rule()
    def restart(self) -> None:
        self.give_all_back()
        for consumer in (self.reader, self.choosy, self.browser):
            self.queue.remove(consumer)
        self.one.close()
        self.ready -= self.transient
        self.open()

    def entry(self, number: int) -> Entry:
        reader = self.has[number]
        for at, entry in enumerate(reader.entries):
            if entry.message is not None and int(body_of(entry.message)) == number:
                return reader.entries.pop(at)
        raise AssertionError(f"{number} is not with {reader.tag}")

    @invariant()
    def counted(self) -> None:
        assert self.queue.ready == len(self.ready)
        assert self.queue.ready_bytes == sum(len(b"%d" % number) for number in self.ready)
        assert self.queue.unsettled == len(self.has)
        lane = self.queue.lanes[0]
        entries = list(self.queue.ordered.index.all()) if self.queue.ordered else []
        assert len(lane) == len(entries) == len(self.ready)
        assert lane.tail_count == len([entry for entry in entries if entry.message is None])
        assert lane.tail_size == sum(entry.size for entry in entries if entry.message is None)

    def teardown(self) -> None:
        self.browse(EVERYTHING)
        assert self.ready - self.ever_taken <= set(self.browser.saw)  # the others may have been away as it passed
        self.give_all_back()
        self.take(EVERYTHING)
        for number in sorted(self.has):
            self.queue.accept(self.entry(number))
        self.one.loop.settle()
        assert self.one.broker.memory.used == 0
        self.one.close()
        queue_module.FEW, lane_module.CHUNK, ordered_module.BLOCK = self.before
        shutil.rmtree(self.folder)


class LastValueMachine(OrderedMachine):
    """A last-value queue."""

    arguments = {"qpid.last_value_queue_key": "group"}

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        super().__init__()

    def replaces(self, number: int) -> None:
        key = self.key[number]
        if key:
            self.ready.discard(self.newest.get(key, 0))
            self.newest[key] = number

    def comes_back(self, number: int) -> bool:
        key = self.key[number]
        return not key or self.newest[key] == number


class SortedMachine(OrderedMachine):
    """A sorted queue."""

    arguments = {"qpid.queue_sort_key": "group"}

    def place(self, number: int) -> tuple[str, int]:
        return self.key[number], number


TestLastValues = LastValueMachine.TestCase
TestSorted = SortedMachine.TestCase
TestLastValues.settings = TestSorted.settings = settings(
    max_examples=100, stateful_step_count=40, suppress_health_check=list(HealthCheck))


def test_the_order_of_very_many(tmp_path: Path) -> None:
    """Entries are kept in order however they come and go."""
    one = Running(tmp_path, keep=5)
    queue = one.queue("q", {})
    chance = random.Random(1)
    held = Ordered()
    model: list[tuple[str, int]] = []
    for number in range(5000):
        rank = (str(chance.randrange(100)), number)
        held.add(rank, Entry(queue, None, 1, 0, number, 0, 0, 0, 0, 0))
        model.append(rank)
    for _ in range(3000):
        rank = model.pop(chance.randrange(len(model)))
        assert held.remove(rank) and not held.remove(rank)
    model.sort()
    assert [entry.id for entry in held.all()] == [number for _, number in model]
    for at in range(0, len(model) - 1, 7):
        found = held.after(model[at])
        assert found is not None and found.id == model[at + 1][1]
    assert held.after(model[-1]) is None
    one.close()


def test_a_value_that_changes_often_takes_no_more_room(tmp_path: Path) -> None:
    """A last-value queue has as many entries as keys, in memory and in the journal, and stays as quick as it was."""
    one = Running(tmp_path, keep=1000)
    queue = one.queue("q", {"qpid.last_value_queue_key": "group"})
    one.publish("", "q", b"0", True, 0, "rare")
    start = time.process_time()
    for number in range(3000):
        one.publish("", "q", b"%d" % number, True, 0, "often")
        if number % 500 == 0:
            one.loop.settle()
    assert time.process_time() - start < 3
    one.loop.settle()
    assert queue.ready == 2 and len(queue.lanes[0]) == 2
    assert one.broker.memory.used < 2000
    assert len(one.broker.log.scan(queue.queue_id, 0, 0, 100)) == 2
    one.close()


def test_many_keys_after_a_restart(tmp_path: Path) -> None:
    """The keys are known again, and most messages are left in the journal."""
    one = Running(tmp_path, keep=100)
    one.queue("q", {"qpid.last_value_queue_key": "group"})
    for number in range(2500):
        one.publish("", "q", b"%d" % number, True, 0, f"key {number}")
    one.close()
    one = Running(tmp_path, keep=100)
    queue = one.host.queue("q")
    assert queue.ready == 2500 and one.broker.memory.used == 0
    for number in range(2500):
        one.publish("", "q", b"%d again" % number, True, 0, f"key {number}")
    one.loop.settle()
    assert queue.ready == 2500
    reader = Reader(queue, "reader")
    reader.room = EVERYTHING
    queue.add(reader)
    assert [body_of(entry.message) for entry in reader.entries if entry.message] == [
        b"%d again" % number for number in range(2500)]
    one.close()


@pytest.mark.parametrize("arguments", [{}, {"qpid.last_value_queue_key": "group"}, {"qpid.queue_sort_key": "group"}])
def test_what_was_given_back_and_purged_is_gone(tmp_path: Path, arguments: dict[str, str]) -> None:
    """Though it is dropped bit by bit, nobody gets it any more."""
    one = Running(tmp_path, keep=5)
    queue = one.queue("q", arguments)
    choosy = Reader(queue, "choosy")
    choosy.choosy, choosy.selector = True, Selector("group = 'a'")
    choosy.room = 2
    queue.add(choosy)
    for number in range(2):
        one.publish("", "q", b"%d" % number, False, 0, "a")
    for entry in choosy.entries:
        queue.release(entry, False)
    had = len(choosy.entries)
    queue.purge()
    one.publish("", "q", b"other", False, 0, "b")
    choosy.room = 5
    queue.wake(choosy)
    assert len(choosy.entries) == had and queue.ready == 1
    one.loop.settle()
    assert queue.ready == 1 and queue.unsettled == 0
    one.close()
