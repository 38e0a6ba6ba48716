"""`dragoman acl check`: who may do what, and which line says so."""

from __future__ import annotations

import ipaddress
from typing import Any

import click

from broker.management import ManagedConnection
from broker.security.acl_words import FLAG, PROPERTIES, SAME, canonical, check_pair
from broker.security.guard import Guarded, management_question, refusal
from broker.security.identity import Identity
from broker.security.rules import ALL, NAMELESS, Question, judge
from broker.security.users import PasswordFile
from dragoman.access import Sources
from dragoman.cli import CONFIG_OPTION
from dragoman.config import Config, ConfigError, load
from dragoman.config_security import Access

_KINDS = {NAMELESS: "direct", "amq.direct": "direct", "amq.topic": "topic", "amq.fanout": "fanout",
          "amq.headers": "headers", "amq.match": "headers"}
_DOORS = {"queue": ("create", "delete", "consume", "purge", "access"),
          "exchange": ("create", "delete", "publish", "bind", "unbind", "access")}


class _Unusable(click.ClickException):
    """Files that cannot be used: not to be taken for a refusal, whose exit code is 1."""

    exit_code = 2


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value)) if value else ""
    except ValueError:
        raise click.BadParameter(f"{value!r} is no IP address") from None


@click.group()
def acl() -> None:
    """Look at the access rules and permissions that are configured."""


@acl.command()
@click.argument("user")
@click.argument("action")
@click.argument("object")
@click.argument("properties", metavar="[PROPERTY=VALUE ...]", nargs=-1)
@click.option("--group", "groups", multiple=True, help="A group that the user is in, beside those of the "
              "files.")
@click.option("--tag", "tags", multiple=True, help="A tag of RabbitMQ's that the user has, beside those of the "
              "password file.")
@click.option("--vhost", "-p", "host", default="/", show_default=True, help="The virtual host.")
@click.option("--from", "address", metavar="ADDRESS", default="", callback=_address, help="The client's IP "
              "address.")
@click.option("--from-host", "peer_name", metavar="NAME", default="", help="The name of its host.")
@click.option("--file", "-f", "path", metavar="FILE", help="An ACL file, instead of what is configured.")
@CONFIG_OPTION
def check(user: str, action: str, object: str, properties: tuple[str, ...], groups: tuple[str, ...],
          tags: tuple[str, ...], host: str, address: str, peer_name: str, path: str | None,
          config_path: str | None) -> None:
    """Say whether a user may do something, and which line says so.

    The words are those of ACL files: docs/authorisation.md has the table of what clients do in these words. Exit
    code 0: allowed, 1: refused, 2: wrong words, or a file that cannot be used.

    \b
    dragoman acl check bob access virtualhost --vhost orders --from 10.1.2.3
    dragoman acl check bob publish exchange name=amq.topic routingkey=a.b
    dragoman acl check bob create queue name=q durable=true
    dragoman acl check bob bind exchange name=amq.topic queuename=q routingkey='#'
    """
    try:
        config = Config(access=Access(acl_file=path)) if path else load(config_path)
        sources = Sources(config.access)
        identity = _identity(user, config, groups, tags)
    except (ConfigError, ValueError) as error:
        raise _Unusable(str(error)) from None
    if config_path and not path and host not in config.virtual_hosts:
        raise click.UsageError(f"--vhost {host}: the configuration has {', '.join(config.virtual_hosts)}")
    try:
        questions = _questions(canonical(action), canonical(object), _values(properties), host)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    connection = ManagedConnection()
    connection.peer, connection.peer_name = f"[{address}]:0", peer_name
    connection.identity = identity
    guard = Guarded(sources.rules(None), connection, host)
    if not sources.files and sources.permissions is None:
        click.echo(sources.described())
    for question in questions:
        decision = judge(guard.courts, guard.subject, question)
        if not decision.allowed:
            click.echo(f"refused: {question}")
            click.echo(f"by {decision.reason()}")
            click.echo(f"the client is told: {refusal(question, decision, user, host)}")
            raise click.exceptions.Exit(1)
    click.echo(f"allowed: {questions[-1]}{', with some routing key' if questions[-1].keyless else ''}")
    for court in guard.courts:
        click.echo(f"by {judge([court], guard.subject, questions[-1]).reason()}")


def _identity(user: str, config: Config, groups: tuple[str, ...], tags: tuple[str, ...]) -> Identity:
    """With the groups and tags of the password file. Raises: ValueError."""
    known = None
    if config.authentication.users_file:
        file = PasswordFile(config.authentication.users_file)
        file.load()
        known = file.user(user)
    return Identity(user, frozenset(groups) | (known.groups if known is not None else frozenset()),
                    tags=frozenset(tags) | (known.tags if known is not None else frozenset()))


def _values(properties: tuple[str, ...]) -> dict[str, Any]:
    """Raises: ValueError."""
    values: dict[str, Any] = {}
    for each in properties:
        name, equals, value = each.partition("=")
        known = SAME.get(canonical(name), canonical(name))
        if not equals or known not in PROPERTIES and known not in ("queuemaxsize", "queuemaxcount"):
            raise ValueError(f"{each!r}: properties are written NAME=VALUE, with one of {', '.join(PROPERTIES)}, "
                             "queuemaxsize, queuemaxcount")
        if PROPERTIES.get(known) == FLAG and value not in ("true", "false"):
            raise ValueError(f"{each!r}: {known} is true or false")
        if known not in ("queuemaxsize", "queuemaxcount"):
            values[known] = value
        elif value.isascii() and value.removeprefix("-").isdigit():
            values[known] = int(value)
        else:
            raise ValueError(f"{each!r}: {known} is a number, -1 for a queue without a limit")
    return values


def _questions(action: str, object: str, given: dict[str, Any], host: str) -> list[Question]:
    """What a broker would ask. Raises: ValueError."""
    if ALL in (action, object):
        raise ValueError("all is for rules; what somebody does has an action and an object")
    check_pair(action, object)
    if object == "virtualhost" and action == "access":
        own = {"name": host, "virtualhostname": host}
        return [Question("create", "connection", {}, explicit=True, free=True), Question(action, object, own)]
    if object == "user" and action == "impersonate":
        return [Question(action, object, {}, explicit=True)]
    if action not in _DOORS.get(object, ()):
        name = str(given.pop("name", ""))
        return [management_question(action, object, name, given, host)]
    values: dict[str, Any] = {"name": "", "virtualhostname": host, **given}
    if object == "exchange":
        values["name"] = values["name"] or NAMELESS
        if action != "create":
            values.setdefault("type", _KINDS.get(values["name"], "direct"))
        if action in ("bind", "unbind") and "queuename" in values:
            values.update(destination=values["queuename"], destinationkind="queue")
    if action == "create":
        for flag in ("durable", "exclusive", "autodelete", "exists"):
            values.setdefault(flag, "false")
        values.setdefault("temporary", "true" if "true" in (values["exclusive"], values["autodelete"]) else "false")
        if object == "queue":
            values.setdefault("queuemaxsize", -1)
            values.setdefault("queuemaxcount", -1)
    return [Question(action, object, values, keyless=action == "publish" and "routingkey" not in values)]
