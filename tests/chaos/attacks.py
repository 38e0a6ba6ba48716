"""Attackers: `python -m tests.chaos.attacks NAME HOST PORT` goes on until its input ends. `Attack` starts one.

They come from 127.0.0.2, log in as guest where they have to, come back when they are thrown out, and say when they have
begun and when a round is over. Each is a function of ATTACKS that plays one round; how a round ends does not matter.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from proton import symbol, ubyte, uint

from protocols.amqp010.frames import encode as encode010
from protocols.amqp091.frames import BODY, HEADER, V091, frame
from protocols.maps010 import write_map
from protocols.values10 import encode as encode10
from tests.wire import HEADER as HEADER091
from tests.wire import Client, Peer
from tests.wire010 import Client010
from tests.wire10 import RECEIVER, SENDER, Client10, encode, message, state
from tests.wire_mqtt import MqttClient, packet, string, varint

HOME = Path(__file__).resolve().parents[2]
SOURCE = "127.0.0.2"
DEEP = 5000
"""Levels of nesting."""
SILENT = 20_000
"""Half-open connections, if this process may have so many files."""


class Attack:
    """An attacker in a process of its own, with what the CPU has left."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self._process = subprocess.Popen(
            ["nice", "-n", "19", sys.executable, "-m", "tests.chaos.attacks", name, host, str(port)], cwd=HOME,
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "begun\n":
            self._process.kill()
            raise AssertionError(f"attack {name} fails: {self._process.communicate()[1]}")

    def round(self) -> None:
        """Wait until the attacker has done all that it does, once."""
        assert self._process.stdout is not None and self._process.stdout.readline() == "round\n"

    def __enter__(self) -> Attack:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def blast(client: socket.socket, data: bytes) -> None:
    """Send this again and again, and throw away what comes. Returns when the other side has hung up."""
    client.setblocking(False)
    at = 0
    while True:
        readable, writable, _ = select.select([client], [client], [], 1)
        try:
            if readable and not client.recv(1 << 16):
                return
            if writable:
                at = (at + client.send(data[at:])) % len(data)
        except BlockingIOError:
            pass


def frames10(body: bytes, count: int = 1000) -> bytes:
    return ((len(body) + 8).to_bytes(4, "big") + b"\2\0\0\0" + body) * count


# Floods of what is small.


def heartbeats(peer: Peer) -> None:
    blast(Client(peer).open().socket, frame(8, 0, b"") * 8000)


def acknowledgements(peer: Peer) -> None:
    """Of nothing: multiple, up to the last delivery, of which there is none."""
    client = Client(peer).open()
    channel = client.channel()
    blast(client.socket, V091.encode("basic.ack", channel.number, delivery_tag=0, multiple=True) * 4000)


def empty_frames(peer: Peer) -> None:
    blast(Client10(*peer, "attacker").socket, frames10(b"", 8000))


def flows(peer: Peer) -> None:
    client = Client10(*peer, "attacker")
    client.attach("out", RECEIVER, "amq.fanout")
    flow = encode(state(0x13, uint(0), uint(1000), uint(0), uint(1000), uint(0), uint(0), uint(10), None, False, True))
    blast(client.socket, frames10(flow))


def transfers(peer: Peer) -> None:
    """Transfers without content, settled, to nowhere, beyond all credit."""
    client = Client10(*peer, "attacker")
    client.attach("in", SENDER, "amq.fanout")
    blast(client.socket, b"".join(frames10(encode(state(
        0x14, uint(0), uint(number), b"t", uint(0), True, False)) + message(b""), 1) for number in range(2000)))


def pings(peer: Peer) -> None:
    client = MqttClient(peer)
    client.connect("attacker")
    blast(client.socket, b"\xc0\0" * 30_000)


def subscriptions(peer: Peer) -> None:
    client = MqttClient(peer)
    client.connect("attacker")
    blast(client.socket, b"".join(
        packet(0x82, b"\0\1", string(f"a/{number}/#"), b"\1") + packet(0xA2, b"\0\1", string(f"a/{number}/#"))
        for number in range(2000)))


