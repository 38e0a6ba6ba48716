"""Kill a process that prepares, commits and rolls back distributed transactions, and account for each of them.

It is the core alone, over a real store: CHAOS_ROUNDS and CHAOS_SEED are as in test_kill.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.tools import check

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
sys.path.insert(0, str(UNIT))

from xa_kit import Bench  # noqa: E402

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "4"))
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))

CHILD = """
import pathlib, random, sys
sys.path[:0] = sys.argv[4:]
from xa_kit import Bench

bench = Bench(pathlib.Path(sys.argv[1]))
number = int(sys.argv[2])
chance = random.Random(int(sys.argv[3]))
bench.queue("a", {})
bench.queue("b", {})
open_ones = []

def say(*words):
    print(*words, flush=True)

say("ready")
while True:
    for _ in range(chance.randrange(1, 20)):
        number += 1
        body = b"%d" % number * chance.choice([1, 1, 1, 20_000])
        bench.publish("", "a", b"%d" % number, True, 0)
        bench.broker.log.commit(lambda number=number: say("published", number))
        branch = bench.begin((1, b"%d" % number, b""))
        bench.settle_body(branch, "a", b"%d" % number)
        for _ in range(3):
            bench.send(branch, "b", body)
        bench.branches.end((1, b"%d" % number, b""), "s", False, False)
        say("prepares", number)
        bench.branches.prepare((1, b"%d" % number, b""), lambda status, number=number: say("prepared", number, status))
        open_ones.append(number)
    chance.shuffle(open_ones)
    for _ in range(chance.randrange(0, len(open_ones) + 1)):
        of = open_ones.pop()
        xid = (1, b"%d" % of, b"")
        if chance.random() < 0.5:
            say("commits", of)
            bench.branches.commit(xid, False, lambda status, of=of: say("committed", of, status))
        else:
            say("rolls", of)
            bench.branches.rollback(xid, lambda status, of=of: say("rolled", of, status))
            bench.drop_body("a", b"%d" % of, lambda of=of: say("dropped", of))
    if chance.random() < 0.5:
        bench.loop.turn()
    else:
        bench.loop.settle()
"""


def numbers(said: list[list[str]], word: str) -> set[int]:
    return {int(words[1]) for words in said if words[0] == word}


@pytest.mark.timeout(120 + 30 * ROUNDS)
def test_each_branch_is_as_it_was_said_to_be(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    store = tmp_path / "store"
    number = seen = 0
    for round_number in range(ROUNDS):
        said = run_and_kill(store, number, chance)
        number = max(numbers(said, "prepares"), default=number)
        report = check(store)
        assert report.sound, f"CHAOS_SEED={SEED}: {report.problems[:5]}"
        bench = Bench(store)
        try:
            seen += account(bench, said, chance)
        except AssertionError as error:
            raise AssertionError(f"round {round_number + 1}, CHAOS_SEED={SEED}: {error}") from error
        finally:
            bench.close()
        assert check(store).sound and check(store).entries == 0 and check(store).branches == {}
    print(f"\n{ROUNDS} rounds: {number} branches, {seen} found prepared after crashes")
    assert seen > 0


def run_and_kill(store: Path, number: int, chance: random.Random) -> list[list[str]]:
    """What the child said until it died."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(store), str(number), str(chance.randrange(1 << 30)),
                              str(ROOT), str(UNIT)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    end = time.monotonic() + chance.uniform(0.1, 0.8)
    said: list[list[str]] = []
    while time.monotonic() < end:
        said.append(child.stdout.readline().split())
    child.kill()
    said += [line.split() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    return said


def account(bench: Bench, said: list[list[str]], chance: random.Random) -> int:
    """Each branch is prepared, or committed, or undone, and nothing else; what was told is so. Then all are ended, and
    the queues emptied. Gives how many were prepared."""
    prepared = {int(xid[1]) for xid in bench.branches.recover()}
    sources = [int(body) for body in bench.bodies("a")]
    copies: dict[int, int] = {}
    for body in bench.bodies("b"):
        of = number_of(body)
        copies[of] = copies.get(of, 0) + 1
    assert len(set(sources)) == len(sources) and set(copies.values()) <= {3}
    undone, committed = set(sources), set(copies)
    assert not (prepared & undone or prepared & committed or undone & committed)
    assert all(words[2] == "0" for words in said if words[0] in ("prepared", "committed", "rolled"))
    commits, rolls, drops = (numbers(said, word) for word in ("commits", "rolls", "rolls"))
    lost = numbers(said, "published") - prepared - undone - committed
    assert lost <= drops, f"lost: {sorted(lost - drops)[:5]}"
    assert numbers(said, "prepared") - commits - rolls <= prepared
    assert numbers(said, "committed") <= committed <= commits
    assert not numbers(said, "rolled") & (prepared | committed)
    assert not numbers(said, "dropped") & undone
    assert bench.queue("a", {}).unsettled == len(prepared)
    for of in prepared:
        assert (bench.commit if chance.random() < 0.5 else bench.rollback)((1, b"%d" % of, b"")) == 0
    sources = [int(body) for body in bench.bodies("a")]
    copied = [number_of(body) for body in bench.bodies("b")]
    assert len(sources) + len(copied) // 3 == len(undone) + len(committed) + len(prepared)
    assert all(copied.count(of) == 3 for of in set(copied)) and not set(copied) & set(sources)
    for name in ("a", "b"):
        bench.queue(name, {}).purge()
    return len(prepared)


def number_of(body: bytes) -> int:
    """A large body is its number many times over."""
    if len(body) < 20_000:
        return int(body)
    return int(body[:len(body) // 20_000])
