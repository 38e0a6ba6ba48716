"""The files that commands read and change: what is wrong with them is said in one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, TypeVar

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


def read(path: str) -> bytes:
    """- is standard input."""
    try:
        with click.open_file(path, "rb") as file:
            return bytes(file.read())
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or reason(error)}") from None


def read_json(path: str) -> Any:
    """What a file of JSON says; fractions as decimals, which a table of 0-9-1 has."""
    try:
        return json.loads(read(path), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{path}: is not JSON: {error}") from None


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
