"""1.0 messages as sections, exactly as the table has them, written and read with Proton's codec (`proton.Data`).

Proton's own `Message` knows no absent fields beside those that are 0, and one body section: see proton_client.py.
"""

from __future__ import annotations

import struct
import uuid
from typing import Any

from proton import Data, char

from tests.conformance.matrix.notation import Side, Value

HEADER = ("durable", "priority", "ttl")
PROPERTIES = ("message-id", "user-id", "to", "subject", "reply-to", "correlation-id", "content-type",
              "content-encoding", "absolute-expiry-time", "creation-time", "group-id", "group-sequence",
              "reply-to-group-id")
BODIES = {"data": 0x75, "sequence": 0x76, "value": 0x77}

NAMES = {Data.NULL: "null", Data.BOOL: "boolean", Data.UBYTE: "ubyte", Data.BYTE: "byte", Data.USHORT: "ushort",
         Data.SHORT: "short", Data.UINT: "uint", Data.INT: "int", Data.CHAR: "char", Data.ULONG: "ulong",
         Data.LONG: "long", Data.TIMESTAMP: "timestamp", Data.FLOAT: "float", Data.DOUBLE: "double",
         Data.DECIMAL32: "decimal32", Data.DECIMAL64: "decimal64", Data.DECIMAL128: "decimal128", Data.UUID: "uuid",
         Data.BINARY: "binary", Data.STRING: "string", Data.SYMBOL: "symbol", Data.DESCRIBED: "described",
         Data.ARRAY: "array", Data.LIST: "list", Data.MAP: "map"}
CODES = {name: code for code, name in NAMES.items()}


def encode(side: Side) -> bytes:
    """The sections of a message."""
    parts = [_section(0x70, _fields(side, HEADER))] if any(name in side for name in HEADER) else []
    if "annotations" in side:
        parts.append(_section(0x72, _map("symbol", side["annotations"])))
    if any(name in side for name in PROPERTIES):
        parts.append(_section(0x73, _fields(side, PROPERTIES)))
    if "properties" in side:
        parts.append(_section(0x74, _map("string", side["properties"])))
    for kind, content in side["body"]:
        inner = content if kind == "value" else ["binary" if kind == "data" else "list", content]
        parts.append(_section(BODIES[kind], inner))
    return b"".join(parts)


def decode(data: bytes) -> Side:
    """A message as it came."""
    found = []
    while data:
        one = Data()
        data = data[one.decode(data):]
        one.rewind()
        one.next()
        found.append(take(one))
    return side_of(found)


def try_decode(data: bytes) -> Side | None:
    """A message as it came, or None when Proton's codec gets lost in it."""
    try:
        return decode(data)
    except ValueError:
        return None


def side_of(sections: list[Value]) -> Side:
    """A message by its sections, which are described values."""
    side: Side = {"body": []}
    names = {code: kind for kind, code in BODIES.items()}
    for _, (descriptor, value) in sections:
        code = int(descriptor[1])
        if code in names:
            side["body"].append([names[code], value if names[code] == "value" else value[1]])
        elif code in (0x72, 0x74):
            side["annotations" if code == 0x72 else "properties"] = {key[1]: item for key, item in value[1]}
            assert {key[0] for key, _ in value[1]} <= {"symbol" if code == 0x72 else "string"}
        else:
            assert code in (0x70, 0x73), f"a section {code:#x}"
            fields = zip(HEADER if code == 0x70 else PROPERTIES, value[1], strict=False)
            side.update({name: item for name, item in fields if item[0] != "null"})
    if side.get("durable") == ["boolean", False]:
        del side["durable"]  # the same as its absence
    return side


def encode_value(value: Value) -> bytes:
    data = Data()
    put(data, value)
    return bytes(data.encode())


def _section(code: int, value: Value) -> bytes:
    return encode_value(["described", [["ulong", str(code)], value]])


def _map(keys: str, values: dict[str, Value]) -> Value:
    return ["map", [[[keys, name], value] for name, value in values.items()]]


def _fields(side: Side, names: tuple[str, ...]) -> Value:
    last = max(at for at, name in enumerate(names) if name in side)
    return ["list", [side.get(name, ["null", None]) for name in names[:last + 1]]]


def put(data: Data, value: Value) -> None:
    """Write a value behind what is there."""
    kind, content = value
    if kind == "null":
        data.put_null()
    elif kind in ("list", "map", "described", "array"):
        items = content
        if kind == "map":
            items = [each for pair in content for each in pair]
        elif kind == "array":
            items = [[content[0], each[1]] for each in content[1]]
        if kind == "array":
            data.put_array(False, CODES[content[0]])
        else:
            {"list": data.put_list, "map": data.put_map, "described": data.put_described}[kind]()
        data.enter()
        for item in items:
            put(data, item)
        data.exit()
    else:
        getattr(data, {"boolean": "put_bool"}.get(kind, f"put_{kind}"))(_python(kind, content))


def _python(kind: str, content: Any) -> Any:
    if kind in ("float", "double"):
        return struct.unpack(">f" if kind == "float" else ">d", bytes.fromhex(content))[0]
    if kind in ("binary", "decimal128"):
        return bytes.fromhex(content)
    if kind in ("decimal32", "decimal64"):
        return int(content, 16)
    if kind == "uuid":
        return uuid.UUID(content)
    if kind == "char":
        return char(chr(int(content, 16)))
    return content if kind in ("boolean", "string", "symbol") else int(content)


def take(data: Data) -> Value:
    """The value that the codec stands at."""
    kind = NAMES[data.type()]
    if kind == "null":
        return [kind, None]
    if kind in ("list", "map", "described", "array"):
        of = NAMES[data.get_array()[2]] if kind == "array" else ""
        items = []
        data.enter()
        while data.next():
            items.append(take(data))
        data.exit()
        if kind == "map":
            return [kind, [list(pair) for pair in zip(items[::2], items[1::2], strict=True)]]
        return [kind, [of, items] if kind == "array" else items]
    value = getattr(data, {"boolean": "get_bool"}.get(kind, f"get_{kind}"))()
    if kind in ("float", "double"):
        return [kind, struct.pack(">f" if kind == "float" else ">d", value).hex()]
    if kind in ("binary", "decimal128"):
        return [kind, bytes(value).hex()]
    if kind in ("decimal32", "decimal64"):
        return [kind, f"{int(value):0{8 if kind == 'decimal32' else 16}x}"]
    if kind == "char":
        return [kind, f"{ord(value):x}"]
    return [kind, value if kind == "boolean" else str(int(value) if isinstance(value, int) else value)]
