"""What the configuration says of who may come in: providers by listener, lock-outs, what a reload changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from broker import topology
from broker.clock import Alarm, Clock, Timers
from broker.security.identity import Identity, Peer
from broker.security.lockout import Lockout
from broker.security.provider import Refusal
from broker.security.turns import Turns
from broker.security.users import PasswordFile
from dragoman import testing
from dragoman.config import ConfigError, parse
from dragoman.security import Logins, Tools, without_passwords
from store.journal import Scheduler
from store.memory import MemoryStore
from tests.unit.test_server_reload import change, place
from tests.wire import Client, ConnectionClosed

CONFIG = """
[authentication]
users_file = "{folder}/ours"
guest = false
mechanisms = ["PLAIN", "SCRAM-SHA-256", "CRAM-MD5"]
lockout_failures = 3
lockout_user_failures = 5
lockout_seconds = 7
lockout_loopback = true
[[providers]]
name = "partners"
kind = "file"
users_file = "{folder}/theirs"
[[listeners]]
port = 1
[[listeners]]
port = 2
providers = ["partners"]
anonymous = true
clear_passwords = true
[[listeners]]
port = 3
providers = ["partners", "file"]
mechanisms = ["CRAM-MD5"]
"""


def at_once(work: Callable[[], object], done: Callable[[object | BaseException], None]) -> None:
    done(work())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file of our users and of our partners'; both have a user called both."""
    for name, users in (("ours", {"a": "SCRAM-SHA-256", "both": "argon2"}), ("theirs", {"b": "CRAM-MD5",
                                                                                      "both": "argon2"})):
        file = PasswordFile(str(tmp_path / name))
        for user, scheme in users.items():
            file.set(user, f"{name}-secret", scheme)
        file.save()
    return tmp_path


def tools() -> Tools:
    clock = Clock()
    return Tools(at_once, at_once, clock, Lockout(Timers(clock, Alarm())), Turns(), b"secret")


def who(logins: Logins, config: str, index: int, user: str, password: str) -> str:
    """Whom a listener lets in, and by which provider; or why not."""
    told: list[Identity | Refusal] = []
    logins.of(parse(config).listeners[index]).check_password(user, password.encode(), Peer("::1", "", True),
                                                             told.append)
    return told[0].reason if isinstance(told[0], Refusal) else f"{told[0].user} of {told[0].provider}"


def test_each_listener_asks_its_providers_in_its_order(folder: Path) -> None:
    text = CONFIG.format(folder=folder).replace("lockout_loopback = true", "")
    logins = Logins(parse(text), tools())
    logins.begin()
    assert who(logins, text, 0, "a", "ours-secret") == "a of file"
    assert who(logins, text, 0, "b", "theirs-secret") == "b of partners"
    assert who(logins, text, 1, "b", "theirs-secret") == "b of partners"
    assert who(logins, text, 1, "a", "ours-secret") == "there is no user 'a'"
    assert who(logins, text, 0, "nobody", "x") == "file: there is no user 'nobody'; partners: there is no user 'nobody'"
    assert who(logins, text, 0, "both", "ours-secret") == "both of file"
    assert who(logins, text, 0, "both", "theirs-secret") == "wrong password for user 'both'"
    assert who(logins, text, 2, "both", "theirs-secret") == "both of partners"


def test_what_a_listener_offers(folder: Path) -> None:
    text = CONFIG.format(folder=folder)
    config = parse(text)
    logins = Logins(config, tools())
    near, far = Peer("::1", loopback=True), Peer("192.0.2.1")
    first, second, third = (logins.of(listener) for listener in config.listeners)
    assert third.mechanisms(near) == {"CRAM-MD5"}
    assert first.mechanisms(near) == {"PLAIN", "SCRAM-SHA-256", "CRAM-MD5"}
    assert first.mechanisms(far) == {"SCRAM-SHA-256", "CRAM-MD5"}
    assert second.mechanisms(far) == {"PLAIN", "CRAM-MD5", "ANONYMOUS"}


