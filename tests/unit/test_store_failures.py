"""A disk without room, a store in use, damaged, of another format; processes that are killed."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
from store_kit import Letter, Opened

from store.journal import StoreDamaged, StoreError, StoreLocked
from store.tools import check

ROOT = Path(__file__).parents[2]


@pytest.fixture
def little_room(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 6 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small file system to fill")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill_up(one: Opened) -> list[int]:
    """Enqueue messages of 100 kB, one a batch, until there is no room; gives the ids of all."""
    ids = []
    while not one.ear.full:
        ids.append(one.enqueue(1, bytes(100_000)).id)
        one.loop.settle()
        assert len(ids) < 200 and not one.ear.failed
    return ids


def test_a_full_disk_loses_nothing_and_mends(little_room: Path) -> None:
    one = Opened(little_room / "store")
    told: list[int] = []
    ballast = little_room / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    ids = fill_up(one)
    one.log.commit(lambda: told.append(1))
    ids.append(one.enqueue(1, bytes(100_000)).id)
    assert one.ear.full == [True] and "no room" in one.ear.reasons[0]
    assert one.ear.entries == ids[:-2] == one.ids(1)
    for _ in range(3):
        one.loop.pass_time()
    assert one.ear.full == [True] and told == [] and not one.ear.failed
    ballast.unlink()
    one.loop.pass_time()
    assert one.ear.full == [True, False] and told == [1] and one.ear.entries == ids
    one.close()
    two = Opened(little_room / "store")
    assert two.ids(1) == ids and two.log.clean
    assert two.log.read(two.log.scan(1, 0, 0, 100)[-1][1]) == bytes(100_000)
    two.close()


def test_a_full_disk_mends_by_consuming(little_room: Path) -> None:
    one = Opened(little_room / "store")
    entries = []
    while not one.ear.full:
        entries.append(one.enqueue(1, bytes(100_000)))
        one.loop.settle()
    big = one.enqueue(1, bytes(3 << 20))  # of that turn, before the publishers heard of it
    one.loop.pass_time()
    assert one.ear.full == [True]
    for entry in [*entries, big]:
        one.log.dequeue(entry)
    one.loop.pass_time()
    assert one.ear.full == [True, False]
    assert one.ear.entries[-1] == big.id or entries[-1].id in one.ear.entries
    assert one.ids(1) == [] and one.table("messages") == {}
    assert set(one.ear.entries) >= {entry.id for entry in entries}
    late = one.enqueue(1, bytes(1 << 20))
    one.loop.settle()
    if one.store.writer.full:  # LMDB may reuse what was freed only in the next but one transaction
        one.loop.pass_time()
    assert one.ids(1) == [late.id] and not one.store.writer.full
    one.close()


def test_closing_without_room_says_so_and_lets_go(little_room: Path) -> None:
    one = Opened(little_room / "store")
    ids = fill_up(one)
    with pytest.raises(StoreError, match="could not be written"):
        one.store.close()
    two = Opened(little_room / "store")
    assert two.ids(1) == ids[:-1] and not two.log.clean
    two.close()


def test_a_file_size_limit_is_a_full_disk_too(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, before[1]))
    try:
        ids = fill_up(one)
        one.loop.pass_time()
        assert one.ear.full == [True]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    one.loop.pass_time()
    assert one.ear.full == [True, False] and one.ear.entries == ids == one.ids(1)
    one.close()


def test_while_the_disk_is_full_messages_that_cancel_out_are_let_go(little_room: Path) -> None:
    one = Opened(little_room / "store")
    fill_up(one)
    entries = one.share([1, 2], b"x")
    for entry in entries:
        assert one.log.dequeue(entry)
    one.loop.pass_time()
    assert one.store.writer.sealed is not None and entries[0].message_id not in one.store.writer.sealed.messages
    assert entries[0].message_id not in one.store.writer.open.messages
    with pytest.raises(StoreError):
        one.store.close()


class Failing(Letter):
    """A message that fails in the middle of writing, as LMDB would."""

    error: Exception | None = None

    def stored_form(self) -> list[bytes]:
        if self.error is not None:
            raise self.error
        return super().stored_form()


def enqueue_failing(one: Opened, error: Exception) -> Failing:
    letter = Failing(one.log.new_message_id(False), [b"body"])
    letter.error = error
    one.enqueue(1, b"before it")
    one.log.enqueue(one.entry(1, letter), letter)
    return letter


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_errors_that_mean_no_room(tmp_path: Path, code: int) -> None:
    one = Opened(tmp_path)
    failing = enqueue_failing(one, lmdb.Error(f"mdb_put: {os.strerror(code)}"))
    one.loop.settle()
    assert one.ear.full == [True]
    failing.error = None
    one.loop.pass_time()
    assert one.ear.full == [True, False] and len(one.ear.entries) == 2
    one.close()


@pytest.mark.parametrize("error", [lmdb.Error("mdb_txn_commit: Input/output error"), lmdb.CorruptedError("mdb_put"),
                                   lmdb.PanicError("mdb_txn_begin"), ZeroDivisionError("in stored_form")])
def test_errors_that_do_not_mend_stop_the_broker(tmp_path: Path, error: Exception) -> None:
    one = Opened(tmp_path)
    told: list[int] = []
    failing = enqueue_failing(one, error)
    one.log.commit(lambda: told.append(1))
    one.loop.settle()
    failing.error = None
    one.enqueue(1)
    one.log.commit(lambda: told.append(2))
    one.loop.settle()
    assert len(one.ear.failed) == 1 and str(error) in one.ear.failed[0]
    assert one.ear.full == [] and one.ear.entries == [] and told == []
    with pytest.raises(StoreError, match="cannot be written any more"):
        one.store.close()
    two = Opened(tmp_path)
    assert not two.log.clean and two.ids(1) == []
    two.close()


def test_a_second_store_is_kept_out(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        Opened(tmp_path)
    one.close()
    Opened(tmp_path).close()


def test_a_store_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be made"):
        Opened(tmp_path / "file")
    Opened(tmp_path / "made" / "for" / "it").close()
    assert (tmp_path / "made" / "for" / "it").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_older_format_becomes_one_of_this(tmp_path: Path, version: int) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(3, b"kept")
    one.loop.settle()
    files = one.store.files
    with files.env.begin(write=True) as txn:
        txn.drop(files.sessions)
        if version == 1:
            txn.drop(files.branches)
        txn.put(b"format", version.to_bytes(4, "big"), db=files.meta)
    one.close()
    assert check(tmp_path).sound and check(tmp_path).format == version
    again = Opened(tmp_path)
    assert again.ids(3) == [entry.id] and again.log.branches() == []
    again.log.keep_branch(again.log.new_id(), b"record")
    again.log.keep_record(3, b"key", b"record")
    again.close()
    assert check(tmp_path).sound and check(tmp_path).format == 3
    assert check(tmp_path).records == 1


@pytest.mark.parametrize("version", [0, 4])
def test_another_format_is_refused(tmp_path: Path, version: int) -> None:
    one = Opened(tmp_path)
    files = one.store.files
    with files.env.begin(write=True) as txn:
        if version:
            txn.put(b"format", version.to_bytes(4, "big"), db=files.meta)
        else:
            txn.delete(b"format", db=files.meta)
    one.close()
    with pytest.raises(StoreError, match="format") as raised:
        Opened(tmp_path)
    assert isinstance(raised.value, StoreDamaged) == (version == 0)
    if version:
        assert "has format 4" in str(raised.value) and "formats 1 to 3" in str(raised.value)


def some_store(path: Path) -> None:
    one = Opened(path)
    for number in range(300):
        one.enqueue(number % 3, os.urandom(random.choice([10, 200, 3000, 9000])))
        one.share([1, 2])
    one.store.put("a", b"setting")
    one.close()


def refused(path: Path) -> str:
    with pytest.raises(StoreDamaged) as raised:
        Opened(path)
    assert "store check" in str(raised.value) and "backup" in str(raised.value)
    return str(raised.value)


def test_something_else_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.mdb"
    for content in (b"x", b"something else" * 10_000, bytes(100_000)):
        data.write_bytes(content)
        refused(tmp_path)
        assert data.read_bytes() == content  # and not touched


@pytest.mark.parametrize("part", [0.0001, 0.01, 0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, part: float) -> None:
    some_store(tmp_path)
    data = tmp_path / "data.mdb"
    os.truncate(data, int(data.stat().st_size * part))
    refused(tmp_path)
    refused(tmp_path)  # looking does not mend it


def test_a_file_may_end_with_pages_that_are_free(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    kept = one.enqueue(1, b"kept")
    gone = one.enqueue(1, bytes(3 << 20))
    one.loop.settle()
    one.log.dequeue(gone)
    for _ in range(9):
        other = one.enqueue(1)  # what is written anew moves to the front
        one.loop.settle()
        one.log.dequeue(other)
        one.loop.settle()
    one.close()
    data = tmp_path / "data.mdb"
    size = data.stat().st_size
    os.truncate(data, size - (2 << 20))
    two = Opened(tmp_path)
    assert two.log.read(kept.message_id) == b"kept" and data.stat().st_size >= size
    two.enqueue(1, bytes(3 << 20))
    two.close()


def test_damaged_roots_are_refused(tmp_path: Path) -> None:
    some_store(tmp_path)
    data = tmp_path / "data.mdb"
    env = lmdb.open(str(tmp_path), lock=False, max_dbs=8)
    env.close()
    content = bytearray(data.read_bytes())
    for at in range(8192, len(content), 4096):
        content[at:at + 64] = os.urandom(64)
    data.write_bytes(content)
    refused(tmp_path)


def test_records_of_a_wrong_length_are_damage(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    entry = one.enqueue(1)
    long = one.enqueue(1, bytes(3 << 20))
    one.loop.settle()
    files = one.store.files
    with files.env.begin(write=True) as txn:
        txn.put(b"short", b"", db=files.entries)
        txn.put(b"\0" * 7 + b"\2" + b"\0" * 8 + b"\5", b"short", db=files.entries)
        txn.put(b"\1", b"", db=files.topology)
        txn.delete(long.message_id.to_bytes(8, "big") + b"\0\0\0\2", db=files.messages)
        txn.put(entry.message_id.to_bytes(8, "big"), b"body", db=files.messages)
    with pytest.raises(StoreDamaged):
        one.log.scan(2, 0, 0, 10)
    with pytest.raises(StoreDamaged):
        one.recover({1, 2})
    with pytest.raises(StoreDamaged, match="instead of 3145728"):
        one.log.read(long.message_id)
    one.close()
    with pytest.raises(StoreDamaged, match="setting"):
        Opened(tmp_path)


KILLED = """
import pathlib, random, sys
sys.path[:0] = sys.argv[2:]
from store_kit import Letter, Opened

