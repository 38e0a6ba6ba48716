"""A small Celery application: workers in processes of their own, results by rpc://, remote control, events."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from kombu.pools import reset

from tests.conformance.celery_app import make_app
from tests.conformance.conftest import Phoenix
from tests.conformance.support import DEADLINE, Names, Proxy, Target, until

ROOT = Path(__file__).parent.parent.parent


class Worker:
    """A worker process of the application, consuming when it is made."""

    def __init__(self, app: Celery, broker: str, log: Path) -> None:
        self.name = f"{log.stem}@conformance"
        self.log = log
        environment = {**os.environ, "CELERY_BROKER": broker, "CELERY_RESULTS": app.conf.result_backend,
                       "CELERY_NAME": app.conf.task_default_queue, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", "tests.conformance.celery_app", "worker",
                   "--pool", "solo", "--concurrency", "1", "--hostname", self.name, "--loglevel", "info", "-E"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=log.parent, env=environment, stdin=subprocess.DEVNULL,
                                            stdout=output, stderr=subprocess.STDOUT)
        try:
            until(lambda: " ready." in self.text or self.process.poll() is not None, "the worker's start")
            assert self.process.poll() is None, self.text
        except AssertionError:
            self.kill()
            raise

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """The gentle way: a worker finishes what it does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def application(target: Target, names: Names, results: str = "rpc://") -> Celery:
    name = names.queue("celery")
    names.queues.append(f"{name}.topic")
    names.exchanges += [name, f"{name}.topic", f"{name}.control.pidbox", f"reply.{name}.control.pidbox",
                        f"{name}.events"]
    return make_app(target.url, results, name)


def close(app: Celery) -> None:
    if app.conf.result_backend == "rpc://" and app.backend.result_consumer._consumer is not None:
        with suppress(OSError):  # the broker may be gone
            app.backend.result_consumer.stop()
    app.close()
    reset()


@pytest.fixture(scope="module")
def module_names(target: Target) -> Iterator[Names]:
    names = Names(target)
    yield names
    names.clean()


@pytest.fixture(scope="module")
def app(target: Target, module_names: Names) -> Iterator[Celery]:
    app = application(target, module_names)
    yield app
    close(app)


