"""Purging and deleting queues of any length: durable at once, done bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_kit import Opened


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.lmdb_transaction.DISCARDS_A_STEP", 4)
    monkeypatch.setattr("store.lmdb_transaction.DISCARDS_A_BATCH", 10)


def fill(one: Opened, queue_id: int, count: int, lane: int = 0) -> list[int]:
    ids = [one.enqueue(queue_id, lane=lane).id for _ in range(count)]
    one.loop.settle()
    return ids


def test_a_range_goes_and_its_neighbours_stay(tmp_path: Path, small_steps: None) -> None:
    one = Opened(tmp_path)
    before, ids, after = fill(one, 1, 3, lane=1), fill(one, 2, 50, lane=1), fill(one, 2, 3, lane=2)
    one.log.discard(2, 1, ids[5], ids[39])
    assert one.ids(2, 1) == ids[:5] + ids[40:]  # at once
    assert [found[0] for found in one.log.scan(2, 1, ids[2], 4)] == [ids[3], ids[4], ids[40], ids[41]]
    told: list[int] = []
    one.log.commit(lambda: told.append(len(one.table("entries"))))
    one.loop.settle()
    assert told[0] > 21  # durable with the first batch, not with the last
    assert one.ids(1, 1) == before and one.ids(2, 1) == ids[:5] + ids[40:] and one.ids(2, 2) == after
    assert len(one.table("entries")) == 21 == len(one.table("messages"))
    assert one.store.writer.ranges == {} and one.store.writer.discards == []
    assert not [key for key in one.table("meta") if key.startswith(b"discard")]
    one.close()


def test_drop_takes_all_lanes_and_shared_messages_by_count(tmp_path: Path, small_steps: None) -> None:
    one = Opened(tmp_path)
    fill(one, 5, 7)
    fill(one, 5, 7, lane=255)
    shared = [one.share([4, 5, 6]) for _ in range(20)]
    only = one.share([5, 5])
    one.loop.settle()
    one.log.drop(5)
    assert one.ids(5) == [] and one.ids(5, 255) == []
    one.loop.settle()
    assert len(one.table("entries")) == 40 and len(one.table("messages")) == 20
    assert set(one.table("shared").values()) == {b"\0\0\0\2"}
    with pytest.raises(KeyError):
        one.log.read(only[0].message_id)
    one.log.drop(4)
    for entries in shared:
        one.log.dequeue(entries[2])
    one.loop.settle()
    assert one.table("entries") == one.table("messages") == one.table("shared") == {}
    one.close()


def test_what_is_buffered_and_in_flight_goes_too(tmp_path: Path, small_steps: None) -> None:
    one = Opened(tmp_path)
    stored = fill(one, 1, 30)
    in_flight = [one.enqueue(1) for _ in range(30)]
    one.loop.turn_until_work()
    buffered = [one.enqueue(1) for _ in range(3)]
    shared, other = one.share([1, 2])
    one.log.discard(1, 0, 0, one.log.last_id)
    later = one.enqueue(1)
    one.loop.settle()
    assert one.ids(1) == [later.id] and one.ids(2) == [other.id]
    assert len(one.table("messages")) == 2 and list(one.table("shared").values()) == [b"\0\0\0\1"]
    # Those who wait to hear that a message is safe hear that its fate is
    assert one.ear.entries == stored + [entry.id for entry in [*in_flight, *buffered, shared, other, later]]
    assert one.letters[buffered[0].message_id].asked == 0
    one.close()


def test_a_discard_is_resumed_after_a_crash(tmp_path: Path, small_steps: None) -> None:
    one = Opened(tmp_path)
    ids = fill(one, 1, 100)
    stays = fill(one, 2, 2)
    one.log.discard(1, 0, 0, ids[49])
    one.log.discard(1, 0, 0, ids[89])  # the same beginning, so they must not be taken for each other
    one.loop.turn_until_work()
    one.loop.run_thread()
    one.crash()
    two = Opened(tmp_path)
    left = len(two.table("entries"))
    assert 50 < left < 102
    assert two.ids(1) == ids[90:]
    lanes = two.recover({1, 2})
    assert lanes[1, 0].count == 10 and lanes[1, 0].first_id == ids[90]
    two.loop.turn_until_work()
    two.loop.run_thread()
    two.loop.turn()
    two.crash()
    three = Opened(tmp_path)
    assert 12 < len(three.table("entries")) < left
    three.loop.settle()
    assert len(three.table("entries")) == 12 == len(three.table("messages"))
    assert three.ids(2) == stays and not [key for key in three.table("meta") if key.startswith(b"discard")]
    three.close()


def test_a_discard_that_is_not_durable_never_was(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    ids = fill(one, 1, 10)
    one.log.drop(1)
    one.loop.turn_until_work()
    one.crash()
    two = Opened(tmp_path)
    assert two.ids(1) == ids and two.recover({1})[1, 0].count == 10
    two.close()


def test_others_are_served_between_the_steps(tmp_path: Path, small_steps: None) -> None:
    one = Opened(tmp_path)
    fill(one, 1, 200)
    one.log.drop(1)
    told: list[int] = []
    for _ in range(4):
        one.enqueue(2)
        one.log.commit(lambda: told.append(len(one.table("entries"))))
        one.loop.turn_until_work()
        one.loop.run_thread()
        one.loop.turn()
    assert len(told) == 3 and told[2] > 100  # a step was in flight already when the first one asked
    one.loop.settle()
    assert len(one.table("entries")) == 4
    one.close()


def test_many_queues_at_once(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    for queue_id in range(3000):
        one.enqueue(queue_id)
        if queue_id % 2:
            one.log.drop(queue_id)
    one.loop.settle()
    assert len(one.table("entries")) == 1500
    for queue_id in range(3000):
        one.log.drop(queue_id)
    one.enqueue(9000)
    one.loop.settle()
    assert len(one.table("entries")) == 1 and one.store.writer.ranges == {}
    one.close()


def test_a_discard_is_finished_after_closing_in_the_middle(tmp_path: Path, small_steps: None) -> None:
    one = Opened(tmp_path)
    fill(one, 1, 100)
    one.log.drop(1)
    one.store.close()
    two = Opened(tmp_path)
    assert two.log.clean and two.ids(1) == []
    two.loop.settle()
    assert two.table("entries") == {}
    two.close()
