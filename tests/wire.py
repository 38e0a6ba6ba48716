"""A small raw client of AMQP 0-9-1 for the tests: plain sockets, and a codec that is somebody else's (pamqp).

`Client` is one connection, `Channel` one channel of it. Both know just enough to keep a test short, and every level
is open: `Client.write` sends any bytes, `Client.read` gives the next frame as it came, `Channel.next` the next method
(with its content) on that channel, and `Channel.call` sends a method and waits for its answer, putting aside what
the broker sends of its own accord meanwhile (deliveries, returns, confirms). An answer that is channel.close or
connection.close is raised as `ChannelClosed` or `ConnectionClosed`; `channel_error` and `connection_error` expect
one. Timeouts only guard against hanging.
"""

from __future__ import annotations

import re
import socket
import struct
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pamqp import commands, frame, header
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Confirm, Connection, Exchange, Queue
from pamqp.heartbeat import Heartbeat

HANG = 20.0
"""Seconds after which a test counts as hung."""

HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, CONTENT_HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"

CAPABILITIES: dict[str, Any] = {
    "publisher_confirms": True, "exchange_exchange_bindings": True, "basic.nack": True, "consumer_cancel_notify": True,
    "connection.blocked": True, "authentication_failure_close": True,
}

F = TypeVar("F", bound=Frame)
T = TypeVar("T")


class Peer(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int


class Hangup(EOFError):
    """The broker closed the socket without a word."""


def received(connection: socket.socket) -> bytes:
    """What came, when something has. Raises: Hangup."""
    try:
        data = connection.recv(1 << 20)
    except (ConnectionResetError, BrokenPipeError) as error:
        raise Hangup(str(error)) from error
    if not data:
        raise Hangup("end of input")
    return data


class Refusal(Exception):
    """The broker closed a channel or the connection because of something it was sent."""

    def __init__(self, close: commands.Channel.Close | commands.Connection.Close) -> None:
        super().__init__(f"{close.reply_code} {close.reply_text} ({close.class_id}, {close.method_id})")
        self.code = close.reply_code
        self.text = close.reply_text
        self.method = (close.class_id, close.method_id)


class ChannelClosed(Refusal):
    """channel.close came instead of an answer."""


class ConnectionClosed(Refusal):
    """connection.close came instead of an answer."""


@dataclass
class Content:
    """A method that carries content (basic.deliver, basic.get-ok, basic.return) and that content."""

    method: Any
    properties: Basic.Properties
    body: bytes
    raw_header: bytes

    @property
    def name(self) -> str:
        return str(self.method.name)

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}

    @property
    def tag(self) -> int:
        return int(self.method.delivery_tag)


def raw_frame(kind: int, channel: int, payload: bytes, end: bytes = END) -> bytes:
    """The bytes of a frame, whatever they say."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def raw_method(channel: int, class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    return raw_frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


def raw_header(channel: int, size: int, properties: bytes = b"\x00\x00", class_id: int = 60, weight: int = 0) -> bytes:
    """A content header; `properties` begins with the property flags."""
    return raw_frame(CONTENT_HEADER, channel, struct.pack(">HHQ", class_id, weight, size) + properties)


def shortstr(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return bytes([len(data)]) + data


def longstr(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def unchecked(kind: type[F], **fields: Any) -> F:
    """A method with arguments that pamqp would refuse to send, or warn about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = kind()
    for field, value in fields.items():
        setattr(method, field, value)
    method.validate = lambda: None
    return method


def eventually(look: Callable[[], T], good: Callable[[T], bool] = bool) -> T:
    """What `look` gives, as soon as it is good; for what a broker does in its own time."""
    until = time.monotonic() + HANG
    while True:
        value = look()
        if good(value):
            return value
        assert time.monotonic() < until, f"still {value!r}"
        time.sleep(0.02)


