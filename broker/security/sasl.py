"""The server's side of SASL (RFC 4422), for every dialect: no frames, no sockets, only mechanisms.

A connection makes one `SaslServer`, offers its `mechanisms`, hands `start` the client's choice and then `step` each
response, and acts on the outcome that `done` is told: at once, or later when a password has to be checked.

    PLAIN          RFC 4616
    AMQPLAIN       RabbitMQ's: a field table, without its length, of LOGIN and PASSWORD
    ANONYMOUS      RFC 4505
    SCRAM-SHA-*    RFC 5802, RFC 7677, without channel binding

Nothing that a client sends raises: it ends in `Failure`, whose reason is for the log and never for the client.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from broker.security.identity import Identity
from broker.security.passwords import SCRAM_HASHES, ScramVerifier
from broker.security.users import Users, shown

MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "AMQPLAIN", "ANONYMOUS")
"""All that there are, best first: the order in which they are offered."""

CLEAR = frozenset({"PLAIN", "AMQPLAIN"})  # these send the password itself

RESPONSE_LIMIT = 16384  # bytes of one response
STEP_LIMIT = 8  # responses after the first


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this to the client and hand its response to `SaslServer.step`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Success:
    """The client is this user. `extra` goes with the dialect's success, and is b"" unless `SaslServer` was told so."""

    user: str
    extra: bytes = b""

    @property
    def identity(self) -> Identity:
        return Identity(self.user)


@dataclass(frozen=True, slots=True)
class Failure:
    """Refuse the client; log the reason."""

    reason: str


Outcome = Challenge | Success | Failure
Done = Callable[[Outcome], None]


class SaslServer:
    """One client's login. After `Success` or `Failure` there is no other outcome but `Failure`.

    `allowed` are the mechanisms of the listener (others than MECHANISMS are ignored). Without `clear_passwords`, those
    that send the password itself are offered over loopback and TLS only. `success_extra` says that the dialect's
    success can carry data (AMQP 1.0's can); else such data goes as one more challenge, answered by an empty response.
    """

    __slots__ = ("mechanisms", "_users", "_loopback", "_success_extra", "_mechanism", "_busy", "_over", "_steps",
                 "_held")

    def __init__(self, allowed: Collection[str], users: Users, loopback: bool, tls: bool, *,
                 clear_passwords: bool = True, success_extra: bool = False) -> None:
        schemes = users.scram_schemes()
        hidden = set() if clear_passwords or loopback or tls else CLEAR
        self.mechanisms = [
            name for name in MECHANISMS if name in allowed and name not in hidden
            and (name not in SCRAM_HASHES or name in schemes) and (name != "ANONYMOUS" or users.anonymous)]
        self._users = users
        self._loopback = loopback
        self._success_extra = success_extra
        self._mechanism: Mechanism | None = None
        self._busy = False  # an outcome is due
        self._over = False
        self._steps = 0
        self._held: Success | None = None  # what follows the empty response to its `extra`

    def start(self, mechanism: str, response: bytes | None, done: Done) -> None:
        """The client chose a mechanism; `response` is None if it sent no initial response, b"" if an empty one."""
        if self._mechanism is not None or self._over:
            self._fail("a second start of SASL", done)
        elif mechanism not in self.mechanisms:
            self._fail(f"mechanism {shown(mechanism)} is not offered", done)
        elif response is not None and len(response) > RESPONSE_LIMIT:
            self._fail(f"a response of more than {RESPONSE_LIMIT} bytes", done)
        else:
            self._mechanism = _make(mechanism, self._users, self._loopback)
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
            if response:
                self._fail("data after the end of SASL", done)
            else:
                self._over = True
                done(held)
        else:
            self._take(self._mechanism, response, done)

    def close(self) -> None:
        """The connection is gone: no outcome is told any more."""
        self._over = True

    def _take(self, mechanism: Mechanism, response: bytes | None, done: Done) -> None:
        self._busy = True

        def decided(outcome: Outcome) -> None:
            if self._over:  # closed or failed in the meantime
                return
            self._busy = False
            if isinstance(outcome, Success) and outcome.extra and not self._success_extra:
                self._held = Success(outcome.user)
                outcome = Challenge(outcome.extra)
            self._over = not isinstance(outcome, Challenge)
            done(outcome)

        mechanism.respond(response, decided)

    def _fail(self, reason: str, done: Done) -> None:
        self._over = True
        done(Failure(reason))


