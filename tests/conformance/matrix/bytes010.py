"""0-10 messages as bytes, exactly as the table has them: header segments written and read without anybody's help.

Of the delivery-properties, exchange and routing-key are the client's affair; the content-length is not in the table.
"""

from __future__ import annotations

import uuid
from typing import Any

from tests.conformance.matrix.notation import Side, Value
from tests.conformance.matrix.reader import Reader

DELIVERY = {3: ("priority", 1), 4: ("delivery-mode", 1), 5: ("ttl", 8), 6: ("timestamp", 8), 7: ("expiration", 8)}
MESSAGE = {2: ("correlation-id", 2), 4: ("content-type", 1), 5: ("content-encoding", 1), 6: ("user-id", 2),
           7: ("app-id", 2)}
"""Numbers, and bytes with their lengths, by bit of the packing flags."""

INTEGERS = {0x01: "int8", 0x02: "uint8", 0x11: "int16", 0x12: "uint16", 0x21: "int32", 0x22: "uint32", 0x31: "int64",
            0x32: "uint64", 0x38: "datetime"}
FIXED = {0x00: ("bin8", 1), 0x10: ("bin16", 2), 0x20: ("bin32", 4), 0x30: ("bin64", 8), 0x40: ("bin128", 16),
         0x50: ("bin256", 32), 0x60: ("bin512", 64), 0x70: ("bin1024", 128), 0xC0: ("bin40", 5), 0xD0: ("bin72", 9),
         0x23: ("float", 4), 0x33: ("double", 8)}
VARIABLE = {0x80: "vbin8", 0x90: "vbin16", 0xA0: "vbin32", 0x85: "str8", 0x95: "str16", 0x84: "str8-latin",
            0x96: "str16-utf16", 0xAB: "struct32"}
DECIMALS = {0xC8: ("dec32", 4), 0xD8: ("dec64", 8)}
COMPOUND = {0xA8: "map", 0xA9: "list", 0xAA: "array"}
OTHERS = {0xF0: "void", 0x08: "boolean", 0x27: "char-utf32", 0x48: "uuid"}
CODES = {name: code for names in (INTEGERS, VARIABLE, COMPOUND, OTHERS) for code, name in names.items()} | {
    name: code for names in (FIXED, DECIMALS) for code, (name, _) in names.items()}


def write_header(side: Side, exchange: bytes, key: bytes) -> bytes:
    """The header segment of a message on its way to an exchange."""
    flags, parts = 0x0300, []
    for bit, (name, width) in DELIVERY.items():
        if name in side:
            flags |= 1 << bit
            parts.append(int(side[name][1]).to_bytes(width, "big"))
    delivery = _struct(0x0401, flags, [*parts, _sized(exchange, 1), _sized(key, 1)])
    flags, parts = 0, []
    if "message-id" in side:
        flags |= 2
        parts.append(uuid.UUID(side["message-id"][1]).bytes)
    for bit, (name, width) in MESSAGE.items():
        if bit == 4 and "reply-key" in side:
            flags |= 8
            reply_to = b"\3\0" + b"".join(_sized(bytes.fromhex(side[each][1]), 1)
                                          for each in ("reply-exchange", "reply-key"))
            parts.append(_sized(reply_to, 2))
        if name in side:
            flags |= 1 << bit
            parts.append(_sized(bytes.fromhex(side[name][1]), width))
    if "headers" in side:
        flags |= 0x0100
        parts.append(_map([[["string", name], value] for name, value in side["headers"].items()]))
    return delivery + (_struct(0x0403, flags, parts) if flags else b"")


def _struct(code: int, flags: int, parts: list[bytes]) -> bytes:
    content = code.to_bytes(2, "big") + bytes([flags & 255, flags >> 8]) + b"".join(parts)
    return _sized(content, 4)


