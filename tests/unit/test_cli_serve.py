"""`dragoman serve` as a process, around a stub of the server: signals, readiness, exit codes, what is printed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WAIT = 60.0


class Run:
    """A started process and the socket that it notifies."""

    def __init__(self, process: subprocess.Popen[str], ready: socket.socket) -> None:
        self.process = process
        self.ready = ready

    def told(self) -> dict[str, str]:
        """The next that it tells systemd."""
        return dict(line.split("=", 1) for line in self.ready.recv(65536).decode().splitlines())

    def end(self) -> tuple[int, str]:
        """Its exit code and what it printed."""
        out, _ = self.process.communicate(timeout=WAIT)
        return self.process.returncode, out

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


@contextmanager
def serve(*arguments: str, stub: str = "", **env: str) -> Iterator[Run]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        name = f"dragoman-test-{uuid.uuid4().hex}"
        ready.bind(f"\0{name}")
        ready.settimeout(WAIT)
        environment = {**os.environ, "STUB": stub, "NOTIFY_SOCKET": f"@{name}", "PYTHONPATH": str(ROOT), **env}
        process = subprocess.Popen([sys.executable, str(HERE / "stub_server.py"), "serve", *arguments], text=True,
                                   env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with process:
            try:
                yield Run(process, ready)
            finally:
                process.kill()


@pytest.fixture
def text_config(tmp_path: Path) -> Path:
    path = tmp_path / "d.toml"
    path.write_text('[log]\nformat = "text"\n')
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_starts_says_so_and_stops(text_config: Path, number: signal.Signals) -> None:
    with serve("--config", str(text_config)) as run:
        told = run.told()
        assert told["READY"] == "1"
        assert told["MAINPID"] == str(run.process.pid)
        assert told["X_DRAGOMAN_URLS"] == "amqp://127.0.0.1:5672 amqps://[::1]:5671"
        run.signal(number)
        assert run.told()["STOPPING"] == "1"
        code, out = run.end()
    assert code == 0
    for expected in ("listening on amqp://127.0.0.1:5672", "listening on amqps://[::1]:5671", "may log in: nobody",
                     "messages are kept in", "dragoman send --declare hello", "stopping within 10", "info     stopped"):
        assert expected in out
    assert "Traceback" not in out


@pytest.mark.parametrize(("stub", "code", "says"), [
    ("start=store", 1, "the store cannot be used: do this"),
    ("start=locked", 75, "another broker has the store"),
    ("start=damaged", 65, "the store is damaged: do that"),
    ("start=port", 75, "cannot start: address already in use"),
    ("start=address", 78, "cannot start: no such address"),
    ("start=value", 78, "something is configured wrong"),
    ("start=bug", 1, "cannot start: unexpected RuntimeError: a bug"),
    ("fail", 1, "the broker stops: the disk is gone"),
])
def test_what_goes_wrong_has_its_exit_code_and_one_line(stub: str, code: int, says: str, text_config: Path) -> None:
    with serve("--config", str(text_config), stub=stub) as run:
        assert run.end()[0] == code
    with serve("--config", str(text_config), stub=stub) as run:
        out = run.end()[1]
    assert sum(says in line for line in out.splitlines()) == 1
    assert "Traceback" not in out


def test_a_traceback_is_shown_at_level_debug_only(text_config: Path) -> None:
    text_config.write_text('[log]\nformat = "text"\nlevel = "debug"\n')
    with serve("--config", str(text_config), stub="start=bug") as run:
        assert "Traceback" in run.end()[1]


def test_a_wrong_configuration(text_config: Path) -> None:
    text_config.write_text('[log]\nlevle = "info"\n[tls]\ncertificate = "none.pem"\n')
    with serve("--config", str(text_config)) as run:
        assert run.end() == (78, f"dragoman: {text_config}: log.levle is not a key; did you mean log.level?\n")
    text_config.write_text('[tls]\ncertificate = "none.pem"\n')
    with serve("--config", str(text_config)) as run:
        code, out = run.end()
    assert (code, "none.pem cannot be read: No such file" in out) == (78, True)
    text_config.write_text('[log]\nfile = "none/there.log"\n')
    with serve("--config", str(text_config)) as run:
        code, out = run.end()
    assert (code, "there.log: cannot be opened: No such file" in out) == (78, True)


def test_a_second_signal_stops_at_once(text_config: Path) -> None:
    with serve("--config", str(text_config), stub="hang") as run:
        run.told()
        run.signal(signal.SIGTERM)
        assert run.told()["STOPPING"] == "1"
        run.signal(signal.SIGTERM)
        code, out = run.end()
    assert (code, "stopped at once by a second SIGTERM" in out) == (1, True)


def test_a_stop_that_fails(text_config: Path) -> None:
    with serve("--config", str(text_config), stub="stopbug") as run:
        run.told()
        run.signal(signal.SIGTERM)
        code, out = run.end()
    assert (code, "the stop was not clean: a bug" in out) == (1, True)


def test_reload(text_config: Path) -> None:
    with serve("--config", str(text_config)) as run:
        run.told()
        text_config.write_text('[log]\nformat = "text"\n[store]\nkind = "memory"\n')
        run.signal(signal.SIGHUP)
        told = run.told()
        assert told["RELOADING"] == "1" and told["MONOTONIC_USEC"].isdigit()
        assert run.told() == {"READY": "1"}
        text_config.write_text("nonsense")
        run.signal(signal.SIGHUP)
        assert run.told()["RELOADING"] == "1"
        assert run.told() == {"READY": "1"}
        run.signal(signal.SIGTERM)
        code, out = run.end()
    assert code == 0
    assert "configuration read again; these wait for a restart: store.kind" in out
    assert "not reloaded:" in out and "is not TOML" in out


def test_a_reload_that_fails_changes_nothing(text_config: Path) -> None:
    with serve("--config", str(text_config), stub="reloadbug") as run:
        run.told()
        run.signal(signal.SIGHUP)
        run.told()
        run.told()
        run.signal(signal.SIGTERM)
        code, out = run.end()
    assert (code, "not reloaded: a bug" in out) == (0, True)


def test_a_log_file_is_opened_anew_on_reload(tmp_path: Path, text_config: Path) -> None:
    text_config.write_text('[log]\nfile = "d.log"\n')
    with serve("--config", str(text_config)) as run:
        run.told()
        (tmp_path / "d.log").rename(tmp_path / "d.log.1")
        run.signal(signal.SIGHUP)
        run.told()
        run.told()
        run.signal(signal.SIGTERM)
        assert run.end()[0] == 0
    first, second = ([json.loads(line)["message"] for line in (tmp_path / name).read_text().splitlines()]
                     for name in ("d.log.1", "d.log"))
    assert "listening on amqp://127.0.0.1:5672" in first
    assert second[-1] == "stopped"


def test_the_watchdog_is_fed(text_config: Path) -> None:
    with serve("--config", str(text_config), WATCHDOG_USEC="20000") as run:
        assert run.told()["READY"] == "1"
        assert [run.told() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3


def test_it_dies_with_its_lifeline(text_config: Path) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    process = subprocess.Popen([sys.executable, str(HERE / "stub_server.py"), "serve", "--config", str(text_config),
                                "--lifeline", str(read_end)], pass_fds=[read_end], stderr=subprocess.DEVNULL,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    with process:
        os.close(read_end)
        os.close(write_end)
        assert process.wait(WAIT) == -signal.SIGKILL
