"""Tokens: what is in a JSON Web Token (RFC 7519), and which of its claims make whom of its bearer.

Signatures are checked by the library, of asymmetric algorithms only: "none" and those of shared secrets do not exist
here, whatever a token says, so that a public key can never be taken for such a secret (RFC 8725, section 3.1).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry

from broker.security.identity import Identity, Peer
from broker.security.provider import Refusal, is_name, shown

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""All that there are; "EdDSA" and, as RFC 9864 has it, "Ed25519" are one."""

TOKEN_LIMIT = 16384  # characters
VALUES_LIMIT = 1000  # groups or scopes of one token
RSA_BITS = 2048  # at least

Key = RSAKey | ECKey | OKPKey

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, section 2.1
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_LONGEST = 1 << 43  # seconds since the epoch: what lasts longer is cut there


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token must claim, and which of its claims are what. A claim within another is written "outer.inner"."""

    issuer: str = ""
    audiences: tuple[str, ...] = ()  # one of these must be there
    user: tuple[str, ...] = ("sub",)  # the first that is there is the user
    groups: str = "groups"
    scopes: tuple[str, ...] = ("scope", "scp")
    resource: str = ""  # who we are in scopes that give tags: RESOURCE.tag:TAG
    leeway: int = 30  # seconds by which clocks may differ


class Token:
    """A JSON Web Token that has been taken apart; nothing in it is true yet."""

    __slots__ = ("algorithm", "key_id", "claims", "signed", "signature")

    def __init__(self, text: str) -> None:
        """Raises: ValueError."""
        parts = text.split(".") if len(text) <= TOKEN_LIMIT else []
        if len(parts) != 3 or not all(_PART.fullmatch(each) for each in parts):
            raise ValueError("it is no JSON Web Token, or one without a signature")
        header = _object(parts[0])
        if "crit" in header:
            raise ValueError("its header has extensions that must be understood, and are not")
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or not isinstance(key_id, str):
            raise ValueError("its header has an alg or kid that is no text")
        self.algorithm = "EdDSA" if algorithm == "Ed25519" else algorithm
        self.key_id = key_id
        self.claims = _object(parts[1])
        self.signed = f"{parts[0]}.{parts[1]}".encode("ascii")
        self.signature = _unbase64(parts[2])

    def signed_by(self, keys: Iterable[Key]) -> bool:
        """Whether one of these keys signed it. Its algorithm must be one of ALGORITHMS."""
        algorithm = JWSRegistry.algorithms["Ed25519" if self.algorithm == "EdDSA" else self.algorithm]
        for key in keys:
            try:
                algorithm.check_key(key)
                if algorithm.verify(self.signed, self.signature, key):
                    return True
            except (JoseError, ValueError, TypeError):  # a key for something else
                continue
        return False

    def fits(self, key: Key) -> bool:
        """Whether it may be signed by this key, by what both say."""
        said = key.get("alg") or self.algorithm
        return (key.key_type == _KEY_TYPES[self.algorithm[:2]] and (not self.key_id or key.kid == self.key_id)
                and key.get("use") in (None, "sig") and ("EdDSA" if said == "Ed25519" else said) == self.algorithm)


def may_be_token(text: str) -> bool:
    """Whether this has the form of a token that is sent as a bearer's."""
    return 0 < len(text) <= TOKEN_LIMIT and _BEARER.fullmatch(text) is not None


def read_keys(document: dict[str, Any]) -> list[Key]:
    """The keys of a JSON Web Key Set (RFC 7517) that can be used; others are skipped. Raises ValueError for none."""
    listed = document.get("keys")
    found = []
    for each in listed if isinstance(listed, list) else []:
        key = _read_key(each) if isinstance(each, dict) else None
        if key is not None:
            found.append(key)
    if not found:
        raise ValueError("it has no key for signatures")
    return found


