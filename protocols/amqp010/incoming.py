"""The client's commands, from frames; and of message.transfer the message (0-10, section 2.2, assemblies)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.message import AMQP010, CONVERTERS, Message, address_of
from broker.routing import REFUSED, ROUTED, UNROUTED
from broker.transaction import Publication
from protocols.amqp010.codec import (
    DELIVERY_PROPERTIES,
    MESSAGE_PROPERTIES,
    Malformed,
    read_struct,
    write_struct,
)
from protocols.amqp010.content import build
from protocols.amqp010.convert import NOT_BEFORE
from protocols.amqp010.errors import (
    COMMAND_INVALID,
    FRAMING_ERROR,
    ILLEGAL_ARGUMENT,
    LIMIT_EXCEEDED,
    UNAUTHORIZED,
    ConnectionError010,
    SessionError,
)
from protocols.amqp010.frames import (
    BODY,
    BY_CODE,
    COMMAND,
    FIRST_FRAME,
    FIRST_SEGMENT,
    HEADER,
    LAST_FRAME,
    LAST_SEGMENT,
)
from protocols.routes import find_route
from protocols.side_headers import USER_KEY, disowned

if TYPE_CHECKING:
    from protocols.amqp010.session import Session

TRANSFER: Final = 0x0401

EXPLICIT: Final = 0
"""Accept mode: whoever sends a message waits for its acceptance."""

UNROUTABLE: Final = 1
"""Reject code."""

_LONGEST_COMMAND: Final = 1 << 20
_LONGEST_HEADER: Final = 4 << 20
"""Bytes of these segments."""

_KNOWN: Final = 1000
"""Delivery-properties, and segments of transfers, that are remembered."""

_MEDIUM: Final = 4
"""The priority of a message that has none."""

_TEXTS: Final = b"\x84\x85\x86\x94\x95\x96"
"""Codes of types of text."""

_EPOCH_MS: Final = 100_000_000_000
"""A datetime above this is in ms, as Qpid's Java client writes it, and not in seconds."""


class Transfer:
    """What a transfer's command says; the same for most of a client's messages."""

    __slots__ = ("destination", "explicit", "sync", "known")

    def __init__(self, destination: str, explicit: bool, sync: bool) -> None:
        self.destination = destination
        self.explicit = explicit
        self.sync = sync
        self.known: dict[bytes, Properties] = {}  # by their bytes


class Properties:
    """Delivery-properties as they go on: with the exchange and the routing key."""

    __slots__ = ("encoded", "short_strings", "exchange", "routing_key", "durable", "priority", "expiry",
                 "discard_unroutable")

    def __init__(self, encoded: bytes, short_strings: bytes, exchange: str, routing_key: str, durable: bool,
                 priority: int, expiry: int, discard_unroutable: bool) -> None:
        self.encoded = encoded
        self.short_strings = short_strings
        self.exchange = exchange
        self.routing_key = routing_key
        self.durable = durable
        self.priority = priority
        self.expiry = expiry  # ms since the epoch, 0 for never
        self.discard_unroutable = discard_unroutable


