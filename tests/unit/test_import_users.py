"""Users of qpidd and of Broker-J: the files that they are kept in, as those write them, and damaged."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from broker.security.passwords import ScramVerifier, new_verifier
from broker.security.users import PasswordFile
from dragoman.cli_user import user as user_command
from interop.migration.user_files import FoundUser, NotUnderstood, read_users

ROOT = Path(__file__).resolve().parents[2]
DATABASE = (Path(__file__).parent / "definitions" / "qpidd.sasldb").read_bytes()
"""Made by saslpasswd2 2.1.28 with alice and guest in the realm QPID, and another guest in OTHER."""

PRINTED = r"""VERSION=3
format=print
type=hash
h_nelem=3
db_pagesize=4096
HEADER=END
 alice\00QPID\00userPassword
 back\\slash p\c3\a4ss
 bob\00QPID\00cmusaslsecretOTP
 x
DATA=END
"""
HEXADECIMAL = """VERSION=3
format=bytevalue
type=hash
HEADER=END
 616c6963650051504944007573657250617373776f7264
 616c6963652d736563726574
DATA=END
"""


def passwords(found: list[FoundUser]) -> dict[str, str]:
    return {each.name: each.problem or each.password for each in found}


def test_a_database_of_cyrus_sasl() -> None:
    assert passwords(read_users(DATABASE)) == {"alice": "alice-secret",
                                               "guest": "it is there in several realms, such as QPID"}


def test_what_db_dump_prints() -> None:
    assert passwords(read_users(PRINTED.encode())) == {"alice": "back\\slash p\u00e4ss"}
    assert passwords(read_users(HEXADECIMAL.encode())) == {"alice": "alice-secret"}


def test_a_database_that_the_tools_make_now(tmp_path: Path) -> None:
    """Of many users, which are on many pages."""
    if not (shutil.which("saslpasswd2") and shutil.which("db5.3_dump")):
        pytest.skip("no saslpasswd2 or db5.3_dump on this machine (Debian's sasl2-bin and db5.3-util have them)")
    path = tmp_path / "sasldb"
    made = {f"user{number:03}": f"secret of {number} " + "x" * (number % 40) for number in range(60)}
    for name, password in made.items():
        subprocess.run(["saslpasswd2", "-p", "-c", "-f", str(path), "-u", "QPID", name], input=password.encode(),
                       check=True)
    assert passwords(read_users(path.read_bytes())) == made
    for how in ([], ["-p"]):
        dumped = subprocess.run(["db5.3_dump", *how, str(path)], capture_output=True, check=True).stdout
        assert passwords(read_users(dumped)) == made


# Broker-J


def scram_kept(password: str, kind: str = "SCRAM-SHA-256") -> tuple[str, str, str, int]:
    """Salt, keys and iterations of a verifier of ours, in base64."""
    made = new_verifier(password, kind)
    assert isinstance(made, ScramVerifier)
    salt, stored, server = (base64.b64encode(part).decode() for part in (made.salt, made.stored_key, made.server_key))
    return salt, stored, server, made.iterations


def config(*providers: dict[str, Any], groups: dict[str, list[str]] | None = None) -> bytes:
    group_provider = {"name": "groups", "type": "ManagedGroupProvider", "groups": [
        {"name": name, "groupmembers": [{"name": member, "type": "ManagedGroupMember"} for member in members]}
        for name, members in (groups or {}).items()]}
    return json.dumps({"name": "broker", "modelVersion": "9.0", "authenticationproviders": list(providers),
                       "groupproviders": [group_provider]}).encode()


def test_broker_js_configuration() -> None:
    salt, stored, server, iterations = scram_kept("secret")
    users = [{"name": "shop", "type": "managed", "password": f"{salt},,{stored},{server},{iterations}"},
             {"name": "damaged", "password": "abc"}, {"name": "encrypted", "password": "x" * 44}]
    found = read_users(config(
        {"name": "scram", "type": "SCRAM-SHA-256", "users": users},
        {"name": "plain", "type": "Plain", "users": [{"name": "app", "password": "in, clear"}]},
        {"name": "md5", "type": "MD5", "users": [{"name": "old", "password": "Xr4ilOzQ4PCOq3aQ0qbuaQ=="}]},
        {"name": "ldap", "type": "SimpleLDAP"}, groups={"admins": ["shop", "nobody"], "apps": ["app", "shop"]}))
    by_name = {each.name: each for each in found}
    assert set(by_name) == {"shop", "damaged", "encrypted", "app", "old"}
    shop = by_name["shop"]
    assert shop.verifier is not None and shop.verifier.matches(b"secret") and not shop.verifier.matches(b"wrong")
    assert shop.groups == {"admins", "apps"} and by_name["app"].groups == {"apps"}
    assert by_name["app"].password == "in, clear"
    for name in ("damaged", "encrypted"):
        assert by_name[name].problem == "what is kept of its password is damaged, or encrypted"
    assert by_name["old"].problem == "its password is kept as MD5, which is not known here"


def test_older_forms_of_broker_js_scram() -> None:
    salt = bytes(range(32))
    salted = hashlib.pbkdf2_hmac("sha1", b"secret", salt, 4096)
    oldest = ",".join(base64.b64encode(part).decode() for part in (salt, salted))
    found = read_users(config({"type": "SCRAM-SHA-1", "users": [{"name": "a", "password": oldest}]}))
    verifier = found[0].verifier
    assert verifier is not None and verifier.matches(b"secret")
    kept = ",".join([oldest, *(base64.b64encode(key).decode() for key in (verifier.stored_key, verifier.server_key))])
    again = read_users(config({"type": "SCRAM-SHA-1", "users": [{"name": "a", "password": kept}]}))[0].verifier
    assert again is not None and again.text == verifier.text


def test_lines_of_names_and_passwords() -> None:
    text = "# ours\n\nguest:guest\nshop:with:colons \nempty:\n"
    assert passwords(read_users(text.encode())) == {"guest": "guest", "shop": "with:colons ",
                                                    "empty": "it has no password"}


# What is none of these, and what is damaged.


@pytest.mark.parametrize("content, says", [
    (b"\xff\xfe\x00", "neither text nor"), (b"nothing of the kind", "line 1 is not name:password"),
    (b"{", "no JSON"), (b"[" * 100_000, "line 1 is not"), (b"{\"a\":" * 100_000, "no JSON"), (b"{}", "no users"),
    (b"VERSION=3\nformat=print\n", "has no end"), (b"VERSION=3\nHEADER=END\n zz\n 00\n", "neither hexadecimal"),
    (b"VERSION=3\nHEADER=END\n 00\n", "not whole"), (DATABASE[:20] + bytes(100), "damaged, or encrypted"),
    (DATABASE[:24] + b"\1" + DATABASE[25:], "damaged, or encrypted"),
    (DATABASE[:4096 + 20] + b"\xff\xff" + DATABASE[4096 + 22:], "the database is damaged"),
])
def test_what_cannot_be_read_is_said(content: bytes, says: str) -> None:
    with pytest.raises(NotUnderstood, match=says):
        read_users(content)


@given(st.one_of(
    st.binary(max_size=200), st.text(max_size=200).map(str.encode),
    st.lists(st.tuples(st.integers(0, len(DATABASE) - 1), st.integers(0, 255)), max_size=20).map(
        lambda edits: bytes(dict(edits).get(at, byte) for at, byte in enumerate(DATABASE))),
    st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner, max_size=3)
                 | st.dictionaries(st.sampled_from(["authenticationproviders", "users", "type", "name", "password",
                                                    "groupproviders", "groups", "groupmembers"]), inner, max_size=4),
                 max_leaves=20).map(lambda value: json.dumps({"authenticationproviders": value}).encode())))
def test_whatever_is_in_it_nothing_else_is_raised(content: bytes) -> None:
    try:
        assert all(each.name is not None for each in read_users(content))
    except NotUnderstood as error:
        assert str(error)


# The command


def run(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(user_command, list(arguments), input=text)


def test_the_command_takes_users_over_and_says_who_is_left_out(tmp_path: Path) -> None:
    users = tmp_path / "users"
    source = tmp_path / "qpidd.sasldb"
    source.write_bytes(DATABASE)
    result = run("import", str(source), "--file", str(users), "--scheme", "CRAM-MD5", "--scheme", "SCRAM-SHA-256")
    assert result.exit_code == 3
    assert "left out: user 'guest': it is there in several realms" in result.output
    assert "1 of 2 users may log in" in result.output
    assert "alice-secret" not in result.output + users.read_text()
    file = PasswordFile(str(users))
    file.load()
    alice = file.user("alice")
    assert alice is not None and [each.scheme for each in alice.verifiers] == ["CRAM-MD5", "SCRAM-SHA-256"]
    assert all(each.matches(b"alice-secret") for each in alice.verifiers)
    again = run("import", "-", "--file", str(users), text="alice:other\nbob:secret\nno\tname:x\n")
    assert "user 'alice': is here already" in again.output and "1 of 3 users" in again.output
    file.load()
    assert file.names() == ["alice", "bob"] and alice.verifiers[0].text in users.read_text()


def test_the_command_with_broker_js_configuration(tmp_path: Path) -> None:
    salt, stored, server, iterations = scram_kept("secret")
    kept = f"{salt},,{stored},{server},{iterations}"
    (tmp_path / "config.json").write_bytes(config({"type": "SCRAM-SHA-256", "users": [
        {"name": "shop", "password": kept}]}, groups={"admins": ["shop"]}))
    result = run("import", str(tmp_path / "config.json"), "--file", str(tmp_path / "users"))
    assert result.exit_code == 0, result.output
    listed = run("list", "--long", "--file", str(tmp_path / "users"))
    assert listed.output == "shop\tSCRAM-SHA-256\tgroups=admins\n"
    assert run("import", str(tmp_path / "nothing"), "--file", str(tmp_path / "users")).exit_code == 1


def test_a_password_is_asked_for_at_a_terminal_only(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "dragoman", "user", "add", "shop", "--file", str(tmp_path / "users")],
                          cwd=ROOT, input="secret\nsecret\n", text=True, capture_output=True, start_new_session=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Error: there is no terminal to ask for the password at: give it by --password-stdin\n")
    assert "GetPassWarning" not in done.stderr and not (tmp_path / "users").exists()


def test_tags_and_groups_of_a_user_are_set_and_kept(tmp_path: Path) -> None:
    at = ["--file", str(tmp_path / "users")]
    assert run("add", "shop", *at, "--password-stdin", "--scheme", "SCRAM-SHA-256", "--scheme", "CRAM-MD5",
               text="secret\n").exit_code == 0
    assert run("tag", "shop", "monitoring", "management", *at).output == "shop has tags monitoring, management\n"
    assert run("group", "shop", "sales", *at).output == "shop is in group sales\n"
    assert run("passwd", "shop", *at, "--password-stdin", text="other\n").exit_code == 0
    assert run("list", "-l", *at).output == "shop\tSCRAM-SHA-256,CRAM-MD5\ttags=management,monitoring\tgroups=sales\n"
    assert run("tag", "shop", *at).output == "shop has no tag\n"
    assert run("tag", "shop", "a,b", *at).exit_code == 1
    assert run("tag", "nobody", "x", *at).output == "Error: there is no user nobody; `dragoman user add` makes one\n"
    assert run("list", *at).output == "shop\n"
