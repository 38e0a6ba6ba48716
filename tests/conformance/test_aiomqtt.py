"""aiomqtt, paho-mqtt's client for asyncio, against the broker: as an application writes it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiomqtt import Client, Message, MqttCodeError, MqttError, ProtocolVersion, Will
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.conformance.mqtt_tools import Mqtt, properties
from tests.conformance.support import DEADLINE, run

VERSIONS = pytest.mark.parametrize("version", list(ProtocolVersion), ids=["3.1", "3.1.1", "5"])


@asynccontextmanager
async def open_client(mqtt: Mqtt, version: ProtocolVersion = ProtocolVersion.V5,
                      **options: Any) -> AsyncIterator[Client]:
    if version == ProtocolVersion.V5:
        options = {"clean_start": True, **options}
    given = {"port": mqtt.port, "username": "guest", "password": "guest", "protocol": version, **options}
    async with Client(mqtt.host, timeout=DEADLINE, **given) as client:
        yield client


async def take(client: Client, count: int) -> list[Message]:
    return [await asyncio.wait_for(anext(client.messages), DEADLINE) for _ in range(count)]


@VERSIONS
def test_publish_and_subscribe(mqtt: Mqtt, topic: str, version: ProtocolVersion) -> None:
    async def test() -> None:
        async with open_client(mqtt, version) as publisher, open_client(mqtt, version) as subscriber:
            for qos in range(3):
                await subscriber.subscribe(f"{topic}/{qos}/#", qos)
            for qos in range(3):
                await publisher.publish(f"{topic}/{qos}/x", f"payload {qos}", qos)
            found = await take(subscriber, 3)
            assert sorted((got.qos, str(got.topic), got.payload) for got in found) == [
                (qos, f"{topic}/{qos}/x", b"payload %d" % qos) for qos in range(3)]

    run(test)


@VERSIONS
def test_tls_and_detection(mqtt: Mqtt, topic: str, version: ProtocolVersion) -> None:
    async def test() -> None:
        async with (open_client(mqtt, version, port=mqtt.tls_port, tls_context=mqtt.tls()) as safe,
                    open_client(mqtt, version, port=mqtt.amqp_port) as plain):
            await plain.subscribe(topic, 1)
            await safe.publish(topic, b"m", 1)
            assert (await take(plain, 1))[0].payload == b"m"

    run(test)


@VERSIONS
def test_a_wrong_password(mqtt: Mqtt, version: ProtocolVersion) -> None:
    async def test() -> None:
        with pytest.raises(MqttError) as refused:
            async with open_client(mqtt, version, password="wrong"):
                pass
        assert isinstance(refused.value, MqttCodeError)

    run(test)


def test_a_thousand_at_once(mqtt: Mqtt, topic: str) -> None:
    async def test() -> None:
        async with (open_client(mqtt) as publisher, open_client(mqtt) as first, open_client(mqtt) as second):
            publisher.pending_calls_threshold = 2000  # of calls that wait: it would warn
            for each in (first, second):
                await each.subscribe(topic, 1)
            expected = [b"%d" % number for number in range(1000)]
            publishing = asyncio.gather(*(publisher.publish(topic, each, 1) for each in expected))
            found = await asyncio.gather(take(first, 1000), take(second, 1000))
            await publishing
            assert [[got.payload for got in each] for each in found] == [expected, expected]

    run(test)


@VERSIONS
def test_a_session_that_waits(mqtt: Mqtt, topic: str, version: ProtocolVersion) -> None:
    name = f"client-{uuid.uuid4().hex[:8]}"
    options: dict[str, Any] = {"identifier": name}
    if version == ProtocolVersion.V5:
        options |= {"clean_start": False, "properties": properties(PacketTypes.CONNECT, SessionExpiryInterval=600)}
    else:
        options["clean_session"] = False

    async def test() -> None:
        async with open_client(mqtt, version, **options) as subscriber:
            await subscriber.subscribe(topic, 2)
        async with open_client(mqtt, version) as publisher:
            for qos in (1, 2, 1):
                await publisher.publish(topic, b"m", qos)
        async with open_client(mqtt, version, **options) as subscriber:
            assert sorted(got.qos for got in await take(subscriber, 3)) == [1, 1, 2]

    run(test)


def test_a_will_and_a_retained_message(mqtt: Mqtt, topic: str) -> None:
    async def test() -> None:
        async with open_client(mqtt) as watcher:
            await watcher.subscribe(topic, 1)
            with pytest.raises(MqttError):
                async with open_client(mqtt, will=Will(topic, b"gone", 1, retain=True)) as client:
                    client._client.socket().shutdown(2)
                    await take(client, 1)
            assert (await take(watcher, 1))[0].payload == b"gone"
        async with open_client(mqtt) as late:
            await late.subscribe(topic)
            got = (await take(late, 1))[0]
            assert got.payload == b"gone" and got.retain

    run(test)


def test_workers_share_a_subscription(mqtt: Mqtt, topic: str) -> None:
    async def test() -> None:
        async with (open_client(mqtt) as publisher, open_client(mqtt) as first, open_client(mqtt) as second):
            done: list[bytes] = []
            for each in (first, second):
                await each.subscribe(f"$share/workers/{topic}", 1)

            async def work(client: Client) -> None:
                async for message in client.messages:
                    assert isinstance(message.payload, bytes)
                    done.append(message.payload)

            workers = [asyncio.create_task(work(each)) for each in (first, second)]
            expected = [b"%d" % number for number in range(50)]
            for each_payload in expected:
                await publisher.publish(topic, each_payload, 1)
            async with asyncio.timeout(DEADLINE):
                while len(done) < len(expected):
                    await asyncio.sleep(0.01)
            for worker in workers:
                worker.cancel()
            assert sorted(done, key=int) == expected

    run(test)


def test_request_and_response(mqtt: Mqtt, topic: str) -> None:
    async def test() -> None:
        async with open_client(mqtt) as service, open_client(mqtt) as requester:
            await service.subscribe(f"{topic}/service", options=SubscribeOptions(1, noLocal=True))
            await requester.subscribe(f"{topic}/answers", 1)
            asked = properties(PacketTypes.PUBLISH, ResponseTopic=f"{topic}/answers", CorrelationData=b"\x07")
            await requester.publish(f"{topic}/service", b"question", 1, properties=asked)
            request = (await take(service, 1))[0]
            assert request.properties is not None
            answered = properties(PacketTypes.PUBLISH, CorrelationData=request.properties.CorrelationData)
            await service.publish(request.properties.ResponseTopic, b"answer", 1, properties=answered)
            answer = (await take(requester, 1))[0]
            assert answer.payload == b"answer" and answer.properties is not None
            assert answer.properties.CorrelationData == b"\x07"

    run(test)
