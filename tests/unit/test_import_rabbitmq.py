"""Definitions that a real RabbitMQ 3.10 has exported, and others, as plans; and `dragoman import rabbitmq`."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as some

from broker.security.passwords import parse_verifier
from broker.security.permissions import Permission, TopicPermission
from dragoman import testing
from dragoman.config import parse
from interop.migration.plan import Plan
from interop.migration.rabbitmq import BadDefinitions, read_definitions

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = Path(__file__).parent / "definitions" / "rabbitmq-3.10.json"
WAIT = 60.0


@pytest.fixture
def document() -> Any:
    return json.loads(DEFINITIONS.read_text())


def queue(plan: Plan, name: str, host: str = "/") -> dict[str, Any]:
    return next(each.arguments for each in plan.queues if (each.host, each.name) == (host, name))


def reasons(plan: Plan, what: str) -> list[str]:
    return [note.why for note in plan.left_out if note.what.startswith(what)]


def test_passwords_are_those_of_rabbitmq(document: Any) -> None:
    plan = read_definitions(document)
    assert plan.users["shop"].matches(b"shop-secret") and not plan.users["shop"].matches(b"guest")
    assert plan.users["guest"].matches(b"guest")
    again = parse_verifier(plan.users["shop"].text)
    assert again.text == plan.users["shop"].text and again.matches(b"shop-secret")
    assert reasons(plan, "user till") == ["has no password there, and logs in otherwise or not at all"]


DOCUMENTED = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
"""The hash of test12 that RabbitMQ's documentation of password hashes has as its example."""


def kept(hash_name: str) -> str:
    salt = bytes.fromhex("908DC60A")
    return base64.b64encode(salt + hashlib.new(hash_name, salt + b"test12").digest()).decode()


@pytest.mark.parametrize("algorithm, kept, version", [
    ("rabbit_password_hashing_sha256", DOCUMENTED, "3.10.8"), (None, DOCUMENTED, "3.8.1"),
    ("rabbit_password_hashing_sha512", kept("sha512"), "3.10.8"),
    ("rabbit_password_hashing_md5", kept("md5"), "3.10.8"), (None, kept("md5"), "3.5.7")])
def test_hashes_of_each_age(algorithm: str | None, kept: str, version: str) -> None:
    user = {"name": "u", "password_hash": kept, "tags": ""} | ({"hashing_algorithm": algorithm} if algorithm else {})
    plan = read_definitions({"rabbit_version": version, "users": [user]})
    assert plan.users["u"].matches(b"test12") and not plan.users["u"].matches(b"test1")


@pytest.mark.parametrize("change, why", [
    ({"hashing_algorithm": "my_hash"}, "is kept by my_hash"), ({"password_hash": "?"}, "is no base64"),
    ({"password_hash": "AAAA"}, "must have 36 bytes")])
def test_hashes_that_cannot_be_used(change: dict[str, str], why: str) -> None:
    plan = read_definitions({"users": [{"name": "u", "password_hash": "AAAA"} | change]})
    assert not plan.users and why in reasons(plan, "user u")[0]


def test_policies_become_arguments(document: Any) -> None:
    plan = read_definitions(document)
    dead = {"x-policy-message-ttl": 60000, "x-policy-dead-letter-exchange": "dead"}
    assert queue(plan, "orders") == {**dead, "x-policy-max-length": 500}  # the operator's 500 is below 1000
    assert queue(plan, "orders.slow") == {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-max-length": 50, **dead,
                                          "x-policy-max-length": 500}
    assert queue(plan, "orders", "shop") == {}
    assert {each.name: each.arguments for each in plan.exchanges if each.host == "/"}["events"] == {
        "x-policy-alternate-exchange": "unrouted"}
    assert reasons(plan, "ha-mode of policy mirrors") == ["there is no replication"]


