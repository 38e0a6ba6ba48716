"""SIGTERM with clients connected, and what systemd is told of a broker's life."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pika
import pika.exceptions
import pytest
from pamqp.commands import Basic, Connection

from dragoman import testing
from tests.wire import Client, ConnectionClosed, Hangup, Peer, eventually

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0
FORCED = "CONNECTION_FORCED - broker forced connection closure: it is shutting down"
PATIENT = "shutdown_seconds = '1 d'"  # a stop that waits for its end would run into the test's timeout


def connect(broker: testing.Broker) -> Client:
    return Client(Peer(broker.host, broker.port)).open()


@contextmanager
def stopping(broker: testing.Broker) -> Iterator[Future[int]]:
    """SIGTERM, and the exit code once there is one."""
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(broker.stop)
        eventually(lambda: "SIGTERM: stopping" in broker.log())
        yield code


def told_to_close(client: Client) -> None:
    """Read as far as connection.close, and do not answer it."""
    while client.read_raw()[7:11] != b"\x00\x0a\x00\x32":
        pass


def test_a_client_is_told() -> None:
    with testing.broker(PATIENT) as broker:
        client = connect(broker)
        with stopping(broker) as code:
            with pytest.raises(ConnectionClosed) as closed:
                client.pump()
            assert (closed.value.code, closed.value.text, closed.value.method) == (320, FORCED, (0, 0))
            with pytest.raises(Hangup):
                client.read_raw()
            assert code.result() == 0
        client.drop()
        assert broker.log().endswith("info     stopped\n")


def test_pika_is_told_while_it_consumes() -> None:
    with testing.broker(PATIENT) as broker:
        channel = pika.BlockingConnection(pika.URLParameters(broker.url)).channel()
        channel.basic_consume(channel.queue_declare("", exclusive=True).method.queue, lambda *_: None)
        with stopping(broker) as code:
            with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as closed:
                channel.start_consuming()
            assert (closed.value.reply_code, closed.value.reply_text) == (320, FORCED)
            assert code.result() == 0


def test_confirms_come_before_the_end_and_are_true(tmp_path: Path) -> None:
    with testing.broker(PATIENT, store=tmp_path) as broker:
        client = connect(broker)
        channel = client.channel()
        channel.confirm()
        channel.queue("q", durable=True)
        for _ in range(500):
            channel.publish("", "q", b"x" * 1000, delivery_mode=2)
        confirmed = channel.expect(Basic.Ack).delivery_tag or 0
        with stopping(broker) as code:
            with pytest.raises(ConnectionClosed):
                while True:
                    confirmed = channel.expect(Basic.Ack).delivery_tag or 0
            client.drop()
            assert code.result() == 0
        broker.start()
        client = connect(broker)
        assert (client.channel().queue("q", durable=True).message_count or 0) >= confirmed > 0
        client.close()
    checked = subprocess.run([sys.executable, "-m", "dragoman", "store", "check", "--path", str(tmp_path)], cwd=ROOT,
                             text=True, capture_output=True)
    assert (checked.returncode, "no problems" in checked.stdout) == (0, True)


def test_a_client_that_never_answers_is_waited_for_no_longer_than_allowed() -> None:
    with testing.broker("shutdown_seconds = 1") as broker:
        client = connect(broker)
        with stopping(broker) as code:
            told_to_close(client)
            assert code.result() == 0
        client.drop()


def test_nor_is_one_that_never_reads() -> None:
    with testing.broker("shutdown_seconds = 1") as broker:
        clogged, other = connect(broker), connect(broker).channel()
        other.queue("q")
        for _ in range(100):
            assert other.put("", "q", b"x" * 500_000)
        clogged.channel().send(Basic.Consume(0, "q", "", no_ack=True))
        eventually(lambda: other.count("q"), lambda count: count < 100)
        with stopping(broker) as code:
            told_to_close(other.client)
            assert code.result() == 0
        clogged.drop()
        other.client.drop()


def test_a_second_signal_ends_it_at_once() -> None:
    with testing.broker(PATIENT) as broker:
        client = connect(broker)
        os.kill(broker.pid, signal.SIGTERM)
        told_to_close(client)
        assert broker.stop() == 1
        client.drop()
        assert broker.log().endswith("stopped at once by a second SIGTERM\n")


def test_nobody_can_connect_while_it_stops() -> None:
    with testing.broker(PATIENT) as broker:
        client = connect(broker)
        with stopping(broker) as code:
            told_to_close(client)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((broker.host, broker.port))
            os.kill(broker.pid, signal.SIGHUP)  # changes nothing any more
            client.send(0, Connection.CloseOk())
            assert code.result() == 0
        client.drop()
        assert "read again" not in broker.log()


def test_systemd_is_told(tmp_path: Path) -> None:
    """As with Type=notify and WatchdogSec=: sd_notify(3)."""
    path = str(tmp_path / "notify")
    config = tmp_path / "d.toml"
    config.write_text('[[listeners]]\nport = 0\n[store]\nkind = "memory"\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(WAIT)
        environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        command = [sys.executable, "-m", "dragoman", "serve", "--config", str(config)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
            def told(key: str) -> dict[str, str]:
                """The next that has this key; the watchdog's food may come at any time."""
                while True:
                    lines = dict(line.split("=", 1) for line in systemd.recv(65536).decode().splitlines())
                    if key in lines:
                        return lines
                    assert lines == {"WATCHDOG": "1"}

            try:
                ready = told("READY")
                assert ready["MAINPID"] == str(process.pid)
                assert ready["STATUS"].startswith("listening on amqp://127.0.0.1:")
                told("WATCHDOG")
                told("WATCHDOG")
                process.send_signal(signal.SIGHUP)
                assert told("RELOADING")["MONOTONIC_USEC"].isdigit()
                assert told("READY") == {"READY": "1"}
                process.send_signal(signal.SIGTERM)
                assert told("STOPPING")["STOPPING"] == "1"
                assert (process.wait(WAIT), "Traceback" in process.communicate()[1]) == (0, False)
            finally:
                process.kill()
