"""Distributed transactions in the core: each step of a branch's life, each error, and what a restart finds."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from broker_kit import Reader, body_of
from store_kit import Turns
from xa_kit import Bench

from broker.branch import Xid
from broker.broker import Broker, Watcher
from broker.clock import Alarm, Clock
from broker.errors import BrokerError, CommandInvalid, IllegalState, InvalidArgument, NotAllowed, NotFound
from broker.message import AMQP091, Message, address_of
from broker.outcome import ACCEPT, REJECT
from broker.search import claim
from broker.transaction import Publication, Transaction
from broker.xa import (
    XA_HEURCOM,
    XA_HEURRB,
    XA_OK,
    XA_RBROLLBACK,
    XA_RBTIMEOUT,
)
from store.memory import MemoryStore
from store.tools import check
from store.transfer import export, import_

ONE: Xid = (7, b"global", b"one")
TWO: Xid = (7, b"global", b"two")
JMS_LIKE: Xid = (0, bytes(range(64)), b"\xff" * 64)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return filled(tmp_path)


def filled(folder: Path) -> Bench:
    """Queue a with `old` in it, queue b with nothing."""
    bench = Bench(folder)
    bench.queue("a", {})
    bench.queue("b", {})
    bench.publish("", "a", b"old", True, 0)
    bench.loop.settle()
    return bench


# The life of a branch.


def test_two_phases(bench: Bench) -> None:
    bench.swap(ONE)
    assert bench.bodies("a") == [] and bench.bodies("b") == []
    assert bench.branches.recover() == []
    assert bench.prepare(ONE) == XA_OK
    assert bench.bodies("a") == [] and bench.bodies("b") == []
    assert bench.branches.recover() == [ONE]
    assert bench.commit(ONE) == XA_OK
    assert bench.bodies("a") == [] and bench.bodies("b") == [b"new"]
    assert bench.branches.recover() == [] and bench.branches.known == {}
    assert bench.queue("a", {}).unsettled == 0
    bench.close()


def test_one_phase(bench: Bench) -> None:
    bench.swap(JMS_LIKE)
    assert bench.commit_at_once(JMS_LIKE) == XA_OK
    assert bench.bodies("a") == [] and bench.bodies("b") == [b"new"]
    bench.publish("", "a", b"old", True, 0)
    bench.swap(JMS_LIKE, b"newer")  # the xid is free again
    assert bench.commit_at_once(JMS_LIKE) == XA_OK
    assert bench.bodies("b") == [b"new", b"newer"]


@pytest.mark.parametrize("prepared", [False, True])
def test_rollback(bench: Bench, prepared: bool) -> None:
    used = bench.broker.memory.used
    bench.swap(ONE)
    if prepared:
        assert bench.prepare(ONE) == XA_OK
    assert bench.rollback(ONE) == XA_OK
    assert bench.bodies("a") == [b"old"] and bench.bodies("b") == []
    assert bench.take(bench.queue("a", {})).redelivered
    assert bench.branches.known == {} and bench.broker.memory.used == used
    with pytest.raises(NotFound):
        bench.branches.rollback(ONE, bench.told.append)


def test_a_rolled_back_entry_goes_to_who_waits(bench: Bench) -> None:
    bench.swap(ONE)
    bench.prepare(ONE)
    reader = Reader(bench.queue("a", {}), "r")
    reader.room = 5
    bench.queue("a", {}).add(reader)
    assert reader.entries == []
    bench.rollback(ONE)
    assert [entry.message and body_of(entry.message) for entry in reader.entries] == [b"old"]


def test_sessions_join(bench: Bench) -> None:
    first = bench.begin(ONE, "s")
    assert bench.branches.start(ONE, "t", True, False) == XA_OK
    assert bench.branches.branch_of("t") is first
    bench.send(first, "b", b"1")
    with pytest.raises(IllegalState):
        bench.branches.prepare(ONE, bench.told.append)
    assert bench.branches.end(ONE, "s", False, False) == XA_OK
    for call in (bench.branches.prepare, bench.branches.rollback):
        with pytest.raises(IllegalState):
            call(ONE, bench.told.append)
    with pytest.raises(IllegalState):
        bench.branches.commit(ONE, True, bench.told.append)
    assert bench.branches.end(ONE, "t", False, False) == XA_OK
    assert bench.commit_at_once(ONE) == XA_OK
    assert bench.bodies("b") == [b"1"] and bench.told == []
    assert bench.branches.sessions == {} and bench.branches.active == {}


def test_suspend_and_resume(bench: Bench) -> None:
    branch = bench.begin(ONE)
    bench.send(branch, "b", b"1")
    assert bench.branches.end(ONE, "s", False, True) == XA_OK
    assert bench.branches.branch_of("s") is None
    other = bench.begin(TWO)
    bench.send(other, "b", b"2")
    assert bench.branches.end(TWO, "s", False, False) == XA_OK
    assert bench.branches.start(ONE, "s", False, True) == XA_OK
    assert bench.branches.branch_of("s") is branch
    bench.send(branch, "b", b"3")
    bench.branches.end(ONE, "s", False, True)
    assert bench.branches.end(ONE, "s", False, False) == XA_OK  # a suspended association is ended, too
    assert bench.commit_at_once(ONE) == XA_OK and bench.bodies("b") == [b"1", b"3"]
    assert bench.rollback(TWO) == XA_OK and bench.bodies("b") == [b"1", b"3"]


def test_a_suspended_association_does_not_keep_a_branch_from_its_end(bench: Bench) -> None:
    branch = bench.begin(ONE)
    bench.send(branch, "b", b"1")
    bench.branches.end(ONE, "s", False, True)
    assert bench.prepare(ONE) == XA_OK and bench.commit(ONE) == XA_OK
    assert bench.bodies("b") == [b"1"] and bench.branches.sessions == {}


def test_work_that_failed(bench: Bench) -> None:
    branch = bench.begin(ONE)
    entry = bench.take(bench.queue("a", {}))
    branch.settle(entry, ACCEPT)
    bench.branches.start(ONE, "t", True, False)
    assert bench.branches.end(ONE, "s", True, False) == XA_OK
    assert bench.bodies("a") == [b"old"]  # at once
    late = bench.take(bench.queue("a", {}))
    branch.settle(late, ACCEPT)  # the other session does not know yet
    bench.send(branch, "b", b"late")
    assert bench.bodies("a") == [b"old"]
    assert bench.branches.end(ONE, "t", False, False) == XA_RBROLLBACK
    assert bench.branches.start(ONE, "t", True, False) == XA_RBROLLBACK
    assert bench.branches.branch_of("t") is None
    assert bench.prepare(ONE) == XA_RBROLLBACK
    assert bench.rollback(ONE) == XA_OK
    assert bench.bodies("b") == [] and bench.branches.known == {}


@pytest.mark.parametrize("suspended", [False, True])
def test_a_session_that_is_gone(bench: Bench, suspended: bool) -> None:
    branch = bench.begin(ONE)
    branch.settle(bench.take(bench.queue("a", {})), ACCEPT)
    if suspended:
        bench.branches.end(ONE, "s", False, True)
    bench.branches.session_ended("s")
    assert bench.bodies("a") == [b"old"]
    assert bench.prepare(ONE) == XA_RBROLLBACK
    assert bench.commit_at_once(ONE) == XA_RBROLLBACK
    assert bench.branches.known == {} and bench.branches.sessions == {}


def test_what_a_session_has_ended_or_prepared_stays(bench: Bench) -> None:
    bench.swap(ONE)
    bench.branches.session_ended("s")
    assert bench.prepare(ONE) == XA_OK
    bench.branches.session_ended("s")
    assert bench.commit(ONE) == XA_OK and bench.bodies("b") == [b"new"]


def test_withdrawn_and_rejected(bench: Bench) -> None:
    bench.publish("", "a", b"second", True, 0)
    branch = bench.begin(ONE)
    kept, rejected = bench.take(bench.queue("a", {})), bench.take(bench.queue("a", {}))
    branch.settle(kept, ACCEPT)
    branch.withdraw(kept)
    branch.settle(rejected, REJECT)
    bench.branches.end(ONE, "s", False, False)
    bench.prepare(ONE)
    bench.commit(ONE)
    assert bench.queue("a", {}).unsettled == 1 and bench.bodies("a") == []


def test_few_failed_branches_are_remembered(bench: Bench) -> None:
    for number in range(1100):
        bench.begin((1, b"%d" % number, b""), "s")
        bench.branches.session_ended("s")
    assert len(bench.branches.known) == len(bench.branches.failed) == 1000
    assert (1, b"99", b"") not in bench.branches.known and (1, b"100", b"") in bench.branches.known


# Errors.


def test_start_errors(bench: Bench) -> None:
    branches = bench.branches
    with pytest.raises(CommandInvalid):
        branches.start(ONE, "s", True, True)
    for join, resume in ((True, False), (False, True)):
        with pytest.raises(NotAllowed):
            branches.start(ONE, "s", join, resume)
    bench.begin(ONE)
    with pytest.raises(NotAllowed):
        branches.start(ONE, "t", False, False)
    with pytest.raises(IllegalState):
        branches.start(TWO, "s", False, False)  # it works on another
    with pytest.raises(IllegalState):
        branches.start(ONE, "t", False, True)  # it has suspended nothing
    branches.end(ONE, "s", False, False)
    bench.prepare(ONE)
    with pytest.raises(IllegalState):
        branches.start(ONE, "s", True, False)
    assert list(branches.known) == [ONE]


def test_end_errors(bench: Bench) -> None:
    branches = bench.branches
    with pytest.raises(IllegalState):
        branches.end(ONE, "s", False, False)
    bench.begin(ONE)
    with pytest.raises(CommandInvalid):
        branches.end(ONE, "s", True, True)
    with pytest.raises(IllegalState):
        branches.end(ONE, "t", False, False)
    branches.end(ONE, "s", False, True)
    with pytest.raises(IllegalState):
        branches.end(ONE, "s", False, True)


@pytest.mark.parametrize("call", [
    lambda bench: bench.branches.prepare(ONE, bench.told.append),
    lambda bench: bench.branches.commit(ONE, True, bench.told.append),
    lambda bench: bench.branches.commit(ONE, False, bench.told.append),
    lambda bench: bench.branches.rollback(ONE, bench.told.append),
    lambda bench: bench.branches.complete_by_hand(ONE, True, bench.told.append),
    lambda bench: bench.branches.forget(ONE),
    lambda bench: bench.branches.set_timeout(ONE, 1),
    lambda bench: bench.branches.get_timeout(ONE),
])
def test_an_unknown_xid(bench: Bench, call: Callable[[Bench], object]) -> None:
    with pytest.raises(NotFound, match="7:676c6f62616c:6f6e65"):
        call(bench)


def test_completion_out_of_turn(bench: Bench) -> None:
    bench.swap(ONE)
    for wrong in (lambda: bench.commit(ONE), lambda: bench.branches.forget(ONE), lambda: bench.by_hand(ONE, True)):
        with pytest.raises(IllegalState):
            wrong()
    bench.prepare(ONE)
    for wrong in (lambda: bench.commit_at_once(ONE), lambda: bench.branches.forget(ONE), lambda: bench.prepare(ONE)):
        with pytest.raises(IllegalState):
            wrong()
    assert bench.commit(ONE) == XA_OK


# Time.


def test_timeout(bench: Bench) -> None:
    branch = bench.begin(ONE)
    assert bench.branches.get_timeout(ONE) == 0
    branch.settle(bench.take(bench.queue("a", {})), ACCEPT)
    bench.branches.set_timeout(ONE, 2)
    assert bench.branches.get_timeout(ONE) == 2
    bench.pass_seconds(1)
    assert bench.bodies("a") == []
    bench.pass_seconds(2)
    assert bench.bodies("a") == [b"old"]
    assert bench.branches.end(ONE, "s", False, False) == XA_RBTIMEOUT
    assert bench.branches.start(ONE, "s", True, False) == XA_RBTIMEOUT
    assert bench.rollback(ONE) == XA_RBTIMEOUT
    assert bench.branches.known == {}


@pytest.mark.parametrize("one_phase", [False, True])
def test_a_branch_that_has_timed_out_is_told_once(bench: Bench, one_phase: bool) -> None:
    bench.swap(ONE)
    bench.branches.set_timeout(ONE, 1)
    bench.pass_seconds(2)
    assert (bench.commit_at_once if one_phase else bench.prepare)(ONE) == XA_RBTIMEOUT
    with pytest.raises(NotFound):
        bench.prepare(ONE)


def test_the_usual_timeout_and_the_most(bench: Bench) -> None:
    bench.broker.branch_timeout, bench.broker.branch_timeout_max = 60, 3600
    bench.swap(ONE)
    assert bench.branches.get_timeout(ONE) == 60
    with pytest.raises(InvalidArgument):
        bench.branches.set_timeout(ONE, 3601)
    bench.branches.set_timeout(ONE, 3600)
    bench.branches.set_timeout(ONE, 0)
    assert bench.branches.get_timeout(ONE) == 60
    assert bench.prepare(ONE) == XA_OK
    bench.branches.set_timeout(ONE, 1)
    bench.pass_seconds(4000)  # it is prepared: it does not time out
    assert bench.commit(ONE) == XA_OK and bench.bodies("b") == [b"new"]


# Queues meanwhile.


def test_a_full_queue_votes_against(bench: Bench) -> None:
    bench.queue("small", {"x-max-length": 1, "x-overflow": "reject-publish"})
    for xid, complete in ((ONE, bench.prepare), (TWO, bench.commit_at_once)):
        branch = bench.begin(xid)
        branch.settle(bench.take(bench.queue("a", {})), ACCEPT)
        bench.send(branch, "small", b"1")
        bench.send(branch, "small", b"2")
        bench.branches.end(xid, "s", False, False)
        assert complete(xid) == XA_RBROLLBACK
        assert bench.bodies("a") == [b"old"]
    assert bench.queue("small", {"x-max-length": 1, "x-overflow": "reject-publish"}).ready == 0


def test_what_is_prepared_has_its_place_in_a_full_queue(bench: Bench) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    small = bench.queue("small", arguments)
    branch = bench.begin(ONE)
    bench.send(branch, "small", b"promised")
    bench.branches.end(ONE, "s", False, False)
    assert bench.prepare(ONE) == XA_OK
    bench.publish("", "small", b"other", True, 0)
    assert bench.commit(ONE) == XA_OK
    assert small.ready == 2
    assert bench.publish("", "small", b"refused", True, 0) == 2


def test_purge_deletion_and_expiry_meanwhile(bench: Bench) -> None:
    passing = bench.queue("passing", {"x-message-ttl": 1000})
    bench.publish("", "passing", b"held", True, 0)
    bench.publish("", "passing", b"expires", True, 0)
    bench.publish("", "b", b"purged", True, 0)
    branch = bench.begin(ONE)
    branch.settle(bench.take(passing), ACCEPT)
    branch.settle(bench.take(bench.queue("a", {})), ACCEPT)
    branch.settle(bench.take(bench.queue("b", {})), ACCEPT)
    bench.publish("", "b", b"purged", True, 0)
    bench.send(branch, "a", b"to a")
    bench.send(branch, "b", b"to b")
    bench.send(branch, "b", b"nowhere", exchange="amq.direct")
    bench.branches.end(ONE, "s", False, False)
    assert bench.prepare(ONE) == XA_OK
    bench.pass_seconds(2)
    assert passing.ready == 0 and passing.unsettled == 1
    assert bench.queue("b", {}).purge() == 1 and bench.queue("b", {}).unsettled == 1
    bench.host.delete_queue(bench.queue("a", {}))
    assert bench.commit(ONE) == XA_OK
    assert bench.bodies("b") == [b"to b"] and passing.unsettled == 0
    bench.close()


def test_an_exchange_that_is_gone(bench: Bench) -> None:
    bench.host.declare_exchange("e", "fanout", True, False, False, {})
    bench.host.bind(bench.host.exchange("e"), bench.queue("b", {}), "", {})
    branch = bench.begin(ONE)
    bench.send(branch, "b", b"lost", exchange="e")
    bench.send(branch, "b", b"found")
    bench.branches.end(ONE, "s", False, False)
    bench.prepare(ONE)
    bench.host.delete_exchange("e", False)
    assert bench.commit(ONE) == XA_OK
    assert bench.bodies("b") == [b"found"]


# Operators.


@pytest.mark.parametrize(("commits", "status"), [(True, XA_HEURCOM), (False, XA_HEURRB)])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("asked_to_commit", [False, True])
def test_an_operator_decides(tmp_path: Path, commits: bool, status: int, restart: bool, asked_to_commit: bool) -> None:
    bench = filled(tmp_path)
    bench.swap(ONE)
    bench.prepare(ONE)
    assert bench.by_hand(ONE, commits) == XA_OK
    if restart:
        bench.crash()
        bench = Bench(tmp_path)
    left = ([], [b"new"]) if commits else ([b"old"], [])
    assert (bench.bodies("a"), bench.bodies("b")) == left
    assert bench.branches.recover() == [ONE]
    assert (bench.commit if asked_to_commit else bench.rollback)(ONE) == status
    with pytest.raises(IllegalState):
        bench.prepare(ONE)
    assert bench.branches.recover() == [ONE]
    bench.branches.forget(ONE)
    assert bench.branches.recover() == []
    bench.close()
    assert check(tmp_path).sound and check(tmp_path).branches == {}
    assert Bench(tmp_path).branches.recover() == []


# After a restart.


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("commits", [False, True])
def test_prepared_survives(tmp_path: Path, crash: bool, commits: bool) -> None:
    bench = filled(tmp_path)
    bench.publish("", "a", b"after", True, 0)
    bench.host.bind(bench.host.exchange("amq.fanout"), bench.queue("a", {}), "", {})
    bench.host.bind(bench.host.exchange("amq.fanout"), bench.queue("b", {}), "", {})
    bench.swap(JMS_LIKE)
    branch = bench.begin(TWO)
    bench.send(branch, "x", b"both", exchange="amq.fanout")
    bench.send(branch, "b", b"transient", durable=False)
    bench.branches.end(TWO, "s", False, False)
    bench.begin(ONE)  # not prepared: it is gone
    assert bench.prepare(JMS_LIKE) == bench.prepare(TWO) == XA_OK
    (bench.crash if crash else bench.close)()
    report = check(tmp_path)
    assert report.sound and sorted(report.branches.values()) == [1, 1] and report.entries == 4
    bench = Bench(tmp_path)
    assert sorted(bench.branches.recover()) == [JMS_LIKE, TWO] and len(bench.branches.known) == 2
    assert bench.bodies("a") == [b"after"] and bench.bodies("b") == []
    queue = bench.queue("a", {})
    assert queue.unsettled == 1 and queue.ready == 1
    if commits:
        assert bench.commit(JMS_LIKE) == bench.commit(TWO) == XA_OK
        assert bench.bodies("a") == [b"after", b"both"] and bench.bodies("b") == [b"new", b"both"]
    else:
        assert bench.rollback(JMS_LIKE) == bench.rollback(TWO) == XA_OK
        assert bench.bodies("a") == [b"old", b"after"] and bench.bodies("b") == []
    left = bench.bodies("a"), bench.bodies("b")
    bench.crash()
    assert check(tmp_path).sound and check(tmp_path).branches == {}
    again = Bench(tmp_path)
    assert (again.bodies("a"), again.bodies("b")) == left and again.branches.known == {}
    again.close()


def test_not_durable_is_not_told_and_is_not_there(tmp_path: Path) -> None:
    bench = filled(tmp_path)
    bench.swap(ONE)
    bench.branches.prepare(ONE, bench.told.append)
    assert bench.branches.recover() == []
    bench.crash()
    assert bench.told == []
    again = Bench(tmp_path)
    assert again.branches.known == {} and again.bodies("a") == [b"old"]


def test_prepared_and_committed_within_one_batch(tmp_path: Path) -> None:
    bench = filled(tmp_path)
    bench.swap(ONE)
    bench.branches.prepare(ONE, bench.told.append)
    bench.branches.commit(ONE, False, bench.told.append)
    bench.loop.settle()
    assert bench.told == [XA_OK, XA_OK]
    bench.crash()
    again = Bench(tmp_path)
    assert again.bodies("a") == [] and again.bodies("b") == [b"new"]
    again.close()
    assert check(tmp_path).sound


def test_a_queue_that_is_deleted_after_the_restart(tmp_path: Path) -> None:
    bench = filled(tmp_path)
    bench.swap(ONE)
    bench.prepare(ONE)
    bench.close()
    bench = Bench(tmp_path)
    bench.host.delete_queue(bench.queue("a", {}))
    bench.host.delete_queue(bench.queue("b", {}))
    bench.loop.settle()
    assert bench.commit(ONE) == XA_OK
    bench.close()
    assert check(tmp_path).sound and check(tmp_path).entries == 0


def test_a_restart_does_not_expire_or_purge_what_is_held(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    arguments = {"x-message-ttl": 1000}
    queue = bench.queue("passing", arguments)
    for number in range(5):
        bench.publish("", "passing", b"%d" % number, True, 0)
    branch = bench.begin(ONE)
    first, second = bench.take(queue), bench.take(queue)
    third = bench.take(queue)
    branch.settle(first, ACCEPT)
    branch.settle(third, ACCEPT)
    queue.release(second, False)
    bench.branches.end(ONE, "s", False, False)
    bench.prepare(ONE)
    bench.crash()
    bench = Bench(tmp_path)
    queue = bench.queue("passing", arguments)
    assert queue.unsettled == 2 and queue.ready == 3
    bench.pass_seconds(5)
    assert queue.unsettled == 2 and queue.ready == 0
    bench.rollback(ONE)
    bench.pass_seconds(1)
    assert queue.unsettled == 0 and queue.ready == 0
    bench.close()
    assert check(tmp_path).sound and check(tmp_path).entries == 0


@pytest.mark.parametrize("arguments", [{"qpid.queue_sort_key": "group"}, {"qpid.last_value_queue_key": "group"},
                                       {"x-max-priority": 3}])
@pytest.mark.parametrize("commits", [False, True])
def test_queues_of_other_kinds(tmp_path: Path, arguments: dict[str, object], commits: bool) -> None:
    bench = Bench(tmp_path)
    queue = bench.queue("kind", arguments)
    for number, group in enumerate("dacb"):
        bench.publish("", "kind", group.encode(), True, number, group)
    bench.loop.settle()
    order = bench.bodies_of(queue)
    branch = bench.begin(ONE)
    left = bench.take(queue)
    branch.settle(bench.take(queue), ACCEPT)
    queue.release(left, False)
    bench.branches.end(ONE, "s", False, False)
    bench.prepare(ONE)
    bench.crash()
    bench = Bench(tmp_path)
    queue = bench.queue("kind", arguments)
    assert queue.unsettled == 1 and queue.ready == 3
    others = [order[0], *order[2:]]
    assert bench.bodies_of(queue) == others
    (bench.commit if commits else bench.rollback)(ONE)
    assert bench.bodies_of(queue) == (others if commits else order)
    assert queue.unsettled == 0
    bench.close()
    assert check(tmp_path).sound and check(tmp_path).entries == len(others if commits else order)


def test_many_in_order(tmp_path: Path) -> None:
    """More than is read from the journal in one go, and what is given back goes to its place."""
    bench = Bench(tmp_path)
    queue = bench.queue("a", {})
    for number in range(3000):
        bench.publish("", "a", b"%d" % number, True, 0)
    bench.loop.settle()
    branch = bench.begin(ONE)
    entries = [bench.take(queue) for _ in range(2600)]
    for entry in entries[0:2500:2]:
        branch.settle(entry, ACCEPT)
    for number in range(2300):
        bench.send(branch, "b", b"%d" % number)
    bench.branches.end(ONE, "s", False, False)
    bench.prepare(ONE)
    bench.crash()
    for commits in (False, True):
        bench = Bench(tmp_path, keep=150)
        queue = bench.queue("a", {})
        bench.queue("b", {})
        assert queue.unsettled == 1250 and queue.ready == 1750
        if not commits:
            bench.crash()  # nothing has changed by having been looked at
    assert bench.rollback(ONE) == XA_OK
    assert bench.bodies("a") == [b"%d" % number for number in range(3000)]
    bench.close()


def test_what_is_given_back_to_an_empty_head_waits_behind_what_is_older(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=100)
    queue = bench.queue("a", {})
    for number in range(300):
        bench.publish("", "a", b"%d" % number, True, 0)
    bench.loop.settle()
    first = [bench.take(queue) for _ in range(100)]
    assert not queue.lanes[0].head and queue.lanes[0].tail_count == 200
    [claimed] = claim(queue, [first[-1].id + 2 * 100], Reader(queue, "r"))
    assert claimed.message is not None
    body = body_of(claimed.message)
    queue.release(claimed, False)
    left = bench.bodies("a")
    assert len(left) == 200 and body in left and left == sorted(left, key=int)


def test_export_and_import(tmp_path: Path) -> None:
    bench = filled(tmp_path / "one")
    bench.swap(ONE)
    bench.prepare(ONE)
    bench.close()
    text = io.StringIO()
    assert export(tmp_path / "one", text).branches == 1
    text.seek(0)
    assert import_(tmp_path / "two", text).branches == 1
    assert check(tmp_path / "two").sound and list(check(tmp_path / "two").branches.values()) == [1]
    again = Bench(tmp_path / "two")
    assert again.branches.recover() == [ONE] and again.bodies("a") == []
    assert again.commit(ONE) == XA_OK and again.bodies("b") == [b"new"]
    again.close()


def test_a_record_that_cannot_be_read(tmp_path: Path) -> None:
    bench = filled(tmp_path)
    bench.broker.log.keep_branch(bench.broker.log.new_id(), b'{"host":"/"}')
    bench.close()
    with pytest.raises(Exception, match="prepared transaction") as raised:
        Bench(tmp_path)
    assert not isinstance(raised.value, BrokerError)


def test_memory_is_tight(tmp_path: Path) -> None:
    bench = filled(tmp_path)
    bench.swap(ONE)
    bench.broker.memory.tight = 0
    bench.prepare(ONE)
    assert bench.branches.known[ONE].kept[0].entry.message is None
    assert bench.commit(ONE) == XA_OK and bench.bodies("b") == [b"new"]


def test_a_local_transaction_goes_by_the_bindings_of_its_commit(bench: Bench) -> None:
    bench.host.declare_exchange("e", "fanout", True, False, False, {})
    local = Transaction(bench.host)
    message = bench.message("", b"found", exchange="e")
    local.publish(Publication(bench.host.route(message.address.short_strings, "e", ""), message, None, False))
    bench.host.bind(bench.host.exchange("e"), bench.queue("b", {}), "", {})
    local.commit(lambda: None)
    assert bench.bodies("b") == [b"found"]


def test_a_store_in_memory() -> None:
    loop, clock = Turns(), Clock()
    broker = Broker(MemoryStore(loop), loop, clock, Alarm(), Watcher(), 1 << 30, 10, 1 << 30)
    host = broker.add_host("/")
    for _ in broker.recover():
        pass
    queue = host.declare_queue("a", True, False, False, {}, None)[0]
    message = Message(address_of("", "a"), AMQP091, b"", None, 0, True, 0, 0, clock.now)
    told: list[int] = []
    for commits in (False, True):
        host.branches.start(ONE, "s", False, False)
        branch = host.branches.branch_of("s")
        assert branch is not None
        route = host.route(message.address.short_strings, "", "a")
        branch.publish(Publication(route, message, None, False))
        host.branches.end(ONE, "s", False, False)
        host.branches.prepare(ONE, told.append)
        assert told == []
        loop.settle()
        if commits:
            host.branches.commit(ONE, False, told.append)
        else:
            host.branches.rollback(ONE, told.append)
        loop.settle()
        assert told == [XA_OK, XA_OK] and queue.ready == int(commits) and host.branches.recover() == []
        told.clear()
