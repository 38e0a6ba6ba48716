"""What clients show to log in, and what issuers publish, for targets.py: tokens, key sets, certificates, revocation
lists."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

from cryptography import x509

from broker.security.certificates import USER_FROM, Certificates, CertificateSettings, RevocationList
from broker.security.identity import Peer
from broker.security.tokens import ALGORITHMS, Claims, Key, Token, judge, read_keys
from tests.authority import Authority, der, pem
from tests.fuzz.files import file_of
from tests.issuer import new_key, sign

_WANTED = Claims("issuer", ("audience",), user=("sub", "a.b"), groups="a.b")


def token(data: bytes) -> None:
    found = Token(data.decode("utf-8", "replace"))
    judge({**found.claims, "aud": "audience", "exp": 4e9}, _WANTED, 1e9, Peer(), "tokens")
    judge(found.claims, _WANTED, 1e9, Peer(), "tokens")
    if found.algorithm in ALGORITHMS:
        found.signed_by(key for key in _keys() if found.fits(key))


def key_set(data: bytes) -> None:
    document = json.loads(data)
    if isinstance(document, dict):
        read_keys(document)


def certificate(data: bytes) -> None:
    for user_from in USER_FROM:
        provider = Certificates("cards", CertificateSettings(user_from), lambda work, done: done(work()))
        answers: list[object] = []
        provider.check_certificate("", Peer(certificate=data), answers.append)
        assert answers or not data


def revocation_list(data: bytes) -> None:
    with file_of(data) as path:
        RevocationList(path, [_authority().certificate], "cards")


def seeds_token() -> Iterable[bytes]:
    claims = {"iss": "issuer", "aud": ["audience"], "exp": 4_000_000_000, "nbf": 1, "sub": "alice", "a": {"b": ["c"]},
              "scope": "a.tag:b c", "cnf": {"x5t#S256": "AAAA"}}
    return [sign({"alg": algorithm, "kid": "fuzz"}, json.dumps(claims), new_key(kind, "fuzz")).encode()
            for algorithm, kind in (("ES256", "EC"), ("RS256", "RSA"), ("EdDSA", "OKP"))]


def seeds_key_set() -> Iterable[bytes]:
    keys = [new_key(kind, "fuzz").as_dict(private=False) for kind in ("EC", "RSA", "OKP")]
    return [json.dumps({"keys": keys}).encode()]


def seeds_certificate() -> Iterable[bytes]:
    return [der(_authority().issue("till", [x509.DNSName("a.b"), x509.UniformResourceIdentifier("a:b")])[0])]


def seeds_revocation_list() -> Iterable[bytes]:
    made = _authority().revoke(_authority().certificate)
    return [der(made), pem(made)]


@cache
def _authority() -> Authority:
    return Authority("fuzz")


@cache
def _keys() -> list[Key]:
    return read_keys(json.loads(next(iter(seeds_key_set()))))
