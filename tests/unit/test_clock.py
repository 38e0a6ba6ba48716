"""The broker's clock follows the system's, and does not jump with it."""

from __future__ import annotations

import time

import pytest

from broker.clock import Clock

HOUR = 3_600_000
DAY = 24 * HOUR


class System:
    """The system's clocks, ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.up = 1_700_000_000_000, 5_000
        monkeypatch.setattr(time, "time", lambda: self.wall / 1000)
        monkeypatch.setattr(time, "monotonic", lambda: self.up / 1000)

    def passes(self, clock: Clock, milliseconds: int, step: int = 1000) -> None:
        for _ in range(0, milliseconds, step):
            self.wall += step
            self.up += step
            clock.tick()


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    return System(monkeypatch)


@pytest.mark.parametrize("step", [1, 700, -900])
def test_it_follows_small_steps(system: System, step: int) -> None:
    clock = Clock()
    system.wall += step
    system.passes(clock, 3000)
    assert abs(clock.now - system.wall) <= 1 and not clock.ahead


@pytest.mark.parametrize("jump", [2 * HOUR, -2 * HOUR])
def test_a_jump_is_made_good_little_by_little(system: System, jump: int) -> None:
    clock = Clock()
    before = clock.now
    system.wall += jump
    clock.tick()
    assert abs(clock.now - before) <= 1 and clock.ahead == pytest.approx(jump)
    system.passes(clock, 60_000, 7)
    assert clock.now - before == pytest.approx(90_000 if jump > 0 else 30_000, abs=100)
    system.passes(clock, 4 * HOUR)
    assert abs(clock.now - system.wall) <= 1 and not clock.ahead


def test_it_never_goes_back(system: System) -> None:
    clock = Clock()
    system.wall -= 300 * DAY
    for _ in range(100):
        before = clock.now
        system.passes(clock, 1000)
        assert clock.now > before


def test_a_clock_that_is_set_after_the_start(system: System) -> None:
    clock = Clock()
    system.wall += 20 * 365 * DAY
    clock.tick()
    assert abs(clock.now - system.wall) <= 1
