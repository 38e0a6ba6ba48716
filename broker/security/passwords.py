"""Verifiers: what is kept of a password so that it can be checked, and cannot be read.

Four kinds, each with a text form that is kept in the password file:

* argon2id (RFC 9106) as a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$salt$hash`: the best protection of a stolen
  file; serves every mechanism that sends the password itself (PLAIN, AMQPLAIN, MQTT, HTTP).
* SCRAM-SHA-1, SCRAM-SHA-256, SCRAM-SHA-512 (RFC 5802, 7677), `SCRAM-SHA-256$15000:salt$stored:server` with base64
  values, as PostgreSQL writes it: serves the same, and the SCRAM mechanism of that name.
* RABBITMQ-SHA256, RABBITMQ-SHA512, RABBITMQ-MD5, `RABBITMQ-SHA256$hash`, where the hash is what RabbitMQ keeps: base64
  of a salt of 4 bytes and of the digest of salt and password. They come from `dragoman import rabbitmq` only, so that
  users keep their passwords: a stolen file gives weak passwords away quickly.
* CRAM-MD5, `CRAM-MD5$states`, with the 64 hexadecimal digits that Dovecot keeps (broker/security/md5.py): serves all
  that send the password, and CRAM-MD5. A thief of it can log in by CRAM-MD5, and finds weak passwords quickly.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import stringprep
import unicodedata

from argon2.exceptions import VerifyMismatchError
from argon2.low_level import Type, hash_secret, verify_secret

from broker.security.md5 import hmac_states

ARGON2 = "argon2"
SCRAM_HASHES = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
CRAM_MD5 = "CRAM-MD5"
SCHEMES = (ARGON2, *SCRAM_HASHES, CRAM_MD5)
RABBITMQ_HASHES = {"RABBITMQ-SHA256": "sha256", "RABBITMQ-SHA512": "sha512", "RABBITMQ-MD5": "md5"}
RABBITMQ_SALT = 4  # bytes

# A new verifier's cost. Argon2: OWASP's minimum, some 20 ms and 19 MiB, because a broker's whole fleet may log in at
# once after a restart. SCRAM: what the client computes too, however small a device it is.
ARGON2_MEMORY = 19456  # KiB
ARGON2_TIME = 2
ARGON2_LANES = 1
SCRAM_ITERATIONS = 15_000

# A verifier that costs more than this was not meant: it would let any login attempt stall the broker.
ARGON2_MEMORY_LIMIT = 1 << 20  # KiB
ARGON2_TIME_LIMIT = 100
ARGON2_LANES_LIMIT = 64
SCRAM_ITERATIONS_LIMIT = 10_000_000

_ARGON2_FORM = re.compile(r"\$argon2id\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)",
                          re.ASCII)
_SCRAM_FORM = re.compile(r"(SCRAM-SHA-\d+)\$(\d{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)",
                         re.ASCII)
_CRAM_FORM = re.compile(r"CRAM-MD5\$([0-9a-f]{64})", re.ASCII)
_RABBITMQ_FORM = re.compile(r"(RABBITMQ-[A-Z0-9]+)\$([A-Za-z0-9+/=]+)", re.ASCII)


class Verifier:
    """A password's verifier: `scheme` is one of SCHEMES or RABBITMQ_HASHES, `text` the form to keep. Each kind derives
    from this."""

    __slots__ = ("scheme", "text")

    def __init__(self, scheme: str, text: str) -> None:
        self.scheme = scheme
        self.text = text

    def matches(self, password: bytes) -> bool:
        """Whether this is the password. Slow on purpose: not for the event loop. Takes the same time for any answer.

        Raises argon2's exceptions when there is not the memory to tell.
        """
        raise NotImplementedError


class Argon2Verifier(Verifier):
    __slots__ = ()

    def __init__(self, text: str) -> None:
        super().__init__(ARGON2, text)

    def matches(self, password: bytes) -> bool:
        try:
            return verify_secret(self.text.encode("ascii"), password, Type.ID)
        except VerifyMismatchError:
            return False


class ScramVerifier(Verifier):
    """Salt, iterations, StoredKey and ServerKey of RFC 5802, section 3."""

    __slots__ = ("hash_name", "iterations", "salt", "stored_key", "server_key")

    def __init__(self, scheme: str, iterations: int, salt: bytes, stored_key: bytes, server_key: bytes) -> None:
        self.hash_name = SCRAM_HASHES[scheme]
        self.iterations = iterations
        self.salt = salt
        self.stored_key = stored_key
        self.server_key = server_key
        super().__init__(scheme, f"{scheme}${iterations}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}")

    def matches(self, password: bytes) -> bool:
        stored_key, _ = _scram_keys(self.hash_name, password, self.salt, self.iterations)
        return hmac.compare_digest(stored_key, self.stored_key)


class RabbitmqVerifier(Verifier):
    """What RabbitMQ keeps of a password. It is quick to check: nothing is slow on purpose there."""

    __slots__ = ("hash_name", "salt", "digest")

    def __init__(self, scheme: str, salt: bytes, digest: bytes) -> None:
        self.hash_name = RABBITMQ_HASHES[scheme]
        self.salt = salt
        self.digest = digest
        super().__init__(scheme, f"{scheme}${_base64(salt + digest)}")

    def matches(self, password: bytes) -> bool:
        digest = hashlib.new(self.hash_name, self.salt + password, usedforsecurity=False).digest()
        return hmac.compare_digest(digest, self.digest)


class CramVerifier(Verifier):
    """The states of HMAC-MD5 that a password makes. It is quick to check."""

    __slots__ = ("states",)

    def __init__(self, states: bytes) -> None:
        self.states = states
        super().__init__(CRAM_MD5, f"{CRAM_MD5}${states.hex()}")

    def matches(self, password: bytes) -> bool:
        return hmac.compare_digest(hmac_states(password), self.states)


def new_verifier(password: str, scheme: str = ARGON2) -> Verifier:
    """A verifier with a fresh salt. Raises ValueError for an unknown scheme or a password that cannot be used."""
    if not password or "\0" in password:
        raise ValueError("a password must not be empty and must not hold NUL characters")
    try:
        secret = password.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a password must be text that UTF-8 can hold") from None
    if scheme == ARGON2:
        return Argon2Verifier(hash_secret(secret, os.urandom(16), ARGON2_TIME, ARGON2_MEMORY, ARGON2_LANES, 32,
                                          Type.ID).decode("ascii"))
    if scheme in SCRAM_HASHES:
        salt = os.urandom(16)
        keys = _scram_keys(SCRAM_HASHES[scheme], secret, salt, SCRAM_ITERATIONS)
        return ScramVerifier(scheme, SCRAM_ITERATIONS, salt, *keys)
    if scheme == CRAM_MD5:
        return CramVerifier(hmac_states(secret))
    raise ValueError(f"unknown scheme {scheme!r}: use one of {', '.join(SCHEMES)}")


def parse_verifier(text: str) -> Verifier:
    """A verifier from its text form.

    Raises ValueError that says what is wrong and what to do, and never repeats the text: it may be somebody's password.
    """
    if found := _ARGON2_FORM.fullmatch(text):
        return _parse_argon2(text, found)
    if found := _SCRAM_FORM.fullmatch(text):
        return _parse_scram(found)
    if found := _RABBITMQ_FORM.fullmatch(text):
        return _parse_rabbitmq(found)
    if found := _CRAM_FORM.fullmatch(text):
        return CramVerifier(bytes.fromhex(found[1]))
    raise ValueError("not a verifier (passwords are never kept in clear): it must be of the form "
                     "$argon2id$v=19$m=...,t=...,p=...$salt$hash or SCRAM-SHA-256$iterations:salt$stored:server")


def _parse_argon2(text: str, found: re.Match[str]) -> Verifier:
    memory, time, lanes = int(found[1]), int(found[2]), int(found[3])
    if not (1 <= time <= ARGON2_TIME_LIMIT and 1 <= lanes <= ARGON2_LANES_LIMIT
            and 8 * lanes <= memory <= ARGON2_MEMORY_LIMIT):
        raise ValueError(f"argon2 costs out of bounds: t must be 1 to {ARGON2_TIME_LIMIT}, p 1 to {ARGON2_LANES_LIMIT}"
                         f", m 8 times p to {ARGON2_MEMORY_LIMIT} KiB")
    salt, digest = (_unbase64(part + "=" * (-len(part) % 4)) for part in found.group(4, 5))
    if not 8 <= len(salt) <= 48 or not 16 <= len(digest) <= 64:
        raise ValueError("an argon2 salt must have 8 to 48 bytes and a hash 16 to 64: the line is damaged, "
                         "set the password again")
    return Argon2Verifier(text)


def _parse_scram(found: re.Match[str]) -> Verifier:
    scheme, iterations = found[1], int(found[2])
    if scheme not in SCRAM_HASHES:
        raise ValueError(f"unknown scheme {scheme}: use one of {', '.join(SCHEMES)}")
    if not 1 <= iterations <= SCRAM_ITERATIONS_LIMIT:
        raise ValueError(f"SCRAM iterations must be 1 to {SCRAM_ITERATIONS_LIMIT}")
    salt, stored_key, server_key = (_unbase64(part) for part in found.group(3, 4, 5))
    size = hashlib.new(SCRAM_HASHES[scheme]).digest_size
    if not 8 <= len(salt) <= 64 or len(stored_key) != size or len(server_key) != size:
        raise ValueError(f"a {scheme} salt must have 8 to 64 bytes and its keys {size}: the line is damaged, "
                         "set the password again")
    return ScramVerifier(scheme, iterations, salt, stored_key, server_key)


def _parse_rabbitmq(found: re.Match[str]) -> Verifier:
    scheme, kept = found[1], _unbase64(found[2])
    if scheme not in RABBITMQ_HASHES:
        raise ValueError(f"unknown scheme {scheme}: use one of {', '.join((*SCHEMES, *RABBITMQ_HASHES))}")
    size = hashlib.new(RABBITMQ_HASHES[scheme], usedforsecurity=False).digest_size
    if len(kept) != RABBITMQ_SALT + size:
        raise ValueError(f"a {scheme} hash must have {RABBITMQ_SALT + size} bytes: the line is damaged, set the "
                         "password again")
    return RabbitmqVerifier(scheme, kept[:RABBITMQ_SALT], kept[RABBITMQ_SALT:])


def saslprep(text: str) -> str:
    """The text as SASLprep (RFC 4013) makes it. Raises ValueError where that forbids the text.

    With the tables of Unicode 3.2 that Python has; code points unassigned there are left as they are (a "query").
    """
    mapped = "".join(" " if stringprep.in_table_c12(char) else char
                     for char in text if not stringprep.in_table_b1(char))
    made = unicodedata.normalize("NFKC", mapped)
    if any(forbidden(char) for char in made for forbidden in _FORBIDDEN):
        raise ValueError("forbidden by SASLprep")
    if any(map(stringprep.in_table_d1, made)) and (
            any(map(stringprep.in_table_d2, made))
            or not (stringprep.in_table_d1(made[0]) and stringprep.in_table_d1(made[-1]))):
        raise ValueError("mixes writing directions as SASLprep does not allow")
    return made


_FORBIDDEN = (stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
              stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
              stringprep.in_table_c9)


def _scram_keys(hash_name: str, password: bytes, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey. A password that SASLprep does not take is used as it is, as PostgreSQL does."""
    try:
        password = saslprep(password.decode("utf-8")).encode("utf-8")
    except ValueError:
        pass
    salted = hashlib.pbkdf2_hmac(hash_name, password, salt, iterations)
    stored_key = hashlib.new(hash_name, hmac.digest(salted, b"Client Key", hash_name)).digest()
    return stored_key, hmac.digest(salted, b"Server Key", hash_name)


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("damaged base64 in the verifier: set the password again") from None
