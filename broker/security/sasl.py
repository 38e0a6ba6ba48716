"""The server's side of SASL (RFC 4422), for every dialect: no frames, no sockets.

A connection makes one `SaslServer`, offers its `mechanisms`, hands `start` the client's choice and then `step` each
response, and acts on the outcome that `done` is told: at once, or later when a password has to be checked, or when
somebody who guesses is kept waiting. broker/security/mechanism.py says how a mechanism is added to those here.

Nothing that a client sends raises: it ends in `Failure`, whose reason is for the log and never for the client.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from broker.security.authenticator import Authenticator
from broker.security.bearer import Bearer
from broker.security.cram_md5 import CramMd5
from broker.security.given import Anonymous, External
from broker.security.identity import Identity, Peer
from broker.security.mechanism import Challenge, Done, Failure, Mechanism, Outcome, Success, finish
from broker.security.negotiated import Negotiated
from broker.security.plain import Clear
from broker.security.provider import Refusal, shown
from broker.security.scram import Scram

__all__ = ["MECHANISMS", "Challenge", "Done", "Failure", "Outcome", "SaslServer", "Success"]

MECHANISMS: dict[str, Callable[[str, Authenticator, Peer], Mechanism]] = {
    "EXTERNAL": External,
    "GSSAPI": Negotiated,
    "SCRAM-SHA-512-PLUS": Scram,
    "SCRAM-SHA-256-PLUS": Scram,
    "SCRAM-SHA-1-PLUS": Scram,
    "SCRAM-SHA-512": Scram,
    "SCRAM-SHA-256": Scram,
    "SCRAM-SHA-1": Scram,
    "OAUTHBEARER": Bearer,
    "XOAUTH2": Bearer,
    "CRAM-MD5": CramMd5,
    "PLAIN": Clear,
    "AMQPLAIN": Clear,
    "ANONYMOUS": Anonymous,
}
"""All that there are, best first: the order in which they are offered. A class may serve several."""

TOKENS = frozenset({"OAUTHBEARER", "XOAUTH2"})

RESPONSE_LIMIT = 16384  # bytes of one response
STEP_LIMIT = 8  # responses after the first


class SaslServer:
    """One client's login. After `Success` or `Failure` there is no other outcome but `Failure`.

    `also` are mechanisms that may be used here although the listener does not offer them. `success_extra` says that
    the dialect's success can carry data (AMQP 1.0's can); else such data goes as one more challenge, answered by an
    empty response. `failure_extra`: where a mechanism has something to say to a client that it refuses, that goes as a
    challenge before the failure; clients of 0-9-1 wait for ever after one.
    """

    __slots__ = ("mechanisms", "_authenticator", "_peer", "_success_extra", "_failure_extra", "_mechanism", "_busy",
                 "_over", "_steps", "_held")

    def __init__(self, authenticator: Authenticator, peer: Peer, *, also: Collection[str] = (),
                 success_extra: bool = False, failure_extra: bool = True) -> None:
        offered = authenticator.mechanisms(peer, also)
        self.mechanisms = [name for name in MECHANISMS if name in offered]
        self._authenticator = authenticator
        self._peer = peer
        self._success_extra = success_extra
        self._failure_extra = failure_extra
        self._mechanism: Mechanism | None = None
        self._busy = False  # an outcome is due
        self._over = False
        self._steps = 0
        self._held: Success | Failure | None = None  # what follows the response to its `extra`

    def start(self, mechanism: str, response: bytes | None, done: Done) -> None:
        """The client chose a mechanism; `response` is None if it sent no initial response, b"" if an empty one."""
        if self._mechanism is not None or self._over:
            self._fail("a second start of SASL", done)
        elif mechanism not in self.mechanisms:
            self._fail(self._authenticator.why_not(mechanism, self._peer), done)
        elif response is not None and len(response) > RESPONSE_LIMIT:
            self._fail(f"a response of more than {RESPONSE_LIMIT} bytes", done)
        else:
            self._mechanism = MECHANISMS[mechanism](mechanism, self._authenticator, self._peer)
            self._take(self._mechanism, response, done)

    def step(self, response: bytes, done: Done) -> None:
        """The client's response to the last challenge."""
        self._steps += 1
        if self._mechanism is None or self._busy or self._over:
            self._fail("a response without a challenge", done)
        elif len(response) > RESPONSE_LIMIT or self._steps > STEP_LIMIT:
            self._fail(f"a response of more than {RESPONSE_LIMIT} bytes or more than {STEP_LIMIT} responses", done)
        elif self._held is not None:
            held = self._held
            if response and isinstance(held, Success):
                self._fail("data after the end of SASL", done)
            else:
                self._over = True
                done(held)
        else:
            self._take(self._mechanism, response, done)

    def renew(self, identity: Identity, secret: bytes, done: Done) -> None:
        """A client that has logged in shows a new token, which must be of the same user. What does not expire needs
        none, and stays."""
        def decided(result: Identity | Refusal) -> None:
            if isinstance(result, Identity) and result.user != identity.user:
                result = Refusal(f"it is that of user {shown(result.user)}")
            done(finish(result if isinstance(result, Refusal) else result.come_by(mechanism=identity.mechanism)))

        if not identity.expires:
            done(Success(identity))
        elif identity.mechanism in TOKENS:
            token = secret.decode("utf-8", "replace")
            self._authenticator.check_token(identity.user, token, self._peer, decided)
        else:
            self._authenticator.check_password(identity.user, secret, self._peer, decided)

    def close(self) -> None:
        """The connection is gone: no outcome is told any more."""
        self._over = True

    def _take(self, mechanism: Mechanism, response: bytes | None, done: Done) -> None:
        self._busy = True

        def decided(outcome: Outcome) -> None:
            if self._over:  # closed or failed in the meantime
                return
            self._busy = False
            if isinstance(outcome, Success):
                outcome = self._signed(outcome, mechanism.name)
            elif isinstance(outcome, Failure) and outcome.extra and self._failure_extra:
                self._held = Failure(outcome.reason)
                outcome = Challenge(outcome.extra)
            self._over = not isinstance(outcome, Challenge)
            done(outcome)

        mechanism.respond(response, decided)

    def _signed(self, outcome: Success, mechanism: str) -> Outcome:
        """A success with the mechanism's name in it; or the challenge that goes before it."""
        identity = outcome.identity.come_by(mechanism=mechanism)
        if outcome.extra and not self._success_extra:
            self._held = Success(identity)
            return Challenge(outcome.extra)
        return Success(identity, outcome.extra)

    def _fail(self, reason: str, done: Done) -> None:
        self._over = True
        done(Failure(reason))
