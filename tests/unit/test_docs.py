"""What the documentation says to do is done here.

Of the fenced blocks, `sh` is run, `python` and `toml` are written to the file that their first line names, and every
`toml` block is a configuration without mistakes. `console` is for what needs another machine or root, and is not run.
Ports and hosts are replaced by those of this run.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pika
import pytest

from dragoman import testing
from dragoman.config import parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WAIT = 60.0
KINDS = {"sh", "console", "python", "toml", "ini", "text"}


def blocks(page: str) -> list[tuple[str, str]]:
    """The kinds and contents of a page's fenced blocks."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who does what a page says, in a folder, with a shell."""

    def __init__(self, folder: Path, replacing: dict[str, str], **env: str) -> None:
        self.folder = folder
        self.replacing = replacing
        programs = folder / "bin"
        programs.mkdir()
        for name, module in (("dragoman", "-m dragoman "), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
            (programs / name).chmod(0o755)
        self.env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **env}
        self.broker: subprocess.Popen[bytes] | None = None
        self.printed = ""

    def follow(self, page: str) -> None:
        for kind, text in blocks(page):
            for old, new in self.replacing.items():
                text = text.replace(old, new)
            named = re.match(r"# (\S+\.(?:py|toml))\n", text)
            if named and kind in ("python", "toml"):
                (self.folder / named[1]).write_text(text)
            elif kind == "sh":
                before, serve, arguments = text.partition("dragoman serve")
                self.run(before)
                if serve:
                    self.serve(arguments.split())

    def run(self, script: str) -> None:
        if "dragoman store" in script:
            self.stop()
        done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], cwd=self.folder, env=self.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT)
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        self.printed += done.stdout

    def serve(self, arguments: list[str]) -> None:
        """Start a broker, in place of the last one, and wait until it is ready."""
        self.stop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            path = self.folder / f"ready{len(list(self.folder.glob('ready*')))}"
            ready.bind(str(path))
            ready.settimeout(WAIT)
            with open(self.folder / "log", "ab") as log:
                self.broker = subprocess.Popen([sys.executable, "-m", "dragoman", "serve", *arguments], stderr=log,
                                               cwd=self.folder, env={**self.env, "NOTIFY_SOCKET": str(path)})
            assert b"READY=1" in ready.recv(65536)

    def stop(self) -> None:
        if self.broker is not None:
            self.broker.send_signal(signal.SIGTERM)
            assert self.broker.wait(WAIT) == 0
            self.broker = None


@contextmanager
def reader(folder: Path, replacing: dict[str, str], **env: str) -> Iterator[Reader]:
    made = Reader(folder, replacing, **env)
    try:
        yield made
        made.stop()
    finally:
        if made.broker is not None:
            made.broker.kill()
            made.broker.wait()


def free_ports() -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        return [str(each.getsockname()[1]) for each in sockets]


def test_getting_started(tmp_path: Path) -> None:
    both, tls_only = free_ports()
    (tmp_path / "default.toml").write_text(f"[[listeners]]\nport = {both}\n")  # what holds without a file, but the port
    listeners = f'[[listeners]]\nport = {both}\n[[listeners]]\nport = {tls_only}\ntls = "always"\n'
    replacing = {"5672": both, "5671": tls_only, "0.0.0.0": "127.0.0.1", "# tls.toml\n": f"# tls.toml\n{listeners}"}
    with reader(tmp_path, replacing, DRAGOMAN_CONFIG=str(tmp_path / "default.toml"),
                DRAGOMAN_URL=f"amqp://guest:guest@127.0.0.1:{both}/") as user:
        user.follow("docs/getting-started.md")
    for expected in ("dragoman 0.", "\nHello, world\n", "received 1000 messages, 100000 bytes", "write the report",
                     "by AMQP 1.0", "shop may log in\nshop\n", "no problems\n", "from the shop", "in secret",
                     "dragoman-data: 0 messages"):
        assert expected in user.printed
    assert (tmp_path / "dragoman-data").is_dir()


def test_tls(tmp_path: Path) -> None:
    plain, tls = free_ports()
    ports = f"| sed 's/ 5672/ {plain}/; s/ 5671/ {tls}/' > trial.toml"
    with reader(tmp_path, {"5671": tls, "> trial.toml": ports}) as user:
        user.follow("docs/tls.md")
    assert "with a password\nwith a certificate\n" in user.printed
    assert user.printed.count("clients have to trust CN=Dragoman trial on ") == 2


def test_running(tmp_path: Path) -> None:
    with testing.broker(store=tmp_path / "data") as broker, \
            pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        channel.basic_publish("", "q", b"kept", pika.BasicProperties(delivery_mode=2))
    with reader(tmp_path, {}) as user:
        user.follow("docs/running.md")
    assert user.printed.count("1 messages in 1 queues") == user.printed.count("no problems") == 2


