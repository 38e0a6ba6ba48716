"""What queue.declare and exchange.declare refuse: arguments that cannot be, and redeclaring with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Exchange, Queue

from tests.wire import Channel, channel_error, longstr, raw_method, shortstr

Name = Callable[..., str]
TEXT = '"expected integer, got longstr"'


@pytest.mark.parametrize("arguments, wrong", [
    ({"x-expires": 0}, "{value_zero,0}"),
    ({"x-expires": -1}, "{value_negative,-1}"),
    ({"x-expires": "1000"}, TEXT),
    ({"x-expires": 1.5}, '"expected integer, got float"'),
    ({"x-expires": 1 << 62}, "{value_too_large,4611686018427387904}"),
    ({"x-message-ttl": -1}, "{value_negative,-1}"),
    ({"x-message-ttl": "1000"}, TEXT),
    ({"x-message-ttl": 1 << 62}, "{value_too_large,4611686018427387904}"),
    ({"x-max-length": -1}, "{value_negative,-1}"),
    ({"x-max-length": "1"}, TEXT),
    ({"x-max-length": None}, '"expected integer, got void"'),
    ({"x-max-length": {"a": 1}}, '"expected integer, got table"'),
    ({"x-max-length": [1]}, '"expected integer, got array"'),
    ({"x-max-length-bytes": -1}, "{value_negative,-1}"),
    ({"x-max-length-bytes": True}, '"expected integer, got bool"'),
    ({"x-overflow": "drop-tail"}, "invalid_overflow"),
    ({"x-overflow": 3}, "{unacceptable_type,byte}"),
    ({"x-dead-letter-routing-key": "key"}, "routing_key_but_no_dlx_defined"),
    ({"x-dead-letter-exchange": "x", "x-dead-letter-routing-key": 3}, "{unacceptable_type,byte}"),
    ({"x-max-priority": -1}, "{value_negative,-1}"),
    ({"x-max-priority": 256}, "{max_value_exceeded,256}"),
    ({"x-max-priority": "9"}, TEXT),
    ({"x-single-active-consumer": 1}, "{unacceptable_type,byte}"),
    ({"x-queue-type": "mirror"}, "\"unsupported queue type 'mirror'\""),
    ({"x-queue-type": 3}, "{unacceptable_type,byte}"),
    ({"x-queue-mode": "busy"}, "\"unsupported queue mode 'busy'\""),
], ids=lambda value: ",".join(f"{key}={one!r}" for key, one in value.items()) if isinstance(value, dict) else "")
def test_impossible_argument(ch: Channel, name: Name, arguments: dict[str, Any], wrong: str) -> None:
    queue = name()
    argument = "x-dead-letter-routing-key" if "x-dead-letter-routing-key" in arguments else next(iter(arguments))
    with channel_error(406, f"PRECONDITION_FAILED - invalid arg '{argument}' for queue '{queue}' in vhost '/': {wrong}",
                       Queue.Declare):
        ch.queue(queue, arguments=arguments)
    assert not ch.exists(queue)


def test_dead_letter_exchange_must_be_text(ch: Channel, name: Name) -> None:
    queue = name()
    with channel_error(406, "PRECONDITION_FAILED - invalid type 'byte' for arg 'x-dead-letter-exchange' in queue "
                       f"'{queue}' in vhost '/'", Queue.Declare):
        ch.queue(queue, arguments={"x-dead-letter-exchange": 3})


@pytest.mark.parametrize("arguments", [
    {"x-message-ttl": 0}, {"x-message-ttl": 1 << 32}, {"x-expires": 1 << 32}, {"x-max-length": 0},
    {"x-max-length-bytes": 0}, {"x-max-priority": 0}, {"x-max-priority": 255}, {"x-single-active-consumer": False},
    {"x-queue-type": "classic"}, {"x-queue-mode": "lazy"}, {"x-queue-mode": "default"}, {"x-overflow": "drop-head"},
    {"x-overflow": "reject-publish"}, {"x-overflow": "reject-publish-dlx"}, {"x-dead-letter-exchange": ""},
    {"x-dead-letter-exchange": "wire-no-such-exchange"},
    {"x-unknown": "x"}, {"x-unknown": {"deep": [1, None]}}, {"anything": -1}, {"alternate-exchange": "x"},
    {"x-queue-version": 2}, {"x-queue-master-locator": "client-local"}, {"x-ha-policy": "all"},
], ids=repr)
def test_possible_argument(ch: Channel, name: Name, arguments: dict[str, Any]) -> None:
    queue = name()
    assert ch.queue(queue, exclusive=True, arguments=arguments).queue == queue
    assert ch.queue(queue, exclusive=True, arguments=arguments).queue == queue


@pytest.mark.parametrize("options, wrong", [
    ({}, "non-durable"), ({"durable": True, "exclusive": True}, "exclusive-owner"),
    ({"durable": True, "auto_delete": True}, "auto-delete"),
], ids=["transient", "exclusive", "auto-delete"])
def test_quorum_queue_must_be_lasting(ch: Channel, name: Name, options: dict[str, bool], wrong: str) -> None:
    queue = name()
    with channel_error(406, f"PRECONDITION_FAILED - invalid property '{wrong}' for queue '{queue}' in vhost '/'",
                       Queue.Declare):
        ch.queue(queue, arguments={"x-queue-type": "quorum"}, **options)


def test_quorum_is_a_name_for_a_durable_queue(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3})
    ch.confirm()
    assert ch.confirmed("", queue, b"x", delivery_mode=2)
    assert ch.wait_get(queue).body == b"x"


@pytest.mark.dragoman_only("RabbitMQ has streams")
def test_stream_is_refused(ch: Channel, name: Name) -> None:
    queue = name()
    with channel_error(406, f"PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue '{queue}' in vhost '/': "
                       "\"unsupported queue type 'stream'\"", Queue.Declare):
        ch.queue(queue, durable=True, arguments={"x-queue-type": "stream"})


@pytest.mark.dragoman_only("RabbitMQ's classic queues have no delivery limit")
def test_delivery_limit_of_any_queue(ch: Channel, name: Name) -> None:
    ch.queue(name(), arguments={"x-delivery-limit": 3})


# Redeclaring

@pytest.mark.parametrize("before, after, argument, difference", [
    ({}, {"durable": True}, "durable", "received 'true' but current is 'false'"),
    ({"durable": True}, {}, "durable", "received 'false' but current is 'true'"),
    ({}, {"auto_delete": True}, "auto_delete", "received 'true' but current is 'false'"),
    ({"auto_delete": True}, {}, "auto_delete", "received 'false' but current is 'true'"),
    ({}, {"durable": True, "auto_delete": True}, "durable", "received 'true' but current is 'false'"),
    ({}, {"auto_delete": True, "arguments": {"x-max-length": 1}}, "auto_delete",
     "received 'true' but current is 'false'"),
], ids=repr)
def test_redeclare_with_other_flags(ch: Channel, name: Name, before: dict[str, Any], after: dict[str, Any],
                                    argument: str, difference: str) -> None:
    queue = name()
    ch.queue(queue, **before)
    with channel_error(406, f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{queue}' in vhost '/': "
                       f"{difference}", Queue.Declare):
        ch.queue(queue, **after)


@pytest.mark.parametrize("argument, value, another, kind", [
    ("x-message-ttl", 1000, 1001, "short"),
    ("x-expires", 60000, 60001, "unsignedshort"),
    ("x-max-length", 1, 2, "byte"),
    ("x-max-length", 3_000_000_000, 2, "unsignedint"),
    ("x-max-length-bytes", 100000, 2, "signedint"),
    ("x-max-length-bytes", 1 << 40, 2, "long"),
    ("x-max-priority", 1, 2, "byte"),
    ("x-overflow", "drop-head", "reject-publish", "longstr"),
    ("x-dead-letter-exchange", "a", "b", "longstr"),
    ("x-single-active-consumer", True, False, "bool"),
    ("x-queue-mode", "lazy", "default", "longstr"),
])
def test_redeclare_with_another_argument(ch: Channel, name: Name, argument: str, value: Any, another: Any,
                                         kind: str) -> None:
    def text(received: Any, current: Any) -> str:
        return (f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{queue}' in vhost '/': "
                f"received {received} but current is {current}")

    def say(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    queue, bare = name(), name("bare")
    ch.queue(queue, arguments={argument: value})
    ch.queue(queue, arguments={argument: value})
    with channel_error(406, text(f"'{say(another)}'", f"'{say(value)}'"), Queue.Declare):
        ch.queue(queue, arguments={argument: another})
    ch = ch.client.channel()
    with channel_error(406, text("none", f"the value '{say(value)}' of type '{kind}'"), Queue.Declare):
        ch.queue(queue)
    ch, queue = ch.client.channel(), bare
    ch.queue(bare)
    with channel_error(406, text(f"the value '{say(value)}' of type '{kind}'", "none"), Queue.Declare):
        ch.queue(bare, arguments={argument: value})


def test_redeclare_with_another_dead_letter_routing_key(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-dead-letter-exchange": "a", "x-dead-letter-routing-key": "x"})
    with channel_error(406, f"PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-routing-key' for queue '{queue}' "
                       "in vhost '/': received 'y' but current is 'x'", Queue.Declare):
        ch.queue(queue, arguments={"x-dead-letter-exchange": "a", "x-dead-letter-routing-key": "y"})


def test_redeclare_as_exclusive(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    with channel_error(405, f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. "
                       "It could be originally declared on another connection or the exclusive property value does not "
                       "match that of the original declaration.", Queue.Declare):
        ch.queue(queue, exclusive=True)


@pytest.mark.parametrize("before, after", [
    ({"x-unknown": 1}, {}), ({}, {"x-unknown": 1}), ({"x-unknown": 1}, {"x-unknown": "x"}),
    ({}, {"x-queue-type": "classic"}), ({"x-queue-type": "classic"}, {}),
], ids=repr)
def test_redeclare_with_what_does_not_matter(ch: Channel, name: Name, before: dict[str, Any],
                                             after: dict[str, Any]) -> None:
    queue = name()
    ch.queue(queue, arguments=before)
    ch.queue(queue, arguments=after)


@pytest.mark.parametrize("code, size", [(b"l", 8), (b"I", 4), (b"s", 2), (b"b", 1), (b"B", 1), (b"u", 2), (b"i", 4)])
def test_redeclare_with_another_width_of_number(ch: Channel, name: Name, code: bytes, size: int) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-max-length": 100})
    table = shortstr("x-max-length") + code + (100).to_bytes(size, "big")
    ch.client.write(raw_method(ch.number, 50, 10, b"\0\0" + shortstr(queue) + b"\0" + longstr(table)))
    assert ch.expect(Queue.DeclareOk).queue == queue


def test_passive_declare_compares_nothing(ch: Channel, name: Name) -> None:
    queue, exchange = name(), name("x")
    ch.queue(queue)
    assert ch.queue(queue, passive=True, durable=True, auto_delete=True, arguments={"x-max-length": 9}).queue == queue
    ch.exchange(exchange)
    ch.exchange(exchange, "topic", passive=True, durable=True, internal=True)


@pytest.mark.parametrize("before, after, argument, difference", [
    ({}, {"kind": "topic"}, "type", "received 'topic' but current is 'direct'"),
    ({}, {"durable": True}, "durable", "received 'true' but current is 'false'"),
    ({}, {"auto_delete": True}, "auto_delete", "received 'true' but current is 'false'"),
    ({}, {"internal": True}, "internal", "received 'true' but current is 'false'"),
    ({"kind": "fanout", "durable": True}, {}, "type", "received 'direct' but current is 'fanout'"),
    ({}, {"arguments": {"alternate-exchange": "b"}}, "alternate-exchange",
     "received the value 'b' of type 'longstr' but current is none"),
    ({"arguments": {"alternate-exchange": "a"}}, {"arguments": {"alternate-exchange": "b"}}, "alternate-exchange",
     "received 'b' but current is 'a'"),
    ({"arguments": {"alternate-exchange": "a"}}, {}, "alternate-exchange",
     "received none but current is the value 'a' of type 'longstr'"),
], ids=repr)
def test_redeclare_exchange(ch: Channel, name: Name, before: dict[str, Any], after: dict[str, Any], argument: str,
                            difference: str) -> None:
    exchange = name("x")
    ch.exchange(exchange, **before)
    ch.exchange(exchange, **before)
    with channel_error(406, f"PRECONDITION_FAILED - inequivalent arg '{argument}' for exchange '{exchange}' in vhost "
                       f"'/': {difference}", Exchange.Declare):
        ch.exchange(exchange, **after)


def test_redeclare_exchange_with_unknown_arguments(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, arguments={"x-unknown": 1})
    ch.exchange(exchange)
    ch.exchange(exchange, arguments={"x-other": "x"})


@pytest.mark.parametrize("exchange, kind", [("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.topic", "topic"),
                                            ("amq.headers", "headers"), ("amq.match", "headers")])
def test_predeclared_exchange_may_be_declared_as_it_is(ch: Channel, exchange: str, kind: str) -> None:
    ch.exchange(exchange, kind, durable=True)
    with channel_error(406, f"PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '{exchange}' in vhost '/': "
                       "received 'false' but current is 'true'", Exchange.Declare):
        ch.exchange(exchange, kind)
