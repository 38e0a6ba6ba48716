"""The client for 0-10, blocking and for asyncio, with a real broker; and with a network that breaks anywhere."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from interop.amqp010 import (
    AddressError,
    AuthenticationFailed,
    Connection,
    Detached,
    Empty,
    Message,
    ReplyTo,
    SessionError,
    Xid,
    aio,
    commands,
    connect,
)
from tests.wire import Peer


@pytest.fixture
def url(peer: Peer) -> str:
    return f"amqp://guest:guest@{peer.host}:{peer.port}/"


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    with connect(url) as made:
        yield made


@pytest.fixture
def queue(connection: Connection) -> Iterator[str]:
    name = f"queue-{uuid.uuid4()}"
    session = connection.session()
    session.call(commands.queue_declare(name))
    yield name
    with connection.session() as other:
        other.call(commands.queue_delete(name))


class Cutter:
    """A way to the broker that breaks after some number of bytes, in either direction, so often as there are numbers.

    Its threads end with `close`.
    """

    def __init__(self, peer: Peer, after: list[int]) -> None:
        self.peer = peer
        self.after = after  # bytes that pass before each break
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.cuts = 0
        self.lock = threading.Lock()
        self.sockets: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection((self.peer.host, self.peer.port))
                self.sockets += [near, far]
                left = [self.after.pop(0) if self.after else 1 << 60]
                for one, other in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._pass, args=(one, other, left), daemon=True)
                    self.threads.append(thread)
                    thread.start()

    def _pass(self, one: socket.socket, other: socket.socket, left: list[int]) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                with self.lock:
                    part = data[:max(0, left[0])]
                    left[0] -= len(data)
                    is_over = left[0] <= 0
                other.sendall(part)
                if is_over:
                    break
        with self.lock:
            self.cuts += left[0] <= 0
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.threads[0].join()
        for each in self.sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            thread.join()
        for each in self.sockets:
            each.close()


def cuts(seed: int) -> list[int]:
    """Where it breaks: some times in the first frames of a connection, some times far into it."""
    chance = random.Random(seed)
    return [chance.randrange(2500, 4000), *(chance.choice([chance.randrange(1, 1500), chance.randrange(1500, 60_000)])
                                            for _ in range(14))]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_or_doubled_when_the_network_breaks_anywhere(peer: Peer, queue: str, seed: int) -> None:
    cutter = Cutter(peer, cuts(seed))
    try:
        with connect(f"amqp://guest:guest@127.0.0.1:{cutter.port}/", reconnect=30) as broken:
            session = broken.session()
            sender, receiver = session.sender(queue, capacity=20), session.receiver(queue, capacity=10)
            got: list[int] = []
            for number in range(600):
                sender.send({"number": number, "fill": b"." * (number % 700)}, sync=number % 50 == 0)
                if number % 7 == 6:
                    for _ in range(7):
                        message = receiver.fetch(20)
                        got.append(message.content["number"])
                        session.accept(message, sync=number % 3 == 0)
            sender.sync()
            while len(got) < 600:
                message = receiver.fetch(20)
                got.append(message.content["number"])
                session.accept(message, sync=False)
            session.sync()
            with pytest.raises(Empty):
                receiver.fetch(0)
            assert got == list(range(600))
            assert session.call(commands.queue_query(queue)).message_count == 0
            assert broken.reconnections > 3
            session.close()
    finally:
        cutter.close()


def test_a_session_that_is_not_kept_ends_with_its_connection(peer: Peer) -> None:
    cutter = Cutter(peer, [3000])
    try:
        with connect(f"amqp://guest:guest@127.0.0.1:{cutter.port}/", reconnect=30) as broken:
            session = broken.session(timeout=0)
            with pytest.raises(Detached):
                for _ in range(1000):
                    session.sync()
            broken.session().sync()
    finally:
        cutter.close()


def test_messages_are_what_they_were(connection: Connection, queue: str) -> None:
    session = connection.session()
    sender, receiver = session.sender(queue), session.receiver(queue)
    told = {"s": "text", "n": 1 << 40, "b": b"\xff", "f": 1.5, "t": True, "none": None, "m": {"l": [1, "x"]},
            "u": uuid.UUID(int=3)}
    for content in (b"", b"bytes", "text", told, [1, "a", told], b"large" * 100_000):
        message = Message(content, subject="of it", properties=told, message_id=uuid.UUID(int=7), durable=True,
                          correlation_id=b"c", reply_to=ReplyTo("amq.direct", "answers"), user_id=b"guest", priority=7,
                          app_id=b"app", content_encoding="none", ttl=60_000)
        sender.send(message)
        got = receiver.fetch(5)
        for name in ("content", "subject", "properties", "message_id", "durable", "correlation_id", "reply_to",
                     "user_id", "priority", "app_id", "content_encoding", "redelivered"):
            assert getattr(got, name) == getattr(message, name), name
        assert 0 < (got.ttl or 0) <= 60_000
        session.acknowledge()


def test_settling(connection: Connection, queue: str) -> None:
    session = connection.session()
    sender, receiver = session.sender(queue), session.receiver(queue)
    for content in ("one", "two", "three"):
        sender.send(content)
    one, two, three = (receiver.fetch(5) for _ in range(3))
    session.release(two, redelivered=True)
    again = receiver.fetch(5)
    assert (again.content, again.redelivered) == ("two", True)
    session.reject(one, text="no")
    session.acknowledge()
    with pytest.raises(Empty):
        receiver.fetch(0)
    with pytest.raises(ValueError):
        session.accept(Message("that never came"))
    sender.send("four")
    receiver.close()
    assert session.receiver(queue, reliable=False, capacity=0).fetch(5).content == "four"
    session.sync()
    assert session.call(commands.queue_query(queue)).message_count == 0


def test_browsing_leaves_messages(connection: Connection, queue: str) -> None:
    session = connection.session()
    session.sender(queue).send("seen")
    for _ in range(2):
        browser = session.receiver(queue, browse=True)
        assert browser.fetch(5).content == "seen"
        with pytest.raises(Empty):
            browser.fetch(0)
        browser.close()


def test_exchanges(connection: Connection) -> None:
    session = connection.session()
    receiver = session.receiver("amq.topic/news.*")
    own = session.receiver("#")
    session.sender("amq.topic/news.uk").send("told")
    session.sender("amq.topic").send(Message("not told", subject="weather"))
    got = receiver.fetch(5)
    assert (got.content, got.subject, got.routing_key) == ("told", "news.uk", "news.uk")
    session.sender(str(ReplyTo("", own.queue))).send("an answer")
    assert own.fetch(5).content == "an answer"
    with pytest.raises(AddressError, match="no node named nowhere"):
        session.sender("nowhere")
    with pytest.raises(AddressError):
        session.receiver(f"{own.queue}/subject")


def test_local_transactions(connection: Connection, queue: str) -> None:
    with connection.session(transactional=True) as session, connection.session() as other:
        sender, receiver = session.sender(queue), session.receiver(queue)
        sender.send("undone")
        session.rollback()
        sender.send("done")
        assert other.call(commands.queue_query(queue)).message_count == 0
        session.commit()
        assert receiver.fetch(5).content == "done"
        session.acknowledge()
        session.commit()
        assert other.call(commands.queue_query(queue)).message_count == 0


def test_distributed_transactions(connection: Connection, queue: str) -> None:
    session = connection.session()
    session.call(commands.dtx_select())
    xid = Xid(1, uuid.uuid4().bytes, b"branch")
    assert session.call(commands.dtx_start(xid)) == commands.XA_OK
    session.sender(queue).send("in a branch")
    assert session.call(commands.dtx_end(xid)) == commands.XA_OK
    session.call(commands.dtx_set_timeout(xid, 60))
    assert session.call(commands.dtx_get_timeout(xid)) == 60
    assert session.call(commands.dtx_prepare(xid)) == commands.XA_OK
    assert xid in session.call(commands.dtx_recover())
    assert session.call(commands.dtx_commit(xid)) == commands.XA_OK
    assert session.call(commands.queue_query(queue)).message_count == 1


def test_topology(connection: Connection, queue: str) -> None:
    session = connection.session()
    exchange = f"exchange-{uuid.uuid4()}"
    session.call(commands.exchange_declare(exchange, "headers"))
    assert session.call(commands.exchange_query(exchange)).type == "headers"
    session.call(commands.exchange_bind(queue, exchange, "key", {"x-match": "all", "a": "b"}))
    assert session.call(commands.exchange_bound(exchange, queue, "key"))
    assert session.call(commands.exchange_bound(exchange, "none")).queue_not_found
    session.call(commands.exchange_unbind(queue, exchange, "key"))
    assert session.call(commands.exchange_bound(exchange, queue)).queue_not_matched
    session.call(commands.exchange_delete(exchange))
    assert session.call(commands.exchange_query(exchange)).not_found
    session.sender(queue).send("x")
    session.call(commands.queue_purge(queue))
    assert session.call(commands.queue_query(queue)).message_count == 0
    assert session.call(commands.queue_query("nowhere")).queue == ""


def test_an_error_ends_the_session_and_no_other(connection: Connection, queue: str) -> None:
    session, other = connection.session(), connection.session()
    with pytest.raises(SessionError) as refused:
        session.call(commands.queue_delete("nowhere"))
    assert (refused.value.error_code, refused.value.name) == (404, "not-found")
    with pytest.raises(SessionError):
        session.sync()
    session.close()
    other.sync()
    with pytest.raises(Detached):
        connection.session(other.name)
    other.sync()


def test_a_wrong_password(url: str) -> None:
    with pytest.raises(AuthenticationFailed):
        connect(url.replace("guest:guest", "guest:wrong"))


def test_asyncio(url: str, queue: str) -> None:
    async def play() -> list[str]:
        async with await aio.connect(url) as connection:
            async with await connection.session() as session:
                sender, receiver = await session.sender(queue), await session.receiver(queue)
                waiting = [asyncio.create_task(receiver.fetch(5)) for _ in range(3)]
                for content in ("one", "two", "three"):
                    await sender.send(content, sync=False)
                got = [message.content for message in await asyncio.gather(*waiting)]
                await session.acknowledge()
                return got

    assert asyncio.run(play()) == ["one", "two", "three"]