def test_management(tmp_path: Path) -> None:
    with testing.broker() as broker, reader(tmp_path, {}, DRAGOMAN_URL=broker.url) as user:
        user.follow("docs/management.md")
        user.run("dragoman queue add orders; dragoman send orders one two; python depth.py " + broker.url)
    assert '"msgTotalEnqueues": 1,' in user.printed
    assert re.search(r"^orders +yes +1 +11 ", user.printed, re.MULTILINE) and "\norders 2\n" in user.printed


def test_retained_messages(tmp_path: Path) -> None:
    with testing.broker() as broker, reader(tmp_path, {}, DRAGOMAN_URL=broker.url) as user:
        user.follow("docs/retained-messages.md")
    assert "house.kitchen b'21.5'" in user.printed and "20.5" not in user.printed


def test_mqtt(tmp_path: Path) -> None:
    amqp, mqtt = free_ports()
    with reader(tmp_path, {"5672": amqp, "1883": mqtt},
                DRAGOMAN_URL=f"amqp://guest:guest@127.0.0.1:{amqp}/") as user:
        user.follow("docs/mqtt.md")
    assert "plant.hall.temperature 21.5 from sensor-7\n" in user.printed


def test_client_of_0_10(tmp_path: Path) -> None:
    with testing.broker() as broker, reader(tmp_path, {}, DRAGOMAN_URL=broker.url) as user:
        user.follow("docs/client-0-10.md")
    assert user.printed == ("None {} some text\nNone {} {'number': 1, 'parts': [2.5, b'bytes']}\n"
                            "report {'colour': 'red'} b'bytes'\nno more jobs\nmany and back\nthe answer is forty-two\n")


def test_migrating(tmp_path: Path) -> None:
    with testing.broker() as old, testing.broker() as new, contextlib.ExitStack() as stack:
        channels = []
        for broker in (old, new):
            connection = stack.enter_context(pika.BlockingConnection(pika.URLParameters(broker.url)))
            channels.append(connection.channel())
        for queue in ("orders", "lines"):
            channels[0].queue_declare(queue, durable=True)
        sent = pika.BasicProperties(delivery_mode=2, priority=3, headers={"a": [1, {"b": "c"}]}, message_id="m")
        for body in (b"one", b"", bytes(range(256)) * 1000):
            channels[0].basic_publish("", "orders", body, sent)
        channels[0].basic_publish("", "lines", b"a line")
        with reader(tmp_path, {"rabbit.example": f"127.0.0.1:{old.port}", "dragoman.example": f"127.0.0.1:{new.port}"}
                    ) as user:
            user.follow("docs/migrating-from-rabbitmq.md")
        assert "orders: 3 messages moved" in user.printed
        for body in (b"one", b"", bytes(range(256)) * 1000):
            _, properties, got = channels[1].basic_get("orders", auto_ack=True)
            assert (got, properties) == (body, sent)
        assert channels[1].basic_get("lines", auto_ack=True)[2] == b"a line"
        assert [channels[0].queue_declare(queue, passive=True).method.message_count for queue in ("orders", "lines")
                ] == [0, 0]


def test_migrating_from_qpid(tmp_path: Path) -> None:
    with testing.broker() as old, testing.broker() as new:
        with pika.BlockingConnection(pika.URLParameters(old.url)) as connection:
            connection.channel().queue_declare("invoices", durable=True)
        with reader(tmp_path, {"@qpid.example": f"@127.0.0.1:{old.port}"}, DRAGOMAN_URL=new.url) as user:
            user.follow("docs/migrating-from-qpid.md")
        assert user.printed.count("1 queues") == 2 and user.printed.count("; 0 left out") == 2
        with pika.BlockingConnection(pika.URLParameters(new.url)) as connection:
            channel = connection.channel()
            channel.queue_declare("invoices", durable=True)
            channel.basic_publish("events", "order.new", b"")
            assert channel.basic_get("orders", auto_ack=True)[0] is not None


def test_testing(tmp_path: Path) -> None:
    with reader(tmp_path, {}) as user:
        user.follow("docs/testing.md")
        files = sorted(path.name for path in tmp_path.glob("test_*.py"))
        user.run(f"python -m pytest -q -p no:cacheprovider --rootdir . {' '.join(files)}")
    assert f"{len(files)} passed" in user.printed and len(files) == 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_and_links(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for kind, block in blocks(str(page)):
        assert kind in KINDS
        if kind == "toml":
            parse(block)
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith(("|", "dragoman"))
            and "`[[listeners]]`" not in line and "One section for each" not in line] == []
    for command in re.findall(r"`dragoman (\w+(?: \w+)?)", text):
        assert command.split()[0] in ("serve", "config", "send", "receive", "store", "user", "queue", "exchange",
                                          "binding", "connection", "stat", "events", "import", "export", "gateway",
                                      "permission", "acl"), command


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme] == []
