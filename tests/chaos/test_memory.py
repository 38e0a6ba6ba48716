"""A backlog, and what is delayed, is the disk's business: the broker's memory does not grow with it."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import amqp
import pytest

from dragoman import testing
from tests.chaos.workload import HANG, connect
from tests.wire10 import ACCEPTED, RECEIVER, SENDER, TRANSFER, Client10

COUNT, SIZE = 40_000, 4096
WINDOW = 500


def memory(broker: testing.Broker) -> int:
    """Bytes of the broker's own; pages of the store's file, which the system takes back as it likes, do not count."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{broker.pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.parametrize("delivery_mode", [1, 2])
def test_memory_does_not_grow_with_a_backlog(tmp_path: Path, delivery_mode: int) -> None:
    filling = bytes(SIZE)
    config = '[limits]\nqueue_memory_messages = 1000\nmemory = "24 MiB"'
    with testing.broker(config, store=tmp_path / "store") as broker:
        with connect(broker.port) as connection:
            channel = connection.channel()
            channel.queue_declare("q", durable=True, auto_delete=False)
            channel.confirm_select()
            confirmed = 0

            def acknowledged(tag: int, multiple: bool) -> None:
                nonlocal confirmed
                confirmed = max(confirmed, tag)
            channel.events["basic_ack"].add(acknowledged)
            before = memory(broker)
            for number in range(COUNT):
                channel.basic_publish(amqp.Message(b"%d:" % number + filling, delivery_mode=delivery_mode), "", "q")
                while number - confirmed > WINDOW:
                    connection.drain_events(timeout=HANG)
            while confirmed < COUNT:
                connection.drain_events(timeout=HANG)
            assert memory(broker) - before < COUNT * SIZE / 2  # a busy disk may have let more than a few pile up
            received: list[int] = []

            def deliver(message: amqp.Message) -> None:
                body = message.body if isinstance(message.body, bytes) else message.body.encode()
                received.append(int(body.partition(b":")[0]))
                assert len(body) > SIZE and not message.delivery_info["redelivered"]
                channel.basic_ack(message.delivery_info["delivery_tag"])
            channel.basic_qos(0, 200, False)
            channel.basic_consume("q", callback=deliver)
            while len(received) < COUNT:
                connection.drain_events(timeout=HANG)
            assert received == list(range(COUNT))
            assert memory(broker) - before < COUNT * SIZE / 2  # a busy disk may have let more than a few pile up


def test_delayed_messages_wait_on_the_disk(tmp_path: Path) -> None:
    count, latest = 10_000, 4000  # ms
    delays = [(number * 7919) % latest for number in range(count)]
    with testing.broker("[limits]\nqueue_memory_messages = 100", store=tmp_path / "store") as broker:
        with connect(broker.port) as connection:
            channel = connection.channel()
            channel.queue_declare("q", durable=True, auto_delete=False)
            channel.exchange_declare("later", "x-delayed-message", durable=True, auto_delete=False,
                                     arguments={"x-delayed-type": "fanout"})
            channel.queue_bind("q", "later")
            channel.tx_select()
            before = memory(broker)
            for number in range(count):
                channel.basic_publish(amqp.Message(b"%d:" % number + bytes(SIZE), delivery_mode=2, application_headers={
                    "x-delay": 5000 + delays[number]}), "later", "")
                if number % 500 == 499:
                    channel.tx_commit()
            assert memory(broker) - before < count * SIZE / 2
        broker.kill()
        broker.start()
        with connect(broker.port) as connection:
            channel = connection.channel()
            received: list[int] = []
            channel.basic_consume("q", no_ack=True, callback=lambda message: received.append(
                int(message.body[:9].partition(":" if isinstance(message.body, str) else b":")[0])))
            while len(received) < count:
                connection.drain_events(timeout=60)
    assert sorted(received) == list(range(count))


def test_a_hundred_mebibytes_are_kept_once(tmp_path: Path) -> None:
    """A large message of 1.0 is passed on in pieces: it is in memory once, however many receivers are at it."""
    size, piece = 100 << 20, 60_000
    with testing.broker() as broker:
        receivers = [Client10(broker.host, broker.port, f"receiver {number}", window=1 << 20) for number in range(3)]
        for receiver in receivers:
            receiver.attach("out", RECEIVER, "amq.fanout")
            receiver.credit(1)
        sender = Client10(broker.host, broker.port, "sender")
        sender.attach("in", SENDER, "amq.fanout")
        before = memory(broker)
        sent = hashlib.blake2b()
        head = b"\x00\x53\x75\xb0" + size.to_bytes(4, "big")
        for at in range(0, size, piece):
            part = random.randbytes(min(piece, size - at))
            sent.update(part)
            sender.transfer((head if at == 0 else b"") + part, b"t", more=at + piece < size, number=0)
        assert sender.outcome()[4].descriptor == ACCEPTED
        for receiver in receivers:
            got = hashlib.blake2b()
            fields, payload = receiver.expect(TRANSFER)
            got.update(payload[payload.index(head) + len(head):])
            while fields[5]:
                fields, payload = receiver.expect(TRANSFER)
                got.update(payload)
            assert got.digest() == sent.digest()
            assert memory(broker) - before < 1.4 * size
        for each in (*receivers, sender):
            each.vanish()
