"""Qpid's own command line tools (Python 2.7), unchanged, against our broker: what they do, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

HERE = Path(__file__).resolve().parent
ROOT = next(folder for folder in HERE.parents if (folder / "setup.cfg").exists())
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "conformance")]

import python27  # noqa: E402 - only now it can be found

SECONDS = 60
Run = Callable[..., str]


@pytest.fixture(scope="session")
def python() -> str:
    try:
        return python27.find()
    except python27.NoPython27 as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def site(python: str) -> Path:
    return python27.install(python)


@pytest.fixture(scope="session")
def address() -> str:
    url = urlsplit(os.environ["AMQP_URL"])
    return f"guest/guest@{url.hostname}:{url.port}"


@pytest.fixture
def run(python: str, site: Path, address: str) -> Run:
    """Runs a tool and gives what it printed."""
    def run(tool: str, *arguments: str, fails: bool = False) -> str:
        done = subprocess.run([python, str(site / "bin" / tool), "-b", address, *arguments], text=True,
                              env=python27.environment(site), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=SECONDS)
        assert (done.returncode != 0) is fails, done.stdout
        printed = done.stdout.partition("Error in atexit._run_exitfuncs")[0]  # qpid-python's own race as it ends
        assert "Traceback" not in printed
        return printed
    return run


@pytest.fixture
def queue(run: Run) -> Iterator[str]:
    run("qpid-config", "add", "queue", "tools-q", "--durable", "--max-queue-count", "5", "--limit-policy", "ring")
    yield "tools-q"
    run("qpid-config", "del", "queue", "tools-q", "--force")


@pytest.fixture
def exchange(run: Run) -> Iterator[str]:
    run("qpid-config", "add", "exchange", "topic", "tools-e", "--durable")
    yield "tools-e"
    run("qpid-config", "del", "exchange", "tools-e")


def rows(printed: str, first: str) -> list[str]:
    return [line for line in printed.splitlines() if re.match(rf"\s*{re.escape(first)}\b", line)]


def send(python: str, site: Path, address: str, queue: str, count: int) -> None:
    program = (f"from qpid.messaging import Connection, Message\n"
               f"c = Connection('{address}'); c.open(); s = c.session().sender('{queue}')\n"
               f"for n in range({count}): s.send(Message('m%d' % n, properties=dict(n=n)))\nc.close()\n")
    subprocess.run([python, "-c", program], env=python27.environment(site), check=True, timeout=SECONDS)


def test_config_shows_an_overview(run: Run, queue: str, exchange: str) -> None:
    printed = run("qpid-config")
    assert re.search(r"Total Exchanges: \d+", printed) and re.search(r"Total Queues: \d+", printed)


def test_config_lists_queues_with_their_options(run: Run, queue: str) -> None:
    line, = rows(run("qpid-config", "queues", queue), queue)
    assert "--durable" in line and "--max-queue-count=5" in line and "--limit-policy=ring" in line


def test_config_lists_exchanges(run: Run, exchange: str) -> None:
    line, = rows(run("qpid-config", "exchanges", exchange), "topic")
    assert exchange in line and "--durable" in line


def test_config_binds_and_unbinds(run: Run, queue: str, exchange: str) -> None:
    run("qpid-config", "bind", exchange, queue, "a.*")
    assert "bind [a.*] => tools-q" in run("qpid-config", "exchanges", exchange, "-r")
    run("qpid-config", "unbind", exchange, queue, "a.*")
    assert "a.*" not in run("qpid-config", "exchanges", exchange, "-r")


def test_config_binds_headers(run: Run, queue: str) -> None:
    run("qpid-config", "bind", "amq.match", queue, "k", "all", "colour=red")
    assert "colour" in run("qpid-config", "exchanges", "amq.match", "-r")
    run("qpid-config", "unbind", "amq.match", queue, "k")


@pytest.mark.parametrize("options", [
    ("--lvq-key", "k"), ("--argument", "qpid.priorities=5"), ("--max-queue-size", "100000"),
    ("--flow-stop-count", "10", "--flow-resume-count", "5"), ("--group-header", "g", "--shared-groups"),
    ("--alternate-exchange", "amq.fanout"), ("--argument", "qpid.auto_delete_timeout=5"),
    ("--argument", "x-message-ttl=1000")])
def test_config_makes_queues_of_all_kinds(run: Run, options: tuple[str, ...]) -> None:
    run("qpid-config", "add", "queue", "tools-k", *options)
    printed = run("qpid-config", "queues", "tools-k")
    assert rows(printed, "tools-k")
    run("qpid-config", "del", "queue", "tools-k")
    assert not rows(run("qpid-config", "queues"), "tools-k")


def test_config_lists_objects(run: Run, queue: str) -> None:
    assert "tools-q" in run("qpid-config", "list", "queue")


def test_config_is_told_of_errors(run: Run, queue: str) -> None:
    assert "already exists" in run("qpid-config", "add", "queue", queue, fails=True)
    run("qpid-config", "del", "queue", "there is none", fails=True)
    run("qpid-config", "add", "queue", "tools-x", "--argument", "qpid.max_count=many", fails=True)


def test_config_refuses_to_delete_what_is_not_empty(run: Run, python: str, site: Path, address: str,
                                                    queue: str) -> None:
    send(python, site, address, queue, 2)
    assert "not empty" in run("qpid-config", "del", "queue", queue, fails=True)


def test_stat_of_the_broker(run: Run) -> None:
    printed = run("qpid-stat", "-g")
    assert "uptime" in printed and "queues" in printed


def test_stat_of_connections(run: Run) -> None:
    printed = run("qpid-stat", "-c")
    assert "qpid-stat" in printed or "guest" in printed


def test_stat_of_exchanges(run: Run, exchange: str) -> None:
    printed = run("qpid-stat", "-e")
    assert rows(printed, exchange) and rows(printed, "amq.direct")


def test_stat_of_queues_counts_messages(run: Run, python: str, site: Path, address: str, queue: str) -> None:
    send(python, site, address, queue, 3)
    line, = rows(run("qpid-stat", "-q"), queue)
    assert re.search(r"\b3\s+3\s+0\b", line), line


def test_stat_of_one_queue(run: Run, queue: str) -> None:
    printed = run("qpid-stat", "-q", queue)
    assert "Properties:" in printed and "Statistics:" in printed and queue in printed


@pytest.mark.parametrize("option", ["-u", "-m"])
def test_stat_of_subscriptions_and_memory(run: Run, option: str) -> None:
    assert run("qpid-stat", option)


def test_events_are_printed(run: Run, python: str, site: Path, address: str) -> None:
    watcher = subprocess.Popen([python, "-u", str(site / "bin" / "qpid-printevents"), address], text=True,
                               env=python27.environment(site), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert watcher.stdout is not None
        time.sleep(2)  # it says nothing when it has begun to listen
        run("qpid-config", "add", "queue", "tools-events")
        run("qpid-config", "del", "queue", "tools-events")
        time.sleep(2)
    finally:
        watcher.terminate()  # a SIGINT is ignored where the tests run in the background
        printed = watcher.communicate(timeout=SECONDS)[0]
    assert "queueDeclare" in printed and "queueDelete" in printed and "qName=tools-events" in printed


def test_queue_stats_are_printed(python: str, site: Path, address: str, run: Run, queue: str) -> None:
    watcher = subprocess.Popen([python, "-u", str(site / "bin" / "qpid-queue-stats"), "-a", address], text=True,
                               env=python27.environment(site), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for _ in range(8):  # it prints every ten seconds what has changed
            send(python, site, address, queue, 2)
            time.sleep(4)
    finally:
        watcher.terminate()  # a SIGINT is ignored where the tests run in the background
        printed = watcher.communicate(timeout=SECONDS)[0]
    assert "Queue Name" in printed and queue in printed


@pytest.fixture
def route(python: str, site: Path) -> Run:
    """Runs qpid-route, which takes brokers as arguments."""
    def run(*arguments: str, fails: bool = False) -> str:
        done = subprocess.run([python, str(site / "bin" / "qpid-route"), *arguments], text=True,
                              env=python27.environment(site), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=SECONDS)
        assert (done.returncode != 0) is fails, done.stdout
        return done.stdout
    return run


@pytest.fixture
def source(python: str, site: Path) -> Iterator[str]:
    """The address of another broker of ours."""
    from dragoman import testing
    with testing.broker() as broker:
        yield f"guest/guest@{broker.host}:{broker.port}"


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def receive(python: str, site: Path, address: str, queue: str, count: int) -> list[str]:
    program = (f"from qpid.messaging import Connection\n"
               f"c = Connection('{address}'); c.open(); r = c.session().receiver('{queue}')\n"
               f"for n in range({count}): print(r.fetch(30).content); r.session.acknowledge()\nc.close()\n")
    done = subprocess.run([python, "-c", program], env=python27.environment(site), check=True, timeout=SECONDS,
                          text=True, stdout=subprocess.PIPE)
    return done.stdout.split()


def test_route_links_brokers(route: Run, address: str, source: str) -> None:
    place = source.partition("@")[2].replace(":", r"\s+")
    route("link", "add", address, source)
    assert re.search(rf"{place}\s+tcp\s+N\s+up", route("link", "list", address))
    route("-d", "link", "add", address, source)  # there is one already
    route("link", "del", address, source)
    assert "No Links Found" in route("link", "list", address)


def test_route_moves_messages_by_keys(route: Run, run: Run, python: str, site: Path, address: str, source: str,
                                      queue: str) -> None:
    run("qpid-config", "bind", "amq.topic", queue, "news.#")
    place = source.partition("@")[2]
    route("-d", "route", "add", address, source, "amq.topic", "news.#", "a-tag", "other,tags")
    assert f"{place} amq.topic news.#" in route("route", "list", address)
    assert "Duplicate" in route("route", "add", address, source, "amq.topic", "news.#", fails=True)
    mapped = route("route", "map", address)
    assert f"<= {place}(ex=amq.topic) key=news.#" in mapped
    send(python, site, source, "amq.topic/news.x", 3)
    assert receive(python, site, address, queue, 3) == ["m0", "m1", "m2"]
    route("-e", "route", "del", address, source, "amq.topic", "news.#")
    assert "No Links Found" in route("link", "list", address)


def test_route_follows_bindings(route: Run, run: Run, python: str, site: Path, address: str, source: str,
                                queue: str) -> None:
    route("dynamic", "add", address, source, "amq.topic")
    assert "amq.topic <dynamic>" in route("route", "list", address)
    run("qpid-config", "bind", "amq.topic", queue, "late.#")

    def reaches() -> bool:
        listed = subprocess.run([python, str(site / "bin" / "qpid-config"), "-b", source, "exchanges", "amq.topic",
                                 "-r"], env=python27.environment(site), capture_output=True, text=True).stdout
        return "late.#" in listed
    until(reaches)
    send(python, site, source, "amq.topic/late.x", 2)
    assert receive(python, site, address, queue, 2) == ["m0", "m1"]
    assert "Exchange amq.topic:" in route("route", "map", address)
    route("-e", "dynamic", "del", address, source, "amq.topic")


@pytest.mark.parametrize("options", [(), ("-s",)], ids=["pull", "push"])
def test_route_moves_a_queue(options: tuple[str, ...], route: Run, run: Run, python: str, site: Path, address: str,
                             source: str, queue: str) -> None:
    """With -s the link is made at the source."""
    subprocess.run([python, str(site / "bin" / "qpid-config"), "-b", source, "add", "queue", "far"], check=True,
                   env=python27.environment(site), timeout=SECONDS)
    run("qpid-config", "bind", "amq.direct", queue, "far")
    route(*options, "queue", "add", address, source, "amq.direct", "far")
    send(python, site, source, "far", 3)
    assert receive(python, site, address, queue, 3) == ["m0", "m1", "m2"]
    route(*options, "queue", "del", address, source, "amq.direct", "far")
    route("-e", "route", "flush", source if options else address)
