"""Attaching links: what a client asks of source and target, and what it gets (part 3, section 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.errors import BrokerError
from broker.exchange import Exchange
from broker.queue import Queue
from broker.security.access import Access
from broker.security.quotas import LINKS
from broker.selector import Selector
from protocols.amqp10 import frames as f
from protocols.amqp10.addresses import address_text, resolve
from protocols.amqp10.errors import INVALID_FIELD, LINK, NOT_FOUND, ProtocolError, link_error
from protocols.amqp10.filters import Filters, read_filters
from protocols.amqp10.incoming import Incoming
from protocols.amqp10.link import RECEIVER, SENDER, Link
from protocols.amqp10.outgoing import SETTLED, Outgoing
from protocols.amqp10.settlement import default_settlement
from protocols.amqp10.subscriptions import Subscription, default_key, find_durable, subscribe
from protocols.amqp10.transactions import Coordinator
from protocols.nodes import TOPIC_CAPABILITIES, Node
from protocols.routes import ask_to_publish

if TYPE_CHECKING:
    from protocols.amqp10.session import Session

DISCARD = "DISCARD_UNROUTABLE"
REJECT = "REJECT_UNROUTABLE"
OUTCOMES = ["amqp:accepted:list", "amqp:rejected:list", "amqp:released:list", "amqp:modified:list"]


def attach(session: Session, m: dict[str, Any]) -> None:
    """A client's attach. What is wrong with it costs the link. Raises: Malformed."""
    try:
        if not m["role"]:
            _attach_sender(session, m)
        else:
            code, source = f.composite(m["source"])
            if code == f.SOURCE.code and (source["address"] is not None or source["dynamic"]):
                _attach_receiver(session, m, source)
            else:
                _attach_to_unsubscribe(session, m)
    except ProtocolError as error:
        _refuse(session, m, error)
    except BrokerError as refusal:
        _refuse(session, m, link_error(refusal))


def _attach_sender(session: Session, m: dict[str, Any]) -> None:
    code, target = f.composite(m["target"])
    if code == f.COORDINATOR.code:
        coordinator = Coordinator(session, m)
        _enter(session, coordinator)
        coordinator.begin(m)
        return
    if code != f.TARGET.code:
        raise ProtocolError(INVALID_FIELD, "a sender's link needs a target", LINK)
    capabilities: list[str] = target["capabilities"] or []
    address, node = _node(session, target, capabilities, True)
    if node is not None and not target["dynamic"]:
        _may_send(session.connection.access, node)
    discards = DISCARD in capabilities or bool(TOPIC_CAPABILITIES.intersection(capabilities))
    link = Incoming(session, m, node, discards and REJECT not in capabilities)
    link.lasts(target)
    _enter(session, link)
    kept = link.take_up(session.connection.containers.take_back(link), m["unsettled"])
    if node is not None:
        session.connection.containers.dynamic.use(link, node, target["dynamic"])
    session.send(f.ATTACH.encode(**{
        "name": link.name, "handle": link.handle, "role": RECEIVER, "snd-settle-mode": m["snd-settle-mode"],
        "rcv-settle-mode": m["rcv-settle-mode"], "source": m["source"],
        "target": f.Encoded(f.TARGET.encode(**{**target, "address": address})), "unsettled": kept,
        "max-message-size": session.connection.message_size}))
    link.begin()


def _attach_receiver(session: Session, m: dict[str, Any], source: dict[str, Any]) -> None:
    capabilities: list[str] = source["capabilities"] or []
    connection = session.connection
    address, node = _node(session, source, capabilities, False)
    if node is None:
        raise ProtocolError(INVALID_FIELD, "a receiver's source needs an address", LINK,
                            {"invalid-field": "source.address"})
    filters = read_filters(source["filter"], node.exchange is not None)
    if node.queue is not None and not source["dynamic"]:
        connection.access.consume(node.queue.name)
    queue, subscription = _source_queue(session, m, source, node, filters)
    queue.check_access(connection)
    copies = str(source["distribution-mode"]) == "copy" and subscription is None or queue.settings.browse_only
    link = Outgoing(session, m, queue, _priority(m), copies or m["snd-settle-mode"] == SETTLED,
                    default_settlement(source["default-outcome"]))
    link.subscription = subscription
    consumer = link.consumer
    if subscription is None:
        consumer.selector = Selector(filters.selector) if filters.selector else None
        consumer.no_local = connection.container_id if filters.no_local else ""
    consumer.browses = copies
    consumer.choosy = copies or consumer.selector is not None or bool(consumer.no_local) or link.max_message_size > 0
    if subscription is None or subscription.exclusive:  # else there are others, who are to have what it leaves
        link.lasts(source)
    _enter(session, link)
    kept = link.take_up(connection.containers.take_back(link), m["unsettled"])
    connection.containers.dynamic.use(link, node, source["dynamic"])
    session.send(f.ATTACH.encode(**{
        "name": link.name, "handle": link.handle, "role": SENDER,
        "snd-settle-mode": SETTLED if copies else m["snd-settle-mode"],
        "rcv-settle-mode": m["rcv-settle-mode"], "source": f.Encoded(f.SOURCE.encode(**{
            **source, "address": address, "filter": filters.reply(), "outcomes": OUTCOMES,
            "distribution-mode": "copy" if copies else "move"})),
        "target": m["target"], "unsettled": kept, "initial-delivery-count": 0}))
    link.begin()


