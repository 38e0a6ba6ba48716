"""The notation of the table: `ubyte 255`, `F {"a": S "b"}`, `array int [1, 2]`, parsed into values.

A value is a list `[type, content]`, and JSON can carry it:

    ["null", None] ["boolean", True] ["ubyte", "255"] ["double", "7ff8000000000000"] ["char", "1f600"]
    ["decimal32", "22500001"] ["timestamp", "-1"] ["uuid", "…"] ["binary", "00ff"] ["string", "…"] ["symbol", "…"]
    ["list", [value, …]] ["map", [[key, value], …]] ["array", [type, [value, …]]] ["described", [descriptor, value]]

Integers are decimal text, bits and bytes are hexadecimal. Types of one letter are 0-9-1's, those with a width in their
names 0-10's; a `D`, a `dec32` and a `dec64` are [digits, scale].
"""

from __future__ import annotations

import json
import re
import struct
import uuid
from collections.abc import Callable
from typing import Any

Value = list[Any]

Side = dict[str, Any]
"""A message: values by field; of `body` in 1.0 a list of sections, of `properties`, `annotations` and `headers` values
by name."""

INTEGERS = ("ubyte", "ushort", "uint", "ulong", "byte", "short", "int", "long", "timestamp",
            "b", "B", "s", "u", "I", "i", "l", "L", "T", "number",
            "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "datetime")
FLOATS = {"float": ">f", "double": ">d", "f": ">f", "d": ">d"}
BYTES = ("binary", "x", "bytes", "data", "vbin8", "vbin16", "vbin32", "bin8", "bin16", "bin32", "bin64", "bin128",
         "bin256", "bin512", "bin1024", "bin40", "bin72", "struct32", "str8-latin", "str16-utf16")
TEXTS = ("string", "symbol", "S", "str8", "str16")
DECIMALS = {"decimal32": 8, "decimal64": 16, "decimal128": 32}

_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|0x[0-9a-f]*|U\+[0-9A-F]+|[\[\]{}:,*]|[^\s\[\]{}:,*"]+)')


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = _TOKEN.findall(text)
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or expected and token != expected:
            raise ValueError(f"{token or 'the end'} instead of {expected or 'a value'} in {self.text}")
        self.at += 1
        return token

    def value(self) -> Value:
        token = self.peek()
        if token[0] in '"[{':
            return self.content({'"': "string", "[": "list", "{": "map"}[token[0]])
        self.take()
        if token == "null":
            return ["null", None]
        if token in ("true", "false"):
            return ["boolean", token == "true"]
        return self.content(token)

    def content(self, kind: str) -> Value:
        """What follows the name of a type."""
        if kind in INTEGERS:
            return [kind, str(int(self.take()))]
        if kind in FLOATS:
            return [kind, _bits(self.take(), FLOATS[kind])]
        if kind in TEXTS:
            return [kind, self.repeated(_text)]
        if kind in BYTES:
            return [kind, self.repeated(_hex)]
        if kind in DECIMALS:
            digits = self.take()[2:]
            if len(digits) != DECIMALS[kind]:
                raise ValueError(f"{digits} is no {kind}")
            return [kind, digits]
        if kind in ("list", "A", "sequence"):
            return [kind, self.items("[", "]", self.value)]
        if kind in ("map", "F"):
            return [kind, self.items("{", "}", self.pair if kind == "map" else self.entry)]
        if kind == "array":
            of = self.take()
            return [kind, [of, self.items("[", "]", lambda: self.content(of))]]
        if kind in ("t", "boolean"):
            return [kind, self.take() == "true"]
        if kind in ("V", "void"):
            return [kind, None]
        return self.rare(kind)

    def rare(self, kind: str) -> Value:
        if kind in ("char", "char-utf32"):
            return [kind, f"{int(self.take()[2:], 16):x}"]
        if kind == "uuid":
            return [kind, str(uuid.UUID(self.take()))]
        if kind in ("D", "dec32", "dec64"):
            digits, _, scale = self.take().partition("e-")
            return [kind, [digits, scale or "0"]]
        if kind in ("described", "value"):
            return [kind, [self.value(), self.value()]] if kind == "described" else [kind, self.value()]
        raise ValueError(f"no such type: {kind} in {self.text}")

    def pair(self) -> Value:
        key = self.value()
        self.take(":")
        return [key, self.value()]

    def entry(self) -> Value:
        """An entry of a field table, whose names are plain text."""
        name, value = self.pair()
        return [name[1], value]

    def items(self, opening: str, closing: str, item: Any) -> list[Any]:
        found: list[Any] = []
        self.take(opening)
        while self.peek() != closing:
            if found:
                self.take(",")
            found.append(item())
        self.take(closing)
        return found

    def repeated(self, read: Callable[[str], str]) -> str:
        """Text, or several with `+` between them, each perhaps many times: `"a" + "k" * 300`."""
        text = read(self.take())
        if self.peek() == "*":
            self.take()
            text *= int(self.take())
        if self.peek() == "+":
            self.take()
            text += self.repeated(read)
        return text


def _bits(token: str, form: str) -> str:
    return token[2:] if token.startswith("0x") else struct.pack(form, float(token)).hex()


def _text(token: str) -> str:
    return bytes.fromhex(token[2:]).decode("utf-8", "surrogateescape") if token.startswith("0x") else json.loads(token)


def _hex(token: str) -> str:
    return token[2:] if token.startswith("0x") else json.loads(token).encode().hex()


def parse(text: str) -> Value:
    """One value. Raises: ValueError."""
    return parse_all(text)[0]


def parse_all(text: str) -> list[Value]:
    """Values with commas between them. Raises: ValueError."""
    parser = _Parser(text)
    found = [parser.value()]
    while parser.peek():
        parser.take(",")
        found.append(parser.value())
    return found


def entries(text: str) -> dict[str, Value]:
    """A map of names: `{"a": ubyte 1}`. Raises: ValueError."""
    return {key[1]: value for key, value in parse(text)[1]}


def types_in(value: Value) -> set[str]:
    """The types of a value and of all within it."""
    kind, content = value
    inner: list[Value] = []
    if kind in ("list", "A", "sequence", "described"):
        inner = content
    elif kind == "map":
        inner = [each for pair in content for each in pair]
    elif kind == "F":
        inner = [each for _, each in content]
    elif kind == "value":
        inner = [content]
    elif kind == "array":
        return {kind, content[0]}.union(*map(types_in, ([content[0], each] for each in content[1])))
    return {kind}.union(*map(types_in, inner))
