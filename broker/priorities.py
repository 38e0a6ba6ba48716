"""Priorities: which lane of its queue a message waits in, and whose turn it is among the lanes.

RabbitMQ's `x-max-priority` makes a level of each priority up to the highest. Qpid's `qpid.priorities` is a number of
levels for the ten priorities of AMQP, around the usual one, 4: with two levels, 5 and more are the higher one.

Fair share (`qpid.fairshare`): at most so many messages of one level in a row while lower ones wait. The rule is
qpidd's: after its share a level makes room for the next lower one that has messages, and so on down, until it is the
highest one's turn again. A level without a share of its own has no limit while it is the highest that has messages;
below, where qpidd would stay until it is empty, it gets one message in a turn.
"""

from __future__ import annotations

from broker.entry import Entry
from broker.lane import Lane
from broker.queue_settings import QueueSettings
from store.journal import ShardLog


class Levels:
    """What a queue's settings ask for: priorities up to `lowest` are level 0, those above follow, up to `highest`."""

    __slots__ = ("lowest", "highest", "fair_share")

    def __init__(self, settings: QueueSettings) -> None:
        self.lowest = 0
        self.highest = settings.max_priority
        self.fair_share: FairShare | None = None
        count = settings.priorities
        if count > 1:
            self.highest = count - 1
            self.lowest = 5 - min(5, (count + 1) // 2)
            shares = [settings.fairshares.get(level, settings.fairshare) for level in range(count)]
            if any(shares):
                self.fair_share = FairShare(shares)


class FairShare:
    """Whose turn it is among the lanes of one queue. shares: messages in a row by level, 0 for no limit."""

    __slots__ = ("shares", "_level", "_count")

    def __init__(self, shares: list[int]) -> None:
        self.shares = shares
        self._level = len(shares) - 1
        self._count = 0  # messages of this level in a row

    def take(self, lanes: list[Lane], log: ShardLog) -> Entry | None:
        """The next entry in turn, removed from its lane."""
        share = self.shares[self._level]
        if share and self._count >= share:
            self._next()
        elif not share:
            self._level = len(lanes) - 1
            self._count = 0
        for _ in lanes:
            entry = lanes[self._level].take(log)
            if entry is not None:
                self._count += 1
                return entry
            self._next()
        return None

    def _next(self) -> None:
        self._level = (self._level or len(self.shares)) - 1
        self._count = 0
