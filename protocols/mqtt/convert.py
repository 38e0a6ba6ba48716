"""Messages of MQTT and the model: pure functions, no connection, no queue. content.py has their native form."""

from __future__ import annotations

from typing import Any

from broker.message import CONVERTERS, MQTT, Address, Amendment, Converter, Message
from broker.view import View
from protocols.markers import LONGEST
from protocols.mqtt import content
from protocols.mqtt.codec import binary
from protocols.mqtt.content import LONGEST_STRING, Malformed, body_pieces
from protocols.mqtt.properties import Properties, join, split
from protocols.mqtt.replies import response_topic
from protocols.mqtt.texts import TEXTS
from protocols.mqtt.translate import TTL, USER_PROPERTIES, deaths_entry, from_model, to_model, topic_for
from protocols.reply_to import split_address
from protocols.side_headers import tell_route


class MqttConverter(Converter):
    """The converter of this dialect."""

    def decode(self, message: Message) -> View:
        view = View()
        _read(view, message)
        return view

    def model(self, message: Message) -> View:
        view = View()
        p = _read(view, message)
        if p is not None:
            written = from_model(view).properties.pairs
            if written != p.pairs:
                view.annotations[USER_PROPERTIES] = [each.decode("utf-8", "replace") for each in p.pairs]
        tell_route(view, message.address.exchange, message.address.routing_key)
        return view

    def encode(self, view: View, like: Message) -> Message:
        written = from_model(view)
        pieces = written.payload
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        native = bytes([written.flags]) + written.who + binary(topic_for(like.address)) + join(
            written.properties)
        body: list[bytes] | None = None
        if size > content.ONE_PIECE:
            body = pieces
        elif size:
            native += pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return Message(like.address, MQTT, native, body, size, view.durable,
                       4 if view.priority is None else view.priority, like.expiry, like.arrival)

    def amend(self, message: Message, amendment: Amendment, address: Address, now: int) -> Message:
        native = message.native
        topic_at = content.topic_at(native)
        at = content.properties_at(native)
        topic = native[topic_at:at]
        if address.routing_key != message.address.routing_key:
            topic = binary(topic_for(address))
        expiry = 0
        try:
            p = split(native, at)
        except Malformed:  # it was checked when it was published, so the store has let it rot
            native = native[:topic_at] + topic + native[at:]
            return Message(address, MQTT, native, message.body, message.size, message.durable, message.priority, 0, now)
        _amend(p, amendment)
        if p.expiry >= 0:
            expiry = now + (p.expiry * 1000)
        payload = b"" if message.body is not None or not message.size else native[len(native) - message.size:]
        native = native[:topic_at] + topic + join(p) + payload
        return Message(address, MQTT, native, message.body, message.size, message.durable, message.priority, expiry,
                       now)

    def delivery_time(self, message: Message) -> int:
        return delivery_time(message)

    def expiration(self, message: Message) -> str | None:
        try:
            seconds = split(message.native, content.properties_at(message.native)).expiry
        except Malformed:
            return None
        return None if seconds < 0 else str(seconds * 1000)


CONVERTERS[MQTT] = MqttConverter()


def delivery_time(message: Message) -> int:
    """When a message is to be delivered, ms since the epoch: its arrival, unless a user property postpones it."""
    view = message.view()
    for when in (view.annotations.get("x-opt-delivery-time"), view.headers.get("x-qpid-not-valid-before")):
        if isinstance(when, int) and not isinstance(when, bool):
            return int(when)
    delay = view.annotations.get("x-opt-delivery-delay")
    if isinstance(delay, int) and not isinstance(delay, bool) and delay > 0:
        return message.arrival + delay
    return message.arrival


def _read(view: View, message: Message) -> Properties | None:
    """Fill the view. Gives the properties when not all of them are in it as they would be written again."""
    native = message.native
    pieces = body_pieces(message)
    try:
        p = split(native, content.properties_at(native))
    except (Malformed, IndexError):  # it was checked when it was published, so the store has let it rot
        view.body = pieces
        return None
    return None if to_model(view, native, p, pieces) else p


def _amend(p: Properties, amendment: Amendment) -> None:
    if amendment.drop_expiration:
        p.expiry = -1
        _drop(p.pairs, TTL.encode())
    if amendment.reply_to is not None:
        topic = response_topic(*split_address(amendment.reply_to)).encode("utf-8", "replace")
        if topic and len(topic) <= LONGEST_STRING:
            p.response_topic = topic
            _drop(p.pairs, b"x-opt-reply-to")
    for name in amendment.drop_headers:
        _drop(p.pairs, name.encode("utf-8", "replace"))
    values: dict[str, Any] = dict(amendment.headers)
    values.update({name: value for name, value in amendment.annotations.items() if len(name.encode()) <= LONGEST})
    entries = TEXTS.write_entries(values) if values else {}
    deaths = amendment.deaths
    if deaths:
        entries["x-death"] = deaths_entry(deaths)
        if b"x-first-death-queue" not in p.pairs[::2]:
            for name, first in (("reason", deaths[0].reason), ("queue", deaths[0].queue),
                                ("exchange", deaths[0].exchange)):
                entries[f"x-first-death-{name}"] = first.encode("utf-8", "replace")
    for name, data in entries.items():
        key = name.encode("utf-8", "replace")
        _drop(p.pairs, key)
        if len(data) <= LONGEST_STRING:
            p.pairs.append(key)
            p.pairs.append(data)


def _drop(pairs: list[bytes], name: bytes) -> None:
    """Remove all user properties of this name."""
    at = 0
    while at < len(pairs):
        if pairs[at] == name:
            del pairs[at:at + 2]
        else:
            at += 2
