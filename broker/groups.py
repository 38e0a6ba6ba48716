"""Message groups: the messages of one group go to one consumer at a time, in order.

Exclusive groups (Broker-J's default, and what JMS clients know) are a consumer's for as long as it lives. Shared ones
(qpidd's, and Broker-J's SHARED_GROUPS) are so only while it has some of their messages unsettled. Messages without a
group go to anybody where groups are exclusive; where they are shared, those are a group of their own.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

from broker.entry import Entry
from broker.message import Message

if TYPE_CHECKING:
    from broker.consumer import Consumer
    from broker.queue import Queue
    from broker.queue_settings import QueueSettings

GROUP_ID_NAMES: Final = ("JMSXGroupID", "group-id", "group_id", "amqp.group-id")
"""Header names that mean the message's own group-id."""

_NO_GROUP: Final = "qpid.no-group"
"""The shared group of messages that name none, unless the queue names another."""

_BUCKETS: Final = 4096
"""How many exclusive groups are told apart: names are not kept for ever. Groups that fall together share a consumer."""


class Group:
    """Who has a group. `passed`: the lowest id of the entries by lane that others had to leave to him; 0 for none."""

    __slots__ = ("owner", "unsettled", "passed")

    def __init__(self, owner: Consumer, lanes: int) -> None:
        self.owner = owner
        self.unsettled = 0
        self.passed = [0] * lanes


class Groups:
    """The groups of one queue that somebody has."""

    __slots__ = ("queue", "header", "shared", "default", "_taken")

    def __init__(self, queue: Queue, header: str, shared: bool, default: str) -> None:
        """default: the group of messages that name none, where groups are shared."""
        self.queue = queue
        self.header = "" if header in GROUP_ID_NAMES else header
        self.shared = shared
        self.default = default
        self._taken: dict[Any, Group] = {}

    def may_have(self, entry: Entry, message: Message, consumer: Consumer) -> bool:
        """Whether the entry's group is the consumer's, or nobody's."""
        key = self._key(message)
        group = self._taken.get(key) if key is not None else None
        if group is None or group.owner is consumer:
            return True
        passed = group.passed[entry.lane]
        if not passed or entry.id < passed:
            group.passed[entry.lane] = entry.id
        return False

    def acquired(self, entry: Entry, message: Message, consumer: Consumer) -> None:
        """A consumer is about to be given the entry: its group is the consumer's from now on."""
        key = self._key(message)
        if key is None:
            return
        group = self._taken.get(key)
        if group is None:
            group = self._taken[key] = Group(consumer, len(self.queue.lanes))
        group.unsettled += 1
        entry.group = key

    def settled(self, entry: Entry) -> bool:
        """An entry is no longer with the consumer that acquired it. Gives whether there is something for others now."""
        key, entry.group = entry.group, None
        group = self._taken.get(key) if key is not None else None
        if group is None:
            return False
        group.unsettled -= 1
        return group.unsettled <= 0 and (self.shared or not group.owner.attached) and self._free(key, group)

    def left(self, consumer: Consumer) -> bool:
        """A consumer takes no more; what it has still to settle keeps its groups from the others. Gives the same."""
        found = False
        for key, group in list(self._taken.items()):
            if group.owner is consumer and group.unsettled <= 0 and self._free(key, group):
                found = True
        return found

    def _free(self, key: Any, group: Group) -> bool:
        """A group is nobody's: what others had to pass by is looked at again. Gives whether there is any."""
        del self._taken[key]
        if not any(group.passed):
            return False
        for cursor in self.queue.consumers.cursors:
            cursor.go_back(group.passed)
        return True

    def _key(self, message: Message) -> Any:
        """What tells the message's group from others; None when it has none."""
        view = message.view()
        name = view.headers.get(self.header) if self.header else view.group_id or view.headers.get("JMSXGroupID")
        if name is None or name == "":
            return self.default if self.shared else None
        name = str(name)
        return name if self.shared else zlib.crc32(name.encode("utf-8", "surrogateescape")) % _BUCKETS


def groups_of(queue: Queue, settings: QueueSettings) -> Groups | None:
    """The groups of a queue, if it is to have any: by a header, or by the message's own group-id."""
    header = settings.group_header
    if header is None and (settings.shared_groups or settings.group_type == "standard"):
        header = GROUP_ID_NAMES[0]
    if header is None or settings.group_type == "none":
        return None
    return Groups(queue, header, settings.shared_groups, settings.default_group or _NO_GROUP)
