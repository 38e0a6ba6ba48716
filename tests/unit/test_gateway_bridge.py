"""Links and bridges: ends here, connections that come and go, states."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from gateway_kit import FakeRemote, Home, until

from broker.errors import NotFound, PreconditionFailed
from broker.outcome import ACCEPT, REJECT
from interop.ends import REFUSED, Options
from interop.gateway import Gateway
from interop.settings import AT_MOST_ONCE, PUSH, BridgeSettings, LinkSettings
from interop.states import DOWN, UP, Backoff

LINK = LinkSettings(name="there", url="amqp://there/")
PULLED = BridgeSettings(name="in", link="there", remote_queue="far", local_queue="near")
PUSHED = BridgeSettings(name="out", link="there", direction=PUSH, local_queue="near", remote_queue="far")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every test tells of all that was sent, and a stop would wait for that."""
    monkeypatch.setattr("interop.bridge.GRACE", 0.01)


class World:
    """A broker with a gateway, and the remote brokers that it has connected to."""

    def __init__(self) -> None:
        self.home = Home()
        self.remotes: list[FakeRemote] = []
        self.gateway = Gateway(self.home.broker, self.connect)

    def connect(self, url: str, dialect: int, options: Options) -> FakeRemote:
        self.remotes.append(FakeRemote(url, dialect, options))
        return self.remotes[-1]

    async def up(self, name: str) -> FakeRemote:
        """Wait until this bridge moves; gives the remote."""
        await until(lambda: self.gateway.bridges[name].state.name == UP)
        return self.remotes[-1]


def living(play: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        world = World()
        try:
            await play(world)
        finally:
            await world.gateway.stop()
            world.home.close()
    asyncio.run(whole())


def test_pulled_messages_are_settled_when_they_are_durable_here() -> None:
    async def play(world: World) -> None:
        world.home.queue("near")
        world.gateway.start([LINK], [PULLED])
        remote = await world.up("in")
        remote.sources[0].give(b"1", b"2")
        assert remote.sources[0].settled == []
        await until(lambda: len(remote.sources[0].settled) == 2)
        assert remote.sources[0].settled == [(b"1", ACCEPT), (b"2", ACCEPT)]
        assert world.home.bodies("near") == [b"1", b"2"]
    living(play)


def test_pushed_messages_stay_here_until_the_other_side_has_them() -> None:
    async def play(world: World) -> None:
        world.home.queue("near")
        world.home.publish("", "near", b"1")
        world.home.publish("", "near", b"2")
        world.gateway.start([LINK], [PUSHED])
        remote = await world.up("out")
        target = remote.targets[0]
        await until(lambda: len(target.got) == 2)
        assert world.home.host.queue("near").unsettled == 2
        target.dones[0]()
        remote.lost.set_result("cut")
        await until(lambda: len(world.remotes) == 2 and world.remotes[1].targets)
        await until(lambda: len(world.remotes[1].targets[0].got) == 1)
        assert world.remotes[1].targets[0].bodies() == [b"2"]
    living(play)


def test_what_nobody_takes_there_is_dead_lettered_here() -> None:
    async def play(world: World) -> None:
        world.home.queue("letters")
        world.home.queue("near", x_dead_letter_exchange="", x_dead_letter_routing_key="letters")
        world.home.publish("", "near", b"1")
        world.gateway.start([LINK], [PUSHED])
        remote = await world.up("out")
        await until(lambda: remote.targets[0].dones)
        remote.targets[0].dones[0]("it is too large", REFUSED)
        assert world.home.bodies("letters") == [b"1"]
    living(play)


def test_an_exchange_is_drained_by_a_queue_of_the_bridge() -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [BridgeSettings(name="out", link="there", direction=PUSH, keys=("a.#", "b"),
                                                    local_exchange="amq.topic", remote_exchange="far")])
        remote = await world.up("out")
        for key in ("a.x", "c", "b"):
            world.home.publish("amq.topic", key, key.encode())
        await until(lambda: len(remote.targets[0].got) == 2)
        assert [each.address.routing_key for each in remote.targets[0].got] == ["a.x", "b"]
        assert len(world.home.host.queues) == 1
        await world.gateway.bridges["out"].stop()
        assert not world.home.host.queues
    living(play)


def test_a_queue_that_is_named_keeps_what_comes_while_the_link_is_down() -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [BridgeSettings(name="out", link="there", direction=PUSH, keys=("#",),
                                                    local_exchange="amq.topic", local_queue="kept",
                                                    remote_exchange="far")])
        await world.up("out")
        await world.gateway.bridges["out"].stop()
        world.home.publish("amq.topic", "a", b"1")
        assert world.home.bodies("kept") == [b"1"]
    living(play)


def test_unrouted_is_rejected_and_full_is_tried_again() -> None:
    async def play(world: World) -> None:
        world.home.queue("small", x_max_length=1, x_overflow="reject-publish")
        world.home.host.bind(world.home.host.exchange("amq.direct"), world.home.host.queue("small"), "key", {})
        world.gateway.start([LINK], [BridgeSettings(name="in", link="there", remote_queue="far",
                                                    local_exchange="amq.direct"),
                                     BridgeSettings(name="nowhere", link="there", remote_queue="far",
                                                    local_exchange="amq.fanout")])
        remote = await world.up("in")
        await world.up("nowhere")
        source, nowhere = remote.sources
        nowhere.give(b"0")
        assert nowhere.settled == [(b"0", REJECT)]
        source.give(b"1", b"2")
        await until(lambda: world.gateway.bridges["in"].figures.retried)
        assert world.home.bodies("small") == [b"1"]
        await until(lambda: len(source.settled) == 2)
        assert world.home.bodies("small") == [b"2"]
    living(play)


