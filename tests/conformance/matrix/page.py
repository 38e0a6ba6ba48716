"""docs/translation.md, written from the table: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conformance.matrix.table import Chapter, Limit, Table, load

HEAD = """# Between AMQP 1.0, 0-9-1 and 0-10, value by value

<!-- Written by `make docs` from tests/conformance/matrix/*.toml. -->

This is what becomes of a message of one dialect for a reader of another. Qpid Proton, rhea and pika send and read
it all in the tests, as far as they can: what they cannot is at the end. For 0-10, the tests send and read the bytes.
[AMQP 1.0 clients](amqp-1.0.md) has the rules in short.

- The arrow says who sends: → a client of 1.0, ← one of 0-9-1, ⇐ one of 0-10, ↔ any. With ↔ a message becomes what it
  was on its way back, by whatever way.
- A reader of the sender's own dialect gets what was sent: each side is that, too.
- A side is all that the message has, but for a body that is not mentioned, which is the bytes `m`, and the
  delivery-mode 1 of 0-9-1 and 0-10.
- What comes from 0-9-1 or 0-10 has more annotations in 1.0: `x-exchange` and `x-routing-key` say where it went, and
  `x-opt-jms-dest` and `x-opt-jms-reply-to` whether that, and the reply-to, is a queue or a topic to JMS.
- A value is written with its type. Those of 0-9-1 have one letter, as in RabbitMQ's documentation: `t` boolean, `b s I
  l` signed and `B u i` unsigned of 8, 16, 32 and 64 bits, `f d` floating point, `D` decimal, `S` text, `x` bytes, `A`
  array, `F` table, `T` timestamp, `V` void. Those of 0-10 have the names of its specification. `"k" * 300` is that text
  300 times.
- `marked ulong` means that beside the header there is a second one that tells the type of the first: `x-opt-type-v`.
  `marked amqp` are bytes in AMQP 1.0's encoding.
- The reply-to of 0-10 is written as its two parts, `reply-exchange` and `reply-key`. Text of more than 65535 bytes, for
  which headers of 0-10 have no type, is bytes there, `marked string`.
- What a transfer of 0-10 says beside the message is no part of it: discard-unroutable, immediate, redelivered,
  resume-id and resume-ttl stay with its own clients, as `mandatory` does in 0-9-1.
"""

WAYS = {"->": "→", "<-": "←", "<->": "↔", "0>": "⇐"}
CLIENTS = {"proton": "Qpid Proton (Python)", "rhea": "rhea (Node)", "pika": "pika"}


def text(table: Table) -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(_chapter, table.chapters), _clients(table)])


def _chapter(chapter: Chapter) -> str:
    lines = [f"| {_cell(row.said[0])} | {WAYS[row.way]} | {_cell(row.said[1])} | {_cell(row.said[2])} |"
             for row in chapter.rows]
    head = [f"## {chapter.title}", "", chapter.text, "", "| AMQP 1.0 | | AMQP 0-9-1 | AMQP 0-10 |", "|---|---|---|---|"]
    return "\n".join([*head, *lines, ""])


def _cell(said: list[str]) -> str:
    return "<br>".join(f"`{each}`" for each in said) or "nothing"


def _clients(table: Table) -> str:
    """What the clients make of it."""
    lines = ["## What the clients show", "", "What an application gets for a value, and what its client cannot do.", ""]
    for client, title in CLIENTS.items():
        lines += [f"### {title}", "", "| Value | In the application |", "|---|---|"]
        kinds: dict[str, list[str]] = {}
        for kind, shown in table.shown[client].items():
            kinds.setdefault(shown, []).append(kind)
        lines += [f"| {', '.join(f'`{each}`' for each in of)} | `{shown}` |" for shown, of in kinds.items()]
        limits = [limit for limit in table.limits if limit.client == client]
        lines += ["", *(["| It cannot always | | Because |", "|---|---|---|"] if limits else []), *map(_limit, limits)]
        lines += [""] if limits else []
    return "\n".join(lines)


def _limit(limit: Limit) -> str:
    of = ", ".join(f"`{each}`" for each in limit.types)
    where = f" in {', '.join(f'`{each}`' for each in limit.fields)}" if limit.fields else ""
    return f"| {limit.does} | {of}{where} | {limit.reason} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(load()), encoding="utf-8")
