"""TLS: on a port of its own, and on one that plain clients use as well."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pika
import pika.exceptions
import pytest
from cryptography.hazmat.primitives import serialization
from proton import Message, SSLDomain
from proton.utils import BlockingConnection

from dragoman import testing
from tests.authority import Authority, save
from tests.tls_kit import Setting, ended, issue, setting
from tests.wire import HANG, HEADER, eventually

ROOT = Path(__file__).resolve().parents[2]
HELLO = b"\x16\x03\x01\x02\x00\x01"  # how a TLS client's first record begins
LARGE = 10 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with setting(tmp_path_factory.mktemp("tls")) as made:
        yield made


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Setting]:
    with setting(tmp_path, "[limits]\nhandshake_seconds = 1\n") as made:
        yield made


@pytest.fixture
def demanding(tmp_path: Path) -> Iterator[Setting]:
    with setting(tmp_path, f'client_ca = "{tmp_path}/ca.pem"\n') as made:
        yield made


@pytest.mark.parametrize("port", ["both", "tls_only"])
def test_proton(server: Setting, port: str) -> None:
    """AMQP 1.0 within TLS, as Proton and its kin have it."""
    domain = SSLDomain(SSLDomain.MODE_CLIENT)
    domain.set_trusted_ca_db(str(server.folder / "ca.pem"))
    domain.set_peer_authentication(SSLDomain.VERIFY_PEER)
    connection = BlockingConnection(f"amqps://127.0.0.1:{getattr(server, port).port}", timeout=HANG, ssl_domain=domain,
                                    user="guest", password="guest", allowed_mechs="PLAIN")
    connection.create_sender("/queue/proton").send(Message(body="within TLS"))
    receiver = connection.create_receiver("/queue/proton")
    assert receiver.receive(HANG).body == "within TLS"
    receiver.accept()
    connection.close()


@pytest.mark.parametrize(("port", "tls"), [("both", False), ("both", True), ("tls_only", True)])
def test_pika(server: Setting, port: str, tls: bool) -> None:
    with server.pika(getattr(server, port), tls) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        body = os.urandom(LARGE)
        channel.basic_publish("", queue, b"small")
        channel.basic_publish("", queue, body)
        channel.basic_publish("", queue, b"")
        for expected in (b"small", body, b""):
            assert channel.basic_get(queue, auto_ack=True)[2] == expected


def test_the_listeners_are_announced_by_their_schemes(server: Setting) -> None:
    assert [url.partition(":")[0] for url in server.broker.urls] == ["amqp", "amqps"]


@pytest.mark.parametrize("port", ["both", "tls_only"])
def test_aio_pika_with_many_large_messages_at_once(server: Setting, port: str) -> None:
    body = os.urandom(LARGE // 5)

    async def run() -> list[bytes]:
        url = f"amqps://guest:guest@localhost:{getattr(server, port).port}/?cafile={server.folder}/ca.pem"
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            messages = [aio_pika.Message(bytes([number]) + body) for number in range(10)]
            await asyncio.gather(*(channel.default_exchange.publish(message, queue.name) for message in messages))
            got = []
            async with queue.iterator() as iterator:
                async for message in iterator:
                    async with message.process():
                        got.append(message.body)
                    if len(got) == len(messages):
                        return got
        raise AssertionError("the iterator ended early")

    assert asyncio.run(asyncio.wait_for(run(), HANG)) == [bytes([number]) + body for number in range(10)]


def test_the_command_line(server: Setting) -> None:
    def send(url: str, *options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "dragoman", "send", "--optional", *options, url, "amq.fanout", "x"]
        done = subprocess.run(command, cwd=ROOT, text=True, stderr=subprocess.PIPE, timeout=HANG)
        return done.returncode, done.stderr

    trusting = ("--ca", str(server.folder / "ca.pem"))
    for port in (server.both.port, server.tls_only.port):
        code, said = send(f"amqps://localhost:{port}", *trusting)
        assert (code, said[:15]) == (0, "sent 1 message ")
        code, said = send(f"amqps://localhost:{port}")
        assert code == 1 and said.startswith(f"Error: cannot connect to localhost:{port}: certificate verify failed: ")
    assert send(f"amqp://localhost:{server.tls_only.port}") == (1, "Error: cannot connect to localhost:"
                                                                f"{server.tls_only.port}: it hung up; perhaps it wants "
                                                                "TLS (amqps://)\n")
    with testing.broker() as plain:
        assert send(f"amqps://localhost:{plain.port}", *trusting) == (
            1, f"Error: cannot connect to localhost:{plain.port}: the other side does not speak TLS\n")


def test_a_plain_client_at_the_tls_port(server: Setting) -> None:
    with socket.create_connection(server.tls_only, HANG) as client:
        client.sendall(HEADER)
        assert ended(client)
        port = client.getsockname()[1]
        server.logged(f"127.0.0.1:{port}: refused, it does not use TLS")
    with server.pika(server.tls_only) as connection:
        assert connection.channel().is_open


def test_another_protocol_inside_tls(server: Setting) -> None:
    with server.dial(server.both) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(100) == HEADER
        assert client.recv(100) == b""


def test_the_header_may_come_byte_by_byte(server: Setting) -> None:
    for client in (server.dial(server.both), server.dial(server.tls_only), socket.create_connection(server.both, HANG)):
        with client:
            for byte in HEADER:
                client.sendall(bytes([byte]))
            assert client.recv(100)[:1] == b"\x01"  # connection.start


@pytest.mark.parametrize("port", ["both", "tls_only"])
def test_old_tls_is_refused(server: Setting, port: str) -> None:
    old = server.context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(getattr(server, port), HANG) as client, pytest.raises(OSError):
        peer = client.getsockname()[1]
        old.wrap_socket(client, server_hostname="localhost")
    server.logged(f"127.0.0.1:{peer}: closed, its TLS handshake failed: unsupported protocol")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_newer_tls_is_spoken(server: Setting, version: ssl.TLSVersion) -> None:
    context = server.context()
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(server.tls_only, HANG) as client, \
            context.wrap_socket(client, server_hostname="localhost") as wrapped:
        assert wrapped.version() == version.name.replace("_", ".")
        wrapped.sendall(HEADER)
        assert wrapped.recv(100)[:1] == b"\x01"


def test_clients_that_never_finish_are_closed(impatient: Setting) -> None:
    """Silent ones, such as begin a TLS handshake, and such as finish it and say nothing."""
    clients: list[socket.socket] = []
    for peer in (impatient.both, impatient.tls_only):
        clients += [socket.create_connection(peer, HANG), socket.create_connection(peer, HANG), impatient.dial(peer)]
        clients[-2].sendall(HELLO)
    assert [ended(client) for client in clients] == [True] * 6
    for client in clients:
        impatient.logged(f"127.0.0.1:{client.getsockname()[1]}: closed, ")
        client.close()
    with impatient.pika(impatient.tls_only) as connection:
        assert connection.channel().is_open


def test_clients_that_never_finish_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    with setting(tmp_path, "[limits]\nhandshake_seconds = 3600\n") as made:
        clients: list[socket.socket] = []
        for peer in (made.both, made.tls_only):
            clients += [socket.create_connection(peer, HANG), socket.create_connection(peer, HANG), made.dial(peer)]
            clients[-2].sendall(HELLO)
        made.broker.config_path.write_text(made.broker.config_path.read_text().replace(
            'shutdown_seconds = "10 s"', 'shutdown_seconds = "1 h"'))
        os.kill(made.broker.pid, signal.SIGHUP)
        made.logged("configuration read again")
        assert made.broker.stop() == 0
        for client in clients:
            assert ended(client)
            client.close()


def test_limits_count_clients_that_are_still_shaking_hands(tmp_path: Path) -> None:
    with setting(tmp_path, "[limits]\nconnections = 3\n") as made:
        held = [socket.create_connection(made.both, HANG) for _ in range(3)]
        with made.dial(made.both):  # for whom the first one makes room
            assert ended(held[0])
        for each in held:
            each.close()


def test_a_client_must_show_its_certificate(demanding: Setting) -> None:
    certificate, stranger = demanding.folder / "client.pem", demanding.folder / "stranger.pem"
    issue(demanding.authority, certificate, "a client")
    issue(Authority("another authority"), stranger, "a stranger")
    for peer in (demanding.both, demanding.tls_only):
        with demanding.pika(peer, certificate=certificate) as connection:
            assert connection.channel().is_open
        for other in (None, stranger):
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                demanding.pika(peer, certificate=other)
    demanding.logged("closed, its TLS handshake failed: peer did not return a certificate")
    demanding.logged("closed, its TLS handshake failed: certificate verify failed")


def test_tls_is_switched_on_while_the_broker_runs(tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    issue(Authority("an authority"), pem)
    with testing.broker() as broker:
        broker.config_path.write_text(broker.config_path.read_text().replace('certificate = ""',
                                                                             f'certificate = "{pem}"', 1))
        os.kill(broker.pid, signal.SIGHUP)
        eventually(lambda: "configuration read again\n" in broker.log())
        with pytest.raises(ssl.SSLCertVerificationError), \
                socket.create_connection((broker.host, broker.port)) as client:
            ssl.create_default_context().wrap_socket(client, server_hostname="localhost")


@pytest.mark.parametrize(("certificate", "key", "says"), [
    ("none.pem", "", "tls.certificate {}/none.pem cannot be read: No such file or directory"),
    ("text", "one.pem", "tls.certificate: there is no certificate in PEM form in {}/text"),
    ("one.pem", "text", "tls.key: there is no private key in PEM form in {}/text"),
    ("one.pem", "two.pem", "tls.certificate {}/one.pem and its key cannot be used: key values mismatch"),
    ("one.pem", "locked.pem", "tls.key: the private key in {}/locked.pem is protected by a passphrase; "
                              "`openssl pkey` writes it without"),
])
def test_files_that_cannot_be_used(tmp_path: Path, certificate: str, key: str, says: str) -> None:
    authority = Authority("an authority")
    (tmp_path / "text").write_text("hello")
    certificate_one, key_one = authority.issue("one")
    save(tmp_path / "one.pem", certificate_one, key_one)
    issue(authority, tmp_path / "two.pem")
    (tmp_path / "locked.pem").write_bytes(key_one.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")))
    lines = [f'certificate = "{tmp_path}/{certificate}"'] + ([f'key = "{tmp_path}/{key}"'] if key else [])
    with pytest.raises(testing.BrokerFailed) as failed, testing.broker("\n".join(["[tls]", *lines])):
        pass
    assert "exit code 78" in str(failed.value)
    said = str(failed.value).partition("its log:\n")[2]
    assert said.count("\n") == 1 and said.endswith(says.format(tmp_path) + "\n")
