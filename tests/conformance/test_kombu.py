"""kombu over py-amqp: producers, consumers, simple queues, mailboxes, pools and retries."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import kombu
import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue, binding
from kombu.common import Broadcast, collect_replies, drain_consumer, eventloop, send_reply, uuid
from kombu.exceptions import MessageStateError, OperationalError
from kombu.mixins import ConsumerProducerMixin
from kombu.pidbox import Mailbox
from kombu.pools import connections, producers, reset

from tests.conformance.conftest import Phoenix
from tests.conformance.support import DEADLINE, LARGE_BODY, Names, Proxy, Target, until


@pytest.fixture
def client(target: Target, names: Names) -> Iterator[Connection]:
    """A connection of kombu, closed before `names` cleans up."""
    with Connection(target.url) as client:
        yield client


def drain(client: Connection, condition: Any, what: str) -> None:
    def ready() -> Any:
        try:
            client.drain_events(timeout=0.05)
        except TimeoutError:
            pass
        return condition()

    until(ready, what)


# Connecting


def test_connecting(target: Target) -> None:
    with Connection(target.url, heartbeat=10, transport_options={"confirm_publish": True}) as client:
        client.ensure_connection(max_retries=1, timeout=DEADLINE)
        assert client.connected and client.supports_heartbeats and client.get_heartbeat_interval() == 10
        assert client.info()["transport"] == "amqp"
        assert all(client.supports_exchange_type(kind) for kind in ("direct", "fanout", "topic", "headers"))
        client.heartbeat_check()
        client.release()
        assert not client.connected
        client.ensure_connection(max_retries=1)  # a released connection connects again


def test_a_refused_login(target: Target) -> None:
    with pytest.raises(kombu.Connection(target.url).connection_errors + kombu.Connection(target.url).channel_errors):
        Connection(target.url.replace("guest:guest", "guest:wrong")).connect()


def test_fail_over(target: Target) -> None:
    with Connection(f"amqp://guest:guest@127.0.0.1:1//;{target.url}", failover_strategy="round-robin") as client:
        client.ensure_connection(max_retries=3, interval_start=0, interval_step=0)
        assert client.connected
    with Connection("amqp://guest:guest@127.0.0.1:1//") as client, pytest.raises(OperationalError):
        client.ensure_connection(max_retries=1, interval_start=0, interval_step=0)


# Declaring


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
def test_entities(client: Connection, names: Names, kind: str) -> None:
    channel = client.channel()
    exchange = Exchange(names.exchange(), kind, durable=True, auto_delete=False, delivery_mode="persistent")
    target = Exchange(names.exchange(), "fanout", durable=False, delivery_mode=1)(channel)
    queue = Queue(names.queue(), exchange, "a.b", durable=True, max_length=5, message_ttl=60.0, expires=600.0,
                  max_length_bytes=100_000, max_priority=3, consumer_arguments={"x-priority": 2},
                  binding_arguments={"a": 1}, queue_arguments={"x-unheard-of": 1})(channel)
    queue.declare()
    queue.declare()
    queue.queue_declare(passive=True)
    target.declare()
    target.bind_to(exchange, "a.b", arguments={"a": 1})
    bound = queue.exchange
    bound.publish(bound.Message("text", headers={"a": 1}), routing_key="a.b")
    message = queue.get(accept=["json", "text/plain"])
    assert message.payload == "text" and message.properties["delivery_mode"] == 2
    message.ack()
    assert queue.get() is None
    assert queue.purge() == 0
    target.unbind_from(exchange, "a.b", arguments={"a": 1})
    queue.unbind_from(exchange, "a.b", arguments={"a": 1})
    queue.delete(if_unused=True, if_empty=True)
    bound.delete(if_unused=True)
    other = Queue(names.queue(), bindings=[binding(Exchange("amq.topic", no_declare=True), "x.#"),
                                           binding(Exchange("amq.direct", no_declare=True), "y")],
                  auto_delete=True)(channel)
    other.declare()
    for name, key in (("amq.topic", "x.1"), ("amq.direct", "y")):
        Producer(channel, Exchange(name, no_declare=True), auto_declare=False).publish(key, routing_key=key)
    assert [other.get(accept=["json", "text/plain"], no_ack=True).payload for _ in range(2)] == ["x.1", "y"]


# Producing and consuming


@pytest.mark.parametrize("serializer", ["json", "pickle", "bytes"])
@pytest.mark.parametrize("compression", [None, "gzip", "bzip2"])
def test_serializers_and_compression(client: Connection, names: Names, serializer: str,
                                     compression: str | None) -> None:
    body: Any = {"list": [1, 2.5, None, "grüße"], "nested": {"a": True}}
    queue = Queue(names.queue())
    received: list[Any] = []
    how: dict[str, Any] = {}
    if serializer == "bytes":
        body = b"bytes" * 100
        how = {"content_type": "application/data", "content_encoding": "binary"}
    with client.Producer(serializer="json" if how else serializer, compression=compression) as producer:
        producer.publish(body, **how, routing_key=queue.name, declare=[queue], headers={"h": [1, {"x": "y"}]},
                         priority=1, expiration=600, correlation_id="c", reply_to="r", retry=True, mandatory=True)
    with client.Consumer(queue, accept=["json", "pickle", "application/data"]) as consumer:
        consumer.register_callback(lambda payload, message: received.append((payload, message)) or message.ack())
        drain(client, lambda: received, "the message")
    payload, message = received[0]
    assert (bytes(payload) if how else payload) == body
    assert message.headers["h"] == [1, {"x": "y"}]
    assert (message.properties["correlation_id"], message.properties["reply_to"]) == ("c", "r")
    assert message.properties["expiration"] == "600000"


def test_outcomes(client: Connection, names: Names) -> None:
    queue = Queue(names.queue())
    seen: list[tuple[str, bool]] = []

    def on_message(message: kombu.Message) -> None:
        redelivered = message.delivery_info["redelivered"]
        seen.append((message.payload, redelivered))
        if message.payload == "requeue" and not redelivered:
            message.requeue()
        elif message.payload == "reject":
            message.reject()
        else:
            message.ack_log_error(None, client.connection_errors)
        with pytest.raises(MessageStateError):
            message.ack()

    with Producer(client) as producer, Consumer(client, [queue], on_message=on_message, accept=["json"],
                                                prefetch_count=2, tag_prefix="outcomes-") as consumer:
        for body in ("ack", "requeue", "reject"):
            producer.publish(body, routing_key=queue.name, serializer="json")
        drain(client, lambda: len(seen) == 4, "the redelivery")
        consumer.flow(True)
        consumer.qos(prefetch_count=10)
        assert consumer.consuming_from(queue)
        consumer.cancel_by_queue(queue.name)
        assert not consumer.consuming_from(queue)
    assert sorted(seen) == [("ack", False), ("reject", False), ("requeue", False), ("requeue", True)]
    assert queue(client.channel()).get() is None


def test_one_consumer_of_many_queues(client: Connection, names: Names) -> None:
    exchange = Exchange(names.exchange(), "topic")
    queues = [Queue(names.queue(), exchange, f"k.{number}.#") for number in range(10)]
    received: list[str] = []
    with client.Consumer(queues, no_ack=True, callbacks=[lambda body, _message: received.append(body)]) as consumer:
        producer = client.Producer(exchange=exchange)
        for number in range(10):
            producer.publish(str(number), routing_key=f"k.{number}.x")
        drain(client, lambda: len(received) == 10, "all messages")
        assert consumer.purge() == 0
        late = Queue(names.queue(), exchange, "late")
        consumer.add_queue(late)
        consumer.consume()
        producer.publish("late", routing_key="late")
        drain(client, lambda: "late" in received, "the late one")
    assert sorted(received) == [*map(str, range(10)), "late"]


def test_returns(client: Connection) -> None:
    returned: list[tuple[Any, ...]] = []
    producer = Producer(client, on_return=lambda *parts: returned.append(parts))
    producer.publish("x", routing_key="no-such-queue", mandatory=True)
    drain(client, lambda: returned, "the return")
    assert returned[0][0].reply_code == 312


def test_large_and_many(client: Connection, names: Names) -> None:
    queue = Queue(names.queue())
    received: list[Any] = []
    producer = Producer(client)
    with Consumer(client, queue, accept=["application/data"], prefetch_count=5,
                  on_message=lambda message: received.append(message.body) or message.ack()):
        for number in range(100):
            producer.publish(b"%d" % number, routing_key=queue.name, content_type="application/data",
                             content_encoding="binary")
        producer.publish(LARGE_BODY, routing_key=queue.name, content_type="application/data",
                             content_encoding="binary")
        drain(client, lambda: len(received) == 101, "all messages")
    assert [bytes(body) for body in received] == [*(b"%d" % number for number in range(100)), LARGE_BODY]


# Simple queues, event loops, replies


def test_simple_queues(client: Connection, names: Names) -> None:
    name, fleeting = names.queue(), names.queue()
    names.exchanges += [name, fleeting]
    with client.SimpleQueue(name) as queue:
        for number in range(3):
            queue.put({"n": number}, headers={"h": number}, compression="gzip")
        until(lambda: queue.qsize() == 3, "all messages")
        for number in range(2):
            message = queue.get(timeout=DEADLINE)
            assert message.payload == {"n": number} and message.headers["h"] == number
            message.ack()
        queue.get(block=True, timeout=DEADLINE).reject()
    with client.SimpleQueue(name) as queue:
        queue.put("x")
        until(lambda: len(queue) == 1, "the message")
        assert queue.clear() == 1
        with pytest.raises(queue.Empty):
            queue.get(block=False)
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.1)
    with client.SimpleBuffer(fleeting) as buffer:
        buffer.put("soon gone")
        assert buffer.get(timeout=DEADLINE).payload == "soon gone"


def test_event_loops_and_replies(target: Target, client: Connection, names: Names) -> None:
    """Request and reply with `send_reply` and `collect_replies`, as the guide shows it."""
    requests = Queue(names.queue("requests"))
    replies_to = Queue(names.queue("replies"), exclusive=True, auto_delete=True)

    def serve() -> None:
        with Connection(target.url) as server, server.channel() as channel:
            def on_request(body: Any, message: kombu.Message) -> None:
                for factor in (1, 2):
                    send_reply(Exchange(""), message, {"answer": body["ask"] * factor}, Producer(channel))
                message.ack()

            with Consumer(channel, requests, callbacks=[on_request], accept=["json"]):
                for _ in eventloop(server, limit=1, timeout=DEADLINE, ignore_timeouts=False):
                    pass

    thread = threading.Thread(target=serve)
    requests(client.channel()).declare()
    channel = client.channel()
    replies_to(channel).declare()
    thread.start()
    Producer(channel).publish({"ask": 21}, routing_key=requests.name, reply_to=replies_to.name,
                              correlation_id=uuid(), serializer="json")
    assert list(collect_replies(client, channel, replies_to, limit=2, timeout=DEADLINE)) == [
        {"answer": 21}, {"answer": 42}]
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_broadcast(target: Target, names: Names) -> None:
    name = names.exchange("broadcast")
    with Connection(target.url) as one, Connection(target.url) as two:
        consumers = [Consumer(each, Broadcast(name, unique=True), accept=["json"]) for each in (one, two)]
        for consumer in consumers:
            consumer.consume()
        with Connection(target.url) as publisher:
            Producer(publisher, exchange=Exchange(name, "fanout")).publish({"to": "all"})
        for consumer in consumers:
            ((body, _),) = drain_consumer(consumer, timeout=DEADLINE)
            assert body == {"to": "all"}


# Mailboxes, mixins, pools


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic"])
def test_mailboxes(target: Target, names: Names, kind: str) -> None:
    """Remote control of nodes, each in a thread with a connection of its own: call, multi_call, cast, abcast."""
    namespace = names.exchange("box")
    names.exchanges += [f"{namespace}.pidbox", f"reply.{namespace}.pidbox"]
    noted: list[tuple[str, int]] = []
    stop = threading.Event()
    ready = threading.Barrier(3)

    def node(hostname: str) -> None:
        with Connection(target.url) as connection:
            box = Mailbox(namespace, type=kind)(connection)
            channel = connection.channel()
            handlers = {"double": lambda state, number: {"ok": number * 2},
                        "note": lambda state, number: noted.append((hostname, number))}
            listening = box.Node(hostname, state={}, channel=channel, handlers=handlers)
            with listening.listen(channel=channel):
                ready.wait(DEADLINE)
                while not stop.is_set():
                    try:
                        connection.drain_events(timeout=0.05)
                    except TimeoutError:
                        pass

    hostnames = ["one"] if kind == "topic" else ["one", "two"]
    if kind == "topic":
        ready = threading.Barrier(2)
    threads = [threading.Thread(target=node, args=(hostname,)) for hostname in hostnames]
    for thread in threads:
        thread.start()
    ready.wait(DEADLINE)
    try:
        with Connection(target.url) as connection:
            box = Mailbox(namespace, type=kind)(connection)
            if kind == "fanout":
                answers = box.multi_call("double", {"number": 4}, timeout=1)
                assert sorted(answers, key=str) == [{"one": {"ok": 8}}, {"two": {"ok": 8}}]
                box.abcast("note", {"number": 1})
                until(lambda: sorted(noted) == [("one", 1), ("two", 1)], "the broadcast")
                noted.clear()
            assert box.call(["one"], "double", {"number": 21}, timeout=1) == [{"one": {"ok": 42}}]
            box.cast(["one"], "note", {"number": 2})
            until(lambda: noted == [("one", 2)], "the cast")
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)


class Doubler(ConsumerProducerMixin):
    """The documented RPC server."""

    def __init__(self, connection: Connection, queue: Queue) -> None:
        self.connection = connection
        self.queue = queue
        self.revivals = 0

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803, the mixin's name
        return [Consumer(queues=[self.queue], on_message=self.on_request, accept=["json"], prefetch_count=1)]

    def on_connection_revived(self) -> None:
        self.revivals += 1

    def on_request(self, message: kombu.Message) -> None:
        self.producer.publish({"result": message.payload * 2}, exchange="", routing_key=message.properties["reply_to"],
                              correlation_id=message.properties["correlation_id"], serializer="json", retry=True)
        message.ack()


@pytest.mark.usefixtures("careless")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_consumer_mixin_survives_the_network(proxy: Proxy, client: Connection, names: Names) -> None:
    queue = Queue(names.queue("rpc"))
    server = Doubler(Connection(proxy.outside.url), queue)
    server.connect_max_retries = None
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        queue(client.channel()).declare()
        results: dict[str, int] = {}
        replies = Queue(names.queue("replies"), exclusive=True)
        with Consumer(client, replies, no_ack=True, accept=["json"], on_message=lambda message: results.update(
                {message.properties["correlation_id"]: message.payload["result"]})):
            for number in (1, 2, 3):
                Producer(client).publish(number, routing_key=queue.name, reply_to=replies.name,
                                         correlation_id=f"c{number}", serializer="json")
                drain(client, lambda number=number: f"c{number}" in results, "the reply")
                proxy.cut()
        assert results == {"c1": 2, "c2": 4, "c3": 6}
        until(lambda: server.revivals >= 2, "the reconnection")
    finally:
        server.should_stop = True
        thread.join(DEADLINE)
        server.connection.release()
        server.producer_connection.release()
    assert not thread.is_alive()


def test_pools(target: Target, names: Names) -> None:
    queue = Queue(names.queue())
    source = Connection(target.url)
    try:
        with connections[source].acquire(block=True) as connection:
            queue(connection.channel()).declare()

        def publish(number: int) -> None:
            with producers[source].acquire(block=True, timeout=DEADLINE) as producer:
                producer.publish(number, routing_key=queue.name, serializer="json")

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        with connections[source].acquire(block=True) as connection:
            found = drain_consumer(connection.Consumer(queue, accept=["json"], no_ack=True), limit=20, timeout=DEADLINE)
            assert sorted(body for body, _ in found) == list(range(20))
    finally:
        reset()
        source.release()


# Retries


@pytest.mark.usefixtures("careless")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_publishing_with_retries(proxy: Proxy, names: Names) -> None:
    """The network breaks between two publications: `retry` connects again and publishes."""
    queue = Queue(names.queue())
    failures: list[BaseException] = []
    policy = {"interval_start": 0, "interval_step": 0.05, "interval_max": 0.2, "max_retries": 50,
              "errback": lambda error, _interval: failures.append(error)}
    with Connection(proxy.outside.url, transport_options={"confirm_publish": True}) as client:
        producer = client.Producer()
        for number in range(4):
            producer.publish(number, routing_key=queue.name, declare=[queue], serializer="json", retry=True,
                             retry_policy=policy)
            proxy.cut()
        assert len(failures) >= 3
        found = drain_consumer(client.clone().Consumer(queue, accept=["json"], no_ack=True), limit=4, timeout=DEADLINE)
        assert {body for body, _ in found} == {0, 1, 2, 3}


@pytest.mark.usefixtures("careless")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_autoretry(proxy: Proxy) -> None:
    client = Connection(proxy.outside.url)
    attempts: list[str] = []

    def declare(channel: Any = None) -> str:
        attempts.append("try")
        if len(attempts) == 1:
            proxy.cut()
        name: str = channel.queue_declare("", exclusive=True).queue
        return name

    name, channel = client.autoretry(declare, interval_start=0, interval_step=0.05, max_retries=20)()
    assert name.startswith("amq.gen-") and len(attempts) == 2
    channel.close()
    client.release()


def test_ensure_gives_up(target: Target) -> None:
    with Connection(target.url) as client:
        def always_fails() -> None:
            raise OSError("on purpose")

        with pytest.raises(OperationalError, match="on purpose"):
            client.ensure(client.Producer(), always_fails, max_retries=2, interval_start=0, interval_step=0)()


@pytest.mark.usefixtures("careless")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_producer_outlives_the_broker(phoenix: Phoenix) -> None:
    names = Names(phoenix.proxy.outside)
    queue = Queue(names.queue(), durable=True)
    with Connection(phoenix.proxy.outside.url, transport_options={"confirm_publish": True}) as client:
        producer = client.Producer(serializer="json")
        policy = {"interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.5, "max_retries": 60}
        producer.publish(1, routing_key=queue.name, declare=[queue], delivery_mode=2, retry=True, retry_policy=policy)
        phoenix.restart()
        producer.publish(2, routing_key=queue.name, declare=[queue], delivery_mode=2, retry=True, retry_policy=policy)
        found = drain_consumer(client.clone().Consumer(queue, accept=["json"], no_ack=True), limit=2, timeout=DEADLINE)
        assert [body for body, _ in found] == [1, 2]
    names.clean()
