"""What consumers want by their arguments, what their queue gives them to want, and queues that are looked at only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from broker_kit import Reader, Running, body_of

from broker.entry import Entry
from broker.errors import AccessRefused, PreconditionFailed
from broker.filters import wanted
from broker.message import Message
from broker.queue import Queue

SELECTOR = {"x-filter-jms-selector": "group = 'a'"}


class Looker(Reader):
    """Remembers what it was shown."""

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue, "looker")
        self.shown = b""

    def deliver(self, entry: Entry, message: Message) -> None:
        super().deliver(entry, message)
        self.shown += body_of(message)


def fill(one: Running, durable: bool = False) -> None:
    for number, group in enumerate("abab"):
        one.publish("", "q", b"%d" % number, durable, 0, group)
        one.clock.now += 1000


def reader_of(queue: Queue, arguments: dict[str, Any]) -> Looker:
    reader = Looker(queue)
    wants = wanted(arguments, repr(queue))
    reader.choose(wants.selector, wants.replay_period)
    reader.room = 100
    queue.add(reader)
    return reader


def bodies(reader: Looker) -> str:
    return reader.shown.decode()


@pytest.mark.parametrize("filters, arguments, expected", [
    ({"f": {"x-filter-jms-selector": ["group = 'a'"]}}, {}, "02"),
    (SELECTOR, {"x-filter-jms-selector": "group = 'b'"}, "13"),
    ('{"x-qpid-replay-period": {"x-qpid-replay-period": ["2"]}}', {}, "23"),
    ({"x-qpid-replay-period": 2}, {"x-qpid-replay-period": "3"}, "123"),
    ({"x-qpid-replay-period": 3, **SELECTOR}, {}, "2"),
    ({"x-qpid-replay-period": 0}, {}, ""),
    (None, {"x-qpid-replay-period": 1}, "3"),
    (None, {"x-qpid-replay-period": 1000}, "0123"),
    (None, SELECTOR, "02"),
    (None, {}, "0123"),
])
def test_filters(tmp_path: Path, filters: Any, arguments: dict[str, Any], expected: str) -> None:
    one = Running(tmp_path, keep=100)
    queue = one.queue("q", {} if filters is None else {"qpid.default_filters": filters})
    fill(one)
    reader = reader_of(queue, arguments)
    assert bodies(reader) == expected
    one.publish("", "q", b"new", False, 0, "a")
    assert bodies(reader).endswith("new") is (arguments.get("x-filter-jms-selector") != "group = 'b'")
    one.close()


@pytest.mark.parametrize("filters", [
    {"f": {"x-filter-jms-selector": ["group ="]}}, {"f": {"x-unknown": ["a"]}}, {"x-qpid-replay-period": "long"},
    {"f": {"x-filter-jms-selector": ["a", "b"]}}, {"f": 5}, {"x-filter-jms-selector": None}])
def test_wrong_filters(tmp_path: Path, filters: Any) -> None:
    one = Running(tmp_path, keep=100)
    with pytest.raises(PreconditionFailed):
        one.queue("q", {"qpid.default_filters": filters})
    assert "q" not in one.host.queues
    one.close()


@pytest.mark.parametrize("argument", ["qpid.browse-only", "qpid.ensure_nondestructive_consumers"])
def test_browse_only(tmp_path: Path, argument: str) -> None:
    """Everybody sees everything, nobody takes it, before and after a restart."""
    one = Running(tmp_path, keep=2)
    queue = one.queue("q", {argument: True})
    fill(one, durable=True)
    assert [bodies(reader_of(queue, arguments)) for arguments in ({}, SELECTOR, {})] == ["0123", "02", "0123"]
    one.publish("", "q", b"4", True, 0, "c")
    assert queue.ready == 5 and queue.unsettled == 0
    with pytest.raises(AccessRefused):
        queue.get()
    one.close()
    one = Running(tmp_path, keep=2)
    queue = one.host.queue("q")
    assert bodies(reader_of(queue, {})) == "01234" and queue.ready == 5
    one.close()
