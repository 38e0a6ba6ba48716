"""Inputs for what reads files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def file_of(data: bytes) -> Iterator[str]:
    """The path of a file with this in it."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name
