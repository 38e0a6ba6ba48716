"""Users by tokens of OAuth 2: JSON Web Tokens that one issuer signs (RFC 9068), or such as its server is asked about
(RFC 7662).

    issuer's keys   fetched when they are needed first, again when they are old, and when a token names one that is
                    not there: keys are changed for others while the broker runs
    introspection   the server is asked about tokens that are no JSON Web Tokens, or about all when there are no keys

A token of another issuer is none of this provider's. An issuer that cannot be reached refuses its tokens.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from broker.security.identity import Identity, Peer
from broker.security.provider import Answer, Provider, Refusal, Run, shown
from broker.security.recent import remember
from broker.security.tokens import ALGORITHMS, Claims, Key, Token, judge, may_be_token, read_keys
from broker.security.web import Endpoint, Unreachable, check_url

logger = logging.getLogger(__name__)

WAITING_LIMIT = 1000  # tokens that are being looked at
PAUSE = 5  # seconds between two tries to fetch keys while there are none
DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class OAuth2Settings:
    """Whose tokens count, and how they are checked."""

    claims: Claims
    keys: str = ""  # address or file of the issuer's key set; "": the address that the issuer publishes
    algorithms: tuple[str, ...] = ("RS256", "ES256", "PS256", "EdDSA")
    introspection: str = ""  # address of RFC 7662's endpoint
    client_id: str = ""  # whom we are to it
    client_secret: bytes = field(default=b"", repr=False)
    passwords: bool = True  # a JSON Web Token may be sent as a password, as clients of RabbitMQ do
    ca: str = ""  # PEM file of the issuers of those servers' certificates; "": the system's
    timeout: int = 5  # seconds, for each step
    keys_seconds: int = 3600  # after which keys are fetched again
    retry: int = 30  # seconds between two fetches because of a key that is not there
    cache_seconds: int = 60  # how long the server's word for a token counts
    cache_tokens: int = 10_000


class OAuth2(Provider):
    """One issuer's tokens. `run` should have threads of its own: each may wait for a server for some time.

    Raises: ValueError for settings that cannot be used.
    """

    def __init__(self, name: str, settings: OAuth2Settings, run: Run, now: Callable[[], float] = time.time) -> None:
        self.name = name
        self.settings = settings
        self._run = run
        self._now = now
        _check(settings)
        self._keys = None if settings.introspection and not settings.keys else Keys(name, settings, now)
        self._introspection = Introspection(name, settings, now) if settings.introspection else None
        self._waiting = 0

    def mechanisms(self) -> set[str]:
        return {"OAUTHBEARER", "XOAUTH2"} | ({"PLAIN", "AMQPLAIN"} if self.settings.passwords else set())

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        """The token says who the client is; the name beside it is not looked at, as RabbitMQ does."""
        token = password.decode("ascii", "replace")
        if not self.settings.passwords or token.count(".") != 2 or not token.startswith("ey") \
                or not may_be_token(token):
            answer(Refusal("the password is no token", unknown=True))
        else:
            self._check(token, "", peer, answer)

    def check_token(self, name: str, token: str, peer: Peer, answer: Answer) -> None:
        if not may_be_token(token):
            answer(Refusal("the token is too long, empty or has characters that no token has", unknown=True))
        else:
            self._check(token, name, peer, answer)

    def close(self) -> None:
        if self._introspection is not None:
            self._introspection.forget()

    def _check(self, text: str, name: str, peer: Peer, answer: Answer) -> None:
        if self._waiting >= WAITING_LIMIT:
            answer(Refusal("too many tokens wait to be checked", trouble=True))
            return
        self._waiting += 1

        def checked(found: object | BaseException) -> None:
            self._waiting -= 1
            if not isinstance(found, Identity | Refusal):
                found = Refusal(f"the token could not be checked: {type(found).__name__}: {found}", trouble=True)
            if isinstance(found, Identity) and name not in ("", found.user):
                found = Refusal(f"the client asks to be {shown(name)} with the token of {shown(found.user)}")
            answer(found)
        self._run(lambda: self._judge(text, peer), checked)

    # What follows runs on a thread.

    def _judge(self, text: str, peer: Peer) -> Identity | Refusal:
        try:
            if self._keys is None:
                return self._introspect(text, peer)
            try:
                token = Token(text)
            except ValueError as error:
                if self._introspection is not None:
                    return self._introspect(text, peer)
                return Refusal(f"the token cannot be used: {error}", unknown=True)
            return self._verify(token, self._keys, peer)
        except Unreachable as error:
            return Refusal(f"the token cannot be checked now: {error}", trouble=True)

    def _verify(self, token: Token, keys: Keys, peer: Peer) -> Identity | Refusal:
        """Raises Unreachable."""
        issuer = token.claims.get("iss")
        if issuer != self.settings.claims.issuer:
            return Refusal("the token is by another issuer", unknown=True)
        if token.algorithm not in self.settings.algorithms:
            return Refusal(f"the token's algorithm {shown(token.algorithm)} is not allowed")
        found = keys.of(token)
        if not found:
            return Refusal(f"the token's key {shown(token.key_id)} is none of the issuer's")
        if not token.signed_by(found):
            return Refusal("the token's signature is wrong")
        return judge(token.claims, self.settings.claims, self._now(), peer, self.name)

    def _introspect(self, text: str, peer: Peer) -> Identity | Refusal:
        """Raises Unreachable."""
        assert self._introspection is not None
        claims = self._introspection.claims(text)
        if claims.get("active") is not True:
            return Refusal("the issuer's server does not know the token, or no longer", unknown=True)
        if claims.get("iss", self.settings.claims.issuer) != self.settings.claims.issuer:
            return Refusal("the token is by another issuer", unknown=True)
        return judge(claims, self.settings.claims, self._now(), peer, self.name)


class Keys:
    """An issuer's keys, as they are now. Used by several threads; one of them fetches."""

    def __init__(self, provider: str, settings: OAuth2Settings, now: Callable[[], float]) -> None:
        """Raises: ValueError."""
        self._settings = settings
        self._provider = provider
        self._now = now
        self._lock = threading.Lock()
        self._keys: list[Key] = []
        self._fetched = float("-inf")  # when, by `now`; also when that failed
        is_file = bool(settings.keys) and not urlsplit(settings.keys).netloc
        self._discovery = None
        self._place: Endpoint | str | None = settings.keys if is_file else None
        if settings.keys and not is_file:
            self._place = self._endpoint(settings.keys)
        elif not settings.keys:
            self._discovery = self._endpoint(settings.claims.issuer.rstrip("/") + DISCOVERY)
        if is_file:
            self._refresh()

    def of(self, token: Token) -> list[Key]:
        """Those that may have signed a token. Raises Unreachable when there are none at all."""
        found = self._fitting(token)
        if self._due(found) and self._lock.acquire(blocking=not found):  # who has a key does not wait for others
            try:
                if self._due(self._fitting(token)):
                    self._try()
            finally:
                self._lock.release()
            found = self._fitting(token)
        if not self._keys:
            raise Unreachable("the issuer's keys are not to be had")
        return found

    def _fitting(self, token: Token) -> list[Key]:
        return [each for each in self._keys if token.fits(each)]

    def _due(self, found: list[Key]) -> bool:
        """Whether to fetch keys, for somebody who has found these."""
        wait = self._settings.keys_seconds if found else self._settings.retry if self._keys else PAUSE
        return self._now() - self._fetched >= wait

    def _try(self) -> None:
        """Fetch keys. Those that there are count further when that fails."""
        try:
            self._refresh()
        except (ValueError, Unreachable) as error:
            if not self._keys:
                raise Unreachable(str(error)) from None
            if isinstance(error, ValueError):  # the other one is logged already
                logger.warning("provider %s: %s; the keys that there are count further", self._provider, error)
        finally:
            self._fetched = self._now()

    def _refresh(self) -> None:
        """Raises: ValueError, Unreachable."""
        if self._discovery is not None:
            self._discover(self._discovery)
        if isinstance(self._place, Endpoint):
            document = self._place.fetch()
        else:
            document = _read_file(str(self._place))
        try:
            self._keys = read_keys(document)
        except ValueError as error:
            raise ValueError(f"{self._settings.keys or self._settings.claims.issuer}: {error}") from None
        self._fetched = self._now()

    def _discover(self, discovery: Endpoint) -> None:
        document = discovery.fetch()
        url = document.get("jwks_uri")
        if document.get("issuer") != self._settings.claims.issuer or not isinstance(url, str):
            raise ValueError(f"{discovery.url}: it is another issuer's, or does not say where the keys are")
        if not isinstance(self._place, Endpoint) or self._place.url != url:
            self._place = self._endpoint(url)

    def _endpoint(self, url: str) -> Endpoint:
        return Endpoint(self._provider, url, self._settings.ca, self._settings.timeout)


