"""The configuration as text for people: `dragoman config show`, and the tables of docs/configuration.md."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

from dragoman.config import AUTO_CREATE, LIMIT, LISTENERS, LISTS, PROVIDERS, SECTIONS, Config
from dragoman.config_gateway import BRIDGE, LINK
from dragoman.config_keys import Key, Kind, keys
from dragoman.config_providers import PROVIDER_KINDS
from dragoman.pages import write

MARK = "<!-- What follows is written by `make docs` from dragoman/config.py. -->\n"

_SIZES = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_DURATIONS = (("d", 86400), ("h", 3600), ("min", 60))

_ABOUT = {LISTENERS: "One section for each; without any, there is one on 127.0.0.1:5672, and with `tls.certificate` "
                     "set another on 127.0.0.1:5671 with `tls = \"always\"`.",
          AUTO_CREATE: "One section for each; the first whose pattern fits counts. Without any, nothing is made.",
          LIMIT: "docs/limits.md is about them.",
          LINK: "One section for each; docs/gateway.md is about them.",
          BRIDGE: "One section for each."}
"""What the documentation says besides of sections that there may be any number of."""


def show(config: Config) -> str:
    """The whole configuration as TOML, with a comment for each key; reading it again gives the same."""
    lines = ["# The configuration in effect; a file needs only what differs from the defaults.", ""]
    lines += _table(Config, config)
    for name, of in LISTS.items():
        for each in getattr(config, name):
            lines += ["", f"# {_first_line(of)}", f"[[{name}]]", *_table(of, each)]
    for provider in config.providers:
        lines += ["", f"# {_first_line(type(provider))}", f"[[{PROVIDERS}]]", *_table(type(provider), provider)]
    for name, of in SECTIONS.items():
        lines += ["", f"# {_first_line(of)}", f"[{name}]", *_table(of, getattr(config, name))]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The part of docs/configuration.md that lists every key."""
    parts = [_reference("At the top of the file", "Before the first `[section]`.", Config)]
    parts += [_reference(f"`[[{name}]]`", f"{_first_line(of)} {_ABOUT.get(name, '')}".rstrip(), of)
              for name, of in LISTS.items()]
    parts += [_reference(f'`[[{PROVIDERS}]]` with `kind = "{kind}"`', f"{_first_line(of)} One section for each.", of)
              for kind, of in PROVIDER_KINDS.items()]
    parts += [_reference(f"`[{name}]`", _first_line(of), of) for name, of in SECTIONS.items()]
    return "\n".join(parts)


def written(kind: Kind, value: Any) -> str:
    """A value as one writes it in the file."""
    if kind is Kind.BOOLEAN:
        return "true" if value else "false"
    if kind in (Kind.TEXTS, Kind.PATHS):
        return f"[{', '.join(_quoted(each) for each in value)}]"
    if kind in (Kind.TABLE, Kind.PATH_TABLE):
        pairs = ", ".join(f"{_quoted(name)} = {_plain(each)}" for name, each in value)
        return f"{{ {pairs} }}" if pairs else "{}"
    if kind is Kind.TABLES:
        return f"[{', '.join(_inline(each) for each in value)}]"
    if kind in (Kind.TEXT, Kind.PATH):
        return _quoted(value)
    units = _SIZES if kind is Kind.SIZE else _DURATIONS if kind is Kind.SECONDS else ()
    for unit, of in units:
        if value and value % of == 0:
            return f'"{value // of} {unit}"'
    return f'"{value} s"' if kind is Kind.SECONDS and value else str(value)


def _table(of: type, values: Any) -> list[str]:
    lines = []
    for name, key, default in keys(of):
        lines += [f"# {line}" for line in textwrap.wrap(f"{key.help} {_allowed(key)}".strip(), 110)]
        value = written(key.kind, getattr(values, name))
        changed = "" if getattr(values, name) == default else f"  # default: {written(key.kind, default)}"
        lines.append(f"{name} = {value}{changed}")
    return lines


def _reference(title: str, text: str, of: type) -> str:
    rows = [f"| `{name}` | {key.kind.value} | `{written(key.kind, default)}` | {key.help} {_notes(key)}".rstrip() + " |"
            for name, key, default in keys(of)]
    head = "| Key | Value | Default | Meaning |"
    return "\n".join([f"## {title}", "", text, "", head, "|---|---|---|---|", *rows, ""])


def _notes(key: Key) -> str:
    return " ".join(filter(None, [_allowed(key, "`"), "Needs a restart." if key.restart else ""]))


def _allowed(key: Key, quote: str = "") -> str:
    if key.choices:
        return f"One of {', '.join(quote + written(Kind.TEXT, each) + quote for each in key.choices)}." \
            if key.kind is Kind.TEXT else f"Any of {', '.join(quote + _quoted(each) + quote for each in key.choices)}."
    if key.kind in (Kind.NUMBER, Kind.SIZE, Kind.SECONDS):
        least = f"At least {key.minimum}" if key.minimum else ""
        most = f"at most {key.maximum}" if key.maximum else ""
        both = ", ".join(filter(None, [least, most]))
        return both[0].upper() + both[1:] + "." if both else ""
    return ""


def _plain(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)


def _inline(value: Any) -> str:
    """A value of whatever kind, in one line."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_quoted(name)} = {_inline(each)}" for name, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_inline(each) for each in value)}]"
    return _plain(value)


def _quoted(text: str) -> str:
    # TOML's basic strings are JSON's, but for DEL, and for surrogates, which cannot have come from a file
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _first_line(of: type) -> str:
    return (of.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    write(sys.argv[1], MARK, reference())
