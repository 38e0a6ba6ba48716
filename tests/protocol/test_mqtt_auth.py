"""Enhanced authentication (4.12 of MQTT 5.0) with SCRAM, and SCRAM in AMQP: the client's side is scramp's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pamqp.commands import Connection
from scramp import ScramClient

from broker.security.users import PasswordFile
from dragoman import testing
from dragoman.cli_user import user
from tests.wire import Client, Peer
from tests.wire_mqtt import AUTH, CONNACK, DISCONNECT, MqttClient, Packet, packet, properties

MECHANISMS = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
CONFIG = """
virtual_hosts = ["/", "sales"]
[authentication]
users_file = "{users}"
mechanisms = ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
"""

Dial = Callable[..., MqttClient]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A broker with a user for each mechanism, called as it is, with the password `secret`; and `other`."""
    path = tmp_path_factory.mktemp("users") / "users"
    file = PasswordFile(str(path))
    for mechanism in MECHANISMS:
        file.set(mechanism, "secret", mechanism)
    file.save()
    for command, given in ("add", ["--scheme", "SCRAM-SHA-256"]), ("passwd", []):  # which keeps the scheme
        CliRunner().invoke(user, [command, "other", "--file", str(path), "--password-stdin", *given], "secret\n",
                           catch_exceptions=False)
    with testing.broker(CONFIG.format(users=Path(path))) as broker:
        yield Peer(broker.host, broker.port)
        assert "Traceback" not in broker.log()


def auth(reason: int, mechanism: str, data: str | None = None) -> bytes:
    more = {} if data is None else {"AuthenticationData": data.encode()}
    return packet(0xF0, bytes([reason]), properties(AUTH, {"AuthenticationMethod": mechanism, **more}))


def begin(dial: Dial, mechanism: str, name: str = "", password: str = "secret",
          connect_as: str | None = None) -> tuple[MqttClient, ScramClient]:
    """CONNECT with a client's first message, and the broker's answer to that. connect_as: CONNECT's user name."""
    client, scram = dial(5), ScramClient([mechanism], name or mechanism, password)
    client.write(client.connect_packet(mechanism, user=connect_as, password=None, AuthenticationMethod=mechanism,
                                       AuthenticationData=scram.get_client_first().encode()))
    challenge(client, scram)
    return client, scram


def challenge(client: MqttClient, scram: ScramClient) -> None:
    found = client.expect(AUTH)
    assert found.reason == 0x18
    assert found.properties["AuthenticationMethod"] == scram.mechanism_name
    scram.set_server_first(found.properties["AuthenticationData"].decode())


def log_in(dial: Dial, mechanism: str, connect_as: str | None = None) -> tuple[MqttClient, Packet]:
    client, scram = begin(dial, mechanism, connect_as=connect_as)
    client.write(auth(0x18, mechanism, scram.get_client_final()))
    connack = client.expect(CONNACK)
    assert connack.reason == 0
    assert connack.properties["AuthenticationMethod"] == mechanism
    scram.set_server_final(connack.properties["AuthenticationData"].decode())  # raises if the server is not the one
    return client, connack


def again(client: MqttClient, mechanism: str, name: str = "", password: str = "secret") -> ScramClient:
    """Log in once more, up to the final message."""
    scram = ScramClient([mechanism], name or mechanism, password)
    client.write(auth(0x19, mechanism, scram.get_client_first()))
    challenge(client, scram)
    client.subscribe("between")  # other packets go on meanwhile
    client.publish("between", b"1")
    assert client.message().payload == b"1"
    client.write(auth(0x18, mechanism, scram.get_client_final()))
    return scram


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_client_logs_in_and_does_so_again(mechanism: str, dial_mqtt: Dial) -> None:
    client, _ = log_in(dial_mqtt, mechanism)
    for _ in range(2):
        scram = again(client, mechanism)
        found = client.expect(AUTH)
        assert found.reason == 0
        scram.set_server_final(found.properties["AuthenticationData"].decode())
    client.ping()


def test_a_virtual_host_can_be_named_beside_scram(dial_mqtt: Dial) -> None:
    here, _ = log_in(dial_mqtt, "SCRAM-SHA-256")
    there, _ = log_in(dial_mqtt, "SCRAM-SHA-1", connect_as="sales:")
    for client, payload in ((here, b"here"), (there, b"there")):
        client.subscribe("hosts")
        client.publish("hosts", payload)
    assert here.message().payload == b"here"
    here.nothing()


