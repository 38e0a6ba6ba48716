"""Messages of 0-9-1 (0-9, 0-8) and the model: pure functions, no connection, no queue.

`Message.native` of this dialect is the content header frame as it arrived, with the body frame behind it when the body
is in one frame; the pieces of a longer body are in `Message.body`. The channel number within is the publisher's.
"""

from __future__ import annotations

import re
from typing import Any, Final

from broker.message import AMQP091, AMQP091_JMS, CONVERTERS, Address, Amendment, Converter, Message
from broker.view import Death, View
from protocols.amqp091 import properties as p
from protocols.amqp091 import tables
from protocols.amqp091.codec import Malformed, Timestamp, long_string, pack32, u32, write_value
from protocols.amqp091.frames import BODY, HEADER, frame
from protocols.amqp091.translate import from_model, to_model
from protocols.deaths import read_death
from protocols.markers import LONGEST

PROPERTIES_AT: Final = 19
"""Where in a header frame the property flags begin: behind frame header, class, weight and body size."""

_ABSOLUTE = 10**11
"""An expiration above this is a time since the epoch, ms: old Qpid clients send those."""

_ONE_PIECE: Final = 65536
"""Bodies of so many bytes are kept with their header."""

_LEADING_NUMBER = re.compile(r"-?[0-9]+")

_LONGEST = 315_360_000_000
"""The longest time to live, ms: ten years, as RabbitMQ has it."""


def header_end(native: bytes) -> int:
    """Where the header frame's payload ends, and its end octet is."""
    return 7 + u32(native, 3)


def body_pieces(message: Message) -> list[bytes]:
    """The body, in one or many pieces."""
    if message.body is not None:
        return message.body
    if not message.size:
        return []
    return [message.native[header_end(message.native) + 8:-1]]


def expiry(expiration: bytes, now: int) -> int:
    """When a message with this expiration property expires, ms since the epoch. Raises: ValueError with the reason."""
    written = expiration.decode("ascii", "replace")
    digits = written.removeprefix("+")
    number = _LEADING_NUMBER.match(digits)
    if number is None:
        raise ValueError(f"invalid expiration '{written}': no_integer")
    if number.end() < len(digits):
        raise ValueError(f"invalid expiration '{written}': {{leftover_string,\"{digits[number.end():]}\"}}")
    milliseconds = int(digits)
    if milliseconds < 0:
        raise ValueError(f"invalid expiration '{written}': {{value_negative,{milliseconds}}}")
    if milliseconds > _LONGEST:
        if _ABSOLUTE < milliseconds < now + _LONGEST:
            return milliseconds
        raise ValueError(f"invalid expiration '{written}': {{value_too_large,{milliseconds}}}")
    return now + milliseconds


class Amqp091Converter(Converter):
    """The converter of this dialect.

    jms: what is encoded is for JMS clients, who know maps and lists by other names, and URLs as addresses.
    """

    def __init__(self, jms: bool) -> None:
        self.jms = jms

    def decode(self, message: Message) -> View:
        view = View()
        view.body = body_pieces(message)
        try:
            found = p.split(message.native, PROPERTIES_AT, header_end(message.native))
            values = {bit: p.value(bit, encoded) for bit, encoded in found.items()}
        except Malformed:  # it was checked when it was published, so the store has let it rot
            return view
        _fill(view, values)
        return view

    def model(self, message: Message) -> View:
        view = View()
        try:
            found = p.split(message.native, PROPERTIES_AT, header_end(message.native))
            to_model(message, found, body_pieces(message), view)
        except Malformed:  # it was checked when it was published, so the store has let it rot
            view.body = body_pieces(message)
        return view

    def encode(self, view: View, like: Message) -> Message:
        found, body = from_model(view, _write_death, self.jms)
        size = sum(map(len, body))
        native = frame(HEADER, 1, b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + p.join(found))
        pieces: list[bytes] | None = None
        if size > _ONE_PIECE:
            pieces = body
        elif size:
            native += frame(BODY, 1, b"".join(body))
        return Message(like.address, AMQP091, native, pieces, size, view.durable,
                       0 if view.priority is None else view.priority, like.expiry, like.arrival)

    def amend(self, message: Message, amendment: Amendment, address: Address, now: int) -> Message:
        end = header_end(message.native)
        found = p.split(message.native, PROPERTIES_AT, end)
        if amendment.drop_expiration:
            found.pop(p.EXPIRATION, None)
        if amendment.reply_to is not None:
            found[p.REPLY_TO] = p.encoded(p.REPLY_TO, amendment.reply_to)
        _amend_headers(found, amendment)
        return make(found, message.native[end + 1:], message, address, now)

    def expiration(self, message: Message) -> str | None:
        found = p.split(message.native, PROPERTIES_AT, header_end(message.native)).get(p.EXPIRATION)
        return None if found is None else p.value(p.EXPIRATION, found)


CONVERTERS[AMQP091] = Amqp091Converter(False)
CONVERTERS[AMQP091_JMS] = Amqp091Converter(True)


