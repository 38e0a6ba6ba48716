"""The messages of the table on their way from one client to another."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest

from tests.conformance.matrix.notation import Side
from tests.conformance.matrix.table import Row, Table
from tests.conformance.support import Names, Target, amqp_connection

HOUR = 3_600_000


def ways(table: Table, senders: Iterable[Any], readers: Iterable[Any]) -> list[Any]:
    """All (sender, reader, row) that can be, as parameters of a test."""
    return [pytest.param(sender, reader, row, id=f"{sender.name}-{reader.name}-{row.name}")
            for sender in senders for reader in readers for row in rows(table, sender, reader)]


def rows(table: Table, sender: Any, reader: Any) -> list[Row]:
    """What this sender can say and this reader can read."""
    return [row for row in table.rows
            if row.sent_by(sender.dialect) and sender.can_send(row.side(sender.dialect))
            and reader.can_read(row.side(reader.dialect))]


def check_limits(table: Table, client: Any) -> None:
    """The table says of all that a client cannot do that it cannot, and nothing beside."""
    used = []
    for does, can in (("send", client.can_send), ("read", client.can_read)):
        for row in table.rows:
            side = row.side(client.dialect)
            if not can(side) and (does == "read" or row.sent_by(client.dialect)):
                limits = [limit for limit in table.limits
                          if (limit.client, limit.does) == (client.name, does) and limit.covers(side)]
                assert limits, f"{client.name} cannot {does} {row.name}: {side}"
                used += limits
    assert [limit for limit in table.limits if limit.client == client.name and limit not in used] == []


class Run:
    """All rows from one client to another, through a queue of its own. got: what the reader read, by row."""

    def __init__(self, table: Table, target: Target, queue: str, sender: Any, reader: Any) -> None:
        self.queue = getattr(reader, "queue", queue)  # a client of MQTT has one of its own
        self.sender = sender
        self.reader = reader
        if self.queue == queue:
            with amqp_connection(target) as connection:
                connection.channel().queue_declare(queue, auto_delete=False)
        sent = rows(table, sender, reader)
        sender.send(self.queue, [row.side(sender.dialect) for row in sent])
        self.got = dict(zip((row.name for row in sent), reader.read(self.queue, len(sent)), strict=True))

    def expected(self, row: Row) -> Side:
        """What the reader sees."""
        side = row.side(self.reader.dialect)
        if self.sender.dialect == "mqtt":
            side = self._published(side)
        if self.reader.dialect == self.sender.dialect or self.reader.dialect != "ten":
            return side
        route = {"x-exchange": ["string", ""], "x-routing-key": ["string", self.queue], "x-opt-jms-dest": ["byte", "0"]}
        if "reply-to" in side:
            route["x-opt-jms-reply-to"] = ["byte", "1" if _is_topic(side["reply-to"][1]) else "0"]
        return {**side, "annotations": {**side.get("annotations", {}), **route}}

    def _published(self, side: Side) -> Side:
        """What readers of AMQP see of who has published it."""
        if self.reader.dialect == "mqtt":
            return side
        headers, text = {"ten": ("properties", "string"), "nine": ("headers", "S"), "zero": ("headers", "str16")}[
            self.reader.dialect]
        user = ["binary" if self.reader.dialect == "ten" else "bytes", b"guest".hex()]
        client = {"x-mqtt-client-id": [text, self.sender.client_id]}
        return {**side, "user-id": user, headers: {**side.get(headers, {}), **client}}

    def check(self, row: Row) -> None:
        """The reader got what the table says."""
        exact, shown = self.got[row.name]
        expected = self.expected(row)
        if exact is not None and self.reader.dialect == "mqtt":
            exact = _without_end(exact, expected)
        if exact is not None:
            assert plain(exact) == plain(expected)
        if shown is not None:
            assert self.reader.same(shown, expected), f"{shown} instead of {expected}"


class Runs:
    """The runs of a test session, each made when it is first asked for."""

    def __init__(self, table: Table, target: Target) -> None:
        self.table = table
        self.target = target
        self.names = Names(target)
        self.clients: dict[type, Any] = {}
        self.runs: dict[tuple[type, type], Run | str] = {}

    def run(self, sender: type, reader: type) -> Run:
        if (sender, reader) not in self.runs:
            try:
                self.runs[sender, reader] = Run(self.table, self.target, self.names.queue(), self._client(sender),
                                                self._client(reader))
            except Exception as error:  # it counts for every row; the next run gets connections of its own
                self.runs[sender, reader] = repr(error)
                for kind in {sender, reader} & set(self.clients):
                    with suppress(Exception):
                        self.clients.pop(kind).close()
        run = self.runs[sender, reader]
        assert isinstance(run, Run), run
        return run

    def _client(self, kind: type) -> Any:
        if kind not in self.clients:
            self.clients[kind] = kind(self.target.url)
        return self.clients[kind]

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        self.names.clean()


def _is_topic(address: str) -> bool:
    """Whether an answer goes to an exchange."""
    return address == "amq.topic" or "/" in address and not address.startswith("/queues/")


def _without_end(side: Side, expected: Side) -> Side:
    """A side of MQTT without its message expiry, when that is a time, or one of more than 32 bits, that only its sender
    has told the broker."""
    told = dict(expected.get("user-properties", ()))
    if "message-expiry" in expected or not {"x-opt-absolute-expiry-time", "x-opt-expiration"} & told.keys():
        return side
    return {name: value for name, value in side.items() if name != "message-expiry"}


def plain(side: Side) -> Side:
    """A side without what makes no difference: what has passed of a time to live (by the hour), and that a priority is
    4, which it is anyway when it is absent from a 1.0 header."""
    if "message-expiry" in side:
        side = {**side, "message-expiry": ["number", str(-(-int(side["message-expiry"][1]) // 3600))]}
    if "user-properties" in side:
        side = {**side, "user-properties": sorted(side["user-properties"], key=lambda pair: pair[0])}
    if side.get("ttl", ["number"])[0] == "uint":
        return {**side, "ttl": ["uint", str(-(-int(side["ttl"][1]) // HOUR))]}
    return {name: value for name, value in side.items() if (name, value) != ("priority", ["ubyte", "4"])}
