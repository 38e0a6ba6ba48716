"""Drive the broker with clients in other languages: amqplib and rhea (Node), RabbitMQ's two and Qpid JMS (Java),
amqp091-go and go-amqp (Go), qpid-python and Qpid's tools (Python 2); of MQTT: mqtt.js (Node), Mosquitto's commands,
Eclipse Paho and HiveMQ's client (Java).

    python tests/conformance/run_interop.py [node] [java] [jms] [jms_cross] [rabbitmq10] [go] [rhea] [matrix]
                                              [qpid_python] [qpid_tools] [go10] [jms0x]
                                              [mqttjs] [mosquitto_clients] [paho_java] [logins]
                                              [logins_legacy]
                                              [gateway] [gateway_docs] [migration] [permissions]

starts a broker, and for each suite copies its sources to build/interop/, installs there what they need, and runs them
with AMQP_URL and MQTT_URL set. A suite whose tool chain is not on this machine is skipped, and says so. The last line
is a summary `N passed, N failed, N skipped`; the exit code is 0 when nothing failed. What a suite printed is in
build/interop/*.log.

DRAGOMAN_PEER=host:port has the suites use the broker that runs there instead, DRAGOMAN_PEER=mosquitto (for those of
MQTT) Debian's Mosquitto, started for each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "interop"
INSTALL_SECONDS = 600
RUN_SECONDS = 1200  # a guard against hanging; a suite takes some 20 seconds, Qpid's own some minutes

IN_FLIGHT = "max_inflight_messages 1000"
"""Of Mosquitto: its usual limit counts what comes again after a broken connection twice, and drops it."""

FAILURE = re.compile(r"\s*(not ok|--- FAIL|FAILED|panic:|Error|E   |\[ERROR\])")
"""How the suites begin the line that tells of a failure."""


@dataclass(frozen=True)
class Suite:
    """One client: the programs it needs, how to install and to run, and how to read what the run printed."""

    name: str
    client: str
    needs: tuple[str, ...]
    install: tuple[str, ...]
    build: tuple[str, ...]
    run: tuple[str, ...]
    count: Callable[[str], Counter[str]]


def count_tap(text: str) -> Counter[str]:
    """The totals at the end of what `node --test` prints in the TAP format."""
    found = {word: int(number) for word, number in re.findall(r"^# (pass|fail|cancelled|skipped) (\d+)$", text, re.M)}
    return Counter(passed=found.get("pass", 0), failed=found.get("fail", 0) + found.get("cancelled", 0),
                   skipped=found.get("skipped", 0))


def count_go(text: str) -> Counter[str]:
    """The tests that `go test -v` reports, without subtests."""
    words = Counter(re.findall(r"^--- (PASS|FAIL|SKIP): ", text, re.M))
    return Counter(passed=words["PASS"], failed=words["FAIL"], skipped=words["SKIP"])


def count_summary(text: str) -> Counter[str]:
    """A summary line like our own."""
    found = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", text, re.M)
    passed, failed, skipped = map(int, found[-1]) if found else (0, 0, 0)
    return Counter(passed=passed, failed=failed, skipped=skipped)


def count_pytest(text: str) -> Counter[str]:
    """The last line of pytest's summary."""
    last = text.rstrip().rpartition("\n")[2]
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    return Counter(passed=found.get("passed", 0), failed=found.get("failed", 0) + found.get("error", 0),
                   skipped=found.get("skipped", 0))


