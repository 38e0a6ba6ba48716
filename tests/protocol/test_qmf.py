"""QMF over AMQP 1.0, with Proton, and over 0-9-1, with pika: what Qpid's tools do over 0-10."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from proton import Endpoint, Message
from proton.utils import BlockingConnection, SendException

from broker.values import UInt, ULong
from protocols import maps010
from tests.wire import Peer
from tests.wire010 import NONE, Client010

pytestmark = pytest.mark.dragoman_only(reason="QMF")

BROKER = "org.apache.qpid.broker:broker:amqp-broker"


class Console:
    """Asks the broker's agent, and waits for its answers."""

    def __init__(self, peer: Peer) -> None:
        self.connection = BlockingConnection(f"amqp://guest:guest@{peer.host}:{peer.port}", timeout=10)
        self.reply_to = f"qmf.default.topic/direct.{uuid.uuid4()}"
        self.receiver = self.connection.create_receiver(self.reply_to, credit=100)
        self.sender = self.connection.create_sender("qmf.default.direct/broker")
        self.number = 0

    def ask(self, opcode: str, body: Any, **headers: Any) -> list[Message]:
        """All messages of the answer."""
        self.number += 1
        self.sender.send(Message(body=body, reply_to=self.reply_to, correlation_id=str(self.number), properties={
            "x-amqp-0-10.app-id": "qmf2", "qmf.opcode": opcode, "method": "request", **headers}))
        found = []
        while not found or "partial" in found[-1].properties:
            found.append(self.receiver.receive(timeout=10))
            self.receiver.accept()
            assert found[-1].correlation_id == str(self.number)
        return found

    def query(self, kind: str) -> list[dict[str, Any]]:
        answers = self.ask("_query_request", {"_what": "OBJECT", "_schema_id": {"_class_name": kind}})
        assert {each.properties["qmf.opcode"] for each in answers} == {"_query_response"}
        return [found for each in answers for found in each.body]

    def values(self, kind: str) -> list[dict[str, Any]]:
        return [each["_values"] for each in self.query(kind)]

    def find(self, name: str) -> dict[str, Any] | None:
        answer, = self.ask("_query_request", {"_what": "OBJECT",
                                              "_object_id": {"_object_name": f"org.apache.qpid.broker:{name}"}})
        assert len(answer.body) < 2
        return answer.body[0]["_values"] if answer.body else None

    def call(self, name: str, arguments: dict[str, Any] | None = None, target: str = BROKER) -> Message:
        answer, = self.ask("_method_request", {"_object_id": {"_object_name": target}, "_method_name": name,
                                               "_arguments": arguments or {}})
        return answer

    def does(self, name: str, arguments: dict[str, Any] | None = None, target: str = BROKER) -> dict[str, Any]:
        answer = self.call(name, arguments, target)
        assert answer.properties["qmf.opcode"] == "_method_response", answer.body
        results: dict[str, Any] = answer.body["_arguments"]
        return results

    def fails(self, name: str, arguments: dict[str, Any] | None = None, target: str = BROKER) -> tuple[int, str]:
        answer = self.call(name, arguments, target)
        assert answer.properties["qmf.opcode"] == "_exception"
        return answer.body["_values"]["error_code"], answer.body["_values"]["error_text"]

    def create(self, kind: str, name: str, **properties: Any) -> None:
        self.does("create", {"type": kind, "name": name, "properties": properties, "strict": True})

    def delete(self, kind: str, name: str, **options: Any) -> None:
        self.does("delete", {"type": kind, "name": name, "options": options})


@pytest.fixture
def console(peer: Peer) -> Iterator[Console]:
    console = Console(peer)
    yield console
    console.connection.close()


@pytest.fixture
def queue(console: Console, peer: Peer) -> Iterator[str]:
    name = f"qmf.{uuid.uuid4()}"
    console.create("queue", name)
    yield name
    other = Console(peer)  # a link of the first one would be closed with an error
    other.call("delete", {"type": "queue", "name": name})
    other.connection.close()


def test_every_class_can_be_asked_for(console: Console) -> None:
    for kind in ("system", "memory", "broker", "vhost", "queue", "exchange", "binding", "connection", "session",
                 "subscription"):
        found = console.query(kind)
        assert found or kind == "queue"
        for each in found:
            assert each["_object_id"]["_object_name"].startswith(f"org.apache.qpid.broker:{kind}:")
            assert each["_schema_id"]["_class_name"] == kind and isinstance(each["_schema_id"]["_hash"], uuid.UUID)
            assert each["_create_ts"] > 1e18 and each["_update_ts"] >= each["_create_ts"] and each["_delete_ts"] == 0
    assert console.query("link") == console.query("nonsense") == console.query("acl") == []


