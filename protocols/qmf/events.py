"""Events as QMF has them: other names for what the core reports."""

from __future__ import annotations

from typing import Any

from broker import management as m
from broker.alerts import COUNT, SIZE
from broker.management import Event
from broker.values import UByte, ULong
from protocols.qmf.schema import EVENTS
from protocols.qmf.values import plain_text, shown_arguments

WARN, INFO = 4, 6
"""Severities, as syslog numbers them."""

_KINDS: dict[str, tuple[str, int]] = {
    m.CONNECTED: ("clientConnect", INFO), m.CONNECT_FAILED: ("clientConnectFail", WARN),
    m.DISCONNECTED: ("clientDisconnect", INFO), m.QUEUE_DECLARED: ("queueDeclare", INFO),
    m.QUEUE_DELETED: ("queueDelete", INFO), m.EXCHANGE_DECLARED: ("exchangeDeclare", INFO),
    m.EXCHANGE_DELETED: ("exchangeDelete", INFO), m.BOUND: ("bind", INFO), m.UNBOUND: ("unbind", INFO),
    m.SUBSCRIBED: ("subscribe", INFO), m.UNSUBSCRIBED: ("unsubscribe", INFO),
    m.REDIRECTED: ("queueRedirect", INFO), m.REDIRECT_ENDED: ("queueRedirectCancelled", INFO)}

_NAMES = {"queue": "qName", "exchange": "exName", "kind": "exType", "destination": "qName", "key": "key",
          "arguments": "args", "durable": "durable", "exclusive": "excl", "auto_delete": "autoDel",
          "alternate": "altEx", "tag": "dest", "reason": "reason", "properties": "properties",
          "messages": "msgDepth", "bytes": "byteDepth", "target": "qTarget"}


def event_maps(event: Event, now: int) -> list[dict[str, Any]]:
    """An event as messages have it; none for one that QMF does not know. now: ms since the epoch.

    Of a mark that was crossed, consoles hear by the old name and, of a queue's depth, by the new one.
    """
    kinds: list[tuple[str, int]] = []
    if event.kind != m.THRESHOLD:
        kinds = [_KINDS[event.kind]] if event.kind in _KINDS else []
    elif not event.values["up"]:
        kinds = [("queueThresholdCrossedDownward", INFO)]
    elif event.values["measure"] in (COUNT, SIZE):
        kinds = [("queueThresholdCrossedUpward", INFO), ("queueThresholdExceeded", WARN)]
    else:
        kinds = [("queueThresholdExceeded", WARN)]
    return [_event_map(event, name, severity, now) for name, severity in kinds]


def _event_map(event: Event, name: str, severity: int, now: int) -> dict[str, Any]:
    schema = EVENTS[name]
    values: dict[str, Any] = {}
    if "rhost" in schema.types:
        values["rhost"], values["user"] = event.peer, event.user
    if "args" in schema.types:
        values["args"] = {}
    if "disp" in schema.types:
        values["disp"] = "created" if event.values["created"] else "existing"
    if "altEx" in schema.types:
        values["altEx"] = ""
    for given, value in event.values.items():
        name_here = _NAMES.get(given)
        if name_here in schema.types:
            values[name_here] = (shown_arguments(value) if isinstance(value, dict)
                                 else plain_text(value) if isinstance(value, str) else value)
    return {"_schema_id": schema.identity(), "_values": schema.typed(values), "_timestamp": ULong(now * 1_000_000),
            "_severity": UByte(severity)}
