"""Remote brokers: which adapter speaks a dialect, and what the URL of a link says.

    remote("amqps://user:password@broker.example/vhost", AMQP091, Options(heartbeat=10))

makes a `Remote` that is not connected yet. Libraries are imported when they are needed: without them, a link of that
dialect alone fails.
"""

from __future__ import annotations

from importlib import import_module
from urllib.parse import unquote, urlsplit

from broker.message import AMQP010, AMQP091, AMQP10, MQTT
from interop.dial import Place
from interop.ends import EndError, Options, Remote
from interop.trust import Trust

ADAPTERS = {
    AMQP091: ("interop.remote091", "Remote091"),
    AMQP10: ("interop.remote10", "Remote10"),
    AMQP010: ("interop.remote010", "Remote010"),
    MQTT: ("interop.remote_mqtt", "RemoteMqtt"),
}
"""Module and class, by dialect."""

PORTS = {"amqp": 5672, "amqps": 5671, "mqtt": 1883, "mqtts": 8883}
"""By scheme of a URL; those that end with s are for TLS."""


def remote(url: str, dialect: int, options: Options) -> Remote:
    """A connection to the broker at this URL, not opened yet. Raises: EndError."""
    place = place_of(url, options)
    module, name = ADAPTERS[dialect]
    try:
        made: Remote = getattr(import_module(module), name)(place, options)
    except ModuleNotFoundError as error:
        raise EndError(f"{error.name} is not installed: pip install dragoman[gateway]") from None
    return made


def place_of(url: str, options: Options) -> Place:
    """What a URL and the options say together. Raises: EndError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EndError("the URL is none") from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise EndError(f"the URL is to begin with one of {', '.join(f'{each}://' for each in PORTS)} and a host")
    tls = None
    if parts.scheme.endswith("s"):
        tls = options.tls or Trust().context()
    return Place(parts.hostname, port or PORTS[parts.scheme], unquote(parts.path[1:]),
                 options.user or unquote(parts.username or ""),
                 options.password if options.user else unquote(parts.password or ""),
                 tls, (options.server_name or parts.hostname) if tls is not None else "")
