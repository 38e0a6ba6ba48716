"""`$SYS/broker/...`: the figures, when they are published, and who gets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_kit import Reader, Running

import protocols.mqtt.convert  # noqa: F401 - registers itself
from broker.management import ManagedConnection
from broker.message import Message
from protocols.mqtt.content import body_pieces, topic
from protocols.mqtt.system_topics import SYSTEM_EXCHANGE, Load, SystemTopics
from protocols.topics import pattern_of


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "store", keep=100)
    yield running
    running.close()


class Device(ManagedConnection):
    """A client of MQTT's."""

    def __init__(self, dialect: str = "MQTT 5.0") -> None:
        super().__init__()
        self.dialect = dialect
        self.host_name = "/"


def shown(message: Message) -> tuple[str, str]:
    return topic(message.native).decode(), b"".join(body_pieces(message)).decode()


def figures(topics: SystemTopics) -> dict[str, str]:
    return dict(map(shown, topics.matching("$SYS/broker/#")))


def pass_time(one: Running, milliseconds: int) -> None:
    one.clock.now += milliseconds
    one.broker.timers.run()
    one.loop.settle()


def test_figures(one: Running) -> None:
    topics = SystemTopics(one.host, "1.2", 10)
    here, gone, other = Device(), Device("MQTT 3.1.1"), Device("AMQP 1.0")
    for each in (here, gone, other):
        each.messages_in = each.bytes_out = 100
        one.broker.management.opened(each)
    one.broker.management.closed(gone)
    for name in ("mqtt-session:a", "mqtt-session:b"):
        queue = one.queue(name, {})
        one.host.bind(one.host.exchange("amq.topic"), queue, "#", {"x-mqtt-filter": "#"})
    one.host.bind(one.host.exchange(SYSTEM_EXCHANGE), one.queue("mqtt-share:g:f", {}), "$SYS.#",
                  {"x-mqtt-filter": "$SYS/#"})
    one.host.bind(one.host.exchange("amq.topic"), one.queue("other", {}), "#", {})
    one.publish("", "other", b"12345", True, 0)
    one.loop.settle()
    found = figures(topics)
    expected = {
        "version": "dragoman version 1.2", "uptime": "0 seconds", "clients/connected": "1", "clients/disconnected": "1",
        "clients/total": "2", "clients/maximum": "2", "messages/received": "200", "bytes/sent": "200",
        "publish/messages/received": "200", "messages/sent": "0", "subscriptions/count": "3",
        "shared_subscriptions/count": "1", "retained messages/count": "0", "store/messages/count": "1",
        "store/messages/bytes": "5"}
    assert {name: found["$SYS/broker/" + name] for name in expected} == expected
    assert "$SYS/broker/load/bytes/sent/15min" in found


def test_what_has_changed_is_published(one: Running) -> None:
    topics = SystemTopics(one.host, "1.2", 10)
    one.loop.settle()
    queue = one.queue("q", {})
    one.host.bind(one.host.exchange(SYSTEM_EXCHANGE), queue, pattern_of("$SYS/broker/+/count"), {})
    one.host.bind(one.host.exchange(SYSTEM_EXCHANGE), queue, pattern_of("$SYS/broker/uptime"), {})
    reader = Reader(queue, "r")
    reader.room = 100
    queue.add(reader)
    one.host.bind(one.host.exchange("amq.topic"), queue, "k", {"x-mqtt-filter": "k"})
    pass_time(one, 9_999)
    assert not reader.entries
    pass_time(one, 1)
    assert sorted(shown(entry.message) for entry in reader.entries if entry.message) == [
        ("$SYS/broker/subscriptions/count", "1"), ("$SYS/broker/uptime", "10 seconds")]
    assert figures(topics)["$SYS/broker/uptime"] == "10 seconds"


def test_filters(one: Running) -> None:
    topics = SystemTopics(one.host, "1.2", 10)
    one.loop.settle()
    assert [shown(message)[0] for message in topics.matching("$SYS/+/version")] == ["$SYS/broker/version"]
    assert topics.matching("#") == topics.matching("+/broker/version") == []


def test_none_at_all(one: Running) -> None:
    topics = SystemTopics(one.host, "1.2", 0)
    one.loop.settle()
    assert topics.matching("$SYS/#") == []
    assert not one.broker.timers.heap


def test_nobody_publishes_figures_of_his_own(one: Running) -> None:
    topics = SystemTopics(one.host, "1.2", 10)
    assert topics.exchange.internal


def test_averages() -> None:
    load = Load()
    for minute in range(1, 200):
        load.count(minute * 60, 60)
    assert [round(average, 2) for average in load.averages] == [60, 60, 60]
    load.count(200 * 60, 60)
    load.count(200 * 60, 60)
    assert load.averages[0] < load.averages[1] < load.averages[2] < 60
