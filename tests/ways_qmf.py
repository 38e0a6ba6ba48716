"""The ways of QMF's methods through the broker's doors, asked over AMQP 0-10. Importing this puts them into the table.

The request is a message, so `publish` is always on the way, and so is the right to call a method at all.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

from protocols import maps010
from tests.doors_kit import WORDS, House, way

Steps = Generator[None, None, None]

Q = "QMF"
PACKAGE = "org.apache.qpid.broker"
FORBIDDEN = 6


class Console:
    """Asks the agent, and waits for its answer."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.client = house.client010()
        self.client.call("queue.declare", queue="answers", passive=False, durable=False, exclusive=True,
                         auto_delete=True)
        self.client.subscribe("answers", accept=1)

    def send(self, opcode: str, content: Any, exchange: str = "qmf.default.direct", key: str = "broker",
             reply_to: dict[str, str] | None = None) -> int:
        """Gives the command's id."""
        return self.client.transfer(exchange, key, maps010.write_map(content), sync=True, properties={
            "content_type": "amqp/map", "app_id": b"qmf2", "reply_to": reply_to or {"routing_key": "answers"},
            "application_headers": {"method": "request", "qmf.opcode": opcode}})

    def answer(self) -> tuple[str, Any]:
        """The next answer's opcode and content."""
        arrived = self.client.message()
        assert arrived.body is not None
        opcode = arrived.header["application_headers"]["qmf.opcode"]
        return opcode, maps010.read_map(arrived.body) if opcode != "_query_response" else arrived.body

    def expect(self, opcode: str, content: Any, answer: str) -> None:
        """This answer; or, at a door that is shut, the error that it is forbidden."""
        self.send(opcode, content)
        found, values = self.answer()
        if self.house.shut:
            assert found == "_exception"
            assert values["_values"] == {"error_code": FORBIDDEN, "error_text": WORDS}
        else:
            assert found == answer, values

    def call(self, name: str, arguments: dict[str, Any], target: str = "broker:amqp-broker") -> None:
        self.expect("_method_request", {"_object_id": {"_object_name": _full(target)}, "_method_name": name,
                                        "_arguments": arguments}, "_method_response")


def _full(target: str) -> str:
    return target if target.startswith("org.") else f"{PACKAGE}:{target}"


def _is(action: str, kind: str, name: str = "") -> Any:
    """The question `manage` of these."""
    return lambda *asked: asked[:2] == (action, kind) and (not name or asked[2] == name)


def _calls(what: str, door: str, method: str, arguments: dict[str, Any], target: str = "broker:amqp-broker",
           only: Any = None, quiet: bool = False, also: tuple[str, ...] = ()) -> None:
    @way(door, Q, what, also=("publish", "manage", *also), only=only, quiet=quiet)
    def steps(house: House) -> Steps:
        console = Console(house)
        yield
        console.call(method, arguments, target)


def _made(kind: str, name: str, **properties: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "properties": properties, "strict": False}


_calls("", "declare_queue", "create", _made("queue", "new"))
_calls("", "delete_queue", "delete", {"type": "queue", "name": "q", "options": {}})
_calls("", "purge", "purge", {"request": 0}, "queue:q")
_calls("some", "purge", "purge", {"request": 1}, "queue:q")
_calls("", "declare_exchange", "create", _made("exchange", "new"))
_calls("", "delete_exchange", "delete", {"type": "exchange", "name": "y", "options": {}})
_calls("", "bind", "create", _made("binding", "x/q/n"))
_calls("", "unbind", "delete", {"type": "binding", "name": "x/e/k", "options": {}})
for _name in ("create", "delete", "queueMoveMessages", "queueCopyMessages", "queueRedirect"):
    _calls(f"{_name} at all", "manage", _name, {
        **_made("queue", "new" if _name == "create" else "q"), "srcQueue": "q", "destQueue": "e", "filter": {},
        "qty": 0, "options": {}, "sourceQueue": "q", "targetQueue": "e"}, only=_is("access", "method", _name),
        also=("declare_queue", "delete_queue"))
_calls("echo at all", "manage", "echo", {"sequence": 1, "body": "b"}, only=_is("access", "method", "echo"), quiet=True)
_calls("purge at all", "manage", "purge", {"request": 0}, "queue:q", only=_is("access", "method", "purge"),
       also=("purge",))
_calls("move", "manage", "queueMoveMessages", {"srcQueue": "q", "destQueue": "e", "filter": {}, "qty": 0},
       only=lambda *asked: asked == ("move", "queue", "q", {"queuename": "e"}))
_calls("copy", "manage", "queueCopyMessages", {"srcQueue": "q", "destQueue": "e", "filter": {}, "qty": 0},
       only=lambda *asked: asked == ("copy", "queue", "q", {"queuename": "e"}))
