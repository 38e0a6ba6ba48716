"""The client's side of SASL (RFC 4422): PLAIN, ANONYMOUS, EXTERNAL, CRAM-MD5 and SCRAM."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from interop.amqp010.errors import AuthenticationFailed

SCRAM = {"SCRAM-SHA-512": "sha512", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}

MOST_ITERATIONS = 1_000_000
"""More would keep us busy for longer than any login should take."""


class Login:
    """One login. `start` chooses a mechanism, `step` answers challenges; both raise AuthenticationFailed.

    mechanisms: those that may be used, best first; by default those that fit: with a user's name and password, SCRAM,
    CRAM-MD5 and PLAIN; without, EXTERNAL if TLS has shown a certificate (`external`), and ANONYMOUS.
    """

    def __init__(self, user: str = "", password: str = "", mechanisms: list[str] | None = None,
                 external: bool = False) -> None:
        self.user = user
        self.password = password
        if mechanisms is None:
            mechanisms = [*SCRAM, "CRAM-MD5", "PLAIN"] if user else [*["EXTERNAL"] * external, "ANONYMOUS"]
        self.mechanisms = mechanisms
        self.chosen = ""
        self._nonce = base64.b64encode(os.urandom(18)).decode("ascii")
        self._signature = b""  # that the server has to show, when it shows it knows the password too
        self._steps = 0

    def start(self, offered: list[str]) -> tuple[str, bytes | None]:
        """The mechanism to use of those offered, and its initial response if it has one."""
        for name in self.mechanisms:
            if name in offered:
                self.chosen = name
                return name, self._initial(name)
        raise AuthenticationFailed(f"of {', '.join(self.mechanisms)}, the other side offers none but: "
                                   f"{', '.join(offered) or 'nothing'}")

    def _initial(self, name: str) -> bytes | None:
        if name in SCRAM:
            return b"n,," + self._bare()
        if name == "PLAIN":
            return f"\0{self.user}\0{self.password}".encode()
        if name == "CRAM-MD5":
            return None
        return self.user.encode()

    def step(self, challenge: bytes) -> bytes:
        """The response to a challenge."""
        self._steps += 1
        if self.chosen == "CRAM-MD5" and self._steps == 1:
            digest = hmac.new(self.password.encode(), challenge, hashlib.md5).hexdigest()
            return f"{self.user} {digest}".encode()
        if self.chosen in SCRAM and self._steps == 1:
            return self._proof(challenge)
        if self.chosen in SCRAM and self._steps == 2:
            if challenge != b"v=" + base64.b64encode(self._signature):
                raise AuthenticationFailed("the other side does not know the password")
            return b""
        raise AuthenticationFailed(f"{self.chosen} has no answer to another challenge")

    def _bare(self) -> bytes:
        name = self.user.replace("=", "=3D").replace(",", "=2C")
        return f"n={name},r={self._nonce}".encode()

    def _proof(self, challenge: bytes) -> bytes:
        """RFC 5802, section 3, without channel binding."""
        kind = SCRAM[self.chosen]
        try:
            given = dict(part.split("=", 1) for part in challenge.decode("ascii").split(","))
            nonce, salt, rounds = given["r"], base64.b64decode(given["s"], validate=True), int(given["i"])
        except (ValueError, KeyError):
            raise AuthenticationFailed("the other side's challenge makes no sense") from None
        if not nonce.startswith(self._nonce) or not 1 <= rounds <= MOST_ITERATIONS:
            raise AuthenticationFailed("the other side's challenge is not an answer to ours")
        final = f"c=biws,r={nonce}".encode()
        signed = b",".join([self._bare(), challenge, final])
        salted = hashlib.pbkdf2_hmac(kind, self.password.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", kind)
        shown = hmac.digest(hashlib.new(kind, client_key).digest(), signed, kind)
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", kind), signed, kind)
        proof = bytes(one ^ other for one, other in zip(client_key, shown, strict=True))
        return final + b",p=" + base64.b64encode(proof)
