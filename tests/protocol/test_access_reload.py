"""Access rules of a broker that runs: what it says of them, read again on SIGHUP, and followed by open connections."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from dragoman import testing
from tests.wire import eventually

RULES = """\
acl allow guest publish exchange name=amq.topic routingkey=open.#
acl allow guest create queue name=mine*
acl deny all all
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[testing.Broker]:
    (tmp_path / "rules.acl").write_text(RULES)
    with testing.broker(f'[access]\nacl_file = "{tmp_path}/rules.acl"\n[log]\nlevel = "info"\n') as running:
        yield running


def reload(broker: testing.Broker) -> str:
    """Have the broker read its configuration again; what it has logged of that."""
    before = len(broker.log())
    os.kill(broker.pid, signal.SIGHUP)
    return eventually(lambda: broker.log()[before:], lambda log: "reloaded: " in log or "read again" in log)


def test_rules_are_followed_and_changed_while_the_broker_runs(broker: testing.Broker, tmp_path: Path) -> None:
    assert f"may do: what is allowed by the qpidd rules of {tmp_path}/rules.acl" in broker.log()
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("amq.topic", "open.a", b"")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        channel.basic_publish("amq.topic", "closed.a", b"")
    assert (refused.value.reply_code, refused.value.reply_text) == (
        403, "ACCESS_REFUSED - access to exchange 'amq.topic' in vhost '/' refused for user 'guest'")
    assert (f"user 'guest' is refused: publish exchange name=amq.topic virtualhostname=/ durable=true type=topic "
            f"routingkey=closed.a ({tmp_path}/rules.acl:3: acl deny all all)") in broker.log()

    (tmp_path / "rules.acl").write_text(RULES.replace("open.#", "closed.#"))
    reload(broker)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("amq.topic", "closed.a", b"")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        channel.basic_publish("amq.topic", "open.a", b"")

    (tmp_path / "rules.acl").write_text("acl allow guest frob queue\n")
    assert "not reloaded: " in (said := reload(broker)) and f"{tmp_path}/rules.acl:1: 'frob' is not an action" in said
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("amq.topic", "closed.a", b"")
    connection.close()


def test_without_rules_the_broker_says_so() -> None:
    with testing.broker() as running:
        assert "may do: everything, to whoever has logged in: there are no access rules" in running.log()


def test_rules_about_the_name_of_a_clients_host(tmp_path: Path) -> None:
    name = socket.getfqdn("127.0.0.1")
    try:
        if "127.0.0.1" not in {each[4][0] for each in socket.getaddrinfo(name, None)}:
            pytest.skip("this machine's loopback address has no name")
    except OSError:
        pytest.skip("this machine's loopback address has no name")
    for wanted, allowed in ((re.escape(name), True), ("elsewhere", False)):
        (tmp_path / "rules.acl").write_text(f'ACL ALLOW ALL ACCESS VIRTUALHOST from_hostname="{wanted}"\n')
        with testing.broker(f'[access]\nacl_file = "{tmp_path}/rules.acl"\n') as running:
            if allowed:
                pika.BlockingConnection(pika.URLParameters(running.url)).close()
            else:
                with pytest.raises(pika.exceptions.ProbableAccessDeniedError):
                    pika.BlockingConnection(pika.URLParameters(running.url))


def test_quotas_of_a_virtual_hosts_own_file(tmp_path: Path) -> None:
    rules = tmp_path / "shop.acl"
    (tmp_path / "rules.acl").write_text("acl allow all all\n")
    rules.write_text("quota queues 1 all\nacl allow all all\n")
    config = f'virtual_hosts = ["/", "shop"]\n[access]\nacl_file = "{tmp_path}/rules.acl"\n' \
        f'host_acl_files = {{ shop = "{rules}" }}\n'
    with testing.broker(config) as running, \
            pika.BlockingConnection(pika.URLParameters(running.url)) as elsewhere, \
            pika.BlockingConnection(pika.URLParameters(f"{running.url}shop")) as there:
        for name in ("a", "b"):
            elsewhere.channel().queue_declare(name)
        there.channel().queue_declare("a")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            there.channel().queue_declare("b")
        assert (refused.value.reply_code, refused.value.reply_text) == (
            406, "PRECONDITION_FAILED - cannot declare queue 'b': queue limit of user 'guest' (1) is reached")
        rules.write_text("quota queues 2 all\nquota connections 1 guest\nacl allow all all\n")
        reload(running)
        there.channel().queue_declare("b")
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="connection limit .1. is reached"):
            pika.BlockingConnection(pika.URLParameters(f"{running.url}shop"))
