"""The mechanisms that send the password itself: PLAIN (RFC 4616) and AMQPLAIN, which is RabbitMQ's: a field table,
without its length, of LOGIN and PASSWORD."""

from __future__ import annotations

from broker.security.mechanism import Challenge, Done, Failure, Mechanism, finish, text


class Clear(Mechanism):
    """One response, with a name and the password."""

    __slots__ = ()

    def respond(self, response: bytes | None, done: Done) -> None:
        if response is None:
            done(Challenge(b""))
            return
        try:
            name, password = parse_plain(response) if self.name == "PLAIN" else parse_amqplain(response)
        except ValueError as error:
            done(Failure(str(error)))
            return
        self.authenticator.check_password(name, password, self.peer, lambda result: done(finish(result)))


def parse_plain(response: bytes) -> tuple[str, bytes]:
    """Name and password of a PLAIN response, `[authzid] NUL authcid NUL passwd`. Raises ValueError."""
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise ValueError("PLAIN: not two NUL characters in the response")
    authorize, name, password = parts
    if not name or not password:
        raise ValueError("PLAIN: no name or no password in the response")
    if authorize not in (b"", name):
        raise ValueError("PLAIN: the client asks to be another user than it logs in as")
    text(password, "PLAIN")
    return text(name, "PLAIN"), password


_FIXED = {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"L": 8, b"f": 4, b"d": 8, b"D": 5,
          b"T": 8, b"V": 0}  # bytes of a field table's values, as RabbitMQ has them
_COUNTED = frozenset({b"S", b"x", b"A", b"F"})  # a length of 4 bytes, and that many bytes


def parse_amqplain(response: bytes) -> tuple[str, bytes]:
    """Name and password of an AMQPLAIN response: fields LOGIN and PASSWORD, others ignored. Raises ValueError."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(response):
        end = at + 1 + response[at]
        field, kind = response[at + 1:end], response[end:end + 1]
        at = end + 1
        if kind in _COUNTED:
            at += 4
            end = at + int.from_bytes(response[at - 4:at])
        elif kind in _FIXED:
            end = at + _FIXED[kind]
        else:
            raise ValueError("AMQPLAIN: not a field table, or one with a type that is not known")
        if end > len(response):
            raise ValueError("AMQPLAIN: the field table ends within a field")
        if field in (b"LOGIN", b"PASSWORD"):
            if kind != b"S" or field in found:
                raise ValueError("AMQPLAIN: LOGIN or PASSWORD is there twice or is not a long string")
            found[field] = response[at:end]
        at = end
    if not found.get(b"LOGIN") or b"PASSWORD" not in found:
        raise ValueError("AMQPLAIN: no LOGIN or no PASSWORD in the response")
    return text(found[b"LOGIN"], "AMQPLAIN"), found[b"PASSWORD"]
