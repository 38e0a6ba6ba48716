"""The table of all options of queues, exchanges, bindings and consumers, with their names in each dialect.

Whoever reads arguments reads them through it; docs/queue-options.md is made from it.
"""

from __future__ import annotations

from typing import Any, Final

from broker.argument_values import kind, same
from broker.errors import PreconditionFailed
from broker.option import ALTERNATE, EXCHANGE, FLAG, IGNORED, KIND, LONGEST, MAP, NUMBER, TEXT, WORD, Option

DROP_HEAD: Final = 0
REJECT_PUBLISH: Final = 1
REJECT_PUBLISH_DLX: Final = 2
RING_STRICT: Final = 3
NO_LIMIT: Final = 4
FLOW_CONTROL: Final = 5
SELF_DESTRUCT: Final = 6
"""What a queue does above its limit."""

OVERFLOW: Final[dict[str, Any]] = {
    "drop-head": DROP_HEAD, "reject-publish": REJECT_PUBLISH, "reject-publish-dlx": REJECT_PUBLISH_DLX,
    "ring": DROP_HEAD, "ring-strict": RING_STRICT, "reject": REJECT_PUBLISH, "flow-to-disk": NO_LIMIT,
    "producer-flow-control": FLOW_CONTROL, "none": NO_LIMIT, "self-destruct": SELF_DESTRUCT}

LIFETIME: Final[dict[str, Any]] = {
    "manual": "manual", "permanent": "manual",
    "delete-on-close": "delete-on-close", "delete-on-creating-link-close": "delete-on-close",
    "delete-on-connection-close": "delete-on-connection-close", "delete-on-session-end": "delete-on-session-end",
    "delete-if-unused": "delete-if-unused", "delete-on-no-links": "delete-if-unused",
    "delete-on-no-outbound-links": "delete-if-unused",
    "delete-if-empty": "delete-if-empty", "delete-on-no-messages": "delete-if-empty",
    "delete-if-unused-and-empty": "delete-if-unused-and-empty",
    "delete-on-no-links-or-messages": "delete-if-unused-and-empty"}

EXCLUSIVITY: Final[dict[str, Any]] = {word: word for word in (
    "none", "session", "connection", "container", "principal", "link", "shared-subscription")}

MESSAGE_DURABILITY: Final[dict[str, Any]] = {"default": "default", "always": "always", "never": "never"}

_GROUP_TYPES: Final[dict[str, Any]] = {"none": "none", "standard": "standard", "shared-groups": "shared-groups"}

