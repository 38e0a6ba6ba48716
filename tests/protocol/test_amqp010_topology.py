"""Exchanges and queues of AMQP 0-10: declarations, bindings, and all answers to questions about them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.wire010 import Client010

Connect = Callable[..., Client010]
Name = Callable[..., str]


@pytest.fixture
def queue(c010: Client010, name: Name) -> str:
    made = name()
    c010.call("queue.declare", queue=made)
    return made


# Questions.


def test_a_queue_says_what_it_is(c010: Client010, name: Name) -> None:
    queue = name()
    c010.call("queue.declare", queue=queue, durable=True, alternate_exchange="amq.fanout",
              arguments={"qpid.max_count": 5})
    c010.publish(queue, b"x")
    found = c010.result("queue.query", queue=queue)
    assert found == {"queue": queue, "alternate_exchange": "amq.fanout", "durable": True, "exclusive": False,
                     "auto_delete": False, "arguments": {"qpid.max_count": 5}, "message_count": 1,
                     "subscriber_count": 0}


def test_a_queue_that_there_is_not_has_no_name(c010: Client010) -> None:
    assert "queue" not in c010.result("queue.query", queue="none of this name")


def test_an_exchange_says_what_it_is(c010: Client010, name: Name) -> None:
    exchange = name("e")
    c010.call("exchange.declare", exchange=exchange, type="topic", durable=True)
    found = c010.result("exchange.query", name=exchange)
    assert (found["type"], found["durable"], found["not_found"]) == ("topic", True, False)
    assert c010.result("exchange.query", name="none of this name")["not_found"] is True
    assert c010.result("exchange.query", name="")["type"] == "direct"


@pytest.mark.parametrize(("exchange", "with_queue", "key", "arguments", "says"), [
    ("amq.topic", True, "a.*", None, []),
    ("amq.topic", True, None, None, []),
    ("amq.topic", True, "b", None, ["key_not_matched"]),
    ("amq.topic", True, "a.*", {"n": 1}, []),
    ("amq.topic", True, "a.*", {"n": 2}, ["args_not_matched"]),
    ("amq.direct", True, None, None, ["queue_not_matched"]),
    ("amq.direct", True, "k", None, ["queue_not_matched", "key_not_matched"]),
    ("none", True, None, None, ["exchange_not_found"]),
    ("amq.topic", False, None, None, ["queue_not_found"]),
    ("none", False, None, None, ["exchange_not_found", "queue_not_found"]),
    ("", True, None, None, []),
])
def test_bound_has_all_answers(c010: Client010, queue: str, exchange: str, with_queue: bool, key: str | None,
                               arguments: dict[str, int] | None, says: list[str]) -> None:
    c010.call("exchange.bind", queue=queue, exchange="amq.topic", binding_key="a.*", arguments={"n": 1})
    found = c010.result("exchange.bound", exchange=exchange, queue=queue if with_queue else "none", binding_key=key,
                        arguments=arguments)
    assert sorted(field for field, value in found.items() if value) == sorted(says)


# Bindings.


def test_a_queue_and_a_key_have_one_binding_with_the_newest_arguments(c010: Client010, queue: str) -> None:
    for colour in ("red", "blue"):
        c010.call("exchange.bind", queue=queue, exchange="amq.match", binding_key="k",
                  arguments={"x-match": "all", "colour": colour})
    for colour in ("red", "blue"):
        c010.wait(c010.transfer("amq.match", "", colour.encode(), sync=True,
                                properties={"application_headers": {"colour": colour}}))
    c010.subscribe(queue)
    assert c010.message().body == b"blue"
    c010.nothing()
    c010.call("exchange.unbind", queue=queue, exchange="amq.match", binding_key="k")
    assert c010.result("exchange.bound", exchange="amq.match", queue=queue)["queue_not_matched"] is True


@pytest.mark.parametrize(("values", "code"), [
    ({"queue": "none", "exchange": "amq.direct"}, 404), ({"exchange": "none"}, 404),
    ({"exchange": "amq.direct", "binding_key": "none"}, 404), ({"exchange": ""}, 542)])
def test_what_is_not_bound_cannot_be_unbound(c010: Client010, queue: str, values: dict[str, str], code: int) -> None:
    c010.command("exchange.unbind", **{"queue": queue, **values})
    assert c010.error() == code


# Declarations.


def test_a_declaration_of_what_is_there_changes_nothing(c010: Client010, queue: str, name: Name) -> None:
    c010.call("queue.declare", queue=queue, durable=True, arguments={"qpid.max_count": 7})
    assert c010.result("queue.query", queue=queue)["durable"] is False
    exchange = name("e")
    for _ in range(2):
        c010.call("exchange.declare", exchange=exchange, type="fanout")
    c010.command("exchange.declare", exchange=exchange, type="direct")
    assert c010.error() == 530


def test_an_exclusive_queue_is_its_sessions_until_that_ends(c010: Client010, connect010: Connect, name: Name) -> None:
    queue, session = name(), b"owner of " + name().encode()
    owner = connect010(session=session)
    owner.call("queue.declare", queue=queue, exclusive=True)
    assert owner.result("queue.query", queue=queue)["exclusive"] is True
    for method, values in (("queue.purge", {}), ("queue.delete", {}), ("queue.declare", {"exclusive": True}),
                           ("message.subscribe", {"destination": "d"}),
                           ("exchange.bind", {"exchange": "amq.direct", "binding_key": "k"})):
        other = connect010()
        other.command(method, queue=queue, **values)
        assert other.error() == 405, method
    owner.control("session.detach", name=session)
    owner.expect("session.detached")
    c010.call("queue.declare", queue=queue, exclusive=True)


def test_an_exclusive_auto_delete_queue_goes_with_its_session(connect010: Connect, c010: Client010, name: Name) -> None:
    queue = name()
    owner = connect010()
    owner.call("queue.declare", queue=queue, exclusive=True, auto_delete=True)
    owner.subscribe(queue)
    owner.call("message.cancel", destination="d")
    assert c010.result("queue.query", queue=queue)["queue"] == queue
    owner.control("connection.close", reply_code=200)
    owner.expect("connection.close-ok")
    assert "queue" not in c010.result("queue.query", queue=queue)


def test_an_auto_delete_queue_goes_with_its_last_subscription(c010: Client010, name: Name) -> None:
    queue = name()
    c010.call("queue.declare", queue=queue, auto_delete=True)
    c010.subscribe(queue)
    c010.call("message.cancel", destination="d")
    assert "queue" not in c010.result("queue.query", queue=queue)


@pytest.mark.parametrize("flag", ["if_unused", "if_empty"])
def test_a_queue_that_is_in_use_or_not_empty_stays(c010: Client010, connect010: Connect, queue: str,
                                                   flag: str) -> None:
    other = connect010()
    if flag == "if_empty":
        other.publish(queue, b"x")
    else:
        other.subscribe(queue)
    c010.command("queue.delete", queue=queue, **{flag: True})
    assert c010.error() == 406
    other.call("queue.delete", queue=queue)


def test_an_exchange_that_is_in_use_stays(c010: Client010, queue: str, name: Name) -> None:
    exchange = name("e")
    c010.call("exchange.declare", exchange=exchange, type="direct")
    c010.call("exchange.bind", queue=queue, exchange=exchange, binding_key="k")
    c010.command("exchange.delete", exchange=exchange, if_unused=True)
    assert c010.error() == 406


@pytest.mark.parametrize("user", ["queue", "exchange"])
def test_an_alternate_exchange_stays_while_it_is_one(c010: Client010, name: Name, user: str) -> None:
    alternate, made = name("e"), name("e" if user == "exchange" else "q")
    c010.call("exchange.declare", exchange=alternate, type="fanout")
    if user == "queue":
        c010.call("queue.declare", queue=made, alternate_exchange=alternate)
    else:
        c010.call("exchange.declare", exchange=made, type="direct", alternate_exchange=alternate)
    c010.command("exchange.delete", exchange=alternate)
    assert c010.error() == 530


def test_purge_empties_a_queue(c010: Client010, queue: str) -> None:
    for _ in range(3):
        c010.publish(queue, b"x")
    c010.call("queue.purge", queue=queue)
    assert c010.result("queue.query", queue=queue)["message_count"] == 0


def test_wrong_options_are_invalid_arguments(c010: Client010, name: Name) -> None:
    c010.command("queue.declare", queue=name(), arguments={"qpid.max_count": "many"})
    assert c010.error() == 542


def test_a_subscription_to_a_standard_exchange_may_be_called_after_it(c010: Client010) -> None:
    """As Qpid's C++ client does."""
    queue = "amq.topic_5a1ec9ab-68bc-4a0f-b1c5-0d4ac1c6f9a7"
    c010.call("queue.declare", queue=queue, exclusive=True, auto_delete=True)
    c010.call("exchange.bind", queue=queue, exchange="amq.topic", binding_key="news.#")
    c010.wait(c010.transfer("amq.topic", "news.now", b"x", sync=True))
    c010.subscribe(queue)
    assert c010.message().body == b"x"
