"""AMQP 1.0's own way into TLS (part 5, section 5.2): a protocol header in the clear, then TLS on the same socket."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dragoman import testing
from tests.tls_kit import Setting, ended, issue, setting
from tests.wire import HANG, HEADER, Peer

TLS = b"AMQP\x02\x01\x00\x00"
SASL = b"AMQP\x03\x01\x00\x00"
AMQP10 = b"AMQP\x00\x01\x00\x00"
DEMANDING = '[[listeners]]\nport = 0\nclient_certificates = "need"\n[[listeners]]\nport = 0\ntls = "always"\n'
SASL_OUTCOME = 0x44


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with setting(tmp_path_factory.mktemp("tls")) as made:
        yield made


@pytest.fixture(scope="module")
def demanding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("demanding")
    with setting(folder, f'client_ca = "{folder}/ca.pem"\n', DEMANDING) as made:
        yield made


def exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = client.recv(size - len(data))
        assert more, f"the broker hung up after {data!r}"
        data += more
    return data


def upgrade(made: Setting, peer: Peer, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """A socket on which TLS was begun by a header."""
    client = socket.create_connection(peer, HANG)
    client.sendall(TLS)
    assert exactly(client, 8) == TLS
    return (context or made.context()).wrap_socket(client, server_hostname="localhost")


def log_in(client: socket.socket) -> None:
    """SASL PLAIN as guest, then the header of AMQP 1.0 and an open, each answered."""
    client.sendall(SASL)
    assert exactly(client, 8) == SASL
    assert b"PLAIN" in frame(client)
    response = b"\0guest\0guest"
    client.sendall(framed(1, b"\x00\x53\x41\xc0" + bytes([10 + len(response)]) + b"\x02\xa3\x05PLAIN\xa0"
                          + bytes([len(response)]) + response))
    outcome = frame(client)
    assert outcome[8:11] == bytes([0, 0x53, SASL_OUTCOME]) and b"\x50\x00" in outcome  # code 0: ok
    client.sendall(AMQP10 + framed(0, b"\x00\x53\x10\xc0\x04\x01\xa1\x01x"))
    assert exactly(client, 8) == AMQP10
    assert frame(client)[8:11] == b"\x00\x53\x10"


def framed(kind: int, body: bytes) -> bytes:
    return (8 + len(body)).to_bytes(4) + bytes([2, kind, 0, 0]) + body


def frame(client: socket.socket) -> bytes:
    size = exactly(client, 4)
    return size + exactly(client, int.from_bytes(size) - 4)


@pytest.mark.parametrize("port", ["both", "tls_only"])
def test_tls_begins_after_the_header(server: Setting, port: str) -> None:
    with upgrade(server, getattr(server, port)) as client:
        assert client.version() == "TLSv1.3"
        log_in(client)


def test_other_dialects_may_follow(server: Setting) -> None:
    """Nobody else has this header, but TLS is TLS."""
    with upgrade(server, server.both) as client:
        client.sendall(HEADER)
        assert exactly(client, 1) == b"\x01"  # connection.start


def test_the_header_byte_by_byte(server: Setting) -> None:
    with socket.create_connection(server.both, HANG) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in TLS:
            client.sendall(bytes([byte]))
        assert exactly(client, 8) == TLS
        with server.context().wrap_socket(client, server_hostname="localhost") as wrapped:
            log_in(wrapped)


def test_a_client_need_not_wait_for_the_answer(server: Setting) -> None:
    """Its first record of TLS may come with the header."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = server.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with socket.create_connection(server.both, HANG) as client:
        client.sendall(TLS + outgoing.read())
        assert exactly(client, 8) == TLS
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(client.recv(65536))
        client.sendall(outgoing.read())
        tls.write(SASL)
        client.sendall(outgoing.read())
        while True:
            try:
                assert tls.read(8) == SASL
                break
            except ssl.SSLWantReadError:
                incoming.write(client.recv(65536))