def _sized(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def _map(pairs: list[Any]) -> bytes:
    return _sized(len(pairs).to_bytes(4, "big") + b"".join(_sized(key[1].encode(), 1) + _write(value)
                                                          for key, value in pairs), 4)


def _write(value: Value) -> bytes:
    code = CODES[value[0]]
    return bytes([code]) + _write_content(code, value)


def _write_content(code: int, value: Value) -> bytes:
    kind, content = value
    if code in INTEGERS:
        return int(content).to_bytes(1 << (code >> 4), "big", signed=kind.startswith("int"))
    if code in FIXED:
        return bytes.fromhex(content)
    if code in VARIABLE:
        data = content.encode("utf-8", "surrogateescape") if kind in ("str8", "str16") else bytes.fromhex(content)
        return _sized(data, (1, 2, 4)[(code >> 4) - 8])
    if code in DECIMALS:
        return bytes([int(content[1])]) + int(content[0]).to_bytes(DECIMALS[code][1], "big", signed=True)
    if kind == "map":
        return _map(content)
    if kind == "list":
        return _sized(len(content).to_bytes(4, "big") + b"".join(map(_write, content)), 4)
    if kind == "array":
        of, items = content
        return _sized(bytes([CODES[of]]) + len(items).to_bytes(4, "big")
                      + b"".join(_write_content(CODES[of], item) for item in items), 4)
    if kind == "boolean":
        return bytes([content])
    if kind == "char-utf32":
        return int(content, 16).to_bytes(4, "big")
    return uuid.UUID(content).bytes if kind == "uuid" else b""


def read_message(header: bytes, body: bytes) -> tuple[Side, bytes, bytes]:
    """A message, and the exchange and the routing key that it took."""
    side: Side = {"body": ["bytes", body.hex()]}
    route: dict[int, bytes] = {8: b"", 9: b""}
    reader = _Reader(header)
    while reader.data:
        struct = _Reader(reader.sized(4))
        code, flags = struct.number(2), struct.number(1) | struct.number(1) << 8
        for bit in range(16):
            if flags & 1 << bit:
                if code == 0x0401:
                    _read_delivery(struct, bit, side, route)
                else:
                    assert code == 0x0403, f"a struct {code:#06x}"
                    _read_message(struct, bit, side)
        assert not struct.data, "a struct is longer than its fields"
    assert "content-length" not in side or int(side.pop("content-length")[1]) == len(body)
    if "ttl" in side:
        side.pop("expiration", None)  # when that ends
    return side, route[8], route[9]


def _read_delivery(struct: _Reader, bit: int, side: Side, route: dict[int, bytes]) -> None:
    if bit in (8, 9):
        route[bit] = struct.sized(1)
        return
    name, width = DELIVERY[bit]
    side[name] = ["number", str(struct.number(width))]


def _read_message(struct: _Reader, bit: int, side: Side) -> None:
    if bit == 0:
        side["content-length"] = ["number", str(struct.number(8))]
    elif bit == 1:
        side["message-id"] = ["uuid", str(uuid.UUID(bytes=struct.take(16)))]
    elif bit == 3:
        reply_to = _Reader(struct.sized(2))
        assert reply_to.take(2) == b"\3\0"
        side["reply-exchange"] = ["bytes", reply_to.sized(1).hex()]
        side["reply-key"] = ["bytes", reply_to.sized(1).hex()]
    elif bit == 8:
        side["headers"] = {key[1]: value for key, value in _Reader(struct.sized(4)).pairs()}
    else:
        name, width = MESSAGE[bit]
        side[name] = ["bytes", struct.sized(width).hex()]


class _Reader(Reader):
    def pairs(self) -> list[Any]:
        found = [[["string", self.sized(1).decode()], self.value()] for _ in range(self.number(4))]
        assert not self.data, "a map is longer than what is in it"
        return found

    def value(self) -> Value:
        return self.content(self.number(1))

    def content(self, code: int) -> Value:
        if code in INTEGERS:
            signed = INTEGERS[code].startswith("int")
            return [INTEGERS[code], str(int.from_bytes(self.take(1 << (code >> 4)), "big", signed=signed))]
        if code in FIXED:
            return [FIXED[code][0], self.take(FIXED[code][1]).hex()]
        if code in VARIABLE:
            data = self.sized((1, 2, 4)[(code >> 4) - 8])
            text = VARIABLE[code] in ("str8", "str16")
            return [VARIABLE[code], data.decode("utf-8", "surrogateescape") if text else data.hex()]
        if code in DECIMALS:
            scale, digits = self.take(1)[0], self.take(DECIMALS[code][1])
            return [DECIMALS[code][0], [str(int.from_bytes(digits, "big", signed=True)), str(scale)]]
        if code in COMPOUND:
            return [COMPOUND[code], _Reader(self.sized(4)).compound(COMPOUND[code])]
        assert code in OTHERS, f"no type: {code:#04x}"
        kind = OTHERS[code]
        if kind == "boolean":
            return [kind, self.take(1) != b"\0"]
        if kind == "char-utf32":
            return [kind, f"{self.number(4):x}"]
        return [kind, str(uuid.UUID(bytes=self.take(16)))] if kind == "uuid" else [kind, None]

    def compound(self, kind: str) -> Any:
        if kind == "map":
            return self.pairs()
        if kind == "list":
            return [self.value() for _ in range(self.number(4))]
        code = self.number(1)
        items = [self.content(code) for _ in range(self.number(4))]
        return [next(name for name, each in CODES.items() if each == code), items]
