"""pika's BlockingConnection: connecting, channels, exchanges, queues, publishing and consuming."""

from __future__ import annotations

import threading
import time
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    AMQPConnectionError,
    AMQPHeartbeatTimeout,
    AuthenticationError,
    ChannelWrongStateError,
    ConnectionClosedByBroker,
    ConnectionWrongStateError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    StreamLostError,
)
from pika.exchange_type import ExchangeType

from tests.conformance.pika_tools import bodies, get, parameters, refused
from tests.conformance.support import DEADLINE, Names, Proxy, Target, until

# Connecting


def test_what_the_broker_says_of_itself(connection: pika.BlockingConnection) -> None:
    assert connection.publisher_confirms_supported
    assert connection.basic_nack_supported
    assert connection.consumer_cancel_notify_supported
    assert connection.exchange_exchange_bindings_supported
    properties = connection._impl.server_properties
    assert {"product", "version", "platform", "capabilities"} <= properties.keys()
    assert all(properties["capabilities"][each] for each in (
        "connection.blocked", "authentication_failure_close", "consumer_priorities", "per_consumer_qos",
        "direct_reply_to"))


def test_url_parameters(target: Target) -> None:
    url = f"{target.url}%2F?heartbeat=30&channel_max=77&frame_max=8192&connection_attempts=2"
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        assert connection.is_open
        assert connection._impl.params.channel_max == 77
        assert connection._impl.params.frame_max == 8192
        assert connection._impl.params.heartbeat == 30
    assert connection.is_closed


def test_tuning_takes_the_lower_limit(target: Target) -> None:
    with pika.BlockingConnection(parameters(target, channel_max=5, frame_max=4096, locale="en_US",
                                            client_properties={"product": "conformance"})) as connection:
        channels = [connection.channel() for _ in range(5)]
        assert [int(each) for each in channels] == [1, 2, 3, 4, 5]
        with pytest.raises(pika.exceptions.NoFreeChannels):
            connection.channel()


def test_heartbeat_chosen_by_a_callable(target: Target) -> None:
    offered: list[int] = []

    def choose(_connection: object, server: int) -> int:
        offered.append(server)
        return 7

    with pika.BlockingConnection(parameters(target, heartbeat=choose)) as connection:
        assert connection._impl.params.heartbeat == 7
    assert len(offered) == 1


def test_the_first_address_that_answers_is_used(target: Target) -> None:
    nobody = parameters(target, port=1, connection_attempts=1)
    with pika.BlockingConnection([nobody, parameters(target)]) as connection:
        assert connection.channel().is_open


@pytest.mark.parametrize("user, password", [("guest", "wrong"), ("nobody-here", "guest"), ("", ""), ("guest", "")])
def test_a_refused_login(target: Target, user: str, password: str) -> None:
    credentials = pika.PlainCredentials(user, password)
    with pytest.raises(ProbableAuthenticationError, match="403"):
        pika.BlockingConnection(parameters(target, credentials=credentials))


def test_no_common_mechanism(target: Target) -> None:
    class Strange(pika.credentials.ExternalCredentials):
        TYPE = "STRANGE"

    pika.credentials.VALID_TYPES.append(Strange)
    try:
        with pytest.raises(AuthenticationError):
            pika.BlockingConnection(parameters(target, credentials=Strange()))
    finally:
        pika.credentials.VALID_TYPES.remove(Strange)


def test_an_unknown_virtual_host(target: Target) -> None:
    with pytest.raises((ConnectionClosedByBroker, ProbableAccessDeniedError)) as error:
        pika.BlockingConnection(parameters(target, virtual_host="no-such-host"))
    assert "530" in repr(error.value) and "no-such-host" in repr(error.value)


def test_nobody_listens(target: Target) -> None:
    with pytest.raises(AMQPConnectionError):
        pika.BlockingConnection(parameters(target, port=1))


def test_closing_twice_is_the_users_mistake(target: Target) -> None:
    connection = pika.BlockingConnection(parameters(target))
    connection.close(200, "enough")
    with pytest.raises(ConnectionWrongStateError):
        connection.close()
    with pytest.raises(ConnectionWrongStateError):
        connection.channel()


def test_a_new_secret(connection: pika.BlockingConnection) -> None:
    connection.update_secret("guest", "rotation")
    assert connection.channel().is_open


def test_heartbeats_keep_a_silent_connection(target: Target) -> None:
    with pika.BlockingConnection(parameters(target, heartbeat=1)) as connection:
        connection.sleep(3.2)  # more than the two intervals after which either side gives up
        assert connection.channel().is_open


def test_a_client_without_a_pulse_is_dropped(target: Target) -> None:
    connection = pika.BlockingConnection(parameters(target, heartbeat=1))
    time.sleep(4)  # the client library sends nothing now
    with pytest.raises((StreamLostError, ConnectionClosedByBroker, AMQPHeartbeatTimeout)):
        until(lambda: connection.process_data_events(0.1), "the end of the connection")