def test_a_queue_is_made_counted_and_deleted(console: Console, queue: str) -> None:
    sender = console.connection.create_sender(queue)
    for number in range(5):
        sender.send(Message(b"12345", durable=number == 0))
    receiver = console.connection.create_receiver(queue, credit=2)
    receiver.receive(timeout=10)
    receiver.accept()
    receiver.receive(timeout=10)
    time.sleep(0.2)
    found = console.find(f"queue:{queue}")
    assert found is not None
    sizes = found["byteTotalEnqueues"] // 5
    assert (found["msgTotalEnqueues"], found["msgTotalDequeues"], found["msgDepth"]) == (5, 1, 4)
    assert (found["byteTotalDequeues"], found["byteDepth"]) == (sizes, 4 * sizes) and sizes >= 5
    assert (found["consumerCount"], found["bindingCount"]) == (1, 1)
    assert found["unackedMessages"] >= 1 and found["acquires"] == 1 + found["unackedMessages"]
    assert (found["durable"], found["autoDelete"], found["exclusive"]) == (False, False, False)
    assert found["msgPersistEnqueues"] == 0
    receiver.close()
    console.does("purge", {"request": 0, "filter": {}}, f"org.apache.qpid.broker:queue:{queue}")
    found = console.find(f"queue:{queue}")
    assert found is not None
    assert (found["msgDepth"], found["byteDepth"], found["discardsPurge"]) == (0, 0, 4)
    console.delete("queue", queue, if_empty=True, if_unused=True)
    assert console.find(f"queue:{queue}") is None


def test_a_durable_queue_counts_what_it_keeps(console: Console) -> None:
    name = f"qmf.{uuid.uuid4()}"
    console.create("queue", name, durable=1, **{"x-max-length": 2})
    sender = console.connection.create_sender(name)
    for number in range(3):
        sender.send(Message(b"12345", durable=number > 0))
    found = console.find(f"queue:{name}")
    assert found is not None and found["arguments"] == {"x-max-length": 2}
    assert (found["msgPersistEnqueues"], found["msgPersistDequeues"], found["discardsRing"]) == (2, 0, 1)
    assert found["acquires"] == 0
    console.delete("queue", name)


def test_exchanges_and_bindings(console: Console, queue: str) -> None:
    exchange = f"qmf.{uuid.uuid4()}"
    console.create("exchange", exchange, **{"exchange-type": "topic"})
    console.create("binding", f"{exchange}/{queue}/a/#", **{"x-qmf": 1})
    bound = [each for each in console.values("binding") if each["queueRef"]["_object_name"].endswith(queue)]
    assert sorted((each["exchangeRef"]["_object_name"].split(":", 2)[2], each["bindingKey"], each["arguments"])
                  for each in bound) == [("", queue, {}), (exchange, "a/#", {"x-qmf": 1})]
    sender = console.connection.create_sender(f"{exchange}/nobody")
    with pytest.raises(SendException):
        sender.send(Message(b"1234"))
    found = console.find(f"exchange:{exchange}")
    assert found is not None
    assert (found["type"], found["durable"], found["bindingCount"]) == ("topic", False, 1)
    assert (found["msgReceives"], found["msgDrops"], found["msgRoutes"]) == (1, 1, 0)
    console.delete("binding", f"{exchange}/{queue}/a/#")
    assert console.fails("delete", {"type": "binding", "name": f"{exchange}/{queue}/a/#"})[0] == 7
    console.delete("exchange", exchange)
    assert console.find(f"exchange:{exchange}") is None


def test_what_is_the_brokers_own_is_not_shown_and_stays(console: Console) -> None:
    assert console.fails("delete", {"type": "exchange", "name": "qmf.default.direct"})[0] == 6
    assert console.fails("delete", {"type": "exchange", "name": "amq.direct"})[0] == 6
    assert not [each for each in console.values("binding") if "agent" in each["queueRef"]["_object_name"]]
    assert not [each for each in console.values("queue") if "agent" in each["name"]]


