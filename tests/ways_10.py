"""The ways of AMQP 1.0 and MQTT through the broker's doors. Importing this puts them into the table."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from proton import Described, symbol, uint, ulong

from tests.doors_kit import House, way
from tests.wire10 import ACCEPTED, ATTACH, CLOSE, DETACH, OPEN, RECEIVER, SENDER, Client10, encode, message, state
from tests.wire10 import symbols as symbol_array
from tests.wire_mqtt import CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBREC, PUBREL, MqttClient, WillOf

Steps = Generator[None, None, None]

A = "1.0"


def to(address: str) -> bytes:
    """A properties section."""
    return encode(state(0x73, None, None, address))


@way("enter", A, quiet=True)
def _enter(house: House) -> Steps:
    client = Client10(*house.peer, opens=False)
    house.clients.append(client.vanish)
    yield
    client.send(OPEN, "wire", None, uint(65536))
    client.expect(OPEN)
    if house.shut:
        error = client.expect(CLOSE)[0][0].value
        assert (error[0], error[1]) == ("amqp:unauthorized-access", "access to vhost '/' refused for user 'guest'")
    else:
        client.begin()


def _attaches(name: str, door: str, role: bool, address: str | None, quiet: bool = False, also: tuple[str, ...] = (),
              only: Any = None, **more: Any) -> None:
    @way(door, A, name, quiet=quiet, also=also, only=only)
    def steps(house: House) -> Steps:
        client = house.client10()
        yield
        client.attach("l", role, address, **more)
        house.attached(client)


def _terminus(dynamic: bool = False, capabilities: tuple[str, ...] = (), source: bool = True) -> tuple[Any, ...]:
    """The fields of a terminus from `dynamic` on."""
    between = (None, None, None, None) if source else ()
    return dynamic, None, *between, symbol_array(list(capabilities)) if capabilities else None


_attaches("", "consume", RECEIVER, "q")
_attaches("RabbitMQ's address", "consume", RECEIVER, "/queues/q")
_attaches("browse", "consume", RECEIVER, "q", more=(False, None, symbol("copy")))
_attaches("", "subscribe", RECEIVER, "x")
_attaches("with a key", "subscribe", RECEIVER, "x/k", only=lambda exchange, key: (exchange, key) == ("x", "k"))
_attaches("durable", "subscribe", RECEIVER, "x/k", durable=2, expiry="never")
_attaches("queue", "publish", SENDER, "q", quiet=True, only=lambda short, exchange, key: (exchange, key) == ("", "q"))
_attaches("all of a route", "publish", SENDER, "/exchanges/x/k", quiet=True,
          only=lambda short, exchange, key: (exchange, key) == ("x", "k"))
_attaches("", "publish_to", SENDER, "x", quiet=True)
_attaches("with a key", "publish_to", SENDER, "x/k", quiet=True)
_attaches("dynamic source", "declare_queue", RECEIVER, None, more=_terminus(True))
_attaches("dynamic target", "declare_queue", SENDER, None, more=_terminus(True, source=False))
_attaches("temporary queue", "declare_queue", SENDER, None, more=_terminus(True, ("temporary-queue",), False))
_attaches("temporary topic", "declare_exchange", SENDER, None, more=_terminus(True, ("temporary-topic",), False))
_attaches("temporary topic to receive from", "declare_exchange", RECEIVER, None, also=("subscribe",),
          more=_terminus(True, ("temporary-topic",)))
_attaches("made when wanted", "declare_queue", SENDER, "auto-q1", also=("publish",))
_attaches("made when wanted, to receive from", "declare_queue", RECEIVER, "auto-q1", also=("consume",))
_attaches("made when wanted", "declare_exchange", SENDER, "auto-x1", also=("publish_to",),
          more=_terminus(False, ("topic",), False))
_attaches("made for RabbitMQ's clients", "declare_queue", SENDER, "/queue/new", also=("publish",))


def _is_not_there(name: str, door: str, role: bool, address: str, **more: Any) -> None:
    @way(door, A, f"{name} that is not there", quiet=True)
    def steps(house: House) -> Steps:
        client = house.client10()
        yield
        client.attach("l", role, address, **more)
        error = client.expect(DETACH)[0][2].value
        assert error[0] == ("amqp:unauthorized-access" if house.shut else "amqp:not-found")


_is_not_there("queue", "consume", RECEIVER, "nothing")
_is_not_there("RabbitMQ's queue", "consume", RECEIVER, "/queues/nothing")
_is_not_there("queue", "publish", SENDER, "nothing")
_is_not_there("topic", "subscribe", RECEIVER, "nothing/k", more=_terminus(False, ("topic",)))


def _sends(name: str, address: str | None, payload: bytes, quiet: bool = False) -> None:
    """A message on a link that stands already."""
    @way("publish", A, name, quiet=quiet)
    def steps(house: House) -> Steps:
        client = house.client10()
        client.attach("l", SENDER, address)
        client.flow()
        yield
        client.transfer(payload, b"t")
        if quiet and not house.shut:
            assert client.outcome()[4].value[0].value[0] == "amqp:not-found"
        else:
            house.outcome10(client)


_sends("message", "x/k", message(b"p"))
_sends("to a queue", "q", message(b"p"))
_sends("anonymous, to an exchange", None, to("x/k") + message(b"p"))
_sends("anonymous, to a queue", None, to("q") + message(b"p"))
_sends("anonymous, to what is not there", None, to("nothing") + message(b"p"), quiet=True)
_sends("later", "x/k", encode(Described(ulong(0x72), {symbol("x-opt-delivery-delay"): ulong(1 << 40)})) + message(b"p"))


@way("publish", A, "settled")
def _settled(house: House) -> Steps:
    client = house.client10()
    client.attach("l", SENDER, "x/k")
    client.flow()
    yield
    client.transfer(message(b"p"), b"t", settled=True)
    if not house.attached(client):
        return
    client.transfer(message(b"p"), b"u")
    assert client.outcome()[4].descriptor == 0x24


@way("publish", A, "transaction")
def _transaction(house: House) -> Steps:
    client = house.client10()
    client.send(ATTACH, "txn", uint(1), SENDER, None, None, state(0x28), state(0x30), None, None, uint(0))
    client.expect(ATTACH)
    client.flow()
    client.transfer(encode(Described(ulong(0x77), state(0x31))), b"d", handle=1)
    identity = client.outcome()[4].value[0]
    client.attach("l", SENDER, "x/k")
    client.flow()
    yield
    client.transfer(message(b"p"), b"t", delivery_state=state(0x34, identity))
    outcome = client.outcome()[4]
    client.transfer(encode(Described(ulong(0x77), state(0x32, identity, False))), b"e", handle=1)
    discharged = client.outcome()[4]
    if house.shut:
        assert outcome.descriptor == 0x25 and outcome.value[0].value[0] == "amqp:unauthorized-access"
        assert discharged.value[0].value[0] == "amqp:transaction:rollback"
    else:
        assert outcome.descriptor == 0x34 and discharged.descriptor == ACCEPTED


@way("subscribe", A, "unsubscribe")
def _unsubscribe(house: House) -> Steps:
    client = house.client10(container="subscriber")
    client.attach("s", RECEIVER, "x/k", durable=2, expiry="never")
    client.detach()
    yield
    client.attach("s", RECEIVER, None)
    if house.attached(client):
        client.detach(closed=True)


# MQTT.


def _levels(door: str, name: str = "", levels: tuple[int, ...] = (4, 5), **more: Any) -> Any:
    """A way that gets the level, for each of them."""
    def add(function: Any) -> Any:
        for level in levels:
            way(door, "MQTT", f"{ {3: '3.1', 4: '3.1.1', 5: '5.0'}[level]} {name}".strip(), **more)(
                lambda house, level=level: function(house, level))
        return function
    return add


def _connects(house: House, level: int, **options: Any) -> None:
    """MQTT: CONNACK with success, or with 0x87 (3.1 and 3.1.1: 5)."""
    client = MqttClient(house.peer, level)
    house.clients.append(client.drop)
    client.write(client.connect_packet("wire", **options))
    assert client.expect(CONNACK).reason == (0 if not house.shut else 0x87 if level == 5 else 5)
    if house.shut:
        assert not client.rest()


@_levels("enter", levels=(3, 4, 5), quiet=True)
def _enter_mqtt(house: House, level: int) -> Steps:
    yield
    _connects(house, level)


@_levels("publish", "will", also=["enter"], only=lambda short, exchange, key: (exchange, key) == ("amq.topic", "w"))
def _will(house: House, level: int) -> Steps:
    yield
    _connects(house, level, will=WillOf("w", b"gone"))


@_levels("publish", "QoS 0")
def _qos0(house: House, level: int) -> Steps:
    client = house.mqtt(level)
    yield
    client.publish("k", b"p")
    house.hangs_up(client, DISCONNECT if level == 5 else 0, 0x87)


def _refused(house: House, client: MqttClient, kind: int) -> None:
    """The acknowledgement of a message says success or 0x87; before MQTT 5 the connection is closed (3.3.5)."""
    if client.level == 5:
        assert client.expect(kind).reason == (0x87 if house.shut else 0)
        client.ping()
    elif house.shut:
        house.hangs_up(client)
    else:
        assert client.expect(kind).reason == 0


@_levels("publish", "QoS 1")
def _qos1(house: House, level: int) -> Steps:
    client = house.mqtt(level)
    yield
    client.publish("k", b"p", 1)
    _refused(house, client, PUBACK)


@_levels("publish", "QoS 2")
def _qos2(house: House, level: int) -> Steps:
    client = house.mqtt(level)
    yield
    number = client.publish("k", b"p", 2)
    _refused(house, client, PUBREC)
    if not house.shut:
        client.acknowledge(PUBREL, number)
        client.expect(PUBCOMP)


@_levels("publish", "retained")
def _retained(house: House, level: int) -> Steps:
    client = house.mqtt(level)
    yield
    client.publish("k", b"p", 1, retain=True)
    _refused(house, client, PUBACK)


def _subscribes(name: str, text: str, exchange: str, key: str) -> None:
    @_levels("subscribe", name, levels=(3, 4, 5), only=lambda *asked: asked == (exchange, key))
    def steps(house: House, level: int) -> Steps:
        client = house.mqtt(level, "wire")
        yield
        assert client.subscribe(text, "other/+") == [(0x87 if level == 5 else 0x80) if house.shut else 0, 0]
        if house.shut:
            client.unsubscribe("other/+")
            client.disconnect()


_subscribes("", "a/+/#", "amq.topic", "a.*.#")
_subscribes("shared", "$share/group/a/#", "amq.topic", "a.#")
_subscribes("system topics", "$SYS/#", "amq.mqtt.sys", "$SYS.#")
