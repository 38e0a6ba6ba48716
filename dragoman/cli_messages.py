"""`dragoman send` and `dragoman receive`: the commands; the work is in cli_send.py and cli_receive.py."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
from pika.data import encode_table

from dragoman.cli_client import DEFAULT_URL, ClientError, parameters
from dragoman.cli_receive import Receiving, receive_messages
from dragoman.cli_send import Sending, send_messages
from interop.trust import Trust

PROPERTIES = ("content_encoding", "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type",
              "user_id", "app_id", "priority")
WHOLE_NUMBERS = ("timestamp", "priority")

DECLARE_OPTION = click.option("--declare", is_flag=True, help="Make the queue, durable, when it does not exist.")
QUIET_OPTION = click.option("--quiet", "-q", is_flag=True, help="No progress and no summary.")


def tls_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--ca, --cert and --key, which make the command's argument `trust`."""
    @functools.wraps(command)
    def wrapped(tls_ca: str | None, tls_certificate: str | None, tls_key: str | None, **values: Any) -> Any:
        return command(trust=Trust(tls_ca, tls_certificate, tls_key), **values)

    for option in (click.option("--key", "tls_key", metavar="FILE", help="The private key of --cert, if it is not in "
                                "the same file."),
                   click.option("--cert", "tls_certificate", metavar="FILE", help="For amqps: show this certificate; "
                                "a URL without a user then logs in by it (EXTERNAL)."),
                   click.option("--ca", "tls_ca", metavar="FILE", help="For amqps: trust the issuers in this PEM "
                                "file.")):
        wrapped = option(wrapped)
    return wrapped


@click.command(options_metavar="[OPTIONS]")
@click.argument("target", metavar="[URL] ADDRESS", nargs=1)
@click.argument("rest", metavar="[BODY]...", nargs=-1)
@click.option("--count", "-n", type=click.IntRange(0), help="Send so many messages, going round the bodies; 0: each "
              "line of standard input is a message.  [default: one for each body]")
@click.option("--size", type=click.IntRange(0), help="Send bodies of so many bytes.")
@click.option("--file", "-f", "file", type=click.Path(dir_okay=False, allow_dash=True),
              help="Send the content of this file; - is standard input.")
@click.option("--property", "-p", "properties", multiple=True, metavar="NAME=VALUE",
              help=f"A property of the messages: {', '.join(PROPERTIES)}.")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME=VALUE",
              help="A header of the messages, as text; NAME:=VALUE for JSON: numbers, true, lists, tables.")
@click.option("--content-type", help="As text/plain or application/json.")
@click.option("--durable/--transient", default=True, help="Whether the messages survive a restart of the broker.  "
              "[default: durable]")
@click.option("--mandatory/--optional", default=True, help="Whether a message that no queue takes is an error.  "
              "[default: mandatory]")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many messages a second.")
@click.option("--confirm/--no-confirm", default=True, help="Whether to wait until the broker says that it has the "
              "messages.  [default: confirm]")
@DECLARE_OPTION
@tls_options
@QUIET_OPTION
def send(target: str, rest: tuple[str, ...], count: int | None, size: int | None, file: str | None,
         properties: tuple[str, ...], headers: tuple[str, ...], content_type: str | None, durable: bool,
         mandatory: bool, rate: float | None, confirm: bool, declare: bool, trust: Trust, quiet: bool) -> None:
    """Send messages.

    URL is amqp://user:password@host:port/virtual-host; without it, the environment's DRAGOMAN_URL, or guest on this
    machine. ADDRESS is the name of a queue, or of an exchange, or exchange/routing-key. Without a BODY, --size or
    --file, standard input is the body.

    \b
    dragoman send --declare orders "one" "two"
    dragoman send amq.topic/weather.fell --content-type application/json -f report.json
    dragoman send orders --count 100000 --size 1024 --transient
    tail -f access.log | dragoman send amqp://shop:secret@broker.example/ amq.fanout --count 0

    Exit codes: 0 all sent (and confirmed), 1 not all, 2 wrong command line.
    """
    url, address, bodies = _target(target, rest)
    if (len(bodies) > 0) + (size is not None) + (file is not None) > 1:
        raise click.UsageError("BODY, --size and --file exclude each other")
    if count == 0 and (bodies or size is not None or file not in (None, "-")):
        raise click.UsageError("--count 0 reads the bodies from standard input, one a line")
    values = _properties(properties)
    if content_type is not None:
        values["content_type"] = content_type
    if headers:
        values["headers"] = _headers(headers)
    work = Sending(address, _bodies(bodies, size, file, count), len(bodies) or 1 if count is None else count, values,
                   durable, mandatory, rate, confirm, declare, quiet)
    raise click.exceptions.Exit(run(send_messages(parameters_of(url, trust), work)))


