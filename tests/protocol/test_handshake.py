"""From the protocol header to connection.open-ok, and the end of a connection."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pamqp import frame
from pamqp.commands import Basic, Connection
from pamqp.commands import Channel as ChannelClass
from pamqp.heartbeat import Heartbeat

from tests.wire import (
    CAPABILITIES,
    HEADER,
    Client,
    ConnectionClosed,
    Hangup,
    Peer,
    connection_error,
    eventually,
    longstr,
    raw_frame,
    raw_method,
    shortstr,
)

Name = Callable[..., str]
Connect = Callable[..., Client]
Dial = Callable[[], Client]

START_OK = Connection.StartOk({"capabilities": CAPABILITIES}, "PLAIN", "\0guest\0guest", "en_US")


# The protocol header

@pytest.mark.parametrize("sent", [b"AMQP\x00\x00\x09\x02", b"AMQP\x09\x09\x09\x09", b"AMQP\x01\x01\x00\x0b",
                                  b"AMQP\x00\x00\x0a\x00", b"amqp\x00\x00\x09\x01", b"HELLO YOU", bytes(8)], ids=repr)
def test_unknown_header_is_answered_with_a_known_one(dial: Dial, sent: bytes) -> None:
    client = dial()
    client.write(sent)
    assert client.rest() == HEADER


def test_header_byte_by_byte(dial: Dial) -> None:
    client = dial()
    for at in range(8):
        client.write(HEADER[at:at + 1])
    client.expect(Connection.Start)


@pytest.mark.parametrize("sent", [b"", b"A", b"AMQP\x00\x00\x09"], ids=repr)
def test_client_that_leaves_during_the_header(dial: Dial, connect: Connect, sent: bytes) -> None:
    client = dial()
    client.write(sent)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.rest() == b""
    connect().channel()


# connection.start

def test_start(dial: Dial) -> None:
    client = dial()
    client.write(HEADER)
    start = client.expect(Connection.Start)
    assert (start.version_major, start.version_minor) == (0, 9)
    assert {"PLAIN", "AMQPLAIN"} <= set(start.mechanisms.split(" "))
    assert "en_US" in start.locales.split(" ")
    properties = start.server_properties
    for key in ("product", "version", "platform", "copyright", "information", "cluster_name"):
        assert isinstance(properties[key], str) and properties[key], key


def test_capabilities(dial: Dial) -> None:
    client = dial()
    client.write(HEADER)
    assert client.expect(Connection.Start).server_properties["capabilities"] == dict.fromkeys((
        "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
        "connection.blocked", "consumer_priorities", "authentication_failure_close", "per_consumer_qos",
        "direct_reply_to"), True)


# Logging in

def amqplain(password: bytes, *, table: bytes | None = None) -> bytes:
    """connection.start-ok with this response, which is a table without its length."""
    if table is None:
        table = shortstr("LOGIN") + b"S" + longstr(b"guest") + shortstr("PASSWORD") + b"S" + longstr(password)
    properties = shortstr("capabilities") + b"F" + longstr(shortstr("authentication_failure_close") + b"t\x01")
    return raw_method(0, 10, 11, longstr(properties) + shortstr("AMQPLAIN") + longstr(table) + shortstr("en_US"))


def test_amqplain(dial: Dial) -> None:
    client = dial()
    client.write(HEADER)
    client.expect(Connection.Start)
    client.write(amqplain(b"guest"))
    client.send(0, Connection.TuneOk(0x7ff, 131072, 0), Connection.Open("/"))
    client.expect(Connection.Tune)
    client.expect(Connection.OpenOk)


@pytest.mark.parametrize("user, password", [("guest", "wrong"), ("nobody", "guest"), ("guest", ""), ("", ""),
                                            ("guest", "guest "), ("gue\u0161t", "\u0161")])
def test_login_refused(dial: Dial, user: str, password: str) -> None:
    client = dial()
    client.log_in(user, password)
    with connection_error(403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details "
                          "see the broker logfile.", None):
        client.next()
    assert client.rest() == b""


def test_login_by_amqplain_refused(dial: Dial) -> None:
    client = dial()
    client.write(HEADER)
    client.expect(Connection.Start)
    client.write(amqplain(b"wrong"))
    with connection_error(403, "ACCESS_REFUSED - Login was refused using authentication mechanism AMQPLAIN. For "
                          "details see the broker logfile.", None):
        client.next()


def test_unknown_virtual_host(dial: Dial) -> None:
    client = dial()
    client.log_in()
    client.expect(Connection.Tune)
    client.send(0, Connection.TuneOk(0x7ff, 131072, 0), Connection.Open("wire-no-such-host"))
    with connection_error(530, "NOT_ALLOWED - vhost wire-no-such-host not found", Connection.Open):
        client.next()


def test_unknown_locale_and_properties_do_not_matter(dial: Dial) -> None:
    client = dial()
    client.write(HEADER)
    client.expect(Connection.Start)
    client.send(0, Connection.StartOk({"capabilities": {"x": 1}, "product": None, "deep": {"a": [1]}}, "PLAIN",
                                      "\0guest\0guest", "tlh_TLH"))
    client.expect(Connection.Tune)


# Tuning

def test_tune(dial: Dial) -> None:
    client = dial()
    client.log_in()
    tune = client.expect(Connection.Tune)
    assert tune.channel_max >= 2047 and tune.frame_max == 131072 and tune.heartbeat == 60


@pytest.mark.parametrize("frame_max", [4096, 4097, 131072])
def test_frame_max(connect: Connect, name: Name, frame_max: int) -> None:
    ch = connect(frame_max=frame_max).channel()
    queue = name()
    ch.queue(queue)
    ch.put("", queue, bytes(20000))
    assert ch.wait_get(queue).body == bytes(20000)  # the client looks at the frames' sizes


def test_methods_longer_than_the_frame_max_are_not_sent(connect: Connect, name: Name) -> None:
    ch = connect(frame_max=4096).channel()
    queue = name()
    ch.queue(queue)
    ch.put("", queue, b"x", headers={"long": "x" * 3900})
    got = ch.wait_get(queue)
    assert len(got.raw_header) <= 4096 and got.headers == {"long": "x" * 3900}


def test_whole_handshake_at_once(dial: Dial) -> None:
    client = dial()
    client.write(HEADER + b"".join(frame.marshal(one, channel) for channel, one in (
        (0, START_OK), (0, Connection.TuneOk(0x7ff, 131072, 0)), (0, Connection.Open("/")), (1, ChannelClass.Open()),
        (1, Basic.Qos(0, 1)))))
    for kind in (Connection.Start, Connection.Tune, Connection.OpenOk):
        client.expect(kind)
    client.expect(ChannelClass.OpenOk, 1)
    client.expect(Basic.QosOk, 1)


def test_handshake_byte_by_byte(dial: Dial) -> None:
    client = dial()
    for data in (HEADER, frame.marshal(START_OK, 0), frame.marshal(Connection.TuneOk(0x7ff, 131072, 0), 0),
                 frame.marshal(Connection.Open("/"), 0)):
        for at in range(len(data)):
            client.write(data[at:at + 1])
    for kind in (Connection.Start, Connection.Tune, Connection.OpenOk):
        client.expect(kind)


def test_heartbeats_during_the_handshake(dial: Dial) -> None:
    client = dial()
    client.write(HEADER)
    client.expect(Connection.Start)
    client.send(0, Heartbeat(), START_OK, Heartbeat())
    client.expect(Connection.Tune)
    client.send(0, Heartbeat(), Connection.TuneOk(0x7ff, 131072, 0), Heartbeat(), Connection.Open("/"), Heartbeat())
    client.expect(Connection.OpenOk)


# What ends a handshake: RabbitMQ waits a while and hangs up without a word, so all of them are tried at once.

BROKEN = {
    "unknown mechanism": [frame.marshal(Connection.StartOk({}, "MAGIC", "\0guest\0guest", "en_US"), 0)],
    "EXTERNAL without a certificate": [frame.marshal(Connection.StartOk({}, "EXTERNAL", "guest", "en_US"), 0)],
    "ANONYMOUS when it is not let in": [frame.marshal(Connection.StartOk({}, "ANONYMOUS", "", "en_US"), 0)],
    "PLAIN without NULs": [frame.marshal(Connection.StartOk({}, "PLAIN", "guest", "en_US"), 0)],
    "PLAIN with one NUL": [frame.marshal(Connection.StartOk({}, "PLAIN", "\0guest", "en_US"), 0)],
    "AMQPLAIN of garbage": [amqplain(b"", table=b"\xff\x00garbage")],
    "AMQPLAIN without password": [amqplain(b"", table=shortstr("LOGIN") + b"S" + longstr(b"guest"))],
    "AMQPLAIN with a number": [amqplain(b"", table=shortstr("LOGIN") + b"S" + longstr(b"guest")
                                        + shortstr("PASSWORD") + b"I\0\0\0\1")],
    "wrong password, no capability": [frame.marshal(Connection.StartOk({}, "PLAIN", "\0guest\0wrong", "en_US"), 0)],
    "tune-ok first": [frame.marshal(Connection.TuneOk(0, 0, 0), 0)],
    "open first": [frame.marshal(Connection.Open("/"), 0)],
    "close first": [frame.marshal(Connection.Close(200, "", 0, 0), 0)],
    "start-ok on channel 1": [frame.marshal(START_OK, 1)],
    "channel.open first": [frame.marshal(ChannelClass.Open(), 1)],
    "basic.publish first": [frame.marshal(Basic.Publish(), 1)],
    "body first": [raw_frame(3, 1, b"x")],
    "unknown frame type": [raw_frame(7, 0, b"x")],
    "wrong end octet": [frame.marshal(START_OK, 0)[:-1] + b"\x00"],
    "header again": [HEADER],
    "start-ok without arguments": [raw_method(0, 10, 11)],
    "start-ok with a wrong table": [raw_method(0, 10, 11, longstr(b"\x05abc") + shortstr("PLAIN") + longstr(b"")
                                               + shortstr("en_US"))],
    "a frame above the least frame_max": [raw_frame(1, 0, bytes(5000))],
    "a frame of 4 GiB": [b"\x01\x00\x00\xff\xff\xff\xff"],
    "frame_max too small": [frame.marshal(START_OK, 0), frame.marshal(Connection.TuneOk(0x7ff, 4095, 0), 0)],
    "frame_max above what was proposed": [frame.marshal(START_OK, 0),
                                          frame.marshal(Connection.TuneOk(0x7ff, 131073, 0), 0)],
    "no frame_max though one was proposed": [frame.marshal(START_OK, 0),
                                             frame.marshal(Connection.TuneOk(0x7ff, 0, 0), 0)],
    "start-ok twice": [frame.marshal(START_OK, 0), frame.marshal(START_OK, 0)],
    "open without tune-ok": [frame.marshal(START_OK, 0), frame.marshal(Connection.Open("/"), 0)],
    "channel.open without open": [frame.marshal(START_OK, 0), frame.marshal(Connection.TuneOk(0x7ff, 131072, 0), 0),
                                  frame.marshal(ChannelClass.Open(), 1)],
}


@pytest.fixture(scope="module")
def endings(peer: Peer) -> Iterator[dict[str, list[bytes]]]:
    """By the way to break the handshake, the frames that came until the broker closed the socket."""
    def run(parts: list[bytes]) -> list[bytes]:
        client = Client(peer)
        try:
            client.write(HEADER)
            client.read_raw()
            for number, part in enumerate(parts):
                if number == 1:
                    client.read_raw()  # connection.tune
                client.write(part)
            frames = []
            while True:
                try:
                    frames.append(client.read_raw())
                except (Hangup, OSError) as error:
                    assert not isinstance(error, TimeoutError), "the broker did not close the socket"
                    return frames
                client.write(frame.marshal(Connection.CloseOk(), 0))
        except Hangup:
            return []
        finally:
            client.drop()

    with ThreadPoolExecutor(len(BROKEN)) as pool:
        yield dict(zip(BROKEN, pool.map(run, BROKEN.values()), strict=True))


@pytest.mark.parametrize("how", BROKEN)
def test_broken_handshake(endings: dict[str, list[bytes]], how: str) -> None:
    """The broker hangs up, at most after one connection.close."""
    frames = endings[how]
    last_words = b"\x00\x0a\x00\x33" if how == "close first" else b"\x00\x0a\x00\x32"
    assert [one[7:11] for one in frames] in ([], [last_words]), frames
    if how == "wrong password, no capability":
        assert not frames  # such a client takes a close for something else


# Heartbeats

def test_broker_sends_heartbeats(connect: Connect) -> None:
    client = connect(heartbeat=1)
    for _ in range(2):
        channel, value = client.read()
        assert channel == 0 and isinstance(value, Heartbeat)


def test_silent_client_is_dropped(connect: Connect) -> None:
    client = connect(heartbeat=1)
    client.closed = True
    rest = client.rest()
    assert rest.startswith(raw_frame(8, 0, b""))


def test_client_that_sends_heartbeats_or_anything_stays(connect: Connect) -> None:
    quiet, busy = connect(heartbeat=1), connect(heartbeat=1)
    ch = busy.channel()
    for _ in range(6):  # as many as make up for more than two missed ones
        assert isinstance(quiet.read()[1], Heartbeat)
        quiet.send(0, Heartbeat())
        ch.qos(1)
    quiet.channel().queue(exclusive=True)
    ch.queue(exclusive=True)


def test_no_heartbeats_when_tuned_to_0(connect: Connect) -> None:
    client, pace = connect(heartbeat=0), connect(heartbeat=1)
    for _ in range(3):
        pace.read()
        pace.send(0, Heartbeat())
    ch = client.channel()
    ch.queue(exclusive=True)
    client.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.read()
    client.socket.setblocking(True)


def test_heartbeat_out_of_turn_is_fine(client: Client) -> None:
    ch = client.channel()
    client.send(0, *[Heartbeat()] * 10)
    ch.queue(exclusive=True)


# update-secret, and the end

def test_update_secret(client: Client) -> None:
    client.send(0, Connection.UpdateSecret("guest", "it was time"))
    client.expect(Connection.UpdateSecretOk)
    client.channel().queue(exclusive=True)


def test_close(client: Client) -> None:
    client.send(0, Connection.Close(200, "bye", 0, 0))
    client.closed = True
    client.expect(Connection.CloseOk)


def test_close_with_any_reason(client: Client) -> None:
    client.channel()
    client.send(0, Connection.Close(541, "é" * 127, 60, 40))
    client.closed = True
    client.expect(Connection.CloseOk)


def test_broker_closes_the_socket_after_close_ok(client: Client) -> None:
    client.channel(1)
    client.send(1, ChannelClass.Open())
    with pytest.raises(ConnectionClosed):
        client.expect(ChannelClass.OpenOk, 1)
    assert client.rest() == b""


def test_client_that_never_answers_close(connect: Connect, client: Client) -> None:
    """It does not hold up others, and what it had is freed."""
    ch = client.channel(1)
    queue = ch.temporary()
    client.send(1, ChannelClass.Open())
    client.closed = True
    assert isinstance(client.read()[1], Connection.Close)
    other = connect().channel()
    other.put("", queue)
    client.drop()
    eventually(lambda: other.gone(queue))
