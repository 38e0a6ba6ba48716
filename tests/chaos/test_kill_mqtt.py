"""Kill the broker with SIGKILL under MQTT sessions that are kept: QoS 1 loses nothing, QoS 2 doubles nothing either.

As test_kill.py: CHAOS_ROUNDS=50 has it done so often, CHAOS_SEED=number repeats the choices of an earlier run.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from dragoman import testing
from store.tools import check
from tests.chaos.workload_mqtt import Device, Reader, Writer

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.timeout(120 + 30 * ROUNDS)
def test_at_least_once_and_exactly_once(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    store = tmp_path / "store"
    writers = [Writer("writer1", 4, "load/1", 1), Writer("writer2", 5, "load/2", 2), Writer("writer3", 4, "load/3", 2)]

    def complete() -> bool:
        return all(writer.stopping and not writer.pending for writer in writers) and all(
            len(set(numbers_of(readers, topic))) == writer.sent
            for readers in (alone[:1], alone[1:], members)
            for topic, writer in ((writer.topic, writer) for writer in writers))

    alone = [Reader("reader4", 4, "load/#", complete), Reader("reader5", 5, "load/+", complete)]
    members = [Reader("member4", 4, "$share/group/load/#", complete), Reader("member5", 5, "$share/group/load/#",
                                                                             complete)]
    devices: list[Device] = [*writers, *alone, *members]
    with testing.broker(store=store) as broker:
        for reader in (*alone, *members):
            reader.subscribe(broker.port)
        for writer in writers:
            writer.connect(broker.port).disconnect()
            writer.was_there = True
        try:
            for number in range(ROUNDS + 1):
                last = number == ROUNDS
                for writer in writers:
                    writer.stopping = last
                for device in devices:
                    device.start(broker.port)
                if not last:
                    time.sleep(chance.uniform(0.05, 0.8))
                    broker.kill()
                hang = [device for device in devices if not device.join()]
                if hang and last:
                    verify(alone, members, writers)
                assert not hang, f"{', '.join(device.client_id for device in hang)} hang"
                if not last:
                    report = check(store)
                    assert report.sound, f"the store is not sound: {report.problems[:5]}"
                    broker.start()
            verify(alone, members, writers)
        except AssertionError as error:
            raise AssertionError(f"round {number + 1}, CHAOS_SEED={SEED}: {error}") from error
        broker.stop()
    report = check(store)
    assert report.sound and report.messages == 0
    assert report.records == len(devices) + len(members)  # each session and shared subscription, and nothing else
    print(f"\n{ROUNDS} rounds: {sum(writer.sent for writer in writers):,} messages sent")


def numbers_of(readers: list[Reader], topic: str) -> list[int]:
    return [number for reader in readers for number in reader.found.get(topic, [])]


def verify(alone: list[Reader], members: list[Reader], writers: list[Writer]) -> None:
    for writer in writers:
        expected = list(range(writer.sent))
        for reader in alone:
            found = reader.found.get(writer.topic, [])
            if writer.qos == 1:
                found = list(dict.fromkeys(found))  # what comes again is after its first time
            assert found == expected, f"{reader.client_id}, {writer.topic}: {different(found, expected)}"
        shared = numbers_of(members, writer.topic)
        if writer.qos == 1:
            shared = list(set(shared))
        assert sorted(shared) == expected, f"the group, {writer.topic}: {different(sorted(shared), expected)}"


def different(found: list[int], expected: list[int]) -> str:
    """Where two lists part."""
    at = next((at for at, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other),
              min(len(found), len(expected)))
    return f"{len(found)} instead of {len(expected)}, from the {at}th on: {found[at:at + 10]}"
