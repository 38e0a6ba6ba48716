"""Error conditions of AMQP 1.0 (part 2, sections 2.8.15 to 2.8.18; part 4, section 4.5.8) and what they cost."""

from __future__ import annotations

from typing import Final

from broker.errors import (
    AccessRefused,
    BrokerError,
    CommandInvalid,
    Forbidden,
    LimitReached,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    ResourceLocked,
)
from broker.values import Described
from protocols.amqp10.frames import error as error_value

CONNECTION: Final = 0
SESSION: Final = 1
LINK: Final = 2
"""What an error costs."""

INTERNAL_ERROR: Final = "amqp:internal-error"
NOT_FOUND: Final = "amqp:not-found"
UNAUTHORIZED: Final = "amqp:unauthorized-access"
DECODE_ERROR: Final = "amqp:decode-error"
LIMIT_EXCEEDED: Final = "amqp:resource-limit-exceeded"
NOT_ALLOWED: Final = "amqp:not-allowed"
INVALID_FIELD: Final = "amqp:invalid-field"
NOT_IMPLEMENTED: Final = "amqp:not-implemented"
RESOURCE_LOCKED: Final = "amqp:resource-locked"
PRECONDITION_FAILED: Final = "amqp:precondition-failed"
RESOURCE_DELETED: Final = "amqp:resource-deleted"
ILLEGAL_STATE: Final = "amqp:illegal-state"
FORCED: Final = "amqp:connection:forced"
FRAMING_ERROR: Final = "amqp:connection:framing-error"
WINDOW_VIOLATION: Final = "amqp:session:window-violation"
ERRANT_LINK: Final = "amqp:session:errant-link"
HANDLE_IN_USE: Final = "amqp:session:handle-in-use"
UNATTACHED_HANDLE: Final = "amqp:session:unattached-handle"
DETACH_FORCED: Final = "amqp:link:detach-forced"
TRANSFER_LIMIT: Final = "amqp:link:transfer-limit-exceeded"
MESSAGE_SIZE: Final = "amqp:link:message-size-exceeded"
STOLEN: Final = "amqp:link:stolen"
UNKNOWN_TRANSACTION: Final = "amqp:transaction:unknown-id"
TRANSACTION_ROLLBACK: Final = "amqp:transaction:rollback"
TRANSACTION_TIMEOUT: Final = "amqp:transaction:timeout"


class ProtocolError(Exception):
    """An error with its condition: it costs the connection, the session or the link, as `costs` says."""

    def __init__(self, condition: str, text: str, costs: int, info: dict[str, object] | None = None) -> None:
        super().__init__(text)
        self.condition = condition
        self.text = text
        self.costs = costs
        self.info = info

    def value(self) -> Described:
        """The error as a field of a performative."""
        return error_value(self.condition, self.text, self.info)


_CONDITIONS: dict[type[BrokerError], str] = {
    NotFound: NOT_FOUND, AccessRefused: UNAUTHORIZED, Forbidden: UNAUTHORIZED, ResourceLocked: RESOURCE_LOCKED,
    PreconditionFailed: PRECONDITION_FAILED, CommandInvalid: INVALID_FIELD, NotAllowed: NOT_ALLOWED,
    NotImplementedHere: NOT_IMPLEMENTED, LimitReached: LIMIT_EXCEEDED}


def link_error(error: BrokerError) -> ProtocolError:
    """The core's error in terms of this dialect; it costs the link."""
    return ProtocolError(_CONDITIONS.get(type(error), INTERNAL_ERROR), str(error), LINK)
