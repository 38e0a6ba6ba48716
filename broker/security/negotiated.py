"""The mechanism GSSAPI (RFC 4752): the client and a provider of tickets talk, and this passes on what they say."""

from __future__ import annotations

from broker.security.authenticator import Authenticator
from broker.security.identity import Identity, Peer
from broker.security.mechanism import Challenge, Done, Mechanism, finish
from broker.security.provider import Negotiation, Refusal


class Negotiated(Mechanism):
    """As many responses as the provider needs."""

    __slots__ = ("_talk",)

    def __init__(self, name: str, authenticator: Authenticator, peer: Peer) -> None:
        super().__init__(name, authenticator, peer)
        self._talk: Negotiation | None = None

    def respond(self, response: bytes | None, done: Done) -> None:
        if response is None:
            done(Challenge(b""))
            return

        def conclude(result: Identity | Refusal) -> None:
            user = result.user if isinstance(result, Identity) else ""
            self.authenticator.conclude(user, result, self.peer, lambda last: done(finish(last)))

        def heard(answer: bytes | Identity | Refusal) -> None:
            if isinstance(answer, bytes):
                done(Challenge(answer))
            else:
                conclude(answer)

        if self._talk is None:
            talk = self.authenticator.negotiation(self.peer)
            if isinstance(talk, Refusal):
                conclude(talk)
                return
            self._talk = talk
        self._talk.respond(response, heard)
