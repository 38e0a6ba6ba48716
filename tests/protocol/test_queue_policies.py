"""What Qpid's users write about a queue's limits, through 0-9-1 and 1.0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
import pytest
from pamqp.commands import Basic, Queue

from dragoman import testing
from tests.wire import Channel, eventually
from tests.wire10 import ACCEPTED, REJECTED, SENDER, Client10, message

Name = Callable[..., str]

pytestmark = pytest.mark.dragoman_only("these options are Qpid's")


def bodies(ch: Channel, queue: str) -> list[bytes]:
    found = []
    while (got := ch.get(queue)) is not None:
        found.append(got.body)
    return found


@pytest.mark.parametrize("limit", [{"qpid.max_count": 3}, {"qpid.max_count": "3"}, {"qpid.max_size": 3},
                                   {"maximumQueueDepthMessages": 3}])
@pytest.mark.parametrize("policy", ["ring", "RING", "drop-head"])
def test_ring(ch: Channel, name: Name, limit: dict[str, Any], policy: str) -> None:
    queue = name()
    ch.queue(queue, arguments={**limit, "qpid.policy_type": policy})
    ch.confirm()
    assert all(ch.confirmed("", queue, body) for body in (b"1", b"2", b"3", b"4", b"5"))
    assert bodies(ch, queue) == [b"3", b"4", b"5"]


def test_ring_counts_what_consumers_have(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.max_count": 3, "qpid.policy_type": "ring"})
    ch.confirm()
    ch.put("", queue, b"1")
    first = ch.get(queue, no_ack=False)
    assert first is not None
    assert [ch.confirmed("", queue, body) for body in (b"2", b"3", b"4")] == [True, True, True]
    assert ch.count(queue) == 2  # 1 is unsettled, 2 has gone
    ch.ack(first.tag)
    ch.settle(queue)
    assert bodies(ch, queue) == [b"3", b"4"]


def test_ring_does_not_take_what_can_never_fit(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.max_size": 10, "qpid.policy_type": "ring"})
    ch.confirm()
    assert ch.confirmed("", queue, b"small")
    assert not ch.confirmed("", queue, b"larger than the queue")
    assert bodies(ch, queue) == [b"small"]


def test_ring_of_nothing_but_unsettled_messages_refuses(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.max_count": 1, "qpid.policy_type": "ring"})
    ch.confirm()
    ch.put("", queue, b"1")
    assert ch.get(queue, no_ack=False) is not None
    assert not ch.confirmed("", queue, b"2")


def test_ring_strict_drops_only_what_nobody_has(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.max_count": 2, "qpid.policy_type": "ring_strict"})
    ch.confirm()
    assert [ch.confirmed("", queue, body) for body in (b"1", b"2", b"3")] == [True, True, True]
    got = ch.get(queue, no_ack=False)
    assert got is not None and got.body == b"2"
    assert not ch.confirmed("", queue, b"4")
    ch.ack(got.tag)
    ch.settle(queue)
    assert bodies(ch, queue) == [b"3"]


@pytest.mark.parametrize("arguments", [{"qpid.max_count": 2}, {"qpid.max_size": 2, "qpid.policy_type": "reject"}])
def test_reject_counts_what_consumers_have(ch: Channel, name: Name, arguments: dict[str, Any]) -> None:
    queue = name()
    ch.queue(queue, arguments=arguments)
    ch.confirm()
    assert [ch.confirmed("", queue, b"x") for _ in range(3)] == [True, True, False]
    got = ch.get(queue, no_ack=False)
    assert got is not None
    assert not ch.confirmed("", queue, b"x")
    ch.ack(got.tag)
    ch.settle(queue)
    assert ch.confirmed("", queue, b"x")


def test_reject_after_a_purge(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, durable=True, arguments={"qpid.max_count": 2})
    ch.confirm()
    for _ in range(2):
        assert [ch.confirmed("", queue, b"x", delivery_mode=2) for _ in range(3)] == [True, True, False]
        ch.call(Queue.Purge(queue=queue))


def test_rejected_in_1_0(wire: Client10, ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.max_count": 1})
    wire.attach("in", SENDER, queue)
    wire.transfer(message(b"1"), b"1")
    assert wire.outcome()[4].descriptor == ACCEPTED
    wire.transfer(message(b"2"), b"2")
    refused = wire.outcome()[4]
    assert refused.descriptor == REJECTED and "resource-limit-exceeded" in str(refused.value)


@pytest.mark.parametrize("policy", ["flow_to_disk", "none", "FLOW_TO_DISK"])
def test_no_limit(ch: Channel, name: Name, policy: str) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.max_count": 1, "qpid.max_size": 1, "qpid.policy_type": policy})
    ch.confirm()
    assert all(ch.confirmed("", queue, b"many") for _ in range(5))
    assert ch.count(queue) == 5


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_self_destruct(ch: Channel, name: Name, durable: bool, watched: bool) -> None:
    queue = name()
    ch.queue(queue, durable=durable, arguments={"qpid.max_count": 2, "qpid.policy_type": "self-destruct"})
    if watched:
        ch.consume(queue)
    ch.confirm()
    mode = 2 if durable else 1
    for _ in range(3):
        ch.publish("", queue, b"x", delivery_mode=mode)
    acked: set[int] = set()
    while len(acked) < 3:
        got = ch.next()
        if isinstance(got, Basic.Ack):
            acked.update(range(1, got.delivery_tag + 1) if got.multiple else {got.delivery_tag})
    assert ch.gone(queue)


# Publishers are held

MARKS = [{"qpid.flow_stop_count": 3, "qpid.flow_resume_count": 1}, {"qpid.flow_stop_size": 3,
         "qpid.flow_resume_size": 1}, {"x-qpid-capacity": 3, "x-qpid-flow-resume-capacity": 1},
         {"qpid.max_count": 3, "qpid.policy_type": "producer_flow_control", "qpid.flow_resume_count": 1}]


def silent(ch: Channel) -> bool:
    """Whether nothing is on its way: the next answer is the one to this."""
    ch.send(Basic.Qos(prefetch_count=0))
    return isinstance(ch.next(), Basic.QosOk)


@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: next(iter(marks)))
@pytest.mark.parametrize("durable", [False, True])
def test_confirms_wait_until_the_queue_is_shorter(ch: Channel, name: Name, marks: dict[str, Any],
                                                  durable: bool) -> None:
    queue = name()
    ch.queue(queue, durable=durable, arguments=marks)
    other = ch.client.channel()
    ch.confirm()
    mode = 2 if durable else 1
    assert all(ch.confirmed("", queue, b"x", delivery_mode=mode) for _ in range(3))
    for _ in range(3):
        ch.publish("", queue, b"x", delivery_mode=mode)
    eventually(lambda: other.count(queue) == 6)
    assert silent(ch)
    for _ in range(4):
        assert other.get(queue) is not None
    assert other.count(queue) == 2 and silent(ch)
    assert other.get(queue) is not None
    got = 3
    while got < 6:
        ack = ch.expect(Basic.Ack)
        got = ack.delivery_tag
    assert ch.confirmed("", queue, b"x", delivery_mode=mode)


@pytest.mark.parametrize("how", ["purge", "delete"])
def test_publishers_go_on_when_the_queue_is_emptied(ch: Channel, name: Name, how: str) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.flow_stop_count": 1})
    other = ch.client.channel()
    ch.confirm()
    for _ in range(5):
        ch.publish("", queue, b"x")
    eventually(lambda: other.count(queue) == 5)
    other.call(Queue.Purge(queue=queue) if how == "purge" else Queue.Delete(queue=queue))
    seen = 0
    while seen < 5:
        seen = ch.expect(Basic.Ack).delivery_tag


def test_unsettled_messages_count(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.flow_stop_count": 2})
    other = ch.client.channel()
    other.consume(queue)
    ch.confirm()
    for _ in range(3):
        ch.publish("", queue, b"x")
    assert ch.expect(Basic.Ack).delivery_tag <= 2
    tags = [other.delivery().tag for _ in range(3)]
    other.ack(tags[-1], multiple=True)
    while ch.expect(Basic.Ack).delivery_tag < 3:
        pass


def test_who_asks_for_no_confirms_is_not_held(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.flow_stop_count": 1})
    for _ in range(100):
        ch.publish("", queue, b"x")
    eventually(lambda: ch.count(queue) == 100)
    assert len(bodies(ch, queue)) == 100


def test_a_held_publisher_that_goes_costs_nobody_anything(ch: Channel, name: Name,
                                                          connect: Callable[..., Any]) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.flow_stop_count": 1})
    other = connect().channel()
    other.confirm()
    for _ in range(5):
        other.publish("", queue, b"x")
    eventually(lambda: ch.count(queue) == 5)
    other.client.drop()
    assert len(bodies(ch, queue)) == 5
    ch.confirm()
    assert ch.confirmed("", queue, b"x")


def test_dispositions_wait_in_1_0(wire: Client10, ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"qpid.flow_stop_count": 1, "qpid.flow_resume_count": 1})
    wire.attach("in", SENDER, queue)
    wire.transfer(message(b"1"), b"1")
    assert wire.outcome()[1] == 0
    for number in (b"2", b"3"):
        wire.transfer(message(number), number)
    eventually(lambda: ch.count(queue) == 3)
    assert ch.get(queue) is not None
    assert ch.get(queue) is not None
    assert wire.outcome()[1] == 1


def test_marks_after_a_restart(tmp_path: Any) -> None:
    arguments = {"qpid.flow_stop_count": 3, "qpid.max_count": 3}
    for restarted in (False, True):
        with testing.broker(store=tmp_path / "data") as broker, \
                pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            channel = connection.channel()
            channel.queue_declare("q", durable=True, arguments=arguments)
            channel.confirm_delivery()
            if not restarted:
                for _ in range(3):
                    channel.basic_publish("", "q", b"x", pika.BasicProperties(delivery_mode=2))
            with pytest.raises(pika.exceptions.NackError):
                channel.basic_publish("", "q", b"x", pika.BasicProperties(delivery_mode=2))


# No-local

@pytest.mark.parametrize("value", [True, "true", 1])
def test_no_local(ch: Channel, other: Channel, name: Name, value: Any) -> None:
    queue = name()
    ch.queue(queue, arguments={"no-local": value})
    ch.put("", queue, b"of the declarer")
    other.put("", queue, b"of another")
    assert bodies(ch, queue) == [b"of another"]
    other.consume(queue, no_ack=True)
    ch.put("", queue, b"of the declarer, who does not consume")
    other.put("", queue, b"of the consumer")
    ch.put("", queue, b"last")
    assert other.deliveries(2) == [b"of the declarer, who does not consume", b"last"]
