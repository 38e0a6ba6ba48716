"""`dragoman queue`, `exchange`, `binding`, `connection`, `stat`, `events`: to see and to change a running broker."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import click

from dragoman.cli_client import DEFAULT_URL, ClientError
from dragoman.cli_messages import parameters_of, run, tls_options
from dragoman.cli_qmf import Console, name_in
from interop.trust import Trust

Row = dict[str, Any]

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON, with all that the broker says.")
ARGUMENT_OPTION = click.option("--argument", "-a", "arguments", multiple=True, metavar="NAME=VALUE",
                               help="An argument of the declaration, as text; NAME:=VALUE for JSON: numbers, true.")
DURABLE_OPTION = click.option("--durable/--transient", default=True, help="Whether it survives a restart of the "
                              "broker.  [default: durable]")


def _some(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A name that is not empty: a broker would make one up, or take another queue."""
    if not value:
        raise click.BadParameter("it is empty")
    return value


def broker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--url and those for TLS, which every command here has."""
    url = click.option("--url", "-u", envvar="DRAGOMAN_URL", default=DEFAULT_URL, metavar="URL",
                       help="The broker: amqp://user:password@host:port/virtual-host.  [env: DRAGOMAN_URL; default: "
                       "guest on this machine]")
    return url(tls_options(command))


def with_console(url: str, trust: Trust, work: Callable[[Console], Coroutine[Any, Any, None]]) -> None:
    """Do something with a connection to the broker."""
    async def connected() -> int:
        async with Console(parameters_of(url, trust)) as console:
            await work(console)
        return 0
    run(connected())


# Tables.


def show_rows(rows: list[Row], columns: list[tuple[str, str]], as_json: bool) -> None:
    """Print rows: as a table of (key, heading), or all of them as JSON."""
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
        return
    cells = [[_cell(row.get(key)) for key, _ in columns] for row in rows]
    numbers = [bool(rows) and all(_is_number(row.get(key)) for row in rows) for key, _ in columns]
    widths = [max(len(heading), *(len(line[at]) for line in cells), 0) for at, (_, heading) in enumerate(columns)]
    for line in [[heading for _, heading in columns], *cells]:
        parts = [cell.rjust(width) if number else cell.ljust(width)
                 for cell, width, number in zip(line, widths, numbers, strict=True)]
        click.echo("  ".join(parts).rstrip())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return str(value) if value != "" else '""'


def _arguments(given: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip(":"):
            raise click.UsageError(f"--argument {text}: it must be NAME=VALUE, or NAME:=JSON")
        try:
            values[name.removesuffix(":")] = json.loads(value) if name.endswith(":") else _number_or_text(value)
        except json.JSONDecodeError as error:
            raise click.UsageError(f"--argument {text}: is not JSON: {error}") from None
    return values


def _number_or_text(value: str) -> int | str:
    """Arguments of declarations are mostly numbers, and those that are not do not look like one."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else value


# Queues.


@click.group()
def queue() -> None:
    """See and change the queues of a running broker.

    \b
    dragoman queue list
    dragoman queue add orders -a x-max-length=1000
    dragoman queue purge orders
    """


QUEUE_COLUMNS = [("name", "queue"), ("durable", "durable"), ("msgDepth", "messages"), ("byteDepth", "bytes"),
                 ("unackedMessages", "unsettled"), ("consumerCount", "consumers"), ("msgTotalEnqueues", "in"),
                 ("msgTotalDequeues", "out"), ("arguments", "arguments")]


@queue.command("list")
@JSON_OPTION
@broker_options
def list_queues(url: str, trust: Trust, as_json: bool) -> None:
    """List the queues."""
    async def work(console: Console) -> None:
        rows = [row for row in await console.objects("queue") if row["name"] != console.queue]
        show_rows(sorted(rows, key=_by_name), QUEUE_COLUMNS, as_json)
    with_console(url, trust, work)


@queue.command("add")
@click.argument("name", callback=_some)
@DURABLE_OPTION
@click.option("--auto-delete", is_flag=True, help="It goes when its last consumer does.")
@ARGUMENT_OPTION
@broker_options
def add_queue(name: str, durable: bool, auto_delete: bool, arguments: tuple[str, ...], url: str,
              trust: Trust) -> None:
    """Make a queue. docs/queue-options.md has the arguments."""
    properties = {**_arguments(arguments), "durable": durable, "auto-delete": auto_delete}
    with_console(url, trust, lambda console: _method(console, "create", {
        "type": "queue", "name": name, "properties": properties, "strict": True}))


