"""The ways of AMQP 0-9-1 and 0-10 through the broker's doors. Importing this puts them into the table."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from typing import Any

import pytest
from pamqp.commands import Basic, Connection, Exchange, Queue, Tx

from tests.doors_kit import House, way
from tests.wire import Client, ConnectionClosed, raw_method, shortstr
from tests.wire010 import Client010

Steps = Generator[None, None, None]

Z = "0-9-1"
T = "0-10"


# 0-9-1.


@way("enter", Z, quiet=True)
def _enter(house: House) -> Steps:
    client = Client(house.peer)
    house.clients.append(client.drop)
    yield
    if house.shut:
        with pytest.raises(ConnectionClosed) as closed:
            client.open()
        assert (closed.value.code, closed.value.text) == (
            530, "NOT_ALLOWED - access to vhost '/' refused for user 'guest'")
    else:
        client.open()


def _calls(name: str, door: str, method: Any, quiet: bool = False, only: Any = None) -> None:
    """A way that is nothing but a method."""
    @way(door, Z, name, quiet=quiet, only=only)
    def steps(house: House) -> Steps:
        ch = house.channel()
        yield
        with house.closes_channel():
            ch.call(method)


_calls("", "declare_queue", Queue.Declare(queue="new"))
_calls("there already", "declare_queue", Queue.Declare(queue="q"), quiet=True)
_calls("of any name", "declare_queue", Queue.Declare(queue=""))
_calls("passive", "see_queue", Queue.Declare(queue="q", passive=True), quiet=True)
_calls("", "delete_queue", Queue.Delete(queue="q"))
_calls("", "purge", Queue.Purge(queue="q"))
_calls("", "consume", Basic.Consume(queue="q", consumer_tag="c"))
_calls("get", "consume", Basic.Get(queue="q"))
_calls("browse", "consume", Basic.Consume(queue="q", arguments={"x-filter-no-consume": True}))
_calls("", "declare_exchange", Exchange.Declare(exchange="new", exchange_type="fanout"))
_calls("there already", "declare_exchange", Exchange.Declare(exchange="x", exchange_type="topic"), quiet=True)
_calls("passive", "see_exchange", Exchange.Declare(exchange="x", passive=True), quiet=True)
_calls("", "delete_exchange", Exchange.Delete(exchange="y"))
_calls("", "bind", Queue.Bind(queue="q", exchange="x", routing_key="n"))
_calls("exchange", "bind", Exchange.Bind(destination="x", source="y", routing_key="n"))
_calls("", "unbind", Queue.Unbind(queue="e", exchange="x", routing_key="k"))
_calls("exchange", "unbind", Exchange.Unbind(destination="y", source="x", routing_key="k"))
_calls("what is not there", "delete_queue", Queue.Delete(queue="nothing"), quiet=True)


def _is_not_there(name: str, door: str, method: Any) -> None:
    """Who has no right does not learn that it is not there; who has one does."""
    @way(door, Z, f"{name} that is not there", quiet=True)
    def steps(house: House) -> Steps:
        ch = house.channel()
        yield
        with house.closes_channel(missing=True):
            ch.call(method)


_is_not_there("passive", "see_queue", Queue.Declare(queue="nothing", passive=True))
_is_not_there("passive", "see_exchange", Exchange.Declare(exchange="nothing", passive=True))
_is_not_there("purge", "purge", Queue.Purge(queue="nothing"))
_is_not_there("consume", "consume", Basic.Consume(queue="nothing"))
_is_not_there("get", "consume", Basic.Get(queue="nothing"))
_is_not_there("bind", "bind", Queue.Bind(queue="nothing", exchange="x", routing_key="n"))


def _publish(name: str, exchange: str, key: str, only: Any = None, then: tuple[Any, ...] = (), **more: Any) -> None:
    @way("publish", Z, name, only=only)
    def steps(house: House) -> Steps:
        ch = house.channel()
        for each in then[:1]:
            ch.call(each)
        yield
        with house.closes_channel():
            ch.publish(exchange, key, b"p", **more)
            for each in then[1:]:
                ch.call(each)
            ch.qos(1)


_publish("queue", "", "q")
_publish("exchange", "x", "k")
_publish("CC", "x", "k", only=lambda short, exchange, key: key == "cc", headers={"CC": ["cc"]})
_publish("BCC", "x", "k", only=lambda short, exchange, key: key == "bcc", headers={"BCC": ["bcc"]})
_publish("long CC", "x", "k", only=lambda short, exchange, key: key == "c" * 300, headers={"CC": ["c" * 300]})
_publish("transaction", "x", "k", then=(Tx.Select(), Tx.Commit()))
_publish("an answer's exchange", "", "x/k", only=lambda short, exchange, key: (exchange, key) == ("x", "k"))


@way("publish", Z, "to what is not there", quiet=True)
def _publish_nowhere(house: House) -> Steps:
    ch = house.channel()
    yield
    with house.closes_channel(missing=True):
        ch.publish("nothing", "k")
        ch.qos(1)


# 0-9, whose code is that of 0-9-1, has a question of Qpid's.


@way("see_exchange", Z, "exchange.bound of 0-9", quiet=True, also=["see_queue"])
def _bound(house: House) -> Steps:
    yield from _ask_bound(house)


@way("see_queue", Z, "exchange.bound of 0-9", quiet=True, also=["see_exchange"])
def _bound_queue(house: House) -> Steps:
    yield from _ask_bound(house)


def _ask_bound(house: House) -> Steps:
    client = Client(house.peer)
    house.clients.append(client.drop)
    client.write(b"AMQP\x01\x01\x00\x09")
    client.expect(Connection.Start)
    client.send(0, Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"))
    client.expect(Connection.Tune)
    client.send(0, Connection.TuneOk(2047, 131072, 0))
    client.write(raw_method(0, 10, 40, shortstr("/") + shortstr("") + b"\x01"))
    client.read_raw()
    client.write(raw_method(1, 20, 10, shortstr("")))
    client.read_raw()
    yield
    client.write(raw_method(1, 40, 22, shortstr("x") + shortstr("k") + shortstr("e")))
    answer = client.read_raw()[7:]
    if house.shut:
        assert answer[:6] == b"\x00\x14\x00\x28\x01\x93"  # channel.close, 403
    else:
        assert answer[:6] == b"\x00\x28\x00\x17\x00\x00"


# 0-10.


@way("enter", T, quiet=True)
def _enter010(house: House) -> Steps:
    client = Client010(*house.peer, opens=False)
    house.clients.append(client.vanish)
    yield
    if house.shut:
        client.ask_to_open("")
        closed = client.expect("connection.close").fields
        assert closed == {"reply_code": 320, "reply_text": "access to vhost '/' refused for user 'guest'"}
    else:
        client.open()


def _commands(name: str, door: str, method: str, /, quiet: bool = False, also: tuple[str, ...] = (), only: Any = None,
              **values: Any) -> None:
    """A way that is nothing but a command."""
    @way(door, T, name, quiet=quiet, also=also, only=only)
    def steps(house: House) -> Steps:
        client = house.client010()
        yield
        house.done010(client, client.command(method, **values), method.endswith((".query", ".bound")))


def _no(*names: str) -> dict[str, bool]:
    return dict.fromkeys(names, False)


_DECLARE = _no("passive", "durable", "auto_delete")
_QUEUE: dict[str, Any] = {**_DECLARE, "exclusive": False}

_commands("", "declare_queue", "queue.declare", queue="new", **_QUEUE)
_commands("there already", "declare_queue", "queue.declare", queue="q", quiet=True, **_QUEUE)
_commands("passive", "see_queue", "queue.declare", queue="q", quiet=True, **{**_QUEUE, "passive": True})
_commands("query", "see_queue", "queue.query", queue="q", quiet=True)
_commands("", "delete_queue", "queue.delete", queue="q", **_no("if_unused", "if_empty"))
_commands("", "purge", "queue.purge", queue="q")
_commands("", "consume", "message.subscribe", queue="q", destination="d", accept_mode=0, acquire_mode=0,
          exclusive=False)
_commands("browse", "consume", "message.subscribe", queue="q", destination="d", accept_mode=0, acquire_mode=1,
          exclusive=False)
_commands("", "declare_exchange", "exchange.declare", exchange="new", type="fanout", **_DECLARE)
_commands("there already", "declare_exchange", "exchange.declare", exchange="x", type="topic", quiet=True, **_DECLARE)
_commands("passive", "see_exchange", "exchange.declare", exchange="x", quiet=True, **{**_DECLARE, "passive": True})
_commands("alternate of an exchange", "see_exchange", "exchange.declare", exchange="new", type="fanout",
          alternate_exchange="x", also=("declare_exchange",), **_DECLARE)
_commands("alternate of a queue", "see_exchange", "queue.declare", queue="new", alternate_exchange="x",
          also=("declare_queue",), **_QUEUE)
_commands("query", "see_exchange", "exchange.query", name="x", quiet=True)
_commands("bound", "see_exchange", "exchange.bound", exchange="x", queue="e", quiet=True, also=("see_queue",))
_commands("bound", "see_queue", "exchange.bound", exchange="x", queue="e", quiet=True, also=("see_exchange",))
_commands("", "delete_exchange", "exchange.delete", exchange="y", if_unused=False)
_commands("", "bind", "exchange.bind", queue="q", exchange="x", binding_key="n")
_commands("", "unbind", "exchange.unbind", queue="e", exchange="x", binding_key="k")


def _not_there010(name: str, door: str, method: str, /, **values: Any) -> None:
    @way(door, T, f"{name} that is not there", quiet=True)
    def steps(house: House) -> Steps:
        client = house.client010()
        yield
        house.done010(client, client.command(method, **values), missing=True)


_not_there010("passive", "see_queue", "queue.declare", queue="nothing", **{**_QUEUE, "passive": True})
_not_there010("passive", "see_exchange", "exchange.declare", exchange="nothing", **{**_DECLARE, "passive": True})
_not_there010("purge", "purge", "queue.purge", queue="nothing")
_not_there010("delete", "delete_queue", "queue.delete", queue="nothing", **_no("if_unused", "if_empty"))
_not_there010("delete", "delete_exchange", "exchange.delete", exchange="nothing", if_unused=False)
_not_there010("bind", "bind", "exchange.bind", queue="nothing", exchange="x", binding_key="n")
_not_there010("unbind", "unbind", "exchange.unbind", queue="nothing", exchange="x", binding_key="n")
_not_there010("consume", "consume", "message.subscribe", queue="nothing", destination="d", accept_mode=0,
              acquire_mode=0, exclusive=False)


def _publish010(name: str, exchange: str, key: str, there: bool = True, transaction: bool = False,
                **more: Any) -> None:
    @way("publish", T, name, quiet=not there)
    def steps(house: House) -> Steps:
        client = house.client010()
        if transaction:
            client.call("tx.select")
        yield
        number = client.transfer(exchange, key, b"p", sync=True, **more)
        if transaction and not house.shut:
            client.wait(number)
            number = client.command("tx.commit")
        house.done010(client, number, missing=not there)


_publish010("queue", "", "q")
_publish010("exchange", "x", "k")
_publish010("transaction", "x", "k", transaction=True)
_publish010("later", "x", "k", properties={"application_headers": {"x-qpid-not-valid-before": 1 << 45}})
_publish010("to what is not there", "nothing", "k", there=False)


@way("publish", T, "anew after a session was taken up by another connection")
def _other_connection(house: House) -> Steps:
    name = uuid.uuid4().bytes
    first = house.client010(name)
    first.control("session.request-timeout", timeout=60)
    first.expect("session.timeout")
    second = Client010(*house.peer, attaches=False)
    house.clients.append(second.vanish)
    second.control("session.attach", 0, name=name, force=True)
    second.expect("session.attached")
    second.control("session.command-point", 0, command_id=0, command_offset=0)
    yield
    house.done010(second, second.transfer("x", "k", b"p", sync=True))


