"""`make bench`: how many messages a second the broker moves, and what one costs it.

    make bench                              all rows, some seconds each; the backlogs of 5 million take minutes
    make bench PEER=127.0.0.1:5673          another 0-9-1 broker beside it, row by row in turns
    make bench ARGS="--rabbitmq"            the same with Debian's rabbitmq-server, started for the purpose
    make bench ARGS="--mosquitto"           and with Debian's mosquitto beside the rows of MQTT
    make bench ARGS="--quick --rows '100 B'"   a second a row, small numbers; only rows that match the expression

How to read the table:

* A row is `size, safety, shape`. Safety: *auto-ack* (no acks, no confirms, delivery mode 1), *confirm* (publisher
  confirms, consumer acks, delivery mode 1, transient queues), *durable* (the same with delivery mode 2 and durable
  queues). Shape: *1:1* is one publisher, queue and consumer; *1:10* a fanout exchange to ten queues with a consumer
  each; *10:10* ten publishers, each to a queue and consumer of its own. Every message is acked by itself, prefetch is
  1,000; rows that say *ack 100* ack a hundred at once.
* *in/s* counts messages published, *out/s* messages delivered. They differ in 1:10 only.
* *CPU us* is the broker's processor time, user and system, all threads and processes, in microseconds a message
  *moved*: in at one end and out at the other. In 1:10 each of the ten copies is one. (Should queues have grown or
  shrunk during the row, it is the mean of what went in and what came out. Where there is only an in or an out, it is
  that.) This is the figure to compare: it depends little on what else the machine does.
* *RSS* is the broker's resident memory at the end of the row, MiB; for backlogs the peak, for connections KiB each.
* *ratio* is our CPU a message divided by the peer's: 0.25 is a quarter. *was* is it divided by that of the last release
  (tests/bench/baseline.json), which says something on the machine that made that file only.
* An asterisk: the load generator was busy all the time, so the broker might have been faster (its CPU is still right).
* The scaling lines at the end compare a row with the one that has a tenth of the queues or bindings.

A publisher has at most 1,000 messages unconfirmed and 10,000 undelivered (fewer, when they are large), so queues stay
short; the rows called backlog are there for long ones. Each row proves that nothing was lost, doubled, redelivered or
out of order, that each message was confirmed once, and that the queues were empty in the end; if not, the row has
failed, and so has the run (exit code 1). Nothing is ever judged by its speed.

The rows of AMQP 1.0 and 0-10 have one publisher, queue and consumer. *pre-settled* is both links settled, *settled on
accept* neither, and each delivery accepted by itself. *accept none* and *accept explicit* are 0-10's accept modes, both
ways, in a window of 1,000; 250 messages are accepted and completed at once. *durable* is the second of either with
durable messages and queue. Their load is made by tests/bench/ends.py, which is slow: compare the CPU, not the rates.

The rows *by a bridge* publish to RabbitMQ, started for the purpose, have a bridge pull that in, and read it over 1.0,
each delivery accepted by itself. The CPU is Dragoman's: the bridge, publishing, and the reader.

The rows *by TLS* have two lines. Their clients come to a broker of their own by a forwarder, a process beside it: one
that speaks TLS to the broker (TLS), and one that does not (plain). Only the broker's CPU counts, and what TLS adds to
it is said at the end; where the machine is busy, measure for longer (--seconds 20). *half-open* is who has connected
and not logged in: has said nothing, sent the header of 0-9-1, or begun a TLS handshake; CPU and memory are those of one
of them. *1.0 by TLS, connections* have logged in: beside *1.0, connections* they show what a handshake takes, and what
memory TLS does.

The rows of MQTT have a publisher and a subscriber, with the same QoS; every message is acknowledged by itself, at most
1,000 are not yet. *persistent session*: the subscriber's session outlives its connection, so Dragoman has all on disk
before it acknowledges; Mosquitto has not, it saves every half hour. *subscribers* are all to one topic, with QoS 0.
*retained*: so many messages are retained with QoS 1, read by one subscription to all of them, and removed.

`--self` measures the load generator itself, against a sink; `--out FILE` writes all as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench.brokers import (
    BenchError,
    Broker,
    Dragoman,
    Mosquitto,
    Phase,
    RabbitMQ,
    Running,
    Sink,
    build,
    load,
)
from tests.bench.ends import V010, V091, V10, V311, bridged, flow, idle
from tests.bench.secured import CLIENTS, connected, secured
from tests.peers import PeerFailed, PeerMissing

BASELINE = Path(__file__).with_name("baseline.json")
SIZES = {"100 B": 100, "1 KiB": 1024, "64 KiB": 65536}
WINDOW, AHEAD, PREFETCH = 1000, 10000, 1000  # messages
WINDOW_BYTES, AHEAD_BYTES = 16 << 20, 32 << 20
SPARE_FILES = 500  # file descriptors that brokers need beside those of connections
NAME = 42  # columns for the names of lines
BUSY = 0.9  # share of a core above which the load generator may be what is slow

SAFETIES: dict[str, dict[str, int | float]] = {
    "auto-ack": {},
    "confirm": {"confirm": 1, "ack": 1, "prefetch": PREFETCH},
    "durable": {"confirm": 1, "ack": 1, "prefetch": PREFETCH, "durable": 1},
}
SHAPES: dict[str, dict[str, int | float]] = {
    "1:1": {},
    "1:10": {"fanout": 1, "queues": 10, "consumers": 10},
    "10:10": {"publishers": 10, "queues": 10, "consumers": 10},
}
ENDS: dict[str, dict[str, int | float]] = {
    "1.0, 100 B, pre-settled": {"source": V10, "sink": V10, "settled": 1},
    "1.0, 100 B, settled on accept": {"source": V10, "sink": V10},
    "1.0, 100 B, durable": {"source": V10, "sink": V10, "durable": 1},
    "0-9-1 to 1.0, 100 B, auto-ack": {"source": V091, "sink": V10, "settled": 1},
    "1.0 to 0-9-1, 100 B, auto-ack": {"source": V10, "sink": V091, "settled": 1},
    "0-10, 100 B, accept none": {"source": V010, "sink": V010, "settled": 1},
    "0-10, 100 B, accept explicit": {"source": V010, "sink": V010},
    "0-10, 100 B, durable": {"source": V010, "sink": V010, "durable": 1},
    "0-9-1 to 0-10, 100 B, auto-ack": {"source": V091, "sink": V010, "settled": 1},
    "0-10 to 0-9-1, 100 B, auto-ack": {"source": V010, "sink": V091, "settled": 1},
    "1.0 to 0-10, 100 B, auto-ack": {"source": V10, "sink": V010, "settled": 1},
    "0-10 to 1.0, 100 B, auto-ack": {"source": V010, "sink": V10, "settled": 1},
    "MQTT to 0-9-1, 100 B, QoS 0": {"source": V311, "sink": V091, "settled": 1, "topic": 1},
    "0-9-1 to MQTT, 100 B, QoS 0": {"source": V091, "sink": V311, "settled": 1, "topic": 1},
    "MQTT to 1.0, 100 B, QoS 0": {"source": V311, "sink": V10, "settled": 1, "topic": 1},
    "1.0 to MQTT, 100 B, QoS 0": {"source": V10, "sink": V311, "settled": 1, "topic": 1},
}
"""The rows of tests/bench/ends.py."""
BRIDGES: dict[str, dict[str, int | float]] = {
    "RabbitMQ by a bridge to 1.0, 100 B": {"source": V091, "sink": V10},
    "RabbitMQ by a bridge to 1.0, durable": {"source": V091, "sink": V10, "durable": 1},
}
"""The rows with RabbitMQ as the remote of a bridge."""
ALONE = ("bridge", "tls", *CLIENTS)
"""Modes of rows that start a broker of their own."""
MQTT: dict[str, dict[str, int | float]] = {
    "QoS 0": {"qos": 0},
    "QoS 1": {"qos": 1},
    "QoS 2": {"qos": 2},
    "QoS 1, 10:10": {"qos": 1, "publishers": 10, "consumers": 10},
    "QoS 1, persistent session": {"qos": 1, "persistent": 1},
    "QoS 2, persistent session": {"qos": 2, "persistent": 1},
}
"""The rows of tests/bench/mqttgen.c with a publisher to each subscriber."""


SECURED: dict[str, dict[str, int | float]] = {
    "0-9-1 by TLS, 100 B, confirm": SAFETIES["confirm"] | {"size": 100},
    "0-9-1 by TLS, 16 KiB, confirm": SAFETIES["confirm"] | {"size": 16384, "window": 1000, "ahead": 2000},
    "1.0 by TLS, 100 B, accepted": {"source": V10, "sink": V10, "size": 100},
    "1.0 by TLS, 16 KiB, accepted": {"source": V10, "sink": V10, "size": 16384},
}
"""The rows of tests/bench/secured.py with traffic."""


@dataclass(frozen=True)
class Figures:
    """One line of the table for one broker; None where there is nothing to say."""

    in_rate: float | None  # a second
    out_rate: float | None
    cpu_us: float | None  # a message, or whatever the row counts
    memory: float | None  # MiB, or KiB each for connections
    generator_us: float  # of the load generator's own CPU, a message
    limited: bool  # the load generator was busy all the time


@dataclass(frozen=True)
class Row:
    """A workload: what loadgen is asked to do, and which lines come of it."""

    name: str
    mode: str
    options: dict[str, int | float]
    phases: dict[str, str] = field(default_factory=lambda: {"flow": ""})  # of loadgen's, and what a line adds for them
    program: str = "loadgen"
    fresh: bool = False  # on a newly started broker, for the sake of its memory


@dataclass
class Result:
    """What came of a line: figures, or what went wrong, for our broker and for the peer."""

    name: str
    figures: dict[str, Figures] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


# What is measured


def rows(seconds: float, quick: bool, backlog: int) -> list[Row]:
    """All workloads, in the order of the table."""
    time: dict[str, int | float] = {"seconds": seconds, "warmup": min(1.0, seconds / 3)}
    table = [Row(f"{size}, {safety}, {shape}", "flow", time | _bounds(SIZES[size]) | SAFETIES[safety] | SHAPES[shape])
             for size in SIZES for safety in SAFETIES for shape in SHAPES]
    table += [Row(f"100 B, {safety}, 1:1, ack 100", "flow", time | SAFETIES[safety] | {"ack": 100})
              for safety in ("confirm", "durable")]
    for queues in (200, 2000) if quick else (1000, 10000):
        table.append(Row(f"{queues:,} queues", "flow", time | SAFETIES["confirm"] | {"queues": queues},
                         {"declare": ": declare", "flow": ""}, fresh=True))
    for bindings in (1000, 10000) if quick else (10000, 100000):
        table.append(Row(f"{bindings:,} topic bindings", "flow", time | {"queues": 10, "bindings": bindings},
                         {"bind": ": bind", "flow": ""}, fresh=True))
    for safety in ("confirm", "durable"):
        name = f"backlog of {backlog:,}, {'durable' if safety == 'durable' else 'transient'}"
        table.append(Row(name, "backlog", SAFETIES[safety] | {"messages": backlog},
                         {"publish": ": publish", "drain": ": drain"}, fresh=True))
    wanted = 1000 if quick else 10000
    connections = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES)
    table.append(Row(f"{connections:,} connections", "idle", time | {"connections": connections},
                     {"open": ": open", "idle": ": idle"}, fresh=True))
    table.append(Row("connection churn", "churn", time, {"churn": ""}))
    for name, options in ENDS.items():
        table.append(Row(name, "ends", time | {"size": 100} | options))
    for name, options in BRIDGES.items():
        table.append(Row(name, "bridge", time | {"size": 100, "warmup": 4.0} | options))
    for name, dialect in (("1.0", V10), ("0-10", V010)):
        table.append(Row(f"{name}, {connections:,} connections", "idle ends",
                         {"connections": connections, "dialect": dialect}, {"open": ""}, fresh=True))
    for name, options in SECURED.items():
        table.append(Row(name, "tls", time | options, {"plain": ": plain", "TLS": ": TLS"}))
    for kind in CLIENTS:
        clients = min(1000 if quick else 4000, connections)
        table.append(Row(f"{kind}, {clients:,} connections", kind, {"connections": clients}, {"open": ""}))
    return table + _mqtt(time, quick, connections)


def _mqtt(time: dict[str, int | float], quick: bool, connections: int) -> list[Row]:
    """The rows of MQTT."""
    table = []
    for name, options in MQTT.items():
        table.append(Row(f"MQTT, 100 B, {name}", "flow", time | options, program="mqttgen"))
    table.append(Row(f"MQTT, {connections:,} subscribers", "flow", time | {
        "fanout": 1, "consumers": connections, "ahead": 10}, program="mqttgen", fresh=True))
    retained = 10_000 if quick else 100_000
    table.append(Row(f"MQTT, {retained:,} retained", "retained", {"messages": retained},
                     {"set": ": set", "read": ": read", "remove": ": remove"}, program="mqttgen", fresh=True))
    table.append(Row(f"MQTT, {connections:,} connections", "idle", time | {"connections": connections},
                     {"open": ": open", "idle": ": idle"}, program="mqttgen", fresh=True))
    return table


def _bounds(size: int) -> dict[str, int | float]:
    return {"size": size, "window": min(WINDOW, WINDOW_BYTES // size), "ahead": min(AHEAD, AHEAD_BYTES // size)}


def figures(row: Row, phase: Phase, measured: bool) -> Figures:
    """A phase as a line of the table."""
    copies = row.options["queues" if "queues" in row.options else "consumers"] if "fanout" in row.options else 1
    entered = phase.into * int(copies)
    both = row.mode in ("flow", "ends", "bridge", "tls") and phase.out
    moved = (entered + phase.out) / 2 if both else phase.out or phase.into
    memory = phase.peak_kib / 1024 if row.mode == "backlog" else phase.rss_kib / 1024
    if row.mode in ("idle", "idle ends", *CLIENTS):
        memory = (phase.rss_kib - phase.rss_from_kib) / max(moved, 1) if moved else phase.rss_kib / 1024
    return Figures(
        in_rate=phase.into / phase.seconds if phase.into else None,
        out_rate=phase.out / phase.seconds if phase.out else None,
        cpu_us=phase.cpu / moved * 1e6 if measured and moved else None,
        memory=memory if measured else None,
        generator_us=phase.own_cpu / moved * 1e6 if moved else 0.0,
        limited=row.mode == "flow" and phase.own_cpu > BUSY * phase.seconds)


def _phases(row: Row, broker: Broker) -> list[Phase]:
    """Do a row's work. Raises: BenchError, PeerFailed."""
    if row.mode == "bridge":
        return bridged(row.options)
    if row.mode == "tls":
        return secured(row.options)
    if row.mode in CLIENTS:
        return connected(row.mode, int(row.options["connections"]))
    if row.mode == "ends":
        return flow(broker, row.options)
    if row.mode == "idle ends":
        return idle(broker, row.options)
    return load(broker, row.program, row.mode, row.options)


