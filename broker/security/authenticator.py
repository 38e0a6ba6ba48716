"""Who may come in by one listener: its providers, asked in their order, and what all of them have in common.

    authenticator = Authenticator([file, directory], ["PLAIN", "SCRAM-SHA-256"])
    authenticator.check_password("shop", b"secret", peer, lambda result: ...)     # an Identity or a Refusal

A provider that does not know a user passes on to the next; what else it says, counts.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from broker.security.addresses import source_of
from broker.security.identity import Identity, Peer
from broker.security.lockout import Lockout
from broker.security.passwords import SCRAM_HASHES, CramVerifier, ScramVerifier
from broker.security.provider import Answer, Negotiation, Provider, Refusal, shown
from broker.security.scram import BINDINGS, PLUS
from broker.security.turns import Turns
from broker.security.users import GUEST

V = TypeVar("V")
CLEAR = frozenset({"PLAIN", "AMQPLAIN", "XOAUTH2", "OAUTHBEARER"})
"""These send the password or token itself."""


class Authenticator:
    """Asks providers. `allowed` are the mechanisms of the listener.

    Without `clear_passwords`, mechanisms that send the password itself are offered over loopback and TLS only.
    `anonymous_user` is who anonymous clients become, if ANONYMOUS is allowed. `secret` is what the salts shown for
    unknown users are made of (`scram`): the same in all brokers that share their users, and after a restart, or else a
    patient observer can tell which users exist.
    """

    def __init__(self, providers: Sequence[Provider], allowed: Collection[str], *, clear_passwords: bool = False,
                 anonymous_user: str = "", secret: bytes = b"", lockout: Lockout | None = None,
                 turns: Turns | None = None) -> None:
        self.providers = list(providers)
        self.allowed = frozenset(allowed)
        self.clear_passwords = clear_passwords
        self.anonymous_user = anonymous_user
        self._secret = secret or os.urandom(32)
        self._lockout = lockout
        self._turns = turns or Turns()

    def mechanisms(self, peer: Peer, also: Collection[str] = ()) -> set[str]:
        """What this client may log in by. also: more that is allowed."""
        able = {name for provider in self.providers for name in provider.mechanisms()}
        if self.anonymous_user:
            able.add("ANONYMOUS")
        if not peer.certificate:
            able.discard("EXTERNAL")
        if self._readable(peer):
            able -= CLEAR
        offered = able & {*self.allowed, *also}
        if peer.tls and any(peer.channel_binding(kind) for kind in BINDINGS):
            offered |= {name + PLUS for name in SCRAM_HASHES if name in offered}
        return offered

    def why_not(self, mechanism: str, peer: Peer) -> str:
        """Why a mechanism is not offered: text for the log."""
        known = f"mechanism {shown(mechanism)} is not offered"
        if mechanism in CLEAR & self.allowed and self._readable(peer):
            return f"{known}: passwords are taken over TLS only, as the listener has no clear_passwords"
        return known

    def _readable(self, peer: Peer) -> bool:
        """Whether others could read what the client sends, and the listener minds."""
        return not (self.clear_passwords or peer.loopback or peer.tls)

    def anonymous(self, peer: Peer) -> Identity | Refusal:
        if self.anonymous_user == GUEST and not peer.loopback:
            return Refusal(f"user '{GUEST}' may log in over loopback only")
        return Identity(self.anonymous_user)

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        self._ask(lambda provider, tell: provider.check_password(name, password, peer, tell), name, peer, answer)

    def check_token(self, name: str, token: str, peer: Peer, answer: Answer) -> None:
        self._ask(lambda provider, tell: provider.check_token(name, token, peer, tell), name, peer, answer)

    def check_certificate(self, wanted: str, peer: Peer, answer: Answer) -> None:
        self._ask(lambda provider, tell: provider.check_certificate(wanted, peer, tell), wanted, peer, answer)

    def scram(self, scheme: str, name: str, peer: Peer) -> tuple[ScramVerifier, Identity | Refusal]:
        """A user's verifier and who it will be; or for any who may not log in one that nothing matches, and why.

        For the same name that is always of the same salt, so a client cannot tell (RFC 5802, section 9).
        """
        found = self._first(lambda provider: provider.scram(scheme, name, peer))
        if not isinstance(found, Refusal):
            return found
        forms = [form for provider in self.providers for form in provider.scram_forms(scheme)] or [(4096, 16)]
        seed = hmac.digest(self._secret, f"{scheme} {name}".encode("utf-8", "surrogatepass"), "sha512")
        iterations, salt_size = forms[int.from_bytes(seed[:8]) % len(forms)]
        salt = hmac.digest(self._secret, seed, "sha512")[:salt_size]
        size = hmac.new(b"", digestmod=SCRAM_HASHES[scheme]).digest_size
        return ScramVerifier(scheme, iterations, salt, os.urandom(size), os.urandom(size)), found

    def cram_md5(self, name: str, peer: Peer) -> tuple[CramVerifier, Identity | Refusal]:
        """The same for CRAM-MD5."""
        found = self._first(lambda provider: provider.cram_md5(name, peer))
        return (CramVerifier(os.urandom(32)), found) if isinstance(found, Refusal) else found

    def negotiation(self, peer: Peer) -> Negotiation | Refusal:
        """The talk of GSSAPI, with the first provider that has it; `conclude` is to hear how it ends."""
        refusals = []
        for provider in self.providers:
            found = provider.negotiation(peer)
            if not isinstance(found, Refusal):
                return found
            refusals.append(found)
        return self._refusal(refusals)

    def review(self, identity: Identity, peer: Peer, answer: Answer) -> None:
        """What somebody who is logged in is now, after a reload, or why he may not stay."""
        for provider in self.providers:
            if provider.name == identity.provider:
                provider.review(identity, peer, lambda result: answer(result if isinstance(result, Refusal) else (
                    result.come_by(mechanism=identity.mechanism, provider=identity.provider))))
                return
        if identity.provider:
            answer(Refusal(f"provider {identity.provider} is none of the listener's any more"))
        elif identity.user == self.anonymous_user:
            answer(identity)
        else:
            answer(Refusal(f"anonymous clients are not user {shown(identity.user)} any more"))

    def conclude(self, name: str, result: Identity | Refusal, peer: Peer, answer: Answer) -> None:
        """A mechanism has found out by itself whether a client that says it is `name` may log in."""
        self._conclude(name, result, peer, self._now(), answer)

    def _first(self, question: Callable[[Provider], tuple[V, Identity] | Refusal]) -> tuple[V, Identity] | Refusal:
        """What the first provider that knows the user says."""
        refusals = []
        for provider in self.providers:
            found = question(provider)
            if not isinstance(found, Refusal):
                return found[0], found[1].come_by(provider=provider.name)
            refusals.append(found)
            if not found.unknown:
                break
        return self._refusal(refusals)

    def _ask(self, question: Callable[[Provider, Answer], None], name: str, peer: Peer, answer: Answer) -> None:
        """Ask the providers when the address has its turn, unless it has been locked out until then."""
        began = self._now()
        refusals: list[Refusal] = []

        def ask(index: int) -> None:
            if index == len(self.providers):
                end(self._refusal(refusals))
                return
            provider = self.providers[index]

            def heard(result: Identity | Refusal) -> None:
                if isinstance(result, Identity):
                    end(result.come_by(provider=provider.name))
                    return
                refusals.append(result)
                ask(index + 1 if result.unknown else len(self.providers))

            question(provider, heard)

        def end(result: Identity | Refusal) -> None:
            self._conclude(name, result, peer, began, answer)
            self._turns.give_back(source)

        def start() -> None:
            locked = self._lockout.refusal(name, peer) if self._lockout is not None else None
            if locked is None:
                ask(0)
            else:
                end(locked)

        source = source_of(peer.address)
        if not self._turns.take(source, start):
            self._conclude(name, Refusal("too many logins of its address wait", trouble=True), peer, began, answer)

    def _conclude(self, name: str, result: Identity | Refusal, peer: Peer, began: int, answer: Answer) -> None:
        if self._lockout is None:
            answer(result)
        else:
            self._lockout.conclude(name, result, peer, began, answer)

    def _now(self) -> int:
        return self._lockout.now if self._lockout is not None else 0

    def _refusal(self, refusals: list[Refusal]) -> Refusal:
        """One for all that providers have said, the last of which may be the only one to know the user."""
        if not refusals:
            return Refusal("there is no provider of users")
        if len(refusals) == 1 or not refusals[-1].unknown:
            return Refusal(refusals[-1].reason, trouble=any(each.trouble for each in refusals))
        named = zip(self.providers, refusals, strict=False)
        return Refusal("; ".join(f"{provider.name}: {refusal.reason}" for provider, refusal in named),
                       trouble=any(each.trouble for each in refusals))
