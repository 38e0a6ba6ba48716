"""Which of the client's commands are complete, and what it was told of that (0-10, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from broker.broker import Broker
from broker.message import Publisher
from protocols.amqp010.ids import MASK, Ranges, add, on_wire

if TYPE_CHECKING:
    from protocols.amqp010.connection import Connection

REACH: Final = MASK >> 2
"""Ids that lie further back are not named any more: on the wire they would be others."""


class Completion(Publisher):
    """A session as far as the commands of its client go. `Session` is the rest of it."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.connection: Connection | None = None
        self.channel = 0
        self.failed = False  # an exception was sent: the client is to detach
        self.may_send = False  # the client has said, if that was needed, what it expects
        self.is_due = False  # the connection knows that there is something to tell
        self.next_in = 0
        self.incomplete: dict[int, bool] = {}  # in order; whether it is a transfer that the client wants accepted
        self._syncs: list[int] = []  # of incomplete ones: execution.sync, complete when all before them are
        self._told = 0  # all commands below were said to be complete
        self._told_beyond: set[int] = set()  # and these
        self._tell_all = False  # the client waits for a command that others are before
        self._accepts: Ranges = []  # transfers to be accepted

    def send(self, method: str, /, **values: Any) -> None:
        """Send a command without content."""
        raise NotImplementedError

    def begin_at(self, number: int) -> None:
        """The client's commands begin with this one."""
        self.next_in = self._told = number

    # Complete.

    def later(self, number: int) -> Callable[[], None]:
        """What to call once a command is complete."""
        return partial(self.complete, number)

    def when_durable(self, number: int, wait: bool) -> bool:
        """Whether a command is complete already; if it is not, it will be once the journal has it."""
        if wait:
            self.broker.log.commit(self.later(number))
        return not wait

    def complete(self, number: int) -> None:
        """A command of the client's is complete."""
        accept = self.incomplete.pop(number, None)
        if accept is None:
            return
        if accept:
            add(self._accepts, number)
        if self._syncs and self._syncs[0] == next(iter(self.incomplete)):
            self.complete(self._syncs.pop(0))
        if self.connection is not None:
            self.connection.due(self)

    def confirmed(self, sequence: int) -> None:
        """A message of the client's is safe."""
        self.complete(sequence)

    def sync(self, number: int) -> bool:
        """execution.sync: it is complete when all before it are."""
        if next(iter(self.incomplete)) == number:
            return True
        self._syncs.append(number)
        self._tell_all = True
        return False

    def accepted_at_once(self, number: int) -> None:
        """A transfer is done with, and the client wants to hear that it was accepted."""
        add(self._accepts, number)

    # Told.

    def tell_all(self) -> None:
        """The client waits for a command: tell of it even if others before it are not complete."""
        self._tell_all = True

    def tell_completed(self) -> None:
        """With the output: what was accepted, and what is complete."""
        connection = self.connection
        if connection is None or self.failed:
            return
        self._tell_accepts()
        untold = self._untold()
        if untold:
            connection.control("session.completed", self.channel, commands=on_wire(untold), timely_reply=False)

    def _tell_anew(self) -> None:
        """All that is complete is to be told, as far back as ids on the wire can mean."""
        self._told = max(0, self.next_in - REACH)
        self._told_beyond.clear()

    def _tell_accepts(self) -> None:
        if self._accepts and self.may_send:
            accepts, self._accepts = self._accepts, []
            for at in range(0, len(accepts), 4096):
                self.send("message.accept", transfers=on_wire(accepts[at:at + 4096]))

    def _untold(self) -> Ranges:
        """Which commands are complete, of those that the client was not told of; now it will be."""
        if not self.incomplete:
            first, self._told = self._told, self.next_in
            self._told_beyond.clear()
            self._tell_all = False
            return [(first, self.next_in - 1)] if first < self.next_in else []
        waiting = next(iter(self.incomplete))
        found: Ranges = []
        if self._told < waiting:
            found.append((self._told, waiting - 1))
            self._told = waiting
        if self._tell_all:
            for number in range(waiting, self.next_in):
                if number not in self.incomplete and number not in self._told_beyond:
                    add(found, number)
                    self._told_beyond.add(number)
            self._told_beyond = {number for number in self._told_beyond if number >= self._told}
        return found[:4096]
