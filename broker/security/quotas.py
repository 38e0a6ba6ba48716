"""Limits: how much of the broker somebody may have, who is named by where he comes from, who he is and where he goes.

A `Limit` is for all whom its conditions fit. What can be counted (connections, queues, ...) is counted for all of them
together or, by `per`, for each user, address, ... on its own; all limits that fit must hold. A connection has a
`Quota`, by which it takes and gives back; when it is over, all that it still has is given back, whatever went wrong.
Figures (the size of a message, an idle time, ...) hold for each connection: the strictest of those that fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from broker.errors import LimitReached, RateReached
from broker.security.addresses import plain_address, source_of

if TYPE_CHECKING:
    from broker.clock import Clock

logger = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network

CONNECTIONS: Final = "connections"
CHANNELS: Final = "channels"
LINKS: Final = "links"
CONSUMERS: Final = "consumers"
QUEUES: Final = "queues"
COUNTED: Final = (CONNECTIONS, CHANNELS, LINKS, CONSUMERS, QUEUES)
"""What is counted. Channels are also the sessions of 0-10 and 1.0; consumers, the subscriptions of MQTT."""

FIGURES: Final = ("message_size", "frame_size", "unsettled", "consumers_per_channel", "output", "handshake_seconds",
                  "authentication_seconds", "idle_seconds")
"""What each connection has for itself. 0: no limit."""

PER: Final = ("all", "user", "address", "virtual_host", "listener", "connection")
"""Whom a count is for: all that the limit fits together, or each one of these."""

_NAMES: Final = {CONNECTIONS: "connection", CHANNELS: "channel", LINKS: "link", CONSUMERS: "consumer",
                 QUEUES: "queue"}


class Party:
    """Whom a limit may be about. What is not known, such as the user before the login, is ""."""

    __slots__ = ("address", "listener", "user", "groups", "host")

    def __init__(self, address: str = "", listener: str = "", user: str = "", groups: frozenset[str] = frozenset(),
                 host: str = "") -> None:
        self.address = address  # the IP address
        self.listener = listener  # its name
        self.user = user
        self.groups = groups
        self.host = host  # the virtual host's name


class Rate:
    """So many in a period, at once or spread over it: a bucket of that many tokens, which fills up in a period.

    The state of a bucket is when it will be full again, in units of 1/`count` ms: exact, whatever the two are.
    """

    __slots__ = ("count", "period", "full_at")

    def __init__(self, count: int, period: int) -> None:
        """period: ms."""
        self.count = count
        self.period = period
        self.full_at: dict[str, int] = {}  # by bucket

    def take(self, bucket: str, now: int) -> bool:
        """Take one token, if there is one. now: ms."""
        start = now * self.count
        whole = self.period * self.count
        full_at = min(max(self.full_at.get(bucket, 0), start), start + whole)  # the clock may have been set back
        room = full_at + self.period <= start + whole
        self.full_at[bucket] = full_at + self.period if room else full_at
        return room

    def forget(self, now: int) -> None:
        """Drop what is as if it had never been used."""
        start = now * self.count
        self.full_at = {bucket: full_at for bucket, full_at in self.full_at.items() if full_at > start}


class Tally:
    """What is taken of one thing that is limited."""

    __slots__ = ("subject", "most", "soft", "used", "warned")

    def __init__(self, subject: str, most: int, soft: int) -> None:
        self.subject = subject
        self.most = most
        self.soft = soft  # from so many on, there is a warning
        self.used = 0
        self.warned = False


class Limit:
    """One limit, on one or several things."""

    def __init__(self, counts: dict[str, int] | None = None, figures: dict[str, int] | None = None,
                 rate: Rate | None = None, *, per: str = "all", user: str = "", group: str = "",
                 network: Network | None = None, listener: str = "", host: str = "", only: frozenset[str] = frozenset(),
                 but: frozenset[str] = frozenset(), warn_at: int = 80, refuses: bool = True) -> None:
        """counts: by what is counted; rate: of connections; user: a name, or a pattern as of files; only, but: users
        whom it is for, if there are any, and is not for; warn_at: percent of a count at which there is a warning;
        refuses: False when there are to be only warnings. Conditions that are "" or None fit everybody."""
        self.counts = counts or {}
        self.figures = figures or {}
        self.rate = rate
        self.per = per
        self.user = user
        self.group = group
        self.network = network
        self.listener = listener
        self.host = host
        self.only = only
        self.but = but
        self.warn_at = warn_at
        self.refuses = refuses
        self.tallies: dict[tuple[str, str], Tally] = {}  # by what is counted, and for whom
        self.refused = 0

    def early(self) -> bool:
        """Whether it can be decided before the login."""
        return not (self.user or self.group or self.host or self.only) and self.per not in ("user", "virtual_host")

    def fits(self, party: Party) -> bool:
        """Whether it is about somebody."""
        if self.user and not (party.user and fnmatchcase(party.user, self.user)):
            return False
        if party.user in self.but or self.only and party.user not in self.only:
            return False
        if self.group and self.group not in party.groups or self.host and self.host != party.host:
            return False
        if self.listener and self.listener != party.listener:
            return False
        if self.network is not None:
            address = plain_address(party.address)
            if address is None or address not in self.network:
                return False
        return self.per in ("all", "connection") or self.bucket(party, 0) != ""

    def bucket(self, party: Party, number: int) -> str:
        """What tells those apart that are counted each on their own. number: of the connection."""
        if self.per == "user":
            return party.user
        if self.per == "address":
            return source_of(party.address)
        if self.per == "virtual_host":
            return party.host
        if self.per == "listener":
            return party.listener
        return str(number) if self.per == "connection" else ""

    def subject(self, party: Party) -> str:
        """For whom it is, in words."""
        if self.per == "user":
            return f"user '{party.user}'"
        if self.per == "address":
            return f"address {source_of(party.address)}"
        if self.per == "connection":
            return "the connection"
        if self.per == "virtual_host":
            return f"vhost '{party.host}'"
        if self.per == "listener":
            return f"listener {party.listener}"
        found = [word for word in (f"user '{self.user}'" if self.user else "",
                                   f"group '{self.group}'" if self.group else "",
                                   f"network {self.network}" if self.network is not None else "",
                                   f"listener {self.listener}" if self.listener else "",
                                   f"vhost '{self.host}'" if self.host else "") if word]
        return ", ".join(found) or "the broker"

    def tally(self, measure: str, party: Party, number: int) -> Tally:
        key = (measure, self.bucket(party, number))
        found = self.tallies.get(key)
        if found is None:
            most = self.counts[measure]
            soft = -(-most * self.warn_at // 100) if self.refuses else most + 1
            found = self.tallies[key] = Tally(self.subject(party), most, soft)
        return found

    def drop(self, measure: str, party: Party, number: int) -> None:
        """One less is taken."""
        key = (measure, self.bucket(party, number))
        tally = self.tallies.get(key)
        if tally is None:
            return
        tally.used -= 1
        if tally.used <= 0:
            del self.tallies[key]
        elif tally.used <= tally.soft * 3 // 4:
            tally.warned = False


class Quota:
    """One connection's part of what is limited."""

    def __init__(self, quotas: Quotas | None, party: Party, number: int) -> None:
        self.quotas = quotas
        self.party = party
        self.number = number  # of the connection
        self.limits: list[Limit] = []
        self.taken = dict.fromkeys(COUNTED, 0)
        self.closed = quotas is None
        self.message_size = 0  # bytes
        self.frame_size = 0  # bytes
        self.unsettled = 0  # deliveries of a channel or session
        self.consumers_per_channel = 0
        self.output = 0  # bytes that may wait for the client
        self.handshake_seconds = 0
        self.authentication_seconds = 0
        self.idle_seconds = 0
        self.fit()

    def fit(self) -> None:
        """Find the limits that are about this connection, as far as it is known."""
        if self.quotas is None:
            return
        self.limits = [limit for limit in self.quotas.limits if limit.fits(self.party)]
        for name in FIGURES:
            setattr(self, name, min((limit.figures[name] for limit in self.limits if limit.figures.get(name)),
                                    default=0))

    def enter(self, user: str, groups: frozenset[str], host: str) -> None:
        """The client has logged in, and opens a virtual host. Raises: LimitReached."""
        if self.quotas is None:
            return
        party = self.party
        self.party = Party(party.address, party.listener, user, groups, host)
        self.fit()
        for limit in self.limits:
            if limit.rate is not None and not limit.early() and not self.quotas.rate(limit, self.party):
                raise RateReached(f"connection refused for user '{user}': {limit.subject(self.party)} connects too "
                                  f"often, more than {limit.rate.count} times in {limit.rate.period // 1000} s")
        self.take(CONNECTIONS)

    def take(self, measure: str, name: str = "") -> None:
        """One more of something; name: what it is called. Raises: LimitReached."""
        if not self.closed:
            _take(self.limits, measure, self.party, self.number, name)
            self.taken[measure] += 1

    def adopt(self, measure: str, count: int) -> None:
        """So many that were another connection's, or nobody's: they are not refused."""
        if not self.closed:
            _add(self.limits, measure, self.party, self.number, count)
            self.taken[measure] += count

    def give(self, measure: str) -> None:
        """One less of something; after the end of the connection, there is nothing left to give."""
        if not self.closed and self.taken[measure]:
            self.taken[measure] -= 1
            _drop(self.limits, measure, self.party, self.number)

    def close(self) -> None:
        """The connection is over."""
        if self.closed:
            return
        for measure, count in self.taken.items():
            for _ in range(count):
                _drop(self.limits, measure, self.party, self.number)
        self.taken = dict.fromkeys(COUNTED, 0)
        self.closed = True
        if self.quotas is not None:
            self.quotas.members.pop(self, None)

    def check_consumers(self, there: int) -> None:
        """One more consumer for a channel or session that has so many. Raises: LimitReached."""
        if 0 < self.consumers_per_channel <= there:
            raise LimitReached(f"reached maximum ({self.consumers_per_channel}) of consumers per channel")


