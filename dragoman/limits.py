"""What the configuration says of limits, as the core's limits."""

from __future__ import annotations

import ipaddress
import logging
import resource

from broker.security.quotas import CONNECTIONS, COUNTED, FIGURES, Limit, Rate
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
