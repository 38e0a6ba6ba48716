"""What AMQP 0-10 calls its errors, and what they cost: the session (execution.exception, section 5 of its model), the
attachment of a session (session.detached) or the connection (connection.close)."""

from __future__ import annotations

from broker.errors import (
    AccessRefused,
    BrokerError,
    CommandInvalid,
    Forbidden,
    IllegalState,
    InvalidArgument,
    LimitReached,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    ResourceLocked,
)

UNAUTHORIZED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
RESOURCE_DELETED, ILLEGAL_STATE, COMMAND_INVALID, LIMIT_EXCEEDED = 408, 409, 503, 506
NOT_ALLOWED, ILLEGAL_ARGUMENT, NOT_IMPLEMENTED, INTERNAL_ERROR, INVALID_ARGUMENT = 530, 531, 540, 541, 542
"""Error codes of execution.exception."""

NAMES = {
    403: "unauthorized-access", 404: "not-found", 405: "resource-locked", 406: "precondition-failed",
    408: "resource-deleted", 409: "illegal-state", 503: "command-invalid", 506: "resource-limit-exceeded",
    530: "not-allowed", 531: "illegal-argument", 540: "not-implemented", 541: "internal-error",
    542: "invalid-argument",
}

NORMAL, SESSION_BUSY, TRANSPORT_BUSY, NOT_ATTACHED, UNKNOWN_IDS = 0, 1, 2, 3, 4
"""Codes of session.detached."""

CONNECTION_FORCED, INVALID_PATH, FRAMING_ERROR = 320, 402, 501
"""Codes of connection.close."""

_CODES: dict[type[BrokerError], int] = {
    NotFound: NOT_FOUND, AccessRefused: NOT_ALLOWED, Forbidden: UNAUTHORIZED, ResourceLocked: RESOURCE_LOCKED,
    PreconditionFailed: PRECONDITION_FAILED, CommandInvalid: COMMAND_INVALID, NotAllowed: NOT_ALLOWED,
    NotImplementedHere: NOT_IMPLEMENTED, IllegalState: ILLEGAL_STATE, InvalidArgument: INVALID_ARGUMENT,
    LimitReached: LIMIT_EXCEEDED,
}


class SessionError(Exception):
    """A command cannot be executed: it costs the session."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Detached(Exception):
    """A control makes no sense: the session is detached, or was not attached."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class ConnectionError010(Exception):
    """What costs the connection."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def session_error(error: BrokerError) -> SessionError:
    """The core's error in terms of this dialect."""
    return SessionError(_CODES.get(type(error), INTERNAL_ERROR), str(error))


def short(text: str, most: int = 255) -> str:
    """As much of a text as a string takes."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
