"""What a connection's TLS tells of its other end: the certificate, and the data of channel bindings."""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from dragoman.config import Config, Listener
from dragoman.config_tls import Tls
from dragoman.tls import CLIENT, Certificates, TlsPeer
from tests.authority import Authority, der, save
from tests.tls_kit import issue

END_POINT = "tls-server-end-point"


class Pair:
    """Both ends of a TLS connection, in memory."""

    def __init__(self, folder: Path, client: ssl.SSLContext, kind: str = "none", tls: Tls | None = None) -> None:
        ca = str(folder / "ca.pem") if kind != "none" else ""
        listener = Listener(client_certificates=kind, client_ca=ca)
        config = Config(listeners=(listener,), tls=tls or Tls(str(folder / "server.pem")))
        context = Certificates(config).context(listener)
        assert context is not None
        self.context = context
        self.client_context = client
        self.connect()

    def connect(self, session: ssl.SSLSession | None = None) -> None:
        here, there, ours, theirs = (ssl.MemoryBIO() for _ in range(4))
        with socket.socket() as nobody:
            CLIENT.set(nobody)
            self.server = self.context.wrap_bio(here, ours, server_side=True)
        self.client = self.client_context.wrap_bio(there, theirs, server_hostname="localhost", session=session)
        waiting = {self.client, self.server}
        while waiting:
            for end in (self.client, self.server):
                try:
                    end.do_handshake()
                    waiting.discard(end)
                except ssl.SSLWantReadError:
                    pass
                there.write(ours.read())
                here.write(theirs.read())
        self.peer = TlsPeer("127.0.0.1", "here", True, self.server)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority("an authority")
    made.save(tmp_path / "ca.pem")
    issue(made, tmp_path / "server.pem")
    return made


def trusting(folder: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    made.maximum_version = newest
    return made


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["want", "need"])
def test_the_certificate_of_a_client(tmp_path: Path, authority: Authority, kind: str, version: ssl.TLSVersion) -> None:
    shown = issue(authority, tmp_path / "client.pem", "a client")
    context = trusting(tmp_path, version)
    context.load_cert_chain(tmp_path / "client.pem")
    peer = Pair(tmp_path, context, kind).peer
    assert (peer.tls, peer.loopback, peer.address, peer.listener) == (True, True, "127.0.0.1", "here")
    assert peer.certificate == der(shown)


def test_no_certificate(tmp_path: Path, authority: Authority) -> None:
    assert Pair(tmp_path, trusting(tmp_path), "want").peer.certificate == b""
    issue(authority, tmp_path / "client.pem", "a client")
    context = trusting(tmp_path)
    context.load_cert_chain(tmp_path / "client.pem")
    assert Pair(tmp_path, context, "none").peer.certificate == b""  # nobody asked


def test_the_end_point_is_our_certificate(tmp_path: Path, authority: Authority) -> None:
    """RFC 5929, section 4: hashed as a client would hash what it is shown."""
    pair = Pair(tmp_path, trusting(tmp_path))
    assert pair.peer.channel_binding(END_POINT) == hashlib.sha256(pair.client.getpeercert(True) or b"").digest()


