"""Clients from the moment that they connect: how many there are, and those of them that have not come in yet.

Who has connected and not opened a virtual host costs nothing but a place, and there are only so many places: in all,
and for one source. When they are taken, the newcomer gets that of the one who has waited longest. So a client that
knows what it wants gets in while thousands are silent, from the same address too, and those hurt only themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.security.addresses import source_of
from broker.security.quotas import Quota

if TYPE_CHECKING:
    from dragoman.server import Server

logger = logging.getLogger(__name__)

LINES = 20
QUIET = 10_000
"""At most so many lines in so many ms are logged of each kind of refusal."""


class Arrival:
    """One client's connection, while its socket is open."""

    __slots__ = ("peer", "source", "quota", "since", "drop", "logged_in", "host_name")

    def __init__(self, peer: str, source: str, quota: Quota, since: int, drop: Callable[[], object]) -> None:
        self.peer = peer
        self.source = source
        self.quota = quota
        self.since = since  # ms since the epoch
        self.drop = drop  # closes the connection, whatever has become of it
        self.logged_in: Callable[[], bool] = _not_yet
        self.host_name = ""  # of the client's machine, where access rules ask for it


def _not_yet() -> bool:
    return False


class Repeated:
    """A line of the log that many clients might cause: of too many, only their number is written."""

    def __init__(self, most: int = LINES) -> None:
        self.most = most  # lines in QUIET ms
        self.since = 0  # ms since the epoch: when lines began to be counted
        self.lines = 0

    def log(self, now: int, text: str, *values: object) -> None:
        more = ""
        if not 0 <= now - self.since < QUIET:
            if self.lines > self.most:
                more = f"; {self.lines - self.most} times more since the last such line"
            self.since = now
            self.lines = 0
        self.lines += 1
        if self.lines <= self.most:
            logger.warning(text + "%s", *values, more)


class Arrivals:
    """All clients that are connected."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.all: dict[Arrival, None] = {}
        self.waiting: dict[Arrival, None] = {}  # those that have opened nothing yet, the oldest first
        self.sources: dict[str, dict[Arrival, None]] = {}  # the same, by where they come from
        self._full = Repeated()
        self._often = Repeated()
        self._crowded = Repeated()
        self._late = Repeated()

    def full(self) -> bool:
        return len(self.all) >= self.server.most_connections

    def come(self, address: str, peer: str, listener: str, drop: Callable[[], object]) -> Arrival | None:
        """A client has connected. None: it is to be turned away."""
        server = self.server
        now = server.clock.now
        if server.stopping:
            return None
        if self.full() and not self.waiting:
            self._full.log(now, "%s: refused, there are %d connections", peer, len(self.all))
            return None
        quotas = server.broker.quotas
        quota = quotas.join(address, listener)
        limit = quotas.comes_too_often(quota)
        if limit is not None and limit.rate is not None:
            quota.close()
            self._often.log(now, "%s: refused, %s connects more than %d times in %d s", peer,
                            limit.subject(quota.party), limit.rate.count, max(1, limit.rate.period // 1000))
            return None
        source = source_of(address)
        arrival = Arrival(peer, source, quota, now, drop)
        self.all[arrival] = None
        self.waiting[arrival] = None
        of_source = self.sources.setdefault(source, {})
        of_source[arrival] = None
        limits = server.config.limits
        if len(of_source) > limits.half_open_per_address:
            self._make_room(of_source, now)
        elif len(self.waiting) > limits.half_open or len(self.all) > server.most_connections:
            self._make_room(self.waiting, now)
        return arrival

    def _make_room(self, waiting: dict[Arrival, None], now: int) -> None:
        """The one that has waited longest goes."""
        oldest = next(iter(waiting))
        self._crowded.log(now, "%s: closed, %d clients have connected and not logged in, and it was the first of them",
                          oldest.peer, len(waiting))
        self._turn_away(oldest)

    def _turn_away(self, arrival: Arrival) -> None:
        self.gone(arrival)
        arrival.drop()

    def opened(self, arrival: Arrival) -> None:
        """The client has opened its virtual host."""
        if self.waiting.pop(arrival, False) is None:
            of_source = self.sources[arrival.source]
            del of_source[arrival]
            if not of_source:
                del self.sources[arrival.source]

    def gone(self, arrival: Arrival) -> None:
        """The connection is over; to say so twice is no error."""
        self.opened(arrival)
        self.all.pop(arrival, None)
        arrival.quota.close()

    def tick(self, now: int) -> None:
        """About once a second: whose time is over goes."""
        for arrival in list(self.waiting):
            quota = arrival.quota
            taken = now - arrival.since
            what, seconds = "handshake", quota.handshake_seconds
            if 0 < quota.authentication_seconds < seconds and not arrival.logged_in():
                what, seconds = "login", quota.authentication_seconds
            if taken > seconds * 1000:
                self._late.log(now, "%s: closed, the %s took longer than %d s", arrival.peer, what, seconds)
                self._turn_away(arrival)
