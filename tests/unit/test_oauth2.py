"""Users by tokens: which are good, which are refused and why, where their keys come from."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey

from broker.security import oauth2
from broker.security.identity import Identity, Peer
from broker.security.oauth2 import OAuth2, OAuth2Settings
from broker.security.provider import Refusal
from broker.security.tokens import TOKEN_LIMIT, Claims, Token, read_keys
from tests.authority import LOCAL, Authority, der, save
from tests.issuer import AUDIENCE, Issuer, base64url, new_key, sign
from tests.peers import free_ports
from tests.provider_kit import Clock, Threads, by_password, by_token, identity, refusal

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as made:
        yield made


def provider(issuer: Issuer, clock: Clock | None = None, claims: dict[str, Any] | None = None,
             threads: Threads | None = None, **settings: Any) -> OAuth2:
    wanted = Claims(**{"issuer": issuer.url, "audiences": (AUDIENCE,), **(claims or {})})
    return OAuth2("tokens", OAuth2Settings(wanted, **{"keys": f"{issuer.url}/jwks", **settings}),
                  (threads or Threads()).run, clock or time.time)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"])
def test_a_token_that_the_issuer_signed(issuer: Issuer, algorithm: str) -> None:
    found = identity(by_token(provider(issuer), issuer.token(algorithm, exp=4_000_000_000)))
    assert (found.user, found.provider, found.expires) == ("alice", "tokens", 4_000_000_030_000)


def test_what_is_taken_of_the_claims(issuer: Issuer) -> None:
    asked = provider(issuer, claims={"user": ("preferred_username", "sub"), "groups": "realm_access.roles",
                                     "resource": "shop"})
    scope = "openid shop.read:*/* shop.tag:administrator other.tag:monitoring shop.write:v/q/k"
    found = identity(by_token(asked, issuer.token(preferred_username="bob", scope=scope,
                                                  realm_access={"roles": ["staff", 1, "tills"]})))
    assert (found.user, found.groups, found.tags) == ("bob", {"staff", "tills"}, {"administrator"})
    assert found.scopes == set(scope.split())
    found = identity(by_token(asked, issuer.token(scp=["shop.read:a/b"])))
    assert (found.user, found.groups, found.scopes) == ("alice", set(), {"shop.read:a/b"})
    found = identity(by_token(provider(issuer), issuer.token(scope="tag:management shop.tag:x", groups="staff")))
    assert (found.groups, found.tags) == ({"staff"}, {"management"})


NOW = int(time.time())


@pytest.mark.parametrize(("claims", "reason"), [
    ({"exp": NOW - 100}, "the token has expired"),
    ({"exp": None}, "does not say when it ends"),
    ({"exp": str(NOW + 100)}, "does not say when it ends"),
    ({"exp": True}, "does not say when it ends"),
    ({"exp": float("inf")}, "does not say when it ends"),
    ({"exp": float("nan")}, "does not say when it ends"),
    ({"nbf": NOW + 1000}, "not valid yet"),
    ({"nbf": "tomorrow"}, "does not say when"),
    ({"aud": "other"}, "the token is for 'other', not for us"),
    ({"aud": ["other", "dragoman2"]}, "not for us"),
    ({"aud": None}, "not for us"),
    ({"aud": {"dragoman": 1}}, "not for us"),
    ({"sub": None}, "no sub that is a name"),
    ({"sub": ""}, "no sub that is a name"),
    ({"sub": ["alice"]}, "no sub that is a name"),
    ({"sub": "a\0b"}, "no sub that is a name"),
    ({"sub": "x" * 300}, "no sub that is a name"),
    ({"groups": [str(each) for each in range(1001)]}, "more than 1000 groups"),
    ({"cnf": {"jkt": "x"}}, "bound to something"),
    ({"cnf": {"x5t#S256": "x"}}, "bound to a certificate")])
def test_claims_that_are_not_right(issuer: Issuer, claims: dict[str, Any], reason: str) -> None:
    answer = refusal(by_token(provider(issuer), issuer.token(**claims)))
    assert reason in answer.reason
    assert not answer.unknown


def test_clocks_may_differ_a_little(issuer: Issuer) -> None:
    clock = Clock(NOW)
    asked = provider(issuer, clock, {"leeway": 30})
    token = issuer.token(exp=NOW + 100, nbf=NOW + 10)
    for now, good in ((NOW - 21, False), (NOW - 20, True), (NOW + 129, True), (NOW + 130, False)):
        clock.now = now
        assert isinstance(by_token(asked, token), Identity) == good


def test_another_issuers_token_is_for_another_provider(issuer: Issuer) -> None:
    for claims in ({"iss": "https://other.example.org"}, {"iss": None}, {"iss": [issuer.url]}):
        assert refusal(by_token(provider(issuer), issuer.token(**claims))).unknown


def test_a_token_bound_to_a_certificate(issuer: Issuer) -> None:
    authority = Authority("CA")
    mine, others = der(authority.issue("a")[0]), der(authority.issue("b")[0])
    token = issuer.token(cnf={"x5t#S256": base64url(hashlib.sha256(mine).digest())})
    asked = provider(issuer)
    assert isinstance(by_token(asked, token, peer=Peer(certificate=mine)), Identity)
    for certificate in (others, b""):
        refusal(by_token(asked, token, peer=Peer(certificate=certificate)))


def test_signatures_that_are_not_right(issuer: Issuer) -> None:
    asked = provider(issuer)
    good = issuer.token()
    head, body, signature = good.split(".")
    forged = base64url(json.dumps({**Token(good).claims, "sub": "admin"}).encode())
    public = issuer.key("RSA").as_pem(private=False)
    confused = OctKey.import_key(base64.b64encode(public))  # a public key taken for a shared secret
    stranger = ECKey.generate_key("P-256", {"kid": "EC-1"})
    for token in (
            f"{head}.{forged}.{signature}", f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{body}.AAAA",
            issuer.token(key=stranger),
            issuer.token("HS256", key=confused, header={"kid": "RSA-1"}),
            issuer.token("RS256", header={"kid": "EC-1"}),  # another of the issuer's keys
            sign({"alg": "none", "kid": "EC-1"}, json.dumps(Token(good).claims), issuer.key("EC")),
            sign({"alg": "ES384", "kid": "EC-1"}, json.dumps(Token(good).claims), issuer.key("EC")),
            sign({"alg": "nonsense"}, json.dumps(Token(good).claims), issuer.key("EC"))):
        assert not refusal(by_token(asked, token)).unknown


def test_only_algorithms_that_are_allowed(issuer: Issuer) -> None:
    asked = provider(issuer, algorithms=("RS256",))
    assert isinstance(by_token(asked, issuer.token("RS256")), Identity)
    for algorithm in ("PS256", "ES256", "EdDSA"):
        assert "is not allowed" in refusal(by_token(asked, issuer.token(algorithm))).reason


def header(**values: Any) -> str:
    return base64url(json.dumps({"alg": "ES256", "kid": "EC-1", **values}).encode())


@pytest.mark.parametrize("token", [
    "", "x", "..", "a.b.c", "a.b", f"{header()}..", f"{header()}.{header()}.", "ey.ey.ey", "a.b.c.d.e",
    f"{header(crit=['exp'])}.{header()}.AAAA", f"{header(alg=1)}.{header()}.AAAA", f"{header(kid=[])}.{header()}.AAAA",
    f"{base64url(b'[' * 9000)}.{header()}.AAAA", f"{base64url(b'[]')}.{header()}.AAAA",
    f"{base64url(b'1' * 9000)}.{header()}.AAAA", f"{header()}.{base64url(b'9' * 9000)}.AAAA",
    f"{header()}.{base64url(bytes([255] * 9))}.AAAA", "ey" + "a" * 20_000, "e\xfc.b.c", "ey a.b.c", "ey\x01.b.c"])
def test_what_is_no_token(issuer: Issuer, token: str) -> None:
    assert refusal(by_token(provider(issuer), token)).unknown
    assert refusal(by_password(provider(issuer), "alice", token.encode())).unknown


@given(st.text(max_size=60), st.integers(0, 200))
def test_damaged_tokens_raise_nothing(junk: str, at: int) -> None:
    good = sign({"alg": "ES256", "kid": "x"}, json.dumps({"iss": "i", "exp": {}}), new_key("EC", "x"))
    for text in (junk, good[:at] + junk + good[at + len(junk):]):
        try:
            Token(text).signed_by([])
        except ValueError:
            continue
        except KeyError as error:  # of an algorithm that is not there, which is asked for before
            assert error.args[0] not in oauth2.ALGORITHMS


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), lambda inner:
                    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["iss", "aud", "exp", "nbf", "sub", "scope", "groups", "cnf", "a"]), inner, max_size=9),
                    max_leaves=20))
def test_any_claims_raise_nothing(claims: Any) -> None:
    if isinstance(claims, dict):
        wanted = Claims("i", (AUDIENCE,), user=("sub", "a.a"), groups="groups.a")
        oauth2.judge({**claims, "aud": AUDIENCE, "exp": NOW + 10}, wanted, NOW, Peer(), "tokens")
        oauth2.judge(claims, wanted, NOW, Peer(), "tokens")


def test_a_token_as_a_password(issuer: Issuer) -> None:
    asked = provider(issuer)
    for algorithm in ("ES256", "RS256"):
        assert identity(by_password(asked, "whatever", issuer.token(algorithm).encode())).user == "alice"
    assert not refusal(by_password(asked, "alice", issuer.token(exp=1).encode())).unknown
    for password in (b"secret", b"a.b.c", b"", b"ey\xff.b.c", b"x" * 50_000):
        assert refusal(by_password(asked, "alice", password)).unknown  # a password file may know it
    assert {"PLAIN", "AMQPLAIN"} < asked.mechanisms()
    never = provider(issuer, passwords=False)
    assert refusal(by_password(never, "alice", issuer.token().encode())).unknown
    assert never.mechanisms() == {"OAUTHBEARER", "XOAUTH2"}


def test_who_the_client_says_it_is(issuer: Issuer) -> None:
    assert identity(by_token(provider(issuer), issuer.token(), "alice")).user == "alice"
    answer = refusal(by_token(provider(issuer), issuer.token(), "bob"))
    assert answer.reason == "the client asks to be 'bob' with the token of 'alice'"


# Keys.


def test_keys_are_found_where_the_issuer_says(issuer: Issuer) -> None:
    asked = provider(issuer, keys="")
    assert isinstance(by_token(asked, issuer.token()), Identity)
    assert issuer.counts == {DISCOVERY: 1, "/jwks": 1}
    issuer.url += "/"  # now it publishes another name
    asked = provider(issuer, keys="", claims={"issuer": issuer.url.rstrip("/")})
    assert "another issuer" in refusal(by_token(asked, issuer.token(iss=issuer.url.rstrip("/")))).reason


def test_keys_of_a_file(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(issuer.key_set()))
    clock = Clock(NOW)
    asked = provider(issuer, clock, keys=str(path))
    assert isinstance(by_token(asked, issuer.token()), Identity)
    issuer.generation = "2"
    path.write_text(json.dumps(issuer.key_set()))
    clock.now += 30
    assert isinstance(by_token(asked, issuer.token()), Identity)
    assert issuer.counts == {}


def test_keys_that_change(issuer: Issuer) -> None:
    clock = Clock(NOW)
    asked = provider(issuer, clock, retry=30, keys_seconds=1000)
    old = issuer.token()
    assert isinstance(by_token(asked, old), Identity)
    issuer.generation = "2"
    new = issuer.token()
    for seconds, count, good in ((29, 1, False), (1, 2, True), (1, 2, True)):
        clock.now += seconds
        assert isinstance(by_token(asked, new), Identity) == good
        assert issuer.counts["/jwks"] == count
    for _ in range(3):  # names of keys that are made up do not make us ask each time
        assert "none of the issuer's" in refusal(by_token(asked, old)).reason
        assert issuer.counts["/jwks"] == 2
    clock.now += 1000
    assert isinstance(by_token(asked, new), Identity)
    assert issuer.counts["/jwks"] == 3


def test_an_issuer_that_is_down(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock(NOW)
    asked = provider(issuer, clock, keys_seconds=1000)
    issuer.status = 500
    for _ in range(2):
        answer = refusal(by_token(asked, issuer.token()))
        assert not answer.unknown
        assert answer.trouble  # so that nobody is locked out for it
    assert "status 500" in caplog.text
    assert issuer.counts["/jwks"] == 1
    issuer.status = 200
    clock.now += 30
    asked._keys._place._clock = lambda: time.monotonic() + 100
    assert isinstance(by_token(asked, issuer.token()), Identity)
    issuer.status = 500
    clock.now += 1000
    assert isinstance(by_token(asked, issuer.token()), Identity)  # the keys that it had are good still
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]
    issuer.status = 200
    issuer.answer = b'{"keys": []}'
    clock.now += 1000
    asked._keys._place._clock = lambda: time.monotonic() + 200
    assert isinstance(by_token(asked, issuer.token()), Identity)
    assert "it has no key for signatures; the keys that there are count further" in caplog.text


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b"x", b"[" * 9000, b'{"keys": 1}', b'{"keys": [1, {}]}',
                                    b'{"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}', b" " * ((1 << 20) + 1)])
def test_answers_that_are_no_keys(issuer: Issuer, answer: bytes) -> None:
    issuer.answer = answer
    assert not refusal(by_token(provider(issuer), issuer.token())).unknown


def test_keys_that_are_for_something_else_are_skipped(issuer: Issuer) -> None:
    modulus = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n
    small = {"kty": "RSA", "e": "AQAB", "n": base64url(modulus.to_bytes(128))}
    good = issuer.key("EC").as_dict(private=False)
    listed = [{"kty": "oct", "k": "AAAA"}, {"kty": "PQC"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
              small, good]
    assert [key.kid for key in read_keys({"keys": listed})] == ["EC-1"]
    for change in ({"use": "enc"}, {"alg": "ES512"}, {"kid": "other"}):
        (key,) = read_keys({"keys": [{**good, **change}]})
        assert not Token(issuer.token()).fits(key)
    assert Token(issuer.token(header={"kid": ""})).fits(key)  # of a token without a key's name, any may be it


def test_a_redirection_is_not_followed(issuer: Issuer) -> None:
    issuer.status = 302
    assert "status 302" in refusal(by_token(provider(issuer), issuer.token())).reason
    assert issuer.counts == {"/jwks": 1}


def test_https_and_whose_certificate_it_is(tmp_path: Path) -> None:
    authority = Authority("CA")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(save(tmp_path / "server.pem", *authority.issue("localhost", LOCAL)))
    authority.save(tmp_path / "ca.pem")
    with Issuer(context) as issuer:
        assert isinstance(by_token(provider(issuer, ca=str(tmp_path / "ca.pem")), issuer.token()), Identity)
        answer = refusal(by_token(provider(issuer), issuer.token()))
        assert "certificate verify failed" in answer.reason
        assert not answer.unknown


# Introspection.


def introspecting(issuer: Issuer, clock: Clock | None = None, **more: Any) -> OAuth2:
    return provider(issuer, clock, **{"keys": "", "introspection": f"{issuer.url}/introspect", "client_id": "broker",
                                      "client_secret": b"s%cret", **more})


def known(issuer: Issuer, **more: Any) -> dict[str, Any]:
    return {"active": True, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 3600, "iss": issuer.url, **more}


def test_the_issuers_server_is_asked_and_its_word_kept_for_a_while(issuer: Issuer) -> None:
    clock = Clock(NOW)
    issuer.tokens["opaque"] = known(issuer, scope="read")
    asked = introspecting(issuer, clock, cache_tokens=2)
    for _ in range(3):
        found = identity(by_token(asked, "opaque"))
        assert (found.user, found.scopes) == ("alice", {"read"})
    assert issuer.counts == {"/introspect": 1}
    del issuer.tokens["opaque"]
    assert isinstance(by_token(asked, "opaque"), Identity)
    clock.now += 60
    for _ in range(2):
        assert refusal(by_token(asked, "opaque")).unknown
    assert issuer.counts == {"/introspect": 3}
    for name in "abc":
        issuer.tokens[name] = known(issuer)
        by_token(asked, name)
    assert len(asked._introspection._known) == 2
    assert "opaque" not in repr(asked._introspection._known)


@pytest.mark.parametrize("claims", [
    {"active": False}, {"active": 1}, {"aud": "other"}, {"aud": None}, {"exp": NOW - 100}, {"exp": None},
    {"iss": "https://other"}, {"nbf": NOW + 1000}, {"sub": 1}])
def test_what_the_issuers_server_says_is_checked_too(issuer: Issuer, claims: dict[str, Any]) -> None:
    issuer.tokens["opaque"] = known(issuer, **claims)
    refusal(by_token(introspecting(issuer), "opaque"))


def test_a_word_that_is_kept_ends_with_the_token(issuer: Issuer) -> None:
    clock = Clock(NOW)
    issuer.tokens["opaque"] = known(issuer, exp=NOW + 10)
    asked = introspecting(issuer, clock)
    assert isinstance(by_token(asked, "opaque"), Identity)
    clock.now += 50
    assert "has expired" in refusal(by_token(asked, "opaque")).reason


def test_a_server_that_cannot_be_asked_refuses(issuer: Issuer) -> None:
    issuer.tokens["opaque"] = known(issuer)
    answer = refusal(by_token(introspecting(issuer, client_secret=b"wrong"), "opaque"))
    assert (answer.unknown, "status 401" in answer.reason) == (False, True)
    (port,) = free_ports(1)
    answer = refusal(by_token(introspecting(issuer, introspection=f"http://localhost:{port}/"), "opaque"))
    assert not answer.unknown


def test_with_keys_only_other_tokens_are_asked_about(issuer: Issuer) -> None:
    issuer.tokens["opaque"] = known(issuer)
    asked = introspecting(issuer, keys=f"{issuer.url}/jwks")
    assert isinstance(by_token(asked, issuer.token()), Identity)
    assert "/introspect" not in issuer.counts
    assert isinstance(by_token(asked, "opaque"), Identity)
    assert refusal(by_password(asked, "alice", b"opaque")).unknown  # a password is nothing to show to others


def test_too_many_at_once(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth2, "WAITING_LIMIT", 2)
    threads = Threads()
    threads.now = False
    asked = provider(issuer, threads=threads)
    answers: list[Identity | Refusal] = []
    for _ in range(3):
        asked.check_token("", issuer.token(), Peer(), answers.append)
    assert [refusal(each).reason for each in answers] == ["too many tokens wait to be checked"]
    threads.flush()
    assert len(answers) == 3
    threads.now = True
    assert isinstance(by_token(asked, issuer.token()), Identity)


@pytest.mark.parametrize("settings", [
    {"claims": Claims("", (AUDIENCE,))}, {"claims": Claims("https://x")}, {"claims": Claims("https://x", ("a",), ())},
    {"algorithms": ("HS256",)}, {"algorithms": ("none",)}, {"algorithms": ()}, {"keys": "http://example.org/jwks"},
    {"keys": "/nowhere/keys.json"}, {"keys": "", "claims": Claims("shop", ("a",))}, {"ca": "/nowhere"},
    {"introspection": "https://x"}, {"introspection": "http://example.org", "client_id": "a"}])
def test_settings_that_cannot_be_used(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        OAuth2("tokens", OAuth2Settings(**{"claims": Claims("https://x", ("a",)), "keys": "https://x/jwks",
                                           **settings}), Threads().run)
    assert "b's'" not in repr(OAuth2Settings(Claims(), client_secret=b"s"))


def test_a_long_token_is_a_token(issuer: Issuer) -> None:
    long = issuer.token(groups=["g" * 100] * 80)
    assert 10_000 < len(long) < TOKEN_LIMIT
    assert isinstance(by_token(provider(issuer), long), Identity)
