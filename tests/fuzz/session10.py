"""Clients of AMQP 1.0 that misbehave at random, among some of 0-9-1, over a broker in memory; all from one seed."""

from __future__ import annotations

from typing import Any

from broker.broker import Broker
from broker.values import Described, Symbol, ULong
from protocols.amqp10 import frames as f
from protocols.amqp10.connection import Connection
from protocols.amqp10.containers import Containers
from protocols.amqp10.opening import SASL_HEADER, Settings
from protocols.values10 import encode
from tests.fuzz import session as other

ADDRESSES = ("q0", "q1", "q2", "amq.topic", "amq.topic/a.*", "amq.direct/q1", "amq.fanout", "amq.match", "nowhere", "",
             "/queues/q1", "/queue/made", "/exchanges/amq.topic/a", "e0", None)
FILTERS: tuple[Any, ...] = (
    None, None, {"s": Described(Symbol("apache.org:selector-filter:string"), "a = 1")},
    {"s": Described(ULong(0x468C00000004), "a = ")}, {"n": Described(Symbol("apache.org:no-local-filter:list"), [])},
    {"t": Described(Symbol("apache.org:legacy-amqp-topic-binding:string"), "#")}, {"x": 5},
    {"h": Described(Symbol("apache.org:legacy-amqp-headers-binding:map"), {"x-match": "some"})})
MESSAGES = (
    b"\x00\x53\x75\xa0\x03abc",
    b"\x00\x53\x70\xc0\x0a\x05\x41\x50\x09\x52\x05\x42\x43\x00\x53\x77\xa1\x02hi",
    b"\x00\x53\x72\xc1\x18\x02\xa3\x13x-opt-delivery-delay\x54\x05"[:28] + b"\x00\x53\x76\x45",
    b"\x00\x53\x73\xc0\x0a\x04\x40\x40\xa1\x02q1\xa1\x01a\x00\x53\x74\xc1\x06\x02\xa1\x01a\x54\x01\x00\x53\x75\xa0\x00",
    b"\x00\x53\x71\xc1\x05\x02\xa3\x01d\x41\x00\x53\x77\x40", b"", b"\x00\x53\x70\x45", b"\x00\x53\x75")
TRANSACTIONS = (b"\0\0\0\0\0\0\0\x01", b"\0\0\0\0\0\0\0\x02", b"?", b"")
STATES: tuple[Any, ...] = (
    None, Described(ULong(0x24), []), Described(ULong(0x25), []), Described(ULong(0x26), []),
    Described(ULong(0x27), [True, True, {"x-opt-a": 1}]), Described(ULong(0x27), [True]),
    Described(ULong(0x23), [0, 0]),
    Described(ULong(0x34), [b"\0\0\0\0\0\0\0\x01", Described(ULong(0x24), [])]), Described(ULong(0x34), [b"?"]),
    Described(ULong(0x34), [b"\0\0\0\0\0\0\0\x02", Described(ULong(0x26), [])]),
    Described(ULong(0x34), [b"\0\0\0\0\0\0\0\x01"]),
    Described(Symbol("amqp:accepted:list"), []), Described(ULong(0x99), []), 5)


class Client10(other.Socket):
    """One connection, as the server holds it."""

    def __init__(self, broker: Broker, containers: Containers, name: str) -> None:
        super().__init__()
        self.name = name
        settings = Settings(4096, 3, 7, 60, 5, 0, "0", "fuzz", "/")
        self.connection = Connection(broker, settings, containers, other.guests("PLAIN", success_extra=True), self,
                                     name, SASL_HEADER)
        self.connection.message_size = 1 << 16

    def answer(self) -> bytes:
        return b""

    def login(self) -> bytes:
        init = f.SASL_INIT.encode(**{"mechanism": "PLAIN", "initial-response": b"\0guest\0guest"})
        opened = f.OPEN.encode(**{"container-id": self.name, "max-frame-size": 512})
        begun = f.BEGIN.encode(**{"next-outgoing-id": 0, "incoming-window": 50, "outgoing-window": 50})
        return (f.frame(f.SASL, 0, init) + b"AMQP\x00\x01\x00\x00" + f.frame(f.AMQP, 0, opened)
                + f.frame(f.AMQP, 0, begun))

    def check_gone(self) -> None:
        assert not self.connection.sessions and not self.connection.transactions.open

    def check_output(self) -> None:
        """All output is whole frames."""
        data = self.output[self.output.find(b"AMQP\x03") + 8:]
        at = 0
        while at < len(data):
            if data[at:at + 4] == b"AMQP":
                at += 8
                continue
            size = int.from_bytes(data[at:at + 4], "big")
            assert 8 <= size <= 4096 and at + size <= len(data), f"a frame of {size} bytes"
            at += size


