"""Dead letters: why, where to, what their headers tell, and when a circle is broken."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from tests.wire import Channel, Content, eventually

Name = Callable[..., str]


class Letters:
    """A queue with a dead letter queue behind it."""

    def __init__(self, ch: Channel, name: Name, **arguments: Any) -> None:
        self.ch = ch
        self.queue, self.dead = name(), name("dead")
        ch.queue(self.dead)
        ch.queue(self.queue, arguments={
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.dead,
            **{"x-" + key.replace("_", "-"): value for key, value in arguments.items()}})

    def put(self, body: bytes = b"x", **properties: Any) -> bool:
        return self.ch.put("", self.queue, body, **properties)

    def reject(self) -> None:
        got = self.ch.wait_get(self.queue, no_ack=False)
        self.ch.reject(got.tag, requeue=False)

    def letter(self) -> Content:
        return self.ch.wait_get(self.dead)


def deaths(letter: Content) -> list[dict[str, Any]]:
    """The x-death header, without the times, which are looked at here."""
    found = []
    for death in letter.headers["x-death"]:
        assert isinstance(death.pop("time"), datetime.datetime)
        found.append(death)
    return found


# Reasons

def test_rejected(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name)
    letters.put(b"body", message_id="m", headers={"a": 1}, priority=3, delivery_mode=2)
    letters.reject()
    letter = letters.letter()
    assert (letter.method.exchange, letter.method.routing_key) == ("", letters.dead)
    assert not letter.method.redelivered
    assert (letter.body, letter.properties.message_id, letter.properties.priority) == (b"body", "m", 3)
    assert letter.properties.delivery_mode == 2
    assert deaths(letter) == [{"count": 1, "reason": "rejected", "queue": letters.queue, "exchange": "",
                               "routing-keys": [letters.queue]}]
    assert {key: value for key, value in letter.headers.items() if key != "x-death"} == {
        "a": 1, "x-first-death-reason": "rejected", "x-first-death-queue": letters.queue, "x-first-death-exchange": ""}


@pytest.mark.parametrize("how", [lambda ch, tag: ch.nack(tag, requeue=False),
                                 lambda ch, tag: ch.nack(tag, multiple=True, requeue=False),
                                 lambda ch, tag: ch.reject(tag, requeue=False)],
                         ids=["nack", "nack multiple", "reject"])
def test_every_way_to_reject(ch: Channel, name: Name, how: Callable[[Channel, int], None]) -> None:
    letters = Letters(ch, name)
    letters.put()
    ch.consume(letters.queue)
    how(ch, ch.delivery().tag)
    assert deaths(letters.letter())[0]["reason"] == "rejected"


def test_requeueing_is_no_death(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name)
    letters.put()
    got = ch.get(letters.queue, no_ack=False)
    assert got
    ch.nack(got.tag, requeue=True)
    assert ch.wait_get(letters.queue).headers == {}
    assert ch.count(letters.dead) == 0


def test_acknowledging_purging_and_deleting_are_no_deaths(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name)
    for _ in range(3):
        letters.put()
    got = ch.get(letters.queue, no_ack=False)
    assert got
    ch.ack(got.tag)
    assert ch.get(letters.queue)
    ch.call(Queue.Purge(0, letters.queue))
    letters.put()
    ch.call(Queue.Delete(0, letters.queue))
    ch.settle(letters.dead)
    assert ch.count(letters.dead) == 0


@pytest.mark.parametrize("expiration, expires", [("0", None), ("30", None), (None, 0), (None, 30), ("30", 60000),
                                                 ("60000", 30)])
def test_expired(ch: Channel, name: Name, expiration: str | None, expires: int | None) -> None:
    letters = Letters(ch, name, **({} if expires is None else {"message_ttl": expires}))
    letters.put(b"x", expiration=expiration)
    letter = letters.letter()
    expected = {"count": 1, "reason": "expired", "queue": letters.queue, "exchange": "",
                "routing-keys": [letters.queue]}
    if expiration is not None:
        expected["original-expiration"] = expiration
    assert deaths(letter) == [expected]
    assert letter.properties.expiration is None  # or it would expire again where it is
    assert letter.headers["x-first-death-reason"] == "expired"


def test_rejected_with_expiration(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name)
    letters.put(b"x", expiration="60000")
    letters.reject()
    letter = letters.letter()
    assert deaths(letter)[0]["original-expiration"] == "60000"
    assert letter.properties.expiration is None


@pytest.mark.parametrize("limit", [{"max_length": 2}, {"max_length_bytes": 5}], ids=["messages", "bytes"])
def test_dropped_for_length(ch: Channel, name: Name, limit: dict[str, int]) -> None:
    letters = Letters(ch, name, **limit)
    for number in range(4):
        letters.put(b"%d " % number)
    dropped = [letters.letter(), letters.letter()]
    assert [letter.body for letter in dropped] == [b"0 ", b"1 "]
    assert all(deaths(letter) == [{"count": 1, "reason": "maxlen", "queue": letters.queue, "exchange": "",
                                   "routing-keys": [letters.queue]}] for letter in dropped)
    assert [one.body for one in (ch.get(letters.queue), ch.get(letters.queue)) if one] == [b"2 ", b"3 "]


def test_refused_for_length(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name, max_length=1, overflow="reject-publish-dlx")
    assert [letters.put(b"%d" % number) for number in range(3)] == [True, False, False]
    refused = [letters.letter(), letters.letter()]
    assert [letter.body for letter in refused] == [b"1", b"2"]
    assert deaths(refused[0]) == [{"count": 1, "reason": "maxlen", "queue": letters.queue, "exchange": "",
                                   "routing-keys": [letters.queue]}]


def test_refused_for_length_without_dead_letters(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name, max_length=1, overflow="reject-publish")
    assert [letters.put(b"%d" % number) for number in range(3)] == [True, False, False]
    ch.settle(letters.dead)
    assert ch.count(letters.dead) == 0


def test_delivered_too_often(ch: Channel, name: Name) -> None:
    queue, dead = name(), name("dead")
    ch.queue(dead)
    ch.queue(queue, durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 2,
                                             "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    ch.put("", queue, b"x", delivery_mode=2)
    ch.consume(queue)
    for delivered in range(3):
        got = ch.delivery()
        assert got.method.redelivered == (delivered > 0)
        assert got.headers == ({"x-delivery-count": delivered} if delivered else {})
        ch.reject(got.tag, requeue=True)
    letter = ch.wait_get(dead)
    assert deaths(letter) == [{"count": 1, "reason": "delivery_limit", "queue": queue, "exchange": "",
                               "routing-keys": [queue]}]
    assert letter.headers["x-first-death-reason"] == "delivery_limit"
    assert "x-delivery-count" not in letter.headers
    assert ch.idle(dead)


# Where to

def test_own_routing_key_when_none_is_set(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange)
    ch.queue(queue, arguments={"x-dead-letter-exchange": exchange})
    dead = ch.temporary()
    ch.bind(dead, exchange, "key")
    ch.bind(queue, "amq.direct", "key")
    try:
        ch.put("amq.direct", "key", b"x")
        got = ch.wait_get(queue, no_ack=False)
        ch.reject(got.tag, requeue=False)
        letter = ch.wait_get(dead)
    finally:
        ch.call(Queue.Unbind(0, queue, "amq.direct", "key"))
    assert (letter.method.exchange, letter.method.routing_key) == (exchange, "key")
    assert deaths(letter)[0]["exchange"] == "amq.direct"
    assert letter.headers["x-first-death-exchange"] == "amq.direct"


def test_missing_exchange_or_no_route_drops(ch: Channel, name: Name) -> None:
    for exchange in (name("missing"), "amq.direct"):
        queue = name()
        ch.queue(queue, arguments={"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": name("nowhere")})
        ch.put("", queue, b"x")
        got = ch.wait_get(queue, no_ack=False)
        ch.reject(got.tag, requeue=False)
        ch.settle(queue)
        assert ch.count(queue) == 0


def test_exchange_may_come_later(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.queue(queue, arguments={"x-dead-letter-exchange": exchange})
    ch.exchange(exchange, "fanout")
    dead = ch.temporary()
    ch.bind(dead, exchange)
    ch.put("", queue, b"x")
    got = ch.wait_get(queue, no_ack=False)
    ch.reject(got.tag, requeue=False)
    assert ch.wait_get(dead).body == b"x"


def test_to_many_queues(ch: Channel, name: Name) -> None:
    exchange, queue = name("x"), name()
    ch.exchange(exchange, "fanout")
    ch.queue(queue, arguments={"x-dead-letter-exchange": exchange})
    dead = [ch.temporary() for _ in range(3)]
    for one in dead:
        ch.bind(one, exchange)
    ch.put("", queue, b"x")
    got = ch.wait_get(queue, no_ack=False)
    ch.reject(got.tag, requeue=False)
    assert [ch.wait_get(one).body for one in dead] == [b"x"] * 3


def test_many_in_order(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name)
    for number in range(50):
        letters.put(b"%d" % number)
    ch.consume(letters.queue, "tag")
    ch.deliveries(50)
    ch.nack(50, multiple=True, requeue=False)
    ch.consume(letters.dead, no_ack=True)
    assert ch.deliveries(50) == [b"%d" % number for number in range(50)]


# CC

def test_cc_is_kept_with_the_own_key(ch: Channel, name: Name) -> None:
    exchange, queue, copy = name("x"), name(), name("copy")
    ch.exchange(exchange)
    ch.queue(queue, arguments={"x-dead-letter-exchange": exchange})
    dead = [ch.temporary() for _ in range(2)]
    ch.bind(dead[0], exchange, queue)
    ch.bind(dead[1], exchange, copy)
    ch.put("", queue, b"x", headers={"CC": [copy], "BCC": ["secret"]})
    got = ch.wait_get(queue, no_ack=False)
    ch.reject(got.tag, requeue=False)
    for one in dead:
        letter = ch.wait_get(one)
        assert letter.headers["CC"] == [copy]
        assert deaths(letter)[0]["routing-keys"] == [queue, copy]


def test_cc_goes_with_another_key(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name)
    letters.put(b"x", headers={"CC": ["copy"], "BCC": ["secret"], "a": 1})
    letters.reject()
    letter = letters.letter()
    assert "CC" not in letter.headers and letter.headers["a"] == 1
    assert deaths(letter)[0]["routing-keys"] == [letters.queue, "copy"]


# Again and again

def test_deaths_are_counted_newest_first(ch: Channel, name: Name) -> None:
    one, two = name("one"), name("two")
    for queue, other in ((one, two), (two, one)):
        ch.queue(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": other})

    def death(queue: str, count: int) -> dict[str, Any]:
        return {"count": count, "reason": "rejected", "queue": queue, "exchange": "", "routing-keys": [queue]}

    ch.put("", one, b"x")
    seen = []
    for queue in (one, two, one, two, one):
        got = ch.wait_get(queue, no_ack=False)
        seen.append(deaths(got) if got.headers else [])
        if got.headers:
            assert got.headers["x-first-death-queue"] == one
        ch.reject(got.tag, requeue=False)
    assert seen == [[], [death(one, 1)], [death(two, 1), death(one, 1)], [death(one, 2), death(two, 1)],
                    [death(two, 2), death(one, 2)]]


def test_reasons_are_counted_apart(ch: Channel, name: Name) -> None:
    work, wait = name("work"), name("wait")
    ch.queue(work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
    ch.queue(wait, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 1})
    ch.put("", work, b"x")
    for round in range(4):  # the usual way to retry after a pause
        got = ch.wait_get(work, no_ack=False)
        if round:
            assert [(one["queue"], one["reason"], one["count"]) for one in deaths(got)] == [
                (wait, "expired", round), (work, "rejected", round)]
        ch.reject(got.tag, requeue=False)


def test_a_circle_without_a_rejection_is_broken(ch: Channel, name: Name) -> None:
    one, two = name("one"), name("two")
    for queue, other in ((one, two), (two, one)):
        ch.queue(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": other,
                                   "x-message-ttl": 0})
    ch.put("", one, b"x")
    ch.put("", two, b"x")
    eventually(lambda: ch.count(one) + ch.count(two) == 0)
    for queue in (one, two):
        ch.settle(queue)


def test_a_queue_that_is_its_own_dead_letter_queue(ch: Channel, name: Name) -> None:
    queue = name()
    ch.queue(queue, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue, "x-max-length": 1})
    ch.put("", queue, b"1")
    ch.put("", queue, b"2")  # drops the first, which would come back for ever
    assert ch.wait_get(queue).body == b"2"
    ch.settle(queue)
    assert ch.get(queue) is None
    ch.put("", queue, b"3")
    got = ch.wait_get(queue, no_ack=False)
    ch.reject(got.tag, requeue=False)  # a consumer's will is done
    again = ch.wait_get(queue)
    assert again.body == b"3" and deaths(again)[0]["count"] == 1


@pytest.mark.parametrize("value", [
    "text", [], [{"queue": 5}], {}, None,
    pytest.param([1], marks=pytest.mark.dragoman_only("RabbitMQ 3.10 crashes the queue")),
], ids=repr)
def test_foreign_x_death_header_is_survived(ch: Channel, name: Name, value: Any) -> None:
    letters = Letters(ch, name)
    letters.put(b"x", headers={"x-death": value})
    letters.reject()
    first = letters.letter().headers["x-death"][0]
    assert (first["queue"], first["reason"], first["count"]) == (letters.queue, "rejected", 1)


def test_dead_letter_to_a_consumer(ch: Channel, name: Name) -> None:
    letters = Letters(ch, name)
    ch.consume(letters.dead, "dead", no_ack=True)
    letters.put()
    letters.reject()
    got = ch.delivery()
    assert got.method.consumer_tag == "dead" and deaths(got)[0]["count"] == 1
    ch.call(Basic.Cancel("dead"))
