"""dragoman.testing: a real broker inside a test suite."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pika
import pytest

from dragoman import testing
from dragoman.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0


def publish(url: str, body: bytes) -> None:
    """Put a persistent message into the durable queue q, and wait until the broker has it."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", body, pika.BasicProperties(delivery_mode=2))


def depth(url: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return int(connection.channel().queue_declare("q", durable=True).method.message_count)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].startswith(" Z")


def test_a_broker_in_memory() -> None:
    with testing.broker() as b:
        assert (b.host, b.url, b.urls) == ("127.0.0.1", f"amqp://guest:guest@127.0.0.1:{b.port}/",
                                           [f"amqp://127.0.0.1:{b.port}"])
        publish(b.url, b"hello")
        assert depth(b.url) == 1
        assert f"listening on amqp://127.0.0.1:{b.port}" in b.log()
        pid, folder = b.pid, b.folder
        with testing.broker() as other:
            assert other.port != b.port
    assert not alive(pid)
    assert not folder.exists()
    assert b.pid == 0


def test_stop_and_start_again(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "data") as b:
        publish(b.url, b"one")
        port, pid = b.port, b.pid
        b.restart()
        assert b.port == port and b.pid != pid
        publish(b.url, b"two")
        assert b.stop() == 0
        assert b.stop() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((b.host, port), 5)
        b.start()
        assert depth(b.url) == 2
        with pytest.raises(testing.BrokerFailed, match="runs already"):
            b.start()
    assert (tmp_path / "data").is_dir()


def test_kill_and_start_again(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path) as b:
        publish(b.url, b"one")
        b.kill()
        b.kill()
        b.start()
        assert depth(b.url) == 1
        assert b.log().count("listening on") == 2


def test_its_configuration_and_environment() -> None:
    with testing.broker('virtual_hosts = ["/", "shop"]\n[log]\nlevel = "debug"', env={"NO_SUCH": "1"}) as b:
        assert b'NO_SUCH=1' in Path(f"/proc/{b.pid}/environ").read_bytes()
        publish(b.url + "shop", b"")
        assert 'level = "debug"' in b.config_path.read_text()


def test_several_listeners() -> None:
    with testing.broker('[[listeners]]\nport = 0\n[[listeners]]\nport = 0\nhost = "::1"') as b:
        assert len({*b.urls}) == 2 and b.urls[1].startswith("amqp://[::1]:")
        urls = b.urls
        b.restart()
        assert b.urls == urls


def test_a_changed_file_is_read_on_sighup() -> None:
    with testing.broker() as b:
        b.config_path.write_text(b.config_path.read_text().replace('level = "info"', 'level = "debug"'))
        os.kill(b.pid, signal.SIGHUP)
        deadline = time.monotonic() + WAIT
        while "configuration read again" not in b.log():
            assert time.monotonic() < deadline, b.log()
            time.sleep(0.02)


def test_a_wrong_configuration() -> None:
    with pytest.raises(ConfigError, match="config: limits.x is not a key"), testing.broker("[limits]\nx = 1"):
        pass


def test_a_broker_that_does_not_start(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path) as b:
        with pytest.raises(testing.BrokerFailed, match="exit code 75(?s:.*)another"):
            with testing.broker(store=tmp_path):
                pass
        assert alive(b.pid)


def test_it_dies_with_the_test_runner() -> None:
    script = ("import dragoman.testing, os, sys\n"
              "with dragoman.testing.broker() as b:\n"
              "    print(b.pid, flush=True)\n"
              "    sys.stdin.read()\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
                          env=environment) as runner:
        assert runner.stdout is not None
        pid = int(runner.stdout.readline())
        assert alive(pid)
        runner.kill()
    deadline = time.monotonic() + WAIT
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
