"""Qpid Proton's Python client against the broker: AMQP 1.0 as an application sees it, alone and beside pika."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from proton import UNDESCRIBED, Array, Data, Described, Disposition, Message, Terminus, Timeout, symbol, ulong
from proton.handlers import MessagingHandler
from proton.reactor import AtMostOnce, Container, Copy, Filter, ReceiverOption, Selector, SenderOption
from proton.utils import BlockingConnection, ConnectionClosed, LinkDetached, SendException

from tests.conformance.conftest import Phoenix, start
from tests.conformance.support import DEADLINE, Names, Target


@pytest.fixture
def connect(target: Target) -> Iterator[Callable[..., BlockingConnection]]:
    opened: list[BlockingConnection] = []

    def open_connection(**options: Any) -> BlockingConnection:
        opened.append(BlockingConnection(target.url, timeout=DEADLINE, **options))
        return opened[-1]

    yield open_connection
    for each in opened:
        each.close()


@pytest.fixture
def client(connect: Callable[..., BlockingConnection]) -> BlockingConnection:
    return connect()


@pytest.fixture
def queue(channel: BlockingChannel, names: Names) -> str:
    name = names.queue()
    channel.queue_declare(name)
    return name


def messages_in(channel: BlockingChannel, queue: str) -> int:
    count: int = channel.queue_declare(queue, passive=True).method.message_count
    return count


def nothing(receiver: Any) -> bool:
    """Nothing comes. (Whatever would come is there already.)"""
    try:
        receiver.receive(timeout=0.3)
    except Timeout:
        return True
    return False


class Discard(SenderOption):
    """A target whose messages may go nowhere."""

    def apply(self, sender: Any) -> None:
        sender.target.capabilities.put_object(symbol("DISCARD_UNROUTABLE"))


def modify(receiver: Any, **fields: Any) -> None:
    """Settle the last delivery as modified."""
    delivery = receiver.fetcher.unsettled.popleft()
    for name, value in fields.items():
        setattr(delivery.local, name, value)
    delivery.update(Disposition.MODIFIED)
    delivery.settle()


def test_all_of_a_message_arrives(client: BlockingConnection, queue: str) -> None:
    sent = Message(
        body={"a": [1, 2.5, None, {"deep": b"x"}]}, durable=True, priority=7, ttl=60, id=uuid.uuid4(), user_id=b"guest",
        address=queue, subject="subject", reply_to="reply", correlation_id=ulong(2**63), content_type="text/x",
        content_encoding="gzip", expiry_time=4102444800, creation_time=1000, group_id="group", group_sequence=3,
        reply_to_group_id="other", properties={"text": "t", "number": 5, "none": None},
        annotations={symbol("x-opt-a"): "b"})
    client.create_sender(queue).send(sent)
    receiver = client.create_receiver(queue)
    got = receiver.receive()
    receiver.accept()
    for field in ("body", "durable", "priority", "id", "user_id", "address", "subject", "reply_to", "correlation_id",
                  "content_type", "content_encoding", "expiry_time", "creation_time", "group_id", "group_sequence",
                  "reply_to_group_id", "properties", "annotations"):
        assert getattr(got, field) == getattr(sent, field), field
    assert got.first_acquirer and got.delivery_count == 0 and 0 < got.ttl <= 60


def test_outcomes(client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    sender = client.create_sender(queue)
    receiver = client.create_receiver(queue, credit=1)
    sender.send(Message(body="m"))
    assert receiver.receive().delivery_count == 0
    receiver.release(delivered=False)
    again = receiver.receive()
    assert (again.delivery_count, again.first_acquirer) == (0, False)
    modify(receiver, failed=True)
    assert receiver.receive().delivery_count == 1
    receiver.reject()
    sender.send(Message(body="next"))
    assert receiver.receive().body == "next"
    receiver.accept()
    client.close()
    assert messages_in(channel, queue) == 0


def test_rejected_goes_to_the_dead_letter_exchange(client: BlockingConnection, channel: BlockingChannel,
                                                   names: Names) -> None:
    queue, dead = names.queue(), names.queue("dead")
    channel.queue_declare(dead)
    channel.queue_declare(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    client.create_sender(queue).send(Message(body="m", properties={"p": 1}))
    receiver = client.create_receiver(queue)
    receiver.receive()
    receiver.reject()
    letter = client.create_receiver(dead).receive()
    assert letter.body == "m" and letter.properties == {"p": 1}
    assert letter.annotations["x-opt-deaths"][0]["queue"] == queue


def test_what_is_not_settled_is_given_to_somebody_else(connect: Callable[..., BlockingConnection], queue: str) -> None:
    first = connect()
    sender = first.create_sender(queue)
    for number in range(5):
        sender.send(Message(body=number))
    receiver = first.create_receiver(queue, credit=5)
    assert [receiver.receive().body for _ in range(3)] == [0, 1, 2]
    first.close()
    other = connect().create_receiver(queue)
    assert [other.receive().body for _ in range(5)] == [0, 1, 2, 3, 4]


def test_presettled_both_ways(client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    sender = client.create_sender(queue, options=AtMostOnce())
    for number in range(100):
        sender.send(Message(body=number))
    receiver = client.create_receiver(queue, options=AtMostOnce(), credit=100)
    assert [receiver.receive().body for _ in range(100)] == list(range(100))
    client.close()
    assert messages_in(channel, queue) == 0


@pytest.mark.parametrize("size", [0, 1, 130_000, 131_072, 3 << 20])
def test_sizes(client: BlockingConnection, queue: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client.create_sender(queue).send(Message(body=body))
    assert client.create_receiver(queue).receive().body == body


def test_small_frames(connect: Callable[..., BlockingConnection], queue: str) -> None:
    small = connect(max_frame_size=512)
    body = bytes(range(256)) * 400
    small.create_sender(queue).send(Message(body=body, properties={"long": "p" * 3000}))
    got = small.create_receiver(queue).receive()
    assert got.body == body and got.properties == {"long": "p" * 3000}


def test_nodes_that_are_not_there(client: BlockingConnection, names: Names) -> None:
    for create in (client.create_sender, client.create_receiver):
        with pytest.raises(LinkDetached) as error:
            create(names.queue())
        assert error.value.condition == "amqp:not-found"
    client.create_receiver(None, dynamic=True)  # and the connection still works


@pytest.mark.parametrize("address", ["/queues/{}", "/queue/{}", "/amq/queue/{}"])
def test_rabbitmq_addresses_of_queues(client: BlockingConnection, queue: str, address: str) -> None:
    client.create_sender(address.format(queue)).send(Message(body="m"))
    assert client.create_receiver(address.format(queue)).receive().body == "m"


@pytest.mark.parametrize(("address", "subject"), [
    ("amq.direct/key", None), ("amq.direct", "key"), ("/exchanges/amq.direct/key", None),
    ("/exchange/amq.direct/key", None), ("/exchange/amq.direct", "key")])
def test_addresses_of_exchanges(client: BlockingConnection, channel: BlockingChannel, queue: str, address: str,
                                subject: str | None) -> None:
    channel.queue_bind(queue, "amq.direct", "key")
    client.create_sender(address).send(Message(body="m", subject=subject))
    assert client.create_receiver(queue).receive().body == "m"


@pytest.mark.parametrize(("address", "key"), [
    ("/exchanges/amq.direct/a%2Fb", "a/b"), ("/exchanges/amq.direct", ""), ("/exchange/amq.direct/a", "a"),
    ("/exchange/amq.direct", "subject"), ("amq.direct/a", "subject")])
def test_which_routing_key_counts(client: BlockingConnection, channel: BlockingChannel, queue: str, address: str,
                                  key: str) -> None:
    channel.queue_bind(queue, "amq.direct", key)
    client.create_sender(address).send(Message(subject="subject", body="m"))
    client.create_sender(None).send(Message(address=address, subject="subject", body="m"))
    assert messages_in(channel, queue) == 2


def test_unroutable(client: BlockingConnection) -> None:
    with pytest.raises(SendException) as error:
        client.create_sender("amq.direct/nobody").send(Message(body="m"))
    assert error.value.state == Disposition.REJECTED
    client.create_sender("amq.direct/nobody", options=Discard()).send(Message(body="m"))


def test_the_anonymous_terminus(client: BlockingConnection, queue: str) -> None:
    sender = client.create_sender(None)
    sender.send(Message(body="m", address=queue))
    assert client.create_receiver(queue).receive().body == "m"
    with pytest.raises(SendException):
        sender.send(Message(body="m", address="no-such-node"))
    sender.send(Message(body="still works", address=queue))


def test_a_dynamic_node_is_gone_with_its_link(client: BlockingConnection, channel: BlockingChannel) -> None:
    receiver = client.create_receiver(None, dynamic=True)
    address = receiver.link.remote_source.address
    client.create_sender(address).send(Message(body="reply"))
    assert receiver.receive().body == "reply"
    receiver.accept()
    receiver.close()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
        channel.queue_declare(address, passive=True)


def test_selectors_on_a_queue(client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    sender = client.create_sender(queue)
    red = client.create_receiver(queue, name="red", options=Selector("colour = 'red'"), credit=10)
    for number, colour in enumerate(["red", "blue", "red", "green", "blue"]):
        sender.send(Message(body=number, properties={"colour": colour}))
    assert [red.receive().body, red.receive().body] == [0, 2] and nothing(red)
    blue = client.create_receiver(queue, name="blue", options=Selector("colour = 'blue'"), credit=10)
    assert [blue.receive().body, blue.receive().body] == [1, 4]
    for receiver in (red, blue):
        receiver.accept()
        receiver.accept()
    rest = client.create_receiver(queue, name="rest")
    assert rest.receive().body == 3
    rest.accept()
    client.close()
    assert messages_in(channel, queue) == 0


def test_a_selector_that_makes_no_sense(client: BlockingConnection, queue: str) -> None:
    with pytest.raises(LinkDetached) as error:
        client.create_receiver(queue, options=Selector("colour = = 'red'"))
    assert error.value.condition == "amqp:invalid-field"


def test_selectors_by_pika_s_arguments(client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    got: list[bytes] = []
    channel.basic_consume(queue, lambda _c, _m, _p, body: got.append(body), auto_ack=True,
                          arguments={"x-filter-jms-selector": "n > 2"})
    for number in range(5):
        channel.basic_publish("", queue, str(number).encode(), pika.BasicProperties(headers={"n": number}))
    while len(got) < 2:
        channel.connection.process_data_events(0.1)
    assert got == [b"3", b"4"] and messages_in(channel, queue) == 3


def test_browsing_takes_nothing(client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    sender = client.create_sender(queue)
    for number in range(3):
        sender.send(Message(body=number))
    for _ in range(2):
        browser = client.create_receiver(queue, options=Copy(), credit=10)
        assert [browser.receive().body for _ in range(3)] == [0, 1, 2] and nothing(browser)
        browser.close()
    assert messages_in(channel, queue) == 3


def test_undeliverable_here(client: BlockingConnection, queue: str) -> None:
    first = client.create_receiver(queue, credit=1)
    client.create_sender(queue).send(Message(body="m"))
    assert first.receive().body == "m"
    modify(first, failed=True, undeliverable=True, annotations={symbol("x-opt-tried"): "first"})
    first.link.flow(1)
    assert nothing(first)
    got = client.create_receiver(queue, name="other").receive()
    assert got.body == "m" and got.delivery_count == 1 and got.annotations["x-opt-tried"] == "first"


def test_a_topic(client: BlockingConnection) -> None:
    everything = client.create_receiver("amq.topic", credit=10)
    some = client.create_receiver("amq.topic/news.*", credit=10)
    picky = client.create_receiver("amq.topic/#", options=Selector("n = 2"), credit=10, name="picky")
    sender = client.create_sender("amq.topic")
    for number, subject in enumerate(["news.a", "weather.b", "news.c"]):
        sender.send(Message(body=number, subject=subject, properties={"n": number}))
    assert [everything.receive().body for _ in range(3)] == [0, 1, 2]
    assert [some.receive().body for _ in range(2)] == [0, 2]
    assert picky.receive().body == 2 and nothing(some) and nothing(picky)


class Legacy(Filter):
    """One of Apache's filters, by its code."""

    def __init__(self, name: str, code: int, value: Any) -> None:
        super().__init__({symbol(name): Described(ulong(code), value)})


