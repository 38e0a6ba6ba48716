"""pika's callback API, by its AsyncioConnection and its SelectConnection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import (
    ChannelClosedByBroker,
    ChannelClosedByClient,
    ConnectionClosedByClient,
    ProbableAuthenticationError,
    StreamLostError,
)

from tests.conformance.pika_tools import parameters
from tests.conformance.support import DEADLINE, LARGE_BODY, Names, Proxy, Target, run


async def call(method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a method that answers by a callback, and wait for that."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    method(*arguments, callback=lambda result=None: answer.set_result(result), **options)
    return await asyncio.wait_for(answer, DEADLINE)


class Connected:
    """An AsyncioConnection and how it ended, for `async with`."""

    def __init__(self, settings: pika.ConnectionParameters) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Any] = loop.create_future()
        self.closed: asyncio.Future[BaseException] = loop.create_future()
        self.connection = AsyncioConnection(
            settings, on_open_callback=self.opened.set_result,
            on_open_error_callback=lambda _, error: self.opened.set_exception(error),
            on_close_callback=lambda _, error: self.closed.set_result(error))

    async def __aenter__(self) -> Connected:
        await asyncio.wait_for(self.opened, DEADLINE)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.connection.is_open:
            self.connection.close()
            assert isinstance(await self.closed, ConnectionClosedByClient)
        else:
            await self.closed

    async def channel(self) -> Channel:
        opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self.connection.channel(on_open_callback=opened.set_result)
        return await asyncio.wait_for(opened, DEADLINE)


def closing(channel: Channel) -> asyncio.Future[BaseException]:
    """Why the channel closed, when it has."""
    reason: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    channel.add_on_close_callback(lambda _, error: reason.set_result(error))
    return reason


def test_a_refused_login(target: Target) -> None:
    async def test() -> None:
        settings = parameters(target, credentials=pika.PlainCredentials("guest", "wrong"))
        connected = Connected(settings)
        with pytest.raises(pika.exceptions.AMQPConnectionError) as error:
            await asyncio.wait_for(connected.opened, DEADLINE)
        assert isinstance(error.value, ProbableAuthenticationError)

    run(test)


def test_declaring_binding_publishing_getting(target: Target, names: Names) -> None:
    exchange, other, queue = names.exchange(), names.exchange(), names.queue()

    async def test() -> None:
        async with Connected(parameters(target)) as connected:
            channel = await connected.channel()
            for name, kind in ((exchange, "topic"), (other, "fanout")):
                answer = await call(channel.exchange_declare, name, kind, durable=True, auto_delete=False)
                assert isinstance(answer.method, pika.spec.Exchange.DeclareOk)
            answer = await call(channel.queue_declare, queue, durable=True, arguments={"x-max-length": 100})
            assert answer.method.queue == queue
            await call(channel.queue_bind, queue, exchange, "a.#")
            await call(channel.exchange_bind, exchange, other, "")
            channel.basic_publish(other, "a.b", LARGE_BODY, pika.BasicProperties(headers={"n": 1}))
            got: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
            channel.basic_get(queue, lambda *parts: got.set_result(parts), auto_ack=True)
            _, method, properties, body = await asyncio.wait_for(got, DEADLINE)
            assert (method.exchange, method.routing_key, properties.headers, body) == (other, "a.b", {"n": 1},
                                                                                       LARGE_BODY)
            await call(channel.exchange_unbind, exchange, other, "")
            await call(channel.queue_unbind, queue, exchange, "a.#")
            assert (await call(channel.queue_purge, queue)).method.message_count == 0
            assert (await call(channel.queue_delete, queue, if_unused=True, if_empty=True)).method.message_count == 0
            await call(channel.exchange_delete, exchange, if_unused=True)
            await call(channel.exchange_delete, other)
            await call(channel.flow, True)

    run(test)


def test_requests_without_waiting_keep_their_order(target: Target, names: Names) -> None:
    """Without callbacks the client sends nowait requests; their effects are seen in order."""
    exchange, queue = names.exchange(), names.queue()

    async def test() -> None:
        async with Connected(parameters(target)) as connected:
            channel = await connected.channel()
            channel.exchange_declare(exchange, "direct")
            channel.queue_declare(queue)
            channel.queue_bind(queue, exchange, "k")
            channel.basic_publish(exchange, "k", b"1")
            channel.queue_unbind(queue, exchange, "k")
            await call(channel.queue_declare, queue, passive=True)
            channel.basic_publish(exchange, "k", b"2")
            received: asyncio.Queue[bytes] = asyncio.Queue()
            channel.basic_consume(queue, lambda _c, _m, _p, body: received.put_nowait(body), auto_ack=True)
            assert await received.get() == b"1"
            channel.queue_purge(queue)
            channel.queue_delete(queue)
            channel.exchange_delete(exchange)
            reason = closing(channel)
            channel.queue_declare(queue, passive=True, callback=lambda _: None)
            error = await asyncio.wait_for(reason, DEADLINE)
            assert isinstance(error, ChannelClosedByBroker) and error.reply_code == 404
            assert received.empty()

    run(test)


def test_consuming_with_acknowledgements(target: Target, names: Names) -> None:
    queue = names.queue()

    async def test() -> None:
        async with Connected(parameters(target)) as connected:
            channel = await connected.channel()
            await call(channel.queue_declare, queue)
            await call(channel.basic_qos, prefetch_count=2)
            received: asyncio.Queue[tuple[Any, bytes]] = asyncio.Queue()
            tag = channel.basic_consume(queue, lambda _c, method, _p, body: received.put_nowait((method, body)),
                                        consumer_tag="mine", arguments={"x-priority": 1})
            assert tag == "mine"
            for number in range(6):
                channel.basic_publish("", queue, b"%d" % number)
            seen = []
            for _ in range(7):
                method, body = await asyncio.wait_for(received.get(), DEADLINE)
                seen.append((body, method.redelivered))
                if len(seen) == 1:
                    channel.basic_nack(method.delivery_tag, requeue=True)
                elif len(seen) == 3:
                    channel.basic_reject(method.delivery_tag, requeue=False)
                else:
                    channel.basic_ack(method.delivery_tag)
            assert sorted(body for body, _ in seen) == [b"0", b"0", b"1", b"2", b"3", b"4", b"5"]
            assert [body for body, redelivered in seen if redelivered] == [b"0"]
            assert isinstance((await call(channel.basic_cancel, "mine")).method, pika.spec.Basic.CancelOk)
            await call(channel.basic_recover, True)
            reason = closing(channel)
            channel.close(200, "done")
            assert isinstance(await asyncio.wait_for(reason, DEADLINE), ChannelClosedByClient)

    run(test)


def test_confirms_by_callback(target: Target, names: Names) -> None:
    queue = names.queue()

    async def test() -> None:
        async with Connected(parameters(target)) as connected:
            channel = await connected.channel()
            await call(channel.queue_declare, queue, durable=True,
                       arguments={"x-max-length": 95, "x-overflow": "reject-publish"})
            outcome: dict[str, set[int]] = {"Ack": set(), "Nack": set()}
            all_told = asyncio.Event()

            def on_confirm(frame: Any) -> None:
                method = frame.method
                known = outcome["Ack"] | outcome["Nack"]
                tags = set(range(1, method.delivery_tag + 1)) - known if method.multiple else {method.delivery_tag}
                assert not tags & known
                outcome[type(method).__name__] |= tags
                if len(known | tags) == 101:
                    all_told.set()

            returned: list[bytes] = []
            channel.add_on_return_callback(lambda _c, _m, _p, body: returned.append(body))
            await call(lambda **options: channel.confirm_delivery(on_confirm, **options))
            channel.basic_publish("", "no-such-queue", b"back", mandatory=True)
            for number in range(100):
                channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=1 + number % 2))
            await asyncio.wait_for(all_told.wait(), DEADLINE)
            assert (outcome["Nack"], returned) == (set(range(97, 102)), [b"back"])

    run(test)


def test_transactions(target: Target, names: Names) -> None:
    queue = names.queue()

    async def test() -> None:
        async with Connected(parameters(target)) as connected:
            channel = await connected.channel()
            await call(channel.queue_declare, queue)
            await call(channel.tx_select)
            channel.basic_publish("", queue, b"no")
            await call(channel.tx_rollback)
            channel.basic_publish("", queue, b"yes")
            await call(channel.tx_commit)
            assert (await call(channel.queue_purge, queue)).method.message_count == 1

    run(test)


def test_cancelled_by_the_broker(target: Target, names: Names) -> None:
    queue = names.queue()

    async def test() -> None:
        async with Connected(parameters(target)) as connected:
            channel = await connected.channel()
            await call(channel.queue_declare, queue)
            cancelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            channel.add_on_cancel_callback(lambda frame: cancelled.set_result(frame.method.consumer_tag))
            tag = channel.basic_consume(queue, lambda *_: None)
            other = await connected.channel()
            await call(other.queue_delete, queue)
            assert await asyncio.wait_for(cancelled, DEADLINE) == tag
            assert channel.consumer_tags == []

    run(test)


def test_a_lost_network_is_told(proxy: Proxy) -> None:
    async def test() -> None:
        async with Connected(parameters(proxy.outside)) as connected:
            channel = await connected.channel()
            reason = closing(channel)
            proxy.cut()
            assert isinstance(await asyncio.wait_for(connected.closed, DEADLINE), StreamLostError)
            assert isinstance(await reason, StreamLostError)

    run(test)


def test_a_new_secret(target: Target) -> None:
    async def test() -> None:
        async with Connected(parameters(target)) as connected:
            answer = await call(connected.connection.update_secret, "guest", "rotation")
            assert isinstance(answer.method, pika.spec.Connection.UpdateSecretOk)

    run(test)


@pytest.mark.parametrize("count", [1, 64])
def test_a_select_connection(target: Target, names: Names, count: int) -> None:
    """The documented shape of a SelectConnection program: a chain of callbacks, ended by the last delivery."""
    queue = names.queue()
    received: list[tuple[int, bytes]] = []
    ends: list[BaseException] = []

    def on_open(connection: Any) -> None:
        for _ in range(count):
            connection.channel(on_open_callback=on_channel)

    def on_channel(channel: Channel) -> None:
        channel.queue_declare(queue, callback=lambda _: on_queue(channel))

    def on_queue(channel: Channel) -> None:
        channel.basic_consume(queue, on_message, exclusive=False)
        channel.basic_publish("", queue, b"%d" % channel.channel_number)

    def on_message(channel: Channel, method: Any, _properties: Any, body: bytes) -> None:
        channel.basic_ack(method.delivery_tag)
        received.append((channel.channel_number, body))
        if len(received) == count:
            channel.connection.close()

    def on_close(connection: Any, error: BaseException) -> None:
        ends.append(error)
        connection.ioloop.stop()

    connection = pika.SelectConnection(parameters(target), on_open_callback=on_open, on_close_callback=on_close)
    connection.ioloop.call_later(DEADLINE, connection.ioloop.stop)
    connection.ioloop.start()
    connection.ioloop.close()
    assert sorted(int(body) for _, body in received) == list(range(1, count + 1))
    assert [type(each) for each in ends] == [ConnectionClosedByClient]


def test_a_select_connection_that_is_refused(target: Target) -> None:
    errors: list[BaseException] = []

    def on_error(connection: Any, error: BaseException) -> None:
        errors.append(error)
        connection.ioloop.stop()

    settings = parameters(target, credentials=pika.PlainCredentials("guest", "wrong"))
    connection = pika.SelectConnection(settings, on_open_error_callback=on_error)
    connection.ioloop.call_later(DEADLINE, connection.ioloop.stop)
    connection.ioloop.start()
    connection.ioloop.close()
    assert [type(each) for each in errors] == [ProbableAuthenticationError]
