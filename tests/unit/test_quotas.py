"""Limits as the core keeps them: buckets of tokens, whom a limit is for, and that counts never drift."""

from __future__ import annotations

import ipaddress
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import Clock
from broker.errors import LimitReached, RateReached
from broker.security.addresses import source_of
from broker.security.quotas import (
    CHANNELS,
    CONNECTIONS,
    CONSUMERS,
    COUNTED,
    LINKS,
    PER,
    QUEUES,
    Limit,
    Party,
    Quota,
    Quotas,
    Rate,
)


def quotas(*limits: Limit) -> Quotas:
    made = Quotas(Clock())
    made.replace(list(limits), [])
    return made


def enter(made: Quotas, user: str = "ann", host: str = "/", address: str = "10.0.0.1", listener: str = "l:1",
          groups: frozenset[str] = frozenset()) -> Quota:
    quota = made.join(address, listener)
    quota.enter(user, groups, host)
    return quota


# Rates.


@given(st.integers(1, 50), st.integers(1, 5000), st.lists(st.integers(0, 2000), max_size=200))
def test_a_rate_gives_its_count_at_once_and_then_as_time_goes(count: int, period: int, pauses: list[int]) -> None:
    rate = Rate(count, period)
    now = 1_000_000
    given_at: list[int] = []
    for pause in pauses:
        now += pause
        room = rate.take("x", now)
        # What a bucket of `count` tokens, with `count` more in each period, has left: by counting, not by its formula.
        level, last = count * period, now if not given_at else given_at[0]
        for at in given_at:
            level = min(count * period, level + (at - last) * count) - period
            last = at
        level = min(count * period, level + (now - last) * count)
        assert room == (level >= period)
        if room:
            given_at.append(now)


@given(st.integers(1, 20), st.integers(1, 5000), st.integers(-10**12, 10**12))
def test_a_clock_that_jumps_costs_one_period_at_most(count: int, period: int, jump: int) -> None:
    rate = Rate(count, period)
    now = 2 * 10**12
    while rate.take("x", now):
        pass
    assert not rate.take("x", now + jump) or jump > 0
    assert rate.take("x", now + jump + period)


def test_sources_have_buckets_of_their_own_and_are_forgotten() -> None:
    rate = Rate(1, 1000)
    assert rate.take("a", 5000) and rate.take("b", 5000) and not rate.take("a", 5500)
    rate.forget(5500)
    assert set(rate.full_at) == {"a", "b"}
    rate.forget(6000)
    assert rate.full_at == {}


def test_who_connects_too_often() -> None:
    made = quotas(Limit(rate=Rate(2, 60_000), per="address"), Limit(rate=Rate(1, 60_000), per="user"))
    made.clock.now = 10**12
    first = made.join("10.0.0.1", "l")
    assert made.comes_too_often(first) is None
    assert made.comes_too_often(made.join("10.0.0.1", "l")) is None
    assert made.comes_too_often(made.join("10.0.0.1", "l")) is made.limits[0]
    assert made.comes_too_often(made.join("10.0.0.2", "l")) is None
    first.enter("ann", frozenset(), "/")
    with pytest.raises(RateReached, match="connection refused for user 'ann': user 'ann' connects too often, more than "
                                          "1 times in 60 s"):
        made.join("10.0.0.9", "l").enter("ann", frozenset(), "/")


# Whom a limit is for.


