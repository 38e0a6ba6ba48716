"""Whatever a front-end or the gateway has the core do, its client was asked about first: by the source.

tests/protocol/test_doors.py goes through the doors that there are; this finds the door that somebody has forgotten.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]

DOORS: dict[str, set[str]] = {
    "declare_queue": {"declare_queue"}, "hidden_queue": {"declare_queue"}, "delete_queue": {"delete_queue"},
    "declare_exchange": {"declare_exchange"}, "system_exchange": {"declare_exchange"},
    "delete_exchange": {"delete_exchange"},
    "bind": {"bind"}, "unbind": {"unbind", "bind"}, "purge": {"purge"},
    "add": {"consume"}, "get": {"consume"}, "claim": {"consume"},
    "route": {"publish"}, "publish": {"publish"}, "postpone": {"publish"},
    "enqueue": {"publish"}, "route_and_enqueue": {"publish"},
    "move": {"manage"}, "copy": {"manage"}, "reroute": {"manage"}, "delete": {"purge", "manage"},
    "redirect": {"manage"}, "undo_redirect": {"manage"}, "close_connection": {"manage"}, "close_session": {"manage"},
    "create": {"manage"}, "pause": {"manage"}, "setLevel": {"manage"}, "reload": {"manage"},
}
"""What the core is asked to do, by the name of the function, and which questions allow it."""


SPEAKS_FOR_ITSELF = {
    # What the broker does by itself, or at the end of what it has made itself.
    "protocols/amqp10/dynamic.py:_look": "a dynamic node is over",
    "protocols/amqp10/attach.py:let_go": "asked when the link was attached to end the subscription",
    "protocols/amqp10/outgoing.py:let_go": "a subscription that is not durable ends with its link",
    "protocols/mqtt/session.py:end": "the queue of a session ends with it",
    "protocols/mqtt/sharing.py:drop_unused": "a shared subscription ends with its last session",
    "protocols/mqtt/sharing.py:leave": "a shared subscription ends with its last session",
    "protocols/mqtt/delivery.py:_take_over": "back in the queue that it came from",
    "protocols/mqtt/system_topics.py:__init__": "the broker's own figures",
    "protocols/mqtt/system_topics.py:_publish": "the broker's own figures",
    "protocols/qmf/agent.py:__init__": "the agent's own queue and exchanges",
    "protocols/mqtt/session.py:_unbind": "a session may always lose a subscription of its own",
    # What is one step of something else.
    "protocols/routes.py:find_route": "`publish` is asked about what it finds",
    "protocols/qmf/agent.py:_send": "asked by _may_hear; what it tells unasked goes to its own exchange",
    "protocols/amqp091/commands.py:_reply_queue": "direct reply-to: nobody but the client sees that there is a queue",
    "protocols/amqp091/commands.py:_unbind": "asked by exchange_unbind and queue_unbind",
    "protocols/amqp010/messages.py:acquire": "of messages that a subscription has shown",
    "protocols/amqp10/outgoing.py:begin": "asked by _attach_receiver",
    "protocols/amqp10/outgoing.py:take_up": "asked by _attach_receiver",
    "protocols/amqp10/incoming.py:_publish": "asked by _message",
    "protocols/amqp10/incoming.py:_publish_within": "asked by _message",
    "protocols/amqp10/subscriptions.py:subscribe": "asked by _source_queue: all of it is one door",
    "protocols/mqtt/delivery.py:add": "asked by Session.subscribe, and again when a client comes back",
    "protocols/mqtt/session.py:_bind": "asked by subscribe: all of it is one door",
    "protocols/mqtt/session.py:_exchange": "asked by subscribe: all of it is one door",
    "protocols/mqtt/session.py:_make_queue": "asked by subscribe; of a session that is kept it is nobody else's",
    "protocols/mqtt/session.py:_retained": "asked by subscribe",
    "protocols/mqtt/session.py:_publish_will": "asked by Sessions.open, while its client can be told",
    "protocols/mqtt/sharing.py:_make": "asked by Session.subscribe: all of it is one door",
    # The gateway acts as the broker: whoever makes a link or a bridge has been asked for that (QMF's create).
    "interop/local.py:_queue": "the gateway", "interop/local.py:close": "the gateway",
    "interop/local.py:send": "the gateway", "interop/local.py:start": "the gateway",
}
"""Functions that need not ask, and why."""

_RECEIVERS = {
    "add": ("queue",), "get": ("queue",), "delete": ("moving", "_control(host)"), "copy": ("moving",),
    "create": ("_control(host)",), "bind": ("host",), "unbind": ("host",), "publish": ("host", "transaction"),
    "pause": ("_control(host)",), "setLevel": ("logging.getLogger()",), "purge": ("queue",)}
"""Functions whose names are others', too, and how what they are called on is written, at its end."""


def core_calls() -> list[tuple[str, str, int, bool]]:
    """Each function that has the core do something: its place, what it calls, the line, whether it has asked before."""
    found = []
    for folder in ("protocols", "interop"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    place = f"{path.relative_to(ROOT)}:{function.name}"
                    calls = [each for each in ast.walk(function) if isinstance(each, ast.Call)]
                    found += [(place, name, call.lineno, _has_asked(calls, call, DOORS[name]))
                              for call in calls if (name := _core_call(call))]
    return found


def _core_call(call: ast.Call) -> str:
    """The core's function that is called; "" when it is none."""
    if isinstance(call.func, ast.Name):
        return call.func.id if call.func.id == "claim" else ""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in DOORS:
        return ""
    name, receiver = call.func.attr, ast.unparse(call.func.value)
    if receiver.endswith("access"):
        return ""
    return name if receiver.endswith(_RECEIVERS.get(name, ("",))) else ""


def _has_asked(calls: list[ast.Call], call: ast.Call, doors: set[str]) -> bool:
    return any(isinstance(each.func, ast.Attribute) and each.func.attr in doors
               and ast.unparse(each.func.value).endswith("access") and each.lineno <= call.lineno for each in calls)


def test_all_the_core_is_made_to_do_was_asked_for() -> None:
    unasked = {f"{place}: {name}, line {line}" for place, name, line, asked in core_calls()
               if not asked and place not in SPEAKS_FOR_ITSELF}
    assert not unasked


def test_no_excuse_is_left_over() -> None:
    assert SPEAKS_FOR_ITSELF.keys() == {place for place, _, _, asked in core_calls() if not asked}
