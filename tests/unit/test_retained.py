"""Retained messages in the core: a random history beside a dictionary, and what is retained when."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from broker_kit import Reader, Running, body_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from proton import Described, symbol, timestamp, ulong

from broker import lane as lane_module
from broker import moving
from broker import ordered as ordered_module
from broker import queue as queue_module
from broker import retained as retained_module
from broker.errors import AccessRefused, LimitReached
from broker.message import AMQP091, AMQP10, Message, Publisher, address_of
from broker.retained import QUEUE
from broker.routing import ROUTED, UNROUTED
from broker.security.quotas import QUEUES, Limit
from broker.topic import TopicTrie
from broker.transaction import Publication, Transaction
from protocols.amqp091.frames import BODY, HEADER, frame
from protocols.amqp10 import convert  # noqa: F401 - registers itself
from tests.wire10 import encode

WORDS = ("a", "b", "", "*")
KEYS = sorted({".".join(words) for words in [(one,) for one in WORDS] + [(one, two) for one in WORDS for two in WORDS]
               + [("a", "a", "a"), ("a", "b", "c")]})
PATTERNS = ("#", "*", "a", "a.*", "*.a", "a.#", "#.a", "*.*", "#.b.#", "#.#", "#.a.#.a", "*.#.*", "a.b.c", "nothing",
            "")


def made(key: str, body: bytes, retain: Any = True, durable: bool = False, expiry: int = 0, now: int = 1) -> Message:
    """A message of 0-9-1 for amq.topic. retain: the header's value, True, False or text."""
    name = b"\x0dx-mqtt-retain"
    entry = b"" if retain is None else name + (
        b"S" + pack(">I", len(retain)) + retain.encode() if isinstance(retain, str) else b"t" + bytes([retain]))
    header = pack(">HHQH", 60, 0, len(body), 1 << 13 | 1 << 12) + pack(">I", len(entry)) + entry \
        + bytes([2 if durable else 1])
    native = frame(HEADER, 0, header) + (frame(BODY, 0, body) if body else b"")
    return Message(address_of("amq.topic", key), AMQP091, native, None, len(body), durable, 0, expiry, now)


def publish(one: Running, message: Message) -> int:
    address = message.address
    return one.host.publish(one.host.route(address.short_strings, address.exchange, address.routing_key), message, None)


def found(one: Running, pattern: str) -> dict[str, bytes]:
    """What a pattern finds, each once."""
    lane = one.host.retained
    known: dict[str, bytes] = {}
    for message in lane.matching(pattern) if lane is not None else ():
        if message is not None:
            assert message.address.routing_key not in known
            known[message.address.routing_key] = b"".join(message.view().body)
    return known


def fits(pattern: str, key: str) -> bool:
    trie = TopicTrie()
    trie.add(pattern, "one", True)
    return bool(trie.match(".".join("star" if word == "*" else word for word in key.split("."))))


class Waiting(Publisher):
    """Knows when its message is safe."""

    def __init__(self) -> None:
        self.safe = False

    def confirmed(self, sequence: int) -> None:
        assert not self.safe
        self.safe = True


