"""Tickets of MIT's KDC, shown by SASL GSSAPI; skipped where Kerberos or the package `gssapi` is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proton import symbol

from broker.security.authenticator import Authenticator
from broker.security.identity import Peer
from broker.security.sasl import Challenge, Failure, Outcome, SaslServer, Success
from dragoman import testing
from tests.peers import PeerMissing
from tests.provider_kit import Threads
from tests.realm import REALM, SERVICE, Realm, realm
from tests.wire import eventually
from tests.wire10 import HEADER, SASL_HEADER, Client10, encode, state

gssapi = pytest.importorskip("gssapi")
from broker.security.kerberos import Kerberos, KerberosSettings  # noqa: E402 - it needs that package

NO_LAYER = b"\1\0\0\0"


@pytest.fixture(scope="module")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    try:
        with realm(tmp_path_factory.mktemp("realm")) as made:
            yield made
    except PeerMissing as missing:
        pytest.skip(str(missing))


class Client:
    """The client's side of RFC 4752."""

    def __init__(self, kdc: Realm, user: str = "alice", service: str = SERVICE, choice: bytes = NO_LAYER) -> None:
        credentials = gssapi.Credentials(usage="initiate", store={"ccache": f"FILE:{kdc.tickets(user)}"})
        name = gssapi.Name(service, gssapi.NameType.kerberos_principal)
        self.context = gssapi.SecurityContext(name=name, creds=credentials, usage="initiate")
        self.choice = choice

    def step(self, challenge: bytes | None = None) -> bytes:
        if not self.context.complete:
            return self.context.step(challenge) or b""
        assert challenge is not None
        offer = self.context.unwrap(challenge).message
        assert offer == NO_LAYER  # no layer, and so no size
        return bytes(self.context.wrap(self.choice, False).message)


def log_in(kdc: Realm, client: Any, **settings: Any) -> Outcome:
    """How a login ends."""
    provider = Kerberos("realm", KerberosSettings(**{"keytab": str(kdc.keytab), **settings}), Threads().run)
    server = SaslServer(Authenticator([provider], ["GSSAPI"]), Peer())
    outcomes: list[Outcome] = []
    server.start("GSSAPI", client.step(), outcomes.append)
    while isinstance(outcomes[-1], Challenge):
        server.step(client.step(outcomes[-1].data), outcomes.append)
    return outcomes[-1]


def test_a_ticket(kdc: Realm) -> None:
    outcome = log_in(kdc, Client(kdc))
    assert isinstance(outcome, Success)
    known = outcome.identity
    assert (known.user, known.provider, known.mechanism) == (f"alice@{REALM}", "realm", "GSSAPI")


@pytest.mark.parametrize("wanted", ["", "alice", f"alice@{REALM}"])
def test_a_name_without_its_realm(kdc: Realm, wanted: str) -> None:
    outcome = log_in(kdc, Client(kdc, choice=NO_LAYER + wanted.encode()), realms=(REALM,), strip_realm=True)
    assert isinstance(outcome, Success)
    assert outcome.user == "alice"


@pytest.mark.parametrize(("choice", "reason"), [
    (NO_LAYER + b"bob", "asks to be 'bob'"), (b"\2\0\0\0", "a security layer"), (b"\1", "a security layer"),
    (b"", "a security layer"), (NO_LAYER + b"\xff", "asks to be")])
def test_choices_that_are_refused(kdc: Realm, choice: bytes, reason: str) -> None:
    outcome = log_in(kdc, Client(kdc, choice=choice))
    assert isinstance(outcome, Failure)
    assert reason in outcome.reason


def test_tickets_that_are_refused(kdc: Realm) -> None:
    class Says:
        def __init__(self, *said: bytes) -> None:
            self.said = list(said)

        def step(self, challenge: bytes | None = None) -> bytes:
            return self.said.pop(0)
    token = Client(kdc).step()
    for client in (Client(kdc, service=f"other/localhost@{REALM}"), Says(b""), Says(b"junk"), Says(token[:-9]),
                   Says(token[:-4] + b"xxxx")):
        outcome = log_in(kdc, client)
        assert isinstance(outcome, Failure)
    assert isinstance(log_in(kdc, Client(kdc), realms=("OTHER.ORG",)), Failure)


def test_a_ticket_is_shown_once(kdc: Realm) -> None:
    """A copy of what a client has sent is of no use to others."""
    token = Client(kdc).step()
    outcomes: list[Outcome] = []
    for _ in range(2):
        provider = Kerberos("realm", KerberosSettings(str(kdc.keytab)), Threads().run)
        SaslServer(Authenticator([provider], ["GSSAPI"]), Peer()).start("GSSAPI", token, outcomes.append)
    assert isinstance(outcomes[0], Challenge)
    assert isinstance(outcomes[1], Failure)


def test_settings_that_cannot_be_used(kdc: Realm, tmp_path: Path) -> None:
    for settings in ({"keytab": str(tmp_path / "none")}, {"strip_realm": True}, {"principal": "nobody/x@EXAMPLE.ORG"},
                     {"strip_realm": True, "realms": ("A", "B")}):
        with pytest.raises(ValueError, match=r"\w"):
            Kerberos("realm", KerberosSettings(**{"keytab": str(kdc.keytab), **settings}), Threads().run)


class TicketClient(Client10):
    """Logs in to AMQP 1.0 with a ticket."""

    def __init__(self, port: int, client: Client) -> None:
        self.client = client
        super().__init__("localhost", port)

    def _log_in(self, user: str, password: str) -> None:
        self.socket.sendall(SASL_HEADER)
        assert self._read(8) == SASL_HEADER
        self.frame()
        self.send_frame(encode(state(0x41, symbol("GSSAPI"), self.client.step())), kind=1)
        code, fields, _ = self.frame()
        while code == 0x42:
            self.send_frame(encode(state(0x43, self.client.step(bytes(fields[0])))), kind=1)
            code, fields, _ = self.frame()
        assert (code, fields[0]) == (0x44, 0)
        self.socket.sendall(HEADER)
        assert self._read(8) == HEADER


def test_a_broker_of_the_realm(kdc: Realm) -> None:
    config = f'[[providers]]\nname = "realm"\nkind = "kerberos"\nkeytab = "{kdc.keytab}"\n'
    with testing.broker(config) as broker:
        TicketClient(broker.port, Client(kdc, "bob")).close()
        eventually(lambda: f"user bob@{REALM} opened vhost" in broker.log())
