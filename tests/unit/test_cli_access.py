"""`dragoman permission` and `dragoman acl check`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.security.passwords import parse_verifier
from broker.security.users import PasswordFile, User
from dragoman.cli import dragoman


def run(*arguments: str) -> Result:
    return CliRunner().invoke(dragoman, arguments)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "d.toml"
    path.write_text('virtual_hosts = ["/", "b"]\n[access]\nacl_file = "rules.acl"\npermissions_file = "permissions"\n'
                    'group_file = "groups"\n')
    (tmp_path / "rules.acl").write_text("# all but\nACL DENY staff PUBLISH EXCHANGE name=closed\nCONFIG "
                                        "DEFAULTALLOW=true\n")
    (tmp_path / "groups").write_text("staff.users=bob\n")
    (tmp_path / "permissions").write_text("permission bob / '^q' '.*' '.*'\ntopic bob / amq.topic '^a' '^a'\n")
    return str(path)


def test_permissions_are_set_listed_and_cleared(tmp_path: Path) -> None:
    path = str(tmp_path / "permissions")
    assert run("permission", "set", "shop", "^shop-", ".*", "", "--file", path).exit_code == 0
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert run("permission", "set", "shop", ".*", ".*", ".*", "-p", "b", "-f", path).exit_code == 0
    assert run("permission", "set-topic", "shop", "amq.topic", "^a", "^b", "-f", path).exit_code == 0
    listed = ("permission shop / '^shop-' '.*' ''\n", "permission shop b '.*' '.*' '.*'\n",
              "topic shop / amq.topic '^a' '^b'\n")
    assert run("permission", "list", "-f", path).output == "".join(listed)
    assert run("permission", "list", "-f", path, "-p", "b").output == listed[1]
    assert run("permission", "list", "-f", path, "--user", "eve").output == ""
    assert run("permission", "clear-topic", "shop", "amq.topic", "-f", path).exit_code == 0
    assert run("permission", "clear", "shop", "-f", path).exit_code == 0
    assert run("permission", "list", "-f", path).output == listed[1]
    assert run("permission", "clear", "shop", "--all", "-f", path).exit_code == 0
    assert run("permission", "list", "-f", path).output == ""


@pytest.mark.parametrize(("arguments", "problem"), [
    (("set", "bob", "(", "", ""), "'(' is no regular expression"),
    (("clear", "eve"), "eve has no permissions in virtual host /"),
    (("clear", "eve", "--all"), "eve has no permissions"),
    (("clear-topic", "bob", "x"), "bob has no topic permissions for x in virtual host /"),
    (("list", "-f", "/nowhere/none"), "cannot be read")])
def test_what_cannot_be_done_is_said_in_one_line(config: str, arguments: tuple[str, ...], problem: str) -> None:
    result = run("permission", *arguments, "--config", config)
    assert result.exit_code == 1
    assert problem in result.output and len(result.output.splitlines()) == 1


def test_permissions_for_a_virtual_host_that_is_not_configured_are_remarked_on(config: str) -> None:
    for words in (("set", "bob", "a", "b", "c"), ("set-topic", "bob", "amq.topic", "b", "c")):
        assert run("permission", *words, "-p", "b", "-c", config).output == ""
        said = run("permission", *words, "-p", "c", "-c", config)
        assert (said.exit_code, said.output) == (0, "warning: the configuration has no virtual host c, but / and b\n")


def test_which_file_must_be_said() -> None:
    assert "access.permissions_file" in run("permission", "list").output


def test_a_check_says_which_line_decides(config: str) -> None:
    folder = os.path.dirname(config)
    result = run("acl", "check", "bob", "create", "queue", "name=q1", "-c", config)
    assert result.exit_code == 0
    assert result.output == ("allowed: create queue name=q1 virtualhostname=/ durable=false exclusive=false "
                             "autodelete=false exists=false temporary=false\n"
                             f"by {folder}/rules.acl: no rule fits\n"
                             f"by {folder}/permissions:1: permission bob / '^q' '.*' '.*'\n")
    result = run("acl", "check", "bob", "create", "queue", "name=p", "-c", config)
    assert result.exit_code == 1
    assert result.output.endswith(f"by {folder}/permissions:1: permission bob / '^q' '.*' '.*' (configure does not fit "
                                  "name)\nthe client is told: access to queue 'p' in vhost '/' refused for user "
                                  "'bob'\n")
    result = run("acl", "check", "bob", "publish", "exchange", "name=closed", "-c", config)
    assert f"by {folder}/rules.acl:2: ACL DENY staff PUBLISH EXCHANGE name=closed\n" in result.output
    result = run("acl", "check", "bob", "publish", "exchange", "name=amq.topic", "routingkey=b", "-c", config)
    assert result.exit_code == 1 and f"{folder}/permissions:2: topic bob" in result.output
    assert "topic 'b' in exchange 'amq.topic'" in result.output


@pytest.mark.parametrize(("arguments", "code"), [
    (("bob", "access", "virtualhost"), 0), (("eve", "access", "virtualhost"), 1),
    (("bob", "access", "virtualhost", "-p", "b"), 1),
    (("bob", "publish", "exchange", "name=amq.topic"), 0), (("bob", "publish", "exchange", "name=amq.topic",
                                                             "routing_key=ab"), 0),
    (("bob", "bind", "exchange", "name=amq.topic", "queuename=q", "routingkey=b"), 1),
    (("bob", "bind", "exchange", "name=amq.topic", "queuename=q", "routingkey=ab"), 0),
    (("bob", "access", "query", "name=q"), 1), (("bob", "access", "query", "name=q", "--tag", "monitoring"), 0),
    (("bob", "impersonate", "user"), 1), (("bob", "impersonate", "user", "--tag", "impersonator"), 0),
    (("bob", "access", "virtualhost", "-p", "c"), 2), (("bob", "create", "queue", "name=q", "exclusive=yes"), 2),
    (("bob", "create", "queue", "name=q", "queuemaxsize=many"), 2), (("bob", "create", "queue", "--from", "10.0.0"), 2),
    (("bob", "create", "queue", "name=q", "durable=true", "queuemaxsize=10", "--from", "10.0.0.1"), 0),
    (("bob", "frob", "queue"), 2), (("bob", "all", "queue"), 2), (("bob", "create", "queue", "frob=1"), 2)])
def test_exit_codes_of_checks(config: str, arguments: tuple[str, ...], code: int) -> None:
    assert run("acl", "check", *arguments, "--config", config).exit_code == code


def test_groups_and_tags_of_the_password_file_count(config: str) -> None:
    folder = Path(config).parent
    users = PasswordFile(str(folder / "users"))
    users.put(User("bob", [parse_verifier("RABBITMQ-SHA256$kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")],
                   ["monitoring"], ["night"]))
    users.save()
    with open(config, "a") as file:
        file.write('[authentication]\nusers_file = "users"\n')
    (folder / "rules.acl").write_text("ACL DENY night PUBLISH EXCHANGE\nCONFIG DEFAULTALLOW=true\n")
    assert run("acl", "check", "bob", "access", "query", "name=q", "-c", config).exit_code == 0
    assert run("acl", "check", "bob", "publish", "exchange", "-c", config).exit_code == 1


def test_checks_of_a_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.acl"
    path.write_text("acl allow staff access virtualhost fromnetwork=10.0.0.0/8\n")
    said = ("acl", "check", "bob", "access", "virtualhost", "-f", str(path))
    assert run(*said, "--from", "10.1.1.1").exit_code == 1
    assert run(*said, "--from", "10.1.1.1", "--group", "staff").exit_code == 0
    assert run(*said, "--from", "11.1.1.1", "--group", "staff").exit_code == 1
    path.write_text("acl allow")
    result = run(*said)
    assert result.exit_code == 2 and f"{path}:1: a rule is written" in result.output


def test_files_that_cannot_be_used_are_no_refusal(config: str) -> None:
    question = ("acl", "check", "bob", "create", "queue")
    for more in (("-f", "/nowhere/x.acl"), ("-c", "/nowhere/d.toml")):
        result = run(*question, *more)
        assert result.exit_code == 2 and result.output.startswith("Error: /nowhere/") and result.output.count("\n") == 1


def test_without_rules_a_check_says_that_there_are_none() -> None:
    result = run("acl", "check", "bob", "create", "queue", "name=q")
    assert result.exit_code == 0
    assert result.output.startswith("everything, to whoever has logged in: there are no access rules\nallowed: ")
