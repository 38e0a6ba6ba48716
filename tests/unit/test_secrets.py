"""Secrets stay secret: canaries wherever one can be put, all that can go wrong with them, and nothing of them in logs,
answers, the store or the process list."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pika
import pytest

from dragoman import testing
from dragoman.config import ConfigError, gateway_part
from tests.wire import Client, Hangup, Peer, eventually
from tests.wire010 import Client010
from tests.wire10 import Client10
from tests.wire_mqtt import MqttClient

CANARIES = {name: f"canary-{name}-{number:04x}-sings" for number, name in enumerate((
    "user", "wrong", "token", "link-file", "link-env", "link-url", "ldap", "oauth", "command", "message"))}


def forms(secret: str) -> list[bytes]:
    """As it is, and as others write it."""
    data = secret.encode()
    return [data, data.hex().encode(), *(base64.b64encode(bytes(shift) + data)[(4 * shift + 2) // 3:][:20]
                                         for shift in range(3))]


def leaks(data: bytes, *allowed: str) -> list[str]:
    return [name for name, secret in CANARIES.items() if name not in allowed
            and any(form in data for form in forms(secret))]


def dragoman(*arguments: str, given: str = "", **environment: str) -> bytes:
    """All that a command prints."""
    done = subprocess.run([sys.executable, "-m", "dragoman", *arguments], input=given.encode(), capture_output=True,
                          env={**os.environ, **environment}, timeout=60)
    return done.stdout + done.stderr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("link-file", "ldap", "oauth"):
        (tmp_path / name).write_text(CANARIES[name] + "\n")
        (tmp_path / name).chmod(0o600)
    dragoman("user", "add", "--file", str(tmp_path / "users"), "shop", "--password-stdin", given=CANARIES["user"])
    return tmp_path


def config(folder: Path) -> str:
    return f"""
