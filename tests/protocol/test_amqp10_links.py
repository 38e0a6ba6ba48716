"""Sessions and links of AMQP 1.0, frame by frame: flow control, settlement, deliveries in many transfers.

Part 2, sections 2.5 and 2.6, and part 3, section 3.4, of the specification say what is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Queue
from proton import Data, Described, symbol, ubyte, uint, ulong

from dragoman import testing
from tests.wire import Channel, eventually
from tests.wire10 import (
    ACCEPTED,
    ATTACH,
    BEGIN,
    DETACH,
    END,
    FLOW,
    MODIFIED,
    RECEIVER,
    REJECTED,
    RELEASED,
    SENDER,
    TRANSFER,
    Client10,
    encode,
    message,
    state,
    symbols,
)

Connect10 = Callable[..., Client10]

pytestmark = pytest.mark.dragoman_only("the frames are those that Dragoman sends")


def fill(ch: Channel, queue: str, count: int, size: int = 3) -> None:
    for number in range(count):
        ch.put("", queue, f"{number}".encode().rjust(size, b"."))
    eventually(lambda: ch.count(queue) == count)


# Credit

def test_no_more_than_the_credit(wire: Client10, queue: str, ch: Channel) -> None:
    fill(ch, queue, 5)
    wire.attach("out", RECEIVER, queue)
    wire.credit(2)
    wire.delivery()
    wire.delivery()
    wire.credit(0, delivered=2, echo=True)
    code, fields, _ = wire.frame()
    assert code == FLOW and fields[5:8] == [2, 0, 3]  # delivery-count, credit, and three that are available


def test_credit_counts_from_what_was_delivered(wire: Client10, queue: str, ch: Channel) -> None:
    """Credit that is given before the last deliveries have come is not for as many more (section 2.6.7)."""
    fill(ch, queue, 10)
    wire.attach("out", RECEIVER, queue)
    wire.credit(3)
    wire.credit(4)  # says: four from the beginning on
    for _ in range(4):
        wire.delivery()
    wire.credit(0, delivered=4, echo=True)
    assert wire.frame()[1][5:7] == [4, 0]


@pytest.mark.parametrize("waiting", [0, 3, 10])
def test_drain(wire: Client10, queue: str, ch: Channel, waiting: int) -> None:
    """What there is comes, then the rest of the credit is gone, and the flow that says so still says drain."""
    fill(ch, queue, waiting)
    wire.attach("out", RECEIVER, queue)
    wire.credit(10, drain=True)
    for _ in range(waiting):
        wire.delivery()
    fields = wire.flow()
    assert fields[5:7] == [10, 0] and fields[8] is True
    ch.put("", queue, b"later")
    wire.credit(1, delivered=10)
    assert wire.delivery()[1].endswith(b"later")


def test_a_drain_without_credit_is_answered(wire: Client10, queue: str, ch: Channel) -> None:
    """As go-amqp asks for it: it takes back its credit with the same flow."""
    wire.attach("out", RECEIVER, queue)
    wire.credit(10)
    wire.credit(0, drain=True)
    fields = wire.flow()
    assert fields[5:7] == [0, 0] and fields[8] is True
    ch.put("", queue, b"later")
    wire.credit(1)
    assert wire.delivery()[1].endswith(b"later")


def test_a_drain_with_a_selector_is_answered_after_the_search(wire: Client10, queue: str, ch: Channel) -> None:
    fill(ch, queue, 1000)
    filters = {symbol("s"): Described(symbol("apache.org:selector-filter:string"), "colour = 'green'")}
    wire.attach("out", RECEIVER, queue, more=(None, None, None, filters))
    wire.credit(10, drain=True)
    assert wire.flow()[5:7] == [10, 0]


def test_a_sender_that_uses_its_credit_up(wire: Client10, queue: str) -> None:
    """A sender that has nothing says so by its delivery-count (section 2.6.7), and is given credit anew."""
    wire.attach("in", SENDER, queue)
    credit = wire.flow()[6]
    wire.send(FLOW, uint(0), uint(100), uint(0), uint(100), uint(0), uint(credit), uint(0), uint(0), True)
    assert wire.flow()[5:7] == [credit, credit]
    wire.transfer(message(b"x"), b"t")
    assert wire.outcome()[4].descriptor == ACCEPTED


def test_echo_of_a_session(wire: Client10) -> None:
    wire.send(FLOW, uint(0), uint(7), uint(3), uint(9), None, None, None, None, None, True)
    fields = wire.frame()[1]
    assert fields[0] == 0 and fields[2] == 0 and len(fields) == 4  # no handle: a session's flow


# Windows

def test_no_more_than_the_window(connect10: Connect10, queue: str, ch: Channel) -> None:
    fill(ch, queue, 5)
    wire = connect10("narrow", window=2)
    wire.attach("out", RECEIVER, queue)
    wire.credit(10)
    for number in range(2):
        assert wire.delivery()[0][1] == number
    wire.credit(8, delivered=2, window=0, seen=2, echo=True)
    assert wire.frame()[0] == FLOW
    wire.credit(8, delivered=2, window=1, seen=2)
    assert wire.delivery()[0][1] == 2
    wire.credit(7, delivered=3, window=9, seen=3)
    assert [wire.delivery()[0][1] for _ in range(2)] == [3, 4]


def test_a_window_narrower_than_a_message(connect10: Connect10, queue: str, ch: Channel) -> None:
    """A delivery goes on as the window opens; another session is not held up by it."""
    ch.put("", queue, b"x" * 5000)
    wire = connect10("narrow", frame_max=512, window=1)
    wire.attach("out", RECEIVER, queue)
    wire.credit(1)
    data = b""
    fields, payload = wire.expect(TRANSFER)
    seen = 1
    while True:
        data += payload
        if not fields[5]:
            break
        wire.begin(channel=seen)
        wire.credit(0, delivered=1, window=1, seen=seen)
        fields, payload = wire.expect(TRANSFER)
        seen += 1
    assert data.endswith(b"x" * 5000) and seen > 10


def test_the_broker_opens_its_window_again(wire: Client10, queue: str, ch: Channel) -> None:
    """A client that heeds window and credit can send for ever."""
    wire.attach("in", SENDER, queue)
    sent, may_send, window = 0, 0, 2048
    while sent < 5000:
        while sent >= min(may_send, window):
            fields = wire.flow()
            window = fields[0] + fields[1]
            if fields[4] is not None:
                may_send = fields[5] + fields[6]
        wire.transfer(message(b"x"), b"t", settled=True)
        sent += 1
    eventually(lambda: ch.count(queue) == 5000)


# Deliveries

@pytest.mark.parametrize("frame_max", [512, 1000, 65536])
@pytest.mark.parametrize("size", [0, 1, 400, 511, 600, 65535, 65536, 300_000])
def test_in_many_transfers(connect10: Connect10, queue: str, frame_max: int, size: int) -> None:
    """Cut in another way on the way out than on the way in."""
    wire = connect10("pieces", frame_max=frame_max, window=10000)
    wire.attach("in", SENDER, queue, handle=0)
    wire.attach("out", RECEIVER, queue, handle=1)
    body = bytes(number % 251 for number in range(size))
    sent = encode(Described(ulong(0x74), {"a": "b" * 700})) + message(body)
    for at in range(0, len(sent), 333):
        wire.transfer(sent[at:at + 333], b"t", more=at + 333 < len(sent), number=0)
    wire.credit(1, handle=1)
    fields, received = wire.delivery()
    assert received.endswith(sent) and len(received) < len(sent) + 20  # before it, there is a header
    wire.settle(RECEIVER, fields[1], state(ACCEPTED))


def test_an_aborted_delivery(wire: Client10, queue: str, ch: Channel) -> None:
    wire.attach("in", SENDER, queue)
    wire.transfer(message(b"never")[:4], b"1", more=True)
    wire.send(TRANSFER, uint(0), None, None, None, None, True)
    wire.send(TRANSFER, uint(0), None, None, None, None, False, None, None, None, True)
    wire.transfer(message(b"after"), b"2", number=1)
    assert wire.outcome()[1] == 1  # there is no word about the other: an aborted delivery is settled
    assert ch.count(queue) == 1 and ch.wait_get(queue).body == b"after"


def test_deliveries_of_two_links_mixed(wire: Client10, queue: str, ch: Channel) -> None:
    wire.attach("one", SENDER, queue, handle=0)
    wire.attach("two", SENDER, queue, handle=1)
    one, two = message(b"one" * 100), message(b"two" * 100)
    wire.transfer(one[:50], b"1", more=True, handle=0, number=0)
    wire.transfer(two[:50], b"2", more=True, handle=1, number=1)
    wire.transfer(two[50:], b"2", handle=1, number=1)
    wire.transfer(one[50:], b"1", handle=0, number=0)
    eventually(lambda: ch.count(queue) == 2)
    assert [ch.wait_get(queue).body for _ in range(2)] == [b"two" * 100, b"one" * 100]


@pytest.mark.parametrize("number", [0, 1, 0x80013700, 0xFFFFFFFF])
def test_message_format(wire: Client10, queue: str, number: int) -> None:
    wire.attach("in", SENDER, queue, handle=0)
    wire.attach("out", RECEIVER, queue, handle=1)
    wire.send(TRANSFER, uint(0), uint(0), b"t", uint(number), payload=message(b"x"))
    wire.credit(1, handle=1)
    fields, payload = wire.delivery()
    assert fields[3] == number and payload.endswith(b"x")


def test_header_of_a_delivery(wire: Client10, queue: str) -> None:
    """Durable, priority and what is left of the ttl are the sender's; who had it before, only the broker knows."""
    wire.attach("in", SENDER, queue, handle=0)
    wire.attach("out", RECEIVER, queue, handle=1)
    wire.transfer(encode(state(0x70, True, ubyte(9), uint(60000), False, uint(5))) + message(b"x"), b"t")
    wire.credit(2, handle=1)
    fields, payload = wire.delivery()
    header = decode_first(payload)
    assert header[0] is True and header[1] == 9 and 50000 < header[2] <= 60000 and header[3] is True
    assert len(header) < 5 or header[4] in (None, 0)
    wire.settle(RECEIVER, fields[1], state(MODIFIED, True))
    header = decode_first(wire.delivery()[1])
    assert header[3] in (None, False) and header[4] == 1