def test_legacy_binding_filters(client: BlockingConnection) -> None:
    direct = client.create_receiver("amq.direct", options=Legacy("key", 0x0000468C00000000, "k"), credit=9)
    topic = client.create_receiver("amq.topic", options=Legacy("key", 0x0000468C00000001, "t.*"), credit=9)
    headers = client.create_receiver("amq.match", credit=9, options=Legacy(
        "h", 0x0000468C00000002, {"x-match": "all", "colour": "red"}))
    client.create_sender("amq.direct").send(Message(body="d", subject="k"))
    client.create_sender("amq.topic").send(Message(body="t", subject="t.x"))
    client.create_sender("amq.match").send(Message(body="h", properties={"colour": "red"}))
    assert [each.receive().body for each in (direct, topic, headers)] == ["d", "t", "h"]


def test_no_local(connect: Callable[..., BlockingConnection]) -> None:
    mine, other = connect(), connect()
    receiver = mine.create_receiver("amq.fanout", options=Legacy("no-local", 0x0000468C00000003, []), credit=9)
    watcher = other.create_receiver("amq.fanout", credit=9)
    mine.create_sender("amq.fanout").send(Message(body="mine"))
    other.create_sender("amq.fanout").send(Message(body="theirs"))
    assert receiver.receive().body == "theirs" and watcher.receive().body == "mine" and nothing(receiver)


