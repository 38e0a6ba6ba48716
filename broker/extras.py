"""What Qpid's exchanges do beside routing, when their arguments ask for it: they number their messages
(`qpid.msg_sequence`) and keep the last one for bindings that are made later (`qpid.ive`).

Both are of messages that are published to the exchange itself, and begin anew with the broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.alternate import publish_anew
from broker.arguments import Given
from broker.message import Amendment, Message, amended
from broker.queue import Queue

if TYPE_CHECKING:
    from broker.exchange import Binding, Exchange
    from broker.memory import Memory

SEQUENCE: Final = "qpid.msg_sequence"
"""The header that has a message's number."""


class Extras:
    """Of one exchange that has any of this."""

    __slots__ = ("memory", "numbers", "number", "keeps", "last")

    def __init__(self, memory: Memory, numbers: bool, number: int, keeps: bool) -> None:
        self.memory = memory
        self.numbers = numbers
        self.number = number  # of the last message
        self.keeps = keeps
        self.last: Message | None = None

    def published(self, message: Message) -> None:
        """A message is about to be routed."""
        if self.numbers:
            self.number += 1
            amendment = Amendment()
            amendment.headers = {SEQUENCE: self.number}
            message.become(amended(message, amendment, message.address, message.arrival))
        if self.keeps:
            self.close()
            self.last = message
            self.memory.hold(message)

    def bound(self, exchange: Exchange, binding: Binding, now: int) -> None:
        """A binding is new: its queue gets the last message, if it is one for it. now: ms since the epoch."""
        last = self.last
        queue = binding.queue
        if last is None or not isinstance(queue, Queue) or 0 < last.expiry <= now:
            return
        if queue in exchange.match(last.address.routing_key, last):
            publish_anew([queue], last, True)

    def close(self) -> None:
        """Let go of the message that was kept."""
        if self.last is not None:
            self.memory.release(self.last)
            self.last = None


def extras_of(found: dict[str, Given], memory: Memory) -> Extras | None:
    """From the arguments of an exchange; None when they ask for nothing of this."""
    numbers = "sequence" in found and found["sequence"].value
    keeps = "initial_value" in found and found["initial_value"].value
    if not numbers and not keeps:
        return None
    counter = found.get("sequence_counter")
    return Extras(memory, numbers, 0 if counter is None else counter.value, keeps)
