"""The client for 0-10 without I/O: what it makes of bytes that come, and of a session that is attached again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interop.amqp010 import commands
from interop.amqp010.connection import OPEN, Closed, Connection, Event, Opened
from interop.amqp010.errors import AuthenticationFailed
from interop.amqp010.message import Message
from interop.amqp010.ranges import WRAP, Ranges, of, unwrap
from interop.amqp010.sasl import Login
from interop.amqp010.session import (
    ATTACHED,
    DETACHED,
    ENDED,
    RESUMING,
    Answered,
    Delivery,
    Flowing,
    Session,
    SessionEnded,
    Settled,
)
from protocols.amqp010.frames import (
    BODY,
    COMMAND,
    CONTROL,
    FIRST_SEGMENT,
    HEADER,
    HEARTBEAT_FRAME,
    LAST_SEGMENT,
    METHODS,
    PROTOCOL_HEADER,
    frames,
    segment,
)
from tests import captures

BOTH = FIRST_SEGMENT | LAST_SEGMENT


def said(method: str, values: dict[str, Any], channel: int = 0) -> bytes:
    """A control or command of the other side."""
    kind = COMMAND if METHODS[method].is_command() else CONTROL
    return b"".join(frames(segment(method, False, values), kind, channel, BOTH, 4096))


def transfer(message: Message, frame_max: int = 4096) -> bytes:
    header, body = message.encode()
    command = segment("message.transfer", False, {"destination": "d", "accept_mode": 0, "acquire_mode": 0})
    return b"".join([*frames(command, COMMAND, 0, FIRST_SEGMENT, frame_max), *frames(header, HEADER, 0, 0, frame_max),
                     *frames(body, BODY, 0, LAST_SEGMENT, frame_max)])


def opened(**options: Any) -> Connection:
    made = Connection(Login("guest", "guest"), **options)
    made.receive(PROTOCOL_HEADER + said("connection.start", {"mechanisms": ["PLAIN"]}), 0.0)
    made.receive(said("connection.tune", {"channel_max": 7, "max_frame_size": 4096, "heartbeat_min": 0,
                                          "heartbeat_max": 60}) + said("connection.open-ok", {}), 0.0)
    made.take_output()
    return made


def attached(connection: Connection, session: Session | None = None) -> Session:
    made = connection.attach("s", 300, session=session)
    connection.receive(said("session.attached", {"name": b"s"}), 0.0)
    return made


def completed(first: int, last: int) -> bytes:
    return said("session.completed", {"commands": [(first, last)]})


def sent(connection: Connection, method: str) -> list[bytes]:
    """The frames of this method in the output."""
    data, found = connection.take_output(), []
    while data:
        size = data[2] << 8 | data[3]
        if data[1] in (CONTROL, COMMAND) and data[12] << 8 | data[13] == METHODS[method].code:
            found.append(data[:size])
        data = data[size:]
    return found


def test_a_session_goes_on_where_it_was() -> None:
    first = opened()
    session = attached(first)
    pending = [session.issue(commands.queue_declare(f"q{number}")) for number in range(4)]
    first.receive(said("session.command-point", {"command_id": 0, "command_offset": 0}) + completed(0, 0)
                  + transfer(Message("one")), 0.0)
    first.lost("cut")
    assert (session.state, [each.done for each in pending]) == (DETACHED, [True, False, False, False])
    pending.append(session.issue(commands.queue_declare("q4")))

    second = opened()
    attached(second, session)
    assert session.state == RESUMING and sent(second, "queue.declare") == []
    second.receive(said("session.flush", {"expected": True}), 0.0)
    expected = sent(second, "session.expected")
    assert expected == [said("session.expected", {"commands": [(1, 1)], "fragments": []})]
    # It got two; and sends a transfer again that we had.
    events = second.receive(said("session.expected", {"commands": [(2, 2)]})
                            + said("session.command-point", {"command_id": 0, "command_offset": 0})
                            + transfer(Message("one")) + transfer(Message("two")) + completed(0, 1), 0.0)
    assert [event.message.content for event in events if isinstance(event, Delivery)] == ["two"]
    assert [event.pending for event in events if isinstance(event, Settled)] == [pending[1]]
    output = second.take_output()
    assert output.startswith(said("session.command-point", {"command_id": 2, "command_offset": 0}))
    assert [output.count(b"q%d" % number) for number in range(5)] == [0, 0, 1, 1, 1]
    assert session.state == ATTACHED
    second.receive(completed(0, 4), 0.0)
    assert all(each.done for each in pending)


@pytest.mark.parametrize("answer", [[], [(0, 0)], [(9, 9)]])
def test_a_session_that_was_forgotten_is_not_begun_anew(answer: list[tuple[int, int]]) -> None:
    first = opened()
    session = attached(first)
    session.issue(commands.execution_sync())
    pending = session.issue(commands.queue_declare("q"))
    first.receive(completed(0, 0), 0.0)
    first.lost("cut")
    second = opened()
    attached(second, session)
    events = second.receive(said("session.expected", {"commands": answer}), 0.0)
    assert session.state == ENDED and any(isinstance(event, SessionEnded) for event in events)
    assert pending.error is not None and sent(second, "queue.declare") == []


def test_commands_that_are_confirmed_are_not_sent_again() -> None:
    first = opened()
    session = attached(first)
    for number in range(3):
        session.issue(commands.queue_declare(f"q{number}"))
    first.receive(said("session.confirmed", {"commands": [(1, 1)]}), 0.0)
    first.lost("cut")
    second = opened()
    attached(second, session)
    second.take_output()
    second.receive(said("session.expected", {"commands": [(0, 0)]}), 0.0)
    output = second.take_output()
    assert [b"q%d" % number in output for number in range(3)] == [True, False, True]
    assert said("session.gap", {"commands": [(1, 1)]}) in output


def test_completions_are_told_until_they_are_known() -> None:
    connection = opened()
    session = attached(connection)
    deliveries = [event for event in connection.receive(transfer(Message(b"x")) * 300, 0.0)
                  if isinstance(event, Delivery)]
    connection.take_output()
    session.complete(deliveries[:100])
    session.complete(deliveries[100:])
    assert sent(connection, "session.completed") == [
        completed(0, 99), said("session.completed", {"commands": [(0, 299)], "timely_reply": True})]
    connection.receive(said("session.known-completed", {"commands": [(0, 298)]}), 0.0)
    connection.receive(said("session.flush", {"completed": True}), 0.0)
    assert sent(connection, "session.completed") == [completed(299, 299)]


def test_what_the_other_side_says_of_messages_of_ours() -> None:
    connection = opened()
    session = attached(connection)
    pending = session.issue(commands.message_transfer(Message(b"x"), "d", commands.EXPLICIT))
    events = connection.receive(said("message.reject", {"transfers": [(0, 4000)], "code": 1, "text": "no"})
                                + said("message.stop", {"destination": "d"}), 0.0)
    assert [(each.transfers, each.code) for each in events if isinstance(each, Answered)] == [([pending.id], 1)]
    assert session.stopped == {"d"}
    events = connection.receive(said("message.flow", {"destination": "d", "unit": 0, "value": 9}), 0.0)
    assert [each.destination for each in events if isinstance(each, Flowing)] == ["d"] and not session.stopped


@pytest.mark.parametrize("size", [0, 1, 4084, 4085, 20_000])
def test_messages_in_frames_of_the_size_agreed(size: int) -> None:
    connection = opened()
    session = attached(connection)
    connection.take_output()
    session.issue(commands.message_transfer(Message(b"x" * size)))
    output, bodies = connection.take_output(), 0
    while output:
        length = output[2] << 8 | output[3]
        assert length <= 4096
        bodies += (length - 12) * (output[1] == BODY)
        output = output[length:]
    assert bodies == size
    data = transfer(Message(b"y" * size), 100)
    events: list[Event] = []
    for at in range(0, len(data), 37):
        events += connection.receive(data[at:at + 37], 0.0)
    assert [each.message.content for each in events if isinstance(each, Delivery)] == [b"y" * size]


def test_scram_as_in_its_specification() -> None:
    """RFC 7677, section 3."""
    login = Login("user", "pencil")
    login._nonce = "rOprNGfwEbeRWgbNEkqO"
    assert login.start(["PLAIN", "SCRAM-SHA-256"]) == ("SCRAM-SHA-256", b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    nonce = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    assert login.step(nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096") == (
        b"c=biws," + nonce + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    assert login.step(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=") == b""


@pytest.mark.parametrize("challenge", [b"", b"r=1,s=2", b"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", b"\xff=,", b"r"])
def test_a_challenge_that_makes_no_sense(challenge: bytes) -> None:
    login = Login("user", "pencil")
    login.start(["SCRAM-SHA-1"])
    with pytest.raises(AuthenticationFailed):
        login.step(challenge)


def test_heartbeats() -> None:
    connection = opened(heartbeat=10)
    again, _ = connection.tick(0.0)
    assert (again, connection.take_output()) == (5.0, HEARTBEAT_FRAME)
    assert connection.tick(1.0)[0] == 5.0 and connection.take_output() == b""
    connection.receive(HEARTBEAT_FRAME, 9.0)
    assert connection.tick(28.9)[1] == []
    _, events = connection.tick(29.0)
    assert [str(each.error) for each in events if isinstance(each, Closed)] == ["there was no heartbeat"]


def test_ids_go_round() -> None:
    assert unwrap(1, WRAP - 1) == WRAP + 1 and unwrap(WRAP - 1, WRAP + 1) == WRAP - 1
    assert of([WRAP - 1, WRAP]).on_wire() == [(WRAP - 1, WRAP - 1), (0, 0)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 8))))
def test_ranges_are_sets(changes: list[tuple[bool, int, int]]) -> None:
    ranges, plain = Ranges(), set[int]()
    for adds, first, more in changes:
        span = set(range(first, first + more + 1))
        if adds:
            ranges.add(first, first + more)
            plain |= span
        else:
            ranges.remove(first, first + more)
            plain -= span
        assert {number for one, other in ranges.pairs for number in range(one, other + 1)} == plain
        assert all(one[1] + 1 < other[0] for one, other in zip(ranges.pairs, ranges.pairs[1:], strict=False))
        assert all((number in ranges) == (number in plain) for number in range(45))


STREAMS = [captures.stream(name, False) for name in captures.names()]


@settings(max_examples=300)
@given(st.sampled_from(STREAMS), st.data())
def test_bytes_of_any_kind_raise_nothing(stream: bytes, data: st.DataObject) -> None:
    broken = bytearray(stream[:60_000])
    for _ in range(data.draw(st.integers(0, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    connection = Connection(Login("guest", "guest", ["PLAIN", "ANONYMOUS"]))
    at = 0
    while at < len(broken):
        step = data.draw(st.sampled_from([100, 500, 5000]))
        for event in connection.receive(bytes(broken[at:at + step]), 0.0):
            if isinstance(event, Closed):
                return
            if isinstance(event, Opened) and connection.state == OPEN:
                for number in range(8):
                    connection.attach(f"s{number}").issue(commands.queue_query("q"))
        at += step
