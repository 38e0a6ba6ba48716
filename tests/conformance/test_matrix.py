"""Every value from every client to every client, against one table (matrix/table.toml, docs/translation.md).

Each test is one row on its way from one client to another; the messages of all rows go together. What a client cannot
say or read is in the table, with the reason. rhea is in matrix/with_rhea.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.matrix.clients091 import Pika, Raw
from tests.conformance.matrix.page import page
from tests.conformance.matrix.proton_client import Proton
from tests.conformance.matrix.run import Running, check, pairs, unexplained
from tests.conformance.matrix.table import Row, load
from tests.conformance.support import Target

TABLE = load()
CLIENTS = (Proton, Pika, Raw)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "translation.md"


@pytest.fixture(scope="module")
def running(target: Target) -> Iterator[Running]:
    running = Running(TABLE, target)
    yield running
    running.close()


@pytest.mark.parametrize(("sender", "reader", "row"), pairs(TABLE, CLIENTS, CLIENTS))
def test_matrix(running: Running, sender: Any, reader: Any, row: Row) -> None:
    check(running.run(sender, reader), row)


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_left_out_has_a_reason(client: Any) -> None:
    assert unexplained(TABLE, client) == []


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(TABLE), "run `make docs`"
