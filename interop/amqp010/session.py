"""A session without I/O (section 2.6): numbers for commands, completions both ways, replay after a broken connection.

Commands that are not known to be completed are kept, so that the session can be attached to another connection: what
the other side did not get is sent again, what it got is not, and the same holds for what it sends. A session whose
first command is completed is told from one that the other side has forgotten; before, it is just begun again. So the
first command should be an execution.sync, and nothing else be sent before that is completed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from interop.amqp010.commands import NONE, Command
from interop.amqp010.errors import DETACH_NAMES, Detached, Error, SessionError
from interop.amqp010.message import Message
from interop.amqp010.ranges import Ranges, unwrap, wire
from protocols.amqp010.codec import Malformed
from protocols.amqp010.frames import BODY, BY_CODE, COMMAND, HEADER, METHODS, segment

if TYPE_CHECKING:
    from interop.amqp010.connection import Connection

T = TypeVar("T")

DETACHED, ATTACHING, RESUMING, ATTACHED, DETACHING, ENDED = range(6)
"""States. RESUMING: we are attached, and do not know yet what the other side has got; ENDED: for good."""

FOREVER = 0xFFFFFFFF
"""A timeout: the session is kept until it is detached and its timeout set to 0."""

MOST_UNKNOWN = 256
"""Completions that we tell again and again before we ask the other side to confirm that it knows them."""

MOST_PAIRS = 1024
"""Ranges in one session.completed."""

MOST_ANSWERED = 1 << 16
"""Commands back from the last one that the other side can still speak of."""

_TRANSFER = METHODS["message.transfer"].code
_RESULT = METHODS["execution.result"].code
_EXCEPTION = METHODS["execution.exception"].code
_SYNC = METHODS["execution.sync"].code


class Pending(Generic[T]):
    """A command on its way. `done` is true when it is completed, or `error` says why it will not be.

    id: its number in the session; value: its result, once it is done without error.
    """

    __slots__ = ("id", "command", "segments", "done", "error", "value", "has_value")

    def __init__(self, id: int, command: Command[T], segments: list[tuple[int, bytes]]) -> None:
        self.id = id
        self.command = command
        self.segments = segments  # of the assembly: kinds and contents; none when they need not be sent again
        self.done = False
        self.error: Error | None = None
        self.value: T | None = None
        self.has_value = False


class Delivery:
    """How a message came: the number of its transfer in the session, and the subscription's name and modes."""

    __slots__ = ("session", "id", "destination", "accept_mode", "acquire_mode", "message")

    def __init__(self, session: Session, id: int, fields: dict[str, Any], message: Message) -> None:
        self.session = session
        self.id = id
        self.destination: str = fields.get("destination", "")
        self.accept_mode: int = fields.get("accept_mode", 0)
        self.acquire_mode: int = fields.get("acquire_mode", 0)
        self.message = message


class Answered:
    """Event: what the other side does with messages that were sent with accept mode EXPLICIT.

    name: message.accept, message.reject or message.release; transfers: the `Pending.id` of each.
    """

    __slots__ = ("session", "name", "transfers", "code", "text")

    def __init__(self, session: Session, name: str, transfers: list[int], fields: dict[str, Any]) -> None:
        self.session = session
        self.name = name
        self.transfers = transfers
        self.code: int = fields.get("code", 0)
        self.text: str = fields.get("text", "")


class Flowing:
    """Event: a destination in `session.stopped` takes messages again."""

    __slots__ = ("session", "destination")

    def __init__(self, session: Session, destination: str) -> None:
        self.session = session
        self.destination = destination


class Attached:
    """Event: the session is attached, and what had to be sent again is."""

    __slots__ = ("session",)

    def __init__(self, session: Session) -> None:
        self.session = session


class SessionEnded:
    """Event: the session is over, and all that was pending has failed with its `error` (None after our own detach)."""

    __slots__ = ("session", "error")

    def __init__(self, session: Session, error: Error | None) -> None:
        self.session = session
        self.error = error


class Settled:
    """Event: a command is done, or has failed."""

    __slots__ = ("pending",)

    def __init__(self, pending: Pending[Any]) -> None:
        self.pending = pending


