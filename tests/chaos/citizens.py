"""Well-behaved clients, one of a dialect, that do their work while others attack: `Citizens`.

Each sends a batch to a durable queue of its own, waits until the broker has confirmed it all, takes it out again, and
begins anew. What was confirmed must come, in order, once.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from pamqp import commands

from tests.wire import Client, Peer
from tests.wire10 import ACCEPTED, RECEIVER, SENDER, TRANSFER, Client10, message, state
from tests.wire_mqtt import PUBACK, MqttClient

BATCH = 40
HOME = Path(__file__).resolve().parents[2]


class Citizens:
    """They run in a process of their own. `count` gives how many messages each dialect's has had so far."""

    def __init__(self, host: str, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.citizens", host, str(port)], cwd=HOME, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.count()

    def count(self) -> dict[str, int]:
        """Raises AssertionError when one of them has failed, with what it has to say."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("count\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.startswith("0-9-1="):
            raise AssertionError(f"a well-behaved client has failed: {line}{self._rest()}")
        return {name: int(number) for name, _, number in (part.partition("=") for part in line.split())}

    def rates(self, seconds: float) -> dict[str, float]:
        """Messages a second of each, from now on for so long."""
        before, begun = self.count(), time.monotonic()
        time.sleep(seconds)
        after, passed = self.count(), time.monotonic() - begun
        return {name: (after[name] - before[name]) / passed for name in after}

    def progress(self, messages: int = BATCH, seconds: float = 30) -> None:
        """Wait until each has done so many more. Raises AssertionError when that takes too long."""
        before, end = self.count(), time.monotonic() + seconds
        while any(done < before[name] + messages for name, done in self.count().items()):
            assert time.monotonic() < end, f"no more than {self.count()} after {before} in {seconds} s"
            time.sleep(0.05)

    def _rest(self) -> str:
        self._process.kill()
        return "".join(self._process.communicate())

    def close(self) -> None:
        """Have them finish what they are at. Raises AssertionError when something was lost."""
        try:
            self.count()
            _, errors = self._process.communicate("", timeout=60)
            assert self._process.returncode == 0, errors
        finally:
            self._process.kill()
            self._process.communicate()


class Citizen:
    """Calls `batch` again and again, which its dialect's has to say, as `begin`."""

    def __init__(self, host: str, port: int) -> None:
        self.peer = Peer(host, port)
        self.done = 0
        self.number = 0
        self.error: Exception | None = None
        self.failed = 0.0  # when, by time.monotonic

    def numbers(self) -> list[bytes]:
        """The next messages."""
        self.number += BATCH
        return [b"%d" % number for number in range(self.number - BATCH, self.number)]

    def run(self, stop: threading.Event) -> None:
        try:
            self.begin()
            while not stop.is_set():
                self.batch(self.numbers())
                self.done += BATCH
        except Exception as error:
            self.error, self.failed = error, time.monotonic()

    def begin(self) -> None:
        """Connect, and make the queue."""
        raise NotImplementedError

    def batch(self, bodies: list[bytes]) -> None:
        """Send these, until all are confirmed, and take them out again. Raises AssertionError when one is lost."""
        raise NotImplementedError


class Citizen091(Citizen):
    def begin(self) -> None:
        self.client = Client(self.peer).open()
        self.channel = self.client.channel()
        self.channel.queue("citizen", durable=True)
        self.channel.confirm()

    def batch(self, bodies: list[bytes]) -> None:
        for body in bodies:
            self.channel.publish("", "citizen", body, delivery_mode=2)
        confirmed = 0
        while confirmed < self.number:  # the delivery tag of the last
            confirmed = max(confirmed, self.channel.expect(commands.Basic.Ack).delivery_tag)
        for body in bodies:
            found = self.channel.get("citizen")
            assert found is not None and found.body == body, f"{body!r} is lost: {found}"


class Citizen10(Citizen):
    def begin(self) -> None:
        admin = Client(self.peer).open()
        admin.channel().queue("citizen10", durable=True)
        admin.close()
        self.client = Client10(*self.peer, "citizen", window=1 << 30)
        self.client.attach("in", SENDER, "citizen10", handle=0)
        self.client.attach("out", RECEIVER, "citizen10", handle=1)
        self.seen = 0

    def batch(self, bodies: list[bytes]) -> None:
        first = self.client.next_id
        for number, body in enumerate(bodies):
            self.client.transfer(message(body, durable=True), b"%d" % (first + number))
        last = first - 1
        while last < first + len(bodies) - 1:
            fields = self.client.outcome()
            assert fields[4].descriptor == ACCEPTED, fields
            last = max(last, int(fields[1] if fields[2] is None else fields[2]))
        self.client.credit(len(bodies), handle=1, delivered=self.seen, seen=self.seen)
        delivery = 0
        for body in bodies:
            fields, payload = self.client.expect(TRANSFER)
            assert payload.endswith(body), f"{body!r} is lost: {payload!r}"
            delivery = int(fields[1])
        self.seen += len(bodies)
        self.client.settle(RECEIVER, delivery - len(bodies) + 1, state(ACCEPTED), last=delivery)


class CitizenMqtt(Citizen):
    def begin(self) -> None:
        self.client = MqttClient(self.peer, 5)
        self.client.connect("citizen", clean=False, SessionExpiryInterval=600)
        assert self.client.subscribe(("citizen/mqtt", 1)) == [1]

    def batch(self, bodies: list[bytes]) -> None:
        for body in bodies:
            self.client.publish("citizen/mqtt", body, 1)
        acknowledged = 0
        found: list[bytes] = []
        while acknowledged < len(bodies) or len(found) < len(bodies):
            packet = self.client.read()
            if packet.kind == PUBACK:
                acknowledged += 1
            else:
                found.append(packet.payload)
                self.client.acknowledge(PUBACK, packet.packet_id)
        assert found == bodies, f"{bodies[0]!r} and its like are lost: {found[:3]}"


def check(everybody: dict[str, Citizen]) -> None:
    """Raises ExceptionGroup with what has befallen them: whether all have failed, or one, tells where to look."""
    errors = []
    for name, each in everybody.items():
        if each.error is not None:
            each.error.add_note(f"{name}, after {each.done} messages, {time.monotonic() - each.failed:.1f} s ago")
            errors.append(each.error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(everybody)} have failed", errors)


def main(host: str, port: int) -> int:
    everybody: dict[str, Citizen] = {"0-9-1": Citizen091(host, port), "1.0": Citizen10(host, port),
                                     "mqtt": CitizenMqtt(host, port)}
    stop = threading.Event()
    threads = [threading.Thread(target=each.run, args=(stop,), daemon=True) for each in everybody.values()]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        while not all(each.done for each in everybody.values()) and not any(each.error for each in everybody.values()):
            time.sleep(0.01)
        check(everybody)
        print(*(f"{name}={each.done}" for name, each in everybody.items()), flush=True)
    stop.set()
    for thread in threads:
        thread.join(60)
    check(everybody)
    return int(any(thread.is_alive() for thread in threads))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
