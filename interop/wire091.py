"""pika's connection on an asyncio transport, with a short way for messages and what confirms them.

An adapter of pika's, as it has them for other loops: pika negotiates, opens channels and declares; sockets and TLS are
the loop's. What carries messages (basic.deliver, basic.return, basic.ack, basic.nack and all content) does not pass
through pika's objects but goes to the channel's `Receiving` as the bytes that came. So no value of a header changes
its type, and it is several times as fast.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, cast

import pika.connection
import pika.exceptions

from interop.adapter import Wire
from interop.dial import Place, reason, shortened
from interop.ends import Options

logging.getLogger("pika").setLevel(logging.CRITICAL + 1)  # whoever drives the link says what happened, once

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
LARGEST = 1 << 20
"""A frame of more bytes than this is nonsense: we ask for no more than 131072."""

DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"
CLOSE = b"\x00\x0a\x00\x32"
"""Class and method numbers: the basic class's, and connection.close."""

ONE_PIECE = 65536
"""Bodies of no more bytes are kept behind their header."""


class Receiving:
    """What gets a channel's messages and confirms."""

    def deliver(self, method: bytes, native: bytes, body: list[bytes] | None, size: int) -> None:
        """A message: arguments of basic.deliver; header frame, body frame behind it; or the body's pieces."""

    def returned(self, method: bytes, native: bytes, body: list[bytes] | None, size: int) -> None:
        """One that could not be routed: arguments of basic.return, and the same."""

    def confirmed(self, number: int, multiple: bool, accepted: bool) -> None:
        """basic.ack or basic.nack."""


class Content:
    """A message that is coming in on a channel."""

    __slots__ = ("take", "method", "header", "pieces", "size", "missing")

    def __init__(self, take: Callable[[bytes, bytes, list[bytes] | None, int], None], method: bytes) -> None:
        self.take = take
        self.method = method
        self.header = b""
        self.pieces: list[bytes] = []
        self.size = 0
        self.missing = 0


class Login(pika.credentials.PlainCredentials):  # type: ignore[misc]  # pika has no types
    """The SASL mechanism and the answer, by what the server offers."""

    def __init__(self, place: Place, mechanism: str) -> None:
        super().__init__(place.user, place.password)
        self.wanted = [mechanism] if mechanism else ["PLAIN"] if place.user else ["EXTERNAL", "ANONYMOUS"]
        if not place.tls and not mechanism and not place.user:
            self.wanted = ["ANONYMOUS"]

    def response_for(self, start: Any) -> tuple[str | None, bytes | None]:
        offered = start.mechanisms
        if isinstance(offered, str):
            offered = offered.encode()
        for name in self.wanted:
            if name.encode() in offered.split():
                answer = f"\0{self.username}\0{self.password}".encode() if name == "PLAIN" else b""
                return name, answer
        return None, None


