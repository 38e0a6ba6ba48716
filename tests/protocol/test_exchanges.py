"""How each type of exchange routes, and how exchanges and bindings come and go."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Exchange, Queue

from tests.wire import Channel, channel_error, connection_error, eventually, longstr, raw_header, raw_method, shortstr

Name = Callable[..., str]


def routed(ch: Channel, exchange: str, routing_key: str, **properties: Any) -> bool:
    """Publish, and say whether a queue got it (else it comes back, being mandatory)."""
    ch.publish(exchange, routing_key, b"x", mandatory=True, **properties)
    first = ch.next()
    if first.name == "Basic.Ack":
        return True
    assert first.method.reply_code == 312
    assert ch.next().name == "Basic.Ack"
    return False


def bound(ch: Channel, exchange: str, routing_key: str = "", arguments: dict[str, Any] | None = None) -> str:
    """A new exclusive queue, bound."""
    queue = ch.temporary()
    ch.bind(queue, exchange, routing_key, arguments)
    return queue


# Types

def test_default_exchange(ch: Channel, name: Name) -> None:
    queue = name()
    ch.confirm()
    ch.queue(queue)
    assert routed(ch, "", queue)
    assert not routed(ch, "", queue + ".")
    assert not routed(ch, "", queue.upper())


def test_direct(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange)
    one, two, both = bound(ch, exchange, "one"), bound(ch, exchange, "two"), bound(ch, exchange, "one")
    ch.bind(both, exchange, "two")
    for key in ("one", "two", "three", "", "One", "one."):
        ch.put(exchange, key, key.encode())
    assert [ch.count(queue) for queue in (one, two, both)] == [1, 1, 2]
    got = ch.get(one)
    assert got and (got.method.exchange, got.method.routing_key, got.body) == (exchange, "one", b"one")


def test_fanout_ignores_keys(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "fanout")
    queues = [bound(ch, exchange), bound(ch, exchange, "a"), bound(ch, exchange, "b")]
    ch.bind(queues[1], exchange, "c")  # a second binding is no second copy
    ch.put(exchange, "whatever", b"x")
    assert [ch.count(queue) for queue in queues] == [1, 1, 1]


TOPICS = [
    ("a.b.c", ["a.b.c"], ["a.b", "a.b.c.d", "a.b.x", "", "a.b.", "A.b.c"]),
    ("*", ["a"], ["", "a.b", "a.", "."]),  # the empty key has no words
    ("#", ["", "a", "a.b", "a.b.c", ".", ".."], []),
    ("*.*", ["a.b", ".", "a."], ["a", "", "a.b.c"]),
    ("a.*.c", ["a.b.c", "a..c"], ["a.c", "a.b.b.c", "a.b.c.d"]),
    ("a.#", ["a", "a.", "a.b", "a.b.c"], ["", "b.a", "ab"]),
    ("#.a", ["a", "b.a", "c.b.a", ".a"], ["a.b", "ba", ""]),
    ("#.a.#", ["a", "b.a", "a.b", "b.a.c", "a.a"], ["b", "", "ab.ba"]),
    ("a.#.c", ["a.c", "a.b.c", "a.b.b.c", "a.c.c"], ["a", "c", "a.c.d"]),
    ("#.#", ["", "a", "a.b"], []),
    ("#.*", ["a", "a.b"], [""]),
    ("*.#", ["a", "a.b", "a.b.c"], [""]),
    ("#.*.#.a", ["b.a", "c.b.a", "a.a"], ["a", ""]),
    ("", [""], ["a", "."]),
    ("a..b", ["a..b"], ["a.b", "a.x.b"]),
    ("a*", ["a*"], ["ab", "a"]),
    ("a#", ["a#"], ["a", "ab"]),
    ("**", ["**"], ["a", "a.b"]),
    ("*.é", ["x.é"], ["x.e"]),
]


@pytest.mark.parametrize("pattern, matching, others", TOPICS, ids=[repr(topic[0]) for topic in TOPICS])
def test_topic(ch: Channel, name: Name, pattern: str, matching: list[str], others: list[str]) -> None:
    exchange = name("x")
    ch.confirm()
    ch.exchange(exchange, "topic")
    bound(ch, exchange, pattern)
    assert [key for key in matching + others if routed(ch, exchange, key)] == matching


def test_topic_gives_one_copy_a_queue(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "topic")
    queue, quiet = bound(ch, exchange, "#"), bound(ch, exchange, "b.#")
    for pattern in ("*.*", "a.#", "a.b", "#.b", "#.#"):
        ch.bind(queue, exchange, pattern)
    ch.put(exchange, "a.b", b"x")
    assert [ch.count(queue), ch.count(quiet)] == [1, 0]
    for pattern in ("#", "*.*", "a.#", "a.b", "#.b"):
        ch.call(Queue.Unbind(0, queue, exchange, pattern))
    ch.put(exchange, "a.b", b"y")
    assert ch.count(queue) == 2
    ch.call(Queue.Unbind(0, queue, exchange, "#.#"))
    ch.put(exchange, "a.b", b"z")
    assert ch.count(queue) == 2


HEADERS: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = [
    ({"x-match": "all", "a": 1, "b": "two"}, [{"a": 1, "b": "two"}, {"a": 1, "b": "two", "c": 3}],
     [{"a": 1}, {"a": 1, "b": "TWO"}, {"a": "1", "b": "two"}, {}]),
    ({"a": 1, "b": "two"}, [{"a": 1, "b": "two"}], [{"a": 1}, {"b": "two"}, {}]),
    ({"x-match": "any", "a": 1, "b": "two"}, [{"a": 1}, {"b": "two"}, {"a": 1, "b": 9}, {"a": 1, "b": "two"}],
     [{}, {"a": 2}, {"c": 1}, {"a": "two", "b": 1}]),
    ({"x-match": "all", "a": None}, [{"a": 1}, {"a": "text"}, {"a": None}], [{}, {"b": 1}]),
    ({"x-match": "any", "a": None, "b": 1}, [{"a": "x"}, {"b": 1}], [{"b": 2}, {}]),
    ({"x-match": "all"}, [{}, {"a": 1}], []),
    ({"x-match": "any"}, [], [{}, {"a": 1}]),
    ({}, [{}, {"a": 1}], []),
    ({"x-match": "all", "x-a": 1, "b": 1}, [{"b": 1}, {"b": 1, "x-a": 2}], [{"x-a": 1}]),
    ({"x-match": "any", "x-a": 1, "b": 1}, [{"b": 1}], [{"x-a": 1}]),
    ({"x-match": "all-with-x", "x-a": 1, "b": 1}, [{"b": 1, "x-a": 1}], [{"b": 1}, {"x-a": 1}, {"b": 1, "x-a": 2}]),
    ({"x-match": "any-with-x", "x-a": 1, "b": 1}, [{"b": 1}, {"x-a": 1}], [{"x-a": 2}, {}]),
    ({"a": True}, [{"a": True}], [{"a": False}, {"a": 1}, {"a": "true"}]),
    ({"a": 5}, [{"a": 5}, {"a": 5.0}], [{"a": "5"}, {"a": 6}]),
    ({"a": 1 << 40}, [{"a": 1 << 40}], [{"a": 1}]),
    ({"a": {"b": 1}}, [{"a": {"b": 1}}], [{"a": {"b": 2}}, {"a": {}}]),
    ({"a": [1, "x"]}, [{"a": [1, "x"]}], [{"a": [1]}]),
    ({"A": 1}, [{"A": 1}], [{"a": 1}]),
]


@pytest.mark.parametrize("arguments, matching, others", HEADERS, ids=[repr(case[0]) for case in HEADERS])
def test_headers(ch: Channel, name: Name, arguments: dict[str, Any], matching: list[dict[str, Any]],
                 others: list[dict[str, Any]]) -> None:
    exchange = name("x")
    ch.confirm()
    ch.exchange(exchange, "headers")
    bound(ch, exchange, "ignored", arguments)
    assert [headers for headers in matching + others if routed(ch, exchange, "", headers=headers)] == matching


@pytest.mark.parametrize("code, size", [(b"l", 8), (b"I", 4), (b"s", 2), (b"b", 1)])
def test_headers_compare_numbers_of_any_width(ch: Channel, name: Name, code: bytes, size: int) -> None:
    exchange = name("x")
    ch.exchange(exchange, "headers")
    queue = bound(ch, exchange, "", {"a": 7})
    table = longstr(shortstr("a") + code + (7).to_bytes(size, "big"))
    ch.client.write(raw_method(ch.number, 60, 40, b"\0\0" + shortstr(exchange) + b"\0\0")
                    + raw_header(ch.number, 0, b"\x20\x00" + table))
    assert eventually(lambda: ch.count(queue)) == 1


@pytest.mark.parametrize("value, text", [
    ("some", 'Invalid x-match field value <<"some">>; expected all, any, all-with-x, or any-with-x'),
    (3, "Invalid x-match field type byte (value 3); expected longstr"),
])
def test_headers_match_unknown(ch: Channel, value: Any, text: str) -> None:
    queue = ch.temporary()
    with channel_error(406, f"PRECONDITION_FAILED - {text}", Queue.Bind):
        ch.bind(queue, "amq.headers", "", {"x-match": value})


# Bindings

def test_binding_twice_is_one_binding(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange)
    queue = bound(ch, exchange, "key")
    ch.bind(queue, exchange, "key")
    ch.put(exchange, "key", b"x")
    assert ch.count(queue) == 1
    ch.call(Queue.Unbind(0, queue, exchange, "key"))
    ch.put(exchange, "key", b"y")
    assert ch.count(queue) == 1


def test_bindings_differ_by_arguments(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange)
    queue = bound(ch, exchange, "key", {"a": 1})
    ch.bind(queue, exchange, "key", {"a": 2})
    ch.put(exchange, "key", b"x")
    assert ch.count(queue) == 1
    ch.call(Queue.Unbind(0, queue, exchange, "key"))  # there is none without arguments
    ch.call(Queue.Unbind(0, queue, exchange, "key", {"a": 1}))
    ch.put(exchange, "key", b"y")
    assert ch.count(queue) == 2
    ch.call(Queue.Unbind(0, queue, exchange, "key", {"a": 2}))
    ch.put(exchange, "key", b"z")
    assert ch.count(queue) == 2


def test_binding_without_answer(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.send(Exchange.Declare(0, exchange, "direct", nowait=True))
    queue = ch.temporary()
    ch.send(Queue.Bind(0, queue, exchange, "key", True))
    ch.put(exchange, "key", b"x")
    assert ch.count(queue) == 1
    ch.send(Exchange.Delete(0, exchange, nowait=True))
    ch.settle(queue)
    assert not ch.exchange_exists(exchange)
    assert not ch.client.inbox[ch.number]


def test_bind_without_key_to_the_last_queue_means_its_name(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue)
    ch.bind("", "amq.direct", "")
    ch.put("amq.direct", queue, b"x")
    assert ch.count(queue) == 1
    ch.call(Queue.Unbind(0, "", "amq.direct", ""))
    ch.put("amq.direct", queue, b"x")
    assert ch.count(queue) == 1


def test_bind_without_key_to_a_named_queue_means_the_empty_key(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange)
    ch.queue(queue)
    ch.bind(queue, exchange, "")
    ch.put(exchange, queue, b"x")
    assert ch.count(queue) == 0
    ch.put(exchange, "", b"x")
    assert ch.count(queue) == 1


def test_deleting_a_queue_deletes_its_bindings(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange)
    ch.queue(queue)
    ch.bind(queue, exchange, "key")
    ch.call(Queue.Delete(0, queue))
    ch.queue(queue)
    ch.put(exchange, "key", b"x")
    assert ch.count(queue) == 0
    ch.call(Exchange.Delete(0, exchange, if_unused=True))


def test_deleting_an_exchange_deletes_its_bindings(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange)
    queue = bound(ch, exchange, "key")
    ch.call(Exchange.Delete(0, exchange))
    ch.exchange(exchange)
    ch.put(exchange, "key", b"x")
    assert ch.count(queue) == 0


# Exchange to exchange

def test_exchange_to_exchange(ch: Channel, name: Name) -> None:
    source, destination = name("source"), name("destination")
    ch.exchange(source, "topic")
    ch.exchange(destination, "fanout")
    queue = bound(ch, destination)
    ch.call(Exchange.Bind(0, destination, source, "a.#"))
    ch.call(Exchange.Bind(0, destination, source, "#.b"))
    for key in ("a.b", "b", "c"):
        ch.put(source, key, key.encode())
    assert ch.count(queue) == 2
    got = ch.get(queue)
    assert got and (got.method.exchange, got.method.routing_key) == (source, "a.b")
    ch.call(Exchange.Unbind(0, destination, source, "#.b"))
    ch.put(source, "b", b"x")
    assert ch.count(queue) == 1


def test_exchanges_bound_in_a_circle(ch: Channel, name: Name) -> None:
    first, second = name("first"), name("second")
    for exchange in (first, second):
        ch.exchange(exchange, "fanout")
    queues = [bound(ch, first), bound(ch, second)]
    ch.call(Exchange.Bind(0, second, first))
    ch.call(Exchange.Bind(0, first, second))
    ch.call(Exchange.Bind(0, first, first))
    ch.put(first, "", b"x")
    assert [ch.count(queue) for queue in queues] == [1, 1]


def test_one_copy_by_many_paths(ch: Channel, name: Name) -> None:
    source, left, right = name("source"), name("left"), name("right")
    for exchange in (source, left, right):
        ch.exchange(exchange, "fanout")
    queue = bound(ch, left)
    ch.bind(queue, right)
    ch.bind(queue, source)
    ch.call(Exchange.Bind(0, left, source))
    ch.call(Exchange.Bind(0, right, source))
    ch.put(source, "", b"x")
    assert ch.count(queue) == 1


# Life cycles

def test_auto_delete_exchange_goes_with_its_last_binding(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, auto_delete=True)
    queue = ch.temporary()
    ch.bind(queue, exchange, "a")
    ch.bind(queue, exchange, "b")
    ch.call(Queue.Unbind(0, queue, exchange, "a"))
    assert ch.exchange_exists(exchange)
    ch.call(Queue.Unbind(0, queue, exchange, "b"))
    assert not ch.exchange_exists(exchange)


def test_auto_delete_exchange_goes_with_its_last_queue(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange, auto_delete=True)
    ch.queue(queue)
    ch.bind(queue, exchange, "a")
    ch.call(Queue.Delete(0, queue))
    assert not ch.exchange_exists(exchange)


def test_auto_delete_exchange_goes_with_its_last_destination_exchange(ch: Channel, name: Name) -> None:
    source, destination = name("source"), name("destination")
    ch.exchange(source, auto_delete=True)
    ch.exchange(destination)
    ch.call(Exchange.Bind(0, destination, source, "key"))
    ch.call(Exchange.Delete(0, destination))
    assert not ch.exchange_exists(source)


def test_auto_delete_exchange_that_never_was_bound_stays(ch: Channel, name: Name) -> None:
    exchange, destination = name("x"), name("destination")
    ch.exchange(exchange, auto_delete=True)
    ch.exchange(destination)
    ch.call(Exchange.Bind(0, exchange, "amq.direct", exchange))  # being a destination is no use of it
    ch.call(Exchange.Unbind(0, exchange, "amq.direct", exchange))
    assert ch.exchange_exists(exchange)


def test_internal_exchange(ch: Channel, name: Name) -> None:
    outer, inner = name("outer"), name("inner")
    ch.exchange(outer)
    ch.exchange(inner, "fanout", internal=True)
    queue = bound(ch, inner)
    ch.call(Exchange.Bind(0, inner, outer, "key"))
    ch.put(outer, "key", b"x")
    assert ch.count(queue) == 1
    with channel_error(403, f"ACCESS_REFUSED - cannot publish to internal exchange '{inner}' in vhost '/'", (60, 40)):
        ch.publish(inner, "key", b"x")
        ch.next()


def test_carriage_return_and_newline_are_dropped_from_names(ch: Channel, name: Name) -> None:
    queue, exchange = name(), name("x")
    assert ch.queue(queue[:4] + "\r\n" + queue[4:], exclusive=True).queue == queue
    ch.exchange(exchange[:4] + "\n" + exchange[4:])
    assert ch.exchange_exists(exchange)


def test_names_of_255_bytes_of_utf8(ch: Channel, name: Name) -> None:
    queue, exchange = name(), name("x")
    queue += "é" * ((255 - len(queue)) // 2)
    exchange += "☃" * ((255 - len(exchange)) // 3)
    try:
        ch.exchange(exchange, "fanout")
        assert ch.queue(queue, exclusive=True).queue == queue
        ch.client.write(raw_method(ch.number, 50, 20, b"\0\0" + shortstr(queue) + shortstr(exchange) + b"\0" * 6))
        ch.expect(Queue.BindOk)
        ch.client.write(raw_method(ch.number, 60, 40, b"\0\0" + shortstr(exchange) + b"\0\0")
                        + raw_header(ch.number, 0))
        assert eventually(lambda: ch.count(queue)) == 1
    finally:
        ch.client.write(raw_method(ch.number, 40, 20, b"\0\0" + shortstr(exchange) + b"\0"))
        eventually(lambda: ch.next().name == "Exchange.DeleteOk")


# Types that RabbitMQ has as plugins

def test_consistent_hash_spreads_by_routing_key(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "x-consistent-hash")
    queues = [bound(ch, exchange, "20") for _ in range(3)]
    ch.confirm()
    for _ in range(2):
        for number in range(150):
            assert ch.confirmed(exchange, f"key {number}", b"%d" % number)
    counts = [ch.count(queue) for queue in queues]
    assert sum(counts) == 300 and all(counts)
    for queue, count in zip(queues, counts, strict=True):  # the same key always went the same way
        bodies = [got.body for got in (ch.get(queue) for _ in range(count)) if got]
        assert sorted(bodies) == sorted(2 * list(set(bodies)))


@pytest.mark.parametrize("arguments, properties", [
    ({"hash-header": "by"}, lambda number: {"headers": {"by": f"value {number}"}}),
    ({"hash-property": "message_id"}, lambda number: {"message_id": f"id {number}"}),
    ({"hash-property": "correlation_id"}, lambda number: {"correlation_id": f"id {number}"}),
], ids=["header", "message_id", "correlation_id"])
def test_consistent_hash_by_something_else(ch: Channel, name: Name, arguments: dict[str, Any],
                                           properties: Callable[[int], dict[str, Any]]) -> None:
    exchange = name("x")
    ch.exchange(exchange, "x-consistent-hash", arguments=arguments)
    queues = [bound(ch, exchange, "20") for _ in range(2)]
    ch.confirm()
    for number in range(100):
        assert ch.confirmed(exchange, "always the same", b"x", **properties(number))
    counts = [ch.count(queue) for queue in queues]
    assert sum(counts) == 100 and all(counts)


def test_consistent_hash_without_queues(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "x-consistent-hash")
    ch.confirm()
    assert not routed(ch, exchange, "key")
    queue = bound(ch, exchange, "1")
    assert routed(ch, exchange, "key")
    ch.call(Queue.Unbind(0, queue, exchange, "1"))
    assert not routed(ch, exchange, "key")


@pytest.mark.parametrize("key, text", [
    ("abc", 'must be an integer: <<"abc">>'), ("1.5", 'must be an integer: <<"1.5">>'),
    ("", "must be an integer: <<>>"), ("0", "must be greater than 0"), ("-1", "must be greater than 0"),
])
def test_consistent_hash_weight(ch: Channel, name: Name, key: str, text: str) -> None:
    exchange = name("x")
    ch.exchange(exchange, "x-consistent-hash")
    queue = ch.temporary()
    with channel_error(406, f"PRECONDITION_FAILED - The binding key {text}", Queue.Bind):
        ch.bind(queue, exchange, key)


@pytest.mark.parametrize("arguments, text", [
    ({"hash-header": "a", "hash-property": "message_id"}, "hash-header and hash-property are mutually exclusive"),
    ({"hash-property": "body"}, "Unsupported property: body"),
])
def test_consistent_hash_arguments(ch: Channel, name: Name, arguments: dict[str, Any], text: str) -> None:
    with channel_error(406, f"PRECONDITION_FAILED - {text}", Exchange.Declare):
        ch.exchange(name("x"), "x-consistent-hash", arguments=arguments)


def test_random(ch: Channel, name: Name) -> None:
    exchange = name("x")
    try:
        ch.exchange(exchange, "x-random")
    except Exception as error:
        if "exchange type 'x-random'" not in str(error):
            raise
        pytest.skip("the peer runs without its plugin rabbitmq_random_exchange")
    queues = [bound(ch, exchange, key) for key in ("", "a", "b")]
    ch.confirm()
    for _ in range(150):
        assert ch.confirmed(exchange, "whatever", b"x")
    counts = [ch.count(queue) for queue in queues]
    assert sum(counts) == 150 and all(counts)


DELAYED = pytest.mark.dragoman_only("RabbitMQ 3.10 comes without the plugin for delayed messages")


@DELAYED
def test_delayed_message(ch: Channel, name: Name) -> None:
    exchange = name("x")
    ch.exchange(exchange, "x-delayed-message", arguments={"x-delayed-type": "topic"})
    queue = bound(ch, exchange, "a.*")
    ch.consume(queue, no_ack=True)
    for key, delay in (("a.1", 1500), ("b.1", 1), ("a.2", 1000), ("a.3", 500), ("a.4", None)):
        ch.put(exchange, key, key.encode(), headers={} if delay is None else {"x-delay": delay})
    assert [(got.method.routing_key, got.method.exchange) for got in (ch.delivery() for _ in range(4))] == [
        ("a.4", exchange), ("a.3", exchange), ("a.2", exchange), ("a.1", exchange)]


@DELAYED
@pytest.mark.parametrize("arguments", [{}, {"x-delayed-type": "wire-no-such-type"}, {"x-delayed-type": 3}], ids=repr)
def test_delayed_message_type(ch: Channel, name: Name, arguments: dict[str, Any]) -> None:
    with channel_error(406, "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange "
                       "type", Exchange.Declare):
        ch.exchange(name("x"), "x-delayed-message", arguments=arguments)


def test_exchange_type_is_case_sensitive(ch: Channel, name: Name) -> None:
    with connection_error(503, re.compile("COMMAND_INVALID - (unknown|invalid) exchange type 'DIRECT'"),
                          Exchange.Declare):
        ch.exchange(name("x"), "DIRECT")
