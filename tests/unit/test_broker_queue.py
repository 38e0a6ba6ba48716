"""Whatever is done to a queue, in whatever order: it holds what a model of it holds, and gives it out in order of
priority and age, from memory, from the journal, and after a restart."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from broker_kit import Reader, Running, body_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker import lane as lane_module
from broker import queue as queue_module
from broker import returns
from broker.entry import Entry
from broker.returns import give_back

PRIORITIES = 2


class QueueMachine(RuleBasedStateMachine):
    """A durable queue with priorities in which little is kept in memory, beside a model.

    A place is (-priority, number): `ready` holds what is in the queue, `taken` what a reader has. The numbers are
    those in the messages' bodies, counted up as they are published.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="queue"))
        self.before = queue_module.FEW, lane_module.CHUNK
        queue_module.FEW, lane_module.CHUNK = 4, 3
        self.ready: dict[tuple[int, int], bool] = {}  # whether it has been delivered before
        self.taken: dict[tuple[int, int], bool] = {}
        self.transient: set[tuple[int, int]] = set()
        self.number = 0
        self.open()

    def open(self) -> None:
        self.one = Running(self.folder, keep=5)
        self.queue = self.one.queue("q", {"x-max-priority": PRIORITIES})
        self.reader = Reader(self.queue, "reader")
        self.seen = 0  # of the reader's entries
        self.queue.add(self.reader)

    def teardown(self) -> None:
        self.give_everything_back()
        self.drain(1_000_000)
        assert not self.ready
        for entry in self.reader.entries:
            self.queue.accept(entry)
        assert self.one.broker.memory.used == 0
        self.one.close()
        queue_module.FEW, lane_module.CHUNK = self.before
        shutil.rmtree(self.folder)

    @rule(count=st.sampled_from([1, 3, 12]), priority=st.integers(0, PRIORITIES), durable=st.booleans())
    def publish(self, count: int, priority: int, durable: bool) -> None:
        for _ in range(count):
            self.number += 1
            place = (-priority, self.number)
            self.one.publish("", "q", b"%d" % self.number, durable=durable, priority=priority)
            self.ready[place] = False
            if not durable:
                self.transient.add(place)

    @rule(count=st.integers(1, 30))
    def drain(self, count: int) -> None:
        """The reader gets what is first, in order, each marked as redelivered if and only if it was seen."""
        self.reader.room = count
        self.queue.wake(self.reader)
        self.check_delivered(count)

    def check_delivered(self, room: int) -> None:
        expected = sorted(self.ready)[:room]
        got = self.reader.entries[self.seen:]
        assert [self.place(entry) for entry in got] == expected
        assert [entry.redelivered for entry in got] == [self.ready[place] for place in expected]
        for place in expected:
            self.taken[place] = self.ready.pop(place)
        self.reader.room = 0
        self.seen = len(self.reader.entries)

    @staticmethod
    def place(entry: Entry) -> tuple[int, int]:
        return -entry.lane, int(body_of(entry.message))

    def taken_entry(self, choice: int) -> Entry:
        self.seen -= 1
        return self.reader.entries.pop(choice % len(self.reader.entries))

    @precondition(lambda self: self.taken)
    @rule(choice=st.integers(0, 1000), count=st.integers(1, 20))
    def accept(self, choice: int, count: int) -> None:
        for _ in range(min(count, len(self.reader.entries))):
            entry = self.taken_entry(choice)
            place = self.place(entry)
            self.queue.accept(entry)
            del self.taken[place]
            self.transient.discard(place)

    @precondition(lambda self: self.taken)
    @rule(choice=st.integers(0, 1000))
    def release_one(self, choice: int) -> None:
        entry = self.taken_entry(choice)
        place = self.place(entry)
        self.queue.release(entry, True)
        del self.taken[place]
        self.ready[place] = True

    @rule(at_once=st.sampled_from([1, 1000]), room=st.integers(0, 4))
    def give_everything_back(self, at_once: int = 1000, room: int = 0) -> None:
        """As when a channel closes: all at once, or bit by bit when they are many. Who waits gets the oldest first."""
        before, returns.AT_ONCE = returns.AT_ONCE, at_once
        entries, self.reader.entries = self.reader.entries, []
        self.seen = 0
        for entry in entries:
            place = self.place(entry)
            del self.taken[place]
            self.ready[place] = True
        give_back(entries, self.one.broker.chores)
        self.reader.room = room
        self.queue.wake(self.reader)
        self.one.loop.settle()
        returns.AT_ONCE = before
        self.check_delivered(room)

    @rule()
    def purge(self) -> None:
        assert self.queue.purge() == len(self.ready)
        self.transient -= self.ready.keys()
        self.ready.clear()

    @rule()
    def commit(self) -> None:
        """What was published is durable, and leaves memory when it is much."""
        self.one.loop.settle()

    @rule()
    def publish_while_committing(self) -> None:
        """Some leave memory for the journal, those behind them are not written yet."""
        self.publish(12, 0, True)
        self.one.loop.turn_until_work()
        self.publish(3, 0, True)
        self.one.loop.run_thread()
        self.one.loop.turn()

    @rule()
    def restart(self) -> None:
        """Stopped cleanly and started again: durable messages are there, in their places; transient ones are not."""
        self.give_everything_back()
        self.queue.remove(self.reader)
        self.one.close()
        self.ready = {place: seen for place, seen in self.ready.items() if place not in self.transient}
        self.transient.clear()
        self.open()

    @invariant()
    def counted(self) -> None:
        assert self.queue.ready == len(self.ready)
        assert self.queue.ready_bytes == sum(len(b"%d" % number) for _, number in self.ready)
        assert self.queue.unsettled == len(self.taken)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=150, stateful_step_count=50,
                                     suppress_health_check=list(HealthCheck))
