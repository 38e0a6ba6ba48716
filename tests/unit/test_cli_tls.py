"""`dragoman tls`: certificates for a trial, and what is said of certificates."""

from __future__ import annotations

import os
import re
import shlex
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from dragoman import testing
from dragoman.cli import dragoman
from tests.authority import LOCAL, Authority, pem
from tests.tls_kit import issue
from tests.wire import HANG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def tls(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(dragoman, ["tls", *words])
    assert done.exit_code == code, done.output
    return done


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(path: Path) -> list[str]:
    found = x509.load_pem_x509_certificate(path.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName).value
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def test_a_trial_from_beginning_to_end(folder: Path) -> None:
    """What is printed is a configuration, and the command that is printed sends a message as the user."""
    done = tls("self-signed", "--name", "broker.example.com", "--name", "10.1.2.3", "--client", "shop")
    free = re.sub("port = (5671|5672)", "port = 0", done.stdout)  # a broker may run on this machine
    with testing.broker(free) as broker:
        tls_port = broker.urls[1].rpartition(":")[2]
        command = done.stderr.splitlines()[-1].strip().replace("5671", tls_port)
        assert command.startswith("dragoman send --declare --ca dragoman-tls/ca.pem --cert dragoman-tls/shop.pem ")
        said = subprocess.run([sys.executable, "-m", *shlex.split(command)], cwd=folder, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, timeout=HANG).stderr
        assert said.startswith("sent 1 message ")
        assert ": user shop opened vhost / by AMQP 0-9-1\n" in broker.log()
    made = folder / "dragoman-tls"
    assert mode(made) == 0o700
    assert {path.name: mode(path) for path in made.iterdir()} == {
        "ca.pem": 0o644, "ca-key.pem": 0o600, "server.pem": 0o644, "server-key.pem": 0o600, "shop.pem": 0o644,
        "shop-key.pem": 0o600}
    assert {"localhost", "127.0.0.1", "::1", "broker.example.com", "10.1.2.3"} < set(names(made / "server.pem"))


def test_without_clients(folder: Path) -> None:
    done = tls("self-signed", "--out", "here", "--days", "7")
    assert "client_" not in done.stdout and "--cert" not in done.stderr
    ends = x509.load_pem_x509_certificate((folder / "here/server.pem").read_bytes())
    assert (ends.not_valid_after_utc - ends.not_valid_before_utc).days == 7


def test_what_is_there_is_kept(folder: Path) -> None:
    tls("self-signed")
    made = folder / "dragoman-tls"
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    done = tls("self-signed", "--client", "shop")
    assert "shop.pem" in done.stderr and 'kind = "certificates"' in done.stdout
    assert {name: (made / name).read_bytes() for name in before} == before
    shop = (made / "shop.pem").read_bytes()
    assert 'kind = "certificates"' in tls("self-signed").stdout
    again = tls("self-signed", "--client", "shop", "--name", "localhost", "--name", "127.0.0.1")
    assert again.stdout == done.stdout and "for the user" not in again.stderr
    assert (made / "shop.pem").read_bytes() == shop
    assert "dragoman-tls/server.pem exists, and is not for x; --renew makes it anew, with these names" in tls(
        "self-signed", "--name", "localhost", "--name", "x", code=1).stderr
    tls("self-signed", "--name", "x.example", "--client", "shop", "--renew")
    assert "x.example" in names(made / "server.pem")
    assert (made / "ca.pem").read_bytes() == before["ca.pem"]
    context = ssl.create_default_context(cafile=str(made / "ca.pem"))
    context.load_cert_chain(made / "shop.pem", made / "shop-key.pem")


@pytest.mark.parametrize(("words", "says"), [
    (["--client", "ca"], "'ca' cannot be the name of a client"), (["--client", "a/b"], "'a/b' cannot be the name"),
    (["--client", ".."], "'..' cannot be the name"), (["--client", ""], "'' cannot be the name"),
    (["--client", "x" * 65], "cannot be the name"), (["--name", "brök"], "'brök' is no host name"),
    (["--name", "exa mple"], "'exa mple' is no host name"), (["--name", ""], "'' is no host name")])
def test_names_that_cannot_be(words: list[str], says: str) -> None:
    assert says in tls("self-signed", *words, code=1).stderr


def test_a_folder_that_has_something_else(folder: Path) -> None:
    (folder / "file").write_text("")
    assert "File exists" in tls("self-signed", "--out", "file", code=1).stderr
    tls("self-signed")
    other = Authority("another")
    other.save(folder / "dragoman-tls/ca.pem")
    assert "ca-key.pem does not belong to " in tls("self-signed", code=1).stderr
    (folder / "dragoman-tls/ca.pem").unlink()
    assert "No such file or directory: dragoman-tls/ca.pem" in tls("self-signed", code=1).stderr


def test_check_of_a_configuration(folder: Path) -> None:
    (folder / "d.toml").write_text(tls("self-signed").stdout)
    said = tls("check", "--config", "d.toml").stdout
    assert re.search(r"^  names        localhost, .*127\.0\.0\.1", said, re.MULTILINE)
    assert re.search(r"^  valid        20.* UTC to 20.* UTC$", said, re.MULTILINE)
    os.chmod(folder / "dragoman-tls/server-key.pem", 0o644)
    assert "server-key.pem can be read by others: chmod 600" in tls("check", "--config", "d.toml", code=1).stdout
    (folder / "dragoman-tls/server-key.pem").unlink()
    assert "PROBLEM: tls.key " in tls("check", "--config", "d.toml", code=1).stdout
    (folder / "e.toml").write_text("")
    assert "has no tls.certificate" in tls("check", "--config", "e.toml", code=1).stderr
    assert "e.toml: is not TOML" not in tls("check", "--config", "none.toml", code=1).stderr


@pytest.mark.parametrize(("age", "alternatives", "says"), [
    (20, LOCAL, "PROBLEM: no longer valid, since "), (0, LOCAL, "PROBLEM: valid for 9 days only"),
    (-5, LOCAL, "PROBLEM: not valid yet, only from "), (0, (), "PROBLEM: it names no host")])
def test_check_of_a_file(folder: Path, age: int, alternatives: tuple[x509.GeneralName, ...], says: str) -> None:
    issue(Authority("an authority"), folder / "c.pem", names=alternatives, age=age)
    said = tls("check", "c.pem", code=1).stdout
    assert says in said and "  clients have to trust CN=an authority\n" in said


def test_check_of_a_chain(folder: Path) -> None:
    authority = Authority("an authority")
    issue(authority, folder / "c.pem")
    right = (folder / "c.pem").read_bytes()
    (folder / "c.pem").write_bytes(right + pem(Authority("another").certificate))
    assert "PROBLEM: CN=the broker is not issued by what follows it, CN=another" in tls("check", "c.pem", code=1).stdout
    (folder / "c.pem").write_bytes(right + pem(authority.certificate))
    assert "is not issued by" not in tls("check", "c.pem", code=1).stdout
    (folder / "text").write_text("hello")
    assert "PROBLEM: " in tls("check", "text", code=1).stdout
    assert "PROBLEM: No such file or directory" in tls("check", "none", code=1).stdout


def test_check_of_a_weak_key(folder: Path) -> None:
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "weak")])
    strong = Authority("x").certificate
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, strong.not_valid_before_utc,
                                   strong.not_valid_after_utc).sign(key, hashes.SHA256())
    (folder / "weak.pem").write_bytes(pem(made))
    assert "PROBLEM: its key has 1024 bits only" in tls("check", "weak.pem", code=1).stdout


def test_what_clients_of_the_command_line_get_wrong(folder: Path) -> None:
    tls("self-signed", "--client", "shop")
    for words, says in ((["--key", "k", "amqps://x"], "a key needs its certificate"),
                        (["--cert", "dragoman-tls/shop.pem", "amqp://x"], "are for amqps:// addresses"),
                        (["--cert", "dragoman-tls/shop.pem", "amqps://x"], "a key that is elsewhere has to be named"),
                        (["--cert", "none", "amqps://x"], "none: it and its key cannot be used: No such file"),
                        (["--ca", "none", "amqps://x"], "none: No such file or directory")):
        done = CliRunner().invoke(dragoman, ["send", *words, "q", "x"])
        assert done.exit_code == 2 and says in done.stderr, done.output