def self_signed(path: Path, key: Any, hashed: hashes.HashAlgorithm | None, **options: Any) -> bytes:
    """A certificate by a key and a hash of one's choice; as DER, and with its key in a PEM file."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now,
                                   now + datetime.timedelta(days=1)).sign(key, hashed, **options)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return made.public_bytes(serialization.Encoding.DER)


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP384R1())
PSS = {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.DIGEST_LENGTH)}


@pytest.mark.parametrize(("key", "hashed", "options", "expected"), [
    (RSA, hashes.SHA256(), {}, hashlib.sha256), (RSA, hashes.SHA512(), {}, hashlib.sha512),
    (EC, hashes.SHA384(), {}, hashlib.sha384), (EC, hashes.SHA224(), {}, hashlib.sha224),
    (RSA, hashes.SHA512(), PSS, hashlib.sha512), (ed25519.Ed25519PrivateKey.generate(), None, {}, None)])
def test_the_end_point_by_kinds_of_signatures(tmp_path: Path, key: Any, hashed: Any, options: dict[str, Any],
                                              expected: Any) -> None:
    shown = self_signed(tmp_path / "server.pem", key, hashed, **options)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    assert Pair(tmp_path, client).peer.channel_binding(END_POINT) == (expected(shown).digest() if expected else b"")


def test_the_end_point_of_a_signature_by_sha1(tmp_path: Path) -> None:
    """SHA-256 takes its place. No such certificate can be made or served here any more, but one may be read."""
    from dragoman.tls_files import _binding

    class Old:
        signature_hash_algorithm = hashes.SHA1()

        def fingerprint(self, hashed: hashes.HashAlgorithm) -> bytes:
            return hashed.name.encode()

    assert _binding(Old()) == b"sha256"


def test_unique_is_of_tls_1_2(tmp_path: Path, authority: Authority) -> None:
    pair = Pair(tmp_path, trusting(tmp_path, ssl.TLSVersion.TLSv1_2))
    assert pair.peer.channel_binding("tls-unique") == pair.client.get_channel_binding("tls-unique") != b""
    first = pair.peer.channel_binding("tls-unique")
    pair.connect(pair.client.session)
    assert pair.server.session_reused
    assert pair.peer.channel_binding("tls-unique") == b""  # RFC 7627: it would not bind
    assert first and pair.peer.channel_binding(END_POINT)
    assert Pair(tmp_path, trusting(tmp_path)).peer.channel_binding("tls-unique") == b""


@pytest.mark.parametrize("kind", ["tls-exporter", "", "tls-server-end-point ", "x"])
def test_kinds_that_are_not_to_be_had(tmp_path: Path, authority: Authority, kind: str) -> None:
    assert Pair(tmp_path, trusting(tmp_path)).peer.channel_binding(kind) == b""


def test_ciphers(tmp_path: Path, authority: Authority) -> None:
    """Only those of TLS 1.2 that have forward secrecy and authenticated encryption, unless others are named."""
    client = trusting(tmp_path, ssl.TLSVersion.TLSv1_2)
    client.set_ciphers("ECDHE+AES")
    pair = Pair(tmp_path, client)
    assert {each["name"].split("-")[0] for each in pair.context.get_ciphers()} <= {"ECDHE", "TLS_AES_256_GCM_SHA384",
                                                                                  "TLS_CHACHA20_POLY1305_SHA256",
                                                                                  "TLS_AES_128_GCM_SHA256"}
    assert all(each["aead"] for each in pair.context.get_ciphers())
    client.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    with pytest.raises(ssl.SSLError):
        Pair(tmp_path, client)
    named = Tls(str(tmp_path / "server.pem"), ciphers="ECDHE-ECDSA-AES128-SHA256")
    cipher = Pair(tmp_path, client, tls=named).server.cipher()
    assert cipher is not None and cipher[0] == "ECDHE-ECDSA-AES128-SHA256"
    with pytest.raises(ValueError, match='tls.ciphers is "none such", of which OpenSSL has none'):
        Pair(tmp_path, client, tls=Tls(str(tmp_path / "server.pem"), ciphers="none such"))


def test_a_certificate_that_only_openssl_takes(tmp_path: Path) -> None:
    """Of a version that there is not."""
    certificate, key = Authority("an authority").issue("localhost")
    odd = der(certificate).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x04", 1)
    save(tmp_path / "server.pem", certificate, key)
    text = (tmp_path / "server.pem").read_text()
    (tmp_path / "server.pem").write_text(ssl.DER_cert_to_PEM_cert(odd) + text[text.index("-----BEGIN PRIVATE"):])
    with pytest.raises(ValueError, match=f"^tls.certificate {tmp_path}/server.pem and its key cannot be used: "):
        Certificates(Config(tls=Tls(str(tmp_path / "server.pem"))))


def test_certificates_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "text").write_text("hello")
    server, ca = str(tmp_path / "server.pem"), str(tmp_path / "ca.pem")
    for file, says in (("none", "cannot be read: No such file"), ("text", "there is no certificate in PEM form in")):
        listener = Listener(client_ca=str(tmp_path / file))
        with pytest.raises(ValueError, match=f"^client_ca.*{says}"):
            Certificates(Config(listeners=(listener,), tls=Tls(server)))
    (tmp_path / "damaged").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=f"^client_ca {tmp_path}/damaged cannot be used: "):
        Certificates(Config(listeners=(Listener(client_ca=str(tmp_path / "damaged")),), tls=Tls(server)))
    for file, says in (("none", "cannot be read: No such file"), ("ca.pem", "there is no revocation list in PEM form")):
        tls = Tls(server, client_ca=ca, client_revocation_lists=(str(tmp_path / file),))
        with pytest.raises(ValueError, match=f"^tls.client_revocation_lists.*{says}"):
            Certificates(Config(tls=tls))
