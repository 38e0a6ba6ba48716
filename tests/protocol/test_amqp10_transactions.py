"""Local transactions of AMQP 1.0, frame by frame (part 4 of the specification)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proton import Described, symbol, uint, ulong

from dragoman import testing
from tests.wire import Channel, eventually
from tests.wire10 import (
    ACCEPTED,
    ATTACH,
    DETACH,
    MODIFIED,
    RECEIVER,
    REJECTED,
    RELEASED,
    SENDER,
    Client10,
    encode,
    message,
    state,
)

Connect10 = Callable[..., Client10]
DECLARE, DISCHARGE, DECLARED, TRANSACTIONAL = range(0x31, 0x35)
COORDINATOR = 9
"""The handle of the coordinator's link."""

pytestmark = pytest.mark.dragoman_only("RabbitMQ has no transactions of AMQP 1.0")


@pytest.fixture
def wire(connect10: Connect10) -> Client10:
    return coordinated(connect10("transactor"))


def coordinated(wire: Client10) -> Client10:
    """Attach a link to the coordinator."""
    wire.send(ATTACH, "coordinator", uint(COORDINATOR), SENDER, None, None, state(0x28), state(0x30), None, None,
              uint(0))
    fields = wire.expect(ATTACH)[0]
    assert fields[6].descriptor == 0x30
    return wire


def told(wire: Client10, body: Any, tag: bytes = b"c") -> Described:
    """What the coordinator says to a message."""
    wire.transfer(encode(Described(ulong(0x77), body)), tag, handle=COORDINATOR)
    while True:
        fields = wire.outcome()
        if fields[0] is RECEIVER:  # else it is about a delivery of the broker's
            found: Described = fields[4]
            return found


def declare(wire: Client10) -> bytes:
    found = told(wire, state(DECLARE))
    assert found.descriptor == DECLARED
    return bytes(found.value[0])


def discharge(wire: Client10, identity: bytes, fail: bool = False) -> str:
    """Gives what went wrong, or nothing."""
    found = told(wire, state(DISCHARGE, identity, fail))
    if found.descriptor == ACCEPTED:
        return ""
    assert found.descriptor == REJECTED
    return str(found.value[0].value[0])


def within(identity: bytes, outcome: int | None = None) -> Described:
    return state(TRANSACTIONAL, identity, None if outcome is None else state(outcome))


def fill(ch: Channel, queue: str, count: int) -> None:
    for number in range(count):
        ch.put("", queue, b"%d" % number)


# Posting

@pytest.mark.parametrize("fail", [False, True])
def test_posting(wire: Client10, queue: str, ch: Channel, fail: bool) -> None:
    wire.attach("in", SENDER, queue)
    identity = declare(wire)
    for number in range(3):
        wire.transfer(message(b"%d" % number), b"t", delivery_state=within(identity))
        outcome = wire.outcome()[4]
        assert outcome.descriptor == TRANSACTIONAL and outcome.value[1].descriptor == ACCEPTED
    wire.transfer(message(b"at once"), b"t")
    assert wire.outcome()[4].descriptor == ACCEPTED
    assert ch.wait_get(queue).body == b"at once"
    assert discharge(wire, identity, fail) == ""
    assert ch.count(queue) == (0 if fail else 3)


def test_several_transactions_of_a_session(wire: Client10, queue: str, ch: Channel) -> None:
    wire.attach("in", SENDER, queue)
    first, second = declare(wire), declare(wire)
    assert first != second
    for number, identity in enumerate((first, second, first)):
        wire.transfer(message(b"%d" % number), b"t", settled=True, delivery_state=within(identity))
    assert discharge(wire, second) == ""
    assert ch.wait_get(queue).body == b"1"
    assert discharge(wire, first) == ""
    assert [ch.wait_get(queue).body for _ in range(2)] == [b"0", b"2"]


def test_a_message_that_goes_nowhere_fails_its_transaction(wire: Client10, queue: str, ch: Channel) -> None:
    """Or else a commit would lose it without a word."""
    wire.attach("in", SENDER, queue, handle=0)
    wire.attach("lost", SENDER, "amq.direct/nobody", handle=1)
    identity = declare(wire)
    wire.transfer(message(b"x"), b"t", settled=True, delivery_state=within(identity))
    wire.transfer(message(b"y"), b"t", delivery_state=within(identity), handle=1)
    assert wire.outcome()[4].descriptor == REJECTED
    assert discharge(wire, identity) == "amqp:transaction:rollback"
    assert ch.count(queue) == 0


