"""What a client publishes: QoS 0, 1 and 2 (4.3), and the acknowledgements, in order (4.6).

A packet id of QoS 2 is kept from PUBLISH to PUBREL, so that a message that is sent again is not published again. The
journal keeps it under the number of the session's queue, in the same batch as the message:

    "i" packet id -> ""

PUBREC waits until that is durable, and PUBCOMP until it is gone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError
from broker.message import Message, Publisher
from broker.routing import REFUSED, ROUTED, UNROUTED
from protocols.mqtt.codec import PUBACK, PUBCOMP, PUBREC
from protocols.mqtt.convert import delivery_time
from protocols.mqtt.errors import (
    NO_MATCHING_SUBSCRIBERS,
    NOT_AUTHORIZED,
    PACKET_ID_NOT_FOUND,
    QUOTA_EXCEEDED,
    RECEIVE_MAXIMUM_EXCEEDED,
    SUCCESS,
    MqttError,
)
from protocols.mqtt.frames import V5
from protocols.mqtt.publish import Topic
from protocols.routes import find_route

if TYPE_CHECKING:
    from protocols.mqtt.connection import Connection
    from protocols.mqtt.session import Session

INBOUND: Final = b"i"

_LATER: Final = b"x-opt-delivery-"
"""What the user properties begin with that say when a message is to be delivered."""
_PRIORITY: Final = b"x-priority"


class _Acknowledgement:
    """PUBACK or PUBREC that has to be sent in its turn."""

    __slots__ = ("kind", "packet_id", "reason", "text", "due")

    def __init__(self, kind: int, packet_id: int) -> None:
        self.kind = kind
        self.packet_id = packet_id
        self.reason = SUCCESS
        self.text = ""
        self.due = False


class Inbound(Publisher):
    """The receiving half of a session, for one connection."""

    __slots__ = ("session", "connection", "host", "waiting", "_first", "_counted", "_acknowledged_later",
                 "_releases")

    def __init__(self, session: Session, connection: Connection) -> None:
        self.session = session
        self.connection = connection
        self.host = session.host
        self.waiting: deque[_Acknowledgement] = deque()
        self._first = 0  # the number of the first of those that are waiting
        self._counted: set[int] = set()  # packet ids of QoS 2 that count against our receive maximum
        self._acknowledged_later = 0  # messages of QoS 1 that do
        self._releases: deque[int] = deque()  # packet ids whose PUBCOMP waits for the journal

    def publish(self, topic: Topic, message: Message, qos: int, packet_id: int) -> None:
        """Raises: MqttError for what costs the connection."""
        if topic.protected:
            self._forbid(f"clients cannot publish to {topic.name[:64]!r}", qos, packet_id)
            return
        session = self.session
        message.origin = session.client_id
        if qos == 2:
            self._count(packet_id)
            if packet_id in session.received:
                self._again(message, packet_id)
                return
        address = topic.address
        access = self.connection.access
        route = self.host.routes.get(address.short_strings)
        try:
            if route is None:
                route = find_route(self.host, access, address.short_strings, address.exchange, address.routing_key)
            address = route.address
            access.publish(address.short_strings, address.exchange, address.routing_key)
        except BrokerError as error:  # also of an exchange that an answer names
            self._forbid(str(error), qos, packet_id)
            return
        if message.native.find(b"x-") >= 0 and _is_for_later(message):
            self.host.postpone(message)
            outcome = ROUTED
        else:
            outcome = self.host.publish(route, message, None)
        if not qos:
            return
        if outcome == REFUSED:
            self.refuse(qos, packet_id, QUOTA_EXCEEDED, "a queue is full")
            return
        if qos == 2:
            session.received.add(packet_id)
            if session.durable:
                log = self.host.broker.log
                log.keep_record(session.number, _record_key(packet_id), b"")
                message.pending += 1
                log.commit(message.settle_pending)
        if outcome != UNROUTED and not message.pending and not self.waiting:
            self.connection.acknowledge(PUBACK if qos == 1 else PUBREC, packet_id)
            return
        acknowledgement = self._wait(qos, packet_id)
        if outcome == UNROUTED:
            acknowledgement.reason = NO_MATCHING_SUBSCRIBERS
        self._await(acknowledgement, message)

    def _wait(self, qos: int, packet_id: int) -> _Acknowledgement:
        """An acknowledgement at the end of the line."""
        acknowledgement = _Acknowledgement(PUBACK if qos == 1 else PUBREC, packet_id)
        self.waiting.append(acknowledgement)
        if qos == 1:
            self._acknowledged_later += 1
            self._check_quota()
        return acknowledgement

    def _await(self, acknowledgement: _Acknowledgement, message: Message) -> None:
        """Send it when the message is safe."""
        if message.pending:
            message.publisher = self
            message.sequence = self._first + len(self.waiting) - 1
        else:
            acknowledgement.due = True
            if self.waiting[0] is acknowledgement:
                self.connection.session_due()

    def _again(self, message: Message, packet_id: int) -> None:
        """A message of QoS 2 that was published already is acknowledged once more."""
        acknowledgement = self._wait(2, packet_id)
        if self.session.durable:
            message.pending += 1
            self.host.broker.log.commit(message.settle_pending)
        self._await(acknowledgement, message)

    def _count(self, packet_id: int) -> None:
        self._counted.add(packet_id)
        self._check_quota()

    def _check_quota(self) -> None:
        if len(self._counted) + self._acknowledged_later > self.connection.settings.receive_max \
                and self.connection.level >= V5:
            raise MqttError(RECEIVE_MAXIMUM_EXCEEDED, "more messages are waiting for their acknowledgements than the "
                                                      f"{self.connection.settings.receive_max} that may")

    def _forbid(self, text: str, qos: int, packet_id: int) -> None:
        if not qos:
            raise MqttError(NOT_AUTHORIZED, text)
        self.refuse(qos, packet_id, NOT_AUTHORIZED, text)

    def refuse(self, qos: int, packet_id: int, reason: int, text: str) -> None:
        """Say in its turn that a message of QoS 1 or 2 is not taken. Clients before MQTT 5 cannot be told (3.3.5
        there): that costs the connection. Raises: MqttError."""
        if self.connection.level < V5:
            raise MqttError(reason, text)
        self._counted.discard(packet_id)
        acknowledgement = self._wait(qos, packet_id)
        acknowledgement.reason = reason
        acknowledgement.text = text
        acknowledgement.due = True
        self.connection.session_due()

    def confirmed(self, sequence: int) -> None:
        at = sequence - self._first
        self.waiting[at].due = True
        if at == 0:
            self.connection.session_due()

    def flush(self) -> None:
        """Output is about to be taken: write what is due, as far as its turn has come."""
        waiting = self.waiting
        while waiting and waiting[0].due:
            acknowledgement = waiting.popleft()
            self._first += 1
            if acknowledgement.kind == PUBACK:
                self._acknowledged_later -= 1
            self.connection.acknowledge(acknowledgement.kind, acknowledgement.packet_id, acknowledgement.reason,
                                        acknowledgement.text)

    def pubrel(self, packet_id: int) -> None:
        """The client has heard that its message of QoS 2 was taken, and will not send it again."""
        session = self.session
        self._counted.discard(packet_id)
        if packet_id not in session.received:
            self.connection.acknowledge(PUBCOMP, packet_id, PACKET_ID_NOT_FOUND)
            return
        session.received.discard(packet_id)
        if not session.durable:
            self.connection.acknowledge(PUBCOMP, packet_id)
            return
        log = self.host.broker.log
        log.forget_record(session.number, _record_key(packet_id))
        self._releases.append(packet_id)
        log.commit(self._released)

    def _released(self) -> None:
        packet_id = self._releases.popleft()
        if self.session.connection is self.connection:
            self.connection.acknowledge(PUBCOMP, packet_id)


def recovered(records: list[tuple[bytes, bytes]]) -> set[int]:
    """The packet ids of QoS 2 that the journal has kept."""
    return {key[1] << 8 | key[2] for key, _ in records if key[:1] == INBOUND and len(key) == 3}


def _record_key(packet_id: int) -> bytes:
    return INBOUND + packet_id.to_bytes(2, "big")


def _is_for_later(message: Message) -> bool:
    """Read what user properties say to queues: a priority; and whether it is not to be delivered yet."""
    native = message.native
    if native.find(_PRIORITY) >= 0:
        priority = message.view().priority
        if priority is not None:
            message.priority = priority
    return native.find(_LATER) >= 0 and delivery_time(message) > message.arrival
