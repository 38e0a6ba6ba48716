"""Files that commands change while a broker may read them: replaced at once, and kept from others' eyes."""

from __future__ import annotations

import codecs
import os
import tempfile

Stamp = tuple[int, int, int]
"""What a file's contents are known by: whoever changes it makes another one."""


def stamp_of(stat: os.stat_result) -> Stamp:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def read_file(path: str) -> tuple[bytes, Stamp]:
    """A file's contents, without a byte order mark. Raises: OSError."""
    with open(path, "rb") as file:
        return file.read().removeprefix(codecs.BOM_UTF8), stamp_of(os.fstat(file.fileno()))


def read_text(path: str) -> str:
    """The text of a file that people write. Raises ValueError, with the file."""
    try:
        content, _ = read_file(path)
        return content.decode("utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text, at byte {error.start}") from None


def replace_file(path: str, lines: list[str], stamp: Stamp | None) -> Stamp:
    """Replace a file, at once and safe against a crash; readable by its owner (and its group, if it was) only.

    stamp: of the file as it was read, None for one that was not there. Gives the new one. Raises ValueError when
    somebody else has changed the file since, and OSError.
    """
    target = os.path.realpath(path)
    try:
        before = os.stat(target)
    except FileNotFoundError:
        before = None
    if (before and stamp_of(before)) != stamp:
        raise ValueError(f"{path}: the file was changed since it was read: load it and make the change again")
    folder = os.path.dirname(target)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".new", dir=folder)  # with mode 0600
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            if before is not None:  # an administrator's change must not take the file away from the broker
                os.fchown(handle, before.st_uid, before.st_gid)
                os.fchmod(handle, 0o600 | before.st_mode & 0o040)
            file.writelines(line + "\n" for line in lines)
            file.flush()
            os.fsync(handle)
            stamp = stamp_of(os.fstat(handle))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return stamp
