"""The commands of classes exchange and queue.

Each function gets the session, the command's id and its arguments, and tells whether it is complete at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.argument_values import same
from broker.errors import CommandInvalid, PreconditionFailed
from broker.exchange import Binding, Exchange
from broker.lifetime import WITH_CONNECTION, WITH_SESSION
from broker.queue import Queue
from protocols.amqp010.errors import (
    ILLEGAL_ARGUMENT,
    INVALID_ARGUMENT,
    NOT_ALLOWED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    SessionError,
)

if TYPE_CHECKING:
    from protocols.amqp010.session import Session

Arguments = dict[str, Any]

_ALTERNATE = "alternate-exchange"


def named(m: Arguments, field: str) -> str:
    """A name that must be there. Raises: SessionError."""
    name: str = m.get(field, "")
    if not name:
        code = INVALID_ARGUMENT if field == "exchange" else ILLEGAL_ARGUMENT
        raise SessionError(code, f"{field}: a name is required")
    return name


def _exchange(session: Session, name: str) -> Exchange:
    exchange = session.host.exchanges.get(name)
    if exchange is None:
        raise SessionError(NOT_FOUND, f"no exchange '{name}' in vhost '{session.host.name}'")
    return exchange


def _arguments(session: Session, m: Arguments) -> Arguments:
    """The arguments of a declaration, with the alternate exchange, which the client must be allowed to know."""
    arguments = dict(m.get("arguments", {}))
    if m.get("alternate_exchange"):
        session.access.see_exchange(m["alternate_exchange"])
        arguments[_ALTERNATE] = m["alternate_exchange"]
    return arguments


def _alternate(session: Session, m: Arguments) -> str | None:
    """The alternate exchange that a declaration names. Raises: SessionError when there is none of that name."""
    name: str | None = m.get("alternate_exchange")
    if name:
        _exchange(session, name)
    return name or None


# Exchanges.


def exchange_declare(session: Session, number: int, m: Arguments) -> bool:
    name = named(m, "exchange")
    kind = m.get("type", "")
    arguments = _arguments(session, m)
    if m["passive"]:
        session.access.see_exchange(name)
    else:
        session.access.declare_exchange(name, kind, m["durable"], m["auto_delete"], arguments)
    known = session.host.exchanges.get(name)
    if m["passive"] and known is None:
        raise SessionError(NOT_FOUND, f"no exchange '{name}' in vhost '{session.host.name}'")
    alternate = _alternate(session, m)
    if known is not None:
        if kind and known.kind != kind:
            raise SessionError(NOT_ALLOWED, f"exchange '{name}' is of type '{known.kind}', not '{kind}'")
        if alternate and known.alternate != alternate:
            raise SessionError(NOT_ALLOWED, f"exchange '{name}' has alternate exchange '{known.alternate or ''}', not "
                                            f"'{alternate}'")
        return True
    if name.startswith("qpid."):
        raise SessionError(NOT_ALLOWED, f"exchange name '{name}' begins with 'qpid.', which is reserved")
    try:
        wait = session.host.declare_exchange(name, kind, m["durable"], m["auto_delete"], False, arguments)
    except CommandInvalid as error:
        raise SessionError(NOT_FOUND, str(error)) from None
    return session.when_durable(number, wait)


def exchange_delete(session: Session, number: int, m: Arguments) -> bool:
    name = named(m, "exchange")
    session.access.delete_exchange(name)
    exchange = _exchange(session, name)
    host = session.host
    if any(other.alternate == name for other in host.exchanges.values() if other is not exchange) or any(
            queue.settings.alternate == name for queue in host.queues.values()):
        raise SessionError(NOT_ALLOWED, f"exchange '{name}' is somebody's alternate exchange")
    return session.when_durable(number, host.delete_exchange(name, m["if_unused"]))


def exchange_query(session: Session, number: int, m: Arguments) -> bool:
    session.access.see_exchange(m.get("name", ""))
    exchange = session.host.exchanges.get(m.get("name", ""))
    if exchange is None:
        session.result(number, "exchange-query-result", not_found=True)
    else:
        session.result(number, "exchange-query-result", type=exchange.kind, durable=exchange.durable,
                       arguments=exchange.arguments)
    return True


def _bindings(exchange: Exchange, queue: Queue, key: str) -> list[Binding]:
    return [binding for binding in exchange.bindings.values()
            if binding.queue is queue and binding.routing_key == key]


def exchange_bind(session: Session, number: int, m: Arguments) -> bool:
    """Bind; of one queue and one key there is one binding, and its arguments are the newest."""
    key = m.get("binding_key", "")
    session.access.bind(named(m, "exchange"), named(m, "queue"), True, key, m.get("arguments", {}))
    queue = _own_queue(session, m["queue"])
    exchange = _exchange(session, m["exchange"])
    before = _bindings(exchange, queue, key)
    wait = session.host.bind(exchange, queue, key, m.get("arguments", {}))
    for binding in before:
        if not same(binding.arguments, m.get("arguments", {})):
            wait = session.host.unbind(exchange, queue, key, binding.arguments) or wait
    return session.when_durable(number, wait)


def exchange_unbind(session: Session, number: int, m: Arguments) -> bool:
    key = m.get("binding_key", "")
    session.access.unbind(named(m, "exchange"), named(m, "queue"), True, key)
    queue = _own_queue(session, m["queue"])
    exchange = _exchange(session, m["exchange"])
    bindings = _bindings(exchange, queue, key)
    if not bindings:
        raise SessionError(NOT_FOUND, f"queue '{queue.name}' is not bound to exchange '{exchange.name}' with key "
                                      f"'{key}'")
    wait = False
    for binding in bindings:
        wait = session.host.unbind(exchange, queue, key, binding.arguments) or wait
    return session.when_durable(number, wait)


def exchange_bound(session: Session, number: int, m: Arguments) -> bool:
    """Whether there is a binding with all that is named; for what is named, whether there is one at all."""
    host = session.host
    name = m.get("queue", "")
    session.access.see_exchange(m.get("exchange", ""))
    if name:
        session.access.see_queue(name)
    exchange = host.exchanges.get(m.get("exchange", ""))
    queue = host.queues.get(name)
    found = {"exchange_not_found": exchange is None, "queue_not_found": bool(name) and queue is None}
    if exchange is not None and not found["queue_not_found"]:
        found.update(_not_matched(exchange, queue, m))
    session.result(number, "exchange-bound-result", **found)
    return True


def _not_matched(exchange: Exchange, queue: Queue | None, m: Arguments) -> dict[str, bool]:
    key, arguments = m.get("binding_key"), m.get("arguments")
    if not exchange.name:  # the default exchange: every queue is bound by its own name
        return {"key_not_matched": key is not None and (key not in m["queue"] if queue is None else key != queue.name)}
    bindings = list(exchange.bindings.values())
    of_queue = [each for each in bindings if queue is None or each.queue is queue]
    found = {"queue_not_matched": queue is not None and not of_queue}
    candidates = of_queue or bindings
    if key is not None:
        matching = [each for each in candidates if each.routing_key == key]
        found["key_not_matched"] = not matching
        candidates = matching or candidates
    if arguments:
        found["args_not_matched"] = not any(same(each.arguments, arguments) for each in candidates)
    return found


# Queues.


def queue_declare(session: Session, number: int, m: Arguments) -> bool:
    name = named(m, "queue")
    arguments = _arguments(session, m)
    if m["passive"]:
        session.access.see_queue(name)
    else:
        session.access.declare_queue(name, m["durable"], m["exclusive"], m["auto_delete"], arguments)
    known = session.host.queues.get(name)
    alternate = _alternate(session, m)
    if known is not None:
        if m["exclusive"] or not m["passive"]:  # others may ask whether it is there
            known.check_access(session)
        if m["exclusive"] and m["passive"] and known.owner is not session:
            raise SessionError(RESOURCE_LOCKED, f"{known!r} does not belong to this session")
        if alternate and known.settings.alternate != alternate:
            raise SessionError(NOT_ALLOWED, f"queue '{name}' has alternate exchange "
                                            f"'{known.settings.alternate or ''}', not '{alternate}'")
        if m["exclusive"] and not m["passive"] and known.owner is None:
            if known.consumers:
                raise SessionError(RESOURCE_LOCKED, f"{known!r} is in use by others")
            _own(session, known, False)
        known.used()
        return True
    if m["passive"]:
        raise SessionError(NOT_FOUND, f"no queue '{name}' in vhost '{session.host.name}'")
    if name.startswith("qpid."):
        raise SessionError(NOT_ALLOWED, f"queue name '{name}' begins with 'qpid.', which is reserved")
    goes_with_session = m["exclusive"] and m["auto_delete"]
    try:
        queue, wait = session.host.declare_queue(name, m["durable"], False, m["auto_delete"] and not goes_with_session,
                                                 arguments, session, _is_subscription(session, name))
    except PreconditionFailed as error:
        raise SessionError(INVALID_ARGUMENT, str(error)) from None
    lifetime = queue.settings.lifetime
    if lifetime == WITH_CONNECTION and session.connection is not None:
        session.connection.own_queues[queue] = None
        goes_with_session = False
    elif lifetime in WITH_SESSION:
        session.exclusive_queues[queue] = goes_with_session = True
    if m["exclusive"] and queue.settings.exclusivity in ("none", "session"):
        _own(session, queue, goes_with_session)
    elif goes_with_session:
        session.exclusive_queues[queue] = True
    return session.when_durable(number, wait)


def _is_subscription(session: Session, name: str) -> bool:
    """Qpid's C++ client receives from an exchange by a queue that it calls EXCHANGE_UUID, `amq.topic_...` too."""
    exchange, _, rest = name.partition("_")
    return bool(rest) and exchange in session.host.exchanges


