"""The keys that say how much of this machine clients may use."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from broker.security.quotas import PER
from dragoman.config_keys import Kind, keys
from dragoman.config_keys import key as _key

_MOST = 1 << 31


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may use of this machine: all of them, and each one. `[[limit]]` is for some of them."""

    connections: int = _key(65536, Kind.NUMBER, "Connections in all; less, where the system allows the process fewer "
                            "open files.", minimum=1)
    connections_per_user: int = _key(0, Kind.NUMBER, "Connections of one user; 0 for no limit.")
    connections_per_address: int = _key(0, Kind.NUMBER, "Connections from one address (of IPv6: from one network of "
                                        "64 bits); 0 for no limit.")
    half_open: int = _key(4096, Kind.NUMBER, "Connections that have not opened a virtual host yet. When there are "
                          "more, the one that has taken longest is closed.", minimum=1)
    half_open_per_address: int = _key(1000, Kind.NUMBER, "The same, from one address.", minimum=1)
    handshake_seconds: int = _key(10, Kind.SECONDS, "How long a client may take from connecting to having opened "
                                  "its virtual host.", minimum=1)
    authentication_seconds: int = _key(0, Kind.SECONDS, "How long it may take to have logged in. 0: as long as the "
                                       "handshake.")
    idle_seconds: int = _key(0, Kind.SECONDS, "A connection over which nothing goes in either direction for so long "
                             "is closed; heartbeats keep it. 0 for never.")
    tcp_keepalive_seconds: int = _key(300, Kind.SECONDS, "Silence on a connection after which the system asks whether "
                                      "the other side is still there. 0 for what the system does.", maximum=32767)
    memory: int = _key(0, Kind.SIZE, "Memory above which publishers are held back; 0 for 40 % of what the machine or "
                       "control group has.")
    output: int = _key(8 << 20, Kind.SIZE, "What may wait for a client that does not read. At an eighth of it, the "
                       "client is sent no more messages; at all of it, what it asks for waits.", minimum=1 << 16)
    output_seconds: int = _key(60, Kind.SECONDS, "A client that is at that limit for so long is cut off.", minimum=1)
    disk_free: int = _key(64 << 20, Kind.SIZE, "Free disk space below which publishers are held back.")
    message_size: int = _key(512 << 20, Kind.SIZE, "The largest message.", minimum=1)
    queue_memory_messages: int = _key(10000, Kind.NUMBER, "Messages of one queue kept in memory; the rest stays in the "
                                      "store until its turn.", minimum=1)
    queue_memory_bytes: int = _key(32 << 20, Kind.SIZE, "The same, by size.", minimum=1)
    warn_at: int = _key(80, Kind.NUMBER, "Percent of a limit on what is counted at which there is a warning in the "
                        "log. 100 for none.", minimum=1, maximum=100)


