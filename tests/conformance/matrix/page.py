"""docs/translation.md, written from the table: `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conformance.matrix.table import Chapter, Limit, Table, load

HEAD = """# Between AMQP 1.0, 0-9-1, 0-10 and MQTT, value by value

<!-- Written by `make docs` from tests/conformance/matrix/*.toml. -->

This is what becomes of a message of one dialect for a reader of another. Qpid Proton, rhea, pika and paho-mqtt send
and read it all in the tests, as far as they can: what they cannot is at the end. For 0-10, the tests send and read the
bytes. [AMQP 1.0 clients](amqp-1.0.md) has the rules in short; what MQTT has no property for is [below](#mqtt).

- The arrow says who sends: → a client of 1.0, ← one of 0-9-1, ⇐ one of 0-10, ⇒ one of MQTT, ↔ any. With ↔ a message
  becomes what it was on its way back, by whatever way.
- A reader of the sender's own dialect gets what was sent: each side is that, too.
- A side is all that the message has, but for a body that is not mentioned, which is the bytes `m`, and the
  delivery-mode 1 of 0-9-1 and 0-10, and the QoS 0 of MQTT.
- What comes from 0-9-1 or 0-10 has more annotations in 1.0: `x-exchange` and `x-routing-key` say where it went, and
  `x-opt-jms-dest` and `x-opt-jms-reply-to` whether that, and the reply-to, is a queue or a topic to JMS.
- A value is written with its type. Those of 0-9-1 have one letter, as in RabbitMQ's documentation: `t` boolean, `b s I
  l` signed and `B u i` unsigned of 8, 16, 32 and 64 bits, `f d` floating point, `D` decimal, `S` text, `x` bytes, `A`
  array, `F` table, `T` timestamp, `V` void. Those of 0-10 have the names of its specification. `"k" * 300` is that
  text 300 times.
- `marked ulong` means that beside the header there is a second one that tells the type of the first: `x-opt-type-v`.
  `marked amqp` are bytes in AMQP 1.0's encoding.
- The reply-to of 0-10 is written as its two parts, `reply-exchange` and `reply-key`. Text of more than 65535 bytes,
  for which headers of 0-10 have no type, is bytes there, `marked string`.
- The values of user properties are text; one that was none has a second one beside it, `x-opt-type-v`, that tells what
  it was: `marked uint`. What is `marked amqp` or `marked binary` is in base64.
- What comes from MQTT has the header (application property) `x-mqtt-client-id`, and the user-id of its client. So the
  `x-user-id` that stands for the user-id of others is what clients of MQTT can read, and not say. Those of 3.1.1 get
  the payload, and send it, and nothing else.
- What a transfer of 0-10 says beside the message is no part of it: discard-unroutable, immediate, redelivered,
  resume-id and resume-ttl stay with its own clients, as `mandatory` does in 0-9-1.

## MQTT

- **User properties** are headers, and application properties, of the same names. Where there are several of a name, a
  header has the first of them, and all, in their order, are in the annotation (header) `x-opt-mqtt-user-properties`,
  from which the way back restores them.
- **Topics** are routing keys of `amq.topic`: `a/b` is `a.b`. A **response topic** `a/b` is the reply-to
  `amq.topic/a.b`. A reply-to that is a queue becomes the response topic `$queue/NAME`, one that is of another exchange
  `$exchange/NAME/KEY`: clients of MQTT may publish to these, and only these, topics with a `$`, so they can answer
  requests of AMQP. (`%`, `+`, `#`, control characters, and the `/` in an exchange's name are written as in URLs:
  `%2F`.)
- **Correlation data** that is UTF-8 is text to others, and bytes if not; a uuid is written as its URN.
- **QoS** 1 and 2 are durable. QoS 2 is the header `x-mqtt-qos` of 2, and a message to be retained has `x-mqtt-retain`
  true; publishers of AMQP may set them, too. QoS 2 wants a durable message.
- **Message expiry** is in seconds, rounded up. The ms of a time to live are in `x-opt-ttl` when they are not whole
  seconds.
- **Payloads** that are said to be UTF-8, or have a content type `text/...`, are text to readers of 1.0, unless they
  have another content type. Maps, lists and other values are JSON for readers of MQTT; `x-opt-body` says what they
  were, and `x-opt-body-types` the types that JSON does not say, by JSON pointers: `{"/0":"int"}`. What JSON cannot say
  is in AMQP 1.0's encoding, of content type `application/vnd.amqp`.
- Text that is too long for a user property, or has control characters, which some clients end the connection for, is
  in JSON in `x-opt-long-properties`: as many of these, one behind the other, as it takes.
"""

WAYS = {"->": "→", "<-": "←", "<->": "↔", "0>": "⇐", "M>": "⇒"}
CLIENTS = {"proton": "Qpid Proton (Python)", "rhea": "rhea (Node)", "pika": "pika", "paho": "paho-mqtt",
           "paho-3.1.1": "paho-mqtt as a client of 3.1.1"}


def text(table: Table) -> str:
    """The whole page."""
    return "\n".join([HEAD, *map(_chapter, table.chapters), _clients(table)])


def _chapter(chapter: Chapter) -> str:
    lines = [f"| {_cell(row.said[0])} | {WAYS[row.way]} | {_cell(row.said[1])} | {_cell(row.said[2])} | "
             f"{_cell(row.said[3])} |"
             for row in chapter.rows]
    head = [f"## {chapter.title}", "", chapter.text, "", "| AMQP 1.0 | | AMQP 0-9-1 | AMQP 0-10 | MQTT 5 |",
            "|---|---|---|---|---|"]
    return "\n".join([*head, *lines, ""])


def _cell(said: list[str]) -> str:
    return "<br>".join(f"`{each}`" for each in said) or "nothing"


def _clients(table: Table) -> str:
    """What the clients make of it."""
    lines = ["## What the clients show", "", "What an application gets for a value, and what its client cannot do.", ""]
    for client, title in CLIENTS.items():
        lines += [f"### {title}", ""]
        kinds: dict[str, list[str]] = {}
        for kind, shown in table.shown.get(client, {}).items():  # to MQTT, all is text
            kinds.setdefault(shown, []).append(kind)
        lines += ["| Value | In the application |", "|---|---|"] if kinds else []
        lines += [f"| {', '.join(f'`{each}`' for each in of)} | `{shown}` |" for shown, of in kinds.items()]
        limits = [limit for limit in table.limits if limit.client == client]
        lines += [""] if kinds else []
        lines += ["| It cannot always | | Because |", "|---|---|---|", *map(_limit, limits)] if limits else []
        lines += [""] if limits else []
    return "\n".join(lines)


def _limit(limit: Limit) -> str:
    of = ", ".join(f"`{each}`" for each in limit.types)
    where = f" in {', '.join(f'`{each}`' for each in limit.fields)}" if limit.fields else ""
    return f"| {limit.does} | {of}{where} | {limit.reason} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(load()), encoding="utf-8")
