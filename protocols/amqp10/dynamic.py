"""Nodes that live no longer than somebody needs them (part 3, section 3.5): queues and exchanges that a client had
made by attaching to a dynamic terminus, with their lifetime policies."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from broker.queue import Queue
from broker.values import Described, Symbol, ULong
from protocols.amqp10.link import Link
from protocols.nodes import TOPIC_CAPABILITIES, Node

if TYPE_CHECKING:
    from protocols.amqp10.connection import Connection

ON_CLOSE, ON_NO_LINKS, ON_NO_MESSAGES, ON_NO_LINKS_OR_MESSAGES = 0x2B, 0x2C, 0x2D, 0x2E
_POLICIES = {"amqp:delete-on-close:list": ON_CLOSE, "amqp:delete-on-no-links:list": ON_NO_LINKS,
             "amqp:delete-on-no-messages:list": ON_NO_MESSAGES,
             "amqp:delete-on-no-links-or-messages:list": ON_NO_LINKS_OR_MESSAGES}

LOOK_AGAIN = 500
"""After how many ms to look again whether a node is empty."""


class DynamicNode:
    """A node that its client had made, and who still uses it."""

    __slots__ = ("node", "policy", "creator", "links")

    def __init__(self, node: Node, policy: int) -> None:
        self.node = node
        self.policy = policy
        self.creator: Link | None = None  # while it is attached
        self.links: set[Link] = set()


class DynamicNodes:
    """All such nodes of a broker, by what they are."""

    def __init__(self) -> None:
        self._nodes: dict[object, DynamicNode] = {}
        self._of_link: dict[Link, DynamicNode] = {}

    def make(self, connection: Connection, capabilities: list[str], properties: dict[str, Any] | None) -> Node:
        """A new node. Raises what declarations raise."""
        host = connection.host
        if TOPIC_CAPABILITIES.intersection(capabilities):
            connection.access.declare_exchange("", "topic", False, False, {})
            name = f"temporary-topic-{secrets.token_urlsafe(16)}"
            host.declare_exchange(name, "topic", False, False, False, {})
            node = Node(None, host.exchanges[name], None)
        else:
            temporary = "temporary-queue" in capabilities
            connection.access.declare_queue("", False, temporary, False, {})
            queue, _ = host.declare_queue("", False, temporary, False, {}, connection if temporary else None)
            node = Node(queue, None, None)
        self._nodes[node.queue or node.exchange] = DynamicNode(node, _policy(properties))
        return node

    def use(self, link: Link, node: Node, created: bool) -> None:
        """A link is attached to a node, dynamic or not."""
        dynamic = self._nodes.get(node.queue or node.exchange)
        if dynamic is not None:
            dynamic.links.add(link)
            self._of_link[link] = dynamic
            if created:
                dynamic.creator = link

    def leave(self, link: Link) -> None:
        """A link is gone."""
        dynamic = self._of_link.pop(link, None)
        if dynamic is not None:
            dynamic.links.discard(link)
            if dynamic.creator is link:
                dynamic.creator = None
            self._look(dynamic, link)

    def _look(self, dynamic: DynamicNode, link: Link) -> None:
        """Delete the node if its policy says so by now."""
        node = dynamic.node
        queue = node.queue
        if queue is not None and queue.deleted or node.exchange is not None and node.exchange.deleted:
            self._nodes.pop(queue or node.exchange, None)
            return
        if dynamic.policy == ON_CLOSE:
            due = dynamic.creator is None
        elif dynamic.policy == ON_NO_LINKS:
            due = not dynamic.links
        elif dynamic.policy == ON_NO_MESSAGES:
            due = dynamic.creator is None and _empty(queue)
        else:
            due = not dynamic.links and _empty(queue)
        if due:
            self._nodes.pop(queue or node.exchange, None)
            if queue is not None:
                link.host.delete_queue(queue)
            elif node.exchange is not None:
                link.host.delete_exchange(node.exchange.name, False)
        elif dynamic.policy in (ON_NO_MESSAGES, ON_NO_LINKS_OR_MESSAGES) and dynamic.creator is None \
                and not (dynamic.policy == ON_NO_LINKS_OR_MESSAGES and dynamic.links):
            link.host.broker.timers.after(LOOK_AGAIN, lambda: self._look(dynamic, link))


def _empty(queue: Queue | None) -> bool:
    return queue is None or not queue.ready and not queue.unsettled


def _policy(properties: dict[str, Any] | None) -> int:
    given = (properties or {}).get("lifetime-policy")
    if isinstance(given, Described):
        descriptor = given.descriptor
        if isinstance(descriptor, ULong) and ON_CLOSE <= descriptor <= ON_NO_LINKS_OR_MESSAGES:
            return int(descriptor)
        if isinstance(descriptor, Symbol):
            return _POLICIES.get(str(descriptor), ON_CLOSE)
    return ON_CLOSE
