"""Values of declarations, as any dialect may have written them, for messages that a reader of any dialect gets."""

from __future__ import annotations

import uuid
from typing import Any


def plain_text(value: str) -> str:
    """Text that every dialect can write: what was no UTF-8 is replaced."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def model_map(values: dict[str, Any]) -> dict[str, Any]:
    """A map of values that AMQP 1.0 and 0-10 both have."""
    return {plain_text(str(key))[:255]: model_value(value) for key, value in values.items()}


def shown_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a declaration without what has a property of its own."""
    return {key: value for key, value in model_map(arguments).items() if key != "alternate-exchange"}


def model_value(value: Any) -> Any:
    if isinstance(value, dict):
        return model_map(value)
    if isinstance(value, (list, tuple)):
        return [model_value(item) for item in value]
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    if value is None or isinstance(value, (bool, int, float, bytes, uuid.UUID)):
        return value
    return plain_text(str(value))
