"""Message groups against their rules: one consumer a group, in order, and nobody starves."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from broker_kit import Reader, Running, body_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from broker import lane as lane_module
from broker import queue as queue_module
from broker.entry import Entry
from broker.errors import PreconditionFailed
from broker.message import Message
from broker.queue import Queue
from broker.returns import give_back

GROUPS = ["", "a", "b", "c"]
EVERYTHING = 1_000_000


class Member(Reader):
    """A reader that checks, at each delivery, that the entry is one that it may have."""

    def __init__(self, queue: Queue, tag: str, machine: GroupsMachine) -> None:
        super().__init__(queue, tag)
        self.machine = machine

    def deliver(self, entry: Entry, message: Message) -> None:
        super().deliver(entry, message)
        self.machine.delivered(self, int(body_of(message)))


class Browser(Reader):
    """Looks, and must see nothing twice."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue, "browser")
        self.settles, self.browses, self.choosy = False, True, True
        self.saw: set[int] = set()

    def deliver(self, entry: Entry, message: Message) -> None:
        self.room -= 1
        number = int(body_of(message))
        assert number not in self.saw, "seen twice"
        self.saw.add(number)


class GroupsMachine(RuleBasedStateMachine):
    """A queue with groups, three readers, and what each of them has. Numbers are those in the messages' bodies."""

    shared = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="groups"))
        self.before = queue_module.FEW, lane_module.CHUNK
        queue_module.FEW, lane_module.CHUNK = 4, 3
        self.one = Running(self.folder, keep=5)
        self.queue = self.one.queue("q", {"qpid.group_header_key": "group",
                                          "qpid.shared_msg_group": int(self.shared)})
        self.group: dict[int, str] = {}  # of what is in the queue or with a reader
        self.ready: set[int] = set()
        self.has: dict[int, Member] = {}
        self.taken: set[int] = set()
        self.owner: dict[str, Member] = {}  # of exclusive groups
        self.number = 0
        self.readers = [Member(self.queue, f"reader {number}", self) for number in range(3)]
        self.browser = Browser(self.queue)
        for reader in (*self.readers, self.browser):
            self.queue.add(reader)

    def named(self, number: int) -> str:
        """A message's group: where groups are shared, those without one are one, too."""
        return self.group[number] or ("none" if self.shared else "")

    def delivered(self, reader: Member, number: int) -> None:
        group = self.named(number)
        assert number in self.ready
        self.ready.discard(number)
        if group:
            assert number == min([number, *(each for each in self.ready if self.named(each) == group)]), "out of order"
            others = {holder for each, holder in self.has.items() if self.named(each) == group}
            assert others <= {reader}, "two have one group"
            if not self.shared:
                owner = self.owner.setdefault(group, reader)
                assert owner is reader or not owner.attached, "a group has changed hands"
                self.owner[group] = reader
        self.has[number] = reader
        self.taken.add(number)

    @rule(count=st.sampled_from([1, 4, 15]), group=st.sampled_from(GROUPS), durable=st.booleans())
    def publish(self, count: int, group: str, durable: bool) -> None:
        for _ in range(count):
            self.number += 1
            self.group[self.number] = group
            self.ready.add(self.number)
            self.one.publish("", "q", b"%d" % self.number, durable, 0, group)

    @rule(which=st.integers(0, 2), room=st.sampled_from([1, 2, 10]))
    def make_room(self, which: int, room: int) -> None:
        reader = self.readers[which]
        if reader.attached:
            reader.room += room
            self.queue.wake(reader)

    @rule(room=st.sampled_from([1, 5, 30]))
    def browse(self, room: int) -> None:
        self.browser.room += room
        self.queue.wake(self.browser)

    @precondition(lambda self: self.has)
    @rule(data=st.data(), outcome=st.sampled_from(["accept", "accept", "reject", "release", "requeue"]))
    def settle(self, data: st.DataObject, outcome: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.has)))
        reader = self.has.pop(number)
        entry = self.entry(reader, number)
        if outcome in ("release", "requeue"):
            self.ready.add(number)
            self.queue.release(entry, outcome == "requeue")
            self.queue.dispatch()
            return
        del self.group[number]
        if outcome == "accept":
            self.queue.accept(entry)
        else:
            self.queue.reject(entry)

    @rule(which=st.integers(0, 2))
    def leave(self, which: int) -> None:
        """A reader goes and gives all back; another comes in its place."""
        reader = self.readers[which]
        self.queue.remove(reader)
        left = sorted(number for number, holder in self.has.items() if holder is reader)
        for number in left:
            del self.has[number]
            self.ready.add(number)
        give_back([self.entry(reader, number) for number in left], self.one.broker.chores, False)
        self.readers[which] = Member(self.queue, f"reader {which} again", self)
        self.queue.add(self.readers[which])

    @rule()
    def turn(self) -> None:
        self.one.loop.settle()

    def entry(self, reader: Member, number: int) -> Entry:
        for entry in reader.entries:
            if entry.message is not None and int(body_of(entry.message)) == number and entry.consumer is reader:
                return entry
        raise AssertionError(f"{number} is not with {reader.tag}")

    def teardown(self) -> None:
        self.browse(EVERYTHING)
        self.one.loop.settle()
        assert self.ready - self.taken <= self.browser.saw  # what somebody has had may have been away as it passed
        for reader in self.readers:
            reader.room = EVERYTHING
            self.queue.wake(reader)
        self.one.loop.settle()
        assert not self.ready, f"{self.ready} are left over"
        for number, reader in sorted(self.has.items()):
            self.queue.accept(self.entry(reader, number))
        self.one.close()
        queue_module.FEW, lane_module.CHUNK = self.before
        shutil.rmtree(self.folder)


