"""The brokers that a benchmark drives, each with the processes whose CPU and memory count, and the load generator."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import Peer, family, free_ports, mosquitto, rabbitmq, speaks_amqp

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "bench"
PROGRAMS = {"loadgen": ("loadgen.c", "traffic.c", "load.c", "measure.c", "wire.c"), "sink": ("sink.c", "wire.c"),
            "mqttgen": ("mqttgen.c", "mqtt.c", "load.c", "measure.c", "wire.c")}
START_SECONDS = 30.0
SETTLE_SECONDS = 60.0  # the longest to wait for a broker to have done with the row before
SETTLED = 0.1  # of a core
LOAD_SECONDS = 3600.0  # the longest that one run of the load generator may take


class BenchError(Exception):
    """A broker did not start, or a workload failed: the text says how."""


class Broker(ABC):
    """One column of the table. Started when first used, and again after `stop` where it is ours to start."""

    name = ""
    host = "127.0.0.1"
    port = 0
    speaks_mqtt = False
    speaks_amqp = True

    @abstractmethod
    def start(self) -> None:
        """Have it accept connections; no effect when it does. Raises BenchError."""

    @abstractmethod
    def stop(self) -> None:
        """End it, so that the next start is a fresh one. No effect on one that was running before."""

    @abstractmethod
    def processes(self) -> list[int]:
        """Its processes on this machine; none when it is on another one, and then it is not measured."""


    def settle(self) -> None:
        """Start it, and wait until it rests: what it still does for the row before is not to count for the next."""
        self.start()
        end = time.monotonic() + SETTLE_SECONDS
        while self.processes() and time.monotonic() < end:
            before = sum(map(_cpu_seconds, self.processes()))
            time.sleep(0.3)
            if sum(map(_cpu_seconds, self.processes())) - before < SETTLED * 0.3:
                return


class Dragoman(Broker):
    """The broker of this checkout, with an LMDB store in a folder of its own."""

    name = "dragoman"
    speaks_mqtt = True

    def __init__(self, folder: Path, config: str = "") -> None:
        """config: more lines of it."""
        self._folder = folder
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir(parents=True)
        (self.port,) = free_ports(1)
        log = folder / "log"
        with log.open("wb") as output:
            command = _command(folder, self.port, self._config)
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                             start_new_session=True)
        end = time.monotonic() + START_SECONDS
        while not speaks_amqp(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                raise BenchError("Dragoman did not start:\n" + log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def processes(self) -> list[int]:
        return family(self._process.pid) if self._process else []


def _command(folder: Path, port: int, more: str) -> list[str]:
    """The command that serves this port with its data in `folder`."""
    config = folder / "dragoman.toml"
    config.write_text(f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n\n[store]\npath = "{folder / "data"}"\n\n'
                      f'[log]\nlevel = "warning"\n{more}')
    return [sys.executable, "-m", "dragoman", "serve", "--config", str(config)]


class Started(Broker):
    """Somebody else's broker, started for the purpose."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack: ExitStack | None = None
        self._starts = 0
        self._pid = 0

    @abstractmethod
    def _peer(self, folder: Path) -> AbstractContextManager[Peer]:
        """One with its data in this folder."""

    def start(self) -> None:
        if self._stack is not None:
            return
        self._starts += 1
        with ExitStack() as stack:
            peer = stack.enter_context(self._peer(self._folder / str(self._starts)))
            self.port, self._pid = peer.port, peer.pid
            self._stack = stack.pop_all()

    def stop(self) -> None:
        if self._stack is not None:
            self._stack.close()
        self._stack = None

    def processes(self) -> list[int]:
        return family(self._pid) if self._stack is not None else []


class RabbitMQ(Started):
    """Debian's rabbitmq-server."""

    name = "rabbitmq"

    def _peer(self, folder: Path) -> AbstractContextManager[Peer]:
        return rabbitmq(folder, plugins=["rabbitmq_amqp1_0"])


