"""The methods of the agent's objects: requests by name, with a map of arguments."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from broker import arguments as options
from broker import moving
from broker.errors import NotFound
from broker.management import GatewayControl, ManagedConnection, ManagedPart, ManagedSession
from broker.moving import Choice
from broker.queue import Queue
from broker.security.access import Access
from broker.values import UInt
from broker.virtualhost import VirtualHost
from protocols.qmf import routes
from protocols.qmf.objects import (
    ACL_KEY,
    BROKER_KEY,
    OBJECTS,
    Facts,
    connection_key,
    find,
    gateway_parts,
    kind_and_key,
    object_name,
)
from protocols.qmf.schema import CLASSES, package_of

UNKNOWN_OBJECT, UNKNOWN_METHOD, NOT_IMPLEMENTED, PARAMETER_INVALID = 1, 2, 3, 4
"""Statuses of QMF."""

Arguments = dict[str, Any]
Done = tuple[dict[str, Any], bool]
"""The results of a method, and whether its reply must wait for the store."""


class MethodError(Exception):
    """What is wrong with a request; `str()` is a text for the client."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def call(host: VirtualHost, facts: Facts, access: Access, target: str, name: str, arguments: Arguments,
         finished: Callable[[], None]) -> Done | None:
    """Call a method of the object with this full name, for somebody who may do what `access` says. None: it takes its
    time, and `finished` will be called.

    Raises: MethodError, BrokerError.
    """
    kind, key = kind_and_key(target)
    access.manage("access", "method", name, {"schemapackage": package_of(kind), "schemaclass": kind})
    connection = session = None
    if kind == "connection":
        connection = _connection(host, key)
    elif kind == "session":
        connection, session = _session(host, key)
    if kind in ("link", "bridge"):
        return _gateway(host, _Given(access, arguments, finished), kind, key, name)
    if not ((kind == "broker" and key == BROKER_KEY) or (kind == "queue" and key in host.queues)
            or (kind == "acl" and key == ACL_KEY and host.broker.policy.rules()[0])
            or (kind == "exchange" and key in host.exchanges) or connection is not None):
        raise MethodError(UNKNOWN_OBJECT, "No object found with that ID")
    if name not in CLASSES[kind].methods:
        raise MethodError(UNKNOWN_METHOD, f"{kind} has no method {name}")
    given = _Given(access, arguments, finished)
    if kind == "broker":
        return _BROKER[name](host, facts, given)
    if kind == "queue":
        return _QUEUE[name](host, host.queue(key), given)
    if kind == "acl":
        return _reload(host, access)
    assert connection is not None
    access.manage("delete", kind, key, {"username": connection.user})
    if session is None:
        host.broker.management.close_connection(connection)
    elif name in ("close", "detach"):
        host.broker.management.close_session(connection, session)
    else:
        raise MethodError(NOT_IMPLEMENTED, f"session.{name} is not implemented")
    return {}, False


class _Given:
    """A method's arguments, what its caller may do, and whom to tell that it has come to its end. All methods raise
    MethodError."""

    def __init__(self, access: Access, values: Arguments, finished: Callable[[], None]) -> None:
        self.access = access
        self.values = values
        self._finished = finished

    def done(self, number: int) -> None:
        """What was to be done to so many messages is done."""
        self._finished()

    def text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            raise MethodError(PARAMETER_INVALID, f"argument {name} is missing, or no text")
        return str(value)

    def number(self, name: str) -> int:
        value = self.values.get(name, 0)
        if not isinstance(value, int) or value < 0:
            raise MethodError(PARAMETER_INVALID, f"argument {name} is no number of 0 or more")
        return int(value)

    def flag(self, name: str) -> bool:
        return truth(name, self.values.get(name, False))

    def map(self, name: str) -> dict[str, Any]:
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise MethodError(PARAMETER_INVALID, f"argument {name} is no map")
        return dict(value)


    def choice(self, count: str) -> Choice:
        """Which messages are meant: the first so many (0: all), of those that `filter` is for."""
        number, wanted = self.number(count), self.map("filter")
        if not wanted:
            return Choice(number)
        params = wanted.get("filter_params")
        if wanted.get("filter_type") != "header_match_str" or not isinstance(params, dict):
            raise MethodError(PARAMETER_INVALID, "a filter has filter_type header_match_str, and filter_params")
        key, value = params.get("header_key"), params.get("header_value")
        if not isinstance(key, str) or not key or not isinstance(value, str):
            raise MethodError(PARAMETER_INVALID, "filter_params has header_key and header_value, both text")
        return Choice(number, None, key, value)


