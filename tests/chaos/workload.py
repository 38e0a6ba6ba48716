"""Clients at work, each a thread with a connection of its own, until the broker dies under them.

Those of 0-9-1 are py-amqp's; those of 0-10 and 1.0 are in tests/chaos/workload010.py and workload10.py. All is looked
at by 0-9-1 afterwards.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import amqp

from tests.chaos.ledger import Place, Published, body_of, read
from tests.chaos.workload010 import BROKEN010, connect010, consume010, publish010, publish_groups010
from tests.chaos.workload10 import BROKEN10, connect10, consume10, publish10, publish_groups10
from tests.wire010 import Client010
from tests.wire10 import Client10

WINDOW = 200  # messages that wait for their confirms
GROUP = 7  # messages of a transaction
HANG = 20.0  # seconds after which a client counts as hung
BROKEN = (OSError, amqp.exceptions.AMQPError)


def connect(port: int) -> amqp.Connection:
    """A connection to the broker on this port of 127.0.0.1."""
    connection = amqp.Connection(f"127.0.0.1:{port}", userid="guest", password="guest", connect_timeout=HANG,
                                 read_timeout=HANG, write_timeout=HANG)
    connection.connect()
    return connection


Kind = tuple[Callable[[int], Any], Callable[[Any], None], tuple[type[Exception], ...]]
"""What connects a client, what lets go of it, and what it raises when the broker is gone."""

KIND091: Kind = (connect, amqp.Connection.collect, BROKEN)
KIND10: Kind = (partial(connect10, seconds=HANG), Client10.vanish, BROKEN10)
KIND010: Kind = (partial(connect010, seconds=HANG), Client010.vanish, BROKEN010)


class Load:
    """Everything that goes on at once. The topology is made when it is first run; the ledgers stay from run to run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.plain, self.spread, self.grouped, self.large, self.rejected, self.modern, self.modern_grouped = (
            Published(name) for name in ("plain", "spread", "grouped", "large", "rejected", "modern", "modern-grouped"))
        self.qpid, self.qpid_grouped = Published("qpid"), Published("qpid-grouped")
        self.places = [Place(("work",), self.plain), Place(("large",), self.large),
                       Place(("grouped",), self.grouped, grouped=True),
                       Place(("refused", "dead"), self.rejected, ordered=False),
                       Place(("modern",), self.modern), Place(("modern-grouped",), self.modern_grouped, grouped=True),
                       Place(("qpid",), self.qpid), Place(("qpid-grouped",), self.qpid_grouped, grouped=True)]
        self.copies = [Place((f"copy{number}",), self.spread) for number in range(3)]
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []

    def declare(self, port: int) -> None:
        """The topology."""
        with connect(port) as connection:
            channel = connection.channel()
            channel.exchange_declare("spread", "fanout", durable=True, auto_delete=False)
            for name in ("work", "large", "grouped", "dead", "copy0", "copy1", "copy2", "modern", "modern-grouped",
                         "qpid", "qpid-grouped"):
                channel.queue_declare(name, durable=True, auto_delete=False)
            channel.queue_declare("refused", durable=True, auto_delete=False, arguments={
                "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
            for place in self.copies:
                channel.queue_bind(place.queues[0], "spread")

    def start(self, port: int) -> None:
        """Have all clients begin."""
        self.threads = []
        for work, arguments in (
                (self.publish, (self.plain, "", "work", (20, 300))),
                (self.publish, (self.spread, "spread", "", (20, 300))),
                (self.publish, (self.large, "", "large", (100_000, 1_000_000))),
                (self.publish, (self.rejected, "", "refused", (20, 300))), (self.publish_groups, ()),
                (self.consume, ()), (self.consume_in_transactions, ()), (self.reject, ())):
            self._start(KIND091, work, port, *arguments)
        for work10, arguments10 in (
                (publish10, (self.modern, "modern")), (publish_groups10, (self.modern_grouped, "modern-grouped")),
                (consume10, (self.places[4],))):
            self._start(KIND10, work10, port, *arguments10)
        for work010, arguments010 in (
                (publish010, (self.qpid, "qpid")), (publish_groups010, (self.qpid_grouped, "qpid-grouped")),
                (consume010, (self.places[6],))):
            self._start(KIND010, work010, port, *arguments010)

    def _start(self, kind: Kind, work: Callable[..., None], port: int, *arguments: Any) -> None:
        chance = random.Random(self.random.random())
        thread = threading.Thread(target=self._run, args=(kind, work, port, chance, *arguments), daemon=True)
        thread.start()
        self.threads.append(thread)

    def join(self) -> None:
        """Wait until all have noticed that the broker is gone. Raises what went wrong in one of them."""
        for thread in self.threads:
            thread.join(2 * HANG)
            assert not thread.is_alive(), "a client hangs"
        if self.errors:
            raise self.errors[0]

    def _run(self, kind: Kind, work: Callable[..., None], port: int, *arguments: Any) -> None:
        begin, end, broken = kind
        try:
            client = begin(port)
            try:
                work(client, *arguments)
            finally:
                end(client)
        except broken:
            pass  # the broker was killed
        except BaseException as error:
            self.errors.append(error)

    # Publishers.

    def publish(self, connection: amqp.Connection, chance: random.Random, publisher: Published, exchange: str, key: str,
                sizes: tuple[int, int]) -> None:
        """With confirms, many at a time."""
        channel = connection.channel()
        channel.confirm_select()
        waiting: dict[int, int] = {}  # delivery tag -> number

        def confirmed(tag: int, multiple: bool) -> None:
            for each in [t for t in waiting if t <= tag] if multiple else [tag]:
                publisher.confirmed.add(waiting.pop(each))
        channel.events["basic_ack"].add(confirmed)
        tag = 0
        while True:
            number = len(publisher.sent)
            tag += 1
            waiting[tag] = publisher.sent[number] = number
            channel.basic_publish(_message(publisher, number, chance.randint(*sizes)), exchange, key)
            while len(waiting) >= (WINDOW if sizes[1] < 10_000 else 10):
                connection.drain_events(timeout=HANG)

    def publish_groups(self, connection: amqp.Connection, chance: random.Random) -> None:
        """In transactions."""
        publisher = self.grouped
        channel = connection.channel()
        channel.tx_select()
        group = len(publisher.sent)
        while True:
            group += 1
            numbers = range(len(publisher.sent), len(publisher.sent) + GROUP)
            publisher.sent.update(dict.fromkeys(numbers, group))
            for number in numbers:
                channel.basic_publish(_message(publisher, number, chance.randint(20, 300)), "", "grouped")
            channel.tx_commit()
            publisher.confirmed.update(numbers)

    # Consumers.

    def consume(self, connection: amqp.Connection, chance: random.Random) -> None:
        """Acknowledge one by one, or several at once, or give back."""
        place = self.places[0]
        channel = connection.channel()
        channel.basic_qos(0, 100, False)
        held: list[tuple[int, int]] = []  # delivery tag, number

        def deliver(message: amqp.Message) -> None:
            number, tag = read(message).number, message.delivery_info["delivery_tag"]
            place.seen.add(number)
            held.append((tag, number))
            if chance.random() < 0.02:
                held.pop()
                channel.basic_reject(tag, requeue=True)
            elif chance.random() < 0.5:
                held.pop()
                place.maybe_gone.add(number)
                channel.basic_ack(tag)
            elif len(held) > 30:
                place.maybe_gone.update(number for _, number in held)
                held.clear()
                channel.basic_ack(tag, multiple=True)
        channel.basic_consume("work", callback=deliver)
        while True:
            connection.drain_events(timeout=HANG)

    def consume_in_transactions(self, connection: amqp.Connection, chance: random.Random) -> None:
        """What a commit-ok has answered is gone for good."""
        place = self.copies[0]
        channel = connection.channel()
        channel.tx_select()
        channel.basic_qos(0, 200, False)
        waiting: list[amqp.Message] = []
        channel.basic_consume(place.queues[0], callback=waiting.append)
        while True:
            while len(waiting) < 10:
                connection.drain_events(timeout=HANG)
            batch, waiting[:] = waiting[:], []
            numbers = {read(message).number for message in batch}
            place.seen |= numbers
            place.maybe_gone |= numbers
            channel.basic_ack(batch[-1].delivery_info["delivery_tag"], multiple=True)
            channel.tx_commit()
            place.gone |= numbers

    def reject(self, connection: amqp.Connection, chance: random.Random) -> None:
        """To the dead-letter queue with them, but for some."""
        channel = connection.channel()
        channel.basic_qos(0, 20, False)

        def deliver(message: amqp.Message) -> None:
            read(message)
            channel.basic_reject(message.delivery_info["delivery_tag"], requeue=chance.random() < 0.1)
        channel.basic_consume("refused", callback=deliver)
        while True:
            connection.drain_events(timeout=HANG)

    # Afterwards.

    def verify(self, port: int, take: bool) -> int:
        """Look at all that is there, check it, and take it out or leave it. Gives how many messages there were."""
        count = 0
        found = {place.queues: self._contents(port, place, take) for place in self.places + self.copies}
        for place in self.places + self.copies:
            place.check(found[place.queues])
            count += len(found[place.queues])
        one, other = ({got.number for got in found[place.queues]} for place in self.copies[1:])
        assert one == other, "copies of a message are in some of its queues only"
        for place in self.places + self.copies:
            (place.take if take else place.keep)(found[place.queues])
        return count

    def _contents(self, port: int, place: Place, take: bool) -> list[Any]:
        found = []
        with connect(port) as connection:
            channel = connection.channel()
            channel.tx_select()
            for queue in place.queues:
                count = channel.queue_declare(queue, passive=True).message_count
                messages: list[amqp.Message] = []
                if count:
                    channel.basic_consume(queue, consumer_tag=queue, callback=messages.append)
                while len(messages) < count:
                    connection.drain_events(timeout=HANG)
                found += [read(message) for message in messages]
                assert channel.queue_declare(queue, passive=True).message_count == 0
            if take and found:
                channel.basic_ack(0, multiple=True)
                channel.tx_commit()
        return found


def _message(publisher: Published, number: int, size: int) -> amqp.Message:
    return amqp.Message(body_of(publisher.name, number, size), delivery_mode=2,
                        message_id=f"{publisher.name}-{number}")
