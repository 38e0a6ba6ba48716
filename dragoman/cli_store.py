"""`dragoman store`: looking after a store while no broker uses it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from dragoman.cli import CONFIG_OPTION
from dragoman.config import ConfigError, load
from dragoman.reasons import reason
from dragoman.secrecy import for_us
from store import tools, transfer
from store.journal import StoreDamaged, StoreError, StoreLocked

DAMAGED = 65
BUSY = 75
MISCONFIGURED = 78
PROBLEMS_SHOWN = 20
UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))

PATH_OPTION = click.option("--path", "-p", "given", metavar="FOLDER",
                           help="The store's folder; default: store.path of the configuration.")


@click.group(short_help="Look after a store while no broker uses it.")
def store() -> None:
    """Check, compact, export and import a store while no broker uses it.

    \b
    Exit codes: 0 done (and sound), 1 failed, 2 wrong command line, 65 the store is damaged, 75 it is in use,
    78 the configuration cannot be used.
    """


@store.command()
@PATH_OPTION
@CONFIG_OPTION
def check(given: str | None, config_path: str | None) -> None:
    """Read all of a store and say what is in it, and what is wrong. Nothing is changed."""
    path = _folder(given, config_path)
    with _store_errors(), _progress("checking") as progress:
        report = tools.check(path, progress)
    click.echo(f"{path}: {report.messages} messages in {len(report.queues)} queues ({report.entries} entries), "
               f"{report.settings} settings; {_size(report.bytes_in_use)} in use of {_size(report.bytes_on_disk)}")
    if report.branches:
        click.echo(f"{len(report.branches)} prepared transactions, with {sum(report.branches.values())} messages")
    if report.records:
        click.echo(f"{report.records} records of sessions")
    click.echo("it was closed properly" if report.clean else "it was not closed properly: the next start recovers it")
    _show_problems(report, "`dragoman store export` saves what can be read, for an import into a new store")
    click.echo("no problems")


@store.command()
@PATH_OPTION
@CONFIG_OPTION
def compact(given: str | None, config_path: str | None) -> None:
    """Give room that a store no longer needs back to the file system.

    While it works it needs free disk space for a copy of what is in use. It may be interrupted at any time.
    """
    path = _folder(given, config_path)
    with _store_errors(), _progress("compacting") as progress:
        before, after = tools.compact(path, progress)
    click.echo(f"{path}: {_size(before)} before, {_size(after)} after")


@store.command(short_help="Write a store as lines of JSON.")
@PATH_OPTION
@CONFIG_OPTION
@click.argument("output", metavar="[FILE]", type=click.Path(dir_okay=False), default="-")
def export(given: str | None, config_path: str | None, output: str) -> None:
    """Write a store as lines of JSON to a new FILE, or to standard output; of a damaged one, all that can be read.

    \b
    dragoman store export --path dragoman-data backup.jsonl
    dragoman store export | gzip > backup.jsonl.gz
    """
    path = _folder(given, config_path)
    with _store_errors(), _output(output) as stream, _progress("exporting") as progress:
        done = transfer.export(path, stream, progress)
    click.echo(f"exported {_contents(done)}", err=True)
    _show_problems(done.report, "all that can be read was exported")


@store.command("import", short_help="Make a store of what export wrote.")
@PATH_OPTION
@CONFIG_OPTION
@click.argument("source", metavar="[FILE]", type=click.Path(dir_okay=False), default="-")
def import_(given: str | None, config_path: str | None, source: str) -> None:
    """Make a store of what `dragoman store export` wrote, from FILE or standard input.

    The store's folder must be new, or its store empty. It is there as a whole at the end, or not at all.
    """
    path = _folder(given, config_path)
    with _store_errors(), _source(source) as stream, _progress("importing") as progress:
        done = transfer.import_(path, stream, progress)
    click.echo(f"imported {_contents(done)}", err=True)


def _folder(given: str | None, config_path: str | None) -> Path:
    if given is not None:
        return Path(given)
    try:
        settings = load(config_path).store
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise click.exceptions.Exit(MISCONFIGURED) from None
    if settings.kind != "lmdb":
        raise click.UsageError("the configuration has a store in memory only: there is nothing to look after")
    return Path(settings.path)


@contextmanager
def _store_errors() -> Iterator[None]:
    """A StoreError as one line, with its exit code."""
    try:
        yield
    except StoreError as error:
        click.echo(f"Error: {error}", err=True)
        code = BUSY if isinstance(error, StoreLocked) else DAMAGED if isinstance(error, StoreDamaged) else 1
        raise click.exceptions.Exit(code) from None
    except BrokenPipeError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(reason(error)) from None


@contextmanager
def _progress(label: str) -> Iterator[tools.Progress]:
    """A bar, at a terminal; a count where there is no knowing how much it will be."""
    if not sys.stderr.isatty():
        yield tools.no_progress
        return
    bars: Any = click.progressbar(length=1, label=label, file=sys.stderr, show_percent=True,
                                  item_show_func=lambda item: str(item or ""))
    with bars as bar:
        def show(done: int, total: int) -> None:
            if total:
                bar.length = total
                bar.update(done - bar.pos)
            else:
                bar.update(0, f"{done} records")

        yield show


@contextmanager
def _output(name: str) -> Iterator[IO[str]]:
    """A new file, removed again when writing it fails; or standard output."""
    if name == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    try:
        with open(name, "x", encoding="utf-8", opener=for_us) as stream:
            try:
                yield stream
            except BaseException:
                os.unlink(name)
                raise
    except FileExistsError:
        raise click.ClickException(f"{name} exists already") from None


@contextmanager
def _source(name: str) -> Iterator[IO[str]]:
    if name == "-":
        yield sys.stdin
        return
    with open(name, encoding="utf-8") as stream:
        yield stream


def _show_problems(report: tools.Report, advice: str) -> None:
    """List what is wrong, and end with the exit code for that; nothing happens when nothing is."""
    if report.sound:
        return
    for problem in report.problems[:PROBLEMS_SHOWN]:
        click.echo(f"problem: {problem}", err=True)
    if report.problem_count > PROBLEMS_SHOWN:
        click.echo(f"and {report.problem_count - PROBLEMS_SHOWN} more", err=True)
    click.echo(f"the store is damaged; {advice}", err=True)
    raise click.exceptions.Exit(DAMAGED)


def _contents(done: transfer.Transferred) -> str:
    prepared = f"{done.branches} prepared transactions, " if done.branches else ""
    records = f"{done.records} records of sessions, " if done.records else ""
    return f"{done.settings} settings, {prepared}{records}{done.messages} messages, {done.entries} entries"


def _size(size: int) -> str:
    for unit, of in UNITS:
        if size >= of:
            return f"{size / of:.1f} {unit}"
    return f"{size} bytes"
