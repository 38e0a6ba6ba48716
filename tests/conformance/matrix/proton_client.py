"""Qpid Proton in the matrix: it says all there is to say, if not always by its `Message`."""

from __future__ import annotations

import math
from typing import Any

from proton import Array, Data, Delivery, Described, Event, Handler, Message, symbol
from proton.utils import BlockingConnection

from tests.conformance.matrix import sections10
from tests.conformance.matrix.notation import Side, Value
from tests.conformance.support import DEADLINE

ATTRIBUTES = {"durable": "durable", "priority": "priority", "message-id": "id", "user-id": "user_id", "to": "address",
              "subject": "subject", "reply-to": "reply_to", "correlation-id": "correlation_id",
              "content-type": "content_type", "content-encoding": "content_encoding",
              "absolute-expiry-time": "expiry_time", "creation-time": "creation_time", "group-id": "group_id",
              "group-sequence": "group_sequence", "reply-to-group-id": "reply_to_group_id"}
MAPS = {"annotations": "annotations", "properties": "properties"}


class Encoded(Message):
    """A message of which the bytes are known."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def encode(self) -> bytes:
        return self.data


class Taker(Handler):
    """Accepts messages, and keeps their bytes."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def on_delivery(self, event: Event) -> None:
        delivery = event.delivery
        if delivery.readable and not delivery.partial:
            self.taken.append(event.link.recv(delivery.pending))
            event.link.advance()
            delivery.update(Delivery.ACCEPTED)
            delivery.settle()
            event.container.yield_()  # let `wait` look


class Proton:
    name = "proton"
    dialect = "ten"

    def __init__(self, url: str) -> None:
        self.connection = BlockingConnection(url, timeout=DEADLINE)

    def close(self) -> None:
        self.connection.close()

    @staticmethod
    def can_send(side: Side) -> bool:
        """All: its codec has every type."""
        return True

    @staticmethod
    def can_read(side: Side) -> bool:
        data = sections10.encode(side)
        try:
            decoded(data)
        except ValueError:
            return False
        return sections10.try_decode(data) == side

    def send(self, queue: str, sides: list[Side]) -> None:
        sender = self.connection.create_sender(queue)
        for side in sides:
            sender.send(message_of(side) or Encoded(sections10.encode(side)))
        sender.close()

    def read(self, queue: str, count: int) -> list[tuple[Side, Message]]:
        """What is in the queue: as Proton's codec has it, and as its `Message` does."""
        taker = Taker()
        receiver = self.connection.create_receiver(queue, credit=count, handler=taker)
        self.connection.wait(lambda: len(taker.taken) == count, msg=f"{count} messages in {queue}")
        receiver.close()
        return [(sections10.decode(data), decoded(data)) for data in taker.taken]

    def same(self, shown: Message, side: Side) -> bool:
        """Whether a message that was read is, to an application, what this side says."""
        expected = decoded(sections10.encode(side))
        return all(same(getattr(shown, name), getattr(expected, name))
                   for name in [*ATTRIBUTES.values(), *MAPS.values(), "body", "inferred"])

    @staticmethod
    def kind(value: Value) -> str:
        """The name of the type that an application gets for a value."""
        return type(decoded(sections10.encode({"properties": {"v": value}, "body": []})).properties["v"]).__name__


def decoded(data: bytes) -> Message:
    message = Message()
    message.decode(data)
    return message


def message_of(side: Side) -> Message | None:
    """The message as an application makes it; None when Proton's `Message` cannot say it exactly."""
    message = Message(inferred=side["body"][:1] != [] and side["body"][0][0] != "value")
    try:
        for name, value in side.items():
            if name in ATTRIBUTES:
                content = python(value)
                setattr(message, ATTRIBUTES[name], content / 1000 if value[0] == "timestamp" else content)
            elif name == "ttl":
                message.ttl = int(value[1]) / 1000
            elif name in MAPS:
                key = symbol if name == "annotations" else str
                setattr(message, name, {key(each): python(item) for each, item in value.items()})
            else:
                (kind, content), = value
                message.body = python(content if kind == "value" else ["binary" if kind == "data" else "list", content])
        return message if sections10.try_decode(message.encode()) == side else None
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None


def python(value: Value) -> Any:
    """A value as Proton gives it to an application."""
    data = Data()
    sections10.put(data, value)
    data.rewind()
    data.next()
    return owned(data.get_object())


def owned(value: Any) -> Any:
    """A value with copies of what are views of the codec's memory."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list):
        return [owned(each) for each in value]
    if isinstance(value, dict):
        return {owned(key): owned(item) for key, item in value.items()}
    if isinstance(value, Described):
        return Described(owned(value.descriptor), owned(value.value))
    if isinstance(value, Array):
        return Array(value.descriptor, value.type, *map(owned, value.elements))
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and have the same types, throughout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return repr(one) == repr(other) or math.isnan(one) and math.isnan(other)
    return bool(one == other)