class Mosquitto(Started):
    """Debian's mosquitto. It drops nothing for want of room in its queues."""

    name = "mosquitto"
    speaks_mqtt = True
    speaks_amqp = False

    def _peer(self, folder: Path) -> AbstractContextManager[Peer]:
        return mosquitto(folder, settings="max_inflight_messages 1000\nmax_queued_messages 0")


class Running(Broker):
    """A broker that somebody else started."""

    def __init__(self, address: str) -> None:
        self.name = address
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            raise BenchError(f"{address}: not host:port")
        self.host = host.strip("[]") or "127.0.0.1"
        self.port = int(port)
        self._pid = _listener(self.port) if _is_local(self.host) else 0

    def start(self) -> None:
        end = time.monotonic() + START_SECONDS  # it may be busy closing ten thousand connections
        while not speaks_amqp(self.port, self.host):
            if time.monotonic() > end:
                raise BenchError(f"{self.name}: no AMQP 0-9-1 broker answers there")
            time.sleep(0.2)

    def stop(self) -> None:
        pass

    def processes(self) -> list[int]:
        return family(self._pid) if self._pid else []


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, user and system; none when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_local(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _listener(port: int) -> int:
    """The process that listens on this TCP port of this machine, 0 when it cannot be found."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":  # listening
                sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # gone, or another user's
            continue
    return 0


@dataclass(frozen=True)
class Phase:
    """What loadgen measured between two moments (tests/bench/loadgen.c)."""

    name: str
    seconds: float
    into: int
    out: int
    cpu: float
    own_cpu: float
    rss_from_kib: int
    rss_kib: int
    peak_kib: int


def cpu_seconds(broker: Broker) -> float:
    """Processor time of a broker so far."""
    return sum(map(_cpu_seconds, broker.processes()))


def rss_kib(broker: Broker) -> int:
    """Resident memory of a broker now."""
    total = 0
    for pid in broker.processes():
        found = re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
        total += int(found[1]) if found else 0
    return total


def load(broker: Broker, program: str, mode: str, options: dict[str, int | float]) -> list[Phase]:
    """Run a load generator against a started broker. Raises BenchError when anything was lost, doubled or wrong."""
    processes = ",".join(map(str, broker.processes()))
    command = [str(BUILD / program), mode, f"host={broker.host}", f"port={broker.port}",
               *(f"{key}={value}" for key, value in options.items()), *([f"pids={processes}"] if processes else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise BenchError(f"not done in {LOAD_SECONDS:.0f} seconds") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise BenchError(f"the load generator ended with {done.returncode}: {done.stderr.strip()}") from None
    if "error" in answer:
        raise BenchError(answer["error"])
    return [Phase(into=phase.pop("in"), **phase) for phase in answer["phases"]]


def build() -> None:
    """Compile the C programs whose sources are newer. Raises BenchError."""
    BUILD.mkdir(parents=True, exist_ok=True)
    newest = max(source.stat().st_mtime for source in HERE.glob("*.[ch]"))
    for program, sources in PROGRAMS.items():
        target = BUILD / program
        if target.exists() and target.stat().st_mtime > newest:
            continue
        command = [os.environ.get("CC", "gcc"), "-std=gnu11", "-Wall", "-Wextra", "-O2", "-o", str(target),
                   *(str(HERE / source) for source in sources)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise BenchError(f"no C compiler: {error}") from None
        if done.returncode:
            raise BenchError(done.stderr)


class Sink(Broker):
    """tests/bench/sink.c: no broker, but what shows how fast the load generator is."""

    name = "sink"

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._process is None:
            self._process = subprocess.Popen([str(BUILD / "sink")], stdout=subprocess.PIPE, text=True)
            assert self._process.stdout is not None
            self.port = int(self._process.stdout.readline())

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def processes(self) -> list[int]:
        return [self._process.pid] if self._process else []
