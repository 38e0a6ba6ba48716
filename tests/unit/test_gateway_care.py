"""Messages that the target does not take: order, blame, what is rejected and what blocks a bridge."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from gateway_kit import FakeRemote, FakeSource, FakeTarget, body_of, message, until
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_bridge import LINK, PULLED, PUSHED, World, living

from broker.message import Message
from broker.outcome import ACCEPT, REJECT, RELEASE
from interop.care import CALM, CLOSES, LOSSES, REJECT_ANYWAY, STOP, Care
from interop.ends import FORBIDDEN, NOWHERE, REFUSED, TRY_AGAIN, From, To
from interop.mover import Figures, Mover
from interop.states import BLOCKED, UP


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interop.bridge.GRACE", 0.01)
    monkeypatch.setattr("interop.mover.FIRST_RETRY", 0.0005)
    monkeypatch.setattr("interop.mover.LAST_RETRY", 0.001)


def moved(chances: list[bool], strict: bool, at_once: bool) -> list[int]:
    """Move numbers to a target that refuses by chance; gives the order in which it has taken them."""
    async def whole() -> list[int]:
        source, target = FakeSource(From("q")), FakeTarget(To("q"))
        taken: list[int] = []
        luck = iter(chances)

        def decide(sent: Message) -> tuple[str, int]:
            if next(luck, False):
                return "not now", TRY_AGAIN
            taken.append(int(body_of(sent)))
            return "", TRY_AGAIN

        async def answer() -> None:
            """Later, in order, as a broker does."""
            at = 0
            while len(taken) < 40:
                while at < len(target.dones):
                    done = target.dones[at]
                    done(*decide(target.got[at]))
                    at += 1
                await asyncio.sleep(0)
        if at_once:
            target.at_once = decide
        mover = Mover(source, target, Figures(), [], care=Care(strict=strict))
        mover.start()
        source.give(*(b"%d" % number for number in range(40)))
        if not at_once:
            await asyncio.wait_for(answer(), 20)
        await until(lambda: len(source.settled) == 40)
        return taken
    return asyncio.run(whole())


@given(st.lists(st.booleans(), max_size=60), st.booleans())
def test_a_strict_order_is_kept_whatever_is_refused(chances: list[bool], at_once: bool) -> None:
    assert moved(chances, True, at_once) == list(range(40))


@given(st.lists(st.booleans(), max_size=60))
def test_who_refuses_at_once_has_all_in_order(chances: list[bool]) -> None:
    assert moved(chances, False, True) == list(range(40))


@given(st.integers(0, 39), st.lists(st.booleans(), max_size=60))
def test_only_what_was_on_its_way_at_the_first_refusal_overtakes(first: int, chances: list[bool]) -> None:
    """All forty are on their way then. Afterwards what is refused has nothing behind it."""
    taken = moved([False] * first + [True] * (40 - first) + chances, False, False)
    assert taken == list(range(40))


def test_after_so_many_taken_messages_all_go_at_once_again() -> None:
    async def play() -> None:
        source, target = FakeSource(From("q")), FakeTarget(To("q"))
        care = Care()
        Mover(source, target, Figures(), [], care=care).start()
        source.give(b"1")
        target.dones.pop()("full", TRY_AGAIN)
        target.at_once = lambda sent: ("", TRY_AGAIN)
        await until(lambda: source.settled)
        source.give(*(b"x" for _ in range(CALM - 2)))
        target.at_once = None
        source.give(b"a", b"b", b"c")
        assert target.bodies()[-1] == b"a"  # alone
        target.dones[0]()
        assert target.bodies()[-2:] == [b"b", b"c"]
    asyncio.run(play())


def test_who_is_to_blame() -> None:
    one, other = message(b"1"), message(b"2")
    care = Care()
    assert not care.broke([one, other], False, "") and care.slow == 2  # one of them is
    for _ in range(CLOSES - 1):
        assert not care.broke([one], False, "")
    assert not care.broke([other], False, "")  # it is not the same one
    for _ in range(CLOSES - 1):
        assert not care.broke([one], False, "")
    assert care.broke([one], False, "406 PRECONDITION_FAILED - message size 132000") == REFUSED
    assert not care.broke([one], False, "")
    assert care.broke([one], False, "403 ACCESS_REFUSED - no access to exchange 'x'") == FORBIDDEN


@pytest.mark.parametrize("why", ["506 RESOURCE_ERROR", "resource-limit-exceeded: queue 'q' is full", "320 going down",
                                 "amqp:connection:forced", "404 NOT_FOUND - no exchange 'x'"])
def test_no_message_is_to_blame_for_what_passes(why: str) -> None:
    care = Care()
    assert not any(care.broke([message(b"1")], connection, why) for _ in range(5) for connection in (True, False))


def test_a_lost_connection_needs_more_evidence_and_none_of_it_counts_when_messages_passed() -> None:
    care = Care()
    for _ in range(10):
        assert not care.broke([message(b"1")], True, "cut off")
        care.taken()
    for _ in range(CALM):
        care.taken()
    assert not care.one_at_a_time()
    assert [care.broke([message(b"1")], True, "cut off") for _ in range(LOSSES + 1)] == [0] * LOSSES + [REFUSED]
    assert not care.broke([], True, "cut off")


@pytest.mark.parametrize("policy, reason, kept, subscribes, rejects", [
    ("dead-letter", REFUSED, True, False, True), ("dead-letter", REFUSED, False, True, False),
    ("dead-letter", REFUSED, None, False, False), ("dead-letter", NOWHERE, None, True, True),
    ("dead-letter", NOWHERE, False, False, False), (REJECT_ANYWAY, REFUSED, False, False, True),
    (STOP, REFUSED, True, True, False), (STOP, NOWHERE, True, True, False),
    ("dead-letter", FORBIDDEN, True, True, False), (REJECT_ANYWAY, FORBIDDEN, True, False, True)])
def test_what_is_rejected_at_its_source(policy: str, reason: int, kept: bool | None, subscribes: bool,
                                        rejects: bool) -> None:
    assert Care(policy, False, subscribes).rejects(reason, kept) is rejects


def poisoned(play: Callable[[World], Awaitable[None]], **queue: str) -> None:
    """A push of 0 to 9 over a link whose other side closes when it gets 5."""
    async def whole(world: World) -> None:
        def connect(url: str, dialect: int, options: object) -> FakeRemote:
            remote = Closing(url, dialect, options)
            world.remotes.append(remote)
            return remote
        world.gateway.make = connect
        world.home.queue("letters")
        world.home.queue("near", **queue)
        for number in range(10):
            world.home.publish("", "near", b"%d" % number)
        await play(world)
    living(whole)


class Closing(FakeRemote):
    """Closes the target that is sent a 5, without a word about the others that are on their way."""

    taken: list[bytes] = []
    sound = False

    async def target(self, sent: To) -> FakeTarget:
        target = FakeTarget(sent)
        self.targets.append(target)

        def answer(sent: Message) -> tuple[str, int] | None:
            if body_of(sent) == b"5" and not self.sound and not target.lost.done():
                def close() -> None:
                    target.lost.set_result("406 PRECONDITION_FAILED")
                    dones, target.dones = target.dones, []
                    for done in dones:
                        done("406 PRECONDITION_FAILED", TRY_AGAIN)
                asyncio.get_running_loop().call_soon(close)
                return None
            if target.lost.done() or target.dones:
                return None
            self.taken.append(body_of(sent))
            return "", TRY_AGAIN
        target.at_once = answer
        return target


@pytest.fixture(autouse=True)
def nothing_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Closing, "taken", [])
    monkeypatch.setattr(Closing, "sound", False)
    monkeypatch.setattr("interop.states.random.uniform", lambda *_: 0.001)


ALL_BUT_5 = [b"0", b"1", b"2", b"3", b"4", b"6", b"7", b"8", b"9"]


def test_the_message_for_which_the_other_side_closes_is_found_and_dead_lettered(
        caplog: pytest.LogCaptureFixture) -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [PUSHED])
        await until(lambda: len(Closing.taken) == 9)
        assert Closing.taken == ALL_BUT_5
        assert world.home.bodies("letters") == [b"5"]
        assert world.gateway.bridges["out"].figures.rejected == 1
    with caplog.at_level(logging.WARNING, "interop"):
        poisoned(play, x_dead_letter_exchange="", x_dead_letter_routing_key="letters")
    told = [each.getMessage() for each in caplog.records if "rejected at its source" in each.getMessage()]
    assert told == ["a message without id (key 'near', 1 bytes) is rejected at its source: 406 PRECONDITION_FAILED"]


def test_without_dead_letters_it_blocks_the_bridge_until_it_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [PUSHED])
        bridge = world.gateway.bridges["out"]
        await until(lambda: bridge.state.name == BLOCKED)
        assert Closing.taken == ALL_BUT_5[:5]
        part, = world.gateway.parts("bridge")
        assert part.values["state"] == BLOCKED and "406" in part.values["lastError"]
        assert world.home.host.queue("near").ready == 5  # an operator can take it out
        world.gateway.pause("out", False)
        await until(lambda: len(world.remotes[0].targets) > 3 and bridge.state.name == BLOCKED)
        Closing.sound = True
        world.gateway.pause("out", False)
        await until(lambda: len(Closing.taken) == 10 and bridge.state.name == UP)
        assert Closing.taken == [b"%d" % number for number in range(10)]
    with caplog.at_level(logging.WARNING, "interop"):
        poisoned(play)
    assert len([each for each in caplog.records if "blocked" in each.getMessage()]) <= 2  # an operator tried it


def test_a_blocked_bridge_tries_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [PUSHED])
        await until(lambda: world.gateway.bridges["out"].state.name == BLOCKED)
        Closing.sound = True
        await until(lambda: len(Closing.taken) == 10)
    poisoned(play)


def test_what_an_operator_takes_out_unblocks_the_bridge() -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [replace(PUSHED, on_refused=STOP)])
        bridge = world.gateway.bridges["out"]
        await until(lambda: bridge.state.name == BLOCKED)
        assert len(world.home.bodies("near")) == 5
        await until(lambda: bridge.state.name == UP)
    poisoned(play, x_dead_letter_exchange="", x_dead_letter_routing_key="letters")


def test_what_is_refused_for_good_blocks_a_pull_whose_source_may_drop_it() -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [replace(PULLED, local_queue="", local_exchange="amq.fanout")])
        remote = await world.up("in")
        remote.sources[0].kept = None
        remote.sources[0].give(b"1", b"2")
        await until(lambda: world.gateway.bridges["in"].state.name == BLOCKED)
        assert remote.sources[0].settled == [(b"1", RELEASE), (b"2", RELEASE)]
        world.home.queue("near")
        world.home.host.bind(world.home.host.exchange("amq.fanout"), world.home.host.queue("near"), "", {})
        await until(lambda: len(remote.sources) > 1)
        remote.sources[-1].give(b"1", b"2")
        await until(lambda: remote.sources[-1].settled == [(b"1", ACCEPT), (b"2", ACCEPT)])
        await until(lambda: world.gateway.bridges["in"].state.name == UP)
    living(play)


def test_a_subscription_misses_what_has_nowhere_to_go() -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [replace(PULLED, remote_queue="", remote_exchange="far", keys=("#",),
                                             local_queue="", local_exchange="amq.fanout")])
        remote = await world.up("in")
        remote.sources[0].kept = None
        remote.sources[0].give(b"1")
        assert remote.sources[0].settled == [(b"1", REJECT)]
    living(play)


def test_chance_on_a_large_scale() -> None:
    """Refusals all along, strict: 2,000 messages in order."""
    async def play() -> None:
        chance = random.Random(5)
        source, target = FakeSource(From("q")), FakeTarget(To("q"))
        taken: list[int] = []

        def decide(sent: Message) -> tuple[str, int]:
            if chance.random() < 0.1:
                return "not now", TRY_AGAIN
            taken.append(int(body_of(sent)))
            return "", TRY_AGAIN
        target.at_once = decide
        Mover(source, target, Figures(), [], care=Care(strict=True)).start()
        source.give(*(b"%d" % number for number in range(2000)))
        await until(lambda: len(source.settled) == 2000)
        assert taken == list(range(2000))
    asyncio.run(play())
