"""A connection without I/O (section 2.5): bytes in, events out, and bytes to send in `take_output`.

    connection = Connection(Login("guest", "guest"))
    send(connection.take_output())
    for event in connection.receive(read(), now):
        ...                                # Opened, Closed; of sessions Delivery, Settled, SessionEnded, ...
    session = connection.attach("a name")
    pending = session.issue(commands.queue_declare("work"), sync=True)

Time is in seconds of any clock that does not go back; `tick` has to be called when it says.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from interop.amqp010.errors import AuthenticationFailed, ConnectionError_, Detached
from interop.amqp010.sasl import Login
from interop.amqp010.session import Answered, Attached, Delivery, Flowing, Session, SessionEnded, Settled
from protocols.amqp010.codec import Malformed
from protocols.amqp010.frames import (
    BODY,
    BY_CODE,
    COMMAND,
    CONTROL,
    FIRST_FRAME,
    FIRST_SEGMENT,
    FRAME_HEADER,
    HEADER,
    HEARTBEAT_FRAME,
    LARGEST_FRAME_MAX,
    LAST_FRAME,
    LAST_SEGMENT,
    PROTOCOL_HEADER,
    SMALLEST_FRAME_MAX,
    frames,
    segment,
)

MOST_MESSAGE = 1 << 30
"""Bytes in a message that we take."""

STARTING, OPENING, OPEN, CLOSING, CLOSED = range(5)


class Opened:
    """Event: sessions can be attached now. server: the properties that it told of itself."""

    __slots__ = ("server", "known_hosts")

    def __init__(self, server: dict[str, Any], known_hosts: list[str]) -> None:
        self.server = server
        self.known_hosts = known_hosts


class Closed:
    """Event: it is over. error: None when we closed it."""

    __slots__ = ("error",)

    def __init__(self, error: ConnectionError_ | None) -> None:
        self.error = error


Event = Opened | Closed | Attached | SessionEnded | Settled | Delivery | Answered | Flowing


class _Assembly:
    """What has come of an assembly on one channel."""

    __slots__ = ("contents", "segment", "kind", "size")

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}  # whole segments by kind
        self.segment: list[bytes] = []
        self.kind = -1
        self.size = 0


class Connection:
    """One connection. A new one takes the sessions of one that broke: `attach(session=...)`.

    heartbeat: the seconds that we should like, 0 for none; properties: more client-properties (text, numbers).
    """

    def __init__(self, login: Login, virtual_host: str = "", *, heartbeat: int = 10, frame_max: int = LARGEST_FRAME_MAX,
                 properties: dict[str, Any] | None = None) -> None:
        self.events: list[Event] = []
        self.sessions: dict[int, Session] = {}  # by channel
        self.state = STARTING
        self.heartbeat = heartbeat
        self.frame_max = SMALLEST_FRAME_MAX
        self.channel_max = 0
        self.server: dict[str, Any] = {}
        self._login = login
        self._virtual_host = virtual_host
        self._properties = {**client_properties(), **(properties or {})}
        self._wanted_frame_max = frame_max
        self._output: list[bytes] = [PROTOCOL_HEADER]
        self._input = b""
        self._assemblies: dict[int, _Assembly] = {}
        self._greeted = False  # by the other side's protocol header
        self._heard: float | None = None
        self._sent: float | None = None

    # Bytes and time

    def take_output(self) -> bytes:
        """What is to be sent."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes. Raises nothing: what is wrong ends the connection, and is told by `Closed`."""
        self._heard = now
        self._input += data
        try:
            self._read()
        except Malformed as error:
            self._break(ConnectionError_(f"what came is not AMQP 0-10: {error}", 501), 501)
        except AuthenticationFailed as failed:
            self._break(failed, 320)
        return self.take_events()

    def tick(self, now: float) -> tuple[float | None, list[Event]]:
        """Send a heartbeat if it is time, end the connection if there were none for twice the time.

        Gives the time when to call again, None for never, and events.
        """
        if not self.heartbeat or self.state != OPEN:
            return None, self.take_events()
        heard = self._heard = now if self._heard is None else self._heard
        if now >= heard + 2 * self.heartbeat:
            self._break(ConnectionError_("there was no heartbeat"), 0)
            return None, self.take_events()
        if self._sent is None or now >= self._sent + self.heartbeat / 2:
            self._output.append(HEARTBEAT_FRAME)
            self._sent = now
        return min(self._sent + self.heartbeat / 2, heard + 2 * self.heartbeat), self.take_events()

    def take_events(self) -> list[Event]:
        """What happened since the last call, if it was not `receive` that did it."""
        events, self.events = self.events, []
        return events

    def lost(self, why: str) -> list[Event]:
        """The transport is gone. Sessions are detached, and can be attached elsewhere."""
        self._end(None if self.state == CLOSING else ConnectionError_(why))
        return self.take_events()

    # What programs do

    def attach(self, name: str | bytes = "", timeout: int = 0, *, force: bool = False,
               session: Session | None = None) -> Session:
        """Attach a new session, or one that was detached as its connection broke. `Attached` or `SessionEnded` follows.

        force: take the name from a session that is attached elsewhere. Raises: ConnectionError_ when not open.
        """
        if self.state != OPEN:
            raise ConnectionError_("the connection is not open")
        channel = next((number for number in range(self.channel_max + 1) if number not in self.sessions), -1)
        if channel < 0:
            raise ConnectionError_(f"there are {len(self.sessions)} sessions, and no more are allowed")
        if session is None:
            session = Session(name, timeout)
        self.sessions[channel] = session
        session.attach(self, channel, force)
        return session

    def close(self) -> None:
        """Ask the other side to close. `Closed` follows."""
        if self.state in (OPENING, OPEN):
            self.state = CLOSING
            self.send("connection.close", 0, {"reply_code": 200})
        elif self.state != CLOSING:
            self._end(None)

    # What sessions do

    def send(self, name: str, channel: int, values: dict[str, Any]) -> None:
        """Send a control."""
        flags = FIRST_SEGMENT | LAST_SEGMENT
        self._output += frames(segment(name, False, values), CONTROL, channel, flags, self.frame_max)

    def send_assembly(self, channel: int, segments: list[tuple[int, bytes]]) -> None:
        """Send a command with its content."""
        last = len(segments) - 1
        for number, (kind, content) in enumerate(segments):
            flags = (0 if number else FIRST_SEGMENT) | (LAST_SEGMENT if number == last else 0)
            self._output += frames(content, kind, channel, flags, self.frame_max)

    def release(self, channel: int) -> None:
        """The channel is free again."""
        self.sessions.pop(channel, None)
        self._assemblies.pop(channel, None)

    # Reading

    def _read(self) -> None:
        data, at = self._input, 0
        if not self._greeted:
            if len(data) < 8 and PROTOCOL_HEADER.startswith(data):
                return
            if data[:8] != PROTOCOL_HEADER:
                raise Malformed(f"the other side does not speak it, but begins with {data[:8]!r}")
            self._greeted = True
            at = 8
        while len(data) - at >= FRAME_HEADER and self.state != CLOSED:
            size = data[at + 2] << 8 | data[at + 3]
            if size < FRAME_HEADER or data[at] > 15 or data[at + 1] > BODY:
                raise Malformed("a frame's header makes no sense")
            if len(data) - at < size:
                break
            self._frame(data[at], data[at + 1], data[at + 6] << 8 | data[at + 7], data[at + FRAME_HEADER:at + size])
            at += size
        self._input = data[at:]

    def _frame(self, flags: int, kind: int, channel: int, content: bytes) -> None:
        if kind == CONTROL and flags & 15 == 15:  # nearly all; they may come between the frames of a command
            self._control(channel, content)
            return
        key = channel << 1 | (kind == CONTROL)  # tracks are independent
        found = self._assemblies.get(key)
        if flags & FIRST_FRAME:
            if flags & FIRST_SEGMENT:
                if found is not None or kind not in (CONTROL, COMMAND):
                    raise Malformed("an assembly begins where none can")
                found = self._assemblies[key] = _Assembly()
            elif found is None or found.segment or kind <= found.kind:
                raise Malformed("a segment begins where none can")
            found.kind = kind
        elif found is None or kind != found.kind:
            raise Malformed("a frame belongs to no segment")
        found.segment.append(content)
        found.size += len(content)
        if found.size > MOST_MESSAGE:
            raise Malformed("a message is larger than we take")
        if flags & LAST_FRAME:
            found.contents[kind] = b"".join(found.segment)
            found.segment = []
            if flags & LAST_SEGMENT:
                del self._assemblies[key]
                self._assembled(channel, found.contents)

    def _assembled(self, channel: int, contents: dict[int, bytes]) -> None:
        if CONTROL in contents:
            self._control(channel, contents[CONTROL])
            return
        session = self.sessions.get(channel)
        if session is None:
            raise Malformed("a command comes on a channel without a session")
        content = contents[COMMAND]
        if len(content) < 3 or len(content) < 3 + content[2]:
            raise Malformed("a command is cut off")
        code = content[0] << 8 | content[1]
        method = BY_CODE.get(code)
        if method is None or not method.is_command():
            raise Malformed(f"there is no command {code:#06x}")
        fields = method.decode(content, 3 + content[2], len(content))
        sync = content[2] > 0 and bool(content[3] & 1)
        session.command(code, fields, sync, contents.get(HEADER, b""), contents.get(BODY, b""))

    def _control(self, channel: int, content: bytes) -> None:
        code = int.from_bytes(content[:2], "big")
        method = BY_CODE.get(code)
        if method is None or method.is_command():
            raise Malformed(f"there is no control {code:#06x}")
        fields = method.decode(content, 2, len(content))
        if code >> 8 == 1:
            self._connection_control(method.name, fields)
            return
        session = self.sessions.get(channel)
        if session is not None:
            session.control(method.name, fields)
        elif self.state == OPEN and method.name == "session.detach":
            self.send("session.detached", channel, {"name": fields.get("name", b""), "code": 3})

    def _connection_control(self, name: str, fields: dict[str, Any]) -> None:
        if name == "connection.heartbeat":
            return
        if name == "connection.close":
            self._closed_by_peer(fields)
        elif name == "connection.close-ok" and self.state == CLOSING:
            self._end(None)
        elif self.state == CLOSING:
            pass
        elif self.state == STARTING:
            self._start(name, fields)
        elif self.state == OPENING and name == "connection.open-ok":
            self.state = OPEN
            self.events.append(Opened(self.server, fields.get("known_hosts", [])))
        elif self.state == OPENING and name == "connection.redirect":
            self._break(ConnectionError_(f"the other side wants us to go to {fields.get('host', '')}"), 200)
        else:
            raise Malformed(f"{name} comes where it cannot")

    def _start(self, name: str, fields: dict[str, Any]) -> None:
        if name == "connection.start":
            self.server = fields.get("server_properties", {})
            mechanism, response = self._login.start([str(each) for each in fields.get("mechanisms", [])])
            self.send("connection.start-ok", 0, {
                "client_properties": self._properties, "mechanism": mechanism, "response": response,
                "locale": "en_US"})
        elif name == "connection.secure":
            self.send("connection.secure-ok", 0, {"response": self._login.step(fields.get("challenge", b""))})
        elif name == "connection.tune":
            self._tune(fields)
        else:
            raise Malformed(f"{name} comes where it cannot")

    def _tune(self, fields: dict[str, Any]) -> None:
        """Frames: the smaller of both sizes; heartbeats: ours, within the other side's limits."""
        offered = fields.get("max_frame_size", 0) or LARGEST_FRAME_MAX
        self.frame_max = max(SMALLEST_FRAME_MAX, min(offered, self._wanted_frame_max))
        self.channel_max = fields.get("channel_max", 0) or 65535
        least, most = fields.get("heartbeat_min", 0), fields.get("heartbeat_max", 65535)
        if self.heartbeat:
            self.heartbeat = max(least, min(self.heartbeat, most))
        self.send("connection.tune-ok", 0, {"channel_max": self.channel_max, "max_frame_size": self.frame_max,
                                            "heartbeat": self.heartbeat})
        self.send("connection.open", 0, {"virtual_host": self._virtual_host, "insist": True})
        self.state = OPENING

    # The end

    def _closed_by_peer(self, fields: dict[str, Any]) -> None:
        code, words = fields.get("reply_code", 0), fields.get("reply_text", "")
        self.send("connection.close-ok", 0, {})
        if self.state == CLOSING:
            self._end(None)
        elif self.state == STARTING:
            self._end(AuthenticationFailed(words or "the other side closed the connection", code))
        else:
            self._end(ConnectionError_(words or "the other side closed the connection", code))

    def _break(self, error: ConnectionError_, code: int) -> None:
        """End it because of what we do not put up with. code: of connection.close, 0 to send none."""
        if code and self._greeted and self.state != CLOSED:
            self.send("connection.close", 0, {"reply_code": code, "reply_text": str(error)[:200]})
        self._end(error)

    def _end(self, error: ConnectionError_ | None) -> None:
        if self.state == CLOSED:
            return
        self.state = CLOSED
        self._input = b""
        self._assemblies.clear()
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            if error is None:
                session.end(Detached("the connection is closed"))
            session.lose()
        self.events.append(Closed(error))


def client_properties() -> dict[str, Any]:
    """What we tell of ourselves, as Qpid's clients do."""
    return {"product": "dragoman-client", "version": "0.1", "platform": f"Python {platform.python_version()}",
            "qpid.client_process": os.path.basename(sys.argv[0]) or "python", "qpid.client_pid": os.getpid(),
            "qpid.client_ppid": os.getppid()}

