"""What a consumer wants: by its own arguments, and by the filters that its queue gives to those who have none."""

from __future__ import annotations

from typing import Any

from broker.arguments import CONSUMER_NAMES, given
from broker.errors import PreconditionFailed
from broker.selector import Selector, SelectorError


class Wanted:
    """What a subscription's arguments ask for (the table CONSUMER of broker.arguments)."""

    __slots__ = ("priority", "selector", "replay_period")

    def __init__(self) -> None:
        self.priority = 0
        self.selector: Selector | None = None
        self.replay_period = -1  # s; -1 for "from the first message on"


def wanted(arguments: dict[str, Any], what: str) -> Wanted:
    """What the arguments of a subscription ask for. what: the queue, for error texts. Raises: PreconditionFailed."""
    found = Wanted()
    options = given(arguments, CONSUMER_NAMES, what)
    for name, one in options.items():
        if name == "priority":
            found.priority = one.value
        elif name == "replay_period":
            found.replay_period = one.value
        elif name == "selector" and one.value:
            try:
                found.selector = Selector(one.value)
            except SelectorError as error:
                raise PreconditionFailed(f"invalid arg '{one.key}': {error}") from None
    return found


def default_filters(filters: dict[str, Any], what: str) -> Wanted:
    """A queue's default filters. As in Broker-J each is `{any name: {kind: [value]}}`, or simply `{kind: value}`.

    Raises: PreconditionFailed.
    """
    arguments: dict[str, Any] = {}
    for name, value in filters.items():
        if isinstance(value, dict) and len(value) == 1:
            [(name, value)] = value.items()
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if name not in ("x-filter-jms-selector", "x-apache-selector", "x-qpid-replay-period") \
                or not isinstance(value, (str, int)):
            raise PreconditionFailed(f"invalid default filter '{name}' for {what}: there are x-filter-jms-selector and "
                                     "x-qpid-replay-period, each with one value")
        arguments[name] = value
    return wanted(arguments, what)
