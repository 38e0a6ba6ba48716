"""Whose message it is: user-id is the name of who has logged in, unless he may send in the name of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from proton import Described, Message, ulong

from tests.doors_kit import House
from tests.wire import ChannelClosed
from tests.wire10 import RECEIVER, SENDER, Client10, encode, message, state

pytestmark = pytest.mark.dragoman_only(reason="its own policy")


@pytest.fixture(scope="module")
def running() -> Iterator[House]:
    with House() as house:
        yield house


@pytest.fixture(params=["own name only", "impersonator"])
def house(running: House, request: pytest.FixtureRequest) -> Iterator[House]:
    """Once it refuses other users' names, once it does not."""
    running.furnish()
    running.shut = request.param == "own name only"
    running.doors.impersonates = not running.shut
    yield running
    running.leave()
    running.doors.impersonates = False


def test_091(house: House) -> None:
    ch = house.channel()
    ch.publish("", "e", b"mine", user_id="guest")
    ch.qos(1)
    ch.publish("", "e", b"theirs", user_id="root")
    if house.shut:
        with pytest.raises(ChannelClosed) as closed:
            ch.qos(1)
        assert (closed.value.code, closed.value.text) == (
            406, "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'")
    else:
        ch.qos(1)
    assert house.state()["queues"]["e"][0] == (1 if house.shut else 2)


def test_010(house: House) -> None:
    client = house.client010()
    client.publish("e", b"mine", properties={"user_id": b"guest"})
    client.publish("e", b"mine", properties={"user_id": b"guest@QPID"})
    house.done010(client, client.transfer("", "e", b"theirs", sync=True, properties={"user_id": b"root"}))
    assert house.state()["queues"]["e"][0] == (2 if house.shut else 3)


def test_10(house: House) -> None:
    client = house.client10()
    client.attach("l", SENDER, "e")
    client.flow()
    client.transfer(encode(state(0x73, None, b"guest")) + message(b"mine"), b"1")
    assert client.outcome()[4].descriptor == 0x24
    client.transfer(encode(state(0x73, None, b"root")) + message(b"theirs"), b"2")
    house.outcome10(client)
    assert house.state()["queues"]["e"][0] == (1 if house.shut else 2)


def received(house: House) -> Any:
    """The user-id of the message in queue e, as one of 1.0 sees it."""
    client = Client10(*house.peer)
    house.clients.append(client.vanish)
    client.attach("r", RECEIVER, "e")
    client.credit(1)
    _, found = client.delivery()
    read = Message()
    read.decode(found)
    assert read.properties is not None
    assert read.properties.get("mine") == 1
    return read.user_id


def test_a_header_of_091_in_which_translations_keep_a_user_id(house: House) -> None:
    ch = house.channel()
    ch.publish("", "e", b"b", headers={"x-user-id": bytearray(b"root"), "mine": 1})
    ch.qos(1)
    assert received(house) == (b"" if house.shut else b"root")


def test_one_of_010(house: House) -> None:
    client = house.client010()
    client.publish("e", b"b", properties={"application_headers": {"x-user-id": b"root", "mine": 1}})
    assert received(house) == (b"" if house.shut else b"root")


def test_a_header_that_is_text_claims_nothing(house: House) -> None:
    ch = house.channel()
    ch.publish("", "e", b"b", headers={"x-user-id": "root", "mine": 1})
    ch.qos(1)
    assert received(house) == b""


def test_a_property_of_10_that_is_called_so(house: House) -> None:
    client = house.client10()
    client.attach("l", SENDER, "e")
    client.flow()
    properties = encode(Described(ulong(0x74), {"x-user-id": b"root", "mine": 1}))
    client.transfer(properties + message(b"b"), b"1")
    assert client.outcome()[4].descriptor == 0x24
    assert received(house) == b""