def publishes(peer: Peer) -> None:
    client = Client(peer).open()
    channel = client.channel()
    blast(client.socket, (V091.encode("basic.publish", channel.number, exchange="amq.fanout")
                          + frame(HEADER, channel.number, b"\0\x3c" + bytes(12))) * 1000)


def flushes(peer: Peer) -> None:
    client = Client010(*peer, name=os.urandom(8))
    client.command("execution.sync")
    blast(client.socket, encode010("session.flush", 0, 65535, completed=True, expected=True, confirmed=True) * 3000)


def errors(peer: Peer) -> None:
    """Channels that are opened to be closed by the broker."""
    client = Client(peer).open()
    blast(client.socket, b"".join(
        V091.encode("channel.open", number) + V091.encode("queue.declare", number, queue="nowhere", passive=True)
        + V091.encode("channel.close-ok", number) for number in range(1, 1000)))


def logins(peer: Peer) -> None:
    """Wrong passwords, as many as go."""
    for _ in range(100):
        with contextlib.suppress(Exception):
            Client(peer).open(password="wrong")


# Bombs.


def nesting(peer: Peer) -> None:
    """Tables, arrays, lists, maps, described types, as deep as a frame goes."""
    table = b""
    for _ in range(2000):
        table = b"\1nF" + len(table).to_bytes(4, "big") + table
    array = b""
    for _ in range(DEEP):
        array = b"A" + len(array).to_bytes(4, "big") + array
    declared = b"\0\x32\0\x0a" + b"\0\0\1q\0"
    for arguments in (table, b"\1n" + array):
        _once(lambda: Client(peer).open(), lambda client, arguments=arguments: client.write(
            V091.encode("channel.open", 1) + frame(1, 1, declared + len(arguments).to_bytes(4, "big") + arguments)))
    described = b"\0" * DEEP + b"\x53\x75" + b"\x45" * DEEP
    lists = b"\xd0" + b"".join((8 * (DEEP - number)).to_bytes(4, "big") + b"\0\0\0\1\xd0" for number in range(DEEP))
    for body in (described, b"\0\x53\x12\xd0" + lists, b"\0\x53\x10" + lists):
        _once(lambda: Client10(*peer, "attacker"), lambda client, body=body: client.send_frame(body[:60_000]))
    nested: Any = {}
    for _ in range(40):
        nested = {"n": nested}
    deep010 = write_map(nested)
    for _ in range(2000):
        size = len(deep010)
        deep010 = (size + 7).to_bytes(4, "big") + b"\0\0\0\1\1n\xa8" + deep010
        if len(deep010) > 60_000:
            break
    _once(lambda: Client010(*peer, name=os.urandom(8)), lambda client: client.segment(
        b"\4\1\1\1" + b"\0\x80" + len(deep010).to_bytes(2, "big") + deep010[:50_000], 1, 3))


def sizes(peer: Peer) -> None:
    """Frames, tables, contents and counts that say they are enormous, and do not come."""
    opened = V091.encode("channel.open", 1)
    publish = V091.encode("basic.publish", 1, routing_key="nowhere")
    for data in (b"\1\0\1\xff\xff\xff\xff", frame(1, 1, b"\0\x32\0\x0a\0\0\1q\0\xff\xff\xff\xff"),
                 publish + frame(HEADER, 1, b"\0\x3c\0\0" + b"\xff" * 8 + b"\0\0"),
                 publish + frame(HEADER, 1, b"\0\x3c\0\0" + (500 << 20).to_bytes(8, "big") + b"\0\0")):
        _once(lambda: Client(peer).open(), lambda client, data=data: client.write(opened + data))
    billion = b"\xff\xff\xff\xf0"
    for body in (b"\0\x53\x10\xf0\0\0\0\5" + billion + b"\x40", b"\0\x53\x10\xf0\0\0\0\5" + billion + b"\x45",
                 b"\0\x53\x10\xd0" + billion + billion, b"\0\x53\x10\xd1\0\0\0\4" + billion,
                 b"\0\x53\x12\xd0\0\0\0\x10\0\0\0\1\xf0\0\0\0\5" + billion + b"\x41", b"\0\x80" + b"\xff" * 8 + b"\xb0"
                 + billion):
        _once(lambda: Client10(*peer, "attacker"), lambda client, body=body: client.send_frame(body))
    _once(lambda: Client10(*peer, "attacker"), lambda client: client.socket.sendall(b"\xff\xff\xff\xff\2\0\0\0"))
    def remaining(client: MqttClient) -> None:
        client.connect("attacker")
        client.write(b"\x30" + varint(268_435_455) + string("a") + bytes(1000))
    _once(lambda: MqttClient(peer, 5), remaining)
    _once(lambda: Client010(*peer, name=os.urandom(8)), lambda client: client.segment(
        b"\4\1\1\1" + b"\0\x80\xff\xff\xff\xff\xff\xff", 1, 3))


