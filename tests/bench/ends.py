"""The load of the rows of AMQP 1.0 and 0-10, and of crossings: a thread at each end, writing frames made beforehand.

It costs some microseconds a message itself, so its rates say little; what is measured is the broker's CPU.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.brokers import BenchError, Broker, Dragoman, Phase, RabbitMQ, cpu_seconds, rss_kib
from tests.bench.traffic010 import Receiver010, Sender010, idle010
from tests.bench.traffic091 import NAME, Counters, Legacy
from tests.bench.traffic10 import Receiver10, Sender10, idle10
from tests.bench.trafficmqtt import ReceiverMqtt, SenderMqtt
from tests.peers import PeerMissing

V091, V010, V10, V311 = 91, 10, 100, 311
"""Dialects: 0-9-1, 0-10, 1.0 and MQTT 3.1.1."""

_SENDERS: dict[int, type[Legacy | Sender010 | Sender10 | SenderMqtt]] = {
    V091: Legacy, V010: Sender010, V10: Sender10, V311: SenderMqtt}
_RECEIVERS: dict[int, type[Legacy | Receiver010 | Receiver10 | ReceiverMqtt]] = {
    V091: Legacy, V010: Receiver010, V10: Receiver10, V311: ReceiverMqtt}
_IDLE = {V010: idle010, V10: idle10}


def flow(broker: Broker, options: dict[str, int | float], remote: Broker | None = None) -> list[Phase]:
    """One publisher, one queue, one consumer. options: source and sink (dialects), topic (by amq.topic), settled,
    durable, size (bytes), warmup and seconds. remote: where it is published to, to a queue of the same name, if not
    here. Raises: BenchError."""
    counters = Counters()
    name = NAME
    control = Legacy(broker, counters)
    controls = [control] if remote is None else [control, Legacy(remote, counters)]
    for each in controls:
        each.declare(name, bool(options.get("durable")))
    if options.get("topic") and options["sink"] != V311:
        control.bind(name)
    receiver = _RECEIVERS[int(options["sink"])](broker, counters)
    sender = _SENDERS[int(options["source"])](remote or broker, counters)
    works = [receiver.consume, sender.publish]
    threads = [threading.Thread(target=_guarded, args=(work, counters, name, options)) for work in works]
    try:
        for thread in threads:
            thread.start()
        time.sleep(options["warmup"])
        phase = _measured(broker, counters, float(options["seconds"]))
        counters.stop = True
        end = time.monotonic() + 30
        threads[1].join(30)
        while counters.received < counters.sent and not counters.error and time.monotonic() < end:
            time.sleep(0.01)
        if not counters.error and counters.received != counters.sent:
            counters.error = f"{counters.sent} were sent, {counters.received} received"
        tells = not options.get("settled") and remote is None
        if not counters.error and tells and counters.confirmed != counters.sent:
            counters.error = f"{counters.sent} were sent, {counters.confirmed} accepted"
    finally:
        counters.stop = True
        receiver.close()
        sender.close()
        for thread in threads:
            thread.join(10)
        for each in controls:
            each.delete(name)
            each.close()
    if counters.error:
        raise BenchError(counters.error)
    return [phase]


def bridged(options: dict[str, int | float]) -> list[Phase]:
    """RabbitMQ to a broker of ours by a bridge, which is what is measured. Raises: BenchError, PeerFailed."""
    with tempfile.TemporaryDirectory() as folder:
        remote = RabbitMQ(Path(folder) / "rabbitmq")
        try:
            remote.start()
            (Path(folder) / "password").write_text("guest\n")
            config = (f'[[link]]\nname = "r"\nurl = "amqp://{remote.host}:{remote.port}/"\nuser = "guest"\n'
                      f'password_file = "{folder}/password"\n[[bridge]]\n'
                      f'name = "b"\nlink = "r"\nremote_queue = "{NAME}"\nlocal_queue = "{NAME}"\nprefetch = 1000\n')
            broker = Dragoman(Path(folder) / "dragoman", config)
            broker.start()
            try:
                return flow(broker, options, remote)
            finally:
                broker.stop()
        except PeerMissing as missing:
            raise BenchError(str(missing)) from None
        finally:
            remote.stop()


def idle(broker: Broker, options: dict[str, int | float]) -> list[Phase]:
    """Connections with a session that do nothing. options: dialect, connections. Raises: BenchError."""
    count = int(options["connections"])
    connect = _IDLE[int(options["dialect"])]
    before = rss_kib(broker)
    started, cpu = time.monotonic(), cpu_seconds(broker)
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(connect(broker))
        opened = Phase("open", time.monotonic() - started, 0, count, cpu_seconds(broker) - cpu, 0.0, before,
                       rss_kib(broker), rss_kib(broker))
    except (OSError, EOFError, AssertionError) as error:
        raise BenchError(f"connection {len(sockets)}: {error}") from None
    finally:
        for made in sockets:
            made.close()
    return [opened]


def _measured(broker: Broker, counters: Counters, seconds: float) -> Phase:
    before = counters.sent, counters.received, cpu_seconds(broker), time.thread_time(), time.monotonic()
    memory = rss_kib(broker)
    time.sleep(seconds)
    return Phase("flow", time.monotonic() - before[4], counters.sent - before[0], counters.received - before[1],
                 cpu_seconds(broker) - before[2], 0.0, memory, rss_kib(broker), rss_kib(broker))


def _guarded(work: object, counters: Counters, name: str, options: dict[str, int | float]) -> None:
    try:
        work(name, options)
    except (OSError, EOFError, AssertionError) as error:
        if not counters.stop:
            counters.error = f"{type(error).__name__}: {error}"