def test_reconnecting_after_the_network_broke(proxy: Proxy, names: Names) -> None:
    """The documented recipe: an outer loop that connects again; what was not acknowledged comes again."""
    queue = names.queue()
    received = []
    connections = 0
    while len(received) < 3:
        connections += 1
        connection = pika.BlockingConnection(parameters(proxy.outside))
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        channel.confirm_delivery()
        if connections == 1:
            for number in range(3):
                channel.basic_publish("", queue, str(number).encode())
        try:
            for method, _, body in channel.consume(queue, inactivity_timeout=DEADLINE):
                received.append((body, method.redelivered))
                if connections == 1:
                    proxy.cut()
                    connection.process_data_events(DEADLINE)
                channel.basic_ack(method.delivery_tag)
                if body == b"2":
                    break
            connection.close()
        except StreamLostError:
            received.pop()
    assert connections == 2
    assert received == [(b"0", True), (b"1", True), (b"2", True)]


def test_timers_and_callbacks_from_other_threads(connection: pika.BlockingConnection, names: Names) -> None:
    channel = connection.channel()
    queue = names.queue()
    channel.queue_declare(queue)
    fired: list[str] = []
    connection.call_later(0, lambda: fired.append("timer"))
    connection.remove_timeout(connection.call_later(0, lambda: fired.append("removed")))

    def publish() -> None:
        channel.basic_publish("", queue, b"from a thread")
        fired.append("thread")

    thread = threading.Thread(target=lambda: connection.add_callback_threadsafe(publish))
    thread.start()
    until(lambda: connection.process_data_events(0.05) or len(fired) == 2, "both callbacks")
    thread.join()
    assert sorted(fired) == ["thread", "timer"]
    assert get(channel, queue)[2] == b"from a thread"


# Channels


def test_many_channels(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channels = [connection.channel() for _ in range(200)]
    channels[0].queue_declare(queue)
    for channel in channels:
        channel.basic_publish("", queue, str(int(channel)).encode())
    assert sorted(int(get(channel, queue)[2]) for channel in channels) == list(range(1, 201))


def test_a_channel_number_of_ones_own_and_again(connection: pika.BlockingConnection) -> None:
    for _ in range(2):
        with connection.channel(1234) as channel:
            assert channel.channel_number == 1234 and channel.connection is connection
        assert channel.is_closed


def test_a_closed_channel_leaves_the_others(connection: pika.BlockingConnection) -> None:
    first, second = connection.channel(), connection.channel()
    text = refused(404, first.queue_declare, "no-such-queue", passive=True)
    assert text == "NOT_FOUND - no queue 'no-such-queue' in vhost '/'"
    with pytest.raises(ChannelWrongStateError):
        first.queue_declare("never-declared")
    second.queue_delete("no-such-queue")
    with pytest.raises(ChannelWrongStateError):
        first.close()


def test_flow(channel: BlockingChannel) -> None:
    assert channel.flow(True) is True


# Exchanges


@pytest.mark.parametrize("kind", list(ExchangeType))
@pytest.mark.parametrize("durable, auto_delete, internal", [
    (False, False, False), (True, False, False), (False, True, False), (True, True, True)])
def test_exchange_options(connection: pika.BlockingConnection, names: Names, kind: ExchangeType, durable: bool,
                          auto_delete: bool, internal: bool) -> None:
    exchange = names.exchange()
    channel = connection.channel()
    options = {"durable": durable, "auto_delete": auto_delete, "internal": internal}
    channel.exchange_declare(exchange, kind, **options)
    channel.exchange_declare(exchange, kind, **options)
    channel.exchange_declare(exchange, passive=True)
    other = ExchangeType.topic if kind is not ExchangeType.topic else ExchangeType.fanout
    refused(406, channel.exchange_declare, exchange, other, **options)
    for option, value in options.items():
        text = refused(406, connection.channel().exchange_declare, exchange, kind, **{**options, option: not value})
        assert text.startswith(f"PRECONDITION_FAILED - inequivalent arg '{option}' for exchange '{exchange}'")


def test_a_direct_exchange(channel: BlockingChannel, names: Names) -> None:
    exchange, one, two = names.exchange(), names.queue(), names.queue()
    channel.exchange_declare(exchange, ExchangeType.direct)
    for queue in (one, two):
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, "both")
    channel.queue_bind(one, exchange, "only")
    channel.queue_bind(one, exchange, "both", arguments={"a": 1})  # another binding, but a queue gets a message once
    for key in ("both", "only", "none", ""):
        channel.basic_publish(exchange, key, key.encode())
    assert bodies(channel, one) == [b"both", b"only"]
    assert bodies(channel, two) == [b"both"]
    channel.queue_unbind(one, exchange, "only")
    channel.queue_unbind(one, exchange, "only")  # what is not there may be unbound
    channel.basic_publish(exchange, "only", b"lost")
    assert bodies(channel, one) == []