class Wire091(pika.connection.Connection, Wire):  # type: ignore[misc]  # pika has no types
    """A connection, of which pika knows no socket."""

    def __init__(self, place: Place, options: Options, opened: Callable[[Mapping[Any, Any]], None],
                 closed: Callable[[str], None]) -> None:
        """opened: called with the other side's properties; closed: with why, when it is over, opened or not."""
        parameters = pika.ConnectionParameters(
            host=place.host, port=place.port, virtual_host=place.path or "/", heartbeat=options.heartbeat,
            credentials=Login(place, options.mechanism),
            client_properties={"product": "Dragoman", "connection_name": options.name or "dragoman"})
        self.transport: asyncio.Transport | None = None
        self.tls = place.tls is not None
        self.receiving: dict[int, Receiving] = {}  # by channel number
        self.writable = True
        self.on_writable: Callable[[], None] = lambda: None
        self.told = ""  # what the other side gave as reason when it closed the connection
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._contents: dict[int, Content] = {}
        self._output: list[bytes] = []

        def over(_: object, error: Any) -> None:
            closed(self.why(error))
        super().__init__(parameters, lambda _: opened(self.server_properties or {}), over, over,
                         internal_connection_workflow=False)

    def leave(self) -> None:
        if self.is_open:
            self.close()

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def write(self, data: bytes) -> None:
        """Send with all else of this turn of the loop."""
        if not self._output:
            self._loop.call_soon(self.flush)
        self._output.append(data)

    def flush(self) -> None:
        if self._output:
            data = b"".join(self._output)
            self._output.clear()
            if self.transport is not None:
                self.transport.write(data)

    def why(self, error: Any) -> str:
        """Why the connection is closed."""
        if self.told:
            return self.told
        if isinstance(error, pika.exceptions.AMQPHeartbeatTimeout):
            return f"no heartbeat: the other side was silent for {self.params.heartbeat + 5} s"
        if isinstance(error, pika.exceptions.AuthenticationError):
            return "the other side offers no SASL mechanism for which there are credentials"
        if isinstance(error, pika.exceptions.ProbableAuthenticationError):
            return "the other side broke off while we logged in: wrong user or password?"
        if isinstance(error, pika.exceptions.ProbableAccessDeniedError):
            return f"the other side broke off while we opened the virtual host {self.params.virtual_host}"
        if isinstance(error, pika.exceptions.IncompatibleProtocolError):
            return ("the other side closed the connection at once: it does not speak AMQP 0-9-1"
                    + (", or wants a certificate" if self.tls else ""))
        if isinstance(error, pika.exceptions.StreamLostError) and isinstance(error.args[0], BaseException | None):
            return reason(error.args[0])
        return shortened(str(error) or type(error).__name__)

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._on_stream_connected()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._contents.clear()
        if isinstance(exc, ssl.SSLError):
            self.told = reason(exc)
        self._on_stream_terminated(None if exc is None and self._error is not None
                                   else self._error or pika.exceptions.StreamLostError(exc))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.on_writable()

    def data_received(self, data: bytes) -> None:
        self.bytes_received += len(data)
        try:
            self._receive(self._rest + data if self._rest else data)
        except Exception as error:  # of pika's decoder, too: whatever it is, this connection is over
            self._rest = b""
            if self.transport is not None:
                self._terminate_stream(error if isinstance(error, pika.exceptions.AMQPError)
                                       else pika.exceptions.ProtocolSyntaxError(f"malformed data: {error}"))

    # What pika calls

    def _adapter_call_later(self, delay: float, callback: Callable[[], None]) -> object:
        return self._loop.call_later(delay, callback)

    def _adapter_remove_timeout(self, timeout_id: asyncio.TimerHandle) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(callback)

    def _adapter_connect_stream(self) -> None:
        raise NotImplementedError  # connecting is not pika's

    def _adapter_disconnect_stream(self) -> None:
        if self.transport is not None:
            if isinstance(self._error, pika.exceptions.AMQPHeartbeatTimeout):
                self.transport.abort()
            else:
                self.flush()
                self.transport.close()

    def _adapter_emit_data(self, data: bytes) -> None:
        self.write(data)

    # Frames

    def _receive(self, data: bytes) -> None:
        """Take all whole frames, and keep the rest. Raises: AMQPError and others for nonsense."""
        at, end = 0, len(data)
        while end - at >= 8:
            kind = data[at]
            after = at + 8 + int.from_bytes(data[at + 3:at + 7], "big")
            if kind not in (METHOD, HEADER, BODY, HEARTBEAT) or after - at > LARGEST:
                if data.startswith(b"AMQP") and not at:
                    self.told = f"the other side speaks AMQP {data[5]}-{data[6]}-{data[7]}, not 0-9-1"
                raise pika.exceptions.InvalidFrameError("the other side does not speak AMQP 0-9-1")
            if after > end:
                break
            if data[after - 1] != 0xCE:
                raise pika.exceptions.InvalidFrameError("a frame without an end")
            channel = data[at + 1] << 8 | data[at + 2]
            if kind == HEADER:
                after = self._header(channel, data, at, after)
            elif kind == BODY:
                self._body(channel, data[at + 7:after - 1])
            elif kind == HEARTBEAT or not self._basic(channel, data, at, after):
                self._other(data, at, after)
            at = after
        self._rest = data[at:] if at else data

    def _basic(self, channel: int, data: bytes, at: int, after: int) -> bool:
        """Take a method that has to do with messages; False for another one."""
        method = data[at + 7:at + 11]
        receiving = self.receiving.get(channel)
        if receiving is None:
            return False
        if method == DELIVER:
            self._contents[channel] = Content(receiving.deliver, data[at + 11:after - 1])
        elif method == ACK or method == NACK:
            receiving.confirmed(int.from_bytes(data[at + 11:at + 19], "big"), bool(data[at + 19] & 1), method == ACK)
        elif method == RETURN:
            self._contents[channel] = Content(receiving.returned, data[at + 11:after - 1])
        else:
            return False
        return True

    def _header(self, channel: int, data: bytes, at: int, after: int) -> int:
        """Take a content header, and the body if all of it is there in one frame; where they end."""
        content = self._contents[channel]
        size = content.size = int.from_bytes(data[at + 11:at + 19], "big")
        if not size:
            del self._contents[channel]
            content.take(content.method, data[at:after], None, 0)
            return after
        whole = after + 8 + size
        if size <= ONE_PIECE and whole <= len(data) and data[after:after + 7] == (
                b"\x03" + data[at + 1:at + 3] + size.to_bytes(4, "big")) and data[whole - 1] == 0xCE:
            del self._contents[channel]
            content.take(content.method, data[at:whole], None, size)
            return whole
        content.header = data[at:after]
        content.missing = size
        return after

    def _body(self, channel: int, piece: bytes) -> None:
        content = self._contents[channel]
        content.pieces.append(piece)
        content.missing -= len(piece)
        if content.missing < 0:
            raise pika.exceptions.BodyTooLongError(content.size - content.missing, content.size)
        if content.missing:
            return
        del self._contents[channel]
        if content.size > ONE_PIECE:
            content.take(content.method, content.header, content.pieces, content.size)
        else:
            body = b"\x03" + content.header[1:3] + content.size.to_bytes(4, "big") + b"".join(content.pieces) + b"\xce"
            content.take(content.method, content.header + body, None, content.size)

    def _other(self, data: bytes, at: int, after: int) -> None:
        if data[at + 7:at + 11] == CLOSE and data[at] == METHOD:
            size = data[at + 13]
            text = data[at + 14:at + 14 + size].decode("utf-8", "replace")
            self.told = shortened(text if text[:3].isdigit() else f"{data[at + 11] << 8 | data[at + 12]} {text}")
        _, found = pika.frame.decode_frame(data[at:after])
        if found is not None:
            self._process_frame(found)
