"""`dragoman tls`: certificates for a first trial, and a look at those that are used."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from dragoman.cli import CONFIG_OPTION
from dragoman.config import ConfigError, load
from dragoman.config_tls import Certificate
from dragoman.reasons import reason


@click.group()
def tls() -> None:
    """Make certificates for a trial, and check those that are used.

    \b
    dragoman tls self-signed                         an issuer and a certificate for this machine
    dragoman tls check --config dragoman.toml        names, ends and chains of the certificates in use
    """


@tls.command("self-signed")
@click.option("--name", "names", multiple=True, metavar="NAME", help="A further host name or IP address that the "
              "broker is reached by, besides those of this machine; may be repeated.")
@click.option("--out", "folder", default="dragoman-tls", show_default=True, type=click.Path(path_type=Path),
              metavar="FOLDER", help="Where the files go; made when it does not exist.")
@click.option("--client", "clients", multiple=True, metavar="USER", help="Make a certificate for a client, too, that "
              "logs in as this user; may be repeated.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="How long they are valid.")
@click.option("--renew", is_flag=True, help="Make certificates anew that there are, but for the issuer's.")
def self_signed(names: tuple[str, ...], folder: Path, clients: tuple[str, ...], days: int, renew: bool) -> None:
    """Make an issuer (CA) of your own and a certificate of it.

    Run again, it keeps the issuer and makes what is missing: a certificate for one more client, say. What it prints
    belongs into the configuration.

    \b
    dragoman tls self-signed --name broker.example.com --client shop > dragoman.toml
    """
    from dragoman.issuing import AUTHORITY, SERVER, Issuer

    try:
        issuer = Issuer(folder)
        certificate, key = issuer.files(SERVER)
        if renew or not certificate.exists():
            click.echo(f"{certificate}: for {', '.join(issuer.server(names, days))}", err=True)
        elif missing := [each for each in names if each not in issuer.names()]:
            raise click.ClickException(f"{certificate} exists, and is not for {', '.join(missing)}; --renew makes it "
                                       "anew, with these names")
        for client in clients:
            if issuer.client(client, days, renew):
                click.echo(f"{issuer.files(client)[0]}: for the user {client}", err=True)
    except (OSError, ValueError) as error:
        raise click.ClickException(reason(error)) from None
    authority = issuer.files(AUTHORITY)[0]
    known = [*clients, *_clients(folder, authority, certificate)]
    click.echo(_configuration(certificate, key, authority, bool(known)), nl=False)
    click.echo(f"Clients trust {authority}; keep {issuer.files(AUTHORITY)[1]} to yourself. With the lines above in "
               "dragoman.toml:\n    dragoman serve --config dragoman.toml", err=True)
    options = ["--ca", str(authority)]
    if known:
        options += ["--cert", str(issuer.files(known[0])[0]), "--key", str(issuer.files(known[0])[1])]
    click.echo("and in another terminal:\n    dragoman send --declare " + shlex.join(options)
               + " amqps://localhost:5671/ hello 'Hello, TLS'", err=True)


def _clients(folder: Path, *others: Path) -> list[str]:
    """For whom there are certificates in a folder."""
    return sorted(path.stem for path in folder.glob("*.pem")
                  if path not in others and path.with_name(f"{path.stem}-key.pem").exists())


def _configuration(certificate: Path, key: Path, authority: Path, clients: bool) -> str:
    lines = ["[[listeners]]", "port = 5672", "", "[[listeners]]", "port = 5671", 'tls = "always"']
    if clients:
        lines += ['client_certificates = "want"', f'client_ca = "{authority.absolute()}"', "", "[[providers]]",
                  'name = "certificates"', 'kind = "certificates"', "", "[authentication]",
                  'mechanisms = ["PLAIN", "AMQPLAIN", "EXTERNAL"]']
    lines += ["", "[tls]", f'certificate = "{certificate.absolute()}"', f'key = "{key.absolute()}"']
    return "\n".join(lines) + "\n"


@tls.command()
@CONFIG_OPTION
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE...]")
def check(config_path: str | None, files: tuple[Path, ...]) -> None:
    """Show certificates, and what a client would object to.

    Names, issuers, and how long they are valid; of those in the files named, or else of those of the configuration.
    Exit code 1 if there is something to object to.
    """
    from dragoman.tls import given
    from dragoman.tls_check import report

    try:
        certificates = [Certificate(str(each)) for each in files] or [each for _, each in given(load(config_path))]
    except ConfigError as error:
        raise click.ClickException("\n".join(error.problems)) from None
    if not certificates:
        raise click.ClickException("the configuration has no tls.certificate, and no file is named")
    problems = 0
    for each in certificates:
        lines, found = report(each, with_key=not files)
        for line in lines:
            click.echo(line)
        for problem in found:
            click.echo(f"  PROBLEM: {problem}")
        problems += len(found)
    if problems:
        raise click.exceptions.Exit(1)
