"""The message: immutable content, kept in the bytes it arrived in.

`Message.native` is what its publisher sent, in the publisher's dialect; a reader of the same dialect gets just that.
Whoever needs to look inside asks for `view()`, which decodes it once. What a dialect must supply for this is a
`Converter`, registered under the dialect's number.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Any, Final

from mypy_extensions import mypyc_attr

from broker.view import Death, View
from store.journal import StoreDamaged, StoredMessage

AMQP091: Final = 1
"""Dialect number of 0-9-1, and of 0-9 and 0-8, which carry messages in the same bytes."""
AMQP10: Final = 2
"""Dialect number of 1.0."""
AMQP010: Final = 3
"""Dialect number of 0-10."""
AMQP010_JMS: Final = 4
AMQP091_JMS: Final = 5
"""0-10 and 0-9-1 for Qpid's JMS clients of these: forms to translate into, which no message arrives in."""
MQTT: Final = 6
"""Dialect number of MQTT, all versions."""

OVERHEAD: Final = 500
"""What a message with its entry costs in memory beside its bytes, roughly, in bytes."""

_STORED = Struct(">BBBHHIQ")  # dialect, flags, priority, lengths of exchange, routing key and native bytes; arrival
_DURABLE: Final = 1


class Address:
    """The route that a message took: exchange and routing key. Shared by all messages that took it."""

    __slots__ = ("exchange", "routing_key", "short_strings")

    def __init__(self, exchange: str, routing_key: str, short_strings: bytes) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.short_strings = short_strings  # both as length-prefixed strings: what 0-8 to 0-10 write in a delivery


@mypyc_attr(allow_interpreted_subclasses=True)
class Publisher:
    """Whoever waits for messages to be safe."""

    __slots__ = ()

    def confirmed(self, sequence: int) -> None:
        """The message that was published under this number is safe in all its queues, or done with."""
        raise NotImplementedError


class Message(StoredMessage):
    """A message on its way. Nobody changes one after it was published; `amended` makes a new one."""

    __slots__ = ("address", "dialect", "native", "body", "size", "durable", "priority", "expiry", "arrival",
                 "holders", "shared", "pending", "publisher", "sequence", "origin", "prepared", "_view",
                 "_translations")

    def __init__(self, address: Address, dialect: int, native: bytes, body: list[bytes] | None, size: int,
                 durable: bool, priority: int, expiry: int, arrival: int) -> None:
        super().__init__()
        self.address = address
        self.dialect = dialect
        self.native = native
        self.body = body  # the body's pieces, when it is too long to be kept within `native`
        self.size = size  # of the body, bytes
        self.durable = durable
        self.priority = priority
        self.expiry = expiry  # the message's own, ms since the epoch; 0 for never
        self.arrival = arrival  # ms since the epoch
        self.holders = 0  # entries in memory
        self.shared = False  # routed to more than one queue
        self.pending = 0  # entries that must be durable before the publisher is told, and are not yet
        self.publisher: Publisher | None = None
        self.sequence = 0
        self.origin = ""  # the container that published it, where that is known
        self.prepared: object | None = None  # what its own dialect's front-end keeps, to write it faster
        self._view: View | None = None
        self._translations: dict[int, Message] | None = None

    def view(self) -> View:
        """The message in the terms of the model. Decoded at the first asking."""
        view = self._view
        if view is None:
            view = self._view = CONVERTERS[self.dialect].decode(self)
        return view

    def translated(self, dialect: int) -> Message:
        """The message in another dialect. Made at the first asking, once for all readers."""
        known = self._translations
        if known is None:
            known = self._translations = {}
        message = known.get(dialect)
        if message is None:
            message = known[dialect] = CONVERTERS[dialect].encode(
                CONVERTERS[self.dialect].model(self), self)
        return message

    def become(self, other: Message) -> None:
        """Say what another one says; only before it is in any queue."""
        self.native = other.native
        self.body = other.body
        self.prepared = None
        self._view = None
        self._translations = None

    def settle_pending(self) -> None:
        """One entry that the publisher waited for is safe, or needs to be no more."""
        self.pending -= 1
        if self.pending == 0:
            publisher = self.publisher
            if publisher is not None:
                self.publisher = None
                publisher.confirmed(self.sequence)

    def cost(self) -> int:
        """What it takes in memory, bytes."""
        return self.size + OVERHEAD

    def stored_form(self) -> list[bytes]:
        exchange = self.address.exchange.encode("utf-8", "surrogateescape")
        key = self.address.routing_key.encode("utf-8", "surrogateescape")
        head = _STORED.pack(self.dialect, _DURABLE if self.durable else 0, self.priority, len(exchange), len(key),
                            len(self.native), self.arrival)
        parts = [head, exchange, key, self.native]
        if self.body is not None:
            parts.extend(self.body)
        return parts


