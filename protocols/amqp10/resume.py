"""Unsettled deliveries of links that come back (part 2, sections 2.6.2 and 2.6.13).

A link that is detached, not closed, is suspended: what was unsettled stays so for as long as its terminus's expiry
policy and time-out say (part 3, sections 3.5.3 and 3.5.6). Who attaches a link of the same name and direction from the
same container goes on with it: each side tells the other in its attach what it holds for unsettled.
"""

from __future__ import annotations

from typing import Any, Final

from broker.values import Pairs
from protocols.values10 import Malformed, encode

DETACHED, ENDED, CLOSED, NEVER = range(4)
"""What happens to a link: it is detached, its session ends, its connection is closed, none of these."""

_POLICIES = {"link-detach": DETACHED, "session-end": ENDED, "connection-close": CLOSED, "never": NEVER}

UNSETTLED_STATE: Final = 2
"""The durability of a terminus that keeps unsettled deliveries, not only its own settings."""


def expiry_of(terminus: dict[str, Any]) -> int:
    """The event that ends a suspended link. One that is not durable does not outlive its connection."""
    policy = _POLICIES.get(str(terminus["expiry-policy"] or "session-end"), ENDED)
    return policy if terminus["durable"] == UNSETTLED_STATE else min(policy, CLOSED)


def read_unsettled(value: Any) -> dict[bytes, Any]:
    """The delivery states by delivery tag that an attach says. Raises: Malformed."""
    if value is None:
        return {}
    if not isinstance(value, (dict, Pairs)):
        raise Malformed("unsettled is no map")
    items = value.items if isinstance(value, Pairs) else list(value.items())
    if not all(isinstance(tag, bytes) for tag, _ in items):
        raise Malformed("a key of unsettled is no delivery-tag")
    return dict(items)


def write_unsettled(states: list[tuple[bytes, bytes]]) -> bytes | None:
    """Such a map, encoded; states: delivery tags and encoded delivery states. None when there are none."""
    if not states:
        return None
    items = b"".join([encode(tag) + state for tag, state in states])
    return b"\xd1" + (len(items) + 4).to_bytes(4, "big") + (2 * len(states)).to_bytes(4, "big") + items
