"""Links that come back to their unsettled deliveries (AMQP 1.0, part 2, section 2.6.13), frame by frame.

Proton, rhea and Qpid JMS resume nothing by themselves, so only the specification says what is right. Proton's codec
makes the frames.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from proton import uint, ulong

from tests.conformance.conftest import start
from tests.conformance.pika_tools import parameters
from tests.conformance.support import Names, Target
from tests.conformance.test_proton import messages_in
from tests.wire import eventually
from tests.wire10 import (
    ACCEPTED,
    DISPOSITION,
    RECEIVED,
    RECEIVER,
    REJECTED,
    SENDER,
    TRANSFER,
    Client10,
    message,
    state,
)

Connect = Callable[..., Client10]


@pytest.fixture
def connect(target: Target) -> Iterator[Connect]:
    opened: list[Client10] = []

    def open_connection(container: str) -> Client10:
        opened.append(Client10(target.host, target.port, container))
        return opened[-1]

    yield open_connection
    for each in opened:
        each.vanish()


@pytest.fixture
def queue(channel: BlockingChannel, names: Names) -> str:
    name = names.queue()
    channel.queue_declare(name)
    return name


@pytest.fixture
def container() -> str:
    return f"container-{uuid.uuid4().hex[:8]}"


def receive_one(client: Client10, queue: str, name: str = "link", **options: object) -> bytes:
    """Attach a receiver and have one delivery. Gives its tag."""
    client.attach(name, RECEIVER, queue, **options)
    client.credit(1)
    fields, payload = client.expect(TRANSFER)
    assert payload.endswith(b"\x03one")
    tag: bytes = fields[2]
    return tag


NEVER = {"durable": 2, "expiry": "never"}


@pytest.mark.parametrize("vanish", [True, False])
def test_a_receiver_that_has_decided_is_believed(connect: Connect, channel: BlockingChannel, queue: str,
                                                 container: str, vanish: bool) -> None:
    channel.basic_publish("", queue, b"one")
    client = connect(container)
    tag = receive_one(client, queue, **NEVER)
    client.vanish() if vanish else client.close()
    eventually(lambda: messages_in(channel, queue) == 0)

    again = connect(container)
    reply = again.attach("link", RECEIVER, queue, unsettled={tag: state(ACCEPTED)}, **NEVER)
    assert list(reply[7]) == [tag]
    again.credit(1)
    fields, payload = again.expect(TRANSFER)
    assert fields[2] == tag and fields[4] is True and fields[8] is True and payload == b""  # settled, resumed
    assert fields[7].descriptor == ACCEPTED
    again.detach(closed=True)
    assert messages_in(channel, queue) == 0


def test_an_undecided_delivery_is_sent_again_and_to_nobody_else(connect: Connect, channel: BlockingChannel,
                                                                queue: str, container: str) -> None:
    channel.basic_publish("", queue, b"one")
    client = connect(container)
    tag = receive_one(client, queue, **NEVER)
    client.vanish()
    other = connect("other")
    other.attach("other", RECEIVER, queue)
    other.credit(1, drain=True)
    fields, _, = other.expect(0x13)
    assert fields[6] == 0  # drained: there was nothing

    again = connect(container)
    reply = again.attach("link", RECEIVER, queue, unsettled={tag: state(RECEIVED, uint(0), ulong(0))}, **NEVER)
    assert list(reply[7].items()) == [(tag, None)]
    again.credit(1)
    fields, payload = again.expect(TRANSFER)
    assert fields[2] == tag and not fields[4] and fields[8] is True and payload.endswith(b"\x03one")
    assert fields[7].descriptor == RECEIVED
    again.settle(RECEIVER, fields[1], state(ACCEPTED))
    again.detach(closed=True)
    assert messages_in(channel, queue) == 0


def test_what_the_receiver_does_not_know_any_more_goes_back(connect: Connect, channel: BlockingChannel, queue: str,
                                                            container: str) -> None:
    channel.basic_publish("", queue, b"one")
    client = connect(container)
    receive_one(client, queue, **NEVER)
    client.vanish()
    again = connect(container)
    reply = again.attach("link", RECEIVER, queue, **NEVER)
    assert reply[7] is None
    again.credit(1)
    fields, payload = again.expect(TRANSFER)
    assert not fields[8] and payload.endswith(b"\x03one")


@pytest.mark.parametrize(("expiry", "event", "stays"), [
    ("link-detach", "detach", False), ("session-end", "detach", True), ("session-end", "end", False),
    ("connection-close", "end", True), ("connection-close", "close", False), ("never", "close", True)])
def test_expiry_policies(connect: Connect, channel: BlockingChannel, queue: str, container: str, expiry: str,
                         event: str, stays: bool) -> None:
    """Part 3, section 3.5.6."""
    channel.basic_publish("", queue, b"one")
    client = connect(container)
    receive_one(client, queue, durable=2, expiry=expiry)
    if event == "detach":
        client.detach()
    elif event == "end":
        client.send(0x17)
        client.expect(0x17)
    else:
        client.close()
    assert messages_in(channel, queue) == (0 if stays else 1)


def test_time_out_of_a_terminus(connect: Connect, channel: BlockingChannel, queue: str, container: str) -> None:
    channel.basic_publish("", queue, b"one")
    client = connect(container)
    receive_one(client, queue, expiry="link-detach", timeout=1)
    client.detach()
    assert messages_in(channel, queue) == 0
    eventually(lambda: messages_in(channel, queue) == 1)


def send_one(client: Client10, queue: str, tag: bytes, **options: object) -> int:
    client.attach("link", SENDER, queue, rcv=1, **options)
    client.expect(0x13)
    return client.transfer(message(b"one", durable=True), tag)


def test_a_sender_learns_what_became_of_its_delivery(connect: Connect, channel: BlockingChannel, queue: str,
                                                     container: str) -> None:
    client = connect(container)
    send_one(client, queue, b"tag-1", **NEVER)
    assert client.expect(DISPOSITION)[0][3] is not True  # the receiver settles second: when the sender has
    client.vanish()

    again = connect(container)
    reply = again.attach("link", SENDER, queue, rcv=1, unsettled={b"tag-1": None, b"tag-2": None}, **NEVER)
    assert [(tag, value.descriptor) for tag, value in reply[7].items()] == [(b"tag-1", ACCEPTED)]
    again.expect(0x13)
    again.transfer(b"", b"tag-1", settled=True, resume=True, delivery_state=state(ACCEPTED))
    again.transfer(message(b"two"), b"tag-2", resume=True)  # which the broker does not know: to be ignored
    again.detach()
    assert messages_in(channel, queue) == 1

    reply = again.attach("link", SENDER, queue, rcv=1, unsettled={b"tag-1": None}, **NEVER)
    assert reply[7] is None


def test_a_resumed_delivery_gets_its_outcome_again(connect: Connect, channel: BlockingChannel, queue: str,
                                                   container: str) -> None:
    client = connect(container)
    client.attach("link", SENDER, "/exchanges/amq.direct/nowhere", rcv=1)
    client.expect(0x13)
    client.transfer(message(b"one"), b"tag-1")
    assert client.expect(DISPOSITION)[0][4].descriptor == REJECTED
    client.detach()
    client.attach("link", SENDER, "/exchanges/amq.direct/nowhere", rcv=1, unsettled={b"tag-1": None})
    client.expect(0x13)
    number = client.transfer(b"", b"tag-1", resume=True)
    fields, _ = client.expect(DISPOSITION)
    assert fields[1] == number and fields[4].descriptor == REJECTED


def test_settled_exactly_once_over_a_restart(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if request.getfixturevalue("target").peer:
        pytest.skip("restarts brokers of ours")
    with start(tmp_path, store=tmp_path / "store") as (target, _), ExitStack() as stack:
        with pika.BlockingConnection(parameters(target)) as connection:
            connection.channel().queue_declare("q", durable=True)
        sender = Client10(target.host, target.port, "s")
        stack.callback(sender.vanish)
        send_one(sender, "q", b"tag-1", **NEVER)
        sender.expect(DISPOSITION)
        receiver = Client10(target.host, target.port, "r")
        stack.callback(receiver.vanish)
        tag = receive_one(receiver, "q", **NEVER)
    with start(tmp_path, store=tmp_path / "store") as (target, _), ExitStack() as stack:
        sender = Client10(target.host, target.port, "s")
        stack.callback(sender.vanish)
        reply = sender.attach("link", SENDER, "q", rcv=1, unsettled={b"tag-1": None}, **NEVER)
        assert [(each, value.descriptor) for each, value in reply[7].items()] == [(b"tag-1", ACCEPTED)]
        receiver = Client10(target.host, target.port, "r")
        stack.callback(receiver.vanish)
        reply = receiver.attach("link", RECEIVER, "q", unsettled={tag: state(ACCEPTED)}, **NEVER)
        assert list(reply[7]) == [tag]
        receiver.credit(2)
        fields, _ = receiver.expect(TRANSFER)
        assert fields[2] == tag and fields[4] is True
        receiver.credit(1, delivered=1, drain=True)
        assert receiver.expect(0x13)[0][6] == 0

