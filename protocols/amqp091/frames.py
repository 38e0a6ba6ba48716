"""The methods of AMQP 0-9-1 and its variants, as data, and frames made from them.

A line says class, method, name and fields; consecutive bits share octets (section 4.2.5.2). 0-9 and 0-8 are given by
where they differ. The extensions are RabbitMQ's (exchange.bind, basic.nack, confirm, connection.blocked,
update-secret) and Qpid's (exchange.bound, recover-sync).
"""

from __future__ import annotations

from typing import Any, Final

from protocols.amqp091.codec import Malformed, long_string, read_table, short_string, text, u16, u32, u64, write_table

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
"""Frame types (section 4.2.3)."""

END: Final = 0xCE

HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_COMMON = """
10 10 connection.start version-major:octet version-minor:octet server-properties:table mechanisms:long locales:long
10 11 connection.start-ok client-properties:table mechanism:short response:long locale:short
10 20 connection.secure challenge:long
10 21 connection.secure-ok response:long
10 30 connection.tune channel-max:u16 frame-max:u32 heartbeat:u16
10 31 connection.tune-ok channel-max:u16 frame-max:u32 heartbeat:u16
10 40 connection.open virtual-host:short capabilities:short insist:bit
10 41 connection.open-ok known-hosts:short
10 50 connection.close reply-code:u16 reply-text:short class-id:u16 method-id:u16
10 51 connection.close-ok
10 60 connection.blocked reason:short
10 61 connection.unblocked
10 70 connection.update-secret new-secret:long reason:short
10 71 connection.update-secret-ok
20 10 channel.open out-of-band:short
20 11 channel.open-ok channel-id:long
20 20 channel.flow active:bit
20 21 channel.flow-ok active:bit
20 40 channel.close reply-code:u16 reply-text:short class-id:u16 method-id:u16
20 41 channel.close-ok
30 10 access.request realm:short exclusive:bit passive:bit active:bit write:bit read:bit
30 11 access.request-ok ticket:u16
40 10 exchange.declare ticket:u16 exchange:short type:short passive:bit durable:bit auto-delete:bit internal:bit \
nowait:bit arguments:table
40 11 exchange.declare-ok
40 20 exchange.delete ticket:u16 exchange:short if-unused:bit nowait:bit
40 21 exchange.delete-ok
40 22 exchange.bound exchange:short routing-key:short queue:short
40 23 exchange.bound-ok reply-code:u16 reply-text:short
40 30 exchange.bind ticket:u16 destination:short source:short routing-key:short nowait:bit arguments:table
40 31 exchange.bind-ok
40 40 exchange.unbind ticket:u16 destination:short source:short routing-key:short nowait:bit arguments:table
40 51 exchange.unbind-ok
50 10 queue.declare ticket:u16 queue:short passive:bit durable:bit exclusive:bit auto-delete:bit nowait:bit \
arguments:table
50 11 queue.declare-ok queue:short message-count:u32 consumer-count:u32
50 20 queue.bind ticket:u16 queue:short exchange:short routing-key:short nowait:bit arguments:table
50 21 queue.bind-ok
50 30 queue.purge ticket:u16 queue:short nowait:bit
50 31 queue.purge-ok message-count:u32
50 40 queue.delete ticket:u16 queue:short if-unused:bit if-empty:bit nowait:bit
50 41 queue.delete-ok message-count:u32
50 50 queue.unbind ticket:u16 queue:short exchange:short routing-key:short arguments:table
50 51 queue.unbind-ok
60 10 basic.qos prefetch-size:u32 prefetch-count:u16 global:bit
60 11 basic.qos-ok
60 20 basic.consume ticket:u16 queue:short consumer-tag:short no-local:bit no-ack:bit exclusive:bit nowait:bit \
arguments:table
60 21 basic.consume-ok consumer-tag:short
60 30 basic.cancel consumer-tag:short nowait:bit
60 31 basic.cancel-ok consumer-tag:short
60 40 basic.publish ticket:u16 exchange:short routing-key:short mandatory:bit immediate:bit
60 50 basic.return reply-code:u16 reply-text:short exchange:short routing-key:short
60 60 basic.deliver consumer-tag:short delivery-tag:u64 redelivered:bit exchange:short routing-key:short
60 70 basic.get ticket:u16 queue:short no-ack:bit
60 71 basic.get-ok delivery-tag:u64 redelivered:bit exchange:short routing-key:short message-count:u32
60 72 basic.get-empty cluster-id:short
60 80 basic.ack delivery-tag:u64 multiple:bit
60 90 basic.reject delivery-tag:u64 requeue:bit
60 100 basic.recover-async requeue:bit
60 110 basic.recover requeue:bit
60 111 basic.recover-ok
60 120 basic.nack delivery-tag:u64 multiple:bit requeue:bit
85 10 confirm.select nowait:bit
85 11 confirm.select-ok
90 10 tx.select
90 11 tx.select-ok
90 20 tx.commit
90 21 tx.commit-ok
90 30 tx.rollback
90 31 tx.rollback-ok
"""

_ONLY_09 = """
20 60 channel.ping
20 70 channel.pong
20 80 channel.ok
60 101 basic.recover-sync-ok
60 102 basic.recover-sync requeue:bit
"""

_ONLY_08 = """
10 50 connection.redirect host:short known-hosts:short
10 60 connection.close reply-code:u16 reply-text:short class-id:u16 method-id:u16
10 61 connection.close-ok
20 11 channel.open-ok
60 20 basic.consume ticket:u16 queue:short consumer-tag:short no-local:bit no-ack:bit exclusive:bit nowait:bit \
arguments:table?
60 101 basic.recover-sync-ok
60 102 basic.recover-sync requeue:bit
"""
"""Qpid's 0-8 has arguments for basic.consume, and the specification has not: hence `table?`, which may be missing."""