one = Opened(pathlib.Path(sys.argv[1]), map_size=1 << 20)
one.recover({0, 1, 2})
for queue_id in (0, 1, 2):
    one.log.discard(queue_id, 0, 0, one.log.last_id)
one.loop.settle()
print("ready", flush=True)
number = 0
live = []

def say(sign, number):
    one.log.commit(lambda: print(sign, number, flush=True))

while True:
    for _ in range(random.randrange(1, 200)):
        number += 1
        entry = one.enqueue(0, number.to_bytes(8, "big") * random.choice([1, 30, 2000]))
        live.append((number, entry, one.share([1, 2], b"twin")))
    say("+", number)
    if random.random() < 0.5:
        part = random.randrange(len(live))
        print("?", live[part][0], flush=True)
        for _, entry, twin in live[:part]:
            one.log.dequeue(entry)
            one.log.dequeue(twin[0])
            one.log.dequeue(twin[1])
        say("-", live[part][0] - 1)
        del live[:part]
    if random.random() < 0.05:
        print("?", number + 1, flush=True)
        one.log.discard(0, 0, 0, live[-1][1].id)
        one.log.discard(1, 0, 0, live[-1][2][0].id)
        for _, _, twin in live:
            one.log.dequeue(twin[1])
        say("-", number)
        live.clear()
    if random.random() < 0.5:
        one.loop.turn()
    else:
        one.loop.settle()
