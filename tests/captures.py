"""Recorded conversations of other people's clients and brokers (tests/protocol/captures010/).

A file has lines of `# name: text` and then, for each frame and protocol header in the order in which they went by,
`CONNECTION DIRECTION HEX`: the connection's number from 1, > from the client or < from the broker. A byte that is
repeated is written [61*1000]; `CONNECTION DIRECTION end` is where that side closed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "protocol" / "captures010"
REPEATED = re.compile(r"\[(..)\*(\d+)\]")


@dataclass(frozen=True)
class Line:
    """One frame or protocol header, whole; `data` is empty at the end of a direction."""

    connection: int
    from_client: bool
    data: bytes


def names() -> list[str]:
    """The captures there are, for read()."""
    return sorted(file.stem for file in FOLDER.glob("*.txt"))


def read(name: str) -> list[Line]:
    """All lines of a capture, in order."""
    lines = []
    for text in (FOLDER / f"{name}.txt").read_text().splitlines():
        if not text.startswith("#"):
            number, direction, data = text.split(" ")
            whole = "" if data == "end" else REPEATED.sub(lambda run: run[1] * int(run[2]), data)
            lines.append(Line(int(number), direction == ">", bytes.fromhex(whole)))
    return lines


def stream(name: str, from_client: bool, connection: int = 1) -> bytes:
    """All that one side sent on a connection."""
    lines = read(name)
    return b"".join(line.data for line in lines if line.from_client == from_client and line.connection == connection)
