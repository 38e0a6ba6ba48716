"""A disk that is full, a store that is damaged, a store that somebody else has: under a whole broker."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import amqp
import pytest

from dragoman import testing
from store.lmdb_files import DATA
from tests.chaos.workload import BROKEN, HANG, connect

SIZE = 50_000
ROOM = 8 << 20  # bytes that the store may still grow


def publish(port: int, confirmed: list[int], blocked: threading.Event, go_on: threading.Event) -> None:
    """Publish numbers, until the broker has blocked us and what is on its way has been written."""
    connection = amqp.Connection(f"127.0.0.1:{port}", userid="guest", password="guest", connect_timeout=HANG,
                                 on_blocked=lambda _: blocked.set(), on_unblocked=go_on.set)
    connection.connect()
    channel = connection.channel()
    channel.confirm_select()
    channel.events["basic_ack"].add(lambda tag, multiple: confirmed.extend(range(len(confirmed) + 1, tag + 1)))
    number = 0
    with connection:
        while number < 3 * ROOM // SIZE or not go_on.is_set():
            if not blocked.is_set() or go_on.is_set():
                number += 1
                channel.basic_publish(amqp.Message(f"{number}:".encode() + bytes(SIZE), delivery_mode=2), "", "q")
            while number - len(confirmed) > 5 or blocked.is_set() and not go_on.is_set():
                try:
                    connection.drain_events(timeout=0.5)
                except TimeoutError:
                    if blocked.is_set():
                        break
        while len(confirmed) < number:
            connection.drain_events(timeout=HANG)


def numbers(port: int, queue: str, most: int = 1 << 30) -> list[int]:
    """Take messages out of a queue, with an acknowledgement each, until there are no more or so many."""
    found: list[int] = []
    with connect(port) as connection:
        channel = connection.channel()
        while len(found) < most and (message := channel.basic_get(queue)) is not None:
            body = message.body if isinstance(message.body, bytes) else message.body.encode()
            found.append(int(body.partition(b":")[0]))
            channel.basic_ack(message.delivery_info["delivery_tag"])
    return found


def test_a_full_disk_holds_publishers_and_loses_nothing(tmp_path: Path) -> None:
    confirmed: list[int] = []
    blocked, go_on = threading.Event(), threading.Event()
    with testing.broker(store=tmp_path / "store") as broker:
        with connect(broker.port) as connection:
            connection.channel().queue_declare("q", durable=True, auto_delete=False)
        limit = (tmp_path / "store" / DATA).stat().st_size + ROOM
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        publisher = threading.Thread(target=publish, args=(broker.port, confirmed, blocked, go_on), daemon=True)
        publisher.start()
        assert blocked.wait(HANG), "the publisher was never blocked"
        assert "publishers are held" in broker.log()
        taken = numbers(broker.port, "q", most=20)  # consumers go on
        assert taken == list(range(1, 21))
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert go_on.wait(HANG), "the publisher was never unblocked"
        publisher.join(2 * HANG)
        assert not publisher.is_alive()
        broker.kill()
        broker.start()
        left = numbers(broker.port, "q")
    assert left == sorted(left) and len(set(left)) == len(left)
    missing = set(confirmed) - set(left) - set(taken)
    assert not missing and len(confirmed) > ROOM // SIZE


def test_killed_while_the_disk_is_full(tmp_path: Path) -> None:
    confirmed: list[int] = []
    blocked, go_on = threading.Event(), threading.Event()

    def until_killed(port: int) -> None:
        try:
            publish(port, confirmed, blocked, go_on)
        except BROKEN:
            pass
    with testing.broker(store=tmp_path / "store") as broker:
        with connect(broker.port) as connection:
            connection.channel().queue_declare("q", durable=True, auto_delete=False)
        limit = (tmp_path / "store" / DATA).stat().st_size + ROOM
        resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        publisher = threading.Thread(target=until_killed, args=(broker.port,), daemon=True)
        publisher.start()
        assert blocked.wait(HANG)
        broker.kill()
        publisher.join(2 * HANG)
        broker.start()
        left = numbers(broker.port, "q")
    assert set(confirmed) <= set(left) and left == sorted(left) and confirmed


@pytest.fixture
def used_store(tmp_path: Path) -> Path:
    """A store with messages in it, at rest."""
    with testing.broker(store=tmp_path / "store") as broker, connect(broker.port) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True, auto_delete=False)
        channel.confirm_select()
        for number in range(200):
            channel.basic_publish_confirm(amqp.Message(f"{number}:".encode() + bytes(500), delivery_mode=2), "", "q")
        connection.close()
        assert broker.stop() == 0
    return tmp_path / "store"


def serve(folder: Path) -> subprocess.CompletedProcess[str]:
    """`dragoman serve` on a store that it should refuse."""
    config = folder.parent / "dragoman.toml"
    config.write_text(f'[[listeners]]\nport = 0\n[store]\npath = "{folder}"\n')
    return subprocess.run([sys.executable, "-m", "dragoman", "serve", "--config", str(config)], timeout=60,
                          capture_output=True, text=True)


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "nonsense"])
def test_a_damaged_store_is_refused(used_store: Path, damage: str) -> None:
    data = used_store / DATA
    content = data.read_bytes()
    if damage == "truncated":
        data.write_bytes(content[:len(content) // 2])
    elif damage == "overwritten":
        data.write_bytes(content[:8192] + os.urandom(len(content) - 8192))
    else:
        data.write_bytes(b"not a store at all" * 1000)
    before = data.read_bytes()
    done = serve(used_store)
    output = done.stdout + done.stderr
    assert done.returncode == 65, output
    assert "damaged" in output and "Traceback" not in output
    assert data.read_bytes() == before, "what is left of it was touched"


def test_a_store_in_use_is_refused(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "store") as broker:
        done = serve(tmp_path / "store")
        assert done.returncode == 75 and f"in use by process {broker.pid}" in done.stdout + done.stderr
        with connect(broker.port) as connection:  # and the first one does not mind
            connection.channel().queue_declare("q", auto_delete=False)
