"""Certificates by the name that a client asks for, and ones that change while the broker works."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pika
import pytest
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion
from proton import SSLDomain
from proton.utils import BlockingConnection

from tests.authority import Authority
from tests.tls_kit import Setting, issue, setting
from tests.wire import HANG, HEADER, eventually

NAMES = {"one.pem": ["one.example"], "two.pem": ["two.example", "www.two.example"], "wild.pem": ["*.wild.example"],
         "other.pem": ["unlike.example"]}
MORE = "".join(f'[[certificates]]\ncertificate = "{{0}}/{file}"\n' for file in NAMES) + 'names = ["chosen.example"]\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority("issuer of names")
    for file, names in NAMES.items():
        issue(authority, folder / file, file, [x509.DNSName(name) for name in names])
    with setting(folder, MORE.format(folder)) as made:
        authority.save(folder / "names.pem")
        yield made


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[Setting]:
    with setting(tmp_path) as made:
        yield made


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


@pytest.mark.parametrize(("name", "file"), [
    ("one.example", "one.pem"), ("ONE.Example", "one.pem"), ("one.example.", "one.pem"), ("two.example", "two.pem"),
    ("www.two.example", "two.pem"), ("any.wild.example", "wild.pem"), ("chosen.example", "other.pem"),
    ("wild.example", "the broker"), ("a.b.wild.example", "the broker"), ("unlike.example", "the broker"),
    ("nobody.example", "the broker"), ("localhost", "the broker"), ("x" * 63, "the broker"),
])
@pytest.mark.parametrize("port", ["both", "tls_only"])
def test_a_client_is_shown_the_certificate_for_the_name_that_it_asks_for(server: Setting, name: str, file: str,
                                                                         port: str) -> None:
    assert common_name(server.shown(name, getattr(server, port))) == file


def test_a_client_that_asks_for_no_name(server: Setting) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(server.both, HANG)) as client:
        assert common_name(x509.load_der_x509_certificate(client.getpeercert(True) or b"")) == "the broker"


def test_pika_by_names(server: Setting) -> None:
    context = ssl.create_default_context(cafile=str(server.folder / "names.pem"))
    for name in ("one.example", "www.two.example", "any.wild.example"):
        options = pika.SSLOptions(context, name)
        with pika.BlockingConnection(pika.ConnectionParameters(*server.both, ssl_options=options)) as connection:
            assert connection.channel().is_open
    with pytest.raises(ssl.SSLCertVerificationError):  # the certificate is another's, by another issuer
        pika.BlockingConnection(pika.ConnectionParameters(*server.both,
                                                          ssl_options=pika.SSLOptions(context, "nobody.example")))
    server.logged("closed, its TLS handshake failed: ")


def test_proton_asks_for_a_name(server: Setting) -> None:
    domain = SSLDomain(SSLDomain.MODE_CLIENT)
    domain.set_trusted_ca_db(str(server.folder / "names.pem"))
    domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME)
    connection = BlockingConnection(f"amqps://127.0.0.1:{server.both.port}", timeout=HANG, ssl_domain=domain,
                                    user="guest", password="guest", allowed_mechs="PLAIN", virtual_host="two.example")
    connection.close()


def test_paho_asks_for_a_name(server: Setting) -> None:
    """It knows only the name that it connects to."""
    connected = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.tls_set(ca_certs=str(server.folder / "ca.pem"))
    client.username_pw_set("guest", "guest")
    client.on_connect = lambda *_: connected.set()
    client.connect("localhost", server.both.port)
    client.loop_start()
    assert connected.wait(HANG)
    client.disconnect()
    client.loop_stop()


def test_a_wrong_name_and_an_expired_certificate_as_clients_see_them(tmp_path: Path) -> None:
    with setting(tmp_path) as made:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            made.dial(made.both, name="elsewhere.example")
        made.logged("closed, its TLS handshake failed: ")
        issue(made.authority, tmp_path / "server.pem", age=20)
        os.kill(made.broker.pid, signal.SIGHUP)
        made.logged(f"certificate {tmp_path}/server.pem, for localhost: no longer valid, since ")
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
            made.dial(made.both)
        made.logged("closed, its TLS handshake failed: sslv3 alert certificate expired")


def test_the_log_tells_how_long_a_certificate_lasts(tmp_path: Path) -> None:
    """Ours are made for ten days."""
    with setting(tmp_path) as made:
        made.logged(f"certificate {tmp_path}/server.pem, for localhost: valid until ")
        made.logged(" only, which is in less than 30 days")
        for age, text in ((5, " only, which is in less than 7 days"), (-1, "valid only from "), (-40, " UTC\n")):
            issue(made.authority, tmp_path / "server.pem", age=age)
            os.kill(made.broker.pid, signal.SIGHUP)
            made.logged(text)


def test_a_renewed_certificate_is_taken_up_at_work(changing: Setting) -> None:
    """By itself, while clients that have the old one go on."""
    with changing.pika(changing.tls_only) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        old = changing.shown()
        file = changing.folder / "server.pem"
        new = issue(changing.authority, changing.folder / "new.pem", "renewed")
        os.replace(changing.folder / "new.pem", file)
        sent = 0
        while changing.shown() == old:
            channel.basic_publish("", queue, b"at work")
            sent += 1
        assert changing.shown() == new
        channel.basic_publish("", queue, b"still here")
        for body in [b"at work"] * sent + [b"still here"]:
            assert channel.basic_get(queue, auto_ack=True)[2] == body


def test_files_that_cannot_be_used_change_nothing(changing: Setting) -> None:
    """Neither by themselves, when it is said once, nor by SIGHUP."""
    file = changing.folder / "server.pem"
    old, right = changing.shown(), file.read_bytes()
    what = f"tls.certificate: there is no certificate in PEM form in {file}"
    file.write_text("no certificate")
    changing.logged(f"the old one stays: {what}")
    os.kill(changing.broker.pid, signal.SIGHUP)
    changing.logged(f"not reloaded: {changing.broker.config_path}: {what}")
    assert changing.shown() == old
    assert changing.broker.log().count(f"the old one stays: {what}") == 1
    assert changing.shown() == old
    file.write_bytes(right[:right.index(b"-----BEGIN PRIVATE")])
    changing.logged(f"the old one stays: tls.key: there is no private key in PEM form in {file}")
    new = issue(changing.authority, file, "at last")
    eventually(changing.shown, lambda shown: shown == new)


def test_certificate_and_key_that_come_one_after_the_other(tmp_path: Path) -> None:
    """As certbot has them: links to files of another folder."""
    authority = Authority("an authority")
    for generation in ("1", "2"):
        both = tmp_path / f"both{generation}.pem"
        issue(authority, both, generation)
        certificate, _, key = both.read_text().partition("-----BEGIN PRIVATE")
        (tmp_path / f"fullchain{generation}.pem").write_text(certificate)
        (tmp_path / f"privkey{generation}.pem").write_text(f"-----BEGIN PRIVATE{key}")

    def link(name: str, generation: str) -> None:
        (tmp_path / "new").symlink_to(f"{name}{generation}.pem")
        (tmp_path / "new").replace(tmp_path / f"{name}.pem")

    link("fullchain", "1")
    link("privkey", "1")
    more = f'[[certificates]]\ncertificate = "{tmp_path}/fullchain.pem"\nkey = "{tmp_path}/privkey.pem"\n' \
        'names = ["certbot.example"]\n'
    with setting(tmp_path, more) as made:
        assert common_name(made.shown("certbot.example")) == "1"
        link("fullchain", "2")
        made.logged(f"certificates[0].certificate {tmp_path}/fullchain.pem and its key cannot be used: key values "
                    "mismatch")
        new = issue(made.authority, tmp_path / "server.pem", "another")
        eventually(made.shown, lambda shown: shown == new)  # one that cannot be used does not hold up the others
        assert common_name(made.shown("certbot.example")) == "1"
        link("privkey", "2")
        eventually(lambda: common_name(made.shown("certbot.example")), lambda name: name == "2")


def test_names_are_changed_by_sighup(changing: Setting) -> None:
    issue(changing.authority, changing.folder / "more.pem", "more", [x509.DNSName("more.example")])
    text = changing.broker.config_path.read_text()
    assert common_name(changing.shown("more.example")) == "the broker"
    with changing.pika(changing.both) as connection:
        changing.broker.config_path.write_text(f'{text}[[certificates]]\ncertificate = "{changing.folder}/more.pem"\n')
        os.kill(changing.broker.pid, signal.SIGHUP)
        eventually(lambda: common_name(changing.shown("more.example")), lambda name: name == "more")
        assert common_name(changing.shown()) == "the broker"
        changing.broker.config_path.write_text(text.replace('minimum = "1.2"', 'minimum = "1.3"'))
        os.kill(changing.broker.pid, signal.SIGHUP)
        eventually(lambda: common_name(changing.shown("more.example")), lambda name: name == "the broker")
        assert connection.channel().is_open
    old = changing.context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        changing.dial(changing.both, old)
    with changing.dial(changing.both) as client:
        client.sendall(HEADER)
        assert client.recv(1) == b"\x01"