@pytest.mark.parametrize(("name", "password"), [("", "wrong"), ("nobody", "secret"), ("SCRAM-SHA-1", "secret")])
def test_a_wrong_proof(name: str, password: str, dial_mqtt: Dial) -> None:
    client, scram = begin(dial_mqtt, "SCRAM-SHA-256", name, password)
    client.write(auth(0x18, "SCRAM-SHA-256", scram.get_client_final()))
    found = client.rest()
    assert [(each.kind, each.reason) for each in found] == [(CONNACK, 0x86)]
    assert not found[0].properties


@pytest.mark.parametrize(("name", "password"), [("", "wrong"), ("other", "secret")])
def test_to_log_in_again_as_somebody_else(name: str, password: str, dial_mqtt: Dial) -> None:
    client, _ = log_in(dial_mqtt, "SCRAM-SHA-256")
    again(client, "SCRAM-SHA-256", name, password)
    assert [(each.kind, each.reason) for each in client.rest()] == [(DISCONNECT, 0x87)]


@pytest.mark.parametrize(("data", "reason"), [
    (packet(0xC0), 0x82), (packet(0x30, b"\x00\x01a\x00"), 0x82), (auth(0x19, "SCRAM-SHA-256"), 0x82),
    (auth(0x18, "SCRAM-SHA-1", "x"), 0x82), (auth(0x18, "SCRAM-SHA-256"), 0x86), (packet(0xF0), 0x82),
    (packet(0xF1, b"\x18\x00"), 0x82), (auth(0x18, "SCRAM-SHA-256", "nonsense"), 0x86), (packet(0xE0), -1)])
def test_what_cannot_come_instead_of_the_final_message(data: bytes, reason: int, dial_mqtt: Dial) -> None:
    client, _ = begin(dial_mqtt, "SCRAM-SHA-256")
    client.write(data)
    assert [(each.kind, each.reason) for each in client.rest()] == ([(CONNACK, reason)] if reason > 0 else [])


@pytest.mark.parametrize("data", [auth(0x18, "SCRAM-SHA-256", "x"), auth(0x19, "SCRAM-SHA-1", "x"), packet(0xF0)])
def test_what_cannot_come_in_a_session(data: bytes, dial_mqtt: Dial) -> None:
    client, _ = log_in(dial_mqtt, "SCRAM-SHA-256")
    client.write(data)
    assert [(each.kind, each.reason) for each in client.rest()] == [(DISCONNECT, 0x82)]


@pytest.mark.parametrize("method", ["PLAIN", "ANONYMOUS", "SCRAM-SHA-256-PLUS", ""])
def test_other_methods_are_not_offered(method: str, dial_mqtt: Dial) -> None:
    client = dial_mqtt(5)
    client.write(client.connect_packet("x", AuthenticationMethod=method))
    assert [(each.kind, each.reason) for each in client.rest()] == [(CONNACK, 0x8C)]


@pytest.mark.parametrize("level", [3, 4, 5])
def test_a_verifier_of_scram_serves_for_a_password_too(level: int, connect_mqtt: Dial) -> None:
    connect_mqtt("x", level, user="SCRAM-SHA-512", password="secret").ping()
    connect_mqtt("y", level, user="sales:SCRAM-SHA-512", password="secret").ping()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_scram_in_amqp_091(mechanism: str, password: str, peer: Peer) -> None:
    client, scram = Client(peer), ScramClient([mechanism], mechanism, password)
    client.write(b"AMQP\x00\x00\x09\x01")
    assert client.expect(Connection.Start).mechanisms == "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 PLAIN"
    client.send(0, Connection.StartOk({}, mechanism, scram.get_client_first(), "en_US"))
    scram.set_server_first(client.expect(Connection.Secure).challenge)
    client.send(0, Connection.SecureOk(scram.get_client_final()))
    if password == "wrong":
        assert client.rest() == b""
    else:
        scram.set_server_final(client.expect(Connection.Secure).challenge)
        client.send(0, Connection.SecureOk(""))
        client.expect(Connection.Tune)
    client.drop()
