"""SASL on the server's side: each mechanism with what real clients send, and with what they should not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pika
import pytest
from amqp.sasl import AMQPLAIN, PLAIN  # type: ignore[import-untyped]
from amqp.serialization import dumps  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode as pamqp_encode

from broker.security import cram_md5, plain, sasl
from broker.security import scram as scram_module
from broker.security.authenticator import Authenticator
from broker.security.identity import NOBODY, Identity, Peer
from broker.security.md5 import hmac_digest, hmac_states
from broker.security.mechanism import Mechanism
from broker.security.passwords import parse_verifier
from broker.security.plain import parse_amqplain, parse_plain
from broker.security.provider import Answer, Provider, Refusal
from broker.security.sasl import (
    MECHANISMS,
    RESPONSE_LIMIT,
    STEP_LIMIT,
    Challenge,
    Failure,
    Outcome,
    SaslServer,
    Success,
)
from broker.security.users import FileProvider, PasswordFile


class Pool:
    """Runs checks when told to, or at once."""

    def __init__(self) -> None:
        self.now = True
        self.queue: list[Callable[[], None]] = []

    def run(self, work: Callable[[], object], done: Callable[[object | BaseException], None]) -> None:
        self.queue.append(lambda: done(work()))
        if self.now:
            self.flush()

    def flush(self) -> None:
        while self.queue:
            self.queue.pop(0)()


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
POOL = Pool()
FILE = PasswordFile("not saved")
FILE.set("shop", PASSWORD, "SCRAM-SHA-256")
FILE.set("old", PASSWORD, "SCRAM-SHA-1")
FILE.set("big,=device", PASSWORD, "SCRAM-SHA-512")
FILE.set("argon", PASSWORD)
USERS = FileProvider(POOL.run, FILE)


def client(loopback: bool = False, tls: bool = False, users: FileProvider = USERS, clear_passwords: bool = True,
           success_extra: bool = False, anonymous: str = "anyone") -> Client:
    authenticator = Authenticator([users], MECHANISMS, clear_passwords=clear_passwords, anonymous_user=anonymous,
                                  secret=b"kept")
    return Client(SaslServer(authenticator, Peer(loopback=loopback, tls=tls), success_extra=success_extra))


# -- what is offered


def test_offers_what_the_listener_allows_and_the_users_can() -> None:
    assert client().server.mechanisms == ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "AMQPLAIN",
                                          "ANONYMOUS"]
    allowed = Authenticator([USERS], ["AMQPLAIN", "PLAIN", "KERBEROS"])
    assert SaslServer(allowed, Peer(loopback=True)).mechanisms == ["PLAIN", "AMQPLAIN"]
    assert client(users=FileProvider(POOL.run), anonymous="").server.mechanisms == ["PLAIN", "AMQPLAIN"]


@pytest.mark.parametrize("loopback, tls", [(True, False), (False, True), (True, True)])
def test_passwords_in_the_clear_can_be_kept_to_loopback_and_tls(loopback: bool, tls: bool) -> None:
    users = FileProvider(POOL.run)
    assert client(loopback, tls, users, False, anonymous="").server.mechanisms == ["PLAIN", "AMQPLAIN"]
    far = client(False, False, users, False, anonymous="")
    assert far.server.mechanisms == []
    assert far.start("PLAIN", b"\0shop\0x") == Failure(
        "mechanism 'PLAIN' is not offered: passwords are taken over TLS only, as the listener has no clear_passwords")


@pytest.mark.parametrize("name", ["GSSAPI", "plain", "", "PLAIN\n", "SCRAM-SHA-256-PLUS", "\ud800"])
def test_a_mechanism_that_is_not_offered_fails(name: str) -> None:
    assert client().start(name, b"\0shop\0x") == Failure(f"mechanism {name!r} is not offered")


# -- PLAIN and AMQPLAIN


def from_pika(name: str, password: str) -> bytes:
    start = SimpleNamespace(mechanisms=b"AMQPLAIN PLAIN")
    mechanism, response = pika.PlainCredentials(name, password).response_for(start)
    assert mechanism == "PLAIN"
    assert isinstance(response, bytes)
    return response


def from_table(fields: dict[str, object]) -> bytes:
    return pamqp_encode.field_table(fields)[4:]  # type: ignore[arg-type]


CLIENTS = [
    ("PLAIN", from_pika),
    ("PLAIN", lambda name, password: PLAIN(name, password).start(None)),
    ("AMQPLAIN", lambda name, password: AMQPLAIN(name, password).start(None)),
    ("AMQPLAIN", lambda name, password: from_table({"LOGIN": name, "PASSWORD": password})),
]


@pytest.mark.parametrize("mechanism, made", CLIENTS)
@pytest.mark.parametrize("name", ["shop", "argon", "big,=device"])
def test_what_real_clients_send_lets_them_in(mechanism: str, made: Callable[[str, str], bytes], name: str) -> None:
    assert client().start(mechanism, made(name, PASSWORD)) == In(name)
    assert client().start(mechanism, made(name, PASSWORD + "x")) == Failure(f"wrong password for user {name!r}")
    assert client().start(mechanism, made("nobody", PASSWORD)) == Failure("there is no user 'nobody'")


@pytest.mark.parametrize("mechanism, made", CLIENTS)
def test_guest_over_loopback_only(mechanism: str, made: Callable[[str, str], bytes]) -> None:
    assert client(loopback=True).start(mechanism, made("guest", "guest")) == In("guest")
    assert client().start(mechanism, made("guest", "guest")) == Failure("user 'guest' may log in over loopback only")


@pytest.mark.parametrize("mechanism, made", CLIENTS)
def test_a_client_without_an_initial_response_is_asked(mechanism: str, made: Callable[[str, str], bytes]) -> None:
    asked = client()
    assert asked.start(mechanism, None) == Challenge(b"")
    assert asked.step(made("shop", PASSWORD)) == In("shop")


def test_plain_takes_an_authorization_identity_that_changes_nothing() -> None:
    assert parse_plain(b"shop\0shop\0x\xc3\xa4") == ("shop", b"x\xc3\xa4")
    assert client().start("PLAIN", b"root\0shop\0" + PASSWORD.encode()) == Failure(
        "PLAIN: the client asks to be another user than it logs in as")


@pytest.mark.parametrize("response, says", [
    (b"", "NUL"), (b"shop", "NUL"), (b"\0shop", "NUL"), (b"\0shop\0a\0", "NUL"), (b"\0\0\0", "NUL"),
    (b"\0\0secret", "no name"), (b"\0shop\0", "no password"), (b"\0sh\xff\0a", "UTF-8"), (b"\0shop\0\xff", "UTF-8"),
])
def test_malformed_plain_fails(response: bytes, says: str) -> None:
    outcome = client(loopback=True).start("PLAIN", response)
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("PLAIN: ") and says in outcome.reason


def test_amqplain_ignores_other_fields_of_every_type_in_any_order() -> None:
    fields: dict[str, object] = {"PASSWORD": "x", "int": 5, "long": 2**40, "nested": {"LOGIN": "root"},
                                 "list": [1, "a"], "none": None, "flag": True, "float": 1.5, "bytes": bytearray(b"ab"),
                                 "LOGIN": "shop"}
    assert parse_amqplain(from_table(fields)) == ("shop", b"x")
    assert parse_amqplain(dumps("F", [fields | {"bytes": "no"}])[4:]) == ("shop", b"x")
    every = b"".join(b"\x01k" + kind + bytes(size) for kind, size in plain._FIXED.items())
    assert parse_amqplain(every + from_table({"LOGIN": "shop", "PASSWORD": ""})) == ("shop", b"")


LOGIN, PASS = b"\x05LOGINS\0\0\0\x04shop", b"\x08PASSWORDS\0\0\0\x01x"


@pytest.mark.parametrize("response, says", [
    (b"", "no LOGIN"), (LOGIN, "no LOGIN or no PASSWORD"), (PASS, "no LOGIN"),
    (b"\x05LOGINS\0\0\0\0" + PASS, "no LOGIN"),
    (LOGIN + LOGIN + PASS, "twice"), (LOGIN + PASS + PASS, "twice"),
    (LOGIN + b"\x08PASSWORDx\0\0\0\x01x", "not a long string"),
    (LOGIN + b"\x08PASSWORDI\0\0\0\x01", "not a long string"),
    (b"\x05LOGINV" + PASS, "not a long string"), (LOGIN + PASS + b"\x01k?", "type"), (LOGIN + PASS + b"\x01k", "type"),
    (LOGIN + PASS + b"\xffk", "type"), (LOGIN + PASS + b"\x00", "type"), (LOGIN + PASS + b"\x01kS", "ends within"),
    (LOGIN + PASS + b"\x01kS\0\0\0", "ends within"), (LOGIN + PASS + b"\x01kS\0\0\0\x01", "ends within"),
    (LOGIN + PASS + b"\x01kF\xff\xff\xff\xff", "ends within"), (LOGIN + PASS + b"\x01kl\0\0", "ends within"),
    (LOGIN + PASS[:-1], "ends within"), (LOGIN.replace(b"o", b"\xff") + PASS, "UTF-8"),
    (len(LOGIN + PASS).to_bytes(4) + LOGIN + PASS, "type"),  # with the length that the mechanism leaves out
])
def test_malformed_amqplain_fails(response: bytes, says: str) -> None:
    outcome = client(loopback=True).start("AMQPLAIN", response)
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("AMQPLAIN: ") and says in outcome.reason


PART = st.text(min_size=1).filter(lambda text: "\0" not in text).filter(
    lambda text: not any("\ud800" <= char <= "\udfff" for char in text))


@given(PART, PART)
def test_plain_and_amqplain_give_back_what_clients_put_in(name: str, password: str) -> None:
    assert parse_plain(PLAIN(name, password).start(None)) == (name, password.encode())
    assert parse_amqplain(AMQPLAIN(name, password).start(None)) == (name, password.encode())


# -- CRAM-MD5


OLD = PasswordFile("not saved")
OLD.set("tim", "tanstaaftanstaaf", "CRAM-MD5", "argon2")
CRAM = FileProvider(POOL.run, OLD)


def test_the_exchange_of_rfc_2195(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cram_md5, "_new_challenge", lambda: b"<1896.697170952@postoffice.reston.mci.net>")
    for initial in (None, b""):
        peer = client(users=CRAM)
        assert peer.start("CRAM-MD5", initial) == Challenge(b"<1896.697170952@postoffice.reston.mci.net>")
        assert peer.step(b"tim b913a602c7eda7a495b4e6e7334d3890") == In("tim")


def cram(peer: Client, name: str, password: str) -> Told:
    challenge = peer.start("CRAM-MD5", None)
    assert isinstance(challenge, Challenge)
    return peer.step(f"{name} {hmac.digest(password.encode(), challenge.data, 'md5').hex()}".encode())


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


# -- EXTERNAL


class Certificates(Provider):
    """A certificate's bytes are its user's name."""

    def mechanisms(self) -> set[str]:
        return {"EXTERNAL"}

    def check_certificate(self, wanted: str, peer: Peer, answer: Answer) -> None:
        name = peer.certificate.decode()
        answer(Identity(name) if wanted in ("", name) else Refusal("another's"))


def external(certificate: bytes) -> Client:
    authenticator = Authenticator([USERS, Certificates()], ["EXTERNAL"])
    return Client(SaslServer(authenticator, Peer("192.0.2.1", tls=True, certificate=certificate)))


def test_external_is_offered_to_who_has_a_certificate_and_is_who_that_says() -> None:
    assert external(b"").server.mechanisms == []
    assert external(b"").start("EXTERNAL", b"") == Failure("mechanism 'EXTERNAL' is not offered")
    for response in (b"", b"device"):
        assert external(b"device").start("EXTERNAL", response) == In("device")
    asked = external(b"device")
    assert asked.start("EXTERNAL", None) == Challenge(b"")
    assert asked.step(b"") == In("device")
    assert external(b"device").start("EXTERNAL", b"root") == Failure("another's")
    assert isinstance(external(b"device").start("EXTERNAL", b"\xff"), Failure)
    assert isinstance(external(b"device").start("EXTERNAL", b"device\0"), Failure)


# -- several providers


class Directory(Provider):
    """Knows one user with a password, and says so of others, or not."""

    def __init__(self, name: str, user: str, password: bytes) -> None:
        self.name = name
        self.user = user
        self.password = password

    def mechanisms(self) -> set[str]:
        return {"PLAIN"}

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        if name != self.user:
            answer(Refusal(f"no {name} here", unknown=True))
        else:
            answer(Identity(name, frozenset({self.name})) if password == self.password else Refusal("wrong"))


def test_providers_are_asked_in_order_until_one_knows_the_user() -> None:
    authenticator = Authenticator([Directory("first", "a", b"1"), Directory("second", "b", b"2"),
                                   Directory("third", "b", b"3")], ["PLAIN"])

    def login(name: str, password: str) -> Client:
        made = Client(SaslServer(authenticator, Peer(loopback=True)))
        made.start("PLAIN", f"\0{name}\0{password}".encode())
        return made

    found = login("b", "2")
    assert found.outcomes == [In("b")]
    assert (found.identity.provider, found.identity.groups, found.identity.mechanism) == ("second", {"second"}, "PLAIN")
    assert login("b", "3").outcomes == [Failure("wrong")]  # what the second knows, the third is not asked
    assert login("c", "1").outcomes == [Failure("first: no c here; second: no c here; third: no c here")]
    assert Client(SaslServer(Authenticator([], ["PLAIN"]), Peer(loopback=True))).server.mechanisms == []


def test_a_provider_that_knows_the_user_has_the_last_word_in_challenges_too() -> None:
    others = PasswordFile("not saved")
    others.set("guest", "guest", "CRAM-MD5", "SCRAM-SHA-256")
    second = FileProvider(POOL.run, others, loopback_users=())
    for providers, says in (([CRAM, second], Failure("user 'guest' may log in over loopback only")),
                            ([second, CRAM], In("guest"))):
        authenticator = Authenticator(providers, ["CRAM-MD5", "SCRAM-SHA-256"])
        assert cram(Client(SaslServer(authenticator, Peer("192.0.2.1"))), "guest", "guest") == says
        outcome, _ = scram(Client(SaslServer(authenticator, Peer("192.0.2.1"), success_extra=True)), "SCRAM-SHA-256",
                           "guest", "guest")
        assert outcome == says or isinstance(outcome, In) and isinstance(says, In)


def test_clear_passwords_and_tokens_are_not_offered_from_afar_without_tls() -> None:
    class Tokens(Provider):
        def mechanisms(self) -> set[str]:
            return {"XOAUTH2", "OAUTHBEARER", "PLAIN"}

    users = Authenticator([Tokens(), CRAM], ["XOAUTH2", "OAUTHBEARER", "PLAIN", "AMQPLAIN", "CRAM-MD5"])
    assert users.mechanisms(Peer("192.0.2.1")) == {"CRAM-MD5"}
    assert users.mechanisms(Peer("192.0.2.1", tls=True)) == users.allowed == users.mechanisms(Peer(loopback=True))


# -- ANONYMOUS


@pytest.mark.parametrize("response", [None, b"", b"user@example.org", b"\xff\0"])
def test_anonymous_is_the_configured_user(response: bytes | None) -> None:
    assert client().start("ANONYMOUS", response) == In("anyone")


def test_anonymous_as_guest_keeps_to_guest_s_rule() -> None:
    assert client(True, anonymous="guest").start("ANONYMOUS", b"") == In("guest")
    assert client(False, anonymous="guest").start("ANONYMOUS", b"") == Failure(
        "user 'guest' may log in over loopback only")


# -- SCRAM


class Bound(Peer):
    """A TLS connection that can be bound to."""

    data = {"tls-exporter": b"this connection", "tls-server-end-point": b"this certificate"}

    def channel_binding(self, kind: str) -> bytes:
        return self.data.get(kind, b"")


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
        peer = client(users=FileProvider(POOL.run, file), success_extra=extra)
        assert peer.start(mechanism, first) == Challenge(server_first)
        assert peer.step(final) == outcomes[0]
        if not extra:
            assert peer.step(b"") == outcomes[1]
        again = client(users=FileProvider(POOL.run, file), success_extra=extra)
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
    users = FileProvider(POOL.run, FILE, loopback_users=["shop"])
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


# -- the order of things


def test_nothing_but_failure_after_the_end() -> None:
    for response in (b"\0shop\0" + PASSWORD.encode(), b"\0shop\0wrong"):
        peer, other = client(), client()
        for each in (peer, other):
            each.start("PLAIN", response)
        assert isinstance(peer.start("PLAIN", b"\0shop\0" + PASSWORD.encode()), Failure)
        assert isinstance(peer.step(b"\0shop\0" + PASSWORD.encode()), Failure)
        assert isinstance(other.step(b"\0shop\0" + PASSWORD.encode()), Failure)


def test_a_second_start_ends_the_first() -> None:
    peer = client()
    assert peer.start("SCRAM-SHA-256", b"n,,n=shop,r=abc") != Failure("a second start of SASL")
    assert peer.start("PLAIN", b"\0shop\0" + PASSWORD.encode()) == Failure("a second start of SASL")
    assert isinstance(peer.step(b""), Failure)


def test_a_response_without_a_challenge_fails() -> None:
    assert client().step(b"\0shop\0x") == Failure("a response without a challenge")


@pytest.mark.parametrize("end", ["step", "start", "close"])
def test_a_late_verdict_is_not_told(end: str) -> None:
    pool = Pool()
    pool.now = False
    peer = client(users=FileProvider(pool.run, FILE))
    peer.start("PLAIN", b"\0shop\0" + PASSWORD.encode())
    assert peer.outcomes == []
    if end == "step":
        peer.step(b"\0shop\0" + PASSWORD.encode())
    elif end == "start":
        peer.start("PLAIN", b"\0shop\0x")
    else:
        peer.server.close()
    told = len(peer.outcomes)
    assert told == (end != "close")
    pool.flush()
    assert len(peer.outcomes) == told
    assert not any(isinstance(outcome, In) for outcome in peer.outcomes)


def test_responses_are_bounded() -> None:
    assert isinstance(client().start("ANONYMOUS", bytes(RESPONSE_LIMIT)), In)
    assert isinstance(client().start("ANONYMOUS", bytes(RESPONSE_LIMIT + 1)), Failure)
    peer = client()
    peer.start("SCRAM-SHA-256", b"n,,n=shop,r=abc")
    outcome = peer.step(bytes(RESPONSE_LIMIT + 1))
    assert isinstance(outcome, Failure) and "more than 16384 bytes" in outcome.reason


def test_a_mechanism_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Mechanism):
        def respond(self, response: bytes | None, done: sasl.Done) -> None:
            done(Challenge(b"again"))

    monkeypatch.setitem(MECHANISMS, "PLAIN", Endless)
    peer = client()
    peer.start("PLAIN", b"")
    for _ in range(STEP_LIMIT):
        assert peer.step(b"") == Challenge(b"again")
    assert isinstance(peer.step(b""), Failure)


class Everything(FileProvider):
    """Answers for all mechanisms, and lets nobody in."""

    def mechanisms(self) -> set[str]:
        return {name.removesuffix("-PLUS") for name in MECHANISMS} - {"ANONYMOUS"}

    def check_token(self, name: str, token: str, peer: Peer, answer: Answer) -> None:
        answer(Refusal("no"))

    def check_certificate(self, wanted: str, peer: Peer, answer: Answer) -> None:
        assert "\0" not in wanted
        answer(Refusal("no"))


TOKEN = st.sampled_from([b"n,,", b"y,,", b"y,", b"p=tls-exporter,,", b"p=x,", b"n=", b"r=", b"c=biws", b",", b"=2C",
                         b"p=", b"shop", b"abc", b"A" * 300, b"LOGIN", b"PASSWORD", b"S", b"F", b"\0", b"\x05", b"\x08",
                         b"\0\0\0\x04", b"\xff\xff\xff\xff", b"user=", b"auth=Bearer ", b"\1", b"a=", b" ",
                         b"b913a602c7eda7a495b4e6e7334d3890", b"tim ", b"\xc3", b"n,a=x,\1auth=Bearer y\1\1"])
BYTES = st.one_of(st.binary(max_size=300), st.lists(TOKEN, max_size=20).map(b"".join))


@given(st.sampled_from([*MECHANISMS, "OTHER"]), st.one_of(st.none(), BYTES), st.lists(BYTES, max_size=4),
       st.sampled_from([FILE, OLD]), st.booleans())
def test_hostile_input_never_raises_and_never_gets_in(
        mechanism: str, response: bytes | None, steps: list[bytes], file: PasswordFile, extra: bool) -> None:
    users = Everything(lambda work, done: done(False), file, guest=False)
    where = Bound("192.0.2.1", tls=True, certificate=b"DER")
    authenticator = Authenticator([users], MECHANISMS, anonymous_user="anyone")
    peer = Client(SaslServer(authenticator, where, success_extra=extra))
    assert set(peer.server.mechanisms) >= set(MECHANISMS) - {"GSSAPI"}
    peer.start(mechanism, response)
    for step in steps:
        peer.step(step)
    assert len(peer.outcomes) == 1 + len(steps)
    gets_in = mechanism == "ANONYMOUS"
    assert any(isinstance(outcome, In) for outcome in peer.outcomes) == gets_in


# -- a new token in time


class Tokens(Provider):
    """A token is its user's name and when it ends."""

    name = "tokens"

    def check_token(self, name: str, token: str, peer: Peer, answer: Answer) -> None:
        user, _, expires = token.partition(" ")
        answer(Identity(user, expires=int(expires)) if expires.isdigit() else Refusal("no token"))

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        self.check_token("", password.decode("utf-8", "replace"), peer, answer)


@pytest.mark.parametrize("mechanism", ["PLAIN", "OAUTHBEARER"])
def test_a_login_that_ends_may_be_renewed_by_the_same_user(mechanism: str) -> None:
    peer = Client(SaslServer(Authenticator([Tokens()], []), Peer(loopback=True)))
    known = Identity("shop", mechanism=mechanism, provider="tokens", expires=5)

    def renewed(secret: bytes) -> Told:
        peer.server.renew(known, secret, peer.told)
        return peer.outcomes[-1]
    assert renewed(b"shop 9") == In("shop")
    assert (peer.identity.expires, peer.identity.mechanism, peer.identity.provider) == (9, mechanism, "tokens")
    assert renewed(b"other 9") == Failure("it is that of user 'other'")
    assert renewed(b"shop") == Failure("no token")
    assert renewed(b"\xff 9") == Failure("it is that of user '\ufffd'")


def test_a_login_that_does_not_end_stays_whatever_the_client_shows() -> None:
    peer = client()
    peer.server.renew(Identity("shop", mechanism="PLAIN"), b"anything", peer.told)
    assert peer.outcomes == [In("shop")]
