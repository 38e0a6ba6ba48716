"""pika's BlockingConnection: queues, and a broker short of memory or restarted."""

from __future__ import annotations

import threading
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from tests.conformance.conftest import Alarm, Phoenix
from tests.conformance.pika_tools import bodies, get, parameters, refused
from tests.conformance.support import DEADLINE, LARGE_BODY, Names, Target, until


@pytest.mark.parametrize("durable, exclusive, auto_delete", [
    (False, False, False), (True, False, False), (False, True, False), (False, False, True), (True, True, True)])
def test_queue_options(connection: pika.BlockingConnection, names: Names, durable: bool, exclusive: bool,
                       auto_delete: bool) -> None:
    queue = names.queue()
    channel = connection.channel()
    options = {"durable": durable, "exclusive": exclusive, "auto_delete": auto_delete}
    answer = channel.queue_declare(queue, **options)
    assert (answer.method.queue, answer.method.message_count, answer.method.consumer_count) == (queue, 0, 0)
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"1")
    channel.basic_publish("", queue, b"2")
    assert channel.queue_declare(queue, **options).method.message_count == 2
    channel.basic_consume(queue, lambda *_: None)
    assert channel.queue_declare(queue, passive=True).method.consumer_count == 1
    if exclusive:
        channel.queue_declare(queue, **{**options, "durable": not durable})  # it never is, whatever is asked for
    for option in ("auto_delete",) if exclusive else ("durable", "auto_delete"):
        text = refused(406, connection.channel().queue_declare, queue, **{**options, option: not options[option]})
        assert text.startswith(f"PRECONDITION_FAILED - inequivalent arg '{option}' for queue '{queue}'")


@pytest.mark.parametrize("arguments", [
    {"x-expires": 600_000}, {"x-message-ttl": 0}, {"x-max-length": 5}, {"x-max-length-bytes": 1000},
    {"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}, {"x-overflow": "reject-publish-dlx"},
    {"x-dead-letter-exchange": "nowhere", "x-dead-letter-routing-key": "key"}, {"x-max-priority": 10},
    {"x-single-active-consumer": True}, {"x-queue-type": "classic"}, {"x-queue-mode": "lazy"},
    {"x-unheard-of": "accepted"},
], ids=lambda arguments: next(iter(arguments)))
def test_queue_arguments(connection: pika.BlockingConnection, names: Names, arguments: dict[str, Any]) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, arguments=arguments)
    channel.queue_declare(queue, arguments=arguments)
    channel.queue_declare(queue, passive=True)
    if "x-unheard-of" not in arguments and arguments != {"x-queue-type": "classic"}:
        assert "inequivalent arg 'x-" in refused(406, channel.queue_declare, queue)


@pytest.mark.parametrize("arguments", [
    {"x-expires": 0}, {"x-expires": "soon"}, {"x-message-ttl": -1}, {"x-message-ttl": "10"}, {"x-max-length": -5},
    {"x-max-length-bytes": "many"}, {"x-overflow": "explode"}, {"x-dead-letter-exchange": 7},
    {"x-dead-letter-routing-key": "without-exchange"}, {"x-max-priority": -1}, {"x-max-priority": "high"},
    {"x-single-active-consumer": "yes"}, {"x-queue-type": "heap"},
], ids=str)
def test_queue_arguments_that_make_no_sense(channel: BlockingChannel, names: Names, arguments: dict[str, Any]) -> None:
    text = refused(406, channel.queue_declare, names.queue(), arguments=arguments)
    assert next(iter(arguments)) in text


def test_a_quorum_queue_by_name(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"poison")
    counts = []
    for method, properties, _ in channel.consume(queue, inactivity_timeout=2):
        if method is None:
            break
        counts.append((properties.headers or {}).get("x-delivery-count"))
        channel.basic_nack(method.delivery_tag, requeue=True)
    channel.cancel()
    assert counts in ([None, 1, 2], [0, 1, 2])
    assert bodies(channel, queue) == []
    refused(406, channel.queue_declare, names.queue(), durable=False, arguments=arguments)


def test_names_by_the_server(channel: BlockingChannel) -> None:
    first = channel.queue_declare("", exclusive=True).method.queue
    second = channel.queue_declare("", exclusive=True).method.queue
    assert first.startswith("amq.gen-") and second.startswith("amq.gen-") and first != second
    channel.basic_publish("", second, b"the current queue is the last one")
    assert bodies(channel, "") == [b"the current queue is the last one"]
    channel.queue_bind("", "amq.fanout")
    channel.queue_purge("")
    channel.queue_delete("")
    refused(404, channel.queue_declare, second, passive=True)


def test_no_current_queue(channel: BlockingChannel) -> None:
    refused(404, channel.queue_purge, "")


def test_an_exclusive_queue_is_its_connections_own(target: Target, connection: pika.BlockingConnection,
                                                   names: Names) -> None:
    queue = names.queue()
    with pika.BlockingConnection(parameters(target)) as owner:
        owner.channel().queue_declare(queue, exclusive=True)
        owner.channel().queue_declare(queue, passive=True)
        for call in (lambda c: c.queue_declare(queue, passive=True), lambda c: c.queue_declare(queue, exclusive=True),
                     lambda c: c.basic_get(queue), lambda c: c.basic_consume(queue, lambda *_: None),
                     lambda c: c.queue_purge(queue), lambda c: c.queue_delete(queue)):
            text = refused(405, call, connection.channel())
            assert text.startswith(f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}'")
    channel = connection.channel()
    refused(404, channel.queue_declare, queue, passive=True)


