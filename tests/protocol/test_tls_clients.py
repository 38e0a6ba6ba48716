"""Client certificates that a listener wants or needs, and clients that mean harm."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.authority import Authority, pem
from tests.tls_kit import Setting, ended, issue, setting
from tests.wire import HANG, HEADER, Peer, eventually

LISTENERS = '''[[listeners]]
port = 0
client_certificates = "want"
client_ca = "{0}/ca.pem"
[[listeners]]
port = 0
client_certificates = "need"
client_ca = "{0}/ca.pem"
'''
START = b"\x01"  # how connection.start begins


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """Its first listener wants certificates, its second one needs them."""
    folder = tmp_path_factory.mktemp("tls")
    with setting(folder, listeners=LISTENERS.format(folder)) as made:
        issue(made.authority, folder / "client.pem", "a client")
        issue(made.authority, folder / "expired.pem", "a late client", age=20)
        issue(Authority("another authority"), folder / "stranger.pem", "a stranger")
        issue(Authority("an authority"), folder / "forged.pem", "a forger")  # its issuer has the right name only
        yield made


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Setting]:
    with setting(tmp_path, "[limits]\nhandshake_seconds = 2\n") as made:
        yield made


def hello(made: Setting, peer: Peer, certificate: str, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """The first byte that a client of 0-9-1 gets who shows a certificate, or none ("")."""
    context = made.context(made.folder / certificate if certificate else None)
    context.maximum_version = newest
    with made.dial(peer, context) as client:
        client.sendall(HEADER)
        return client.recv(1)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_want_and_need(server: Setting, newest: ssl.TLSVersion) -> None:
    assert hello(server, server.both, "client.pem", newest) == START
    assert hello(server, server.both, "", newest) == START
    assert hello(server, server.tls_only, "client.pem", newest) == START


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("port", "certificate", "alert", "logged"), [
    ("tls_only", "", "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE", "peer did not return a certificate"),
    ("both", "stranger.pem", "UNKNOWN_CA", "certificate verify failed: unable to get local issuer certificate"),
    ("tls_only", "stranger.pem", "UNKNOWN_CA", "certificate verify failed: unable to get local issuer certificate"),
    ("both", "expired.pem", "CERTIFICATE_EXPIRED", "certificate verify failed: certificate has expired"),
    ("tls_only", "expired.pem", "CERTIFICATE_EXPIRED", "certificate verify failed: certificate has expired"),
    ("both", "forged.pem", "DECRYPT_ERROR|BAD_CERTIFICATE", "certificate verify failed: certificate signature failure"),
])
def test_a_client_is_told_what_is_wrong_with_its_certificate(
        server: Setting, port: str, certificate: str, alert: str, logged: str, newest: ssl.TLSVersion) -> None:
    """By an alert of TLS, which it sees within the handshake or, of TLS 1.3, with the first that it reads."""
    context = server.context(server.folder / certificate if certificate else None)
    context.maximum_version = newest
    with pytest.raises(ssl.SSLError, match=alert), server.dial(getattr(server, port), context) as client:
        client.recv(1)
    server.logged(f"closed, its TLS handshake failed: {logged}")


def test_plain_clients_where_certificates_are_wanted(server: Setting) -> None:
    with server.pika(server.both, tls=False) as connection:
        assert connection.channel().is_open
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        server.pika(server.tls_only, tls=False)
    server.logged("refused, it does not use TLS")


def test_what_a_listener_asks_for_is_changed_by_sighup(tmp_path: Path) -> None:
    with setting(tmp_path) as made, made.pika(made.both, tls=False) as connection:
        text = made.broker.config_path.read_text()
        made.broker.config_path.write_text(text.replace('\nclient_ca = ""', f'\nclient_ca = "{tmp_path}/ca.pem"', 1))
        os.kill(made.broker.pid, signal.SIGHUP)
        made.logged("configuration read again\n")
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            made.pika(made.both, tls=False)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"), made.dial(made.both) as client:
            client.recv(1)
        assert hello(made, made.tls_only, "") == START
        assert connection.channel().is_open


def test_an_issuer_that_is_no_longer_trusted(tmp_path: Path) -> None:
    """Its clients do not come in by a session that they had, either."""
    with setting(tmp_path, f'client_ca = "{tmp_path}/ca.pem"\n') as made:
        issue(made.authority, tmp_path / "client.pem", "a client")
        context = made.context(tmp_path / "client.pem")
        with made.dial(made.tls_only, context) as client:
            client.sendall(HEADER)
            assert client.recv(1) == START
            session = client.session

        def resumed() -> bool:
            with socket.create_connection(made.tls_only, HANG) as plain, \
                    context.wrap_socket(plain, server_hostname="localhost", session=session) as client:
                client.sendall(HEADER)
                client.recv(1)
                return bool(client.session_reused)

        assert resumed()
        Authority("another authority").save(tmp_path / "new.pem")
        os.replace(tmp_path / "new.pem", tmp_path / "ca.pem")

        def refused() -> bool:
            try:
                resumed()
            except OSError:
                return True
            return False

        eventually(refused)
        made.logged("closed, its TLS handshake failed: certificate verify failed")


def test_revoked_certificates(tmp_path: Path) -> None:
    """The list is read again when it changes; one that is out of date lets nobody in."""
    lists = tmp_path / "revoked.pem"
    listed = Authority("an authority")
    listed.save(tmp_path / "listed.pem")
    _, bad = (issue(listed, tmp_path / f"{name}.pem", name) for name in ("good", "bad"))
    lists.write_bytes(pem(listed.revoke()))
    more = f'client_ca = "{tmp_path}/listed.pem"\nclient_revocation_lists = ["{lists}"]\n'
    with setting(tmp_path, more) as made:
        assert hello(made, made.both, "good.pem") == hello(made, made.both, "bad.pem") == START

        def alert(certificate: str) -> str:
            try:
                with made.dial(made.both, made.context(tmp_path / certificate)) as client:
                    client.settimeout(0.2)
                    client.recv(1)
            except TimeoutError:
                return ""
            except ssl.SSLError as error:
                return error.reason
            return "hung up"

        lists.write_bytes(pem(listed.revoke(bad)))
        eventually(lambda: alert("bad.pem"), lambda said: "CERTIFICATE_REVOKED" in said)
        assert alert("good.pem") == ""
        lists.write_bytes(pem(listed.revoke(bad, age=5)))
        eventually(lambda: alert("good.pem"), bool)
        made.logged("closed, its TLS handshake failed: certificate verify failed: CRL has expired")


def s_client(peer: Peer, *options: str, text: str = "") -> str:
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{peer.port}", *options], input=text,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=HANG)
    return done.stdout


def test_renegotiation_is_refused(server: Setting) -> None:
    """`R` has OpenSSL's client ask for it, and the broker answers with the alert no_renegotiation."""
    said = s_client(server.both, "-tls1_2", text="R\n")
    assert "RENEGOTIATING" in said and "no renegotiation" in said
    assert "Secure Renegotiation IS supported" in said  # which only says that nobody can begin one in between