@queue.command("delete")
@click.argument("name", callback=_some)
@click.option("--if-unused", is_flag=True, help="Only if it has no consumers.")
@click.option("--if-empty", is_flag=True, help="Only if it has no messages.")
@broker_options
def delete_queue(name: str, if_unused: bool, if_empty: bool, url: str, trust: Trust) -> None:
    """Delete a queue, with its messages."""
    with_console(url, trust, lambda console: _method(console, "delete", {
        "type": "queue", "name": name, "options": {"if_unused": if_unused, "if_empty": if_empty}}))


@queue.command("purge")
@click.argument("name", callback=_some)
@click.option("--count", "-n", type=click.IntRange(0), default=0, help="At most so many messages; 0: all.")
@broker_options
def purge_queue(name: str, count: int, url: str, trust: Trust) -> None:
    """Drop the messages of a queue.

    Those that a consumer has stay with it.
    """
    with_console(url, trust, lambda console: _method(console, "purge", {"request": count, "filter": {}}, "queue", name))


def _between_queues(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a command has that brings messages from a queue to another."""
    count = click.option("--count", "-n", type=click.IntRange(0), default=0, help="At most so many messages; 0: all.")
    source, target = click.argument("source", callback=_some), click.argument("target", callback=_some)
    return source(target(count(broker_options(command))))


@queue.command("move")
@_between_queues
def move_messages(source: str, target: str, count: int, url: str, trust: Trust) -> None:
    """Move messages to the end of another queue.

    Those that a consumer has stay with it.
    """
    _bring("queueMoveMessages", source, target, count, url, trust)


@queue.command("copy")
@_between_queues
def copy_messages(source: str, target: str, count: int, url: str, trust: Trust) -> None:
    """Put copies of messages at the end of another queue.

    Those that a consumer has are left out.
    """
    _bring("queueCopyMessages", source, target, count, url, trust)


def _bring(method: str, source: str, target: str, count: int, url: str, trust: Trust) -> None:
    with_console(url, trust, lambda console: _method(console, method, {
        "srcQueue": source, "destQueue": target, "qty": count}))


@queue.command("redirect")
@click.argument("source", callback=_some)
@click.argument("target", default="")
@broker_options
def redirect(source: str, target: str, url: str, trust: Trust) -> None:
    """Let two queues stand in for each other.

    What is for one of them goes to the other from now on; without a TARGET, no more.
    """
    with_console(url, trust, lambda console: _method(console, "queueRedirect", {
        "sourceQueue": source, "targetQueue": target}))


async def _method(console: Console, name: str, arguments: dict[str, Any], *target: str) -> None:
    await console.method(name, arguments, *target)


def _by_name(row: Row) -> str:
    return str(row["name"])


# Exchanges and bindings.


@click.group()
def exchange() -> None:
    """See and change the exchanges of a running broker.

    \b
    dragoman exchange list
    dragoman exchange add events topic
    """


EXCHANGE_COLUMNS = [("name", "exchange"), ("type", "type"), ("durable", "durable"), ("bindingCount", "bindings"),
                    ("msgReceives", "in"), ("msgRoutes", "routed"), ("msgDrops", "dropped"),
                    ("arguments", "arguments")]


@exchange.command("list")
@JSON_OPTION
@broker_options
def list_exchanges(url: str, trust: Trust, as_json: bool) -> None:
    """List the exchanges."""
    async def work(console: Console) -> None:
        show_rows(sorted(await console.objects("exchange"), key=_by_name), EXCHANGE_COLUMNS, as_json)
    with_console(url, trust, work)


@exchange.command("add")
@click.argument("name", callback=_some)
@click.argument("kind", metavar="TYPE")
@DURABLE_OPTION
@click.option("--auto-delete", is_flag=True, help="It goes with its last binding.")
@ARGUMENT_OPTION
@broker_options
def add_exchange(name: str, kind: str, durable: bool, auto_delete: bool, arguments: tuple[str, ...], url: str,
                 trust: Trust) -> None:
    """Make an exchange.

    TYPE is direct, topic, fanout, headers or another kind.
    """
    properties = {**_arguments(arguments), "exchange-type": kind, "durable": durable, "auto-delete": auto_delete}
    with_console(url, trust, lambda console: _method(console, "create", {
        "type": "exchange", "name": name, "properties": properties, "strict": True}))


@exchange.command("delete")
@click.argument("name", callback=_some)
@click.option("--if-unused", is_flag=True, help="Only if nothing is bound to it.")
@broker_options
def delete_exchange(name: str, if_unused: bool, url: str, trust: Trust) -> None:
    """Delete an exchange, with its bindings."""
    with_console(url, trust, lambda console: _method(console, "delete", {
        "type": "exchange", "name": name, "options": {"if_unused": if_unused}}))


@click.group()
def binding() -> None:
    """See and change the bindings of a running broker.

    \b
    dragoman binding list
    dragoman binding add events orders "order.#"
    """


@binding.command("list")
@JSON_OPTION
@broker_options
def list_bindings(url: str, trust: Trust, as_json: bool) -> None:
    """List the bindings of queues to exchanges.

    Those to the nameless exchange, which every queue has, are left out.
    """
    async def work(console: Console) -> None:
        rows = [{**row, "exchange": name_in(row["exchangeRef"]), "queue": name_in(row["queueRef"])}
                for row in await console.objects("binding")]
        rows = [row for row in rows if row["exchange"]]
        show_rows(sorted(rows, key=lambda row: (row["exchange"], row["queue"], row["bindingKey"])), [
            ("exchange", "exchange"), ("queue", "queue"), ("bindingKey", "key"), ("arguments", "arguments")], as_json)
    with_console(url, trust, work)


@binding.command("add")
@click.argument("source", metavar="EXCHANGE", callback=_some)
@click.argument("name", metavar="QUEUE", callback=_some)
@click.argument("key", default="")
@ARGUMENT_OPTION
@broker_options
def bind(source: str, name: str, key: str, arguments: tuple[str, ...], url: str, trust: Trust) -> None:
    """Bind a queue to an exchange, with a routing key or a pattern."""
    with_console(url, trust, lambda console: _method(console, "create", {
        "type": "binding", "name": f"{source}/{name}/{key}", "properties": _arguments(arguments), "strict": True}))


@binding.command("delete")
@click.argument("source", metavar="EXCHANGE", callback=_some)
@click.argument("name", metavar="QUEUE", callback=_some)
@click.argument("key", default="")
@broker_options
def unbind(source: str, name: str, key: str, url: str, trust: Trust) -> None:
    """Remove a binding."""
    with_console(url, trust, lambda console: _method(console, "delete", {
        "type": "binding", "name": f"{source}/{name}/{key}", "options": {}}))


# Connections.


@click.group()
def connection() -> None:
    """Close connections of clients to a running broker.

    \b
    dragoman stat connections
    dragoman connection close 10.1.2.3:41234
    dragoman connection close --user shop
    """


@connection.command("close")
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option("--user", help="All that a user has in the virtual host, but for the one of this command.")
@broker_options
def close_connections(addresses: tuple[str, ...], user: str | None, url: str, trust: Trust) -> None:
    """Close connections, in the words of their protocols.

    ADDRESS is a client's, as `dragoman stat connections` shows it.
    """
    if bool(addresses) == bool(user):
        raise click.UsageError("name either addresses or a --user")

    async def work(console: Console) -> None:
        for address in addresses or await _connections_of(console, str(user)):
            try:
                await console.method("close", {}, "connection", address)
            except ClientError:
                if addresses or address in {row["address"] for row in await console.objects("connection")}:
                    raise
            else:
                click.echo(f"closed {address}")
    with_console(url, trust, work)


async def _connections_of(console: Console, user: str) -> list[str]:
    """The addresses of a user's connections without the console's own."""
    clients = {row["name"]: name_in(row["connectionRef"]) for row in await console.objects("session")}
    own = {clients.get(name_in(row["sessionRef"])) for row in await console.objects("subscription")
           if name_in(row["queueRef"]) == console.queue}
    return [row["address"] for row in await console.objects("connection")
            if row["authIdentity"] == user and row["address"] not in own]


# All of it.


_TOTALS = [("connections", ""), ("sessions", ""), ("exchanges", ""), ("queueCount", "queues"),
           ("msgDepth", "messages in queues"), ("byteDepth", "bytes in queues"), ("msgTotalEnqueues", "messages in"),
           ("msgTotalDequeues", "messages out"), ("acquires", "deliveries"), ("releases", "given back"),
           ("discardsTtl", "expired"), ("discardsRing", "dropped for want of room"),
           ("discardsOverflow", "refused for want of room"), ("discardsSubscriber", "rejected"),
           ("discardsPurge", "purged"), ("discardsNoRoute", "went nowhere"), ("malloc_uordblks", "memory of messages")]


@click.command()
@click.argument("what", type=click.Choice(["broker", "connections", "subscriptions", "limits"]), default="broker")
@JSON_OPTION
@broker_options
def stat(what: str, url: str, trust: Trust, as_json: bool) -> None:
    """Show what a running broker has done.

    \b
    dragoman stat
    dragoman stat connections
    """
    work = {"broker": _stat_broker, "connections": _stat_connections, "subscriptions": _stat_subscriptions,
            "limits": _stat_limits}[what]
    with_console(url, trust, lambda console: work(console, as_json))


async def _stat_broker(console: Console, as_json: bool) -> None:
    broker = (await console.objects("broker"))[0]
    broker |= {"malloc_uordblks": (await console.objects("memory"))[0]["malloc_uordblks"],
               **{f"{kind}s": len(await console.objects(kind)) for kind in ("connection", "session", "exchange")}}
    if as_json:
        click.echo(json.dumps(broker, indent=2, default=str))
        return
    click.echo(f"Dragoman {broker['version']}, up for {duration(broker['uptime'] / 1e9)}")
    for key, name in _TOTALS:
        click.echo(f"{name or key:26}{broker[key]:>16,}")


async def _stat_connections(console: Console, as_json: bool) -> None:
    rows = [{**row, "since": duration(time.time() - row["_created"])} for row in await console.objects("connection")]
    show_rows(rows, [("address", "client"), ("protocol", "protocol"), ("authIdentity", "user"),
                 ("saslMechanism", "mechanism"), ("remoteProcessName", "program"), ("since", "connected"),
                 ("msgsFromClient", "messages in"), ("msgsToClient", "out"), ("bytesFromClient", "bytes in"),
                 ("bytesToClient", "out")], as_json)


async def _stat_subscriptions(console: Console, as_json: bool) -> None:
    clients = {row["name"]: name_in(row["connectionRef"]) for row in await console.objects("session")}
    rows = [{**row, "queue": name_in(row["queueRef"]), "client": clients.get(name_in(row["sessionRef"]), "")}
            for row in await console.objects("subscription") if name_in(row["queueRef"]) != console.queue]
    show_rows(rows, [("queue", "queue"), ("client", "client"), ("name", "name"), ("browsing", "browses"),
                 ("acknowledged", "settles"), ("exclusive", "exclusive"), ("delivered", "delivered")], as_json)


async def _stat_limits(console: Console, as_json: bool) -> None:
    rows = sorted(await console.objects("limit"), key=lambda row: (-row["used"] / max(1, row["most"]), row["name"]))
    show_rows(rows, [("measure", "what"), ("subject", "of"), ("used", "has"), ("most", "may have"),
                     ("refused", "refused")], as_json)


def duration(seconds: float) -> str:
    minutes, second = divmod(int(max(0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    parts = [(days, "d"), (hour, "h"), (minute, "min"), (second, "s")]
    first = next((at for at, (value, _) in enumerate(parts) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in parts[first:first + 2])


@click.command()
@click.option("--count", "-n", type=click.IntRange(0), default=0, help="Stop after so many events; 0: never.")
@JSON_OPTION
@broker_options
def events(count: int, url: str, trust: Trust, as_json: bool) -> None:
    """Print what happens in a running broker.

    Clients that come and go, queues that are made and deleted, and so on.

    With --json, an object a line.
    """
    async def work(console: Console) -> None:
        await console.listen()
        shown = 0
        while not count or shown < count:
            _, content = await console.next(None)
            for event in content:
                _print_event(event, as_json)
            shown += 1
    with_console(url, trust, work)


def _short(value: Any) -> str:
    """A value of an event on its line; of a map, what is not a map itself."""
    if not isinstance(value, dict):
        return _cell(value)
    return "{" + ", ".join(f"{key}={each}" for key, each in value.items() if not isinstance(each, dict)) + "}"


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    name, values = event["_schema_id"]["_class_name"], event["_values"]
    at = event["_timestamp"] / 1e9
    if as_json:
        line = json.dumps({"time": at, "event": name, **values}, ensure_ascii=False, default=str)
    else:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        line = " ".join([stamp, name, *(f"{key}={_short(value)}" for key, value in values.items() if value != {})])
    try:
        click.echo(line)
        sys.stdout.flush()
    except OSError:  # nobody reads what we print
        sys.stdout = open(os.devnull, "w")
        raise click.exceptions.Exit(1) from None
