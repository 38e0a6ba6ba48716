"""Access rules and permissions from files, as clients of each protocol meet them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
from proton import Message
from proton.utils import BlockingConnection, LinkDetached

from broker.security.users import PasswordFile
from dragoman import testing
from tests.wire import Peer
from tests.wire_mqtt import PUBACK, MqttClient

V5 = 5
NOT_AUTHORIZED = 0x87


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[testing.Broker]:
    """With permissions for everybody, and rules about networks and one exchange."""
    users = PasswordFile(str(tmp_path / "users"))
    for name in ("device", "shop", "stranger"):
        users.set(name, "secret")
    users.save()
    (tmp_path / "permissions").write_text(
        "permission device / '^$' '^amq\\.topic$' '^amq\\.topic$'\n"
        "topic device / amq.topic '^from\\.{client_id}\\.' '^(to\\.{client_id}|all)\\.'\n"
        "permission shop / '^shop' '^(shop|amq\\.)' '.*'\n")
    (tmp_path / "rules.acl").write_text(
        'CONFIG DEFAULTALLOW=true\nACL DENY ALL ACCESS VIRTUALHOST from_network="192.0.2.0/24"\n'
        'ACL DENY shop PUBLISH EXCHANGE name="amq.fanout"\n')
    with testing.broker(f'[authentication]\nusers_file = "{tmp_path}/users"\n[access]\n'
                        f'acl_file = "{tmp_path}/rules.acl"\npermissions_file = "{tmp_path}/permissions"\n') as running:
        yield running


def connect(broker: testing.Broker, client: str, user: str = "device") -> MqttClient:
    device = MqttClient(Peer(broker.host, broker.port), V5)
    device.connect(client, user=user, password="secret")
    return device


def test_devices_may_use_the_topics_of_their_own(broker: testing.Broker) -> None:
    device, other = connect(broker, "d1"), connect(broker, "d2")
    device.write(device.publish_packet("from/d1/a", b"", 1, packet_id=1))
    assert device.expect(PUBACK).reason < 0x80
    device.write(device.publish_packet("from/d2/a", b"", 1, packet_id=2))
    assert device.expect(PUBACK).reason == NOT_AUTHORIZED
    assert device.subscribe(("to/d1/#", 1), ("all/#", 1), ("to/d2/#", 1), ("#", 1)) == [1, 1] + [NOT_AUTHORIZED] * 2
    assert other.subscribe(("to/d2/#", 1)) == [1]
    device.disconnect()
    other.disconnect()


def test_shops_in_amqp(broker: testing.Broker) -> None:
    url = broker.url.replace("guest:guest", "shop:secret")
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare("shop.orders", durable=True)
    channel.queue_bind("shop.orders", "amq.topic", "from.#")
    for method, arguments, text in (
            ("queue_declare", ("orders",), "access to queue 'orders' in vhost '/'"),
            ("basic_publish", ("amq.fanout", "", b""), "access to exchange 'amq.fanout' in vhost '/'")):
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            getattr(channel, method)(*arguments)
        assert refused.value.reply_text == f"ACCESS_REFUSED - {text} refused for user 'shop'"
    connection.close()
    device = connect(broker, "d1")
    device.write(device.publish_packet("from/d1/order", b"one", 1, packet_id=1))
    device.expect(PUBACK)
    device.disconnect()

    modern = BlockingConnection(f"{broker.host}:{broker.port}", user="shop", password="secret", timeout=30,
                                allowed_mechs="PLAIN")
    receiver = modern.create_receiver("shop.orders")
    assert bytes(receiver.receive().body) == b"one"
    receiver.accept()
    modern.create_sender("shop.orders").send(Message("back"))
    with pytest.raises(LinkDetached) as detached:
        modern.create_sender("amq.fanout")
    assert "unauthorized-access" in str(detached.value)
    modern.close()


def test_who_has_no_permissions_does_not_get_in(broker: testing.Broker) -> None:
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="access to vhost '/' refused for user"):
        pika.BlockingConnection(pika.URLParameters(broker.url.replace("guest:guest", "stranger:secret")))
    assert "user 'stranger' is refused: access virtualhost name=/" in broker.log()
