"""Frames and performatives of AMQP 1.0 (part 2, sections 2.3 and 2.7; part 5, section 5.3; part 4, section 4.5).

A performative is data: a name, a code and its fields with their types. `decode` checks each field's type on the way,
and gives plain values: ints, str, bytes; lists of str where several symbols may stand; what codec.py gives for maps
and for composite types (source, target, states). Fields that are not there are their defaults.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from broker.values import Array, Described, Pairs, Symbol, UByte, UInt, ULong, UShort
from protocols.values10 import Malformed, Reader, encode, encode_list, is_text, text

AMQP: Final = 0
SASL: Final = 1
"""Types of frames."""

HEADER_SIZE: Final = 8
MIN_MAX_FRAME: Final = 512
"""Every peer takes frames of so many bytes (section 2.3.1)."""

_HEAD = Struct(">IBBH")

ACCEPTED_STATE: Final = b"\x00\x53\x24\x45"
ACCEPTED_VALUE: Final = Described(ULong(0x24), [])
"""The outcome `accepted`, encoded and not."""

RELEASED_STATE: Final = b"\x00\x53\x26\x45"

BOOL: Final = 0
UBYTE: Final = 1
USHORT: Final = 2
UINT: Final = 3
ULONG: Final = 4
BINARY: Final = 5
STRING: Final = 6
SYMBOL: Final = 7
SYMBOLS: Final = 8
MAP: Final = 9
LIST: Final = 10
COMPOSITE: Final = 11
ANY: Final = 12
"""Types of fields; SYMBOLS are one or an array of them, COMPOSITE is a described value."""

_PLAIN = {UBYTE: "ubyte", USHORT: "ushort", UINT: "uint", ULONG: "ulong", BOOL: "boolean", BINARY: "binary",
          STRING: "string", SYMBOL: "symbol", SYMBOLS: "symbol", MAP: "map", LIST: "list", COMPOSITE: "described"}

MUST: Final = "must be there"
"""Stands as the default of a field that is mandatory."""


class Performative:
    """A composite type: name, code (descriptor), fields as (name, type, default or MUST)."""

    def __init__(self, name: str, code: int, fields: list[tuple[str, int, Any]]) -> None:
        self.name = name
        self.code = code
        self.fields = fields
        self.kinds = [kind for _, kind, _ in fields]
        self.defaults = [None if default is MUST else default for _, _, default in fields]
        self.must = [index for index, field in enumerate(fields) if field[2] is MUST]
        self.index = {name: index for index, (name, _, _) in enumerate(fields)}
        self._descriptor = b"\x00\x53" + bytes([code])

    def decode(self, reader: Reader) -> list[Any]:
        """The fields' values, in order, of the list that is next. Raises: Malformed."""
        count, end = list_header(reader)
        if count > len(self.kinds):
            raise Malformed(f"{self.name} has {len(self.kinds)} fields, not {count}")
        values = self.defaults.copy()
        outer, reader.end = reader.end, end
        for index in range(count):
            if reader.data[reader.at:reader.at + 1] == b"\x40" and reader.at < end:
                reader.at += 1
                continue
            values[index] = self._field(reader, index)
        if reader.at != end:
            raise Malformed(f"{self.name} has more bytes than its fields")
        reader.end = outer
        for index in self.must:
            if values[index] is None:
                raise Malformed(f"{self.name} has no {self.fields[index][0]}")
        return values

    def named(self, values: list[Any]) -> dict[str, Any]:
        """What `decode` gave, by the fields' names."""
        return {self.fields[index][0]: value for index, value in enumerate(values)}

    def read(self, value: Any) -> dict[str, Any]:
        """The fields by name of a value of this type that codec.py has read already. Raises: Malformed."""
        if not isinstance(value, Described) or not isinstance(value.value, list):
            raise Malformed(f"{self.name} is no list of fields")
        body = encode_list([encode(item) for item in value.value])
        return self.named(self.decode(Reader(body, 0, len(body))))

    def encode(self, **values: Any) -> bytes:
        """The performative with these fields; the last that are None are left out."""
        items: list[bytes] = []
        last = 0
        for index, (name, kind, _) in enumerate(self.fields):
            value = values.get(name)
            if value is None:
                items.append(b"\x40")
                continue
            items.append(_encode_field(kind, value))
            last = index + 1
        return self._descriptor + encode_list(items[:last])

    def _field(self, reader: Reader, index: int) -> Any:
        kind = self.kinds[index]
        code = reader.data[reader.at] if reader.at < reader.end else 0x40
        if kind == UINT or kind == BOOL or kind == BINARY or kind <= ULONG:
            value = plain(reader, kind)
            if value is not None:
                return value
        elif kind == SYMBOLS:
            return self._symbols(reader.value(), index)
        elif kind == ANY:
            return reader.value()
        elif kind == COMPOSITE:
            if reader.data[reader.at:reader.at + 4] == ACCEPTED_STATE:  # hardly ever anything else
                reader.take(4)
                return ACCEPTED_VALUE
            if code == 0:
                return reader.value()
        else:
            value = reader.value()
            if kind == STRING and type(value) is str:
                if not is_text(value):
                    raise Malformed(f"{self.name}: {self.fields[index][0]} is no UTF-8")
                return value
            if kind == SYMBOL and isinstance(value, Symbol):
                return str(value)
            if kind == MAP and isinstance(value, (dict, Pairs)):
                return mapping(value)
            if kind == LIST and isinstance(value, list):
                return value
        raise Malformed(f"{self.name}: {self.fields[index][0]} is no {_PLAIN[kind]}")

    def _symbols(self, value: Any, index: int) -> list[str]:
        several = value.values if isinstance(value, Array) else [value]
        if not all(isinstance(each, Symbol) for each in several):
            raise Malformed(f"{self.name}: {self.fields[index][0]} is no symbol and no array of them")
        return [str(each) for each in several]


