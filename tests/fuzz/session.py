"""A broker in memory with several clients that misbehave at random, all from one seed. No sockets, no real time.

`Session(seed).run()` raises AssertionError when the broker does what it never may: raise, answer nonsense, forget a
bystander, or keep something of clients and queues that are gone.
"""

from __future__ import annotations

import random
from typing import Any

from broker.broker import Broker, Watcher
from broker.clock import Alarm, Clock
from broker.delayed import DelayedExchange
from broker.entry import AVAILABLE
from broker.security.authenticator import Authenticator
from broker.security.identity import Peer
from broker.security.sasl import SaslServer
from broker.security.users import FileProvider
from protocols.amqp091.connection import Connection
from protocols.amqp091.frames import BODY, HEADER, V08, V09, V091, Variant, frame
from protocols.amqp091.opening import Settings
from protocols.frontend import FrontEnd, Outlet
from store.memory import MemoryStore
from tests.unit.store_kit import Turns

QUEUES = ("q0", "q1", "q2", "q3", "")
EXCHANGES = ("e0", "e1", "e2", "", "amq.direct", "amq.topic", "amq.fanout", "amq.headers", "nowhere")
KINDS = ("direct", "topic", "fanout", "headers", "x-consistent-hash", "x-random", "x-delayed-message", "nonsense")
KEYS = ("q0", "q1", "q2", "q3", "a.b", "a.*", "#", "*.#.b", "", "1", "amq.rabbitmq.reply-to")
TAGS = ("t0", "t1", "t2", "")
ARGUMENTS: tuple[tuple[str, Any], ...] = (
    ("x-message-ttl", 5), ("x-message-ttl", 0), ("x-message-ttl", -1), ("x-expires", 50), ("x-max-length", 3),
    ("x-max-length-bytes", 100), ("x-overflow", "reject-publish"), ("x-overflow", "drop-head"),
    ("x-overflow", "reject-publish-dlx"), ("x-dead-letter-exchange", ""), ("x-dead-letter-exchange", "e1"),
    ("x-dead-letter-routing-key", "q1"), ("x-max-priority", 3), ("x-delivery-limit", 1), ("x-queue-type", "quorum"),
    ("x-single-active-consumer", True), ("alternate-exchange", "e2"), ("x-delayed-type", "fanout"), ("x-match", "any"),
    ("x-match", "all-with-x"), ("x-priority", 2), ("x-delay", 20), ("CC", ["q2", "q3"]), ("BCC", ["q1"]), ("CC", "q1"),
    ("a", {"b": [1, None, 2.5]}), ("hash-header", "a"), ("x-filter-jms-selector", "a IS NULL"),
    ("x-filter-jms-selector", "a > 1 OR"), ("x-filter-jms-selector", "amqp.priority > 3"))
WEIGHTS = {"basic.consume": 12, "basic.get": 8, "basic.ack": 12, "basic.nack": 8, "basic.reject": 6, "basic.cancel": 2,
           "basic.qos": 3, "queue.bind": 6, "exchange.bind": 3,
           "basic.publish": 0, "queue.delete": 0.5, "exchange.delete": 0.5, "queue.purge": 0.5, "tx.commit": 0.5,
           "tx.rollback": 0.5, "tx.select": 0.5, "exchange.unbind": 0.3, "queue.unbind": 0.3}
"""How often a method is sent, beside 1 for the others."""

PLAIN_LOGIN = b"\x00guest\x00guest"


class _Alarm(Alarm):
    def __init__(self) -> None:
        self.when = 0

    def wake_at(self, when: int) -> None:
        self.when = when


class _Watcher(Watcher):
    def __init__(self) -> None:
        self.changes = 0

    def alarms_changed(self, reasons: list[str]) -> None:
        self.changes += 1


