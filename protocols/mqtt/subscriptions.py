"""Subscriptions: what a client asks for (3.8), as bindings, and which of them a message is for.

A binding has the options as arguments, so they come back with the topology, and operators see them. Topic exchanges
may give a queue more than its filters fit (protocols/topics.py), so the session looks once more at what is delivered.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.mqtt.codec import varint
from protocols.mqtt.errors import TOPIC_FILTER_INVALID, MqttError
from protocols.topics import EXCHANGE, fits, pattern_of, topic_of

SYSTEM_EXCHANGE: Final = "amq.mqtt.sys"
"""Where `$SYS/...` is published, and filters that begin so are bound."""

_SHARE: Final = "$share/"
_MOST_TOPICS: Final = 1000
"""Matches that a session remembers. When there are more, all are forgotten and found again."""

_NO_LOCAL: Final = 0x04
_RETAIN_AS_PUBLISHED: Final = 0x08


class Subscription:
    """One topic filter with its options."""

    __slots__ = ("text", "group", "filter", "qos", "no_local", "retain_as_published", "identifier")

    def __init__(self, text: str, qos: int, no_local: bool, retain_as_published: bool, identifier: int) -> None:
        self.text = text  # as in SUBSCRIBE
        self.group = ""  # of a shared one
        self.filter = text
        if text.startswith(_SHARE):
            self.group, _, self.filter = text[len(_SHARE):].partition("/")
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.identifier = identifier  # 0 for none

    def exchange(self) -> str:
        return SYSTEM_EXCHANGE if self.filter == "$SYS" or self.filter.startswith("$SYS/") else EXCHANGE

    def pattern(self) -> str:
        return pattern_of(self.filter)

    def arguments(self) -> dict[str, Any]:
        """Those of its binding."""
        found: dict[str, Any] = {"x-mqtt-filter": self.text, "x-mqtt-qos": self.qos}
        if self.no_local:
            found["x-mqtt-no-local"] = True
        if self.retain_as_published:
            found["x-mqtt-retain-as-published"] = True
        if self.identifier:
            found["x-mqtt-subscription-identifier"] = self.identifier
        return found


def requested(text: str, options: int, identifier: int) -> Subscription:
    """What SUBSCRIBE asks for; options: as in the packet. Raises: MqttError for a filter that is too long for us."""
    found = Subscription(text, options & 3, bool(options & _NO_LOCAL), bool(options & _RETAIN_AS_PUBLISHED),
                         identifier)
    if len(found.pattern().encode()) > 255:
        raise MqttError(TOPIC_FILTER_INVALID, "a topic filter has at most 255 bytes here")
    return found


def from_arguments(arguments: dict[str, Any]) -> Subscription | None:
    """What the arguments of a binding say; None: it is not one of a subscription."""
    text = arguments.get("x-mqtt-filter")
    qos = arguments.get("x-mqtt-qos")
    identifier = arguments.get("x-mqtt-subscription-identifier", 0)
    if not isinstance(text, str) or not isinstance(qos, int) or not 0 <= qos <= 2 or not isinstance(identifier, int):
        return None
    return Subscription(text, qos, arguments.get("x-mqtt-no-local") is True,
                        arguments.get("x-mqtt-retain-as-published") is True, identifier)


class Match:
    """What of a session's subscriptions a topic fits: together they make one delivery (3.3.4)."""

    __slots__ = ("qos", "identifiers", "retain_as_published", "selective", "own")

    def __init__(self, found: list[Subscription]) -> None:
        self.qos = max([each.qos for each in found])
        self.identifiers = b"".join([b"\x0b" + varint(each.identifier) for each in found if each.identifier])
        self.retain_as_published = any([each.retain_as_published for each in found])
        self.selective = any([each.no_local for each in found])  # of the client's own messages, less is for it:
        self.own: Match | None = None
        if self.selective:
            others = [each for each in found if not each.no_local]
            if others:
                self.own = Match(others)


class Subscriptions:
    """All of a session, by the text of their filters."""

    __slots__ = ("all", "shared", "_topics")

    def __init__(self) -> None:
        self.all: dict[str, Subscription] = {}  # but shared ones
        self.shared: dict[str, Subscription] = {}
        self._topics: dict[str, Match | None] = {}  # by routing key

    def __len__(self) -> int:
        return len(self.all) + len(self.shared)

    def get(self, text: str) -> Subscription | None:
        return self.all.get(text) or self.shared.get(text)

    def add(self, subscription: Subscription) -> None:
        (self.shared if subscription.group else self.all)[subscription.text] = subscription
        self._topics.clear()

    def remove(self, text: str) -> None:
        self.all.pop(text, None)
        self.shared.pop(text, None)
        self._topics.clear()

    def match(self, key: str) -> Match | None:
        """What the topic fits that a routing key says; None: nothing."""
        known = self._topics.get(key)
        if known is None and key not in self._topics:
            topic = topic_of(key)
            found = [each for each in self.all.values() if fits(each.filter, topic)]
            known = Match(found) if found else None
            if len(self._topics) >= _MOST_TOPICS:
                self._topics.clear()
            self._topics[key] = known
        return known
