"""`dragoman import` and `dragoman export`: coming from other brokers, and going back."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace

import click

from broker.security.permissions import Permission, PermissionFile, TopicPermission
from broker.security.users import PasswordFile, User
from dragoman.cli import CONFIG_OPTION
from dragoman.cli_files import opened, permissions_file, read, read_json, users_file
from dragoman.cli_manage import broker_options
from dragoman.cli_messages import run, tls_context
from dragoman.importing import carry_out, gather, only, show
from dragoman.reasons import reason
from dragoman.secrecy import for_us
from interop.link import shown
from interop.migration import qmf
from interop.migration.plan import Plan
from interop.migration.qmf import plan_of
from interop.migration.qpid_config import NotUnderstood, read_text
from interop.migration.rabbitmq import BadDefinitions, read_definitions
from interop.migration.to_rabbitmq import definitions
from interop.trust import Trust

INCOMPLETE = 3
"""The exit code that says that something was left out."""

DRY_OPTION = click.option("--dry-run", "-n", is_flag=True, help="Change nothing, and ask no broker: only say what "
                          "would be made, and what left out.")
MAP_OPTION = click.option("--map", "maps", multiple=True, metavar="THERE=HERE", help="A virtual host of another name "
                          "here; may be given several times.")
HOST_OPTION = click.option("--virtual-host", "host", metavar="NAME", help="Only what is in this virtual host there.")
USERS_OPTION = click.option("--users-file", "users_path", metavar="FILE", help="Password file that gets the users; "
                            "default: authentication.users_file of --config. None at all: users are left out.")

PERMISSIONS_OPTION = click.option("--permissions-file", "permissions_path", metavar="FILE", help="File of permissions; "
                                  "default: access.permissions_file of --config. None at all: no permissions.")


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
@PERMISSIONS_OPTION
@CONFIG_OPTION
@broker_options
def import_rabbitmq(file: str, dry_run: bool, host: str | None, maps: tuple[str, ...], users_path: str | None,
                    permissions_path: str | None, config_path: str | None, url: str, trust: Trust) -> None:
    """Take over RabbitMQ's definitions.

    FILE is what `rabbitmqctl export_definitions FILE` writes, or the management API's /api/definitions; - is standard
    input. Users keep their passwords, tags and permissions; queues, exchanges and bindings are made in the broker at
    --url, as the user of that URL, in virtual hosts of the same names. Policies become arguments of the queues and
    exchanges that they match now. What cannot be taken over is listed, with the reason.
    """
    names = _names(maps)
    try:
        plan = read_definitions(read_json(file))
    except BadDefinitions as error:
        raise click.ClickException(f"{file}: these are no definitions of RabbitMQ: {error}") from None
    finish(plan, dry_run, host, names, users_path, config_path, url, trust, permissions_path)


@import_group.command("qpidd")
@click.argument("source", metavar="URL|FILE")
@DRY_OPTION
@MAP_OPTION
@CONFIG_OPTION
@broker_options
def import_qpidd(source: str, dry_run: bool, maps: tuple[str, ...], config_path: str | None, url: str,
                 trust: Trust) -> None:
    """Take over what a qpidd has.

    URL is that of a qpidd that runs, amqp://user:password@host:port: it is asked through its management (QMF) over AMQP
    0-10. FILE has what qpid-config prints, or a script of qpid-config's commands; - is standard input:

    \b
    dragoman import qpidd amqp://guest:guest@old.example
    (qpid-config exchanges; qpid-config queues; qpid-config exchanges -r) > old.txt; dragoman import qpidd old.txt

    Exchanges, queues and bindings are made in the broker at --url. Users are taken over by
    `dragoman user import`, of the database that qpidd has them in. A qpidd has one virtual host: it is / here, or
    --map /=NAME.
    """
    names = _names(maps)
    if source.startswith(("amqp://", "amqps://")):
        plan = _ask_qpidd(source, trust)
    else:
        try:
            plan = read_text(read(source).decode("utf-8", "replace"))
        except NotUnderstood as error:
            raise click.ClickException(f"{source}: {error}") from None
    plan.remark("users", "`dragoman user import qpidd.sasldb` takes those of its SASL database over")
    finish(plan, dry_run, None, names, None, config_path, url, trust)


def _ask_qpidd(url: str, trust: Trust) -> Plan:
    try:
        context = tls_context(trust) if url.startswith("amqps://") else None
        return plan_of(asyncio.run(qmf.read(url, ssl=context)))
    except qmf.ERRORS as error:
        raise click.ClickException(f"{shown(url)}: {error}") from None
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


@click.group("export")
def export_group() -> None:
    """Write what a running broker has, for another one.

    \b
    dragoman export rabbitmq definitions.json --users-file users
    rabbitmqctl import_definitions definitions.json
    """


@export_group.command("rabbitmq")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option("--virtual-host", "hosts", multiple=True, metavar="NAME", help="A virtual host to export; may be given "
              "several times.  [default: that of the URL]")
@click.option("--exchange-type", "kinds", multiple=True, metavar="TYPE", help="A type of exchange that a plugin "
              "provides there, such as x-consistent-hash; may be given several times.")
@click.option("--users-file", "users_path", metavar="FILE", help="Password file with the users; default: "
              "authentication.users_file of --config. None at all: no users.")
@PERMISSIONS_OPTION
@CONFIG_OPTION
@broker_options
def export_rabbitmq(file: str, hosts: tuple[str, ...], kinds: tuple[str, ...], users_path: str | None,
                    permissions_path: str | None, config_path: str | None, url: str, trust: Trust) -> None:
    """Write definitions that RabbitMQ imports (3.10 or newer).

    FILE gets them; - is standard output. Options of Qpid's kind go under RabbitMQ's names, arguments that were policies
    are policies again, users whose passwords came from RabbitMQ keep them. What RabbitMQ has no place for is listed.

    Exit codes: 0 all was written, 1 failed, 2 wrong command line, 3 something was left out.
    """
    plan = Plan()
    users = {user.name: user for user in _users(users_path, config_path)}
    permissions = _permissions(permissions_path, config_path)

    async def work() -> int:
        await gather(plan, url, trust, hosts)
        return 0
    run(work())
    document = json.dumps(definitions(
        plan, {name: user.verifiers[0] for name, user in users.items()}, kinds,
        {name: sorted(user.tags) for name, user in users.items()}, permissions), indent=2, default=str) + "\n"
    try:
        if file == "-":
            click.echo(document, nl=False)
        else:
            with open(file, "w", encoding="utf-8", opener=for_us) as output:  # it has what passwords are kept as
                output.write(document)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror or reason(error)}") from None
    show(plan, Counter(Host=len(plan.hosts), User=len(users), Exchange=len(plan.exchanges), Queue=len(plan.queues),
                       Binding=len(plan.bindings)), "Of", lambda text: click.echo(text, err=True))
    raise click.exceptions.Exit(INCOMPLETE if plan.left_out else 0)


def _users(path: str | None, config_path: str | None) -> list[User]:
    named = users_file(path, config_path)
    if not named:
        return []
    with opened(PasswordFile, named) as file:
        return list(file.users())


def _permissions(path: str | None, config_path: str | None) -> list[Permission | TopicPermission] | None:
    named = permissions_file(path, config_path)
    if not named:
        return None
    with opened(PermissionFile, named) as file:
        return file.rows()


def finish(plan: Plan, dry_run: bool, host: str | None, names: dict[str, str], users_path: str | None,
           config_path: str | None, url: str, trust: Trust, permissions_path: str | None = None) -> None:
    """Carry a plan out, say what became of it, and exit."""
    if host is not None:
        if host not in plan.hosts:
            raise click.UsageError(f"--virtual-host {host}: there are {', '.join(plan.hosts) or 'none'}")
        plan = only(plan, host)
    counts = Counter(User=_save_users(plan, users_path, config_path, dry_run))
    if plan.permissions:
        _save_permissions(plan, permissions_path, config_path, names, dry_run, counts)
    if dry_run:
        counts += Counter(Host=len(plan.hosts), Exchange=len(plan.exchanges), Queue=len(plan.queues),
                          Binding=len(plan.bindings))
    else:
        async def work() -> int:
            counts.update(await carry_out(plan, url, trust, names))
            return 0
        run(work())
    show(plan, counts, "Would take over" if dry_run else "Took over")
    raise click.exceptions.Exit(INCOMPLETE if plan.left_out else 0)


def _save_users(plan: Plan, path: str | None, config_path: str | None, dry_run: bool) -> int:
    """Add the users to the password file; those that it has stay as they are. Gives how many are there now."""
    if not plan.users:
        return 0
    named = users_file(path, config_path)
    if not named:
        for name in plan.users:
            plan.leave_out(f"user {name}", "there is no password file: name one with --users-file, or as "
                           "authentication.users_file in the file given with --config")
        return 0
    there = 0
    with opened(PasswordFile, named, new=True) as file:
        for name, verifier in plan.users.items():
            known = file.user(name)
            try:
                if known is None:
                    file.put(User(name, [verifier], plan.tags.get(name, ())))
                elif verifier.text not in (each.text for each in known.verifiers):
                    raise ValueError("is here already, with another password, and stays as it is")
                there += 1
            except ValueError as error:
                plan.leave_out(f"user {name}", str(error))
        if not dry_run:
            file.save()
    if there and not dry_run:
        click.echo(f"users are in {named}; a running broker takes them when it gets SIGHUP", err=True)
    return there


def _save_permissions(plan: Plan, path: str | None, config_path: str | None, names: dict[str, str],
                      dry_run: bool, counts: Counter[str]) -> None:
    """Add the permissions to their file; those that it has stay as they are. Counts how many are there now."""
    named = permissions_file(path, config_path)
    if not named:
        allowed = {(each.user, each.host) for each in plan.permissions}
        barred = any((user, host) not in allowed for user in plan.users for host in plan.hosts)
        if barred or not all(each.everything() for each in plan.permissions):
            plan.leave_out("permissions", "without a file for them, every user may do everything: name one with "
                           "--permissions-file, and as access.permissions_file in the configuration")
        return
    there = 0
    with opened(PermissionFile, named, new=True) as file:
        for each in plan.permissions:
            row = replace(each, host=names.get(each.host, each.host))
            known = file.known(row)
            if known is None:
                file.put(row)
            elif replace(known, line=0) != row:
                plan.leave_out(f"{row.kind} of user {row.user} in virtual host {row.host}", "there are others here "
                               f"already, which stay as they are: {known.written()}")
                continue
            there += 1
        if not dry_run:
            file.save()
    if there and not dry_run:
        click.echo(f"permissions are in {named}; a running broker takes them when it gets SIGHUP", err=True)
    counts["Permission"] = there


def _names(maps: tuple[str, ...]) -> dict[str, str]:
    names = {}
    for text in maps:
        there, equals, here = text.partition("=")
        if not equals or not there or not here:
            raise click.UsageError(f"--map {text}: it must be THERE=HERE")
        names[there] = here
    return names