def test_connections_sessions_and_subscriptions_belong_together(console: Console, queue: str) -> None:
    console.connection.create_receiver(queue, credit=1)
    subscription = next(each for each in console.values("subscription")
                        if each["queueRef"]["_object_name"].endswith(queue))
    session = next(each for each in console.values("session")
                   if subscription["sessionRef"]["_object_name"].endswith(":session:" + each["name"]))
    connection = next(each for each in console.values("connection")
                      if session["connectionRef"]["_object_name"].endswith(":connection:" + each["address"]))
    assert (connection["authIdentity"], connection["protocol"]) == ("guest", "AMQP 1.0")
    assert connection["saslMechanism"] == "PLAIN"
    assert connection["msgsFromClient"] > 2 < connection["msgsToClient"]
    assert connection["bytesFromClient"] > 300 < connection["bytesToClient"]
    assert (subscription["browsing"], subscription["acknowledged"], subscription["delivered"]) == (False, True, 0)


def test_a_connection_is_closed_by_order(console: Console, peer: Peer) -> None:
    other = pika.BlockingConnection(pika.ConnectionParameters(peer.host, peer.port))
    address, = [each["address"] for each in console.values("connection") if "0-9-1" in each["protocol"]]
    console.does("close", {}, f"org.apache.qpid.broker:connection:{address}")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="management"):
        other.process_data_events(5)
    assert console.find(f"connection:{address}") is None


@pytest.mark.parametrize("method", ["close", "detach"])
def test_sessions_are_ended_by_order(console: Console, peer: Peer, method: str) -> None:
    name = "org.apache.qpid.broker:session:" + console.values("session")[0]["name"]
    assert console.fails("solicitAck", {}, name)[0] == 3
    assert console.fails(method, {}, "org.apache.qpid.broker:session:nonsense")[0] == 1
    other = pika.BlockingConnection(pika.ConnectionParameters(peer.host, peer.port))
    channel = other.channel()
    address, = [each["address"] for each in console.values("connection") if "0-9-1" in each["protocol"]]
    name, = [each["name"] for each in console.values("session")
             if each["connectionRef"]["_object_name"].endswith(":connection:" + address)]
    console.does(method, {}, f"org.apache.qpid.broker:session:{name}")
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="management"):
        channel.queue_declare("", exclusive=True)
    other.channel().queue_declare("", exclusive=True)  # the connection lives
    other.close()


def test_a_session_of_1_0_is_ended_by_order(console: Console, peer: Peer) -> None:
    before = {each["name"] for each in console.values("session")}
    other = BlockingConnection(f"amqp://{peer.host}:{peer.port}", user="guest", password="guest", timeout=10)
    other.create_sender("amq.fanout")
    name, = {each["name"] for each in console.values("session")} - before
    console.does("close", {}, f"org.apache.qpid.broker:session:{name}")
    session = other.conn.session_head(Endpoint.REMOTE_CLOSED)
    while session is None:
        other.container.process()
        session = other.conn.session_head(Endpoint.REMOTE_CLOSED)
    assert session.remote_condition.description == "ended by management"
    assert {each["name"] for each in console.values("session")} == before


def test_the_broker_answers(console: Console) -> None:
    assert console.does("echo", {"sequence": 7, "body": "hello"}) == {"sequence": 7, "body": "hello"}
    assert console.does("getTimestampConfig") == {"receive": False}
    before = console.does("getLogLevel")["level"]
    console.does("setLogLevel", {"level": "debug+"})
    assert console.does("getLogLevel") == {"level": "debug+"}
    console.does("setLogLevel", {"level": before})
    assert console.does("query", {"type": "exchange", "name": "amq.topic"})["results"]["type"] == "topic"


