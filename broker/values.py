"""The values of the model that Python has no types for: those of AMQP 1.0 (part 1, section 1.6), which has the most.

None, bool, str, bytes, float, uuid.UUID, list and dict (its keys are str) stand for themselves, float for a double and
a plain int for a long. Each of the classes below remembers which type a value is to have when it is written again.
"""

from __future__ import annotations

from typing import Any

from mypy_extensions import mypyc_attr


@mypyc_attr(native_class=False)
class UByte(int):
    """0 to 255."""


@mypyc_attr(native_class=False)
class UShort(int):
    """16 bits, unsigned."""


@mypyc_attr(native_class=False)
class UInt(int):
    """32 bits, unsigned."""


@mypyc_attr(native_class=False)
class ULong(int):
    """64 bits, unsigned."""


@mypyc_attr(native_class=False)
class Byte(int):
    """-128 to 127."""


@mypyc_attr(native_class=False)
class Short(int):
    """16 bits, signed."""


@mypyc_attr(native_class=False)
class Int(int):
    """32 bits, signed."""


@mypyc_attr(native_class=False)
class Timestamp(int):
    """Milliseconds since the epoch, perhaps before it: 64 bits, signed."""


@mypyc_attr(native_class=False)
class Float(float):
    """A float of 32 bits."""


@mypyc_attr(native_class=False)
class Char(str):
    """One character."""


@mypyc_attr(native_class=False)
class Symbol(str):
    """A name, in ASCII."""


class Opaque:
    """A value that nobody here computes with, such as a decimal: its 1.0 constructor and the bytes behind it."""

    __slots__ = ("kind", "data")

    def __init__(self, kind: int, data: bytes) -> None:
        self.kind = kind
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and self.kind == other.kind and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.kind, self.data))

    def __repr__(self) -> str:
        return f"Opaque({self.kind:#x}, {self.data!r})"


class Odd:
    """A value of a type that only AMQP 0-10 has, such as a bin128 or a dec64: its type code there (section 1.5) and its
    bytes, without the length that some are preceded by."""

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: bytes) -> None:
        self.code = code
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and self.code == other.code and self.data == other.data

    def __hash__(self) -> int:
        return hash((self.code, self.data))

    def __repr__(self) -> str:
        return f"Odd({self.code:#x}, {self.data!r})"


class Described:
    """A value with a descriptor: a symbol, a ulong or something else that tells what it means."""

    __slots__ = ("descriptor", "value")

    def __init__(self, descriptor: Any, value: Any) -> None:
        self.descriptor = descriptor
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Described) and same(self.descriptor, other.descriptor) and same(self.value,
                                                                                                  other.value)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"Described({self.descriptor!r}, {self.value!r})"


class Pairs:
    """A map with keys that a dict of strings cannot have: numbers, symbols, or several that Python takes for equal."""

    __slots__ = ("items",)

    def __init__(self, items: list[tuple[Any, Any]]) -> None:
        self.items = items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and same(list(map(list, self.items)), list(map(list, other.items)))

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"Pairs({self.items!r})"


class Array:
    """Values that all have the same type, and the same descriptor if there is one.

    kind: the 1.0 constructor of the values, as it was or is to be written.
    """

    __slots__ = ("kind", "values", "descriptor", "described")

    def __init__(self, kind: int, values: list[Any], descriptor: Any = None, described: bool = False) -> None:
        self.kind = kind
        self.values = values
        self.descriptor = descriptor
        self.described = described

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Array) and self.kind == other.kind and self.described == other.described
                and same(self.descriptor, other.descriptor) and same(self.values, other.values))

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        descriptor = f", {self.descriptor!r}" if self.described else ""
        return f"Array({self.kind:#x}, {self.values!r}{descriptor})"


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and have the same types, throughout. (For Python 1, True and UByte(1) are equal.)
    NaN is the same as NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=False))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, float):
        return repr(one) == repr(other)
    return bool(one == other)
