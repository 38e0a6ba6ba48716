"""Clients of AMQP 0-10 among those of tests/chaos/workload.py, frame by frame (tests/wire010.py)."""

from __future__ import annotations

import random
import uuid

from tests.chaos.ledger import Place, Published, body_of, uuid_of
from tests.wire010 import Client010

WINDOW = 200  # messages that are not completed
GROUP = 7  # messages of a transaction

BROKEN010 = (OSError, EOFError)


def publish010(client: Client010, chance: random.Random, publisher: Published, queue: str) -> None:
    """Durable transfers, many at a time: what is completed is safe."""
    waiting: dict[int, int] = {}  # command id -> number
    while True:
        number = len(publisher.sent)
        publisher.sent[number] = number
        waiting[_transfer(client, chance, publisher, number, queue)] = number
        while len(waiting) >= WINDOW:
            client.expect("session.completed")
            for command in client.completed & waiting.keys():
                publisher.confirmed.add(waiting.pop(command))


def publish_groups010(client: Client010, chance: random.Random, publisher: Published, queue: str) -> None:
    """In transactions."""
    client.call("tx.select")
    group = len(publisher.sent)
    while True:
        group += 1
        numbers = range(len(publisher.sent), len(publisher.sent) + GROUP)
        publisher.sent.update(dict.fromkeys(numbers, group))
        for number in numbers:
            _transfer(client, chance, publisher, number, queue)
        client.call("tx.commit")
        publisher.confirmed.update(numbers)


def _transfer(client: Client010, chance: random.Random, publisher: Published, number: int, queue: str) -> int:
    """A message with the id that a client of 0-9-1 looks for."""
    properties = {"message_id": uuid_of(f"{publisher.name}-{number}")}
    return client.transfer("", queue, body_of(publisher.name, number, chance.randint(20, 300)), delivery_mode=2,
                           properties=properties)


def consume010(client: Client010, chance: random.Random, place: Place) -> None:
    """What an accept that is completed was about is gone for good."""
    client.subscribe(place.queues[0], messages=100)
    waiting: dict[int, int] = {}  # command id of an accept -> number
    while True:
        arrived = client.message()
        assert arrived.body is not None
        number = int(arrived.body.rpartition(place.publisher.name.encode() + b":")[2].split(b":", 1)[0])
        place.seen.add(number)
        place.maybe_gone.add(number)
        waiting[client.command("message.accept", transfers=[(arrived.number, arrived.number)])] = number
        client.control("session.completed", commands=[(arrived.number, arrived.number)])
        for command in client.completed & waiting.keys():
            place.gone.add(waiting.pop(command))


def connect010(port: int, seconds: float) -> Client010:
    client = Client010("127.0.0.1", port, uuid.uuid4().bytes)
    client.socket.settimeout(seconds)
    return client
