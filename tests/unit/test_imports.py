"""The law of imports: each floor knows only those below it, and front-ends do no I/O."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "store": set[str](),
    "broker": {"store"},
    "protocols": {"broker"},
    "interop": {"broker", "protocols"},
    "dragoman": {"store", "broker", "protocols", "interop"},
}
OUTSIDE = {"socket", "asyncio", "selectors", "threading", "multiprocessing", "time", "uvloop", "tests"}
MODULES = sorted(path.relative_to(ROOT) for floor in MAY_IMPORT for path in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """What a file imports, wherever in it and however conditionally."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not our habit"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_floor_knows_only_those_below(path: Path) -> None:
    floor = path.parts[0]
    above = set(MAY_IMPORT) - MAY_IMPORT[floor] - {floor} | {"tests"}
    assert [name for name in imported(path) if name.partition(".")[0] in above] == []


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "protocols"], ids=str)
def test_front_ends_know_no_other_and_no_outside_world(path: Path) -> None:
    front_ends = {folder.name for folder in (ROOT / "protocols").iterdir() if folder.is_dir()}
    own = path.parts[1]
    found = [name.split(".") for name in imported(path)]
    assert [name for name in found if name[0] == "protocols" and name[1] in front_ends - {own}] == []
    assert [name for name in found if name[0] in OUTSIDE] == []


def test_imports_of_every_form_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text("import x.y\nfrom z import w\ndef f():\n    if x:\n        from u.v import t as s\n")
    assert list(imported(file)) == ["x.y", "z.w", "u.v.t"]