def test_alarms_hold_what_is_pulled() -> None:
    async def play(world: World) -> None:
        world.home.queue("near")
        world.gateway.start([LINK], [PULLED])
        remote = await world.up("in")
        world.home.broker.memory.set_alarm("disk", "full")
        remote.sources[0].give(b"1")
        assert world.home.host.queue("near").ready == 0
        world.home.broker.memory.clear_alarm("disk")
        world.gateway.alarms_changed()
        assert world.home.host.queue("near").ready == 1
    living(play)


def test_at_most_once_leaves_nothing_unsettled_here() -> None:
    async def play(world: World) -> None:
        world.home.queue("near")
        world.gateway.start([LINK], [BridgeSettings(name="out", link="there", direction=PUSH, local_queue="near",
                                                    remote_queue="far", acknowledge=AT_MOST_ONCE, prefetch=1)])
        remote = await world.up("out")
        for number in range(5):
            world.home.publish("", "near", b"%d" % number)
        await until(lambda: len(remote.targets[0].got) == 5)
        assert remote.targets[0].sent.settled and world.home.host.queue("near").unsettled == 0
    living(play)


def test_a_queue_that_is_deleted_costs_a_line_and_the_bridge_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    async def play(world: World) -> None:
        world.home.queue("near")
        world.gateway.start([LinkSettings(name="there", url="amqp://there/", reconnect_min=0, reconnect_max=0)],
                            [PUSHED])
        await world.up("out")
        world.home.host.delete_queue(world.home.host.queue("near"))
        await until(lambda: world.gateway.bridges["out"].state.name == DOWN)
        for _ in range(20):
            await asyncio.sleep(0.002)
        world.home.queue("near")
        await world.up("out")
    with caplog.at_level(logging.INFO):
        living(play)
    said = [record.getMessage() for record in caplog.records if "bridge out" in record.getMessage()]
    assert said == ["bridge out is up", "bridge out is down: queue 'near' in vhost '/' was deleted", "bridge out is up",
                    "bridge out is stopped"]


def test_a_link_that_is_down_costs_one_line_and_goes_through_its_urls(caplog: pytest.LogCaptureFixture) -> None:
    async def play(world: World) -> None:
        world.gateway.start([LinkSettings(name="there", url="amqp://u:secret@down/", failover=("amqp://down2/",),
                                          reconnect_min=0, reconnect_max=0)], [])
        await until(lambda: len(world.remotes) > 8)
        assert [each.url for each in world.remotes[:4]] == ["amqp://u:secret@down/", "amqp://down2/"] * 2
        assert world.gateway.links["there"].state.last_error
    with caplog.at_level(logging.INFO):
        living(play)
    said = [record.getMessage() for record in caplog.records if "link there" in record.getMessage()]
    assert said == ["link there is down: amqp://u@down/: nobody is there", "link there is stopped"]


def test_names_are_not_used_twice_and_links_must_be_there() -> None:
    async def play(world: World) -> None:
        world.gateway.start([LINK], [])
        with pytest.raises(PreconditionFailed):
            world.gateway.add_link(LINK)
        with pytest.raises(NotFound):
            world.gateway.add_bridge(BridgeSettings(name="b", link="none"))
    living(play)


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(1, 8)
    waits = [backoff.next() for _ in range(6)]
    for wait, most in zip(waits, [1, 2, 4, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most
    backoff.succeeded()
    assert backoff.next() <= 1


def test_a_configuration_that_is_read_again_leaves_alone_what_is_the_same() -> None:
    other = replace(PULLED, name="other")

    async def play(world: World) -> None:
        world.home.queue("near")
        world.gateway.start([LINK], [PUSHED, other])
        await world.up("out")
        await world.up("other")
        link, bridge = world.gateway.links["there"], world.gateway.bridges["out"]
        world.gateway.reconfigure([LINK], [PUSHED, replace(other, remote_queue="further")])
        await world.up("other")
        assert world.gateway.links["there"] is link and world.gateway.bridges["out"] is bridge
        assert world.gateway.bridges["other"].settings.remote_queue == "further"
        world.gateway.reconfigure([LINK], [PUSHED])
        assert list(world.gateway.bridges) == ["out"]
        world.gateway.reconfigure([replace(LINK, heartbeat=7)], [PUSHED])
        await world.up("out")
        assert world.gateway.links["there"] is not link and world.gateway.bridges["out"] is not bridge
        world.gateway.reconfigure([], [])
        assert not world.gateway.links and not world.gateway.bridges
    living(play)


def test_a_link_that_changes_keeps_the_bridges_that_operators_have_made() -> None:
    async def play(world: World) -> None:
        world.home.queue("near")
        world.gateway.start([LINK], [PUSHED])
        world.gateway.add_bridge(replace(PULLED, name="made"))
        await world.up("made")
        before = world.gateway.bridges["made"]
        world.gateway.reconfigure([replace(LINK, heartbeat=7)], [])
        await world.up("made")
        assert list(world.gateway.bridges) == ["made"] and world.gateway.bridges["made"] is not before
        world.gateway.reconfigure([], [])
        assert not world.gateway.bridges
    living(play)
