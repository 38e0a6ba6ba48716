"""The connection's state machine under fire: random clients, valid and broken, over a broker in memory.

FUZZ_SECONDS=300 has it go on for so long (`make fuzz`); FUZZ_SEED=number plays one run again. A seed that fails is kept
in build/fuzz/seeds.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import secrets
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.security.sasl import Success
from protocols.amqp091.frames import PROTOCOL_HEADERS, V091
from protocols.detect import MQTT, Unknown, protocol_header
from tests.fuzz.session import Client, Session, guests
from tests.fuzz.session010 import Session010
from tests.fuzz.session10 import Session10
from tests.fuzz.session_mqtt import ClientMqtt, SessionMqtt

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
RUNS = 150
SEEDS = Path(__file__).resolve().parents[2] / "build" / "fuzz" / "seeds"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Every refusal is logged, and there are many."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(120 + 2 * SECONDS)
@pytest.mark.parametrize("kind", [Session, Session010, Session10, SessionMqtt])
def test_no_client_brings_down_the_broker(kind: type[Session], capsys: pytest.CaptureFixture[str]) -> None:
    if "FUZZ_SEED" in os.environ:
        kind(int(os.environ["FUZZ_SEED"])).run()
        return
    seeds = random.SystemRandom()
    end = time.monotonic() + SECONDS
    runs = 0
    while runs < RUNS or time.monotonic() < end:
        seed = seeds.randrange(1 << 48)
        try:
            kind(seed).run()
        except Exception as error:
            SEEDS.parent.mkdir(parents=True, exist_ok=True)
            with SEEDS.open("a") as kept:
                kept.write(f"{seed}\n")
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise AssertionError(f"FUZZ_SEED={seed}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})"
                                 ) from error
        runs += 1
    with capsys.disabled():
        if SECONDS:
            print(f"\n{runs} random sessions, and the broker is well")


@pytest.mark.parametrize("seed", range(30))
def test_how_input_is_cut_makes_no_difference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets cut where they like."""
    outputs = []
    for pieces in (1 << 30, 1, 7, 500):
        names = itertools.count()
        monkeypatch.setattr(secrets, "token_urlsafe", lambda _size, names=names: f"name-{next(names)}")
        session = Session(seed)
        client = Client(session.broker, V091, "client")
        data = client.login() + session.topology(V091)
        for _ in range(40):
            data += session.message(V091) if session.random.random() < 0.5 else session.method(client)
        data = data if seed % 3 else session.mutated(data)
        for at in range(0, len(data), pieces):
            client.connection.receive(data[at:at + pieces])
        client.flush()
        outputs.append(client.frames())
    assert outputs[1] == outputs[0] and outputs[2] == outputs[0] and outputs[3] == outputs[0]


@pytest.mark.parametrize("seed", range(30))
def test_how_input_of_mqtt_is_cut_makes_no_difference(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for pieces in (1 << 30, 1, 7, 5000):
        names = itertools.count()
        monkeypatch.setattr(secrets, "token_urlsafe", lambda _size, names=names: f"name-{next(names)}")
        session = SessionMqtt(seed)
        client = ClientMqtt(session.broker, session.sessions, "client", 3 + seed % 3)
        data = session.login(client) + b"".join(session.part(client) for _ in range(40))
        data = data if seed % 4 else session.mutated(data)
        for at in range(0, len(data), pieces):
            client.connection.receive(data[at:at + pieces])
        client.flush()
        outputs.append(client.packets(0))
    assert outputs[1] == outputs[0] and outputs[2] == outputs[0] and outputs[3] == outputs[0]


@given(st.binary(max_size=20))
def test_any_bytes_are_a_dialect_or_not(data: bytes) -> None:
    try:
        header = protocol_header(data, PROTOCOL_HEADERS)
    except Unknown:
        assert not any(known.startswith(data[:8]) for known in PROTOCOL_HEADERS)
    else:
        if header == MQTT:
            assert data[:1] == MQTT
        else:
            assert header == data[:8] if header else len(data) < 8 and data[:4] == b"AMQP"[:len(data)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "AMQPLAIN", "ANONYMOUS", "SCRAM-SHA-256", "none"])
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_any_login_has_an_outcome(mechanism: str, responses: list[bytes]) -> None:
    server = guests("PLAIN", "AMQPLAIN", "ANONYMOUS", "SCRAM-SHA-256", anonymous_user="somebody")
    outcomes: list[object] = []
    server.start(mechanism, responses[0], outcomes.append)
    for response in responses[1:]:
        server.step(response, outcomes.append)
    assert len(outcomes) == len(responses)
    users_let_in = {outcome.user for outcome in outcomes if isinstance(outcome, Success)}
    assert users_let_in <= {"guest", "somebody"}
