"""MQTT's topics and the routing keys of topic exchanges, each written as the other.

    topic a/b/c      key a.b.c          filter a/+/#     pattern a.*.#

A topic may hold what separates words in a key, and a key what may not stand in a topic. Such a character is written as
in URLs, with `%` and its code, and what looks like that already gets `25` behind its `%`. So nothing is lost:
`topic_of(key_of(topic)) == topic` and `key_of(topic_of(key)) == key`, for all topics and keys.
"""

from __future__ import annotations

import re
from typing import Final

EXCHANGE: Final = "amq.topic"
"""Where MQTT's messages are published, and its filters bound."""

_WRITTEN = "%(?:25)*(?:2E|2F|2B|23|00)"
_IN_TOPIC: Final = re.compile(f"[/.]|{_WRITTEN}")
_IN_KEY: Final = re.compile(f"[./+#\x00]|{_WRITTEN}")

_AS_KEY: Final = {"/": ".", ".": "%2E", "%2F": "/", "%2B": "+", "%23": "#", "%00": "\x00"}
_AS_TOPIC: Final = {written: text for text, written in _AS_KEY.items()}


def key_of(topic: str) -> str:
    """The routing key that says a topic (or a topic filter without wildcards)."""
    if "." not in topic and "%" not in topic:
        return topic.replace("/", ".")
    return _IN_TOPIC.sub(lambda found: _other(found[0], _AS_KEY, found[0].endswith("2E")), topic)


def topic_of(key: str) -> str:
    """The topic that says a routing key. What of a key is no UTF-8 becomes `?`."""
    topic = _IN_KEY.sub(lambda found: _other(found[0], _AS_TOPIC, not found[0].endswith("2E")), key)
    return topic if topic.isascii() else topic.encode("utf-8", "replace").decode()


def pattern_of(topic_filter: str) -> str:
    """The pattern that a topic exchange takes for a topic filter. It fits all topics that the filter fits, and may fit
    more: topics that begin with `$` (4.7.2 of MQTT 5.0), or those beside a level that is called `*`."""
    return ".".join("*" if level == "+" else level if level == "#" else key_of(level)
                    for level in topic_filter.split("/"))


def fits(topic_filter: str, topic: str) -> bool:
    """Whether a filter without a share's name fits a topic (4.7 of MQTT 5.0)."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    levels = topic.split("/")
    wanted = topic_filter.split("/")
    for at, want in enumerate(wanted):
        if want == "#":
            return True
        if at >= len(levels) or want != "+" and want != levels[at]:
            return False
    return len(wanted) == len(levels)


def _other(found: str, table: dict[str, str], longer: bool) -> str:
    """What is found in one, as it is in the other."""
    known = table.get(found)
    if known is not None:
        return known
    return f"%25{found[1:]}" if longer else f"%{found[3:]}"