_calls("redirect", "manage", "queueRedirect", {"sourceQueue": "q", "targetQueue": "e"},
       only=lambda *asked: asked == ("redirect", "queue", "q", {"queuename": "e"}))
_calls("reroute", "manage", "reroute", {"request": 0, "useAltExchange": False, "exchange": "x", "filter": {}},
       "queue:q", only=lambda *asked: asked == ("reroute", "queue", "q", {"exchangename": "x"}), quiet=True)
_calls("query method", "manage", "query", {"type": "queue", "name": "q"}, only=_is("access", "query", "queue"),
       quiet=True)
for _name in ("getLogLevel", "getTimestampConfig", "getLogHiresTimestamp"):
    _calls(_name, "manage", _name, {}, only=_is("access", "broker"), quiet=True)
_calls("setTimestampConfig", "manage", "setTimestampConfig", {"receive": False}, only=_is("update", "broker"),
       quiet=True)
_calls("setLogHiresTimestamp", "manage", "setLogHiresTimestamp", {"logHires": False}, only=_is("update", "broker"),
       quiet=True)
_calls("reloadACLFile", "manage", "reloadACLFile", {}, f"org.apache.qpid.acl:acl:{PACKAGE}:broker:amqp-broker",
       only=_is("update", "broker"), quiet=True)
_calls("create link", "manage", "create", _made("link", "l", url="amqp://127.0.0.1:1"), only=_is("create", "link", "l"))


@way("manage", Q, "setLogLevel", also=["publish"], only=_is("update", "broker"))
def _set_log_level(house: House) -> Steps:
    console = Console(house)
    before = logging.getLogger().level
    house.clients.append(lambda: logging.getLogger().setLevel(before))  # when what has changed was looked at
    yield
    console.call("setLogLevel", {"level": "critical+" if before != logging.CRITICAL else "error+"})
    if not house.shut:
        assert logging.getLogger().level != before


@way("manage", Q, "look at objects", also=["publish"], only=_is("access", "query", "queue"), quiet=True)
def _look(house: House) -> Steps:
    console = Console(house)
    yield
    console.expect("_query_request", {"_what": "OBJECT", "_schema_id": {"_class_name": "queue"}}, "_query_response")


@way("manage", Q, "look at one object", also=["publish"], only=_is("access", "query", "queue"), quiet=True)
def _look_at_one(house: House) -> Steps:
    console = Console(house)
    yield
    console.expect("_query_request", {"_what": "OBJECT", "_object_id": {"_object_name": f"{PACKAGE}:queue:q"}},
                   "_query_response")


@way("manage", Q, "connection.close", also=["publish"], only=_is("delete", "connection"))
def _end_connection(house: House) -> Steps:
    console = Console(house)
    house.channel("victim")
    victim, = (each for each in house.call(lambda: list(house.server.broker.management.connections))
               if each.properties.get("product") == "victim")
    yield
    console.call("close", {}, f"connection:{victim.peer}")


@way("manage", Q, "session.close", also=["publish"], only=_is("delete", "session"))
def _end_session(house: House) -> Steps:
    console = Console(house)
    ch = house.channel("victim")
    ch.consume("q")
    victim, = (each for each in house.call(lambda: list(house.server.broker.management.connections))
               if each.properties.get("product") == "victim")
    session, = house.call(victim.managed_sessions)
    yield
    console.call("close", {}, f"session:{session.name}")


def _of_part(kind: str, method: str, action: str) -> None:
    """A method of a link or a bridge."""
    @way("manage", Q, f"{kind}.{method}", also=["publish"], only=_is(action, kind, "part"))
    def steps(house: House) -> Steps:
        console = Console(house)
        _make_parts(house, kind)
        yield
        console.call(method, {}, f"{kind}:part")


def _make_parts(house: House, kind: str) -> None:
    gateway = house.server.gateway
    assert gateway is not None
    link = "part" if kind == "link" else "link"
    house.call(lambda: gateway.create("link", link, {"url": "amqp://127.0.0.1:1"}))
    if kind == "bridge":
        house.call(lambda: gateway.create("bridge", "part", {
            "link": link, "direction": "push", "local_queue": "q", "remote_queue": "q"}))


_of_part("link", "close", "delete")
_of_part("bridge", "close", "delete")
_of_part("bridge", "pause", "update")


@way("manage", Q, "create bridge", also=["publish"], only=_is("create", "bridge", "new"))
def _create_bridge(house: House) -> Steps:
    console = Console(house)
    _make_parts(house, "link")
    yield
    console.call("create", _made("bridge", "new", link="part", direction="push", local_queue="q", remote_queue="q"))


@way("manage", Q, "delete link", also=["publish"], only=_is("delete", "link", "part"))
def _delete_link(house: House) -> Steps:
    console = Console(house)
    _make_parts(house, "link")
    yield
    console.call("delete", {"type": "link", "name": "part", "options": {}})


