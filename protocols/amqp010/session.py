"""A session: commands in both directions, exactly once each, over one connection after another (0-10, section 3).

Each side numbers its commands. We remember which of the client's we have seen and which are complete, and, for a
session that is kept when its connection breaks, what we sent and the client has not yet said to have.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from broker.clock import Timer
from broker.entry import Entry
from broker.errors import BrokerError
from broker.message import Message
from broker.queue import Queue
from broker.returns import give_back
from broker.security.access import Access
from broker.security.quotas import CONSUMERS
from broker.transaction import Transaction
from protocols.amqp010.codec import RESULTS, write_struct
from protocols.amqp010.commands import COMMANDS
from protocols.amqp010.completion import REACH, Completion
from protocols.amqp010.content import content_frames
from protocols.amqp010.errors import (
    ILLEGAL_STATE,
    NORMAL,
    NOT_IMPLEMENTED,
    RESOURCE_DELETED,
    UNKNOWN_IDS,
    Detached,
    SessionError,
    session_error,
    short,
)
from protocols.amqp010.frames import COMMAND, FIRST_SEGMENT, LAST_SEGMENT, Method, frames, segment
from protocols.amqp010.ids import MASK, Ranges, Received, extend, extend_all, on_wire
from protocols.amqp010.incoming import Assembly
from protocols.amqp010.subscription import ASK_EVERY, MOST_UNCONFIRMED, Delivered, Subscription

if TYPE_CHECKING:
    from protocols.amqp010.connection import Connection

logger = logging.getLogger(__name__)


class Sent:
    """A command of ours that the client may not have: its segment and, for a transfer, its message."""

    __slots__ = ("content", "message")

    def __init__(self, content: bytes, message: Message | None) -> None:
        self.content = content
        self.message = message


class Session(Completion):
    """One session of a client, attached to a connection or waiting for another one."""

    def __init__(self, connection: Connection, name: bytes) -> None:
        super().__init__(connection.broker)
        self.host = connection.host
        self.registry = connection.registry
        self.user = connection.user
        self.name = name
        self.ended = False
        self.timeout = 0  # s that it is kept when its connection is lost
        self._expiry: Timer | None = None
        self.in_known = False  # the client has said where its commands begin, on this connection
        self.assembly = Assembly(self)
        # Commands of ours.
        self.next_out = 0
        self.sent: dict[int, Sent] = {}  # of a session that is kept: what the client may not have
        self.completed = Received()  # those that the client has completed
        self.asked = 0  # where we were when the client was last asked
        # Messages.
        self.subscriptions: dict[str, Subscription] = {}
        self.most = 0  # transfers that may be unsettled; 0 for any number
        self.unsettled: dict[int, Entry] = {}  # acquired, by the id of their transfer
        self.delivered: dict[int, Delivered] = {}  # what the client's completion will give back as credit
        self.browsed: dict[int, Delivered] = {}  # not acquired, and may be yet
        self.transaction: Transaction | None = None  # or the branch that it works on
        self.distributed = False  # its transactions are branches of distributed ones
        self.in_transaction: dict[int, Entry] = {}  # accepted within the transaction
        self.exclusive_queues: dict[Queue, bool] = {}  # and whether they go with the session

    @property
    def client(self) -> Connection:
        """Its connection; only while it is attached, as it is when a frame comes."""
        assert self.connection is not None
        return self.connection

    @property
    def access(self) -> Access:
        """What its client may do."""
        return self.client.access

    def __repr__(self) -> str:
        return f"session '{self.name.decode('utf-8', 'replace')}'"

    # Attached and detached.

    def attach(self, connection: Connection, channel: int) -> None:
        """The session goes on, or begins, on a channel of a connection."""
        again = self.next_in > 0 or self.next_out > 0
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.connection = connection
        self.channel = channel
        self.most = connection.quota.unsettled
        for subscription in self.subscriptions.values():
            subscription.quota = connection.quota
            subscription.quota.adopt(CONSUMERS, 1)
        self.in_known = False
        self.is_due = False
        self._tell_anew()
        connection.control("session.attached", channel, name=self.name)
        self.may_send = not again
        if again:
            connection.control("session.flush", channel, expected=True, confirmed=True, completed=True)
        else:
            connection.control("session.command-point", channel, command_id=0, command_offset=0)
            self._wake_all()

    def disconnected(self) -> None:
        """The connection is gone: wait for another one, or end."""
        self.connection = None
        self.may_send = False
        self.assembly.abandon()
        if self.timeout and not self.failed and not self.ended:
            self._expiry = self.broker.timers.after(self.timeout * 1000, self._expired)
        else:
            self.end()

    def taken_away(self) -> None:
        """Another connection attaches the session by force."""
        connection = self.connection
        if connection is not None:
            for _ in self.subscriptions:
                connection.quota.give(CONSUMERS)
            connection.control("session.detached", self.channel, name=self.name, code=NORMAL)
            connection.forget(self)
        self.connection = None
        self.may_send = False
        self.assembly.abandon()

    def _expired(self) -> None:
        self._expiry = None
        if self.connection is None:
            logger.info("%r was detached for %d s and ends", self, self.timeout)
            self.end()

    def end(self) -> None:
        """The session is over: give back what it has, in order, and let go of everything."""
        if self.ended:
            return
        self.ended = True
        if self.connection is not None:
            self.connection.forget(self)
        self.registry.remove(self)
        self.let_go()
        self.connection = None

    def let_go(self) -> None:
        """Give back what the session has before its subscriptions go, and perhaps queues with them."""
        self.may_send = False  # or its own subscriptions would have it again
        self.assembly.abandon()
        if self.distributed:
            self.host.branches.session_ended(self)
        elif self.transaction is not None:
            self.transaction.rollback()
        self.transaction = None
        entries = {**self.unsettled, **self.in_transaction}
        self.unsettled = {}
        self.in_transaction = {}
        give_back([entries[number] for number in sorted(entries)], self.broker.chores)
        for subscription in list(self.subscriptions.values()):
            subscription.queue.remove(subscription)
        self.subscriptions.clear()
        self.delivered.clear()
        self.browsed.clear()
        self.sent.clear()
        self.incomplete.clear()
        for queue, goes in self.exclusive_queues.items():
            if queue.owner is self:
                queue.owner = None
            if goes:
                queue.orphaned()
        self.exclusive_queues.clear()

    # Controls.

    def control(self, name: str, m: dict[str, Any]) -> None:
        """A control of the client's about this session. Raises: Detached, ConnectionError010."""
        connection = self.connection
        assert connection is not None
        if name == "session.detach":
            connection.control("session.detached", self.channel, name=self.name, code=NORMAL)
            if self.failed or not self.timeout:
                self.end()
            else:
                connection.forget(self)
                self.disconnected()
        elif name == "session.detached":
            self.end()
        elif self.failed:
            return
        elif name == "session.request-timeout":
            self.timeout = min(m.get("timeout", 0), connection.settings.session_seconds)
            connection.control("session.timeout", self.channel, timeout=self.timeout)
        elif name == "session.timeout":
            self.timeout = min(m.get("timeout", 0), self.timeout)
        elif name == "session.command-point":
            self._command_point(extend(m.get("command_id", 0), self.next_in), m.get("command_offset", 0))
        elif name == "session.gap":
            for first, last in extend_all(m.get("commands", []), self.next_in):
                if first <= self.next_in <= last:
                    self.next_in = last + 1
            self.assembly.next_id = max(self.assembly.next_id, self.next_in)
        elif name == "session.flush":
            self._flush(m)
        elif name == "session.expected":
            self._expected(m.get("commands", []))
        elif name == "session.confirmed":
            self._confirmed(m.get("commands", []))
        elif name == "session.completed":
            self._completed(m.get("commands", []))
            if m["timely_reply"]:
                connection.control("session.known-completed", self.channel, commands=m.get("commands", []))

    def _command_point(self, command_id: int, offset: int) -> None:
        """Where the client's commands begin. In a new session that is not to be kept it may be anywhere: Qpid's JMS
        client goes on counting after a failover."""
        if not (self.in_known or self.next_in or self.next_out or self.timeout or offset) and command_id > 0:
            self.begin_at(command_id)
        if command_id > self.next_in or offset:
            raise Detached(UNKNOWN_IDS, f"command-point {command_id}, offset {offset}: {self.next_in} is expected")
        self.in_known = True
        self.assembly.abandon()
        self.assembly.next_id = command_id

    def _flush(self, m: dict[str, Any]) -> None:
        connection = self.connection
        assert connection is not None
        channel = self.channel
        if m["expected"]:
            number = self.next_in & MASK
            connection.control("session.expected", channel, commands=[(number, number)] if self.next_in else [])
        if m["confirmed"]:
            last = self.next_in - 1
            connection.control("session.confirmed", channel,
                               commands=on_wire([(max(0, last - REACH), last)]) if last >= 0 else [])
        if m["completed"]:
            self._tell_anew()
            self._tell_all = True
            self._tell_accepts()
            connection.control("session.completed", channel, commands=on_wire(self._untold()), timely_reply=False)

    def _expected(self, commands: Ranges) -> None:
        """What the client expects of us: it is sent again, and all after it."""
        connection = self.connection
        assert connection is not None
        if self.may_send:
            return
        first = 0
        if commands:
            first = extend(commands[0][0], self.next_out)
        elif self.next_out and self.completed.below < self.next_out:
            raise Detached(UNKNOWN_IDS, "the client begins a session anew that is not over: it is ended now")
        else:
            first = self.next_out
        missing = range(first, self.next_out)
        if first > self.next_out or any(number not in self.sent for number in missing):
            raise Detached(UNKNOWN_IDS, f"command {first} is expected, and is not kept here")
        self.may_send = True
        connection.control("session.command-point", self.channel, command_id=first & MASK, command_offset=0)
        for number in missing:
            sent = self.sent[number]
            self._write(sent.content, sent.message)
        for number in [number for number in self.sent if number < first]:
            del self.sent[number]
        connection.due(self)
        self._wake_all()

    def _confirmed(self, commands: Ranges) -> None:
        for first, last in extend_all(commands, self.next_out):
            if last >= self.next_out:
                raise Detached(UNKNOWN_IDS, f"command {last} is confirmed, and was not sent")
            for number in range(max(first, self.completed.below), last + 1):
                self.sent.pop(number, None)

    def _completed(self, commands: Ranges) -> None:
        for first, last in extend_all(commands, self.next_out):
            if last >= self.next_out:
                raise Detached(UNKNOWN_IDS, f"command {last} is completed, and was not sent")
            fresh = self.completed.take(first, last)
            if self.sent:
                crowded = len(self.sent) > MOST_UNCONFIRMED
                for number in fresh:
                    self.sent.pop(number, None)
                if crowded:
                    self._wake_all()
            if self.delivered:
                delivered = self.delivered
                for number in fresh:
                    done = delivered.pop(number, None)
                    if done is not None:
                        done.subscription.give_back_credit(done)

    # Commands of the client's.

    def frame(self, flags: int, kind: int, data: bytes, at: int, stop: int) -> None:
        """A frame of a command, from behind its header. Raises: ConnectionError010."""
        if self.failed:
            return
        try:
            if not self.in_known:
                raise SessionError(ILLEGAL_STATE, "there was no command-point yet")
            self.assembly.frame(flags, kind, data, at, stop)
        except SessionError as error:
            self.fail(error.code, error.text, self.assembly.next_id, self.assembly.code)
        except BrokerError as refusal:  # a name of its own: compiled, a variable has one type
            wrong = session_error(refusal)
            self.fail(wrong.code, wrong.text, self.assembly.next_id, self.assembly.code)

    def execute(self, number: int, method: Method, m: dict[str, Any], sync: bool) -> None:
        """A whole command without content. Raises: SessionError, BrokerError."""
        command = COMMANDS.get(method.name)
        if command is None:
            raise SessionError(NOT_IMPLEMENTED, f"{method.name} is not for a broker")
        self.incomplete[number] = False
        if command(self, number, m):
            self.complete(number)
        if sync:
            self._tell_all = True

    # Commands of ours.

    def send(self, method: str, /, **values: Any) -> None:
        """Send a command without content."""
        self._send(segment(method, False, values), None)

    def result(self, number: int, kind: str, /, **values: Any) -> None:
        """Send the result of a command of the client's."""
        self.send("execution.result", command_id=number & MASK, value=write_struct(RESULTS[kind], values))

    def transfer(self, content: bytes, message: Message) -> int:
        """Send a message; content: the transfer's segment. Gives the id that it has."""
        number = self.next_out
        self._send(content, message)
        if number - self.asked >= ASK_EVERY:
            self.ask()
        return number

    def ask(self) -> None:
        """Have the client say what it has completed."""
        self.asked = self.next_out
        if self.connection is not None and self.may_send:
            self.connection.control("session.flush", self.channel, expected=False, confirmed=False, completed=True)

    def _send(self, content: bytes, message: Message | None) -> None:
        if self.timeout:
            self.sent[self.next_out] = Sent(content, message)
        self.next_out += 1
        if self.connection is not None and self.may_send:
            self._write(content, message)

    def _write(self, content: bytes, message: Message | None) -> None:
        connection = self.connection
        assert connection is not None
        flags = FIRST_SEGMENT if message is not None else FIRST_SEGMENT | LAST_SEGMENT
        for part in frames(content, COMMAND, self.channel, flags, connection.frame_out):
            connection.write(part)
        if message is not None:
            for part in content_frames(message, self.channel, connection.frame_out):
                connection.write(part)

    def _wake_all(self) -> None:
        for subscription in self.subscriptions.values():
            subscription.attached_again()
            subscription.queue.wake(subscription)

    def settled(self, count: int) -> None:
        """So many transfers are settled: if that was why nothing more was sent, something may be."""
        if count and 0 < self.most <= len(self.unsettled) + count and self.connection is not None:
            for subscription in self.subscriptions.values():
                if subscription.parked:
                    self.connection.wake_later(subscription)

    def tick(self) -> None:
        """About once a second: subscriptions that measure in bytes may have become able to take what is next."""
        for subscription in list(self.subscriptions.values()):
            if subscription.weighs and subscription.parked:
                subscription.queue.wake(subscription)
            subscription.see_flushed()

    # Errors.

    def fail(self, code: int, text: str, number: int, command: int) -> None:
        """Tell the client of an error, which costs it the session. command: class and command code in one number."""
        if self.failed or self.ended:
            return
        connection = self.connection
        peer = connection.peer if connection is not None else "detached"
        logger.warning("%s: %r ends: %s", peer, self, text)
        self._accepts.clear()
        if connection is not None and self.may_send:
            self.send("execution.exception", error_code=code, command_id=number & MASK, class_code=command >> 8,
                      command_code=command & 0xFF, field_index=0, description=short(text, 65535), error_info={})
            connection.control("session.detach", self.channel, name=self.name)
            self.failed = True
            self.registry.remove(self)
            self.let_go()
        else:
            self.failed = True
            self.end()

    def queue_deleted(self, subscription: Subscription) -> None:
        """Somebody has deleted a queue that the session receives from (exception `queue-deletion` of subscribe)."""
        self.subscriptions.pop(subscription.tag, None)
        self.fail(RESOURCE_DELETED, f"{subscription.queue!r} was deleted", subscription.command_id, 0x0407)
