"""The dead-letter history in a message: a list of tables, as RabbitMQ has them."""

from __future__ import annotations

from typing import Any

from broker.values import Timestamp
from broker.view import Death


def read_death(table: dict[str, Any], unit: int) -> Death:
    """A line of the history; a client may have written anything there. unit: of its time, as parts of a second."""
    keys = table.get("routing-keys")
    expiration = table.get("original-expiration")
    return Death(_text(table, "queue"), _text(table, "reason"), _number(table, "count", 1),
                 _number(table, "time", 0) // unit, _text(table, "exchange"),
                 [str(key) for key in keys if isinstance(key, str)] if isinstance(keys, list) else [],
                 str(expiration) if isinstance(expiration, str) else None)


def _text(table: dict[str, Any], name: str) -> str:
    value = table.get(name)
    return str(value) if isinstance(value, str) else ""


def _number(table: dict[str, Any], name: str, default: int) -> int:
    value = table.get(name)
    return int(value) if isinstance(value, int) and 0 <= value < 2**62 else default


def write_death(death: Death) -> dict[str, Any]:
    """A line of the history as a table of the model's values."""
    table: dict[str, Any] = {"queue": death.queue, "reason": death.reason, "count": death.count,
                             "time": Timestamp(death.time * 1000), "exchange": death.exchange,
                             "routing-keys": list(death.routing_keys)}
    if death.original_expiration is not None:
        table["original-expiration"] = death.original_expiration
    return table