@pytest.fixture(scope="module")
def worker(app: Celery, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(app, target.url, tmp_path_factory.mktemp("celery") / "main.log")
    yield worker
    worker.stop()


def send(app: Celery, task: str, *arguments: Any, **options: Any) -> Any:
    return app.tasks[f"conformance.{task}"].apply_async(arguments, **options)


def result(answer: Any) -> Any:
    return answer.get(timeout=DEADLINE)


# Tasks and their results


def test_tasks(app: Celery, worker: Worker) -> None:
    answers = [send(app, "add", number, 1) for number in range(30)]
    assert [result(answer) for answer in answers] == list(range(1, 31))
    assert all(answer.successful() for answer in answers)


def test_arguments_and_headers(app: Celery, worker: Worker) -> None:
    value = {"list": [1, 2.5, None, "grüße"], "large": "x" * 1_000_000}
    answer = result(send(app, "echo", value, priority=7, headers={"mine": "header"}, compression="gzip"))
    assert answer["value"] == value
    assert (answer["priority"], answer["headers"], answer["redelivered"]) == (7, "header", False)
    assert answer["routing_key"] == app.conf.task_default_queue


def test_routing(app: Celery, worker: Worker) -> None:
    assert result(send(app, "routed")) == "routed"
    exchange = f"{app.conf.task_default_queue}.topic"
    answer = result(send(app, "echo", 1, exchange=exchange, routing_key="work.more.specific"))
    assert answer["routing_key"] == "work.more.specific"


def test_failure_and_retries(app: Celery, worker: Worker) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        result(send(app, "fail"))
    assert result(send(app, "flaky", 3)) == 3
    with pytest.raises(OSError, match="not yet"):
        result(send(app, "flaky", 99))


def test_groups_and_chains(app: Celery, worker: Worker) -> None:
    add, total = app.tasks["conformance.add"], app.tasks["conformance.total"]
    assert group(add.s(number, number) for number in range(20)).apply_async().get(timeout=DEADLINE) == [
        2 * number for number in range(20)]
    assert result(chain(add.s(1, 2), add.s(10), add.s(100)).apply_async()) == 113
    assert result(total.s([1, 2, 3]).apply_async(link=app.tasks["conformance.note"].s())) == 6
    with pytest.raises(NotImplementedError):  # rpc:// cannot, which is the client's own rule
        chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()


def test_countdown_and_eta(app: Celery, worker: Worker) -> None:
    soon = send(app, "add", 1, 1, eta=datetime.now(UTC) + timedelta(seconds=0.6))
    sooner = send(app, "add", 2, 2, countdown=0.3)
    at_once = send(app, "add", 3, 3)
    assert [result(answer) for answer in (at_once, sooner, soon)] == [6, 4, 2]


def test_expired_tasks_are_not_run(app: Celery, worker: Worker) -> None:
    with pytest.raises(TaskRevokedError):
        result(send(app, "note", "expired", expires=datetime.now(UTC) - timedelta(seconds=5)))
    assert "expired" not in result(send(app, "notes"))


def test_priorities(app: Celery, worker: Worker, tmp_path: Path) -> None:
    holding = send(app, "hold", str(tmp_path / "started"), str(tmp_path / "released"))
    until((tmp_path / "started").exists, "the holding task")
    answers = [send(app, "note", f"priority {priority}", priority=priority) for priority in (1, 9, 5, 0)]
    (tmp_path / "released").touch()
    assert [result(answer) for answer in (holding, *answers)] == [False, None, None, None, None]
    noted = [each for each in result(send(app, "notes")) if str(each).startswith("priority")]
    assert noted == ["priority 9", "priority 5", "priority 1", "priority 0"]


def test_a_rejected_task_is_requeued_once(app: Celery, worker: Worker) -> None:
    send(app, "refuse", ignore_result=True)
    until(lambda: result(send(app, "notes")).count("refused") == 2, "the second attempt")


# Remote control and events


def test_inspection(app: Celery, worker: Worker) -> None:
    inspect = app.control.inspect([worker.name], timeout=1)
    assert until(inspect.ping, "the answer to a ping") == {worker.name: {"ok": "pong"}}
    assert "conformance.add" in until(inspect.registered, "the tasks")[worker.name]
    queues = {queue["name"] for queue in until(inspect.active_queues, "the queues")[worker.name]}
    assert queues == {app.conf.task_default_queue, f"{app.conf.task_default_queue}.topic"}
    assert until(inspect.stats, "the statistics")[worker.name]["prefetch_count"] >= 1


def test_revoking(app: Celery, worker: Worker) -> None:
    answer = send(app, "note", "revoked", countdown=1.5)
    inspect = app.control.inspect([worker.name], timeout=0.5)
    until(lambda: any(each["request"]["id"] == answer.id
                      for each in (inspect.scheduled() or {}).get(worker.name, [])), "the task's arrival")
    answer.revoke()
    with pytest.raises(TaskRevokedError):
        result(answer)
    assert "revoked" not in result(send(app, "notes"))


def test_queues_at_run_time(app: Celery, worker: Worker, names: Names) -> None:
    queue = names.queue("late")
    names.exchanges.append(queue)
    answer = app.control.add_consumer(queue, exchange=queue, exchange_type="direct", routing_key=queue, reply=True,
                                      destination=[worker.name], timeout=1)
    assert "ok" in answer[0][worker.name]
    inspect = app.control.inspect([worker.name], timeout=0.5)
    until(lambda: queue in str(inspect.active_queues()), "the new queue")
    assert result(send(app, "add", 20, 22, exchange=queue, routing_key=queue)) == 42
    answer = app.control.cancel_consumer(queue, reply=True, destination=[worker.name], timeout=1)
    assert "ok" in answer[0][worker.name]
    assert "ok" in app.control.rate_limit("conformance.add", "100/s", reply=True, timeout=1)[0][worker.name]


def test_events(app: Celery, worker: Worker) -> None:
    seen: list[str] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: note(event)})

        def note(event: dict[str, Any]) -> None:
            seen.append(event["type"])
            receiver.should_stop = "task-succeeded" in seen

        consumer = receiver.itercapture(limit=None, timeout=DEADLINE, wakeup=False)
        next(consumer)  # it consumes now
        answer = send(app, "add", 1, 1)
        for _ in consumer:
            pass
        assert result(answer) == 2
    assert {"task-received", "task-started", "task-succeeded"} <= set(seen)


