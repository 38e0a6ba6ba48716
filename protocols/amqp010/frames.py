"""Commands and controls of AMQP 0-10 as data, and the frames that they and messages travel in (section 2).

An assembly is one to four segments: a control; or a command, for a message with a header and a body behind it. Each
segment is one frame or several. A line here says class, code, name and fields.
"""

from __future__ import annotations

from typing import Any, Final

from protocols.amqp010.codec import Field, Malformed, layout, read_fields, write_fields

PROTOCOL_HEADER: Final = b"AMQP\x01\x01\x00\x0a"

CONTROL: Final = 0
COMMAND: Final = 1
HEADER: Final = 2
BODY: Final = 3
"""Segment types."""

FIRST_SEGMENT: Final = 8
LAST_SEGMENT: Final = 4
FIRST_FRAME: Final = 2
LAST_FRAME: Final = 1
"""Flags of a frame: its segment is the assembly's first, or last; it is its segment's first, or last."""

FRAME_HEADER: Final = 12
"""Bytes of a frame's header."""

SMALLEST_FRAME_MAX: Final = 4096
"""MIN-MAX-FRAME-SIZE."""

LARGEST_FRAME_MAX: Final = 65535

HEARTBEAT_FRAME: Final = b"\x0f\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x01\x0a\x00\x00"

_METHODS = """
1 1 connection.start server-properties:map mechanisms:array locales:array
1 2 connection.start-ok client-properties:map mechanism:str8 response:vbin32 locale:str8
1 3 connection.secure challenge:vbin32
1 4 connection.secure-ok response:vbin32
1 5 connection.tune channel-max:uint16 max-frame-size:uint16 heartbeat-min:uint16 heartbeat-max:uint16
1 6 connection.tune-ok channel-max:uint16 max-frame-size:uint16 heartbeat:uint16
1 7 connection.open virtual-host:str8 capabilities:array insist:bit
1 8 connection.open-ok known-hosts:array
1 9 connection.redirect host:str16 known-hosts:array
1 10 connection.heartbeat
1 11 connection.close reply-code:uint16 reply-text:str8
1 12 connection.close-ok
2 1 session.attach name:vbin16 force:bit
2 2 session.attached name:vbin16
2 3 session.detach name:vbin16
2 4 session.detached name:vbin16 code:uint8
2 5 session.request-timeout timeout:uint32
2 6 session.timeout timeout:uint32
2 7 session.command-point command-id:sequence-no command-offset:uint64
2 8 session.expected commands:sequence-set fragments:array
2 9 session.confirmed commands:sequence-set fragments:array
2 10 session.completed commands:sequence-set timely-reply:bit
2 11 session.known-completed commands:sequence-set
2 12 session.flush expected:bit confirmed:bit completed:bit
2 13 session.gap commands:sequence-set
3 1 execution.sync
3 2 execution.result command-id:sequence-no value:struct32
3 3 execution.exception error-code:uint16 command-id:sequence-no class-code:uint8 command-code:uint8 \
field-index:uint8 description:str16 error-info:map
4 1 message.transfer destination:str8 accept-mode:uint8 acquire-mode:uint8
4 2 message.accept transfers:sequence-set
4 3 message.reject transfers:sequence-set code:uint16 text:str8
4 4 message.release transfers:sequence-set set-redelivered:bit
4 5 message.acquire transfers:sequence-set
4 6 message.resume destination:str8 resume-id:str16
4 7 message.subscribe queue:str8 destination:str8 accept-mode:uint8 acquire-mode:uint8 exclusive:bit resume-id:str16 \
resume-ttl:uint64 arguments:map
4 8 message.cancel destination:str8
4 9 message.set-flow-mode destination:str8 flow-mode:uint8
4 10 message.flow destination:str8 unit:uint8 value:uint32
4 11 message.flush destination:str8
4 12 message.stop destination:str8
5 1 tx.select
5 2 tx.commit
5 3 tx.rollback
6 1 dtx.select
6 2 dtx.start xid:xid join:bit resume:bit
6 3 dtx.end xid:xid fail:bit suspend:bit
6 4 dtx.commit xid:xid one-phase:bit
6 5 dtx.forget xid:xid
6 6 dtx.get-timeout xid:xid
6 7 dtx.prepare xid:xid
6 8 dtx.recover
6 9 dtx.rollback xid:xid
6 10 dtx.set-timeout xid:xid timeout:uint32
7 1 exchange.declare exchange:str8 type:str8 alternate-exchange:str8 passive:bit durable:bit auto-delete:bit \
arguments:map
7 2 exchange.delete exchange:str8 if-unused:bit
7 3 exchange.query name:str8
7 4 exchange.bind queue:str8 exchange:str8 binding-key:str8 arguments:map
7 5 exchange.unbind queue:str8 exchange:str8 binding-key:str8
7 6 exchange.bound exchange:str8 queue:str8 binding-key:str8 arguments:map
8 1 queue.declare queue:str8 alternate-exchange:str8 passive:bit durable:bit exclusive:bit auto-delete:bit \
arguments:map
8 2 queue.delete queue:str8 if-unused:bit if-empty:bit
8 3 queue.purge queue:str8
8 4 queue.query queue:str8
"""

