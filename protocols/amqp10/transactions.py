"""Local transactions (part 4): the coordinator's link, and the transactions of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from broker.clock import Timer
from broker.outcome import REQUEUE
from broker.queue import Queue
from broker.transaction import Transaction
from protocols.amqp10 import frames as f
from protocols.amqp10.errors import (
    DECODE_ERROR,
    LINK,
    NOT_IMPLEMENTED,
    TRANSACTION_ROLLBACK,
    TRANSACTION_TIMEOUT,
    TRANSFER_LIMIT,
    UNKNOWN_TRANSACTION,
    ProtocolError,
)
from protocols.amqp10.link import RECEIVER, Link
from protocols.amqp10.sections import DATA, SEQUENCE, VALUE, section
from protocols.values10 import Malformed, Reader

if TYPE_CHECKING:
    from protocols.amqp10.connection import Connection
    from protocols.amqp10.session import Session

CREDIT: Final = 100
CAPABILITIES = ["amqp:local-transactions", "amqp:multi-txns-per-ssn", "amqp:multi-ssns-per-txn"]

MOST_OVERDUE: Final = 1000
"""Transactions of a connection that have timed out and whose ids are remembered, to give the reason."""


class Work:
    """A transaction that is open, and what else it decides: deliveries that were sent under it."""

    __slots__ = ("identity", "transaction", "failed", "acquired", "timer", "over")

    def __init__(self, identity: bytes, transaction: Transaction) -> None:
        self.identity = identity
        self.transaction = transaction
        self.failed = ""  # why it can only be rolled back
        self.acquired: list[tuple[Session, int]] = []  # with their delivery ids
        self.timer: Timer | None = None
        self.over = False


class Transactions:
    """The transactions of a connection, by their ids: any of its sessions may use them."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.open: dict[bytes, Work] = {}
        self._overdue: dict[bytes, None] = {}
        self._count = 0

    def begin(self) -> Work:
        """A new transaction."""
        connection = self.connection
        self._count += 1
        work = Work(self._count.to_bytes(8, "big"), Transaction(connection.host))
        self.open[work.identity] = work
        if connection.settings.transaction_seconds:
            work.timer = connection.broker.timers.after(connection.settings.transaction_seconds * 1000,
                                                        lambda: self._time_out(work))
        return work

    def get(self, identity: bytes) -> Work:
        """Raises: ProtocolError."""
        work = self.open.get(identity)
        if work is not None:
            return work
        if identity in self._overdue:
            raise ProtocolError(TRANSACTION_TIMEOUT, f"transaction {identity.hex()} took longer than "
                                                     f"{self.connection.settings.transaction_seconds} s", LINK)
        raise ProtocolError(UNKNOWN_TRANSACTION, f"there is no transaction {identity.hex()}", LINK)

    def commit(self, work: Work, durable: Callable[[], None]) -> None:
        """Do what it has collected, and call `durable` when that is safe."""
        self._end(work)
        work.transaction.commit(durable)
        for session in self.connection.sessions.values():
            session.retire(work)

    def roll_back(self, work: Work) -> None:
        """Forget what was sent. What was settled goes back to its queues, as a delivery that failed; or, where the
        receiver has not settled it itself, is the receiver's as before. What was sent under it was not sent."""
        self._end(work)
        for session in self.connection.sessions.values():
            session.reinstate(work)
        touched: dict[Queue, None] = {}
        for entry in work.transaction.rollback():
            touched[entry.queue] = None
            REQUEUE.apply(entry)
        for session, delivery_id in work.acquired:
            queue = session.release_acquired(delivery_id)
            if queue is not None:
                touched[queue] = None
        for queue in touched:
            queue.dispatch()

    def close(self) -> None:
        for work in list(self.open.values()):
            self.roll_back(work)

    def _end(self, work: Work) -> None:
        del self.open[work.identity]
        work.over = True
        if work.timer is not None:
            work.timer.cancel()

    def _time_out(self, work: Work) -> None:
        if not work.over:
            if len(self._overdue) >= MOST_OVERDUE:
                del self._overdue[next(iter(self._overdue))]
            self._overdue[work.identity] = None
            self.roll_back(work)

    def forget(self, identity: bytes) -> bool:
        """The client is done with a transaction that has timed out. Gives whether it is one of those."""
        if identity in self._overdue:
            del self._overdue[identity]
            return True
        return False


