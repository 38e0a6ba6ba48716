"""`dragoman import` and `dragoman export`: coming from other brokers, and going back."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import click

from broker.users import PasswordFile
from dragoman.cli import CONFIG_OPTION
from dragoman.cli_manage import broker_options
from dragoman.cli_messages import run
from dragoman.config import ConfigError, load
from dragoman.config_files import reason
from dragoman.importing import carry_out, only, show
from interop.migration.plan import Plan
from interop.migration.rabbitmq import BadDefinitions, read_definitions

INCOMPLETE = 3
"""The exit code that says that something was left out."""

DRY_OPTION = click.option("--dry-run", "-n", is_flag=True, help="Change nothing, and ask no broker: only say what "
                          "would be made, and what left out.")
MAP_OPTION = click.option("--map", "maps", multiple=True, metavar="THERE=HERE", help="A virtual host of another name "
                          "here; may be given several times.")
HOST_OPTION = click.option("--virtual-host", "host", metavar="NAME", help="Only what is in this virtual host there.")
USERS_OPTION = click.option("--users-file", "users_path", metavar="FILE", help="Password file that gets the users; "
                            "default: authentication.users_file of --config. None at all: users are left out.")


@click.group("import")
def import_group() -> None:
    """Take over what another broker has.

    \b
    dragoman import rabbitmq definitions.json --users-file users --dry-run
    dragoman import rabbitmq definitions.json --users-file users

    It may be done again at any time: what is there already and the same stays, what is there and different is left
    alone and said so.

    Exit codes: 0 all was taken over, 1 failed, 2 wrong command line, 3 something was left out.
    """


@import_group.command("rabbitmq")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@DRY_OPTION
@HOST_OPTION
@MAP_OPTION
@USERS_OPTION
@CONFIG_OPTION
@broker_options
def import_rabbitmq(file: str, dry_run: bool, host: str | None, maps: tuple[str, ...], users_path: str | None,
                    config_path: str | None, url: str, ca: str | None) -> None:
    """Take over RabbitMQ's definitions.

    FILE is what `rabbitmqctl export_definitions FILE` writes, or the management API's /api/definitions; - is standard
    input. Users keep their passwords; queues, exchanges and bindings are made in the broker at --url, as the user of
    that URL, in virtual hosts of the same names. Policies become arguments of the queues and exchanges that they match
    now. What cannot be taken over is listed, with the reason.
    """
    names = _names(maps)
    try:
        plan = read_definitions(_json(file))
    except BadDefinitions as error:
        raise click.ClickException(f"{file}: these are no definitions of RabbitMQ: {error}") from None
    finish(plan, dry_run, host, names, users_path, config_path, url, ca)


def finish(plan: Plan, dry_run: bool, host: str | None, names: dict[str, str], users_path: str | None,
           config_path: str | None, url: str, ca: str | None) -> None:
    """Carry a plan out, say what became of it, and exit."""
    if host is not None:
        if host not in plan.hosts:
            raise click.UsageError(f"--virtual-host {host}: there are {', '.join(plan.hosts) or 'none'}")
        plan = only(plan, host)
    counts = Counter(User=_save_users(plan, users_path, config_path, dry_run))
    if dry_run:
        counts += Counter(Host=len(plan.hosts), Exchange=len(plan.exchanges), Queue=len(plan.queues),
                          Binding=len(plan.bindings))
    else:
        async def work() -> int:
            counts.update(await carry_out(plan, url, ca, names))
            return 0
        run(work())
    show(plan, counts, "Would take over" if dry_run else "Took over")
    raise click.exceptions.Exit(INCOMPLETE if plan.left_out else 0)


def _save_users(plan: Plan, path: str | None, config_path: str | None, dry_run: bool) -> int:
    """Add the users to the password file; those that it has stay as they are. Gives how many are there now."""
    if not plan.users:
        return 0
    try:
        path = path or load(config_path).authentication.users_file
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    if not path:
        for name in plan.users:
            plan.leave_out(f"user {name}", "there is no password file: name one with --users-file, or as "
                           "authentication.users_file in the file given with --config")
        return 0
    file = PasswordFile(path)
    there = 0
    try:
        if _exists(path):
            file.load()
        for name, verifier in plan.users.items():
            known = file.verifier(name)
            try:
                if known is None:
                    file.put(name, verifier)
                elif known.text != verifier.text:
                    raise ValueError("is here already, with another password, and stays as it is")
                there += 1
            except ValueError as error:
                plan.leave_out(f"user {name}", str(error))
        if not dry_run:
            file.save()
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or reason(error)}") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if there and not dry_run:
        click.echo(f"users are in {path}; a running broker takes them when it gets SIGHUP", err=True)
    return there


def _exists(path: str) -> bool:
    try:
        open(path, "rb").close()
    except FileNotFoundError:
        return False
    return True


def _names(maps: tuple[str, ...]) -> dict[str, str]:
    names = {}
    for text in maps:
        there, equals, here = text.partition("=")
        if not equals or not there or not here:
            raise click.UsageError(f"--map {text}: it must be THERE=HERE")
        names[there] = here
    return names


def _json(path: str) -> Any:
    """What a file of JSON says; fractions as decimals, which a table of 0-9-1 has."""
    try:
        with click.open_file(path, "rb") as file:
            content = file.read()
        return json.loads(content, parse_float=Decimal)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{path}: is not JSON: {error}") from None
