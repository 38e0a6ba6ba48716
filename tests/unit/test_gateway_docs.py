"""The use cases of docs/gateway/ with Dragomans in the place of other brokers. With the real ones: `make interop
ARGS=gateway_docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gateway_pages as pages  # noqa: E402 - only now it can be found
from peers import free_ports  # noqa: E402

from dragoman.config import parse  # noqa: E402


def test_mirror(tmp_path: Path) -> None:
    (tmp_path / "rabbit").mkdir()
    with pages.stand_in(tmp_path / "rabbit") as rabbit, pages.stand_in(tmp_path) as qpid:
        pages.mirror(tmp_path, rabbit, qpid)


def test_drain(tmp_path: Path) -> None:
    with pages.stand_in(tmp_path) as qpid:
        pages.drain(tmp_path, qpid, has_qmf=True)


def test_requests(tmp_path: Path) -> None:
    def declare(estate: pages.Estate, queues: list[str]) -> None:
        channel = estate.channel(backend.url)
        for queue in queues:
            channel.queue_declare(queue, durable=True)
    with pages.stand_in(tmp_path) as backend:
        pages.requests(tmp_path, backend, declare)


def test_federation(tmp_path: Path) -> None:
    with pages.stand_in(tmp_path) as qpid:
        pages.federation(tmp_path, qpid, free_ports(2))


def test_devices(tmp_path: Path) -> None:
    with pages.stand_in(tmp_path) as mosquitto:
        pages.devices(tmp_path, mosquitto)


def test_store_and_forward(tmp_path: Path) -> None:
    with pages.stand_in(tmp_path) as hq:
        pages.store_and_forward(tmp_path, hq)


@pytest.mark.parametrize("page", sorted(pages.PAGES.glob("*.md")), ids=lambda page: page.name)
def test_configurations(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert all(parse(block).link for block in found)
    assert found or page.name == "remotes.md"  # which is about adapters, not a use case
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_the_readme_leads_to_every_page() -> None:
    readme = (pages.ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in pages.PAGES.glob("*.md") if f"(docs/gateway/{page.name})" not in readme] == []
