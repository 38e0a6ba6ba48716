"""What clients know of messages, and what a broker that crashed must therefore still have.

A message is a number of its publisher's; its body follows from both, so that it can be told whether it is intact.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field

import amqp


def body_of(publisher: str, number: int, size: int) -> bytes:
    """`publisher:number:size:` and as many bytes more as it takes, which follow from these."""
    head = f"{publisher}:{number}:{size}:".encode()
    filling = hashlib.blake2b(head).digest()
    return head + (filling * (size // len(filling) + 1))[:max(0, size - len(head))]


def uuid_of(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, name)


@dataclass(frozen=True)
class Got:
    """A message as it came back."""

    publisher: str
    number: int
    redelivered: bool


def read(message: amqp.Message) -> Got:
    """Which message this is. Raises AssertionError when it is not as it was published."""
    body = message.body if isinstance(message.body, bytes) else message.body.encode()
    publisher, number, size, _ = body.split(b":", 3)
    assert body == body_of(publisher.decode(), int(number), int(size)), f"message {number!r} of {publisher!r} changed"
    name = f"{publisher.decode()}-{number.decode()}"  # in 0-10 there are only uuids
    assert message.properties["message_id"] in (name, f"urn:uuid:{uuid_of(name)}")
    assert message.properties["delivery_mode"] == 2
    return Got(publisher.decode(), int(number), bool(message.delivery_info["redelivered"]))


@dataclass
class Published:
    """What one publisher knows. Numbers are in `sent` before they are written to the socket."""

    name: str
    sent: dict[int, int] = field(default_factory=dict)  # number -> group (a transaction), or the number itself
    confirmed: set[int] = field(default_factory=set)


@dataclass
class Place:
    """A queue, or two between which messages move: what its consumers know."""

    queues: tuple[str, ...]
    publisher: Published
    seen: set[int] = field(default_factory=set)  # delivered to somebody, perhaps often
    maybe_gone: set[int] = field(default_factory=set)  # acknowledged; the broker may not have had the time
    gone: set[int] = field(default_factory=set)  # acknowledged, and the broker has said so
    ordered: bool = True  # whether what is left must be in the order in which it was published
    grouped: bool = False  # whether groups of messages are there as a whole or not at all

    def check(self, found: list[Got]) -> None:
        """Compare with all that is there after a crash. Raises AssertionError."""
        where = " and ".join(self.queues)
        name, sent, confirmed = self.publisher.name, self.publisher.sent, self.publisher.confirmed
        numbers = [got.number for got in found]
        there = set(numbers)
        assert {got.publisher for got in found} <= {name}, f"{where}: strange publishers"
        assert len(there) == len(numbers), f"{where}: doubled: {_some(n for n in there if numbers.count(n) > 1)}"
        assert there <= set(sent), f"{where}: never sent: {_some(there - set(sent))}"
        lost = confirmed - there - self.maybe_gone - self.gone
        assert not lost, f"{where}: confirmed and lost: {_some(lost)} of {len(confirmed)}"
        back = there & self.gone
        assert not back, f"{where}: acknowledged for good and here again: {_some(back)}"
        unmarked = {got.number for got in found if not got.redelivered} & self.seen
        assert not unmarked, f"{where}: delivered before and not marked redelivered: {_some(unmarked)}"
        if self.ordered:
            wrong = [b for a, b in zip(numbers, numbers[1:], strict=False) if a > b]
            assert not wrong, f"{where}: out of order: {_some(wrong)}"
        if self.grouped:
            torn = {sent[n] for n in there} & {sent[n] for n in sent.keys() - there - self.gone}
            assert not torn, f"{where}: in part only: transactions {_some(torn)}"

    def keep(self, found: list[Got]) -> None:
        """These were looked at, and are there still."""
        self.seen |= {got.number for got in found}
        self._settle(found)

    def take(self, found: list[Got]) -> None:
        """These were taken out for good."""
        self.gone |= {got.number for got in found}
        self._settle(found)

    def _settle(self, found: list[Got]) -> None:
        """Now it is known what has come of everything that was in doubt: it is there, or it never will be."""
        there = {got.number for got in found}
        self.gone |= set(self.publisher.sent) - there
        self.maybe_gone.clear()


def _some(numbers: object) -> str:
    assert hasattr(numbers, "__iter__")
    listed = sorted(set(numbers))
    return ", ".join(map(str, listed[:10])) + (f" and {len(listed) - 10} more" if len(listed) > 10 else "")
