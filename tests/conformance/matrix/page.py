"""docs/translation.md: the table for users. `python -m tests.conformance.matrix.page FILE` writes it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conformance.matrix.table import Chapter, Limit, Table, load

HEAD = """# From AMQP 1.0 to 0-9-1 and back, value by value

What a message says to a client of the other dialect; readers of the sender's own dialect get just what was sent. This
page is written from the table that the tests hold the broker to, with Qpid Proton, rhea and pika on either side:
`<->` is so in both directions, `->` and `<-` are for messages of 1.0 and of 0-9-1 only. [AMQP 1.0 clients](amqp-1.0.md)
has the rules behind it.

Types of 1.0 have their names from the specification, a string is in quotes, `map` and `list` are written `{}` and
`[]`. Field values of 0-9-1 begin with the letter of their type: `t` boolean, `b` `B` `s` `u` `I` `i` `l` integers of 8,
16, 32 and 64 bits (`B` `u` `i` unsigned), `f` `d` float and double, `D` decimal, `S` long string, `x` bytes, `T`
timestamp, `A` array, `F` table, `V` nothing. *Marked* is a value beside which stands the header `x-opt-type-NAME`
with that text. `0x00ff` are bytes; `"k" * 300` is a long text. All 1.0 readers of a 0-9-1 message get
the annotations `x-exchange`, `x-routing-key` and `x-opt-jms-dest` besides.
"""

LIMITS = """## What the clients cannot say or see

These are bounds of the clients' libraries, not of the broker, which the tests found where they compare with the table.
"""


def page(table: Table) -> str:
    return "\n".join([HEAD, *map(_chapter, table.chapters), LIMITS, *map(_limit, table.limits)]) + "\n"


def _chapter(chapter: Chapter) -> str:
    lines = [f"## {chapter.title}", "", chapter.text, "", "| AMQP 1.0 | | AMQP 0-9-1 |", "|---|---|---|"]
    lines += [f"| {_cell(row.ten_text)} | `{row.way}` | {_cell(row.nine_text)} |" for row in chapter.rows]
    return "\n".join(lines) + "\n"


def _cell(side: Mapping[str, str]) -> str:
    """A side's fields and values; long bytes are cut."""
    return "<br>".join(f"{name} `{_short(text)}`" for name, text in side.items()) or "nothing"


def _short(text: str) -> str:
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text).replace("|", "\\|")
    return " ".join(word[:50] + "…" if len(word) > 60 and word.startswith("0x") else word for word in text.split(" "))


def _limit(limit: Limit) -> str:
    return f"- {limit.client}, to {limit.does} {', '.join(f'`{kind}`' for kind in limit.types)}:\n  {limit.reason}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(load()), encoding="utf-8")