def measure(row: Row, column: str, broker: Broker, results: list[Result]) -> None:
    """Run one row against one broker and note what came of it, under the name of its column."""
    try:
        if row.fresh:
            broker.stop()
        broker.settle()
        phases = _phases(row, broker)
        found = {phase.name: phase for phase in phases}
        for result, name in zip(results, row.phases, strict=True):
            result.figures[column] = figures(row, found[name], bool(broker.processes()))
    except (BenchError, PeerFailed) as error:
        for result in results:
            result.errors[column] = str(error)
        broker.stop()  # what is left in it must not spoil the next row


# What is printed


def line(result: Result, columns: Sequence[str], was: dict[str, float]) -> str:
    """A line of the table. `was` is our CPU a message in the last release, by name of line."""
    cells = [f"{result.name:<{NAME}}"]
    for column in columns:
        if column in result.errors:
            cells.append("FAILED".ljust(38))
            continue
        if column not in result.figures:
            cells.append("-".rjust(31) + " " * 7)
            continue
        f = result.figures[column]
        rate_in, rate_out = _number(f.in_rate, "{:,.0f}", 10), _number(f.out_rate, "{:,.0f}", 10)
        cpu, memory = _number(f.cpu_us, "{:,.2f}", 10), _number(f.memory, "{:,.0f}", 6)
        cells.append(f"{rate_in}{'*' if f.limited else ' '}{rate_out}{cpu}{memory} ")
    cpus = [result.figures[column].cpu_us for column in columns if column in result.figures]
    if len(columns) == 2:
        cells.append(_number(cpus[0] / cpus[1] if len(cpus) == 2 and cpus[0] and cpus[1] else None, "{:.2f}", 7))
    if was:
        before = was.get(result.name)
        cells.append(_number(cpus[0] / before if before and cpus and cpus[0] else None, "{:.2f}", 7))
    return "|".join(cells)


