"""Clients of SASL for the tests: users with each kind of verifier, and the client's side of the challenges."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from typing import NamedTuple

from broker.security.authenticator import Authenticator
from broker.security.identity import NOBODY, Peer
from broker.security.sasl import (
    MECHANISMS,
    Challenge,
    Failure,
    Outcome,
    SaslServer,
    Success,
)
from broker.security.users import FileProvider, PasswordFile
from tests.provider_kit import Threads


class In(NamedTuple):
    """A success, as far as most tests look at it."""

    user: str
    extra: bytes = b""


Told = Challenge | Failure | In


class Client:
    """Drives a `SaslServer` and keeps what it was told."""

    def __init__(self, server: SaslServer) -> None:
        self.server = server
        self.outcomes: list[Told] = []
        self.identity = NOBODY

    def told(self, outcome: Outcome) -> None:
        if isinstance(outcome, Success):
            self.identity = outcome.identity
            self.outcomes.append(In(outcome.user, outcome.extra))
        else:
            self.outcomes.append(outcome)

    def start(self, mechanism: str, response: bytes | None) -> Told | None:
        self.server.start(mechanism, response, self.told)
        return self.outcomes[-1] if self.outcomes else None

    def step(self, response: bytes) -> Told:
        self.server.step(response, self.told)
        return self.outcomes[-1]


PASSWORD = "p\u00e4ss"
THREADS = Threads()
FILE = PasswordFile("not saved")
FILE.set("shop", PASSWORD, "SCRAM-SHA-256")
FILE.set("old", PASSWORD, "SCRAM-SHA-1")
FILE.set("big,=device", PASSWORD, "SCRAM-SHA-512")
FILE.set("argon", PASSWORD)
USERS = FileProvider(THREADS.run, FILE)


def client(loopback: bool = False, tls: bool = False, users: FileProvider = USERS, clear_passwords: bool = True,
           success_extra: bool = False, anonymous: str = "anyone") -> Client:
    authenticator = Authenticator([users], MECHANISMS, clear_passwords=clear_passwords, anonymous_user=anonymous,
                                  secret=b"kept")
    return Client(SaslServer(authenticator, Peer(loopback=loopback, tls=tls), success_extra=success_extra))


OLD = PasswordFile("not saved")
OLD.set("tim", "tanstaaftanstaaf", "CRAM-MD5", "argon2")
CRAM = FileProvider(THREADS.run, OLD)


class Bound(Peer):
    """A TLS connection that can be bound to."""

    data = {"tls-exporter": b"this connection", "tls-server-end-point": b"this certificate"}

    def channel_binding(self, kind: str) -> bytes:
        return self.data.get(kind, b"")


def cram(peer: Client, name: str, password: str) -> Told:
    challenge = peer.start("CRAM-MD5", None)
    assert isinstance(challenge, Challenge)
    return peer.step(f"{name} {hmac.digest(password.encode(), challenge.data, 'md5').hex()}".encode())


def scram(peer: Client, mechanism: str, name: str, password: str, *, header: str = "n,,", said: str = "",
          binding: bytes = b"", edit: Callable[[bytes], bytes] = lambda final: final) -> tuple[Told, bytes]:
    """A SCRAM client: the outcome of its final message, and the server's signature that it expects.

    In its final message it claims to have `said` the header.
    """
    hash_name = mechanism.removeprefix("SCRAM-").removesuffix("-PLUS").replace("-", "").lower()
    bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={base64.b64encode(os.urandom(9)).decode()}"
    challenge = peer.start(mechanism, (header + bare).encode())
    assert isinstance(challenge, Challenge)
    nonce, salt, iterations = (part[2:] for part in challenge.data.decode().split(","))
    salted = hashlib.pbkdf2_hmac(hash_name, password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    without_proof = f"c={base64.b64encode((said or header).encode() + binding).decode()},r={nonce}"
    signed = f"{bare},{challenge.data.decode()},{without_proof}".encode()
    signature = hmac.digest(hashlib.new(hash_name, client_key).digest(), signed, hash_name)
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))
    outcome = peer.step(edit(without_proof.encode() + b",p=" + proof))
    server_key = hmac.digest(salted, b"Server Key", hash_name)
    return outcome, b"v=" + base64.b64encode(hmac.digest(server_key, signed, hash_name))
