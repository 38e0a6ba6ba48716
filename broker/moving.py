"""What operators do to the messages of a queue: move, copy, reroute, delete; and redirect a queue to another.

All but the redirect go over what the queue holds when they begin, bit by bit, and call back with a number when all is
done and durable. Whatever happens to a message happens in one batch of the journal: a crash in the midst leaves each
of them in one place. Messages that consumers have stay with them; a message that its new queue refuses stays, and with
it those that come after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from broker.alternate import publish_anew
from broker.consumer import Consumer
from broker.errors import NotAllowed, NotFound, PreconditionFailed
from broker.message import Message
from broker.ordered import header_text
from broker.queue import Queue
from broker.retained import check_open
from broker.search import Cursor
from broker.selector import Selector

if TYPE_CHECKING:
    from broker.entry import Entry
    from broker.exchange import Exchange

AT_ONCE = 50
"""Messages that are treated in one go."""

Done = Callable[[int], None]


class Choice:
    """Which messages: at most `count` (0: all), of those that the selector fits and whose header says so."""

    __slots__ = ("count", "selector", "header", "value")

    def __init__(self, count: int = 0, selector: Selector | None = None, header: str = "", value: str = "") -> None:
        self.count = count
        self.selector = selector
        self.header = header  # "": whatever they say
        self.value = value

    def fits(self, message: Message) -> bool:
        if self.header and (header_text(message, self.header) or "") != self.value:
            return False
        return self.selector is None or self.selector.matches(message)


def move(source: Queue, target: Queue, choice: Choice, done: Done) -> None:
    """Move messages to the end of another queue. Raises: PreconditionFailed when it is the same, AccessRefused when it
    is the broker's own."""
    check_open(target)
    if source is target:
        raise PreconditionFailed(f"{source!r} cannot be moved to itself")
    _begin(Moving(source, choice, done, [target], None, False))


def copy(source: Queue, target: Queue, choice: Choice, done: Done) -> None:
    """Put copies at the end of another queue, or of the same one. Raises: AccessRefused when it is the broker's own."""
    check_open(target)
    _begin(Moving(source, choice, done, [target], None, True))


def reroute(source: Queue, exchange: Exchange | None, choice: Choice, done: Done) -> None:
    """Publish messages anew, to an exchange or (None) to the queue's alternate one, by the routing keys they have.
    Those that nothing is bound for stay. Raises: NotFound when there is no alternate exchange."""
    targets: list[Queue] = []
    if exchange is None:
        host, settings = source.host, source.settings
        name = settings.dead_letter_exchange if settings.alternate is None else settings.alternate
        if name is not None:
            exchange = host.exchanges.get(name)
            if exchange is None and name in host.queues and name == settings.alternate:
                targets.append(host.queues[name])
        if exchange is None and not targets:
            raise NotFound(f"{source!r} has no alternate exchange")
    _begin(Moving(source, choice, done, targets, exchange, False))


def delete(source: Queue, choice: Choice, done: Done) -> None:
    """Drop messages; they are no dead letters."""
    _begin(Moving(source, choice, done, [], None, False))


def _begin(moving: Moving) -> None:
    moving.source.host.broker.chores.add(moving.work())


class Moving(Consumer):
    """One such operation. To its queue it is like a browser, though it takes what it has seen."""

    __slots__ = ("source", "choice", "done", "targets", "exchange", "copies", "moved")

    def __init__(self, source: Queue, choice: Choice, done: Done, targets: list[Queue], exchange: Exchange | None,
                 copies: bool) -> None:
        super().__init__(source, "", 0, False, False)
        self.source = source
        self.choice = choice
        self.done = done
        self.targets = targets
        self.exchange = exchange
        self.copies = copies
        self.moved = 0
        self.choosy = self.browses = True

    def ready(self) -> bool:
        return False  # it looks for itself

    def wants(self, message: Message) -> bool:
        return self.choice.fits(message)

    def work(self) -> Iterator[None]:
        """All of it, bit by bit."""
        source = self.source
        log = source.host.broker.log
        last_id = log.last_id  # what comes later, from itself perhaps, stays
        cursor = source.consumers.follow(self)
        seen = 0
        while not source.deleted and (not self.choice.count or self.moved < self.choice.count):
            entry = cursor.find()
            if entry is None:
                if not cursor.unfinished:
                    break
                yield
                continue
            if entry.id > last_id:
                if cursor.loaded:
                    source.unload(entry)
            elif not self._treat(entry, cursor):
                break
            seen += 1
            if seen % AT_ONCE == 0:
                yield
        source.consumers.unfollow(cursor)
        log.commit(self._finished)

    def _finished(self) -> None:
        self.done(self.moved)

    def _treat(self, entry: Entry, cursor: Cursor) -> bool:
        """Do it to one message. False: it was refused."""
        message = entry.message
        assert message is not None
        targets = self.targets
        if self.exchange is not None:
            targets = self.source.host.behind(self.exchange, message)
        drops = self.exchange is None and not targets
        if targets and not publish_anew(targets, message, self.copies):
            if cursor.loaded:
                self.source.unload(entry)
            return False
        if drops or targets and not self.copies:
            self.source.lanes[entry.lane].pluck(entry, cursor.from_tail)
            self.source.drop(entry, "purged" if drops else "moved")
        elif cursor.loaded:
            self.source.unload(entry)
        if targets or drops:
            self.moved += 1
        return True

    def deliver(self, entry: Entry, message: Message) -> None:
        raise AssertionError("it is never ready")

    def cancelled(self) -> None:
        """`work` finds the queue deleted."""


# Redirects.


def redirect(source: Queue, target: Queue) -> None:
    """From now on what is routed to one of the two goes to the other, as qpidd has it, until `undo_redirect` or until
    one of them is deleted or the broker stops.

    Raises: NotAllowed when one of them has a redirect already, or both are the same; AccessRefused when one is the
    broker's own.
    """
    if source is target:
        raise NotAllowed(f"{source!r} cannot be redirected to itself")
    for queue in (source, target):
        check_open(queue)
        if queue.peer is not None:
            raise NotAllowed(f"{queue!r} is redirected already")
    source.peer, target.peer = target, source
    source.redirects = True
    source.host.routes.clear()


def undo_redirect(source: Queue, done: Done) -> None:
    """End a redirect, and move what the target holds to the source. Raises: NotAllowed when it is no source of one."""
    target = source.peer
    if target is None or not source.redirects:
        raise NotAllowed(f"{source!r} is not redirected")
    source.end_redirect()
    move(target, source, Choice(), done)