class Socket(Outlet):
    """What a connection writes to, and its client reads from, or does not."""

    connection: FrontEnd

    def __init__(self) -> None:
        self.reads = True
        self.output = b""

    def want_flush(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def admit(self, connection: FrontEnd, host_name: str) -> None:
        pass

    def flush(self) -> None:
        """Take what there is, as a socket with room does."""
        if not self.connection.clogged or self.connection.finished:
            self.output += b"".join(self.connection.take_output())
            self.connection.drained()


def guests(*mechanisms: str, success_extra: bool = False, anonymous_user: str = "") -> SaslServer:
    """The broker's side of a login, for clients of this machine that know the password of guest."""
    logins = Authenticator([FileProvider(lambda work, done: done(work()))], mechanisms, anonymous_user=anonymous_user)
    return SaslServer(logins, Peer(loopback=True), success_extra=success_extra)


class Client(Socket):
    """One connection, as the server holds it, and what it was sent."""

    def __init__(self, broker: Broker, variant: Variant, name: str) -> None:
        self.variant = variant
        super().__init__()
        self.answered = 0  # bytes of the output that were looked at
        self.tags: dict[int, list[int]] = {}  # delivery tags by channel
        self.connection = Connection(broker, Settings(131072, 2047, 60, "0", "fuzz"),
                                     guests("PLAIN", "AMQPLAIN"), self, name, variant)
        self.connection.message_size = 1 << 20

    def login(self) -> bytes:
        """What a client sends to begin with."""
        encode = self.variant.encode
        capabilities = {"capabilities": {"consumer_cancel_notify": True, "connection.blocked": True,
                                         "authentication_failure_close": True}}
        return (encode("connection.start-ok", 0, client_properties=capabilities, mechanism="PLAIN",
                       response=PLAIN_LOGIN, locale="en_US")
                + encode("connection.tune-ok", 0, channel_max=10, frame_max=8192, heartbeat=0)
                + encode("connection.open", 0, virtual_host="/")
                + encode("channel.open", 1) + encode("channel.open", 2))

    def answer(self) -> bytes:
        """What a client says to channel.close: that it is so, and open again. And to connection.close."""
        data = b""
        for kind, channel, payload in self.frames(self.answered):
            if kind == 1 and payload[:4] == b"\x00\x14\x00\x28":
                data += self.variant.encode("channel.close-ok", channel) + self.variant.encode("channel.open", channel)
                self.tags.pop(channel, None)
            elif kind == 1 and payload[:4] == b"\x00\x3c\x00\x3c":
                self.tags.setdefault(channel, []).append(int.from_bytes(payload[5 + payload[4]:13 + payload[4]], "big"))
            elif kind == 1 and payload[:4] == b"\x00\x3c\x00\x47":
                self.tags.setdefault(channel, []).append(int.from_bytes(payload[4:12], "big"))
            elif kind == 1 and payload[:2] == b"\x00\x0a" and \
                    payload[3] == self.variant.by_name["connection.close"].method_id:
                data += self.variant.encode("connection.close-ok", 0)
        self.answered = len(self.output)
        return data

    def check_output(self) -> None:
        check_output(self)

    def check_gone(self) -> None:
        """Its connection is lost: nothing of it may be left."""
        assert not self.connection.channels and not self.connection.exclusive_queues

    def frames(self, at: int = 0) -> list[tuple[int, int, bytes]]:
        """What it was sent: kind, channel, payload. Raises AssertionError for what is no frame."""
        found, data = [], self.output
        while at < len(data):
            size = int.from_bytes(data[at + 3:at + 7], "big")
            assert at + 8 + size <= len(data) and data[at + 7 + size] == 0xCE, "the output is not made of frames"
            assert data[at] in (1, 2, 3, 8), "a frame of an unknown kind"
            found.append((data[at], data[at + 1] << 8 | data[at + 2], data[at + 7:at + 7 + size]))
            at += 8 + size
        return found


class Session:
    """A run: everything follows from the seed. Three clients of a dialect, and one of 0-9-1 that knows its way.

    Of other dialects, there are subclasses with their own `client`, `login`, `prepare` and `part`.
    """

    wrong = 0.1
    """How often what a client sends has something wrong in it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.scheduler = Turns()
        self.clock = Clock()
        self.clock.now = 1_700_000_000_000
        self.alarm = _Alarm()
        self.broker = Broker(MemoryStore(self.scheduler), self.scheduler, self.clock, self.alarm, _Watcher(), 1 << 30,
                             1000, 1 << 20)
        self.host = self.broker.add_host("/")
        self.clients: list[Any] = []  # all that came, the bystander apart
        for _ in self.broker.recover():
            pass
        self.broker.identity = "fuzz"  # it differs from run to run otherwise

    def run(self, steps: int = 80) -> None:
        """Play it."""
        chance = self.random
        bystander = self.bystander()
        legacy = Client(self.broker, V091, "legacy")
        self.receive(legacy, legacy.login() + self.topology(V091))
        self.clients = [legacy]
        clients = [self.arrive(number) for number in range(3)]
        for step in range(steps):
            number = chance.randrange(len(clients))
            if clients[number].connection.finished:
                clients[number] = self.arrive(number)
            client = clients[number]
            self.prepare(client)
            data = b"".join(self.part(client) for _ in range(chance.randint(1, 8)))
            self.receive(client, self.mutated(data) if chance.random() < self.wrong else data)
            client.flush()
            if chance.random() < 0.8:
                self.receive(client, client.answer())
            self.disturb(client)
            if not legacy.connection.finished:
                self.receive(legacy, self.message(V091) if chance.random() < 0.7 else self.method(legacy))
                legacy.flush()
                self.receive(legacy, legacy.answer())
            if step % 20 == 19:
                self.check_bystander(bystander)
        self.check_bystander(bystander)
        self.finish([bystander, *self.clients])

    def arrive(self, number: int) -> Any:
        """A client comes and logs in, as well as it can."""
        client = self.client(number)
        self.clients.append(client)
        data = self.login(client)
        self.receive(client, data if self.random.random() < 0.9 else self.mutated(data))
        client.flush()
        return client

    # What clients send.

    def client(self, number: int) -> Any:
        return Client(self.broker, self.random.choice((V091, V091, V09, V08)), f"client {number}")

    def login(self, client: Any) -> bytes:
        data: bytes = client.login()
        return data

    def prepare(self, client: Any) -> None:
        """Have it go on, where what it did has left it without anything to do."""

    def part(self, client: Any) -> bytes:
        return self.message(client.variant) if self.random.random() < 0.3 else self.method(client)

    def method(self, client: Client) -> bytes:
        """A method with arguments that make sense more often than not."""
        chance = self.random
        variant = client.variant
        names = list(variant.by_name)
        if chance.random() < 0.98:
            names = [name for name in names if name.split(".")[0] in ("exchange", "queue", "basic", "tx", "confirm")
                     and not name.endswith(("-ok", "return", "deliver"))]
        method = variant.by_name[chance.choices(names, [WEIGHTS.get(name, 1) for name in names])[0]]
        values = {name: self.value(name, kind) for name, kind in method.fields}
        channel = chance.choice((1, 2)) if chance.random() < 0.98 else chance.choice((0, 3, 65535))
        tags = client.tags.get(channel)
        if "delivery-tag" in values and chance.random() < 0.95:
            if not tags:
                return b""
            values["delivery-tag"] = tags.pop(chance.randrange(len(tags)))
        return method.encode(channel, values)

    def topology(self, variant: Variant) -> bytes:
        """Exchanges, queues and bindings to begin with."""
        chance = self.random
        encode = variant.encode
        made = [encode("exchange.declare", 1, exchange=name, type=chance.choice(KINDS[:6]), nowait=True)
                for name in EXCHANGES[:3]]
        made += [encode("queue.declare", 1, queue=name, durable=chance.random() < 0.5, nowait=True)
                 for name in QUEUES[:4]]
        made += [encode("queue.bind", 1, queue=chance.choice(QUEUES[:4]), exchange=chance.choice(EXCHANGES[:3]),
                        routing_key="1", nowait=True) for _ in range(4)]
        return b"".join(made)

    def value(self, name: str, kind: str) -> Any:
        chance = self.random
        if kind == "bit":
            return chance.random() < (0.1 if name in ("passive", "exclusive", "immediate") else 0.4)
        if kind in ("table", "table?"):
            return dict(chance.choice(ARGUMENTS) for _ in range(chance.choice((0, 0, 0, 0, 1, 2, 4))))
        if kind == "short":
            if name == "exchange" and chance.random() < 0.7:
                return chance.choice(EXCHANGES[:3])
            pool = {"queue": QUEUES[:4] if chance.random() < 0.9 else QUEUES, "exchange": EXCHANGES,
                    "source": EXCHANGES, "destination": EXCHANGES, "type": KINDS, "consumer-tag": TAGS}.get(name, KEYS)
            return chance.choice(pool)
        if kind == "long":
            return chance.randbytes(chance.randint(0, 20))
        if name == "delivery-tag":
            return chance.choice((0, 1, 5, 2**64 - 1))
        if name == "prefetch-count":
            return chance.choice((0, 1, 2, 65535))
        return chance.choice((0, 0, 0, 1, 255))

    def message(self, variant: Variant) -> bytes:
        """A publish with its content, which now and then is not what it says."""
        chance = self.random
        channel = chance.choice((1, 1, 2))
        body = chance.randbytes(chance.choice((0, 1, 10, 100, 9000)))
        size = len(body) if chance.random() < 0.95 else chance.choice((0, len(body) + 1, 2**63, max(0, len(body) - 1)))
        properties = chance.choice((
            b"\x10\x00\x02", b"\x10\x00\x01", b"\x10\x00\x02", b"\x10\x00\x01", b"\x00\x00", b"\x00\x00",
            b"\x00\x00", b"\x18\x00\x01\x02", b"\x01\x00\x0210", b"\x01\x00\x010",
            b"\x01\x00\x02xx", b"\x02\x00\x15amq.rabbitmq.reply-to", b"\x00\x10\x05guest", b"\x00\x10\x05other",
            b"\x20\x00" + variant.by_name["exchange.declare"].encode(0, {
                "arguments": self.value("arguments", "table")})[20:-1]))
        exchange, key = ("", chance.choice(QUEUES[:4])) if chance.random() < 0.6 else \
            (self.value("exchange", "short"), self.value("routing-key", "short"))
        frames = [variant.encode("basic.publish", channel, exchange=exchange, routing_key=key,
                                 mandatory=chance.random() < 0.3),
                  frame(HEADER, channel, b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + properties)]
        most = chance.choice((8184, 8184, 50, 9000))
        frames += [frame(BODY, channel, body[at:at + most]) for at in range(0, len(body), most)]
        return b"".join(frames)

    def mutated(self, data: bytes) -> bytes:
        """With something wrong in it."""
        chance = self.random
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 4, 20)))
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1:]
        if kind == 1:
            return data[:at] + data[end:]
        if kind == 2:
            return data[:end] + data[at:]
        if kind == 3:
            return data[:at] + chance.randbytes(chance.choice((1, 4, 20))) + data[at:]
        return data[:at] + chance.randbytes(end - at) + data[end:]

    # What happens meanwhile.

    def receive(self, client: Client, data: bytes) -> None:
        """In pieces, as sockets have it. A connection whose reading is paused, or that is over, gets none."""
        chance = self.random
        while data and not client.connection.finished and client.reads:
            size = len(data) if chance.random() < 0.5 else chance.choice((1, 3, 10, 100, 1000))
            client.connection.receive(data[:size])
            data = data[size:]
            if chance.random() < 0.3:
                client.flush()

    def disturb(self, client: Client) -> None:
        """Time passes, sockets clog, alarms come and go, clients hang up."""
        chance = self.random
        what = chance.randrange(12)
        if what < 5:
            self.scheduler.settle()
            client.flush()
        elif what == 5:
            self.pass_time(chance.choice((1, 10, 100, 1000)))
        elif what == 6:
            client.connection.clogged = True
        elif what == 7:
            client.connection.clogged = False
            client.connection.drained()
            client.flush()
        elif what == 8 and chance.random() < 0.3:
            self.alarms(True)
        elif what == 9:
            self.alarms(False)
        elif what == 10:
            client.connection.tick(self.clock.now)
        elif what == 11 and chance.random() < 0.1:
            client.connection.lost()
            client.connection.finished = True

    def pass_time(self, milliseconds: int) -> None:
        self.clock.now += milliseconds
        for _ in range(1000):  # what is put off may put off more, never for nothing
            if not self.alarm.when or self.alarm.when > self.clock.now:
                break
            self.alarm.when = 0
            self.broker.timers.run()
        self.scheduler.settle()

    def alarms(self, raised: bool) -> None:
        if raised:
            self.broker.memory.set_alarm("test", "a test")
        else:
            self.broker.memory.clear_alarm("test")
        for client in self.clients:
            if not client.connection.finished:
                client.connection.alarms_changed(list(self.broker.memory.alarms.values()))

    # What must hold.

    def bystander(self) -> Client:
        """A client that does nothing wrong: it has a queue of its own and sends itself messages."""
        client = Client(self.broker, V091, "bystander")
        encode = V091.encode
        client.connection.receive(
            client.login() + encode("queue.declare", 1, queue="bystander", exclusive=True)
            + encode("basic.consume", 1, queue="bystander", consumer_tag="b", no_ack=True))
        client.flush()
        return client

    def check_bystander(self, client: Client) -> None:
        self.alarms(False)
        text = self.random.randbytes(8)
        client.connection.clogged = False
        client.connection.receive(
            V091.encode("basic.publish", 1, routing_key="bystander")
            + frame(HEADER, 1, b"\x00\x3c\x00\x00" + (8).to_bytes(8, "big") + b"\x00\x00") + frame(BODY, 1, text))
        client.flush()
        assert not client.connection.finished and client.output.endswith(frame(BODY, 1, text)), \
            "the bystander's message did not come"

    def finish(self, clients: list[Client]) -> None:
        """Everybody goes, everything is deleted; nothing may stay."""
        self.alarms(False)
        for client in clients:
            client.connection.clogged = False
            client.flush()
            client.check_output()
            client.connection.lost()
            client.check_gone()
        self.pass_time(5000)
        self.scheduler.settle()
        self.broker.chores.finish()
        for queue in list(self.host.queues.values()):
            assert queue.owner is None, f"{queue!r} outlives its owner"
            assert not queue.consumers.all and not queue.consumers.available
            assert queue.unsettled == 0 and not queue.returning
            assert queue.ready == sum(map(len, queue.lanes))
            assert queue.ordered is not None or queue.ready_bytes == sum(entry.size for lane in queue.lanes
                                            for entry in [*lane.head, *(back[1] for back in lane.returned)]
                                            if entry.state == AVAILABLE)
            if queue.settings.retains:
                assert not queue.ready  # it stays
            else:
                self.host.delete_queue(queue)
        for exchange in list(self.host.exchanges.values()):
            if isinstance(exchange, DelayedExchange) or not exchange.name.startswith("amq.") and exchange.name:
                if not exchange.deleted:
                    self.host.delete_exchange(exchange.name, False)
        self.scheduler.settle()
        self.broker.chores.finish()
        assert self.broker.memory.used == 0, f"{self.broker.memory.used} bytes of memory are still counted"
        bound = sum(len(exchange.bindings) for exchange in self.host.exchanges.values())
        assert self.host.bindings == bound == sum(map(len, self.host.bound_to.values()))


def check_output(client: Client) -> None:
    """All of it is frames; content is whole; after connection.close there is nothing but the answer to one."""
    variant = client.variant
    closed = False
    missing: dict[int, int] = {}  # bytes of content that are still to come, by channel
    for kind, channel, payload in client.frames():
        if kind == 1:
            number = int.from_bytes(payload[:4], "big")
            method = variant.by_number.get(number)
            assert method is not None, f"method {number:#x} is not one of {variant.name}"
            method.decode(payload, 4, len(payload))
            assert not missing.get(channel), f"{method.name} in the middle of content"
            assert not closed or method.name in ("connection.close-ok", "connection.close"), \
                f"{method.name} after connection.close"
            closed = closed or method.name == "connection.close"
            if method.name in ("basic.deliver", "basic.return", "basic.get-ok"):
                missing[channel] = -1
        elif kind == 2:
            assert missing.pop(channel) == -1
            missing[channel] = int.from_bytes(payload[4:12], "big")
        elif kind == 3:
            missing[channel] -= len(payload)
            assert missing[channel] >= 0
    assert not any(missing.values()), "content is cut short"