class Introspection:
    """What the issuer's server says of tokens. Used by several threads."""

    def __init__(self, provider: str, settings: OAuth2Settings, now: Callable[[], float]) -> None:
        """Raises: ValueError."""
        self._endpoint = Endpoint(provider, settings.introspection, settings.ca, settings.timeout)
        self._settings = settings
        self._now = now
        self._lock = threading.Lock()
        self._key = os.urandom(32)
        self._known: dict[bytes, tuple[float, dict[str, Any]]] = {}  # by digest, oldest first: until when, and what
        # RFC 6749, section 2.3.1: both are encoded before they are put together
        both = f"{quote_plus(settings.client_id)}:{quote_plus(settings.client_secret)}"
        self._authorization = f"Basic {base64.b64encode(both.encode('ascii')).decode('ascii')}"

    def claims(self, text: str) -> dict[str, Any]:
        """What it says, or said a moment ago if it was good. Raises Unreachable."""
        digest = hmac.digest(self._key, text.encode("ascii"), "sha256")
        with self._lock:
            known = self._known.get(digest)
            if known is not None and known[0] > self._now():
                return known[1]
        form = urlencode({"token": text, "token_type_hint": "access_token"}).encode("ascii")
        claims = self._endpoint.fetch(form, {"Authorization": self._authorization})
        if claims.get("active") is True and self._settings.cache_seconds:
            until = self._now() + self._settings.cache_seconds
            with self._lock:
                remember(self._known, digest, (until, claims), self._settings.cache_tokens)
        return claims

    def forget(self) -> None:
        with self._lock:
            self._known.clear()


def _read_file(path: str) -> dict[str, Any]:
    """Raises: ValueError."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: is not JSON; it must be a JSON Web Key Set") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: is no JSON Web Key Set")
    return document


def _check(settings: OAuth2Settings) -> None:
    """Raises: ValueError."""
    claims = settings.claims
    if not claims.issuer:
        raise ValueError("issuer is empty: it says whose tokens count")
    if not claims.audiences:
        raise ValueError("audience is empty: tokens for other servers would be good here")
    if not claims.user:
        raise ValueError("user_claims is empty: nobody would have a name")
    for each in settings.algorithms:
        if each not in ALGORITHMS:
            raise ValueError(f'algorithms has "{each}" in it; it can have {", ".join(ALGORITHMS)}')
    if not settings.algorithms:
        raise ValueError("algorithms is empty: no token would be good")
    if not settings.keys and not settings.introspection:
        check_url(claims.issuer)
    if settings.introspection and not settings.client_id:
        raise ValueError("introspection is set, but client_id is not")
