"""A machine that lets the broker down: no more file descriptors, a clock that jumps. Clients that are at work go on.

What a full disk does is in test_disk.py, what a crash does in test_kill.py.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dragoman import testing
from tests.chaos.citizens import Citizens
from tests.chaos.test_attacks import is_sound
from tests.wire import Client, Hangup, Peer, eventually

FAKETIME = [path for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


def is_served(peer: Peer) -> bool:
    client = None
    try:
        client = Client(peer).open()
        client.close()
        return True
    except (Hangup, OSError):
        return False
    finally:
        if client is not None:
            client.drop()


def test_no_more_file_descriptors(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "store") as broker:
        peer = Peer(broker.host, broker.port)
        citizens = Citizens(*peer)
        citizens.progress()
        taken = len(os.listdir(f"/proc/{broker.pid}/fd"))
        _, most = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (taken + 20, most))
        with ExitStack() as stack:
            for _ in range(100):
                with suppress(OSError):
                    stack.enter_context(socket.create_connection(peer, timeout=5))
            eventually(lambda: "a client is turned away" in broker.log())
            citizens.progress()
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (most, most))
        eventually(lambda: is_served(peer))
        citizens.progress()
        citizens.close()
        is_sound(broker)


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed: apt-get install libfaketime")
def test_the_clock_jumps(tmp_path: Path) -> None:
    """By hours, forwards and backwards. Who has a heartbeat of 30 s stays connected."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    environment = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
                   "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1"}
    with testing.broker(store=tmp_path / "store", env=environment) as broker:
        peer = Peer(broker.host, broker.port)
        citizens = Citizens(*peer)
        patient = Client(peer).open(heartbeat=30)
        try:
            for jump in ("+6h", "-2d", "+3h", "+0"):
                clock.with_suffix(".new").write_text(f"{jump}\n")
                shutil.move(clock.with_suffix(".new"), clock)
                eventually(lambda: "clock has jumped" in broker.log())
                citizens.progress()
                channel = patient.channel()
                channel.close()
        finally:
            patient.drop()
        citizens.close()
        assert "missed heartbeats" not in broker.log()
        is_sound(broker)
