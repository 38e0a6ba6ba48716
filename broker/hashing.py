"""Exchanges that pick one of their destinations: by a consistent hash, or at random."""

from __future__ import annotations

import bisect
import hashlib
import random

from broker.errors import PreconditionFailed
from broker.exchange import Binding, Exchange
from broker.message import Message
from broker.queue import Queue

POINTS = 50
"""Points on the ring for each unit of a binding's weight: enough that shares differ little from the weights."""

_PROPERTIES = ("correlation_id", "message_id", "timestamp")
_HIGHEST_WEIGHT = 10_000


class ConsistentHashExchange(Exchange):
    """`x-consistent-hash`: a binding's key is its weight, and messages with one hash value keep going to one place.

    What is hashed is the routing key, or the header that `hash-header` names, or the property `hash-property`.
    """

    by_message = True

    def __init__(self, name: str, kind: str, durable: bool, auto_delete: bool, internal: bool,
                 arguments: dict[str, object]) -> None:
        super().__init__(name, kind, durable, auto_delete, internal, arguments)
        header, prop = arguments.get("hash-header"), arguments.get("hash-property")
        if header is not None and prop is not None:
            raise PreconditionFailed("hash-header and hash-property are mutually exclusive")
        if prop is not None and prop not in _PROPERTIES:
            raise PreconditionFailed(f"Unsupported property: {prop}")
        self.header = header if isinstance(header, str) else None
        self.property = prop if isinstance(prop, str) else None
        self.ring: list[tuple[int, Binding]] = []
        self.points: list[int] = []

    def bind(self, binding: Binding) -> None:
        key = binding.routing_key
        if not key.isascii() or not key.removeprefix("-").isdigit():
            raise PreconditionFailed("The binding key must be an integer: " + (f'<<"{key}">>' if key else "<<>>"))
        if int(key) <= 0:
            raise PreconditionFailed("The binding key must be greater than 0")
        if int(key) > _HIGHEST_WEIGHT:
            raise PreconditionFailed(f"The binding key must be at most {_HIGHEST_WEIGHT}")
        super().bind(binding)
        self._arrange()

    def unbind(self, binding: Binding) -> None:
        super().unbind(binding)
        self._arrange()

    def _arrange(self) -> None:
        ring = []
        for binding in self.bindings.values():
            for number in range(int(binding.routing_key) * POINTS):
                ring.append((_hash(f"{number}/{binding.identity}"), binding))
        ring.sort(key=lambda point: (point[0], point[1].identity))
        self.ring = ring
        self.points = [point for point, _ in ring]

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        assert message is not None
        if not self.ring:
            return []
        at = bisect.bisect(self.points, _hash(self._value(routing_key, message))) % len(self.ring)
        return [self.ring[at][1].destination()]

    def _value(self, routing_key: str, message: Message) -> str:
        if self.header is not None:
            return str(message.view().headers.get(self.header, ""))
        if self.property is None:
            return routing_key
        view = message.view()
        if self.property == "timestamp":
            return str(view.creation_time or "")
        return str((view.message_id if self.property == "message_id" else view.correlation_id) or "")


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


class RandomExchange(Exchange):
    """`x-random`: to any one of the destinations."""

    by_message = True

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        if not self.bindings:
            return []
        return [random.choice(list(self.bindings.values())).destination()]
