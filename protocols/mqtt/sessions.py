"""The sessions of all clients by virtual host and client identifier. One registry for a server."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from broker.broker import Broker
from broker.errors import BrokerError, NotFound
from broker.virtualhost import VirtualHost
from protocols.mqtt.errors import CLIENT_ID_NOT_VALID, NOT_AUTHORIZED, MqttError
from protocols.mqtt.opening import Connect
from protocols.mqtt.publish import Will
from protocols.mqtt.session import Session
from protocols.mqtt.sharing import Shares
from protocols.mqtt.state import HEAD, PREFIX, UNREADABLE, load_state, queue_name
from protocols.mqtt.system_topics import SystemTopics
from protocols.routes import find_route

if TYPE_CHECKING:
    from protocols.mqtt.connection import Connection

logger = logging.getLogger(__name__)


class HostSessions:
    """Those of one virtual host, and the groups that share subscriptions."""

    __slots__ = ("host", "shares", "most_messages", "system", "all")

    def __init__(self, host: VirtualHost, most_messages: int) -> None:
        self.host = host
        self.most_messages = most_messages
        self.shares = Shares(host)
        self.system: SystemTopics | None = None
        self.all: dict[str, Session] = {}  # by client identifier

    def queue_arguments(self) -> dict[str, Any]:
        """What a session's queue is declared with."""
        return {"x-max-length": self.most_messages, "x-overflow": "drop-head"} if self.most_messages else {}

    def forget(self, session: Session) -> None:
        if self.all.get(session.client_id) is session:
            del self.all[session.client_id]

    def recover(self) -> None:
        """Take up the sessions that the store has kept."""
        log = self.host.broker.log
        for queue in list(self.host.queues.values()):
            if not queue.durable or not queue.name.startswith(PREFIX):
                continue
            records = log.records(queue.queue_id)
            if not records or records[0][0] != HEAD:
                continue  # it has just this name
            try:
                state = load_state(records[0][1])
            except UNREADABLE as error:
                logger.error("%r: the session in the store is not readable: %s", queue, error)
                continue
            session = self.all[state.client_id] = Session(self, state.client_id, state.user, True)
            session.recover(queue, state, records)
        self.shares.drop_unused()


class Sessions:
    """Sessions of clients that are there, and of those that will come again.

    most_messages: that a new session's queue holds; 0 for any number.
    """

    def __init__(self, most_messages: int = 0) -> None:
        self.most_messages = most_messages
        self._hosts: dict[str, HostSessions] = {}

    def recover(self, broker: Broker) -> None:
        """Take up what the store has kept, when the broker has: sessions may end then, and wills be published."""
        for host in list(broker.hosts.values()):
            self.of(host).recover()

    def of(self, host: VirtualHost) -> HostSessions:
        found = self._hosts.get(host.name)
        if found is None:
            found = self._hosts[host.name] = HostSessions(host, self.most_messages)
        return found

    def open(self, connection: Connection, connect: Connect, will: Will | None) -> tuple[Session, bool]:
        """The session for a client that has logged in, and whether it was there before (session present).

        A connection that has it is told by `Connection.taken_over`. Raises: MqttError.
        """
        registry = self.of(connection.host)
        client_id = connect.client_id
        if len(queue_name(client_id)) > 255:
            raise MqttError(CLIENT_ID_NOT_VALID, "the client identifier is too long")
        if will is not None and will.topic.protected:
            raise MqttError(NOT_AUTHORIZED, f"clients cannot publish to {will.topic.name[:64]!r}")
        if will is not None:
            _check_will(connection, will)
        session = registry.all.get(client_id)
        if session is not None:
            if session.user != connection.user:
                raise MqttError(NOT_AUTHORIZED, f"the session of client '{client_id}' is another user's")
            session.take_over()
            if connect.clean_start:
                session.end()
            if session.ended:
                session = None
        present = session is not None
        if session is None:
            session = Session(registry, client_id, connection.user, connect.session_expiry > 0)
        session.attach(connection, connect, will)
        registry.all[client_id] = session
        return session, present


def _check_will(connection: Connection, will: Will) -> None:
    """A will is refused now, not when nobody is there any more to be told. Raises: MqttError."""
    host, address = connection.host, will.topic.address
    try:
        route = find_route(host, connection.access, address.short_strings, address.exchange, address.routing_key)
        connection.access.publish(route.address.short_strings, route.address.exchange, route.address.routing_key)
    except NotFound:
        return  # what is to be answered may be there by then
    except BrokerError as error:
        raise MqttError(NOT_AUTHORIZED, f"the will: {error}") from None