def restore(data: bytes, message_id: int, size: int, expiry: int) -> Message:
    """A message from its stored form. Raises: StoreDamaged."""
    try:
        dialect, flags, priority, exchange_size, key_size, native_size, arrival = _STORED.unpack_from(data)
        start = _STORED.size + exchange_size + key_size
        exchange = data[_STORED.size:_STORED.size + exchange_size].decode("utf-8", "surrogateescape")
        key = data[_STORED.size + exchange_size:start].decode("utf-8", "surrogateescape")
    except (StructError, ValueError) as error:
        raise StoreDamaged(f"message {message_id} in the store is not readable: {error}") from None
    if dialect not in CONVERTERS or len(data) < start + native_size:
        raise StoreDamaged(f"message {message_id} in the store is not readable")
    native = data[start:start + native_size]
    body = None
    if len(data) > start + native_size:
        body = [data[at:at + PIECE] for at in range(start + native_size, len(data), PIECE)]
    message = Message(address_of(exchange, key), dialect, native, body, size, bool(flags & _DURABLE), priority,
                      expiry, arrival)
    message.message_id = message_id
    return message


PIECE: Final = 65536
"""The pieces that a long body comes back in from the store, bytes."""


def address_of(exchange: str, routing_key: str) -> Address:
    """An address with its encoded form. Raises: ValueError for a name of more than 255 bytes."""
    name = exchange.encode("utf-8", "surrogateescape")
    key = routing_key.encode("utf-8", "surrogateescape")
    if len(name) > 255 or len(key) > 255:
        raise ValueError("an exchange's name and a routing key have at most 255 bytes")
    return Address(exchange, routing_key, bytes([len(name)]) + name + bytes([len(key)]) + key)


class Amendment:
    """What is to be different in a message that is published anew, as the model's terms."""

    __slots__ = ("annotations", "deaths", "drop_expiration", "drop_headers", "headers", "reply_to")

    def __init__(self) -> None:
        self.deaths: list[Death] | None = None  # the whole dead-letter history, last death first
        self.drop_expiration = False
        self.drop_headers: tuple[str, ...] = ()
        self.headers: dict[str, int] = {}  # numbers to set: x-delay, x-delivery-count
        self.reply_to: str | None = None
        self.annotations: dict[str, Any] = {}  # message annotations to set


@mypyc_attr(allow_interpreted_subclasses=True)
class Converter:
    """What a front-end supplies for its dialect's messages. Pure functions."""

    def decode(self, message: Message) -> View:
        """The model's view of a message that arrived in this dialect. Never fails: what it cannot read, it leaves."""
        raise NotImplementedError

    def model(self, message: Message) -> View:
        """All of the message in the terms of the model, so that another dialect can say it: for `encode`. What `decode`
        gives is what exchanges and dead-lettering look at, in the dialect's own terms."""
        return self.decode(message)

    def encode(self, view: View, like: Message) -> Message:
        """A message of this dialect that says what the view does, with the route and the arrival of `like`. Never
        fails: what this dialect has no place for travels in headers of our own."""
        raise NotImplementedError

    def amend(self, message: Message, amendment: Amendment, address: Address, now: int) -> Message:
        """A new message that differs from the given one in just what the amendment says, in its route, and in that
        it arrives now (ms since the epoch)."""
        raise NotImplementedError

    def delivery_time(self, message: Message) -> int:
        """When a message that was postponed is to be delivered, ms since the epoch."""
        return message.arrival

    def expiration(self, message: Message) -> str | None:
        """The message's own time to live as it was written, ms, or None."""
        raise NotImplementedError


CONVERTERS: dict[int, Converter] = {}
"""By dialect number; filled by the front-ends when they are imported."""


def amended(message: Message, amendment: Amendment, address: Address, now: int) -> Message:
    """The message published anew to `address`, with what the amendment changes."""
    return CONVERTERS[message.dialect].amend(message, amendment, address, now)