def decode_first(data: bytes) -> list[Any]:
    """The fields of the first section."""
    found = Data()
    found.decode(data)
    found.rewind()
    found.next()
    return list(found.get_py_described().value)


def test_the_largest_message() -> None:
    with testing.broker(config='[limits]\nmessage_size = 100000\n[amqp10]\nframe_max = 512\n') as broker:
        wire = Client10(broker.host, broker.port)
        wire.attach("made", RECEIVER, None, more=(True,))
        fields = wire.attach("in", SENDER, "/queue/large", handle=1)
        assert fields[10] == 100000
        sent = message(b"x" * 200_000)
        for at in range(0, len(sent), 400):
            wire.send(TRANSFER, uint(1), uint(0), b"1", uint(0), None, at + 400 < len(sent), payload=sent[at:at + 400])
        detach = wire.expect(DETACH)[0]
        assert detach[0] == 1 and str(detach[2].value[0]) == "amqp:link:message-size-exceeded"
        wire.vanish()


def test_messages_larger_than_a_receiver_takes(wire: Client10, queue: str, ch: Channel) -> None:
    """They are left to others (section 2.7.3: larger ones must not be sent to it)."""
    wire.attach("small", RECEIVER, queue, handle=0, max_message_size=400)
    wire.attach("any", RECEIVER, queue, handle=1)
    wire.credit(10, handle=0, echo=True)
    wire.flow()
    for size in (10, 1000, 20):
        ch.put("", queue, b"x" * size)
    assert [len(wire.delivery()[1]) < 400 for _ in range(2)] == [True, True]
    wire.credit(10, handle=1)
    fields, payload = wire.delivery()
    assert fields[0] == 1 and payload.endswith(b"x" * 1000)


