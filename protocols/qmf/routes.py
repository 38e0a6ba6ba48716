"""What qpid-route asks for, in the gateway's terms: `connect` of the broker makes a link, `bridge` of a link a bridge.

All routes are at least once, whatever `sync` says. A tag and tags to be left out are arguments of the queue that is
made at the source.
"""

from __future__ import annotations

from typing import Any

from broker.security.addresses import written

SCHEMES = {"": "amqp", "tcp": "amqp", "ssl": "amqps"}
"""Of URLs, by the transports that there are."""

_UNLIMITED = 0xFFFFFFFF
_PREFETCH = 1000
_LARGEST_PREFETCH = 65535


def link_name(transport: str, host: str, port: int) -> str:
    return f"qpid.{transport or 'tcp'}:{host}:{port}"


def link_properties(transport: str, host: str, port: int, mechanism: str, user: str) -> dict[str, Any]:
    """Of a link to a broker that speaks 0-10, as qpid-route knows no other."""
    return {"url": f"{SCHEMES[transport]}://{written(host, port)}", "dialect": "0-10", "mechanism": mechanism,
            "user": user}


def bridge_name(link: str, properties: dict[str, Any]) -> str:
    """The same for the same route."""
    source = "".join(f" {properties[name]}" for name in ("local_queue", "remote_queue") if name in properties)
    exchange = properties.get("local_exchange" if properties["direction"] == "pull" else "remote_exchange", "")
    keys = " dynamic" if properties.get("federation") else "".join(f" {key}" for key in properties.get("keys", ()))
    return f"{link} {properties['direction']}{source} {exchange}{keys}"[:255]


def bridge_properties(link: str, source: str, target: str, key: str, from_queue: bool, from_here: bool, dynamic: bool,
                      tag: str, excludes: str, credit: int) -> dict[str, Any]:
    here, there = ("local", "remote") if from_here else ("remote", "local")
    found: dict[str, Any] = {"link": link, "direction": "push" if from_here else "pull", f"{there}_exchange": target,
                             "prefetch": _PREFETCH if credit in (0, _UNLIMITED) else min(credit, _LARGEST_PREFETCH)}
    if from_queue:
        found[f"{here}_queue"] = source
        return found
    found[f"{here}_exchange"] = source
    if dynamic:
        found["federation"] = True
    else:
        found["keys"] = [key]
    arguments = {name: value for name, value in (("qpid.trace.id", tag), ("qpid.trace.exclude", excludes)) if value}
    if arguments:
        found["arguments"] = arguments
    return found
