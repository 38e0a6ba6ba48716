"""Failed logins: what is counted, who is refused for it and who is not, and how long a refusal takes."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.clock import Alarm, Clock, Timers
from broker.security import lockout
from broker.security.addresses import source_of
from broker.security.authenticator import Authenticator
from broker.security.identity import Identity, Peer
from broker.security.lockout import LONGEST, STEP, Lockout
from broker.security.provider import Answer, Provider, Refusal
from broker.security.sasl import Failure, Outcome, SaslServer, Success
from broker.security.turns import Turns


class Passwords(Provider):
    """One whose users all have the password "right". It counts what it is asked, and answers when it is told to."""

    name = "passwords"

    def __init__(self, slow: bool = False) -> None:
        self.asked = 0
        self.slow = slow
        self.waiting: list[tuple[Answer, Identity | Refusal]] = []

    def mechanisms(self) -> set[str]:
        return {"PLAIN"}

    def check_password(self, name: str, password: bytes, peer: Peer, answer: Answer) -> None:
        self.asked += 1
        result: Identity | Refusal = Identity(name) if password == b"right" else Refusal("wrong")
        if password == b"trouble":
            result = Refusal("the directory is down", trouble=True)
        if self.slow:
            self.waiting.append((answer, result))
        else:
            answer(result)

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for answer, result in waiting:
            answer(result)


class House:
    """An authenticator with a clock that is turned by hand."""

    def __init__(self, provider: Passwords | None = None, failures: int = 3, user_failures: int = 0, seconds: int = 60,
                 loopback: bool = False) -> None:
        self.clock = Clock()
        self.clock.now = self.start = 1_000_000
        self.timers = Timers(self.clock, Alarm())
        self.provider = provider or Passwords()
        self.lockout = Lockout(self.timers, failures, user_failures, seconds, loopback)
        self.authenticator = Authenticator([self.provider], ["PLAIN"], clear_passwords=True, lockout=self.lockout)

    def turn(self, milliseconds: int) -> None:
        self.clock.now += milliseconds
        self.timers.run()

    def ask(self, user: str, password: str, address: str) -> list[Identity | Refusal]:
        told: list[Identity | Refusal] = []
        peer = Peer(address, loopback=address == "::1")
        self.authenticator.check_password(user, password.encode(), peer, told.append)
        return told

    def login(self, user: str, password: str, address: str) -> str:
        """The verdict, however long it takes: "in", or the reason."""
        told = self.ask(user, password, address)
        now = self.clock.now
        self.clock.now += LONGEST
        self.timers.run()
        self.clock.now = now
        assert len(told) == 1
        return told[0].reason if isinstance(told[0], Refusal) else "in"


def test_an_address_that_guesses_is_refused_unheard_for_a_while() -> None:
    house = House()
    for name in "abc":
        assert house.login(name, "guess", "192.0.2.1") == "wrong"
    assert house.login("d", "right", "192.0.2.1") == "192.0.2.1 is locked out"
    assert house.provider.asked == 3
    assert house.login("d", "right", "192.0.2.2") == "in"
    house.turn(59_999)
    assert house.login("d", "right", "192.0.2.1") == "192.0.2.1 is locked out"
    house.turn(1)
    assert house.login("d", "right", "192.0.2.1") == "in"


def test_who_has_logged_in_from_an_address_is_not_locked_out_by_others_there() -> None:
    house = House()
    assert house.login("device", "right", "192.0.2.1") == "in"
    for name in "abc":
        house.login(name, "guess", "192.0.2.1")
    assert house.login("other", "right", "192.0.2.1") == "192.0.2.1 is locked out"
    assert house.login("device", "right", "192.0.2.1") == "in"
    for _ in range(3):  # but by guesses at its own password
        assert house.login("device", "guess", "192.0.2.1") == "wrong"
    assert house.login("device", "right", "192.0.2.1") == "user 'device' is locked out from 192.0.2.1"
    assert house.login("device", "right", "192.0.2.2") == "in"


def test_a_stranger_does_not_lock_a_user_out_from_where_it_has_logged_in_before() -> None:
    house = House(failures=10, user_failures=4)
    assert house.login("shop", "right", "192.0.2.1") == "in"
    for last in range(4):
        assert house.login("shop", "guess", f"198.51.100.{last}") == "wrong"
    says = "user 'shop' is locked out, but for where it has logged in before"
    assert house.login("shop", "right", "198.51.100.9") == says
    assert house.login("shop", "right", "192.0.2.1") == "in"
    for second in range(60):  # what is refused unheard does not make it longer
        house.turn(1000)
        assert house.login("shop", "guess", "198.51.100.8") == (says if second < 59 else "wrong")
    assert house.login("shop", "right", "198.51.100.9") == "in"


def test_a_lock_out_of_a_user_does_not_get_longer_by_failures_where_it_has_logged_in_before() -> None:
    house = House(failures=0, user_failures=2)
    house.login("shop", "right", "192.0.2.1")
    for last in (8, 9):
        house.login("shop", "guess", f"198.51.100.{last}")
    assert "locked out" in house.login("shop", "right", "198.51.100.1")
    house.turn(59_000)
    assert house.login("shop", "guess", "192.0.2.1") == "wrong"
    house.turn(1_000)
    assert house.login("shop", "right", "198.51.100.1") == "in"


def test_a_success_forgets_the_failures_of_that_user_from_there_only() -> None:
    house = House()
    for _ in range(2):
        house.login("shop", "guess", "192.0.2.1")
    assert house.login("shop", "right", "192.0.2.1") == "in"
    assert house.login("other", "guess", "192.0.2.1") == "wrong"  # who has an account cannot guess at others between
    assert house.login("other", "right", "192.0.2.1") == "192.0.2.1 is locked out"
    assert house.login("shop", "guess", "192.0.2.1") == "wrong"
    assert house.login("shop", "right", "192.0.2.1") == "in"


def test_a_name_is_the_same_in_capitals() -> None:
    """A directory does not tell them apart, so neither may be a way around."""
    house = House(failures=0, user_failures=3)
    for last, name in enumerate(("shop", "SHOP", " Shop ")):
        house.login(name, "guess", f"198.51.100.{last}")
    assert "locked out" in house.login("sHop", "right", "192.0.2.1")


def test_failures_are_forgotten_in_time() -> None:
    house = House()
    for _ in range(2):
        house.login("shop", "guess", "192.0.2.1")
    house.turn(60_000)
    for _ in range(2):
        assert house.login("shop", "guess", "192.0.2.1") == "wrong"
    assert house.login("shop", "right", "192.0.2.1") == "in"


def test_a_refusal_is_told_after_a_delay_that_grows() -> None:
    house = House(failures=0)
    delays = []
    for _ in range(6):
        began = house.clock.now
        told = house.ask("shop", "guess", "192.0.2.1")
        while not told:
            house.turn(STEP)
        delays.append(house.clock.now - began)
    assert delays == [STEP, 2 * STEP, 4 * STEP, 8 * STEP, LONGEST, LONGEST]
    assert house.ask("shop", "right", "192.0.2.1") != []  # who is right does not wait


@pytest.mark.parametrize("took, told_at", [(0, STEP), (1, STEP), (STEP, STEP), (STEP + 1, 2 * STEP),
                                           (3 * STEP + 1, 4 * STEP)])
def test_the_delay_hides_how_long_the_check_took(took: int, told_at: int) -> None:
    house = House(Passwords(slow=True))
    told = house.ask("shop", "guess", "192.0.2.1")
    house.turn(took)
    house.provider.answer()
    house.turn(told_at - took - 1 if told_at > took else 0)
    assert told == [] or told_at == took
    house.turn(1)
    assert len(told) == 1


def test_guesses_at_the_same_time_do_not_get_around_it() -> None:
    """All are sent before the first is answered: of those beyond the limit, even the right one is refused."""
    house = House(Passwords(slow=True))
    guesses = [house.ask("shop", "guess", "192.0.2.1") for _ in range(3)]
    right = house.ask("shop", "right", "192.0.2.1")
    house.provider.answer()
    house.turn(LONGEST)
    assert all(isinstance(told[0], Refusal) for told in guesses)
    assert isinstance(right[0], Refusal) and "locked out" in right[0].reason


def test_a_provider_in_trouble_is_nobody_s_failure() -> None:
    house = House()
    for _ in range(10):
        assert house.login("shop", "trouble", "192.0.2.1") == "the directory is down"
    assert house.login("shop", "right", "192.0.2.1") == "in"


def test_this_machine_s_clients_are_counted_only_if_asked_for() -> None:
    house = House()
    for _ in range(10):
        assert house.ask("guest", "guess", "::1") != []  # at once
    assert house.login("guest", "right", "::1") == "in"
    house.lockout.configure(3, 0, 60, True)
    for _ in range(3):
        assert house.ask("guest", "guess", "::1") == []
    house.turn(LONGEST)
    assert "locked out" in house.login("guest", "right", "::1")


def test_a_login_without_a_user_s_name_locks_out_the_address_alone() -> None:
    house = House(failures=3, user_failures=3)
    for _ in range(3):
        house.login("", "guess", "192.0.2.1")
    assert "locked out" in house.login("", "right", "192.0.2.1")
    assert house.login("", "right", "192.0.2.2") == "in"


def test_lock_outs_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    house = House(failures=2, user_failures=3)
    with caplog.at_level(logging.WARNING):
        for last in (1, 1, 1, 2):
            house.login("shop\n", "guess", f"192.0.2.{last}")
    assert [record.getMessage() for record in caplog.records] == [
        "user 'shop\\n' is locked out from 192.0.2.1 for 60 s: 2 logins have failed",
        "192.0.2.1 is locked out for 60 s: 2 logins have failed",
        "user 'shop\\n' is locked out, but for where it has logged in before for 60 s: 3 logins have failed"]


@pytest.mark.parametrize("address, source", [
    ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("fe80::1%eth0", "fe80::/64"), ("", ""), ("somewhere", "somewhere")])
def test_what_counts_as_one_address(address: str, source: str) -> None:
    assert source_of(address) == source


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "ENTRIES", 10)
    house = House(failures=0)
    for number in range(50):
        house.login("x" * number, "right", f"198.51.100.{number}")
        house.login("x" * number, "guess", f"192.0.2.{number}")
    kept = house.lockout
    for table in (kept._addresses, kept._users, kept._pairs, kept._known):
        assert len(table) == 10 and {len(key) for key in table} == {16}


def test_sasl_tells_the_client_of_a_refusal_later_and_never_after_the_connection_is_gone() -> None:
    house = House()
    told: list[Outcome] = []
    server = SaslServer(house.authenticator, Peer("192.0.2.1"))
    server.start("PLAIN", b"\0shop\0guess", told.append)
    gone = SaslServer(house.authenticator, Peer("192.0.2.1"))
    gone.start("PLAIN", b"\0shop\0guess", told.append)
    gone.close()
    assert told == []
    house.turn(LONGEST)
    assert told == [Failure("wrong")]
    SaslServer(house.authenticator, Peer("192.0.2.2")).start("PLAIN", b"\0shop\0right", told.append)
    assert isinstance(told[1], Success)
    assert (told[1].identity.user, told[1].identity.mechanism, told[1].identity.provider) == (
        "shop", "PLAIN", "passwords")


# -- turns


def test_one_address_does_not_make_others_wait() -> None:
    house = House(Passwords(slow=True), failures=0)
    for number in range(500):
        house.ask(f"user{number}", "guess", "192.0.2.1")
    assert house.provider.asked == 8
    right = house.ask("shop", "right", "192.0.2.2")
    house.provider.answer()
    assert isinstance(right[0], Identity)
    for _ in range(500):
        house.provider.answer()
    assert house.provider.asked == 501


def test_those_that_wait_are_refused_without_a_check_once_their_address_is_locked_out() -> None:
    house = House(Passwords(slow=True), failures=3)
    told = [house.ask(f"user{number}", "guess", "192.0.2.1") for number in range(900)]
    house.provider.answer()
    house.provider.answer()
    house.turn(LONGEST)
    assert house.provider.asked == 10  # two got their turn before the third failure
    assert all(len(each) == 1 for each in told)


def test_what_waits_is_bounded() -> None:
    house = House(Passwords(slow=True), failures=0)
    told = [house.ask(f"user{number}", "right", "192.0.2.1") for number in range(1010)]
    house.turn(STEP)
    refused = [each[0] for each in told if each]
    assert len(refused) == 2 and all(isinstance(each, Refusal) and each.trouble for each in refused)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans())), st.integers(1, 4))
def test_turns_start_all_in_order_and_keep_nothing(works: list[tuple[str, bool]], at_once: int) -> None:
    turns = Turns(at_once)
    started: dict[str, list[int]] = {"a": [], "b": []}
    open_: list[str] = []

    def work(address: str, number: int, at_end: bool) -> None:
        started[address].append(number)
        if at_end:
            turns.give_back(address)
        else:
            open_.append(address)
        assert open_.count(address) <= at_once

    for number, (address, at_end) in enumerate(works):
        assert turns.take(address, lambda address=address, number=number, at_end=at_end:
                          work(address, number, at_end))
    while open_:
        turns.give_back(open_.pop())
    for address, numbers in started.items():
        assert numbers == [number for number, each in enumerate(works) if each[0] == address]
    assert not turns._busy and not turns._waiting and not turns._starting
