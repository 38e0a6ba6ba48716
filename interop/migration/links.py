"""Shovels and federation upstreams of RabbitMQ as links and bridges, proposed as text for the configuration file."""

from __future__ import annotations

import json
from typing import Any

from interop.migration.plan import Plan


def propose_shovel(plan: Plan, name: str, value: dict[str, Any]) -> None:
    """A shovel moves between any two brokers: here each side that is not this broker is a link."""
    what = f"shovel {name}"
    ends = {side: _uri(value.get(f"{side}-uri")) for side in ("src", "dest")}
    plan.leave_out(what, "a link and a bridge do its work: see what is proposed, and put it into the configuration")
    lines = [f"# In place of shovel {name}"]
    for side, direction, local in (("src", "pull", "dest"), ("dest", "push", "src")):
        if _is_here(ends[side]):
            continue
        remote = _address(value, side)
        here = _address(value, local)
        lines += _link(f"{name}-{side}", ends[side]) + _bridge(f"{name}-{side}", direction, here, remote)
        if not _is_here(ends[local]) and side == "src":
            lines.append("# Both ends were elsewhere: the messages pass through this broker.")
    plan.proposed.append("\n".join(lines))


def propose_upstream(plan: Plan, name: str, value: dict[str, Any]) -> None:
    """A federation upstream is a link; which exchanges it is for, RabbitMQ's policies say."""
    plan.leave_out(f"federation upstream {name}",
                   "a link and a bridge do its work: see what is proposed, and put it into the configuration")
    plan.proposed.append("\n".join([
        f"# In place of federation upstream {name}: a [[bridge]] for each exchange that the policies name",
        *_link(name, _uri(value.get("uri")))]))


def _uri(value: Any) -> str:
    """The first of the URIs; a list is for failover."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return str(value or "")


def _is_here(uri: str) -> bool:
    """Whether a shovel's URI is that of the broker that it runs in."""
    return uri in ("", "amqp://", "amqp:///") or uri.startswith("amqp:///")


def _address(value: dict[str, Any], side: str) -> tuple[str, str, str]:
    """Queue, exchange and key of a side."""
    return (str(value.get(f"{side}-queue") or ""), str(value.get(f"{side}-exchange") or ""),
            str(value.get(f"{side}-exchange-key") or ""))


def _link(name: str, uri: str) -> list[str]:
    return ["[[link]]", f"name = {_text(name)}", f"url = {_text(uri)}", 'dialect = "0-9-1"', ""]


def _bridge(name: str, direction: str, here: tuple[str, str, str], remote: tuple[str, str, str]) -> list[str]:
    lines = ["[[bridge]]", f"name = {_text(name)}", f"link = {_text(name)}", f"direction = {_text(direction)}"]
    for side, (queue, exchange, key) in (("local", here), ("remote", remote)):
        if queue:
            lines.append(f"{side}_queue = {_text(queue)}")
        if exchange:
            lines.append(f"{side}_exchange = {_text(exchange)}")
        if key:
            lines.append(f"key = {_text(key)}")
    return lines + [""]


def _text(value: str) -> str:
    """A text of TOML: JSON's are a part of those."""
    return json.dumps(value, ensure_ascii=False)