def judge(claims: dict[str, Any], wanted: Claims, now: float, peer: Peer, provider: str) -> Identity | Refusal:
    """Who the bearer of a genuine token is. now: seconds since the epoch."""
    audience = claims.get("aud", [])
    if not set(wanted.audiences) & set(_texts(audience)):
        return Refusal(f"the token is for {_shown(audience)}, not for us")
    expires, begins = _time(claims.get("exp")), _time(claims.get("nbf", 0))
    if expires is None or begins is None:
        return Refusal("the token does not say when it ends, or not by a number")
    end = expires + wanted.leeway
    if now >= end:
        return Refusal(f"the token has expired, {int(now - expires)} s ago")
    if now < begins - wanted.leeway:
        return Refusal("the token is not valid yet")
    if reason := _unbound(claims.get("cnf"), peer):
        return Refusal(reason)
    user = next((found for found in (claim(claims, path) for path in wanted.user) if found is not None), None)
    if not isinstance(user, str) or not is_name(user):
        return Refusal(f"the token has no {' or '.join(wanted.user)} that is a name")
    scopes = {each for path in wanted.scopes for each in _words(claim(claims, path))}
    tag = f"{wanted.resource}.tag:" if wanted.resource else "tag:"
    tags = {each.removeprefix(tag) for each in scopes if each.startswith(tag)}
    groups = frozenset(_texts(claim(claims, wanted.groups)))
    if len(groups) > VALUES_LIMIT or len(scopes) > VALUES_LIMIT:
        return Refusal(f"the token has more than {VALUES_LIMIT} groups or scopes")
    return Identity(user, groups, tags=frozenset(tags), provider=provider, expires=int(end * 1000),
                    scopes=frozenset(scopes))


def claim(claims: dict[str, Any], path: str) -> Any:
    """A claim by its name, or by the names of those that it is within, with dots; None if there is none."""
    if not path or path in claims:
        return claims.get(path)
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _read_key(entry: dict[str, Any]) -> Key | None:
    kind = entry.get("kty")
    if kind not in ("RSA", "EC", "OKP") or not isinstance(entry.get("kid", ""), str):
        return None
    if kind == "RSA" and len(str(entry.get("n"))) * 3 // 4 < RSA_BITS // 8:
        return None  # the library would warn of it
    try:
        key = import_key({name: value for name, value in entry.items() if name not in ("key_ops", "x5c")}, kind)
        small = isinstance(key, RSAKey) and key.public_key.key_size < RSA_BITS
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    return None if small or not isinstance(key, RSAKey | ECKey | OKPKey) else key


def _unbound(confirmation: Any, peer: Peer) -> str:
    """Why a token that is bound to something (RFC 7800) is not this client's, or ""."""
    if confirmation is None:
        return ""
    thumbprint = confirmation.get("x5t#S256") if isinstance(confirmation, dict) and len(confirmation) == 1 else None
    if not isinstance(thumbprint, str):
        return "the token is bound to something that cannot be checked here"
    digest = base64.urlsafe_b64encode(hashlib.sha256(peer.certificate).digest()).decode("ascii").rstrip("=")
    if not peer.certificate or thumbprint.rstrip("=") != digest:  # RFC 8705, section 3.1
        return "the token is bound to a certificate that the client has not shown"
    return ""


def _time(value: Any) -> float | None:
    """Seconds since the epoch, of a claim."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        return None
    return float(min(value, _LONGEST))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _words(value: Any) -> list[str]:
    return [word for text in _texts(value) for word in text.split(" ") if word]


def _shown(value: Any) -> str:
    return ", ".join(shown(each) for each in _texts(value)[:5]) or "nobody"


def _object(part: str) -> dict[str, Any]:
    try:
        found = json.loads(_unbase64(part))
    except (ValueError, RecursionError):
        raise ValueError("a part of it is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError("a part of it is no JSON object")
    return found


def _unbase64(part: str) -> bytes:
    if len(part) % 4 == 1:
        raise ValueError("a part of it is not base64")
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