class Method:
    """A method: its numbers, its name, its fields."""

    __slots__ = ("class_id", "method_id", "name", "fields")

    def __init__(self, class_id: int, method_id: int, name: str, fields: list[tuple[str, str]]) -> None:
        self.class_id = class_id
        self.method_id = method_id
        self.name = name
        self.fields = fields

    def decode(self, data: bytes, at: int, end: int) -> dict[str, Any]:
        """Arguments by name: numbers, truth values, text (short), bytes (long), tables. Raises: Malformed."""
        values: dict[str, Any] = {}
        bit = 0
        for name, kind in self.fields:
            if kind == "bit":
                if bit & 7 == 0:
                    at += 1
                    if at > end:
                        raise Malformed(f"{self.name} ends before its field {name}")
                values[name] = bool(data[at - 1] >> (bit & 7) & 1)
                bit += 1
                continue
            bit = 0
            if kind == "table?":
                if at == end:
                    values[name] = {}
                    continue
                kind = "table"
            width = _least_width(kind)
            if at + width > end:
                raise Malformed(f"{self.name} ends before its field {name}")
            if kind == "short":
                width += data[at]
            elif kind == "long" or kind == "table":
                width += u32(data, at)
            if at + width > end:
                raise Malformed(f"field {name} of {self.name} does not fit")
            values[name] = _read(kind, data, at, at + width)
            at += width
        if at != end:
            raise Malformed(f"{self.name} has {end - at} bytes too many")
        return values

    def encode(self, channel: int, values: dict[str, Any]) -> bytes:
        """The whole frame; fields that are not given are zero or empty. Raises: ValueError."""
        parts = [bytes([self.class_id >> 8, self.class_id & 255, self.method_id >> 8, self.method_id & 255])]
        bits = -1
        octet = 0
        for name, kind in self.fields:
            value = values.get(name)
            if kind == "bit":
                bits += 1
                if bits == 8:
                    parts.append(bytes([octet]))
                    bits = octet = 0
                octet |= bool(value) << bits
                continue
            if bits >= 0:
                parts.append(bytes([octet]))
                bits = -1
                octet = 0
            parts.append(_write(kind, value))
        if bits >= 0:
            parts.append(bytes([octet]))
        return frame(METHOD, channel, b"".join(parts))


def _least_width(kind: str) -> int:
    return {"octet": 1, "u16": 2, "u32": 4, "u64": 8, "short": 1}.get(kind, 4)


def _read(kind: str, data: bytes, at: int, end: int) -> Any:
    if kind == "short":
        return text(data[at + 1:end])
    if kind == "u16":
        return u16(data, at)
    if kind == "u32":
        return u32(data, at)
    if kind == "u64":
        return u64(data, at)
    if kind == "octet":
        return data[at]
    if kind == "long":
        return data[at + 4:end]
    return read_table(data, at + 4, end)


def _write(kind: str, value: Any) -> bytes:
    if kind == "short":
        return short_string(value or "")
    if kind == "long":
        return long_string(value or b"")
    if kind == "table" or kind == "table?":
        return write_table(value or {})
    number: int = value or 0
    return number.to_bytes(_least_width(kind), "big")


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    size = len(payload)
    return bytes([kind, channel >> 8, channel & 255, size >> 24, size >> 16 & 255, size >> 8 & 255, size & 255]) \
        + payload + b"\xce"


class Variant:
    """A version of the protocol: its methods by number and by name."""

    __slots__ = ("name", "major", "minor", "by_number", "by_name")

    def __init__(self, name: str, major: int, minor: int, lines: str, without: tuple[str, ...] = ()) -> None:
        self.name = name
        self.major = major  # as connection.start announces it
        self.minor = minor
        self.by_number: dict[int, Method] = {}
        self.by_name: dict[str, Method] = {}
        for line in lines.replace("\\\n", "").splitlines():
            if line:
                class_id, method_id, method, *fields = line.split()
                if not method.startswith(without or ("-",)):
                    self._add(Method(int(class_id), int(method_id), method,
                                     [(field.split(":")[0], field.split(":")[1]) for field in fields]))

    def _add(self, method: Method) -> None:
        """Later lines replace earlier ones of the same number or name."""
        former = self.by_name.pop(method.name, None)
        if former is not None:
            del self.by_number[former.class_id << 16 | former.method_id]
        number = method.class_id << 16 | method.method_id
        taken = self.by_number.pop(number, None)
        if taken is not None:
            del self.by_name[taken.name]
        self.by_number[number] = method
        self.by_name[method.name] = method

    def encode(self, method: str, channel: int, **values: Any) -> bytes:
        """A method's frame; a hyphen in a field's name is an underscore here."""
        return self.by_name[method].encode(channel, {name.replace("_", "-"): value for name, value in values.items()})


V091 = Variant("AMQP 0-9-1", 0, 9, _COMMON)
V09 = Variant("AMQP 0-9", 0, 9, _COMMON + _ONLY_09)
V08 = Variant("AMQP 0-8", 8, 0, _COMMON + _ONLY_08, ("connection.blocked", "connection.unblocked", "confirm."))

PROTOCOL_HEADERS = {b"AMQP\x00\x00\x09\x01": V091, b"AMQP\x01\x01\x00\x09": V09, b"AMQP\x01\x01\x08\x00": V08,
                    b"AMQP\x01\x01\x09\x01": V08}
"""What a client sends first, and what it gets (the last is how some libraries write 0-8)."""