@pytest.mark.parametrize(("name", "arguments", "code"), [
    ("create", {"type": "queue", "name": "q", "properties": {"x-nonsense": 1}, "strict": True}, 4),
    ("create", {"type": "queue", "name": "q", "properties": {"qpid.policy_type": "nonsense"}}, 7),
    ("create", {"type": "queue", "name": "q", "properties": {"durable": "perhaps"}}, 4),
    ("create", {"type": "queue", "name": 7}, 4),
    ("create", {"type": "queue", "name": "amq.q"}, 6),
    ("create", {"type": "queue", "name": "q", "properties": []}, 4),
    ("create", {"type": "exchange", "name": "amq.direct"}, 4),
    ("create", {"type": "exchange", "name": "q", "properties": {"exchange-type": "nonsense"}}, 7),
    ("create", {"type": "binding", "name": "nonsense"}, 4),
    ("create", {"type": "binding", "name": "amq.direct/nonsense"}, 7),
    ("create", {"type": "nonsense", "name": "q"}, 4),
    ("create", {}, 4),
    ("delete", {"type": "queue", "name": "nonsense"}, 7),
    ("delete", {"type": "exchange", "name": "nonsense"}, 7),
    ("query", {"type": "nonsense", "name": "q"}, 4),
    ("setLogLevel", {"level": "loud"}, 4),
    ("setTimestampConfig", {"receive": True}, 3),
    ("queueMoveMessages", {"srcQueue": "nonsense", "destQueue": "nonsense", "qty": 0}, 4),
    ("queueMoveMessages", {"srcQueue": "nonsense", "qty": -1}, 4),
    ("queueCopyMessages", {"srcQueue": "nonsense", "destQueue": "nonsense", "qty": 0}, 4),
    ("queueRedirect", {"sourceQueue": "nonsense", "targetQueue": "nonsense"}, 7),
    ("nonsense", {}, 2)])
def test_a_method_that_fails_says_why(console: Console, name: str, arguments: dict[str, Any], code: int) -> None:
    assert console.fails(name, arguments)[0] == code


def test_a_name_that_is_no_object(console: Console) -> None:
    assert console.fails("purge", {"request": 0}, "org.apache.qpid.broker:queue:nonsense") == (
        1, "No object found with that ID")
    assert console.fails("reloadACLFile", {}, "org.apache.qpid.acl:acl:x")[0] == 1
    assert console.find("queue:nonsense") is None


@pytest.mark.parametrize(("opcode", "body"), [
    ("_query_request", {}), ("_query_request", {"_what": "SCHEMA_ID"}), ("_query_request", ["no map"]),
    ("_method_request", {}), ("_method_request", "text"), ("_method_request", {"_object_id": 7}), ("_nonsense", {}),
    ("_method_request", {"_object_id": {}, "_method_name": 1, "_arguments": []})])
def test_a_request_that_makes_no_sense(console: Console, opcode: str, body: Any) -> None:
    answer, = console.ask(opcode, body)
    assert answer.properties["qmf.opcode"] == "_exception"


def test_a_long_answer_comes_in_parts(console: Console) -> None:
    names = [f"qmf.many.{number}" for number in range(120)]
    for name in names:
        console.create("queue", name)
    answers = console.ask("_query_request", {"_what": "OBJECT", "_schema_id": {
        "_class_name": "queue", "_package_name": "org.apache.qpid.broker"}})
    assert len(answers) >= 3
    found = [each["_values"]["name"] for answer in answers for each in answer.body]
    assert set(names) <= set(found) and len(found) == len(set(found))
    for name in names:
        console.delete("queue", name)


def depths(console: Console, *names: str) -> list[int]:
    return [found["msgDepth"] for found in (console.find(f"queue:{name}") for name in names) if found is not None]


def test_messages_are_moved_rerouted_and_purged_in_part(console: Console, queue: str) -> None:
    other = f"{queue}.other"
    console.create("queue", other, **{"alternate-exchange": "amq.fanout"})
    sender = console.connection.create_sender(queue)
    for number in range(10):
        sender.send(Message(b"12345", properties={"colour": "red" if number % 2 else "blue"}))
    source, target = f"org.apache.qpid.broker:queue:{queue}", f"org.apache.qpid.broker:queue:{other}"
    red = {"filter_type": "header_match_str", "filter_params": {"header_key": "colour", "header_value": "red"}}
    console.does("queueMoveMessages", {"srcQueue": queue, "destQueue": other, "qty": 3, "filter": red})
    assert depths(console, queue, other) == [7, 3]
    console.does("purge", {"request": 2, "filter": {}}, source)
    assert depths(console, queue, other) == [5, 3]
    console.does("queueMoveMessages", {"srcQueue": queue, "destQueue": other, "qty": 1})
    assert depths(console, queue, other) == [4, 4]
    console.does("queueCopyMessages", {"srcQueue": other, "destQueue": queue, "qty": 0, "filter": red})
    assert depths(console, queue, other) == [7, 4]
    console.does("purge", {"request": 3, "filter": red}, source)
    console.create("binding", f"amq.fanout/{queue}/")
    console.does("reroute", {"request": 0, "useAltExchange": True, "exchange": "", "filter": {}}, target)
    assert depths(console, queue, other) == [8, 0]
    console.create("binding", f"amq.direct/{other}/{queue}")
    console.does("reroute", {"request": 1, "useAltExchange": False, "exchange": "amq.direct"}, source)
    assert depths(console, queue, other) == [7, 1]
    found = console.find(f"queue:{other}")
    assert found is not None and found["arguments"] == {}
    assert found["altExchange"]["_object_name"] == "org.apache.qpid.broker:exchange:amq.fanout"
    found = console.find(f"queue:{queue}")
    assert found is not None
    assert (found["reroutes"], found["discardsPurge"], found["acquires"]) == (5, 5, 0)
    for wrong in ({"filter_type": "nonsense"}, {"filter_type": "header_match_str", "filter_params": {}}, []):
        assert console.fails("purge", {"request": 0, "filter": wrong}, source)[0] == 4
    assert console.fails("reroute", {"request": 0, "exchange": "nonsense"}, source)[0] == 4
    assert console.fails("reroute", {"request": 0, "useAltExchange": True}, source)[0] == 4
    console.delete("queue", other)


