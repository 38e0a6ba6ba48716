"""Nobody becomes another user by the header in which translations keep a user-id, wherever and however he writes it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pamqp.encode import field_table

from protocols import maps010
from protocols.amqp091.codec import read_table
from protocols.side_headers import USER_KEY, disowned

NAMES = st.sampled_from(["x-user-id", "X-user-id", "x-user-i", "a", "", "\tx-user-id"])
VALUES = st.recursive(st.one_of(st.binary(max_size=12), st.sampled_from([b"\x09x-user-idx", b"x-user-id"]),
                                st.text("xS\t-users", max_size=12), st.integers(-5, 5), st.booleans()),
                      lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=5)


def as_bytes(value: Any) -> Any:
    """With bytearrays, which pamqp writes as bytes."""
    if isinstance(value, dict):
        return {name: as_bytes(each) for name, each in value.items()}
    return bytearray(value) if isinstance(value, bytes) else value


def claims(headers: dict[str, Any]) -> bool:
    return type(headers.get("x-user-id")) is bytes


@given(HEADERS, st.binary(max_size=5))
def test_091(headers: dict[str, Any], before: bytes) -> None:
    table = field_table(as_bytes(headers))[4:]
    data = disowned(before + table + b"rest", len(before), len(before) + len(table), b"S")
    assert data[:len(before)] == before and data[len(before) + len(table):] == b"rest"
    found = read_table(data, len(before), len(before) + len(table))
    assert not claims(found)
    if b"x-user-id" not in table:
        assert data == before + table + b"rest"


@given(HEADERS)
def test_010(headers: dict[str, Any]) -> None:
    data = maps010.write_map(headers)
    found = maps010.read_map(disowned(data, 0, len(data), b"\x84\x85\x86\x94\x95\x96"))
    assert not claims(found)
    if b"x-user-id" not in data:
        assert found == maps010.read_map(data)


def test_a_header_full_of_claims() -> None:
    """As large as one of 0-10 may be: a copy for each claim would take minutes."""
    claim = USER_KEY + b"\xa0\x01a"
    count = (4 << 20) // len(claim)
    assert disowned(claim * count, 0, len(claim) * count, b"S") == claim.replace(b"x", b"X", 1) * count
