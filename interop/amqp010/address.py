"""Where to connect to, and what messages are sent to and received from, as text."""

from __future__ import annotations

import ssl as tls
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from interop.amqp010.errors import AddressError


@dataclass(frozen=True)
class Target:
    """A server. virtual_host: "" for its default; server_name: of its certificate, "" for the host."""

    host: str
    port: int
    user: str
    password: str
    virtual_host: str
    context: tls.SSLContext | None
    server_name: str = ""


def parse_url(url: str, context: tls.SSLContext | None) -> Target:
    """From `amqp://user:password@host:port/virtual-host`, or amqps. Raises: AddressError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # whose text may have part of a password
        raise AddressError("the URL is none: a port is a number, and `/`, `@` and `[` in a password are written "
                           "%2F, %40 and %5B") from None
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise AddressError("a URL begins with amqp://host or amqps://host")
    if parts.scheme == "amqps" and context is None:
        context = tls.create_default_context()
    return Target(parts.hostname, port or (5671 if context else 5672), unquote(parts.username or ""),
                  unquote(parts.password or ""), unquote(parts.path[1:]), context)


class Address(NamedTuple):
    """A queue or an exchange, and a subject behind a slash. `#` is a queue of one's own."""

    name: str
    subject: str | None


def parse_address(text: str) -> Address:
    """From `name` or `name/subject`. Raises: AddressError."""
    name, slash, subject = text.partition("/")
    if not name and not subject:
        raise AddressError("an address has a name")
    return Address(name, subject if slash else None)
