"""Libraries log in by each mechanism that they have, or are refused; tests/protocol/test_providers.py has certificates
and tokens with pika, Proton and paho, tests/conformance/logins* Java, Node and Python 2.7."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import aio_pika
import aiormq.exceptions
import amqp
import paho.mqtt.client as paho
import pika
import pika.exceptions
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from proton import SASL, ConnectionException
from proton.utils import BlockingConnection

from tests.conformance.logins_kit import logins
from tests.conformance.support import DEADLINE
from tests.tls_kit import Setting


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with logins(tmp_path_factory.mktemp("logins"), ("SCRAM-SHA-256", "CRAM-MD5")) as made:
        yield made


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "CRAM-MD5"])
def test_proton_with_a_password(house: Setting, mechanism: str) -> None:
    if mechanism != "PLAIN" and not SASL.extended():
        pytest.skip("this Proton was built without Cyrus SASL: it has ANONYMOUS, PLAIN and EXTERNAL only")

    def log_in(user: str, password: str) -> None:
        BlockingConnection(f"amqp://127.0.0.1:{house.broker.port}", timeout=DEADLINE, allowed_mechs=mechanism,
                           user=user, password=password).close()
    log_in("shop", "secret")
    for user, password in (("shop", "wrong"), ("nobody", "secret")):
        with pytest.raises(ConnectionException, match="amqp:unauthorized-access.*Authentication failed"):
            log_in(user, password)


@pytest.mark.parametrize("mechanisms", [None, "ANONYMOUS"])
def test_proton_without_a_name(house: Setting, mechanisms: str | None) -> None:
    BlockingConnection(f"amqp://127.0.0.1:{house.broker.port}", timeout=DEADLINE, allowed_mechs=mechanisms).close()


def test_pika(house: Setting) -> None:
    def log_in(password: str) -> None:
        pika.BlockingConnection(pika.URLParameters(f"amqp://shop:{password}@127.0.0.1:{house.broker.port}/")).close()
    log_in("secret")
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="403.*ACCESS_REFUSED - Login was refused"):
        log_in("wrong")


def test_py_amqp(house: Setting) -> None:
    """It would take any mechanism that is offered first and that it knows."""
    def log_in(password: str) -> None:
        with amqp.Connection(f"127.0.0.1:{house.broker.port}", "shop", password, connect_timeout=DEADLINE):
            pass
    log_in("secret")
    with pytest.raises(amqp.AccessRefused, match="403.*Login was refused using authentication mechanism"):
        log_in("wrong")


def test_aio_pika(house: Setting) -> None:
    async def log_in(url: str) -> None:
        connection = await aio_pika.connect(url, timeout=DEADLINE)
        await connection.close()

    by_card = (f"amqps://localhost:{house.broker.port}/?auth=EXTERNAL&cafile={house.folder}/ca.pem&certfile="
               f"{house.folder}/till.pem&keyfile={house.folder}/till.pem")
    asyncio.run(log_in(by_card))
    assert "user till opened vhost" in house.broker.log()
    asyncio.run(log_in(f"amqp://shop:secret@127.0.0.1:{house.broker.port}/"))
    with pytest.raises(aiormq.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        asyncio.run(log_in(f"amqp://shop:wrong@127.0.0.1:{house.broker.port}/"))


@pytest.mark.parametrize("version", [3, 4, 5])
def test_paho(house: Setting, version: int) -> None:
    def log_in(password: str | None) -> str:
        client = paho.Client(CallbackAPIVersion.VERSION2, "logins", protocol=MQTTProtocolVersion(version))
        told = threading.Event()
        codes: list[str] = []

        def connected(_client: object, _data: object, _flags: object, reason: object, _properties: object) -> None:
            codes.append(str(reason))
            told.set()
        client.on_connect = connected
        if password is not None:
            client.username_pw_set("shop", password)
        client.connect("127.0.0.1", house.broker.port)
        client.loop_start()
        try:
            assert told.wait(DEADLINE)
        finally:
            client.disconnect()
            client.loop_stop()
        return codes[0]
    assert log_in("secret") == "Success"
    assert log_in(None) == "Success"  # as the anonymous user
    assert log_in("wrong") == "Bad user name or password"
