"""A client's session: where its publishes, subscriptions and acknowledgements meet the broker.

The connection reads packets and calls the methods here; they answer by `Connection.acknowledge`, `send` and `write`,
and raise `MqttError` for what costs the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.consumer import Consumer
from broker.entry import Entry
from broker.errors import BrokerError
from broker.message import MQTT, Message, Publisher
from broker.queue import Queue
from broker.virtualhost import REFUSED, UNROUTED
from protocols.frontend import FULL
from protocols.mqtt import content
from protocols.mqtt.codec import PUBACK, PUBREC, SUBACK, UNSUBACK, varint
from protocols.mqtt.errors import NOT_AUTHORIZED, QOS_NOT_SUPPORTED, QUOTA_EXCEEDED, SUCCESS, MqttError
from protocols.mqtt.frames import V5
from protocols.mqtt.opening import Connect
from protocols.mqtt.publish import Topic, Will
from protocols.topics import EXCHANGE, pattern_of

if TYPE_CHECKING:
    from protocols.mqtt.connection import Connection
    from protocols.mqtt.sessions import Sessions


class Session(Publisher):
    """One client's session. So far it ends with its connection, and delivers with QoS 0."""

    def __init__(self, registry: Sessions, connection: Connection, connect: Connect, will: Will | None) -> None:
        self.registry = registry
        self.connection: Connection | None = connection
        self.host = connection.host
        self.client_id = connect.client_id
        self.level = connect.level
        self.queue: Queue | None = None
        self.consumer: Delivery | None = None
        self._safe: list[int] = []  # packet ids to acknowledge

    def opened(self) -> None:
        """CONNACK is written: deliveries may follow."""

    # What the client publishes.

    def publish(self, topic: Topic, message: Message, qos: int, packet_id: int) -> None:
        """PUBLISH. packet_id: 0 with QoS 0."""
        connection = self.connection
        assert connection is not None
        if topic.protected:
            raise MqttError(NOT_AUTHORIZED, f"clients cannot publish to {topic.name[:64]!r}")
        if qos == 2:
            raise MqttError(QOS_NOT_SUPPORTED, "QoS 2")
        route = self.host.routes.get(topic.address.short_strings)
        if route is None:
            try:
                route = self.host.route(topic.address.short_strings, topic.address.exchange, topic.address.routing_key)
            except BrokerError as refusal:  # of an exchange that an answer names
                raise MqttError(NOT_AUTHORIZED, str(refusal)) from None
        outcome = self.host.publish(route, message, None)
        if qos:
            if outcome == REFUSED:
                connection.acknowledge(PUBACK, packet_id, QUOTA_EXCEEDED, "a queue is full")
            elif outcome != UNROUTED and message.pending:
                message.publisher = self
                message.sequence = packet_id
            else:
                connection.acknowledge(PUBACK, packet_id)

    def confirmed(self, sequence: int) -> None:
        self._safe.append(sequence)
        if self.connection is not None:
            self.connection.session_due()

    def flush(self) -> None:
        """Output is about to be taken."""
        safe, self._safe = self._safe, []
        for packet_id in safe:
            if self.connection is not None:
                self.connection.acknowledge(PUBACK, packet_id)

    def refuse(self, qos: int, packet_id: int, reason: int, text: str) -> None:
        """A message of QoS 1 or 2 that is not taken, in its turn among the other acknowledgements."""
        if self.connection is not None:
            self.connection.acknowledge(PUBACK if qos == 1 else PUBREC, packet_id, reason, text)

    def pubrel(self, packet_id: int, reason: int) -> None:
        """The client has heard that its message of QoS 2 was taken."""

    # What it acknowledges.

    def puback(self, packet_id: int, reason: int) -> None:
        pass

    def pubrec(self, packet_id: int, reason: int) -> None:
        pass

    def pubcomp(self, packet_id: int, reason: int) -> None:
        pass

    # Subscriptions.

    def subscribe(self, packet_id: int, requests: list[tuple[str, int]], identifier: int) -> None:
        """SUBSCRIBE. requests: topic filters with their options; identifier: 0 for none."""
        connection = self.connection
        assert connection is not None
        codes = []
        for topic_filter, _ in requests:
            try:
                self._bind(topic_filter)
                codes.append(SUCCESS)
            except BrokerError:
                codes.append(NOT_AUTHORIZED if self.level >= V5 else 0x80)
        connection.send(SUBACK, "", packet_id=packet_id, codes=codes)

    def _bind(self, topic_filter: str) -> None:
        if self.queue is None:
            self.queue, _ = self.host.declare_queue(self.host.free_name("mqtt-session:"), False, False, True, {}, None)
            self.consumer = Delivery(self, self.queue)
            self.queue.add(self.consumer)
        self.host.bind(self.host.exchange(EXCHANGE), self.queue, pattern_of(topic_filter), {})

    def unsubscribe(self, packet_id: int, filters: list[str]) -> None:
        connection = self.connection
        assert connection is not None
        for topic_filter in filters:
            if self.queue is not None:
                self.host.unbind(self.host.exchange(EXCHANGE), self.queue, pattern_of(topic_filter), {})
        connection.send(UNSUBACK, "", packet_id=packet_id, codes=[SUCCESS] * len(filters))

    # The end.

    def drained(self) -> None:
        """The socket has room again."""
        if self.consumer is not None:
            self.consumer.queue.wake(self.consumer)

    def take_over(self) -> None:
        """Another connection of the client's wants the session."""
        connection = self.connection
        self._end()
        if connection is not None:
            connection.taken_over()

    def disconnected(self, with_will: bool, expiry: int) -> None:
        """DISCONNECT has come. expiry: how long the session is kept from now on, s; -1: as long as CONNECT said."""
        self._end()

    def lost(self) -> None:
        """The connection is gone without DISCONNECT."""
        self._end()

    def _end(self) -> None:
        self.connection = None
        self.registry.forget(self)
        if self.consumer is not None:
            self.consumer.queue.remove(self.consumer)

    # For operators.

    def unsettled(self) -> int:
        """Messages that the client has not acknowledged."""
        return 0

    def consumers(self) -> list[Consumer]:
        return [] if self.consumer is None else [self.consumer]


class Delivery(Consumer):
    """The consumer of a session's queue."""

    __slots__ = ("session",)

    def __init__(self, session: Session, queue: Queue) -> None:
        super().__init__(queue, "mqtt", 0, False, False)
        self.session = session

    def ready(self) -> bool:
        connection = self.session.connection
        return connection is not None and not connection.clogged and connection.out_size < FULL

    def deliver(self, entry: Entry, message: Message) -> None:
        connection = self.session.connection
        assert connection is not None
        if message.dialect != MQTT:
            message = message.translated(MQTT)
        native = message.native
        at = content.topic_at(native)
        end = content.properties_at(native)
        rest = end if connection.level >= V5 else content.block_end(native, end)
        parts = [native[at:end], native[rest:], *(message.body or ())]
        connection.write(b"".join((b"\x30", varint(sum(map(len, parts))), *parts)))
        connection.messages_out += 1

    def cancelled(self) -> None:
        self.session.consumer = None
        self.session.queue = None
