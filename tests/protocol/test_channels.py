"""Channels: opening and closing in every order, what is ignored meanwhile, and many of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic, Connection, Queue
from pamqp.commands import Channel as ChannelClass
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from tests.wire import Channel, ChannelClosed, Client, connection_error, raw_method

Name = Callable[..., str]
Connect = Callable[..., Client]


def test_open_and_close(client: Client) -> None:
    for number in (1, 2, 1, 200, 2):
        client.channel(number).close()


def test_number_may_be_used_again(client: Client, name: Name) -> None:
    queue = name()
    for _ in range(20):
        ch = client.channel(5)
        ch.queue(queue)
        ch.put("", queue, b"x")
        assert ch.wait_get(queue, no_ack=False).tag == 1  # everything begins anew
        ch.call(Queue.Purge(0, queue))
        ch.close()
        again = client.channel(5)
        again.call(Queue.Delete(0, queue))
        again.close()


def test_a_refusal_closes_only_its_channel(client: Client, name: Name) -> None:
    first, second = client.channel(), client.channel()
    queue = name()
    second.queue(queue)
    second.consume(queue, "tag")
    with pytest.raises(ChannelClosed):
        first.queue("wire-no-such-queue", passive=True)
    second.put("", queue, b"x")
    assert second.delivery().body == b"x"


def test_everything_is_ignored_until_close_ok(client: Client, name: Name) -> None:
    queue, late = name(), name("late")
    ch = client.channel(1)
    ch.queue(queue)
    ch.send(Queue.Declare(0, "wire-no-such-queue", passive=True),  # this closes the channel, and of the rest
            Basic.Publish(0, "", queue), ContentHeader(0, 3), ContentBody(b"abc"),
            Queue.Declare(0, late), Basic.Consume(0, queue), Basic.Ack(77))
    assert isinstance(client.read()[1], ChannelClass.Close)  # nothing gets an answer
    ch.send(Basic.Publish(0, "", queue), ContentHeader(0, 3), ContentBody(b"abc"), ChannelClass.CloseOk())
    ch = client.channel(1)
    assert ch.count(queue) == 0
    assert not ch.exists(late)


@pytest.mark.dragoman_only("RabbitMQ wants the rest of the message first")
def test_half_a_message_is_forgotten_with_its_channel(client: Client, name: Name) -> None:
    queue = name()
    ch = client.channel(1)
    ch.queue(queue)
    missing = name("missing")
    ch.send(Queue.Declare(0, missing, passive=True), Basic.Publish(0, "", queue), ContentHeader(0, 6),
            ContentBody(b"abc"))
    assert isinstance(client.read()[1], ChannelClass.Close)
    ch.send(ChannelClass.CloseOk())
    ch = client.channel(1)
    ch.put("", queue, b"whole")
    assert ch.wait_get(queue).body == b"whole"


def test_both_close_at_once(client: Client) -> None:
    """channel.close crossing channel.close: each is answered."""
    client.channel(1)
    client.send(1, Queue.Declare(0, "wire-no-such-queue", passive=True), ChannelClass.Close(200, "", 0, 0))
    assert isinstance(client.read()[1], ChannelClass.Close)
    assert isinstance(client.read()[1], ChannelClass.CloseOk)
    client.send(1, ChannelClass.CloseOk())
    client.channel(1).queue(exclusive=True)


def test_everything_done_before_close_counts(client: Client, name: Name) -> None:
    queue = name()
    ch = client.channel(1)
    ch.queue(queue)
    for number in range(20):
        ch.publish("", queue, b"%d" % number)
    ch.close()
    ch = client.channel(1)
    ch.settle(queue)
    assert ch.count(queue) == 20


def test_flow(ch: Channel) -> None:
    assert ch.call(ChannelClass.Flow(True)).active is True


@pytest.mark.dragoman_only("RabbitMQ does not implement active=false")
def test_flow_stops_deliveries(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, no_ack=True)
    assert ch.call(ChannelClass.Flow(False)).active is False
    ch.put("", queue, b"1")
    assert ch.idle(queue)
    assert ch.call(ChannelClass.Flow(True)).active is True
    ch.put("", queue, b"2")
    assert ch.deliveries(2) == [b"1", b"2"]


@pytest.mark.dragoman_only("RabbitMQ takes channel.flow-ok for a method of servers only")
def test_flow_ok_out_of_the_blue_does_no_harm(ch: Channel) -> None:
    ch.send(ChannelClass.FlowOk(True))
    ch.call(ChannelClass.Flow(True))


def test_channel_max_counts_channels(connect: Connect) -> None:
    client = connect(channel_max=5)
    channels = [client.channel() for _ in range(5)]
    with connection_error(530, "NOT_ALLOWED - number of channels opened (5) has reached the negotiated channel_max (5)",
                          None):
        client.channel()
    assert len(channels) == 5


def test_closed_channels_do_not_count(connect: Connect) -> None:
    client = connect(channel_max=2)
    client.channel(1)
    for _ in range(10):
        client.channel(2).close()


@pytest.mark.parametrize("number", [
    pytest.param(2047, id="2047"),
    pytest.param(65535, id="65535", marks=pytest.mark.dragoman_only("RabbitMQ proposes 2047")),
])
def test_all_the_channels_there_are(connect: Connect, number: int) -> None:
    client = connect(channel_max=number)
    client.write(b"".join(raw_method(one, 20, 10, b"\0") for one in range(1, number + 1)))
    seen: set[int] = set()
    while len(seen) < number:
        raw = client.read_raw()
        assert raw[7:11] == b"\x00\x14\x00\x0b"
        seen.add(int.from_bytes(raw[1:3], "big"))
    assert seen == set(range(1, number + 1))
    last = Channel(client, number)
    assert last.queue(exclusive=True).message_count == 0


def test_connection_close_closes_channels(client: Client, name: Name) -> None:
    queue = name()
    ch = client.channel()
    ch.queue(queue)
    ch.publish("", queue, b"x")
    client.send(0, Connection.Close(200, "bye", 0, 0), Heartbeat())
    client.closed = True
    assert isinstance(client.read()[1], Connection.CloseOk)


def test_connection_closed_by_the_broker_ignores_the_rest(client: Client, connect: Connect, name: Name) -> None:
    queue = name()
    ch = client.channel()
    ch.queue(queue)
    ch.send(ChannelClass.Open(), Basic.Publish(0, "", queue), ContentHeader(0, 1), ContentBody(b"x"))
    close = client.read()[1]
    assert isinstance(close, Connection.Close) and close.reply_code == 504
    ch.send(Basic.Publish(0, "", queue), ContentHeader(0, 1), ContentBody(b"x"))
    client.send(0, Connection.CloseOk())
    client.closed = True
    assert client.rest() == b""
    assert connect().channel().count(queue) == 0
