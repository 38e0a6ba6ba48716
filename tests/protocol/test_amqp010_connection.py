"""Connections of AMQP 0-10, frame by frame: handshake, framing, heartbeats, close."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from protocols.amqp010.frames import BODY, COMMAND, CONTROL, FIRST_SEGMENT, HEADER, LAST_SEGMENT, frame_head, segment
from tests.wire010 import Client010

Connect = Callable[..., Client010]


def test_the_handshake_says_who_we_are_and_what_is_possible(connect010: Connect) -> None:
    client = connect010()
    assert client.start["server_properties"]["product"] == "Dragoman"
    assert "PLAIN" in client.start["mechanisms"]
    assert client.start["locales"] == ["en_US"]
    assert client.tune["max_frame_size"] == 65535
    assert client.tune["heartbeat_max"] == 120


def test_a_wrong_password_is_refused(connect010: Connect) -> None:
    client = connect010(opens=False)
    client.control("connection.start-ok", client_properties={}, mechanism="PLAIN", response=b"\0guest\0wrong",
                   locale="en_US")
    assert client.closed() == 320


def test_an_unknown_virtual_host_is_an_invalid_path(connect010: Connect) -> None:
    client = connect010(opens=False)
    client.ask_to_open("nowhere")
    assert client.closed() == 402


def test_a_frame_size_below_the_minimum_is_refused(connect010: Connect) -> None:
    client = connect010(opens=False)
    client.control("connection.start-ok", client_properties={}, mechanism="PLAIN", response=b"\0guest\0guest",
                   locale="en_US")
    client.expect("connection.tune")
    client.control("connection.tune-ok", channel_max=10, max_frame_size=100, heartbeat=0)
    assert client.closed() == 501


def test_close_is_answered(c010: Client010) -> None:
    c010.control("connection.close", reply_code=200, reply_text="bye")
    c010.expect("connection.close-ok")


def test_the_client_is_sent_heartbeats_while_nothing_else_is_sent(connect010: Connect) -> None:
    client = connect010(heartbeat=1)
    for _ in range(2):
        client.control("connection.heartbeat")
        while client.arrive().name != "connection.heartbeat":
            pass


def test_a_silent_client_is_dropped(connect010: Connect) -> None:
    client = connect010(heartbeat=1)
    began = time.monotonic()
    with pytest.raises(EOFError):
        while True:
            client.arrive()
    assert time.monotonic() - began > 1


@pytest.mark.parametrize("data", [
    pytest.param(b"\xff" * 20, id="nonsense"),
    pytest.param(b"\x0f\x00\x00\x05" + bytes(8), id="a frame that is smaller than its header"),
    pytest.param(frame_head(4, 9, 0, 15) + bytes(4), id="a segment type that does not exist"),
    pytest.param(frame_head(4, CONTROL, 0, 15)[:5] + b"\x01" + bytes(6) + b"\x01\x0a\x00\x00", id="the wrong track"),
    pytest.param(frame_head(4, CONTROL, 0, 15) + b"\x01\x63\x00\x00", id="a control that does not exist"),
    pytest.param(frame_head(3, CONTROL, 0, 15) + b"\x02\x05\x01", id="a control that is cut off"),
    pytest.param(frame_head(4, CONTROL, 0, 15) + b"\x01\x0a\xff\x00", id="flags of fields that do not exist"),
    pytest.param(frame_head(4, CONTROL, 0, 15) + b"\x01\x02\x00\x00", id="start-ok on an open connection"),
    pytest.param(frame_head(1, CONTROL, 0, 12) + b"\x02", id="a control that goes on before it began"),
    pytest.param(frame_head(0, COMMAND, 0, 15), id="a command without its header"),
    pytest.param(frame_head(2, BODY, 0, 7) + b"hi", id="a body without a command"),
    pytest.param(frame_head(2, HEADER, 0, 7) + b"hi", id="a header without a command"),
    pytest.param(frame_head(2, COMMAND, 0, 7) + b"\x03\x01", id="a command that does not begin an assembly"),
])
def test_broken_frames_cost_the_connection_and_nobody_elses(connect010: Connect, data: bytes) -> None:
    client, bystander = connect010(), connect010()
    client.nothing()
    client.socket.sendall(data)
    assert client.closed() == 501
    bystander.nothing()


def test_a_transfer_whose_segments_are_out_of_order_costs_the_connection(c010: Client010) -> None:
    transfer = segment("message.transfer", False, {"destination": "", "accept_mode": 1, "acquire_mode": 0})
    c010.segment(transfer, COMMAND, FIRST_SEGMENT)
    c010.segment(transfer, COMMAND, FIRST_SEGMENT | LAST_SEGMENT)
    assert c010.closed() == 501


def test_commands_may_come_in_many_frames_and_bytes_one_by_one(connect010: Connect, name: Callable[..., str]) -> None:
    client = connect010(frame_max=4096)
    queue = name()
    content = segment("queue.declare", True, {"queue": queue, "auto_delete": True, "arguments": {"x-note": "n" * 9000}})
    client.segment(content, COMMAND, FIRST_SEGMENT | LAST_SEGMENT)
    client.next_out += 1
    client.wait(client.next_out - 1)
    for octet in frame_head(6, COMMAND, 0, 15) + b"\x03\x01\x01\x01\x00\x00":
        client.socket.sendall(bytes([octet]))
    client.wait(client.next_out)
    client.next_out += 1
    assert client.result("queue.query", queue=queue)["queue"] == queue


def test_frames_for_channels_without_a_session_are_dropped(c010: Client010) -> None:
    c010.segment(segment("execution.sync", True, {}), COMMAND, FIRST_SEGMENT | LAST_SEGMENT, channel=7)
    c010.nothing()


def test_the_virtual_host_may_be_written_with_a_slash(connect010: Connect) -> None:
    client = connect010(opens=False)
    client.control("connection.start-ok", client_properties={}, mechanism="PLAIN", response=b"\0guest\0guest",
                   locale="en_US")
    client.expect("connection.tune")
    client.control("connection.tune-ok", channel_max=10, max_frame_size=65535, heartbeat=0)
    client.control("connection.open", virtual_host="/")
    client.expect("connection.open-ok")
