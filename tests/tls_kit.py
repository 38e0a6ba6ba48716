"""Brokers with TLS for the tests, and sockets that speak it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pika
from cryptography import x509

from dragoman import testing
from tests.authority import LOCAL, Authority, save
from tests.wire import HANG, Peer, eventually

LISTENERS = '[[listeners]]\nport = 0\n[[listeners]]\nport = 0\ntls = "always"\n'


def issue(authority: Authority, path: Path, name: str = "the broker", names: Sequence[x509.GeneralName] = LOCAL,
          age: int = 0) -> x509.Certificate:
    """A certificate, with its key in one PEM file. age: days by which it is shifted; it is good for ten."""
    certificate, key = authority.issue(name, names, age)
    save(path, certificate, key)
    return certificate


class Setting:
    """A broker with TLS: its first listener takes both kinds of clients, its second one TLS only."""

    def __init__(self, broker: testing.Broker, folder: Path, authority: Authority) -> None:
        self.broker = broker
        self.folder = folder
        self.authority = authority
        self.both, self.tls_only = (Peer("127.0.0.1", int(url.rpartition(":")[2])) for url in broker.urls)

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        """A client's, which trusts the authority alone."""
        made = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate is not None:
            made.load_cert_chain(certificate)
        return made

    def pika(self, peer: Peer, tls: bool = True, certificate: Path | None = None,
             name: str = "localhost") -> pika.BlockingConnection:
        options = pika.SSLOptions(self.context(certificate), name) if tls else None
        return pika.BlockingConnection(pika.ConnectionParameters(*peer, ssl_options=options))

    def dial(self, peer: Peer, context: ssl.SSLContext | None = None, name: str = "localhost") -> ssl.SSLSocket:
        """A socket whose TLS handshake is done."""
        return (context or self.context()).wrap_socket(socket.create_connection(peer, HANG), server_hostname=name)

    def shown(self, name: str = "localhost", peer: Peer | None = None) -> x509.Certificate:
        """The certificate that a client is shown who asks for this name; whether it is right is not looked at."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self.dial(peer or self.tls_only, context, name) as client:
            return x509.load_der_x509_certificate(client.getpeercert(True) or b"")

    def logged(self, text: str) -> None:
        """Wait until the broker logged this."""
        eventually(lambda: text in self.broker.log())


@contextmanager
def setting(folder: Path, more: str = "", listeners: str = LISTENERS,
            authority: Authority | None = None) -> Iterator[Setting]:
    """A broker with a certificate for this machine, and in its folder the file ca.pem of its issuer. more: lines of
    the section [tls], and further sections. authority: that issuer, if others have to know it before."""
    authority = authority or Authority("an authority")
    authority.save(folder / "ca.pem")
    issue(authority, folder / "server.pem")
    with testing.broker(f'{listeners}[tls]\ncertificate = "{folder}/server.pem"\n{more}') as broker:
        yield Setting(broker, folder, authority)


def ended(client: socket.socket) -> bool:
    """Wait until the broker has closed the connection: whether it did so without a word."""
    try:
        return client.recv(4096) == b""
    except ConnectionResetError:
        return True