def truth(name: str, value: Any) -> bool:
    """A truth value as tools write them: 1, true, "yes". Raises: MethodError."""
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False, "": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise MethodError(PARAMETER_INVALID, f"{name} is neither true nor false")


# Making and unmaking.


def _create(host: VirtualHost, facts: Facts, given: _Given) -> Done:
    kind, name, properties = given.text("type"), given.text("name"), given.map("properties")
    strict = given.flag("strict")
    access = given.access
    if kind == "queue":
        durable, auto_delete = _pop_flag(properties, "durable"), _pop_flag(properties, "auto-delete")
        exclusive = _pop_flag(properties, "exclusive")
        arguments = _arguments(properties, options.QUEUE_NAMES, strict)
        access.declare_queue(name, durable, exclusive, auto_delete, arguments)
        if name in host.queues:
            raise MethodError(PARAMETER_INVALID, f"Object already exists: {name}")
        if exclusive:
            raise MethodError(PARAMETER_INVALID, "an exclusive queue is for the connection that declares it; "
                                                 "management cannot make one")
        return {}, host.declare_queue(name, durable, False, auto_delete, arguments, None)[1]
    if kind == "exchange":
        durable, auto_delete = _pop_flag(properties, "durable"), _pop_flag(properties, "auto-delete")
        exchange_type = str(properties.pop("exchange-type", "topic"))
        arguments = _arguments(properties, options.EXCHANGE_NAMES, strict)
        access.declare_exchange(name, exchange_type, durable, auto_delete, arguments)
        if name in host.exchanges:
            raise MethodError(PARAMETER_INVALID, f"Object already exists: {name}")
        return {}, host.declare_exchange(name, exchange_type, durable, auto_delete, False, arguments)
    if kind == "binding":
        source, destination, key = _ends(name)
        access.bind(source, destination, True, key, properties)
        return {}, host.bind(host.exchange(source), host.queue(destination), key, properties)
    if kind in ("link", "bridge"):
        if kind == "bridge" and properties.setdefault("virtual_host", host.name) != host.name:
            raise MethodError(PARAMETER_INVALID, "a bridge is made in the virtual host that it is for")
        access.manage("create", kind, name, _texts(properties))
        _control(host).create(kind, name, properties)
        return {}, True
    raise MethodError(PARAMETER_INVALID, f"objects of type '{kind}' cannot be made here")


def _delete(host: VirtualHost, facts: Facts, given: _Given) -> Done:
    kind, name, how = given.text("type"), given.text("name"), given.map("options")
    access = given.access
    if kind == "queue":
        access.delete_queue(name)
        return {}, host.broker.management.delete_queue(host, name, _pop_flag(how, "if_unused"),
                                                       _pop_flag(how, "if_empty"))
    if kind in ("link", "bridge"):
        access.manage("delete", kind, name, {})
        _part(host, kind, name)
        _control(host).delete(kind, name)
        return {}, True
    if kind == "exchange":
        access.delete_exchange(name)
        host.exchange(name)
        return {}, host.delete_exchange(name, _pop_flag(how, "if_unused"))
    if kind == "binding":
        source, destination, key = _ends(name)
        access.unbind(source, destination, True, key)
        exchange, queue = host.exchange(source), host.queue(destination)
        bindings = [each for each in host.bound_to.get(queue, {}).values()
                    if each.source is exchange and each.routing_key == key]
        if not bindings:
            raise NotFound(f"no binding '{name}' in vhost '{host.name}'")
        waits = [host.unbind(exchange, queue, key, each.arguments) for each in bindings]
        return {}, any(waits)
    raise MethodError(PARAMETER_INVALID, f"objects of type '{kind}' cannot be deleted here")


def _texts(properties: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in properties.items()}


def _ends(name: str) -> tuple[str, str, str]:
    """What `exchange/queue/key` names. Raises: MethodError."""
    exchange, slash, rest = name.partition("/")
    queue, _, key = rest.partition("/")
    if not slash:
        raise MethodError(PARAMETER_INVALID, f"'{name}' is not written as exchange/queue/key")
    return exchange, queue, key


def _pop_flag(properties: dict[str, Any], name: str) -> bool:
    return truth(name, properties.pop(name, False))


def _arguments(properties: dict[str, Any], table: dict[str, Any], strict: bool) -> dict[str, Any]:
    """What is left of the properties. strict: there is to be no unknown one. Raises: MethodError."""
    unknown = [name for name in properties if name not in table and options.fairshare_level(name) < 0]
    if strict and unknown:
        raise MethodError(PARAMETER_INVALID, f"unrecognised properties: {', '.join(sorted(unknown))}")
    return properties


# The broker.


