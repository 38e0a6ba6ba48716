"""Who has no right to something is refused, at every door and in every dialect's own way, and nothing has happened."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tests.ways_0x
import tests.ways_10
import tests.ways_qmf
from tests.doors_kit import DOORS, ROWS, House, Row, go
from tests.ways_qmf import PACKAGE, Console

pytestmark = pytest.mark.dragoman_only(reason="its own policy")

assert tests.ways_0x and tests.ways_10 and tests.ways_qmf


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House() as house:
        yield house


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_shut(house: House, row: Row) -> None:
    go(house, row, True)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_all_others_shut(house: House, row: Row) -> None:
    go(house, row, False)


def test_subscriptions_end_whose_client_comes_back_without_the_right(house: House) -> None:
    house.furnish()
    client = house.mqtt(5, "back", clean=True, SessionExpiryInterval=1000)
    assert client.subscribe("a/#", "b/#", "$share/group/a/#") == [0, 0, 0]
    client.disconnect()
    house.doors.shut = lambda door, arguments: door == "subscribe" and arguments[1] == "a.#"
    house.doors.armed = True
    try:
        again = house.mqtt(5, "back", clean=False, SessionExpiryInterval=1000)
        assert again.unsubscribe("a/#", "b/#", "$share/group/a/#") == [0x11, 0, 0x11]
        again.disconnect()
    finally:
        house.doors.armed = False
        house.leave()


def test_a_request_that_the_broker_itself_has_published_is_not_the_actors(house: House) -> None:
    """Whoever makes a dead letter of a message does not ask what is in it."""
    house.furnish()
    console = Console(house)
    request = {"_object_id": {"_object_name": f"{PACKAGE}:broker:amqp-broker"}, "_method_name": "create",
               "_arguments": {"type": "queue", "name": "stolen", "properties": {}, "strict": False}}
    console.client.call("queue.declare", queue="trap", passive=False, durable=False, exclusive=False,
                        auto_delete=False, arguments={"x-dead-letter-exchange": "qmf.default.direct",
                                                      "x-dead-letter-routing-key": "broker"})
    console.client.call("exchange.bind", exchange="qmf.default.direct", queue="answers", binding_key="answers")
    console.client.wait(console.send("_method_request", request, "", "trap", {
        "exchange": "qmf.default.direct", "routing_key": "answers"}))
    house.doors.nobody = False
    try:
        ch = house.channel()
        assert ch.get("trap", no_ack=False) is not None
        ch.reject(1, requeue=False)
        opcode, values = console.answer()
        assert opcode == "_exception" and values["_values"]["error_code"] == 6
        assert "stolen" not in house.state()["queues"]
    finally:
        house.doors.nobody = True
        house.leave()


def test_the_agent_does_not_answer_where_its_client_could_not_send(house: House) -> None:
    house.furnish()
    console = Console(house)
    house.doors.shut = lambda door, arguments: door == "publish" and arguments[1] == "x"
    house.doors.armed = True
    try:
        request = {"_object_id": {"_object_name": f"{PACKAGE}:broker:amqp-broker"}, "_method_name": "echo",
                   "_arguments": {"sequence": 1, "body": "smuggled"}}
        console.send("_method_request", request, reply_to={"exchange": "x", "routing_key": "k"})
        console.call("echo", {"sequence": 1, "body": "b"})  # the agent does one thing after the other
        assert house.state()["queues"]["e"][0] == 0
    finally:
        house.doors.armed = False
        house.leave()


# The table has no gaps.

DIALECTS = ("0-9-1", "0-10", "1.0", "MQTT", "QMF")
"""0-8 and 0-9 are the code of 0-9-1."""

_OWN_QUEUES = "its clients make their queues themselves, and bind them"
_KEYED = "each of its messages says all of its route"
_BY_QMF = "its clients do so by messages to QMF's agent"
_NO_SUCH = "it has no command for that"
_MESSAGE = "a request of QMF's is a message in one of the other dialects"

WITHOUT: dict[tuple[str, str], str] = {
    **{(door, dialect): why for dialect in ("0-9-1", "0-10")
       for door, why in (("subscribe", _OWN_QUEUES), ("publish_to", _KEYED), ("manage", _BY_QMF))},
    **{(door, dialect): _NO_SUCH for dialect in ("1.0", "MQTT")
       for door in ("see_queue", "see_exchange", "delete_queue", "delete_exchange", "purge", "bind", "unbind")},
    **{(door, "MQTT"): _NO_SUCH for door in ("declare_queue", "declare_exchange", "consume")},
    ("publish_to", "MQTT"): _KEYED, ("manage", "1.0"): _BY_QMF, ("manage", "MQTT"): _BY_QMF,
    **{(door, "QMF"): _MESSAGE for door in ("enter", "consume", "publish", "publish_to", "subscribe")},
    **{(door, "QMF"): "it shows all there is, or nothing: `access query`" for door in ("see_queue", "see_exchange")},
}
"""Doors that a dialect does not have, and why."""


def test_each_dialect_has_a_way_through_each_door_or_a_reason_why_not() -> None:
    ways = {(row.door, row.dialect) for row in ROWS}
    assert {dialect for _, dialect in ways} == set(DIALECTS)
    assert not ways & WITHOUT.keys()
    assert ways | WITHOUT.keys() == {(door, dialect) for door in DOORS for dialect in DIALECTS}
