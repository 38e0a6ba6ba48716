"""Exactly once in effect: each message has an id, and who takes it knows the ids of the last so many.

A bridge that pushes gives ids of its own (`x-dragoman-id`), made of the entry in the local queue, which stays the same
until the entry is settled; the queue there must be one that knows them (`x-message-deduplication`). A bridge that pulls
knows them itself, by that header or by the message-id.
"""

from __future__ import annotations

import secrets

from broker.deduplication import ID
from broker.entry import Entry
from broker.message import Amendment, Message, amended
from interop.ends import Delivery

_BOOT = secrets.token_hex(4)
"""Tells the entries of this run, which are not in the store, from others that had the same number."""


class Marker:
    """The change that gives each message its id."""

    def __init__(self, own: str, bridge: str) -> None:
        self.prefix = f"{own}/{bridge}/"

    def __call__(self, message: Message, delivery: Delivery) -> Message:
        entry: Entry = delivery.handle
        amendment = Amendment()
        kept = entry.stored and not entry.flags
        amendment.annotations = {ID: f"{self.prefix}{entry.id}" if kept else f"{self.prefix}{_BOOT}-{entry.id}"}
        return amended(message, amendment, message.address, message.arrival)