class SharedGroupsMachine(GroupsMachine):
    """The same with shared groups."""

    shared = True


TestExclusiveGroups = GroupsMachine.TestCase
TestSharedGroups = SharedGroupsMachine.TestCase
TestExclusiveGroups.settings = TestSharedGroups.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("arguments", [
    {"qpid.group_header_key": 5}, {"qpid.group_header_key": "g", "qpid.shared_msg_group": "yes"}])
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object]) -> None:
    one = Running(tmp_path, keep=5)
    with pytest.raises(PreconditionFailed):
        one.queue("q", arguments)
    one.close()


def test_a_free_group_is_anybodys(tmp_path: Path) -> None:
    """A shared group goes to whoever is ready, once all of it is settled."""
    one = Running(tmp_path, keep=5)
    queue = one.queue("q", {"qpid.group_header_key": "group", "qpid.shared_msg_group": 1})
    first, second = Reader(queue, "first"), Reader(queue, "second")
    for reader in (first, second):
        queue.add(reader)
    first.room = 1
    queue.wake(first)
    for number in range(3):
        one.publish("", "q", b"%d" % number, False, 0, "a")
    second.room = 5
    queue.wake(second)
    assert len(first.entries) == 1 and not second.entries
    queue.accept(first.entries[0])
    assert [body_of(entry.message) for entry in second.entries if entry.message] == [b"1", b"2"]
    one.close()


def test_browsers_see_all_groups(tmp_path: Path) -> None:
    one = Running(tmp_path, keep=5)
    queue = one.queue("q", {"qpid.group_header_key": "group"})
    reader, browser = Reader(queue, "reader"), Reader(queue, "browser")
    browser.settles, browser.browses, browser.choosy = False, True, True
    for each in (reader, browser):
        queue.add(each)
    for number in range(3):
        one.publish("", "q", b"%d" % number, False, 0, "a")
    browser.room = 10
    queue.wake(browser)
    assert len(browser.entries) == 3
    one.close()


@pytest.mark.parametrize("arguments, groups", [
    ({"qpid.group_header_key": "group"}, False),
    ({"qpid.group_header_key": "group", "qpid.shared_msg_group": 1}, True),
    ({"qpid.group_header_key": "group", "qpid.shared_msg_group": 1, "qpid.default-message-group": "a"}, True),
    ({"qpid.shared_msg_group": 1}, True),
])
def test_messages_without_a_group(tmp_path: Path, arguments: dict[str, object], groups: bool) -> None:
    """Where groups are shared they are a group: the one that the queue says, `qpid.no-group` otherwise."""
    one = Running(tmp_path, keep=5)
    queue = one.queue("q", arguments)
    first, second = Reader(queue, "first"), Reader(queue, "second")
    for reader in (first, second):
        queue.add(reader)
        reader.room = 1
    for number in range(2):
        one.publish("", "q", b"%d" % number, False, 0)
    if "qpid.default-message-group" in arguments:
        one.publish("", "q", b"2", False, 0, "a")
    for reader in (first, second):
        queue.wake(reader)
    assert (len(first.entries), len(second.entries)) == ((1, 0) if groups else (1, 1))
    one.close()
