"""What qpidd says of itself (QMF), what qpid-config prints, and scripts of it, as plans; and `dragoman import qpidd`.

definitions/qpid-config.txt is what the real qpid-config 1.36 printed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pika
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as some

from dragoman import testing
from dragoman.cli import dragoman
from dragoman.config import parse
from interop.migration import qmf
from interop.migration.plan import Binding, Exchange, Plan, Queue
from interop.migration.qpid_config import NotUnderstood, read_text

ROOT = Path(__file__).resolve().parents[2]
PRINTED = Path(__file__).parent / "definitions" / "qpid-config.txt"
WAIT = 60.0


def by_name(plan: Plan) -> dict[str, Any]:
    return {each.name: each for each in (*plan.exchanges, *plan.queues)}


def test_what_qpid_config_prints() -> None:
    plan = read_text(PRINTED.read_text())
    assert by_name(plan) == {
        "events": Exchange("/", "events", "topic", arguments={"qpid.msg_sequence": 1, "qpid.ive": 1}),
        "unrouted": Exchange("/", "unrouted", "fanout"), "h": Exchange("/", "h", "headers"),
        "orders-x": Exchange("/", "orders-x", "direct", arguments={"alternate-exchange": "unrouted"}),
        "orders": Queue("/", "orders", arguments={"qpid.max_size": 1000000, "qpid.max_count": 1000, "qpid.policy_type":
                                                  "ring", "alternate-exchange": "unrouted"}),
        "lvq": Queue("/", "lvq", arguments={"qpid.last_value_queue_key": "the key"}),
        "plain": Queue("/", "plain", durable=False),
        "groups": Queue("/", "groups", arguments={
            "qpid.file_size": 4, "qpid.file_count": 8, "qpid.flow_stop_count": 500, "qpid.flow_resume_count": 100,
            "qpid.group_header_key": "g", "qpid.shared_msg_group": 1})}
    assert sorted(plan.bindings, key=str) == sorted([
        Binding("/", "events", "orders", key="order.#"), Binding("/", "orders-x", "orders", key="k"),
        Binding("/", "h", "orders", key="hk", arguments={"colour": "red", "n": "3", "x-match": "any"}),
        Binding("/", "amq.match", "lvq", key="hk2", arguments={"colour": "red", "x-match": "all"})], key=str)
    assert not plan.left_out


def test_a_script_of_qpid_config() -> None:
    plan = read_text("""# what we had
        qpid-config -b old.example add exchange topic events --durable --argument qpid.msg_sequence=1
        $ qpid-config add queue 'two words' --durable --max-queue-count=5 --limit-policy \\
            ring --argument no=3 --argument qpid.no_such=1
        qpid-config bind events "two words" 'a.#'
        qpid-config bind amq.match "two words" k any colour=red, n=3
        echo done
        qpid-config bind events nowhere x
        """)
    assert by_name(plan)["two words"].arguments == {"qpid.max_count": 5, "qpid.policy_type": "ring", "no": 3}
    assert by_name(plan)["events"].arguments == {"qpid.msg_sequence": 1}
    assert plan.bindings[1].arguments == {"x-match": "any", "colour": "red", "n": "3"} and len(plan.bindings) == 2
    left = [str(note) for note in plan.left_out]
    assert "qpid.no_such=1 of queue two words: there is no such option here" in left
    assert "line 7: it is not understood: 'echo done'" in left
    assert "binding of events to nowhere with x: queue nowhere is left out" in left


def test_a_broker_that_is_not_there() -> None:
    done = CliRunner().invoke(dragoman, ["import", "qpidd", "amqp://guest:secret@127.0.0.1:1"])
    assert (done.exit_code, done.output) == (1, "Error: amqp://guest@127.0.0.1:1: 127.0.0.1:1: connection refused\n")


def test_text_of_another_kind() -> None:
    for text in ("", "hello\nworld", "Objects of type 'queue'\n  name\n"):
        with pytest.raises(NotUnderstood):
            read_text(text)


@given(some.text(alphabet="Queue Nam'Exchgbid[]=>(){}:-\"\\A\n\tqpid-config \u00e9", max_size=200))
def test_any_text(text: str) -> None:
    for front in ("", "Queue Name   Attributes\n", "Type Exchange Name  Attributes\n", "qpid-config ",
                  "Exchange 'e' (topic)\n    bind ["):
        try:
            read_text(front + text)
        except NotUnderstood:
            pass


def values(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "durable": True, "autoDelete": False, "arguments": {}, **more}


def test_what_a_qpidd_says() -> None:
    """As qpidd 1.39 has it: the alternate exchange as a reference, texts as bytes perhaps, links and bridges."""
    def reference(kind: str, name: str) -> dict[str, Any]:
        return {"_object_name": f"org.apache.qpid.broker:{kind}:{name}".encode()}
    plan = qmf.plan_of({
        "exchange": [values("", type="direct"), values("amq.topic", type="topic"), values("qmf.default.topic",
                     type="topic"), values("e", type="topic", altExchange=reference("exchange", "a:b")),
                     values("a:b", type="fanout"), values("x", type="xml")],
        "queue": [values("q", arguments={"qpid.max_count": 3, "qpid.policy_type": "ring", "qpid.file_size": 24,
                                         "qpid.unheard_of": 1}), values("mine", exclusive=True),
                  values("reply", durable=False, autoDelete=True)],
        "binding": [{"exchangeRef": reference("exchange", source), "queueRef": reference("queue", queue),
                     "bindingKey": "k", "arguments": {}} for source, queue in (
                         ("", "q"), ("e", "q"), ("qmf.default.topic", "reply"), ("e", "reply"), ("x", "q"))],
        "link": [{"name": "north", "host": "north.example", "port": 5672, "transport": "tcp"}],
        "bridge": [{"name": "r", "linkRef": reference("link", "north"), "src": "e", "dest": "e", "key": "#",
                    "srcIsQueue": False, "srcIsLocal": False, "dynamic": False}]})
    assert by_name(plan)["e"].arguments == {"alternate-exchange": "a:b"}
    assert by_name(plan)["q"].arguments == {"qpid.max_count": 3, "qpid.policy_type": "ring", "qpid.file_size": 24}
    assert [each.source for each in plan.bindings] == ["e"]
    left = "\n".join(map(str, plan.left_out))
    for expected in ("qpid.unheard_of=1 of queue q", "exchange x: there are no exchanges of type xml here",
                     "binding of x to q with k: exchange x is left out", "link north", "route r"):
        assert expected in left
    config = parse("\n".join(plan.proposed))
    assert (config.link[0].url, config.link[0].dialect) == ("amqp://north.example:5672", "0-10")
    assert (config.bridge[0].link, config.bridge[0].remote_exchange, config.bridge[0].keys) == ("north", "e", ("#",))


def imported(broker: testing.Broker, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "dragoman", "import", "qpidd", *arguments], cwd=ROOT, text=True,
                          env={**os.environ, "DRAGOMAN_URL": broker.url}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=WAIT)
    assert done.returncode == code and "Traceback" not in done.stdout, done.stdout
    return done.stdout


def test_from_one_that_runs() -> None:
    """A Dragoman in qpidd's place: it answers as qpidd does."""
    with testing.broker() as old, testing.broker() as new:
        imported(old, str(PRINTED))
        with pika.BlockingConnection(pika.URLParameters(old.url)) as connection:
            channel = connection.channel()
            for number in range(300):  # more than one message of answers
                channel.queue_declare(f"many.{number}", durable=True)
            channel.exchange_bind("unrouted", "events", "lost.#")
        printed = imported(new, old.url)
        assert "4 exchanges, 304 queues, 5 bindings; 0 left out" in printed
        assert imported(new, old.url) == printed  # once more: nothing is different
        there, here = (asyncio.run(qmf.read(each.url)) for each in (old, new))
        assert qmf.plan_of(there).exchanges == qmf.plan_of(here).exchanges
        assert sorted(map(str, qmf.plan_of(there).bindings)) == sorted(map(str, qmf.plan_of(here).bindings))
        assert [each.arguments for each in qmf.plan_of(there).queues[:4]] == [
            each.arguments for each in qmf.plan_of(here).queues[:4]]


def test_errors_are_one_line(tmp_path: Path) -> None:
    with testing.broker("[management]\nqmf = false\n") as broker:
        printed = imported(broker, broker.url, code=1)
        assert printed.startswith("Error: ") and "guest:guest" not in printed
        assert len(imported(broker, broker.url.replace("guest:guest", "guest:no"), code=1).splitlines()) == 1
        assert len(imported(broker, "amqp://127.0.0.1:1", code=1).splitlines()) == 1
        assert "s3cret" not in imported(broker, "amqp://shop:s3cret/x@127.0.0.1:1", code=1)
        assert "No such file" in imported(broker, str(tmp_path / "none"), code=1)
