"""Clients that may not do everything: what their libraries make of the broker's refusals.

The rules shut what is called `secret`, for everybody.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pika
import pika.exceptions
import pytest
from paho.mqtt.client import MQTTv5, MQTTv311
from proton import Message
from proton.utils import BlockingConnection, LinkDetached, SendException

from dragoman import testing
from dragoman.cli_client import ClientError
from dragoman.cli_qmf import Console
from interop.amqp010 import Connection, SessionError, commands, connect
from interop.amqp010 import Message as Message010
from protocols.qmf.objects import ACL_KEY
from tests.conformance.mqtt_tools import Device, Mqtt, Refused
from tests.wire import eventually

RULES = """
acl deny all all queue name=secret
acl deny all all exchange name=secret
acl deny all publish exchange name=amq.default routingkey=secret
acl deny all all exchange name=amq.topic routingkey=secret.#
acl allow all all
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Broker]:
    rules = Path(tmp_path_factory.mktemp("rules")) / "rules.acl"
    rules.write_text("acl allow all all\n")
    config = f"[access]\nacl_file = '{rules}'\n"
    with testing.broker(config) as broker:
        with connect(broker.url) as before:  # the rules come when there is something to hide
            session = before.session()
            session.call(commands.queue_declare("secret"))
            session.call(commands.queue_declare("open"))
            session.call(commands.exchange_declare("secret", "topic"))
        rules.write_text(RULES)
        os.kill(broker.pid, signal.SIGHUP)
        eventually(lambda: "configuration read again" in broker.log())
        yield broker


# pika.


@pytest.fixture
def channel(broker: testing.Broker) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    yield connection.channel()
    connection.close()


@pytest.mark.parametrize(("method", "arguments"), [
    ("queue_declare", ("secret",)), ("queue_delete", ("secret",)), ("queue_purge", ("secret",)),
    ("basic_get", ("secret",)), ("basic_consume", ("secret", print)), ("exchange_declare", ("secret", "topic")),
    ("exchange_delete", ("secret",)), ("queue_bind", ("open", "secret", "key")),
    ("queue_bind", ("open", "amq.topic", "secret.key")), ("basic_publish", ("secret", "key", b"")),
    ("basic_publish", ("amq.topic", "secret.key", b"")), ("basic_publish", ("", "secret", b""))],
    ids=lambda each: each if isinstance(each, str) else "-".join(map(str, each[:2])))
def test_pika(channel: pika.adapters.blocking_connection.BlockingChannel, method: str,
              arguments: tuple[object, ...]) -> None:
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        getattr(channel, method)(*arguments)
    assert closed.value.reply_code == 403 and closed.value.reply_text.startswith("ACCESS_REFUSED - access to ")
    assert channel.connection.is_open


