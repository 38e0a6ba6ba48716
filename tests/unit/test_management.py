"""The management core: counters, connections, events; and that the agent works in small steps."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_kit import Reader, Running

from broker import management as m
from broker.errors import NotFound, PreconditionFailed, ResourceLocked
from broker.management import Event, ManagedConnection, Observer
from broker.message import AMQP10, CONVERTERS, Message, address_of
from broker.outcome import ACCEPT
from broker.queue import Queue
from broker.transaction import Publication, Transaction
from broker.view import VALUE, View
from protocols.amqp10 import convert as _convert10  # noqa: F401 - registers itself
from protocols.qmf.agent import Agent
from protocols.qmf.objects import Facts


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path, 200)
    yield running
    running.close()


class Notes(Observer):
    def __init__(self) -> None:
        self.events: list[Event] = []

    def happened(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class Client(ManagedConnection):
    def __init__(self, peer: str) -> None:
        super().__init__()
        self.peer, self.user, self.host_name = peer, "somebody", "/"
        self.closed_for = ""

    def close_by_order(self, text: str) -> None:
        self.closed_for = text


def counters(queue: Queue) -> tuple[int, int, int, int]:
    return queue.counters.enqueued, queue.dequeued(), queue.counters.enqueued_bytes, queue.dequeued_bytes()


def test_queues_count(running: Running) -> None:
    queue = running.queue("q", {})
    for number in range(6):
        running.publish("", "q", b"12345", number % 2 == 0, 0)
    assert counters(queue) == (6, 0, 30, 0) and (queue.counters.persisted, queue.counters.persisted_bytes) == (3, 15)
    reader = Reader(queue, "r")
    reader.room = 3
    queue.add(reader)
    assert (reader.delivered, queue.unsettled) == (3, 3)
    queue.accept(reader.entries[0])
    queue.reject(reader.entries[1])
    queue.release(reader.entries[2], False)
    assert counters(queue) == (6, 2, 30, 10)
    assert (queue.counters.releases, queue.counters.discards, queue.counters.unpersisted) == (1, {"rejected": 1}, 1)
    queue.remove(reader)
    assert queue.purge() == 4
    running.loop.settle()
    assert counters(queue) == (6, 6, 30, 30)
    counted = queue.counters
    assert (counted.discards["purged"], counted.unpersisted, counted.unpersisted_bytes) == (4, 3, 15)


def test_queues_count_what_they_have_left_in_the_journal(running: Running) -> None:
    queue = running.queue("q", {})
    for _ in range(1000):
        running.publish("", "q", b"12345", True, 0)
    running.loop.settle()
    assert queue.lanes[0].paged()
    assert queue.get() is not None
    queue.purge()
    running.loop.settle()
    assert counters(queue) == (1000, 999, 5000, 4995)


def test_a_restart_counts_what_is_there(tmp_path: Path) -> None:
    first = Running(tmp_path, 200)
    first.queue("q", {})
    for number in range(5):
        first.publish("", "q", b"12345", number > 0, 0)
    first.close()
    second = Running(tmp_path, 200)
    assert counters(second.queue("q", {})) == (4, 0, 20, 0)
    second.close()


def test_exchanges_count(running: Running) -> None:
    host = running.host
    for name in ("a", "b"):
        host.bind(host.exchange("amq.fanout"), running.queue(name, {}), "", {})
    running.publish("amq.fanout", "", b"12345", False, 0)
    running.publish("amq.direct", "nobody", b"123", False, 0)
    running.publish("amq.headers", "nobody", b"123", False, 0)
    fanout, direct, headers = (host.exchange(f"amq.{kind}") for kind in ("fanout", "direct", "headers"))
    assert (fanout.received, fanout.received_bytes, fanout.dropped) == (1, 5, 0)
    assert (fanout.copies, fanout.copies_bytes) == (1, 5)
    for exchange in (direct, headers):
        assert (exchange.received, exchange.dropped, exchange.dropped_bytes, exchange.copies) == (1, 1, 3, 0)


def test_events_say_who_has_done_it(running: Running) -> None:
    host, management = running.host, running.broker.management
    notes, client = Notes(), Client("127.0.0.1:1")
    management.observers.append(notes)
    management.opened(client)
    assert management.connections_of(host) == [client]
    management.actor = client
    queue, _ = host.declare_queue("q", False, False, False, {}, None)
    host.declare_queue("q", False, False, False, {}, None)
    host.declare_exchange("e", "topic", False, True, False, {})
    host.bind(host.exchange("e"), queue, "key", {})
    reader = Reader(queue, "r")
    queue.add(reader)
    queue.remove(reader)
    management.actor = None
    host.delete_queue(queue)  # and with its binding goes the exchange
    management.closed(client)
    management.closed(client)
    assert notes.kinds() == [m.CONNECTED, m.QUEUE_DECLARED, m.QUEUE_DECLARED, m.EXCHANGE_DECLARED, m.BOUND,
                             m.SUBSCRIBED, m.UNSUBSCRIBED, m.UNBOUND, m.EXCHANGE_DELETED, m.QUEUE_DELETED,
                             m.DISCONNECTED]
    assert [event.values.get("created") for event in notes.events[1:4]] == [True, False, True]
    assert {event.peer for event in notes.events[:7]} == {"127.0.0.1:1"} != {notes.events[7].peer}
    assert management.connections_of(host) == []


def test_a_queue_is_deleted_by_an_operator(running: Running) -> None:
    host, management = running.host, running.broker.management
    queue = running.queue("q", {})
    running.publish("", "q", b"1", False, 0)
    with pytest.raises(PreconditionFailed, match="not empty"):
        management.delete_queue(host, "q", False, True)
    reader = Reader(queue, "r")
    queue.add(reader)
    with pytest.raises(PreconditionFailed, match="in use"):
        management.delete_queue(host, "q", True, False)
    management.delete_queue(host, "q", False, False)
    with pytest.raises(NotFound):
        management.delete_queue(host, "q", False, False)
    host.declare_queue("mine", False, True, False, {}, owner := Client("x"))
    with pytest.raises(ResourceLocked):
        management.delete_queue(host, "mine", False, False)
    management.actor = owner
    management.delete_queue(host, "mine", False, False)


def test_a_connection_is_closed_once(running: Running) -> None:
    management, client = running.broker.management, Client("127.0.0.1:1")
    with pytest.raises(NotFound):
        management.close_connection(client)
    management.opened(client)
    management.close_connection(client)
    assert client.closed_for


def ask(running: Running, opcode: str, body: object) -> None:
    view = View()
    view.app_id, view.reply_to, view.kind, view.value = "qmf2", "answers", VALUE, body
    view.headers = {"qmf.opcode": opcode}
    address = address_of("qmf.default.direct", "broker")
    message = CONVERTERS[AMQP10].encode(view, Message(address, AMQP10, b"", None, 0, False, 4, 0, running.clock.now))
    route = running.host.route(address.short_strings, "qmf.default.direct", "broker")
    running.host.publish(route, message, None)


def test_the_agent_answers_in_order_and_not_at_once(running: Running) -> None:
    Agent(running.host, Facts("1", uuid.uuid4(), 10, 5672, ""))
    answers = running.queue("answers", {})
    for number in range(300):
        running.host.declare_queue(f"q{number}", False, False, False, {}, None)
    ask(running, "_query_request", {"_what": "OBJECT", "_schema_id": {"_class_name": "queue"}})
    ask(running, "_nonsense", {})
    ask(running, "_method_request", {"_object_id": {"_object_name": "org.apache.qpid.broker:broker:amqp-broker"},
                                     "_method_name": "echo", "_arguments": {"sequence": 1, "body": ""}})
    assert answers.ready == 0  # nothing is done within the publisher's turn
    running.loop.settle()
    opcodes = []
    while (entry := answers.get()) is not None:
        assert entry.message is not None
        opcodes.append(entry.message.view().headers["qmf.opcode"])
    assert opcodes == ["_query_response"] * 7 + ["_exception", "_method_response"]


def test_nobody_listens_so_nothing_is_made(running: Running) -> None:
    agent = Agent(running.host, Facts("1", uuid.uuid4(), 10, 5672, ""))
    received = agent.topic.received
    running.queue("q", {})
    agent._publish()
    running.loop.settle()
    assert agent.topic.received == received


def test_indications_reach_who_listens(running: Running) -> None:
    agent = Agent(running.host, Facts("1", uuid.uuid4(), 10, 5672, ""))
    queue = running.queue("q", {})
    running.host.bind(agent.topic, queue, "agent.ind.#", {})
    running.loop.settle()
    queue.purge()
    agent._publish()
    running.loop.settle()
    found = []
    while (entry := queue.get()) is not None:
        assert entry.message is not None
        view = entry.message.view()
        found.append((view.headers["qmf.opcode"], view.headers.get("qmf.content")))
    assert found[0] == ("_agent_heartbeat_indication", None)
    assert set(found[1:]) == {("_data_indication", "_data")} and len(found) >= 7


def test_what_deleted_queues_have_counted_stays_counted(running: Running) -> None:
    host = running.host
    queue = running.queue("q", {})
    for number in range(4):
        running.publish("", "q", b"12345", number == 0, 0)
    entry = queue.get()
    assert entry is not None
    queue.accept(entry)
    host.delete_queue(queue)
    totals = host.totals
    assert (totals.enqueued, totals.enqueued_bytes, totals.depth, totals.abandoned) == (4, 20, 0, 3)
    assert (totals.persisted, totals.unpersisted) == (1, 1)
    more = totals.copy()
    running.publish("", running.queue("r", {}).name, b"1", False, 0)
    more.add(host.queue("r"))
    assert (more.enqueued, more.depth, totals.enqueued, totals.depth) == (5, 1, 4, 0)


def test_transactions_are_counted(running: Running) -> None:
    queue = running.queue("q", {})
    running.publish("", "q", b"12345", False, 0)
    entry = queue.get()
    assert entry is not None and entry.message is not None
    transaction = Transaction(running.host)
    address = address_of("", "q")
    route = running.host.route(address.short_strings, "", "q")
    message = Message(route.address, AMQP10, b"\x00\x53\x75\xa0\x02ab", None, 7, False, 4, 0, running.clock.now)
    transaction.publish(Publication(route, message, None, False))
    transaction.settle(entry, ACCEPT)
    counted = queue.counters
    assert (counted.transacted, counted.settled) == (0, 0)
    transaction.commit(lambda: None)
    assert (counted.transacted, counted.transacted_bytes, counted.settled, counted.settled_bytes) == (1, 7, 1, 5)


def test_a_flood_of_requests_waits_in_the_queue(running: Running) -> None:
    agent = Agent(running.host, Facts("1", uuid.uuid4(), 10, 5672, ""))
    answers = running.queue("answers", {})
    for _ in range(500):
        ask(running, "_nonsense", {})
    assert agent.waiting == 100 and agent._inbox.queue.ready == 400
    running.loop.settle()
    assert answers.ready == 500 and agent.waiting == 0


def test_a_reply_to_the_agent_itself_ends_there(running: Running) -> None:
    agent = Agent(running.host, Facts("1", uuid.uuid4(), 10, 5672, ""))
    view = View()
    view.app_id, view.reply_to, view.kind, view.value = "qmf2", "qmf.default.direct/broker", VALUE, {}
    view.headers = {"qmf.opcode": "_nonsense"}
    address = address_of("qmf.default.direct", "broker")
    message = CONVERTERS[AMQP10].encode(view, Message(address, AMQP10, b"", None, 0, False, 4, 0, running.clock.now))
    running.host.publish(running.host.route(address.short_strings, "qmf.default.direct", "broker"), message, None)
    running.loop.settle()
    assert agent.direct.received == 2