"""


@pytest.mark.parametrize("life", range(6))
def test_a_killed_process_loses_nothing_that_was_said_to_be_safe(tmp_path: Path, life: int) -> None:
    """It says what it is about to forget (?), and what is safely stored (+) and forgotten (-)."""
    child = [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(ROOT), str(ROOT / "tests" / "unit")]
    said = {"?": 0, "+": 0, "-": 0}
    for _ in range(2):
        with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            lines = [process.stdout.readline() for _ in range(random.randrange(1, 60))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL
        said = {"?": 0, "+": 0, "-": 0}
        for line in lines:
            if line.endswith("\n"):
                said[line[0]] = max(said[line[0]], int(line[2:]))
        one = Opened(tmp_path / "store")
        assert not one.log.clean
        one.recover({0, 1, 2})
        numbers = []
        for _, message_id, size, *_ in one.log.scan(0, 0, 0, 1_000_000):
            body = one.log.read(message_id)
            assert len(body) == size and body == body[:8] * (size // 8)
            numbers.append(int.from_bytes(body[:8], "big"))
        first = numbers[0] if numbers else said["+"] + 1
        assert said["-"] < first <= max(said["?"], 1)
        assert numbers == list(range(first, first + len(numbers)))
        assert first + len(numbers) > said["+"]
        one.loop.settle()
        twins = one.ids(1) + one.ids(2)
        assert sum(int.from_bytes(count, "big") for count in one.table("shared").values()) == len(twins)
        assert len(one.table("shared")) + len(numbers) == len(one.table("messages"))
        one.close()
