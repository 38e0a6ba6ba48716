"""Every value from every client to every client, against one table (matrix/*.toml, docs/translation.md).

Each test is one row on its way from one client to another; the messages of all rows go together. What a client cannot
say or read is in the table, with the reason, and is tested to be so. `make interop` adds rhea (matrix/with_rhea.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proton import Data

from tests.conformance.matrix import page, sections10
from tests.conformance.matrix.client010 import Raw010
from tests.conformance.matrix.clients091 import Pika, Raw
from tests.conformance.matrix.mqtt_client import Paho, Paho311
from tests.conformance.matrix.proton_client import Proton, message_of
from tests.conformance.matrix.run import Runs, check_limits, ways
from tests.conformance.matrix.table import Row, load
from tests.conformance.support import Target

TABLE = load()
CLIENTS = (Proton, Pika, Raw, Raw010, Paho, Paho311)


@pytest.fixture(scope="module")
def runs(target: Target) -> Iterator[Runs]:
    runs = Runs(TABLE, target)
    yield runs
    runs.close()


@pytest.mark.parametrize(("sender", "reader", "row"), ways(TABLE, CLIENTS, CLIENTS))
def test_matrix(runs: Runs, sender: type, reader: type, row: Row) -> None:
    runs.run(sender, reader).check(row)


@pytest.mark.parametrize("client", CLIENTS)
def test_what_a_client_cannot_do(client: Any) -> None:
    check_limits(TABLE, client)


def test_what_an_application_gets(runs: Runs) -> None:
    for client in (Proton, Pika):
        samples = TABLE.samples(client.dialect)
        assert {kind: client.kind(value) for kind, value in samples.items()} == TABLE.shown[client.name]


def test_most_messages_are_made_as_an_application_makes_them() -> None:
    sent = [row.ten for row in TABLE.rows if row.sent_by("ten")]
    assert sum(message_of(side) is not None for side in sent) > 0.9 * len(sent)


def test_bytes_marked_amqp_are_the_value_in_the_encoding_of_1_0() -> None:
    """The table has them in hexadecimal, so that the broker's own encoding is not its own measure."""
    seen = 0
    for row in TABLE.rows:
        for key in ("v", "x-opt-v"):
            headers = row.nine.get("headers", {})
            if headers.get(f"x-opt-type-{key}") == ["S", "amqp"]:
                data = Data()
                data.decode(bytes.fromhex(headers[key][1]))
                data.rewind()
                data.next()
                assert sections10.take(data) == {**row.ten.get("properties", {}), **row.ten.get("annotations", {})}[key]
                seen += 1
    assert seen > 20


def test_the_page_is_the_table() -> None:
    written = (Path(__file__).parents[2] / "docs" / "translation.md").read_text(encoding="utf-8")
    assert written == page.text(TABLE), "`make docs` writes it anew"
