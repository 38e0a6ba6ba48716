"""Clients that connect and do not come in, come too often, stay for nothing, or when there are no more files."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest
from pamqp.commands import Connection

from dragoman import testing
from tests.wire import HANG, Client, ConnectionClosed, Hangup, Peer, eventually
from tests.wire010 import Client010
from tests.wire10 import CLOSE, Client10
from tests.wire_mqtt import MqttClient


def peer(broker: testing.Broker) -> Peer:
    return Peer(broker.host, broker.port)


def ended(client: socket.socket) -> bool:
    """Whether the broker closes the connection, sooner or later."""
    client.settimeout(HANG)
    try:
        while client.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


@contextmanager
def silent(broker: testing.Broker, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((broker.host, broker.port))) for _ in range(count)]


@pytest.mark.parametrize("limits", ["half_open = 5", "half_open_per_address = 5"])
def test_who_has_waited_longest_makes_room(limits: str) -> None:
    with testing.broker(f"[limits]\n{limits}\nhandshake_seconds = 3600") as broker, silent(broker, 20) as clients:
        assert all(ended(client) for client in clients[:15])
        with closing(Client(peer(broker)).open()) as client:  # in the midst of them, from the same address
            assert client.channel().temporary()
        clients[-1].sendall(b"AMQP\x00\x00\x09\x01")
        assert clients[-1].recv(1) == b"\x01"
        assert "6 clients have connected and not logged in, and it was the first of them" in broker.log()


def test_those_who_are_in_take_no_place_among_the_half_open() -> None:
    with testing.broker("[limits]\nhalf_open = 2\nhandshake_seconds = 3600") as broker, ExitStack() as stack:
        several = [stack.enter_context(closing(Client(peer(broker)).open())) for _ in range(5)]
        with silent(broker, 4):
            assert several[0].channel().temporary()


def test_whoever_hangs_up_on_the_way_in_is_not_counted() -> None:
    with testing.broker("[limits]\nconnections = 2\nconnections_per_user = 2") as broker:
        for stage in range(24):
            client = Client(peer(broker))
            if stage % 4 == 1:
                client.write(b"AMQP\x00\x00\x09\x01")
            elif stage % 4 == 2:
                client.log_in(password="wrong")
            elif stage % 4 == 3:
                client.log_in()
                client.expect(Connection.Tune)
            client.drop()
            eventually(lambda: opens(broker))
        with closing(Client(peer(broker)).open()), closing(Client(peer(broker)).open()):
            assert not opens(broker)


def opens(broker: testing.Broker) -> bool:
    client = Client(peer(broker))
    try:
        client.open()
        client.close()
    except (Hangup, ConnectionClosed):
        client.drop()
        return False
    return True


def test_no_more_files() -> None:
    """Who comes is closed at once, and the others go on; when there are files again, so do all."""
    with testing.broker() as broker, closing(Client(peer(broker)).open()) as client, ExitStack() as stack:
        channel = client.channel()
        hard = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)[1]
        used = len(os.listdir(f"/proc/{broker.pid}/fd"))
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (used + 3, hard))
        others = [stack.enter_context(socket.create_connection((broker.host, broker.port))) for _ in range(10)]
        for other in others[-3:]:
            assert ended(other)
        assert "a client is turned away: Too many open files" in broker.log()
        assert channel.temporary()
        stack.close()
        eventually(lambda: opens(broker))


def test_idle() -> None:
    with testing.broker("[limits]\nidle_seconds = 1") as broker:
        idle, wire10 = Client(peer(broker)).open(), Client10(broker.host, broker.port)
        wire010 = Client010(broker.host, broker.port)
        mqtt = MqttClient(peer(broker), 5)
        mqtt.connect("idle")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                idle.next()
        assert (closed.value.code, closed.value.text) == (320, "CONNECTION_FORCED - idle for 1 s")
        idle.drop()
        assert mqtt.read().reason == 0x98
        mqtt.drop()
        assert str(wire10.expect(CLOSE)[0][0].value[0]) == "amqp:connection:forced"
        wire10.vanish()
        assert wire010.closed() == 320
        wire010.vanish()
        assert "closed, nothing was sent or received for 1 s" in broker.log()


def test_a_login_that_takes_too_long() -> None:
    with testing.broker("[limits]\nhandshake_seconds = 3600\nauthentication_seconds = 1") as broker:
        slow, logged_in = Client(peer(broker)), Client(peer(broker))
        logged_in.log_in()
        tune = logged_in.expect(Connection.Tune)
        slow.write(b"AMQP\x00\x00\x09\x01")
        assert ended(slow.socket)
        slow.drop()
        assert "closed, the login took longer than 1 s" in broker.log()
        logged_in.send(0, Connection.TuneOk(tune.channel_max, tune.frame_max, 0), Connection.Open("/"))
        logged_in.expect(Connection.OpenOk)
        logged_in.close()


def test_who_comes_too_often() -> None:
    with testing.broker('[[limit]]\nper = "address"\nconnection_rate = "3/d"\n') as broker:
        assert [opens(broker) for _ in range(5)] == [True] * 3 + [False] * 2
        assert "refused, address 127.0.0.1 connects more than 3 times in 86400 s" in broker.log()
    with testing.broker('[[limit]]\nuser = "guest"\nconnection_rate = "3/d"\n') as broker:
        assert [opens(broker) for _ in range(3)] == [True] * 3
        refused = Client(peer(broker))
        with pytest.raises(ConnectionClosed) as closed:
            refused.open()
        assert closed.value.text == ("NOT_ALLOWED - connection refused for user 'guest': user 'guest' connects too "
                                     "often, more than 3 times in 86400 s")
        refused.drop()
        for level, reason in (5, 0x9F), (4, 3):
            mqtt = MqttClient(peer(broker), level)
            mqtt.write(mqtt.connect_packet("often"))
            assert mqtt.read().reason == reason
            mqtt.drop()


def test_what_is_agreed_on() -> None:
    with testing.broker('[[limit]]\nnetwork = "127.0.0.0/8"\nper = "connection"\nframe_size = 8192\nchannels = 3') \
            as broker:
        with closing(Client(peer(broker)).open()) as client:
            assert (client.tune.frame_max, client.tune.channel_max) == (8192, 3)
        wire10 = Client10(broker.host, broker.port, opens=False)
        assert [int(value) for value in wire10.open("frames")[2:4]] == [8192, 2]
        wire10.vanish()
        wire010 = Client010(broker.host, broker.port, opens=False)
        wire010.control("connection.start-ok", client_properties={}, mechanism="PLAIN", response=b"\0guest\0guest",
                        locale="en_US")
        tune = wire010.expect("connection.tune").fields
        assert (tune["max_frame_size"], tune["channel_max"]) == (8192, 2)
        wire010.vanish()
        mqtt = MqttClient(peer(broker), 5)
        assert mqtt.connect("frames").properties["MaximumPacketSize"] == 8192
        mqtt.drop()


def test_a_listener() -> None:
    """Its limit is of those who come by it, and of nobody else."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with testing.broker(f"""
            [[listeners]]
            port = 0
            [[listeners]]
            port = {port}
            [[limit]]
            listener = "127.0.0.1:{port}"
            connections = 1
            """) as broker, ExitStack() as stack:
        there = [Peer("127.0.0.1", int(url.rpartition(":")[2].strip("/"))) for url in broker.urls]
        limited = next(each for each in there if each.port == port)
        other = next(each for each in there if each.port != port)
        stack.enter_context(closing(Client(limited).open()))
        for _ in range(2):
            stack.enter_context(closing(Client(other).open()))
        refused = Client(limited)
        with pytest.raises(ConnectionClosed, match=f"connection limit .1. of listener 127.0.0.1:{port} is reached"):
            refused.open()
        refused.drop()