SELECTORS = (
    "(" * 90 + "a = 1" + ")" * 90, "b LIKE '" + "%a" * 10_000 + "'", "b LIKE '" + "%_" * 15_000 + "b'",
    "a IN (" + ", ".join(f"'{number}'" for number in range(8000)) + ")", " OR ".join(["a = 1"] * 8000),
    "NOT " * 15_000 + "a = 1", "-" * 60_000 + "a = 1", "a" + " + 1" * 15_000 + " = 2", "1" * 60_000 + " = a")


def selectors(peer: Peer) -> None:
    """Those that are costly to read or to apply, and messages to apply them to."""
    client = Client(peer).open()
    for number, text in enumerate(SELECTORS):
        client.write(V091.encode("channel.open", number + 1))
        client.write(V091.encode("queue.declare", number + 1, queue=f"s{number}", exclusive=True, nowait=True,
                                 arguments={"x-max-length": 50}))
        client.write(V091.encode("basic.consume", number + 1, queue=f"s{number}", no_ack=True, nowait=True,
                                 arguments={"x-filter-jms-selector": text}))
    headers = V091.encode("queue.declare", 0, arguments={"b": "a" * 10_000, "a": "x"})[16:-1]
    content = b"".join(V091.encode("basic.publish", 20, routing_key=f"s{number}") + frame(
        HEADER, 20, b"\0\x3c\0\0" + bytes(8) + b"\x20\0" + headers) for number in range(len(SELECTORS)))
    client.write(V091.encode("channel.open", 20))
    blast(client.socket, content)


def patterns(peer: Peer) -> None:
    """Of topics: many `#` in each, and keys of many words."""
    client = Client(peer).open()
    channel = client.channel()
    queue = channel.temporary()
    for number in range(60):
        channel.bind(queue, "amq.topic", ".".join(["#", "a", "*"] * 20 + ["#"] * (number % 40) + [str(number)])[:250])
        channel.bind(queue, "amq.topic", ".".join(["#"] * (number + 60)))
    publish = b"".join(V091.encode("basic.publish", channel.number, exchange="amq.topic",
                                   routing_key="a." * 120 + str(number)) + frame(
        HEADER, channel.number, b"\0\x3c" + bytes(12)) for number in range(500))
    blast(client.socket, publish)


def headers(peer: Peer) -> None:
    """Messages of 10,000 headers to a headers exchange with bindings of hundreds."""
    client = Client(peer).open()
    channel = client.channel()
    queue = channel.queue("", exclusive=True, arguments={"x-max-length": 10}).queue
    channel.exchange("bomb", "headers", auto_delete=True)
    for number in range(200):
        channel.bind(queue, "bomb", str(number), {f"h{each}": each for each in range(number, number + 300)})
    table = V091.encode("queue.declare", 0, arguments={f"h{number}": number for number in range(9000)})[16:-1]
    publish = (V091.encode("basic.publish", channel.number, exchange="bomb")
               + frame(HEADER, channel.number, b"\0\x3c\0\0" + bytes(8) + b"\x20\0" + table))
    blast(client.socket, publish)