def test_a_message_to_be_retained_goes_somewhere(wire: Client10, queue: str, ch: Channel) -> None:
    """Even when nobody subscribes to its topic."""
    wire.attach("in", SENDER, f"amq.topic/{queue}")
    identity = declare(wire)
    retain = encode(Described(ulong(0x74), {"x-mqtt-retain": True}))
    wire.transfer(retain + message(b"x"), b"t", delivery_state=within(identity))
    outcome = wire.outcome()[4]
    assert outcome.descriptor == TRANSACTIONAL and outcome.value[1].descriptor == ACCEPTED
    assert discharge(wire, identity) == ""
    assert ch.count("amq.mqtt.retained") > 0


def test_a_queue_that_is_full_fails_the_transaction(wire: Client10, ch: Channel, name: Callable[..., str]) -> None:
    full, other = name(), name()
    ch.queue(full, arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
    ch.queue(other)
    wire.attach("full", SENDER, full, handle=0)
    wire.attach("other", SENDER, other, handle=1)
    identity = declare(wire)
    for _ in range(3):
        wire.transfer(message(b"x"), b"t", settled=True, delivery_state=within(identity))
    wire.transfer(message(b"y"), b"t", settled=True, delivery_state=within(identity), handle=1)
    assert discharge(wire, identity) == "amqp:transaction:rollback"
    assert ch.count(full) == ch.count(other) == 0
    identity = declare(wire)
    for _ in range(2):
        wire.transfer(message(b"x"), b"t", settled=True, delivery_state=within(identity))
    assert discharge(wire, identity) == ""
    assert ch.count(full) == 2


# Retirement

@pytest.mark.parametrize("fail", [False, True])
def test_retirement_that_is_settled(wire: Client10, queue: str, ch: Channel, fail: bool) -> None:
    """What was settled goes back to the queue when it is rolled back, as a delivery that failed."""
    fill(ch, queue, 2)
    wire.attach("out", RECEIVER, queue)
    wire.credit(2)
    wire.delivery()
    wire.delivery()
    identity = declare(wire)
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED), last=1)
    assert discharge(wire, identity, fail) == ""
    wire.detach(closed=True)
    assert ch.count(queue) == (2 if fail else 0)


def test_retirement_that_is_not_settled(wire: Client10, queue: str, ch: Channel) -> None:
    """Committed, the broker settles it; rolled back, it is the receiver's as before."""
    fill(ch, queue, 2)
    wire.attach("out", RECEIVER, queue)
    wire.credit(2)
    wire.delivery()
    wire.delivery()
    identity = declare(wire)
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED), settled=False, last=1)
    assert discharge(wire, identity, fail=True) == ""
    assert ch.count(queue) == 0  # the receiver has both
    identity = declare(wire)
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED), settled=False)
    wire.transfer(encode(Described(ulong(0x77), state(DISCHARGE, identity, False))), b"c", handle=COORDINATOR)
    both = [wire.outcome(), wire.outcome()]
    ours = next(fields for fields in both if fields[0] is False)
    assert ours[1] == 0 and ours[3] is True and ours[4].descriptor == TRANSACTIONAL
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED))  # as Proton does when it hears of the commit
    wire.settle(RECEIVER, 1, state(RELEASED))
    eventually(lambda: ch.count(queue) == 1)
    assert ch.wait_get(queue).body == b"1"


def test_second_thoughts(wire: Client10, queue: str, ch: Channel) -> None:
    """An outcome within a transaction may be replaced, within it or without."""
    fill(ch, queue, 3)
    wire.attach("out", RECEIVER, queue)
    wire.credit(3)
    for _ in range(3):
        wire.delivery()
    identity = declare(wire)
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED), settled=False, last=2)
    wire.settle(RECEIVER, 0, within(identity, RELEASED), settled=False)
    wire.settle(RECEIVER, 1, state(RELEASED))
    wire.settle(RECEIVER, 2, within(identity, ACCEPTED))
    eventually(lambda: ch.count(queue) == 1)
    assert discharge(wire, identity) == ""
    wire.detach(closed=True)
    assert [ch.wait_get(queue).body for _ in range(2)] == [b"0", b"1"]
    assert ch.count(queue) == 0


def test_a_link_that_goes_before_its_transaction(wire: Client10, queue: str, ch: Channel) -> None:
    """What was decided is the transaction's, settled or not: nobody else is given it before the discharge."""
    fill(ch, queue, 2)
    wire.attach("out", RECEIVER, queue)
    wire.credit(2)
    wire.delivery()
    wire.delivery()
    identity = declare(wire)
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED), settled=False)
    wire.settle(RECEIVER, 1, within(identity, ACCEPTED))
    wire.detach(closed=True)
    assert ch.get(queue) is None
    assert discharge(wire, identity) == ""
    assert ch.count(queue) == 0


