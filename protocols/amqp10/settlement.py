"""What a receiver says about a delivery (part 3, section 3.4; part 4, section 4.5.5), in the core's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.entry import Entry
from broker.outcome import ACCEPT, REJECT, RELEASE, Outcome
from broker.values import Described
from protocols.amqp10 import frames as f
from protocols.values10 import encode

if TYPE_CHECKING:
    from protocols.amqp10.transactions import Transactions, Work


class Settlement:
    """An outcome, within a transaction or not; or none, when the state is not terminal."""

    __slots__ = ("outcome", "state", "work")

    def __init__(self, outcome: Outcome | None, state: bytes, work: Work | None = None) -> None:
        self.outcome = outcome
        self.state = state  # encoded
        self.work = work  # its transaction

    def releases(self) -> bool:
        return self.outcome is not None and self.work is None and self.outcome.releases()

    def within(self, work: Work | None) -> Settlement:
        """The same as a part of a transaction."""
        return self if work is None else Settlement(self.outcome, self.state, work)

    def apply(self, entry: Entry) -> None:
        """Settle the entry so, or have its transaction do so."""
        outcome = self.outcome
        assert outcome is not None
        if self.work is not None:
            self.work.transaction.settle(entry, outcome)
        elif outcome is ACCEPT:
            entry.queue.accept(entry)
        else:
            queue = entry.queue
            outcome.apply(entry)
            queue.dispatch()


_ACCEPTED = Settlement(ACCEPT, f.ACCEPTED_STATE)
_UNDECIDED = Settlement(None, b"\x40")


def settlement_of(state: Any, transactions: Transactions) -> Settlement:
    """What a delivery state means. Raises: Malformed, ProtocolError (a transaction that is not known)."""
    if state is f.ACCEPTED_VALUE:
        return _ACCEPTED
    code, m = f.composite(state)
    if code == f.TRANSACTIONAL_STATE.code:
        return Settlement(outcome_of(m["outcome"]), encode(state), transactions.get(m["txn-id"]))
    outcome = outcome_of(state)
    return _UNDECIDED if outcome is None else Settlement(outcome, encode(state))


def outcome_of(state: Described | None) -> Outcome | None:
    """The outcome that a state is; None for a state that is not terminal, or none. Raises: Malformed."""
    code, m = f.composite(state)
    if code == f.ACCEPTED.code:
        return ACCEPT
    if code == f.REJECTED.code:
        return REJECT
    if code == f.RELEASED.code:
        return RELEASE
    if code == f.MODIFIED.code:
        return Outcome(False, False, bool(m["delivery-failed"]), bool(m["undeliverable-here"]),
                       m["message-annotations"])
    return None


def default_settlement(outcome: Any) -> Settlement:
    """What a source's default outcome is; without one, released. Raises: Malformed."""
    found = outcome_of(outcome)
    return Settlement(RELEASE if found is None else found, encode(outcome))
