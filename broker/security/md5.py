"""HMAC-MD5 (RFC 2104) that can be begun with a password at one time, and gone on with at another.

What HMAC makes of its key is the state of two MD5 digests after their first block. CRAM-MD5 needs no more than these,
so they are kept instead of the password, in the form that Dovecot's users know: the outer state, then the inner. The
library's digests cannot be begun in the middle, hence MD5 (RFC 1321, section 3.4) is here once more.
"""

from __future__ import annotations

import hashlib
import math
import struct

_BLOCK = 64
_START = struct.pack("<4I", 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_SINES = [int(abs(math.sin(step + 1)) * 2**32) for step in range(64)]
_TURNS = [(7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21)]


def hmac_states(key: bytes) -> bytes:
    """The 32 bytes that stand for a key."""
    if len(key) > _BLOCK:
        key = hashlib.md5(key, usedforsecurity=False).digest()
    padded = key.ljust(_BLOCK, b"\0")
    return b"".join(_compress(_START, bytes(byte ^ pad for byte in padded)) for pad in (0x5C, 0x36))


def hmac_digest(states: bytes, message: bytes) -> bytes:
    """The HMAC of a message, by what hmac_states made of the key."""
    return _finish(states[:16], _finish(states[16:], message))


def _finish(state: bytes, message: bytes) -> bytes:
    """The digest of a first block, after which MD5 has this state, and the message."""
    length = (_BLOCK + len(message)) * 8
    message += b"\x80" + bytes(-(len(message) + 9) % _BLOCK) + struct.pack("<Q", length)
    for at in range(0, len(message), _BLOCK):
        state = _compress(state, message[at:at + _BLOCK])
    return state


def _compress(state: bytes, block: bytes) -> bytes:
    before = struct.unpack("<4I", state)
    words = struct.unpack("<16I", block)
    a, b, c, d = before
    for step in range(64):
        part = step // 16
        if part == 0:
            mixed, word = (b & c) | (~b & d), step
        elif part == 1:
            mixed, word = (d & b) | (~d & c), 5 * step + 1
        elif part == 2:
            mixed, word = b ^ c ^ d, 3 * step + 5
        else:
            mixed, word = c ^ (b | ~d & 0xFFFFFFFF), 7 * step
        total = (a + mixed + _SINES[step] + words[word % 16]) & 0xFFFFFFFF
        turn = _TURNS[part][step % 4]
        a, d, c, b = d, c, b, (b + (total << turn | total >> 32 - turn)) & 0xFFFFFFFF
    return struct.pack("<4I", *((old + new) & 0xFFFFFFFF for old, new in zip(before, (a, b, c, d), strict=True)))
