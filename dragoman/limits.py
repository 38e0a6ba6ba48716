"""What the configuration says of limits, as the core's limits."""

from __future__ import annotations

import ipaddress
import logging
import resource

from broker.security.qpid_acl import AclFile, Quota
from broker.security.quotas import CONNECTIONS, COUNTED, FIGURES, QUEUES, Limit, Rate
from broker.security.rules import ALL
from dragoman.access import Sources
from dragoman.config import Config
from dragoman.config_limits import LimitFor, Limits, rate

logger = logging.getLogger(__name__)

FILES_KEPT = 64
"""Open files that are not for clients: the store's, the log's, listeners', those of connections of our own."""

_GENERAL = ("message_size", "output", "handshake_seconds", "authentication_seconds", "idle_seconds")


def limits_of(config: Config) -> list[Limit]:
    """All limits, in the order in which they are asked."""
    own = config.limits
    limits = [Limit(figures={name: getattr(own, name) for name in _GENERAL})]
    for most, per in ((own.connections_per_address, "address"), (own.connections_per_user, "user")):
        if most:
            limits.append(Limit({CONNECTIONS: most}, per=per, warn_at=own.warn_at))
    return limits + [_limit(each) for each in config.limit]


def quota_limits(sources: Sources, config: Config) -> list[Limit]:
    """The quotas and CLT lines of the files of access rules: for each user on his own, and where the file is one of a
    virtual host, for what he has there."""
    limits = _file_limits(sources.acl, "", config) if sources.acl is not None else []
    for host, file in sources.hosts.items():
        limits += _file_limits(file, host, config)
    return limits


def _file_limits(file: AclFile, host: str, config: Config) -> list[Limit]:
    """What names a user, or a group of the file that he is in, comes before what is for all; of several the last holds.
    host: a virtual host's name, "" for all of them."""
    quotas, groups = file.quotas, file.groups
    limits: list[Limit] = []
    for kind, port in dict.fromkeys((quota.kind, quota.port) for quota in quotas):
        named: dict[str, Quota] = {}
        others: dict[str, Quota] = {}  # for all, and for groups that only providers know
        for quota in quotas:
            if (quota.kind, quota.port) == (kind, port):
                if quota.who != ALL:
                    named |= dict.fromkeys((_plain(user, config) for user in groups.get(quota.who, {quota.who})), quota)
                if quota.who not in groups:
                    others[quota.who] = quota
        sets: dict[tuple[int, int], set[str]] = {}
        for user, quota in named.items():
            sets.setdefault((quota.number, quota.seconds), set()).add(user)
        for listener in _listeners(port, config):
            limits += [_quota(kind, number, seconds, listener, host, only=frozenset(users))
                       for (number, seconds), users in sets.items()]
            limits += [_quota(kind, quota.number, quota.seconds, listener, host, but=frozenset(named),
                              group="" if who == ALL else who) for who, quota in others.items()]
    return limits


def _quota(kind: str, number: int, seconds: int, listener: str, host: str, *, group: str = "",
           only: frozenset[str] = frozenset(), but: frozenset[str] = frozenset()) -> Limit:
    rated = kind == "connection rate" and number > 0
    counts = {} if rated else {QUEUES if kind == "queues" else CONNECTIONS: number}
    return Limit(counts, None, Rate(number, 1000 * seconds) if rated else None, per="user", group=group,
                 listener=listener, host=host, only=only, but=but)


def _plain(user: str, config: Config) -> str:
    """A user's name without the realm that goes without saying."""
    name, _, realm = user.rpartition("@")
    return name if name and realm in config.access.realms else user


def _listeners(port: str, config: Config) -> list[str]:
    if not port:
        return [""]
    return [listener.name() for listener in config.listeners if port in (listener.name(), str(listener.port))]


def _limit(given: LimitFor) -> Limit:
    counts = {name: getattr(given, name) for name in COUNTED if getattr(given, name) >= 0}
    figures = {name: getattr(given, name) for name in FIGURES if getattr(given, name)}
    network = ipaddress.ip_network(given.network) if given.network else None
    return Limit(counts, figures, Rate(*rate(given.connection_rate)) if given.connection_rate else None,
                 per=given.per, user=given.user, group=given.group, network=network, listener=given.listener,
                 host=given.virtual_host, warn_at=given.warn_at, refuses=given.refuse)


def most_connections(config: Config) -> int:
    """`limits.connections`, or what the system has files for, if that is less."""
    most = config.limits.connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or most <= files - FILES_KEPT:
        return most
    fewer = max(1, files - FILES_KEPT)
    if most != Limits().connections:  # it was set by somebody who counts on it
        logger.warning("limits.connections is %d, but this process may have only %d open files: %d clients can "
                       "connect; raise LimitNOFILE of the systemd unit, or ulimit -n", most, files, fewer)
    return fewer
