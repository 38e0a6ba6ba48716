"""SASL by challenges: SCRAM, with and without channel binding, and CRAM-MD5."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.security import cram_md5
from broker.security import scram as scram_module
from broker.security.authenticator import Authenticator
from broker.security.md5 import hmac_digest, hmac_states
from broker.security.passwords import parse_verifier
from broker.security.sasl import (
    Challenge,
    Failure,
    SaslServer,
)
from broker.security.users import FileProvider, PasswordFile
from tests.unit.sasl_kit import (
    CRAM,
    FILE,
    PASSWORD,
    THREADS,
    USERS,
    Bound,
    Client,
    In,
    client,
    cram,
    scram,
)

# -- SCRAM


def bound(data: dict[str, bytes] | None = None) -> Client:
    peer = Bound("192.0.2.1", tls=True)
    if data is not None:
        peer.data = data
    return Client(SaslServer(Authenticator([USERS], ["SCRAM-SHA-256"]), peer, success_extra=True))


@pytest.mark.parametrize("kind, data", list(Bound.data.items()))
def test_channel_binding_covers_the_tls_connection(kind: str, data: bytes) -> None:
    assert bound().server.mechanisms == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]
    outcome, signature = scram(bound(), "SCRAM-SHA-256-PLUS", "shop", PASSWORD, header=f"p={kind},,", binding=data)
    assert outcome == In("shop", signature)
    for stolen in (b"", b"another connection"):  # between whom and us somebody sits
        assert scram(bound(), "SCRAM-SHA-256-PLUS", "shop", PASSWORD, header=f"p={kind},,", binding=stolen)[
            0] == Failure(FOREIGN.replace("256:", "256-PLUS:"))
    assert scram(bound(), "SCRAM-SHA-256-PLUS", "shop", "wrong", header=f"p={kind},,", binding=data)[
        0] == Failure("wrong password for user 'shop'")


@pytest.mark.parametrize("mechanism, header", [
    ("SCRAM-SHA-256", "p=tls-exporter,,"), ("SCRAM-SHA-256-PLUS", "n,,"), ("SCRAM-SHA-256-PLUS", "y,,"),
    ("SCRAM-SHA-256-PLUS", "p=tls-unique,,"), ("SCRAM-SHA-256-PLUS", "p=other,,"),
    ("SCRAM-SHA-256", "y,,")])  # it did not see that -PLUS is offered: the list was changed (RFC 5802, section 6)
def test_channel_binding_that_does_not_fit_fails(mechanism: str, header: str) -> None:
    outcome = bound().start(mechanism, f"{header}n=shop,r=abc".encode())
    assert isinstance(outcome, Failure) and outcome.reason.startswith(f"{mechanism}: ")


def test_without_channel_binding_there_is_no_plus_and_y_is_fine() -> None:
    assert bound({}).server.mechanisms == ["SCRAM-SHA-256"]
    assert isinstance(scram(bound({}), "SCRAM-SHA-256", "shop", PASSWORD, header="y,,")[0], In)
    assert isinstance(scram(bound(), "SCRAM-SHA-256", "shop", PASSWORD, header="n,,")[0], In)


@pytest.mark.parametrize("mechanism, verifier, first, nonce, server_first, final, server_final", [
    # RFC 5802, section 5; the verifier is made from its password by other means, in `rfc_verifier`
    ("SCRAM-SHA-1", ("sha1", "QSXCR+Q6sek8bf92"), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j",
     b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
     b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
     b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="),
    # RFC 7677, section 3
    ("SCRAM-SHA-256", ("sha256", "W22ZaJ0SNY7soEsUEjb6gQ=="), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
     "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
     b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
     b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
     b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
])
def test_the_exchanges_of_the_rfcs(
        tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, mechanism: str,
        verifier: tuple[str, str], first: bytes, nonce: str, server_first: bytes, final: bytes,
        server_final: bytes) -> None:
    path = tmp_path_factory.mktemp("rfc") / "users"
    path.write_text(f"user:{rfc_verifier(mechanism, *verifier)}\n")
    file = PasswordFile(str(path))
    file.load()
    monkeypatch.setattr(scram_module, "_new_nonce", lambda: nonce)
    for extra, outcomes in ((True, [In("user", server_final)]),
                            (False, [Challenge(server_final), In("user")])):
        peer = client(users=FileProvider(THREADS.run, file), success_extra=extra)
        assert peer.start(mechanism, first) == Challenge(server_first)
        assert peer.step(final) == outcomes[0]
        if not extra:
            assert peer.step(b"") == outcomes[1]
        again = client(users=FileProvider(THREADS.run, file), success_extra=extra)
        again.start(mechanism, first)
        assert again.step(final.replace(b"=v0", b"=v1").replace(b"=dH", b"=dI")) == Failure(
            "wrong password for user 'user'")


def rfc_verifier(mechanism: str, hash_name: str, salt: str) -> str:
    salted = hashlib.pbkdf2_hmac(hash_name, b"pencil", base64.b64decode(salt), 4096)
    stored = hashlib.new(hash_name, hmac.digest(salted, b"Client Key", hash_name)).digest()
    server = hmac.digest(salted, b"Server Key", hash_name)
    text = f"{mechanism}$4096:{salt}${base64.b64encode(stored).decode()}:{base64.b64encode(server).decode()}"
    assert parse_verifier(text).matches(b"pencil")
    return text


FOREIGN = ("SCRAM-SHA-256: the client's final message does not belong to its first, or came over another connection")
KNOWN = [("SCRAM-SHA-256", "shop"), ("SCRAM-SHA-1", "old"), ("SCRAM-SHA-512", "big,=device")]


@pytest.mark.parametrize("mechanism, name", KNOWN)
@pytest.mark.parametrize("header", ["n,,", "y,,"])
def test_scram_lets_the_right_password_in_only(mechanism: str, name: str, header: str) -> None:
    outcome, signature = scram(client(success_extra=True), mechanism, name, PASSWORD, header=header)
    assert outcome == In(name, signature)
    assert scram(client(), mechanism, name, PASSWORD + "x", header=header)[0] == Failure(
        f"wrong password for user {name!r}")


def test_scram_finds_a_header_that_was_changed_on_the_way() -> None:
    """The client was made to believe that we offer no channel binding: its proof is right, its header is not ours."""
    assert scram(client(), "SCRAM-SHA-256", "shop", PASSWORD, header="n,,", said="y,,")[0] == Failure(
        FOREIGN)


def test_scram_keeps_to_the_loopback_rule_of_a_user_with_a_verifier() -> None:
    users = FileProvider(THREADS.run, FILE, loopback_users=["shop"])
    assert scram(client(users=users), "SCRAM-SHA-256", "shop", PASSWORD)[0] == Failure(
        "user 'shop' may log in over loopback only")
    near = client(True, users=users, success_extra=True)
    assert isinstance(scram(near, "SCRAM-SHA-256", "shop", PASSWORD)[0], In)


def test_scram_with_an_authorization_identity() -> None:
    outcome, signature = scram(client(success_extra=True), "SCRAM-SHA-256", "shop", PASSWORD, header="n,a=shop,")
    assert outcome == In("shop", signature)
    assert client().start("SCRAM-SHA-256", b"n,a=root,n=shop,r=abc") == Failure(
        "SCRAM-SHA-256: the client asks to be another user than it logs in as")


@pytest.mark.parametrize("name, says", [
    ("nobody", "there is no user 'nobody'"), ("argon", "user 'argon' has no SCRAM-SHA-256 verifier"),
    ("old", "user 'old' has no SCRAM-SHA-256 verifier"), ("guest", "user 'guest' may log in over loopback only")])
def test_scram_shows_no_difference_before_the_proof(name: str, says: str) -> None:
    salts = set()
    for _ in range(2):
        peer = client()
        assert scram(peer, "SCRAM-SHA-256", name, PASSWORD)[0] == Failure(says)
        assert isinstance(peer.outcomes[0], Challenge)
        assert peer.outcomes[0].data.endswith(b",i=15000")
        salts.add(peer.outcomes[0].data.split(b",")[1])
    assert len(salts) == 1


@pytest.mark.parametrize("edit", [
    lambda final: final.replace(b"c=biws", b"c=eSws"),  # another header than at first
    lambda final: final.replace(b",p=", b"A,p="),  # another nonce
    lambda final: final.replace(b",p=", b",x=extension,p="),  # which the proof does not cover
    lambda final: final[:-8],
    lambda final: final + b"AAAA",
    lambda final: final[:-44] + base64.b64encode(base64.b64decode(final[-44:]) + b"x"),  # a proof of 33 bytes
    lambda final: final + b",p=AAAA",
    lambda final: final[:final.index(b",p=")] + b",p=",
    lambda final: final[:final.index(b",p=")] + b",p=A===",
    lambda final: b"",
    lambda final: b"\xff" + final,
    lambda final: final + b"\n",
])
def test_a_final_message_that_was_changed_fails(edit: Callable[[bytes], bytes]) -> None:
    assert isinstance(scram(client(), "SCRAM-SHA-256", "shop", PASSWORD, edit=edit)[0], Failure)


@pytest.mark.parametrize("first", [
    b"", b"n", b"n,,", b"n,,n=shop", b"n,,r=abc", b"n,,n=,r=abc", b"n,,n=shop,r=", b"x,,n=shop,r=abc",
    b"n,,r=abc,n=shop", b"n,,m=must,n=shop,r=abc", b"n,,n=sh=op,r=abc", b"n,,n=sh=2cop,r=abc",
    b"n,,n=sh\0op,r=abc", b"n,,n=shop,r=a c",
    b"n,,n=shop,r=abc,", b"n,,n=sh\xffop,r=abc", b"p=tls-unique,,n=shop,r=abc", b"n,b=x,n=shop,r=abc"])
def test_a_malformed_first_message_fails(first: bytes) -> None:
    outcome = client().start("SCRAM-SHA-256", first)
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("SCRAM")


def test_the_server_s_signature_is_answered_with_nothing() -> None:
    peer = client()
    outcome, signature = scram(peer, "SCRAM-SHA-256", "shop", PASSWORD)
    assert outcome == Challenge(signature)
    assert peer.step(b"more") == Failure("data after the end of SASL")
    assert isinstance(peer.step(b""), Failure)


def test_a_replayed_login_fails() -> None:
    first, final = b"n,,n=shop,r=abc", b""

    def keep(made: bytes) -> bytes:
        nonlocal final
        final = made
        return made

    assert isinstance(scram(client(), "SCRAM-SHA-256", "shop", PASSWORD, edit=keep)[0], Challenge)
    replayed = client()
    replayed.start("SCRAM-SHA-256", first)
    assert replayed.step(final) == Failure(FOREIGN)


# -- CRAM-MD5




def test_the_exchange_of_rfc_2195(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cram_md5, "_new_challenge", lambda: b"<1896.697170952@postoffice.reston.mci.net>")
    for initial in (None, b""):
        peer = client(users=CRAM)
        assert peer.start("CRAM-MD5", initial) == Challenge(b"<1896.697170952@postoffice.reston.mci.net>")
        assert peer.step(b"tim b913a602c7eda7a495b4e6e7334d3890") == In("tim")


def test_cram_md5_lets_the_right_password_in_only() -> None:
    assert cram(client(users=CRAM), "tim", "tanstaaftanstaaf") == In("tim")
    assert cram(client(users=CRAM), "tim", "tanstaaf") == Failure("wrong password for user 'tim'")
    assert cram(client(users=CRAM), "joe", "tanstaaftanstaaf") == Failure("there is no user 'joe'")
    assert cram(client(users=CRAM), "guest", "guest") == Failure("user 'guest' may log in over loopback only")
    assert client(users=CRAM).start("PLAIN", b"\0tim\0tanstaaftanstaaf") == In("tim")
    assert client().start("CRAM-MD5", None) == Failure("mechanism 'CRAM-MD5' is not offered")  # nobody there has it


def test_cram_md5_never_gives_the_same_challenge_twice() -> None:
    assert client(users=CRAM).start("CRAM-MD5", None) != client(users=CRAM).start("CRAM-MD5", None)


@pytest.mark.parametrize("response", [
    b"", b"tim", b"tim ", b"tim b913a602c7eda7a495b4e6e7334d389", b" b913a602c7eda7a495b4e6e7334d3890",
    b"tim\0 b913a602c7eda7a495b4e6e7334d3890", b"tim b913a602c7eda7a495b4e6e7334d389g", b"\xff b913a602c7eda7a4"])
def test_malformed_cram_md5_fails(response: bytes) -> None:
    peer = client(users=CRAM)
    peer.start("CRAM-MD5", None)
    outcome = peer.step(response)
    assert isinstance(outcome, Failure) and outcome.reason.startswith("CRAM-MD5: ")
    assert isinstance(client(users=CRAM).start("CRAM-MD5", b"tim x"), Failure)


@given(st.binary(max_size=200), st.binary(max_size=300))
def test_md5_that_goes_on_is_that_of_the_library(key: bytes, message: bytes) -> None:
    assert hmac_digest(hmac_states(key), message) == hmac.digest(key, message, "md5")