class Durable(ReceiverOption):
    """A durable subscription's source."""

    def __init__(self, *capabilities: str) -> None:
        self.capabilities = capabilities

    def apply(self, link: Any) -> None:
        link.source.durability = Terminus.DELIVERIES
        link.source.expiry_policy = Terminus.EXPIRE_NEVER
        if self.capabilities:
            link.source.capabilities.put_object(Array(UNDESCRIBED, Data.SYMBOL, *map(symbol, self.capabilities)))


def named(connect: Callable[..., BlockingConnection], name: str) -> BlockingConnection:
    """A connection with a container id that stays the same."""
    container = Container()
    container.container_id = name
    return connect(container=container)


def unsubscribe(client: BlockingConnection, name: str) -> None:
    """As JMS clients do it: attach without a source, and close."""
    client.create_receiver(None, name=name).close()


def test_a_durable_subscription(connect: Callable[..., BlockingConnection]) -> None:
    name = f"sub-{uuid.uuid4().hex}"
    first = named(connect, name)
    receiver = first.create_receiver("amq.topic/sub", name=name, options=Durable(), credit=10)
    sender = connect().create_sender("amq.topic/sub")
    sender.send(Message(body=1, durable=True))
    assert receiver.receive().body == 1
    receiver.accept()
    receiver.link.detach()  # not closed: the subscription stays
    first.close()
    sender.send(Message(body=2, durable=True))
    second = named(connect, name)
    receiver = second.create_receiver("amq.topic/sub", name=name, options=Durable(), credit=10)
    assert receiver.receive().body == 2
    receiver.accept()
    receiver.link.detach()
    second.close()
    unsubscribe(named(connect, name), name)
    with pytest.raises(LinkDetached) as error:
        unsubscribe(named(connect, name), name)
    assert error.value.condition == "amqp:not-found"