class Session:
    """Made by `Connection.attach`.

    name: bytes or text, the same for as long as it lives; timeout: the seconds that the other side is asked to keep it
    without a connection, afterwards those that it grants.
    """

    def __init__(self, name: str | bytes, timeout: int) -> None:
        self.name = name.encode() if isinstance(name, str) else name
        self.timeout = timeout
        self.state = DETACHED
        self.error: Error | None = None  # why it ended
        self.stopped: set[str] = set()  # destinations that the other side wants nothing more for at present
        self.pending: dict[int, Pending[Any]] = {}  # not completed, by number, in order
        self.known_to_peer = False  # it was attached before
        self.decode: Callable[[bytes, bytes], Message] = Message.decode  # of header and body; may raise Malformed
        self._connection: Connection | None = None
        self._channel = 0
        self._next_out = 0
        self._next_in = 0  # of the command that the other side sends next, as far as we know
        self._expected_in = 0  # of the command that we have not got; below _next_in only while it sends again
        self._completed = Ranges()  # of its commands, and not known to it

    # What programs do

    def issue(self, command: Command[T], sync: bool = False) -> Pending[T]:
        """Send a command. sync: ask the other side to tell its completion at once.

        Without a connection it is kept, and sent when there is one. Raises: the error that the session ended with;
        ValueError, OverflowError for values that their fields cannot have.
        """
        if self.state == ENDED:
            raise self.error or Detached("the session is closed")
        segments = [(COMMAND, segment(command.name, sync, command.values))]
        if command.message is not None:
            header, body = command.message.encode()
            segments.append((HEADER, header))
            if body:
                segments.append((BODY, body))
        pending = Pending(self._next_out, command, segments)
        self.pending[pending.id] = pending
        self._next_out += 1
        if self.state == ATTACHED:
            self._transmit(pending)
        return pending

    def complete(self, deliveries: list[Delivery]) -> None:
        """Say that these messages are taken: it moves the window, if there is one. Accepting them is another thing."""
        for delivery in deliveries:
            self._completed.add(delivery.id, delivery.id)
        self._tell_completed()

    def flush(self, *, expected: bool = False, confirmed: bool = False, completed: bool = True) -> None:
        """Ask the other side what it has, and has done. Its answer settles commands."""
        if self.state == ATTACHED:
            self._control("session.flush", expected=expected, confirmed=confirmed, completed=completed)

    def detach(self) -> None:
        """End the session. The other side need not keep it. `SessionEnded` follows."""
        if self.state in (RESUMING, ATTACHED):
            self._control("session.request-timeout", timeout=0)
            self._control("session.detach", name=self.name)
            self.state = DETACHING
        elif self.state in (DETACHED, ATTACHING):
            self.end(None)

    # What the connection does

    def attach(self, connection: Connection, channel: int, force: bool) -> None:
        self._connection = connection
        self._channel = channel
        self.state = ATTACHING
        self._control("session.attach", name=self.name, force=force)

    def lose(self) -> None:
        """The connection is gone."""
        self._connection = None
        if self.state == DETACHING:
            self.end(None)
        elif self.state != ENDED:
            self.state = DETACHED

    def end(self, error: Error | None) -> None:
        """The session is over, and all that is pending fails. None: because we wanted it."""
        if self.state == ENDED:
            return
        events = self._connection.events if self._connection is not None else []
        self.state = ENDED
        self.error = error
        for pending in self.pending.values():
            pending.error = error or Detached("the session is closed")
            events.append(Settled(pending))
        self.pending.clear()
        events.append(SessionEnded(self, error))

    def _control(self, control: str, **values: Any) -> None:
        assert self._connection is not None
        self._connection.send(control, self._channel, values)

    def _transmit(self, pending: Pending[Any]) -> None:
        assert self._connection is not None
        self._connection.send_assembly(self._channel, pending.segments)

    # Controls of the other side

    def control(self, name: str, fields: dict[str, Any]) -> None:
        """A control of this session. Raises: Malformed."""
        if name == "session.detach":
            self._control("session.detached", name=self.name, code=0)
            self._leave(Detached("the other side ended the session"))
        elif name == "session.detached":
            code = fields.get("code", 0)
            wanted = self.state == DETACHING
            self._leave(None if wanted else Detached(f"the session is detached: {DETACH_NAMES.get(code, code)}", code))
        elif self.state == ENDED:
            pass
        elif name == "session.attached":
            self._attached()
        elif name == "session.completed":
            self._peer_completed(fields)
        elif name == "session.known-completed":
            for first, last in fields.get("commands", []):
                self._completed.remove(*self._span(first, last, self._next_in))
        elif name == "session.confirmed":
            for number in self._sent_among(fields):
                self.pending[number].segments = []
        elif name == "session.expected":
            self._peer_expects(fields)
        elif name == "session.flush":
            self._answer_flush(fields)
        elif name == "session.command-point":
            self._point(unwrap(fields.get("command_id", 0), self._next_in))
        elif name == "session.gap":
            for first, last in fields.get("commands", []):
                self._skip(*self._span(first, last, self._next_in))
        elif name == "session.timeout":
            self.timeout = fields.get("timeout", 0)
        else:
            raise Malformed(f"{name} is not for a client to get")

    def _attached(self) -> None:
        """Ask what was received, if there can be something; else begin at the beginning."""
        if self.state != ATTACHING:
            raise Malformed("session.attached without session.attach")
        self._control("session.request-timeout", timeout=self.timeout)
        if self.known_to_peer:
            self.state = RESUMING
            self._control("session.flush", expected=True, confirmed=True, completed=True)
        else:
            self._replay(0)

    def _peer_expects(self, fields: dict[str, Any]) -> None:
        if self.state != RESUMING:
            return
        ranges = fields.get("commands", [])
        at = unwrap(ranges[0][0], self._next_out) if ranges else 0  # none: it got nothing, or is another session
        if at != self._next_out and at not in self.pending:
            self._control("session.detach", name=self.name)
            self.end(Detached("the other side does not know the session any more", 4))
            return
        self._replay(at)

    def _replay(self, at: int) -> None:
        """Send all commands from number `at` on; say of those that need not be sent that they will not come."""
        assert self._connection is not None
        self.state = ATTACHED
        self.known_to_peer = True
        self._control("session.command-point", command_id=wire(at), command_offset=0)
        for pending in list(self.pending.values()):
            if pending.id < at:
                continue
            if pending.segments:
                self._transmit(pending)
            else:
                number = wire(pending.id)
                self._control("session.gap", commands=[(number, number)])
        self._connection.events.append(Attached(self))
        self._tell_completed()

    def _answer_flush(self, fields: dict[str, Any]) -> None:
        number = wire(self._expected_in)
        if fields["expected"]:
            self._control("session.expected", commands=[(number, number)], fragments=[])
        if fields["confirmed"]:
            self._control("session.confirmed", commands=[], fragments=[])
        if fields["completed"]:
            self._tell_completed()

    def _point(self, at: int) -> None:
        """The other side's next command has this number."""
        if not self._expected_in:
            self._expected_in = at
        if at > self._expected_in:
            raise Malformed("commands of the other side are missing")
        self._next_in = at

    def _leave(self, error: Error | None) -> None:
        """We are detached."""
        assert self._connection is not None
        self._connection.release(self._channel)
        self.end(error)
        self._connection = None

    # Completions

    def _span(self, first: int, last: int, near: int) -> tuple[int, int]:
        start = unwrap(first, near)
        stop = unwrap(last, near)
        if stop < start:
            raise Malformed("a range of commands ends before it begins")
        return start, stop

    def _sent_among(self, fields: dict[str, Any]) -> list[int]:
        """The commands of ours among those that a control is about, and that are pending."""
        found: list[int] = []
        for first, last in fields.get("commands", []):
            if not self.pending:
                break
            start, stop = self._span(first, last, self._next_out)
            start, stop = max(start, next(iter(self.pending))), min(stop, self._next_out - 1)
            if stop - start > len(self.pending):
                found += [number for number in self.pending if start <= number <= stop]
            else:
                found += [number for number in range(start, stop + 1) if number in self.pending]
        return found

    def _peer_completed(self, fields: dict[str, Any]) -> None:
        assert self._connection is not None
        for number in self._sent_among(fields):
            pending = self.pending.pop(number, None)
            if pending is None:  # told twice
                continue
            if pending.command.result is not None and not pending.has_value:
                pending.error = SessionError(541, f"there is no result of {pending.command.name}", command_id=number)
            else:
                pending.done = True
            self._connection.events.append(Settled(pending))
        if fields["timely_reply"]:
            self._control("session.known-completed", commands=fields.get("commands", []))

    def _tell_completed(self) -> None:
        if self.state == ATTACHED:
            pairs = self._completed.pairs
            many = sum([last - first + 1 for first, last in pairs]) > MOST_UNKNOWN
            told = self._completed.on_wire()
            for at in range(0, len(told), MOST_PAIRS):
                self._control("session.completed", commands=told[at:at + MOST_PAIRS], timely_reply=many)

    # Commands of the other side

    def _skip(self, first: int, last: int) -> None:
        """Commands that will never come."""
        if first <= self._expected_in <= last:
            self._expected_in = last + 1
        self._next_in = max(self._next_in, last + 1)
        self._completed.add(first, last)

    def command(self, code: int, fields: dict[str, Any], sync: bool, header: bytes, body: bytes) -> None:
        """A command. Raises: Malformed."""
        number = self._next_in
        self._next_in += 1
        if number < self._expected_in:
            return  # it is sent again, and we had got it
        self._expected_in = self._next_in
        assert self._connection is not None
        if self.state == ENDED:
            return
        if code == _TRANSFER:
            message = self.decode(header, body)
            message.delivery = Delivery(self, number, fields, message)
            self._connection.events.append(message.delivery)
            return
        self._completed.add(number, number)
        if code == _RESULT:
            self._result(fields)
        elif code == _EXCEPTION:
            self._exception(fields)
        elif code != _SYNC:
            self._about_messages(BY_CODE[code].name, fields)
        if sync or code == _SYNC:
            self._tell_completed()

    def _about_messages(self, name: str, fields: dict[str, Any]) -> None:
        """What the other side says of messages that we send: what becomes of them, or that there be no more."""
        destination = fields.get("destination", "")
        assert self._connection is not None
        events = self._connection.events
        if name in ("message.accept", "message.reject", "message.release"):
            numbers: list[int] = []
            for first, last in fields.get("transfers", []):
                start, stop = self._span(first, last, self._next_out)
                numbers += range(max(start, self._next_out - MOST_ANSWERED), min(stop, self._next_out - 1) + 1)
            events.append(Answered(self, name, numbers, fields))
        elif name == "message.stop":
            self.stopped.add(destination)
        elif name in ("message.flow", "message.set-flow-mode"):
            self.stopped.discard(destination)
            events.append(Flowing(self, destination))
        else:
            raise Malformed(f"a client cannot carry out {name}")

    def _result(self, fields: dict[str, Any]) -> None:
        pending = self.pending.get(unwrap(fields.get("command_id", 0), self._next_out))
        if pending is None or pending.command.result is None:
            return
        value = fields.get("value")
        if not isinstance(value, dict):
            raise Malformed(f"the result of {pending.command.name} is not a struct that it can be")
        try:
            pending.value = pending.command.result(value)
        except TypeError:
            raise Malformed(f"the result of {pending.command.name} is another struct") from None
        pending.has_value = True

    def _exception(self, fields: dict[str, Any]) -> None:
        """All that is pending will not be done. The other side detaches next, and the channel is taken until then."""
        self.end(SessionError(
            fields.get("error_code", 0), fields.get("description", ""),
            command_id=unwrap(fields.get("command_id", 0), self._next_out), class_code=fields.get("class_code", 0),
            command_code=fields.get("command_code", 0), field_index=fields.get("field_index", 0),
            info=fields.get("error_info")))


def needs_accept(delivery: Delivery) -> bool:
    """Whether a message is to be accepted, released or rejected. One that is accepted by being sent is not."""
    return delivery.accept_mode != NONE
