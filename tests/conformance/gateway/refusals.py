"""Messages that another broker does not take: it closes the channel or the session for their sake, or refuses them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pika
import pytest

from dragoman import testing
from tests import peers
from tests.conformance.gateway.kit import read_all, until

PASSWORD = {"PEER_PASSWORD": "guest"}
LARGEST = 100_000
"""Bytes of a message that the peer takes."""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.RabbitMq]:
    with peers.rabbitmq(tmp_path_factory.mktemp("rabbitmq"), ["rabbitmq_amqp1_0"],
                        f"max_message_size = {LARGEST}") as peer:
        yield peer


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Mosquitto]:
    with peers.mosquitto(tmp_path_factory.mktemp("mosquitto"), settings=f"max_packet_size {LARGEST}") as peer:
        yield peer


def config(port: int, dialect: str, queue: str, link: str = "", bridge: str = "") -> str:
    scheme, far = ("mqtt", f'remote_exchange = "amq.topic"\nkey = "{queue}"') if dialect == "mqtt" else (
        "amqp", f'remote_queue = "{queue}"')
    return (f'[[link]]\nname = "there"\nurl = "{scheme}://127.0.0.1:{port}/"\nuser = "guest"\n'
            f'password_env = "PEER_PASSWORD"\ndialect = "{dialect}"\nreconnect_max = 1\n{link}'
            f'[[bridge]]\nname = "b"\nlink = "there"\ndirection = "push"\nlocal_queue = "{queue}"\n{far}\n{bridge}')


def publish(url: str, queue: str, arguments: dict[str, str]) -> None:
    """300 numbers, of which every hundredth is more than the peer takes."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("letters", durable=True)
        channel.queue_declare(queue, durable=True, arguments=arguments)
        for number in range(300):
            body = b"%d" % number
            if number % 100 == 50:
                body = body.rjust(LARGEST + 50_000)
            channel.basic_publish("", queue, body, pika.BasicProperties(message_id=f"id-{number}", delivery_mode=2))


DEAD_LETTERS = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "letters"}
TOO_LARGE = [50, 150, 250]
OTHERS = [number for number in range(300) if number not in TOO_LARGE]


@pytest.mark.parametrize("dialect", ["0-9-1", "1.0"])
def test_what_is_too_large_for_rabbitmq_is_dead_lettered(dialect: str, rabbit: peers.RabbitMq, tmp_path: Path) -> None:
    queue = f"large-{dialect}"
    there = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/"
    with pika.BlockingConnection(pika.URLParameters(there)) as connection:
        connection.channel().queue_declare(queue, durable=True)
    with testing.broker(config(rabbit.port, dialect, queue), store=tmp_path / "store", env=PASSWORD) as broker:
        publish(broker.url, queue, DEAD_LETTERS)
        assert read_all(broker.url, "letters", set(TOO_LARGE)) == TOO_LARGE
        received = read_all(there, queue, set(OTHERS))
        assert list(dict.fromkeys(received)) == OTHERS
        log = broker.log()
        assert 1 <= log.count("is rejected at its source") <= 3
        print(f"{dialect}: {len(received) - len(OTHERS)} came twice")


def test_without_dead_letters_it_blocks_the_bridge_by_name(rabbit: peers.RabbitMq, tmp_path: Path) -> None:
    there = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/"
    with pika.BlockingConnection(pika.URLParameters(there)) as connection:
        connection.channel().queue_declare("blocked", durable=True)
    with testing.broker(config(rabbit.port, "0-9-1", "blocked"), store=tmp_path / "store", env=PASSWORD) as broker:
        publish(broker.url, "blocked", {})
        until(lambda: "blocked by message" in broker.log(), 60)
        assert "message id-50 (key 'blocked', 150000 bytes): 406" in broker.log()
        received = read_all(there, "blocked", set(range(50)))
        assert list(dict.fromkeys(received)) == list(range(50))
        time.sleep(2)
        assert broker.log().count("blocked by message") == 1
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            assert connection.channel().queue_declare("blocked", passive=True).method.message_count == 250


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_what_is_too_large_for_mosquitto_is_dead_lettered(version: str, mosquitto: peers.Mosquitto,
                                                          tmp_path: Path) -> None:
    """With 5.0 it says what it takes; with 3.1.1 it drops the connection."""
    with testing.broker(config(mosquitto.port, "mqtt", "large", f'mqtt_version = "{version}"\n'),
                        store=tmp_path / "store", env=PASSWORD) as broker:
        publish(broker.url, "large", DEAD_LETTERS)
        assert read_all(broker.url, "letters", set(TOO_LARGE)) == TOO_LARGE
        with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
            until(lambda: connection.channel().queue_declare("large", passive=True).method.message_count == 0, 30)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("dialect", ["0-9-1", "1.0"])
def test_the_order_of_what_rabbitmq_refuses_for_now(dialect: str, strict: bool, rabbit: peers.RabbitMq,
                                                    tmp_path: Path) -> None:
    """Its queue is full nearly all the time: nothing is lost, and in strict order nothing overtakes."""
    queue = f"small-{dialect}-{strict}"
    there = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/"
    with pika.BlockingConnection(pika.URLParameters(there)) as connection:
        far = connection.channel()
        far.queue_declare(queue, durable=True, arguments={"x-max-length": 20, "x-overflow": "reject-publish"})
        more = f"strict_order = {str(strict).lower()}\n"
        with testing.broker(config(rabbit.port, dialect, queue, bridge=more), store=tmp_path / "store",
                            env=PASSWORD) as broker:
            with pika.BlockingConnection(pika.URLParameters(broker.url)) as here:
                channel = here.channel()
                channel.queue_declare(queue, durable=True)
                for number in range(300):
                    channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=2))
            received: list[int] = []
            end = time.monotonic() + 120
            while len(set(received)) < 300 and time.monotonic() < end:
                method, _, body = far.basic_get(queue, auto_ack=True)
                if method is not None:
                    received.append(int(body))
                else:
                    time.sleep(0.002)
    firsts = list(dict.fromkeys(received))
    assert sorted(firsts) == list(range(300))
    if strict or dialect == "0-9-1":  # its plugin for 1.0 breaks the connection off when it refuses several at once
        assert firsts == received
    overtaken = sum(1 for before, after in pairwise(firsts) if after < before)
    print(f"{dialect}, strict order {strict}: {overtaken} steps back")
    assert overtaken == 0 if strict else overtaken <= 100
