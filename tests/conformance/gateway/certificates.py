"""The gateway's remote ends within TLS, to RabbitMQ with a certificate instead of a password, and to Mosquitto."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.message import AMQP091, AMQP10, MQTT
from interop.ends import EndError, From, Options, To
from interop.remotes import remote
from tests import peers
from tests.authority import Authority
from tests.remote_kit import SAFE, Sent, Taken, opened, run, text_message
from tests.tls_kit import issue

PLUGINS = ["rabbitmq_amqp1_0", "rabbitmq_auth_mechanism_ssl"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    authority = Authority("an authority")
    authority.save(made / "ca.pem")
    issue(authority, made / "server.pem", "a broker")
    issue(authority, made / "client.pem", "gateway")
    issue(authority, made / "stranger.pem", "stranger")
    return made


def context(folder: Path, certificate: str = "") -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if certificate:
        made.load_cert_chain(folder / certificate)
    return made


@pytest.fixture(scope="module")
def rabbit(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port where RabbitMQ takes clients by the names in their certificates."""
    (port,) = peers.free_ports(1)
    settings = (f"listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {folder}/ca.pem\n"
                f"ssl_options.certfile = {folder}/server.pem\nssl_options.keyfile = {folder}/server.pem\n"
                "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
                "auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN\nssl_cert_login_from = common_name\n")
    with peers.rabbitmq(tmp_path_factory.mktemp("rabbitmq"), PLUGINS, settings) as peer:
        peer.control("add_user", "gateway", "unused")
        peer.control("set_permissions", "gateway", ".*", ".*", ".*")
        yield port


@pytest.mark.parametrize("dialect", [AMQP091, AMQP10], ids=["0-9-1", "1.0"])
def test_rabbitmq_knows_us_by_our_certificate(dialect: int, rabbit: int, folder: Path) -> None:
    url = f"amqps://localhost:{rabbit}/"

    async def main() -> None:
        maker = await opened(url, AMQP091, Options(tls=context(folder, "client.pem"), timeout=10))
        await maker.source(From(queue=f"kept-{dialect}", exchange="amq.topic", keys=("#",)))
        made = await opened(url, dialect, Options(tls=context(folder, "client.pem"), timeout=10))
        sent = Sent(await made.target(To(queue=f"kept-{dialect}")))
        sent.send(text_message(b"within TLS", f"kept-{dialect}", dialect))
        assert await sent.wait() == [SAFE]
        taken = Taken(await made.source(From(queue=f"kept-{dialect}")))
        await taken.wait(1)
        assert taken.bodies() == [b"within TLS"]
        await made.close()
        await maker.close()
    run(main())


@pytest.mark.parametrize("dialect", [AMQP091, AMQP10], ids=["0-9-1", "1.0"])
@pytest.mark.parametrize("certificate", ["", "stranger.pem"])
def test_whom_rabbitmq_does_not_know(dialect: int, certificate: str, rabbit: int, folder: Path) -> None:
    async def main() -> str:
        made = remote(f"amqps://localhost:{rabbit}/", dialect, Options(tls=context(folder, certificate), timeout=10))
        with pytest.raises(EndError) as caught:
            await made.open()
        await made.close()
        return str(caught.value)
    text = run(main())
    assert text.startswith(f"localhost:{rabbit}: ")
    print(text)


def test_mosquitto(folder: Path, tmp_path: Path) -> None:
    async def main(port: int) -> None:
        made = await opened(f"mqtts://guest:guest@localhost:{port}/", MQTT, Options(tls=context(folder), timeout=10))
        taken = Taken(await made.source(From(exchange="amq.topic", keys=("a.#",))))
        sent = Sent(await made.target(To(exchange="amq.topic", key="a.b")))
        for number in range(500):
            await sent.send_when_ready(text_message(b"%d" % number, "a.b", MQTT, "amq.topic"))
        await taken.wait(500)
        assert set(await sent.wait()) == {SAFE}
        await made.close()
        made = remote(f"mqtts://guest:guest@localhost:{port}/", MQTT, Options(timeout=10))
        with pytest.raises(EndError, match="not to be trusted"):
            await made.open()
        await made.close()
    with peers.mosquitto(tmp_path, folder / "server.pem", "max_queued_messages 0") as peer:
        run(main(peer.tls_port))
