"""What TLS costs, and those who have not logged in: rows with a broker of their own.

The load generators speak no TLS. So their clients come by a forwarder, a process whose CPU does not count: by one that
speaks TLS to the broker, and, to compare, by one that does not.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.authority import LOCAL, Authority, save
from tests.bench.brokers import ROOT, BenchError, Broker, Dragoman, Phase, cpu_seconds, load, rss_kib
from tests.bench.ends import flow
from tests.bench.traffic10 import HELLO, await_session

WAIT = 30.0
STRANGERS = "[limits]\nhalf_open = 100000\nhalf_open_per_address = 100000\nhandshake_seconds = 3600\n"


class Forwarded(Broker):
    """A broker whose clients come by a forwarder; its processes alone count."""

    def __init__(self, broker: Broker, issuer: Path | None) -> None:
        """issuer: of the broker's certificate (PEM), to speak TLS."""
        self.broker = broker
        self._issuer = issuer
        self._forwarder: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.bench.forwarder", str(self.broker.port),
                   *([str(self._issuer)] if self._issuer is not None else [])]
        self._forwarder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._forwarder.stdout is not None
        try:
            self.port = int(self._forwarder.stdout.readline())
        except ValueError:
            self.stop()
            raise BenchError("the forwarder did not start") from None

    def stop(self) -> None:
        if self._forwarder is not None:
            self._forwarder.kill()
            self._forwarder.communicate()
        self._forwarder = None

    def processes(self) -> list[int]:
        return self.broker.processes()


@contextmanager
def _broker(config: str = "") -> Iterator[tuple[Dragoman, Path]]:
    """A broker that takes clients with and without TLS on its port, and the issuer of its certificate."""
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as name:
        folder = Path(name)
        authority = Authority("bench")
        save(folder / "server.pem", *authority.issue("localhost", LOCAL))
        broker = Dragoman(folder / "dragoman", f'[tls]\ncertificate = "{folder / "server.pem"}"\n{config}')
        try:
            broker.start()
            yield broker, authority.save(folder / "ca.pem")
        finally:
            broker.stop()


def secured(options: dict[str, int | float]) -> list[Phase]:
    """The same work without TLS and with it: phases plain and TLS. options: those of tests/bench/ends.py, if they say
    a source, or of loadgen. Raises: BenchError."""
    found = []
    with _broker() as (broker, issuer):
        for name, trusted in (("plain", None), ("TLS", issuer)):
            way = Forwarded(broker, trusted)
            try:
                way.settle()
                phases = flow(way, options) if "source" in options else load(way, "loadgen", "flow", options)
            finally:
                way.stop()
            found += [replace(phase, name=name) for phase in phases if phase.name == "flow"]
    return found


def _silent(port: int, context: ssl.SSLContext) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), WAIT)


def _header(port: int, context: ssl.SSLContext) -> socket.socket:
    made = _silent(port, context)
    made.sendall(b"AMQP\x00\x00\x09\x01")
    made.recv(65536)
    return made


def _handshake(port: int, context: ssl.SSLContext) -> socket.socket:
    """The first message of a handshake, and its answer."""
    made = _silent(port, context)
    hello = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        made.sendall(hello.read())
    made.recv(65536)
    return made


def _session(port: int, context: ssl.SSLContext) -> socket.socket:
    """A connection of AMQP 1.0 with a session, by TLS."""
    made = context.wrap_socket(_silent(port, context), server_hostname="localhost")
    made.sendall(HELLO)
    await_session(made)
    return made


CLIENTS: dict[str, Callable[[int, ssl.SSLContext], socket.socket]] = {
    "half-open, silent": _silent, "half-open, header": _header, "half-open, TLS": _handshake,
    "1.0 by TLS": _session}
"""Kinds of clients that connect and do nothing further."""


def connected(kind: str, count: int) -> list[Phase]:
    """So many clients of a kind. Raises: BenchError."""
    with _broker(STRANGERS) as (broker, issuer), ExitStack() as stack:
        context = ssl.create_default_context(cafile=str(issuer))
        broker.settle()
        CLIENTS[kind](broker.port, context).close()
        before = rss_kib(broker)
        started, cpu = time.monotonic(), cpu_seconds(broker)
        try:
            for _ in range(count):
                stack.enter_context(CLIENTS[kind](broker.port, context))
        except (OSError, EOFError) as error:
            raise BenchError(f"a client cannot connect: {error}") from None
        time.sleep(1)  # of those that wait for no answer, it may not have taken all
        return [Phase("open", time.monotonic() - started, 0, count, cpu_seconds(broker) - cpu, 0.0, before,
                      rss_kib(broker), rss_kib(broker))]