class Mechanism:
    """One mechanism's state for one login."""

    __slots__ = ()

    def respond(self, response: bytes | None, done: Done) -> None:
        """Take a response (None only at first: there was none) and call `done` once. Never raises."""
        raise NotImplementedError


def _make(name: str, users: Users, loopback: bool) -> Mechanism:
    if name == "ANONYMOUS":
        return Anonymous(users, loopback)
    if name in SCRAM_HASHES:
        return Scram(name, users, loopback)
    return Clear(parse_plain if name == "PLAIN" else parse_amqplain, users, loopback)


class Anonymous(Mechanism):
    __slots__ = ("_users", "_loopback")

    def __init__(self, users: Users, loopback: bool) -> None:
        self._users = users
        self._loopback = loopback

    def respond(self, response: bytes | None, done: Done) -> None:
        reason = self._users.refusal(self._users.anonymous, self._loopback)
        done(Failure(reason) if reason else Success(self._users.anonymous))  # the trace information is of no use


class Clear(Mechanism):
    """PLAIN and AMQPLAIN: one response, with a name and the password itself."""

    __slots__ = ("_parse", "_users", "_loopback")

    def __init__(self, parse: Callable[[bytes], tuple[str, bytes]], users: Users, loopback: bool) -> None:
        self._parse = parse
        self._users = users
        self._loopback = loopback

    def respond(self, response: bytes | None, done: Done) -> None:
        if response is None:
            done(Challenge(b""))
            return
        try:
            name, password = self._parse(response)
        except ValueError as error:
            done(Failure(str(error)))
            return
        self._users.authenticate(name, password, self._loopback,
                                 lambda accepted, reason: done(Success(name) if accepted else Failure(reason)))


def parse_plain(response: bytes) -> tuple[str, bytes]:
    """Name and password of a PLAIN response, `[authzid] NUL authcid NUL passwd`. Raises ValueError."""
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise ValueError("PLAIN: not two NUL characters in the response")
    authorize, name, password = parts
    if not name or not password:
        raise ValueError("PLAIN: no name or no password in the response")
    if authorize not in (b"", name):
        raise ValueError("PLAIN: the client asks to be another user than it logs in as")
    _text(password, "PLAIN")
    return _text(name, "PLAIN"), password


_FIXED = {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"L": 8, b"f": 4, b"d": 8, b"D": 5,
          b"T": 8, b"V": 0}  # bytes of a field table's values, as RabbitMQ has them
_COUNTED = frozenset({b"S", b"x", b"A", b"F"})  # a length of 4 bytes, and that many bytes


