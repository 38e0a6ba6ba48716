"""`dragoman user`: the file that says who may log in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from broker.security.passwords import ARGON2, SCHEMES, ScramVerifier
from broker.security.users import PasswordFile
from dragoman.cli import CONFIG_OPTION
from dragoman.config import ConfigError, load
from dragoman.reasons import reason

FILE_OPTION = click.option("--file", "-f", "path", metavar="FILE",
                           help="The password file; default: authentication.users_file of the configuration.")
PASSWORD_OPTION = click.option("--password-stdin", "from_stdin", is_flag=True,
                               help="Read the password from standard input instead of asking for it.")

SCHEME_OPTION = click.option("--scheme", type=click.Choice(SCHEMES), help="What the password is kept as: argon2, "
                             "or as one of SCRAM's, so that clients can log in by that as well as by PLAIN.  "
                             "[default: argon2, or the one of SCRAM that the user has]")


@click.group()
def user() -> None:
    """Add, list and remove users.

    Passwords are kept as verifiers only. A running broker takes a change when it gets SIGHUP.

    \b
    dragoman user add --file users shop              asks for the password
    echo s3cret | dragoman user add --file users shop --password-stdin
    """


@user.command()
@click.argument("name")
@FILE_OPTION
@CONFIG_OPTION
@PASSWORD_OPTION
@SCHEME_OPTION
def add(name: str, path: str | None, config_path: str | None, from_stdin: bool, scheme: str | None) -> None:
    """Add a user; the file is made when there is none."""
    with _file(path, config_path, new=True) as file:
        if name in file.names():
            raise click.ClickException(f"{name} exists already; `dragoman user password` changes the password")
        file.set(name, _password(from_stdin), scheme or ARGON2)
        file.save()
    click.echo(f"{name} may log in", err=True)


@user.command()
@click.argument("name")
@FILE_OPTION
@CONFIG_OPTION
@PASSWORD_OPTION
@SCHEME_OPTION
def password(name: str, path: str | None, config_path: str | None, from_stdin: bool, scheme: str | None) -> None:
    """Give a user a new password."""
    with _file(path, config_path) as file:
        if name not in file.names():
            raise click.ClickException(f"there is no user {name}; `dragoman user add` makes one")
        known = file.verifier(name)
        file.set(name, _password(from_stdin), scheme or (known.scheme if isinstance(known, ScramVerifier) else ARGON2))
        file.save()
    click.echo(f"{name} has a new password", err=True)


@user.command()
@click.argument("name")
@FILE_OPTION
@CONFIG_OPTION
def remove(name: str, path: str | None, config_path: str | None) -> None:
    """Remove a user. Connections that the user has open stay open."""
    with _file(path, config_path) as file:
        file.remove(name)
        file.save()
    click.echo(f"{name} is removed", err=True)


@user.command("list")
@FILE_OPTION
@CONFIG_OPTION
def list_users(path: str | None, config_path: str | None) -> None:
    """Print the names of the users, one a line."""
    with _file(path, config_path) as file:
        for name in file.names():
            click.echo(name)


@contextmanager
def _file(path: str | None, config_path: str | None, new: bool = False) -> Iterator[PasswordFile]:
    """The password file, read (or empty, when there is none and it may be new); its errors in one line."""
    try:
        named = path or load(config_path).authentication.users_file
        if not named:
            raise click.UsageError("which file? Name it with --file, or as authentication.users_file in the file "
                                   "given with --config")
        file = PasswordFile(named)
        try:
            if not new or _exists(named):
                file.load()
            yield file
        except OSError as error:
            raise click.ClickException(f"{named}: {error.strerror or reason(error)}") from None
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _exists(path: str) -> bool:
    try:
        open(path, "rb").close()
    except FileNotFoundError:
        return False
    return True


def _password(from_stdin: bool) -> str:
    if not from_stdin:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        raise click.ClickException("there is no password on standard input")
    return line
