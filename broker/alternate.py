"""Alternates: where the messages of a queue go, unchanged, that were rejected or delivered too often, and what is left
in it when it is deleted (AMQP 0-10, queue.declare, alternate-exchange)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker import topology
from broker.errors import PreconditionFailed
from broker.message import Message

if TYPE_CHECKING:
    from broker.queue import Queue
    from broker.virtualhost import VirtualHost

AT_ONCE = 100
"""Messages that go in one go."""


def publish_anew(targets: list[Queue], message: Message, copies: bool) -> bool:
    """Put the message, as a new one, in queues. copies: the old one stays, too. False: none of them has taken it."""
    again = Message(message.address, message.dialect, message.native, message.body, message.size, message.durable,
                    message.priority, message.expiry, message.arrival)
    again.origin = message.origin
    publisher = message.publisher
    if publisher is not None and not copies:  # it waits for this one now
        again.publisher, again.sequence = publisher, message.sequence
    again.shared = len(targets) > 1
    taken = False
    management = targets[0].host.broker.management
    before, management.relaying = management.relaying, True
    try:
        for target in targets:
            taken = target.enqueue(again) or taken
    finally:
        management.relaying = before
    if taken and (again.pending or again.publisher is None):
        if publisher is not None and not copies:
            message.publisher = None
    else:
        again.publisher = None
    return taken


def to_alternate(queue: Queue, message: Message) -> None:
    """Publish a message of the queue to its alternate exchange or queue, if there is one."""
    name = queue.settings.alternate
    if name is None:
        return
    exchange = queue.host.exchanges.get(name)
    if exchange is not None:
        targets = queue.host.behind(exchange, message)
    else:
        target = queue.host.queues.get(name)
        targets = [] if target is None or target.settings.retains else [target]
    if targets:
        publish_anew(targets, message, False)


def bequeath(queue: Queue) -> None:
    """The queue is being deleted: what is available in it goes to its alternate. The journal has it until it has gone:
    after a crash in the midst, the queue is there again with the rest."""
    steps = _bequeath(queue)
    for _ in steps:
        queue.host.broker.chores.add(steps)
        return


def _bequeath(queue: Queue) -> Iterator[None]:
    number = 0
    while queue.ready:
        entry = queue.take()
        if entry is None:
            break
        if entry.message is not None:
            to_alternate(queue, entry.message)
        queue.forget(entry)
        number += 1
        if number % AT_ONCE == 0:
            yield
    queue.drop_log()
    if queue.durable and queue.name not in queue.host.queues:
        queue.host.broker.store.delete(topology.key(topology.QUEUE, queue.host.name, queue.name))


def make_dead_letter_queue(host: VirtualHost, name: str, durable: bool) -> None:
    """A queue is about to be made that wants a dead-letter queue: make that, and the exchange that leads there, unless
    they are there. Raises: PreconditionFailed."""
    if len(name.encode("utf-8", "surrogateescape")) > 251:
        raise PreconditionFailed(f"invalid arg 'x-qpid-dlq-enabled' for queue '{name}': its name is too long for that")
    exchange, queue = dead_letter_names(name)
    if exchange not in host.exchanges:
        host.declare_exchange(exchange, "fanout", durable, False, False, {})
    if queue not in host.queues:
        host.declare_queue(queue, durable, False, False, {}, None)
    host.bind(host.exchanges[exchange], host.queues[queue], queue, {})


def dead_letter_names(name: str) -> tuple[str, str]:
    """The exchange and the queue that the dead letters of a queue go to."""
    return f"{name}_DLE", f"{name}_DLQ"
