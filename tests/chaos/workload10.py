"""Clients of AMQP 1.0 among those of tests/chaos/workload.py, frame by frame (tests/wire10.py)."""

from __future__ import annotations

import random
from typing import Any

from proton import Described, uint, ulong

from tests.chaos.ledger import Place, Published, body_of
from tests.wire10 import ACCEPTED, ATTACH, FLOW, RECEIVER, REJECTED, SENDER, TRANSFER, Client10, encode, state

WINDOW = 200  # messages that wait for their outcomes
GROUP = 7  # messages of a transaction
DECLARE, DISCHARGE, DECLARED, TRANSACTIONAL = range(0x31, 0x35)

BROKEN10 = (OSError, EOFError)


def message_of(publisher: Published, number: int, size: int) -> bytes:
    """A durable message with the id that a client of 0-9-1 looks for."""
    return (encode(state(0x70, True)) + encode(state(0x73, f"{publisher.name}-{number}"))
            + encode(Described(ulong(0x75), body_of(publisher.name, number, size))))


def publish10(client: Client10, chance: random.Random, publisher: Published, queue: str) -> None:
    """Unsettled deliveries, many at a time."""
    client.attach("in", SENDER, queue)
    waiting: dict[int, int] = {}  # delivery id -> number
    while True:
        number = len(publisher.sent)
        publisher.sent[number] = number
        waiting[client.transfer(message_of(publisher, number, chance.randint(20, 300)), b"%d" % number)] = number
        while len(waiting) >= WINDOW:
            fields = client.outcome()
            assert fields[4].descriptor == ACCEPTED and fields[3] is True
            for delivery in range(fields[1], (fields[1] if fields[2] is None else fields[2]) + 1):
                publisher.confirmed.add(waiting.pop(delivery))


def publish_groups10(client: Client10, chance: random.Random, publisher: Published, queue: str) -> None:
    """In transactions."""
    client.attach("in", SENDER, queue, handle=0)
    client.send(ATTACH, "coordinator", uint(1), SENDER, None, None, state(0x28), state(0x30), None, None, uint(0))
    client.expect(ATTACH)
    group = len(publisher.sent)
    while True:
        group += 1
        identity = told(client, state(DECLARE)).value[0]
        numbers = range(len(publisher.sent), len(publisher.sent) + GROUP)
        publisher.sent.update(dict.fromkeys(numbers, group))
        for number in numbers:
            client.transfer(message_of(publisher, number, chance.randint(20, 300)), b"t", settled=True,
                            delivery_state=state(TRANSACTIONAL, identity))
        assert told(client, state(DISCHARGE, identity, False)).descriptor == ACCEPTED
        publisher.confirmed.update(numbers)


def told(client: Client10, body: Any) -> Described:
    """What the coordinator says to a message."""
    client.transfer(encode(Described(ulong(0x77), body)), b"c", handle=1)
    outcome: Described = client.outcome()[4]
    assert outcome.descriptor != REJECTED, outcome
    return outcome


def consume10(client: Client10, chance: random.Random, place: Place) -> None:
    """Accept without settling: what the broker has settled is gone for good."""
    client.attach("out", RECEIVER, place.queues[0], rcv=1)
    numbers: dict[int, int] = {}  # delivery id -> number
    received = 0
    client.credit(100)
    while True:
        code, fields, payload = client.frame()
        if code == TRANSFER:
            received += 1
            number = int(payload.rpartition(place.publisher.name.encode() + b":")[2].split(b":", 1)[0])
            numbers[fields[1]] = number
            place.seen.add(number)
            place.maybe_gone.add(number)
            client.settle(RECEIVER, fields[1], state(ACCEPTED), settled=False)
            if received % 50 == 0:
                client.send(FLOW, uint(received), uint(1000), uint(0), uint(1000), uint(0), uint(received), uint(100))
        elif code != FLOW:
            assert fields[0] is False and fields[3] is True
            place.gone.add(numbers.pop(fields[1]))


def connect10(port: int, seconds: float) -> Client10:
    client = Client10("127.0.0.1", port, f"chaos-{random.getrandbits(40)}")
    client.socket.settimeout(seconds)
    return client
