"""A compiled class has no subclasses in plain Python, unless it says that it may: found here without compiling."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXCEPTIONS = ("Exception", "ValueError", "ConnectionError")
"""Bases of which mypyc leaves classes open."""


def hot() -> set[str]:
    """The modules that setup.py compiles."""
    found = {node.targets[0].id: ast.literal_eval(node.value)
             for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
             if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
             and node.targets[0].id in ("FOLDERS", "COLD")}
    return {module(path) for folder in found["FOLDERS"] for path in ROOT.glob(folder)
            if path.name != "__init__.py" and str(path.relative_to(ROOT)) not in found["COLD"]}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def classes(path: Path) -> Iterator[tuple[ast.ClassDef, list[str]]]:
    """The classes of a file, each with its bases as `module.Name`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        elif isinstance(node, ast.Import):
            names.update({alias.asname or alias.name: alias.name for alias in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
            yield node, [".".join([names.get(base.partition(".")[0], f"{module(path)}.{base.partition('.')[0]}"),
                                   *filter(None, [base.partition(".")[2]])]) for base in bases]


def test_bases_may_be_derived_from() -> None:
    compiled = hot()
    assert "broker.queue" in compiled and "dragoman.server" not in compiled
    found = {module(path): list(classes(path)) for folder in ("store", "broker", "protocols", "interop", "dragoman",
                                                              "tests")
             for path in sorted((ROOT / folder).rglob("*.py"))}
    open_ones, exceptions = set(), set[str]()
    for name in found:
        for node, bases in found[name]:
            if any("allow_interpreted_subclasses=True" in ast.unparse(each) for each in node.decorator_list):
                open_ones.add(f"{name}.{node.name}")
            if any(base in exceptions or base.rpartition(".")[2] in EXCEPTIONS for base in bases):
                exceptions.add(f"{name}.{node.name}")
    wrong = [f"{name}.{node.name} derives from {base}" for name in found if name not in compiled
             for node, bases in found[name] for base in bases
             if base.rpartition(".")[0] in compiled and base not in open_ones and base not in exceptions]
    assert wrong == []
