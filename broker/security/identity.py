"""Where a client comes from, and who it has turned out to be."""

from __future__ import annotations

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Peer:
    """The other end of a connection, as far as who may log in depends on it."""

    def __init__(self, address: str = "", listener: str = "", loopback: bool = False, tls: bool = False,
                 certificate: bytes = b"") -> None:
        self.address = address  # the IP address, as text; "" when it is not known
        self.listener = listener  # the name of the listener that it came by
        self.loopback = loopback
        self.tls = tls
        self.certificate = certificate  # DER, verified by TLS against the listener's issuers; b"" when there is none

    def channel_binding(self, kind: str) -> bytes:
        """The data of the TLS connection for a kind of binding ("tls-server-end-point", "tls-exporter", ...), as
        RFC 5929 and RFC 9266 have them; b"" when that kind is not to be had."""
        return b""


class Identity:
    """A user who has logged in."""

    __slots__ = ("user", "groups", "tags", "mechanism", "provider", "expires", "scopes")

    def __init__(self, user: str, groups: frozenset[str] = frozenset(), *, tags: frozenset[str] = frozenset(),
                 mechanism: str = "", provider: str = "", expires: int = 0,
                 scopes: frozenset[str] = frozenset()) -> None:
        self.user = user
        self.groups = groups  # as its provider says; those of an access file come on top
        self.tags = tags  # RabbitMQ's: "administrator", "management", "impersonator", ...
        self.mechanism = mechanism  # of SASL
        self.provider = provider  # the name of the provider that vouches for it
        self.expires = expires  # ms since the epoch, when a token ends; 0: never
        self.scopes = scopes  # of a token, as they are written there

    def come_by(self, *, mechanism: str = "", provider: str = "") -> Identity:
        """The same user, with the mechanism or the provider that is given here."""
        return Identity(self.user, self.groups, tags=self.tags, mechanism=mechanism or self.mechanism,
                        provider=provider or self.provider, expires=self.expires, scopes=self.scopes)


NOBODY = Identity("")
"""Before the login."""
