"""Real clients log in by a directory, by tokens and by certificates, in each dialect; and are refused in its words."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import paho.mqtt.client as paho
import pika
import pika.exceptions
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from proton import ConnectionException, SSLDomain, symbol
from proton.utils import BlockingConnection

from dragoman import testing
from interop.amqp010 import blocking
from interop.amqp010.errors import Error as Error010
from tests.authority import LOCAL, Authority, pem, save
from tests.directory import SERVICE, SUFFIX, slapd
from tests.issuer import AUDIENCE, Issuer, base64url, sign
from tests.peers import PeerMissing
from tests.wire import HANG, Peer, eventually
from tests.wire10 import HEADER, SASL_HEADER, Client10, encode, state
from tests.wire_mqtt import AUTH, CONNACK, MqttClient, packet, properties

CONFIG = """
[[listeners]]
client_certificates = "want"
[tls]
certificate = "{folder}/server.pem"
client_ca = "{folder}/ca.pem"
[access]
acl_file = "{folder}/rules.acl"
[[providers]]
name = "directory"
kind = "ldap"
servers = ["ldap://localhost:{ldap}"]
ca = "{folder}/ca.pem"
bind_dn = "{service}"
bind_password_file = "{folder}/service"
base = "{suffix}"
group_base = "{suffix}"
[[providers]]
name = "tokens"
kind = "oauth2"
issuer = "{issuer}"
audience = ["{audience}"]
user_claims = ["preferred_username", "sub"]
[[providers]]
name = "cards"
kind = "certificates"
groups_from = "OU"
issuers = "{folder}/ca.pem"
revocation_lists = ["{folder}/revoked.pem"]
"""

RULES = """
ACL ALLOW staff CREATE QUEUE
ACL ALLOW tills CREATE QUEUE
ACL ALLOW ALL ACCESS VIRTUALHOST
ACL DENY ALL ALL
"""


class Setting:
    """A broker with all the providers there are, and what its clients need."""

    def __init__(self, broker: testing.Broker, issuer: Issuer, folder: Path) -> None:
        self.broker = broker
        self.issuer = issuer
        self.folder = folder
        self.port = broker.port

    def last_user(self) -> str:
        """Who came in last."""
        found = re.findall(r"user (\S+) opened vhost", self.broker.log())
        return str(found[-1]) if found else ""

    def refused(self) -> str:
        """What is logged of the last refusal."""
        eventually(lambda: "login refused" in self.broker.log())
        return self.broker.log().rpartition("login refused")[2]

    def context(self, card: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if card:
            made.load_cert_chain(self.folder / f"{card}.pem")
        return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("providers")
    authority = Authority("Test CA")
    authority.save(folder / "ca.pem")
    save(folder / "server.pem", *authority.issue("localhost", LOCAL))
    tills = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "tills")
    save(folder / "till.pem", *authority.issue(x509.Name([tills, x509.NameAttribute(NameOID.COMMON_NAME, "till")])))
    lost = authority.issue("lost")
    save(folder / "lost.pem", *lost)
    (folder / "revoked.pem").write_bytes(pem(authority.revoke(lost[0])))
    (folder / "service").write_text("service\n")
    (folder / "rules.acl").write_text(RULES)
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(slapd(folder / "slapd", folder / "server.pem"))
        except PeerMissing as missing:
            pytest.skip(str(missing))
        issuer = stack.enter_context(Issuer())
        broker = stack.enter_context(testing.broker(CONFIG.format(
            folder=folder, ldap=directory.port, service=SERVICE, suffix=SUFFIX, issuer=issuer.url, audience=AUDIENCE)))
        yield Setting(broker, issuer, folder)
        assert "Traceback" not in broker.log()
        assert "wonderland" not in broker.log()


class Refused(Exception):
    """In the words of the dialect, as its client tells it."""


class Mechanism(pika.PlainCredentials):
    """Credentials of pika for whatever mechanism."""

    def __init__(self, name: str, response: bytes) -> None:
        super().__init__("", "")
        self.TYPE = name
        self.response = response

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        return (self.TYPE, self.response) if self.TYPE.encode() in start.mechanisms.split() else (None, None)


def by_pika(server: Setting, user: str, password: str, card: str = "", mechanism: str = "") -> None:
    credentials: Any = pika.PlainCredentials(user, password)
    if mechanism:
        credentials = Mechanism(mechanism, initial(mechanism, user, password))
    elif card:
        credentials = pika.credentials.ExternalCredentials()
    options = pika.SSLOptions(server.context(card), "localhost") if card else None
    try:
        pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", server.port, credentials=credentials,
                                                          ssl_options=options)).close()
    except pika.exceptions.AMQPConnectionError as error:
        raise Refused(repr(error)) from None


def by_proton(server: Setting, user: str, password: str, card: str = "", mechanism: str = "") -> None:
    mechanism = mechanism or ("EXTERNAL" if card else "PLAIN")
    domain = None
    if card:
        domain = SSLDomain(SSLDomain.MODE_CLIENT)
        domain.set_trusted_ca_db(str(server.folder / "ca.pem"))
        domain.set_peer_authentication(SSLDomain.VERIFY_PEER)
        domain.set_credentials(str(server.folder / f"{card}.pem"), str(server.folder / f"{card}.pem"), None)
    options = {} if card else {"user": user, "password": password}
    try:
        BlockingConnection(f"{'amqps' if card else 'amqp'}://127.0.0.1:{server.port}", timeout=HANG, ssl_domain=domain,
                           allowed_mechs=mechanism, **options).close()
    except ConnectionException as error:
        raise Refused(str(error)) from None


def by_our_client(server: Setting, user: str, password: str, card: str = "", mechanism: str = "") -> None:
    """AMQP 0-10."""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    try:
        blocking.connect(f"{'amqps' if card else 'amqp'}://{login}localhost:{server.port}/", timeout=HANG,
                         ssl=server.context(card) if card else None).close()
    except Error010 as error:
        raise Refused(str(error)) from None


def by_paho(server: Setting, user: str, password: str, card: str = "", mechanism: str = "", version: int = 5) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(version),
                         reconnect_on_failure=False)
    told = threading.Event()
    codes: list[str] = []

    def connected(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        codes.append(str(reason))
        told.set()
    client.on_connect = connected
    if user:
        client.username_pw_set(user, password)
    if card:
        client.tls_set_context(server.context(card))
    client.connect("localhost", server.port)
    client.loop_start()
    try:
        assert told.wait(HANG)
    finally:
        client.disconnect()
        client.loop_stop()
    if codes[0] != "Success":
        raise Refused(codes[0])


def by_paho3(server: Setting, user: str, password: str, card: str = "", mechanism: str = "") -> None:
    by_paho(server, user, password, card, mechanism, version=4)


def initial(mechanism: str, user: str, token: str) -> bytes:
    if mechanism == "XOAUTH2":
        return f"user={user}\1auth=Bearer {token}\1\1".encode()
    return f"n,{f'a={user}' if user else ''},\1auth=Bearer {token}\1\1".encode()


LogIn = Callable[..., None]
CLIENTS: dict[str, tuple[LogIn, str]] = {  # and the words of a refusal
    "pika": (by_pika, "ACCESS_REFUSED"),
    "proton": (by_proton, "amqp:unauthorized-access.*Authentication failed"),
    "010": (by_our_client, "Authentication failed"),
    "paho5": (by_paho, "Bad user name or password"),
    "paho3": (by_paho3, "Bad user name or password"),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> tuple[LogIn, str]:
    return CLIENTS[request.param]


def test_a_directorys_password(server: Setting, client: tuple[LogIn, str]) -> None:
    log_in, _ = client
    log_in(server, "ALICE", "wonderland")
    assert server.last_user() == "alice"


def test_a_directory_refuses(server: Setting, client: tuple[LogIn, str]) -> None:
    log_in, words = client
    with pytest.raises(Refused, match=words):
        log_in(server, "alice", "wonder")
    assert "wrong password for user 'alice'" in server.refused()
    with pytest.raises(Refused, match=words):
        log_in(server, "nobody", "wonderland")
    assert "the directory has no user 'nobody'" in server.refused()


def test_a_token_as_a_password(server: Setting, client: tuple[LogIn, str]) -> None:
    log_in, _ = client
    log_in(server, "token", server.issuer.token(preferred_username="bob"))
    assert server.last_user() == "bob"


def test_a_large_token(server: Setting, client: tuple[LogIn, str]) -> None:
    log_in, _ = client
    log_in(server, "token", server.issuer.token(sub="large", groups=["g" * 100] * 80))
    assert server.last_user() == "large"
    with pytest.raises(Refused):  # as a login, or as a frame that is too large before one
        log_in(server, "token", server.issuer.token(groups=["g" * 100] * 200))


@pytest.mark.parametrize(("user", "claims", "card", "may"), [
    ("alice", {}, "", True), ("o'(m*)\\,", {}, "", False), ("token", {"groups": ["staff"]}, "", True),
    ("token", {"groups": ["others"]}, "", False), ("", {}, "till", True)])
def test_access_rules_go_by_the_groups_that_providers_name(server: Setting, user: str, claims: dict[str, Any],
                                                           card: str, may: bool) -> None:
    passwords = {"alice": "wonderland", "o'(m*)\\,": "special"}
    password = passwords.get(user) or server.issuer.token(**claims)
    credentials: Any = pika.credentials.ExternalCredentials() if card else pika.PlainCredentials(user, password)
    options = pika.SSLOptions(server.context(card), "localhost") if card else None
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", server.port, credentials=credentials,
                                                           ssl_options=options)) as connection:
        if may:
            connection.channel().queue_declare("orders", durable=True)
        else:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
                connection.channel().queue_declare("others")


def bad_tokens(issuer: Issuer) -> dict[str, str]:
    """By what is logged of them."""
    head, _, rest = issuer.token().partition(".")
    return {"has expired": issuer.token(exp=1000), "not for us": issuer.token(aud="other"),
            "another issuer": issuer.token(iss="https://other"), "not valid yet": issuer.token(nbf=1 << 40),
            "signature is wrong": f"{head}.{base64url(json.dumps({**BEARER, 'iss': issuer.url}).encode())}."
                                  f"{rest.partition('.')[2]}",
            "algorithm 'none' is not allowed": sign({"alg": "none"}, json.dumps({"iss": issuer.url}),
                                                    issuer.key("EC")),
            "is not JSON": f"ey{base64url(b'[' * 6000)}.e30.e30"}


BEARER = {"aud": AUDIENCE, "sub": "admin", "exp": 4_000_000_000}


def test_a_token_that_is_refused(server: Setting, client: tuple[LogIn, str]) -> None:
    log_in, words = client
    for reason, token in bad_tokens(server.issuer).items():
        with pytest.raises(Refused, match=words):
            log_in(server, "token", token)
        assert reason in server.refused()


def test_a_certificate(server: Setting, client: tuple[LogIn, str]) -> None:
    log_in, _ = client
    log_in(server, "", "", card="till")
    assert server.last_user() == "till"


def test_a_revoked_certificate(server: Setting, client: tuple[LogIn, str]) -> None:
    log_in, _ = client
    with pytest.raises(Refused, match=r"ACCESS_REFUSED|[Aa]uthentication failed|Not authorized|Bad user name"):
        log_in(server, "", "", card="lost")
    assert "the certificate of 'lost' is revoked" in server.refused()


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_pika_with_a_token(server: Setting, mechanism: str) -> None:
    by_pika(server, "alice", server.issuer.token(), mechanism=mechanism)
    assert server.last_user() == "alice"
    by_pika(server, "", server.issuer.token(sub="carol"), mechanism=mechanism)
    assert server.last_user() == "carol"
    cases: list[tuple[str, dict[str, Any]]] = [("alice", {"exp": 1000}), ("bob", {})]
    for user, claims in cases:
        with pytest.raises(Refused, match="ACCESS_REFUSED"):
            by_pika(server, user, server.issuer.token(**claims), mechanism=mechanism)
        eventually(lambda user=user: ("has expired" if user == "alice" else "asks to be 'bob'") in server.refused())


def test_a_directory_that_hangs_holds_up_nobody_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = f"""
            [[providers]]
            name = "directory"
            kind = "ldap"
            servers = ["ldap://127.0.0.1:{silent.getsockname()[1]}"]
            user_dn = "uid={{user}}"
            timeout = 2
            """
        with testing.broker(config) as broker:
            client = MqttClient(Peer("localhost", broker.port), 5)
            client.write(client.connect_packet("waits", user="alice", password="secret"))
            with silent.accept()[0]:  # so the directory is being asked
                pika.BlockingConnection(pika.URLParameters(broker.url)).close()  # as guest
                assert "cannot be used" not in broker.log()
                assert client.expect(CONNACK).reason == 0x86
            client.drop()
            assert "cannot be used" in broker.log()


class BearerClient10(Client10):
    """Logs in to AMQP 1.0 with a token; `said` is all of SASL that came: codes and their first field."""

    def _log_in(self, user: str, password: str) -> None:
        self.said: list[tuple[int, Any]] = []
        self.socket.sendall(SASL_HEADER)
        assert self._read(8) == SASL_HEADER
        self._hear()
        self.send_frame(encode(state(0x41, symbol("OAUTHBEARER"), initial("OAUTHBEARER", user, password))), kind=1)
        if self._hear() == 0x42:
            self.send_frame(encode(state(0x43, b"\1")), kind=1)
            self._hear()
        elif self.said[-1] == (0x44, 0):
            self.socket.sendall(HEADER)
            assert self._read(8) == HEADER

    def _hear(self) -> int:
        code, fields, _ = self.frame()
        self.said.append((code, fields[0]))
        return code


def test_a_token_in_amqp_10(server: Setting) -> None:
    client = BearerClient10("localhost", server.port, user="", password=server.issuer.token())
    client.close()
    assert server.last_user() == "alice"
    client = BearerClient10("localhost", server.port, user="", password=server.issuer.token(exp=1), opens=False)
    client.vanish()
    assert [code for code, _ in client.said] == [0x40, 0x42, 0x44]
    assert client.said[1:] == [(0x42, b'{"status":"invalid_token"}'), (0x44, 1)]


def test_a_token_in_enhanced_authentication_of_mqtt(server: Setting) -> None:
    def connect(token: str) -> MqttClient:
        client = MqttClient(Peer("localhost", server.port), 5)
        client.write(client.connect_packet("tokens", user=None, password=None, AuthenticationMethod="OAUTHBEARER",
                                           AuthenticationData=initial("OAUTHBEARER", "", token)))
        return client
    client = connect(server.issuer.token(sub="dora"))
    assert client.expect(CONNACK).reason == 0
    client.disconnect()
    eventually(lambda: server.last_user() == "dora")
    client = connect(server.issuer.token(aud="other"))
    answer = client.expect(AUTH)
    assert answer.properties["AuthenticationData"] == b'{"status":"invalid_token"}'
    client.write(packet(0xF0, bytes([0x18]), properties(AUTH, {"AuthenticationMethod": "OAUTHBEARER",
                                                               "AuthenticationData": b"\1"})))
    assert client.expect(CONNACK).reason == 0x86
    client.drop()

