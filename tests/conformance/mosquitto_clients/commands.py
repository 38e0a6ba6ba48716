"""Mosquitto's commands against the broker at MQTT_URL: mosquitto_pub, mosquitto_sub and mosquitto_rr, as people use
them in scripts. Run by tests/conformance/run_interop.py."""

from __future__ import annotations

import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

PLACE = urlsplit(os.environ["MQTT_URL"])
VERSIONS = pytest.mark.parametrize("version", ["31", "311", "5"])
SECONDS = 20  # a guard against hanging only


def options(version: str, password: str = "guest") -> list[str]:
    return ["-h", str(PLACE.hostname), "-p", str(PLACE.port), "-u", "guest", "-P", password, "-V",
            {"31": "mqttv31", "311": "mqttv311", "5": "mqttv5"}[version]]


def call(program: str, version: str, *arguments: str, given: bytes = b"", password: str = "guest") -> bytes:
    """What a command prints. Raises CalledProcessError when it fails."""
    return subprocess.run([program, *options(version, password), *arguments], input=given, check=True,
                          capture_output=True, timeout=SECONDS).stdout


@contextmanager
def running(program: str, version: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that is under way, once its subscription is acknowledged (it says so with -d)."""
    command = ["stdbuf", "-oL", program, *options(version), "-d", *arguments]  # else it says so when it ends
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        guard = threading.Timer(SECONDS, process.kill)
        guard.start()
        try:
            for line in process.stdout:
                if line.startswith(b"Subscribed"):
                    break
            yield process
        finally:
            guard.cancel()
            process.kill()


def lines(process: subprocess.Popen[bytes]) -> list[bytes]:
    """What it prints until it ends, without what it says of packets."""
    found = process.communicate(timeout=SECONDS)[0].splitlines()
    return [line for line in found if not line.startswith((b"Client ", b"Subscribed"))]


@pytest.fixture
def topic() -> str:
    return f"commands/{uuid.uuid4().hex[:12]}"


@VERSIONS
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_publish_and_subscribe(topic: str, version: str, qos: str) -> None:
    with running("mosquitto_sub", version, "-t", f"{topic}/#", "-q", qos, "-C", "3", "-F", "%t %q %r %p") as subscriber:
        call("mosquitto_pub", version, "-t", f"{topic}/a", "-q", qos, "-m", "one")
        call("mosquitto_pub", version, "-t", f"{topic}/a", "-q", qos, "-l", given=b"two\nthree\n")
        assert lines(subscriber) == [f"{topic}/a {qos} 0 {each}".encode() for each in ("one", "two", "three")]


@VERSIONS
def test_retained_and_removed(topic: str, version: str) -> None:
    call("mosquitto_pub", version, "-t", topic, "-r", "-q", "1", "-m", "kept")
    assert call("mosquitto_sub", version, "-t", topic, "-C", "1", "-F", "%r %p") == b"1 kept\n"
    call("mosquitto_pub", version, "-t", topic, "-r", "-n")
    call("mosquitto_pub", version, "-t", f"{topic}/other", "-r", "-m", "other")
    assert call("mosquitto_sub", version, "-t", f"{topic}/#", "-C", "1") == b"other\n"


@VERSIONS
def test_a_session_that_waits(topic: str, version: str) -> None:
    kept = ["-i", f"c-{uuid.uuid4().hex[:8]}", "-c", "-t", topic, "-q", "1"]
    if version == "5":
        kept += ["-x", "3600"]
    call("mosquitto_sub", version, *kept, "-E")  # subscribes, and goes
    for number in range(3):
        call("mosquitto_pub", version, "-t", topic, "-q", "1", "-m", str(number))
    assert call("mosquitto_sub", version, *kept, "-C", "3") == b"0\n1\n2\n"


@VERSIONS
def test_a_will(topic: str, version: str) -> None:
    with running("mosquitto_sub", version, "-t", topic, "-C", "1") as watcher:
        with running("mosquitto_sub", version, "-t", "nothing", "--will-topic", topic, "--will-payload", "gone"):
            pass  # it is killed
        assert lines(watcher) == [b"gone"]


@VERSIONS
def test_a_large_file_and_an_empty_message(topic: str, version: str) -> None:
    large = os.urandom(1 << 20).hex().encode()
    with running("mosquitto_sub", version, "-t", topic, "-q", "2", "-C", "2", "-F", "%l") as subscriber:
        call("mosquitto_pub", version, "-t", topic, "-q", "2", "-s", given=large)
        call("mosquitto_pub", version, "-t", topic, "-q", "2", "-n")
        assert lines(subscriber) == [b"%d" % len(large), b"0"]


@VERSIONS
def test_a_wrong_password(topic: str, version: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        call("mosquitto_pub", version, "-t", topic, "-m", "m", password="wrong")
    said = refused.value.stderr.lower()
    assert b"not authori" in said or b"bad user name" in said


def test_request_and_response(topic: str) -> None:
    with running("mosquitto_sub", "5", "-t", f"{topic}/service", "-q", "1", "-C", "1", "-F", "%R %D %p") as service:
        requester = subprocess.Popen(["mosquitto_rr", *options("5"), "-t", f"{topic}/service", "-e", f"{topic}/answers",
                                      "-q", "1", "-m", "question", "-D", "publish", "correlation-data", "id-1"],
                                     stdout=subprocess.PIPE)
        with requester:
            assert lines(service) == [f"{topic}/answers id-1 question".encode()]
            call("mosquitto_pub", "5", "-t", f"{topic}/answers", "-q", "1", "-m", "answer",
                 "-D", "publish", "correlation-data", "id-1")
            assert requester.communicate(timeout=SECONDS)[0] == b"answer\n"


def test_all_properties(topic: str) -> None:
    with running("mosquitto_sub", "5", "-t", topic, "-C", "1", "-F", "%C|%D|%E|%F|%P|%R|%p") as subscriber:
        call("mosquitto_pub", "5", "-t", topic, "-m", "m", *(
            word for name, value in (("content-type", "text/plain"), ("correlation-data", "id"),
                                     ("message-expiry-interval", "1000"), ("payload-format-indicator", "1"),
                                     ("response-topic", "a/b"), ("user-property", "n v"))
            for word in ("-D", "publish", name, *value.split())))
        assert lines(subscriber) == [b"text/plain|id|1000|1|n:v|a/b|m"]


def test_a_shared_subscription(topic: str) -> None:
    with running("mosquitto_sub", "5", "-t", f"$share/group/{topic}", "-q", "1", "-C", "5") as first, \
            running("mosquitto_sub", "5", "-t", f"$share/group/{topic}", "-q", "1", "-C", "5") as second:
        call("mosquitto_pub", "5", "-t", topic, "-q", "1", "-l", given=b"".join(b"%d\n" % n for n in range(10)))
        assert sorted(lines(first) + lines(second)) == [b"%d" % number for number in range(10)]


def test_the_broker_s_figures() -> None:
    assert call("mosquitto_sub", "5", "-t", "$SYS/broker/version", "-C", "1").strip()
