"""A broker at work is attacked: its well-behaved clients go on, its memory stays bounded, nothing confirmed is lost.

`make chaos` (CHAOS_ROUNDS) also compares how much they get done with how much they get done while the same attacker is
at another broker on the same machine: that is to be 70 % at least. The attacker has what the CPU has left.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman import testing
from tests.chaos.attacks import ATTACKS, Attack
from tests.chaos.citizens import Citizens

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "0"))
LEAST = 0.7
"""Of their throughput, that clients keep."""
SECONDS = 4.0
TURNS = 3
"""How often the attacker goes from one broker to the other, since the machine may have other work, too."""
GROWTH = 64 << 20
"""Bytes of memory that an attack may cost."""
MORE = {"silent": 400 << 20}
"""Of those that need more: 20,000 connections."""
QUICK = ["heartbeats", "errors", "nesting", "sizes", "selectors", "patterns", "deaf"]
"""The most telling ones, which `make test` has, too."""
BOMBS = ["nesting", "sizes"]
"""Of these, those that come to an end by themselves."""


def memory(pid: int) -> int:
    """Bytes of a process's own."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def is_sound(broker: testing.Broker) -> None:
    """Nothing went wrong in it, and it did not say the same thing thousands of times."""
    log = broker.log()
    assert "Traceback" not in log and "must never happen" not in log, log[-3000:]
    assert len(log) < 1 << 20, f"{len(log):,} bytes of log: {log[:2000]}"


@contextlib.contextmanager
def under_attack() -> Iterator[testing.Broker]:
    """A broker, of which a failure says what it had to say."""
    with testing.broker() as broker:
        try:
            yield broker
        except AssertionError as error:
            error.add_note(f"The broker's log:\n{broker.log()[-3000:]}")
            raise


@pytest.mark.parametrize("name", [name for name in ATTACKS if ROUNDS or name in QUICK])
@pytest.mark.timeout(240)
def test_clients_go_on(name: str, tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "store") as broker:
        citizens = Citizens(broker.host, broker.port)
        citizens.progress()
        before = memory(broker.pid)
        with Attack(name, broker.host, broker.port) as attack:
            citizens.progress()
            if ROUNDS:
                citizens.rates(SECONDS * TURNS)  # it goes on for that long
            if name in BOMBS:
                attack.round()
        citizens.progress()
        citizens.close()
        grown = memory(broker.pid) - before
        assert grown < MORE.get(name, GROWTH), f"{grown >> 20} MiB more"
        is_sound(broker)


@pytest.mark.skipif(not ROUNDS, reason="takes long, and a machine to itself: `make chaos` compares")
@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.timeout(240)
def test_clients_keep_their_throughput(name: str) -> None:
    """What clients get done while they are attacked, and while others are. Looked at longer when it seems too little:
    the machine may have been busy with something else.

    The brokers' stores are in memory. On disk, whether a message is written or cancelled out depends on when a batch
    is committed: an attack changes that, and what clients of different dialects get done changes among them by more
    than it costs them.
    """
    kept: dict[str, float] = {}
    whole: dict[str, float] = {}
    shares: dict[str, float] = {}
    with under_attack() as broker, under_attack() as other:
        citizens = Citizens(broker.host, broker.port)
        citizens.progress()
        for turn in range(3 * TURNS):
            for victim, sums in ((other, whole), (broker, kept)):
                with Attack(name, victim.host, victim.port):
                    for dialect, rate in citizens.rates(SECONDS).items():
                        sums[dialect] = sums.get(dialect, 0) + rate
            shares = {dialect: kept[dialect] / whole[dialect] for dialect in whole}
            if turn + 1 >= TURNS and min(shares.values()) >= LEAST:
                break
        citizens.close()
        is_sound(broker)
        is_sound(other)
    print(f"\n{name}: " + ", ".join(f"{dialect} {share:.0%}" for dialect, share in shares.items()))
    assert min(shares.values()) >= LEAST, f"{name}: {shares} of {whole}"
