"""The recorded conversations of AMQP 0-10 can be read, and are whole."""

import pytest

from tests import captures

CAPTURES = captures.names()


def test_there_are_captures_of_both_clients() -> None:
    assert any(name.startswith("qpid_python_low") for name in CAPTURES)
    assert any(name.startswith("qpid_python_high") for name in CAPTURES)
    assert any(name.startswith("qpid_jms") for name in CAPTURES)


@pytest.mark.parametrize("name", CAPTURES)
def test_each_line_is_one_frame_or_a_protocol_header(name: str) -> None:
    for side in (True, False):
        assert captures.stream(name, side).startswith(b"AMQP\x01\x01\x00\x0a")
    for line in captures.read(name):
        if line.data and not line.data.startswith(b"AMQP"):
            assert int.from_bytes(line.data[2:4], "big") == len(line.data) >= 12
