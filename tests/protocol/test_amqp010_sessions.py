"""Sessions of AMQP 0-10, control by control: names, command ids, completion, and what survives a broken connection."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from protocols.amqp010.frames import COMMAND, FIRST_SEGMENT, HEADER, segment
from tests.wire010 import EXPLICIT, NONE, Client010

Connect = Callable[..., Client010]


def resumable(connect010: Connect, session: bytes, seconds: int = 60) -> Client010:
    client = connect010(session=session)
    client.control("session.request-timeout", timeout=seconds)
    assert client.expect("session.timeout").fields["timeout"] == seconds
    return client


def again(connect010: Connect, session: bytes) -> Client010:
    """The session on another connection; its command-point is not sent yet."""
    client = connect010(attaches=False)
    client.control("session.attach", 0, name=session, force=False)
    client.expect("session.attached")
    return client


# Names.


def test_a_name_that_is_attached_elsewhere_is_busy(connect010: Connect) -> None:
    name = uuid.uuid4().bytes
    connect010(session=name)
    other = connect010(attaches=False)
    other.control("session.attach", 3, name=name, force=False)
    assert other.expect("session.detached").fields == {"name": name, "code": 1}


def test_a_session_is_taken_away_by_force(connect010: Connect) -> None:
    name = uuid.uuid4().bytes
    first = resumable(connect010, name)
    first.nothing()
    other = connect010(attaches=False)
    other.control("session.attach", 0, name=name, force=True)
    other.expect("session.attached")
    assert first.expect("session.detached").fields["name"] == name


def test_a_channel_has_one_session(c010: Client010) -> None:
    c010.control("session.attach", 0, name=b"another", force=False)
    assert c010.expect("session.detached").fields == {"name": b"another", "code": 2}
    c010.nothing()


def test_controls_on_a_channel_without_a_session_are_told_so(c010: Client010) -> None:
    c010.control("session.flush", 5, completed=True)
    assert c010.expect("session.detached").fields["code"] == 3
    c010.nothing()


def test_a_detached_session_without_a_timeout_is_over(connect010: Connect) -> None:
    name = uuid.uuid4().bytes
    client = connect010(session=name)
    client.nothing()
    client.control("session.detach", name=name)
    assert client.expect("session.detached").fields["code"] == 0
    client.attach(name)
    client.completed.clear()
    client.nothing()


def test_the_timeout_has_a_most(connect010: Connect) -> None:
    client = connect010()
    client.control("session.request-timeout", timeout=10**6)
    assert client.expect("session.timeout").fields["timeout"] == 600


# Ids and completion.


def test_commands_need_a_command_point_first(connect010: Connect) -> None:
    client = connect010(attaches=False)
    client.control("session.attach", 0, name=uuid.uuid4().bytes, force=False)
    client.expect("session.attached")
    client.command("execution.sync")
    assert client.error() == 409


@pytest.mark.parametrize(("number", "offset"), [(5, 0), (0, 7)])
def test_a_command_point_beyond_what_is_expected_detaches(connect010: Connect, number: int, offset: int) -> None:
    client = connect010(attaches=False)
    client.control("session.attach", 0, name=uuid.uuid4().bytes, force=False)
    client.expect("session.attached")
    client.control("session.request-timeout", timeout=10)
    client.expect("session.timeout")
    client.control("session.command-point", command_id=number, command_offset=offset)
    assert client.expect("session.detached").fields["code"] == 4


def test_a_session_that_is_not_kept_may_begin_at_any_command(connect010: Connect) -> None:
    client = connect010(attaches=False)
    client.control("session.attach", 0, name=uuid.uuid4().bytes, force=False)
    client.expect("session.attached")
    client.control("session.command-point", command_id=17, command_offset=0)
    client.next_out = 17
    client.command("execution.sync")
    assert client.expect("session.completed").fields["commands"] == [(17, 17)]


def test_a_gap_is_skipped(c010: Client010) -> None:
    c010.control("session.gap", commands=[(0, 4)])
    c010.next_out = 5
    c010.nothing()


def test_sync_of_any_command_is_told_at_once(c010: Client010, name: Callable[..., str]) -> None:
    for _ in range(3):
        c010.wait(c010.command("queue.declare", queue=name(), auto_delete=True))


def test_flush_tells_what_is_expected_confirmed_and_completed(c010: Client010) -> None:
    c010.control("session.flush", expected=True, confirmed=True, completed=True)
    assert c010.expect("session.expected").fields["commands"] == []
    assert c010.expect("session.confirmed").fields["commands"] == []
    c010.expect("session.completed")
    for _ in range(3):
        c010.nothing()
    c010.control("session.flush", expected=True, confirmed=True, completed=True)
    assert c010.expect("session.expected").fields["commands"] == [(3, 3)]
    assert c010.expect("session.confirmed").fields["commands"] == [(0, 2)]
    assert c010.expect("session.completed").fields["commands"] == [(0, 2)]


def test_a_timely_reply_is_known_completed(c010: Client010, name: Callable[..., str]) -> None:
    queue = name()
    c010.call("queue.declare", queue=queue, auto_delete=True)
    c010.publish(queue, b"x")
    c010.subscribe(queue)
    number = c010.message().number
    c010.control("session.completed", commands=[(0, number)], timely_reply=True)
    assert c010.expect("session.known-completed").fields["commands"] == [(0, number)]


@pytest.mark.parametrize("control", ["session.completed", "session.confirmed"])
def test_what_was_not_sent_cannot_be_complete(c010: Client010, control: str) -> None:
    c010.control(control, commands=[(0, 1000)])
    assert c010.expect("session.detached").fields["code"] == 4


def test_known_completed_is_taken_note_of(c010: Client010) -> None:
    c010.nothing()
    c010.control("session.known-completed", commands=[(0, 0)])
    c010.nothing()


# Exceptions.


def test_an_exception_says_which_command_it_is_about_and_ends_the_session(c010: Client010) -> None:
    c010.nothing()
    number = c010.command("queue.delete", queue="there is none of this name")
    arrived = c010.expect("execution.exception").fields
    assert (arrived["error_code"], arrived["command_id"]) == (404, number)
    assert (arrived["class_code"], arrived["command_code"]) == (8, 2)
    assert "there is none of this name" in arrived["description"]
    c010.expect("session.detach")
    c010.command("queue.declare", queue="not after that")  # what is under way is ignored
    c010.control("session.attach", 1, name=b"new", force=False)
    c010.expect("session.attached")
    c010.control("session.command-point", 1, command_id=0, command_offset=0)
    c010.next_out = 0
    number = c010.command("queue.query", channel=1, queue="not after that")
    assert "queue" not in c010.expect("execution.result").fields["value"]


@pytest.mark.parametrize(("method", "values", "code"), [
    ("message.cancel", {"destination": "none"}, 404),
    ("message.flow", {"destination": "none", "unit": 0, "value": 1}, 404),
    ("message.accept", {"transfers": [(0, 5)]}, 531),
    ("message.subscribe", {"queue": "none", "destination": "d"}, 404),
    ("message.resume", {"destination": "d", "resume_id": "r"}, 540),
    ("tx.commit", {}, 409),
    ("tx.rollback", {}, 409),
    ("dtx.start", {"xid": {"format": 0, "global_id": b"g", "branch_id": b"b"}}, 503),
    ("dtx.commit", {"xid": {"format": 0, "global_id": b"g", "branch_id": b"b"}}, 404),
    ("exchange.declare", {"exchange": "", "type": "direct"}, 542),
    ("exchange.declare", {"exchange": "e1", "type": "of no type"}, 404),
    ("exchange.declare", {"exchange": "amq.mine", "type": "direct"}, 530),
    ("exchange.declare", {"exchange": "e1", "type": "direct", "passive": True}, 404),
    ("exchange.delete", {"exchange": "amq.direct"}, 530),
    ("exchange.delete", {"exchange": "none"}, 404),
    ("exchange.bind", {"queue": "none", "exchange": "amq.direct", "binding_key": "k"}, 404),
    ("queue.declare", {"queue": "amq.mine"}, 530),
    ("queue.declare", {"queue": "none", "passive": True}, 404),
    ("queue.declare", {"queue": "q", "alternate_exchange": "none"}, 404),
    ("queue.purge", {"queue": ""}, 531),
])
def test_errors_have_the_codes_of_the_specification(c010: Client010, method: str, values: dict[str, object],
                                                    code: int) -> None:
    c010.command(method, **values)
    assert c010.error() == code


def test_commands_that_are_none_or_malformed_end_the_session_only(connect010: Connect) -> None:
    for content, code in ((b"\x63\x01\x01\x00\x00\x00", 503), (b"\x08\x01\x01\x00\x01\x00\xff", 531),
                          (b"\x04\x02\x01\x00\x01\x00\x00\x03abc", 531)):
        client = connect010()
        client.segment(content, COMMAND, FIRST_SEGMENT | 4)
        assert client.error() == code


# A broken connection.


def test_a_session_goes_on_where_it_was(connect010: Connect, name: Callable[..., str]) -> None:
    session, queue = uuid.uuid4().bytes, name()
    first = resumable(connect010, session)
    first.call("queue.declare", queue=queue)
    number = first.next_out
    first.publish(queue, b"one")
    first.vanish()
    second = again(connect010, session)
    second.expect("session.flush")
    second.control("session.flush", expected=True)
    assert second.expect("session.expected").fields["commands"] == [(number + 1, number + 1)]
    second.control("session.expected", commands=[(0, 0)])
    second.control("session.command-point", command_id=number, command_offset=0)
    second.next_out = number
    second.publish(queue, b"one")  # replayed: it is not published twice
    second.publish(queue, b"two")
    assert second.result("queue.query", queue=queue)["message_count"] == 2


def test_what_the_client_has_not_had_is_sent_again(connect010: Connect, name: Callable[..., str]) -> None:
    session, queue = uuid.uuid4().bytes, name()
    first = resumable(connect010, session)
    first.call("queue.declare", queue=queue)
    for body in (b"a", b"b", b"c"):
        first.publish(queue, body)
    first.subscribe(queue, accept=NONE)
    numbers = [first.message().number for _ in range(3)]
    commands = first.next_out
    first.vanish()
    second = again(connect010, session)
    second.expect("session.flush")
    second.control("session.command-point", command_id=commands, command_offset=0)
    second.next_out = commands
    second.control("session.expected", commands=[(numbers[1], numbers[1])])
    assert second.expect("session.command-point").fields["command_id"] == numbers[1]
    assert [second.message().body for _ in range(2)] == [b"b", b"c"]
    second.publish(queue, b"d")
    assert second.message().body == b"d"


def test_nothing_is_sent_before_the_client_has_said_what_it_expects(connect010: Connect,
                                                                    name: Callable[..., str]) -> None:
    session, queue = uuid.uuid4().bytes, name()
    first = resumable(connect010, session)
    first.call("queue.declare", queue=queue)
    first.subscribe(queue)
    commands = first.next_out
    first.vanish()
    other = connect010()
    other.publish(queue, b"meanwhile")
    second = again(connect010, session)
    second.expect("session.flush")
    second.control("session.command-point", command_id=commands, command_offset=0)
    second.next_out = commands
    second.nothing()
    second.control("session.expected", commands=[(0, 0)])
    second.expect("session.command-point")
    assert second.message().body == b"meanwhile"


def test_unsettled_messages_stay_the_sessions_while_it_is_detached(connect010: Connect,
                                                                   name: Callable[..., str]) -> None:
    session, queue = uuid.uuid4().bytes, name()
    first = resumable(connect010, session)
    first.call("queue.declare", queue=queue)
    first.publish(queue, b"x")
    first.subscribe(queue)
    transfer = first.message().number
    commands = first.next_out
    first.vanish()
    other = connect010()
    other.subscribe(queue)
    other.nothing()
    second = again(connect010, session)
    second.expect("session.flush")
    second.control("session.command-point", command_id=commands, command_offset=0)
    second.next_out = commands
    second.control("session.expected", commands=[(transfer + 1, transfer + 1)])
    second.call("message.accept", transfers=[(transfer, transfer)])
    assert second.result("queue.query", queue=queue)["message_count"] == 0
    second.vanish()
    other.nothing()


def test_a_session_that_nobody_comes_back_to_ends(connect010: Connect, name: Callable[..., str]) -> None:
    session, queue = uuid.uuid4().bytes, name()
    first = resumable(connect010, session, seconds=1)
    first.call("queue.declare", queue=queue)
    first.publish(queue, b"x")
    first.subscribe(queue)
    first.message()
    other = connect010()
    other.subscribe(queue)
    first.vanish()
    arrived = other.message()
    assert arrived.body == b"x"
    assert arrived.header["redelivered"] is True


def test_a_message_that_was_cut_off_is_forgotten(connect010: Connect, name: Callable[..., str]) -> None:
    session, queue = uuid.uuid4().bytes, name()
    first = resumable(connect010, session)
    first.call("queue.declare", queue=queue)
    number = first.next_out
    transfer = segment("message.transfer", False, {"destination": "", "accept_mode": 1, "acquire_mode": 0})
    first.segment(transfer, COMMAND, FIRST_SEGMENT)
    first.segment(b"", HEADER, 0)
    first.vanish()
    second = again(connect010, session)
    second.expect("session.flush")
    second.control("session.command-point", command_id=number, command_offset=0)
    second.next_out = number
    second.control("session.expected", commands=[(0, 0)])
    second.publish(queue, b"whole")
    assert second.result("queue.query", queue=queue)["message_count"] == 1


def test_a_client_that_has_forgotten_its_session_can_begin_anew(connect010: Connect, name: Callable[..., str]) -> None:
    session, queue = uuid.uuid4().bytes, name()
    first = resumable(connect010, session)
    first.call("queue.declare", queue=queue)
    first.publish(queue, b"x")
    first.subscribe(queue)
    first.message()
    first.vanish()
    second = again(connect010, session)
    second.expect("session.flush")
    second.control("session.expected", commands=[])
    assert second.expect("session.detached").fields["code"] == 4
    second.attach(session)
    second.nothing()
    second.subscribe(queue, accept=EXPLICIT)
    assert second.message().body == b"x"
