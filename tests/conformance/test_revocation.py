"""Rights that are taken away while their users are connected: what the libraries of clients are told, and what they
may still do.
"""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pika
import pika.exceptions
import pytest
from paho.mqtt.client import MQTTv5, MQTTv311
from pamqp.commands import Connection
from proton import ConnectionException, SSLDomain
from proton.utils import BlockingConnection
from scramp import ScramClient

from broker.security.users import PasswordFile, User
from dragoman import testing
from interop.amqp010 import ConnectionError_, connect
from tests.authority import LOCAL, Authority, pem, save
from tests.conformance.mqtt_tools import Device, Mqtt
from tests.wire import HANG, Client, ConnectionClosed, Hangup, Peer, eventually

RULES = """
acl allow ops all all
acl deny all create queue
acl allow all all
"""

CONFIG = """
[authentication]
users_file = "{folder}/users"
mechanisms = ["PLAIN", "SCRAM-SHA-256"]
[access]
acl_file = "{folder}/rules.acl"
[[listeners]]
anonymous = true
"""


class House:
    """A broker whose operator changes who may come in. Users `shop`, `till` and `carol`, who is one of `ops`."""

    def __init__(self, broker: testing.Broker, users: PasswordFile) -> None:
        self.broker = broker
        self.users = users

    def reload(self) -> None:
        self.users.save()
        reload(self.broker)

    def url(self, user: str) -> str:
        return url(self.broker, user)

    def pika(self, user: str) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.URLParameters(self.url(user)))

    def device(self, user: str | None, client_id: str, version: int = MQTTv5) -> Device:
        at = Mqtt(self.broker.host, self.broker.port, 0, self.broker.port, Path(), False)
        return Device(at, client_id, user=user, password=None if user is None else "secret", version=version)


def url(broker: testing.Broker, user: str) -> str:
    return f"amqp://{user}:secret@{broker.host}:{broker.port}/"


def reload(broker: testing.Broker, **changed: str) -> None:
    """Have the broker read all again; changed: what stands in its configuration by then."""
    text = broker.config_path.read_text()
    for old, new in changed.items():
        assert old in text
        text = text.replace(old, new)
    broker.config_path.write_text(text)
    before = len(broker.log())
    os.kill(broker.pid, signal.SIGHUP)
    eventually(lambda: "configuration read again" in broker.log()[before:])


def regroup(users: PasswordFile, name: str, *groups: str) -> None:
    user = users.user(name)
    assert user is not None
    users.put(User(name, user.verifiers, user.tags, groups))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    users = PasswordFile(str(tmp_path / "users"))
    for name in ("shop", "till", "carol"):
        users.set(name, "secret", "SCRAM-SHA-256")
    regroup(users, "carol", "ops")
    users.save()
    (tmp_path / "rules.acl").write_text(RULES)
    with testing.broker(CONFIG.format(folder=tmp_path)) as broker:
        yield House(broker, users)
        assert "Traceback" not in broker.log()


def closed(connection: pika.BlockingConnection) -> tuple[int, str]:
    """How the broker has ended a connection."""
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as told:
        while True:
            connection.process_data_events(HANG)
    return told.value.reply_code, told.value.reply_text


def test_a_user_who_is_removed(house: House) -> None:
    by_pika, by_proton, by_010 = house.pika("shop"), BlockingConnection(house.url("shop"), timeout=HANG), connect(
        house.url("shop"))
    devices = [house.device("shop", "five"), house.device("shop", "four", MQTTv311)]
    other = house.pika("till")
    house.users.remove("shop")
    house.reload()
    assert closed(by_pika) == (320, "CONNECTION_FORCED - user 'shop' is deleted")  # RabbitMQ's words
    with pytest.raises(ConnectionException, match="amqp:connection:forced.*user 'shop' is deleted"):
        by_proton.wait(lambda: False)
    with pytest.raises(ConnectionError_, match="user 'shop' is deleted"):
        by_010.session()
    assert devices[0].aborted().value == 0x98  # administrative action
    devices[1].aborted()
    by_010.close()
    assert house.broker.log().count("user shop may not log in any more: there is no user 'shop'") == 5
    other.channel()
    other.close()


def test_a_new_password_ends_logins_and_no_connections(house: House) -> None:
    connection = house.pika("shop")
    house.users.set("shop", "other", "SCRAM-SHA-256")
    house.reload()
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        house.pika("shop")
    connection.process_data_events(0)
    connection.channel()
    connection.close()


def test_groups_are_followed_by_open_connections(house: House) -> None:
    connection = house.pika("carol")
    connection.channel().queue_declare("orders")
    regroup(house.users, "carol")
    house.reload()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        connection.channel().queue_declare("more")
    regroup(house.users, "carol", "ops")
    house.reload()
    connection.channel().queue_declare("more")
    connection.close()


def test_guests_and_anonymous_clients_who_are_not_let_in_any_more(house: House) -> None:
    guest, nobody, shop = pika.BlockingConnection(pika.URLParameters(house.broker.url)), house.device(None, "x"), \
        house.pika("shop")
    reload(house.broker, **{"guest = true": "guest = false", "anonymous = true": "anonymous = false"})
    assert closed(guest) == (320, "CONNECTION_FORCED - user 'guest' is deleted")
    assert nobody.aborted().value == 0x98
    shop.channel()
    shop.close()