SUITES = (
    Suite("node", "amqplib", ("node", "npm"), ("npm", "install", "--no-audit", "--no-fund", "--loglevel=error"), (),
          ("node", "--test", "--test-reporter=tap", "promises.test.js", "callbacks.test.js"), count_tap),
    Suite("java", "com.rabbitmq:amqp-client", ("java", "javac", "mvn"),
          ("mvn", "-q", "-B", f"-Dmaven.repo.local={BUILD / 'maven'}", "dependency:copy-dependencies",
           "-DoutputDirectory=lib"),
          ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Checks.java", "Conformance.java"),
          ("java", "-cp", "classes:lib/*", "Conformance"), count_summary),
    Suite("jms", "Qpid JMS", ("java", "javac", "mvn"),
          ("mvn", "-q", "-B", f"-Dmaven.repo.local={BUILD / 'maven'}", "dependency:copy-dependencies",
           "-DoutputDirectory=lib"),
          ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Jms.java", "Delivery.java"),
          ("java", "-cp", "classes:lib/*", "Jms"), count_summary),
    Suite("jms_cross", "Qpid JMS beside pika and Proton", ("java", "javac", "mvn"),
          ("mvn", "-q", "-B", f"-Dmaven.repo.local={BUILD / 'maven'}", "dependency:copy-dependencies",
           "-DoutputDirectory=lib"),
          ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Bridge.java"),
          (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "crossing.py"), count_pytest),
    Suite("logins", "Qpid JMS and RabbitMQ's Java client, by each mechanism", ("java", "javac", "mvn"),
          ("mvn", "-q", "-B", f"-Dmaven.repo.local={BUILD / 'maven'}", "dependency:copy-dependencies",
           "-DoutputDirectory=lib"),
          ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Login.java"),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-c", str(ROOT / "setup.cfg"),
           "--rootdir", str(ROOT), str(HERE / "logins" / "logins.py")), count_pytest),
    Suite("rabbitmq10", "com.rabbitmq.client:amqp-client", ("java", "javac", "mvn"),
          ("mvn", "-q", "-B", f"-Dmaven.repo.local={BUILD / 'maven'}", "dependency:copy-dependencies",
           "-DoutputDirectory=lib"),
          ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "RabbitMq10.java"),
          ("java", "-cp", "classes:lib/*", "com.rabbitmq.client.amqp.impl.RabbitMq10"), count_summary),
    Suite("go", "amqp091-go", ("go",), ("go", "mod", "download"), ("go", "vet", "./..."),
          ("go", "test", "-v", "-count=1", "./..."), count_go),
    Suite("rhea", "rhea", ("node", "npm"), ("npm", "install", "--no-audit", "--no-fund", "--loglevel=error"), (),
          ("node", "--test", "--test-reporter=tap", "messages.test.js", "links.test.js"), count_tap),
    Suite("matrix", "rhea beside Proton and pika", ("node", "npm"),
          ("npm", "install", "--no-audit", "--no-fund", "--loglevel=error"), (),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-c", str(ROOT / "setup.cfg"),
           "--rootdir", str(ROOT), str(HERE / "matrix" / "with_rhea.py")), count_pytest),
    Suite("qpid_python", "qpid-python, by its own tests", (), (), (),
          (sys.executable, str(HERE / "qpid_python" / "run.py")), count_summary),
    Suite("qpid_tools", "qpid-config, qpid-stat and their kin", (), (), (),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-c", str(ROOT / "setup.cfg"),
           "--rootdir", str(ROOT), str(HERE / "qpid_tools" / "tools.py")), count_pytest),
    Suite("jms0x", "Qpid JMS for 0-8 to 0-10", ("java", "javac", "mvn"),
          ("mvn", "-q", "-B", f"-Dmaven.repo.local={BUILD / 'maven'}", "dependency:copy-dependencies",
           "-DoutputDirectory=lib"),
          ("javac", "-encoding", "UTF-8", "-Xlint:none", "-cp", "lib/*", "-d", "classes", "Jms0x.java", "Contents.java",
           "Settling.java", "Destinations.java", "Branches.java", "Cutter.java"),
          ("java", "-Dqpid.sync_op_timeout=8000", "-cp", "classes:lib/*", "Jms0x"), count_summary),
    Suite("gateway", "RabbitMQ, Mosquitto, Broker-J and Artemis as remotes", (), (), (),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-p", "no:xdist",
           "-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT), str(HERE / "gateway" / "remotes.py"),
           str(HERE / "gateway" / "certificates.py"), str(HERE / "gateway" / "artemis.py"),
           str(HERE / "gateway" / "refusals.py")), count_pytest),
    Suite("migration", "RabbitMQ's definitions and queues, there and back", (), (), (),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-p", "no:xdist",
           "-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT), str(HERE / "migration" / "real.py")), count_pytest),
    Suite("permissions", "the same permissions as at RabbitMQ", (), (), (),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-p", "no:xdist",
           "-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT), str(HERE / "permissions" / "real.py")), count_pytest),
    Suite("gateway_docs", "the use cases of docs/gateway with those", (), (), (),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider",
           "-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT), str(HERE / "gateway_docs" / "real.py")),
          count_pytest),
    Suite("go10", "go-amqp", ("go",), ("go", "mod", "download"), ("go", "vet", "./..."),
          ("go", "test", "-v", "-count=1", "./..."), count_go),
    Suite("mqttjs", "mqtt.js", ("node", "npm"), ("npm", "install", "--no-audit", "--no-fund", "--loglevel=error"), (),
          ("node", "--test", "--test-reporter=tap", "mqtt.test.js"), count_tap),
    Suite("logins_legacy", "logins of Qpid JMS for 0-8 to 0-10, amqplib, mqtt.js and qpid-python",
          ("java", "javac", "mvn", "node", "npm"),
          ("sh", "-c", f"mvn -q -B -Dmaven.repo.local='{BUILD / 'maven'}' dependency:copy-dependencies "
           "-DoutputDirectory=lib && npm install --no-audit --no-fund --loglevel=error"),
          ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Logins.java"),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-p", "no:xdist",
           "-c", str(ROOT / "setup.cfg"), "--rootdir", str(ROOT), str(HERE / "logins_legacy" / "logins_legacy.py")),
          count_pytest),
    Suite("mosquitto_clients", "mosquitto_pub, mosquitto_sub, mosquitto_rr",
          ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr"), (), (),
          (sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "-c", str(ROOT / "setup.cfg"),
           "--rootdir", str(ROOT), str(HERE / "mosquitto_clients" / "commands.py")), count_pytest),
    Suite("paho_java", "Eclipse Paho and HiveMQ's client, Java", ("java", "javac", "mvn"),
          ("mvn", "-q", "-B", f"-Dmaven.repo.local={BUILD / 'maven'}", "dependency:copy-dependencies",
           "-DoutputDirectory=lib"),
          ("javac", "-encoding", "UTF-8", "-cp", "lib/*", "-d", "classes", "Checks.java", "Paho5.java", "Paho3.java",
           "HiveMq.java"),
          ("java", "-cp", "classes:lib/*", "Paho5"), count_summary),
)


