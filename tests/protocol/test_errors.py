"""Every refusal of a method: reply code, text, class and method, and whether channel or connection is closed.

The texts are RabbitMQ's, so that what an application logs or matches stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.base import Frame
from pamqp.commands import Basic, Confirm, Connection, Exchange, Queue, Tx
from pamqp.commands import Channel as ChannelClass

from tests.wire import Channel, channel_error, connection_error, unchecked

Name = Callable[..., str]
Make = Callable[[str], Frame]

DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"

DECLARE: dict[str, Make] = {
    "declare": lambda queue: unchecked(Queue.Declare, queue=queue),
    "declare-exclusive": lambda queue: unchecked(Queue.Declare, queue=queue, exclusive=True),
    "declare-passive": lambda queue: unchecked(Queue.Declare, queue=queue, passive=True),
}
USE: dict[str, Make] = {
    "bind": lambda queue: Queue.Bind(0, queue, "amq.direct", "key"),
    "purge": lambda queue: Queue.Purge(0, queue),
    "consume": lambda queue: Basic.Consume(0, queue),
    "get": lambda queue: Basic.Get(0, queue),
}
REMOVE: dict[str, Make] = {
    "delete": lambda queue: Queue.Delete(0, queue),
    "unbind": lambda queue: Queue.Unbind(0, queue, "amq.direct", "key"),
}


def cases(*tables: dict[str, Make]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("make", [pytest.param(make, id=label) for table in tables
                                            for label, make in table.items()])


def locked(queue: str) -> str:
    return (f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be "
            "originally declared on another connection or the exclusive property value does not match that of the "
            "original declaration.")


def refuse(ch: Channel, method: Frame, code: int, text: str) -> None:
    """The method closes the channel, and nothing but the channel."""
    with channel_error(code, text, type(method)):
        ch.call(method)
    ch.client.channel().close()


# Queues by name

@cases(USE, {"declare-passive": DECLARE["declare-passive"]})
def test_missing_queue(ch: Channel, name: Name, make: Make) -> None:
    queue = name()
    refuse(ch, make(queue), 404, f"NOT_FOUND - no queue '{queue}' in vhost '/'")


@cases(REMOVE)
def test_removing_a_missing_queue_or_binding_is_fine(ch: Channel, name: Name, make: Make) -> None:
    answer = ch.call(make(name()))
    assert isinstance(answer, Queue.UnbindOk) or answer.message_count == 0


@cases(USE, REMOVE)
def test_last_queue_when_there_is_none(ch: Channel, make: Make) -> None:
    refuse(ch, make(""), 404, "NOT_FOUND - no previously declared queue")


def test_passive_declare_never_means_the_last_queue(ch: Channel) -> None:
    ch.queue(exclusive=True)
    refuse(ch, unchecked(Queue.Declare, queue="", passive=True), 404, "NOT_FOUND - no queue '' in vhost '/'")


@cases(DECLARE, USE, {"delete": REMOVE["delete"]})
def test_queue_of_another_connection(ch: Channel, other: Channel, name: Name, make: Make) -> None:
    queue = name()
    other.queue(queue, exclusive=True)
    refuse(ch, make(queue), 405, locked(queue))
    assert other.count(queue) == 0


def test_another_channel_of_the_same_connection_may_use_an_exclusive_queue(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, exclusive=True)
    second = ch.client.channel()
    second.publish("", queue, b"x")
    second.bind(queue, "amq.direct", queue)
    second.consume(queue, no_ack=True)
    assert second.delivery().body == b"x"


def test_publishing_to_an_exclusive_queue_is_open_to_all(ch: Channel, other: Channel, name: Name) -> None:
    queue = name()
    other.queue(queue, exclusive=True)
    ch.confirm()
    assert ch.confirmed("", queue, b"x")
    assert other.count(queue) == 1


@pytest.mark.parametrize("queue", ["amq.wire", "amq.", "amq.gen-mine"])
def test_reserved_queue_name(ch: Channel, queue: str) -> None:
    refuse(ch, unchecked(Queue.Declare, queue=queue), 403,
           f"ACCESS_REFUSED - queue name '{queue}' contains reserved prefix 'amq.*'")


def test_reserved_queue_name_may_be_asked_for(ch: Channel) -> None:
    refuse(ch, unchecked(Queue.Declare, queue="amq.wire", passive=True), 404,
           "NOT_FOUND - no queue 'amq.wire' in vhost '/'")


# Exchanges by name

SOURCE: dict[str, Make] = {
    "queue.bind": lambda exchange: Queue.Bind(0, "wire-no-such-queue", exchange, "key"),
    "exchange.bind source": lambda exchange: Exchange.Bind(0, "amq.direct", exchange, "key"),
}
DESTINATION: dict[str, Make] = {
    "exchange.bind destination": lambda exchange: Exchange.Bind(0, exchange, "amq.direct", "key"),
}
UNBIND: dict[str, Make] = {
    "queue.unbind": lambda exchange: Queue.Unbind(0, "wire-no-such-queue", exchange, "key"),
    "exchange.unbind source": lambda exchange: Exchange.Unbind(0, "amq.direct", exchange, "key"),
    "exchange.unbind destination": lambda exchange: Exchange.Unbind(0, exchange, "amq.direct", "key"),
}
EXCHANGE: dict[str, Make] = {
    "declare": lambda exchange: unchecked(Exchange.Declare, exchange=exchange),
    "declare-passive": lambda exchange: unchecked(Exchange.Declare, exchange=exchange, passive=True),
    "delete": lambda exchange: Exchange.Delete(0, exchange),
}


@cases(SOURCE, DESTINATION, {"declare-passive": EXCHANGE["declare-passive"]})
def test_missing_exchange(ch: Channel, name: Name, make: Make) -> None:
    exchange = name("x")
    refuse(ch, make(exchange), 404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'")


def test_missing_source_is_told_before_missing_destination(ch: Channel, name: Name) -> None:
    source, destination = name("source"), name("destination")
    refuse(ch, Exchange.Bind(0, destination, source, "key"), 404, f"NOT_FOUND - no exchange '{source}' in vhost '/'")


@cases(UNBIND, {"delete": EXCHANGE["delete"]})
def test_removing_a_missing_exchange_or_binding_is_fine(ch: Channel, name: Name, make: Make) -> None:
    ch.call(make(name("x")))


@cases(DESTINATION, SOURCE, UNBIND, EXCHANGE)
def test_default_exchange_is_not_to_be_touched(ch: Channel, name: Name, make: Make) -> None:
    ch.queue(exclusive=True)
    method = make("")
    if isinstance(method, Queue.Bind | Queue.Unbind):
        method.queue = ""
    refuse(ch, method, 403, DEFAULT_EXCHANGE)


@pytest.mark.parametrize("exchange", ["amq.wire", "amq."])
def test_reserved_exchange_name(ch: Channel, exchange: str) -> None:
    refuse(ch, unchecked(Exchange.Declare, exchange=exchange), 403,
           f"ACCESS_REFUSED - exchange name '{exchange}' contains reserved prefix 'amq.*'")


def test_reserved_exchange_name_may_be_asked_for(ch: Channel) -> None:
    refuse(ch, unchecked(Exchange.Declare, exchange="amq.wire", passive=True), 404,
           "NOT_FOUND - no exchange 'amq.wire' in vhost '/'")


@pytest.mark.parametrize("exchange", ["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"])
def test_predeclared_exchange_is_not_deleted(ch: Channel, exchange: str) -> None:
    refuse(ch, Exchange.Delete(0, exchange), 403,
           f"ACCESS_REFUSED - deletion of system exchange '{exchange}' in vhost '/' not allowed")


@pytest.mark.parametrize("kind", ["wire-no-such-type", "foo", ""])
def test_unknown_exchange_type(ch: Channel, name: Name, kind: str) -> None:
    # RabbitMQ says "invalid" when its virtual machine happens to know the word.
    with connection_error(503, re.compile(f"COMMAND_INVALID - (unknown|invalid) exchange type '{kind}'"),
                          Exchange.Declare):
        ch.exchange(name("x"), kind)


def test_passive_declare_does_not_look_at_the_type(ch: Channel) -> None:
    ch.exchange("amq.direct", "wire-no-such-type", passive=True)


def test_alternate_exchange_must_be_text(ch: Channel, name: Name) -> None:
    exchange = name("x")
    refuse(ch, Exchange.Declare(0, exchange, arguments={"alternate-exchange": 3}), 406,
           "PRECONDITION_FAILED - invalid type 'byte' for arg 'alternate-exchange' in exchange "
           f"'{exchange}' in vhost '/'")


# Conditions of queue.delete and exchange.delete

def test_delete_if_empty(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.publish("", queue, b"x")
    refuse(ch, Queue.Delete(0, queue, if_empty=True), 406,
           f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty")


@pytest.mark.parametrize("if_empty", [False, True])
def test_delete_if_unused(ch: Channel, other: Channel, name: Name, if_empty: bool) -> None:
    queue = name()
    other.queue(queue)
    other.consume(queue)
    refuse(ch, Queue.Delete(0, queue, if_unused=True, if_empty=if_empty), 406,
           f"PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use")


@pytest.mark.parametrize("to_exchange", [False, True])
def test_exchange_delete_if_unused(ch: Channel, name: Name, to_exchange: bool) -> None:
    exchange, destination = name("x"), name("destination")
    ch.exchange(exchange)
    if to_exchange:
        ch.exchange(destination)
        ch.call(Exchange.Bind(0, destination, exchange, "key"))
    else:
        ch.queue(destination, exclusive=True)
        ch.bind(destination, exchange, "key")
    refuse(ch, Exchange.Delete(0, exchange, if_unused=True), 406,
           f"PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use")


# Consumers and acknowledgements

def test_consumer_tag_in_use(ch: Channel) -> None:
    ch.queue(exclusive=True)
    ch.consume("", "tag")
    with connection_error(530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'", Basic.Consume):
        ch.consume("", "tag")


@pytest.mark.parametrize("first, second", [(True, False), (False, True), (True, True)])
def test_exclusive_consumer(ch: Channel, name: Name, first: bool, second: bool) -> None:
    queue = name()
    ch.queue(queue)
    ch.consume(queue, exclusive=first)
    refuse(ch, Basic.Consume(0, queue, exclusive=second), 403,
           f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use")


def test_exclusive_consumer_of_a_single_active_consumer_queue(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-single-active-consumer": True})
    refuse(ch, Basic.Consume(0, queue, exclusive=True), 403,
           f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use")


def test_consumer_priority_must_be_a_number(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, exclusive=True)
    refuse(ch, Basic.Consume(0, queue, arguments={"x-priority": "high"}), 406,
           f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost '/': "
           "\"expected integer, got longstr\"")


@pytest.mark.parametrize("method", [Basic.Ack(1), Basic.Ack(1, True), Basic.Ack(0), Basic.Nack(1), Basic.Nack(7, True),
                                    Basic.Nack(0), Basic.Reject(1), Basic.Reject(0), Basic.Ack(1 << 62)],
                         ids=lambda method: f"{method.name} {dict(method)}")
def test_unknown_delivery_tag(ch: Channel, method: Any) -> None:
    with channel_error(406, f"PRECONDITION_FAILED - unknown delivery tag {method.delivery_tag}", type(method)):
        ch.send(method)
        ch.next()


@pytest.mark.parametrize("method", [Basic.Ack(0, True), Basic.Nack(0, True)], ids=["ack", "nack"])
def test_settling_all_of_nothing_is_fine(ch: Channel, method: Frame) -> None:
    ch.send(method)
    ch.queue(exclusive=True)


def test_settling_twice(ch: Channel) -> None:
    queue = ch.temporary()
    ch.publish("", queue, b"x")
    got = ch.get(queue, no_ack=False)
    assert got is not None
    ch.ack(got.tag)
    with channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 1", Basic.Ack):
        ch.ack(got.tag)
        ch.next()


def test_settling_what_needs_none(ch: Channel) -> None:
    queue = ch.temporary()
    ch.publish("", queue, b"x")
    assert ch.get(queue, no_ack=True)
    with channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 1", Basic.Ack):
        ch.ack(1)
        ch.next()


def test_settling_on_another_channel(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.publish("", queue, b"x")
    assert ch.get(queue, no_ack=False)
    second = ch.client.channel()
    with channel_error(406, "PRECONDITION_FAILED - unknown delivery tag 1", Basic.Ack):
        second.ack(1)
        second.next()


# What is in the protocol and not served

@pytest.mark.parametrize("global_", [False, True])
def test_prefetch_size_is_not_implemented(ch: Channel, global_: bool) -> None:
    with connection_error(540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", Basic.Qos):
        ch.call(Basic.Qos(1, 0, global_))


def test_immediate_is_not_implemented(ch: Channel) -> None:
    queue = ch.temporary()
    with connection_error(540, "NOT_IMPLEMENTED - immediate=true", Basic.Publish):
        ch.publish("", queue, b"x", immediate=True)
        ch.next()


# Modes of a channel

@pytest.mark.parametrize("before, method, text", [
    (None, Tx.Commit(), "channel is not transactional"),
    (None, Tx.Rollback(), "channel is not transactional"),
    (Confirm.Select(), Tx.Commit(), "channel is not transactional"),
    (Confirm.Select(), Tx.Select(), "cannot switch from confirm to tx mode"),
    (Tx.Select(), Confirm.Select(), "cannot switch from tx to confirm mode"),
], ids=["commit", "rollback", "commit in confirm mode", "select in confirm mode", "confirm in tx mode"])
def test_channel_mode(ch: Channel, before: Frame | None, method: Frame, text: str) -> None:
    if before is not None:
        ch.call(before)
    refuse(ch, method, 406, f"PRECONDITION_FAILED - {text}")


@pytest.mark.parametrize("method", [Tx.Select(), Confirm.Select()], ids=["tx", "confirm"])
def test_channel_mode_may_be_selected_again(ch: Channel, method: Frame) -> None:
    ch.call(method)
    ch.call(method)


# Methods out of place

def test_channel_opened_twice(ch: Channel) -> None:
    with connection_error(504, "CHANNEL_ERROR - second 'channel.open' seen", ChannelClass.Open):
        ch.call(ChannelClass.Open())


@pytest.mark.parametrize("method", [Basic.Qos(), ChannelClass.Close(200, "", 0, 0), ChannelClass.Flow(True),
                                    Queue.Declare(0, "x"), Basic.Ack(1), Tx.Select(), ChannelClass.CloseOk()],
                         ids=lambda method: method.name)
def test_method_on_a_channel_that_is_not_open(ch: Channel, method: Frame) -> None:
    with connection_error(504, "CHANNEL_ERROR - expected 'channel.open'", type(method)):
        ch.client.send(77, method)
        ch.client.next(77)


@pytest.mark.parametrize("method", [ChannelClass.Open(), Basic.Qos(), Queue.Declare(0, "x"), Tx.Select(),
                                    Connection.StartOk({}, "PLAIN", "", "en_US"), Connection.TuneOk(0, 0, 0),
                                    Connection.Open("/"), Connection.SecureOk(""), Connection.CloseOk(),
                                    Connection.Start(0, 9, {}, "", ""), Connection.Tune(0, 0, 0)],
                         ids=lambda method: method.name)
def test_method_out_of_place_on_channel_0(ch: Channel, method: Frame) -> None:
    with connection_error(504, "CHANNEL_ERROR - unexpected method in connection state running", type(method)):
        ch.client.send(0, method)
        ch.client.next()


@pytest.mark.parametrize("method", [Connection.Open("/"), Connection.TuneOk(0, 0, 0), Queue.DeclareOk("x", 0, 0),
                                    Connection.Close(200, "", 0, 0), Basic.GetEmpty(), Basic.ConsumeOk("x"),
                                    Tx.SelectOk(), Exchange.DeclareOk(), Basic.QosOk()],
                         ids=lambda method: method.name)
def test_method_out_of_place_on_a_channel(ch: Channel, method: Frame) -> None:
    with connection_error(503, "COMMAND_INVALID - unimplemented method", type(method)):
        ch.send(method)
        ch.next()
