"""SASL on the server's side: each mechanism with what real clients send, and with what they should not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pika
import pytest
from amqp.sasl import AMQPLAIN, PLAIN
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode as pamqp_encode

from broker.security import plain, sasl
from broker.security.authenticator import Authenticator
from broker.security.identity import Identity, Peer
from broker.security.mechanism import Mechanism
from broker.security.plain import parse_amqplain, parse_plain
from broker.security.provider import Answer, Provider, Refusal
from broker.security.sasl import (
    MECHANISMS,
    RESPONSE_LIMIT,
    STEP_LIMIT,
    Challenge,
    Failure,
    SaslServer,
)
from broker.security.users import FileProvider, PasswordFile
from tests.provider_kit import Threads
from tests.unit.sasl_kit import (
    CRAM,
    FILE,
    OLD,
    PASSWORD,
    THREADS,
    USERS,
    Bound,
    Client,
    In,
    Told,
    client,
    cram,
    scram,
)

# -- what is offered


def test_offers_what_the_listener_allows_and_the_users_can() -> None:
    assert client().server.mechanisms == ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "AMQPLAIN",
                                          "ANONYMOUS"]
    allowed = Authenticator([USERS], ["AMQPLAIN", "PLAIN", "KERBEROS"])
    assert SaslServer(allowed, Peer(loopback=True)).mechanisms == ["PLAIN", "AMQPLAIN"]
    assert client(users=FileProvider(THREADS.run), anonymous="").server.mechanisms == ["PLAIN", "AMQPLAIN"]


@pytest.mark.parametrize("loopback, tls", [(True, False), (False, True), (True, True)])
def test_passwords_in_the_clear_can_be_kept_to_loopback_and_tls(loopback: bool, tls: bool) -> None:
    users = FileProvider(THREADS.run)
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
    return pamqp_encode.field_table(fields)[4:]


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
    known = found.identity
    assert (known.provider, known.groups, known.mechanism) == ("second", frozenset({"second"}), "PLAIN")
    assert login("b", "3").outcomes == [Failure("wrong")]  # what the second knows, the third is not asked
    assert login("c", "1").outcomes == [Failure("first: no c here; second: no c here; third: no c here")]
    assert Client(SaslServer(Authenticator([], ["PLAIN"]), Peer(loopback=True))).server.mechanisms == []


def test_a_provider_that_knows_the_user_has_the_last_word_in_challenges_too() -> None:
    others = PasswordFile("not saved")
    others.set("guest", "guest", "CRAM-MD5", "SCRAM-SHA-256")
    second = FileProvider(THREADS.run, others, loopback_users=())
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
    threads = Threads(now=False)
    peer = client(users=FileProvider(threads.run, FILE))
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
    threads.flush()
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