def test_a_queue_is_redirected(console: Console, queue: str) -> None:
    other = f"{queue}.other"
    console.create("queue", other)
    console.does("queueRedirect", {"sourceQueue": queue, "targetQueue": other})
    console.connection.create_sender(queue).send(Message(b"12345"))
    assert depths(console, queue, other) == [0, 1]
    found = console.find(f"queue:{queue}")
    assert found is not None and (found["redirectPeer"], found["redirectSource"]) == (other, True)
    assert console.fails("queueRedirect", {"sourceQueue": queue, "targetQueue": other})[0] == 7
    console.does("queueRedirect", {"sourceQueue": queue, "targetQueue": ""})
    assert depths(console, queue, other) == [1, 0]
    console.delete("queue", other)


def test_marks_that_are_crossed_are_told(console: Console) -> None:
    name = f"qmf.{uuid.uuid4()}"
    console.create("queue", name, **{"qpid.alert_count": 2, "qpid.alert_count_down": 1, "qpid.alert_repeat_gap": 0})
    events = console.connection.create_receiver(
        "qmf.default.topic/agent.ind.event.org_apache_qpid_broker.*.*.#", credit=100)
    sender = console.connection.create_sender(name)
    for _ in range(2):
        sender.send(Message(b"12345"))
    console.does("purge", {"request": 0}, f"org.apache.qpid.broker:queue:{name}")
    found = []
    while not found or found[-1][0] != "queueThresholdCrossedDownward":
        event, = events.receive(timeout=10).body
        events.accept()
        if event["_schema_id"]["_class_name"].startswith("queueThreshold"):
            found.append((event["_schema_id"]["_class_name"], event["_severity"], event["_values"]["msgDepth"]))
            assert event["_values"]["qName"] == name
    assert found == [("queueThresholdCrossedUpward", 6, 2), ("queueThresholdExceeded", 4, 2),
                     ("queueThresholdCrossedDownward", 6, 0)]
    console.delete("queue", name)


def test_agents_are_located(console: Console) -> None:
    sender = console.connection.create_sender("qmf.default.topic/console.request.agent_locate")
    sender.send(Message(body=[], reply_to=console.reply_to, properties={
        "x-amqp-0-10.app-id": "qmf2", "qmf.opcode": "_agent_locate_request"}))
    answer = console.receiver.receive(timeout=10)
    console.receiver.accept()
    assert answer.properties["qmf.opcode"] == "_agent_locate_response"
    values = answer.body["_values"]
    assert (values["_vendor"], values["_product"]) == ("apache.org", "qpidd")
    assert values["_name"] == answer.properties["qmf.agent"] == f"apache.org:qpidd:{values['_instance']}"