FIRST_COMMAND_CLASS: Final = 3
"""Classes below are of controls."""


_MOST_HEADS: Final = 4096
_heads: Final[dict[int, bytes]] = {}
"""Headers of frames that were made lately."""


class Method:
    """A command or a control: its code (class and code in one number), its name, its fields."""

    __slots__ = ("code", "name", "fields")

    def __init__(self, code: int, name: str, fields: list[Field]) -> None:
        self.code = code
        self.name = name
        self.fields = fields

    def is_command(self) -> bool:
        return self.code >> 8 >= FIRST_COMMAND_CLASS

    def decode(self, data: bytes, at: int, end: int) -> dict[str, Any]:
        """The arguments, from behind the code (and a command's session header). Raises: Malformed."""
        found, stop = read_fields(self.fields, data, at, end)
        if stop != end:
            raise Malformed(f"{self.name} is longer than its fields")
        return found


def _methods() -> dict[str, Method]:
    found = {}
    for line in _METHODS.strip().splitlines():
        class_code, code, name, fields = [*line.split(maxsplit=3), ""][:4]
        found[name] = Method(int(class_code) << 8 | int(code), name, layout(name, fields, 0, 0).fields)
    return found


METHODS = _methods()
"""By name."""

BY_CODE = {method.code: method for method in METHODS.values()}


def segment(name: str, sync: bool, values: dict[str, Any]) -> bytes:
    """A control's or a command's segment: code, for a command the session header, fields.

    sync: of a command: its completion is to be told at once. Raises: OverflowError, ValueError, KeyError.
    """
    method = METHODS[name]
    head = method.code.to_bytes(2, "big")
    if method.is_command():
        head += b"\x01\x01" if sync else b"\x01\x00"
    return head + write_fields(method.fields, values)


def frames(content: bytes, kind: int, channel: int, flags: int, frame_max: int) -> list[bytes]:
    """A segment's frames. flags: FIRST_SEGMENT, LAST_SEGMENT; frame_max: bytes of the largest frame."""
    most = frame_max - FRAME_HEADER
    if len(content) <= most:
        return [frame_head(len(content), kind, channel, flags | FIRST_FRAME | LAST_FRAME), content]
    found = []
    for at in range(0, len(content), most):
        part = content[at:at + most]
        place = (FIRST_FRAME if at == 0 else 0) | (LAST_FRAME if at + most >= len(content) else 0)
        found += [frame_head(len(part), kind, channel, flags | place), part]
    return found


def frame_head(size: int, kind: int, channel: int, flags: int) -> bytes:
    """The header of a frame with so many bytes of payload. Controls have track 0, all else track 1."""
    key = (size << 16 | channel) << 8 | kind << 4 | flags
    head = _heads.get(key)
    if head is None:
        if len(_heads) >= _MOST_HEADS:
            _heads.clear()
        size += FRAME_HEADER
        head = _heads[key] = bytes([flags, kind, size >> 8, size & 255, 0, 0 if kind == CONTROL else 1,
                                    channel >> 8, channel & 255, 0, 0, 0, 0])
    return head


def encode(method: str, channel: int, frame_max: int, /, sync: bool = False, **values: Any) -> bytes:
    """A control or a command, without content, in its frames. Raises: OverflowError, ValueError, KeyError."""
    # Compiled, a field `name` would get lost if the first parameter had that name, in spite of the stroke.
    content = segment(method, sync, values)
    kind = COMMAND if METHODS[method].is_command() else CONTROL
    return b"".join(frames(content, kind, channel, FIRST_SEGMENT | LAST_SEGMENT, frame_max))
