"""Messages of AMQP 0-10: transfers, credit, and what becomes of what was delivered."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire010 import EXPLICIT, NONE, Arrived, Client010

Connect = Callable[..., Client010]
Name = Callable[..., str]
INFINITE = 0xFFFFFFFF
CREDIT, WINDOW = 0, 1
NOT_ACQUIRED = 1


@pytest.fixture
def queue(c010: Client010, name: Name) -> str:
    made = name()
    c010.call("queue.declare", queue=made)
    return made


def fill(client: Client010, queue: str, *bodies: bytes, **values: Any) -> None:
    for body in bodies:
        client.publish(queue, body, **values)


def bodies(client: Client010, count: int) -> list[bytes | None]:
    return [client.message().body for _ in range(count)]


def depth(client: Client010, queue: str) -> int:
    found: int = client.result("queue.query", queue=queue)["message_count"]
    return found


# What is published is what is delivered.


def test_a_message_arrives_with_all_its_properties(c010: Client010, queue: str) -> None:
    properties = {"message_id": uuid.uuid4(), "correlation_id": b"\x00c", "reply_to": {"exchange": "x", "routing_key":
                  "k"}, "content_type": "text/plain", "content_encoding": "none", "user_id": b"guest", "app_id": b"a",
                  "application_headers": {"n": 1, "t": "text", "l": [1, {"m": True}], "u": uuid.uuid4()}}
    fill(c010, queue, b"body", properties=properties, priority=7, delivery_mode=2, timestamp=1_700_000_000)
    c010.subscribe(queue)
    arrived = c010.message()
    assert arrived.fields == {"destination": "d", "accept_mode": EXPLICIT, "acquire_mode": 0}
    assert arrived.body == b"body"
    for name, value in properties.items():
        assert arrived.header[name] == value
    assert (arrived.header["priority"], arrived.header["delivery_mode"]) == (7, 2)
    assert arrived.header["timestamp"] == 1_700_000_000
    assert (arrived.header["exchange"], arrived.header["routing_key"]) == ("", queue)
    assert arrived.header["redelivered"] is False


@pytest.mark.parametrize("frame_max", [4096, 65535])
@pytest.mark.parametrize("size", [0, 1, 4000, 65523, 65524, 300_000, 3_000_000])
def test_bodies_of_any_size(connect010: Connect, name: Name, size: int, frame_max: int) -> None:
    client, queue = connect010(frame_max=frame_max), name()
    client.call("queue.declare", queue=queue)
    body = bytes(range(256)) * (size // 256 + 1)
    fill(client, queue, body[:size])
    client.subscribe(queue)
    assert client.message().body == body[:size]


def test_no_body_is_not_an_empty_one(c010: Client010, queue: str) -> None:
    c010.wait(c010.transfer("", queue, None, sync=True))
    c010.wait(c010.transfer("", queue, b"", sync=True))
    c010.subscribe(queue)
    assert bodies(c010, 2) == [None, b""]


def test_a_header_larger_than_a_frame(connect010: Connect, name: Name) -> None:
    client, queue = connect010(frame_max=4096), name()
    client.call("queue.declare", queue=queue)
    headers = {f"h{number}": "x" * 1000 for number in range(100)}
    fill(client, queue, b"b", properties={"application_headers": headers})
    client.subscribe(queue)
    arrived = client.message()
    assert (arrived.header["application_headers"], arrived.body) == (headers, b"b")


def test_accept_of_a_transfer_is_told_when_it_was_asked_for(c010: Client010, queue: str) -> None:
    number = c010.transfer("", queue, b"x", accept=EXPLICIT)
    assert c010.expect("message.accept").fields["transfers"] == [(number, number)]
    c010.publish(queue, b"x", accept=None)
    c010.nothing()


def test_what_cannot_be_routed_is_rejected_or_discarded(c010: Client010) -> None:
    number = c010.transfer("amq.direct", "nowhere", b"x", accept=EXPLICIT)
    rejected = c010.expect("message.reject").fields
    assert (rejected["transfers"], rejected["code"]) == ([(number, number)], 1)
    number = c010.transfer("amq.direct", "nowhere", b"x", accept=EXPLICIT, discard_unroutable=True)
    assert c010.expect("message.accept").fields["transfers"] == [(number, number)]
    c010.wait(c010.transfer("amq.direct", "nowhere", b"x", sync=True))


def test_there_must_be_an_exchange(c010: Client010) -> None:
    c010.transfer("there is none", "k", b"x")
    assert c010.error() == 404


def test_the_user_id_must_be_the_users(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"x", properties={"user_id": b"guest"})
    c010.transfer("", queue, b"x", properties={"user_id": b"root"})
    assert c010.error() == 403


def test_a_message_expires(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"short", ttl=1)
    fill(c010, queue, b"long", ttl=100_000)
    time.sleep(0.2)
    c010.subscribe(queue)
    arrived = c010.message()
    assert arrived.body == b"long"
    assert arrived.header["ttl"] == 100_000
    assert arrived.header["expiration"] > 1_700_000_000


def test_priorities_are_those_of_the_queue(c010: Client010, name: Name) -> None:
    queue = name()
    c010.call("queue.declare", queue=queue, arguments={"qpid.priorities": 10})
    for priority in (1, 9, 5):
        fill(c010, queue, b"%d" % priority, priority=priority)
    c010.subscribe(queue)
    assert bodies(c010, 3) == [b"9", b"5", b"1"]


# Credit.


def test_a_subscription_begins_without_credit(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"x")
    c010.subscribe(queue, messages=0, octets=0)
    c010.nothing()
    c010.call("message.flow", destination="d", unit=0, value=1)
    c010.nothing()
    c010.call("message.flow", destination="d", unit=1, value=INFINITE)
    assert c010.message().body == b"x"


def test_credit_mode_is_used_up(c010: Client010, queue: str) -> None:
    fill(c010, queue, *(b"%d" % number for number in range(5)))
    c010.subscribe(queue, messages=0, octets=0)
    c010.command("message.set-flow-mode", destination="d", flow_mode=CREDIT)
    c010.command("message.flow", destination="d", unit=1, value=INFINITE)
    c010.call("message.flow", destination="d", unit=0, value=2)
    arrived = [c010.message() for _ in range(2)]
    c010.control("session.completed", commands=[(arrived[0].number, arrived[1].number)])
    c010.nothing()
    c010.call("message.flow", destination="d", unit=0, value=1)
    assert c010.message().body == b"2"


def test_window_mode_gives_credit_back_on_completion(c010: Client010, queue: str) -> None:
    fill(c010, queue, *(b"%d" % number for number in range(5)))
    c010.subscribe(queue, messages=2)
    first, second = c010.message(), c010.message()
    c010.nothing()
    c010.control("session.completed", commands=[(second.number, second.number)])
    assert c010.message().body == b"2"
    c010.control("session.completed", commands=[(first.number, second.number)])
    assert c010.message().body == b"3"
    c010.nothing()


def test_credit_in_bytes_counts_headers_and_bodies(c010: Client010, queue: str) -> None:
    fill(c010, queue, *[b"x" * 100] * 5)
    c010.subscribe(queue, "sizes", acquire=NOT_ACQUIRED)
    size = 100 + _header_size(c010.message())
    for _ in range(4):
        c010.message()
    c010.call("message.cancel", destination="sizes")
    c010.subscribe(queue, octets=2 * size + size // 2)
    bodies(c010, 2)
    c010.nothing()
    c010.call("message.flow", destination="d", unit=1, value=size - size // 2)
    bodies(c010, 1)
    c010.nothing()


def _header_size(arrived: Arrived) -> int:
    """Of the delivery-properties that a plain message is delivered with."""
    return 4 + 2 + 2 + 1 + len(arrived.header["exchange"]) + 1 + len(arrived.header["routing_key"])


def test_a_message_that_fits_no_credit_is_not_sent_when_it_arrives(c010: Client010, queue: str) -> None:
    c010.subscribe(queue, octets=200)
    c010.publish(queue, b"x" * 1000)
    c010.nothing()
    c010.call("message.flow", destination="d", unit=1, value=1000)
    assert c010.message().body == b"x" * 1000


def test_stop_takes_the_credit_and_completion_does_not_give_it_back(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"a", b"b")
    c010.subscribe(queue, messages=1)
    number = c010.message().number
    c010.call("message.stop", destination="d")
    c010.control("session.completed", commands=[(number, number)])
    c010.nothing()
    c010.command("message.flow", destination="d", unit=1, value=INFINITE)
    c010.call("message.flow", destination="d", unit=0, value=1)
    assert c010.message().body == b"b"


def test_flush_sends_what_there_is_and_then_there_is_no_credit(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"a", b"b")
    c010.subscribe(queue, messages=10)
    bodies(c010, 2)
    number = c010.command("message.flush", destination="d")
    c010.wait(number)
    fill(c010, queue, b"c")
    c010.nothing()


def test_flush_of_an_empty_queue_completes(c010: Client010, queue: str) -> None:
    c010.subscribe(queue, messages=1)
    c010.call("message.flush", destination="d")


# Settling.


def test_what_is_accepted_is_gone(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"a", b"b", b"c")
    c010.subscribe(queue)
    arrived = [c010.message() for _ in range(3)]
    c010.call("message.accept", transfers=[(arrived[0].number, arrived[0].number), (arrived[2].number,
                                                                                 arrived[2].number)])
    c010.call("message.cancel", destination="d")
    c010.call("message.release", transfers=[(arrived[1].number, arrived[1].number)])
    assert depth(c010, queue) == 1


@pytest.mark.parametrize("redelivered", [False, True])
def test_what_is_released_is_delivered_again(c010: Client010, queue: str, redelivered: bool) -> None:
    fill(c010, queue, b"a", b"b")
    c010.subscribe(queue)
    arrived = [c010.message() for _ in range(2)]
    c010.call("message.release", transfers=[(arrived[0].number, arrived[1].number)], set_redelivered=redelivered)
    again = [c010.message() for _ in range(2)]
    assert [each.body for each in again] == [b"a", b"b"]
    assert [each.header["redelivered"] for each in again] == [redelivered] * 2


def test_what_is_rejected_goes_to_the_alternate_exchange(c010: Client010, name: Name) -> None:
    queue, dead = name(), name()
    c010.call("queue.declare", queue=dead)
    c010.call("exchange.bind", queue=dead, exchange="amq.fanout", binding_key="")
    c010.call("queue.declare", queue=queue, alternate_exchange="amq.fanout")
    fill(c010, queue, b"x", properties={"app_id": b"kept"})
    c010.subscribe(queue)
    number = c010.message().number
    c010.call("message.reject", transfers=[(number, number)], code=0, text="no")
    c010.subscribe(dead, "dead")
    arrived = c010.message()
    assert (arrived.body, arrived.header["app_id"]) == (b"x", b"kept")
    c010.call("message.cancel", destination="dead")
    c010.call("exchange.unbind", queue=dead, exchange="amq.fanout", binding_key="")


def test_what_is_shown_can_be_acquired(c010: Client010, connect010: Connect, queue: str) -> None:
    fill(c010, queue, b"a", b"b", b"c")
    c010.subscribe(queue, acquire=NOT_ACQUIRED)
    arrived = [c010.message() for _ in range(3)]
    assert depth(c010, queue) == 3
    other = connect010()
    other.subscribe(queue, messages=1)
    assert other.message().body == b"a"
    acquired = c010.result("message.acquire", transfers=[(arrived[0].number, arrived[1].number)])
    assert acquired["transfers"] == [(arrived[1].number, arrived[1].number)]
    c010.call("message.accept", transfers=[(arrived[0].number, arrived[2].number)])
    assert depth(c010, queue) == 1
    other.vanish()


def test_accept_mode_none_settles_with_the_delivery(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"a")
    c010.subscribe(queue, accept=NONE)
    c010.message()
    c010.call("message.cancel", destination="d")
    assert depth(c010, queue) == 0


def test_what_a_lost_client_had_is_delivered_again(connect010: Connect, c010: Client010, queue: str) -> None:
    fill(c010, queue, b"a", b"b")
    other = connect010()
    other.subscribe(queue)
    bodies(other, 2)
    other.vanish()
    c010.subscribe(queue)
    again = [c010.message() for _ in range(2)]
    assert [(each.body, each.header["redelivered"]) for each in again] == [(b"a", True), (b"b", True)]


# Subscriptions.


def test_a_destination_is_one_subscriptions(c010: Client010, queue: str) -> None:
    c010.subscribe(queue)
    c010.command("message.subscribe", queue=queue, destination="d", accept_mode=0, acquire_mode=0)
    assert c010.error() == 530


def test_an_exclusive_subscription_is_alone(c010: Client010, connect010: Connect, queue: str) -> None:
    c010.subscribe(queue, exclusive=True)
    other = connect010()
    other.command("message.subscribe", queue=queue, destination="d", accept_mode=0, acquire_mode=0)
    assert other.error() == 405


def test_a_selector(c010: Client010, queue: str) -> None:
    for colour in ("red", "blue"):
        fill(c010, queue, colour.encode(), properties={"application_headers": {"colour": colour}})
    c010.subscribe(queue, arguments={"x-filter-jms-selector": "colour = 'blue'"})
    assert bodies(c010, 1) == [b"blue"]
    c010.nothing()


def test_the_end_of_a_queue_ends_sessions_that_receive_from_it(c010: Client010, connect010: Connect,
                                                              queue: str) -> None:
    other = connect010()
    subscribed = other.subscribe(queue)
    c010.call("queue.delete", queue=queue)
    arrived = other.expect("execution.exception").fields
    assert (arrived["error_code"], arrived["command_id"]) == (408, subscribed)


def test_a_session_may_delete_a_queue_that_it_receives_from(c010: Client010, queue: str) -> None:
    c010.subscribe(queue)
    c010.call("queue.delete", queue=queue)
    c010.nothing()


@pytest.mark.parametrize(("field", "value"), [("accept_mode", 2), ("acquire_mode", 9)])
def test_modes_that_do_not_exist(c010: Client010, queue: str, field: str, value: int) -> None:
    c010.command("message.subscribe", queue=queue, destination="d", **{field: value})
    assert c010.error() == 531


@pytest.mark.parametrize(("method", "values"), [
    ("message.flow", {"unit": 3, "value": 1}), ("message.set-flow-mode", {"flow_mode": 5})])
def test_units_and_modes_of_credit_that_do_not_exist(c010: Client010, queue: str, method: str,
                                                     values: dict[str, int]) -> None:
    c010.subscribe(queue)
    c010.command(method, destination="d", **values)
    assert c010.error() == 531


# Transactions.


def test_a_commit_does_all_of_it(c010: Client010, connect010: Connect, queue: str, name: Name) -> None:
    to = name()
    c010.call("queue.declare", queue=to)
    fill(c010, queue, b"in")
    c010.subscribe(queue)
    number = c010.message().number
    c010.call("tx.select")
    c010.call("message.accept", transfers=[(number, number)])
    fill(c010, to, b"out")
    other = connect010()
    assert depth(other, to) == 0
    c010.call("tx.commit")
    assert depth(other, to) == 1
    c010.vanish()
    other.nothing()
    assert depth(other, queue) == 0


def test_a_rollback_undoes_it_and_the_client_keeps_what_it_had(c010: Client010, queue: str, name: Name) -> None:
    to = name()
    c010.call("queue.declare", queue=to)
    fill(c010, queue, b"in")
    c010.subscribe(queue)
    number = c010.message().number
    c010.call("tx.select")
    c010.call("message.accept", transfers=[(number, number)])
    fill(c010, to, b"out")
    c010.call("tx.rollback")
    assert depth(c010, to) == 0
    c010.call("message.release", transfers=[(number, number)], set_redelivered=True)
    assert c010.message().header["redelivered"] is True


def test_a_session_selects_once(c010: Client010) -> None:
    c010.call("tx.select")
    c010.command("tx.select")
    assert c010.error() == 409


def test_a_full_queue_refuses(c010: Client010, name: Name) -> None:
    queue = name()
    c010.call("queue.declare", queue=queue, arguments={"qpid.max_count": 1, "qpid.policy_type": "reject"})
    fill(c010, queue, b"a")
    c010.transfer("", queue, b"b")
    assert c010.error() == 506


@pytest.mark.parametrize("header", [
    b"\x00\x00\x00\xff\x04\x01\x00\x00", b"\x00\x00\x00\x01\x04\x01", b"\x00\x00\x00\x04\x04\x01\xff\xff", b"\x00",
    b"\x00\x00\x00\x04\x04\x01\x00\x00\x00\x00\x00\x10\x04\x03\x40\x00\x00"])
def test_broken_headers_end_the_session(c010: Client010, header: bytes) -> None:
    from protocols.amqp010.frames import COMMAND, FIRST_SEGMENT, HEADER, LAST_SEGMENT, segment
    c010.segment(segment("message.transfer", False, {"destination": ""}), COMMAND, FIRST_SEGMENT)
    c010.segment(header, HEADER, LAST_SEGMENT)
    assert c010.error() == 531


def test_a_message_is_the_same_however_often_it_is_delivered(c010: Client010, queue: str) -> None:
    fill(c010, queue, b"x", properties={"application_headers": {"n": 1}})
    c010.subscribe(queue)
    first = c010.message()
    for _ in range(3):
        c010.call("message.release", transfers=[(first.number, first.number)], set_redelivered=True)
        again = c010.message()
        assert again.header == {**first.header, "redelivered": True}
        first.number = again.number


def test_what_was_accepted_in_a_transaction_may_be_released(c010: Client010, queue: str) -> None:
    """Python's qpid.messaging rolls back so."""
    fill(c010, queue, b"x")
    c010.subscribe(queue)
    number = c010.message().number
    c010.call("tx.select")
    c010.call("message.accept", transfers=[(number, number)])
    c010.call("message.release", transfers=[(number, number)], set_redelivered=True)
    c010.call("tx.rollback")
    assert c010.message().header["redelivered"] is True
    c010.call("tx.commit")