def test_a_shared_durable_subscription(connect: Callable[..., BlockingConnection]) -> None:
    name = f"shared-{uuid.uuid4().hex}"
    client = named(connect, name)
    receivers = [client.create_receiver("amq.topic/sh", name=link, options=Durable("topic", "shared"), credit=1)
                 for link in (name, f"{name}|2")]
    sender = client.create_sender("amq.topic/sh")
    sender.send(Message(body=1))
    sender.send(Message(body=2))
    assert sorted(receiver.receive().body for receiver in receivers) == [1, 2]
    for receiver in receivers:
        receiver.accept()
        receiver.link.detach()
    sender.send(Message(body=3))
    again = client.create_receiver("amq.topic/sh", name=f"{name}|3", options=Durable("topic", "shared"))
    assert again.receive().body == 3
    again.accept()
    again.link.detach()
    client.close()
    unsubscribe(named(connect, name), name)


def test_a_subscription_survives_the_broker(phoenix: Phoenix) -> None:
    name = f"sub-{uuid.uuid4().hex}"

    def client() -> BlockingConnection:
        container = Container()
        container.container_id = name
        url = f"amqp://guest:guest@127.0.0.1:{phoenix.proxy.port}"
        return BlockingConnection(url, timeout=DEADLINE, container=container)

    first = client()
    receiver = first.create_receiver("amq.topic/sub", name=name, options=[Durable(), Selector("n > 1")])
    receiver.link.detach()
    sender = first.create_sender("amq.topic/sub", options=Discard())
    for number in range(4):
        sender.send(Message(body=number, durable=True, properties={"n": number}))
    first.close()
    phoenix.restart()
    second = client()
    receiver = second.create_receiver("amq.topic/sub", name=name, options=[Durable(), Selector("n > 1")], credit=5)
    assert [receiver.receive().body for _ in range(2)] == [2, 3] and nothing(receiver)
    second.create_sender("amq.topic/sub").send(Message(body=5, properties={"n": 5}))
    assert receiver.receive().body == 5
    second.close()