# Settlement

def test_outcomes(wire: Client10, queue: str, ch: Channel) -> None:
    """Of several deliveries at once, by ranges; released and modified ones come again in their order."""
    fill(ch, queue, 6)
    wire.attach("out", RECEIVER, queue)
    wire.credit(6)
    first = [wire.delivery()[1][-3:] for _ in range(6)]
    wire.settle(RECEIVER, 0, state(ACCEPTED), last=1)
    wire.settle(RECEIVER, 2, state(RELEASED), last=3)
    wire.settle(RECEIVER, 4, state(MODIFIED, True, None, {symbol("x-opt-why"): "no"}))
    wire.settle(RECEIVER, 5, state(REJECTED))
    wire.credit(10, delivered=6)
    again = [wire.delivery() for _ in range(3)]
    assert [payload[-3:] for _, payload in again] == first[2:5]
    assert b"x-opt-why" in again[2][1] and b"x-opt-why" not in again[1][1]


def test_the_receiver_settles_second(wire: Client10, queue: str, ch: Channel) -> None:
    """It says its outcome without settling; the broker settles, then so does it (section 2.6.12)."""
    fill(ch, queue, 1)
    wire.attach("out", RECEIVER, queue, rcv=1)
    wire.credit(1)
    wire.delivery()
    wire.settle(RECEIVER, 0, state(ACCEPTED), settled=False)
    fields = wire.outcome()
    assert fields[0] is False and fields[1] == 0 and fields[3] is True and fields[4].descriptor == ACCEPTED
    assert ch.count(queue) == 0
    wire.settle(RECEIVER, 0, state(ACCEPTED))


