"""What a SASL mechanism is, and how a login may come out.

A mechanism is a class with `respond`, in a module of its own beside this one; a line in `MECHANISMS` of
broker/security/sasl.py has it offered, as soon as a provider's `mechanisms` has its name:

    class Token(Mechanism):
        def respond(self, response, done):
            if response is None:              # there was no initial response: ask for one
                done(Challenge(b""))
                return
            self.authenticator.check_token("", text(response, self.name), self.peer,
                                           lambda result: done(finish(result)))
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.security.identity import Identity, Peer
from broker.security.provider import Refusal

if TYPE_CHECKING:
    from broker.security.authenticator import Authenticator


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this to the client and hand its response to `SaslServer.step`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Success:
    """The client is this. `extra` goes with the dialect's success, and is b"" unless `SaslServer` was told so."""

    identity: Identity
    extra: bytes = b""

    @property
    def user(self) -> str:
        return self.identity.user


@dataclass(frozen=True, slots=True)
class Failure:
    """Refuse the client; log the reason. `extra` is what the mechanism has the client told by a last challenge."""

    reason: str
    extra: bytes = b""


Outcome = Challenge | Success | Failure
Done = Callable[[Outcome], None]


class Mechanism:
    """One mechanism's state for one login. All that it decides goes through the authenticator, which counts failures.
    """

    __slots__ = ("name", "authenticator", "peer")

    def __init__(self, name: str, authenticator: Authenticator, peer: Peer) -> None:
        self.name = name
        self.authenticator = authenticator
        self.peer = peer

    def respond(self, response: bytes | None, done: Done) -> None:
        """Take a response (None only at first: there was none) and call `done` once, now or later. Never raises."""
        raise NotImplementedError


def finish(result: Identity | Refusal, extra: bytes = b"") -> Outcome:
    """The last outcome, of what the authenticator says."""
    return Failure(result.reason) if isinstance(result, Refusal) else Success(result, extra)


def text(value: bytes, mechanism: str) -> str:
    """Raises ValueError, as the next one does, with the reason for the log."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{mechanism}: the response is not UTF-8") from None


def saslname(value: str, mechanism: str) -> str:
    """A name where =2C and =3D stand for ',' and '=' (RFC 5801, section 4). Not prepared: names are the same in all
    mechanisms."""
    if re.search("=(?!2C|3D)", value):
        raise ValueError(f"{mechanism}: a name with '=' in it that is not =2C or =3D")
    return value.replace("=2C", ",").replace("=3D", "=")


def unbase64(value: str, mechanism: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError(f"{mechanism}: base64 in a message is damaged") from None
