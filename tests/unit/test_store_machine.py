"""Whatever is done in whatever order, the store holds what a dictionary holds that the same was done to."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_kit import Letter, Opened

from store import lmdb_transaction
from store.journal import TRANSIENT, StoredEntry
from store.tools import check, compact

QUEUES = st.integers(1, 3)
LANES = st.integers(0, 1)
Held = dict[int, StoredEntry]


class StoreMachine(RuleBasedStateMachine):
    """`now` is what was asked for; `possible` are the states it went through, one of which must survive a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store"))
        self.now: Held = {}
        self.settings: dict[str, bytes] = {}  # and the records, as "number key"
        self.session = 10  # the number that records are kept under
        self.bodies: dict[int, bytes] = {}
        self.told: list[int] = []
        self.asked = 0
        self.possible: list[tuple[int, Held, dict[str, bytes]]] = [(0, {}, {})]
        self.before = lmdb_transaction.DISCARDS_A_STEP, lmdb_transaction.DISCARDS_A_BATCH
        lmdb_transaction.DISCARDS_A_STEP, lmdb_transaction.DISCARDS_A_BATCH = 2, 3
        self.one = Opened(self.folder, map_size=1 << 20)

    def teardown(self) -> None:
        lmdb_transaction.DISCARDS_A_STEP, lmdb_transaction.DISCARDS_A_BATCH = self.before
        self.one.close()
        assert check(self.folder).problems == []
        shutil.rmtree(self.folder)

    def pick(self, choice: int) -> StoredEntry:
        return self.now[sorted(self.now)[choice % len(self.now)]]

    def asked_for(self) -> None:
        """The end of a turn's work: a state that may be found after a crash, and must be once it was said so."""
        self.asked += 1
        number = self.asked
        self.possible.append((number, dict(self.now), dict(self.settings)))
        self.one.log.commit(lambda: self.told.append(number))

    @rule(queue_id=QUEUES, lane=LANES, length=st.sampled_from([0, 1, 100, 5000, 200_000, 1_100_000]))
    def enqueue(self, queue_id: int, lane: int, length: int) -> None:
        entry = self.one.enqueue(queue_id, bytes([self.asked % 256]) * length, lane)
        self.bodies[entry.message_id] = bytes([self.asked % 256]) * length
        self.now[entry.id] = entry
        self.asked_for()

    @rule(queue_id=QUEUES, lane=LANES)
    def fill(self, queue_id: int, lane: int) -> None:
        for _ in range(20):
            entry = self.one.enqueue(queue_id, b"one of many", lane)
            self.bodies[entry.message_id] = b"one of many"
            self.now[entry.id] = entry
        self.asked_for()

    @rule(queues=st.lists(QUEUES, min_size=1, max_size=4))
    def share(self, queues: list[int]) -> None:
        for entry in self.one.share(queues, b"shared"):
            self.now[entry.id] = entry
            self.bodies[entry.message_id] = b"shared"
        self.asked_for()

    @rule(queue_id=QUEUES)
    def page_out(self, queue_id: int) -> None:
        entry = self.one.enqueue(queue_id, b"paged", flags=TRANSIENT)
        self.now[entry.id] = entry
        self.bodies[entry.message_id] = b"paged"
        self.asked_for()

    @precondition(lambda self: self.now)
    @rule(choice=st.integers(0, 1000), count=st.integers(1, 5))
    def dequeue(self, choice: int, count: int) -> None:
        for _ in range(min(count, len(self.now))):
            entry = self.pick(choice)
            self.one.log.dequeue(entry)
            del self.now[entry.id]
        self.asked_for()

    @precondition(lambda self: self.now)
    @rule(choice=st.integers(0, 1000), queue_id=QUEUES, put_first=st.booleans(), by_name=st.booleans())
    def move(self, choice: int, queue_id: int, put_first: bool, by_name: bool) -> None:
        """Dead-lettering: another entry takes the message over, within one turn."""
        old = self.pick(choice)
        letter = self.one.letters.get(old.message_id) or Letter(old.message_id, [self.bodies[old.message_id]])
        new = self.one.entry(queue_id, letter)
        stored = any(key[:8] == letter.message_id.to_bytes(8, "big") for key in self.one.table("messages"))
        given = None if by_name and stored else letter
        if put_first:
            self.one.log.enqueue(new, given)
        self.one.log.dequeue(old)
        if not put_first:
            self.one.log.enqueue(new, given)
        del self.now[old.id]
        self.now[new.id] = new
        self.asked_for()

    @precondition(lambda self: self.now)
    @rule(choice=st.integers(0, 1000))
    def deliver(self, choice: int) -> None:
        entry = self.pick(choice)
        again = StoredEntry(entry.queue_id, entry.lane, entry.id, entry.message_id, entry.size, entry.expiry,
                            entry.deliveries + 1, entry.flags)
        self.one.log.delivered(again)
        self.now[entry.id] = again
        self.asked_for()

    @rule(queue_id=QUEUES, lane=LANES, part=st.integers(0, 10))
    def discard(self, queue_id: int, lane: int, part: int) -> None:
        ids = [key for key, entry in sorted(self.now.items()) if (entry.queue_id, entry.lane) == (queue_id, lane)]
        last = ids[len(ids) * part // 10 - 1] if len(ids) * part // 10 else 0
        self.one.log.discard(queue_id, lane, 0, last)
        for entry_id in ids:
            if entry_id <= last:
                del self.now[entry_id]
        self.asked_for()

    @rule(key=st.sampled_from(["a", "b", "ü"]), value=st.binary(max_size=20), delete=st.booleans())
    def set(self, key: str, value: bytes, delete: bool) -> None:
        if delete:
            self.one.store.delete(key)
            self.settings.pop(key, None)
        else:
            self.one.store.put(key, value)
            self.settings[key] = value
        self.asked_for()

    @rule(key=st.sampled_from(["a", "b", "c"]), value=st.binary(max_size=20), forget=st.booleans())
    def keep_record(self, key: str, value: bytes, forget: bool) -> None:
        if forget:
            self.one.log.forget_record(self.session, key.encode())
            self.settings.pop(f"{self.session} {key}", None)
        else:
            self.one.log.keep_record(self.session, key.encode(), value)
            self.settings[f"{self.session} {key}"] = value
        self.asked_for()

    @rule()
    def drop_records(self) -> None:
        self.one.log.drop(self.session)
        self.settings = {key: value for key, value in self.settings.items() if not key.startswith(f"{self.session} ")}
        self.session += 1
        self.asked_for()

    @rule()
    def turn(self) -> None:
        self.one.loop.turn()

    @precondition(lambda self: self.one.loop.work)
    @rule()
    def thread(self) -> None:
        self.one.loop.run_thread()

    @rule()
    def settle(self) -> None:
        self.one.loop.settle()
        assert self.told == list(range(1, self.asked + 1))
        assert self.seen() == shape(self.now)
        assert not self.one.store.writer.open.scheduled and self.one.store.writer.sealed is None

    @rule(compacted=st.booleans())
    def reopen(self, compacted: bool) -> None:
        self.one.store.close()
        assert self.told == list(range(1, self.asked + 1))
        if compacted:
            compact(self.folder)
        self.look_again(clean=True)

    @rule()
    def crash(self) -> None:
        self.one.crash()
        self.look_again(clean=False)

    def look_again(self, clean: bool) -> None:
        """Open the store again: it must be in the last state that was said to be safe, or a later one."""
        last_id = self.one.log.last_id
        self.one = Opened(self.folder, map_size=1 << 20)
        assert self.one.log.clean is clean
        lanes = self.one.recover({1, 2, 3, *range(10, self.session + 1)})
        found = self.seen()
        loaded = {key: value for key, value, _ in self.one.store.load()}
        for number in range(10, self.session + 1):
            loaded.update({f"{number} {key.decode()}": value for key, value in self.one.log.records(number)})
        least = max(self.told, default=0)
        for number, held, known in self.possible:
            entries = {key: entry for key, entry in held.items() if not entry.flags & TRANSIENT}
            if number >= least and known == loaded and shape(entries) == found:
                break
        else:
            raise AssertionError(f"what was found is no state since {least}: {found}")
        assert not clean or number == self.asked
        assert self.one.log.last_id >= (last_id if clean else max(entries, default=0))
        assert sum(lane.count for lane in lanes.values()) == len(entries)
        self.now, self.settings = dict(entries), dict(known)
        self.possible = [(0, dict(entries), dict(known))]
        self.told, self.asked = [], 0

    def seen(self) -> dict[int, tuple[int, ...]]:
        found = {}
        for queue_id in (1, 2, 3):
            for lane in (0, 1):
                for entry_id, message_id, size, _, deliveries, flags in self.one.log.scan(queue_id, lane, 0, 10_000):
                    found[entry_id] = (queue_id, lane, message_id, size, deliveries, flags)
                    assert self.one.log.read(message_id) == self.bodies[message_id]
        return found

    @invariant()
    def callbacks_come_in_order(self) -> None:
        assert self.told == list(range(1, len(self.told) + 1))
        assert not self.one.ear.failed and not self.one.ear.full


def shape(held: Held) -> dict[int, tuple[int, ...]]:
    return {key: (entry.queue_id, entry.lane, entry.message_id, entry.size, entry.deliveries, entry.flags)
            for key, entry in held.items()}


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40,
                              suppress_health_check=[HealthCheck.too_slow])
