"""MQTT: what sessions are after the broker was stopped or killed. (Under load: tests/chaos/test_kill_mqtt.py.)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from dragoman import testing
from store.tools import check
from tests.wire import Client, Peer, eventually
from tests.wire_mqtt import CONNACK, PUBACK, PUBREC, PUBREL, MqttClient, WillOf

KEEP = {"clean": False, "SessionExpiryInterval": 3600}
HOUR = 3_600_000


class Mortal:
    """A broker with a store, and clients of it."""

    def __init__(self, broker: testing.Broker, store: Path) -> None:
        self.broker = broker
        self.store = store
        self.clients: list[MqttClient] = []

    def dial(self, level: int = 5) -> MqttClient:
        self.clients.append(MqttClient(Peer(self.broker.host, self.broker.port), level))
        return self.clients[-1]

    def connect(self, client_id: str = "", level: int = 5, **options: Any) -> MqttClient:
        client = self.dial(level)
        client.connect(client_id, **options)
        return client

    def restart(self, killed: bool = True) -> None:
        self.end(killed)
        self.broker.start()

    def end(self, killed: bool = True) -> None:
        if killed:
            self.broker.kill()
        else:
            self.broker.stop()
        for client in self.clients:
            client.drop()

    def turn_back(self, milliseconds: int) -> None:
        """While the broker does not run: let all sessions have been without a connection for so much longer."""
        with lmdb.open(str(self.store), max_dbs=8, lock=False) as env:
            with env.begin(write=True) as txn:
                table = env.open_db(b"sessions", txn=txn, create=False)
                for key, value in list(txn.cursor(db=table)):
                    if len(key) == 8:
                        state = json.loads(value)
                        assert state["gone"] > 0
                        state["gone"] -= milliseconds
                        txn.put(key, json.dumps(state).encode(), db=table)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Mortal]:
    store = tmp_path / "store"
    with testing.broker(store=store) as broker:
        found = Mortal(broker, store)
        yield found
        for client in found.clients:
            client.drop()


@pytest.mark.parametrize("killed", [True, False])
def test_sessions_are_as_they_were(mortal: Mortal, killed: bool) -> None:
    client = mortal.connect("client", ReceiveMaximum=2, **KEEP)
    assert client.subscribe(("a/+", 2), SubscriptionIdentifier=9) == [2]
    assert client.subscribe(("$share/g/b/#", 1), ("$SYS/broker/version", 0x20)) == [1, 0]
    writer = mortal.connect("writer", **KEEP)
    for number in range(3):
        writer.send_whole("a/b", b"%d" % number, 2)
    writer.publish("a/b", b"3", 2, packet_id=77)
    writer.expect(PUBREC)
    first, second = client.messages(2)
    client.acknowledge(PUBREC, first.packet_id)
    client.expect(PUBREL)
    mortal.restart(killed)

    client = mortal.dial()
    assert client.connect("client", **KEEP).flags == 1
    assert client.expect(PUBREL).packet_id == first.packet_id
    found = client.messages(3)
    assert [each.payload for each in found] == [b"1", b"2", b"3"]
    assert (found[0].packet_id, found[0].duplicate) == (second.packet_id, True)
    assert [each.properties for each in found] == [{"SubscriptionIdentifier": [9]}] * 3
    writer = mortal.dial()
    assert writer.connect("writer", **KEEP).flags == 1
    writer.publish("a/b", b"3", 2, packet_id=77, duplicate=True)
    writer.expect(PUBREC)
    client.nothing()
    writer.send_whole("b/c", b"shared", 1)
    assert client.message().payload == b"shared"
    assert client.unsubscribe("a/+", "$share/g/b/#", "$SYS/broker/version") == [0, 0, 0]


def test_sessions_end_while_the_broker_is_down(mortal: Mortal) -> None:
    for name, expiry in (("short", 3600), ("long", 3 * 3600), ("ever", 0xFFFFFFFF)):
        client = mortal.connect(name, SessionExpiryInterval=expiry)
        client.subscribe((f"$share/{name}/a", 1))
        client.disconnect()
    mortal.end(killed=False)
    mortal.turn_back(2 * HOUR)
    mortal.broker.start()

    def there(name: str) -> int:
        client = mortal.dial()
        flags = client.connect(name, clean=False, SessionExpiryInterval=3600).flags
        client.disconnect()
        return flags
    assert [there(name) for name in ("short", "long", "ever")] == [0, 1, 1]


def test_a_session_ends_when_its_time_has_come_after_a_restart(mortal: Mortal) -> None:
    for name, expiry in (("short", 1), ("long", 3600)):
        mortal.connect(name, SessionExpiryInterval=expiry).subscribe(("a", 1))
    mortal.restart()
    client = Client(Peer(mortal.broker.host, mortal.broker.port)).open()
    eventually(lambda: client.channel().gone("mqtt-session:short"))
    assert client.channel().exists("mqtt-session:long")
    client.close()


def test_wills_that_wait_survive(mortal: Mortal) -> None:
    ever = {"clean": False, "SessionExpiryInterval": 0xFFFFFFFF}
    watcher = mortal.connect("watcher", **ever)
    watcher.subscribe(("will/#", 1))
    will = WillOf("will/due", b"due", 1, properties={"WillDelayInterval": 3600, "ContentType": "text/plain"})
    mortal.connect("due", will=will, **ever).drop()
    will = WillOf("will/later", b"x" * 65535, 1, properties={"WillDelayInterval": 3 * 3600})
    mortal.connect("later", will=will, **ever).drop()
    watcher.nothing()
    watcher.disconnect()
    mortal.end(killed=False)
    mortal.turn_back(HOUR + 1000)
    mortal.broker.start()
    mortal.restart()
    watcher = mortal.connect("watcher", **ever)
    due = watcher.message()
    assert (due.topic, due.payload, due.properties) == ("will/due", b"due", {"ContentType": "text/plain"})
    watcher.acknowledge(PUBACK, due.packet_id)
    watcher.nothing()
    mortal.connect("due")  # its session ends, and there is no will any more
    mortal.connect("later")
    found = watcher.message()
    assert (found.topic, found.payload) == ("will/later", b"x" * 65535)
    watcher.nothing()


def test_a_will_of_a_client_that_was_there_when_the_broker_was_killed(mortal: Mortal) -> None:
    watcher = mortal.connect("watcher", **KEEP)
    watcher.subscribe(("will/#", 1))
    mortal.connect("gone", will=WillOf("will/gone", b"gone", 1), **KEEP).ping()
    watcher.send_whole("will/x", b"x", 1)  # so that all before it is durable
    watcher.acknowledge(PUBACK, watcher.message().packet_id)
    watcher.ping()
    mortal.restart()
    watcher = mortal.connect("watcher", **KEEP)
    while (found := watcher.message()).topic == "will/x":
        pass
    assert found.payload == b"gone"


def test_a_session_that_is_deleted_leaves_nothing(mortal: Mortal) -> None:
    client = mortal.connect("client", **KEEP)
    client.subscribe(("a", 2), ("$share/g/b", 2))
    writer = mortal.connect("writer", **KEEP)
    writer.publish("a", b"x", 2)
    writer.expect(PUBREC)
    client.message()
    client.disconnect()
    writer.disconnect()
    mortal.connect("client").disconnect()
    mortal.connect("writer").disconnect()
    mortal.end(killed=False)
    report = check(mortal.store)
    assert report.sound and (report.records, report.messages, report.entries) == (0, 0, 0)


def test_a_session_is_of_the_user_who_made_it() -> None:
    with testing.broker("[[listeners]]\nanonymous = true\n") as broker:
        clients = [MqttClient(Peer(broker.host, broker.port), 5) for _ in range(2)]
        try:
            clients[0].connect("client", **KEEP)
            clients[1].write(clients[1].connect_packet("client", user=None, password=None, **KEEP))
            assert clients[1].expect(CONNACK).reason == 0x87
            clients[0].ping()
        finally:
            for client in clients:
                client.drop()


def test_of_too_many_messages_the_oldest_go() -> None:
    with testing.broker("[mqtt]\nsession_messages = 3\n") as broker:
        peer = Peer(broker.host, broker.port)
        client, writer = MqttClient(peer, 5), MqttClient(peer, 5)
        try:
            client.connect("client", **KEEP)
            client.subscribe(("a", 1))
            client.disconnect()
            writer.connect()
            for number in range(5):
                writer.send_whole("a", b"%d" % number, 1)
            client = MqttClient(peer, 5)
            client.connect("client", **KEEP)
            assert [found.payload for found in client.messages(3)] == [b"2", b"3", b"4"]
        finally:
            client.drop()
            writer.drop()
