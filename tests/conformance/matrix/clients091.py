"""pika in the matrix; and a client without a library, which sends and reads what pika has no way to say or to see."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pika

from tests.conformance.matrix.bytes091 import FIELDS, read_message, write_properties
from tests.conformance.matrix.notation import Side, Value
from tests.conformance.matrix.proton_client import same
from tests.wire import Client, Peer, raw_frame, raw_header, raw_method, shortstr


class Pika:
    name = "pika"
    dialect = "nine"

    def __init__(self, url: str) -> None:
        self.connection = pika.BlockingConnection(pika.URLParameters(url))

    def close(self) -> None:
        self.connection.close()

    @staticmethod
    def can_send(side: Side) -> bool:
        try:
            encoded = b"".join(_basic_properties(side).encode())
        except (pika.exceptions.AMQPError, Unsendable, AssertionError):
            return False
        return read_message(encoded, bytes.fromhex(side["body"][1])) == side

    @staticmethod
    def can_read(side: Side) -> bool:
        try:
            pika.BasicProperties().decode(write_properties(side))
        except (ValueError, OverflowError):
            return False
        return True

    def send(self, queue: str, sides: list[Side]) -> None:
        channel = self.connection.channel()
        channel.confirm_delivery()
        for side in sides:
            channel.basic_publish("", queue, bytes.fromhex(side["body"][1]), _basic_properties(side))
        channel.close()

    def read(self, queue: str, count: int) -> list[tuple[None, tuple[Any, bytes]]]:
        channel = self.connection.channel()
        found: list[tuple[None, tuple[Any, bytes]]] = []
        for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=20):
            assert method is not None, f"only {len(found)} of {count} messages came"
            found.append((None, (properties, body)))
            if len(found) == count:
                break
        channel.close()
        return found

    def same(self, shown: tuple[Any, bytes], side: Side) -> bool:
        """Whether a message that was read is, to an application, what this side says."""
        expected = pika.BasicProperties().decode(write_properties(side))
        return shown[1] == bytes.fromhex(side["body"][1]) and same(vars(shown[0]), vars(expected))

    @staticmethod
    def kind(value: Value) -> str:
        decoded = pika.BasicProperties().decode(write_properties({"headers": {"v": value}}))
        return type(decoded.headers["v"]).__name__


class Raw:
    """Bytes as they are, with no library between."""

    name = "raw"
    dialect = "nine"

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        self.client = Client(Peer(parameters.host, parameters.port)).open()
        self.channel = self.client.channel()

    def close(self) -> None:
        self.client.close()

    @staticmethod
    def can_send(side: Side) -> bool:
        return read_message(write_properties(side), bytes.fromhex(side["body"][1])) == side

    can_read = can_send

    def send(self, queue: str, sides: list[Side]) -> None:
        number = self.channel.number
        for side in sides:
            body = bytes.fromhex(side["body"][1])
            self.client.write(raw_method(number, 60, 40, b"\0\0\0" + shortstr(queue) + b"\0")
                              + raw_header(number, len(body), write_properties(side))
                              + (raw_frame(3, number, body) if body else b""))
        assert self.channel.count(queue) <= len(sides)  # a client of MQTT may have taken some

    def read(self, queue: str, count: int) -> list[tuple[Side, None]]:
        found: list[tuple[Side, None]] = []
        for _ in range(count):
            self.client.write(raw_method(self.channel.number, 60, 70, b"\0\0" + shortstr(queue) + b"\1"))
            assert self.client.read_raw()[7:11] == b"\0\x3c\0\x47", f"only {len(found)} of {count} messages came"
            head = self.client.read_raw()[7:-1]
            body = b""
            while len(body) < int.from_bytes(head[4:12], "big"):
                body += self.client.read_raw()[7:-1]
            found.append((read_message(head[12:], body), None))
        return found


class Unsendable(Exception):
    """There is nothing in Python that pika makes this of."""


def _basic_properties(side: Side) -> pika.BasicProperties:
    """Raises: Unsendable."""
    properties = pika.BasicProperties()
    for name in FIELDS:
        if name == "headers":
            value: Any = {key: _python(each) for key, each in side[name].items()} if name in side else None
        elif name in side:
            kind, content = side[name]
            value = int(content) if kind == "number" else _text(bytes.fromhex(content))
        else:
            continue
        setattr(properties, name.replace("-", "_"), value)
    return properties


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Unsendable from None


def _python(value: Value) -> Any:
    """What an application gives pika for a field value. Raises: Unsendable."""
    kind, content = value
    if kind in ("t", "V"):
        return content
    if kind == "S":
        if not content.isprintable() and "\udc80" <= max(content) <= "\udcff":
            raise Unsendable
        return content
    if kind == "x":
        return bytes.fromhex(content)
    if kind == "D":
        return decimal.Decimal(content[0]).scaleb(-int(content[1]))
    if kind == "T":
        try:
            return datetime.datetime.fromtimestamp(int(content), datetime.UTC)
        except (ValueError, OverflowError, OSError):
            raise Unsendable from None
    if kind == "A":
        return [_python(each) for each in content]
    if kind == "F":
        return {name: _python(each) for name, each in content}
    if kind in ("f", "d"):
        raise Unsendable
    return int(content)
