"""Shared subscriptions, `$share/GROUP/FILTER` (4.8.2): a queue that all sessions of the group consume from.

It lives as long as one session has the subscription. What of a session's subscriptions is no durable binding of its
own queue is kept in the journal with the session:

    "s" text of the filter -> the arguments that a binding would have
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from broker.argument_values import dump, load
from broker.errors import BrokerError
from broker.keeper import Keeper
from broker.message import Message
from broker.queue import Queue
from broker.virtualhost import VirtualHost
from protocols.mqtt.errors import IMPLEMENTATION_SPECIFIC, TOPIC_FILTER_INVALID, MqttError
from protocols.mqtt.subscriptions import Subscription, from_arguments

if TYPE_CHECKING:
    from protocols.mqtt.session import Session

PREFIX: Final = "mqtt-share:"
SUBSCRIPTION: Final = b"s"


class Share(Keeper):
    """A group's queue, and the sessions that share it."""

    __slots__ = ("shares", "queue", "text", "members", "_ending")

    def __init__(self, shares: Shares, queue: Queue, text: str) -> None:
        self.shares = shares
        self.queue = queue
        self.text = text
        self.members: dict[Session, None] = {}
        self._ending = False
        queue.keeper = self

    def wants(self, message: Message) -> bool:
        return message.durable or len(self.queue.consumers) > 0

    def leave(self, session: Session) -> None:
        self.members.pop(session, None)
        if not self.members and not self._ending:
            self._ending = True
            self.queue.host.delete_queue(self.queue)

    def queue_closed(self) -> None:
        """Somebody has deleted it: nobody shares it any more."""
        self._ending = True
        self.shares.forget(self)
        for session in list(self.members):
            session.share_ended(self.text)


class Shares:
    """All groups of one virtual host."""

    __slots__ = ("host", "all")

    def __init__(self, host: VirtualHost) -> None:
        self.host = host
        self.all: dict[str, Share] = {}  # by the text of the filter

    def join(self, session: Session, subscription: Subscription) -> tuple[Share, bool]:
        """The group of a subscription, with the session in it, and whether to wait for the store. Raises: MqttError."""
        share = self.all.get(subscription.text)
        wait = False
        if share is None:
            share, wait = self._make(subscription)
        share.members[session] = None
        return share, wait

    def _make(self, subscription: Subscription) -> tuple[Share, bool]:
        name = queue_name(subscription)
        if len(name) > 255:
            raise MqttError(TOPIC_FILTER_INVALID, "a shared subscription has at most some 240 bytes here")
        known = self.host.queues.get(name)
        if known is not None and (not known.durable or known.keeper is not None):
            raise MqttError(IMPLEMENTATION_SPECIFIC, f"there is a queue '{name}' of somebody else's")
        try:
            queue, _ = (known, False) if known is not None else self.host.declare_queue(name, True, False, False, {},
                                                                                        None)
            self.host.bind(self.host.exchange(subscription.exchange()), queue, subscription.pattern(),
                           {"x-mqtt-filter": subscription.text})
        except BrokerError as error:
            raise MqttError(IMPLEMENTATION_SPECIFIC, str(error)) from None
        share = self.all[subscription.text] = Share(self, queue, subscription.text)
        return share, True

    def leave(self, session: Session, text: str) -> None:
        share = self.all.get(text)
        if share is not None:
            share.leave(session)

    def forget(self, share: Share) -> None:
        if self.all.get(share.text) is share:
            del self.all[share.text]

    def drop_unused(self) -> None:
        """After a restart: delete the queues of groups that had no session that outlived it."""
        for queue in list(self.host.queues.values()):
            if queue.name.startswith(PREFIX) and queue.durable and queue.keeper is None:
                if any("x-mqtt-filter" in binding.arguments for binding in self.host.bound_to.get(queue, {}).values()):
                    self.host.delete_queue(queue)


def queue_name(subscription: Subscription) -> str:
    return f"{PREFIX}{quote(subscription.group, safe='')}:{quote(subscription.filter, safe='/+#$')}"


def record_key(text: str) -> bytes:
    return SUBSCRIPTION + text.encode()


def record(subscription: Subscription) -> bytes:
    return dump(subscription.arguments())


def recovered(records: list[tuple[bytes, bytes]]) -> list[Subscription]:
    """The subscriptions that the journal has kept."""
    found = []
    for key, value in records:
        if key[:1] == SUBSCRIPTION:
            try:
                arguments = load(value)
            except ValueError:
                continue
            subscription = from_arguments(arguments) if isinstance(arguments, dict) else None
            if subscription is not None:
                found.append(subscription)
    return found