UNLIMITED: Final = Quota(None, Party(), 0)
"""Of connections that nobody has given a quota."""


class Quotas:
    """All limits of a broker, and who has what."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.limits: list[Limit] = []
        self.members: dict[Quota, None] = {}
        self._number = 0

    def join(self, address: str, listener: str) -> Quota:
        """A client has connected."""
        self._number += 1
        quota = Quota(self, Party(address, listener), self._number)
        self.members[quota] = None
        return quota

    def comes_too_often(self, quota: Quota) -> Limit | None:
        """Whether somebody who has just connected has done so too often already, before it is known who it is."""
        for limit in quota.limits:
            if limit.rate is not None and limit.early() and not self.rate(limit, quota.party):
                return limit
        return None

    def rate(self, limit: Limit, party: Party) -> bool:
        assert limit.rate is not None
        if limit.rate.take(limit.bucket(party, 0), self.clock.now):
            return True
        limit.refused += 1
        return not limit.refuses

    def take_queue(self, party: Party, name: str) -> None:
        """Somebody declares a queue. Raises: LimitReached."""
        _take(self._fitting(party), QUEUES, party, 0, name)

    def give_queue(self, party: Party) -> None:
        """That queue is gone."""
        _drop(self._fitting(party), QUEUES, party, 0)

    def has_queue(self, party: Party) -> None:
        """The queue of somebody was there before."""
        _add(self._fitting(party), QUEUES, party, 0, 1)

    def _fitting(self, party: Party) -> list[Limit]:
        return [limit for limit in self.limits if QUEUES in limit.counts and limit.fits(party)]

    def replace(self, limits: list[Limit], queues: Iterable[Party]) -> None:
        """There are other limits from now on; what is taken already is counted, and not refused. queues: who has
        declared those there are."""
        self.limits = limits
        for limit in limits:
            limit.tallies.clear()
        for quota in self.members:
            quota.fit()
            for measure, count in quota.taken.items():
                _add(quota.limits, measure, quota.party, quota.number, count)
        for party in queues:
            self.has_queue(party)

    def tick(self) -> None:
        """Now and then: forget those who have not connected for a while."""
        for limit in self.limits:
            if limit.rate is not None:
                limit.rate.forget(self.clock.now)

    def use(self) -> Iterator[tuple[Limit, str, Tally]]:
        """What is taken, by limit and what is counted."""
        for limit in self.limits:
            for (measure, _), tally in limit.tallies.items():
                yield limit, measure, tally


def _take(limits: list[Limit], measure: str, party: Party, number: int, name: str) -> None:
    for limit in limits:
        if limit.refuses and measure in limit.counts:
            tally = limit.tallies.get((measure, limit.bucket(party, number)))
            if limit.counts[measure] <= (0 if tally is None else tally.used):
                limit.refused += 1
                raise LimitReached(_refusal(limit, measure, party, name))
    _add(limits, measure, party, number, 1)


def _add(limits: list[Limit], measure: str, party: Party, number: int, count: int) -> None:
    for limit in limits:
        if count and measure in limit.counts:
            tally = limit.tally(measure, party, number)
            tally.used += count
            if tally.used >= tally.soft and not tally.warned and tally.soft != tally.most:
                tally.warned = True
                logger.warning("%s has %d %ss of %d allowed", tally.subject, tally.used, _NAMES[measure], tally.most)


def _drop(limits: list[Limit], measure: str, party: Party, number: int) -> None:
    for limit in limits:
        if measure in limit.counts:
            limit.drop(measure, party, number)


def _refusal(limit: Limit, measure: str, party: Party, name: str) -> str:
    """What a client is told, in RabbitMQ's words where it has some."""
    most = limit.counts[measure]
    subject = limit.subject(party)
    one_user = limit.per == "user"
    one_host = limit.per == "virtual_host" or bool(limit.host) and subject == f"vhost '{limit.host}'"
    if measure == CONNECTIONS:
        if one_user:
            return f"connection refused for {subject}: user connection limit ({most}) is reached"
        if one_host:
            return f"access to {subject} refused for user '{party.user}': connection limit ({most}) is reached"
        return f"connection refused for user '{party.user}': connection limit ({most}) of {subject} is reached"
    if measure == CHANNELS:
        which = "user limit" if one_user else "limit"
        return f"number of channels opened for {subject} has reached the maximum allowed {which} of ({most})"
    did = {QUEUES: "declare queue", LINKS: "attach link", CONSUMERS: "consume from queue"}[measure]
    return f"cannot {did} '{name}': {_NAMES[measure]} limit {'in' if one_host else 'of'} {subject} ({most}) is reached"
