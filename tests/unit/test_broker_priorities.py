"""Which level of its queue a message is in, and whose turn it is among the levels."""

from __future__ import annotations

from pathlib import Path

import pytest
from broker_kit import Reader, Running, body_of

from broker.queue import Queue

EVERYTHING = 1_000_000


def read(queue: Queue, count: int = EVERYTHING) -> str:
    """What a reader gets, its messages' bodies in a row."""
    reader = Reader(queue, "reader")
    reader.room = count
    queue.add(reader)
    queue.remove(reader)
    return b"".join(body_of(entry.message) for entry in reader.entries if entry.message).decode()


@pytest.mark.parametrize("arguments, levels", [
    ({"qpid.priorities": 2}, "0000011111"),
    ({"qpid.priorities": "3"}, "0000122222"),
    ({"x-qpid-priorities": 4}, "0000123333"),
    ({"qpid.priorities": 9}, "0123456788"),
    ({"x-qpid-priorities": 10}, "0123456789"),
    ({"qpid.priorities": 20}, "0123456789"),
    ({"qpid.priorities": 1}, "0000000000"),
    ({"x-max-priority": 2}, "0122222222"),
])
def test_levels(tmp_path: Path, arguments: dict[str, object], levels: str) -> None:
    """As qpidd maps the ten priorities of AMQP to fewer levels, around the usual one; RabbitMQ's are the priorities."""
    one = Running(tmp_path, keep=100)
    queue = one.queue("q", arguments)
    for priority in range(10):
        one.publish("", "q", str(priority).encode(), False, priority)
    got = [(int(levels[int(number)]), number) for number in read(queue)]
    assert got == sorted(((int(levels[number]), str(number)) for number in range(10)),
                         key=lambda place: (-place[0], place[1]))
    one.close()


@pytest.mark.parametrize("arguments, messages, expected", [
    # At most two in a row of each level while others wait.
    ({"qpid.priorities": 10, "qpid.fairshare": 2}, "99999555550", "99550" + "9955" + "95"),
    # Only the highest has a share: what is below has one message in a turn.
    ({"qpid.priorities": 10, "qpid.fairshare-9": 3}, "9999999000", "999" + "0" + "999" + "0" + "9" + "0"),
    # A level's own share comes before that of all; those that are alone have no limit.
    ({"x-qpid-priorities": 10, "x-qpid-fairshare": 1, "x-qpid-fairshare-9": 3}, "99999994444", "9994999494" + "4"),
    ({"qpid.priorities": 10, "qpid.fairshare": 2}, "777777", "777777"),
    # The highest has no limit.
    ({"qpid.priorities": 10, "qpid.fairshare-3": 1}, "9999330", "9999303"),
    # No fair share.
    ({"qpid.priorities": 10}, "90929", "99920"),
])
def test_fair_share(tmp_path: Path, arguments: dict[str, object], messages: str, expected: str) -> None:
    one = Running(tmp_path, keep=100)
    queue = one.queue("q", arguments)
    for digit in messages:
        one.publish("", "q", digit.encode(), False, int(digit))
    assert read(queue) == expected
    one.close()


def test_fair_share_of_what_is_in_the_journal(tmp_path: Path) -> None:
    one = Running(tmp_path, keep=10)
    queue = one.queue("q", {"qpid.priorities": 10, "qpid.fairshare": 5})
    for number in range(600):
        one.publish("", "q", b"%d" % (9 * (number % 2)), True, 9 * (number % 2))
    one.close()
    one = Running(tmp_path, keep=10)
    queue = one.host.queue("q")
    assert read(queue) == ("99999" + "00000") * 60
    one.close()
