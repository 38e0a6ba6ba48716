"""A connection ends with its token, in its dialect's words, unless the client brings a new one in time."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pika
import pika.exceptions
import pytest
from pamqp.commands import Connection

from dragoman import testing
from interop.amqp010 import blocking
from interop.amqp010.errors import Error as Error010
from tests.issuer import AUDIENCE, Issuer
from tests.wire import HANG, Client, ConnectionClosed, Hangup, Peer, eventually
from tests.wire010 import Client010
from tests.wire10 import CLOSE, Client10
from tests.wire_mqtt import AUTH, CONNACK, DISCONNECT, MqttClient, packet, properties

CONFIG = '[[providers]]\nname = "tokens"\nkind = "oauth2"\nissuer = "{issuer}"\naudience = ["{audience}"]\n' \
    'leeway = 0\n'
SECONDS = 3  # that a token lasts: long enough to log in with it


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as made:
        yield made


@pytest.fixture(scope="module")
def broker(issuer: Issuer) -> Iterator[testing.Broker]:
    with testing.broker(CONFIG.format(issuer=issuer.url, audience=AUDIENCE)) as made:
        yield made
        assert "Traceback" not in made.log()


def by_pika(broker: testing.Broker, token: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.ConnectionParameters(
        broker.host, broker.port, credentials=pika.PlainCredentials("token", token)))


def by_mqtt(broker: testing.Broker, client_id: str, token: str) -> MqttClient:
    client = MqttClient(Peer(broker.host, broker.port), 5)
    client.write(client.connect_packet(client_id, user=None, password=None, AuthenticationMethod="OAUTHBEARER",
                                       AuthenticationData=f"n,,\1auth=Bearer {token}\1\1".encode()))
    assert client.expect(CONNACK).reason == 0
    return client


def test_a_connection_ends_with_its_token(broker: testing.Broker, issuer: Issuer) -> None:
    end = int(time.time()) + SECONDS
    token, longer = issuer.token(exp=end), issuer.token(exp=end + 3600)
    ends, stays = by_pika(broker, token), by_pika(broker, token)
    client10 = Client10(broker.host, broker.port, user="token", password=token)
    client010 = blocking.connect(f"amqp://token:{token}@{broker.host}:{broker.port}/")
    wire010 = Client010(broker.host, broker.port, user="token", password=token)
    mqtt, mqtt_stays = by_mqtt(broker, "ends", token), by_mqtt(broker, "stays", token)
    others = [MqttClient(Peer(broker.host, broker.port), level) for level in (4, 5)]
    for other in others:
        other.connect(f"ends too, {other.level}", user="token", password=token)

    stays.update_secret(longer, "a new token")
    mqtt_stays.write(packet(0xF0, bytes([0x19]), properties(AUTH, {
        "AuthenticationMethod": "OAUTHBEARER", "AuthenticationData": f"n,,\1auth=Bearer {longer}\1\1".encode()})))
    assert mqtt_stays.expect(AUTH).reason == 0

    with pytest.raises(pika.exceptions.ConnectionClosedByBroker,
                       match="320, 'CONNECTION_FORCED - the credentials have expired'"):
        ends.process_data_events(HANG)
        ends.channel()
    (error, *_), _ = client10.expect(CLOSE)
    assert error.value[0] == "amqp:unauthorized-access"
    client10.vanish()
    with pytest.raises(Error010):
        client010.session()
    client010.close()
    assert wire010.closed() == 320
    wire010.vanish()
    assert mqtt.expect(DISCONNECT).reason == others[1].expect(DISCONNECT).reason == 0xA0  # maximum connect time
    with pytest.raises(Hangup):
        others[0].read()
    for client in (mqtt, *others):
        client.drop()

    log = eventually(broker.log, lambda text: text.count("the token of user alice has expired") == 7)
    assert token not in log and longer not in log
    assert int(time.time()) >= end
    stays.channel()
    stays.close()
    mqtt_stays.ping()
    mqtt_stays.disconnect()


def test_a_new_token_that_is_not_good(broker: testing.Broker, issuer: Issuer) -> None:
    connection = by_pika(broker, issuer.token())
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker):
        connection.update_secret(issuer.token(aud="other"), "a new token")
        connection.channel()
    wire = Client(Peer(broker.host, broker.port)).open("token", issuer.token())
    wire.send(0, Connection.UpdateSecret(issuer.token(sub="bob"), "a new token"))
    with pytest.raises(ConnectionClosed, match=r"403 ACCESS_REFUSED - the new secret was refused \(10, 70\)"):
        wire.expect(Connection.UpdateSecretOk)  # the connection stays its user's
    wire.drop()
    client = by_mqtt(broker, "mine", issuer.token())
    client.write(packet(0xF0, bytes([0x19]), properties(AUTH, {
        "AuthenticationMethod": "OAUTHBEARER",
        "AuthenticationData": f"n,,\1auth=Bearer {issuer.token(sub='bob')}\1\1".encode()})))
    assert client.expect(DISCONNECT).reason == 0x87
    client.drop()