def test_received_is_no_outcome(wire: Client10, queue: str, ch: Channel) -> None:
    fill(ch, queue, 1)
    wire.attach("out", RECEIVER, queue)
    wire.credit(2)
    wire.delivery()
    wire.settle(RECEIVER, 0, state(0x23, uint(0), ulong(0)), settled=False)
    wire.settle(RECEIVER, 0, state(RELEASED))
    assert wire.delivery()[0][1] == 1


@pytest.mark.parametrize(("outcome", "left"), [(ACCEPTED, 0), (RELEASED, 1), (MODIFIED, 1), (REJECTED, 0)])
def test_default_outcome(wire: Client10, queue: str, ch: Channel, outcome: int, left: int) -> None:
    """What the receiver leaves unsettled when it closes its link, or settles without a word, is so."""
    fill(ch, queue, 2)
    wire.attach("out", RECEIVER, queue, more=(None, None, None, None, state(outcome)))
    wire.credit(2)
    wire.delivery()
    wire.delivery()
    wire.settle(RECEIVER, 0, None)
    eventually(lambda: ch.count(queue) == left)
    wire.detach(closed=True)
    eventually(lambda: ch.count(queue) == 2 * left)


def test_batchable_dispositions_may_wait_but_come(wire: Client10, queue: str) -> None:
    wire.attach("in", SENDER, queue)
    for number in range(10):
        wire.send(TRANSFER, uint(0), uint(number), b"%d" % number, uint(0), None, None, None, None, None, None, True,
                  payload=message(b"x"))
    told: set[int] = set()
    while len(told) < 10:
        fields = wire.outcome()
        assert fields[3] is True and fields[4].descriptor == ACCEPTED
        told.update(range(fields[1], (fields[1] if fields[2] is None else fields[2]) + 1))


# Links

@pytest.mark.parametrize("role", [SENDER, RECEIVER])
def test_a_stolen_link(connect10: Connect10, queue: str, role: bool) -> None:
    first, second = connect10("thief"), connect10("thief")
    first.attach("same", role, queue)
    second.attach("same", role, queue)
    fields = first.expect(DETACH)[0]
    assert not fields[1] and str(fields[2].value[0]) == "amqp:link:stolen"
    connect10("somebody else").attach("same", role, queue)
    second.send(FLOW, uint(0), uint(1), uint(0), uint(1), None, None, None, None, None, True)
    second.flow()  # it has its link still


def test_the_same_name_both_ways(wire: Client10, queue: str) -> None:
    """A link's name is its direction's (section 2.6.1)."""
    wire.attach("same", SENDER, queue, handle=0)
    wire.attach("same", RECEIVER, queue, handle=1)
    wire.credit(1, handle=1)
    wire.transfer(message(b"x"), b"t")
    assert wire.delivery()[1].endswith(b"x")


def test_handles_are_free_again(wire: Client10, queue: str) -> None:
    for number in range(20):
        wire.attach(f"link{number}", SENDER, queue, handle=5)
        assert wire.detach(5, closed=True)[1] is True


def test_a_refused_link_is_attached_first(wire: Client10) -> None:
    """Then it is closed, with the reason (section 2.6.3): a client tells it by the terminus that is not there."""
    fields = wire.attach("lost", SENDER, "nowhere at all")
    assert fields[6] is None
    detach = wire.expect(DETACH)[0]
    assert detach[1] is True and str(detach[2].value[0]) == "amqp:not-found"


def test_several_sessions(wire: Client10, queue: str, ch: Channel) -> None:
    """Their ids and handles are their own; the end of one is not that of another."""
    for channel in (1, 7):
        assert wire.begin(channel=channel)[0] == channel
        wire.send(ATTACH, f"in{channel}", uint(0), SENDER, ubyte(0), ubyte(0), state(0x28), state(0x29, queue), None,
                  None, uint(0), channel=channel)
        wire.expect(ATTACH)
        wire.send(TRANSFER, uint(0), uint(0), b"t", payload=message(b"x"), channel=channel)
        assert wire.outcome()[1] == 0
    wire.send(END, channel=1)
    wire.expect(END)
    wire.send(TRANSFER, uint(0), uint(1), b"t", payload=message(b"x"), channel=7)
    assert wire.outcome()[1] == 1
    assert ch.count(queue) == 3


