"""For all tests: PURE=1 runs the Python sources, even where compiled modules lie beside them."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

if os.environ.get("PURE"):
    os.environ["DRAGOMAN_PURE"] = "1"  # which brokers that tests start inherit

import dragoman  # noqa: E402 - it decides, when imported, which modules the others find

ROOT = Path(__file__).resolve().parent.parent

hypothesis.settings.register_profile("dragoman", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("dragoman")


def pytest_report_header() -> str:
    return dragoman.version_line()


def pytest_sessionstart() -> None:
    """Refuse to test anything but what was asked for: compiled modules that are not there, or yesterday's, which hide
    their sources."""
    if not dragoman.compiled():
        if os.environ.get("DRAGOMAN_COMPILE") == "1" and not os.environ.get("PURE"):
            pytest.exit("DRAGOMAN_COMPILE=1, but nothing is compiled here: `make build` compiles", 4)
        return
    built = max(module.stat().st_mtime for module in (ROOT / "broker").glob("_compiled*.so"))  # it holds all the code
    for folder in ("broker", "protocols", "store"):
        for module in (ROOT / folder).rglob("*.so"):
            source = module.parent / (module.name.partition(".")[0] + ".py")
            if not module.name.startswith("_compiled") and (not source.exists() or source.stat().st_mtime > built):
                pytest.exit(f"{module.relative_to(ROOT)} is not of {source.name} as it is now: `make build` compiles "
                            "anew, PURE=1 tests the sources", 4)
