"""What others' clients make of limits: each reports the refusal, with the reason where its protocol has words."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import paho.mqtt.client as paho
import pika
import pika.exceptions
import proton
import pytest
from proton.utils import BlockingConnection, LinkDetached

from dragoman import testing
from interop import amqp010

CONFIG = """
[[limit]]
per = "user"
connections = 2
queues = 2
[[limit]]
per = "connection"
channels = 2
links = 1
"""


@pytest.fixture(scope="module")
def broker() -> Iterator[testing.Broker]:
    with testing.broker(CONFIG) as made:
        yield made


@pytest.fixture
def crowded(broker: testing.Broker) -> Iterator[testing.Broker]:
    """The user has all connections that he may have."""
    two = [pika.BlockingConnection(pika.URLParameters(broker.url)) for _ in range(2)]
    yield broker
    for each in two:
        each.close()


TEXT = "connection refused for user 'guest': user connection limit (2) is reached"


def test_pika(crowded: testing.Broker) -> None:
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError) as refused:
        pika.BlockingConnection(pika.URLParameters(crowded.url))
    assert f"(530) \"NOT_ALLOWED - {TEXT}\"" in str(refused.value)


def test_pika_channels_and_queues(broker: testing.Broker) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        connection.channel()
        with pytest.raises(pika.exceptions.NoFreeChannels):  # as it was agreed
            connection.channel()
        for name in ("a", "b"):
            channel.queue_declare(name, exclusive=True)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="queue limit of user 'guest' .2. is reached"):
            channel.queue_declare("c", exclusive=True)


def test_proton(crowded: testing.Broker) -> None:
    with pytest.raises(proton.ConnectionException) as refused:
        BlockingConnection(crowded.url, timeout=30, allowed_mechs="PLAIN")
    assert TEXT in str(refused.value)


def test_proton_links(broker: testing.Broker) -> None:
    connection = BlockingConnection(broker.url, timeout=30, allowed_mechs="PLAIN")
    connection.create_sender("amq.fanout", name="one")
    with pytest.raises(LinkDetached) as detached:
        connection.create_sender("amq.fanout", name="two")
    assert detached.value.condition == "amqp:resource-limit-exceeded"
    connection.close()


def test_0_10(crowded: testing.Broker) -> None:
    with pytest.raises(amqp010.ConnectionError_, match="user connection limit .2. is reached"):
        amqp010.connect(crowded.url)


@pytest.mark.parametrize(("version", "reason"), [(paho.MQTTv5, "Quota exceeded"),
                                                 (paho.MQTTv311, "Server unavailable")])
def test_paho(crowded: testing.Broker, version: int, reason: str) -> None:
    told: list[str] = []
    done = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "limits", protocol=paho.MQTTProtocolVersion(version))
    client.username_pw_set("guest", "guest")

    def connected(_client: object, _data: object, _flags: object, code: object, _properties: object) -> None:
        told.append(str(code))
        done.set()
        client.disconnect()

    client.on_connect = connected
    client.connect(crowded.host, crowded.port)
    client.loop_start()
    assert done.wait(30)
    client.loop_stop()
    assert told[0] == reason
