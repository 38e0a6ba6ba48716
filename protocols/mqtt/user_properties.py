"""The user properties of MQTT 5: names and values, of at most 65535 bytes, that every client takes."""

from __future__ import annotations

import re
from typing import Any, Final

from protocols.markers import LONGEST, MARKER
from protocols.mqtt.content import LONGEST_STRING
from protocols.mqtt.texts import dump_ascii, load
from protocols.side_headers import SUBJECT, is_text

LONG_PROPERTIES: Final = "x-opt-long-properties"
"""User properties that would be too long, or hold what not all clients take, in JSON: as many of this name, in
pieces, as it needs."""

_OWN: Final = frozenset([SUBJECT, "JMSXGroupID", "JMSXGroupSeq"])

_CONTROL: Final = re.compile(
    rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xef\xb7[\x90-\xaf]|\xef\xbf[\xbe\xbf]|[\xf0-\xf4][\x8f\x9f\xaf\xbf]\xbf[\xbe\xbf]")
"""What a receiver may close the connection for (1.5.4 of MQTT 5.0): some do."""


def read_pairs(pairs: list[bytes]) -> tuple[dict[str, Any], bool]:
    """User properties by name, the first of each; and whether all are plain: no two of a name, none of ours."""
    headers: dict[str, Any] = {}
    plain = True
    pieces: list[str] = []
    for at in range(0, len(pairs), 2):
        name = pairs[at].decode("utf-8", "replace")
        value = pairs[at + 1].decode("utf-8", "replace")
        if name.startswith("x-"):
            plain = False
            if name == LONG_PROPERTIES:
                pieces.append(value)
                continue
        elif name in headers:
            plain = False
            continue
        elif name in _OWN or len(pairs[at]) > LONGEST or not (name.isprintable() and value.isprintable()):
            plain = False
        headers.setdefault(name, value)
    if pieces:
        _read_long("".join(pieces), headers)
    return headers, plain


def _read_long(text: str, headers: dict[str, Any]) -> None:
    try:
        found = load(text)
        if isinstance(found, dict) and all(type(value) is str for value in found.values()):
            for name, value in found.items():
                headers.setdefault(name, value)
            return
    except ValueError:
        pass
    headers[LONG_PROPERTIES] = text


def is_string(data: bytes) -> bool:
    """Whether MQTT can carry it as one (1.5.4)."""
    return len(data) <= LONGEST_STRING and data.find(0) < 0 and is_text(data)


def is_clean(data: bytes) -> bool:
    """Whether it is a string that every client takes."""
    return len(data) <= LONGEST_STRING and _CONTROL.search(data) is None and (data.isascii() or is_text(data))


def write_pairs(entries: dict[str, bytes], pairs: list[bytes]) -> None:
    awkward: dict[str, str] = {}
    marker: bytes | None = None
    for name, value in entries.items():
        if name.startswith(MARKER):  # of the next one, with which it stays
            marker = value
            continue
        key = name.encode("utf-8", "surrogateescape")
        if is_clean(key) and _is_short(value) and (marker is None or _is_short(marker)):
            if marker is not None:
                pairs.append(MARKER.encode() + key)
                pairs.append(marker)
            pairs.append(key)
            pairs.append(value)
        else:
            if marker is not None:
                awkward[MARKER + name] = marker.decode("utf-8")
            awkward[name] = value.decode("utf-8")
        marker = None
    if awkward:
        text = dump_ascii(awkward).encode()
        for at in range(0, len(text), LONGEST_STRING):
            pairs.append(LONG_PROPERTIES.encode())
            pairs.append(text[at:at + LONGEST_STRING])


def _is_short(value: bytes) -> bool:
    """Whether text fits into a property that every client takes."""
    return len(value) <= LONGEST_STRING and _CONTROL.search(value) is None
