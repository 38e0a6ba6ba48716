"""rhea in the matrix (test_matrix.py): `python tests/conformance/run_interop.py matrix` installs it and runs this.

With the tests there these are all ways between Proton, rhea and pika.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.conformance.matrix.client010 import Raw010
from tests.conformance.matrix.clients091 import Pika, Raw
from tests.conformance.matrix.mqtt_client import Paho
from tests.conformance.matrix.proton_client import Proton
from tests.conformance.matrix.rhea_client import AGENT, Rhea
from tests.conformance.matrix.run import Runs, check_limits, ways
from tests.conformance.matrix.table import Row, load
from tests.conformance.support import Target

pytestmark = pytest.mark.interop

TABLE = load()
OTHERS = (Proton, Pika, Raw, Raw010, Paho)


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    url = urlsplit(os.environ["AMQP_URL"])
    assert url.hostname and url.port
    runs = Runs(TABLE, Target(url.hostname, url.port, peer=False))
    yield runs
    runs.close()
    AGENT.stop()


@pytest.mark.parametrize(("sender", "reader", "row"),
                         ways(TABLE, [Rhea], [Rhea, *OTHERS]) + ways(TABLE, OTHERS, [Rhea]))
def test_matrix(runs: Runs, sender: type, reader: type, row: Row) -> None:
    runs.run(sender, reader).check(row)


def test_what_rhea_cannot_do(runs: Runs) -> None:
    check_limits(TABLE, Rhea)


def test_what_an_application_gets(runs: Runs) -> None:
    assert {kind: Rhea.kind(value) for kind, value in TABLE.samples("ten").items()} == TABLE.shown["rhea"]