def test_what_is_agreed_on(server: Setting) -> None:
    said = s_client(server.both, "-tls1_2", "-servername", "localhost", "-alpn", "mqtt,other")
    assert "Compression: NONE" in said and "ALPN protocol: mqtt" in said and "ECDHE-ECDSA-" in said
    assert "No ALPN negotiated" in s_client(server.both, "-alpn", "other")
    for cipher in ("AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA"):
        assert "handshake failure" in s_client(server.both, "-tls1_2", "-cipher", cipher)


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(server: Setting, version: str) -> None:
    old = server.context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion[version]
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        server.dial(server.both, old)


def first_flight(made: Setting) -> bytes:
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        made.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_in_the_handshake(server: Setting, data: st.DataObject) -> None:
    """Whatever comes, the client is rid of, and others are served."""
    flight = bytearray(first_flight(server))
    for at in data.draw(st.lists(st.integers(1, len(flight) - 1), min_size=1, max_size=8)):
        flight[at] = data.draw(st.integers(0, 255))
    flight += data.draw(st.binary(max_size=50))
    with socket.create_connection(server.both, HANG) as client:
        client.sendall(flight)
        client.shutdown(socket.SHUT_WR)
        while not ended(client):
            pass


def test_garbage_was_no_surprise(server: Setting) -> None:
    """After the tests before, or without them."""
    assert hello(server, server.tls_only, "client.pem") == START
    assert "unexpected: " not in server.broker.log()
    assert "Traceback" not in server.broker.log()


def test_clients_that_stop_in_the_middle_of_a_handshake(impatient: Setting) -> None:
    flight = first_flight(impatient)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(peer, HANG))
                   for peer in (impatient.both, impatient.tls_only) for _ in range(10)]
        for index, client in enumerate(clients):
            client.sendall(flight[:1 + index * len(flight) // len(clients)])
        clients.append(stack.enter_context(socket.create_connection(impatient.both, HANG)))
        clients[-1].sendall(flight)  # it is sent all that the broker has to say, and says nothing more
        for client in clients:
            while not ended(client):
                pass
            impatient.logged(f"127.0.0.1:{client.getsockname()[1]}: closed, ")


def test_a_client_that_is_slow_to_the_end_has_no_more_time_than_others(impatient: Setting) -> None:
    """A byte now and then does not help: there is one time for all up to the opening of a virtual host."""
    flight = first_flight(impatient)
    with socket.create_connection(impatient.both, HANG) as client:
        peer = client.getsockname()[1]
        client.settimeout(0.1)
        sent, over = 0, False
        while not over:
            try:
                client.sendall(flight[sent:sent + 1])
                sent += 1
                over = client.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                over = True
        assert sent < len(flight)
        impatient.logged(f"127.0.0.1:{peer}: closed, its TLS handshake failed: ")
