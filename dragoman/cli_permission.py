"""`dragoman permission`: the file of RabbitMQ's permissions."""

from __future__ import annotations

from contextlib import AbstractContextManager

import click

from broker.security.permissions import Permission, PermissionFile, TopicPermission
from dragoman.cli import CONFIG_OPTION
from dragoman.cli_files import configuration, opened, permissions_file

FILE_OPTION = click.option("--file", "-f", "path", metavar="FILE", help="The file; default: access.permissions_file of "
                           "the configuration.")
HOST_OPTION = click.option("--vhost", "-p", "host", default="/", show_default=True, help="The virtual host.")


@click.group()
def permission() -> None:
    """Say what users may do, as in RabbitMQ.

    Three regular expressions for each user and virtual host: names of what it may configure (declare, delete), write to
    (publish, bind to) and read from (consume, purge, bind from). "" fits nothing, ".*" everything. A running broker
    takes a change when it gets SIGHUP.

    \b
    dragoman permission set shop '^shop-' '.*' '^shop-'
    dragoman permission set-topic shop amq.topic '^orders\\.' '.*'
    dragoman permission list
    """


@permission.command("set")
@click.argument("user")
@click.argument("configure")
@click.argument("write")
@click.argument("read")
@HOST_OPTION
@FILE_OPTION
@CONFIG_OPTION
def set_permission(user: str, configure: str, write: str, read: str, host: str, path: str | None,
                   config_path: str | None) -> None:
    """Give a user permissions in a virtual host.

    Instead of those it has; the file is made when there is none.
    """
    with _file(path, config_path, new=True) as file:
        file.put(Permission(user, host, configure, write, read))
        file.save()
    _warn(host, config_path)


@permission.command("set-topic")
@click.argument("user")
@click.argument("exchange")
@click.argument("write")
@click.argument("read")
@HOST_OPTION
@FILE_OPTION
@CONFIG_OPTION
def set_topic(user: str, exchange: str, write: str, read: str, host: str, path: str | None,
              config_path: str | None) -> None:
    """Say with which routing keys a user may use a topic exchange.

    It needs the permission for the exchange as well. {username}, {vhost} and {client_id} stand for those of the client.
    """
    with _file(path, config_path, new=True) as file:
        file.put(TopicPermission(user, host, exchange, write, read))
        file.save()
    _warn(host, config_path)


@permission.command()
@click.argument("user")
@HOST_OPTION
@click.option("--all", "everywhere", is_flag=True, help="In all virtual hosts.")
@FILE_OPTION
@CONFIG_OPTION
def clear(user: str, host: str, everywhere: bool, path: str | None, config_path: str | None) -> None:
    """Take a user's permissions in a virtual host away.

    Those for topics, too: it may not even enter then.
    """
    with _file(path, config_path) as file:
        if not (file.clear_user(user) if everywhere else file.clear(user, host)):
            raise click.ClickException(f"{user} has no permissions{'' if everywhere else f' in virtual host {host}'}")
        file.save()


@permission.command("clear-topic")
@click.argument("user")
@click.argument("exchange")
@HOST_OPTION
@FILE_OPTION
@CONFIG_OPTION
def clear_topic(user: str, exchange: str, host: str, path: str | None, config_path: str | None) -> None:
    """Let a user use any routing key again."""
    with _file(path, config_path) as file:
        if not file.clear_topic(user, host, exchange):
            raise click.ClickException(f"{user} has no topic permissions for {exchange} in virtual host {host}")
        file.save()


@permission.command("list")
@click.option("--vhost", "-p", "host", help="Only those in this virtual host.")
@click.option("--user", help="Only those of this user.")
@FILE_OPTION
@CONFIG_OPTION
def list_permissions(host: str | None, user: str | None, path: str | None, config_path: str | None) -> None:
    """Print the permissions, one a line, as they stand in the file."""
    with _file(path, config_path) as file:
        for each in file.rows():
            if host in (None, each.host) and user in (None, each.user):
                click.echo(each.written())


def _warn(host: str, config_path: str | None) -> None:
    """Say when a virtual host is none: RabbitMQ would refuse it; here it may come with the next configuration."""
    if config_path and host not in (there := configuration(config_path).virtual_hosts):
        click.echo(f"warning: the configuration has no virtual host {host}, but {' and '.join(there)}", err=True)


def _file(path: str | None, config_path: str | None, new: bool = False) -> AbstractContextManager[PermissionFile]:
    named = permissions_file(path, config_path)
    if not named:
        raise click.UsageError("which file? Name it with --file, or as access.permissions_file in the file given "
                               "with --config")
    return opened(PermissionFile, named, new)
