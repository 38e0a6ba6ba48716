"""The files of users and of permissions, for commands that read and change them: what is wrong is said in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from broker.security.permissions import PermissionFile
from broker.security.users import PasswordFile
from dragoman.config import Config, ConfigError, load
from dragoman.reasons import reason

F = TypeVar("F", PasswordFile, PermissionFile)


def configuration(path: str | None) -> Config:
    try:
        return load(path)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def users_file(path: str | None, config_path: str | None) -> str:
    """The one that is named, or else that of the configuration; "" if there is none."""
    return path or configuration(config_path).authentication.users_file


def permissions_file(path: str | None, config_path: str | None) -> str:
    """Likewise."""
    return path or configuration(config_path).access.permissions_file


@contextmanager
def opened(of: Callable[[str], F], path: str, new: bool = False) -> Iterator[F]:
    """The file, read; or empty, when there is none and it may be new."""
    try:
        file = of(path)
        if not new or _exists(path):
            file.load()
        yield file
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or reason(error)}") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _exists(path: str) -> bool:
    try:
        open(path, "rb").close()
    except FileNotFoundError:
        return False
    return True
