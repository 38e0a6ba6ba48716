"""`dragoman export rabbitmq`: from our arguments to RabbitMQ's, and there and back again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pika
import pytest

from broker.security.passwords import new_verifier, parse_verifier
from dragoman import testing
from interop.migration.plan import Binding, Exchange, Plan, Queue
from interop.migration.rabbitmq import read_definitions
from interop.migration.to_rabbitmq import definitions

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = Path(__file__).parent / "definitions" / "rabbitmq-3.10.json"


@pytest.mark.parametrize("ours, theirs, left_out", [
    ({"x-max-length": 5}, {"x-max-length": 5}, 0),
    ({"qpid.max_count": 5, "qpid.policy_type": "ring"}, {"x-max-length": 5}, 0),
    ({"qpid.max_count": "5"}, {"x-max-length": 5, "x-overflow": "reject-publish"}, 0),
    ({"qpid.max_size": 9, "qpid.policy_type": "flow_to_disk"}, {}, 1),
    ({"qpid.priorities": 10}, {"x-max-priority": 9}, 0),
    ({"maximumDeliveryAttempts": 3, "x-queue-type": "quorum"}, {"x-delivery-limit": 2, "x-queue-type": "quorum"}, 0),
    ({"x-delivery-limit": 3}, {}, 1),
    ({"maximumMessageTtl": 7, "maximumLiveConsumers": 1}, {"x-message-ttl": 7, "x-single-active-consumer": True}, 0),
    ({"qpid.last_value_queue_key": "k"}, {}, 1), ({"qpid.file_count": 8}, {}, 0),
    ({"x-unknown": 1}, {"x-unknown": 1}, 0),
    ({"x-max-priority": 4, "x-queue-type": "quorum"}, {"x-queue-type": "quorum"}, 1)])
def test_arguments(ours: dict[str, Any], theirs: dict[str, Any], left_out: int) -> None:
    plan = Plan(hosts=["/"], queues=[Queue("/", "q", arguments=ours)])
    assert definitions(plan, {})["queues"] == [
        {"name": "q", "vhost": "/", "durable": True, "auto_delete": False, "arguments": theirs}]
    assert len(plan.left_out) == left_out


def test_what_rabbitmq_has_no_place_for() -> None:
    plan = Plan(hosts=["/"], exchanges=[Exchange("/", "hash", "x-consistent-hash"), Exchange(
        "/", "e", "topic", arguments={"qpid.ive": 1, "alternate-exchange": "a"})], queues=[
        Queue("/", "mqtt-session:c"), Queue("/", "amq.gen-1"), Queue("/", "q")], bindings=[
        Binding("/", "hash", "q", key="1"), Binding("/", "e", "hash", False), Binding("/", "e", "mqtt-session:c"),
        Binding("/", "e", "q", key="k", arguments={"x-filter-jms-selector": "a = 1", "other": 1})])
    made = definitions(plan, {"u": new_verifier("secret")})
    assert [each["name"] for each in made["exchanges"]] == ["e"] and made["exchanges"][0]["arguments"] == {
        "alternate-exchange": "a"}
    assert [each["name"] for each in made["queues"]] == ["q"]
    assert [(each["source"], each["arguments"]) for each in made["bindings"]] == [("e", {"other": 1})]
    assert made["users"][0]["password_hash"] == "" and len(plan.left_out) == 8
    assert [each["name"] for each in definitions(plan, {}, ["x-consistent-hash"])["exchanges"]] == ["hash", "e"]


def test_there_and_back() -> None:
    """What RabbitMQ has exported and we can take over is the same when we export it."""
    plan = read_definitions(json.loads(DEFINITIONS.read_text()))
    again = read_definitions(json.loads(json.dumps(definitions(plan, plan.users))))
    assert (again.exchanges, again.queues, again.hosts) == (plan.exchanges, plan.queues, plan.hosts)
    known = {"inner"}  # which RabbitMQ's own export has lost
    assert again.bindings == [each for each in plan.bindings if not {each.source, each.destination} & known]
    assert {name: each.text for name, each in again.users.items()} == {
        name: each.text for name, each in plan.users.items()}


def test_permissions_and_tags_there_and_back() -> None:
    plan = read_definitions(json.loads(DEFINITIONS.read_text()))
    again = read_definitions(definitions(plan, plan.users, (), plan.tags, plan.permissions))
    assert set(again.permissions) == {each for each in plan.permissions if each.user in plan.users}
    assert again.tags == {name: plan.tags[name] for name in plan.users} and again.tags["guest"] == ["administrator"]


def test_export(tmp_path: Path) -> None:
    users = tmp_path / "users"
    kept = "RABBITMQ-SHA256$kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    users.write_text(f"shop:{kept}\n")
    with testing.broker() as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        channel = connection.channel()
        channel.exchange_declare("e", "topic", durable=True)
        channel.exchange_declare("f", "fanout", durable=True, arguments={"x-policy-alternate-exchange": "e"})
        channel.exchange_bind("f", "e", "to.f.#", {"note": 1})
        channel.queue_declare("q", durable=True, arguments={"x-policy-message-ttl": 5, "x-max-length": 7})
        channel.queue_declare("gone", exclusive=True)
        channel.queue_bind("q", "e", "to.q")
        arguments = ["export", "rabbitmq", "--users-file", str(users)]
        environment = {**os.environ, "DRAGOMAN_URL": broker.url}
        done = subprocess.run([sys.executable, "-m", "dragoman", *arguments], cwd=ROOT, env=environment,
                              capture_output=True, text=True, timeout=60)
        connection.close()
    assert done.returncode == 0, done.stderr
    assert "Of 1 virtual hosts, 1 users, 2 exchanges, 1 queues, 2 bindings; 0 left out" in done.stderr
    plan = read_definitions(json.loads(done.stdout))
    assert plan.users["shop"].text == parse_verifier(kept).text
    assert plan.queues == [Queue("/", "q", arguments={"x-policy-message-ttl": 5, "x-max-length": 7})]
    assert [each.arguments for each in plan.exchanges] == [{}, {"x-policy-alternate-exchange": "e"}]
    assert Binding("/", "e", "f", False, "to.f.#", {"note": 1}) in plan.bindings
    assert Binding("/", "e", "q", True, "to.q") in plan.bindings and len(plan.bindings) == 2
