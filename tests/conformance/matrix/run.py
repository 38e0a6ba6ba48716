"""The messages of the table on their way from one client to another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.conformance.matrix.notation import Side
from tests.conformance.matrix.table import Row, Table
from tests.conformance.support import Names, Target, amqp_connection

HOUR = 3_600_000


def pairs(table: Table, senders: Iterable[Any], readers: Iterable[Any]) -> list[Any]:
    """All (sender, reader, row) that can be, as parameters of a test."""
    return [pytest.param(sender, reader, row, id=f"{sender.name}-{reader.name}-{row.name}")
            for sender in senders for reader in readers for row in rows(table, sender, reader)]


def rows(table: Table, sender: Any, reader: Any) -> list[Row]:
    """What this sender can say and this reader can read."""
    return [row for row in table.rows
            if row.sent_by(sender.dialect) and sender.can_send(row.side(sender.dialect))
            and reader.can_read(row.side(reader.dialect))]


def unexplained(table: Table, client: Any) -> list[str]:
    """What a client cannot send or read without the table having a reason, and reasons for which there is nothing."""
    found: list[str] = []
    used: set[int] = set()
    for does, can in (("send", client.can_send), ("read", client.can_read)):
        for row in table.rows:
            side = row.side(client.dialect)
            if (does == "read" or row.sent_by(client.dialect)) and not can(side):
                limits = table.limits_of(client.name, does, side)
                used.update(map(id, limits))
                found += [] if limits else [f"{client.name} cannot {does} {row.name}"]
    return found + [f"{limit.client} can {limit.does} all: {limit.reason}" for limit in table.limits
                    if limit.client == client.name and id(limit) not in used]


class Running:
    """The runs between clients, each made when it is first asked for."""

    def __init__(self, table: Table, target: Target) -> None:
        self.table = table
        self.target = target
        self.names = Names(target)
        self._runs: dict[tuple[Any, Any], Run] = {}
        self._clients: dict[Any, Any] = {}

    def run(self, sender: Any, reader: Any) -> Run:
        if (sender, reader) not in self._runs:
            self._runs[sender, reader] = Run(self.table, self.target, self.names.queue(), self._client(sender),
                                             self._client(reader))
        return self._runs[sender, reader]

    def close(self) -> None:
        for each in self._clients.values():
            each.close()
        self.names.clean()

    def _client(self, kind: Any) -> Any:
        if kind not in self._clients:
            self._clients[kind] = kind(self.target.url)
        return self._clients[kind]


class Run:
    """All rows from one client to another, through a queue of its own. reads: what the reader got, by row."""

    def __init__(self, table: Table, target: Target, queue: str, sender: Any, reader: Any) -> None:
        self.queue = queue
        self.sender = sender
        self.reader = reader
        with amqp_connection(target) as connection:
            connection.channel().queue_declare(queue, auto_delete=False)
        ways = rows(table, sender, reader)
        sender.send(queue, [row.side(sender.dialect) for row in ways])
        self.got = dict(zip((row.name for row in ways), reader.read(queue, len(ways)), strict=True))

    def expected(self, row: Row) -> Side:
        """What the reader sees."""
        side = row.side(self.reader.dialect)
        if self.reader.dialect == self.sender.dialect or self.reader.dialect == "nine":
            return side
        route = {"x-exchange": ["string", ""], "x-routing-key": ["string", self.queue], "x-opt-jms-dest": ["byte", "0"]}
        if "reply-to" in side:
            route["x-opt-jms-reply-to"] = ["byte", "1" if "/" in side["reply-to"][1] else "0"]
        return {**side, "annotations": {**side.get("annotations", {}), **route}}


def check(run: Run, row: Row) -> None:
    """The reader got what the table says."""
    exact, shown = run.got[row.name]
    expected = run.expected(row)
    if exact is not None:
        assert plain(exact) == plain(expected)
    if shown is not None:
        assert run.reader.same(shown, expected), f"{shown} instead of {expected}"


def plain(side: Side) -> Side:
    """A side without what makes no difference: what has passed of a time to live (by the hour), and that a priority is
    4, which it is anyway when it is absent from a 1.0 header."""
    if "ttl" in side:
        return {**side, "ttl": ["uint", str(-(-int(side["ttl"][1]) // HOUR))]}
    return {name: value for name, value in side.items() if (name, value) != ("priority", ["ubyte", "4"])}
