"""The `dragoman` command."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from dragoman import version_line
from dragoman.config import ConfigError, load
from dragoman.secrecy import hide_passwords, open_to_others

CONFIG_OPTION = click.option("--config", "-c", "config_path", metavar="FILE", envvar="DRAGOMAN_CONFIG",
                             help="TOML file; without one the defaults hold. [env: DRAGOMAN_CONFIG]")


class Commands(click.Group):
    """The commands in the order they were written, imported when they are asked for, and failing in one line."""

    elsewhere = {"send": "dragoman.cli_messages", "receive": "dragoman.cli_messages",
                 "queue": "dragoman.cli_manage", "exchange": "dragoman.cli_manage", "binding": "dragoman.cli_manage",
                 "connection": "dragoman.cli_manage", "stat": "dragoman.cli_manage", "events": "dragoman.cli_manage",
                 "store": "dragoman.cli_store",
                 "user": "dragoman.cli_user", "permission": "dragoman.cli_permission", "acl": "dragoman.cli_acl",
                 "tls": "dragoman.cli_tls",
                 "import": "dragoman.cli_import", "export": "dragoman.cli_import",
                 "gateway": "dragoman.cli_gateway"}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *self.elsewhere]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.elsewhere:
            module = __import__(self.elsewhere[cmd_name], fromlist=[cmd_name])
            command: click.Command = getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_group")
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w")  # or Python would complain once more on its way out
            raise click.exceptions.Exit(1) from None
        except Exception as error:
            if os.environ.get("DRAGOMAN_DEBUG"):
                traceback.print_exc()
            raise click.ClickException(f"unexpected {type(error).__name__}: {error} "
                                       "(DRAGOMAN_DEBUG=1 in the environment shows where)") from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(message=version_line(), version="")
def dragoman() -> None:
    """A message broker that speaks AMQP, from 0-8 to 1.0, and MQTT.

    \b
    To try it, in one terminal:      dragoman serve
    and in another:                  dragoman send --declare hello "Hello, world"
                                     dragoman receive hello --count 1
    """


@dragoman.command()
@CONFIG_OPTION
@click.option("--lifeline", type=int, hidden=True)
def serve(config_path: str | None, lifeline: int | None) -> None:
    """Run the broker until SIGTERM or Ctrl-C.

    Without a configuration file it listens on 127.0.0.1:5672 and keeps its messages in the folder dragoman-data.
    SIGHUP makes it read the configuration again.

    \b
    Exit codes: 0 stopped as asked, 1 failed, 2 wrong command line, 65 the store is damaged,
    75 the store or a port is in use, 78 the configuration cannot be used.
    """
    from dragoman.service import serve as run

    raise click.exceptions.Exit(run(config_path, lifeline))


@dragoman.group("config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command(short_help="Print the configuration in effect, with comments.")
@CONFIG_OPTION
def show(config_path: str | None) -> None:
    """Print the configuration in effect, defaults included, as a TOML file with comments.

    \b
    To begin a file of your own:     dragoman config show > dragoman.toml
    """
    from dragoman.config_text import show as text

    with _problems_shown():
        config = load(config_path)
    click.echo(text(config), nl=False)


@config_group.command()
@CONFIG_OPTION
@click.argument("file", metavar="[FILE]", required=False)
def check(config_path: str | None, file: str | None) -> None:
    """Check a configuration file, and the files it names. Exit code 0 when it can be used, 78 when not.

    \b
    dragoman config check dragoman.toml
    """
    from dragoman.config_files import load_and_check

    path = file or config_path
    with _problems_shown():
        config = load_and_check(path)
    for problem in open_to_others(config):
        click.echo(f"warning: {problem}", err=True)
    click.echo(f"{path or 'the built-in configuration'}: no problems")


@contextmanager
def _problems_shown() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise click.exceptions.Exit(78) from None


def main() -> None:
    """The console script."""
    hide_passwords()
    dragoman(prog_name="dragoman")