def test_purging(app: Celery, worker: Worker, tmp_path: Path) -> None:
    holding = send(app, "hold", str(tmp_path / "started"), str(tmp_path / "released"))
    until((tmp_path / "started").exists, "the holding task")
    for _ in range(5):
        send(app, "note", "purged", ignore_result=True)
    with app.connection_for_write() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue](connection.channel())
        until(lambda: queue.queue_declare(passive=True).message_count == 5, "all tasks")
    assert app.control.purge() == 5
    (tmp_path / "released").touch()
    result(holding)
    assert "purged" not in result(send(app, "notes"))


# Workers and brokers that go


def test_a_chord(target: Target, names: Names, tmp_path: Path) -> None:
    """Chords need a result store: here files, and the broker carries the unlocking task's retries."""
    (tmp_path / "results").mkdir()
    app = application(target, names, f"file://{tmp_path}/results")
    worker = Worker(app, target.url, tmp_path / "chord.log")
    add, total = app.tasks["conformance.add"], app.tasks["conformance.total"]
    try:
        assert chord([add.s(number, number) for number in range(10)], total.s()).apply_async().get(
            timeout=DEADLINE) == 90
    finally:
        worker.stop()
        close(app)


def test_a_killed_workers_task_goes_to_another(target: Target, names: Names, tmp_path: Path) -> None:
    app = application(target, names)
    first = Worker(app, target.url, tmp_path / "first.log")
    workers = [first]
    try:
        answer = send(app, "hold", str(tmp_path / "started"), str(tmp_path / "released"))
        until((tmp_path / "started").exists, "the task's start")
        first.kill()
        (tmp_path / "released").touch()
        workers.append(Worker(app, target.url, tmp_path / "second.log"))
        assert result(answer) is True
        app.control.shutdown(destination=[workers[1].name])
        until(lambda: workers[1].process.poll() is not None, "the shutdown by remote control")
    finally:
        for worker in workers:
            worker.stop()
        close(app)


def test_a_worker_survives_the_network(target: Target, proxy: Proxy, names: Names, tmp_path: Path) -> None:
    app = application(target, names)
    worker = Worker(app, proxy.outside.url, tmp_path / "worker.log")
    try:
        assert result(send(app, "add", 1, 1)) == 2
        proxy.cut()
        assert result(send(app, "add", 2, 2)) == 4
    finally:
        worker.stop()
        close(app)


@pytest.mark.usefixtures("careless")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tasks_survive_the_broker(phoenix: Phoenix, tmp_path: Path) -> None:
    target = phoenix.proxy.outside
    names = Names(target)
    app = application(target, names, f"file://{tmp_path}")
    with app.connection_for_write() as connection:
        app.amqp.queues[app.conf.task_default_queue](connection.channel()).declare()
    answer = send(app, "add", 20, 22)
    phoenix.restart()
    worker = Worker(app, target.url, tmp_path / "worker.log")
    try:
        assert result(answer) == 42
    finally:
        worker.stop()
        close(app)
    names.clean()