def test_events_are_told(console: Console, peer: Peer) -> None:
    events = console.connection.create_receiver("qmf.default.topic/agent.ind.event.org_apache_qpid_broker.*.*.#",
                                                credit=100)
    other = pika.BlockingConnection(pika.ConnectionParameters(peer.host, peer.port))
    channel = other.channel()
    for _ in range(2):
        channel.queue_declare("qmf.events", arguments={"x-max-length": 5})
    channel.exchange_declare("qmf.events", "fanout")
    channel.queue_bind("qmf.events", "qmf.events", "key")
    channel.basic_consume("qmf.events", lambda *_: None, consumer_tag="tag")
    channel.basic_cancel("tag")
    channel.queue_unbind("qmf.events", "qmf.events", "key")
    channel.queue_delete("qmf.events")
    channel.exchange_delete("qmf.events")
    other.close()
    found = []
    while not found or found[-1][0] != "clientDisconnect":
        message = events.receive(timeout=10)
        events.accept()
        assert message.properties["qmf.content"] == "_event"
        event, = message.body
        name = event["_schema_id"]["_class_name"]
        assert message.subject.startswith(f"agent.ind.event.org_apache_qpid_broker.{name}.info.apache_org.qpidd.")
        assert event["_severity"] == 6 and event["_timestamp"] > 1e18
        found.append((name, event["_values"]))
    assert [name for name, _ in found] == [
        "bind", "subscribe", "clientConnect", "queueDeclare", "queueDeclare", "exchangeDeclare", "bind", "subscribe",
        "unsubscribe", "unbind", "queueDelete", "exchangeDelete", "clientDisconnect"]
    assert len({values["rhost"] for name, values in found[2:]}) == 1
    assert {values["user"] for _, values in found} == {"guest"}
    assert found[2][1]["properties"]["product"] == "Pika Python Client Library"
    declared = [values for name, values in found if name == "queueDeclare"]
    assert [each["disp"] for each in declared] == ["created", "existing"]
    assert declared[0]["args"] == {"x-max-length": 5} and declared[0]["qName"] == "qmf.events"
    assert found[6][1].items() >= {"exName": "qmf.events", "qName": "qmf.events", "key": "key"}.items()


def test_a_login_that_fails_is_told(console: Console, peer: Peer) -> None:
    events = console.connection.create_receiver(
        "qmf.default.topic/agent.ind.event.org_apache_qpid_broker.clientConnectFail.warn.#", credit=1)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        pika.BlockingConnection(pika.ConnectionParameters(peer.host, peer.port,
                                                          credentials=pika.PlainCredentials("guest", "wrong")))
    event, = events.receive(timeout=10).body
    assert event["_values"]["reason"] and event["_values"]["rhost"].startswith("127.0.0.1:")


def test_over_0_9_1(peer: Peer) -> None:
    connection = pika.BlockingConnection(pika.ConnectionParameters(peer.host, peer.port))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    body = maps010.write_map({"_what": "OBJECT", "_object_id": {
        "_object_name": f"org.apache.qpid.broker:queue:{queue}"}})
    channel.basic_publish("qmf.default.direct", "broker", body, pika.BasicProperties(
        reply_to=queue, correlation_id="7", app_id="qmf2", content_type="amqp/map",
        headers={"qmf.opcode": "_query_request"}))
    method = properties = answer = None
    end = time.monotonic() + 10
    while method is None and time.monotonic() < end:
        method, properties, answer = channel.basic_get(queue, auto_ack=True)
    assert (properties.content_type, properties.app_id, properties.correlation_id) == ("amqp/list", "qmf2", "7")
    assert properties.headers["qmf.opcode"] == "_query_response"
    assert answer is not None
    found, = maps010.read_list(answer)
    assert (found["_values"]["name"], found["_values"]["exclusive"]) == (queue, True)
    connection.close()


def test_nonsense_over_0_9_1_is_answered(peer: Peer) -> None:
    connection = pika.BlockingConnection(pika.ConnectionParameters(peer.host, peer.port))
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    answers: list[str] = []
    channel.basic_consume(queue, lambda _c, _m, properties, _b: answers.append(properties.headers["qmf.opcode"]),
                          auto_ack=True)
    for headers, body, kind in (({"qmf.opcode": "_query_request"}, b"\xff\xff", "amqp/map"), ({}, b"", None),
                                ({"qmf.opcode": 7}, b"{}", "application/json"),
                                ({"qmf.opcode": "_method_request"}, maps010.write_map({
                                    "_object_id": {"_object_name": 7}, "_method_name": None}), "amqp/map")):
        channel.basic_publish("qmf.default.direct", "broker", body, pika.BasicProperties(
            reply_to=queue, app_id="qmf2", content_type=kind, headers=headers))
    channel.basic_publish("qmf.default.direct", "broker", b"nonsense")
    end = time.monotonic() + 10
    while len(answers) < 4 and time.monotonic() < end:
        connection.process_data_events(0.1)
    assert answers == ["_exception"] * 4
    connection.close()