def properties(peer: Peer) -> None:
    """Messages of 1.0 with 100,000 properties to a headers exchange."""
    client = Client(peer).open()
    channel = client.channel()
    channel.bind(channel.queue("", exclusive=True, arguments={"x-max-length": 2}).queue, "amq.match", "", {"h1": 2})
    modern = Client10(*peer, "attacker")
    modern.attach("in", SENDER, "amq.match")
    data = b"\0\x53\x74" + encode10({f"h{number}": number for number in range(100_000)}) + message(b"x")
    while True:
        number = modern.next_id
        for at in range(0, len(data), 60_000):
            modern.transfer(data[at:at + 60_000], b"t", more=at + 60_000 < len(data), number=number)
        modern.next_id = number + 1
        modern.outcome()


# Those who do not read.


def deaf(peer: Peer) -> None:
    """In each dialect: ask for a lot, and read nothing of it."""
    clients: list[Any] = []
    one = Client(peer).open()
    channel = one.channel()
    channel.queue("deaf", auto_delete=False, arguments={"x-max-length": 1000})
    one.send(channel.number)
    one.write((V091.encode("basic.publish", channel.number, routing_key="deaf") + frame(
        HEADER, channel.number, b"\0\x3c\0\0" + (100_000).to_bytes(8, "big") + b"\0\0") + frame(
        BODY, channel.number, bytes(100_000))) * 100)
    clients += [(one, V091.encode("queue.declare", channel.number, queue="deaf", passive=True) * 1000)]
    for _ in range(3):
        reader = Client(peer).open()
        number = reader.channel().number
        clients.append((reader, V091.encode("basic.get", number, queue="deaf")
                        + V091.encode("basic.recover", number, requeue=True)))
    device = MqttClient(peer)
    device.connect("deaf")
    device.subscribe("#")
    clients.append((device, b"\xc0\0" * 1000))
    modern = Client10(*peer, "deaf", window=1 << 30)
    modern.attach("out", RECEIVER, "deaf")
    modern.credit(1 << 20)
    clients.append((modern, b"\0\0\0\x08\2\0\0\0"))
    legacy = Client010(*peer, name=b"deaf")
    legacy.subscribe("deaf")
    clients.append((legacy, encode010("session.flush", 0, 65535, completed=True) * 100))
    end = time.monotonic() + 20
    for client, _ in clients:
        client.socket.setblocking(False)
    for client, data in itertools.cycle(clients):
        if time.monotonic() > end:
            return
        with contextlib.suppress(BlockingIOError):
            client.socket.send(data)
        time.sleep(0.001)


# Storms.


def queues(peer: Peer) -> None:
    client = Client(peer).open()
    channel = client.channel().number
    for start in itertools.count(0, 50):
        names = [f"storm{start + number}" for number in range(50)]
        client.write(b"".join(
            V091.encode("queue.declare", channel, queue=name, exclusive=True, nowait=True)
            + V091.encode("queue.bind", channel, queue=name, exchange="amq.topic", routing_key=f"#.{name}", nowait=True)
            for name in names))
        if start:
            client.write(b"".join(V091.encode("queue.delete", channel, queue=f"storm{start - 50 + number}", nowait=True)
                                  for number in range(50)))


def exchanges(peer: Peer) -> None:
    client = Client(peer).open()
    channel = client.channel().number
    blast(client.socket, b"".join(
        V091.encode("exchange.declare", channel, exchange=f"storm{number}", type="headers", nowait=True)
        + V091.encode("exchange.bind", channel, source="amq.topic", destination=f"storm{number}", routing_key="#",
                      nowait=True)
        + V091.encode("exchange.delete", channel, exchange=f"storm{number}", nowait=True) for number in range(200)))


def channels(peer: Peer) -> None:
    blast(Client(peer).open().socket, b"".join(
        V091.encode("channel.open", number) + V091.encode("channel.close", number, reply_code=200)
        for number in range(1, 500)))