def make(properties: dict[int, bytes], body_frame: bytes, like: Message, address: Address, now: int) -> Message:
    """A message with these properties and the body of `like`, arriving now."""
    payload = b"\x00\x3c\x00\x00" + like.size.to_bytes(8, "big") + p.join(properties)
    native = frame(HEADER, like.native[1] << 8 | like.native[2], payload) + body_frame
    expires = 0
    expiration = properties.get(p.EXPIRATION)
    if expiration is not None:
        expires = expiry(expiration[1:], now)
    return Message(address, AMQP091, native, like.body, like.size, like.durable, like.priority, expires, now)


def for_channel(native: bytes, channel: int) -> bytes:
    """The frames of `native` on another channel."""
    number = bytes([channel >> 8, channel & 255])
    end = header_end(native) + 1
    if len(native) == end:
        return native[:1] + number + native[3:]
    return b"".join((native[:1], number, native[3:end + 1], number, native[end + 3:]))


def content_frames(message: Message, channel: int, frame_max: int) -> list[bytes]:
    """All frames of a message's content, none larger than frame_max bytes: the way for long bodies."""
    most = frame_max - 8
    number = bytes([channel >> 8, channel & 255])
    native = message.native
    parts = [native[:1] + number + native[3:header_end(native) + 1]]
    for piece in body_pieces(message):
        for at in range(0, len(piece), most):
            part = piece if len(piece) <= most else piece[at:at + most]
            parts.append(bytes([BODY]) + number + pack32(len(part)))
            parts.append(part)
            parts.append(b"\xce")
    return parts


def _fill(view: View, values: dict[int, Any]) -> None:
    headers: dict[str, Any] = values.get(p.HEADERS, {})
    view.headers = headers
    view.durable = values.get(p.DELIVERY_MODE) == 2
    view.priority = values.get(p.PRIORITY)
    expiration = values.get(p.EXPIRATION, "")
    if expiration.isascii() and expiration.isdigit():
        view.ttl = int(expiration) if int(expiration) <= _ABSOLUTE else None
    view.absolute_expiry_time = headers.get("x-opt-absolute-expiry-time")
    if p.TIMESTAMP in values:
        view.creation_time = headers.get("x-opt-creation-time", values[p.TIMESTAMP] * 1000)
    view.message_id = headers.get("x-message-id", values.get(p.MESSAGE_ID))
    view.correlation_id = headers.get("x-correlation-id", values.get(p.CORRELATION_ID))
    user = values.get(p.USER_ID)
    kept = headers.get("x-user-id")
    view.user_id = user.encode("utf-8", "surrogateescape") if user is not None else kept \
        if isinstance(kept, bytes) else None
    view.to = headers.get("x-amqp-to")
    view.subject = headers.get("qpid.subject", values.get(p.TYPE))
    view.reply_to = values.get(p.REPLY_TO)
    view.content_type = values.get(p.CONTENT_TYPE)
    view.content_encoding = values.get(p.CONTENT_ENCODING)
    view.group_id = headers.get("JMSXGroupID")
    view.group_sequence = headers.get("JMSXGroupSeq")
    view.reply_to_group_id = headers.get("x-opt-reply-to-group-id")
    view.app_id = values.get(p.APP_ID)
    view.cluster_id = values.get(p.CLUSTER_ID)
    view.annotations = {name: value for name, value in headers.items() if name.startswith("x-opt-")}
    listed = headers.get("x-death")
    if isinstance(listed, list):
        view.deaths = [read_death(death, 1) for death in listed if isinstance(death, dict)]


def _write_death(death: Death) -> bytes:
    table: dict[str, Any] = {"reason": death.reason, "queue": death.queue, "time": Timestamp(death.time),
                             "exchange": death.exchange, "routing-keys": death.routing_keys}
    if death.original_expiration is not None:
        table["original-expiration"] = death.original_expiration
    count = b"l" + death.count.to_bytes(8, "big")  # always 64 bits, as RabbitMQ writes it
    return b"F" + p.join_table({"count": count, **{name: write_value(value) for name, value in table.items()}})


def _amend_headers(found: dict[int, bytes], amendment: Amendment) -> None:
    if amendment.deaths is None and not amendment.headers and not amendment.drop_headers and not amendment.annotations:
        return
    entries = p.split_table(found[p.HEADERS]) if p.HEADERS in found else {}
    for name in amendment.drop_headers:
        entries.pop(name, None)
    for name, number in amendment.headers.items():
        entries[name] = b"l" + number.to_bytes(8, "big", signed=True)
    if amendment.annotations:
        entries.update(tables.FIELDS.write_entries({
            name: value for name, value in amendment.annotations.items() if len(name.encode()) <= LONGEST}))
    deaths = amendment.deaths
    if deaths:
        entries["x-death"] = b"A" + long_string(b"".join(_write_death(death) for death in deaths))
        if "x-first-death-queue" not in entries:
            for name, value in (("reason", deaths[0].reason), ("queue", deaths[0].queue),
                                ("exchange", deaths[0].exchange)):
                entries[f"x-first-death-{name}"] = write_value(value)
    if entries:
        found[p.HEADERS] = p.join_table(entries)
    else:
        found.pop(p.HEADERS, None)