@pytest.mark.parametrize(("limit", "party", "fits"), [
    (Limit(), Party(), True),
    (Limit(user="sensor-*"), Party(user="sensor-1"), True),
    (Limit(user="sensor-*"), Party(user="bob"), False),
    (Limit(user="*"), Party(), False),  # nobody has logged in
    (Limit(group="staff"), Party(groups=frozenset({"staff"})), True),
    (Limit(group="staff"), Party(), False),
    (Limit(network=ipaddress.ip_network("10.0.0.0/8")), Party("10.1.2.3"), True),
    (Limit(network=ipaddress.ip_network("10.0.0.0/8")), Party("::ffff:10.1.2.3"), True),
    (Limit(network=ipaddress.ip_network("10.0.0.0/8")), Party("fe80::1%eth0"), False),
    (Limit(network=ipaddress.ip_network("fe80::/10")), Party("fe80::1%eth0"), True),
    (Limit(network=ipaddress.ip_network("10.0.0.0/8")), Party(), False),
    (Limit(listener="l:1"), Party(listener="l:1"), True),
    (Limit(listener="l:1"), Party(listener="l:2"), False),
    (Limit(host="/"), Party(host="/"), True),
    (Limit(host="/"), Party(host="x"), False),
    (Limit(per="user"), Party(), False),
    (Limit(per="address"), Party(user="ann"), False),
])
def test_conditions(limit: Limit, party: Party, fits: bool) -> None:
    assert limit.fits(party) is fits


def test_addresses_that_are_one_source() -> None:
    assert source_of("10.0.0.1") == "10.0.0.1" == source_of("::ffff:10.0.0.1")
    assert source_of("2001:db8::1") == source_of("2001:db8::2:3") == "2001:db8::/64"
    assert source_of("2001:db8:0:1::1") != source_of("2001:db8::1")
    assert source_of("") == ""


@pytest.mark.parametrize(("limit", "text"), [
    (Limit({CONNECTIONS: 1}, per="user"), "connection refused for user 'ann': user connection limit (1) is reached"),
    (Limit({CONNECTIONS: 1}, host="/"), "access to vhost '/' refused for user 'ann': connection limit (1) is reached"),
    (Limit({CONNECTIONS: 1}, per="virtual_host"),
     "access to vhost '/' refused for user 'ann': connection limit (1) is reached"),
    (Limit({CONNECTIONS: 1}, per="address"),
     "connection refused for user 'ann': connection limit (1) of address 10.0.0.1 is reached"),
    (Limit({CONNECTIONS: 1}, network=ipaddress.ip_network("10.0.0.0/8"), user="a*"),
     "connection refused for user 'ann': connection limit (1) of user 'a*', network 10.0.0.0/8 is reached"),
    (Limit({CONNECTIONS: 1}), "connection refused for user 'ann': connection limit (1) of the broker is reached"),
])
def test_words_for_connections(limit: Limit, text: str) -> None:
    made = quotas(limit)
    enter(made)
    with pytest.raises(LimitReached) as refusal:
        enter(made)
    assert str(refusal.value) == text
    assert limit.refused == 1


@pytest.mark.parametrize(("measure", "limit", "text"), [
    (CHANNELS, Limit({CHANNELS: 0}, per="user"),
     "number of channels opened for user 'ann' has reached the maximum allowed user limit of (0)"),
    (CHANNELS, Limit({CHANNELS: 0}, per="connection"),
     "number of channels opened for the connection has reached the maximum allowed limit of (0)"),
    (LINKS, Limit({LINKS: 0}, group="g"), "cannot attach link 'x': link limit of group 'g' (0) is reached"),
    (CONSUMERS, Limit({CONSUMERS: 0}, listener="l:1"),
     "cannot consume from queue 'x': consumer limit of listener l:1 (0) is reached"),
])
def test_words_for_the_rest(measure: str, limit: Limit, text: str) -> None:
    quota = enter(quotas(limit), groups=frozenset({"g"}))
    with pytest.raises(LimitReached) as refusal:
        quota.take(measure, "x")
    assert str(refusal.value) == text
    assert not limit.tallies  # one that refuses all keeps nothing in memory of those who ask


def test_words_for_queues() -> None:
    made = quotas(Limit({QUEUES: 1}, host="/"))
    made.take_queue(Party(host="/"), "a")
    with pytest.raises(LimitReached, match=r"cannot declare queue 'b': queue limit in vhost '/' \(1\) is reached"):
        made.take_queue(Party(host="/"), "b")
    made.take_queue(Party(host="other"), "b")


