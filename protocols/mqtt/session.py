"""A client's session: its subscriptions, what it sends and gets, its will, and how long it is kept (4.1, 3.1.2.11.2).

The connection reads packets and calls the methods here; they answer by `Connection.acknowledge`, `send` and `write`,
and raise `MqttError` for what costs the connection.

A session is a queue (`mqtt-session:CLIENT`) whose bindings are its subscriptions. One that outlives its connection
has a durable queue, and in the journal, under the number of that queue, what else there is to know: state.py,
delivery.py, inbound.py and sharing.py say which records. One that does not has a queue once it subscribes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from broker.clock import Timer
from broker.consumer import Consumer
from broker.errors import AccessRefused, BrokerError, LimitReached
from broker.exchange import Exchange
from broker.keeper import Keeper
from broker.message import Message, address_of
from broker.queue import Queue
from broker.security.quotas import CONSUMERS
from broker.virtualhost import VirtualHost
from protocols.mqtt import inbound, sharing
from protocols.mqtt.codec import PUBREL, SUBACK, UNSUBACK
from protocols.mqtt.delivery import RETAINED_EXCHANGE, Outbound
from protocols.mqtt.errors import (
    ADMINISTRATIVE_ACTION,
    IMPLEMENTATION_SPECIFIC,
    NO_SUBSCRIPTION_EXISTED,
    PACKET_ID_NOT_FOUND,
    QUOTA_EXCEEDED,
    SUCCESS,
    UNSPECIFIED,
    MqttError,
    reason_of,
)
from protocols.mqtt.frames import V5
from protocols.mqtt.inbound import Inbound
from protocols.mqtt.opening import FOREVER, Connect
from protocols.mqtt.publish import Topic, Will
from protocols.mqtt.state import HEAD, State, dump_state, queue_name
from protocols.mqtt.subscriptions import SYSTEM_EXCHANGE, Subscription, Subscriptions, from_arguments, requested
from protocols.topics import EXCHANGE, fits, topic_of

if TYPE_CHECKING:
    from protocols.mqtt.connection import Connection
    from protocols.mqtt.sessions import HostSessions

logger = logging.getLogger(__name__)

_SEND_RETAINED: Final = 0
_SEND_RETAINED_IF_NEW: Final = 1
"""Retain handling (3.8.3.1)."""


class Session(Keeper):
    """One client's session. `number` is its queue's id, 0 while it has none."""

    def __init__(self, registry: HostSessions, client_id: str, user: str, durable: bool) -> None:
        self.registry = registry
        self.host: VirtualHost = registry.host
        self.client_id = client_id
        self.user = user  # who made it: nobody else may have it
        self.durable = durable  # it survives the broker
        self.expiry = 0  # s that it is kept when its connection is gone
        self.gone_at = 0  # ms since the epoch: since when it has no connection
        self.connection: Connection | None = None
        self.queue: Queue | None = None
        self.number = 0
        self.outbound: Outbound | None = None
        self.inbound: Inbound | None = None
        self.received: set[int] = set()  # packet ids of QoS 2 that were not released yet
        self.subscriptions = Subscriptions()
        self.will: Will | None = None
        self.ended = False
        self._will_timer: Timer | None = None
        self._expiry_timer: Timer | None = None

    # A client comes.

    def attach(self, connection: Connection, connect: Connect, will: Will | None) -> None:
        """The session is this connection's from now on. Raises: MqttError."""
        if self.durable and self.queue is None:
            self._make_queue()
        self._cancel_timers()
        self.connection = connection
        connection.quota.adopt(CONSUMERS, len(self.subscriptions))
        self.inbound = Inbound(self, connection)
        self.expiry = connect.session_expiry
        self.will = will
        self.gone_at = 0
        self.save()
        self._check_subscriptions(connection)

    def _check_subscriptions(self, connection: Connection) -> None:
        """The client comes back to its subscriptions: it keeps those that it may still have."""
        for subscription in [*self.subscriptions.all.values(), *self.subscriptions.shared.values()]:
            try:
                connection.access.subscribe(subscription.exchange(), subscription.pattern())
            except AccessRefused as error:
                logger.warning("%s: subscription '%s' of client %s is ended: %s", connection.peer, subscription.text,
                               self.client_id, error)
                self._unbind(subscription)

    def opened(self) -> None:
        """CONNACK is written: deliveries may follow."""
        if self.outbound is not None:
            self._begin(self.outbound)

    def _begin(self, outbound: Outbound) -> None:
        connection = self.connection
        if connection is None:
            return
        most = connection.quota.unsettled or connection.receive_maximum
        outbound.attach(connection, min(most, connection.receive_maximum), connection.packet_maximum,
                        connection.alias_maximum)
        for text, subscription in self.subscriptions.shared.items():
            share = self.registry.shares.all.get(text)
            if share is not None:
                outbound.add(share.queue, subscription)

    def _make_queue(self) -> Outbound:
        """Raises: MqttError."""
        name = queue_name(self.client_id)
        arguments = self.registry.queue_arguments()
        if name in self.host.queues:
            raise MqttError(IMPLEMENTATION_SPECIFIC, f"there is a queue '{name}' of somebody else's")
        try:
            queue, _ = self.host.declare_queue(name, self.durable, False, False, arguments, None)
        except LimitReached as limit:
            raise MqttError(QUOTA_EXCEEDED, str(limit)) from None
        except BrokerError as error:
            raise MqttError(IMPLEMENTATION_SPECIFIC, str(error)) from None
        return self._take_queue(queue)

    def _take_queue(self, queue: Queue) -> Outbound:
        self.queue = queue
        self.number = queue.queue_id
        queue.keeper = self
        outbound = self.outbound = Outbound(self, queue)
        return outbound

    def recover(self, queue: Queue, state: State, records: list[tuple[bytes, bytes]]) -> None:
        """Take up what the store has kept, after a restart."""
        self.expiry = state.expiry
        self.will = state.will
        self._take_queue(queue).recover(records)
        self.received = inbound.recovered(records)
        for binding in list(self.host.bound_to.get(queue, {}).values()):
            subscription = from_arguments(binding.arguments)
            if subscription is not None:
                self.subscriptions.add(subscription)
        for kept in sharing.recovered(records):
            try:
                self._bind(kept)
            except (BrokerError, MqttError) as error:
                logger.error("session of client %s: subscription '%s' is lost: %s", self.client_id, kept.text, error)
        self.gone_at = state.gone_at or self.host.broker.clock.now
        self.save()
        self._keep_for_later(self.will is not None)

    def save(self) -> None:
        """Have the journal keep what the session is."""
        if self.durable and self.queue is not None and not self.queue.deleted:
            state = State(self.client_id, self.user, self.expiry, self.gone_at, self.will)
            self.host.broker.log.keep_record(self.number, HEAD, dump_state(state))

    # What the client publishes.

    def publish(self, topic: Topic, message: Message, qos: int, packet_id: int) -> None:
        """PUBLISH. packet_id: 0 with QoS 0. Raises: MqttError."""
        incoming = self.inbound
        if incoming is not None:
            incoming.publish(topic, message, qos, packet_id)

    def refuse(self, qos: int, packet_id: int, reason: int, text: str) -> None:
        """A message of QoS 1 or 2 that is not taken, in its turn among the other acknowledgements."""
        incoming = self.inbound
        if incoming is not None:
            incoming.refuse(qos, packet_id, reason, text)

    def flush(self) -> None:
        """Output is about to be taken."""
        incoming = self.inbound
        if incoming is not None:
            incoming.flush()

    def pubrel(self, packet_id: int, reason: int) -> None:
        """The client has heard that its message of QoS 2 was taken, or (reason) knows nothing of it."""
        incoming = self.inbound
        if incoming is not None:
            incoming.pubrel(packet_id)

    # What it acknowledges.

    def puback(self, packet_id: int, reason: int) -> None:
        if self.outbound is not None:
            self.outbound.puback(packet_id, reason)

    def pubrec(self, packet_id: int, reason: int) -> None:
        if self.outbound is not None:
            self.outbound.pubrec(packet_id, reason)
        elif self.connection is not None and reason < UNSPECIFIED:
            self.connection.acknowledge(PUBREL, packet_id, PACKET_ID_NOT_FOUND)

    def pubcomp(self, packet_id: int, reason: int) -> None:
        if self.outbound is not None:
            self.outbound.pubcomp(packet_id)

    # Subscriptions.

    def subscribe(self, packet_id: int, requests: list[tuple[str, int]], identifier: int) -> None:
        """SUBSCRIBE. requests: topic filters with their options; identifier: 0 for none."""
        connection = self.connection
        assert connection is not None
        codes = []
        retained = []
        wait = False
        for text, options in requests:
            known = self.subscriptions.get(text) is not None
            try:
                subscription = requested(text, options, identifier)
                connection.access.subscribe(subscription.exchange(), subscription.pattern())
                wait = self._add(connection, subscription) or wait
            except (BrokerError, MqttError) as error:
                logger.warning("%s: cannot subscribe to %r: %s", connection.peer, text, error)
                codes.append(reason_of(error) if connection.level >= V5 else UNSPECIFIED)
                continue
            codes.append(subscription.qos)
            handling = options >> 4 & 3
            if not subscription.group and (handling == _SEND_RETAINED
                                           or handling == _SEND_RETAINED_IF_NEW and not known):
                retained.append(subscription)

        def answer() -> None:
            if self.connection is connection:
                connection.send(SUBACK, "", packet_id=packet_id, codes=codes)
                for each in retained:
                    self._send_retained(each)
        self._when_durable(wait, answer)

    def _when_durable(self, wait: bool, answer: Callable[[], None]) -> None:
        if wait and self.durable:
            self.host.broker.log.commit(answer)
        else:
            answer()

    def _add(self, connection: Connection, subscription: Subscription) -> bool:
        """Make a subscription that the client asks for. Raises: MqttError, BrokerError."""
        if self.subscriptions.get(subscription.text) is not None:
            return self._bind(subscription)
        connection.quota.take(CONSUMERS, subscription.text)
        try:
            return self._bind(subscription)
        except (MqttError, BrokerError):
            connection.quota.give(CONSUMERS)
            raise

    def _bind(self, subscription: Subscription) -> bool:
        """Make a subscription, in place of one of the same filter. Gives whether to wait for the store.

        Raises: MqttError, BrokerError.
        """
        outbound = self.outbound or self._make_queue()
        fresh = outbound.connection is None and self.connection is not None
        old = self.subscriptions.get(subscription.text)
        text = subscription.text
        if subscription.group:
            share, wait = self.registry.shares.join(self, subscription)
            if self.connection is not None and not fresh:
                outbound.remove(subscription)
                outbound.add(share.queue, subscription)
        else:
            queue = outbound.queue
            exchange = self._exchange(subscription)
            wait = self.host.bind(exchange, queue, subscription.pattern(), subscription.arguments())
            if old is not None and old.arguments() != subscription.arguments():
                self.host.unbind(exchange, queue, old.pattern(), old.arguments())
        self.subscriptions.add(subscription)
        if self.durable and self._is_record(subscription):
            self.host.broker.log.keep_record(self.number, sharing.record_key(text), sharing.record(subscription))
            wait = True
        if fresh:
            self._begin(outbound)
        return wait

    def _exchange(self, subscription: Subscription) -> Exchange:
        name = subscription.exchange()
        return self.host.system_exchange(name, "topic") if name == SYSTEM_EXCHANGE else self.host.exchange(name)

    def _is_record(self, subscription: Subscription) -> bool:
        """Whether no durable binding says that there is this subscription."""
        return subscription.group != "" or subscription.exchange() == SYSTEM_EXCHANGE

    def unsubscribe(self, packet_id: int, filters: list[str]) -> None:
        connection = self.connection
        assert connection is not None
        codes = []
        for text in filters:
            subscription = self.subscriptions.get(text)
            if subscription is None:
                codes.append(NO_SUBSCRIPTION_EXISTED)
                continue
            codes.append(SUCCESS)
            self._unbind(subscription)

        def answer() -> None:
            if self.connection is connection:
                connection.send(UNSUBACK, "", packet_id=packet_id, codes=codes)
        self._when_durable(SUCCESS in codes, answer)

    def _unbind(self, subscription: Subscription) -> None:
        self._remove(subscription.text)
        outbound = self.outbound
        assert outbound is not None
        if subscription.group:
            outbound.remove(subscription)
            self.registry.shares.leave(self, subscription.text)
        else:
            self.host.unbind(self._exchange(subscription), outbound.queue, subscription.pattern(),
                             subscription.arguments())
        if self.durable and self._is_record(subscription):
            self.host.broker.log.forget_record(self.number, sharing.record_key(subscription.text))

    def _remove(self, text: str) -> None:
        self.subscriptions.remove(text)
        if self.connection is not None:
            self.connection.quota.give(CONSUMERS)

    def share_ended(self, text: str) -> None:
        """The queue of a shared subscription was deleted."""
        subscription = self.subscriptions.shared.get(text)
        if subscription is not None:
            self._remove(text)
            if self.outbound is not None:
                self.outbound.remove(subscription)
            if self.durable:
                self.host.broker.log.forget_record(self.number, sharing.record_key(text))

    def _send_retained(self, subscription: Subscription) -> None:
        """Put what is retained of a filter into the queue: what is not much at once, the rest bit by bit."""
        found: Iterator[Message | None]
        lane, system = self.host.retained, self.registry.system
        if subscription.exchange() == SYSTEM_EXCHANGE:
            found = iter(system.matching(subscription.filter) if system is not None else ())
        elif lane is not None:
            found = lane.matching(subscription.pattern())
        else:
            return
        messages = self._retained(subscription, found)
        for _ in messages:
            self.host.broker.chores.add(messages)
            return

    def _retained(self, subscription: Subscription, messages: Iterator[Message | None]) -> Iterator[None]:
        outbound = self.outbound
        assert outbound is not None
        queue = outbound.queue
        for message in messages:
            if message is None:
                yield
                continue
            if queue.deleted or self.subscriptions.get(subscription.text) is not subscription:
                return
            key = message.address.routing_key
            if fits(subscription.filter, topic_of(key)):
                copy = Message(address_of(RETAINED_EXCHANGE, key), message.dialect, message.native, message.body,
                               message.size, message.durable, message.priority, message.expiry, message.arrival)
                outbound.special[queue.log.last_id + 1] = subscription
                queue.enqueue(copy)

    # The queue.

    def wants(self, message: Message) -> bool:
        """While the client is away, only what is of QoS 1 or 2 for it is kept."""
        if self.connection is not None:
            return True
        if not message.durable:
            return False
        exchange = message.address.exchange
        if exchange != EXCHANGE and exchange != SYSTEM_EXCHANGE:
            return True
        match = self.subscriptions.match(message.address.routing_key)
        return match is not None and match.qos > 0

    def queue_closed(self) -> None:
        """Somebody has deleted the queue, and with it the session."""
        if self.ended:
            return
        connection = self.connection
        if connection is not None:
            connection.close_with(ADMINISTRATIVE_ACTION, "the session's queue was deleted")
        self.end()

    def cancelled(self, consumer: Consumer) -> None:
        """The queue of a consumer is deleted; who keeps it hears of it, too."""

    def drained(self) -> None:
        """The socket has room again."""
        if self.outbound is not None:
            self.outbound.drained()

    # The client goes.

    def take_over(self) -> None:
        """Another connection of the client's wants the session (3.1.4)."""
        connection = self.connection
        self._leave(True, -1)
        if connection is not None:
            connection.taken_over()

    def disconnected(self, with_will: bool, expiry: int) -> None:
        """DISCONNECT has come. expiry: how long the session is kept from now on, s; -1: as long as CONNECT said."""
        self._leave(with_will, expiry)

    def lost(self) -> None:
        """The connection is gone without DISCONNECT."""
        self._leave(True, -1)

    def _leave(self, with_will: bool, expiry: int) -> None:
        if self.connection is None:
            return
        self.connection = None
        self.inbound = None
        if self.outbound is not None:
            self.outbound.detach()
        if expiry >= 0:
            self.expiry = expiry
        if not with_will:
            self.will = None
        self.gone_at = self.host.broker.clock.now
        if self.expiry == 0 or self.ended:
            self.end()
        else:
            self._keep_for_later(self.will is not None)
            self.save()

    def _keep_for_later(self, with_will: bool) -> None:
        """Have the will published, and the session end, when it is time."""
        timers = self.host.broker.timers
        will = self.will
        if with_will and will is not None:
            if will.delay:
                self._will_timer = timers.at(self.gone_at + 1000 * will.delay, self._publish_will)
            else:
                self._publish_will()
        if self.expiry != FOREVER and not self.ended:
            self._expiry_timer = timers.at(self.gone_at + 1000 * self.expiry, self.end)

    def _publish_will(self) -> None:
        will, self.will = self.will, None
        self._will_timer = None
        if will is None:
            return
        message = will.message(self.host.broker.clock.now)
        message.origin = self.client_id
        self.save()  # in one batch with the message
        try:
            address = message.address
            route = self.host.routes.get(address.short_strings)
            if route is None:
                route = self.host.route(address.short_strings, address.exchange, address.routing_key)
            self.host.publish(route, message, None)
        except BrokerError as error:
            logger.warning("the will of client %s cannot be published: %s", self.client_id, error)

    def _cancel_timers(self) -> None:
        for timer in (self._will_timer, self._expiry_timer):
            if timer is not None:
                timer.cancel()
        self._will_timer = self._expiry_timer = None

    def end(self) -> None:
        """The session is over: what it had goes, and its will is published now, if it still waits (3.1.3.2.2)."""
        if self.ended and self.queue is None:
            return
        self.ended = True
        self._cancel_timers()
        self.registry.forget(self)
        for text in list(self.subscriptions.shared):
            self.registry.shares.leave(self, text)
        queue, self.queue = self.queue, None
        self.outbound = None
        if queue is not None:
            self.host.delete_queue(queue)
        self._publish_will()

    # For operators.

    def unsettled(self) -> int:
        """Messages that the client has not acknowledged."""
        return 0 if self.outbound is None else self.outbound.unsettled()

    def consumers(self) -> list[Consumer]:
        return [] if self.outbound is None else list(self.outbound.consumers)
