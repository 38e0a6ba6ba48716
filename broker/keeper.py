"""Whoever a queue belongs to that is more than a queue: the session of an MQTT client, or a group of them."""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from broker.message import Message


@mypyc_attr(allow_interpreted_subclasses=True)
class Keeper:
    """Has a say in what comes into a queue, and hears of its end."""

    def wants(self, message: Message) -> bool:
        """Whether the queue is to take a message that was routed to it; one that is not wanted is done with."""
        return True

    def queue_closed(self) -> None:
        """The queue is deleted, by whomever."""
