"""Whose a queue is: exclusivity policies, beside the exclusive queues of the protocols.

A queue with a policy belongs to who declares it, or uses it first after a restart: his connection, his user, or all
connections of his container. Others are refused. When a connection goes, what was its own is anybody's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.management import ManagedConnection

if TYPE_CHECKING:
    from broker.queue import Queue

_BY_CONNECTION: Final = ("connection", "session")
_BY_NAME: Final = ("principal", "container")


class Claim:
    """To one queue that has such a policy."""

    __slots__ = ("queue", "policy", "holder")

    def __init__(self, queue: Queue, policy: str) -> None:
        self.queue = queue
        self.policy = policy
        self.holder: Any = None  # a connection, or the name of a user or a container

    def admits(self) -> bool:
        """Whether the client whose input is being dealt with may use the queue; if it is nobody's, it is his now."""
        management = self.queue.host.broker.management
        actor = management.actor
        if actor is None:
            return True
        holder = self.holder
        if isinstance(holder, ManagedConnection) and holder not in management.connections:
            holder = None
        mine: Any = actor
        if self.policy in _BY_NAME:
            mine = actor.user if self.policy == "principal" else actor.container() or actor
        if holder is None:
            holder = self.holder = mine
        return bool(holder == mine)

    def name(self) -> str:
        """Whose it is, if that is to be remembered beyond a restart."""
        return self.holder if isinstance(self.holder, str) else ""


def claim_of(queue: Queue, policy: str) -> Claim | None:
    """None for a queue that is anybody's."""
    return Claim(queue, policy) if policy in _BY_CONNECTION or policy in _BY_NAME else None
