"""What the tests of the core share: a broker over a real store, whose loop is turned by hand, and a reader."""

from __future__ import annotations

import pathlib
from struct import pack
from typing import Any

from store_kit import Turns

from broker.broker import Broker, Watcher
from broker.clock import Alarm, Clock
from broker.consumer import Consumer
from broker.entry import Entry
from broker.message import AMQP091, Message, address_of
from broker.queue import Queue
from protocols.amqp091.convert import body_pieces
from protocols.amqp091.frames import BODY, HEADER, frame
from store.lmdb import LmdbStore


class Reader(Consumer):
    """Takes as many entries as it has room for, and settles them when its test does."""

    def __init__(self, queue: Queue, tag: str) -> None:
        super().__init__(queue, tag, 0, False, True)
        self.room = 0
        self.entries: list[Entry] = []

    def ready(self) -> bool:
        return self.room > 0

    def deliver(self, entry: Entry, message: Message) -> None:
        self.room -= 1
        self.entries.append(entry)

    def cancelled(self) -> None:
        pass


class Running:
    """A broker with one virtual host, recovered from what the folder holds."""

    def __init__(self, folder: pathlib.Path, keep: int) -> None:
        """keep: messages that a queue keeps in memory."""
        self.loop = Turns()
        self.clock = Clock()
        self.broker = Broker(LmdbStore(folder, self.loop, 64 << 20), self.loop, self.clock, Alarm(), Watcher(),
                             1 << 30, keep, 1 << 30)
        self.host = self.broker.add_host("/")
        for _ in self.broker.recover():
            pass

    def queue(self, name: str, arguments: dict[str, Any]) -> Queue:
        """A durable queue, new or recovered."""
        return self.host.declare_queue(name, True, False, False, arguments, self)[0]

    def publish(self, exchange: str, routing_key: str, body: bytes, durable: bool, priority: int,
                group: str = "") -> int:
        """group: what the header `group` is to say, if anything."""
        address = address_of(exchange, routing_key)
        entry = b"\x05groupS" + pack(">I", len(group)) + group.encode() if group else b""
        header = pack(">HHQH", 60, 0, len(body), 1 << 13 | 1 << 12 | 1 << 11) + pack(">I", len(entry)) + entry \
            + pack(">BB", 2 if durable else 1, priority)
        native = frame(HEADER, 0, header) + frame(BODY, 0, body)
        message = Message(address, AMQP091, native, None, len(body), durable, priority, 0, self.clock.now)
        return self.host.publish(self.host.route(address.short_strings, exchange, routing_key), message, None)

    def close(self) -> None:
        self.loop.settle()
        self.broker.close()
        self.loop.settle()


def body_of(message: Message) -> bytes:
    return b"".join(body_pieces(message))
