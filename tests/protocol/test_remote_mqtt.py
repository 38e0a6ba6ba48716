"""The gateway's remote end in MQTT, against this broker: sessions, acknowledgements, and what it says when something
goes wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from broker.message import MQTT, Message
from broker.outcome import ACCEPT, RELEASE
from dragoman import testing
from interop.ends import From, Options, To, Unsupported
from protocols.mqtt import content
from tests.remote_kit import OPTIONS, SAFE, Proxy, Sent, Taken, lost, opened, refusal, run, text_message
from tests.wire import Peer
from tests.wire_mqtt import MqttClient

pytestmark = pytest.mark.dragoman_only("it is our side that is tested here")

OLDER = Options(heartbeat=10, timeout=10, mqtt=4)
VERSIONS = pytest.mark.parametrize("options", [OPTIONS, OLDER], ids=["5.0", "3.1.1"])


def url_of(peer: Peer | testing.Broker | Proxy) -> str:
    host = "127.0.0.1" if isinstance(peer, Proxy) else peer.host
    return f"mqtt://guest:guest@{host}:{peer.port}/"


def message(body: bytes, key: str, qos: int = 1) -> Message:
    made = text_message(body, key, MQTT, "amq.topic")
    made.native = bytes([0x30 | qos << 1]) + made.native[1:]
    return made


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_come_and_go(options: Options, qos: int, peer: Peer, request: pytest.FixtureRequest) -> None:
    prefix = f"go-{qos}-{options.mqtt}"
    bodies = [b"%d" % number for number in range(300)] + [bytes(300_000), b""]

    async def main() -> None:
        made = await opened(url_of(peer), MQTT, options)
        taken = Taken(await made.source(From(exchange="amq.topic", keys=(f"{prefix}.*",), prefetch=20)))
        sent = Sent(await made.target(To(exchange="amq.topic")))
        for body in bodies:
            await sent.send_when_ready(message(body, f"{prefix}.x", qos))
        assert set(await sent.wait()) == {SAFE}
        await taken.wait(len(bodies))
        assert [b"".join(content.body_pieces(each.message)) for each in taken.deliveries] == bodies
        assert taken.deliveries[0].message.address.routing_key == f"{prefix}.x"
        await made.close()
    run(main())


@VERSIONS
def test_a_session_keeps_what_comes_while_nobody_is_there(options: Options, peer: Peer,
                                                          connect_mqtt: Callable[..., MqttClient]) -> None:
    """And what was not settled comes again, marked so."""
    topic, session = f"keep-{options.mqtt}/a", f"keeper-{options.mqtt}"
    wanted = From(queue=session, exchange="amq.topic", keys=(topic.replace("/", "."),))

    async def main() -> None:
        device = connect_mqtt(f"device-{options.mqtt}")
        made = await opened(url_of(peer), MQTT, options)
        taken = Taken(await made.source(wanted), None)
        for body in (b"1", b"2"):
            device.send_whole(topic, body, 1)
        await taken.wait(2)
        taken.source.settle(taken.deliveries[0], ACCEPT)
        await asyncio.sleep(0.05)
        await made.close()
        device.send_whole(topic, b"3", 1)
        made = await opened(url_of(peer), MQTT, options)
        taken = Taken(await made.source(wanted))
        await taken.wait(2)
        assert [b"".join(content.body_pieces(each.message)) for each in taken.deliveries] == [b"2", b"3"]
        assert [each.redelivered for each in taken.deliveries] == [True, False]
        await made.close()
    run(main())


def test_what_is_given_back_comes_again(peer: Peer, connect_mqtt: Callable[..., MqttClient]) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), MQTT)
        taken = Taken(await made.source(From(exchange="amq.topic", keys=("back",))), None)
        connect_mqtt("giver").send_whole("back", b"", 1)
        await taken.wait(1)
        taken.source.settle(taken.deliveries[0], RELEASE)
        await taken.wait(2)
        assert taken.deliveries[1].redelivered and taken.deliveries[1].message is taken.deliveries[0].message
        await made.close()
    run(main())


def test_shared_subscriptions_and_more_keys(peer: Peer) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), MQTT)
        sources = [Taken(await made.source(From(exchange="amq.topic", keys=("$share/group/shared/#",))))
                   for _ in range(2)]
        sent = Sent(await made.target(To(exchange="amq.topic", key="shared.x")))
        for number in range(50):
            sent.send(message(b"%d" % number, "shared.x"))
        await sent.wait()
        while sum(len(each.deliveries) for each in sources) < 50:
            await asyncio.sleep(0.01)
        more = Taken(await made.source(From(exchange="amq.topic")))
        await more.source.bind(["bound.#"])
        other = Sent(await made.target(To(exchange="amq.topic", key="bound.here")))
        other.send(message(b"", "bound.here"))
        await more.wait(1)
        await more.source.unbind(["bound.#"])
        with pytest.raises(Unsupported):
            await more.source.bind(["a.#.b"])
        with pytest.raises(Unsupported):
            await made.source(From(queue="queue"))
        await made.close()
        assert sum(len(each.deliveries) for each in sources) == 50
    run(main())


@VERSIONS
@pytest.mark.parametrize("url, says", [
    ("mqtt://guest:wrong@{}/", "(?i)authori[sz]ed|user name or password"), ("mqtts://guest:guest@{}/", "TLS|broke"),
    ("mqtt://guest:guest@127.0.0.1:1/", "connection refused")])
def test_connections_that_cannot_be_had(options: Options, url: str, says: str, peer: Peer) -> None:
    text = refusal(url.format(f"{peer.host}:{peer.port}"), MQTT, options)
    assert re.search(says, text), text


def test_being_taken_over_cut_off_or_killed() -> None:
    async def main(broker: testing.Broker) -> None:
        async with Proxy(broker.host, broker.port) as proxy:
            made = await opened(url_of(proxy), MQTT)
            first = await made.source(From(queue="same", exchange="amq.topic", keys=("a",)))
            second = await made.source(From(queue="same", exchange="amq.topic", keys=("a",)))
            assert "taken over" in (await lost(first)).lower()
            sent = Sent(await made.target(To(exchange="amq.topic")))
            assert not made.lost.done() and not second.lost.done()
            proxy.freeze()
            number = sent.send(message(b"", "a"))
            proxy.cut()
            assert await lost(made) and await lost(second) and await lost(sent.target)
            why, hopeless = (await sent.wait())[number]
            assert why and not hopeless
            await made.close()
        made = await opened(url_of(broker), MQTT)
        await asyncio.to_thread(broker.kill)
        assert await lost(made)
        await made.close()
    with testing.broker() as broker:
        run(main(broker))


@pytest.mark.slow
def test_a_broker_that_is_silent_is_lost(peer: Peer) -> None:
    async def main() -> None:
        async with Proxy(*peer) as proxy:
            made = await opened(url_of(proxy), MQTT, Options(heartbeat=1, timeout=3))
            source = await made.source(From(exchange="amq.topic", keys=("a",)))
            proxy.freeze()
            assert "silent" in await lost(made) and "silent" in await lost(source)
            await made.close()
    run(main())
