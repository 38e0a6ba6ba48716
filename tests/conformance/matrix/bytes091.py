"""0-9-1 messages as bytes, exactly as the table has them: content headers written and read without anybody's help."""

from __future__ import annotations

from typing import Any

from tests.conformance.matrix.notation import Side, Value
from tests.conformance.matrix.reader import Reader

FIELDS = ("content-type", "content-encoding", "headers", "delivery-mode", "priority", "correlation-id", "reply-to",
          "expiration", "message-id", "timestamp", "type", "user-id", "app-id", "cluster-id")
NUMBERS = {"delivery-mode": 1, "priority": 1, "timestamp": 8}

SIGNED = {"b": 1, "s": 2, "I": 4, "l": 8, "L": 8}
UNSIGNED = {"B": 1, "u": 2, "i": 4, "T": 8}
REALS = {"f": 4, "d": 8}


def write_properties(side: Side) -> bytes:
    """The property flags and the properties."""
    flags, parts = 0, b""
    for bit, name in enumerate(FIELDS):
        if name not in side:
            continue
        flags |= 1 << (15 - bit)
        if name == "headers":
            parts += _write_table(list(side[name].items()))
        elif name in NUMBERS:
            parts += int(side[name][1]).to_bytes(NUMBERS[name], "big")
        else:
            data = bytes.fromhex(side[name][1])
            parts += bytes([len(data)]) + data
    return flags.to_bytes(2, "big") + parts


def read_message(properties: bytes, body: bytes) -> Side:
    """A message from its property flags on."""
    side: Side = {"body": ["bytes", body.hex()]}
    flags = int.from_bytes(properties[:2], "big")
    reader = _Reader(properties[2:])
    for bit, name in enumerate(FIELDS):
        if not flags & 1 << (15 - bit):
            continue
        if name == "headers":
            side[name] = dict(reader.table(reader.sized(4)))
        elif name in NUMBERS:
            side[name] = ["number", str(reader.number(NUMBERS[name]))]
        else:
            side[name] = ["bytes", reader.sized(1).hex()]
    assert not reader.data and not flags & 3, "there is more than properties"
    return side


def _write_table(entries: list[Any]) -> bytes:
    data = b"".join(bytes([len(name.encode())]) + name.encode() + _write(value) for name, value in entries)
    return len(data).to_bytes(4, "big") + data


def _write(value: Value) -> bytes:
    kind, content = value
    octet = kind.encode()
    if kind in SIGNED or kind in UNSIGNED:
        return octet + int(content).to_bytes((SIGNED | UNSIGNED)[kind], "big", signed=kind in SIGNED)
    if kind in REALS:
        return octet + bytes.fromhex(content)
    if kind == "t":
        return octet + bytes([content])
    if kind == "V":
        return octet
    if kind == "D":
        return octet + bytes([int(content[1])]) + int(content[0]).to_bytes(4, "big", signed=True)
    if kind == "F":
        return octet + _write_table(content)
    if kind == "A":
        data = b"".join(map(_write, content))
    else:
        data = content.encode("utf-8", "surrogateescape") if kind == "S" else bytes.fromhex(content)
    return octet + len(data).to_bytes(4, "big") + data


class _Reader(Reader):
    def table(self, data: bytes) -> list[Any]:
        inner = _Reader(data)
        found = []
        while inner.data:
            name = inner.sized(1).decode()
            found.append([name, inner.value()])
        return found

    def value(self) -> Value:
        kind = self.take(1).decode("latin-1")
        if kind in SIGNED or kind in UNSIGNED:
            return [kind, str(int.from_bytes(self.take((SIGNED | UNSIGNED)[kind]), "big", signed=kind in SIGNED))]
        if kind in REALS:
            return [kind, self.take(REALS[kind]).hex()]
        if kind == "t":
            return [kind, self.take(1) != b"\0"]
        if kind == "V":
            return [kind, None]
        if kind == "D":
            scale = self.take(1)[0]
            return [kind, [str(int.from_bytes(self.take(4), "big", signed=True)), str(scale)]]
        data = self.sized(4)
        if kind == "F":
            return [kind, self.table(data)]
        if kind == "A":
            inner = _Reader(data)
            found = []
            while inner.data:
                found.append(inner.value())
            return [kind, found]
        assert kind in ("S", "x"), f"no field type: {kind}"
        return [kind, data.decode("utf-8", "surrogateescape") if kind == "S" else data.hex()]