def _echo(host: VirtualHost, facts: Facts, given: _Given) -> Done:
    return {"sequence": UInt(given.number("sequence")), "body": given.values.get("body", "")}, False


def _query(host: VirtualHost, facts: Facts, given: _Given) -> Done:
    kind, name = given.text("type"), given.text("name")
    if kind not in OBJECTS:
        raise MethodError(PARAMETER_INVALID, f"there are no objects of type '{kind}'")
    given.access.manage("access", "query", kind, {"schemapackage": package_of(kind), "schemaclass": kind})
    for found in find(host, facts, object_name(kind, name)):
        if found is not None:
            return {"results": CLASSES[kind].typed(found.values)}, False
    raise NotFound(f"no {kind} '{name}' in vhost '{host.name}'")


_LEVELS = {"trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "notice": logging.INFO,
           "warning": logging.WARNING, "error": logging.ERROR, "critical": logging.CRITICAL}


def _get_log_level(host: VirtualHost, facts: Facts, given: _Given) -> Done:
    given.access.manage("access", "broker", BROKER_KEY, {"property": "logLevel"})
    level = logging.getLogger().getEffectiveLevel()
    return {"level": f"{logging.getLevelName(level).lower()}+"}, False


def _set_log_level(host: VirtualHost, facts: Facts, given: _Given) -> Done:
    """The level of all that is logged; qpidd's selections of categories are not known here."""
    given.access.manage("update", "broker", BROKER_KEY, {"property": "logLevel"})
    text = given.text("level")
    level = _LEVELS.get(text.strip().removesuffix("+"))
    if level is None:
        raise MethodError(PARAMETER_INVALID, f"'{text}' is no level: it is one of {', '.join(_LEVELS)}, with a +")
    logging.getLogger().setLevel(level)
    return {}, False


def _never(result: str, what: str) -> dict[str, Callable[[VirtualHost, Facts, _Given], Done]]:
    """Getting and setting of what is always off here."""
    def read(host: VirtualHost, facts: Facts, given: _Given) -> Done:
        given.access.manage("access", "broker", BROKER_KEY, {"property": result})
        return {result: False}, False

    def write(host: VirtualHost, facts: Facts, given: _Given) -> Done:
        given.access.manage("update", "broker", BROKER_KEY, {"property": result})
        if given.flag(result):
            raise MethodError(NOT_IMPLEMENTED, f"{what} are not implemented")
        return {}, False
    return {"get": read, "set": write}


_STAMPS = _never("receive", "timestamps in messages received")
_HIRES = _never("logHires", "high resolution timestamps")


def _move(host: VirtualHost, facts: Facts, given: _Given) -> None:
    given.access.manage("move", "queue", given.text("srcQueue"), {"queuename": given.text("destQueue")})
    source, target = _source_and_target(host, given)
    moving.move(source, target, given.choice("qty"), given.done)


def _copy(host: VirtualHost, facts: Facts, given: _Given) -> None:
    """Likewise; a method of our own."""
    given.access.manage("copy", "queue", given.text("srcQueue"), {"queuename": given.text("destQueue")})
    source, target = _source_and_target(host, given)
    moving.copy(source, target, given.choice("qty"), given.done)


def _source_and_target(host: VirtualHost, given: _Given) -> tuple[Queue, Queue]:
    source, target = host.queues.get(given.text("srcQueue")), host.queues.get(given.text("destQueue"))
    if source is None or target is None:
        raise MethodError(PARAMETER_INVALID, f"{'srcQueue' if source is None else 'destQueue'}: there is no such queue")
    return source, target


def _redirect(host: VirtualHost, facts: Facts, given: _Given) -> Done | None:
    """An empty target ends the redirect, and brings the messages back."""
    name, target = given.text("sourceQueue"), given.text("targetQueue")
    given.access.manage("redirect", "queue", name, {"queuename": target})
    source = host.queue(name)
    management = host.broker.management
    if target:
        moving.redirect(source, host.queue(target))
        management.redirected(source, target, True)
        return {}, False
    peer = source.peer
    moving.undo_redirect(source, given.done)
    management.redirected(source, "" if peer is None else peer.name, False)
    return None


_BROKER: dict[str, Callable[[VirtualHost, Facts, _Given], Done | None]] = {
    "queueMoveMessages": _move, "queueCopyMessages": _copy, "queueRedirect": _redirect,
    "create": _create, "delete": _delete, "echo": _echo, "query": _query, "getLogLevel": _get_log_level,
    "setLogLevel": _set_log_level, "getTimestampConfig": _STAMPS["get"], "setTimestampConfig": _STAMPS["set"],
    "getLogHiresTimestamp": _HIRES["get"], "setLogHiresTimestamp": _HIRES["set"]}