QUEUE: Final = [
    # What a queue is.
    Option("queue_type", WORD, "What RabbitMQ calls it. A quorum queue is durable and tells delivery counts.",
           rabbit=("x-queue-type",), words={"classic": "classic", "quorum": "quorum"}, default="classic",
           rabbit_words=("classic", "quorum"), wrong_word="\"unsupported queue type '{}'\""),
    Option("queue_mode", WORD, "Makes no difference: any queue leaves in the journal what it need not have in memory.",
           rabbit=("x-queue-mode", "x-policy-queue-mode"), words={"default": "default", "lazy": "lazy"},
           rabbit_words=("default", "lazy"), wrong_word="\"unsupported queue mode '{}'\""),
    Option("description", TEXT, "A remark for people.", qpid=("x-qpid-description",), model=("description",)),
    Option("max_priority", NUMBER, "Messages are delivered in order of priority, up to this one.",
           rabbit=("x-max-priority",), high=255, default=0),
    Option("priorities", NUMBER, "Messages are delivered in order of priority, in this number of levels.",
           qpid=("qpid.priorities", "x-qpid-priorities"), model=("priorities",), high=255, nil=True, default=0),
    Option("fairshare", NUMBER, "Of a level of priority, so many messages at most before lower ones have a turn; "
           "`qpid.fairshare-7` and `x-qpid-fairshare-7` are for level 7 alone.",
           qpid=("qpid.fairshare", "x-qpid-fairshare"), high=1 << 31, nil=True, default=0),
    Option("last_value_key", TEXT, "The header that a message's key is in: a message replaces the one before it that "
           "has the same key.", qpid=("qpid.last_value_queue_key", "qpid.LVQ_key"), model=("lvqKey",)),
    Option("last_value", FLAG, "A last-value queue with `qpid.LVQ_key` as the key, unless another is given.",
           qpid=("qpid.last_value_queue",), model=("lastValueQueue",), default=False),
    Option("last_value_no_browse", FLAG, "The same; a message that was browsed is replaced, too.",
           qpid=("qpid.last_value_queue_no_browse",), default=False),
    Option("sort_key", TEXT, "The header by whose text the messages are in order.", qpid=("qpid.queue_sort_key",),
           model=("sortKey",)),
    Option("browse_only", FLAG, "Whoever consumes only looks: messages stay.",
           qpid=("qpid.browse-only", "qpid.ensure_nondestructive_consumers"), model=("ensureNondestructiveConsumers",),
           default=False),
    Option("default_filters", MAP, "Filters of every consumer that has none of the same name, as a map or as JSON.",
           qpid=("qpid.default_filters",), model=("defaultFilters",)),
    # Message groups.
    Option("group_header", TEXT, "The header that a message's group is in: a group goes to one consumer.",
           qpid=("qpid.group_header_key",), model=("messageGroupKeyOverride",)),
    Option("shared_groups", FLAG, "A consumer has a group only while it has some of its messages.",
           qpid=("qpid.shared_msg_group",), default=False),
    Option("group_type", WORD, "Whether messages have groups, and which: `shared-groups` is the option above.",
           model=("messageGroupType",), words=_GROUP_TYPES),
    Option("group_timestamp", IGNORED, "When the oldest message of a group came is told in any case.",
           qpid=("qpid.group_timestamp",)),
    Option("default_group", TEXT, "The group of messages that name none.", qpid=("qpid.default-message-group",),
           model=("messageGroupDefaultGroup",)),
    # Limits.
    Option("max_length", NUMBER, "The most messages. By its Qpid names, unsettled ones count as well.",
           rabbit=("x-max-length", "x-policy-max-length"), qpid=("qpid.max_count",),
           model=("maximumQueueDepthMessages",), nil=True, default=-1, default_text="no limit"),
    Option("max_bytes", NUMBER, "The most bytes of messages. By its Qpid names, unsettled ones count as well.",
           rabbit=("x-max-length-bytes", "x-policy-max-length-bytes"), qpid=("qpid.max_size",),
           model=("maximumQueueDepthBytes",), unit="bytes", nil=True, default=-1, default_text="no limit"),
    Option("overflow", WORD, "What happens above the limit: the oldest are dropped (`drop-head`, `ring`; `ring_strict` "
           "refuses a message instead while consumers have unsettled ones), new ones are refused "
           "(`reject-publish`, `reject`) and dead-lettered (`reject-publish-dlx`), publishers are held "
           "(`producer_flow_control`), the queue is deleted (`self-destruct`), or nothing: `none`, and `flow_to_disk`, "
           "which every queue does.",
           rabbit=("x-overflow", "x-policy-overflow"), qpid=("qpid.policy_type",),
           model=("overflowPolicy",), words=OVERFLOW,
           rabbit_words=("drop-head", "reject-publish", "reject-publish-dlx"), wrong_word="invalid_overflow",
           default=DROP_HEAD, default_text="as the limit is named: RabbitMQ's `drop-head`, Qpid's `reject`, the "
           "model's `none`"),
    Option("flow_stop_count", NUMBER, "Above so many messages, publishers wait for their confirms, dispositions or "
           "completions; who asks for none is not held.",
           qpid=("qpid.flow_stop_count",), nil=True, default=-1, default_text="never"),
    Option("flow_resume_count", NUMBER, "Down to so many messages, confirms are given again.",
           qpid=("qpid.flow_resume_count",), nil=True, default=-1, default_text="80 % of the stop mark"),
    Option("flow_stop_size", NUMBER, "Above so many bytes of messages, publishers wait for their confirms.",
           qpid=("qpid.flow_stop_size", "x-qpid-capacity"), unit="bytes", nil=True, default=-1, default_text="never"),
    Option("flow_resume_size", NUMBER, "Down to so many bytes, confirms are given again.",
           qpid=("qpid.flow_resume_size", "x-qpid-flow-resume-capacity"), unit="bytes", nil=True, default=-1,
           default_text="80 % of the stop mark"),
    Option("deduplication", FLAG, "A message that the queue has had already is taken, and dropped: it is known by the "
           "header `x-dragoman-id` or `x-deduplication-header`, else by its message-id.",
           rabbit=("x-message-deduplication",), default=False),
    Option("deduplication_window", NUMBER, "How many messages are remembered for that; in a durable queue they are "
           "over restarts.", rabbit=("x-cache-size",), low=1, high=10_000_000, default=10_000),
    # Life.
    Option("expires", NUMBER, "The queue is deleted when nobody has used it for so long.",
           rabbit=("x-expires", "x-policy-expires"),
           unit="ms", low=1, high=LONGEST, default=-1, default_text="never"),
    Option("auto_delete_timeout", NUMBER, "An auto-delete queue is deleted only so long after its last consumer left.",
           qpid=("qpid.auto_delete_timeout",), unit="s", high=LONGEST // 1000, nil=True, default=0),
    Option("lifetime", WORD, "When the queue goes by itself. `delete-on-close` is with the link or the session that "
           "made it.", qpid=("qpid.lifetime_policy", "qpid.lifetime-policy"), model=("lifetimePolicy",),
           words=LIFETIME, default="manual"),
    Option("exclusivity", WORD, "Whose the queue is: who else wants to use it is refused. `link` is one consumer at a "
           "time; `session` is `connection` but in 0-10; `shared-subscription` refuses nobody.",
           qpid=("qpid.exclusivity_policy",), model=("exclusivityPolicy",), words=EXCLUSIVITY, default="none"),
    # Messages in it.
    Option("message_ttl", NUMBER, "The longest that a message stays.", rabbit=("x-message-ttl", "x-policy-message-ttl"),
           model=("maximumMessageTtl",), unit="ms", high=LONGEST, nil=True, default=-1, default_text="for ever"),
    Option("minimum_ttl", NUMBER, "A message's own time to live is at least this.", model=("minimumMessageTtl",),
           unit="ms", high=LONGEST, nil=True, default=-1, default_text="as the message has it"),
    Option("message_durability", WORD, "Whether messages survive the broker: as they say, all or none.",
           qpid=("qpid.message_durability",), model=("messageDurability",), words=MESSAGE_DURABILITY,
           default="default"),
    Option("no_local", FLAG, "What is published by the connection that declared the queue, or that consumes "
           "from it, does not go there.", qpid=("no-local",),
           model=("noLocal",), default=False),
    Option("single_active", FLAG, "One consumer gets all messages, until it goes.",
           rabbit=("x-single-active-consumer",), default=False),
    Option("live_consumers", NUMBER, "1 is the option above.", model=("maximumLiveConsumers",), high=1, default=0),
    Option("trace_id", TEXT, "What comes into the queue gets this id into its header `x-qpid.trace`.",
           qpid=("qpid.trace.id",)),
    Option("trace_exclude", TEXT, "What has one of these ids there, with commas between them, is dropped.",
           qpid=("qpid.trace.exclude",)),
    # What nobody took.
    Option("delivery_limit", NUMBER, "A message that was given back more often is dead-lettered, or dropped.",
           rabbit=("x-delivery-limit", "x-policy-delivery-limit"), default=-1, default_text="no limit"),
    Option("delivery_attempts", NUMBER, "A message that was delivered so often, and given back, is dead-lettered, "
           "or dropped.", qpid=("x-qpid-maximum-delivery-count",), model=("maximumDeliveryAttempts",), high=65536,
           nil=True, default=-1, default_text="no limit"),
    Option("dead_letter_exchange", EXCHANGE, "Where messages go, with their history, that were rejected or have "
           "expired, or that the queue had no room for.",
           rabbit=("x-dead-letter-exchange", "x-policy-dead-letter-exchange")),
    Option("dead_letter_routing_key", TEXT, "The routing key that they get there.",
           rabbit=("x-dead-letter-routing-key", "x-policy-dead-letter-routing-key"), default_text="their own"),
    Option("alternate", ALTERNATE, "Where rejected and over-delivered messages go unchanged, and what is left when "
           "the queue is deleted.",
           qpid=("alternate-exchange", "alternateExchange"), model=("alternateBinding",)),
    Option("dead_letter_queue", FLAG, "The same, with a queue that is made for it: the queue's name and `_DLQ`, bound "
           "to the exchange `<name>_DLE`.", qpid=("x-qpid-dlq-enabled",), default=False),
    # To see.
    Option("alert_count", NUMBER, "So many messages are worth a warning.",
           qpid=("qpid.alert_count", "qpid.alert_count_up", "x-qpid-maximum-message-count"),
           model=("alertThresholdQueueDepthMessages",), nil=True, default=-1, default_text="never"),
    Option("alert_count_down", NUMBER, "Down to so many, it is over.", qpid=("qpid.alert_count_down",), nil=True,
           default=-1, default_text="half of the above"),
    Option("alert_size", NUMBER, "So many bytes of messages are worth a warning.",
           qpid=("qpid.alert_size", "qpid.alert_size_up", "x-qpid-maximum-queue-depth"),
           model=("alertThresholdQueueDepthBytes",), unit="bytes", nil=True, default=-1, default_text="never"),
    Option("alert_size_down", NUMBER, "Down to so many, it is over.", qpid=("qpid.alert_size_down",), unit="bytes",
           nil=True, default=-1, default_text="half of the above"),
    Option("alert_message_size", NUMBER, "A message of this size is worth a warning.",
           qpid=("x-qpid-maximum-message-size",), model=("alertThresholdMessageSize",), unit="bytes", nil=True,
           default=-1, default_text="never"),
    Option("alert_message_age", NUMBER, "When the oldest message is here for so long, it is worth a warning.",
           qpid=("x-qpid-maximum-message-age",), model=("alertThresholdMessageAge",), unit="ms", nil=True, default=-1,
           default_text="never"),
    Option("alert_repeat_gap", NUMBER, "At least this between two warnings of one kind. By its name `qpid.…` in "
           "seconds, by the others in ms.",
           qpid=("x-qpid-minimum-alert-repeat-gap", "qpid.alert_repeat_gap"), model=("alertRepeatGap",), unit="ms",
           high=LONGEST, default=-1, default_text="30 s"),
    # Known, and without effect.
    Option("journal_files", IGNORED, "The journal sizes itself.",
           qpid=("qpid.file_count", "qpid.file_size", "qpid.efp_partition_num", "qpid.efp_pool_file_size")),
    Option("paging", IGNORED, "Every queue leaves in the journal what it need not have in memory.",
           qpid=("qpid.paging", "qpid.max_pages_loaded", "qpid.page_factor", "qpid.persist_last_node")),
    Option("replication", IGNORED, "Belongs to qpidd's clusters.",
           qpid=("qpid.replicate", "qpid.queue_event_generation", "qpid.insert_left", "qpid.optimistic_consume")),
    Option("message_sequence", IGNORED, "Messages are not changed by the queue that they are in.",
           qpid=("qpid.queue_msg_sequence",)),
]

EXCHANGE_OPTIONS: Final = [
    Option("alternate", EXCHANGE, "Where messages go that no binding of this exchange takes.",
           rabbit=("alternate-exchange", "x-policy-alternate-exchange")),
    Option("delayed_kind", KIND, "How an exchange of the type `x-delayed-message` routes, when it is time.",
           rabbit=("x-delayed-type",)),
    Option("hash_header", TEXT, "The header that an exchange of the type `x-consistent-hash` looks at.",
           rabbit=("hash-header",), default_text="the routing key"),
    Option("hash_property", TEXT, "The property that it looks at.", rabbit=("hash-property",)),
    Option("initial_value", FLAG, "A new binding gets the last message that came here, if it fits.",
           qpid=("qpid.ive",), default=False),
    Option("sequence", FLAG, "Messages get their number as the header (in 1.0 the message annotation) "
           "`qpid.msg_sequence`.",
           qpid=("qpid.msg_sequence",), default=False),
    Option("sequence_counter", NUMBER, "The number before the first.", qpid=("qpid.sequence_counter",), high=1 << 62,
           default=0),
    Option("replication", IGNORED, "Belongs to qpidd's clusters.", qpid=("qpid.replicate",)),
]

BINDING: Final = [
    Option("match", KIND, "Of a headers exchange: whether all of the arguments must fit, or any: `all` `any` "
           "`all-with-x` `any-with-x`.",
           rabbit=("x-match",), default_text="`all`"),
    Option("selector", TEXT, "Only messages that this JMS selector fits go this way.",
           rabbit=("x-filter-jms-selector",)),
    Option("not_from", TEXT, "The container whose messages do not go this way.", rabbit=("x-filter-no-local",)),
    Option("replacement_key", IGNORED, "A message keeps the routing key that its publisher gave it.",
           qpid=("x-replacement-routing-key",)),
    Option("no_local", IGNORED, "Who publishes a message is told apart for `x-filter-no-local` alone.",
           qpid=("x-qpid-no-local",)),
    Option("exclusive", FLAG, "Of a direct exchange: this binding takes the place of all others of its routing key.",
           qpid=("qpid.exclusive-binding",), default=False),
    Option("federation", IGNORED, "Belongs to qpidd's federation.",
           qpid=("qpid.fed.op", "qpid.fed.tags", "qpid.fed.origin")),
]

CONSUMER: Final = [
    Option("priority", NUMBER, "Consumers of higher priority come first, as long as they are ready.",
           rabbit=("x-priority",), low=-1 << 63, default=0),
    Option("selector", TEXT, "Only messages that this JMS selector fits.",
           rabbit=("x-filter-jms-selector",), qpid=("x-apache-selector",)),
    Option("replay_period", NUMBER, "Begin with the messages of the last so many seconds.",
           qpid=("x-qpid-replay-period",), unit="s", high=LONGEST // 1000, default=-1, default_text="with all"),
    Option("no_local", IGNORED, "A queue has this option, and in 1.0 a consumer; here it is left alone, as RabbitMQ "
           "does.", qpid=("no-local", "x-qpid-no-local")),
    Option("synchronisation", IGNORED, "Completions are told as they are due.", qpid=("qpid.sync_frequency",)),
]

QUEUE_NAMES: Final = {name: option for option in QUEUE for name in option.names()}
EXCHANGE_NAMES: Final = {name: option for option in EXCHANGE_OPTIONS for name in option.names()}
BINDING_NAMES: Final = {name: option for option in BINDING for name in option.names()}
CONSUMER_NAMES: Final = {name: option for option in CONSUMER for name in option.names()}
"""The options by each of their names."""

_KNOWN_BEFORE: Final = ("qpid.group_header_key", "qpid.shared_msg_group")
_OURS: Final = ("qpid.", "x-qpid-")

POLICY: Final = "x-policy-"
"""How arguments begin that were a policy of RabbitMQ's: whoever declares a queue or an exchange again does not know of
them. Beside an argument of the client's own, the lower number holds, and otherwise the client's."""


class Given:
    """An option that somebody has given a value."""

    __slots__ = ("option", "key", "raw", "value")

    def __init__(self, option: Option, key: str, raw: Any, value: Any) -> None:
        self.option = option
        self.key = key
        self.raw = raw
        self.value = value


def given(arguments: dict[str, Any], table: dict[str, Option], what: str) -> dict[str, Given]:
    """The options among the arguments, by canonical name. Names that are no option are left alone, as RabbitMQ does,
    unless they look like Qpid's: a misspelt option is an error.

    what: whose arguments, for error texts. Raises: PreconditionFailed.
    """
    found: dict[str, Given] = {}
    for key, raw in arguments.items():
        if key.startswith(POLICY):
            continue
        option = table.get(key)
        if option is None:
            if key.startswith(_OURS) and not (table is QUEUE_NAMES and fairshare_level(key) >= 0):
                raise PreconditionFailed(f"invalid arg '{key}' for {what}: there is no such option")
            continue
        value = option.read(key, raw, what)
        known = found.get(option.name)
        if known is None:
            found[option.name] = Given(option, key, raw, value)
        elif not same(known.value, value):
            raise PreconditionFailed(f"invalid arg '{key}' for {what}: it contradicts '{known.key}'")
    for key, raw in arguments.items():
        if key.startswith(POLICY):
            _add_policy(found, key, raw, table, what)
    return found


def _add_policy(found: dict[str, Given], key: str, raw: Any, table: dict[str, Option], what: str) -> None:
    option = table.get(key)
    if option is None:
        raise PreconditionFailed(f"invalid arg '{key}' for {what}: there is no such option")
    value = option.read(key, raw, what)
    known = found.get(option.name)
    if known is None or (option.kind == NUMBER and not 0 <= known.value <= value):
        found[option.name] = Given(option, key, raw, value)


def without_policies(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a client gave, or could have given."""
    return {key: value for key, value in arguments.items() if not key.startswith(POLICY)}


def without_qpids(arguments: dict[str, Any], table: dict[str, Option]) -> dict[str, Any]:
    """What version 0.1.0, which knew two of Qpid's names, had looked at: what a store of its time has otherwise may be
    anything."""
    return {key: value for key, value in arguments.items() if key in _KNOWN_BEFORE
            or (key in table[key].rabbit if key in table else not key.startswith(_OURS))}


def fairshare_level(key: str) -> int:
    """The level of priority that a name such as `qpid.fairshare-7` is about; -1 when it is no such name."""
    for prefix in ("qpid.fairshare-", "x-qpid-fairshare-"):
        if key.startswith(prefix) and len(key) <= len(prefix) + 3 and key[len(prefix):].isdecimal():
            return int(key[len(prefix):])
    return -1


def inequivalent(name: str, received: Any, current: Any, what: str) -> PreconditionFailed:
    """The error that something is declared again and is different, in RabbitMQ's words; None for what is not set."""
    both = received is not None and current is not None
    return PreconditionFailed(f"inequivalent arg '{name}' for {what}: received {_shown(received, both)} "
                              f"but current is {_shown(current, both)}")


def _shown(value: Any, briefly: bool) -> str:
    if value is None:
        return "none"
    written = str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{written}'" if briefly else f"the value '{written}' of type '{kind(value)}'"
