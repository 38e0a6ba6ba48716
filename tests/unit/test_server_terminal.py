"""What a person sees of `dragoman serve`: the first lines at a terminal, JSON elsewhere, and errors in one line."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dragoman import testing

ROOT = Path(__file__).resolve().parents[2]
WAIT = 60.0
MEMORY = '[store]\nkind = "memory"\n'


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "d.toml"
    path.write_text(text)
    return str(path)


def serve(tmp_path: Path, text: str, *before: str) -> tuple[int, list[str]]:
    """Run a broker that will not start: its exit code and what it said. `before`: a command to run it with."""
    command = [*before, sys.executable, "-m", "dragoman", "serve", "--config", written(tmp_path, text)]
    done = subprocess.run(command, cwd=ROOT, text=True, timeout=WAIT, stderr=subprocess.PIPE)
    return done.returncode, done.stderr.splitlines()


def at_terminal(config: str, last: str) -> str:
    """What a broker prints at a terminal until it has said `last`."""
    ours, its = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "dragoman", "serve", "--config", config], cwd=ROOT, stdin=its,
                               stdout=its, stderr=its)
    os.close(its)
    shown = ""
    try:
        while last not in shown:
            shown += os.read(ours, 4096).decode()
        process.send_signal(signal.SIGTERM)
        while "stopped\r\n" not in shown:
            shown += os.read(ours, 4096).decode()
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.replace("\r\n", "\n")


def test_the_first_lines_at_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("")
    subprocess.run([sys.executable, "-m", "dragoman", "user", "add", "shop", "-f", str(tmp_path / "users"),
                    "--password-stdin"], input=b"x\n", cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    shown = at_terminal(written(tmp_path, f"""
        [[listeners]]
        port = 0
        [[listeners]]
        port = 0
        host = "::1"
        anonymous = true
        [store]
        path = "kept"
        [authentication]
        users_file = "{tmp_path}/users"
        """), "Hello, world'")
    lines = [re.sub(r"^\S+ \S+ info {5}", "", line) for line in shown.splitlines()]
    assert re.fullmatch(r"dragoman [\d.]+ \((compiled|plain Python), Python 3\.[\d.]+\)", lines[0])
    first = re.fullmatch(r"listening on (amqp://127\.0\.0\.1:\d+)", lines[1])
    assert first and re.fullmatch(r"listening on amqp://\[::1\]:\d+", lines[2])
    assert lines[3:7] == [
        f"messages are kept in {tmp_path}/kept",
        f"may log in: guest with password guest (from this machine only), 1 user of {tmp_path}/users, anybody, without "
        "a name, where a listener says anonymous",
        "may do: everything, to whoever has logged in: there are no access rules",
        f"to try it: dragoman send --declare {first[1]} hello 'Hello, world'"]
    assert lines[7:] == ["SIGTERM: stopping; once more stops at once", "stopped"]


def test_the_line_to_try_works(tmp_path: Path) -> None:
    with testing.broker() as broker:
        command = broker.log().partition("to try it: ")[2].partition("\n")[0]
        assert command.startswith("dragoman send ")
        done = subprocess.run(f"{sys.executable} -m {command}", shell=True, cwd=ROOT, text=True, capture_output=True)
        assert (done.returncode, done.stderr[:15]) == (0, "sent 1 message ")
        done = subprocess.run([sys.executable, "-m", "dragoman", "receive", broker.url, "hello", "-n", "1"], cwd=ROOT,
                              text=True, capture_output=True, timeout=WAIT)
        assert done.stdout == "Hello, world\n"


@pytest.mark.parametrize("pure", ["0", "1"])
def test_plain_python_is_said_once(pure: str) -> None:
    with testing.broker(env={"DRAGOMAN_PURE": pure}) as broker:
        compiled = "(compiled, Python" in broker.log()
        assert broker.log().count("plain Python") == (0 if compiled else 1)
        assert not (compiled and pure == "1")


def test_elsewhere_it_is_json() -> None:
    with testing.broker('[log]\nformat = "auto"') as broker:
        broker.stop()
        lines = [json.loads(line) for line in broker.log().splitlines()]
        assert [line["level"] for line in lines] == ["info"] * len(lines)
        assert lines[1]["message"] == f"listening on {broker.urls[0]}" and lines[-1]["message"] == "stopped"


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, lines = serve(tmp_path, f"[[listeners]]\nport = {port}\n{MEMORY}")
    assert (code, len(lines)) == (75, 2)
    assert json.loads(lines[1])["message"] == f"cannot start: 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize(("text", "code", "says"), [
    ('[[listeners]]\nhost = "192.0.2.1"\n', 78, "cannot start: 192.0.2.1:5672: Cannot assign requested address"),
    ('[[listeners]]\nhost = "no.such.host.invalid"\n', 78, "cannot start: no.such.host.invalid: "),
    ('[store]\npath = "d.toml"\n', 1, "d.toml cannot be made: "),
    ('[store]\npath = "d.toml/data"\n', 1, "d.toml/data cannot be made: Not a directory"),
])
def test_what_stands_in_the_way_is_one_line(tmp_path: Path, text: str, code: int, says: str) -> None:
    found, lines = serve(tmp_path, text + ("" if "store" in text else MEMORY))
    assert (found, len(lines)) == (code, 2)
    assert says in json.loads(lines[1])["message"]


def test_a_store_that_may_not_be_written(tmp_path: Path) -> None:
    as_anybody = [] if os.geteuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if as_anybody and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere, and there is no setpriv to change that")
    (tmp_path / "locked").mkdir(mode=0o555)
    code, lines = serve(tmp_path, '[[listeners]]\nport = 0\n[store]\npath = "locked/data"\n', *as_anybody)
    assert (code, len(lines)) == (1, 2)
    assert json.loads(lines[1])["message"].endswith("locked/data cannot be made: Permission denied")


@pytest.mark.parametrize(("text", "says"), [
    ("x = [", ["is not TOML: "]),
    ("[limits]\nconections = 1\nmemory = true", ["limits.conections is not a key; did you mean limits.connections?",
                                                 "limits.memory is True; it must be a number of bytes"]),
    ("[[listeners]]\nport = '5672'", ["listeners[0].port is '5672'; it must be a whole number"]),
    ("[authentication]\nusers_file = 'none'", ["none: there is no such password file: create it"]),
    ("[log]\nfile = '.'", ["cannot be opened: Is a directory"]),
])
def test_a_configuration_that_cannot_be_used(tmp_path: Path, text: str, says: list[str]) -> None:
    code, lines = serve(tmp_path, text)
    assert (code, len(lines)) == (78, len(says))
    assert all(part in line for part, line in zip(says, lines, strict=True))


def test_config_check(tmp_path: Path) -> None:
    def check(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "dragoman", "config", "check", *arguments], cwd=ROOT, text=True,
                              capture_output=True)
        return done.returncode, done.stdout + done.stderr

    right, wrong = written(tmp_path, MEMORY), str(tmp_path / "wrong.toml")
    (tmp_path / "wrong.toml").write_text("[stroe]\n")
    assert check() == (0, "the built-in configuration: no problems\n")
    assert check(right) == check("--config", right) == (0, f"{right}: no problems\n")
    assert check(wrong) == check("-c", wrong) == (78, f"{wrong}: stroe is not a key; did you mean store?\n")


def test_every_command_has_its_help() -> None:
    """Each says what it does in a line that is not cut off in the list of commands."""
    from click.testing import CliRunner

    from dragoman.cli import dragoman

    def walk(*path: str) -> list[str]:
        done = CliRunner().invoke(dragoman, [*path, "--help"], terminal_width=80)
        assert (done.exit_code, "..." in done.output.partition("Commands:")[2]) == (0, False), done.output
        names = [line.split()[0] for line in done.output.partition("Commands:\n")[2].splitlines()]
        return [" ".join(path), *(found for name in names for found in walk(*path, name))]

    assert set(walk()) >= {"serve", "config show", "config check", "send", "receive", "store check", "store compact",
                           "store export", "store import", "user add", "user passwd", "user import",
                           "user tag", "user group", "user remove", "user list"}
