"""Two users whose containers, links and subscriptions are called the same: neither gets at what is the other's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proton import uint

from dragoman import testing
from tests.wire10 import ACCEPTED, DETACH, DISPOSITION, HEADER, RECEIVER, SENDER, Client10, message

pytestmark = pytest.mark.dragoman_only(reason="containers of users")


class Anonymous(Client10):
    """One without a SASL layer: the user `anonymous`."""

    def _log_in(self, user: str, password: str) -> None:
        self.socket.sendall(HEADER)
        assert self._read(8) == HEADER


CONFIG = "[[listeners]]\nanonymous = true\n[[auto_create]]\npattern = '*'"


@pytest.fixture(scope="module")
def broker() -> Iterator[testing.Broker]:
    with testing.broker(CONFIG) as broker:
        yield broker


def guest(broker: testing.Broker, **options: Any) -> Client10:
    return Client10(broker.host, broker.port, "same", **options)


def other(broker: testing.Broker, **options: Any) -> Client10:
    return Anonymous(broker.host, broker.port, "same", **options)


def test_a_durable_subscription(broker: testing.Broker) -> None:
    mine, theirs = guest(broker), other(broker)
    mine.attach("s", RECEIVER, "amq.topic/k", durable=2, expiry="never")
    mine.detach()
    for address, key in (("amq.topic/k", "there"), ("amq.topic/other", "anew"), (None, "its end")):
        theirs.attach("s", RECEIVER, address, durable=2, expiry="never")
        assert theirs.expect(DETACH)[0][2].value[0] == "amqp:resource-locked", key
        theirs.send(DETACH, uint(0), True)
    mine.attach("p", SENDER, "amq.topic/k", 1)
    mine.flow()
    mine.transfer(message(b"m"), b"t", handle=1)
    mine.outcome()
    mine.attach("s", RECEIVER, "amq.topic/k", 2, durable=2, expiry="never")
    mine.credit(1, 2)
    assert mine.delivery()[1].endswith(message(b"m"))
    mine.vanish()
    theirs.vanish()


def test_a_link_is_not_stolen(broker: testing.Broker) -> None:
    mine, theirs = guest(broker), other(broker)
    mine.attach("l", SENDER, "q")
    theirs.attach("l", SENDER, "q")
    mine.flow()
    mine.transfer(message(b"m"), b"t")
    assert mine.outcome()[4].descriptor == 0x24
    mine.vanish()
    theirs.vanish()


def test_a_connection_is_not_closed(broker: testing.Broker) -> None:
    mine = guest(broker)
    theirs = other(broker, desired=["sole-connection-for-container"],
                   properties={"sole-connection-enforcement-policy": 1})
    mine.attach("l", SENDER, "q")
    mine.flow()
    mine.vanish()
    theirs.vanish()


def test_what_became_of_a_delivery_before_a_restart(tmp_path: Path) -> None:
    with testing.broker(CONFIG, tmp_path) as broker:
        mine = guest(broker)
        mine.attach("l", SENDER, "q", rcv=1, durable=2, expiry="never")
        mine.flow()
        mine.transfer(message(b"m", durable=True), b"t")
        mine.expect(DISPOSITION)
        mine.vanish()
        broker.restart()
        for connect, told in ((other, []), (guest, [(b"t", ACCEPTED)])):
            client = connect(broker)
            unsettled = client.attach("l", SENDER, "q", rcv=1, unsettled={b"t": None}, durable=2, expiry="never")[7]
            assert [(tag, value.descriptor) for tag, value in (unsettled or {}).items()] == told
            client.vanish()
