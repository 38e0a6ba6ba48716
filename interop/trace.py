"""Where a message has been: a list of brokers that it carries, by which one that comes round is known.

`x-dragoman-trace` is a header (in 1.0 a message annotation, of MQTT a user property): the names of brokers, first
first, with commas between them. qpidd's `x-qpid.trace`, which queues with `qpid.trace.id` write, is read as well.
"""

from __future__ import annotations

from broker.message import Amendment, Message, amended
from broker.tracing import TRACE as QPID_TRACE
from interop.ends import Delivery
from interop.mover import Skipped

TRACE = "x-dragoman-trace"

_TRACE = TRACE.encode()
_QPID_TRACE = QPID_TRACE.encode()
_LONGEST = 16_384
"""Characters of a trace; what is longer did not come from a broker, and no message goes on with it."""


class Tracer:
    """The change that notes where a message comes from and through, and stops one that comes round."""

    def __init__(self, own: str, peer: str, pulls: bool, hops: int) -> None:
        """own, peer: the names of this broker and of the one at the other end."""
        self.seen = own if pulls else peer  # who must not be in it
        self.adds = (peer, own) if pulls else (own,)
        self.hops = hops

    def __call__(self, message: Message, delivery: Delivery) -> Message:
        names = trace_of(message)
        if self.seen in names or self.seen in qpid_trace_of(message) or len(names) > self.hops:
            raise Skipped("looped")
        names += [name for name in self.adds if name not in names]
        amendment = Amendment()
        amendment.annotations = {TRACE: ",".join(names)}
        return amended(message, amendment, message.address, message.arrival)


def trace_of(message: Message) -> list[str]:
    """The brokers that a message has come through."""
    return _names(message, _TRACE, TRACE)


def qpid_trace_of(message: Message) -> list[str]:
    return _names(message, _QPID_TRACE, QPID_TRACE)


def _names(message: Message, marker: bytes, name: str) -> list[str]:
    """Raises: Skipped, for a list that is too long."""
    if message.native.find(marker) < 0:  # nearly always: nothing needs to be decoded
        return []
    view = message.view()
    value = view.annotations.get(name, view.headers.get(name))
    if not isinstance(value, str):
        return []
    if len(value) > _LONGEST:
        raise Skipped("looped")
    return [each for each in value.split(",") if each]


def queue_arguments(own: str, peer: str) -> dict[str, str]:
    """What asks qpidd to do the same at its end, for the queue that it keeps for us."""
    return {"qpid.trace.id": peer, "qpid.trace.exclude": own}
