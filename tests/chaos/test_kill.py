"""Kill the broker with SIGKILL at random moments under load, start it again on the same store, and account for all.

CHAOS_ROUNDS=50 has it done so often (`make chaos`); CHAOS_SEED=number repeats the choices of an earlier run, though not
its timing.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from dragoman import testing
from store.tools import check
from tests.chaos.workload import Load

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.timeout(120 + 30 * ROUNDS)
def test_nothing_confirmed_is_lost(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    store = tmp_path / "store"
    load = Load(SEED)
    messages = 0
    with testing.broker(store=store) as broker:
        load.declare(broker.port)
        for number in range(ROUNDS):
            try:
                load.start(broker.port)
                time.sleep(chance.uniform(0.05, 1.2))
                broker.kill()
                load.join()
                report = check(store)
                assert report.sound, f"the store is not sound: {report.problems[:5]}"
                if chance.random() < 0.3:
                    kill_while_starting(broker, chance.uniform(0.05, 0.5))
                broker.start()
                if chance.random() < 0.2:  # at once, before anybody has come
                    broker.kill()
                    broker.start()
                messages += load.verify(broker.port, take=chance.random() < 0.7)
            except AssertionError as error:
                raise AssertionError(f"round {number + 1}, CHAOS_SEED={SEED}: {error}") from error
    sent = sum(len(place.publisher.sent) for place in load.places) + len(load.spread.sent)
    confirmed = sum(len(place.publisher.confirmed) for place in load.places) + len(load.spread.confirmed)
    print(f"\n{ROUNDS} rounds: {sent:,} messages sent, {confirmed:,} confirmed, {messages:,} found after crashes")
    assert confirmed > 0 and messages > 0


def kill_while_starting(broker: testing.Broker, seconds: float) -> None:
    """A crash in the middle of recovery, or shortly before or after it."""
    def kill() -> None:
        if broker.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(broker.pid, signal.SIGKILL)
    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        broker.start()
        timer.join()
    except testing.BrokerFailed:
        pass
    timer.join()
    broker.kill()
