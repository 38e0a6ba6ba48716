"""Checking, compacting, exporting and importing stores, whole and damaged."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from store_kit import Opened

from dragoman.cli import dragoman
from store.journal import TRANSIENT, StoreDamaged, StoreError, StoreLocked
from store.records import ADVICE
from store.tools import Report, check, compact
from store.transfer import export, import_

ROOT = Path(__file__).parents[2]


def some_store(path: Path, count: int = 300) -> Opened:
    """A store with entries in queues 0 to 3, shared messages in 1 and 2, a long one, a paged one, settings."""
    one = Opened(path)
    for number in range(count):
        one.enqueue(number % 3, number.to_bytes(4, "big") * random.choice([2, 50, 700, 2000]), lane=number % 2)
        one.share([1, 2])
        if number % 10 == 0:
            one.loop.settle()
    one.enqueue(3, bytes(3 << 20))
    one.enqueue(3, flags=TRANSIENT)
    counted = one.enqueue(3)
    counted.deliveries = 4
    one.store.put("a/ü", b"\0\xff")
    one.store.put("b", b"")
    one.loop.settle()
    return one


def content(path: Path) -> tuple[object, ...]:
    """All that a broker would see, and the last id."""
    one = Opened(path)
    messages = {}
    entries = []
    for queue_id in range(4):
        for lane in range(2):
            for found in one.log.scan(queue_id, lane, 0, 10_000):
                entries.append((queue_id, lane, *found))
                messages[found[1]] = one.log.read(found[1])
    result = one.store.load(), entries, messages, one.table("shared"), one.log.last_id
    one.close()
    return result


def exported(path: Path) -> str:
    stream = io.StringIO()
    done = export(path, stream)
    assert done.report.sound
    return stream.getvalue()


def test_check_of_a_sound_store(tmp_path: Path) -> None:
    some_store(tmp_path).close()
    seen: list[tuple[int, int]] = []
    report = check(tmp_path, lambda done, total: seen.append((done, total)))
    assert report.problems == [] and report.sound and report.clean and report.format == 3
    assert report.queues == {0: 100, 1: 400, 2: 400, 3: 3} and report.entries == 903
    assert (report.settings, report.messages, report.orphans, report.missing, report.discarding) == (2, 603, 0, 0, 0)
    assert 3 << 20 < report.bytes_in_use <= report.bytes_on_disk
    assert seen[-1][0] == seen[-1][1] >= 1508 and seen == sorted(seen)


def test_tools_need_a_store_that_is_not_in_use(tmp_path: Path) -> None:
    for tool in (check, compact, lambda path: export(path, io.StringIO())):
        with pytest.raises(StoreError, match="no store"):
            tool(tmp_path)
    assert list(tmp_path.iterdir()) == []
    one = Opened(tmp_path)
    for tool in (check, compact, lambda path: export(path, io.StringIO()), lambda path: import_(path, io.StringIO())):
        with pytest.raises(StoreLocked):
            tool(tmp_path)
    one.close()


def test_check_tells_what_does_not_belong_together(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    lost, twice, kept = one.enqueue(1), one.enqueue(1), one.enqueue(1)
    shared = one.share([1, 2, 3])
    one.loop.settle()
    files = one.store.files
    with files.env.begin(write=True) as txn:
        txn.delete(lost.message_id.to_bytes(8, "big"), db=files.messages)
        txn.put((1 << 40).to_bytes(8, "big"), b"orphan", db=files.messages)
        txn.put(b"odd", b"", db=files.messages)
        txn.put((3 << 40).to_bytes(8, "big") + b"\0\0\0\7", b"a piece", db=files.messages)
        txn.put((5 << 40).to_bytes(8, "big") + b"\0\0\0\0", (9 << 20).to_bytes(8, "big"), db=files.messages)
        txn.put(shared[0].message_id.to_bytes(8, "big"), b"\0\0\0\2", db=files.shared)
        txn.put((7 << 40).to_bytes(8, "big"), b"\0\0\0\1", db=files.shared)
        txn.put(b"\xff", b"12345678", db=files.topology)
        txn.put(b"k" * 17, b"short", db=files.entries)
    again = one.entry(2, one.letters[twice.message_id])
    one.log.enqueue(again, one.letters[twice.message_id])
    one.close()
    report = check(tmp_path)
    text = "\n".join(report.problems)
    assert not report.sound and report.missing == 1 and report.orphans == 1
    for part in (f"lacks its message {lost.message_id}", f"message {1 << 40} is in no queue", "6f6464",
                 f"piece 7 of message {3 << 40}", f"message {5 << 40} is not whole",
                 "is in 3 queues and counted as being in 2", f"message {7 << 40} is counted, and not there",
                 "setting", "6b" * 17, f"message {twice.message_id} is in 2 queues and should be in one"):
        assert part in text
    assert report.problem_count == len(report.problems) == 10
    assert str(kept.message_id) not in text.split()


def test_check_while_entries_are_being_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.lmdb_transaction.DISCARDS_A_STEP", 4)
    monkeypatch.setattr("store.lmdb_transaction.DISCARDS_A_BATCH", 10)
    one = Opened(tmp_path)
    for _ in range(100):
        one.enqueue(1)
        one.share([1, 2])
    one.loop.settle()
    one.log.drop(1)
    one.store.close()
    report = check(tmp_path)
    assert report.sound and report.discarding == 1 and report.queues == {2: 100}
    import_(tmp_path / "copy", io.StringIO(exported(tmp_path)))
    copied = check(tmp_path / "copy")
    assert copied.sound and copied.queues == {2: 100} and copied.messages == 100


def test_another_format_is_told(tmp_path: Path) -> None:
    one = Opened(tmp_path)
    with one.store.files.env.begin(write=True) as txn:
        txn.put(b"format", b"\0\0\0\x09", db=one.store.files.meta)
    one.close()
    assert check(tmp_path).problems == ["the store has format 9, and this Dragoman reads formats 1 to 3"]
    with pytest.raises(StoreError, match="format 9"):
        compact(tmp_path)


def test_compacting(tmp_path: Path) -> None:
    one = some_store(tmp_path)
    entries = [one.enqueue(1, bytes(100_000)) for _ in range(100)]
    one.loop.settle()
    for entry in entries:
        one.log.dequeue(entry)
    one.close()
    before = content(tmp_path)
    seen: list[tuple[int, int]] = []
    was, now = compact(tmp_path, lambda done, total: seen.append((done, total)))
    assert now < was - 9_000_000 and now == (tmp_path / "data.mdb").stat().st_size
    assert seen[-1][0] == seen[-1][1]
    assert check(tmp_path).sound
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.mdb", "lock"]
    assert (tmp_path / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_compacting_survives_being_killed(tmp_path: Path) -> None:
    some_store(tmp_path, 2000).close()
    before = content(tmp_path)
    code = "import pathlib, sys; from store.tools import compact; print(flush=True); compact(pathlib.Path(sys.argv[1]))"
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.random() * 0.05)
            process.send_signal(signal.SIGKILL)
        assert check(tmp_path).sound
    assert content(tmp_path) == before
    compact(tmp_path)
    assert content(tmp_path) == before and not (tmp_path / "new").exists()


def test_compacting_without_room_leaves_the_store_as_it_is(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("only root can mount a small file system to fill")
    try:
        some_store(place / "store").close()
        with pytest.raises(StoreError):
            compact(place / "store")
        assert check(place / "store").sound and not (place / "store" / "new").exists()
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_export_and_import(tmp_path: Path) -> None:
    some_store(tmp_path / "a").close()
    text = exported(tmp_path / "a")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["dragoman_store"] == 3 and lines[-1]["entries"] == 903 and text.isascii()
    seen: list[tuple[int, int]] = []
    done = import_(tmp_path / "b", io.StringIO(text), lambda count, total: seen.append((count, total)))
    assert (done.settings, done.messages, done.entries) == (2, 603, 903) and seen[-1] == (1508, 0)
    assert exported(tmp_path / "b") == text
    assert check(tmp_path / "b").sound
    assert content(tmp_path / "b") == content(tmp_path / "a")
    with pytest.raises(StoreError, match="not empty"):
        import_(tmp_path / "b", io.StringIO(text))


def test_import_into_an_empty_store(tmp_path: Path) -> None:
    one = Opened(tmp_path / "a")
    entry = one.enqueue(1)
    one.close()
    Opened(tmp_path / "b").close()
    import_(tmp_path / "b", io.StringIO(exported(tmp_path / "a")))
    two = Opened(tmp_path / "b")
    assert two.ids(1) == [entry.id] and two.log.clean and two.log.new_id() > one.log.last_id
    two.close()


def test_records_of_sessions_are_checked_exported_and_imported(tmp_path: Path) -> None:
    one = Opened(tmp_path / "a")
    one.enqueue(7)
    one.log.keep_record(7, b"key", b"\0value")
    one.log.keep_record(7, b"", b"first")
    one.close()
    assert check(tmp_path / "a").records == 2
    assert import_(tmp_path / "b", io.StringIO(exported(tmp_path / "a"))).records == 2
    compact(tmp_path / "b")
    assert Opened(tmp_path / "b").log.records(7) == [(b"", b"first"), (b"key", b"\0value")]


def test_import_of_the_first_version(tmp_path: Path) -> None:
    one = Opened(tmp_path / "a")
    entry = one.enqueue(7)
    one.close()
    text = exported(tmp_path / "a").replace('"dragoman_store":3', '"dragoman_store":1')
    text = text.replace('"branches":0,', "").replace('"records":0,', "")
    assert import_(tmp_path / "b", io.StringIO(text)).branches == 0
    assert Opened(tmp_path / "b").ids(7) == [entry.id]


@pytest.mark.parametrize("change, problem", [
    (lambda lines: [], "cut off: it ends after line 0"),
    (lambda lines: lines[:-1], "cut off"),
    (lambda lines: lines[:3] + lines[4:], "line"),
    (lambda lines: [*lines, lines[1]], "more after the end"),
    (lambda lines: lines[1:], "line 1 "),
    (lambda lines: ['{"dragoman_store":4,"last_id":0,"revision":0}', *lines[1:]], "version 4"),
    (lambda lines: [lines[0], "not json", *lines[1:]], "line 2 "),
    (lambda lines: [lines[0], "[1, 2]", *lines[1:]], "line 2 "),
    (lambda lines: [lines[0], "{}", *lines[1:]], "line 2 "),
    (lambda lines: [lines[0], "[" * 100_000, *lines[1:]], "line 2 "),
    (lambda lines: [lines[0], '{"message":-1,"stored":""}', *lines[1:]], "'message'"),
    (lambda lines: [lines[0], '{"message":2,"stored":"=?"}', *lines[1:]], "line 2 "),
    (lambda lines: [lines[0], '{"setting":"' + 600 * "k" + '","value":"","revision":1}', *lines[1:]], "'setting'"),
    (lambda lines: [*lines[:-2], lines[-2].replace('"lane":0', '"lane":256'), lines[-1]], "'lane'"),
    (lambda lines: [*lines[:-1], lines[-2], lines[-1]], "another entry's"),
])
def test_import_refuses_what_is_not_an_export(tmp_path: Path, change: object, problem: str) -> None:
    one = Opened(tmp_path / "a")
    one.store.put("k", b"v")
    one.share([1, 2])
    one.enqueue(7)
    one.close()
    lines = change(exported(tmp_path / "a").splitlines())
    with pytest.raises(StoreError, match=problem):
        import_(tmp_path / "b", io.StringIO("".join(line + "\n" for line in lines)))
    assert not (tmp_path / "b" / "data.mdb").exists() and not (tmp_path / "b" / "new").exists()


def damage(data: Path, seed: int) -> None:
    """Overwrite some bytes anywhere behind the meta pages."""
    chance = random.Random(seed)
    content = bytearray(data.read_bytes())
    for _ in range(chance.choice([1, 3, 10, 50])):
        at = chance.randrange(8192, len(content))
        length = chance.choice([1, 1, 8, 100, 5000])
        content[at:at + length] = chance.randbytes(len(content[at:at + length]))
    data.write_bytes(content)


@pytest.mark.parametrize("seed", range(25))
def test_damage_is_never_more_than_a_problem_told(tmp_path: Path, seed: int) -> None:
    """Whatever was overwritten: the tools end, and what was exported can be imported and is sound."""
    some_store(tmp_path / "a", 150).close()
    whole = {line for line in exported(tmp_path / "a").splitlines() if '"stored"' in line}
    damage(tmp_path / "a" / "data.mdb", seed)
    report = check(tmp_path / "a")
    stream = io.StringIO()
    try:
        done = export(tmp_path / "a", stream)
    except StoreDamaged:
        assert not report.sound
        return
    import_(tmp_path / "b", io.StringIO(stream.getvalue()))
    after = check(tmp_path / "b")
    assert after.problems == []
    assert (after.messages, after.entries) == (done.messages, done.entries)
    if report.sound:  # only contents were hit, or what is free
        assert done.messages == len(whole)


@pytest.mark.parametrize("part", [0.00002, 0.0005, 0.02, 0.3, 0.6, 0.9])
def test_of_a_file_that_is_cut_off_the_rest_is_saved(tmp_path: Path, part: float) -> None:
    some_store(tmp_path / "a").close()
    data = tmp_path / "a" / "data.mdb"
    os.truncate(data, int(data.stat().st_size * part))
    report = check(tmp_path / "a")
    assert not report.sound
    stream = io.StringIO()
    if part < 0.0001:
        with pytest.raises(StoreDamaged):
            export(tmp_path / "a", stream)
        return
    done = export(tmp_path / "a", stream)
    assert not done.report.sound
    import_(tmp_path / "b", io.StringIO(stream.getvalue()))
    assert check(tmp_path / "b").sound


def test_one_damaged_page_costs_only_what_was_in_it(tmp_path: Path) -> None:
    one = Opened(tmp_path / "a")
    bodies = [b"%08d" % number * 100 for number in range(2000)]
    for body in bodies:
        one.enqueue(1, body)
    one.close()
    data = tmp_path / "a" / "data.mdb"
    content = bytearray(data.read_bytes())
    page = content.index(bodies[1000]) // 4096 * 4096
    content[page:page + 4096] = bytes(4096)
    data.write_bytes(content)
    stream = io.StringIO()
    done = export(tmp_path / "a", stream)
    assert 1990 < done.messages < 2000 and done.entries == done.messages
    import_(tmp_path / "b", io.StringIO(stream.getvalue()))
    two = Opened(tmp_path / "b")
    assert {two.log.read(found[1]) for found in two.log.scan(1, 0, 0, 5000)} <= set(bodies)
    two.close()


def test_a_report_keeps_the_first_problems_and_counts_all(tmp_path: Path) -> None:
    report = Report(tmp_path)
    for number in range(1500):
        report.problem(str(number))
    assert report.problem_count == 1500 and len(report.problems) == 1000 and not report.sound


def test_one_meta_page_is_enough_to_save_the_rest(tmp_path: Path) -> None:
    some_store(tmp_path / "a").close()
    text = exported(tmp_path / "a")
    data = tmp_path / "a" / "data.mdb"
    original = data.read_bytes()
    for at in (0, 4096):
        content = bytearray(original)
        content[at:at + 200] = bytes(200)
        data.write_bytes(content)
        with pytest.raises(StoreDamaged, match="meta page"):
            Opened(tmp_path / "a")
        report = check(tmp_path / "a")
        assert report.problems[0] == "one of the two meta pages cannot be read"
        stream = io.StringIO()
        export(tmp_path / "a", stream)
        assert stream.getvalue().count("\n") >= text.count("\n") - 10


def test_the_advice_for_a_damaged_store_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"`dragoman ([^`]+)`", ADVICE)
    assert len(commands) == 2
    for command in commands:
        done = CliRunner().invoke(dragoman, command.split())
        assert (done.exit_code, done.output) == (1, "Error: there is no store in FOLDER\n")
