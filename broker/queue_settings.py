"""A queue's arguments: what users write in a declaration, checked, in the form that the queue works with."""

from __future__ import annotations

from typing import Any

from broker import arguments as args
from broker.argument_values import same
from broker.arguments import DROP_HEAD, FLOW_CONTROL, NO_LIMIT, QUEUE_NAMES, REJECT_PUBLISH, Given
from broker.errors import PreconditionFailed
from broker.filters import Wanted, default_filters
from broker.option import IGNORED

DEFAULT_LAST_VALUE_KEY = "qpid.LVQ_key"
"""The header of a last-value queue that names no other."""


class QueueSettings:
    """What a queue's arguments ask for, by the canonical names of broker/arguments.py.

    Times in ms unless said otherwise there, sizes in bytes, -1 for "not set".
    """

    __slots__ = ("queue_type", "queue_mode", "description", "max_priority", "priorities", "fairshare", "fairshares",
                 "last_value_key", "last_value", "last_value_no_browse", "sort_key", "retains", "browse_only",
                 "default_filters", "filters", "group_header", "shared_groups", "group_type", "default_group",
                 "max_length", "max_bytes", "overflow", "counts_unsettled", "deduplication", "deduplication_window",
                 "flow_stop_count", "flow_resume_count", "flow_stop_size", "flow_resume_size",
                 "expires", "auto_delete_timeout", "lifetime", "exclusivity",
                 "message_ttl", "minimum_ttl", "message_durability", "no_local", "single_active", "live_consumers",
                 "delivery_limit", "delivery_attempts", "counts_deliveries", "dead_letter_exchange",
                 "dead_letter_routing_key", "alternate", "trace_id", "trace_exclude", "dead_letter_queue",
                 "alert_count", "alert_count_down", "alert_size", "alert_size_down", "alert_message_size",
                 "alert_message_age", "alert_repeat_gap")

    def __init__(self) -> None:
        self.queue_type = "classic"
        self.queue_mode: str | None = None
        self.description: str | None = None
        self.max_priority = 0
        self.priorities = 0
        self.fairshare = 0
        self.fairshares: dict[int, int] = {}  # by level of priority
        self.last_value_key: str | None = None
        self.last_value = False
        self.last_value_no_browse = False
        self.sort_key: str | None = None
        self.retains = False  # it is the queue of retained messages (broker.retained)
        self.browse_only = False
        self.default_filters: dict[str, Any] | None = None
        self.filters: Wanted | None = None  # the same, checked
        self.group_header: str | None = None
        self.shared_groups = False
        self.group_type: str | None = None
        self.default_group: str | None = None
        self.deduplication = False
        self.deduplication_window = 10_000
        self.max_length = -1
        self.max_bytes = -1
        self.overflow = DROP_HEAD
        self.counts_unsettled = False  # the limits count what consumers have, too
        self.flow_stop_count = -1
        self.flow_resume_count = -1
        self.flow_stop_size = -1
        self.flow_resume_size = -1
        self.expires = -1
        self.auto_delete_timeout = 0
        self.lifetime = "manual"
        self.exclusivity = "none"
        self.message_ttl = -1
        self.minimum_ttl = -1
        self.message_durability = "default"
        self.no_local = False
        self.single_active = False
        self.live_consumers = 0
        self.delivery_limit = -1
        self.delivery_attempts = -1
        self.counts_deliveries = False  # readers are told the delivery count from the first redelivery on
        self.dead_letter_exchange: str | None = None
        self.dead_letter_routing_key: str | None = None
        self.trace_id: str | None = None
        self.trace_exclude: str | None = None
        self.alternate: str | None = None  # an exchange or, when none has the name, a queue
        self.dead_letter_queue = False
        self.alert_count = -1
        self.alert_count_down = -1
        self.alert_size = -1
        self.alert_size_down = -1
        self.alert_message_size = -1
        self.alert_message_age = -1
        self.alert_repeat_gap = -1


def queue_settings(arguments: dict[str, Any], what: str) -> QueueSettings:
    """Settings from the arguments of a declaration. what: the queue, for error texts. Raises: PreconditionFailed."""
    settings = QueueSettings()
    given = args.given(arguments, QUEUE_NAMES, what)
    for name, one in given.items():
        if one.option.kind != IGNORED:
            setattr(settings, name, one.value)
    settings.counts_deliveries = settings.queue_type == "quorum"
    if settings.dead_letter_routing_key is not None and settings.dead_letter_exchange is None:
        raise PreconditionFailed(f"invalid arg 'x-dead-letter-routing-key' for {what}: "
                                 "routing_key_but_no_dlx_defined")
    if settings.live_consumers:
        settings.single_active = True
    if settings.delivery_attempts > 0 and settings.delivery_limit < 0:
        settings.delivery_limit = settings.delivery_attempts - 1
    if settings.group_type is not None:
        settings.shared_groups = settings.group_type == "shared-groups"
    if settings.default_filters is not None:
        settings.filters = default_filters(settings.default_filters, what)
    _kind(arguments, settings, given, what)
    _limits(settings, given, what)
    _alerts(settings, given, what)
    return settings


