"""The local transaction: publishes and settlements that happen together or not at all.

One for all dialects: `tx` of 0-9-1 and 0-10, and the coordinator of 1.0.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.entry import Entry
from broker.message import Message
from broker.outcome import Outcome
from broker.queue import Queue
from broker.routing import UNROUTED, Route
from broker.totals import published_in_transaction, settled_in_transaction
from broker.virtualhost import VirtualHost


class Publication:
    """A message that waits for the commit."""

    __slots__ = ("route", "message", "copies_to", "mandatory", "postponed")

    def __init__(self, route: Route, message: Message, copies_to: list[str] | None, mandatory: bool,
                 postponed: bool = False) -> None:
        self.route = route
        self.message = message
        self.copies_to = copies_to
        self.mandatory = mandatory  # the publisher wants it back when it goes nowhere
        self.postponed = postponed  # it is to be delivered later


class Transaction:
    """Collects until `commit` or `rollback`, and begins anew after each."""

    def __init__(self, host: VirtualHost) -> None:
        self.host = host
        self.publications: list[Publication] = []
        self.settlements: dict[Entry, Outcome] = {}

    def publish(self, publication: Publication) -> None:
        self.publications.append(publication)
        self.host.broker.memory.add(publication.message.cost())

    def settle(self, entry: Entry, outcome: Outcome) -> None:
        """Settle an acquired entry with the commit."""
        self.settlements[entry] = outcome

    def withdraw(self, entry: Entry) -> None:
        """The entry is not to be settled with the commit after all."""
        self.settlements.pop(entry, None)

    def refused_by(self) -> Queue | None:
        """A queue that is too full for all that would go to it, and would refuse some of it; None: there is none."""
        counts: dict[Queue, int] = {}
        sizes: dict[Queue, int] = {}
        for publication in self.publications:
            if publication.postponed:
                continue
            for queue in self.host.destinations(publication.route, publication.message, publication.copies_to):
                if queue.limits is not None:
                    counts[queue] = counts.get(queue, 0) + 1
                    sizes[queue] = sizes.get(queue, 0) + publication.message.size
        for queue, count in counts.items():
            if queue.limits is not None and queue.limits.refuses(count, sizes[queue]):
                return queue
        return None

    def commit(self, done: Callable[[], None]) -> list[Publication]:
        """Do it all, in one turn and so as one batch of the journal; `done` is called once that is durable.

        Gives the mandatory publications that went nowhere.
        """
        broker = self.host.broker
        publications, settlements = self.publications, self.settlements
        self.publications, self.settlements = [], {}
        returned = []
        touched: dict[Queue, None] = {}
        for publication in publications:
            broker.memory.add(-publication.message.cost())
            if publication.postponed:
                self.host.postpone(publication.message)
                continue
            route = self.host.current_route(publication.message.address)  # bindings may have come and gone
            result = UNROUTED
            if route is not None:
                queues = self.host.destinations(route, publication.message, publication.copies_to)
                published_in_transaction(queues, publication.message)
                result = self.host.publish(route, publication.message, publication.copies_to)
            if result == UNROUTED and publication.mandatory:
                returned.append(publication)
        for entry, outcome in settlements.items():
            outcome.apply(entry)
            settled_in_transaction(entry)
            touched[entry.queue] = None
        broker.log.commit(done)
        for queue in touched:
            queue.dispatch()
        return returned

    def rollback(self) -> list[Entry]:
        """Forget it all. Gives the entries that were to be settled, in that order: they are still acquired."""
        settlements = self.settlements
        for publication in self.publications:
            self.host.broker.memory.add(-publication.message.cost())
        self.publications, self.settlements = [], {}
        return list(settlements)
