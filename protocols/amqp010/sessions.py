"""The sessions of all connections by name, among them those that are detached and wait for their client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.virtualhost import VirtualHost

if TYPE_CHECKING:
    from protocols.amqp010.session import Session


class Sessions:
    """One registry for a server. A name is one user's in one virtual host (rule `scoping` of session.attach)."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str, bytes], Session] = {}

    def find(self, host: VirtualHost, user: str, name: bytes) -> Session | None:
        return self._sessions.get((host.name, user, name))

    def add(self, session: Session) -> None:
        self._sessions[session.host.name, session.user, session.name] = session

    def remove(self, session: Session) -> None:
        key = (session.host.name, session.user, session.name)
        if self._sessions.get(key) is session:
            del self._sessions[key]
