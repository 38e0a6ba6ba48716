"""Pages of docs/ whose end is written from the source: `make docs`."""

from __future__ import annotations


def write(path: str, mark: str, reference: str) -> None:
    """Put the reference behind the mark in a page."""
    with open(path, encoding="utf-8") as page:
        head = page.read().partition(mark)[0]
    with open(path, "w", encoding="utf-8") as page:
        page.write(f"{head}{mark}\n{reference}")