class Session10(other.Session):
    """A run with clients of both dialects."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.containers = Containers()

    def client(self, number: int) -> Client10:
        return Client10(self.broker, self.containers, f"c{number % 2}")

    def part(self, client: Client10) -> bytes:
        return self.performative()

    def performative(self) -> bytes:
        """A frame that makes sense more often than not."""
        chance = self.random
        channel = 0 if chance.random() < 0.97 else chance.randrange(5)
        kind = chance.choices(("attach", "transfer", "flow", "disposition", "detach", "begin", "end", "close", "empty"),
                              (8, 20, 14, 12, 2, 0.3, 0.2, 0.1, 1))[0]
        if kind == "empty":
            return f.frame(f.AMQP, channel, b"")
        return f.frame(f.AMQP, channel, getattr(self, kind)())

    def attach(self) -> bytes:
        chance = self.random
        receiver = chance.random() < 0.5
        source = f.SOURCE.encode(**{
            "address": chance.choice(ADDRESSES), "durable": chance.choice((0, 0, 2)), "filter": None,
            "dynamic": chance.random() < 0.1, "distribution-mode": chance.choice((None, None, "copy")),
            "default-outcome": f.Encoded(encode(chance.choice(STATES[:6]))),
            "capabilities": chance.choice((None, ["shared"], ["queue"], ["topic", "global"]))})
        given = chance.choice(FILTERS)
        if given is not None:
            source = f.SOURCE.encode(**{"address": chance.choice(ADDRESSES), "filter": given})
        target = f.COORDINATOR.encode() if chance.random() < 0.1 else f.TARGET.encode(
            address=chance.choice(ADDRESSES), dynamic=chance.random() < 0.1)
        return f.ATTACH.encode(**{
            "name": f"link{chance.randrange(4)}", "handle": chance.randrange(9), "role": receiver,
            "snd-settle-mode": chance.randrange(3), "rcv-settle-mode": chance.randrange(2),
            "max-message-size": chance.choice((None, None, 0, 30)),
            "source": f.Encoded(source), "target": f.Encoded(target),
            "initial-delivery-count": None if receiver else 0})

    def transfer(self) -> bytes:
        chance = self.random
        body = chance.choice(MESSAGES)
        if chance.random() < 0.2:
            discharge = [chance.choice(TRANSACTIONS), chance.random() < 0.5]
            body = b"\x00\x53\x77" + encode(chance.choice((
                Described(ULong(0x31), [None]), Described(ULong(0x32), discharge))))
        return f.TRANSFER.encode(**{
            "handle": chance.randrange(8), "delivery-id": chance.randrange(20), "delivery-tag": chance.randbytes(2),
            "settled": chance.choice((None, True, False)), "more": chance.random() < 0.1,
            "state": f.Encoded(encode(chance.choice(STATES))) if chance.random() < 0.2 else None,
            "message-format": chance.choice((None, 0, 7)), "aborted": chance.random() < 0.05}) + body

    def flow(self) -> bytes:
        chance = self.random
        return f.FLOW.encode(**{
            "next-incoming-id": 0, "incoming-window": chance.choice((0, 1, 2000)), "next-outgoing-id": 0,
            "outgoing-window": 9, "handle": chance.choice((None, *range(8))),
            "delivery-count": chance.choice((None, 0, 3)),
            "link-credit": chance.choice((None, 0, 1, 10, 2**32 - 1)), "drain": chance.random() < 0.2,
            "echo": chance.random() < 0.2,
            "properties": {"txn-id": chance.choice(TRANSACTIONS)} if chance.random() < 0.1 else None})

    def disposition(self) -> bytes:
        chance = self.random
        first = chance.randrange(20)
        return f.DISPOSITION.encode(
            role=chance.random() < 0.9, first=first, last=chance.choice((None, first + 3, 2**32 - 1, 0)),
            settled=chance.random() < 0.8, state=f.Encoded(encode(chance.choice(STATES))))

    def detach(self) -> bytes:
        return f.DETACH.encode(handle=self.random.randrange(8), closed=self.random.random() < 0.5)

    def begin(self) -> bytes:
        return f.BEGIN.encode(**{"next-outgoing-id": 0, "incoming-window": 5, "outgoing-window": 5})

    def end(self) -> bytes:
        return f.END.encode()

    def close(self) -> bytes:
        return f.CLOSE.encode()
