"""Publisher confirms: what is confirmed, in which order, and what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pamqp.commands import Basic, Confirm, Exchange

from tests.wire import Channel, channel_error

Name = Callable[..., str]


def confirms(ch: Channel, number: int) -> dict[int, bool]:
    """By delivery tag, whether acked, until so many are."""
    found: dict[int, bool] = {}
    while len(found) < number:
        answer = ch.next()
        assert isinstance(answer, Basic.Ack | Basic.Nack), answer
        tags = range(1, answer.delivery_tag + 1) if answer.multiple else [answer.delivery_tag]
        fresh = [tag for tag in tags if tag not in found]
        assert answer.multiple or fresh, "confirmed twice"
        found.update({tag: isinstance(answer, Basic.Ack) for tag in fresh})
    return found


def test_select(ch: Channel) -> None:
    assert isinstance(ch.call(Confirm.Select()), Confirm.SelectOk)
    ch.send(Confirm.Select(True))
    assert isinstance(ch.call(Exchange.Declare(0, "amq.direct", passive=True)), Exchange.DeclareOk)


def test_select_without_answer(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.send(Confirm.Select(True))
    assert ch.confirmed("", queue, b"x")


def test_every_publish_is_confirmed_once(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, durable=True)
    ch.confirm()
    for number in range(300):
        ch.publish("", queue, b"x" * (number % 7), delivery_mode=1 + number % 2)
    assert confirms(ch, 300) == dict.fromkeys(range(1, 301), True)
    assert ch.count(queue) == 300


def test_numbers_begin_at_select(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for _ in range(3):
        ch.publish("", queue)
    ch.confirm()
    ch.publish("", queue)
    answer = ch.expect(Basic.Ack)
    assert (answer.delivery_tag, answer.multiple) == (1, False)
    ch.confirm()
    ch.publish("", queue)
    assert ch.expect(Basic.Ack).delivery_tag == 2


def test_numbers_are_each_channels_own(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    second = ch.client.channel()
    for one in (ch, second):
        one.confirm()
    for _ in range(2):
        for one in (ch, second):
            one.publish("", queue)
    assert confirms(ch, 2) == confirms(second, 2) == {1: True, 2: True}


@pytest.mark.parametrize("exchange", ["", "amq.direct", "amq.topic", "amq.fanout", "amq.headers"])
def test_unroutable_is_confirmed(ch: Channel, name: Name, exchange: str) -> None:
    ch.confirm()
    assert ch.confirmed(exchange, name("nowhere"), b"x")


def test_return_comes_before_its_confirm(ch: Channel, name: Name) -> None:
    ch.confirm()
    for number in range(1, 4):
        ch.publish("amq.direct", name("nowhere"), b"x", mandatory=True)
        assert ch.next().method.reply_code == 312
        assert ch.expect(Basic.Ack).delivery_tag == number


def test_to_many_queues_is_one_confirm(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "fanout")
    queues = [name() for _ in range(5)]
    for number, queue in enumerate(queues):
        ch.queue(queue, durable=number % 2 == 0)
        ch.bind(queue, exchange)
    ch.confirm()
    for _ in range(10):
        ch.publish(exchange, "", b"x", delivery_mode=2)
    assert confirms(ch, 10) == dict.fromkeys(range(1, 11), True)
    assert all(ch.count(queue) == 10 for queue in queues)
    assert ch.idle(queues[0])


def test_consumed_on_the_way(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, durable=True)
    other.consume(queue)
    ch.confirm()
    for number in range(1, 51):
        ch.publish("", queue, b"x", delivery_mode=2)
        other.ack(other.delivery().tag)
        assert number
    assert confirms(ch, 50) == dict.fromkeys(range(1, 51), True)


def test_rejected_publish_is_nacked(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    ch.confirm()
    assert [ch.confirmed("", queue, b"x") for _ in range(4)] == [True, True, False, False]
    assert ch.count(queue) == 2
    assert ch.get(queue)
    assert ch.confirmed("", queue, b"y")


def test_rejected_by_one_of_two_queues_is_nacked(ch: Channel, name: Name) -> None:
    exchange, full, free = name("x"), name("full"), name("free")
    ch.exchange(exchange, "fanout")
    ch.queue(full, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    ch.queue(free)
    for queue in (full, free):
        ch.bind(queue, exchange)
    ch.confirm()
    assert [ch.confirmed(exchange, "", b"x") for _ in range(3)] == [True, False, False]
    assert [ch.count(full), ch.count(free)] == [1, 3]


def test_rejected_publish_is_not_returned(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    ch.confirm()
    ch.publish("", queue, b"x", mandatory=True)
    assert isinstance(ch.next(), Basic.Nack)


def test_an_error_after_publishing(ch: Channel, name: Name) -> None:
    """What was published before the error is in the queue, whether its confirm was still sent or not."""
    queue, missing = name(), name("missing")
    ch.queue(queue)
    ch.confirm()
    with channel_error(404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'", Basic.Publish):
        for _ in range(5):
            ch.publish("", queue, b"x")
        ch.publish(missing, "key", b"x")
        for _ in range(6):
            assert isinstance(ch.next(), Basic.Ack)
    second = ch.client.channel()
    second.settle(queue)
    assert second.count(queue) == 5