def parse_amqplain(response: bytes) -> tuple[str, bytes]:
    """Name and password of an AMQPLAIN response: fields LOGIN and PASSWORD, others ignored. Raises ValueError."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(response):
        end = at + 1 + response[at]
        field, kind = response[at + 1:end], response[end:end + 1]
        at = end + 1
        if kind in _COUNTED:
            at += 4
            end = at + int.from_bytes(response[at - 4:at])
        elif kind in _FIXED:
            end = at + _FIXED[kind]
        else:
            raise ValueError("AMQPLAIN: not a field table, or one with a type that is not known")
        if end > len(response):
            raise ValueError("AMQPLAIN: the field table ends within a field")
        if field in (b"LOGIN", b"PASSWORD"):
            if kind != b"S" or field in found:
                raise ValueError("AMQPLAIN: LOGIN or PASSWORD is there twice or is not a long string")
            found[field] = response[at:end]
        at = end
    if not found.get(b"LOGIN") or b"PASSWORD" not in found:
        raise ValueError("AMQPLAIN: no LOGIN or no PASSWORD in the response")
    return _text(found[b"LOGIN"], "AMQPLAIN"), found[b"PASSWORD"]


_CLIENT_FIRST = re.compile(r"([ny]|p=[A-Za-z0-9.-]+),(?:a=([^,\0]*))?,n=([^,\0]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*")
_CLIENT_FINAL = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,\0]+)*),p=([A-Za-z0-9+/=]+)")


class Scram(Mechanism):
    """SCRAM: the client's first message, our salt and nonce, the client's proof, our signature."""

    __slots__ = ("_name", "_hash", "_users", "_loopback", "_verifier", "_reason", "_user", "_header", "_nonce",
                 "_messages")

    def __init__(self, name: str, users: Users, loopback: bool) -> None:
        self._name = name
        self._hash = SCRAM_HASHES[name]
        self._users = users
        self._loopback = loopback
        self._verifier: ScramVerifier | None = None
        self._reason = ""
        self._user = ""
        self._header = b""  # the GS2 header
        self._nonce = ""
        self._messages = ""  # client-first-message-bare and server-first-message

    def respond(self, response: bytes | None, done: Done) -> None:
        if response is None:
            done(Challenge(b""))
            return
        try:
            message = _text(response, self._name)
            done(self._first(message) if self._verifier is None else self._final(message, self._verifier))
        except ValueError as error:
            done(Failure(str(error)))

    def _first(self, message: str) -> Outcome:
        found = _CLIENT_FIRST.fullmatch(message)
        if not found:
            raise ValueError(f"{self._name}: the client's first message is malformed")
        binding, authorize, name, nonce = found.groups()
        if binding.startswith("p"):
            raise ValueError(f"{self._name}: the client asks for channel binding, which is not offered")
        if authorize and authorize != name:
            raise ValueError(f"{self._name}: the client asks to be another user than it logs in as")
        self._user = _saslname(name)
        self._verifier, self._reason = self._users.scram(self._name, self._user, self._loopback)
        self._nonce = nonce + _new_nonce()
        bare = found.start(3) - len("n=")
        self._header = message[:bare].encode("utf-8")
        salt = base64.b64encode(self._verifier.salt).decode("ascii")
        server_first = f"r={self._nonce},s={salt},i={self._verifier.iterations}"
        self._messages = f"{message[bare:]},{server_first}"
        return Challenge(server_first.encode("ascii"))

    def _final(self, message: str, verifier: ScramVerifier) -> Outcome:
        found = _CLIENT_FINAL.fullmatch(message)
        if not found:
            raise ValueError(f"{self._name}: the client's final message is malformed")
        without_proof, binding, nonce, proof_text = found.groups()
        if _unbase64(binding, self._name) != self._header or nonce != self._nonce:
            raise ValueError(f"{self._name}: the client's final message does not belong to its first")
        signed = f"{self._messages},{without_proof}".encode()
        signature = hmac.digest(verifier.stored_key, signed, self._hash)
        proof = _unbase64(proof_text, self._name)
        client_key = bytes(mine ^ theirs for mine, theirs in zip(signature, proof, strict=False))
        stored_key = hashlib.new(self._hash, client_key).digest()
        right = hmac.compare_digest(stored_key, verifier.stored_key) and len(proof) == len(signature)
        if self._reason or not right:
            return Failure(self._reason or f"wrong password for user {shown(self._user)}")
        return Success(self._user, b"v=" + base64.b64encode(hmac.digest(verifier.server_key, signed, self._hash)))


def _new_nonce() -> str:
    return base64.b64encode(os.urandom(18)).decode("ascii")


def _saslname(text: str) -> str:
    """RFC 5802's name, where =2C and =3D stand for ',' and '='. Not prepared: names are the same in all mechanisms."""
    if re.search("=(?!2C|3D)", text):
        raise ValueError("SCRAM: a name with '=' in it that is not =2C or =3D")
    return text.replace("=2C", ",").replace("=3D", "=")


def _text(value: bytes, mechanism: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{mechanism}: the response is not UTF-8") from None


def _unbase64(text: str, mechanism: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(f"{mechanism}: base64 in a message is damaged") from None
