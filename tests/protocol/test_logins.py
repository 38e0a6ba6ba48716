"""Logins over real sockets, in every dialect: refusals, which tell nothing, and lock-outs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Connection
from proton import symbol

from broker.security.users import PasswordFile
from dragoman import testing
from tests.issuer import AUDIENCE, Issuer
from tests.wire import HANG, Client, ConnectionClosed, Hangup, Peer, eventually
from tests.wire010 import Client010
from tests.wire10 import SASL_HEADER, Client10, encode, state
from tests.wire_mqtt import CONNACK, MqttClient

MECHANISMS = '["PLAIN", "AMQPLAIN", "CRAM-MD5", "SCRAM-SHA-256"]'


class House:
    """A broker with users of a file, and with an issuer of tokens."""

    def __init__(self, broker: testing.Broker, issuer: Issuer) -> None:
        self.broker = broker
        self.issuer = issuer
        self.peer = Peer(broker.host, broker.port)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    path = tmp_path_factory.mktemp("logins") / "users"
    file = PasswordFile(str(path))
    file.set("shop", "secret", "SCRAM-SHA-256", "CRAM-MD5")
    file.set("argon", "secret")
    file.save()
    with Issuer() as issuer:
        config = (f'[authentication]\nusers_file = "{path}"\nmechanisms = {MECHANISMS}\n'
                  f'[[providers]]\nname = "tokens"\nkind = "oauth2"\nissuer = "{issuer.url}"\n'
                  f'audience = ["{AUDIENCE}"]\nleeway = 0\n')
        with testing.broker(config) as broker:
            yield House(broker, issuer)
            assert "Traceback" not in broker.log()


# -- refusals: what each dialect says, and by whose word


def said_091(peer: Peer, mechanism: str, respond: Callable[[bytes], bytes], capable: bool = True,
             product: str = "") -> Any:
    client = Client(peer)
    try:
        client.write(b"AMQP\x00\x00\x09\x01")
        client.expect(Connection.Start)
        capabilities: dict[str, Any] = {"product": product}
        if capable:
            capabilities["capabilities"] = {"authentication_failure_close": True}
        first = respond(b"")
        client.send(0, Connection.StartOk(capabilities, mechanism, first.decode("latin-1"), "en_US"))
        try:
            asked = client.next()
            if isinstance(asked, Connection.Secure):
                client.send(0, Connection.SecureOk(respond(str(asked.challenge).encode()).decode()))
                client.next()
        except ConnectionClosed as error:
            return str(error)
        except Hangup:
            return "hung up"
        return "in"
    finally:
        client.drop()


def said_010(peer: Peer, mechanism: str, respond: Callable[[bytes], bytes]) -> Any:
    client = Client010(*peer, opens=False)
    try:
        client.control("connection.start-ok", client_properties={}, mechanism=mechanism, response=respond(b""),
                       locale="en_US")
        arrived = client.arrive()
        if arrived.name == "connection.secure":
            client.control("connection.secure-ok", response=respond(arrived.fields["challenge"]))
            arrived = client.arrive()
        return (arrived.name, arrived.fields)
    finally:
        client.vanish()


def said_10(peer: Peer, mechanism: str, respond: Callable[[bytes], bytes]) -> Any:
    with socket.create_connection(peer, HANG) as made:
        client = Client10.__new__(Client10)
        client.socket, client.next_id, client._have = made, 0, b""
        made.sendall(SASL_HEADER)
        assert client._read(8) == SASL_HEADER
        client.frame()
        client.send_frame(encode(state(0x41, symbol(mechanism), respond(b""))), kind=1)
        code, fields, _ = client.frame()
        if code == 0x42:
            client.send_frame(encode(state(0x43, respond(fields[0]))), kind=1)
            code, fields, _ = client.frame()
        return (code, fields, made.recv(1) if fields[0] else None)


def said_mqtt(peer: Peer, level: int, user: str, password: str) -> Any:
    client = MqttClient(peer, level)
    client.write(client.connect_packet("x", user=user, password=password))
    found = client.expect(CONNACK)
    client.socket.close()
    return (found.reason, found.properties if level == 5 else None)


def plain(user: str, password: str) -> Callable[[bytes], bytes]:
    return lambda challenge: f"\0{user}\0{password}".encode()


def cram(user: str, password: str) -> Callable[[bytes], bytes]:
    return lambda challenge: challenge and f"{user} {hmac.digest(password.encode(), challenge, 'md5').hex()}".encode()


def scram(user: str, password: str) -> Callable[[bytes], bytes]:
    """RFC 5802, section 5, of a client."""
    bare = f"n={user},r=clientnonce"

    def respond(challenge: bytes) -> bytes:
        if not challenge:
            return f"n,,{bare}".encode()
        nonce, salt, iterations = (part[2:] for part in challenge.decode().split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
        key = hmac.digest(salted, b"Client Key", "sha256")
        signed = f"{bare},{challenge.decode()},c=biws,r={nonce}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        return f"c=biws,r={nonce},p={proof}".encode()

    return respond


SAYS_091 = ("403 ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the broker "
            "logfile. (0, 0)")  # as RabbitMQ to clients that have authentication_failure_close
WORDS: list[tuple[str, Callable[[Peer, str, Callable[[bytes], bytes]], Any], Callable[[str], Any]]] = [
    ("0-9-1", said_091, SAYS_091.format),
    # 0-9-1 of clients without it, 2.2.4: the socket is closed
    ("0-9-1 old", lambda peer, name, respond: said_091(peer, name, respond, False), lambda name: "hung up"),
    # 0-8 to 0-9-1 of Qpid's client for JMS, which waits for a word: Broker-J's
    ("0-9-1 Qpid", lambda peer, name, respond: said_091(peer, name, respond, False, "Qpid Java Client for Qpid"),
     lambda name: "530 Authentication failed (0, 0)"),
    # 0-10: qpidd's words
    ("0-10", said_010, lambda name: ("connection.close", {"reply_code": 320, "reply_text": "Authentication failed"})),
    # 1.0, 5.3.3.6: the outcome is "auth", and no more
    ("1.0", said_10, lambda name: (0x44, [1], b"")),
]
MAKERS = {"PLAIN": plain, "CRAM-MD5": cram, "SCRAM-SHA-256": scram}


@pytest.mark.parametrize("mechanism", MAKERS)
@pytest.mark.parametrize("say, words", [(say, words) for _, say, words in WORDS], ids=[name for name, _, _ in WORDS])
def test_an_unknown_user_and_a_wrong_password_are_told_the_same(
        house: House, mechanism: str, say: Callable[..., Any], words: Callable[[str], Any]) -> None:
    make = MAKERS[mechanism]
    for user, password in (("shop", "wrong"), ("nobody", "secret"), ("guest", "wrong"), ("argon", "wrong")):
        assert say(house.peer, mechanism, make(user, password)) == words(mechanism), user
    assert say(house.peer, mechanism, make("shop", "secret")) != words(mechanism)


@pytest.mark.parametrize("level, words", [
    (3, (4, None)), (4, (4, None)),  # 3.2.2.3 of 3.1.1: bad user name or password
    (5, (0x86, {}))])  # 3.2.2.2 of 5.0: the same, without a reason string, which is for those who may know
def test_in_mqtt_too(house: House, level: int, words: Any) -> None:
    for user, password in (("shop", "wrong"), ("nobody", "secret"), ("guest", "wrong"), ("argon", "wrong")):
        assert said_mqtt(house.peer, level, user, password) == words, user
    assert said_mqtt(house.peer, level, "shop", "secret")[0] == 0


def test_the_log_says_why_and_never_the_password(house: House) -> None:
    said_091(house.peer, "PLAIN", plain("shop", "not-the-password"))
    said_010(house.peer, "PLAIN", plain("no\nbody", "not-the-password"))
    said_10(house.peer, "PLAIN", plain("argon", "not-the-password"))
    said_mqtt(house.peer, 5, "nobody5", "not-the-password")
    log = eventually(house.broker.log, lambda text: "nobody5" in text)
    for reason in ("wrong password for user 'shop'", r"there is no user 'no\nbody'", "wrong password for user 'argon'",
                   "there is no user 'nobody5'"):
        assert reason in log
    assert "not-the-password" not in log


# -- lock-outs


def test_who_guesses_is_locked_out_where_he_is(tmp_path: Path) -> None:
    """Addresses of the loopback network stand for machines."""
    path = tmp_path / "users"
    file = PasswordFile(str(path))
    file.set("shop", "secret")
    file.save()
    limits = "lockout_failures = 3\nlockout_loopback = true\nlockout_seconds = 600"
    with testing.broker(f'[authentication]\nusers_file = "{path}"\n{limits}\n') as broker:
        peer = Peer(broker.host, broker.port)

        def login(address: str, password: str) -> int:
            with socket.create_connection(peer, HANG, (address, 0)) as made:
                client = MqttClient.__new__(MqttClient)
                client.socket, client.level, client.input, client.next_id = made, 4, b"", 0
                made.sendall(client.connect_packet(user="shop", password=password))
                return made.recv(4)[3]

        guesses: list[int] = []
        threads = [threading.Thread(target=lambda: guesses.append(login("127.0.0.2", "guess"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert guesses == [4, 4, 4]
        assert login("127.0.0.1", "secret") == 0
        assert login("127.0.0.2", "secret") == 4  # in the same words
        log = eventually(broker.log, lambda text: "login refused: user 'shop' is locked out from 127.0.0.2" in text)
        assert log.count("is locked out from 127.0.0.2 for 600 s: 3 logins have failed") == 1


# -- tokens


def test_an_expired_token_and_one_of_another_audience_are_wrong_passwords(house: House) -> None:
    for claims in ({"exp": int(time.time()) - 1}, {"aud": "somebody else"}, {"iss": "https://elsewhere.example"}):
        token = house.issuer.token(**claims)
        for _, say, words in WORDS:
            assert say(house.peer, "PLAIN", plain("alice", token)) == words("PLAIN")
        assert said_mqtt(house.peer, 5, "alice", token)[0] == 0x86