def test_a_lock_out_counts_for_all_listeners_and_over_a_reload(folder: Path) -> None:
    text = CONFIG.format(folder=folder)
    kept = tools()
    logins = Logins(parse(text), kept)
    assert kept.lockout.failures == 10  # until it is these that count
    logins.begin()
    own = kept.lockout
    assert (own.failures, own.user_failures, own.seconds, own.loopback) == (3, 5, 7, True)
    for index in (0, 1, 2):
        logins.of(parse(text).listeners[index]).check_password("both", b"x", Peer("::1", "", True), lambda result: None)
    again = Logins(parse(text), kept)
    again.begin()
    refusal = kept.lockout.refusal("both", Peer("::1", "", True))
    assert refusal is not None and "locked out" in refusal.reason


@pytest.mark.parametrize("text, says", [
    ('[[providers]]\nkind = "file"\nusers_file = "x"', "providers[0].name is missing"),
    ('[[providers]]\nkind = "file"\nname = "x"', "providers[0].users_file is missing"),
    ('[[providers]]\nkind = "file"\nname = "file"\nusers_file = "x"', "the name of what [authentication] says"),
    ('[[providers]]\nkind = "pam"\nname = "x"', "providers[0].kind is 'pam'; it can be"),
    ('[[providers]]\nname = "x"', "providers[0].kind is ''; it can be"),
    ('[[providers]]\nkind = 1\nname = "x"', "providers[0].kind is 1; it can be"),
    ('[[providers]]\nkind = "file"\nname = "x"\nserver = "y"', "providers[0].server is not a key"),
    ('[[listeners]]\nproviders = ["x"]', 'listeners[0].providers has "x" in it, which is none of providers'),
    ("providers = 1", "providers must be tables"),
])
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text)
    assert says in str(error.value)


@pytest.mark.parametrize("listener, said", [
    ('host = "0.0.0.0"\nport = 7', ["0.0.0.0:7"]), ('host = "::"\nport = 7', ["[::]:7"]), ('host = "127.0.0.1"', []),
    ('host = "localhost"', []), ('host = "::1"', []), ('host = "0.0.0.0"\nclear_passwords = true', []),
    ('host = "0.0.0.0"\nport = 7\ntls = "never"\n[tls]\ncertificate = "x"', ["0.0.0.0:7"]),
    ('host = "0.0.0.0"\n[tls]\ncertificate = "x"', []),
    ('host = "0.0.0.0"\nmechanisms = ["PLAIN", "SCRAM-SHA-256"]', [])])
def test_listeners_that_take_no_passwords_from_afar_are_said(listener: str, said: list[str]) -> None:
    assert without_passwords(parse(f"[[listeners]]\n{listener}")) == said


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    config = parse(f'[[providers]]\nkind = "file"\nname = "x"\nusers_file = "{tmp_path}/nothing"')
    with pytest.raises(ValueError, match="there is no such password file"):
        Logins(config, tools())


def test_the_broker_has_a_secret_and_keeps_it() -> None:
    store = MemoryStore(Scheduler())
    made = topology.secret(store)
    assert len(made) == 32 and topology.secret(store) == made
    assert topology.secret(MemoryStore(Scheduler())) != made


def test_a_reload_changes_who_is_asked(folder: Path) -> None:
    config = (f'[[listeners]]\nport = 0\nproviders = ["file"]\n[authentication]\nusers_file = "{folder}/ours"\n'
              f'[[providers]]\nname = "partners"\nkind = "file"\nusers_file = "{folder}/theirs"\n')
    with testing.broker(config) as broker:
        def login(user: str, password: str) -> str:
            client = Client(place(broker))
            try:
                client.open(user, password)
                client.close()
            except ConnectionClosed as error:
                client.drop()
                return str(error.code)
            return "in"
        assert (login("a", "ours-secret"), login("b", "theirs-secret")) == ("in", "403")
        assert "wait for a restart" not in change(broker, providers='["partners"]')
        assert (login("a", "ours-secret"), login("b", "theirs-secret")) == ("403", "in")
        (folder / "theirs").write_text("damaged\n")
        assert "not reloaded" in change(broker, providers='["file"]')
        assert (login("a", "ours-secret"), login("b", "theirs-secret")) == ("403", "in")
