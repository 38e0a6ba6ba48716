"""Clients of AMQP 0-10 that misbehave at random, among some of 0-9-1, over a broker in memory; all from one seed."""

from __future__ import annotations

from typing import Any

from broker.broker import Broker
from protocols.amqp010.codec import DELIVERY_PROPERTIES, MESSAGE_PROPERTIES, write_struct
from protocols.amqp010.connection import Connection
from protocols.amqp010.frames import (
    BODY,
    COMMAND,
    CONTROL,
    FIRST_SEGMENT,
    HEADER,
    LAST_SEGMENT,
    METHODS,
    PROTOCOL_HEADER,
    frames,
    segment,
)
from protocols.amqp010.opening import Settings
from protocols.amqp010.sessions import Sessions
from tests.fuzz import session as other

QUEUES = ("q0", "q1", "q2", "q3", "q4", "q5", "q6")
EXCHANGES = ("", "amq.direct", "amq.topic", "amq.fanout", "amq.match", "e0", "none")
XIDS = tuple({"format": 0, "global_id": bytes([number]), "branch_id": b"b"} for number in range(3))
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {}, {}, {"qpid.max_count": 3, "qpid.policy_type": "ring"}, {"qpid.max_count": 2, "qpid.policy_type": "reject"},
    {"qpid.last_value_queue_key": "k"}, {"qpid.queue_sort_key": "k"}, {"qpid.priorities": 5},
    {"x-match": "any", "k": 1}, {"x-match": "any", "k": 1},
    {"x-filter-jms-selector": "k = 'a'"}, {"x-filter-jms-selector": "k = "}, {"qpid.group_header_key": "k"},
    {"qpid.max_size": "much"}, {"qpid.no.such.option": 1}, {"qpid.flow_stop_count": 2, "qpid.flow_resume_count": 1})
VALUES: dict[str, tuple[Any, ...]] = {
    "queue": QUEUES, "exchange": EXCHANGES, "alternate_exchange": (None, None, None, "amq.fanout", "none"),
    "destination": ("a", "b", "c"), "binding_key": ("a", "a.*", "", None), "name": (b"s0", b"s1"),
    "accept_mode": (*(0,) * 9, *(1,) * 9, 7), "acquire_mode": (0, 0, 1), "flow_mode": (0, 1), "unit": (0, 1),
    "value": (0, 1, 50, 0xFFFFFFFF), "arguments": ARGUMENTS, "xid": XIDS, "timeout": (0, 1, 600, 2**32 - 1),
    "type": ("direct", "topic", "nonsense"), "code": (0, 1), "command_offset": (0, 0, 9), "resume_id": (None, "r"),
    "resume_ttl": (None, 5), "text": (None, "why"), "fragments": (None,), "error_code": (404,),
    "command_id": (0, 1, 5, 2**32 - 1), "reply_code": (200,), "reply_text": ("",)}
"""What fields may be given; others are left out."""

SESSION_CONTROLS = {"request-timeout": 5, "command-point": 1, "expected": 1, "confirmed": 2, "completed": 9,
                    "known-completed": 2, "flush": 3, "gap": 1, "attach": 1, "detach": 0.3, "detached": 0.1,
                    "attached": 0.1, "timeout": 1}
COMMANDS = {"message.subscribe": 2, "message.accept": 12, "message.release": 6, "message.reject": 6,
            "message.acquire": 4, "message.flush": 3, "message.stop": 2, "message.cancel": 0.5, "queue.declare": 4,
            "exchange.bind": 4, "queue.delete": 0.3, "exchange.delete": 0.2, "exchange.declare": 0.5, "tx.select": 0.4,
            "dtx.select": 0.4, "execution.exception": 0.1, "message.resume": 0.05, "queue.purge": 0.3}
"""How often these are sent, beside 1 for the others."""


class Client010(other.Socket):
    """One connection, as the server holds it."""

    def __init__(self, broker: Broker, sessions: Sessions, name: str) -> None:
        super().__init__()
        self.name = name
        settings = Settings(65535, 3, 0, 3, "0", "/")
        self.connection = Connection(broker, settings, sessions, other.guests("PLAIN"), self, name)
        self.connection.message_size = 1 << 16

    def answer(self) -> bytes:
        return b""

    def login(self) -> bytes:
        return b"".join((
            control("connection.start-ok", client_properties={}, mechanism="PLAIN", response=b"\0guest\0guest",
                    locale="en_US"),
            control("connection.tune-ok", channel_max=3, max_frame_size=4096, heartbeat=0),
            control("connection.open", virtual_host=""), self.attach()))

    def attach(self) -> bytes:
        return control("session.attach", name=self.name.encode(), force=True) + control(
            "session.command-point", command_id=0, command_offset=0)

    def check_gone(self) -> None:
        assert not self.connection.sessions

    def check_output(self) -> None:
        """All output is whole frames, no larger than was agreed."""
        assert self.output.startswith(PROTOCOL_HEADER)
        at = len(PROTOCOL_HEADER)
        while at < len(self.output):
            size = self.output[at + 2] << 8 | self.output[at + 3]
            assert 12 <= size <= self.connection.frame_out and at + size <= len(self.output), f"a frame of {size} bytes"
            at += size


def control(name: str, /, channel: int = 0, **values: Any) -> bytes:
    return b"".join(frames(segment(name, False, values), CONTROL, channel, FIRST_SEGMENT | LAST_SEGMENT, 4096))


