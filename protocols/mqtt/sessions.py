"""The sessions of all clients by virtual host and client identifier. One registry for a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.virtualhost import VirtualHost
from protocols.mqtt.opening import Connect
from protocols.mqtt.publish import Will
from protocols.mqtt.session import Session
from protocols.mqtt.system_topics import SystemTopics

if TYPE_CHECKING:
    from protocols.mqtt.connection import Connection


class Sessions:
    """Sessions of clients that are there."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], Session] = {}
        self.system_topics: dict[VirtualHost, SystemTopics] = {}  # of each virtual host

    def open(self, connection: Connection, connect: Connect, will: Will | None) -> tuple[Session, bool]:
        """The session for a client that has logged in, and whether it was there before (session present).

        A connection that has it is told by `Connection.taken_over`. Raises: MqttError.
        """
        key = (connection.host_name, connect.client_id)
        old = self._sessions.get(key)
        if old is not None:
            old.take_over()
        session = self._sessions[key] = Session(self, connection, connect, will)
        return session, False

    def forget(self, session: Session) -> None:
        key = (session.host.name, session.client_id)
        if self._sessions.get(key) is session:
            del self._sessions[key]