@pytest.mark.parametrize("how", ["the coordinator's link", "the connection"])
def test_what_is_open_is_rolled_back(wire: Client10, queue: str, ch: Channel, how: str) -> None:
    fill(ch, queue, 1)
    wire.attach("out", RECEIVER, queue, handle=0)
    wire.attach("in", SENDER, queue, handle=1)
    wire.credit(1)
    wire.delivery()
    identity = declare(wire)
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED))
    wire.transfer(message(b"never"), b"t", settled=True, delivery_state=within(identity), handle=1)
    if how == "the connection":
        wire.vanish()
    else:
        wire.detach(COORDINATOR)
    eventually(lambda: ch.count(queue) == 1)
    assert ch.wait_get(queue).body == b"0"


# Acquisition

@pytest.mark.parametrize("fail", [False, True])
def test_acquisition(wire: Client10, queue: str, ch: Channel, fail: bool) -> None:
    """Deliveries that a flow asks for within a transaction are not acquired when it is rolled back (section 4.4.3)."""
    fill(ch, queue, 3)
    wire.attach("out", RECEIVER, queue)
    identity = declare(wire)
    wire.credit(2, properties={symbol("txn-id"): identity})
    for _ in range(2):
        fields, _ = wire.delivery()
        assert fields[7].descriptor == TRANSACTIONAL and fields[7].value[0] == identity
    wire.settle(RECEIVER, 0, within(identity, ACCEPTED))
    wire.transfer(encode(Described(ulong(0x77), state(DISCHARGE, identity, fail))), b"c", handle=COORDINATOR)
    if fail:  # one was retired and is back, the other was acquired only
        ours = [fields for fields in (wire.outcome(), wire.outcome()) if fields[0] is False]
        assert [fields[1] for fields in ours] == [1] and ours[0][3] is True
        eventually(lambda: ch.count(queue) == 3)
    else:
        assert wire.outcome()[4].descriptor == ACCEPTED
        assert ch.count(queue) == 1
        wire.settle(RECEIVER, 1, state(MODIFIED))
        eventually(lambda: ch.count(queue) == 2)


def test_credit_of_a_transaction_ends_with_it(wire: Client10, queue: str, ch: Channel) -> None:
    wire.attach("out", RECEIVER, queue)
    identity = declare(wire)
    wire.credit(5, properties={symbol("txn-id"): identity})
    assert discharge(wire, identity) == ""
    ch.put("", queue, b"x")
    assert ch.count(queue) == 1
    wire.credit(5)
    assert wire.delivery()[0][7] is None


# What is wrong

def test_unknown_transactions(wire: Client10, queue: str, ch: Channel) -> None:
    assert discharge(wire, b"nonsense") == "amqp:transaction:unknown-id"
    identity = declare(wire)
    assert discharge(wire, identity) == "" and discharge(wire, identity) == "amqp:transaction:unknown-id"
    wire.attach("in", SENDER, queue)
    wire.transfer(message(b"x"), b"t", delivery_state=within(identity))
    detach = wire.expect(DETACH)[0]
    assert str(detach[2].value[0]) == "amqp:transaction:unknown-id"
    assert ch.count(queue) == 0


@pytest.mark.parametrize("body", ["nonsense", None, state(0x99), state(DECLARE, state(0x99)), [state(DECLARE)]])
def test_nonsense_to_the_coordinator(wire: Client10, body: Any) -> None:
    wire.transfer(encode(Described(ulong(0x77), body)), b"c", handle=COORDINATOR)
    detach = wire.expect(DETACH)[0]
    assert str(detach[2].value[0]) in ("amqp:decode-error", "amqp:not-implemented")


def test_time_out() -> None:
    with testing.broker(config="[amqp10]\ntransaction_seconds = 1\n") as broker:
        wire = coordinated(Client10(broker.host, broker.port))
        wire.attach("in", SENDER, "/queue/slow", handle=0)
        wire.attach("out", RECEIVER, "/queue/slow", handle=1)
        wire.transfer(message(b"x"), b"t", settled=True)
        wire.credit(1, handle=1)
        wire.delivery()
        identity, other = declare(wire), declare(wire)
        wire.settle(RECEIVER, 0, within(identity, ACCEPTED))
        wire.credit(2, handle=1, delivered=1)
        assert wire.delivery()[1].endswith(b"x")  # once it has taken too long
        assert discharge(wire, identity) == "amqp:transaction:timeout"
        assert discharge(wire, other, fail=True) == ""
        assert discharge(wire, other, fail=True) == "amqp:transaction:unknown-id"
        wire.vanish()
