"""Knowing a message again: the ids of the last so many, kept durably in the batches that the messages are in."""

from __future__ import annotations

import uuid
from hashlib import blake2b
from typing import Final

from broker.message import Message
from store.journal import ShardLog

ID: Final = "x-dragoman-id"
"""The header, in 1.0 the message annotation, that has the id by which a bridge makes a message known."""

GIVEN: Final = "x-deduplication-header"
"""The header that publishers give an id by, as RabbitMQ's plug-in for this has it."""

_ID: Final = ID.encode()
_GIVEN: Final = GIVEN.encode()

DIGEST: Final = 16
"""Bytes that are kept of an id."""


class Known:
    """A window of ids, the oldest of which is forgotten for each new one: a ring of slots, each a record in the
    store."""

    def __init__(self, log: ShardLog, number: int, window: int, keeps: bool) -> None:
        """number: under which the records are kept, if it `keeps` any: those from before a restart are taken up."""
        self.log = log
        self.number = number
        self.window = window
        self.keeps = keeps
        self.ids: dict[bytes, int] = {}  # slot by digest
        self.slots: dict[int, bytes] = {}
        self.next = 0  # the count of ids so far, whose remainder is the slot
        newest = -1
        for key, value in self.log.records(self.number) if keeps else ():
            count, slot, digest = int.from_bytes(value[:8], "big"), int.from_bytes(key, "big"), value[8:]
            if slot >= window:  # it was larger once
                self.log.forget_record(self.number, key)
                continue
            self.ids[digest] = slot
            self.slots[slot] = digest
            newest = max(newest, count)
        self.next = newest + 1

    def knows(self, text: str) -> bool:
        return _digest(text) in self.ids

    def add(self, text: str) -> None:
        """Remember an id, in the open batch of the journal."""
        digest = _digest(text)
        slot = self.next % self.window
        old = self.slots.get(slot)
        if old is not None and self.ids.get(old) == slot:
            del self.ids[old]
        self.ids[digest] = slot
        self.slots[slot] = digest
        if self.keeps:
            self.log.keep_record(self.number, slot.to_bytes(4, "big"), self.next.to_bytes(8, "big") + digest)
        self.next += 1


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=DIGEST).digest()


def identity_of(message: Message) -> str:
    """What a message is known by: the id that a bridge gave it, or its publisher by a header, else its message-id; ""
    when it has none of these."""
    for name, marker in ((ID, _ID), (GIVEN, _GIVEN)):
        if message.native.find(marker) >= 0:
            view = message.view()
            given = view.annotations.get(name, view.headers.get(name))
            if isinstance(given, str):
                return name + given
    value = message.view().message_id
    if value is None or value == "":
        return ""
    return "m" + (f"urn:uuid:{value}" if isinstance(value, uuid.UUID) else value.hex() if isinstance(value, bytes)
                  else str(value))
