"""`dragoman gateway`: links and bridges to other brokers."""

from __future__ import annotations

import click

from dragoman.cli_drain import drain


@click.group()
def gateway() -> None:
    """Work with other brokers."""


gateway.add_command(drain)