class Session010(other.Session):
    """A run with clients of both dialects."""

    wrong = 0.05
    transfers = 0  # commands that the client whose turn it is was sent

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.sessions = Sessions()

    def client(self, number: int) -> Client010:
        return Client010(self.broker, self.sessions, f"s{number}")

    def prepare(self, client: Client010) -> None:
        if self.random.random() < 0.02 or all(each.failed for each in client.connection.sessions.values()):
            self.receive(client, client.attach() + self.begin())
        self.transfers = max((each.next_out for each in client.connection.sessions.values()), default=0)

    def part(self, client: Client010) -> bytes:
        return self.assembly()

    def begin(self) -> bytes:
        """What a session needs to work: queues, and subscriptions to some of them."""
        chance = self.random
        data = b"".join(self._command("queue.declare", 0, {"queue": queue, "arguments": chance.choice(
            (*ARGUMENTS[:7], ARGUMENTS[11], ARGUMENTS[14])), "auto_delete": chance.random() < 0.1}) for queue in QUEUES)
        for destination in VALUES["destination"]:
            data += self._command("message.subscribe", 0, {
                "queue": chance.choice(QUEUES), "destination": destination, "accept_mode": chance.choice((0, 0, 0, 1)),
                "acquire_mode": chance.choice((0, 0, 0, 1))})
            for unit, value in ((0, chance.choice((1, 10, 0xFFFFFFFF))), (1, chance.choice((100, 0xFFFFFFFF)))):
                data += self._command("message.flow", 0, {"destination": destination, "unit": unit, "value": value})
        select = chance.choice((None, None, None, "tx.select", "dtx.select"))
        return data if select is None else data + self._command(select, 0, {})

    def assembly(self) -> bytes:
        """A message, a command or a control, which makes sense more often than not."""
        chance = self.random
        channel = 0 if chance.random() < 0.97 else chance.randrange(4)
        kind = chance.choices(("message", "command", "control", "credit"), (20, 14, 4, 4))[0]
        if kind == "message":
            return self.transfer(channel)
        if kind == "credit":
            values = {"destination": chance.choice(VALUES["destination"])}
            return b"".join(self._command("message.flow", channel, {**values, "unit": unit, "value": 0xFFFFFFFF})
                            for unit in (0, 1))
        name = "session." + chance.choices(list(SESSION_CONTROLS), list(SESSION_CONTROLS.values()))[0]
        if kind == "command":
            names = [each for each in METHODS if METHODS[each].is_command() and each != "message.transfer"]
            name = chance.choices(names, [COMMANDS.get(each, 0.3) for each in names])[0]
        values = {field.name: self._value(field.name, field.kind) for field in METHODS[name].fields}
        return self._command(name, channel, values) if kind == "command" else control(name, channel, **values)

    def _value(self, name: str, kind: str) -> Any:
        chance = self.random
        if kind == "bit":
            return chance.random() < 0.2
        if kind == "struct32":
            return None
        if kind == "sequence-set":
            if not self.transfers:
                return []
            first = chance.randrange(self.transfers)
            return chance.choices(([], [(first, first)], [(0, first)], [(first, first + 3)], [(0, 2**32 - 1)],
                                   [(5, 2)]), (3, 10, 10, 0.5, 0.1, 1))[0]
        return chance.choice(VALUES[name]) if name in VALUES else None

    def _command(self, name: str, channel: int, values: dict[str, Any]) -> bytes:
        content = segment(name, self.random.random() < 0.3, values)
        return b"".join(frames(content, COMMAND, channel, FIRST_SEGMENT | LAST_SEGMENT, 4096))

    def transfer(self, channel: int) -> bytes:
        chance = self.random
        most = chance.choice((4096, 64, 65535))
        command = segment("message.transfer", chance.random() < 0.2, {
            "destination": chance.choice(EXCHANGES[:-1]), "accept_mode": chance.choice((None, 0, 1)),
            "acquire_mode": 0})
        header = b""
        if chance.random() < 0.95:
            header += write_struct(DELIVERY_PROPERTIES, {
                "routing_key": chance.choice(QUEUES), "priority": chance.choice((None, 4, 9, 200)),
                "delivery_mode": chance.choice((None, 1, 2, 7)), "ttl": chance.choice((None, None, 0, 5, 2**64 - 1)),
                "timestamp": chance.choice((None, 5)), "expiration": chance.choice((None, None, 1, 2**64 - 1)),
                "discard_unroutable": chance.random() < 0.3, "redelivered": chance.random() < 0.1})
        if chance.random() < 0.7:
            header += write_struct(MESSAGE_PROPERTIES, {
                "application_headers": chance.choice(({"k": "a"}, {"k": 5}, {"k": "b", "l": [1, {}]}, {})),
                "content_type": chance.choice((None, "amqp/map", "text/plain")),
                "user_id": chance.choice((None, None, b"guest", b"root" if chance.random() < 0.05 else None)),
                "reply_to": chance.choice((None, {"exchange": "amq.direct", "routing_key": "q1"}))})
        if chance.random() < 0.005:
            header = chance.randbytes(chance.randrange(20))
        body = chance.randbytes(chance.choice((0, 5, 200, 9000)))
        return b"".join((*frames(command, COMMAND, channel, FIRST_SEGMENT, most),
                         *frames(header, HEADER, channel, 0, most), *frames(body, BODY, channel, LAST_SEGMENT, most)))