def links(peer: Peer) -> None:
    client = Client10(*peer, "attacker")
    blast(client.socket, b"".join(
        frames10(encode(state(0x12, f"l{number}", uint(number % 50), True, ubyte(0), ubyte(0),
                              state(0x28, "amq.topic", uint(0), symbol("link-detach")), state(0x29))), 1)
        + frames10(encode(state(0x16, uint(number % 50), True)), 1) for number in range(500)))


def sessions(peer: Peer) -> None:
    client = Client10(*peer, "attacker")
    begin, end = encode(state(0x11, None, uint(0), uint(9), uint(9))), encode(state(0x17))
    blast(client.socket, b"".join(
        (len(body) + 8).to_bytes(4, "big") + b"\2\0\0" + bytes([channel]) + body
        for channel in range(1, 50) for body in (begin, end)))


def connections(peer: Peer) -> None:
    """Come and go, as quickly as that goes."""
    for _ in range(1000):
        with contextlib.suppress(OSError), socket.create_connection(peer, timeout=5) as client:
            client.sendall(HEADER091)


# Those who do not get on.


def silent(peer: Peer) -> None:
    """As many connections as this process may have, which say nothing. Whoever is thrown out comes back."""
    hard = 1 << 20
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (SILENT + 500, hard))
    except (ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(SILENT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    poll = select.epoll()
    held: dict[int, socket.socket] = {}
    while True:
        for _ in range(100):
            if len(held) < most:
                with contextlib.suppress(OSError):
                    client = socket.create_connection(peer, timeout=1)
                    poll.register(client, select.EPOLLIN | select.EPOLLHUP)
                    held[client.fileno()] = client
        for number, _ in poll.poll(0.001, 1000):
            poll.unregister(number)
            held.pop(number).close()


def _dribble(peer: Peer, beginnings: list[bytes], count: int) -> None:
    """Many clients, each with a byte a second."""
    clients: list[tuple[socket.socket, Iterator[int]]] = []
    while True:
        for number in range(len(clients), count):
            with contextlib.suppress(OSError):
                clients.append((socket.create_connection(peer, timeout=1),
                                iter(beginnings[number % len(beginnings)])))
        left = []
        for client, rest in clients:
            byte = next(rest, None)
            try:
                if byte is not None:
                    client.send(bytes([byte]))
                left.append((client, rest))
            except OSError:
                client.close()
        clients = left
        time.sleep(1)


def slow(peer: Peer) -> None:
    hello = b"\x16\3\1\2\0\1\0\1\xfc\3\3" + os.urandom(500)
    _dribble(peer, [HEADER091, b"AMQP\3\1\0\0" + bytes(20), b"AMQP\1\1\0\x0a" + bytes(20), hello,
                    b"\x10\x20\0\4MQTT\4\2\0\0" + b"\0\x10" + b"a" * 16], 300)


def _once(make: Callable[[], Any], send: Callable[[Any], object]) -> None:
    """One client that sends something and waits for what comes of it."""
    client = make()
    try:
        send(client)
        client.socket.settimeout(0.3)
        while client.socket.recv(1 << 16):
            pass
    finally:
        client.socket.close()


ATTACKS: dict[str, Callable[[Peer], None]] = {each.__name__.replace("_", "-"): each for each in (
    heartbeats, acknowledgements, empty_frames, flows, transfers, pings, subscriptions, publishes, flushes, errors,
    logins, nesting, sizes, selectors, patterns, headers, properties,
    deaf, queues, exchanges, channels, links, sessions, connections,
    silent, slow)}


def main(name: str, host: str, port: int) -> None:
    connect = socket.create_connection
    # The clients here call it with an address and a timeout only, so it need not take all that it took.
    socket.create_connection = lambda address, timeout=10, **_: connect(
        address, timeout, source_address=(SOURCE, 0))
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    attack = ATTACKS[name]
    print("begun", flush=True)
    for number in itertools.count():
        with contextlib.suppress(Exception):
            attack(Peer(host, port))
        if not number:
            print("round", flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
