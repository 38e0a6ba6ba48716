"""How the LMDB store's keys and values look on disk. All numbers are big-endian, so keys sort as their numbers do.

    meta      "format"              format version, 4 bytes
              "clean"               present (value "1") when the store was closed properly
              "last_id"             the largest id given out when the last batch was written, 8 bytes
              "revision"            the largest revision of a setting, 8 bytes
              "discard" start end   present (empty) while the entries between two entry keys are being forgotten
    topology  key in UTF-8       -> revision, 8 bytes; value
    messages  id, 8 bytes        -> stored form, when it fits in one piece
              id, 0 (4 bytes)    -> length of the stored form, 8 bytes, when it does not; its pieces follow as
              id, n (4 bytes)    -> the n-th piece, from 1
    entries   queue id 8, lane 1, entry id 8 -> message id 8, size 8, expiry 8, deliveries 2, flags 1
    shared    message id, 8 bytes -> the number of stored entries that hold the message, 4 bytes; odd ids only
    branches  branch id, 8 bytes -> the record of a prepared transaction; its messages are entries of a queue of that id
    sessions  number, 8 bytes; key -> the record of a session whose queue has that number as its id

Format 1 had no `branches`, and format 2 no `sessions`; a store of these becomes one of format 3 when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from store.journal import StoreDamaged, StoredEntry

FORMAT: Final = 3
"""The format version that this Dragoman writes."""
OLDEST_FORMAT: Final = 1
"""The first that it reads."""

TABLES: Final = (b"meta", b"topology", b"messages", b"entries", b"shared", b"branches", b"sessions")
LATER_TABLES: Final = (b"branches", b"sessions")
"""Those of TABLES that the oldest format does not have."""

META_FORMAT: Final = b"format"
META_CLEAN: Final = b"clean"
META_LAST_ID: Final = b"last_id"
META_REVISION: Final = b"revision"
META_DISCARD: Final = b"discard"

PIECE: Final = (1 << 20) - 16
"""The most bytes of a message in one record: with LMDB's header of 16 bytes that is 256 pages."""

LARGEST_ID: Final = (1 << 64) - 1
LARGEST_KEY: Final = 511
ENTRY_KEY: Final = 17
ENTRY_VALUE: Final = 27

Found = tuple[int, int, int, int, int, int]
"""(entry id, message id, size, expiry, deliveries, flags), as `ShardLog.scan` gives it."""

_ENTRY_KEY: Final = Struct(">QBQ")
_ENTRY_VALUE: Final = Struct(">QQQHB")
_PIECE_KEY: Final = Struct(">QI")

pack_entry_key: Final = _ENTRY_KEY.pack
pack_entry_value: Final = _ENTRY_VALUE.pack
unpack_entry_value: Final = _ENTRY_VALUE.unpack
pack_piece_key: Final = _PIECE_KEY.pack


def entry_key(entry: StoredEntry) -> bytes:
    return pack_entry_key(entry.queue_id, entry.lane, entry.id)


def entry_value(entry: StoredEntry) -> bytes:
    return pack_entry_value(entry.message_id, entry.size, entry.expiry, min(entry.deliveries, 65535), entry.flags)


def split_entry_key(key: bytes) -> tuple[int, int, int]:
    """(queue id, lane, entry id). Raises StoreDamaged."""
    if len(key) != ENTRY_KEY:
        raise StoreDamaged(f"an entry's key has {len(key)} bytes instead of {ENTRY_KEY}: {key.hex()}. {ADVICE}")
    return int.from_bytes(key[:8], "big"), key[8], int.from_bytes(key[9:], "big")


def found_entry(key: bytes, value: bytes) -> Found:
    """Raises StoreDamaged."""
    if len(key) != ENTRY_KEY or len(value) != ENTRY_VALUE:
        raise StoreDamaged(f"the entry {key.hex()} has {len(value)} bytes instead of {ENTRY_VALUE}. {ADVICE}")
    message_id, size, expiry, deliveries, flags = unpack_entry_value(value)
    return int.from_bytes(key[9:], "big"), message_id, size, expiry, deliveries, flags


def message_key(message_id: int) -> bytes:
    return message_id.to_bytes(8, "big")


def record_key(number: int, key: bytes) -> bytes:
    return number.to_bytes(8, "big") + key


def found_record(key: bytes) -> tuple[int, bytes]:
    """(number, key). Raises StoreDamaged."""
    if len(key) < 8:
        raise StoreDamaged(f"the key of a session's record has {len(key)} bytes, and should have 8 at least. {ADVICE}")
    return int.from_bytes(key[:8], "big"), key[8:]


def branch_number(key: bytes) -> int:
    """Raises StoreDamaged."""
    if len(key) != 8:
        raise StoreDamaged(f"the key of a prepared transaction has {len(key)} bytes instead of 8. {ADVICE}")
    return int.from_bytes(key, "big")


def number(value: bytes | None, width: int, what: str) -> int:
    """A stored number of `width` bytes, 0 when there is none. Raises StoreDamaged; `what` names it in the text."""
    if value is None:
        return 0
    if len(value) != width:
        raise StoreDamaged(f"{what} has {len(value)} bytes instead of {width}. {ADVICE}")
    return int.from_bytes(value, "big")


def cut(parts: list[bytes]) -> Iterator[bytes]:
    """A long stored form's pieces, without ever joining the whole."""
    waiting: list[bytes] = []
    room = PIECE
    for part in parts:
        at = 0
        while len(part) - at >= room:
            waiting.append(part[at:at + room])
            at += room
            yield b"".join(waiting)
            waiting = []
            room = PIECE
        if at < len(part):
            rest = part[at:]
            waiting.append(rest)
            room -= len(rest)
    if waiting:
        yield b"".join(waiting)


def setting_record(value: bytes, revision: int) -> bytes:
    return revision.to_bytes(8, "big") + value


def found_setting(key: bytes, record: bytes) -> tuple[str, bytes, int]:
    """(key, value, revision). Raises StoreDamaged."""
    try:
        name = key.decode()
    except UnicodeDecodeError:
        name = ""
    if not name or len(record) < 8:
        raise StoreDamaged(f"the setting {key!r} cannot be read. {ADVICE}")
    return name, record[8:], int.from_bytes(record[:8], "big")


ADVICE: Final = ("Restore the store from a backup, or see with `dragoman store check --path FOLDER` what is damaged, "
                 "and save with `dragoman store export --path FOLDER FILE` what can be read, to import it into a new "
                 "store")
"""What to do about a damaged store; ends the text of every StoreDamaged."""
