"""Arguments as JSON: whatever a dialect's map can carry comes back as it was; what is none of ours is a ValueError."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.argument_values import dump, load
from broker.values import Array, Described, Odd, Opaque, Pairs


@pytest.mark.parametrize("value", [
    None, True, 5, 2.5, "text", "\udcff", b"\0\xff", Decimal("1.50"), datetime(2026, 1, 1, tzinfo=UTC), [1, [b"x"]],
    {"!map": 1}, {"a": {"b": [None]}}, uuid.UUID(int=7), Odd(0x95, b"\xff"), Opaque(0x74, b"\0\1\2\3"),
    Described("d", [uuid.UUID(int=1)]), Pairs([(1, "a"), (uuid.UUID(int=2), b"")]), Array(0x71, [1, 2]),
    Array(0xA1, ["a"], "descriptor", True)], ids=repr)
def test_a_value_comes_back(value: Any) -> None:
    assert load(dump({"argument": value})) == {"argument": value}


@given(st.binary(max_size=60) | st.sampled_from([
    b'{"!%s": %s}' % (kind, content) for kind in (b"map", b"bytes", b"decimal", b"time", b"text", b"uuid", b"odd",
                                                  b"opaque", b"described", b"pairs", b"array")
    for content in (b"5", b"[]", b"[1]", b"[[]]", b'"x"', b"null", b"1e400", b'["a", "b"]', b"{}")]))
def test_what_is_none_of_ours(data: bytes) -> None:
    try:
        load(data)
    except ValueError:
        pass
