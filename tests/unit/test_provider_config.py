"""`[[providers]]`: what the configuration says of them becomes providers, and what is wrong is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from broker.security.provider import Provider
from dragoman.config import ConfigError, parse
from dragoman.config_files import load_and_check
from dragoman.config_text import show
from dragoman.providers import make
from dragoman.secrecy import open_to_others
from tests.authority import Authority
from tests.provider_kit import Threads

LDAP = 'kind = "ldap"\nservers = ["ldap://localhost"]\nbase = "o=x"\nbind_dn = "cn=a"\nbind_password_file = "secret"\n'
OAUTH2 = 'kind = "oauth2"\nissuer = "https://x"\naudience = ["a"]\nclient_id = "b"\nclient_secret_file = "secret"\n' \
    'introspection_url = "https://x/i"\n'
CERTIFICATES = 'kind = "certificates"\nissuers = "ca.pem"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Authority("CA").save(tmp_path / "ca.pem")
    (tmp_path / "secret").write_text("s3cret\n")
    return tmp_path


def problems(folder: Path, table: str) -> str:
    path = folder / "dragoman.toml"
    path.write_text(f'[[providers]]\nname = "mine"\n{table}')
    with pytest.raises(ConfigError) as found:
        load_and_check(str(path))
    return str(found.value)


@pytest.mark.parametrize(("table", "mechanisms"), [
    (LDAP, {"PLAIN", "AMQPLAIN"}), (OAUTH2, {"PLAIN", "AMQPLAIN", "OAUTHBEARER", "XOAUTH2"}),
    (OAUTH2 + "passwords = false\n", {"OAUTHBEARER", "XOAUTH2"}), (CERTIFICATES, {"EXTERNAL"})])
def test_a_provider_of_each_kind(folder: Path, table: str, mechanisms: set[str]) -> None:
    path = folder / "dragoman.toml"
    path.write_text(f'[[providers]]\nname = "mine"\n{table}')
    config = load_and_check(str(path))
    (settings,) = config.providers
    provider = make(settings, Threads().run)
    assert isinstance(provider, Provider)
    assert (provider.name, provider.mechanisms()) == ("mine", mechanisms)
    assert "s3cret" not in show(config)
    assert parse(show(config)).providers == config.providers


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_secret_that_everybody_can_read(folder: Path, mode: int, warned: bool) -> None:
    (folder / "secret").chmod(mode)
    path = folder / "dragoman.toml"
    path.write_text(f'[[providers]]\nname = "mine"\n{LDAP}')
    told = "\n".join(open_to_others(load_and_check(str(path))))
    assert (f"{folder / 'secret'} has mode {mode:04o}: others on this machine may read it" in told) == warned
    assert "s3cret" not in told


@pytest.mark.parametrize(("table", "text"), [
    (LDAP.replace('"secret"', '"none"'), "none: cannot be read: No such file or directory"),
    (LDAP.replace('"secret"', '"ca.pem"').replace("cn=a", ""), "of bind_dn and bind_password_file one is set"),
    (LDAP.replace("ldap://localhost", "localhost"), '"localhost" is no address of a directory'),
    (OAUTH2.replace("https://x/i", "http://x.org/i"), "is not https"),
    (OAUTH2.replace('["a"]', "[]"), "audience is empty"),
    (OAUTH2 + 'keys_url = "https://x/k"\nkeys_file = "k"\n', "one of them is enough"),
    (OAUTH2 + 'algorithms = ["HS256"]\n', 'has "HS256" in it'),
    (CERTIFICATES.replace("ca.pem", "secret"), "there is no certificate in it"),
    (CERTIFICATES + 'login_from = "commonname"\n', 'did you mean "common_name"?'),
    ('kind = "pam"\n', "it can be")])
def test_what_is_wrong_is_said(folder: Path, table: str, text: str) -> None:
    assert text in problems(folder, table)


@pytest.mark.parametrize(("table", "module", "package"), [
    (LDAP, "ldap", "ldap3"), (OAUTH2, "oauth2", "joserfc"), ('kind = "kerberos"\n', "kerberos", "gssapi")])
def test_a_package_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, table: str, module: str,
                                            package: str) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    for name in [each for each in sys.modules if each.partition(".")[0] == package
                 or each in (f"broker.security.{module}", "broker.security.tokens")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert f"provider mine: the package {package} is not installed: pip install 'dragoman[{module}]'" in \
        problems(folder, table)


def test_all_files_that_cannot_be_used_are_named(folder: Path) -> None:
    (folder / "rules.acl").write_text("acl alow bob\n")
    path = folder / "dragoman.toml"
    path.write_text('[access]\nacl_file = "rules.acl"\nhost_acl_files = { "/" = "none.acl" }\ngroup_file = "groups"\n'
                    'permissions_file = "permissions"\n[log]\nfile = "nowhere/log"\n')
    with pytest.raises(ConfigError) as found:
        load_and_check(str(path))
    assert [each.removeprefix(f"{path}: ").replace(f"{folder}/", "")[:31] for each in found.value.problems] == [
        "access: rules.acl:1: a rule is ", "access: none.acl: cannot be rea", "access: groups: cannot be read:",
        "access: permissions: the permis", "log.file nowhere/log: cannot be"]
    path.write_text(f'[log]\nfile = "{folder}"')
    with pytest.raises(ConfigError, match="log.file .*: cannot be opened: Is a directory"):
        load_and_check(str(path))
    path.write_text('[log]\nfile = "log"')
    assert load_and_check(str(path)).log.file == str(folder / "log") and not (folder / "log").exists()
