"""`dragoman user`: the file that says who may log in."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from getpass import GetPassWarning

import click

from broker.security.passwords import ARGON2, SCHEMES, Verifier, new_verifier
from broker.security.provider import shown
from broker.security.users import PasswordFile, User
from dragoman.cli import CONFIG_OPTION
from dragoman.cli_files import opened, read, users_file
from dragoman.cli_import import INCOMPLETE
from interop.migration.user_files import FoundUser, NotUnderstood, read_users

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
    _change(path, config_path, name, lambda known: User(name, known.verifiers, tags, known.groups))
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
    _change(path, config_path, name, lambda known: User(name, known.verifiers, known.tags, groups))
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


@user.command("import")
@click.argument("source", metavar="FILE")
@FILE_OPTION
@CONFIG_OPTION
@SCHEME_OPTION
def import_users(source: str, path: str | None, config_path: str | None, schemes: tuple[str, ...]) -> None:
    """Take over users of qpidd or Broker-J.

    FILE is qpidd's database (qpidd.sasldb), what db_dump prints of it, Broker-J's config.json, or a file of lines
    name:password; - is standard input. Users that are here already stay as they are. RabbitMQ's come with
    `dragoman import rabbitmq`.
    """
    try:
        found = read_users(read(source))
    except NotUnderstood as error:
        raise click.ClickException(f"{source}: {error}") from None
    left_out = 0
    with _file(path, config_path, new=True) as file:
        for each in found:
            try:
                _take_over(file, each, schemes or (ARGON2,))
            except ValueError as error:
                left_out += 1
                click.echo(f"left out: user {shown(each.name)}: {error}", err=True)
        file.save()
    click.echo(f"{len(found) - left_out} of {len(found)} users may log in", err=True)
    raise click.exceptions.Exit(INCOMPLETE if left_out else 0)


def _take_over(file: PasswordFile, found: FoundUser, schemes: tuple[str, ...]) -> None:
    """Raises ValueError, with the reason, where that cannot be."""
    if found.problem:
        raise ValueError(found.problem)
    if file.user(found.name) is not None:
        raise ValueError("is here already, and stays as it is")
    made: list[Verifier] = [found.verifier] if found.verifier is not None else [
        new_verifier(found.password, scheme) for scheme in schemes]
    file.put(User(found.name, made, groups=found.groups))


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


def _change(path: str | None, config_path: str | None, name: str, change: Callable[[User], User]) -> None:
    with _file(path, config_path) as file:
        file.put(change(_known(file, name)))
        file.save()


def _known(file: PasswordFile, name: str) -> User:
    found = file.user(name)
    if found is None:
        raise click.ClickException(f"there is no user {name}; `dragoman user add` makes one")
    return found


def _counted(words: tuple[str, ...], what: str) -> str:
    return f"{what}{'s' if len(words) > 1 else ''} {', '.join(words)}" if words else f"no {what}"


def _file(path: str | None, config_path: str | None, new: bool = False) -> AbstractContextManager[PasswordFile]:
    named = users_file(path, config_path)
    if not named:
        raise click.UsageError("which file? Name it with --file, or as authentication.users_file in the file given "
                               "with --config")
    return opened(PasswordFile, named, new)


def _password(from_stdin: bool) -> str:
    if not from_stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("error", GetPassWarning)  # it would be shown as it is typed, or never come
            try:
                return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
            except GetPassWarning:
                raise click.ClickException("there is no terminal to ask for the password at: give it by "
                                           "--password-stdin") from None
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        raise click.ClickException("there is no password on standard input")
    return line
