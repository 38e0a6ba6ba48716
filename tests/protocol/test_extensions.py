"""Direct reply-to, connection.blocked and other extensions of RabbitMQ that no other file has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pamqp.commands import Basic, Connection, Queue

from tests.wire import Channel, Client, Peer, channel_error, eventually, raw_header, raw_method, shortstr

Name = Callable[..., str]
Connect = Callable[..., Client]

REPLY_TO = "amq.rabbitmq.reply-to"


# Direct reply-to

def test_direct_reply(ch: Channel, other: Channel, name: Name) -> None:
    requests = name("requests")
    other.queue(requests)
    other.consume(requests, no_ack=True)
    ch.consume(REPLY_TO, "replies", no_ack=True)
    ch.publish("", requests, b"question", reply_to=REPLY_TO, correlation_id="1")
    question = other.delivery()
    address = question.properties.reply_to or ""
    assert address.startswith(REPLY_TO + ".") and len(address) > len(REPLY_TO) + 10
    other.publish("", address, b"answer", correlation_id="1")
    other.publish("", address, b"another", correlation_id="2")
    answers = [ch.delivery(), ch.delivery()]
    assert [answer.body for answer in answers] == [b"answer", b"another"]
    assert [answer.properties.correlation_id for answer in answers] == ["1", "2"]
    assert answers[0].method.consumer_tag == "replies"
    assert (answers[0].method.exchange, answers[0].method.routing_key) == ("", address)
    assert other.idle(requests)


def test_direct_reply_may_be_looked_up_while_it_is_there(ch: Channel, other: Channel, name: Name) -> None:
    requests = name("requests")
    ch.queue(requests)
    ch.consume(REPLY_TO, "replies", no_ack=True)
    ch.publish("", requests, b"question", reply_to=REPLY_TO)
    address = other.wait_get(requests).properties.reply_to or ""
    ok = other.queue(address, passive=True)
    assert (ok.queue, ok.message_count, ok.consumer_count) == (address, 0, 1)
    assert other.queue(address).queue == address  # declaring it is no other thing
    ch.client.close()
    other.confirm()
    eventually(lambda: other.gone(address))
    assert other.confirmed("", address, b"nobody is there")


def test_direct_reply_address_is_unknown_without_its_secret(ch: Channel, other: Channel, name: Name) -> None:
    requests = name("requests")
    ch.queue(requests)
    ch.consume(REPLY_TO, no_ack=True)
    ch.publish("", requests, b"question", reply_to=REPLY_TO)
    address = other.wait_get(requests).properties.reply_to or ""
    other.confirm()
    assert other.confirmed("", address[:-1], b"forged")
    assert other.confirmed("", REPLY_TO + ".forged", b"forged")
    assert other.confirmed("", address, b"right")
    assert ch.delivery().body == b"right"


def test_direct_reply_to_nobody_comes_back_when_mandatory(ch: Channel) -> None:
    ch.publish("", REPLY_TO + ".nobody", b"x", mandatory=True)
    assert ch.next().method.reply_code == 312


def test_direct_reply_consumer_may_be_cancelled(ch: Channel, other: Channel, name: Name) -> None:
    requests = name("requests")
    ch.queue(requests)
    ch.consume(REPLY_TO, "replies", no_ack=True)
    ch.publish("", requests, b"question", reply_to=REPLY_TO)
    address = other.wait_get(requests).properties.reply_to or ""
    ch.call(Basic.Cancel("replies"))
    other.confirm()
    assert other.confirmed("", address, b"too late")
    assert ch.idle(requests)
    ch.consume(REPLY_TO, "replies", no_ack=True)


def test_reply_to_of_somebody_else_is_left_alone(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.put("", queue, b"x", reply_to="somewhere")
    assert ch.wait_get(queue).properties.reply_to == "somewhere"


def test_reply_consumer_cannot_acknowledge(ch: Channel) -> None:
    with channel_error(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge", Basic.Consume):
        ch.consume(REPLY_TO)


def test_one_reply_consumer_a_channel(ch: Channel) -> None:
    ch.consume(REPLY_TO, no_ack=True)
    ch.client.channel().consume(REPLY_TO, no_ack=True)
    with channel_error(406, "PRECONDITION_FAILED - reply consumer already set", Basic.Consume):
        ch.consume(REPLY_TO, no_ack=True)


def test_reply_to_without_consumer(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    with channel_error(406, "PRECONDITION_FAILED - fast reply consumer does not exist", Basic.Publish):
        ch.publish("", queue, b"x", reply_to=REPLY_TO)
        ch.next()


@pytest.mark.parametrize("method", [Basic.Get(0, REPLY_TO), Queue.Bind(0, REPLY_TO, "amq.direct", "x"),
                                    Queue.Purge(0, REPLY_TO)], ids=lambda method: method.name)
def test_reply_queue_is_no_queue(ch: Channel, method: Basic.Get) -> None:
    with channel_error(404, f"NOT_FOUND - no queue '{REPLY_TO}' in vhost '/'", type(method)):
        ch.call(method)


def test_reply_queue_can_always_be_declared(ch: Channel) -> None:
    for passive in (False, True):
        ok = ch.queue(REPLY_TO, passive=passive)
        assert (ok.queue, ok.message_count, ok.consumer_count) == (REPLY_TO, 0, 1)


def test_unknown_reply_queue(ch: Channel) -> None:
    with channel_error(404, f"NOT_FOUND - no queue '{REPLY_TO}.x' in vhost '/'", Queue.Declare):
        ch.queue(REPLY_TO + ".x")


# access.request, of 0-9 and 0-8 and still served

def test_access_request(ch: Channel) -> None:
    ch.client.write(raw_method(ch.number, 30, 10, shortstr("/data") + b"\x1c"))
    assert ch.client.read_raw() == raw_method(ch.number, 30, 11, b"\x00\x01")


def test_any_ticket_will_do(ch: Channel, name: Name) -> None:
    queue = name()
    ch.client.write(raw_method(ch.number, 50, 10, b"\x12\x34" + shortstr(queue) + b"\0" * 5))
    assert ch.expect(Queue.DeclareOk).queue == queue


# Held back

@pytest.fixture
def tight(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """A broker that holds publishers back for want of memory: it has more messages than it may."""
    from dragoman import testing

    with testing.broker(config='[limits]\nmemory = "1 MiB"\n') as broker:
        peer = Peer(broker.host, broker.port)
        filler = Client(peer).open()
        channel = filler.channel()
        channel.queue("full")
        channel.put("", "full", b"x" * (2 << 20))
        yield peer
        filler.drop()


@pytest.mark.dragoman_only("needs a broker with a tiny memory limit")
def test_blocked(tight: Peer) -> None:
    publisher, consumer, plain = Client(tight).open(), Client(tight).open(), Client(tight).open(properties={})
    try:
        channels = [one.channel() for one in (publisher, consumer, plain)]
        assert channels[1].queue("held").message_count == 0
        for ch in (channels[0], channels[2]):
            ch.publish("", "held", b"x")
        assert isinstance(publisher.next(), Connection.Blocked)
        assert channels[1].get("held") is None  # who does not publish is served
        assert not plain.inbox[0]
        assert not publisher.inbox[0]  # told once
    finally:
        for one in (publisher, consumer, plain):
            one.drop()


@pytest.mark.dragoman_only("RabbitMQ drops whole messages above its limit only once they are there")
def test_message_above_the_limit_is_refused_at_once(ch: Channel) -> None:
    queue = ch.temporary()
    with channel_error(406, f"PRECONDITION_FAILED - message size {1 << 62} is larger than configured max size "
                       "536870912", Basic.Publish):
        ch.send(Basic.Publish(0, "", queue))
        ch.client.write(raw_header(ch.number, 1 << 62))
        ch.next()
