"""The gateway's remote ends, against this broker: what they move, and what they say when something goes wrong."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from pamqp.commands import Queue

from broker.message import AMQP010, AMQP091, AMQP10, CONVERTERS
from broker.outcome import ACCEPT, REJECT, RELEASE, REQUEUE
from dragoman import testing
from interop.ends import NOWHERE, EndError, From, Options, Remote, To
from interop.remotes import remote
from tests.authority import Authority
from tests.remote_kit import SAFE, Proxy, Sent, Taken, lost, opened, refusal, run, text_message
from tests.tls_kit import issue
from tests.wire import Channel, Peer

DIALECTS = pytest.mark.parametrize("dialect", [AMQP091, AMQP010, AMQP10], ids=["0-9-1", "0-10", "1.0"])
QUICK = Options(heartbeat=1, timeout=2)

pytestmark = pytest.mark.dragoman_only("it is our side that is tested here")


def url_of(peer: Peer, path: str = "", user: str = "guest:guest@") -> str:
    return f"amqp://{user}{peer.host}:{peer.port}/{path}"


@DIALECTS
def test_messages_come_and_go_in_order_whole_and_confirmed(dialect: int, peer: Peer, ch: Channel, queue: str) -> None:
    bodies = [b"%d" % number for number in range(400)] + [bytes(300_000), b""]

    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        sent = Sent(await made.target(To(queue=queue)))
        for body in bodies:
            await sent.send_when_ready(text_message(body, queue, dialect))
        assert set(await sent.wait()) == {SAFE}
        taken = Taken(await made.source(From(queue=queue, prefetch=50)))
        await taken.wait(len(bodies))
        assert taken.bodies() == bodies
        assert not any(delivery.redelivered for delivery in taken.deliveries)
        assert {delivery.message.dialect for delivery in taken.deliveries} == {dialect}
        await taken.source.close()
        await made.close()
        assert not made.lost.done()
    run(main())
    assert ch.count(queue) == 0


@DIALECTS
def test_a_connection_knows_what_the_other_broker_is(dialect: int, peer: Peer) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        assert made.product.startswith("Dragoman") and made.broker_id
        await made.close()
    run(main())


@DIALECTS
def test_no_more_than_the_prefetch_is_unsettled_and_what_is_goes_back(dialect: int, peer: Peer, ch: Channel,
                                                                     queue: str) -> None:
    for number in range(30):
        ch.publish("", queue, b"%d" % number)
    ch.settle(queue)

    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        taken = Taken(await made.source(From(queue=queue, prefetch=10)), None)
        await taken.wait(10)
        for delivery in [*taken.deliveries[:5], taken.deliveries[7]]:  # a gap, too
            taken.source.settle(delivery, ACCEPT)
        await taken.wait(16)
        await asyncio.sleep(0.05)
        assert len(taken.deliveries) == 16
        await made.close()
    run(main())
    ch.settle(queue)
    assert ch.count(queue) == 24


@DIALECTS
def test_what_is_given_back_comes_again_and_what_is_rejected_does_not(dialect: int, peer: Peer, ch: Channel,
                                                                     name: Callable[..., str]) -> None:
    dead, queue = ch.queue(name()).queue, name()
    ch.queue(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    ch.confirm()
    ch.confirmed("", queue, b"first")

    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        taken = Taken(await made.source(From(queue=queue, prefetch=1)), None)
        for count, outcome in enumerate((RELEASE, REQUEUE, REJECT), 1):
            await taken.wait(count)
            taken.source.settle(taken.deliveries[-1], outcome)
        assert [delivery.redelivered for delivery in taken.deliveries][2]
        await taken.source.close()
        await made.close()
    run(main())
    assert ch.wait_get(dead).body == b"first"


@DIALECTS
def test_at_most_once(dialect: int, peer: Peer, ch: Channel, queue: str) -> None:
    """Nobody waits for confirms, and what is delivered is settled."""
    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        sent = Sent(await made.target(To(queue=queue, settled=True)))
        for number in range(300):
            await sent.send_when_ready(text_message(b"%d" % number, queue, dialect))
        assert set(await sent.wait()) == {SAFE}
        taken = Taken(await made.source(From(queue=queue, prefetch=20, settled=True)), None)
        await taken.wait(300)
        assert taken.bodies() == [b"%d" % number for number in range(300)]
        await made.close()
    run(main())
    ch.settle(queue)
    assert ch.count(queue) == 0


@DIALECTS
def test_selectors(dialect: int, peer: Peer, ch: Channel, queue: str) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        sent = Sent(await made.target(To(queue=queue)))
        for number in range(4):
            sent.send(text_message(b"%d" % number, queue, dialect, headers={"n": number % 2}))
        await sent.wait()
        taken = Taken(await made.source(From(queue=queue, selector="n = 1")))
        assert taken.source.selects
        await taken.wait(2)
        assert taken.bodies() == [b"1", b"3"]
        await made.close()
    run(main())
    ch.settle(queue)
    assert ch.count(queue) == 2


@DIALECTS
def test_an_exchange_is_taken_by_keys_and_its_queue_kept_if_it_has_a_name(dialect: int, peer: Peer, ch: Channel,
                                                                         name: Callable[..., str]) -> None:
    exchange, kept = name("e"), name()
    ch.exchange(exchange, "topic", durable=True)

    async def main() -> None:
        for again in (False, True):
            made = await opened(url_of(peer), dialect, Options(name="gateway"))
            passing = Taken(await made.source(From(exchange=exchange, keys=("a.#",))))
            keeping = Taken(await made.source(From(queue=kept, exchange=exchange, keys=("*.b",))))
            sent = Sent(await made.target(To(exchange=exchange)))
            if again:
                await keeping.wait(1)
            for key in ("a.b", "a.c", "x.b"):
                sent.send(text_message(key.encode(), key, dialect, exchange))
            assert await sent.wait() == [SAFE] * 3
            await passing.wait(2)
            await keeping.wait(3 if again else 2)
            assert passing.bodies() == [b"a.b", b"a.c"]
            assert keeping.bodies() == [b"z.b", b"a.b", b"x.b"][0 if again else 1:]
            routes = [(each.message.address.exchange, each.message.address.routing_key) for each in passing.deliveries]
            assert routes == [(exchange, "a.b"), (exchange, "a.c")]
            fixed = Sent(await made.target(To(exchange=exchange, key="a.fixed")))
            fixed.send(text_message(b"fixed", "" if dialect == AMQP10 else "whatever", dialect))
            await passing.wait(3)
            assert passing.deliveries[2].message.address.routing_key in ("a.fixed", "")
            await made.close()
            ch.publish(exchange, "z.b", b"z.b")
    run(main())


@DIALECTS
def test_what_has_no_queue_to_go_to_is_told_of_and_the_target_goes_on(dialect: int, peer: Peer, ch: Channel, queue: str,
                                                                     name: Callable[..., str]) -> None:
    exchange = name("e")
    ch.exchange(exchange, "direct")
    ch.bind(queue, exchange, "right")

    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        sent = Sent(await made.target(To(exchange=exchange)))
        for key in ("right", "wrong", "wrong", "right"):
            sent.send(text_message(b"the same", key, dialect, exchange))
        told = await sent.wait()
        assert told[0] == told[3] == SAFE
        assert told[1][1] and told[2][1]
        assert not sent.target.lost.done()
        await made.close()
    run(main())


@DIALECTS
def test_the_user_id_of_another_does_not_stop_a_message(dialect: int, peer: Peer, ch: Channel, queue: str) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        sent = Sent(await made.target(To(queue=queue)))
        message = text_message(b"of somebody else", queue, dialect, headers={"n": 1})
        view = message.view()
        view.user_id = b"somebody"
        sent.send(CONVERTERS[dialect].encode(view, message))
        assert await sent.wait() == [SAFE]
        await made.close()
    run(main())
    content = ch.wait_get(queue)
    assert content.body == b"of somebody else" and content.headers["n"] == 1
    # guest may not send in the name of others, so that it is no user-id any more to those who read it
    assert (b"x-user-id" if dialect == AMQP10 else b"X-user-id") in content.raw_header
    assert b"somebody" in content.raw_header


@DIALECTS
def test_queues_and_exchanges_that_are_not_there(dialect: int, peer: Peer) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        for wanted in (From(queue="nowhere"), From(exchange="nowhere", keys=("#",))):
            with pytest.raises(EndError, match="nowhere"):
                await made.source(wanted)
        for where in (To(queue="nowhere"), To(exchange="nowhere")):
            with pytest.raises(EndError, match="nowhere"):
                await made.target(where)
        assert not made.lost.done() and not made.ends
        await made.close()
    run(main())


@DIALECTS
def test_a_queue_that_is_deleted_ends_its_source_and_nothing_else(dialect: int, peer: Peer, ch: Channel,
                                                                 queue: str) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        taken = Taken(await made.source(From(queue=queue)))
        other = await made.target(To(exchange="amq.topic"))
        await asyncio.sleep(0.05)
        ch.call(_delete(queue))
        assert await lost(taken.source)
        assert not made.lost.done() and not other.lost.done()
        await made.close()
    run(main())


@DIALECTS
@pytest.mark.parametrize("url, says", [
    ("amqp://guest:wrong@{}/", "(?i)refused|credentials|failed"), ("amqp://guest:guest@{}/none", "none"),
    ("amqps://guest:guest@{}/", "TLS"), ("amqp://guest:guest@127.0.0.1:1/", "connection refused"),
    ("amqp://guest:guest@no.such.host.invalid/", "invalid|not known|resolution")])
def test_connections_that_cannot_be_had(dialect: int, url: str, says: str, peer: Peer) -> None:
    text = refusal(url.format(f"{peer.host}:{peer.port}"), dialect)
    assert re.search(says, text), text
    assert "wrong" not in text.replace("wrong version", "") and "guest:" not in text and len(text) < 300


@DIALECTS
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", b"", None],
                         ids=["HTTP", "end", "silence"])
def test_whoever_is_no_broker(dialect: int, answer: bytes | None) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        made = remote(f"amqp://guest:guest@127.0.0.1:{port}/", dialect, Options(timeout=0.3 if answer is None else 5))
        with pytest.raises(EndError):
            await made.open()
        await made.close()
        server.close()
        await asyncio.sleep(0.05)
    run(main())


async def busy(made: Remote, queue: str, dialect: int) -> tuple[Taken, Sent]:
    """A source with unsettled messages and a target with unconfirmed ones."""
    sent = Sent(await made.target(To(queue=queue)))
    taken = Taken(await made.source(From(queue=queue)), None)
    for number in range(20):
        sent.send(text_message(b"%d" % number, queue, dialect))
    await sent.wait()
    await taken.wait(20)
    return taken, sent


@DIALECTS
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_broker_that_dies_or_goes_down(dialect: int, how: str) -> None:
    async def main(broker: testing.Broker) -> None:
        made = await opened(broker.url, dialect)
        await made.source(From(exchange="amq.topic", keys=("#",)))
        taken, sent = await busy(made, "q", dialect)
        await asyncio.to_thread(getattr(broker, how))
        sent.send(text_message(b"late", "q", dialect))
        assert await lost(made)
        assert await lost(taken.source) and await lost(sent.target)
        (why, hopeless), = (await sent.wait())[20:]
        assert why and not hopeless
        taken.source.settle(taken.deliveries[0], ACCEPT)  # without effect
        with pytest.raises(EndError):
            await made.target(To(queue="q"))
        await made.close()
    with testing.broker() as broker:
        declare(broker.port, "q")
        run(main(broker))


@pytest.mark.slow
def test_a_broker_that_is_silent_is_lost(peer: Peer, queue: str) -> None:
    async def one(dialect: int, proxy: Proxy) -> str:
        made = await opened(proxy.url(), dialect, QUICK)
        await made.source(From(queue=queue))
        await asyncio.sleep(1.5)  # heartbeats keep it
        assert not made.lost.done()
        proxy.freeze()
        why = await lost(made)
        await made.close()
        return why

    async def main() -> None:
        async with Proxy(*peer) as first, Proxy(*peer) as second, Proxy(*peer) as third:
            found = await asyncio.gather(one(AMQP091, first), one(AMQP010, second), one(AMQP10, third))
            assert all("heartbeat" in why for why in found), found
    run(main())


@DIALECTS
def test_a_connection_that_is_cut(dialect: int, peer: Peer, queue: str) -> None:
    async def main() -> None:
        async with Proxy(*peer) as proxy:
            made = await opened(proxy.url(), dialect)
            taken, sent = await busy(made, queue, dialect)
            proxy.refusing = True
            proxy.cut()
            assert await lost(made)
            assert await lost(taken.source) and await lost(sent.target)
            await made.close()
    run(main())


def test_a_session_of_0_10_outlives_its_connection(peer: Peer, ch: Channel, queue: str) -> None:
    """What was under way is sent again, and comes once."""
    async def main() -> None:
        async with Proxy(*peer) as proxy:
            made = await opened(proxy.url(), AMQP010)
            sent = Sent(await made.target(To(queue=queue)))
            for number in range(200):
                sent.send(text_message(b"%d" % number, queue, AMQP010))
                if number % 50 == 25:
                    proxy.cut()
                    await asyncio.sleep(0.02)
            assert set(await sent.wait()) == {SAFE}
            assert proxy.connections > 1 and not made.lost.done()
            await made.close()
    run(main())
    ch.consume(queue, no_ack=True)
    assert ch.deliveries(200) == [b"%d" % number for number in range(200)]
    ch.settle(queue)


@contextmanager
def certified(folder: Path) -> Iterator[testing.Broker]:
    """A broker that takes no client without a certificate."""
    authority = Authority("an authority")
    authority.save(folder / "ca.pem")
    issue(authority, folder / "server.pem")
    issue(authority, folder / "client.pem", "gateway")
    config = (f'[[listeners]]\nport = 0\ntls = "always"\n[tls]\ncertificate = "{folder}/server.pem"\n'
              f'client_ca = "{folder}/ca.pem"\n')
    with testing.broker(config) as broker:
        yield broker


@pytest.fixture(scope="module")
def demanding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[testing.Broker, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    with certified(folder) as broker:
        yield broker, folder


@DIALECTS
def test_client_certificates(dialect: int, demanding: tuple[testing.Broker, Path]) -> None:
    broker, folder = demanding
    trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    certified = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    certified.load_cert_chain(folder / "client.pem")

    async def main() -> None:
        url = f"amqps://guest:guest@127.0.0.1:{broker.port}/"
        made = await opened(url, dialect, Options(tls=certified, timeout=10))
        await made.close()
        made = await opened(url, dialect, Options(tls=certified, timeout=10, server_name="localhost"))
        await made.close()
        for context, says in ((ssl.create_default_context(), "trusted"), (trusting, "certificate|broke|ended|closed")):
            made = remote(url, dialect, Options(tls=context, timeout=10))
            with pytest.raises(EndError, match=says):
                await made.open()
            await made.close()
        made = remote(url, dialect, Options(tls=certified, timeout=10, server_name="elsewhere.example"))
        with pytest.raises(EndError, match="TLS"):
            await made.open()
        await made.close()
    run(main())


def declare(port: int, queue: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@127.0.0.1:{port}/"))
    connection.channel().queue_declare(queue)
    connection.close()


def _delete(queue: str) -> Any:
    return Queue.Delete(queue=queue)


def test_what_a_killed_run_has_not_settled_comes_again_first_and_at_once(peer: Peer, ch: Channel, queue: str) -> None:
    """Over 0-10 a broker keeps the session of one that is gone. The next run of the same bridge ends it."""
    async def main() -> None:
        async with Proxy(*peer) as proxy:
            killed: Any = await opened(proxy.url(), AMQP010, Options(timeout=10, name="gateway"))
            sent = Sent(await killed.target(To(queue=queue)))
            for number in range(20):
                sent.send(text_message(b"%d" % number, queue, AMQP010))
            await sent.wait()
            first = Taken(await killed.source(From(queue=queue, prefetch=10, name="b")), None)
            await first.wait(10)
            killed.connection._closing = True  # it has no chance to come back
            proxy.cut()
            again = await opened(url_of(peer), AMQP010, Options(timeout=10, name="gateway"))
            other = Taken(await again.source(From(queue=queue, prefetch=100, name="b")))
            await other.wait(20)
            assert other.bodies() == [b"%d" % number for number in range(20)]
            await killed.close()
            await again.close()
    run(main())


@DIALECTS
def test_what_is_bound_nowhere_is_told_from_what_is_refused(dialect: int, peer: Peer) -> None:
    async def main() -> None:
        made = await opened(url_of(peer), dialect)
        sent = Sent(await made.target(To(exchange="amq.topic")))
        sent.send(text_message(b"x", "nobody.wants.it", dialect, "amq.topic"))
        (why, reason), = await sent.wait()
        assert why and reason == NOWHERE
        await made.close()
    run(main())
