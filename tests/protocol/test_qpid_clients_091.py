"""What Qpid's clients of 0-8 to 0-9-1 expect of a broker, and RabbitMQ's do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp.commands import Basic, Connection, Queue, Tx

from tests.wire import Channel, Client, raw_method, shortstr, unchecked

Name = Callable[..., str]
BROWSE = {"x-filter-no-consume": True}
LOOK = {"x-filter-no-consume": True, "x-filter-auto-close": True}


def test_the_product_has_qpid_in_it(dial: Callable[[], Client]) -> None:
    client = dial()  # or its clients never send exchange.bound
    client.write(b"AMQP\x00\x00\x09\x01")
    assert "qpid" in client.expect(Connection.Start).server_properties["product"].lower()


def test_browsing_leaves_messages_where_they_are(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for body in (b"one", b"two"):
        ch.put("", queue, body)
    tag = ch.consume(queue, arguments=BROWSE)
    for body in (b"one", b"two"):
        got = ch.delivery()
        assert got.body == body
        ch.ack(got.method.delivery_tag)
    ch.put("", queue, b"three")
    assert ch.delivery().body == b"three"
    ch.call(Basic.Cancel(tag))
    assert ch.count(queue) == 3


def test_a_browser_that_leaves_is_cancelled_at_the_end(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for number in range(3):
        ch.put("", queue, b"%d" % number)
    tag = ch.consume(queue, arguments=LOOK)
    for number in range(3):
        assert ch.delivery().body == b"%d" % number
    assert ch.expect(Basic.CancelOk).consumer_tag == tag
    assert ch.count(queue) == 3


def test_a_browser_that_leaves_waits_for_its_prefetch(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    for number in range(3):
        ch.put("", queue, b"%d" % number)
    ch.call(Basic.Qos(0, 2, False))
    tag = ch.consume(queue, arguments=LOOK)
    first, second = ch.delivery(), ch.delivery()
    ch.ack(first.method.delivery_tag)
    assert ch.delivery().body == b"2"
    ch.ack(second.method.delivery_tag)
    assert ch.expect(Basic.CancelOk).consumer_tag == tag


def test_a_browser_of_an_empty_queue_leaves_at_once(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    tag = ch.consume(queue, arguments=LOOK)
    assert ch.expect(Basic.CancelOk).consumer_tag == tag


def test_what_the_jms_client_gives_back_is_no_part_of_its_transaction(connect: Callable[..., Client],
                                                                      name: Name) -> None:
    for properties, count in (({"product": "Qpid Java Client"}, 1), ({}, 0)):
        ch: Any = connect(properties=properties).channel()
        queue = name()
        ch.queue(queue)
        ch.put("", queue, b"x")
        ch.call(Tx.Select())
        tag = ch.consume(queue)
        got = ch.delivery()
        ch.call(Basic.Cancel(tag))
        ch.send(Basic.Reject(got.method.delivery_tag, True))
        ch.call(Tx.Rollback())
        assert ch.count(queue) == count


def test_recover_of_qpids_08_has_an_answer(dial: Callable[[], Client]) -> None:
    client = dial()
    client.write(b"AMQP\x01\x01\x08\x00")
    client.expect(Connection.Start)
    client.send(0, Connection.StartOk({"product": "Qpid Java Client"}, "PLAIN", "\0guest\0guest", "en_US"))
    client.expect(Connection.Tune)
    client.send(0, Connection.TuneOk(2047, 131072, 0))
    client.write(raw_method(0, 10, 40, shortstr("/") + shortstr("") + b"\x01"))
    client.read_raw()
    client.write(raw_method(1, 20, 10, shortstr("")))
    client.read_raw()
    client.write(raw_method(1, 60, 100, b"\x01"))
    assert client.read_raw() == raw_method(1, 60, 101, b"")


JMS = {"product": "Qpid Java Client", "instance": "one"}


def test_no_local_for_a_client_with_an_id(connect: Callable[..., Client], name: Name) -> None:
    ch: Any = connect(properties=JMS).channel()
    other: Any = connect(properties={**JMS, "instance": "two"}).channel()
    queue = name()
    ch.queue(queue)
    tag = ch.consume(queue, no_local=True)
    ch.put("", queue, b"own", message_id="m")
    other.put("", queue, b"foreign", message_id="m")
    assert ch.delivery().body == b"foreign"
    ch.call(Basic.Cancel(tag))
    assert ch.count(queue) == 1


def test_a_durable_subscription_outlives_its_connection(connect: Callable[..., Client], name: Name) -> None:
    first = connect(properties=JMS)
    ch: Any = first.channel()
    queue = name()
    ch.queue(queue, durable=True, exclusive=True)
    ch.put("", queue, b"kept")
    first.close()
    again: Any = connect(properties=JMS).channel()
    again.queue(queue, durable=True, exclusive=True)
    assert again.count(queue) == 1
    again.call(unchecked(Queue.Delete, queue=queue))
