"""`dragoman user`: the file that says who may log in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from broker.security.passwords import SCHEMES
from broker.security.users import PasswordFile, User
from dragoman.cli import CONFIG_OPTION
from dragoman.config import ConfigError, load
from dragoman.reasons import reason

FILE_OPTION = click.option("--file", "-f", "path", metavar="FILE",
                           help="The password file; default: authentication.users_file of the configuration.")
PASSWORD_OPTION = click.option("--password-stdin", "from_stdin", is_flag=True,
                               help="Read the password from standard input instead of asking for it.")

SCHEME_OPTION = click.option("--scheme", "schemes", multiple=True, type=click.Choice(SCHEMES), help="What the password "
                             "is kept as, may be repeated: argon2, or for users who log in by SCRAM or CRAM-MD5 as "
                             "well as by PLAIN, that.  [default: argon2, or what the user has]")


@click.group()
def user() -> None:
    """Add, change, list and remove users.

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
def add(name: str, path: str | None, config_path: str | None, from_stdin: bool, schemes: tuple[str, ...]) -> None:
    """Add a user; the file is made when there is none."""
    with _file(path, config_path, new=True) as file:
        if file.user(name) is not None:
            raise click.ClickException(f"{name} exists already; `dragoman user passwd` changes the password")
        file.set(name, _password(from_stdin), *schemes)
        file.save()
    click.echo(f"{name} may log in", err=True)


@user.command()
@click.argument("name")
@FILE_OPTION
@CONFIG_OPTION
@PASSWORD_OPTION
@SCHEME_OPTION
def passwd(name: str, path: str | None, config_path: str | None, from_stdin: bool, schemes: tuple[str, ...]) -> None:
    """Give a user a new password."""
    with _file(path, config_path) as file:
        known = _known(file, name)
        kept = [verifier.scheme for verifier in known.verifiers if verifier.scheme in SCHEMES]
        file.set(name, _password(from_stdin), *(schemes or kept))
        file.save()
    click.echo(f"{name} has a new password", err=True)


@user.command()
@click.argument("name")
@click.argument("tags", nargs=-1)
@FILE_OPTION
@CONFIG_OPTION
def tag(name: str, tags: tuple[str, ...], path: str | None, config_path: str | None) -> None:
    """Give a user tags.

    These instead of those it has; without any, none.

    They are RabbitMQ's: administrator, monitoring, policymaker, management, impersonator.
    """
    with _file(path, config_path) as file:
        known = _known(file, name)
        file.put(User(name, known.verifiers, tags, known.groups))
        file.save()
    click.echo(f"{name} has {_counted(tags, 'tag')}", err=True)


@user.command()
@click.argument("name")
@click.argument("groups", nargs=-1)
@FILE_OPTION
@CONFIG_OPTION
def group(name: str, groups: tuple[str, ...], path: str | None, config_path: str | None) -> None:
    """Put a user into groups of access rules.

    Into these instead of those it is in; without any, into none.
    """
    with _file(path, config_path) as file:
        known = _known(file, name)
        file.put(User(name, known.verifiers, known.tags, groups))
        file.save()
    click.echo(f"{name} is in {_counted(groups, 'group')}", err=True)


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
@click.option("--long", "-l", "long", is_flag=True, help="Show what passwords are kept as, tags and groups, too.")
@FILE_OPTION
@CONFIG_OPTION
def list_users(long: bool, path: str | None, config_path: str | None) -> None:
    """Print the names of the users, one a line."""
    with _file(path, config_path) as file:
        for each in file.users():
            words = [",".join(verifier.scheme for verifier in each.verifiers)]
            words += [f"{key}={','.join(sorted(values))}" for key, values in (("tags", each.tags),
                                                                              ("groups", each.groups)) if values]
            click.echo("\t".join([each.name, *words]) if long else each.name)


def _known(file: PasswordFile, name: str) -> User:
    found = file.user(name)
    if found is None:
        raise click.ClickException(f"there is no user {name}; `dragoman user add` makes one")
    return found


def _counted(words: tuple[str, ...], what: str) -> str:
    return f"{what}{'s' if len(words) > 1 else ''} {', '.join(words)}" if words else f"no {what}"


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
