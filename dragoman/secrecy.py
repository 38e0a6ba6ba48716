"""Keeping secrets from others on this machine: what a process list shows, what a core dump holds, who reads files."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import stat
import sys
from pathlib import Path

from dragoman.config import Config
from dragoman.config_providers import FileUsers, LdapUsers, OAuth2Users

_PASSWORD = re.compile(rb"(\w+://[^/@:\0]*:)([^@\0]+)(?=@)")
"""Of a URL on a command line."""

_ARGUMENTS_BEGIN, _ARGUMENTS_END = 47, 48
"""Fields of /proc/self/stat, from 0: addresses of the command line (proc(5), arg_start and arg_end)."""


def hide_passwords() -> None:
    """Have others see `x` for passwords in the URLs of our command line, where the system lets us. (`sys.argv` stays.)

    They are there for a moment nevertheless: to give a password in DRAGOMAN_URL keeps it from others altogether.
    """
    if not any("://" in argument and "@" in argument for argument in sys.argv):
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        begin, end = (int(fields[field - 2]) for field in (_ARGUMENTS_BEGIN, _ARGUMENTS_END))
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(begin)
            line = memory.read(end - begin)
            memory.seek(begin)
            memory.write(_PASSWORD.sub(lambda found: found[1] + b"x" * len(found[2]), line))


def for_us(path: str, flags: int) -> int:
    """An opener for `open`: a file that is new is its owner's alone."""
    return os.open(path, flags, 0o600)


def begin() -> None:
    """Of a broker's process: its new files are nobody else's, and it leaves no core dump with what it knows."""
    os.umask(0o027)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def open_to_others(config: Config) -> list[str]:
    """Files with secrets that others on this machine may read, in words for the log.

    It is no reason not to start: a container's volumes have what modes they have.
    """
    tls = config.tls
    secrets = [(config.authentication.users_file, 0o007), (tls.key or tls.certificate, 0o007)]
    secrets += [(each.key or each.certificate, 0o007) for each in config.certificates]
    secrets += [(path, 0o007) for link in config.link for path in (link.password_file, link.key)]
    for provider in config.providers:
        if isinstance(provider, FileUsers):
            secrets.append((provider.users_file, 0o007))
        elif isinstance(provider, LdapUsers):
            secrets.append((provider.bind_password_file, 0o007))
        elif isinstance(provider, OAuth2Users):
            secrets.append((provider.client_secret_file, 0o007))
    if config.store.kind == "lmdb":
        secrets.append((config.store.path, 0o077))
        secrets += [(str(path), 0o077) for path in sorted(Path(config.store.path).glob("*.mdb"))]
    return [problem for path, others in secrets if path and (problem := _open(path, others))]


def _open(path: str, others: int) -> str:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return ""
    if not mode & others:
        return ""
    return f"{path} has mode {mode:04o}: others on this machine may read it; chmod {mode & ~others:o} {path}"
