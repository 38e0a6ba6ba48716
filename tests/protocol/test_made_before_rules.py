"""What a user has made that outlives his connections stays his, also where access rules come later, and over restarts:
strangers who may do everything by the rules do not get at it. An operator can end it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pika
import pika.exceptions
import pytest
from click.testing import CliRunner
from proton import uint

from broker.security.users import PasswordFile
from dragoman import testing
from dragoman.cli import dragoman
from tests.wire import Peer, eventually
from tests.wire010 import Client010
from tests.wire10 import DETACH, RECEIVER, Client10, message, symbols
from tests.wire_mqtt import CONNACK, MqttClient

pytestmark = pytest.mark.dragoman_only("its users and rules are Dragoman's")

KEEP = {"clean": False, "SessionExpiryInterval": 3600}


class House:
    """A broker that `owner` and `stranger` log in to, without rules at first."""

    def __init__(self, broker: testing.Broker, rules: Path) -> None:
        self.broker = broker
        self._rules = rules

    def rule(self) -> None:
        """Let there be rules, and a restart."""
        self._rules.write_text("acl allow owner all all\nacl allow stranger all all\nacl allow guest all all\n")
        path = self.broker.config_path
        path.write_text(path.read_text().replace('\nacl_file = ""', f'\nacl_file = "{self._rules}"', 1))
        before = len(self.broker.log())
        os.kill(self.broker.pid, signal.SIGHUP)
        eventually(lambda: "configuration read again" in self.broker.log()[before:])

    def amqp(self, user: str) -> Client10:
        return Client10(self.broker.host, self.broker.port, "same", user=user, password="secret")

    def mqtt(self, user: str) -> tuple[MqttClient, int]:
        """A client, and the answer to its CONNECT."""
        client = MqttClient(Peer(self.broker.host, self.broker.port), 5)
        client.write(client.connect_packet("same", user=user, password="secret", **KEEP))
        return client, client.expect(CONNACK).reason

    def send(self, key: str) -> None:
        with pika.BlockingConnection(pika.URLParameters(self.broker.url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("amq.topic", key, b"m", pika.BasicProperties(delivery_mode=2))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    users = PasswordFile(str(tmp_path / "users"))
    for name in ("owner", "stranger"):
        users.set(name, "secret", "SCRAM-SHA-256")
    users.save()
    with testing.broker(f'[authentication]\nusers_file = "{tmp_path}/users"\n', tmp_path / "store") as broker:
        yield House(broker, tmp_path / "rules.acl")
        assert "Traceback" not in broker.log()


def ends(house: House, queue: str) -> None:
    """An operator deletes a queue."""
    result = CliRunner().invoke(dragoman, ["queue", "delete", queue, "--url", house.broker.url])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("restarts", [False, True])
def test_a_durable_subscription_of_1_0(house: House, restarts: bool) -> None:
    owner = house.amqp("owner")
    owner.attach("s", RECEIVER, "amq.topic/k", durable=2, expiry="never")
    owner.vanish()
    house.send("k")
    house.rule()
    if restarts:
        house.broker.restart()
    stranger = house.amqp("stranger")
    for address, more in (("amq.topic/k", ()), ("amq.topic/other", ()), (None, ()), ("subscription:same:s", ()),
                          ("amq.topic/k", (None,) * 6 + (symbols(["shared"]),))):
        stranger.attach("s", RECEIVER, address, durable=2, expiry="never", more=more)
        assert stranger.expect(DETACH)[0][2].value[0] == "amqp:resource-locked"
        stranger.send(DETACH, uint(0), True)
    with pika.BlockingConnection(pika.URLParameters(house.broker.url)) as other, \
            pytest.raises(pika.exceptions.ChannelClosedByBroker, match="RESOURCE_LOCKED"):
        other.channel().basic_get("subscription:same:s")
    owner = house.amqp("owner")
    owner.attach("s", RECEIVER, "amq.topic/k", durable=2, expiry="never")
    owner.credit(1)
    assert owner.delivery()[1].endswith(message(b"m"))
    owner.vanish()
    ends(house, "subscription:same:s")
    stranger.attach("s", RECEIVER, "amq.topic/k", durable=2, expiry="never")
    stranger.detach()
    stranger.vanish()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_session_of_mqtt(house: House, restarts: bool) -> None:
    owner, _ = house.mqtt("owner")
    owner.subscribe(("k", 1))
    owner.disconnect()
    house.send("k")
    house.rule()
    if restarts:
        house.broker.restart()
    stranger, code = house.mqtt("stranger")
    assert code == 0x87
    stranger.drop()
    owner, code = house.mqtt("owner")
    assert (code, owner.message().payload) == (0, b"m")
    owner.disconnect()
    ends(house, "mqtt-session:same")
    stranger, code = house.mqtt("stranger")
    assert code == 0
    stranger.ping()
    stranger.disconnect()


def test_a_session_of_0_10(house: House) -> None:
    def connect(user: str) -> Client010:
        return Client010(house.broker.host, house.broker.port, user=user, password="secret", attaches=False)

    owner = connect("owner")
    owner.attach(b"same")
    owner.control("session.request-timeout", timeout=60)
    owner.expect("session.timeout")
    owner.call("queue.declare", queue="q", exclusive=True)
    owner.vanish()
    house.rule()
    stranger = connect("stranger")
    stranger.attach(b"same", force=True)  # one of his own
    stranger.command("queue.delete", queue="q")
    assert stranger.error() == 405
    stranger.vanish()
    owner = connect("owner")
    owner.control("session.attach", 0, name=b"same", force=False)
    owner.expect("session.attached")
    owner.vanish()
