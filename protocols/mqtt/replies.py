"""Where answers are to go, as a response topic and as an address (TRANSLATION.md, sections 1 and 3).

    a/b                  amq.topic/a.b        what anybody subscribes to
    $queue/NAME          NAME                 a queue of the broker's: the nameless exchange
    $exchange/NAME/KEY   NAME/KEY             another exchange

So that a client of MQTT can answer one of AMQP's, the last two are topics that may be published to.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from protocols.reply_to import join_address, split_address
from protocols.topics import EXCHANGE, key_of, topic_of

_QUEUE: Final = "$queue/"
_EXCHANGE: Final = "$exchange/"
_AWKWARD: Final = re.compile("[%+#\x00-\x1f\x7f]")
_WRITTEN: Final = re.compile("%[0-9A-F]{2}")


def route_of(topic: str) -> tuple[str, str]:
    """The exchange and the routing key that a topic is published to."""
    if topic[:1] == "$":
        if topic.startswith(_QUEUE):
            return "", _read(topic[7:])
        if topic.startswith(_EXCHANGE):
            name, _, key = topic[10:].partition("/")
            return _read(name), _read(key)
    return EXCHANGE, key_of(topic)


def leads_elsewhere(topic: str) -> bool:
    """Whether it is published to another exchange than `amq.topic`, by its name."""
    return topic.startswith((_QUEUE, _EXCHANGE))


def response_topic(exchange: str, key: str) -> str:
    """The topic that is published to such an exchange with such a key."""
    if exchange == EXCHANGE:
        return topic_of(key)
    if not exchange:
        return _QUEUE + _written(key)
    return f"{_EXCHANGE}{_written(exchange).replace('/', '%2F')}/{_written(key)}"


def reply_address(topic: str) -> str:
    """The address that a response topic means."""
    exchange, key = route_of(topic)
    address = join_address(exchange, key)
    if split_address(address) == (exchange, key):
        return address
    if exchange:
        return f"/exchanges/{quote(exchange, safe='')}/{quote(key, safe='')}"
    return f"/queues/{quote(key, safe='')}"


def _written(name: str) -> str:
    """A name without the characters that no topic may have."""
    return _AWKWARD.sub(lambda found: f"%{ord(found[0]):02X}", name)


def _read(name: str) -> str:
    return _WRITTEN.sub(lambda found: chr(int(found[0][1:], 16)), name)