def list_header(reader: Reader) -> tuple[int, int]:
    """Go behind the head of a list. Gives the number of its values and where it ends. Raises: Malformed."""
    code = reader.number(1)
    if code == 0x45:
        return 0, reader.at
    if code == 0xC0:
        size = reader.number(1)
        end = reader.at + size
        count = reader.number(1)
    elif code == 0xD0:
        size = reader.number(4)
        end = reader.at + size
        count = reader.number(4)
    else:
        raise Malformed("a performative's fields are no list")
    if end > reader.end or count > size:
        raise Malformed("a list is cut off")
    return count, end


def plain(reader: Reader, kind: int) -> Any:
    """A number, truth value or binary of that very type as a plain value; None when it is something else."""
    data = reader.data
    at = reader.at
    end = reader.end
    if at >= end:
        raise Malformed("a value is cut off")
    code = data[at]
    reader.at = at + 1
    if kind == UINT:
        if code == 0x52:
            return reader.number(1)
        if code == 0x43:
            return 0
        if code == 0x70:
            return reader.number(4)
    elif kind == BOOL:
        if code == 0x41:
            return True
        if code == 0x42:
            return False
        if code == 0x56:
            return reader.number(1) == 1
    elif kind == BINARY:
        if code == 0xA0:
            return reader.take(reader.number(1))
        if code == 0xB0:
            return reader.take(reader.number(4))
    elif kind == UBYTE:
        if code == 0x50:
            return reader.number(1)
    elif kind == USHORT:
        if code == 0x60:
            return reader.number(2)
    elif code == 0x53:
        return reader.number(1)
    elif code == 0x44:
        return 0
    elif code == 0x80:
        return reader.number(8)
    return None


def mapping(value: Any) -> dict[str, Any]:
    """A map of symbols (`fields`) as a dictionary. Raises: Malformed."""
    pairs = value.items if isinstance(value, Pairs) else list(value.items())
    found: dict[str, Any] = {}
    for key, item in pairs:
        if not isinstance(key, str):
            raise Malformed("a key of a map of fields is no symbol")
        found[str(key)] = item
    return found


def symbols(values: list[str]) -> Any:
    """Several symbols, as a field that takes one or an array."""
    return Array(0xA3, [Symbol(value) for value in values])


def fields(values: dict[str, Any]) -> Pairs:
    """A map whose keys are symbols."""
    return Pairs([(Symbol(key), value) for key, value in values.items()])


def _encode_field(kind: int, value: Any) -> bytes:
    if kind == UINT:
        return encode(UInt(value))
    if kind == ULONG:
        return encode(ULong(value))
    if kind == USHORT:
        return encode(UShort(value))
    if kind == UBYTE:
        return encode(UByte(value))
    if kind == SYMBOL:
        return encode(Symbol(value))
    if kind == SYMBOLS:
        return encode(symbols(value))
    if kind == MAP and isinstance(value, dict):
        return encode(fields(value))
    if isinstance(value, Encoded):
        return value.data
    return encode(value)


