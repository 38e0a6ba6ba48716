"""Limits that the configuration sets, as clients meet them."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pika
import pika.exceptions
import pytest
from pamqp.commands import Connection

from dragoman import testing
from interop import amqp010
from tests.wire import HANG, Client, ConnectionClosed, Hangup, Peer, eventually


def connect(broker: testing.Broker) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(broker.url))


def set_key(broker: testing.Broker, key: str, value: str) -> None:
    """Change the configuration and have it read."""
    text, found = re.subn(f"^{key} = .*$", f"{key} = {value}", broker.config_path.read_text(), flags=re.MULTILINE)
    assert found == 1
    broker.config_path.write_text(text)
    os.kill(broker.pid, signal.SIGHUP)


def until(connection: pika.BlockingConnection, happened: Callable[[], object]) -> None:
    """Have pika read what comes until something happened."""
    eventually(lambda: connection.process_data_events(0.02) or happened())


def test_connections() -> None:
    with testing.broker("[limits]\nconnections = 3") as broker:
        first = [connect(broker) for _ in range(3)]
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connect(broker)
        assert "refused, there are 3 connections" in broker.log()
        first.pop().close()
        first.append(connect(broker))
        first[0].channel().queue_declare("", exclusive=True)
        for connection in first:
            connection.close()


def test_connections_that_said_nothing_count() -> None:
    with testing.broker("[limits]\nconnections = 2") as broker:
        silent = [socket.create_connection((broker.host, broker.port)) for _ in range(2)]
        inside = [Client(Peer(broker.host, broker.port)).open() for _ in range(2)]  # for whom they make room
        for each in silent:
            each.settimeout(HANG)
            assert each.recv(1) == b""
            each.close()
        assert refused(broker)
        for client in inside:
            client.close()


def refused(broker: testing.Broker) -> bool:
    client = Client(Peer(broker.host, broker.port))
    try:
        client.open()
    except Hangup:
        return True
    finally:
        client.close()
    return False


def test_connections_of_one_user() -> None:
    with testing.broker("[[listeners]]\nanonymous = true\n[limits]\nconnections_per_user = 2") as broker:
        two = [connect(broker), connect(broker)]
        client = Client(Peer(broker.host, broker.port))
        with pytest.raises(ConnectionClosed) as refusal:
            client.open()
        client.drop()
        assert (refusal.value.code, refusal.value.text) == (530, "NOT_ALLOWED - connection refused for user "
                                                            "'guest': user connection limit (2) is reached")
        two.pop().close()
        two.append(connect(broker))
        for connection in two:
            connection.close()


def test_channels() -> None:
    with testing.broker("[amqp091]\nchannel_max = 2") as broker, connect(broker) as connection:
        assert connection.channel().is_open and connection.channel().is_open
        with pytest.raises(pika.exceptions.NoFreeChannels):
            connection.channel()


@pytest.mark.parametrize("limit", [1000, 300_000])  # within one frame, and of several
def test_message_size(limit: int) -> None:
    with testing.broker(f"[limits]\nmessage_size = {limit}") as broker, connect(broker) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"x" * limit)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
            channel.basic_publish("", queue, b"x" * (limit + 1))
        assert (closed.value.reply_code, closed.value.reply_text) == (
            406, f"PRECONDITION_FAILED - message size {limit + 1} is larger than configured max size {limit}")
        assert connection.channel().queue_declare(queue, passive=True).method.message_count == 1


@pytest.mark.parametrize("limit", [1000, 300_000])  # within one frame, and of several
def test_message_size_in_0_10(limit: int) -> None:
    with testing.broker(f"[limits]\nmessage_size = {limit}") as broker, amqp010.connect(broker.url) as connection:
        sender = connection.session().sender("amq.fanout")
        sender.send(amqp010.Message(b"x" * limit))
        with pytest.raises(amqp010.SessionError, match=f"a message is larger than {limit} bytes"):
            sender.send(amqp010.Message(b"x" * (limit + 1)))


def test_memory() -> None:
    with testing.broker("[limits]\nmemory = '1 MiB'") as broker, connect(broker) as consumer:
        connection = connect(broker)
        events: list[str] = []
        connection.add_on_connection_blocked_callback(lambda _, frame: events.append(frame.method.reason))
        connection.add_on_connection_unblocked_callback(lambda *_: events.append("unblocked"))
        channel = connection.channel()
        channel.queue_declare("q")
        for _ in range(20):
            channel.basic_publish("", "q", b"x" * 100_000)
        until(connection, lambda: events)
        assert re.fullmatch("messages in memory take 1 MiB of 1 MiB allowed", events[0])
        drain = consumer.channel()
        taken = 0
        while taken < 20:  # consumers are let go on, so that the publisher can
            taken += drain.basic_get("q", auto_ack=True)[0] is not None
            connection.process_data_events(0)
        until(connection, lambda: events[1:])
        assert events == [events[0], "unblocked"] * (len(events) // 2)
        channel.basic_publish("", "q", b"after")
        until(connection, lambda: drain.basic_get("q", auto_ack=True)[2] == b"after")
        connection.close()


def test_disk(tmp_path: Path) -> None:
    with testing.broker("[limits]\ndisk_free = 0", store=tmp_path) as broker, connect(broker) as connection:
        events: list[str] = []
        connection.add_on_connection_blocked_callback(lambda _, frame: events.append(frame.method.reason))
        connection.add_on_connection_unblocked_callback(lambda *_: events.append("unblocked"))
        set_key(broker, "disk_free", '"900 TiB"')
        until(connection, lambda: events)
        assert re.fullmatch(r"\d+ MiB of disk are free, 943718400 MiB must be", events[0])
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"held")
        late = Client(Peer(broker.host, broker.port)).open()
        assert late.expect(Connection.Blocked).reason == events[0]
        assert late.channel().get("q") is None  # consumers may go on
        set_key(broker, "disk_free", "0")
        late.expect(Connection.Unblocked)
        until(connection, lambda: channel.basic_get("q", auto_ack=True)[2] == b"held")
        late.close()
        assert events[1:] == ["unblocked"]
        assert broker.log().count("publishers are held") == broker.log().count("publishers may go on") == 1


def test_queues_of_a_user_are_his_after_a_restart_and_a_reload(tmp_path: Path) -> None:
    config = "[[limit]]\nper = 'user'\nqueues = 2"
    for names in ("ab", "b"):
        with testing.broker(config, store=tmp_path) as broker, connect(broker) as connection:
            for name in names:
                connection.channel().queue_declare(name, durable=True)
            for _ in range(2):
                with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="queue limit of user 'guest' .2. is"):
                    connection.channel().queue_declare("c", durable=True)
                os.kill(broker.pid, signal.SIGHUP)
                eventually(partial(told, broker))
            connection.channel().queue_delete("a")
            connection.channel().queue_declare("a", durable=True)


def told(broker: testing.Broker) -> bool:
    return "configuration read again" in broker.log()
