"""Java's clients log in by each mechanism that they have: Qpid JMS (AMQP 1.0) and RabbitMQ's client (0-9-1).

Run by `python tests/conformance/run_interop.py logins`, which compiles Login.java. It starts a broker of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from broker.security.users import PasswordFile
from dragoman import testing
from tests.authority import LOCAL, Authority, pem, save
from tests.issuer import AUDIENCE, Issuer

CONFIG = """
[[listeners]]
client_certificates = "want"
[tls]
certificate = "{folder}/server.pem"
client_ca = "{folder}/ca.pem"
[authentication]
users_file = "{folder}/users"
mechanisms = [{mechanisms}]
[[providers]]
name = "tokens"
kind = "oauth2"
issuer = "{issuer}"
audience = ["{audience}"]
[[providers]]
name = "cards"
kind = "certificates"
issuers = "{folder}/ca.pem"
revocation_lists = ["{folder}/revoked.pem"]
"""

SCRAM = ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"]
ALL = ["PLAIN", "AMQPLAIN", "EXTERNAL", "XOAUTH2", "OAUTHBEARER", *SCRAM]


class Java:
    """The clients."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["java", "-cp", "classes:lib/*", "Login"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, encoding="utf-8")

    def log_in(self, client: str, port: int, user: str = "", password: str = "", mechanism: str = "",
               store: Path | str = "") -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\t".join([client, str(port), user, password, mechanism, str(store)]) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def close(self) -> None:
        self.process.communicate()


class Setting:
    def __init__(self, folder: Path, issuer: Issuer, port: int, java: Java) -> None:
        self.folder = folder
        self.issuer = issuer
        self.port = port
        self.java = java

    def log_in(self, client: str, *fields: str, store: str = "") -> str:
        return self.java.log_in(client, self.port, *fields, store=self.folder / f"{store}.p12" if store else "")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("logins")
    authority = Authority("Test CA")
    authority.save(folder / "ca.pem")
    save(folder / "server.pem", *authority.issue("localhost", LOCAL))
    for name in ("till", "lost"):
        certificate, key = authority.issue(name)
        (folder / f"{name}.p12").write_bytes(serialize_key_and_certificates(
            b"own", key, certificate, None, BestAvailableEncryption(b"secret")))
    (folder / "revoked.pem").write_bytes(pem(authority.revoke(certificate)))
    file = PasswordFile(str(folder / "users"))
    for mechanism in SCRAM:
        file.set(mechanism, "secret", mechanism)
    file.save()
    java = Java()
    with Issuer() as issuer, testing.broker(CONFIG.format(
            folder=folder, issuer=issuer.url, audience=AUDIENCE,
            mechanisms=", ".join(f'"{name}"' for name in ALL))) as broker:
        yield Setting(folder, issuer, broker.port, java)
        assert "Traceback" not in broker.log()
    java.close()


@pytest.mark.parametrize("mechanism", SCRAM)
def test_jms_by_scram(setting: Setting, mechanism: str) -> None:
    assert setting.log_in("jms", mechanism, "secret", mechanism) == "in"
    assert "refused" in setting.log_in("jms", mechanism, "wrong", mechanism)
    assert "refused" in setting.log_in("jms", "nobody", "secret", mechanism)


def test_jms_by_a_certificate(setting: Setting) -> None:
    assert setting.log_in("jms", "", "", "EXTERNAL", store="till") == "in"
    assert setting.log_in("jms", "", "", "", store="till") == "in"  # it finds that by itself
    assert "Security" in setting.log_in("jms", "", "", "EXTERNAL", store="lost")


def test_jms_by_a_token(setting: Setting) -> None:
    for mechanism in ("XOAUTH2", "PLAIN"):
        assert setting.log_in("jms", "alice", setting.issuer.token(), mechanism) == "in"
    for claims in ({"exp": 1}, {"aud": "other"}, {"iss": "https://other"}):
        token = setting.issuer.token(**claims)
        assert "Security" in setting.log_in("jms", "alice", token, "XOAUTH2")
    assert "Security" in setting.log_in("jms", "bob", setting.issuer.token(), "XOAUTH2")


def test_jms_left_to_itself(setting: Setting) -> None:
    """Passwords work beside tokens, whichever mechanism it takes."""
    settings = CONFIG.format(folder=setting.folder, issuer=setting.issuer.url, audience=AUDIENCE,
                             mechanisms='"PLAIN", "XOAUTH2", "EXTERNAL"')
    with testing.broker(settings) as broker:
        assert setting.java.log_in("jms", broker.port, "alice", setting.issuer.token()) == "in"
        assert setting.java.log_in("jms", broker.port, SCRAM[0], "secret") == "in"
        assert "Security" in setting.java.log_in("jms", broker.port, SCRAM[0], "wrong")


def test_rabbitmqs_client(setting: Setting) -> None:
    token = setting.issuer.token()
    assert setting.log_in("rabbitmq", "any", token) == "in"
    assert setting.log_in("rabbitmq", "", token, "OAUTHBEARER") == "in"
    assert setting.log_in("rabbitmq", "", "", "EXTERNAL", store="till") == "in"
    expired = setting.issuer.token(exp=1)
    for answer in (setting.log_in("rabbitmq", "any", expired), setting.log_in("rabbitmq", "", expired, "OAUTHBEARER"),
                   setting.log_in("rabbitmq", "", "", "EXTERNAL", store="lost")):
        assert "ACCESS_REFUSED" in answer
