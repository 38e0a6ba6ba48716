"""CRAM-MD5 (RFC 2195): we send a challenge, the client its name and the HMAC-MD5 of the challenge with its password.

For old clients only: who overhears a login can guess at the password as fast as MD5 goes.
"""

from __future__ import annotations

import hmac
import os
import re
from typing import TYPE_CHECKING

from broker.security.identity import Peer
from broker.security.md5 import hmac_digest
from broker.security.mechanism import Challenge, Done, Failure, Mechanism, finish, text
from broker.security.provider import Refusal, shown

if TYPE_CHECKING:
    from broker.security.authenticator import Authenticator

_RESPONSE = re.compile(r"([^\0]+) ([0-9a-fA-F]{32})")


class CramMd5(Mechanism):
    __slots__ = ("_challenge",)

    def __init__(self, name: str, authenticator: Authenticator, peer: Peer) -> None:
        super().__init__(name, authenticator, peer)
        self._challenge = b""

    def respond(self, response: bytes | None, done: Done) -> None:
        if not self._challenge:
            if response:
                done(Failure("CRAM-MD5: a response before the challenge"))
                return
            self._challenge = _new_challenge()
            done(Challenge(self._challenge))
            return
        try:
            found = _RESPONSE.fullmatch(text(response or b"", self.name))
            if not found:
                raise ValueError("CRAM-MD5: the response is not a name and 32 hexadecimal digits")
        except ValueError as error:
            done(Failure(str(error)))
            return
        user = found[1]
        verifier, result = self.authenticator.cram_md5(user, self.peer)
        right = hmac.compare_digest(hmac_digest(verifier.states, self._challenge), bytes.fromhex(found[2]))
        if not right and not isinstance(result, Refusal):
            result = Refusal(f"wrong password for user {shown(user)}")
        self.authenticator.conclude(user, result, self.peer, lambda final: done(finish(final)))


def _new_challenge() -> bytes:
    """Never the same twice, in the form that RFC 822 has for a message's id."""
    return f"<{os.urandom(16).hex()}@dragoman>".encode()
