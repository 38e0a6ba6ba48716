"""Where a client's message goes, for front-ends that have no route at hand; and whether the client may know."""

from __future__ import annotations

from broker.errors import BrokerError
from broker.message import address_of
from broker.routing import Route
from broker.security.access import Access
from broker.virtualhost import VirtualHost


def find_route(host: VirtualHost, access: Access, short_strings: bytes, exchange: str, routing_key: str) -> Route:
    """A route that may lead elsewhere than its names say (an answer's): `Access.publish` is to be asked for what it
    says. Raises: AccessRefused when there is none and the client has no right to it, NotFound when he has."""
    try:
        return host.route(short_strings, exchange, routing_key)
    except BrokerError:
        access.publish(short_strings, exchange, routing_key)
        raise


def ask_to_publish(access: Access, exchange: str, routing_key: str) -> None:
    """Ask `Access.publish` by names alone. Raises: AccessRefused."""
    try:
        short_strings = address_of(exchange, routing_key).short_strings
    except ValueError:  # too long for any dialect but as one of several; this begins as no short strings can
        short_strings = b"\0\0" + f"{exchange}\0{routing_key}".encode("utf-8", "surrogateescape")
    access.publish(short_strings, exchange, routing_key)
