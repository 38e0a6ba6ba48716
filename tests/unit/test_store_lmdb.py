"""The LMDB engine keeps the journal's contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_kit import Opened

from store.journal import TRANSIENT, Conflict, StoreError, StoreLocked


def test_an_entry_and_its_message_come_back(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    letter = one.letter([b"head", b"body"])
    entry = one.entry(7, letter, lane=3, expiry=1234)
    one.log.enqueue(entry, letter)
    one.loop.settle()
    assert one.ear.entries == [entry.id]
    one.close()
    two = Opened(tmp_path)
    lanes = two.recover({7})
    lane = lanes[7, 3]
    assert (lane.count, lane.size, lane.first_id, lane.last_id) == (1, 8, entry.id, entry.id)
    assert two.log.scan(7, 3, 0, 10) == [(entry.id, letter.message_id, 8, 1234, 0, 0)]
    assert two.log.read(letter.message_id) == b"headbody"
    assert two.log.last_id >= entry.id
    two.close()


def test_nothing_is_durable_before_the_commit_ended(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1)
    told: list[str] = []
    one.log.commit(lambda: told.append("committed"))
    assert one.log.scan(1, 0, 0, 10) == []
    one.loop.turn_until_work()
    assert one.ear.entries == [] and told == [] and one.ids(1) == []
    one.loop.run_thread()
    assert one.ear.entries == [] and told == []
    one.loop.turn()
    assert one.ear.entries == [entry.id] and told == ["committed"] and one.ids(1) == [entry.id]
    one.close()


def test_cancelled_out_is_never_written_nor_asked_for(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1)
    assert one.log.dequeue(entry) is True
    told: list[int] = []
    one.log.commit(lambda: told.append(1))
    one.loop.settle()
    assert told == [1] and one.ear.entries == [] and one.letters[entry.message_id].asked == 0
    assert one.table("entries") == {} and one.table("messages") == {}
    assert one.store.writer.sealed is None and not one.store.writer.open.scheduled
    one.close()


def test_dequeued_in_flight_is_written_and_then_forgotten(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1)
    one.loop.turn_until_work()
    assert one.log.dequeue(entry) is False
    one.loop.settle()
    assert one.ear.entries == [entry.id]
    assert one.table("entries") == {} and one.table("messages") == {}
    one.close()


def test_callbacks_come_in_order_and_never_in_the_same_turn(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    told: list[str] = []
    one.log.commit(lambda: told.append("idle"))
    assert told == []
    one.loop.settle()
    assert told == ["idle"]
    one.enqueue(1)
    one.log.commit(lambda: told.append("first"))
    one.loop.turn_until_work()
    one.log.commit(lambda: told.append("nothing of its own"))
    one.loop.run_thread()
    one.loop.turn()
    assert told == ["idle", "first", "nothing of its own"]
    one.enqueue(1)
    one.log.commit(lambda: told.append("second"))
    one.loop.turn_until_work()
    one.enqueue(1)
    one.log.commit(lambda: told.append("third"))
    one.loop.run_thread()
    one.loop.turn()
    assert told[3:] == ["second"]
    one.loop.settle()
    assert told[3:] == ["second", "third"]

    def again() -> None:
        told.append("outer")
        one.log.commit(lambda: told.append("inner"))
        assert told[-1] == "outer"

    one.log.commit(again)
    one.loop.turn()
    assert told[-1] == "outer"
    one.loop.settle()
    assert told[-1] == "inner"
    one.enqueue(1)
    one.log.commit(again)
    one.loop.turn_until_work()
    one.loop.run_thread()
    one.loop.turn()
    assert told[-1] == "outer"
    one.loop.settle()
    assert told[-1] == "inner"
    one.close()


def test_a_failing_callback_does_not_stop_the_writer(tmp_path: Path) -> None:
    one = Opened(tmp_path)

    def fail() -> None:
        raise ZeroDivisionError

    one.enqueue(1)
    one.log.commit(fail)
    one.loop.turn_until_work()
    second = one.enqueue(1)
    with pytest.raises(ZeroDivisionError):
        one.loop.settle()
    one.loop.settle()
    assert one.ids(1)[-1] == second.id
    one.close()


def test_a_shared_message_is_written_once_and_goes_with_its_last_entry(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    first, second, third = one.share([1, 2, 3])
    letter = one.letters[first.message_id]
    one.loop.settle()
    assert letter.asked == 1 and len(one.table("messages")) == 1
    assert list(one.table("shared").values()) == [b"\0\0\0\3"]
    assert not one.log.dequeue(first) and not one.log.dequeue(third)
    one.loop.settle()
    assert list(one.table("shared").values()) == [b"\0\0\0\1"]
    assert one.log.read(letter.message_id) == b"shared"
    one.close()
    two = Opened(tmp_path)
    two.log.dequeue(second)
    two.loop.settle()
    assert two.table("shared") == {} and two.table("messages") == {}
    with pytest.raises(KeyError):
        two.log.read(letter.message_id)
    two.close()


def test_a_shared_message_whose_entries_all_cancel_out_is_not_written(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entries = one.share([1, 2])
    assert all(one.log.dequeue(entry) for entry in entries)
    stays = one.enqueue(9)
    one.loop.settle()
    assert one.letters[entries[0].message_id].asked == 0
    assert len(one.table("messages")) == 1 and one.table("shared") == {} and one.ear.entries == [stays.id]
    one.close()


def test_some_entries_of_a_shared_message_cancel_out(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    first, second = one.share([1, 2])
    assert one.log.dequeue(first)
    third = one.entry(3, one.letters[first.message_id])
    one.log.enqueue(third, None)
    one.loop.settle()
    assert list(one.table("shared").values()) == [b"\0\0\0\2"]
    fourth = one.entry(4, one.letters[first.message_id])
    one.log.enqueue(fourth, None)
    one.log.dequeue(second)
    one.loop.settle()
    assert list(one.table("shared").values()) == [b"\0\0\0\2"]
    one.log.dequeue(third)
    one.log.dequeue(fourth)
    one.loop.settle()
    assert one.table("shared") == {} and one.table("messages") == {}
    one.close()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("put_first", [False, True])
@pytest.mark.parametrize("with_message", [False, True])
def test_an_unshared_message_moves_to_another_queue(tmp_path: Path, stored: bool, put_first: bool,
                                                    with_message: bool) -> None:
    one = Opened(tmp_path)
    old = one.enqueue(1, b"moves")
    letter = one.letters[old.message_id]
    if stored:
        one.loop.settle()
    elif not put_first:
        with_message = True  # dequeuing forgets a message that is not stored, so it has to be given again
    new = one.entry(2, letter)
    if put_first:
        one.log.enqueue(new, letter if with_message else None)
    one.log.dequeue(old)
    if not put_first:
        one.log.enqueue(new, letter if with_message else None)
    one.loop.settle()
    assert one.ids(1) == [] and one.ids(2) == [new.id]
    assert one.log.read(letter.message_id) == b"moves"
    one.log.dequeue(new)
    one.loop.settle()
    assert one.table("messages") == {}
    one.close()


def test_an_entry_is_paged_out_and_in_and_out_within_a_batch(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1, b"paged")
    one.loop.settle()
    assert not one.log.dequeue(entry)
    one.log.enqueue(entry, one.letters[entry.message_id])
    one.loop.settle()
    assert one.ids(1) == [entry.id] and one.log.read(entry.message_id) == b"paged"
    one.close()


def test_delivery_counts(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry, gone, fresh = one.enqueue(1), one.enqueue(1), one.enqueue(1)
    fresh.deliveries = 1
    one.log.delivered(fresh)
    one.loop.settle()
    entry.deliveries = 70_000
    one.log.delivered(entry)
    one.log.delivered(gone)
    one.log.dequeue(gone)
    one.loop.settle()
    gone.deliveries = 5
    one.log.delivered(gone)
    one.loop.settle()
    assert [(found[0], found[4]) for found in one.log.scan(1, 0, 0, 10)] == [(entry.id, 65535), (fresh.id, 1)]
    one.close()


def test_scan_goes_on_behind_an_id_within_one_lane(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    ids = [one.enqueue(2, lane=1).id for _ in range(10)]
    one.enqueue(2, lane=0)
    one.enqueue(2, lane=2)
    one.enqueue(1, lane=1)
    one.loop.settle()
    assert [found[0] for found in one.log.scan(2, 1, 0, 4)] == ids[:4]
    assert [found[0] for found in one.log.scan(2, 1, ids[3], 4)] == ids[4:8]
    assert [found[0] for found in one.log.scan(2, 1, ids[7], 4)] == ids[8:]
    assert one.log.scan(2, 1, ids[9], 4) == [] and one.log.scan(3, 0, 0, 4) == []
    one.close()


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 16, (1 << 20) - 15, (2 << 20) - 32, 5 << 20])
@pytest.mark.parametrize("frame", [131_000, 10 << 20])
def test_messages_of_any_length(tmp_path: Path, length: int, frame: int) -> None:
    body = bytes(range(256)) * (length // 256) + bytes(length % 256)
    parts = [body[at:at + frame] for at in range(0, length, frame)] or [b""]
    one = Opened(tmp_path)
    entry = one.enqueue(1, parts)
    before = one.loop.turns
    one.loop.settle()
    if length >= 5 << 20:
        assert one.loop.turns > before + 2  # it took several slices
    assert one.log.read(entry.message_id) == body
    other = one.enqueue(1, b"next")
    one.log.dequeue(entry)
    one.loop.settle()
    assert list(one.table("messages").values()) == [b"next"] and one.log.read(other.message_id) == b"next"
    one.close()


def test_a_message_that_is_not_durable_yet_can_be_read(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1, [b"a", b"b"])
    assert one.log.read(entry.message_id) == b"ab"
    one.loop.turn_until_work()
    assert one.log.read(entry.message_id) == b"ab"
    with pytest.raises(KeyError):
        one.log.read(1000)
    one.close()


def test_ids_grow_over_lives_even_when_all_is_gone(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1)
    one.loop.settle()
    one.log.dequeue(entry)
    last = one.log.last_id
    one.close()
    two = Opened(tmp_path)
    assert two.log.new_id() > last
    assert two.log.new_message_id(True) & 1 == 1 and two.log.new_message_id(False) & 1 == 0
    two.store.close()
    three = Opened(tmp_path)
    three.store.put("only", b"a setting")
    three.close()
    four = Opened(tmp_path)
    assert four.log.last_id >= last
    four.close()


def test_recovery_forgets_the_transient_and_the_unknown(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    kept = [one.enqueue(1, b"1234"), one.enqueue(1, lane=9), one.enqueue(3)]
    one.enqueue(1, flags=TRANSIENT)
    kept.append(one.enqueue(1, b"12"))
    for _ in range(100):
        one.enqueue(1, flags=TRANSIENT)
        one.enqueue(2)
        one.enqueue(3, lane=1, flags=TRANSIENT)
    shared = one.share([2, 3])
    one.close()
    two = Opened(tmp_path)
    lanes = two.recover({1, 3})
    found = {key: (lane.count, lane.size, lane.first_id, lane.last_id) for key, lane in lanes.items()}
    assert found == {(1, 0): (2, 6, kept[0].id, kept[3].id), (1, 9): (1, 4, kept[1].id, kept[1].id),
                     (3, 0): (2, 10, kept[2].id, shared[1].id)}
    assert two.ids(1) == [kept[0].id, kept[3].id] and two.ids(3, 1) == [] and two.ids(2) == []
    paged = two.enqueue(1, flags=TRANSIENT)
    two.loop.settle()
    assert two.ids(1) == [kept[0].id, kept[3].id, paged.id]
    assert len(two.table("entries")) == 6 and len(two.table("messages")) == 6
    assert list(two.table("shared").values()) == [b"\0\0\0\1"]
    assert two.store.writer.ranges == {} and two.store.writer.discards == []
    two.close()


def test_recovery_takes_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Opened(tmp_path)
    for queue_id in range(3):
        for _ in range(1000):
            one.enqueue(queue_id)
    one.close()
    monkeypatch.setattr("store.lmdb_log.STEP_SECONDS", 0.0001)
    two = Opened(tmp_path)
    steps = list(two.log.recover({0, 1, 2}))
    assert steps[-1] is not None and sorted(lane.count for lane in steps[-1]) == [1000] * 3
    assert len(steps) > 4 and all(step is None for step in steps[:-1])
    two.close()


def test_the_clean_mark_says_how_the_store_was_closed(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1)
    one.loop.settle()
    one.crash()
    two = Opened(tmp_path)
    assert not two.log.clean and two.ids(1) == [entry.id]
    two.close()
    three = Opened(tmp_path)
    assert three.log.clean
    three.crash()
    four = Opened(tmp_path)
    assert not four.log.clean
    four.close()


def test_closing_writes_everything_and_tells(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    told: list[str] = []
    in_flight = one.enqueue(1)
    one.log.commit(lambda: told.append("in flight"))
    one.loop.turn_until_work()
    buffered = one.enqueue(1, bytes(3 << 20))
    one.log.commit(lambda: told.append("buffered"))
    one.store.close()
    assert told == ["in flight", "buffered"] and one.ear.entries == [in_flight.id, buffered.id]
    one.loop.settle()
    one.store.close()
    two = Opened(tmp_path)
    assert two.log.clean and two.ids(1) == [in_flight.id, buffered.id]
    two.close()


def test_closing_in_the_middle_of_a_slice(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1, bytes(20 << 20))
    one.loop.turn()
    assert one.store.writer.transaction is not None and not one.loop.work
    other = one.enqueue(1)
    one.store.close()
    one.loop.settle()
    two = Opened(tmp_path)
    assert two.ids(1) == [entry.id, other.id] and len(two.log.read(entry.message_id)) == 20 << 20
    two.close()


def test_settings(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    changes: list[tuple[str, bytes | None, int]] = []
    one.store.watch(lambda key, value, revision: changes.append((key, value, revision)))
    first = one.store.put("b", b"1", expect=0)
    second = one.store.put("a/é", b"")
    assert second > first and one.store.load() == [("a/é", b"", second), ("b", b"1", first)]
    with pytest.raises(Conflict):
        one.store.put("b", b"2", expect=0)
    with pytest.raises(Conflict):
        one.store.delete("b", expect=second)
    third = one.store.put("b", b"3", expect=first)
    assert changes == []
    one.loop.settle()
    assert changes == [("b", b"1", first), ("a/é", b"", second), ("b", b"3", third)]
    one.store.delete("b", expect=third)
    one.store.delete("b")
    one.loop.settle()
    assert changes[3][:2] == ("b", None) and len(changes) == 4
    one.close()
    two = Opened(tmp_path)
    assert two.store.load() == [("a/é", b"", second)]
    assert two.store.put("b", b"4", expect=0) > changes[3][2]
    with pytest.raises(StoreError):
        two.store.put("k" * 512, b"")
    with pytest.raises(StoreError):
        two.store.put("", b"")
    two.close()


def test_settings_ride_in_the_batch_of_the_messages(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    one.store.put("queue", b"declared")
    one.enqueue(1)
    one.loop.turn_until_work()
    one.crash()
    two = Opened(tmp_path)
    assert two.store.load() == [] and two.ids(1) == []
    two.store.put("queue", b"declared")
    two.enqueue(1)
    two.loop.settle()
    two.crash()
    three = Opened(tmp_path)
    assert len(three.store.load()) == 1 and len(three.ids(1)) == 1
    three.close()


def test_one_shard_with_one_owner(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    assert one.store.shard_of("/", "any") == 0
    with pytest.raises(StoreError, match="one shard"):
        one.store.acquire(1, one.ear)
    with pytest.raises(StoreLocked):
        one.store.acquire(0, one.ear)
    one.close()


def test_the_map_grows(tmp_path: Path) -> None:
    one = Opened(tmp_path, map_size=1 << 20)
    entries = [one.enqueue(1, bytes(100_000)) for _ in range(100)]
    one.loop.turn()
    one.enqueue(1, b"last")
    one.loop.settle()
    assert one.ear.entries == [entry.id for entry in entries] + [one.log.last_id] and not one.ear.failed
    assert one.store.files.env.info()["map_size"] > 10_000_000
    one.close()
    two = Opened(tmp_path, map_size=1 << 20)
    assert len(two.ids(1)) == 101 and two.log.read(entries[99].message_id) == bytes(100_000)
    two.enqueue(1, bytes(8 << 20))
    two.close()


def test_the_map_grows_while_closing(tmp_path: Path) -> None:
    one = Opened(tmp_path, map_size=1 << 20)
    for _ in range(100):
        one.enqueue(1, bytes(100_000))
    one.store.close()
    two = Opened(tmp_path)
    assert len(two.ids(1)) == 100 and two.log.clean
    two.close()


def test_records_go_with_their_queue(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    for number in (3, 4, 5):
        one.log.keep_record(number, b"key", b"value")
    one.loop.settle()
    one.log.drop(3)
    one.loop.settle()
    assert one.log.records(3) == [] and one.log.records(4) == [(b"key", b"value")]
    one.crash()
    again = Opened(tmp_path)
    again.recover({5})
    again.loop.settle()
    assert again.log.records(4) == [] and again.log.records(5) == [(b"key", b"value")]
    again.close()


def test_records_come_with_what_is_kept_in_the_same_turn_or_not_at_all(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(3)
    one.log.keep_record(3, b"key", b"value")
    one.crash()
    again = Opened(tmp_path)
    assert again.ids(3) == [] and again.log.records(3) == []
    entry = again.enqueue(3)
    again.log.keep_record(3, b"key", b"value")
    again.loop.settle()
    again.crash()
    last = Opened(tmp_path)
    assert last.ids(3) == [entry.id] and last.log.records(3) == [(b"key", b"value")]
    last.close()
