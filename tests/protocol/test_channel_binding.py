"""SCRAM bound to the TLS connection (RFC 5802, section 6): the client's side is scramp's, over Python's own TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
from cryptography import x509
from pamqp.commands import Connection
from scramp import ScramClient

from broker.security.users import PasswordFile
from tests.tls_kit import Setting, setting
from tests.wire import HEADER, Client, ConnectionClosed

MECHANISM = "SCRAM-SHA-256"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("binding")
    file = PasswordFile(str(folder / "users"))
    file.set("shop", "secret", MECHANISM)
    file.save()
    with setting(folder, f'[authentication]\nusers_file = "{folder}/users"\nmechanisms = ["{MECHANISM}"]\n') as made:
        yield made
        assert "Traceback" not in made.broker.log()


def connect(house: Setting, version: ssl.TLSVersion) -> Client:
    """A client that has got connection.start over TLS of that version."""
    context = house.context()
    context.minimum_version = context.maximum_version = version
    client = Client(house.both)
    client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
    client.write(HEADER)
    client.start = client.expect(Connection.Start)
    return client


def binding(client: Client, kind: str) -> tuple[str, bytes]:
    """Its data as RFC 5929 has them, of what the client sees of the connection."""
    assert isinstance(client.socket, ssl.SSLSocket)
    if kind == "tls-unique":
        return kind, client.socket.get_channel_binding("tls-unique") or b""
    certificate = x509.load_der_x509_certificate(client.socket.getpeercert(True) or b"")
    assert certificate.signature_hash_algorithm is not None and certificate.signature_hash_algorithm.name == "sha256"
    return kind, certificate.fingerprint(certificate.signature_hash_algorithm)


def log_in(client: Client, bound: tuple[str, bytes] | None) -> None:
    """Raises ConnectionClosed when it is refused."""
    mechanism = MECHANISM + ("-PLUS" if bound else "")
    scram = ScramClient([mechanism], "shop", "secret", channel_binding=bound)
    client.send(0, Connection.StartOk({"capabilities": {"authentication_failure_close": True}}, mechanism,
                                      scram.get_client_first(), "en_US"))
    scram.set_server_first(client.expect(Connection.Secure).challenge)
    client.send(0, Connection.SecureOk(scram.get_client_final()))
    scram.set_server_final(client.expect(Connection.Secure).challenge)
    client.send(0, Connection.SecureOk(""))
    client.expect(Connection.Tune)


CASES = [(ssl.TLSVersion.TLSv1_2, "tls-unique"), (ssl.TLSVersion.TLSv1_2, "tls-server-end-point"),
         (ssl.TLSVersion.TLSv1_3, "tls-server-end-point")]


@pytest.mark.parametrize("version, kind", CASES)
def test_a_client_binds_its_login_to_the_connection(house: Setting, version: ssl.TLSVersion, kind: str) -> None:
    client = connect(house, version)
    assert client.start.mechanisms.split(" ") == [MECHANISM + "-PLUS", MECHANISM]
    log_in(client, binding(client, kind))
    client.drop()


@pytest.mark.parametrize("version, kind", CASES)
def test_what_is_bound_to_another_connection_is_refused(house: Setting, version: ssl.TLSVersion, kind: str) -> None:
    """As when somebody in between has a certificate that the client trusts, and passes the login on."""
    client = connect(house, version)
    _, data = binding(client, kind)
    with pytest.raises(ConnectionClosed, match="403 ACCESS_REFUSED"):
        log_in(client, (kind, data[:-1] + bytes([data[-1] ^ 1])))
    client.drop()
    house.logged("does not belong to its first, or came over another connection")


def test_without_binding_it_works_as_well_and_without_tls_there_is_none(house: Setting) -> None:
    client = connect(house, ssl.TLSVersion.TLSv1_3)
    log_in(client, None)
    client.drop()
    plain = Client(house.both)
    plain.write(HEADER)
    assert plain.expect(Connection.Start).mechanisms == MECHANISM
    plain.drop()
