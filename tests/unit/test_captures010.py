"""The codec of 0-10, and the client, against recorded conversations of Qpid's clients with Broker-J.

Every frame is decoded and encoded again; and the client says what the recorded client said, and is told what that was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from interop.amqp010 import commands
from interop.amqp010.commands import Command, Xid
from interop.amqp010.connection import Closed, Connection, Event, Opened
from interop.amqp010.errors import SessionError
from interop.amqp010.message import Message
from interop.amqp010.sasl import Login
from interop.amqp010.session import Delivery, Pending, Session, SessionEnded
from protocols.amqp010 import codec
from protocols.amqp010.codec import STRUCTS, read_struct, write_struct
from protocols.amqp010.frames import (
    BODY,
    BY_CODE,
    COMMAND,
    CONTROL,
    FIRST_FRAME,
    FIRST_SEGMENT,
    HEADER,
    LAST_FRAME,
    LAST_SEGMENT,
    PROTOCOL_HEADER,
    segment,
)
from tests import captures

CAPTURES = captures.names()


class Said:
    """An assembly of one side: its contents by kind, and how it went by."""

    def __init__(self, line: captures.Line, channel: int) -> None:
        self.connection = line.connection
        self.from_client = line.from_client
        self.channel = channel
        self.contents: dict[int, bytes] = {}
        self.frames = b""
        self.frame_max = 0

    @property
    def name(self) -> str:
        content = self.contents[CONTROL if CONTROL in self.contents else COMMAND]
        return BY_CODE[content[0] << 8 | content[1]].name

    @property
    def sync(self) -> bool:
        return CONTROL not in self.contents and bool(self.contents[COMMAND][3] & 1)

    def values(self) -> dict[str, Any]:
        content = self.contents[CONTROL if CONTROL in self.contents else COMMAND]
        method = BY_CODE[content[0] << 8 | content[1]]
        if method.is_command():
            assert content[2] == 1
        return method.decode(content, 4 if method.is_command() else 2, len(content))


def assemblies(name: str) -> Iterator[Said]:
    """A capture's, in the order in which they were complete."""
    unfinished: dict[tuple[int, bool, int, int], Said] = {}
    for line in captures.read(name):
        data = line.data
        if not data or data == PROTOCOL_HEADER:
            continue
        flags, kind, channel = data[0], data[1], data[6] << 8 | data[7]
        key = (line.connection, line.from_client, channel, data[5] & 15)
        if flags & FIRST_SEGMENT and flags & FIRST_FRAME:
            assert key not in unfinished
            unfinished[key] = Said(line, channel)
        said = unfinished[key]
        said.contents[kind] = said.contents.get(kind, b"") + data[12:]
        said.frames += data
        said.frame_max = max(said.frame_max, len(data))
        if flags & LAST_SEGMENT and flags & LAST_FRAME:
            yield unfinished.pop(key)
    assert not unfinished