@dataclass(frozen=True, slots=True)
class LimitFor:
    """Limits for those whom the conditions fit. Where several fit, all must hold."""

    user: str = _key("", Kind.TEXT, "Condition: the user, or a pattern as file names have it (`sensor-*`).")
    group: str = _key("", Kind.TEXT, "Condition: a group that the user is in.")
    network: str = _key("", Kind.TEXT, "Condition: where the client comes from, as `10.0.0.0/8` or an address.")
    listener: str = _key("", Kind.TEXT, "Condition: the listener that it came by, as `host:port` of `[[listeners]]`.")
    virtual_host: str = _key("", Kind.TEXT, "Condition: the virtual host.")
    per: str = _key("all", Kind.TEXT, "Whether what is counted is counted for all whom the conditions fit together, or "
                    "for each user, address, ... of them on its own.", choices=PER)
    connections: int = _key(-1, Kind.NUMBER, "Counted: connections. -1 for no limit, here as below.", minimum=-1,
                            maximum=_MOST)
    channels: int = _key(-1, Kind.NUMBER, "Counted: channels, and sessions of AMQP 0-10 and 1.0.", minimum=-1,
                         maximum=_MOST)
    links: int = _key(-1, Kind.NUMBER, "Counted: links of AMQP 1.0.", minimum=-1, maximum=_MOST)
    consumers: int = _key(-1, Kind.NUMBER, "Counted: consumers, and subscriptions of MQTT.", minimum=-1,
                          maximum=_MOST)
    queues: int = _key(-1, Kind.NUMBER, "Counted: queues, for whom has declared them.", minimum=-1, maximum=_MOST)
    connection_rate: str = _key("", Kind.TEXT, "Connections in a time, as `100/s`, `60/min` or `1000/h`: so many at "
                                "once, or spread over it.")
    consumers_per_channel: int = _key(0, Kind.NUMBER, "Consumers of each channel or session of 0-10. 0 for no limit, "
                                      "here as below.")
    unsettled: int = _key(0, Kind.NUMBER, "Deliveries to each channel, session or client of MQTT that may be "
                          "unsettled; it is sent no more until it settles some.")
    message_size: int = _key(0, Kind.SIZE, "The largest message.")
    frame_size: int = _key(0, Kind.SIZE, "The largest frame, or packet of MQTT, that is agreed on. Only for conditions "
                           "that are known before the login.", maximum=(1 << 31) - 1)
    output: int = _key(0, Kind.SIZE, "As `limits.output`.")
    handshake_seconds: int = _key(0, Kind.SECONDS, "As `limits.handshake_seconds`; only for conditions that are known "
                                  "before the login.")
    authentication_seconds: int = _key(0, Kind.SECONDS, "As `limits.authentication_seconds`; likewise.")
    idle_seconds: int = _key(0, Kind.SECONDS, "As `limits.idle_seconds`.")
    warn_at: int = _key(80, Kind.NUMBER, "Percent of what is counted at which there is a warning in the log. 100 for "
                        "none.", minimum=1, maximum=100)
    refuse: bool = _key(True, Kind.BOOLEAN, "`false`: what is counted, and the rate, are never refused; that there is "
                        "more is only logged.")


_NO_LIMITS = ("user", "group", "network", "listener", "virtual_host", "per", "warn_at", "refuse")
"""Keys of LimitFor that say for whom and how it holds."""

_RATE = re.compile(r"(\d{1,9}) ?/ ?(?:(\d{1,6}) ?)?(ms|s|sec|min|m|h|d)", re.ASCII)
_UNITS = {"ms": 1, "s": 1000, "sec": 1000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def rate(text: str) -> tuple[int, int]:
    """How many, in how many ms. Raises: ValueError, with text to follow the key's name."""
    match = _RATE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0 or match[2] is not None and int(match[2]) == 0:
        raise ValueError(f'is "{text}"; it must be a number and a time, as "100/s", "60/min" or "20/5min"')
    return int(match[1]), int(match[2] or 1) * _UNITS[match[3]]


def limit_problems(limits: tuple[LimitFor, ...], listeners: set[str], hosts: tuple[str, ...]) -> list[str]:
    """What is wrong with limits whose keys are each right."""
    found = []
    for index, limit in enumerate(limits):
        where = f"limit[{index}]"
        if limit.network:
            try:
                ipaddress.ip_network(limit.network)
            except ValueError as error:
                found.append(f'{where}.network is "{limit.network}": {error}')
        if limit.connection_rate:
            try:
                rate(limit.connection_rate)
            except ValueError as error:
                found.append(f"{where}.connection_rate {error}")
        if limit.listener and limit.listener not in listeners:
            found.append(f'{where}.listener is "{limit.listener}", which is none of listeners: '
                         + ", ".join(sorted(listeners)))
        if limit.virtual_host and limit.virtual_host not in hosts:
            found.append(f'{where}.virtual_host is "{limit.virtual_host}", which is none of virtual_hosts')
        if limit.per == "connection" and (limit.connections >= 0 or limit.queues >= 0 or limit.connection_rate):
            found.append(f'{where}.per is "connection", for which neither connections, nor their rate, nor queues can '
                         "be limited")
        early = not (limit.user or limit.group or limit.virtual_host)
        found += [f"{where}.{name} is for those whom a limit fits before they log in; user, group and virtual_host are "
                  "not known then" for name in ("frame_size", "handshake_seconds", "authentication_seconds")
                  if getattr(limit, name) and not early]
        if 0 < limit.frame_size < 4096:
            found.append(f"{where}.frame_size is {limit.frame_size}; it must be at least 4096")
        if 0 < limit.output < 1 << 16:
            found.append(f"{where}.output is {limit.output}; it must be at least 65536")
        if all(getattr(limit, name) == default for name, _, default in keys(LimitFor) if name not in _NO_LIMITS):
            found.append(f"{where} limits nothing: it has none of the keys that say how much")
    return found
