"""Coming from a real RabbitMQ and going back: its own definitions and passwords, and its queues emptied under fire.

Run by `python tests/conformance/run_interop.py migration`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

HERE = Path(__file__).resolve().parent
ROOT = next(folder for folder in HERE.parents if (folder / "setup.cfg").exists())
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import peers  # noqa: E402 - only now it can be found

from dragoman import testing  # noqa: E402
from interop.migration.rabbitmq import read_definitions  # noqa: E402

WAIT = 120.0
PERSISTENT = pika.BasicProperties(delivery_mode=2, headers={"a": [1, {"b": "c"}]}, message_id="m")
HASHES = ("sha256", "sha512", "md5")


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    context = peers.rabbitmq(tmp_path_factory.mktemp("rabbitmq"))
    try:
        peer = context.__enter__()
    except peers.PeerMissing as error:
        pytest.skip(str(error))
    yield peer
    context.__exit__(None, None, None)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[testing.Broker]:
    (tmp_path / "users").write_text("")
    config = f'virtual_hosts = ["/", "shop"]\n[authentication]\nusers_file = "{tmp_path / "users"}"\n'
    with testing.broker(config, store=tmp_path / "store") as broker:
        yield broker


def url_of(rabbit: Any, user: str = "guest:guest", host: str = "%2F") -> str:
    return f"amqp://{user}@{rabbit.host}:{rabbit.port}/{host}"


def start(*arguments: str, url: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "dragoman", *arguments], cwd=ROOT, text=True,
                            env={**os.environ, "DRAGOMAN_URL": url}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def dragoman(*arguments: str, url: str = "", code: int = 0) -> str:
    process = start(*arguments, url=url)
    printed, _ = process.communicate(timeout=WAIT)
    assert process.returncode == code and "Traceback" not in printed, printed
    return printed


def channel_of(url: str) -> Any:
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.confirm_delivery()
    return channel


def count(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def comparable(document: Any) -> tuple[Any, ...]:
    """What of definitions is to survive the way there and back."""
    plan = read_definitions(document)
    return (sorted(plan.hosts), *(sorted(map(repr, group)) for group in (plan.exchanges, plan.queues, plan.bindings)),
            {name: each.text for name, each in plan.users.items() if name != "guest"})


def test_there_and_back(rabbit: Any, ours: testing.Broker, tmp_path: Path) -> None:
    """RabbitMQ's definitions, into Dragoman, out again, and into a RabbitMQ that has nothing: it has the same."""
    control = rabbit.control
    control("add_vhost", "shop")
    control("set_permissions", "-p", "shop", "guest", ".*", ".*", ".*")
    for name in HASHES:
        control("eval", f"application:set_env(rabbit, password_hashing_module, rabbit_password_hashing_{name}).")
        control("add_user", f"user-{name}", f"secret-{name}")
        for host in ("/", "shop"):
            control("set_permissions", "-p", host, f"user-{name}", ".*", ".*", ".*")
    control("set_policy", "-p", "shop", "limits", "^limited", json.dumps({
        "message-ttl": 60000, "max-length": 1000, "overflow": "reject-publish", "dead-letter-exchange": "dead"}),
        "--apply-to", "queues")
    control("set_policy", "-p", "shop", "alternate", "^events$", json.dumps({"alternate-exchange": "unrouted"}),
            "--apply-to", "exchanges")
    channel = channel_of(url_of(rabbit, host="shop"))
    for name, kind in (("events", "topic"), ("dead", "fanout"), ("unrouted", "fanout"), ("match", "headers"),
                       ("plain", "direct")):
        channel.exchange_declare(name, kind, durable=True)
    channel.exchange_declare("own", "topic", durable=True, arguments={"alternate-exchange": "unrouted"})
    channel.queue_declare("limited.1", durable=True)
    channel.queue_declare("limited.2", durable=True, arguments={"x-message-ttl": 100, "x-max-priority": 5})
    channel.queue_declare("quorum", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3})
    channel.queue_declare("lazy", durable=True, arguments={"x-queue-mode": "lazy", "x-expires": 3600000,
                                                           "x-single-active-consumer": True})
    channel.queue_bind("limited.1", "events", "a.#")
    channel.queue_bind("limited.2", "match", "", {"x-match": "any", "colour": "red", "number": 3, "truth": True})
    channel.exchange_bind("plain", "events", "to.plain")
    channel.queue_bind("quorum", "plain", "to.plain")
    channel.connection.close()
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    control("export_definitions", str(first))

    dragoman("import", "rabbitmq", str(first), "--users-file", str(tmp_path / "users"), url=ours.url)
    os.kill(ours.pid, signal.SIGHUP)
    assert_logins(ours, HASHES)
    dragoman("export", "rabbitmq", str(second), "--users-file", str(tmp_path / "users"), "--virtual-host", "/",
             "--virtual-host", "shop", url=ours.url)
    with peers.rabbitmq(tmp_path / "fresh") as fresh:
        fresh.control("import_definitions", str(second))
        for name in HASHES:
            fresh.control("authenticate_user", f"user-{name}", f"secret-{name}")
        fresh.control("export_definitions", str(tmp_path / "third.json"))
        channel = channel_of(url_of(fresh, f"user-{HASHES[0]}:secret-{HASHES[0]}", "shop"))
        channel.queue_declare("limited.1", durable=True)  # the policy is no argument of the queue's
        channel.basic_publish("events", "a.b", b"", mandatory=True)
        assert count(channel, "limited.1") == 1
        channel.connection.close()
    assert comparable(json.loads(first.read_text())) == comparable(json.loads((tmp_path / "third.json").read_text()))


