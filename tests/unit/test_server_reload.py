"""SIGHUP: what a running broker takes from a changed configuration, and what it says of the rest."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pamqp.commands import Connection

from dragoman import testing
from tests.wire import ChannelClosed, Client, ConnectionClosed, Hangup, Peer, eventually

ROOT = Path(__file__).resolve().parents[2]


def place(broker: testing.Broker) -> Peer:
    return Peer(broker.host, broker.port)


def change(broker: testing.Broker, **values: str) -> str:
    """Set keys in the configuration file (wherever they are there), have it read, and give what was logged of it."""
    text = broker.config_path.read_text()
    for key, value in values.items():
        text, found = re.subn(f"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert found, key
    broker.config_path.write_text(text)
    return reload(broker)


def reload(broker: testing.Broker) -> str:
    """Have the configuration read, and give what was logged of it."""
    before = len(broker.log())
    os.kill(broker.pid, signal.SIGHUP)
    return eventually(lambda: broker.log()[before:], lambda log: "reloaded: " in log or "read again" in log)


@pytest.fixture
def clients() -> Iterator[Callable[..., Client]]:
    """Opens connections that are closed at the end."""
    made: list[Client] = []

    def connect(broker: testing.Broker, *login: str) -> Client:
        made.append(Client(place(broker)))
        return made[-1].open(*login)

    yield connect
    for client in made:
        client.close()


Connect = Callable[..., Client]


def test_limits(clients: Connect) -> None:
    with testing.broker() as broker:
        channel = clients(broker).channel()
        queue = channel.temporary()
        assert channel.put("", queue, b"x" * 2000)
        assert "configuration read again\n" in change(broker, message_size="1000", connections="2")
        assert channel.put("", queue, b"x" * 1000)
        with pytest.raises(ChannelClosed) as refused:
            channel.publish("", queue, b"x" * 1001)
            channel.next()
        assert (refused.value.code, refused.value.text) == (
            406, "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000")
        clients(broker)
        with pytest.raises(Hangup):
            clients(broker)
        change(broker, connections="3")
        clients(broker)
        change(broker, connections_per_user="3", connections="9")
        with pytest.raises(ConnectionClosed) as full:
            clients(broker)
        assert (full.value.code, "user connection limit (3) is reached" in full.value.text) == (530, True)


def test_the_memory_limit_holds_publishers_at_once(clients: Connect) -> None:
    with testing.broker() as broker:
        client = clients(broker)
        channel = client.channel()
        queue = channel.temporary()
        assert channel.put("", queue, b"x" * 100_000)
        assert "publishers are held: messages in memory take" in change(broker, memory='"10 kB"')
        client.expect(Connection.Blocked)
        change(broker, memory="0")
        client.expect(Connection.Unblocked)
        eventually(lambda: "publishers may go on" in broker.log())


def test_users(tmp_path: Path, clients: Connect) -> None:
    def user(*arguments: str, given: str = "") -> None:
        subprocess.run([sys.executable, "-m", "dragoman", "user", *arguments, "--file", str(tmp_path / "users")],
                       input=given, text=True, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)

    user("add", "shop", "--password-stdin", given="one\n")
    with testing.broker(f'[authentication]\nusers_file = "{tmp_path}/users"') as broker:
        staying = clients(broker, "shop", "one")
        with pytest.raises(ConnectionClosed):
            clients(broker, "shop", "two")
        user("passwd", "shop", "--password-stdin", given="two\n")
        user("add", "till", "--password-stdin", given="three\n")
        reload(broker)
        clients(broker, "shop", "two").drop()
        clients(broker, "till", "three")
        staying.channel().temporary()
        with pytest.raises(ConnectionClosed) as refused:
            clients(broker, "shop", "one")
        assert refused.value.code == 403
        user("remove", "shop")
        change(broker, guest="false")
        with pytest.raises(ConnectionClosed, match="user 'shop' is deleted"):
            staying.next()
        for name, password in (("shop", "two"), ("guest", "guest")):
            with pytest.raises(ConnectionClosed):
                clients(broker, name, password)
        (tmp_path / "users").write_text("till\n")
        assert f"not reloaded: {broker.config_path}: authentication.users_file: {tmp_path}/users:1: " in reload(broker)
        clients(broker, "till", "three").channel().temporary()


def test_log_level_and_format(clients: Connect) -> None:
    with testing.broker('[log]\nlevel = "warning"') as broker:
        assert broker.log() == ""
        before = len(change(broker, level='"info"', format='"json"'))
        clients(broker)
        lines = [json.loads(line) for line in broker.log()[before:].splitlines()]
        assert any("user guest opened vhost /" in line["message"] for line in lines)


def test_what_needs_a_restart_is_named_and_stays_as_it_was(tmp_path: Path, clients: Connect) -> None:
    with testing.broker("shutdown_seconds = 1", store=tmp_path / "data") as broker:
        client = clients(broker)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            other = free.getsockname()[1]
        said = change(broker, port=str(other), path=f'"{tmp_path}/b"', virtual_hosts='["/", "shop"]', heartbeat="30",
                      disk_free='"900 TiB"')
        waiting = "these wait for a restart: listeners, virtual_hosts, store.path, amqp091.heartbeat, " \
                  "amqp010.heartbeat\n"
        assert f"configuration read again; {waiting}" in said
        client.expect(Connection.Blocked)  # the disk of the store that is in use is still watched
        assert waiting in change(broker, disk_free="0")  # and again, until it is done
        client.expect(Connection.Unblocked)
        assert clients(broker).tune.heartbeat == 60
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", other))
        with pytest.raises(ConnectionClosed) as refused:
            clients(broker, "guest", "guest", "shop")
        assert refused.value.code == 530
        assert "unexpected" not in broker.log()
        broker.restart()
        assert broker.port == other
        assert clients(broker).tune.heartbeat == 30
        clients(broker, "guest", "guest", "shop")
        assert (tmp_path / "b").is_dir()


def test_a_listener_may_cease_to_be_anonymous() -> None:
    with testing.broker("[[listeners]]\nanonymous = true") as broker:
        def offered() -> list[str]:
            client = Client(place(broker))
            client.write(b"AMQP\x00\x00\x09\x01")
            start = client.expect(Connection.Start)
            client.drop()
            return str(start.mechanisms).split()
        assert "ANONYMOUS" in offered()
        assert "restart" not in change(broker, anonymous="false")
        assert "ANONYMOUS" not in offered()


@pytest.mark.parametrize(("wrong", "says"), [
    ("nonsense", "is not TOML: "),
    ("[limits]\nconections = 1\n[log]\nlevel = 'debug'", "limits.conections is not a key; did you mean"),
    ("[log]\nfile = 'none/there.log'", "No such file or directory"),
    (None, "cannot be read: No such file or directory"),
])
def test_a_wrong_file_changes_nothing(wrong: str | None, says: str, clients: Connect) -> None:
    with testing.broker("[limits]\nconnections_per_user = 1") as broker:
        right = broker.config_path.read_text()
        broker.config_path.write_text(wrong) if wrong is not None else broker.config_path.unlink()
        said = reload(broker)
        assert "not reloaded: " in said and says in said and "read again" not in said and said.count("\n") == 1
        clients(broker)
        with pytest.raises(ConnectionClosed):
            clients(broker)
        broker.config_path.write_text(right)
        assert "configuration read again\n" in reload(broker)