def encodable(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """A result is read as a struct of its kind; to be written, it has to be encoded."""
    value = values.get("value")
    if name == "execution.result" and isinstance(value, dict):
        layout = next(each for each in codec.RESULTS.values()
                      if {field.name for field in each.fields} >= set(value))
        found = {**value}
        if "in_doubt" in value:
            found["in_doubt"] = [len(each.data).to_bytes(4, "big") + each.data for each in value["in_doubt"]]
        return {**values, "value": write_struct(layout, found)}
    return values


@pytest.mark.parametrize("name", CAPTURES)
def test_what_is_decoded_is_encoded_as_it_was(name: str) -> None:
    seen = 0
    for said in assemblies(name):
        seen += 1
        kind = CONTROL if CONTROL in said.contents else COMMAND
        values = said.values()
        if said.contents[kind] == b"\x01\x08\x01\x00\0\0\0\0":  # open-ok with an array of neither type nor count
            assert values == {"known_hosts": []}
            continue
        assert segment(said.name, said.sync, encodable(said.name, values)) == said.contents[kind], (said.name, values)
        header = said.contents.get(HEADER, b"")
        at = 0
        while at < len(header):
            layout = STRUCTS[header[at + 4] << 8 | header[at + 5]]
            found, after = read_struct(layout, header, at, len(header))
            if any(isinstance(each, bytes) for each in found.get("application_headers", {}).values()):
                again = write_struct(layout, found)  # such values are vbin16 there, and vbin32 with us
                assert read_struct(layout, again, 0, len(again))[0] == found
            else:
                assert write_struct(layout, found) == header[at:after], found
            at = after
    assert seen > 5


def command_of(said: Said) -> Command[Any]:
    """The command that the client makes for what another one said."""
    values = {name: value for name, value in said.values().items() if value is not None and value is not False}
    if said.name in ("message.transfer", "message.subscribe"):
        values = {"accept_mode": 0, "acquire_mode": 0, **values}
    if said.name == "message.set-flow-mode":
        values.setdefault("flow_mode", 0)
    if said.name == "message.flow":
        values.setdefault("unit", 0)
    if "xid" in values:
        values["xid"] = Xid(**values["xid"])
    if "transfers" in values:
        values["transfers"] = [number for first, last in values["transfers"] for number in range(first, last + 1)]
    if said.name == "message.transfer":
        values["message"] = Message.decode(said.contents.get(HEADER, b""), said.contents.get(BODY, b""))
    make = getattr(commands, said.name.replace(".", "_").replace("-", "_"))
    made: Command[Any] = make(**values)
    return made


class Rerun:
    """A conversation in which our client takes the part of the one that was recorded."""

    def __init__(self, said: list[Said]) -> None:
        start = said[0].values()
        mechanism = "PLAIN" if "PLAIN" in start["mechanisms"] else "ANONYMOUS"
        self.connection = Connection(Login("guest", "guest", [mechanism]), heartbeat=0)
        self.pending: list[Pending[Any]] = []
        self.events: list[Event] = []
        self.sessions: dict[int, Session] = {}
        self.sent = b""
        self.hear(PROTOCOL_HEADER)
        for each in said:
            if each.from_client:
                self.do(each)
            elif each.name != "connection.secure":  # with another mechanism than this
                self.hear(each.frames)

    def hear(self, data: bytes) -> None:
        self.events += self.connection.receive(data, 0.0)
        self.sent += self.connection.take_output()

    def do(self, said: Said) -> None:
        values = said.values()
        if said.name == "session.attach":
            while said.channel not in self.sessions:  # it may not have begun with channel 0
                number = len(self.connection.sessions)
                self.connection.sessions[number] = self.sessions[number] = Session(b"no session", 0)
                if number == said.channel:
                    del self.connection.sessions[number]
            self.sessions[said.channel] = self.connection.attach(values["name"], force=values["force"])
        elif said.name == "session.detach":
            self.sessions[said.channel].detach()
        elif said.name == "connection.close":
            self.connection.close()
        elif CONTROL not in said.contents and said.name != "execution.sync":
            self.command(said)
        self.sent += self.connection.take_output()

    def command(self, said: Said) -> None:
        session = self.sessions[said.channel]
        if session.error is not None:  # it spoke before it knew
            return
        made = command_of(said)
        values = said.values()
        assert {name for name, value in made.values.items() if value} <= set(values)
        chosen = {name: value for name, value in made.values.items() if name in values}
        assert segment(made.name, said.sync, chosen) == said.contents[COMMAND]
        self.pending.append(session.issue(made, said.sync))


@pytest.mark.parametrize("name", CAPTURES)
def test_the_client_takes_the_part_of_the_recorded_one(name: str) -> None:
    spoken = list(assemblies(name))
    for number in sorted({each.connection for each in spoken}):
        said = [each for each in spoken if each.connection == number]
        run = Rerun(said)
        assert [event.server for event in run.events if isinstance(event, Opened)]
        closed = [event for event in run.events if isinstance(event, Closed)]
        assert [event.error for event in closed] in ([], [None]), closed[0].error
        deliveries = [event for event in run.events if isinstance(event, Delivery)]
        sent = [each for each in said if not each.from_client and each.name == "message.transfer"]
        assert len(deliveries) == len(sent)
        for delivery, transfer in zip(deliveries, sent, strict=True):
            assert delivery.destination == transfer.values()["destination"]
            header, body = delivery.message.encode()
            if not isinstance(delivery.message.content, dict | list):  # whose numbers may be of less width there
                assert body == transfer.contents.get(BODY, b"")
            again = Message.decode(header, body)
            assert again == delivery.message
        ended = [event.error for event in run.events if isinstance(event, SessionEnded)]
        failed = [error.error_code for error in ended if isinstance(error, SessionError)]
        exceptions = [each for each in said if not each.from_client and each.name == "execution.exception"]
        assert failed == [each.values()["error_code"] for each in exceptions]
        unsettled = [each.command.name for each in run.pending if not each.done and each.error is None]
        assert unsettled == []
