"""Arguments of declarations and bindings: comparing them, and keeping them as JSON.

Values are what field tables and maps carry: None, bool, int, float, str, bytes, Decimal, datetime, lists, dicts, and
those of broker.values.
"""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from broker.values import Array, Described, Odd, Opaque, Pairs


def dump(value: Any) -> bytes:
    """JSON in which what JSON has no type for is an object with one key that names the type."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":")).encode()


def load(data: bytes) -> Any:
    """The reverse of `dump`. Raises: ValueError, whatever the data is."""
    try:
        return _rich(json.loads(data))
    except (TypeError, AttributeError, LookupError, ArithmeticError, OSError, RecursionError) as error:
        raise ValueError(f"it is none of ours: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {"!map": [[key, _plain(item)] for key, item in value.items()]} if any(
            key.startswith("!") for key in value) else {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"!bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, Decimal):
        return {"!decimal": str(value)}
    if isinstance(value, uuid.UUID):
        return {"!uuid": value.hex}
    if isinstance(value, Odd):
        return {"!odd": [value.code, base64.b64encode(value.data).decode()]}
    if isinstance(value, Opaque):
        return {"!opaque": [value.kind, base64.b64encode(value.data).decode()]}
    if isinstance(value, Described):
        return {"!described": [_plain(value.descriptor), _plain(value.value)]}
    if isinstance(value, Pairs):
        return {"!pairs": [[_plain(key), _plain(item)] for key, item in value.items]}
    if isinstance(value, Array):
        return {"!array": [value.kind, _plain(value.values), _plain(value.descriptor), value.described]}
    if isinstance(value, datetime):
        return {"!time": value.timestamp()}
    if isinstance(value, str) and not value.isprintable():
        return {"!text": base64.b64encode(value.encode("utf-8", "surrogateescape")).decode()}
    return value


def _rich(value: Any) -> Any:
    if isinstance(value, list):
        return [_rich(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        kind, content = next(iter(value.items()))
        if kind == "!map":
            return {key: _rich(item) for key, item in content}
        if kind == "!bytes":
            return base64.b64decode(content)
        if kind == "!decimal":
            return Decimal(content)
        if kind == "!time":
            return datetime.fromtimestamp(content, UTC)
        if kind == "!text":
            return base64.b64decode(content).decode("utf-8", "surrogateescape")
        if kind == "!uuid":
            return uuid.UUID(content)
        if kind in _PAIRS_OF:
            return _PAIRS_OF[kind](content[0], base64.b64decode(content[1]))
        if kind == "!described":
            return Described(_rich(content[0]), _rich(content[1]))
        if kind == "!pairs":
            return Pairs([(_rich(key), _rich(item)) for key, item in content])
        if kind == "!array":
            return Array(content[0], _rich(content[1]), _rich(content[2]), bool(content[3]))
    return {key: _rich(item) for key, item in value.items()}


_PAIRS_OF: dict[str, Any] = {"!odd": Odd, "!opaque": Opaque}


def same(value: Any, other: Any) -> bool:
    """Whether two arguments mean the same: numbers of any width are alike, a truth value is no number."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    return bool(value == other)


_RANGES = ((-2**7, 2**7, "byte"), (0, 2**8, "unsignedbyte"), (-2**15, 2**15, "short"), (0, 2**16, "unsignedshort"),
           (-2**31, 2**31, "signedint"), (0, 2**32, "unsignedint"), (-2**63, 2**63, "long"))
_KINDS = {bool: "bool", str: "longstr", float: "float", bytes: "binary", list: "array", dict: "table",
          type(None): "void", Decimal: "decimal", datetime: "timestamp"}


def kind(value: Any) -> str:
    """A value's type in the words of RabbitMQ's error texts; of an integer, the narrowest that holds it."""
    if type(value) in _KINDS:
        return _KINDS[type(value)]
    for low, high, name in _RANGES:
        if low <= value < high:
            return name
    return "long"