# The gateway.


def _control(host: VirtualHost) -> GatewayControl:
    gateway = host.broker.management.gateway
    if gateway is None:
        raise MethodError(NOT_IMPLEMENTED, "this broker has no gateway")
    return gateway


def _part(host: VirtualHost, kind: str, name: str) -> ManagedPart:
    for part in gateway_parts(host, kind):
        if part.name == name:
            return part
    raise NotFound(f"no {kind} '{name}'")


def _gateway(host: VirtualHost, given: _Given, kind: str, key: str, name: str) -> Done:
    """A method of a link or a bridge."""
    if name != "bridge":
        given.access.manage("delete" if name == "close" else "update", kind, key, {})
    part = _part(host, kind, key)
    if name not in CLASSES[kind].methods:
        raise MethodError(UNKNOWN_METHOD, f"{kind} has no method {name}")
    if name == "bridge":
        _bridge(host, given, part)
    elif name == "close":
        _control(host).delete(kind, part.name)
    else:
        _control(host).pause(part.name, name == "pause")
    return {}, True


def _connect(host: VirtualHost, facts: Facts, given: _Given) -> Done:
    """A link, as qpid-route makes them; if there is one to that broker, it will do."""
    address, port, transport = given.text("host"), given.number("port"), given.text("transport")
    if transport not in routes.SCHEMES:
        raise MethodError(PARAMETER_INVALID, f"there are no links by {transport}: only by tcp and ssl")
    name, user = routes.link_name(transport, address, port), given.text("username")
    properties = routes.link_properties(transport, address, port, given.text("authMechanism"), user)
    given.access.manage("create", "link", name, _texts(properties))
    if not any((part.values["host"], part.values["port"]) == (address, port) for part in gateway_parts(host, "link")):
        _control(host).create("link", name, properties, given.flag("durable"), given.text("password") if user else "")
    return {}, True


_BROKER["connect"] = _connect


def _bridge(host: VirtualHost, given: _Given, link: ManagedPart) -> None:
    durable = given.flag("durable")
    if durable and not link.values["durable"]:
        raise MethodError(PARAMETER_INVALID, f"link '{link.name}' is not durable, and so no bridge on it can be")
    properties = routes.bridge_properties(
        link.name, given.text("src"), given.text("dest"), given.text("key"), given.flag("srcIsQueue"),
        given.flag("srcIsLocal"), given.flag("dynamic"), given.text("tag"), given.text("excludes"),
        given.number("credit"))
    name = routes.bridge_name(link.name, properties)
    given.access.manage("create", "bridge", name, _texts(properties))
    _control(host).create("bridge", name, {**properties, "virtual_host": host.name}, durable)


# Access rules.


def _reload(host: VirtualHost, access: Access) -> Done:
    access.manage("update", "broker", BROKER_KEY, {"property": "acl"})
    try:
        host.broker.policy.reload()
    except ValueError as error:
        raise MethodError(PARAMETER_INVALID, str(error)) from None
    return {}, False


# Queues and connections.


def _purge(host: VirtualHost, queue: Queue, given: _Given) -> Done | None:
    given.access.purge(queue.name)
    if given.number("request") or given.map("filter"):
        moving.delete(queue, given.choice("request"), given.done)
        return None
    return {}, queue.purge() > 0 and queue.durable


def _reroute(host: VirtualHost, queue: Queue, given: _Given) -> None:
    name = queue.settings.alternate if given.flag("useAltExchange") else given.text("exchange")
    given.access.manage("reroute", "queue", queue.name, {"exchangename": name or ""})
    if name is None:
        raise MethodError(PARAMETER_INVALID, "the queue has no alternate exchange")
    if name not in host.exchanges and not given.flag("useAltExchange"):
        raise MethodError(PARAMETER_INVALID, f"there is no exchange '{name}'")
    exchange = None if given.flag("useAltExchange") else host.exchanges[name]
    moving.reroute(queue, exchange, given.choice("request"), given.done)


_QUEUE: dict[str, Callable[[VirtualHost, Queue, _Given], Done | None]] = {"purge": _purge, "reroute": _reroute}


def _connection(host: VirtualHost, key: str) -> ManagedConnection | None:
    for connection in host.broker.management.connections_of(host):
        if connection_key(connection) == key:
            return connection
    return None


def _session(host: VirtualHost, key: str) -> tuple[ManagedConnection | None, ManagedSession | None]:
    for connection in host.broker.management.connections_of(host):
        for session in connection.managed_sessions():
            if session.name == key:
                return connection, session
    return None, None
