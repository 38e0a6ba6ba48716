"""Shovels and federation of RabbitMQ, links and routes of qpidd: as links and bridges, proposed as text for the
configuration file. Passwords are not written there: the text names an environment variable."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from interop.migration.plan import Plan
from interop.settings import PULL, PUSH

_PROPOSED = "links and bridges are in the configuration: see what is proposed"


@dataclass(frozen=True, slots=True)
class _End:
    """A queue, or an exchange and the keys that are taken from it or the key that is sent with."""

    queue: str = ""
    exchange: str = ""
    key: str = ""


def propose_shovel(plan: Plan, name: str, value: dict[str, Any]) -> None:
    """A shovel moves between any two brokers: here each side that is not this broker is a link."""
    plan.leave_out(f"shovel {name}", _PROPOSED)
    source, target = _shovel_end(value, "src"), _shovel_end(value, "dest")
    there, here = _uri(value.get("src-uri")), _uri(value.get("dest-uri"))
    lines = [f"# In place of shovel {name}."]
    if not _is_own(there) and not _is_own(here):
        lines[0] += " Both its ends are elsewhere, so the messages pass through a queue here, which must be made."
        passing = _End(queue=f"shovel.{name}")
        lines += [*_link(f"{name}-source", there), *_bridge(f"{name}-in", f"{name}-source", PULL, source, passing),
                  *_link(f"{name}-target", here), *_bridge(f"{name}-out", f"{name}-target", PUSH, passing, target)]
    elif _is_own(there) and _is_own(here):
        lines[0] += " Both its ends are here: `dragoman queue redirect` or a binding does that."
    elif _is_own(here):
        lines += [*_link(name, there), *_bridge(name, name, PULL, source, target)]
    else:
        lines += [*_link(name, here), *_bridge(name, name, PUSH, source, target)]
    plan.proposed.append("\n".join(lines))


def propose_upstream(plan: Plan, name: str, value: dict[str, Any]) -> None:
    """A federation upstream is a link; which exchanges it is for, RabbitMQ's policies say."""
    plan.leave_out(f"federation upstream {name}", _PROPOSED)
    plan.proposed.append("\n".join([
        f"# In place of federation upstream {name}. For each exchange that the policies name, a bridge as this one:",
        *_link(name, _uri(value.get("uri"))),
        *(f"# {line}".rstrip() for line in _bridge(f"{name}-EXCHANGE", name, PULL, _End(exchange="EXCHANGE"),
                                                   _End(exchange="EXCHANGE"))[:-1]), "# federation = true", ""]))


def propose_qpidd(plan: Plan, links: list[dict[str, Any]], bridges: list[dict[str, Any]]) -> None:
    """The links and routes of qpidd's federation (qpid-route)."""
    for link in links:
        name = str(link.get("name") or f"{link.get('host')}-{link.get('port')}")
        plan.leave_out(f"link {name}", _PROPOSED)
        scheme = "amqps" if link.get("transport") == "ssl" else "amqp"
        plan.proposed.append("\n".join([f"# In place of qpidd's link {name}", *_link(
            name, f"{scheme}://{link.get('host')}:{link.get('port')}", "0-10")]))
    for number, bridge in enumerate(bridges, 1):
        name = str(bridge.get("name") or f"route-{number}")
        reference = bridge.get("linkRef")
        through = reference.get("_object_name", "") if isinstance(reference, dict) else ""
        through = through.decode("utf-8", "replace") if isinstance(through, bytes) else str(through)
        plan.leave_out(f"route {name}", _PROPOSED)
        source, target = str(bridge.get("src") or ""), str(bridge.get("dest") or "")
        key = "" if bridge.get("dynamic") else str(bridge.get("key") or "")
        taken = _End(queue=source) if bridge.get("srcIsQueue") else _End(exchange=source, key=key)
        lines = _bridge(name, through.split(":", 2)[-1], PUSH if bridge.get("srcIsLocal") else PULL, taken,
                        _End(exchange=target))
        if bridge.get("dynamic"):
            lines.insert(len(lines) - 1, "federation = true")
        plan.proposed.append("\n".join([f"# In place of qpidd's route {name}", *lines]))


def _uri(value: Any) -> str:
    """The first of the URIs; a list is for failover."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return str(value or "")


def _is_own(uri: str) -> bool:
    """Whether a shovel's URI is that of the broker that it runs in."""
    return uri in ("", "amqp://") or uri.startswith("amqp:///")


def _shovel_end(value: dict[str, Any], side: str) -> _End:
    def text(name: str) -> str:
        return str(value.get(f"{side}-{name}") or "")
    address = text("address")  # of AMQP 1.0
    queue = text("queue") or (address if not text("exchange") else "")
    return _End("" if text("exchange") else queue, text("exchange"), text("exchange-key"))


def _link(name: str, uri: str, dialect: str = "0-9-1") -> list[str]:
    """The section of a link."""
    lines = ["[[link]]", f"name = {_text(name)}"]
    try:
        parts = urlsplit(uri)
        user = unquote(parts.username or "")
        uri = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    except ValueError:
        user = ""
    lines += [f"url = {_text(uri)}", f"dialect = {_text(dialect)}"]
    if user:
        variable = re.sub(r"[^A-Z0-9]+", "_", name.upper()) + "_PASSWORD"
        lines += [f"user = {_text(user)}", f"password_env = {_text(variable)}"]
    return [*lines, ""]


def _bridge(name: str, link: str, direction: str, taken: _End, sent: _End) -> list[str]:
    """The section of a bridge."""
    lines = ["[[bridge]]", f"name = {_text(name)}", f"link = {_text(link)}", f"direction = {_text(direction)}"]
    sides = ("remote", "local") if direction == PULL else ("local", "remote")
    for side, end in zip(sides, (taken, sent), strict=True):
        lines += [f"{side}_{kind} = {_text(value)}" for kind, value in (("queue", end.queue),
                                                                        ("exchange", end.exchange)) if value]
    if taken.exchange and taken.key:
        lines.append(f"keys = [{_text(taken.key)}]")
    if sent.exchange and sent.key:
        lines.append(f"key = {_text(sent.key)}")
    return [*lines, ""]


def _text(value: str) -> str:
    """A text of TOML: JSON's are a part of those."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