def test_pika_elsewhere(channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
    channel.confirm_delivery()
    channel.basic_publish("", "open", b"m", mandatory=True)
    assert channel.basic_get("open", auto_ack=True)[2] == b"m"


# Proton.


@pytest.fixture
def proton(broker: testing.Broker) -> Iterator[BlockingConnection]:
    connection = BlockingConnection(broker.url, timeout=10)
    yield connection
    connection.close()


@pytest.mark.parametrize("address", ["secret", "/queues/secret", "secret/key", "amq.topic/secret.key"])
def test_proton_receives(proton: BlockingConnection, address: str) -> None:
    with pytest.raises(LinkDetached) as detached:
        proton.create_receiver(address)
    assert detached.value.condition == "amqp:unauthorized-access"


@pytest.mark.parametrize("address", ["secret", "/queues/secret", "/exchanges/secret/key"])
def test_proton_sends(proton: BlockingConnection, address: str) -> None:
    with pytest.raises(LinkDetached) as detached:
        proton.create_sender(address)
    assert detached.value.condition == "amqp:unauthorized-access"


def test_proton_sends_to_an_exchange_with_other_keys(proton: BlockingConnection) -> None:
    sender = proton.create_sender("amq.topic")
    with pytest.raises(SendException):
        sender.send(Message(subject="secret.key"))
    with pytest.raises(SendException):  # nobody is there, but that may be known
        sender.send(Message(subject="other.key"))
    proton.create_receiver("amq.topic/other.key")
    sender.send(Message(subject="other.key"))


@pytest.mark.parametrize("address", ["secret", "secret/key", "amq.topic/secret.key"])
def test_proton_sends_by_the_anonymous_relay(proton: BlockingConnection, address: str) -> None:
    sender = proton.create_sender(None)
    with pytest.raises(SendException):
        sender.send(Message(address=address))
    sender.send(Message(address="open"))
    proton.create_receiver("open").receive(timeout=10)


# Our own client of 0-10, whose exceptions are those of qpid.messaging.


@pytest.fixture
def c010(broker: testing.Broker) -> Iterator[Connection]:
    with connect(broker.url) as connection:
        yield connection


def test_010(c010: Connection) -> None:
    for command in (commands.queue_declare("secret"), commands.queue_delete("secret"), commands.queue_purge("secret"),
                    commands.exchange_delete("secret"), commands.exchange_bind("open", "amq.topic", "secret.key")):
        session = c010.session()
        with pytest.raises(SessionError) as refused:
            session.call(command)
        assert (refused.value.error_code, refused.value.name) == (403, "unauthorized-access")
    session = c010.session()
    with pytest.raises(SessionError) as refused:
        session.sender("secret").send(Message010(b"m"), sync=True)
    assert refused.value.error_code == 403


# paho.


@pytest.fixture
def mqtt(broker: testing.Broker) -> Mqtt:
    return Mqtt(broker.host, broker.port, 0, broker.port, Path(), False)


@pytest.mark.parametrize(("version", "code"), [(MQTTv311, 0x80), (MQTTv5, 0x87)], ids=["3.1.1", "5.0"])
def test_paho_subscribes(mqtt: Mqtt, version: int, code: int) -> None:
    with Device(mqtt, version=version) as device:
        assert device.subscribe("secret/#") == code
        assert device.subscribe("other/#") == 0


def test_paho_publishes(mqtt: Mqtt) -> None:
    with Device(mqtt) as device:
        assert device.publish("secret/a", b"m", 1) == 0x87
        assert device.publish("secret/a", b"m", 1, retain=True) == 0x87
        assert device.publish("other/a", b"m", 1) in (0, 0x10)


def test_paho_of_311_publishes(mqtt: Mqtt) -> None:
    with Device(mqtt, version=MQTTv311) as device:
        device.paho.publish("secret/a", b"m", 1)  # the connection may have ended when it returns
        device.wait(lambda: device.ended is not None, "the connection's end")


def test_paho_has_a_will(mqtt: Mqtt) -> None:
    with pytest.raises(Refused) as refused:
        Device(mqtt, will={"topic": "secret/a", "payload": b"m"})
    assert refused.value.code == 0x87


# Those who look after it.


def test_operators_read_the_rules_again(broker: testing.Broker) -> None:
    async def main() -> None:
        async with Console(pika.URLParameters(broker.url)) as console:
            acl, = await console.objects("acl")
            assert acl["enforcingAcl"] and acl["policyFile"].endswith("rules.acl")
            assert acl["aclDenyCount"] >= 0
            path = Path(acl["policyFile"])
            path.write_text("nonsense")
            try:
                with pytest.raises(ClientError, match="nonsense"):
                    await console.method("reloadACLFile", {}, "acl", ACL_KEY)
            finally:
                path.write_text(RULES)
            await console.method("reloadACLFile", {}, "acl", ACL_KEY)
            again, = await console.objects("acl")
            assert again["lastAclLoad"] > acl["lastAclLoad"]
    asyncio.run(main())
