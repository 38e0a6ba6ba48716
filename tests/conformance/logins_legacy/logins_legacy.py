"""Older clients, and Node's, log in by each mechanism that they have, or are refused in their dialect's words."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conformance import python27
from tests.conformance.logins_kit import logins
from tests.tls_kit import Setting

HERE = Path(__file__).resolve().parent
ROOT = Path(__file__).resolve().parents[3]
BUILT = ROOT / "build" / "interop" / "logins_legacy"
SECONDS = 60


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    challenges = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5")
    with logins(tmp_path_factory.mktemp("logins"), challenges) as made:
        yield made


def run(*command: str) -> str:
    ran = subprocess.run(command, cwd=BUILT, capture_output=True, text=True, timeout=SECONDS)
    said = [line for line in ran.stdout.splitlines() if line.startswith(("in", "refused"))]
    assert said, ran.stdout + ran.stderr
    return said[-1]


def java(*arguments: str, **properties: str) -> str:
    return run("java", *(f"-D{name.replace('_', '.')}={value}" for name, value in properties.items()),
               "-cp", "classes:lib/*", "Logins", *arguments)


# -- Qpid JMS, of 1.0


@pytest.mark.parametrize("mechanism", ["PLAIN", "CRAM-MD5"])
def test_qpid_jms(house: Setting, mechanism: str) -> None:
    url = f"amqp://127.0.0.1:{house.broker.port}?amqp.saslMechanisms={mechanism}"
    assert java("jms10", url, "shop", "secret") == "in"
    refused = java("jms10", url, "shop", "wrong")
    assert "JMSSecuritySaslException: Client failed to authenticate" in refused, refused
    assert java("jms10", url, "nobody", "secret") == refused


def test_qpid_jms_without_a_name(house: Setting) -> None:
    assert java("jms10", f"amqp://127.0.0.1:{house.broker.port}?amqp.saslMechanisms=ANONYMOUS", "", "") == "in"


# -- Qpid's client of 0-8 to 0-10


@pytest.mark.parametrize("version", ["0-8", "0-9-1", "0-10"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_legacy_jms(house: Setting, version: str, mechanism: str) -> None:
    def login(password: str) -> str:
        options = quote(f"tcp://127.0.0.1:{house.broker.port}?sasl_mechs='{mechanism}'", safe=":/?='")
        return java("jms0x", f"amqp://shop:{password}@client/?brokerlist='{options}'&maxprefetch='1'",
                    qpid_amqp_version=version)
    assert login("secret") == "in"
    refused = login("wrong")
    assert refused.startswith("refused") and "Authentication failed" in refused, refused


# -- others


def test_amqplib_by_a_certificate(house: Setting) -> None:
    assert run("node", "login.js", "amqplib", str(house.broker.port), str(house.folder), "till") == "in"
    assert "ACCESS" in run("node", "login.js", "amqplib", str(house.broker.port), str(house.folder), "lost").upper()


def test_mqttjs_by_scram(house: Setting) -> None:
    assert run("node", "login.js", "mqtt", str(house.broker.port), "shop", "secret") == "in"
    assert "Bad User Name or Password" in run("node", "login.js", "mqtt", str(house.broker.port), "shop", "wrong")


@pytest.mark.parametrize("mechanism, user", [("PLAIN", "shop"), ("ANONYMOUS", "")])
def test_qpid_python(house: Setting, mechanism: str, user: str) -> None:
    try:
        python = python27.find()
    except python27.NoPython27 as error:
        pytest.skip(str(error))
    site = python27.install(python)

    def login(password: str) -> str:
        ran = subprocess.run([python, str(HERE / "login27.py"), f"127.0.0.1:{house.broker.port}", mechanism, user,
                              password], env=python27.environment(site), capture_output=True, text=True,
                             timeout=SECONDS)
        return ran.stdout.strip() or ran.stderr
    assert login("secret" if user else "") == "in"
    if user:
        assert "Authentication failed" in login("wrong") or "AuthenticationFailure" in login("wrong")