class Coordinator(Link):
    """The link on which a client declares and discharges transactions; they are rolled back when it is gone."""

    def __init__(self, session: Session, m: dict[str, Any]) -> None:
        super().__init__(session, m)
        self.role = RECEIVER
        self.transactions = session.connection.transactions
        self.credit = CREDIT
        self.delivery_count: int = m["initial-delivery-count"] or 0
        self._mine: dict[bytes, Work] = {}
        self._delivery_id = 0
        self._settled = False
        self._payload = b""

    def begin(self, m: dict[str, Any]) -> None:
        """Answer the attach."""
        self.session.send(f.ATTACH.encode(**{
            "name": self.name, "handle": self.handle, "role": RECEIVER, "snd-settle-mode": m["snd-settle-mode"],
            "rcv-settle-mode": 0, "source": m["source"],
            "target": f.Encoded(f.COORDINATOR.encode(capabilities=CAPABILITIES))}))
        self._grant()

    def _grant(self) -> None:
        self.credit = CREDIT
        self.session.send_flow(self, **{"delivery-count": self.delivery_count, "link-credit": CREDIT})

    def flow(self, m: dict[str, Any]) -> None:
        if m["echo"]:
            self._grant()

    def transfer(self, values: list[Any], data: bytes, at: int, stop: int) -> None:
        if not self._payload:
            if self.credit <= 0:
                raise ProtocolError(TRANSFER_LIMIT, "a transfer came without credit", LINK)
            self._delivery_id = values[1] or 0
        self._settled = self._settled or bool(values[4])
        self._payload += data[at:stop]
        if len(self._payload) > 4096:
            raise ProtocolError(DECODE_ERROR, "a message to the coordinator is too long", LINK)
        if values[5]:
            return
        payload, self._payload = self._payload, b""
        self.credit -= 1
        self.delivery_count = (self.delivery_count + 1) & 0xFFFFFFFF
        if not values[9]:
            self._work(payload)
        if self.credit < CREDIT // 2:
            self._grant()

    def _work(self, payload: bytes) -> None:
        code, m = f.composite(_body(payload))
        if code == f.DECLARE.code:
            if m["global-id"] is not None:
                raise ProtocolError(NOT_IMPLEMENTED, "there are local transactions only", LINK)
            work = self.transactions.begin()
            self._mine[work.identity] = work
            self._tell(f.DECLARED.encode(**{"txn-id": work.identity}))
        elif code == f.DISCHARGE.code:
            try:
                self._discharge(m["txn-id"], m["fail"])
            except ProtocolError as error:
                self._tell(f.REJECTED.encode(error=error.value()))
        else:
            raise ProtocolError(DECODE_ERROR, "a message to the coordinator is neither declare nor discharge", LINK)

    def _discharge(self, identity: bytes, fail: bool) -> None:
        """Raises: ProtocolError, when there is nothing to commit any more."""
        self._mine.pop(identity, None)
        if fail and self.transactions.forget(identity):  # it has timed out, and so was rolled back
            self._tell(f.ACCEPTED_STATE)
            return
        work = self.transactions.get(identity)
        full = None if fail else work.transaction.refused_by()
        if full is not None:
            work.failed = f"{full!r} is full"
        if fail or work.failed:
            self.transactions.roll_back(work)
            if not fail:
                raise ProtocolError(TRANSACTION_ROLLBACK, work.failed, LINK)
            self._tell(f.ACCEPTED_STATE)
            return
        delivery_id, settled = self._delivery_id, self._settled
        self._settled = False

        def durable() -> None:
            if not settled and self.attached:
                self.session.tell(delivery_id, f.ACCEPTED_STATE, True)

        self.transactions.commit(work, durable)

    def _tell(self, state: bytes) -> None:
        if not self._settled:
            self.session.tell(self._delivery_id, state, True)
        self._settled = False

    def let_go(self, closed: bool, event: int) -> None:
        for work in self._mine.values():
            if not work.over:
                self.transactions.roll_back(work)
        self._mine.clear()


def _body(payload: bytes) -> Any:
    """The value of the message's amqp-value section. Raises: Malformed."""
    reader = Reader(payload, 0, len(payload))
    while reader.at < reader.end:
        code = section(reader)
        if code == VALUE:
            return reader.value()
        if code in (DATA, SEQUENCE):
            break
        reader.skip()
    raise Malformed("a message to the coordinator has no value")