def test_link_stealing(connect: Callable[..., BlockingConnection], queue: str) -> None:
    name = f"thief-{uuid.uuid4().hex}"
    first, second = named(connect, name), named(connect, name)
    robbed = first.create_receiver(queue, name=name)
    receiver = second.create_receiver(queue, name=name)
    first.wait(lambda: robbed.link.remote_condition is not None)
    assert robbed.link.remote_condition.name == "amqp:link:stolen"
    second.create_sender(queue).send(Message(body="m"))
    assert receiver.receive().body == "m"


class Transactor(MessagingHandler):
    """Sends, receives and settles in transactions, as its script says."""

    def __init__(self, url: str, queue: str, script: Any) -> None:
        super().__init__(prefetch=0, auto_accept=False)
        self.url, self.queue, self.script = url, queue, script
        self.deliveries: list[Any] = []
        self.bodies: list[Any] = []

    def on_start(self, event: Any) -> None:
        self.container = event.container
        self.connection = event.container.connect(self.url, allowed_mechs="PLAIN", reconnect=False)
        self.sender = event.container.create_sender(self.connection, self.queue)
        self.receiver = event.container.create_receiver(self.connection, self.queue)
        self.container.declare_transaction(self.connection, handler=self)

    def on_transaction_declared(self, event: Any) -> None:
        self.transaction = event.transaction
        self.script(self, "declared")

    def on_transaction_committed(self, event: Any) -> None:
        self.script(self, "committed")

    def on_transaction_aborted(self, event: Any) -> None:
        self.script(self, "aborted")

    def on_message(self, event: Any) -> None:
        self.bodies.append(event.message.body)
        self.deliveries.append(event.delivery)
        self.script(self, "message")


