"""The use cases of docs/gateway/ with the real brokers: Debian's RabbitMQ and Mosquitto, and Broker-J in qpidd's place.

Run by `python tests/conformance/run_interop.py gateway_docs`. What needs a broker that is not here is skipped.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

HERE = Path(__file__).resolve().parent
ROOT = next(folder for folder in HERE.parents if (folder / "setup.cfg").exists())
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import gateway_pages as pages  # noqa: E402 - only now they can be found
import peers  # noqa: E402


def started(peer: Any, factory: pytest.TempPathFactory, name: str) -> Any:
    """A peer's context, entered. Skips when it is not installed."""
    context = peer(factory.mktemp(name))
    try:
        return context, context.__enter__()
    except peers.PeerMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pages.Place]:
    context, peer = started(peers.rabbitmq, tmp_path_factory, "rabbitmq")
    peer.control("add_user", pages.USER, pages.PASSWORD)
    peer.control("set_permissions", pages.USER, ".*", ".*", ".*")
    yield pages.Place(peer.port, peer.stop, peer.start)
    context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pages.Place]:
    context, peer = started(peers.mosquitto, tmp_path_factory, "mosquitto")
    passwords = peer.log.parent / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), pages.USER, pages.PASSWORD], check=True)
    peer.restart()
    yield pages.Place(peer.port)
    context.__exit__(None, None, None)


@pytest.fixture
def qpid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pages.Place]:
    context, peer = started(peers.brokerj, tmp_path_factory, "brokerj")
    yield pages.Place(peer.port)
    context.__exit__(None, None, None)


def test_mirror(tmp_path: Path, rabbit: pages.Place, qpid: pages.Place) -> None:
    pages.mirror(tmp_path, rabbit, qpid)


def test_drain(tmp_path: Path, qpid: pages.Place) -> None:
    pages.drain(tmp_path, qpid, has_qmf=False)


def test_requests(tmp_path: Path, qpid: pages.Place) -> None:
    def declare(estate: pages.Estate, queues: list[str]) -> None:
        session = estate.session(qpid)
        for queue in queues:
            session.call(pages.commands010.queue_declare(queue, durable=True))
    pages.requests(tmp_path, qpid, declare)


def test_federation(tmp_path: Path, qpid: pages.Place) -> None:
    pages.federation(tmp_path, qpid, peers.free_ports(2))


def test_devices(tmp_path: Path, mosquitto: pages.Place) -> None:
    pages.devices(tmp_path, mosquitto)


def test_store_and_forward(tmp_path: Path, rabbit: pages.Place) -> None:
    """Headquarters has a RabbitMQ, which is stopped and started."""
    pages.store_and_forward(tmp_path, rabbit)
    with pika.BlockingConnection(pika.URLParameters(rabbit.url)) as connection:
        channel = connection.channel()
        for queue in ("reports", "orders.ship-7"):
            channel.queue_delete(queue)
