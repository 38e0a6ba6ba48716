"""Limits in the configuration and in files of access rules, as the core's limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.clock import Clock
from broker.errors import LimitReached, RateReached
from broker.security.quotas import Party, Quotas
from dragoman.access import Sources
from dragoman.config import ConfigError, parse
from dragoman.config_limits import rate
from dragoman.limits import limits_of, most_connections, quota_limits

GENERAL = 1
"""Limits that there are in any case."""


@pytest.mark.parametrize(("text", "count", "ms"), [
    ("100/s", 100, 1000), ("60/min", 60, 60_000), ("60/1m", 60, 60_000), ("20/5min", 20, 300_000),
    ("1 / h", 1, 3600_000), ("3/500ms", 3, 500), ("7/d", 7, 86_400_000)])
def test_rates(text: str, count: int, ms: int) -> None:
    assert rate(text) == (count, ms)


def test_limits() -> None:
    config = parse("""
        [[listeners]]
        host = "::"
        [limits]
        connections_per_user = 3
        connections_per_address = 4
        [[limit]]
        network = "10.0.0.0/8"
        listener = "[::]:5672"
        connections = 0
        connection_rate = "2/s"
        idle_seconds = "1 min"
        warn_at = 50
        refuse = false
    """)
    general, address, user, own = limits_of(config)
    assert general.figures["message_size"] == 512 << 20
    assert (address.per, address.counts) == ("address", {"connections": 4})
    assert (user.per, user.counts) == ("user", {"connections": 3})
    assert (own.counts, own.figures, own.warn_at, own.refuses) == ({"connections": 0}, {"idle_seconds": 60}, 50, False)
    assert own.rate is not None and (own.rate.count, own.rate.period) == (2, 1000)


@pytest.mark.parametrize(("text", "problem"), [
    ('network = "10.0.0.1/8"', "has host bits set"),
    ('network = "here"', "does not appear to be an IPv4 or IPv6 network"),
    ('connection_rate = "0/s"', 'it must be a number and a time, as "100/s", "60/min" or "20/5min"'),
    ('connection_rate = "10"', "it must be a number and a time"),
    ('listener = "x:1"', 'listener is "x:1", which is none of listeners: 127.0.0.1:5672'),
    ('virtual_host = "x"', 'virtual_host is "x", which is none of virtual_hosts'),
    ('per = "connection"\nconnections = 1', 'per is "connection", for which'),
    ('per = "usr"', '"usr"; it can be'),
    ('user = "a"\nframe_size = 5000', "frame_size is for those whom a limit fits before they log in"),
    ("frame_size = 100", "frame_size is 100; it must be at least 4096"),
    ("output = 100", "output is 100; it must be at least 65536"),
    ("conections = 1", "did you mean limit[0].connections?"),
    ("connections = -2", "it must be at least -1"),
    ('user = "a"\nper = "connection"\nwarn_at = 50', "limit[0] limits nothing: it has none of the keys that"),
    ("connections = -1", "limit[0] limits nothing"),
])
def test_problems(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(f"[[limit]]\n{text}")
    assert problem in error.value.problems[0]


def test_more_connections_than_files(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    assert most_connections(parse("[limits]\nconnections = 900")) == 900 and not caplog.records
    assert most_connections(parse("[limits]\nconnections = 5000")) == 960
    assert "limits.connections is 5000, but this process may have only 1024 open files: 960 clients" in caplog.text
    caplog.clear()
    assert most_connections(parse("")) == 960 and not caplog.records  # nobody has asked for so many


# Files of access rules.


def quotas(tmp_path: Path, text: str, shop: str = "") -> Quotas:
    """shop: the file of the virtual host of this name."""
    (tmp_path / "acl").write_text(text)
    (tmp_path / "shop").write_text(shop)
    config = parse(f'virtual_hosts = ["/", "shop"]\n[access]\nacl_file = "{tmp_path}/acl"\n'
                   f'host_acl_files = {{ shop = "{tmp_path}/shop" }}')
    made = Quotas(Clock())
    made.clock.now = 10**12
    made.replace(quota_limits(Sources(config.access), config), [])
    return made


def most(made: Quotas, user: str, groups: frozenset[str] = frozenset(), host: str = "/") -> int:
    """How many connections a user gets."""
    for count in range(20):
        try:
            made.join("10.0.0.1", "127.0.0.1:5672").enter(user, groups, host)
        except LimitReached:
            return count
    return -1


def test_quotas_of_qpidd(tmp_path: Path) -> None:
    made = quotas(tmp_path, "group staff ann@QPID bob@QPID\nquota connections 3 all\nquota connections 5 staff\n"
                            "quota connections 1 bob@QPID\nquota queues 2 all\nacl allow all all\n")
    assert [most(made, user) for user in ("ann", "bob", "carl", "dora")] == [5, 1, 3, 3]
    party = made.join("", "").party
    party.user = "ann"
    made.take_queue(party, "a")
    made.take_queue(party, "b")
    with pytest.raises(LimitReached, match="cannot declare queue 'c': queue limit of user 'ann' .2. is reached"):
        made.take_queue(party, "c")


def test_limits_of_broker_j(tmp_path: Path) -> None:
    made = quotas(tmp_path, "CLT ann connection_limit=2\nCLT mallory BLOCK\nCLT chiefs connection_limit=9\n"
                            "CLT ALL port=5672 connection_frequency_limit=4/1m\nACL ALLOW-LOG ALL ALL\n")
    assert [most(made, user) for user in ("ann", "mallory")] == [2, 0]
    assert most(made, "carl", frozenset({"chiefs"})) == 4
    with pytest.raises(RateReached):
        made.join("10.0.0.1", "127.0.0.1:5672").enter("carl", frozenset(), "/")


def test_quotas_of_a_virtual_host(tmp_path: Path) -> None:
    """Both hold, the file's of the virtual host for what somebody has there."""
    made = quotas(tmp_path, "quota connections 5 all\nquota queues 3 ann\nacl allow all all\n",
                  "group staff ann bob\nquota connections 2 staff\nquota connections 9 all\nquota queues 1 all\n"
                  "acl allow all all\n")
    assert [most(made, user, host="shop") for user in ("ann", "bob", "carl")] == [2, 2, 5]
    assert [most(made, user) for user in ("ann", "bob", "carl")] == [3, 3, 0]
    for host, count in (("shop", 1), ("/", 2)):
        party = Party("", "", "ann", frozenset(), host)
        for _ in range(count):
            made.take_queue(party, "a")
        with pytest.raises(LimitReached, match="queue limit of user 'ann'"):
            made.take_queue(party, "c")