def test_over_0_10_as_qpids_tools_do_it(c010: Client010) -> None:
    c010.call("queue.declare", queue="answers.010", exclusive=True, auto_delete=True)
    c010.call("exchange.bind", queue="answers.010", exchange="qmf.default.topic", binding_key="direct.xyz")
    c010.subscribe("answers.010", accept=NONE)
    properties = {"app_id": b"qmf2", "content_type": "amqp/map", "correlation_id": b"7",
                  "reply_to": {"exchange": "qmf.default.topic", "routing_key": "direct.xyz"},
                  "application_headers": {"method": "request", "qmf.opcode": "_query_request"}}
    c010.transfer("qmf.default.direct", "broker", maps010.write_map({
        "_what": "OBJECT", "_object_id": {"_object_name": "org.apache.qpid.broker:queue:answers.010"}}),
        properties=properties)
    arrived = c010.message()
    assert (arrived.header["content_type"], arrived.header["correlation_id"]) == ("amqp/list", b"7")
    assert arrived.header["app_id"] == b"qmf2"
    headers = arrived.header["application_headers"]
    assert headers["qmf.opcode"] == "_query_response" and headers["qmf.agent"].startswith("apache.org:qpidd:")
    assert arrived.body is not None
    found, = maps010.read_list(arrived.body)
    values = found["_values"]
    assert (values["exclusive"], values["autoDelete"], values["bindingCount"]) == (True, True, 2)
    assert type(values["msgDepth"]) is ULong and type(values["bindingCount"]) is UInt
    assert type(found["_create_ts"]) is ULong and type(found["_schema_id"]["_hash"]) is uuid.UUID
    assert values["vhostRef"] == {"_object_name": "org.apache.qpid.broker:vhost:org.apache.qpid.broker:broker:"
                                                  "amqp-broker,/", "_agent_name": headers["qmf.agent"]}
    properties["application_headers"] = {"method": "request", "qmf.opcode": "_method_request"}
    c010.transfer("qmf.default.direct", "broker", b"nonsense", properties=properties)
    arrived = c010.message()
    assert arrived.header["application_headers"]["qmf.opcode"] == "_exception"
    assert arrived.body is not None and maps010.read_map(arrived.body)["_values"]["error_code"] == 7


def test_old_consoles_learn_the_schema(console: Console) -> None:
    connection = console.connection
    replies = connection.create_receiver("qmf.default.direct/old", credit=100)
    sender = connection.create_sender("qpid.management/broker")

    def ask(data: bytes) -> None:
        sender.send(Message(body=data, inferred=True, reply_to="qmf.default.direct/old"))

    def answer() -> bytes:
        message = replies.receive(timeout=10)
        replies.accept()
        return bytes(message.body)

    ask(b"AM2B\0\0\0\x01")
    data = answer()
    assert data.startswith(b"AM2b\0\0\0\x01") and len(data) == 24
    ask(b"AM2P\0\0\0\x02")
    assert answer() == b"AM2p\0\0\0\x02\x16org.apache.qpid.broker"
    assert answer() == b"AM2p\0\0\0\x02\x13org.apache.qpid.acl"
    assert answer() == b"AM2z\0\0\0\x02\0\0\0\0\x02OK"
    ask(b"AM2Q\0\0\0\x03\x16org.apache.qpid.broker")
    classes = {}
    while (data := answer()).startswith(b"AM2q"):
        name = data[32:]
        classes[name[1:1 + name[0]].decode()] = data[9:]
    assert data.startswith(b"AM2z") and {"queue", "broker", "queueDeclare"} <= classes.keys()
    ask(b"AM2S\0\0\0\x04" + classes["queue"])
    data = answer()
    assert data.startswith(b"AM2s\0\0\0\x04\x01" + classes["queue"]) and b"msgDepth" in data and b"purge" in data
    ask(b"AM2S\0\0\0\x05nonsense")
    assert answer() == b"AM2z\0\0\0\x05\0\0\0\x01\x13Class key not found"
    for nonsense in (b"", b"AM2", b"nonsense, and more of it"):
        ask(nonsense)
    assert console.does("echo", {"sequence": 1, "body": ""}) == {"sequence": 1, "body": ""}
