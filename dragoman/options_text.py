"""docs/queue-options.md, written from the table of options: `make docs`."""

from __future__ import annotations

import sys

from broker.arguments import BINDING, CONSUMER, EXCHANGE_OPTIONS, QUEUE
from broker.option import FLAG, IGNORED, LONGEST, NUMBER, WORD, Option
from dragoman.pages import write

MARK = "<!-- What follows is written by `make docs` from broker/arguments.py. -->\n"

_PARTS = (
    ("Queues", "Arguments of a queue's declaration.", QUEUE),
    ("Exchanges", "Arguments of an exchange's declaration.", EXCHANGE_OPTIONS),
    ("Bindings", "Arguments of a binding. A headers exchange compares all others with the messages' headers.", BINDING),
    ("Consumers", "Arguments of a subscription: `basic.consume` of 0-9-1, `message.subscribe` of 0-10.", CONSUMER),
)

_HEAD = "| RabbitMQ's name | Qpid's names | Broker-J's attribute | Value | Default | Meaning |"


def reference() -> str:
    """The part of the page that lists every option."""
    parts = []
    for title, text, table in _PARTS:
        rows = [_row(option) for option in table if option.kind != IGNORED]
        parts += [f"## {title}", "", text, "", _HEAD, "|---|---|---|---|---|---|", *rows, ""]
        ignored = [option for option in table if option.kind == IGNORED]
        if ignored:
            parts += ["| Taken, and without effect | Because |", "|---|---|"]
            parts += [f"| {_names(option.names())} | {option.text} |" for option in ignored]
            parts.append("")
    return "\n".join(parts)


def _row(option: Option) -> str:
    return (f"| {_names(option.rabbit)} | {_names(option.qpid)} | {_names(option.model)} | {_value(option)} "
            f"| {_default(option)} | {option.text} |")


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _value(option: Option) -> str:
    if option.kind == WORD:
        return " ".join(f"`{word}`" for word in option.words)
    if option.kind != NUMBER:
        return option.kind
    unit = f", {option.unit}" if option.unit else ""
    if option.high is not None and option.high < LONGEST // 1000:
        return f"{option.low} to {option.high}{unit}"
    return f"number{unit}"


def _default(option: Option) -> str:
    if option.default_text:
        return option.default_text
    if option.kind in (FLAG, WORD, NUMBER) and option.default is not None:
        value = str(option.default).lower()
        return f"`{value}`"
    return "none"


if __name__ == "__main__":
    write(sys.argv[1], MARK, reference())
