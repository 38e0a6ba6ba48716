"""Kill either broker of a bridge with SIGKILL while messages move: nothing is lost, exactly once doubles nothing, and
the order in which messages first come is kept.

CHAOS_ROUNDS=50 kills so often, CHAOS_SEED=number repeats the choices of an earlier run.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pika
import pytest

from dragoman import testing

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))
MESSAGES = 4000
PASSWORD = "DRAGOMAN_LINK_FAR"

CONFIG = """
[[link]]
name = "there"
url = "amqp://{host}:{port}/"
dialect = "{dialect}"
user = "guest"
password_env = "{password}"
reconnect_max = 1

[[bridge]]
name = "moves"
link = "there"
direction = "{direction}"
local_queue = "near"
remote_queue = "far"
acknowledge = "{acknowledge}"
"""


@pytest.mark.timeout(120 + 10 * ROUNDS)
@pytest.mark.parametrize("acknowledge, dialect, direction", [
    ("exactly-once", "0-9-1", "push"), ("exactly-once", "0-10", "pull"), ("at-least-once", "1.0", "push")])
def test_a_bridge_under_kills(tmp_path: Path, acknowledge: str, dialect: str, direction: str) -> None:
    chance = random.Random(SEED)
    once = acknowledge == "exactly-once"
    with testing.broker(store=tmp_path / "far") as far:
        _declare(far, "far", {"x-message-deduplication": True} if once and direction == "push" else {})
        text = CONFIG.format(host=far.host, port=far.port, dialect=dialect, password=PASSWORD, direction=direction,
                             acknowledge=acknowledge)
        with testing.broker(text, store=tmp_path / "near", env={PASSWORD: "guest"}) as near:
            _declare(near, "near", {})
            source, target = ((near, "near"), (far, "far")) if direction == "push" else ((far, "far"), (near, "near"))
            _publish(*source)
            for _ in range(ROUNDS):
                time.sleep(chance.uniform(0.02, 0.3))  # any moment is a good one
                victim = chance.choice([near, far])
                victim.kill()
                victim.start()
            found = _take_all(*target)
    firsts = list(dict.fromkeys(found))
    assert sorted(firsts) == list(range(MESSAGES)), f"seed {SEED}"
    assert firsts == sorted(firsts), f"out of order: seed {SEED}"
    if once:
        assert len(found) == MESSAGES, f"seed {SEED}"


def _declare(broker: testing.Broker, queue: str, arguments: dict[str, Any]) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().queue_declare(queue, durable=True, arguments=arguments)


def _publish(broker: testing.Broker, queue: str) -> None:
    """Within a transaction: all or nothing, so that no publisher doubles what the bridge is to have once."""
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.tx_select()
        for number in range(MESSAGES):
            channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=2,
                                                                                  message_id=str(number)))
        channel.tx_commit()


def _take_all(broker: testing.Broker, queue: str) -> list[int]:
    """Take messages until all numbers have come, and then until no more come for a while."""
    found: list[int] = []
    end = time.monotonic() + 60
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        for method, _, body in connection.channel().consume(queue, auto_ack=True, inactivity_timeout=2):
            if method is not None:
                found.append(int(body))
            elif len(set(found)) == MESSAGES or time.monotonic() > end:
                return found
    return found
