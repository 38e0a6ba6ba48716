"""Attaching links: what a client asks of source and target, and what it gets (part 3, section 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.errors import BrokerError
from protocols.amqp10 import frames as f
from protocols.amqp10.addresses import TOPIC_CAPABILITIES, Node, address_text, resolve
from protocols.amqp10.errors import INVALID_FIELD, LINK, ProtocolError, link_error
from protocols.amqp10.incoming import Incoming
from protocols.amqp10.link import RECEIVER, SENDER, Link
from protocols.amqp10.outgoing import SETTLED, Outgoing
from protocols.amqp10.settlement import default_settlement
from protocols.amqp10.transactions import Coordinator

if TYPE_CHECKING:
    from protocols.amqp10.session import Session

DISCARD = "DISCARD_UNROUTABLE"
OUTCOMES = ["amqp:accepted:list", "amqp:rejected:list", "amqp:released:list", "amqp:modified:list"]


def attach(session: Session, m: dict[str, Any]) -> None:
    """A client's attach. What is wrong with it costs the link. Raises: Malformed."""
    try:
        if m["role"]:
            _attach_receiver(session, m)
        else:
            _attach_sender(session, m)
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
    capabilities = target["capabilities"] or []
    address = address_text(target["address"])
    node: Node | None = None
    if address:
        node = resolve(session.connection.host, address, capabilities)
    discards = DISCARD in capabilities or bool(TOPIC_CAPABILITIES.intersection(capabilities))
    link = Incoming(session, m, node, discards)
    _enter(session, link)
    session.send(f.ATTACH.encode(**{
        "name": link.name, "handle": link.handle, "role": RECEIVER, "snd-settle-mode": m["snd-settle-mode"],
        "rcv-settle-mode": m["rcv-settle-mode"], "source": m["source"],
        "target": f.Encoded(_terminus(f.TARGET, target, {"address": address})),
        "max-message-size": session.connection.settings.message_size}))
    link.begin()


def _attach_receiver(session: Session, m: dict[str, Any]) -> None:
    code, source = f.composite(m["source"])
    if code != f.SOURCE.code:
        raise ProtocolError(INVALID_FIELD, "a receiver's link needs a source", LINK)
    capabilities = source["capabilities"] or []
    address = address_text(source["address"]) or ""
    node = resolve(session.connection.host, address, capabilities)
    if node.queue is None:
        raise ProtocolError(INVALID_FIELD, "an exchange", LINK)
    node.queue.check_access(session.connection)
    link = Outgoing(session, m, node.queue, 0, False, m["snd-settle-mode"] == SETTLED,
                    default_settlement(source["default-outcome"]))
    _enter(session, link)
    session.send(f.ATTACH.encode(**{
        "name": link.name, "handle": link.handle, "role": SENDER, "snd-settle-mode": m["snd-settle-mode"],
        "rcv-settle-mode": m["rcv-settle-mode"],
        "source": f.Encoded(_terminus(f.SOURCE, source, {"address": address, "outcomes": OUTCOMES})),
        "target": m["target"], "initial-delivery-count": 0}))
    link.begin()


def _enter(session: Session, link: Link) -> None:
    session.connection.containers.remember(link)
    session.links[link.handle] = link
    session.link = link


def _terminus(kind: f.Performative, asked: dict[str, Any], got: dict[str, Any]) -> bytes:
    """A terminus as it is: what was asked for, with what is different."""
    return kind.encode(**{**asked, **got})


def _refuse(session: Session, m: dict[str, Any], error: ProtocolError) -> None:
    """Attach, without a terminus on our side, and detach with the reason (part 2, section 2.6.3)."""
    link = session.links.get(m["handle"])
    if link is None:
        link = _Refused(session, m)
        session.links[link.handle] = link
        ours = "source" if m["role"] else "target"
        session.send(f.ATTACH.encode(**{
            "name": link.name, "handle": link.handle, "role": not m["role"], "snd-settle-mode": m["snd-settle-mode"],
            "rcv-settle-mode": m["rcv-settle-mode"], "initial-delivery-count": 0 if m["role"] else None,
            "source": m["source"] if ours == "target" else None,
            "target": m["target"] if ours == "source" else None}))
    link.fail(error)


class _Refused(Link):
    """A link that was never there: it only awaits the client's detach."""

    def let_go(self, closed: bool) -> None:
        pass