def test_policies_by_priority_kind_and_pattern() -> None:
    def policy(name: str, priority: int, applies: str, pattern: str = "^q", **definition: Any) -> dict[str, Any]:
        return {"vhost": "/", "name": name, "priority": priority, "apply-to": applies, "pattern": pattern,
                "definition": {key.replace("_", "-"): value for key, value in definition.items()}}
    plan = read_definitions({
        "queues": [{"vhost": "/", "name": "q1", "arguments": {"x-queue-type": "quorum"}}, {"vhost": "/", "name": "q2"},
                   {"vhost": "/", "name": "no"}],
        "policies": [policy("low", 1, "all", expires=1000), policy("high", 2, "queues", message_ttl=5),
                     policy("quorum", 3, "quorum_queues", delivery_limit=3), policy("bad", 9, "queues", "(?<x)"),
                     policy("keyless", 0, "queues", "^no$", dead_letter_routing_key="k")]})
    assert queue(plan, "q1") == {"x-queue-type": "quorum", "x-policy-delivery-limit": 3}
    assert queue(plan, "q2") == {"x-policy-message-ttl": 5}
    assert queue(plan, "no") == {}
    assert "only RabbitMQ understands" in reasons(plan, "policy bad")[0]


def test_nothing_is_skipped_in_silence(document: Any) -> None:
    """What is in the definitions is in the plan, or in the report."""
    plan = read_definitions(document)
    said = "\n".join(map(str, plan.left_out + plan.remarks))
    for section in ("users", "queues", "exchanges", "policies", "parameters"):
        for part in document[section]:
            made = {each.name for each in (*plan.queues, *plan.exchanges)} | set(plan.users)
            assert part["name"] in made or part["name"] in said
    left = [note for note in plan.left_out if note.what.startswith("binding")]
    assert len(plan.bindings) + len(left) == len(document["bindings"])
    assert reasons(plan, "queue log") == ["it is a stream, and there are none here"] * 2
    assert "leaves internal exchanges out" in reasons(plan, "exchange inner")[0]
    assert {(each.user, each.host) for each in plan.permissions if isinstance(each, Permission)} == {
        ("guest", "shop"), ("shop", "/"), ("guest", "/"), ("shop", "shop")}
    assert TopicPermission("shop", "shop", "amq.topic", "^a", "^b") in plan.permissions
    assert plan.tags["guest"] == ["administrator"] and not reasons(plan, "vhost-limits")
    assert len(plan.proposed) == 3
    assert ("# vhost-limits limits of virtual host shop\n[[limit]]\nvirtual_host = \"shop\"\nconnections = 64\n"
            in plan.proposed)
    assert reasons(read_definitions({"queues": [], "surprises": []}), "surprises")


@pytest.mark.parametrize("change, bridges", [
    ({}, ["pull"]), ({"src-uri": "amqp:///x", "dest-uri": ["amqp://u:secret@there.example/v%2F"]}, ["push"]),
    ({"src-uri": "amqp://a.example", "dest-uri": "amqps://b.example"}, ["pull", "push"]),
    ({"src-exchange": "e", "src-exchange-key": "k.#", "src-queue": None}, ["pull"]), ({"src-uri": "amqp://"}, [])])
def test_what_is_proposed_is_configuration(document: Any, change: dict[str, Any], bridges: list[str]) -> None:
    shovel = next(part for part in document["parameters"] if part["component"] == "shovel")
    shovel["value"].update(change)
    plan = read_definitions(document)
    config = parse("\n".join(['virtual_hosts = ["/", "shop"]', *plan.proposed]))
    assert [bridge.direction for bridge in config.bridge] == bridges
    assert len(config.link) == len(bridges) + 1 and "secret" not in "".join(plan.proposed)


def test_definitions_of_one_virtual_host() -> None:
    plan = read_definitions({"original_vhost_name": "shop", "queues": [{"name": "q", "durable": True}],
                             "bindings": [{"source": "amq.topic", "destination": "q", "routing_key": "k"}]})
    assert plan.hosts == ["shop"] and plan.queues[0].host == plan.bindings[0].host == "shop"


