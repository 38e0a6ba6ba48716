"""Whose input is dealt with in a turn of the loop, with transports that are none and a clock that is turned by work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dragoman import shares
from dragoman.shares import BURST, PACE, QUANTUM, Shares

MICROSECOND = 1e-6


class Loop:
    """Runs what is due, a turn at a time."""

    def __init__(self) -> None:
        self.now = 1.0
        self.due: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.told: list[dict[str, Any]] = []

    def call_soon(self, work: Callable[[], None]) -> None:
        self.due.append(work)

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        self.later.append((self.now + seconds, work))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.told.append(context)

    def turn(self) -> None:
        ready = [work for when, work in self.later if when <= self.now]
        self.later = [(when, work) for when, work in self.later if when > self.now]
        due, self.due = self.due, []
        for work in due + ready:
            work()
        self.now += 10 * MICROSECOND


class Transport:
    """Each byte of its input takes a microsecond."""

    def __init__(self, loop: Loop, each: float = MICROSECOND, messages: bool = True) -> None:
        self.loop = loop
        self.front_end: Any = type("FrontEnd", (), {"finished": False})()
        self.sent = 0
        self.messages = messages
        self.moves = True
        self.each = each
        self.rest, self.rest_at, self.waits, self.held, self.flooded_since = b"", 0, False, False, 0
        self.greedy_until, self.pace, self.took = 0.0, PACE, 0.0
        self.fed = b""
        self.peer, self.aborted = "somebody", False

    def feed(self, data: bytes) -> None:
        self.fed += data
        self.sent += self.messages
        self.loop.now += self.each * len(data)

    def progress(self) -> int:
        return self.sent

    def abort(self) -> None:
        self.aborted = True

    def read_or_not(self) -> None:
        self.reads = not (self.waits or self.held)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(shares, "perf_counter", lambda: made.now)
    monkeypatch.setattr(shares, "thread_time", lambda: made.now)
    return made


@pytest.fixture
def turns(loop: Loop) -> Any:
    made: Any = loop
    return Shares(made)


def test_little_is_dealt_with_at_once(loop: Loop, turns: Any) -> None:
    one = Transport(loop)
    turns.take(one, b"a" * 1000)
    turns.take(one, b"b" * 1000)
    assert one.fed == b"a" * 1000 + b"b" * 1000 and not one.waits and not loop.due


def test_much_waits_and_comes_in_order(loop: Loop, turns: Any) -> None:
    one = Transport(loop)
    data = bytes(range(256)) * 200  # 51 ms
    turns.take(one, data)
    turns.take(one, b"more")  # that was read already
    assert one.waits and not one.reads and len(one.fed) < 5 * BURST / MICROSECOND
    while loop.due:
        loop.turn()
    assert one.fed == data + b"more" and one.reads and not one.waits


def test_a_flood_costs_the_others_little(loop: Loop, turns: Any) -> None:
    flood, good = Transport(loop), Transport(loop)
    turns.take(flood, bytes(1 << 20))
    begun, fed = loop.now, len(flood.fed)
    for _ in range(100):
        turns.take(good, bytes(1000))
        loop.turn()
    assert len(good.fed) == 100_000
    assert 0 < (len(flood.fed) - fed) * MICROSECOND < 0.4 * (loop.now - begun)
    assert (len(flood.fed) - fed) * MICROSECOND > 50 * QUANTUM


def test_a_flood_without_messages_costs_less(loop: Loop, turns: Any) -> None:
    flood, good = Transport(loop, messages=False), Transport(loop)
    turns.take(flood, bytes(1 << 20))
    begun, fed = loop.now, len(flood.fed)
    for _ in range(1000):
        turns.take(good, bytes(100))
        loop.turn()
    assert 0 < (len(flood.fed) - fed) * MICROSECOND < 0.25 * (loop.now - begun)


def test_several_floods_cost_no_more_than_one(loop: Loop, turns: Any) -> None:
    floods, good = [Transport(loop) for _ in range(50)], Transport(loop)
    for flood in floods:
        turns.take(flood, bytes(1 << 20))
    begun = loop.now
    for _ in range(400):
        turns.take(good, bytes(1000))
        loop.turn()
    assert loop.now - begun < 1.8 * 0.4
    assert all(flood.rest_at > 3000 for flood in floods)  # each has its turn


def test_pieces_that_are_dear_have_the_flood_rest(loop: Loop, turns: Any) -> None:
    """Where a single piece takes 20 ms, the others have most of the time nevertheless."""
    flood, good = Transport(loop, 0.02 / 256), Transport(loop)
    turns.take(flood, bytes(1 << 16))
    begun, fed = loop.now, len(flood.fed)
    while loop.now < begun + 1:
        turns.take(good, bytes(100))
        loop.turn()
    assert (len(flood.fed) - fed) * flood.each < 0.45 * (loop.now - begun)


def test_one_burst_is_forgotten_of_who_sends_little_since(loop: Loop, turns: Any) -> None:
    """While a flood goes on, and he asks all the time."""
    flood, good = Transport(loop), Transport(loop)
    turns.take(good, bytes(2000))
    waited = []
    for _ in range(500):
        if not flood.rest:
            turns.take(flood, bytes(1 << 16))
        turns.take(good, b"a" * 50)
        waited.append(bool(good.rest))
        while good.rest:
            loop.turn()
        loop.turn()
    assert all(waited[:20]) and not any(waited[-200:])
    assert len(flood.fed) > 0


def test_a_flood_is_not_forgotten(loop: Loop, turns: Any) -> None:
    flood, good = Transport(loop), Transport(loop)
    turns.take(flood, bytes(2000))
    for _ in range(500):
        turns.take(good, b"a" * 50)
        if not flood.rest:
            turns.take(flood, bytes(500))
            assert flood.waits
        loop.turn()


def test_pieces_that_are_dear_and_come_singly_have_their_sender_rest(loop: Loop, turns: Any) -> None:
    """Who sends each when the last is done with has no backlog; he has a fifth of the time all the same."""
    dear, good = Transport(loop, each=20_000 * MICROSECOND), Transport(loop)
    begun = loop.now
    for _ in range(20_000):
        if not dear.rest:
            turns.take(dear, b"d")
        turns.take(good, b"a" * 50)
        loop.turn()
    assert 0.1 < 0.02 * len(dear.fed) / (loop.now - begun) < 0.4


def test_pieces_that_are_dear_do_not_rest_when_nobody_else_is_there(loop: Loop, turns: Any) -> None:
    dear = Transport(loop, each=20_000 * MICROSECOND)
    begun = loop.now
    for _ in range(1000):
        if not dear.rest:
            turns.take(dear, b"d")
        loop.turn()
    assert 0.02 * len(dear.fed) / (loop.now - begun) > 0.8


def test_who_is_held_goes_on_later(loop: Loop, turns: Any) -> None:
    one = Transport(loop)
    turns.take(one, bytes(20_000))
    one.held = True
    while loop.due:
        loop.turn()
    fed = len(one.fed)
    assert fed < 20_000 and not one.waits and not one.reads
    one.held = False
    turns.wait(one)
    while loop.due:
        loop.turn()
    assert len(one.fed) == 20_000 and one.reads


def test_who_begins_to_wait_within_a_turn(loop: Loop, turns: Any) -> None:
    """One's input has another one go on, who has its turn at once: there is none left for the next turn."""
    one, other, good = Transport(loop), Transport(loop), Transport(loop)
    turns.take(one, bytes(1100))
    other.rest = bytes(10)
    plain = one.feed
    one.feed = lambda data: (plain(data), turns.wait(other))[0]
    for _ in range(3):
        turns.take(good, b"a")
        loop.turn()
    assert len(one.fed) == 1100 and len(other.fed) == 10 and not loop.due and not loop.later


def test_what_must_never_happen_costs_one_its_connection_and_not_its_turn(loop: Loop, turns: Any) -> None:
    bad, good = Transport(loop), Transport(loop)
    turns.take(bad, bytes(5000))
    turns.take(good, bytes(5000))
    bad.feed = lambda data: data[1 << 20]  # raises
    while loop.due:
        loop.turn()
    assert len(good.fed) == 5000 and bad.aborted and len(loop.told) == 1 and not bad.waits