def _may_send(access: Access, node: Node) -> None:
    """Raises: AccessRefused."""
    exchange, key = node.leads_to()
    if node.queue is not None or node.fixed:
        ask_to_publish(access, exchange, key)
    else:
        access.publish_to(exchange)


def _node(session: Session, terminus: dict[str, Any], capabilities: list[str],
          sends: bool) -> tuple[str | None, Node | None]:
    """A terminus's address and node; neither for the anonymous one. Raises what declarations raise, NotFound."""
    connection = session.connection
    if terminus["dynamic"]:
        node = connection.containers.dynamic.make(connection, capabilities, terminus["dynamic-node-properties"])
        made: Queue | Exchange | None = node.queue if node.queue is not None else node.exchange
        assert made is not None
        return made.name, node
    address = address_text(terminus["address"])
    return address, resolve(connection.host, connection.access, address, capabilities, sends) if address else None


def _source_queue(session: Session, m: dict[str, Any], source: dict[str, Any], node: Node,
                  filters: Filters) -> tuple[Queue, Subscription | None]:
    """The queue that a receiver gets its messages from: the node, or one of its own behind an exchange."""
    if node.queue is not None:
        return node.queue, None
    exchange = node.exchange
    assert exchange is not None
    connection = session.connection
    key = filters.key if filters.key is not None else node.key if node.key is not None else default_key(exchange)
    connection.access.subscribe(exchange.name, key)
    durable = source["durable"] > 0 or source["expiry-policy"] == "never"
    subscription = Subscription(m["name"], connection.container_id, durable, source["capabilities"] or [])
    if subscription.name and subscription.exclusive:  # taking one's link over is no reason to find it in use
        connection.containers.steal(connection, SENDER, m["name"])
    return subscribe(connection, subscription, exchange, key, filters), subscription


def _priority(m: dict[str, Any]) -> int:
    """The consumer's priority, a link property."""
    for name in ("priority", "rabbitmq:priority"):
        value = (m["properties"] or {}).get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return int(value)
    return 0


def _attach_to_unsubscribe(session: Session, m: dict[str, Any]) -> None:
    """A receiver whose source has no address asks what its link was before: to close a durable subscription."""
    connection = session.connection
    queue = find_durable(connection.host, m["name"], connection.container_id)
    if queue is None:
        raise ProtocolError(NOT_FOUND, f"there is no subscription '{m['name']}'", LINK)
    queue.check_access(connection)
    bound = list(connection.host.bound_to.get(queue, {}).values())
    for binding in bound:  # who may subscribe may end it
        connection.access.subscribe(binding.source.name, binding.routing_key)
    if queue.consumers.all:
        raise ProtocolError("amqp:resource-locked", f"{queue!r} has consumers", LINK)
    link = Unsubscriber(session, m, queue)
    _enter(session, link)
    former = connection.containers.take_back(link)
    if former is not None:
        former.forgotten()
    address = "" if not bound else bound[0].source.name
    session.send(f.ATTACH.encode(**{
        "name": link.name, "handle": link.handle, "role": SENDER, "snd-settle-mode": m["snd-settle-mode"],
        "rcv-settle-mode": m["rcv-settle-mode"], "target": m["target"], "initial-delivery-count": 0,
        "source": f.Encoded(f.SOURCE.encode(**{"address": address, "durable": 2, "expiry-policy": "never"}))}))


def _enter(session: Session, link: Link) -> None:
    """Raises: LimitReached."""
    session.connection.quota.take(LINKS, link.name)
    session.connection.containers.remember(link)
    session.links[link.handle] = link
    session.link = link


def _refuse(session: Session, m: dict[str, Any], error: ProtocolError) -> None:
    """Attach, without a terminus on our side, and detach with the reason (part 2, section 2.6.3)."""
    link = session.links.get(m["handle"])
    if link is None:
        link = _Refused(session, m)
        session.links[link.handle] = link
        session.send(f.ATTACH.encode(**{
            "name": link.name, "handle": link.handle, "role": not m["role"], "snd-settle-mode": m["snd-settle-mode"],
            "rcv-settle-mode": m["rcv-settle-mode"], "initial-delivery-count": 0 if m["role"] else None,
            "source": None if m["role"] else m["source"], "target": m["target"] if m["role"] else None}))
    link.fail(error)


class Unsubscriber(Link):
    """A link that ends a durable subscription when it is closed."""

    def __init__(self, session: Session, m: dict[str, Any], queue: Queue) -> None:
        super().__init__(session, m)
        self.queue = queue

    def flow(self, m: dict[str, Any]) -> None:
        """It has nothing to send, whatever credit it gets."""

    def let_go(self, closed: bool, event: int) -> None:
        if closed and not self.queue.consumers.all:
            self.host.delete_queue(self.queue)


class _Refused(Link):
    """A link that was never there: it only awaits the client's detach."""

    def let_go(self, closed: bool, event: int) -> None:
        """There is nothing to let go of."""