@pytest.mark.parametrize("opens", [False, True], ids=["in the midst of SASL", "before it opens a virtual host"])
def test_a_user_who_is_removed_in_the_midst_of_the_login(house: House, opens: bool) -> None:
    client = Client(Peer(house.broker.host, house.broker.port))
    client.write(b"AMQP\x00\x00\x09\x01")
    client.expect(Connection.Start)
    scram = ScramClient(["SCRAM-SHA-256"], "shop", "secret")
    client.send(0, Connection.StartOk({}, "SCRAM-SHA-256", scram.get_client_first(), "en_US"))
    scram.set_server_first(client.expect(Connection.Secure).challenge)

    def remove() -> None:
        house.users.remove("shop")
        house.reload()

    if not opens:
        remove()
    client.send(0, Connection.SecureOk(scram.get_client_final()))
    client.expect(Connection.Secure)
    client.send(0, Connection.SecureOk(""))
    tune = client.expect(Connection.Tune)
    if opens:
        remove()
        with pytest.raises(Hangup):
            client.next()
    else:
        client.send(0, Connection.TuneOk(tune.channel_max, tune.frame_max, 0), Connection.Open("/"))
        client.expect(Connection.OpenOk)
        with pytest.raises(ConnectionClosed, match="user 'shop' is deleted"):
            client.next()
    client.drop()


def test_a_provider_that_a_listener_asks_no_more(tmp_path: Path) -> None:
    for name in ("staff", "partners"):
        users = PasswordFile(str(tmp_path / name))
        users.set(name, "secret", "SCRAM-SHA-256")
        users.save()
    config = '[[listeners]]\nproviders = ["staff", "partners"]\n' + "".join(
        f'[[providers]]\nname = "{name}"\nkind = "file"\nusers_file = "{tmp_path}/{name}"\n'
        for name in ("staff", "partners"))
    with testing.broker(config) as broker:
        staff, partners = (pika.BlockingConnection(pika.URLParameters(url(broker, name)))
                           for name in ("staff", "partners"))
        reload(broker, **{'["staff", "partners"]': '["staff"]'})
        assert closed(partners) == (320, "CONNECTION_FORCED - user 'partners' may not log in any more")
        staff.channel()
        staff.close()


def test_a_certificate_that_is_revoked(tmp_path: Path) -> None:
    authority = Authority("Test CA")
    authority.save(tmp_path / "ca.pem")
    save(tmp_path / "server.pem", *authority.issue("localhost", LOCAL))
    lost = authority.issue("lost")
    save(tmp_path / "lost.pem", *lost)
    save(tmp_path / "kept.pem", *authority.issue("kept"))
    (tmp_path / "revoked.pem").write_bytes(pem(authority.revoke()))
    config = f"""
        [[listeners]]
        client_certificates = "want"
        [tls]
        certificate = "{tmp_path}/server.pem"
        client_ca = "{tmp_path}/ca.pem"
        [[providers]]
        name = "cards"
        kind = "certificates"
        issuers = "{tmp_path}/ca.pem"
        revocation_lists = ["{tmp_path}/revoked.pem"]
        """
    with testing.broker(config) as broker:
        def by_pika(card: str) -> pika.BlockingConnection:
            context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
            context.load_cert_chain(tmp_path / f"{card}.pem")
            return pika.BlockingConnection(pika.ConnectionParameters(
                "127.0.0.1", broker.port, credentials=pika.credentials.ExternalCredentials(),
                ssl_options=pika.SSLOptions(context, "localhost")))

        def by_proton(card: str) -> BlockingConnection:
            domain = SSLDomain(SSLDomain.MODE_CLIENT)
            domain.set_trusted_ca_db(str(tmp_path / "ca.pem"))
            domain.set_peer_authentication(SSLDomain.VERIFY_PEER)
            domain.set_credentials(str(tmp_path / f"{card}.pem"), str(tmp_path / f"{card}.pem"), None)
            return BlockingConnection(f"amqps://127.0.0.1:{broker.port}", timeout=HANG, ssl_domain=domain,
                                      allowed_mechs="EXTERNAL")

        goes, goes10, stays, stays10 = by_pika("lost"), by_proton("lost"), by_pika("kept"), by_proton("kept")
        (tmp_path / "revoked.pem").write_bytes(pem(authority.revoke(lost[0])))
        reload(broker)
        assert closed(goes) == (320, "CONNECTION_FORCED - user 'lost' may not log in any more")
        with pytest.raises(ConnectionException, match="amqp:connection:forced"):
            goes10.wait(lambda: False)
        (tmp_path / "revoked.pem").write_bytes(pem(authority.revoke(lost[0], age=5)))  # one that is out of date
        reload(broker)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            by_pika("kept")
        stays.channel()
        stays.close()
        stays10.create_receiver(None, dynamic=True)
        stays10.close()
        assert "Traceback" not in broker.log()
