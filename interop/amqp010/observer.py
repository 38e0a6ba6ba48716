"""What is told of a session to whoever moves many messages, and waits for none of them."""

from __future__ import annotations

from typing import Any

from interop.amqp010.errors import Error
from interop.amqp010.session import Answered, Pending


class Observer:
    """Is told what happens in a session; `Session.observer` is one."""

    def settled(self, pending: Pending[Any]) -> bool:
        """A command is done or failed. Gives whether it was this observer's."""
        return False

    def answered(self, event: Answered) -> None:
        """The other side says what becomes of messages that were sent to be accepted."""

    def flowing(self) -> None:
        """There may be room for more again."""

    def ended(self, error: Error | None) -> None:
        """The session is over."""