class RetainedMachine(RuleBasedStateMachine):
    """Retained messages in small pages, beside a dictionary of the bodies by key."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="retained"))
        self.lives = 0
        self.before = queue_module.FEW, lane_module.CHUNK, ordered_module.BLOCK, retained_module.AT_ONCE
        queue_module.FEW, lane_module.CHUNK, ordered_module.BLOCK, retained_module.AT_ONCE = 4, 3, 2, 3
        self.kept: dict[str, tuple[bytes, int]] = {}  # and when it expires, 0 for never
        self.history: list[dict[str, bytes]] = [{}]  # what was retained, since all that was was durable
        self.number = 0
        self.expiry: dict[bytes, int] = {}  # of all bodies there ever were
        self.unsafe: list[Waiting] = []
        self.one = Running(self.root / "0", keep=5)
        self.one.clock.now = 1 << 42  # long from now, so that nothing expires as a broker recovers

    def bodies(self) -> dict[str, bytes]:
        return {key: body for key, (body, _) in self.kept.items()}

    def changed(self) -> None:
        self.history.append(self.bodies())

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8), durable=st.booleans(),
          lasts=st.sampled_from([0, 0, 0, 10, 20]), confirmed=st.booleans())
    def retain(self, keys: list[str], durable: bool, lasts: int, confirmed: bool) -> None:
        now = self.one.clock.now
        for key in keys:
            self.number += 1
            body = b"%d" % self.number
            expiry = now + lasts if lasts else 0
            self.send(made(key, body, True, durable, expiry, now), confirmed)
            self.kept[key] = body, expiry
            self.expiry[body] = expiry
            self.changed()

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8), confirmed=st.booleans())
    def remove(self, keys: list[str], confirmed: bool) -> None:
        for key in keys:
            self.send(made(key, b"", True), confirmed)
            self.kept.pop(key, None)
            self.changed()

    def send(self, message: Message, confirmed: bool) -> None:
        assert publish(self.one, message) == ROUTED
        if confirmed and message.pending:
            waiting = Waiting()
            message.publisher = waiting
            self.unsafe.append(waiting)

    @rule(key=st.sampled_from(KEYS))
    def publish_as_usual(self, key: str) -> None:
        assert publish(self.one, made(key, b"usual", None)) == UNROUTED
        assert publish(self.one, made(key, b"", False)) == UNROUTED

    @rule(pattern=st.sampled_from(PATTERNS))
    def look(self, pattern: str) -> None:
        assert found(self.one, pattern) == {key: body for key, body in self.bodies().items() if fits(pattern, key)}

    @rule(pattern=st.sampled_from(PATTERNS), other=st.sampled_from(KEYS), more=st.sampled_from(KEYS))
    def look_while_it_changes(self, pattern: str, other: str, more: str) -> None:
        """What stays is found; what is new is not."""
        lane = self.one.host.retained
        before = self.bodies()
        seen: dict[str, bytes] = {}
        if lane is not None:
            for number, message in enumerate(lane.matching(pattern)):
                if number == 1:
                    self.remove([other], False)
                    self.retain([more], True, 0, False)
                if message is not None:
                    seen[message.address.routing_key] = body_of(message)
        stays = {key: body for key, body in before.items() if fits(pattern, key) and key not in (other, more)}
        assert stays.items() <= seen.items() <= {key: before[key] for key in before if fits(pattern, key)}.items()

    @rule()
    def purge(self) -> None:
        if self.one.host.retained is not None:
            self.one.host.retained.queue.purge()
            self.kept.clear()
            self.changed()

    @rule(passes=st.sampled_from([5, 10]))
    def time_passes(self, passes: int) -> None:
        """What has expired is gone, though nobody looks."""
        clock = self.one.clock
        clock.now += passes
        for _ in range(len(KEYS)):
            self.one.broker.timers.run()
        self.kept = {key: kept for key, kept in self.kept.items() if not 0 < kept[1] <= clock.now}
        self.changed()
        lane = self.one.host.retained
        assert (0 if lane is None else lane.queue.ready) == len(self.kept)

    @rule()
    def all_is_written(self) -> None:
        self.one.loop.settle()
        assert all(waiting.safe for waiting in self.unsafe)
        self.unsafe.clear()
        self.history = [self.bodies()]

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        """What was durable is there again; of what was not, all up to some moment."""
        old, new = self.root / str(self.lives), self.root / str(self.lives + 1)
        self.lives += 1
        now = self.one.clock.now
        if killed:
            shutil.copytree(old, new)
        self.one.close()
        if not killed:
            shutil.copytree(old, new)
        shutil.rmtree(old)
        self.one = Running(new, keep=5)
        self.one.clock.now = now
        entries = [] if self.one.host.retained is None else list(self.one.host.retained.index.all())
        lives = [(entry.key, entry.expiry) for entry in entries if not 0 < entry.expiry <= now]
        bodies = found(self.one, "#")
        alive = [{key: body for key, body in state.items() if not 0 < self.expiry[body] <= now}
                 for state in (self.history if killed else self.history[-1:])]
        assert bodies in alive
        assert lives == [(key, self.expiry[bodies[key]]) for key, _ in lives if key is not None]
        self.kept = {key: (body, self.expiry[body]) for key, body in bodies.items()}
        self.unsafe.clear()
        self.history = [self.bodies()]
        self.time_passes(0)

    @invariant()
    def counted(self) -> None:
        lane = self.one.host.retained
        if lane is None:
            return
        queue = lane.queue
        entries = list(lane.index.all())
        assert queue.ready == len(entries) == len(lane)
        assert queue.ready_bytes == sum(entry.size for entry in entries)
        assert lane.tail_count == len([entry for entry in entries if entry.message is None])
        assert self.one.broker.memory.used >= 0

    def teardown(self) -> None:
        self.remove(KEYS, False)
        self.one.loop.settle()
        assert self.one.broker.memory.used == 0
        lane = self.one.host.retained
        assert lane is None or not lane.root.children and lane.root.entry is None
        self.one.close()
        queue_module.FEW, lane_module.CHUNK, ordered_module.BLOCK, retained_module.AT_ONCE = self.before
        shutil.rmtree(self.root)


TestRetained = RetainedMachine.TestCase
TestRetained.settings = settings(max_examples=100, stateful_step_count=40,
                                 suppress_health_check=list(HealthCheck))


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "store", keep=100)
    yield running
    running.close()


@pytest.mark.parametrize("value, expected", [(True, True), ("true", True), (False, False), ("false", False),
                                             (None, False)])
def test_who_asks(one: Running, value: Any, expected: bool) -> None:
    publish(one, made("k", b"x-mqtt-retain", value))
    assert bool(found(one, "k")) == expected


def test_other_exchanges_retain_nothing(one: Running) -> None:
    """Not even those that are bound to amq.topic, or from which messages come there."""
    one.host.bind(one.host.exchange("amq.fanout"), one.host.exchange("amq.topic"), "", {})
    message = made("k", b"x")
    message.address = address_of("amq.fanout", "k")
    assert publish(one, message) == UNROUTED
    assert one.host.retained is None


def test_a_dead_letter_is_not_retained(one: Running) -> None:
    queue = one.queue("q", {"x-dead-letter-exchange": "amq.topic", "x-dead-letter-routing-key": "dead"})
    letters = one.queue("letters", {})
    one.host.bind(one.host.exchange("amq.topic"), queue, "k", {})
    one.host.bind(one.host.exchange("amq.topic"), letters, "dead", {})
    publish(one, made("k", b"x"))
    reader = Reader(queue, "r")
    reader.room = 1
    queue.add(reader)
    queue.reject(reader.entries[0])
    assert letters.ready == 1
    assert found(one, "#") == {"k": b"x"}


def test_what_is_postponed_is_retained_when_its_time_has_come(one: Running) -> None:
    one.clock.now = 1 << 42
    section = encode(Described(ulong(0x72), {symbol("x-opt-delivery-time"): timestamp(one.clock.now + 1000)}))
    section += encode(Described(ulong(0x74), {"x-mqtt-retain": True})) + encode(Described(ulong(0x75), b"later"))
    one.host.postpone(Message(address_of("amq.topic", "k"), AMQP10, section, None, 10, False, 4, 0, one.clock.now))
    one.broker.timers.run()
    assert found(one, "#") == {}
    one.clock.now += 1000
    one.broker.timers.run()
    assert found(one, "#") == {"k": b"later"}


def test_a_transaction_retains_when_it_commits(one: Running) -> None:
    transaction = Transaction(one.host)
    committed: list[bool] = []
    for message in (made("a", b"1"), made("b", b"2"), made("b", b"")):
        address = message.address
        route = one.host.route(address.short_strings, address.exchange, address.routing_key)
        transaction.publish(Publication(route, message, None, True))
    assert one.host.retained is None
    assert transaction.commit(lambda: committed.append(True)) == []
    assert found(one, "#") == {"a": b"1"}
    one.loop.settle()
    assert committed


def test_the_publisher_waits_for_what_is_retained_and_removed(one: Running) -> None:
    for body in (b"1", b""):
        message = made("k", body)
        assert publish(one, message) == ROUTED
        assert message.pending == 1
        waiting = message.publisher = Waiting()
        one.loop.settle()
        assert waiting.safe


def test_subscribers_get_what_is_retained_as_ever(one: Running) -> None:
    queue = one.queue("q", {})
    one.host.bind(one.host.exchange("amq.topic"), queue, "#", {})
    publish(one, made("k", b"1"))
    publish(one, made("k", b""))
    assert queue.ready == 2
    assert found(one, "#") == {}


def test_nobody_else_changes_the_queue(one: Running) -> None:
    host = one.host
    with pytest.raises(AccessRefused, match="reserved"):
        one.queue(QUEUE, {})
    publish(one, made("k", b"1"))
    retained, other = host.queue(QUEUE), one.queue("q", {})
    with pytest.raises(AccessRefused, match="reserved"):
        one.queue(QUEUE, {})
    with pytest.raises(AccessRefused, match="the broker's own"):
        host.delete_queue(retained)
    with pytest.raises(AccessRefused, match="the broker's own"):
        host.bind(host.exchange("amq.direct"), retained, "k", {})
    with pytest.raises(AccessRefused, match="the broker's own"):
        host.route(address_of("", QUEUE).short_strings, "", QUEUE)
    with pytest.raises(AccessRefused, match="the broker's own"):
        moving.move(other, retained, moving.Choice(), lambda number: None)
    with pytest.raises(AccessRefused, match="the broker's own"):
        moving.copy(other, retained, moving.Choice(), lambda number: None)
    with pytest.raises(AccessRefused, match="the broker's own"):
        moving.redirect(other, retained)
    with pytest.raises(AccessRefused, match="the broker's own"):
        moving.redirect(retained, other)
    with pytest.raises(AccessRefused, match="browsing only"):
        retained.get()
    letters = one.queue("letters", {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": QUEUE,
                                    "x-max-length": 0})
    one.publish("", "letters", b"x", True, 0)
    assert letters.ready == 0
    assert retained.ready == 1


def test_whoever_consumes_looks(one: Running) -> None:
    publish(one, made("k", b"1"))
    queue = one.host.queue(QUEUE)
    reader = Reader(queue, "r")
    reader.room = 10
    queue.add(reader)
    publish(one, made("k", b"2"))
    publish(one, made("l", b"3"))
    assert [body_of(entry.message) for entry in reader.entries if entry.message] == [b"1", b"2", b"3"]
    assert queue.ready == 2


def test_what_is_retained_is_in_nobodys_limits(one: Running) -> None:
    limit = Limit({QUEUES: 0})
    one.broker.quotas.replace([limit], [])
    assert publish(one, made("a", b"1")) == ROUTED
    assert found(one, "a") == {"a": b"1"} and limit.tallies == {}
    with pytest.raises(LimitReached):
        one.host.declare_queue("q", False, False, False, {}, None)