@pytest.mark.parametrize("document", [[], {}, 1, {"queues": 1}, {"queues": [1]}, {"queues": [{}]}, {"queues": [{
    "name": "q", "vhost": 1}]}, {"users": [{"name": None}]}, {"surprises": []}])
def test_what_are_no_definitions(document: Any) -> None:
    with pytest.raises(BadDefinitions):
        read_definitions(document)


VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=5)
KEYS = some.sampled_from(["name", "vhost", "arguments", "type", "durable", "pattern", "definition", "priority",
                          "apply-to", "component", "value", "source", "destination", "destination_type", "routing_key",
                          "tags", "password_hash", "hashing_algorithm", "user", "metadata", "limits"])
PARTS = some.lists(some.fixed_dictionaries({"name": some.text(max_size=5), "source": some.text(max_size=5),
                                            "pattern": some.text(max_size=5), "component": some.sampled_from(
                                                ["shovel", "federation-upstream", "operator_policy", "x"])},
                                           ).flatmap(lambda fixed: some.dictionaries(KEYS, VALUES, max_size=6).map(
                                               lambda more: {**fixed, **more})), max_size=3)


@given(some.dictionaries(some.sampled_from(["users", "vhosts", "permissions", "topic_permissions", "parameters",
                                            "global_parameters", "policies", "queues", "exchanges", "bindings"]),
                         PARTS))
def test_any_definitions_are_read_or_refused(document: Any) -> None:
    try:
        read_definitions(document)
    except BadDefinitions:
        pass


# The command.


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[testing.Broker]:
    (tmp_path / "users").write_text("")
    with testing.broker(f'virtual_hosts = ["/", "sales"]\n[authentication]\nusers_file = "{tmp_path}/users"\n') as b:
        yield b


def imported(broker: testing.Broker, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "dragoman", "import", "rabbitmq", *arguments], cwd=ROOT, text=True,
                          env={**os.environ, "DRAGOMAN_URL": broker.url}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=WAIT)
    assert done.returncode == code and "Traceback" not in done.stdout, done.stdout
    return done.stdout


def test_import(broker: testing.Broker, tmp_path: Path) -> None:
    file, users = str(DEFINITIONS), str(tmp_path / "users")
    printed = imported(broker, file, "--dry-run", "--users-file", users, code=3)
    assert "Would take over 2 virtual hosts, 2 users, 10 exchanges, 10 queues" in printed
    assert Path(users).read_text() == ""
    printed = imported(broker, file, "--users-file", users, code=3)
    assert "virtual host shop: it is not there, nor what is in it" in printed and '"--map shop=NAME' not in printed
    assert "Took over 1 virtual hosts, 2 users, 5 exchanges, 5 queues" in printed
    assert "binding of inner to ha.q: NOT_FOUND" in printed
    imported(broker, file, "--users-file", users, "--map", "shop=sales", code=3)
    os.kill(broker.pid, signal.SIGHUP)
    for host in ("/", "sales"):
        url = broker.url.replace("guest:guest", "shop:shop-secret") + host.replace("/", "%2F")
        connection = connected(url)
        channel = connection.channel()
        channel.queue_declare("orders", durable=True)  # as a client does that knows nothing of policies
        channel.queue_declare("orders.slow", durable=True, arguments={
            "x-max-length": 50, "x-queue-type": "quorum", "x-delivery-limit": 5})
        channel.confirm_delivery()
        channel.basic_publish("events", "order.slow.1", b"both", mandatory=True)
        assert [channel.queue_declare(name, passive=True).method.message_count
                for name in ("orders", "orders.slow")] == [1, 1]
        if host == "/":
            channel.basic_publish("events", "unrouted", b"")  # to the alternate exchange that the policy named
            method, _, _ = channel.basic_get("orders")
            channel.basic_reject(method.delivery_tag, requeue=False)  # to the dead-letter exchange of the policy
            channel.queue_declare("orders", passive=True)
            assert channel.queue_declare("dead", passive=True).method.message_count == 1
        connection.close()


