"""What can go wrong with a connection, a session or a command of AMQP 0-10."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

ERROR_NAMES = {
    403: "unauthorized-access", 404: "not-found", 405: "resource-locked", 406: "precondition-failed",
    408: "resource-deleted", 409: "illegal-state", 503: "command-invalid", 506: "resource-limit-exceeded",
    530: "not-allowed", 531: "illegal-argument", 540: "not-implemented", 541: "internal-error",
    542: "invalid-argument"}
"""Error codes of execution.exception."""

DETACH_NAMES = {0: "normal", 1: "session-busy", 2: "transport-busy", 3: "not-attached", 4: "unknown-ids"}
"""Codes of session.detached."""


class Error(Exception):
    """Any of these."""


class ConnectionError_(Error):
    """There is no connection: it was refused, closed by the other side, or broken for good.

    code: of connection.close (section 4.1), 0 when there was none; text: what the other side said, or what happened.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(f"{code} {text}" if code else text)
        self.code = code
        self.text = text


class AuthenticationFailed(ConnectionError_):
    """The other side did not take the credentials, or has no mechanism for which there are any."""


class SessionError(Error):
    """execution.exception: the other side could not carry out a command, and the session is over."""

    def __init__(self, error_code: int, description: str, *, command_id: int = -1, class_code: int = 0,
                 command_code: int = 0, field_index: int = 0, info: dict[str, Any] | None = None) -> None:
        self.error_code = error_code
        self.name = ERROR_NAMES.get(error_code, "unknown")
        self.description = description
        self.command_id = command_id
        self.class_code = class_code
        self.command_code = command_code
        self.field_index = field_index
        self.info = info or {}
        super().__init__(f"{error_code} {self.name}: {description}")


class Detached(Error):
    """The session has no connection any more, and what was not completed will not be.

    code: of session.detached; text: why.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Timeout(Error):
    """Something was not done in its time. What was sent may still be carried out."""


class Empty(Timeout):
    """No message came in the time given."""


class AddressError(Error):
    """There is no queue or exchange of this name, or what was asked for makes no sense for it."""


async def within(awaitable: Awaitable[T], seconds: float, what: str) -> T:
    """Wait no longer than that. Raises: Timeout."""
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        raise Timeout(f"{what} took longer than {seconds:g} s") from None
