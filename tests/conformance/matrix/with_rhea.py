"""rhea in the matrix, to and from the others: run by `python tests/conformance/run_interop.py matrix`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.matrix.clients091 import Pika, Raw
from tests.conformance.matrix.proton_client import Proton
from tests.conformance.matrix.rhea_client import AGENT, Rhea
from tests.conformance.matrix.run import Running, check, pairs, unexplained
from tests.conformance.matrix.table import Row, load
from tests.conformance.support import Target

TABLE = load()
OTHERS = (Proton, Pika, Raw)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    url = urlsplit(os.environ["AMQP_URL"])
    assert url.hostname is not None and url.port is not None
    running = Running(TABLE, Target(url.hostname, url.port, peer=False))
    yield running
    running.close()
    AGENT.stop()


@pytest.mark.parametrize(("sender", "reader", "row"), [
    *pairs(TABLE, [Rhea], [Rhea, *OTHERS]), *pairs(TABLE, OTHERS, [Rhea])])
def test_matrix(running: Running, sender: Any, reader: Any, row: Row) -> None:
    check(running.run(sender, reader), row)


def test_what_is_left_out_has_a_reason(running: Running) -> None:
    assert unexplained(TABLE, Rhea) == []