def test_permissions_and_tags_are_taken_over(broker: testing.Broker, tmp_path: Path) -> None:
    users, permissions = tmp_path / "users", tmp_path / "permissions"
    without = imported(broker, str(DEFINITIONS), "--users-file", str(users), "--dry-run", code=3)
    assert "permissions: without a file for them, every user may do everything" in without
    said = ("--users-file", str(users), "--permissions-file", str(permissions), "--map", "shop=sales")
    assert "5 permissions; " in imported(broker, str(DEFINITIONS), *said, code=3)
    assert "tags=administrator" in users.read_text()
    assert "permission shop sales '^shop\\.' '^shop\\.' '.*'\n" in permissions.read_text()
    assert "topic shop sales amq.topic '^a' '^b'\n" in permissions.read_text()
    permissions.write_text("permission shop sales a b c\n")
    printed = imported(broker, str(DEFINITIONS), *said, code=3)
    assert "permissions of user shop in virtual host sales: there are others here already" in printed
    assert permissions.read_text().startswith("permission shop sales a b c\n")


def test_a_permission_that_cannot_be_is_left_out() -> None:
    plan = read_definitions({"permissions": [{"user": "u", "vhost": "/", "configure": "(?<=a)b"}]})
    assert plan.permissions == [] and "only plain" in reasons(plan, "permissions of user u in virtual host /")[0]


def connected(url: str) -> Any:
    """A connection, once the broker has read its users again."""
    for _ in range(100):
        try:
            return pika.BlockingConnection(pika.URLParameters(url))
        except pika.exceptions.ProbableAuthenticationError:
            pass
    return pika.BlockingConnection(pika.URLParameters(url))


def test_import_again_and_of_what_is_different(broker: testing.Broker, tmp_path: Path) -> None:
    definitions = {"exchanges": [{"vhost": "/", "name": "e", "type": "topic", "durable": True},
                                 {"vhost": "/", "name": "odd", "type": "x-recent-history"}],
                   "queues": [{"vhost": "/", "name": f"q{n}", "durable": True} for n in range(50)],
                   "bindings": [{"vhost": "/", "source": "e", "destination": f"q{n}", "destination_type": "queue",
                                 "routing_key": "#", "arguments": {}} for n in range(50)]}
    file = tmp_path / "definitions.json"
    file.write_text(json.dumps(definitions))
    for _ in range(2):
        assert "Took over 1 virtual hosts, 0 users, 1 exchanges, 50 queues, 50 bindings; 1 left out" in imported(
            broker, str(file), code=3)
    definitions["exchanges"].pop()
    definitions["queues"][7]["arguments"] = {"x-max-length": 3}
    file.write_text(json.dumps(definitions))
    printed = imported(broker, str(file), code=3)
    assert "queue q7: PRECONDITION_FAILED - inequivalent arg 'x-max-length'" in printed and "49 queues" in printed
    del definitions["queues"][7]["arguments"]
    file.write_text(json.dumps(definitions))
    imported(broker, str(file), code=0)


def test_errors_are_one_line(broker: testing.Broker, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    assert "is not JSON" in imported(broker, str(tmp_path / "no.json"), code=1)
    assert "these are no definitions" in imported(broker, str(tmp_path / "other.json"), code=1)
    assert "No such file" in imported(broker, str(tmp_path / "none.json"), code=1)
    assert "cannot connect" in imported(broker, str(DEFINITIONS), "--url", "amqp://127.0.0.1:1/", code=1)
    assert "it must be THERE=HERE" in imported(broker, str(DEFINITIONS), "--map", "x", code=2)
