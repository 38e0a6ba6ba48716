"""Moving: order, settlement, back-pressure, retries, rates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway_kit import FakeSource, FakeTarget, body_of, until
from hypothesis import given
from hypothesis import strategies as st

from broker.message import Message
from broker.outcome import ACCEPT, REJECT, RELEASE
from interop.ends import REFUSED, TRY_AGAIN, Delivery, From, To
from interop.mover import Figures, Mover, Skipped


def moving(play: Callable[[FakeSource, FakeTarget, Mover], Awaitable[None]], **more: Any) -> Figures:
    """Play with a mover that runs."""
    async def whole() -> Figures:
        source, target = FakeSource(From("q")), FakeTarget(To("q"))
        mover = Mover(source, target, Figures(), more.pop("changes", []), **more)
        mover.start()
        await play(source, target, mover)
        return mover.figures
    return asyncio.run(whole())


def test_the_source_is_settled_only_when_the_target_has_confirmed() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        source.give(b"1", b"2")
        assert target.bodies() == [b"1", b"2"] and source.settled == []
        target.dones[1]()
        assert source.settled == [(b"2", ACCEPT)]
        target.dones[0]()
        assert source.settled == [(b"2", ACCEPT), (b"1", ACCEPT)]
    figures = moving(play)
    assert (figures.received, figures.moved, figures.bytes) == (2, 2, 2)


def test_what_the_target_will_never_take_is_rejected_at_the_source() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        source.give(b"1", b"2")
        target.dones[0]("no queue is there", REFUSED)
        target.dones[1]()
        assert source.settled == [(b"1", REJECT), (b"2", ACCEPT)]
    figures = moving(play)
    assert (figures.rejected, figures.last_error) == (1, "no queue is there")


def test_what_fails_for_now_is_sent_again_in_order_and_before_all_others() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        source.give(b"1", b"2", b"3")
        target.dones[1]("full", TRY_AGAIN)
        source.give(b"4")
        target.dones[0]("full", TRY_AGAIN)
        assert len(target.got) == 3  # 4 waits, and nothing is tried before 3 is told of
        target.dones[2]()
        target.at_once = lambda message: ("", TRY_AGAIN)
        await until(lambda: len(target.got) == 6)
        assert target.bodies()[3:] == [b"1", b"2", b"4"]
        assert [body for body, _ in source.settled] == [b"3", b"1", b"2", b"4"]
    assert moving(play).retried == 2


def test_a_target_that_refuses_time_and_again_is_not_asked_in_a_busy_loop() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        target.at_once = lambda message: ("full", False)
        source.give(b"1")
        await asyncio.sleep(0.2)
        assert len(target.got) <= 4
        target.at_once = lambda message: ("", TRY_AGAIN)
        await until(lambda: source.settled == [(b"1", ACCEPT)])
    moving(play)


def test_nothing_is_sent_while_the_target_has_no_room() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        target.room = 2
        source.give(b"1", b"2", b"3", b"4")
        assert target.bodies() == [b"1", b"2"]
        target.give_room(1)
        assert target.bodies() == [b"1", b"2", b"3"]
        target.give_room(5)
        assert target.bodies() == [b"1", b"2", b"3", b"4"]
    moving(play)


def test_a_rate_limit_lets_so_many_through_and_no_more() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        loop = asyncio.get_running_loop()
        target.at_once = lambda message: ("", TRY_AGAIN)
        began = loop.time()
        source.give(*(b"%d" % number for number in range(40)))
        await until(lambda: len(target.got) == 40)
        assert loop.time() - began >= (40 - 10) / 100 * 0.95  # a tenth of a second's worth goes at once
        assert target.bodies() == [b"%d" % number for number in range(40)]
    moving(play, rate=100)


def test_a_stop_waits_for_confirms_and_gives_back_the_rest_in_order() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        target.room = 2
        source.give(b"1", b"2", b"3", b"4")
        stopping = asyncio.create_task(mover.stop(20))
        await asyncio.sleep(0)
        target.dones[0]()
        target.dones[1]("full", TRY_AGAIN)
        await stopping
        assert source.settled == [(b"1", ACCEPT), (b"2", RELEASE), (b"3", RELEASE), (b"4", RELEASE)]
        target.give_room(9)
        assert len(target.got) == 2
    moving(play)


def test_at_most_once_settles_nothing_and_counts_what_is_lost() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        source.give(b"1", b"2", b"3")
        taken, full, never = target.dones
        taken()
        full("full", TRY_AGAIN)
        never("no", REFUSED)
        assert source.settled == []
    figures = moving(play, settled=True)
    assert (figures.moved, figures.lost) == (1, 2)


def test_what_is_left_out_is_accepted_and_counted() -> None:
    def change(message: Message, delivery: Delivery) -> Message:
        if body_of(message) == b"2":
            raise Skipped("looped")
        if body_of(message) == b"3":
            raise ValueError("a mistake in the program")
        return message

    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        source.give(b"1", b"2", b"3")
        assert target.bodies() == [b"1"]
        assert source.settled == [(b"2", ACCEPT), (b"3", REJECT)]
    figures = moving(play, changes=[change])
    assert (figures.looped, figures.rejected) == (1, 1)


def test_the_bridge_selects_where_the_source_cannot() -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        source.give(b"1", headers={"colour": "red"})
        source.give(b"2", headers={"colour": "blue"})
        assert target.bodies() == [b"2"] and source.settled == [(b"1", ACCEPT)]
    assert moving(play, selector="colour = 'blue'").unwanted == 1


@given(st.lists(st.sampled_from(["give", "room", "ok", "full", "never"]), max_size=60))
def test_whatever_happens_each_message_is_settled_once_and_nothing_overtakes(steps: list[str]) -> None:
    async def play(source: FakeSource, target: FakeTarget, mover: Mover) -> None:
        target.room = given = 0
        for step in steps:
            if step == "give":
                source.give(b"%d" % given)
                given += 1
            elif step == "room":
                target.give_room(2)
            elif target.dones:
                target.dones.pop(0)(step.replace("ok", ""), REFUSED if step == "never" else TRY_AGAIN)
        sent = len(target.got)
        for done in target.dones:
            done()
        first = target.bodies()[:sent]
        assert first == sorted(first, key=int)  # no try has come again yet
        target.dones.clear()
        target.at_once = lambda message: ("", TRY_AGAIN)
        target.give_room(1 << 30)
        await until(lambda: len(source.settled) == given)
        assert sorted(int(body) for body, _ in source.settled) == list(range(given))
        assert all(outcome in (ACCEPT, REJECT) for _, outcome in source.settled)
    moving(play)
