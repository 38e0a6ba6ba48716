"""What fuzzing found stays found: inputs that broke a parser once (tests/fuzz/findings/), and those it begins with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.cost import bomb
from tests.fuzz.targets import TARGETS

FINDINGS = sorted((Path(__file__).parent / "findings").iterdir())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Every refusal is logged, and there are many."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_what_was_found_breaks_nothing(path: Path) -> None:
    target = TARGETS[path.name.rpartition("-")[0]]
    assert not bomb(target, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_its_seeds(name: str) -> None:
    target = TARGETS[name]
    seeds = [b"", *target.seeds()]
    assert len(seeds) > 1
    for seed in seeds[:30]:
        target(seed)


def test_a_bomb_is_noticed() -> None:
    def run(data: bytes) -> None:
        for _ in range(len(data) ** 2):
            pass
    assert bomb(run, bytes(2000)) and not bomb(run, bytes(10))
