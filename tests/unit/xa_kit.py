"""A broker whose tests have distributed transactions: sessions are but names, and each call's status is waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker_kit import Running, body_of

from broker.branch import Branch, Xid
from broker.entry import Entry
from broker.message import AMQP091, Message, address_of
from broker.outcome import ACCEPT
from broker.queue import Queue
from broker.transaction import Publication
from broker.xa import XA_OK, Branches


class Bench(Running):
    """A broker, with sessions that are but names."""

    def __init__(self, folder: Path, keep: int = 1000) -> None:
        super().__init__(folder, keep)
        self.told: list[int] = []

    @property
    def branches(self) -> Branches:
        return self.host.branches

    def begin(self, xid: Xid, session: str = "s") -> Branch:
        assert self.branches.start(xid, session, False, False) == XA_OK
        branch = self.branches.branch_of(session)
        assert branch is not None
        return branch

    def message(self, key: str, body: bytes, durable: bool = True, exchange: str = "") -> Message:
        """A message that is nowhere yet."""
        template = self.host.declare_queue("template", False, False, False, {}, self)[0]
        self.publish("", "template", body, durable, 0)
        found = template.get()
        assert found is not None and found.message is not None
        template.accept(found)
        native = found.message.native
        return Message(address_of(exchange, key), AMQP091, native, None, len(body), durable, 0, 0, self.clock.now)

    def send(self, branch: Branch, key: str, body: bytes, durable: bool = True, exchange: str = "") -> None:
        message = self.message(key, body, durable, exchange)
        address = message.address
        route = self.host.route(address.short_strings, exchange, key)
        branch.publish(Publication(route, message, None, False))

    def take(self, queue: Queue) -> Entry:
        entry = queue.get()
        assert entry is not None
        return entry

    def settle_body(self, branch: Branch, name: str, body: bytes) -> None:
        """Take the message of this body, which is the queue's newest, to be accepted with the branch."""
        queue = self.queue(name, {})
        others = []
        while (entry := queue.get()) is not None:
            if entry.message is not None and body_of(entry.message) == body:
                branch.settle(entry, ACCEPT)
            else:
                others.append(entry)
        for entry in reversed(others):
            queue.release(entry, False)

    def drop_body(self, name: str, body: bytes, done: Callable[[], None]) -> None:
        """Accept the message of this body, outside of any transaction."""
        queue = self.queue(name, {})
        while (entry := queue.get()) is not None:
            assert entry.message is not None and body_of(entry.message) == body
            queue.accept(entry)
        self.broker.log.commit(done)

    def swap(self, xid: Xid, body: bytes = b"new", session: str = "s") -> None:
        """Take `old` from queue a, and send to queue b, within the branch."""
        branch = self.begin(xid, session)
        branch.settle(self.take(self.queue("a", {})), ACCEPT)
        self.send(branch, "b", body)
        assert self.branches.end(xid, session, False, False) == XA_OK

    def ask(self, call: Callable[[Xid, Callable[[int], None]], None], xid: Xid) -> int:
        """The status that is told once it is durable, and not before."""
        told: list[int] = []
        call(xid, told.append)
        assert told == []
        self.loop.settle()
        assert len(told) == 1
        return told[0]

    def prepare(self, xid: Xid) -> int:
        return self.ask(self.branches.prepare, xid)

    def commit(self, xid: Xid) -> int:
        return self.ask(lambda xid, done: self.branches.commit(xid, False, done), xid)

    def commit_at_once(self, xid: Xid) -> int:
        return self.ask(lambda xid, done: self.branches.commit(xid, True, done), xid)

    def rollback(self, xid: Xid) -> int:
        return self.ask(self.branches.rollback, xid)

    def by_hand(self, xid: Xid, commits: bool) -> int:
        return self.ask(lambda xid, done: self.branches.complete_by_hand(xid, commits, done), xid)

    def bodies(self, name: str) -> list[bytes]:
        """What is available in a queue; it stays there."""
        return self.bodies_of(self.queue(name, {}))

    def bodies_of(self, queue: Queue) -> list[bytes]:
        entries = []
        while (entry := queue.get()) is not None:
            entries.append(entry)
        found = [body_of(entry.message) for entry in entries if entry.message is not None]
        for entry in reversed(entries):
            queue.release(entry, False)
        return found

    def pass_seconds(self, seconds: int) -> None:
        self.clock.now += seconds * 1000
        self.broker.timers.run()
        self.loop.settle()

    def crash(self) -> None:
        """Let go of the store as a killed process does."""
        store = self.broker.store
        store.writer.closed = True
        if store.writer.transaction is not None:
            store.writer.transaction.abort()
        store.files.env.close()
        store.lock.release()
