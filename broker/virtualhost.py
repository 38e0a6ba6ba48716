"""A virtual host: a namespace of exchanges and queues, made, bound, deleted and recovered here."""

from __future__ import annotations

import logging
import secrets
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from broker import argument_values as args
from broker import retained, topology
from broker.alternate import dead_letter_names, make_dead_letter_queue
from broker.arguments import BINDING_NAMES, EXCHANGE_NAMES, QUEUE_NAMES, given, inequivalent, without_qpids
from broker.delayed import DelayedExchange, Hold
from broker.errors import (
    AccessRefused,
    CommandInvalid,
    NotFound,
    PreconditionFailed,
    ResourceLocked,
)
from broker.exchange import Binding, DirectExchange, Exchange, FanoutExchange, TopicExchange
from broker.extras import extras_of
from broker.hashing import ConsistentHashExchange, RandomExchange
from broker.headers import HeadersExchange
from broker.message import CONVERTERS, Amendment, Message, address_of, amended
from broker.option import Option
from broker.queue import LOCKED, Queue
from broker.queue_settings import QueueSettings, check_properties, check_same_arguments, queue_settings
from broker.routing import REFUSED, ROUTED, Route, Routing
from broker.security.quotas import Party
from broker.topic import MOST_HASHES, hashes
from broker.totals import Totals

if TYPE_CHECKING:
    from broker.broker import AutoCreate, Broker
    from broker.xa import Branches

logger = logging.getLogger(__name__)

_PREDECLARED = (("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.topic", "topic"), ("amq.headers", "headers"),
                ("amq.match", "headers"), ("amq.rabbitmq.trace", "topic"))


