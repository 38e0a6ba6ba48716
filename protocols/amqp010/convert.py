"""Messages of 0-10 and the model: pure functions, no connection, no queue. content.py has their native form."""

from __future__ import annotations

import uuid
from typing import Any, Final

from broker.message import AMQP010, AMQP010_JMS, CONVERTERS, Address, Amendment, Converter, Message
from broker.view import View
from protocols import maps010
from protocols.amqp010 import properties
from protocols.amqp010.codec import Malformed, text
from protocols.amqp010.content import body_pieces, build, header_segment
from protocols.amqp010.properties import Properties
from protocols.amqp010.translate import (
    JMS_TYPE,
    MAPS,
    MILLISECONDS,
    RAW_HEADERS,
    deaths_entry,
    from_model,
    set_reply_to,
    to_model,
)
from protocols.deaths import read_death
from protocols.markers import LONGEST
from protocols.reply_to import join_address, split_address
from protocols.side_headers import SUBJECT

NOT_BEFORE: Final = b"x-qpid-not-valid-before"
"""The header of a message that is to be delivered later: ms since the epoch."""


class Amqp010Converter(Converter):
    """The converter of this dialect.

    jms: what is encoded is for JMS clients, who know maps and lists by other names.
    """

    def __init__(self, jms: bool) -> None:
        self.jms = jms

    def decode(self, message: Message) -> View:
        view = View()
        view.body = body_pieces(message)
        try:
            _fill(view, properties.split(header_segment(message)))
        except Malformed:  # it was checked when it was published, so the store has let it rot
            pass
        return view

    def model(self, message: Message) -> View:
        view = View()
        try:
            found = properties.split(header_segment(message))
        except Malformed:
            view.body = body_pieces(message)
            return view
        to_model(message, found, body_pieces(message), view)
        return view

    def encode(self, view: View, like: Message) -> Message:
        found, pieces = from_model(view, like, self.jms)
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        _set_route(found, like.address)
        native, body = build(properties.join(found, size), pieces, size)
        return Message(like.address, AMQP010, native, body, size, view.durable,
                       4 if view.priority is None else view.priority, like.expiry, like.arrival)

    def amend(self, message: Message, amendment: Amendment, address: Address, now: int) -> Message:
        found = properties.split(header_segment(message))
        if amendment.drop_expiration:
            found.ttl = found.expiration = -1
        if amendment.reply_to is not None:
            found.has_message = True
            set_reply_to(found, *split_address(amendment.reply_to))
        _amend_headers(found, amendment)
        _set_route(found, address)
        expiry = 0
        if found.ttl >= 0:
            expiry = now + found.ttl
            found.expiration = -(-expiry // 1000) & 0xFFFFFFFFFFFFFFFF
        elif found.expiration > 0:
            expiry = _milliseconds(found.expiration)
        native, body = build(properties.join(found, message.size), body_pieces(message), message.size)
        return Message(address, AMQP010, native, body, message.size, message.durable, message.priority, expiry, now)

    def delivery_time(self, message: Message) -> int:
        when = message.view().headers.get(NOT_BEFORE.decode())
        return int(when) if isinstance(when, int) and not isinstance(when, bool) else 0

    def expiration(self, message: Message) -> str | None:
        ttl = properties.split(header_segment(message)).ttl
        return None if ttl < 0 else str(ttl)


CONVERTERS[AMQP010] = Amqp010Converter(False)
CONVERTERS[AMQP010_JMS] = Amqp010Converter(True)


def _set_route(found: Properties, address: Address) -> None:
    names = address.short_strings
    size = names[0]
    found.exchange = names[1:size + 1]
    found.routing_key = names[size + 2:]


def _milliseconds(written: int) -> int:
    """A time in ms: those that can be no seconds are that already."""
    return written if written > MILLISECONDS else written * 1000


def _fill(view: View, p: Properties) -> None:
    """The message in the dialect's own terms."""
    headers: dict[str, Any] = {}
    if p.headers is not None:
        try:
            headers = maps010.read_map(p.headers)
        except ValueError:
            pass
    view.headers = headers
    view.durable = p.delivery_mode == 2
    view.priority = p.priority if p.priority >= 0 else None
    view.ttl = p.ttl if p.ttl >= 0 else None
    view.absolute_expiry_time = _milliseconds(p.expiration) if p.expiration >= 0 else None
    if p.timestamp >= 0:
        view.creation_time = headers.get("x-opt-creation-time", _milliseconds(p.timestamp))
    if p.message_id is not None:
        view.message_id = headers.get("x-message-id", uuid.UUID(bytes=p.message_id))
    if p.correlation_id is not None:
        view.correlation_id = text(p.correlation_id)
    view.user_id = p.user_id
    view.to = headers.get("x-amqp-to")
    view.subject = headers.get(SUBJECT, headers.get(JMS_TYPE))
    if p.has_reply_to:
        view.reply_to = join_address(text(p.reply_exchange or b""), text(p.reply_key or b""))
    view.content_type = None if p.content_type is None else text(p.content_type)
    view.content_encoding = None if p.content_encoding is None else text(p.content_encoding)
    view.app_id = None if p.app_id is None else text(p.app_id)
    view.group_id = headers.get("JMSXGroupID")
    view.group_sequence = headers.get("JMSXGroupSeq")
    view.reply_to_group_id = headers.get("x-opt-reply-to-group-id")
    view.cluster_id = headers.get("x-cluster-id")
    view.annotations = {name: value for name, value in headers.items() if name.startswith("x-opt-")}
    listed = headers.get("x-death")
    if isinstance(listed, list):
        view.deaths = [read_death(death, 1000) for death in listed if isinstance(death, dict)]


def _amend_headers(found: Properties, amendment: Amendment) -> None:
    deaths = amendment.deaths
    if deaths is None and not amendment.headers and not amendment.drop_headers and not amendment.annotations:
        return
    entries: dict[str, bytes] = {}
    if found.headers is not None:
        try:
            entries = maps010.split_map(found.headers)
        except ValueError:  # no map at all: a client's own affair, which is kept as such
            entries = {RAW_HEADERS: MAPS.known(found.headers)}
    for name in amendment.drop_headers:
        entries.pop(name, None)
    for name, number in amendment.headers.items():
        entries[name] = b"\x31" + number.to_bytes(8, "big", signed=True)
    if amendment.annotations:
        entries.update(MAPS.write_entries({
            name: value for name, value in amendment.annotations.items() if len(name.encode()) <= LONGEST}))
    if deaths:
        entries["x-death"] = deaths_entry(deaths)
        if "x-first-death-queue" not in entries:
            for name, first in (("reason", deaths[0].reason), ("queue", deaths[0].queue),
                                ("exchange", deaths[0].exchange)):
                entries[f"x-first-death-{name}"] = MAPS.text(first)
    found.has_message = True
    found.headers = maps010.join_map(entries) if entries else None
