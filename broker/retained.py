"""Retained messages: of each topic, which is a routing key of `amq.topic`, the last message that was published to be
retained (3.3.1.3 of MQTT 5.0), for those who subscribe later.

They are the entries of a real queue, `amq.mqtt.retained`, that a virtual host has from its first retained message on:
it keeps the last one of each key, durably whatever the message says, and can be browsed by readers of any dialect.
Beside it is a trie of the topics, found again after a restart. Whoever publishes in AMQP asks for it by the header or
application property `x-mqtt-retain` (true); a message with an empty body removes what is retained.

Only what a client publishes to `amq.topic` is retained: not what comes there by another exchange, and no dead letters.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from broker.clock import Timer
from broker.entry import AVAILABLE, Entry
from broker.errors import AccessRefused
from broker.message import AMQP10, CONVERTERS, MQTT, Message
from broker.ordered import OrderedLane, Rank
from broker.queue_settings import QueueSettings
from broker.view import BYTES, NOTHING, VALUE
from store.journal import ShardLog

if TYPE_CHECKING:
    from broker.queue import Queue
    from broker.virtualhost import VirtualHost

QUEUE: Final = "amq.mqtt.retained"
EXCHANGE: Final = "amq.topic"
"""What is published here may be retained."""

HEADER: Final = "x-mqtt-retain"
_HEADER_BYTES: Final = b"x-mqtt-retain"
_RETAIN: Final = 1  # of the first byte of a PUBLISH

ARGUMENTS: Final = {"qpid.browse-only": True, "qpid.message_durability": "always"}
"""Of the queue, as far as arguments can say what it is."""

AT_ONCE: Final = 500
"""Topics that are looked at, or entries that are dropped, in one go."""


def settings() -> QueueSettings:
    """Of the queue."""
    found = QueueSettings()
    found.retains = found.browse_only = True
    found.message_durability = "always"
    return found


def asks(message: Message) -> bool:
    """Whether the publisher wants the message retained. Asked of all that is published to `amq.topic`."""
    if message.dialect == MQTT:
        return message.native[0] & _RETAIN != 0
    if message.native.find(_HEADER_BYTES) < 0:
        return False
    value = message.view().headers.get(HEADER)
    return value == "true" if isinstance(value, str) else value == 1


def retain(host: VirtualHost, message: Message) -> None:
    """Retain a message that asks for it, or remove what is retained when it is empty, before it is in any other queue.
    It is pending until that is durable."""
    lane = host.retained
    if _is_empty(message):
        if lane is not None and lane.remove(message.address.routing_key):
            message.pending += 1
            host.broker.log.commit(message.settle_pending)
        return
    if lane is None:
        queue, _ = host.declare_queue(QUEUE, True, False, False, ARGUMENTS, None, True)
        lane = host.retained = lane_of(queue)
    message.shared = True
    lane.queue.enqueue(message)


def lane_of(queue: Queue) -> RetainedLane:
    lane = queue.lanes[0]
    assert isinstance(lane, RetainedLane)
    return lane


def check_open(queue: Queue) -> None:
    """Raises: AccessRefused when the queue is that of the retained messages, which nobody but the broker changes."""
    if queue.settings.retains:
        raise refusal(repr(queue))


def refusal(what: str) -> AccessRefused:
    return AccessRefused(f"{what} is the broker's own: it holds what is published to exchange '{EXCHANGE}' to be "
                         "retained, and can only be browsed")


def _is_empty(message: Message) -> bool:
    if message.dialect != AMQP10:
        return message.size == 0
    if message.size > 64:
        return False
    view = CONVERTERS[AMQP10].model(message)
    if view.kind == BYTES:
        return not any(view.body)
    return view.kind == NOTHING or view.kind == VALUE and (view.value is None or view.value in ("", b""))


class TopicNode:
    """Where the words of a topic so far lead to."""

    __slots__ = ("children", "entry")

    def __init__(self) -> None:
        self.children: dict[str, TopicNode] | None = None
        self.entry: Entry | None = None


class RetainedLane(OrderedLane):
    """The entries of the queue, in order of arrival, and by their topics. `Entry.key` is the routing key."""

    __slots__ = ("root", "_expiring", "_timer")

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue)
        self.root = TopicNode()
        self._expiring: list[tuple[int, int]] = []  # a heap: when entries expire, ms since the epoch, and their ids
        self._timer: Timer | None = None

    def matching(self, pattern: str) -> Iterator[Message | None]:
        """The messages that are retained now and whose routing key a pattern fits, by and by: None in between, when
        there is much to look at or to read, and other work may be due.

        What is replaced or removed until its turn comes is left out: who asked as he subscribed gets the new one as
        he gets all that is published. A message is not in memory for longer than its turn, but may be put into queues.
        """
        queue = self.queue
        last_id = queue.log.last_id
        number = 0
        for entry in _walk(self.root, pattern.split(".") if pattern else []):
            number += 1
            if number % AT_ONCE == 0:
                yield None
            if entry is None or entry.id > last_id or entry.state != AVAILABLE \
                    or 0 < entry.expiry <= queue.clock.now:
                continue
            message = entry.message
            if message is None:
                if not queue.load(entry):
                    self._missing(entry)
                    continue
                message = entry.message
                queue.unload(entry)
            yield message

    def _missing(self, entry: Entry) -> None:
        """The journal cannot give an entry's message, and `load` has forgotten the entry."""
        if self.discard(entry, True):
            self.queue.ready -= 1
            self.queue.ready_bytes -= entry.size

    def remove(self, routing_key: str) -> bool:
        """Drop what is retained of a topic. Gives whether there was something."""
        node = self._find(routing_key)
        entry = None if node is None else node.entry
        if entry is None or not self.discard(entry, entry.message is None):
            return False
        self.queue.drop(entry, "removed")
        return True

    def _find(self, routing_key: str) -> TopicNode | None:
        node: TopicNode | None = self.root
        for word in routing_key.split(".") if routing_key else []:
            if node is None or node.children is None:
                return None
            node = node.children.get(word)
        return node

    # What a lane with an order of its own decides.

    def rank(self, entry: Entry) -> Rank:
        return "", entry.id

    def arrived(self, entry: Entry, message: Message) -> None:
        key = entry.key = message.address.routing_key
        node = self.root
        for word in key.split(".") if key else []:
            children = node.children
            if children is None:
                children = node.children = {}
            child = children.get(word)
            if child is None:
                child = children[word] = TopicNode()
            node = child
        old = node.entry
        node.entry = entry
        if old is not None and self.discard(old, old.message is None):
            self.queue.drop(old, "replaced")
        if entry.expiry:
            self._expect(entry)

    def gone(self, entry: Entry) -> None:
        """Take it out of the trie, with the branch that it leaves bare."""
        if entry.key is None:  # its message could not be read
            return
        words = entry.key.split(".") if entry.key else []
        path = [self.root]
        for word in words:
            children = path[-1].children
            child = None if children is None else children.get(word)
            if child is None:
                return
            path.append(child)
        if path[-1].entry is not entry:
            return
        path[-1].entry = None
        for depth in range(len(words), 0, -1):
            above = path[depth - 1].children
            if path[depth].entry is not None or path[depth].children or above is None:
                break
            del above[words[depth - 1]]

    def clear(self, log: ShardLog) -> Iterator[Entry]:
        self.root = TopicNode()
        self._expiring = []
        return super().clear(log)

    # What expires goes when its time has come, wherever it stands.

    def _expect(self, entry: Entry) -> None:
        heap = self._expiring
        if len(heap) > 2 * len(self.index.by_id) + AT_ONCE:  # most of it was replaced since
            heap = self._expiring = [(other.expiry, other.id) for other in self.index.all() if other.expiry]
            heapq.heapify(heap)
        heapq.heappush(heap, (entry.expiry, entry.id))
        if heap[0][1] == entry.id:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.queue.host.broker.timers.at(entry.expiry, self._drop_expired)

    def _drop_expired(self) -> None:
        self._timer = None
        queue = self.queue
        heap = self._expiring
        now = queue.clock.now
        for _ in range(AT_ONCE):
            if not heap or heap[0][0] > now:
                break
            entry = self.index.by_id.get(heapq.heappop(heap)[1])
            if entry is not None and self.discard(entry, entry.message is None):
                queue.drop(entry, "expired")
        if heap:
            self._timer = queue.host.broker.timers.at(max(heap[0][0], now), self._drop_expired)


def _walk(root: TopicNode, words: list[str]) -> Iterator[Entry | None]:
    """The entries below a node that the rest of a pattern fits, each once, as they are when their turn comes; None
    for each step that found nothing."""
    # Only with more than one `#` are there several ways to one node.
    seen: set[tuple[TopicNode, int]] | None = set() if words.count("#") > 1 else None
    todo = [(root, 0)]
    while todo:
        node, at = todo.pop()
        if seen is not None:
            if (node, at) in seen:
                continue
            seen.add((node, at))
        if at == len(words):
            yield node.entry
            continue
        word = words[at]
        if word == "#":
            if at + 1 == len(words):
                yield node.entry
            else:
                todo.append((node, at + 1))
                yield None
            if node.children is not None:
                todo.extend([(child, at) for child in node.children.values()])
        elif node.children is not None:
            if word == "*":
                todo.extend([(child, at + 1) for child in node.children.values()])
            else:
                child = node.children.get(word)
                if child is not None:
                    todo.append((child, at + 1))
            yield None
