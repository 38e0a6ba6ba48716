"""Other people's brokers, started beside ours: to compare behaviour with, to measure against, to bridge to.

    with rabbitmq(tmp_path) as peer:
        connect(peer.host, peer.port)      # guest/guest, virtual host "/"

    with brokerj(tmp_path) as peer:        # Qpid's Broker-J: 0-8, 0-9, 0-9-1, 0-10, 1.0
        connect(peer.host, peer.port)      # guest/guest; at peer.open_port ANONYMOUS; the virtual host is "default"

    with mosquitto(tmp_path) as peer:      # MQTT 3.1, 3.1.1 and 5
        connect(peer.host, peer.port)      # guest/guest; peer.restart() keeps what is persistent

    with artemis(tmp_path) as peer:        # ActiveMQ Artemis: 1.0 and MQTT
        connect(peer.host, peer.port)      # guest/guest

Each peer listens on loopback only, on ports that were free, keeps everything it writes in the folder it is given, and
is gone with all its processes when the block ends. It works as root and as anybody else.
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")  # Debian's wrappers in /usr/sbin insist on the user rabbitmq, these do not
LOWEST_PORT = 10_240
"""Of those that `free_ports` gives."""

START_SECONDS = 60.0
STOP_SECONDS = 15.0
FETCH_SECONDS = 600.0
AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
BROKERJ = Path(__file__).resolve().parent / "conformance" / "brokerj"
ARTEMIS = "2.40.0"
BUILD = Path(__file__).resolve().parent.parent / "build"


class PeerMissing(Exception):
    """The broker is not installed here; the text says which package has it."""


class PeerFailed(Exception):
    """The broker is installed and did not start; the text has the end of what it printed."""


class Peer:
    """A running broker. `pid` is the process that does its work; `log` is what it printed."""

    def __init__(self, host: str, port: int, log: Path, environment: dict[str, str],
                 processes: list[subprocess.Popen[bytes]]) -> None:
        self.host = host
        self.port = port
        self.pid = 0
        self.log = log
        self._environment = environment
        self._processes = processes  # in the order of their start; each leads a session of its own

    def begin(self, command: Sequence[str], ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
        """Start the process that does its work, and wait until it is ready. Raises PeerFailed."""
        with self.log.open("ab") as output:
            main = _start(command, self._environment or dict(os.environ), output.fileno())
        self._processes.append(main)
        self.pid = main.pid
        if not _wait_until(lambda: ready() or main.poll() is not None, START_SECONDS) or main.poll() is not None:
            raise PeerFailed(_tail(self.log))
        return main

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl` with these arguments against this broker; returns what it printed.

        Raises subprocess.CalledProcessError when it fails.
        """
        command = [str(RABBITMQ_BIN / "rabbitmqctl"), "--quiet", *arguments]
        return subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True).stdout

    def kill(self) -> None:
        """End all its processes at once, as a crash would."""
        for pid in [pid for process in self._processes for pid in family(process.pid)]:
            _signal(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def stop(self) -> None:
        """End all its processes, the gentle way first. May be called again."""
        members = [pid for process in self._processes for pid in family(process.pid)]
        if self.pid in members:
            _signal(self.pid, signal.SIGTERM)
            _wait_until(lambda: self._processes[-1].poll() is not None, STOP_SECONDS)
        for pid in members:
            _signal(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self._processes.clear()


class RabbitMq(Peer):
    """A running RabbitMQ. After `kill` or `stop`, `start` has it go on with the same data and ports."""

    def start(self) -> None:
        """Raises PeerFailed."""
        epmd_port = self._environment["ERL_EPMD_PORT"]
        with self.log.open("ab") as output:
            self._processes.append(_start([shutil.which("epmd") or "epmd", "-port", epmd_port, "-address", "127.0.0.1"],
                                          self._environment, output.fileno()))
            if not _wait_until(lambda: listening(int(epmd_port)), START_SECONDS):
                raise PeerFailed(_tail(self.log))
        main = self.begin([str(RABBITMQ_BIN / "rabbitmq-server")], lambda: speaks_amqp(self.port))
        self.pid = next(pid for pid in family(main.pid) if _name(pid) == "beam.smp")


@contextmanager
def rabbitmq(folder: Path, plugins: Sequence[str] = (), settings: str = "") -> Iterator[RabbitMq]:
    """Debian's rabbitmq-server with its data in `folder`, accepting AMQP when the block begins. `settings` are more
    lines of its configuration.

    It gets an epmd (Erlang's register of names) of its own, so it meets no other Erlang on this machine.

    Raises PeerMissing, PeerFailed.
    """
    server = RABBITMQ_BIN / "rabbitmq-server"
    if not server.exists() or shutil.which("epmd") is None:
        raise PeerMissing("RabbitMQ is not installed: apt-get install rabbitmq-server")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port, epmd_port, distribution_port = free_ports(3)
    (folder / "plugins").write_text(f"[{','.join(plugins)}].\n")
    (folder / "rabbitmq.conf").write_text(f"disk_free_limit.absolute = 50MB\nlog.file.level = warning\n{settings}\n")
    (folder / "env.conf").write_text("")
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(folder),  # where Erlang keeps its cookie
        "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),  # where it is tidied away, not where we happen to be
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_NODENAME": f"peer{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),  # instead of the one in /etc
    }
    peer = RabbitMq("127.0.0.1", port, folder / "output.log", environment, [])
    with ExitStack() as stack:
        stack.callback(peer.stop)
        peer.start()
        yield peer


class BrokerJ(Peer):
    """A running Broker-J; `open_port` takes ANONYMOUS and nothing else."""

    open_port = 0


@contextmanager
def brokerj(folder: Path) -> Iterator[BrokerJ]:
    """Qpid's Broker-J, fetched from Maven Central the first time, with all that it holds in memory.

    Raises PeerMissing, PeerFailed, and subprocess.CalledProcessError when it cannot be fetched.
    """
    java, maven = shutil.which("java"), shutil.which("mvn")
    if java is None or maven is None:
        raise PeerMissing("Broker-J needs Java 17 and Maven: apt-get install openjdk-17-jre-headless maven")
    fetched = BUILD / "interop" / "brokerj"
    if not (fetched / "lib").is_dir():
        fetched.mkdir(parents=True, exist_ok=True)
        shutil.copy(BROKERJ / "pom.xml", fetched)
        subprocess.run([maven, "-q", "-B", f"-Dmaven.repo.local={BUILD / 'interop' / 'maven'}",
                        "dependency:copy-dependencies", "-DoutputDirectory=lib"], cwd=fetched, check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=FETCH_SECONDS)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port, open_port = free_ports(2)
    log = folder / "output.log"
    peer = BrokerJ("127.0.0.1", port, log, {}, [])
    peer.open_port = open_port
    command = [java, "-Xmx256m", "-XX:+UseSerialGC", "-cp", str(fetched / "lib" / "*"), "org.apache.qpid.server.Main",
               "-st", "Memory", "-icp", str(BROKERJ / "config.json"), "-prop", f"qpid.work_dir={folder / 'work'}",
               "-prop", f"peer.port={port}", "-prop", f"peer.open_port={open_port}"]
    with ExitStack() as stack:
        stack.callback(peer.stop)
        peer.begin(command, lambda: b"BRK-1004" in log.read_bytes())
        if not speaks_amqp(port):
            raise PeerFailed(_tail(log))
        yield peer


@contextmanager
def artemis(folder: Path) -> Iterator[Peer]:
    """ActiveMQ Artemis, fetched from Maven Central the first time: guest/guest, AMQP 1.0 and MQTT on one port.

    Raises PeerMissing, PeerFailed, and subprocess.CalledProcessError when it cannot be fetched.
    """
    java, maven = shutil.which("java"), shutil.which("mvn")
    if java is None or maven is None:
        raise PeerMissing("Artemis needs Java 17 and Maven: apt-get install openjdk-17-jre-headless maven")
    fetched = BUILD / "interop" / "artemis"
    home = fetched / f"apache-artemis-{ARTEMIS}"
    if not home.is_dir():
        fetched.mkdir(parents=True, exist_ok=True)
        subprocess.run([maven, "-q", "-B", f"-Dmaven.repo.local={BUILD / 'interop' / 'maven'}", "dependency:copy",
                        f"-Dartifact=org.apache.activemq:apache-artemis:{ARTEMIS}:tar.gz:bin", "-DoutputDirectory=."],
                       cwd=fetched, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=FETCH_SECONDS)
        subprocess.run(["tar", "xzf", f"apache-artemis-{ARTEMIS}-bin.tar.gz"], cwd=fetched, check=True)
    (port,) = free_ports(1)
    made = folder.resolve() / "broker"
    subprocess.run([str(home / "bin" / "artemis"), "create", "--silent", "--user", "guest", "--password", "guest",
                    "--require-login", "--no-web", "--nio", "--no-autotune", str(made)], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=START_SECONDS)
    config = made / "etc" / "broker.xml"
    acceptor = f'<acceptor name="artemis">tcp://127.0.0.1:{port}?protocols=AMQP,MQTT</acceptor>'
    config.write_text(re.sub(r"<acceptors>.*</acceptors>", f"<acceptors>{acceptor}</acceptors>", config.read_text(),
                             flags=re.DOTALL))
    log = folder / "output.log"
    peer = Peer("127.0.0.1", port, log, {}, [])
    with ExitStack() as stack:
        stack.callback(peer.stop)
        peer.begin([str(made / "bin" / "artemis"), "run"], lambda: b"AMQ221007" in log.read_bytes())
        if not listening(port):
            raise PeerFailed(_tail(log))
        yield peer


class Mosquitto(Peer):
    """A running Mosquitto. `tls_port` is 0 without a certificate."""

    tls_port = 0

    def restart(self) -> None:
        """End it, so that it writes down what is persistent, and start it again on the same ports."""
        self.stop()
        self.start()

    def start(self) -> None:
        """Start it after a `stop`. Raises PeerFailed."""
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") or ""
        self.begin([program, "-c", str(self.log.parent / "mosquitto.conf")], lambda: listening(self.port))


@contextmanager
def mosquitto(folder: Path, certificate: Path | None = None, settings: str = "") -> Iterator[Mosquitto]:
    """Debian's mosquitto with its data in `folder`, guest/guest and nobody else. With a certificate (PEM, with its
    key), it takes TLS at `tls_port`. `settings` are more lines of its configuration.

    Raises PeerMissing, PeerFailed.
    """
    if shutil.which("mosquitto_passwd") is None:
        raise PeerMissing("Mosquitto is not installed: apt-get install mosquitto")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(folder / "passwords"), "guest", "guest"], check=True)
    port, tls_port = free_ports(2)
    user = "root" if os.geteuid() == 0 else ""  # else it would become one who may not write here
    lines = [f"user {user}"] if user else []
    lines += ["persistence true", f"persistence_location {folder}/", f"password_file {folder / 'passwords'}",
              "allow_anonymous false", "sys_interval 1", settings, f"listener {port} 127.0.0.1"]
    if certificate is not None:
        lines += [f"listener {tls_port} 127.0.0.1", f"certfile {certificate}", f"keyfile {certificate}"]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    peer = Mosquitto("127.0.0.1", port, folder / "output.log", {}, [])
    peer.tls_port = tls_port if certificate is not None else 0
    with ExitStack() as stack:
        stack.callback(peer.stop)
        peer.start()
        yield peer


def free_ports(count: int) -> list[int]:
    """Different TCP ports of 127.0.0.1 that nobody listens on: below those that the system gives to clients, or a
    client might have one before it is listened on."""
    ends = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            each = stack.enter_context(socket.socket())
            with suppress(OSError):
                each.bind(("127.0.0.1", random.randrange(LOWEST_PORT, ends) if ends > 2 * LOWEST_PORT else 0))
                found.append(int(each.getsockname()[1]))
        return found


def speaks_amqp(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a 0-9-1 broker answers a protocol header with a frame on channel 0 there."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(AMQP_HEADER)
            return connection.recv(3) == b"\x01\x00\x00"
    except OSError:
        return False


def family(pid: int) -> list[int]:
    """This process and all that descend from it, children before grandchildren."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    members = [pid]
    for member in members:
        members.extend(children.get(member, []))
    return members


def _start(command: list[str], environment: dict[str, str], output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                            start_new_session=True, preexec_fn=_raise_file_limit)


def _raise_file_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, or none when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _tail(log: Path) -> str:
    return "It did not start:\n" + log.read_text(errors="replace")[-2000:]