def test_what_a_session_has_goes_with_its_queue_to_the_alternate_exchange(c010: Client010, connect010: Connect,
                                                                         name: Name) -> None:
    queue, heir = name(), name()
    c010.call("queue.declare", queue=heir)
    c010.call("exchange.bind", queue=heir, exchange="amq.fanout", binding_key="")
    other = connect010()
    other.call("queue.declare", queue=queue, auto_delete=True, alternate_exchange="amq.fanout")
    fill(other, queue, b"a", b"b", b"c")
    other.subscribe(queue, messages=2)
    bodies(other, 2)
    other.vanish()
    c010.subscribe(heir)
    assert bodies(c010, 3) == [b"a", b"b", b"c"]
    c010.call("exchange.unbind", queue=heir, exchange="amq.fanout", binding_key="")


def test_a_queue_that_a_session_deletes_leaves_its_subscription_to_be_cancelled(c010: Client010, queue: str) -> None:
    c010.subscribe(queue)
    c010.call("queue.delete", queue=queue)
    c010.call("message.cancel", destination="d")


def test_who_only_looks_may_look_at_an_exclusive_queue(c010: Client010, connect010: Connect, name: Name) -> None:
    queue = name()
    c010.call("queue.declare", queue=queue, exclusive=True)
    fill(c010, queue, b"x")
    other = connect010()
    other.subscribe(queue, acquire=NOT_ACQUIRED)
    assert other.message().body == b"x"


def test_a_ring_of_priorities_loses_its_lowest(c010: Client010, name: Name) -> None:
    queue = name()
    c010.call("queue.declare", queue=queue, arguments={"qpid.priorities": 10, "qpid.policy_type": "ring",
                                                       "qpid.max_count": 2})
    for priority in (5, 9, 1, 7):
        fill(c010, queue, b"%d" % priority, priority=priority)
    c010.subscribe(queue)
    assert bodies(c010, 2) == [b"9", b"7"]
    c010.nothing()
