"""Other brokers' names for limits in the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.config import Config, ConfigError, parse
from dragoman.config_synonyms import KEYS, LIMITS


@pytest.mark.parametrize(("text", "at", "value", "note"), [
    ("connection_max = 10", "limits.connections", 10, "connection_max is called limits.connections here"),
    ("[limits]\nmax-connections = 10", "limits.connections", 10,
     "limits.max-connections is called limits.connections here"),
    ("max-connections-per-user = 3", "limits.connections_per_user", 3, None),
    ("connection-limit-per-ip = 3", "limits.connections_per_address", 3, None),
    ("[limits]\nconnections-per-user = 3", "limits.connections_per_user", 3,
     "limits.connections-per-user is called limits.connections_per_user here"),
    ("handshake_timeout = 10500", "limits.handshake_seconds", 11, None),
    ("max-negotiate-time = 2000", "limits.handshake_seconds", 2, None),
    ("channel_max = 0", "amqp091.channel_max", 65535, None),
    ("channel_max = 128", "amqp091.channel_max", 128, None),
    ("session_max_per_connection = 64", "amqp10.channel_max", 63, None),
    ("disk_free_limit.absolute = '2 GB'", "limits.disk_free", 2 * 10**9,
     "disk_free_limit.absolute is called limits.disk_free here"),
    ("[limits]\nvm_memory_high_watermark.absolute = '1GiB'", "limits.memory", 1 << 30, None),
    ("[limits]\nqpid.port.max_open_connections = 7", "limits.connections", 7, None),
    ("max_inflight_messages = 20", "mqtt.receive_max", 20, None),
])
def test_keys(text: str, at: str, value: Any, note: str | None) -> None:
    config = parse(text)
    section, key = at.split(".")
    assert getattr(getattr(config, section), key) == value
    assert len(config.notes) == 1 and config.notes[0].endswith(f" is called {at} here")
    assert note is None or config.notes == (note,)


@pytest.mark.parametrize(("text", "key", "per"), [
    ("consumer_max_per_channel = 5", "consumers_per_channel", "all"),
    ("max-queues-per-user = 5", "queues", "user"),
    ("[limits]\nconnection.sessionCountLimit = 5", "channels", "connection"),
])
def test_limits_of_their_own(text: str, key: str, per: str) -> None:
    config = parse(text)
    assert [(getattr(limit, key), limit.per) for limit in config.limit] == [(5, per)]
    assert f"is called {key} here, in a [[limit]]" in config.notes[0]


def test_every_name_leads_somewhere() -> None:
    for name, (section, key, _) in KEYS.items():
        assert hasattr(getattr(Config(), section), key), name
        assert parse(f"{name} = 5000").notes
    for name in LIMITS:
        assert parse(f"{name} = 5000").limit


def test_ours_need_no_note() -> None:
    assert parse("[limits]\nconnections = 5\n[amqp091]\nchannel_max = 4\n").notes == ()


@pytest.mark.parametrize(("text", "problem"), [
    ("connection_max = 1\n[limits]\nconnections = 2",
     "connection_max and limits.connections are the same, and both are set"),
    ("connection_max = 'many'", "limits.connections is 'many'; it must be a whole number"),
    ("connection_max = -1", "limits.connections is -1; it must be at least 1"),
    ("handshake_timeout = 'soon'", "limits.handshake_seconds is 'soon'"),
    ("conection_max = 1", "conection_max is not a key"),
    ("[limits]\nmax-conections = 1", "limits.max-conections is not a key"),
    ("limits = 5\nconnection_max = 1", "limits must be a table"),
    ("[disk_free_limit]\nrelative = 1.0", "disk_free_limit is not a key"),
    ("limit = 5\nconsumer_max_per_channel = 1", "limit must be tables"),
])
def test_problems(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert any(problem in each for each in error.value.problems), error.value.problems
