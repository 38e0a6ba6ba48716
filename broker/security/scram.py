"""SCRAM (RFC 5802, RFC 7677), and SCRAM-*-PLUS, where the proof covers the TLS connection that it is sent over
(section 6): who sits between client and broker with a certificate of his own cannot pass a login on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from typing import TYPE_CHECKING

from broker.security.identity import NOBODY, Identity, Peer
from broker.security.mechanism import Challenge, Done, Failure, Mechanism, finish, saslname, text, unbase64
from broker.security.passwords import SCRAM_HASHES, ScramVerifier
from broker.security.provider import Refusal, shown

if TYPE_CHECKING:
    from broker.security.authenticator import Authenticator

PLUS = "-PLUS"
BINDINGS = ("tls-exporter", "tls-unique", "tls-server-end-point")
"""The kinds of channel binding that a client may choose: RFC 9266, RFC 5929."""

_CLIENT_FIRST = re.compile(r"([ny]|p=[A-Za-z0-9.-]+),(?:a=([^,\0]*))?,n=([^,\0]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*")
_CLIENT_FINAL = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*),p=([A-Za-z0-9+/=]+)")


class Scram(Mechanism):
    """The client's first message, our salt and nonce, the client's proof, our signature."""

    __slots__ = ("_scheme", "_verifier", "_result", "_user", "_binding", "_nonce", "_messages")

    def __init__(self, name: str, authenticator: Authenticator, peer: Peer) -> None:
        super().__init__(name, authenticator, peer)
        self._scheme = self.name.removesuffix(PLUS)
        self._verifier: ScramVerifier | None = None
        self._result: Identity | Refusal = NOBODY
        self._user = ""
        self._binding = b""  # the GS2 header, and the data of the channel binding
        self._nonce = ""
        self._messages = ""  # client-first-message-bare and server-first-message

    def respond(self, response: bytes | None, done: Done) -> None:
        if response is None:
            done(Challenge(b""))
            return
        try:
            message = text(response, self.name)
            if self._verifier is None:
                done(self._first(message))
            else:
                self._final(message, self._verifier, done)
        except ValueError as error:
            done(Failure(str(error)))

    def _first(self, message: str) -> Challenge:
        found = _CLIENT_FIRST.fullmatch(message)
        if not found:
            raise ValueError(f"{self.name}: the client's first message is malformed")
        flag, authorize, name, nonce = found.groups()
        bound = self._bind(flag)
        if authorize and authorize != name:
            raise ValueError(f"{self.name}: the client asks to be another user than it logs in as")
        self._user = saslname(name, self.name)
        self._verifier, self._result = self.authenticator.scram(self._scheme, self._user, self.peer)
        self._nonce = nonce + _new_nonce()
        bare = found.start(3) - len("n=")
        self._binding = message[:bare].encode("utf-8") + bound
        salt = base64.b64encode(self._verifier.salt).decode("ascii")
        server_first = f"r={self._nonce},s={salt},i={self._verifier.iterations}"
        self._messages = f"{message[bare:]},{server_first}"
        return Challenge(server_first.encode("ascii"))

    def _bind(self, flag: str) -> bytes:
        """The data that the client's proof must cover, by the flag of its GS2 header. Raises ValueError."""
        plus = self.name.endswith(PLUS)
        if plus != flag.startswith("p="):
            raise ValueError(f"{self.name}: the client asks for channel binding without -PLUS, or the other way round")
        if flag == "y" and self.name + PLUS in self.authenticator.mechanisms(self.peer):
            raise ValueError(f"{self.name}: the client did not see that channel binding is offered: somebody may have "
                             "changed the list of mechanisms on its way")
        if not plus:
            return b""
        kind = flag.removeprefix("p=")
        data = self.peer.channel_binding(kind) if kind in BINDINGS else b""
        if not data:
            raise ValueError(f"{self.name}: there is no channel binding {kind[:32]} here")
        return data

    def _final(self, message: str, verifier: ScramVerifier, done: Done) -> None:
        found = _CLIENT_FINAL.fullmatch(message)
        if not found:
            raise ValueError(f"{self.name}: the client's final message is malformed")
        without_proof, binding, nonce, proof_text = found.groups()
        if unbase64(binding, self.name) != self._binding or nonce != self._nonce:
            raise ValueError(f"{self.name}: the client's final message does not belong to its first, or came over "
                             "another connection")
        hash_name = SCRAM_HASHES[self._scheme]
        signed = f"{self._messages},{without_proof}".encode()
        signature = hmac.digest(verifier.stored_key, signed, hash_name)
        proof = unbase64(proof_text, self.name)
        client_key = bytes(mine ^ theirs for mine, theirs in zip(signature, proof, strict=False))
        stored_key = hashlib.new(hash_name, client_key).digest()
        right = hmac.compare_digest(stored_key, verifier.stored_key) and len(proof) == len(signature)
        result = self._result
        if not right and not isinstance(result, Refusal):
            result = Refusal(f"wrong password for user {shown(self._user)}")
        extra = b"v=" + base64.b64encode(hmac.digest(verifier.server_key, signed, hash_name))
        self.authenticator.conclude(self._user, result, self.peer, lambda final: done(finish(final, extra)))


def _new_nonce() -> str:
    return base64.b64encode(os.urandom(18)).decode("ascii")
