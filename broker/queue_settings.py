"""A queue's arguments: what users write in a declaration, checked, in the form that the queue works with."""

from __future__ import annotations

from typing import Any

from broker.arguments import kind
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
                 "dead_letter_routing_key", "max_priority", "delivery_limit", "single_active", "counts_deliveries",
                 "group_header", "shared_groups")

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
        self.group_header: str | None = None  # the header that a message's group is in
        self.shared_groups = False  # a consumer has a group only while it has some of its messages
        self.counts_deliveries = False  # readers are told the delivery count from the first redelivery on


def queue_settings(arguments: dict[str, Any], what: str) -> QueueSettings:
    """Settings from arguments as RabbitMQ names them; unknown ones are left alone.

    what: the queue, for error texts. Raises: PreconditionFailed.
    """
    settings = QueueSettings()
    settings.counts_deliveries = _word(arguments, "x-queue-type", what, ("classic", "quorum"), "queue type") == "quorum"
    _word(arguments, "x-queue-mode", what, ("default", "lazy"), "queue mode")
    settings.message_ttl = _number(arguments, "x-message-ttl", what, 0, _LONGEST)
    settings.expires = _number(arguments, "x-expires", what, 1, _LONGEST)
    settings.max_length = _number(arguments, "x-max-length", what, 0, None)
    settings.max_bytes = _number(arguments, "x-max-length-bytes", what, 0, None)
    settings.max_priority = max(0, _number(arguments, "x-max-priority", what, 0, None))
    if settings.max_priority > 255:
        raise PreconditionFailed(f"invalid arg 'x-max-priority' for {what}: "
                                 f"{{max_value_exceeded,{settings.max_priority}}}")
    settings.delivery_limit = _number(arguments, "x-delivery-limit", what, 0, None)
    overflow = _text(arguments, "x-overflow", what)
    if overflow is not None:
        if overflow not in _OVERFLOW:
            raise PreconditionFailed(f"invalid arg 'x-overflow' for {what}: invalid_overflow")
        settings.overflow = _OVERFLOW[overflow]
    settings.dead_letter_exchange = exchange_argument(arguments, "x-dead-letter-exchange", what)
    settings.dead_letter_routing_key = _text(arguments, "x-dead-letter-routing-key", what)
    if settings.dead_letter_routing_key is not None and settings.dead_letter_exchange is None:
        raise PreconditionFailed(f"invalid arg 'x-dead-letter-routing-key' for {what}: "
                                 "routing_key_but_no_dlx_defined")
    single = arguments.get("x-single-active-consumer", False)
    if not isinstance(single, bool):
        raise PreconditionFailed(f"invalid arg 'x-single-active-consumer' for {what}: "
                                 f"{{unacceptable_type,{kind(single)}}}")
    settings.single_active = single
    settings.group_header = _text(arguments, "qpid.group_header_key", what)
    shared = arguments.get("qpid.shared_msg_group", 0)
    if shared not in (0, 1, "0", "1"):
        raise PreconditionFailed(f"invalid arg 'qpid.shared_msg_group' for {what}: it is 0 or 1")
    settings.shared_groups = shared in (1, "1")
    return settings


def check_properties(arguments: dict[str, Any], what: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    """A queue that is declared as a quorum queue must be one that lasts. Raises: PreconditionFailed."""
    if arguments.get("x-queue-type") == "quorum":
        for wrong, name in ((not durable, "non-durable"), (exclusive, "exclusive-owner"), (auto_delete, "auto-delete")):
            if wrong:
                raise PreconditionFailed(f"invalid property '{name}' for {what}")


def exchange_argument(arguments: dict[str, Any], key: str, what: str) -> str | None:
    """An argument that names an exchange. Raises: PreconditionFailed."""
    value = arguments.get(key)
    if key in arguments and not isinstance(value, str):
        raise PreconditionFailed(f"invalid type '{kind(value)}' for arg '{key}' in {what}")
    return value


def _number(arguments: dict[str, Any], key: str, what: str, low: int, high: int | None) -> int:
    if key not in arguments:
        return -1
    value = arguments[key]
    if isinstance(value, bool) or not isinstance(value, int):
        wrong = f'"expected integer, got {kind(value)}"'
    elif value < 0:
        wrong = f"{{value_negative,{value}}}"
    elif value < low:
        wrong = f"{{value_zero,{value}}}"
    elif high is not None and value > high:
        wrong = f"{{value_too_large,{value}}}"
    else:
        return value
    raise PreconditionFailed(f"invalid arg '{key}' for {what}: {wrong}")


def _word(arguments: dict[str, Any], key: str, what: str, words: tuple[str, ...], name: str) -> str | None:
    value = _text(arguments, key, what)
    if value is not None and value not in words:
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: \"unsupported {name} '{value}'\"")
    return value


def _text(arguments: dict[str, Any], key: str, what: str) -> str | None:
    if key not in arguments:
        return None
    value = arguments[key]
    if not isinstance(value, str):
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: {{unacceptable_type,{kind(value)}}}")
    return value
