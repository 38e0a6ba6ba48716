"""Messages as programs see them, and the header and body segments that they travel in (section 3.3)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from protocols import maps010
from protocols.amqp010.codec import (
    DELIVERY_PROPERTIES,
    MESSAGE_PROPERTIES,
    Layout,
    Malformed,
    read_struct,
    text,
    write_struct,
)

PERSISTENT = 2

SUBJECT = "qpid.subject"
"""The application header that carries a message's subject, as Qpid's clients have it."""

TEXT, MAP, LIST = "text/plain", "amqp/map", "amqp/list"
"""Content types that say how a body is to be read."""


class ReplyTo(NamedTuple):
    """Where to send an answer: to this exchange (the default one has no name), with this routing key."""

    exchange: str = ""
    routing_key: str = ""

    def __str__(self) -> str:
        """As an address that `session.sender` takes."""
        return f"{self.exchange}/{self.routing_key}" if self.exchange else self.routing_key


@dataclass
class Message:
    """A message.

    content: bytes; or what makes the content type, when that is not given: str (text/plain), dict (amqp/map), list
    (amqp/list). Of a message that came, it is what the content type says, or bytes if it is not so.
    properties: the application headers. ttl is in milliseconds, timestamp and expiration in seconds since 1970.
    """

    content: Any = b""
    subject: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    message_id: uuid.UUID | None = None
    correlation_id: bytes | str | None = None
    reply_to: ReplyTo | None = None
    user_id: bytes | str | None = None
    app_id: bytes | str | None = None
    durable: bool = False
    priority: int | None = None
    ttl: int | None = None
    redelivered: bool = False
    timestamp: int | None = None
    expiration: int | None = None
    exchange: str | None = None
    routing_key: str | None = None
    discard_unroutable: bool = False
    immediate: bool = False
    resume_id: str | None = None
    resume_ttl: int | None = None
    structs: list[bytes] = field(default_factory=list)  # of the header, those of other types, encoded
    delivery: Any = field(default=None, compare=False, repr=False)  # session.Delivery of a message that came

    def encode(self) -> tuple[bytes, bytes]:
        """The header and the body segment. Raises: ValueError, OverflowError for what 0-10 cannot say."""
        kind, body = encode_content(self.content)
        headers = self.properties if self.subject is None else {**self.properties, SUBJECT: self.subject}
        values = {name: getattr(self, name) for name in _DELIVERY}
        delivery = write_struct(DELIVERY_PROPERTIES, {**values, "delivery_mode": PERSISTENT if self.durable else None})
        values = {name: getattr(self, name) for name in _MESSAGE}
        values["content_length"] = len(body)
        values["content_type"] = kind if self.content_type is None else self.content_type
        values["application_headers"] = headers or None
        if self.reply_to is not None:
            values["reply_to"] = {name: value for name, value in self.reply_to._asdict().items() if value}
        return b"".join([delivery, write_struct(MESSAGE_PROPERTIES, values), *self.structs]), body

    @classmethod
    def decode(cls, header: bytes, body: bytes) -> Message:
        """From the two segments. Raises: Malformed for a header that is none."""
        message = cls(body)
        at = 0
        while at < len(header):
            size = 4 + int.from_bytes(header[at:at + 4], "big")
            if at + size > len(header) or size < 6:
                raise Malformed("a struct of the header is cut off")
            code = header[at + 4] << 8 | header[at + 5]
            if code == DELIVERY_PROPERTIES.code:
                message._take(read_struct(DELIVERY_PROPERTIES, header, at, len(header))[0])
            elif code == MESSAGE_PROPERTIES.code:
                message._take(read_struct(MESSAGE_PROPERTIES, header, at, len(header))[0])
            else:
                message.structs.append(header[at:at + size])
            at += size
        message.content = decode_content(message.content_type, body)
        return message

    def _take(self, fields: dict[str, Any]) -> None:
        self.durable = self.durable or fields.pop("delivery_mode", 1) == PERSISTENT
        fields.pop("content_length", None)
        headers = fields.pop("application_headers", None)
        if headers is not None:
            if isinstance(headers.get(SUBJECT), str):
                self.subject = headers.pop(SUBJECT)
            self.properties = headers
        reply_to = fields.pop("reply_to", None)
        if reply_to is not None:
            self.reply_to = ReplyTo(**reply_to)
        for name, value in fields.items():
            setattr(self, name, value)


def _names(layout: Layout, *others: str) -> list[str]:
    return [each.name for each in layout.fields if each.name not in others]


_DELIVERY = _names(DELIVERY_PROPERTIES, "delivery_mode")
_MESSAGE = _names(MESSAGE_PROPERTIES, "content_length", "content_type", "reply_to", "application_headers")


def encode_content(content: Any) -> tuple[str | None, bytes]:
    """The content type that follows from the content (None for bytes), and the body. Raises: ValueError."""
    if isinstance(content, str):
        return TEXT, content.encode("utf-8", "surrogateescape")
    if isinstance(content, dict):
        return MAP, maps010.write_map(content)
    if isinstance(content, list):
        return LIST, maps010.write_list(content)
    if content is None:
        return None, b""
    return None, bytes(content)


def decode_content(kind: str | None, body: bytes) -> Any:
    """What the body is, by its content type; the bytes themselves if it is not what that says."""
    try:
        if kind == MAP:
            return maps010.read_map(body)
        if kind == LIST:
            return maps010.read_list(body)
    except ValueError:
        return body
    return text(body) if kind == TEXT else body
