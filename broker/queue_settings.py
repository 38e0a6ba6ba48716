"""A queue's arguments: what users write in a declaration, checked, in the form that the queue works with."""

from __future__ import annotations

from typing import Any

from broker.errors import PreconditionFailed

DROP_HEAD = 0
REJECT_PUBLISH = 1
REJECT_PUBLISH_DLX = 2

_OVERFLOW = {"drop-head": DROP_HEAD, "reject-publish": REJECT_PUBLISH, "reject-publish-dlx": REJECT_PUBLISH_DLX}

_LONGEST = 315_360_000_000
"""The longest time to live, ms: ten years, as RabbitMQ has it."""


class QueueSettings:
    """What a queue's arguments ask for. Times in ms, sizes in bytes, -1 for "not set"."""

    __slots__ = ("message_ttl", "expires", "max_length", "max_bytes", "overflow", "dead_letter_exchange",
                 "dead_letter_routing_key", "max_priority", "delivery_limit", "single_active", "counts_deliveries")

    def __init__(self) -> None:
        self.message_ttl = -1
        self.expires = -1
        self.max_length = -1
        self.max_bytes = -1
        self.overflow = DROP_HEAD
        self.dead_letter_exchange: str | None = None
        self.dead_letter_routing_key: str | None = None
        self.max_priority = 0
        self.delivery_limit = -1
        self.single_active = False
        self.counts_deliveries = False  # readers are told the delivery count from the first redelivery on


def queue_settings(arguments: dict[str, Any], what: str) -> QueueSettings:
    """Settings from arguments as RabbitMQ names them; unknown ones are left alone.

    what: the queue, for error texts. Raises: PreconditionFailed.
    """
    settings = QueueSettings()
    kind = _text(arguments, "x-queue-type", what)
    if kind == "stream":
        raise PreconditionFailed(f"invalid arg 'x-queue-type' for {what}: there are no stream queues here; "
                                 "declare a classic or a quorum queue")
    if kind not in (None, "classic", "quorum"):
        raise PreconditionFailed(f"invalid arg 'x-queue-type' for {what}: unknown type '{kind}'")
    settings.counts_deliveries = kind == "quorum"
    settings.message_ttl = _number(arguments, "x-message-ttl", what, 0, _LONGEST)
    settings.expires = _number(arguments, "x-expires", what, 1, _LONGEST)
    settings.max_length = _number(arguments, "x-max-length", what, 0, 2**63 - 1)
    settings.max_bytes = _number(arguments, "x-max-length-bytes", what, 0, 2**63 - 1)
    settings.max_priority = max(0, _number(arguments, "x-max-priority", what, 0, 255))
    settings.delivery_limit = _number(arguments, "x-delivery-limit", what, 0, 2**31 - 1)
    overflow = _text(arguments, "x-overflow", what)
    if overflow is not None:
        if overflow not in _OVERFLOW:
            raise PreconditionFailed(f"invalid arg 'x-overflow' for {what}: '{overflow}' is none of "
                                     + ", ".join(_OVERFLOW))
        settings.overflow = _OVERFLOW[overflow]
    settings.dead_letter_exchange = _text(arguments, "x-dead-letter-exchange", what)
    settings.dead_letter_routing_key = _text(arguments, "x-dead-letter-routing-key", what)
    if settings.dead_letter_routing_key is not None and settings.dead_letter_exchange is None:
        raise PreconditionFailed(f"invalid arg 'x-dead-letter-routing-key' for {what}: "
                                 "routing_key_but_no_dlx_defined")
    single = arguments.get("x-single-active-consumer")
    if single is not None and not isinstance(single, bool):
        raise PreconditionFailed(f"invalid arg 'x-single-active-consumer' for {what}: not a boolean")
    settings.single_active = bool(single)
    return settings


def _number(arguments: dict[str, Any], key: str, what: str, low: int, high: int) -> int:
    value = arguments.get(key)
    if value is None:
        return -1
    if isinstance(value, bool) or not isinstance(value, int):
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: {value!r} is not a whole number")
    if not low <= value <= high:
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: {value} is not between {low} and {high}")
    return value


def _text(arguments: dict[str, Any], key: str, what: str) -> str | None:
    value = arguments.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: {value!r} is not a string")
    return value