class Assembly:
    """The command that is being received."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.next_id = 0  # of the command that is being, or will be, received next
        self.code = 0  # of the last one: class and command in one number
        self._kind = -1  # the segment that is under way; -1 for none
        self._parts: list[bytes] = []  # its frames' payloads
        self._size = 0
        self._transfer: Transfer | None = None
        self._header = b""
        self._transfers: dict[bytes, Transfer] = {}  # by their bytes

    def abandon(self) -> None:
        """The command that is under way will not be completed."""
        if self._kind == BODY:
            self.session.broker.memory.add(-self._size)
        self._kind = -1
        self._parts = []
        self._size = 0
        self._transfer = None
        self._header = b""

    def frame(self, flags: int, kind: int, data: bytes, at: int, stop: int) -> None:
        """A frame's payload. Raises: SessionError, BrokerError, ConnectionError010."""
        if flags & FIRST_FRAME:
            if self._kind >= 0 or (kind == COMMAND) is not (self._transfer is None) \
                    or (kind == COMMAND) is not (flags & FIRST_SEGMENT != 0) or kind == HEADER and self._header:
                raise ConnectionError010(FRAMING_ERROR, "segments do not follow each other")
        elif kind != self._kind:
            raise ConnectionError010(FRAMING_ERROR, "frames of a segment do not follow each other")
        if kind == BODY:
            self._body(flags, data[at:stop])
        elif flags & (FIRST_FRAME | LAST_FRAME) == FIRST_FRAME | LAST_FRAME:
            self._segment(flags, kind, data[at:stop])
        else:
            self._kind = kind
            self._parts.append(data[at:stop])
            self._size += stop - at
            if self._size > (_LONGEST_COMMAND if kind == COMMAND else _LONGEST_HEADER):
                raise SessionError(LIMIT_EXCEEDED, "a command or a header is too long")
            if flags & LAST_FRAME:
                whole = b"".join(self._parts)
                self._kind = -1
                self._parts = []
                self._size = 0
                self._segment(flags, kind, whole)

    def _segment(self, flags: int, kind: int, content: bytes) -> None:
        """A whole command or header."""
        if kind == COMMAND:
            self._command(flags, content)
            return
        self._header = content
        if flags & LAST_SEGMENT:
            self._done([], 0)

    def _command(self, flags: int, content: bytes) -> None:
        transfer = self._transfers.get(content)
        if transfer is None:
            if len(content) < 4 or content[2] != 1:
                raise ConnectionError010(FRAMING_ERROR, "a command without its header")
            self.code = content[0] << 8 | content[1]
            method = BY_CODE.get(self.code)
            if method is None or not method.is_command():
                raise SessionError(COMMAND_INVALID, f"there is no command {content[1]} of class {content[0]}")
            try:
                m = method.decode(content, 4, len(content))
            except Malformed as error:
                raise SessionError(ILLEGAL_ARGUMENT, f"{method.name}: {error}") from None
            sync = content[3] & 1 != 0
            if self.code != TRANSFER:
                if not flags & LAST_SEGMENT:
                    raise ConnectionError010(FRAMING_ERROR, f"{method.name} has no content")
                self._execute(method.name, m, sync)
                return
            # qpid.messaging of Python says nothing of acceptance, and fails on what it is told of it.
            transfer = Transfer(m.get("destination", ""), m.get("accept_mode", -1) == EXPLICIT, sync)
            if len(self._transfers) >= _KNOWN:
                self._transfers.clear()
            self._transfers[content] = transfer
        self.code = TRANSFER
        self._transfer = transfer
        if flags & LAST_SEGMENT:
            self._done([], 0)

    def _execute(self, name: str, m: dict[str, Any], sync: bool) -> None:
        session = self.session
        number = self.next_id
        if number == session.next_in:  # else it was executed before the connection broke
            session.execute(number, BY_CODE[self.code], m, sync)
            if session.failed or session.ended:
                return
            session.next_in += 1
        self.next_id = number + 1
        if session.connection is not None:
            session.connection.due(session)

    def _body(self, flags: int, part: bytes) -> None:
        if flags & FIRST_FRAME and flags & LAST_FRAME:
            if not flags & LAST_SEGMENT:
                raise ConnectionError010(FRAMING_ERROR, "something follows the body of a message")
            self._check_size(len(part))
            self._done([part], len(part))
            return
        session = self.session
        self._kind = BODY
        self._parts.append(part)
        self._size += len(part)
        session.broker.memory.add(len(part))
        self._check_size(self._size)
        if flags & LAST_FRAME:
            parts, size = self._parts, self._size
            self._kind = -1
            self._parts = []
            self._size = 0
            try:
                self._done(parts, size)
            finally:  # only now, so that an alarm that it has raised does not come and go
                session.broker.memory.add(-size)

    def _check_size(self, size: int) -> None:
        connection = self.session.connection
        if connection is not None and size > connection.message_size:
            raise SessionError(LIMIT_EXCEEDED, f"a message is larger than {connection.message_size} bytes")

    def _done(self, pieces: list[bytes], size: int) -> None:
        """All of a message is there."""
        session = self.session
        transfer = self._transfer
        assert transfer is not None
        header = self._header
        self._transfer = None
        self._header = b""
        number = self.next_id
        if number == session.next_in:  # else it was published before the connection broke
            self._publish(number, transfer, header, pieces, size)
            session.next_in += 1
        self.next_id = number + 1
        if session.connection is not None:
            session.connection.due(session)

    def _publish(self, number: int, transfer: Transfer, header: bytes, pieces: list[bytes], size: int) -> None:
        session = self.session
        host = session.host
        connection = session.connection
        assert connection is not None  # frames come by one
        connection.messages_in += 1
        now = session.broker.clock.now
        properties, rest = self._properties(transfer, header, now)
        route = host.routes.get(properties.short_strings)
        if route is None:
            route = find_route(host, connection.access, properties.short_strings, properties.exchange,
                               properties.routing_key)
        address = route.address
        connection.access.publish(address.short_strings, address.exchange, address.routing_key)
        has_extensions = rest.find(b"x-") >= 0  # not `in`, which asks first whether this is a number
        if has_extensions and rest.find(USER_KEY) >= 0 and not connection.impersonates:
            rest = disowned(rest, 0, len(rest), _TEXTS)
        native, body = build(properties.encoded + rest, pieces, size)
        message = Message(address, AMQP010, native, body, size, properties.durable, properties.priority,
                          properties.expiry, now)
        explicit = transfer.explicit
        postponed = has_extensions and rest.find(NOT_BEFORE) >= 0 and CONVERTERS[AMQP010].delivery_time(message) > now
        if session.transaction is not None:
            session.transaction.publish(Publication(route, message, None, False, postponed))
        else:
            outcome = ROUTED
            if postponed:
                host.postpone(message)
            else:
                outcome = host.publish(route, message, None)
            if outcome == UNROUTED and explicit and not properties.discard_unroutable:
                session.send("message.reject", transfers=[(number & 0xFFFFFFFF, number & 0xFFFFFFFF)],
                             code=UNROUTABLE, text="Unroutable")
                explicit = False
            elif outcome == REFUSED:
                raise SessionError(LIMIT_EXCEEDED, f"a queue behind exchange '{properties.exchange}' and routing key "
                                                   f"'{properties.routing_key}' is full")
            elif message.pending:
                message.publisher = session
                message.sequence = number
                session.incomplete[number] = explicit
                explicit = False
                if transfer.sync:
                    session.tell_all()
        if explicit:
            session.accepted_at_once(number)

    def _properties(self, transfer: Transfer, header: bytes, now: int) -> tuple[Properties, bytes]:
        """The delivery-properties, and what else is in the header."""
        size = len(header)
        if size >= 6 and header[4] == 4 and header[5] == 1:
            end = 4 + (header[0] << 24 | header[1] << 16 | header[2] << 8 | header[3])
            if end <= size:
                first = header[:end]
                known = transfer.known.get(first)
                rest = header[end:]
                if rest:
                    self._check(rest)
                if known is not None:
                    return known, rest
                return self._read(transfer, first, now), rest
        found, others = _split(header)
        self._check(others)
        known = transfer.known.get(found)
        return (known if known is not None else self._read(transfer, found, now)), others

    def _check(self, structs: bytes) -> None:
        """Of the other structs of a header: that they are whole, and that the user is who he says to be."""
        at = 0
        end = len(structs)
        while at < end:
            stop = at + 4 + (structs[at] << 24 | structs[at + 1] << 16 | structs[at + 2] << 8 | structs[at + 3]
                             if end - at >= 8 else 0)
            if stop > end or stop < at + 8:
                raise SessionError(ILLEGAL_ARGUMENT, "a message's header is cut off")
            if structs[at + 4] == 4 and structs[at + 5] == 3 and structs[at + 6] & 0x40:
                try:
                    named = read_struct(MESSAGE_PROPERTIES, structs, at, stop)[0]["user_id"]
                except Malformed as error:
                    raise SessionError(ILLEGAL_ARGUMENT, str(error)) from None
                user = self.session.user.encode()
                if named and named != user and named != user + b"@QPID" and not self.session.client.impersonates:
                    raise SessionError(UNAUTHORIZED, f"user-id is {named!r}, and the user is "
                                                     f"'{self.session.user}'")
            at = stop

    def _read(self, transfer: Transfer, encoded: bytes, now: int) -> Properties:
        values: dict[str, Any] = {}
        if encoded:
            try:
                values = read_struct(DELIVERY_PROPERTIES, encoded, 0, len(encoded))[0]
            except Malformed as error:
                raise SessionError(ILLEGAL_ARGUMENT, str(error)) from None
        exchange = transfer.destination
        routing_key = values.get("routing_key", "")
        expiry = 0
        ttl = values.get("ttl", 0)
        if ttl:
            expiry = now + ttl
            values.setdefault("expiration", -(-expiry // 1000))
        elif values.get("expiration", 0):
            expiry = values["expiration"] if values["expiration"] > _EPOCH_MS else values["expiration"] * 1000
        values["exchange"] = exchange
        values["routing_key"] = routing_key
        values["redelivered"] = False
        found = Properties(write_struct(DELIVERY_PROPERTIES, values), address_of(exchange, routing_key).short_strings,
                           exchange, routing_key, values.get("delivery_mode", 1) == 2,
                           values.get("priority", _MEDIUM), expiry, values.get("discard_unroutable", False))
        if not ttl and "timestamp" not in values:
            if len(transfer.known) >= _KNOWN:
                transfer.known.clear()
            transfer.known[encoded] = found
        return found


def _split(header: bytes) -> tuple[bytes, bytes]:
    """The delivery-properties of a header, b"" when it has none, and all other structs. Raises: SessionError."""
    found = b""
    others = []
    at = 0
    end = len(header)
    while at < end:
        stop = at + 4 + int.from_bytes(header[at:at + 4], "big")
        if stop > end or stop < at + 8:
            raise SessionError(ILLEGAL_ARGUMENT, "a message's header is cut off")
        if header[at + 4] == 4 and header[at + 5] == 1:
            found = header[at:stop]
        else:
            others.append(header[at:stop])
        at = stop
    return found, b"".join(others)