def test_all_limits_must_hold_and_one_that_refuses_takes_nothing_of_the_others() -> None:
    wide, narrow = Limit({CONNECTIONS: 10}), Limit({CONNECTIONS: 1}, per="address")
    made = quotas(wide, narrow)
    enter(made)
    for _ in range(5):
        with pytest.raises(LimitReached):
            enter(made)
    assert [(measure, tally.used) for _, measure, tally in made.use()] == [(CONNECTIONS, 1), (CONNECTIONS, 1)]


def test_figures_are_the_strictest_that_fit() -> None:
    made = quotas(Limit(figures={"message_size": 1000, "output": 5000}),
                  Limit(figures={"message_size": 100}, user="a*"),
                  Limit(figures={"message_size": 10}, user="b*"), Limit(figures={"message_size": 2000}))
    quota = made.join("10.0.0.1", "l")
    assert (quota.message_size, quota.output, quota.unsettled) == (1000, 5000, 0)
    quota.enter("ann", frozenset(), "/")
    assert (quota.message_size, quota.output) == (100, 5000)


def test_a_soft_limit_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    made = quotas(Limit({CONNECTIONS: 10}, warn_at=50))
    several = [enter(made) for _ in range(10)]
    assert [record.getMessage() for record in caplog.records] == ["the broker has 5 connections of 10 allowed"]
    for quota in several[3:]:
        quota.close()
    for _ in range(2):
        enter(made)
    assert len(caplog.records) == 2  # after it was well below


def test_a_limit_that_only_warns(caplog: pytest.LogCaptureFixture) -> None:
    made = quotas(Limit({CONNECTIONS: 2}, rate=Rate(1, 1000), refuses=False, user="*"))
    for _ in range(4):
        enter(made)
    assert [record.getMessage() for record in caplog.records] == ["user '*' has 3 connections of 2 allowed"]


# Counts.


@st.composite
def some_limits(draw: st.DrawFn) -> list[Limit]:
    return [Limit({measure: draw(st.integers(0, 4)) for measure in draw(st.sets(st.sampled_from(COUNTED)))},
                  per=draw(st.sampled_from(PER[:-1])), user=draw(st.sampled_from(["", "a*", "bob"])),
                  host=draw(st.sampled_from(["", "/"])), refuses=draw(st.booleans()))
            for _ in range(draw(st.integers(0, 4)))]


@given(some_limits(), some_limits(), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5),
                                                        st.sampled_from([CHANNELS, LINKS, CONSUMERS])), max_size=60))
def test_counts_never_drift(limits: list[Limit], others: list[Limit], steps: list[tuple[int, int, str]]) -> None:
    """Whatever comes and goes in whatever order, refused or not, with limits that change: what is counted is what is
    there, and in the end it is nothing."""
    made = quotas(*limits)
    there: list[Quota] = []
    queues: list[Party] = []
    for step, which, measure in steps:
        quota = there[which % len(there)] if there else made.join("10.0.0.1", "l")
        try:
            if step == 0:
                there.append(made.join(f"10.0.0.{which}", "l"))
                there[-1].enter(("ann", "bob", "carl")[which % 3], frozenset(), ("/", "x")[which % 2])
            elif step == 1:
                quota.take(measure, "name")
            elif step == 2:
                quota.give(measure)
            elif step == 3:
                quota.adopt(measure, which)
            elif step == 4:
                quota.close()
            elif step == 5:
                made.take_queue(quota.party, "q")
                queues.append(quota.party)
            elif step == 6 and queues:
                made.give_queue(queues.pop(which % len(queues)))
            elif step == 7:
                made.replace(others if made.limits is limits else limits, queues)
        except LimitReached:
            pass
        for limit in made.limits:
            for measured in COUNTED:
                counted = sum(tally.used for (name, _), tally in limit.tallies.items() if name == measured)
                real = sum(each.taken[measured] for each in made.members if limit in each.limits)
                if measured == QUEUES:
                    real += sum(1 for party in queues if limit.fits(party))
                assert counted == (real if measured in limit.counts else 0)
    for each in list(made.members):
        each.close()
        each.close()
    for party in queues:
        made.give_queue(party)
    assert list(made.use()) == [] and not made.members
