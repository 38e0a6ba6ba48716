"""How `make fuzz` shares its time out, and what it says of a target that is none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz.hunt import HOME, split


@pytest.mark.parametrize(("shares", "jobs", "times"), [
    ({"a": 1.0}, 2, [60]), ({"a": 3.0}, 1, [60]), ({"a": 1.0, "b": 1.0}, 2, [60, 60]),
    ({"a": 1.0, "b": 2.0}, 1, [20, 40]),
    ({"a": 1.0, "b": 1.0, "c": 2.0}, 2, [30, 30, 60])])
def test_the_time_is_for_all_targets_together(shares: dict[str, float], jobs: int, times: list[int]) -> None:
    assert split(shares, 60, jobs) == times


def test_a_target_that_is_none() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.fuzz.hunt", "--seconds", "1", "selectr"], cwd=HOME, text=True,
                          capture_output=True)
    assert done.returncode == 2 and done.stdout == ""
    assert "no such target: selectr; there are " in done.stderr and "selector" in done.stderr
