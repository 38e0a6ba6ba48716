"""The headers exchange: bindings ask for header values instead of a routing key (AMQP 0-9-1, section 3.1.3.4)."""

from __future__ import annotations

from typing import Any

from broker.argument_values import kind
from broker.errors import PreconditionFailed
from broker.exchange import NO_LOCAL, SELECTOR, Binding, Exchange
from broker.message import Message
from broker.queue import Queue

_MODES = ("all", "any", "all-with-x", "any-with-x")


class HeadersExchange(Exchange):
    """To the destinations whose arguments match the message's headers, all or any as `x-match` says.

    An argument without a value asks only that the header is there. Arguments that begin with `x-` count only when
    `x-match` ends in `-with-x`.
    """

    by_message = True

    def bind(self, binding: Binding) -> None:
        mode = binding.arguments.get("x-match", "all")
        if not isinstance(mode, str):
            raise PreconditionFailed(f"Invalid x-match field type {kind(mode)} (value {mode}); expected longstr")
        if mode not in _MODES:
            raise PreconditionFailed(f'Invalid x-match field value <<"{mode}">>; expected all, any, all-with-x, '
                                     "or any-with-x")
        super().bind(binding)

    def match(self, routing_key: str, message: Message | None) -> list[Queue | Exchange]:
        assert message is not None
        headers = message.view().headers
        return [binding.destination() for binding in self.bindings.values()
                if _matches(binding.arguments, headers) and binding.passes(message)]


def _matches(wanted: dict[str, Any], headers: dict[str, Any]) -> bool:
    mode = wanted.get("x-match", "all")
    with_x = mode.endswith("-with-x")
    any_is_enough = mode.startswith("any")
    for key, value in wanted.items():
        if key == "x-match" or key in (SELECTOR, NO_LOCAL) or (key.startswith("x-") and not with_x):
            continue
        found = key in headers and (value is None or _same(value, headers[key]))
        if found and any_is_enough:
            return True
        if not found and not any_is_enough:
            return False
    return not any_is_enough


def _same(value: Any, other: Any) -> bool:
    """Equal in value: numbers of any kind are alike, but a truth value is no number."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    return bool(value == other)