def main(arguments: list[str]) -> int:
    unknown = set(arguments) - {suite.name for suite in SUITES}
    if unknown:
        print(f"no such suite: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    total: Counter[str] = Counter()
    for suite in SUITES:
        if not arguments or suite.name in arguments:
            result = attempt(suite)
            print(f"{suite.name} ({suite.client}): {summary(result)}", flush=True)
            total += result
    print(summary(total))
    return 1 if total["failed"] or not total["passed"] else 0


def attempt(suite: Suite) -> Counter[str]:
    """Install and run one suite against a fresh broker. A suite that cannot be run counts as one that failed."""
    missing = [program for program in suite.needs if shutil.which(program) is None]
    if missing:
        print(f"{suite.name}: skipped, not on this machine: {', '.join(missing)}")
        return Counter(skipped=1)
    folder = BUILD / suite.name
    folder.mkdir(parents=True, exist_ok=True)
    for former in folder.iterdir():  # of an earlier run; what was installed is in folders
        if former.is_file():
            former.unlink()
    for source in (HERE / suite.name).iterdir():
        if source.is_file():
            shutil.copy(source, folder)
    with (BUILD / f"{suite.name}.log").open("w+", encoding="utf-8", errors="replace") as log:
        for command in (suite.install, suite.build):
            if command and execute(command, folder, log.fileno(), {}, INSTALL_SECONDS) != 0:
                return trouble(suite, "its client could not be installed", log.name)
        start = log.seek(0, os.SEEK_END)
        with broker() as url:
            addresses = {"AMQP_URL": url, "MQTT_URL": url.rstrip("/").replace("amqp", "mqtt", 1)}
            code = execute(suite.run, folder, log.fileno(), addresses, RUN_SECONDS)
        log.seek(start)
        result = suite.count(log.read())
    if code != 0 or result["failed"]:
        result["failed"] = result["failed"] or 1
        trouble(suite, "failed", log.name)
    return result


def execute(command: tuple[str, ...], folder: Path, output: int, more: dict[str, str], seconds: int) -> int:
    """Run a command in the suite's folder; its exit code, or -1 when it had to be killed for taking too long."""
    environment = {**os.environ, "GOPATH": str(BUILD / "gopath"), "GOCACHE": str(BUILD / "gocache"),
                   "GOFLAGS": "-modcacherw", **more}
    try:
        return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                              env=environment, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return -1


def trouble(suite: Suite, what: str, log: str) -> Counter[str]:
    """Show what the log has on failures, or how it ends."""
    lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    shown = sorted({near for at, line in enumerate(lines) if FAILURE.match(line)
                    for near in range(max(0, at - 5), min(len(lines), at + 12))}) or range(max(0, len(lines) - 40),
                                                                                          len(lines))
    print(f"{suite.name}: {what}; from {os.path.relpath(log)}:", *(lines[at] for at in shown[:100]), sep="\n  ")
    return Counter(failed=1)


@contextmanager
def broker() -> Iterator[str]:
    """The address of a broker with nothing in it, or of the peer."""
    sys.path.insert(0, str(ROOT))
    peer = os.environ.get("DRAGOMAN_PEER")
    if peer == "mosquitto":
        from tests import peers
        with tempfile.TemporaryDirectory() as folder, peers.mosquitto(Path(folder), settings=IN_FLIGHT) as running:
            yield f"amqp://guest:guest@{running.host}:{running.port}/"
        return
    if peer:
        yield f"amqp://guest:guest@{peer}/"
        return
    from dragoman import testing
    with tempfile.TemporaryDirectory() as store, testing.broker(store=Path(store) / "store") as ours:
        yield ours.url


def summary(result: Counter[str]) -> str:
    return ", ".join(f"{result[word]} {word}" for word in ("passed", "failed", "skipped"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
