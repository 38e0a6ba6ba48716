"""Make the captures in tests/protocol/captures010/ anew: qpid-python and Qpid JMS 0-x against Broker-J.

    python tests/conformance/captures010/record_all.py

needs Python 2.7, Java 17 and Maven, and says what is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent
CAPTURES = ROOT / "tests" / "protocol" / "captures010"
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

import peers  # noqa: E402
import python27  # noqa: E402
from recorder import record  # noqa: E402

BROKER = "Broker-J 9.2.1"
ANONYMOUS = ("low_handshake", "high_queue")


def main() -> None:
    python = python27.find()
    environment = python27.environment(python27.install(python))
    classes = compile_java()
    CAPTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, peers.brokerj(Path(folder)) as peer:
        script = str(HERE / "conversations.py")
        listed = subprocess.run([python, script], env=environment, check=True, capture_output=True, text=True).stdout
        for line in listed.splitlines():
            name, _, what = line.partition("\t")
            mechanisms = [("PLAIN", peer.port)] + [("ANONYMOUS", peer.open_port)] * (name in ANONYMOUS)
            for mechanism, port in mechanisms:
                file = f"qpid_python_{name}{'_anonymous' * (mechanism == 'ANONYMOUS')}.txt"
                record(f"{peer.host}:{port}", CAPTURES / file, header("qpid-python 1.36.0-1", what),
                       [python, script, "{peer}", name, mechanism], environment)
        for name, what in java_conversations():
            record(f"{peer.host}:{peer.port}", CAPTURES / f"qpid_jms_{name}.txt",
                   header("qpid-client 6.4.0 (Java)", what),
                   ["java", "-Dqpid.amqp.version=0-10", "-cp", classes, "Conversations", "{peer}", name],
                   dict(os.environ))


def header(client: str, what: str) -> list[str]:
    return [f"client: {client}", f"broker: {BROKER}", f"done: {what}"]


def compile_java() -> str:
    """Fetch the client, compile beside it; the class path."""
    folder = ROOT / "build" / "interop" / "captures010"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"),
                    f"-Dmaven.repo.local={ROOT / 'build/interop/maven'}", "dependency:copy-dependencies",
                    f"-DoutputDirectory={folder / 'lib'}"], check=True)
    path = f"{folder / 'classes'}:{folder / 'lib'}/*"
    subprocess.run(["javac", "-encoding", "UTF-8", "-cp", path, "-d", str(folder / "classes"),
                    str(HERE / "Conversations.java")], check=True)
    return path


def java_conversations() -> list[tuple[str, str]]:
    """Name and description of each conversation: a method `void name()` after a comment of one line."""
    lines = (HERE / "Conversations.java").read_text().splitlines()
    return [(after.split("void ")[1].partition("(")[0], line.strip().removeprefix("/** ").removesuffix(" */"))
            for line, after in pairwise(lines) if line.strip().startswith("/** ") and "    void " in after]


if __name__ == "__main__":
    main()