def assert_logins(broker: testing.Broker, names: tuple[str, ...]) -> None:
    for name in names:
        url = f"amqp://user-{name}:secret-{name}@{broker.host}:{broker.port}/shop"
        for tries in range(100):
            try:
                connection = pika.BlockingConnection(pika.URLParameters(url))
                break
            except pika.exceptions.AMQPConnectionError:  # the file is being read
                assert tries < 99
        channel = connection.channel()
        channel.queue_declare("limited.1", durable=True)
        connection.close()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            pika.BlockingConnection(pika.URLParameters(url.replace("secret", "wrong")))


def test_our_own_options_are_what_rabbitmq_takes(ours: testing.Broker, rabbit: Any, tmp_path: Path) -> None:
    channel = channel_of(ours.url)
    channel.queue_declare("ring", durable=True, arguments={"qpid.max_count": 3, "qpid.policy_type": "ring"})
    channel.queue_declare("refuses", durable=True, arguments={"qpid.max_count": 3})
    channel.queue_declare("levels", durable=True, arguments={"qpid.priorities": 10, "x-delivery-limit": 3})
    channel.queue_declare("last", durable=True, arguments={"qpid.last_value_queue_key": "k"})
    channel.exchange_declare("hash", "x-consistent-hash", durable=True)
    channel.queue_bind("ring", "hash", "1")
    channel.connection.close()
    file = tmp_path / "definitions.json"
    printed = dragoman("export", "rabbitmq", str(file), url=ours.url, code=3)
    for expected in ("qpid.last_value_queue_key=k of queue last", "x-delivery-limit=3 of queue levels",
                     "exchange hash: its type x-consistent-hash is a plugin's there"):
        assert expected in printed
    rabbit.control("import_definitions", str(file))
    channel = channel_of(url_of(rabbit))
    channel.queue_declare("ring", durable=True, arguments={"x-max-length": 3})
    channel.queue_declare("refuses", durable=True, arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    channel.queue_declare("levels", durable=True, arguments={"x-max-priority": 9})
    channel.connection.close()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_drain_killed_and_cut_off(rabbit: Any, ours: testing.Broker, tmp_path: Path, kind: str) -> None:
    """Killed twice, and RabbitMQ restarted once, in the middle of it: nothing is lost, and the counts add up."""
    source = channel_of(url_of(rabbit))
    queue = f"drain-{kind}"
    source.queue_declare(queue, durable=True, arguments={"x-queue-type": kind})
    for number in range(3000):
        source.basic_publish("", queue, b"%d" % number, PERSISTENT)
    definitions = tmp_path / "definitions.json"
    rabbit.control("export_definitions", str(definitions))
    arguments = ["gateway", "drain", url_of(rabbit), "--into", ours.url, "--definitions", str(definitions),
                 "--queue", queue, "--prefetch", "50"]
    target = channel_of(ours.url)
    for wait_for in (300, 900):
        process = start(*arguments)
        while process.poll() is None and not has(target, queue, wait_for):
            pass
        process.kill()
        process.communicate()
    process = start(*arguments)
    while process.poll() is None and not has(target, queue, 1500):
        pass
    source.connection.close()
    rabbit.stop()
    printed, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 1 and "run it again to go on" in printed and len(printed.splitlines()) == 2, printed
    rabbit.start()
    printed = dragoman(*arguments)
    assert f"{queue}: " in printed
    source = channel_of(url_of(rabbit))
    assert count(source, queue) == 0
    found = []
    for method, properties, body in target.consume(queue, auto_ack=True, inactivity_timeout=1):
        if method is None:
            break
        assert properties.headers["a"] == [1, {"b": "c"}] and properties.message_id == "m"
        found.append(int(body))
    assert set(found) == set(range(3000)) and len(found) <= 3000 + 3 * 50
    source.queue_delete(queue)
    for channel in (source, target):
        channel.connection.close()


def has(channel: Any, queue: str, number: int) -> bool:
    """Asked on a channel of its own: the queue may not be there yet, which closes it."""
    asking = channel.connection.channel()
    try:
        return count(asking, queue) >= number
    except pika.exceptions.ChannelClosedByBroker:
        return False
    finally:
        if asking.is_open:
            asking.close()


def test_drain_by_the_management_api(tmp_path: Path, ours: testing.Broker) -> None:
    """All queues of a RabbitMQ that has its management, whose address it is told."""
    port, = peers.free_ports(1)
    settings = f"management.tcp.port = {port}\nmanagement.tcp.ip = 127.0.0.1\n"
    with peers.rabbitmq(tmp_path / "rabbitmq", ["rabbitmq_management"], settings) as rabbit:
        channel = channel_of(url_of(rabbit))
        channel.exchange_declare("events", "topic", durable=True)
        for queue in ("orders", "invoices"):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, "events", f"{queue}.#")
            for number in range(500):
                channel.basic_publish("events", f"{queue}.new", b"%d" % number, PERSISTENT)
        api = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(f"{api}/api/definitions/%2F?auth=Z3Vlc3Q6Z3Vlc3Q=").close()
        printed = dragoman("gateway", "drain", url_of(rabbit), "--into", ours.url, "--api", api)
        assert "1 exchanges, 2 queues, 2 bindings" in printed and "moved 1000 messages, " in printed
        assert [count(channel, queue) for queue in ("orders", "invoices")] == [0, 0]
        channel.connection.close()
    target = channel_of(ours.url)
    target.basic_publish("events", "orders.new", b"500", PERSISTENT, mandatory=True)
    for queue, number in (("orders", 501), ("invoices", 500)):
        assert count(target, queue) == number
        assert [target.basic_get(queue, auto_ack=True)[2] for _ in range(number)] == [b"%d" % n for n in range(number)]
    target.connection.close()