def header(brokers: Sequence[Broker], was: dict[str, float]) -> str:
    """The two lines above the table."""
    columns = [brokers[0].name, " / ".join(peer.name for peer in brokers[1:])][:len(brokers)]
    names = [" " * NAME] + [f"{name:^38}" for name in columns]
    titles = [" " * NAME] + [f"{'in/s':>10} {'out/s':>10}{'CPU us':>10}{'RSS':>6} " for _ in columns]
    titles += ["  ratio"] * (len(columns) == 2) + ["    was"] * bool(was)
    return "|".join(names) + "\n" + "|".join(titles)


def _number(value: float | None, form: str, width: int) -> str:
    return (form.format(value) if value is not None else "-").rjust(width)


def by_tls(results: Sequence[Result]) -> list[str]:
    """CPU a message by TLS, as a multiple of that without."""
    lines = []
    cpus = {result.name: result.figures["ours"].cpu_us for result in results if "ours" in result.figures}
    for name in SECURED:
        plain, tls = cpus.get(f"{name}: plain"), cpus.get(f"{name}: TLS")
        if plain and tls:
            lines.append(f"{name}: CPU a message x{tls / plain:.2f} of that without")
    return lines


def scaling(results: Sequence[Result], columns: Sequence[str]) -> list[str]:
    """For queues and bindings: CPU a message with all of them, as a multiple of that with a tenth."""
    lines = []
    for what in ("queues", "topic bindings"):
        pair = [result for result in results if re.fullmatch(rf"[\d,]+ {what}", result.name)]
        for column in columns if len(pair) == 2 else ():
            few, many = (result.figures.get(column) for result in pair)
            if few and many and few.cpu_us and many.cpu_us:
                lines.append(f"10 times the {what}: CPU a message x{many.cpu_us / few.cpu_us:.2f} ({column})")
    return lines


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 when a workload failed, 2 when nothing could be run."""
    options = parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            build()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dragoman-bench-")))
            brokers = chosen(options, folder)
            for broker in brokers:
                stack.callback(broker.stop)
            results = run(options, brokers)
    except (BenchError, PeerMissing) as error:
        print(error, file=sys.stderr)
        return 2
    return 1 if any(result.errors for result in results) else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", metavar="PATTERN", default="", help="only rows whose name this expression is found in")
    made.add_argument("--seconds", type=float, help="to measure each row for (5; 1 with --quick)")
    made.add_argument("--backlog", type=int, help="messages in a backlog (5,000,000; 100,000 with --quick)")
    made.add_argument("--quick", action="store_true", help="small numbers: to see that all works")
    made.add_argument("--peer", metavar="HOST:PORT", help="measure this broker in the same run")
    made.add_argument("--rabbitmq", action="store_true", help="measure a rabbitmq-server in the same run")
    made.add_argument("--mosquitto", action="store_true", help="measure Mosquitto beside the rows of MQTT")
    made.add_argument("--broker", metavar="HOST:PORT", help="measure this running broker instead of starting Dragoman")
    made.add_argument("--self", action="store_true", help="measure the load generator against a sink instead")
    made.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    made.add_argument("--list", action="store_true", help="print the names of the rows")
    return made


def chosen(options: argparse.Namespace, folder: Path) -> list[Broker]:
    """The brokers to measure, ours first."""
    if options.self:
        return [Sink()]
    brokers: list[Broker] = [Running(options.broker) if options.broker else Dragoman(folder / "dragoman")]
    if options.peer:
        brokers.append(Running(options.peer))
    elif options.rabbitmq:
        brokers.append(RabbitMQ(folder / "rabbitmq"))
    if options.mosquitto:
        brokers.append(Mosquitto(folder / "mosquitto"))
    return brokers


def run(options: argparse.Namespace, brokers: Sequence[Broker]) -> list[Result]:
    """Measure and print; returns all results."""
    seconds = options.seconds or (1.0 if options.quick else 5.0)
    table = rows(seconds, options.quick, options.backlog or (100_000 if options.quick else 5_000_000))
    keep: Callable[[Row], object] = lambda row: re.search(options.rows, row.name)  # noqa: E731
    table = [row for row in table if keep(row) and (not options.self or row.name.endswith(("1:1", "ack 100")))]
    if options.list:
        print("\n".join(row.name for row in table))
        return []
    columns = ("ours", "peer")[:len(brokers)]  # whichever peer speaks the row's dialect
    was = {} if options.self else baseline()
    results: list[Result] = []
    print(header(brokers, was), flush=True)
    for row in table:
        made = [Result(row.name + suffix) for suffix in row.phases.values()]
        mqtt = row.program == "mqttgen"
        able = [broker for broker in brokers if (broker.speaks_mqtt if mqtt else broker.speaks_amqp)]
        if row.mode in ALONE:
            able = able[:1]
        for column, broker in zip(columns, able, strict=False):
            measure(row, column, broker, made)
        for result in made:
            print(line(result, columns, was), flush=True)
        for column, text in made[0].errors.items():
            print(f"    {column}: {text}", flush=True)
        results += made
    print("\n".join([*scaling(results, columns), *by_tls(results)]))
    if options.self:
        print("own CPU a message of the load generator, us:")
        print("\n".join(f"{r.name:<{NAME}} {r.figures['ours'].generator_us:.3f}" for r in results if not r.errors))
    if options.out:
        write(options.out, results, brokers, seconds)
    return results


def baseline() -> dict[str, float]:
    """CPU a message of the last release, by name of line; nothing when none is stored."""
    if not BASELINE.exists():
        return {}
    stored = json.loads(BASELINE.read_text())
    if stored["machine"] != machine():
        print(f"The last release was measured on another machine ({stored['machine']}).")
    ours = ((result["name"], result["figures"].get("ours")) for result in stored["results"])
    return {name: found["cpu_us"] for name, found in ours if found and found["cpu_us"]}


def write(path: Path, results: Sequence[Result], brokers: Sequence[Broker], seconds: float) -> None:
    """Store the results as JSON, as the last release's if `path` is that of the baseline."""
    document = {"machine": machine(), "seconds": seconds, "brokers": [broker.name for broker in brokers],
                "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> str:
    """The processor's name, and how many there are."""
    found = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{len(found)} x {found[0]}" if found else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
