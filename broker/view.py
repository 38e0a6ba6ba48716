"""The model in the middle: what a message says, whatever dialect it came in.

It is the bare message of AMQP 1.0 plus what only the older dialects have. Front-ends make it (`Converter.decode`) and
encode from it for readers of their own dialect; exchanges that look at headers read it.
"""

from __future__ import annotations

from typing import Any


class Death:
    """One line of a message's dead-letter history: how often a queue gave it up, for one reason."""

    __slots__ = ("queue", "reason", "count", "time", "exchange", "routing_keys", "original_expiration")

    def __init__(self, queue: str, reason: str, count: int, time: int, exchange: str, routing_keys: list[str],
                 original_expiration: str | None) -> None:
        self.queue = queue
        self.reason = reason  # rejected, expired, maxlen, delivery_limit
        self.count = count
        self.time = time  # of the first, s since the epoch
        self.exchange = exchange
        self.routing_keys = routing_keys
        self.original_expiration = original_expiration


BYTES = 0
VALUE = 1
SEQUENCES = 2
NOTHING = 3
"""Kinds of bodies: bytes; one value (text, a map, a list, anything); lists, one after the other; none at all."""


class View:
    """A message in terms of the model. Fields that the message does not have are None."""

    __slots__ = ("durable", "priority", "ttl", "absolute_expiry_time", "creation_time", "message_id",
                 "correlation_id", "user_id", "to", "subject", "reply_to", "content_type", "content_encoding",
                 "group_id", "group_sequence", "reply_to_group_id", "app_id", "cluster_id", "headers",
                 "annotations", "deaths", "body", "kind", "value", "data_lengths")

    def __init__(self) -> None:
        self.durable = False
        self.priority: int | None = None
        self.ttl: int | None = None  # ms
        self.absolute_expiry_time: int | None = None  # ms since the epoch
        self.creation_time: int | None = None  # ms since the epoch
        self.message_id: Any = None  # str, uuid.UUID, int (ulong) or bytes
        self.correlation_id: Any = None  # likewise
        self.user_id: bytes | None = None
        self.to: str | None = None
        self.subject: str | None = None
        self.reply_to: str | None = None
        self.content_type: str | None = None
        self.content_encoding: str | None = None
        self.group_id: str | None = None
        self.group_sequence: int | None = None
        self.reply_to_group_id: str | None = None
        self.app_id: str | None = None
        self.cluster_id: str | None = None
        self.headers: dict[str, Any] = {}  # application-properties of 1.0, headers of the others
        self.annotations: dict[str, Any] = {}  # message annotations of 1.0; their keys are symbols
        self.deaths: list[Death] = []  # last death first
        self.kind = BYTES
        self.body: list[bytes] = []  # the body's bytes, in pieces, when it is BYTES
        self.data_lengths: list[int] = []  # of data sections, when there is not just one
        self.value: Any = None  # the body when it is a VALUE; when it is SEQUENCES, a list of lists
