"""Limits as clients of every dialect meet them: each is refused in its own words, and what is closed is free again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pamqp.commands import Basic, Queue
from proton import uint

from dragoman import testing
from tests.wire import Client, ConnectionClosed, Peer, channel_error, connection_error, eventually
from tests.wire010 import Client010
from tests.wire10 import BEGIN, CLOSE, DETACH, RECEIVER, SENDER, Client10, message, state
from tests.wire_mqtt import CONNACK, MqttClient

pytestmark = pytest.mark.dragoman_only("its configuration is Dragoman's")

CONFIG = """
virtual_hosts = ["/", "one", "few"]
[[listeners]]
anonymous = true
[[limit]]
virtual_host = "one"
connections = 1
[[limit]]
user = "guest"
per = "connection"
channels = 2
links = 2
consumers = 2
[[limit]]
virtual_host = "few"
queues = 2
[[limit]]
virtual_host = "/"
unsettled = 2
message_size = 1000
[mqtt]
virtual_host = "/"
"""
FULL = "access to vhost 'one' refused for user 'guest': connection limit (1) is reached"


@pytest.fixture(scope="module")
def broker() -> Iterator[testing.Broker]:
    with testing.broker(CONFIG) as made:
        yield made
        assert "Traceback" not in made.log()


@pytest.fixture
def peer(broker: testing.Broker) -> Peer:
    return Peer(broker.host, broker.port)


def open091(peer: Peer, vhost: str = "/", user: str = "guest") -> Client:
    return Client(peer).open(user=user, vhost=vhost)


# Connections.


def test_connections(peer: Peer) -> None:
    """Of a virtual host that takes one, whatever it speaks; and the place of the one is free when it goes."""
    for _ in range(2):
        one = open091(peer, "one")
        refused = Client(peer)
        with pytest.raises(ConnectionClosed) as closed:
            refused.open(vhost="one")
        assert (closed.value.code, closed.value.text) == (530, "NOT_ALLOWED - " + FULL)
        refused.drop()

        wire10 = Client10(peer.host, peer.port, opens=False)
        wire10.open("limits", hostname="vhost:one")
        fields, _ = wire10.expect(CLOSE)
        assert (str(fields[0].value[0]), fields[0].value[1]) == ("amqp:resource-limit-exceeded", FULL)
        wire10.vanish()

        for level, reason in (5, 0x97), (4, 3), (3, 3):
            mqtt = MqttClient(peer, level)
            mqtt.write(mqtt.connect_packet("limits", user="one:guest"))
            assert mqtt.expect(CONNACK).reason == reason
            mqtt.drop()
        one.close()


def open010(peer: Peer, host: str) -> Client010:
    """A connection of 0-10 as far as connection.open."""
    client = Client010(peer.host, peer.port, opens=False)
    client.ask_to_open(host)
    return client


def test_connections_in_0_10(peer: Peer) -> None:
    one = open091(peer, "one")
    client = open010(peer, "one")
    close = client.expect("connection.close").fields
    assert (close["reply_code"], close["reply_text"]) == (320, FULL)
    client.vanish()
    one.close()


# Channels, sessions, links.


def test_channels(peer: Peer) -> None:
    client = open091(peer)
    first, _ = client.channel(), client.channel()
    first.close()
    client.channel()
    with connection_error(530, "NOT_ALLOWED - number of channels opened for the connection has reached the maximum "
                               "allowed limit of (2)", None):
        client.channel()
    client.close()


def test_sessions_of_0_10(peer: Peer) -> None:
    client = Client010(peer.host, peer.port)
    for _ in range(3):  # those that are over are given back
        client.attach(b"second", channel=1)
        client.control("session.detach", 1, name=b"second")
        client.expect("session.detached")
    client.attach(b"second", channel=1)
    client.control("session.attach", 2, name=b"third", force=False)
    close = client.expect("connection.close").fields
    assert close["reply_code"] == 320 and "maximum allowed limit of (2)" in close["reply_text"]
    client.vanish()


def test_sessions_and_links_of_1_0(peer: Peer) -> None:
    client = Client10(peer.host, peer.port)
    for _ in range(3):
        client.attach("a", SENDER, "amq.fanout", handle=0)
        client.attach("b", SENDER, "amq.fanout", handle=1)
        attached = client.attach("c", SENDER, "amq.fanout", handle=2)
        assert attached[6] is None  # there is no target
        error = client.expect(DETACH)[0][2].value
        assert (str(error[0]), error[1]) == ("amqp:resource-limit-exceeded",
                                             "cannot attach link 'c': link limit of the connection (2) is reached")
        client.send(DETACH, uint(2), True)
        client.detach(0)
        client.detach(1)
    client.begin(1)
    client.send(BEGIN, None, uint(0), uint(10), uint(10), channel=2)
    error = client.expect(CLOSE)[0][0].value
    assert (str(error[0]), "maximum allowed limit of (2)" in error[1]) == ("amqp:resource-limit-exceeded", True)
    client.vanish()


# Consumers.


def test_consumers(peer: Peer) -> None:
    client = open091(peer)
    channel = client.channel()
    queue = channel.temporary()
    for _ in range(2):
        tags = [channel.consume(queue), channel.consume(queue)]
        for tag in tags:
            channel.call(Basic.Cancel(tag))
    channel.consume(queue)
    channel.consume(queue)
    with channel_error(406, f"PRECONDITION_FAILED - cannot consume from queue '{queue}': consumer limit of the "
                            "connection (2) is reached", Basic.Consume):
        channel.consume(queue)
    again = client.channel()
    again.consume(queue)  # the channel's end has given them back
    client.close()


def test_consumers_in_0_10(peer: Peer) -> None:
    client = Client010(peer.host, peer.port)
    client.call("queue.declare", queue="q010", exclusive=True)
    for name in ("a", "b"):
        client.subscribe("q010", name)
    client.call("message.cancel", destination="a")
    client.subscribe("q010", "a")
    client.command("message.subscribe", queue="q010", destination="c", accept_mode=0, acquire_mode=0)
    assert client.error() == 506
    client.vanish()


@pytest.mark.parametrize(("level", "refused"), [(5, 0x97), (4, 0x80)])
def test_subscriptions_of_mqtt(peer: Peer, level: int, refused: int) -> None:
    client = MqttClient(peer, level)
    client.connect("limited", clean=level == 5)
    assert client.subscribe("a", "b", "c") == [0, 0, refused]
    assert client.subscribe("b") == [0]  # once more is no other one
    client.unsubscribe("a")
    assert client.subscribe("d", "e") == [0, refused]
    client.disconnect()
    again = MqttClient(peer, level)
    again.connect("limited", clean=level == 5)
    assert again.subscribe("d", "e", "f") == ([0, 0, refused] if level == 5 else [0, refused, refused])
    again.disconnect()
    ended = MqttClient(peer, level)
    ended.connect("limited", clean=True)
    ended.disconnect()


# Queues.


def test_queues(peer: Peer) -> None:
    """Of a virtual host: for 0-9-1, 0-10, 1.0 and MQTT alike."""
    client = open091(peer, "few")
    channel = client.channel()
    channel.queue("a", exclusive=True)
    channel.queue("a", exclusive=True)
    channel.queue("b", exclusive=True)
    text = "cannot declare queue 'c': queue limit in vhost 'few' (2) is reached"
    with channel_error(406, "PRECONDITION_FAILED - " + text, Queue.Declare):
        channel.queue("c")

    other = open010(peer, "few")
    other.expect("connection.open-ok")
    other.attach(b"queues")
    other.command("queue.declare", queue="c")
    assert other.error() == 506
    other.vanish()

    wire10 = Client10(peer.host, peer.port, hostname="vhost:few")
    wire10.attach("dynamic", RECEIVER, None, more=(True,))
    assert str(wire10.expect(DETACH)[0][2].value[0]) == "amqp:resource-limit-exceeded"
    wire10.vanish()

    for level, reason in (5, 0x97), (4, 3):
        mqtt = MqttClient(peer, level)
        mqtt.write(mqtt.connect_packet("few", user="few:guest", clean=False, **(
            {"SessionExpiryInterval": 100} if level == 5 else {})))
        assert mqtt.expect(CONNACK).reason == reason
        mqtt.drop()

    again = client.channel()
    again.call(Queue.Delete(queue="a"))
    again.queue("c", exclusive=True)
    client.close()
    eventually(lambda: not queues_left(peer))


def queues_left(peer: Peer) -> bool:
    """Whether queues that went with their connection are still there."""
    client = open091(peer, "few")
    channel = client.channel()
    left = channel.exists("b") or channel.exists("c")
    client.close()
    return left


# Unsettled deliveries, and the size of messages.


def test_unsettled(peer: Peer) -> None:
    client = open091(peer)
    channel = client.channel()
    queue = channel.temporary()
    for number in range(4):
        channel.publish("", queue, b"%d" % number)
    tag = channel.consume(queue)
    channel.qos(0, True)  # none is what the limit says, too
    assert channel.deliveries(2) == [b"0", b"1"]
    assert channel.count(queue) == 2
    channel.ack(1)
    assert channel.delivery().body == b"2"
    channel.ack(3, multiple=True)
    assert channel.delivery().body == b"3"
    channel.call(Basic.Cancel(tag))
    for _ in range(2):
        channel.publish("", queue, b"4")
    assert channel.get(queue, no_ack=False) is not None
    with channel_error(406, "PRECONDITION_FAILED - 2 deliveries are unacknowledged, which is the limit", Basic.Get):
        channel.get(queue, no_ack=False)
    client.close()


def test_unsettled_in_0_10(peer: Peer) -> None:
    client = Client010(peer.host, peer.port)
    client.call("queue.declare", queue="u010", exclusive=True)
    for number in range(4):
        client.publish("u010", b"%d" % number)
    client.subscribe("u010", "d")
    first, second = client.message(), client.message()
    client.nothing()
    client.call("message.accept", transfers=[(first.number, first.number)])
    assert client.message().body == b"2"
    client.call("message.release", transfers=[(second.number, second.number)])
    assert client.message().body == b"1"
    client.nothing()
    client.vanish()


def test_unsettled_in_1_0(peer: Peer) -> None:
    other = open091(peer)
    channel = other.channel()
    queue = channel.queue("u10", auto_delete=True).queue
    for number in range(4):
        channel.publish("", queue, b"%d" % number)
    assert channel.count(queue) == 4
    client = Client10(peer.host, peer.port)
    client.attach("out", RECEIVER, queue)
    client.credit(10)
    first = client.delivery()[0][1]
    client.delivery()
    assert channel.count(queue) == 2
    client.settle(RECEIVER, first, state(0x24))
    assert client.delivery()[1].endswith(b"2")
    client.close()
    channel.call(Queue.Delete(queue=queue))
    other.close()


def test_unsettled_in_mqtt(peer: Peer) -> None:
    client = MqttClient(peer, 5)
    client.connect("window")
    assert client.subscribe(("w", 1)) == [1]
    other = MqttClient(peer, 5)
    other.connect("publisher")
    for number in range(4):
        other.publish("w", b"%d" % number, 1)
    other.drop()
    first, _ = client.messages(2)
    client.nothing()
    client.acknowledge(4, first.packet_id)
    assert client.message().payload == b"2"
    client.disconnect()


def test_message_size(peer: Peer) -> None:
    """1000 bytes, in this virtual host; elsewhere there may be more."""
    client = open091(peer)
    channel = client.channel()
    with channel_error(406, "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000",
                       Basic.Publish):
        channel.publish("", "nowhere", b"x" * 1001)
        channel.next()
    client.close()
    client = open091(peer, "few")
    channel = client.channel()
    channel.confirm()
    assert channel.confirmed("", "nowhere", b"x" * 1001)
    client.close()

    client010 = Client010(peer.host, peer.port)
    client010.transfer("amq.fanout", body=b"x" * 1001)
    assert client010.error() == 506
    client010.vanish()

    wire10 = Client10(peer.host, peer.port)
    assert wire10.attach("in", SENDER, "amq.fanout")[10] == 1000
    wire10.transfer(message(b"x" * 9000), b"1")
    assert str(wire10.expect(DETACH)[0][2].value[0]) == "amqp:link:message-size-exceeded"
    wire10.vanish()

    mqtt = MqttClient(peer, 5)
    mqtt.connect("size")
    mqtt.write(mqtt.publish_packet("t", b"x" * 1001))
    assert mqtt.read().reason == 0x95
    mqtt.drop()