def test_transactions(target: Target, client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    def post_and_abort(self: Transactor, event: str) -> None:
        if event == "declared":
            self.transaction.send(self.sender, Message(body="never"))
            self.transaction.abort()
        else:
            assert event == "aborted"
            self.connection.close()

    Container(Transactor(target.url, queue, post_and_abort)).run()
    assert messages_in(channel, queue) == 0

    def post_and_commit(self: Transactor, event: str) -> None:
        if event == "declared":
            for number in range(3):
                self.transaction.send(self.sender, Message(body=number))
            assert messages_in(channel, queue) == 0
            self.transaction.commit()
        else:
            assert event == "committed"
            self.connection.close()

    Container(Transactor(target.url, queue, post_and_commit)).run()
    assert messages_in(channel, queue) == 3

    def take_and(what: str, after: str) -> Any:
        def script(self: Transactor, event: str) -> None:
            if event == "declared":
                self.receiver.flow(3)
            elif event == "message" and len(self.deliveries) == 3:
                for delivery in self.deliveries:
                    self.transaction.accept(delivery)
                getattr(self.transaction, what)()
            elif event == after:
                self.connection.close()
        return script

    taken = Transactor(target.url, queue, take_and("abort", "aborted"))
    Container(taken).run()
    assert taken.bodies == [0, 1, 2] and messages_in(channel, queue) == 3
    again = Transactor(target.url, queue, take_and("commit", "committed"))
    Container(again).run()
    assert again.bodies == [0, 1, 2] and messages_in(channel, queue) == 0


def test_pika_to_proton(client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    channel.basic_publish("", queue, b'{"json": true}', pika.BasicProperties(
        content_type="application/json", delivery_mode=2, priority=3, correlation_id="c", reply_to="r",
        message_id="m", timestamp=1700000000, type="t", user_id="guest", app_id="app",
        headers={"text": "x", "number": 5, "nested": {"a": [1]}}))
    got = client.create_receiver(queue).receive()
    assert got.body == b'{"json": true}' and got.content_type == "application/json" and got.durable
    assert (got.priority, got.correlation_id, got.reply_to, got.id, got.subject) == (3, "c", "r", "m", "t")
    assert got.creation_time == 1700000000 and got.user_id == b"guest"
    assert got.properties == {"text": "x", "number": 5, "x-amqp-0-10.app-id": "app"}
    assert got.annotations["nested"] == {"a": [1]} and got.annotations["x-routing-key"] == queue


def test_proton_to_pika(client: BlockingConnection, channel: BlockingChannel, queue: str) -> None:
    client.create_sender(queue).send(Message(
        body="text", durable=True, id="m", correlation_id=uuid.UUID(int=5), subject="s", properties={"n": 5, "t": "x"}))
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    assert body == b"text" and properties.content_type == "text/plain" and properties.delivery_mode == 2
    assert properties.message_id == "m" and properties.type == "s"
    assert properties.correlation_id == f"urn:uuid:{uuid.UUID(int=5)}"
    assert properties.headers["n"] == 5 and properties.headers["t"] == "x"
    assert method.routing_key == queue


def test_an_idle_time_out_that_is_too_short_is_refused(connect: Callable[..., BlockingConnection]) -> None:
    """Who accepts one has to keep it (part 2, 2.4.5). Proton says half of its own."""
    with pytest.raises(ConnectionClosed, match=r"idle-time-out is 400 ms"):
        connect(heartbeat=0.8)
    connect(heartbeat=2)


POLICIES = """
[[auto_create]]
pattern = "made.*"
arguments = { x-max-length = 1 }
[[auto_create]]
pattern = "news*"
kind = "topic"
[store]
kind = "memory"
"""


def test_nodes_are_made_by_their_patterns(tmp_path: Path) -> None:
    with start(tmp_path, POLICIES) as (target, _):
        client = BlockingConnection(target.url, timeout=DEADLINE)
        sender = client.create_sender("made.queue")
        sender.send(Message(body=1))
        sender.send(Message(body=2))
        assert client.create_receiver("made.queue").receive().body == 2
        news = client.create_receiver("news/uk.*", credit=1)
        client.create_sender("news").send(Message(body="rain", subject="uk.weather"))
        assert news.receive().body == "rain"
        with pytest.raises(LinkDetached):
            client.create_sender("other")
        client.close()
