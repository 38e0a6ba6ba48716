"""RabbitMQ's limits of virtual hosts and users, proposed as limits for the configuration."""

from __future__ import annotations

import glob
import json
from typing import Any

from interop.migration.plan import Plan

_KEYS = {"max-connections": "connections", "max-queues": "queues", "max-channels": "channels"}
"""Their names, and ours."""


def propose_limits(plan: Plan, what: str, condition: str, name: str, limits: dict[str, Any]) -> None:
    """what: how people call them; condition: "virtual_host" or "user", which is called `name`."""
    lines = []
    for key, value in limits.items():
        if key not in _KEYS or not isinstance(value, int) or isinstance(value, bool):
            plan.leave_out(what, f"{key} = {value}: it has no counterpart here")
        elif value >= 0:  # less is no limit
            lines.append(f"{_KEYS[key]} = {value}")
    if lines:
        wanted = glob.escape(name) if condition == "user" else name
        plan.proposed.append("\n".join([f"# {what}", "[[limit]]", f"{condition} = {json.dumps(wanted)}", *lines, ""]))
        plan.remark(what, "limits are in the configuration: see what is proposed")