def test_a_fanout_exchange(channel: BlockingChannel, names: Names) -> None:
    exchange, queues = names.exchange(), [names.queue() for _ in range(10)]
    channel.exchange_declare(exchange, "fanout")
    for queue in queues:
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, f"ignored-{queue}")
    channel.basic_publish(exchange, "whatever", b"all")
    assert [bodies(channel, queue) for queue in queues] == [[b"all"]] * 10


@pytest.mark.parametrize("pattern, matching, other", [
    ("a.b.c", ["a.b.c"], ["a.b", "a.b.c.d", "a.B.c"]),
    ("a.*.c", ["a.b.c", "a..c"], ["a.c", "a.b.b.c"]),
    ("*", ["a"], ["a.b"]),
    ("#", ["", "a", "a.b.c"], []),
    ("a.#", ["a", "a.b", "a.b.c"], ["b.a", "ab"]),
    ("#.z", ["z", "a.z", "a.b.z"], ["z.a"]),
    ("a.#.z", ["a.z", "a.b.z", "a.b.c.z"], ["a", "z"]),
    ("#.b.#", ["b", "a.b", "b.c", "a.b.c"], ["a", "bb"]),
    ("*.#", ["a", "a.b"], []),
    ("*.*.#", ["a.b", "a.b.c"], ["a"]),
    ("a*", ["a*"], ["ab"]),
])
def test_a_topic_exchange(channel: BlockingChannel, names: Names, pattern: str, matching: list[str],
                          other: list[str]) -> None:
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, pattern)
    for key in other + matching:
        channel.basic_publish(exchange, key, key.encode())
    assert bodies(channel, queue) == [key.encode() for key in matching]


@pytest.mark.parametrize("match, headers, expected", [
    ("all", {"a": 1, "b": "x"}, True),
    ("all", {"a": 1, "b": "x", "c": 2}, True),
    ("all", {"a": 1}, False),
    ("all", {"a": 2, "b": "x"}, False),
    ("any", {"a": 1}, True),
    ("any", {"b": "x", "a": 5}, True),
    ("any", {"a": "1"}, False),
    ("any", {}, False),
    ("any", None, False),
])
def test_a_headers_exchange(channel: BlockingChannel, names: Names, match: str, headers: dict[str, Any] | None,
                            expected: bool) -> None:
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "headers")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "", arguments={"x-match": match, "a": 1, "b": "x", "x-not-compared": 9})
    channel.basic_publish(exchange, "", b"it", pika.BasicProperties(headers=headers))
    assert bodies(channel, queue) == ([b"it"] if expected else [])


def test_a_headers_binding_without_a_value_asks_for_presence(channel: BlockingChannel, names: Names) -> None:
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "headers")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "", arguments={"present": None})
    for number, headers in enumerate([{"present": 1}, {"absent": 1}, {"present": "x"}]):
        channel.basic_publish(exchange, "", b"%d" % number, pika.BasicProperties(headers=headers))
    assert bodies(channel, queue) == [b"0", b"2"]


def test_the_default_exchange(connection: pika.BlockingConnection, names: Names) -> None:
    queue = names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    channel.basic_publish("", queue, b"by name")
    assert bodies(channel, queue) == [b"by name"]
    for call in (lambda: connection.channel().queue_bind(queue, "", queue),
                 lambda: connection.channel().queue_unbind(queue, "", queue),
                 lambda: connection.channel().exchange_declare("", "direct", durable=True),
                 lambda: connection.channel().exchange_delete("")):
        refused(403, call)


@pytest.mark.parametrize("name, kind", [("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.topic", "topic"),
                                        ("amq.headers", "headers"), ("amq.match", "headers")])
def test_predeclared_exchanges(connection: pika.BlockingConnection, names: Names, name: str, kind: str) -> None:
    channel = connection.channel()
    channel.exchange_declare(name, kind, durable=True)
    queue = names.queue()
    channel.queue_declare(queue)
    channel.queue_bind(queue, name, queue, arguments={"only": queue})
    channel.basic_publish(name, queue, b"hello", pika.BasicProperties(headers={"only": queue}))
    assert bodies(channel, queue) == [b"hello"]
    refused(403, channel.exchange_delete, name)
    refused(403, connection.channel().exchange_declare, "amq.mine", kind)
    refused(403, connection.channel().queue_declare, "amq.mine")


