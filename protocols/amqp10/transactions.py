"""Local transactions (part 4): the coordinator's link, and the transactions of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.outcome import REQUEUE
from broker.queue import Queue
from broker.transaction import Transaction
from protocols.amqp10 import frames as f
from protocols.amqp10.errors import (
    DECODE_ERROR,
    LINK,
    NOT_IMPLEMENTED,
    TRANSACTION_ROLLBACK,
    TRANSFER_LIMIT,
    UNKNOWN_TRANSACTION,
    ProtocolError,
)
from protocols.amqp10.link import RECEIVER, Link
from protocols.amqp10.sections import DATA, SEQUENCE, VALUE, section
from protocols.values10 import Malformed, Reader

if TYPE_CHECKING:
    from protocols.amqp10.session import Session

CREDIT = 100
CAPABILITIES = ["amqp:local-transactions", "amqp:multi-txns-per-ssn", "amqp:multi-ssns-per-txn"]


class Transactions:
    """The transactions of a connection, by their ids: any of its sessions may use them."""

    def __init__(self) -> None:
        self.open: dict[bytes, Transaction] = {}
        self.failed: dict[bytes, str] = {}  # those that can only be rolled back, and why
        self._count = 0

    def begin(self, transaction: Transaction) -> bytes:
        """Take up a new transaction. Gives its id."""
        self._count += 1
        identity = self._count.to_bytes(8, "big")
        self.open[identity] = transaction
        return identity

    def get(self, identity: bytes) -> Transaction:
        """Raises: ProtocolError."""
        transaction = self.open.get(identity)
        if transaction is None:
            raise ProtocolError(UNKNOWN_TRANSACTION, f"there is no transaction {identity.hex()}", LINK)
        return transaction

    def roll_back(self, identity: bytes) -> None:
        """Forget what was sent; what was settled goes back to its queues, as a delivery that failed."""
        transaction = self.open.pop(identity)
        self.failed.pop(identity, None)
        touched: dict[Queue, None] = {}
        for entry, _ in transaction.rollback():
            touched[entry.queue] = None
            REQUEUE.apply(entry)
        for queue in touched:
            queue.dispatch()

    def close(self) -> None:
        for identity in list(self.open):
            self.roll_back(identity)


class Coordinator(Link):
    """The link on which a client declares and discharges transactions; they are rolled back when it is gone."""

    def __init__(self, session: Session, m: dict[str, Any]) -> None:
        super().__init__(session, m)
        self.role = RECEIVER
        self.transactions = session.connection.transactions
        self.credit = CREDIT
        self.delivery_count: int = m["initial-delivery-count"] or 0
        self._mine: dict[bytes, None] = {}
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
            identity = self.transactions.begin(Transaction(self.host))
            self._mine[identity] = None
            self._tell(f.DECLARED.encode(**{"txn-id": identity}))
        elif code == f.DISCHARGE.code:
            self._discharge(m["txn-id"], m["fail"])
        else:
            raise ProtocolError(DECODE_ERROR, "a message to the coordinator is neither declare nor discharge", LINK)

    def _discharge(self, identity: bytes, fail: bool) -> None:
        if identity not in self.transactions.open:
            self._refuse(ProtocolError(UNKNOWN_TRANSACTION, f"there is no transaction {identity.hex()}", LINK))
            return
        self._mine.pop(identity, None)
        why = self.transactions.failed.get(identity)
        if fail or why is not None:
            self.transactions.roll_back(identity)
            if fail:
                self._tell(f.ACCEPTED_STATE)
            else:
                self._refuse(ProtocolError(TRANSACTION_ROLLBACK, str(why), LINK))
            return
        transaction = self.transactions.open.pop(identity)
        delivery_id, settled = self._delivery_id, self._settled
        self._settled = False

        def durable() -> None:
            if not settled and self.attached:
                self.session.tell(delivery_id, f.ACCEPTED_STATE, True)

        transaction.commit(durable)

    def _tell(self, state: bytes) -> None:
        if not self._settled:
            self.session.tell(self._delivery_id, state, True)
        self._settled = False

    def _refuse(self, error: ProtocolError) -> None:
        self._tell(f.REJECTED.encode(error=error.value()))

    def let_go(self, closed: bool, event: int) -> None:
        for identity in list(self._mine):
            if identity in self.transactions.open:
                self.transactions.roll_back(identity)
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
