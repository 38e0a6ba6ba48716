"""Links and bridges as qpid-route makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dragoman import testing
from protocols.qmf.routes import bridge_name, bridge_properties
from tests.protocol.test_qmf import Console
from tests.wire import Peer

pytestmark = pytest.mark.dragoman_only("QMF's methods are ours")
TO = {"host": "127.0.0.1", "port": 1, "durable": True, "authMechanism": "PLAIN", "username": "guest",
      "password": "a-secret", "transport": "tcp"}
ROUTE: dict[str, Any] = {"durable": True, "src": "amq.topic", "dest": "amq.topic", "key": "news.#", "tag": "",
                         "excludes": "", "srcIsQueue": False, "srcIsLocal": False, "dynamic": False, "sync": 0,
                         "credit": 0xFFFFFFFF}
LINK = "org.apache.qpid.broker:link:qpid.tcp:127.0.0.1:1"


def test_routes_are_made_kept_and_unmade(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "store") as broker:
        console = Console(Peer(broker.host, broker.port))
        console.does("connect", TO)
        console.does("connect", TO)  # there is one already
        link, = console.values("link")
        assert (link["host"], link["port"], link["transport"], link["durable"]) == ("127.0.0.1", 1, "tcp", True)
        assert "a-secret" not in repr(console.query("link"))
        console.does("bridge", ROUTE, LINK)
        console.does("bridge", {**ROUTE, "key": "", "dynamic": True}, LINK)
        assert console.fails("bridge", ROUTE, LINK)
        found = {each["name"]: each for each in console.values("bridge")}
        assert sorted((each["key"], each["dynamic"]) for each in found.values()) == [("", True), ("news.#", False)]
        assert all(each["linkRef"] == console.query("link")[0]["_object_id"] for each in found.values())
        console.connection.close()
        broker.kill()
        broker.start()
        assert "a-secret" not in broker.log()
        console = Console(Peer(broker.host, broker.port))
        assert {each["name"] for each in console.values("bridge")} == found.keys()
        assert console.fails("close", {}, LINK)
        for each in console.query("bridge"):
            console.does("close", {}, each["_object_id"]["_object_name"])
        console.does("close", {}, LINK)
        assert not console.values("link") and not console.values("bridge")
        console.connection.close()


def test_what_is_not_durable_is_gone_with_the_broker(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "store") as broker:
        console = Console(Peer(broker.host, broker.port))
        console.does("connect", {**TO, "durable": False})
        assert console.fails("bridge", ROUTE, LINK) == (4, "link 'qpid.tcp:127.0.0.1:1' is not durable, and so no "
                                                           "bridge on it can be")
        console.does("bridge", {**ROUTE, "durable": False}, LINK)
        assert console.values("bridge")[0]["durable"] is False
        console.connection.close()
        broker.kill()
        broker.start()
        console = Console(Peer(broker.host, broker.port))
        assert not console.values("link") and not console.values("bridge")
        assert console.fails("connect", {**TO, "transport": "rdma"})
        assert console.fails("bridge", ROUTE, LINK)
        console.connection.close()


@pytest.mark.parametrize("given, wanted", [
    (("q", "x", "", True, False, False, "", "", 0), {"direction": "pull", "remote_queue": "q", "local_exchange": "x"}),
    (("q", "x", "", True, True, False, "", "", 5), {"direction": "push", "local_queue": "q", "remote_exchange": "x",
                                                    "prefetch": 5}),
    (("x", "x", "k", False, True, False, "", "", 1 << 20), {"direction": "push", "local_exchange": "x", "keys": ["k"],
                                                            "remote_exchange": "x", "prefetch": 65535}),
    (("x", "x", "k", False, False, False, "t", "u,v", 0), {
        "direction": "pull", "remote_exchange": "x", "local_exchange": "x", "keys": ["k"],
        "arguments": {"qpid.trace.id": "t", "qpid.trace.exclude": "u,v"}}),
    (("x", "x", "", False, False, True, "", "", 0), {"direction": "pull", "remote_exchange": "x",
                                                     "local_exchange": "x", "federation": True})])
def test_routes_are_bridges(given: tuple[Any, ...], wanted: dict[str, Any]) -> None:
    properties = bridge_properties("l", *given)
    assert properties == {"link": "l", "prefetch": 1000, **wanted}
    assert bridge_name("l", properties).startswith("l pu")
