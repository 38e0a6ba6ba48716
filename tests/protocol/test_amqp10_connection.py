"""Connections of AMQP 1.0: open, virtual hosts, containers, idle time-outs, no SASL (part 2, section 2.4)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from proton import symbol

from dragoman import testing
from tests.wire10 import CLOSE, HEADER, OPEN, SASL_HEADER, Client10, encode, state

Connect10 = Callable[..., Client10]

pytestmark = pytest.mark.dragoman_only("it is Dragoman's own answers that are looked at")


def condition(wire: Client10) -> tuple[str, dict[str, Any]]:
    """The error that the broker closes with: its condition and its info."""
    found, _, info = [*wire.expect(CLOSE)[0][0].value, None][:3]
    wire.send(CLOSE)
    return str(found), {str(key): value for key, value in (info or {}).items()}


def test_open(connect10: Connect10) -> None:
    fields = connect10(opens=False).open("somebody", channel_max=9, idle=60000)
    assert fields[2] == 131072 and fields[3] == 2047 and fields[4] == 60000
    assert set(fields[7].elements) == {"ANONYMOUS-RELAY", "SHARED-SUBS", "DELAYED_DELIVERY",
                                      "sole-connection-for-container"}
    assert fields[9]["product"] == "Dragoman" and fields[9]["version"]


@pytest.mark.parametrize("hostname", [None, "", "localhost", "broker.example.com", "/", "vhost:/"])
def test_hostnames_of_the_default_virtual_host(connect10: Connect10, hostname: str | None) -> None:
    wire = connect10(hostname=hostname)
    wire.close()


def test_virtual_hosts() -> None:
    with testing.broker(config='virtual_hosts = ["one", "two"]\n') as broker:
        one, two = (Client10(broker.host, broker.port, hostname=name) for name in ("one", "vhost:two"))
        one.attach("made", False, "/queue/here")
        assert two.attach("probe", True, "here")[5] is None  # a terminus that is not there: it is refused
        for wire in (one, two):
            wire.vanish()


def test_sole_connection_is_refused(connect10: Connect10) -> None:
    """OASIS, AMQP Enforcing Connection Uniqueness 1.0, section 3: the second of them is refused by default."""
    first = connect10("only", desired=["sole-connection-for-container"])
    second = connect10(opens=False)
    second.open("only", desired=["sole-connection-for-container"])
    found, info = condition(second)
    assert found == "amqp:invalid-field" and info["invalid-field"] == "container-id"
    third = connect10(opens=False)  # nor may it be connected again without saying so
    third.open("only")
    assert condition(third)[0] == "amqp:invalid-field"
    first.close()
    connect10("only", desired=["sole-connection-for-container"]).close()


def test_sole_connection_closes_the_other(connect10: Connect10) -> None:
    first = connect10("only", desired=["sole-connection-for-container"])
    second = connect10("only", desired=["sole-connection-for-container"],
                       properties={"sole-connection-enforcement-policy": 1})
    found, info = condition(first)
    assert found == "amqp:resource-locked" and info["sole-connection-enforcement"] is True
    second.close()


def test_signs_of_life(connect10: Connect10) -> None:
    """A client that says an idle time-out gets an empty frame in time, if nothing else."""
    wire = connect10("sleepy", idle=1500)
    start = time.monotonic()
    for _ in range(2):
        assert wire._read(8) == b"\x00\x00\x00\x08\x02\x00\x00\x00"
    assert time.monotonic() - start < 4


def test_a_silent_client_is_gone() -> None:
    with testing.broker(config="[amqp10]\nidle = 1\n") as broker:
        wire = Client10(broker.host, broker.port)
        wire.socket.settimeout(20)
        assert condition(wire)[0] == "amqp:resource-limit-exceeded"
        with pytest.raises((EOFError, ConnectionError)):
            wire.frame()
        wire.vanish()


def test_the_broker_stops() -> None:
    with testing.broker() as broker, ThreadPoolExecutor(1) as aside:
        wire = Client10(broker.host, broker.port)
        code = aside.submit(broker.stop)
        assert condition(wire)[0] == "amqp:connection:forced"
        assert code.result() == 0
        wire.vanish()


def raw_open(container: str) -> bytes:
    body = encode(state(OPEN, container))
    return (len(body) + 8).to_bytes(4, "big") + b"\x02\x00\x00\x00" + body


@pytest.mark.parametrize("anonymous", [True, False])
def test_without_sasl(anonymous: bool) -> None:
    """A listener that is not anonymous answers with the header of SASL, and closes (part 5, section 5.3.1)."""
    config = f'[[listeners]]\nport = 0\nanonymous = {str(anonymous).lower()}\n'
    with testing.broker(config=config) as broker, socket.create_connection((broker.host, broker.port), 10) as dialled:
        dialled.sendall(HEADER + raw_open("nobody"))
        received = b""
        while len(received) < 9 and (more := dialled.recv(4096)):
            received += more
        if anonymous:
            assert received.startswith(HEADER) and b"\x00\x53\x10" in received[8:30]
        else:
            assert received == SASL_HEADER


def test_all_of_a_login_in_one_go(connect10: Connect10, peer: Any) -> None:
    """A client may send on without waiting for answers (part 2, section 2.4.1: pipelined open)."""
    init = encode(state(0x41, symbol("PLAIN"), b"\0guest\0guest"))
    with socket.create_connection((peer.host, peer.port), 10) as dialled:
        dialled.sendall(SASL_HEADER + (len(init) + 8).to_bytes(4, "big") + b"\x02\x01\x00\x00" + init + HEADER
                        + raw_open("hasty"))
        received = b""
        while b"\x00\x53\x10" not in received and (more := dialled.recv(4096)):
            received += more
    assert received.startswith(SASL_HEADER) and HEADER in received and b"Dragoman" in received