class Encoded:
    """A value that is encoded already, to be a field of a performative."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


OPEN = Performative("open", 0x10, [
    ("container-id", STRING, MUST), ("hostname", STRING, None), ("max-frame-size", UINT, 0xFFFFFFFF),
    ("channel-max", USHORT, 65535), ("idle-time-out", UINT, None), ("outgoing-locales", SYMBOLS, None),
    ("incoming-locales", SYMBOLS, None), ("offered-capabilities", SYMBOLS, None),
    ("desired-capabilities", SYMBOLS, None), ("properties", MAP, None)])
BEGIN = Performative("begin", 0x11, [
    ("remote-channel", USHORT, None), ("next-outgoing-id", UINT, MUST), ("incoming-window", UINT, MUST),
    ("outgoing-window", UINT, MUST), ("handle-max", UINT, 0xFFFFFFFF), ("offered-capabilities", SYMBOLS, None),
    ("desired-capabilities", SYMBOLS, None), ("properties", MAP, None)])
ATTACH = Performative("attach", 0x12, [
    ("name", STRING, MUST), ("handle", UINT, MUST), ("role", BOOL, MUST), ("snd-settle-mode", UBYTE, 2),
    ("rcv-settle-mode", UBYTE, 0), ("source", COMPOSITE, None), ("target", COMPOSITE, None), ("unsettled", ANY, None),
    ("incomplete-unsettled", BOOL, False), ("initial-delivery-count", UINT, None), ("max-message-size", ULONG, 0),
    ("offered-capabilities", SYMBOLS, None), ("desired-capabilities", SYMBOLS, None), ("properties", MAP, None)])
FLOW = Performative("flow", 0x13, [
    ("next-incoming-id", UINT, None), ("incoming-window", UINT, MUST), ("next-outgoing-id", UINT, MUST),
    ("outgoing-window", UINT, MUST), ("handle", UINT, None), ("delivery-count", UINT, None),
    ("link-credit", UINT, None), ("available", UINT, None), ("drain", BOOL, False), ("echo", BOOL, False),
    ("properties", MAP, None)])
TRANSFER = Performative("transfer", 0x14, [
    ("handle", UINT, MUST), ("delivery-id", UINT, None), ("delivery-tag", BINARY, None), ("message-format", UINT, None),
    ("settled", BOOL, None), ("more", BOOL, False), ("rcv-settle-mode", UBYTE, None), ("state", COMPOSITE, None),
    ("resume", BOOL, False), ("aborted", BOOL, False), ("batchable", BOOL, False)])
DISPOSITION = Performative("disposition", 0x15, [
    ("role", BOOL, MUST), ("first", UINT, MUST), ("last", UINT, None), ("settled", BOOL, False),
    ("state", COMPOSITE, None), ("batchable", BOOL, False)])
DETACH = Performative("detach", 0x16, [("handle", UINT, MUST), ("closed", BOOL, False), ("error", COMPOSITE, None)])
END = Performative("end", 0x17, [("error", COMPOSITE, None)])
CLOSE = Performative("close", 0x18, [("error", COMPOSITE, None)])

SASL_MECHANISMS = Performative("sasl-mechanisms", 0x40, [("sasl-server-mechanisms", SYMBOLS, MUST)])
SASL_INIT = Performative("sasl-init", 0x41, [
    ("mechanism", SYMBOL, MUST), ("initial-response", BINARY, None), ("hostname", STRING, None)])
SASL_CHALLENGE = Performative("sasl-challenge", 0x42, [("challenge", BINARY, MUST)])
SASL_RESPONSE = Performative("sasl-response", 0x43, [("response", BINARY, MUST)])
SASL_OUTCOME = Performative("sasl-outcome", 0x44, [("code", UBYTE, MUST), ("additional-data", BINARY, None)])

PERFORMATIVES = {each.code: each for each in (OPEN, BEGIN, ATTACH, FLOW, TRANSFER, DISPOSITION, DETACH, END, CLOSE)}
SASL_FRAMES = {each.code: each for each in (SASL_INIT, SASL_RESPONSE)}

ERROR = Performative("error", 0x1D, [("condition", SYMBOL, MUST), ("description", STRING, None), ("info", MAP, None)])

RECEIVED = Performative("received", 0x23, [("section-number", UINT, MUST), ("section-offset", ULONG, MUST)])
ACCEPTED = Performative("accepted", 0x24, [])
REJECTED = Performative("rejected", 0x25, [("error", COMPOSITE, None)])
RELEASED = Performative("released", 0x26, [])
MODIFIED = Performative("modified", 0x27, [
    ("delivery-failed", BOOL, None), ("undeliverable-here", BOOL, None), ("message-annotations", MAP, None)])
DECLARED = Performative("declared", 0x33, [("txn-id", BINARY, MUST)])
TRANSACTIONAL_STATE = Performative("transactional-state", 0x34, [
    ("txn-id", BINARY, MUST), ("outcome", COMPOSITE, None)])

SOURCE = Performative("source", 0x28, [
    ("address", ANY, None), ("durable", UINT, 0), ("expiry-policy", SYMBOL, "session-end"), ("timeout", UINT, 0),
    ("dynamic", BOOL, False), ("dynamic-node-properties", MAP, None), ("distribution-mode", SYMBOL, None),
    ("filter", MAP, None), ("default-outcome", COMPOSITE, None), ("outcomes", SYMBOLS, None),
    ("capabilities", SYMBOLS, None)])
TARGET = Performative("target", 0x29, [
    ("address", ANY, None), ("durable", UINT, 0), ("expiry-policy", SYMBOL, "session-end"), ("timeout", UINT, 0),
    ("dynamic", BOOL, False), ("dynamic-node-properties", MAP, None), ("capabilities", SYMBOLS, None)])
COORDINATOR = Performative("coordinator", 0x30, [("capabilities", SYMBOLS, None)])
DECLARE = Performative("declare", 0x31, [("global-id", COMPOSITE, None)])
DISCHARGE = Performative("discharge", 0x32, [("txn-id", BINARY, MUST), ("fail", BOOL, False)])

COMPOSITES = {each.code: each for each in (
    ERROR, RECEIVED, ACCEPTED, REJECTED, RELEASED, MODIFIED, DECLARED, TRANSACTIONAL_STATE, SOURCE, TARGET, COORDINATOR,
    DECLARE, DISCHARGE)}

_NAMES = {f"amqp:{each.name}:list": each.code
          for each in (*PERFORMATIVES.values(), *SASL_FRAMES.values(), *COMPOSITES.values())}



def code_of(descriptor: Any) -> int:
    """The numeric code of a descriptor, which may be the symbolic one too; -1 for one that is not known."""
    if isinstance(descriptor, ULong):
        return int(descriptor)
    if isinstance(descriptor, Symbol):
        return _NAMES.get(str(descriptor), -1)
    return -1


def composite(value: Any) -> tuple[int, dict[str, Any]]:
    """The code and the fields by name of a value of a composite type. Raises: Malformed when it is none of ours."""
    if value is None:
        return -1, {}
    code = code_of(value.descriptor) if isinstance(value, Described) else -1
    kind = COMPOSITES.get(code)
    if kind is None:
        raise Malformed("a field has a type that is not known")
    return code, kind.read(value)


def descriptor(reader: Reader) -> int:
    """The code of the performative that is next; -1 for none that is known. Raises: Malformed."""
    data = reader.data
    at = reader.at
    if at + 3 <= reader.end and data[at] == 0 and data[at + 1] == 0x53:
        reader.at = at + 3
        return data[at + 2]
    if reader.number(1) != 0:
        raise Malformed("a frame does not begin with a performative")
    return code_of(reader.value())


def frame(kind: int, channel: int, body: bytes) -> bytes:
    """A frame of that type around a performative, and perhaps its payload."""
    return _HEAD.pack(HEADER_SIZE + len(body), 2, kind, channel) + body


def error(condition: str, description: str, info: dict[str, Any] | None = None) -> Described:
    """An error as a field of a performative (part 2, section 2.8.14)."""
    values: list[Any] = [Symbol(condition), description]
    if info:
        values.append(fields(info))
    return Described(ULong(ERROR.code), values)


def readable(data: bytes) -> str:
    """Bytes of a client as text for the log."""
    return text(data[:100]).encode("ascii", "backslashreplace").decode()