@click.command(options_metavar="[OPTIONS]")
@click.argument("target", metavar="[URL] ADDRESS", nargs=1)
@click.argument("rest", metavar="", nargs=-1)
@click.option("--count", "-n", type=click.IntRange(0), default=0, help="Stop after so many messages; 0: never.")
@click.option("--timeout", "-t", type=click.FloatRange(0), help="Stop when no message came for so many seconds.")
@click.option("--ack/--no-ack", default=True, help="Acknowledge each message once it is printed; --no-ack lets the "
              "broker forget messages as it sends them: faster, and what is on its way when this stops is lost.  "
              "[default: ack]")
@click.option("--prefetch", type=click.IntRange(1, 65535), default=200, show_default=True,
              help="Messages that the broker may send ahead of acknowledgements.")
@click.option("--format", "form", type=click.Choice(["text", "json", "raw", "none"]), default="text",
              show_default=True, help="text: the body and a line end; json: one object a line, with all properties; "
              "raw: the bodies' bytes, nothing between; none: only counts.")
@DECLARE_OPTION
@tls_options
@QUIET_OPTION
def receive(target: str, rest: tuple[str, ...], count: int, timeout: float | None, ack: bool, prefetch: int,
            form: str, declare: bool, trust: Trust, quiet: bool) -> None:
    """Receive messages and print them.

    URL and ADDRESS are as in `dragoman send`. Messages are taken from a queue; an exchange is subscribed to through a
    temporary queue, with all routing keys, or with that of exchange/routing-key (a pattern, where it is a topic
    exchange).

    \b
    dragoman receive orders --count 10
    dragoman receive orders --timeout 5 --format json > orders.jsonl
    dragoman receive "amq.topic/weather.#"

    Exit codes: 0 as asked, 1 failed, 2 wrong command line, 3 --timeout came before --count messages.
    """
    url, address, more = _target(target, rest)
    if more:
        raise click.UsageError(f"unexpected {more[0]!r} behind the address")
    work = Receiving(address, count, timeout, ack, prefetch, form, declare, quiet)
    raise click.exceptions.Exit(run(receive_messages(parameters_of(url, trust), work)))


def parameters_of(url: str, trust: Trust) -> Any:
    try:
        return parameters(url, trust)
    except ClientError as error:
        raise click.UsageError(str(error)) from None


def tls_context(trust: Trust) -> ssl.SSLContext:
    try:
        return trust.context()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def run(work: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(_interruptible(work))
    except ClientError as error:
        raise click.ClickException(str(error)) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise click.exceptions.Exit(130) from None


async def _interruptible(work: Coroutine[Any, Any, int]) -> int:
    """Cancel the work at Ctrl-C. (asyncio.run does so too, but the loop may sleep through a signal that comes just as
    it goes to sleep.)"""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    return await work


def _target(first: str, rest: tuple[str, ...]) -> tuple[str, str, tuple[str, ...]]:
    """Tell [URL] ADDRESS [BODY]... apart."""
    if not first.lower().startswith(("amqp://", "amqps://")):
        return os.environ.get("DRAGOMAN_URL", DEFAULT_URL), first, rest
    if not rest:
        raise click.UsageError("Missing argument 'ADDRESS' behind the URL.")
    return first, rest[0], rest[1:]


def _bodies(given: tuple[str, ...], size: int | None, file: str | None, count: int | None) -> list[bytes] | None:
    """The bodies to go round; None for those that come from standard input line by line."""
    if count == 0:
        return None
    if size is not None:
        try:
            return [(b"0123456789abcdef" * (size // 16 + 1))[:size]]
        except (MemoryError, OverflowError):
            raise click.ClickException(f"--size {size}: there is not enough memory for such a message") from None
    if given:
        return [os.fsencode(body) for body in given]
    try:
        return [sys.stdin.buffer.read() if file in (None, "-") else Path(str(file)).read_bytes()]
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def _properties(given: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in PROPERTIES:
            raise click.UsageError(f"--property {text}: it must be NAME=VALUE with a name of {', '.join(PROPERTIES)}")
        if name in WHOLE_NUMBERS and not (value.isascii() and value.isdigit() and len(value) < 19):
            raise click.UsageError(f"--property {text}: {name} is a whole number")
        if name == "priority" and int(value) > 255:
            raise click.UsageError(f"--property {text}: a priority is at most 255")
        values[name] = int(value) if name in WHOLE_NUMBERS else value
    return values


def _headers(given: tuple[str, ...]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip(":"):
            raise click.UsageError(f"--header {text}: it must be NAME=VALUE, or NAME:=JSON")
        try:
            # A fraction goes as AMQP's decimal: pika cannot write its floating point
            made = json.loads(value, parse_float=Decimal) if name.endswith(":") else value
            encode_table([], {name.removesuffix(":"): made})
        except json.JSONDecodeError as error:
            raise click.UsageError(f"--header {text}: is not JSON: {error}") from None
        except Exception:  # of several kinds, and struct's among them
            raise click.UsageError(f"--header {text}: AMQP has no place for that") from None
        values[name.removesuffix(":")] = made
    return values
