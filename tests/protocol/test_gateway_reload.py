"""Links and bridges of the configuration are changed while the broker runs, by a real SIGHUP to a real process."""

from __future__ import annotations

import os
import signal
from typing import Any

import pika
import pytest

from dragoman import testing
from tests.protocol.test_qmf import Console
from tests.wire import Peer, eventually

pytestmark = [pytest.mark.dragoman_only("it is our side that is tested here"), pytest.mark.slow]

LINK = """
[[link]]
name = "there"
url = "amqp://127.0.0.1:{port}/"
user = "guest"
password_env = "PEER_PASSWORD"
reconnect_max = 1
"""
BRIDGE = """
[[bridge]]
name = "{name}"
link = "there"
direction = "push"
local_queue = "{queue}"
remote_queue = "{queue}"
"""


class Near:
    """A broker with bridges to another one, seen by QMF."""

    def __init__(self, broker: testing.Broker) -> None:
        self.broker = broker
        self.console = Console(Peer(broker.host, broker.port))
        self.listeners = broker.config_path.read_text().partition("[[link]]")[0]

    def parts(self) -> dict[str, dict[str, Any]]:
        found = {each["name"]: each for kind in ("link", "bridge") for each in self.console.values(kind)}
        return found if all(each["state"] == "up" for each in found.values()) else {}

    def reload(self, text: str) -> None:
        """Have another configuration read."""
        self.broker.config_path.write_text(self.listeners + text)
        before = len(self.broker.log())
        os.kill(self.broker.pid, signal.SIGHUP)
        eventually(lambda: "read again" in self.broker.log()[before:] or "reloaded" in self.broker.log()[before:])


def declare(broker: testing.Broker, *queues: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        for queue in queues:
            connection.channel().queue_declare(queue)


def crosses(near: testing.Broker, far: testing.Broker, queue: str) -> bool:
    """Whether a message in a queue here comes to the one there."""
    with pika.BlockingConnection(pika.URLParameters(near.url)) as connection:
        connection.channel().basic_publish("", queue, b"x")
    with pika.BlockingConnection(pika.URLParameters(far.url)) as connection:
        channel = connection.channel()
        return bool(eventually(lambda: channel.basic_get(queue, auto_ack=True)[0]))


def test_what_is_the_same_goes_on_and_the_rest_begins_anew() -> None:
    with testing.broker() as first, testing.broker() as second:
        link = LINK.format(port=first.port)
        bridges = {name: BRIDGE.format(name=name, queue=name) for name in ("same", "changed", "gone", "fresh")}
        text = link + bridges["same"] + bridges["changed"] + bridges["gone"]
        with testing.broker(text, env={"PEER_PASSWORD": "guest"}) as here:
            for broker in (first, second, here):
                declare(broker, *bridges)
            near = Near(here)
            before = eventually(near.parts)
            assert before.keys() == {"there", "same", "changed", "gone"} and crosses(here, first, "same")
            changed = bridges["changed"] + "prefetch = 7\n"
            near.reload(link + bridges["same"] + changed + bridges["fresh"])
            after = eventually(near.parts, lambda parts: parts.keys() == {"there", "same", "changed", "fresh"})
            for name in ("there", "same"):
                assert after[name]["since"] == before[name]["since"], name
            assert after["there"]["connects"] == 1 and after["same"]["msgMoved"] == 1
            assert after["changed"]["since"] > before["changed"]["since"]
            assert all(crosses(here, first, name) for name in ("same", "changed", "fresh"))
            near.reload(LINK.format(port=second.port) + bridges["same"] + changed)
            eventually(near.parts, lambda parts: parts.keys() == {"there", "same", "changed"}
                       and parts["there"]["port"] == second.port)
            assert all(crosses(here, second, name) for name in ("same", "changed"))
            near.reload(LINK.format(port=second.port).replace("amqp:", "http:"))  # is refused, and nothing changes
            assert near.parts().keys() == {"there", "same", "changed"}
            near.console.connection.close()
