"""`dragoman gateway`: links to other brokers and the bridges over them, of a broker that runs."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from dragoman.cli_drain import drain
from dragoman.cli_manage import JSON_OPTION, Row, broker_options, duration, show_rows, with_console
from dragoman.cli_qmf import Console, name_in
from interop.trust import Trust

SET_OPTION = click.option("--set", "-s", "settings", multiple=True, metavar="KEY=VALUE",
                          help="A key of the configuration's section, as text; KEY:=VALUE for JSON: numbers, true, "
                          "lists. docs/configuration.md has the keys.")


@click.group()
def gateway() -> None:
    """See and change the links and bridges of a running broker.

    \b
    dragoman gateway status
    dragoman gateway add-link old amqp://old.example -s user=mover -s password_env=DRAGOMAN_LINK_OLD
    dragoman gateway add-bridge orders old -s remote_queue=orders -s local_queue=orders
    dragoman gateway pause orders
    """


gateway.add_command(drain)


@gateway.command()
@JSON_OPTION
@broker_options
def status(url: str, trust: Trust, as_json: bool) -> None:
    """Show links and bridges: state, rates, lag, last error."""
    async def work(console: Console) -> None:
        links = sorted(await console.objects("link"), key=_name)
        bridges = sorted(await console.objects("bridge"), key=_name)
        if as_json:
            click.echo(json.dumps({"links": links, "bridges": bridges}, indent=2, ensure_ascii=False, default=str))
            return
        _show_links(links)
        click.echo()
        _show_bridges(bridges)
    with_console(url, trust, work)


def _show_links(links: list[Row]) -> None:
    show_rows([{**row, "for": _since(row)} for row in links],
              [("name", "link"), ("state", "state"), ("for", "for"), ("dialect", "dialect"), ("url", "broker"),
               ("connects", "connects"), ("lastError", "last error")], False)


def _show_bridges(bridges: list[Row]) -> None:
    show_rows([{**row, "for": _since(row), "link": name_in(row["linkRef"]), "way": _way(row)} for row in bridges],
              [("name", "bridge"), ("state", "state"), ("for", "for"), ("link", "link"), ("way", "moves"),
               ("msgMoved", "moved"), ("msgMovedRate", "per s"), ("msgLag", "lag"), ("delay", "ms"),
               ("msgRejected", "rejected"), ("msgRetried", "retried"), ("msgLooped", "looped"),
               ("lastError", "last error")], False)


def _way(row: Row) -> str:
    here, there = ("src", "dest") if row["srcIsLocal"] else ("dest", "src")
    return f"{row[here] or 'answers'} {'->' if row['srcIsLocal'] else '<-'} {row[there]}"


def _since(row: Row) -> str:
    return duration(time.time() - row["since"] / 1e9)


def _name(row: Row) -> str:
    return str(row["name"])


@gateway.command("add-link")
@click.argument("name")
@click.argument("to", metavar="URL")
@SET_OPTION
@broker_options
def add_link(name: str, to: str, settings: tuple[str, ...], url: str, trust: Trust) -> None:
    """Connect the broker to another one.

    The link is kept over restarts. No password in its URL: the broker reads it from a file in the folder gateway.files
    of its configuration (-s password_file=NAME), or from one of its environment variables DRAGOMAN_LINK_...
    """
    _create("link", name, {"url": to, **_settings(settings)}, url, trust)


@gateway.command("add-bridge")
@click.argument("name")
@click.argument("link")
@SET_OPTION
@broker_options
def add_bridge(name: str, link: str, settings: tuple[str, ...], url: str, trust: Trust) -> None:
    """Move messages over a link.

    \b
    dragoman gateway add-bridge orders old -s direction=push -s local_queue=orders -s remote_queue=orders
    dragoman gateway add-bridge news old -s remote_exchange=amq.topic -s 'keys:=["news.#"]' -s local_exchange=amq.topic
    """
    _create("bridge", name, {"link": link, **_settings(settings)}, url, trust)


def _create(kind: str, name: str, properties: dict[str, Any], url: str, trust: Trust) -> None:
    async def work(console: Console) -> None:
        await console.method("create", {"type": kind, "name": name, "properties": properties, "strict": True})
    with_console(url, trust, work)


def _settings(given: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip(":"):
            raise click.UsageError(f"--set {text}: it must be KEY=VALUE, or KEY:=JSON")
        try:
            values[name.removesuffix(":")] = json.loads(value) if name.endswith(":") else value
        except json.JSONDecodeError as error:
            raise click.UsageError(f"--set {text}: is not JSON: {error}") from None
    return values


@gateway.command("remove-link")
@click.argument("name")
@broker_options
def remove_link(name: str, url: str, trust: Trust) -> None:
    """Give up a link that has no bridges."""
    _delete("link", name, url, trust)


@gateway.command("remove-bridge")
@click.argument("name")
@broker_options
def remove_bridge(name: str, url: str, trust: Trust) -> None:
    """Move no more, and forget the bridge."""
    _delete("bridge", name, url, trust)


def _delete(kind: str, name: str, url: str, trust: Trust) -> None:
    async def work(console: Console) -> None:
        await console.method("delete", {"type": kind, "name": name, "options": {}})
    with_console(url, trust, work)


@gateway.command()
@click.argument("name")
@broker_options
def pause(name: str, url: str, trust: Trust) -> None:
    """Have a bridge rest, over restarts as well."""
    _call(name, "pause", url, trust)


@gateway.command()
@click.argument("name")
@broker_options
def resume(name: str, url: str, trust: Trust) -> None:
    """Have a bridge go on."""
    _call(name, "resume", url, trust)


def _call(name: str, method: str, url: str, trust: Trust) -> None:
    async def work(console: Console) -> None:
        await console.method(method, {}, "bridge", name)
    with_console(url, trust, work)
