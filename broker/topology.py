"""Durable topology: exchanges, queues and bindings as settings in the store.

A setting's key is `kind NUL virtual host NUL name` (a binding's name is a digest of what makes it different), its
value the JSON of `broker.argument_values`.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from broker import argument_values
from store.journal import Store, StoreDamaged

if TYPE_CHECKING:
    from broker.virtualhost import VirtualHost

EXCHANGE = "exchange"
QUEUE = "queue"
BINDING = "binding"
HOLD = "hold"
RECORDS = "records"
"""Kinds of settings; a HOLD is a virtual host's place for postponed messages, RECORDS the number that something which
is no queue keeps its records in the journal under."""

IDENTITY = "identity"
SECRET = "secret"
"""The settings that are this broker's own: its name, and what only it knows."""


def key(kind: str, host: str, name: str) -> str:
    """The key of a setting. Names are valid UTF-8 of at most 255 bytes; a virtual host's has no NUL."""
    return f"{kind}\0{host}\0{name}"


def binding_name(identity: str, source: str) -> str:
    return hashlib.sha256(f"{source}\0{identity}".encode("utf-8", "surrogateescape")).hexdigest()


def save(store: Store, setting: str, value: dict[str, Any]) -> None:
    store.put(setting, argument_values.dump(value))


class Saved:
    """A setting of the topology, read back."""

    __slots__ = ("kind", "host", "name", "key", "value")

    def __init__(self, kind: str, host: str, name: str, setting: str, value: dict[str, Any]) -> None:
        self.kind = kind
        self.host = host
        self.name = name
        self.key = setting
        self.value = value


def saved(store: Store) -> list[Saved]:
    """All that the store keeps of the topology. Raises: StoreDamaged."""
    found = []
    for setting, value, _ in store.load():
        parts = setting.split("\0", 2)
        if len(parts) != 3 or parts[0] not in (EXCHANGE, QUEUE, BINDING, HOLD, RECORDS):
            continue
        try:
            content = argument_values.load(value)
        except ValueError as error:
            raise StoreDamaged(f"setting {setting!r} in the store is not readable: {error}") from None
        if not isinstance(content, dict):
            raise StoreDamaged(f"setting {setting!r} in the store is not readable")
        found.append(Saved(parts[0], parts[1], parts[2], setting, content))
    return found




def records_number(host: VirtualHost, name: str) -> int:
    """The number under which something of a virtual host keeps its records: always the same for a name."""
    number: int = _once(host.broker.store, key(RECORDS, host.name, name), "id", host.broker.log.new_id)
    return number


def identity(store: Store) -> str:
    """What this broker calls itself towards others, so that each knows what it has seen."""
    name: str = _once(store, IDENTITY, "name", lambda: uuid.uuid4().hex)
    return name


def secret(store: Store) -> bytes:
    """32 bytes that nobody else knows."""
    return bytes.fromhex(_once(store, SECRET, "hex", lambda: os.urandom(32).hex()))


def _once(store: Store, setting: str, field: str, make: Callable[[], Any]) -> Any:
    """What is made once, and kept."""
    kept = store.get(setting)
    if kept is not None:
        return argument_values.load(kept)[field]
    made = make()
    save(store, setting, {field: made})
    return made