class Client:
    """One connection. Nothing is sent before `open` or `write`."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.socket = socket.create_connection(peer, timeout=HANG)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = b""
        self.inbox: dict[int, deque[Frame | Content]] = {0: deque()}
        self.unfinished: dict[int, tuple[Frame, header.ContentHeader | None, bytes, list[bytes]]] = {}
        self.frame_max = 131072
        self.channel_max = 0
        self.start: Any = None
        self.tune: Any = None
        self.closed = False

    def open(self, user: str = "guest", password: str = "guest", vhost: str = "/", *,
             properties: dict[str, Any] | None = None, channel_max: int | None = None, frame_max: int | None = None,
             heartbeat: int = 0, protocol: bytes = HEADER) -> Client:
        """The whole handshake; what is not given is taken as the broker proposes it, but for no heartbeats."""
        self.log_in(user, password, properties=properties, protocol=protocol)
        self.tune = self.expect(Connection.Tune)
        self.channel_max = self.tune.channel_max if channel_max is None else channel_max
        self.frame_max = self.tune.frame_max if frame_max is None else frame_max
        self.send(0, Connection.TuneOk(self.channel_max, self.frame_max, heartbeat), Connection.Open(vhost))
        self.expect(Connection.OpenOk)
        return self

    def log_in(self, user: str = "guest", password: str = "guest", *, properties: dict[str, Any] | None = None,
               protocol: bytes = HEADER) -> None:
        """The handshake as far as connection.start-ok."""
        self.write(protocol)
        self.start = self.expect(Connection.Start)
        sent: dict[str, Any] = {"product": "wire", "capabilities": CAPABILITIES} if properties is None else properties
        self.send(0, Connection.StartOk(sent, "PLAIN", f"\0{user}\0{password}", "en_US"))

    # What goes out

    def write(self, data: bytes) -> None:
        """Send these bytes. When the broker hung up already, reading will tell what it had to say."""
        with suppress(ConnectionResetError, BrokenPipeError):
            self.socket.sendall(data)

    def send(self, channel: int, *frames: frame.FrameTypes) -> None:
        self.write(b"".join(frame.marshal(one, channel) for one in frames))

    # What comes in

    def read_raw(self) -> bytes:
        """The bytes of the next frame; `Hangup` at the end of input."""
        while len(self.input) < 8 or len(self.input) < 8 + int.from_bytes(self.input[3:7], "big"):
            self._fill()
        size = 8 + int.from_bytes(self.input[3:7], "big")
        data, self.input = self.input[:size], self.input[size:]
        assert data[-1:] == END
        return data

    def read(self) -> tuple[int, Any]:
        """The channel of the next frame, and the frame."""
        _, channel, value = frame.unmarshal(self.read_raw())
        return channel, value

    def rest(self) -> bytes:
        """All that still comes until the broker closes the socket."""
        with suppress(Hangup):
            while True:
                self._fill()
        data, self.input = self.input, b""
        return data

    def _fill(self) -> None:
        self.input += received(self.socket)

    def pump(self) -> None:
        """Read one frame and file it under its channel."""
        raw = self.read_raw()
        _, channel, value = frame.unmarshal(raw)
        if isinstance(value, Heartbeat):
            return
        inbox = self.inbox.setdefault(channel, deque())
        if isinstance(value, header.ContentHeader | ContentBody):
            self._content(channel, value, raw)
        elif isinstance(value, Connection.Close):
            self.closed = True
            with suppress(OSError):
                self.send(0, Connection.CloseOk())
            raise ConnectionClosed(value)
        elif isinstance(value, Basic.Deliver | Basic.GetOk | Basic.Return):
            assert channel not in self.unfinished
            self.unfinished[channel] = (value, None, b"", [])
        else:
            assert isinstance(value, Frame)
            inbox.append(value)

    def _content(self, channel: int, value: header.ContentHeader | ContentBody, raw: bytes) -> None:
        method, head, raw_head, parts = self.unfinished.pop(channel)
        if isinstance(value, header.ContentHeader):
            assert head is None
            head, raw_head = value, raw
        else:
            assert head is not None and len(raw) <= (self.frame_max or 1 << 32)
            parts.append(raw[7:-1])
        size = sum(map(len, parts))
        assert size <= head.body_size
        if size == head.body_size:
            content = Content(method, head.properties, b"".join(parts), raw_head)
            self.inbox[channel].append(content)
        else:
            self.unfinished[channel] = (method, head, raw_head, parts)

    def next(self, channel: int = 0) -> Any:
        """The next method on this channel, with its content if it has one."""
        inbox = self.inbox.setdefault(channel, deque())
        while not inbox:
            self.pump()
        return inbox.popleft()

    def expect(self, kind: type[T], channel: int = 0) -> T:
        """The next method on this channel, which is of this kind."""
        value = self.next(channel)
        assert isinstance(value, kind), value
        return value

    def channel(self, number: int = 0) -> Channel:
        """A channel newly opened, by default the first that this client never used."""
        if not number:
            number = max(self.inbox) + 1
        self.send(number, commands.Channel.Open())
        self.expect(commands.Channel.OpenOk, number)
        return Channel(self, number)

    # The end

    def close(self) -> None:
        """connection.close and its answer, if the connection still stands; then the socket."""
        if not self.closed:
            self.closed = True
            with suppress(Hangup, OSError):
                self.send(0, Connection.Close(200, "bye", 0, 0))
                while self.read_raw()[7:11] not in (b"\x00\x0a\x00\x32", b"\x00\x0a\x00\x33"):  # close, close-ok
                    pass
        self.socket.close()

    def drop(self) -> None:
        """Close the socket and say nothing."""
        self.closed = True
        self.socket.close()


class Channel:
    """One channel. Queue and exchange methods by short names, with what the tests say most often as defaults."""

    def __init__(self, client: Client, number: int) -> None:
        self.client = client
        self.number = number
        self.publisher: Channel | None = None

    def send(self, *frames: frame.FrameTypes) -> None:
        self.client.send(self.number, *frames)

    def next(self) -> Any:
        """The next method, with its content if it has one; `ChannelClosed` (and answered) when it is channel.close."""
        value = self.client.next(self.number)
        if isinstance(value, commands.Channel.Close):
            self.send(commands.Channel.CloseOk())
            raise ChannelClosed(value)
        return value

    def expect(self, kind: type[T]) -> T:
        value = self.next()
        assert isinstance(value, kind), value
        return value

    def call(self, method: Frame) -> Any:
        """Send, and give the answer; what comes before it stays for `next`."""
        self.send(method)
        return self.answer(method)

    def answer(self, method: Frame) -> Any:
        """The answer to a method that was sent."""
        aside: list[Frame | Content] = []
        try:
            while True:
                value = self.next()
                if value.name in method.valid_responses:
                    return value
                aside.append(value)
        finally:
            self.client.inbox[self.number].extendleft(reversed(aside))

    def close(self) -> None:
        self.call(commands.Channel.Close(200, "bye", 0, 0))

    # Topology

    def queue(self, queue: str = "", **options: Any) -> Queue.DeclareOk:
        ok: Queue.DeclareOk = self.call(unchecked(Queue.Declare, queue=queue, **options))
        return ok

    def temporary(self) -> str:
        """The name of a new exclusive queue, which the broker chose."""
        return str(self.queue(exclusive=True).queue)

    def exchange(self, exchange: str, kind: str = "direct", **options: Any) -> None:
        self.call(unchecked(Exchange.Declare, exchange=exchange, exchange_type=kind, **options))

    def bind(self, queue: str, exchange: str, routing_key: str = "", arguments: dict[str, Any] | None = None) -> None:
        self.call(Queue.Bind(0, queue, exchange, routing_key, False, arguments))

    def count(self, queue: str) -> int:
        """Messages ready in the queue."""
        return self.queue(queue, passive=True).message_count or 0

    def exists(self, queue: str) -> bool:
        """Whether the queue exists."""
        return self._found(lambda other: other.queue(queue, passive=True), 404) == 0

    def gone(self, queue: str) -> bool:
        """Whether the queue is no more; while the end of an exclusive one's owner is not noticed yet, it is locked."""
        return self._found(lambda other: other.queue(queue, passive=True), 404, 405) == 404

    def exchange_exists(self, exchange: str) -> bool:
        return self._found(lambda other: other.exchange(exchange, passive=True), 404) == 0

    def _found(self, ask: Callable[[Channel], Any], *codes: int) -> int:
        """0, or by which of these codes it is refused; asked on a channel of its own, since a no closes it."""
        other = self.client.channel()
        try:
            ask(other)
        except ChannelClosed as refusal:
            assert refusal.code in codes, refusal
            return refusal.code
        other.close()
        return 0

    # Messages

    def publish(self, exchange: str, routing_key: str, body: bytes = b"", *, mandatory: bool = False,
                immediate: bool = False, **properties: Any) -> None:
        self.send(Basic.Publish(0, exchange, routing_key, mandatory, immediate),
                  header.ContentHeader(0, len(body), Basic.Properties(**properties)))
        room = (self.client.frame_max or 131072) - 8
        for offset in range(0, len(body), room):
            self.send(ContentBody(body[offset:offset + room]))

    def confirmed(self, exchange: str, routing_key: str, body: bytes = b"", **options: Any) -> bool:
        """Publish on a channel in confirm mode, and say whether it was confirmed (or refused: basic.nack)."""
        self.publish(exchange, routing_key, body, **options)
        answer = self.next()
        assert isinstance(answer, Basic.Ack | Basic.Nack), answer
        return isinstance(answer, Basic.Ack)

    def put(self, exchange: str, routing_key: str, body: bytes = b"", **options: Any) -> bool:
        """Publish on a second channel of this connection, and return when it is confirmed: it is in its queues."""
        if self.publisher is None:
            self.publisher = self.client.channel()
            self.publisher.confirm()
        return self.publisher.confirmed(exchange, routing_key, body, **options)

    def confirm(self) -> None:
        self.call(Confirm.Select())

    def get(self, queue: str, no_ack: bool = True) -> Content | None:
        """What basic.get gives, None for get-empty."""
        answer = self.call(Basic.Get(0, queue, no_ack))
        return answer if isinstance(answer, Content) else None

    def wait_get(self, queue: str, no_ack: bool = True) -> Content:
        """What basic.get gives as soon as there is something."""
        content = eventually(lambda: self.get(queue, no_ack), lambda got: got is not None)
        assert content is not None
        return content

    def consume(self, queue: str, tag: str = "", **options: Any) -> str:
        ok: Basic.ConsumeOk = self.call(unchecked(Basic.Consume, queue=queue, consumer_tag=tag, **options))
        return str(ok.consumer_tag)

    def delivery(self) -> Content:
        """The next thing on this channel, which is a delivery."""
        content = self.expect(Content)
        assert isinstance(content.method, Basic.Deliver), content
        return content

    def deliveries(self, number: int) -> list[bytes]:
        """The bodies of the next so many deliveries."""
        return [self.delivery().body for _ in range(number)]

    def ack(self, tag: int, multiple: bool = False) -> None:
        self.send(Basic.Ack(tag, multiple))

    def nack(self, tag: int, multiple: bool = False, requeue: bool = True) -> None:
        self.send(Basic.Nack(tag, multiple, requeue))

    def reject(self, tag: int, requeue: bool = True) -> None:
        self.send(Basic.Reject(tag, requeue))

    def qos(self, count: int, global_: bool = False) -> None:
        self.call(Basic.Qos(0, count, global_))

    def settle(self, queue: str) -> None:
        """Return when the broker has done all it was sent here so far, deliveries from this queue included."""
        for _ in range(3):
            self.count(queue)

    def idle(self, queue: str) -> bool:
        """Whether nothing is waiting to be read on this channel once the broker has done all it was sent."""
        self.settle(queue)
        return not self.client.inbox[self.number]


# Expected refusals

Method = type[Frame] | tuple[int, int] | None


@contextmanager
def channel_error(code: int, text: str | re.Pattern[str], method: Method) -> Iterator[None]:
    """What is done here makes the broker close the channel, with this code and text, because of this method."""
    with _refusal(ChannelClosed, code, text, method):
        yield


@contextmanager
def connection_error(code: int, text: str | re.Pattern[str], method: Method) -> Iterator[None]:
    """What is done here makes the broker close the connection, with this code and text, because of this method."""
    with _refusal(ConnectionClosed, code, text, method):
        yield


@contextmanager
def _refusal(kind: type[Refusal], code: int, text: str | re.Pattern[str], method: Method) -> Iterator[None]:
    try:
        yield
    except kind as refusal:
        ids = (0, 0) if method is None else method if isinstance(method, tuple) else divmod(method.index, 1 << 16)
        assert (refusal.code, refusal.method) == (code, ids), refusal
        if isinstance(text, str):
            assert refusal.text == text
        else:
            assert text.fullmatch(refusal.text), refusal.text
    else:
        raise AssertionError(f"no {kind.__name__} {code} came")
