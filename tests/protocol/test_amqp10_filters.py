"""Filters of a receiver's source, by all of their names (Apache's registry of AMQP 1.0 capabilities and filters)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proton import Described, symbol, ulong

from tests.wire import Channel
from tests.wire10 import DETACH, RECEIVER, SENDER, Client10, message

Connect10 = Callable[..., Client10]

pytestmark = pytest.mark.dragoman_only("RabbitMQ has filters on streams only")


@pytest.mark.parametrize("descriptor", [
    symbol("apache.org:selector-filter:string"), symbol("apache.org:jms-selector-filter:string"),
    ulong(0x468C00000004)])
@pytest.mark.parametrize("exchange", [False, True])
def test_selector_filters(wire: Client10, queue: str, ch: Channel, descriptor: Any, exchange: bool) -> None:
    filters = {symbol("mine"): Described(descriptor, "colour = 'green'"), symbol("odd"): Described(symbol("x:y"), 1)}
    source = wire.attach("out", RECEIVER, "amq.fanout" if exchange else queue, more=(None, None, None, filters))[5]
    assert list(source.value[7]) == ["mine"]  # the other is not honoured, and not echoed
    wire.credit(10)
    wire.credit(10, echo=True)
    wire.flow()
    for colour in ("red", "green"):
        ch.put("amq.fanout" if exchange else "", queue, colour.encode(), headers={"colour": colour})
    assert wire.delivery()[1].endswith(b"green")


@pytest.mark.parametrize("descriptor", [
    symbol("apache.org:no-local-filter:list"), symbol("apache.org:jms-no-local-filter:list"), ulong(0x468C00000003)])
@pytest.mark.parametrize("exchange", [False, True])
def test_no_local_filters(wire: Client10, connect10: Connect10, queue: str, descriptor: Any, exchange: bool) -> None:
    address = "amq.fanout" if exchange else queue
    source = wire.attach("out", RECEIVER, address, more=(None, None, None, {
        symbol("mine"): Described(descriptor, [])}))[5]
    assert list(source.value[7]) == ["mine"]
    wire.credit(10)
    for sender in (wire, connect10("another")):
        sender.attach("in", SENDER, address, handle=1)
        sender.transfer(message(sender is wire and b"own" or b"other"), b"t", handle=1)
        sender.outcome()
    assert wire.delivery()[1].endswith(b"other")


@pytest.mark.parametrize(("descriptor", "exchange", "content", "key"), [
    (symbol("apache.org:legacy-amqp-direct-binding:string"), "amq.direct", "a.b", "a.b"),
    (ulong(0x468C00000000), "amq.direct", "a.b", "a.b"),
    (symbol("apache.org:legacy-amqp-topic-binding:string"), "amq.topic", "a.*", "a.b"),
    (ulong(0x468C00000001), "amq.topic", "a.*", "a.b"),
    (symbol("apache.org:legacy-amqp-headers-binding:map"), "amq.match", {"x-match": "all", "h": 1}, ""),
    (ulong(0x468C00000002), "amq.match", {"x-match": "all", "h": 1}, "")])
def test_binding_filters(wire: Client10, ch: Channel, descriptor: Any, exchange: str, content: Any, key: str) -> None:
    source = wire.attach("out", RECEIVER, exchange, more=(None, None, None, {
        symbol("mine"): Described(descriptor, content)}))[5]
    assert list(source.value[7]) == ["mine"]
    wire.credit(10, echo=True)
    wire.flow()
    ch.put(exchange, "other", b"no", headers={"h": 2})
    ch.put(exchange, key, b"yes", headers={"h": 1})
    assert wire.delivery()[1].endswith(b"yes")


@pytest.mark.parametrize("content", ["colour = ", "= 1", "LIKE LIKE LIKE", "a BETWEEN 1", 5, None, "('" * 3000])
def test_selectors_that_make_no_sense(wire: Client10, queue: str, content: Any) -> None:
    wire.attach("out", RECEIVER, queue, more=(None, None, None, {
        symbol("mine"): Described(symbol("apache.org:selector-filter:string"), content)}))
    assert str(wire.expect(DETACH)[0][2].value[0]) == "amqp:invalid-field"
