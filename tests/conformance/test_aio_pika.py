"""aio-pika: connections that heal themselves, queues, messages, and its patterns RPC and Master."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aio_pika
import aiormq
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import (
    AMQPError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    DuplicateConsumerTag,
    ProbableAuthenticationError,
    PublishError,
    QueueEmpty,
)
from aio_pika.patterns import RPC, JsonMaster, Master, NackMessage, RejectMessage
from aio_pika.pool import Pool

from tests.conformance.conftest import Alarm, Phoenix
from tests.conformance.support import DEADLINE, LARGE_BODY, Names, Proxy, Target, eventually, run


@asynccontextmanager
async def open_channel(target: Target, **options: Any) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(target.url, timeout=DEADLINE) as connection:
        yield await connection.channel(**options)


async def drain(queue: AbstractQueue) -> list[bytes]:
    found = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        found.append(message.body)
    return found


# Connecting


def test_connecting(target: Target) -> None:
    async def test() -> None:
        connection = await aio_pika.connect(f"{target.url}?name=conformance&heartbeat=30&channel_max=99")
        closed: list[object] = []
        connection.close_callbacks.add(lambda _connection, error: closed.append(error))
        channels = [await connection.channel() for _ in range(64)]
        assert len({channel.number for channel in channels}) == 64
        assert connection.transport is not None
        server: Any = connection.transport.connection.server_properties
        assert server["capabilities"]["publisher_confirms"] is True
        answer = await connection.update_secret("guest", reason="rotation")
        assert isinstance(answer, aiormq.spec.Connection.UpdateSecretOk)
        await connection.close()
        assert connection.is_closed and len(closed) == 1
        assert all(channel.is_closed for channel in channels)

    run(test)


@pytest.mark.parametrize("robust", [False, True])
def test_a_refused_login(target: Target, robust: bool) -> None:
    async def test() -> None:
        connect: Any = aio_pika.connect_robust if robust else aio_pika.connect
        with pytest.raises(ProbableAuthenticationError):
            await connect(host=target.host, port=target.port, login="guest", password="wrong")

    run(test)


def test_an_unknown_virtual_host(target: Target) -> None:
    async def test() -> None:
        with pytest.raises(AMQPError):  # the client does not say more: it expected open-ok, and got a close
            await aio_pika.connect(host=target.host, port=target.port, virtualhost="no-such-host")

    run(test)


# Channels, exchanges, queues


def test_a_channel_that_closed_and_opens_again(target: Target) -> None:
    async def test() -> None:
        async with await aio_pika.connect(target.url) as connection, connection.channel() as channel:
            closed: list[Any] = []
            channel.close_callbacks.add(lambda _channel, error: closed.append(error))
            with pytest.raises(ChannelNotFoundEntity, match="no-such-queue"):
                await channel.declare_queue("no-such-queue", passive=True)
            await eventually(lambda: closed, "the close callback")
            assert channel.is_closed
            await channel.reopen()
            await channel.declare_queue("", exclusive=True)
            with pytest.raises(ChannelNotFoundEntity):
                await channel.get_exchange("no-such-exchange")

    run(test)


@pytest.mark.parametrize("kind", [ExchangeType.DIRECT, ExchangeType.FANOUT, ExchangeType.TOPIC, ExchangeType.HEADERS,
                                  ExchangeType.X_CONSISTENT_HASH])
def test_exchanges_of_every_type(target: Target, names: Names, kind: ExchangeType) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            exchange = await channel.declare_exchange(names.exchange(), kind, durable=True, auto_delete=True)
            assert (await channel.get_exchange(exchange.name)).name == exchange.name
            queue = await channel.declare_queue(names.queue(), auto_delete=True)
            key = "1" if kind is ExchangeType.X_CONSISTENT_HASH else "a.b"
            arguments: Any = {"x-match": "all", "a": 1} if kind is ExchangeType.HEADERS else None
            await queue.bind(exchange, key, arguments=arguments)
            await exchange.publish(Message(b"hello", headers={"a": 1}), "a.b")
            assert (await queue.get(no_ack=True)).body == b"hello"
            with pytest.raises(ChannelPreconditionFailed):
                await channel.declare_exchange(exchange.name, kind, durable=False)
            await channel.reopen()
            await queue.unbind(exchange, key, arguments=arguments)  # the last binding takes the exchange with it
            with pytest.raises(ChannelNotFoundEntity):
                await channel.declare_exchange(exchange.name, passive=True)

    run(test)


def test_exchange_to_exchange(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            first = await channel.declare_exchange(names.exchange(), ExchangeType.TOPIC)
            second = await channel.declare_exchange(names.exchange(), ExchangeType.FANOUT, internal=True)
            queue = await channel.declare_queue(names.queue())
            await second.bind(first, "a.*")
            await queue.bind(second)
            await first.publish(Message(b"1"), "a.1")
            await second.unbind(first, "a.*")
            await first.publish(Message(b"2"), "a.2", mandatory=False)
            assert await drain(queue) == [b"1"]
            await first.delete(if_unused=True)
            await channel.exchange_delete(second.name)

    run(test)


def test_queue_life(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            queue = await channel.declare_queue(names.queue(), durable=True, arguments={"x-max-length": 3})
            assert (queue.declaration_result.message_count, queue.declaration_result.consumer_count) == (0, 0)
            for number in range(5):
                await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
            again = await channel.declare_queue(queue.name, passive=True)
            assert again.declaration_result.message_count == 3
            assert (await queue.get(no_ack=True)).body == b"2"
            with pytest.raises(ChannelPreconditionFailed):
                await queue.delete(if_empty=True)
            await channel.reopen()
            assert (await queue.purge()).message_count == 2
            await queue.delete()
            with pytest.raises(QueueEmpty):
                await (await channel.declare_queue("", exclusive=True)).get()
            named = await channel.declare_queue(exclusive=True)
            assert named.name.startswith("amq")

    run(test)


# Messages


HEADERS: dict[str, Any] = {
    "int8": -128, "int16": -32768, "uint16": 65535, "int32": -2**31, "uint32": 2**32 - 1, "int64": -2**63,
    "float": 0.15625, "decimal": Decimal("-12.34"), "string": "grüße", "bytes": bytearray(b"\x00\xff"), "bool": True,
    "time": datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), "none": None, "list": [1, "a", [None, {"b": False}]],
    "table": {"nested": {"deep": 70_000}}, "empty": {},
}


def test_properties_survive_byte_by_byte(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            queue = await channel.declare_queue(names.queue())
            message = Message(
                b"body", headers=HEADERS, content_type="application/json", content_encoding="utf-8",
                delivery_mode=DeliveryMode.PERSISTENT, priority=7, correlation_id="correlation", reply_to="reply",
                expiration=timedelta(hours=1), message_id="id", timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                type="kind", user_id="guest", app_id="conformance")
            for sent in (message, Message(b"", message_id="else the client makes one")):
                await channel.default_exchange.publish(sent, queue.name)
                received = await queue.get()
                assert received.properties.marshal() == sent.properties.marshal()
                assert received.headers == sent.headers
                assert (received.body, received.routing_key, received.exchange) == (sent.body, queue.name, "")
                assert received.redelivered is False
                await received.ack()

    run(test)


def test_expiration(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            dead = await channel.declare_queue(names.queue("dead"))
            queue = await channel.declare_queue(names.queue(), arguments={
                "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name})
            await channel.default_exchange.publish(Message(b"short", expiration=0.01), queue.name)
            async with dead.iterator() as messages:
                async for message in messages:
                    async with message.process():
                        deaths: Any = message.headers["x-death"]
                        assert (deaths[0]["reason"], deaths[0]["original-expiration"]) == ("expired", "10")
                        break
            assert await drain(queue) == []

    run(test)


def test_large_messages(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            queue = await channel.declare_queue(names.queue())
            for _ in range(3):
                await channel.default_exchange.publish(Message(LARGE_BODY), queue.name)
            assert [len(body) for body in await drain(queue)] == [len(LARGE_BODY)] * 3

    run(test)


# Publishing


def test_confirms(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            queue = await channel.declare_queue(names.queue(), durable=True, arguments={
                "x-max-length": 40, "x-overflow": "reject-publish"})
            outcomes = await asyncio.gather(*(
                channel.default_exchange.publish(Message(b"%d" % number), queue.name) for number in range(50)),
                return_exceptions=True)
            assert [type(each).__name__ for each in outcomes] == ["Ack"] * 40 + ["DeliveryError"] * 10
            assert await drain(queue) == [b"%d" % number for number in range(40)]

    run(test)


def test_returns(target: Target) -> None:
    async def test() -> None:
        async with open_channel(target, on_return_raises=True) as channel:
            with pytest.raises(PublishError):
                await channel.default_exchange.publish(Message(b"x"), "no-such-queue")
        async with open_channel(target) as channel:
            returned: list[AbstractIncomingMessage] = []
            channel.return_callbacks.add(lambda _channel, message: returned.append(message))
            answer: Any = await channel.default_exchange.publish(Message(b"x", message_id="7"), "no-such-queue")
            assert answer.delivery.reply_code == 312
            await channel.default_exchange.publish(Message(b"y"), "no-such-queue", mandatory=False)
            await eventually(lambda: returned, "the return")
            assert [(each.message_id, each.body) for each in returned] == [("7", b"x")]
        async with open_channel(target) as channel:
            with pytest.raises((DeliveryError, aio_pika.exceptions.ChannelClosed)):
                exchange = await channel.get_exchange("no-such-exchange", ensure=False)
                await exchange.publish(Message(b"x"), "key")

    run(test)


def test_without_confirms(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target, publisher_confirms=False) as channel:
            queue = await channel.declare_queue(names.queue())
            assert await channel.default_exchange.publish(Message(b"x"), queue.name) is None
            assert await drain(queue) == [b"x"]

    run(test)


def test_transactions(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target, publisher_confirms=False) as channel:
            queue = await channel.declare_queue(names.queue())
            async with channel.transaction():
                await channel.default_exchange.publish(Message(b"1"), queue.name)
                await channel.default_exchange.publish(Message(b"2"), queue.name)
            with pytest.raises(ZeroDivisionError):
                async with channel.transaction():
                    await channel.default_exchange.publish(Message(b"3"), queue.name)
                    raise ZeroDivisionError
            transaction = channel.transaction()
            await transaction.select()
            await channel.default_exchange.publish(Message(b"4"), queue.name)
            await transaction.rollback()
            assert await drain(queue) == [b"1", b"2"]

    run(test)


# Consuming


def test_a_callback_and_its_outcomes(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            await channel.set_qos(prefetch_count=10)
            queue = await channel.declare_queue(names.queue())
            seen: list[tuple[bytes, bool | None]] = []
            done = asyncio.Event()

            async def on_message(message: AbstractIncomingMessage) -> None:
                seen.append((message.body, message.redelivered))
                if message.body == b"last":
                    await message.ack(multiple=False)
                    done.set()
                elif message.redelivered:
                    await message.reject(requeue=False)
                elif message.body == b"nack":
                    await message.nack(requeue=True)
                elif message.body == b"reject":
                    await message.reject(requeue=True)
                else:
                    await message.ack()

            tag = await queue.consume(on_message, consumer_tag="mine")
            assert tag == "mine"
            with pytest.raises(DuplicateConsumerTag):
                await queue.consume(on_message, consumer_tag="mine")
            for body in (b"ack", b"nack", b"reject"):
                await channel.default_exchange.publish(Message(body), queue.name)
            await eventually(lambda: len(seen) == 5, "the redeliveries")
            await channel.default_exchange.publish(Message(b"last"), queue.name)
            await asyncio.wait_for(done.wait(), DEADLINE)
            assert isinstance(await queue.cancel("mine"), aiormq.spec.Basic.CancelOk)
            assert sorted(seen) == [(b"ack", False), (b"last", False), (b"nack", False), (b"nack", True),
                                    (b"reject", False), (b"reject", True)]
            assert await drain(queue) == []

    run(test)


def test_processing_contexts(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            queue = await channel.declare_queue(names.queue())
            await channel.default_exchange.publish(Message(b"x"), queue.name)
            with pytest.raises(ZeroDivisionError):
                async with (await queue.get()).process(requeue=True):
                    raise ZeroDivisionError
            with pytest.raises(ZeroDivisionError):
                async with (await queue.get()).process(requeue=True, reject_on_redelivered=True) as message:
                    assert message.redelivered
                    raise ZeroDivisionError
            assert await queue.get(fail=False) is None

    run(test)


def test_the_queue_iterator(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            await channel.set_qos(prefetch_count=3)
            queue = await channel.declare_queue(names.queue())
            for number in range(20):
                await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
            received = []
            async with queue.iterator() as messages:
                async for message in messages:
                    async with message.process():
                        received.append(message.body)
                    if len(received) == 10:
                        break
            rest = await drain(queue)
            assert received == [b"%d" % number for number in range(10)]
            assert sorted(rest, key=int) == [b"%d" % number for number in range(10, 20)]
            with pytest.raises(asyncio.TimeoutError):
                async with queue.iterator(timeout=0.1) as messages:
                    async for message in messages:
                        raise AssertionError(message)

    run(test)


def test_an_exclusive_consumer_and_priorities(target: Target, names: Names) -> None:
    async def test() -> None:
        async with open_channel(target) as channel:
            queue = await channel.declare_queue(names.queue())
            received: list[str] = []

            def note(name: str) -> Any:
                async def on_message(message: AbstractIncomingMessage) -> None:
                    received.append(name)
                return on_message

            await channel.set_qos(prefetch_count=1)
            await queue.consume(note("low"), arguments={"x-priority": -5})
            high = await queue.consume(note("high"), arguments={"x-priority": 5})
            for _ in range(2):
                await channel.default_exchange.publish(Message(b"x"), queue.name)
            await eventually(lambda: len(received) == 2, "the deliveries")
            assert sorted(received) == ["high", "low"]
            await queue.cancel(high)
            with pytest.raises(aio_pika.exceptions.ChannelClosed, match="ACCESS_REFUSED"):
                await queue.consume(note("alone"), exclusive=True)

    run(test)


def test_cancelled_by_the_broker(target: Target, names: Names) -> None:
    async def test() -> None:
        async with await aio_pika.connect(target.url) as connection:
            channel, other = await connection.channel(), await connection.channel()
            queue = await channel.declare_queue(names.queue())
            await channel.default_exchange.publish(Message(b"only"), queue.name)
            async with queue.iterator(no_ack=True) as messages:
                assert (await anext(aiter(messages))).body == b"only"
                await other.queue_delete(queue.name)
                underlay: Any = await channel.get_underlay_channel()
                await eventually(lambda: not underlay.consumers, "the consumer's end")

    run(test)


# What aio-pika adds


def test_a_robust_connection_heals(proxy: Proxy, names: Names) -> None:
    async def test() -> None:
        url = f"{proxy.outside.url}?reconnect_interval=0.1"
        async with await aio_pika.connect_robust(url, timeout=DEADLINE) as connection:
            reconnected = asyncio.Event()
            connection.reconnect_callbacks.add(lambda *_: reconnected.set())
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=5)
            exchange = await channel.declare_exchange(names.exchange(), ExchangeType.TOPIC, auto_delete=True)
            queue = await channel.declare_queue(names.queue(), auto_delete=True)
            await queue.bind(exchange, "a.#")
            received: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            await queue.consume(received.put)
            await exchange.publish(Message(b"1"), "a.1")
            first = await asyncio.wait_for(received.get(), DEADLINE)
            await first.ack()
            for round_ in (2, 3):
                reconnected.clear()
                proxy.cut()
                await asyncio.wait_for(reconnected.wait(), DEADLINE)
                await channel.ready()
                await exchange.publish(Message(b"%d" % round_), f"a.{round_}")
                again = await asyncio.wait_for(received.get(), DEADLINE)
                assert again.body == b"%d" % round_  # queue, exchange, binding and consumer are all back
                await again.ack()

    run(test)


def test_a_robust_connection_outlives_the_broker(phoenix: Phoenix) -> None:
    names = Names(phoenix.proxy.outside)

    async def test() -> None:
        url = f"{phoenix.proxy.outside.url}?reconnect_interval=0.1"
        async with await aio_pika.connect_robust(url, timeout=DEADLINE) as connection:
            reconnected = asyncio.Event()
            connection.reconnect_callbacks.add(lambda *_: reconnected.set())
            channel = await connection.channel()
            queue = await channel.declare_queue(names.queue(), durable=True)
            message = Message(b"kept", delivery_mode=DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, queue.name)
            await asyncio.to_thread(phoenix.restart)
            await asyncio.wait_for(reconnected.wait(), DEADLINE)
            await channel.ready()
            assert (await queue.get(no_ack=True)).body == b"kept"

    run(test)
    names.clean()


def test_pools(target: Target, names: Names) -> None:
    async def test() -> None:
        async def connect() -> Any:
            return await aio_pika.connect_robust(target.url)

        async def open_one() -> Any:
            async with connections.acquire() as connection:
                return await connection.channel()

        connections: Pool[Any] = Pool(connect, max_size=2)
        channels: Pool[Any] = Pool(open_one, max_size=5)
        async with connections, channels:
            name = names.queue()

            async def publish(number: int) -> None:
                async with channels.acquire() as channel:
                    await channel.declare_queue(name)
                    await channel.default_exchange.publish(Message(b"%d" % number), name)

            await asyncio.gather(*(publish(number) for number in range(30)))
            async with channels.acquire() as channel:
                found = await drain(await channel.declare_queue(name, passive=True))
            assert sorted(map(int, found)) == list(range(30))

    run(test)


def test_remote_procedure_calls(target: Target, names: Names) -> None:
    method = names.queue("rpc-method")
    names.exchanges.append(RPC.DLX_NAME)

    async def multiply(*, x: int, y: int) -> int:
        return x * y

    async def fail() -> None:
        raise ValueError("on purpose")

    async def test() -> None:
        async with await aio_pika.connect(target.url) as server, await aio_pika.connect(target.url) as client:
            serving = await RPC.create(await server.channel())
            calling = await RPC.create(await client.channel())
            await serving.register(method, multiply, auto_delete=True)
            failing = names.queue("rpc-failing")
            await serving.register(failing, fail, auto_delete=True)
            results = await asyncio.gather(*(calling.call(method, {"x": 6, "y": number}) for number in range(20)))
            assert results == [6 * number for number in range(20)]
            assert await getattr(calling.proxy, method)(x=2, y=3) == 6
            with pytest.raises(ValueError, match="on purpose"):
                await calling.call(failing)
            with pytest.raises(aio_pika.exceptions.MessageProcessError):  # returned: nobody serves it
                await calling.call("no-such-method")
            silent = await (await server.channel()).declare_queue(names.queue(), arguments={
                "x-dead-letter-exchange": RPC.DLX_NAME})
            with pytest.raises(asyncio.TimeoutError):  # expired, and found its way back by the headers exchange
                await asyncio.wait_for(calling.call(silent.name, expiration=1), DEADLINE)
            await serving.unregister(multiply)
            await calling.close()
            await serving.close()

    run(test)


@pytest.mark.parametrize("kind", [Master, JsonMaster])
def test_master_and_workers(target: Target, names: Names, kind: type[Master]) -> None:
    queue = names.queue("tasks")

    async def test() -> None:
        async with await aio_pika.connect(target.url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=4)
            master = kind(channel)
            done: list[tuple[str, int]] = []
            refusals: set[int] = set()

            def work(name: str) -> Any:
                async def task(*, number: int) -> None:
                    if number % 10 == 3 and number not in refusals:
                        refusals.add(number)
                        raise NackMessage(requeue=True)
                    if number % 10 == 7:
                        raise RejectMessage(requeue=False)
                    done.append((name, number))
                return task

            workers = [await master.create_worker(queue, work(name), auto_delete=True) for name in ("a", "b")]
            await asyncio.gather(*(master.create_task(queue, {"number": number}) for number in range(40)))
            await eventually(lambda: len(done) == 36, "the work")
            assert sorted(number for _, number in done) == [n for n in range(40) if n % 10 != 7]
            for worker in workers:
                await worker.close()

    run(test)


def test_blocked(alarm: Alarm) -> None:
    async def test() -> None:
        async with open_channel(alarm.target) as channel:
            queue = await channel.declare_queue("", exclusive=True)
            with alarm.raised():
                held = asyncio.create_task(channel.default_exchange.publish(Message(b"held"), queue.name))
                await asyncio.sleep(0.3)
                assert not held.done()
            await asyncio.wait_for(held, DEADLINE)
            assert await drain(queue) == [b"held"]

    run(test)