@pytest.mark.parametrize("header", [TLS, b"AMQP\x02\x01\x01\x00", b"AMQP\x01\x01\x00\x00", b"AMQP\x04\x01\x00\x00"])
def test_a_header_that_leads_nowhere_is_answered_with_one_that_does(server: Setting, header: bytes) -> None:
    """Within TLS there is no second TLS."""
    with upgrade(server, server.both) as client:
        client.sendall(header)
        assert exactly(client, 8) == (SASL if header == TLS else HEADER)
        assert ended(client)


@pytest.mark.parametrize("config", ["", '[[listeners]]\ntls = "never"\n'])
def test_without_a_certificate(config: str) -> None:
    with testing.broker(config) as broker, socket.create_connection((broker.host, broker.port), HANG) as client:
        client.sendall(TLS)
        assert exactly(client, 8) == SASL
        assert ended(client)


@pytest.mark.parametrize("after", [b"GET / HTTP/1.1\r\n\r\n", SASL, bytes(100), b"\x15\x03\x01\x00\x02\x02\x28",
                                   b"\xff" * 70000])
def test_what_follows_is_no_tls(server: Setting, after: bytes) -> None:
    with socket.create_connection(server.both, HANG) as client:
        client.sendall(TLS)
        assert exactly(client, 8) == TLS
        client.sendall(after)
        peer = client.getsockname()[1]
        while not ended(client):  # it may be sent an alert first
            pass
        server.logged(f"127.0.0.1:{peer}: closed, its TLS handshake failed")
    with upgrade(server, server.both) as client:
        log_in(client)


def test_clients_that_stop_on_the_way_are_closed(tmp_path: Path) -> None:
    parts = [b"A", b"AMQ", TLS[:5], TLS[:7], TLS, TLS + b"\x16", TLS + b"\x16\x03\x01\x02\x00\x01"]
    with ExitStack() as stack:
        server = stack.enter_context(setting(tmp_path, "[limits]\nhandshake_seconds = 1\n"))
        clients = [stack.enter_context(socket.create_connection(server.both, HANG)) for _ in parts]
        for client, part in zip(clients, parts, strict=True):
            client.sendall(part)
        for client, part in zip(clients, parts, strict=True):
            if part.startswith(TLS):
                assert exactly(client, 8) == TLS
            assert ended(client)
            server.logged(f"127.0.0.1:{client.getsockname()[1]}: closed, ")


@pytest.mark.parametrize("part", [b"A", TLS[:5], TLS[:7]])
def test_a_header_that_ends(server: Setting, part: bytes) -> None:
    with socket.create_connection(server.both, HANG) as client:
        client.sendall(part)
        client.shutdown(socket.SHUT_WR)
        assert ended(client)


@pytest.mark.parametrize(("header", "answer"), [(AMQP10, TLS), (SASL, TLS), (HEADER, b""), (b"\x10\x20", b""),
                                                (b"GET / HTTP/1.1\r\n\r\n", b""), (b"AMQ?", b"")])
@pytest.mark.parametrize("port", ["both", "tls_only"])
def test_plain_clients_where_certificates_are_needed(demanding: Setting, header: bytes, answer: bytes,
                                                     port: str) -> None:
    """A client of AMQP 1.0 is told that it is TLS it has to begin with; others have no words for that."""
    with socket.create_connection(getattr(demanding, port), HANG) as client:
        client.sendall(header)
        peer = client.getsockname()[1]
        assert exactly(client, len(answer)) == answer
        assert ended(client)
        demanding.logged(f"127.0.0.1:{peer}: refused, it does not use TLS")


def test_the_header_where_certificates_are_needed(demanding: Setting) -> None:
    certificate = demanding.folder / "client.pem"
    issue(demanding.authority, certificate, "a client")
    with upgrade(demanding, demanding.both, demanding.context(certificate)) as client:
        log_in(client)
    with upgrade(demanding, demanding.both) as client, pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        client.recv(1)
