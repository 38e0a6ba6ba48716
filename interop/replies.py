"""Requests and their answers across brokers: whoever answers there does not know the addresses that there are here.

The bridge that takes the requests over gives each a correlation id of its own and a reply-to of the other side, and
remembers what was there before. The bridge that brings the answers back, over the same link, puts both in their place
again: the answer goes to the address here that the request named. What is not answered is forgotten after a while.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from broker.message import CONVERTERS, Message, address_of
from interop.ends import ANY, Delivery
from interop.local import readdressed
from interop.mover import Skipped
from protocols.reply_to import split_address

MOST = 100_000
"""Requests of one link that may be waiting for their answers; the oldest is forgotten for each that is too many."""


class _Asked:
    """Where the answer to a request goes, and what correlates it there."""

    __slots__ = ("reply_to", "correlation_id", "until")

    def __init__(self, reply_to: str, correlation_id: Any, until: float) -> None:
        self.reply_to = reply_to
        self.correlation_id = correlation_id
        self.until = until  # s, of the clock that the table has


class Waiting:
    """The requests of one link that wait for answers. It lives as long as the link, over reconnects."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.asked: dict[str, _Asked] = {}  # the oldest first

    def keep(self, reply_to: str, correlation_id: Any, seconds: int) -> str:
        """Gives the correlation id to ask with."""
        self._forget()
        token = secrets.token_urlsafe(18)
        self.asked[token] = _Asked(reply_to, correlation_id, self.clock() + seconds)
        return token

    def take(self, token: Any) -> _Asked | None:
        """What was asked with this correlation id. It stays, for there may be several answers."""
        if isinstance(token, bytes):
            token = token.decode("ascii", "replace")
        found = self.asked.get(token) if isinstance(token, str) else None
        return found if found is not None and found.until > self.clock() else None

    def _forget(self) -> None:
        now = self.clock()
        while self.asked:
            oldest = next(iter(self.asked))
            if len(self.asked) < MOST and self.asked[oldest].until > now:
                return
            del self.asked[oldest]


class Requests:
    """The change for the bridge that takes requests to the other side."""

    def __init__(self, waiting: Waiting, reply_to: str, seconds: int, dialect: int) -> None:
        """reply_to: the address there that answers are to come to."""
        self.waiting = waiting
        self.reply_to = reply_to
        self.seconds = seconds
        self.dialect = dialect

    def __call__(self, message: Message, delivery: Delivery) -> Message:
        view = CONVERTERS[message.dialect].model(message)
        if not view.reply_to:
            return message  # nobody wants an answer
        # JMS and many others: the answer's correlation id is the request's, or else its message id
        asked_by = view.message_id if view.correlation_id is None else view.correlation_id
        view.correlation_id = self.waiting.keep(view.reply_to, asked_by, self.seconds)
        view.reply_to = self.reply_to
        return CONVERTERS[message.dialect if self.dialect == ANY else self.dialect].encode(view, message)


class Answers:
    """The change for the bridge that brings answers back: their own address is where they go."""

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting

    def __call__(self, message: Message, delivery: Delivery) -> Message:
        view = CONVERTERS[message.dialect].model(message)
        asked = self.waiting.take(view.correlation_id)
        if asked is None:
            raise Skipped("unwanted")
        exchange, key = split_address(asked.reply_to)
        view.correlation_id = asked.correlation_id
        view.to = None
        encoded = CONVERTERS[message.dialect].encode(view, message)
        return readdressed(encoded, address_of(exchange, key), message.arrival)
