"""What a source of users is to the authenticator: a password file, a directory, issuers of tokens or of certificates.

A provider implements the questions that it can answer; the others say that it does not know the user, and the
authenticator asks the next one in its order. Answers may come later, on the event loop: slow work is done by `Run`.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.security.identity import Identity, Peer
from broker.security.passwords import CramVerifier, ScramVerifier

NAME_LIMIT = 256  # characters of a user's name


class Refusal:
    """Why somebody may not log in.

    `reason` is for the log: a client is only ever told that it was refused. `unknown`: the user, token or certificate
    is none of this provider's, and another one may know it. `trouble`: the provider could not tell (its directory is
    down, ...), so this is no failed guess that counts.
    """

    __slots__ = ("reason", "unknown", "trouble")

    def __init__(self, reason: str, unknown: bool = False, trouble: bool = False) -> None:
        self.reason = reason
        self.unknown = unknown
        self.trouble = trouble


Answer = Callable[[Identity | Refusal], None]
"""Told once, on the event loop, at once or later."""

Run = Callable[[Callable[[], object], Callable[[object | BaseException], None]], None]
"""Runs its first argument on a thread, then the second on the event loop with what the first returned or raised."""


class Negotiation:
    """One client's talk with a provider, of as many steps as they need; providers derive from this."""

    def respond(self, response: bytes, answer: Callable[[bytes | Identity | Refusal], None]) -> None:
        """Take what the client says; answer with what it is to be told, or with how it ends."""
        raise NotImplementedError


class Provider:
    """A source of users."""

    name = ""
    """What logs and `Identity.provider` call it."""

    def mechanisms(self) -> set[str]:
        """The SASL mechanisms that it can answer for, as things are now."""
        return set()

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        """PLAIN, AMQPLAIN, MQTT's CONNECT, HTTP basic."""
        answer(Refusal("it has no passwords", unknown=True))

    def scram(self, scheme: str, name: str, peer: Peer) -> tuple[ScramVerifier, Identity] | Refusal:
        """The verifier of a user, and who it will be if its proof fits. At once: the client waits within SASL."""
        return Refusal("it has no SCRAM verifiers", unknown=True)

    def cram_md5(self, name: str, peer: Peer) -> tuple[CramVerifier, Identity] | Refusal:
        """The same for CRAM-MD5."""
        return Refusal("it has no CRAM-MD5 verifiers", unknown=True)

    def scram_forms(self, scheme: str) -> list[tuple[int, int]]:
        """Iterations and salt sizes of the verifiers that it has: what is made up for unknown users looks like them."""
        return []

    def check_token(self, name: str, token: str, peer: Peer, answer: Answer) -> None:
        """XOAUTH2, OAUTHBEARER, HTTP bearer. name: the user that the client says it is, "" if it leaves that to the
        token."""
        answer(Refusal("it has no tokens", unknown=True))

    def check_certificate(self, wanted: str, peer: Peer, answer: Answer) -> None:
        """EXTERNAL, by `peer.certificate`. wanted: the user that the client asks to be, "" for the certificate's."""
        answer(Refusal("it has no certificates", unknown=True))

    def negotiation(self, peer: Peer) -> Negotiation | Refusal:
        """GSSAPI, which begins without a name."""
        return Refusal("it has no tickets", unknown=True)

    def review(self, identity: Identity, peer: Peer, answer: Answer) -> None:
        """What somebody who is logged in by it is now that users have been read again, or why he may not stay. Where
        it cannot tell, he stays as he is."""
        answer(identity)

    def close(self) -> None:
        """The broker stops, or uses others from now on."""


def is_name(text: str, most: int = NAME_LIMIT) -> bool:
    """Whether it can be a user's name. most: characters."""
    return 0 < len(text) <= most and text.isprintable()


def shown(name: str) -> str:
    """A name as a log can take it, whatever is in it."""
    return repr(name) if len(name) <= 64 else repr(name[:64]) + "..."