def test_the_end_of_a_session_gives_back(wire: Client10, queue: str, ch: Channel) -> None:
    fill(ch, queue, 3)
    wire.send(BEGIN, None, uint(0), uint(100), uint(100), channel=1)
    wire.expect(BEGIN)
    wire.send(ATTACH, "out", uint(0), RECEIVER, ubyte(0), ubyte(0), state(0x28, queue), state(0x29), channel=1)
    wire.expect(ATTACH)
    wire.send(FLOW, uint(0), uint(100), uint(0), uint(100), uint(0), uint(0), uint(3), channel=1)
    for _ in range(3):
        wire.delivery()
    wire.send(END, channel=1)
    wire.expect(END)
    eventually(lambda: ch.count(queue) == 3)
    assert [ch.wait_get(queue).body for _ in range(3)] == [b"..0", b"..1", b"..2"]


def test_a_deleted_queue_closes_its_links(wire: Client10, queue: str, ch: Channel) -> None:
    wire.attach("out", RECEIVER, queue)
    ch.call(Queue.Delete(0, queue))
    fields = wire.expect(DETACH)[0]
    assert fields[1] is True and str(fields[2].value[0]) == "amqp:resource-deleted"


def test_priority_of_a_receiver(connect10: Connect10, queue: str, ch: Channel) -> None:
    low, high = connect10("low"), connect10("high")
    low.attach("out", RECEIVER, queue, properties={symbol("priority"): 1})
    high.attach("out", RECEIVER, queue, properties={symbol("priority"): 5})
    low.credit(10)
    high.credit(2)
    low.credit(10, echo=True)
    low.flow()
    for body in (b"1", b"2", b"3"):
        ch.put("", queue, body)
    assert [high.delivery()[1][-1:] for _ in range(2)] == [b"1", b"2"]
    assert low.delivery()[1][-1:] == b"3"


@pytest.mark.parametrize("shared", [0, 1])
def test_message_groups(connect10: Connect10, ch: Channel, name: Callable[..., str], shared: int) -> None:
    """By group-id, or the header of 0-9-1 that stands for it: one receiver a group, until it goes or, where groups are
    shared, until it has settled what it has of them."""
    queue = name()
    ch.queue(queue, arguments={"qpid.group_header_key": "JMSXGroupID", "qpid.shared_msg_group": shared})
    first, second = connect10("first"), connect10("second")
    for wire in (first, second):
        wire.attach("out", RECEIVER, queue)
    first.credit(1)
    first.credit(1, echo=True)
    first.flow()
    sender = connect10("sender")
    sender.attach("in", SENDER, queue)
    for number in range(2):
        sender.transfer(encode(state(0x73, *[None] * 10, "group")) + message(b"%d" % number), b"t")
        sender.outcome()
    ch.put("", queue, b"2", headers={"JMSXGroupID": "group"})
    ch.put("", queue, b"3", headers={"JMSXGroupID": "other"})
    fields, payload = first.delivery()
    assert payload.endswith(b"0")
    second.credit(10)
    assert second.delivery()[1].endswith(b"3")
    first.settle(RECEIVER, fields[1], state(ACCEPTED))
    if not shared:
        first.detach(closed=True)
    assert [second.delivery()[1][-1:] for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize(("capability", "outcome"), [(None, REJECTED), ("DISCARD_UNROUTABLE", ACCEPTED),
                                                     ("REJECT_UNROUTABLE", REJECTED), ("topic", ACCEPTED)])
def test_unroutable(wire: Client10, capability: str | None, outcome: int) -> None:
    more = (None, None, symbols([capability])) if capability else ()
    wire.attach("in", SENDER, "amq.topic/nobody", more=more)
    wire.transfer(message(b"x"), b"t")
    found = wire.outcome()[4]
    assert found.descriptor == outcome
    assert outcome == ACCEPTED or str(found.value[0].value[0]) == "amqp:not-found"


@pytest.mark.parametrize(("policy", "survives_close"), [
    (0x2B, False), (0x2C, True), (0x2D, True), (0x2E, True)])
def test_lifetime_policies(wire: Client10, connect10: Connect10, ch: Channel, policy: int,
                           survives_close: bool) -> None:
    """delete-on-close, on-no-links, on-no-messages, on-no-links-or-messages (part 3, section 3.5.10 and on)."""
    other = connect10("other")
    properties = {symbol("lifetime-policy"): Described(ulong(policy), [])}
    made = wire.attach("made", RECEIVER, None, more=(True, properties))
    address = made[5].value[0]
    other.attach("in", SENDER, address)
    other.transfer(message(b"x"), b"t")
    assert other.outcome()[4].descriptor == ACCEPTED
    wire.detach(closed=True)

    assert ch.exists(address) is survives_close
    if not survives_close:
        return
    other.detach(closed=True)
    if policy == 0x2C:
        eventually(lambda: ch.gone(address))
    else:
        assert ch.exists(address)
        assert ch.wait_get(address).body == b"x"
        eventually(lambda: ch.gone(address))
