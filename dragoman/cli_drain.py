"""`dragoman gateway drain`: moves what another broker has into one of ours."""

from __future__ import annotations

import socket
from urllib.parse import unquote, urlsplit

import click

from dragoman.cli_client import DEFAULT_URL, ClientError
from dragoman.cli_files import read_json
from dragoman.cli_messages import run, tls_context, tls_options
from dragoman.draining import Draining, Work
from interop.ends import EndError, Options
from interop.link import shown
from interop.settings import DIALECTS
from interop.trust import Trust

INCOMPLETE = 3


def _place(url: str) -> tuple[set[str], int, str]:
    """The addresses of its host, its port and its virtual host."""
    try:
        parts = urlsplit(url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(parts.hostname, None)}
    except (OSError, ValueError):  # which will be said when it is connected to
        return set(), 0, ""
    return addresses, port, unquote(parts.path.removeprefix("/")) or "/"


@click.command()
@click.argument("source", metavar="URL")
@click.option("--into", "target", envvar="DRAGOMAN_URL", default=DEFAULT_URL, metavar="URL", help="The Dragoman that "
              "gets it.  [env: DRAGOMAN_URL; default: guest on this machine]")
@click.option("--queue", "-q", "queues", multiple=True, metavar="NAME", help="Only this queue; may be given several "
              "times.")
@click.option("--dialect", type=click.Choice(["auto", *(name for name in DIALECTS if name != "mqtt")]),
              default="auto", show_default=True, help="What to speak with both. auto: 0-10 where QMF answers, as qpidd "
              "and Dragoman do, otherwise 0-9-1.")
@click.option("--definitions", type=click.Path(dir_okay=False, exists=True), metavar="FILE",
              help="RabbitMQ's definitions, which say what queues it has.")
@click.option("--api", default="", metavar="URL", help="Of RabbitMQ's management.  [default: port 15672 of the host]")
@click.option("--topology-only", is_flag=True, help="Make exchanges, queues and bindings, and move no messages.")
@click.option("--prefetch", type=click.IntRange(1, 65535), default=1000, show_default=True,
              help="Messages on their way at a time; so many at most may be here twice after a crash.")
@click.option("--idle", type=click.FloatRange(0.1), default=1.0, show_default=True,
              help="A queue is empty when nothing came for so many seconds, and the broker there agrees.")
@click.option("--patience", type=click.FloatRange(0), default=10.0, show_default=True,
              help="Seconds to wait for messages that other consumers have there.")
@tls_options
@click.option("--quiet", is_flag=True, help="No progress bar, and no line for each queue.")
def drain(source: str, target: str, queues: tuple[str, ...], dialect: str, definitions: str | None, api: str,
          topology_only: bool, prefetch: int, idle: float, patience: float, trust: Trust, quiet: bool) -> None:
    """Move the topology and the messages of another broker over.

    \b
    dragoman gateway drain amqp://guest:guest@old.example --into amqp://guest:guest@new.example

    What there is, qpidd and Dragoman tell through QMF, and RabbitMQ through its management, or a file of definitions;
    with neither, name the queues. A message is taken from the old broker when the new one has confirmed it: stopped or
    killed at any moment, nothing is lost, and run again it goes on. It ends when all queues are empty; consumers and
    publishers may be switched over before or after.

    Exit codes: 0 all is here, 1 failed (run it again), 2 wrong command line, 3 something stays there.
    """
    for url in (source, target):
        if not url.startswith(("amqp://", "amqps://")):
            raise click.UsageError(f"{url}: it must begin with amqp:// or amqps://")
    if _place(source)[1:] == _place(target)[1:] and _place(source)[0] & _place(target)[0]:
        raise click.UsageError(f"{shown(source)} would be drained into itself: --into names another broker, or another "
                               "virtual host")
    work = Work(source, target, dialect, queues, read_json(definitions) if definitions else None, api, topology_only,
                prefetch, idle, patience, Options(tls=None if trust == Trust() else tls_context(trust)), trust, quiet)
    draining = Draining(work)

    async def moving() -> int:
        try:
            return 0 if await draining.run() else INCOMPLETE
        except EndError as error:
            raise ClientError(f"{error}; {draining.moved()} messages were moved: run it again to go on") from None
    raise click.exceptions.Exit(run(moving()))
