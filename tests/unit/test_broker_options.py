"""Options of queues on the core alone: alternates, times to live, durability, alerts; and after a restart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from broker_kit import Reader, Running, body_of

from broker import alternate as alternate_module
from broker import argument_values, topology
from broker.errors import ResourceLocked
from broker.management import THRESHOLD, Event, ManagedConnection, Observer
from broker.message import AMQP091, Message, Publisher, address_of
from broker.queue import Queue
from protocols.amqp091.frames import BODY, HEADER, frame

NOBODY = b"\x00\x3c\x00\x00" + bytes(8) + b"\x00\x00"


def taken(queue: Queue, count: int = 1) -> Reader:
    reader = Reader(queue, f"reader {id(queue)}")
    reader.room = count
    queue.add(reader)
    return reader


def bodies(queue: Queue) -> list[bytes]:
    reader = taken(queue, 1_000_000)
    found = []
    for entry in reader.entries:
        assert entry.message is not None
        found.append(body_of(entry.message))
        queue.accept(entry)
    queue.remove(reader)
    return found


def put(one: Running, queue: str, body: bytes = b"x", expiry: int = 0, durable: bool = True) -> Message:
    address = address_of("", queue)
    native = frame(HEADER, 0, NOBODY) + frame(BODY, 0, body)
    message = Message(address, AMQP091, native, None, len(body), durable, 0, expiry, one.clock.now)
    one.host.publish(one.host.route(address.short_strings, "", queue), message, None)
    return message


@pytest.fixture
def one(tmp_path: Path) -> Any:
    made = Running(tmp_path / "one", keep=5)
    yield made
    made.close()


# Alternates

@pytest.mark.parametrize("by", ["alternate-exchange", "alternateBinding", "queue"])
def test_rejected_messages_go_to_the_alternate(one: Running, by: str) -> None:
    one.host.declare_exchange("dead", "fanout", True, False, False, {})
    letters = one.queue("letters", {})
    one.host.bind(one.host.exchange("dead"), letters, "", {})
    name: Any = {"alternate-exchange": "dead", "alternateBinding": {"destination": "dead"}, "queue": "letters"}[by]
    queue = one.queue("q", {"alternate-exchange" if by == "queue" else by: name, "x-delivery-limit": 0})
    for body in (b"rejected", b"limit"):
        one.publish("", "q", body, True, 0)
    reader = taken(queue, 2)
    queue.reject(reader.entries[0])
    queue.release(reader.entries[1], True)
    assert bodies(letters) == [b"rejected", b"limit"]
    assert queue.ready == 0


def test_accepted_and_expired_messages_do_not(one: Running) -> None:
    letters = one.queue("letters", {})
    queue = one.queue("q", {"alternateExchange": "letters", "x-max-length": 1})
    for body in (b"dropped", b"accepted"):
        one.publish("", "q", body, True, 0)
    assert bodies(queue) == [b"accepted"]
    assert letters.ready == 0


def test_an_alternate_that_is_not_there(one: Running) -> None:
    queue = one.queue("q", {"alternate-exchange": "nowhere"})
    one.publish("", "q", b"x", True, 0)
    queue.reject(taken(queue).entries[0])
    one.publish("", "q", b"x", True, 0)
    one.host.delete_queue(queue)
    assert one.broker.memory.used == 0


@pytest.mark.parametrize("count", [3, 350])
@pytest.mark.parametrize("durable", [True, False])
def test_what_is_left_goes_there_when_the_queue_is_deleted(one: Running, tmp_path: Path, count: int,
                                                           durable: bool) -> None:
    letters = one.queue("letters", {})
    queue = one.queue("q", {"alternate-exchange": "letters"})
    for number in range(count):
        one.publish("", "q", b"%d" % number, durable, 0)
    one.loop.settle()
    reader = taken(queue)
    one.host.delete_queue(queue)
    one.loop.settle()
    assert [b"0", *bodies(letters)] == [b"%d" % number for number in range(count)]
    queue.release(reader.entries[0], True)  # and what somebody had, once he gives it back
    assert bodies(letters) == [b"0"]
    one.loop.settle()
    assert one.broker.memory.used == 0
    one.close()
    again = Running(tmp_path / "one", keep=5)
    assert list(again.host.queues) == ["letters"] and again.host.queues["letters"].ready == 0
    one.loop, one.broker = again.loop, again.broker


def test_a_crash_in_the_midst_leaves_each_message_in_one_place(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(alternate_module, "AT_ONCE", 10)
    one = Running(tmp_path / "one", keep=5)
    one.queue("letters", {})
    queue = one.queue("q", {"alternate-exchange": "letters"})
    for number in range(30):
        one.publish("", "q", b"%d" % number, True, 0)
    one.loop.settle()
    one.broker.chores.waiting.clear()
    one.host.delete_queue(queue)
    one.broker.chores.waiting.clear()  # it gets no further
    one.close()
    again = Running(tmp_path / "one", keep=5)
    found = [bodies(again.host.queues[name]) for name in ("letters", "q")]
    assert found[0] + found[1] == [b"%d" % number for number in range(30)]
    assert len(found[0]) == 10
    again.close()


def test_dead_letter_queue(one: Running, tmp_path: Path) -> None:
    queue = one.queue("q", {"x-qpid-dlq-enabled": "true", "x-qpid-maximum-delivery-count": 2})
    one.publish("", "q", b"x", True, 0)
    reader = taken(queue, 5)
    queue.release(reader.entries[0], True)
    queue.dispatch()
    assert len(reader.entries) == 2 and one.host.queues["q_DLQ"].ready == 0
    queue.release(reader.entries[1], True)
    assert one.host.queues["q_DLQ"].ready == 1 and queue.ready == 0
    one.loop.settle()
    one.close()
    again = Running(tmp_path / "one", keep=5)
    assert again.host.queues["q"].settings.alternate == "q_DLE"
    assert again.host.exchanges["q_DLE"].kind == "fanout"
    assert bodies(again.host.queues["q_DLQ"]) == [b"x"]
    one.loop, one.broker = again.loop, again.broker


def test_what_a_queue_that_destroys_itself_leaves(one: Running) -> None:
    letters = one.queue("letters", {})
    one.queue("q", {"qpid.max_count": 3, "qpid.policy_type": "self-destruct", "alternate-exchange": "letters"})
    for number in range(6):
        one.publish("", "q", b"%d" % number, True, 0)
    assert list(one.host.queues) == ["letters"]
    assert bodies(letters) == [b"0", b"1", b"2", b"3"]


# Publishers that are held

class Waiting(Publisher):
    def __init__(self) -> None:
        self.told: list[int] = []

    def confirmed(self, sequence: int) -> None:
        self.told.append(sequence)


@pytest.mark.parametrize("end", ["consumed", "purged", "deleted"])
@pytest.mark.parametrize("count", [10, 2500])
def test_held_publishers(one: Running, end: str, count: int) -> None:
    """Those that wait are told in their order, and nothing of those that do not is kept."""
    queue = one.queue("q", {"qpid.flow_stop_count": 2, "qpid.flow_resume_count": 0})
    waiting = Waiting()
    for number in range(count):
        put(one, "q")
        message = put(one, "q")
        if message.pending:
            message.publisher, message.sequence = waiting, number
    one.loop.settle()
    assert waiting.told == [0]
    assert queue.limits is not None and len(queue.limits.held) <= count
    if end == "consumed":
        bodies(queue)
    elif end == "purged":
        queue.purge()
    else:
        one.host.delete_queue(queue)
    one.loop.settle()
    assert waiting.told == list(range(count))
    assert one.broker.memory.used == 0


# Times to live and durability

def test_the_least_time_to_live(one: Running) -> None:
    queue = one.queue("q", {"minimumMessageTtl": 1000, "maximumMessageTtl": "5000"})
    now = one.clock.now
    for expiry, expected in ((now + 10, now + 1000), (now + 2000, now + 2000), (now + 9000, now + 5000),
                             (0, now + 5000)):
        put(one, "q", expiry=expiry)
        reader = taken(queue)
        assert reader.entries[0].expiry == expected
        queue.accept(reader.entries[0])
        queue.remove(reader)


@pytest.mark.parametrize("word, kept", [("default", [b"durable"]), ("ALWAYS", [b"durable", b"transient"]),
                                        ("never", [])])
def test_message_durability(one: Running, tmp_path: Path, word: str, kept: list[bytes]) -> None:
    queue = one.queue("q", {"qpid.message_durability": word})
    put(one, "q", b"durable", durable=True)
    put(one, "q", b"transient", durable=False)
    assert queue.ready == 2
    one.close()
    again = Running(tmp_path / "one", keep=5)
    assert bodies(again.host.queues["q"]) == kept
    one.loop, one.broker = again.loop, again.broker


# Alerts

class Notes(Observer):
    def __init__(self) -> None:
        self.heard: list[tuple[str, int, bool]] = []

    def happened(self, event: Event) -> None:
        if event.kind == THRESHOLD:
            assert event.values["queue"] == "q"
            self.heard.append((event.values["measure"], event.values["value"], event.values["up"]))


@pytest.mark.parametrize("arguments, kind", [
    ({"qpid.alert_count": 3}, "messages"), ({"qpid.alert_count_up": "3", "qpid.alert_count_down": 1}, "messages"),
    ({"x-qpid-maximum-message-count": 3}, "messages"), ({"qpid.alert_size": 3}, "bytes"),
    ({"x-qpid-maximum-queue-depth": 3}, "bytes"),
])
def test_alert(one: Running, caplog: Any, arguments: dict[str, Any], kind: str) -> None:
    notes = Notes()
    one.broker.management.observers.append(notes)
    queue = one.queue("q", arguments)
    caplog.set_level(logging.WARNING)
    for _ in range(5):
        put(one, "q")
    assert notes.heard == [(kind, 3, True)]
    assert "queue 'q' in vhost '/'" in caplog.text and "the mark is 3" in caplog.text
    one.clock.now += 31_000
    put(one, "q")
    assert notes.heard == [(kind, 3, True), (kind, 6, True)]
    reader = taken(queue, 6)
    for entry in reader.entries[:4]:
        queue.accept(entry)
    assert len(notes.heard) == 2
    queue.accept(reader.entries[4])
    assert notes.heard[2:] == [(kind, 1, False)]
    queue.accept(reader.entries[5])
    assert len(notes.heard) == 3


def test_alerts_of_size_and_age(one: Running) -> None:
    notes = Notes()
    one.broker.management.observers.append(notes)
    queue = one.queue("q", {"x-qpid-maximum-message-size": 10, "x-qpid-maximum-message-age": 5000,
                            "x-qpid-minimum-alert-repeat-gap": 2000})
    put(one, "q", b"x" * 9)
    assert notes.heard == []
    put(one, "q", b"x" * 10)
    assert notes.heard == [("message size", 10, True)]
    start = one.clock.now
    for seconds in (2, 4, 5, 6, 7, 8):
        one.clock.now = start + 1000 * seconds
        one.broker.timers.run()
    assert notes.heard[1:] == [("message age", 5000, True), ("message age", 7000, True)]
    bodies(queue)
    one.clock.now += 100_000
    one.broker.timers.run()
    assert len(notes.heard) == 3


# Whose a queue is

def test_a_users_queue_is_his_after_a_restart(one: Running, tmp_path: Path) -> None:
    alice, bob = ManagedConnection(), ManagedConnection()
    alice.user, bob.user = "alice", "bob"
    one.broker.management.actor = alice
    queue = one.queue("q", {"qpid.exclusivity_policy": "PRINCIPAL"})
    one.broker.management.actor = bob
    with pytest.raises(ResourceLocked):
        queue.check_access(bob)
    one.broker.management.actor = None
    one.close()
    again = Running(tmp_path / "one", keep=5)
    for who, may in ((bob, False), (alice, True), (None, True)):
        again.broker.management.actor = who
        if may:
            again.host.queues["q"].check_access(who)
        else:
            with pytest.raises(ResourceLocked):
                again.host.queues["q"].check_access(who)
    one.loop, one.broker = again.loop, again.broker


# What an earlier version has left

def test_arguments_that_were_no_error_once(one: Running, tmp_path: Path, caplog: Any) -> None:
    queue = one.queue("q", {"x-max-length": 2})
    one.host.declare_exchange("x", "direct", True, False, False, {})
    one.host.bind(one.host.exchange("x"), queue, "k", {})
    one.publish("", "q", b"kept", True, 0)
    store = one.broker.store
    for setting, value, _ in list(store.load()):
        content = argument_values.load(value)
        if "arguments" not in content:
            continue
        content["arguments"] |= {"qpid.max_cuont": 5, "qpid.max_count": "many", "x-else": 1}
        topology.save(store, setting, content)
    one.close()
    again = Running(tmp_path / "one", keep=5)
    recovered = again.host.queues["q"]
    assert recovered.settings.max_length == 2 and recovered.arguments == {"x-max-length": 2, "x-else": 1}
    assert list(again.host.exchange("x").bindings) != []
    for what in ("queue 'q'", "exchange 'x'", "binding of exchange 'x'"):
        assert what in caplog.text
    assert bodies(recovered) == [b"kept"]
    one.loop, one.broker = again.loop, again.broker
