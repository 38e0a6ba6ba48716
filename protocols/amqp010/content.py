"""The native form of a message of 0-10: ready-made frames of track 1, whose channel number is anybody's.

`Message.native` is the header segment, nearly always one frame, and behind it the body in one frame, if there is a body
and one frame can hold it; the pieces of a longer body are in `Message.body`, without frame headers. The header segment
is structs (section 1.5: size, class and code, packing flags, fields), delivery-properties always the first of them.
"""

from __future__ import annotations

from typing import Final

from broker.message import Message
from protocols.amqp010.frames import (
    BODY,
    FIRST_FRAME,
    FRAME_HEADER,
    HEADER,
    LARGEST_FRAME_MAX,
    LAST_FRAME,
    LAST_SEGMENT,
    frame_head,
    frames,
)

MOST: Final = LARGEST_FRAME_MAX - FRAME_HEADER
"""Bytes that one frame can hold."""

_FLAGS_AT: Final = FRAME_HEADER + 6
"""Where the packing flags of the delivery-properties are: behind the frame's header, the struct's size and its code."""

_REDELIVERED: Final = 4
"""The flag in the first of these two octets."""


def build(header: bytes, pieces: list[bytes], size: int) -> tuple[bytes, list[bytes] | None]:
    """`native` and `body` of a message with this header segment and this body, whose pieces have `size` bytes. With no
    pieces there is no body, which is not the same as an empty one."""
    last = 0 if pieces else LAST_SEGMENT
    if len(header) <= MOST:
        head = frame_head(len(header), HEADER, 0, last | FIRST_FRAME | LAST_FRAME) + header
    else:
        head = _long_header(header, last)
    if not pieces:
        return head, None
    if size > MOST:
        return head, pieces
    return b"".join([head, frame_head(size, BODY, 0, LAST_SEGMENT | FIRST_FRAME | LAST_FRAME), *pieces]), None


def _long_header(header: bytes, last: int) -> bytes:
    parts = []
    for at in range(0, len(header), MOST):
        part = header[at:at + MOST]
        place = (0 if at else FIRST_FRAME) | (0 if at + MOST < len(header) else LAST_FRAME)
        parts += [frame_head(len(part), HEADER, 0, last | place), part]
    return b"".join(parts)


def header_end(native: bytes) -> int:
    """Where the frames of the header segment end."""
    at = native[2] << 8 | native[3]
    if not native[0] & LAST_FRAME:
        frame = 0
        while not native[frame] & LAST_FRAME:
            frame = at
            at += native[frame + 2] << 8 | native[frame + 3]
    return at


def header_segment(message: Message) -> bytes:
    """The structs of the header segment."""
    native = message.native
    end = header_end(native)
    if native[0] & LAST_FRAME:
        return native[FRAME_HEADER:end]
    parts = []
    at = 0
    while at < end:
        after = at + (native[at + 2] << 8 | native[at + 3])
        parts.append(native[at + FRAME_HEADER:after])
        at = after
    return b"".join(parts)


def body_pieces(message: Message) -> list[bytes]:
    """The body, in one or many pieces."""
    if message.body is not None:
        return message.body
    if not message.size:
        return []
    return [message.native[header_end(message.native) + FRAME_HEADER:]]


def redelivered(native: bytes) -> bytes:
    """The same with the delivery-properties' flag set that says so."""
    return b"".join((native[:_FLAGS_AT], bytes([native[_FLAGS_AT] | _REDELIVERED]), native[_FLAGS_AT + 1:]))


def content_frames(message: Message, channel: int, frame_max: int) -> list[bytes]:
    """A message's header and body in frames of a channel, none larger than `frame_max` bytes."""
    native = message.native
    if message.body is None and len(native) <= frame_max and native[0] & LAST_FRAME:
        return [for_channel(native, channel)]
    last = native[0] & LAST_SEGMENT
    found = frames(header_segment(message), HEADER, channel, last, frame_max)
    if last:
        return found
    most = frame_max - FRAME_HEADER
    pieces = body_pieces(message)
    left = message.size
    place = FIRST_FRAME
    for piece in pieces:
        for at in range(0, len(piece), most):
            part = piece[at:at + most]
            left -= len(part)
            found += [frame_head(len(part), BODY, channel, LAST_SEGMENT | place | (0 if left else LAST_FRAME)), part]
            place = 0
    return found


def for_channel(native: bytes, channel: int) -> bytes:
    """A header in one frame, and perhaps a body in another, with this channel's number."""
    number = bytes([channel >> 8, channel & 255])
    if native[6:8] == number:
        return native
    body = native[2] << 8 | native[3]
    if body == len(native):
        return b"".join((native[:6], number, native[8:]))
    return b"".join((native[:6], number, native[8:body + 6], number, native[body + 8:]))