def _kind(arguments: dict[str, Any], settings: QueueSettings, given: dict[str, Given], what: str) -> None:
    """The order in which messages are delivered."""
    fairshare = QUEUE_NAMES["qpid.fairshare"]
    for key, value in arguments.items():
        level = args.fairshare_level(key)
        if level >= 0:
            settings.fairshares[level] = fairshare.read(key, value, what)
    if (settings.last_value or settings.last_value_no_browse) and settings.last_value_key is None:
        settings.last_value_key = DEFAULT_LAST_VALUE_KEY
    kinds = [name for name, is_so in (("priorities", settings.max_priority > 0 or settings.priorities > 1),
                                      ("a last-value key", settings.last_value_key is not None),
                                      ("a sort key", settings.sort_key is not None)) if is_so]
    if len(kinds) > 1:
        raise PreconditionFailed(f"invalid arguments for {what}: {' and '.join(kinds)} exclude each other")
    if settings.max_priority and settings.priorities:
        raise PreconditionFailed(f"invalid arg '{given['priorities'].key}' for {what}: it contradicts "
                                 f"'{given['max_priority'].key}'")


def _limits(settings: QueueSettings, given: dict[str, Given], what: str) -> None:
    limits = [given[name] for name in ("max_length", "max_bytes") if name in given and given[name].value >= 0]
    rabbits = any(limit.key in limit.option.rabbit for limit in limits)
    settings.counts_unsettled = bool(limits) and not rabbits
    if limits and "overflow" not in given and not rabbits:
        qpids = any(limit.key in limit.option.qpid for limit in limits)
        settings.overflow = REJECT_PUBLISH if qpids else NO_LIMIT
    if settings.overflow == FLOW_CONTROL:
        if settings.flow_stop_count < 0:
            settings.flow_stop_count = settings.max_length
        if settings.flow_stop_size < 0:
            settings.flow_stop_size = settings.max_bytes
    if settings.overflow in (NO_LIMIT, FLOW_CONTROL):
        settings.max_length = settings.max_bytes = -1
    settings.flow_resume_count = _resume("flow_resume_count", settings.flow_resume_count, settings.flow_stop_count,
                                         settings.max_length, given, what)
    settings.flow_resume_size = _resume("flow_resume_size", settings.flow_resume_size, settings.flow_stop_size,
                                        settings.max_bytes, given, what)


def _resume(name: str, resume: int, stop: int, limit: int, given: dict[str, Given], what: str) -> int:
    if stop < 0:
        if resume >= 0:
            raise PreconditionFailed(f"invalid arg '{given[name].key}' for {what}: there is no mark to stop at")
        return -1
    if 0 <= limit < stop:
        raise PreconditionFailed(f"invalid arguments for {what}: publishers would be held above {stop}, but the limit "
                                 f"is {limit}")
    if resume > stop:
        raise PreconditionFailed(f"invalid arg '{given[name].key}' for {what}: it is above the mark to stop at, {stop}")
    return resume if resume >= 0 else stop * 4 // 5


def _alerts(settings: QueueSettings, given: dict[str, Given], what: str) -> None:
    for up, down in (("alert_count", "alert_count_down"), ("alert_size", "alert_size_down")):
        above, below = getattr(settings, up), getattr(settings, down)
        if below >= 0 and below >= above:
            raise PreconditionFailed(f"invalid arg '{given[down].key}' for {what}: it is not below the alert's mark")
        if below < 0 <= above:
            setattr(settings, down, above // 2)
    gap = given.get("alert_repeat_gap")
    if gap is None:
        settings.alert_repeat_gap = 30_000
    elif gap.key.startswith("qpid."):
        settings.alert_repeat_gap *= 1000


def check_same_arguments(received: dict[str, Any], current: dict[str, Any], what: str) -> None:
    """Whether a queue that is declared again is declared as it is; two spellings of an option are the same.

    What the queue has by a name of RabbitMQ's the new declaration must say again, as it must there. What it has by
    one of Qpid's names it need not: Qpid's brokers do not compare. Raises: PreconditionFailed.
    """
    mine = args.given(args.without_policies(received), QUEUE_NAMES, what)
    theirs = args.given(args.without_policies(current), QUEUE_NAMES, what)
    for option in args.QUEUE:
        asked, has = mine.get(option.name), theirs.get(option.name)
        if option.kind == IGNORED or (asked is None and (has is None or has.key not in option.rabbit)):
            continue
        key = asked.key if asked is not None else has.key if has is not None else option.name
        implied = option.default if option.name == "queue_type" or key not in option.rabbit else None
        if not same(implied if asked is None else asked.value, implied if has is None else has.value):
            raise args.inequivalent(key, implied if asked is None else asked.raw, implied if has is None else has.raw,
                                    what)


def check_properties(arguments: dict[str, Any], what: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    """A queue that is declared as a quorum queue must be one that lasts. Raises: PreconditionFailed."""
    if arguments.get("x-queue-type") == "quorum":
        for wrong, name in ((not durable, "non-durable"), (exclusive, "exclusive-owner"), (auto_delete, "auto-delete")):
            if wrong:
                raise PreconditionFailed(f"invalid property '{name}' for {what}")