def test_exchange_to_exchange(channel: BlockingChannel, names: Names) -> None:
    source, middle, end, queue = names.exchange(), names.exchange(), names.exchange(), names.queue()
    channel.exchange_declare(source, "topic")
    channel.exchange_declare(middle, "fanout", internal=True)
    channel.exchange_declare(end, "direct")
    channel.exchange_bind(middle, source, "a.#", arguments={"some": "thing"})
    channel.exchange_bind(end, middle)
    channel.exchange_bind(source, end, "a.x")  # a circle, which must not go round for ever
    channel.queue_declare(queue)
    channel.queue_bind(queue, end, "a.x")
    channel.queue_bind(queue, source, "a.x")
    channel.basic_publish(source, "a.x", b"once")
    channel.basic_publish(source, "a.y", b"no")
    assert bodies(channel, queue) == [b"once"]
    channel.queue_unbind(queue, source, "a.x")
    channel.exchange_unbind(middle, source, "a.#", arguments={"some": "thing"})
    channel.basic_publish(source, "a.x", b"no")
    assert bodies(channel, queue) == []
    refused(403, lambda: (channel.basic_publish(middle, "", b"to an internal one"), channel.queue_declare(queue)))


def test_an_alternate_exchange(channel: BlockingChannel, names: Names) -> None:
    main, alternate, known, rest = names.exchange(), names.exchange(), names.queue(), names.queue()
    channel.exchange_declare(alternate, "fanout")
    channel.exchange_declare(main, "direct", arguments={"alternate-exchange": alternate})
    for queue in (known, rest):
        channel.queue_declare(queue)
    channel.queue_bind(known, main, "known")
    channel.queue_bind(rest, alternate)
    channel.confirm_delivery()
    channel.basic_publish(main, "known", b"known", mandatory=True)
    channel.basic_publish(main, "unknown", b"unknown", mandatory=True)
    assert (bodies(channel, known), bodies(channel, rest)) == ([b"known"], [b"unknown"])


def test_deleting_exchanges(connection: pika.BlockingConnection, names: Names) -> None:
    channel = connection.channel()
    exchange, fleeting, queue = names.exchange(), names.exchange(), names.queue()
    channel.exchange_declare(exchange, "fanout")
    channel.exchange_declare(fleeting, "fanout", auto_delete=True)
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange)
    channel.queue_bind(queue, fleeting)
    refused(406, connection.channel().exchange_delete, exchange, if_unused=True)
    channel.queue_unbind(queue, exchange)
    channel.queue_unbind(queue, fleeting)
    channel.exchange_delete(exchange, if_unused=True)
    channel.exchange_delete(exchange)
    for gone in (exchange, fleeting):
        assert "no exchange" in refused(404, connection.channel().exchange_declare, gone, passive=True)
    refused(404, lambda: (channel.basic_publish(exchange, "", b""), channel.queue_declare(queue)))


def test_an_unknown_exchange_type_ends_the_connection(connection: pika.BlockingConnection, names: Names) -> None:
    with pytest.raises(ConnectionClosedByBroker) as error:
        connection.channel().exchange_declare(names.exchange(), "no-such-type")
    assert error.value.reply_code == 503


def test_consistent_hashing(channel: BlockingChannel, names: Names) -> None:
    exchange, queues = names.exchange(), [names.queue() for _ in range(4)]
    channel.exchange_declare(exchange, "x-consistent-hash")
    for queue in queues:
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, "10")
    for _ in range(2):
        for number in range(100):
            channel.basic_publish(exchange, f"key-{number}", b"%d" % number)
    found = [bodies(channel, queue) for queue in queues]
    assert sum(map(len, found)) == 200
    assert all(found)
    assert all(each[:len(each) // 2] == each[len(each) // 2:] for each in found)  # the same key, the same queue


def test_a_random_exchange(channel: BlockingChannel, names: Names, started: tuple[Target, Any]) -> None:
    if started[1] is None:
        pytest.skip("the peer was not started by us: RabbitMQ's plugin for x-random may not be there")
    exchange, queues = names.exchange(), [names.queue() for _ in range(2)]
    channel.exchange_declare(exchange, "x-random")
    for queue in queues:
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, "ignored")
    for number in range(100):
        channel.basic_publish(exchange, "any", b"%d" % number)
    found = [bodies(channel, queue) for queue in queues]
    assert sorted(int(each) for each in found[0] + found[1]) == list(range(100))
    assert all(found)


def test_a_delayed_message(channel: BlockingChannel, names: Names, target: Target) -> None:
    if target.peer:
        pytest.skip("RabbitMQ's plugin for x-delayed-message is not part of it")
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "x-delayed-message", arguments={"x-delayed-type": "topic"})
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "k.*")
    for delay in (400, 200, 0):
        channel.basic_publish(exchange, "k.1", b"%d" % delay, pika.BasicProperties(headers={"x-delay": delay}))
    assert [get(channel, queue)[2] for _ in range(3)] == [b"0", b"200", b"400"]
