"""A real broker inside a test suite.

    with dragoman.testing.broker() as b:
        connection = pika.BlockingConnection(pika.URLParameters(b.url))

It runs as a process of its own, on a free port of 127.0.0.1, with a store in memory unless it is given a folder, and
is gone when the `with` block ends; also when the test runner itself is killed. As a pytest fixture:

    @pytest.fixture
    def broker():
        with dragoman.testing.broker() as b:
            yield b
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from dragoman.config import Config, ConfigError, load, parse
from dragoman.config_text import show

START_SECONDS = 60.0  # a start takes a fraction of a second, but the machine may be busy, or the store long
LOG_TAIL = 4000  # characters of the log in an error

class BrokerFailed(Exception):
    """The broker did not start, or not stop; the text has the end of its log."""


class Broker:
    """A broker process. Made by `broker()`, which starts it and cleans up."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder  # of its configuration and log
        self.environment = env
        self.host = ""
        self.port = 0
        self.urls: list[str] = []  # of all listeners: amqp://127.0.0.1:40001, amqps://...
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1  # the broker dies when this end of a pipe is closed

    @property
    def pid(self) -> int:
        """The process's number; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def url(self) -> str:
        """For clients: `amqp://guest:guest@127.0.0.1:40001/`."""
        return f"amqp://guest:guest@{self.host}:{self.port}/"

    @property
    def mqtt_url(self) -> str:
        """For clients of MQTT, on the same port: `mqtt://guest:guest@127.0.0.1:40001`."""
        return f"mqtt://guest:guest@{self.host}:{self.port}"

    @property
    def config_path(self) -> Path:
        """The configuration file. It may be changed; `os.kill(b.pid, signal.SIGHUP)` has the broker read it."""
        return self.folder / "dragoman.toml"

    def log(self) -> str:
        """All that it logged so far, over restarts as well."""
        return (self.folder / "broker.log").read_text(encoding="utf-8", errors="backslashreplace")

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start it and wait until it serves. Raises BrokerFailed. After a stop it is on the same port again."""
        if self._process is not None:
            raise BrokerFailed("the broker runs already")
        self._keep_ports()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            name = f"dragoman-{uuid.uuid4().hex}"
            ready.bind(f"\0{name}")  # an abstract name: no file that could be left over
            self._spawn({**os.environ, **self.environment, "NOTIFY_SOCKET": f"@{name}"})
            try:
                self._await_ready(ready, time.monotonic() + timeout)
            except BaseException:
                self.kill()
                raise
        first = urlsplit(self.urls[0])
        self.host, self.port = first.hostname or "", first.port or 0

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would. Nothing happens when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._gone()

    def stop(self, timeout: float = START_SECONDS) -> int:
        """Ask it to stop (SIGTERM), wait, and give its exit code. Raises BrokerFailed when it will not."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerFailed(f"the broker did not stop within {timeout} s; its log:\n{self._tail()}") from None
        self._gone()
        return code

    def restart(self) -> None:
        """`stop` and `start`: on the same port, with the same store. A store in memory begins empty."""
        self.stop()
        self.start()

    def _keep_ports(self) -> None:
        """Have it take the ports that it found free the last time: clients expect it where it was."""
        config = load(self.config_path)
        found = [urlsplit(url).port or 0 for url in self.urls]
        listeners = tuple(replace(listener, port=listener.port or port)
                          for listener, port in zip(config.listeners, found, strict=False))
        if listeners and listeners != config.listeners:
            self.config_path.write_text(show(replace(config, listeners=listeners)), encoding="utf-8")

    def _spawn(self, environment: dict[str, str]) -> None:
        read_end, self._lifeline = os.pipe()
        command = [sys.executable, "-m", "dragoman", "serve", "--config", str(self.config_path),
                   "--lifeline", str(read_end)]
        with open(self.folder / "broker.log", "ab") as log:
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                 pass_fds=[read_end], env=environment, start_new_session=True)
            finally:
                os.close(read_end)

    def _await_ready(self, ready: socket.socket, deadline: float) -> None:
        assert self._process is not None
        ready.settimeout(0.05)
        while True:
            try:
                told = dict(line.split("=", 1) for line in ready.recv(65536).decode().splitlines())
            except TimeoutError:
                code = self._process.poll()
                if code is not None:
                    raise BrokerFailed(f"the broker ended with exit code {code}; its log:\n{self._tail()}") from None
                if time.monotonic() > deadline:
                    raise BrokerFailed(f"the broker did not get ready; its log:\n{self._tail()}") from None
                continue
            if "READY" in told:
                self.urls = told["X_DRAGOMAN_URLS"].split()
                return

    def _gone(self) -> None:
        os.close(self._lifeline)
        self._process = None

    def _tail(self) -> str:
        return self.log()[-LOG_TAIL:]


@contextlib.contextmanager
def broker(config: str | None = None, store: str | os.PathLike[str] | None = None,
           env: Mapping[str, str] | None = None) -> Iterator[Broker]:
    """Start a broker, and kill it when the block ends.

    config: TOML text as in a configuration file, laid over the defaults for tests: one listener on a free port of
    127.0.0.1, a store in memory, logs as text. store: a folder for an LMDB store; it stays when the broker is gone.
    env: environment variables for the process.

    Raises ConfigError for a wrong configuration, BrokerFailed when the broker does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="dragoman-"))
    made = Broker(folder, env or {})
    try:
        made.config_path.write_text(show(_configuration(config or "", store)), encoding="utf-8")
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)


def _configuration(text: str, store: str | os.PathLike[str] | None) -> Config:
    config = parse(text, "config", os.getcwd())
    given = tomllib.loads(text)
    listeners = [replace(listener, port=table.get("port", 0))
                 for listener, table in zip(config.listeners, given.get("listeners", [{}]), strict=False)]
    kept = config.store
    if store is not None:
        kept = replace(kept, kind="lmdb", path=os.path.abspath(store))
    elif "kind" not in given.get("store", {}):
        kept = replace(kept, kind="memory")
    log = replace(config.log, format=given.get("log", {}).get("format", "text"))
    return replace(config, listeners=tuple(listeners), store=kept, log=log)


__all__ = ["Broker", "BrokerFailed", "ConfigError", "broker"]
