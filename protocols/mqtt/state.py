"""What a session that outlives its connection is, as the journal keeps it: under the number of its queue and no key."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from broker.argument_values import dump, load
from protocols.mqtt.content import client_id as client_id_of
from protocols.mqtt.content import identity, topic
from protocols.mqtt.content import user as user_of
from protocols.mqtt.errors import MqttError
from protocols.mqtt.publish import Will, make_topic

PREFIX: Final = "mqtt-session:"
HEAD: Final = b""


class State:
    """A session's client and user, how long it is kept (s), since when it has no connection (ms since the epoch; 0: it
    had one), and its will, unless that is published or was taken back."""

    __slots__ = ("client_id", "user", "expiry", "gone_at", "will")

    def __init__(self, client_id: str, user: str, expiry: int, gone_at: int, will: Will | None) -> None:
        self.client_id = client_id
        self.user = user
        self.expiry = expiry
        self.gone_at = gone_at
        self.will = will


def queue_name(client_id: str) -> str:
    return PREFIX + quote(client_id, safe="")


def dump_state(state: State) -> bytes:
    values: dict[str, Any] = {"client": state.client_id, "user": state.user, "expiry": state.expiry,
                              "gone": state.gone_at}
    will = state.will
    if will is not None:
        values["will"] = {"native": will.native, "body": b"".join(will.body or []), "size": will.size,
                          "expiry": will.expiry, "delay": will.delay}
    return dump(values)


def load_state(data: bytes) -> State:
    """Raises: ValueError, KeyError, TypeError, IndexError, MqttError for what nobody can have written."""
    values = load(data)
    if not isinstance(values, dict):
        raise ValueError("it is no map")
    will = values.get("will")
    return State(str(values["client"]), str(values["user"]), int(values["expiry"]), int(values["gone"]),
                 None if will is None else _will(will))


def _will(values: dict[str, Any]) -> Will:
    native: bytes = values["native"]
    body: bytes = values["body"]
    who = identity(client_id_of(native), user_of(native))
    return Will(make_topic(topic(native), who), native, [body] if body else None, int(values["size"]),
                int(values["expiry"]), int(values["delay"]))


UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError, AttributeError, MqttError)
"""What `load_state` raises."""
