"""Reply codes of 0-9-1 (section 1.1 of the protocol's reference) and what they cost."""

from __future__ import annotations

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

REPLIES = {
    311: "CONTENT_TOO_LARGE", 312: "NO_ROUTE", 313: "NO_CONSUMERS", 320: "CONNECTION_FORCED", 402: "INVALID_PATH",
    403: "ACCESS_REFUSED", 404: "NOT_FOUND", 405: "RESOURCE_LOCKED", 406: "PRECONDITION_FAILED", 501: "FRAME_ERROR",
    502: "SYNTAX_ERROR", 503: "COMMAND_INVALID", 504: "CHANNEL_ERROR", 505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR", 530: "NOT_ALLOWED", 540: "NOT_IMPLEMENTED", 541: "INTERNAL_ERROR",
}

_CODES: dict[type[BrokerError], int] = {
    NotFound: 404, AccessRefused: 403, Forbidden: 403, ResourceLocked: 405, PreconditionFailed: 406,
    CommandInvalid: 503, NotAllowed: 530, NotImplementedHere: 540, LimitReached: 406,
}


class ProtocolError(Exception):
    """An error with a reply code: those of 4xx and 311 to 313 cost the channel, the others the connection."""

    def __init__(self, code: int, text: str, about: int = -1) -> None:
        """about: the class and method that it is about, as one number; -1 for those of the frame that caused it."""
        super().__init__(text)
        self.about = about
        self.code = code
        self.text = f"{REPLIES[code]} - {text}"

    def hard(self) -> bool:
        """Whether it closes the connection."""
        return self.code >= 500 or self.code in (320, 402)


def reply_to(error: BrokerError) -> ProtocolError:
    """The core's error in terms of this dialect."""
    return ProtocolError(_CODES.get(type(error), 541), str(error))
