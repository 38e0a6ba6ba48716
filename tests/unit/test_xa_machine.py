"""Whatever is done with branches, in whatever order, and whenever the broker crashes, they are as a model says."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from broker_kit import body_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from xa_kit import Bench

from broker.branch import Xid
from broker.errors import BrokerError, IllegalState, NotAllowed, NotFound
from broker.outcome import ACCEPT
from broker.xa import XA_HEURCOM, XA_HEURRB, XA_OK, XA_RBROLLBACK
from store.tools import check

XIDS = st.sampled_from([(1, b"x", b""), (2, b"x", b"")])
SESSIONS = st.sampled_from(["s", "t"])


class Modelled:
    """A branch: what it has taken and sent, and who is associated with it."""

    def __init__(self) -> None:
        self.state = "active"
        self.taken: list[bytes] = []
        self.sent: list[bytes] = []
        self.sessions: dict[str, bool] = {}  # the value: suspended


class BranchMachine(RuleBasedStateMachine):
    """Queue a is taken from, in order; queue b is sent to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="xa"))
        self.branches: dict[Xid, Modelled] = {}
        self.a: list[bytes] = []
        self.b: list[bytes] = []
        self.count = 0
        self.open()

    def open(self) -> None:
        self.bench = Bench(self.folder, keep=120)
        self.bench.queue("a", {})
        self.bench.queue("b", {})
        self.bench.loop.settle()

    def teardown(self) -> None:
        self.look()
        self.bench.close()
        assert check(self.folder).sound
        shutil.rmtree(self.folder)

    def working(self, session: str) -> tuple[Xid, Modelled] | None:
        for xid, branch in self.branches.items():
            if branch.sessions.get(session) is False:
                return xid, branch
        return None

    def undo(self, branch: Modelled) -> None:
        self.a = sorted(self.a + branch.taken)
        branch.taken, branch.sent = [], []

    def do(self, branch: Modelled) -> None:
        self.b += branch.sent
        branch.taken, branch.sent = [], []

    @rule()
    def publish(self) -> None:
        for _ in range(3):
            self.count += 1
            self.bench.publish("", "a", b"%06d" % self.count, True, 0)
            self.a.append(b"%06d" % self.count)
        self.bench.loop.settle()

    @rule(xid=XIDS, session=SESSIONS, how=st.sampled_from(["", "join", "join", "resume", "join resume"]))
    def start_somehow(self, xid: Xid, session: str, how: str) -> None:
        self.start(xid, session, how)

    def start(self, xid: Xid, session: str, how: str) -> None:
        join, resume = "join" in how, "resume" in how
        branch = self.branches.get(xid)
        try:
            status = self.bench.branches.start(xid, session, join, resume)
        except NotAllowed:
            assert (branch is None) is (join or resume)
        except IllegalState:
            assert (self.working(session) is not None or branch is not None and (
                resume and session not in branch.sessions or branch.state not in ("active", "failed")))
        except BrokerError:
            assert join and resume
        else:
            if branch is None:
                branch = self.branches[xid] = Modelled()
                assert not (join or resume)
            assert status == (XA_OK if branch.state == "active" else XA_RBROLLBACK)
            if status == XA_OK:
                branch.sessions[session] = False

    @rule(session=SESSIONS, xid=XIDS, send=st.booleans(), take=st.booleans())
    def work(self, session: str, xid: Xid, send: bool, take: bool) -> None:
        """A session that works on nothing begins, or joins, or resumes."""
        if self.working(session) is None:
            known = self.branches.get(xid)
            self.start(xid, session, "" if known is None else "resume" if session in known.sessions else "join")
        found = self.working(session)
        branch = self.bench.branches.branch_of(session)
        assert (found is None) is (branch is None)
        if found is None or branch is None:
            return
        model = found[1]
        if send:
            self.count += 1
            self.bench.send(branch, "b", b"%06d" % self.count)
            if model.state == "active":
                model.sent.append(b"%06d" % self.count)
        if take and self.a:
            entry = self.bench.take(self.bench.queue("a", {}))
            assert entry.message is not None and body_of(entry.message) == self.a[0]
            branch.settle(entry, ACCEPT)
            if model.state == "active":  # it goes back at once otherwise
                model.taken.append(self.a.pop(0))

    @rule(xid=XIDS, session=SESSIONS, how=st.sampled_from(["", "", "fail", "suspend"]))
    def end(self, xid: Xid, session: str, how: str) -> None:
        branch = self.branches.get(xid)
        try:
            status = self.bench.branches.end(xid, session, how == "fail", how == "suspend")
        except IllegalState:
            assert branch is None or session not in branch.sessions or how == "suspend" and branch.sessions[session]
            return
        assert branch is not None and session in branch.sessions
        assert status == (XA_OK if branch.state == "active" else XA_RBROLLBACK)
        if how == "suspend" and branch.state == "active":
            branch.sessions[session] = True
            return
        del branch.sessions[session]
        if how == "fail" and branch.state == "active":
            branch.state = "failed"
            self.undo(branch)

    @rule(session=SESSIONS)
    def lose_session(self, session: str) -> None:
        self.bench.branches.session_ended(session)
        for branch in self.branches.values():
            if branch.sessions.pop(session, None) is not None and branch.state == "active":
                branch.state = "failed"
                self.undo(branch)

    def free(self, xid: Xid) -> bool:
        branch = self.branches.get(xid)
        return branch is not None and all(branch.sessions.values())

    @rule(xid=XIDS)
    def prepare(self, xid: Xid) -> None:
        branch = self.branches.get(xid)
        try:
            status = self.bench.prepare(xid)
        except NotFound:
            assert branch is None
        except IllegalState:
            assert branch is not None and (not self.free(xid) or branch.state not in ("active", "failed"))
            branch.sessions = branch.sessions if not self.free(xid) else {}
        else:
            assert branch is not None and self.free(xid)
            assert status == (XA_OK if branch.state == "active" else XA_RBROLLBACK)
            branch.sessions = {}
            if branch.state == "active":
                branch.state = "prepared"

    @rule(xid=XIDS, how=st.sampled_from(["one", "two", "two", "rollback"]))
    def complete(self, xid: Xid, how: str) -> None:
        branch = self.branches.get(xid)
        call = {"one": self.bench.commit_at_once, "two": self.bench.commit, "rollback": self.bench.rollback}[how]
        try:
            status = call(xid)
        except NotFound:
            assert branch is None
            return
        except IllegalState:
            assert branch is not None
            assert not self.free(xid) or (how, branch.state) in (("one", "prepared"), ("two", "active"))
            branch.sessions = branch.sessions if not self.free(xid) else {}
            return
        assert branch is not None and self.free(xid)
        branch.sessions = {}
        decided = {"committed": XA_HEURCOM, "undone": XA_HEURRB}
        if branch.state in decided:
            assert status == decided[branch.state]
            return
        assert status == (XA_RBROLLBACK if branch.state == "failed" and how != "rollback" else XA_OK)
        if how == "rollback":
            self.undo(branch)
        else:
            self.do(branch)
        del self.branches[xid]

    @precondition(lambda self: any(branch.state == "prepared" for branch in self.branches.values()))
    @rule(commits=st.booleans())
    def decide(self, commits: bool) -> None:
        xid, branch = next((xid, branch) for xid, branch in self.branches.items() if branch.state == "prepared")
        assert self.bench.by_hand(xid, commits) == XA_OK
        branch.state = "committed" if commits else "undone"
        if commits:
            self.do(branch)
        else:
            self.undo(branch)

    @rule(xid=XIDS)
    def forget(self, xid: Xid) -> None:
        branch = self.branches.get(xid)
        try:
            self.bench.branches.forget(xid)
        except NotFound:
            assert branch is None
        except IllegalState:
            assert branch is not None and branch.state not in ("committed", "undone")
            branch.sessions = branch.sessions if not self.free(xid) else {}
        else:
            assert branch is not None and branch.state in ("committed", "undone")
            del self.branches[xid]
            self.bench.loop.settle()

    @rule(cleanly=st.booleans())
    def restart(self, cleanly: bool) -> None:
        (self.bench.close if cleanly else self.bench.crash)()
        report = check(self.folder)
        assert report.sound
        for xid, branch in list(self.branches.items()):
            branch.sessions = {}
            if branch.state in ("active", "failed"):
                self.undo(branch)
                del self.branches[xid]
        assert len(report.branches) == len(self.branches)
        self.open()

    @rule()
    def look(self) -> None:
        assert self.bench.bodies("a") == self.a and self.bench.bodies("b") == self.b

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        bench = self.bench
        assert bench.queue("a", {}).ready == len(self.a) and bench.queue("b", {}).ready == len(self.b)
        assert bench.queue("a", {}).unsettled == sum(len(branch.taken) for branch in self.branches.values())
        assert set(bench.branches.known) == set(self.branches)
        assert set(bench.branches.recover()) == {
            xid for xid, branch in self.branches.items() if branch.state not in ("active", "failed")}


TestBranches = BranchMachine.TestCase
TestBranches.settings = settings(max_examples=150, stateful_step_count=50,
                                 suppress_health_check=list(HealthCheck))