[log]
level = "debug"
[authentication]
users_file = "{folder}/users"
mechanisms = ["PLAIN", "AMQPLAIN", "XOAUTH2", "OAUTHBEARER"]
[gateway]
files = "{folder}"
[[providers]]
name = "directory"
kind = "ldap"
servers = ["ldap://127.0.0.1:1"]
start_tls = false
base = "dc=example"
bind_dn = "cn=us"
bind_password_file = "{folder}/ldap"
[[providers]]
name = "tokens"
kind = "oauth2"
issuer = "https://issuer.example"
audience = ["us"]
introspection_url = "https://127.0.0.1:1/introspect"
client_id = "us"
client_secret_file = "{folder}/oauth"
[[link]]
name = "by-file"
url = "amqp://127.0.0.1:1"
user = "shop"
password_file = "{folder}/link-file"
[[link]]
name = "by-env"
url = "amqp://127.0.0.1:1"
user = "shop"
password_env = "DRAGOMAN_LINK_PASSWORD"
"""


def log_in_badly(broker: testing.Broker) -> None:
    """Each dialect, each mechanism, with what is right here and there, and what is not."""
    peer = Peer(broker.host, broker.port)
    for user in ("shop", "nobody", "guest"):
        for secret in ("wrong", "user"):
            client = Client(peer)
            with contextlib.suppress(Exception):
                client.open(user, CANARIES[secret])
            client.drop()
    from pamqp.commands import Connection
    for mechanism, response in (
            ("XOAUTH2", f"user=shop\1auth=Bearer {CANARIES['token']}\1\1"), ("AMQPLAIN", CANARIES["wrong"]),
            ("OAUTHBEARER", f"n,a=shop,\1auth=Bearer {CANARIES['token']}\1\1"), ("PLAIN", CANARIES["wrong"])):
        client = Client(peer)
        with contextlib.suppress(Hangup, Exception):
            client.write(b"AMQP\0\0\x09\1")
            client.expect(Connection.Start)
            client.send(0, Connection.StartOk({}, mechanism, response, "en_US"))
            client.rest()
        client.drop()
    for level in (4, 5):
        device = MqttClient(peer, level)
        device.write(device.connect_packet("device", user="shop", password=CANARIES["wrong"]))
        with contextlib.suppress(Hangup):
            device.read()
        device.drop()
    with contextlib.suppress(Exception):
        Client10(peer.host, peer.port, user="shop", password=CANARIES["wrong"])
    with contextlib.suppress(Exception):
        Client010(peer.host, peer.port, user="shop", password=CANARIES["wrong"])


def use_gateway(broker: testing.Broker, url: str) -> bytes:
    """Links made and looked at, and one whose URL has a password, which is refused."""
    there = f"amqp://shop:{CANARIES['link-url']}@127.0.0.1:1/"
    output = dragoman("gateway", "add-link", "--url", url, "third", there)
    output += dragoman("gateway", "add-link", "--url", url, "fourth", "amqp://127.0.0.1:1", "-s", "user=shop", "-s",
                       "password_env=DRAGOMAN_LINK_PASSWORD")
    output += dragoman("gateway", "status", "--url", url)
    return output + dragoman("stat", "general", "--url", url)


@pytest.mark.slow
def test_no_secret_is_told(files: Path) -> None:
    environment = {"DRAGOMAN_LINK_PASSWORD": CANARIES["link-env"]}
    store = files / "store"
    with testing.broker(config(files), store=store, env=environment) as broker:
        url = f"amqp://guest:guest@{broker.host}:{broker.port}/"
        log_in_badly(broker)
        output = use_gateway(broker, url)
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:  # somebody whose login is right
            connection.channel().queue_declare("q")
        output += dragoman("config", "show", "--config", str(broker.config_path), **environment)
        output += dragoman("config", "check", "--config", str(broker.config_path), **environment)
        output += dragoman("send", f"amqp://shop:{CANARIES['command']}@127.0.0.1:1/", "q", "body")
        output += dragoman("send", f"amqp://shop:{CANARIES['command']}/x@127.0.0.1:port/", "q", "body")
        eventually(lambda: "by-env" in broker.log() and "by-file" in broker.log())
        broker.config_path.write_text(broker.config_path.read_text() + f'\n[[link]]\nname = "fifth"\nurl = '
                                      f'"amqp://u:{CANARIES["link-url"]}@h"\n')
        os.kill(broker.pid, signal.SIGHUP)
        eventually(lambda: "has a password in it" in broker.log())
        output += dragoman("config", "check", "--config", str(broker.config_path), **environment)
        assert not leaks(Path(f"/proc/{broker.pid}/cmdline").read_bytes())
        output += broker.log().encode()
        assert broker.stop() == 0
        output += broker.log().encode()
    assert b"refused" in output and b"Traceback" not in output
    assert not leaks(output)
    assert not leaks(b"".join(path.read_bytes() for path in store.iterdir())), "the store has it"


def test_a_password_on_a_command_line_is_hidden() -> None:
    with testing.broker() as broker:
        secret = CANARIES["command"]
        process = subprocess.Popen([sys.executable, "-m", "dragoman", "receive",
                                    f"amqp://guest:{secret}@{broker.host}:{broker.port}/", "q"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})
        try:
            line = Path(f"/proc/{process.pid}/cmdline")
            end = time.monotonic() + 20
            seen: list[Any] = []
            while process.poll() is None and time.monotonic() < end and b":xxxxx" not in b"".join(seen[-1:]):
                with contextlib.suppress(OSError):
                    seen.append(line.read_bytes())
            assert any(b"guest:" + b"x" * len(secret) + b"@" in each for each in seen)
        finally:
            process.kill()
            process.communicate()


def test_files_are_their_owners(tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "broker.log"
    with testing.broker(f'[log]\nfile = "{log}"', store=store) as broker:
        assert broker.pid and store.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o077 for path in store.iterdir()} == {0}
        assert log.stat().st_mode & 0o007 == 0
        assert resource.prlimit(broker.pid, resource.RLIMIT_CORE)[0] == 0
        broker.stop()
        exported = tmp_path / "exported"
        dragoman("store", "export", "--path", str(store), str(exported))
        assert exported.stat().st_mode & 0o777 == 0o600


def test_files_that_others_may_read_are_named(tmp_path: Path) -> None:
    users = tmp_path / "users"
    dragoman("user", "add", "--file", str(users), "shop", "--password-stdin", given="x")
    assert users.stat().st_mode & 0o777 == 0o600
    users.chmod(0o644)
    with testing.broker(f'[authentication]\nusers_file = "{users}"') as broker:
        eventually(lambda: f"{users} has mode 0644" in broker.log())
        assert f"chmod 640 {users}" in broker.log()


@pytest.mark.parametrize(("key", "value", "allowed"), [
    ("password_file", "/etc/shadow", False), ("password_file", "{folder}/../outside", False),
    ("password_file", "{folder}/password", True), ("certificate", "/etc/ssl/private/key.pem", False),
    ("password_env", "HOME", False), ("password_env", "DRAGOMAN_LINK_X", True)])
def test_links_of_others_name_no_files_of_ours(tmp_path: Path, key: str, value: str, allowed: bool) -> None:
    """Who makes a link through management has the broker read what is meant for links, and nothing else."""
    table = {"name": "l", "url": "amqp://h", "user": "u", key: value.replace("{folder}", str(tmp_path))}
    if allowed:
        gateway_part("link", table, str(tmp_path))
    else:
        with pytest.raises(ConfigError, match="must be"):
            gateway_part("link", table, str(tmp_path))
