"""Names that other brokers have for limits, understood where ours may stand: whoever brings a setting along from
RabbitMQ, qpidd, Broker-J or Mosquitto finds that it holds here, and is told what it is called.

They may stand in `[limits]`, or at the top of the file as in rabbitmq.conf and qpidd.conf; `-`, `.` and `_` are the
same in them, and so are small and capital letters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Table = dict[str, Any]


def _same(value: Any) -> Any:
    return value


def _from_ms(value: Any) -> Any:
    """Seconds; what is no number is left to those who read it."""
    return -(-value // 1000) if isinstance(value, int) and not isinstance(value, bool) else value


def _highest(value: Any) -> Any:
    """The highest number, where the other says how many there are."""
    return value - 1 if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value


def _channels(value: Any) -> Any:
    return 65535 if value == 0 and not isinstance(value, bool) else value  # 0 is no limit, there


KEYS: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    # RabbitMQ
    "connection_max": ("limits", "connections", _same),
    "channel_max": ("amqp091", "channel_max", _channels),
    "session_max_per_connection": ("amqp10", "channel_max", _highest),
    "link_max_per_session": ("amqp10", "handle_max", _highest),
    "frame_max": ("amqp091", "frame_max", _same),
    "heartbeat": ("amqp091", "heartbeat", _same),
    "handshake_timeout": ("limits", "handshake_seconds", _from_ms),
    "max_message_size": ("limits", "message_size", _same),
    "vm_memory_high_watermark_absolute": ("limits", "memory", _same),
    "disk_free_limit_absolute": ("limits", "disk_free", _same),
    # qpidd
    "max_connections": ("limits", "connections", _same),
    "max_connections_per_user": ("limits", "connections_per_user", _same),
    "max_connections_per_ip": ("limits", "connections_per_address", _same),
    "connection_limit_per_user": ("limits", "connections_per_user", _same),
    "connection_limit_per_ip": ("limits", "connections_per_address", _same),
    "max_negotiate_time": ("limits", "handshake_seconds", _from_ms),
    # Broker-J
    "maxopenconnections": ("limits", "connections", _same),
    "qpid_port_max_open_connections": ("limits", "connections", _same),
    "qpid_port_protocol_handshake_timeout": ("limits", "handshake_seconds", _from_ms),
    "qpid_max_message_size": ("limits", "message_size", _same),
    "connection_heartbeatdelay": ("amqp091", "heartbeat", _same),
    # Mosquitto
    "max_keepalive": ("mqtt", "keep_alive_max", _same),
    "max_inflight_messages": ("mqtt", "receive_max", _same),
    "max_packet_size": ("mqtt", "packet_max", _same),
    "max_queued_messages": ("mqtt", "session_messages", _same),
    "message_size_limit": ("limits", "message_size", _same),
}
"""Their names, and the section and key that they are here."""

LIMITS: dict[str, tuple[str, str]] = {
    "consumer_max_per_channel": ("consumers_per_channel", "all"),
    "channel_max_per_node": ("channels", "all"),
    "cluster_queue_limit": ("queues", "all"),
    "max_queues_per_user": ("queues", "user"),
    "connection_sessioncountlimit": ("channels", "connection"),
    "sessioncountlimit": ("channels", "connection"),
}
"""Those that are a `[[limit]]` here: its key, and what it is `per`."""


def translate(document: Table, known: dict[str, set[str]]) -> tuple[list[str], list[str]]:
    """Give the keys of a configuration our names. known: our keys, by section ("" for those of none).

    Gives notes on what is called otherwise here, and problems.
    """
    notes: list[str] = []
    problems: list[str] = []
    _translate_table(document, document, "", known, notes, problems)
    limits = document.get("limits")
    if isinstance(limits, dict):
        _translate_table(document, limits, "limits.", known, notes, problems)
    return notes, problems


def _translate_table(document: Table, table: Table, prefix: str, known: dict[str, set[str]], notes: list[str],
                     problems: list[str]) -> None:
    own = known["limits"] if prefix else set().union(known[""], known)
    for path, value in list(_leaves({name: value for name, value in table.items() if name not in own}, ())):
        name = "_".join(path).replace("-", "_").replace(".", "_").lower()
        theirs = prefix + ".".join(path)
        if name in KEYS:
            section, key, convert = KEYS[name]
        elif prefix and name in own:
            section, key, convert = "limits", name, _same
        elif name in LIMITS:
            key, per = LIMITS[name]
            limits = document.setdefault("limit", [])
            if isinstance(limits, list):
                limits.append({key: value, "per": per})
            notes.append(f"{theirs} is called {key} here, in a [[limit]]"
                         + (f' with per = "{per}"' if per != "all" else ""))
            _remove(table, path)
            continue
        else:
            continue
        into = document.setdefault(section, {})
        if not isinstance(into, dict):
            continue
        if key in into:
            problems.append(f"{theirs} and {section}.{key} are the same, and both are set")
        else:
            into[key] = convert(value)
            notes.append(f"{theirs} is called {section}.{key} here")
        _remove(table, path)


def _leaves(table: Table, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """Values, and the names on the way to them: `a.b = 1` is a table in TOML."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in table.items():
        if isinstance(value, dict) and len(path) < 6:
            found += _leaves(value, (*path, name))
        else:
            found.append(((*path, name), value))
    return found


def _remove(table: Table, path: tuple[str, ...]) -> None:
    *way, last = path
    tables = [table]
    for name in way:
        tables.append(tables[-1][name])
    del tables[-1][last]
    for above, name in reversed(list(zip(tables, way, strict=False))):
        if not above[name]:
            del above[name]