def _own(session: Session, queue: Queue, goes_with_session: bool) -> None:
    """The session has the queue for itself, until it ends."""
    queue.owner = session
    queue.goes_with_owner = goes_with_session
    session.exclusive_queues[queue] = goes_with_session


def _own_queue(session: Session, name: str) -> Queue:
    queue = session.host.queue(name)
    queue.check_access(session)
    return queue


def queue_delete(session: Session, number: int, m: Arguments) -> bool:
    session.access.delete_queue(named(m, "queue"))
    queue = _own_queue(session, m["queue"])
    if m["if_unused"] and queue.consumers:
        raise SessionError(PRECONDITION_FAILED, f"{queue!r} is in use")
    if m["if_empty"] and queue.ready:
        raise SessionError(PRECONDITION_FAILED, f"{queue!r} is not empty")
    session.exclusive_queues.pop(queue, None)
    for subscription in session.subscriptions.values():  # its own end quietly, and may still be cancelled
        if subscription.queue is queue:
            queue.remove(subscription)
    return session.when_durable(number, session.host.delete_queue(queue))


def queue_purge(session: Session, number: int, m: Arguments) -> bool:
    session.access.purge(named(m, "queue"))
    queue = _own_queue(session, m["queue"])
    count = queue.purge()
    return session.when_durable(number, queue.durable and count > 0)


def queue_query(session: Session, number: int, m: Arguments) -> bool:
    session.access.see_queue(named(m, "queue"))
    queue = session.host.queues.get(m["queue"])
    if queue is None:
        session.result(number, "queue-query-result")
        return True
    exclusive = queue.owner is not None
    session.result(number, "queue-query-result", queue=queue.name,
                   alternate_exchange=queue.settings.alternate, durable=queue.durable, exclusive=exclusive,
                   auto_delete=queue.auto_delete or session.exclusive_queues.get(queue, False),
                   arguments={key: value for key, value in queue.arguments.items() if key != _ALTERNATE},
                   message_count=queue.ready, subscriber_count=len(queue.consumers))
    return True
