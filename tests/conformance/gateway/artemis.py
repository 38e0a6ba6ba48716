"""The gateway's remote ends at ActiveMQ Artemis, over 1.0 and MQTT."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.message import AMQP10, MQTT
from interop.ends import EndError, From, Options, To, Unsupported
from interop.remotes import remote
from tests import peers
from tests.remote_kit import OPTIONS, SAFE, Sent, Taken, opened, run, text_message

BODIES = [b"%d" % number for number in range(500)]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with peers.artemis(tmp_path_factory.mktemp("artemis")) as peer:
        yield peer.port


def test_queues_and_topics_of_1_0(port: int) -> None:
    async def main() -> None:
        made = await opened(f"amqp://guest:guest@127.0.0.1:{port}/", AMQP10)
        taken = Taken(await made.source(From(queue="queue", prefetch=50)))
        sent = Sent(await made.target(To(queue="queue")))
        for body in [*BODIES, bytes(300_000)]:
            await sent.send_when_ready(text_message(body, "queue", AMQP10))
        assert set(await sent.wait()) == {SAFE}
        await taken.wait(501)
        assert taken.bodies() == [*BODIES, bytes(300_000)]
        news = Taken(await made.source(From(exchange="news")))
        teller = Sent(await made.target(To(exchange="news")))
        teller.send(text_message(b"told", "a.b", AMQP10, "news"))
        await news.wait(1)
        assert news.deliveries[0].message.address.routing_key == "a.b"
        with pytest.raises(Unsupported):  # it has no bindings by key
            await made.source(From(exchange="news", keys=("a.#",)))
        await made.close()
    run(main())


@pytest.mark.parametrize("version", [5, 4])
def test_topics_of_mqtt(version: int, port: int) -> None:
    async def main() -> None:
        made = await opened(f"mqtt://guest:guest@127.0.0.1:{port}/", MQTT, Options(mqtt=version, timeout=10))
        taken = Taken(await made.source(From(queue=f"s{version}", exchange="amq.topic", keys=(f"a{version}.#",))))
        sent = Sent(await made.target(To(exchange="amq.topic", key=f"a{version}.b")))
        for body in BODIES:
            await sent.send_when_ready(text_message(body, "a.b", MQTT, "amq.topic"))
        assert set(await sent.wait()) == {SAFE}
        await taken.wait(500)
        assert taken.bodies() == BODIES
        await made.close()
    run(main())


@pytest.mark.parametrize("url, dialect", [("amqp", AMQP10), ("mqtt", MQTT)])
def test_a_wrong_password(url: str, dialect: int, port: int) -> None:
    async def main() -> None:
        made = remote(f"{url}://guest:wrong@127.0.0.1:{port}/", dialect, OPTIONS)
        with pytest.raises(EndError):
            await made.open()
        await made.close()
    run(main())