def test_an_auto_delete_queue_goes_with_its_last_consumer(channel: BlockingChannel, names: Names) -> None:
    queue = names.queue()
    channel.queue_declare(queue, auto_delete=True)
    tags = [channel.basic_consume(queue, lambda *_: None) for _ in range(2)]
    channel.basic_cancel(tags[0])
    channel.queue_declare(queue, passive=True)
    channel.basic_cancel(tags[1])
    refused(404, channel.queue_declare, queue, passive=True)


def test_a_queue_expires(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, arguments={"x-expires": 300})

    def gone() -> bool:
        connection.sleep(0.4)  # asking is a use: the queue must be left alone to expire
        try:
            channel.queue_declare(queue, passive=True)
        except ChannelClosedByBroker as error:
            return error.reply_code == 404
        return False

    until(gone, "the queue's expiry")


def test_purge_and_delete(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    channel.confirm_delivery()
    for _ in range(5):
        channel.basic_publish("", queue, b"x")
    channel.basic_get(queue)  # not acknowledged: neither ready nor purged
    assert channel.queue_purge(queue).method.message_count == 4
    channel.basic_publish("", queue, b"x")
    refused(406, connection.channel().queue_delete, queue, if_empty=True)
    tag = channel.basic_consume(queue, lambda *_: None)
    refused(406, connection.channel().queue_delete, queue, if_unused=True)
    channel.basic_cancel(tag)
    channel.basic_recover(True)
    assert channel.queue_delete(queue).method.message_count == 2
    assert channel.queue_delete(queue).method.message_count == 0  # a missing queue may be deleted
    refused(404, connection.channel().queue_purge, queue)
    refused(404, connection.channel().queue_bind, queue, "amq.direct")
    refused(404, channel.queue_declare, queue, passive=True)


# The broker's own troubles


def test_blocked_and_unblocked(alarm: Alarm) -> None:
    with pika.BlockingConnection(parameters(alarm.target)) as connection:
        events: list[str] = []
        connection.add_on_connection_blocked_callback(lambda *_: events.append("blocked"))
        connection.add_on_connection_unblocked_callback(lambda *_: events.append("unblocked"))
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        with alarm.raised():
            channel.basic_publish("", queue, b"held")
            until(lambda: connection.process_data_events(0.05) or events, "connection.blocked")
            assert events == ["blocked"]
        until(lambda: connection.process_data_events(0.05) or len(events) > 1, "connection.unblocked")
        assert events == ["blocked", "unblocked"]
        assert get(channel, queue)[2] == b"held"


def test_blocked_for_too_long(alarm: Alarm) -> None:
    connection = pika.BlockingConnection(parameters(alarm.target, blocked_connection_timeout=0.5))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    with alarm.raised():
        channel.basic_publish("", queue, b"held")
        with pytest.raises(pika.exceptions.ConnectionBlockedTimeout):
            until(lambda: connection.process_data_events(0.05), "the timeout")


def test_a_restart_keeps_what_is_durable(phoenix: Phoenix) -> None:
    connection = pika.BlockingConnection(parameters(phoenix.proxy.outside))
    names = Names(phoenix.proxy.outside)
    exchange, queue, other, fleeting = names.exchange(), names.queue(), names.queue(), names.queue()
    channel = connection.channel()
    channel.exchange_declare(exchange, "topic", durable=True)
    channel.queue_declare(queue, durable=True)
    channel.queue_declare(other, durable=True)
    channel.queue_declare(fleeting)
    channel.queue_bind(queue, exchange, "a.*")
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2, headers={"n": 1}, message_id="kept")
    channel.basic_publish(exchange, "a.1", LARGE_BODY, properties, mandatory=True)
    channel.basic_publish(exchange, "a.2", b"transient", mandatory=True)
    channel.basic_publish("", other, b"also", properties, mandatory=True)
    phoenix.restart()
    with pytest.raises((pika.exceptions.AMQPConnectionError, ChannelClosedByBroker)):
        until(lambda: connection.process_data_events(0.1), "the end of the connection")
    with pika.BlockingConnection(parameters(phoenix.proxy.outside)) as connection:
        channel = connection.channel()
        method, received, body = get(channel, queue)
        assert (body, method.exchange, method.routing_key, received) == (LARGE_BODY, exchange, "a.1", properties)
        assert channel.basic_get(queue)[0] is None
        assert get(channel, other)[2] == b"also"
        channel.basic_publish(exchange, "a.3", b"the binding is there")
        assert get(channel, queue)[2] == b"the binding is there"
        refused(404, channel.queue_declare, fleeting, passive=True)
    names.clean()


def test_consuming_while_others_publish(target: Target, names: Names) -> None:
    """Several connections in several threads: nothing lost, nothing twice, each publisher's order kept."""
    queue = names.queue()
    with pika.BlockingConnection(parameters(target)) as connection:
        channel = connection.channel()
        channel.queue_declare(queue)
        channel.basic_qos(prefetch_count=50)

        def publish(publisher: int) -> None:
            with pika.BlockingConnection(parameters(target)) as own:
                own_channel = own.channel()
                for number in range(300):
                    own_channel.basic_publish("", queue, b"%d/%d" % (publisher, number))

        threads = [threading.Thread(target=publish, args=(each,)) for each in range(4)]
        for thread in threads:
            thread.start()
        received: dict[int, list[int]] = {each: [] for each in range(4)}
        for method, _, body in channel.consume(queue, inactivity_timeout=DEADLINE):
            publisher, number = map(int, body.split(b"/"))
            received[publisher].append(number)
            channel.basic_ack(method.delivery_tag)
            if sum(map(len, received.values())) == 1200:
                break
        for thread in threads:
            thread.join()
        channel.cancel()
        assert received == {each: list(range(300)) for each in range(4)}
        assert channel.queue_declare(queue, passive=True).method.message_count == 0
