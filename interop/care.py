"""What a bridge does about messages that its target does not take.

One that is refused for now is tried again before all that came after it, and for a while the bridge sends one at a
time: what is sent behind a message that is refused overtakes it. When the other side closes the channel, the link or
the connection, some message may be the reason, for which it would do so for ever: so messages are sent one at a time
until those that were on their way have passed, and one with which alone this happens again and again is to blame.
That one, and what is refused for good, is rejected at its source if it is kept there as a dead letter; otherwise the
bridge is blocked, since it must not lose it.
"""

from __future__ import annotations

import re

from broker.message import Message
from interop.ends import FORBIDDEN, NOWHERE, REFUSED

DEAD_LETTER = "dead-letter"
REJECT_ANYWAY = "reject"
STOP = "stop"

CALM = 1000
"""Messages that have to pass one at a time after a refusal."""

CLOSES = 2
LOSSES = 3
"""How often a channel or link is closed, or the connection lost, with the same message alone on its way, until that is
to blame: a connection may be lost for other reasons."""

_PASSING = re.compile(r"^(320|404|506)\b|resource-limit|resource.error|forced|not.found|shut", re.IGNORECASE)
"""Reasons for which no message is to blame: something is full or gone, or the other broker goes down."""

_FORBIDDEN = re.compile(r"^403\b|access|not.allowed|not.authorized", re.IGNORECASE)
"""Reasons that are about who we are."""

_SHOWN = 80
"""Characters of an id or a key in an error."""


class Care:
    """Of one bridge, for as long as it lives, whatever connections come and go."""

    def __init__(self, on_refused: str = DEAD_LETTER, strict: bool = False, subscribes: bool = False) -> None:
        """strict: always send one at a time. subscribes: what it takes is published for all to hear, so that nobody
        misses what has nowhere to go."""
        self.on_refused = on_refused
        self.strict = strict
        self.subscribes = subscribes
        self.blocked = False  # by a message that is to be tried again
        self.told = ""  # why a message was rejected, as the log has it
        self.slow = 0  # messages that are to go one at a time
        self._suspect: tuple[object, ...] | None = None
        self._strikes = 0
        self._passed = CALM  # messages that were taken since the target was lost

    def one_at_a_time(self) -> bool:
        return self.strict or self.slow > 0

    def taken(self) -> None:
        """The target has taken a message."""
        self._passed += 1
        self._suspect = None
        self.blocked = False
        if self.slow:
            self.slow -= 1

    def refused(self) -> None:
        """The target does not take a message for now."""
        self.slow = CALM

    def block(self) -> None:
        self.blocked = True
        self.slow = max(1, self.slow)

    def rejects(self, reason: int, kept: bool | None) -> bool:
        """Whether a message that the target never takes is rejected at its source; otherwise it blocks the bridge.

        reason: REFUSED, NOWHERE or FORBIDDEN; kept: whether the source keeps what is rejected, None when nobody knows.
        """
        if self.on_refused != DEAD_LETTER:
            return self.on_refused == REJECT_ANYWAY
        return reason != FORBIDDEN and (bool(kept) or (self.subscribes and reason == NOWHERE))

    def broke(self, cut: list[Message], connection: bool, why: str) -> int:
        """The target was lost with these messages on their way; connection: with the whole connection. Gives REFUSED or
        FORBIDDEN when the only one of them is to blame, else 0."""
        passed, self._passed = self._passed, 0
        if not cut or (connection and passed >= CALM) or _PASSING.search(why):
            self._suspect = None
            return 0
        self.slow = max(self.slow, len(cut))
        if len(cut) > 1:
            self._suspect = None
            return 0
        suspect = _likeness(cut[0])
        self._strikes = self._strikes + 1 if suspect == self._suspect else 1
        self._suspect = suspect
        if self._strikes < (LOSSES if connection else CLOSES):
            return 0
        self._suspect = None
        return FORBIDDEN if _FORBIDDEN.search(why) else REFUSED


def described(message: Message) -> str:
    """A message, for an operator who looks for it."""
    named = _id(message)
    named = f"message {named[:_SHOWN]}" if named else "a message without id"
    return f"{named} (key '{message.address.routing_key[:_SHOWN]}', {message.size} bytes)"


def _id(message: Message) -> str:
    try:
        return str(message.view().message_id or "")
    except Exception:  # of what cannot be decoded, which may be what is wrong with it
        return ""


def _likeness(message: Message) -> tuple[object, ...]:
    """By which a message is known when it comes again."""
    return message.address.short_strings, message.size, hash(message.native), hash(b"".join(message.body or ()))