class VirtualHost(Routing):
    """One namespace. Methods raise the classes of broker.errors, with texts for the client."""

    branches: Branches
    """Distributed transactions; the broker puts it there."""

    def __init__(self, broker: Broker, name: str) -> None:
        super().__init__(broker, name)
        self.bound_to: dict[Queue | Exchange, dict[str, Binding]] = {}  # bindings by destination
        self.nameless_is_alternate = False  # messages may reach the nameless exchange by another's route
        self.postponed: Hold | None = None  # messages whose delivery time has not come
        self.retained: retained.RetainedLane | None = None  # from the first message on that asks for it
        self.totals = Totals()  # of queues that are deleted
        self.system_exchanges: set[str] = set()  # that nobody may delete, beside those called amq.
        for exchange, kind in _PREDECLARED:
            self.exchanges[exchange] = self._make_exchange(exchange, kind, True, False,
                                                           exchange == "amq.rabbitmq.trace", {})

    # Messages.

    def publish(self, route: Route, message: Message, copies_to: list[str] | None) -> int:
        """What `put` does, for a message that a client has sent: it is counted, and retained if it asks for that."""
        exchange = route.exchange
        exchange.received += 1
        exchange.received_bytes += message.size
        if route.retains and retained.asks(message):
            retained.retain(self, message)
            return REFUSED if self.put(route, message, copies_to) == REFUSED else ROUTED
        return self.put(route, message, copies_to)

    def postpone(self, message: Message) -> None:
        """Hold a message that says itself when it is to be delivered, and route it then."""
        hold = self.postponed
        if hold is None:
            hold = self.hold_postponed(self.broker.log.new_id())
            topology.save(self.broker.store, topology.key(topology.HOLD, self.name, ""), {"id": hold.queue.queue_id})
        hold.keep(message)

    def hold_postponed(self, queue_id: int) -> Hold:
        """Make the place for postponed messages, or the one that was there before a restart."""
        queue = Queue(self, "postponed deliveries", queue_id, True, False, False, {}, QueueSettings(), None)
        self.postponed = Hold(queue, _delivery_time, self._route_postponed)
        return self.postponed

    def _route_postponed(self, message: Message) -> None:
        exchange = self.exchanges.get(message.address.exchange)
        if exchange is not None and not 0 < message.expiry <= self.broker.clock.now:
            again = amended(message, Amendment(), message.address, message.arrival)
            again.origin = message.origin
            if exchange.name == retained.EXCHANGE and retained.asks(again):
                retained.retain(self, again)
            self.route_and_enqueue(exchange, again)

    # Exchanges.

    def exchange(self, name: str) -> Exchange:
        """Raises: NotFound."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise NotFound(f"no exchange '{name}' in vhost '{self.name}'")
        return exchange

    def declare_exchange(self, name: str, kind: str, durable: bool, auto_delete: bool, internal: bool,
                         arguments: dict[str, Any]) -> bool:
        """Make an exchange, or check that the one there is the same. Gives whether the reply must await the store.

        Raises: AccessRefused (reserved name), PreconditionFailed (it is different), CommandInvalid (unknown kind).
        """
        if kind not in EXCHANGE_KINDS:
            raise CommandInvalid(f"invalid exchange type '{kind}'")
        known = self.exchanges.get(name)
        if known is not None:
            _check_same_exchange(known, kind, durable, auto_delete, internal, arguments, self.name)
            self.broker.management.exchange_declared(self, known, False)
            return False
        if name.startswith("amq."):
            raise AccessRefused(f"exchange name '{name}' contains reserved prefix 'amq.*'")
        exchange = self._make_exchange(name, kind, durable, auto_delete, internal, arguments)
        self.exchanges[name] = exchange
        self.routes.clear()
        if durable:
            value = {"kind": kind, "auto_delete": auto_delete, "internal": internal, "arguments": arguments}
            if isinstance(exchange, DelayedExchange):
                value["queue_id"] = exchange.hold.queue.queue_id
            topology.save(self.broker.store, topology.key(topology.EXCHANGE, self.name, name), value)
        self.broker.management.exchange_declared(self, exchange, True)
        return durable

    def system_exchange(self, name: str, kind: str) -> Exchange:
        """Make an exchange of the broker's own, for something that it does itself; or find it, if it was there."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            exchange = self.exchanges[name] = self._make_exchange(name, kind, False, False, False, {})
            self.routes.clear()
        self.system_exchanges.add(name)
        return exchange

    def _make_exchange(self, name: str, kind: str, durable: bool, auto_delete: bool, internal: bool,
                       arguments: dict[str, Any], queue_id: int = 0) -> Exchange:
        found = given(arguments, EXCHANGE_NAMES, f"exchange '{name}' in vhost '{self.name}'")
        if "alternate" in found and found["alternate"].value == "":
            self.nameless_is_alternate = True
        if kind != "x-delayed-message":
            exchange = EXCHANGE_KINDS[kind](name, kind, durable, auto_delete, internal, arguments)
            exchange.extras = extras_of(found, self.broker.memory)
            exchange.dynamic = exchange.dynamic or exchange.extras is not None
            return exchange
        within_kind = arguments.get("x-delayed-type")
        if within_kind not in EXCHANGE_KINDS or within_kind == "x-delayed-message":
            raise PreconditionFailed("Invalid argument, 'x-delayed-type' must be an existing exchange type")
        within = EXCHANGE_KINDS[within_kind](name, within_kind, durable, auto_delete, internal, arguments)
        hold = Queue(self, f"delayed by exchange {name}", queue_id or self.broker.log.new_id(), durable, False, False,
                     {}, QueueSettings(), None)
        return DelayedExchange(self, within, hold)

    def delete_exchange(self, name: str, if_unused: bool) -> bool:
        """Delete an exchange with its bindings; one that does not exist is no error. Gives whether the reply must
        await the store. Raises: AccessRefused (predeclared), PreconditionFailed (in use)."""
        if name == "":
            raise AccessRefused("operation not permitted on the default exchange")
        exchange = self.exchanges.get(name)
        if exchange is None:
            return False
        if name.startswith("amq.") or name in self.system_exchanges:
            raise AccessRefused(f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed")
        if if_unused and exchange.bindings:
            raise PreconditionFailed(f"exchange '{name}' in vhost '{self.name}' in use")
        self._remove_exchange(exchange)
        return exchange.durable

    def _remove_exchange(self, exchange: Exchange) -> None:
        del self.exchanges[exchange.name]
        exchange.deleted = True
        if exchange.durable:
            self.broker.store.delete(topology.key(topology.EXCHANGE, self.name, exchange.name))
        if isinstance(exchange, DelayedExchange):
            exchange.close()
        if exchange.extras is not None:
            exchange.extras.close()
        for binding in list(exchange.bindings.values()):
            self._drop(binding, False)
        for binding in list(self.bound_to.pop(exchange, {}).values()):
            self._drop(binding, True)
        self.routes.clear()
        self.broker.management.exchange_deleted(self, exchange)

    # Queues.

    def queue(self, name: str) -> Queue:
        """Raises: NotFound."""
        queue = self.queues.get(name)
        if queue is None:
            raise NotFound(f"no queue '{name}' in vhost '{self.name}'")
        return queue

    def declare_queue(self, name: str, durable: bool, exclusive: bool, auto_delete: bool, arguments: dict[str, Any],
                      owner: object, reserved: bool = False) -> tuple[Queue, bool]:
        """Make a queue, or check that the one there is the same. Gives it, and whether the reply must await the store.

        An empty name stands for one that the broker chooses. owner: the connection, for an exclusive queue; reserved:
        the name may be a reserved one. Raises: AccessRefused (reserved name), ResourceLocked, PreconditionFailed,
        NotImplementedHere, LimitReached.
        """
        if name.startswith("amq.") and not reserved:
            raise AccessRefused(f"queue name '{name}' contains reserved prefix 'amq.*'")
        known = self.queues.get(name)
        if known is not None:
            known.check_access(owner)
            _check_same_queue(known, durable, exclusive, auto_delete, arguments)
            known.used()
            self.broker.management.queue_declared(known, False)
            return known, False
        if not name:
            name = self.free_name("amq.gen-")
        what = f"queue '{name}' in vhost '{self.name}'"
        settings = _settings(name, arguments, what)
        check_properties(arguments, what, durable, exclusive, auto_delete)
        if settings.dead_letter_queue:
            make_dead_letter_queue(self, name, durable and not exclusive)
        party = None if settings.retains else self._party()  # that one is the broker's own
        if party is not None:
            self.broker.quotas.take_queue(party, name)
        queue = Queue(self, name, self.broker.log.new_id(), durable and not exclusive, exclusive, auto_delete,
                      arguments, settings, owner if exclusive else None)
        queue.party = party
        self.queues[name] = queue
        self._forget_default_route(name)
        queue.check_access(owner)  # so that it is his, if it is to be anybody's
        if queue.durable:
            value = {"id": queue.queue_id, "auto_delete": auto_delete, "arguments": arguments}
            if queue.claim is not None and queue.claim.name():
                value["holder"] = queue.claim.name()
            if party is not None and party.user:
                value["user"] = party.user
            topology.save(self.broker.store, topology.key(topology.QUEUE, self.name, name), value)
        self.broker.management.queue_declared(queue, True)
        return queue, queue.durable

    def _party(self) -> Party:
        """In whose limits what is made now counts: those of the client whose input is being dealt with."""
        actor = self.broker.management.actor
        party = None if actor is None else actor.quota.party
        return Party(host=self.name) if party is None or party.host != self.name else party

    def free_name(self, prefix: str) -> str:
        """A name for a queue that nobody can guess."""
        while True:
            name = prefix + secrets.token_urlsafe(16)
            if name not in self.queues:
                return name

    def hidden_queue(self, name: str, owner: object) -> Queue:
        """A queue of the broker's own making under a reserved name, gone with its owner's last use of it."""
        queue = Queue(self, name, self.broker.log.new_id(), False, True, True, {}, QueueSettings(), owner)
        self.queues[name] = queue
        self._forget_default_route(name)
        return queue

    def _forget_default_route(self, name: str) -> None:
        """A queue has come or gone that nothing is bound to: only the nameless exchange leads there."""
        if self.nameless_is_alternate:
            self.routes.clear()
        else:
            self.routes.pop(address_of("", name).short_strings, None)

    def delete_queue(self, queue: Queue) -> bool:
        """Delete a queue with its bindings. Gives whether the reply must await the store. Raises: AccessRefused (it is
        the broker's own)."""
        if queue.deleted:
            return False
        retained.check_open(queue)
        del self.queues[queue.name]
        if queue.party is not None:
            self.broker.quotas.give_queue(queue.party)
        self.totals.retire(queue)
        inherited = queue.settings.alternate is not None and queue.ready > 0
        if queue.durable and not inherited:
            self.broker.store.delete(topology.key(topology.QUEUE, self.name, queue.name))
        bindings = self.bound_to.pop(queue, {})
        for binding in list(bindings.values()):
            self._drop(binding, True)
        if bindings:
            self.routes.clear()
        else:
            self._forget_default_route(queue.name)
        queue.close(inherited)
        self.broker.management.queue_deleted(queue)
        return queue.durable

    def auto_create(self, address: str, kind: str) -> tuple[str, AutoCreate] | None:
        """What is to be made, under which name, for somebody who wants to use a queue or an exchange that is not there:
        the first policy whose pattern fits says so. Of `exchange/key`, the exchange is what a pattern has to fit.

        kind: "queue", "topic" (any exchange) or "" for either.
        """
        for policy in self.broker.auto_create:
            is_queue = policy.kind == "queue"
            name = address if is_queue else address.partition("/")[0]
            if kind == ("topic" if is_queue else "queue") or not name or not fnmatchcase(name, policy.pattern):
                continue
            return name, policy
        return None

    # Bindings.

    def bind(self, source: Exchange, destination: Queue | Exchange, routing_key: str,
             arguments: dict[str, Any]) -> bool:
        """Bind a queue or an exchange to an exchange; doing so twice is no error. Gives whether the reply must await
        the store. Raises: AccessRefused (the default exchange, the broker's own queue), PreconditionFailed."""
        _check_not_default(source)
        _check_not_default(destination)
        if isinstance(destination, Queue):
            retained.check_open(destination)
        identity = _identity(destination, routing_key, arguments)
        if identity in source.bindings:
            return False
        if source.kind in ("topic", "x-delayed-message") and hashes(routing_key) > MOST_HASHES:
            raise PreconditionFailed(f"a pattern has at most {MOST_HASHES} times '#'")
        queue = destination if isinstance(destination, Queue) else None
        exchange = destination if isinstance(destination, Exchange) else None
        binding = Binding(source, queue, exchange, routing_key, arguments, identity)
        self._add(binding)
        self.routes.clear()
        self.broker.management.bound(self, binding)
        if binding.exclusive:
            self._drop_others(binding)
        if source.extras is not None:
            source.extras.bound(source, binding, self.broker.clock.now)
        if not (source.durable and destination.durable):
            return False
        binding.setting = topology.key(topology.BINDING, self.name, topology.binding_name(identity, source.name))
        topology.save(self.broker.store, binding.setting,
                      {"source": source.name, "to": "queue" if queue is not None else "exchange",
                       "destination": destination.name, "routing_key": routing_key, "arguments": arguments})
        return True

    def _drop_others(self, binding: Binding) -> None:
        """A binding has its routing key for itself."""
        for other in list(binding.source.bindings.values()):
            if other is not binding and other.routing_key == binding.routing_key:
                self.unbind(other.source, other.destination(), other.routing_key, other.arguments)

    def unbind(self, source: Exchange, destination: Queue | Exchange, routing_key: str,
               arguments: dict[str, Any]) -> bool:
        """Remove a binding; one that does not exist is no error. Gives whether the reply must await the store."""
        _check_not_default(source)
        _check_not_default(destination)
        binding = source.bindings.get(_identity(destination, routing_key, arguments))
        if binding is None:
            return False
        del self.bound_to[destination][f"{source.name}\0{binding.identity}"]
        self._drop(binding, True)
        self.routes.clear()
        return bool(binding.setting)

    def _add(self, binding: Binding) -> None:
        """Raises: PreconditionFailed."""
        binding.source.bind(binding)
        self.bound_to.setdefault(binding.destination(), {})[f"{binding.source.name}\0{binding.identity}"] = binding
        self.bindings += 1

    def _drop(self, binding: Binding, may_delete_source: bool) -> None:
        """The binding is gone from its destination's list; take it from its source, which may go with its last."""
        source = binding.source
        source.unbind(binding)
        self.bindings -= 1
        self.broker.management.unbound(self, binding)
        if binding.setting:
            self.broker.store.delete(binding.setting)
        if not may_delete_source:
            bound = self.bound_to.get(binding.destination())
            if bound is not None:
                bound.pop(f"{source.name}\0{binding.identity}", None)
        elif source.auto_delete and not source.bindings and not source.deleted:
            self._remove_exchange(source)

    # Recovery.

    def recover_exchange(self, saved: topology.Saved) -> None:
        value = saved.value
        arguments = _recovered(value["arguments"], EXCHANGE_NAMES, f"exchange '{saved.name}' in vhost '{self.name}'")
        self.exchanges[saved.name] = self._make_exchange(saved.name, value["kind"], True, value["auto_delete"],
                                                         value["internal"], arguments, value.get("queue_id", 0))

    def recover_queue(self, saved: topology.Saved) -> Queue:
        arguments = _recovered(saved.value["arguments"], QUEUE_NAMES, f"queue '{saved.name}' in vhost '{self.name}'")
        queue = Queue(self, saved.name, saved.value["id"], True, False, saved.value["auto_delete"], arguments,
                      _settings(saved.name, arguments, saved.name), None)
        if queue.claim is not None:
            queue.claim.holder = saved.value.get("holder")
        self.queues[saved.name] = queue
        if queue.settings.retains:
            self.retained = retained.lane_of(queue)
        else:
            queue.party = Party(user=saved.value.get("user", ""), host=self.name)
            self.broker.quotas.has_queue(queue.party)
        return queue

    def recover_binding(self, saved: topology.Saved) -> None:
        value = saved.value
        destination: Queue | Exchange = (self.queue(value["destination"]) if value["to"] == "queue"
                                         else self.exchange(value["destination"]))
        identity = _identity(destination, value["routing_key"], value["arguments"])
        source = self.exchange(value["source"])
        binding = Binding(source, destination if isinstance(destination, Queue) else None,
                          destination if isinstance(destination, Exchange) else None, value["routing_key"],
                          _recovered(value["arguments"], BINDING_NAMES, f"binding of exchange '{source.name}'")
                          if source.kind != "headers" else value["arguments"], identity)
        binding.setting = saved.key
        self._add(binding)


def _recovered(arguments: dict[str, Any], table: dict[str, Option], what: str) -> dict[str, Any]:
    """The arguments of something that is in the store, but for what was no error when it was declared and is one."""
    try:
        if table is QUEUE_NAMES:
            queue_settings(arguments, what)
        else:
            given(arguments, table, what)
    except PreconditionFailed as error:
        logger.warning("%s; an earlier version has taken that, and this one leaves its Qpid options alone", error)
        return without_qpids(arguments, table)
    return arguments


def _settings(name: str, arguments: dict[str, Any], what: str) -> QueueSettings:
    """Raises: PreconditionFailed."""
    if name == retained.QUEUE:
        return retained.settings()
    settings = queue_settings(arguments, what)
    if settings.dead_letter_queue and settings.alternate is None:
        settings.alternate = dead_letter_names(name)[0]
    return settings


def _delivery_time(message: Message) -> int:
    return CONVERTERS[message.dialect].delivery_time(message)


EXCHANGE_KINDS: dict[str, type[Exchange]] = {
    "direct": DirectExchange, "fanout": FanoutExchange, "topic": TopicExchange, "headers": HeadersExchange,
    "x-consistent-hash": ConsistentHashExchange, "x-random": RandomExchange, "x-delayed-message": DelayedExchange,
}


def _identity(destination: Queue | Exchange, routing_key: str, arguments: dict[str, Any]) -> str:
    kind = "q" if isinstance(destination, Queue) else "e"
    return f"{kind}\0{destination.name}\0{routing_key}\0{args.dump(arguments).decode() if arguments else ''}"


def _check_not_default(end: Queue | Exchange) -> None:
    if end.name == "":
        raise AccessRefused("operation not permitted on the default exchange")


def _check_same(argument: str, received: Any, current: Any, what: str) -> None:
    if not args.same(received, current):
        raise inequivalent(argument, received, current, what)


def _check_same_exchange(exchange: Exchange, kind: str, durable: bool, auto_delete: bool, internal: bool,
                         arguments: dict[str, Any], host: str) -> None:
    what = f"exchange '{exchange.name}' in vhost '{host}'"
    if exchange.kind != kind:
        raise PreconditionFailed(f"inequivalent arg 'type' for {what}: received '{kind}' "
                                 f"but current is '{exchange.kind}'")
    _check_same("durable", durable, exchange.durable, what)
    _check_same("auto_delete", auto_delete, exchange.auto_delete, what)
    _check_same("internal", internal, exchange.internal, what)
    _check_same("alternate-exchange", arguments.get("alternate-exchange"), exchange.arguments.get("alternate-exchange"),
                what)


def _check_same_queue(queue: Queue, durable: bool, exclusive: bool, auto_delete: bool,
                      arguments: dict[str, Any]) -> None:
    what = repr(queue)
    if not (exclusive and queue.exclusive):  # such a queue is never durable, whatever is asked for
        _check_same("durable", durable, queue.durable, what)
    _check_same("auto_delete", auto_delete, queue.auto_delete, what)
    if exclusive is not queue.exclusive:
        raise ResourceLocked(LOCKED.format(what))
    check_same_arguments(arguments, queue.arguments, what)
